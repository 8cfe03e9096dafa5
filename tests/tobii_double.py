"""Doubles of ``tobii_research`` 2.1.0 and ``TittaPy_v2`` 2.1.0 before one piece of pretended hardware.

They speak the packages' own surface: names, arguments, exceptions, dictionary keys, callbacks on the SDK's thread under
its lock, errors of state. tests/test_tobii.py compares both with the real packages wherever those can be imported. What
the real SDK answers with a deadlock or a crash is kept in :attr:`Hardware.misuse`, which tests want empty.
"""

from __future__ import annotations

import enum
import functools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

EYE_DISTANCE_MM = 650.0
BOTH = frozenset({"left", "right"})
NAN2, NAN3 = (float("nan"),) * 2, (float("nan"),) * 3


class StatusError(Exception):
    """A status of the C SDK other than ok."""

    def __init__(self, code: int, name: str) -> None:
        super().__init__(name)
        self.code, self.status = code, name


def status_error(name: str) -> StatusError:
    return StatusError(STATUS[name], name)


STATUS = {
    "ok": 0, "invalid_parameter": 10, "invalid_operation": 11, "display_area_not_valid": 14,
    "saved_license_failed_to_apply": 18, "se_internal": 200, "se_insufficient_license": 201, "se_not_supported": 202,
    "se_not_available": 203, "se_connection_failed": 204, "se_calibration_already_started": 210,
    "se_calibration_not_started": 211, "se_operation_failed": 214, "se_calibration_busy": 216,
}  # fmt: skip


