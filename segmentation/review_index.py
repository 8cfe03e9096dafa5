"""The reviews of a study, each file read once: a review is never rewritten, only withdrawn or followed by another."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from gaze_capture.errors import UserError
from gaze_capture.recording import Presence
from gaze_capture.storage import explained_os_errors, read_json
from segmentation.records import Key, refuse_newer, safe_name

Verdict = Literal["accepted", "edited", "rejected"]
Purpose = Literal["review", "second-read", "audit", "consensus"]
"""Why a review was made: the usual one; blind to what others said; an outline drawn blind to every mask, as a reference
that is never learned from; what several annotators' masks came to."""
COUNTED: tuple[Purpose, ...] = ("review", "consensus")
"""Reviews of these purposes decide what a mask is and what is learned; of others the study keeps the word alone."""

BARE_IMAGE = "image"
"""The subject of an outline that was drawn with nothing but the image in view."""

UNSETTLED_NS = 2_500_000_000
"""File systems tell times in steps of up to two seconds: a folder that changed just now is listed once more."""

READERS = 8

_STAMP = "%Y%m%d-%H%M%S%f"
"""When a review was added, UTC: its name begins with it."""


@dataclass(frozen=True)
class Review:
    """An annotator's verdict on a prediction or a pseudo-mask; an edited mask lies beside it."""

    image_id: str
    target_id: str
    annotator: str
    subject: str
    """The run whose prediction was judged, ``"pseudomask"``, or of an audit `BARE_IMAGE`."""
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


def check_review(review: Review) -> None:
    """Refuse an audit that was not outlined on the bare image, beginning with nothing: it would be no reference.

    Raises
    ------
    UserError
        If it is one.
    """
    if review.purpose != "audit":
        return
    begun = review.started_from if review.verdict == "edited" else "empty"
    if review.subject != BARE_IMAGE or begun != "empty":
        raise UserError(
            f"An audit is outlined on the bare image, from nothing; this mask of {review.image_id} is of "
            f"{review.subject!r}, began as {begun or 'nobody says what'}, and was not stored. Outline the image again."
        )


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

    def next_name(self, name: str, annotator: str) -> str:
        """Return what a folder's next review is called: what is said last is last, whatever the clocks say."""
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime(_STAMP)
        for other in self._list(name).standing[-1:]:
            latest = "-".join(other.split("-", 2)[:2])
            # To the microsecond: verdicts given by key follow each other within one second.
            if latest >= stamp:
                with contextlib.suppress(ValueError, OverflowError):
                    after = datetime.datetime.strptime(latest, _STAMP) + datetime.timedelta(microseconds=1)
                    stamp = after.strftime(_STAMP)
        return f"{stamp}-{secrets.token_hex(3)}-{safe_name(annotator)}"

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
        If it is missing, damaged, or of a newer version.
    """
    values = read_json(path)
    refuse_newer(path, values)
    try:
        fields = {**values}
        del fields["schema"]
        unknown = sorted(fields.keys() - _KINDS.keys())
        if unknown:
            raise TypeError(f"this version knows no {unknown[0]!r}")
        if not isinstance(fields.get("edits", []), list):
            raise TypeError("'edits' is no list")
        fields["edits"] = tuple(fields.get("edits", ()))
        review = Review(**fields)
    except KeyError as error:
        raise _damaged(path, f"it has no {error}") from None
    except TypeError as error:
        raise _damaged(path, str(error)) from None
    wrong = [name for name, is_sound in _KINDS.items() if not is_sound(getattr(review, name))]
    if wrong:
        raise _damaged(path, f"{wrong[0]!r} cannot be {getattr(review, wrong[0])!r}")
    return review


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged ({why}). Move it out of the study.")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


_KINDS: dict[str, Callable[[Any], bool]] = {
    "image_id": _is_text,
    "target_id": _is_text,
    "annotator": _is_text,
    "subject": _is_text,
    "verdict": lambda value: value in get_args(Verdict),
    "presence": lambda value: value is None or value in get_args(Presence),
    "seconds_spent": _is_amount,
    "reviewed_at": _is_text,
    "threshold": lambda value: _is_amount(value) and value <= 1,
    "purpose": lambda value: value in get_args(Purpose),
    "started_from": _is_text,
    "edits": lambda value: all(map(_is_text, value)),
    "gaze_on_mask_ms": lambda value: value is None or _is_amount(value),
}
"""What each field of a review may be: files that were changed by hand come here, too."""
