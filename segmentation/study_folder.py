"""Looking into a study's folder: what is not there is no error, what cannot be looked at is one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gaze_capture.storage import explained_os_errors
from segmentation.images import decode_mask

Mask = npt.NDArray[np.bool_]


def exists(path: Path) -> bool:
    """Whether a file is there; UserError where that cannot be found out."""
    try:
        os.stat(path)
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        with explained_os_errors(path):
            raise


def names_in(folder: Path) -> list[str]:
    """List a folder, in no order; nothing where there is none, UserError where it cannot be listed."""
    with explained_os_errors(folder):
        try:
            return os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []


def keys_in(folder: Path, ending: str) -> set[tuple[str, str]]:
    """Return (image id, target id) of the ``<image id>.<target id><ending>`` in a folder.

    Ids themselves hold no dot (see `segmentation.records.safe_name`).
    """
    keys = set()
    for name in names_in(folder):
        if name.endswith(ending) and not name.startswith("."):
            image_id, _, target_id = name.removesuffix(ending).partition(".")
            keys.add((image_id, target_id))
    return keys


def read_mask(path: Path) -> Mask | None:
    """Read a mask (H, W), or return None where there is no file."""
    return decode_mask(path) if exists(path) else None
