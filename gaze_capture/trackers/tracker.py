"""The protocol behind which every source of gaze samples stands. Nothing of a vendor is visible from here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gaze_capture.recording import Eyes, Samples, ScreenGeometry

SampleCallback = Callable[[Samples], None]
"""Takes a block of samples (N >= 1), ascending in time. Called on the tracker's own thread: it may only enqueue,
must not raise, and may keep the block."""

Point = tuple[float, float]
"""x and y, normalised to the screen."""
ShowTarget = Callable[[float, float], None]
"""Moves the target on the screen to x, y and returns at once; called on any thread."""
Millimetres = tuple[float, float, float]


@dataclass(frozen=True)
class TrackerEvent:
    """Something that happened to a tracker, other than a sample."""

    time_ns: int
    """Host ``time.monotonic_ns()``."""
    kind: Literal["lost", "restored", "rate", "clock", "note"]
    """``lost`` and ``restored``: the connection; ``rate``: another sampling rate from now on; ``clock``: the device's
    clock jumped or was measured anew."""
    text: str
    """One sentence for the operator."""
    values: dict[str, Any] = field(default_factory=dict)
    """What can be counted of it, as JSON."""


EventCallback = Callable[[TrackerEvent], None]
"""Called on any thread; may only enqueue, must not raise."""


@dataclass(frozen=True)
class ClockOffset:
    """How far the host's clock is ahead of the device's, as last measured."""

    offset_ns: int
    """Host minus device time."""
    uncertainty_ns: int
    """The true offset lies within so much of it."""
    measured_ns: int
    """Host time of the measurement."""


@dataclass(frozen=True)
class EyePositions:
    """Where the eyes are, in mm from the screen's centre: x to the right, y up, z towards the person."""

    time_ns: int
    left_mm: Millimetres | None
    right_mm: Millimetres | None
    """None where the eye is not seen."""

    @property
    def distance_mm(self) -> float | None:
        """Mean distance of the seen eyes from the screen's plane."""
        seen = [eye[2] for eye in (self.left_mm, self.right_mm) if eye is not None]
        return sum(seen) / len(seen) if seen else None


@dataclass(frozen=True)
class CalibrationPoint:
    """What the device says of one calibration target."""

    x: float
    y: float
    left: bool
    """Whether the left eye's data of this point were used."""
    right: bool
    left_error_deg: float | None = None
    """Mean distance of the calibrated gaze from the target, where the device tells it."""
    right_error_deg: float | None = None


@dataclass(frozen=True)
class CalibrationOutcome:
    """What came of a device's own calibration."""

    eyes: Eyes | None
    """The eyes that are calibrated now; None where it failed."""
    points: tuple[CalibrationPoint, ...]
    text: str
    """One sentence for the operator."""


@dataclass(frozen=True)
class Found:
    """A tracker that a search found."""

    kind: str
    """As in :attr:`Tracker.name`."""
    label: str
    """Which one it is, for people."""
    address: str
    """What tells it from others of its kind."""


class Calibrator(Protocol):
    """A device's own calibration. All calls may take seconds: never on the window's thread.

    Raises
    ------
    UserError
        From every method, if the device refuses or is gone.
    """

    can_redo: bool
    """Whether points can be collected again one by one."""

    def begin(self, eyes: Eyes = "both") -> None:
        """Enter calibration; earlier data are forgotten."""

    def collect(self, points: Sequence[Point], show: ShowTarget, stop: threading.Event) -> None:
        """Show each target in turn and collect data while the eyes rest on it, replacing what was there.

        The person is given time to follow the target. Ends early, without an error, once `stop` is set. Where points
        cannot be redone one by one, all must be given.
        """

    def compute(self) -> CalibrationOutcome:
        """Compute the calibration from all collected points, and use it from now on."""

    def end(self) -> None:
        """Leave calibration; does nothing where it was not entered."""

    def save(self) -> bytes | None:
        """Return the calibration in use, for :meth:`restore`; None where the device cannot give it."""

    def restore(self, data: bytes) -> None:
        """Use a calibration that was saved before."""


class Tracker(Protocol):
    """A source of gaze samples."""

    @property
    def name(self) -> str:
        """The kind of tracker, as recordings name it: one lower-case word."""

    @property
    def label(self) -> str:
        """Which one it is, for people: model and serial number where there are any."""

    @property
    def geometry(self) -> ScreenGeometry:
        """The screen that positions are normalised to."""

    @property
    def rate_hz(self) -> float:
        """Nominal samples a second."""

    @property
    def simulated_from(self) -> str | None:
        """What the gaze was made from if no person looks, as in :class:`~gaze_capture.recording.Recording`."""

    @property
    def connected(self) -> bool:
        """Whether the device can be reached now; it may come back."""

    @property
    def ended(self) -> bool:
        """Whether no more samples will come, be it that a replay is over or the tracker was closed."""

    @property
    def clock(self) -> ClockOffset | None:
        """The device's clock against the host's; None before it was measured, or where there is but one clock."""

    @property
    def eyes(self) -> EyePositions | None:
        """Where the eyes were last seen; None where the device does not tell."""

    @property
    def calibrator(self) -> Calibrator | None:
        """The device's own calibration; None where it has none, or none that can be run from here."""

    def open(self) -> None:
        """Connect; may take seconds. Raises UserError if the tracker cannot be used."""

    def subscribe(self, callback: SampleCallback) -> Callable[[], None]:
        """Deliver samples to a callback from now on; returns what ends that, after which it is never called."""

    def watch(self, callback: EventCallback) -> Callable[[], None]:
        """Tell a callback of events from now on; returns what ends that."""

    def expected(self, seconds: float) -> int:
        """Return how many samples should come within some seconds from the first on."""

    def close(self) -> None:
        """Stop and disconnect; does nothing the second time."""
