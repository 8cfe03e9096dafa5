"""TobiiTracker before pretended hardware, through doubles of both packages that bring Tobii's SDK."""

from __future__ import annotations

import importlib
import inspect
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tests.test_trackers as contract
from gaze_capture.errors import UserError
from gaze_capture.trackers.tobii import TobiiTracker, find_tobii
from gaze_capture.trackers.tracker import CalibrationOutcome, Found, Point, TrackerEvent
from tests.test_trackers import Collector
from tests.tobii_double import (
    BOTH,
    CONSTANTS,
    TITTA_ENUMS,
    TITTA_STREAMS,
    Hardware,
    research_module,
    titta_module,
)

PACKAGES = ("tobii_research", "TittaPy_v2")
SCREEN_PX = (1920, 1080)
LEFT, RIGHT = frozenset({"left"}), frozenset({"right"})
FIVE: tuple[Point, ...] = ((0.5, 0.5), (0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.9))


class Desk:
    """Pretended hardware before one of the packages."""

    def __init__(self, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.package = package
        self.devices: list[Hardware] = []
        self._patch = monkeypatch

    def put(self, *devices: Hardware) -> None:
        self.devices += devices
        module = (research_module if self.package == "tobii_research" else titta_module)(*devices)
        # An entry of None makes the import fail.
        for name in PACKAGES:
            self._patch.setitem(sys.modules, name, module if name == self.package else None)

    def tracker(self, rate_hz: float | None = None, **hardware: Any) -> tuple[TobiiTracker, Hardware]:
        device = Hardware(**hardware)
        self.put(device)
        return TobiiTracker(SCREEN_PX, device.address, rate_hz), device


@pytest.fixture(params=PACKAGES)
def desk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr("gaze_capture.trackers.tobii_calibrator.SETTLE_S", 0.005)
    made = Desk(request.param, monkeypatch)
    yield made
    for device in made.devices:
        device.switch_off()
        assert device.misuse == []
        assert not device.streams.get("gaze")


class Watcher:
    def __init__(self, tracker: TobiiTracker) -> None:
        self.events: list[TrackerEvent] = []
        tracker.watch(self.events.append)

    def wait_for(self, *kinds: str) -> TrackerEvent:
        """Wait for events of these kinds, in order and no others; returns the last."""
        wait_until(lambda: len(self.events) >= len(kinds))
        assert tuple(event.kind for event in self.events) == kinds
        return self.events[-1]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.003)


def looked(x: float, y: float) -> None:
    """Show a target to nobody: the pretended eyes look wherever they should."""


# What every tracker promises


def test_the_contract(desk: Desk) -> None:
    contract.test_the_contract_of_every_tracker(desk.tracker(300.0)[0])


def test_a_recording_without_a_window(desk: Desk, tmp_path: Path) -> None:
    contract.test_every_tracker_records_headless_and_loses_nothing(desk.tracker(300.0)[0], tmp_path)


# Samples


def test_what_the_device_tells_of_itself(desk: Desk) -> None:
    tracker, device = desk.tracker()
    assert tracker.label == f"Tobii at {device.address}"
    assert math.isnan(tracker.geometry.width_mm)
    assert tracker.calibrator is None
    with tracker:
        assert tracker.label == "Tobii Pro Spectrum TPSP1-010106043102"
        assert tracker.rate_hz == 300
        assert tracker.geometry.width_mm == pytest.approx(531, abs=1e-3)
        assert tracker.geometry.height_mm == pytest.approx(299, abs=1e-3)
        assert (tracker.geometry.width_px, tracker.geometry.height_px) == SCREEN_PX
        assert tracker.connected
        assert tracker.calibrator is not None
    assert not tracker.connected


def test_a_rate_is_set_where_one_is_asked_for(desk: Desk) -> None:
    tracker, device = desk.tracker(150.0)
    with tracker:
        assert device.rate_hz == tracker.rate_hz == 150
    other = TobiiTracker(SCREEN_PX, device.address, 250.0)
    with pytest.raises(UserError, match="cannot measure at 250 Hz; choose one of 60, 120, 150, 300, 600 Hz"):
        other.open()


def test_where_the_eyes_look_and_are(desk: Desk) -> None:
    tracker, _ = desk.tracker()
    seen = Collector()
    with tracker:
        tracker.subscribe(seen)
        seen.wait_for(5)
    sample = seen.samples[0]
    assert [round(float(sample[name]), 6) for name in ("left_x", "left_y", "right_x", "right_y")] == [
        0.25, 0.718, 0.25, 0.782,
    ]  # fmt: skip
    assert sample["pupil_left"] == sample["pupil_right"] == 3.25
    eyes = tracker.eyes
    assert eyes is not None and eyes.left_mm is not None and eyes.right_mm is not None
    assert eyes.time_ns in seen.samples["time_ns"]
    # In front of the leaning screen's centre, however the tracker's own axes lie.
    np.testing.assert_allclose(eyes.left_mm, (-32, 20, 650), atol=1e-3)
    np.testing.assert_allclose(eyes.right_mm, (32, 20, 650), atol=1e-3)


