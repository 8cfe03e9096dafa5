"""A draft on disk: an append-only file of checked frames that a crash can shorten by the last step, but not spoil.

``<name>.edits`` holds what the mask began as, then each step, each one taken back and each done again, in order
(see :mod:`gaze_capture.frames`). Every frame's payload is a line of JSON and, after it, packed bits.
"""

from __future__ import annotations

import contextlib
import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.frames import DAMAGED, READ_WRITE, append, frame, frames, lock, sync
from gaze_capture.storage import explained, explained_os_errors, write_bytes_atomic
from segmentation.editing.history import EditableMask, Step, packed, unpacked
from segmentation.editing.regions import Box, Mask
from segmentation.review_index import Purpose

MAGIC = b"GAZEEDT1"
ENDING = ".edits"

_HEADER, _STEP, _UNDO, _REDO = range(4)


@dataclass(frozen=True)
class DraftHeader:
    """What a draft is of, and how it began."""

    image_id: str
    target_id: str
    annotator: str
    subject: str
    """The run whose prediction is corrected, or ``"pseudomask"``."""
    purpose: Purpose
    started_from: str
    shape: tuple[int, int]
    began: str
    """ISO 8601, UTC."""
    host: str


@dataclass
class ReadDraft:
    """A draft as it was found."""

    header: DraftHeader
    edit: EditableMask
    seconds: float
    """Spent on it, as far as it was noted."""
    sound_bytes: int
    """What follows in the file is the torn tail."""
    damaged: bool
    """Whether steps follow that could not be read: the file is not to be written to."""


