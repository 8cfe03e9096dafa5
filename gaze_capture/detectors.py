"""Fixation detectors behind one call: :func:`detect_fixations` does what the type of its parameters says."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gaze_capture.adaptive_ivt import AdaptiveIVT, detect_adaptive
from gaze_capture.errors import UserError
from gaze_capture.recording import Floats, Int64s
from gaze_capture.spans import (
    ROUNDING_MS,
    SHORTEST_MS,
    Bools,
    FixationSpans,
    Track,
    advancing,
    measured,
    merged,
    prepare,
    resting_spans,
    runs_of,
    steady_stretches,
)

__all__ = [
    "IDT",
    "PRESETS",
    "AdaptiveIVT",
    "EngbertKliegl",
    "FixationSpans",
    "Parameters",
    "TobiiIVT",
    "detect_fixations",
    "preset_with",
]


@dataclass(frozen=True)
class TobiiIVT:
    """Fixed velocity threshold with the defaults of Tobii's I-VT filter (Olsen, 2012)."""

    detector: ClassVar[str] = "Tobii-like I-VT"

    bridge_ms: float = 75.0
    """Gaps without valid samples up to this long are interpolated."""
    window_ms: float = 20.0
    """Speed is that between the two ends of this window; at least 3 samples are used."""
    threshold_deg_s: float = 30.0
    """What is faster is a saccade."""
    merge_ms: float = 75.0
    """Fixations closer than this in time and `merge_deg` in place are one."""
    merge_deg: float = 0.5
    minimum_ms: float = 60.0


@dataclass(frozen=True)
class EngbertKliegl:
    """Elliptic velocity threshold in multiples of a median-based deviation (Engbert and Kliegl, 2003).

    For clean data of 250 Hz or more: it finds microsaccades there, and sees too little at lower rates.
    """

    detector: ClassVar[str] = "Engbert-Kliegl"

    bridge_ms: float = 75.0
    """Gaps without valid samples up to this long are interpolated."""
    sigmas: float = 5.0
    """The threshold of each axis, lambda in the paper."""
    saccade_ms: float = 6.0
    """What is faster for a shorter time is no saccade."""
    merge_ms: float = 75.0
    """Fixations closer than this in time and `merge_deg` in place are one, so that microsaccades split none."""
    merge_deg: float = 0.5
    minimum_ms: float = 60.0


@dataclass(frozen=True)
class IDT:
    """Dispersion threshold (Salvucci and Goldberg, 2000): the longest spans whose samples stay close together."""

    detector: ClassVar[str] = "I-DT"

    bridge_ms: float = 75.0
    """Gaps without valid samples up to this long are interpolated."""
    dispersion_deg: float = 1.0
    """The most that the ranges of x and y may sum up to."""
    minimum_ms: float = 80.0


Parameters = AdaptiveIVT | TobiiIVT | EngbertKliegl | IDT

PRESETS: dict[str, Parameters] = {
    "adaptive": AdaptiveIVT(),
    "tobii-ivt": TobiiIVT(),
    "engbert-kliegl": EngbertKliegl(),
    "idt": IDT(),
}


DEFAULT: Parameters = PRESETS["adaptive"]


def preset_with(name: str, changes: Mapping[str, float]) -> Parameters:
    """Return the preset of a name with some parameters changed.

    Raises
    ------
    UserError
        If there is no such preset, it has no such parameter, or a value is negative or not finite.
    """
    if name not in PRESETS:
        raise UserError(f"There is no detector {name!r}; choose one of {', '.join(PRESETS)}.")
    known = [item.name for item in fields(PRESETS[name])]
    for parameter, value in changes.items():
        if parameter not in known:
            raise UserError(f"The detector {name} has no parameter {parameter}; it has {', '.join(known)}.")
        if not 0 <= value < np.inf:
            raise UserError(f"The detector's parameter {parameter} is {value:g}; give a number of 0 or more.")
    return type(PRESETS[name])(**asdict(PRESETS[name]) | dict(changes))


