"""The exact heatmap against scipy's blur of an image, both in one run."""

from __future__ import annotations

import sys
import timeit

import numpy as np
from scipy.ndimage import gaussian_filter

from segmentation.dwell import dwell_density, normalise

SIDE_PX, SIGMA_PX, FIXATIONS = 768, 70.0, 25


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    xy_px = rng.uniform(0, SIDE_PX - 1, (FIXATIONS, 2))
    duration_ms = rng.lognormal(5.5, 0.5, FIXATIONS)
    sigma_px = np.full((FIXATIONS, 2), SIGMA_PX)
    grid = np.zeros((SIDE_PX, SIDE_PX))
    np.add.at(grid, tuple(np.rint(xy_px[:, ::-1]).astype(int).T), duration_ms)

    ours = normalise(dwell_density(xy_px, duration_ms, sigma_px, grid.shape))
    theirs = normalise(gaussian_filter(grid, SIGMA_PX))
    ours_s = (
        min(
            timeit.repeat(
                lambda: dwell_density(xy_px, duration_ms, sigma_px, grid.shape), number=5, repeat=20
            )
        )
        / 5
    )
    theirs_s = min(timeit.repeat(lambda: gaussian_filter(grid, SIGMA_PX), number=1, repeat=5))
    sys.stdout.write(
        f"Heatmap of {FIXATIONS} fixations on {SIDE_PX} x {SIDE_PX}, sigma {SIGMA_PX:g} px\n"
        f"  matrix product     {ours_s * 1e3:8.2f} ms\n"
        f"  gaussian_filter    {theirs_s * 1e3:8.2f} ms   {theirs_s / ours_s:.0f} x\n"
        f"  largest difference {np.abs(ours - theirs).max():.1e}\n"
    )


if __name__ == "__main__":
    main()
