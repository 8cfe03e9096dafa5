from __future__ import annotations

import dataclasses
import itertools
import random
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut
from pydicom.sequence import Sequence

from gaze_capture.errors import UserError
from segmentation.readers import decoding
from segmentation.readers.burned_in import likely_text
from segmentation.readers.decoding import FileDecoder, decode
from segmentation.readers.deidentify import Pseudonyms
from segmentation.readers.dicom import read_dicom
from segmentation.readers.dicom_files import dicomdir_files, is_dicom
from segmentation.stacks import Plane, Refused, Stack
from tests.benchmarks.dicom_table import outcome
from tests.dicom_support import AXIAL, CARRIED, MR, SAGITTAL, carried, make

IDENTITY = Pseudonyms(bytes(range(32)))


def stacks_of(*files: Path) -> list[Stack]:
    results = list(read_dicom(files, IDENTITY))
    refused = [result for result in results if isinstance(result, Refused)]
    assert not refused, refused
    return [result for result in results if isinstance(result, Stack)]


def refused_of(*files: Path) -> list[Refused]:
    return [result for result in read_dicom(files, IDENTITY) if isinstance(result, Refused)]


def real(plane: Plane) -> npt.NDArray[np.float64]:
    return plane.values.astype(np.float64)[:, :, 0] * plane.slope + plane.intercept


def slices(folder: Path, count: int = 5, **attributes: Any) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index in range(count):
        path = folder / f"{len(list(folder.iterdir())):03}.dcm"
        pixels = np.full((4, 6), index, np.int16)
        # Numbered against their positions: these decide.
        options = {"ImagePositionPatient": [10, 20, 30 + 2.5 * index], "InstanceNumber": count - index}
        make(path, pixels, **(options | attributes))
        files.append(path)
    return files


NAMES = sorted(path.name for path in CARRIED.glob("*.dcm"))
REFUSED = {
    "ExplVR_BigEndNoMeta.dcm": "plan",
    "ExplVR_LitEndNoMeta.dcm": "plan",
    "JPEG-lossy.dcm": "12-bit",
    "JPGExtended.dcm": "12-bit",
    "JPEG2000-embedded-sequence-delimiter.dcm": "",
    "MR_truncated.dcm": "cut short",
    "UN_sequence.dcm": "no image",
    "badVR.dcm": "dose",
    "empty_charset_LEI.dcm": "no image",
    "liver_1frame.dcm": "--masks",
    "liver_expb_1frame.dcm": "--masks",
    "meta_missing_tsyntax.dcm": "",
    "nested_priv_SQ.dcm": "",
    "no_meta.dcm": "",
    "no_meta_group_length.dcm": "no image",
    "priv_SQ.dcm": "no image",
    "reportsi.dcm": "report",
    "reportsi_with_empty_number_tags.dcm": "report",
    "rtplan.dcm": "plan",
    "rtplan_truncated.dcm": "plan",
    "rtstruct.dcm": "contours",
    "test-SR.dcm": "report",
    "waveform_ecg.dcm": "waveform",
    **{name: "dose" for name in NAMES if name.startswith("rtdose")},
}


@pytest.mark.parametrize("name", NAMES)
def test_carried_files_equal_pydicoms_rendering_or_are_refused(name: str) -> None:
    kind, words = outcome(CARRIED / name, IDENTITY)
    if name in REFUSED:
        assert kind == "refused" and REFUSED[name] in words
    elif "32bit" in name:
        # 32-bit colour is rounded to single precision, and says so.
        assert words.endswith("max difference 128")
        stack = stacks_of(CARRIED / name)[0]
        assert "rounded" in stack.read(0).note
    else:
        assert kind == "equal", words


def test_a_shuffled_series_is_sorted_by_position(tmp_path: Path) -> None:
    files = slices(tmp_path, RescaleSlope=2, RescaleIntercept=-1024)
    random.Random(3).shuffle(files)
    (stack,) = stacks_of(*files)
    assert stack.count == 5 and stack.shape == (4, 6, 1) and stack.modality == "ct" and stack.unit == "HU"
    assert [float(real(stack.read(index))[0, 0]) for index in range(5)] == [-1024, -1022, -1020, -1018, -1016]
    assert stack.spacing_mm == (0.5, 0.25) and stack.slice_spacing_mm == 2.5
    assert stack.affine == ((-0.25, 0, 0, -10), (0, -0.5, 0, -20), (0, 0, 2.5, 30), (0, 0, 0, 1))
    assert len(set(stack.source_ids)) == 5 and all(uid.startswith("2.25.") for uid in stack.source_ids)
    assert stack.captured and stack.captured < "2020-01-31" and stack.captured.endswith("T10:15:00")
    assert not stack.notes
    again = stacks_of(tmp_path)[0]
    assert again.source_ids == stack.source_ids and again.name == stack.name


