"""Refiners: draw a heatmap's soft border to the image's own edges."""

from __future__ import annotations

import importlib
import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.sparse.linalg

from gaze_capture.errors import UserError
from segmentation.images import resize

Floats = npt.NDArray[np.float64]
Heatmap = npt.NDArray[np.float32]

REFINERS = ("none", "diffusion", "centred-crf", "crf", "pydensecrf", "sam")
WORKING_SIDE_PX = 512
"""Larger images are refined at this size; the heatmap is smooth enough to be scaled back."""
SMOOTHING = 0.007
"""Sigma of the final smoothing, as a fraction of the longer side."""
HALF_WAY = 0.25
HEAT_WEIGHT = 0.75
"""Of the heatmap's log-odds in ``centred-crf``, against 1 for the image: chosen in docs/adr/0019."""
CENTRED_COLOUR = 7.0
"""Sigma of colours in ``centred-crf``, in units of 0..255; the published 13 sees less of pale borders."""
LATTICE = 160
"""Cells along the longer side of what heat diffuses over."""
CONDUCTANCE = 80.0
"""Between cells of the same colour, against 1 for a cell's own heat; at LATTICE cells."""
EDGE_SHARPNESS = 1800.0
"""Conductance falls by exp(-EDGE_SHARPNESS d^2), d^2 the mean squared difference of the channels in 0..1."""
CELLS_PER_SIGMA = 4
MAX_COLOURS = 256


def refine(
    name: str, image: npt.NDArray[np.float32], heatmap: Heatmap, *, centre: float = HALF_WAY
) -> Heatmap:
    """Refine a heatmap (H, W) in 0..1 by an image (H, W, C) in 0..1.

    Parameters
    ----------
    name : of REFINERS, but ``sam``, which needs more than image and heatmap (`segmentation.prompts`)
    centre : for ``diffusion`` and ``centred-crf``, the heat at which a pixel is as likely inside as outside

    Raises
    ------
    UserError
        If the package of ``pydensecrf`` is missing.
    """
    if name == "none":
        return heatmap
    if name == "diffusion":
        return diffused(image, heatmap, centre)
    height, width = heatmap.shape
    scale = min(1.0, WORKING_SIDE_PX / max(height, width))
    small = (max(1, round(height * scale)), max(1, round(width * scale)))
    pixels, heat = resize(image, *small), resize(heatmap, *small)
    if name == "pydensecrf":
        published: Heatmap = resize(original_dense_crf(pixels, heat), height, width)
        return published
    if name == "centred-crf":
        refined = dense_crf(pixels, centred(heat, centre), sigma_colour=CENTRED_COLOUR)
    elif name == "crf":
        refined = dense_crf(pixels, heat)
    else:
        raise ValueError(f"no refiner {name!r} that needs the image alone")
    # Specks of single pixels are noise of the image, not of what was looked at.
    smooth = cv2.GaussianBlur(refined, (0, 0), SMOOTHING * max(small))
    scaled_back: Heatmap = resize(smooth, height, width)
    return scaled_back


def diffused(image: npt.NDArray[np.float32], heatmap: Heatmap, centre: float) -> Heatmap:
    """Let the heatmap's log-odds spread where colours agree and halt where they do not.

    The stationary state of a lattice whose edges conduct by the likeness of the colours at their ends, each cell held
    by its own log-odds: Grady's random walks with priors (CVPR 2005), in log-odds that are zero where the heat is
    `centre`. One sparse symmetric system, solved by conjugate gradients.

    Parameters
    ----------
    image : (H, W, C) 0..1
    heatmap : (H, W) 0..1
    centre : the heat at which a pixel is as likely inside as outside

    Returns
    -------
    (H, W) 0..1
    """
    height, width = heatmap.shape
    scale = min(1.0, LATTICE / max(height, width))
    small = (max(1, round(height * scale)), max(1, round(width * scale)))
    pixels = resize(image, *small).reshape(*small, -1)
    heat = np.clip(resize(heatmap, *small).astype(np.float64), 1e-3, 1 - 1e-3)
    odds = np.log(heat / (1 - heat)) - math.log(centre / (1 - centre))
    cells = np.arange(heat.size).reshape(small)
    ends, conductances = [], []
    for first, second in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        ends.append(np.stack([cells[first].ravel(), cells[second].ravel()]))
        apart = ((pixels[first] - pixels[second]) ** 2).mean(axis=-1)
        # A little goes over every edge, so that a speck of another colour is not on its own.
        conductances.append(np.exp(-EDGE_SHARPNESS * apart.ravel()) + 1e-4)
    one, other = np.concatenate(ends, axis=1)
    # Heat reaches as far in an image of few cells.
    weight = CONDUCTANCE * (max(small) / LATTICE) ** 2 * np.concatenate(conductances)
    half = scipy.sparse.coo_array((weight, (one, other)), shape=(heat.size, heat.size))
    lattice = half + half.T
    total = lattice.sum(axis=1) + 1
    system = (scipy.sparse.diags_array(total) - lattice).tocsr()
    solved, _ = scipy.sparse.linalg.cg(
        system, odds.ravel(), x0=odds.ravel(), rtol=1e-3, maxiter=400, M=scipy.sparse.diags_array(1 / total)
    )
    inside = (1 / (1 + np.exp(-solved))).reshape(small).astype(np.float32)
    refined: Heatmap = resize(inside, height, width)
    return np.clip(refined, 0, 1)


