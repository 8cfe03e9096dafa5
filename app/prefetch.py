"""Scenes built ahead of the reader, in a thread of their own."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QObject, QRunnable, QThreadPool, QTimer

from app.scene import Key, SceneCache
from gaze_capture.errors import UserError

AFTER_MS = 10


class _Build(QRunnable):
    def __init__(self, cache: SceneCache, key: Key) -> None:
        super().__init__()
        self._cache, self._key = cache, key

    def run(self) -> None:
        """Build the scene; what cannot be read will say so when it is shown."""
        try:
            self._cache.get(*self._key)
        except UserError:
            return


class Prefetcher(QObject):
    """Builds the scenes asked for last, nearest first; earlier requests that were not begun are dropped."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(1)
        self._wanted: tuple[SceneCache, Sequence[Key]] | None = None
        # What is asked for now must be painted first; two threads would share the time.
        self._later = QTimer(self, singleShot=True, interval=AFTER_MS)
        self._later.timeout.connect(self._start)

    def request(self, cache: SceneCache, keys: Sequence[Key]) -> None:
        """Build scenes soon."""
        self._pool.clear()
        self._wanted = (cache, keys)
        self._later.start()

    def _start(self) -> None:
        if self._wanted is not None:
            cache, keys = self._wanted
            for key in keys:
                if not cache.has(key):
                    self._pool.start(_Build(cache, key))

    def stop(self) -> None:
        """Drop what waits and wait for what is being built."""
        self._later.stop()
        self._pool.clear()
        self._pool.waitForDone()
