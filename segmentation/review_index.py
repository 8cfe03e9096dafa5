"""The reviews of a study, each file read once: a review is never rewritten, only withdrawn or followed by another."""

from __future__ import annotations

import math
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from gaze_capture.errors import UserError
from gaze_capture.recording import Presence
from gaze_capture.storage import explained_os_errors, read_json
from segmentation.records import refuse_newer

Verdict = Literal["accepted", "edited", "rejected"]
Purpose = Literal["review", "second-read", "audit", "consensus"]
"""Why a review was made: the usual one; blind to what others said; an outline drawn blind to every mask, as a reference
that is never learned from; what several annotators' masks came to."""
COUNTED: tuple[Purpose, ...] = ("review", "consensus")
"""Reviews of these purposes decide what a mask is and what is learned; of others the study keeps the word alone."""
Key = tuple[str, str]

UNSETTLED_NS = 2_500_000_000
"""File systems tell times in steps of up to two seconds: a folder that changed just now is listed once more."""

READERS = 8


@dataclass(frozen=True)
class Review:
    """An annotator's verdict on a prediction or a pseudo-mask; an edited mask lies beside it."""

    image_id: str
    target_id: str
    annotator: str
    subject: str
    """The run whose prediction was judged, or ``"pseudomask"``."""
    verdict: Verdict
    presence: Presence | None
    seconds_spent: float
    reviewed_at: str
    """ISO 8601, UTC."""
    threshold: float = 0.5
    """The probability at which the prediction was shown."""
    purpose: Purpose = "review"
    started_from: str = ""
    """What an edited mask began as: ``student``, ``teacher``, ``level 0.65``, ``empty``, ``reviewed``, ``slice ID``."""
    edits: tuple[str, ...] = ()
    """The tools used on an edited mask, in order, a word for each step that stands."""
    gaze_on_mask_ms: float | None = None
    """How long the eyes were on the mask while it was judged; None where no tracker ran."""


@dataclass(frozen=True)
class _Listed:
    """One folder of reviews as it was."""

    mtime_ns: int
    settled: bool
    """Whether a change since would show in the folder's time."""
    standing: tuple[str, ...]
    """Names without ending, oldest first."""


class ReviewIndex:
    """Knows the folders of reviews and what is in them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed: dict[str, _Listed] = {}
        self._read: dict[tuple[str, str], Review] = {}
        self._reading = threading.Lock()
        self._complete = False
        """Whether all were read once."""
        self._news = False
        """Whether a listing, whoever asked for it, met reviews of others that came after those last told."""

    def _folders(self) -> dict[str, int]:
        with explained_os_errors(self._folder):
            try:
                entries = os.scandir(self._folder)
            except FileNotFoundError:
                return {}
            with entries:
                return {entry.name: entry.stat().st_mtime_ns for entry in entries if entry.is_dir()}

    def _list(self, name: str, own: str = "") -> _Listed:
        folder = self._folder / name
        now = time.time_ns()
        with explained_os_errors(folder):
            try:
                mtime = os.stat(folder).st_mtime_ns
                files = set(os.listdir(folder))
            except FileNotFoundError:
                return _Listed(0, False, ())
        standing = sorted(
            file[:-5]
            for file in files
            if file.endswith(".json") and file[0] != "." and f"{file[:-5]}.withdrawn" not in files
        )
        listed = _Listed(mtime, mtime < now - UNSETTLED_NS, tuple(standing))
        before = self._listed.get(name)
        if before is not None or self._complete:
            differing = set(standing).symmetric_difference(before.standing if before else ())
            self._news = self._news or bool(differing - {own})
        self._listed[name] = listed
        return listed

    def _review(self, folder: str, name: str) -> Review:
        review = self._read.get((folder, name))
        if review is None:
            review = self._read[folder, name] = read_review(self._folder / folder / f"{name}.json")
        return review

    def note_own(self, name: str, review: str) -> None:
        """Know of a review that was added or withdrawn here: it is no news."""
        self._list(name, review)

    def reviews(self, name: str) -> list[Review]:
        """Return a folder's reviews that stand, oldest first."""
        return list(self.named(name).values())

    def named(self, name: str) -> dict[str, Review]:
        """Return a folder's reviews that stand by their names (without ending), oldest first; looks at the disk."""
        return {one: self._review(name, one) for one in self._list(name).standing}

    def all(self) -> dict[Key, list[Review]]:
        """Return all reviews that stand, oldest first, by (image id, target id)."""
        # Whoever asks while all are being read waits, and finds them read.
        with self._reading:
            return self._all()

    def _all(self) -> dict[Key, list[Review]]:
        folders = sorted(self._folders().items())
        due = [name for name, mtime in folders if not self._still_so(name, mtime)]
        with ThreadPoolExecutor(max_workers=READERS if len(due) > READERS else 1) as pool:
            # A share answers several questions in the time of one.
            for _ in pool.map(self.reviews, due):
                pass
        found: dict[Key, list[Review]] = {}
        for name, _ in folders:
            for one in self._listed[name].standing if name in self._listed else ():
                review = self._review(name, one)
                found.setdefault((review.image_id, review.target_id), []).append(review)
        self._complete = True
        return found

    def _still_so(self, name: str, mtime_ns: int) -> bool:
        known = self._listed.get(name)
        return known is not None and known.settled and known.mtime_ns == mtime_ns

    def changed(self) -> bool:
        """Whether others' reviews came or went since :meth:`told`; what may have changed is listed to tell."""
        if not self._news:
            for name, mtime in self._folders().items():
                if not self._still_so(name, mtime):
                    self._list(name)
        return self._news

    def told(self) -> None:
        """Take it that everyone who showed reviews before reads them again after this."""
        self._news = False


def read_review(path: Path) -> Review:
    """Read one review.

    Raises
    ------
    UserError
        If it is missing or damaged, or a newer version of the program wrote it.
    """
    values = read_json(path)
    refuse_newer(path, values)
    try:
        fields = {**values}
        del fields["schema"]
        fields["edits"] = tuple(map(str, fields.get("edits", ())))
        review = Review(**fields)
        _check(review)
        return review
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}). Move it out of the study.") from None


def _check(review: Review) -> None:
    """Raise ValueError where a value is none: it would be told of when minutes are added up, or never."""
    texts = (
        review.image_id, review.target_id, review.annotator, review.subject, review.reviewed_at, review.started_from
    )  # fmt: skip
    numbers = [review.seconds_spent, review.threshold]
    if review.gaze_on_mask_ms is not None:
        numbers.append(review.gaze_on_mask_ms)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a name in it is no text")
    if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
        raise ValueError("a number in it is none")
    if review.verdict not in get_args(Verdict) or review.purpose not in get_args(Purpose):
        raise ValueError(f"{review.verdict!r} for {review.purpose!r} is no verdict")
    if review.presence not in (None, *get_args(Presence)):
        raise ValueError(f"{review.presence!r} says nothing of presence")
