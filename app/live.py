"""Gaze for the eye of the operator: a steady dot and growing fixations. Never stored. Nothing of Qt."""

from __future__ import annotations

import math

import numpy as np

from app.scene import Marks
from gaze_capture.fixations import binocular_xy
from gaze_capture.recording import Floats, Samples

OUTLIERS_THAT_END = 3
"""One stray sample does not end a fixation; as many in a row as this do."""
GAP_THAT_ENDS_MS = 100.0


def binocular(samples: Samples) -> Floats:
    """Return the mean of the valid eyes, normalised to the screen (N, 2); NaN without either."""
    left_xy = np.stack([samples["left_x"], samples["left_y"]], axis=1)
    return binocular_xy(left_xy, np.stack([samples["right_x"], samples["right_y"]], axis=1))


class OneEuro:
    """The 1 € filter (Casiez, Roussel and Vogel, 2012) in two dimensions: still when still, quick when quick.

    Parameters
    ----------
    minimum_hz
        Cut-off frequency of a resting signal.
    per_speed
        How much the cut-off rises with speed, in Hz per unit a second.
    """

    def __init__(self, minimum_hz: float = 1.5, per_speed: float = 0.6, derivative_hz: float = 1.0) -> None:
        self._minimum_hz, self._per_speed, self._derivative_hz = minimum_hz, per_speed, derivative_hz
        self._time_s: float | None = None
        self._xy = (0.0, 0.0)
        self._speed = (0.0, 0.0)

    def reset(self) -> None:
        """Start anew with the next position."""
        self._time_s = None

    def __call__(self, time_s: float, x: float, y: float) -> tuple[float, float]:
        """Return the filtered position."""
        if self._time_s is None or time_s <= self._time_s:
            self._time_s, self._xy, self._speed = time_s, (x, y), (0.0, 0.0)
            return self._xy
        step = time_s - self._time_s
        share = _share(self._derivative_hz, step)
        speed = (
            self._speed[0] + share * ((x - self._xy[0]) / step - self._speed[0]),
            self._speed[1] + share * ((y - self._xy[1]) / step - self._speed[1]),
        )
        share = _share(self._minimum_hz + self._per_speed * math.hypot(*speed), step)
        self._xy = (self._xy[0] + share * (x - self._xy[0]), self._xy[1] + share * (y - self._xy[1]))
        self._speed, self._time_s = speed, time_s
        return self._xy


def _share(cutoff_hz: float, step_s: float) -> float:
    return 1.0 / (1.0 + 1.0 / (2 * math.pi * cutoff_hz * step_s))


class LiveFixations:
    """Groups samples that stay within a radius of their mean, as they come.

    For the display only: what is stored is detected afterwards, from velocities (`gaze_capture.fixations`).
    """

    def __init__(self, radius_px: float, minimum_ms: float = 80.0) -> None:
        self._radius_px = radius_px
        self._minimum_ms = minimum_ms
        self._ended: list[tuple[float, float, float]] = []
        self._begin()
        self._outliers: list[tuple[float, float, float]] = []

    def _begin(self) -> None:
        self._count = 0
        self._sum_x = self._sum_y = 0.0
        self._start_ms = self._last_ms = 0.0

    def _take(self, time_ms: float, x: float, y: float) -> None:
        if self._count == 0:
            self._start_ms = time_ms
        self._count += 1
        self._sum_x += x
        self._sum_y += y
        self._last_ms = time_ms

    def _end(self) -> None:
        if self._count and self._last_ms - self._start_ms >= self._minimum_ms:
            self._ended.append(self._current())
        self._begin()

    def _current(self) -> tuple[float, float, float]:
        return self._sum_x / self._count, self._sum_y / self._count, self._last_ms - self._start_ms

    def add(self, time_ms: float, x: float, y: float) -> None:
        """Take the next position; NaN where the eye was not seen."""
        if not (math.isfinite(x) and math.isfinite(y)):
            return
        if self._count and time_ms - self._last_ms > GAP_THAT_ENDS_MS:
            self._end()
            self._outliers.clear()
        if self._count == 0:
            self._take(time_ms, x, y)
            return
        if math.hypot(x - self._sum_x / self._count, y - self._sum_y / self._count) <= self._radius_px:
            self._take(time_ms, x, y)
            self._outliers.clear()
            return
        self._outliers.append((time_ms, x, y))
        if len(self._outliers) >= OUTLIERS_THAT_END:
            self._end()
            for outlier in self._outliers[-1:]:
                self._take(*outlier)
            self._outliers.clear()

    @property
    def total_ms(self) -> float:
        """The time of all fixations so far."""
        return float(self.marks().duration_ms.sum())

    def marks(self) -> Marks:
        """Return all fixations so far, the growing one last."""
        found = list(self._ended)
        if self._count and self._last_ms - self._start_ms >= self._minimum_ms:
            found.append(self._current())
        values = np.array(found, dtype=np.float64).reshape(-1, 3)
        return Marks(values[:, :2], values[:, 2])
