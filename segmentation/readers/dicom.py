"""DICOM files, series, folders and DICOMDIRs as stacks of planes.

One cheap pass over the headers decides what belongs together; pixels are decoded when a plane is asked for.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.readers.decoding import (
    DecodingError,
    FileDecoder,
    Frame,
    decode,
    quiet_pydicom,
    syntax_name,
)
from segmentation.readers.deidentify import (
    Pseudonyms,
)
from segmentation.readers.dicom_files import walk
from segmentation.readers.dicom_scan import SPLIT_KEYWORDS, File, Image, normal_of, scan, table_of
from segmentation.stacks import Plane, Refused, Stack, Values

_PALETTE_KEYWORDS = tuple(
    f"{prefix}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for prefix, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
)
_PLANE_KEYWORDS = ("ModalityLUTSequence", *_PALETTE_KEYWORDS)
_SAME_ORIENTATION = 0.01
_SAME_POSITION_MM = 0.01
_EVEN_GAPS = 0.01
"""Slices are even if no gap differs from the median by more than this part of it (and a hundredth of a millimetre)."""


def _parts(images: list[Image], key: Callable[[Image], Hashable]) -> list[list[Image]]:
    parts: dict[Hashable, list[Image]] = {}
    for image in images:
        parts.setdefault(key(image), []).append(image)
    return list(parts.values())


def _by_orientation(images: list[Image]) -> Callable[[Image], Hashable]:
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


def _groups(images: list[Image]) -> list[tuple[list[Image], tuple[str, ...]]]:
    """Split a series into stacks, each with notes on what sets it apart."""
    rules: list[tuple[str, Callable[[Image], Hashable]]] = [
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
    groups: list[tuple[list[Image], tuple[str, ...]]] = [(images, ())]
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


def _without_positions(group: list[Image]) -> list[tuple[list[Image], tuple[str, ...]]]:
    result: list[tuple[list[Image], tuple[str, ...]]] = []
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


def _twins(group: list[Image]) -> int:
    """Return how many images lie at the most crowded position."""
    places = sorted(image.along for image in group)
    most = run = 1
    for before, after in itertools.pairwise(places):
        run = run + 1 if after - before < _SAME_POSITION_MM else 1
        most = max(most, run)
    return most


def _without_twins(group: list[Image]) -> list[tuple[list[Image], tuple[str, ...]]]:
    """Split a group so that no two of its planes lie at one position: by echo, b-value, time and the like."""
    crowd = _twins(group)
    if crowd == 1:
        return [(group, ())]
    for keyword, wording in SPLIT_KEYWORDS.items():
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
    passes: list[list[Image]] = []
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
    affine[:3, 2] = (
        np.subtract(last, first) / (count - 1) if count > 1 else normal_of(orientation) * thickness
    )
    affine[:3, 3] = first
    # DICOM counts towards left and posterior. Adding zero turns -0.0 into 0.0.
    affine[:2] *= -1
    affine += 0.0
    return tuple(tuple(float(value) for value in row) for row in affine)


def _geometry(
    images: list[Image],
) -> tuple[float | None, tuple[tuple[float, ...], ...] | None, list[str]]:
    """Return the distance of slices, the affine (RAS+) and notes of sorted images."""
    first, last = images[0], images[-1]
    if first.position is None or last.position is None or first.orientation is None:
        return None, None, []
    notes = []
    normal = normal_of(first.orientation)
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

    def __init__(self, images: list[Image]) -> None:
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


def _stored(pixels: npt.NDArray[Any], file: File) -> npt.NDArray[Any]:
    """Return the values proper: bits beyond those stored, such as overlays, masked off and the sign extended."""
    values: npt.NDArray[Any] = pixels.astype(np.int32 if pixels.dtype.itemsize <= 2 else np.int64)
    width = 8 * pixels.dtype.itemsize
    if pixels.dtype.kind in "ui" and file.bits < width:
        values = (values >> (file.high + 1 - file.bits)) & ((1 << file.bits) - 1)
        if file.signed:
            values -= (values >> (file.bits - 1)) << file.bits
    return values


def _plane(image: Image, frame: Frame, dataset: Any) -> Plane:
    file, pixels = image.file, frame.pixels
    if file.colour:
        return _colour_plane(file, pixels, dataset)
    if pixels.ndim != 2 or pixels.shape != (file.rows, file.columns):
        raise ValueError("a frame of another shape")
    if pixels.dtype.kind == "f":
        return _float_plane(image, pixels)
    values = _stored(pixels, file)
    if file.has_table:
        first, table, bits = table_of(dataset["ModalityLUTSequence"].value[0])
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


def _float_plane(image: Image, pixels: npt.NDArray[Any]) -> Plane:
    finite = np.isfinite(pixels) & (np.abs(pixels) < float(np.finfo(np.float32).max))
    values = np.where(finite, pixels, 0).astype(np.float32)
    missing = int(finite.size - np.count_nonzero(finite))
    note = f"{missing} values that are no numbers were set to 0" if missing else ""
    if not missing and pixels.dtype.itemsize > 4 and not np.array_equal(values, pixels):
        note = "values are rounded to single precision"
    if image.file.inverted:
        values = -values
    return Plane(values[:, :, np.newaxis], image.slope, image.intercept, note)


def _colour_plane(file: File, pixels: npt.NDArray[Any], dataset: Any) -> Plane:
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


def _stack(images: list[Image], name: str, notes: tuple[str, ...], identity: Pseudonyms) -> Stack:
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
    ids = tuple(replaced_id(image.source_id, identity) for image in images)
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


def replaced_id(source_id: str, identity: Pseudonyms) -> str:
    """Return a plane's id, a SOP instance UID with or without ``#`` and a frame's number, as a study keeps it."""
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
    series: dict[tuple[str, str], list[Image]] = {}
    instances: set[str] = set()
    for item in walk(files):
        found = scan(item, identity) if isinstance(item, Path) else item
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