def test_the_affine_agrees_with_an_oblique_plane(tmp_path: Path) -> None:
    files = slices(tmp_path, ImageOrientationPatient=SAGITTAL)
    for index, path in enumerate(files):
        dataset = pydicom.dcmread(path)
        dataset.ImagePositionPatient = [7 + 3 * index, -50, 90]
        dataset.save_as(path)
    (stack,) = stacks_of(*files)
    affine = np.array(stack.affine)
    # Column, row 2, 1 of slice 0: LPS = position + 2 * 0.25 * (0, 1, 0) + 1 * 0.5 * (0, 0, -1).
    first = (affine @ [2, 1, 0, 1])[:3]
    # The normal of (0, 1, 0) x (0, 0, -1) is (-1, 0, 0): the slice furthest to the left comes first.
    np.testing.assert_allclose(first, [-(7 + 12), 50 - 0.5, 89.5])
    assert stack.slice_spacing_mm == 3


def test_mixed_orientations_sizes_and_colours_are_split(tmp_path: Path) -> None:
    slices(tmp_path, 3)
    slices(tmp_path, 2, ImageOrientationPatient=SAGITTAL)
    make(tmp_path / "size.dcm", np.zeros((8, 8), np.int16))
    make(tmp_path / "colour.dcm", np.zeros((4, 6, 3), np.uint8))
    make(tmp_path / "scout.dcm", np.zeros((4, 6), np.int16), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    stacks = stacks_of(tmp_path)
    assert len({stack.name for stack in stacks}) == len(stacks) == 6
    assert len({stack.series for stack in stacks}) == 1
    notes = " ".join(note for stack in stacks for note in stack.notes)
    for word in ("orientations", "image sizes", "colour and grey", "localisers", "overview"):
        assert word in notes


def test_echoes_at_one_position_become_stacks(tmp_path: Path) -> None:
    for echo in (10, 80):
        slices(tmp_path, 3, SOPClassUID=MR, Modality="MR", EchoTime=echo)
    stacks = stacks_of(tmp_path)
    assert [stack.count for stack in stacks] == [3, 3]
    assert {note for stack in stacks for note in stack.notes} == {"echo time 10 ms", "echo time 80 ms"}


def test_twins_that_nothing_tells_apart_become_passes(tmp_path: Path) -> None:
    for _ in range(2):
        slices(tmp_path, 3, SOPClassUID=MR, Modality="MR")
    stacks = stacks_of(tmp_path)
    assert [stack.count for stack in stacks] == [3, 3]
    assert all("several images at one position" in " ".join(stack.notes) for stack in stacks)


def test_an_acquisition_number_that_differs_from_slice_to_slice_splits_nothing(tmp_path: Path) -> None:
    for index, path in enumerate(slices(tmp_path, 4)):
        dataset = pydicom.dcmread(path)
        dataset.AcquisitionNumber = index
        dataset.save_as(path)
    assert [stack.count for stack in stacks_of(tmp_path)] == [4]


def test_what_is_missing_is_noted(tmp_path: Path) -> None:
    slices(tmp_path / "spacing", 2, PixelSpacing=None)
    (stack,) = stacks_of(tmp_path / "spacing")
    assert stack.spacing_mm is None and stack.affine is None and "no pixel spacing" in stack.notes[0]
    files = slices(tmp_path / "gap", 5)
    files[2].unlink()
    (stack,) = stacks_of(tmp_path / "gap")
    assert any("uneven slices" in note for note in stack.notes)
    slices(tmp_path / "positions", 3, ImagePositionPatient=None)
    (stack,) = stacks_of(tmp_path / "positions")
    assert any("no positions" in note for note in stack.notes) and stack.affine is None
    assert [int(real(stack.read(index))[0, 0]) for index in range(3)] == [2, 1, 0]


def test_spacing_at_the_detector_and_of_ultrasound(tmp_path: Path) -> None:
    grey = np.zeros((4, 6), np.uint16)
    xray: dict[str, Any] = {
        "Modality": "DX",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
        "PixelSpacing": None,
    }
    make(tmp_path / "dx.dcm", grey, ImagerPixelSpacing=[0.1, 0.2], **xray)
    (stack,) = stacks_of(tmp_path / "dx.dcm")
    assert stack.modality == "xr" and stack.spacing_mm == (0.1, 0.2) and "detector" in " ".join(stack.notes)
    region = Dataset()
    region.RegionSpatialFormat, region.PhysicalUnitsXDirection, region.PhysicalUnitsYDirection = 1, 3, 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.03, 0.02
    sonography: dict[str, Any] = {"Modality": "US", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}
    options = {**sonography, "PixelSpacing": None, "SequenceOfUltrasoundRegions": Sequence([region])}
    make(tmp_path / "us.dcm", grey, **options)
    (stack,) = stacks_of(tmp_path / "us.dcm")
    assert stack.spacing_mm == pytest.approx((0.2, 0.3)) and stack.modality == "us" and stack.burned_in


def test_stored_bits_are_masked_and_signs_extended(tmp_path: Path) -> None:
    pixels = np.array([[0x0FFF, 0x0800], [0xF7FF, 0x1001]], np.uint16)
    make(tmp_path / "overlay.dcm", pixels, BitsStored=12, HighBit=11, PixelRepresentation=1)
    (stack,) = stacks_of(tmp_path / "overlay.dcm")
    plane = stack.read(0)
    assert plane.values.dtype == np.uint16
    np.testing.assert_array_equal(real(plane), [[-1, -2048], [2047, 1]])
    make(tmp_path / "left.dcm", pixels, BitsStored=12, HighBit=15)
    (stack,) = stacks_of(tmp_path / "left.dcm")
    np.testing.assert_array_equal(real(stack.read(0)), [[0x0FF, 0x080], [0xF7F, 0x100]])


def test_monochrome1_is_inverted_and_its_window_with_it(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "PhotometricInterpretation": "MONOCHROME1",
        "BitsStored": 12,
        "HighBit": 11,
        "WindowCenter": 1000,
        "WindowWidth": 400,
        "RescaleSlope": 2,
        "RescaleIntercept": -10,
        "Modality": "CR",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
    }
    pixels = np.array([[0, 405], [505, 605]], np.uint16)
    make(tmp_path / "cr.dcm", pixels, **options)
    (stack,) = stacks_of(tmp_path / "cr.dcm")
    assert stack.window is not None
    centre, width = stack.window
    shown = np.clip((real(stack.read(0)) - centre) / width + 0.5, 0, 1)
    original = np.clip((pixels * 2.0 - 10 - 1000) / 400 + 0.5, 0, 1)
    np.testing.assert_allclose(shown, 1 - original)
    assert any("MONOCHROME1" in note for note in stack.notes)


def test_a_modality_table_is_applied(tmp_path: Path) -> None:
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [4, 1, 16], "US"
    item.add_new(0x00283006, "US", [100, 200, 300, 65535])
    pixels = np.array([[0, 1, 2], [3, 4, 9]], np.uint16)
    dataset = make(tmp_path / "table.dcm", pixels, ModalityLUTSequence=Sequence([item]))
    (stack,) = stacks_of(tmp_path / "table.dcm")
    np.testing.assert_array_equal(real(stack.read(0)), apply_modality_lut(pixels, dataset))


def test_a_display_table_becomes_a_window(tmp_path: Path) -> None:
    item = Dataset()
    item.LUTDescriptor = [256, 100, 8]
    ramp = np.clip(np.arange(256) * 2 - 100, 0, 255)
    item.add_new(0x00283006, "US", [int(value) for value in ramp])
    make(
        tmp_path / "voi.dcm", np.zeros((4, 4), np.uint16), VOILUTSequence=Sequence([item]), RescaleSlope=None
    )
    (stack,) = stacks_of(tmp_path / "voi.dcm")
    assert stack.window is not None
    assert stack.window[0] == pytest.approx(100 + 50 + 64, abs=2) and stack.window[1] == pytest.approx(
        127, abs=4
    )
    assert any("window" in note for note in stack.notes)


def test_floats_with_holes_are_finite_and_noted(tmp_path: Path) -> None:
    dataset = make(tmp_path / "float.dcm", np.zeros((2, 2), np.uint16), RescaleSlope=2, RescaleIntercept=1)
    del dataset.PixelData
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = np.array([[1.5, np.nan], [np.inf, 4]], np.float32).tobytes()
    dataset.save_as(tmp_path / "float.dcm")
    (stack,) = stacks_of(tmp_path / "float.dcm")
    plane = stack.read(0)
    np.testing.assert_array_equal(real(plane), [[4, 1], [1, 9]])
    assert plane.values.dtype == np.float32 and plane.note.startswith("2 values")


def test_an_enhanced_file_has_its_frames_own_geometry_and_scale(tmp_path: Path) -> None:
    groups = []
    for index, place in enumerate((5.0, 0.0, 2.5)):
        frame, position, scale = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, place]
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = 1 + index, -index, "HU"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = (
            Sequence([position]),
            Sequence([scale]),
        )
        groups.append(frame)
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = AXIAL
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.25], 2.5
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = (
        Sequence([orientation]),
        Sequence([measures]),
    )
    pixels = np.stack([np.full((4, 6), 10 * (index + 1), np.uint16) for index in range(3)])
    options: dict[str, Any] = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1",
        "SharedFunctionalGroupsSequence": Sequence([shared]),
        "PerFrameFunctionalGroupsSequence": Sequence(groups),
    }
    top: dict[str, Any] = {
        "PixelSpacing": None,
        "ImagePositionPatient": None,
        "ImageOrientationPatient": None,
    }
    make(tmp_path / "enhanced.dcm", pixels, **options, **top)
    (stack,) = stacks_of(tmp_path / "enhanced.dcm")
    assert stack.slice_spacing_mm == 2.5 and stack.spacing_mm == (0.5, 0.25)
    assert [float(real(stack.read(index))[0, 0]) for index in range(3)] == [20 * 2 - 1, 30 * 3 - 2, 10]
    assert [uid.partition("#")[2] for uid in stack.source_ids] == ["2", "3", ""]
    assert stack.header["ImageOrientationPatient"] == AXIAL


