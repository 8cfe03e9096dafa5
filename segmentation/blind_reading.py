"""Reading blind: audits drawn at random and outlined on the bare image, and second reads of what others reviewed.

A draw is a file in ``audits/`` that is never rewritten; what was outlined are reviews with a purpose of their own,
which decide nothing and are never learned from (`segmentation.study.Study.counted_reviews`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, write_json_atomic
from segmentation.records import SCHEMA, Key, new_id, refuse_newer, utc_now
from segmentation.review_index import Purpose
from segmentation.study import Study

BlindPurpose = Literal["second-read", "audit"]
BLIND: tuple[BlindPurpose, ...] = get_args(BlindPurpose)

_OWN_WORDS: tuple[Purpose, ...] = ("review", "second-read", "audit")


@dataclass(frozen=True)
class AuditDraw:
    """A random sample of images that are outlined blind."""

    id: str
    image_ids: tuple[str, ...]
    """In the order drawn: whoever does the first few has done a random sample, too."""
    target_ids: tuple[str, ...]
    seed: int
    split: str | None
    """None: of all images."""
    annotator: str | None
    """Who is to outline them; None: everyone."""
    out_of: int
    """How many images it was drawn from."""
    drawn_at: str
    """ISO 8601, UTC."""

    @property
    def keys(self) -> list[Key]:
        """Return (image id, target id) of all that is to be outlined."""
        return [(image_id, target_id) for image_id in self.image_ids for target_id in self.target_ids]


def draw_audit(
    study: Study,
    count: int,
    seed: int,
    *,
    split: str | None = None,
    target_id: str | None = None,
    annotator: str | None = None,
) -> AuditDraw:
    """Draw images for an audit, blind: every image of the split is as likely, whatever is known of it; store the draw.

    One seed draws the same images of the same study again, for another annotator; in place of those in which that
    annotator has reviewed one of the targets, which nobody could outline blind, others are drawn. They review the most
    doubtful first, so such a draw is of easier images than the split, and what is measured on it flatters.

    Raises
    ------
    UserError
        If the split has fewer images (that the annotator has not reviewed), there is no such target, or the study
        cannot be written.
    """
    ids = sorted(image.id for image in study.images_of(split))
    if not 0 < count <= len(ids):
        if not ids:
            raise UserError(f"{study.folder} has no images to draw from yet; import some first.")
        where = f"the split {split!r}" if split else "the study"
        raise UserError(f"{count} images cannot be drawn: {where} has {len(ids)}; draw 1 to {len(ids)}.")
    targets = (study.target(target_id).id,) if target_id else tuple(target.id for target in study.targets)
    rng = np.random.default_rng(seed)
    chosen = [ids[number] for number in rng.choice(len(ids), count, replace=False).tolist()]
    seen = {image_id for image_id, target in _seen_by(study, annotator) if target in targets} & {*ids}
    if seen:
        if count > len(ids) - len(seen):
            raise UserError(
                f"{count} images cannot be drawn for {annotator!r}, who has reviewed {len(seen)} of the {len(ids)} and "
                "cannot outline those blind; draw fewer, or for somebody else."
            )
        others = [name for name in ids if name not in seen and name not in chosen]
        instead = iter(rng.permutation(len(others)).tolist())
        chosen = [name if name not in seen else others[next(instead)] for name in chosen]
    draw = AuditDraw(
        id=new_id("audit-"),
        image_ids=tuple(chosen),
        target_ids=targets,
        seed=seed,
        split=split,
        annotator=annotator,
        out_of=len(ids),
        drawn_at=utc_now(),
    )
    path = study.folder / "audits" / f"{draw.id}.json"
    write_json_atomic(path, {"schema": SCHEMA, **dataclasses.asdict(draw)}, within=study.folder)
    study.audit("audit-draw", draw=draw.id, images=count, seed=seed, split=split, annotator=annotator)
    return draw


def read_draw(path: Path) -> AuditDraw:
    """Read one draw.

    Raises
    ------
    UserError
        If it is missing, damaged or of a newer version.
    """
    values: dict[str, Any] = read_json(path)
    refuse_newer(path, values)
    try:
        fields = {name: value for name, value in values.items() if name != "schema"}
        lists = {name: tuple(map(str, fields[name])) for name in ("image_ids", "target_ids")}
        return AuditDraw(**{**fields, **lists})
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}). Restore it from a backup.") from None


def audit_draws(study: Study) -> list[AuditDraw]:
    """Return all draws of a study, oldest first."""
    draws = (read_draw(path) for path in (study.folder / "audits").glob("audit-*.json"))
    return sorted(draws, key=lambda draw: (draw.drawn_at, draw.id))


def work_for(study: Study, annotator: str, purpose: BlindPurpose) -> list[Key]:
    """Return everything an annotator is asked to read blind, done or not, in the order to read it.

    An audit's order is the one drawn; second reads are asked for of all that somebody else reviewed. What the annotator
    had seen a mask of before is asked for neither way.
    """
    if purpose == "audit":
        seen = _seen_by(study, annotator)
        return [key for key in _drawn_for(study, annotator) if key not in seen]
    asked: dict[Key, None] = {}
    for key, reviews in study.all_reviews().items():
        others = any(one.purpose == "review" and one.annotator != annotator for one in reviews)
        if others and not any(one.purpose == "review" and one.annotator == annotator for one in reviews):
            asked[key] = None
    return [(image.id, target.id) for image, target in study.iterate_keys() if (image.id, target.id) in asked]


def not_asked_of(study: Study, annotator: str) -> list[Key]:
    """Return what was drawn for an annotator's audits and is not asked of them, as they had reviewed it before."""
    seen = _seen_by(study, annotator)
    return [key for key in _drawn_for(study, annotator) if key in seen]


def _drawn_for(study: Study, annotator: str) -> list[Key]:
    draws = [draw for draw in audit_draws(study) if draw.annotator in (None, annotator)]
    return [
        key for key in dict.fromkeys(key for draw in draws for key in draw.keys) if key[0] in study.images
    ]


def _seen_by(study: Study, annotator: str | None) -> set[Key]:
    """Return what an annotator reviewed, or read a second time, before any audit of theirs: no audit of it is blind."""
    seen = set()
    for key, reviews in study.all_reviews().items():
        first = next(
            (one for one in reviews if one.annotator == annotator and one.purpose in _OWN_WORDS), None
        )
        if first is not None and first.purpose != "audit":
            seen.add(key)
    return seen


def done_by(study: Study, annotator: str, purpose: BlindPurpose) -> set[Key]:
    """Return (image id, target id) of what an annotator has read blind."""
    return {
        key
        for key, reviews in study.all_reviews().items()
        if any(one.purpose == purpose and one.annotator == annotator for one in reviews)
    }


def readers_of(study: Study) -> list[str]:
    """Return the names of all who gave a review of their own, sorted."""
    return sorted(
        {
            review.annotator
            for reviews in study.all_reviews().values()
            for review in reviews
            if review.purpose in _OWN_WORDS
        }
    )


def check_readers(study: Study, annotators: Sequence[str]) -> None:
    """Raise UserError where one of these annotators has reviewed nothing."""
    known = readers_of(study)
    for name in annotators:
        if name not in known:
            raise UserError(
                f"The study has no review by the annotator {name!r}; it has reviews by: "
                f"{', '.join(known) or 'nobody yet'}."
            )
