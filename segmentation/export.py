"""Leaving the study: what is chosen of it, in a folder of its own, complete or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gaze_capture.errors import UserError
from gaze_capture.storage import folder_in_place
from segmentation.export_selection import Selection, Tally
from segmentation.leaving import outside
from segmentation.progress import Progress, no_progress
from segmentation.study import Study


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote."""

    format: str
    folder: str
    files: int
    recordings: int
    images: int
    """Images that the gaze in it fell on."""
    fixations: int
    simulated_from: str | None
    notes: tuple[str, ...]
    """What was left out, and why."""


Exporter = Callable[[Selection, Path, Tally, Progress], None]
"""Writes what was chosen into an empty folder, and counts."""


def _csv(selection: Selection, folder: Path, tally: Tally, progress: Progress) -> None:
    from segmentation.gaze_tables import write_tables

    write_tables(selection, folder, tally, progress, "csv")


def _parquet(selection: Selection, folder: Path, tally: Tally, progress: Progress) -> None:
    from segmentation.gaze_tables import write_tables

    write_tables(selection, folder, tally, progress, "parquet")


def _gazemedseg(selection: Selection, folder: Path, tally: Tally, progress: Progress) -> None:
    from segmentation.gazemedseg_export import write_splits

    write_splits(selection, folder, tally, progress)


def _bids(selection: Selection, folder: Path, tally: Tally, progress: Progress) -> None:
    from segmentation.bids_export import write_dataset

    write_dataset(selection, folder, tally, progress)


EXPORTERS: Mapping[str, Exporter] = {
    "parquet": _parquet,
    "csv": _csv,
    "gazemedseg": _gazemedseg,
    "bids": _bids,
}
"""Every format by its name on the command line; a new one is one more entry."""

HOLD_IMAGES = frozenset({"bids"})
"""Formats that the images can go along with."""


def export_study(
    study: Study,
    to: Path | str,
    format: str,
    *,
    annotators: Sequence[str] | None = None,
    split: str | None = None,
    recordings: Sequence[str] | None = None,
    with_images: bool = False,
    progress: Progress = no_progress,
) -> ExportReport:
    """Write what is chosen of a study into a new folder; it appears there when it is complete, or not at all.

    Parameters
    ----------
    to : a folder that is missing or empty
    format : a key of :data:`EXPORTERS`
    annotators, split, recordings, with_images : as in :class:`Selection`

    Raises
    ------
    UserError
        If there is nothing to export, the folder holds anything, the disk is full or the place is not writable.
    """
    if format not in EXPORTERS:
        raise UserError(f"There is no export format {format!r}; choose one of {', '.join(EXPORTERS)}.")
    if with_images and format not in HOLD_IMAGES:
        raise UserError(f"Images go along with {', '.join(HOLD_IMAGES)} only; leave --with-images away.")
    selection = Selection(
        study,
        tuple(annotators) if annotators is not None else None,
        split,
        tuple(recordings) if recordings is not None else None,
        with_images,
    )
    selection.check()
    tally = Tally()
    with folder_in_place(outside(study, to)) as folder:
        EXPORTERS[format](selection, folder, tally, progress)
        files = sum(path.is_file() for path in folder.rglob("*"))
    # A study on a read-only disk can be exported, too.
    with contextlib.suppress(UserError):
        study.audit(
            "export", format=format, annotators=annotators, split=split, recordings=recordings, files=files
        )
    return ExportReport(
        format=format,
        folder=str(to),
        files=files,
        recordings=len(tally.recordings),
        images=len(tally.images),
        fixations=tally.fixations,
        simulated_from=tally.simulated_from,
        notes=tuple(tally.notes),
    )
