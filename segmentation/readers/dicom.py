"""DICOM files, series, folders and DICOMDIRs as stacks of planes.

One cheap pass over the headers decides what belongs together; pixels are decoded when a plane is asked for.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.readers.decoding import (
    IMAGE_KEYWORDS,
    MAX_FRAMES,
    MAX_PIXELS,
    DecodingError,
    FileDecoder,
    Frame,
    Header,
    check_syntax,
    decode,
    number,
    numbers,
    quiet_pydicom,
    read_header,
    syntax_name,
    text,
)
from segmentation.readers.deidentify import (
    IDENTITY_KEYWORDS,
    KEPT_KEYWORDS,
    Pseudonyms,
    kept_header,
    patient_of,
)
from segmentation.stacks import Modality, Plane, Refused, Stack, Values

_DICOMDIR = "1.2.840.10008.1.3.10"

_NOT_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "is a segmentation: give it to --masks",
    "1.2.840.10008.5.1.4.1.1.66.7": "is a segmentation: give it to --masks",
    "1.2.840.10008.5.1.4.1.1.66.5": "is a segmentation made of surfaces, which cannot be read",
    "1.2.840.10008.5.1.4.1.1.66.6": "holds fibre tracts, not an image",
    "1.2.840.10008.5.1.4.1.1.66": "holds raw data, a registration or fiducials, not an image",
    "1.2.840.10008.5.1.4.1.1.67": "is a mapping of values, not an image",
    "1.2.840.10008.5.1.4.1.1.88": "is a report, not an image",
    "1.2.840.10008.5.1.4.1.1.104": "is a document, not an image",
    "1.2.840.10008.5.1.4.1.1.11": "is a presentation state, not an image",
    "1.2.840.10008.5.1.4.1.1.9": "is a waveform, not an image",
    "1.2.840.10008.5.1.4.1.1.481.1": "",
    "1.2.840.10008.5.1.4.1.1.481.3": "is a radiotherapy structure set (contours), not an image",
    "1.2.840.10008.5.1.4.1.1.481.2": "is a radiotherapy dose, not an image",
    "1.2.840.10008.5.1.4.1.1.481": "is a radiotherapy plan or record, not an image",
    "1.2.840.10008.5.1.4.1.1.77.1.6": "is a whole-slide image made of tiles, which cannot be read",
    "1.2.840.10008.5.1.4.39": "is a table of colours, not an image",
    "1.2.840.10008.5.1.4.34": "is an instruction for treatment, not an image",
}
_NOT_IMAGE_MODALITIES = {
    "SEG": "is a segmentation: give it to --masks",
    "SR": "is a report, not an image",
    "KO": "is a selection of images, not an image",
    "PR": "is a presentation state, not an image",
    "DOC": "is a document, not an image",
    "REG": "is a registration, not an image",
    "ECG": "is a waveform, not an image",
    "RTSTRUCT": "is a radiotherapy structure set (contours), not an image",
    "RTDOSE": "is a radiotherapy dose, not an image",
    "RTPLAN": "is a radiotherapy plan or record, not an image",
    "RTRECORD": "is a radiotherapy plan or record, not an image",
}

_MODALITIES: dict[str, Modality] = {
    "CT": "ct",
    "MR": "mr",
    "US": "us",
    "IVUS": "us",
    "BDUS": "us",
    "CR": "xr",
    "DX": "xr",
    "RF": "xr",
    "XA": "xr",
    "MG": "xr",
    "IO": "xr",
    "PX": "xr",
    "RTIMAGE": "xr",
    "RG": "xr",
    "NM": "nm",
    "PT": "nm",
}
_CLASS_MODALITIES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.6": "US",
    "1.2.840.10008.5.1.4.1.1.3": "US",
    "1.2.840.10008.5.1.4.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.12": "XA",
    "1.2.840.10008.5.1.4.1.1.20": "NM",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
_GREYS = ("MONOCHROME1", "MONOCHROME2")

_PALETTE_KEYWORDS = tuple(
    f"{prefix}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for prefix, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
)
_PLANE_KEYWORDS = ("ModalityLUTSequence", *_PALETTE_KEYWORDS)
_SPLIT_KEYWORDS = {
    "EchoTime": "echo time {} ms",
    "EchoNumbers": "echo {}",
    "DiffusionBValue": "b-value {}",
    "TemporalPositionIdentifier": "point in time {}",
    "TemporalPositionIndex": "point in time {}",
    "TriggerTime": "trigger time {} ms",
    "InversionTime": "inversion time {} ms",
    "AcquisitionNumber": "acquisition {}",
    "KVP": "tube voltage {} kV",
    "ImageType": "type of image {}",
}
_KEYWORDS = (
    *IMAGE_KEYWORDS,
    *KEPT_KEYWORDS,
    *IDENTITY_KEYWORDS,
    *_SPLIT_KEYWORDS,
    "AcquisitionDateTime",
    "AcquisitionTime",
    "ContentTime",
    "SeriesTime",
    "StudyTime",
    "WindowCenter",
    "WindowWidth",
    "VOILUTSequence",
    "ModalityLUTSequence",
    "SequenceOfUltrasoundRegions",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)

_SAME_ORIENTATION = 0.01
_SAME_POSITION_MM = 0.01
_EVEN_GAPS = 0.01
"""Slices are even if no gap differs from the median by more than this part of it (and a hundredth of a millimetre)."""


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM: by its preamble or, without one, by attributes only DICOM has."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(132)
    except OSError:
        return False
    if start[128:] == b"DICM":
        return True
    # A stream without preamble starts with the group of file or of identifying attributes, in either byte order.
    if len(start) < 16 or start[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        return False
    try:
        header = read_header(path, ("SOPClassUID", "Modality"))
    except (DecodingError, OSError):
        return False
    return bool(text(header.dataset, "SOPClassUID") or text(header.dataset, "Modality"))


def _is_dicomdir(path: Path) -> bool:
    from pydicom.filereader import read_file_meta_info

    with quiet_pydicom():
        try:
            return str(read_file_meta_info(path).get("MediaStorageSOPClassUID", "")) == _DICOMDIR
        except Exception:
            return False


def _referenced(folder: Path, parts: Sequence[str]) -> Path | None:
    """Return the file that a DICOMDIR means, in any case of letters; None if it leads out of the folder."""
    if not parts or any(
        part in ("", ".", "..") or not part.isprintable() or set("/\\:") & set(part) for part in parts
    ):
        return None
    path = folder
    for part in parts:
        exact = path / part
        if not exact.exists() and path.is_dir():
            # Drives and archives differ in what they make of the upper-case names on the medium.
            alike = [
                name
                for name in os.listdir(path)
                if name.split(";")[0].rstrip(".").casefold() == part.casefold()
            ]
            exact = path / alike[0] if alike else exact
        path = exact
    return path if path.resolve().is_relative_to(folder.resolve()) else None


def dicomdir_files(path: Path) -> list[Path | Refused]:
    """Return the files that a DICOMDIR refers to, each once; those that are missing or lie elsewhere as `Refused`.

    Raises
    ------
    UserError
        If the DICOMDIR itself cannot be read.
    """
    try:
        header = read_header(path, ("DirectoryRecordSequence",))
        with quiet_pydicom():
            records = list(header.dataset.get("DirectoryRecordSequence") or [])
            names = [text(record, "ReferencedFileID") for record in records]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:
        raise UserError(f"{path} is a damaged DICOMDIR: give its folder instead.") from error
    found: dict[Path, Path | Refused] = {}
    for parts in (name.split("\\") for name in names if name):
        file = _referenced(path.parent, [part.strip() for part in parts])
        if file is None:
            found[path / "/".join(parts)] = Refused(path, "refers to a file outside its own folder")
        elif file.is_file():
            found[file] = file
        else:
            found[file] = Refused(file, f"is missing, though {path.name} refers to it")
    return list(found.values())


def _walk(files: Iterable[Path]) -> Iterator[Path | Refused]:
    """Yield every DICOM file once: those given, those in folders given, those that DICOMDIRs refer to."""
    seen: set[Path] = set()

    def fresh(path: Path) -> bool:
        known = path.resolve()
        if known in seen:
            return False
        seen.add(known)
        return True

    waiting = list(files)
    while waiting:
        path = waiting.pop(0)
        if path.is_dir():
            inside = sorted(
                item for item in path.rglob("*") if item.is_file() and not item.name.startswith(".")
            )
            waiting = [item for item in inside if is_dicom(item)] + waiting
        elif not fresh(path):
            continue
        elif not path.exists():
            yield Refused(path, "is missing")
        elif not is_dicom(path):
            yield Refused(path, "is not DICOM")
        elif _is_dicomdir(path):
            try:
                listed = dicomdir_files(path)
            except UserError:
                yield Refused(path, "is a damaged DICOMDIR: give its folder instead")
                continue
            yield from (
                item for item in listed if isinstance(item, Refused) and fresh(item.file / item.reason)
            )
            waiting = [item for item in listed if isinstance(item, Path)] + waiting
        else:
            yield path


@dataclass(frozen=True)
class _File:
    """What the header pass keeps of a file."""

    path: Path
    series: str
    study: str
    patient: str
    sop_class: str
    uid: str
    modality: Modality
    colour: bool
    inverted: bool
    rows: int
    columns: int
    dtype: str
    bits: int
    high: int
    signed: bool
    """Whether, and of which width, stored values are: `bits` of them, the highest at `high`."""
    has_table: bool
    localiser: bool
    unit: str
    captured: str
    header: dict[str, Any]
    burned_in: str
    notes: tuple[str, ...]
    syntax: str
    mirror: float
    """What a value and its inverse add up to, before rescaling."""


@dataclass(frozen=True)
class _Image:
    """One frame of a file, and where it lies."""

    file: _File
    frame: int | None
    """None in a file of a single frame."""
    order: tuple[float, int]
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    thickness: float | None
    frame_of_reference: str
    slope: float
    intercept: float
    window: tuple[float, float] | None
    splits: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def source_id(self) -> str:
        # The first frame goes by its file's id alone: whoever refers to a file of one frame may name it or not.
        if not self.file.uid or not self.frame:
            return self.file.uid
        return f"{self.file.uid}#{self.frame + 1}"

    @property
    def along(self) -> float:
        """How far along the slices' normal it lies, in millimetres."""
        assert self.position is not None and self.orientation is not None
        return float(np.dot(self.position, _normal(self.orientation)))


