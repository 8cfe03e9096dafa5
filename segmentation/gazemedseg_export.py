"""A study's fixations as GazeMedSeg's tables: one a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gaze_capture.archive import program
from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations, simulated_source
from gaze_capture.formats.gazemedseg import ImageGaze, write_gazemedseg
from gaze_capture.storage import write_bytes_atomic
from segmentation.export_selection import Selection, Tally, simulated_words
from segmentation.progress import Progress
from segmentation.records import StudyImage, safe_name


def write_splits(selection: Selection, folder: Path, tally: Tally, progress: Progress) -> None:
    """Write ``<split>.csv``; where several annotators or targets would mix in one, ``<split>.<annotator>...csv``.

    The format knows neither, and its readers take all rows of an image as one look. Several looks of one annotator
    at one image follow each other in time. Fixations that began before the image was shown are left out.

    Raises
    ------
    UserError
        If no fixation is left, or the disk refuses.
    """
    images = selection.study.images
    looks = [item for item in selection.looks if item.image_id in images]
    names = unique_names(list(images.values()))
    annotators = {item.annotator for item in looks}
    targets = {item.target_id for item in looks}
    tables: dict[str, list[Fixations]] = {}
    for item in looks:
        parts = [safe_name(images[item.image_id].split)]
        if len(annotators) > 1:
            parts.append(safe_name(item.annotator))
        if len(targets) > 1:
            parts.append(safe_name(item.target_id or "free"))
        tables.setdefault(".".join(parts), []).append(item)
    early = 0
    for number, (stem, items) in enumerate(sorted(tables.items())):
        progress(number, len(tables), stem)
        gaze: dict[str, ImageGaze] = {}
        simulated: dict[str, str] = {}
        by_image: dict[str, list[Fixations]] = {}
        for item in items:
            by_image.setdefault(item.image_id, []).append(item)
        for image_id, found in by_image.items():
            name = names[image_id]
            gaze[name], left_out = _joined(images[image_id], found)
            early += left_out
            for item in found:
                tally.add(item)
            simulated[name] = simulated_words(simulated_source(found))
        labels = {"SIMULATED": simulated} if any(simulated.values()) else {}
        write_gazemedseg(folder / f"{stem}.csv", gaze, labels)
    if tally.fixations <= early:
        raise UserError("No fixation was chosen to export; detect fixations or choose other images.")
    tally.fixations -= early
    if early:
        tally.notes.append(
            f"{early} fixations that began before their image was shown were left out, as they never count."
        )
    tally.recordings |= {item.source for item in looks} & set(selection.study.recording_ids())
    write_bytes_atomic(folder / "README.txt", _readme(selection, tally).encode())


def unique_names(images: Sequence[StudyImage]) -> dict[str, str]:
    """Return a name for each image by its id: the source's own where it means no other image, else the id."""
    claims: Counter[str] = Counter()
    for image in images:
        claims.update(
            {word.casefold() for word in (image.source_name, Path(image.source_name).stem, image.id)}
        )
    return {
        image.id: image.source_name if claims[image.source_name.casefold()] == 1 else image.id
        for image in images
    }


def _joined(image: StudyImage, looks: Sequence[Fixations]) -> tuple[ImageGaze, int]:
    height, width = image.shape[:2]
    xy, start, duration = [], [], []
    before_ms, early = 0.0, 0
    for item in looks:
        kept = item.start_ms >= 0
        early += int((~kept).sum())
        xy.append((item.xy_px[kept] + 0.5) / [width, height])
        start.append(item.start_ms[kept] + before_ms)
        duration.append(item.duration_ms[kept])
        before_ms += max(item.viewing_ms, float((item.start_ms + item.duration_ms).max(initial=0.0)))
    durations = np.concatenate(duration)
    joined = ImageGaze(
        np.concatenate(xy), np.concatenate(start), durations, np.full(len(durations), np.nan), (height, width)
    )
    return joined, early


def _readme(selection: Selection, tally: Tally) -> str:
    simulated = simulated_words(tally.simulated_from)
    lines = [
        f"Fixations of the study {selection.study.name} in GazeMedSeg's format, exported by {program()}.",
        "",
        *(
            [f"Gaze is {simulated} where the column SIMULATED says so: no person looked.", ""]
            if simulated
            else []
        ),
        "IMAGE                  name of the image's file; the study's id where several files share a name",
        "CURRENT_FIX_INDEX      from 1, in order of time",
        "CURRENT_FIX_X, _Y      share of the image's width and height, from the top left corner",
        "CURRENT_FIX_DURATION   ms; a row of 0 ms stands for an image that was looked at without a fixation",
        "CURRENT_FIX_PUPIL      not exported (.)",
        "CURRENT_FIX_START      ms since the image was shown",
        "IMAGE_HEIGHT, _WIDTH   pixels",
        "",
    ]
    return "\n".join(lines)
