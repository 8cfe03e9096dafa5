"""The mask under edit as it lies on the screen: a tint, a light edge and its dark halo, of one width at every zoom."""

from __future__ import annotations

import functools
from statistics import NormalDist

import cv2
import numpy as np
import numpy.typing as npt

from app import theme
from segmentation.editing.regions import Mask

Pixels = npt.NDArray[np.uint32]
"""(h, w) ARGB, premultiplied, as QImage takes it."""

TINT = 0.30
EDGE = (255, 255, 255)
MARGIN_PX = 6
"""How far beyond what changed the edge and its halo may look different, in pixels of the screen."""
CRISP_ZOOM = 8.0
"""From here on the image's own pixels are seen, and the mask's, too."""


@functools.cache
def _colours(softness: float) -> Pixels:
    """Return what is drawn (256,) where the blurred mask has a value: outside, halo, edge, tint."""
    normal = NormalDist()
    shares = (np.arange(256) + 0.5) / 256
    # How far inside a place lies, in pixels, where the edge is straight.
    depth = np.array([normal.inv_cdf(share) for share in shares]) * softness
    tint = np.array([int(theme.DARK.accent[at : at + 2], 16) for at in (1, 3, 5)])
    layers = (
        (np.zeros(3), 0.55 * np.clip(2.6 * softness - np.abs(depth + 1.0 * softness) * 2, 0, 1)),
        (tint, np.where(depth > 0, TINT, 0.0)),
        (np.array(EDGE), np.clip(1.5 - np.abs(depth - 0.3), 0, 1)),
    )
    colour, alpha = np.zeros((256, 3)), np.zeros(256)
    for over, share in layers:
        colour = over * share[:, np.newaxis] + colour * (1 - share)[:, np.newaxis]
        alpha = share + alpha * (1 - share)
    colour[:2], alpha[:2] = 0, 0
    channels = np.rint(np.column_stack([alpha * 255, colour])).astype(np.uint32)
    packed: Pixels = channels @ np.array([1 << 24, 1 << 16, 1 << 8, 1], dtype=np.uint32)
    return packed


def overlay(
    mask: Mask, scale: float, origin: tuple[float, float], area: tuple[int, int, int, int], ratio: float = 1.0
) -> Pixels:
    """Draw the part of a mask that lies in an area of the screen.

    Parameters
    ----------
    mask
        (H, W).
    scale
        Pixels of the screen per pixel of the mask.
    origin
        Where the corner of the mask's first pixel lies, x and y in pixels of the screen.
    area
        Left, top, width and height in pixels of the screen.
    ratio
        The screen's pixels per logical one: lines are as much wider.
    """
    left, top, width, height = area[0] - MARGIN_PX, area[1] - MARGIN_PX, area[2], area[3]
    width, height = width + 2 * MARGIN_PX, height + 2 * MARGIN_PX
    near = _sampled(mask, scale, origin, (left, top, width, height))
    softness = 0.8 * ratio
    blurred = cv2.GaussianBlur(near, (0, 0), softness)
    inner = blurred[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
    found: Pixels = _colours(softness)[inner]
    return found


def _sampled(
    mask: Mask, scale: float, origin: tuple[float, float], area: tuple[int, int, int, int]
) -> npt.NDArray[np.uint8]:
    """Return 255 where the screen's pixels lie in the mask: where most of one does, far out."""
    left, top, width, height = area
    rows, columns = mask.shape
    several = max(int(1 / scale), 1)
    # The part of the mask that is seen, in whole blocks of the pixels that one of the screen stands for.
    x0 = int(np.clip((left - origin[0]) / scale // several - 1, 0, columns // several)) * several
    y0 = int(np.clip((top - origin[1]) / scale // several - 1, 0, rows // several)) * several
    x1 = int(min(max((left + width - origin[0]) / scale + 2 * several, x0), columns))
    y1 = int(min(max((top + height - origin[1]) / scale + 2 * several, y0), rows))
    if x0 >= x1 or y0 >= y1:
        return np.zeros((height, width), dtype=np.uint8)
    part: npt.NDArray[np.uint8] = mask[y0:y1, x0:x1].view(np.uint8) * np.uint8(255)
    if several > 1:
        down, right = -(y1 - y0) % several, -(x1 - x0) % several
        if down or right:
            part = cv2.copyMakeBorder(part, 0, down, 0, right, cv2.BORDER_REPLICATE).astype(np.uint8)
        size = (part.shape[1] // several, part.shape[0] // several)
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    step = 1 / (scale * several)
    place = [((at + 0.5 - zero) / scale - first) / several - 0.5 for at, zero, first in (
        (left, origin[0], x0), (top, origin[1], y0)
    )]  # fmt: skip
    matrix = np.array([[step, 0, place[0]], [0, step, place[1]]])
    way = cv2.INTER_NEAREST if scale >= CRISP_ZOOM else cv2.INTER_LINEAR
    seen = cv2.warpAffine(part, matrix, (width, height), flags=way | cv2.WARP_INVERSE_MAP, borderValue=0)
    return cv2.threshold(seen, 127, 255, cv2.THRESH_BINARY)[1].astype(np.uint8, copy=False)
