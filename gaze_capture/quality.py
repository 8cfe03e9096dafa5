"""How well gaze was measured: accuracy, precision and loss in degrees, with the gates that judge them.

Terms and formulas are those of Holmqvist et al., *Eye tracking: empirical foundations for a minimal reporting
guideline* (2023): accuracy is the angle between the mean gaze direction and the target, RMS-S2S the root mean square of
the angles between successive samples, STD the root of the summed variances, BCEA the area of the bivariate contour
ellipse that holds 68 % of the samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from gaze_capture.recording import Calibration, Eyes, Floats, Samples, ScreenGeometry, eye_positions

Verdict = Literal["pass", "warn", "recalibrate"]

MEAN_ERROR_DEG = (0.5, 1.0)
"""Largest mean error that passes, and that is still accepted with a warning."""
MAX_ERROR_DEG = (1.0, 1.5)
DATA_LOSS = (0.10, 0.20)
RMS_S2S_DEG = (0.3, 0.5)

BCEA_SHARE = 0.68


@dataclass(frozen=True)
class Measure:
    """Gaze of one eye, or of the mean of both, while it rested on a target; NaN where it was never seen."""

    error_deg: float
    """Accuracy: angle between the mean gaze direction and the target."""
    offset_deg: tuple[float, float]
    """Mean gaze minus target, x to the right and y down."""
    rms_s2s_deg: float
    std_deg: float
    bcea_deg2: float
    data_loss: float
    """Share of invalid samples, 0..1."""


@dataclass(frozen=True)
class TargetMeasure:
    """What was measured while the eyes rested on one target."""

    x: float
    """Normalised to the screen, as y."""
    y: float
    left: Measure
    right: Measure
    both: Measure
    """Of the eyes that the validation uses, averaged; what fixations are made of."""


@dataclass(frozen=True)
class Validation:
    """Accuracy and precision on fresh targets."""

    targets: tuple[TargetMeasure, ...]
    eyes: Eyes
    effective_hz: float
    """Valid samples a second."""

    @property
    def mean_error_deg(self) -> float:
        """Mean accuracy over the targets; infinite where one was never seen."""
        return _finite_or_infinite(np.mean([target.both.error_deg for target in self.targets]))

    @property
    def max_error_deg(self) -> float:
        """Accuracy at the worst target; infinite where one was never seen."""
        return _finite_or_infinite(np.max([target.both.error_deg for target in self.targets]))

    @property
    def rms_s2s_deg(self) -> float:
        """Root mean square over the targets; infinite where one was never seen."""
        squares = [target.both.rms_s2s_deg**2 for target in self.targets]
        return _finite_or_infinite(math.sqrt(np.mean(squares)))

    @property
    def std_deg(self) -> float:
        """Root mean square over the targets."""
        return _finite_or_infinite(math.sqrt(np.mean([target.both.std_deg**2 for target in self.targets])))

    @property
    def bcea_deg2(self) -> float:
        """Mean over the targets."""
        return _finite_or_infinite(np.mean([target.both.bcea_deg2 for target in self.targets]))

    @property
    def data_loss(self) -> float:
        """Share of samples, 0..1, in which no eye that counts was seen."""
        return float(np.mean([target.both.data_loss for target in self.targets]))

    @property
    def verdict(self) -> Verdict:
        """The worst of what each gate says."""
        gates = (
            (self.mean_error_deg, MEAN_ERROR_DEG, True),
            (self.max_error_deg, MAX_ERROR_DEG, True),
            (self.data_loss, DATA_LOSS, True),
            # Noise alone never asks for a new calibration: it would not mend it.
            (self.rms_s2s_deg, RMS_S2S_DEG, False),
        )
        worst: Verdict = "pass"
        for value, (good, fair), must_hold in gates:
            if not value <= fair and must_hold:
                return "recalibrate"
            if not value <= good:
                worst = "warn"
        return worst

    @property
    def smallest_lesion_deg(self) -> float:
        """Diameter in degrees of the smallest lesion that gaze of this accuracy and precision can mark.

        The mean error must stay within a lesion's radius for fixations on its centre to fall inside, and two standard
        deviations of the noise must not carry them out of it.
        """
        return 2 * (self.mean_error_deg + 2 * self.std_deg / math.sqrt(2) / math.sqrt(10))

    def summary(self, points: int) -> Calibration | None:
        """Return what recordings keep of it; None where a target was never seen. `points`: of the calibration."""
        if not math.isfinite(self.mean_error_deg):
            return None
        return Calibration(
            points=points,
            mean_error_deg=round(self.mean_error_deg, 4),
            max_error_deg=round(self.max_error_deg, 4),
            rms_s2s_deg=round(self.rms_s2s_deg, 4),
            data_loss=round(self.data_loss, 4),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, without NaN."""
        return {"targets": [_plain(asdict(target)) for target in self.targets], "eyes": self.eyes,
                "effective_hz": _plain(self.effective_hz)}  # fmt: skip

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Validation:
        """Invert :meth:`to_json`."""

        def measure(found: dict[str, Any]) -> Measure:
            numbers = {name: math.nan if value is None else value for name, value in found.items()}
            x, y = (math.nan if value is None else value for value in found["offset_deg"])
            return Measure(**(numbers | {"offset_deg": (x, y)}))

        targets = tuple(
            TargetMeasure(
                found["x"],
                found["y"],
                measure(found["left"]),
                measure(found["right"]),
                measure(found["both"]),
            )
            for found in values["targets"]
        )
        hz = values["effective_hz"]
        return cls(targets, values["eyes"], math.nan if hz is None else hz)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finite_or_infinite(value: float | np.floating[Any]) -> float:
    return float(value) if math.isfinite(value) else math.inf


