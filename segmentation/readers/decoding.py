"""Frames of pixel data out of DICOM files; what C code decodes is decoded in a process of its own.

The JPEG decoders abort, crash or never return on some damaged data (docs/adr/0007 has the counts), so compressed
frames are asked of a small child that is stopped after a time limit and started anew. Uncompressed and
run-length-encoded frames are read in this process: nothing but Python and numpy sees them.

The child speaks over its pipes: a request is a length (4 bytes) and JSON; an answer is a length and JSON, then, if it
has an array, the array's bytes, whose number the JSON tells.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import queue
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

MAX_PIXELS = 1 << 26
"""Rows times columns of one plane; larger ones are refused before anything is decoded."""
MAX_FRAMES = 1 << 17
MAX_INFLATED = 1 << 30
"""Bytes of a deflated file once inflated; pydicom inflates all of it at once."""
MAX_MEMORY = 4 << 30
"""Bytes of address space that a decoder may take (where the system lets us say so)."""
SECONDS = 10.0
SECONDS_PER_MEGAPIXEL = 1.0

DAMAGED = "its pixel data is damaged or cut short"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_RLE = "1.2.840.10008.1.2.5"
_JPEG_12_BIT = "1.2.840.10008.1.2.4.51"
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN")
_PIXEL_TAGS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}

IMAGE_KEYWORDS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)


class DecodingError(Exception):
    """A frame that cannot be decoded; the text is a reason without any value of the file."""


@contextlib.contextmanager
def quiet_pydicom() -> Iterator[list[warnings.WarningMessage]]:
    """Collect pydicom's warnings and mute its log: both may quote values of the file, such as names."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        logger.disabled = before


@dataclass(frozen=True)
class Header:
    """A file's attributes before its pixel data, and where these begin."""

    dataset: Any
    transfer_syntax: str
    keyword: str
    """Which element holds the pixels; ``""`` where none does."""
    vr: str
    offset: int
    """Of the pixel element's value in the file; -1 in a deflated file."""
    length: int
    """Bytes of the pixel element's value; -1 where it is undefined (compressed)."""
    departures: int
    """How often pydicom warned."""


def _inflates_too_far(path: Path, meta: Any) -> bool:
    start = 144 + int(meta.get("FileMetaInformationGroupLength", 0))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    with open(path, "rb") as stream:
        stream.seek(start)
        while data := stream.read(1 << 16):
            while data and total <= MAX_INFLATED:
                total += len(inflater.decompress(data, 1 << 20))
                data = inflater.unconsumed_tail
    return total > MAX_INFLATED


def read_header(path: Path, keywords: tuple[str, ...]) -> Header:
    """Read the named attributes of a DICOM file up to its pixel data, with or without the DICM preamble.

    Raises
    ------
    OSError
        If the file cannot be opened.
    DecodingError
        If it is not DICOM or too damaged.
    """
    from pydicom import dcmread
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    tags = [Tag(keyword) for keyword in keywords]
    found: list[tuple[int, str, int]] = []

    def at_pixels(tag: Any, vr: str | None, length: int) -> bool:
        if int(tag) in _PIXEL_TAGS:
            found.append((int(tag), vr or "", length))
            return True
        return False

    with quiet_pydicom() as caught, open(path, "rb") as stream:
        try:
            from pydicom.filereader import read_file_meta_info

            has_preamble = stream.read(132)[128:] == b"DICM"
            stream.seek(0)
            meta = read_file_meta_info(path) if has_preamble else {}
            syntax = str(meta.get("TransferSyntaxUID", "") or "")
            if syntax == _DEFLATED:
                if _inflates_too_far(path, meta):
                    raise DecodingError("it would take more than a gigabyte of memory once inflated")
                dataset = dcmread(path, force=True)
                keyword = next((name for name in _PIXEL_TAGS.values() if name in dataset), "")
                vr, offset = (dataset[keyword].VR if keyword else ""), -1
                length = len(dataset[keyword].value) if keyword else 0
            else:
                dataset = read_partial(stream, at_pixels, force=True, specific_tags=tags)
                implicit, little = dataset.original_encoding
                if not syntax:
                    syntax = (
                        "1.2.840.10008.1.2"
                        if implicit
                        else "1.2.840.10008.1.2.1"
                        if little
                        else "1.2.840.10008.1.2.2"
                    )
                keyword, vr, offset, length = "", "", 0, 0
                if found:
                    tag, vr, length = found[0]
                    keyword = _PIXEL_TAGS[tag]
                    # Some files write this one element in the other form; a look decides.
                    offset = stream.tell()
                    offset += 12 if stream.read(6)[4:] in _LONG_VRS else 8
                    length = -1 if length == 0xFFFFFFFF else length
        except DecodingError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            # pydicom raises whatever its parsing stumbles over, and quotes what it read.
            raise DecodingError("it is not a readable DICOM file") from error
        for tag in list(dataset.keys()):
            # pydicom converts values when they are first asked for, and would warn then.
            with contextlib.suppress(Exception):
                dataset[tag]
        return Header(dataset, syntax, keyword, vr, offset, length, len(caught))


