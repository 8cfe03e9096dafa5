from __future__ import annotations

import time

import numpy as np
import pytest

from app import windowing
from app.ruler import length_text, scale_bar
from segmentation.intensity import Intensity, shown

RNG = np.random.default_rng(0)
CT = Intensity(1.0, -1024.0, "HU", window=(40.0, 400.0))


@pytest.mark.parametrize("window", [None, (40.0, 400.0), (-600.0, 1500.0), (100.0, 0.001)])
@pytest.mark.parametrize(
    ("stored", "intensity"),
    [
        (RNG.integers(0, 4096, (30, 40, 1)).astype(np.uint16), CT),
        (RNG.integers(0, 4096, (30, 40, 1)).astype(np.uint16), Intensity(-0.5, 900.0)),
        (RNG.normal(50, 300, (30, 40, 1)).astype(np.float32), Intensity(low=-500.0, high=900.0)),
        (RNG.integers(0, 256, (30, 40, 3)).astype(np.uint8), Intensity()),
        (RNG.integers(0, 256, (30, 40, 1)).astype(np.uint8), Intensity()),
    ],
)
def test_what_is_rendered_is_what_the_study_shows(
    stored: np.ndarray[tuple[int, ...], np.dtype[np.uint16]],
    intensity: Intensity,
    window: tuple[float, float] | None,
) -> None:
    made = windowing.rendered(stored, intensity, window)
    assert made.shape == (stored.shape[:2] if stored.shape[2] == 1 else stored.shape)
    wanted = shown(stored, intensity, window)
    assert np.array_equal(made if made.ndim == 3 else np.repeat(made[:, :, None], 3, 2), wanted)


def test_an_eight_bit_image_opens_as_it_is_and_can_be_changed() -> None:
    photo = RNG.integers(0, 256, (20, 20, 3)).astype(np.uint8)
    assert windowing.opened(photo, Intensity()) == windowing.IDENTITY
    assert np.array_equal(windowing.rendered(photo, Intensity(), windowing.IDENTITY), photo)
    brighter = windowing.rendered(photo, Intensity(), (100.0, 255.0))
    assert brighter.mean() > photo.mean()


def test_rewindowing_is_quick() -> None:
    for side, limit_ms in ((512, 10), (2048, 40)):
        stored = RNG.integers(0, 4096, (side, side, 1)).astype(np.uint16)
        windowing.rendered(stored, CT, (40, 400))
        spent = []
        for width in range(300, 320):
            begun = time.perf_counter()
            windowing.rendered(stored, CT, (40, width))
            spent.append((time.perf_counter() - begun) * 1e3)
        assert np.median(spent) < limit_ms


def test_full_range_and_presets() -> None:
    stored = np.array([[[24], [2024]]], dtype=np.uint16)
    assert windowing.full_range(stored, CT) == (0.0, 2000.0)
    assert windowing.full_range(stored, Intensity(-1.0)) == (-1024.0, 2000.0)
    assert windowing.presets("ct", "HU")["Lung"] == (-600.0, 1500.0)
    assert windowing.presets("mr", "") == {}


def test_drags_widen_to_the_right_raise_upwards_and_never_turn_over() -> None:
    assert windowing.dragged((40, 400), 100, 0, 0.4) == (40, 500)
    assert windowing.dragged((40, 400), 0, 10, 0.4) == (50, 400)
    centre, width = windowing.dragged((40, 400), -5000, -10, 0.4)
    assert (centre, width) == (30, 0.4)


def test_windows_and_values_in_words() -> None:
    assert windowing.window_text((40, 400), "HU") == "C 40 W 400 HU"
    assert windowing.window_text((0.25, 0.5), "") == "C 0.25 W 0.50"
    assert windowing.window_text((-0.2, 90.4), "HU") == "C 0 W 90 HU"
    stored = np.array([[[1064], [0]]], dtype=np.uint16)
    assert windowing.value_text(stored, CT, 0, 0) == "40 HU"
    assert windowing.value_text(stored, CT, 1, 0) == "-1024 HU"
    colours = np.array([[[1, 20, 255]]], dtype=np.uint8)
    assert windowing.value_text(colours, Intensity(), 0, 0) == "1 20 255"
    real = np.array([[[0.25]]], dtype=np.float32)
    assert windowing.value_text(real, Intensity(low=0.0, high=1.0), 0, 0) == "0.25"


def test_the_scale_bar_is_round_and_not_too_long() -> None:
    for px_per_mm in np.geomspace(0.02, 500, 60):
        found = scale_bar(float(px_per_mm))
        assert found is not None
        length_mm, length_px = found
        assert length_px == pytest.approx(length_mm * px_per_mm) and 50 < length_px <= 150
        assert f"{length_mm:e}"[0] in "125"
    assert scale_bar(1e-9) is None
    assert (length_text(50.0), length_text(0.5), length_text(0.02)) == ("50 mm", "0.5 mm", "20 µm")
