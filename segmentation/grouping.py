"""Groups of a study: suggesting those that images make by what they show, and splits that respect them."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.images import resize
from segmentation.near_duplicates import Fingerprint, Kind, cluster, fingerprint
from segmentation.progress import Progress, no_progress
from segmentation.records import StudyImage, group_of
from segmentation.study import TEST_SPLIT, Study

TRAIN_SPLIT = "train"


@dataclass(frozen=True)
class Link:
    """Why two images belong together."""

    first: str
    second: str
    kind: Kind
    score: float


@dataclass(frozen=True)
class GroupSuggestion:
    """Images that show one scene and lie in different groups of the study."""

    groups: tuple[tuple[str, ...], ...]
    """Image ids; each holds images of two or more of the study's groups, which are to become one."""
    links: tuple[Link, ...]
    compared: int
    """Images that were read."""
    failed: tuple[tuple[str, str], ...]
    """(image id, reason): could not be read."""


@dataclass(frozen=True)
class Leak:
    """A group that lies in more than one split."""

    group: str
    images: tuple[str, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class SplitReport:
    """What was moved from the split train into another."""

    name: str
    images: int
    groups: int
    left: int
    """Images that stay in train."""
    share: float
    """Moved images of those that train held before."""


def _seconds(captured: str) -> float | None:
    """Return a time of capture in seconds; None where only the day is known."""
    if "T" not in captured:
        return None
    try:
        return datetime.datetime.fromisoformat(captured).timestamp()
    except ValueError:
        return None


def suggest_groups(
    study: Study,
    progress: Progress = no_progress,
) -> GroupSuggestion:
    """Compare all images and suggest groups that should be one; nothing is changed.

    Images that share a group already count as one; of a volume the middle slice is compared. Where the time of
    capture is known, it is evidence, too.

    Raises
    ------
    UserError
        If the study has fewer than two images.
    """
    images = [
        image
        for image in study.images.values()
        if not image.volume or study.volumes[image.volume][len(study.volumes[image.volume]) // 2] == image.id
    ]
    if len(images) < 2:
        raise UserError(
            "The study has fewer than two images; import more before looking for near-duplicates."
        )
    found: list[tuple[StudyImage, Fingerprint]] = []
    failed: list[tuple[str, str]] = []

    def read(image: StudyImage) -> Fingerprint | UserError:
        try:
            return fingerprint(study.shown(image))
        except UserError as error:
            return error

    # Batches: images are large, and a stop should not wait for all of them.
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for start in range(0, len(images), 64):
            batch = images[start : start + 64]
            for number, (image, result) in enumerate(zip(batch, pool.map(read, batch), strict=True)):
                progress(start + number, len(images), image.id)
                if isinstance(result, UserError):
                    failed.append((image.id, str(result)))
                else:
                    found.append((image, result))
    compared = [image for image, _ in found]
    clusters = cluster(
        [result for _, result in found],
        [_seconds(image.captured) for image in compared],
        progress,
        known=[group_of(image) for image in compared],
    )
    return GroupSuggestion(
        tuple(tuple(compared[index].id for index in group) for group in clusters.groups),
        tuple(
            Link(compared[item.first].id, compared[item.second].id, item.kind, item.score)
            for item in clusters.evidence
        ),
        len(compared),
        tuple(failed),
    )


def apply_groups(study: Study, suggestion: GroupSuggestion) -> int:
    """Make one group of the groups whose images belong together; return how many images changed group.

    The merged group keeps the name of its largest part, of the earliest where several are as large.
    """
    parts: dict[str, list[StudyImage]] = {}
    for image in study.images.values():
        parts.setdefault(group_of(image), []).append(image)
    parent = {group: group for group in parts}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for ids in suggestion.groups:
        first, *others = (root(group_of(study.image(image_id))) for image_id in ids)
        for other in others:
            parent[root(other)] = root(first)
    merged: dict[str, list[str]] = {}
    for group in parts:
        merged.setdefault(root(group), []).append(group)
    changed = []
    for groups in merged.values():
        if len(groups) < 2:
            continue
        name = max(groups, key=lambda group: len(parts[group]))
        for group in groups:
            if group != name:
                changed += [dataclasses.replace(image, group=name) for image in parts[group]]
        # A group that was only the image's id becomes a name that others share.
        changed += [dataclasses.replace(image, group=name) for image in parts[name] if not image.group]
    study.add_images(changed)
    if changed:
        study.audit("group", images=[image.id for image in changed])
    return len(changed)


def leaks(study: Study) -> list[Leak]:
    """Return the groups that lie in more than one split."""
    found: dict[str, list[StudyImage]] = {}
    for image in study.images.values():
        found.setdefault(group_of(image), []).append(image)
    return [
        Leak(group, tuple(image.id for image in images), tuple(sorted({image.split for image in images})))
        for group, images in found.items()
        if len({image.split for image in images}) > 1
    ]


def mend_splits(study: Study) -> int:
    """Bring each group that lies in several splits into one; return how many images moved.

    That is the split test where any of its images is there, as test never changes sides; else the one that holds most
    of them, and of equals not train.
    """
    moved = []
    for leak in leaks(study):
        images = [study.image(image_id) for image_id in leak.images]
        count = Counter(image.split for image in images)
        to = max(count, key=lambda split: (split == TEST_SPLIT, count[split], split != TRAIN_SPLIT, split))
        moved += [dataclasses.replace(image, split=to) for image in images if image.split != to]
    study.add_images(moved)
    if moved:
        study.audit("mend_splits", images={image.id: image.split for image in moved})
    return len(moved)


def split_study(study: Study, share: float, name: str, seed: int = 0) -> SplitReport:
    """Move whole groups, drawn by the seed, from train into another split until it has about a share of the images.

    Groups that lie in other splits as well stay where they are: see `mend_splits`.

    Parameters
    ----------
    share : of the images in train, between 0 and 1
    name : the split to move to, new or existing

    Raises
    ------
    UserError
        If the share or name cannot be, or train has too few groups to leave some on both sides.
    """
    if not 0 < share < 1:
        raise UserError(f"A share of {share:g} cannot be split off; choose one between 0 and 1.")
    if not name.strip() or name == TRAIN_SPLIT:
        raise UserError(f"Images cannot be moved from train into {name!r}; choose another name, such as val.")
    train = study.images_of(TRAIN_SPLIT)
    leaking = {leak.group for leak in leaks(study)}
    groups: dict[str, list[StudyImage]] = {}
    for image in train:
        if group_of(image) not in leaking:
            groups.setdefault(group_of(image), []).append(image)
    wanted = share * len(train)
    moved: list[StudyImage] = []
    chosen = 0
    names = list(groups)
    for index in np.random.default_rng(seed).permutation(len(names)):
        group = groups[names[int(index)]]
        # A group is taken if that brings the count nearer to what is wanted; a large one may be passed over.
        after = len(moved) + len(group)
        if abs(after - wanted) < abs(len(moved) - wanted) and after < len(train):
            moved += group
            chosen += 1
    if not moved:
        raise UserError(
            f"No group of train fits into {share:.0%} of its {len(train)} images; choose a larger share."
        )
    study.add_images(dataclasses.replace(image, split=name) for image in moved)
    study.audit("split", name=name, share=share, seed=seed, images=[image.id for image in moved])
    return SplitReport(name, len(moved), chosen, len(train) - len(moved), len(moved) / len(train))


def contact_sheet(
    study: Study,
    groups: Sequence[Sequence[str]],
    *,
    most_groups: int = 40,
    most_images: int = 8,
    side_px: int = 160,
) -> npt.NDArray[np.uint8]:
    """Draw groups of images as labelled rows, (H, W, 3) RGB; as many as fit, the first images of each.

    Raises
    ------
    UserError
        If there are no groups, or an image cannot be read.
    """
    shown = [list(ids) for ids in groups[:most_groups]]
    if not shown:
        raise UserError("There are no groups to show.")
    label_px, gap_px = 18, 4
    columns = min(most_images, max(map(len, shown)))
    row_px = label_px + side_px + gap_px
    sheet = np.full((row_px * len(shown), columns * (side_px + gap_px) + gap_px, 3), 24, np.uint8)
    for row, ids in enumerate(shown):
        top = row * row_px + label_px
        for column, image_id in enumerate(ids[:columns]):
            image = study.image(image_id)
            pixels = study.shown(image)
            scale = side_px / max(pixels.shape[:2])
            height, width = (max(1, round(length * scale)) for length in pixels.shape[:2])
            left = gap_px + column * (side_px + gap_px)
            sheet[top : top + height, left : left + width] = resize(pixels, height, width)
            rest = f" +{len(ids) - columns}" if column == columns - 1 and len(ids) > columns else ""
            # The drawn font knows ASCII alone.
            text = f"{image.split}: {image_id}{rest}".encode("ascii", "replace").decode()
            cell = sheet[top - label_px : top, left : left + side_px]
            cv2.putText(cell, text, (0, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (235, 235, 235), 1, cv2.LINE_AA)
    return sheet