def centred(heatmap: Heatmap, centre: float, weight: float = HEAT_WEIGHT) -> Heatmap:
    """Return the probability (H, W) of the foreground that is one half where the heat is `centre`.

    A heatmap is no probability: half of its peak lies well inside what was looked at, and taken as log-odds it pulls
    every border inwards. Its log-odds are shifted so that they change sign where the border is expected, and scaled
    by `weight`, so that the image has more of a say.
    """
    clipped = np.clip(heatmap.astype(np.float64), 1e-5, 1 - 1e-5)
    odds = np.log(clipped / (1 - clipped)) - math.log(centre / (1 - centre))
    return (1 / (1 + np.exp(-weight * odds))).astype(np.float32)


def original_dense_crf(image: npt.NDArray[np.float32], probability: Heatmap) -> Heatmap:
    """Refine with the package pydensecrf at the settings of GazeMedSeg's code: sigma 80 px and 13, 10 iterations.

    Parameters
    ----------
    image : (H, W, C) 0..1
    probability : (H, W) of the foreground, 0..1

    Raises
    ------
    UserError
        If the package is missing.
    """
    try:
        field_of = importlib.import_module("pydensecrf.densecrf").DenseCRF2D
    except ImportError:
        raise UserError(
            "The refiner pydensecrf needs a package that is missing: install gaze-insight[crf], which needs a compiler "
            "and Python 3.12 or older, or choose --refine centred-crf."
        ) from None
    height, width = probability.shape
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if pixels.shape[2] != 3:
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    inside = np.clip(probability.astype(np.float32), 1e-5, 1 - 1e-5)
    field = field_of(width, height, 2)
    field.setUnaryEnergy(np.ascontiguousarray(-np.log(np.stack([1 - inside, inside])).reshape(2, -1)))
    field.addPairwiseBilateral(sxy=(80, 80), srgb=(13, 13, 13), rgbim=np.ascontiguousarray(pixels), compat=1)
    refined: Heatmap = np.array(field.inference(10), dtype=np.float32)[1].reshape(height, width)
    return refined


def dense_crf(
    image: npt.NDArray[np.float32],
    probability: Heatmap,
    *,
    sigma_xy: float = 80 / 352,
    sigma_colour: float = 13.0,
    compatibility: float = 1.0,
    iterations: int = 5,
) -> Heatmap:
    """Mean-field inference in a two-label dense CRF with one bilateral kernel.

    The model is Kraehenbuehl and Koltun's (NIPS 2011) as GazeMedSeg uses it: Potts, symmetric normalisation. Its
    bilateral sum is taken over a palette of the image's colours: each colour is blurred on a coarse grid, the
    colours are mixed by their affinity, and every pixel reads its own colour at its own place.

    Parameters
    ----------
    image : (H, W, C) 0..1
    probability : (H, W) of the foreground, 0..1
    sigma_xy : fraction of the longer side
    sigma_colour : in units of 0..255
    iterations : of the mean field; it settles in about 5

    Returns
    -------
    (H, W) probability of the foreground, 0..1
    """
    kernel = _BilateralKernel(image, sigma_xy * max(probability.shape), sigma_colour)
    clipped = np.clip(probability.ravel().astype(np.float64), 1e-5, 1 - 1e-5)
    unary = np.log(clipped / (1 - clipped))
    belief = clipped
    for _ in range(iterations):
        belief = 1 / (1 + np.exp(-(unary + compatibility * kernel(2 * belief - 1))))
    return belief.reshape(probability.shape).astype(np.float32)


