"""Which reviews teach, which a run learned from, and what giving them took.

A run notes in ``reviews.json`` which reviews it learned from when it read its images, and what reviewing had taken by
then, so that rounds of training and reviewing can be told apart (`segmentation.rounds`) and a later run knows what is
new (`segmentation.retraining`). The note travels with a run's archive and with a packed training set: it holds no name,
and which reviews they are can be told in the study alone. Never imports torch.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.recording import UNDECIDED
from gaze_capture.storage import read_json, write_json_atomic
from segmentation.consensus import reviews_in
from segmentation.job import RunSpec
from segmentation.records import SCHEMA, Key, utc_now
from segmentation.review_index import COUNTED, Review, read_review
from segmentation.runs import RunFolder
from segmentation.study import Study
from segmentation.study_folder import names_in

LEARNED_NAME = "reviews.json"


@dataclass(frozen=True)
class Learned:
    """The reviews that a run learned from, and what reviewing had taken until it read them."""

    read_at: str
    """ISO 8601, UTC."""
    marks: frozenset[str]
    """See `mark_of`."""
    seconds: float
    """What giving these took; of a consensus, what giving those it was made of took."""
    spent_s: float
    """What all verdicts until then took, also those that taught nothing, were replaced or taken back; see
    `reviewing_seconds`."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.marks)

    @property
    def sha256(self) -> str:
        """A hash of which they are, the same wherever the same ones were learned from."""
        return hashlib.sha256("\n".join(sorted(self.marks)).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return what is kept with the run."""
        return {
            "schema": SCHEMA,
            "read_at": self.read_at,
            "count": self.count,
            "sha256": self.sha256,
            "seconds": round(self.seconds, 2),
            "spent_s": round(self.spent_s, 2),
            "reviews": sorted(self.marks),
        }


def mark_of(study: Study, review: Review) -> str:
    """Return what a review is told from all others by: a hash of who said what of which mask, and when.

    The study's uid is hashed along, so that where it is not known nobody can try names against the marks of a run.
    """
    told = (
        study.uid,
        review.image_id,
        review.target_id,
        review.annotator,
        review.subject,
        review.verdict,
        review.reviewed_at,
        f"{review.seconds_spent:.2f}",
    )
    return hashlib.sha256("\0".join(told).encode("utf-8", errors="surrogatepass")).hexdigest()[:20]


def teaching(study: Study, spec: RunSpec) -> dict[Key, Review]:
    """Return the reviews that a run by this spec learns from, by (image id, target id).

    Those are the latest of images that the study still has in the spec's split: accepted and edited masks, the word
    that nothing is there, and rejections by which a label is left out. The rejection of a prediction teaches nothing,
    nor does what lies beside a true mask in `supervised` training.
    """
    if not spec.learn_from_reviews:
        return {}
    targets = spec.targets or tuple(target.id for target in study.targets)
    masks = study.mask_keys() if spec.method == "supervised" else set()
    found = {}
    for key, reviews in study.all_reviews().items():
        image = study.images.get(key[0])
        own = [review for review in reviews if review.purpose in COUNTED]
        if not own or image is None or image.split != spec.split or key[1] not in targets or key in masks:
            continue
        last = own[-1]
        if (
            last.verdict != "rejected"
            or last.presence == "absent"
            or last.presence in UNDECIDED
            or last.subject == "pseudomask"
        ):
            found[key] = last
    return found


def reviewing_seconds(study: Study, until: float | None = None) -> float:
    """Return what verdicts took, in seconds, those taken back included; `until`: seconds since the epoch.

    A second read is among them once a consensus was made of it, which is learned from like any review. Other second
    reads and audits are not: nobody gives them for the sake of the next training.
    """
    standing = study.all_reviews()
    withdrawn = list(_withdrawn(study))
    given = [review for reviews in standing.values() for review in reviews]
    given += [review for _, review in withdrawn]
    counted = [
        review
        for review in given
        if review.purpose in COUNTED and (until is None or given_at(review) <= until)
    ]
    seconds = sum(review.seconds_spent for review in counted)
    used: dict[Key, set[str]] = {}
    for review in counted:
        if review.purpose == "consensus":
            key = review.image_id, review.target_id
            used.setdefault(key, set()).update(reviews_in(review.subject))
    for key, names in used.items():
        named = [*study.named_reviews(*key).items()]
        named += [(name, one) for name, one in withdrawn if (one.image_id, one.target_id) == key]
        seconds += sum(
            one.seconds_spent for name, one in named if name in names and one.purpose == "second-read"
        )
    return seconds


def seconds_behind(study: Study, review: Review) -> float:
    """Return what giving a review took, in seconds: of a consensus, what giving those it was made of took."""
    if review.purpose != "consensus":
        return review.seconds_spent
    names = set(reviews_in(review.subject))
    named = study.named_reviews(review.image_id, review.target_id)
    return sum(one.seconds_spent for name, one in named.items() if name in names)


def _withdrawn(study: Study) -> Iterator[tuple[str, Review]]:
    """Read the verdicts that were taken back, with their names; one that is damaged is passed over."""
    reviews = study.folder / "reviews"
    for folder in sorted(names_in(reviews)):
        for name in sorted(names_in(reviews / folder)):
            if name.endswith(".withdrawn"):
                own = name.removesuffix(".withdrawn")
                try:
                    yield own, read_review(reviews / folder / f"{own}.json")
                except UserError:
                    continue


def given_at(review: Review) -> float:
    """Return when a review was given, in seconds since the epoch; 0 where its time cannot be read."""
    return epoch(review.reviewed_at)


def epoch(text: str) -> float:
    """Return a time in ISO 8601 as seconds since the epoch; without a zone it is UTC; 0 where it is none."""
    try:
        time = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        return (time if time.tzinfo else time.replace(tzinfo=datetime.timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def learned_now(study: Study, spec: RunSpec) -> Learned:
    """Return what a run by this spec that reads its labels now learns from; what is given afterwards is new to it.

    Raises
    ------
    UserError
        If a review is damaged.
    """
    reviews = teaching(study, spec)
    return Learned(
        utc_now(),
        frozenset(mark_of(study, review) for review in reviews.values()),
        sum(seconds_behind(study, review) for review in reviews.values()),
        reviewing_seconds(study),
    )


def note(run: RunFolder, learned: Learned) -> None:
    """Note in a run which reviews it learns from.

    Raises
    ------
    UserError
        If the run's folder cannot be written.
    """
    write_json_atomic(run.path / LEARNED_NAME, learned.to_json(), within=run.study_folder)


def learned_by(run: RunFolder) -> Learned | None:
    """Return which reviews a run learned from; None where it says nothing of them, as runs of earlier versions do.

    Raises
    ------
    UserError
        If the note is damaged.
    """
    path = run.path / LEARNED_NAME
    if not path.exists():
        return None
    values = read_json(path)
    try:
        read_at, marks = str(values["read_at"]), values["reviews"]
        seconds, spent_s = float(values["seconds"]), float(values["spent_s"])
        if not isinstance(marks, list) or not epoch(read_at) or not math.isfinite(seconds + spent_s):
            raise ValueError("it lists no reviews, or says no time")
        return Learned(read_at, frozenset(map(str, marks)), seconds, spent_s)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}). Delete it; reviews then count by their time."
        ) from None


def begun_at(run: RunFolder) -> float:
    """Return when a run read its labels, in seconds since the epoch, or was made, where it has not yet."""
    learned = learned_by(run)
    if learned is not None:
        return epoch(learned.read_at)
    events = run.events()
    return events[0].time if events else (run.path / "spec.json").stat().st_mtime
