"""Choosing true masks: a folder or a file, and which label is of which target."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.dialogs import Dialog, narrow, swatch
from app.import_choice import FoundLabel, guessed_target, labels_in
from app.jobs import Task
from app.widgets import Button, ElidedLabel, IconButton, box, label
from segmentation.masks import Labels
from segmentation.study import Study

MOST_LABELS = 40
"""More labels than this are not laid out; an atlas is imported on the command line."""


class MasksPart(QWidget):
    """Where the masks lie, and a table of label and target where files hold several labels."""

    changed = Signal()

    def __init__(self, dialog: Dialog, study: Study) -> None:
        super().__init__()
        self._dialog, self._study = dialog, study
        self.path: Path | None = None
        self.reading = False
        self._task: Task | None = None
        self.failure = ""
        self._found: list[FoundLabel] = []
        self.pickers: list[QComboBox] = []
        layout = QVBoxLayout(self)
        box(layout, spacing=theme.SMALL)
        row = QHBoxLayout()
        box(row, spacing=theme.NORMAL)
        self.shown = ElidedLabel(self.tr("None"), "muted")
        self.shown.setMinimumHeight(theme.CONTROL_HEIGHT)
        self.folder_button = Button(self.tr("Folder…"), on_click=self._ask_folder)
        self.folder_button.setToolTip(self.tr("A folder of masks that are named like the images"))
        self.file_button = Button(self.tr("File…"), on_click=self._ask_file)
        self.file_button.setToolTip(self.tr("One file of masks: NIfTI, NRRD, DICOM-SEG or COCO"))
        self.clear_button = IconButton(
            "x", self.tr("Import without masks"), on_click=lambda: self.choose(None)
        )
        self.clear_button.hide()
        for button in (self.folder_button, self.file_button):
            button.setAutoDefault(False)
        row.addWidget(self.shown, 1)
        row.addWidget(self.clear_button)
        row.addWidget(self.folder_button)
        row.addWidget(self.file_button)
        layout.addLayout(row)
        self.note = label("", "muted", wrap=True)
        self.note.hide()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.hide()
        layout.addWidget(self.note)
        layout.addWidget(self.bar)
        self.target_row = QWidget()
        target_line = QHBoxLayout(self.target_row)
        box(target_line, spacing=theme.NORMAL)
        self.target = self._picker(leave_out=False)
        self.target.setAccessibleName(self.tr("Target of the masks"))
        target_line.addWidget(label(self.tr("The masks show"), "muted"))
        target_line.addWidget(self.target, 1)
        self.target_row.hide()
        layout.addWidget(self.target_row)
        self.table = QWidget()
        self.grid = QGridLayout(self.table)
        box(self.grid, margins=(0, theme.NORMAL, 0, 0), spacing=theme.SMALL)
        self.grid.setHorizontalSpacing(theme.WIDE)
        self.grid.setColumnStretch(0, 1)
        self.grid.setColumnStretch(1, 1)
        self.table.hide()
        layout.addWidget(self.table)

    def _picker(self, *, leave_out: bool) -> QComboBox:
        picker = narrow(QComboBox())
        if leave_out:
            picker.addItem(self.tr("Leave out"), None)
        for target in self._study.targets:
            picker.addItem(swatch(target.colour, 12), target.name, target.id)
        return picker

    # Choosing

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, self.tr("Choose a folder of masks"))
        if folder:
            self.choose(Path(folder))

    def _ask_file(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, self.tr("Choose a file of masks"))
        if name:
            self.choose(Path(name))

    def choose(self, path: Path | None, note: str = "") -> None:
        """Take masks from a folder or file, and look which labels they hold; None for no masks."""
        self.path = path
        self.shown.setText(str(path) if path is not None else self.tr("None"))
        self.clear_button.setVisible(path is not None)
        self.failure = ""
        self._show_labels([])
        self._say(note)
        if self._task is not None:
            # What an earlier choice comes to is of no interest any more.
            self._task.succeeded.disconnect(self._read)
            self._task.failed.disconnect(self._failed)
            self._task.cancel()
            self._task = None
        if path is None:
            self.reading = False
            self.bar.hide()
            self.changed.emit()
            return
        study = self._study
        self.reading = True
        self.bar.setRange(0, 0)
        self.bar.show()
        self._task = self._dialog.work(
            lambda progress: labels_in(study, path, progress=progress),
            self.tr("Opening the masks"),
            self._read,
            self._show_progress,
            self._failed,
        )
        self.changed.emit()

    def _show_progress(self, done: int, total: int, _what: str) -> None:
        self.bar.setRange(0, total)
        self.bar.setValue(done)

    def _read(self, labels: list[FoundLabel]) -> None:
        self._end_reading()
        if len(labels) > MOST_LABELS:
            self._say(
                self.tr(
                    "{n} labels: too many to lay out here; only those named like a target come in."
                ).format(n=len(labels))
            )
            labels = []
        self._show_labels(labels)
        self.changed.emit()

    def _failed(self, sentence: str, _details: str) -> None:
        self._end_reading()
        self.failure = sentence
        self.changed.emit()

    def _end_reading(self) -> None:
        self._task = None
        self.reading = False
        self.bar.hide()

    def _say(self, text: str) -> None:
        self.note.setText(text)
        self.note.setVisible(bool(text))

    # Labels

    def _show_labels(self, labels: list[FoundLabel]) -> None:
        while self.grid.count():
            item = self.grid.takeAt(0)
            assert item is not None
            if (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        self._found, self.pickers = labels, []
        self.table.setVisible(bool(labels))
        self.target_row.setVisible(self.path is not None and not labels and len(self._study.targets) > 1)
        if not labels:
            return
        self.grid.addWidget(label(self.tr("Label in the files"), "muted"), 0, 0)
        self.grid.addWidget(label(self.tr("Target"), "muted"), 0, 1)
        for row, found in enumerate(labels, start=1):
            text = f"{found.word} · {found.name}" if found.name and found.name != found.word else found.word
            picker = self._picker(leave_out=True)
            picker.setAccessibleName(self.tr("Target of the label {label}").format(label=text))
            guess = guessed_target(found, self._study.targets)
            picker.setCurrentIndex(max(picker.findData(guess), 0) if guess is not None else 0)
            picker.currentIndexChanged.connect(lambda _: self.changed.emit())
            name = ElidedLabel(text)
            self.grid.addWidget(name, row, 0, Qt.AlignmentFlag.AlignVCenter)
            self.grid.addWidget(picker, row, 1)
            self.pickers.append(picker)

    def problem(self) -> str:
        """Return what stands against importing these masks, in a sentence, or nothing."""
        if self.failure:
            return self.failure
        if self.pickers and not self.labels():
            return self.tr("Choose a target for at least one label, or leave the masks out.")
        return ""

    def labels(self) -> Labels | None:
        """Return target id -> labels; None where files hold one label alone or none was chosen."""
        chosen: dict[str, tuple[str, ...]] = {}
        for found, picker in zip(self._found, self.pickers, strict=True):
            target = picker.currentData()
            if target is not None:
                chosen[target] = (*chosen.get(target, ()), found.word)
        return chosen or None

    def target_id(self) -> str | None:
        """Return the target that masks of one label are of, where there is a choice."""
        if self.path is None or self.pickers or len(self._study.targets) < 2:
            return None
        data = self.target.currentData()
        return str(data) if data is not None else None
