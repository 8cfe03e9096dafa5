"""What every page is: it knows the session, follows its changes while in view, and handles its own keys."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import QWidget

from app.jobs import Task
from app.session import Session


class Page(QWidget):
    """One of the rail's pages; `refresh` is called when it comes into view and when the study changes meanwhile."""

    task_wanted = Signal(object)
    """A Task the window should start, show and report on."""
    error = Signal(str, str)
    """A sentence, and details."""
    lost = Signal(str)
    """A sentence on work that is not on the disk: it stays in view whichever page is gone to."""
    notice = Signal(str)
    hush = Signal()
    """Whatever message is shown would be in the way."""
    explain_wanted = Signal(object)
    """Ids of the images listed, or None for the whole study: who describes them is to be asked."""
    page_wanted = Signal(str)
    """Name of another page."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._stale = True
        session.changed.connect(self._on_change)

    def refresh(self, what: str) -> None:
        """Show the session's state; `what` changed (see `app.session.Change`)."""
        raise NotImplementedError

    def holds(self) -> str:
        """Return why the page must not be left now, in a sentence; empty where it may."""
        return ""

    def stop(self) -> None:
        """End threads and timers; the window closes."""

    def start_task(self, task: Task) -> None:
        """Hand a task to the window."""
        self.task_wanted.emit(task)

    def _on_change(self, what: str) -> None:
        if self.isVisible():
            self.refresh(what)
        else:
            self._stale = True

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up on what changed out of view."""
        super().showEvent(event)
        if self._stale:
            self._stale = False
            self.refresh("study")

    def hideEvent(self, event: QHideEvent) -> None:
        """Note that changes may pass unseen."""
        super().hideEvent(event)
        self._stale = True
