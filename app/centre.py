"""The middle of a page with a canvas: the canvas, or why there is none."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QStackedWidget, QWidget

from app.canvas_frame import CanvasFrame
from app.widgets import EmptyState


class Centre(QStackedWidget):
    """Shows a canvas where there are images, else one sentence and the way to the study."""

    study_wanted = Signal()

    def __init__(self, frame: CanvasFrame, icon: str, sentence: str) -> None:
        super().__init__()
        self._frame = frame
        self._icon, self._sentence = icon, sentence
        self._view: QWidget | None = None
        self.empty = EmptyState(icon, sentence, self.tr("Go to the study"))
        self.empty.acted.connect(self.study_wanted)
        self.empty.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.addWidget(frame)
        self.addWidget(self.empty)

    def show_empty(self, opened: bool = False) -> None:
        """Say why there is no image; `opened` where a study is, without any."""
        sentence = self.tr("This study has no images yet.") if opened else self._sentence
        self.empty.set(self._icon, sentence, self.tr("Go to the study"))
        self.setCurrentWidget(self.empty)

    def show_sentence(self, sentence: str) -> None:
        """Say why no image is shown where there are some; the page's keys go on being heard."""
        had_keys = self._frame.canvas.hasFocus()
        self.empty.set(self._icon, sentence)
        self.setCurrentWidget(self.empty)
        if had_keys:
            self.take_keys()

    def take_keys(self) -> None:
        """Have the keys, for the canvas or, where none is shown, for the page."""
        shown = self._frame.canvas if self.currentWidget() is self._frame else self.empty
        shown.setFocus()

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
        had_keys = self.empty.hasFocus()
        self.setCurrentWidget(self._frame)
        if had_keys:
            self.take_keys()
