"""Fixations: spans in which the eye rests, found in gaze samples and placed on the image's own pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gaze_capture.delimited import read_delimited
from gaze_capture.recording import Float32s, Floats, Int64s, Presence, Recording, ScreenGeometry
from gaze_capture.storage import write_bytes_atomic

Bools = npt.NDArray[np.bool_]

ROUNDING_MS = 1e-6
"""What sums of floating-point times may be off."""

ADAPTIVE_IVT = "adaptive I-VT"
SAMPLE_CSV_COLUMNS = ("time_ms", "x_px", "y_px")
FIXATION_CSV_COLUMNS = ("start_ms", "duration_ms", "x_px", "y_px", "dispersion_deg")


@dataclass(frozen=True)
class Fixations:
    """The fixations (F) of one annotator on one image, in order of time."""

    image_id: str
    target_id: str | None
    annotator: str
    source: str
    """Id of the recording they were detected in, or of the import they came with."""
    start_ms: Floats
    """(F,) since the image's onset; negative where the fixation began before it."""
    duration_ms: Floats
    """(F,) of the part during which the image was shown."""
    xy_px: Floats
    """(F, 2) x, y in image pixels, pixel centres at whole numbers; may lie outside the image."""
    dispersion_deg: Floats
    """(F,) root mean square distance of the samples from their mean; NaN where imported without samples."""
    detector: str
    """Name of the detector, or ``"imported"``."""
    parameters: dict[str, float] = field(default_factory=dict)
    degrees_per_px: float | None = None
    """Degrees one image pixel covered; None where the import carried no geometry."""
    accuracy_deg: float | None = None
    """Validated mean error of the sitting; None where unknown."""
    presence: Presence | None = None
    simulated_from: str | None = None
    """``"masks"`` or ``"saliency"`` where no person looked."""
    viewing_ms: float = 0.0
    """How long the image was shown (or, for imports, until the last fixation's end)."""
    instance: Int64s | None = None
    """(F,) index of the lesion looked at, where the annotator told several apart."""


class _HasSource(Protocol):
    @property
    def simulated_from(self) -> str | None: ...


def simulated_source(fixations: Iterable[_HasSource]) -> str | None:
    """Return what the gaze was simulated from, ``"masks"`` before anything else; None if people looked at all of it."""
    sources = sorted({item.simulated_from for item in fixations if item.simulated_from})
    return "masks" if "masks" in sources else next(iter(sources), None)


@dataclass(frozen=True)
class AdaptiveIVT:
    """Velocity threshold that follows the recording's own noise (after Nyström and Holmqvist, 2010)."""

    bridge_ms: float = 75.0
    """Gaps without valid samples up to this long are interpolated."""
    window_ms: float = 20.0
    """Length of the Savitzky-Golay window of order 2; at least 3 samples are used."""
    peak_sigmas: float = 4.0
    """A saccade is faster than median + this many robust sigmas somewhere ..."""
    peak_floor_deg_s: float = 20.0
    peak_ceiling_deg_s: float = 100.0
    onset_sigmas: float = 3.0
    """... and lasts as long as it is faster than median + this many."""
    onset_floor_deg_s: float = 8.0
    merge_ms: float = 75.0
    """Fixations closer than this in time and `merge_deg` in place are one."""
    merge_deg: float = 0.5
    minimum_ms: float = 60.0


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