def _normal(orientation: Sequence[float]) -> npt.NDArray[np.float64]:
    normal: npt.NDArray[np.float64] = np.cross(orientation[:3], orientation[3:])
    return normal


def _reason_against(header: Header) -> str:
    """Return why a file is no image, or ``""``."""
    sop_class, modality = text(header.dataset, "SOPClassUID"), text(header.dataset, "Modality")
    for prefix, reason in _NOT_IMAGES.items():
        if sop_class == prefix or sop_class.startswith(prefix + "."):
            return reason
    if (sop_class == "" or not header.keyword) and modality in _NOT_IMAGE_MODALITIES:
        return _NOT_IMAGE_MODALITIES[modality]
    return "" if header.keyword else "holds no image"


def first_item(dataset: Any, *keywords: str) -> Any:
    """Follow sequences to their first items; None where one is missing."""
    for keyword in keywords:
        try:
            items = dataset.get(keyword) if dataset is not None else None
            dataset = items[0] if items else None
        except Exception:
            return None
    return dataset


def _positive(values: Sequence[float]) -> tuple[float, float] | None:
    return (values[0], values[1]) if len(values) == 2 and min(values) > 0 else None


def _ultrasound_spacing(dataset: Any) -> tuple[tuple[float, float] | None, str]:
    try:
        regions = list(dataset.get("SequenceOfUltrasoundRegions") or [])
    except Exception:
        return None, ""
    found: set[tuple[float, float]] = set()
    for region in regions:
        # Two-dimensional tissue or colour regions, measured in centimetres; others are traces over time.
        centimetres = all(number(region, f"PhysicalUnits{axis}Direction") == 3 for axis in "XY")
        down = abs(number(region, "PhysicalDeltaY") or 0.0) * 10
        right = abs(number(region, "PhysicalDeltaX") or 0.0) * 10
        if number(region, "RegionSpatialFormat") == 1 and centimetres and down > 0 and right > 0:
            found.add((round(down, 9), round(right, 9)))
    if len(found) == 1:
        return found.pop(), "spacing taken from the ultrasound region; it does not hold outside of it"
    return None, "several ultrasound regions with different spacing" if found else ""


