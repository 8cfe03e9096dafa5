"""How images stand for a target in review, as the list, the bar and the slices say it. Nothing of Qt's events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QCoreApplication

from app.criteria import Described, Row
from app.facts import Facts
from app.review_clock import seconds_left
from app.volumes import Entry, SliceMarks, common_state, marks_of
from segmentation.doubt import Doubt
from segmentation.gaze_index import look_quality
from segmentation.records import Key
from segmentation.review_queue import State, state_of
from segmentation.study import Study

TOKENS: dict[State, str] = {
    "waiting": "warning",
    "rejected": "danger",
    "accepted": "accent",
    "edited": "accent",
    "nothing": "accent",
}
"""The theme's colours of states; others are muted."""


@dataclass(frozen=True)
class Progress:
    """How far the review of a target is."""

    done: int
    """Images that have a review."""
    seconds_left: float | None
    """What the masks that wait will take; None where none waits, or nobody can tell yet."""


class ReviewStates:
    """Knows the facts that were gathered last, and keeps them up to date with each verdict."""

    def __init__(self) -> None:
        self.facts = Facts()
        said = QCoreApplication.translate
        self.words: dict[State, str] = {
            "waiting": said("ReviewPage", "To review"),
            "empty": said("ReviewPage", "No mask yet"),
            "accepted": said("ReviewPage", "Accepted"),
            "edited": said("ReviewPage", "Edited"),
            "rejected": said("ReviewPage", "Rejected"),
            "nothing": said("ReviewPage", "Nothing here"),
            "unsure": said("ReviewPage", "Unsure"),
            "ungradable": said("ReviewPage", "Ungradable"),
        }

    def note(self, study: Study, image_id: str, target_id: str) -> None:
        """Read anew what counts for a target in an image: a verdict was given on it, or taken back."""
        key = (image_id, target_id)
        standing, presence = study.counted_reviews(*key), study.presence(*key)
        self.facts.reviews.pop(key, None)
        self.facts.said.pop(key, None)
        if standing:
            self.facts.reviews[key] = standing[-1]
        if presence is not None:
            self.facts.said[key] = presence

    def state(self, key: Key, *, has_mask: bool | None = None) -> State:
        """Return a state; `has_mask` tells of a mask that the facts do not know of yet."""
        masked = key in self.facts.masked if has_mask is None else has_mask
        return state_of(self.facts.reviews.get(key), has_mask=masked)

    def waits(self, key: Key) -> bool:
        """Whether there is a mask that nobody has judged."""
        return self.state(key) == "waiting"

    def shown(self, state: State) -> tuple[str, str]:
        """Return a state's word, and the token of its colour."""
        return self.words[state], TOKENS.get(state, "muted")

    def waiting_slice(self, slices: Sequence[str], target_id: str) -> str | None:
        """Return the first of some slices that waits for a verdict."""
        return next((name for name in slices if self.waits((name, target_id))), None)

    def marks(self, study: Study, slices: tuple[str, ...], target_id: str) -> SliceMarks:
        """Return what the bar beside a volume marks."""
        return marks_of(slices, target_id, study.fixations.keys(), self.facts.masked, self.facts.reviews)

    def progress(self, study: Study, target_id: str, annotator: str) -> Progress:
        """Count what is reviewed, and foresee how long the rest will take the annotator."""
        done = sum(name in study.images for name, of in self.facts.reviews if of == target_id)
        masked = [key for key in self.facts.masked if key[1] == target_id and key[0] in study.images]
        waiting = sum(map(self.waits, masked))
        left = seconds_left(self.facts.reviews.values(), annotator, waiting) if waiting else None
        return Progress(done, left)

    def row(self, entry: Entry, target_id: str, doubt: Doubt | None, described: tuple[Described, ...]) -> Row:
        """Return an image or a volume as it is listed.

        Parameters
        ----------
        doubt
            Of its most doubtful mask that waits.
        described
            What the descriptions of its slices say.
        """
        image, key = entry.image, (entry.image.id, target_id)
        states = [self.state((name, target_id)) for name in entry.slices]
        score, reasons, why = (
            (doubt.score, doubt.reasons, doubt.why) if doubt else (None, (), frozenset[str]())
        )
        if not entry.is_volume:
            detail = "" if image.split == "train" else image.split
            return Row(
                image.id, entry.name, image, *self.shown(states[0]), detail,
                presence=self.facts.said.get(key), quality=look_quality(self.facts.looks.get(key, ())),
                described=described, state_name=states[0], doubt=score, reasons=reasons, why=why,
            )  # fmt: skip
        # What is left to do stands for the volume; after that, what was said most.
        given = [state for state in states if state not in ("waiting", "empty")]
        order: list[State] = ["waiting", *(state for state, _ in Counter(given).most_common(1)), "empty"]
        state, number = common_state(states, order)
        number = len(given) if given and state != "waiting" else number
        count = "" if state == "empty" else f"{number}/{len(states)}"
        return Row(
            image.id, entry.name, image, *self.shown(state), slices=entry.slices, count=count,
            described=described, state_name=state, doubt=score, reasons=reasons, why=why,
        )  # fmt: skip