def detect_fixations(
    time_ms: npt.NDArray[np.floating[Any]],
    xy_deg: npt.NDArray[np.floating[Any]],
    parameters: AdaptiveIVT = AdaptiveIVT(),
) -> FixationSpans:
    """Detect fixations in samples (N) by adaptive velocity threshold.

    Parameters
    ----------
    time_ms
        (N,) ascending; samples that do not advance in time are passed over.
    xy_deg
        (N, 2) gaze direction in degrees, NaN where invalid.
    """
    all_times = np.asarray(time_ms, dtype=np.float64)
    kept = _advancing(all_times)
    time = all_times[kept]
    xy = np.asarray(xy_deg, dtype=np.float64)[kept]
    valid = _valid(xy)
    if valid.sum() < 2:
        return _spans_of(time, xy, valid, kept, np.empty((0, 2), dtype=np.int64), 0.0, 0.0)
    interval = float(np.median(np.diff(time)))
    # Slower trackers than 13 Hz would otherwise consist of gaps alone.
    longest_gap = max(parameters.bridge_ms, 1.5 * interval)

    segments, bridged = _bridge(time, xy, valid, longest_gap)
    speed = _speed(time, bridged, segments, parameters.window_ms, interval)
    peak, onset = _thresholds(speed, parameters)
    resting = np.isfinite(speed) & ~_saccades(speed, peak, onset)

    spans = _runs(np.where(resting, segments, -1))
    spans = _merge(spans, time, xy, valid, parameters)
    found = _spans_of(time, xy, valid, kept, spans, interval, longest_gap)
    long_enough = found.duration_ms > parameters.minimum_ms - ROUNDING_MS
    return FixationSpans(**{name: values[long_enough] for name, values in vars(found).items()})


def _valid(xy: Floats) -> Bools:
    both: Bools = np.isfinite(xy[:, 0]) & np.isfinite(xy[:, 1])
    return both


def _advancing(time: Floats) -> Int64s:
    """Return the indices of samples later than every one before."""
    finite = np.flatnonzero(np.isfinite(time))
    earlier = np.maximum.accumulate(np.concatenate([[-np.inf], time[finite]]))[:-1]
    return finite[time[finite] > earlier]


def _runs(labels: Int64s) -> Int64s:
    """Return (R, 2) first index and index after the last of runs of one label >= 0."""
    borders = np.flatnonzero(np.diff(labels, prepend=-2, append=-2))
    runs = np.stack([borders[:-1], borders[1:]], axis=1)
    return runs[labels[runs[:, 0]] >= 0]


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


def _speed(time: Floats, xy: Floats, segments: Int64s, window_ms: float, interval: float) -> Floats:
    """Return speed in deg/s: Savitzky-Golay derivatives of position over those of time, so jitter cancels."""
    # Imported here: it costs more than the rest of a window's start, and reading fixations does not need it.
    from scipy.signal import savgol_filter

    window = max(3, 2 * round((window_ms / interval - 1) / 2) + 1)
    speed = np.full(len(time), np.nan)
    for start, stop in _runs(segments):
        length = stop - start
        # Times are taken from the segment's start: absolute ones would cost digits.
        track = np.column_stack([xy[start:stop], time[start:stop] - time[start]])
        if length >= 3:
            fits = min(window, length - 1 + length % 2)
            slope = savgol_filter(track, fits, polyorder=2, deriv=1, axis=0)
        elif length == 2:
            slope = np.repeat(np.diff(track, axis=0), 2, axis=0)
        else:
            continue
        # Next to a hole in the time stamps the fitted parabola may even bend backwards.
        milliseconds = np.maximum(slope[:, 2], 0.25 * interval)
        speed[start:stop] = 1000 * np.hypot(slope[:, 0], slope[:, 1]) / milliseconds
    return speed


def _thresholds(speed: Floats, parameters: AdaptiveIVT) -> tuple[float, float]:
    """Return peak and onset threshold in deg/s; samples faster than the peak have no say in it."""
    finite = speed[np.isfinite(speed)]
    peak, previous = parameters.peak_ceiling_deg_s, np.inf
    median = sigma = 0.0
    for _ in range(100):
        slow = finite[finite < peak]
        if abs(previous - peak) < 0.1 or slow.size == 0:
            break
        median = float(np.median(slow))
        sigma = 1.4826 * float(np.median(np.abs(slow - median)))
        previous, peak = peak, median + parameters.peak_sigmas * sigma
    peak = min(max(peak, parameters.peak_floor_deg_s), parameters.peak_ceiling_deg_s)
    onset = max(median + parameters.onset_sigmas * sigma, parameters.onset_floor_deg_s)
    return peak, min(onset, peak)


