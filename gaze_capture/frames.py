"""Append-only files of checked frames: magic bytes, then ``type u8, length u32, crc32 u32, payload``.

Little endian; the CRC covers type, length and payload. A crash can shorten such a file but not spoil it.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

DAMAGED = -1
"""Type that :func:`frames` gives a frame whose checksum is wrong."""

LONGEST_PAYLOAD = 1 << 26

READ_WRITE = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
"""Flags to open such a file with: no newline translation on Windows, not inherited by child processes."""

_HEAD = struct.Struct("<BII")


def frame(kind: int, payload: bytes) -> bytes:
    """Return one frame."""
    return _HEAD.pack(kind, len(payload), _checksum(kind, payload)) + payload


def _checksum(kind: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<BI", kind, len(payload))))


def frames(data: bytes, offset: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield (type, payload, offset of the frame's end) of all frames from an offset on.

    A damaged frame has the type :data:`DAMAGED` and no payload. Stops where nothing sound follows: the torn tail.
    """
    pending: list[int] = []
    while offset + _HEAD.size <= len(data):
        kind, length, checksum = _HEAD.unpack_from(data, offset)
        stop = offset + _HEAD.size + length
        if length > LONGEST_PAYLOAD or stop > len(data):
            return
        payload = data[offset + _HEAD.size : stop]
        if _checksum(kind, payload) == checksum:
            # Only a sound frame behind it proves that a damaged one was not the tail.
            for end in pending:
                yield DAMAGED, b"", end
            pending = []
            yield kind, payload, stop
        else:
            pending.append(stop)
        offset = stop


def append(descriptor: int, data: bytes) -> None:
    """Write all of the data where the file stands."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync(descriptor: int) -> None:
    """Push a file's content to the disk."""
    if sys.platform == "linux":
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a new file's name durable; Windows neither needs nor allows it."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            # Some network file systems refuse to sync a folder.
            with contextlib.suppress(OSError):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def lock(descriptor: int) -> bool:
    """Mark the file as being written until this process ends; False if another one writes it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            # Windows locks bytes against reading, so one far behind the end is taken.
            os.lseek(descriptor, 1 << 40, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            finally:
                os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        # A file system without locks: recording must work there too.
        return True
    return True
