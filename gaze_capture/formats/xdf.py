"""Recordings of the Lab Streaming Layer (XDF) that hold a gaze stream, read with pyxdf.

Channels are told apart by the stream's own description, as the XDF wiki's "Gaze Meta-Data" has it: each channel has a
label, an eye (left, right, both), a type (ScreenX, ScreenY, Diameter, Confidence ...), a unit and a system.
"""

from __future__ import annotations

import importlib
import io
import logging
import re
import struct
import xml.etree.ElementTree
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gaze_capture.errors import MissingFact, UserError
from gaze_capture.formats.gaze_file import (
    Eye,
    GazeFile,
    Known,
    Message,
    Shown,
    assembled,
    geometry_of,
    missing,
)
from gaze_capture.recording import Floats
from gaze_capture.storage import explained_os_errors

FORMAT = "xdf"

_MAGIC = b"XDF:"
_BOUNDARY = bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")
_FILE_HEADER, _STREAM_HEADER, _SAMPLES, _CLOCK_OFFSET, _STREAM_FOOTER = 1, 2, 3, 4, 6
_BYTES = {"float32": 4, "double64": 8, "int8": 1, "int16": 2, "int32": 4, "int64": 8}
_MOST_CHANNELS = 10_000
_PIXELS = ("pixels", "pixel", "px")
_SHARES = ("normalized", "normalised", "norm")
_PICTURE = re.compile(r"\S.*?\.(?:png|jpe?g|tiff?|bmp|gif|dcm|nii(?:\.gz)?|nrrd)\b", re.IGNORECASE)
_OVER = re.compile(r"\b(?:end|ended|off|offset|stop|stopped|blank|clear|hide|hidden)\b", re.IGNORECASE)


def sniff(path: Path) -> bool:
    """Return whether the file begins as XDF files do."""
    try:
        with open(path, "rb") as stream:
            return stream.read(4) == _MAGIC
    except OSError:
        return False


def read(path: Path, known: Known) -> GazeFile:
    """Read an XDF file; see :func:`gaze_capture.formats.reading.read_gaze_file`."""
    try:
        pyxdf: Any = importlib.import_module("pyxdf")
    except ImportError:
        raise UserError(
            f"{path} is an XDF file, for which pyxdf is needed; install it with: pip install 'gaze-insight[lsl]'"
        ) from None
    with explained_os_errors(path):
        data = path.read_bytes()
    if not data.startswith(_MAGIC):
        raise UserError(f"{path} is no XDF file: it does not begin with 'XDF:'. Name another --format.")
    whole = _whole_chunks(data)
    damage = ""
    if len(whole) < len(data):
        damage = f"The file is damaged or cut off; {len(data) - len(whole)} of its {len(data)} bytes were left out."
    logging.getLogger("pyxdf").setLevel(logging.CRITICAL)
    try:
        with np.errstate(all="ignore"):
            streams, _ = pyxdf.load_xdf(io.BytesIO(whole), synchronize_clocks=True, dejitter_timestamps=False)
    # A damaged file may make the library fail in any way.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged and could not be read as XDF ({reason}).") from None
    found = [_Stream.of(stream) for stream in streams]
    stream = _gaze_stream(path, known, found, damage)
    return _gaze_file(path, known, stream, _messages(found), [damage] if damage else [])


def _whole_chunks(data: bytes) -> bytes:
    """Return a file without its damaged parts: each chunk is whole and asks for no more than is in it.

    The library makes room for as many samples and channels as a damaged number may say. After damage, reading goes on
    behind the next boundary, which recorders write every few seconds.
    """
    parts = [_MAGIC]
    place = len(_MAGIC)
    sizes: dict[int, tuple[int, int]] = {}
    while place < len(data):
        stop = _end_of_chunk(data, place, sizes)
        if stop is None:
            boundary = data.find(_BOUNDARY, place)
            if boundary < 0:
                break
            place = boundary + len(_BOUNDARY)
            continue
        parts.append(data[place:stop])
        place = stop
    return b"".join(parts)


def _end_of_chunk(data: bytes, place: int, sizes: dict[int, tuple[int, int]]) -> int | None:
    """Return where a chunk ends, or None where it cannot be right; `sizes` learns each stream's sample."""
    start = _after_number(data, place)
    if start is None:
        return None
    begin, length = start
    stop = begin + length
    if length < 2 or stop > len(data):
        return None
    (tag,) = struct.unpack_from("<H", data, begin)
    if tag == _FILE_HEADER:
        return None if _parsed(data[begin + 2 : stop]) is None else stop
    if tag not in (_STREAM_HEADER, _SAMPLES, _CLOCK_OFFSET, _STREAM_FOOTER):
        return stop
    if length < 6:
        return None
    (stream,) = struct.unpack_from("<I", data, begin + 2)
    if tag == _STREAM_HEADER:
        size = _sample_size(data[begin + 6 : stop])
        if size is None or stream in sizes:
            return None
        sizes[stream] = size
    elif stream not in sizes or (tag == _CLOCK_OFFSET and length != 22):
        return None
    elif tag == _SAMPLES:
        count = _after_number(data, begin + 6)
        if count is None or count[1] * (1 + sizes[stream][0] * sizes[stream][1]) > stop - count[0]:
            return None
    return stop


