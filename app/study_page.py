"""Study: what there is, what is missing, and the one next step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QScrollArea,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.jobs import StepProgress, Task
from app.mosaic import Mosaic
from app.overview import Overview
from app.page import Page
from app.session import Session
from app.study_cards import CountCard, DropZone, NextStep
from app.surveyor import Surveyor
from app.widgets import Button, ElidedLabel, FlowGrid, IconLabel, box, clear, heading, label
from gaze_capture.errors import UserError
from segmentation.images import ENDINGS
from segmentation.study import Study


class StudyPage(Page):
    """Cards with counts, the next step as the primary button, import by dialog or by dropping."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.overview = Overview()
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
        layout.addWidget(sentence, 0, Qt.AlignmentFlag.AlignHCenter)
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
        self.import_gaze_button = Button(self.tr("Import gaze…"), "eye", "", self.choose_gaze)
        for button in (self.import_images_button, self.import_gaze_button):
            head.addWidget(button)
        layout.addLayout(head)
        self.next = NextStep()
        self.next.acted.connect(lambda: self._act(first=True))
        self.next.second_acted.connect(lambda: self._act(first=False))
        layout.addWidget(self.next)
        self.cards = {
            "images": CountCard("image", self.tr("Images")),
            "masks": CountCard("selection-all", self.tr("True masks")),
            "gaze": CountCard("eye", self.tr("Gaze")),
            "pseudomasks": CountCard("stack", self.tr("Pseudo-masks")),
            "explanations": CountCard("chat-text", self.tr("Explanations")),
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
                card.clicked.connect(self.choose_images)
        self.drop_zone = DropZone(self.tr("Drop images, folders or\na gaze table (CSV) here"))
        self.drop_zone.dropped.connect(self.take_files)
        # Eight cells fill the grid's rows; the eighth takes files.
        layout.addWidget(FlowGrid([*self.cards.values(), self.drop_zone], 230))
        self.mosaic = Mosaic()
        self.mosaic.chosen.connect(self._open_image)
        layout.addSpacing(theme.NORMAL)
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
        if what in ("image", "annotator"):
            return
        self.mosaic.show_study(study)
        if what == "study":
            self._show(Overview(images=len(study.images)), counting=True)
        self._surveyor.request(study)

    def _show(self, overview: Overview, *, counting: bool = False) -> None:
        self.overview = overview
        o = overview
        if counting:
            for card in self.cards.values():
                card.missing.setText(self.tr("counting…"))
            return
        simulated = self.tr("simulated from {what}").format(what=o.simulated_from) if o.simulated_from else ""
        complete = self.tr("complete") if o.pseudomasks else ""
        without_gaze = o.images - o.gaze
        gaze = [self.tr("{n} without").format(n=without_gaze)] if without_gaze else []
        waiting = max(0, o.gaze - o.absent - o.pseudomasks)
        self.cards["images"].show_count(
            o.images,
            None,
            self.tr("{n} kept for testing").format(n=o.test_images)
            if o.test_images
            else self.tr("all for training"),
        )
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
            self.tr("{n} to make").format(n=waiting) if waiting else complete,
        )
        missing = o.pseudomasks - o.explanations
        self.cards["explanations"].show_count(
            o.explanations,
            o.pseudomasks,
            self.tr("{n} to make").format(n=missing) if missing > 0 else complete,
        )
        runs = (
            self.tr("one is running")
            if o.running
            else self.tr("none finished")
            if not o.finished_run
            else self.tr("latest is done")
        )
        self.cards["runs"].show_count(o.runs, None, runs if o.runs else self.tr("none yet"))
        self.cards["reviews"].show_count(
            o.reviews, o.images, self.tr("{n} to go").format(n=o.images - o.reviews)
        )
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
        """Ask for a folder and make a study in it."""
        folder = QFileDialog.getExistingDirectory(self, self.tr("Choose an empty folder for the new study"))
        if folder:
            try:
                self.session.set_study(Study.create(Path(folder)))
            except UserError as error:
                self.error.emit(str(error), "")

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
        """Ask for a folder of images and import it; masks lying beside it in `masks` come along."""
        if self.session.study is None:
            return
        folder = QFileDialog.getExistingDirectory(self, self.tr("Choose a folder of images"))
        if folder:
            self.import_images([Path(folder)])

    def choose_gaze(self) -> None:
        """Ask for a gaze table and import it."""
        if self.session.study is None:
            return
        name, _ = QFileDialog.getOpenFileName(
            self, self.tr("Choose a gaze table"), "", self.tr("Gaze tables (*.csv)")
        )
        if name:
            self.import_gaze(Path(name))

    def take_files(self, paths: list[Path]) -> None:
        """Import what was dropped: a study is opened, tables are gaze, the rest images."""
        if len(paths) == 1 and (paths[0] / "study.json").exists():
            self.open_folder(paths[0])
            return
        if self.session.study is None:
            self.error.emit(self.tr("Open or make a study first, then drop images on it."), "")
            return
        tables = [path for path in paths if path.suffix.lower() == ".csv"]
        images = [path for path in paths if path.is_dir() or path.suffix.lower() in ENDINGS]
        other = [path.name for path in paths if path not in tables and path not in images]
        if other:
            self.error.emit(
                self.tr("{names}: neither an image, a folder nor a gaze table (CSV); left out.").format(
                    names=", ".join(other)
                ),
                "",
            )
        if images:
            self.import_images(images)
        for table in tables:
            self.import_gaze(table)

    def import_images(self, paths: list[Path]) -> None:
        """Import images in a thread."""
        study = self.session.study
        assert study is not None
        beside = paths[0].parent / "masks" if paths[0].is_dir() and paths[0].name == "images" else None
        masks = beside if beside is not None and beside.is_dir() else None

        def work(progress: StepProgress) -> object:
            from segmentation.importing import import_images

            return import_images(study, paths, masks=masks, progress=progress)

        def report(result: Any) -> None:
            skipped: tuple[tuple[str, str], ...] = result.skipped
            duplicates: tuple[str, ...] = result.duplicates
            text = self.tr("{n} images came in.").format(n=len(result.imported))
            if duplicates:
                text += " " + self.tr("{n} were in the study already.").format(n=len(duplicates))
            if skipped:
                text += " " + self.tr("{n} could not be read: {reason}").format(
                    n=len(skipped), reason=skipped[0][1]
                )
            self.notice.emit(text)

        self._do(work, self.tr("Importing images"), report)

    def import_gaze(self, table: Path) -> None:
        """Import a gaze table in a thread."""
        study, annotator = self.session.study, self.session.annotator
        assert study is not None

        def work(progress: StepProgress) -> object:
            from segmentation.gaze_import import import_gaze

            return import_gaze(study, table, annotator=annotator, progress=progress)

        self._do(work, self.tr("Importing gaze"), lambda _: self.notice.emit(self.tr("The gaze came in.")))

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

            return steps.explain(study, backend="measured", progress=progress)

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
