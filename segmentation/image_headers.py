"""What PNG, JPEG, BMP and TIFF files say about themselves, read without decoding a pixel."""

from __future__ import annotations

import datetime
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["png", "jpeg", "bmp", "tiff"]
Bytes = bytes | bytearray | memoryview | npt.NDArray[np.uint8]

ENDINGS_OF: dict[Kind, tuple[str, ...]] = {
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg"),
    "bmp": (".bmp",),
    "tiff": (".tif", ".tiff"),
}
MAX_PAGES = 10_000

# Markers of JPEG that begin a frame; C4, C8 and CC are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NEXT_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_PNG_KEPT = frozenset(b"IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sBIT sRGB cICP bKGD hIST pHYs sPLT".split())
# What decoding needs, and colour profiles; all other values of a TIFF are blanked.
_TIFF_KEPT = frozenset(
    int(tag)
    for tag in (
        "254 255 256 257 258 259 262 263 264 265 266 273 274 277 278 279 280 281 282 283 284 290 291 292 293 296 297 "
        "301 317 318 319 320 321 322 323 324 325 332 333 334 336 338 339 340 341 342 347 512 513 514 515 517 518 519 "
        "520 521 529 530 531 532 34675"
    ).split()
)
_SUB_DIRECTORIES = (330, 34665, 34853, 40965)
_DATE_ORIGINAL, _EXIF = 36867, 34665


@dataclass(frozen=True)
class Page:
    """One image of a file, as its header declares it."""

    width: int
    height: int
    channels: int = 1
    bits: int = 8
    layout: tuple[int, ...] = ()
    """Whatever else must agree for two pages to be of one stack."""
    reduced: bool = False
    """A preview of another page."""
    unmarked: bool = False
    """Its last channel says that it is not alpha, where alpha would be expected."""


@dataclass(frozen=True)
class Header:
    """Type and pages of a file."""

    kind: Kind
    pages: tuple[Page, ...]


def kind_of(data: Bytes) -> Kind | None:
    """Tell the type of an image file by its first bytes."""
    start = bytes(data[:8])
    if start == b"\x89PNG\r\n\x1a\n":
        return "png"
    if start[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if start[:2] == b"BM":
        return "bmp"
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    return None


def header_of(data: Bytes) -> Header:
    """Read the declared sizes of a file.

    Raises
    ------
    ValueError
        If it is none of the four types, or damaged.
    """
    kind = kind_of(data)
    try:
        if kind == "png":
            return Header(kind, (_png_page(data),))
        if kind == "jpeg":
            return Header(kind, (_jpeg_page(data),))
        if kind == "bmp":
            return Header(kind, (_bmp_page(data),))
        if kind == "tiff":
            return Header(kind, tuple(_tiff_pages(data)))
    except struct.error:
        raise ValueError("the header is cut short") from None
    raise ValueError("of no known type")


def _png_page(data: Bytes) -> Page:
    if bytes(data[12:16]) != b"IHDR":
        raise ValueError("no IHDR")
    width, height, bits, colour = struct.unpack(">IIBB", bytes(data[16:26]))
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour)
    if channels is None or not width or not height:
        raise ValueError("a damaged IHDR")
    for _ in png_chunks(data):
        # The decoder makes room for whatever length a chunk claims, so all are checked to lie in the file.
        pass
    return Page(width, height, channels, bits, (colour,))


