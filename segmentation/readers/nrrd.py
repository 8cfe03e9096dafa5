"""NRRD volumes and masks: .nrrd, and .nhdr with its data beside it; 3D Slicer's segmentations among them."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import nrrd
import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.readers.shared import explained, stem_of
from segmentation.readers.volumes import (
    Raw,
    Stream,
    Volume,
    checked_sizes,
    labels_of,
    sensible_affine,
    stack_of,
)
from segmentation.stacks import LabelMap, Stack

ENDINGS = (".nrrd", ".nhdr")
"""File name endings, lower case, that are tried as NRRD."""

_MAX_HEADER = 1 << 20
_MAX_TEXT_VALUES = 1 << 24
# Only these lines of a header are looked at; whatever else it holds may name somebody.
_FIELDS = (
    "type", "dimension", "sizes", "encoding", "endian", "data file", "datafile", "byte skip", "byteskip",
    "line skip", "lineskip", "space", "space dimension", "space directions", "space origin", "space units",
    "spacings", "kinds",
)  # fmt: skip
_SEGMENT = re.compile(r"(Segment\d+)_(Name|LabelValue|Layer)$")
_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long"), "i8"),
    **dict.fromkeys(("signed long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(
        ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"
    ),
    "float": "f4",
    "double": "f8",
}
_ENCODINGS: dict[str, Literal["raw", "gzip", "bzip2"]] = {
    "raw": "raw",
    "gzip": "gzip",
    "gz": "gzip",
    "bzip2": "bzip2",
    "bz2": "bzip2",
}
_SPACES = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
_MILLIMETRES = {
    "mm": 1.0,
    "millimeter": 1.0,
    "millimeters": 1.0,
    "cm": 10.0,
    "m": 1000.0,
    "um": 0.001,
    "µm": 0.001,
}
_COLOUR_KINDS = {"rgb-color": 3, "3-color": 3, "rgba-color": 4, "4-color": 4}
_SPATIAL_KINDS = ("domain", "space")
_FIRST_OF_KINDS = ("list", "time", "stub", "scalar", "???", "none")
# The challenge of 2013 gave its label files no names; the collections that it drew on do.
_ISBI = re.compile(r"prostate(3t|dx)-", re.IGNORECASE)
_ISBI_NAMES = {(0, 1): "peripheral zone", (0, 2): "central gland"}


def read_nrrd(path: Path, axis: int | None = None) -> Stack:
    """Read an NRRD image or volume as a stack of slices; its own key/value pairs are not kept.

    Parameters
    ----------
    axis : as for `segmentation.readers.nifti.read_nifti`

    Raises
    ------
    UserError
        If the file is damaged, shorter than declared, or holds what is no image of grey or colour.
    """
    path = Path(path)
    volume, files, _, layers = _volume(path)
    if layers > 1:
        volume = replace(
            volume, notes=(*volume.notes, f"Only the first of {layers} entries at each place was read.")
        )
    return stack_of(volume, axis, stem_of(path), files, {"format": "NRRD"})


def read_nrrd_labels(path: Path, axis: int | None = None) -> LabelMap:
    """Read an NRRD label map, with the names of its segments where 3D Slicer wrote it.

    Parameters
    ----------
    axis : as in `read_nrrd`; give the image's, so that both are cut alike

    Raises
    ------
    UserError
        If the file is damaged or holds values between whole numbers, as probability maps do.
    """
    path = Path(path)
    volume, files, header, count = _volume(path)
    if volume.colour is not None:
        raise UserError(f"{path} holds colours, not labels; save the mask as whole numbers.")
    layers = [volume]
    if volume.layer is not None:
        layers = [replace(volume, layer=(volume.layer[0], number)) for number in range(count)]
    names = _segments(header)
    if not names and _ISBI.match(path.name):
        names = _ISBI_NAMES
    return labels_of(layers, axis, path, files, names)


def _segments(header: dict[str, Any]) -> dict[tuple[int, int], str]:
    segments: dict[str, dict[str, str]] = {}
    for field, value in header.items():
        if match := _SEGMENT.match(field):
            segments.setdefault(match[1], {})[match[2]] = str(value).strip()
    names = {}
    for segment in segments.values():
        value, layer = segment.get("LabelValue", ""), segment.get("Layer", "0")
        if re.fullmatch(r"\d{1,9}", value) and re.fullmatch(r"\d{1,4}", layer) and segment.get("Name"):
            names[int(layer), int(value)] = segment["Name"]
    return names


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header's known fields and its length in bytes."""
    with explained(path), open(path, "rb") as file:
        start = file.read(_MAX_HEADER)
    if not start:
        raise UserError(f"{path} is empty (0 bytes).")
    if not start.startswith(b"NRRD000"):
        raise UserError(f"{path} is not an NRRD file, whatever its name says; choose the original file.")
    lines, at, ended = [], 0, False
    while at < len(start) and not ended:
        stop = start.find(b"\n", at)
        ended = stop < 0
        line = start[at : stop if not ended else len(start)].rstrip()
        at = len(start) if ended else stop + 1
        if not line:
            break
        lines.append(line.decode("utf-8", "replace"))
    kept, seen = lines[:1], set()
    for text in lines[1:]:
        name, colon, value = text.partition(":")
        field = name.strip().lower()
        known = field in _FIELDS and colon and not value.startswith("=")
        if (known or _SEGMENT.match(name)) and field not in seen:
            # Writers differ in the case of field names, which the format does not distinguish.
            kept.append(f"{field}:{value}" if known else text)
            seen.add(field)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(nrrd.read_header(kept)), at
    except Exception as error:
        # The library lets whatever a damaged line causes pass through.
        raise UserError(
            f"{path} has a damaged header ({' '.join(str(error).split())[:200]}); save it again."
        ) from None


