"""The middle of a page with a canvas: the canvas, or why there is none."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QStackedWidget

from app.canvas_frame import CanvasFrame
from app.widgets import EmptyState


class Centre(QStackedWidget):
    """Shows a canvas where there are images, else one sentence and the way to the study."""

    study_wanted = Signal()

    def __init__(self, frame: CanvasFrame, icon: str, sentence: str) -> None:
        super().__init__()
        self._frame = frame
        self.empty = EmptyState(icon, sentence, self.tr("Go to the study"))
        self.empty.acted.connect(self.study_wanted)
        self.addWidget(frame)
        self.addWidget(self.empty)

    def show_empty(self) -> None:
        """Say why there is no image."""
        self.setCurrentWidget(self.empty)

    def show_frame(self) -> None:
        """Show the canvas."""
        self.setCurrentWidget(self._frame)
