"""Tobii's own package as a device."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gaze_capture.recording import SAMPLE, Eyes, Floats, Samples
from gaze_capture.trackers.tobii_sdk import (
    SIDES,
    Computed,
    Corners,
    Failure,
    Listener,
    Side,
    asked,
    positions,
)
from gaze_capture.trackers.tracker import Point

_FAILURES: dict[str, Failure] = {
    "EyeTrackerConnectionFailedError": "unreachable",
    "EyeTrackerUnavailableError": "unreachable",
    "EyeTrackerLicenseError": "licence",
    "EyeTrackerSavedLicenseFailedToApplyError": "licence",
    "EyeTrackerFeatureNotSupportedError": "unsupported",
    "EyeTrackerFeatureDeprecatedError": "unsupported",
    "EyeTrackerDisplayAreaNotValidError": "display_area",
}


def failure_of(error: Exception) -> Failure:
    """Return what an exception of the package means."""
    return _FAILURES.get(type(error).__name__, "refused")


def _failure_to_connect(error: Exception) -> Failure:
    # Where nothing is, the SDK tells of an internal error.
    failure = failure_of(error)
    return "unreachable" if failure == "refused" else failure


class ResearchDevice:
    """A tracker through ``tobii_research``, which calls back on threads of its own."""

    def __init__(self, module: Any, address: str) -> None:
        self._sdk = module
        self.label = f"The Tobii at {address}"
        with asked(_failure_to_connect, self.label, "be connected to"):
            self._tracker = module.EyeTracker(address)
        self.label = f"{self._tracker.model} {self._tracker.serial_number}".strip()
        can = self._tracker.device_capabilities
        self.calibratable = module.CAPABILITY_CAN_DO_SCREEN_BASED_CALIBRATION in can
        self.monocular = self.calibratable and module.CAPABILITY_CAN_DO_MONOCULAR_CALIBRATION in can
        self._listener: Listener | None = None
        self._subscribed: list[tuple[str, Callable[[Any], None]]] = []
        self._calibration: Any = None

    def _asked(self, done: str) -> contextlib.AbstractContextManager[None]:
        return asked(failure_of, self.label, done)

    def system_us(self) -> int:
        """Return the SDK's system clock in us."""
        return int(self._sdk.get_system_time_stamp())

    def rate_hz(self) -> float:
        """Return the gaze output frequency in use."""
        with self._asked("tell its sampling rate"):
            return float(self._tracker.get_gaze_output_frequency())

    def rates_hz(self) -> tuple[float, ...]:
        """Return the gaze output frequencies there are."""
        with self._asked("tell its sampling rates"):
            return tuple(map(float, self._tracker.get_all_gaze_output_frequencies()))

    def set_rate(self, rate_hz: float) -> None:
        """Set the gaze output frequency."""
        with self._asked(f"measure at {rate_hz:g} Hz"):
            self._tracker.set_gaze_output_frequency(rate_hz)

    def corners(self) -> Corners:
        """Return the display area."""
        with self._asked("tell its display area"):
            area = self._tracker.get_display_area()
            return Corners(area.top_left, area.top_right, area.bottom_left)

    def listen(self, listener: Listener) -> None:
        """Pass on time synchronisation and notices from now on."""
        self._listener, sdk = listener, self._sdk
        noticed = listener.noticed

        def synchronised(data: dict[str, Any]) -> None:
            names = ("system_request_time_stamp", "device_time_stamp", "system_response_time_stamp")
            listener.synchronised(*(int(data[name]) for name in names))

        def failed(data: dict[str, Any]) -> None:
            if data["error"] != sdk.STREAM_ERROR_CONNECTION_LOST:
                noticed("error", f"{data['error']}: {data['message']}")

        with self._asked("be listened to"):
            for kind, callback in (
                (sdk.EYETRACKER_NOTIFICATION_CONNECTION_LOST, lambda data: noticed("lost", None)),
                (sdk.EYETRACKER_NOTIFICATION_CONNECTION_RESTORED, lambda data: noticed("restored", None)),
                (
                    sdk.EYETRACKER_NOTIFICATION_GAZE_OUTPUT_FREQUENCY_CHANGED,
                    lambda data: noticed("rate", float(data["gaze_output_frequency"])),
                ),
                (
                    sdk.EYETRACKER_NOTIFICATION_DISPLAY_AREA_CHANGED,
                    lambda data: noticed("display_area", None),
                ),
                (
                    sdk.EYETRACKER_NOTIFICATION_DEVICE_FAULTS,
                    lambda data: noticed("faults", str(data["faults"])),
                ),
                (
                    sdk.EYETRACKER_NOTIFICATION_DEVICE_WARNINGS,
                    lambda data: noticed("warnings", str(data["warnings"])),
                ),
                (
                    sdk.EYETRACKER_NOTIFICATION_STREAM_BUFFER_OVERFLOW,
                    lambda data: noticed("overflow", str(data["notification_source_stream"])),
                ),
                (sdk.EYETRACKER_STREAM_ERRORS, failed),
                (sdk.EYETRACKER_TIME_SYNCHRONIZATION_DATA, synchronised),
            ):
                self._subscribe(kind, callback)

    def begin_gaze(self) -> None:
        """Pass on gaze from now on."""
        assert self._listener is not None
        deliver = self._listener.gaze
        with self._asked("deliver gaze"):
            self._subscribe(self._sdk.EYETRACKER_GAZE_DATA, lambda data: deliver(*_of_dictionary(data)))

    def _subscribe(self, kind: str, callback: Callable[[Any], None]) -> None:
        self._tracker.subscribe_to(kind, callback, as_dictionary=True)
        self._subscribed.append((kind, callback))

    def stop(self) -> None:
        """Pass on nothing any more."""
        while self._subscribed:
            # A device that is gone refuses; there is nothing left to end then.
            with contextlib.suppress(Exception):
                self._tracker.unsubscribe_from(*self._subscribed.pop())

    def enter(self, monocular: bool) -> None:
        """Enter calibration mode."""
        with self._asked("be calibrated"):
            kind = (
                self._sdk.ScreenBasedMonocularCalibration if monocular else self._sdk.ScreenBasedCalibration
            )
            calibration = kind(self._tracker)
            try:
                calibration.enter_calibration_mode()
            except self._sdk.EyeTrackerInvalidOperationError:
                # A program that crashed has left it there.
                calibration.leave_calibration_mode()
                calibration.enter_calibration_mode()
            self._calibration = calibration

    def leave(self) -> None:
        """Leave calibration mode."""
        with self._asked("leave its calibration"):
            self._calibration.leave_calibration_mode()

    def _point(self, point: Point, eye: Side | None) -> tuple[Any, ...]:
        names = {"left": self._sdk.SELECTED_EYE_LEFT, "right": self._sdk.SELECTED_EYE_RIGHT}
        return point if eye is None else (*point, names[eye])

    def collect(self, point: Point, eye: Side | None) -> bool:
        """Collect calibration data while the eyes rest on a point."""
        with self._asked("collect calibration data"):
            status = self._calibration.collect_data(*self._point(point, eye))
        return bool(status != self._sdk.CALIBRATION_STATUS_FAILURE)

    def discard(self, point: Point, eye: Side | None) -> None:
        """Forget what was collected at a point."""
        with self._asked("discard calibration data"):
            self._calibration.discard_data(*self._point(point, eye))

    def compute(self) -> Computed:
        """Compute the calibration and use it."""
        with self._asked("compute a calibration"):
            result = self._calibration.compute_and_apply()
        names: dict[str, Eyes] = {
            self._sdk.CALIBRATION_STATUS_SUCCESS: "both",
            self._sdk.CALIBRATION_STATUS_SUCCESS_LEFT_EYE: "left",
            self._sdk.CALIBRATION_STATUS_SUCCESS_RIGHT_EYE: "right",
        }
        used = self._sdk.VALIDITY_VALID_AND_USED

        def seen(samples: Any, side: Side) -> Floats:
            eyes = (getattr(sample, f"{side}_eye") for sample in samples)
            return positions([eye.position_on_display_area for eye in eyes if eye.validity == used])

        points = tuple(
            (
                (float(point.position_on_display_area[0]), float(point.position_on_display_area[1])),
                seen(point.calibration_samples, "left"),
                seen(point.calibration_samples, "right"),
            )
            for point in result.calibration_points
        )
        return Computed(names.get(result.status), points)

    def retrieve(self) -> bytes:
        """Return the calibration in use."""
        with self._asked("give its calibration"):
            return bytes(self._tracker.retrieve_calibration_data() or b"")

    def apply(self, data: bytes) -> None:
        """Use a calibration that was retrieved before."""
        with self._asked("use the saved calibration"):
            self._tracker.apply_calibration_data(data)


def _of_dictionary(data: dict[str, Any]) -> tuple[Samples, Floats]:
    """Return one sample (1) and the eyes' origins (2, 3) of a gaze dictionary."""
    nowhere = (math.nan, math.nan, math.nan)
    gaze: list[float] = []
    pupils, origins = [], []
    for side in SIDES:
        gaze += (
            data[f"{side}_gaze_point_on_display_area"] if data[f"{side}_gaze_point_validity"] else nowhere[:2]
        )
        pupils.append(data[f"{side}_pupil_diameter"] if data[f"{side}_pupil_validity"] else math.nan)
        valid = data[f"{side}_gaze_origin_validity"]
        origins.append(data[f"{side}_gaze_origin_in_user_coordinate_system"] if valid else nowhere)
    system_ns, device_ns = data["system_time_stamp"] * 1000, data["device_time_stamp"] * 1000
    return np.array([(system_ns, device_ns, *gaze, *pupils)], dtype=SAMPLE), np.array(
        origins, dtype=np.float64
    )
