"""Edits that were left unfinished: marked in the list, and told of once when a study is opened."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QObject, Signal

from app.edit_mode import Editing
from app.image_list import ImageList
from app.latest import Latest
from app.reading_mode import ReadingMode
from app.session import Session
from segmentation.editing.drafts import drafts_left
from segmentation.records import Key
from segmentation.review_index import Purpose
from segmentation.study import Study


class LeftEdits(QObject):
    """Looks for them in a thread when the study may have changed or an edit ends, never when the list is drawn."""

    error = Signal(str)
    notice = Signal(str)

    def __init__(self, session: Session, images: ImageList, reading: ReadingMode, editing: Editing) -> None:
        super().__init__(editing)
        self._session, self._list, self._reading, self._editing = session, images, reading, editing
        self._study: Study | None = None
        self._told: Study | None = None
        self._left: Mapping[Key, frozenset[Purpose]] = {}
        self._latest = Latest(self)
        self._latest.answered.connect(self._learn)
        self._latest.failed.connect(lambda sentence, _: self.error.emit(sentence))
        session.changed.connect(self._follow)
        reading.changed.connect(self._mark)
        editing.changed.connect(self._look_again)

    @property
    def found(self) -> Mapping[Key, frozenset[Purpose]]:
        """What the annotator's unfinished edits are for, by (image id, target id)."""
        return self._left

    def ask(self, study: Study) -> None:
        """Look which edits the annotator left in a study."""
        if study is not self._study:
            self._study, self._left = study, {}
            self._mark()
        annotator = self._session.annotator
        self._latest.ask(lambda: drafts_left(study, annotator))

    def _follow(self, what: str) -> None:
        if what == "target":
            self._mark()
        elif what == "annotator":
            self._look_again()

    def _look_again(self) -> None:
        if self._study is not None and not self._editing.active:
            self.ask(self._study)

    def _learn(self, left: Mapping[Key, frozenset[Purpose]]) -> None:
        self._left = left
        self._mark()
        if self._told is not self._study:
            self._told = self._study
            self._tell()

    def _mark(self) -> None:
        target, purpose = self._session.target_id, self._reading.purpose
        self._list.mark_unfinished(
            {
                image_id
                for (image_id, of), purposes in self._left.items()
                if of == target and purpose in purposes
            }
        )

    def _tell(self) -> None:
        images = self._study.images if self._study is not None else {}
        names = [
            images[image_id].source_name
            for (image_id, _), purposes in self._left.items()
            if image_id in images and self._reading.purpose in purposes
        ]
        if len(names) == 1:
            self.notice.emit(
                self.tr("An edit of {name} was left; E goes on with it there.").format(name=names[0])
            )
        elif names:
            shown = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
            told = self.tr("{count} edits were left: {names}; E goes on with them there.")
            self.notice.emit(told.format(count=len(names), names=shown))

    def stop(self) -> None:
        """End the thread."""
        self._latest.stop()
