"""Which part of an image a model is shown."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segmentation.explanation_settings import ViewSettings

Box = tuple[int, int, int, int]
"""x, y, width and height in image pixels."""

LEAST_PX = 64
LEAST_SHARE = 0.2
"""A crop is at least this share of each side of the image, and LEAST_PX: a tiny region says little without what
surrounds it."""


def box_shown(region: npt.NDArray[np.bool_], view: ViewSettings) -> Box:
    """Return the part of the image that is shown: all, or the box around the region with its margin.

    Parameters
    ----------
    region : (H, W) the broad level; where it is empty, all of the image is shown
    """
    height, width = region.shape
    if view.crop_margin is None or not region.any():
        return 0, 0, width, height
    x, across = _span(np.logical_or.reduce(region, axis=0), view.crop_margin)
    y, down = _span(np.logical_or.reduce(region, axis=1), view.crop_margin)
    return x, y, across, down


def _span(hit: npt.NDArray[np.bool_], margin: float) -> tuple[int, int]:
    """Return the first pixel and the count along one axis."""
    places = np.flatnonzero(hit)
    size = int(places[-1] - places[0]) + 1
    pad = round(margin * size)
    start, stop = max(0, int(places[0]) - pad), min(len(hit), int(places[-1]) + 1 + pad)
    least = min(len(hit), max(LEAST_PX, round(LEAST_SHARE * len(hit))))
    if stop - start < least:
        start = max(0, start - (least - (stop - start)) // 2)
        stop = min(len(hit), start + least)
        start = stop - least
    return start, stop - start
