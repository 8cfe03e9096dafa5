"""Volumes, label maps, names and interruptions: what an import does beyond single pictures."""

from __future__ import annotations

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
import pytest

from gaze_capture.errors import UserError
from segmentation.blanking import blank, mark_clean
from segmentation.import_options import ImportOptions
from segmentation.importing import import_images
from segmentation.masks import import_masks
from segmentation.records import Target
from segmentation.study import Study
from tests.dicom_support import make
from tests.test_importing import noise, write_image

AFFINE = np.diag([0.5, 0.5, 3.0, 1.0])


def nifti(path: Path, values: npt.NDArray[Any], affine: npt.NDArray[Any] = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine)
    image.header["descrip"] = b"HIDDEN^NAME"
    nibabel.save(image, path)
    return path


def volume(seed: int = 0, shape: tuple[int, int, int] = (20, 24, 6)) -> npt.NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-1000, 2000, shape).astype(np.int16)


@pytest.fixture
def zones(tmp_path: Path) -> Study:
    targets = (Target("gland", "Gland", kind="organ"), Target("pz", "Zone", kind="zone", inside="gland"))
    return Study.create(tmp_path / "zones", targets=targets)


def test_a_volume_becomes_slices_that_stay_together(study: Study, tmp_path: Path) -> None:
    values = volume()
    file = nifti(tmp_path / "raw" / "case 7.nii.gz", values)
    report = import_images(study, [file], options=ImportOptions(modality="ct"))
    assert (report.volumes, len(report.imported)) == (1, 6)
    assert study.volumes == {"case_7": tuple(f"case_7-{n:04d}" for n in range(1, 7))}
    images = [study.image(name) for name in report.imported]
    assert {image.group for image in images} == {"case_7"}
    assert [image.slice_index for image in images] == list(range(6))
    assert {image.spacing_mm for image in images} == {(0.5, 0.5)}
    known = study.volume("case_7")
    assert known.slice_spacing_mm == 3.0
    assert known.affine is not None
    # Real values come back exactly, and the affine says where in the patient each lies.
    from segmentation.images import read_stored

    to_voxel = np.linalg.inv(AFFINE) @ np.array(known.affine)
    for image in images:
        real = image.intensity.real(read_stored(study.image_path(image)))[:, :, 0]
        rows, columns = np.indices(real.shape)
        assert image.slice_index is not None
        places = np.stack([columns, rows, np.full_like(rows, image.slice_index), np.ones_like(rows)])
        i, j, k, _ = np.rint(np.tensordot(to_voxel, places, 1)).astype(int)
        np.testing.assert_array_equal(real, values[i, j, k])
    assert images[0].intensity.window is None
    low, high = images[0].intensity.low, images[0].intensity.high
    assert low is not None and high is not None and -1000 <= low < high <= 2000


def test_a_volume_imported_again_is_a_duplicate(study: Study, tmp_path: Path) -> None:
    file = nifti(tmp_path / "raw" / "a.nii", volume())
    import_images(study, [file])
    copy = tmp_path / "raw" / "b.nii"
    shutil.copy(file, copy)
    report = import_images(Study.open(study.folder), [tmp_path / "raw"])
    assert not report.imported
    assert len(report.duplicates) == 2
    assert len(Study.open(study.folder).images) == 6


def test_labels_are_sorted_to_targets(zones: Study, tmp_path: Path) -> None:
    values = volume()
    labels = np.zeros(values.shape, np.uint8)
    labels[4:14, 4:16, 1:4] = 2
    labels[4:14, 4:8, 1:4] = 1
    labels[0, 0, 0] = 3
    file = nifti(tmp_path / "raw" / "case.nii.gz", values)
    masks = tmp_path / "masks"
    nifti(masks / "case_seg.nii.gz", labels)
    vague = import_images(zones, [file], masks=masks)
    assert vague.masks == 0
    assert "1" in vague.skipped[0][1] and "--labels" in vague.skipped[0][1]
    report = import_masks(zones, masks, labels={"gland": ("1", "2"), "pz": ("1",)})
    assert (report.masks, report.images) == (12, 6)
    assert any("label 3" in reason for _, reason in report.skipped)
    sums = {"gland": 0, "pz": 0}
    for image in zones.images.values():
        for target in sums:
            mask = zones.true_mask(image.id, target)
            assert mask is not None
            sums[target] += int(mask.sum())
    assert sums == {"gland": int((np.isin(labels, (1, 2))).sum()), "pz": int((labels == 1).sum())}
    with pytest.raises(UserError, match="no target 'liver'"):
        import_masks(zones, masks, labels={"liver": ("1",)})


