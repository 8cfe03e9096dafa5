"""Masks that were corrected elsewhere come back as reviews: the right ones, once, and nothing that nobody said."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest

from gaze_capture.errors import UserError
from segmentation.consensus import make_consensus
from segmentation.images import encode_mask
from segmentation.importing import import_images
from segmentation.mask_choice import MaskChoice
from segmentation.mask_export import export_masks
from segmentation.masks import import_masks
from segmentation.review_import import import_reviews
from segmentation.study import Study
from tests.mask_export_support import OFF, SLICES, make_reviewed, review
from tests.test_mask_export import pixels_of, volume_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("back")
    make_reviewed(folder)
    return folder


@pytest.fixture
def reviewed(folder: Path, tmp_path: Path) -> Study:
    return Study.open(shutil.copytree(folder / "study", tmp_path / "study"))


def edit_nifti(path: Path, change: Any) -> None:
    """Change the voxels of a mask as a viewer does, which keeps the header."""
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj).copy()
    change(voxels)
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine, image.header), path)


def source(folder: Path, format: str) -> dict[str, Any]:
    return {"source": [folder / "raw" / "dicom"]} if format == "dicom-seg" else {}


@pytest.mark.parametrize("format", ["png", "nifti", "coco", "dicom-seg"])
def test_an_export_that_nobody_changed_brings_nothing(
    folder: Path, reviewed: Study, tmp_path: Path, format: str
) -> None:
    report = export_masks(reviewed, tmp_path / "out", format, **source(folder, format))
    before = reviewed.all_reviews()
    again = import_reviews(reviewed, tmp_path / "out", "C", options=OFF)
    assert again.reviews == 0 and reviewed.all_reviews() == before
    # Of COCO and DICOM-SEG, an empty mask has no entry.
    assert again.unchanged >= report.masks - report.empty
    assert again.skipped == ()


def test_a_volume_corrected_elsewhere_comes_back_slice_by_slice(reviewed: Study, tmp_path: Path) -> None:
    export_masks(reviewed, tmp_path / "out", "nifti")
    ids = volume_of(reviewed, "nifti")

    def change(voxels: Any) -> None:
        voxels[2:5, 3:9, 2] ^= 1  # corrected
        voxels[:, :, 3] = 0  # emptied
        voxels[7:9, 7:9, 5] = 1  # drawn where there was nothing

    edit_nifti(tmp_path / "out" / "gland" / "case 7.nii.gz", change)
    expected = {}
    for number in (2, 3, 5):
        mask = reviewed.reviewed_mask(ids[number], "gland")
        expected[number] = np.zeros((18, 24), bool) if mask is None else mask.copy()
    expected[2][3:9, 2:5] ^= True
    expected[3][:] = False
    expected[5][7:9, 7:9] = True
    report = import_reviews(reviewed, tmp_path / "out", "C", seconds=12.5)
    assert (report.reviews, report.images) == (3, 3)
    # Slice 4 was never judged, and is empty in the file: that is nobody's word.
    assert report.left_empty >= 1 and not reviewed.reviews(ids[4], "gland")
    for number, mask in expected.items():
        np.testing.assert_array_equal(reviewed.reviewed_mask(ids[number], "gland"), mask)
        latest = reviewed.reviewed()[ids[number], "gland"]
        assert (latest.annotator, latest.verdict, latest.purpose) == ("C", "edited", "review")
        assert latest.presence == ("present" if mask.any() else "absent")
        assert latest.edits == ("imported",) and latest.seconds_spent == 12.5
    assert len(reviewed.reviews(ids[2], "gland")) == 2
    # Once more, and nothing is new.
    assert import_reviews(reviewed, tmp_path / "out", "C").reviews == 0


def test_every_target_comes_from_its_own_folder(reviewed: Study, tmp_path: Path) -> None:
    export_masks(reviewed, tmp_path / "out", "png")
    mask = np.zeros((30, 40), bool)
    mask[5:9, 6:20] = True
    for target in ("polyp", "zone"):
        (tmp_path / "out" / target / "a.png").write_bytes(encode_mask(mask))
    # A slice of the volume, by its own picture.
    name = next((tmp_path / "out" / "polyp").glob("case 7 *.png"))
    pixels = pixels_of(str(name), cv2.IMREAD_UNCHANGED)
    pixels[0, 0] ^= 255
    cv2.imwrite(str(name), pixels)
    gland = reviewed.reviewed_mask("a", "gland")
    report = import_reviews(reviewed, tmp_path / "out", "C")
    assert report.reviews == 3
    np.testing.assert_array_equal(reviewed.reviewed_mask("a", "polyp"), mask)
    np.testing.assert_array_equal(reviewed.reviewed_mask("a", "zone"), mask)
    np.testing.assert_array_equal(reviewed.reviewed_mask("a", "gland"), gland)
    number = int(name.stem.rpartition(" ")[2]) - 1
    np.testing.assert_array_equal(
        reviewed.reviewed_mask(volume_of(reviewed, "nifti")[number], "polyp"), pixels > 0
    )


def test_true_masks_come_from_folders_of_targets_too(folder: Path, reviewed: Study, tmp_path: Path) -> None:
    export_masks(reviewed, tmp_path / "out", "png", probability=True)
    import_masks(reviewed, tmp_path / "out")
    for target in ("polyp", "gland", "zone"):
        np.testing.assert_array_equal(reviewed.true_mask("b", target), reviewed.reviewed_mask("b", target))


def test_a_second_annotator_may_accept_what_is_the_same(reviewed: Study, tmp_path: Path) -> None:
    export_masks(reviewed, tmp_path / "out", "png", MaskChoice(targets=("zone",)))
    report = import_reviews(reviewed, tmp_path / "out" / "zone", "C", verdict="accepted", empty=True)
    assert report.reviews == 2
    assert {one.annotator for one in reviewed.reviews("a", "zone")} == {"A", "C"}
    assert import_reviews(reviewed, tmp_path / "out", "C", verdict="accepted", empty=True).unchanged == 2


def test_what_follows_a_consensus_judges_what_its_reviews_did(reviewed: Study, tmp_path: Path) -> None:
    mask = reviewed.reviewed_mask("a", "polyp")
    assert mask is not None
    for annotator in "AB":
        review(reviewed, "a", "polyp", mask, annotator=annotator, subject="run-1")
    make_consensus(reviewed, "majority", target_id="polyp")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(encode_mask(~mask))
    assert import_reviews(reviewed, tmp_path / "in", "C", target="polyp").reviews == 1
    last = reviewed.reviewed()["a", "polyp"]
    assert (last.annotator, last.subject) == ("C", "run-1")


def test_empty_masks_are_a_word_when_asked(study: Study, image_folder: Path, tmp_path: Path) -> None:
    import_images(study, [image_folder / "images"])
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"case_{number}.png").write_bytes(encode_mask(np.zeros((48, 64), bool)))
    report = import_reviews(study, tmp_path / "in", "A")
    assert (report.reviews, report.left_empty) == (0, 3) and not study.reviewed()
    assert import_reviews(study, tmp_path / "in", "A", empty=True).reviews == 3
    assert study.reviewed()["case_0", "target"].presence == "absent"
    back = import_reviews(study, tmp_path / "in", "B")
    assert (back.reviews, back.unchanged, back.left_empty) == (0, 3, 0), "the word stands already"


@pytest.mark.parametrize("shape", [(48, 63), (20, 20)])
def test_a_picture_of_another_size_is_named(
    study: Study, image_folder: Path, tmp_path: Path, shape: tuple[int, int]
) -> None:
    import_images(study, [image_folder / "images"])
    (tmp_path / "case_0_mask.png").write_bytes(encode_mask(np.ones(shape, bool)))
    with pytest.raises(
        UserError, match=rf"case_0_mask\.png .* {shape[1]} x {shape[0]} pixels, the image 64 x 48"
    ) as error:
        import_reviews(study, tmp_path / "case_0_mask.png", "A")
    assert "\n" not in str(error.value) and not study.reviewed()


def test_a_volume_of_another_grid_or_type_is_named(reviewed: Study, tmp_path: Path) -> None:
    export_masks(reviewed, tmp_path / "out", "nifti", MaskChoice(targets=("polyp",)))
    file = tmp_path / "out" / "polyp" / "case 7.nii.gz"
    image = nibabel.load(file)
    voxels = np.asarray(image.dataobj)
    before = reviewed.all_reviews()
    coarse = image.affine @ np.diag([2, 2, 1, 1])
    nibabel.save(nibabel.Nifti1Image(voxels[::2, ::2], coarse), file)
    with pytest.raises(UserError, match=r"case 7\.nii\.gz was drawn on another grid than case 7"):
        import_reviews(reviewed, file, "C", target="polyp")
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32) * 0.3, image.affine), file)
    with pytest.raises(UserError, match=r"case 7\.nii\.gz holds values between whole numbers"):
        import_reviews(reviewed, file, "C", target="polyp")
    elsewhere = image.affine.copy()
    elsewhere[:3, 3] += 1000
    nibabel.save(nibabel.Nifti1Image(voxels, elsewhere), file)
    with pytest.raises(UserError, match=r"case 7\.nii\.gz lies elsewhere in the patient"):
        import_reviews(reviewed, file, "C", target="polyp")
    file.write_bytes(b"no mask")
    with pytest.raises(UserError, match=r"case 7\.nii\.gz"):
        import_reviews(reviewed, file, "C", target="polyp")
    assert reviewed.all_reviews() == before


def test_flipped_axes_of_another_program_land_on_the_same_pixels(reviewed: Study, tmp_path: Path) -> None:
    """ITK-SNAP and 3D Slicer may store axes in another order: the place in the patient is what counts."""
    export_masks(reviewed, tmp_path / "out", "nifti", MaskChoice(targets=("gland",)))
    file = tmp_path / "out" / "gland" / "case 7.nii.gz"
    edit_nifti(file, lambda voxels: voxels.__setitem__((slice(1, 4), slice(2, 3), 0), 1))
    image = nibabel.load(file)
    turned = image.as_reoriented(np.array([[1, -1], [0, 1], [2, -1]]))
    nibabel.save(turned, file)
    assert turned.shape == (18, 24, SLICES) and not np.allclose(turned.affine, image.affine)
    first = volume_of(reviewed, "nifti")[0]
    expected = reviewed.reviewed_mask(first, "gland")
    assert expected is not None
    expected[2, 1:4] = True
    assert import_reviews(reviewed, tmp_path / "out", "C").reviews == 1
    np.testing.assert_array_equal(reviewed.reviewed_mask(first, "gland"), expected)


def test_the_command_line_imports_reviews(study: Study, image_folder: Path, tmp_path: Path) -> None:
    import_images(study, [image_folder / "images"])
    review(study, "case_1", "target", np.ones((48, 64), bool))
    command = [sys.executable, "-m", "app", "import-reviews", str(study.folder)]
    options = ["--annotator", "B", "--verdict", "edited", "--seconds", "4"]
    finished = subprocess.run(
        [*command, str(image_folder / "masks"), *options, "--json"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    values = json.loads(finished.stdout)
    assert (values["reviews"], values["images"], values["skipped"]) == (6, 6, [])
    study.refresh()
    assert study.reviewed()["case_1", "target"].annotator == "B"
    missing = subprocess.run(
        [*command, str(tmp_path / "none"), *options], capture_output=True, text=True, timeout=120, check=False
    )
    assert missing.returncode == 1 and "does not exist" in missing.stderr and missing.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("value", "kind"), [(2, np.uint8), (127, np.uint8), (2, np.uint16), (255, np.uint16), (1000, np.uint16)]
)
def test_one_value_is_a_mask_however_dark(reviewed: Study, tmp_path: Path, value: int, kind: Any) -> None:
    mask = np.zeros((30, 40), bool)
    mask[5:9, 6:20] = True
    (tmp_path / "in" / "polyp").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in" / "polyp" / "a.png"), (mask * value).astype(kind))
    assert import_reviews(reviewed, tmp_path / "in", "C", empty=True).reviews == 1
    np.testing.assert_array_equal(reviewed.reviewed_mask("a", "polyp"), mask)


def test_dark_values_are_not_taken_for_an_empty_mask(reviewed: Study, tmp_path: Path) -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[5:9, 6:20], mask[12:16, 6:20] = 80, 100
    (tmp_path / "in" / "polyp").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in" / "polyp" / "a.png"), mask)
    before = reviewed.all_reviews()
    with pytest.raises(UserError, match=r"a\.png is darker than half of its range .* --labels"):
        import_reviews(reviewed, tmp_path / "in", "C", empty=True)
    assert reviewed.all_reviews() == before
