"""What each recording and each import of a study is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from gaze_capture.fixations import Fixations
from gaze_capture.recording_codec import read_recording
from segmentation.progress import Progress, no_progress
from segmentation.study import Study


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
    samples: int | None = None
    """None for gaze imported as fixations."""
    rate_hz: float = math.nan
    data_loss: float = math.nan
    """Share of samples in which neither eye was found, 0..1."""
    accuracy_deg: float = math.nan
    """Validated mean error of the sitting."""


def gaze_quality(study: Study, progress: Progress = no_progress) -> list[GazeQuality]:
    """Measure every recording and import of a study, in the order of their ids."""
    by_source: dict[str, list[Fixations]] = {}
    for item in study.fixations.each():
        by_source.setdefault(item.source, []).append(item)
    recordings = study.recording_ids()
    sources = [*recordings, *sorted(set(by_source) - set(recordings))]
    rows = []
    for number, source in enumerate(sources):
        progress(number, len(sources), source)
        items = by_source.get(source, [])
        row = GazeQuality(
            source=source,
            annotator=items[0].annotator if items else "",
            tracker="imported fixations",
            images=len(items),
            fixations=sum(len(item.duration_ms) for item in items),
            viewing_seconds=sum(item.viewing_ms for item in items) / 1000,
            simulated_from=items[0].simulated_from if items else None,
        )
        rows.append(_with_samples(row, study) if source in recordings else row)
    progress(len(sources), len(sources), "")
    return rows


def _with_samples(row: GazeQuality, study: Study) -> GazeQuality:
    recording = read_recording(study.recordings_folder / row.source)
    lost = np.isnan(recording.left_xy).any(axis=1) & np.isnan(recording.right_xy).any(axis=1)
    count = len(recording.time_ns)
    seconds = float(recording.time_ns[-1] - recording.time_ns[0]) / 1e9 if count > 1 else 0.0
    return replace(
        row,
        annotator=recording.annotator,
        tracker=recording.tracker,
        simulated_from=recording.simulated_from,
        samples=count,
        rate_hz=(count - 1) / seconds if seconds > 0 else math.nan,
        data_loss=float(lost.mean()) if count else math.nan,
        accuracy_deg=recording.calibration.mean_error_deg if recording.calibration else math.nan,
    )
