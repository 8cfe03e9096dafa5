"""Painting over what is written in images, for good."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gaze_capture.errors import UserError
from gaze_capture.storage import write_bytes_atomic
from segmentation.images import encode_plane, read_stored
from segmentation.progress import Progress, no_progress
from segmentation.readers.burned_in import likely_text
from segmentation.records import StudyImage
from segmentation.study import Study

Rectangle = tuple[int, int, int, int]
"""x, y, width, height in image pixels."""


def blank(
    study: Study,
    image_ids: Sequence[str],
    rectangles: Sequence[Rectangle],
    *,
    progress: Progress = no_progress,
) -> list[str]:
    """Paint rectangles of images with their darkest value; without ids, of all in which text is likely.

    The file is replaced: the pixels are gone from the study. Masks and gaze stay where they are.

    Returns
    -------
    The ids of the images changed.

    Raises
    ------
    UserError
        If there is no such image, none in which text is likely, or a rectangle lies outside an image.
    """
    images = _chosen(study, image_ids)
    changed: list[StudyImage] = []
    # Removed only when the study knows the new files: a crash in between leaves an orphan, never a lie.
    old = [study.image_path(image) for image in images]
    try:
        for number, image in enumerate(images):
            progress(number, len(images), image.id)
            values = read_stored(study.image_path(image)).copy()
            darkest = values.min()
            for x, y, width, height in rectangles:
                under = values[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
                if not under.size:
                    raise UserError(
                        f"The rectangle {x},{y},{width},{height} lies outside the image {image.id}, "
                        f"which is {image.shape[1]} x {image.shape[0]} pixels."
                    )
                under[...] = darkest
            changed.append(_replaced(study, image, *encode_plane(values)))
    finally:
        study.add_images(changed)
        kept = {study.image_path(image) for image in changed}
        for path in old[: len(changed)]:
            if path not in kept:
                path.unlink(missing_ok=True)
    progress(len(images), len(images), "")
    study.audit("blank", images=[image.id for image in changed], rectangles=[list(r) for r in rectangles])
    return [image.id for image in changed]


def _replaced(study: Study, image: StudyImage, data: bytes, ending: str) -> StudyImage:
    """Store other pixels for an image in a file of its own."""
    sha256 = hashlib.sha256(data).hexdigest()
    folder = image.path.rpartition("/")[0]
    path = f"{folder}/{image.id}-{sha256[:8]}{ending}"
    new = dataclasses.replace(
        image,
        path=path,
        sha256=sha256,
        source_sha256=image.came_from_sha256,
        burned_in="",
    )
    write_bytes_atomic(study.image_path(new), data)
    return new


def find_text(study: Study, *, progress: Progress = no_progress) -> list[str]:
    """Look for rows of letters in the pixels of all pictures, and mark those that seem to have some.

    Returns
    -------
    The ids of the images marked now. Nothing is painted over: somebody has to look.
    """
    images = [image for image in study.images.values() if not image.burned_in]
    marked: list[StudyImage] = []

    def has_text(image: StudyImage) -> bool:
        try:
            return bool(likely_text(study.shown(image)))
        except UserError:
            return False

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for number, (image, found) in enumerate(zip(images, pool.map(has_text, images), strict=True)):
            progress(number, len(images), image.id)
            if found:
                marked.append(dataclasses.replace(image, burned_in="a row of what looks like letters"))
    study.add_images(marked)
    progress(len(images), len(images), "")
    return [image.id for image in marked]


def mark_clean(study: Study, image_ids: Sequence[str]) -> list[str]:
    """Store that a person looked at images and found no text that names anyone; without ids, at all marked ones."""
    images = _chosen(study, image_ids)
    study.add_images([dataclasses.replace(image, burned_in="") for image in images])
    study.audit("blank", looked_at=[image.id for image in images])
    return [image.id for image in images]


def _chosen(study: Study, image_ids: Sequence[str]) -> list[StudyImage]:
    if image_ids:
        return [study.image(image_id) for image_id in image_ids]
    marked = [image for image in study.images.values() if image.burned_in]
    if not marked:
        raise UserError("No image of the study is marked for likely text; name the images to blank.")
    return marked