def _bmp_page(data: Bytes) -> Page:
    (size,) = struct.unpack("<I", bytes(data[14:18]))
    if size == 12:
        width, height, _, bits = struct.unpack("<HHHH", bytes(data[18:26]))
    else:
        width, height, _, bits = struct.unpack("<iiHH", bytes(data[18:30]))
        height = abs(height)
    if width <= 0 or height <= 0:
        raise ValueError("a damaged header")
    return Page(width, height, max(1, bits // 8), 8)


def _bmp_end(data: bytes) -> int:
    """Return where the pixels end; the size that the file declares is often wrong."""
    page = _bmp_page(data)
    offset, size = struct.unpack("<II", data[10:18])
    bits, compression = (
        (struct.unpack("<H", data[24:26])[0], 0) if size == 12 else struct.unpack("<HI", data[28:34])
    )
    if compression not in (0, 3):
        # Run lengths end where they end.
        return len(data)
    end = int(offset) + (page.width * int(bits) + 31) // 32 * 4 * page.height
    if not 26 <= end <= len(data):
        raise ValueError("cut short")
    return end


def _jpeg_page(data: Bytes) -> Page:
    for marker, start, stop in jpeg_segments(data):
        if marker in _FRAMES:
            bits, height, width, channels = struct.unpack(
                ">BHHB", bytes(data[start + 4 : min(stop, start + 10)])
            )
            if not width or not height:
                raise ValueError("a size of 0")
            return Page(width, height, channels, bits)
    raise ValueError("no frame")


def jpeg_segments(data: Bytes) -> Iterator[tuple[int, int, int]]:
    """Walk through a JPEG: (marker, start, stop), a scan with its data; ends after the end of image.

    Raises
    ------
    ValueError
        If it is damaged or cut short.
    """
    at, size = 2, len(data)
    view: memoryview[int] = memoryview(data)  # type: ignore[arg-type]
    while True:
        while at + 1 < size and view[at] == 0xFF and view[at + 1] == 0xFF:
            at += 1
        if at + 2 > size or view[at] != 0xFF:
            raise ValueError("cut short or damaged")
        marker = view[at + 1]
        if marker == 0xD9:
            yield marker, at, at + 2
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            yield marker, at, at + 2
            at += 2
            continue
        if at + 4 > size:
            raise ValueError("cut short")
        stop = at + 2 + (view[at + 2] << 8 | view[at + 3])
        if stop > size or stop < at + 4:
            raise ValueError("cut short")
        if marker == 0xDA:
            found = _NEXT_MARKER.search(view, stop)
            if found is None:
                raise ValueError("cut short")
            stop = found.start()
        yield marker, at, stop
        at = stop


def png_chunks(data: Bytes) -> Iterator[tuple[bytes, int, int]]:
    """Walk through a PNG: (type, start, stop) of every chunk, its length and check sum included, up to IEND.

    Raises
    ------
    ValueError
        If it is cut short.
    """
    at = 8
    while True:
        head = bytes(data[at : at + 8])
        if len(head) < 8:
            raise ValueError("cut short")
        length, name = struct.unpack(">I4s", head)
        stop = at + 12 + length
        if stop > len(data):
            raise ValueError("cut short")
        yield name, at, stop
        if name == b"IEND":
            return
        at = stop


@dataclass(frozen=True)
class _Entry:
    tag: int
    type: int
    count: int
    at: int
    """Where its values lie."""

    @property
    def size(self) -> int:
        return self.count * _SIZES.get(self.type, 1)


class _Tiff:
    def __init__(self, data: Bytes, start: int = 0) -> None:
        self.data = data
        self.start = start
        mark = bytes(data[start : start + 4])
        if mark[:2] not in (b"II", b"MM"):
            raise ValueError("no TIFF structure")
        self.order = "<" if mark[:2] == b"II" else ">"
        self.big = b"+" in mark[2:]

    def number(self, code: str, at: int) -> int:
        size = struct.calcsize(code)
        (value,) = struct.unpack(
            self.order + code, bytes(self.data[self.start + at : self.start + at + size])
        )
        return int(value)

    def first(self) -> int:
        return self.number("Q", 8) if self.big else self.number("I", 4)

    def directory(self, at: int) -> tuple[dict[int, _Entry], int]:
        """Return the entries of a directory and where the next begins, 0 after the last."""
        count = self.number("Q" if self.big else "H", at)
        if not 0 < count <= 4096:
            raise ValueError("a damaged directory")
        head, step, field = (8, 20, 8) if self.big else (2, 12, 4)
        entries: dict[int, _Entry] = {}
        for number in range(count):
            place = at + head + number * step
            tag, kind = self.number("H", place), self.number("H", place + 2)
            entry = _Entry(tag, kind, self.number("Q" if self.big else "I", place + 4), place + step - field)
            if entry.size > field:
                place = self.number("Q" if self.big else "I", entry.at)
                entry = _Entry(tag, kind, entry.count, place)
            entries.setdefault(tag, entry)
        return entries, self.number("Q" if self.big else "I", at + head + count * step)

    def directories(self) -> Iterator[dict[int, _Entry]]:
        at, seen = self.first(), set[int]()
        while at:
            if at in seen or len(seen) >= MAX_PAGES:
                raise ValueError("directories in a circle, or too many")
            seen.add(at)
            entries, at = self.directory(at)
            yield entries

    def value(self, entries: dict[int, _Entry], tag: int, default: int) -> int:
        entry = entries.get(tag)
        if entry is None or entry.type not in _INTEGERS or entry.count < 1:
            return default
        return self.number(_INTEGERS[entry.type], entry.at)

    def text(self, entries: dict[int, _Entry], tag: int) -> str:
        entry = entries.get(tag)
        if entry is None or entry.type != 2 or entry.count > 1 << 16:
            return ""
        place = self.start + entry.at
        return bytes(self.data[place : place + entry.count]).split(b"\0")[0].decode("ascii", "replace")


def _tiff_pages(data: Bytes) -> Iterator[Page]:
    tiff = _Tiff(data)
    for entries in tiff.directories():
        width, height = tiff.value(entries, 256, 0), tiff.value(entries, 257, 0)
        if not width or not height:
            raise ValueError("a size of 0")
        # Tiles are decoded whole, however little of them the image uses.
        tile = tiff.value(entries, 322, 0) * tiff.value(entries, 323, 0)
        if tile > max(4 * width * height, 1 << 22):
            raise ValueError("tiles larger than the image")
        channels, bits = tiff.value(entries, 277, 1), tiff.value(entries, 258, 1)
        layout = (tiff.value(entries, 262, 1), tiff.value(entries, 339, 1))
        # Many programs mark no alpha at all; four channels of the layout 5 are printing inks, which become colour.
        unmarked = channels in (2, 4) and layout[0] != 5 and tiff.value(entries, 338, -1) == 0
        yield Page(width, height, channels, bits, layout, bool(tiff.value(entries, 254, 0) & 1), unmarked)


def inverted(page: Page) -> bool:
    """Tell whether a TIFF page counts from white to black."""
    return bool(page.layout) and page.layout[0] == 0


def stripped(data: bytes, suffix: str) -> bytes:
    """Remove what a file tells beside its pixels, losslessly: EXIF, comments, previews, anything after its end.

    Colour profiles stay. Of a TIFF the values are blanked in place. The type is told by the content; `suffix`
    only matters where that is of no known type.

    Raises
    ------
    ValueError
        If the file is damaged or of no known type, so that nothing can be promised.
    """
    kind = kind_of(data)
    try:
        if kind == "png":
            kept = [data[start:stop] for name, start, stop in png_chunks(data) if name in _PNG_KEPT]
            return b"".join([data[:8], *kept])
        if kind == "jpeg":
            return b"\xff\xd8" + b"".join(_kept_of_jpeg(data))
        if kind == "tiff":
            return _blanked(data)
        if kind == "bmp":
            return data[: _bmp_end(data)]
    except struct.error:
        raise ValueError("the header is cut short") from None
    raise ValueError(f"{suffix} of no known type")


def _kept_of_jpeg(data: bytes) -> Iterator[bytes]:
    for marker, start, stop in jpeg_segments(data):
        segment = data[start:stop]
        if marker == 0xE0 and segment[4:9] == b"JFIF\0" and len(segment) >= 18:
            # Without its preview.
            yield segment[:2] + b"\0\x10" + segment[4:16] + b"\0\0"
        elif marker == 0xE2:
            if segment[4:16] == b"ICC_PROFILE\0":
                yield segment
        elif marker == 0xEE or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            yield segment


def _blanked(data: bytes) -> bytes:
    result = bytearray(data)
    tiff = _Tiff(data)
    pixels: list[tuple[int, int]] = []
    blank: list[tuple[int, int]] = []
    waiting: list[tuple[dict[int, _Entry], bool]] = [(entries, False) for entries in tiff.directories()]
    seen: set[int] = set()
    while waiting:
        entries, everything = waiting.pop()
        for entry in entries.values():
            if entry.tag in _SUB_DIRECTORIES and entry.type in _INTEGERS:
                step = _SIZES[entry.type]
                for number in range(min(entry.count, 16)):
                    at = tiff.number(_INTEGERS[entry.type], entry.at + number * step)
                    if at not in seen:
                        seen.add(at)
                        waiting.append((tiff.directory(at)[0], entry.tag != 330))
            elif everything or entry.tag not in _TIFF_KEPT:
                blank.append((entry.at, entry.at + entry.size))
        for offsets, counts in ((273, 279), (324, 325)):
            first, sizes = entries.get(offsets), entries.get(counts)
            if first is None or sizes is None or first.type not in _INTEGERS or sizes.type not in _INTEGERS:
                continue
            for number in range(min(first.count, sizes.count)):
                begin = tiff.number(_INTEGERS[first.type], first.at + number * _SIZES[first.type])
                size = tiff.number(_INTEGERS[sizes.type], sizes.at + number * _SIZES[sizes.type])
                pixels.append((begin, begin + size))
    for start, stop in blank:
        if stop > len(result) or any(start < end and begin < stop for begin, end in pixels):
            raise ValueError("a damaged directory")
        result[start:stop] = bytes(stop - start)
    return bytes(result)


def capture_time(data: Bytes) -> str:
    """Return when a photo was taken (EXIF DateTimeOriginal), as ISO 8601 without a zone, or ``""``."""
    kind = kind_of(data)
    try:
        if kind == "tiff":
            return _time(data, 0)
        if kind == "jpeg":
            for marker, start, _ in jpeg_segments(data):
                if marker == 0xE1 and bytes(data[start + 4 : start + 10]) == b"Exif\0\0":
                    return _time(data, start + 10)
        if kind == "png":
            for name, start, _ in png_chunks(data):
                if name == b"eXIf":
                    return _time(data, start + 8)
    except (ValueError, struct.error):
        pass
    return ""


def _time(data: Bytes, start: int) -> str:
    tiff = _Tiff(data, start)
    entries, _ = tiff.directory(tiff.first())
    at = tiff.value(entries, _EXIF, 0)
    if not at:
        return ""
    text = tiff.text(tiff.directory(at)[0], _DATE_ORIGINAL).strip()
    return datetime.datetime.strptime(text, "%Y:%m:%d %H:%M:%S").isoformat()
