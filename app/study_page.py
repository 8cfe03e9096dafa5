"""Study: what there is, what is missing, and the one next step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QDragEnterEvent, QDragLeaveEvent, QDropEvent
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QScrollArea,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.dialogs import WarningRow
from app.gaze_endings import is_gaze_name
from app.jobs import StepProgress, Task
from app.mosaic import Mosaic
from app.overview import Overview
from app.page import Page
from app.session import Session
from app.study_cards import CountCard, DropZone, NextStep, images_words, text_warning
from app.study_exports import StudyExports
from app.study_imports import StudyImports
from app.surveyor import Surveyor
from app.targets_row import TargetsRow
from app.widgets import Button, ElidedLabel, FlowGrid, IconButton, IconLabel, box, clear, heading, label
from gaze_capture.errors import UserError
from segmentation.sources import format_of


def is_readable(path: Path) -> bool:
    """Whether a path is a folder, or a file of a format that images come in."""
    return path.is_dir() or (path.is_file() and format_of(path, named=False) is not None)


class StudyPage(Page):
    """Cards with counts, the next step as the primary button, import by dialog or by dropping."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.setAcceptDrops(True)
        self.overview = Overview()
        self.imports = StudyImports(self)
        self.exports = StudyExports(self)
        self._surveyor = Surveyor(self)
        self._surveyor.counted.connect(self._show)
        self._surveyor.failed.connect(self.error)
        self._stack = QStackedWidget()
        layout = QVBoxLayout(self)
        box(layout)
        layout.addWidget(self._stack)
        self.welcome = self._make_welcome()
        self._stack.addWidget(self.welcome)
        self._stack.addWidget(self._make_overview())

    # Without a study

    def _make_welcome(self) -> QWidget:
        page = QWidget()
        layout = QVBoxLayout(page)
        box(layout, margins=(theme.HUGE,) * 4, spacing=theme.LARGE)
        sentence = label(
            self.tr("A study is a folder that holds images, gaze, masks and models of one project."),
            wrap=True,
        )
        sentence.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        sentence.setProperty("role", "muted")
        title = heading(self.tr("Turn gaze into a segmentation model"), 20)
        self.new_button = Button(self.tr("New study…"), "folder-plus", "primary", self.new_study)
        open_button = Button(self.tr("Open a study…"), "folder-open", "", self.open_study)
        open_button.setStyleSheet("min-height: 38px;")
        buttons = QHBoxLayout()
        box(buttons, spacing=theme.WIDE)
        buttons.addStretch(1)
        buttons.addWidget(self.new_button)
        buttons.addWidget(open_button)
        buttons.addStretch(1)
        self._recent_box = QVBoxLayout()
        box(self._recent_box, spacing=2)
        recent = QWidget()
        recent.setLayout(self._recent_box)
        recent.setFixedWidth(420)
        layout.addStretch(2)
        layout.addWidget(IconLabel("eye", "accent", 48), 0, Qt.AlignmentFlag.AlignHCenter)
        layout.addWidget(title, 0, Qt.AlignmentFlag.AlignHCenter)
        # Without an alignment: a wrapped label that is placed by one is given a word's width.
        layout.addWidget(sentence)
        layout.addLayout(buttons)
        layout.addSpacing(theme.LARGE)
        layout.addWidget(recent, 0, Qt.AlignmentFlag.AlignHCenter)
        layout.addStretch(3)
        layout.addWidget(
            label(self.tr("Research use only. Not a medical device."), "muted"),
            0,
            Qt.AlignmentFlag.AlignHCenter,
        )
        return page

    def _list_recent(self) -> None:
        clear(self._recent_box)
        folders = self.session.recent()
        if folders:
            self._recent_box.addWidget(label(self.tr("Recent"), "muted"))
        for folder in folders[:5]:
            row = Button(
                Path(folder).name, "folder", "plain", functools.partial(self.open_folder, Path(folder))
            )
            row.setToolTip(folder)
            row.setStyleSheet("text-align: left;")
            self._recent_box.addWidget(row)

    # With a study

    def _make_overview(self) -> QWidget:
        body = QWidget()
        layout = QVBoxLayout(body)
        box(layout, margins=(32, theme.HUGE, 32, theme.HUGE), spacing=theme.LARGE)
        self._name = ElidedLabel()
        self._name.setFont(theme.heading_font(20))
        self._folder = ElidedLabel("", "muted")
        names = QVBoxLayout()
        box(names, spacing=2)
        names.addWidget(self._name)
        names.addWidget(self._folder)
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        head.addLayout(names, 1)
        self.import_images_button = Button(self.tr("Import images…"), "image", "", self.choose_images)
        self.import_gaze_button = Button(self.tr("Import gaze…"), "eye", "", self.imports.choose_gaze)
        self.export_button = Button(self.tr("Export…"), "export", "", lambda: self.exports.choose())
        self.export_button.setToolTip(self.tr("Masks, gaze, a model or a report, for other programs"))
        self.more_button = Button(self.tr("More"), "dots-three")
        self.more_button.setToolTip(self.tr("More to import and to check"))
        self.more_button.setMenu(self.imports.menu())
        for button in (
            self.import_images_button,
            self.import_gaze_button,
            self.export_button,
            self.more_button,
        ):
            head.addWidget(button)
        layout.addLayout(head)
        self.targets_row = TargetsRow()
        self.targets_row.edit_wanted.connect(self.imports.edit_targets)
        layout.addWidget(self.targets_row)
        self.text_warning = WarningRow(self.tr("Look at them"), self.imports.look_at_text)
        layout.addWidget(self.text_warning)
        self.next = NextStep()
        self.next.acted.connect(lambda: self._act(first=True))
        self.next.second_acted.connect(lambda: self._act(first=False))
        self.next.other_acted.connect(lambda: self.explain_wanted.emit(None))
        layout.addWidget(self.next)
        self.describe_button = IconButton(
            "sliders-horizontal",
            self.tr("Describe with… (own words, a server or a local model)"),
            on_click=lambda: self.explain_wanted.emit(None),
        )
        self.cards = {
            "images": CountCard("image", self.tr("Images")),
            "masks": CountCard("selection-all", self.tr("True masks")),
            "gaze": CountCard("eye", self.tr("Gaze")),
            "pseudomasks": CountCard("stack", self.tr("Pseudo-masks")),
            "explanations": CountCard("chat-text", self.tr("Explanations"), self.describe_button),
            "runs": CountCard("chart-line-up", self.tr("Runs")),
            "reviews": CountCard("check-square-offset", self.tr("Reviews")),
        }
        targets = {
            "gaze": "record",
            "runs": "train",
            "reviews": "review",
            "pseudomasks": "review",
            "explanations": "review",
        }
        for name, card in self.cards.items():
            page = targets.get(name)
            if page:
                card.clicked.connect(lambda page=page: self.page_wanted.emit(page))
            else:
                card.clicked.connect(self.choose_images if name == "images" else self._masks_card_clicked)
        self.drop_zone = DropZone(self.tr("Drop images, folders or\ngaze files here"))
        self.drop_zone.dropped.connect(self.take_files)
        # Eight cells fill the grid's rows; the eighth takes files.
        layout.addWidget(FlowGrid([*self.cards.values(), self.drop_zone], 230))
        self.mosaic = Mosaic()
        self.mosaic.chosen.connect(self._open_image)
        self.similar_button = Button(
            self.tr("Find similar images…"), "copy", "plain", self.imports.find_similar
        )
        self.similar_button.setToolTip(self.tr("Frames of one scene should not be split for testing"))
        below = QHBoxLayout()
        box(below, spacing=theme.NORMAL)
        self.mosaic_title = label(self.tr("Images"), "muted")
        below.addWidget(self.mosaic_title, 1)
        below.addWidget(self.similar_button)
        layout.addLayout(below)
        layout.addWidget(self.mosaic, 1)
        centred = QWidget()
        row = QHBoxLayout(centred)
        box(row, spacing=0)
        body.setMaximumWidth(1440)
        row.addWidget(body)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(centred)
        return scroll

    def refresh(self, what: str) -> None:
        """Count anew, in a thread: a network folder may be slow."""
        study = self.session.study
        if study is None:
            self._list_recent()
            self._stack.setCurrentIndex(0)
            return
        self._stack.setCurrentIndex(1)
        self._name.setText(study.name)
        self._folder.setText(str(study.folder))
        self.targets_row.show_targets(study.targets)
        if what in ("image", "annotator"):
            return
        self.mosaic.show_study(study)
        if what == "study":
            self._show(Overview(images=len(study.images)), counting=True)
        self._surveyor.request(study)

    def _masks_card_clicked(self) -> None:
        if self.overview.images:
            self.imports.choose_masks()
        else:
            self.choose_images()

    def _show(self, overview: Overview, *, counting: bool = False) -> None:
        self.overview = overview
        for widget in (self.similar_button, self.mosaic_title):
            widget.setVisible(bool(overview.images))
        self.export_button.setEnabled(bool(overview.images))
        o = overview
        if counting:
            self.text_warning.warn("")
            for card in self.cards.values():
                card.missing.setText(self.tr("counting…"))
            return
        simulated = self.tr("simulated from {what}").format(what=o.simulated_from) if o.simulated_from else ""
        complete = self.tr("complete") if o.pseudomasks else ""
        without_gaze = o.images - o.gaze
        gaze = [self.tr("{n:,} without").format(n=without_gaze)] if without_gaze else []
        made = (
            self.tr("complete; nothing there in {n:,}").format(n=o.absent)
            if complete and o.absent
            else complete
        )
        waiting = max(0, o.gaze - o.absent - o.pseudomasks)
        self.cards["images"].show_count(o.images, None, images_words(self, o))
        self.text_warning.warn(text_warning(self, o.burned_in))
        self.cards["masks"].show_count(
            o.masks,
            o.images,
            self.tr("for checking only") if o.masks else self.tr("none needed; helps checking"),
        )
        self.cards["gaze"].show_count(
            o.gaze, o.images, " · ".join([*gaze, *([simulated] if simulated else [])])
        )
        self.cards["pseudomasks"].show_count(
            o.pseudomasks,
            max(o.gaze - o.absent, 0),
            self.tr("{n:,} to make").format(n=waiting) if waiting else made,
        )
        missing = o.pseudomasks - o.explanations
        self.cards["explanations"].show_count(
            o.explanations,
            o.pseudomasks,
            self.tr("{n:,} to make").format(n=missing) if missing > 0 else complete,
        )
        runs = (
            self.tr("one is running")
            if o.running
            else self.tr("none finished")
            if not o.finished_run
            else self.tr("latest is done")
        )
        self.cards["runs"].show_count(o.runs, None, runs if o.runs else self.tr("none yet"))
        self.cards["reviews"].show_count(o.reviews, o.images, self.tr("{n:,} to go").format(n=o.to_review))
        self.next.show_step(o)

    def _act(self, *, first: bool) -> None:
        step = self.overview.next_step
        if step == "import":
            self.choose_images()
        elif step == "gaze":
            self.page_wanted.emit("record") if first else self.simulate()
        elif step == "pseudomasks":
            self.make_pseudomasks()
        elif step == "explain":
            self.explain() if first else self.page_wanted.emit("train")
        elif step == "predict":
            self.page_wanted.emit("train")
        else:
            self.page_wanted.emit("review" if step == "review" else "train")

    def _open_image(self, image_id: str) -> None:
        self.session.set_image(image_id)
        self.page_wanted.emit("review")

    def stop(self) -> None:
        """End the threads."""
        self.mosaic.thumbnails.stop()

    # Opening

    def new_study(self) -> None:
        """Ask for a folder, a name and targets, and make a study."""
        from app.new_study_dialog import NewStudyDialog

        dialog = NewStudyDialog(self)
        dialog.made.connect(self.session.set_study)
        dialog.open()

    def open_study(self) -> None:
        """Ask for a study and open it."""
        folder = QFileDialog.getExistingDirectory(self, self.tr("Choose a study's folder"))
        if folder:
            self.open_folder(Path(folder))

    def open_folder(self, folder: Path) -> None:
        """Open a study, or say why not."""
        try:
            self.session.open(folder)
        except UserError as error:
            self.error.emit(str(error), "")

    # Steps

    def choose_images(self) -> None:
        """Ask what to import and how."""
        self.imports.choose_images()

    def take_files(self, paths: list[Path]) -> None:
        """Import what was dropped: a study is opened, images are asked about, gaze comes in after its images."""
        if len(paths) == 1 and (paths[0] / "study.json").exists():
            self.open_folder(paths[0])
            return
        if self.session.study is None:
            self.error.emit(self.tr("Open or make a study first, then drop images on it."), "")
            return
        gaze = [path for path in paths if is_gaze_name(path)]
        images = [path for path in paths if path not in gaze and is_readable(path)]
        other = [path.name for path in paths if path not in gaze and path not in images]
        if other:
            self.error.emit(
                self.tr("{names}: neither an image, a folder nor a gaze file; left out.").format(
                    names=", ".join(other)
                ),
                "",
            )
        if images:
            self.imports.choose_images(images, gaze)
        else:
            self.imports.take_gaze(gaze)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take files anywhere on the page."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()
            self.drop_zone.heat(True)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        """Cool down."""
        self.drop_zone.heat(False)

    def dropEvent(self, event: QDropEvent) -> None:
        """Import what was dropped."""
        self.drop_zone.dropEvent(event)

    def simulate(self) -> None:
        """Simulate gaze for all images that have none."""
        study = self.session.study
        assert study is not None

        def work(progress: StepProgress) -> object:
            from segmentation import steps

            return steps.simulate(study, progress=progress)

        self._do(work, self.tr("Simulating gaze"))

    def make_pseudomasks(self) -> None:
        """Make all pseudo-masks."""
        study = self.session.study
        assert study is not None

        def work(progress: StepProgress) -> object:
            from segmentation import steps

            return steps.make_pseudomasks(study, progress=progress)

        self._do(work, self.tr("Making pseudo-masks"))

    def explain(self) -> None:
        """Describe all gazed regions by measurement."""
        study = self.session.study
        assert study is not None

        def work(progress: StepProgress) -> object:
            from segmentation import steps

            return steps.explain(study, progress=progress)

        self._do(work, self.tr("Describing regions"))

    def _do(
        self,
        work: Callable[[StepProgress], object],
        title: str,
        report: Callable[[Any], object] | None = None,
    ) -> None:
        task = Task(work, title, self)
        if report is not None:
            task.succeeded.connect(report)
        task.ended.connect(lambda: self.session.refresh("data"))
        self.start_task(task)
