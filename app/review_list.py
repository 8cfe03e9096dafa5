"""The left side of the review page: what is listed, in which order, and how each image stands."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from app.criteria import Criteria
from app.described import DescribedImages
from app.facts import Facts, gather
from app.image_list import ImageList, Row
from app.latest import NO_FLICKER_MS, Latest
from app.reading_mode import ReadingMode
from app.review_order import ReviewOrder
from app.review_states import ReviewStates
from app.session import Session
from app.volumes import Entry, entries, entry_of
from segmentation.records import Key
from segmentation.study import Study


class ReviewList(QObject):
    """Lists a study's images for the session's target; what takes time to know is read in threads, and listed then."""

    learned = Signal()
    """Other facts of the images are known."""
    ordered = Signal()
    """The doubts, or the order, are others."""
    counted = Signal()
    """The list, or what :meth:`progress` tells, is another."""
    failed = Signal(str, str)
    """A sentence, and details."""

    def __init__(self, session: Session, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._study: Study | None = None
        self._run_id: str | None = None
        self.states = ReviewStates()
        self.panel = ImageList(self.tr("Queue"), self.states.words.values())
        self.panel.search.setToolTip(
            self.tr(
                "Words of name, id, group, split or description; or a field, like split:test or group:patient-7; "
                "doubt>0.5, state:waiting or reason:outside; "
                "of descriptions boundary:blurred, area>20, by:measured, has:contradiction, edited, approved"
            )
        )
        words = {str(state): word for state, word in self.states.words.items()}
        self.order = ReviewOrder(session.settings, self.panel, words, self)
        self.order.changed.connect(self._follow_order)
        self.order.failed.connect(self.failed)
        self.reading = ReadingMode(session)
        self.reading.error.connect(self.failed)
        self.reading.place_above(self.panel)
        self.described = DescribedImages(self)
        self.described.changed.connect(self.show)
        self._facts = Latest(self)
        self._facts.answered.connect(self._learn)
        self._facts.failed.connect(self.failed)

    # What is known

    def ask(self, study: Study, run_id: str | None) -> None:
        """Find out how the images of a study stand, with the masks of a run or, with None, of gaze alone."""
        fresh = study is not self._study
        self._study, self._run_id = study, run_id
        if fresh:
            self.panel.thumbnails.set_study(study)
        self._facts.ask(lambda: gather(study, run_id), NO_FLICKER_MS)
        if fresh and self._facts.pending:
            self.states.facts = Facts()
        self.described.ask(study)
        self.order.ask(study, run_id)

    @property
    def pending(self) -> bool:
        """Whether something is being found out."""
        return self._facts.pending or self.order.pending

    def _learn(self, facts: Facts) -> None:
        self.states.facts = facts
        self.show()
        self.learned.emit()

    def _follow_order(self) -> None:
        self.show()
        if self._study is not None:
            self.ordered.emit()

    def note(self, study: Study, image_id: str, target_id: str) -> None:
        """Take it that a verdict was given on a target in an image, or taken back."""
        self.states.note(study, image_id, target_id)
        if self.reading.blind:
            self.show()
        else:
            self.panel.model.set_row(self._row(entry_of(study, image_id)))
            self.counted.emit()
        if self._facts.pending:
            # What is being read may not know of this verdict.
            self.ask(study, self._run_id)

    # What is listed

    def show(self) -> None:
        """List the images as they are known."""
        study, target = self._study, self._session.target_id
        if study is None:
            return
        self.reading.look(study)
        listed = self.order.arranged(entries(study), target, self.states.state)
        self.panel.set_rows([self._row(entry) for entry in self.reading.entries(study, listed)])
        self.counted.emit()

    def show_all(self) -> None:
        """Narrow the list to nothing any more."""
        self.panel.narrow_to(Criteria())

    def _row(self, entry: Entry) -> Row:
        target = self._session.target_id
        if self.reading.blind:
            return self.reading.row(entry, target)
        doubt = self.order.worst(entry, target, self.states.waits)
        said = (self.described.of(name, target) for name in entry.slices)
        return self.states.row(entry, target, doubt, tuple(one for one in said if one is not None))

    def progress(self) -> tuple[str, float | None]:
        """Return how much is done, in words, and how many seconds the rest will take; None where that is not known."""
        if self.reading.blind or self._study is None:
            return self.reading.progress(), None
        progress = self.states.progress(self._study, self._session.target_id, self._session.annotator)
        told = self.tr("{done:,} of {all:,} reviewed")
        return told.format(done=progress.done, all=len(self._study.images)), progress.seconds_left

    def following_slice(self, study: Study, image_id: str) -> str | None:
        """Return the next slice of the same volume that waits for a verdict; read blind, there are but images."""
        if self.reading.blind:
            return None
        slices = study.slices_beside(image_id)
        return self.states.waiting_slice(slices[slices.index(image_id) + 1 :], self._session.target_id)

    def tells_doubt(self, key: Key) -> bool:
        """Whether it is said of a mask how far it is to be doubted, or that this is being worked out."""
        known = self.order.doubt_of(key) is not None or self.order.pending
        return known and self.states.waits(key) and not self.reading.blind

    def stop(self) -> None:
        """End the threads."""
        self.order.stop()
        self._facts.stop()
        self.described.stop()
        self.panel.thumbnails.stop()
