"""Masks on other grids: flips, permutations, fewer slices exactly; others resampled or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from gaze_capture.errors import UserError
from segmentation.readers.grids import planes_on
from segmentation.readers.nifti import read_nifti, read_nifti_labels
from segmentation.readers.volumes import as_tuple
from segmentation.stacks import LabelMap, Plane, Stack

SIZES = (12, 10, 8)
TURN = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
AFFINE = np.eye(4)
AFFINE[:3, :3] = TURN @ np.diag([1.5, 1.5, 3.0])
AFFINE[:3, 3] = [-20, 7, 31]


def truth() -> np.ndarray[Any, Any]:
    values = np.zeros(SIZES, np.uint8)
    values[2:6, 3:9, 1:5] = 1
    values[8:11, 1:4, 4:7] = 2
    return values


def saved(path: Path, values: np.ndarray[Any, Any], affine: Any = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def expected(image: Stack, label: int, number: int) -> Any:
    """Cut the truth as the image is cut: axial, shown with the patient's right on the left."""
    assert image.header["axis"] == 2
    return truth()[::-1, ::-1, number].T == label


def test_masks_stored_along_other_axes_come_back_exactly(tmp_path: Path) -> None:
    image = read_nifti(saved(tmp_path / "scan.nii", truth()))
    for codes in ("RAS", "LPS", "SLP", "AIR", "PSL"):
        change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
        values = nib.orientations.apply_orientation(truth(), change)
        path = saved(tmp_path / "mask.nii.gz", values, AFFINE @ inv_ornt_aff(change, SIZES))
        for axis in (0, 1, 2):
            fitted = planes_on(image, read_nifti_labels(path, axis))
            assert (fitted.exact, fitted.note) == (True, "")
            for label in (1, 2):
                for number in range(image.count):
                    np.testing.assert_array_equal(fitted(number, label), expected(image, label, number))


def test_masks_of_some_slices_are_placed_and_the_rest_is_empty(tmp_path: Path) -> None:
    image = read_nifti(saved(tmp_path / "scan.nii", truth()))
    moved = AFFINE.copy()
    moved[:3, 3] += AFFINE[:3, 2] * 2
    labels = read_nifti_labels(saved(tmp_path / "mask.nii", truth()[:, :, 2:6], moved), 2)
    fitted = planes_on(image, labels)
    assert (fitted.exact, fitted.note) == (True, "")
    for number in range(8):
        wanted = expected(image, 1, number) if 2 <= number < 6 else np.zeros((10, 12), bool)
        np.testing.assert_array_equal(fitted(number, 1), wanted)


def test_masks_of_more_slices_are_cut(tmp_path: Path) -> None:
    moved = AFFINE.copy()
    moved[:3, 3] += AFFINE[:3, 2] * 2
    image = read_nifti(saved(tmp_path / "scan.nii", truth()[:, :, 2:6], moved), 2)
    fitted = planes_on(image, read_nifti_labels(saved(tmp_path / "mask.nii", truth()), 2))
    assert fitted.exact
    np.testing.assert_array_equal(fitted(1, 1), expected(image, 1, 3))


def test_a_single_slice_finds_its_mask_in_a_volume(tmp_path: Path) -> None:
    moved = AFFINE.copy()
    moved[:3, 3] += AFFINE[:3, 2] * 4
    moved[:3, 2] *= 5
    image = read_nifti(saved(tmp_path / "scan.nii", truth()[:, :, 4:5], moved), 2)
    fitted = planes_on(image, read_nifti_labels(saved(tmp_path / "mask.nii", truth()), 2))
    assert fitted.exact
    np.testing.assert_array_equal(fitted(0, 2), expected(image, 2, 4))


def test_rounding_of_an_affine_is_no_other_grid(tmp_path: Path) -> None:
    image = read_nifti(saved(tmp_path / "scan.nii", truth()))
    labels = read_nifti_labels(saved(tmp_path / "mask.nii", truth(), AFFINE + 0.0002), 2)
    assert planes_on(image, labels).exact


@pytest.mark.parametrize("shift", [0.2, 0.5, -0.4])
def test_half_a_voxel_off_is_resampled_with_a_note(tmp_path: Path, shift: float) -> None:
    image = read_nifti(saved(tmp_path / "scan.nii", truth()))
    moved = AFFINE.copy()
    moved[:3, 3] += AFFINE[:3, 0] * shift
    fitted = planes_on(image, read_nifti_labels(saved(tmp_path / "mask.nii", truth(), moved), 2))
    assert not fitted.exact
    assert "resampled" in fitted.note
    found, wanted = fitted(3, 1), expected(image, 1, 3)
    # Without gaps: the same shape, at most one column away.
    assert abs(int(found.sum()) - int(wanted.sum())) == 0
    assert int((found & wanted).sum()) >= int(wanted.sum()) * 3 // 4


