from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.sr.codedict import codes

from gaze_capture.errors import UserError
from segmentation.readers.deidentify import Pseudonyms
from segmentation.readers.dicom import read_dicom
from segmentation.readers.dicom_seg import read_dicom_seg
from segmentation.stacks import LabelMap, Stack
from tests.dicom_support import carried, make

IDENTITY = Pseudonyms(bytes(range(32)))
SHAPE = (5, 12, 10)


@pytest.fixture
def series(tmp_path: Path) -> list[pydicom.Dataset]:
    files = []
    for index in range(SHAPE[0]):
        options = {
            "ImagePositionPatient": [10, 20, 30 + 2.5 * index],
            "InstanceNumber": index + 1,
            "SliceThickness": 2.5,
            "PatientSex": "O",
            "AccessionNumber": "",
            "StudyID": "",
            "ReferringPhysicianName": "",
            "PatientName": "Planted",
        }
        path = tmp_path / "series" / f"{index}.dcm"
        path.parent.mkdir(exist_ok=True)
        make(path, np.full(SHAPE[1:], index, np.int16), **options)
        files.append(pydicom.dcmread(path))
    return files


def masks() -> npt.NDArray[np.uint8]:
    """Return two overlapping structures (planes, H, W, 2); planes 0 and 3 hold neither."""
    result = np.zeros((*SHAPE, 2), np.uint8)
    result[1:3, 2:6, 3:7, 0] = 1
    result[2, 4:9, 4:9, 1] = 1
    result[4, 0:3, 0:2, 1] = 1
    return result


def written(
    path: Path, series: list[pydicom.Dataset], pixels: npt.NDArray[Any], kind: str, **options: Any
) -> Path:
    algorithm = AlgorithmIdentificationSequence("hand", codes.cid7162.ArtificialIntelligence, "1")
    descriptions = [
        SegmentDescription(
            number,
            label,
            codes.SCT.Tissue,
            codes.SCT.Tissue,
            hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm,
        )
        for number, label in ((1, "liver"), (2, "tumour\tleft"))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = Segmentation(
            source_images=series,
            pixel_array=pixels,
            segmentation_type=kind,
            segment_descriptions=descriptions,
            series_instance_uid=hd.UID(),
            series_number=9,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="x",
            manufacturer_model_name="x",
            software_versions="1",
            device_serial_number="1",
            **options,
        )
        result.save_as(path)
    return path


def by_source(label_map: LabelMap) -> dict[str, int]:
    return {source: plane for plane, source in enumerate(label_map.source_ids)}


def check(
    label_map: LabelMap, series: list[pydicom.Dataset], expected: npt.NDArray[Any], folder: Path
) -> None:
    (stack,) = read_dicom([folder / "series"], IDENTITY)
    assert isinstance(stack, Stack)
    affine, image_affine = np.array(label_map.affine), np.array(stack.affine)
    for plane in range(label_map.count):
        # Where the image's grid has it: both ways to find the image of a mask agree.
        place = np.linalg.inv(image_affine) @ affine @ [0, 0, plane, 1]
        np.testing.assert_allclose(place[:2], 0, atol=1e-6)
        index = round(place[2])
        if label_map.source_ids:
            assert label_map.source_ids[plane] == stack.source_ids[index]
        for label in label_map.labels:
            mask = label_map.read(plane, label)
            assert mask.dtype == np.bool_
            np.testing.assert_array_equal(mask, expected[index, :, :, label - 1] > 0)


@pytest.mark.parametrize("omit", [True, False])
def test_binary_with_overlap(tmp_path: Path, series: list[pydicom.Dataset], omit: bool) -> None:
    path = written(tmp_path / "seg.dcm", series, masks(), "BINARY", omit_empty_frames=omit)
    label_map = read_dicom_seg(path, IDENTITY)
    assert label_map.labels == {1: "liver", 2: "tumour left"} and label_map.shape == SHAPE[1:]
    assert label_map.count == (4 if omit else 5)
    check(label_map, series, masks(), tmp_path)
    assert (
        sum(int(label_map.read(plane, 2).sum()) for plane in range(label_map.count)) == masks()[..., 1].sum()
    )
    # An independent reader sees the same.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = hd.seg.segread(path)
        uids = [image.SOPInstanceUID for image in series]
        seen = other.get_pixels_by_source_instance(
            uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
    np.testing.assert_array_equal(seen, masks())


def test_source_ids_name_the_images(tmp_path: Path, series: list[pydicom.Dataset]) -> None:
    label_map = read_dicom_seg(
        written(tmp_path / "seg.dcm", series, masks(), "BINARY", omit_empty_frames=False), IDENTITY
    )
    assert list(label_map.source_ids) == [IDENTITY.uid(image.SOPInstanceUID) for image in series]
    assert "Planted" not in repr(label_map)


def test_fractional_is_cut_at_half(tmp_path: Path, series: list[pydicom.Dataset]) -> None:
    pixels = masks().astype(np.float32) * 0.4
    pixels[2, 5:8, 5:8, 1] = 0.8
    options = {"fractional_type": "PROBABILITY", "max_fractional_value": 200}
    label_map = read_dicom_seg(
        written(tmp_path / "seg.dcm", series, pixels, "FRACTIONAL", **options), IDENTITY
    )
    check(label_map, series, pixels > 0.5, tmp_path)
    assert sum(int(label_map.read(plane, 2).sum()) for plane in range(label_map.count)) == 9


def test_compressed_fractional(tmp_path: Path, series: list[pydicom.Dataset]) -> None:
    options = {"fractional_type": "PROBABILITY", "transfer_syntax_uid": pydicom.uid.RLELossless}
    pixels = masks().astype(np.float32)
    check(
        read_dicom_seg(written(tmp_path / "seg.dcm", series, pixels, "FRACTIONAL", **options), IDENTITY),
        series,
        masks(),
        tmp_path,
    )


def test_label_map(tmp_path: Path, series: list[pydicom.Dataset]) -> None:
    pixels = masks()[..., 0].copy()
    pixels[masks()[..., 1] > 0] = 2
    expected = np.stack([pixels == 1, pixels == 2], axis=-1)
    label_map = read_dicom_seg(
        written(tmp_path / "seg.dcm", series, pixels, "LABELMAP", omit_empty_frames=False), IDENTITY
    )
    assert label_map.labels == {1: "liver", 2: "tumour left"} and label_map.count == 5
    check(label_map, series, expected, tmp_path)


def test_a_carried_segmentation() -> None:
    path = carried("liver_1frame.dcm")
    label_map = read_dicom_seg(path, IDENTITY)
    assert label_map.count == 1 and label_map.shape == (512, 512) and len(label_map.labels) == 1
    expected = pydicom.dcmread(path).pixel_array
    np.testing.assert_array_equal(label_map.read(0, next(iter(label_map.labels))), expected > 0)


def test_what_is_no_segmentation_is_a_sentence(tmp_path: Path, series: list[pydicom.Dataset]) -> None:
    with pytest.raises(UserError, match=r"CT_small.dcm is no DICOM segmentation"):
        read_dicom_seg(carried("CT_small.dcm"), IDENTITY)
    (tmp_path / "text").write_text("x" * 300)
    with pytest.raises(UserError, match="cannot be read"):
        read_dicom_seg(tmp_path / "text", IDENTITY)
    path = written(tmp_path / "seg.dcm", series, masks(), "BINARY")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"seg.dcm .* ends within"):
        read_dicom_seg(path, IDENTITY)
