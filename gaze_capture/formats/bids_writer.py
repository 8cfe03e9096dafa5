"""One recording as BIDS 1.11 eye tracking (BEP020): samples an eye, fixations, and what was shown.

All times are in seconds since the recording's first sample, in every file. Samples are screen pixels from the top
left corner.
"""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gaze_capture.fixations import Fixations
from gaze_capture.recording import Float32s, Floats, Placement, Recording
from gaze_capture.storage import explained_os_errors, write_bytes_atomic, write_json_atomic

BIDS_VERSION = "1.11.1"
NO_VALUE = "n/a"
ROWS_AT_A_TIME = 50_000
COMPRESSION = 5

Eye = Literal["left", "right", "cyclopean"]

PHYSIO_COLUMNS = ("timestamp", "x_coordinate", "y_coordinate", "pupil_size", "device_timestamp")
FIXATION_COLUMNS = (
    "onset", "duration", "trial_type", "x_coordinate", "y_coordinate", "dispersion_deg", "image_id", "image_x",
    "image_y",
)  # fmt: skip
EVENT_COLUMNS = (
    "onset", "duration", "trial_type", "image_id", "image_name", "stim_file", "target", "presence", "instance",
    "shown_x", "shown_y", "shown_width", "shown_height", "image_from_screen", "window_centre", "window_width",
)  # fmt: skip


@dataclass(frozen=True)
class ShownImage:
    """One placement, with what a reader needs to know of its image."""

    placement: Placement
    image_name: str | None = None
    size_px: tuple[int, int] | None = None
    """Width and height of the image."""
    stim_file: str | None = None
    """Path below ``stimuli/``, where the image goes along."""
    fixations: Fixations | None = None


@dataclass(frozen=True)
class Task:
    """What all recordings of a data set share."""

    label: str
    """Letters and digits."""
    description: str
    instructions: str
    targets: Mapping[str, str]
    """Names by id."""
    program: str
    version: str


def label_of(text: str) -> str:
    """Return what of a text may stand in a BIDS label: ASCII letters and digits; may be empty."""
    return "".join(letter for letter in text if letter.isascii() and letter.isalnum())


def write_bids_recording(
    folder: Path, stem: str, recording: Recording, shown: Sequence[ShownImage], task: Task
) -> None:
    """Write ``<stem>_recording-eye*_physio``, ``_physioevents`` and ``<stem>_events`` into a folder, made if missing.

    An eye without one valid sample is left out; eyes that are the same throughout (a mouse) become one cyclopean
    recording. Fixations were detected in the mean of both eyes; they stand beside the first eye's samples.

    Parameters
    ----------
    stem : like ``sub-01_task-view_run-01``
    recording : with at least one sample
    shown : its placements

    Raises
    ------
    UserError
        If the disk is full or the place is not writable.
    """
    for number, (eye, xy, pupil) in enumerate(_eyes(recording), start=1):
        name = f"{stem}_recording-eye{number}"
        _write_samples(folder / f"{name}_physio.tsv.gz", recording, xy, pupil)
        write_json_atomic(folder / f"{name}_physio.json", _physio_sidecar(recording, eye, task))
        fixations = list(_fixation_rows(recording, shown)) if number == 1 else []
        if fixations:
            text = "".join("\t".join(row) + "\n" for row in sorted(fixations, key=lambda row: float(row[0])))
            path = folder / f"{name}_physioevents.tsv.gz"
            write_bytes_atomic(path, gzip.compress(text.encode(), COMPRESSION, mtime=0))
            detector = next(item.fixations.detector for item in shown if item.fixations is not None)
            sidecar = {"TaskName": task.label, **_physioevents_sidecar(recording, detector)}
            write_json_atomic(folder / f"{name}_physioevents.json", sidecar)
    rows = [EVENT_COLUMNS, *sorted(_event_rows(recording, shown), key=lambda row: float(row[0]))]
    text = "".join("\t".join(row) + "\n" for row in rows)
    write_bytes_atomic(folder / f"{stem}_events.tsv", text.encode())
    write_json_atomic(folder / f"{stem}_events.json", _events_sidecar(recording, task))


def _eyes(recording: Recording) -> Iterable[tuple[Eye, Float32s, Float32s]]:
    """Return each recorded eye with its positions (N, 2) and pupil diameters (N,)."""
    left, right, pupil = recording.left_xy, recording.right_xy, recording.pupil_mm
    same = np.array_equal(left, right, equal_nan=True)
    if same and np.array_equal(pupil[:, 0], pupil[:, 1], equal_nan=True):
        return [("cyclopean", left, pupil[:, 0])]
    eyes: list[tuple[Eye, Float32s, Float32s]] = [("left", left, pupil[:, 0]), ("right", right, pupil[:, 1])]
    return [(eye, xy, size) for eye, xy, size in eyes if np.isfinite(xy).any() or np.isfinite(size).any()]


def _origin_ns(recording: Recording) -> int:
    return int(recording.time_ns[0])


