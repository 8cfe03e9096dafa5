"""Reading images of the world into arrays, and masks and probabilities to and from PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.image_headers import header_of
from segmentation.stacks import Values

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""File name endings, lower case, that are tried as images."""

MAX_PIXELS = 1 << 26
"""Larger images are refused before they are decoded: 67 megapixels, 800 MB as colour in float32."""


def _decode(path: Path) -> npt.NDArray[Any]:
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    if data.size == 0:
        raise UserError(f"{path} is empty (0 bytes).")
    pixels = None
    try:
        page = header_of(data).pages[0]
        if page.width * page.height > MAX_PIXELS:
            raise UserError(f"{path} is too large: {page.width} x {page.height} pixels.")
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except (ValueError, IndexError, cv2.error):
        pixels = None
    if pixels is None:
        raise UserError(
            f"{path} is not a readable image: damaged, cut short, or of another type than its name says."
        )
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise UserError(f"{path} is too large: {pixels.shape[1]} x {pixels.shape[0]} pixels.")
    return channels_last(pixels)


def channels_last(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Bring what OpenCV decoded into (H, W, C), C = 1 or 3 (RGB), without alpha."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    if pixels.shape[2] == 2:
        pixels = pixels[:, :, :1]
    elif pixels.shape[2] >= 3:
        pixels = pixels[:, :, 2::-1]
    return pixels


def read_stored(path: Path) -> Values:
    """Read an image file as it is stored (H, W, C), C = 1 or 3 (RGB): uint8, uint16 or float32, finite.

    An alpha channel is dropped. The grid is the file's own: an EXIF rotation is not applied, as masks do not carry it.

    Raises
    ------
    UserError
        If the file is unreadable or holds values that are no numbers; the sentence names it.
    """
    pixels = _decode(path)
    if pixels.dtype == np.uint8 or pixels.dtype == np.uint16:
        return pixels
    values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{path} holds values that are not numbers (NaN or infinite).")
    return values


def read_image(path: Path) -> npt.NDArray[np.float32]:
    """Read an image as float32 (H, W, C), C = 1 or 3 (RGB), values 0..1.

    Integers are divided by their type's largest value; floating-point images by their own range. An alpha
    channel is dropped. The grid is the file's own: an EXIF rotation is not applied, as masks do not carry it.

    Raises
    ------
    UserError
        If the file is unreadable; the sentence names it.
    """
    pixels = _decode(path)
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / 255.0
    if pixels.dtype == np.uint16:
        return pixels.astype(np.float32) / 65535.0
    values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{path} holds values that are not numbers (NaN or infinite).")
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def image_shape(path: Path) -> tuple[int, int, int]:
    """Return an image's height, width and channels (1 or 3), reading all of it: a cut file is found out."""
    height, width, channels = _decode(path).shape
    return int(height), int(width), int(channels)


def resize(pixels: npt.NDArray[Any], height: int, width: int, *, nearest: bool = False) -> npt.NDArray[Any]:
    """Resize (H, W) or (H, W, C) to a new grid; area-averaged when shrinking, linear when growing."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinking = height * width < pixels.shape[0] * pixels.shape[1]
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    resized = cv2.resize(pixels, (width, height), interpolation=how)
    return resized[:, :, np.newaxis] if pixels.ndim == 3 and resized.ndim == 2 else resized


def _encode(pixels: npt.NDArray[Any], *options: int) -> bytes:
    ok, data = cv2.imencode(".png", pixels, options)
    if not ok:
        raise ValueError("an array that PNG cannot hold")
    return data.tobytes()


def encode_plane(values: Values) -> tuple[bytes, str]:
    """Encode (H, W, C) without loss; return the bytes and the ending: integers as PNG, float32 as TIFF."""
    pixels: npt.NDArray[Any] = values[:, :, ::-1] if values.shape[2] == 3 else values
    if values.dtype == np.float32:
        ok, data = cv2.imencode(".tif", pixels)
        if not ok:
            raise ValueError("an array that TIFF cannot hold")
        return data.tobytes(), ".tif"
    return _encode(pixels, cv2.IMWRITE_PNG_COMPRESSION, 1), ".png"


def encode_display(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode an RGB image (H, W, 3) as PNG."""
    return _encode(np.ascontiguousarray(pixels[:, :, ::-1]))


def encode_mask(mask: npt.NDArray[np.bool_]) -> bytes:
    """Encode a mask (H, W) as a 1-bit PNG."""
    return _encode(mask.astype(np.uint8) * 255, cv2.IMWRITE_PNG_BILEVEL, 1)


def decode_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Read a mask (H, W).

    Of a file with one value, or colour, beside black, that is foreground, however dark: 1, 2 and 255 are all in use. Of
    one with more, and of a JPEG, whose edges are soft, everything above half of the range is, in any channel.
    """
    pixels = _decode(path)
    if pixels.dtype == np.bool_:
        return _any_channel(pixels)
    top = pixels.max(initial=0)
    # Programs store eight bits in sixteen.
    half = 0.5 if pixels.dtype.kind != "u" else 127 if top <= 255 else np.iinfo(pixels.dtype).max // 2
    if top > half:
        return _any_channel(pixels > half)
    drawn = _any_channel(pixels > 0)
    values = pixels[drawn]
    soft = path.suffix.lower() in (".jpg", ".jpeg") and top > 1
    return drawn if not soft and (values == values[:1]).all() else np.zeros_like(drawn)


def _any_channel(pixels: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = np.logical_or.reduce(pixels, axis=2)
    return mask


def encode_gray16(values: npt.NDArray[np.floating[Any]]) -> bytes:
    """Encode values (H, W) in 0..1 as a 16-bit PNG."""
    return _encode(np.rint(np.clip(values, 0, 1) * 65535).astype(np.uint16), cv2.IMWRITE_PNG_COMPRESSION, 1)


def encode_gray8(values: npt.NDArray[np.floating[Any]]) -> bytes:
    """Encode values (H, W) in 0..1 as an 8-bit PNG; `read_image` gives them back."""
    return _encode(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8), cv2.IMWRITE_PNG_COMPRESSION, 1)


def decode_gray16(path: Path) -> npt.NDArray[np.float32]:
    """Read a 16-bit PNG back as float32 (H, W) in 0..1."""
    return read_image(path)[:, :, 0]
