"""What all fixation detectors share: gaze samples made ready, spans of them, and what is measured of a span."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gaze_capture.recording import Floats, Int64s

Bools = npt.NDArray[np.bool_]

ROUNDING_MS = 1e-6
"""What sums of floating-point times may be off."""
SHORTEST_MS = 0.05
"""No tracker is faster than 20 kHz; samples that follow sooner carry stamps of something else."""
RATE_BLOCK, RATE_CHANGE = 128, 1.9
"""The rate has changed where the median interval of so many samples differs by such a factor from the next."""
LARGEST_DEG = 180.0
"""No gaze lies farther from the screen's centre; what claims to is invalid."""
MAD_SIGMA = 1.4826
"""A normal distribution's standard deviation in median absolute deviations."""


@dataclass(frozen=True)
class FixationSpans:
    """Fixations (F) as spans of samples."""

    start: Int64s
    """(F,) index of the first sample."""
    stop: Int64s
    """(F,) index after the last sample."""
    start_ms: Floats
    duration_ms: Floats
    """(F,) until the first sample after the fixation."""
    xy_deg: Floats
    """(F, 2) mean of the valid samples."""
    dispersion_deg: Floats
    """(F,) root mean square distance of the valid samples from their mean."""


@dataclass(frozen=True)
class Sums:
    """Running sums (N + 1) over the valid samples, from which those of any span follow."""

    positions: Floats
    counts: Int64s
    squares: Floats

    @staticmethod
    def of(xy: Floats, valid: Bools) -> Sums:
        """Sum positions (N, 2) where valid (N,)."""
        kept = np.where(valid[:, np.newaxis], xy, 0.0)
        return Sums(
            np.concatenate([np.zeros((1, 2)), np.cumsum(kept, axis=0)]),
            np.concatenate([[0], np.cumsum(valid)]),
            np.concatenate([[0.0], np.cumsum((kept**2).sum(axis=1))]),
        )

    def count(self, start: Int64s, stop: Int64s) -> Int64s:
        """Return the number (F,) of valid samples in spans."""
        number: Int64s = self.counts[stop] - self.counts[start]
        return number

    def mean(self, start: Int64s, stop: Int64s) -> Floats:
        """Return mean positions (F, 2); zero in spans without valid samples."""
        number = np.maximum(self.count(start, stop), 1)
        mean: Floats = (self.positions[stop] - self.positions[start]) / number[:, np.newaxis]
        return mean

    def dispersion(self, start: Int64s, stop: Int64s) -> Floats:
        """Return root mean square distances (F,) from the mean."""
        number = np.maximum(self.count(start, stop), 1)
        spread = (self.squares[stop] - self.squares[start]) / number
        dispersion: Floats = np.sqrt(np.maximum(spread - (self.mean(start, stop) ** 2).sum(axis=1), 0.0))
        return dispersion


@dataclass(frozen=True)
class Track:
    """Samples (N) in ascending time, short gaps filled."""

    time: Floats
    """(N,) ms"""
    xy: Floats
    """(N, 2) degrees, interpolated in short gaps, NaN in long ones."""
    valid: Bools
    """(N,) whether a sample was measured."""
    segments: Int64s
    """(N,) number of the stretch without a long gap, -1 inside long gaps."""
    kept: Int64s
    """(N,) index among all samples given."""
    interval: float
    """Median time between samples, ms; 0 with fewer than two valid samples: then there is nothing to detect."""
    longest_gap: float
    following_ms: float
    """Time of the first sample after the track, infinite after the last."""
    sums: Sums

    @property
    def empty(self) -> bool:
        """Whether there is nothing to detect fixations in."""
        return self.interval == 0.0


def prepare(time: Floats, xy_deg: Floats, kept: Int64s, bridge_ms: float, following_ms: float) -> Track:
    """Make samples ready whose times (N,) ascend; gaps up to `bridge_ms` are interpolated."""
    valid = plausible(xy_deg)
    xy = np.where(valid[:, np.newaxis], xy_deg, np.nan)
    sums = Sums.of(xy, valid)
    if valid.sum() < 2:
        nowhere = np.full(len(time), -1, dtype=np.int64)
        return Track(time, xy, valid, nowhere, kept, 0.0, 0.0, following_ms, sums)
    interval = float(np.median(np.diff(time)))
    # Slower trackers than 13 Hz would otherwise consist of gaps alone.
    longest_gap = max(bridge_ms, 1.5 * interval)
    segments, filled = _bridge(time, xy, valid, longest_gap)
    return Track(time, filled, valid, segments, kept, interval, longest_gap, following_ms, sums)


def plausible(xy_deg: Floats) -> Bools:
    """Return whether positions (N, 2) are those of an eye: neither NaN nor beyond the horizon."""
    # NaN compares as false.
    found: Bools = (np.abs(xy_deg[:, 0]) <= LARGEST_DEG) & (np.abs(xy_deg[:, 1]) <= LARGEST_DEG)
    return found


def advancing(time: npt.NDArray[np.number]) -> Int64s:
    """Return the indices of the most samples whose times (N,) ascend; of equal times, the first.

    One stamp that leaps ahead costs one sample, not all that follow it.
    """
    finite = np.flatnonzero(np.isfinite(time))
    if (np.diff(time[finite]) > 0).all():
        return finite
    # The longest increasing subsequence, by patience sorting.
    times = time[finite].tolist()
    ends: list[float] = []
    last: list[int] = []
    before = [-1] * len(times)
    for index, moment in enumerate(times):
        place = bisect_left(ends, moment)
        if place == len(ends):
            ends.append(moment)
            last.append(index)
        elif ends[place] > moment:
            ends[place], last[place] = moment, index
        else:
            continue
        before[index] = last[place - 1] if place else -1
    chain = []
    index = last[-1]
    while index >= 0:
        chain.append(index)
        index = before[index]
    return finite[chain[::-1]]