def number(dataset: Any, keyword: str) -> float | None:
    """Return one finite number of a dataset, or None where it is missing or malformed."""
    values = numbers(dataset, keyword)
    return values[0] if values else None


def numbers(dataset: Any, keyword: str) -> tuple[float, ...]:
    """Return the finite numbers of an attribute, or nothing where any is malformed."""
    try:
        value = dataset.get(keyword)
        if value is None or value == "":
            return ()
        several = isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue"
        result = tuple(float(item) for item in value) if several else (float(value),)
    except Exception:
        return ()
    return result if all(np.isfinite(item) for item in result) else ()


def text(dataset: Any, keyword: str) -> str:
    """Return an attribute as text, its values joined by a backslash, or ``""`` where it is missing or malformed."""
    try:
        value = dataset.get(keyword)
        if value is None:
            return ""
        if type(value).__name__ == "MultiValue":
            return "\\".join(str(item) for item in value)
        return str(value).strip().strip("\0")
    except Exception:
        return ""


def syntax_name(uid: str) -> str:
    """Return a transfer syntax's name, or a plain word where the standard has none for it."""
    from pydicom.uid import UID

    with quiet_pydicom():
        name = str(UID(uid).name)
    return name if name != uid else "unknown transfer syntax"


def check_syntax(uid: str) -> None:
    """Raise DecodingError if pixel data of a transfer syntax cannot be decoded here."""
    from pydicom.pixels import get_decoder

    try:
        with quiet_pydicom():
            decoder = get_decoder(uid)
    except NotImplementedError:
        raise DecodingError(f"there is no decoder for {syntax_name(uid)}") from None
    if decoder.is_encapsulated and not decoder.is_available:
        raise DecodingError(f"no decoder for {syntax_name(uid)} is installed")


@dataclass(frozen=True)
class Frame:
    """A decoded frame: (H, W) or (H, W, samples) as the file holds it, YBR turned to RGB."""

    pixels: npt.NDArray[Any]
    photometric: str
    departures: int = 0


def _codestream_pixels(data: bytes) -> int:
    """Return how many pixels a JPEG or JPEG 2000 codestream says it has; 0 where it does not say."""
    start = data.find(b"\xff\x4f\xff\x51")
    if 0 <= start < 256 and len(data) >= start + 24:
        width, height, left, top = struct.unpack(">IIII", data[start + 8 : start + 24])
        return max(0, int(width) - int(left)) * max(0, int(height) - int(top))
    place = 2
    while place + 9 < len(data) and data[place] == 0xFF:
        marker, size = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return int(height * width)
        if marker == 0xDA:
            break
        place += 2 + size
    return 0


