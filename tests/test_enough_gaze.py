from __future__ import annotations

import numpy as np
import pytest

from gaze_capture.fixations import Fixations
from segmentation.dwell import dwell_density, normalise
from segmentation.enough_gaze import EnoughGaze, EnoughRule, meter_for
from segmentation.pseudomask import PseudoMaskSettings, make_pseudomask

SHAPE, SIGMA, LEVELS = (480, 640), (40.0, 40.0), (0.4, 0.25)
RULE = EnoughRule(
    minimum_ms=2000, kernel_ms=0, minimum_fixations=6, look_back_ms=1500, broad_iou=0.85, core_iou=0.6
)


def meter(rule: EnoughRule = RULE) -> EnoughGaze:
    return EnoughGaze(SHAPE, SIGMA, LEVELS, rule)


def test_gaze_that_stays_is_enough_once_there_has_been_the_minimum() -> None:
    found = meter()
    steps = [found.add(300, 200, 250.0) for _ in range(12)]
    first = next(number for number, step in enumerate(steps) if step.enough)
    assert steps[first].dwell_ms >= RULE.minimum_ms and steps[first].fixations >= RULE.minimum_fixations
    assert steps[first].broad_iou == 1 and steps[first].progress == 1
    assert [step.progress for step in steps] == sorted(step.progress for step in steps)
    assert all(step.progress < 1 for step in steps[:first]), "full only when it is"


def test_gaze_that_wanders_is_not_enough_and_a_new_region_takes_it_back() -> None:
    found = meter()
    rng = np.random.default_rng(0)
    for x in np.linspace(60, 600, 25):
        assert not found.add(float(x), float(rng.uniform(60, 420)), 250.0).enough
    found = meter()
    for _ in range(12):
        found.add(150, 150, 250.0)
    assert found.amount.enough
    for _ in range(4):
        found.add(500, 380, 400.0)
    assert not found.amount.enough and found.amount.progress < 0.9


def test_a_larger_region_takes_more_dwell() -> None:
    rule = EnoughRule(2000, 800, 6, 1500, 0.01, 0.01, 1)

    def dwell(spread: float) -> float:
        rng = np.random.default_rng(3)
        found = EnoughGaze(SHAPE, SIGMA, LEVELS, rule)
        while not found.amount.enough:
            x, y = rng.normal([320, 240], spread).tolist()
            found.add(x, y, 200.0)
        return found.amount.dwell_ms

    assert dwell(60) > dwell(1) + 1000


def test_fixations_beside_the_image_change_nothing() -> None:
    found = meter()
    found.add(300, 200, 250.0)
    before = found.amount
    for x, y in ((-1, 200), (640, 200), (300, 480), (300, -0.6)):
        assert found.add(x, y, 900.0) is before


@pytest.mark.parametrize(
    ("shape", "sigma"), [((480, 640), 40.0), ((1536, 2048), 130.0), ((60, 90), 6.0), ((2000, 100), 30.0)]
)
def test_the_coarse_map_is_the_heatmap_of_pseudomasks(shape: tuple[int, int], sigma: float) -> None:
    rng = np.random.default_rng(1)
    height, width = shape
    xy = rng.uniform([0.3 * width, 0.3 * height], [0.7 * width, 0.7 * height], (12, 2))
    duration = rng.uniform(100, 600, 12)
    found = EnoughGaze(shape, (sigma, sigma), LEVELS)
    for (x, y), length in zip(xy.tolist(), duration.tolist(), strict=True):
        found.add(x, y, length)
    whole = normalise(dwell_density(xy, duration, np.full((12, 2), sigma), shape))
    rows, columns = found._density.shape
    assert max(rows, columns) <= 96
    y = np.rint(found._rows).astype(int).clip(0, height - 1)
    x = np.rint(found._columns).astype(int).clip(0, width - 1)
    coarse = normalise(found._density)
    assert np.abs(coarse - whole[np.ix_(y, x)]).mean() < 0.03


def test_a_studys_meter_has_the_masks_that_its_pseudomasks_have() -> None:
    rng = np.random.default_rng(2)
    xy = rng.normal([300, 220], 50, (15, 2))
    duration = rng.uniform(150, 500, 15)
    for degrees, accuracy in ((0.04, 0.6), (None, None)):
        gaze = Fixations(
            "a", "target", "ann", "rec", np.cumsum(duration), duration, xy, np.zeros(15), "test",
            degrees_per_px=degrees, accuracy_deg=accuracy,
        )  # fmt: skip
        settings = PseudoMaskSettings("degrees", refine="none")
        made = make_pseudomask(np.zeros((*SHAPE, 3), np.float32), [gaze], settings, "target")
        assert made is not None
        found = meter_for(settings, SHAPE, degrees, accuracy)
        for (x, y), length in zip(xy.tolist(), duration.tolist(), strict=True):
            found.add(x, y, length)
        core, broad = found._past[-1][1:]
        assert core.mean() == pytest.approx(made.masks[0].mean(), rel=0.05)
        assert broad.mean() == pytest.approx(made.masks[-1].mean(), rel=0.05)
