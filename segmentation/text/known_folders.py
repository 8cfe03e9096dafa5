"""Where text encoders lie on this computer: the user's own list, never the study's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import platformdirs

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, write_json_atomic
from segmentation.job import RunSpec


def _list_path() -> Path:
    return Path(platformdirs.user_config_dir("gaze-insight", appauthor=False)) / "text-encoders.json"


def _known() -> dict[str, Any]:
    path = _list_path()
    if not path.exists():
        return {}
    try:
        values = read_json(path)
    except UserError:
        # The list is a convenience: a damaged one is begun anew, and the next use asks for the folder.
        return {}
    return values if isinstance(values, dict) else {}


def remembered_folder(sha256: str) -> Path | None:
    """Return the folder where this user last had the encoder with these weights, or None."""
    folder = _known().get(sha256)
    return Path(folder) if isinstance(folder, str) else None


def remember_folder(sha256: str, folder: Path) -> None:
    """Keep for this user and computer where an encoder lies.

    Raises
    ------
    UserError
        If the list cannot be written.
    """
    write_json_atomic(_list_path(), {**_known(), sha256: str(Path(folder).absolute())})


def text_job(spec: RunSpec) -> dict[str, str]:
    """Return what a worker must be told so that it finds the text encoder of a run."""
    folder = remembered_folder(spec.text_encoder_sha256) if spec.text_encoder else None
    return {"text_encoder_folder": str(folder)} if folder else {}
