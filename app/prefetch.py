"""Scenes built ahead of the reader, in a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from PySide6.QtCore import QObject, QThreadPool, QTimer

from app.scene import Key, SceneCache
from gaze_capture.errors import UserError

AFTER_MS = 10


class Prefetcher(QObject):
    """Builds the scenes asked for last, nearest first; earlier requests that were not begun are dropped."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(1)
        self._lock = threading.Lock()
        self._wanted: list[tuple[SceneCache, Key]] = []
        self._building = False
        # What is asked for now must be painted first; two threads would share the time. Where one is at it anyway,
        # the reader is quicker than it, and it goes straight on.
        self._later = QTimer(self, singleShot=True, interval=AFTER_MS)
        self._later.timeout.connect(self._start)

    def request(self, cache: SceneCache, keys: Sequence[Key]) -> None:
        """Build scenes soon."""
        with self._lock:
            self._wanted = [(cache, key) for key in keys]
        self._later.start()

    def _start(self) -> None:
        with self._lock:
            if self._building or not self._wanted:
                return
            self._building = True
        self._pool.start(self._build)

    def _build(self) -> None:
        while (wanted := self._take()) is not None:
            cache, key = wanted
            if cache.has(key):
                continue
            try:
                cache.get(*key)
            except UserError:
                continue  # It is said when it is shown.
            except BaseException:
                with self._lock:
                    self._building = False
                raise

    def _take(self) -> tuple[SceneCache, Key] | None:
        with self._lock:
            self._building = bool(self._wanted)
            return self._wanted.pop(0) if self._wanted else None

    def stop(self) -> None:
        """Drop what waits and wait for what is being built."""
        self._later.stop()
        with self._lock:
            self._wanted = []
        self._pool.waitForDone()