def test_dicomdir(tmp_path: Path) -> None:
    source = carried("dicomdirtests/DICOMDIR").parent
    disc = tmp_path / "disc"
    shutil.copytree(source, disc)
    listed = dicomdir_files(disc / "DICOMDIR")
    assert len(listed) == 31 and all(isinstance(item, Path) for item in listed)
    results = list(read_dicom([disc / "DICOMDIR"], IDENTITY))
    assert all(isinstance(result, Stack) for result in results)
    assert sum(result.count for result in results if isinstance(result, Stack)) == 31
    shutil.rmtree(disc / "77654033" / "CR1")
    (disc / "77654033").rename(disc / "77654033_")
    (missing,) = {
        result.reason for result in read_dicom([disc / "DICOMDIR"], IDENTITY) if isinstance(result, Refused)
    }
    assert "is missing" in missing


def test_a_dicomdir_leads_nowhere_else(tmp_path: Path) -> None:
    from segmentation.readers.dicom_files import referenced

    (tmp_path / "secret.dcm").write_bytes(b"")
    (tmp_path / "disc").mkdir()
    assert referenced(tmp_path / "disc", ["..", "secret.dcm"]) is None
    assert referenced(tmp_path / "disc", ["/", "etc"]) is None
    assert referenced(tmp_path / "disc", ["NUL\0"]) is None
    assert referenced(tmp_path / "disc", ["..\\secret.dcm"]) is None
    if sys.platform != "win32":
        (tmp_path / "disc" / "LINK").symlink_to(tmp_path / "secret.dcm")
        assert referenced(tmp_path / "disc", ["LINK"]) is None
    (tmp_path / "disc" / "image1").write_bytes(b"")
    assert referenced(tmp_path / "disc", ["IMAGE1"]) == tmp_path / "disc" / "image1"


