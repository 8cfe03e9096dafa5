"""The synthetic clinician's looks, drawn off the window's thread; the simulated tracker follows them."""

from __future__ import annotations

from PySide6.QtCore import QObject, QRunnable, QThreadPool, Signal

from app.sitting import simulated_look
from gaze_capture.errors import UserError
from gaze_capture.recording import Placement
from gaze_capture.trackers.simulated import SimulatedTracker
from segmentation.study import Study


class _Look(QRunnable):
    def __init__(
        self, looks: SimulatedLooks, study: Study, tracker: SimulatedTracker, placement: Placement, seed: int
    ) -> None:
        super().__init__()
        self._looks, self._study, self._tracker = looks, study, tracker
        self._placement, self._seed = placement, seed

    def run(self) -> None:
        """Compute and follow."""
        placement = self._placement
        try:
            script, presence = simulated_look(
                self._study,
                placement.image_id,
                # Viewing freely, it looks for the first target: that is what such gaze counts for.
                placement.target_id or self._study.targets[0].id,
                placement.image_from_screen,
                self._tracker.geometry,
                self._seed,
            )
        except UserError as error:
            self._looks.failed.emit(str(error))
            return
        self._tracker.follow(script)
        self._looks.drawn.emit(placement, script.end_ms, presence)


class SimulatedLooks(QObject):
    """Draws a look for each placement; those asked for and not begun are dropped when another is."""

    drawn = Signal(object, float, object)
    """The Placement, the time until the look ends in ms, and the Presence that the clinician will state."""
    failed = Signal(str)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(1)

    def draw(self, study: Study, tracker: SimulatedTracker, placement: Placement, seed: int) -> None:
        """Draw a look and have the tracker follow it."""
        self._pool.clear()
        self._pool.start(_Look(self, study, tracker, placement, seed))

    def clear(self) -> None:
        """Drop what was not begun."""
        self._pool.clear()

    def stop(self) -> None:
        """Wait for what is being drawn."""
        self._pool.clear()
        self._pool.waitForDone()