def test_a_finer_grid_is_resampled_with_a_note(tmp_path: Path) -> None:
    image = read_nifti(saved(tmp_path / "scan.nii", truth()))
    fine = AFFINE.copy()
    fine[:3, :2] /= 2
    fine[:3, 3] -= AFFINE[:3, :2].sum(axis=1) / 4
    values = truth().repeat(2, axis=0).repeat(2, axis=1)
    fitted = planes_on(image, read_nifti_labels(saved(tmp_path / "mask.nii", values, fine), 2))
    assert "resampled" in fitted.note
    assert "cover" not in fitted.note
    np.testing.assert_array_equal(fitted(3, 1), expected(image, 1, 3))


def test_partial_cover_is_told_and_another_place_refused(tmp_path: Path) -> None:
    image = read_nifti(saved(tmp_path / "scan.nii", truth()))
    moved = AFFINE.copy()
    moved[:3, 3] += AFFINE[:3, 0] * 6
    assert (
        "cover 50 %"
        in planes_on(image, read_nifti_labels(saved(tmp_path / "mask.nii", truth(), moved), 2)).note
    )
    moved[:3, 3] += AFFINE[:3, 0] * 600
    with pytest.raises(UserError, match="lies elsewhere"):
        planes_on(image, read_nifti_labels(saved(tmp_path / "mask.nii", truth(), moved), 2))


def test_masks_no_larger_than_what_is_marked_are_found_in_a_large_image(tmp_path: Path) -> None:
    # 3D Slicer saves segmentations so.
    image = read_nifti(saved(tmp_path / "scan.nii", np.zeros((300, 300, 4), np.int16)), 2)
    small = AFFINE.copy()
    small[:3, 3] = (AFFINE @ [103, 107, 2, 1])[:3]
    fitted = planes_on(
        image, read_nifti_labels(saved(tmp_path / "mask.nii", np.ones((3, 2, 1), np.int16), small), 2)
    )
    assert fitted.exact
    assert [int(fitted(number, 1).sum()) for number in range(4)] == [0, 0, 6, 0]


def image_of(count: int = 2, size: tuple[int, int] = (4, 5), ids: tuple[str, ...] = ()) -> Stack:
    plane = Plane(np.zeros((*size, 1), np.uint8))
    return Stack("scan", (), (*size, 1), count, lambda number: plane, source_ids=ids)


def labels_of(masks: list[Any], ids: tuple[str, ...] = (), affine: Any = None) -> LabelMap:
    return LabelMap(
        "scan",
        (Path("mask.png"),),
        {1: "label 1"},
        masks[0].shape,
        len(masks),
        lambda plane, label: masks[plane],
        affine=affine,
        source_ids=ids,
    )


def test_ids_win_over_order_and_place() -> None:
    masks = [np.eye(4, 5, dtype=bool), np.ones((4, 5), bool), np.eye(4, 5, 1, dtype=bool)]
    labels = labels_of(masks, ("b", "c", "b"), as_tuple(np.diag([9.0, 9, 9, 1])))
    fitted = planes_on(image_of(3, ids=("a", "b", "d")), labels)
    assert [int(fitted(number, 1).sum()) for number in range(3)] == [0, 8, 0]
    assert fitted.note.startswith("1 masks belong to slices")


def test_without_place_sizes_decide() -> None:
    masks = [np.eye(4, 5, dtype=bool), np.ones((4, 5), bool)]
    fitted = planes_on(image_of(), labels_of(masks))
    np.testing.assert_array_equal(fitted(1, 1), masks[1])
    assert (fitted.exact, fitted.note) == (True, "")
    smaller = planes_on(image_of(size=(5, 4)), labels_of(masks))
    assert "one pixel" in smaller.note
    assert smaller(1, 1).tolist() == [[True] * 4] * 4 + [[False] * 4]
    with pytest.raises(UserError, match=r"mask\.png has masks of 5 x 4 pixels"):
        planes_on(image_of(size=(4, 7)), labels_of(masks))
    with pytest.raises(UserError, match="has 2 planes and scan has 3"):
        planes_on(image_of(3), labels_of(masks))
    placed = labels_of(masks, affine=as_tuple(np.eye(4)))
    assert "Only one of image and masks" in planes_on(image_of(), placed).note
