"""Correcting the drift of a study's recordings, when asked to."""

from __future__ import annotations

from dataclasses import dataclass

from gaze_capture.drift_correction import (
    CORRECTION_NAME,
    DriftCorrection,
    Method,
    correction_of,
    read_correction,
    write_correction,
)
from gaze_capture.errors import UserError
from gaze_capture.recording_codec import read_recording
from gaze_capture.storage import explained_os_errors
from segmentation.steps import detect_fixations
from segmentation.study import Study


@dataclass(frozen=True)
class DriftReport:
    """What correcting the drift of a recording did."""

    recording: str
    correction: DriftCorrection | None
    """None where it was taken away."""
    mean_offset_deg: tuple[float, float]
    """x to the right, y down: what is taken off gaze while images are shown, on average."""
    fixations: int


def correct_drift(
    study: Study, recording_id: str, *, method: Method = "linear", remove: bool = False
) -> DriftReport:
    """Take the drift that a recording's drift checks found off its fixations, or no longer; raw gaze stays as it is.

    Raises
    ------
    UserError
        If there is no such recording, it has no drift check, or no correction to remove.
    """
    if recording_id not in study.recording_ids():
        raise UserError(f"The study has no recording {recording_id!r}.")
    folder = study.recordings_folder / recording_id
    recording = read_recording(folder)
    correction = None
    if remove:
        before = read_correction(folder)
        if before is None:
            raise UserError(f"The recording {recording_id} has no drift correction to remove.")
        with explained_os_errors(folder / CORRECTION_NAME):
            (folder / CORRECTION_NAME).unlink()
        mean = before.mean_deg(recording)
    else:
        correction = correction_of(recording, method)
        write_correction(folder, correction)
        mean = correction.mean_deg(recording)
    fixations = detect_fixations(study, recording_id)
    study.audit(
        "correct drift", recording=recording_id, method=None if remove else method, mean_offset_deg=mean
    )
    return DriftReport(recording_id, correction, mean, fixations)
