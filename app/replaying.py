"""A recording replayed on the record page: canvas, live fixations and time line together."""

from __future__ import annotations

import time

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QKeyEvent

from app.live_gaze import LiveGaze
from app.replay import Replay
from app.replay_bar import ReplayBar
from gaze_capture.recording import Placement
from segmentation.study import Study


class Replaying(QObject):
    """Plays one recording at a time; the page shows the images it names."""

    shown = Signal(object)
    """The Placement that was on the screen; the page shows its image."""

    def __init__(self, live: LiveGaze, bar: ReplayBar, parent: QObject) -> None:
        super().__init__(parent)
        self.replay: Replay | None = None
        self._live, self._bar = live, bar
        self._placement: Placement | None = None
        self._last_s = 0.0
        bar.timeline.sought.connect(self.seek)
        bar.play_wanted.connect(self.play_or_pause)
        bar.step_wanted.connect(self.step)
        bar.speed_chosen.connect(self._set_speed)
        bar.hide()

    def start(self, study: Study, recording_id: str) -> None:
        """Play a recording from its beginning; UserError if it cannot be read."""
        self.replay = replay = Replay(study, recording_id)
        replay.speed = float(self._bar.speed.currentData())
        self._placement = None
        self._last_s = time.monotonic()
        self._live.begin()
        self._bar.timeline.show_recording(replay.spans, replay.events, replay.duration_s)
        self._bar.show()
        # The first image is there at once, whatever went before it.
        if replay.spans and not replay.spans[0].start_s <= 0:
            replay.seek(replay.spans[0].start_s)

    def end(self) -> None:
        """Leave the replay."""
        self.replay = self._placement = None
        self._bar.hide()

    def seek(self, seconds: float) -> None:
        """Go to a moment."""
        if self.replay is not None:
            self.replay.seek(seconds)
            # Its fixations are drawn anew, from the image's onset on.
            self._placement = None
            self.tick()

    def step(self, step: int) -> None:
        """Go to the next (1) or previous (-1) image."""
        if self.replay is not None:
            self.seek(self.replay.neighbour_s(step))

    def play_or_pause(self) -> None:
        """Stop the time, or let it run; from the end, from the beginning again."""
        replay = self.replay
        if replay is not None:
            if replay.ended and replay.playing:
                self.seek(0.0)
                return
            replay.playing = not replay.playing
            self.tick()

    def _set_speed(self, speed: float) -> None:
        if self.replay is not None:
            self.replay.speed = speed

    def tick(self) -> None:
        """Play what was measured since the last call."""
        replay = self.replay
        if replay is None:
            return
        now = time.monotonic()
        elapsed_s, self._last_s = now - self._last_s, now
        for block, placement in replay.advance(elapsed_s):
            if placement is None:
                self._live.count(block)
                continue
            if placement is not self._placement:
                before, self._placement = self._placement, placement
                other = before is None or before.image_id != placement.image_id
                self._live.place(placement, replay.recording.geometry, look=other)
                self.shown.emit(placement)
            self._live.take(block, block, replay.recording.geometry, placement)
        self._bar.show_state(replay.position_s, replay.duration_s, replay.playing and not replay.ended)

    def handle_key(self, event: QKeyEvent) -> bool:
        """Act on a key; returns whether it was one of the replay's."""
        if self.replay is None or event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier:
            return False
        key = event.key()
        if key == Qt.Key.Key_Space:
            if not event.isAutoRepeat():
                self.play_or_pause()
        elif key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            self.step(1 if key == Qt.Key.Key_Right else -1)
        elif key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal, Qt.Key.Key_Minus):
            self._bar.change_speed(-1 if key == Qt.Key.Key_Minus else 1)
        else:
            return False
        return True