def _saccades(speed: Floats, peak: float, onset: float) -> Bools:
    """Return the samples of runs above the onset threshold that somewhere exceed the peak threshold."""
    fast = speed > onset
    saccades: Bools = np.zeros(len(speed), dtype=np.bool_)
    runs = _runs(np.where(fast, 0, -1))
    if len(runs) == 0:
        return saccades
    highest = np.maximum.reduceat(np.where(fast, speed, 0.0), runs[:, 0])
    change = np.zeros(len(speed) + 1, dtype=np.int64)
    np.add.at(change, runs[highest > peak, 0], 1)
    np.add.at(change, runs[highest > peak, 1], -1)
    saccades[:] = np.cumsum(change[:-1]) > 0
    return saccades


def _cumulated(xy: Floats, valid: Bools) -> tuple[Floats, Int64s, Floats]:
    """Return running sums (N + 1) over the valid samples: of positions, of ones, of squared lengths."""
    kept = np.where(valid[:, np.newaxis], xy, 0.0)
    sums = np.concatenate([np.zeros((1, 2)), np.cumsum(kept, axis=0)])
    counts = np.concatenate([[0], np.cumsum(valid)])
    squares = np.concatenate([[0.0], np.cumsum((kept**2).sum(axis=1))])
    return sums, counts, squares


def _merge(spans: Int64s, time: Floats, xy: Floats, valid: Bools, parameters: AdaptiveIVT) -> Int64s:
    """Join neighbours that are close in time and place."""
    sums, counts, _ = _cumulated(xy, valid)
    merged: list[tuple[int, int]] = []
    for start, stop in spans.tolist():
        if counts[stop] == counts[start]:
            continue
        if merged:
            first, last = merged[-1]
            pause = time[start] - time[last - 1]
            apart = (sums[stop] - sums[start]) / (counts[stop] - counts[start]) - (
                sums[last] - sums[first]
            ) / (counts[last] - counts[first])
            if pause < parameters.merge_ms and float(np.hypot(*apart)) < parameters.merge_deg:
                merged[-1] = (first, stop)
                continue
        merged.append((start, stop))
    return np.array(merged, dtype=np.int64).reshape(-1, 2)


def _spans_of(
    time: Floats, xy: Floats, valid: Bools, kept: Int64s, spans: Int64s, interval: float, longest_gap: float
) -> FixationSpans:
    """Measure spans of kept samples; indices are given back in terms of all samples."""
    start, stop = spans[:, 0], spans[:, 1]
    sums, counts, squares = _cumulated(xy, valid)
    number = counts[stop] - counts[start]
    mean = (sums[stop] - sums[start]) / number[:, np.newaxis]
    spread = (squares[stop] - squares[start]) / number - (mean**2).sum(axis=1)
    last = time[stop - 1]
    following = np.concatenate([time, [np.inf]])[stop]
    end = np.where(following - last <= longest_gap, following, last + interval)
    return FixationSpans(
        start=kept[start],
        stop=kept[stop - 1] + 1,
        start_ms=time[start],
        duration_ms=end - time[start],
        xy_deg=mean,
        dispersion_deg=np.sqrt(np.maximum(spread, 0.0)),
    )


def binocular_xy(left_xy: Float32s, right_xy: Float32s) -> Floats:
    """Return the mean of the valid eyes (N, 2), NaN where neither of the two (N, 2) is valid."""
    eyes = np.stack([left_xy, right_xy]).astype(np.float64)
    valid = np.isfinite(eyes).all(axis=2, keepdims=True)
    count = valid.sum(axis=0)
    mean: Floats = np.where(valid, eyes, 0.0).sum(axis=0) / np.where(count == 0, np.nan, count)
    return mean


