"""What a person decides before gaze is imported, and what comes of it. Nothing of Qt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gaze_capture.errors import UserError
from gaze_capture.formats import gazemedseg
from gaze_capture.formats.bids_files import ENDING, name_of
from gaze_capture.formats.gaze_file import Known
from gaze_capture.formats.reading import sniffed_format, unknown_format
from segmentation.gaze_import import TABLE_FORMAT, GazeReport, ShownAt, import_gaze
from segmentation.gaze_preview import preview_gaze
from segmentation.progress import Progress
from segmentation.study import Study

_STEPS = 1000
"""Of progress, for each file."""


@dataclass(frozen=True)
class GazeChoice:
    """The import of one file, decided."""

    file: Path
    annotator: str
    target: str | None = None
    """None for the study's first."""
    split: str | None = None
    known: Known = field(default_factory=Known)
    shown_at: ShownAt = field(default_factory=ShownAt)
    fixations: Literal["detect", "own"] = "detect"
    image_width_deg: float | None = None
    simulated_from: str | None = None


@dataclass(frozen=True)
class GazeOutcome:
    """What came of one file."""

    file: Path
    report: GazeReport | None = None
    """None where it did not come in."""
    problem: str = ""
    """Why not."""

    @property
    def worth_showing(self) -> bool:
        """Whether there is more to it than its counts."""
        report = self.report
        return report is None or bool(report.unknown_images or report.outside_image or report.dropped)


@dataclass(frozen=True)
class Sorted:
    """Files that are said to be gaze, before anything is asked."""

    study: Study
    files: tuple[Path, ...] = ()
    """Those of a format known here."""
    strangers: tuple[tuple[Path, str], ...] = ()
    """The others, and why."""
    plain: bool = False
    """Whether all files are tables of fixations of which nothing has to be asked."""


def once_each(paths: Sequence[Path]) -> list[Path]:
    """Leave out the further eyes of a BIDS recording: it is read with all its eyes, whichever file is named."""
    kept: dict[tuple[Path, str], Path] = {}
    for path in paths:
        is_bids = path.name.lower().endswith(ENDING)
        kept.setdefault((path.parent, name_of(path) if is_bids else path.name), path)
    return list(kept.values())


def sorted_out(study: Study, paths: Sequence[Path]) -> Sorted:
    """Open files to see what they are."""
    files: list[Path] = []
    strangers: list[tuple[Path, str]] = []
    plain = len(study.targets) == 1
    for path in once_each(paths):
        preview = None
        try:
            format = gaze_format(path)
            if format == TABLE_FORMAT:
                preview = preview_gaze(study, path)
            elif format is None:
                strangers.append((path, unknown_format(path)))
                continue
        except UserError as error:
            strangers.append((path, str(error)))
            continue
        files.append(path)
        plain = plain and preview is not None and preview.is_ready
    return Sorted(study, tuple(files), tuple(strangers), plain and bool(files))


def gaze_format(path: Path) -> str | None:
    """Return a file's format by its content, None where it is of none.

    Raises
    ------
    UserError
        If the file cannot be opened.
    """
    return TABLE_FORMAT if gazemedseg.sniff(path) else sniffed_format(path)


def import_each(study: Study, choices: Sequence[GazeChoice], progress: Progress) -> Iterator[GazeOutcome]:
    """Import files one after the other, yielding what came of each; one that cannot come in holds no other back."""
    for number, choice in enumerate(choices):

        def step(
            done: int, total: int, _what: str, number: int = number, choice: GazeChoice = choice
        ) -> None:
            share = done / total if total else 0.0
            progress(round(_STEPS * (number + share)), _STEPS * len(choices), choice.file.name)

        try:
            report = import_gaze(
                study,
                choice.file,
                split=choice.split,
                annotator=choice.annotator,
                image_width_deg=choice.image_width_deg,
                simulated_from=choice.simulated_from,
                target=choice.target,
                known=choice.known,
                shown_at=choice.shown_at,
                fixations=choice.fixations,
                progress=step,
            )
        except UserError as error:
            yield GazeOutcome(choice.file, problem=str(error))
        else:
            yield GazeOutcome(choice.file, report)
