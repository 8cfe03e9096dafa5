"""Masks drawn on one grid, read on another: that of the image they belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.readers.volumes import Affine
from segmentation.stacks import LabelMap

Mask = npt.NDArray[np.bool_]

EXACT = 0.01
"""Grids that differ by no more than this part of a voxel anywhere are the same."""
_MAX_VOXELS = 1 << 31
_ROWS_AT_ONCE = 256
# Half-way places all go up, so that a shift by half a voxel leaves no gaps.
_UP = 1e-6


class OnGrid(Protocol):
    """What of an image decides where its masks lie; a `Stack` is one."""

    @property
    def name(self) -> str:
        """Name of the image, for sentences."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""

    @property
    def count(self) -> int:
        """Number of planes."""

    @property
    def affine(self) -> Affine | None:
        """As in Stack."""

    @property
    def source_ids(self) -> tuple[str, ...]:
        """As in Stack."""


@dataclass(frozen=True)
class Fitted:
    """Masks on the grid of an image: call it with (plane of the image, label)."""

    mask: Callable[[int, int], Mask]
    exact: bool = True
    note: str = ""
    """What a person should know: that masks were resampled, or cover a part of the image only."""

    def __call__(self, plane: int, label: int) -> Mask:
        """Return the mask (H, W) of an image plane."""
        return self.mask(plane, label)


def planes_on(image: OnGrid, labels: LabelMap) -> Fitted:
    """Find, for every plane of an image, the masks that were drawn there.

    Ids of planes decide where both have them; then the places in the patient; and where one has no place, equal
    sizes. Grids that differ by flips, permutations, or by slices more or fewer are mapped exactly. Others that
    overlap are resampled to the nearest voxel, with a note.

    Raises
    ------
    UserError
        If the masks lie elsewhere, or have neither ids, place nor size in common with the image.
    """
    if labels.source_ids and image.source_ids and set(labels.source_ids) & set(image.source_ids):
        return _by_ids(image, labels)
    if labels.affine is None or image.affine is None:
        return _by_order(image, labels)
    return _by_place(image, labels)


def _file(labels: LabelMap) -> str:
    return str(labels.files[0]) if labels.files else labels.name


def _by_ids(image: OnGrid, labels: LabelMap) -> Fitted:
    _near_in_size(image, labels)
    planes: dict[str, list[int]] = {}
    for number, source in enumerate(labels.source_ids):
        planes.setdefault(source, []).append(number)
    chosen = [planes.get(source, []) for source in image.source_ids]

    def mask(plane: int, label: int) -> Mask:
        result = np.zeros(image.shape[:2], np.bool_)
        for number in chosen[plane]:
            result |= _cut(labels.read(number, label), image.shape)
        return result

    absent = len(set(planes) - set(image.source_ids))
    note = f"{absent} masks belong to slices that are not in this series." if absent else ""
    return Fitted(mask, note=_joined(_size_note(image, labels), note), exact=image.shape[:2] == labels.shape)


def _by_order(image: OnGrid, labels: LabelMap) -> Fitted:
    if labels.count != image.count:
        raise UserError(
            f"{_file(labels)} has {labels.count} planes and {image.name} has {image.count}, and nothing tells "
            "which belong together; save the masks with the image's orientation or number of slices."
        )
    _near_in_size(image, labels)
    note = ""
    if labels.affine is not None or image.affine is not None:
        note = (
            "Only one of image and masks tells its place in the patient; their slices were taken to be alike."
        )
    return Fitted(
        lambda plane, label: _cut(labels.read(plane, label), image.shape),
        note=_joined(_size_note(image, labels), note),
        exact=image.shape[:2] == labels.shape,
    )


def _near_in_size(image: OnGrid, labels: LabelMap) -> None:
    height, width, _ = image.shape
    if abs(labels.shape[0] - height) > 1 or abs(labels.shape[1] - width) > 1:
        raise UserError(
            f"{_file(labels)} has masks of {labels.shape[1]} x {labels.shape[0]} pixels, but {image.name} has "
            f"{width} x {height}; save the masks at the image's size."
        )


def _size_note(image: OnGrid, labels: LabelMap) -> str:
    if image.shape[:2] == labels.shape:
        return ""
    return "Its masks are one pixel larger or smaller than the image and were cut or filled up at the border."


def _joined(*notes: str) -> str:
    return " ".join(note for note in notes if note)


def _cut(mask: Mask, shape: Sequence[int]) -> Mask:
    if mask.shape == tuple(shape[:2]):
        return mask
    result = np.zeros(tuple(shape[:2]), np.bool_)
    height, width = min(mask.shape[0], shape[0]), min(mask.shape[1], shape[1])
    result[:height, :width] = mask[:height, :width]
    return result


