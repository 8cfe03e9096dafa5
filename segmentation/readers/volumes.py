"""What volume files share: bounded reading of their values plane by plane, display orientation, exact packing."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from nibabel.orientations import io_orientation

from gaze_capture.errors import UserError
from segmentation.images import MAX_PIXELS
from segmentation.readers.shared import FLOAT32_MAX, Range, explained, image_name_of, not_numbers, packed
from segmentation.stacks import LabelMap, Plane, Stack

Affine = tuple[tuple[float, ...], ...]
Array = npt.NDArray[Any]

MAX_BYTES = 1 << 32
"""A volume that declares more is refused before it is read: 4 GiB."""
MAX_LABELS = 1000
"""A file with more different values than this is no label map."""
_IN_MEMORY = 1 << 28
_BLOCK = 1 << 22
# Viewers show axial, coronal and sagittal slices so that the patient faces the viewer: for each slice axis of
# right-anterior-superior space, the axis that rows run along and the one that columns run along.
_ROWS_AND_COLUMNS = {0: (2, 1), 1: (2, 0), 2: (1, 0)}


@dataclass(frozen=True)
class Raw:
    """Where the values of a volume lie, and how; sizes are listed fastest axis first."""

    path: Path
    """The file that a sentence about damage names."""
    dtype: np.dtype[Any]
    sizes: tuple[int, ...]
    offset: int = 0
    """Bytes before the first value: in the file for ``raw``, in the compressed stream otherwise."""
    encoding: Literal["raw", "gzip", "bzip2", "memory"] = "raw"
    start: int = 0
    """Bytes of the file before the compressed stream."""
    memory: Array | None = None
    """The values themselves, where they had to be parsed."""

    @property
    def bytes(self) -> int:
        """Size of all values."""
        return int(np.prod([int(size) for size in self.sizes], dtype=object)) * self.dtype.itemsize


@dataclass(frozen=True)
class Volume:
    """A raw volume with the meaning of its axes."""

    raw: Raw
    spatial: tuple[int, int, int]
    """Stored axes that are space."""
    affine: npt.NDArray[np.float64] | None
    """4x4 from indices along `spatial` to millimetres RAS+, or None where orientation is unknown."""
    spacing: tuple[float, float, float] | None = None
    """Along `spatial`; None where unknown."""
    colour: int | None = None
    """Stored axis of red, green, blue (and alpha)."""
    slope: float = 1.0
    intercept: float = 0.0
    notes: tuple[str, ...] = ()
    layer: tuple[int, int] | None = None
    """(stored axis, index) that is read of a file with several layers; other axes are read at 0."""


@dataclass(frozen=True)
class Grid:
    """How planes are cut from the stored array."""

    axis: int
    """Slice axis in right-anterior-superior order: 0 sagittal, 1 coronal, 2 axial; without orientation as stored."""
    stored: tuple[int, int, int]
    """Of `Volume.spatial`, the positions that columns, rows and slices run along."""
    flipped: tuple[bool, bool, bool]
    """Whether columns, rows and slices run against the stored order."""
    affine: npt.NDArray[np.float64] | None
    """4x4 from (column, row, slice, 1)."""


class Stream:
    """A file, decompressed on the fly, that never gives more than it is asked for."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        self._file = open(raw.path, "rb")
        self._inner: BinaryIO = self._file
        try:
            self._file.seek(raw.start)
            if raw.encoding == "gzip":
                self._inner = gzip.GzipFile(fileobj=self._file, mode="rb")  # type: ignore[assignment]
            elif raw.encoding == "bzip2":
                self._inner = bz2.BZ2File(self._file)  # type: ignore[assignment]
            self.skip(raw.offset)
        except BaseException:
            self.close()
            raise

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes."""
        parts, missing = [], size
        with self._explained():
            while missing:
                part = self._inner.read(min(missing, _BLOCK))
                if not part:
                    raise EOFError
                parts.append(part)
                missing -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Pass over `size` bytes."""
        with self._explained():
            if self._inner is self._file:
                self._file.seek(size, 1)
                return
            while size:
                part = self._inner.read(min(size, _BLOCK))
                if not part:
                    raise EOFError
                size -= len(part)

    def check_end(self) -> None:
        """Let a compressed stream that ends here compare its check sum."""
        with self._explained():
            self._inner.read(1)

    def close(self) -> None:
        """Close the file."""
        if self._inner is not self._file:
            with contextlib.suppress(OSError, EOFError, zlib.error, ValueError):
                self._inner.close()
        self._file.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        with explained(self._raw.path):
            yield


