"""Masks leave the study: chosen ones, in a folder of their own, with a manifest that says who vouches for each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gaze_capture.archive import program
from gaze_capture.errors import UserError
from gaze_capture.storage import folder_in_place, sha256_of, write_bytes_atomic, write_json_atomic
from segmentation.export_selection import simulated_words
from segmentation.leaving import outside
from segmentation.mask_choice import WHICH, MaskChoice, MaskSelection
from segmentation.mask_writers.book import MaskBook
from segmentation.progress import Progress, no_progress
from segmentation.records import utc_now
from segmentation.study import Study

MANIFEST = "manifest.json"
MANIFEST_FORMAT = "gaze-insight-masks"


@dataclass(frozen=True)
class MaskExportReport:
    """What an export of masks wrote."""

    format: str
    folder: str
    files: int
    masks: int
    images: int
    empty: int
    """Masks that say that the target is not there."""
    simulated_from: str | None
    notes: tuple[str, ...]
    """What was left out, and why."""


MaskWriter = Callable[[MaskBook], None]
"""Writes the masks of a book's selection into its folder, and notes each."""


def _png(book: MaskBook) -> None:
    from segmentation.mask_writers.png import write_png

    write_png(book)


def _nifti(book: MaskBook) -> None:
    from segmentation.mask_writers.nifti import write_nifti

    write_nifti(book)


def _dicom_seg(book: MaskBook) -> None:
    from segmentation.mask_writers.dicom_seg import write_dicom_seg

    write_dicom_seg(book)


def _coco(book: MaskBook) -> None:
    from segmentation.mask_writers.coco import write_coco

    write_coco(book)


def _bids(book: MaskBook) -> None:
    from segmentation.mask_writers.bids import write_bids_masks

    write_bids_masks(book)


def _gazemedseg(book: MaskBook) -> None:
    from segmentation.mask_writers.gazemedseg import write_gazemedseg_masks

    write_gazemedseg_masks(book)


MASK_WRITERS: Mapping[str, MaskWriter] = {
    "png": _png,
    "nifti": _nifti,
    "dicom-seg": _dicom_seg,
    "coco": _coco,
    "bids": _bids,
    "gazemedseg": _gazemedseg,
}
"""Every format of masks by its name on the command line."""

MASKS_ALONE = frozenset({"png", "nifti", "dicom-seg", "coco"})
"""Formats that hold masks and no gaze."""

HOLD_PROBABILITY = ("png", "nifti")


def export_masks(
    study: Study,
    to: Path | str,
    format: str,
    choice: MaskChoice | None = None,
    *,
    probability: bool = False,
    source: Sequence[Path | str] = (),
    key: Path | None = None,
    progress: Progress = no_progress,
) -> MaskExportReport:
    """Write masks of a study into a new folder; it appears there when it is complete, or not at all.

    Beside them lies ``manifest.json``: for each mask its image, target, file and place in it, annotator, verdict,
    purpose, run, threshold, what gaze behind it was simulated from, and the SHA-256 of its pixels; then that of each
    file.

    Parameters
    ----------
    to : a folder that is missing or empty
    format : a key of :data:`MASK_WRITERS`
    choice : which masks; by default the reviewed ones
    probability : whether the student's probabilities go along, where the format holds them
    source : folders or files of the DICOM source, which ``dicom-seg`` refers to
    key : file of the study's secret key, where it is not in its usual place (``dicom-seg``)

    Raises
    ------
    UserError
        If there is nothing to export, the folder holds anything, the disk is full or the place is not writable, a
        package is missing, or the source lacks what the format needs.
    """
    choice = choice or MaskChoice()
    if format not in MASK_WRITERS:
        raise UserError(f"There is no format {format!r} for masks; choose one of {', '.join(MASK_WRITERS)}.")
    if choice.which not in WHICH:
        raise UserError(f"There are no masks called {choice.which!r}; choose one of {', '.join(WHICH)}.")
    if probability and format not in HOLD_PROBABILITY:
        raise UserError(
            f"Probabilities go along with {' and '.join(HOLD_PROBABILITY)} only; leave --probability away."
        )
    selection = MaskSelection(study, choice)
    masks = selection.masks
    with folder_in_place(outside(study, to)) as folder:
        book = MaskBook(selection, folder, progress, probability, tuple(map(Path, source)), key)
        MASK_WRITERS[format](book)
        notes = [*selection.notes, *book.notes]
        if not (folder / "README.md").exists():
            write_bytes_atomic(folder / "README.txt", _readme(book, format).encode())
        write_json_atomic(folder / MANIFEST, _manifest(book, format, notes))
        files = sum(path.is_file() for path in folder.rglob("*"))
        progress(len(masks), len(masks), "")
    # A study on a read-only disk can be exported, too.
    with contextlib.suppress(UserError):
        study.audit("export masks", format=format, which=choice.which, masks=len(book.entries), files=files)
    return MaskExportReport(
        format=format,
        folder=str(to),
        files=files,
        masks=len(book.entries),
        images=len({entry["image"] for entry in book.entries}),
        empty=sum(entry["pixels"] == 0 for entry in book.entries),
        simulated_from=selection.simulated_from,
        notes=tuple(notes),
    )


def _manifest(book: MaskBook, format: str, notes: Sequence[str]) -> dict[str, object]:
    selection = book.selection
    study, choice = selection.study, selection.choice
    written = sorted(path for path in book.folder.rglob("*") if path.is_file())
    return {
        "format": MANIFEST_FORMAT,
        "schema": 1,
        "program": program(),
        "written": utc_now(),
        "study": {"name": study.name, "uid": study.uid},
        "exported_as": format,
        "which": choice.which,
        "run": selection.run,
        "split": choice.split,
        "simulated_from": selection.simulated_from,
        "research_use_only": True,
        "targets": [
            {
                "id": target.id,
                "name": target.name,
                "kind": target.kind,
                "inside": target.inside,
                "code": target.code or None,
            }
            for target in selection.targets
        ],
        "masks": book.entries,
        "left_out": list(notes),
        "files": {path.relative_to(book.folder).as_posix(): sha256_of(path) for path in written},
    }


_ABOUT_AUDITS = (
    "Outlined blind, with no mask in view, on images drawn at random: a reference to measure against. The study's own "
    "networks never learn from them.",
)


def _readme(book: MaskBook, format: str) -> str:
    selection = book.selection
    words = simulated_words(selection.simulated_from)
    lines = [
        f"Masks ({selection.choice.which}) of the study {selection.study.name} as {format}, exported by {program()}.",
        "Research use only; not a medical device.",
        *(_ABOUT_AUDITS if selection.choice.which == "audit" else ()),
        *([f"Gaze behind masks here is {words}; {MANIFEST} says of which."] if words else []),
        "",
        *book.about,
        f"{MANIFEST}: every mask with annotator, verdict, purpose, run, threshold and the SHA-256 of its pixels (one "
        "byte each, 0 or 1, row by row).",
        "",
    ]
    return "\n".join(lines)
