"""What phantoms are drawn with: smooth noises, irregular outlines, lines and blending on a square grid."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating[Any]]
"""One value a pixel, (S, S)."""
Picture = npt.NDArray[np.floating[Any]]
"""(S, S, 3) RGB or (S, S), about 0..1."""


class Grid:
    """Coordinates of the square -1..1, and the noises drawn on it."""

    def __init__(self, size_px: int) -> None:
        self.size = size_px
        axis = ((np.arange(size_px, dtype=np.float32) + 0.5) / size_px * 2 - 1).astype(np.float32)
        self.x: Field = np.broadcast_to(axis, (size_px, size_px))
        self.y: Field = np.broadcast_to(axis[:, np.newaxis], (size_px, size_px))

    def px(self, length: float) -> float:
        """Convert a length of the -1..1 square to pixels."""
        return length * self.size / 2

    def noise(self, rng: np.random.Generator, cells: float, stretch: float = 1.0) -> Field:
        """Smooth noise, about standard normal, with `cells` bumps across (and cells * stretch down)."""
        rows = max(2, min(self.size, round(cells * stretch)))
        columns = max(2, min(self.size, round(cells)))
        coarse = rng.standard_normal((rows + 3, columns + 3), dtype=np.float32)
        # Broad bumps keep their shape when drawn at half the resolution and enlarged.
        side = self.size // 2 if max(rows, columns) * 8 <= self.size else self.size
        scale_y, scale_x = side / rows, side / columns
        big = np.asarray(
            cv2.resize(coarse, None, fx=scale_x, fy=scale_y, interpolation=cv2.INTER_CUBIC), np.float32
        )
        # The outermost cells are extrapolated; cutting them off keeps the variance even.
        top, left = int(scale_y), int(scale_x)
        return _enlarged(big[top : top + side, left : left + side], self.size)

    def fractal(self, rng: np.random.Generator, cells: float, octaves: int = 4, gain: float = 0.55) -> Field:
        """Noise of several scales, scaled to about unit variance."""
        total = np.zeros((self.size, self.size), np.float32)
        weight, power = 1.0, 0.0
        for octave in range(octaves):
            total += weight * self.noise(rng, cells * 2**octave)
            power += weight**2
            weight *= gain
        return total / np.float32(np.sqrt(power))

    def white(self, rng: np.random.Generator) -> Field:
        """Draw standard normal noise, each pixel on its own."""
        return rng.standard_normal((self.size, self.size), dtype=np.float32)

    def slope(self, rng: np.random.Generator, steepness: float) -> Field:
        """Tilt a plane through 0 that rises by `steepness` a unit, in a direction of chance."""
        direction = rng.uniform(0, 2 * math.pi)
        return steepness * (math.cos(direction) * self.x + math.sin(direction) * self.y)

    def span(self, centre: float, reach: float) -> slice:
        """Pixels of one axis within `reach` of a place, cut at the image's edge."""
        first, last = (math.floor((centre + side * reach + 1) / 2 * self.size) for side in (-1, 1))
        return slice(max(first, 0), max(last + 1, 0))

    def blur(self, field: Field, sigma: float) -> Field:
        """Gaussian blur; sigma in units of the -1..1 square."""
        return np.asarray(cv2.GaussianBlur(field, (0, 0), max(self.px(sigma), 0.3)), dtype=np.float32)

    def bulge(
        self,
        rng: np.random.Generator,
        centre: tuple[float, float],
        radius: float,
        aspect: float = 1.0,
        angle: float = 0.0,
        wobble: float = 0.08,
        roughness: float = 0.0,
    ) -> Field:
        """Distance from a centre in units of an irregular outline's radius: below 1 is inside."""
        # Outlines are smooth: half the resolution is drawn and enlarged, at a quarter of the cost.
        coarse = self.size if self.size < 96 else self.size // 2
        axis = ((np.arange(coarse, dtype=np.float32) + 0.5) / coarse * 2 - 1).astype(np.float32)
        dx, dy = axis - np.float32(centre[0]), (axis - np.float32(centre[1]))[:, np.newaxis]
        cos, sin = math.cos(angle), math.sin(angle)
        along = cos * dx + sin * dy
        across = (cos * dy - sin * dx) * np.float32(aspect)
        theta = np.arctan2(across, along)
        outline = np.ones_like(theta)
        for order in range(2, 6):
            amplitude = np.float32(wobble * rng.normal() / (order - 0.5))
            outline += amplitude * np.cos(np.float32(order) * theta + np.float32(rng.uniform(0, 2 * math.pi)))
        distance = np.sqrt(along * along + across * across) / (np.float32(radius) * np.maximum(outline, 0.35))
        distance = _enlarged(distance, self.size)
        if roughness:
            distance = distance * (1 + np.float32(roughness) * self.fractal(rng, 0.9 / radius + 3, 3))
        return np.asarray(distance, dtype=np.float32)


def _enlarged(field: npt.NDArray[np.floating[Any]], size: int) -> Field:
    if field.shape != (size, size):
        return np.asarray(cv2.resize(field, (size, size), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
    return field.astype(np.float32)


def ramp(values: Field, low: float, high: float) -> Field:
    """Smooth step from 0 at `low` to 1 at `high` (which may be the smaller)."""
    t = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def colour(*rgb: float) -> Picture:
    """Return a colour (3,), 0..1 each."""
    return np.array(rgb, np.float32)


def blend(image: Picture, colour: Picture, alpha: Field) -> None:
    """Mix a colour (3,) or picture (S, S, 3) into an image in place."""
    image += alpha[:, :, np.newaxis] * (colour - image)


def lines(
    rng: np.random.Generator,
    grid: Grid,
    count: int,
    length: float,
    wander: float,
    curl: float,
    width: tuple[float, float],
) -> Field:
    """Coverage 0..1 of `count` lines that wander at each step (vessels) or curl evenly (hairs)."""
    canvas = np.zeros((grid.size, grid.size), np.uint8)
    steps = 16
    for _ in range(count):
        heading = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.normal(0, wander, steps))
        heading += np.linspace(0, rng.normal(0, curl), steps)
        stride = length * rng.uniform(0.6, 1.3) / steps
        track = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * stride, 0) + rng.uniform(
            -1.1, 1.1, 2
        )
        points = np.rint((track + 1) / 2 * grid.size * 16).astype(np.int32)
        thickness = max(1, round(grid.px(rng.uniform(*width))))
        cv2.polylines(canvas, [points], False, 255, thickness, cv2.LINE_AA, shift=4)
    return canvas.astype(np.float32) / 255
