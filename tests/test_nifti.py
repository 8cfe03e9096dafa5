"""NIfTI: known places come back through the affine; what nibabel wrote is what is read."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from gaze_capture.errors import UserError
from segmentation.readers import volumes
from segmentation.readers.nifti import read_nifti, read_nifti_labels
from segmentation.stacks import Stack

SIZES = (7, 9, 5)
VOXEL = (5, 2, 1)
RAS = np.array([[1.5, 0, 0, -20], [0, 1.5, 0, -30], [0, 0, 4.0, 10], [0, 0, 0, 1]])
ORIENTATIONS = ["RAS", "LPS", "LAS", "PIR", "SRA", "ASL"]


def real_values(stack: Stack) -> np.ndarray[Any, Any]:
    planes = [stack.read(number) for number in range(stack.count)]
    return np.stack([plane.values.astype(np.float64) * plane.slope + plane.intercept for plane in planes])


def oriented(values: np.ndarray[Any, Any], codes: str) -> Any:
    """Store the same patient along other axes."""
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    stored = nib.orientations.apply_orientation(values, change)
    return nib.Nifti1Image(stored, RAS @ inv_ornt_aff(change, values.shape))


def bright_voxel(dtype: Any = np.int16) -> np.ndarray[Any, Any]:
    values = np.arange(np.prod(SIZES)).reshape(SIZES).astype(dtype)
    values[VOXEL] = 3000
    return values


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_bright_voxel_keeps_its_place_in_the_patient(
    tmp_path: Path, codes: str, axis: int | None, ending: str
) -> None:
    path = tmp_path / f"scan{ending}"
    nib.save(oriented(bright_voxel(), codes), path)
    stack = read_nifti(path, axis)
    values = real_values(stack)[..., 0]
    number, row, column = np.unravel_index(values.argmax(), values.shape)
    place = np.array(stack.affine) @ [column, row, number, 1]
    np.testing.assert_allclose(place, RAS @ [*VOXEL, 1], atol=1e-4)
    assert stack.name == "scan"
    assert stack.header["axis"] == (2 if axis is None else axis)
    lengths = np.linalg.norm(np.array(stack.affine)[:3, :3], axis=0)
    assert stack.spacing_mm == pytest.approx((lengths[1], lengths[0]))
    assert stack.slice_spacing_mm == pytest.approx(lengths[2])


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_slices_show_as_radiologists_expect(tmp_path: Path, codes: str) -> None:
    nib.save(oriented(bright_voxel(), codes), tmp_path / "scan.nii")
    for axis, (right, down) in {0: ("P", "I"), 1: ("L", "I"), 2: ("L", "P")}.items():
        stack = read_nifti(tmp_path / "scan.nii", axis)
        assert nib.aff2axcodes(np.array(stack.affine))[:2] == (right, down)
    whole = real_values(read_nifti(tmp_path / "scan.nii", 2))[..., 0]
    np.testing.assert_array_equal(whole, bright_voxel().transpose(2, 1, 0)[:, ::-1, ::-1])


@pytest.mark.parametrize(
    "values",
    [
        np.array([-32768, -1024, 0, 32767], np.int16),
        np.array([-128, 0, 5, 127], np.int8),
        np.array([0, 1, 70, 255], np.uint8),
        np.array([0, 1, 70, 65535], np.uint16),
        np.array([-1024, 0, 5, 3071], np.int32),
        np.array([70_000_000, 70_000_001, 70_000_002, 70_065_535], np.int64),
        np.array([-1024, 0, 5, 3071], np.float32),
        np.array([-1024, 0, 5, 3071], np.float64),
    ],
    ids=lambda values: values.dtype.name,
)
@pytest.mark.parametrize("order", "<>")
def test_whole_numbers_stay_exact_integers(tmp_path: Path, values: np.ndarray[Any, Any], order: str) -> None:
    path = tmp_path / "scan.nii"
    header = nib.Nifti1Header(endianness=order)
    nib.save(nib.Nifti1Image(values.reshape(2, 2, 1), np.eye(4), header, dtype=values.dtype), path)
    data = bytearray(path.read_bytes())
    struct.pack_into(f"{order}2f", data, 112, 0.5, -3)
    path.write_bytes(data)
    stack = read_nifti(tmp_path / "scan.nii")
    assert stack.read(0).values.dtype in (np.uint8, np.uint16)
    expected = nib.load(tmp_path / "scan.nii").get_fdata()
    np.testing.assert_array_equal(np.sort(real_values(stack).ravel()), np.sort(expected.ravel()))


def test_fractions_stay_float_and_what_is_no_number_is_counted(tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 4, 5)
    values[0, 0, 0], values[1, 1, 1], values[2, 2, 1] = np.nan, np.inf, -np.inf
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "scan.nii.gz")
    stack = read_nifti(tmp_path / "scan.nii.gz", 2)
    assert any(note.startswith("3 values that were no numbers") for note in stack.notes)
    planes = [stack.read(number) for number in range(5)]
    assert [plane.note[:1] for plane in planes] == ["1", "2", "", "", ""]
    assert planes[0].values.dtype == np.float32
    assert planes[0].values[-1, -1, 0] == np.nanmin(values[np.isfinite(values)])


def test_signalling_nans_raise_no_warning(tmp_path: Path) -> None:
    values = np.ones((3, 4, 5), np.float32)
    values.view(np.uint32)[1, 1, 1] = 0x7FA00001
    nib.save(nib.Nifti1Image(np.ones_like(values), np.eye(4)), tmp_path / "scan.nii")
    data = (tmp_path / "scan.nii").read_bytes()
    (tmp_path / "scan.nii").write_bytes(data[:352] + values.tobytes("F"))
    assert read_nifti(tmp_path / "scan.nii").notes[0].startswith("1 values that were no numbers")
    with pytest.raises(UserError, match="no mask"):
        read_nifti_labels(tmp_path / "scan.nii")


def test_colour_is_read(tmp_path: Path) -> None:
    colours = np.arange(4 * 5 * 3 * 3, dtype=np.uint8).reshape(4, 5, 3, 3)
    stored = np.ascontiguousarray(colours).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nib.save(nib.Nifti1Image(stored, np.eye(4)), tmp_path / "scan.nii.gz")
    stack = read_nifti(tmp_path / "scan.nii.gz", 2)
    assert (stack.shape, stack.count, stack.modality) == ((5, 4, 3), 3, "photo")
    np.testing.assert_array_equal(stack.read(1).values, colours[::-1, ::-1, 1].transpose(1, 0, 2))


def test_a_pair_is_read_from_either_file(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(bright_voxel(), RAS), tmp_path / "scan.img")
    for ending in (".hdr", ".img"):
        stack = read_nifti(tmp_path / f"scan{ending}")
        assert real_values(stack).max() == 3000
        assert len(stack.files) == 2
    (tmp_path / "scan.img").unlink()
    with pytest.raises(UserError, match=r"lacks the \.img file"):
        read_nifti(tmp_path / "scan.hdr")


def test_of_a_series_the_first_volume_is_read(tmp_path: Path) -> None:
    series = np.stack([bright_voxel(), bright_voxel() + 1], axis=3)
    nib.save(nib.Nifti1Image(series, RAS), tmp_path / "scan.nii.gz")
    stack = read_nifti(tmp_path / "scan.nii.gz")
    assert real_values(stack).max() == 3000
    assert stack.notes == ("Only the first volume of 2 was read.",)


def test_free_text_is_not_kept(tmp_path: Path) -> None:
    image = nib.Nifti1Image(bright_voxel(), RAS)
    image.header["descrip"] = b"Doe^Jane"
    image.header["aux_file"] = b"Doe^Jane"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Doe^Jane"))
    nib.save(image, tmp_path / "scan.nii")
    stack = read_nifti(tmp_path / "scan.nii")
    assert "Doe" not in repr(stack)
    assert real_values(stack).max() == 3000


@pytest.mark.parametrize("what", ["no code", "zero", "nan"])
def test_without_a_sensible_affine_nothing_is_claimed(tmp_path: Path, what: str) -> None:
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(bright_voxel(), RAS), path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<2h", data, 252, 0, 0 if what == "no code" else 2)
    if what != "no code":
        struct.pack_into("<4f", data, 280, *([0.0] * 4 if what == "zero" else [np.nan] * 4))
    path.write_bytes(data)
    stack = read_nifti(path)
    assert (stack.affine, stack.spacing_mm, stack.slice_spacing_mm) == (None, None, None)
    assert "orientation and spacing are unknown" in stack.notes[0]
    np.testing.assert_array_equal(real_values(stack)[..., 0], bright_voxel().transpose(2, 1, 0))


def test_metres_become_millimetres(tmp_path: Path) -> None:
    image = nib.Nifti1Image(bright_voxel(), RAS / 1000)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "scan.nii")
    assert read_nifti(tmp_path / "scan.nii").spacing_mm == pytest.approx((1.5, 1.5))


def test_planes_can_be_read_in_any_order(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(bright_voxel(), RAS), tmp_path / "scan.nii.gz")
    stack = read_nifti(tmp_path / "scan.nii.gz")
    one_by_one = [stack.read(number).values for number in (3, 1, 4, 0, 2)]
    again = read_nifti(tmp_path / "scan.nii.gz")
    for number, values in zip((3, 1, 4, 0, 2), one_by_one, strict=True):
        np.testing.assert_array_equal(values, again.read(number).values)


def test_backwards_a_compressed_file_is_not_begun_anew_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nib.save(nib.Nifti1Image(bright_voxel(), RAS), tmp_path / "scan.nii.gz")
    stack = read_nifti(tmp_path / "scan.nii.gz")
    expected = real_values(stack)
    opened: list[volumes.Raw] = []
    stream = volumes.Stream

    def counted(raw: volumes.Raw) -> volumes.Stream:
        opened.append(raw)
        return stream(raw)

    monkeypatch.setattr(volumes, "Stream", counted)
    for number in reversed(range(stack.count)):
        plane = stack.read(number)
        np.testing.assert_array_equal(plane.values + plane.intercept, expected[number])
    assert len(opened) == 3


def test_a_large_compressed_volume_goes_through_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nib.save(nib.Nifti1Image(bright_voxel(), RAS), tmp_path / "scan.nii.gz")
    expected = real_values(read_nifti(tmp_path / "scan.nii.gz", 0))
    monkeypatch.setattr(volumes, "_IN_MEMORY", 100)
    np.testing.assert_array_equal(real_values(read_nifti(tmp_path / "scan.nii.gz", 0)), expected)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_short_and_damaged_files_are_named(tmp_path: Path, ending: str) -> None:
    whole = tmp_path / f"whole{ending}"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).integers(0, 999, SIZES).astype(np.int16), RAS), whole)
    data = whole.read_bytes()
    path = tmp_path / f"scan{ending}"
    for cut in (0, 3, 100, len(data) // 2, len(data) - 12):
        path.write_bytes(data[:cut])
        with pytest.raises(UserError, match=r"scan\.nii"):
            read_nifti(path)
    if ending == ".nii.gz":
        path.write_bytes(data[:-8] + b"\0\0\0\0" + data[-4:])
        with pytest.raises(UserError, match="cannot be decompressed"):
            read_nifti(path)


def test_absurd_sizes_are_refused_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["dim"] = [3, 32767, 32767, 32767, 1, 1, 1, 1]
    header["magic"] = b"n+1"
    path.write_bytes(gzip.compress(header.binaryblock + b"\0" * 1000))
    with pytest.raises(UserError, match="volumes up to 4 GiB are read"):
        read_nifti(path)


def test_analyze_complex_and_surface_files_are_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(bright_voxel(np.complex64), RAS), tmp_path / "complex.nii")
    with pytest.raises(UserError, match="which are no image"):
        read_nifti(tmp_path / "complex.nii")
    surface = nib.Nifti1Image(bright_voxel(), RAS)
    surface.header["intent_code"] = 3001
    nib.save(surface, tmp_path / "surface.nii")
    with pytest.raises(UserError, match="brain surface"):
        read_nifti(tmp_path / "surface.nii")
    nib.save(nib.AnalyzeImage(bright_voxel(), RAS), tmp_path / "old.img")
    with pytest.raises(UserError, match="does not say which side is left"):
        read_nifti(tmp_path / "old.hdr")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_masks_are_labels(tmp_path: Path, dtype: Any) -> None:
    values = np.zeros(SIZES, dtype)
    values[1:3, 2:4, 1] = 1
    values[5, 5, 3] = 7
    nib.save(nib.Nifti1Image(values, RAS), tmp_path / "scan_seg.nii.gz")
    labels = read_nifti_labels(tmp_path / "scan_seg.nii.gz", 2)
    assert labels.labels == {1: "label 1", 7: "label 7"}
    assert (labels.name, labels.shape, labels.count) == ("scan", (9, 7), 5)
    assert [int(labels.read(number, 1).sum()) for number in range(5)] == [0, 4, 0, 0, 0]
    assert np.argwhere(labels.read(3, 7)).tolist() == [[9 - 1 - 5, 7 - 1 - 5]]


def test_probability_maps_are_refused_as_masks(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full(SIZES, 0.3, np.float32), RAS), tmp_path / "scan.nii")
    with pytest.raises(UserError, match="probability maps"):
        read_nifti_labels(tmp_path / "scan.nii")
    nib.save(nib.Nifti1Image(np.arange(2000, dtype=np.int16).reshape(10, 10, 20), RAS), tmp_path / "scan.nii")
    with pytest.raises(UserError, match="no mask"):
        read_nifti_labels(tmp_path / "scan.nii")