def _spacing(dataset: Any, measures: Any, modality: Modality) -> tuple[tuple[float, float] | None, str]:
    spacing = _positive(numbers(measures, "PixelSpacing")) if measures is not None else None
    spacing = spacing or _positive(numbers(dataset, "PixelSpacing"))
    detector = _positive(numbers(dataset, "ImagerPixelSpacing"))
    if spacing is not None:
        if modality == "xr" and detector == spacing:
            return spacing, "spacing is that at the detector, larger than in the patient"
        return spacing, ""
    if detector is not None:
        return detector, "spacing is that at the detector, larger than in the patient"
    if scanned := _positive(numbers(dataset, "NominalScannedPixelSpacing")):
        return scanned, "spacing is that of the scanned film"
    spacing, note = _ultrasound_spacing(dataset)
    return spacing, note or (
        "" if spacing else "no pixel spacing is stored: sizes in millimetres are unknown"
    )


def _table(item: Any) -> tuple[int, npt.NDArray[np.int64], int]:
    """Return a lookup table's first mapped value, its entries and their bits."""
    entries, first, bits = (int(value) for value in numbers(item, "LUTDescriptor"))
    entries = entries or 1 << 16
    raw = item["LUTData"].value
    if isinstance(raw, (bytes, bytearray)):
        little = item.original_encoding[1] is not False
        packed = bits <= 8 and len(raw) in (entries, entries + 1)
        table = np.frombuffer(raw, dtype=np.uint8 if packed else "<u2" if little else ">u2")
    else:
        table = np.atleast_1d(np.asarray(raw, dtype=np.int64))
    if entries > len(table) or not 1 <= bits <= 16:
        raise ValueError("a lookup table that is cut short")
    return first, table[:entries].astype(np.int64) & ((1 << bits) - 1), bits


def _window(dataset: Any) -> tuple[tuple[float, float] | None, str]:
    centres, widths = numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")
    if item := first_item(dataset, "VOILUTSequence"):
        try:
            first, table, _ = _table(item)
            low, high = int(table.min()), int(table.max())
            rising = table if table[-1] >= table[0] else table[::-1]
            start = int(np.searchsorted(np.maximum.accumulate(rising), low + 0.01 * (high - low)))
            end = int(np.searchsorted(np.maximum.accumulate(rising), low + 0.99 * (high - low)))
            if end > start:
                if rising is not table:
                    start, end = len(table) - 1 - end, len(table) - 1 - start
                window = (first + (start + end) / 2, float(end - start))
                return window, "the lookup table for display is replaced by the window it comes closest to"
        except Exception:
            return None, "the lookup table for display is damaged and left out"
    if centres and widths and widths[0] > 0:
        return (centres[0], widths[0]), ""
    return None, ""


def _burned_in(dataset: Any, sop_class: str, modality: str) -> str:
    said = text(dataset, "BurnedInAnnotation").upper()
    if said == "YES":
        return "The file says that text is burned into its pixels."
    if said == "NO":
        return ""
    if sop_class == _SECONDARY_CAPTURE or sop_class.startswith(_SECONDARY_CAPTURE + "."):
        return "It is a secondary capture; screens often show names."
    if _MODALITIES.get(modality) == "us":
        return "It is an ultrasound image; these often show names at the margin."
    if modality in ("XA", "RF") and "SECONDARY" in text(dataset, "ImageType").upper():
        return "It is a capture of a fluoroscopy screen, which often shows names."
    return ""