def _write_samples(path: Path, recording: Recording, xy: Float32s, pupil: Float32s) -> None:
    time_s = (recording.time_ns - _origin_ns(recording)) / 1e9
    device_s = (recording.device_time_ns - recording.device_time_ns[0]) / 1e9
    pixels = recording.geometry.screen_px_from_normalised(xy)
    # Nanoseconds, and as many digits as bring a 32-bit float back as it was.
    cells = "%.9f\t%.9g\t%.9g\t%.9g\t%.9f\n"
    with explained_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            open(path, "wb") as stream,
            gzip.GzipFile("", "wb", COMPRESSION, stream, mtime=0) as packed,
        ):
            for start in range(0, len(time_s), ROWS_AT_A_TIME):
                part = slice(start, start + ROWS_AT_A_TIME)
                columns = (time_s, pixels[:, 0], pixels[:, 1], pupil, device_s)
                rows = zip(*(column[part].tolist() for column in columns), strict=True)
                text = "".join([cells % row for row in rows])
                packed.write(text.replace("nan", NO_VALUE).encode())


def _physio_sidecar(recording: Recording, eye: Eye, task: Task) -> dict[str, Any]:
    found = recording.calibration
    which = "both eyes" if eye == "cyclopean" else f"the {eye} eye"
    return {
        "TaskName": task.label,
        "PhysioType": "eyetrack",
        "RecordedEye": eye,
        "SampleCoordinateSystem": "gaze-on-screen",
        "SamplingFrequency": _rate_hz(recording),
        "StartTime": 0,
        "Columns": list(PHYSIO_COLUMNS),
        "ManufacturersModelName": recording.tracker,
        "SoftwareVersions": f"{task.program} {task.version}",
        **(
            {}
            if found is None
            else {
                "AverageCalibrationError": found.mean_error_deg,
                "MaximalCalibrationError": found.max_error_deg,
                **({"CalibrationType": f"HV{found.points}"} if found.points else {}),
            }
        ),
        **_provenance(recording),
        "timestamp": {
            "LongName": "Time of the sample",
            "Description": "Time since the recording's first sample, on the host's monotonic clock",
            "Units": "s",
        },
        "x_coordinate": {
            "LongName": "Gaze position (x)",
            "Description": f"Where the gaze of {which} meets the screen, from the left edge; n/a where invalid",
            "Units": "pixel",
        },
        "y_coordinate": {
            "LongName": "Gaze position (y)",
            "Description": f"Where the gaze of {which} meets the screen, from the top edge; n/a where invalid",
            "Units": "pixel",
        },
        "pupil_size": {"Description": f"Pupil diameter of {which}; n/a where unknown", "Units": "mm"},
        "device_timestamp": {
            "Description": "Time since the first sample on the tracker's own clock",
            "Units": "s",
        },
    }


def _rate_hz(recording: Recording) -> float:
    nominal = recording.notes.get("rate_hz")
    if isinstance(nominal, int | float) and math.isfinite(nominal) and nominal > 0:
        return float(nominal)
    intervals = np.diff(recording.time_ns)
    interval = float(np.median(intervals)) if len(intervals) else 0.0
    return round(1e9 / interval, 6) if interval > 0 else 0.0


def _provenance(recording: Recording) -> dict[str, Any]:
    facts: dict[str, Any] = {"RecordingID": recording.id}
    if recording.simulated_from:
        facts["SimulatedFrom"] = recording.simulated_from
        facts["Description"] = f"Gaze simulated from {recording.simulated_from}: no person looked"
    return facts


def _fixation_rows(recording: Recording, shown: Sequence[ShownImage]) -> Iterable[tuple[str, ...]]:
    for item in shown:
        found = item.fixations
        if found is None:
            continue
        onset_s = (item.placement.start_ns - _origin_ns(recording)) / 1e9
        screen = _screen_px(item.placement, found.xy_px)
        for start, duration, (x, y), (image_x, image_y), spread in zip(
            found.start_ms.tolist(), found.duration_ms.tolist(), screen.tolist(), found.xy_px.tolist(),
            found.dispersion_deg.tolist(), strict=True,
        ):  # fmt: skip
            yield (
                f"{onset_s + start / 1000:.9f}", f"{duration / 1000:.9f}", "fixation", f"{x:.9g}", f"{y:.9g}",
                _number(spread), _cell(item.placement.image_id), f"{image_x:.9g}", f"{image_y:.9g}",
            )  # fmt: skip


def _screen_px(placement: Placement, image_px: Floats) -> Floats:
    inverse = np.linalg.inv(placement.image_from_screen)
    homogeneous = np.concatenate([image_px, np.ones((len(image_px), 1))], axis=1) @ inverse.T
    mapped: Floats = homogeneous[:, :2] / homogeneous[:, 2:]
    return mapped