def steady_stretches(time: Floats) -> list[slice]:
    """Cut ascending times (N,) where their rate changes for good, to within a block."""
    intervals = np.diff(time)
    blocks = len(intervals) // RATE_BLOCK
    if blocks < 2:
        return [slice(0, len(time))]
    medians = np.median(intervals[: blocks * RATE_BLOCK].reshape(blocks, RATE_BLOCK), axis=1)
    changes = np.flatnonzero(np.abs(np.diff(np.log(medians))) > np.log(RATE_CHANGE)) + 1
    borders = [0, *(changes * RATE_BLOCK).tolist(), len(time)]
    return [slice(start, stop) for start, stop in pairwise(borders)]


def _bridge(time: Floats, xy: Floats, valid: Bools, longest_gap: float) -> tuple[Int64s, Floats]:
    """Interpolate short gaps; return each sample's segment (-1 in long gaps) and the filled positions."""
    sources = np.flatnonzero(valid)
    joined = np.diff(time[sources]) <= longest_gap
    segment_of_source = np.concatenate([[0], np.cumsum(~joined)])
    order = np.cumsum(valid) - 1
    before = np.clip(order, 0, len(sources) - 1)
    inside_gap = ~valid & (order >= 0) & (order < len(sources) - 1)
    inside_gap[inside_gap] = joined[order[inside_gap]]
    segments: Int64s = np.where(valid | inside_gap, segment_of_source[before], -1).astype(np.int64)
    filled = xy.copy()
    gaps = np.flatnonzero(inside_gap)
    for axis in range(2):
        filled[gaps, axis] = np.interp(time[gaps], time[sources], xy[sources, axis])
    return segments, filled


def runs_of(labels: Int64s) -> Int64s:
    """Return (R, 2) first index and index after the last of runs of one label >= 0."""
    borders = np.flatnonzero(np.diff(labels, prepend=-2, append=-2))
    runs = np.stack([borders[:-1], borders[1:]], axis=1)
    return runs[labels[runs[:, 0]] >= 0]


def resting_spans(track: Track, resting: Bools) -> Int64s:
    """Return spans (R, 2) of resting samples (N,), none across a long gap, none without a valid sample."""
    spans = runs_of(np.where(resting, track.segments, -1))
    return spans[track.sums.count(spans[:, 0], spans[:, 1]) > 0]


def window_samples(window_ms: float, interval: float) -> int:
    """Return the odd number of samples, at least 3, that comes closest to a window."""
    return max(3, 2 * round((window_ms / interval - 1) / 2) + 1)


def savgol_velocity(track: Track, window: int) -> Floats:
    """Return velocity (N, 2) in deg/s, NaN in long gaps, by Savitzky-Golay windows (order 2) of so many samples.

    Derivatives of position are divided by those of time, so that jitter of the clock cancels.
    """
    # Imported here: it costs more than the rest of a window's start, and reading fixations does not need it.
    from scipy.signal import savgol_filter

    velocity = np.full((len(track.time), 2), np.nan)
    for start, stop in runs_of(track.segments).tolist():
        length = stop - start
        # Times are taken from the segment's start: absolute ones would cost digits.
        stamped = np.column_stack([track.xy[start:stop], track.time[start:stop] - track.time[start]])
        if length >= 3:
            fits = min(window, length - 1 + length % 2)
            slope = savgol_filter(stamped, fits, polyorder=2, deriv=1, axis=0)
        elif length == 2:
            slope = np.repeat(np.diff(stamped, axis=0), 2, axis=0)
        else:
            continue
        # Next to a hole in the time stamps the fitted parabola may even bend backwards.
        milliseconds = np.maximum(slope[:, 2], 0.25 * track.interval)
        velocity[start:stop] = 1000 * slope[:, :2] / milliseconds[:, np.newaxis]
    return velocity


def merged(track: Track, spans: Int64s, merge_ms: float, merge_deg: float) -> Int64s:
    """Join neighbouring spans (R, 2), each with valid samples, that are close in time and place."""
    positions, counts = track.sums.positions, track.sums.counts
    joined: list[tuple[int, int]] = []
    for start, stop in spans.tolist():
        if joined:
            first, last = joined[-1]
            pause = track.time[start] - track.time[last - 1]
            if pause < merge_ms and track.segments[start] == track.segments[last - 1]:
                apart = (positions[stop] - positions[start]) / (counts[stop] - counts[start]) - (
                    positions[last] - positions[first]
                ) / (counts[last] - counts[first])
                if float(np.hypot(*apart)) < merge_deg:
                    joined[-1] = (first, stop)
                    continue
        joined.append((start, stop))
    return np.array(joined, dtype=np.int64).reshape(-1, 2)


def measured(track: Track, spans: Int64s, minimum_ms: float) -> FixationSpans:
    """Measure spans (R, 2) and drop the short; indices are given back in terms of all samples."""
    start, stop = spans[:, 0], spans[:, 1]
    last = track.time[stop - 1]
    following = np.concatenate([track.time, [track.following_ms]])[stop]
    end = np.where(following - last <= track.longest_gap, following, last + track.interval)
    duration = end - track.time[start]
    long_enough = duration > max(minimum_ms - ROUNDING_MS, 0.0)
    start, stop = start[long_enough], stop[long_enough]
    return FixationSpans(
        start=track.kept[start],
        stop=track.kept[stop - 1] + 1,
        start_ms=track.time[start],
        duration_ms=duration[long_enough],
        xy_deg=track.sums.mean(start, stop),
        dispersion_deg=track.sums.dispersion(start, stop),
    )
