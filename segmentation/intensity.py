"""From stored pixels to real values, to the screen, and to what the networks read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.stacks import MODALITIES, Values

Window = tuple[float, float]
"""Centre and width, in real values."""
Bytes = npt.NDArray[np.uint8]

PRESETS: Mapping[str, Mapping[str, Window]] = {
    "ct": {
        "Soft tissue": (40.0, 400.0),
        "Abdomen": (50.0, 400.0),
        "Lung": (-600.0, 1500.0),
        "Bone": (400.0, 1800.0),
        "Brain": (40.0, 80.0),
        "Liver": (60.0, 160.0),
        "Mediastinum": (50.0, 350.0),
    }
}
"""Windows in common use, by modality, in Hounsfield units."""

SIGMAS = 3.0
"""z-scores are clipped at this many standard deviations on either side."""


@dataclass(frozen=True)
class Intensity:
    """What an image's stored numbers mean: real value = stored * slope + intercept."""

    slope: float = 1.0
    intercept: float = 0.0
    unit: str = ""
    window: Window | None = None
    """What the source proposes for display."""
    low: float | None = None
    """0.1 and 99.9 percentile of the real values, over the whole volume where there is one."""
    high: float | None = None
    mean: float | None = None
    """Mean and standard deviation of what is not background (above the overall mean), over the whole volume."""
    sd: float | None = None

    def real(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return real values, float32, in the shape of `stored`."""
        real: npt.NDArray[np.float32] = (stored * np.float64(self.slope) + self.intercept).astype(np.float32)
        return real

    @property
    def shown_window(self) -> Window | None:
        """The window an image opens with: the source's own, else its range; None where neither is known."""
        if self.window is not None:
            return self.window
        if self.low is None or self.high is None:
            return None
        return (self.low + self.high) / 2, max(self.high - self.low, 1e-6)


AS_IT_IS = Intensity()
"""Of an image whose numbers mean nothing but brightness."""


class Statistics:
    """Gathers, plane by plane, a sample of a volume's real values; memory stays small however many planes come."""

    PER_PLANE = 4096

    def __init__(self) -> None:
        self._samples: list[npt.NDArray[np.float32]] = []

    def add(self, real: npt.NDArray[np.float32]) -> None:
        """Take a plane of real values."""
        flat = real.ravel()
        # A stride that shares no factor with the width samples every column.
        step = max(1, flat.size // self.PER_PLANE) | 1
        self._samples.append(flat[::step].copy())

    def on(self, intensity: Intensity) -> Intensity:
        """Return an intensity with low, high, mean and sd filled in."""
        values = np.concatenate(self._samples).astype(np.float64)
        low, high = np.percentile(values, [0.1, 99.9])
        inside = values[values > values.mean()]
        if inside.size < 2:
            inside = values
        return dataclasses.replace(
            intensity,
            low=float(low),
            high=float(high),
            mean=float(inside.mean()),
            sd=float(max(inside.std(), 1e-6)),
        )


def windowed(real: npt.NDArray[np.floating[Any]], window: Window) -> Bytes:
    """Map real values to 0..255: a window's lower edge to 0, its upper edge to 255."""
    centre, width = window
    low = centre - width / 2
    scaled = (real - np.float32(low)) * np.float32(255.0 / max(width, 1e-9))
    mapped: Bytes = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return mapped


def own_window(stored: npt.NDArray[Any], intensity: Intensity) -> Window:
    """Return the window that an image without one is shown with: its own 0.1..99.9 %."""
    if intensity.shown_window is not None:
        return intensity.shown_window
    low, high = (intensity.real(np.percentile(stored, [0.1, 99.9]))).tolist()
    return (low + high) / 2, max(abs(high - low), 1e-6)


def shown(stored: Values, intensity: Intensity, window: Window | None = None) -> Bytes:
    """Return an image as the screen shows it (H, W, 3); 8-bit images without a window as they are."""
    if window is None and stored.dtype == np.uint8 and intensity.shown_window is None:
        pixels: Bytes = stored.astype(np.uint8, copy=False)
    else:
        pixels = windowed(intensity.real(stored), window or own_window(stored, intensity))
    return _three_channels(pixels)


def _three_channels(pixels: Bytes) -> Bytes:
    return np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)


# What the networks read

RULES: Mapping[str, str] = {
    "photo": "as is",
    "ct": "window 40 400",
    "mr": "z-score",
    "us": "as is",
    "xr": "range",
    "nm": "range",
    "grey": "range",
}
"""How each modality is normalised for the networks unless a run says otherwise."""


def check_rules(rules: Mapping[str, str]) -> None:
    """Raise UserError where a rule names no modality or is none that :func:`for_networks` knows."""
    for modality, rule in rules.items():
        if modality not in MODALITIES:
            raise UserError(f"There is no modality {modality!r}; choose one of {', '.join(MODALITIES)}.")
        if rule not in ("as is", "range", "z-score") and _window_of(rule) is None:
            raise UserError(
                f"{rule!r} is no way to normalise {modality} images; use as is, range, z-score, or window C W "
                "with centre and width, like window 40 400."
            )


def rules_for(rules: Mapping[str, str], modalities: Iterable[str]) -> dict[str, str]:
    """Return the rule of each modality that occurs, ``as is`` where a run names none."""
    return {modality: rules.get(modality, "as is") for modality in sorted(set(modalities))}


def _window_of(rule: str) -> Window | None:
    word, _, numbers = rule.partition(" ")
    try:
        centre, width = map(float, numbers.split())
    except ValueError:
        return None
    good = word == "window" and math.isfinite(centre) and math.isfinite(width) and width > 0
    return (centre, width) if good else None


def for_networks(stored: Values, intensity: Intensity, modality: str, rules: Mapping[str, str]) -> Bytes:
    """Return what the networks are shown (H, W, 3): real values by the modality's rule, in 256 steps.

    ``as is`` keeps 8-bit images (others fall back to ``range``), ``range`` stretches the volume's 0.1..99.9 %,
    ``z-score`` maps the volume's mean -3..+3 standard deviations, ``window C W`` a fixed window such as a CT's.
    """
    rule = rules.get(modality, "as is")
    if rule == "as is" and stored.dtype == np.uint8:
        return _three_channels(stored.astype(np.uint8, copy=False))
    window = _window_of(rule)
    if rule == "z-score" and intensity.mean is not None and intensity.sd is not None:
        window = intensity.mean, 2 * SIGMAS * intensity.sd
    if window is None:
        bare = Intensity(intensity.slope, intensity.intercept, low=intensity.low, high=intensity.high)
        window = own_window(stored, bare)
    return _three_channels(windowed(intensity.real(stored), window))


def guide(stored: Values, intensity: Intensity) -> npt.NDArray[np.float32]:
    """Return an image (H, W, C) in 0..1 for what looks at edges and colours: refiner, saliency, measurement."""
    if stored.dtype == np.uint8 and intensity.shown_window is None:
        return stored.astype(np.float32) / 255.0
    centre, width = own_window(stored, intensity)
    values = (intensity.real(stored) - np.float32(centre - width / 2)) / np.float32(width)
    clipped: npt.NDArray[np.float32] = np.clip(values, 0, 1).astype(np.float32)
    return clipped
