"""Adaptive I-VT: speed proposes saccades, position decides on them, and both adapt to noise and rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gaze_capture.recording import Floats, Int64s
from gaze_capture.spans import (
    MAD_SIGMA,
    Bools,
    Track,
    resting_spans,
    runs_of,
    savgol_velocity,
    window_samples,
)

SACCADE_MS, SACCADE_MS_PER_DEG = 21.0, 2.2
"""The main sequence: how long a saccade lasts (Carpenter, 1988)."""
LONGEST_AMPLITUDE_DEG = 40.0
BLURRED_MS = 26.0
"""Speed over a longer window says less of where a saccade begins and ends than the main sequence does."""
SEARCHED_MS, STEP_MS = 30.0, 2.0
"""How far and finely the time of a saccade is searched."""


@dataclass(frozen=True)
class AdaptiveIVT:
    """Saccades are what is sudden in speed and significant in position; fixations are what lies between.

    1. Savitzky-Golay speed, over a window that widens with noise. Each local maximum as high as the smallest saccade
       would make it, seen through that window, is a candidate.
    2. Candidates whose positions before and after do not differ beyond noise and drift are dropped, the least
       different first, so that their neighbours are judged by longer fixations.
    3. Borders: where windows are short enough, the first and last sample faster than the local noise; elsewhere a
       minimum-jerk saccade of main-sequence length is fitted. What follows as post-saccadic oscillation is no fixation.

    After Nyström and Holmqvist (2010) for the thresholds that follow noise.
    """

    detector: ClassVar[str] = "adaptive I-VT"

    bridge_ms: float = 75.0
    """Gaps without valid samples up to this long are interpolated."""
    window_ms: float = 20.0
    """The shortest window of the speed that proposes saccades; at least 3 samples are used."""
    widest_ms: float = 110.0
    noise_deg_s: float = 5.0
    """The window widens until noise moves each axis by no more than this, or the widest is reached."""
    jump_deg: float = 0.7
    """Speed proposes a saccade where it is that of one of this amplitude, or higher."""
    merge_deg: float = 0.3
    """Fixations nearer than this are one ..."""
    merge_sigmas: float = 4.5
    """... and so are those nearer than so many standard errors."""
    level_ms: float = 300.0
    """How much of the fixations before and after is compared."""
    border_window_ms: float = 12.0
    """The shortest window of the speed that shows a saccade's borders; at least 3 samples are used."""
    border_noise_deg_s: float = 2.5
    """It widens, too, until noise moves each axis by no more than this."""
    border_sigmas: float = 3.0
    """A saccade lasts as long as it is faster than median + this many robust sigmas."""
    border_floor_deg_s: float = 8.0
    border_slack_ms: float = 15.0
    """How far from where the main sequence puts them borders are looked for."""
    oscillation_ms: float = 25.0
    """Length of a post-saccadic oscillation."""
    dispersion_deg: float = 3.0
    """What scatters more is no fixation: a tracker that lost the eye, a pursuit."""
    minimum_ms: float = 60.0


@dataclass
class _Steps:
    """Candidates (E) for saccades, ascending in time."""

    middle_ms: Floats
    length_ms: Floats
    speed: Floats
    segment: Int64s
    onset_ms: Floats
    """(E,) time of the segment's first sample."""
    end_ms: Floats
    """(E,) time after the segment's last sample."""

    def keep(self, which: Bools | Int64s) -> None:
        for name, values in vars(self).items():
            setattr(self, name, values[which])

    def borders_ms(self, parameters: AdaptiveIVT) -> tuple[Floats, Floats]:
        half = self.length_ms / 2
        return self.middle_ms - half, self.middle_ms + half + parameters.oscillation_ms


