"""GazeMedSeg's CSV of fixations, one row each, positions normalised to the image (Zhong et al., MICCAI 2024)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording import Floats

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

REQUIRED = ("IMAGE", "CURRENT_FIX_INDEX", "CURRENT_FIX_X", "CURRENT_FIX_Y", "CURRENT_FIX_DURATION")
START = "CURRENT_FIX_START"


@dataclass(frozen=True)
class ImageGaze:
    """The fixations (F) on one image, in order of their index."""

    xy: Floats
    """(F, 2) x, y as fractions of the image's width and height; outside 0..1 where somebody looked beside it."""
    start_ms: Floats
    """(F,) as in the file, or end to end where it names no start."""
    duration_ms: Floats
    """(F,) all above 0"""


@dataclass(frozen=True)
class GazeMedSegTable:
    """The content of a file, by image name."""

    images: Mapping[str, ImageGaze]
    dropped: int
    """Rows whose duration is zero or negative, which are no fixations."""


def read_gazemedseg(path: Path) -> GazeMedSegTable:
    """Read a file; commas, semicolons and tabs, a byte order mark and any line ends are understood.

    Raises
    ------
    UserError
        If it is unreadable, lacks a column, has no rows, or a cell is not a number; names column and line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the spelling.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file in UTF-8; export the gaze as CSV.") from None
    first_line = text.partition("\n")[0]
    delimiter = max(",;\t", key=first_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return _parse(path, reader, [name.strip().upper() for name in next(reader, [])])
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}; export the gaze as CSV again.") from None


def _parse(path: Path, reader: CsvReader, header: Sequence[str]) -> GazeMedSegTable:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise UserError(
            f"{path} is no GazeMedSeg file: it lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}."
        )
    name_column = header.index("IMAGE")
    columns = [header.index(name) for name in REQUIRED[1:]] + (
        [header.index(START)] if START in header else []
    )
    rows: dict[str, list[list[float]]] = {}
    dropped = 0
    for row in reader:
        if not any(cell.strip() for cell in row):
            continue
        numbers = [_number(path, reader.line_num, row, column, header[column]) for column in columns]
        name = row[name_column].strip() if name_column < len(row) else ""
        if not name:
            raise UserError(f"{path}, line {reader.line_num}: the column IMAGE is empty.")
        if numbers[3] > 0:
            rows.setdefault(name, []).append(numbers)
        else:
            dropped += 1
    if not rows:
        raise UserError(f"{path} holds no fixations.")
    return GazeMedSegTable({name: _gaze(values) for name, values in rows.items()}, dropped)


def _number(path: Path, line: int, row: Sequence[str], column: int, name: str) -> float:
    cell = row[column].strip() if column < len(row) else ""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}, line {line}: {name} should be a number, not {cell!r}.")
    return value


def _gaze(values: list[list[float]]) -> ImageGaze:
    table = np.array(values)
    table = table[np.argsort(table[:, 0], kind="stable")]
    duration_ms = table[:, 3]
    if table.shape[1] > 4:
        start_ms = table[:, 4]
    else:
        start_ms = np.concatenate([[0.0], np.cumsum(duration_ms)[:-1]])
    return ImageGaze(table[:, 1:3], start_ms, duration_ms)