def _captured(dataset: Any, patient: str, identity: Pseudonyms) -> str:
    moments = [text(dataset, "AcquisitionDateTime")]
    for kind in ("Acquisition", "Content", "Series", "Study"):
        if date := text(dataset, f"{kind}Date"):
            moments.append(date + text(dataset, f"{kind}Time"))
            moments.append(date)
    return next((shifted for moment in moments if (shifted := identity.shifted(moment, patient))), "")


def _pixel_problem(header: Header, rows: int, columns: int, frames: int, bits: int) -> str:
    """Return why a file's pixels cannot be read, as far as its header tells, or ``""``."""
    dataset = header.dataset
    photometric, samples = text(dataset, "PhotometricInterpretation"), number(dataset, "SamplesPerPixel") or 1
    if rows < 1 or columns < 1:
        return "does not say how large its image is"
    if rows * columns > MAX_PIXELS:
        return f"declares {columns} x {rows} pixels, more than is sensible"
    if not 1 <= frames <= MAX_FRAMES:
        return "declares a number of frames that is not sensible"
    if photometric not in _COLOURS + _GREYS:
        return "does not say, or says in a way unknown here, what its pixel values mean"
    if samples != (1 if photometric in (*_GREYS, "PALETTE COLOR") else 3):
        return "has a number of samples a pixel that contradicts its kind of colour"
    if bits not in (1, 8, 16, 32, 64):
        return "has a number of bits a pixel that cannot be read"
    try:
        check_syntax(header.transfer_syntax)
    except DecodingError as error:
        return f"cannot be decoded: {error}"
    if header.length >= 0:
        needed = rows * columns * int(samples) * frames * bits // 8
        if photometric == "YBR_FULL_422":
            needed = needed * 2 // 3
        if header.length < needed:
            return "is cut short: it holds less pixel data than it declares"
    return ""


def _check_end(path: Path, header: Header) -> str:
    if header.offset > 0 and header.length >= 0 and path.stat().st_size < header.offset + header.length:
        return "is cut short: it ends within its pixel data"
    return ""


def _scan(path: Path, identity: Pseudonyms) -> list[_Image] | Refused:
    """Read a file's header: what its frames are and where they lie."""
    try:
        header = read_header(path, _KEYWORDS)
        with quiet_pydicom():
            if reason := _reason_against(header):
                return Refused(path, reason)
            return _images_of(path, header, identity)
    except OSError as error:
        return Refused(path, f"cannot be read: {error.strerror or 'the system refuses'}")
    except DecodingError as error:
        return Refused(path, f"cannot be read: {error}")
    except Exception:
        # Whatever is odd about one file must not end the import of the others; its text may quote the file.
        return Refused(path, "has a header too damaged to be understood")


def _images_of(path: Path, header: Header, identity: Pseudonyms) -> list[_Image] | Refused:
    dataset = header.dataset
    rows, columns = int(number(dataset, "Rows") or 0), int(number(dataset, "Columns") or 0)
    frames_text = text(dataset, "NumberOfFrames")
    frames = int(number(dataset, "NumberOfFrames") or (0 if frames_text not in ("", "None", "0") else 1))
    allocated = int(number(dataset, "BitsAllocated") or 0)
    if problem := _pixel_problem(header, rows, columns, frames, allocated) or _check_end(path, header):
        return Refused(path, problem)
    sop_class, said = text(dataset, "SOPClassUID"), text(dataset, "Modality").upper()
    if said not in _MODALITIES:
        classes = (name for uid, name in _CLASS_MODALITIES.items() if (sop_class + ".").startswith(uid + "."))
        said = next(classes, said)
    photometric = text(dataset, "PhotometricInterpretation")
    colour = photometric in _COLOURS
    modality: Modality = _MODALITIES.get(said, "photo" if colour else "grey")
    if colour and modality != "us":
        # The screenshot of a scanner is a picture, whatever the scanner.
        modality = "photo"
    bits = int(number(dataset, "BitsStored") or allocated)
    bits = bits if 0 < bits <= allocated else allocated
    high = int(number(dataset, "HighBit") or bits - 1)
    high = high if bits - 1 <= high < allocated else bits - 1
    has_table = not colour and first_item(dataset, "ModalityLUTSequence") is not None
    if header.keyword != "PixelData":
        dtype, bits = "float32", 65
    elif photometric == "PALETTE COLOR":
        depth = (numbers(dataset, "RedPaletteColorLookupTableDescriptor") or (0.0, 0.0, 16.0))[-1]
        dtype = "uint8" if depth <= 8 else "uint16"
    elif has_table:
        dtype = "uint16"
    else:
        dtype = "uint8" if bits <= 8 else "uint16" if bits <= 16 else "float32"
    signed = bool(number(dataset, "PixelRepresentation")) and header.keyword == "PixelData"
    mirror = -1.0 if signed else float((1 << bits) - 1)
    if header.keyword != "PixelData":
        mirror = 0.0
    elif has_table:
        mirror = float((1 << _table(first_item(dataset, "ModalityLUTSequence"))[2]) - 1)
    types = text(dataset, "ImageType").upper().split("\\")
    localiser = "LOCALIZER" in types
    inverted = photometric == "MONOCHROME1"
    unit = _unit(dataset, said, localiser) if not inverted and not colour else ""
    patient = patient_of(dataset, identity)
    notes = []
    if header.departures:
        notes.append("the file departs from the DICOM standard and was read as well as it could be")
    if inverted:
        notes.append("bright and dark are exchanged, as the file asks for (MONOCHROME1)")
    if "MOSAIC" in types:
        notes.append("a mosaic: several slices side by side in one picture")
    if localiser:
        notes.append("a localiser: an overview for planning, not a slice of the examination")
    study = text(dataset, "StudyInstanceUID")
    series = text(dataset, "SeriesInstanceUID") or text(dataset, "SOPInstanceUID") or f"file {path.stem}"
    file = _File(
        path=path,
        series=series,
        study=study,
        patient=patient,
        sop_class=sop_class,
        uid=text(dataset, "SOPInstanceUID"),
        modality=modality,
        colour=colour,
        inverted=inverted,
        rows=rows,
        columns=columns,
        dtype=dtype,
        bits=bits,
        high=high,
        signed=signed,
        has_table=has_table,
        localiser=localiser,
        unit=unit,
        captured=_captured(dataset, patient, identity),
        header=kept_header(dataset, identity),
        burned_in=_burned_in(dataset, sop_class, said),
        notes=tuple(notes),
        syntax=header.transfer_syntax,
        mirror=mirror,
    )
    return _frames_of(file, dataset, frames)