def test_masks_with_names_of_targets_need_no_telling(zones: Study, tmp_path: Path) -> None:
    pixels = noise(1, 20, 30)
    write_image(tmp_path / "raw" / "x.png", pixels)
    coco = {
        "images": [{"id": 1, "file_name": "x.png", "width": 30, "height": 20}],
        "categories": [{"id": 5, "name": "gland"}, {"id": 6, "name": "other"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 5, "segmentation": [[2, 2, 12, 2, 12, 10, 2, 10]], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 6, "segmentation": [[20, 12, 25, 12, 25, 15]], "iscrowd": 0},
        ],
    }  # fmt: skip
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    report = import_images(zones, [tmp_path / "raw"], masks=tmp_path / "coco.json")
    assert report.masks == 1
    assert any("other" in reason for _, reason in report.skipped)
    mask = zones.true_mask("x", "gland")
    assert mask is not None and 70 <= mask.sum() <= 110 and not mask[12:, 20:].any()


def test_a_grey_mask_with_labels_is_not_taken_for_an_empty_one(study: Study, tmp_path: Path) -> None:
    write_image(tmp_path / "raw" / "x.png", noise(1, 20, 30))
    labels = np.zeros((20, 30), np.uint8)
    labels[:5], labels[5:9] = 1, 2
    write_image(tmp_path / "masks" / "x.png", labels)
    report = import_images(study, [tmp_path / "raw"], masks=tmp_path / "masks")
    assert report.masks == 0
    assert "1, 2" in report.skipped[0][1] or "label" in report.skipped[0][1]
    report = import_images(study, [tmp_path / "raw"], masks=tmp_path / "masks", labels={"target": ("2",)})
    mask = study.true_mask("x", "target")
    assert report.masks == 1 and mask is not None and mask.sum() == 4 * 30


def test_a_mask_off_by_one_is_fitted_and_said(study: Study, tmp_path: Path) -> None:
    write_image(tmp_path / "raw" / "x.png", noise(1, 20, 30))
    write_image(tmp_path / "masks" / "x.png", np.full((21, 29), 255, np.uint8))
    report = import_images(study, [tmp_path / "raw"], masks=tmp_path / "masks")
    assert report.masks == 1
    assert "one row or column off" in report.skipped[0][1]
    mask = study.true_mask("x", "target")
    assert mask is not None and mask.shape == (20, 30)


def test_masks_that_lie_below_the_images_are_no_images(study: Study, tmp_path: Path) -> None:
    write_image(tmp_path / "raw" / "x.png", noise(1, 20, 30))
    write_image(tmp_path / "raw" / "masks" / "x.png", np.full((20, 30), 255, np.uint8))
    report = import_images(study, [tmp_path / "raw"], masks=tmp_path / "raw" / "masks")
    assert (report.imported, report.masks) == (("x",), 1)