class Hardware:
    """One eye tracker: what happens to it, and what it says of itself."""

    def __init__(
        self,
        rate_hz: float = 300.0,
        address: str = "tet-tcp://172.28.195.1",
        *,
        monocular: bool = True,
        capabilities: tuple[str, ...] = (
            "can_set_display_area",
            "has_gaze_data",
            "can_do_screen_based_calibration",
        ),
    ) -> None:
        self.address, self.model, self.serial = address, "Tobii Pro Spectrum", "TPSP1-010106043102"
        self.capabilities = (*capabilities, *(("can_do_monocular_calibration",) if monocular else ()))
        self.rate_hz = rate_hz
        self.rates_hz = (60.0, 120.0, 150.0, 300.0, 600.0)
        # A screen of 531 x 299 mm, leaning back by 20 degrees above a tracker in the origin.
        tilt = np.radians(20.0)
        self.axes = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
        self.corners = {
            name: self._corner(x, y)
            for name, x, y in (("top_left", -1, 1), ("top_right", 1, 1), ("bottom_left", -1, -1))
        }
        self.device_ahead_us = 77_000_000
        self.system_ahead_us = 0
        self.round_trip_us = 400
        self.sync_every_s = 0.05
        self.seen: Callable[[int], frozenset[str]] = lambda number: BOTH
        self.stale = False
        """Whether what is invalid holds numbers, and not NaN."""
        self.refuse: dict[str, str] = {}
        """Operation -> status with which it is refused from now on."""
        self.plugged = True
        self.misuse: list[str] = []
        # Calibration
        self.calibrating = False
        self.entered_monocular: bool | None = None
        self.collected: dict[tuple[float, float], frozenset[str]] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.blind_at: dict[tuple[float, float], int] = {}
        """Point -> how many times collecting there fails."""
        self.calibration = b"factory"
        self.computed: frozenset[str] | None = None
        """The eyes that computing succeeds for; None: those that were seen."""
        self.sdk_thread = 0
        self.streams: dict[str, list[Callable[[dict[str, Any]], None]]] = {}
        self.delivered = 0
        self._lock = threading.RLock()
        self._notices: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        self._off = threading.Event()
        self._thread = threading.Thread(target=self._run, name="SDK", daemon=True)
        self._thread.start()

    def _corner(self, x: float, y: float) -> tuple[float, float, float]:
        place = np.array([0.0, 160.0, 40.0]) + np.array([x * 265.5, y * 149.5, 0.0]) @ self.axes.T
        return (float(place[0]), float(place[1]), float(place[2]))

    @property
    def screen_centre(self) -> Any:
        return (np.array(self.corners["top_right"]) + np.array(self.corners["bottom_left"])) / 2

    def switch_off(self) -> None:
        self._off.set()
        self._thread.join()

    def unplug(self) -> None:
        self.plugged = False
        self.notify("connection_lost")

    def replug(self) -> None:
        self.plugged = True
        self.notify("connection_restored")

    def set_rate(self, rate_hz: float) -> None:
        self.rate_hz = rate_hz
        self.notify("gaze_output_frequency_changed", gaze_output_frequency=rate_hz)

    def notify(self, kind: str, **values: Any) -> None:
        self._notices.put((kind, values))

    def system_us(self) -> int:
        return time.monotonic_ns() // 1000 + self.system_ahead_us

    # Calls of the SDK

    def ask(self, operation: str) -> None:
        """Begin an operation; raises the status with which it is refused."""
        if threading.get_ident() == self.sdk_thread:
            self.misuse.append(f"{operation} on the SDK's thread, which waits for itself")
        if not self.plugged:
            raise status_error("se_connection_failed")
        if operation in self.refuse:
            raise status_error(self.refuse[operation])

    def subscribe(self, stream: str, callback: Callable[[dict[str, Any]], None]) -> None:
        self.ask(f"subscribe {stream}")
        with self._lock:
            self.streams.setdefault(stream, []).append(callback)

    def unsubscribe(self, stream: str, callback: Callable[[dict[str, Any]], None]) -> None:
        if threading.get_ident() == self.sdk_thread:
            self.misuse.append(f"unsubscribe {stream} on the SDK's thread, which waits for itself")
        with self._lock:
            if callback in self.streams.get(stream, []):
                self.streams[stream].remove(callback)

    def set_frequency(self, rate_hz: float) -> None:
        self.ask("set frequency")
        if rate_hz not in self.rates_hz:
            raise status_error("invalid_parameter")
        self.set_rate(rate_hz)

    def enter(self) -> None:
        self.ask("enter")
        if self.calibrating:
            raise status_error("se_calibration_already_started")
        self.calibrating = True
        self.collected.clear()
        self.calls.append(("enter",))
        self.notify("calibration_mode_entered")

    def leave(self) -> None:
        self.ask("leave")
        if not self.calibrating:
            raise status_error("se_calibration_not_started")
        self.calibrating = False
        self.calls.append(("leave",))
        self.notify("calibration_mode_left")

    def _in_calibration(self, operation: str) -> None:
        self.ask(operation)
        if not self.calibrating:
            raise status_error("se_calibration_not_started")

    def collect(self, x: float, y: float, eyes: frozenset[str]) -> frozenset[str]:
        """Return the eyes that were collected; raises se_operation_failed where there are none."""
        self._in_calibration("collect")
        time.sleep(0.01)
        self._in_calibration("collect")
        point = (round(x, 6), round(y, 6))
        self.calls.append(("collect", *point, eyes))
        if self.blind_at.get(point, 0) > 0:
            self.blind_at[point] -= 1
            raise status_error("se_operation_failed")
        seen = self.seen(-1) & eyes
        if not seen:
            raise status_error("se_operation_failed")
        self.collected[point] = self.collected.get(point, frozenset()) | seen
        return seen

    def discard(self, x: float, y: float, eyes: frozenset[str]) -> None:
        self._in_calibration("discard")
        self.calls.append(("discard", round(x, 6), round(y, 6), eyes))
        if (round(x, 6), round(y, 6)) not in self.collected:
            raise status_error("se_operation_failed")
        del self.collected[round(x, 6), round(y, 6)]

    def compute(self) -> tuple[frozenset[str], list[tuple[tuple[float, float], list[dict[str, Any]]]]]:
        """Return the eyes that are calibrated, and each point's samples with positions and validities (1 = used)."""
        self._in_calibration("compute")
        eyes = frozenset().union(*self.collected.values()) if self.computed is None else self.computed
        if len(self.collected) < 2 or not eyes:
            raise status_error("se_operation_failed")
        self.calibration = b"calibrated:" + ",".join(sorted(eyes)).encode()
        points = []
        for (x, y), seen in self.collected.items():
            sample = {side: ((x + 0.01, y), 1 if side in seen & eyes else -1) for side in ("left", "right")}
            # One more of which the tracker was not sure: valid, but not used.
            points.append(((x, y), [sample, {side: ((0.0, 0.0), 0) for side in ("left", "right")}]))
        return eyes, points

    def retrieve(self) -> bytes:
        self.ask("retrieve")
        return self.calibration

    def apply(self, data: bytes) -> None:
        self.ask("apply")
        if not data.startswith((b"factory", b"calibrated:")):
            raise status_error("se_operation_failed")
        self.calibration = data
        self.notify("calibration_changed")

    # The SDK's thread

    def _run(self) -> None:
        self.sdk_thread = threading.get_ident()
        due_us, first_us, number, next_sync = 0, 0, 0, 0.0
        rate_hz = self.rate_hz
        while not self._off.wait(0.002):
            while not self._notices.empty():
                kind, values = self._notices.get()
                self._pass_on("notification", {"system_time_stamp": self.system_us(), "kind": kind, **values})
            now = self.system_us()
            if not self.plugged or not self.streams.get("gaze"):
                due_us = 0
            else:
                if not due_us or rate_hz != self.rate_hz:
                    due_us, number, rate_hz = due_us or now, 0, self.rate_hz
                    first_us = due_us
                while due_us <= now:
                    self._pass_on("gaze", self._gaze(due_us))
                    self.delivered += 1
                    number += 1
                    due_us = first_us + round(number * 1e6 / rate_hz)
            if self.plugged and time.monotonic() >= next_sync:
                next_sync = time.monotonic() + self.sync_every_s
                half = self.round_trip_us // 2
                self._pass_on(
                    "time_sync",
                    {
                        "system_request_time_stamp": now - 2 * half,
                        "device_time_stamp": now - half - self.system_ahead_us + self.device_ahead_us,
                        "system_response_time_stamp": now,
                    },
                )

    def _pass_on(self, stream: str, data: dict[str, Any]) -> None:
        with self._lock:
            callbacks = list(self.streams.get(stream, []))
        for callback in callbacks:
            try:
                callback(dict(data))
            except Exception as error:
                self.misuse.append(f"a callback of {stream} raised {error!r}")

    def _gaze(self, system_us: int) -> dict[str, Any]:
        seen = self.seen(self.delivered)
        data: dict[str, Any] = {
            "device_time_stamp": system_us - self.system_ahead_us + self.device_ahead_us,
            "system_time_stamp": system_us,
        }
        for side, x in (("left", -32.0), ("right", 32.0)):
            eye = self.screen_centre + np.array([x, 20.0, EYE_DISTANCE_MM]) @ self.axes.T
            valid = side in seen
            told = valid or self.stale
            origin = tuple(eye.tolist()) if told else NAN3
            data |= {
                f"{side}_gaze_point_on_display_area": (0.25, 0.75 + x / 1000) if told else NAN2,
                f"{side}_gaze_point_in_user_coordinate_system": (0.0, 0.0, 0.0) if told else NAN3,
                f"{side}_gaze_point_validity": int(valid),
                f"{side}_pupil_diameter": 3.25 if told else float("nan"),
                f"{side}_pupil_validity": int(valid),
                f"{side}_gaze_origin_in_user_coordinate_system": origin,
                f"{side}_gaze_origin_in_trackbox_coordinate_system": (0.5, 0.5, 0.5) if told else NAN3,
                f"{side}_gaze_origin_validity": int(valid),
            }
        return data