@pytest.mark.parametrize("stale", [False, True])
def test_an_eye_that_is_not_seen_is_invalid(desk: Desk, stale: bool) -> None:
    tracker, device = desk.tracker()
    device.stale = stale
    device.seen = lambda number: RIGHT
    seen = Collector()
    with tracker:
        tracker.subscribe(seen)
        seen.wait_for(20)
    samples = seen.samples
    for name in ("left_x", "left_y", "pupil_left"):
        assert np.isnan(samples[name]).all()
    for name in ("right_x", "right_y", "pupil_right"):
        assert np.isfinite(samples[name]).all()
    assert tracker.eyes is not None
    assert tracker.eyes.left_mm is None
    assert tracker.eyes.distance_mm == pytest.approx(650, abs=1e-3)


def test_glasses_lose_either_eye_now_and_then(desk: Desk) -> None:
    tracker, device = desk.tracker()
    pattern = [frozenset({"left", "right"}), frozenset(), LEFT, RIGHT, frozenset(), BOTH, LEFT]
    device.seen = lambda number: pattern[number % len(pattern)]
    seen = Collector()
    with tracker:
        tracker.subscribe(seen)
        seen.wait_for(100)
        assert tracker.eyes is not None
    for side in ("left", "right"):
        found = np.isfinite(seen.samples[f"{side}_x"])
        told = [side in pattern[number % len(pattern)] for number in range(len(found))]
        assert found.tolist() == told
        assert np.isfinite(seen.samples[f"pupil_{side}"]).tolist() == told


def test_several_listeners_share_one_subscription(desk: Desk) -> None:
    tracker, device = desk.tracker()
    first, second = Collector(), Collector()
    with tracker:
        tracker.subscribe(first)
        end_second = tracker.subscribe(second)
        first.wait_for(10)
        second.wait_for(10)
        assert len(device.streams["gaze"]) == 1
        end_second()
        tracker.subscribe(second)
        second.wait_for(30)
        assert len(device.streams["gaze"]) == 1
        with pytest.raises(RuntimeError, match="opened once"):
            tracker.open()


def test_a_sample_that_falls_behind_is_left_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, device = desk.tracker()
    seen = Collector()
    make = device._gaze

    def back(system_us: int) -> dict[str, Any]:
        # The SDK corrects its estimate of the device's clock by more than a sample.
        return make(system_us - (9000 if device.delivered == 10 else 0))

    monkeypatch.setattr(device, "_gaze", back)
    with tracker:
        tracker.subscribe(seen)
        seen.wait_for(30)
    assert (np.diff(seen.samples["time_ns"]) > 0).all()
    assert np.diff(seen.samples["device_time_ns"]).max() == pytest.approx(2e9 / 300, rel=1e-3)


# Connection, rate, notices


def test_unplugged_and_plugged_in_again(desk: Desk) -> None:
    tracker, device = desk.tracker()
    seen = Collector()
    with tracker:
        watcher = Watcher(tracker)
        tracker.subscribe(seen)
        seen.wait_for(10)
        device.unplug()
        event = watcher.wait_for("lost")
        assert "Tobii Pro Spectrum" in event.text
        assert not tracker.connected
        assert not tracker.ended
        device.notify("connection_lost")
        time.sleep(0.1)
        before = len(seen.samples)
        device.replug()
        watcher.wait_for("lost", "restored")
        assert tracker.connected
        seen.wait_for(before + 20)
        assert (np.diff(seen.samples["time_ns"]) > 0).all()
        # The gap stays a gap.
        assert np.diff(seen.samples["time_ns"]).max() > 50e6


def test_a_rate_that_was_reset_while_unplugged_is_told(desk: Desk) -> None:
    tracker, device = desk.tracker()
    with tracker:
        watcher = Watcher(tracker)
        device.unplug()
        watcher.wait_for("lost")
        device.rate_hz = 60.0
        device.replug()
        event = watcher.wait_for("lost", "restored", "rate")
        assert event.values == {"rate_hz": 60.0}


