"""Data sets in the folders they are published in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nrrd
import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json
from segmentation.job import RunSpec
from segmentation.phantoms import write_phantoms
from segmentation.presets import checked
from segmentation.published import DATA_SETS, import_dataset
from segmentation.study import Study
from tests.dicom_support import make
from tests.test_importing import noise, write_image

RESOURCES = Path(__file__).parent.parent / "resources"


def test_kvasir_seg(study: Study, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "Kvasir-SEG", 6, size_px=64, kinds=("polyp",))
    (tmp_path / "Kvasir-SEG" / "kavsir_bboxes.json").write_text("{}")
    reports = import_dataset(
        study, "kvasir-seg", tmp_path, test_names=["phantom-polyp-0002.jpg", "phantom-polyp-0004"]
    )
    assert [(split, len(report.imported), report.masks) for split, report in reports] == [
        ("train", 5, 5),
        ("test", 1, 1),
    ]
    assert [target.id for target in study.targets] == ["polyp"]
    with pytest.raises(UserError, match="does not look like"):
        import_dataset(study, "isic", tmp_path)


def test_isic_2017(study: Study, tmp_path: Path) -> None:
    for split, folder in (("Training", "Data"), ("Validation", "Data"), ("Test_v2", "Data")):
        for number in range(3):
            name = f"ISIC_{split}_{number}"
            seed = 10 * number + 100 * len(split)
            write_image(tmp_path / f"ISIC-2017_{split}_{folder}" / f"{name}.jpg", noise(seed, 40, 60))
            write_image(
                tmp_path / f"ISIC-2017_{split}_{folder}" / f"{name}_superpixels.png", noise(seed + 1, 40, 60)
            )
            mask = np.zeros((40, 60), np.uint8)
            mask[10:20, 10:30] = 255
            write_image(tmp_path / f"ISIC-2017_{split}_Part1_GroundTruth" / f"{name}_segmentation.png", mask)
        write_image(tmp_path / f"ISIC-2017_{split}_Part2_GroundTruth" / "other.png", noise(3, 4, 4))
    reports = import_dataset(study, "isic", tmp_path)
    assert [(split, len(report.imported), report.masks) for split, report in reports] == [
        ("train", 3, 3),
        ("val", 3, 3),
        ("test", 3, 3),
    ]
    with pytest.raises(UserError, match="new study"):
        (tmp_path / "images").mkdir()
        (tmp_path / "masks").mkdir()
        import_dataset(study, "kvasir-seg", tmp_path)


def test_nci_isbi_2013(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    labels = np.zeros((24, 20, 4), np.uint8)
    labels[6:16, 4:14, 1:3] = 2
    labels[6:16, 10:14, 1:3] = 1
    for number, (name, folder) in enumerate(
        (
            ("Prostate3T-01-0001", "Training"),
            ("ProstateDx-01-0003", "Leaderboard"),
            ("Prostate3T-03-0002", "Test"),
        )
    ):
        case = tmp_path / "DOI" / name / "1.3.6.1" / "1.3.6.1.4"
        case.mkdir(parents=True)
        for index in range(4):
            make(
                case / f"1-{index:02d}.dcm",
                rng.integers(0, 900, (20, 24)).astype(np.int16),
                Modality="MR",
                PatientID=name,
                PixelSpacing=[0.5, 0.5],
                ImagePositionPatient=[0, 0, 3.0 * index],
                SeriesInstanceUID=f"1.2.3.{number}.9",
                StudyInstanceUID=f"1.2.3.{number}",
            )
        ending = "" if folder == "Training" else "_truth"
        header = {
            "space": "left-posterior-superior",
            "space directions": [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 3.0]],
            "space origin": [0, 0, 0],
            "encoding": "gzip",
        }
        (tmp_path / "NRRD" / folder).mkdir(parents=True)
        nrrd.write(str(tmp_path / "NRRD" / folder / f"{name}{ending}.nrrd"), labels, header)
    reports = import_dataset(study, "nci-isbi-2013", tmp_path)
    assert [(split, len(report.imported), report.masks) for split, report in reports] == [
        ("train", 4, 12),
        ("val", 4, 12),
        ("test", 4, 12),
    ]
    sums = {target.id: 0 for target in study.targets}
    for image in study.images_of("train"):
        for target in sums:
            mask = study.true_mask(image.id, target)
            assert mask is not None
            sums[target] += int(mask.sum())
            if image.slice_index == 1 and target == "gland":
                np.testing.assert_array_equal(mask, labels[:, :, 1].T > 0)
    assert sums == {"gland": 200, "pz": 80, "cg": 120}
    assert len({image.group for image in study.images.values()}) == 3


def test_unknown_sets_and_folders(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data set"):
        import_dataset(study, "imagenet", tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        import_dataset(study, "isic", tmp_path / "nowhere")


@pytest.mark.parametrize("config", sorted((RESOURCES / "configs").glob("*.json")), ids=lambda path: path.stem)
def test_configs_can_be_trained(config: Path) -> None:
    spec = checked(RunSpec.from_json(read_json(config), str(config)))
    known = {target.id for one in DATA_SETS.values() for target in one.targets}
    assert set(spec.targets) <= known


@pytest.mark.parametrize("script", ["kvasir_seg", "isic", "nci_isbi_2013"])
def test_scripts_explain_themselves(script: str) -> None:
    command = [sys.executable, str(RESOURCES / "examples" / f"{script}.py"), "--help"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "raw folder" in answer.stdout