def checked_sizes(path: Path, dtype: np.dtype[Any], sizes: tuple[int, ...]) -> None:
    """Refuse sizes that cannot be, or that are too much to read.

    Raises
    ------
    UserError
        If a size is below 1 or all together exceed `MAX_BYTES`.
    """
    if any(size < 1 for size in sizes):
        raise UserError(f"{path} is damaged: its header declares a size of {' x '.join(map(str, sizes))}.")
    total = int(np.prod(list(sizes), dtype=object)) * dtype.itemsize
    if total > MAX_BYTES:
        raise UserError(
            f"{path} declares {' x '.join(map(str, sizes))} values, {total / 2**30:.1f} GiB; "
            f"volumes up to {MAX_BYTES >> 30} GiB are read, so crop it or reduce its resolution."
        )


def checked_length(raw: Raw) -> None:
    """Refuse an uncompressed file that is shorter than its header declares."""
    if raw.encoding == "raw":
        with explained(raw.path):
            if raw.path.stat().st_size < raw.offset + raw.bytes:
                raise EOFError


def sensible_affine(affine: npt.NDArray[np.float64]) -> bool:
    """Tell whether an affine can be the place of a patient: finite, invertible, spacing 1 um to 1 m."""
    if not np.isfinite(affine).all() or np.abs(affine).max() > 1e6:
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() < 1e-3 or lengths.max() > 1e3:
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-3)


def grid_of(volume: Volume, axis: int | None) -> Grid:
    """Choose slices: along `axis`, or the coarsest, or the third."""
    sizes = [volume.raw.sizes[stored] for stored in volume.spatial]
    if volume.affine is None:
        order = [0, 1, 2]
        against = [False, False, False]
    else:
        orientation = io_orientation(volume.affine)
        order = [int(np.flatnonzero(orientation[:, 0] == canonical)[0]) for canonical in range(3)]
        against = [bool(orientation[stored, 1] < 0) for stored in order]
    if axis is None:
        axis = _slice_axis(volume, order, sizes)
    if axis not in _ROWS_AND_COLUMNS:
        raise UserError(f"{volume.raw.path} has no axis {axis}; choose 0, 1 or 2.")
    rows, columns = _ROWS_AND_COLUMNS[axis]
    if volume.affine is None:
        rows, columns = sorted((rows, columns), reverse=True)
    stored = (order[columns], order[rows], order[axis])
    if volume.affine is None:
        return Grid(axis, stored, (False, False, False), None)
    # Columns run to the patient's left (or, sagittal, backwards), rows downwards or backwards: against RAS.
    flipped = (not against[columns], not against[rows], against[axis])
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for display, (position, flip) in enumerate(zip(stored, flipped, strict=True)):
        change[position, display] = -1 if flip else 1
        if flip:
            change[position, 3] = sizes[position] - 1
    return Grid(axis, stored, flipped, volume.affine @ change)


def _slice_axis(volume: Volume, order: list[int], sizes: list[int]) -> int:
    single = [canonical for canonical in range(3) if sizes[order[canonical]] == 1]
    if len(single) == 1:
        return single[0]
    if volume.spacing is None:
        return 2
    spacing = [volume.spacing[position] for position in order]
    coarsest = int(np.argmax(spacing))
    others = max(value for canonical, value in enumerate(spacing) if canonical != coarsest)
    # Resampled volumes differ by rounding; that is no direction of acquisition.
    return coarsest if spacing[coarsest] > others * 1.01 else 2


