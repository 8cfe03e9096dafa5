"""The mouse pointer in place of the eyes."""

from __future__ import annotations

import math

import numpy as np

from gaze_capture.recording import Samples, ScreenGeometry, pack_samples
from gaze_capture.trackers.paced import PacedTracker


class MouseTracker(PacedTracker):
    """The mouse pointer in place of the eyes, fed by whoever sees it move."""

    name = "mouse"

    def __init__(self, geometry: ScreenGeometry, rate_hz: float = 60.0) -> None:
        super().__init__(geometry, rate_hz)
        self._position = (math.nan, math.nan)

    def move(self, x_norm: float, y_norm: float) -> None:
        """Tell where the pointer is, normalised to the screen; may be called from any thread."""
        self._position = (x_norm, y_norm)

    def leave(self) -> None:
        """Tell that the pointer is nowhere: samples are invalid until it moves again."""
        self._position = (math.nan, math.nan)

    def _block(self, first: int, stop: int) -> Samples:
        time_ns = self._time_ns(first, stop)
        xy = np.tile(self._position, (stop - first, 1))
        return pack_samples(time_ns, time_ns, xy, xy, np.full((stop - first, 2), np.nan))
