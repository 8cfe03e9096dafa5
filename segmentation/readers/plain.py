"""PNG, JPEG, BMP and TIFF: single images and the pages of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.image_headers import (
    ENDINGS_OF,
    Header,
    capture_time,
    header_of,
    inverted,
    stripped,
)
from segmentation.images import MAX_PIXELS, channels_last
from segmentation.readers.shared import explained, not_numbers, packed
from segmentation.stacks import Plane, Stack

__all__ = ["capture_time", "read_plain", "stripped"]

_IN_MEMORY = 1 << 28

MAX_CHANNELS = 4


def read_plain(path: Path) -> Stack:
    """Read an image file, or the pages of one, as a stack of 1 (grey) or 3 channels (colour).

    A second or fourth channel is alpha and dropped; where a TIFF says that it is something else, a note tells.

    The grid is the file's own: an EXIF rotation is not applied, as masks do not carry it. Sizes are known before a
    pixel is decoded, and pages are decoded one at a time. A TIFF's resolution is not taken for spacing, as most
    programs fill it with what a printer would like.

    Raises
    ------
    UserError
        If the file is empty, damaged, cut short, too large, of another type or of more channels.
    """
    path = Path(path)
    data = load(path)
    header = checked_header(path, data)
    first = header.pages[0]
    chosen = [number for number, page in enumerate(header.pages) if page == first]
    notes = []
    if path.suffix.lower() not in ENDINGS_OF[header.kind]:
        notes.append(f"Its name ends in {path.suffix or 'nothing'}, but it is a {header.kind.upper()} file.")
    if len(chosen) < len(header.pages):
        notes.append(f"{len(header.pages) - len(chosen)} pages of another size or type were left out.")
    if first.unmarked:
        kept = "the first" if first.channels == 2 else "the first three"
        notes.append(f"Of its {first.channels} channels {kept} are read; the last is not marked as alpha.")
    pixels = _decoded(path, data, header, 0)
    height, width, channels = pixels.shape
    shape = (int(height), int(width), int(channels))
    taken = capture_time(data)
    eight_bit = pixels.dtype == np.uint8
    # A picture on its own is decoded once; pages one by one, as they are asked for.
    known = {chosen[0]: pixels} if len(chosen) == 1 else {}
    del data, pixels

    def read(number: int) -> Plane:
        page = chosen[number]
        values = known[page] if page in known else _decoded(path, load(path), header, page)
        if values.shape != shape:
            raise UserError(f"{path} changed while it was read; import it again.")
        # Pages that count from white to black OpenCV turns only where they have 8 bits or fewer.
        if header.kind == "tiff" and inverted(header.pages[page]) and values.dtype == np.uint16:
            values = ~values
        packed_values, offset, bad = packed(np.ascontiguousarray(values))
        return Plane(packed_values, 1.0, offset, not_numbers(bad))

    return Stack(
        name=path.stem,
        files=(path,),
        shape=shape,
        count=len(chosen),
        read=read,
        modality="photo" if eight_bit or channels == 3 else "grey",
        captured=taken,
        header={"format": header.kind.upper(), "bits": first.bits},
        notes=tuple(notes),
    )


def load(path: Path) -> npt.NDArray[np.uint8]:
    """Return a file's bytes; of a large file they stay on disk until they are looked at."""
    with explained(path):
        size = path.stat().st_size
        if size == 0:
            raise UserError(f"{path} is empty (0 bytes).")
        if size <= _IN_MEMORY:
            return np.fromfile(path, np.uint8)
        return np.memmap(path, np.uint8, "r")


def checked_header(path: Path, data: npt.NDArray[np.uint8]) -> Header:
    """Read a file's header and refuse what is too large to decode.

    Raises
    ------
    UserError
        If it is no image, damaged, or above `MAX_PIXELS`.
    """
    try:
        header = header_of(data)
    except ValueError as error:
        raise UserError(
            f"{path} is not a readable PNG, JPEG, BMP or TIFF image ({error}); copy it again or convert it."
        ) from None
    for page in header.pages:
        if page.width * page.height > MAX_PIXELS:
            raise UserError(
                f"{path} is too large: {page.width} x {page.height} pixels; "
                f"up to {MAX_PIXELS // 10**6} megapixels are read."
            )
        if page.channels > MAX_CHANNELS:
            raise UserError(
                f"{path} has {page.channels} channels; images of 1 (grey) or 3 (colour) are read, with or without "
                "alpha. Save the channels to look at as such images."
            )
    if not header.pages:
        raise UserError(f"{path} holds no image; copy it again.")
    return header


def _decoded(path: Path, data: npt.NDArray[np.uint8], header: Header, page: int) -> npt.NDArray[Any]:
    pixels: Any = None
    try:
        if header.kind == "tiff":
            ok, pages = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED, None, (page, page + 1))
            pixels = pages[0] if ok and len(pages) == 1 else None
        else:
            pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.size == 0:
        which = f" (page {page + 1})" if len(header.pages) > 1 else ""
        raise UserError(f"{path} is damaged or cut short{which}: it cannot be decoded; copy it again.")
    found: npt.NDArray[Any] = channels_last(pixels)
    if found.shape[:2] != (header.pages[page].height, header.pages[page].width):
        raise UserError(
            f"{path} is damaged: it decodes to another size than its header declares; copy it again."
        )
    if header.kind == "png" and header.pages[page].channels == 2:
        # Grey with alpha comes as colour.
        found = found[:, :, :1]
    return found