class Planes:
    """Reads stored planes (H, W) or (H, W, C) of a volume, in ascending order with bounded memory."""

    def __init__(self, volume: Volume, grid: Grid) -> None:
        self._raw = raw = volume.raw
        self._flipped = grid.flipped
        columns, rows, slices = (volume.spatial[position] for position in grid.stored)
        self._slices = slices
        self.height, self.width, self.count = raw.sizes[rows], raw.sizes[columns], raw.sizes[slices]
        if self.height * self.width > MAX_PIXELS:
            raise UserError(f"{raw.path} is too large: slices of {self.width} x {self.height} pixels.")
        kept = [rows, columns] + ([volume.colour] if volume.colour is not None else [])
        self._index: list[Any] = [slice(None) if axis in kept else 0 for axis in range(len(raw.sizes))]
        if volume.layer is not None:
            self._index[volume.layer[0]] = volume.layer[1]
        left = sorted(kept)
        self._transpose = [left.index(axis) for axis in kept]
        slower = range(slices + 1, len(raw.sizes))
        whole = all(raw.sizes[axis] == 1 or self._index[axis] == 0 for axis in slower)
        self._in_rows = whole and raw.memory is None
        self._chunk = int(np.prod(raw.sizes[:slices], dtype=np.int64)) * raw.dtype.itemsize
        if self._chunk > _IN_MEMORY * 2 and self._chunk > self.height * self.width * raw.dtype.itemsize * 4:
            self._in_rows = False
        self._stream: Stream | None = None
        self._next = 0
        self._spilled: Array | None = raw.memory

    def __call__(self, number: int) -> Array:
        """Return plane `number`, 0..count-1, in display orientation."""
        if not 0 <= number < self.count:
            raise IndexError(number)
        stored = self.count - 1 - number if self._flipped[2] else number
        with explained(self._raw.path):
            if self._in_rows and (self._raw.encoding == "raw" or not self._flipped[2]):
                plane = self._from_stream(stored)
            else:
                plane = self._from_whole(stored)
        plane = plane.transpose(self._transpose)
        plane = plane[:: -1 if self._flipped[1] else 1, :: -1 if self._flipped[0] else 1]
        plane = np.ascontiguousarray(plane)
        if number == self.count - 1:
            self.close()
        return plane

    def close(self) -> None:
        """Let go of the open file and of what was decompressed."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._spilled = self._raw.memory

    def __del__(self) -> None:
        if getattr(self, "_stream", None) is not None:
            self.close()

    def _from_stream(self, stored: int) -> Array:
        raw = self._raw
        if raw.encoding == "raw":
            stream = Stream(replace(raw, offset=raw.offset + stored * self._chunk))
            try:
                data = stream.read(self._chunk)
            finally:
                stream.close()
        else:
            if self._stream is not None and 0 < stored < self._next:
                # Read backwards, every plane would start the stream anew.
                self.close()
                self._in_rows = False
                return self._from_whole(stored)
            if self._stream is None or stored < self._next:
                self.close()
                self._stream = Stream(raw)
                self._next = 0
            try:
                self._stream.skip((stored - self._next) * self._chunk)
                data = self._stream.read(self._chunk)
                self._next = stored + 1
                if self._next == self.count:
                    self._stream.check_end()
            except UserError:
                self.close()
                raise
        chunk = np.frombuffer(data, raw.dtype).reshape(raw.sizes[: self._slices], order="F")
        plane: Array = chunk[tuple(self._index[: self._slices])]
        return plane

    def _from_whole(self, stored: int) -> Array:
        raw = self._raw
        index = list(self._index)
        index[self._slices] = stored
        if raw.encoding == "raw":
            whole = np.memmap(raw.path, raw.dtype, "r", raw.offset, raw.sizes, "F")
            return np.array(whole[tuple(index)])
        if self._spilled is None:
            self._spilled = self._decompressed()
        plane: Array = self._spilled[tuple(index)]
        return plane

    def _decompressed(self) -> Array:
        raw = self._raw
        stream = Stream(raw)
        try:
            if raw.bytes <= _IN_MEMORY:
                data = stream.read(raw.bytes)
                stream.check_end()
                return np.frombuffer(data, raw.dtype).reshape(raw.sizes, order="F")
            # Slices across the stored order need the whole volume at hand; on disk, not in memory.
            with tempfile.TemporaryFile() as file:
                left = raw.bytes
                while left:
                    file.write(stream.read(min(left, _BLOCK)))
                    left -= min(left, _BLOCK)
                stream.check_end()
                file.flush()
                return np.memmap(file, raw.dtype, "r", 0, raw.sizes, "F")
        finally:
            stream.close()


def stack_of(
    volume: Volume, axis: int | None, name: str, files: tuple[Path, ...], header: dict[str, Any]
) -> Stack:
    """Make the stack of a volume; compressed files and those of wide types are read once to know their range.

    Raises
    ------
    UserError
        If the file is shorter than declared, damaged, or holds what cannot be shown.
    """
    checked_length(volume.raw)
    grid = grid_of(volume, axis)
    planes = Planes(volume, grid)
    dtype = volume.raw.dtype
    notes = list(volume.notes)
    known = Range()
    if volume.raw.encoding != "raw" or dtype.kind == "f" or dtype.itemsize > 2:
        for number in range(planes.count):
            known.take(planes(number))
        if known.bad:
            notes.append(f"{not_numbers(known.bad)}.")
        if not known.whole or known.high - known.low > 65535:
            exact = (
                dtype.itemsize <= 4 if dtype.kind == "f" else max(abs(known.low), abs(known.high)) <= 2**24
            )
            if not exact:
                notes.append("Values were rounded to 7 digits (32-bit floating point).")
    largest = max(abs(known.low), abs(known.high)) if np.isfinite(known.low) else 65535.0
    if not largest * abs(volume.slope) + abs(volume.intercept) < FLOAT32_MAX:
        raise UserError(f"{volume.raw.path} scales its values beyond what can be stored; check its header.")
    channels = 1 if volume.colour is None else 3

    def read(number: int) -> Plane:
        values = planes(number)
        if values.ndim == 3:
            return Plane(np.ascontiguousarray(values[:, :, :3]).astype(np.uint8))
        pixels, offset, bad = packed(values, known)
        intercept = offset * volume.slope + volume.intercept
        return Plane(pixels[:, :, np.newaxis], volume.slope, intercept, not_numbers(bad))

    spacing = volume.spacing
    columns, rows, slices = grid.stored
    return Stack(
        name=name,
        files=files,
        shape=(planes.height, planes.width, channels),
        count=planes.count,
        read=read,
        modality="grey" if volume.colour is None else "photo",
        spacing_mm=None if spacing is None else (spacing[rows], spacing[columns]),
        slice_spacing_mm=None if spacing is None or planes.count == 1 else spacing[slices],
        affine=None if grid.affine is None else as_tuple(grid.affine),
        header={**header, "axis": grid.axis, "stored_type": dtype.name},
        notes=tuple(notes),
    )


def as_tuple(affine: npt.NDArray[np.float64]) -> Affine:
    """Return a matrix as `Stack.affine` keeps it."""
    return tuple(tuple(float(value) for value in row) for row in affine)


def labels_of(
    layers: list[Volume],
    axis: int | None,
    path: Path,
    files: tuple[Path, ...],
    names: dict[tuple[int, int], str],
) -> LabelMap:
    """Make the label map of a volume, or of the layers of one.

    Parameters
    ----------
    names : (layer, value) -> name; other values that occur are called "label N"

    Raises
    ------
    UserError
        If the file is damaged or holds values that are no labels, such as probabilities.
    """
    checked_length(layers[0].raw)
    grid = grid_of(layers[0], axis)
    readers = [Planes(layer, grid) for layer in layers]
    found: dict[tuple[int, int], None] = {}
    for number, planes in enumerate(readers):
        occurring = _label_values(path, layers[number], planes)
        found.update(dict.fromkeys((number, value) for value in sorted(occurring) if value != 0))
    values = [value for _, value in found]
    unique = len(set(values)) == len(values)
    numbers = {key: key[1] if unique else order for order, key in enumerate(found, 1)}
    where = {number: key for key, number in numbers.items()}
    recent: dict[int, tuple[int, Array]] = {}

    def read(plane: int, label: int) -> npt.NDArray[np.bool_]:
        layer, value = where[label]
        # The labels of a plane are asked for one after the other; the plane is read once for all of them.
        if layer not in recent or recent[layer][0] != plane:
            recent[layer] = (plane, _whole(path, layers[layer], readers[layer](plane)))
        mask: npt.NDArray[np.bool_] = recent[layer][1] == value
        return mask

    return LabelMap(
        name=image_name_of(path),
        files=files,
        labels={number: names.get(key, f"label {key[1]}") for key, number in numbers.items()},
        shape=(readers[0].height, readers[0].width),
        count=readers[0].count,
        read=read,
        affine=None if grid.affine is None else as_tuple(grid.affine),
    )


def _label_values(path: Path, volume: Volume, planes: Planes) -> set[int]:
    values: set[int] = set()
    for number in range(planes.count):
        plane = _whole(path, volume, planes(number))
        if plane.dtype.itemsize == 1 and plane.dtype.kind == "u":
            values.update(np.flatnonzero(np.bincount(plane.ravel(), minlength=256)).tolist())
        else:
            values.update(np.unique(plane).tolist())
        if len(values) > MAX_LABELS:
            planes.close()
            raise UserError(
                f"{path} holds more than {MAX_LABELS} different values, so it is no mask; choose the label file."
            )
    return values


def _whole(path: Path, volume: Volume, values: Array) -> Array:
    """Return labels as integers."""
    if volume.slope == 1 and volume.intercept == 0 and values.dtype.kind in "iu":
        return values
    with np.errstate(all="ignore"):
        # What is no number stays none, and is refused below.
        real = values * np.float64(volume.slope) + np.float64(volume.intercept)
    if not (np.abs(real) < 2**31).all() or not (np.rint(real) == real).all():
        raise UserError(
            f"{path} holds values between whole numbers, as probability maps do, so it is no mask; "
            "threshold it where it was made and save labels."
        )
    return real.astype(np.int32)