def _unit(dataset: Any, modality: str, localiser: bool) -> str:
    kind = text(dataset, "RescaleType").upper()
    shared = first_item(dataset, "SharedFunctionalGroupsSequence", "PixelValueTransformationSequence")
    if shared is not None:
        kind = text(shared, "RescaleType").upper() or kind
    if modality == "CT" and kind in ("", "HU") and not localiser:
        return "HU"
    if modality == "PT" and text(dataset, "Units").upper() == "BQML":
        return "Bq/ml"
    return ""


def _frames_of(file: _File, dataset: Any, frames: int) -> list[_Image]:
    shared = first_item(dataset, "SharedFunctionalGroupsSequence")
    per_frame = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    several = text(dataset, "NumberOfFrames") not in ("", "None", "1") or bool(per_frame)
    instance = number(dataset, "InstanceNumber") or 0.0
    top_splits = {keyword: value for keyword in _SPLIT_KEYWORDS if (value := _split_value(dataset, keyword))}
    images = []
    for frame in range(frames):
        own = per_frame[frame] if frame < len(per_frame) else None

        def group(keyword: str, own: Any = own) -> Any:
            return first_item(own, keyword) or first_item(shared, keyword)

        measures = group("PixelMeasuresSequence")
        spacing, spacing_note = _spacing(dataset, measures, file.modality)
        position = _three(group("PlanePositionSequence"), dataset, "ImagePositionPatient", 3)
        orientation = _three(group("PlaneOrientationSequence"), dataset, "ImageOrientationPatient", 6)
        if several and not per_frame and frames > 1:
            # The one position of a classic multi-frame file is that of its first frame at best.
            position = orientation = None
        if orientation is not None and not 0.9 < float(np.linalg.norm(_normal(orientation))) < 1.1:
            position = orientation = None
        transformation = group("PixelValueTransformationSequence") or dataset
        slope, intercept = number(transformation, "RescaleSlope"), number(transformation, "RescaleIntercept")
        if slope is None or intercept is None or file.has_table or file.colour:
            # The standard wants both or neither.
            slope, intercept = 1.0, 0.0
        notes = [spacing_note]
        if slope == 0:
            notes.append("a rescale slope of zero is left out")
            slope = 1.0
        window, window_note = _window(group("FrameVOILUTSequence") or dataset)
        if file.colour:
            window, window_note = None, ""
        splits = dict(top_splits)
        for keyword, sequence, name in (
            ("EchoTime", "MREchoSequence", "EffectiveEchoTime"),
            ("DiffusionBValue", "MRDiffusionSequence", "DiffusionBValue"),
            ("TemporalPositionIndex", "FrameContentSequence", "TemporalPositionIndex"),
        ):
            if (item := group(sequence)) is not None and (value := _split_value(item, name)):
                splits[keyword] = value
        thickness = number(measures, "SliceThickness") if measures is not None else None
        between = number(measures, "SpacingBetweenSlices") if measures is not None else None
        thickness = (
            between
            or number(dataset, "SpacingBetweenSlices")
            or thickness
            or number(dataset, "SliceThickness")
        )
        images.append(
            _Image(
                file=file,
                frame=frame if several else None,
                order=(instance, frame),
                position=position if orientation is not None else None,
                orientation=orientation if position is not None else None,
                spacing=spacing,
                thickness=abs(thickness) if thickness else None,
                frame_of_reference=text(dataset, "FrameOfReferenceUID"),
                slope=slope,
                intercept=intercept,
                window=window,
                splits=splits,
                notes=tuple(note for note in (*notes, window_note) if note),
            )
        )
    return images


