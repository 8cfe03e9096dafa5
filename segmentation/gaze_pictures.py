"""Pictures of gaze, for papers and for looking at: a scanpath or a heatmap on each image, with a caption."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations, simulated_source
from gaze_capture.recording import Floats
from gaze_capture.recording_codec import SUMMARY_NAME
from gaze_capture.storage import folder_in_place, read_json, write_bytes_atomic
from segmentation.export_selection import Selection, simulated_words
from segmentation.images import encode_display, resize
from segmentation.leaving import outside
from segmentation.picture_drawing import Pixels, Plan, Words, draw_pixels, draw_svg, plan
from segmentation.progress import Progress, no_progress
from segmentation.pseudomask import PseudoMaskSettings, make_pseudomask
from segmentation.records import StudyImage, safe_name
from segmentation.study import Study

Kind = Literal["scanpath", "heatmap"]
KINDS: tuple[Kind, ...] = ("scanpath", "heatmap")
FileType = Literal["png", "svg"]

SMALLEST_PX = 960
"""The image's longer side in a picture is at least this ..."""
LARGEST_PX = 2048
"""... and at most this."""
_BLOCKY = 4.0
"""Images enlarged more than this keep their pixels as squares; they must not look as if they held more."""


@dataclass(frozen=True)
class PicturesReport:
    """What was drawn."""

    folder: str
    pictures: int
    images: int
    failed: tuple[tuple[str, str], ...]
    """(image id, reason)"""


@dataclass(frozen=True)
class _Subject:
    """One annotator's looks at one image, for one target."""

    image: StudyImage
    annotator: str
    target_id: str | None
    looks: tuple[Fixations, ...]


def draw_pictures(
    study: Study,
    to: Path | str,
    *,
    kinds: Sequence[Kind] = ("scanpath",),
    as_type: FileType = "png",
    annotators: Sequence[str] | None = None,
    split: str | None = None,
    images: Sequence[str] | None = None,
    progress: Progress = no_progress,
) -> PicturesReport:
    """Draw each annotator's gaze on each image into a new folder; it appears there when it is complete.

    Files are called ``<image>.<annotator>[.<target>].<kind>.<type>``.

    Parameters
    ----------
    to : a folder that is missing or empty
    annotators, images : only these; default: all with gaze

    Raises
    ------
    UserError
        If nothing was chosen, no image can be read, the folder holds anything, or the disk refuses.
    """
    selection = Selection(study, tuple(annotators) if annotators is not None else None, split)
    selection.check()
    for image_id in images or ():
        study.image(image_id)
    subjects = _subjects(selection, images)
    if not subjects:
        raise UserError("Nothing was chosen to draw: there is no gaze of these annotators on these images.")
    trackers = {
        source: _tracker(study, source) for item in subjects for source in {x.source for x in item.looks}
    }
    names = _names(study, subjects)
    failed: list[tuple[str, str]] = []
    drawn = 0
    with folder_in_place(outside(study, to)) as folder:

        def draw(number: int) -> UserError | None:
            subject = subjects[number]
            try:
                pixels = study.shown(subject.image)
            except UserError as error:
                return error
            for kind in kinds:
                found = picture_of(
                    pixels,
                    subject.looks,
                    kind,
                    study.pseudomask_settings,
                    _caption(study, subject, trackers),
                )
                data = draw_svg(found).encode() if as_type == "svg" else encode_display(draw_pixels(found))
                write_bytes_atomic(folder / f"{names[number]}.{kind}.{as_type}", data)
            return None

        # Each holds an image of up to 67 megapixels: no more at once than there are cores.
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            for number, error in enumerate(pool.map(draw, range(len(subjects)))):
                progress(number, len(subjects), subjects[number].image.id)
                if error is None:
                    drawn += 1
                else:
                    study.check_there()
                    failed.append((subjects[number].image.id, str(error)))
        if not drawn:
            raise UserError(f"No image could be drawn: {failed[0][1]}")
    progress(len(subjects), len(subjects), "")
    done = {subject.image.id for subject in subjects} - {image for image, _ in failed}
    return PicturesReport(str(to), drawn * len(kinds), len(done), tuple(failed))


