"""Gaze while it comes in: a steady dot and growing fixations, for the eye of the operator. Never stored."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gaze_capture.recording import Floats

OUTLIERS_THAT_END = 3
"""One stray sample does not end a fixation; as many in a row as this do."""
GAP_THAT_ENDS_MS = 100.0


class OneEuro:
    """The 1 € filter (Casiez, Roussel and Vogel, 2012) in two dimensions: still when still, quick when quick.

    Parameters
    ----------
    minimum_hz
        Cut-off frequency of a resting signal.
    per_speed
        How much the cut-off rises with speed, in Hz per degree a second.
    window_ms
        Of a block, the mean of so much at its end is filtered: what is drawn at most once a block need not be
        filtered sample by sample.
    """

    def __init__(
        self,
        minimum_hz: float = 1.5,
        per_speed: float = 0.6,
        derivative_hz: float = 1.0,
        window_ms: float = 4.0,
    ) -> None:
        self._minimum_hz, self._per_speed, self._derivative_hz = minimum_hz, per_speed, derivative_hz
        self._window_ms = window_ms
        self._time_s: float | None = None
        self._xy = (0.0, 0.0)
        self._speed = (0.0, 0.0)

    def reset(self) -> None:
        """Start anew with the next position."""
        self._time_s = None

    def follow(self, time_ms: Floats, xy_deg: Floats) -> tuple[float, float] | None:
        """Take a block of samples (N,), (N, 2), NaN where invalid; return where it ends, None if nothing was seen."""
        seen = np.isfinite(xy_deg).all(axis=1) & np.isfinite(time_ms)
        if not seen.any():
            return None
        times, positions = time_ms[seen], xy_deg[seen]
        late = times > times[-1] - self._window_ms
        x, y = positions[late].mean(axis=0).tolist()
        return self(float(times[late].mean()) / 1000, x, y)

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
    """Groups samples that stay within a radius of their mean, as they come, block by block.

    Like I-DT (:class:`gaze_capture.detectors.IDT`), but it forgives stray samples, and noise, which makes a range
    wider, leaves a mean where it is. What comes of a stream does not depend on how it is cut into blocks. For the
    display only: what is stored is detected afterwards.

    Parameters
    ----------
    radius_deg
        A sample farther from the mean of those before does not belong to them.
    minimum_ms
        Shorter groups are no fixations.
    """

    def __init__(self, radius_deg: float = 1.0, minimum_ms: float = 80.0) -> None:
        self._radius_deg = radius_deg
        self._minimum_ms = minimum_ms
        self._ended: list[tuple[float, float, float]] = []
        self._ended_ms = 0.0
        self._count = 0
        self._sum: Floats = np.zeros(2)
        self._start_ms = self._last_ms = 0.0
        self._strays = 0
        self._seen_ms = 0.0

    def add(self, time_ms: npt.NDArray[np.floating], xy_deg: npt.NDArray[np.floating]) -> None:
        """Take the next samples: times (N,) and positions (N, 2), NaN where the eye was not seen."""
        times, positions = np.asarray(time_ms, dtype=np.float64), np.asarray(xy_deg, dtype=np.float64)
        seen = np.isfinite(positions).all(axis=1) & np.isfinite(times)
        times, positions = times[seen], positions[seen]
        # A group ends before a gap, and where the clock leaps back.
        steps = np.diff(times)
        gaps = np.flatnonzero((steps > GAP_THAT_ENDS_MS) | (steps < 0)) + 1
        start = 0
        for stop in [*gaps.tolist(), len(times)]:
            if stop > start:
                self._add_gapless(times[start:stop], positions[start:stop])
            start = stop

    def _add_gapless(self, times: Floats, positions: Floats) -> None:
        if self._count and not 0 <= times[0] - self._seen_ms <= GAP_THAT_ENDS_MS:
            self._end()
        self._seen_ms = float(times[-1])
        place = 0
        while place < len(times):
            if self._count == 0:
                self._begin(float(times[place]), positions[place])
                place += 1
                continue
            ahead = positions[place:]
            # The mean of all before each sample, if all before belong.
            sums = self._sum + np.cumsum(ahead, axis=0) - ahead
            means = sums / np.arange(self._count, self._count + len(ahead))[:, np.newaxis]
            offsets = ahead - means
            away = np.flatnonzero(np.hypot(offsets[:, 0], offsets[:, 1]) > self._radius_deg)
            near = int(away[0]) if len(away) else len(ahead)
            if near:
                self._count += near
                self._sum = self._sum + ahead[:near].sum(axis=0)
                self._last_ms = float(times[place + near - 1])
                self._strays = 0
                place += near
            if place < len(times):
                self._strays += 1
                if self._strays >= OUTLIERS_THAT_END:
                    self._end()
                    self._begin(float(times[place]), positions[place])
                place += 1

    def _begin(self, time_ms: float, xy_deg: Floats) -> None:
        self._count, self._sum, self._strays = 1, xy_deg.copy(), 0
        self._start_ms = self._last_ms = time_ms

    def _end(self) -> None:
        current = self._current()
        if current is not None:
            self._ended.append(current)
            self._ended_ms += current[2]
        self._count = self._strays = 0

    def _current(self) -> tuple[float, float, float] | None:
        duration = self._last_ms - self._start_ms
        if not self._count or duration < self._minimum_ms:
            return None
        x, y = (self._sum / self._count).tolist()
        return x, y, duration

    @property
    def total_ms(self) -> float:
        """The time of all fixations so far."""
        current = self._current()
        return self._ended_ms + (current[2] if current else 0.0)

    def __len__(self) -> int:
        return len(self._ended) + (self._current() is not None)

    def fixations(self) -> tuple[Floats, Floats]:
        """Return places (F, 2) in degrees and durations (F,) in ms of all fixations so far, the growing one last."""
        current = self._current()
        values = np.array([*self._ended, *([current] if current else [])], dtype=np.float64).reshape(-1, 3)
        return values[:, :2], values[:, 2]

    def ended(self, after: int = 0) -> tuple[Floats, Floats]:
        """Return places (F, 2) in degrees and durations (F,) in ms of those that have ended, but for the first few."""
        values = np.array(self._ended[after:], dtype=np.float64).reshape(-1, 3)
        return values[:, :2], values[:, 2]
