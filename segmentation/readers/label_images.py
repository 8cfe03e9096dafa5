"""Masks that come as images: binary ones, and those whose values are labels."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.image_headers import png_chunks
from segmentation.images import channels_last, decode_mask
from segmentation.readers.plain import checked_header, load
from segmentation.readers.shared import image_name_of
from segmentation.stacks import LabelMap

_MOST_LABELS = 256


def read_label_png(path: Path) -> LabelMap:
    """Read a mask image (PNG, TIFF, BMP or JPEG) with its labels.

    Of an indexed PNG the indices count, not the colours. Values other than 0 and one foreground value are labels,
    each called "label N". JPEG files, colour images, and masks whose values between black and white only smooth an
    edge are binary: above half of the range is label 1, as in `segmentation.images.decode_mask`.

    Raises
    ------
    UserError
        If the file is damaged, or no mask.
    """
    path = Path(path)
    values = _labels(path)
    found = [int(value) for value in np.unique(values) if value != 0]
    if len(found) > _MOST_LABELS:
        raise UserError(
            f"{path} holds more than {_MOST_LABELS} different values, so it is no mask; choose the mask."
        )
    height, width = values.shape

    def read(plane: int, label: int) -> npt.NDArray[np.bool_]:
        if plane != 0:
            raise IndexError(plane)
        mask: npt.NDArray[np.bool_] = _labels(path) == label
        return mask

    return LabelMap(
        name=image_name_of(path),
        files=(path,),
        labels={value: f"label {value}" for value in found},
        shape=(int(height), int(width)),
        count=1,
        read=read,
    )


def _labels(path: Path) -> npt.NDArray[Any]:
    data = load(path)
    header = checked_header(path, data)
    page = header.pages[0]
    indexed = header.kind == "png" and page.layout == (3,)
    if header.kind == "jpeg":
        return _binary(path)
    pixels: Any = None
    try:
        source = np.frombuffer(_as_grey(bytes(data)), np.uint8) if indexed else data
        pixels = cv2.imdecode(source, cv2.IMREAD_UNCHANGED)
    except (ValueError, cv2.error):
        pixels = None
    if pixels is None:
        raise UserError(f"{path} is damaged or cut short: it cannot be decoded; copy it again.")
    pixels = channels_last(pixels)
    if pixels.dtype.kind != "u" or (pixels != pixels[:, :, :1]).any():
        return _binary(path)
    values: npt.NDArray[Any] = pixels[:, :, 0]
    if indexed:
        # libpng spreads grey of 1, 2 and 4 bits over 0..255.
        return values // (255 // ((1 << page.bits) - 1))
    found = np.unique(values)
    top = np.iinfo(values.dtype).max
    if set(found.tolist()) <= {0, 1} or set(found.tolist()) <= {0, top}:
        return (values > 0).astype(np.uint8)
    if found[-1] == top and _smoothed(values, found):
        return _binary(path)
    return values


def _binary(path: Path) -> npt.NDArray[np.uint8]:
    return decode_mask(path).astype(np.uint8)


def _smoothed(values: npt.NDArray[Any], found: npt.NDArray[Any]) -> bool:
    """Tell whether values between black and white only line edges: none of them fills 3 x 3 pixels anywhere."""
    if len(found) > _MOST_LABELS:
        return True
    kernel = np.ones((3, 3), np.uint8)
    flat = cv2.erode(values, kernel) == cv2.dilate(values, kernel)
    inside = np.unique(values[flat])
    top = np.iinfo(values.dtype).max
    return not any(0 < value < top for value in inside.tolist())


def _as_grey(data: bytes) -> bytes:
    """Return an indexed PNG as a grey one, so that its indices are decoded."""
    parts = [data[:8]]
    for name, start, stop in png_chunks(data):
        if name == b"IHDR":
            body = bytearray(data[start + 4 : stop - 4])
            body[4 + 9] = 0
            parts.append(struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))
        elif name in (b"IDAT", b"IEND"):
            parts.append(data[start:stop])
    return b"".join(parts)
