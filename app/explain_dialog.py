"""Who describes which images, with what a model is shown of them in view; and how far that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from PySide6.QtCore import QTimer
from PySide6.QtGui import QCloseEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.description_rows import breakable
from app.dialogs import Dialog, Row, narrow
from app.explain_cards import BackendCards, frame
from app.explain_local import LocalForm
from app.explain_preview import Preview, Seen, look
from app.explain_run import ExplainRun, RunView
from app.explain_server import ServerForm
from app.explain_settings import SettingsForm
from app.explain_words import WordsForm
from app.latest import Latest
from app.sending_consent import Sending, SendingConsent
from app.session import Session
from app.widgets import box, label, scrolled
from gaze_capture.errors import UserError
from segmentation.explainers.opening import BackendOptions
from segmentation.explaining import due_for_explaining
from segmentation.explanation_presets import ABSENT
from segmentation.own_words_store import words_folder
from segmentation.records import Key
from segmentation.sending import Permission, host_of, permission_for
from segmentation.server_keys import key_for

PREVIEW_MS = 120
LEFT_WIDTH = 520
ALL, THIS, LISTED = "all", "this", "listed"


@dataclass(frozen=True)
class _Counted:
    """What may be described of the images chosen."""

    due: list[str]
    waiting: int
    """How many have no pseudo-mask yet."""
    gazed: set[Key]
    """What has a region in the whole study."""
    absent: bool
    """Whether of all that is due it was said that the target is absent."""


class ExplainDialog(Dialog):
    """Stays beside the window: the preview follows the window's current image, and a run goes on when it closes.

    Parameters
    ----------
    begin : starts a run, or returns why not
    run : one that is on its way
    image_ids : the images listed where it was opened; None where it was opened for the whole study
    """

    def __init__(
        self,
        parent: QWidget,
        session: Session,
        begin: Callable[[ExplainRun], str],
        run: ExplainRun | None = None,
        image_ids: Sequence[str] | None = None,
    ) -> None:
        super().__init__(parent, self.tr("Describe regions"), scrolls=False)
        assert session.study is not None
        self.session, self.study, self._begin, self._owner = session, session.study, begin, parent
        self._listed = list(image_ids or ())
        self._due: list[str] = []
        self._gazed: set[Key] = set()
        self._permission: Permission | None = None
        self._counts = Latest(self)
        self._counts.answered.connect(self._counted)
        self._counts.failed.connect(lambda sentence, _: self.show_problem(breakable(sentence)))
        self._seeing = QTimer(self, singleShot=True, interval=PREVIEW_MS)
        self._seeing.timeout.connect(self._see)
        self.cards = BackendCards()
        self.images = narrow(QComboBox())
        self._images_row = Row(self.tr("Images"), self.images, " ")
        self.again = QCheckBox(self.tr("Ask again where it was asked before"))
        self.again.setToolTip(self.tr("What was edited or approved goes on counting; the history keeps all."))
        self.server = ServerForm(session.settings)
        self.local = LocalForm(session.settings)
        self.words = WordsForm(self.study, session.drafts)
        self.measured = label(
            self.tr(
                "Location, count, area, shape, boundary, colour, contrast and texture of each gazed region are "
                "measured from its pixels. Nothing is asked of a model, and no network is used."
            ),
            "muted",
            wrap=True,
        )
        self._forms = {
            "measured": self.measured,
            "annotator": self.words,
            "openai": self.server,
            "transformers": self.local,
        }
        self.settings = SettingsForm(self.study)
        self.preview = Preview()
        self.preview.made.connect(lambda _: self._follow())
        self.progress = RunView()
        self._pages = QStackedWidget()
        self._pages.addWidget(self._make_setup())
        self._pages.addWidget(self.progress)
        self.body.setContentsMargins(theme.LARGE, theme.LARGE, theme.LARGE, theme.LARGE)
        self.body.addWidget(self._pages, 1)
        self.close_button = self.add_button(self.tr("Close"), self.close)
        self.run_button = self.add_button("", self._run, "primary")
        # Enter belongs to the fields.
        for button in (self.close_button, self.run_button):
            button.setAutoDefault(False)
            button.setDefault(False)
        self._connect()
        self._fill_images()
        stored = str(session.settings.value("explain/backend", "") or "measured")
        self.cards.choose(stored if stored in self._forms else "measured")
        self.resize(min(1240, parent.width() - 24), max(740, min(820, parent.height() - 24)))
        if run is not None and not run.is_over:
            self._watch(run)

    # Parts

    def _make_setup(self) -> QWidget:
        left = QWidget()
        column = QVBoxLayout(left)
        box(column, margins=(0, 0, theme.NORMAL, 0), spacing=theme.WIDE)
        column.addWidget(self._images_row)
        column.addWidget(self.again)
        column.addWidget(self.cards)
        self._framed = {name: frame(form) for name, form in self._forms.items()}
        for framed in self._framed.values():
            column.addWidget(framed)
        column.addStretch(1)
        scroll = scrolled(left)
        # It scrolls downwards only; a small window has a dialog wider than itself.
        scroll.setMinimumWidth(LEFT_WIDTH)
        right = QVBoxLayout()
        box(right, spacing=theme.NORMAL)
        right.addWidget(self.preview, 1)
        settings = frame(self.settings)
        # The picture gives way, not the ticks.
        settings.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        right.addWidget(settings)
        page = QWidget()
        row = QHBoxLayout(page)
        box(row, spacing=theme.LARGE)
        row.addWidget(scroll, 11)
        row.addLayout(right, 10)
        return page

    def _connect(self) -> None:
        self.cards.chosen.connect(self._choose_backend)
        self.images.currentIndexChanged.connect(lambda _: self._count())
        self.settings.changed.connect(self._seeing.start)
        self.settings.changed.connect(self._follow)
        self.server.changed.connect(self._follow_server)
        self.server.permission_wanted.connect(self._look_at_permission)
        self.local.changed.connect(self._follow)
        self.words.saved.connect(self._words_saved)
        self.words.read_wanted.connect(self._start)
        self.progress.again_wanted.connect(self._ask_failed_again)
        self.progress.back_wanted.connect(self._back)
        self.session.changed.connect(self._on_change)

    # Which images

    def _fill_images(self) -> None:
        self.images.blockSignals(True)
        self.images.clear()
        self.images.addItem(self.tr("All that are due"), ALL)
        if self.session.image_id is not None:
            self.images.addItem(self.tr("This image: {image}").format(image=self.session.image_id), THIS)
        if self._listed and self._listed != [self.session.image_id]:
            self.images.addItem(self.tr("Those listed ({n:,})").format(n=len(self._listed)), LISTED)
        for split in sorted({image.split for image in self.study.images.values()}):
            self.images.addItem(self.tr("Split {split}").format(split=split), f"split:{split}")
        alone = self._listed == [self.session.image_id]
        wanted = (THIS if alone else LISTED) if self._listed else ALL
        self.images.setCurrentIndex(max(0, self.images.findData(wanted)))
        self.again.setChecked(len(self._listed) == 1)
        self.images.blockSignals(False)
        self._count()

    def _count(self) -> None:
        choice, study = str(self.images.currentData()), self.study
        split = choice.removeprefix("split:") if choice.startswith("split:") else None
        ids = {THIS: [self.session.image_id or ""], LISTED: self._listed}.get(choice)

        def count() -> object:
            due, waiting = due_for_explaining(study, split, ids)
            said, gazed = study.presences(), study.pseudomask_keys()
            gazed = {key for key in gazed if said.get(key) != ABSENT}
            absent = bool(due) and not any((image.id, target.id) in gazed for image, target in due)
            return _Counted(list(dict.fromkeys(image.id for image, _ in due)), waiting, gazed, absent)

        self._images_row.set_hint(self.tr("Being counted…"))
        self._counts.ask(count)
        self._seeing.start()

    def _counted(self, found: _Counted) -> None:
        # Nobody is asked about what is not there; together with others it is noted as absent.
        self._due, self._gazed = [] if found.absent else found.due, found.gazed
        waiting = found.waiting
        hint = self.tr("1 image") if len(self._due) == 1 else self.tr("{n:,} images").format(n=len(self._due))
        if waiting:
            hint += self.tr("; {n:,} more have no pseudo-mask yet").format(n=waiting)
        if found.absent:
            hint = self.tr("It was said that the target is absent: there is nothing to describe.")
        elif not self._due:
            hint = self.tr("None has a pseudo-mask yet: record gaze and make pseudo-masks first.")
        self._images_row.set_hint(hint, "muted" if self._due else "warning")
        self._follow()
        if self._example != self._previewed:
            self._seeing.start()

    @property
    def _example(self) -> str | None:
        """The image of the preview: the current one, or the first that is due where that has nothing to show."""
        current = self.session.image_id
        if not self._due or self.images.currentData() == THIS or self._has_region(current):
            return current
        return next(filter(self._has_region, self._due), self._due[0])

    def _has_region(self, image_id: str | None) -> bool:
        return image_id is not None and (image_id, self.session.target_id) in self._gazed

    # Following

    def _on_change(self, what: str) -> None:
        if self.session.study is not self.study:
            self.close()
        elif what in ("image", "target"):
            place = self.images.findData(THIS)
            if place >= 0 and self.session.image_id is not None:
                self.images.setItemText(
                    place, self.tr("This image: {image}").format(image=self.session.image_id)
                )
            if self.images.currentData() == THIS:
                self._count()
            self._seeing.start()
        elif what == "data":
            self._count()

    _previewed: str | None = None

    def _see(self) -> None:
        self._previewed = image_id = self._example
        kind = self.cards.value
        if kind == "annotator":
            image_id = self.session.image_id
            self.words.show_image(
                image_id, self.session.target_id, self.session.annotator, self.settings.settings()
            )
        self.preview.name(kind)
        if image_id is None:
            self.preview.show_nothing(self.tr("The study has no images yet."))
        elif self.settings.problem:
            self.preview.show_nothing(self.tr("The preset cannot be used."))
        else:
            self.preview.ask(self.study, image_id, self.session.target_id, self.settings.settings(), kind)

    def _choose_backend(self, kind: str) -> None:
        for name, framed in self._framed.items():
            framed.setVisible(name == kind)
        self.settings.show_for(kind)
        self.again.setVisible(kind != "annotator")
        self._follow_server()
        self._seeing.start()

    def _follow_server(self) -> None:
        self._permission = None
        if self.cards.value == "openai" and self.server.is_elsewhere:
            try:
                self._permission = permission_for(self.study, self.server.base_url, self.settings.settings())
            except UserError as error:
                self.show_problem(breakable(str(error)))
        since = ""
        if self._permission is not None:
            since = self.tr("Leaves this computer: allowed by {name} on {date}.").format(
                name=breakable(self._permission.given_by), date=self._permission.given_at[:10]
            )
        self.server.say_permission(since)
        self._follow(permission_too=False)

    def _follow(self, *, permission_too: bool = True) -> None:
        kind = self.cards.value
        if permission_too and kind == "openai":
            self._follow_server()
            return
        problem = self.settings.problem
        if kind == "openai":
            problem = problem or self.server.problem
        elif kind == "transformers":
            problem = problem or self.local.problem
        count = len(self._due)
        self.run_button.setVisible(kind != "annotator" and self._pages.currentIndex() == 0)
        words = {0: self.tr("Nothing to describe"), 1: self.tr("Describe 1 image")}
        self.run_button.setText(words.get(count, self.tr("Describe {n:,} images").format(n=count)))
        self.run_button.setEnabled(bool(count) and not problem)
        self.words.read_button.setEnabled(bool(count) and not self.settings.problem)
        self.run_button.setToolTip(problem)

    # Own words

    def _words_saved(self, image_id: str) -> None:
        self.session.refresh("descriptions")
        target = self.session.target_id
        parent = words_folder(self.study, image_id, target).parent
        told = {path.name for path in parent.iterdir()} if parent.is_dir() else set()
        names = list(self.study.images)
        place = names.index(image_id)
        following = [*names[place + 1 :], *names[:place]]
        found = next((name for name in following if f"{name}.{target}" not in told), None)
        if found is None:
            self.session.refresh("data")
            self.show_problem("")
            self.words.about.setText(self.tr("Every image has words now."))
        else:
            self.session.set_image(found)
            self._seeing.stop()
            self._see()
        self.words.text.setFocus()

    # Describing

    def _options(self) -> BackendOptions:
        kind = self.cards.value
        if kind == "openai":
            return self.server.options()
        if kind == "transformers":
            return self.local.options()
        return BackendOptions(kind)

    def _run(self) -> None:
        self.show_problem("")
        if self.cards.value == "openai":
            self.server.settle_key(self._check_permission)
        else:
            self._start()

    def _check_permission(self) -> None:
        try:
            self.settings.save()
        except UserError as error:
            self.show_problem(breakable(str(error)))
            return
        self._follow_server()
        if self.server.is_elsewhere and self._permission is None:
            self._with_example(self._ask_permission)
        else:
            self._start()

    def _with_example(self, then: Callable[[object], object]) -> None:
        """Make one of the images as it would be sent: what the preview shows may be of a moment ago."""
        study, target, settings = self.study, self.session.target_id, self.settings.settings()
        image_id = self._example
        host = host_of(self.server.base_url)
        if image_id is None:
            return

        def make(_: object) -> object:
            return look(study, image_id, target, settings, False), bool(key_for(host))

        self.work(make, self.tr("Making the picture"), then)

    def _sending(self, has_key: bool) -> Sending:
        return Sending(self.server.base_url, self.server.options().model or "", len(self._due), has_key)

    def _ask_permission(self, made: object) -> None:
        seen, has_key = cast("tuple[Seen, bool]", made)
        dialog = SendingConsent(self, self.study, self.session.annotator, self._sending(has_key), seen)
        dialog.given.connect(self._permitted)
        self.consent = dialog
        dialog.open()

    def _permitted(self, _: object) -> None:
        self._follow_server()
        self._start()

    def _look_at_permission(self) -> None:
        self._with_example(self._show_permission)

    def _show_permission(self, made: object) -> None:
        seen, has_key = cast("tuple[Seen, bool]", made)
        self._follow_server()
        dialog = SendingConsent(
            self, self.study, self.session.annotator, self._sending(has_key), seen, self._permission
        )
        dialog.given.connect(lambda _: self._follow_server())
        dialog.withdrawn.connect(self._follow_server)
        self.consent = dialog
        dialog.open()

    def _start(self) -> None:
        again = self.again.isChecked() and self.cards.value != "annotator"
        self._start_for(self._due, again=again)

    def _start_for(self, image_ids: Sequence[str], *, again: bool) -> None:
        try:
            self.settings.save()
        except UserError as error:
            self.show_problem(breakable(str(error)))
            return
        self.session.settings.setValue("explain/backend", self.cards.value)
        self.server.remember()
        if self.cards.value == "transformers":
            self.local.remember()
        run = ExplainRun(
            self.session, self.study, self._options(), image_ids, again=again, parent=self._owner
        )
        if problem := self._begin(run):
            self.show_problem(problem)
            run.deleteLater()
            return
        self._watch(run)

    def _watch(self, run: ExplainRun) -> None:
        self.progress.follow(run)
        self._pages.setCurrentIndex(1)
        self._follow()

    def _ask_failed_again(self, image_ids: list[str]) -> None:
        self._start_for(image_ids, again=False)

    def _back(self) -> None:
        self._pages.setCurrentIndex(0)
        self._count()

    # Closing

    def done(self, result: int) -> None:
        """End the threads; a run goes on."""
        self._stop()
        super().done(result)

    def closeEvent(self, event: QCloseEvent) -> None:
        """End the threads; a run goes on."""
        self._stop()
        super().closeEvent(event)

    def _stop(self) -> None:
        self._seeing.stop()
        self.preview.stop()
        self.server.stop()
        self.local.stop()
        self._counts.stop()
