"""What a tool marks on the image's grid: strokes, outlines and floods, exact to the pixel's centre."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]
"""(K, 2) x, y in image pixels, pixel centres at whole numbers."""

TOUCHING = 1e-6
"""A pixel whose centre lies on a stroke's very edge belongs to it, whatever rounding says."""


class Box(NamedTuple):
    """A rectangle of pixels; bottom and right are the first beyond it."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index a mask with."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def united(self, other: Box) -> Box:
        """Return the smallest box around both."""
        return Box(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )


class Region(NamedTuple):
    """Some pixels within a box."""

    box: Box
    inside: Mask
    """(h, w), the box's own shape."""


def box_around(points: Points, margin: float, shape: tuple[int, int]) -> Box | None:
    """Return the pixels of an image (height, width) within a margin of some points; None where there are none."""
    left, top = np.ceil(points.min(axis=0) - margin - TOUCHING).astype(int)
    right, bottom = np.floor(points.max(axis=0) + margin + TOUCHING).astype(int) + 1
    box = Box(max(int(top), 0), max(int(left), 0), min(int(bottom), shape[0]), min(int(right), shape[1]))
    return box if box.top < box.bottom and box.left < box.right else None


def box_of(mask: Mask) -> Box | None:
    """Return the smallest box around a mask's pixels; None where it has none."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    return Box(top, int(columns[0]), bottom, int(columns[-1]) + 1)


def stroke(points: Points, radius_px: float, shape: tuple[int, int]) -> list[Region]:
    """Return what a round brush marks along a path: all pixels whose centre is within its radius of the path.

    Parameters
    ----------
    points
        The path; one point is a dab.
    shape
        The image's height and width.

    Returns
    -------
    A region for each leg of the path that meets the image.
    """
    legs = list(pairwise(points)) if len(points) > 1 else [(points[0], points[0])]
    found = (_leg(start, end, radius_px, shape) for start, end in legs)
    return [region for region in found if region is not None]


def _leg(start: Points, end: Points, radius_px: float, shape: tuple[int, int]) -> Region | None:
    box = box_around(np.stack([start, end]), radius_px, shape)
    if box is None:
        return None
    # A row meets the stroke's two ends and its body in one stretch: from the leftmost edge to the rightmost.
    y = np.arange(box.top, box.bottom) - start[1]
    dx, dy = (float(one) for one in end - start)
    reach = radius_px * radius_px + TOUCHING
    stretches = [_disc_rows(y, 0.0, reach)]
    if dx or dy:
        stretches += [_disc_rows(y - dy, dx, reach), _body_rows(y, dx, dy, float(np.sqrt(reach)))]
    first = np.ceil(np.min([left for left, _ in stretches], axis=0) + start[0] - box.left)
    last = np.floor(np.max([right for _, right in stretches], axis=0) + start[0] - box.left)
    columns = np.arange(box.shape[1], dtype=np.float32)
    inside: Mask = columns >= first.astype(np.float32)[:, np.newaxis]
    inside &= columns <= last.astype(np.float32)[:, np.newaxis]
    return Region(box, inside)


Stretch = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""The first and last x of each row; infinity and minus infinity where a row has none."""


def _disc_rows(y: npt.NDArray[np.float64], x: float, reach: float) -> Stretch:
    half = np.sqrt(np.maximum(reach - y * y, 0))
    met = y * y <= reach
    return np.where(met, x - half, np.inf), np.where(met, x + half, -np.inf)


def _body_rows(y: npt.NDArray[np.float64], dx: float, dy: float, radius: float) -> Stretch:
    """Return the rows of the rectangle between two ends: beside the way, no further than the radius from it."""
    length = float(np.hypot(dx, dy))
    left, right = np.full_like(y, -np.inf), np.full_like(y, np.inf)
    # low <= x * slope + offset <= high, once along the way and once across it.
    for slope, offset, low, high in (
        (dx, y * dy, 0.0, length * length),
        (-dy, y * dx, -radius * length, radius * length),
    ):
        if slope:
            ends = np.sort([(low - offset) / slope, (high - offset) / slope], axis=0)
            left, right = np.maximum(left, ends[0]), np.minimum(right, ends[1])
        else:
            met = (offset >= low) & (offset <= high)
            left, right = np.where(met, left, np.inf), np.where(met, right, -np.inf)
    met = left <= right
    return np.where(met, left, np.inf), np.where(met, right, -np.inf)


def enclosed(points: Points, shape: tuple[int, int]) -> Region | None:
    """Return the pixels whose centre an outline goes around (non-zero winding); None where there are none.

    Parameters
    ----------
    points
        The outline's corners, in order; the last is joined to the first. One that crosses itself has no holes.
    shape
        The image's height and width.
    """
    if len(points) < 3:
        return None
    box = box_around(points, 0, shape)
    if box is None:
        return None
    height, width = box.shape
    start, end = points, np.roll(points, -1, axis=0)
    # A centre on a corner's own row is passed by one of the two edges that meet there, not by both.
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first = np.clip(np.ceil(low), box.top, box.bottom).astype(int)
    beyond = np.clip(np.ceil(high), box.top, box.bottom).astype(int)
    count = beyond - first
    edge = np.repeat(np.arange(len(points)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    share = (row - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
    x = start[edge, 0] + share * (end[edge, 0] - start[edge, 0])
    column = np.clip(np.ceil(x) - box.left, 0, width).astype(int)
    turns = np.zeros((height, width + 1), dtype=np.int16)
    np.add.at(turns, (row - box.top, column), np.where(end[edge, 1] > start[edge, 1], 1, -1))
    inside: Mask = np.cumsum(turns[:, :width], axis=1, dtype=np.int16) != 0
    return Region(box, inside) if inside.any() else None


def similar(values: npt.NDArray[Any], seed: tuple[int, int], tolerance: float) -> Region | None:
    """Return the pixels joined to a seed, side to side, that differ from it by the tolerance at most, in each channel.

    Parameters
    ----------
    values
        (H, W) or (H, W, C), C = 1 or 3, uint8 or any number that float32 holds.
    seed
        x, y in pixels.

    Returns
    -------
    None where the seed lies outside of the image.
    """
    height, width = values.shape[:2]
    if not (0 <= seed[0] < width and 0 <= seed[1] < height):
        return None
    # OpenCV takes what it may write to alone, though it writes to the mask only.
    grid = np.require(values, np.uint8 if values.dtype == np.uint8 else np.float32, ["C", "W"])
    reached = np.zeros((height + 2, width + 2), dtype=np.uint8)
    flags = 4 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY | (1 << 8)
    allowed = (float(tolerance),) * 3
    *_, (left, top, across, down) = cv2.floodFill(grid, reached, seed, 0, allowed, allowed, flags)
    box = Box(top, left, top + down, left + across)
    return Region(box, reached[1:-1, 1:-1][box.slices].astype(bool))


def part_at(mask: Mask, seed: tuple[int, int]) -> Region | None:
    """Return the part of a mask (H, W) under a point, or the hole or ground around the point, joined side to side."""
    return similar(mask.view(np.uint8), seed, 0)
