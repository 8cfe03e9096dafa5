"""What each annotator said of a target in an image, side by side: the input of agreement and consensus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gaze_capture.recording import Presence
from segmentation.records import Key
from segmentation.review_index import Purpose, Review
from segmentation.study import Mask, Study

OWN: tuple[Purpose, ...] = ("review", "second-read", "audit")
"""What an annotator says themselves; a consensus is nobody's own word."""


@dataclass(frozen=True)
class Reading:
    """An annotator's latest word on one target in one image."""

    name: str
    """The review's."""
    review: Review
    mask: Mask | None
    """(H, W); None where the word was no mask: unsure, ungradable, or rejected without an outline."""

    @property
    def presence(self) -> Presence | None:
        """What was said of the target's presence."""
        return self.review.presence


def readings(
    study: Study,
    image_id: str,
    target_id: str,
    *,
    purposes: Sequence[Purpose] = OWN,
    annotators: Sequence[str] | None = None,
) -> dict[str, Reading]:
    """Return each annotator's latest reading, by annotator in the order of names.

    Raises
    ------
    UserError
        If a mask cannot be read or is of another size than the image.
    """
    latest: dict[str, tuple[str, Review]] = {}
    for name, review in study.named_reviews(image_id, target_id).items():
        if review.purpose in purposes and (annotators is None or review.annotator in annotators):
            latest[review.annotator] = name, review
    return {
        annotator: Reading(name, review, _mask_of(study, name, review))
        for annotator, (name, review) in sorted(latest.items())
    }


def _mask_of(study: Study, name: str, review: Review) -> Mask | None:
    if review.verdict == "rejected":
        return None
    return study.review_mask(review.image_id, review.target_id, name)


def each_reading(
    study: Study,
    target_id: str,
    *,
    split: str | None = None,
    purposes: Sequence[Purpose] = OWN,
    annotators: Sequence[str] | None = None,
    least: int = 2,
) -> Iterator[tuple[Key, Mapping[str, Reading]]]:
    """Yield the readings of every image that at least so many annotators read.

    Images are those of a split, or all; a review of an image that the study has no more is passed over.
    """
    reviewed = study.all_reviews()
    for image in study.images_of(split):
        key = (image.id, target_id)
        if key in reviewed:
            found = readings(study, *key, purposes=purposes, annotators=annotators)
            if len(found) >= least:
                yield key, found


def annotator_disagreement(
    study: Study, image_id: str, target_id: str, *, purposes: Sequence[Purpose] = OWN
) -> npt.NDArray[np.float32] | None:
    """Return how divided the annotators' masks are at each pixel, to be drawn over the image.

    Twice the share of annotators who are in the minority there: 0 where all agree, 1 where they are split in halves.

    Returns
    -------
    (H, W) 0..1, or None where fewer than two annotators gave a mask
    """
    masks = [one.mask for one in readings(study, image_id, target_id, purposes=purposes).values()]
    given = [mask for mask in masks if mask is not None]
    if len(given) < 2:
        return None
    share = np.mean(given, axis=0, dtype=np.float32)
    divided: npt.NDArray[np.float32] = 2 * np.minimum(share, 1 - share)
    return divided
