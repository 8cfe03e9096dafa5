"""What the gaze of a study is worth: look by look, recording by recording, annotator by annotator.

The numbers are there to find looks that need to be repeated and sittings that need a new calibration. They are not a
ranking of people: annotators are listed by name, and what differs between them is mostly glasses, light and the chair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from gaze_capture.quality import Validation
from gaze_capture.recording import Placement, Recording, eye_positions
from gaze_capture.recording_codec import read_recording
from gaze_capture.spans import Bools
from segmentation.gaze_gates import Gates
from segmentation.progress import Progress, no_progress
from segmentation.study import Study


@dataclass(frozen=True)
class LookQuality:
    """What one look at one image (or slice) is worth; several placements in a row are one look."""

    recording: str
    annotator: str
    image_id: str
    target_id: str | None
    seconds: float
    """How long the image was shown."""
    fixations: int
    data_loss: float
    """Share of its samples in which no eye that counts was found, 0..1; NaN without samples."""
    longest_gap_ms: float
    """The longest time without a valid sample."""
    rms_s2s_deg: float
    """Precision: root mean square of the angle between successive samples that a fixation's speed allows."""
    held_back: tuple[str, ...] = ()
    """Why it must be looked at again; empty where it may be learned from."""
    overruled_by: str | None = None


@dataclass(frozen=True)
class GazeQuality:
    """What one recording or import is worth."""

    source: str
    annotator: str
    tracker: str
    images: int
    fixations: int
    viewing_seconds: float
    simulated_from: str | None
    started_utc: str = ""
    samples: int | None = None
    """None for gaze imported as fixations."""
    rate_hz: float = math.nan
    data_loss: float = math.nan
    """Share of samples in which neither eye was found, 0..1."""
    loss_left: float = math.nan
    loss_right: float = math.nan
    accuracy_deg: float = math.nan
    """Validated mean error of the sitting."""
    rms_s2s_deg: float = math.nan
    """Median over its looks."""
    validation: Validation | None = None
    """The last one, where its targets were stored."""
    drift_deg: tuple[float, ...] = ()
    """What each drift check found."""
    interruptions: int = 0
    """How often the tracker's connection was lost."""
    held_back: int = 0
    """Looks that must be repeated."""


@dataclass(frozen=True)
class AnnotatorQuality:
    """All recordings and imports of one annotator together."""

    annotator: str
    sources: int
    images: int
    viewing_seconds: float
    data_loss: float
    """Mean of the recordings, weighted by their samples."""
    accuracy_deg: float
    """Mean of the recordings that were validated."""
    looks: int
    held_back: int


