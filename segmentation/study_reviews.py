"""The reviews of a study: how they are given, taken back and read, and which of them counts."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from gaze_capture.errors import UserError
from gaze_capture.recording import Presence
from gaze_capture.storage import write_bytes_atomic, write_json_atomic
from segmentation.images import encode_mask
from segmentation.records import SCHEMA, Key
from segmentation.review_index import COUNTED, Purpose, Review, ReviewIndex, check_review
from segmentation.study_folder import Mask, read_mask


class StudyReviews:
    """The folder ``reviews`` of a study: a folder an image and target, in it a file a review, never rewritten.

    Second reads and audits are evidence and never decide; the latest of all others, the *counted* ones, is what counts.
    """

    def __init__(self, folder: Path) -> None:
        self._study_folder = folder
        self._folder = folder / "reviews"
        self._index = ReviewIndex(self._folder)

    def named(self, key: Key) -> dict[str, Review]:
        """Return the reviews of an image and target that stand, whatever their purpose, by name, oldest first."""
        return self._index.named(_folder_name(key))

    def counted(self, key: Key) -> list[Review]:
        """Return those that decide, oldest first."""
        return _counted(self._index.reviews(_folder_name(key)))

    def all(self) -> dict[Key, list[Review]]:
        """Return all that stand, whatever their purpose, oldest first."""
        return self._index.all()

    def latest(self) -> dict[Key, Review]:
        """Return the one that counts of each image and target that has one."""
        found = {key: _counted(reviews) for key, reviews in self._index.all().items()}
        return {key: reviews[-1] for key, reviews in found.items() if reviews}

    def words(self) -> dict[Key, Presence]:
        """Return the latest word on presence that reviews say, of each image and target."""
        said = {key: latest_word(_counted(reviews)) for key, reviews in self._index.all().items()}
        return {key: word for key, word in said.items() if word is not None}

    def add(self, review: Review, mask: Mask | None) -> str:
        """Store a review and the mask (H, W) it stands for, if any; return its name.

        Raises
        ------
        UserError
            If it is an audit that was not blind, or cannot be written.
        """
        check_review(review)
        key = (review.image_id, review.target_id)
        name = self._index.next_name(_folder_name(key), review.annotator)
        if mask is not None:
            write_bytes_atomic(self.mask_path(key, name), encode_mask(mask), within=self._study_folder)
        values = {"schema": SCHEMA, **dataclasses.asdict(review)}
        try:
            write_json_atomic(self._path(key, f"{name}.json"), values, within=self._study_folder)
        except UserError:
            # A mask without its review would be nobody's.
            with contextlib.suppress(OSError):
                self.mask_path(key, name).unlink()
            raise
        self._index.note_own(_folder_name(key), name)
        return name

    def withdraw(self, key: Key, name: str) -> None:
        """Take a review back; it stays on disk, marked beside it."""
        write_bytes_atomic(self._path(key, f"{name}.withdrawn"), b"", within=self._study_folder)
        self._index.note_own(_folder_name(key), name)

    def latest_name(self, key: Key, purposes: Sequence[Purpose] = COUNTED) -> str | None:
        """Return the name of the latest review that was given for one of these purposes."""
        names = [name for name, review in self.named(key).items() if review.purpose in purposes]
        return names[-1] if names else None

    def mask(self, key: Key, name: str) -> Mask | None:
        """Read the mask (H, W) of a review, as it is; None if it has none."""
        return read_mask(self.mask_path(key, name))

    def mask_path(self, key: Key, name: str) -> Path:
        """Return where the mask of a review lies, or would lie."""
        return self._path(key, f"{name}.png")

    def _path(self, key: Key, file_name: str) -> Path:
        return self._folder / _folder_name(key) / file_name

    def changed(self) -> bool:
        """Whether others' reviews came or went since :meth:`told`."""
        return self._index.changed()

    def told(self) -> None:
        """Take it that everyone who showed reviews before reads them again after this."""
        self._index.told()


class _Word(Protocol):
    @property
    def presence(self) -> Presence | None: ...


def latest_word(items: Sequence[_Word]) -> Presence | None:
    """Return the latest word on presence among looks or reviews, oldest first."""
    return next((item.presence for item in reversed(items) if item.presence is not None), None)


def _folder_name(key: Key) -> str:
    return f"{key[0]}.{key[1]}"


def _counted(reviews: Sequence[Review]) -> list[Review]:
    return [review for review in reviews if review.purpose in COUNTED]
