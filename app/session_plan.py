"""What a sitting shows next, and when it goes on by itself or offers a break. Nothing of Qt."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

from app.volumes import Entry, entries, entry_of
from segmentation.session_options import SessionOptions
from segmentation.session_order import SessionItem, session_order
from segmentation.study import Study

Due = Literal["next", "break"]


class SessionPlan:
    """The images of a sitting in their order, without those that the annotator has done.

    Raises
    ------
    UserError
        If what the order is made of cannot be read.
    """

    def __init__(
        self, study: Study, annotator: str, options: SessionOptions, target_ids: Sequence[str | None]
    ) -> None:
        self.options = options
        items = session_order(study, annotator, options, target_ids=target_ids)
        self._items = {(item.image_id, item.target_id): item for item in items}
        by_slice = {name: entry for entry in entries(study) for name in entry.slices}
        self.entries: list[Entry] = list(
            {by_slice[item.image_id].image.id: by_slice[item.image_id] for item in items}.values()
        )
        """Images and volumes, each once."""
        first = self.entries[0] if self.entries else None
        self.image_id = first.image.id if first is not None else ""
        """Where it begins."""
        self.target_id = self._first_target(first, target_ids) if first is not None else None
        """What is looked for first; None while viewing freely."""
        self._shown_s = self._break_s = time.monotonic()
        self._interrupted_s: float | None = None
        self._since_break = 0

    @classmethod
    def of_one(
        cls, study: Study, annotator: str, options: SessionOptions, image_id: str, target_id: str
    ) -> SessionPlan:
        """Plan a look at one image for one target, looked at before or not."""
        plan = cls(study, annotator, options, [target_id])
        plan.entries = [entry_of(study, image_id)]
        plan.begin_at(image_id, target_id)
        return plan

    @property
    def empty(self) -> bool:
        """Whether everything has been looked at."""
        return not self.entries

    def include(self, entry: Entry) -> None:
        """Put an image first that someone asked for, though it was done."""
        if all(other.image.id != entry.image.id for other in self.entries):
            self.entries.insert(0, entry)

    def holds(self, image_id: str | None) -> bool:
        """Whether an image, or the volume it is a slice of, is planned."""
        return any(image_id in entry.slices for entry in self.entries)

    def begin_at(self, image_id: str | None, target_id: str | None) -> None:
        """Begin with an image that is planned."""
        if image_id is not None:
            self.image_id, self.target_id = image_id, target_id

    def _first_target(self, entry: Entry, order: Sequence[str | None]) -> str | None:
        """Return which target an entry's looks begin with: the first that is not done."""
        for target_id in order:
            if any((name, target_id) in self._items for name in entry.slices):
                return target_id
        return order[0]

    def item(self, image_id: str, target_id: str | None) -> SessionItem | None:
        """Return what the plan says of a look; None where it was not planned."""
        return self._items.get((image_id, target_id))

    def looked(self) -> None:
        """Note that an image is left."""
        self._since_break += 1

    def shown(self) -> None:
        """Note that an image is shown anew."""
        self._shown_s = time.monotonic()
        self._interrupted_s = None

    def interrupt(self) -> None:
        """Note that the image is hidden: a pause, a break, a calibration or a drift check is no time of it."""
        if self._interrupted_s is None:
            self._interrupted_s = time.monotonic()

    def go_on(self) -> None:
        """Note that the image that was hidden is shown again."""
        if self._interrupted_s is not None:
            self._shown_s += time.monotonic() - self._interrupted_s
            self._interrupted_s = None

    def rested(self) -> None:
        """Note that a break is over."""
        self._break_s = time.monotonic()
        self._since_break = 0

    @property
    def break_due(self) -> bool:
        """Whether a break should be offered before the next image."""
        number, minutes = self.options.break_every_n, self.options.break_every_min
        by_count = number is not None and self._since_break >= number
        rested_s = time.monotonic() - self._break_s
        return by_count or (minutes is not None and rested_s >= 60 * minutes and self._since_break > 0)

    @property
    def time_is_up(self) -> bool:
        """Whether the image has been shown for as long as it may be."""
        longest = self.options.maximum_image_s
        return longest is not None and time.monotonic() - self._shown_s >= longest
