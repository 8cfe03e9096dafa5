"""A recording shown again: its samples as they come, each with what was on the screen. Nothing of Qt."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from app.sitting import placement_at
from gaze_capture.recording import Placement, Samples
from gaze_capture.recording_codec import read_recording
from gaze_capture.trackers.replay import ReplayTracker
from segmentation.study import Study


class Replay:
    """Plays a recording at its own pace.

    Raises
    ------
    UserError
        If the recording is damaged or too short.
    """

    def __init__(self, study: Study, recording_id: str) -> None:
        self.recording = read_recording(study.recordings_folder / recording_id)
        self.tracker = ReplayTracker(self.recording)
        self._waiting: deque[Samples] = deque()
        self._played = 0
        self.tracker.open()
        self.tracker.subscribe(self._waiting.append)

    def blocks(self) -> Iterator[tuple[Samples, Placement | None]]:
        """Yield the samples that came since the last call, with what was shown at the time of their recording."""
        while self._waiting:
            block = self._waiting.popleft()
            original = self.recording.time_ns[self._played : self._played + len(block)]
            self._played += len(block)
            yield block, placement_at(self.recording, int(original[-1])) if len(original) else None

    @property
    def seconds(self) -> float:
        """How much of the recording was played."""
        times = self.recording.time_ns
        return float(times[min(self._played, len(times)) - 1] - times[0]) / 1e9

    @property
    def ended(self) -> bool:
        """Whether all of it was played."""
        return self.tracker.ended and not self._waiting