def _sizes(path: Path, header: dict[str, Any]) -> tuple[int, ...]:
    missing = [name for name in ("type", "dimension", "sizes", "encoding") if name not in header]
    if missing:
        raise UserError(f"{path} has a damaged header: {', '.join(missing)} is missing; save it again.")
    sizes = tuple(int(size) for size in header["sizes"])
    if header["dimension"] != len(sizes) or not 2 <= len(sizes) <= 8:
        raise UserError(
            f"{path} has {len(sizes)} dimensions where its header should list 2 to 8; save it again."
        )
    return sizes


def _volume(path: Path) -> tuple[Volume, tuple[Path, ...], dict[str, Any], int]:
    header, length = _header(path)
    sizes = _sizes(path, header)
    kind = str(header["type"]).lower()
    if kind not in _TYPES:
        raise UserError(
            f"{path} stores values of type {kind[:40]}, which are no image; convert them to numbers."
        )
    dtype = np.dtype(_TYPES[kind])
    checked_sizes(path, dtype, sizes)
    raw, files = _data(path, header, length, dtype, sizes)
    spatial, colour, layer = _axes(path, header, sizes, dtype)
    layers = 1 if layer is None else sizes[layer]
    if len(spatial) == 2:
        # A single slice: a third axis of size 1 changes nothing in how the values lie.
        raw = replace(
            raw, sizes=(*sizes, 1), memory=None if raw.memory is None else raw.memory[..., np.newaxis]
        )
        spatial.append(len(sizes))
    affine, spacing, notes = _space(header, spatial, len(sizes))
    volume = Volume(
        raw,
        (spatial[0], spatial[1], spatial[2]),
        affine,
        spacing,
        colour,
        notes=tuple(notes),
        layer=None if layer is None else (layer, 0),
    )
    return volume, files, header, layers