def _split_value(dataset: Any, keyword: str) -> str:
    """Return what tells images at one position apart, as text without anything but numbers and defined terms."""
    if keyword == "ImageType":
        from segmentation.readers.deidentify import IMAGE_TYPES

        return "/".join(term for term in text(dataset, keyword).upper().split("\\") if term in IMAGE_TYPES)
    value = number(dataset, keyword)
    return "" if value is None else f"{value:g}"


def _three(item: Any, dataset: Any, keyword: str, count: int) -> tuple[float, ...] | None:
    values = numbers(item, keyword) if item is not None else ()
    values = values if len(values) == count else numbers(dataset, keyword)
    return values if len(values) == count else None


def _parts(images: list[_Image], key: Callable[[_Image], Hashable]) -> list[list[_Image]]:
    parts: dict[Hashable, list[_Image]] = {}
    for image in images:
        parts.setdefault(key(image), []).append(image)
    return list(parts.values())


def _by_orientation(images: list[_Image]) -> Callable[[_Image], Hashable]:
    known: list[tuple[float, ...]] = []
    places: dict[int, int] = {}
    for image in images:
        if image.orientation is None:
            places[id(image)] = -1
            continue
        for place, orientation in enumerate(known):
            if np.abs(np.subtract(orientation, image.orientation)).max() < _SAME_ORIENTATION:
                places[id(image)] = place
                break
        else:
            places[id(image)] = len(known)
            known.append(image.orientation)
    return lambda image: places[id(image)]


def _groups(images: list[_Image]) -> list[tuple[list[_Image], tuple[str, ...]]]:
    """Split a series into stacks, each with notes on what sets it apart."""
    rules: list[tuple[str, Callable[[_Image], Hashable]]] = [
        ("kinds of object", lambda image: image.file.sop_class),
        ("localisers and slices", lambda image: image.file.localiser),
        ("colour and grey", lambda image: image.file.colour),
        ("image sizes", lambda image: (image.file.rows, image.file.columns)),
        ("kinds of values", lambda image: (image.file.dtype, image.file.inverted, image.file.has_table)),
        ("orientations", _by_orientation(images)),
        ("pixel spacings", lambda image: tuple(round(value, 4) for value in image.spacing or ())),
        ("frames of reference", lambda image: image.frame_of_reference),
        ("planes with and without a position", lambda image: image.position is not None),
    ]
    groups: list[tuple[list[_Image], tuple[str, ...]]] = [(images, ())]
    for what, key in rules:
        divided = []
        for group, notes in groups:
            parts = _parts(group, key)
            note = (f"split from a series that mixes {what}",) if len(parts) > 1 else ()
            divided += [(part, notes + note) for part in parts]
        groups = divided
    result = []
    for group, notes in groups:
        if group[0].position is not None:
            result += [(part, notes + why) for part, why in _without_twins(group)]
        else:
            result += [(part, notes + why) for part, why in _without_positions(group)]
    return result


def _without_positions(group: list[_Image]) -> list[tuple[list[_Image], tuple[str, ...]]]:
    result: list[tuple[list[_Image], tuple[str, ...]]] = []
    single = [image for image in group if image.frame is None]
    several = [image for image in group if image.frame is not None]
    for part in _parts(several, lambda image: image.file.path):
        result.append((part, ()))
    if single and single[0].file.modality in ("ct", "mr", "nm") and not single[0].file.localiser:
        why = (
            ("no positions are stored: slices are in the order of their numbers",) if len(single) > 1 else ()
        )
        result.append((single, why))
    else:
        # Single views: two X-rays of one series are no neighbours.
        result += [([image], ()) for image in single]
    return result


def _twins(group: list[_Image]) -> int:
    """Return how many images lie at the most crowded position."""
    places = sorted(image.along for image in group)
    most = run = 1
    for before, after in itertools.pairwise(places):
        run = run + 1 if after - before < _SAME_POSITION_MM else 1
        most = max(most, run)
    return most


def _without_twins(group: list[_Image]) -> list[tuple[list[_Image], tuple[str, ...]]]:
    """Split a group so that no two of its planes lie at one position: by echo, b-value, time and the like."""
    crowd = _twins(group)
    if crowd == 1:
        return [(group, ())]
    for keyword, wording in _SPLIT_KEYWORDS.items():
        values = {image.splits.get(keyword, "") for image in group}
        # A value that differs from slice to slice does not tell the twins of one slice apart.
        if not 1 < len(values) <= crowd:
            continue
        parts = _parts(group, lambda image, keyword=keyword: image.splits.get(keyword, ""))  # type: ignore[misc]
        if max(_twins(part) for part in parts) < crowd:
            return [
                (found, (wording.format(part[0].splits.get(keyword) or "not stored"), *why))
                for part in parts
                for found, why in _without_twins(part)
            ]
    passes: list[list[_Image]] = []
    last: dict[int, float] = {}
    for image in sorted(group, key=lambda image: (image.along, image.order)):
        place = next(
            (index for index in range(len(passes)) if image.along - last[index] >= _SAME_POSITION_MM),
            len(passes),
        )
        if place == len(passes):
            passes.append([])
        passes[place].append(image)
        last[place] = image.along
    return [
        (part, (f"pass {index + 1} of {len(passes)}: the series holds several images at one position",))
        for index, part in enumerate(passes)
    ]


