"""A made-up T2-like prostate in slices: a volume with two nested zones whose masks are known.

Plausible, not anatomical: a bright peripheral zone round a mottled central gland, a dark capsule, bladder above,
rectum behind, muscle and fat about; the ends of the volume lie beyond the prostate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segmentation.procedural import Field, Grid, ramp

SPACING_MM = (3.0, 0.6, 0.6)
"""Millimetres from slice to slice, from row to row and from column to column."""

_BRIGHTEST = 1400.0
"""Stored value of 1.0; scanners' numbers have no unit and no fixed range."""


@dataclass(frozen=True)
class ProstatePhantom:
    """A volume and its zones."""

    volume: npt.NDArray[np.uint16]
    """(D, S, S), from the apex upwards; no unit."""
    gland: npt.NDArray[np.bool_]
    """(D, S, S) the whole prostate; empty in the first and last slices."""
    central: npt.NDArray[np.bool_]
    """(D, S, S) the central gland, inside of it."""
    spacing_mm: tuple[float, float, float]
    seed: int


def make_prostate(seed: int, shape: tuple[int, int, int] = (24, 128, 128)) -> ProstatePhantom:
    """Draw one volume; the same arguments give the same voxels.

    Parameters
    ----------
    seed
        Chooses place, size, form, contrast and noise.
    shape
        Slices, rows and columns: at least 8 square slices of at least 64 pixels.

    Raises
    ------
    ValueError
        If the shape is another.
    """
    depth, height, width = shape
    if depth < 8 or height != width or width < 64:
        raise ValueError(f"a prostate needs 8 or more square slices of 64 or more pixels, not {shape}")
    rng = np.random.default_rng([seed, 20250607])
    grid = Grid(width)
    body = _Body.draw(rng, depth)
    planes, glands, centrals = [], [], []
    for index in range(depth):
        plane, gland, central = body.slice(rng, grid, index)
        planes.append(plane)
        glands.append(gland)
        centrals.append(central)
    # Slices are thick: each holds a little of its neighbours.
    smooth = np.stack(planes)
    padded = np.concatenate([smooth[:1], smooth, smooth[-1:]])
    smooth = 0.8 * smooth + 0.1 * (padded[:-2] + padded[2:])
    sigma = rng.uniform(0.012, 0.025)
    noise = rng.standard_normal((2, *smooth.shape), dtype=np.float32)
    noisy = np.hypot(smooth + sigma * noise[0], sigma * noise[1])
    volume = np.rint(np.clip(noisy, 0, 2) * _BRIGHTEST).astype(np.uint16)
    return ProstatePhantom(volume, np.stack(glands), np.stack(centrals), SPACING_MM, seed)


