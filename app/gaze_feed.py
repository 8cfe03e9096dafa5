"""A tracker's samples in the window's thread: what came since the last look, and how well the eyes are seen."""

from __future__ import annotations

import contextlib
import queue
import time

import numpy as np

from gaze_capture.recording import SAMPLE, Eyes, Samples, eye_positions
from gaze_capture.trackers.tracker import Point, Tracker

RECENT_NS = 1_000_000_000


class GazeFeed:
    """Subscribes to an open tracker until :meth:`close`; the tracker's thread only enqueues."""

    def __init__(self, tracker: Tracker) -> None:
        self._queue: queue.SimpleQueue[Samples] = queue.SimpleQueue()
        self._recent: Samples = np.empty(0, SAMPLE)
        self._last_arrival = time.monotonic()
        self._unsubscribe = tracker.subscribe(self._queue.put)

    def drain(self) -> Samples:
        """Return the samples that came since the last call (N >= 0)."""
        blocks = []
        with contextlib.suppress(queue.Empty):
            while True:
                blocks.append(self._queue.get_nowait())
        if not blocks:
            return np.empty(0, SAMPLE)
        self._last_arrival = time.monotonic()
        new = np.concatenate(blocks)
        recent = np.concatenate([self._recent, new])
        self._recent = recent[recent["time_ns"] >= recent["time_ns"][-1] - RECENT_NS]
        return new

    @property
    def recent(self) -> Samples:
        """The last second's samples."""
        return self._recent

    @property
    def seen(self) -> tuple[float, float]:
        """Share of the last second's samples, 0..1, in which the left and the right eye were seen."""
        if len(self._recent) == 0:
            return 0.0, 0.0
        left, right = (float(np.isfinite(self._recent[name]).mean()) for name in ("left_x", "right_x"))
        return left, right

    def gaze(self, eyes: Eyes) -> Point | None:
        """Return where the eyes looked last, normalised to the screen; None while they are not seen."""
        if len(self._recent) == 0:
            return None
        x, y = eye_positions(self._recent[-1:], eyes)[0]
        return (float(x), float(y)) if np.isfinite([x, y]).all() else None

    @property
    def silent_s(self) -> float:
        """How long nothing has come."""
        return time.monotonic() - self._last_arrival

    def close(self) -> None:
        """Take no more samples."""
        self._unsubscribe()
