"""Windows: stored pixels as the screen shows them, quick enough to follow the hand. Nothing of Qt."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segmentation.intensity import AS_IT_IS, PRESETS, Bytes, Intensity, Window, own_window, windowed
from segmentation.stacks import Values

IDENTITY: Window = (127.5, 255.0)
"""The window that leaves 8-bit images as they are."""

NARROWEST = 1e-3
"""Least width, as a share of the width an image opens with."""

PIXELS_FOR_WIDTH = 400.0
"""Dragging so far adds the window's own width to it."""


def opened(stored: Values, intensity: Intensity) -> Window:
    """Return the window an image opens with."""
    if stored.dtype == np.uint8 and intensity.shown_window is None:
        return IDENTITY
    return own_window(stored, intensity)


def full_range(stored: Values, intensity: Intensity) -> Window:
    """Return the window from the least to the greatest real value of an image."""
    low, high = intensity.real(np.array([stored.min(), stored.max()])).tolist()
    low, high = min(low, high), max(low, high)
    return (low + high) / 2, max(high - low, 1e-6)


def presets(modality: str, unit: str) -> dict[str, Window]:
    """Return the windows in common use for a modality, by name; they hold for Hounsfield units alone."""
    return dict(PRESETS.get(modality, {})) if unit in ("HU", "") else {}


def rendered(stored: Values, intensity: Intensity, window: Window | None) -> Bytes:
    """Return an image by a window, or as it opens: (H, W) of one channel, (H, W, 3) of three."""
    pixels = stored[:, :, 0] if stored.shape[2] == 1 else stored
    wanted = window or opened(stored, intensity)
    if stored.dtype == np.uint8 and wanted == IDENTITY and _plain(intensity):
        return np.ascontiguousarray(pixels).astype(np.uint8, copy=False)
    if stored.dtype == np.float32:
        return windowed(intensity.real(pixels), wanted)
    table = _table(256 if stored.dtype == np.uint8 else 65536, intensity, wanted)
    return cv2.LUT(np.ascontiguousarray(pixels), table).astype(np.uint8, copy=False)


@functools.lru_cache(maxsize=8)
def _table(size: int, intensity: Intensity, window: Window) -> Bytes:
    """Return what each stored number is shown as: mapped once, not for each pixel, nor for each slice."""
    return windowed(intensity.real(np.arange(size)), window)


def _plain(intensity: Intensity) -> bool:
    return (intensity.slope, intensity.intercept) == (AS_IT_IS.slope, AS_IT_IS.intercept)


def dragged(window: Window, right_px: float, up_px: float, least_width: float) -> Window:
    """Return a window after a drag: to the right it widens, upwards its centre rises."""
    centre, width = window
    step = max(width, 20 * least_width) / PIXELS_FOR_WIDTH
    return centre + up_px * step, max(width + right_px * step, least_width)


def _number(value: float, scale: float) -> str:
    """Return a number with as many places as a span of `scale` makes sense of."""
    places = 0 if scale >= 20 else 1 if scale >= 2 else 2 if scale >= 0.2 else 4
    text = f"{value:.{places}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text


def window_text(window: Window, unit: str) -> str:
    """Return a window for people, as in `C 40 W 400 HU`."""
    centre, width = window
    return f"C {_number(centre, width)} W {_number(width, width)} {unit}".rstrip()


def value_text(stored: Values, intensity: Intensity, column: int, row: int) -> str:
    """Return the real value of a pixel for people, with its unit; of colour images all three numbers."""
    real: npt.NDArray[Any] = intensity.real(stored[row, column])
    if stored.dtype == np.float32 or intensity.slope != round(intensity.slope):
        span = opened(stored, intensity)[1] if intensity.shown_window is not None else 1.0
        words = [_number(value, span) for value in real.tolist()]
    else:
        words = [f"{value:.0f}" for value in real.tolist()]
    return f"{' '.join(words)} {intensity.unit}".rstrip()
