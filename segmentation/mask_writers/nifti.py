"""Masks as NIfTI: volumes with the affine of the images, pictures with their spacing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gaze_capture.storage import write_bytes_atomic
from segmentation.mask_choice import Unit
from segmentation.mask_writers.book import MaskBook

PLACED, ASSUMED = 1, 2
"""NIfTI's codes for an affine that came with the images, and for one that only tells spacing."""
_SHEARED = 1e-3


def write_nifti(book: MaskBook) -> None:
    """Write ``<target>/<image or volume>.nii.gz``; probabilities, where asked for, as float32 beside them."""
    selection = book.selection
    for unit in selection.units:
        for target in selection.targets_of(unit):
            file = f"{target.id}/{unit.name}.nii.gz"
            write_volume(book.folder / file, stacked(book, unit, target.id, file), unit)
            if book.with_probability:
                _write_probability(book, unit, target.id)
    book.about += [
        "<target>/<image or volume>.nii.gz: 1 is the target, 0 is not; axes are columns, rows, slices.",
        "The affine is that of the images in the study: voxels lie where they do in the source, though the source may "
        "have stored its axes in another order. Where the place in the patient is unknown (sform code 2), columns "
        "count to the left and rows backwards, and only the spacing means something.",
        "Slices that nobody judged are 0, too: manifest.json lists those that have a mask.",
    ]


def planes_of(unit: Unit) -> dict[str, int]:
    """Return the place of each image in its volume, by its id; the study may have lost slices in between."""
    return {
        image.id: number if image.slice_index is None else image.slice_index
        for number, image in enumerate(unit.images)
    }


def _voxels(unit: Unit, kind: type[np.uint8] | type[np.float32]) -> npt.NDArray[Any]:
    height, width = unit.shape
    known = len(unit.volume.image_ids) if unit.volume is not None else 0
    return np.zeros((width, height, max(known, 1 + max(planes_of(unit).values()))), kind)


def stacked(book: MaskBook, unit: Unit, target_id: str, file: str) -> npt.NDArray[np.uint8]:
    """Return a unit's masks (columns, rows, slices), 0 where a slice has none, and note each as part of a file."""
    voxels: npt.NDArray[np.uint8] = _voxels(unit, np.uint8)
    for image_id, plane in planes_of(unit).items():
        chosen = book.selection.masks.get((image_id, target_id))
        if chosen is not None:
            mask = book.read(chosen)
            voxels[:, :, plane] = mask.T
            book.note(chosen, mask, file, plane=plane)
    return voxels


def _write_probability(book: MaskBook, unit: Unit, target_id: str) -> None:
    voxels: npt.NDArray[np.float32] = _voxels(unit, np.float32)
    found = False
    for image_id, plane in planes_of(unit).items():
        chosen = book.selection.masks.get((image_id, target_id))
        probability = book.selection.probability(chosen) if chosen is not None else None
        if probability is not None:
            voxels[:, :, plane] = probability.T
            found = True
    if found:
        write_volume(book.folder / f"{target_id}-probability" / f"{unit.name}.nii.gz", voxels, unit)


def affine_of_unit(unit: Unit) -> tuple[npt.NDArray[np.float64], int]:
    """Return the affine from (column, row, slice) to millimetres RAS+, and its NIfTI code."""
    if unit.volume is not None and unit.volume.affine is not None:
        return np.array(unit.volume.affine, dtype=np.float64), PLACED
    rows, columns, slices = unit.spacing_mm or (1.0, 1.0, 1.0)
    # As pictures are shown: columns to the patient's left, rows to the back.
    return np.diag([-columns, -rows, slices, 1.0]), ASSUMED


def write_volume(path: Path, voxels: npt.NDArray[Any], unit: Unit) -> None:
    """Write voxels (columns, rows, slices) with the place of a unit."""
    write_bytes_atomic(path, volume_bytes(voxels, unit))


def volume_bytes(voxels: npt.NDArray[Any], unit: Unit, *, effort: int = 6) -> bytes:
    """Return the ``.nii.gz`` of voxels (columns, rows, slices) with the place of a unit; `effort` of gzip, 1..9."""
    import nibabel as nib

    affine, code = affine_of_unit(unit)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_data_dtype(voxels.dtype)
    image.header.set_xyzt_units("mm" if unit.spacing_mm or code == PLACED else "unknown")
    image.set_sform(affine, code)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    # A quaternion holds no shear (a tilted gantry), and readers that prefer it would place voxels wrongly.
    image.set_qform(affine, code if np.abs(axes.T @ axes - np.eye(3)).max() < _SHEARED else 0)
    return _compressed(image.to_bytes(), effort)


def _compressed(data: bytes, effort: int) -> bytes:
    import gzip

    # Without the time in it, the same masks are the same file.
    return gzip.compress(data, effort, mtime=0)
