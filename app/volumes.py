"""Images and volumes as a reader meets them: one entry for each, a volume's slices in order. Nothing of Qt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from segmentation.records import StudyImage
from segmentation.study import Study


@dataclass(frozen=True)
class Entry:
    """An image on its own, or a volume."""

    image: StudyImage
    """The image, or the slice in the volume's middle: where reading begins, and what stands for it in a list."""
    name: str
    slices: tuple[str, ...]
    """Ids in order; of an image on its own, its id alone."""

    @property
    def is_volume(self) -> bool:
        """Whether there are slices to scroll through."""
        return len(self.slices) > 1


@dataclass(frozen=True)
class SliceMarks:
    """Ids of the slices that have gaze, masks and reviews."""

    gaze: frozenset[str] = field(default_factory=frozenset)
    masks: frozenset[str] = field(default_factory=frozenset)
    reviews: frozenset[str] = field(default_factory=frozenset)


Keys = Collection[tuple[str, str]]
"""Of (image id, target id)."""


def marks_of(
    slices: tuple[str, ...], target_id: str, gazed: Keys, masked: Keys, reviewed: Keys
) -> SliceMarks:
    """Return which slices are marked, out of what a study has."""
    if len(slices) == 1:
        return SliceMarks()
    gaze, masks, reviews = (
        frozenset(name for name in slices if (name, target_id) in keys) for keys in (gazed, masked, reviewed)
    )
    return SliceMarks(gaze, masks, reviews)


def entries(study: Study) -> list[Entry]:
    """Return what a study's images are listed as, in the order they came in."""
    found: dict[str, Entry] = {}
    for image in study.images.values():
        if not image.volume:
            found[image.id] = Entry(image, image.source_name, (image.id,))
        elif f"\n{image.volume}" not in found:
            # A line break stands in no id: a volume never takes an image's key.
            found[f"\n{image.volume}"] = entry_of(study, image.id)
    return list(found.values())


def entry_of(study: Study, image_id: str) -> Entry:
    """Return the entry an image belongs to."""
    slices = study.slices_beside(image_id)
    image = study.images[slices[len(slices) // 2]]
    return Entry(image, image.source_stem, slices)


def first_image(study: Study) -> str | None:
    """Return where reading a study begins: its first image, or the middle of its first volume."""
    first = next(iter(study.images), None)
    return None if first is None else entry_of(study, first).image.id


State = TypeVar("State", bound=str)


def common_state(states: Iterable[State], order: Iterable[State]) -> tuple[State, int]:
    """Return the state that stands for a volume, and how many slices are in it: the first of `order` that occurs."""
    counts = Counter(states)
    for state in order:
        if counts[state]:
            return state, counts[state]
    return next(iter(counts.items()))
