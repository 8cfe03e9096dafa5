from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from segmentation.images import decode_mask
from segmentation.phantoms import ABSENT_SHARE, KINDS, Kind, Phantom, make_phantom, write_phantoms
from tests.pictures import read_display


def _dice(found: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_]) -> float:
    total = int(found.sum()) + int(true.sum())
    return 2 * int((found & true).sum()) / total if total else 1.0


def _best_threshold_dice(phantoms: list[Phantom]) -> float:
    """Mean Dice of the best single threshold on any channel, chosen with the true masks in hand."""
    best = 0.0
    for channel in range(phantoms[0].image.shape[2]):
        for cut in range(8, 256, 8):
            above = [phantom.image[:, :, channel] > cut for phantom in phantoms]
            for side in (above, [~mask for mask in above]):
                scores = [_dice(found, phantom.mask) for found, phantom in zip(side, phantoms, strict=True)]
                best = max(best, float(np.mean(scores)))
    return best


@pytest.mark.parametrize("kind", KINDS)
def test_types_and_ranges(kind: Kind) -> None:
    phantom = make_phantom(5, kind, 97)
    assert phantom.image.dtype == np.uint8
    assert phantom.image.shape == (97, 97, 1 if kind == "gland" else 3)
    assert phantom.mask.dtype == np.bool_ and phantom.mask.shape == (97, 97)
    assert phantom.image.std() > 15, "an image of one colour would be no phantom"


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_pixels_and_other_seed_others(kind: Kind) -> None:
    first, again, other = make_phantom(3, kind, 96), make_phantom(3, kind, 96), make_phantom(4, kind, 96)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("kind", KINDS)
def test_a_colour_threshold_does_not_solve_them(kind: Kind) -> None:
    phantoms = [make_phantom(seed, kind, 96) for seed in range(60)]
    present = [phantom for phantom in phantoms if phantom.mask.any()]
    assert _best_threshold_dice(present) < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_targets_vary_and_some_are_absent(kind: Kind) -> None:
    masks = [make_phantom(seed, kind, 64).mask for seed in range(200)]
    present = [mask for mask in masks if mask.any()]
    # Binomial: three standard deviations either side.
    spread = 3 * (ABSENT_SHARE * (1 - ABSENT_SHARE) / len(masks)) ** 0.5
    assert abs(1 - len(present) / len(masks) - ABSENT_SHARE) < spread
    areas = np.array([mask.mean() for mask in present])
    assert areas.min() > 0.005 and areas.max() < 0.6
    assert np.quantile(areas, 0.9) > 2.5 * np.quantile(areas, 0.1)
    centres = np.array([np.argwhere(mask).mean(axis=0) / 64 for mask in present])
    assert (centres.std(axis=0) > 0.03).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_does_not_crumble(kind: Kind) -> None:
    """Up to three lesions, one gland, and next to nothing of them in splinters."""
    most = 1 if kind == "gland" else 3
    for seed in range(40):
        mask = make_phantom(seed, kind, 96).mask
        if mask.any():
            _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
            sizes = np.sort(stats[1:, cv2.CC_STAT_AREA])[::-1]
            assert sizes[:most].sum() > 0.97 * sizes.sum(), f"seed {seed} fell apart"


@pytest.mark.parametrize("kind", ("polyp", "lesion"))
def test_some_images_hold_several_lesions(kind: Kind) -> None:
    counts = []
    for seed in range(60):
        mask = make_phantom(seed, kind, 64).mask
        if mask.any():
            counts.append(cv2.connectedComponents(mask.astype(np.uint8))[0] - 1)
    assert 0.25 < np.mean([count > 1 for count in counts]) < 0.75


@pytest.mark.parametrize("kind", KINDS)
def test_drawing_is_quick(kind: Kind) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        make_phantom(0, kind, 192)
        times = []
        for seed in range(12):
            start = time.process_time()
            make_phantom(seed, kind, 192)
            times.append(time.process_time() - start)
    finally:
        cv2.setNumThreads(threads)
    # About 6 to 16 ms; the margin is for a slower machine.
    assert np.median(times) < 0.08


def test_written_folders_hold_the_same_pixels(tmp_path: Path) -> None:
    images, masks = write_phantoms(tmp_path, 7, seed=2, size_px=64)
    names = sorted(path.name for path in images.iterdir())
    assert names == sorted(path.name for path in masks.iterdir()) and len(names) == 7
    for name in names:
        _, kind, index = Path(name).stem.split("-")
        phantom = make_phantom(2 * 10_000_000 + int(index), kind, 64)  # type: ignore[arg-type]
        assert np.array_equal(read_display(images / name), np.broadcast_to(phantom.image, (64, 64, 3)))
        assert np.array_equal(decode_mask(masks / name), phantom.mask)


def test_fewer_phantoms_are_the_first_of_more(tmp_path: Path) -> None:
    few, _ = write_phantoms(tmp_path / "few", 3, seed=1, size_px=48)
    more, _ = write_phantoms(tmp_path / "more", 5, seed=1, size_px=48)
    for path in few.iterdir():
        assert path.read_bytes() == (more / path.name).read_bytes()


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="32"):
        make_phantom(0, "polyp", 16)
    with pytest.raises(ValueError, match="unknown kind"):
        make_phantom(0, "liver")  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_without_a_target_is_a_choice(share: float) -> None:
    absent = np.mean([not make_phantom(seed, "gland", 64, share).mask.any() for seed in range(120)])
    assert absent == pytest.approx(share, abs=3 * (share * (1 - share) / 120) ** 0.5)


def test_a_share_beyond_all_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        make_phantom(0, "gland", 64, 1.5)
