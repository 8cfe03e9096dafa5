"""What is in a gaze file, in numbers, and its own program's fixations beside the ones detected here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gaze_capture.fixations import detect_fixations
from gaze_capture.formats.gaze_file import Eye, GazeFile
from gaze_capture.recording import Floats, gaze_xy

_PAUSE_NS = 1_000_000_000
"""Longer holes are pauses of the recording and no lost samples."""


@dataclass(frozen=True)
class FixationSummary:
    """How many fixations, and how long."""

    count: int
    median_ms: float | None
    """None where there are none."""


@dataclass(frozen=True)
class Inspection:
    """A gaze file in numbers."""

    samples: int
    duration_s: float
    """From the first sample to the last."""
    recorded_s: float
    """Without pauses of more than a second."""
    absent: float
    """Share of the samples that the rate asks for and the file lacks, 0..1, pauses left out."""
    loss: dict[str, float | None]
    """Share of the file's samples without a position, 0..1: of the ``left`` eye, the ``right`` one, and ``neither``
    where no eye has one. None for an eye that has none at all."""
    detected: FixationSummary
    own: FixationSummary | None
    """None where the file has no fixations of its own; of two eyes' the ones of the eye that has more."""
    own_eye: Eye | None
    f1: float | None
    """Agreement of the two: 2 x matches / (own + detected), two that share half of their joint time being a match."""


def inspect(gaze: GazeFile) -> Inspection:
    """Sum a gaze file up."""
    samples = gaze.samples
    time = samples["time_ns"]
    steps = np.diff(time)
    recorded_ns = int(steps[steps <= _PAUSE_NS].sum())
    expected = recorded_ns / 1e9 * gaze.rate_hz
    steps_counted = int((steps <= _PAUSE_NS).sum())
    left, right = (np.stack([samples[f"{eye}_x"], samples[f"{eye}_y"]], axis=1) for eye in ("left", "right"))
    seen = [np.isfinite(xy).all(axis=1) for xy in (left, right)]
    spans = detect_fixations(
        (time - time[0]) / 1e6,
        gaze.geometry.degrees_from_normalised(gaze_xy(left, right)),
    )
    origin_ms = float(time[0]) / 1e6
    detected = np.stack([spans.start_ms, spans.start_ms + spans.duration_ms], axis=1)
    own, own_eye = None, None
    if gaze.own_fixations is not None:
        fixations = gaze.own_fixations
        own_eye = Counter(fixations.eye).most_common(1)[0][0]
        chosen = np.array([eye == own_eye for eye in fixations.eye], dtype=np.bool_)
        start = fixations.start_ms[chosen] - origin_ms
        own = np.stack([start, start + fixations.duration_ms[chosen]], axis=1)
    return Inspection(
        samples=len(time),
        duration_s=float(time[-1] - time[0]) / 1e9,
        recorded_s=recorded_ns / 1e9,
        absent=max(0.0, 1 - steps_counted / expected) if expected > 0 else 0.0,
        loss={
            "left": _loss(seen[0]),
            "right": _loss(seen[1]),
            "neither": _loss(seen[0] | seen[1]),
        },
        detected=_summary(detected),
        own=None if own is None else _summary(own),
        own_eye=own_eye,
        f1=None if own is None else event_f1(own, detected),
    )


def _loss(seen: npt.NDArray[np.bool_]) -> float | None:
    return float(1 - seen.mean()) if seen.any() else None


def _summary(spans: Floats) -> FixationSummary:
    median = float(np.median(spans[:, 1] - spans[:, 0])) if len(spans) else None
    return FixationSummary(len(spans), median)


def event_f1(first: Floats, second: Floats, least_iou: float = 0.5) -> float:
    """Return the F1 of two lists of events (F, 2) from start to end, each list without overlaps; 0 where one is empty.

    Two events match when they share at least `least_iou` of their joint time; each matches once.
    """
    if len(first) == 0 or len(second) == 0:
        return 0.0
    ordered = second[np.argsort(second[:, 0])]
    free = np.ones(len(ordered), dtype=np.bool_)
    matches = 0
    for start, end in first[np.argsort(first[:, 0])].tolist():
        low = int(np.searchsorted(ordered[:, 1], start, side="right"))
        high = int(np.searchsorted(ordered[:, 0], end, side="left"))
        shared = np.minimum(ordered[low:high, 1], end) - np.maximum(ordered[low:high, 0], start)
        joint = np.maximum(ordered[low:high, 1], end) - np.minimum(ordered[low:high, 0], start)
        good = np.flatnonzero((shared >= least_iou * joint) & (joint > 0) & free[low:high])
        if len(good):
            free[low + int(good[0])] = False
            matches += 1
    return 2 * matches / (len(first) + len(second))
