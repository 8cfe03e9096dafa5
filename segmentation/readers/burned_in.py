"""Finds text burned into pixels: rows of small, even, sharply edged shapes of one height.

Meant to make a person look, not to remove anything: it is strict, and misses handwriting, large logos, and text that
is faint, slanted or shorter than four characters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Box = tuple[int, int, int, int]
"""x, y, width and height in pixels."""

_MIN_HEIGHT, _MAX_HEIGHT = 6, 64
_MIN_GLYPHS = 4
_CONTRAST = 60
"""Grey values between a glyph and what surrounds it."""
_MOST_SHAPES = 4000
"""A picture with more is texture, and only its largest contrast would be looked at."""


@dataclass(frozen=True)
class _Glyph:
    x: int
    y: int
    width: int
    height: int
    value: float

    @property
    def bottom(self) -> int:
        return self.y + self.height

    @property
    def right(self) -> int:
        return self.x + self.width


def _glyphs(grey: npt.NDArray[np.uint8], kernel_size: int) -> list[_Glyph]:
    """Return bright shapes on darker ground that could be letters."""
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (kernel_size, kernel_size))
    ground = cv2.morphologyEx(grey, cv2.MORPH_OPEN, kernel)
    # Half-way between a stroke and its ground: there lies the edge, whatever the smoothing.
    above = cv2.subtract(grey, ground)
    strongest = cv2.dilate(above, cv2.getStructuringElement(cv2.MORPH_RECT, (9, 9)))
    mask = ((above >= _CONTRAST // 2) & (above.astype(np.int16) * 2 > strongest)).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count > _MOST_SHAPES:
        return []
    glyphs = []
    for index in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[index])
        if not _MIN_HEIGHT <= height <= min(_MAX_HEIGHT, kernel_size * 2) or width > 1.6 * height:
            continue
        fill = area / (width * height)
        if (fill > 0.9 and width > 0.5 * height) or fill < 0.12:
            continue
        inside = labels[y : y + height, x : x + width] == index
        values = grey[y : y + height, x : x + width][inside]
        core = float(np.percentile(values, 80))
        around = ground[y : y + height, x : x + width]
        if core - float(around.mean()) < _CONTRAST or float(around.std()) > 25:
            continue
        # Ink is even: most of a stroke is close to its brightest part, unlike a highlight that fades.
        if float(np.mean(values > core - 0.45 * (core - float(around.mean())))) < 0.5:
            continue
        # Strokes are thin for their shape: no blob is a letter.
        if _stroke(inside) > 0.34 * height and width > 0.5 * height:
            continue
        glyphs.append(_Glyph(x, y, width, height, core))
    return glyphs


def _stroke(inside: npt.NDArray[np.bool_]) -> float:
    """Return the width of the widest stroke."""
    padded = np.pad(inside, 1).astype(np.uint8)
    return 2 * float(cv2.distanceTransform(padded, cv2.DIST_L2, 3).max())


def _follows(left: _Glyph, right: _Glyph) -> bool:
    height = max(left.height, right.height)
    gap = right.x - left.right
    return (
        -0.2 * height <= gap <= 1.1 * height
        and min(left.height, right.height) >= 0.55 * height
        and (
            abs(left.bottom - right.bottom) <= 0.12 * height + 1 or abs(left.y - right.y) <= 0.12 * height + 1
        )
        and abs(left.value - right.value) <= 45
    )


def _rows(glyphs: list[_Glyph]) -> list[list[_Glyph]]:
    glyphs = sorted(glyphs, key=lambda glyph: (glyph.x, glyph.y))
    rows: list[list[_Glyph]] = []
    for glyph in glyphs:
        fitting = [row for row in rows if _follows(row[-1], glyph)]
        if fitting:
            min(fitting, key=lambda row: glyph.x - row[-1].right).append(glyph)
        else:
            rows.append([glyph])
    return rows


def _is_text(row: list[_Glyph]) -> bool:
    if len(row) < _MIN_GLYPHS:
        return False
    heights = np.array([glyph.height for glyph in row], dtype=np.float64)
    bottoms = np.array([glyph.bottom for glyph in row], dtype=np.float64)
    tall = heights >= 0.8 * heights.max()
    usual = float(np.median(heights[tall]))
    # Capitals and digits share their height and their line; most of a row must be such, to within a pixel.
    even = np.abs(heights - usual) <= max(1.0, 0.08 * usual)
    line = np.abs(bottoms - np.median(bottoms)) <= max(1.0, 0.1 * usual)
    # A slanted row is still a line; its shapes are of several widths, unlike the teeth of a scale.
    widths = {round(glyph.width / usual, 1) for glyph in row}
    return (
        int(np.count_nonzero(even & line)) >= max(_MIN_GLYPHS, 0.6 * len(row))
        and len(widths) > 1
        and float(np.std([glyph.value for glyph in row])) <= 25
    )


def likely_text(display: npt.NDArray[np.uint8]) -> list[Box]:
    """Return boxes around what looks like rows of text in a picture as it is displayed.

    Parameters
    ----------
    display
        (H, W, 3) RGB.
    """
    grey: npt.NDArray[Any] = np.asarray(cv2.cvtColor(np.ascontiguousarray(display), cv2.COLOR_RGB2GRAY))
    # Coloured letters on black are as bright as their brightest channel.
    bright = display.max(axis=2)
    boxes: list[Box] = []
    for picture in (bright, 255 - grey):
        for kernel_size in (11, 25):
            for row in _rows(_glyphs(picture, kernel_size)):
                if _is_text(row):
                    x, y = min(glyph.x for glyph in row), min(glyph.y for glyph in row)
                    right, bottom = max(glyph.right for glyph in row), max(glyph.bottom for glyph in row)
                    boxes.append((x, y, right - x, bottom - y))
    return _merged(boxes)


def _merged(boxes: list[Box]) -> list[Box]:
    merged: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box[2] * box[3]):
        x, y, width, height = box
        if not any(
            x < left + across and left < x + width and y < top + down and top < y + height
            for left, top, across, down in merged
        ):
            merged.append(box)
    return sorted(merged, key=lambda box: (box[1], box[0]))