def test_another_rate_is_told_and_expected_from_then_on(desk: Desk) -> None:
    tracker, device = desk.tracker()
    seen = Collector()
    with tracker:
        watcher = Watcher(tracker)
        tracker.subscribe(seen)
        seen.wait_for(60)
        assert tracker.expected(1.0) == 300
        device.set_rate(60.0)
        event = watcher.wait_for("rate")
        assert "60 Hz" in event.text
        assert tracker.rate_hz == 60
        count = len(seen.samples)
        seen.wait_for(count + 12)
        after_s = (event.time_ns - int(seen.samples["time_ns"][0])) / 1e9
        assert tracker.expected(after_s + 2) == pytest.approx(300 * after_s + 120, abs=2)
        assert tracker.expected(after_s / 2) == pytest.approx(150 * after_s, abs=1)
    assert np.diff(seen.samples["time_ns"][-5:]) == pytest.approx(1e9 / 60, rel=0.01)


@pytest.mark.parametrize(
    ("notice", "values", "told"),
    [
        ("device_faults", {"faults": "overheated,fan"}, "a fault: overheated,fan"),
        ("device_warnings", {"warnings": "dusty"}, "a warning: dusty"),
        ("stream_buffer_overflow", {"notification_source_stream": "gaze"}, "data were lost"),
        ("display_area_changed", {"display_area": {}}, "open it again"),
    ],
)
def test_what_the_device_reports_is_noted(desk: Desk, notice: str, values: dict[str, Any], told: str) -> None:
    tracker, device = desk.tracker()
    with tracker:
        watcher = Watcher(tracker)
        device.notify("eye_tracking_mode_changed")
        device.notify(notice, **values)
        assert told in watcher.wait_for("note").text


def test_errors_of_a_stream_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk("tobii_research", monkeypatch)
    tracker, device = desk.tracker()
    with tracker:
        watcher = Watcher(tracker)
        common = {"system_time_stamp": 1, "source": "stream_error_source_subscription_gaze_data"}
        device._pass_on(
            "stream_error", {**common, "error": "stream_error_connection_lost", "message": "gone"}
        )
        lacking = {"error": "stream_error_insufficient_license", "message": "buy"}
        device._pass_on("stream_error", {**common, **lacking})
        assert "insufficient_license: buy" in watcher.wait_for("note").text
    device.switch_off()


# Clocks


def test_the_devices_clock_is_measured(desk: Desk) -> None:
    tracker, device = desk.tracker()
    with tracker:
        wait_until(lambda: tracker.clock is not None)
        clock = tracker.clock
        assert clock is not None
        assert abs(clock.offset_ns + device.device_ahead_us * 1000) <= clock.uncertainty_ns
        assert clock.uncertainty_ns == pytest.approx(200_000, abs=2000)
        assert abs(clock.measured_ns - time.monotonic_ns()) < 20e9


def test_a_jump_of_the_devices_clock_is_told_and_drift_is_not(desk: Desk) -> None:
    tracker, device = desk.tracker()
    with tracker:
        watcher = Watcher(tracker)
        wait_until(lambda: tracker.clock is not None)
        for _ in range(5):
            first = tracker.clock
            device.device_ahead_us += 1
            wait_until(lambda: tracker.clock is not first)  # noqa: B023
        assert watcher.events == []
        device.device_ahead_us += 30_000
        event = watcher.wait_for("clock")
        assert event.values["jump_ns"] == pytest.approx(-30e6, abs=1e6)
        wait_until(lambda: tracker.clock is not None and tracker.clock.offset_ns < -77.02e9)


@pytest.mark.parametrize("ahead_us", [5_000_000, -3_000_000])
def test_the_sdks_clock_may_be_another_than_the_hosts(desk: Desk, ahead_us: int) -> None:
    tracker, device = desk.tracker()
    device.system_ahead_us = ahead_us
    seen = Collector()
    with tracker:
        before = time.monotonic_ns()
        tracker.subscribe(seen)
        seen.wait_for(30)
        wait_until(lambda: tracker.clock is not None)
    samples = seen.samples
    assert abs(int(samples["time_ns"][0]) - before) < 10e9
    # Of the double is known when it measured, by its device clock.
    truth = samples["device_time_ns"] - device.device_ahead_us * 1000
    np.testing.assert_allclose(samples["time_ns"], truth, atol=200_000)
    assert tracker.clock is not None
    assert abs(tracker.clock.offset_ns + device.device_ahead_us * 1000) <= tracker.clock.uncertainty_ns


