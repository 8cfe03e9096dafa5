"""A recording as if it were measured now."""

from __future__ import annotations

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording import Recording, Samples
from gaze_capture.trackers.paced import PacedTracker


class ReplayTracker(PacedTracker):
    """Replays a recording's samples as if they were measured now; ends with the last of them.

    Parameters
    ----------
    speed
        How many times faster than recorded.
    """

    name = "replay"

    def __init__(self, recording: Recording, speed: float = 1.0) -> None:
        if not speed > 0:
            raise UserError(f"The replay's speed must be above 0, not {speed:g}.")
        if len(recording.time_ns) < 2:
            raise UserError(f"The recording {recording.id} has too few samples to be replayed.")
        intervals = np.diff(recording.time_ns)
        super().__init__(recording.geometry, speed * 1e9 / float(np.median(intervals)))
        self.simulated_from = recording.simulated_from
        self._samples = recording.samples
        self._elapsed_ns = ((recording.time_ns - recording.time_ns[0]) / speed).astype(np.int64)

    def expected(self, seconds: float) -> int:
        """Return how many of the recording's samples fall within some seconds from the first on."""
        return int(np.searchsorted(self._elapsed_ns, seconds * 1e9))

    def _due(self, elapsed_ns: int) -> int | None:
        due = int(np.searchsorted(self._elapsed_ns, elapsed_ns, side="right"))
        # One more round after the last sample, so that it is delivered before the end is told.
        return None if elapsed_ns > self._elapsed_ns[-1] + 50_000_000 else due

    def _block(self, first: int, stop: int) -> Samples:
        block = self._samples[first:stop].copy()
        block["time_ns"] = self._start_ns + self._elapsed_ns[first:stop]
        return block