def detect_adaptive(track: Track, parameters: AdaptiveIVT) -> Int64s:
    """Return the fixations of a track as spans (R, 2), short ones too."""
    white = _noise_deg(track)
    window = _window(track, parameters.window_ms, parameters.widest_ms, white, parameters.noise_deg_s)
    speed = np.hypot(*savgol_velocity(track, window).T)
    known = np.isfinite(speed)
    if not known.any():
        return np.empty((0, 2), dtype=np.int64)
    # Noise may be slower than second differences show. Speeds of a normal noise have their median at 1.1774 sigma.
    slow = float(np.median(speed[known])) / 1.1774 / _slope_noise(window, track.interval)
    noise = max(white, slow)
    border_window = _window(
        track, parameters.border_window_ms, parameters.widest_ms, white, parameters.border_noise_deg_s
    )
    seen = border_window * track.interval <= BLURRED_MS

    steps = _candidates(track, np.where(known, speed, 0.0), window * track.interval, parameters)
    for _ in range(1 if seen else 2):
        before, apart = _prune(track, steps, noise, parameters)
        _fit(track, steps, before, apart, move=not seen)
    _prune(track, steps, noise, parameters)
    begin, end = steps.borders_ms(parameters)
    first, last = np.searchsorted(track.time, begin), np.searchsorted(track.time, end)
    if seen:
        first, last = _seen_borders(track, border_window, begin, end, first, last, parameters)
    change = np.zeros(len(track.time) + 1, dtype=np.int64)
    np.add.at(change, first, 1)
    np.add.at(change, last, -1)
    spans = resting_spans(track, known & (np.cumsum(change[:-1]) <= 0))
    return spans[track.sums.dispersion(spans[:, 0], spans[:, 1]) <= parameters.dispersion_deg]


def _noise_deg(track: Track) -> float:
    """Return each axis's standard deviation, by second differences, which the eye's own motion hardly shows in."""
    second = track.xy[2:] - 2 * track.xy[1:-1] + track.xy[:-2]
    within = (
        track.valid[2:] & track.valid[1:-1] & track.valid[:-2] & (track.segments[2:] == track.segments[:-2])
    )
    if not within.any():
        return 0.0
    return float(MAD_SIGMA * np.median(np.abs(second[within])) / np.sqrt(6))


def _window(track: Track, shortest_ms: float, longest_ms: float, white: float, most: float) -> int:
    """Return the number of samples of the shortest window in which noise moves the slope by no more than `most`."""
    window = window_samples(shortest_ms, track.interval)
    while white * _slope_noise(window, track.interval) > most and (window + 2) * track.interval <= longest_ms:
        window += 2
    return window


def _slope_noise(window: int, interval: float) -> float:
    """Return the standard deviation, in 1/s, of the slope of white noise of one over so many samples."""
    return float(1000 / interval * np.sqrt(12 / (window * (window**2 - 1))))


def _candidates(track: Track, speed: Floats, window_ms: float, parameters: AdaptiveIVT) -> _Steps:
    length_ms = SACCADE_MS + SACCADE_MS_PER_DEG * parameters.jump_deg
    # The slope fitted to a sudden step is at most 3/2 of step / window.
    least = 1500 * parameters.jump_deg / np.hypot(window_ms, length_ms)
    around = np.concatenate([[0.0], speed, [0.0]])
    peaks = np.flatnonzero((speed > least) & (speed >= around[:-2]) & (speed > around[2:]))
    runs = runs_of(track.segments)
    run = np.searchsorted(runs[:, 0], peaks, side="right") - 1
    return _Steps(
        middle_ms=track.time[peaks],
        length_ms=np.full(len(peaks), length_ms),
        speed=speed[peaks],
        segment=run,
        onset_ms=track.time[runs[run, 0]],
        end_ms=track.time[runs[run, 1] - 1] + track.interval,
    )


