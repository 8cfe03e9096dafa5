"""The calibration that a server of the Open Gaze API runs, with targets drawn by the caller."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording import Eyes, ScreenGeometry
from gaze_capture.trackers.opengaze import Message
from gaze_capture.trackers.tracker import CalibrationOutcome, CalibrationPoint, Point, ShowTarget

SETTLE_S = 0.8
"""The eyes get so long to reach a calibration target ..."""
COLLECT_S = 1.0
"""... and are measured on it for so long."""
GIVE_UP_S = 15.0
"""Calibration has failed when the server tells of no further target for so long."""


class CalibratedTracker(Protocol):
    """What the calibration needs of its tracker."""

    calibration_messages: queue.SimpleQueue[Message] | None
    """Takes the device's CAL messages while it calibrates."""

    @property
    def label(self) -> str:
        """Which one it is, for people."""

    @property
    def connected(self) -> bool:
        """Whether it can be reached now."""

    @property
    def geometry(self) -> ScreenGeometry:
        """The screen."""

    def request(self, verb: str, what: str, **values: object) -> Message:
        """Send a SET or GET and return the answer."""


class GazepointCalibrator:
    """The server's own calibration; it takes all targets in one go and cannot redo a single one."""

    can_redo = False

    def __init__(self, tracker: CalibratedTracker) -> None:
        self._tracker = tracker
        self._eyes: Eyes = "both"
        self._entered = False
        self._result: Message | None = None

    def begin(self, eyes: Eyes = "both") -> None:
        """Enter calibration; earlier data are forgotten. The server always measures both eyes."""
        self._eyes = eyes
        self._result = None
        self._tracker.request("SET", "CALIBRATE_SHOW", STATE=0)
        self._tracker.request("SET", "CALIBRATE_DELAY", VALUE=SETTLE_S)
        self._tracker.request("SET", "CALIBRATE_TIMEOUT", VALUE=COLLECT_S)
        self._entered = True

    def collect(self, points: Sequence[Point], show: ShowTarget, stop: threading.Event) -> None:
        """Let the server measure all targets, each being shown when it says so."""
        if not self._entered:
            raise UserError("The calibration was not begun.")
        request = self._tracker.request
        self._result = None
        request("SET", "CALIBRATE_CLEAR")
        for x, y in points:
            request("SET", "CALIBRATE_ADDPOINT", X=f"{x:.5f}", Y=f"{y:.5f}")
        messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._tracker.calibration_messages = messages
        try:
            request("SET", "CALIBRATE_START", STATE=1)
            self._follow(messages, show, stop)
        finally:
            self._tracker.calibration_messages = None
            if self._result is None and self._tracker.connected:
                request("SET", "CALIBRATE_START", STATE=0)

    def _follow(self, messages: queue.SimpleQueue[Message], show: ShowTarget, stop: threading.Event) -> None:
        heard = time.monotonic()
        while not stop.is_set():
            try:
                message = messages.get(timeout=0.05)
            except queue.Empty:
                if not self._tracker.connected:
                    raise UserError(
                        f"The {self._tracker.label} was lost during calibration: begin anew."
                    ) from None
                if time.monotonic() - heard > GIVE_UP_S:
                    raise UserError(
                        f"The {self._tracker.label} does not go on with its calibration: restart Gazepoint Control."
                    ) from None
                continue
            heard = time.monotonic()
            x, y = message.number("CALX"), message.number("CALY")
            if message.id == "CALIB_START_PT" and x is not None and y is not None:
                show(x, y)
            elif message.id == "CALIB_RESULT":
                self._result = message
                return

    def compute(self) -> CalibrationOutcome:
        """Return what the server computed."""
        if self._result is None:
            return CalibrationOutcome(None, (), "The calibration was not finished.")
        summary = self._tracker.request("GET", "CALIBRATE_RESULT_SUMMARY")
        points = _points(self._result, self._tracker.geometry)
        left, right = (sum(getattr(point, eye) for point in points) for eye in ("left", "right"))
        enough = max(1, (len(points) + 1) // 2)
        able: dict[Eyes, bool] = {
            "both": left >= enough and right >= enough, "left": left >= enough, "right": right >= enough
        }  # fmt: skip
        wanted: tuple[Eyes, ...] = (self._eyes,) if self._eyes != "both" else ("both", "left", "right")
        eyes = next((choice for choice in wanted if able[choice]), None)
        valid, error_px = summary.number("VALID_POINTS"), summary.number("AVE_ERROR")
        if eyes is None or valid == 0:
            return CalibrationOutcome(None, points, "The eyes were seen on too few targets.")
        used = sum(point.left or point.right for point in points)
        told = "" if error_px is None else f", mean error {error_px:.0f} pixels"
        return CalibrationOutcome(eyes, points, f"Calibrated on {used} of {len(points)} targets{told}.")

    def end(self) -> None:
        """Leave calibration; does nothing where it was not entered."""
        self._entered = False

    def save(self) -> bytes | None:
        """Return None: the server cannot give its calibration."""
        return None

    def restore(self, data: bytes) -> None:
        """Refuse: the server cannot take a calibration."""
        raise UserError("A Gazepoint tracker keeps its calibration to itself; calibrate anew.")


def _points(result: Message, geometry: ScreenGeometry) -> tuple[CalibrationPoint, ...]:
    points = []
    number = 1
    while (x := result.number(f"CALX{number}")) is not None and (
        y := result.number(f"CALY{number}")
    ) is not None:
        target = geometry.degrees_from_normalised(np.array([x, y]))
        errors: list[float | None] = []
        for side in "LR":
            seen = [result.number(f"{side}{axis}{number}") for axis in "XY"]
            valid = result.number(f"{side}V{number}") == 1 and None not in seen
            off = (
                geometry.degrees_from_normalised(np.array(seen, dtype=np.float64)) - target if valid else None
            )
            errors.append(None if off is None else float(np.hypot(*off)))
        points.append(CalibrationPoint(x, y, errors[0] is not None, errors[1] is not None, *errors))
        number += 1
    return tuple(points)
