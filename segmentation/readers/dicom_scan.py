"""One cheap pass over DICOM headers: what each frame is, where it lies, and what its values mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentation.readers.decoding import (
    IMAGE_KEYWORDS,
    MAX_FRAMES,
    MAX_PIXELS,
    DecodingError,
    Header,
    check_syntax,
    number,
    numbers,
    quiet_pydicom,
    read_header,
    text,
)
from segmentation.readers.deidentify import (
    IDENTITY_KEYWORDS,
    KEPT_KEYWORDS,
    Pseudonyms,
    kept_header,
    patient_of,
)
from segmentation.stacks import Modality, Refused

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

SPLIT_KEYWORDS = {
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
    *SPLIT_KEYWORDS,
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


@dataclass(frozen=True)
class File:
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
class Image:
    """One frame of a file, and where it lies."""

    file: File
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
        """What masks of other programs refer to it by: the file's id and, from the second frame on, its number."""
        # The first frame goes by its file's id alone: whoever refers to a file of one frame may name it or not.
        if not self.file.uid or not self.frame:
            return self.file.uid
        return f"{self.file.uid}#{self.frame + 1}"

    @property
    def along(self) -> float:
        """How far along the slices' normal it lies, in millimetres."""
        assert self.position is not None and self.orientation is not None
        return float(np.dot(self.position, normal_of(self.orientation)))


def normal_of(orientation: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return the normal (3,) of a plane with the given directions (6) of its rows and columns."""
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


def table_of(item: Any) -> tuple[int, npt.NDArray[np.int64], int]:
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
            first, table, _ = table_of(item)
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


def scan(path: Path, identity: Pseudonyms) -> list[Image] | Refused:
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


def _images_of(path: Path, header: Header, identity: Pseudonyms) -> list[Image] | Refused:
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
        mirror = float((1 << table_of(first_item(dataset, "ModalityLUTSequence"))[2]) - 1)
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
    file = File(
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


def _frames_of(file: File, dataset: Any, frames: int) -> list[Image]:
    shared = first_item(dataset, "SharedFunctionalGroupsSequence")
    per_frame = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    several = text(dataset, "NumberOfFrames") not in ("", "None", "1") or bool(per_frame)
    instance = number(dataset, "InstanceNumber") or 0.0
    top_splits = {keyword: value for keyword in SPLIT_KEYWORDS if (value := _split_value(dataset, keyword))}
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
        if orientation is not None and not 0.9 < float(np.linalg.norm(normal_of(orientation))) < 1.1:
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
            Image(
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
