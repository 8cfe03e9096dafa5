"""Taking measured drift off gaze, beside the raw recording and never in it.

Drift checks of a sitting say how far gaze lay from an anchor; a correction subtracts that, constant or changing
linearly from check to check. It is kept as ``correction.json`` in the recording's folder and applied to a copy of the
recording whenever fixations are detected.
"""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording import Float32s, Floats, Int64s, Recording
from gaze_capture.storage import read_json, write_json_atomic

CORRECTION_NAME = "correction.json"
SCHEMA = 1

Method = Literal["constant", "linear"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class DriftCorrection:
    """How far gaze is off from when to when; between knots it changes linearly, beyond them it stays."""

    recording: str
    method: Method
    time_ns: tuple[int, ...]
    """(K,) host time of the knots, ascending."""
    offset_deg: tuple[tuple[float, float], ...]
    """(K,) gaze minus anchor, x to the right and y down, as drift checks found it; it is subtracted."""
    checks: int
    """Drift checks that it was made of."""

    def offsets_at(self, time_ns: Int64s) -> Floats:
        """Return the offset (N, 2) in degrees at times (N,)."""
        # Relative to the first knot: host times are too long for a float to hold to the nanosecond.
        moments = (np.asarray(time_ns) - self.time_ns[0]).astype(np.float64)
        knots = np.array([moment - self.time_ns[0] for moment in self.time_ns], dtype=np.float64)
        offsets = np.array(self.offset_deg)
        return np.stack([np.interp(moments, knots, offsets[:, axis]) for axis in range(2)], axis=1)

    def applied_to(self, recording: Recording) -> Recording:
        """Return a copy of a recording with both eyes' gaze corrected."""
        offsets = self.offsets_at(recording.time_ns)

        def corrected(xy: Float32s) -> Float32s:
            degrees = recording.geometry.degrees_from_normalised(xy) - offsets
            return recording.geometry.normalised_from_degrees(degrees).astype(np.float32)

        return dataclasses.replace(
            recording, left_xy=corrected(recording.left_xy), right_xy=corrected(recording.right_xy)
        )

    def mean_deg(self, recording: Recording) -> tuple[float, float]:
        """Return the mean offset over the time that images were shown."""
        inside = np.zeros(len(recording.time_ns), dtype=np.bool_)
        for placement in recording.placements:
            low, high = np.searchsorted(recording.time_ns, [placement.start_ns, placement.end_ns])
            inside[low:high] = True
        times = recording.time_ns[inside] if inside.any() else recording.time_ns
        if not len(times):
            return 0.0, 0.0
        x, y = self.offsets_at(times).mean(axis=0).tolist()
        return float(x), float(y)


def correction_of(recording: Recording, method: Method = "linear") -> DriftCorrection:
    """Make a correction of a recording's drift checks.

    ``linear``: from nothing at a calibration (or validation) to each check after it; before the first check without
    either, and after the last one, the offset stays as the check found it. ``constant``: the checks' mean.

    Raises
    ------
    UserError
        If the recording has no drift check.
    """
    events = sorted(recording.events, key=lambda event: event.time_ns)
    checks = [event for event in events if event.kind == "drift" and event.values.get("offset_deg")]
    if not checks:
        raise UserError(
            f"The recording {recording.id} has no drift check, so nothing is known of its drift; "
            "record with drift checks between images."
        )
    if method == "constant":
        x, y = np.mean([event.values["offset_deg"] for event in checks], axis=0).tolist()
        return DriftCorrection(recording.id, method, (checks[0].time_ns,), ((x, y),), len(checks))
    times: list[int] = []
    offsets: list[tuple[float, float]] = []
    for event in events:
        if event.kind == "calibration" or (event.kind == "validation" and not times):
            if times:
                # What had drifted away until here is gone at once.
                times.append(event.time_ns - 1)
                offsets.append(offsets[-1])
            times.append(event.time_ns)
            offsets.append((0.0, 0.0))
        elif event in checks:
            x, y = event.values["offset_deg"]
            times.append(event.time_ns)
            offsets.append((float(x), float(y)))
    return DriftCorrection(recording.id, method, tuple(times), tuple(offsets), len(checks))


def write_correction(folder: Path, correction: DriftCorrection) -> None:
    """Store a correction in a recording's folder.

    Raises
    ------
    UserError
        If the folder is not writable.
    """
    made = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    values = {"schema": SCHEMA, "made": made, **dataclasses.asdict(correction)}
    write_json_atomic(folder / CORRECTION_NAME, values, within=folder)


def read_correction(folder: Path) -> DriftCorrection | None:
    """Read the correction of a recording's folder; None where there is none.

    Raises
    ------
    UserError
        If it is damaged or of a newer version.
    """
    path = folder / CORRECTION_NAME
    if not path.exists():
        return None
    values: dict[str, Any] = read_json(path)
    try:
        if values["schema"] > SCHEMA:
            raise UserError(f"{path} was made by a newer Gaze Insight. Update the program.")
        times = tuple(map(int, values["time_ns"]))
        offsets = tuple((float(x), float(y)) for x, y in values["offset_deg"])
        if not times or len(times) != len(offsets) or list(times) != sorted(times):
            raise ValueError("its knots are not in order")
        return DriftCorrection(values["recording"], values["method"], times, offsets, int(values["checks"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}). Make it again: gaze-insight correct-drift.") from None