def _after_number(data: bytes, place: int) -> tuple[int, int] | None:
    """Return where a number of variable length ends, and the number; None where it is cut off or none."""
    width = data[place] if place < len(data) else 0
    if width not in (1, 4, 8) or place + 1 + width > len(data):
        return None
    return place + 1 + width, int.from_bytes(data[place + 1 : place + 1 + width], "little")


def _parsed(text: bytes) -> xml.etree.ElementTree.Element | None:
    try:
        return xml.etree.ElementTree.fromstring(text.decode("utf-8", "replace"))
    except (xml.etree.ElementTree.ParseError, ValueError):
        return None


def _sample_size(text: bytes) -> tuple[int, int] | None:
    """Return a stream's channels and the least bytes of each; None where its header cannot be understood."""
    header = _parsed(text)
    try:
        if header is None or header.findtext("name") is None or header.tag != "info":
            return None
        channels = int(header.findtext("channel_count") or "")
        float(header.findtext("nominal_srate") or "")
    except ValueError:
        return None
    kind = header.findtext("channel_format") or ""
    # A text takes at least a length of its own, of two bytes.
    size = 2 if kind == "string" else _BYTES.get(kind)
    return (channels, size) if size is not None and 0 < channels <= _MOST_CHANNELS else None


@dataclass(frozen=True)
class _Channel:
    label: str
    eye: str
    kind: str
    unit: str
    system: str


@dataclass(frozen=True)
class _Stream:
    id: int
    name: str
    type: str
    source: str
    channels: tuple[_Channel, ...]
    times: Floats
    """(N,) in s, on the recording computer's clock."""
    values: Any
    """(N, C) numbers, or N lists of C texts."""

    @classmethod
    def of(cls, stream: dict[str, Any]) -> _Stream:
        info = stream["info"]
        described = _first(_first(info, "desc"), "channels")
        channels = described.get("channel", []) if isinstance(described, dict) else []
        return cls(
            int(info["stream_id"]),
            _text(info, "name"),
            _text(info, "type"),
            _text(info, "source_id"),
            tuple(
                _Channel(
                    *(
                        _text(channel, key).strip().casefold()
                        for key in ("label", "eye", "type", "unit", "coordinate_system")
                    )
                )
                for channel in channels
            ),
            _possible(np.asarray(stream["time_stamps"], dtype=np.float64)),
            stream["time_series"],
        )

    def column(self, number: int | None) -> Floats:
        """Return a channel's values (N,), NaN where there is no such channel."""
        if number is None:
            return np.full(len(self.times), np.nan)
        values: Floats = np.asarray(self.values[:, number], dtype=np.float64)
        return values


def _possible(seconds: Floats) -> Floats:
    """Return times, NaN where one is none that fits into nanoseconds of 64 bits."""
    return np.where(np.abs(seconds) < 9e9, seconds, np.nan)


def _first(node: Any, key: str) -> Any:
    """Return the first child of a name, as pyxdf lists them; empty where there is none."""
    children = node.get(key) if isinstance(node, dict) else None
    return children[0] if isinstance(children, list) and children else {}


def _text(node: Any, key: str) -> str:
    found = _first(node, key)
    return found if isinstance(found, str) else ""


def _gaze_stream(path: Path, known: Known, streams: list[_Stream], damage: str) -> _Stream:
    """Return the gaze stream asked for, or the only one."""
    found = [stream for stream in streams if stream.type.casefold() == "gaze" and len(stream.times)]
    if not found:
        held = ", ".join(f"{stream.name} ({stream.type})" for stream in streams) or "none"
        raise UserError(
            f"{path} holds no stream of the type Gaze with samples in it; its streams: {held}. {damage}".rstrip()
        )
    names = [stream.name for stream in found]
    names = [
        name if names.count(name) == 1 else f"{name}#{stream.id}"
        for name, stream in zip(names, found, strict=True)
    ]
    if known.stream is not None:
        for name, stream in zip(names, found, strict=True):
            if known.stream in (name, str(stream.id), stream.source):
                return stream
        raise UserError(
            f"{path} holds no gaze stream {known.stream!r}; name one with --stream: {', '.join(names)}."
        )
    if len(found) > 1:
        raise MissingFact(
            f"{path} holds {len(found)} gaze streams; name one with --stream: {', '.join(names)}.",
            ["stream"],
            names,
        )
    return found[0]