# Tobii's own package

_EXCEPTIONS = {
    "EyeTrackerConnectionFailedError": ("se_connection_failed",),
    "EyeTrackerDisplayAreaNotValidError": ("display_area_not_valid",),
    "EyeTrackerFeatureDeprecatedError": (),
    "EyeTrackerFeatureNotSupportedError": ("se_not_supported",),
    "EyeTrackerInternalError": ("se_internal",),
    "EyeTrackerInvalidOperationError": (
        "invalid_operation", "se_calibration_already_started", "se_calibration_not_started",
    ),
    "EyeTrackerLicenseError": ("se_insufficient_license",),
    "EyeTrackerOperationFailedError": ("se_operation_failed", "se_calibration_busy"),
    "EyeTrackerSavedLicenseFailedToApplyError": ("saved_license_failed_to_apply",),
    "EyeTrackerUnavailableError": ("se_not_available",),
}  # fmt: skip

_NOTICES = (
    "CONNECTION_LOST", "CONNECTION_RESTORED", "CALIBRATION_MODE_ENTERED", "CALIBRATION_MODE_LEFT",
    "CALIBRATION_CHANGED", "DISPLAY_AREA_CHANGED", "GAZE_OUTPUT_FREQUENCY_CHANGED", "EYE_TRACKING_MODE_CHANGED",
    "DEVICE_FAULTS", "DEVICE_WARNINGS", "STREAM_BUFFER_OVERFLOW",
)  # fmt: skip

