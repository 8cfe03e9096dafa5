"""Where masks go that come in from files: true masks, or reviews of an annotator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segmentation.records import Key, StudyImage, utc_now
from segmentation.review_index import Review, Verdict
from segmentation.study import Study

Mask = npt.NDArray[np.bool_]

PSEUDOMASK = "pseudomask"
IMPORTED = "imported"
"""The word for it among a review's edits: which tools were used elsewhere, nobody knows."""


class MaskSink(Protocol):
    """Where masks that come in go."""

    exact: bool
    """Whether a mask has to be drawn on the image's own grid, to the pixel."""

    def has(self, image_id: str, target_id: str) -> bool:
        """Whether there is a mask already, which stays."""

    def save(self, image: StudyImage, target_id: str, mask: Mask) -> bool:
        """Store a mask (H, W) of the image's size; False where it says nothing new."""


class TrueMasks:
    """Masks come in as true ones."""

    exact = False

    def __init__(self, study: Study) -> None:
        self._study = study

    def has(self, image_id: str, target_id: str) -> bool:
        """Whether the study has a true mask already."""
        return self._study.mask_path(image_id, target_id).exists()

    def save(self, image: StudyImage, target_id: str, mask: Mask) -> bool:
        """Store a true mask."""
        self._study.save_true_mask(image.id, target_id, mask)
        return True


@dataclass
class Reviews:
    """Masks come in as reviews of one annotator; a review is never rewritten, so they follow those that are there."""

    study: Study
    annotator: str
    verdict: Verdict = "edited"
    run: str | None = None
    """Whose prediction the masks began as, where it is known."""
    empty: bool = False
    """Whether every mask without a marked pixel says that the target is not there. Otherwise that counts only where
    there was a mask before: a slice that nobody opened is empty in a volume, too."""
    seconds: float = 0.0
    """Spent on each, where it is known."""
    exact = True

    def __post_init__(self) -> None:
        self._latest = self.study.reviewed()
        self.unchanged = 0
        """Masks that are what the latest review has already."""
        self.left_empty = 0
        """Empty masks that were not taken for a word."""
        self.images: set[str] = set()

    def has(self, image_id: str, target_id: str) -> bool:
        """Say that there is room: reviews follow each other."""
        return False

    def save(self, image: StudyImage, target_id: str, mask: Mask) -> bool:
        """Add a review, unless the mask says nothing that the latest one does not."""
        key = image.id, target_id
        latest = self._latest.get(key)
        before = self.study.reviewed_mask(*key) if latest is not None else None
        if not mask.any() and not self.empty and (before is None or not before.any()):
            if before is None:
                self.left_empty += 1
            else:
                self.unchanged += 1
            return False
        # A second annotator may agree to the pixel, and accept; what they did not change, they did not edit.
        same = before is not None and np.array_equal(before, mask)
        if same and latest is not None and (latest.annotator == self.annotator or self.verdict == "edited"):
            self.unchanged += 1
            return False
        review = Review(
            image_id=image.id,
            target_id=target_id,
            annotator=self.annotator,
            subject=self.run or self._judged(key),
            verdict=self.verdict,
            presence="present" if mask.any() else "absent",
            seconds_spent=round(self.seconds, 2),
            reviewed_at=utc_now(),
            edits=(IMPORTED,) if self.verdict == "edited" else (),
        )
        self.study.add_review(review, mask)
        self._latest[key] = review
        self.images.add(image.id)
        return True

    def _judged(self, key: Key) -> str:
        """Return what the latest review judged; a consensus judges nothing itself."""
        own = [one for one in self.study.counted_reviews(*key) if one.purpose == "review"]
        return own[-1].subject if own else PSEUDOMASK