def test_a_coarse_host_clock_is_measured_at_its_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    from gaze_capture.trackers import tobii

    tick_ns = 15_625_000
    now_ns = [100 * tick_ns + 3_000_000]

    class CoarseTime:
        @staticmethod
        def monotonic_ns() -> int:
            now_ns[0] += 2_000
            return now_ns[0] // tick_ns * tick_ns

        @staticmethod
        def get_clock_info(name: str) -> Any:
            return type("Info", (), {"resolution": tick_ns / 1e9})

    monkeypatch.setattr(tobii, "time", CoarseTime)
    shift_ns, uncertainty_ns = tobii._host_shift(lambda: (now_ns[0] - 777_000_000) // 1000)
    assert abs(shift_ns - 777_000_000) < 20_000
    assert uncertainty_ns < 20_000


# Calibration


def calibrate(tracker: TobiiTracker, eyes: Any = "both", points: Any = FIVE) -> CalibrationOutcome:
    calibrator = tracker.calibrator
    assert calibrator is not None
    calibrator.begin(eyes)
    try:
        calibrator.collect(points, looked, threading.Event())
        return calibrator.compute()
    finally:
        calibrator.end()


def test_a_calibration_of_both_eyes(desk: Desk) -> None:
    tracker, device = desk.tracker()
    shown: list[Point] = []
    with tracker:
        calibrator = tracker.calibrator
        assert calibrator is not None
        calibrator.begin()
        calibrator.collect(FIVE, lambda x, y: shown.append((x, y)), threading.Event())
        outcome = calibrator.compute()
        calibrator.end()
        calibrator.end()
        geometry = tracker.geometry
    assert shown == list(FIVE)
    assert (outcome.eyes, outcome.text) == ("both", "Both eyes are calibrated on 5 of 5 targets.")
    assert [(point.x, point.y) for point in outcome.points] == list(FIVE)
    for point in outcome.points:
        assert point.left and point.right
        # The double's gaze lies a hundredth of the screen's width beside each target.
        aside, at = geometry.degrees_from_normalised(np.array([[point.x + 0.01, 0.5], [point.x, 0.5]]))
        assert point.left_error_deg == pytest.approx(abs(aside[0] - at[0]), rel=1e-3)
        assert point.right_error_deg == point.left_error_deg
    assert not device.entered_monocular
    assert not device.calibrating
    assert [call[0] for call in device.calls] == ["enter", *["collect"] * 5, "leave"]


def test_points_that_fail_are_tried_twice_and_told(desk: Desk) -> None:
    tracker, device = desk.tracker()
    device.blind_at = {(0.1, 0.1): 1, (0.9, 0.9): 2}
    with tracker:
        outcome = calibrate(tracker)
    assert outcome.text == "Both eyes are calibrated on 4 of 5 targets."
    assert [point.left for point in outcome.points] == [True, True, True, True, False]
    assert outcome.points[4].left_error_deg is None
    tries = [call[1:3] for call in device.calls if call[0] == "collect"]
    assert [tries.count(point) for point in FIVE] == [1, 2, 1, 1, 2]


@pytest.mark.parametrize("blind", [0, 99])
def test_a_calibration_that_fails_says_what_to_do(desk: Desk, blind: int) -> None:
    tracker, device = desk.tracker()
    device.computed = frozenset()
    device.blind_at = dict.fromkeys(FIVE, blind)
    with tracker:
        outcome = calibrate(tracker)
    assert outcome.eyes is None
    assert f"seen on {0 if blind else 5} of 5 targets" in outcome.text
    assert len(outcome.points) == 5
    assert not any(point.left or point.right for point in outcome.points)


@pytest.mark.parametrize("monocular", [True, False])
@pytest.mark.parametrize("eye", ["left", "right"])
def test_one_eye_is_calibrated(desk: Desk, monocular: bool, eye: Any) -> None:
    tracker, device = desk.tracker(monocular=monocular)
    with tracker:
        outcome = calibrate(tracker, eye)
    assert outcome.eyes == eye
    assert outcome.text == f"The {eye} eye alone is calibrated on 5 of 5 targets."
    assert bool(device.entered_monocular) is monocular
    collected = {call[3] for call in device.calls if call[0] == "collect"}
    assert collected == {frozenset({eye}) if monocular else BOTH}
    assert all(getattr(point, eye) for point in outcome.points)
    assert outcome.points[0].left_error_deg is None if eye == "right" and monocular else True


def test_a_success_of_one_eye_is_told_also_without_points(desk: Desk) -> None:
    tracker, device = desk.tracker()
    device.seen = lambda number: LEFT
    with tracker:
        outcome = calibrate(tracker)
    assert outcome.eyes == "left"
    assert [(point.left, point.right) for point in outcome.points] == [(True, False)] * 5


def test_the_wanted_eye_may_not_be_the_one_that_succeeds(desk: Desk) -> None:
    tracker, device = desk.tracker(monocular=False)
    device.seen = lambda number: LEFT
    with tracker:
        outcome = calibrate(tracker, "right")
    assert outcome.eyes is None
    assert "The right eye was not seen well enough" in outcome.text


def test_single_points_are_redone(desk: Desk) -> None:
    tracker, device = desk.tracker()
    with tracker:
        calibrator = tracker.calibrator
        assert calibrator is not None and calibrator.can_redo
        calibrator.begin()
        calibrator.collect(FIVE, looked, threading.Event())
        calibrator.compute()
        calibrator.collect([(0.1, 0.9)], looked, threading.Event())
        outcome = calibrator.compute()
        calibrator.end()
    assert outcome.eyes == "both"
    assert len(outcome.points) == 5
    assert device.calls[6:8] == [("discard", 0.1, 0.9, BOTH), ("collect", 0.1, 0.9, BOTH)]


def test_beginning_anew_forgets(desk: Desk) -> None:
    tracker, device = desk.tracker()
    with tracker:
        calibrator = tracker.calibrator
        assert calibrator is not None
        calibrator.begin()
        calibrator.collect(FIVE, looked, threading.Event())
        calibrator.begin()
        assert calibrator.compute().eyes is None
        calibrator.end()
    assert [call[0] for call in device.calls] == ["enter", *["collect"] * 5, "leave", "enter", "leave"]


def test_collecting_stops_where_it_is_told_to(desk: Desk) -> None:
    tracker, device = desk.tracker()
    stop = threading.Event()
    shown: list[Point] = []

    def show(x: float, y: float) -> None:
        shown.append((x, y))
        if len(shown) == 3:
            stop.set()

    with tracker:
        calibrator = tracker.calibrator
        assert calibrator is not None
        calibrator.begin()
        calibrator.collect(FIVE, show, stop)
        calibrator.end()
    assert len(shown) == 3
    assert [call[0] for call in device.calls].count("collect") == 2


def test_calibration_mode_is_left_when_something_goes_wrong(desk: Desk) -> None:
    tracker, device = desk.tracker()

    def broken(x: float, y: float) -> None:
        device.refuse["collect"] = "se_calibration_busy"

    def no_window(x: float, y: float) -> None:
        raise ZeroDivisionError

    with tracker:
        calibrator = tracker.calibrator
        assert calibrator is not None
        calibrator.begin()
        with pytest.raises(UserError, match="cannot collect calibration data: the tracker refused"):
            calibrator.collect(FIVE, broken, threading.Event())
        assert not device.calibrating
        with pytest.raises(UserError, match="begin it anew"):
            calibrator.compute()
        device.refuse.clear()
        calibrator.begin()
        with pytest.raises(ZeroDivisionError):
            calibrator.collect(FIVE, no_window, threading.Event())
        assert not device.calibrating
        assert calibrate(tracker).eyes == "both"


def test_closing_leaves_calibration_mode(desk: Desk) -> None:
    tracker, device = desk.tracker()
    with tracker:
        assert tracker.calibrator is not None
        tracker.calibrator.begin()
    assert not device.calibrating


def test_a_device_unplugged_while_calibrating_leaves_it_when_it_is_back(desk: Desk) -> None:
    tracker, device = desk.tracker()
    with tracker:
        watcher = Watcher(tracker)
        calibrator = tracker.calibrator
        assert calibrator is not None
        calibrator.begin()
        with pytest.raises(UserError, match="check its cable and power"):
            calibrator.collect(FIVE, lambda x, y: device.unplug(), threading.Event())
        watcher.wait_for("lost")
        with pytest.raises(UserError, match="is not connected"):
            calibrator.begin()
        with pytest.raises(UserError, match="is not connected"):
            calibrator.save()
        assert device.calibrating
        device.replug()
        watcher.wait_for("lost", "restored")
        wait_until(lambda: not device.calibrating)
        assert calibrate(tracker).eyes == "both"


def test_a_calibration_that_a_crash_left_open_is_taken_over(desk: Desk) -> None:
    tracker, device = desk.tracker()
    device.calibrating = True
    with tracker:
        assert calibrate(tracker).eyes == "both"
    assert not device.calibrating


def test_a_calibration_is_saved_and_restored(desk: Desk) -> None:
    tracker, device = desk.tracker()
    with tracker:
        calibrator = tracker.calibrator
        assert calibrator is not None
        assert calibrate(tracker).eyes == "both"
        saved = calibrator.save()
        assert saved == b"calibrated:left,right"
        device.calibration = b"factory"
        calibrator.restore(saved)
        assert device.calibration == saved
        for data, told in ((b"", "is empty"), (b"of another model", "cannot use the saved calibration")):
            with pytest.raises(UserError, match=told):
                calibrator.restore(data)
        assert not device.calibrating
        device.calibration = b""
        assert calibrator.save() is None


def test_a_calibration_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaze_capture.trackers.tobii_calibrator.SETTLE_S", 0.005)
    monkeypatch.setattr("gaze_capture.trackers.tobii_titta_device.CALIBRATION_TIMEOUT_S", 0.1)
    desk = Desk("TittaPy_v2", monkeypatch)
    tracker, device = desk.tracker()
    answer = threading.Event()

    def hang(*_: Any) -> frozenset[str]:
        answer.wait()
        return BOTH

    with tracker:
        calibrator = tracker.calibrator
        assert calibrator is not None
        calibrator.begin()
        monkeypatch.setattr(device, "collect", hang)
        with pytest.raises(UserError, match="does not answer"):
            calibrator.collect(FIVE, looked, threading.Event())
        # Entering again would wait, with everything else, for the step that hangs.
        with pytest.raises(UserError, match="never answered"):
            calibrator.begin()
    answer.set()
    device.switch_off()


def test_a_model_without_calibration_has_no_calibrator(desk: Desk) -> None:
    tracker, _ = desk.tracker(capabilities=("has_gaze_data",), monocular=False)
    with tracker:
        assert tracker.calibrator is None


# Closing


def test_closing_from_within_a_callback(desk: Desk) -> None:
    tracker, device = desk.tracker()
    blocks: list[Any] = []

    def close_at_once(block: Any) -> None:
        blocks.append(block)
        tracker.close()

    tracker.open()
    tracker.subscribe(close_at_once)
    wait_until(lambda: tracker.ended and not device.streams.get("gaze"))
    assert len(blocks) == 1
    tracker.close()


def test_closing_when_the_connection_is_lost(desk: Desk) -> None:
    tracker, device = desk.tracker()
    tracker.open()
    tracker.subscribe(lambda block: None)
    tracker.watch(lambda event: tracker.close())
    device.unplug()
    wait_until(lambda: tracker.ended and not device.streams.get("gaze"))


def test_nothing_is_left_subscribed(desk: Desk) -> None:
    tracker, device = desk.tracker()
    with tracker:
        tracker.subscribe(lambda block: None)
    assert all(not callbacks for callbacks in device.streams.values())


# What cannot be


@pytest.mark.parametrize(
    ("operation", "status", "told"),
    [
        ("connect", "se_connection_failed", "cannot be reached; check its cable and power"),
        ("connect", "se_not_available", "cannot be reached"),
        ("connect", "saved_license_failed_to_apply", "licence"),
        ("connect", "se_internal", "cannot be reached"),
        ("frequency", "se_calibration_busy", "the tracker refused; close other programs"),
        ("display area", "display_area_not_valid", "Eye Tracker Manager"),
        ("display area", "se_not_supported", "does not support"),
        ("frequency", "se_insufficient_license", "licence does not allow it; ask Tobii"),
        ("subscribe notification", "se_insufficient_license", "licence"),
    ],
)
def test_a_tracker_that_refuses_is_told_in_a_sentence(
    desk: Desk, operation: str, status: str, told: str
) -> None:
    tracker, device = desk.tracker()
    device.refuse[operation] = status
    with pytest.raises(UserError, match=told) as caught:
        tracker.open()
    assert "\n" not in str(caught.value)
    assert not device.streams.get("time_sync")
    tracker.close()


def test_gaze_without_a_licence(desk: Desk) -> None:
    tracker, device = desk.tracker()
    device.refuse["subscribe gaze"] = "se_insufficient_license"
    with tracker, pytest.raises(UserError, match="cannot deliver gaze: its licence does not allow it"):
        tracker.subscribe(lambda block: None)


def test_an_address_where_nothing_is(desk: Desk) -> None:
    desk.put(Hardware())
    with pytest.raises(UserError, match="The Tobii at tet-tcp://nowhere cannot be connected to"):
        TobiiTracker(SCREEN_PX, "tet-tcp://nowhere").open()


@pytest.mark.parametrize(
    ("corners", "told"),
    [
        ({"top_left": (0.0,) * 3, "top_right": (0.0,) * 3, "bottom_left": (0.0,) * 3}, "has no display area"),
        ({"top_left": (math.nan,) * 3}, "has no display area"),
        (
            {"top_left": (-25.0, 30, 0), "top_right": (25.0, 30, 0), "bottom_left": (-25.0, 2, 0)},
            "50 x 28 mm, which no screen is",
        ),
        (
            {"top_left": (-2500.0, 3000, 0), "top_right": (2500.0, 3000, 0), "bottom_left": (-2500.0, 2, 0)},
            "which no screen is",
        ),
        (
            {"top_left": (-200.0, 300, 0), "top_right": (200.0, 300, 0), "bottom_left": (0.0, 100, 0)},
            "which no screen is",
        ),
        (
            {"top_left": (-170.0, 260, 0), "top_right": (170.0, 260, 0), "bottom_left": (-170.0, 4, 0)},
            "340 x 256 mm, which is not the shape of a screen of 1920 x 1080 pixels",
        ),
    ],
)
def test_a_display_area_that_cannot_be(desk: Desk, corners: dict[str, Any], told: str) -> None:
    tracker, device = desk.tracker()
    device.corners |= corners
    with pytest.raises(UserError, match=told) as caught:
        tracker.open()
    assert "Eye Tracker Manager" in str(caught.value)


# Searching


def test_trackers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = Hardware(), Hardware(address="tobii-prp://TPNA1-030107130861")
    module = research_module(*devices, search_s=0.05)
    monkeypatch.setitem(sys.modules, "tobii_research", module)
    label = "Tobii Pro Spectrum TPSP1-010106043102"
    assert find_tobii() == [Found("tobii", label, device.address) for device in devices]
    for device in devices:
        device.plugged = False
    assert find_tobii() == []

    def failing() -> None:
        raise module.EyeTrackerInternalError("se_internal")

    monkeypatch.setattr(module, "find_all_eyetrackers", failing)
    with pytest.raises(UserError, match="cannot be searched for"):
        find_tobii()
    for device in devices:
        device.switch_off()


def test_titta_searches_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"model": "Tobii Pro Fusion", "serial_number": "TPFC2-1", "address": "tet-tcp://169.254.1.2"}
    script = tmp_path / "TittaPy_v2.py"
    script.write_text(f"def find_all_eye_trackers():\n    return [{found!r}]\n")
    monkeypatch.setitem(sys.modules, "tobii_research", None)
    monkeypatch.setitem(sys.modules, "TittaPy_v2", ModuleType("TittaPy_v2"))
    monkeypatch.syspath_prepend(tmp_path)
    assert find_tobii() == [Found("tobii", "Tobii Pro Fusion TPFC2-1", "tet-tcp://169.254.1.2")]
    script.write_text("def find_all_eye_trackers():\n    raise RuntimeError('no service')\n")
    with pytest.raises(UserError, match=r"cannot be searched for: RuntimeError: no service\.$"):
        find_tobii()


