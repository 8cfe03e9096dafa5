"""NIfTI volumes and masks: .nii, .nii.gz and .hdr/.img."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

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

ENDINGS = (".nii", ".nii.gz", ".hdr", ".img")
"""File name endings, lower case, that are tried as NIfTI; of a pair, list one."""

_RGB, _RGBA = 128, 2304
_COLOUR_INTENTS = (2003, 2004)
_VECTOR_INTENTS = (1004, 1005, 1006, 1007, 1008, 1009)
_SURFACES = range(3000, 3100)
_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}
_NOT_NIFTI = "is not a readable NIfTI file: its header is damaged or of another type; save it again as NIfTI."


def read_nifti(path: Path, axis: int | None = None) -> Stack:
    """Read a NIfTI volume as a stack of slices; names and free text in its header are not kept.

    Slices show as radiologists expect: the patient's right on the left of the screen, anterior or superior up.

    Parameters
    ----------
    axis : slice axis of the volume in right-anterior-superior order (0 sagittal, 1 coronal, 2 axial); by default
        the coarsest, or the third where none is. `Stack.header["axis"]` tells which it was.

    Raises
    ------
    UserError
        If the file is damaged, shorter than declared, or holds what is no volume of grey or colour.
    """
    volume, files = _volume(Path(path))
    return stack_of(volume, axis, stem_of(Path(path)), files, {"format": "NIfTI"})


def read_nifti_labels(path: Path, axis: int | None = None) -> LabelMap:
    """Read a NIfTI mask of whole numbers, each a label; names are not in the file.

    Parameters
    ----------
    axis : as in `read_nifti`; give the image's, so that both are cut alike

    Raises
    ------
    UserError
        If the file is damaged or holds values between whole numbers, as probability maps do.
    """
    volume, files = _volume(Path(path))
    if volume.colour is not None:
        raise UserError(f"{path} holds colours, not labels; save the mask as whole numbers.")
    return labels_of([volume], axis, Path(path), files, {})


def _pair(path: Path) -> tuple[Path, Path]:
    """Return header and data file."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")) or not name.endswith((".hdr", ".img", ".hdr.gz", ".img.gz")):
        return path, path
    base = stem_of(path)
    with explained(path.parent):
        beside = {file.name.lower(): file for file in path.parent.glob("*") if stem_of(file) == base}
    found = {}
    for ending in (".hdr", ".img"):
        file = beside.get(f"{base}{ending}".lower()) or beside.get(f"{base}{ending}.gz".lower())
        if file is None:
            raise UserError(
                f"{path} lacks the {ending} file that belongs beside it; copy both to one folder."
            )
        found[ending] = file
    return found[".hdr"], found[".img"]


def _encoding(path: Path) -> Literal["raw", "gzip"]:
    with explained(path), open(path, "rb") as file:
        start = file.read(2)
    if not start:
        raise UserError(f"{path} is empty (0 bytes).")
    return "gzip" if start == b"\x1f\x8b" else "raw"


def _header(path: Path) -> Any:
    stream = Stream(Raw(path, np.dtype(np.uint8), (1,), encoding=_encoding(path)))
    try:
        data = stream.read(348)
        size = {struct.unpack(f"{order}i", data[:4])[0]: order for order in "<>"}
        if 540 in size:
            data += stream.read(540 - 348)
    finally:
        stream.close()
    if 348 in size and data[344:348] in (b"n+1\0", b"ni1\0"):
        kind, order = nib.Nifti1Header, size[348]
    elif 540 in size and data[4:8] in (b"n+2\0", b"ni2\0"):
        kind, order = nib.Nifti2Header, size[540]
    elif 348 in size:
        raise UserError(
            f"{path} is an Analyze file, which does not say which side is left; convert it to NIfTI first."
        )
    else:
        raise UserError(f"{path} {_NOT_NIFTI}")
    # Unchecked: nibabel's own check repairs or raises as it sees fit, and logs.
    return kind(data, endianness=order, check=False)