def test_what_is_dicom(tmp_path: Path) -> None:
    assert is_dicom(carried("CT_small.dcm")) and is_dicom(carried("ExplVR_LitEndNoMeta.dcm"))
    assert is_dicom(carried("ExplVR_BigEndNoMeta.dcm"))
    for name, content in (
        ("a", b""),
        ("b", b"\x08\x00" + bytes(400)),
        ("c", b"text " * 99),
        ("d", b"\x89PNG"),
    ):
        (tmp_path / name).write_bytes(content)
        assert not is_dicom(tmp_path / name)
    assert not is_dicom(tmp_path / "none")
    assert {result.reason for result in refused_of(tmp_path / "a", tmp_path / "none")} == {
        "is not DICOM",
        "is missing",
    }


def test_copies_and_unreasonable_sizes_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "1.dcm", np.zeros((4, 6), np.int16))
    shutil.copy(tmp_path / "1.dcm", tmp_path / "2.dcm")
    assert ["second copy" in result.reason for result in refused_of(tmp_path)] == [True]
    make(tmp_path / "bomb.dcm", np.zeros((4, 6), np.int16), Rows=65535, Columns=65535)
    make(tmp_path / "more.dcm", np.zeros((4, 6), np.int16), NumberOfFrames=1000)
    reasons = [refused_of(tmp_path / name)[0].reason for name in ("bomb.dcm", "more.dcm")]
    assert "more than is sensible" in reasons[0] and "cut short" in reasons[1]