def test_without_tobiis_software(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="install it with: pip install"):
        find_tobii()
    with pytest.raises(UserError, match="install it with: pip install"):
        TobiiTracker(SCREEN_PX, "tet-tcp://nowhere").open()


# The doubles against the real packages


def real(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} is not installed in this Python: {error}")


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


@pytest.fixture
def double() -> Iterator[tuple[Any, Hardware]]:
    device = Hardware()
    yield research_module(device), device
    device.switch_off()


def test_tobii_research_has_the_surface_of_its_double(double: tuple[Any, Hardware]) -> None:
    package = real("tobii_research")
    module: ModuleType = double[0]
    compared = 0
    for name, made in vars(module).items():
        if name.startswith("__"):
            continue
        theirs = getattr(package, name)
        if name in CONSTANTS:
            assert theirs == made, name
        elif isinstance(made, type) and issubclass(made, Exception):
            assert issubclass(theirs, Exception)
            assert theirs.__mro__[1:] == made.__mro__[1:], name
            assert str(theirs("why")) == str(made("why"))
        elif isinstance(made, type):
            assert parameters(theirs) == parameters(made), name
            for member, mine in vars(made).items():
                if member.startswith("_"):
                    continue
                if isinstance(mine, property):
                    assert isinstance(getattr(theirs, member), property), f"{name}.{member}"
                else:
                    assert parameters(getattr(theirs, member)) == parameters(mine), f"{name}.{member}"
        else:
            assert parameters(theirs) == parameters(made), name
        compared += 1
    assert compared > 45
    for name in ("position_on_display_area", "validity"):
        assert isinstance(getattr(package.CalibrationEyeData, name), property)
    for name in ("left_eye", "right_eye"):
        assert isinstance(getattr(package.CalibrationSample, name), property)
    for name in ("position_on_display_area", "calibration_samples"):
        assert isinstance(getattr(package.CalibrationPoint, name), property)
    for name in ("status", "calibration_points"):
        assert isinstance(getattr(package.CalibrationResult, name), property)