@dataclass(frozen=True)
class StudyQuality:
    """The quality of all gaze in a study."""

    looks: tuple[LookQuality, ...]
    sources: tuple[GazeQuality, ...]
    """Recordings first, then imports."""
    annotators: tuple[AnnotatorQuality, ...]
    """By name."""
    unreadable: tuple[tuple[str, str], ...] = ()
    """(recording, reason) of those that cannot be read, or hold no sample; they are left out."""

    def to_text(self) -> str:
        """Return a line a recording, and one on what must be repeated."""
        lines = []
        for source in self.sources:
            known = [f"{source.images} images"]
            if source.simulated_from:
                known.append(f"simulated from {source.simulated_from}")
            if math.isfinite(source.rate_hz):
                known.append(f"{source.rate_hz:.0f} Hz")
            if math.isfinite(source.data_loss):
                known.append(f"loss {source.data_loss:.1%}")
            if math.isfinite(source.accuracy_deg):
                known.append(f"accuracy {source.accuracy_deg:.2f} deg")
            if math.isfinite(source.rms_s2s_deg):
                known.append(f"RMS-S2S {source.rms_s2s_deg:.2f} deg")
            lines.append(f"{source.source} ({source.annotator}): {', '.join(known)}")
        held = [look for look in self.looks if look.held_back and look.overruled_by is None]
        lines += [
            f"look again at {look.image_id} ({look.annotator}): {'; '.join(look.held_back)}" for look in held
        ]
        lines += [f"left out: {reason}" for _, reason in self.unreadable]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; what is unknown is null."""
        sources = []
        for source in self.sources:
            values = asdict(replace(source, validation=None))
            values["validation"] = source.validation.to_json() if source.validation else None
            sources.append(_plain(values))
        return {
            "purpose": "to find looks and sittings that need repeating; not to compare people",
            "looks": [_plain(asdict(look)) for look in self.looks],
            "recordings": sources,
            "annotators": [_plain(asdict(row)) for row in self.annotators],
            "unreadable": [{"recording": name, "reason": reason} for name, reason in self.unreadable],
        }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def study_quality(study: Study, progress: Progress = no_progress) -> StudyQuality:
    """Measure all gaze of a study; reads every recording.

    Raises
    ------
    UserError
        If the study is gone, or its gates or fixations are damaged.
    """
    held = _held_back(study)
    by_source: dict[str, list[Fixations]] = {}
    for item in study.fixations.each():
        by_source.setdefault(item.source, []).append(item)
    recordings = study.recording_ids()
    names = [*recordings, *sorted(set(by_source) - set(recordings))]
    looks: list[LookQuality] = []
    sources: list[GazeQuality] = []
    unreadable: list[tuple[str, str]] = []
    for number, name in enumerate(names):
        progress(number, len(names), name)
        items = by_source.get(name, [])
        row = GazeQuality(
            source=name,
            annotator=items[0].annotator if items else "",
            tracker="imported fixations",
            images=len({item.image_id for item in items}),
            fixations=sum(len(item.duration_ms) for item in items),
            viewing_seconds=sum(item.viewing_ms for item in items) / 1000,
            simulated_from=items[0].simulated_from if items else None,
        )
        if name in recordings:
            try:
                recording = read_recording(study.recordings_folder / name)
            except UserError as error:
                # One that is damaged does not keep the others from being judged; a study that is gone does.
                study.check_there()
                unreadable.append((name, str(error)))
                continue
            own = _looks_of(recording, items, held)
            row = _with_samples(row, recording, own)
        else:
            own = [_look_of_import(item, held) for item in items]
        looks += own
        sources.append(row)
    progress(len(names), len(names), "")
    annotators = _by_annotator(sources, looks)
    return StudyQuality(tuple(looks), tuple(sources), tuple(annotators), tuple(unreadable))


def gaze_quality(study: Study, progress: Progress = no_progress) -> list[GazeQuality]:
    """Measure every recording and import of a study, in the order of their ids."""
    return list(study_quality(study, progress).sources)


Held = dict[tuple[str, str, str | None], tuple[tuple[str, ...], str | None]]
"""Why looks are held back and who overruled it, by recording, image and target."""


def _held_back(study: Study) -> Held:
    found: Held = {}
    for state in Gates(study).states:
        if state.gate.reasons:
            key = (state.recording, state.gate.image_id, state.gate.target_id)
            found[key] = (state.gate.reasons, state.overruled_by)
    return found


def _looks_of(recording: Recording, items: Sequence[Fixations], held: Held) -> list[LookQuality]:
    """Measure a recording's looks: runs of placements of the same image and target."""
    runs: list[list[Placement]] = []
    for placement in recording.placements:
        last = runs[-1][-1] if runs else None
        if last and (last.image_id, last.target_id) == (placement.image_id, placement.target_id):
            runs[-1].append(placement)
        else:
            runs.append([placement])
    # A recording's fixations come one a placement, in the placements' order.
    counts = iter(items if len(items) == len(recording.placements) else ())
    xy = eye_positions(recording.samples, recording.eyes)
    degrees = recording.geometry.degrees_from_normalised(xy)
    valid: Bools = np.isfinite(xy[:, 0]) & np.isfinite(xy[:, 1])
    found = []
    for run in runs:
        first = run[0]
        fixations = sum(len(item.duration_ms) for _ in run if (item := next(counts, None)) is not None)
        own = np.zeros(len(valid), dtype=np.bool_)
        for placement in run:
            low, high = np.searchsorted(recording.time_ns, [placement.start_ns, placement.end_ns])
            own[low:high] = True
        seen = recording.time_ns[own & valid]
        edges = np.concatenate([[first.start_ns], seen, [run[-1].end_ns]])
        reasons, overruled = held.get((recording.id, first.image_id, first.target_id), ((), None))
        found.append(
            LookQuality(
                recording=recording.id,
                annotator=recording.annotator,
                image_id=first.image_id,
                target_id=first.target_id,
                seconds=sum(placement.end_ns - placement.start_ns for placement in run) / 1e9,
                fixations=fixations,
                data_loss=1 - float(valid[own].mean()) if own.any() else math.nan,
                longest_gap_ms=float(np.diff(edges).max()) / 1e6,
                rms_s2s_deg=_precision(degrees[own]),
                held_back=reasons,
                overruled_by=overruled,
            )
        )
    return found