CONSTANTS = {
    **{f"EYETRACKER_NOTIFICATION_{name}": f"eyetracker_notification_{name.lower()}" for name in _NOTICES},
    **{
        name: name.lower()
        for name in (
            "CAPABILITY_CAN_SET_DISPLAY_AREA", "CAPABILITY_HAS_GAZE_DATA", "CAPABILITY_CAN_DO_SCREEN_BASED_CALIBRATION",
            "CAPABILITY_CAN_DO_MONOCULAR_CALIBRATION", "EYETRACKER_GAZE_DATA", "EYETRACKER_STREAM_ERRORS",
            "EYETRACKER_TIME_SYNCHRONIZATION_DATA", "CALIBRATION_STATUS_FAILURE", "CALIBRATION_STATUS_SUCCESS",
            "CALIBRATION_STATUS_SUCCESS_LEFT_EYE", "CALIBRATION_STATUS_SUCCESS_RIGHT_EYE", "SELECTED_EYE_LEFT",
            "SELECTED_EYE_RIGHT", "SELECTED_EYE_BOTH", "STREAM_ERROR_CONNECTION_LOST",
            "STREAM_ERROR_INSUFFICIENT_LICENSE", "VALIDITY_INVALID_AND_NOT_USED", "VALIDITY_VALID_BUT_NOT_USED",
            "VALIDITY_VALID_AND_USED",
        )
    },
}  # fmt: skip


