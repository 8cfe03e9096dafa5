"""Where encoders of text and images, and segmenters, lie on this computer: the user's own list, never the study's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, write_json_atomic
from segmentation.job import RunSpec
from segmentation.pseudomask import PseudoMaskSettings
from segmentation.vlm_folder import model_name

Kind = Literal["text", "image", "segmenter"]


def _list_path(kind: Kind) -> Path:
    import platformdirs

    name = "segmenters" if kind == "segmenter" else f"{kind}-encoders"
    return Path(platformdirs.user_config_dir("gaze-insight", appauthor=False)) / f"{name}.json"


def _known(kind: Kind) -> dict[str, Any]:
    try:
        path = _list_path(kind)
    except ImportError:
        # A GPU server, which keeps no such list, has not the package either that says where it would lie.
        return {}
    if not path.exists():
        return {}
    try:
        values = read_json(path)
    except UserError:
        # The list is a convenience: a damaged one is begun anew, and the next use asks for the folder.
        return {}
    return values if isinstance(values, dict) else {}


def remembered_folder(sha256: str, kind: Kind = "text") -> Path | None:
    """Return the folder where this user last had the encoder with these weights, or None.

    Of a segmenter, `sha256` is its `segmentation.vlm_folder.model_name`.
    """
    folder = _known(kind).get(sha256)
    return Path(folder) if isinstance(folder, str) else None


def remembered_folders(kind: Kind) -> list[Path]:
    """Return all folders this user has had encoders in that are still there."""
    folders = [Path(folder) for folder in _known(kind).values() if isinstance(folder, str)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def remember_folder(sha256: str, folder: Path, kind: Kind = "text") -> None:
    """Keep for this user and computer where an encoder lies.

    Raises
    ------
    UserError
        If the list cannot be written.
    """
    write_json_atomic(_list_path(kind), {**_known(kind), sha256: str(Path(folder).absolute())})


def folders_job(spec: RunSpec) -> dict[str, str]:
    """Return what a worker must be told so that it finds the encoders of a run."""
    wanted: tuple[tuple[Kind, str, str], ...] = (
        ("text", spec.text_encoder, spec.text_encoder_sha256),
        ("image", spec.encoder, spec.encoder_sha256),
    )
    found = {kind: remembered_folder(sha256, kind) for kind, name, sha256 in wanted if name}
    return {f"{kind}_encoder_folder": str(folder) for kind, folder in found.items() if folder}


def segmenter_folder(settings: PseudoMaskSettings) -> Path:
    """Return where the segmenter of these settings lies on this computer.

    Raises
    ------
    UserError
        If they name none, or this computer does not have it, or another model lies there now.
    """
    if not settings.segmenter:
        raise UserError(
            "The refiner sam needs a segmenter: gaze-insight pseudomask STUDY --refine sam --segmenter FOLDER."
        )
    folder = remembered_folder(settings.segmenter, "segmenter")
    if folder is None or not folder.is_dir() or model_name(folder) != settings.segmenter:
        raise UserError(
            f"This computer does not know where the segmenter {settings.segmenter} lies; "
            "name its folder: gaze-insight pseudomask STUDY --segmenter FOLDER."
        )
    return folder
