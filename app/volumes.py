"""Images and volumes as a reader meets them: one entry for each, a volume's slices in order. Nothing of Qt."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import takewhile

from gaze_capture.errors import UserError
from segmentation.study import Study, StudyImage


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


class SliceMarker:
    """Reads the marks of a volume's slices once, until something changes."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._kept: dict[tuple[str, str], SliceMarks] = {}

    def forget(self) -> None:
        """Read anew: gaze, masks or reviews came in."""
        self._kept.clear()

    def marks(self, slices: tuple[str, ...], target_id: str) -> SliceMarks:
        """Return the marks of slices that belong together."""
        key = slices[0], target_id
        if len(slices) == 1:
            return SliceMarks()
        if key not in self._kept:
            study, reviewed = self._study, set()
            for name in slices:
                # A review that cannot be read is told of where reviews are shown.
                with contextlib.suppress(UserError):
                    if study.reviews(name, target_id):
                        reviewed.add((name, target_id))
            masked = study.pseudomask_keys()
            self._kept[key] = marks_of(slices, target_id, study.fixations.keys(), masked, reviewed)
        return self._kept[key]


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
    return Entry(image, _name([study.images[name] for name in slices]), slices)


def _name(slices: list[StudyImage]) -> str:
    if len(slices) == 1:
        return slices[0].source_name
    names = {image.source_name for image in slices}
    least, greatest = min(names), max(names)
    if least == greatest:
        return least
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(least, greatest, strict=False))
    return "".join(one for one, _ in pairs).rstrip("0 _-.([") or slices[0].volume


def first_image(study: Study) -> str | None:
    """Return where reading a study begins: its first image, or the middle of its first volume."""
    first = next(iter(study.images), None)
    return None if first is None else entry_of(study, first).image.id


def common_state(states: Iterable[str], order: Iterable[str]) -> tuple[str, int]:
    """Return the state that stands for a volume, and how many slices are in it: the first of `order` that occurs."""
    counts = Counter(states)
    for state in order:
        if counts[state]:
            return state, counts[state]
    return next(iter(counts.items()))
