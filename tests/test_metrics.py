import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.spatial.distance import cdist

from segmentation.metrics import (
    ImageMetrics,
    Mask,
    asd,
    assd,
    dice,
    hd95,
    image_metrics,
    iou,
    volume_metrics,
    volume_surface,
)


def blobs(seed: int, shape: tuple[int, int] = (40, 56), sigma: float = 3) -> Mask:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    mask: Mask = noise > 0.15 / sigma
    return mask


def brute_force(prediction: Mask, truth: Mask, spacing: tuple[float, float]) -> tuple[float, float, float]:
    own, true = (np.argwhere(mask & ~binary_erosion(mask)) * spacing for mask in (prediction, truth))
    distances = cdist(own, true)
    there, back = distances.min(1), distances.min(0)
    pooled = np.percentile(np.concatenate([there, back]), 95)
    return float(pooled), float(there.mean()), float((there.mean() + back.mean()) / 2)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.4, 1.7)])
@pytest.mark.parametrize("seed", range(5))
def test_distances_equal_brute_force(seed: int, spacing: tuple[float, float]) -> None:
    prediction, truth = blobs(seed), blobs(seed + 100)
    measured = image_metrics(prediction, truth, spacing)
    assert (measured.hd95, measured.asd, measured.assd) == pytest.approx(
        brute_force(prediction, truth, spacing)
    )
    assert hd95(prediction, truth, spacing) == measured.hd95
    assert asd(prediction, truth, spacing) == measured.asd
    assert assd(prediction, truth, spacing) == measured.assd


def test_overlaps_of_known_squares() -> None:
    prediction, truth = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    prediction[2:6, 2:6] = True
    truth[4:8, 2:6] = True
    measured = image_metrics(prediction, truth)
    assert measured.dice == pytest.approx(0.5) == dice(prediction, truth)
    assert measured.iou == pytest.approx(8 / 24) == iou(prediction, truth)
    assert measured.miou == pytest.approx((8 / 24 + 76 / 92) / 2)
    # The square two pixels above: its two upper rows' surface is 2 and 1 from the other's edge, and so on.
    assert measured.assd == pytest.approx(measured.asd)


def test_directed_distance_tells_the_directions_apart() -> None:
    truth = np.zeros((20, 20), bool)
    truth[5:10, 5:10] = True
    prediction = truth.copy()
    prediction[18, 18] = True
    assert asd(prediction, truth) > 0
    assert asd(truth, prediction) == 0


def test_both_empty_agree_and_one_empty_is_the_diagonal_away() -> None:
    nothing, something = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    something[3:5, 3:5] = True
    assert image_metrics(nothing, nothing) == ImageMetrics(1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
    for first, second in ((nothing, something), (something, nothing)):
        measured = image_metrics(first, second)
        assert (measured.dice, measured.iou) == (0.0, 0.0)
        assert (measured.hd95, measured.asd, measured.assd) == (50.0, 50.0, 50.0)
    assert image_metrics(nothing, something, (2.0, 2.0)).hd95 == 100.0


def test_a_mask_at_the_edge_has_surface_there() -> None:
    everything = np.ones((12, 12), bool)
    inner = np.zeros((12, 12), bool)
    inner[1:11, 1:11] = True
    assert asd(everything, inner) == pytest.approx(brute_force(everything, inner, (1.0, 1.0))[1])
    assert asd(everything, inner) >= 1.0


def test_other_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be held against"):
        image_metrics(np.zeros((3, 3), bool), np.zeros((4, 3), bool))


def test_speed(benchmark: object) -> None:
    prediction, truth = blobs(1, (512, 512), 40), blobs(2, (512, 512), 40)
    benchmark(image_metrics, prediction, truth)  # type: ignore[operator]


# Volumes


def solid(seed: int) -> Mask:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(9, 20, 24)), (1.2, 3, 3))
    mask: Mask = noise > 0.02
    return mask


@pytest.mark.parametrize("seed", range(3))
def test_volume_distances_equal_brute_force_in_mm(seed: int) -> None:
    prediction, truth, spacing = solid(seed), solid(seed + 50), (3.0, 0.6, 0.7)
    measured = volume_metrics(prediction, truth, spacing)
    own, true = (np.argwhere(mask & ~binary_erosion(mask)) * spacing for mask in (prediction, truth))
    distances = cdist(own, true)
    there, back = distances.min(1), distances.min(0)
    assert measured.hd95_mm == pytest.approx(np.percentile(np.concatenate([there, back]), 95))
    assert measured.assd_mm == pytest.approx((there.mean() + back.mean()) / 2)
    assert measured.dice == pytest.approx(dice(prediction, truth))


def test_a_shifted_box_is_as_far_off_as_it_was_shifted() -> None:
    truth = np.zeros((8, 20, 20), np.bool_)
    truth[2:6, 5:15, 5:15] = True
    assert volume_metrics(truth, truth, (3.0, 0.5, 0.5)).hd95_mm == 0
    up = volume_metrics(np.roll(truth, 1, axis=0), truth, (3.0, 0.5, 0.5))
    assert up.hd95_mm == pytest.approx(3.0)
    assert up.dice == pytest.approx(0.75)
    assert np.isnan(volume_metrics(truth, truth).hd95_mm), "no spacing, no millimetres"


def test_empty_volumes() -> None:
    empty, full = np.zeros((4, 6, 8), np.bool_), np.ones((4, 6, 8), np.bool_)
    both = volume_metrics(empty, empty, (2.0, 1.0, 1.0))
    assert (both.dice, both.hd95_mm, both.assd_mm) == (1.0, 0.0, 0.0)
    one = volume_metrics(empty, full, (2.0, 1.0, 1.0))
    assert one.dice == 0 and one.hd95_mm == pytest.approx(np.sqrt(8**2 + 6**2 + 8**2))
    with pytest.raises(ValueError, match="cannot be held against"):
        volume_metrics(empty, full[:3])


def test_slices_without_truth_neither_count_nor_make_a_surface() -> None:
    truth = np.zeros((7, 12, 12), np.bool_)
    truth[:, 3:9, 3:9] = True
    known = np.array([True, True, True, False, True, True, True])
    hole = truth.copy()
    hole[3] = False
    inside = volume_surface(hole, known)
    assert not inside[2, 5, 5] and not inside[4, 5, 5], "beside an unknown slice nothing ends"
    assert inside[0, 5, 5] and inside[6, 5, 5], "at the volume's ends it does"
    prediction = hole.copy()
    prediction[3] = True
    assert volume_metrics(prediction, hole, (1.0, 1.0, 1.0), known).dice == 1.0