def test_tobii_research_reads_what_its_double_sends(double: tuple[Any, Hardware]) -> None:
    package = real("tobii_research")
    device = double[1]
    gaze = device._gaze(5_000_000)
    read = package.GazeData(gaze)
    assert read.left_eye.gaze_point.position_on_display_area == gaze["left_gaze_point_on_display_area"]
    assert read.right_eye.pupil.diameter == 3.25
    assert read.system_time_stamp == 5_000_000
    device.seen = lambda number: frozenset()
    assert not package.GazeData(device._gaze(1)).left_eye.gaze_origin.validity
    sync: list[dict[str, Any]] = []
    device.subscribe("time_sync", sync.append)
    wait_until(lambda: bool(sync))
    assert package.TimeSynchronizationData(sync[0]).device_time_stamp == sync[0]["device_time_stamp"]
    area = package.DisplayArea(device.corners)
    assert (area.width, area.height) == pytest.approx((531, 299))
    stamp = {"system_time_stamp": 1}
    assert package.GazeOutputFrequencyChangedData({**stamp, "gaze_output_frequency": 60.0})
    assert package.DeviceFaultsData({**stamp, "faults": "a"}).faults == "a"
    assert package.DeviceWarningsData({**stamp, "warnings": "a"}).warnings == "a"
    overflow = package.StreamBufferOverflowData({**stamp, "notification_source_stream": "gaze"})
    assert overflow.notification_source_stream == "gaze"
    error = {**stamp, "error": package.STREAM_ERROR_INSUFFICIENT_LICENSE, "source": "s", "message": "m"}
    assert package.StreamErrorData(error).message == "m"


