"""Pupil Labs' gaze on a surface: ``gaze_positions_on_surface_<name>.csv`` of Pupil Player, ``gaze.csv`` of Pupil Cloud.

Columns as in Pupil Labs' documentation. Pupil Core (Surface Tracker, export): positions are shares of the surface from
its bottom left corner, times are seconds. Pupil Cloud (Marker Mapper, export): from its top left, nanoseconds. The
surface has to be the screen: gaze in the world camera's picture says nothing of a screen and is refused.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.formats.gaze_file import GazeFile, Known, assembled, geometry_of
from gaze_capture.formats.sample_table import (
    cells_of,
    delimiter_of,
    first_lines,
    lines_of,
    read_samples,
    rows_of_one_recording,
    taken,
)

FORMAT = "pupil-csv"

_LEAST_CONFIDENCE = 0.6
"""Below it Pupil Labs advise to leave gaze out."""
_TIMES = {"gaze_timestamp": 1e9, "timestamp [ns]": 1.0, "eye_timestamp": 1e9}
_POSITIONS = (
    ("x_norm", "y_norm"),
    ("gaze position on surface x [normalized]", "gaze position on surface y [normalized]"),
)
_WORLD = ("norm_pos_x", "gaze x [px]", "gaze_point_3d_x")


def _header(path: Path) -> tuple[list[str], str]:
    line = next(iter(first_lines(path, 1)), "")
    delimiter = delimiter_of(line)
    return [name.strip().casefold() for name in cells_of(line, delimiter)], delimiter


def _time(names: list[str]) -> str | None:
    return next((name for name in _TIMES if name in names), None)


def sniff(path: Path) -> bool:
    """Return whether the first line names gaze by Pupil Labs, on a surface or in the world camera's picture."""
    names, _ = _header(path)
    positions = any(first in names for first, _ in _POSITIONS) or any(name in names for name in _WORLD)
    return positions and _time(names) is not None


def read(path: Path, known: Known) -> GazeFile:
    """Read an export; see :func:`gaze_capture.formats.reading.read_gaze_file`."""
    names, delimiter = _header(path)
    time = _time(names)
    position = next((pair for pair in _POSITIONS if set(pair) <= set(names)), None)
    if position is None and time is not None and any(name in names for name in _WORLD):
        raise UserError(
            f"{path} holds gaze in the world camera's picture, which does not say where on a screen it fell; define "
            "the screen as a surface in Pupil Player and import gaze_positions_on_surface_<name>.csv."
        )
    if position is None or time is None:
        raise UserError(
            f"{path} is no gaze on a surface by Pupil Labs: its first line lacks gaze_timestamp, x_norm and y_norm. "
            "Name another --format if it is of another program."
        )
    lines = lines_of(path)
    next(lines)
    wanted = {"time": time, "x": position[0], "y": position[1], "confidence": "confidence"}
    recording = {"recording": names.index("recording id")} if "recording id" in names else {}
    table = read_samples(
        lines,
        delimiter,
        {key: names.index(name) for key, name in wanted.items() if name in names},
        recording,
    )
    notes = list(table.notes)
    table = taken(table, rows_of_one_recording(path, known.stream, table.text("recording")))
    xy = table.pair("x", "y")
    if position == _POSITIONS[0]:
        # Pupil Core counts from the bottom; Pupil Cloud's mapper, as screens do, from the top.
        xy = xy * [1, -1] + [0, 1]
    if "confidence" in table.numbers:
        with np.errstate(invalid="ignore"):
            poor = table.number("confidence") < _LEAST_CONFIDENCE
        if poor.any():
            notes.append(
                f"Positions of a confidence below {_LEAST_CONFIDENCE}, which were taken for missing: {int(poor.sum())}."
            )
        xy = np.where(poor[:, np.newaxis], np.nan, xy)
    surface = re.fullmatch(r"gaze_positions_on_surface_(.+)", path.stem)
    notes.append(f"The surface{f' {surface[1]!r}' if surface else ''} is taken for the whole screen.")
    return assembled(
        path,
        format=FORMAT,
        tracker="Pupil Labs file",
        time_ns=table.number("time") * _TIMES[time],
        left=xy,
        right=xy,
        pupil_mm=np.full((table.rows, 2), np.nan),
        geometry=geometry_of(path, known),
        known=known,
        eyes="combined",
        notes=notes,
    )
