"""Gazepoint Analysis' export of all gaze (``..._all_gaze.csv``).

Columns as in the "Gazepoint Analysis User Manual" (CSV export) and the "Open Gaze API", which name them alike:
positions are shares of the screen from its top left corner, times are seconds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.formats.gaze_file import (
    Eye,
    GazeFile,
    Known,
    OwnFixations,
    Shown,
    assembled,
    geometry_of,
    one_recording,
)
from gaze_capture.formats.sample_table import (
    SampleTable,
    cells_of,
    delimiter_of,
    first_lines,
    lines_of,
    read_samples,
)
from gaze_capture.recording import Floats

FORMAT = "gazepoint-csv"

_NUMBERS = (
    "FPOGX", "FPOGY", "FPOGS", "FPOGD", "FPOGID", "FPOGV", "BPOGX", "BPOGY", "BPOGV", "LPOGX", "LPOGY", "LPOGV",
    "RPOGX", "RPOGY", "RPOGV", "LPMM", "LPMMV", "RPMM", "RPMMV",
)  # fmt: skip


def _header(path: Path) -> tuple[list[str], str, int, float] | None:
    """Return names, delimiter, the place of the time and its unit in ns; None where this is no such export."""
    line = next(iter(first_lines(path, 1)), "")
    delimiter = delimiter_of(line)
    names = [name.strip().upper() for name in cells_of(line, delimiter)]
    if not {"BPOGX", "FPOGX", "LPOGX"} & set(names):
        return None
    ticks = None
    for place, name in enumerate(names):
        if re.match(r"TIME(?!TICK)\b", name):
            return names, delimiter, place, 1e9
        if match := re.match(r"TIMETICK\(F=(\d{3,12})\)", name):
            ticks = names, delimiter, place, 1e9 / int(match[1])
    return ticks


def sniff(path: Path) -> bool:
    """Return whether the first line names Gazepoint's points of gaze and a time."""
    return _header(path) is not None


def read(path: Path, known: Known) -> GazeFile:
    """Read an export; see :func:`gaze_capture.formats.gaze_file.read_gaze_file`."""
    found = _header(path)
    if found is None:
        raise UserError(
            f"{path} is no gaze export of Gazepoint: its first line lacks TIME and BPOGX, FPOGX or LPOGX. Export 'All "
            "gaze data' with all columns, or name another --format."
        )
    one_recording(path, known)
    names, delimiter, place, factor = found
    lines = lines_of(path)
    next(lines)
    numbers = {name: names.index(name) for name in _NUMBERS if name in names}
    media = {"media": names.index("MEDIA_NAME")} if "MEDIA_NAME" in names else {}
    table = read_samples(lines, delimiter, {"time": place, **numbers}, media)
    notes = list(table.notes)
    time_ns = table.number("time") * factor
    eyes: Eye | Literal["combined"] = "combined"
    if {"LPOGX", "LPOGY", "RPOGX", "RPOGY"} <= numbers.keys():
        eyes = "both"
        left, right = _valid(table, "LPOG"), _valid(table, "RPOG")
    elif {"BPOGX", "BPOGY"} <= numbers.keys():
        left = right = _valid(table, "BPOG")
    else:
        raise UserError(
            f"{path} holds gaze that Gazepoint averaged over fixations (FPOG) and no samples; export BPOGX and BPOGY, "
            "too."
        )
    geometry = geometry_of(path, known)
    pupils = np.stack([_pupil(table, "LPMM"), _pupil(table, "RPMM")], axis=1)
    return assembled(
        path,
        format=FORMAT,
        tracker="Gazepoint file",
        time_ns=time_ns,
        left=left,
        right=right,
        pupil_mm=pupils,
        geometry=geometry,
        known=known,
        eyes=eyes,
        shown=_shown(table, time_ns),
        own_fixations=_own_fixations(table, geometry.width_px, geometry.height_px),
        notes=notes,
    )


def _valid(table: SampleTable, name: str) -> Floats:
    xy = table.pair(name + "X", name + "Y")
    if name + "V" in table.numbers:
        xy = np.where((table.number(name + "V") > 0)[:, np.newaxis], xy, np.nan)
    return xy


def _pupil(table: SampleTable, name: str) -> Floats:
    values = table.number(name)
    return np.where(table.number(name + "V") > 0, values, np.nan) if name + "V" in table.numbers else values


def _shown(table: SampleTable, time_ns: Floats) -> list[Shown]:
    """Return the runs of rows that name one medium; where on the screen it was the file does not tell."""
    names = table.text("media")
    shown: list[Shown] = []
    start: int | None = None
    rows = np.flatnonzero(np.isfinite(time_ns) & (np.abs(time_ns) < 9e18)).tolist()
    for number, row in enumerate(rows):
        start = row if start is None else start
        following = rows[number + 1] if number + 1 < len(rows) else None
        if following is None or names[following] != names[start]:
            if names[start]:
                end = following if following is not None else row
                shown.append(Shown(names[start], int(time_ns[start]), int(time_ns[end]), None))
            start = None
    return shown


def _own_fixations(table: SampleTable, width_px: int, height_px: int) -> OwnFixations | None:
    """Return the fixations that FPOG follows: the last row of each number has its length and its mean."""
    if not {"FPOGID", "FPOGS", "FPOGD", "FPOGX", "FPOGY", "FPOGV"} <= table.numbers.keys():
        return None
    columns = np.stack(
        [table.number(name) for name in ("FPOGID", "FPOGS", "FPOGD", "FPOGX", "FPOGY")], axis=1
    )
    valid = (table.number("FPOGV") > 0) & np.isfinite(columns).all(axis=1) & (columns[:, 2] > 0)
    last = {row[0]: row for row in columns[valid].tolist()}
    if not last:
        return None
    found = np.array(sorted(last.values(), key=lambda row: row[1]))
    both: Eye = "both"
    positions = found[:, 3:] * [width_px, height_px]
    return OwnFixations(found[:, 1] * 1e3, found[:, 2] * 1e3, positions, (both,) * len(found))
