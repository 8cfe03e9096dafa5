"""Where the participant sees the images: in the program's window, or on a display that shows nothing else."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QScreen

from app.canvas import Canvas
from app.canvas_frame import CanvasFrame
from app.participant_window import ParticipantWindow
from app.scene import Scene
from app.veil import Line, Veil


class Stage(QObject):
    """The canvas that is seen, and words over it. What is shown there, the operator's canvas shows, too.

    Parameters
    ----------
    frame
        The operator's canvas, which is the participant's as well unless a display is opened.
    """

    opened = Signal(object)
    """The Canvas on a display of its own was made."""
    closing = Signal()
    """The display is about to go, and the canvas on it."""
    display_lost = Signal()
    """The display was unplugged; the program's window shows the images again."""

    def __init__(self, frame: CanvasFrame, parent: QObject) -> None:
        super().__init__(parent)
        self.operator = frame.canvas
        self.window: ParticipantWindow | None = None
        self._for_targets: ParticipantWindow | None = None
        self._own: Canvas | None = None
        self._lines = [Line(self.operator)]
        self._veils = [Veil(self.operator)]

    @property
    def seen(self) -> Canvas:
        """The canvas that the participant looks at."""
        return self._own or self.operator

    @property
    def words(self) -> str:
        """What hides the image, if anything does."""
        return self._veils[-1].words

    def open_display(self, screen: QScreen) -> None:
        """Show the images on a screen, and nothing else there."""
        self.close_display()
        self.window = ParticipantWindow(screen)
        self.window.display_lost.connect(self._lose)
        self._own = canvas = Canvas()
        canvas.set_scene(self.operator.scene)
        canvas.window_changed.connect(self._follow)
        self._lines.append(Line(canvas))
        self._veils.append(Veil(canvas))
        self.window.host(canvas)
        self.window.present()
        self.opened.emit(canvas)

    def close_display(self) -> None:
        """Give the screen back."""
        if self.window is not None:
            self.closing.emit()
            window, self.window, self._own = self.window, None, None
            del self._lines[1:], self._veils[1:]
            window.close()
            window.deleteLater()

    def targets_window(self) -> ParticipantWindow:
        """Return the display for calibration targets: the own one, or one over the program's window for a while."""
        if self.window is None:
            self._for_targets = ParticipantWindow(self.operator.screen())
        window = self.window or self._for_targets
        assert window is not None
        window.present()
        return window

    def targets_over(self) -> None:
        """Show the images again where targets were shown."""
        if self._for_targets is not None:
            self._for_targets.withdraw()
            self._for_targets.deleteLater()
            self._for_targets = None
        if self.window is not None and self._own is not None:
            self.window.host(self._own)
            self.window.present()
            self._own.setFocus()

    def set_scene(self, scene: Scene | None) -> None:
        """Show a scene to both."""
        self.operator.set_scene(scene)
        if self._own is not None:
            self._own.set_scene(scene)

    def say(self, text: str) -> None:
        """Show a sentence above the image; take it away with an empty one."""
        for line in self._lines:
            line.say(text)

    def cover(self, title: str, text: str) -> None:
        """Hide the image behind words."""
        for veil in self._veils:
            veil.cover(title, text)

    def lift(self) -> None:
        """Show the image again."""
        for veil in self._veils:
            veil.lift()

    def _follow(self) -> None:
        """Let the operator see the image as the participant windows it."""
        if self._own is not None and self._own.scene is not None:
            self.operator.set_shown_window(self._own.shown_window)

    def _lose(self) -> None:
        self.close_display()
        self.display_lost.emit()
