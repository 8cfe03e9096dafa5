"""Dwell: durations of fixations spread over the pixels around them, and the regions that were looked at apart."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Heatmap = npt.NDArray[np.float32]

TRUNCATE = 4.0
"""The kernel ends at this many sigmas, as in ``scipy.ndimage.gaussian_filter``."""


def dwell_density(xy_px: Floats, duration_ms: Floats, sigma_px: Floats, shape: tuple[int, int]) -> Floats:
    """Sum a truncated Gaussian for each fixation, weighted by its duration.

    Equal to placing the durations on the pixel grid and running ``scipy.ndimage.gaussian_filter`` with its
    ``reflect`` border and a cut-off at 4 sigma, but computed as the matrix product
    ``G_y^T diag(duration) G_x``: exact, and without blurring an image.

    Parameters
    ----------
    xy_px : (F, 2) x, y in pixels; rounded to the pixel they fall in, must lie inside the image
    duration_ms : (F,)
    sigma_px : (F, 2) kernel width along x and y
    shape : height, width

    Returns
    -------
    (H, W) float64, ms/px^2
    """
    height, width = shape
    columns = _kernel_rows(xy_px[:, 0], sigma_px[:, 0], width)
    rows = _kernel_rows(xy_px[:, 1], sigma_px[:, 1], height)
    density: Floats = (rows * duration_ms[:, np.newaxis]).T @ columns
    return density


def _kernel_rows(centre: Floats, sigma: Floats, length: int) -> Floats:
    """Response (F, length) of a normalised truncated Gaussian to a unit mass at each centre, reflected at the ends."""
    centre = np.rint(centre)
    radius = np.floor(TRUNCATE * sigma + 0.5)
    total = np.empty_like(sigma)
    for value in np.unique(sigma):
        reach = np.arange(-math.floor(TRUNCATE * value + 0.5), math.floor(TRUNCATE * value + 0.5) + 1)
        total[sigma == value] = np.exp(-0.5 * (reach / value) ** 2).sum()
    # Reflection (d c b a | a b c d | d c b a) repeats every 2 * length: each mass has images at these places.
    repeats = math.ceil(float(radius.max(initial=0)) / (2 * length))
    grid = np.arange(length)
    response = np.zeros((len(centre), length))
    for shift in range(-repeats, repeats + 1):
        for place in (centre + 2 * length * shift, 2 * length * (shift + 1) - 1 - centre):
            near = np.flatnonzero((place + radius >= 0) & (place - radius < length))
            if near.size:
                distance = grid - place[near, np.newaxis]
                weight = np.exp(-0.5 * (distance / sigma[near, np.newaxis]) ** 2)
                weight[np.abs(distance) > radius[near, np.newaxis]] = 0.0
                response[near] += weight
    normalised: Floats = response / total[:, np.newaxis]
    return normalised


def normalise(density: Floats) -> Heatmap:
    """Stretch to 0..1 by minimum and maximum; a constant map becomes 0."""
    low, high = float(density.min()), float(density.max())
    if high <= low:
        return np.zeros(density.shape, dtype=np.float32)
    return ((density - low) / (high - low)).astype(np.float32)


def heat_at(
    xy_px: Floats, counted: Floats, sigma_px: Floats, shape: tuple[int, int], pixel: tuple[int, int]
) -> Floats:
    """Return what each fixation (F,) adds to the dwell at one pixel (x, y), as `dwell_density` adds them up."""
    columns = _kernel_rows(xy_px[:, 0], sigma_px[:, 0], shape[1])[:, pixel[0]]
    rows = _kernel_rows(xy_px[:, 1], sigma_px[:, 1], shape[0])[:, pixel[1]]
    added: Floats = columns * rows * counted
    return added


CLUSTER_GRID = 96
"""Side of the coarse grid on which regions are told apart."""
CLUSTER_SADDLE = 0.6
"""Two peaks are one region if the dwell between them does not fall below this share of the lower one."""
CLUSTER_SHARE = 0.12
"""A region with less than this share of all dwell was only passed over."""
NO_LESION = -1


def clusters_of(
    xy_px: Floats, duration_ms: Floats, sigma_px: Floats, shape: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """Tell apart the regions that were looked at: the basins of the dwell map, shallow ones merged.

    Returns
    -------
    (F,) number of each fixation's region, from 0; NO_LESION where it holds too little dwell, or is the only one.
    """
    scale = min(1.0, CLUSTER_GRID / max(shape))
    small = max(1, math.ceil(shape[0] * scale)), max(1, math.ceil(shape[1] * scale))
    places = np.minimum((xy_px + 0.5) * scale, [small[1] - 1, small[0] - 1])
    density = dwell_density(places, duration_ms, np.maximum(sigma_px * scale, 0.5), small)
    basins = _basins(density)
    columns, rows = np.rint(places).astype(int).T
    found = basins[rows, columns]
    labels = np.full(len(found), NO_LESION, dtype=np.int64)
    kept = 0
    for basin in np.unique(found):
        own = found == basin
        if duration_ms[own].sum() >= CLUSTER_SHARE * duration_ms.sum():
            labels[own] = kept
            kept += 1
    return labels if kept > 1 else np.full(len(found), NO_LESION, dtype=np.int64)


def _basins(density: Floats) -> npt.NDArray[np.int64]:
    """Label each cell (R, C) by the peak it belongs to, the highest peak 0; a watershed from the peaks down."""
    rows, columns = density.shape
    heights = np.pad(density, 1, constant_values=-1.0).ravel().tolist()
    width = columns + 2
    steps = (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1)
    labels = [-1] * len(heights)
    peaks: list[float] = []
    parent: list[int] = []

    def root(label: int) -> int:
        while parent[label] != label:
            label = parent[label]
        return label

    for cell in np.argsort(-np.pad(density, 1, constant_values=-1.0).ravel(), kind="stable").tolist():
        height = heights[cell]
        if height <= 0:
            break
        # Peaks are numbered from the highest down, so that the lowest number is the highest neighbour.
        around = sorted({root(labels[cell + step]) for step in steps if labels[cell + step] >= 0})
        if not around:
            labels[cell] = len(peaks)
            parent.append(len(peaks))
            peaks.append(height)
            continue
        labels[cell] = around[0]
        for other in around[1:]:
            if height >= CLUSTER_SADDLE * peaks[other]:
                parent[other] = around[0]
    merged = np.array([root(label) if label >= 0 else 0 for label in labels], dtype=np.int64)
    return merged.reshape(rows + 2, width)[1:-1, 1:-1]


def lesion_heatmap(
    xy_px: Floats,
    duration_ms: Floats,
    sigma_px: Floats,
    shape: tuple[int, int],
    lesion: npt.NDArray[np.int64],
) -> Heatmap:
    """Return the heatmap (H, W) in 0..1 in which every lesion has a peak of 1 of its own.

    Fixations of no lesion (`lesion` (F,) is NO_LESION) are measured against the highest peak of all.
    """
    densities = {}
    for number in np.unique(lesion).tolist():
        own = lesion == number
        densities[number] = dwell_density(xy_px[own], duration_ms[own], sigma_px[own], shape)
    if len(densities) == 1:
        return normalise(next(iter(densities.values())))
    highest = max(float(density.max()) for density in densities.values())
    heatmap = np.zeros(shape, dtype=np.float32)
    for number, density in densities.items():
        part = (density / highest).astype(np.float32) if number == NO_LESION else normalise(density)
        np.maximum(heatmap, part, out=heatmap)
    return heatmap