def detect_fixations(
    time_ms: npt.NDArray[np.floating[Any]],
    xy_deg: npt.NDArray[np.floating[Any]],
    parameters: Parameters = DEFAULT,
) -> FixationSpans:
    """Detect fixations in samples (N).

    Parameters
    ----------
    time_ms
        (N,) ascending; where stamps do not advance, as few samples as possible are passed over. Where the rate changes
        for good, each side is judged by its own, and a fixation there is cut in two.
    xy_deg
        (N, 2) gaze direction in degrees, NaN where invalid.
    parameters
        Their type chooses the detector.

    Returns
    -------
    Spans ascending in time that do not overlap; none holds a gap without valid samples longer than `bridge_ms` (or one
    and a half sampling intervals, if that is more).
    """
    times = np.asarray(time_ms, dtype=np.float64)
    kept = advancing(times)
    kept = kept[np.diff(times[kept], prepend=-np.inf) >= SHORTEST_MS]
    time, xy = times[kept], np.asarray(xy_deg, dtype=np.float64).reshape(-1, 2)[kept]
    found = []
    for part in steady_stretches(time):
        following_ms = float(time[part.stop]) if part.stop < len(time) else np.inf
        track = prepare(time[part], xy[part], kept[part], parameters.bridge_ms, following_ms)
        found.append(_detect(track, parameters))
    if len(found) == 1:
        return found[0]
    names = [item.name for item in fields(FixationSpans)]
    return FixationSpans(**{name: np.concatenate([getattr(item, name) for item in found]) for name in names})


def _detect(track: Track, parameters: Parameters) -> FixationSpans:
    if track.empty:
        return measured(track, np.empty((0, 2), dtype=np.int64), parameters.minimum_ms)
    if isinstance(parameters, AdaptiveIVT):
        spans = detect_adaptive(track, parameters)
    elif isinstance(parameters, TobiiIVT):
        spans = resting_spans(track, _chord_speed(track, parameters.window_ms) < parameters.threshold_deg_s)
    elif isinstance(parameters, EngbertKliegl):
        spans = resting_spans(track, ~_elliptic_saccades(track, parameters))
    else:
        spans = _compact_spans(track, parameters)
    if isinstance(parameters, (TobiiIVT, EngbertKliegl)):
        spans = merged(track, spans, parameters.merge_ms, parameters.merge_deg)
    return measured(track, spans, parameters.minimum_ms)


def _segment_borders(track: Track) -> tuple[Int64s, Int64s]:
    """Return (N,) each the first sample of a sample's segment and the one after its last; its own in long gaps."""
    first = np.arange(len(track.time))
    stop = first + 1
    runs = runs_of(track.segments)
    inside = track.segments >= 0
    lengths = runs[:, 1] - runs[:, 0]
    first[inside], stop[inside] = np.repeat(runs[:, 0], lengths), np.repeat(runs[:, 1], lengths)
    return first, stop


def _chord_speed(track: Track, window_ms: float) -> Floats:
    """Return speed (N,) in deg/s between the ends of a window, NaN in long gaps, 0 for lone samples."""
    half = max(1, round(window_ms / track.interval / 2))
    first, stop = _segment_borders(track)
    index = np.arange(len(track.time))
    left, right = np.maximum(index - half, first), np.minimum(index + half, stop - 1)
    elapsed = track.time[right] - track.time[left]
    chord = track.xy[right] - track.xy[left]
    speed: Floats = 1000 * np.hypot(chord[:, 0], chord[:, 1]) / np.where(elapsed > 0, elapsed, 1.0)
    return speed