def test_no_patient_turns_up_in_stacks_or_errors(tmp_path: Path) -> None:
    slices(tmp_path / "good", 2)
    # A name where a number belongs: pydicom's own errors would quote it.
    make(tmp_path / "good" / "bad.dcm", np.zeros((4, 6), np.int16))
    data = (tmp_path / "good" / "bad.dcm").read_bytes()
    (tmp_path / "good" / "bad.dcm").write_bytes(data.replace(b"0.5\\0.25", b"Quetzalc"))
    results = list(read_dicom([tmp_path / "good"], IDENTITY))

    def read(index: int) -> Plane:
        return Plane(np.zeros((1, 1, 1), np.uint8))

    text = ""
    for result in results:
        if isinstance(result, Stack):
            text += repr(dataclasses.replace(result, files=(), read=read))
        else:
            text += result.reason
    # The address of a function may hold any number.
    text = text.replace(repr(read), "")
    assert results and "quetzalc" not in text.casefold() and "planted" not in text.casefold()
    assert "1.2.826.0.1.999" not in text and "1950" not in text and "2020-01-31" not in text
    damaged = carried("MR_small_jp2klossless.dcm").read_bytes()
    dataset = pydicom.dcmread(carried("MR_small_jp2klossless.dcm"))
    assert dataset.PatientName
    (tmp_path / "broken.dcm").write_bytes(damaged[:-900] + bytes(900))
    (stack,) = stacks_of(tmp_path / "broken.dcm")
    with pytest.raises(UserError) as caught:
        stack.read(0)
    sentence = str(caught.value)
    assert "broken.dcm" in sentence and "JPEG 2000" in sentence and "damaged" in sentence
    for part in str(dataset.PatientName).split("^"):
        assert part.casefold() not in sentence.replace(str(tmp_path), "").casefold() or not part


def test_pydicoms_warnings_and_log_stay_inside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path / "1.dcm", np.zeros((4, 6), np.int16))
    data = (tmp_path / "1.dcm").read_bytes()
    # A name where a UID belongs: pydicom warns of it, and quotes it.
    changed = data.replace(b"1.2.826.0.1.999.2", b"Quetzalcoatl Plan").replace(b"20200131", b"Planted ")
    assert changed != data
    (tmp_path / "1.dcm").write_bytes(changed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stacks_of(tmp_path / "1.dcm")[0].read(0)
        assert is_dicom(tmp_path / "1.dcm")
    assert not caught and not caplog.records


def test_off_keeps_identities_but_no_free_text(tmp_path: Path) -> None:
    make(tmp_path / "1.dcm", np.zeros((4, 6), np.int16))
    (stack,) = [
        item for item in read_dicom([tmp_path / "1.dcm"], Pseudonyms.off()) if isinstance(item, Stack)
    ]
    assert stack.patient == "quetzalcoatl-42" and stack.captured == "2020-01-31T10:15:00"
    assert stack.series == "1.2.826.0.1.999.2" and "Planted" not in repr(stack)


def test_damaged_files_end_as_a_refusal_or_a_sentence(tmp_path: Path) -> None:
    rng = random.Random(7)
    sources = [
        carried(name) for name in ("MR_small.dcm", "SC_rgb_rle.dcm", "SC_rgb_jpeg_gdcm.dcm", "693_J2KI.dcm")
    ]
    for number_, source in itertools.product(range(12), sources):
        data = bytearray(source.read_bytes())
        for _ in range(rng.choice([1, 5, 40])):
            data[rng.randrange(132, len(data))] = rng.randrange(256)
        path = tmp_path / f"{number_}-{source.name}"
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(200, len(data))])])
        for result in read_dicom([path], IDENTITY):
            if isinstance(result, Stack):
                for index in range(min(result.count, 2)):
                    try:
                        assert result.read(index).values.shape == result.shape
                    except UserError as error:
                        assert str(path) in str(error)


