"""Finds what should be blanked before a picture leaves: text burned into pixels, rather too much than too little.

`readers.burned_in` is strict, so that people trust its warnings; here a missed date matters more than a blanked
highlight. White letters on mucosa or skin stand out most in the darkest of the three colours; small letters fall apart
or run together, so that small images are looked at enlarged, too; and what resembles letters beside a row of text is
taken for more of it. Handwriting, logos, and letters as pale as what is behind them are missed.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segmentation.images import resize
from segmentation.readers.burned_in import likely_text
from segmentation.view_geometry import Box

_Plane = npt.NDArray[np.uint8]

_CONTRAST = 36
"""Grey values between a letter and its ground."""
_GROUNDS_PX = (11, 25)
"""What is thinner than this, in pixels, stands on a ground."""
_MAX_HEIGHT_PX = 64
_MOST_SHAPES = 4000
"""A picture with more is texture."""
_ENLARGED_BELOW_PX = 1000
_MOST_PIXELS = 1 << 22
"""Larger images are searched shrunk: their letters are larger, too."""
_NEIGHBOURS = 2
"""Steps from a sure row to what is taken along with it."""


@dataclass(frozen=True)
class _Shape:
    """A letter, or a row of them."""

    left: int
    top: int
    right: int
    bottom: int
    value: float

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left


def text_boxes(display: npt.NDArray[np.uint8]) -> tuple[Box, ...]:
    """Return rectangles of an image that look like text, with a margin.

    Parameters
    ----------
    display : (H, W, 3) RGB as it is displayed
    """
    height, width = display.shape[:2]
    shrink = (height * width / _MOST_PIXELS) ** 0.5
    if shrink <= 1:
        return _boxes_in(np.ascontiguousarray(display))
    small = resize(display, max(1, round(height / shrink)), max(1, round(width / shrink)))
    across, down = width / small.shape[1], height / small.shape[0]
    return tuple(
        (int(x * across), int(y * down), math.ceil(wide * across) + 1, math.ceil(high * down) + 1)
        for x, y, wide, high in _boxes_in(small)
    )


def _boxes_in(display: npt.NDArray[np.uint8]) -> tuple[Box, ...]:
    height, width = display.shape[:2]
    covered = np.zeros((height, width), np.uint8)
    rows = [_Shape(x, y, x + across, y + down, 0.0) for x, y, across, down in likely_text(display)]
    rows += _rows_of(display, 1)
    if max(height, width) <= _ENLARGED_BELOW_PX:
        rows += _rows_of(display, 2)
    for row in rows:
        # A first or last letter that was missed is as wide as a letter is high, or less.
        beside, over = row.height, 2
        covered[
            max(0, row.top - over) : row.bottom + over, max(0, row.left - beside) : row.right + beside
        ] = 1
    count, _, stats, _ = cv2.connectedComponentsWithStats(covered, connectivity=8)
    return tuple(
        (int(x), int(y), int(across), int(down)) for x, y, across, down, _ in stats[1:count].tolist()
    )


def _rows_of(display: npt.NDArray[np.uint8], times: int) -> list[_Shape]:
    """Return rows of letters in an image, enlarged a number of times for the search."""
    picture = display
    if times > 1:
        picture = cv2.resize(display, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC).astype(
            np.uint8
        )
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.uint8)
    found = _grown(*_sure_and_unsure(picture.min(axis=2), times))
    # Coloured letters on black, and dark letters: sure ones only, as dark vessels and folds make many unsure ones.
    for plane in (picture.max(axis=2), 255 - grey):
        found += _sure_and_unsure(plane, times)[0]
    return [
        _Shape(
            row.left // times, row.top // times, -(-row.right // times), -(-row.bottom // times), row.value
        )
        for row in found
    ]


def _sure_and_unsure(plane: _Plane, times: int) -> tuple[list[_Shape], list[_Shape]]:
    sure: list[_Shape] = []
    unsure: list[_Shape] = []
    for ground_px in _GROUNDS_PX:
        for row in _in_rows(_letters(plane, ground_px, 5 if times == 1 else 8)):
            whole = _Shape(
                min(one.left for one in row),
                min(one.top for one in row),
                max(one.right for one in row),
                max(one.bottom for one in row),
                float(np.median([one.value for one in row])),
            )
            (sure if _is_text(row) else unsure).append(whole)
    return sure, unsure


def _letters(plane: _Plane, ground_px: int, least_px: int) -> list[_Shape]:
    """Return bright shapes on darker ground that could be letters."""
    ground = cv2.morphologyEx(
        plane, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_RECT, (ground_px, ground_px))
    )
    above = cv2.subtract(plane, ground)
    strongest = cv2.dilate(above, cv2.getStructuringElement(cv2.MORPH_RECT, (9, 9)))
    edges = (above >= _CONTRAST // 2) & (above.astype(np.int16) * 2 > strongest)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(edges.astype(np.uint8), connectivity=8)
    widths, heights, areas = stats[:, 2], stats[:, 3], stats[:, 4]
    fill = areas / (widths * heights)
    # Letters that run together are up to three times as wide as high.
    fitting = (heights >= least_px) & (heights <= min(_MAX_HEIGHT_PX, 2 * ground_px))
    fitting &= (widths <= 3.2 * heights) & (fill >= 0.12) & (fill <= 0.92)
    fitting[0] = False
    indices = np.flatnonzero(fitting)
    if len(indices) > _MOST_SHAPES:
        return []
    letters = []
    for index in indices.tolist():
        x, y, width, height = (int(value) for value in stats[index, :4])
        part = np.s_[y : y + height, x : x + width]
        inside = labels[part] == index
        core = float(np.percentile(plane[part][inside], 80))
        if core - float(ground[part].mean()) < _CONTRAST:
            continue
        stroke = 2 * float(cv2.distanceTransform(np.pad(inside, 1).astype(np.uint8), cv2.DIST_L2, 3).max())
        if stroke > 0.45 * height and width > 0.5 * height:
            continue
        letters.append(_Shape(x, y, x + width, y + height, core))
    return letters


def _in_rows(letters: list[_Shape]) -> list[list[_Shape]]:
    rows: list[list[_Shape]] = []
    for letter in sorted(letters, key=lambda one: (one.left, one.top)):
        fitting = [row for row in rows if _follows(row[-1], letter)]
        if fitting:
            min(fitting, key=lambda row: letter.left - row[-1].right).append(letter)
        else:
            rows.append([letter])
    return rows


def _follows(one: _Shape, other: _Shape) -> bool:
    height = max(one.height, other.height)
    return (
        -0.2 * height <= other.left - one.right <= 1.2 * height
        and min(one.height, other.height) >= 0.6 * height
        and abs(one.bottom - other.bottom) <= 0.15 * height + 1
        and abs(one.top - other.top) <= 0.3 * height + 1
        and abs(one.value - other.value) <= 60
    )


def _is_text(row: list[_Shape]) -> bool:
    letters = sum(max(1, round(one.width / (0.75 * one.height))) for one in row)
    if len(row) < 3 or letters < 4:
        return False
    heights = np.array([one.height for one in row], dtype=np.float64)
    bottoms = np.array([one.bottom for one in row], dtype=np.float64)
    usual = float(np.median(heights[heights >= 0.8 * heights.max()]))
    slack = max(1.0, 0.1 * usual)
    even = (np.abs(heights - usual) <= slack) & (np.abs(bottoms - np.median(bottoms)) <= slack)
    return (
        int(np.count_nonzero(even)) >= max(3, 0.7 * len(row))
        and float(np.std([one.value for one in row])) <= 35
    )


def _grown(sure: list[_Shape], unsure: list[_Shape]) -> list[_Shape]:
    """Take along what stands above, below or beside a row of text and is as high and as bright."""
    found, todo = list(sure), deque((row, _NEIGHBOURS) for row in sure)
    while todo:
        row, steps = todo.popleft()
        left = []
        for other in unsure:
            if _beside(row, other):
                found.append(other)
                if steps > 1:
                    todo.append((other, steps - 1))
            else:
                left.append(other)
        unsure = left
    return found


def _beside(row: _Shape, other: _Shape) -> bool:
    high, wide = 2.5 * row.height, 1.5 * row.height
    return (
        other.top < row.bottom + high
        and row.top < other.bottom + high
        and other.left < row.right + wide
        and row.left < other.right + wide
        and 0.8 * row.height <= other.height <= 1.25 * row.height
        and other.width >= 1.3 * other.height
        and abs(other.value - row.value) <= 45
    )
