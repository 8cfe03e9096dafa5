"""What a person wants out of a study, and how it is done. Nothing of Qt."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from segmentation.mask_choice import Which
from segmentation.progress import Progress
from segmentation.runs import RunFolder
from segmentation.study import Study

What = Literal["masks", "gaze", "model", "report"]
WHAT: tuple[What, ...] = get_args(What)

MASK_FORMATS = ("png", "nifti", "dicom-seg", "coco", "bids", "gazemedseg")
GAZE_FORMATS = ("parquet", "csv", "bids", "gazemedseg")
WITH_PROBABILITY = ("png", "nifti")


@dataclass(frozen=True)
class ExportChoice:
    """One export, decided."""

    what: What
    to: Path
    """A folder, or of a report the file."""
    format: str = "png"
    which: Which = "reviewed"
    run: str | None = None
    probability: bool = False
    source: Path | None = None
    onnx: bool = True


@dataclass(frozen=True)
class Exported:
    """What came of it, for a sentence."""

    choice: ExportChoice
    count: int
    """Masks, recordings, or files of a model."""
    notes: tuple[str, ...] = ()
    simulated_from: str | None = None


def proposed(study: Study, choice: ExportChoice) -> Path:
    """Return a place beside the study that is still free."""
    kind = {
        "masks": f"masks-{choice.format}",
        "gaze": f"gaze-{choice.format}",
        "model": "model",
        "report": "report",
    }
    stem = re.sub(r"[^\w .-]", "-", study.name).strip(" .") or "study"
    ending = ".html" if choice.what == "report" else ""
    number = 1
    while True:
        suffix = f"-{number}" if number > 1 else ""
        place = study.folder.parent / f"{stem}-{kind[choice.what]}{suffix}{ending}"
        if not place.exists():
            return place
        number += 1


def problem_with(choice: ExportChoice, place: str) -> str:
    """Return what stands against writing to a place, as a key of a sentence; empty where nothing does."""
    path = Path(place)
    if not place.strip() or not path.is_absolute():
        return "nowhere"
    if choice.what == "report":
        return "" if path.suffix.lower() in (".html", ".htm") else "no html"
    if path.is_file():
        return "a file"
    try:
        if path.is_dir() and any(path.iterdir()):
            return "not empty"
    except OSError:
        return "unreadable"
    return ""


def export(study: Study, choice: ExportChoice, progress: Progress) -> Exported:
    """Do it; raises UserError as the exports themselves do."""
    if choice.what == "masks":
        from segmentation.mask_choice import MaskChoice
        from segmentation.mask_export import export_masks

        masks = export_masks(
            study,
            choice.to,
            choice.format,
            MaskChoice(choice.which, choice.run),
            probability=choice.probability,
            source=[choice.source] if choice.source is not None else (),
            progress=progress,
        )
        return Exported(choice, masks.masks, masks.notes, masks.simulated_from)
    if choice.what == "gaze":
        from segmentation.export import export_study

        gaze = export_study(study, choice.to, choice.format, progress=progress)
        return Exported(choice, gaze.images, gaze.notes, gaze.simulated_from)
    if choice.what == "model":
        from segmentation.model_steps import export_model

        model = export_model(
            study,
            choice.to,
            choice.run,
            onnx=choice.onnx,
            on_event=lambda event: progress(event.step, event.total, str(event.values.get("name", ""))),
        )
        return Exported(choice, len(model.files), (), model.simulated_from)
    from segmentation.report import write_report

    write_report(study, choice.to, choice.run, progress=progress)
    return Exported(choice, 1, (), study.simulated_from())


def finished_runs(study: Study) -> list[str]:
    """Return the ids of the runs that have a model, the latest first."""
    return [
        name
        for name in reversed(study.run_ids())
        if RunFolder(study.runs_folder / name).state() in ("done", "stopped")
    ]
