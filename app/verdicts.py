"""What is judged in a review, and the record a verdict becomes. Nothing of Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording import Presence
from segmentation.editing.drafts import Draft, Kept, put_back
from segmentation.records import MASK_THRESHOLD, utc_now
from segmentation.review_index import BARE_IMAGE, Purpose
from segmentation.study import Mask, Review, Study, Verdict

Word = Literal["accepted", "rejected", "nothing", "unsure", "ungradable"]
"""What the keys A, R, 0, Q and U say."""


@dataclass(frozen=True)
class Judged:
    """What a verdict is given on, by whom, and how long it was looked at."""

    image_id: str
    target_id: str
    run_id: str | None
    """Whose student's mask is shown; None for the pseudo-mask."""
    annotator: str
    seconds: float
    purpose: Purpose = "review"
    gaze_on_mask_ms: float | None = None
    """None where no tracker ran."""


@dataclass(frozen=True)
class Given:
    """A verdict that was stored, so that it can be withdrawn."""

    image_id: str
    target_id: str
    name: str
    draft: Kept | None = None
    """The edit that became the verdict's mask, to go on with once the verdict is withdrawn."""

    def withdraw(self, study: Study) -> None:
        """Take the verdict back; raises UserError where that cannot be stored."""
        study.withdraw_review(self.image_id, self.target_id, self.name)
        if self.draft is not None:
            put_back(study, self.draft)


def subject_of(study: Study, image_id: str, target_id: str, run_id: str | None) -> tuple[str, Mask] | None:
    """Return what is judged: the student's mask of a run, else the pseudo-mask's widest level; None without either."""
    if run_id is not None:
        probability = study.prediction(run_id, image_id, target_id)
        if probability is not None:
            return run_id, probability >= MASK_THRESHOLD
    pseudomask = study.pseudomask(image_id, target_id)
    return None if pseudomask is None else ("pseudomask", pseudomask.masks[-1])


def give_verdict(study: Study, judged: Judged, word: Word) -> Given | None:
    """Store a verdict on an image's prediction or pseudo-mask; None where there is nothing to accept or reject.

    *Nothing here* needs no subject: it is itself a label, an empty mask. *Unsure* and *ungradable* are words on the
    image, and reject the mask along with it: nobody vouches for it. An audit judges the bare image: there is nothing
    to accept or reject.

    Raises
    ------
    UserError
        If the image is gone, or the verdict cannot be stored.
    """
    study.check_there()
    image_id, target_id, audit = judged.image_id, judged.target_id, judged.purpose == "audit"
    subject = None if audit else subject_of(study, image_id, target_id, judged.run_id)
    if subject is None and word in ("accepted", "rejected"):
        return None
    height, width, _ = study.image(image_id).shape
    nothing = BARE_IMAGE if audit else "pseudomask"
    name, mask = subject if subject is not None else (nothing, np.zeros((height, width), dtype=bool))
    verdict: Verdict
    presence: Presence | None
    stored: Mask | None
    if word == "accepted":
        verdict, presence, stored = "accepted", "present" if mask.any() else "absent", mask
    elif word == "nothing":
        verdict, presence, stored = "edited" if mask.any() else "accepted", "absent", np.zeros_like(mask)
    else:
        verdict, presence, stored = "rejected", None if word == "rejected" else word, None
    review = Review(
        image_id=image_id,
        target_id=target_id,
        annotator=judged.annotator,
        subject=name,
        verdict=verdict,
        presence=presence,
        seconds_spent=round(judged.seconds, 2),
        reviewed_at=utc_now(),
        threshold=MASK_THRESHOLD,
        purpose=judged.purpose,
        gaze_on_mask_ms=_rounded(judged.gaze_on_mask_ms),
    )
    return Given(image_id, target_id, study.add_review(review, stored))


def give_edited(study: Study, draft: Draft, seconds: float, gaze_on_mask_ms: float | None = None) -> Given:
    """Store an edited mask as a review, and take its draft away.

    One in which nothing was changed of what is judged was accepted, not edited.

    Raises
    ------
    UserError
        If the image or the target is gone, the mask is not of the image's size any more, that of an audit did not begin
        empty, or it cannot be written; the draft is kept then.
    """
    header, mask = draft.header, draft.edit.mask
    study.check_there()
    image, target = study.image(header.image_id), study.target(header.target_id)
    if not study.image_path(image).exists():
        raise UserError(
            f"{study.image_path(image)} is missing, the image of this edit: bring it back and store the edit then; it "
            "is kept as a draft."
        )
    if mask.shape != tuple(image.shape[:2]):
        raise UserError(
            f"The edit of {image.id} is {mask.shape[1]} x {mask.shape[0]} pixels, the image {image.shape[1]} x "
            f"{image.shape[0]} now: it was replaced meanwhile; the edit is kept as a draft."
        )
    unchanged = not draft.edit.edits and draft.edit.started_from == "student" and header.purpose == "review"
    review = Review(
        image_id=image.id,
        target_id=target.id,
        annotator=header.annotator,
        subject=header.subject,
        verdict="accepted" if unchanged else "edited",
        presence="present" if mask.any() else "absent",
        seconds_spent=round(seconds, 2),
        reviewed_at=utc_now(),
        threshold=MASK_THRESHOLD,
        purpose=header.purpose,
        started_from=draft.edit.started_from,
        edits=draft.edit.edits,
        gaze_on_mask_ms=_rounded(gaze_on_mask_ms),
    )
    name = study.add_review(review, mask)
    return Given(image.id, target.id, name, draft.finish())


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 1)