def research_module(*devices: Hardware, search_s: float = 0.0) -> ModuleType:
    """Return a module that behaves as ``tobii_research`` with these devices at hand."""
    module: Any = ModuleType("tobii_research")
    for name, value in CONSTANTS.items():
        setattr(module, name, value)
    errors: dict[str, type[Exception]] = {}
    for name, statuses in _EXCEPTIONS.items():

        def init(self: Any, value: Any) -> None:
            self.value = value

        error = type(name, (Exception,), {"__init__": init, "__str__": lambda self: repr(self.value)})
        setattr(module, name, error)
        errors |= dict.fromkeys(statuses, error)

    @contextmanager
    def statuses_raised() -> Iterator[None]:
        try:
            yield
        except StatusError as error:
            if error.status == "invalid_parameter":
                raise ValueError(f"An invalid parameter has been sent to the API. '{error.status}'") from None
            raise errors[error.status](f"The operation failed. '{error.status}'") from None

    notices = {value for name, value in CONSTANTS.items() if name.startswith("EYETRACKER_NOTIFICATION_")}
    streams = {
        module.EYETRACKER_GAZE_DATA: "gaze",
        module.EYETRACKER_TIME_SYNCHRONIZATION_DATA: "time_sync",
        module.EYETRACKER_STREAM_ERRORS: "stream_error",
    }

    class EyeTracker:
        def __init__(self, address: Any) -> None:
            if type(address) is not str:
                raise ValueError("An EyeTracker must be initialized with a URI.")
            found = [device for device in devices if device.address == address]
            with statuses_raised():
                if not found:
                    raise status_error("se_internal")
                found[0].ask("connect")
            self._hardware: Hardware = found[0]
            self._lock = threading.RLock()
            self._subscriptions: dict[str, dict[Any, Any]] = {}

        @property
        def address(self) -> str:
            return self._hardware.address

        @property
        def device_name(self) -> str:
            return ""

        @property
        def serial_number(self) -> str:
            return self._hardware.serial

        @property
        def model(self) -> str:
            return self._hardware.model

        @property
        def device_capabilities(self) -> tuple[str, ...]:
            return tuple(f"capability_{name}" for name in self._hardware.capabilities)

        def get_all_gaze_output_frequencies(self) -> Any:
            with statuses_raised():
                self._hardware.ask("frequencies")
            return self._hardware.rates_hz

        def get_gaze_output_frequency(self) -> Any:
            with statuses_raised():
                self._hardware.ask("frequency")
            return self._hardware.rate_hz

        def set_gaze_output_frequency(self, gaze_output_frequency: Any) -> Any:
            with statuses_raised():
                self._hardware.set_frequency(float(gaze_output_frequency))

        def get_display_area(self) -> Any:
            with statuses_raised():
                self._hardware.ask("display area")
            return DisplayArea(self._hardware.corners)

        def retrieve_calibration_data(self) -> Any:
            with statuses_raised():
                return self._hardware.retrieve()

        def apply_calibration_data(self, calibration_data: Any) -> Any:
            if not isinstance(calibration_data, bytes):
                raise ValueError("Calibration data must be applied with a bytes object.")
            with statuses_raised():
                self._hardware.apply(calibration_data)

        def subscribe_to(self, subscription_type: Any, callback: Any, as_dictionary: Any = False) -> Any:
            if not callable(callback) or subscription_type not in notices | streams.keys():
                raise ValueError("An invalid parameter has been sent to the API. 'invalid_parameter'")
            with self._lock, statuses_raised():
                mine = self._subscriptions.setdefault(subscription_type, {})
                if callback in mine:
                    raise status_error("invalid_operation")
                if not as_dictionary:
                    self._hardware.misuse.append(f"{subscription_type} is not asked for as a dictionary")
                passed = functools.partial(self._passed, subscription_type, callback)
                mine[callback] = passed
                self._hardware.subscribe(streams.get(subscription_type, "notification"), passed)

        def _passed(self, subscription_type: str, callback: Any, data: dict[str, Any]) -> None:
            if subscription_type in notices:
                kind = f"eyetracker_notification_{data.pop('kind')}"
                if kind != subscription_type:
                    return
                data["notification_type"] = kind
            # As the real one: callbacks run under the lock that subscribing takes.
            with self._lock:
                if callback in self._subscriptions.get(subscription_type, {}):
                    callback(data)

        def unsubscribe_from(self, subscription_type: Any, callback: Any = None) -> Any:
            with self._lock:
                mine = self._subscriptions.get(subscription_type, {})
                for each in list(mine) if callback is None else [callback]:
                    if each in mine:
                        self._hardware.unsubscribe(
                            streams.get(subscription_type, "notification"), mine.pop(each)
                        )

    class DisplayArea:
        def __init__(self, display_area: Any) -> None:
            self._corners = {
                name: tuple(map(float, display_area[name]))
                for name in ("bottom_left", "top_left", "top_right")
            }

        @property
        def bottom_left(self) -> Any:
            return self._corners["bottom_left"]

        @property
        def top_left(self) -> Any:
            return self._corners["top_left"]

        @property
        def top_right(self) -> Any:
            return self._corners["top_right"]

    class CalibrationEyeData:
        def __init__(self, position_on_display_area: Any, validity: Any) -> None:
            self.position_on_display_area = position_on_display_area
            names = {-1: "invalid_and_not_used", 0: "valid_but_not_used", 1: "valid_and_used"}
            self.validity = f"validity_{names[validity]}"

    class CalibrationSample:
        def __init__(self, left_eye: Any, right_eye: Any) -> None:
            self.left_eye, self.right_eye = left_eye, right_eye

    class CalibrationPoint:
        def __init__(self, position_on_display_area: Any, calibration_samples: Any) -> None:
            self.position_on_display_area = position_on_display_area
            self.calibration_samples = calibration_samples

    class CalibrationResult:
        def __init__(self, status: Any, calibration_points: Any) -> None:
            self.status, self.calibration_points = status, calibration_points

    class ScreenBasedCalibration:
        _needs: tuple[str, ...] = ("can_do_screen_based_calibration",)
        _monocular = False

        def __init__(self, eyetracker: Any) -> None:
            if not isinstance(eyetracker, EyeTracker):
                raise ValueError("A ScreenBasedCalibration object must be initialized with an EyeTracker.")
            if not set(self._needs) <= set(eyetracker._hardware.capabilities):
                raise ValueError("A ScreenBasedCalibration object needs a tracker that supports it.")
            self._hardware = eyetracker._hardware

        def enter_calibration_mode(self) -> Any:
            with statuses_raised():
                self._hardware.enter()
                self._hardware.entered_monocular = self._monocular

        def leave_calibration_mode(self) -> Any:
            with statuses_raised():
                self._hardware.leave()

        def _collect(self, x: float, y: float, eyes: frozenset[str]) -> str:
            with statuses_raised():
                try:
                    seen = self._hardware.collect(float(x), float(y), eyes)
                except StatusError as error:
                    if error.status != "se_operation_failed":
                        raise
                    return "calibration_status_failure"
            return self._success(seen if self._monocular else BOTH)

        def _success(self, eyes: frozenset[str]) -> str:
            return "calibration_status_success" + ("" if eyes == BOTH else f"_{next(iter(eyes))}_eye")

        def collect_data(self, x: Any, y: Any) -> Any:
            return self._collect(x, y, BOTH)

        def discard_data(self, x: Any, y: Any) -> Any:
            with statuses_raised():
                self._hardware.discard(float(x), float(y), BOTH)

        def compute_and_apply(self) -> Any:
            with statuses_raised():
                try:
                    eyes, points = self._hardware.compute()
                except StatusError as error:
                    if error.status != "se_operation_failed":
                        raise
                    return CalibrationResult("calibration_status_failure", ())
            # Where one eye alone succeeds, this one tells no points.
            told = () if eyes != BOTH and not self._monocular else points
            return CalibrationResult(
                self._success(eyes),
                tuple(
                    CalibrationPoint(
                        place,
                        tuple(
                            CalibrationSample(
                                CalibrationEyeData(*each["left"]), CalibrationEyeData(*each["right"])
                            )
                            for each in samples
                        ),
                    )
                    for place, samples in told
                ),
            )

    class ScreenBasedMonocularCalibration(ScreenBasedCalibration):
        _needs = ("can_do_screen_based_calibration", "can_do_monocular_calibration")
        _monocular = True

        @staticmethod
        def _selected(eye: str) -> frozenset[str]:
            if eye not in ("selected_eye_left", "selected_eye_right", "selected_eye_both"):
                raise ValueError("eye_to_calibrate argument is invalid!")
            side = eye.removeprefix("selected_eye_")
            return BOTH if side == "both" else frozenset({side})

        def collect_data(self, x: Any, y: Any, eye_to_calibrate: Any) -> Any:  # type: ignore[override]
            return self._collect(x, y, self._selected(eye_to_calibrate))

        def discard_data(self, x: Any, y: Any, eye_to_calibrate: Any) -> Any:  # type: ignore[override]
            with statuses_raised():
                self._hardware.discard(float(x), float(y), self._selected(eye_to_calibrate))

    searched = threading.Event()

    def find_all_eyetrackers() -> Any:
        if not searched.is_set():
            time.sleep(search_s)
            searched.set()
        return tuple(EyeTracker(device.address) for device in devices if device.plugged)

    def get_system_time_stamp() -> Any:
        return devices[0].system_us()

    for each in (
        EyeTracker, DisplayArea, CalibrationEyeData, CalibrationSample, CalibrationPoint, CalibrationResult,
        ScreenBasedCalibration, ScreenBasedMonocularCalibration, find_all_eyetrackers, get_system_time_stamp,
    ):  # fmt: skip
        setattr(module, each.__name__, each)
    made: ModuleType = module
    return made