def affine_of(
    orientation: Sequence[float],
    first: Sequence[float],
    last: Sequence[float],
    count: int,
    spacing: tuple[float, float],
    thickness: float,
) -> tuple[tuple[float, ...], ...]:
    """Return the affine (RAS+) of planes from the first position to the last, both as DICOM has them (LPS+).

    `spacing` is that of rows and columns; `thickness` stands in for the distance of planes where there is but one.
    """
    down, right = spacing
    affine = np.eye(4)
    affine[:3, 0] = np.multiply(orientation[:3], right)
    affine[:3, 1] = np.multiply(orientation[3:], down)
    affine[:3, 2] = np.subtract(last, first) / (count - 1) if count > 1 else _normal(orientation) * thickness
    affine[:3, 3] = first
    # DICOM counts towards left and posterior. Adding zero turns -0.0 into 0.0.
    affine[:2] *= -1
    affine += 0.0
    return tuple(tuple(float(value) for value in row) for row in affine)


def _geometry(
    images: list[_Image],
) -> tuple[float | None, tuple[tuple[float, ...], ...] | None, list[str]]:
    """Return the distance of slices, the affine (RAS+) and notes of sorted images."""
    first, last = images[0], images[-1]
    if first.position is None or last.position is None or first.orientation is None:
        return None, None, []
    notes = []
    normal = _normal(first.orientation)
    if len(images) > 1:
        gaps = np.diff([image.along for image in images])
        gap = float(np.median(gaps))
        spacing: float | None = gap
        if np.abs(gaps - gap).max() > _EVEN_GAPS * gap + _SAME_POSITION_MM:
            notes.append(
                f"uneven slices: gaps of {gaps.min():.2f} to {gaps.max():.2f} mm; slices may be missing"
            )
        step = np.subtract(last.position, first.position) / (len(images) - 1)
        lean = float(np.linalg.norm(step - np.dot(step, normal) * normal))
        if lean > 0.01 * float(np.linalg.norm(step)):
            notes.append("slices are shifted against each other (tilted gantry)")
    else:
        spacing = None
    if first.spacing is None:
        return spacing, None, notes
    thickness = first.thickness or 1.0
    affine = affine_of(
        first.orientation, first.position, last.position, len(images), first.spacing, thickness
    )
    return spacing, affine, notes


class _Reader:
    """Reads the planes of one stack; keeps the header of the file read last, for those of many frames."""

    def __init__(self, images: list[_Image]) -> None:
        self._images = images
        self._source: FileDecoder | None = None

    def __call__(self, index: int) -> Plane:
        image = self._images[index]
        path = image.file.path
        try:
            if self._source is None or self._source.path != path:
                self._source = None
                self._source = FileDecoder(path, _PLANE_KEYWORDS)
            frame = decode(self._source, image.frame or 0)
            with quiet_pydicom():
                plane = _plane(image, frame, self._source.header.dataset)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
        except DecodingError as error:
            which = f"frame {image.frame + 1} of {path}" if image.frame is not None else f"{path}"
            raise UserError(
                f"{which} cannot be decoded ({syntax_name(image.file.syntax)}): {error}; leave it out or export it "
                "again."
            ) from error
        except Exception as error:
            raise UserError(
                f"{path} cannot be read: its pixel data contradicts its header; leave it out or export it again."
            ) from error
        if frame.departures and not plane.note:
            return dataclasses.replace(plane, note="the pixel data departs from the DICOM standard")
        return plane


def _stored(pixels: npt.NDArray[Any], file: _File) -> npt.NDArray[Any]:
    """Return the values proper: bits beyond those stored, such as overlays, masked off and the sign extended."""
    values: npt.NDArray[Any] = pixels.astype(np.int32 if pixels.dtype.itemsize <= 2 else np.int64)
    width = 8 * pixels.dtype.itemsize
    if pixels.dtype.kind in "ui" and file.bits < width:
        values = (values >> (file.high + 1 - file.bits)) & ((1 << file.bits) - 1)
        if file.signed:
            values -= (values >> (file.bits - 1)) << file.bits
    return values


def _plane(image: _Image, frame: Frame, dataset: Any) -> Plane:
    file, pixels = image.file, frame.pixels
    if file.colour:
        return _colour_plane(file, pixels, dataset)
    if pixels.ndim != 2 or pixels.shape != (file.rows, file.columns):
        raise ValueError("a frame of another shape")
    if pixels.dtype.kind == "f":
        return _float_plane(image, pixels)
    values = _stored(pixels, file)
    if file.has_table:
        first, table, bits = _table(dataset["ModalityLUTSequence"].value[0])
        values = table[np.clip(values - first, 0, len(table) - 1)]
        if file.inverted:
            values = (1 << bits) - 1 - values
        return Plane(values.astype(np.uint16)[:, :, np.newaxis])
    if file.inverted:
        values = int(file.mirror) - values
    if file.dtype == "float32":
        exact = np.abs(values).max(initial=0) <= 1 << 24
        note = "" if exact else "values of more than 24 bits are rounded"
        return Plane(values.astype(np.float32)[:, :, np.newaxis], image.slope, image.intercept, note)
    offset = 1 << (file.bits - 1) if file.signed else 0
    kind: Any = np.uint8 if file.dtype == "uint8" else np.uint16
    stored = cast(Values, (values + offset).astype(kind))
    return Plane(stored[:, :, np.newaxis], image.slope, image.intercept - image.slope * offset)


