"""Calibrations kept for who comes back to the same tracker; what is used again must be validated again."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from gaze_capture.errors import UserError
from gaze_capture.quality import Validation
from gaze_capture.recording import Eyes, ScreenGeometry
from gaze_capture.storage import explained_os_errors, read_json, write_bytes_atomic
from gaze_capture.trackers.tracker import Tracker

SCHEMA = 1


@dataclass(frozen=True)
class SavedCalibration:
    """What a tracker's calibrator saved for one annotator, and how well it measured then."""

    annotator: str
    tracker: str
    """The tracker's kind and label."""
    geometry: ScreenGeometry
    eyes: Eyes
    points: int
    validation: Validation
    data: bytes
    """For :meth:`Calibrator.restore <gaze_capture.trackers.tracker.Calibrator.restore>`."""
    saved_utc: str
    """ISO 8601 with time zone."""


def save_calibration(
    folder: Path,
    annotator: str,
    tracker: Tracker,
    data: bytes,
    *,
    eyes: Eyes,
    points: int,
    validation: Validation,
) -> SavedCalibration:
    """Keep a calibration in the user's own data folder, in place of the one before.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    kind = _kind(tracker)
    saved = SavedCalibration(annotator, kind, tracker.geometry, eyes, points, validation, data, now)
    values = {
        "schema": SCHEMA,
        "annotator": annotator,
        "tracker": kind,
        "geometry": asdict(saved.geometry),
        "eyes": eyes,
        "points": points,
        "validation": validation.to_json(),
        "data": base64.b64encode(data).decode(),
        "saved_utc": now,
    }
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # It names a person: nobody else on this computer needs to read it.
    write_bytes_atomic(_path(folder, annotator, kind), text.encode(), mode=0o600)
    return saved


def saved_calibration(folder: Path, annotator: str, tracker: Tracker) -> SavedCalibration | None:
    """Return what was kept for an annotator at a tracker; None if nothing, or for a screen that is another by now.

    Raises
    ------
    UserError
        If the file is damaged.
    """
    kind = _kind(tracker)
    path = _path(folder, annotator, kind)
    if not path.exists():
        return None
    values = read_json(path)
    try:
        if values["schema"] != SCHEMA:
            return None
        saved = SavedCalibration(
            annotator=values["annotator"],
            tracker=values["tracker"],
            geometry=ScreenGeometry(**values["geometry"]),
            eyes=values["eyes"],
            points=values["points"],
            validation=Validation.from_json(values["validation"]),
            data=base64.b64decode(values["data"], validate=True),
            saved_utc=datetime.datetime.fromisoformat(values["saved_utc"]).isoformat(),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error!r}): delete it, and calibrate anew.") from error
    same = (saved.annotator, saved.tracker, saved.geometry) == (annotator, kind, tracker.geometry)
    return saved if same else None


def forget_calibrations(folder: Path, annotator: str) -> int:
    """Remove all calibrations that are kept of an annotator; return how many there were.

    Raises
    ------
    UserError
        If one cannot be removed.
    """
    removed = 0
    for path in sorted(folder.glob("calibration-*.json")):
        try:
            values = read_json(path)
        except UserError:
            # Whosever it is, nobody can use it.
            continue
        if isinstance(values, dict) and values.get("annotator") == annotator:
            with explained_os_errors(path):
                path.unlink()
            removed += 1
    return removed


def _kind(tracker: Tracker) -> str:
    return f"{tracker.name}: {tracker.label}"


def _path(folder: Path, annotator: str, kind: str) -> Path:
    # Names of people and devices are no file names.
    key = hashlib.sha256(json.dumps([annotator, kind]).encode()).hexdigest()
    return folder / f"calibration-{key[:24]}.json"
