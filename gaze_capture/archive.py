"""The archive of a recording: its samples as a Parquet file that other programs open, and the hashes of both.

``gaze.frames`` stays the truth and is kept; ``gaze.parquet`` holds the same samples bit for bit, and everything else
that the recording says as JSON in the metadata of its schema: ``header``, ``placements`` and ``events``. Where making
it fails, the recording is as whole as before, recording.json says why, and it can be made any time later.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gaze_capture.columns import SAMPLE_COLUMNS, parquet_fields, pyarrow
from gaze_capture.errors import UserError
from gaze_capture.recording import Recording
from gaze_capture.recording_codec import FRAMES_NAME, SUMMARY_NAME, read_recording
from gaze_capture.storage import explained_os_errors, read_json, sha256_of, write_json_atomic, writing_atomic

ARCHIVE_NAME = "gaze.parquet"
ARCHIVE_SCHEMA = 1

_ROWS_AT_A_TIME = 1 << 19


def program() -> str:
    """Return the program's name and version."""
    return f"Gaze Insight {importlib.metadata.version('gaze-insight')}"


def write_archive(folder: Path) -> None:
    """Write a finished recording's gaze.parquet, in place of one that is there, and both hashes to recording.json.

    Raises
    ------
    UserError
        If the recording is not finished or not what was recorded, pyarrow is missing, or the disk refuses; the
        recording is as it was, and recording.json says why if it can be written.
    """
    summary = check_frames(folder)
    try:
        _write_parquet(folder, read_recording(folder, raw=True))
        with explained_os_errors(folder / ARCHIVE_NAME):
            summary["sha256"][ARCHIVE_NAME] = sha256_of(folder / ARCHIVE_NAME)
    except UserError as error:
        summary["sha256"].pop(ARCHIVE_NAME, None)
        with contextlib.suppress(UserError):
            write_json_atomic(folder / SUMMARY_NAME, {**summary, "archive_failed": str(error)}, within=folder)
        raise
    summary.pop("archive_failed", None)
    write_json_atomic(folder / SUMMARY_NAME, summary, within=folder)


def needs_archive(folder: Path) -> bool:
    """Return whether a finished recording has no gaze.parquet, or one that is not what was archived.

    What ``simulate`` drew has none and needs none: it is no measurement, and drawn again in no time.

    Raises
    ------
    UserError
        If recording.json is damaged, or a file cannot be read.
    """
    if not (folder / SUMMARY_NAME).exists():
        return False
    summary = _summary(folder)
    noted = summary["sha256"].get(ARCHIVE_NAME)
    if noted is None and summary.get("simulated_from") and "sitting" in (summary.get("notes") or {}):
        return False
    path = folder / ARCHIVE_NAME
    with explained_os_errors(path):
        return noted is None or not path.exists() or sha256_of(path) != noted


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY_NAME
    summary: dict[str, Any] = read_json(path)
    if not isinstance(summary, dict) or FRAMES_NAME not in (summary.get("sha256") or {}):
        raise UserError(
            f"{path} is damaged: it does not tell the hash of {FRAMES_NAME}. Restore it from a backup."
        )
    return summary


def check_frames(folder: Path) -> dict[str, Any]:
    """Check a finished recording's gaze.frames against its hash; return what recording.json says.

    Raises
    ------
    UserError
        If it is not what was recorded, or either file cannot be read.
    """
    summary, path = _summary(folder), folder / FRAMES_NAME
    with explained_os_errors(path):
        if sha256_of(path) != summary["sha256"][FRAMES_NAME]:
            raise UserError(
                f"{path} is not what was recorded: it has another hash. Restore it from a backup."
            )
    return summary


def _write_parquet(folder: Path, recording: Recording) -> None:
    arrow = pyarrow()
    fields = parquet_fields(SAMPLE_COLUMNS)
    schema = arrow.schema(fields, metadata=_metadata(recording))
    # Clocks tick evenly and gaze moves little: about half the size that bytes in a row compress to.
    encodings = {
        column.name: "DELTA_BINARY_PACKED" if column.type == "integer" else "BYTE_STREAM_SPLIT"
        for column in SAMPLE_COLUMNS
    }
    samples = recording.samples
    # Opened here, so that a full disk is told by the system and not by a library.
    with (
        writing_atomic(folder / ARCHIVE_NAME, within=folder) as stream,
        arrow.parquet.ParquetWriter(
            stream, schema, compression="zstd", use_dictionary=False, column_encoding=encodings
        ) as writer,
    ):
        for start in range(0, len(samples), _ROWS_AT_A_TIME):
            rows = samples[start : start + _ROWS_AT_A_TIME]
            arrays = [
                arrow.array(np.ascontiguousarray(rows[field.name]), type=field.type) for field in fields
            ]
            writer.write_batch(arrow.record_batch(arrays, schema=schema))


def _metadata(recording: Recording) -> dict[str, str]:
    header = {
        "id": recording.id,
        "annotator": recording.annotator,
        "tracker": recording.tracker,
        "geometry": asdict(recording.geometry),
        "calibration": recording.calibration and asdict(recording.calibration),
        "started_utc": recording.started_utc,
        "simulated_from": recording.simulated_from,
        "notes": recording.notes,
    }
    placements = [
        {**asdict(place), "image_from_screen": place.image_from_screen.tolist()}
        for place in recording.placements
    ]
    values = {
        "header": header,
        "placements": placements,
        "events": [asdict(event) for event in recording.events],
    }
    return {
        "program": program(),
        "schema": str(ARCHIVE_SCHEMA),
        **{name: json.dumps(value, ensure_ascii=False, allow_nan=False) for name, value in values.items()},
    }