def _prune(track: Track, steps: _Steps, noise: float, parameters: AdaptiveIVT) -> tuple[Floats, Floats]:
    """Drop candidates until all are significant; return the places before (E, 2) and the steps from there (E, 2)."""
    while True:
        begin, end = steps.borders_ms(parameters)
        same = steps.segment[1:] == steps.segment[:-1]
        earliest = np.maximum(begin - parameters.level_ms, steps.onset_ms)
        latest = np.minimum(end + parameters.level_ms, steps.end_ms)
        earliest[1:] = np.where(same, np.maximum(earliest[1:], end[:-1]), earliest[1:])
        latest[:-1] = np.where(same, np.minimum(latest[:-1], begin[1:]), latest[:-1])
        stop, start = np.searchsorted(track.time, begin), np.searchsorted(track.time, end)
        first = np.minimum(np.searchsorted(track.time, earliest), stop)
        last = np.maximum(np.searchsorted(track.time, latest), start)
        number_before, number_after = track.sums.count(first, stop), track.sums.count(start, last)
        before = track.sums.mean(first, stop)
        apart = track.sums.mean(start, last) - before
        distance = np.hypot(apart[:, 0], apart[:, 1])
        error = noise * np.sqrt(1 / np.maximum(number_before, 1) + 1 / np.maximum(number_after, 1))
        score = distance / np.maximum(parameters.merge_sigmas * error, max(parameters.merge_deg, 1e-9))
        # Without rest on a side there is nothing to compare: of such the slowest goes first, before all others.
        lonely = (number_before == 0) | (number_after == 0)
        score = np.where(lonely, -1 / (1 + steps.speed), score)
        bad = score < 1
        if not bad.any():
            return before, apart
        around = np.concatenate([[np.inf], score, [np.inf]])
        drop = bad & (score <= around[:-2]) & (score < around[2:])
        steps.keep(~drop if drop.any() else ~bad)


def _fit(track: Track, steps: _Steps, before: Floats, apart: Floats, *, move: bool) -> None:
    """Give each step the length of its amplitude; move it to where a minimum-jerk saccade fits best."""
    square = (apart**2).sum(axis=1)
    amplitude = np.minimum(np.sqrt(square), LONGEST_AMPLITUDE_DEG)
    steps.length_ms = SACCADE_MS + SACCADE_MS_PER_DEG * amplitude
    if not move or not len(square):
        return
    reach = int(np.ceil(2 * SEARCHED_MS / track.interval))
    shift = np.arange(-SEARCHED_MS, SEARCHED_MS + STEP_MS / 2, max(STEP_MS, track.interval / 8))
    centre = np.searchsorted(track.time, steps.middle_ms)
    runs = runs_of(track.segments)
    low, high = runs[steps.segment, 0], runs[steps.segment, 1]
    least, best = np.full(len(square), np.inf), np.zeros(len(square))
    index = centre[:, np.newaxis] + np.arange(-reach, reach + 1)
    inside = (index >= low[:, np.newaxis]) & (index < high[:, np.newaxis])
    index = np.clip(index, 0, len(track.time) - 1)
    inside &= track.valid[index]
    share = np.einsum("ekd,ed->ek", np.where(inside[..., np.newaxis], track.xy[index], 0.0), apart)
    share = (share - (before * apart).sum(axis=1)[:, np.newaxis]) / square[:, np.newaxis]
    offset = (track.time[index] - steps.middle_ms[:, np.newaxis]) / steps.length_ms[:, np.newaxis] + 0.5
    for moved in shift.tolist():
        u = np.clip(offset - (moved / steps.length_ms)[:, np.newaxis], 0.0, 1.0)
        model = u * u * u * (10 - 15 * u + 6 * u * u)
        error = np.where(inside, (share - model) ** 2, 0.0).sum(axis=1)
        better = error < least
        least[better], best[better] = error[better], moved
    steps.middle_ms = steps.middle_ms + best
    order = np.argsort(steps.middle_ms, kind="stable")
    steps.keep(order)


def _seen_borders(
    track: Track,
    window: int,
    begin: Floats,
    end: Floats,
    first: Int64s,
    last: Int64s,
    parameters: AdaptiveIVT,
) -> tuple[Int64s, Int64s]:
    """Return the first fast sample of each saccade and the one after its last; where none is fast, as given."""
    speed = np.hypot(*savgol_velocity(track, window).T)
    known = speed[np.isfinite(speed)]
    median = float(np.median(known))
    sigma = MAD_SIGMA * float(np.median(np.abs(known - median)))
    least = max(median + parameters.border_sigmas * sigma, parameters.border_floor_deg_s)
    fast = np.flatnonzero(speed > least)
    slack = parameters.border_slack_ms
    low = np.searchsorted(fast, np.searchsorted(track.time, begin - slack))
    high = np.searchsorted(fast, np.searchsorted(track.time, end + slack))
    some = high > low
    first, last = first.copy(), last.copy()
    first[some], last[some] = fast[low[some]], fast[high[some] - 1] + 1
    return first, last
