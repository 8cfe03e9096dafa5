"""How gaze comes into the study: whose it is, on which target and images, which fixations are taken."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QLineEdit, QVBoxLayout, QWidget

from app import theme
from app.dialogs import Row, narrow
from app.gaze_questions import NumberField, Numbers
from app.session import Session
from app.widgets import Fold, box
from segmentation.gaze_preview import GazePreview
from segmentation.study import TEST_SPLIT, Study


class GazeHow(QWidget):
    """Rows that hold for all files; those are hidden of which there is nothing to choose."""

    changed = Signal()
    split_changed = Signal()

    def __init__(self, session: Session, study: Study) -> None:
        super().__init__()
        self.annotator = QLineEdit(session.annotator)
        self.annotator.textChanged.connect(lambda _: self.changed.emit())
        self.target = narrow(QComboBox())
        for target in study.targets:
            self.target.addItem(target.name or target.id, target.id)
        self.target.setCurrentIndex(max(0, self.target.findData(session.target_id)))
        self.split = narrow(QComboBox())
        self.split.addItem(self.tr("All images"), None)
        splits = sorted({image.split for image in study.images.values()})
        names = {"train": self.tr("Training"), TEST_SPLIT: self.tr("Testing")}
        for split in splits:
            self.split.addItem(names.get(split, split), split)
        self.split.currentIndexChanged.connect(lambda _: self.split_changed.emit())
        self.fixations = narrow(QComboBox())
        self.fixations.addItem(self.tr("Detected here, in the samples"), "detect")
        self.fixations.addItem(self.tr("The file's own, without the samples"), "own")
        self.width_deg = Numbers(
            [NumberField(self.tr("Width of the images in degrees"), (0.1, 179))], "", "°"
        )
        self.width_deg.changed.connect(self.changed)
        self.simulated = narrow(QComboBox())
        for text, value in (
            (self.tr("A person, as far as the file tells"), None),
            (self.tr("Nobody: simulated from masks"), "masks"),
            (self.tr("Nobody: simulated from saliency"), "saliency"),
        ):
            self.simulated.addItem(text, value)
        self.annotator_row = Row(self.tr("Annotator"), self.annotator, self.tr("Whose gaze it is."))
        self.target_row = Row(self.tr("Target"), self.target, self.tr("What was looked for."))
        self.split_row = Row(self.tr("Split"), self.split)
        self.fixations_row = Row(self.tr("Fixations"), self.fixations)
        self.width_row = Row(
            self.tr("Images' width"),
            self.width_deg,
            self.tr("On the screen. Left open, the heatmap's blur is a share of the image."),
        )
        self.fold = Fold(self.tr("More options"))
        folded = QVBoxLayout(self.fold.body)
        box(folded, margins=(0, theme.NORMAL, 0, 0), spacing=theme.WIDE)
        folded.addWidget(Row(self.tr("Who looked"), self.simulated))
        self.target_row.setVisible(len(study.targets) > 1)
        self.split_row.setVisible(len(splits) > 1)
        column = QVBoxLayout(self)
        box(column, spacing=theme.WIDE)
        for row in (
            self.annotator_row,
            self.target_row,
            self.split_row,
            self.fixations_row,
            self.width_row,
            self.fold,
        ):
            column.addWidget(row)

    def show_for(self, previews: Sequence[GazePreview], *, split_asked: bool, split_open: bool) -> None:
        """Show what can be chosen for some files; `split_asked` where a name of theirs fits several images."""
        self.fixations_row.setVisible(
            any(one.inspection is not None and one.inspection.own is not None for one in previews)
        )
        self.width_row.setVisible(any(one.is_table for one in previews))
        self.split_row.set_hint(
            self.tr("A name in the file is that of several images: say which are meant.")
            if split_asked
            else "",
            "warning" if split_open else "muted",
        )

    def annotator_name(self) -> str:
        """Return whose gaze it is; empty where that is not said."""
        return self.annotator.text().strip()
