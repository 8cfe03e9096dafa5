"""A device's clock against the host's: finding the offset, and applying it without ever going back in time."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np

from gaze_capture.recording import Floats, Int64s

BUCKET_NS = 500_000_000
BUCKETS = 60
"""Half a minute is remembered: long against the network's moods, short against a clock's temperature."""
STEEPEST = 500e-6
"""Clocks run up to some 100 parts in a million apart; a steeper line follows delays, not clocks."""
JUMP_NS = 50_000_000
"""A clock is said to have jumped when it is off by more than this; below, the offset is followed gently."""


class EnvelopeClock:
    """Finds a device's clock from when its samples arrive.

    A sample arrives late by an unknown delay, never early. So host minus device time, plotted over device time, lies
    above the true offset, and its lower envelope is the best that can be known without asking the device: the line
    below all points that is nearest to them (Moon, Skelly & Towsley, "Estimation and removal of clock skew from
    network delay measurements", 1999). A delay that every sample has stays part of the offset.
    """

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, int, int]] = deque(maxlen=BUCKETS)
        self._line = (0, 0, 0.0)
        self.uncertainty_ns = 0

    @property
    def seen(self) -> bool:
        """Whether there is an offset."""
        return bool(self._buckets)

    def forget(self) -> None:
        """Begin anew, after the device's clock jumped."""
        self._buckets.clear()

    def see(self, device_ns: int, arrival_ns: int) -> bool:
        """Take in a sample; return False, and forget all before it, if the device's clock must have jumped."""
        difference = arrival_ns - device_ns
        jumped = self.seen and self._jumped(device_ns, difference)
        if jumped:
            self.forget()
        number = device_ns // BUCKET_NS
        if self._buckets and self._buckets[-1][0] == number:
            if difference >= self._buckets[-1][2]:
                return not jumped
            self._buckets.pop()
        self._buckets.append((number, device_ns, difference))
        self._fit()
        return not jumped

    def offset_ns(self, device_ns: int) -> int:
        """Return host minus device time at a device time."""
        at_ns, offset, slope = self._line
        return offset + round(slope * (device_ns - at_ns))

    def _jumped(self, device_ns: int, difference: int) -> bool:
        if device_ns < self._buckets[-1][1] - BUCKET_NS:
            return True
        # While little was seen, all of it may have been late: what comes earlier is then only better.
        if len(self._buckets) >= 4 and difference < self.offset_ns(device_ns) - JUMP_NS:
            return True
        # A network may be late for a while, but not with everything in two seconds.
        number = device_ns // BUCKET_NS
        recent = [bucket for bucket in self._buckets if number - bucket[0] <= 4]
        earlier = len(self._buckets) - len(recent)
        late = [late_by - self.offset_ns(at) > JUMP_NS for _, at, late_by in recent]
        return (
            earlier > 0
            and len(recent) >= 4
            and all(late)
            and difference - self.offset_ns(device_ns) > JUMP_NS
        )

    def _fit(self) -> None:
        at_ns = np.array([at for _, at, _ in self._buckets], dtype=np.float64)
        late = np.array([late for _, _, late in self._buckets], dtype=np.float64)
        base = self._buckets[-1]
        x, y = at_ns - base[1], late - base[2]
        hull: list[int] = []
        for i in range(len(x)):
            while len(hull) >= 2 and _right_turn(x, y, hull[-2], hull[-1], i):
                hull.pop()
            hull.append(i)
        # The edge under the points' mean is the line whose distances from them have the least sum. A few seconds do
        # not show how fast a clock runs.
        slope, anchor = 0.0, int(np.argmin(y))
        if x[-1] - x[0] > 10 * BUCKET_NS:
            mean = x.mean()
            for left, right in pairwise(hull):
                if x[left] <= mean <= x[right]:
                    slope, anchor = (y[right] - y[left]) / (x[right] - x[left]), left
            if abs(slope) > STEEPEST:
                slope, anchor = 0.0, int(np.argmin(y))
        above = y - (y[anchor] + slope * (x - x[anchor]))
        self._line = (base[1], base[2] + round(float(y[anchor] - slope * x[anchor])), float(slope))
        self.uncertainty_ns = round(float(np.quantile(np.abs(above), 0.9))) + 100_000


def _right_turn(x: Floats, y: Floats, a: int, b: int, c: int) -> bool:
    return bool((x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a]) <= 0)


class HostTimes:
    """Turns device times into host times that ascend strictly and never lie ahead of the arrival.

    A new offset is approached by at most a tenth of the time that passes, so that no interval is bent by more than
    that; only when it is off by over 50 ms it is taken at once.
    """

    def __init__(self) -> None:
        self._offset_ns: int | None = None
        self._last_device_ns = 0
        self._last_host_ns = 0

    @property
    def used(self) -> bool:
        """Whether any time was asked for."""
        return self._offset_ns is not None

    def of(self, device_ns: Int64s, offset_ns: int, arrival_ns: int) -> Int64s:
        """Return the host times of samples (N >= 1) with ascending device times, by the offset as it is known now."""
        last_device_ns = int(device_ns[-1])
        if self._offset_ns is None or abs(offset_ns - self._offset_ns) > JUMP_NS:
            self._offset_ns = offset_ns
        else:
            most = max(0, last_device_ns - self._last_device_ns) // 10
            self._offset_ns += max(-most, min(most, offset_ns - self._offset_ns))
        self._offset_ns = min(self._offset_ns, arrival_ns - last_device_ns)
        host_ns: Int64s = device_ns + self._offset_ns
        if host_ns[0] <= self._last_host_ns:
            host_ns = np.maximum(host_ns, self._last_host_ns + 1 + np.arange(len(host_ns)))
        self._last_device_ns, self._last_host_ns = last_device_ns, int(host_ns[-1])
        return host_ns


class RateMeter:
    """Measures the sampling rate from device times, by the median interval of about two seconds."""

    def __init__(self) -> None:
        self._intervals: list[Int64s] = []
        self._spanned_ns = 0
        self._last_ns: int | None = None

    def see(self, device_ns: Int64s) -> float | None:
        """Take in ascending device times (N >= 1), later than those before; return the rate once enough were seen."""
        first_ns = device_ns[0] if self._last_ns is None else self._last_ns
        self._last_ns = int(device_ns[-1])
        intervals = np.diff(np.concatenate([[first_ns], device_ns]))
        intervals = intervals[intervals > 0]
        self._intervals.append(intervals)
        self._spanned_ns += int(intervals.sum())
        if self._spanned_ns < 2_000_000_000 or sum(map(len, self._intervals)) < 10:
            return None
        joined = np.concatenate(self._intervals)
        self._intervals.clear()
        self._spanned_ns = 0
        # Gaps are no intervals; the mean of the others evens out a clock that ticks in milliseconds.
        median = np.median(joined)
        return 1e9 / float(np.mean(joined[np.abs(joined - median) <= 0.5 * median]))

    def forget(self) -> None:
        """Begin anew, after a gap or a jump of the clock."""
        self._intervals.clear()
        self._spanned_ns = 0
        self._last_ns = None
