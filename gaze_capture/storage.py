"""Writing files so that a crash, a full disk or a second reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gaze_capture.errors import UserError

_GONE = {
    getattr(errno, name)
    for name in (
        "ENOENT", "ENOTDIR", "ENODEV", "ENXIO", "EIO", "ESTALE", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH",
        "ENETDOWN", "ENETUNREACH", "ETIMEDOUT", "ECONNRESET", "ECONNABORTED", "EREMOTEIO",
    )
    if hasattr(errno, name)
}  # fmt: skip
"""What systems say of a folder that was moved, a drive pulled out, or a server that does not answer."""

LOCK_STALE_SECONDS = 10.0
"""A lock is held for milliseconds; one that nobody gives up for this long was left by a program that died."""


def explained(error: OSError, path: Path) -> str:
    """Put the operating system's refusal into a sentence that names the place and the remedy."""
    place = error.filename2 or error.filename or path
    if str(place).endswith(".part"):
        # Of what is written aside first nobody knows the name.
        place = path
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk is full: {place} could not be written. Free some space and try again; "
            "everything written before is intact."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{place} cannot be read or written: the folder is read-only or belongs to someone else. "
            "Choose another folder or change its permissions."
        )
    if error.errno in _GONE:
        return (
            f"{place} cannot be reached: its folder was moved or removed, or its drive or network share is "
            "gone. Bring it back and try again; everything written before is intact."
        )
    if error.errno == errno.EEXIST:
        return f"{place} is a file, where a folder is needed; choose another place, or another name."
    if error.errno == errno.EISDIR:
        return f"{place} is a folder, where a file is needed; choose another name."
    if error.errno == errno.ENAMETOOLONG:
        return f"{place} has a name that is too long; choose a shorter one."
    return f"{place}: {error.strerror or error}."


@contextlib.contextmanager
def explained_os_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into a sentence that names the place and the remedy."""
    try:
        yield
    except OSError as error:
        raise UserError(explained(error, path)) from error


def make_folder(folder: Path, within: Path | None = None) -> None:
    """Make a folder where it is missing; `within` itself is never made.

    A share that vanished, or a folder that was renamed meanwhile, must not come to life again as an empty folder of
    the same name.
    """
    if within is None:
        folder.mkdir(parents=True, exist_ok=True)
    elif folder != within:
        try:
            folder.mkdir(exist_ok=True)
        except FileNotFoundError:
            if folder.parent == within:
                raise
            make_folder(folder.parent, within)
            folder.mkdir(exist_ok=True)


@contextlib.contextmanager
def writing_atomic(path: Path, *, within: Path | None = None, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Yield a stream whose content becomes the file, by fsync and rename, when all is written.

    The file's folder is made, but not `within`. `mode` is who may read and write it (Unix), less what the umask takes
    away.

    Raises
    ------
    UserError
        If the disk is full or the place is not writable; an existing file is left as it was.
    """
    with explained_os_errors(path):
        make_folder(path.parent, within)
        temporary = path.with_name(f".{secrets.token_hex(6)}.part")
        try:
            with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def write_bytes_atomic(path: Path, data: bytes, *, within: Path | None = None, mode: int = 0o666) -> None:
    """Write a file as :func:`writing_atomic` does."""
    with writing_atomic(path, within=within, mode=mode) as stream:
        stream.write(data)


def write_json_atomic(path: Path, value: Any, *, within: Path | None = None) -> None:
    """Write a value as indented UTF-8 JSON, atomically; NaN is refused.

    Raises
    ------
    UserError
        If a text holds half a character, the disk is full, or the place is not writable.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        data = (text + "\n").encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{path} was not written: a text in it holds characters that are none; type it again in UTF-8."
        ) from None
    write_bytes_atomic(path, data, within=within)


@contextlib.contextmanager
def locked(path: Path, *, wait_seconds: float = 30.0) -> Iterator[None]:
    """Hold a file's lock: of all programs on all computers that ask for it, one at a time goes on.

    The lock is a file beside it that is made only where there is none, which network shares, too, decide for one
    caller alone. Whether it was left behind is measured with this computer's own clock, as those of others may differ.

    Raises
    ------
    UserError
        If another program keeps it for longer than `wait_seconds`, or the folder is not writable.
    """
    lock, token = path.with_name(f".{path.name}.lock"), secrets.token_hex(8)
    begun = since = time.monotonic()
    seen = ""
    with explained_os_errors(lock):
        while True:
            try:
                descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                pass
            except PermissionError:
                # Windows says so of a lock that is being given up at this moment.
                if not lock.exists():
                    raise
            else:
                try:
                    with os.fdopen(descriptor, "w") as stream:
                        stream.write(token)
                except OSError:
                    # On a full disk it would be left empty, and nobody's.
                    with contextlib.suppress(OSError):
                        lock.unlink()
                    raise
                break
            now, holder = time.monotonic(), _holder(lock)
            if holder != seen:
                seen, since = holder, now
            elif now - since > LOCK_STALE_SECONDS and _break_lock(lock, holder):
                seen = ""
                continue
            if now - begun > wait_seconds:
                raise UserError(
                    f"{path} is being changed by another window for too long; try again. If none is open "
                    f"anywhere, delete {lock}."
                )
            time.sleep(0.01 + 0.02 * secrets.randbelow(100) / 100)
    try:
        yield
    finally:
        if _holder(lock) == token:
            with contextlib.suppress(OSError):
                lock.unlink()


def _holder(lock: Path) -> str:
    try:
        return lock.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _break_lock(lock: Path, holder: str) -> bool:
    """Take a dead program's lock away; False where another did so first and holds its own by now."""
    aside = lock.with_name(f".{secrets.token_hex(6)}.part")
    try:
        os.rename(lock, aside)
    except OSError:
        return False
    mine = _holder(aside) == holder
    with contextlib.suppress(OSError):
        if mine or lock.exists():
            aside.unlink()
        else:
            os.rename(aside, lock)
    return mine


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    UserError
        If the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise UserError(
            f"{path} is damaged: it is not valid JSON ({error}). Restore it from a backup, or move it away."
        ) from error
    except RecursionError:
        raise UserError(
            f"{path} is damaged: its JSON is nested too deeply. Restore it from a backup, or move it away."
        ) from None


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def folder_in_place(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder` that takes its place when all is written, synced to the disk.

    Where anything goes wrong it is removed, and `folder` is as it was.

    Raises
    ------
    UserError
        If `folder` holds anything or is a file, the disk is full, or the place is not writable.
    """
    folder = Path(os.path.abspath(folder))
    with explained_os_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; choose a new or empty folder.")
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; choose a new or empty folder.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.with_name(f".{folder.name[:60]}.{secrets.token_hex(6)}.part")
        temporary.mkdir()
        try:
            yield temporary
            for path in temporary.rglob("*"):
                if path.is_file():
                    # Opened for writing: Windows syncs nothing else.
                    with open(path, "r+b") as stream:
                        os.fsync(stream.fileno())
            if folder.exists():
                folder.rmdir()
            os.rename(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
