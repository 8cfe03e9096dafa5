"""What was given in a review, and how it is taken back: the last first. Nothing of Qt."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from app.verdicts import Given, Judged, Word, give_verdict
from segmentation.records import Key
from segmentation.study import Study


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class _Done:
    key: Key
    take_back: Callable[[], None]
    taken_back: Callable[[], None]


class VerdictHistory:
    """Gives verdicts and takes them back; whatever else one undo takes back in turn with them is added to them.

    Parameters
    ----------
    followed
        Told the study, image and target of each verdict that was stored, and of each that was taken back.
    """

    def __init__(self, followed: Callable[[Study, str, str], None]) -> None:
        self._followed = followed
        self._done: list[_Done] = []

    @property
    def empty(self) -> bool:
        """Whether there is nothing to take back."""
        return not self._done

    def clear(self) -> None:
        """Hold on to nothing: another study is reviewed."""
        self._done.clear()

    def give(self, study: Study, judged: Judged, word: Word) -> bool:
        """Store a verdict; return False where there is nothing to accept or reject.

        Raises
        ------
        UserError
            If it cannot be stored.
        """
        given = give_verdict(study, judged, word)
        if given is not None:
            self.keep(study, given)
        return given is not None

    def keep(self, study: Study, given: Given) -> None:
        """Hold on to a verdict that was stored: an edited mask is one."""
        follow = functools.partial(self._followed, study, given.image_id, given.target_id)
        self.add((given.image_id, given.target_id), lambda: given.withdraw(study), follow)
        follow()

    def add(self, key: Key, take_back: Callable[[], None], taken_back: Callable[[], None] = _nothing) -> None:
        """Hold on to something else that was done to an image and target.

        Parameters
        ----------
        take_back
            Undoes it; UserError where that cannot be done: it can be tried again then.
        taken_back
            Called once it is undone.
        """
        self._done.append(_Done(key, take_back, taken_back))

    def undo(self) -> Key | None:
        """Take back what was done last, and return the image and target it was done to; None where nothing is left.

        Raises
        ------
        UserError
            If it cannot be taken back; it stays the last.
        """
        if not self._done:
            return None
        done = self._done[-1]
        done.take_back()
        self._done.pop()
        done.taken_back()
        return done.key