def fixations_of(recording: Recording, parameters: AdaptiveIVT = AdaptiveIVT()) -> list[Fixations]:
    """Detect the fixations of a recording, one :class:`Fixations` a placement, in the placements' order.

    A fixation that spans a change of placement is split there: each side keeps its own samples and the time
    they lasted, if that is still long enough to be a fixation; on the later side its `start_ms` is negative.
    """
    if len(recording.time_ns) == 0:
        origin_ns, time = 0, np.empty(0)
    else:
        origin_ns = int(recording.time_ns[0])
        time = (recording.time_ns - origin_ns) / 1e6
    xy = recording.geometry.degrees_from_normalised(binocular_xy(recording.left_xy, recording.right_xy))
    valid = _valid(xy)
    sums, counts, squares = _cumulated(xy, valid)
    spans = detect_fixations(time, xy, parameters)
    span_end_ms = spans.start_ms + spans.duration_ms

    found = []
    for placement in recording.placements:
        onset_ms, end_ms = (placement.start_ns - origin_ns) / 1e6, (placement.end_ns - origin_ns) / 1e6
        low, high = np.searchsorted(recording.time_ns, [placement.start_ns, placement.end_ns])
        start, stop = np.clip(spans.start, low, high), np.clip(spans.stop, low, high)
        duration = np.minimum(span_end_ms, end_ms) - np.maximum(spans.start_ms, onset_ms)
        number = counts[stop] - counts[start]
        own = (number > 0) & (duration > parameters.minimum_ms - ROUNDING_MS)
        start, stop, number = start[own], stop[own], number[own, np.newaxis]
        mean = (sums[stop] - sums[start]) / number
        spread = (squares[stop] - squares[start]) / number[:, 0] - (mean**2).sum(axis=1)
        screen_px = recording.geometry.screen_px_from_normalised(
            recording.geometry.normalised_from_degrees(mean)
        )
        found.append(
            Fixations(
                image_id=placement.image_id,
                target_id=placement.target_id,
                annotator=recording.annotator,
                source=recording.id,
                start_ms=spans.start_ms[own] - onset_ms,
                duration_ms=duration[own],
                xy_px=placement.image_px_from_screen_px(screen_px),
                dispersion_deg=np.sqrt(np.maximum(spread, 0.0)),
                detector=ADAPTIVE_IVT,
                parameters=asdict(parameters),
                degrees_per_px=placement.degrees_per_image_px(recording.geometry),
                accuracy_deg=recording.calibration.mean_error_deg if recording.calibration else None,
                presence=placement.presence,
                simulated_from=recording.simulated_from,
                viewing_ms=end_ms - onset_ms,
                instance=None
                if placement.instance is None
                else np.full(int(own.sum()), placement.instance, dtype=np.int64),
            )
        )
    return found


def fixations_from_csv(
    path: Path,
    geometry: ScreenGeometry,
    parameters: AdaptiveIVT = AdaptiveIVT(),
) -> Floats:
    """Detect the fixations of a CSV of samples with the columns time_ms, x_px, y_px (screen pixels).

    Returns
    -------
    (F, 5) rows of :data:`FIXATION_CSV_COLUMNS`. Empty positions are invalid samples; other columns are ignored.

    Raises
    ------
    UserError
        If the file is unreadable, a column is missing, or a cell is not what it should be; names the line.
    """
    time, xy_px = _read_samples(path)
    xy_deg = geometry.degrees_from_normalised(xy_px / [geometry.width_px, geometry.height_px])
    spans = detect_fixations(time, xy_deg, parameters)
    screen_px = geometry.screen_px_from_normalised(geometry.normalised_from_degrees(spans.xy_deg))
    return np.column_stack([spans.start_ms, spans.duration_ms, screen_px, spans.dispersion_deg])


def write_fixation_csv(path: Path, rows: Floats) -> None:
    """Write the rows of :func:`fixations_from_csv`, atomically."""
    lines = [",".join(FIXATION_CSV_COLUMNS)]
    lines += [
        f"{start:.3f},{length:.3f},{x:.3f},{y:.3f},{spread:.4f}"
        for start, length, x, y, spread in rows.tolist()
    ]
    write_bytes_atomic(path, ("\n".join(lines) + "\n").encode())


def _read_samples(path: Path) -> tuple[Floats, Floats]:
    """Return time (N,) and position (N, 2) of a CSV of samples."""
    samples: list[tuple[float, float, float]] = []
    previous = -np.inf
    for cells in read_delimited(path, SAMPLE_CSV_COLUMNS):
        moment, x, y = (cell for cell in cells if cell)
        time = moment.number()
        if not time >= previous:
            raise moment.wrong(
                "the time is empty" if np.isnan(time) else "the time lies before the line above"
            )
        previous = time
        samples.append((time, x.number(), y.number()))
    table = np.array(samples, dtype=np.float64).reshape(-1, 3)
    return table[:, 0], table[:, 1:]