def _axes(
    path: Path, header: dict[str, Any], sizes: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[list[int], int | None, int | None]:
    """Tell the axes of space, of colour and of layers."""
    kinds = [str(kind).lower() for kind in header.get("kinds", [])]
    directions = header.get("space directions")
    if len(kinds) != len(sizes):
        kinds = ["domain"] * len(sizes)
        if directions is not None and len(directions) == len(sizes):
            kinds = ["list" if _no_direction(row) else "domain" for row in directions]
        elif len(sizes) == 4:
            kinds = (
                ["list", "domain", "domain", "domain"] if sizes[0] < sizes[3] else ["domain"] * 3 + ["list"]
            )
    spatial, colour, layer = [], None, None
    for axis, kind in enumerate(kinds):
        if kind in _SPATIAL_KINDS:
            spatial.append(axis)
        elif sizes[axis] == 1:
            continue
        elif kind in _COLOUR_KINDS or (kind in ("vector", "list") and sizes[axis] in (3, 4) and axis == 0):
            is_colour = dtype == np.uint8 and sizes[axis] in (3, 4) and colour is None
            if is_colour and (kind != "list" or not _segments(header)):
                colour = axis
            elif kind == "list" and layer is None:
                layer = axis
            else:
                raise UserError(
                    f"{path} keeps several values at each place; save it in grey or as 8-bit RGB."
                )
        elif kind in _FIRST_OF_KINDS and layer is None:
            layer = axis
        else:
            raise UserError(
                f"{path} keeps {kind[:40]} values at each place, which are no image; save it in grey."
            )
    if len(spatial) not in (2, 3):
        raise UserError(f"{path} has {len(spatial)} dimensions in space; images and volumes have 2 or 3.")
    return spatial, colour, layer


def _no_direction(row: Any) -> bool:
    return row is None or not np.isfinite(np.asarray(row, dtype=np.float64)).any()


def _space(
    header: dict[str, Any], spatial: list[int], dimension: int
) -> tuple[npt.NDArray[np.float64] | None, tuple[float, float, float] | None, list[str]]:
    directions, origin = header.get("space directions"), header.get("space origin")
    units = [str(unit).lower() for unit in header.get("space units", [])]
    scale = _MILLIMETRES.get(units[0], 1.0) if units else 1.0
    notes = [] if scale == 1 else ["Its spacing was converted to millimetres."]
    columns = []
    if directions is not None and len(directions) == dimension:
        columns = [
            np.asarray(directions[axis], dtype=np.float64) * scale for axis in spatial if axis < dimension
        ]
    vectors = [column for column in columns if np.isfinite(column).all()]
    signs = _SPACES.get(str(header.get("space", "")).lower())
    if len(vectors) in (2, 3) and len(vectors) == len(columns) and all(len(v) == 3 for v in vectors):
        flat = len(vectors) == 2
        if flat:
            normal = np.cross(vectors[0], vectors[1])
            length = np.linalg.norm(normal)
            vectors.append(normal / length if length > 0 else normal)
        place = np.asarray(origin, dtype=np.float64) * scale if origin is not None else np.zeros(3)
        affine = np.eye(4)
        affine[:3, :3] = np.stack(vectors, axis=1)
        if place.shape == (3,):
            affine[:3, 3] = place
        if sensible_affine(affine):
            lengths = np.linalg.norm(affine[:3, :3], axis=0)
            spacing = (float(lengths[0]), float(lengths[1]), float(lengths[2]))
            if signs is None or origin is None:
                return None, spacing, [*notes, _UNKNOWN]
            affine[:3] *= np.array(signs, dtype=np.float64)[:, np.newaxis]
            return affine, spacing, notes
    listed = header.get("spacings")
    lengths = np.full(3, np.nan)
    if listed is not None and len(listed) == dimension:
        for position, axis in enumerate(spatial):
            lengths[position] = abs(float(listed[axis])) if axis < dimension else 1.0
    elif vectors and len(vectors) == len(columns):
        lengths[: len(vectors)] = [float(np.linalg.norm(vector)) for vector in vectors]
        lengths[len(vectors) :] = 1.0
    if np.isfinite(lengths).all() and lengths.min() >= 1e-3 and lengths.max() <= 1e3:
        return None, (float(lengths[0]), float(lengths[1]), float(lengths[2])), [*notes, _UNKNOWN]
    return None, None, [f"{_UNKNOWN} Its spacing is unknown."]


_UNKNOWN = "Its header does not say how it lies in the patient; slices are shown as stored."


def _data(
    path: Path, header: dict[str, Any], length: int, dtype: np.dtype[Any], sizes: tuple[int, ...]
) -> tuple[Raw, tuple[Path, ...]]:
    """Find where the values begin."""
    body, start = path, length
    files: tuple[Path, ...] = (path,)
    named = header.get("data file", header.get("datafile"))
    if named is not None:
        body = _beside(path, str(named))
        start, files = 0, (path, body)
    lines = int(header.get("line skip", header.get("lineskip", 0)))
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    encoding = str(header["encoding"]).lower()
    if not 0 <= lines <= 100_000 or not -1 <= skip <= 1 << 30:
        raise UserError(
            f"{path} has a damaged header: it skips {lines} lines and {skip} bytes; save it again."
        )
    with explained(body), open(body, "rb") as file:
        file.seek(start)
        for _ in range(lines):
            if not file.readline(_MAX_HEADER):
                break
        start = file.tell()
        total = file.seek(0, 2)
    if encoding in ("ascii", "text", "txt"):
        return _text(body, start, dtype, sizes), files
    if encoding not in _ENCODINGS:
        raise UserError(f"{path} is encoded as {encoding[:40]}; save it raw or with gzip.")
    if dtype.itemsize > 1:
        endian = str(header.get("endian", "")).lower()
        if endian not in ("little", "big"):
            raise UserError(f"{path} has a damaged header: endian must be little or big; save it again.")
        dtype = dtype.newbyteorder("<" if endian == "little" else ">")
    raw = Raw(body, dtype, sizes, encoding=_ENCODINGS[encoding])
    if raw.encoding == "raw":
        return replace(
            raw, offset=total - raw.bytes if skip == -1 and total >= raw.bytes else start + max(skip, 0)
        ), files
    if skip == -1:
        raise UserError(
            f"{path} counts its compressed values from the end, which is not read; save it again."
        )
    # Of compressed data, bytes are skipped after decompression.
    return replace(raw, start=start, offset=skip), files


def _beside(path: Path, named: str) -> Path:
    """Return the detached data file, which is taken only from the header's own folder."""
    if named.split(" ")[0] == "LIST" or "%" in named:
        raise UserError(f"{path} is spread over several data files; save it as one .nrrd file.")
    named = named.removeprefix("./")
    body = path.parent / named
    outside = not named or "/" in named or "\\" in named or "\0" in named or ":" in named
    with explained(path):
        if outside or body.resolve().parent != path.parent.resolve():
            raise UserError(f"{path} refers to data outside its folder; put the data file beside it.")
        if not body.is_file():
            raise UserError(f"{path} lacks its data file {named}; copy both to one folder.")
    return body


def _text(path: Path, start: int, dtype: np.dtype[Any], sizes: tuple[int, ...]) -> Raw:
    count = int(np.prod([int(size) for size in sizes], dtype=object))
    if count > _MAX_TEXT_VALUES:
        raise UserError(f"{path} lists {count} values as text, which is too much; save it raw or with gzip.")
    raw = Raw(path, dtype, sizes, start)
    stream = Stream(raw)
    stream.close()
    with explained(path), open(path, "rb") as file:
        file.seek(start)
        words = file.read(count * 32 + 1024).split(maxsplit=count)[:count]
    if len(words) < count:
        with explained(path):
            raise EOFError
    try:
        values = np.array(words, dtype="S32").astype(np.float64 if dtype.kind == "f" else np.int64)
        if dtype.kind != "f" and (values.min() < np.iinfo(dtype).min or values.max() > np.iinfo(dtype).max):
            raise ValueError
    except (ValueError, OverflowError):
        raise UserError(f"{path} is damaged: some of its values are no {dtype.name} numbers.") from None
    memory = values.astype(dtype).reshape(sizes, order="F")
    return replace(raw, encoding="memory", memory=memory)