def test_pictures_lose_their_metadata_and_no_pixel(study: Study, tmp_path: Path) -> None:
    write_image(tmp_path / "raw" / "x.jpg", noise(1, 40, 60))
    plain = (tmp_path / "raw" / "x.jpg").read_bytes()
    comment = b"HIDDEN^NAME"
    (tmp_path / "raw" / "x.jpg").write_bytes(
        plain[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + plain[2:]
    )
    write_image(tmp_path / "raw" / "y.tif", noise(2, 40, 60))
    import_images(study, [tmp_path / "raw"])
    for path in study.folder.rglob("*"):
        assert not path.is_file() or comment not in path.read_bytes()
    stored = cv2.imread(str(study.image_path(study.image("x"))), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, cv2.imdecode(np.frombuffer(plain, np.uint8), -1))
    assert import_images(study, [tmp_path / "raw"]).duplicates


def test_names_of_any_script_and_length(study: Study, tmp_path: Path) -> None:
    names = [
        "Müller ß",
        "息肉 01",
        "полип",
        "سليلة",
        "पॉलिप",
        "🩺",
        "CON",
        "a" * 200,
        "b'; DROP --",
        "x.y.z",
        "胃" * 80,
    ]
    raw = tmp_path / "raw"
    for seed, name in enumerate(names):
        raw.mkdir(exist_ok=True)
        ok, data = cv2.imencode(".png", noise(seed, 8, 8))
        assert ok
        (raw / f"{name}.png").write_bytes(data.tobytes())
    report = import_images(study, [raw], masks=None)
    assert len(report.imported) == len(names)
    again = Study.open(study.folder)
    for image in again.images.values():
        assert again.image_path(image).exists()
        assert "." not in image.id and len(image.id.encode()) <= 200
        again.save_true_mask(image.id, "target", np.ones((8, 8), bool))
        assert again.true_mask(image.id, "target") is not None


def test_names_can_be_hidden(study: Study, tmp_path: Path) -> None:
    write_image(tmp_path / "raw" / "HIDDEN_NAME.png", noise(1, 20, 30))
    nifti(tmp_path / "raw" / "HIDDEN_OTHER.nii.gz", volume())
    import_images(study, [tmp_path / "raw"], options=ImportOptions(deidentify="names"))
    assert len(study.images) == 7
    for path in study.folder.rglob("*"):
        assert "HIDDEN" not in path.name
        assert not path.is_file() or b"HIDDEN" not in path.read_bytes()


def test_links_in_a_circle_and_dangling(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    raw = tmp_path / "raw"
    write_image(raw / "x.png", noise(1, 20, 30))
    (raw / "loop").symlink_to(raw)
    (raw / "self.png").symlink_to(raw / "self.png")
    (raw / "gone.png").symlink_to(raw / "nowhere.png")
    (raw / "self.dcm").symlink_to(raw / "self.dcm")
    (raw / "self.nii").symlink_to(raw / "self.nii")
    report = import_images(study, [raw])
    assert report.imported == ("x",)
    assert {Path(file).name for file, _ in report.skipped} == {
        "self.png",
        "gone.png",
        "self.dcm",
        "self.nii",
    }


def test_a_share_that_vanishes_stops_the_import_and_keeps_what_came(study: Study, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for seed in range(60):
        write_image(raw / f"{seed:02d}.png", noise(seed, 20, 30))

    def vanish(done: int, total: int, label: str) -> None:
        if done == 20:
            raw.rename(tmp_path / "away")

    with pytest.raises(UserError, match="no longer there"):
        import_images(study, [raw], progress=vanish)
    kept = len(Study.open(study.folder).images)
    assert 20 <= kept < 60
    (tmp_path / "away").rename(raw)
    report = import_images(Study.open(study.folder), [raw])
    assert len(report.imported) == 60 - kept
    assert len(Study.open(study.folder).images) == 60


def test_a_killed_import_goes_on(study: Study, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for seed in range(1200):
        write_image(raw / f"{seed:04d}.png", noise(seed, 8, 8))
    code = (
        "import os, signal, sys\n"
        "from segmentation.importing import import_images\n"
        "from segmentation.study import Study\n"
        "def progress(done, total, label):\n"
        "    if done == 900: os.kill(os.getpid(), signal.SIGKILL)\n"
        "import_images(Study.open(sys.argv[1]), [sys.argv[2]], progress=progress)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(study.folder), str(raw)], check=False)
    assert ended.returncode == -9
    survived = Study.open(study.folder)
    assert len(survived.images) == 500
    report = import_images(survived, [raw])
    assert len(report.duplicates) == 500 and len(report.imported) == 700
    again = Study.open(study.folder)
    assert sorted(again.images) == [f"{seed:04d}" for seed in range(1200)]
    assert not [path for path in study.folder.rglob("*.part")]


def test_two_workstations_import_at_once(study: Study, tmp_path: Path) -> None:
    for side in ("a", "b"):
        for seed in range(150):
            write_image(tmp_path / side / f"{seed:03d}.png", noise(seed + 1000 * (side == "b"), 8, 8))
        nifti(tmp_path / side / "scan.nii", volume(side == "b"))
    code = (
        "import sys\nfrom segmentation.importing import import_images\nfrom segmentation.study import Study\n"
        "import_images(Study.open(sys.argv[1]), [sys.argv[2]])\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(study.folder), str(tmp_path / side)])
        for side in ("a", "b")
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    both = Study.open(study.folder)
    # Equal names with different content: nothing lost, nothing overwritten, every record true.
    import hashlib

    assert len(both.images) == 2 * (150 + 6)
    for image in both.images.values():
        assert hashlib.sha256(both.image_path(image).read_bytes()).hexdigest() == image.sha256
    assert sorted(map(len, both.volumes.values())) == [6, 6]


def test_blanking_is_for_good(study: Study, tmp_path: Path) -> None:
    write_image(tmp_path / "raw" / "x.png", noise(1, 20, 30) | 1)
    import_images(study, [tmp_path / "raw"])
    before = study.image_path(study.image("x"))
    old = study.shown(study.image("x"))
    assert blank(study, ["x"], [(3, 2, 10, 5)]) == ["x"]
    image = Study.open(study.folder).image("x")
    now = study.shown(image)
    assert (now[2:7, 3:13] == old.min()).all()
    now[2:7, 3:13] = old[2:7, 3:13]
    np.testing.assert_array_equal(now, old)
    assert not before.exists()
    assert import_images(study, [tmp_path / "raw"]).duplicates
    with pytest.raises(UserError, match="outside the image"):
        blank(study, ["x"], [(100, 0, 5, 5)])
    with pytest.raises(UserError, match="No image of the study is marked"):
        mark_clean(study, [])


def test_a_volume_cut_short_leaves_nothing(study: Study, tmp_path: Path) -> None:
    file = nifti(tmp_path / "raw" / "case.nii", volume())
    file.write_bytes(file.read_bytes()[:-500])
    write_image(tmp_path / "raw" / "x.png", noise(1, 20, 30))
    report = import_images(study, [tmp_path / "raw"])
    assert report.imported == ("x",)
    assert "case.nii" in report.skipped[0][1]
    assert sorted(path.name for path in (study.folder / "images").iterdir() if path.suffix != ".json") == [
        "x.png"
    ]


def test_a_dicom_segmentation_finds_its_series(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The segmentation was drawn by another program on the originals, and comes in after the images."""
    import highdicom
    from pydicom.sr.codedict import codes

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    (tmp_path / "raw").mkdir()
    sources = [
        make(
            tmp_path / "raw" / f"{index}.dcm",
            noise(index, 20, 30, dtype="uint16"),
            ImagePositionPatient=[0, 0, 3.0 * index],
            PatientSex="O",
            SliceThickness=3.0,
            AccessionNumber="",
            StudyID="1",
            PatientBirthDate="",
            ReferringPhysicianName="",
            SeriesNumber=1,
            InstanceNumber=index + 1,
        )
        for index in range(4)
    ]
    masks = np.zeros((4, 20, 30), np.uint8)
    masks[1, 4:9, 5:15] = 1
    masks[2, 4:9, 5:10] = 1
    described = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="Target",
        segmented_property_category=codes.SCT.Organ,
        segmented_property_type=codes.SCT.Prostate,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    segmentation = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=masks,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[described],
        series_instance_uid=highdicom.UID(),
        series_number=2,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
    )
    segmentation.save_as(tmp_path / "seg.dcm")
    import_images(study, [tmp_path / "raw"])
    report = import_masks(study, tmp_path / "seg.dcm")
    assert report.masks == 4
    areas = [study.true_mask(name, "target") for name in next(iter(study.volumes.values()))]
    assert [int(mask.sum()) for mask in areas if mask is not None] == [0, 50, 25, 0]


def test_one_mask_is_not_taken_for_two_images(study: Study, tmp_path: Path) -> None:
    write_image(tmp_path / "raw" / "a.png", noise(1, 20, 30))
    write_image(tmp_path / "raw" / "deep" / "a.png", noise(2, 20, 30))
    write_image(tmp_path / "masks" / "a.png", np.full((20, 30), 255, np.uint8))
    report = import_images(study, [tmp_path / "raw"], masks=tmp_path / "masks")
    assert (len(report.imported), report.masks) == (2, 1)
    assert "the mask of a already" in report.skipped[0][1]


def test_a_mask_in_colours_is_refused(study: Study, tmp_path: Path) -> None:
    write_image(tmp_path / "raw" / "a.png", noise(1, 20, 30))
    colours = np.zeros((20, 30, 3), np.uint8)
    colours[2:6, 2:6], colours[9:12, 9:15] = (0, 0, 255), (0, 255, 0)
    write_image(tmp_path / "masks" / "a.png", colours)
    report = import_images(study, [tmp_path / "raw"], masks=tmp_path / "masks")
    assert report.masks == 0
    assert "2 colours" in report.skipped[0][1]
    colours[9:12, 9:15] = 0
    write_image(tmp_path / "masks" / "a.png", colours)
    assert import_images(study, [tmp_path / "raw"], masks=tmp_path / "masks").masks == 1


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
def test_names_that_are_no_text(study: Study, tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", noise(1, 20, 30))
    odd = os.fsencode(tmp_path) + b"/raw/\xff\xe9odd.png"
    (tmp_path / "raw").mkdir()
    Path(os.fsdecode(odd)).write_bytes((tmp_path / "x.png").read_bytes())
    Path(os.fsdecode(odd + b".cut.png")).write_bytes((tmp_path / "x.png").read_bytes()[:90])
    program = [
        sys.executable,
        "-m",
        "app",
        "import-images",
        str(study.folder),
        str(tmp_path / "raw"),
        "--json",
    ]
    answer = subprocess.run(program, capture_output=True, check=True)
    told = json.loads(answer.stdout)
    assert told["imported"] == 1 and len(told["skipped"]) == 1
    [image] = Study.open(study.folder).images.values()
    assert image.id == "odd" and image.source_name.endswith("odd.png")


def test_masks_as_a_file_of_pages_stay_once_they_are_there(tmp_path: Path) -> None:
    def pages(path: Path, seed: int) -> list[npt.NDArray[np.bool_]]:
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = np.random.default_rng(seed).random((3, 20, 28)) < 0.5
        path.write_bytes(
            cv2.imencodemulti(".tif", [one.astype(np.uint8) * 255 for one in drawn])[1].tobytes()
        )
        return list(drawn)

    study = Study.create(tmp_path / "study", targets=(Target("polyp", "Polyp"), Target("gland", "Gland")))
    pages(tmp_path / "raw" / "stack.tif", 0)
    import_images(study, [tmp_path / "raw"])
    first = pages(tmp_path / "first" / "stack.tif", 1)
    pages(tmp_path / "second" / "stack.tif", 2)
    gland = pages(tmp_path / "third" / "gland" / "stack.tif", 3)
    assert import_masks(study, tmp_path / "first").masks == 3
    assert import_masks(study, tmp_path / "second").masks == 0
    assert import_masks(study, tmp_path / "third").masks == 3
    for number, image_id in enumerate(study.images):
        np.testing.assert_array_equal(study.true_mask(image_id, "polyp"), first[number])
        np.testing.assert_array_equal(study.true_mask(image_id, "gland"), gland[number])