def test_the_real_tobii_research_refuses_as_its_double_does(double: tuple[Any, Hardware]) -> None:
    package, module = real("tobii_research"), double[0]
    for each in (package, module):
        with pytest.raises(ValueError, match="initialized with a URI"):
            each.EyeTracker(5)
        with pytest.raises(each.EyeTrackerInternalError):
            each.EyeTracker("tet-tcp://nowhere")
        with pytest.raises(ValueError, match="initialized with an EyeTracker"):
            each.ScreenBasedCalibration(5)
    assert abs(package.get_system_time_stamp() - module.get_system_time_stamp()) < 10_000_000 or (
        sys.platform == "win32"
    )


def test_tittapy_has_the_surface_of_its_double() -> None:
    package = real("TittaPy_v2")
    device = Hardware()
    module: Any = titta_module(device)
    device.switch_off()
    for name, members in TITTA_ENUMS.items():
        assert tuple(getattr(package, name).__members__) == members
    assert set(TITTA_STREAMS) <= set(package.EyeTracker.stream.__members__)
    for name in ("find_all_eye_trackers", "get_system_timestamp"):
        assert documented(getattr(package, name), name) == [parameters_documented(getattr(module, name))]
    compared = 0
    for name, mine in vars(module.EyeTracker).items():
        if name.startswith("_") and name != "__init__":
            continue
        theirs = getattr(package.EyeTracker, name)
        if isinstance(mine, property):
            assert isinstance(theirs, property)
            assert (mine.fset is None) or theirs.fset is not None, name
        else:
            assert parameters_documented(mine) in documented(theirs, name), name
        compared += 1
    assert compared == 20
    with pytest.raises(RuntimeError, match=r"Error code: \d+: TOBII_RESEARCH_STATUS_"):
        package.EyeTracker("tet-tcp://nowhere")


