"""The steps about the teacher's text, each in a worker: its encoder, imported embeddings, whether it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segmentation.explanation_settings import load_settings
from segmentation.job import JobEvent
from segmentation.known_folders import folders_job, remember_folder, remembered_folder
from segmentation.progress import Progress, no_progress
from segmentation.runs import RunFolder, latest_run
from segmentation.study import Study
from segmentation.text.use import TextUse
from segmentation.workers import await_worker


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
    made = _in_worker(study.folder, {"task": "embed", "folder": str(folder) if folder else None}, progress)
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
    return _in_worker(study.folder, job, progress)


def import_embeddings(
    study: Study, folder: Path, progress: Progress = no_progress, **options: Any
) -> dict[str, Any]:
    """Import embeddings as `segmentation.text.imported.import_embeddings` does, whose report is returned.

    Raises
    ------
    UserError
        If none can be used.
    """
    job = {"task": "import-embeddings", "folder": str(Path(folder).absolute()), **options}
    return _in_worker(study.folder, job, progress)


def measure_text_use(
    study: Study,
    run_id: str | None = None,
    *,
    split: str | None = None,
    images: int | None = None,
    device: str | None = None,
    progress: Progress = no_progress,
) -> TextUse:
    """Ask a run's teacher about the images of a split, or some of them; store its attention, too.

    Parameters
    ----------
    run_id
        None: the latest run that finished.
    images
        At most so many, drawn at random, the same at every call; None: all.

    Raises
    ------
    UserError
        If the run's teacher reads no text, no image of the split is explained, or the worker failed.
    """
    run = RunFolder(study.runs_folder / latest_run(study, run_id))
    study.images_of(split)
    job = {"task": "text-use", "split": split, "limit": images, "device": device, **folders_job(run.spec)}
    return TextUse.from_json(_in_worker(run, job, progress)["found"])


def _in_worker(run: RunFolder | Path, job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    def tell(event: JobEvent) -> None:
        if event.kind == "progress":
            progress(event.step, event.total, str(event.values.get("name", "")))

    return await_worker(run, job, tell)
