"""Safetensors files, looked at without the packages that compute with them: whether they are whole.

A ``.safetensors`` file is the length of a header (8 bytes, little-endian), the header (JSON: for each array its type,
shape and place), and the arrays.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, read_json

LONGEST_HEADER = 100_000_000
"""What safetensors itself accepts, in bytes."""


def read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Return where the arrays of a safetensors file begin, and its header.

    Raises
    ------
    UserError
        If it is none, or was cut short.
    """
    with explained_os_errors(path), open(path, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if 2 <= length <= LONGEST_HEADER else b""
        size = path.stat().st_size
    try:
        values: dict[str, Any] = json.loads(header)
        ends = [int(one["data_offsets"][1]) for name, one in values.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise UserError(f"{path} is damaged: it is no safetensors file.") from None
    if size != 8 + length + max(ends, default=0):
        raise UserError(f"{path} is damaged: its size is not what it says.")
    return 8 + length, values


def check_imported(path: Path) -> list[str]:
    """Return the images whose embeddings were imported for a target, once all of them are what they were.

    Parameters
    ----------
    path : the target's ``.safetensors`` file in ``embeddings/imported-<name>/``

    Raises
    ------
    UserError
        If it is damaged, or is not what the ``.json`` beside it says was imported.
    """
    begin, header = read_header(path)
    metadata = header.pop("__metadata__", None)
    about = read_json(path.with_suffix(".json"))
    digest = hashlib.sha256()
    try:
        with explained_os_errors(path), open(path, "rb") as stream:
            for image_id, one in sorted(header.items()):
                start, end = map(int, one["data_offsets"])
                stream.seek(begin + start)
                digest.update(f"{image_id} {tuple(one['shape'])}\n".encode())
                digest.update(stream.read(end - start))
        same = digest.hexdigest() == metadata["sha256"] == about["sha256"]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path} is damaged. Delete its folder and import the embeddings again.") from None
    if not same:
        raise UserError(
            f"{path} is not what was imported. Delete its folder and import the embeddings again."
        )
    return sorted(header)
