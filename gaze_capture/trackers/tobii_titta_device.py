"""Titta's wrapper of Tobii's SDK as a device."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from gaze_capture.recording import Eyes, Floats, Samples, pack_samples
from gaze_capture.trackers.tobii_sdk import (
    SIDES,
    Computed,
    Corners,
    Failure,
    Listener,
    NoticeKind,
    Side,
    asked,
    positions,
)
from gaze_capture.trackers.tracker import Millimetres, Point

POLL_S = 0.004
"""The package keeps samples in a buffer of its own, which is emptied so often."""
CALIBRATION_TIMEOUT_S = 30.0
"""A step of a calibration that takes so long has failed."""

# TobiiResearchStatus of the C SDK.
_OPERATION_FAILED = 214
_FAILURES: dict[int, Failure] = {
    14: "display_area", 18: "licence", 201: "licence", 202: "unsupported", 203: "unreachable", 204: "unreachable",
    205: "unreachable",
}  # fmt: skip


def _failure_to_connect(error: Exception) -> Failure:
    # Where nothing is, the SDK tells of an internal error.
    failure = _failure_of(error)
    return "unreachable" if failure == "refused" else failure


def _failure_of(error: Exception) -> Failure:
    code = re.search(r"Error code: (\d+)", str(error))
    return _FAILURES.get(int(code.group(1)), "refused") if code else "refused"


class TittaDevice:
    """A tracker through ``TittaPy_v2``, which buffers everything; a thread here empties the buffers."""

    def __init__(self, module: Any, address: str) -> None:
        self._sdk = module
        self.label = f"The Tobii at {address}"
        with asked(_failure_to_connect, self.label, "be connected to"):
            self._tracker = module.EyeTracker(address)
            self.label = f"{self._tracker.model} {self._tracker.serial_number}".strip()
            can = self._tracker.capabilities
        self.calibratable = module.capability.can_do_screen_based_calibration in can
        self.monocular = self.calibratable and module.capability.can_do_monocular_calibration in can
        self._listener: Listener | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tobii tracker", daemon=True)
        self._silent = False

    def _asked(self, done: str) -> contextlib.AbstractContextManager[None]:
        return asked(_failure_of, self.label, done)

    def system_us(self) -> int:
        """Return the SDK's system clock in us."""
        return int(self._sdk.get_system_timestamp())

    def rate_hz(self) -> float:
        """Return the gaze output frequency in use."""
        with self._asked("tell its sampling rate"):
            return float(self._tracker.frequency)

    def rates_hz(self) -> tuple[float, ...]:
        """Return the gaze output frequencies there are."""
        with self._asked("tell its sampling rates"):
            return tuple(map(float, self._tracker.supported_frequencies))

    def set_rate(self, rate_hz: float) -> None:
        """Set the gaze output frequency."""
        with self._asked(f"measure at {rate_hz:g} Hz"):
            self._tracker.frequency = rate_hz

    def corners(self) -> Corners:
        """Return the display area."""
        with self._asked("tell its display area"):
            area = self._tracker.display_area

        def corner(name: str) -> Millimetres:
            x, y, z = map(float, area[name])
            return x, y, z

        return Corners(corner("top_left"), corner("top_right"), corner("bottom_left"))

    def listen(self, listener: Listener) -> None:
        """Pass on time synchronisation and notices from now on."""
        self._listener = listener
        with self._asked("be listened to"):
            self._tracker.start("notification")
            self._tracker.start("time_sync")
        self._thread.start()

    def begin_gaze(self) -> None:
        """Pass on gaze from now on."""
        with self._asked("deliver gaze"):
            self._tracker.start("gaze", initial_buffer_size=1 << 14)

    def stop(self) -> None:
        """Pass on nothing any more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for stream in ("gaze", "time_sync", "notification"):
            # A device that is gone refuses; there is nothing left to end then.
            with contextlib.suppress(Exception):
                self._tracker.stop(stream, clear_buffer=True)

    def _run(self) -> None:
        assert self._listener is not None
        listener = self._listener
        while not self._stopping.wait(POLL_S):
            data = self._tracker.consume_N("gaze")
            if len(data["system_time_stamp"]):
                listener.gaze(*_of_columns(data))
            data = self._tracker.consume_N("time_sync")
            for row in zip(
                data["system_request_time_stamp"],
                data["device_time_stamp"],
                data["system_response_time_stamp"],
                strict=True,
            ):
                listener.synchronised(*map(int, row))
            self._pass_on_notices(self._tracker.consume_N("notification"), listener)

    def _pass_on_notices(self, data: dict[str, Any], listener: Listener) -> None:
        kinds = self._sdk.notification_type
        names: dict[Any, NoticeKind] = {
            kinds.connection_lost: "lost",
            kinds.connection_restored: "restored",
            kinds.gaze_output_frequency_changed: "rate",
            kinds.display_area_changed: "display_area",
            kinds.device_faults: "faults",
            kinds.device_warnings: "warnings",
            kinds.stream_buffer_overflow: "overflow",
        }
        for kind, rate, text in zip(
            data["notification_type"], data["output_frequency"], data["errors_or_warnings"], strict=True
        ):
            if kind in names:
                listener.noticed(names[kind], rate if rate is not None else text)

    def enter(self, monocular: bool) -> None:
        """Enter calibration mode."""
        with self._asked("be calibrated"):
            if self._silent:
                raise RuntimeError("an earlier calibration never answered")
            # Also where a program that crashed has left it there.
            self._tracker.leave_calibration_mode(force=True)
            self._drain()
            self._tracker.enter_calibration_mode(do_monocular=monocular)
            try:
                self._checked(self._answer())
            except Exception:
                self.leave()
                raise

    def leave(self) -> None:
        """Leave calibration mode."""
        if self._silent:
            # Leaving would wait, with everything else, for a step that never ends.
            return
        with self._asked("leave its calibration"):
            # Once the package's own work has ended, only force reaches the device, and does not tell how it went.
            self._tracker.leave_calibration_mode(force=not self._tracker.is_in_calibration_mode())
            last = self._drain()
            if last is not None:
                self._checked(last)

    def _drain(self) -> dict[str, Any] | None:
        """Take the answers that are left, and return the last."""
        last = None
        while (answer := self._tracker.calibration_retrieve_result()) is not None:
            last = answer
        return last

    def _answer(self) -> dict[str, Any]:
        deadline = time.monotonic() + CALIBRATION_TIMEOUT_S
        while time.monotonic() < deadline:
            result: dict[str, Any] | None = self._tracker.calibration_retrieve_result()
            if result is not None:
                return result
            time.sleep(0.01)
        self._silent = True
        raise RuntimeError("Error code: 205: the tracker does not answer")

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        if answer["status"] != 0:
            raise RuntimeError(f"Error code: {answer['status']}: {answer['status_string']}")
        return answer

    def collect(self, point: Point, eye: Side | None) -> bool:
        """Collect calibration data while the eyes rest on a point."""
        with self._asked("collect calibration data"):
            self._tracker.calibration_collect_data(list(point), eye)
            answer = self._answer()
            if answer["status"] == _OPERATION_FAILED:
                return False
            self._checked(answer)
        return True

    def discard(self, point: Point, eye: Side | None) -> None:
        """Forget what was collected at a point."""
        with self._asked("discard calibration data"):
            self._tracker.calibration_discard_data(list(point), eye)
            self._checked(self._answer())

    def compute(self) -> Computed:
        """Compute the calibration and use it."""
        with self._asked("compute a calibration"):
            self._tracker.calibration_compute_and_apply()
            answer = self._answer()
            if answer["status"] == _OPERATION_FAILED or "calibration_result" not in answer:
                return Computed(None, ())
            self._checked(answer)
        result, statuses = answer["calibration_result"], self._sdk.calibration_status
        names: dict[Any, Eyes] = {
            statuses.success: "both",
            statuses.success_left_eye: "left",
            statuses.success_right_eye: "right",
        }
        used = self._sdk.calibration_eye_validity.valid_and_used

        def seen(point: dict[str, Any], side: Side) -> Floats:
            name = f"samples_{side}"
            xs, ys = (point[f"{name}_position_on_display_area_{axis}"] for axis in "xy")
            rows = zip(xs, ys, point[f"{name}_validity"], strict=True)
            return positions([(x, y) for x, y, validity in rows if validity == used])

        points = tuple(
            (
                (
                    float(point["position_on_display_area_x"]),
                    float(point["position_on_display_area_y"]),
                ),
                seen(point, "left"),
                seen(point, "right"),
            )
            for point in result["points"]
        )
        return Computed(names.get(result["status"]), points)

    @contextlib.contextmanager
    def _in_calibration(self) -> Iterator[None]:
        """Be in calibration mode, which TittaPy asks for where the SDK does not."""
        if self._tracker.is_in_calibration_mode():
            yield
            return
        self.enter(False)
        try:
            yield
        finally:
            self.leave()

    def retrieve(self) -> bytes:
        """Return the calibration in use."""
        with self._asked("give its calibration"), self._in_calibration():
            self._tracker.calibration_get_data()
            return bytes(self._checked(self._answer()).get("calibration_data", ()))

    def apply(self, data: bytes) -> None:
        """Use a calibration that was retrieved before."""
        with self._asked("use the saved calibration"), self._in_calibration():
            self._tracker.calibration_apply_data(list(data))
            self._checked(self._answer())


def _of_columns(data: dict[str, Any]) -> tuple[Samples, Floats]:
    """Return samples (N) and the eyes' last origins (2, 3) of TittaPy's columns."""

    def masked(valid: Any, *columns: Any) -> Floats:
        stacked = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
        return np.where(np.asarray(valid, dtype=bool)[:, np.newaxis], stacked, np.nan)

    gazes: list[Floats] = []
    pupils: list[Floats] = []
    origins: list[Floats] = []
    for side in SIDES:
        gaze, origin = f"{side}_gaze_point", f"{side}_gaze_origin"
        names = (f"{gaze}_on_display_area_x", f"{gaze}_on_display_area_y")
        gazes.append(masked(data[f"{gaze}_valid"], *(data[name] for name in names)))
        pupils.append(masked(data[f"{side}_pupil_valid"], data[f"{side}_pupil_diameter"]))
        last = slice(-1, None)
        axes = (data[f"{origin}_in_user_coordinates_{axis}"][last] for axis in "xyz")
        origins.append(masked(data[f"{origin}_valid"][last], *axes)[0])
    system_ns, device_ns = (
        np.asarray(data[name], dtype=np.int64) * 1000 for name in ("system_time_stamp", "device_time_stamp")
    )
    return pack_samples(system_ns, device_ns, gazes[0], gazes[1], np.concatenate(pupils, axis=1)), np.stack(
        origins
    )