class FileDecoder:
    """Decodes single frames of one file; holds its header, never its pixels (but for a deflated file)."""

    def __init__(self, path: Path, keywords: tuple[str, ...] = ()) -> None:
        from pydicom.pixels import get_decoder

        self.path = path
        extra = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
        header = read_header(path, IMAGE_KEYWORDS + extra + keywords)
        self.header = header
        if not header.keyword:
            raise DecodingError("it holds no pixels")
        if header.offset > 0 and header.length >= 0 and path.stat().st_size < header.offset + header.length:
            raise DecodingError("it ends within its pixel data")
        check_syntax(header.transfer_syntax)
        self._decoder = get_decoder(header.transfer_syntax)
        self._compressed = bool(self._decoder.is_encapsulated)

    @property
    def is_isolated(self) -> bool:
        """Whether C code has to decode it."""
        return self._compressed and self.header.transfer_syntax != _RLE

    def frame(self, index: int) -> Frame:
        """Decode one frame in this process.

        Raises
        ------
        DecodingError
            If it cannot be decoded.
        OSError
            If the file cannot be read.
        """
        from pydicom.pixels.utils import as_pixel_options

        dataset = self.header.dataset
        rows, columns = number(dataset, "Rows") or 0, number(dataset, "Columns") or 0
        if not 0 < rows * columns <= MAX_PIXELS:
            raise DecodingError("its declared size is not sensible")
        syntax = self.header.transfer_syntax
        # Bits beyond those stored are ours to mask: pydicom does not look at HighBit.
        raw_bits = {} if self.is_isolated else {"correct_unused_bits": False}
        with quiet_pydicom() as caught:
            try:
                if self.header.offset < 0:
                    pixels, properties = self._decoder.as_array(dataset, index=index, **raw_bits)
                else:
                    options = as_pixel_options(
                        dataset, pixel_keyword=self.header.keyword, pixel_vr=self.header.vr or "OW"
                    )
                    with open(self.path, "rb") as stream:
                        if self.is_isolated:
                            self._check_codestream(stream, index, options)
                        stream.seek(self.header.offset)
                        pixels, properties = self._decoder.as_array(
                            stream, index=index, **options, **raw_bits
                        )
            except (OSError, DecodingError):
                raise
            except MemoryError:
                raise DecodingError("decoding it takes more memory than is allowed") from None
            except Exception as error:
                if syntax == _JPEG_12_BIT and number(dataset, "BitsStored") != 8:
                    raise DecodingError("no decoder for 12-bit lossy JPEG is installed") from error
                raise DecodingError(DAMAGED) from error
        return Frame(pixels, str(properties["photometric_interpretation"]), len(caught))

    def _check_codestream(self, stream: BinaryIO, index: int, options: dict[str, Any]) -> None:
        from pydicom.encaps import get_frame

        stream.seek(self.header.offset)
        data = get_frame(
            stream,
            index,
            number_of_frames=options["number_of_frames"],
            extended_offsets=options.get("extended_offsets"),
        )
        declared = int(options["rows"]) * int(options["columns"])
        if _codestream_pixels(data) > max(4 * declared, 1 << 20):
            raise DecodingError("it would grow far beyond its declared size when decoded")


def decode(source: FileDecoder, index: int) -> Frame:
    """Decode one frame, in the child process where C code does it.

    Raises
    ------
    DecodingError
        If it cannot be decoded.
    OSError
        If the file cannot be read.
    """
    if not source.is_isolated:
        return source.frame(index)
    dataset = source.header.dataset
    megapixels = (number(dataset, "Rows") or 0) * (number(dataset, "Columns") or 0) / 1e6
    return _child.ask(source.path, index, SECONDS + SECONDS_PER_MEGAPIXEL * min(megapixels, 100.0))


def decoder_command() -> list[str]:
    """Return the command that starts a decoder: this very program, isolated from the environment."""
    if getattr(sys, "frozen", False):
        return [sys.executable, "--decoder"]
    return [sys.executable, "-I", "-m", "app", "--decoder"]