def _volume(path: Path) -> tuple[Volume, tuple[Path, ...]]:
    head, body = _pair(path)
    header = _header(head)
    single = bytes(header["magic"])[:2] == b"n+"
    if not single and body == head:
        raise UserError(f"{path} {_NOT_NIFTI}")
    dims = [int(value) for value in header["dim"]]
    if not 1 <= dims[0] <= 7:
        raise UserError(f"{path} {_NOT_NIFTI}")
    sizes = dims[1 : dims[0] + 1]
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) < 2:
        raise UserError(f"{path} is neither an image nor a volume: it has one dimension.")
    sizes += [1] * (3 - len(sizes))
    code = int(header["datatype"])
    try:
        dtype = header.get_data_dtype()
    except (KeyError, ValueError, HeaderDataError):
        raise UserError(f"{path} stores values of an unknown type (NIfTI code {code}); convert it.") from None
    colour = code in (_RGB, _RGBA)
    if not colour and (dtype.kind not in "iuf" or dtype.itemsize not in (1, 2, 4, 8)):
        raise UserError(f"{path} stores {dtype.name} values, which are no image; convert them to numbers.")
    intent = int(header["intent_code"])
    if intent in _SURFACES:
        raise UserError(f"{path} holds values of a brain surface (CIFTI), not an image; choose the volume.")
    if len(sizes) > 3 and (intent in _COLOUR_INTENTS + _VECTOR_INTENTS):
        raise UserError(
            f"{path} keeps several values at each place (colours or vectors) as a dimension of its own; "
            "save it in grey or with the data type RGB24."
        )
    notes = []
    if len(sizes) > 3:
        more = " x ".join(map(str, sizes[3:]))
        notes.append(f"Only the first volume of {more} was read.")
    # Of a series only the first volume is read, but the file must have room for no more than that.
    sizes = sizes[:3]
    colour_axis = None
    spatial = (0, 1, 2)
    if colour:
        sizes = [3 if code == _RGB else 4, *sizes]
        dtype = np.dtype(np.uint8)
        colour_axis, spatial = 0, (1, 2, 3)
    checked_sizes(path, dtype, tuple(sizes))
    offset = float(header["vox_offset"])
    least = (int(header["sizeof_hdr"]) + 4) if single else 0
    if not 0 <= offset < 1 << 30 or offset % 1 or 0 < offset < least:
        raise UserError(f"{path} {_NOT_NIFTI}")
    raw = Raw(body, dtype, tuple(sizes), max(int(offset), least), _encoding(body))
    affine, spacing, more_notes = _space(header)
    slope, intercept = (1.0, 0.0) if colour else _scaling(header)
    volume = Volume(raw, spatial, affine, spacing, colour_axis, slope, intercept, (*notes, *more_notes))
    return volume, (head,) if head == body else (head, body)


def _scaling(header: Any) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    # Slope 0 means that nothing is scaled, and so does what is no number.
    if slope == 0 or not np.isfinite(slope) or not np.isfinite(intercept):
        return 1.0, 0.0
    return slope, intercept


def _space(header: Any) -> tuple[Any, tuple[float, float, float] | None, list[str]]:
    scale = _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    notes = [] if scale == 1 else ["Its spacing was converted to millimetres."]
    for code, get in (("sform_code", "get_sform"), ("qform_code", "get_qform")):
        if int(header[code]) <= 0:
            continue
        try:
            with np.errstate(all="ignore"):
                affine = np.asarray(getattr(header, get)(), dtype=np.float64)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError, HeaderDataError):
            continue
        affine[:3] *= scale
        if sensible_affine(affine):
            lengths = np.linalg.norm(affine[:3, :3], axis=0)
            return affine, (float(lengths[0]), float(lengths[1]), float(lengths[2])), notes
    notes = [
        "Its header does not say how it lies in the patient, or says what cannot be: "
        "orientation and spacing are unknown, and slices are shown as stored."
    ]
    return None, None, notes