# Titta's wrapper

TITTA_ENUMS = {
    "capability": (
        "can_set_display_area", "has_external_signal", "has_eye_images", "has_gaze_data",
        "can_do_screen_based_calibration", "can_do_monocular_calibration", "has_eye_openness_data",
    ),
    "calibration_status": ("failure", "success", "success_left_eye", "success_right_eye"),
    "calibration_eye_validity": ("invalid_and_not_used", "valid_but_not_used", "valid_and_used", "unknown"),
    "notification_type": (
        "connection_lost", "connection_restored", "calibration_mode_entered", "calibration_mode_left",
        "calibration_changed", "display_area_changed", "gaze_output_frequency_changed", "eye_tracking_mode_changed",
        "device_faults", "device_warnings", "stream_buffer_overflow", "notification_unknown",
    ),
}  # fmt: skip
TITTA_STREAMS = ("gaze", "time_sync", "notification")


def titta_module(*devices: Hardware) -> ModuleType:
    """Return a module that behaves as ``TittaPy_v2`` with these devices at hand."""
    module: Any = ModuleType("TittaPy_v2")
    for name, members in TITTA_ENUMS.items():
        setattr(module, name, enum.Enum(name, members))

    @contextmanager
    def errors(what: str) -> Iterator[None]:
        try:
            yield
        except StatusError as error:
            name = f"TOBII_RESEARCH_STATUS_{error.status.upper()}"
            raise RuntimeError(
                f"Titta::cpp Error: Titta::cpp: {what}\nError code: {error.code}: {name} (explained)"
            ) from None

    class EyeTracker:
        def __init__(self, address: Any) -> None:
            if not isinstance(address, str):
                raise TypeError("__init__(): incompatible constructor arguments.")
            found = [device for device in devices if device.address == address]
            with errors(f'Cannot get eye tracker "{address}"'):
                if not found:
                    raise status_error("se_internal")
                found[0].ask("connect")
            self._hardware: Hardware = found[0]
            self._buffers: dict[str, list[dict[str, Any]]] = {name: [] for name in TITTA_STREAMS}
            self._recording: set[str] = set()
            self._work: queue.SimpleQueue[Any] = queue.SimpleQueue()
            self._results: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
            self._worker: threading.Thread | None = None
            self._monocular = False
            self.start("notification")

        @property
        def address(self) -> str:
            return self._hardware.address

        @property
        def serial_number(self) -> str:
            return self._hardware.serial

        @property
        def model(self) -> str:
            return self._hardware.model

        @property
        def capabilities(self) -> list[Any]:
            return [module.capability[name] for name in self._hardware.capabilities]

        @property
        def supported_frequencies(self) -> list[float]:
            with errors("Cannot get eye tracker output frequencies"):
                self._hardware.ask("frequencies")
            return list(self._hardware.rates_hz)

        @property
        def frequency(self) -> float:
            with errors("Cannot get eye tracker current frequency"):
                self._hardware.ask("frequency")
            return self._hardware.rate_hz

        @frequency.setter
        def frequency(self, value: float) -> None:
            with errors("Cannot set eye tracker frequency"):
                self._hardware.set_frequency(value)

        @property
        def display_area(self) -> dict[str, Any]:
            with errors("Cannot get eye tracker display area"):
                self._hardware.ask("display area")
            corners = {name: list(corner) for name, corner in self._hardware.corners.items()}
            return {**corners, "bottom_right": [0.0] * 3, "width": 0.0, "height": 0.0}

        # Streams

        def start(self, stream: Any, initial_buffer_size: Any = None, as_gif: Any = None) -> Any:
            if stream not in self._recording:
                with errors(f"Cannot start recording {stream} stream"):
                    self._hardware.subscribe(stream, self._buffers[stream].append)
                self._recording.add(stream)
            return True

        def stop(self, stream: Any, clear_buffer: Any = None) -> Any:
            if stream in self._recording:
                self._hardware.unsubscribe(stream, self._buffers[stream].append)
                self._recording.discard(stream)
            if clear_buffer:
                self._buffers[stream].clear()
            return True

        def consume_N(self, stream: Any, N_samples: Any = None, side: Any = None) -> Any:
            rows = self._buffers[stream][:]
            del self._buffers[stream][: len(rows)]
            return {"gaze": _gaze_columns, "time_sync": _sync_columns, "notification": notices}[stream](rows)

        # Calibration: all work is done by a thread

        def enter_calibration_mode(self, do_monocular: Any) -> Any:
            if self._worker is not None:
                return False
            self._monocular = do_monocular
            self._worker = threading.Thread(target=self._calibrate, daemon=True)
            self._worker.start()
            self._work.put(("enter", self._hardware.enter, ()))
            self._hardware.entered_monocular = do_monocular
            return True

        def is_in_calibration_mode(self, issue_error_if_not_: Any = None) -> Any:
            if issue_error_if_not_ and self._worker is None:
                raise RuntimeError("Titta::cpp::isInCalibrationMode: you have not entered calibration mode")
            return self._worker is not None

        def leave_calibration_mode(self, force: Any = None) -> Any:
            if force:
                try:
                    self._hardware.leave()
                except StatusError:
                    pass
            if self._worker is None:
                return False
            self._work.put(("exit", self._hardware.leave, ()))
            self._worker.join()
            self._worker = None
            return True

        def _calibrate(self) -> None:
            while True:
                action, work, arguments = self._work.get()
                answer: dict[str, Any] = {"work_item": {"action": action}, "status": 0}
                answer["status_string"] = "Tobii SDK code: 0: TOBII_RESEARCH_STATUS_OK"
                try:
                    result = work(*arguments)
                    if action == "retrieve" and result:
                        answer["calibration_data"] = list(result)
                    if action == "compute":
                        answer["calibration_result"] = self._result(*result)
                except StatusError as error:
                    answer["status"] = error.code
                    answer["status_string"] = f"Tobii SDK code: {error.code}: {error.status}"
                    if action == "compute":
                        answer["calibration_result"] = {
                            "points": [],
                            "status": module.calibration_status.failure,
                        }
                self._results.put(answer)
                if action == "exit":
                    return

        def _result(self, eyes: frozenset[str], points: Any) -> dict[str, Any]:
            name = "success" if eyes == BOTH else f"success_{next(iter(eyes))}_eye"
            validity = module.calibration_eye_validity
            names = {
                -1: validity.invalid_and_not_used,
                0: validity.valid_but_not_used,
                1: validity.valid_and_used,
            }
            told = []
            for (x, y), samples in points:
                point: dict[str, Any] = {"position_on_display_area_x": x, "position_on_display_area_y": y}
                for side in ("left", "right"):
                    places = [each[side][0] for each in samples]
                    for axis, values in zip("xy", zip(*places, strict=True), strict=True):
                        point[f"samples_{side}_position_on_display_area_{axis}"] = np.array(values)
                    point[f"samples_{side}_validity"] = [names[each[side][1]] for each in samples]
                told.append(point)
            return {"points": told, "status": module.calibration_status[name]}

        def _queue(self, action: str, work: Callable[..., Any], *arguments: Any) -> None:
            self.is_in_calibration_mode(True)
            self._work.put((action, work, arguments))

        def _selected(self, eye: str | None) -> frozenset[str]:
            if eye not in (None, "left", "right"):
                raise RuntimeError("Titta::cpp::calibrationCollectData: unknown eye. Expected left or right.")
            return frozenset({eye or "left"}) if self._monocular else BOTH

        def calibration_collect_data(self, coordinates: Any, eye: Any = None) -> Any:
            self._queue("collect_data", self._hardware.collect, *coordinates, self._selected(eye))

        def calibration_discard_data(self, coordinates: Any, eye: Any = None) -> Any:
            self._queue("discard_data", self._hardware.discard, *coordinates, self._selected(eye))

        def calibration_compute_and_apply(self) -> Any:
            self._queue("compute", self._hardware.compute)

        def calibration_get_data(self) -> Any:
            self._queue("retrieve", self._hardware.retrieve)

        def calibration_apply_data(self, cal_data: Any) -> Any:
            if not all(isinstance(value, int) for value in cal_data):
                raise TypeError("calibration_apply_data(): incompatible function arguments.")
            self._queue("apply", self._hardware.apply, bytes(cal_data))

        def calibration_retrieve_result(self) -> Any:
            return None if self._results.empty() else self._results.get()

    def notices(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "system_time_stamp": np.array([row["system_time_stamp"] for row in rows], dtype=np.int64),
            "notification_type": [module.notification_type[row["kind"]] for row in rows],
            "output_frequency": [row.get("gaze_output_frequency") for row in rows],
            "display_area": [None for row in rows],
            "errors_or_warnings": [row.get("faults", row.get("warnings")) for row in rows],
        }

    def find_all_eye_trackers() -> Any:
        return [
            {"model": device.model, "serial_number": device.serial, "address": device.address}
            for device in devices
            if device.plugged
        ]

    def get_system_timestamp() -> Any:
        return devices[0].system_us()

    for each in (EyeTracker, find_all_eye_trackers, get_system_timestamp):
        setattr(module, each.__name__, each)
    made: ModuleType = module
    return made


