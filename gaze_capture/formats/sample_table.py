"""Large tables of samples, read line by line: what is damaged is counted and left out instead of ending the reading.

:mod:`gaze_capture.delimited` is for small tables in which every row counts.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import MissingFact, UserError
from gaze_capture.recording import Floats
from gaze_capture.storage import explained_os_errors

_ROWS_AT_ONCE = 20_000
LARGEST = 1e19
"""No time in any unit and no position is larger: what is, was damaged."""
_FEWEST_ROWS = 10
"""A recording of fewer is none."""
_LONGEST_HEADER = 1 << 18
"""Characters; a first line beyond that belongs to no table."""


def encoding_of(head: bytes) -> str:
    """Return the encoding of a text by its first bytes: UTF-16 with or without a mark, UTF-8, or Western."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    # Without a mark, every other byte of Latin letters is zero.
    if head[1:200:2].count(0) > 60:
        return "utf-16-le"
    if head[0:200:2].count(0) > 60:
        return "utf-16-be"
    try:
        # The last character may be cut.
        head.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return "cp1252"
    return "utf-8-sig"


def lines_of(path: Path) -> Iterator[str]:
    """Yield the lines of a text in any of the usual encodings, each with a line feed at its end.

    A last line without one may have been cut off anywhere, half a number included.

    Raises
    ------
    UserError
        If the file cannot be read. Bytes that are no text come as a replacement character.
    """
    with explained_os_errors(path):
        with open(path, "rb") as stream:
            encoding = encoding_of(stream.read(1 << 16))
        with open(path, encoding=encoding, errors="replace") as text:
            while line := text.readline(_LONGEST_HEADER):
                yield line


def first_lines(path: Path, count: int = 40) -> list[str]:
    """Return the first lines, or none where the file cannot be read as text."""
    try:
        return [line.rstrip("\n") for line in islice(lines_of(path), count)]
    except (UnicodeError, UserError):
        return []


def delimiter_of(header: str) -> str:
    """Return what separates the columns of a header: tab, semicolon or comma."""
    return max("\t;,", key=header.count)


def cells_of(line: str, delimiter: str) -> list[str]:
    """Split one line; quotes hold a delimiter but never a line's end."""
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return line.replace('"', "").split(delimiter)


@dataclass
class SampleTable:
    """Columns (N) of a table, by the names they were asked for."""

    numbers: dict[str, Floats]
    """NaN where a cell is empty or no number."""
    texts: dict[str, list[str]]
    notes: list[str]
    """What was left out."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        columns: Sequence[Sequence[object] | Floats] = [*self.numbers.values(), *self.texts.values()]
        return len(columns[0]) if columns else 0

    def number(self, name: str) -> Floats:
        """Return a column of numbers (N,), all NaN where the table has none of the name."""
        found = self.numbers.get(name)
        return np.full(self.rows, np.nan) if found is None else found

    def pair(self, first: str, second: str) -> Floats:
        """Return two columns of numbers as (N, 2)."""
        return np.stack([self.number(first), self.number(second)], axis=1)

    def text(self, name: str) -> list[str]:
        """Return a column of texts (N,), all empty where the table has none of the name."""
        return self.texts.get(name) or [""] * self.rows


def read_samples(
    lines: Iterator[str], delimiter: str, numbers: Mapping[str, int], texts: Mapping[str, int]
) -> SampleTable:
    """Read the lines below a header.

    Parameters
    ----------
    numbers, texts
        Which column to read as what: by name, its place in the row.

    Rows that end before the last column asked for are dropped, and so is a last row without a line's end. A decimal
    comma is read as a point.
    """
    places = [*numbers.values(), *texts.values()]
    last = max(places)
    columns: dict[str, list[Floats]] = {name: [] for name in numbers}
    words: dict[str, list[str]] = {name: [] for name in texts}
    stripped = _Stripped()
    short = wrong = 0
    rows: list[list[str]] = []
    while block := list(islice(lines, _ROWS_AT_ONCE)):
        rows = []
        for line in block:
            if line.isspace():
                continue
            cells = cells_of(line.rstrip("\n"), delimiter)
            if len(cells) > last and line.endswith("\n"):
                rows.append(cells)
            else:
                short += 1
        for name, place in numbers.items():
            values, unread = _numbers([row[place] for row in rows])
            columns[name].append(values)
            wrong += unread
        for name, place in texts.items():
            words[name] += [stripped[row[place]] for row in rows]
    notes = []
    if short:
        notes.append(f"Rows that end early, which were dropped: {short}.")
    if wrong:
        notes.append(f"Cells that are no numbers, which were taken for missing: {wrong}.")
    joined = {name: np.concatenate(parts) if parts else np.empty(0) for name, parts in columns.items()}
    return SampleTable(joined, words, notes)


class _Stripped(dict[str, str]):
    """Texts without the space around them; the few names that come often are kept once and take no room."""

    def __missing__(self, cell: str) -> str:
        found = self[cell] = cell.strip()
        return found


def _numbers(cells: list[str]) -> tuple[Floats, int]:
    """Return cells as numbers, NaN where empty, and how many are neither."""
    try:
        values, wrong = np.array([float(cell) if cell else math.nan for cell in cells], dtype=np.float64), 0
    except ValueError:
        read = [_number(cell) for cell in cells]
        wrong = sum(value is None for value in read)
        values = np.array([math.nan if value is None else value for value in read], dtype=np.float64)
    huge = np.abs(values) > LARGEST
    return np.where(huge, math.nan, values), wrong + int(huge.sum())


def _number(cell: str) -> float | None:
    text = cell.strip()
    if text in ("", ".", "-"):
        return math.nan
    try:
        return float(text.replace(",", ".", 1))
    except ValueError:
        return None


def runs_of(values: Sequence[Hashable]) -> Iterator[tuple[int, int]]:
    """Yield first place and place after the last of runs of equal values."""
    start = 0
    for place in range(1, len(values) + 1):
        if place == len(values) or values[place] != values[start]:
            yield start, place
            start = place


def taken(table: SampleTable, rows: npt.NDArray[np.bool_]) -> SampleTable:
    """Return a table's rows (N,) that are true."""
    if rows.all():
        return table
    places = np.flatnonzero(rows).tolist()
    return SampleTable(
        {name: values[rows] for name, values in table.numbers.items()},
        {name: [words[place] for place in places] for name, words in table.texts.items()},
        table.notes,
    )


def rows_of_one_recording(path: Path, stream: str | None, names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which rows (N,) are of the recording asked for, or of the only one.

    Parameters
    ----------
    stream
        The recording's name, all of it or what follows its last `` / ``; None for the only one.
    names
        (N,) of the recording that each row is of.

    Raises
    ------
    UserError
        If there are several and none was named, or the one named is not there.
    """
    # Damage makes a name of its own; what has a handful of rows beside thousands is no recording.
    fewest = min(len(names), max(_FEWEST_ROWS, len(names) / 1000))
    recordings = [name for name, count in Counter(names).items() if count >= fewest]
    if stream is not None:
        chosen = [name for name in recordings if stream in (name, name.split(" / ")[-1])]
    else:
        chosen = recordings
    if len(chosen) > 1 or (stream is not None and not chosen):
        held = ", ".join(recordings[:10]) + (" ..." if len(recordings) > 10 else "")
        number = f"{len(recordings)} recordings" if len(recordings) > 1 else "one recording"
        raise MissingFact(
            f"{path} holds {number} ({held}); name one of them with --stream.", ["stream"], recordings
        )
    return np.array([name in chosen for name in names], dtype=np.bool_)