class _BilateralKernel:
    """Symmetrically normalised product with the matrix exp(-|dx|^2/2s^2 - |dc|^2/2t^2) of all pixel pairs."""

    def __init__(self, image: npt.NDArray[np.float32], sigma_px: float, sigma_colour: float) -> None:
        height, width = image.shape[:2]
        cell = max(1.0, sigma_px / CELLS_PER_SIGMA)
        rows, row_weights = _linear_weights(height, cell)
        columns, column_weights = _linear_weights(width, cell)
        self._grid = (math.floor((height - 1) / cell) + 2, math.floor((width - 1) / cell) + 2)
        colour_of, palette = _palette(image.reshape(-1, image.shape[2]) * 255.0, sigma_colour)
        distance = ((palette[:, np.newaxis] - palette[np.newaxis]) ** 2).sum(axis=2)
        self._affinity = np.exp(-0.5 * distance / sigma_colour**2)
        # Linear interpolation onto the grid and back is itself a blur of variance 1/3 cell^2.
        blur_sigma = math.sqrt(max((sigma_px / cell) ** 2 - 1 / 3, 0.25))
        self._blur_rows = _gaussian_matrix(self._grid[0], blur_sigma)
        self._blur_columns = _gaussian_matrix(self._grid[1], blur_sigma)
        self._splat = _splat_matrix(
            rows, row_weights, columns, column_weights, colour_of, len(palette), self._grid
        )
        self._slice = self._splat.T.tocsr()
        self._scale = np.ones(height * width)
        self._scale = 1 / np.sqrt(np.maximum(self(self._scale), 1e-12))

    def __call__(self, values: Floats) -> Floats:
        grid = (self._splat @ (values * self._scale)).reshape(len(self._affinity), *self._grid)
        blurred = self._blur_rows @ grid @ self._blur_columns
        mixed = self._affinity @ blurred.reshape(len(self._affinity), -1)
        product: Floats = (self._slice @ mixed.ravel()) * self._scale
        return product


def _linear_weights(length: int, cell: float) -> tuple[npt.NDArray[np.int64], Floats]:
    """Lower grid index (length,) and weight of the upper neighbour (length,) of each pixel."""
    position = np.arange(length) / cell
    lower = np.floor(position).astype(np.int64)
    return lower, position - lower


def _gaussian_matrix(length: int, sigma: float) -> Floats:
    distance = np.subtract.outer(np.arange(length), np.arange(length))
    matrix: Floats = np.exp(-0.5 * (distance / sigma) ** 2)
    return matrix


def _palette(colours: npt.NDArray[np.float32], sigma: float) -> tuple[npt.NDArray[np.int64], Floats]:
    """Group colours (N, C) in 0..255 by cells no wider than needed for MAX_COLOURS: index (N,), means (K, C)."""
    width = sigma / 2 if colours.shape[1] == 1 else sigma
    while True:
        per_axis = int(255 / width) + 1
        cells = (colours * (1 / width)).astype(np.int64)
        code = cells @ (per_axis ** np.arange(colours.shape[1]))
        count = np.bincount(code, minlength=per_axis ** colours.shape[1])
        used = np.flatnonzero(count)
        if len(used) <= MAX_COLOURS:
            break
        width *= 1.25
    index_of_cell = np.zeros(len(count), dtype=np.int64)
    index_of_cell[used] = np.arange(len(used))
    index = index_of_cell[code]
    means = [np.bincount(index, weights=channel) / count[used] for channel in colours.T]
    return index, np.stack(means, axis=1)


def _splat_matrix(
    rows: npt.NDArray[np.int64],
    row_weights: Floats,
    columns: npt.NDArray[np.int64],
    column_weights: Floats,
    colour_of: npt.NDArray[np.int64],
    colours: int,
    grid: tuple[int, int],
) -> Any:
    """Sparse (colours * grid, pixels) matrix of bilinear weights."""
    height, width = len(rows), len(columns)
    places, weights = [], []
    for down in (0, 1):
        for right in (0, 1):
            place = np.add.outer((rows + down) * grid[1], columns + right).ravel()
            weight_y = row_weights if down else 1 - row_weights
            weight_x = column_weights if right else 1 - column_weights
            places.append(colour_of * (grid[0] * grid[1]) + place)
            weights.append(np.multiply.outer(weight_y, weight_x).ravel())
    pixels = np.tile(np.arange(height * width), 4)
    entries = (np.concatenate(weights), (np.concatenate(places), pixels))
    return scipy.sparse.csr_array(entries, shape=(colours * grid[0] * grid[1], height * width))
