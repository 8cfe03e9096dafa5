"""Review: the queue, the image with every layer the study has of it, and the verdict."""

from __future__ import annotations

import time

from PySide6.QtCore import QRunnable, Qt, QThreadPool
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QComboBox,
    QFormLayout,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.canvas_frame import CanvasFrame
from app.facts import NOTHING_KNOWN, Facts, gather
from app.image_list import ImageList, Row
from app.latest import NO_FLICKER_MS, Latest
from app.layer_panel import LayerPanel
from app.page import Page
from app.scene import Scene, SceneCache
from app.session import Session
from app.texts import short_name
from app.verdicts import Given, Word, give_verdict
from app.widgets import (
    Button,
    ElidedLabel,
    EmptyState,
    IconButton,
    Pill,
    box,
    clear,
    heading,
    label,
    line,
    scrolled,
)
from gaze_capture.errors import UserError
from segmentation.explanation import Explanation, load_explanation
from segmentation.gaze_index import look_quality
from segmentation.study import Study, StudyImage

PREFETCHED = 2


class _Prefetch(QRunnable):
    def __init__(self, cache: SceneCache, keys: list[tuple[str, str, str | None]]) -> None:
        super().__init__()
        self._cache, self._keys = cache, keys

    def run(self) -> None:
        """Build the scenes; what cannot be read will say so when it is shown."""
        for key in self._keys:
            try:
                self._cache.get(*key)
            except UserError:
                return


