"""How long a mask is reviewed: the time away, in another window or on another page, does not count. Nothing of Qt."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable

from segmentation.study import Review

RECENT = 20
"""So many reviews tell how long the next ones take."""
LONGEST_S = 300.0
"""Reviews that took longer say nothing of the next ones."""


class ReviewClock:
    """Counts the seconds that one thing was in view; `now_s` is the time in seconds."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._subject: object = None
        self._counted_s = 0.0
        self._since_s: float | None = None

    @property
    def running(self) -> bool:
        """Whether time counts."""
        return self._since_s is not None

    @property
    def seconds(self) -> float:
        """How long the subject has been in view."""
        return self._counted_s + (0.0 if self._since_s is None else self._now_s() - self._since_s)

    def show(self, subject: object) -> bool:
        """Begin anew unless the same subject is shown still; return whether it began anew."""
        if subject == self._subject:
            return False
        self._subject = subject
        self.restart()
        return True

    def restart(self) -> None:
        """Begin anew with the same subject: what it was looked at for until now is over."""
        self._counted_s = 0.0
        if self._since_s is not None:
            self._since_s = self._now_s()

    def spend(self, seconds: float) -> None:
        """Take away seconds that are counted elsewhere from now on, for the same subject."""
        self._counted_s -= seconds

    def run(self, on: bool) -> None:
        """Count from now on, or not."""
        if on and self._since_s is None:
            self._since_s = self._now_s()
        elif not on and self._since_s is not None:
            self._counted_s = self.seconds
            self._since_s = None


def seconds_left(reviews: Iterable[Review], annotator: str, waiting: int) -> float | None:
    """Return how long what waits will take, by the median of the annotator's last reviews; None before there is any."""
    own = sorted(
        (one.reviewed_at, one.seconds_spent)
        for one in reviews
        if one.annotator == annotator and 0 < one.seconds_spent <= LONGEST_S
    )
    recent = [seconds for _, seconds in own[-RECENT:]]
    return statistics.median(recent) * waiting if recent else None
