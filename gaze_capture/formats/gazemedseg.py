"""Fixations in the CSV of GazeMedSeg (Zhong et al., 2024): positions as shares of the image."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gaze_capture.delimited import Cell, read_delimited
from gaze_capture.errors import UserError
from gaze_capture.recording import Floats
from gaze_capture.storage import write_bytes_atomic

REQUIRED = ("IMAGE", "CURRENT_FIX_INDEX", "CURRENT_FIX_X", "CURRENT_FIX_Y", "CURRENT_FIX_DURATION")
OPTIONAL = ("CURRENT_FIX_START", "CURRENT_FIX_PUPIL", "IMAGE_HEIGHT", "IMAGE_WIDTH")
COLUMNS = (*REQUIRED, "CURRENT_FIX_PUPIL", "CURRENT_FIX_START", "IMAGE_HEIGHT", "IMAGE_WIDTH")


@dataclass(frozen=True)
class ImageGaze:
    """The fixations (F) on one image, in the order of their index."""

    xy: Floats
    """(F, 2) as shares of the image's width and height; may lie outside 0..1."""
    start_ms: Floats
    """(F,) as in the file, or, where it gives none, the durations before added up."""
    duration_ms: Floats
    """(F,)"""
    pupil: Floats
    """(F,) as in the file, NaN where it gives none."""
    shape: tuple[int, int] | None
    """Height and width of the image that was shown, if the file gives them."""


@dataclass(frozen=True)
class GazeMedSegTable:
    """What a file held, and what was odd about it."""

    images: dict[str, ImageGaze]
    """By the file's own name of the image, in the file's order. An image all of whose rows were dropped is kept,
    without fixations."""
    fixations: int
    dropped: int
    """Rows without a duration above zero, which were left out."""
    outside: int
    """Fixations outside their image, which were kept."""
    repeated: int
    """Fixations whose image has their index already, which were kept."""


@dataclass
class _Rows:
    values: list[tuple[float, float, float, float, float, float]]
    """Index, x, y, duration, start, pupil."""
    shape: tuple[int, int] | None


def sniff(path: Path) -> bool:
    """Return whether the first line names a column of this format; never raises for what is in it."""
    try:
        with open(path, "rb") as stream:
            return b"CURRENT_FIX_X" in stream.readline(1 << 16)
    except OSError:
        return False


def read_gazemedseg(path: Path) -> GazeMedSegTable:
    """Read a table of fixations; comma, semicolon or tab, any line ending, with or without a BOM.

    Raises
    ------
    UserError
        If the file is unreadable, a column is missing, a cell is not what it should be (names the line), or
        most positions are no shares of an image.
    """
    rows: dict[str, _Rows] = {}
    dropped = 0
    for name, index, x, y, duration, start, pupil, height, width in read_delimited(path, REQUIRED, OPTIONAL):
        assert name and index and x and y and duration
        if not name.text:
            raise name.wrong("the image's name is empty")
        found = rows.setdefault(name.text, _Rows([], None))
        number = _present(index)
        if height and width and height.text and width.text:
            found.shape = (_whole(height), _whole(width))
        position = (_present(x), _present(y))
        lasted = duration.number()
        if not lasted > 0:
            dropped += 1
            continue
        found.values.append((number, *position, lasted, start.number() if start else math.nan, _pupil(pupil)))

    images = {name: _gaze(found) for name, found in rows.items()}
    if not images:
        raise UserError(f"{path} holds no fixations: it has only a header.")
    everywhere = np.concatenate([gaze.xy for gaze in images.values()])
    outside = ((everywhere < 0) | (everywhere > 1)).any(axis=1)
    if outside.sum() > 0.5 * len(everywhere):
        raise UserError(
            f"{path}: most positions lie outside 0..1 (the largest is {everywhere.max():g}); CURRENT_FIX_X and "
            "CURRENT_FIX_Y must be shares of the image's width and height, not pixels."
        )
    repeated = sum(len(found.values) - len({values[0] for values in found.values}) for found in rows.values())
    return GazeMedSegTable(images, len(everywhere), dropped, int(outside.sum()), repeated)


def _gaze(found: _Rows) -> ImageGaze:
    table = np.array(sorted(found.values, key=lambda values: values[0]), dtype=np.float64).reshape(-1, 6)
    duration = table[:, 3]
    start = table[:, 4]
    if np.isnan(start).any():
        start = np.cumsum(duration) - duration
    return ImageGaze(table[:, 1:3], start, duration, table[:, 5], found.shape)


def _present(cell: Cell) -> float:
    value = cell.number()
    if math.isnan(value):
        raise cell.wrong("the value is missing")
    return value


def _whole(cell: Cell) -> int:
    value = cell.number()
    if not (value >= 1 and value == int(value)):
        raise cell.wrong(f"{cell.text!r} is not a number of pixels")
    return int(value)


def _pupil(cell: Cell | None) -> float:
    # EyeLink's exports write a dot where there is no value.
    return math.nan if cell is None or cell.text == "." else cell.number()


def write_gazemedseg(
    path: Path, images: Mapping[str, ImageGaze], labels: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Write what :func:`read_gazemedseg` reads: the same images, fixations and numbers come back.

    An image without fixations gets one row of 0 ms, which readers drop, so that it stays known as looked at.

    Parameters
    ----------
    images : by the name that stands in the column IMAGE
    labels : further columns, after the format's own: their values by image, by column

    Raises
    ------
    UserError
        If the disk is full or the place is not writable.
    """
    labels = labels or {}
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, *labels))
    for name, gaze in images.items():
        shape = ("", "") if gaze.shape is None else gaze.shape
        more = [column.get(name, "") for column in labels.values()]
        rows = zip(
            gaze.xy.tolist(), gaze.duration_ms.tolist(), gaze.pupil.tolist(), gaze.start_ms.tolist(),
            strict=True,
        )  # fmt: skip
        for index, ((x, y), duration, pupil, start) in enumerate(rows, start=1):
            size = "." if math.isnan(pupil) else _shortest(pupil)
            cells = map(_shortest, (x, y, duration))
            writer.writerow((name, index, *cells, size, _shortest(start), *shape, *more))
        if not len(gaze.duration_ms):
            writer.writerow((name, 1, 0, 0, 0, ".", 0, *shape, *more))
    write_bytes_atomic(path, text.getvalue().encode())


def _shortest(value: float) -> str:
    """Return the shortest text that reads back as the same number."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