class ReviewPage(Page):
    """Keys: A accept, R reject, 0 nothing here, U ungradable, Z undo, Space or N next, Backspace back."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._cache: SceneCache | None = None
        self._cached_study: Study | None = None
        self._known = NOTHING_KNOWN
        self._facts = Latest(self)
        self._facts.answered.connect(self._learn)
        self._facts.failed.connect(self.error)
        self._given: list[Given] = []
        self._shown_at = 0.0
        self._timed: str | None = None
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(1)
        self._words = {
            "waiting": self.tr("To review"),
            "empty": self.tr("No mask yet"),
            "accepted": self.tr("Accepted"),
            "edited": self.tr("Edited"),
            "rejected": self.tr("Rejected"),
            "nothing": self.tr("Nothing here"),
            "ungradable": self.tr("Ungradable"),
        }
        self.list = ImageList(self.tr("Queue"), self._words.values())
        self.frame = CanvasFrame()
        self.canvas = self.frame.canvas
        self.empty = EmptyState("check-square-offset", "")
        self.empty.acted.connect(lambda: self.page_wanted.emit("study"))
        self._centre = QStackedWidget()
        self._centre.addWidget(self.frame)
        self._centre.addWidget(self.empty)
        layout = QHBoxLayout(self)
        box(layout, spacing=0)
        layout.addWidget(self.list)
        layout.addWidget(self._centre, 1)
        self._inspector = self._make_inspector()
        layout.addWidget(self._inspector)
        self.list.chosen.connect(self.session.set_image)
        self.list.chosen.connect(lambda _: self.canvas.setFocus())
        self.setFocusProxy(self.canvas)

    def _make_inspector(self) -> QFrame:
        inspector = QFrame()
        inspector.setObjectName("panelRight")
        inspector.setFixedWidth(324)
        outer = QVBoxLayout(inspector)
        box(outer, spacing=0)
        body = QWidget()
        column = QVBoxLayout(body)
        box(column, margins=(theme.LARGE, theme.WIDE, theme.LARGE, theme.LARGE), spacing=theme.NORMAL)
        title = QHBoxLayout()
        self.title = ElidedLabel()
        self.title.setFont(theme.heading_font(16))
        self.pill = Pill()
        title.addWidget(self.title, 1)
        title.addWidget(self.pill)
        self.facts = label("", "muted", wrap=True)
        self.runs = QComboBox()
        self.runs.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.runs.setMinimumContentsLength(12)
        self.runs.setToolTip(self.tr("Whose masks are shown and judged"))
        self.runs.currentIndexChanged.connect(lambda _: self._show_image())
        run_row = QHBoxLayout()
        run_row.addWidget(label(self.tr("Masks of"), "muted"))
        run_row.addWidget(self.runs, 1)
        self.layers = LayerPanel(self.canvas)
        self._origin = Pill()
        described = QHBoxLayout()
        described.addWidget(heading(self.tr("Description")), 1)
        described.addWidget(self._origin)
        self._attributes = QFormLayout()
        box(self._attributes, spacing=theme.SMALL)
        self._attributes.setHorizontalSpacing(theme.WIDE)
        self._attributes.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
        self._attributes.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        self._provenance = label("", "muted", wrap=True)
        column.addLayout(title)
        column.addWidget(self.facts)
        column.addLayout(run_row)
        column.addSpacing(theme.NORMAL)
        column.addWidget(heading(self.tr("Layers")))
        column.addWidget(self.layers)
        column.addSpacing(theme.NORMAL)
        column.addLayout(described)
        column.addLayout(self._attributes)
        column.addSpacing(theme.NORMAL)
        column.addWidget(heading(self.tr("Provenance")))
        column.addWidget(self._provenance)
        column.addStretch(1)
        outer.addWidget(scrolled(body), 1)
        outer.addWidget(line())
        outer.addWidget(self._make_verdict())
        return inspector

    def _make_verdict(self) -> QWidget:
        verdict = QWidget()
        grid = QGridLayout(verdict)
        box(grid, margins=(theme.LARGE, theme.WIDE, theme.LARGE, theme.LARGE), spacing=theme.NORMAL)

        def button(text: str, icon: str, tip: str, word: Word, role: str = "verdict") -> Button:
            made = Button(text, icon, role, on_click=lambda: self.give(word))
            made.setToolTip(tip)
            made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            return made

        self.accept_button = button(
            self.tr("Accept"), "check", self.tr("Accept this mask (A)"), "accepted", "primary"
        )
        self.reject_button = button(self.tr("Reject"), "x", self.tr("Reject this mask (R)"), "rejected")
        self.nothing_button = button(
            self.tr("Nothing here"), "prohibit", self.tr("The target is not in this image (0)"), "nothing"
        )
        self.ungradable_button = button(
            self.tr("Ungradable"), "question", self.tr("The image cannot be judged (U)"), "ungradable"
        )
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 1)
        grid.addWidget(self.accept_button, 0, 0)
        grid.addWidget(self.reject_button, 0, 1)
        grid.addWidget(self.nothing_button, 1, 0)
        grid.addWidget(self.ungradable_button, 1, 1)
        moves = QHBoxLayout()
        box(moves, spacing=theme.SMALL)
        self.undo_button = IconButton(
            "arrow-u-up-left", self.tr("Undo the last verdict (Z)"), text=self.tr("Undo"), on_click=self.undo
        )
        self._progress = label("", "muted")
        self._progress.setFont(theme.number_font(12))
        self._progress.setAlignment(Qt.AlignmentFlag.AlignCenter)
        back = IconButton("arrow-left", self.tr("Previous image (Backspace)"), on_click=lambda: self.go(-1))
        forth = IconButton("arrow-right", self.tr("Next image (Space or N)"), on_click=lambda: self.go(1))
        moves.addWidget(self.undo_button)
        moves.addWidget(self._progress, 1)
        moves.addWidget(back)
        moves.addWidget(forth)
        grid.addLayout(moves, 2, 0, 1, 2)
        return verdict

    # Following the session

    def refresh(self, what: str) -> None:
        """Show the study's queue and the current image."""
        study = self.session.study
        empty = study is None or not study.images
        self.list.setVisible(not empty)
        self._inspector.setVisible(not empty)
        if study is None or empty:
            self.list.set_rows([])
            self.empty.set(
                "check-square-offset",
                self.tr("Masks are reviewed here. Open a study with images first."),
                self.tr("Go to the study"),
            )
            self._centre.setCurrentWidget(self.empty)
            self.canvas.set_scene(None)
            self._show_details(None)
            return
        self._centre.setCurrentWidget(self.frame)
        fresh = study is not self._cached_study
        if fresh:
            self._cache = SceneCache(study)
            self._cached_study = study
            self.list.thumbnails.set_study(study)
            self._given.clear()
        if what in ("study", "data", "runs"):
            assert self._cache is not None
            self._cache.forget()
            self._list_runs(study)
        if what in ("study", "data", "runs", "reviews"):
            self._ask(study)
            if fresh and self._facts.pending:
                self._known = NOTHING_KNOWN
                self._list_images(study)
        if self.session.image_id not in study.images:
            self.session.image_id = next(iter(study.images))
        if what == "study":
            self._timed = None
        self._show_image()
        if what == "study":
            self.canvas.setFocus()

    def _list_runs(self, study: Study) -> None:
        chosen = self.runs.currentData()
        self.runs.blockSignals(True)
        self.runs.clear()
        for run_id in reversed(study.run_ids()):
            if (study.runs_folder / run_id / "predictions" / "student").is_dir():
                self.runs.addItem(self.tr("Student, run {run}").format(run=short_name(run_id)), run_id)
        self.runs.addItem(self.tr("Gaze alone (pseudo-masks)"), None)
        self.runs.setCurrentIndex(max(0, self.runs.findData(chosen) if chosen else 0))
        self.runs.blockSignals(False)

    def _ask(self, study: Study) -> None:
        run_id = self.runs.currentData()
        self._facts.ask(lambda: gather(study, run_id), NO_FLICKER_MS)

    def _learn(self, facts: Facts) -> None:
        self._known = facts
        if self.session.study is not None:
            self._list_images(self.session.study)
            if self.canvas.scene is not None:
                self._show_details(self.canvas.scene)

    def _list_images(self, study: Study) -> None:
        target, masked = self.session.target_id, self._known.masked
        self.list.set_rows(
            [self._row(image, (image.id, target) in masked) for image in study.images.values()]
        )
        self._count()

    def _row(self, image: StudyImage, has_mask: bool) -> Row:
        key = (image.id, self.session.target_id)
        state, token = self._state(key, has_mask)
        return Row(
            image.id, image.source_name, image, state, token, "" if image.split == "train" else image.split,
            presence=self._known.said.get(key), quality=look_quality(self._known.looks.get(key, ())),
        )  # fmt: skip

    def _state(self, key: tuple[str, str], has_mask: bool) -> tuple[str, str]:
        review = self._known.reviews.get(key)
        if review is None:
            return (self._words["waiting"], "warning") if has_mask else (self._words["empty"], "muted")
        if review.presence == "absent":
            return self._words["nothing"], "accent"
        if review.presence == "ungradable":
            return self._words["ungradable"], "muted"
        return self._words[review.verdict], "danger" if review.verdict == "rejected" else "accent"

    def _count(self) -> None:
        total = self.list.model.rowCount()
        self._progress.setText(
            self.tr("{done} of {all} reviewed").format(done=len(self._known.reviews), all=total)
        )
        self.undo_button.setEnabled(bool(self._given))

    def _show_image(self) -> None:
        study, image_id = self.session.study, self.session.image_id
        if study is None or image_id is None or self._cache is None:
            return
        run_id, target = self.runs.currentData(), self.session.target_id
        try:
            scene = self._cache.get(image_id, target, run_id)
        except UserError as error:
            self.canvas.set_scene(None)
            self._show_details(None)
            self.error.emit(str(error), "")
            self.list.select(image_id)
            return
        self.canvas.set_scene(scene)
        self.list.select(image_id)
        self._show_details(scene)
        if image_id != self._timed:
            # Looking again because another computer added something does not start the time anew.
            self._timed, self._shown_at = image_id, time.monotonic()
        ahead = [self.list.neighbour(image_id, step) for step in (1, -1, 2)][: PREFETCHED + 1]
        self._pool.start(_Prefetch(self._cache, [(name, target, run_id) for name in ahead if name]))

    def _show_details(self, scene: Scene | None) -> None:
        self.layers.show_scene(scene)
        study = self.session.study
        judged = scene is not None and (scene.student is not None or bool(scene.levels))
        for button in (self.accept_button, self.reject_button):
            button.setEnabled(judged)
        for button in (self.nothing_button, self.ungradable_button):
            button.setEnabled(scene is not None)
        clear(self._attributes)
        self.pill.setVisible(scene is not None)
        self._origin.hide()
        if scene is None or study is None:
            self.title.setText("")
            self.facts.setText("")
            self._provenance.setText("")
            return
        image = study.image(scene.image_id)
        height, width, _ = image.shape
        self.title.setText(image.source_name)
        self.facts.setText(
            self.tr("{width} × {height} px · split {split}").format(
                width=width, height=height, split=image.split
            )
        )
        self.pill.set(*self._state((scene.image_id, scene.target_id), judged))
        try:
            self._describe(load_explanation(study, scene.image_id, scene.target_id))
        except UserError as error:
            self._describe(None)
            self.error.emit(str(error), "")
        self._provenance.setText("\n".join(self._origins(study, scene)))

    def _describe(self, explanation: Explanation | None) -> None:
        if explanation is None:
            self._attributes.addRow(label(self.tr("None yet."), "muted"))
            return
        measured = explanation.backend == "measured"
        self._origin.show()
        self._origin.set(
            self.tr("Measured") if measured else self.tr("VLM"), "muted" if measured else "warning"
        )
        self._origin.setToolTip(
            self.tr("Computed from the pixels of the gazed region; nobody wrote it")
            if measured
            else self.tr("Written by {model}; check it").format(
                model=explanation.model or explanation.backend
            )
        )
        for name, value in explanation.attributes.items():
            if value in (None, "", []):
                continue
            words = (
                ", ".join(map(str, value))
                if isinstance(value, list)
                else f"{value:g}"
                if isinstance(value, float)
                else str(value)
            )
            self._attributes.addRow(
                label(name.replace("_", " ").capitalize(), "muted"), label(words, wrap=len(words) > 26)
            )

    def _origins(self, study: Study, scene: Scene) -> list[str]:
        lines = []
        for item in study.fixations.get((scene.image_id, scene.target_id), []):
            simulated = (
                self.tr(", simulated from {what}").format(what=item.simulated_from)
                if item.simulated_from
                else ""
            )
            lines.append(
                self.tr("Gaze: {annotator}, {count} fixations, {seconds:.1f} s{simulated}").format(
                    annotator=item.annotator,
                    count=len(item.duration_ms),
                    seconds=float(item.duration_ms.sum()) / 1000,
                    simulated=simulated,
                )
            )
        if scene.thresholds:
            levels = " / ".join(f"{value:g}" for value in scene.thresholds)
            lines.append(self.tr("Pseudo-mask: levels {levels}").format(levels=levels))
        if scene.student is not None:
            lines.append(self.tr("Prediction: {run}").format(run=scene.run_id))
        review = self._known.reviews.get((scene.image_id, scene.target_id))
        if review is not None:
            lines.append(
                self.tr("Review: {annotator}, {when}").format(
                    annotator=review.annotator, when=review.reviewed_at[:16].replace("T", " ")
                )
            )
        return lines or [self.tr("Nothing recorded yet.")]

    # Acting

    def go(self, step: int) -> None:
        """Go to the next (1) or previous (-1) image of those listed."""
        found = self.list.neighbour(self.session.image_id, step)
        if found is not None:
            self.session.set_image(found)

    def give(self, word: Word) -> None:
        """Store a verdict and go on."""
        study, image_id = self.session.study, self.session.image_id
        if study is None or image_id is None or self.canvas.scene is None:
            return
        target = self.session.target_id
        seconds = time.monotonic() - self._shown_at
        try:
            given = give_verdict(
                study, image_id, target, self.runs.currentData(), self.session.annotator, word, seconds
            )
        except UserError as error:
            self.error.emit(str(error), "")
            return
        if given is None:
            return
        self._given.append(given)
        # Found before the row changes: a filter on its state would make it vanish with its neighbours.
        following = self.list.neighbour(image_id, 1)
        self._after_verdict(study, image_id)
        if following is not None:
            self.session.set_image(following)
        else:
            self._show_image()
            self.notice.emit(self.tr("That was the last image of the list."))

    def undo(self) -> None:
        """Withdraw the last verdict given here and return to its image."""
        study = self.session.study
        if study is None or not self._given:
            return
        given = self._given[-1]
        try:
            study.withdraw_review(given.image_id, given.target_id, given.name)
        except UserError as error:
            self.error.emit(str(error), "")
            return
        self._given.pop()
        self._after_verdict(study, given.image_id)
        if self.session.image_id == given.image_id:
            self._show_image()
        self.session.set_image(given.image_id)

    def _after_verdict(self, study: Study, image_id: str) -> None:
        assert self._cache is not None
        self._cache.forget(image_id)
        target = self.session.target_id
        self._timed = None
        standing = study.reviews(image_id, target)
        self._known.reviews.pop((image_id, target), None)
        self._known.said.pop((image_id, target), None)
        if standing:
            self._known.reviews[image_id, target] = standing[-1]
        presence = study.presence(image_id, target)
        if presence is not None:
            self._known.said[image_id, target] = presence
        run_id = self.runs.currentData()
        has_mask = study.has_pseudomask(image_id, target) or (
            run_id is not None and study.prediction_path(run_id, image_id, target).exists()
        )
        self.list.model.set_row(self._row(study.image(image_id), has_mask))
        self._count()
        if self._facts.pending:
            # What is being read may not know of this verdict.
            self._ask(study)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Verdicts and moves, then the canvas's keys."""
        words: dict[int, Word] = {
            Qt.Key.Key_A: "accepted",
            Qt.Key.Key_R: "rejected",
            Qt.Key.Key_0: "nothing",
            Qt.Key.Key_U: "ungradable",
        }
        plain = not event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        key = event.key()
        if plain and key in words:
            if not event.isAutoRepeat():
                self.give(words[key])
        elif plain and key == Qt.Key.Key_Z:
            self.undo()
        elif plain and key in (Qt.Key.Key_Space, Qt.Key.Key_N, Qt.Key.Key_Right, Qt.Key.Key_Down):
            self.go(1)
        elif plain and key in (Qt.Key.Key_Backspace, Qt.Key.Key_Left, Qt.Key.Key_Up):
            self.go(-1)
        elif not self.canvas.handle_key(event):
            super().keyPressEvent(event)

    def keyReleaseEvent(self, event: QKeyEvent) -> None:
        """Pass on to the canvas."""
        if not self.canvas.handle_release(event):
            super().keyReleaseEvent(event)

    def stop(self) -> None:
        """End the threads."""
        self._facts.stop()
        self.list.thumbnails.stop()
        self._pool.clear()
        self._pool.waitForDone()
