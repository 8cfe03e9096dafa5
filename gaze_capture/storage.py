"""Writing files so that a crash, a full disk or a second reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError


@contextlib.contextmanager
def explained_os_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into a sentence that names the place and the remedy."""
    try:
        yield
    except OSError as error:
        place = error.filename or path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"The disk is full: {place} could not be written. Free some space and try again; "
                "everything written before is intact."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(
                f"{place} cannot be written: the folder is read-only or belongs to someone else. "
                "Choose another folder or change its permissions."
            ) from error
        raise UserError(f"{place}: {error.strerror or error}.") from error


def write_bytes_atomic(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file by temporary file, fsync and rename, creating its folder.

    `mode` is who may read and write it (Unix), less what the umask takes away.

    Raises
    ------
    UserError
        If the disk is full or the place is not writable; an existing file is left as it was.
    """
    with explained_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(6)}.part")
        try:
            with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def write_json_atomic(path: Path, value: Any) -> None:
    """Write a value as indented UTF-8 JSON, atomically; NaN is refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes_atomic(path, (text + "\n").encode())


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
        raise UserError(f"{path} is damaged: it is not valid JSON ({error}).") from error


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
