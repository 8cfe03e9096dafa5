"""Accuracy, precision and loss: against values known by construction, and against ETDQualitizer."""

from __future__ import annotations

import math

import ETDQualitizer
import numpy as np
import pytest

from gaze_capture.quality import Measure, Validation, measure, validation_of
from gaze_capture.recording import Floats, Samples, ScreenGeometry, pack_samples

SCREEN = ScreenGeometry(1920, 1080, 531.0, 299.0, 650.0)


def noisy(target: tuple[float, float], offset_deg: tuple[float, float], sd_deg: float, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    centre = SCREEN.degrees_from_normalised(np.array(target)) + offset_deg
    return SCREEN.normalised_from_degrees(centre + rng.normal(0, sd_deg, (400, 2)))


def samples_of(left: Floats, right: Floats, rate_hz: float = 250.0) -> Samples:
    time_ns = np.round(np.arange(len(left)) * 1e9 / rate_hz).astype(np.int64)
    return pack_samples(time_ns, time_ns, left, right, np.full((len(left), 2), 3.0))


def test_known_offset_noise_and_loss_are_found() -> None:
    xy = noisy((0.5, 0.5), (0.6, -0.8), 0.1, 0)
    xy[:100] = np.nan
    found = measure(xy, (0.5, 0.5), SCREEN)
    assert found.error_deg == pytest.approx(1.0, abs=0.02)
    assert found.offset_deg == pytest.approx((0.6, -0.8), abs=0.02)
    assert found.rms_s2s_deg == pytest.approx(0.2, abs=0.015), "white noise: sqrt(2) sd per axis, two axes"
    assert found.std_deg == pytest.approx(0.1 * math.sqrt(2), abs=0.01)
    assert found.bcea_deg2 == pytest.approx(2 * math.pi * math.log(1 / 0.32) * 0.01, rel=0.12)
    assert found.data_loss == pytest.approx(0.25)


@pytest.mark.parametrize("target", [(0.5, 0.5), (0.1, 0.15), (0.9, 0.85), (0.2, 0.8)])
@pytest.mark.parametrize("seed", range(3))
def test_another_implementation_agrees(target: tuple[float, float], seed: int) -> None:
    xy = noisy(target, (0.4, 0.3), 0.15, seed)
    xy[50:60] = np.nan
    found = measure(xy, target, SCREEN)
    screen = ETDQualitizer.ScreenConfiguration(531.0, 299.0, 1920, 1080, 650.0)
    # Its pixels are counted from the middle of the screen.
    pixels = SCREEN.screen_px_from_normalised(xy - 0.5)
    other = ETDQualitizer.DataQuality(
        pixels[:, 0], pixels[:, 1], np.arange(len(xy)) / 250.0, "pixels", screen
    )
    aim = screen.pix_to_deg(*SCREEN.screen_px_from_normalised(np.array(target) - 0.5))
    assert found.error_deg == pytest.approx(other.accuracy(*aim)[0], abs=1e-3)
    # Precision is taken axis by axis here and in Fick's angles there: equal in the middle, close at the edges.
    assert found.rms_s2s_deg == pytest.approx(other.precision_RMS_S2S()[0], rel=0.04)
    assert found.std_deg == pytest.approx(other.precision_STD()[0], rel=0.04)
    assert found.bcea_deg2 == pytest.approx(other.precision_BCEA()[0], rel=0.08)
    assert found.data_loss == pytest.approx(other.data_loss_from_invalid() / 100)


def test_one_eye_is_enough_where_one_was_chosen() -> None:
    good = noisy((0.3, 0.3), (0.1, 0.0), 0.05, 1)
    bad = noisy((0.3, 0.3), (3.0, 0.0), 0.05, 2)
    both = validation_of([((0.3, 0.3), samples_of(good, bad))], SCREEN)
    left = validation_of([((0.3, 0.3), samples_of(good, bad))], SCREEN, "left")
    assert both.mean_error_deg == pytest.approx(1.55, abs=0.03)
    assert both.verdict == "recalibrate"
    assert left.mean_error_deg == pytest.approx(0.1, abs=0.02)
    assert left.verdict == "pass"
    assert left.targets[0].right.error_deg == pytest.approx(3.0, abs=0.05), (
        "told even where it does not count"
    )


def of(error: float, worst: float | None = None, loss: float = 0.0, rms: float = 0.1) -> Validation:
    def one(value: float) -> Measure:
        return Measure(value, (value, 0.0), rms, 0.1, 0.05, loss)

    from gaze_capture.quality import TargetMeasure

    errors = [error] * 4 if worst is None else [(4 * error - worst) / 3] * 3 + [worst]
    targets = tuple(TargetMeasure(0.2, 0.2, one(value), one(value), one(value)) for value in errors)
    return Validation(targets, "both", 120.0)


@pytest.mark.parametrize(
    ("validation", "verdict"),
    [
        (of(0.3), "pass"),
        (of(0.5), "pass"),
        (of(0.6), "warn"),
        (of(1.01), "recalibrate"),
        (of(0.45, worst=1.2), "warn"),
        (of(0.45, worst=1.6), "recalibrate"),
        (of(0.3, loss=0.15), "warn"),
        (of(0.3, loss=0.25), "recalibrate"),
        (of(0.3, rms=0.4), "warn"),
        (of(0.3, rms=0.9), "warn"),
    ],
)
def test_gates(validation: Validation, verdict: str) -> None:
    assert validation.verdict == verdict


def test_a_target_that_was_never_seen_fails_and_can_be_stored() -> None:
    nothing = np.full((200, 2), np.nan)
    seen = noisy((0.3, 0.3), (0.1, 0.0), 0.05, 1)
    validation = validation_of(
        [((0.3, 0.3), samples_of(seen, seen)), ((0.7, 0.7), samples_of(nothing, nothing))], SCREEN
    )
    assert validation.verdict == "recalibrate"
    assert math.isinf(validation.max_error_deg)
    assert validation.summary(5) is None
    again = Validation.from_json(validation.to_json())
    assert again.targets[0] == validation.targets[0]
    assert math.isnan(again.targets[1].both.error_deg) and again.targets[1].both.data_loss == 1.0


def test_no_samples_at_all() -> None:
    validation = validation_of([((0.5, 0.5), samples_of(np.empty((0, 2)), np.empty((0, 2))))], SCREEN)
    assert validation.verdict == "recalibrate"
    assert validation.data_loss == 1.0
    assert math.isnan(validation.effective_hz)
