"""NRRD: known places come back through the affine; what pynrrd wrote is what is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest

from gaze_capture.errors import UserError
from segmentation.readers.nrrd import read_nrrd, read_nrrd_labels
from segmentation.stacks import Stack

SIZES = (7, 9, 5)
VOXEL = (5, 2, 1)
RAS = np.array([[1.5, 0, 0, -20], [0, 1.5, 0, -30], [0, 0, 4.0, 10], [0, 0, 0, 1]])
SIGNS = {
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
}


def real_values(stack: Stack) -> np.ndarray[Any, Any]:
    planes = [stack.read(number) for number in range(stack.count)]
    return np.stack([plane.values.astype(np.float64) * plane.slope + plane.intercept for plane in planes])


def bright_voxel(dtype: Any = np.int16) -> np.ndarray[Any, Any]:
    values = np.arange(np.prod(SIZES)).reshape(SIZES).astype(dtype)
    values[VOXEL] = 3000
    return values


def placed(space: str = "left-posterior-superior") -> dict[str, Any]:
    affine = RAS.copy()
    affine[:3] *= np.array(SIGNS[space])[:, np.newaxis]
    return {"space": space, "space directions": affine[:3, :3].T, "space origin": affine[:3, 3]}


@pytest.mark.parametrize("space", SIGNS)
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ASCII"])
@pytest.mark.parametrize("ending", [".nrrd", ".nhdr"])
def test_a_bright_voxel_keeps_its_place_in_the_patient(
    tmp_path: Path, space: str, axis: int | None, encoding: str, ending: str
) -> None:
    path = tmp_path / f"scan{ending}"
    nrrd.write(str(path), bright_voxel(), {**placed(space), "encoding": encoding})
    stack = read_nrrd(path, axis)
    values = real_values(stack)[..., 0]
    number, row, column = np.unravel_index(values.argmax(), values.shape)
    np.testing.assert_allclose(
        np.array(stack.affine) @ [column, row, number, 1], RAS @ [*VOXEL, 1], atol=1e-9
    )
    assert (stack.name, stack.notes) == ("scan", ())
    assert len(stack.files) == (1 if ending == ".nrrd" else 2)
    if axis == 2:
        np.testing.assert_array_equal(values, bright_voxel().transpose(2, 1, 0)[:, ::-1, ::-1])


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64]
)
def test_whole_numbers_stay_exact_integers(tmp_path: Path, dtype: Any) -> None:
    values = np.arange(60).reshape(3, 4, 5).astype(dtype)
    nrrd.write(str(tmp_path / "scan.nrrd"), values, {"encoding": "gzip"})
    stack = read_nrrd(tmp_path / "scan.nrrd")
    assert stack.read(0).values.dtype in (np.uint8, np.uint16)
    np.testing.assert_array_equal(real_values(stack)[..., 0], values.transpose(2, 1, 0))
    assert (stack.affine, stack.spacing_mm) == (None, None)


def test_a_flat_image_and_its_spacing_are_read(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    nrrd.write(str(tmp_path / "scan.nrrd"), values, {"spacings": [0.2, 0.3]})
    stack = read_nrrd(tmp_path / "scan.nrrd")
    assert (stack.shape, stack.count, stack.affine) == ((4, 3, 1), 1, None)
    assert stack.spacing_mm == (0.3, 0.2)
    np.testing.assert_array_equal(stack.read(0).values[..., 0], values.T)


@pytest.mark.parametrize("kind", ["RGB-color", "vector", "RGBA-color"])
def test_colour_is_read(tmp_path: Path, kind: str) -> None:
    channels = 4 if kind == "RGBA-color" else 3
    values = np.arange(channels * 3 * 4 * 2, dtype=np.uint8).reshape(channels, 3, 4, 2)
    nrrd.write(str(tmp_path / "scan.nrrd"), values, {"kinds": [kind, "domain", "domain", "domain"]})
    stack = read_nrrd(tmp_path / "scan.nrrd")
    assert (stack.shape, stack.count, stack.modality) == ((4, 3, 3), 2, "photo")
    np.testing.assert_array_equal(stack.read(1).values, values[:3, :, :, 1].transpose(2, 1, 0))


def test_vectors_are_refused_and_of_a_series_the_first_is_read(tmp_path: Path) -> None:
    path = tmp_path / "scan.nrrd"
    nrrd.write(
        str(path), np.zeros((3, 4, 4, 2), np.float32), {"kinds": ["vector", "domain", "domain", "domain"]}
    )
    with pytest.raises(UserError, match="several values at each place"):
        read_nrrd(path)
    series = np.stack([bright_voxel(), bright_voxel() + 1], axis=3)
    nrrd.write(str(path), series, {"kinds": ["domain", "domain", "domain", "time"]})
    stack = read_nrrd(path)
    assert real_values(stack).max() == 3000
    assert stack.notes[-1] == "Only the first of 2 entries at each place was read."


def test_own_keys_are_not_kept(tmp_path: Path) -> None:
    nrrd.write(
        str(tmp_path / "scan.nrrd"), bright_voxel(), {**placed(), "PatientName": "Doe", "content": "Doe"}
    )
    assert b"Doe" in (tmp_path / "scan.nrrd").read_bytes()
    assert "Doe" not in repr(read_nrrd(tmp_path / "scan.nrrd"))


def test_segments_of_slicer_keep_their_names_and_layers(tmp_path: Path) -> None:
    values = np.zeros((2, *SIZES), np.uint8)
    values[0, 1:4, 1:4, 2] = 1
    values[1, 2:6, 2:6, 2] = 1
    values[1, 0, 0, 0] = 2
    space = placed()
    header = {
        "space": space["space"],
        "space origin": space["space origin"],
        "space directions": np.vstack([[np.nan] * 3, space["space directions"]]),
        "kinds": ["list", "domain", "domain", "domain"],
        "Segment0_Name": "liver: right",
        "Segment0_LabelValue": "1",
        "Segment0_Layer": "0",
        "Segment1_Name": "tumour",
        "Segment1_LabelValue": "1",
        "Segment1_Layer": "1",
    }
    nrrd.write(str(tmp_path / "scan.seg.nrrd"), values, header)
    labels = read_nrrd_labels(tmp_path / "scan.seg.nrrd", 2)
    assert labels.labels == {1: "liver: right", 2: "tumour", 3: "label 2"}
    assert labels.name == "scan"
    assert [int(labels.read(2, label).sum()) for label in (1, 2, 3)] == [9, 16, 0]
    assert int((labels.read(2, 1) & labels.read(2, 2)).sum()) == 4
    corner = np.argwhere(labels.read(0, 3))[0]
    np.testing.assert_allclose(np.array(labels.affine) @ [corner[1], corner[0], 0, 1], RAS @ [0, 0, 0, 1])


def test_labels_of_the_prostate_challenge_get_their_names(tmp_path: Path) -> None:
    values = np.zeros(SIZES, np.uint8)
    values[1, 1, 1], values[2, 2, 2] = 1, 2
    nrrd.write(str(tmp_path / "Prostate3T-01-0001_truth.nrrd"), values, placed())
    labels = read_nrrd_labels(tmp_path / "Prostate3T-01-0001_truth.nrrd")
    assert labels.labels == {1: "peripheral zone", 2: "central gland"}
    assert labels.name == "Prostate3T-01-0001"


def test_probability_maps_are_refused_as_masks(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "scan.nrrd"), np.full(SIZES, 0.5, np.float32))
    with pytest.raises(UserError, match="probability maps"):
        read_nrrd_labels(tmp_path / "scan.nrrd")


@pytest.mark.parametrize(
    "place", ["../scan.raw", "/etc/passwd", "sub/scan.raw", "..\\scan.raw", "C:scan.raw", ".."]
)
def test_data_outside_the_folder_is_never_followed(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    nrrd.write(str(folder / "scan.nhdr"), bright_voxel(), {"encoding": "raw"})
    for other in (tmp_path / "scan.raw", folder / "sub" / "scan.raw"):
        other.write_bytes((folder / "scan.raw").read_bytes())
    text = (folder / "scan.nhdr").read_text().replace("data file: scan.raw", f"data file: {place}")
    (folder / "scan.nhdr").write_text(text)
    with pytest.raises(UserError, match="outside its folder"):
        read_nrrd(folder / "scan.nhdr")


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    nrrd.write(str(folder / "scan.nhdr"), bright_voxel(), {"encoding": "raw"})
    (folder / "scan.raw").rename(tmp_path / "scan.raw")
    with pytest.raises(UserError, match=r"lacks its data file scan\.raw"):
        read_nrrd(folder / "scan.nhdr")
    (folder / "scan.raw").symlink_to(tmp_path / "scan.raw")
    with pytest.raises(UserError, match="outside its folder"):
        read_nrrd(folder / "scan.nhdr")


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ASCII"])
def test_short_files_are_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "scan.nrrd"
    values = np.random.default_rng(0).integers(0, 999, SIZES).astype(np.int16)
    nrrd.write(str(path), values, {**placed(), "encoding": encoding})
    data = path.read_bytes()
    for cut in (0, 3, 40, len(data) // 2, len(data) - 12):
        path.write_bytes(data[:cut])
        with pytest.raises(UserError, match=r"scan\.nrrd"):
            read_nrrd(path)


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("sizes: 7 9 5", "sizes: 70000 90000 5", "volumes up to 4 GiB"),
        ("sizes: 7 9 5", "sizes: 7 0 5", "declares a size"),
        ("sizes: 7 9 5", "sizes: 7 x 5", "damaged header"),
        ("sizes: 7 9 5", "sizes: 7 9", "dimensions"),
        ("type: int16", "type: block", "type block"),
        ("endian: little", "endian: middle", "endian"),
        ("encoding: gzip", "encoding: hex", "encoded as hex"),
        ("encoding: gzip", "encoding: gzip\nbyte skip: -1", "from the end"),
        ("dimension: 3\n", "", "dimension is missing"),
    ],
)
def test_damaged_headers_are_explained(tmp_path: Path, line: str, instead: str, message: str) -> None:
    path = tmp_path / "scan.nrrd"
    nrrd.write(str(path), bright_voxel())
    data = path.read_bytes()
    assert line.encode() in data
    path.write_bytes(data.replace(line.encode(), instead.encode(), 1))
    with pytest.raises(UserError, match=message):
        read_nrrd(path)
