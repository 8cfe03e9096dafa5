"""What a gaze file would bring into a study, and what has to be said of it first; nothing is stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gaze_capture.errors import MissingFact, UserError
from gaze_capture.formats import gazemedseg
from gaze_capture.formats.gaze_file import GazeFile, Known
from gaze_capture.formats.inspection import Inspection, inspect
from gaze_capture.formats.reading import read_gaze_file, sniffed_format, unknown_format
from gaze_capture.recording import ScreenGeometry
from segmentation.gaze_import import TABLE_FORMAT
from segmentation.gaze_matching import ImageNames, none_of_them
from segmentation.sample_import import ShownAt
from segmentation.study import Study

STAND_INS: Mapping[str, Any] = {
    "screen_px": (1920, 1080),
    "screen_mm": (530.0, 300.0),
    "distance_mm": 650.0,
    "eye": "left",
    "time_unit": "ms",
    "coordinates": "normalised",
}
"""With these a file is read on to learn what else it does not tell; no number that hangs on them is shown."""


@dataclass(frozen=True)
class GazePreview:
    """A gaze file before its import."""

    file: Path
    format: str = ""
    """``gazemedseg`` or one of `gaze_capture.formats.gaze_file.FORMATS`; empty where the file is of none."""
    problem: str = ""
    """Why it cannot come in, whatever is said of it; a sentence."""
    missing: tuple[str, ...] = ()
    """What the file does not tell and was not said, by the names in `MissingFact`."""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By fact, what can be said where the file limits it."""
    tracker: str = ""
    rate_hz: float | None = None
    """None for a table of fixations, and while the unit of the times is not known."""
    geometry: ScreenGeometry | None = None
    """None for a table of fixations, and while a part of it is not known."""
    inspection: Inspection | None = None
    """None for a table of fixations. What it says of fixations needs the geometry, its times the unit."""
    fixations: int = 0
    """Of a table of fixations."""
    dropped: int = 0
    """Rows of a table without a duration."""
    found: tuple[str, ...] = ()
    """Ids of the study's images that it is about."""
    unknown: tuple[str, ...] = ()
    """Names that the study has no image for."""
    guessed_image: str | None = None
    """Id of the image that the file itself is called like."""
    notes: tuple[str, ...] = ()

    @property
    def is_table(self) -> bool:
        """Whether it holds fixations as shares of their images."""
        return self.format == TABLE_FORMAT

    @property
    def is_ready(self) -> bool:
        """Whether it can come in as it is."""
        return bool(self.format) and not self.problem and not self.missing


def preview_gaze(
    study: Study,
    file: Path,
    *,
    known: Known | None = None,
    shown_at: ShownAt | None = None,
    split: str | None = None,
) -> GazePreview:
    """Look into a gaze file: what it is, what it would bring, and everything that it does not tell, at once.

    Whatever is wrong with the file is told by `GazePreview.problem`, never raised.
    """
    try:
        if gazemedseg.sniff(file):
            return _table(study, file, split)
        format = sniffed_format(file)
    except UserError as error:
        return GazePreview(file, problem=str(error))
    if format is None:
        return GazePreview(file, problem=unknown_format(file))
    missing: list[str] = []
    choices: dict[str, tuple[str, ...]] = {}
    assumed = known or Known()
    gaze: GazeFile | None = None
    problem = ""
    while gaze is None and not problem:
        try:
            gaze = read_gaze_file(file, format, assumed)
        except MissingFact as error:
            new = [fact for fact in error.facts if fact not in missing]
            if error.choices:
                choices |= {fact: error.choices for fact in new}
            if not new or any(fact not in choices and fact not in STAND_INS for fact in new):
                problem = str(error)
                break
            missing += new
            stand_ins: dict[str, Any] = {
                fact: choices[fact][0] if fact in choices else STAND_INS[fact] for fact in new
            }
            assumed = dataclasses.replace(assumed, **stand_ins)
        except UserError as error:
            problem = str(error)
    if gaze is None:
        # With a stand-in for what was not said, a file may make no sense that it makes with the truth.
        return GazePreview(
            file, format, problem="" if missing else problem, missing=tuple(missing), choices=choices
        )
    preview = GazePreview(
        file,
        format,
        missing=tuple(missing),
        choices=choices,
        tracker=gaze.tracker,
        rate_hz=None if "time_unit" in missing else gaze.rate_hz,
        geometry=None if {"screen_px", "screen_mm", "distance_mm"} & set(missing) else gaze.geometry,
        inspection=inspect(gaze),
        notes=gaze.notes,
    )
    return _matched(study, preview, gaze, shown_at or ShownAt(), split)


def _table(study: Study, file: Path, split: str | None) -> GazePreview:
    table = gazemedseg.read_gazemedseg(file)
    preview = GazePreview(file, TABLE_FORMAT, fixations=table.fixations, dropped=table.dropped)
    return _named(study, preview, {name: True for name in table.images}, split)


def _matched(
    study: Study, preview: GazePreview, gaze: GazeFile, shown_at: ShownAt, split: str | None
) -> GazePreview:
    """Add what is known of the images and of where they were."""
    placed = shown_at.fit or shown_at.rect_px is not None
    if gaze.shown:
        places: dict[str, bool] = {}
        for item in gaze.shown:
            places[item.name] = places.get(item.name, True) and (placed or item.rect_px is not None)
        return _named(study, preview, places, split)
    if shown_at.image is not None:
        return _named(study, preview, {shown_at.image: placed}, split)
    return dataclasses.replace(
        preview,
        missing=(*preview.missing, "image", *(() if placed else ("rect_px",))),
        guessed_image=_guessed(study, preview.file, split),
    )


def _named(study: Study, preview: GazePreview, places: Mapping[str, bool], split: str | None) -> GazePreview:
    """Add which images a file is about; `places` says for each of its names whether it is known where that was."""
    found: dict[str, None] = {}
    unknown: list[str] = []
    missing = list(preview.missing)
    choices = dict(preview.choices)
    problem = ""
    try:
        names = ImageNames(study.images_of(split))
        for name, is_placed in places.items():
            image = names.find(preview.file, name)
            if image is None:
                unknown.append(name)
                continue
            found[image.id] = None
            if not is_placed and "rect_px" not in missing:
                missing.append("rect_px")
        if not found and unknown:
            problem = str(none_of_them(preview.file, unknown))
    except MissingFact as error:
        choices |= {fact: error.choices for fact in error.facts}
        if split is None and len(error.choices) > 1:
            missing += error.facts
        else:
            problem = str(error)
    except UserError as error:
        problem = str(error)
    return dataclasses.replace(
        preview,
        problem=problem,
        missing=tuple(missing),
        choices=choices,
        found=tuple(found),
        unknown=tuple(unknown),
    )


def _guessed(study: Study, file: Path, split: str | None) -> str | None:
    try:
        image = ImageNames(study.images_of(split)).find(file, file.stem)
    except UserError:
        return None
    return image.id if image is not None else None
