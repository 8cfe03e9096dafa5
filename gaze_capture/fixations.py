"""Fixations: spans in which the eye rests, found in gaze samples and placed on the image's own pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from gaze_capture.delimited import read_delimited
from gaze_capture.detectors import DEFAULT, AdaptiveIVT, FixationSpans, Parameters, detect_fixations
from gaze_capture.recording import Floats, Int64s, Presence, Recording, ScreenGeometry, gaze_xy
from gaze_capture.spans import ROUNDING_MS, Sums, advancing, plausible
from gaze_capture.storage import write_bytes_atomic

__all__ = [
    "AdaptiveIVT",
    "FixationSpans",
    "Fixations",
    "detect_fixations",
    "fixations_from_csv",
    "fixations_of",
    "simulated_source",
    "write_fixation_csv",
]

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


def fixations_of(recording: Recording, parameters: Parameters = DEFAULT) -> list[Fixations]:
    """Detect the fixations of a recording, one :class:`Fixations` a placement, in the placements' order.

    A fixation that spans a change of placement is split there: each side keeps its own samples and the time
    they lasted, if that is still long enough to be a fixation; on the later side its `start_ms` is negative.
    """
    kept = advancing(recording.time_ns)
    time_ns = recording.time_ns[kept]
    origin_ns = int(time_ns[0]) if len(time_ns) else 0
    eyes = gaze_xy(recording.left_xy[kept], recording.right_xy[kept], recording.eyes)
    xy = recording.geometry.degrees_from_normalised(eyes)
    sums = Sums.of(xy, plausible(xy))
    spans = detect_fixations((time_ns - origin_ns) / 1e6, xy, parameters)
    span_end_ms = spans.start_ms + spans.duration_ms

    found = []
    for placement in recording.placements:
        onset_ms, end_ms = (placement.start_ns - origin_ns) / 1e6, (placement.end_ns - origin_ns) / 1e6
        low, high = np.searchsorted(time_ns, [placement.start_ns, placement.end_ns])
        start, stop = np.clip(spans.start, low, high), np.clip(spans.stop, low, high)
        duration = np.minimum(span_end_ms, end_ms) - np.maximum(spans.start_ms, onset_ms)
        own = (sums.count(start, stop) > 0) & (duration > max(parameters.minimum_ms - ROUNDING_MS, 0.0))
        start, stop = start[own], stop[own]
        screen_px = recording.geometry.screen_px_from_normalised(
            recording.geometry.normalised_from_degrees(sums.mean(start, stop))
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
                dispersion_deg=sums.dispersion(start, stop),
                detector=parameters.detector,
                parameters=asdict(parameters),
                degrees_per_px=placement.degrees_per_image_px(recording.geometry),
                accuracy_deg=recording.accuracy_at(placement.start_ns),
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
    parameters: Parameters = DEFAULT,
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
