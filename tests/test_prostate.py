"""The made-up prostate: nested zones, told by brightness, with empty ends; as slices and as NIfTI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segmentation.images import read_stored
from segmentation.prostate import SPACING_MM, make_prostate
from tests.volume_helpers import prostate_study, write_prostate


@pytest.mark.parametrize("seed", range(4))
def test_zones_nest_and_the_ends_are_empty(seed: int) -> None:
    one = make_prostate(seed)
    assert one.volume.shape == one.gland.shape == one.central.shape == (24, 128, 128)
    assert one.volume.dtype == np.uint16 and one.spacing_mm == SPACING_MM
    assert not (one.central & ~one.gland).any()
    held = np.flatnonzero(one.gland.any(axis=(1, 2)))
    assert 10 <= len(held) <= 18 and held.min() >= 2 and held.max() <= 21
    assert (np.diff(held) == 1).all(), "one run of slices"
    assert all(one.central[index].any() for index in held)
    assert 0.2 < one.central.sum() / one.gland.sum() < 0.6
    peripheral = one.volume[one.gland & ~one.central].mean()
    assert peripheral > 1.4 * one.volume[one.central].mean()
    millilitres = one.gland.sum() * np.prod(one.spacing_mm) / 1000
    assert 15 < millilitres < 90


def test_same_seed_same_voxels_and_other_seed_others() -> None:
    shape = (10, 64, 64)
    first, again, other = make_prostate(1, shape), make_prostate(1, shape), make_prostate(2, shape)
    np.testing.assert_array_equal(first.volume, again.volume)
    assert (first.gland != other.gland).any()


@pytest.mark.parametrize("shape", [(4, 128, 128), (24, 128, 96), (24, 32, 32)])
def test_shapes_without_room_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="square slices"):
        make_prostate(0, shape)


def test_neighbouring_slices_look_alike() -> None:
    masks = make_prostate(5).gland
    held = np.flatnonzero(masks.any(axis=(1, 2)))
    middle = held[len(held) // 4 : -len(held) // 4]
    overlaps = [
        2 * (masks[k] & masks[k + 1]).sum() / (masks[k].sum() + masks[k + 1].sum()) for k in middle[:-1]
    ]
    assert min(overlaps) > 0.85


def test_a_study_of_slices_keeps_the_volume(tmp_path: Path) -> None:
    study = prostate_study(tmp_path / "s", {"train": [0], "test": [1]}, (8, 64, 64))
    (name, image_ids), *_ = study.volumes.items()
    assert len(image_ids) == 8 and study.volume(name).slice_spacing_mm == 3.0
    one = make_prostate(0, (8, 64, 64))
    for index, image_id in enumerate(image_ids):
        image = study.image(image_id)
        assert image.slice_index == index
        np.testing.assert_array_equal(read_stored(study.image_path(image))[..., 0], one.volume[index])
        truth = study.true_mask(image_id, "central")
        assert truth is not None
        np.testing.assert_array_equal(truth, one.central[index])
    assert study.network_input(study.image(image_ids[4]), {"mr": "z-score"}).std() > 20


def test_nifti_files_hold_the_same(tmp_path: Path) -> None:
    import nibabel

    one = make_prostate(2, (8, 64, 64))
    volume, gland, _ = write_prostate(tmp_path, one)
    read = nibabel.load(volume)
    assert read.header.get_zooms() == pytest.approx((0.6, 0.6, 3.0))
    np.testing.assert_array_equal(np.asarray(read.dataobj).transpose(2, 1, 0), one.volume)
    np.testing.assert_array_equal(np.asarray(nibabel.load(gland).dataobj).transpose(2, 1, 0), one.gland)
