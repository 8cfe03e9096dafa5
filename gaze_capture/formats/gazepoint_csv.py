"""Gazepoint Analysis' export of all gaze (``..._all_gaze.csv``).

Columns as in the "Gazepoint Analysis User Manual" (CSV export) and the "Open Gaze API", which name them alike:
positions are shares of the screen from its top left corner, times are seconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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
from gaze_capture.formats.sample_clock import continued, in_order
from gaze_capture.formats.sample_table import (
    SampleTable,
    cells_of,
    delimiter_of,
    first_lines,
    lines_of,
    read_samples,
    runs_of,
    taken,
)
from gaze_capture.recording import Floats

FORMAT = "gazepoint-csv"

_PAUSE_NS = 1e9

_NUMBERS = (
    "FPOGX", "FPOGY", "FPOGS", "FPOGD", "FPOGID", "FPOGV", "BPOGX", "BPOGY", "BPOGV", "LPOGX", "LPOGY", "LPOGV",
    "RPOGX", "RPOGY", "RPOGV", "LPMM", "LPMMV", "RPMM", "RPMMV",
)  # fmt: skip


@dataclass(frozen=True)
class _Header:
    names: list[str]
    delimiter: str
    time: int | None
    """Place of the column of seconds, which start anew with every medium in some versions' exports."""
    ticks: int | None
    """Place of the computer's ticks, which do not."""
    ticks_per_s: int = 1


def _header(path: Path) -> _Header | None:
    """Take the first line apart; None where this is no such export."""
    line = next(iter(first_lines(path, 1)), "")
    delimiter = delimiter_of(line)
    names = [name.strip().upper() for name in cells_of(line, delimiter)]
    time = next((place for place, name in enumerate(names) if re.match(r"TIME\b", name)), None)
    ticks = [(place, match) for place, name in enumerate(names)
             if (match := re.match(r"TIMETICK\(F=(\d{3,12})\)", name))]  # fmt: skip
    if not {"BPOGX", "FPOGX", "LPOGX"} & set(names) or (time is None and not ticks):
        return None
    if ticks:
        return _Header(names, delimiter, time, ticks[0][0], int(ticks[0][1][1]) or 1)
    return _Header(names, delimiter, time, None)


def sniff(path: Path) -> bool:
    """Return whether the first line names Gazepoint's points of gaze and a time."""
    return _header(path) is not None


def read(path: Path, known: Known) -> GazeFile:
    """Read an export; see :func:`gaze_capture.formats.reading.read_gaze_file`."""
    found = _header(path)
    if found is None:
        raise UserError(
            f"{path} is no gaze export of Gazepoint: its first line lacks TIME and BPOGX, FPOGX or LPOGX. Export 'All "
            "gaze data' with all columns, or name another --format."
        )
    one_recording(path, known)
    lines = lines_of(path)
    next(lines)
    places = {"time": found.time, "ticks": found.ticks}
    numbers = {name: found.names.index(name) for name in _NUMBERS if name in found.names}
    numbers |= {name: place for name, place in places.items() if place is not None}
    media = {"media": found.names.index("MEDIA_NAME")} if "MEDIA_NAME" in found.names else {}
    table = read_samples(lines, found.delimiter, numbers, media)
    notes = list(table.notes)
    time_ns = _clock(table, found)
    rows, words, _ = in_order(time_ns)
    notes += words
    # From here on only what was kept: of a clock that was started anew, the parts share their times.
    kept = np.zeros(table.rows, dtype=np.bool_)
    kept[rows] = True
    table, time_ns = taken(table, kept), time_ns[kept]
    order: list[int] = np.argsort(time_ns, kind="stable").tolist()
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
        shown=_shown(table, time_ns, order),
        own_fixations=_own_fixations(table, time_ns, order, geometry.width_px, geometry.height_px),
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


def _clock(table: SampleTable, header: _Header) -> Floats:
    """Return times (N,) in ns that go on from medium to medium."""
    ticks = table.number("ticks")
    if table.rows and np.isfinite(ticks).mean() > 0.9:
        return ticks * (1e9 / header.ticks_per_s)
    names = table.text("media")
    changes = np.array(
        [row > 0 and names[row] != names[row - 1] for row in range(len(names))], dtype=np.bool_
    )
    return continued(table.number("time") * 1e9, changes)


def _shown(table: SampleTable, time_ns: Floats, order: list[int]) -> list[Shown]:
    """Return the runs of rows that name one medium; where on the screen it was the file does not tell."""
    names = table.text("media")
    shown = []
    for start, stop in runs_of([names[row] for row in order]):
        first, last = order[start], order[stop - 1]
        if names[first]:
            end = order[stop] if stop < len(order) else last
            # It went away with its last row where the recording paused behind it.
            end = end if time_ns[end] - time_ns[last] < _PAUSE_NS else last
            shown.append(Shown(names[first], int(time_ns[first]), int(time_ns[end]), None))
    return shown


def _own_fixations(
    table: SampleTable, time_ns: Floats, order: list[int], width_px: int, height_px: int
) -> OwnFixations | None:
    """Return the fixations that FPOG follows: the last row of each number has its length and its mean."""
    names = ("FPOGS", "FPOGD", "FPOGX", "FPOGY")
    if not {"FPOGID", "FPOGV", *names} <= table.numbers.keys():
        return None
    columns = np.stack([table.number(name) for name in names], axis=1)
    # They begin on the clock of seconds, whichever clock the samples are on.
    if "time" in table.numbers:
        columns[:, 0] += time_ns / 1e9 - table.number("time")
    numbers, media = table.number("FPOGID"), table.text("media")
    good = (table.number("FPOGV") > 0) & np.isfinite(columns).all(axis=1) & np.isfinite(numbers)
    rows = [row for row in order if good[row]]
    last = [rows[stop - 1] for _, stop in runs_of([(media[row], numbers[row]) for row in rows])]
    found = columns[last]
    both: Eye = "both"
    positions = found[:, 2:] * [width_px, height_px]
    return OwnFixations(found[:, 0] * 1e3, found[:, 1] * 1e3, positions, (both,) * len(found))