def documented(function: Any, name: str) -> list[list[tuple[str, bool]]]:
    """Return the arguments, with whether they have a default, of each signature that pybind11 documents."""
    found = []
    for line in (function.__doc__ or "").splitlines():
        match = re.match(rf"(?:\d+\. )?{name}\((.*)\) -> ", line)
        if match and not match.group(1).startswith("*args"):
            inner = re.sub(r"\[[^][]*(?:\[[^][]*\][^][]*)*\]", "", match.group(1))
            arguments = [each.strip() for each in inner.split(",") if each.strip()]
            found.append([(each.split(":")[0], "=" in each) for each in arguments])
    return found


def parameters_documented(function: Any) -> list[tuple[str, bool]]:
    return [
        (each.name, each.default is not inspect.Parameter.empty)
        for each in inspect.signature(function).parameters.values()
    ]


def test_the_real_sdks_clock_and_errors_are_understood() -> None:
    from gaze_capture.trackers.tobii import _host_shift

    package = real("TittaPy_v2")
    shift_ns, uncertainty_ns = _host_shift(package.get_system_timestamp)
    if sys.platform == "linux":
        assert (shift_ns, uncertainty_ns) == (0, 0)
    with pytest.raises(UserError, match="The Tobii at tet-tcp://nowhere cannot be connected to"):
        TobiiTracker(SCREEN_PX, "tet-tcp://nowhere").open()
