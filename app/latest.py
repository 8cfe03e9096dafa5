"""Reads things off the window's thread where only the answer to the latest question counts."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable

from PySide6.QtCore import QObject, QRunnable, Qt, QThreadPool, Signal

from gaze_capture.errors import UserError

NO_FLICKER_MS = 120
"""What is read within this time is shown at once; what takes longer fills in, and the window never waits for it."""


class _Job(QRunnable):
    def __init__(self, owner: Latest, number: int, function: Callable[[], object]) -> None:
        super().__init__()
        self._owner, self._function = owner, function
        self.number = number
        self.finished = threading.Event()
        self.delivered = False
        self.result: object = None
        self.error: BaseException | None = None
        self.details = ""

    def run(self) -> None:
        """Ask, unless a later question came meanwhile."""
        if self.number == self._owner.number:
            try:
                self.result = self._function()
            except BaseException as error:
                self.error, self.details = error, traceback.format_exc()
        self.finished.set()
        self._owner.ended.emit(self)


class Latest(QObject):
    """One question at a time, in a thread of its own; answers to overtaken ones are dropped."""

    answered = Signal(object)
    failed = Signal(str, str)
    """A sentence, and details where the failure was not foreseen."""
    ended = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.number = 0
        self.pending = False
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(1)
        self._jobs: set[_Job] = set()
        """Those the pool has: it does not own them, and one that was collected while it waits would crash it."""
        self.ended.connect(self._deliver, Qt.ConnectionType.QueuedConnection)

    def ask(self, function: Callable[[], object], wait_ms: int = 0) -> None:
        """Ask a question; an answer that comes within `wait_ms` is told before this returns."""
        self.number += 1
        self.pending = True
        job = _Job(self, self.number, function)
        job.setAutoDelete(False)
        self._jobs.add(job)
        self._pool.start(job)
        if wait_ms and job.finished.wait(wait_ms / 1000):
            self._deliver(job)

    def _deliver(self, job: _Job) -> None:
        self._jobs.discard(job)
        if job.delivered or job.number != self.number:
            return
        job.delivered = True
        self.pending = False
        if job.error is None:
            self.answered.emit(job.result)
        elif isinstance(job.error, UserError):
            self.failed.emit(str(job.error), "")
        else:
            self.failed.emit(
                self.tr("The study could not be read: {error}").format(error=job.error), job.details
            )

    def drop(self) -> None:
        """Forget what is asked, without waiting for the thread; nobody is told the answer."""
        self.number += 1
        self.pending = False

    def stop(self) -> None:
        """Drop what is asked and wait for the thread."""
        self.drop()
        self._pool.clear()
        self._pool.waitForDone()
        self._jobs.clear()
