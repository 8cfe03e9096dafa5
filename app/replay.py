"""A recording shown again: its samples with what was on the screen, at any speed and from any moment. Nothing of Qt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from app.sitting import placement_at
from gaze_capture.errors import UserError
from gaze_capture.recording import Placement, RecordingEvent, Samples
from gaze_capture.recording_codec import read_recording
from segmentation.study import Study

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True)
class Span:
    """From when to when one image was shown, in seconds since the first sample."""

    image_id: str
    start_s: float
    end_s: float


class Replay:
    """A recording and a moment in it, from which it is played.

    Raises
    ------
    UserError
        If the recording is damaged or too short.
    """

    def __init__(self, study: Study, recording_id: str) -> None:
        self.recording = read_recording(study.recordings_folder / recording_id)
        if len(self.recording.time_ns) < 2:
            raise UserError(f"The recording {recording_id} has too few samples to be replayed.")
        self.speed = 1.0
        self.playing = True
        self._samples = self.recording.samples
        self._seconds = (self.recording.time_ns - self.recording.time_ns[0]) / 1e9
        self._position_s = 0.0
        self._played = 0

    @property
    def duration_s(self) -> float:
        """From the first sample to the last."""
        return float(self._seconds[-1])

    @property
    def position_s(self) -> float:
        """The moment that is shown."""
        return self._position_s

    @property
    def ended(self) -> bool:
        """Whether all of it was played."""
        return self._played >= len(self._seconds)

    @property
    def spans(self) -> list[Span]:
        """What was shown when, from its first sample on; neighbouring placements of one image are one span."""
        found: list[Span] = []
        for placement in self.recording.placements:
            first = int(np.searchsorted(self.recording.time_ns, placement.start_ns))
            if first == len(self._seconds):
                continue
            start_s, end_s = float(self._seconds[first]), self._since_start(placement.end_ns)
            if found and found[-1].image_id == placement.image_id:
                found[-1] = Span(placement.image_id, found[-1].start_s, end_s)
            else:
                found.append(Span(placement.image_id, start_s, end_s))
        return found

    @property
    def events(self) -> list[tuple[float, RecordingEvent]]:
        """What happened when, in seconds since the first sample."""
        return [(self._since_start(event.time_ns), event) for event in self.recording.events]

    def _since_start(self, time_ns: int) -> float:
        return (time_ns - int(self.recording.time_ns[0])) / 1e9

    def seek(self, seconds: float) -> None:
        """Go to a moment; what was shown then is played from its beginning, all at once, with the next advance."""
        self._position_s = min(max(seconds, 0.0), self.duration_s)
        time_ns = int(self.recording.time_ns[0]) + round(self._position_s * 1e9)
        placement = placement_at(self.recording, time_ns)
        since_s = self._position_s if placement is None else self._since_start(placement.start_ns)
        self._played = int(np.searchsorted(self._seconds, since_s))

    def neighbour_s(self, step: int) -> float:
        """Return when the next (1) image was shown, or the previous one or this one's beginning (-1)."""
        starts = [span.start_s for span in self.spans]
        if step > 0:
            later = [start for start in starts if start > self._position_s + 1e-6]
            return later[0] if later else self.duration_s
        # Just after an image's beginning the one before is meant.
        earlier = [start for start in starts if start < self._position_s - 1.0]
        return earlier[-1] if earlier else 0.0

    def advance(self, elapsed_s: float) -> Iterator[tuple[Samples, Placement | None]]:
        """Play on for some time of the wall clock; yield the samples of it, placement by placement."""
        if self.playing:
            self._position_s = min(self._position_s + elapsed_s * self.speed, self.duration_s)
        stop = int(np.searchsorted(self._seconds, self._position_s, side="right"))
        while self._played < stop:
            first_ns = int(self.recording.time_ns[self._played])
            placement = placement_at(self.recording, first_ns)
            until_ns = self._until_ns(placement, first_ns)
            end = min(stop, int(np.searchsorted(self.recording.time_ns, until_ns)))
            end = max(end, self._played + 1)
            yield self._samples[self._played : end], placement
            self._played = end

    def _until_ns(self, placement: Placement | None, first_ns: int) -> int:
        """Return the time up to which the same is shown."""
        later = [other.start_ns for other in self.recording.placements if other.start_ns > first_ns]
        last = int(self.recording.time_ns[-1]) if placement is None else placement.end_ns
        return min([last + 1, *later])
