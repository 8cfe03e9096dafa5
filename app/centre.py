"""The middle of a page with a canvas: the canvas, or why there is none."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QStackedWidget, QWidget

from app.canvas_frame import CanvasFrame
from app.widgets import EmptyState


class Centre(QStackedWidget):
    """Shows a canvas where there are images, else one sentence and the way to the study."""

    study_wanted = Signal()

    def __init__(self, frame: CanvasFrame, icon: str, sentence: str) -> None:
        super().__init__()
        self._frame = frame
        self._sentence = sentence
        self._view: QWidget | None = None
        self.empty = EmptyState(icon, sentence, self.tr("Go to the study"))
        self.empty.acted.connect(self.study_wanted)
        self.addWidget(frame)
        self.addWidget(self.empty)

    def show_empty(self, opened: bool = False) -> None:
        """Say why there is no image; `opened` where a study is, without any."""
        self.empty.sentence.setText(self.tr("This study has no images yet.") if opened else self._sentence)
        self.setCurrentWidget(self.empty)

    def show_view(self, view: QWidget | None) -> None:
        """Show another view in the canvas's place, or the canvas again; the view stays its owner's."""
        if self._view is not None:
            self.removeWidget(self._view)
        self._view = view
        if view is None:
            self.show_frame()
        else:
            self.addWidget(view)
            self.setCurrentWidget(view)

    def show_frame(self) -> None:
        """Show the canvas."""
        self.setCurrentWidget(self._frame)
