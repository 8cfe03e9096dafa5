"""Calibration in the tracker itself, as Tobii's devices do it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording import Eyes, Floats, ScreenGeometry
from gaze_capture.trackers.tobii_sdk import Computed, Device, Side
from gaze_capture.trackers.tracker import CalibrationOutcome, CalibrationPoint, Point, ShowTarget

SETTLE_S = 0.7
"""The eyes get so long to reach a target before data are collected."""


class CalibratedTracker(Protocol):
    """What the calibration needs of its tracker."""

    @property
    def label(self) -> str:
        """Which one it is, for people."""

    @property
    def connected(self) -> bool:
        """Whether it can be reached now."""

    @property
    def geometry(self) -> ScreenGeometry:
        """The screen."""


class TobiiCalibrator:
    """Calibrates as a Tobii does: it collects data itself while the eyes rest on a target.

    Calibration mode is left whatever happens; where the device is gone, as soon as it is back.
    """

    can_redo = True

    def __init__(self, device: Device, tracker: CalibratedTracker) -> None:
        self._device = device
        self._tracker = tracker
        self._lock = threading.RLock()
        self._entered = False
        self._owes_leaving = False
        self._eyes: Eyes = "both"
        self._eye: Side | None = None
        self._collected: dict[Point, bool] = {}

    def begin(self, eyes: Eyes = "both") -> None:
        """Enter calibration; earlier data are forgotten.

        One eye is calibrated alone where the model can do that; elsewhere both are, and the one chosen is what counts.
        """
        with self._lock:
            self.end()
            self._needs_device()
            self._eyes = eyes
            self._eye = eyes if eyes != "both" and self._device.monocular else None
            self._collected.clear()
            self._device.enter(self._eye is not None)
            self._entered, self._owes_leaving = True, False

    def collect(self, points: Sequence[Point], show: ShowTarget, stop: threading.Event) -> None:
        """Show each target in turn and have the device collect data, twice where it did not see the eyes at first."""
        try:
            for x, y in points:
                if stop.is_set():
                    return
                self._collect((float(x), float(y)), show, stop)
        except BaseException:
            self.end()
            raise

    def _collect(self, point: Point, show: ShowTarget, stop: threading.Event) -> None:
        with self._ready():
            if self._collected.pop(point, False):
                self._device.discard(point, self._eye)
        show(*point)
        if stop.wait(SETTLE_S):
            return
        with self._ready():
            seen = self._device.collect(point, self._eye)
        if seen or not stop.is_set():
            with self._ready():
                self._collected[point] = seen or self._device.collect(point, self._eye)

    def compute(self) -> CalibrationOutcome:
        """Compute the calibration from all collected points, and use it from now on."""
        with self._ready():
            seen = sum(self._collected.values())
            computed = self._device.compute() if seen else Computed(None, ())
            points = tuple(self._point(point, computed) for point in self._collected)
            eyes = self._calibrated(computed, points)
            of = f"{seen} of {len(self._collected)} targets"
            if eyes is None:
                return CalibrationOutcome(None, points, self._failure(computed, of))
            what = "Both eyes are" if eyes == "both" else f"The {eyes} eye alone is"
            return CalibrationOutcome(eyes, points, f"{what} calibrated on {of}.")

    def _failure(self, computed: Computed, of: str) -> str:
        if computed.eyes is not None and self._eyes != "both":
            return (
                f"The {self._eyes} eye was not seen well enough to be calibrated; sit straight and try again."
            )
        return (
            f"The calibration failed, with the eyes seen on {of}: check the distance and glare on glasses, then try "
            "again."
        )

    def _calibrated(self, computed: Computed, points: tuple[CalibrationPoint, ...]) -> Eyes | None:
        """Return the eyes that are calibrated and wanted."""
        if computed.eyes is None:
            return None
        have: set[Side] = {"left", "right"} if computed.eyes == "both" else {computed.eyes}
        if computed.points:
            used: dict[Side, bool] = {
                "left": any(point.left for point in points),
                "right": any(point.right for point in points),
            }
            have = {side for side in have if used[side]}
        if self._eyes != "both":
            have &= {self._eyes}
        if len(have) == 2:
            return "both"
        return have.pop() if have else None

    def _point(self, point: Point, computed: Computed) -> CalibrationPoint:
        """Return what the device says of a target, or what is known of it where the device says nothing."""
        for place, left, right in computed.points:
            # The device keeps single precision.
            if abs(place[0] - point[0]) < 1e-4 and abs(place[1] - point[1]) < 1e-4:
                errors = self._error_deg(point, left), self._error_deg(point, right)
                return CalibrationPoint(*point, len(left) > 0, len(right) > 0, *errors)
        told = self._collected[point] and not computed.points
        left_used, right_used = (told and computed.eyes in ("both", side) for side in ("left", "right"))
        return CalibrationPoint(*point, left_used, right_used)

    def _error_deg(self, point: Point, gaze: Floats) -> float | None:
        if not len(gaze):
            return None
        degrees = self._tracker.geometry.degrees_from_normalised
        return float(np.hypot(*(degrees(gaze) - degrees(np.array(point))).T).mean())

    def end(self) -> None:
        """Leave calibration; does nothing where it was not entered."""
        with self._lock:
            if self._entered:
                self._entered, self._owes_leaving = False, True
                self.settle()

    def settle(self) -> None:
        """Leave calibration mode where that could not be done when it should have been."""
        with self._lock, contextlib.suppress(UserError):
            if self._owes_leaving and not self._entered:
                self._device.leave()
                self._owes_leaving = False

    def save(self) -> bytes | None:
        """Return the calibration in use, as Eye Tracker Manager keeps it."""
        with self._lock:
            self._needs_device()
            return self._device.retrieve() or None

    def restore(self, data: bytes) -> None:
        """Use a calibration that was saved before."""
        with self._lock:
            self._needs_device()
            if not data:
                raise UserError("The saved calibration is empty; calibrate anew.")
            self._device.apply(data)

    def _needs_device(self) -> None:
        if not self._tracker.connected:
            raise UserError(
                f"{self._tracker.label} is not connected: check its cable and power, then try again."
            )

    @contextlib.contextmanager
    def _ready(self) -> Iterator[None]:
        """Be in calibration; leaves it where anything goes wrong."""
        with self._lock:
            if not self._entered:
                raise UserError("The calibration was not begun, or was ended by an error; begin it anew.")
            try:
                self._needs_device()
                yield
            except BaseException:
                self.end()
                raise