def crashing(case: int) -> bytes:
    """Return a file with a changed JPEG head; GDCM 3.2.6 aborts on 7 of the first 60."""
    data = bytearray(carried("SC_rgb_small_odd_jpeg.dcm").read_bytes())
    rng = random.Random(case)
    start = bytes(data).rfind(b"\xe0\x7f\x10\x00")
    for _ in range(4):
        data[start + 20 + rng.randrange(220)] = rng.randrange(256)
    return bytes(data)


def test_a_decoder_that_crashes_takes_nothing_with_it(tmp_path: Path) -> None:
    source = FileDecoder(carried("693_J2KI.dcm"))
    decode(source, 0)
    process = decoding._child._process
    assert process is not None
    process.kill()
    process.wait()
    assert decode(source, 0).pixels.shape == (512, 512)
    crashes = 0
    for case in range(60):
        path = tmp_path / f"{case}.dcm"
        path.write_bytes(crashing(case))
        try:
            decode(FileDecoder(path), 0)
        except decoding.DecodingError as error:
            crashes += "crashed" in str(error)
    # Whether it crashes depends on the version of the library; that this process lives on does not.
    assert decode(source, 0).pixels.shape == (512, 512), crashes


def test_a_decoder_that_does_not_return_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = [
        sys.executable,
        "-c",
        "import os, time; os.write(1, b'\\x0c\\0\\0\\0{\"bytes\": 0}'); time.sleep(60)",
    ]
    decoding._child.stop()
    monkeypatch.setattr(decoding, "decoder_command", lambda: sleeper)
    monkeypatch.setattr(decoding, "SECONDS", 0.2)
    started = time.monotonic()
    with pytest.raises(decoding.DecodingError, match="did not come to an end"):
        decode(FileDecoder(carried("693_J2KI.dcm")), 0)
    assert time.monotonic() - started < 10
    monkeypatch.undo()
    assert decode(FileDecoder(carried("693_J2KI.dcm")), 0).pixels.shape == (512, 512)


def test_a_codestream_larger_than_allowed_is_not_decoded(tmp_path: Path) -> None:
    data = bytearray(carried("693_J2KI.dcm").read_bytes())
    place = bytes(data).find(b"\xff\x4f\xff\x51")
    data[place + 8 : place + 16] = (60000).to_bytes(4, "big") * 2
    (tmp_path / "bomb.dcm").write_bytes(data)
    with pytest.raises(decoding.DecodingError, match="far beyond its declared size"):
        decode(FileDecoder(tmp_path / "bomb.dcm"), 0)


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "693_J2KI.dcm", "examples_rgb_color.dcm", "SC_rgb_jpeg_gdcm.dcm"]
)
def test_text_burned_into_carried_images_is_found(name: str) -> None:
    (stack,) = stacks_of(carried(name))
    values = stack.read(0).values.astype(np.float64)
    low, high = np.percentile(values, [1, 99])
    shown = np.clip((values - low) / max(high - low, 1) * 200, 0, 200).astype(np.uint8)
    colours = np.repeat(shown, 3 // shown.shape[2], axis=2)
    resized = cv2.resize(colours, (512, 512), interpolation=cv2.INTER_CUBIC)
    picture: npt.NDArray[np.uint8] = np.asarray(resized, dtype=np.uint8)
    before = likely_text(picture)
    assert before == [] or name == "examples_rgb_color.dcm"
    for text, place, scale, colour in (
        ("DOE JANE 1950-01-31", (20, 60), 0.6, (255, 255, 255)),
        ("ID 774411 CT7", (200, 400), 0.8, (255, 255, 0)),
    ):
        marked = picture.copy()
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 2)
        x, y = place
        # As devices do it: on a dark margin.
        marked[y - height - 6 : y + 6, x - 4 : x + width + 4] = 10
        cv2.putText(marked, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
        boxes = likely_text(marked)
        assert any(
            left < x + width and left + across > x and top < y and top + down > y - height
            for left, top, across, down in boxes
        ), text