def _float_plane(image: _Image, pixels: npt.NDArray[Any]) -> Plane:
    finite = np.isfinite(pixels) & (np.abs(pixels) < float(np.finfo(np.float32).max))
    values = np.where(finite, pixels, 0).astype(np.float32)
    missing = int(finite.size - np.count_nonzero(finite))
    note = f"{missing} values that are no numbers were set to 0" if missing else ""
    if not missing and pixels.dtype.itemsize > 4 and not np.array_equal(values, pixels):
        note = "values are rounded to single precision"
    if image.file.inverted:
        values = -values
    return Plane(values[:, :, np.newaxis], image.slope, image.intercept, note)


def _colour_plane(file: _File, pixels: npt.NDArray[Any], dataset: Any) -> Plane:
    from pydicom.pixels.processing import apply_color_lut

    kinds: dict[str, Any] = {"uint8": np.uint8, "uint16": np.uint16, "float32": np.float32}
    if pixels.ndim == 2:
        pixels = apply_color_lut(_stored(pixels, file), dataset)[:, :, :3]
    elif pixels.dtype != np.uint8 or file.bits != 8:
        pixels = _stored(pixels, file)
    rounded = pixels.dtype.kind != "f" and file.dtype == "float32" and pixels.max(initial=0) > 1 << 24
    values = cast(Values, np.ascontiguousarray(pixels.astype(kinds[file.dtype], copy=False)))
    if values.shape != (file.rows, file.columns, 3):
        raise ValueError("a frame of another shape")
    return Plane(values, note="values of more than 24 bits are rounded" if rounded else "")


def _stack(images: list[_Image], name: str, notes: tuple[str, ...], identity: Pseudonyms) -> Stack:
    images = sorted(
        images, key=lambda image: (image.along if image.position is not None else 0.0, *image.order)
    )
    first, middle = images[0], images[len(images) // 2]
    file = first.file
    slice_spacing, affine, geometry_notes = _geometry(images)
    window = middle.window
    if window is not None and file.inverted:
        mirror = file.mirror * middle.slope + 2 * middle.intercept
        window = (mirror - window[0], window[1])
    if file.colour and file.dtype == "uint16":
        bits = 16 if "PALETTE" in file.header.get("PhotometricInterpretation", "") else file.bits
        window = (float(1 << (bits - 1)), float(1 << bits))
    header = dict(file.header)
    for keyword, value in (
        ("ImagePositionPatient", first.position),
        ("ImageOrientationPatient", first.orientation),
        ("PixelSpacing", first.spacing if affine is not None else None),
    ):
        if keyword not in header and value is not None:
            header[keyword] = list(value)
    if first.thickness and "SliceThickness" not in header:
        header["SliceThickness"] = first.thickness
    every = [note for image in images for note in (*image.file.notes, *image.notes)]
    ids = tuple(_replaced(image.source_id, identity) for image in images)
    return Stack(
        name=name,
        files=tuple(dict.fromkeys(image.file.path for image in images)),
        shape=(file.rows, file.columns, 3 if file.colour else 1),
        count=len(images),
        read=_Reader(images),
        modality=file.modality,
        unit=file.unit,
        spacing_mm=first.spacing,
        slice_spacing_mm=slice_spacing,
        affine=affine,
        window=window,
        patient=file.patient,
        series=identity.series(file.series),
        captured=file.captured,
        source_ids=ids if all(ids) else (),
        header=header,
        burned_in=next((image.file.burned_in for image in images if image.file.burned_in), ""),
        notes=tuple(dict.fromkeys((*notes, *every, *geometry_notes))),
    )


def _replaced(source_id: str, identity: Pseudonyms) -> str:
    uid, _, frame = source_id.partition("#")
    return f"{identity.uid(uid)}#{frame}" if frame else identity.uid(uid)


def read_dicom(files: Iterable[Path], identity: Pseudonyms) -> Iterator[Stack | Refused]:
    """Read DICOM files, folders of them and DICOMDIRs: series as stacks, what is no image as `Refused`.

    Planes are sorted by their positions, a series that mixes what does not belong together is split, and each stack
    says so in its notes. A plane's source id is its replaced SOP instance UID; in a file of several frames followed
    by ``#`` and the frame's number from 1.

    Parameters
    ----------
    files
        Files and folders; a folder is searched at any depth, and what is not DICOM in it is passed over.
    identity
        Pseudonyms, or `Pseudonyms.off()` where the user keeps identities.
    """
    series: dict[tuple[str, str], list[_Image]] = {}
    instances: set[str] = set()
    for item in _walk(files):
        found = _scan(item, identity) if isinstance(item, Path) else item
        if isinstance(found, Refused):
            yield found
            continue
        uid = found[0].file.uid
        if uid and uid in instances:
            yield Refused(found[0].file.path, "is a second copy of another file")
            continue
        instances.add(uid)
        series.setdefault((found[0].file.study, found[0].file.series), []).extend(found)
    for images in series.values():
        # Names must not depend on the order in which files are given.
        images.sort(key=lambda image: (image.order, image.file.uid))
        groups = _groups(images)
        groups.sort(key=lambda group: min((image.order, image.file.uid) for image in group[0]))
        for place, (group, notes) in enumerate(groups):
            name = identity.series(images[0].file.series)
            yield _stack(group, name if place == 0 else f"{name}-{place + 1}", notes, identity)
