"""The order of the review page's list: doubts are worked out in a thread, and the order then stays under the hands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from PySide6.QtCore import QObject, QSettings, Signal

from app.criteria import Criteria
from app.image_list import ImageList
from app.latest import NO_FLICKER_MS, Latest
from app.queue_bar import QueueBar
from app.saved_views import ORDERS, Order, View
from app.volumes import Entry
from segmentation.doubt import NO_DOUBT, Doubt, DoubtIndex
from segmentation.records import Key
from segmentation.review_queue import State
from segmentation.study import Study

ORDER_KEY = "review/order"

Stamp = tuple[object, ...]


@dataclasses.dataclass(frozen=True)
class _Worked:
    """What the thread found."""

    of: tuple[int, str | None]
    doubts: Mapping[Key, Doubt]
    predictions: Stamp
    """Tells predictions, or pseudo-masks where there are none, from later ones."""


class ReviewOrder(QObject):
    """Orders entries by doubt, or leaves them as imported; remembers what the person chose.

    Once sorted, the order stays until the person asks to sort again, chooses another order, run or target, or other
    predictions came in; what came in meanwhile is listed last.

    Parameters
    ----------
    names
        The list's words for states, by their names in code.
    """

    changed = Signal()
    """Doubts, or the order, are others now."""
    failed = Signal(str, str)
    """A sentence, and details, of what nobody foresaw."""

    def __init__(
        self, settings: QSettings, images: ImageList, names: Mapping[str, str], parent: QObject
    ) -> None:
        super().__init__(parent)
        self._settings, self._list, self._names = settings, images, names
        self._study: Study | None = None
        self._index: DoubtIndex | None = None
        self._run_id: str | None = None
        self._worked: _Worked | None = None
        self._fixed: list[str] | None = None
        """Entries in the order that stays, by the image that stands for each."""
        self._fixed_for: tuple[object, ...] = ()
        self._latest = Latest(self)
        self._latest.answered.connect(self._learn)
        self._latest.failed.connect(self._fail)
        self.bar = QueueBar(settings, self._current)
        self.bar.order_chosen.connect(self._choose)
        self.bar.sort_wanted.connect(self.sort_again)
        self.bar.view_chosen.connect(self._show_view)
        images.add_bar(self.bar)

    # What is known

    def ask(self, study: Study, run_id: str | None) -> None:
        """Work out the doubts of a study's masks anew; pixels of files that stayed the same are not read again."""
        if study is not self._study:
            self._study, self._index, self._worked, self._fixed = study, DoubtIndex(study), None, None
        self._run_id = run_id
        index, of = self._index, (id(study), run_id)
        assert index is not None

        def work() -> _Worked:
            keys = [(image.id, target.id) for image, target in study.iterate_keys()]
            return _Worked(of, index.doubts(keys, run_id), index.newest(run_id))

        self._latest.ask(work, NO_FLICKER_MS)

    def _learn(self, worked: _Worked) -> None:
        self._worked = worked
        self.changed.emit()

    def _fail(self, sentence: str, details: str) -> None:
        # A damaged file is named when its image is shown; the list does without doubts until then.
        if details:
            self.failed.emit(sentence, details)
        self.changed.emit()

    @property
    def pending(self) -> bool:
        """Whether doubts are being worked out."""
        return self._latest.pending

    @property
    def _doubts(self) -> Mapping[Key, Doubt]:
        fitting = self._worked is not None and self._worked.of == (id(self._study), self._run_id)
        return self._worked.doubts if self._worked is not None and fitting else {}

    def doubt_of(self, key: Key) -> Doubt | None:
        """Return how far a mask is to be doubted; None while that is not known, or there is no mask."""
        return self._doubts.get(key)

    def worst(self, entry: Entry, target_id: str, wanted: Callable[[Key], bool]) -> Doubt | None:
        """Return the doubt of the most doubtful of an entry's slices that are wanted."""
        found = [
            doubt
            for name in entry.slices
            if wanted((name, target_id)) and (doubt := self.doubt_of((name, target_id))) is not None
        ]
        return max(found, key=lambda doubt: doubt.score) if found else None

    # The order

    @property
    def chosen(self) -> Order | None:
        """What the person chose; None where they did not."""
        stored = self._settings.value(ORDER_KEY)
        return cast(Order, stored) if stored in ORDERS else None

    def arranged(
        self, entries: Sequence[Entry], target_id: str, state_of: Callable[[Key], State]
    ) -> list[Entry]:
        """Return entries in the order to be listed in."""
        waiting = {entry.image.id: any(state_of((name, target_id)) == "waiting" for name in entry.slices)
                   for entry in entries}  # fmt: skip
        doubted = bool(self._doubts) and (any(waiting.values()) or self._fixed is not None)
        order: Order = self.chosen or ("doubt" if doubted else "imported")
        if order == "imported" or not self._doubts:
            self.bar.show_order(order)
            return list(entries)

        def place(entry: Entry) -> tuple[bool, float]:
            doubt = self.worst(entry, target_id, lambda key: state_of(key) == "waiting") or NO_DOUBT
            return not waiting[entry.image.id], -doubt.score

        now = [entry.image.id for entry in sorted(entries, key=place)]
        assert self._worked is not None
        fixed_for = (*self._worked.of, target_id, *self._worked.predictions)
        if self._fixed is None or fixed_for != self._fixed_for:
            self._fixed, self._fixed_for = now, fixed_for
        places = {name: number for number, name in enumerate(self._fixed)}
        arranged = sorted(entries, key=lambda entry: places.get(entry.image.id, len(places)))
        self._fixed = [entry.image.id for entry in arranged]
        self.bar.show_order(order)
        return arranged

    def sort_again(self) -> None:
        """Sort by the doubts as they are now."""
        self._fixed = None
        self.changed.emit()

    def _choose(self, order: str) -> None:
        self._settings.setValue(ORDER_KEY, order)
        self.sort_again()

    # Views

    def _current(self) -> tuple[Criteria, Order]:
        criteria = self._list.criteria
        names = {word: name for name, word in self._names.items()}
        state = None if criteria.state is None else names.get(criteria.state)
        return dataclasses.replace(criteria, state=state), self.bar.order.currentData()

    def _show_view(self, view: View) -> None:
        state = None if view.criteria.state is None else self._names.get(view.criteria.state)
        self._list.narrow_to(dataclasses.replace(view.criteria, state=state))
        self._choose(view.order)

    def stop(self) -> None:
        """End the thread."""
        self._latest.stop()