def _payload(values: dict[str, Any], bits: bytes = b"") -> bytes:
    return json.dumps(values, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n" + bits


def _parted(payload: bytes) -> tuple[dict[str, Any], bytes]:
    line, _, bits = payload.partition(b"\n")
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("no object")
    return values, bits


def _step_frame(step: Step, seconds: float) -> bytes:
    values = {"word": step.word, "box": step.box, "start": step.start, "seconds": round(seconds, 2)}
    return frame(_STEP, _payload(values, step.flipped))


def whole_draft(header: DraftHeader, began_as: Mask, edit: EditableMask, seconds: float) -> bytes:
    """Return the bytes of a draft with all its steps, those taken back included."""
    steps = (*edit.steps, *edit.undone)
    return b"".join(
        (
            MAGIC,
            frame(_HEADER, _payload(asdict(header), packed(began_as))),
            *(_step_frame(step, seconds) for step in steps),
            *(frame(_UNDO, _payload({"seconds": round(seconds, 2)})) for _ in edit.undone),
        )
    )


def read_header(path: Path) -> DraftHeader:
    """Read what a draft is of.

    Raises
    ------
    UserError
        If it cannot be read, or is damaged.
    """
    return _read(path, steps=False).header


def read_draft(path: Path) -> ReadDraft:
    """Read a draft up to its torn tail, if it has one.

    Raises
    ------
    UserError
        If it cannot be read, or is damaged at its beginning.
    """
    return _read(path, steps=True)


def _read(path: Path, *, steps: bool) -> ReadDraft:
    with explained_os_errors(path):
        data = path.read_bytes()
    found = frames(data, len(MAGIC)) if data.startswith(MAGIC) else iter(())
    try:
        kind, payload, end = next(found)
        if kind != _HEADER:
            raise ValueError("no header")
        values, bits = _parted(payload)
        values["shape"] = tuple(values["shape"])
        header = DraftHeader(**values)
        began_as = unpacked(bits, header.shape)
    except (StopIteration, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged: the edit it keeps cannot be read ({str(error) or 'no header'}). Move it out of the "
            "study."
        ) from None
    read = ReadDraft(header, EditableMask(began_as, header.started_from), 0.0, end, False)
    if not steps:
        return read
    for kind, payload, end in found:
        try:
            _do(read, kind, payload)
        except (ValueError, KeyError, TypeError):
            read.damaged = True
            break
        read.sound_bytes = end
    return read


def _do(read: ReadDraft, kind: int, payload: bytes) -> None:
    if kind == DAMAGED:
        # What follows was drawn on what is lost here.
        raise ValueError("a damaged step")
    values, bits = _parted(payload)
    if kind == _STEP:
        step = Step(str(values["word"]), Box(*values["box"]), bits, str(values["start"]))
        read.edit.restore(step)
    elif kind == _UNDO:
        read.edit.undo()
    elif kind == _REDO:
        read.edit.redo()
    read.seconds = float(values["seconds"])


class Journal:
    """Writes a draft: what was handed over is with the operating system at once, and on the disk a moment later.

    The file is this window's alone while it is open, as far as the file system knows of locks.
    """

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._size = size
        self._syncing = ThreadPoolExecutor(1, "draft")
        self._synced: Future[None] | None = None
        self._failed: OSError | None = None
        """What kept something that was written from reaching the disk."""

    @classmethod
    def create(cls, path: Path, data: bytes, within: Path) -> Journal:
        """Write a new draft's file.

        Raises
        ------
        UserError
            If the disk is full, or the study cannot be reached or written to.
        """
        write_bytes_atomic(path, data, within=within)
        made = cls.taken(path)
        if made is None:
            raise UserError(f"{path} was taken by another window in the moment it was made; try again.")
        return made

    @classmethod
    def taken(cls, path: Path) -> Journal | None:
        """Open a draft's file to write on; None where another window has it, or it is gone by now."""
        with explained_os_errors(path):
            try:
                descriptor = os.open(path, READ_WRITE | os.O_APPEND)
            except FileNotFoundError:
                return None
            if not lock(descriptor):
                os.close(descriptor)
                return None
            return cls(path, descriptor, os.fstat(descriptor).st_size)

    def cut(self, size: int) -> None:
        """Take a torn tail off."""
        if size < self._size:
            with explained_os_errors(self.path):
                os.ftruncate(self._descriptor, size)
            self._size = size

    @property
    def intact(self) -> bool:
        """Whether the file is as it was left: nobody moved it, and nobody else wrote to it."""
        try:
            there, own = os.stat(self.path), os.fstat(self._descriptor)
        except OSError:
            return False
        return (there.st_ino, there.st_dev) == (own.st_ino, own.st_dev) and own.st_size == self._size

    def step(self, step: Step, seconds: float) -> None:
        """Note a step; raises UserError as `_append` does."""
        self._append(_step_frame(step, seconds))

    def undo(self, seconds: float) -> None:
        """Note that the last step was taken back."""
        self._append(frame(_UNDO, _payload({"seconds": round(seconds, 2)})))

    def redo(self, seconds: float) -> None:
        """Note that it was done again."""
        self._append(frame(_REDO, _payload({"seconds": round(seconds, 2)})))

    def _append(self, data: bytes) -> None:
        """Write a frame.

        Raises
        ------
        UserError
            If the disk is full or gone; what was written of the frame is taken off again.
        """
        try:
            if self._failed is not None:
                raise self._failed
            append(self._descriptor, data)
        except OSError as error:
            # Where that fails, too, the torn tail is dropped when it is read.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise UserError(explained(error, self.path)) from error
        self._size += len(data)
        self._synced = self._syncing.submit(self._sync)

    def _sync(self) -> None:
        try:
            sync(self._descriptor)
        except OSError as error:
            self._failed = error

    def flush(self) -> None:
        """Wait until what was written is on the disk.

        Raises
        ------
        UserError
            If some of it is not.
        """
        if self._synced is not None:
            self._synced.result()
        if self._failed is not None:
            raise UserError(explained(self._failed, self.path)) from self._failed

    def close(self) -> None:
        """Let others have the file, once it was tried to get all of it to the disk; `flush` tells whether it is."""
        self._syncing.shutdown()
        os.close(self._descriptor)
