"""The left side of the record page: the study's images, or those of a sitting, and the gaze that each has had."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QObject, Signal

from app.facts import Facts, gather
from app.image_list import ImageList
from app.latest import NO_FLICKER_MS, Latest
from app.record_rows import gaze_row
from app.session import Session
from app.volumes import Entry, SliceMarks, entries, marks_of
from segmentation.study import Study


class RecordList(QObject):
    """Lists images for the session's target; the facts are gathered in a thread, and listed then."""

    learned = Signal()
    """Other facts of the images are known."""
    failed = Signal(str, str)
    """A sentence, and details."""

    def __init__(self, session: Session, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._study: Study | None = None
        self._planned: Sequence[Entry] | None = None
        self._facts = Facts()
        self.words = {
            "none": self.tr("No gaze"),
            "gaze": self.tr("Gaze"),
            "again": self.tr("Look again"),
            "present": self.tr("Present"),
            "absent": self.tr("Nothing here"),
            "unsure": self.tr("Unsure"),
            "ungradable": self.tr("Ungradable"),
        }
        """Of states, and of what is said in a sitting."""
        self.panel = ImageList(
            self.tr("Images"), [word for name, word in self.words.items() if name != "present"]
        )
        self._latest = Latest(self)
        self._latest.answered.connect(self._learn)
        self._latest.failed.connect(self.failed)

    def ask(self, study: Study) -> None:
        """Find out what gaze the images of a study have."""
        fresh = study is not self._study
        self._study = study
        if fresh:
            self.panel.thumbnails.set_study(study)
        self._latest.ask(lambda: gather(study), NO_FLICKER_MS)
        if fresh and self._latest.pending:
            self._facts = Facts()

    @property
    def pending(self) -> bool:
        """Whether something is being found out."""
        return self._latest.pending

    def _learn(self, facts: Facts) -> None:
        self._facts = facts
        self.show()
        self.learned.emit()

    def plan(self, planned: Sequence[Entry] | None) -> None:
        """List what a sitting will show, in its order, from the next :meth:`show` on; None: all there is."""
        self._planned = planned

    def show(self) -> None:
        """List the images as they are known."""
        if self._study is not None:
            target = self._session.target_id
            listed = self._planned if self._planned is not None else entries(self._study)
            self.panel.set_rows([gaze_row(self._facts, entry, target, self.words) for entry in listed])

    def marks(self, study: Study, slices: tuple[str, ...]) -> SliceMarks:
        """Return what the bar beside a volume marks."""
        facts, gazed = self._facts, study.fixations.keys()
        return marks_of(slices, self._session.target_id, gazed, facts.masked, facts.reviews)

    def stop(self) -> None:
        """End the threads."""
        self._latest.stop()
        self.panel.thumbnails.stop()
