"""What a study's text is made of, chosen and made in a worker process: its encoder, and imported embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from segmentation.encoder_folders import remember_folder, remembered_folder
from segmentation.explanation_settings import load_settings
from segmentation.job import ENDINGS
from segmentation.progress import Progress, no_progress
from segmentation.runs import read_events, start_worker
from segmentation.study import Study


def choose_encoder(study: Study, folder: Path | None, progress: Progress = no_progress) -> dict[str, Any]:
    """Give a study the text encoder in a folder, or MiniLM, and embed all its explanations; remember the folder.

    Returns
    -------
    dict
        name, sha256, width and how many phrases there are.

    Raises
    ------
    UserError
        If the folder holds no encoder that can be used; the study keeps the one it had.
    """
    folder = Path(folder).absolute() if folder is not None else None
    made = _run(study, {"task": "embed", "folder": str(folder) if folder else None}, progress)
    if folder is not None:
        remember_folder(made["sha256"], folder)
    return made


def embed(study: Study, progress: Progress = no_progress) -> dict[str, Any]:
    """Embed all explanations of a study by its own encoder; return what `choose_encoder` does.

    Raises
    ------
    UserError
        If phrases lack a vector and the encoder is not on this computer or cannot be loaded.
    """
    choice = load_settings(study).encoder
    folder = remembered_folder(choice.sha256) if choice else None
    job = {"task": "embed", **({"text_encoder_folder": str(folder)} if folder else {})}
    return _run(study, job, progress)


def import_embeddings(
    study: Study, folder: Path, progress: Progress = no_progress, **options: Any
) -> dict[str, Any]:
    """Import embeddings as `segmentation.imported_embeddings.import_embeddings` does, whose report is returned.

    Raises
    ------
    UserError
        If none can be used.
    """
    job = {"task": "import-embeddings", "folder": str(Path(folder).absolute()), **options}
    return _run(study, job, progress)


def _run(study: Study, job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    with start_worker(study.folder, job, detached=False) as process:
        for event in read_events(process):
            if event.kind == "progress":
                progress(event.step, event.total, str(event.values.get("name", "")))
            elif event.kind == "done":
                return event.values
            elif event.kind in ENDINGS:
                raise UserError(str(event.values.get("message")))
    raise AssertionError("a worker's events end with an ending")
