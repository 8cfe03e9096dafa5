"""Lines of layers, drawn straight into an overlay's pixels: many times quicker than a painter strokes a path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
"""(K, 2) x, y in pixels of the overlay, pixel corners at whole numbers."""
Colour = tuple[float, float, float, float]
"""Blue, green, red and alpha, 0..255, premultiplied: what a pixel of an overlay holds."""
Pixels = npt.NDArray[np.uint8]

FRACTION_BITS = 4
"""Positions are drawn to a sixteenth of a pixel."""
MARGIN_PX = 12.0
"""What lies so far outside is not drawn: half the width of the widest line, and some more."""


def premultiplied(colour: tuple[int, int, int], alpha: float) -> Colour:
    """Return a pixel of an overlay for a colour (red, green, blue) of an alpha, 0..1."""
    red, green, blue = colour
    return blue * alpha, green * alpha, red * alpha, 255 * alpha


def visible_runs(points: Points, width: int, height: int, closed: bool) -> Iterator[tuple[Points, float]]:
    """Yield the pieces of a line that run through a picture, each with how far along the line it begins."""
    if len(points) < 2:
        return
    whole = np.concatenate([points, points[:1]]) if closed else points
    low, high = np.minimum(whole[:-1], whole[1:]), np.maximum(whole[:-1], whole[1:])
    inside = ((high >= -MARGIN_PX) & (low <= (width + MARGIN_PX, height + MARGIN_PX))).all(axis=1)
    if not inside.any():
        return
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(whole, axis=0).T))])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]])))
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        yield whole[begin : end + 1], float(along[begin])


def dashed(points: Points, begun: float, pattern: Sequence[float]) -> Points:
    """Cut a line into dashes: (D, 2, 2), the two ends of each straight piece.

    Parameters
    ----------
    points : (K, 2)
    begun : how far along the whole line it begins, so that dashes stand still while the picture moves
    pattern : lengths of dash, gap, dash, gap ... in pixels
    """
    period = float(sum(pattern))
    along = begun + np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    marks = np.concatenate([[0.0], np.cumsum(pattern)])[:-1]
    first, last = int(along[0] // period), int(along[-1] // period)
    cuts = (np.arange(first, last + 1)[:, np.newaxis] * period + marks).ravel()
    cuts = cuts[(cuts > along[0]) & (cuts < along[-1])]
    places = np.unique(np.concatenate([along, cuts]))
    middles = (places[:-1] + places[1:]) / 2 % period
    drawn = np.searchsorted(np.cumsum(pattern), middles, side="right") % 2 == 0
    xy = np.stack([np.interp(places, along, points[:, axis]) for axis in (0, 1)], axis=1)
    pieces: Points = np.stack([xy[:-1][drawn], xy[1:][drawn]], axis=1)
    return pieces


def _fixed(points: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    # OpenCV counts from pixel centres.
    return np.rint((points - 0.5) * (1 << FRACTION_BITS)).astype(np.int32)


def stroke(
    pixels: Pixels,
    lines: Sequence[Points],
    colour: Colour,
    width_px: float,
    pattern: Sequence[float] = (),
    *,
    closed: bool = True,
) -> None:
    """Draw lines into an overlay (H, W, 4).

    Parameters
    ----------
    colour : replaces what lies below; where it is translucent, the image shines through, not another layer
    width_px : rounded to whole pixels
    pattern : as of `dashed`; solid where empty
    closed : whether the end of each leads back to its beginning
    """
    height, width = pixels.shape[:2]
    thick = max(1, round(width_px))
    for line in lines:
        for run, begun in visible_runs(line, width, height, closed):
            pieces: Any = list(_fixed(dashed(run, begun, pattern))) if pattern else [_fixed(run)]
            if pieces:
                cv2.polylines(pixels, pieces, False, colour, thick, cv2.LINE_AA, FRACTION_BITS)