class _Child:
    """The one decoder of this process; started when first asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[tuple[dict[str, Any], bytes] | None] = queue.Queue()

    def ask(self, path: Path, index: int, seconds: float) -> Frame:
        request = json.dumps({"path": str(path.absolute()), "frame": index}).encode()
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None:
                self.stop()
                process = self._start()
            assert process.stdin is not None
            try:
                process.stdin.write(struct.pack("<I", len(request)) + request)
                process.stdin.flush()
                answer = self._answers.get(timeout=seconds)
            except queue.Empty:
                self.stop()
                raise DecodingError(
                    f"its decoder did not come to an end within {seconds:.0f} seconds"
                ) from None
            except OSError:
                answer = None
            if answer is None:
                self.stop()
                raise DecodingError(f"its decoder crashed; probably {DAMAGED}")
        header, data = answer
        if "reason" in header:
            raise DecodingError(str(header["reason"]))
        pixels = np.frombuffer(data, dtype=np.dtype(header["dtype"])).reshape(header["shape"]).copy()
        return Frame(pixels, str(header["photometric"]), int(header["departures"]))

    def _start(self) -> subprocess.Popen[bytes]:
        options: dict[str, Any] = {}
        if sys.platform == "win32":
            options["creationflags"] = subprocess.CREATE_NO_WINDOW
        process = subprocess.Popen(
            decoder_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # The libraries complain there, with what they read.
            stderr=subprocess.DEVNULL,
            **options,
        )
        answers: queue.Queue[tuple[dict[str, Any], bytes] | None] = queue.Queue()
        assert process.stdout is not None
        threading.Thread(target=_listen, args=(process.stdout, answers), daemon=True).start()
        # The first answer says that its imports are done; they are not to count as decoding.
        try:
            if answers.get(timeout=120.0) is None:
                raise DecodingError("its decoder could not be started")
        except queue.Empty:
            process.kill()
            raise DecodingError("its decoder could not be started") from None
        self._process, self._answers = process, answers
        return process

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


def _read_exactly(stream: BinaryIO, size: int) -> bytes | None:
    data = stream.read(size)
    return data if len(data) == size else None


def _listen(stream: BinaryIO, answers: queue.Queue[tuple[dict[str, Any], bytes] | None]) -> None:
    # A stream that is closed while it is read ends the thread, as its end does.
    with contextlib.suppress(OSError, ValueError):
        while (size := _read_exactly(stream, 4)) is not None:
            text_ = _read_exactly(stream, struct.unpack("<I", size)[0])
            if text_ is None:
                break
            header = json.loads(text_)
            data = _read_exactly(stream, int(header.get("bytes", 0)))
            if data is None:
                break
            answers.put((header, data))
    answers.put(None)


_child = _Child()
atexit.register(_child.stop)


def _limit_memory() -> None:
    if sys.platform != "win32":
        import resource

        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> int:
    """Answer requests until stdin ends: the child's side."""
    requests = open(0, "rb", closefd=False)
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever a library prints must not end up among the answers.
    os.dup2(2, 1)
    _limit_memory()

    def send(header: dict[str, Any], data: bytes = b"") -> None:
        encoded = json.dumps({**header, "bytes": len(data)}).encode()
        answers.write(struct.pack("<I", len(encoded)) + encoded + data)
        answers.flush()

    import pydicom.pixels.decoders

    assert pydicom.pixels.decoders
    send({"ready": True})
    source: FileDecoder | None = None
    while (size := _read_exactly(requests, 4)) is not None:
        request = json.loads(_read_exactly(requests, struct.unpack("<I", size)[0]) or b"{}")
        try:
            path = Path(request["path"])
            if source is None or source.path != path:
                source = FileDecoder(path)
            frame = source.frame(request["frame"])
            pixels = np.ascontiguousarray(frame.pixels)
            header = {
                "dtype": pixels.dtype.str,
                "shape": pixels.shape,
                "photometric": frame.photometric,
                "departures": frame.departures,
            }
            send(header, pixels.tobytes())
        except DecodingError as error:
            send({"reason": str(error)})
        except Exception:
            send({"reason": DAMAGED})
    return 0
