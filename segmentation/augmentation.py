"""From stored pixels to what the networks see: standardising, flips, and the stronger variations."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Bytes = npt.NDArray[np.uint8]

MEAN, SPREAD = 0.5, 0.25
"""Networks see (value - MEAN) / SPREAD of values 0..1."""

STRENGTHS = {"flips": 0.0, "mild": 0.35, "strong": 1.0}
"""How far `moved` and `recoloured` go, by the spec's augmentation."""


def standardised(images: Bytes) -> Tensor:
    """Turn uint8 (B, S, S, 3) into what the networks see: float (B, 3, S, S), channels last in memory."""
    return (torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255 - MEAN) / SPREAD


def flipped(pixels: Bytes, state: int) -> Bytes:
    """Bring (S, S, ...) into a flip state 0..7: transposed (4), then upside down (2), then mirrored (1)."""
    if state & 4:
        pixels = pixels.swapaxes(0, 1)
    if state & 2:
        pixels = pixels[::-1]
    if state & 1:
        pixels = pixels[:, ::-1]
    return pixels


def moved(image: Bytes, level: Bytes, rng: np.random.Generator, strength: float) -> tuple[Bytes, Bytes]:
    """Scale, turn and shift an image (S, S, 3) and its levels (S, S, T) together; sometimes blur the image."""
    size = image.shape[0]
    scale = float(np.exp(rng.uniform(-0.3, 0.3) * strength))
    centre = ((size - 1) / 2, (size - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, float(rng.uniform(-30, 30) * strength), scale)
    matrix[0] *= np.exp(rng.uniform(-0.1, 0.1) * strength)
    matrix[:, 2] += rng.uniform(-0.1, 0.1, 2) * strength * size
    image, level = np.ascontiguousarray(image), np.ascontiguousarray(level)
    border = cv2.BORDER_REFLECT_101
    image = _bytes(cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border))
    level = _bytes(cv2.warpAffine(level, matrix, (size, size), flags=cv2.INTER_NEAREST, borderMode=border))
    if rng.random() < 0.2 * strength:
        image = _bytes(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.2)) * size / 160))
    return image, level.reshape(size, size, -1)


def _bytes(pixels: npt.NDArray[Any]) -> Bytes:
    # cv2 gives back what it got: uint8.
    return pixels


def recoloured(
    images: Tensor,
    rng: np.random.Generator,
    strength: float,
    rows: slice = slice(None),
    whole: int | None = None,
) -> Tensor:
    """Vary brightness, contrast, hue and saturation of standardised images, one 3 x 3 matrix each.

    They may be `rows` of a `whole` number of images, all of which the numbers are drawn for.
    """
    batch = len(images) if whole is None else whole
    axis = np.full((3, 3), 1 / 3)
    turn = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    angle = rng.uniform(-0.15, 0.15, (batch, 1, 1)) * strength
    saturation = 1 + rng.uniform(-0.4, 0.4, (batch, 1, 1)) * strength
    contrast = 1 + rng.uniform(-0.3, 0.4, (batch, 1, 1)) * strength
    brightness = rng.uniform(-0.5, 0.5, (batch, 1, 1, 1)) * strength
    # Rodrigues' rotation about the grey axis turns the hue; what is off that axis is the saturation.
    matrix = contrast * (axis + saturation * (np.cos(angle) * (np.eye(3) - axis) + np.sin(angle) * turn))
    weights, shift = (torch.from_numpy(part.astype(np.float32)[rows]) for part in (matrix, brightness))
    varied = torch.einsum("bij,bjhw->bihw", weights, images) + shift
    return varied.clamp(-MEAN / SPREAD, (1 - MEAN) / SPREAD)
