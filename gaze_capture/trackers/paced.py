"""What trackers without a device share: a thread that hands out samples when they are due."""

from __future__ import annotations

import threading
import time

import numpy as np

from gaze_capture.recording import Int64s, Samples, ScreenGeometry
from gaze_capture.trackers.delivery import DeliveringTracker


class PacedTracker(DeliveringTracker):
    """Runs a thread that hands out samples when they are due on the host clock."""

    name = "paced"

    def __init__(self, geometry: ScreenGeometry, rate_hz: float) -> None:
        super().__init__(geometry, rate_hz)
        self._thread = threading.Thread(target=self._run, name=f"{self.name} tracker", daemon=True)
        self._start_ns = 0

    def _begin(self) -> None:
        self._start_ns = time.monotonic_ns()
        self._thread.start()

    def _disconnect(self) -> None:
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        delivered = 0
        # Fast trackers deliver in blocks, too; 4 ms are far below what an eye or a display resolves.
        pause_s = max(0.004, min(0.5 / self.rate_hz, 0.02))
        while not self._closing.is_set():
            due = self._due(time.monotonic_ns() - self._start_ns)
            if due is None:
                break
            if due > delivered:
                block = self._block(delivered, due)
                self.deliver(block)
                delivered = due
            self._closing.wait(pause_s)
        self._closing.set()

    def _due(self, elapsed_ns: int) -> int | None:
        """Return how many samples are due after some time; None when all have been handed out."""
        return int(elapsed_ns * self.rate_hz / 1e9) + 1

    def _time_ns(self, first: int, stop: int) -> Int64s:
        return self._start_ns + np.round(np.arange(first, stop) * (1e9 / self.rate_hz)).astype(np.int64)

    def _block(self, first: int, stop: int) -> Samples:
        raise NotImplementedError
