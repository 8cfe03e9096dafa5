"""A device's calibration off the window's thread: its calls may take seconds, and come one after the other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

from PySide6.QtCore import QObject, Signal

from app.dialogs import in_background
from gaze_capture.errors import UserError
from gaze_capture.recording import Eyes
from gaze_capture.trackers.tracker import Calibrator, Point


class CalibratorCalls(QObject):
    """Runs a calibrator's blocking calls in a thread; each waits for the one before it.

    Once entered, calibration is left again whatever happens: by :meth:`end` or :meth:`leave`, or by a
    :meth:`calibrate` that was stopped or failed.
    """

    target_shown = Signal(float, float)
    """The device wants the target there."""
    calibrated = Signal(object)
    """A CalibrationOutcome; the device is still in calibration, so that points can be collected again."""
    stopped = Signal()
    """Collecting ended early, as asked for, and calibration was left."""
    failed = Signal(str)
    """A sentence; calibration was left."""

    def __init__(self, calibrator: Calibrator, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._calibrator = calibrator
        self._waiting: list[tuple[Callable[[], Any], Callable[[Any], object]]] = []
        self._running = False
        self._done: Callable[[Any], object] = self._on_calibrated
        self._result: object = None
        self._problem: str | None = None
        self._stop = threading.Event()
        # Held by threads around calls of the device, and with it whether it is in calibration.
        self._device = threading.Lock()
        self._entered = False

    def calibrate(self, points: Sequence[Point], eyes: Eyes, *, redo: bool) -> None:
        """Collect data on targets and compute; `redo`: beside what was collected on the others before."""
        self._stop = stop = threading.Event()
        calibrator, points = self._calibrator, tuple(points)

        def work() -> object:
            with self._device:
                try:
                    if not (redo and self._entered):
                        self._entered = True
                        calibrator.begin(eyes)
                    calibrator.collect(points, self.target_shown.emit, stop)
                    outcome = None if stop.is_set() else calibrator.compute()
                except BaseException:
                    with contextlib.suppress(UserError):
                        self._end()
                    raise
                if stop.is_set():
                    self._end()
                    return None
                return outcome

        self._call(work, self._on_calibrated)

    def _end(self) -> None:
        """Leave calibration; the device is held."""
        if self._entered:
            self._entered = False
            self._calibrator.end()

    def stop(self) -> None:
        """Let a collection end early; the thread leaves calibration by itself."""
        self._stop.set()

    def end(self, done: Callable[[Any], object]) -> None:
        """Leave calibration where it was entered; `done` is called in any case."""

        def work() -> None:
            with self._device:
                self._end()

        self._call(work, done)

    def leave(self) -> None:
        """Stop what is running and leave calibration, whoever is still there to see it."""
        self.stop()
        self._waiting.clear()

        def work(_: object) -> None:
            with self._device, contextlib.suppress(UserError):
                self._end()

        in_background(work, "", lambda _: None, lambda *_: None)

    def call(self, function: Callable[[Calibrator], Any], done: Callable[[Any], object]) -> None:
        """Run a function of the calibrator, and hand on its result."""

        def work() -> object:
            with self._device:
                return function(self._calibrator)

        self._call(work, done)

    def _call(self, function: Callable[[], Any], done: Callable[[Any], object]) -> None:
        self._waiting.append((function, done))
        self._next()

    def _next(self) -> None:
        if self._running or not self._waiting:
            return
        function, self._done = self._waiting.pop(0)
        self._running, self._result, self._problem = True, None, None
        task = in_background(
            lambda _: function(), self.tr("The calibration"), self._on_returned, self._on_raised
        )
        task.ended.connect(self._on_ended)

    def _on_returned(self, result: object) -> None:
        self._result = result

    def _on_raised(self, sentence: str, _details: str) -> None:
        self._problem = sentence

    def _on_ended(self) -> None:
        # Only now: whoever is told may call again at once.
        self._running = False
        if self._problem is not None:
            self._waiting.clear()
            self.failed.emit(self._problem)
        else:
            self._done(self._result)
        self._next()

    def _on_calibrated(self, outcome: object) -> None:
        if outcome is None:
            self.stopped.emit()
        else:
            self.calibrated.emit(outcome)