SLOWEST_SHARE = 0.5
"""Precision is taken from the slower half of the steps: the quicker half holds the saccades."""


def _precision(degrees: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Return RMS-S2S in degrees of the slower half of the steps, scaled to what all of a still eye would give."""
    squares = (np.diff(degrees, axis=0) ** 2).sum(axis=1)
    squares = np.sort(squares[np.isfinite(squares)])
    if len(squares) < 8:
        return math.nan
    kept = squares[: int(SLOWEST_SHARE * len(squares))]
    # Squared steps of two-dimensional Gaussian noise are exponential: the mean of their lower half is 1 - ln 2.
    return float(np.sqrt(kept.mean() / (1 - math.log(2))))


def _look_of_import(item: Fixations, held: Held) -> LookQuality:
    reasons, overruled = held.get((item.source, item.image_id, item.target_id), ((), None))
    return LookQuality(
        recording=item.source,
        annotator=item.annotator,
        image_id=item.image_id,
        target_id=item.target_id,
        seconds=item.viewing_ms / 1000,
        fixations=len(item.duration_ms),
        data_loss=math.nan,
        longest_gap_ms=math.nan,
        rms_s2s_deg=math.nan,
        held_back=reasons,
        overruled_by=overruled,
    )


def _with_samples(row: GazeQuality, recording: Recording, looks: Sequence[LookQuality]) -> GazeQuality:
    left, right = (np.isnan(xy).any(axis=1) for xy in (recording.left_xy, recording.right_xy))
    count = len(recording.time_ns)
    seconds = float(recording.time_ns[-1] - recording.time_ns[0]) / 1e9 if count > 1 else 0.0
    validations = [event for event in recording.events if event.kind == "validation"]
    drift = [event.values for event in recording.events if event.kind == "drift"]
    precision = [look.rms_s2s_deg for look in looks if math.isfinite(look.rms_s2s_deg)]
    return replace(
        row,
        annotator=recording.annotator,
        tracker=recording.tracker,
        simulated_from=recording.simulated_from,
        started_utc=recording.started_utc,
        samples=count,
        rate_hz=(count - 1) / seconds if seconds > 0 else math.nan,
        data_loss=float((left & right).mean()) if count else math.nan,
        loss_left=float(left.mean()) if count else math.nan,
        loss_right=float(right.mean()) if count else math.nan,
        accuracy_deg=recording.calibration.mean_error_deg if recording.calibration else math.nan,
        rms_s2s_deg=float(np.median(precision)) if precision else math.nan,
        validation=Validation.from_json(validations[-1].values["validation"]) if validations else None,
        drift_deg=tuple(float(values["distance_deg"]) for values in drift if values.get("distance_deg")),
        interruptions=sum(
            event.kind == "connection" and event.values.get("state") == "lost" for event in recording.events
        ),
        held_back=sum(bool(look.held_back) and look.overruled_by is None for look in looks),
    )


def _by_annotator(sources: Sequence[GazeQuality], looks: Sequence[LookQuality]) -> list[AnnotatorQuality]:
    rows = []
    for annotator in sorted({source.annotator for source in sources}):
        own = [source for source in sources if source.annotator == annotator]
        theirs = [look for look in looks if look.annotator == annotator]
        samples = [(source.samples or 0, source.data_loss) for source in own if source.samples]
        errors = [source.accuracy_deg for source in own if math.isfinite(source.accuracy_deg)]
        total = sum(count for count, _ in samples)
        rows.append(
            AnnotatorQuality(
                annotator=annotator,
                sources=len(own),
                images=len({look.image_id for look in theirs}),
                viewing_seconds=sum(source.viewing_seconds for source in own),
                data_loss=sum(count * loss for count, loss in samples) / total if total else math.nan,
                accuracy_deg=float(np.mean(errors)) if errors else math.nan,
                looks=len(theirs),
                held_back=sum(bool(look.held_back) and look.overruled_by is None for look in theirs),
            )
        )
    return rows