def _physioevents_sidecar(recording: Recording, detector: str) -> dict[str, Any]:
    about = f"Fixations detected in the mean of the valid eyes (not in this eye alone) by {detector}"
    sidecar = _provenance(recording)
    if "Description" in sidecar:
        about += f". {sidecar['Description']}"
    return {
        **sidecar,
        "Columns": list(FIXATION_COLUMNS),
        "Description": about,
        "OnsetSource": "timestamp",
        "onset": {"Description": "Beginning, on the clock of the column timestamp", "Units": "s"},
        "duration": {"Description": "Until the first sample after it", "Units": "s"},
        "trial_type": {"Description": "Kind of event", "Levels": {"fixation": "The eye rests"}},
        "x_coordinate": {"Description": "Mean position on the screen, from the left edge", "Units": "pixel"},
        "y_coordinate": {"Description": "Mean position on the screen, from the top edge", "Units": "pixel"},
        "dispersion_deg": {
            "Description": "Root mean square distance of the samples from their mean",
            "Units": "degree",
        },
        "image_id": {"Description": "The image it fell on, as in the events file"},
        "image_x": {"Description": "Position in the image, pixel centres at whole numbers", "Units": "pixel"},
        "image_y": {"Description": "Position in the image, pixel centres at whole numbers", "Units": "pixel"},
    }


def _event_rows(recording: Recording, shown: Sequence[ShownImage]) -> Iterable[tuple[str, ...]]:
    for item in shown:
        place = item.placement
        rectangle = (
            (NO_VALUE,) * 4
            if item.size_px is None
            else tuple(f"{value:.9g}" for value in _rectangle(place, item.size_px))
        )
        window = (
            (NO_VALUE,) * 2 if place.window_level is None else tuple(f"{v:.9g}" for v in place.window_level)
        )
        yield (
            f"{(place.start_ns - _origin_ns(recording)) / 1e9:.9f}",
            f"{(place.end_ns - place.start_ns) / 1e9:.9f}",
            "image",
            _cell(place.image_id),
            _cell(item.image_name),
            _cell(item.stim_file),
            _cell(place.target_id),
            _cell(place.presence),
            NO_VALUE if place.instance is None else str(place.instance),
            *rectangle,
            " ".join(f"{value:.17g}" for value in place.image_from_screen.ravel().tolist()),
            *window,
        )


def _rectangle(placement: Placement, size_px: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return left, top, width and height on the screen of a whole image, which may be larger than the screen."""
    width, height = size_px
    corners = _screen_px(placement, np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]]))
    (left, top), (right, bottom) = corners.tolist()
    return left, top, right - left, bottom - top


def _events_sidecar(recording: Recording, task: Task) -> dict[str, Any]:
    geometry = recording.geometry
    return {
        "TaskName": task.label,
        "TaskDescription": task.description,
        "Instructions": task.instructions,
        **_provenance(recording),
        "StimulusPresentation": {
            "ScreenDistance": geometry.viewing_distance_mm / 1000,
            "ScreenOrigin": ["top", "left"],
            "ScreenResolution": [geometry.width_px, geometry.height_px],
            "ScreenSize": [geometry.width_mm / 1000, geometry.height_mm / 1000],
            "SoftwareName": task.program,
            "SoftwareVersion": task.version,
        },
        "onset": {"Description": "Since the recording's first sample", "Units": "s"},
        "duration": {"Description": "How long it was shown", "Units": "s"},
        "trial_type": {"Description": "What happened", "Levels": {"image": "An image is shown at one place"}},
        "image_id": {"Description": "Id of the image in the study"},
        "image_name": {"Description": "Name of the image's file, or its pseudonym"},
        "stim_file": {"Description": "The image below stimuli/, where it goes along"},
        "target": {
            "Description": "What was looked for; n/a while viewing freely",
            "Levels": dict(task.targets),
        },
        "presence": {
            "Description": "The annotator's word on the target in the image",
            "Levels": {
                "present": "It is there",
                "absent": "It is not there",
                "unsure": "It may be there",
                "ungradable": "The image does not allow to tell",
            },
        },
        "instance": {"Description": "Number of the lesion looked at, where several are told apart"},
        "shown_x": {"Description": "Left edge of the whole image on the screen", "Units": "pixel"},
        "shown_y": {"Description": "Top edge of the whole image on the screen", "Units": "pixel"},
        "shown_width": {"Description": "Width of the whole image on the screen", "Units": "pixel"},
        "shown_height": {"Description": "Height of the whole image on the screen", "Units": "pixel"},
        "image_from_screen": {
            "Description": "3x3 matrix, row by row, that takes (x, y, 1) in screen pixels to image pixels (pixel "
            "centres at whole numbers)"
        },
        "window_centre": {"Description": "Grey value in the middle of the display window"},
        "window_width": {"Description": "Width of the display window in grey values"},
    }


def _cell(text: str | None) -> str:
    # A name may hold a tab or a line break; a cell may not.
    return " ".join(text.split()) or NO_VALUE if text else NO_VALUE


def _number(value: float) -> str:
    return NO_VALUE if math.isnan(value) else f"{value:.9g}"


def tsv(columns: Sequence[str], rows: Iterable[Sequence[str | None]]) -> bytes:
    """Return a table with a header as bytes; None and empty cells become n/a."""
    text = io.StringIO()
    for row in (columns, *rows):
        text.write("\t".join(map(_cell, row)) + "\n")
    return text.getvalue().encode()