@dataclass(frozen=True)
class _Body:
    """What all slices share."""

    middle: float
    """Slice of the gland's middle, and slices from there to its ends."""
    reach: float
    centre: tuple[float, float]
    size: tuple[float, float]
    """Half width and half height at the middle, of the -1..1 square."""
    share: float
    """Of the central gland's size in the gland's."""
    wobble: npt.NDArray[np.float64]
    """(2, 4, 2) amplitude and phase of the outlines' waves: gland, central gland."""
    nodules: tuple[Field, Field]
    levels: dict[str, float]
    coil: tuple[float, float]
    depth: int

    @classmethod
    def draw(cls, rng: np.random.Generator, depth: int) -> _Body:
        wobble = np.stack([rng.normal(0, 0.035, (2, 4)), rng.uniform(0, 2 * math.pi, (2, 4))], axis=2)
        levels = {
            "peripheral": rng.uniform(0.68, 0.85),
            "central": rng.uniform(0.36, 0.48),
            "muscle": rng.uniform(0.14, 0.2),
            "fat": rng.uniform(0.55, 0.7),
            "around": rng.uniform(0.42, 0.56),
            "bladder": rng.uniform(0.85, 1.0),
        }
        coarse = Grid(64)
        return cls(
            middle=(depth - 1) / 2 + rng.normal(0, 0.03 * depth),
            reach=depth * rng.uniform(0.26, 0.34),
            centre=(rng.normal(0, 0.05), rng.normal(-0.02, 0.04)),
            size=(rng.uniform(0.5, 0.64), rng.uniform(0.38, 0.5)),
            share=rng.uniform(0.6, 0.76),
            wobble=wobble,
            nodules=(coarse.noise(rng, 7), coarse.noise(rng, 7)),
            levels=levels,
            coil=(rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.3)),
            depth=depth,
        )

    def slice(
        self, rng: np.random.Generator, grid: Grid, index: int
    ) -> tuple[Field, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Draw one slice, and the masks of the gland and the central gland in it."""
        levels = self.levels
        height = (index - self.middle) / self.reach
        texture = grid.fractal(rng, 9, 3)
        image = np.full((grid.size, grid.size), levels["fat"], np.float32) * (1 + 0.05 * texture)

        def paint(f: Field, level: Field | float, soft: float = 0.06) -> None:
            image[:] += ramp(f, 1 + soft, 1 - soft) * (level - image)

        def ellipse(x: float, y: float, a: float, b: float) -> Field:
            across, down = (grid.x - np.float32(x)) / np.float32(a), (grid.y - np.float32(y)) / np.float32(b)
            return np.asarray(np.hypot(across, down), np.float32)

        cx, cy = self.centre
        paint(ellipse(cx, cy, 0.86, 0.78), levels["around"] * (1 + 0.1 * texture))
        for side in (-1, 1):
            paint(ellipse(cx + side * 0.83, cy - 0.05, 0.17, 0.5), levels["muscle"] * (1 + 0.15 * texture))
            paint(ellipse(cx + side * 0.5, 0.92, 0.4, 0.22), levels["muscle"] * (1 + 0.15 * texture))
        rise = index / max(self.depth - 1, 1)
        rectum = ellipse(cx + 0.03, cy + self.size[1] + 0.3, 0.24, 0.2)
        paint(rectum, 0.3 + 0.05 * texture)
        paint(rectum / np.float32(0.6), 0.05)
        if height > 0.55:
            # Above the base the bladder comes down in front.
            size = min(1.0, 0.35 + 0.5 * (height - 0.55))
            paint(ellipse(cx, cy - 0.12, 0.62 * size, 0.45 * size), levels["bladder"], 0.04)
        elif height < -1:
            paint(ellipse(cx, cy, 0.17, 0.17), levels["muscle"] * 1.5)

        gland = np.zeros((grid.size, grid.size), np.bool_)
        central = gland.copy()
        if abs(height) < 1:
            # Blunt ends: the outermost slices of a gland are never a point.
            scale = math.sqrt(1 - 0.86 * height**2)
            gland_f = self._outline(grid, 0, (cx, cy), scale, height)
            inner = self.share * (0.8 + 0.2 * rise)
            inner_centre = cx, cy - 0.2 * self.size[1] * scale
            inner_f = self._outline(grid, 1, inner_centre, inner * scale, height)
            gland = gland_f < 1
            # A collar of the peripheral zone remains everywhere.
            inner_f = np.maximum(inner_f, gland_f / np.float32(0.93))
            central = inner_f < 1
            paint(gland_f, levels["peripheral"] * (1 + 0.07 * texture), 0.04)
            mix = 0.5 + 0.5 * math.cos(math.pi * rise)
            nodules = mix * self.nodules[0] + (1 - mix) * self.nodules[1]
            nodules = cv2.resize(np.asarray(nodules, np.float32), (grid.size, grid.size))
            paint(inner_f, levels["central"] * (1 + 0.28 * np.tanh(nodules) + 0.08 * texture), 0.05)
            image *= 1 - 0.35 * np.exp(-((18 * (inner_f - 1.0)) ** 2)) * gland
            image *= 1 - 0.55 * np.exp(-((16 * (gland_f - 1.04)) ** 2))
            paint(ellipse(cx, inner_centre[1] + 0.05, 0.05, 0.05), levels["peripheral"], 0.3)
        image *= np.exp(self.coil[0] * grid.x + self.coil[1] * grid.y).astype(np.float32)
        return grid.blur(image, 0.01), gland, central

    def _outline(
        self, grid: Grid, which: int, centre: tuple[float, float], scale: float, height: float
    ) -> Field:
        """Distance from a centre in units of the outline's radius; outlines turn slowly from slice to slice."""
        dx = (grid.x - np.float32(centre[0])) / np.float32(self.size[0] * scale)
        # Flatter behind, where the rectum lies.
        flat = np.where(grid.y > centre[1], np.float32(0.85 if which == 0 else 0.8), np.float32(1.0))
        dy = (grid.y - np.float32(centre[1])) / (np.float32(self.size[1] * scale) * flat)
        theta = np.arctan2(dy, dx)
        radius = np.ones_like(theta)
        for order, (amplitude, phase) in enumerate(self.wobble[which], start=2):
            radius += np.float32(amplitude) * np.cos(np.float32(order) * theta + np.float32(phase + height))
        return np.asarray(np.hypot(dx, dy) / radius, np.float32)
