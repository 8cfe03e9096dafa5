"""A kernel as wide as fixations lie apart: a large lesion is looked over widely, a small one in one place."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

Floats = npt.NDArray[np.float64]

NEIGHBOUR = 0.15
"""The distance that counts is that to the neighbour after this share of all fixations."""
WIDTH = 0.7
"""Of that distance, the kernel's sigma."""
TRUST = 0.7
"""How far the kernel goes from the width given towards that, as a power: few fixations tell little."""
NARROWEST, WIDEST = 0.5, 2.2
"""Bounds of the factor."""
FEWEST = 4


def spread_factor(xy_px: Floats, sigma_px: Floats) -> float:
    """Return what to multiply given kernel widths by, so that they fit how far these fixations lie apart.

    The nearest-neighbour bandwidth of density estimation (Loftsgaarden and Quesenberry, Ann. Math. Stat. 1965), by its
    median over the fixations and drawn towards the width given. Neighbours near enough, it is blind to a few
    fixations that went elsewhere, and to how far two groups lie from each other.

    Parameters
    ----------
    xy_px : (F, 2) x, y in pixels, of one lesion
    sigma_px : (F, 2) given widths along x and y

    Returns
    -------
    NARROWEST..WIDEST; 1 for fewer than FEWEST fixations
    """
    count = len(xy_px)
    if count < FEWEST:
        return 1.0
    # In units of the given width, so that a squashed image changes nothing.
    apart = np.sort(cdist(xy_px / sigma_px, xy_px / sigma_px), axis=1)
    neighbour = min(count - 1, max(1, round(NEIGHBOUR * count)))
    width = WIDTH * float(np.median(apart[:, neighbour]))
    return float(np.clip(width**TRUST, NARROWEST, WIDEST))