def measure(xy: Floats, target_xy: tuple[float, float], geometry: ScreenGeometry) -> Measure:
    """Measure gaze (N, 2), normalised to the screen and NaN where invalid, against the target it rested on."""
    valid = np.isfinite(xy).all(axis=1)
    loss = 1 - float(valid.mean()) if len(xy) else 1.0
    if not valid.any():
        return Measure(math.nan, (math.nan, math.nan), math.nan, math.nan, math.nan, loss)
    target = np.array(target_xy)
    mean = _directions(xy[valid], geometry).mean(axis=0)
    aim = _directions(target[np.newaxis], geometry)[0]
    error = math.degrees(math.atan2(float(np.linalg.norm(np.cross(mean, aim))), float(mean @ aim)))
    degrees = geometry.degrees_from_normalised(xy)
    offset = degrees[valid].mean(axis=0) - geometry.degrees_from_normalised(target)
    steps = (np.diff(degrees, axis=0) ** 2).sum(axis=1)
    steps = steps[np.isfinite(steps)]
    spread = degrees[valid].std(axis=0)
    bcea = _bcea(degrees[valid])
    return Measure(
        error_deg=error,
        offset_deg=(float(offset[0]), float(offset[1])),
        rms_s2s_deg=float(np.sqrt(steps.mean())) if len(steps) else math.nan,
        std_deg=float(np.hypot(*spread)),
        bcea_deg2=bcea,
        data_loss=loss,
    )


def _directions(xy: Floats, geometry: ScreenGeometry) -> Floats:
    """Return unit vectors (N, 3) from an eye before the screen's centre to positions (N, 2) on the screen."""
    offset_mm = (xy - 0.5) * [geometry.width_mm, geometry.height_mm]
    rays = np.column_stack([offset_mm, np.full(len(xy), geometry.viewing_distance_mm)])
    unit: Floats = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    return unit


def _bcea(degrees: Floats) -> float:
    """Return 2 pi k sx sy sqrt(1 - rho^2), which is 2 pi k times the root of the covariance's determinant."""
    if len(degrees) < 3:
        return math.nan
    k = math.log(1 / (1 - BCEA_SHARE))
    determinant = float(np.linalg.det(np.cov(degrees.T)))
    return 2 * math.pi * k * math.sqrt(max(determinant, 0.0))


def validation_of(
    parts: Sequence[tuple[tuple[float, float], Samples]], geometry: ScreenGeometry, eyes: Eyes = "both"
) -> Validation:
    """Measure the samples (N) collected while the eyes rested on each target (x, y normalised to the screen)."""
    targets = []
    valid, seconds = 0, 0.0
    for target_xy, samples in parts:
        both = eye_positions(samples, eyes)
        left, right = (measure(eye_positions(samples, side), target_xy, geometry) for side in _SIDES)
        targets.append(TargetMeasure(*target_xy, left, right, measure(both, target_xy, geometry)))
        if len(samples) > 1:
            valid += int(np.isfinite(both).all(axis=1).sum())
            lasted = float(samples["time_ns"][-1] - samples["time_ns"][0]) / 1e9
            seconds += lasted * len(samples) / (len(samples) - 1)
    return Validation(tuple(targets), eyes, valid / seconds if seconds > 0 else math.nan)


_SIDES: tuple[Eyes, Eyes] = ("left", "right")
