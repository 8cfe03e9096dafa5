"""DICOM segmentations (SEG) as label maps: binary, fractional (cut at half) and label maps of one number a pixel."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.readers.decoding import (
    MAX_FRAMES,
    MAX_PIXELS,
    DecodingError,
    FileDecoder,
    decode,
    number,
    numbers,
    quiet_pydicom,
    syntax_name,
    text,
)
from segmentation.readers.deidentify import Pseudonyms
from segmentation.readers.dicom import affine_of
from segmentation.readers.dicom_scan import first_item
from segmentation.stacks import LabelMap

_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_KEYWORDS = (
    "SOPClassUID",
    "SegmentationType",
    "SegmentsOverlap",
    "SegmentSequence",
    "MaximumFractionalValue",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DimensionOrganizationType",
    "TotalPixelMatrixRows",
)
_LONGEST_LABEL = 64
_SAME_POSITION_MM = 0.01


@dataclass(frozen=True)
class _Frame:
    index: int
    segment: int | None
    """None in a label map, whose pixels say it."""
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    source: str


def _numbers(own: Any, shared: Any, sequence: str, keyword: str, count: int) -> tuple[float, ...] | None:
    for groups in (own, shared):
        values = numbers(item, keyword) if (item := first_item(groups, sequence)) is not None else ()
        if len(values) == count:
            return values
    return None


def _source(own: Any, shared: Any, identity: Pseudonyms) -> str:
    for groups in (own, shared):
        item = first_item(groups, "DerivationImageSequence", "SourceImageSequence")
        if item is not None and (uid := text(item, "ReferencedSOPInstanceUID")):
            frame = number(item, "ReferencedFrameNumber")
            return (
                f"{identity.uid(uid)}#{int(frame)}"
                if frame is not None and int(frame) > 1
                else identity.uid(uid)
            )
    return ""


def _frames(dataset: Any, kind: str, identity: Pseudonyms) -> list[_Frame]:
    shared = first_item(dataset, "SharedFunctionalGroupsSequence")
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    frames = []
    for index in range(int(number(dataset, "NumberOfFrames") or 1)):
        own = groups[index] if index < len(groups) else None
        segment = _numbers(own, shared, "SegmentIdentificationSequence", "ReferencedSegmentNumber", 1)
        spacing = _numbers(own, shared, "PixelMeasuresSequence", "PixelSpacing", 2)
        frames.append(
            _Frame(
                index=index,
                segment=int(segment[0]) if segment and kind != "LABELMAP" else None,
                position=_numbers(own, shared, "PlanePositionSequence", "ImagePositionPatient", 3),
                orientation=_numbers(own, shared, "PlaneOrientationSequence", "ImageOrientationPatient", 6),
                spacing=(spacing[0], spacing[1]) if spacing and min(spacing) > 0 else None,
                source=_source(own, shared, identity),
            )
        )
    return frames


def _planes(frames: list[_Frame]) -> list[list[_Frame]]:
    """Return the frames of each plane, planes sorted along their normal or, without positions, as they come."""
    orientation = frames[0].orientation
    if orientation is not None and all(frame.position is not None for frame in frames):
        normal = np.cross(orientation[:3], orientation[3:])
        along = {frame.index: float(np.dot(frame.position or (0, 0, 0), normal)) for frame in frames}
        planes: list[list[_Frame]] = []
        last = -np.inf
        for frame in sorted(frames, key=lambda frame: (along[frame.index], frame.index)):
            if along[frame.index] - last >= _SAME_POSITION_MM:
                planes.append([])
                last = along[frame.index]
            planes[-1].append(frame)
        return planes
    by_source: dict[str, list[_Frame]] = {}
    for frame in frames:
        by_source.setdefault(frame.source or ("" if len(frames) == 1 else f"frame {frame.index}"), []).append(
            frame
        )
    return list(by_source.values())


def _with_empty_planes(planes: list[list[_Frame]], step: float) -> tuple[list[list[_Frame]], bool]:
    """Put back the planes that were left out because nothing is marked on them.

    Returns the planes, those put back without frames, and whether they are evenly spaced now. Without positions, or
    where gaps are no multiples of the step, planes stay as they are.
    """
    orientation = planes[0][0].orientation
    if orientation is None or any(plane[0].position is None for plane in planes):
        return planes, False
    normal = np.cross(orientation[:3], orientation[3:])
    gaps = np.diff([float(np.dot(plane[0].position or (0, 0, 0), normal)) for plane in planes])
    if len(gaps) == 0:
        return planes, True
    step = step if step > _SAME_POSITION_MM else float(gaps.min())
    steps = np.rint(gaps / step).astype(int)
    if (np.abs(gaps - steps * step) > 0.05 * step).any() or steps.min() < 1 or steps.sum() > MAX_FRAMES:
        return planes, False
    filled = [planes[0]]
    for plane, missing in zip(planes[1:], steps - 1, strict=True):
        filled += [[] for _ in range(missing)]
        filled.append(plane)
    return filled, True


class _Masks:
    """Reads the mask of a plane and a label; keeps the last decoded frame of a label map."""

    def __init__(self, decoder: FileDecoder, planes: list[list[_Frame]], cut: float) -> None:
        self._decoder = decoder
        self._planes = planes
        self._cut = cut
        self._kept: tuple[int, npt.NDArray[Any]] | None = None

    def _pixels(self, index: int) -> npt.NDArray[Any]:
        if self._kept is not None and self._kept[0] == index:
            return self._kept[1]
        path, header = self._decoder.path, self._decoder.header
        try:
            pixels = decode(self._decoder, index).pixels
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
        except DecodingError as error:
            name = syntax_name(header.transfer_syntax)
            raise UserError(f"Frame {index + 1} of {path} cannot be decoded ({name}): {error}.") from error
        self._kept = (index, pixels)
        return pixels

    def __call__(self, plane: int, label: int) -> npt.NDArray[np.bool_]:
        dataset = self._decoder.header.dataset
        shape = (int(number(dataset, "Rows") or 0), int(number(dataset, "Columns") or 0))
        mask = np.zeros(shape, dtype=np.bool_)
        for frame in self._planes[plane]:
            if frame.segment is None:
                mask |= self._pixels(frame.index) == label
            elif frame.segment == label:
                mask |= self._pixels(frame.index) >= self._cut
        return mask


def read_dicom_seg(path: Path, identity: Pseudonyms) -> LabelMap:
    """Read a DICOM segmentation.

    Planes come sorted along their normal; each names the image it was drawn on, where the file does, by the same
    replaced id that `read_dicom` gives it in `source_ids`.

    Raises
    ------
    UserError
        If the file is unreadable or no segmentation of pixels.
    """
    try:
        decoder = FileDecoder(path, _KEYWORDS)
        dataset = decoder.header.dataset
        with quiet_pydicom():
            return _label_map(path, decoder, dataset, identity)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except DecodingError as error:
        raise UserError(f"{path} cannot be read as a segmentation: {error}.") from error
    except Exception as error:
        raise UserError(f"{path} cannot be read as a segmentation: its header is damaged.") from error


def _label_map(path: Path, decoder: FileDecoder, dataset: Any, identity: Pseudonyms) -> LabelMap:
    kind = text(dataset, "SegmentationType").upper()
    if text(dataset, "SOPClassUID") not in _SEGMENTATIONS or kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise UserError(f"{path} is no DICOM segmentation made of pixels: give a SEG file.")
    if text(dataset, "DimensionOrganizationType").upper().startswith("TILED") or number(
        dataset, "TotalPixelMatrixRows"
    ):
        raise UserError(f"{path} segments a whole-slide image made of tiles, which cannot be read.")
    rows, columns = int(number(dataset, "Rows") or 0), int(number(dataset, "Columns") or 0)
    count = int(number(dataset, "NumberOfFrames") or 1)
    if not 0 < rows * columns <= MAX_PIXELS or not 0 < count <= MAX_FRAMES:
        raise UserError(f"{path} declares a size that is not sensible: export it again.")
    bits = rows * columns * count * int(number(dataset, "BitsAllocated") or 8)
    if 0 <= decoder.header.length * 8 < bits:
        raise UserError(f"{path} is cut short: it holds fewer masks than it declares; export it again.")
    frames = _frames(dataset, kind, identity)
    if kind != "LABELMAP" and any(frame.segment is None for frame in frames):
        raise UserError(f"{path} does not say which segment its frames belong to: export it again.")
    labels = {}
    for item in dataset.get("SegmentSequence") or []:
        value = int(number(item, "SegmentNumber") or 0)
        label = " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text(item, "SegmentLabel")).split())
        if value > 0:
            labels[value] = label[:_LONGEST_LABEL] or f"segment {value}"
    if kind != "LABELMAP":
        present = {frame.segment for frame in frames}
        # A frame may refer to a segment that the list of segments forgot.
        labels = {value: labels.get(value, f"segment {value}") for value in sorted(v for v in present if v)}
    planes = _planes(frames)
    measures = first_item(dataset, "SharedFunctionalGroupsSequence", "PixelMeasuresSequence")
    if measures is None:
        group = first_item(dataset, "PerFrameFunctionalGroupsSequence")
        measures = first_item(group, "PixelMeasuresSequence")
    declared = number(measures, "SpacingBetweenSlices") if measures is not None else None
    planes, is_even = _with_empty_planes(planes, abs(declared or 0.0))
    sources = [next((frame.source for frame in plane if frame.source), "") for plane in planes]
    affine = None
    first, last = planes[0][0], planes[-1][0]
    if is_even and first.orientation and first.position and last.position and first.spacing:
        step = declared or (number(measures, "SliceThickness") if measures is not None else None) or 1.0
        affine = affine_of(
            first.orientation, first.position, last.position, len(planes), first.spacing, abs(step)
        )
    top = number(dataset, "MaximumFractionalValue") or 255.0
    return LabelMap(
        name="",
        files=(path,),
        labels=labels,
        shape=(rows, columns),
        count=len(planes),
        read=_Masks(decoder, planes, top / 2 if kind == "FRACTIONAL" else 1),
        affine=affine,
        source_ids=tuple(sources) if all(sources) else (),
    )
