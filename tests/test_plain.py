"""Plain images: what is read is what was written, and nothing is decoded before its size is known."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gaze_capture.errors import UserError
from segmentation.image_headers import capture_time, header_of, png_chunks, stripped
from segmentation.images import MAX_PIXELS, image_shape
from segmentation.readers.label_images import read_label_png
from segmentation.readers.plain import read_plain

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)


def encoded(ending: str, pixels: Any, *options: int) -> bytes:
    ok, data = cv2.imencode(ending, pixels, options)
    assert ok
    return bytes(data.tobytes())


def decoded(data: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def exif(date: str = "2024:02:03 04:05:06", orientation: int = 6) -> bytes:
    """Return a TIFF structure as cameras write it."""
    entries = struct.pack("<HHIHHHHII", 2, 274, 3 << 0, 1, 0, orientation, 0, 0, 0)
    entries = struct.pack("<H", 2) + struct.pack("<HHII", 274, 3, 1, orientation)
    entries += struct.pack("<HHII", 34665, 4, 1, 8 + 2 + 24 + 4) + struct.pack("<I", 0)
    text = date.encode() + b"\0"
    sub_at = 8 + len(entries)
    sub = struct.pack("<H", 1) + struct.pack("<HHII", 36867, 2, len(text), sub_at + 18) + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8) + entries + sub + text


def with_exif(jpeg: bytes) -> bytes:
    body = b"Exif\0\0" + exif()
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 8) + b"Doe^Jane"
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + comment + jpeg[2:]


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_come_back_without_alpha(tmp_path: Path, ending: str, channels: int) -> None:
    pixels = RNG.integers(0, 256, (20, 30, channels)).astype(np.uint8)
    stack = read_plain(written(tmp_path / f"eye.one{ending}", encoded(ending, pixels)))
    assert (stack.name, stack.count, stack.modality, stack.notes) == ("eye.one", 1, "photo", ())
    expected = pixels if channels == 1 else pixels[:, :, 2::-1]
    np.testing.assert_array_equal(stack.read(0).values, expected)
    assert stack.shape == expected.shape


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_wide_types_of_tiff_are_exact(tmp_path: Path, dtype: Any) -> None:
    pixels = (np.arange(600).reshape(20, 30) % 120).astype(dtype) - (60 if dtype != np.uint16 else 0)
    stack = read_plain(written(tmp_path / "a.tif", encoded(".tif", pixels.astype(dtype))))
    plane = stack.read(0)
    assert plane.values.dtype in (np.uint8, np.uint16)
    np.testing.assert_array_equal(plane.values[..., 0] * plane.slope + plane.intercept, pixels)
    assert stack.modality == ("photo" if dtype == np.uint8 else "grey")


def test_fractions_and_what_is_no_number(tmp_path: Path) -> None:
    pixels = np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 30)
    pixels[0, :2] = [np.nan, np.inf]
    plane = read_plain(written(tmp_path / "a.tiff", encoded(".tiff", pixels))).read(0)
    assert plane.values.dtype == np.float32
    assert plane.note.startswith("2 values that were no numbers")
    assert plane.values[0, 0, 0] == plane.values[0, 1, 0] == np.nanmin(pixels)
    np.testing.assert_array_equal(plane.values[1:, :, 0], pixels[1:])


def test_grey_with_alpha_is_grey(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + bytes(value for x in range(5) for value in (10 * y + x, 128)) for y in range(4))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 8, 4, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    stack = read_plain(written(tmp_path / "a.png", data))
    assert stack.shape == (4, 5, 1)
    assert stack.read(0).values[3, 4, 0] == 34


def tiff_of(pixels: Any, *, extra: int) -> bytes:
    """Return an uncompressed TIFF of any number of channels, those beyond grey or colour being `extra`."""
    height, width, channels = pixels.shape
    colours = 3 if channels > 2 else 1
    beyond = channels - colours
    lists = {258: [8] * channels, 338: [extra] * beyond}
    data, at, places = bytes(pixels.tobytes()), 8, {}
    data += b"\0" * (len(data) % 2)
    body = data
    for tag, values in lists.items():
        places[tag] = at + len(body)
        body += struct.pack(f"<{len(values)}H", *values)
    body += b"\0" * (len(body) % 2)
    plain = {
        256: width,
        257: height,
        259: 1,
        262: 2 if colours == 3 else 1,
        273: at,
        277: channels,
        278: height,
    }
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in plain.items()]
    entries.append(struct.pack("<HHII", 279, 4, 1, pixels.size))
    for tag, values in lists.items():
        inline = struct.pack(f"<{len(values)}H", *values).ljust(4, b"\0")
        value = inline if len(inline) == 4 else struct.pack("<I", places[tag])
        entries.append(struct.pack("<HHI", tag, 3, len(values)) + value)
    entries.sort(key=lambda entry: struct.unpack("<H", entry[:2]))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
    return b"II*\0" + struct.pack("<I", at + len(body)) + body + directory


@pytest.mark.parametrize(("channels", "kept"), [(2, 1), (4, 3)])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_two_and_four_channels_are_grey_and_colour_with_alpha(
    tmp_path: Path, channels: int, kept: int, extra: int
) -> None:
    pixels = RNG.integers(0, 256, (20, 30, channels)).astype(np.uint8)
    stack = read_plain(written(tmp_path / "a.tif", tiff_of(pixels, extra=extra)))
    assert stack.shape == (20, 30, kept)
    told = [note for note in stack.notes if "not marked as alpha" in note]
    assert len(told) == (extra == 0)
    if extra != 2:
        # Colours not yet multiplied with their alpha are, as every viewer shows them.
        np.testing.assert_array_equal(stack.read(0).values, pixels[:, :, :kept])


@pytest.mark.parametrize("channels", [5, 7])
def test_more_channels_are_refused_by_their_number(tmp_path: Path, channels: int) -> None:
    pixels = RNG.integers(0, 256, (20, 30, channels)).astype(np.uint8)
    with pytest.raises(UserError, match=f"has {channels} channels; images of 1"):
        read_plain(written(tmp_path / "a.tif", tiff_of(pixels, extra=0)))


def test_sixteen_bits_from_white_to_black_are_turned(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.uint16):
        pixels = np.arange(600).reshape(20, 30).astype(dtype)
        data = bytearray(encoded(".tif", pixels, cv2.IMWRITE_TIFF_COMPRESSION, 1))
        at = data.find(struct.pack("<HHIH", 262, 3, 1, 1))
        data[at + 8] = 0
        values = read_plain(written(tmp_path / "a.tif", bytes(data))).read(0).values
        np.testing.assert_array_equal(values[..., 0], np.iinfo(dtype).max - pixels)


def test_pages_are_planes_and_odd_ones_are_left_out(tmp_path: Path) -> None:
    ok, data = cv2.imencodemulti(".tif", [COLOUR, COLOUR[::-1], COLOUR[:10], COLOUR[:, ::-1]])
    assert ok
    stack = read_plain(written(tmp_path / "a.tif", data.tobytes()))
    assert stack.count == 3
    assert stack.notes == ("1 pages of another size or type were left out.",)
    np.testing.assert_array_equal(stack.read(2).values, COLOUR[:, ::-1, ::-1])
    np.testing.assert_array_equal(stack.read(1).values, COLOUR[::-1, :, ::-1])


def test_rotation_is_not_applied_and_the_time_is_known(tmp_path: Path) -> None:
    jpeg = encoded(".jpg", COLOUR)
    stack = read_plain(written(tmp_path / "a.jpg", with_exif(jpeg)))
    assert (stack.shape, stack.captured) == ((20, 30, 3), "2024-02-03T04:05:06")
    np.testing.assert_array_equal(stack.read(0).values, decoded(jpeg)[:, :, ::-1])


def test_another_type_than_its_name_says_is_read_with_a_note(tmp_path: Path) -> None:
    stack = read_plain(written(tmp_path / "a.jpg", encoded(".png", COLOUR)))
    assert stack.notes == ("Its name ends in .jpg, but it is a PNG file.",)
    with pytest.raises(UserError, match="not a readable PNG"):
        read_plain(written(tmp_path / "a.png", encoded(".webp", COLOUR)))


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif"])
def test_cut_files_are_refused_in_a_sentence(tmp_path: Path, ending: str) -> None:
    data = encoded(ending, COLOUR)
    for cut in (0, 1, 9, 30, len(data) // 2, len(data) - 1):
        path = written(tmp_path / f"a{ending}", data[:cut])
        with pytest.raises(UserError, match=r"a\.(png|jpg|bmp|tif) is "):
            read_plain(path)


def bombs() -> list[tuple[str, bytes]]:
    side = 40_000
    png = encoded(".png", COLOUR)
    png = png[:8] + chunk(b"IHDR", struct.pack(">II", side, side) + png[24:29]) + png[33:]
    bmp = bytearray(encoded(".bmp", COLOUR))
    struct.pack_into("<ii", bmp, 18, side, -side)
    jpeg = bytearray(encoded(".jpg", COLOUR))
    at = jpeg.find(b"\xff\xc0")
    struct.pack_into(">HH", jpeg, at + 5, side, side)
    tiff = bytearray(encoded(".tif", COLOUR))
    for tag, old in ((256, 30), (257, 20)):
        at = tiff.find(struct.pack("<HHI", tag, 3, 1) + struct.pack("<H", old))
        struct.pack_into("<H", tiff, at + 8, side)
    return [("a.png", png), ("a.bmp", bytes(bmp)), ("a.jpg", bytes(jpeg)), ("a.tif", bytes(tiff))]


@pytest.mark.parametrize(("name", "data"), bombs(), ids=lambda value: value if isinstance(value, str) else "")
def test_bombs_are_refused_without_decoding(
    tmp_path: Path, name: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any) -> Any:
        raise AssertionError("decoded")

    path = written(tmp_path / name, data)
    monkeypatch.setattr(cv2, "imdecode", never)
    monkeypatch.setattr(cv2, "imdecodemulti", never)
    for read in (read_plain, image_shape):
        with pytest.raises(UserError, match="too large: 40000 x 40000"):
            read(path)
    assert header_of(data).pages[0].width * 40_000 > MAX_PIXELS


def test_a_chunk_longer_than_its_file_is_refused_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any) -> Any:
        raise AssertionError("decoded")

    data = encoded(".png", COLOUR)
    path = written(tmp_path / "a.png", data[:33] + b"\x7f\xff\xff\xff" + data[37:])
    monkeypatch.setattr(cv2, "imdecode", never)
    for read in (read_plain, image_shape):
        with pytest.raises(UserError, match=r"a\.png is not a readable"):
            read(path)


def test_bmp_loses_what_follows_its_pixels() -> None:
    plain = encoded(".bmp", COLOUR)
    assert stripped(plain + b"Doe^Jane", ".bmp") == plain


def test_jpeg_is_stripped_without_loss() -> None:
    plain = encoded(".jpg", COLOUR)
    profile = b"\xff\xe2" + struct.pack(">H", 2 + 16) + b"ICC_PROFILE\0\1\1zz"
    data = with_exif(plain[:2] + profile + plain[2:]) + b"Doe^Jane trailing"
    clean = stripped(data, ".jpg")
    assert b"Doe" not in clean and b"Exif" not in clean and b"2024" not in clean
    assert profile in clean
    np.testing.assert_array_equal(decoded(clean), decoded(plain))
    assert stripped(clean, ".jpg") == clean
    progressive = encoded(".jpg", COLOUR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    np.testing.assert_array_equal(decoded(stripped(with_exif(progressive), "")), decoded(progressive))


def test_png_is_stripped_without_loss() -> None:
    plain = encoded(".png", COLOUR)
    extra = b"".join(
        chunk(name, b"Doe^Jane") for name in (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME", b"prVt")
    )
    clean = stripped(plain[:33] + extra + plain[33:] + b"Doe^Jane", ".png")
    assert clean == plain
    assert next(png_chunks(clean))[0] == b"IHDR"


def test_tiff_is_blanked_without_loss() -> None:
    plain = encoded(".tif", COLOUR)
    (first,) = struct.unpack("<I", plain[4:8])
    (count,) = struct.unpack("<H", plain[first : first + 2])
    entries = plain[first + 2 : first + 2 + 12 * count]
    at = len(plain)
    text = b"Doe^Jane, born 1950\0"
    extra = struct.pack("<HHII", 270, 2, len(text), at)
    directory = struct.pack("<H", count + 1) + extra + entries + struct.pack("<I", 0)
    data = plain[:4] + struct.pack("<I", at + len(text)) + plain[8:] + text + directory
    np.testing.assert_array_equal(decoded(data), COLOUR)
    clean = stripped(data, ".tif")
    assert b"Doe" in data and b"Doe" not in clean and len(clean) == len(data)
    np.testing.assert_array_equal(decoded(clean), COLOUR)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".bmp"])
def test_nothing_is_promised_of_damaged_files(ending: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        stripped(encoded(ending, COLOUR)[:20] if ending != ".bmp" else b"GIF89a", ending)


def test_capture_time_needs_a_real_date() -> None:
    png = encoded(".png", COLOUR)
    assert capture_time(png[:33] + chunk(b"eXIf", exif()) + png[33:]) == "2024-02-03T04:05:06"
    assert capture_time(png[:33] + chunk(b"eXIf", exif("0000:00:00 00:00:00")) + png[33:]) == ""
    assert capture_time(png) == capture_time(b"") == ""


def palette_png(values: Any, bits: int) -> bytes:
    height, width = values.shape
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 3, 0, 0, 0))
    data += chunk(b"PLTE", bytes(RNG.integers(0, 256, 3 * min(256, 1 << bits)).tolist()))
    rows = b""
    for row in values:
        unpacked = np.unpackbits(row.astype(np.uint8)[:, np.newaxis], axis=1)[:, 8 - bits :]
        rows += b"\0" + np.packbits(unpacked.ravel()).tobytes()
    return data + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_indices_of_a_palette_are_labels(tmp_path: Path, bits: int) -> None:
    values = RNG.integers(0, 1 << bits, (9, 11)).astype(np.uint8)
    values[0, 0] = 0
    labels = read_label_png(written(tmp_path / "eye_mask.png", palette_png(values, bits)))
    assert labels.name == "eye"
    assert list(labels.labels) == sorted(set(values.ravel().tolist()) - {0})
    for label in list(labels.labels)[:5]:
        np.testing.assert_array_equal(labels.read(0, label), values == label)


def test_grey_values_are_labels_and_smooth_edges_are_not(tmp_path: Path) -> None:
    blocks = np.zeros((20, 30), np.uint8)
    blocks[2:8, 2:8], blocks[10:16, 2:8], blocks[2:8, 12:20] = 60, 120, 255
    assert list(read_label_png(written(tmp_path / "a.png", encoded(".png", blocks))).labels) == [60, 120, 255]
    for top in (1, 255):
        two = (blocks > 100).astype(np.uint8) * top
        labels = read_label_png(written(tmp_path / "a.png", encoded(".png", two)))
        assert labels.labels == {1: "label 1"}
        np.testing.assert_array_equal(labels.read(0, 1), two > 0)
    small = np.array([[0, 1, 2, 1]], np.uint8)
    assert list(read_label_png(written(tmp_path / "a.png", encoded(".png", small))).labels) == [1, 2]
    disc = np.zeros((80, 80), np.uint8)
    cv2.circle(disc, (40, 40), 20, 255, -1, cv2.LINE_AA)
    for ending in (".png", ".jpg"):
        labels = read_label_png(written(tmp_path / f"a{ending}", encoded(ending, disc)))
        assert labels.labels == {1: "label 1"}
        assert abs(int(labels.read(0, 1).sum()) - np.pi * 20**2) < 100
