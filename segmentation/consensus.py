"""Consensus: what several annotators' masks of one image come to, stored as a review that counts like any other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording import Presence
from segmentation.blind_reading import check_readers
from segmentation.progress import Progress, no_progress
from segmentation.readings import Reading, each_reading
from segmentation.records import Key, utc_now
from segmentation.review_index import Purpose, Review
from segmentation.staple import MOST_ANNOTATORS, Staple, majority, staple
from segmentation.study import Mask, Study

Method = Literal["majority", "staple"]
METHODS: tuple[Method, ...] = get_args(Method)
CONSENSUS = "consensus"
"""Stands for the annotator of a consensus, which is nobody's own word."""
INPUTS: tuple[Purpose, ...] = ("review", "second-read")
"""Audits are kept to measure against: a consensus is learned from, and must not hold them."""


@dataclass(frozen=True)
class Performance:
    """What STAPLE found an annotator to be, the mean over images, each weighted by its pixels in dispute and around."""

    annotator: str
    images: int
    sensitivity: float
    specificity: float


@dataclass(frozen=True)
class ConsensusReport:
    """What was written."""

    method: Method
    written: dict[Key, Presence]
    """What was found of each image's target: present, absent, unsure or ungradable."""
    as_before: int
    """Images whose consensus of these very reviews was there already."""
    undecided: dict[Key, str] = field(default_factory=dict)
    """Why nothing was written, in a sentence."""
    performance: tuple[Performance, ...] = ()
    """STAPLE alone knows of it."""

    def to_json(self) -> dict[str, Any]:
        """Return what ``consensus --json`` prints."""
        return {
            "method": self.method,
            "written": [
                {"image": image_id, "target": target_id, "presence": presence}
                for (image_id, target_id), presence in self.written.items()
            ],
            "as_before": self.as_before,
            "undecided": [
                {"image": image_id, "target": target_id, "reason": reason}
                for (image_id, target_id), reason in self.undecided.items()
            ],
            "annotators": [vars(one) for one in self.performance],
        }


def make_consensus(
    study: Study,
    method: Method,
    *,
    target_id: str | None = None,
    split: str | None = None,
    annotators: Sequence[str] | None = None,
    threshold: float = 0.5,
    least: int = 2,
    progress: Progress = no_progress,
) -> ConsensusReport:
    """Bring the reviews and second reads of each image together, and store what they come to.

    Presence is decided by more than half of those who said a word. Where it is *present*, every mask that was given has
    its part, an empty one of who said *absent* included. Where a vote is tied, or the masks have no pixel in common,
    nothing is stored: nobody's word is overruled by a coin.

    Parameters
    ----------
    target_id : None for every target, each on its own
    threshold : on STAPLE's probability
    least : annotators that an image needs

    Raises
    ------
    UserError
        If the study has no such target, split or annotator, the threshold is none, or a mask cannot be read.
    """
    if not 0 < threshold < 1:
        raise UserError(f"The threshold lies between 0 and 1, not at {threshold:g}.")
    if least < 2:
        raise UserError("A consensus needs at least 2 annotators.")
    check_readers(study, annotators or ())
    targets = [study.target(target_id).id] if target_id else [target.id for target in study.targets]
    written: dict[Key, Presence] = {}
    undecided: dict[Key, str] = {}
    rates: dict[str, list[tuple[int, float, float]]] = {}
    as_before = 0
    for target in targets:
        for key, read in each_reading(
            study, target, split=split, purposes=INPUTS, annotators=annotators, least=least
        ):
            progress(0, 0, key[0])
            subject = _subject(method, [one.name for one in read.values()])
            counted = study.counted_reviews(*key)
            if counted and _is_same(counted[-1], subject, threshold if method == "staple" else None):
                as_before += 1
                continue
            try:
                word, mask, found = _outcome(method, read, study.image(key[0]).shape, threshold, least)
            except _UndecidedError as reason:
                undecided[key] = str(reason)
                continue
            if found is not None and found.region_px:
                names = [name for name, one in read.items() if one.mask is not None]
                for name, p, q in zip(names, found.sensitivity, found.specificity, strict=True):
                    rates.setdefault(name, []).append((found.region_px, float(p), float(q)))
            study.add_review(_review(key, subject, word, threshold), mask)
            written[key] = word
    if written:
        study.audit("consensus", method=method, written=len(written))
    return ConsensusReport(
        method,
        written,
        as_before,
        undecided,
        tuple(_performance(name, rows) for name, rows in sorted(rates.items())),
    )


def _subject(method: Method, names: Sequence[str]) -> str:
    return f"{method}: {', '.join(names)}"


def reviews_in(subject: str) -> list[str]:
    """Return the names of the reviews that a consensus was made of, as its subject tells them."""
    return subject.partition(": ")[2].split(", ")


def _is_same(last: Review, subject: str, threshold: float | None) -> bool:
    """Whether the review that counts is the consensus of these reviews already, at this threshold if there is one."""
    return (last.purpose, last.subject) == ("consensus", subject) and threshold in (None, last.threshold)


class _UndecidedError(Exception):
    """Why an image has no consensus."""


def _outcome(
    method: Method, read: Mapping[str, Reading], shape: Sequence[int], threshold: float, least: int
) -> tuple[Presence, Mask | None, Staple | None]:
    word = _vote(read)
    if word == "absent":
        return word, np.zeros(shape[:2], dtype=np.bool_), None
    if word != "present":
        return word, None, None
    masks = [one.mask for one in read.values() if one.mask is not None]
    if len(masks) < least:
        raise _UndecidedError(f"only {len(masks)} of {len(read)} annotators gave a mask")
    if len(masks) > MOST_ANNOTATORS and method == "staple":
        raise UserError(f"STAPLE takes up to {MOST_ANNOTATORS} annotators; name them, or choose majority.")
    found = staple(masks) if method == "staple" else None
    mask = majority(masks) if found is None else found.probability >= threshold
    if not mask.any():
        raise _UndecidedError("the masks have no part that enough of them share")
    return word, mask, found


def _vote(read: Mapping[str, Reading]) -> Presence:
    """Return the word on presence of more than half of those who said one."""
    words = Counter(one.presence for one in read.values() if one.presence is not None)
    if not words:
        raise _UndecidedError("nobody said whether the target is there")
    word, votes = words.most_common(1)[0]
    if 2 * votes <= words.total():
        told = ", ".join(f"{count} {name}" for name, count in sorted(words.items()))
        raise _UndecidedError(f"the annotators are divided: {told}")
    return word


def _review(key: Key, subject: str, word: Presence, threshold: float) -> Review:
    return Review(
        image_id=key[0],
        target_id=key[1],
        annotator=CONSENSUS,
        subject=subject,
        verdict="edited" if word in ("present", "absent") else "rejected",
        presence=word,
        seconds_spent=0.0,
        reviewed_at=utc_now(),
        threshold=threshold,
        purpose="consensus",
    )


def _performance(annotator: str, rows: Sequence[tuple[int, float, float]]) -> Performance:
    pixels = math.fsum(size for size, _, _ in rows)
    return Performance(
        annotator,
        len(rows),
        math.fsum(size * p for size, p, _ in rows) / pixels,
        math.fsum(size * q for size, _, q in rows) / pixels,
    )
