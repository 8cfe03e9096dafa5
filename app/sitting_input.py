"""Keys, and the pointer that stands in for eyes, on the canvases while someone is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QKeyEvent, QMouseEvent

from app.canvas import Canvas
from app.keymap import Action, Keymap
from app.recorder import Recorder
from app.recording_flow import RecordingFlow
from app.slice_bar import SliceBar
from app.stage import Stage
from gaze_capture.trackers.mouse import MouseTracker

VIEW_KEYS = (Qt.Key.Key_W, Qt.Key.Key_Plus, Qt.Key.Key_Equal, Qt.Key.Key_Minus)
"""Keys of the canvas that hold while recording: they change how the image is seen, not what is drawn over it."""
ANYTIME: tuple[Action, ...] = ("pause", "drift_check", "end")
"""What can be done while no image is shown, too."""


class SittingInput(QObject):
    """Sees events before the canvases do, on a display of its own as well.

    Parameters
    ----------
    acts
        What each action of the keymap does.
    otherwise
        Acts on a key where nobody is recorded; returns whether it was taken.
    """

    def __init__(
        self,
        recorder: Recorder,
        flow: RecordingFlow,
        stage: Stage,
        slices: SliceBar,
        keymap: Keymap,
        acts: Mapping[Action, Callable[[], None]],
        otherwise: Callable[[QKeyEvent], bool],
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._recorder, self._flow, self._stage, self._slices = recorder, flow, stage, slices
        self._keymap, self._acts, self._otherwise = keymap, acts, otherwise
        stage.operator.installEventFilter(self)
        stage.opened.connect(lambda canvas: canvas.installEventFilter(self))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Take keys; pass the pointer on."""
        tracker = self._recorder.sitting.tracker if self._recorder.sitting is not None else None
        if event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            return self._otherwise(event) if tracker is None else self.handle_key(event)
        if isinstance(tracker, MouseTracker) and isinstance(watched, Canvas) and watched is self._stage.seen:
            if event.type() == QEvent.Type.MouseMove and isinstance(event, QMouseEvent):
                screen = watched.screen().geometry()
                place = event.globalPosition() - screen.topLeft()
                tracker.move(place.x() / screen.width(), place.y() / screen.height())
            elif event.type() == QEvent.Type.Leave:
                tracker.leave()
        return super().eventFilter(watched, event)

    def handle_key(self, event: QKeyEvent) -> bool:
        """Act on a key in the middle of a sitting; returns whether it was taken."""
        action, images = self._keymap.action_of(event), self._flow.phase == "images"
        if action in ("next_target", "previous_target") and not self._stage.operator.takes_tab:
            # There is but one target: Tab goes on to the next control.
            return False
        if action is not None:
            if event.isAutoRepeat():
                return True
            if images or action in ANYTIME:
                self._acts[action]()
            elif action == "next":
                self._flow.space()
            return True
        if images and self._slices.handle_key(event):
            return True
        plain = not event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        if event.key() in VIEW_KEYS and plain:
            return self._stage.seen.handle_key(event)
        # No letter may leave the page, or toggle a layer, in the middle of a recording.
        return plain and bool(event.text())
