"""Fixations as prompts of a segmenter that answers points, and its masks as a heatmap."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Heatmap = npt.NDArray[np.float32]

Segment = Callable[[npt.NDArray[np.float32], Sequence[Floats], Heatmap], Heatmap]
"""Takes an image (H, W, C) in 0..1, prompts of points (P, 2) x, y in its pixels, and the heatmap (H, W); returns the
probability (H, W) of belonging to what is under any of the prompts."""

DWELL_SHARE = 0.8
"""The longest fixations of a region that hold this share of its dwell become points; the rest passed by."""
MOST_POINTS = 12
LEAST_HEAT = 0.25
"""A fixation where the heatmap is cooler was away from what the others looked at."""


def prompts_of(
    xy_px: Floats, duration_ms: Floats, heatmap: Heatmap, region: npt.NDArray[np.int64]
) -> list[Floats]:
    """Return one prompt for each region looked at: its longest fixations, the longest first.

    A segmenter gives every point the same weight; so that dwell counts, points are taken by duration.

    Parameters
    ----------
    xy_px : (F, 2) x, y in pixels of the image
    duration_ms : (F,)
    heatmap : (H, W) 0..1
    region : (F,) number of each fixation's region; negative where it belongs to none, unless no fixation has one
    """
    columns, rows = np.rint(xy_px).astype(int).T
    heat = heatmap[rows, columns]
    numbers = [number for number in np.unique(region).tolist() if number >= 0] or [-1]
    prompts = []
    for number in numbers:
        own = np.flatnonzero(region == number)
        hot = own[heat[own] >= LEAST_HEAT]
        if not hot.size:
            hot = own[[heat[own].argmax()]]
        longest = hot[np.argsort(-duration_ms[hot], kind="stable")]
        held = np.cumsum(duration_ms[longest]) / duration_ms[longest].sum()
        count = int(np.searchsorted(held, DWELL_SHARE)) + 1
        prompts.append(xy_px[longest[: min(count, MOST_POINTS)]])
    return prompts


def pooled(heatmap: Heatmap, probability: Heatmap) -> Heatmap:
    """Return the mean of heatmap and mask, each (H, W) in 0..1: one map, so that its levels nest.

    A level above 0.5 is heat inside the mask; one below is the mask with the hottest of what lies around it. Where the
    segmenter finds nothing, half of the heat is left.
    """
    mean: Heatmap = ((heatmap + probability) / 2).astype(np.float32)
    return mean
