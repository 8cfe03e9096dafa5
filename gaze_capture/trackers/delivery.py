"""What every tracker does alike: handing samples and events on to whoever asked for them."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, TypeVar

from gaze_capture.errors import UserError
from gaze_capture.recording import Samples, ScreenGeometry
from gaze_capture.trackers.tracker import (
    Calibrator,
    ClockOffset,
    EventCallback,
    EyePositions,
    SampleCallback,
    TrackerEvent,
)

TrackerT = TypeVar("TrackerT", bound="DeliveringTracker")


class DeliveringTracker:
    """A tracker without a source: keeps the callbacks and the state; subclasses fill in the rest.

    A subclass calls :meth:`deliver` from one thread of its own and :meth:`tell` from any; it overrides
    :meth:`_connect`, :meth:`_begin` and :meth:`_disconnect`.
    """

    name = "tracker"
    simulated_from: str | None = None
    clock: ClockOffset | None = None
    eyes: EyePositions | None = None

    def __init__(self, geometry: ScreenGeometry, rate_hz: float) -> None:
        if not 0 < rate_hz < math.inf:
            raise UserError(f"A tracker's rate must be above 0 Hz, not {rate_hz:g}.")
        self.geometry = geometry
        self.rate_hz = rate_hz
        self._callbacks: list[SampleCallback] = []
        self._watchers: list[EventCallback] = []
        # Held while callbacks run, so that unsubscribing can promise silence.
        self._delivering = threading.RLock()
        self._closing = threading.Event()
        self._opened = self._begun = False
        self._connected = False

    @property
    def label(self) -> str:
        """Which one it is, for people."""
        return self.name

    @property
    def calibrator(self) -> Calibrator | None:
        """The device's own calibration, if any."""
        return None

    @property
    def connected(self) -> bool:
        """Whether the device can be reached now."""
        return self._connected and not self.ended

    @property
    def ended(self) -> bool:
        """Whether no more samples will come."""
        return self._closing.is_set()

    def open(self) -> None:
        """Connect; may take seconds.

        Raises
        ------
        UserError
            If the tracker cannot be used.
        """
        if self._opened or self._closing.is_set():
            raise RuntimeError("a tracker is opened once")
        self._connect()
        self._opened = self._connected = True

    def subscribe(self, callback: SampleCallback) -> Callable[[], None]:
        """Deliver samples to a callback from now on; returns what ends that."""
        if not self._opened:
            raise RuntimeError("open the tracker first")
        with self._delivering:
            self._callbacks.append(callback)
        if not self._begun and not self.ended:
            self._begun = True
            self._begin()

        def unsubscribe() -> None:
            with self._delivering, contextlib.suppress(ValueError):
                self._callbacks.remove(callback)

        return unsubscribe

    def watch(self, callback: EventCallback) -> Callable[[], None]:
        """Tell a callback of events from now on; returns what ends that."""
        with self._delivering:
            self._watchers.append(callback)

        def unwatch() -> None:
            with self._delivering, contextlib.suppress(ValueError):
                self._watchers.remove(callback)

        return unwatch

    def deliver(self, block: Samples) -> None:
        """Hand samples (N >= 1) on to all callbacks; from one thread only."""
        with self._delivering:
            for callback in tuple(self._callbacks):
                callback(block)

    def tell(
        self, kind: Literal["lost", "restored", "rate", "clock", "note"], text: str, **values: Any
    ) -> None:
        """Tell all watchers of an event that happens now; ``lost`` and ``restored`` also set `connected`."""
        if kind in ("lost", "restored"):
            self._connected = kind == "restored"
        event = TrackerEvent(time.monotonic_ns(), kind, text, values)
        with self._delivering:
            watchers = tuple(self._watchers)
        for watcher in watchers:
            watcher(event)

    def expected(self, seconds: float) -> int:
        """Return how many samples should come within some seconds from the first on."""
        return math.ceil(seconds * self.rate_hz - 1e-9)

    def close(self) -> None:
        """Stop and disconnect; does nothing the second time."""
        if not self._closing.is_set():
            self._closing.set()
            self._disconnect()

    def __enter__(self: TrackerT) -> TrackerT:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> None:
        """Reach the device; called once."""

    def _begin(self) -> None:
        """Let samples flow; called once, with the first subscription."""

    def _disconnect(self) -> None:
        """Let go of the device; called once."""
