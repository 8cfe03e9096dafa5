"""Twenty planted patients go through the whole day; afterwards nothing in the study knows any of them."""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from pathlib import Path

import cv2
import nibabel
import nrrd
import numpy as np
import pytest

from app.cli import run_command
from segmentation import steps
from segmentation.images import encode_display
from segmentation.import_options import ImportOptions
from segmentation.masks import import_masks
from segmentation.report import write_report
from segmentation.study import Study
from tests.dicom_support import make

NAMES = [
    "Quixwell", "Zyborowska", "Okonjo-Vance", "Brannagh", "Thistlewaite", "Mbeki-Rosse", "Vandersloot", "Ishikawara",
    "Papadimas", "Kowalczik", "Fjordland", "Oyelaranx", "Drummondo", "Szczepan", "Haraldssonk", "Quispetito",
    "Nakagomei", "Lindqvistor", "Abdelmalekh", "Grzegorzew",
]  # fmt: skip


def plant(folder: Path) -> None:
    """Write pictures, volumes and DICOM series that name patients wherever the formats have room."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES[:8]):
        case = folder / "dicom" / name
        case.mkdir(parents=True)
        for index in range(2):
            pixels = rng.integers(0, 900, (32, 40)).astype(np.int16)
            make(
                case / f"{name}_{index}.dcm",
                pixels,
                ImagePositionPatient=[0, 0, 3.0 * index],
                PatientName=f"{name}^Canary",
                PatientID=f"{name}-{number}",
                PatientComments=f"comes with Mrs {name}",
                InstitutionName=f"{name} hospital",
                ReferringPhysicianName=f"{NAMES[8]}^Doctor",
                OperatorsName=f"{NAMES[9]}^Nurse",
                StudyDescription=f"follow-up of {name}",
                SeriesDescription=f"t2 {name}",
                ProtocolName=f"{name} protocol",
                StationName=NAMES[10],
                AccessionNumber=f"{name}77",
                StudyInstanceUID=f"1.2.3.{number}",
                SeriesInstanceUID=f"1.2.3.{number}.1",
            )
    for name in NAMES[11:14]:
        soft = cv2.GaussianBlur(rng.integers(0, 255, (48, 64, 3)).astype(np.uint8), (0, 0), 3)
        path = folder / "pictures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        png = encode_display(np.asarray(soft, np.uint8))
        text = b"tEXtAuthor\0" + name.encode()
        chunk = (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
        path.write_bytes(png[:33] + chunk + png[33:])
    for name in NAMES[14:17]:
        jpeg = cv2.imencode(".jpg", rng.integers(0, 255, (48, 64, 3)).astype(np.uint8))[1].tobytes()
        comment = f"{name}, born 1950".encode()
        path = folder / "pictures" / f"{name}.jpg"
        path.write_bytes(jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:])
    volume = rng.integers(0, 900, (32, 40, 3)).astype(np.int16)
    image = nibabel.Nifti1Image(volume, np.diag([1, 1, 3, 1]))
    image.header["descrip"] = NAMES[17].encode()
    (folder / "volumes").mkdir()
    nibabel.save(image, folder / "volumes" / f"{NAMES[17]}.nii.gz")
    nrrd.write(str(folder / "volumes" / f"{NAMES[18]}.nrrd"), volume, {"patient": NAMES[18]})
    labels = np.zeros(volume.shape, np.uint8)
    labels[8:20, 8:20] = 1
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([1, 1, 3, 1])), folder / f"{NAMES[19]}.nii")


def found_in(folder: Path) -> list[str]:
    """Return where a name stands below a folder: in names of files and in contents, unpacked where they are packed."""
    hits = []
    for path in folder.rglob("*"):
        texts = [str(path.relative_to(folder)).encode()]
        if path.is_file():
            data = path.read_bytes()
            texts.append(data)
            with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(data)) as packed:
                texts += [packed.read(name) for name in packed.namelist()]
        for name in NAMES:
            forms = [name.lower().encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be")]
            if any(form in text.lower() for text in texts for form in forms):
                hits.append(f"{name}: {path}")
    return hits


def test_no_name_survives_the_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    raw = tmp_path / "raw"
    plant(raw)
    assert found_in(raw)
    study = Study.create(tmp_path / "study")
    options = ImportOptions(deidentify="names")
    report = steps.import_images(study, [raw / "dicom", raw / "pictures", raw / "volumes"], options=options)
    assert (len(report.imported), report.volumes, report.skipped) == (16 + 6 + 6, 10, ())
    patients = {image.group for image in study.images.values() if image.group.startswith("patient-")}
    assert len(patients) == 8, "patients are told apart, under other names"
    import_masks(study, raw / f"{NAMES[19]}.nii", options=options)
    steps.simulate(study, source="saliency")
    steps.make_pseudomasks(study)
    steps.explain(study)
    spec = steps.preset("gaze-to-insight", "phantom", iterations=3, image_size_px=32)
    run = steps.train(study, spec).run
    steps.predict(study, run)
    write_report(study, study.folder / "exports" / "report.html", run)
    capsys.readouterr()
    run_command(["verify", str(study.folder)])
    run_command(["suggest-groups", str(study.folder)])
    printed = capsys.readouterr()
    assert not [name for name in NAMES if name.lower() in (printed.out + printed.err).lower()]
    assert found_in(study.folder) == []
