"""Work off the window's thread: short steps in a thread of this process, runs as workers of their own."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QRunnable, Qt, QThreadPool, QTimer, Signal, SignalInstance
from shiboken6 import isValid

from gaze_capture.errors import UserError
from gaze_capture.storage import explained
from segmentation.job import ENDINGS, JobEvent
from segmentation.runs import EventTail, RunFolder, State

log = logging.getLogger(__name__)

PROGRESS_EVERY_SECONDS = 0.05
POLL_MS = 200
SILENT_POLL_MS = 2000
"""How often a run on another machine is looked at that has fallen silent: its network may come back."""

StepProgress = Callable[[int, int, str], None]


class Cancelled(Exception):
    """The person pressed Cancel; raised inside the step at its next report."""


class Task(QObject):
    """One function at work in a thread; its signals arrive in the thread that made the task."""

    progressed = Signal(int, int, str)
    """done, total, what is being worked on"""
    succeeded = Signal(object)
    failed = Signal(str, str)
    """A sentence for the person, and details where the failure was not foreseen."""
    ended = Signal()
    """After any of the above, or after a cancellation."""

    _reported = Signal(int, int, str)
    _returned = Signal(object)
    _raised = Signal(object, str)

    def __init__(
        self, function: Callable[[StepProgress], Any], title: str, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self.title = title
        self._function = function
        self._cancelled = threading.Event()
        self._last_report = 0.0
        self.running = False
        queued = Qt.ConnectionType.QueuedConnection
        self._reported.connect(self.progressed, queued)
        self._returned.connect(self._finish, queued)
        self._raised.connect(self._fail, queued)

    def start(self) -> None:
        """Begin, on the application's thread pool."""
        self.running = True
        QThreadPool.globalInstance().start(_Runner(self._work))

    def cancel(self) -> None:
        """Ask the function to end at its next report."""
        self._cancelled.set()

    def _report(self, done: int, total: int, label: str) -> None:
        if self._cancelled.is_set() or not isValid(self):
            raise Cancelled
        now = time.monotonic()
        if done >= total or now - self._last_report >= PROGRESS_EVERY_SECONDS:
            self._last_report = now
            self._reported.emit(done, total, label)

    def _work(self) -> None:
        try:
            result = self._function(self._report)
        except BaseException as error:
            self._tell(self._raised, error, traceback.format_exc())
        else:
            self._tell(self._returned, result)

    def _tell(self, signal: SignalInstance, *values: object) -> None:
        """Emit a signal, unless the window was closed, and this deleted, while the function went on."""
        if isValid(self):
            signal.emit(*values)

    def _finish(self, result: object) -> None:
        self.running = False
        self.succeeded.emit(result)
        self.ended.emit()

    def _fail(self, error: BaseException, details: str) -> None:
        self.running = False
        if isinstance(error, UserError):
            self.failed.emit(str(error), "")
        elif isinstance(error, OSError) and error.filename:
            # A share that vanished in mid-step; the details would tell nobody more.
            log.info("%s failed: %s", self.title, details)
            self.failed.emit(explained(error, Path(error.filename)), "")
        elif not isinstance(error, Cancelled):
            log.info("%s failed: %s", self.title, details)
            self.failed.emit(
                self.tr("%1 failed unexpectedly: %2").replace("%1", self.title).replace("%2", str(error)),
                details,
            )
        self.ended.emit()


class _Runner(QRunnable):
    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self._work_of_task = work

    def run(self) -> None:
        """Do the work."""
        self._work_of_task()


class RunWatcher(QObject):
    """Watches one run through its folder alone, so that a run of another window, or of yesterday, looks the same."""

    happened = Signal(object)
    """A JobEvent, the old ones first."""
    state_changed = Signal(str)

    def __init__(self, run: RunFolder, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.run = run
        self.state: State = "waiting"
        self.last_step: JobEvent | None = None
        self._tail = EventTail(run.events_path)
        self._timer = QTimer(self, interval=POLL_MS)
        self._timer.timeout.connect(self.poll)

    def start(self) -> None:
        """Read what there is and go on until the run ends."""
        self._timer.start(POLL_MS)
        self.poll()

    def stop(self) -> None:
        """Look no further; the run itself goes on."""
        self._timer.stop()

    def poll(self) -> None:
        """Read new events and the run's state."""
        # The state first: events written after this look are read at the next one, none is lost at the end.
        state = self.run.state()
        if state == "waiting" and self.state == "running":
            # Its share is out of reach for a while; the study's own watch tells of that.
            state = self.state
        for event in self._tail.read():
            if event.kind == "step" or event.kind in ENDINGS:
                self.last_step = event
            self.happened.emit(event)
        if state == "interrupted" and self.run.is_elsewhere():
            self._timer.setInterval(SILENT_POLL_MS)
        elif state in ("running", "waiting"):
            self._timer.setInterval(POLL_MS)
        else:
            self._timer.stop()
        if state != self.state:
            self.state = state
            self.state_changed.emit(state)