def _gaze_file(
    path: Path, known: Known, stream: _Stream, messages: list[Message], notes: list[str]
) -> GazeFile:
    world = False
    places: dict[tuple[str, str], int] = {}
    for number, channel in enumerate(stream.channels):
        axis = _axis(channel)
        if axis is None:
            continue
        if any(word in channel.system for word in ("world", "scene", "camera", "head")):
            world = True
            continue
        places.setdefault((_eye(channel), axis), number)
    if not places:
        reason = (
            "its gaze is in a camera's picture, which does not say where on a screen it fell"
            if world
            else "its description names no channels of the type ScreenX and ScreenY"
        )
        raise UserError(f"{path}: the stream {stream.name!r} cannot be placed on a screen: {reason}.")

    def pair(eye: str) -> tuple[int, int] | None:
        return (places[eye, "x"], places[eye, "y"]) if {(eye, "x"), (eye, "y")} <= places.keys() else None

    eyes: Eye | Literal["combined"]
    sources: tuple[tuple[int, int] | None, tuple[int, int] | None]
    left, right, both, unnamed = pair("left"), pair("right"), pair("both"), pair("")
    if left or right:
        eyes = "both" if left and right else "left" if left else "right"
        sources = left, right
    elif both:
        eyes, sources = "combined", (both, both)
    elif unnamed and known.eye is not None:
        eyes = "combined" if known.eye == "both" else known.eye
        sources = (unnamed if known.eye != "right" else None, unnamed if known.eye != "left" else None)
        if eyes == "combined":
            known = replace(known, eye=None)
    elif unnamed:
        raise missing(path, f"which eye the stream {stream.name!r} is of", "--eye left|right|both", ["eye"])
    else:
        raise UserError(f"{path}: the stream {stream.name!r} has a horizontal or a vertical channel only.")

    geometry = geometry_of(path, known)
    size = np.array([geometry.width_px, geometry.height_px])
    positions = []
    for source in sources:
        xy = np.stack([stream.column(number) for number in source or (None, None)], axis=1)
        if source is not None and _are_pixels(path, known, stream.channels[source[0]].unit):
            xy = xy / size
        positions.append(xy)
    pupils = [
        stream.column(
            next(
                (
                    number
                    for number, channel in enumerate(stream.channels)
                    if channel.unit == "mm" and "diameter" in channel.kind and _eye(channel) == eye
                ),
                None,
            )
        )
        for eye in ("left", "right")
    ]
    return assembled(
        path,
        format=FORMAT,
        tracker=f"XDF file, stream {stream.name}",
        time_ns=stream.times * 1e9,
        left=positions[0],
        right=positions[1],
        pupil_mm=np.stack(pupils, axis=1),
        geometry=geometry,
        known=known,
        eyes=eyes,
        shown=_shown(messages),
        messages=messages,
        notes=notes,
    )


def _axis(channel: _Channel) -> str | None:
    """Return x or y where the channel is a position on the screen, by its type or, without one, by its label."""
    if match := re.fullmatch(r"screen[ _-]?([xy])", channel.kind):
        return match[1]
    if channel.kind:
        return None
    match = re.fullmatch(r".*(?:screen|gaze|por)(?:[ _-]?(?:point|pos|position))?[ _-]?([xy])", channel.label)
    return match[1] if match else None


def _eye(channel: _Channel) -> str:
    """Return left, right or both, by the channel's eye or its label; empty where neither tells."""
    if channel.eye in ("left", "right", "both"):
        return channel.eye
    words = re.split(r"[^a-z]+", channel.label)
    for eye in ("left", "right", "both"):
        if eye in words or channel.label.startswith(eye):
            return eye
    return ""


def _are_pixels(path: Path, known: Known, unit: str) -> bool:
    if unit in _PIXELS:
        return True
    if unit in _SHARES:
        return False
    if known.coordinates is None:
        raise missing(
            path,
            f"the unit of its positions ({unit or 'none given'})",
            "--coordinates px|normalised",
            ["coordinates"],
        )
    return known.coordinates == "px"


def _messages(streams: list[_Stream]) -> list[Message]:
    """Return the texts of all streams of markers, in order of time."""
    found = [
        Message(int(time * 1e9), " ".join(word for word in row if word))
        for stream in streams
        if isinstance(stream.values, list)
        for time, row in zip(stream.times.tolist(), stream.values, strict=True)
        if np.isfinite(time)
    ]
    return sorted(found, key=lambda message: message.time_ns)


def _shown(messages: list[Message]) -> list[Shown]:
    """Return pictures from the markers that name a picture's file until the next that names one or an end."""
    shown = []
    name, since = "", 0
    for message in messages:
        picture = _PICTURE.search(message.text)
        over = _OVER.search(message.text[: picture.start()] if picture else message.text) is not None
        if name and (picture or over):
            shown.append(Shown(name, since, message.time_ns, None))
            name = ""
        if picture and not over:
            # A word in front, as in "show: a.png", is none of the name.
            name, since = re.split(r"[\s:=]+(?=\S+$)", picture[0])[-1], message.time_ns
    if name:
        shown.append(Shown(name, since, 9_000_000_000_000_000_000, None))
    return shown
