"""Notices what other windows and computers add to the open study, and when its folder goes away."""

from __future__ import annotations

import time
from collections.abc import Callable

from PySide6.QtCore import QObject, QTimer, Signal

from app.latest import Latest
from gaze_capture.errors import UserError
from segmentation.study import Study

EVERY_MS = 3000
SHARE_OF_TIME = 0.05
"""On a slow share looking takes longer, and is done as much more seldom."""


class StudyWatch(QObject):
    """Looks at names and times every few seconds, in a thread; never while `busy` says that it would disturb."""

    changed = Signal()
    """Something came in from elsewhere."""
    lost = Signal(str)
    """The study cannot be reached; told once, in a sentence."""
    found = Signal()
    """It can be reached again."""

    def __init__(self, busy: Callable[[], bool], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._busy = busy
        self._study: Study | None = None
        self._is_lost = False
        self._latest = Latest(self)
        self._latest.answered.connect(self._answered)
        self._latest.failed.connect(lambda sentence, _: self._answered((sentence, 0.0)))
        self._timer = QTimer(self, singleShot=True, interval=EVERY_MS)
        self._timer.timeout.connect(self.look)

    def watch(self, study: Study) -> None:
        """Watch a study from now on."""
        self._study = study
        self._is_lost = False
        self._timer.start(EVERY_MS)

    def look(self) -> None:
        """Look now, unless that would disturb."""
        study = self._study
        if study is None:
            return
        if self._busy():
            self._timer.start(EVERY_MS)
            return

        def ask() -> tuple[bool | str, float]:
            begun = time.monotonic()
            try:
                news: bool | str = study.changed_elsewhere()
            except UserError as error:
                news = str(error)
            return news, time.monotonic() - begun

        self._latest.ask(ask)

    def _answered(self, answer: tuple[bool | str, float]) -> None:
        news, seconds = answer
        self._timer.start(max(EVERY_MS, round(seconds / SHARE_OF_TIME * 1000)))
        if self._busy():
            return
        if isinstance(news, str):
            if not self._is_lost:
                self._is_lost = True
                self.lost.emit(news)
            return
        if self._is_lost:
            self._is_lost = False
            self.found.emit()
        elif news:
            self.changed.emit()

    def stop(self) -> None:
        """Look no more."""
        self._study = None
        self._timer.stop()
        self._latest.stop()