def _gaze_columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    columns: dict[str, Any] = {}

    def vector(name: str, key: str, axes: str) -> None:
        values = np.array([row[key] for row in rows], dtype=np.float32).reshape(len(rows), len(axes))
        for number, axis in enumerate(axes):
            columns[f"{name}_{axis}"] = values[:, number]

    def flag(name: str, key: str) -> None:
        columns[f"{name}_valid"] = np.array([bool(row[key]) for row in rows])
        columns[f"{name}_available"] = np.ones(len(rows), dtype=bool)

    for name in ("device_time_stamp", "system_time_stamp"):
        columns[name] = np.array([row[name] for row in rows], dtype=np.int64)
    for side in ("left", "right"):
        vector(f"{side}_gaze_point_on_display_area", f"{side}_gaze_point_on_display_area", "xy")
        vector(
            f"{side}_gaze_point_in_user_coordinates", f"{side}_gaze_point_in_user_coordinate_system", "xyz"
        )
        flag(f"{side}_gaze_point", f"{side}_gaze_point_validity")
        columns[f"{side}_pupil_diameter"] = np.array(
            [row[f"{side}_pupil_diameter"] for row in rows], dtype=np.float32
        )
        flag(f"{side}_pupil", f"{side}_pupil_validity")
        vector(
            f"{side}_gaze_origin_in_user_coordinates",
            f"{side}_gaze_origin_in_user_coordinate_system",
            "xyz",
        )
        flag(f"{side}_gaze_origin", f"{side}_gaze_origin_validity")
    return columns


def _sync_columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("system_request_time_stamp", "device_time_stamp", "system_response_time_stamp")
    return {name: np.array([row[name] for row in rows], dtype=np.int64) for name in names}
