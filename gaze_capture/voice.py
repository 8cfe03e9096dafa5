"""Voice notes beside a recording: WAV files that a crash can shorten but not spoil, and a list of them."""

from __future__ import annotations

import contextlib
import os
import queue
import struct
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, make_folder, read_json, sha256_of, write_json_atomic

RATE_HZ = 16_000
LONGEST_S = 120.0
FOLDER, LIST = "voice", "voice.json"

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_UNTIL_THE_END = 0xFFFF_FFFF - 36
"""Length told while a note is spoken: players then play what there is."""

Int16s = npt.NDArray[np.int16]


@dataclass(frozen=True)
class VoiceNote:
    """One note, of one annotator on one image."""

    file: str
    """Its name in the recording's folder ``voice``."""
    image_id: str
    target_id: str | None
    start_ns: int
    """Host ``time.monotonic_ns()``, as samples have it."""
    seconds: float
    """0 where a crash cut it off; the file holds what was said."""
    sha256: str
    """Empty where a crash cut it off."""


class VoiceWriter:
    """Writes one note while it is spoken; whoever delivers the sound only enqueues.

    Parameters
    ----------
    folder
        The recording's; the note goes into its folder ``voice``.

    Raises
    ------
    UserError
        If nothing can be written there.
    """

    def __init__(self, folder: Path, image_id: str, target_id: str | None, start_ns: int) -> None:
        self._folder = folder
        self._image_id, self._target_id, self._start_ns = image_id, target_id, start_ns
        place = folder / FOLDER
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._failure: UserError | None = None
        self._count = 0
        with explained_os_errors(place):
            make_folder(place, folder)
            number = 1 + len(list(place.glob("*.wav")))
            self._path = place / f"note-{number:04d}.wav"
            # Unbuffered: what was said must not wait for more.
            self._stream = open(self._path, "xb", buffering=0)
            self._stream.write(_header(_UNTIL_THE_END))
        # Listed at once: a crash must not leave a note that belongs to nothing.
        self._list(VoiceNote(self._path.name, image_id, target_id, start_ns, 0.0, ""))
        self._thread = threading.Thread(target=self._write, name="voice note", daemon=True)
        self._thread.start()

    def _list(self, note: VoiceNote | None) -> None:
        others = [one for one in notes_of(self._folder) if one.file != self._path.name]
        listed = [*others, note] if note is not None else others
        write_json_atomic(self._folder / FOLDER / LIST, [asdict(one) for one in listed], within=self._folder)

    @property
    def failure(self) -> UserError | None:
        """Why writing stopped, or None."""
        return self._failure

    @property
    def seconds(self) -> float:
        """How long it is so far."""
        return self._count / RATE_HZ

    def add(self, sound: Int16s) -> None:
        """Enqueue sound (N,) at 16 kHz; what comes after two minutes is left out."""
        room = max(0, round(LONGEST_S * RATE_HZ) - self._count)
        kept = sound[:room]
        if len(kept):
            self._count += len(kept)
            self._queue.put(kept.astype("<i2").tobytes())

    def close(self) -> VoiceNote | None:
        """End the note and list it; None where nothing was said.

        Raises
        ------
        UserError
            If writing failed; what was said before is kept.
        """
        self._queue.put(None)
        self._thread.join()
        self._stream.close()
        if self._count == 0:
            self._path.unlink()
            self._list(None)
            return None
        # A full disk may refuse it; what was said can be heard all the same.
        with contextlib.suppress(OSError):
            repair(self._path)
        if self._failure is not None:
            raise self._failure
        note = VoiceNote(
            self._path.name,
            self._image_id,
            self._target_id,
            self._start_ns,
            round(self.seconds, 3),
            sha256_of(self._path),
        )
        self._list(note)
        return note

    def _write(self) -> None:
        try:
            while (part := self._queue.get()) is not None:
                with explained_os_errors(self._path):
                    self._stream.write(part)
        except UserError as error:
            self._failure = error


def _header(data_bytes: int) -> bytes:
    """Return the 44 bytes before 16-bit mono sound of a length."""
    return _HEADER.pack(
        b"RIFF", 36 + data_bytes, b"WAVE", b"fmt ", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16, b"data", data_bytes
    )


def repair(path: Path) -> None:
    """Let a note's header tell the length that the file has."""
    with open(path, "r+b") as stream:
        size = os.fstat(stream.fileno()).st_size
        data = max(0, size - _HEADER.size) // 2 * 2
        stream.write(_header(data))
        stream.truncate(_HEADER.size + data)


def notes_of(folder: Path) -> list[VoiceNote]:
    """Return the notes of a recording, oldest first.

    Raises
    ------
    UserError
        If their list is damaged.
    """
    path = folder / FOLDER / LIST
    if not path.exists():
        return []
    try:
        return [VoiceNote(**values) for values in read_json(path)]
    except TypeError as error:
        raise UserError(f"{path} is damaged ({error}). The WAV files beside it can still be heard.") from None


def read_note(folder: Path, note: VoiceNote) -> Int16s:
    """Return a note's sound (N,) at 16 kHz.

    Raises
    ------
    UserError
        If the file is missing or no WAV.
    """
    path = folder / FOLDER / note.file
    with explained_os_errors(path):
        data = path.read_bytes()
    if not data.startswith(b"RIFF"):
        raise UserError(f"{path} is no voice note of this program.")
    # Not by the header's length, which a crash leaves open.
    sound: Int16s = np.frombuffer(
        data, dtype="<i2", offset=_HEADER.size, count=(len(data) - _HEADER.size) // 2
    )
    return sound.astype(np.int16)
