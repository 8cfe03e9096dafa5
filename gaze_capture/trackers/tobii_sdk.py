"""What both packages that bring Tobii's SDK to Python are made to look like.

``tobii_research`` is Tobii's own and exists for CPython 3.10 alone; ``TittaPy_v2`` (package ``tittapy``) wraps the
same SDK for newer ones. Facts are those of tobii_research 2.1.0 and tittapy 2.1.0. The SDK may not be redistributed:
its user installs it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording import Eyes, Floats, Samples
from gaze_capture.trackers.tracker import Millimetres, Point

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")

NoticeKind = Literal["lost", "restored", "rate", "display_area", "faults", "warnings", "overflow", "error"]


@dataclass(frozen=True)
class Corners:
    """The display area's corners in mm, in the tracker's user coordinates: x right, y up, z towards the person."""

    top_left: Millimetres
    top_right: Millimetres
    bottom_left: Millimetres


@dataclass(frozen=True)
class Computed:
    """What the SDK says of a calibration that it computed."""

    eyes: Eyes | None
    """None where it failed."""
    points: tuple[tuple[Point, Floats, Floats], ...]
    """Each target with the calibrated gaze (M, 2) of the left and the right eye that was used, normalised to the
    screen; none at all where the package does not tell."""


@dataclass(frozen=True)
class Listener:
    """Where a device's data go; called on the SDK's thread, under its lock."""

    gaze: Callable[[Samples, Floats], None]
    """Samples (N >= 1) whose ``time_ns`` is the SDK's system clock, and each eye's last origin (2, 3) in mm."""
    synchronised: Callable[[int, int, int], None]
    """System time of a request, device time at its arrival, system time of the response; in us."""
    noticed: Callable[[NoticeKind, Any], None]


class Device(Protocol):
    """A connected eye tracker. Every call may take seconds and raises UserError if it does not succeed."""

    label: str
    calibratable: bool
    monocular: bool
    """Whether one eye can be calibrated alone."""

    def system_us(self) -> int:
        """Return the SDK's system clock in us."""

    def rate_hz(self) -> float:
        """Return the gaze output frequency in use."""

    def rates_hz(self) -> tuple[float, ...]:
        """Return the gaze output frequencies there are."""

    def set_rate(self, rate_hz: float) -> None:
        """Set the gaze output frequency."""

    def corners(self) -> Corners:
        """Return the display area."""

    def listen(self, listener: Listener) -> None:
        """Pass on time synchronisation and notices from now on; called once."""

    def begin_gaze(self) -> None:
        """Pass on gaze from now on; called once."""

    def stop(self) -> None:
        """Pass on nothing any more. Never raises. Not to be called on the SDK's thread, which it waits for."""

    def enter(self, monocular: bool) -> None:
        """Enter calibration mode, also where an earlier program left the device in it."""

    def leave(self) -> None:
        """Leave calibration mode."""

    def collect(self, point: Point, eye: Side | None) -> bool:
        """Collect calibration data while the eyes rest on a point; False where they were not seen."""

    def discard(self, point: Point, eye: Side | None) -> None:
        """Forget what was collected at a point."""

    def compute(self) -> Computed:
        """Compute the calibration and use it."""

    def retrieve(self) -> bytes:
        """Return the calibration in use."""

    def apply(self, data: bytes) -> None:
        """Use a calibration that was retrieved before."""


Failure = Literal["unreachable", "licence", "unsupported", "display_area", "refused"]

ADVICE: dict[Failure, str] = {
    "unreachable": "it cannot be reached; check its cable and power, then try again",
    "licence": "its licence does not allow it; ask Tobii for one, or install it with Eye Tracker Manager",
    "unsupported": "this model does not support it",
    "display_area": "its display area is not valid; set it up for this screen in Tobii's Eye Tracker Manager",
    "refused": "the tracker refused; close other programs that use it, then try again",
}


@contextlib.contextmanager
def asked(kind_of: Callable[[Exception], Failure], what: str, done: str) -> Iterator[None]:
    """Tell what cannot be done with a tracker in one sentence, whatever the SDK raises."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text = " ".join(str(getattr(error, "value", error)).split())
        raise UserError(f"{what} cannot {done}: {ADVICE[kind_of(error)]} ({text.rstrip('.')}).") from error


def positions(pairs: list[Any]) -> Floats:
    """Return pairs as (M, 2), also where there are none."""
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)
