"""DICOM files made for tests, and those that pydicom's wheel carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CARRIED = Path(pydicom.__file__).parent / "data" / "test_files"
CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
AXIAL = [1, 0, 0, 0, 1, 0]
SAGITTAL = [0, 1, 0, 0, 0, -1]
NAME = "Quetzalcoatl^Planted"
"""No part of it may turn up anywhere."""


def carried(name: str) -> Path:
    """Return a file of pydicom's wheel, or skip the test."""
    path = CARRIED / name
    if not path.is_file():
        pytest.skip(f"pydicom carries no {name} here")
    return path


def make(path: Path, pixels: npt.NDArray[Any], **attributes: Any) -> FileDataset:
    """Write a DICOM file of one frame, or of several where pixels are (N, H, W); None leaves an attribute out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = attributes.get("SOPClassUID", CT)
    meta.MediaStorageSOPInstanceUID = attributes.get("SOPInstanceUID") or generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    values: dict[str, Any] = {
        "SOPClassUID": CT,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": "1.2.826.0.1.999.1",
        "SeriesInstanceUID": "1.2.826.0.1.999.2",
        "FrameOfReferenceUID": "1.2.826.0.1.999.3",
        "Modality": "CT",
        "PatientName": NAME,
        "PatientID": "quetzalcoatl-42",
        "PatientBirthDate": "19500101",
        "StudyDescription": "Quetzalcoatl",
        "StudyDate": "20200131",
        "StudyTime": "101500",
        "Rows": pixels.shape[1] if pixels.ndim == 3 and not colour else pixels.shape[0],
        "Columns": pixels.shape[2] if pixels.ndim == 3 and not colour else pixels.shape[1],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "BitsAllocated": pixels.dtype.itemsize * 8,
        "BitsStored": pixels.dtype.itemsize * 8,
        "HighBit": pixels.dtype.itemsize * 8 - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelSpacing": [0.5, 0.25],
        "ImageOrientationPatient": AXIAL,
        "ImagePositionPatient": [10, 20, 30],
    }
    if colour:
        values["PlanarConfiguration"] = 0
    if pixels.ndim == 3 and not colour:
        values["NumberOfFrames"] = len(pixels)
    for keyword, value in (values | attributes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset.save_as(path, enforce_file_format=True)
    return dataset