def _elliptic_saccades(track: Track, parameters: EngbertKliegl) -> Bools:
    """Return the samples (N,) whose velocity lies outside the ellipse for long enough."""
    first, stop = _segment_borders(track)
    index = np.arange(len(track.time))

    def ahead_less_behind(values: Floats) -> Floats:
        weighted = np.zeros_like(values)
        for step in (1, 2):
            ahead, behind = np.minimum(index + step, stop - 1), np.maximum(index - step, first)
            weighted += values[ahead] - values[behind]
        return weighted

    elapsed = ahead_less_behind(track.time)
    velocity = 1000 * ahead_less_behind(track.xy) / np.where(elapsed > 0, elapsed, 1.0)[:, np.newaxis]
    known = velocity[np.isfinite(velocity).all(axis=1)]
    middle = np.median(known, axis=0)
    deviation = np.sqrt(np.median((known - middle) ** 2, axis=0))
    radius = np.maximum(parameters.sigmas * deviation, 1e-6)
    fast = ((velocity / radius) ** 2).sum(axis=1) > 1
    runs = runs_of(np.where(fast, 0, -1))
    following = np.concatenate([track.time[1:], [track.time[-1] + track.interval]])
    lasting = following[runs[:, 1] - 1] - track.time[runs[:, 0]] > parameters.saccade_ms - ROUNDING_MS
    saccades = np.zeros(len(fast), dtype=np.bool_)
    for start, end in runs[lasting].tolist():
        saccades[start:end] = True
    return saccades


def _compact_spans(track: Track, parameters: IDT) -> Int64s:
    """Return the spans (R, 2), from the left, that cannot be longer without exceeding the dispersion."""
    _, segment_stop = _segment_borders(track)
    time, xy = track.time, track.xy
    reached = np.searchsorted(time, time + parameters.minimum_ms - ROUNDING_MS)
    # What lasts until the segment's end lasts one interval more than its last sample.
    at_end = time[segment_stop - 1] + track.interval - time > parameters.minimum_ms - ROUNDING_MS
    shortest = np.maximum(np.minimum(reached, segment_stop), np.arange(len(time)) + 1)
    begins = (track.segments >= 0) & ((reached < segment_stop) | at_end)
    begins &= _dispersion(xy, shortest) <= parameters.dispersion_deg
    starts = np.flatnonzero(begins).tolist()

    spans = []
    place = 0
    while place < len(starts):
        start = starts[place]
        stop = int(shortest[start])
        low, high = xy[start:stop].min(axis=0), xy[start:stop].max(axis=0)
        chunk = 64
        while stop < segment_stop[start]:
            ahead = xy[stop : min(stop + chunk, int(segment_stop[start]))]
            lows = np.minimum(np.minimum.accumulate(ahead), low)
            highs = np.maximum(np.maximum.accumulate(ahead), high)
            beyond = np.flatnonzero((highs - lows).sum(axis=1) > parameters.dispersion_deg)
            if len(beyond):
                stop += int(beyond[0])
                break
            stop += len(ahead)
            low, high = lows[-1], highs[-1]
            chunk *= 2
        spans.append((start, stop))
        place = bisect_left(starts, stop)
    found = np.array(spans, dtype=np.int64).reshape(-1, 2)
    return found[track.sums.count(found[:, 0], found[:, 1]) > 0]


def _dispersion(xy: Floats, stop: Int64s) -> Floats:
    """Return (N,) range of x plus range of y of the samples from each to before `stop` (N,)."""
    index = np.arange(len(xy))
    length = stop - index
    dispersion = np.zeros(len(xy))
    low, high, width = xy, xy, 1
    # Two windows of a power of two, one from either end, cover each span.
    while True:
        here = np.flatnonzero((length >= width) & (length < 2 * width))
        other = stop[here] - width
        dispersion[here] = (np.maximum(high[here], high[other]) - np.minimum(low[here], low[other])).sum(
            axis=1
        )
        if 2 * width > length.max():
            return dispersion
        low = np.concatenate([np.minimum(low[:-width], low[width:]), low[-width:]])
        high = np.concatenate([np.maximum(high[:-width], high[width:]), high[-width:]])
        width *= 2
