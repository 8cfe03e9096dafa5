"""Heatmaps are scipy's to the last digits, levels nest, refiners hold to the image."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from segmentation.dwell import dwell_density, normalise
from segmentation.pseudomask import (
    PRESETS,
    Pool,
    PseudoMask,
    PseudoMaskSettings,
    levels_of,
    make_pseudomask,
)
from segmentation.refine import centred, dense_crf, refine
from segmentation.spread import spread_factor


def fixations(xy: list[list[float]], **changes: object) -> Fixations:
    count = len(xy)
    values: dict[str, object] = {
        "image_id": "a",
        "target_id": "target",
        "annotator": "ann",
        "source": "rec-1",
        "start_ms": np.arange(count) * 300.0,
        "duration_ms": np.full(count, 200.0),
        "xy_px": np.asarray(xy, dtype=float).reshape(-1, 2),
        "dispersion_deg": np.full(count, 0.2),
        "detector": "test",
        "degrees_per_px": 0.1,
    }
    return Fixations(**(values | changes))  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(5, 90),
    width=st.integers(5, 90),
    sigma_x=st.floats(0.6, 60),
    sigma_y=st.floats(0.6, 60),
)
def test_density_equals_the_blurred_grid(
    seed: int, height: int, width: int, sigma_x: float, sigma_y: float
) -> None:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 1, (6, 2)) * [width - 1, height - 1]
    duration = rng.uniform(50, 900, 6)
    grid = np.zeros((height, width))
    np.add.at(grid, tuple(np.rint(xy[:, ::-1]).astype(int).T), duration)
    density = dwell_density(xy, duration, np.tile([sigma_x, sigma_y], (6, 1)), grid.shape)
    np.testing.assert_allclose(density, gaussian_filter(grid, (sigma_y, sigma_x)), rtol=1e-9, atol=1e-12)
    # Reflection keeps every millisecond on the image.
    assert density.sum() == pytest.approx(duration.sum())


def test_the_published_grid() -> None:
    rng = np.random.default_rng(1)
    xy, duration = rng.uniform(0, 767, (25, 2)), rng.lognormal(5.5, 0.5, 25)
    grid = np.zeros((768, 768))
    np.add.at(grid, tuple(np.rint(xy[:, ::-1]).astype(int).T), duration)
    ours = normalise(dwell_density(xy, duration, np.full((25, 2), 70.0), grid.shape))
    assert np.abs(ours - normalise(gaussian_filter(grid, 70))).max() < 1e-5


@given(
    seed=st.integers(0, 1000),
    thresholds=st.sets(st.sampled_from([0.1, 0.2, 0.35, 0.5, 0.7, 0.9]), min_size=1),
)
@settings(max_examples=30, deadline=None)
def test_levels_nest_and_equal_their_thresholds(seed: int, thresholds: set[float]) -> None:
    heatmap = np.random.default_rng(seed).random((12, 9)).astype(np.float32)
    descending = tuple(sorted(thresholds, reverse=True))
    pseudomask = PseudoMask(
        image_id="a", target_id="t", annotators=(), sources=(), xy_px=np.empty((0, 2)), duration_ms=np.empty(0),
        sigma_px=np.empty((0, 2)), degrees_per_px=None, heatmap=heatmap, thresholds=descending,
        level_map=levels_of(heatmap, descending), refiner="none",
    )  # fmt: skip
    for mask, threshold in zip(pseudomask.masks, descending, strict=True):
        np.testing.assert_array_equal(mask, heatmap >= np.float32(threshold))
    assert all(
        (inner <= outer).all() for inner, outer in zip(pseudomask.masks, pseudomask.masks[1:], strict=False)
    )


def test_only_fixations_on_the_image_after_its_onset_count() -> None:
    image = np.zeros((40, 60, 3), dtype=np.float32)
    looked = fixations(
        [[30, 20], [-5, 20], [30, 40], [10, 10], [50, 30]],
        start_ms=np.array([100.0, 400, 700, -50, 1000]),
        duration_ms=np.array([200.0, 200, 200, 200, 30]),
    )
    made = make_pseudomask(
        image, [looked], PseudoMaskSettings("degrees", refine="none", sigma_deg=0.4), "target"
    )
    assert made is not None
    np.testing.assert_array_equal(made.xy_px, [[30, 20]])
    assert divmod(int(made.heatmap.argmax()), 60) == (20, 30)
    nothing = fixations([[100, 100]])
    assert make_pseudomask(image, [nothing], PseudoMaskSettings(), "target") is None
    assert make_pseudomask(image, [fixations([])], PseudoMaskSettings(), "target") is None


def test_sigma_grows_with_the_trackers_error_and_levels_follow_it() -> None:
    image = np.zeros((100, 100, 1), dtype=np.float32)
    plain = PseudoMaskSettings("degrees", refine="none", sigma_deg=1.0)
    sharp = make_pseudomask(image, [fixations([[50, 50]])], plain, "target")
    vague = make_pseudomask(image, [fixations([[50, 50]], accuracy_deg=1.0)], plain, "target")
    assert sharp is not None and vague is not None
    np.testing.assert_allclose(sharp.sigma_px, 10.0)
    np.testing.assert_allclose(vague.sigma_px, 10.0 * np.sqrt(2))
    imported = make_pseudomask(
        image, [fixations([[50, 50]], degrees_per_px=None)], PseudoMaskSettings("degrees"), "target"
    )
    assert imported is not None
    np.testing.assert_allclose(imported.sigma_px, 6.0)
    assert imported.thresholds == PRESETS["fraction"].centred_thresholds
    assert imported.degrees_per_px is None


def test_annotators_are_pooled_and_dwell_has_a_unit() -> None:
    image = np.zeros((80, 80, 1), dtype=np.float32)
    looks = [fixations([[40, 40]]), fixations([[20, 60]], annotator="b", simulated_from="masks")]
    made = make_pseudomask(image, looks, PseudoMaskSettings("degrees", refine="none"), "target")
    assert made is not None
    assert made.annotators == ("ann", "b")
    assert made.simulated_from == "masks"
    # ms/deg^2 over the image's area in deg^2 gives back the 400 ms looked.
    assert made.dwell.sum() * 0.1**2 == pytest.approx(400, rel=1e-5)


def two_annotators() -> list[Fixations]:
    """Return gaze of one who looked at the left for 1 s, and of one who looked at the right for 9 s."""
    places = [[20.0, 30.0], [22.0, 31.0]], [[70.0, 30.0], [72.0, 31.0]]
    return [
        fixations(
            places[number],
            annotator=annotator,
            source=f"rec-{number}",
            duration_ms=np.full(2, duration),
            degrees_per_px=0.3,
        )
        for number, (annotator, duration) in enumerate((("quick", 500.0), ("slow", 4500.0)))
    ]


def test_the_mean_gives_each_annotator_the_same_weight(tmp_path: Path) -> None:
    image = np.zeros((60, 90, 1), dtype=np.float32)

    def peaks(pool: Pool) -> tuple[float, float]:
        made = make_pseudomask(
            image, two_annotators(), PseudoMaskSettings("degrees", refine="none", pool=pool), "target"
        )
        assert made is not None
        return float(made.heatmap[:, :45].max()), float(made.heatmap[:, 45:].max())

    # In the sum, who looks nine times as long leaves the other below every level.
    assert peaks("sum")[0] < 0.2
    assert peaks("mean") == pytest.approx((1.0, 1.0), abs=0.01)

    made = make_pseudomask(
        image, two_annotators(), PseudoMaskSettings("degrees", refine="none", pool="mean"), "target"
    )
    assert made is not None and made.weight is not None
    assert made.notes["pool"] == "mean"
    assert made.notes["weights"] == {"quick": pytest.approx(5.0), "slow": pytest.approx(5 / 9)}
    # Durations stay what they were; the dwell is what the heatmap was made of, its total unchanged.
    np.testing.assert_array_equal(made.duration_ms, [500, 500, 4500, 4500])
    total_ms = made.dwell.sum() * 0.3**2
    assert total_ms == pytest.approx(10_000, rel=1e-4)
    np.testing.assert_allclose(normalise(made.dwell.astype(float)), made.heatmap, atol=1e-5)
    again = PseudoMask.from_bytes(made.to_bytes(), tmp_path)
    assert again.notes == made.notes
    np.testing.assert_array_equal(again.weight, made.weight)


def test_pooling_changes_nothing_for_one_annotator_and_is_a_sum_by_default() -> None:
    image = np.zeros((60, 90, 1), dtype=np.float32)
    alone = two_annotators()[:1]
    one = make_pseudomask(image, alone, PseudoMaskSettings("degrees", refine="none"), "target")
    mean = make_pseudomask(image, alone, PseudoMaskSettings("degrees", refine="none", pool="mean"), "target")
    assert one is not None and mean is not None
    np.testing.assert_array_equal(one.heatmap, mean.heatmap)
    assert one.to_bytes() == mean.to_bytes()
    assert "pool" not in one.notes and one.weight is None
    both = make_pseudomask(image, two_annotators(), PseudoMaskSettings("degrees", refine="none"), "target")
    assert both is not None and both.notes["pool"] == "sum" and both.weight is None


def test_a_third_sitting_of_one_annotator_is_not_a_third_annotator() -> None:
    image = np.zeros((60, 90, 1), dtype=np.float32)
    gaze = [
        *two_annotators(),
        fixations([[70.0, 30.0]], annotator="slow", source="rec-9", degrees_per_px=0.3),
    ]
    made = make_pseudomask(image, gaze, PseudoMaskSettings("degrees", refine="none", pool="mean"), "target")
    assert made is not None and made.weight is not None
    weighted = made.weight * made.duration_ms
    assert weighted[:2].sum() == pytest.approx(weighted[2:].sum())


def test_pools_and_annotators_are_stored_with_the_settings() -> None:
    settings = PseudoMaskSettings(pool="mean", annotators=("A", "B"))
    assert PseudoMaskSettings.from_json(settings.to_json()) == settings
    # As studies wrote them before there was a choice.
    old = {k: v for k, v in PseudoMaskSettings().to_json().items() if k not in ("pool", "annotators")}
    assert PseudoMaskSettings.from_json(old) == PseudoMaskSettings()
    with pytest.raises(UserError, match="no way 'median'"):
        PseudoMaskSettings(pool="median")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="name at least one"):
        PseudoMaskSettings(annotators=())


def test_storing_keeps_everything(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((40, 50, 3)).astype(np.float32)
    made = make_pseudomask(image, [fixations([[10, 10], [30, 20]])], PseudoMaskSettings(), "target")
    assert made is not None
    data = made.to_bytes()
    again = PseudoMask.from_bytes(data, tmp_path / "x.npz")
    np.testing.assert_array_equal(again.level_map, made.level_map)
    np.testing.assert_allclose(again.heatmap, made.heatmap, atol=1e-5)
    np.testing.assert_allclose(again.dwell, made.dwell)
    assert (again.thresholds, again.sources, again.refiner) == (made.thresholds, made.sources, made.refiner)
    for cut in (0, 10, len(data) // 2, len(data) - 5):
        with pytest.raises(UserError, match=r"x\.npz is damaged"):
            PseudoMask.from_bytes(data[:cut], tmp_path / "x.npz")


def test_the_centre_is_where_inside_and_outside_are_as_likely() -> None:
    heat = np.array([[0.0, 0.1, 0.2, 0.35, 1.0]], dtype=np.float32)
    found = centred(heat, 0.2, weight=0.5)
    assert found[0, 2] == pytest.approx(0.5)
    assert (np.diff(found[0]) > 0).all()
    np.testing.assert_allclose(centred(heat, 0.5, weight=1.0), np.clip(heat, 1e-5, 1 - 1e-5), rtol=1e-5)


def test_the_published_crf_names_its_extra_or_is_like_ours() -> None:
    image = np.random.default_rng(0).random((40, 40, 1)).astype(np.float32)
    heat = np.exp(-((np.mgrid[0:40, 0:40] - 20.0) ** 2).sum(axis=0) / 100).astype(np.float32)
    if importlib.util.find_spec("pydensecrf") is None:
        with pytest.raises(UserError, match=r"gaze-insight\[crf\]"):
            refine("pydensecrf", image, heat)
        return
    refined = refine("pydensecrf", image, heat)
    assert refined.shape == heat.shape
    # It has no border to find in noise, and leaves the peak where it was.
    assert refined[20, 20] > 0.9 > 0.1 > refined[0, 0]


def test_the_kernel_follows_how_far_fixations_lie_apart() -> None:
    rng = np.random.default_rng(0)
    directions = rng.normal(0, 1, (30, 2))
    given = np.full((30, 2), 10.0)

    def factor(reach: float) -> float:
        return spread_factor(directions * reach, given)

    assert factor(3) == 0.5 < factor(15) < factor(25) < factor(500) == 2.2
    # As a power of the distance: twice as far apart is 2^0.7 times as wide.
    assert factor(30) / factor(20) == pytest.approx(1.5**0.7)
    # A few that went elsewhere change little, and a squashed image nothing.
    strayed = np.concatenate([directions[:27] * 20, [[900.0, 0], [0, 900], [-900, 0]]])
    assert spread_factor(strayed, given) == pytest.approx(factor(20), rel=0.2)
    assert spread_factor(directions * [20, 5], given * [1, 0.25]) == pytest.approx(factor(20))
    assert spread_factor(directions[:3] * 500, given[:3]) == 1


def test_a_widely_looked_over_lesion_has_a_wider_kernel() -> None:
    image = np.zeros((200, 200, 1), dtype=np.float32)
    rng = np.random.default_rng(1)
    places = rng.normal(0, 1, (25, 2))
    wide, narrow = (
        make_pseudomask(
            image,
            [fixations((places * reach + 100).tolist(), duration_ms=rng.uniform(100, 900, 25))],
            PseudoMaskSettings("spread", refine="none"),
            "target",
        )
        for reach in (35.0, 4.0)
    )
    assert wide is not None and narrow is not None
    assert wide.sigma_px.min() > 12.5 > narrow.sigma_px.max()
    # The dwell is in milliseconds all the same.
    assert wide.dwell.sum() * 0.1**2 == pytest.approx(wide.duration_ms.sum(), rel=1e-4)


def test_the_crf_equals_the_full_pairwise_sum() -> None:
    rng = np.random.default_rng(3)
    image = np.repeat((np.arange(20) > 9)[None, :, None], 16, axis=0) * np.float32(0.4) + np.float32(0.3)
    image = np.clip(image + rng.normal(0, 0.02, image.shape), 0, 1).astype(np.float32)
    heat = rng.uniform(0.05, 0.95, (16, 20)).astype(np.float32)
    ys, xs = np.mgrid[0:16, 0:20]
    places = np.column_stack([xs.ravel(), ys.ravel()]) / (0.3 * 20)
    colours = image.reshape(-1, 1) * 255 / 13
    features = np.concatenate([places, colours], axis=1)
    kernel = np.exp(-0.5 * ((features[:, None] - features[None]) ** 2).sum(axis=2))
    scale = 1 / np.sqrt(kernel.sum(axis=1))
    kernel = kernel * scale[:, None] * scale[None]
    unary = np.log(heat.ravel() / (1 - heat.ravel()))
    belief = heat.ravel().astype(np.float64)
    for _ in range(5):
        belief = 1 / (1 + np.exp(-(unary + kernel @ (2 * belief - 1))))
    ours = dense_crf(image, heat, sigma_xy=0.3)
    assert np.abs(ours.ravel() - belief).max() < 0.03


@pytest.mark.parametrize(("name", "gain"), [("crf", 0.05), ("centred-crf", 0.05), ("diffusion", 0.04)])
def test_refiners_move_a_border_to_the_edge(name: str, gain: float) -> None:
    rows, columns = np.mgrid[0:96, 0:96]
    disc = (rows - 48) ** 2 + (columns - 48) ** 2 < 22**2
    noise = np.random.default_rng(0).normal(0, 0.02, (96, 96, 3))
    image = np.clip(np.where(disc, 0.7, 0.4)[..., None] + noise, 0, 1).astype(np.float32)
    heat = np.exp(-((rows - 44) ** 2 + (columns - 52) ** 2) / (2 * 16.0**2)).astype(np.float32)

    def best_dice(candidate: npt.NDArray[np.float32]) -> float:
        masks = [candidate >= level for level in np.arange(0.05, 0.95, 0.05)]
        return max(2 * float((mask & disc).sum()) / float(mask.sum() + disc.sum()) for mask in masks)

    assert best_dice(refine(name, image, heat)) > best_dice(heat) + gain
    np.testing.assert_array_equal(refine("none", image, heat), heat)


@pytest.mark.parametrize("name", ["crf", "centred-crf", "diffusion"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 3), (700, 3, 1), (600, 900, 3)])
def test_refiners_take_any_size(name: str, shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    heat = np.random.default_rng(1).random(shape[:2]).astype(np.float32)
    refined = refine(name, image, heat)
    assert refined.shape == heat.shape
    assert np.isfinite(refined).all()
    assert 0 <= refined.min() <= refined.max() <= 1