def _subjects(selection: Selection, images: Sequence[str] | None) -> list[_Subject]:
    found: dict[tuple[str, str, str | None], list[Fixations]] = {}
    for item in selection.looks:
        if item.image_id in selection.images and (images is None or item.image_id in images):
            found.setdefault((item.image_id, item.annotator, item.target_id), []).append(item)
    order = {image_id: number for number, image_id in enumerate(selection.images)}
    return [
        _Subject(selection.images[image_id], annotator, target_id, tuple(looks))
        for (image_id, annotator, target_id), looks in sorted(
            found.items(), key=lambda entry: (order[entry[0][0]], entry[0][1], entry[0][2] or "")
        )
    ]


def _names(study: Study, subjects: Sequence[_Subject]) -> list[str]:
    """Return a file name for each subject, without ending; no two are the same on any file system."""
    names: list[str] = []
    taken: set[str] = set()
    for subject in subjects:
        parts = [safe_name(subject.image.id), safe_name(subject.annotator)]
        if len(study.targets) > 1:
            parts.append(safe_name(subject.target_id or "free"))
        name = wanted = ".".join(parts)
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{wanted}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _tracker(study: Study, source: str) -> str:
    summary = study.recordings_folder / source / SUMMARY_NAME
    with contextlib.suppress(UserError, KeyError, TypeError):
        return f"tracker {read_json(summary)['tracker']}"
    return "imported gaze"


def _caption(study: Study, subject: _Subject, trackers: dict[str, str]) -> list[Words]:
    count = sum(len(item.duration_ms) for item in subject.looks)
    seconds = sum(item.viewing_ms for item in subject.looks) / 1000
    words = [Words(subject.image.source_name, "name"), Words(f"annotator {subject.annotator}")]
    if len(study.targets) > 1:
        words.append(Words(study.target(subject.target_id).name if subject.target_id else "free viewing"))
    if len(subject.looks) > 1:
        words.append(Words(f"{len(subject.looks)} looks"))
    words += [
        Words(f"{count} fixation{'' if count == 1 else 's'}"),
        Words(f"{seconds:.1f} s"),
        Words(", ".join(dict.fromkeys(trackers[item.source] for item in subject.looks))),
    ]
    simulated = simulated_words(simulated_source(subject.looks))
    if simulated:
        words.append(Words(simulated, "warning"))
    return words


def picture_of(
    pixels: Pixels,
    looks: Sequence[Fixations],
    kind: Kind,
    settings: PseudoMaskSettings,
    caption: Sequence[Words],
) -> Plan:
    """Plan the picture of one annotator's looks at one image.

    Parameters
    ----------
    pixels : (H, W, 3) as the screen shows it
    settings : of the study's pseudo-masks; the heatmap is theirs before it is refined
    """
    height, width = pixels.shape[:2]
    longest = max(height, width)
    scale = float(np.clip(longest, SMALLEST_PX, LARGEST_PX)) / longest
    size = max(1, round(height * scale)), max(1, round(width * scale))
    base = _enlarged(pixels, size) if scale > 1 else resize(pixels, *size)
    grid = np.array([size[1] / width, size[0] / height])
    placed = [((item.xy_px + 0.5) * grid, item.duration_ms) for item in looks if len(item.duration_ms)]
    heat = _heat(looks, settings, size, grid) if kind == "heatmap" else None
    return plan(base, placed, scanpath=kind == "scanpath", heat=heat, caption=caption)


def _enlarged(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    blocky = size[0] > _BLOCKY * pixels.shape[0]
    how = cv2.INTER_NEAREST if blocky else cv2.INTER_CUBIC
    return cv2.resize(pixels, size[::-1], interpolation=how).astype(np.uint8, copy=False)


def _heat(
    looks: Sequence[Fixations], settings: PseudoMaskSettings, size: tuple[int, int], grid: Floats
) -> npt.NDArray[np.float32]:
    """Return the heatmap (H, W) of the looks on the picture's own grid; zero where no fixation counts."""
    scale = float(grid.mean())
    scaled = [
        dataclasses.replace(
            item,
            xy_px=(item.xy_px + 0.5) * grid - 0.5,
            degrees_per_px=item.degrees_per_px and item.degrees_per_px / scale,
        )
        for item in looks
    ]
    plain = dataclasses.replace(settings, refine="none")
    made = make_pseudomask(np.zeros((*size, 1), dtype=np.float32), scaled, plain, looks[0].target_id or "")
    return np.zeros(size, dtype=np.float32) if made is None else made.heatmap
