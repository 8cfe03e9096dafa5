"""What is done to a whole mask at once: each takes a mask (H, W) and returns another."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from segmentation.editing.regions import TOUCHING, Box, Mask, box_of

Spacing = tuple[float, float]
"""Millimetres from row to row and from column to column."""


def grow(mask: Mask, radius: float, spacing_mm: Spacing | None = None) -> Mask:
    """Return a mask with all pixels within a radius of it: in mm where the spacing is given, else in pixels."""
    found = box_of(mask)
    if found is None:
        return mask.copy()
    rows, columns = spacing_mm or (1.0, 1.0)
    box = _wider(found, int(radius / rows) + 1, int(radius / columns) + 1, mask.shape)
    grown = mask.copy()
    grown[box.slices] = _near(mask[box.slices], radius, rows, columns)
    return grown


def shrink(mask: Mask, radius: float, spacing_mm: Spacing | None = None) -> Mask:
    """Return a mask without the pixels within a radius of its outside; the image's border is no outside."""
    found = box_of(mask)
    if found is None:
        return mask.copy()
    rows, columns = spacing_mm or (1.0, 1.0)
    box = _wider(found, int(radius / rows) + 1, int(radius / columns) + 1, mask.shape)
    shrunk = mask.copy()
    shrunk[box.slices] &= ~_near(~mask[box.slices], radius, rows, columns)
    return shrunk


def _wider(box: Box, rows: int, columns: int, shape: tuple[int, ...]) -> Box:
    return Box(
        max(box.top - rows, 0),
        max(box.left - columns, 0),
        min(box.bottom + rows, shape[0]),
        min(box.right + columns, shape[1]),
    )


def _near(mask: Mask, radius: float, row: float, column: float) -> Mask:
    """Return the pixels within a radius of a mask, pixels being so high and so wide."""
    if row == column:
        if not mask.any():
            return mask.copy()
        away = cv2.distanceTransform(1 - mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        near: Mask = away <= radius / row + 1e-4
        return near
    down, across = int(radius / row + TOUCHING), int(radius / column + TOUCHING)
    y, x = np.arange(-down, down + 1) * row, np.arange(-across, across + 1) * column
    disc = (np.add.outer(y * y, x * x) <= radius * radius + TOUCHING).astype(np.uint8)
    border = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
    return cv2.dilate(mask.view(np.uint8), disc, **border).astype(bool)  # type: ignore[call-overload]


def smooth(mask: Mask, radius_px: float = 2.0) -> Mask:
    """Return a mask whose every pixel is what most pixels within a radius of it are; the border's are repeated."""
    found = box_of(mask)
    if found is None:
        return mask.copy()
    reach = int(radius_px)
    box = _wider(found, 2 * reach, 2 * reach, mask.shape)
    offsets = np.arange(-reach, reach + 1)
    disc = (np.add.outer(offsets**2, offsets**2) <= radius_px * radius_px).astype(np.float32)
    inside = mask[box.slices].astype(np.float32)
    votes = cv2.filter2D(inside, cv2.CV_32F, disc, borderType=cv2.BORDER_REPLICATE)
    smoothed = np.zeros_like(mask)
    smoothed[box.slices] = np.rint(votes) * 2 > disc.sum()
    return smoothed


def fill_holes(mask: Mask) -> Mask:
    """Return a mask without holes: what no way, side to side, leads to from the image's border belongs to it."""
    found = box_of(mask)
    if found is None:
        return mask.copy()
    # With a rim of ground around it, all that is outside hangs together.
    ground = np.pad(~mask[found.slices], 1, constant_values=True).astype(np.uint8)
    cv2.floodFill(ground, None, (0, 0), 2, flags=4)
    filled = mask.copy()
    filled[found.slices] |= ground[1:-1, 1:-1] == 1
    return filled


def keep_largest(mask: Mask) -> Mask:
    """Return the largest part of a mask, joined side to side; of several as large, the one that comes first by rows."""
    found = box_of(mask)
    if found is None:
        return mask.copy()
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask[found.slices].view(np.uint8), connectivity=4
    )
    areas = stats[:count, cv2.CC_STAT_AREA]
    areas[0] = 0
    first = int(np.argmax((areas == areas.max())[labels]))
    kept = np.zeros_like(mask)
    kept[found.slices] = labels == labels.flat[first]
    return kept


def rethreshold(
    mask: Mask, probability: npt.NDArray[np.float32], threshold: float, where: Mask | None = None
) -> Mask:
    """Return where a probability (H, W) reaches a threshold; elsewhere than `where` the mask stays as it is."""
    reached: Mask = probability >= np.float32(threshold)
    return reached if where is None else np.where(where, reached, mask)
