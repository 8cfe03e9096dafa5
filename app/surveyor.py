"""Counts a study in a thread, as often as it changes, one count at a time."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from app.jobs import Task
from app.overview import Overview, survey
from segmentation.study import Study


class Surveyor(QObject):
    """Requests that come during a count lead to one more, so that the last count told is always of the present."""

    counted = Signal(object)
    """An Overview of the study asked for last."""
    failed = Signal(str, str)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._study: Study | None = None
        self._task: Task | None = None
        self._again = False

    def request(self, study: Study) -> None:
        """Count a study soon."""
        self._study = study
        if self._task is not None:
            self._again = True
            return
        self._task = Task(lambda _: survey(study), self.tr("Counting"), self)
        self._task.succeeded.connect(self._tell)
        self._task.failed.connect(self.failed)
        self._task.ended.connect(self._ended)
        self._task.start()

    def _tell(self, overview: Overview) -> None:
        # A count that was overtaken by a change would show for a moment what is no longer so.
        if not self._again:
            self.counted.emit(overview)

    def _ended(self) -> None:
        assert self._task is not None and self._study is not None
        self._task.deleteLater()
        self._task = None
        if self._again:
            self._again = False
            self.request(self._study)