def _by_place(image: OnGrid, labels: LabelMap) -> Fitted:
    try:
        change = np.linalg.inv(np.array(labels.affine)) @ np.array(image.affine)
    except np.linalg.LinAlgError:
        change = np.full((4, 4), np.nan)
    if not np.isfinite(change).all():
        raise UserError(
            f"{_file(labels)} or {image.name} has no sensible place in the patient; check its header."
        )
    sizes = (image.shape[1], image.shape[0], image.count)
    limits = (labels.shape[1], labels.shape[0], labels.count)
    corners = np.array(
        [[x, y, z, 1] for x in (0, sizes[0] - 1) for y in (0, sizes[1] - 1) for z in (0, sizes[2] - 1)]
    )
    rounded = np.rint(change)
    exact = bool(np.abs(corners @ (change - rounded).T).max() <= EXACT) and _one_to_one(rounded, image.count)
    covered = _covered(change, sizes, limits)
    # What Slicer saves may be no larger than what is marked, and lie between the samples.
    if covered == 0 and _covered(np.linalg.inv(change), limits, sizes) == 0:
        raise UserError(
            f"{_file(labels)} lies elsewhere in the patient than {image.name}; choose the masks of this image."
        )
    note = ""
    if exact:
        change = rounded
    else:
        note = "Its masks were drawn on another grid and were resampled to the nearest voxel."
    if covered < 0.999 and not (
        exact and _only_slices(corners @ change.T, int(np.abs(change[:3, 2]).argmax()), limits)
    ):
        note = _joined(note, f"They cover {100 * covered:.0f} % of the image.")
    return Fitted(_Gathered(image, labels, change), exact, note)


def _one_to_one(change: npt.NDArray[np.float64], count: int) -> bool:
    """Tell whether every voxel has one of its own: axes only change places or direction; slices may be skipped."""
    axes = np.abs(change[:3, : 3 if count > 1 else 2])
    own = bool(((axes > 0).sum(axis=0) == 1).all() and ((axes > 0).sum(axis=1) <= 1).all())
    return own and bool((axes[:, :2].max(axis=0) == 1).all())


def _covered(
    change: npt.NDArray[np.float64], sizes: tuple[int, int, int], limits: tuple[int, int, int]
) -> float:
    """Return the part of the image's voxels that lie on the masks' grid, from a sample."""
    samples = (33, 33, 2048)
    axes = [
        np.unique(np.linspace(0, size - 1, most).round()) for size, most in zip(sizes, samples, strict=True)
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    places = np.rint(points @ change[:3, :3].T + change[:3, 3] + _UP)
    return float(((places >= 0) & (places < np.array(limits))).all(axis=1).mean())


def _only_slices(places: npt.NDArray[np.float64], along: int, limits: tuple[int, int, int]) -> bool:
    """Tell whether the masks only lack slices: the image's corners lie on their grid but for the slice axis."""
    inside = (places[:, :3] >= 0) & (places[:, :3] < np.array(limits))
    return bool(np.delete(inside, along, axis=1).all())


class _Gathered:
    """Looks up each pixel of an image plane on the masks' grid."""

    def __init__(self, image: OnGrid, labels: LabelMap, change: npt.NDArray[np.float64]) -> None:
        self._shape, self._labels, self._change = image.shape, labels, change
        self._whole: tuple[int, Mask] | None = None
        self._name = image.name

    def __call__(self, plane: int, label: int) -> Mask:
        height, width, _ = self._shape
        result = np.zeros((height, width), np.bool_)
        change, labels = self._change, self._labels
        across = not change[2, :2].any()
        limits = (labels.shape[1], labels.shape[0], labels.count)
        if across:
            number = int(np.rint(change[2, 2] * plane + change[2, 3] + _UP))
            if not 0 <= number < labels.count:
                return result
            volume = labels.read(number, label)[np.newaxis]
        else:
            number, volume = 0, self._volume(label)
        for top in range(0, height, _ROWS_AT_ONCE):
            rows = np.arange(top, min(top + _ROWS_AT_ONCE, height))[:, np.newaxis]
            columns = np.arange(width)[np.newaxis, :]
            place = [
                np.rint(row[0] * columns + row[1] * rows + (row[2] * plane + row[3] + _UP)).astype(np.int64)
                for row in change[:3]
            ]
            inside = np.ones(place[0].shape, np.bool_)
            for position, limit in zip(place, limits, strict=True):
                inside &= (position >= 0) & (position < limit)
                np.clip(position, 0, limit - 1, out=position)
            result[top : top + len(rows)] = volume[place[2] - number, place[1], place[0]] & inside
        return result

    def _volume(self, label: int) -> Mask:
        """Return the whole mask of a label, which masks sliced another way need."""
        labels = self._labels
        if self._whole is None or self._whole[0] != label:
            if labels.count * labels.shape[0] * labels.shape[1] > _MAX_VOXELS:
                raise UserError(
                    f"{_file(labels)} is sliced otherwise than {self._name} and too large to turn."
                )
            self._whole = None
            self._whole = (label, np.stack([labels.read(number, label) for number in range(labels.count)]))
        return self._whole[1]
