"""The reviews of a study, each file read once: a review is never rewritten, only withdrawn or followed by another."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gaze_capture.errors import UserError
from gaze_capture.recording import Presence
from gaze_capture.storage import explained_os_errors, read_json

Verdict = Literal["accepted", "edited", "rejected"]
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

    def _folders(self) -> dict[str, int]:
        with explained_os_errors(self._folder):
            try:
                entries = os.scandir(self._folder)
            except FileNotFoundError:
                return {}
            with entries:
                return {entry.name: entry.stat().st_mtime_ns for entry in entries if entry.is_dir()}

    def _list(self, name: str) -> _Listed:
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
        self._listed[name] = listed
        return listed

    def _review(self, folder: str, name: str) -> Review:
        review = self._read.get((folder, name))
        if review is None:
            review = self._read[folder, name] = read_review(self._folder / folder / f"{name}.json")
        return review

    def standing(self, name: str) -> list[str]:
        """Return the names of a folder's reviews that were not withdrawn, oldest first; looks at the disk."""
        return list(self._list(name).standing)

    def reviews(self, name: str) -> list[Review]:
        """Return a folder's reviews that stand, oldest first."""
        return [self._review(name, one) for one in self._list(name).standing]

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
        return found

    def _still_so(self, name: str, mtime_ns: int) -> bool:
        known = self._listed.get(name)
        return known is not None and known.settled and known.mtime_ns == mtime_ns

    def changed(self) -> bool:
        """Whether a folder differs from what was listed last; unsettled ones are listed to tell."""
        for name, mtime in self._folders().items():
            known = self._listed.get(name)
            if known is None:
                return True
            if known.mtime_ns != mtime or not known.settled:
                now = self._list(name)
                if now.standing != known.standing:
                    return True
        return False


def read_review(path: Path) -> Review:
    """Read one review.

    Raises
    ------
    UserError
        If it is missing or damaged.
    """
    values = read_json(path)
    try:
        fields = {**values}
        del fields["schema"]
        return Review(**fields)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}). Move it out of the study.") from None
