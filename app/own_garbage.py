"""Python's cyclic garbage is collected in the window's thread alone.

Automatic collection runs in whatever thread happens to allocate, and there destroys the widgets of closed dialogs along
with their C++ halves; Qt allows that in the window's thread only, and crashes some time later.
"""

from __future__ import annotations

import gc

from PySide6.QtCore import QObject, QTimer

EVERY_MS = 500


class OwnGarbage(QObject):
    """Takes automatic collection's place while it lives; its thread is the one that collects."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._was_on = gc.isenabled()
        gc.disable()
        # What was imported stays: looked at each time, it would make the window stutter.
        gc.freeze()
        self._timer = QTimer(self, interval=EVERY_MS)
        self._timer.timeout.connect(self.look)
        self._timer.start()

    def look(self) -> None:
        """Collect what is due, oldest generation first, as Python would have."""
        counts, limits = gc.get_count(), gc.get_threshold()
        due = [
            age for age, (count, limit) in enumerate(zip(counts, limits, strict=True)) if count > limit > 0
        ]
        if due:
            gc.collect(max(due))

    def stop(self) -> None:
        """Leave it to Python again."""
        self._timer.stop()
        gc.unfreeze()
        if self._was_on:
            gc.enable()
