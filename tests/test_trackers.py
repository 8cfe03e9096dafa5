import _thread
import contextlib
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.fixations import detect_fixations
from gaze_capture.headless import record_headless
from gaze_capture.recording import SAMPLE, Recording, Samples, ScreenGeometry
from gaze_capture.recording_codec import read_recording
from gaze_capture.simulate import DESK_SCREEN
from gaze_capture.synthetic_eye import Script, TrackerQuality
from gaze_capture.trackers.gazepoint import GazepointTracker
from gaze_capture.trackers.lsl import LslTracker
from gaze_capture.trackers.mouse import MouseTracker
from gaze_capture.trackers.replay import ReplayTracker
from gaze_capture.trackers.simulated import SimulatedTracker
from gaze_capture.trackers.tracker import Tracker
from tests.gazepoint_double import GazepointServer
from tests.lsl_double import BINOCULAR, LslSender

PERFECT = TrackerQuality(rms_s2s_deg=1e-4, drift_deg=0, blinks_per_minute=0, dropouts=0)


def recorded(rate_hz: float = 300.0, seconds: float = 20.0) -> Recording:
    count = round(rate_hz * seconds)
    time_ns = 55_000_000_000 + np.round(np.arange(count) * 1e9 / rate_hz).astype(np.int64)
    rng = np.random.default_rng(0)
    return Recording(
        id="old",
        annotator="anna",
        tracker="tobii",
        geometry=ScreenGeometry(1280, 800, 300.0, 190.0, 600.0),
        calibration=None,
        started_utc="2026-01-01T10:00:00+00:00",
        time_ns=time_ns,
        device_time_ns=time_ns - 1000,
        left_xy=rng.random((count, 2), dtype=np.float32),
        right_xy=rng.random((count, 2), dtype=np.float32),
        pupil_mm=rng.random((count, 2), dtype=np.float32),
        placements=(),
        simulated_from="masks",
    )


def has_ended(tracker: Tracker) -> bool:
    return tracker.ended


@contextlib.contextmanager
def lsl(**options: Any) -> Iterator[Tracker]:
    pytest.importorskip("pylsl")
    with LslSender(300.0, **options) as sender:
        yield LslTracker(sender.source_id or sender.name)


@contextlib.contextmanager
def gazepoint(**options: Any) -> Iterator[Tracker]:
    with GazepointServer(rate_hz=300.0, **options) as server:
        yield GazepointTracker(DESK_SCREEN, server.address)


MAKERS: dict[str, Callable[[], AbstractContextManager[Tracker]]] = {
    "simulated": lambda: nullcontext(SimulatedTracker(rate_hz=300.0)),
    "replay": lambda: nullcontext(ReplayTracker(recorded())),
    "fast replay": lambda: nullcontext(ReplayTracker(recorded(100.0), speed=3.0)),
    "mouse": lambda: nullcontext(MouseTracker(DESK_SCREEN, rate_hz=300.0)),
    "lsl": lsl,
    "lsl of pixels": lambda: lsl(channels=[(*words[:3], "pixels") for words in BINOCULAR]),
    "lsl of one position for both": lambda: lsl(
        channels=[("x", "both", "ScreenX", "norm"), ("y", "both", "ScreenY", "norm")]
    ),
    "lsl without a source id": lambda: lsl(source_id=""),
    "gazepoint": gazepoint,
    "gazepoint with garbage": lambda: gazepoint(shred=True, garbage=True),
}
"""Makers of what yields a tracker of about 300 Hz, and takes away in the end what stands behind it."""


class Collector:
    def __init__(self) -> None:
        self.blocks: list[Samples] = []
        self.arrivals: list[int] = []
        self.threads: set[int] = set()

    def __call__(self, block: Samples) -> None:
        self.arrivals.append(time.monotonic_ns())
        self.blocks.append(block)
        self.threads.add(threading.get_ident())

    @property
    def samples(self) -> Samples:
        return np.concatenate(self.blocks)

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 20
        while sum(map(len, list(self.blocks))) < count:
            assert time.monotonic() < deadline
            time.sleep(0.005)


@pytest.fixture(params=MAKERS.values(), ids=list(MAKERS))
def tracker(request: pytest.FixtureRequest) -> Iterator[Tracker]:
    with request.param() as made:
        yield made
        made.close()


def test_the_contract_of_every_tracker(tracker: Tracker) -> None:
    assert tracker.name
    assert tracker.label
    assert tracker.geometry.width_px > 0
    assert tracker.rate_hz == pytest.approx(300, rel=1e-3)
    assert tracker.expected(2.0) == pytest.approx(600, abs=1)
    assert tracker.expected(0.0) == 0
    with pytest.raises(RuntimeError):
        tracker.subscribe(lambda block: None)

    tracker.open()
    try:
        before = time.monotonic_ns()
        first, second = Collector(), Collector()
        end_first = tracker.subscribe(first)
        end_second = tracker.subscribe(second)
        first.wait_for(100)
        assert not has_ended(tracker)
        end_second()
        stopped = len(second.blocks)
        first.wait_for(150)
        assert len(second.blocks) == stopped
        end_first()
        end_first()

        samples = first.samples
        assert samples.dtype == SAMPLE
        assert min(map(len, first.blocks)) >= 1
        times = samples["time_ns"]
        assert (np.diff(times) > 0).all()
        assert (np.diff(samples["device_time_ns"]) > 0).all()
        # Fresh host times: after the subscription, and never ahead of the arrival.
        assert times[0] >= before
        for block, arrival in zip(first.blocks, first.arrivals, strict=True):
            assert block["time_ns"][-1] <= arrival
        assert np.median(np.diff(times)) == pytest.approx(1e9 / 300, rel=0.01)
        assert threading.get_ident() not in first.threads
        assert len(first.threads) == 1
        shared = np.isin(times, second.samples["time_ns"])
        assert second.samples.tobytes() == samples[shared].tobytes()
    finally:
        tracker.close()
    tracker.close()
    assert has_ended(tracker)
    after = Collector()
    tracker.subscribe(after)()
    assert after.blocks == []


def test_every_tracker_records_headless_and_loses_nothing(tracker: Tracker, tmp_path: Path) -> None:
    result = record_headless(tmp_path / "recordings" / "r1", tracker, "anna", 0.3)
    # Where the clock is not ours, time may be bent by up to a tenth while it is being found.
    count = result.expected
    assert 90 <= count <= (100 if tracker.name in ("lsl", "gazepoint") else 90)
    assert (result.recording, result.received, result.stored) == ("r1", count, count)
    assert tracker.ended
    recording = read_recording(tmp_path / "recordings" / "r1")
    assert (recording.annotator, recording.tracker) == ("anna", tracker.name)
    assert recording.geometry == tracker.geometry
    assert recording.simulated_from == tracker.simulated_from
    assert recording.notes["rate_hz"] == tracker.rate_hz
    assert len(recording.time_ns) == count
    summary = json.loads((tmp_path / "recordings/r1/recording.json").read_text())
    assert summary["samples"] == {"expected": count, "received": count, "stored": count}


# Each tracker's own


def test_the_simulated_eye_looks_around_on_the_screen() -> None:
    with SimulatedTracker(rate_hz=500) as tracker:
        tracker._start_ns = 1
        block = tracker._block(0, 500 * 90)
    xy = np.stack([block["left_x"], block["left_y"]], axis=1).astype(float)
    assert 0.01 < np.isnan(xy[:, 0]).mean() < 0.1
    assert ((xy > -0.05) & (xy < 1.05))[np.isfinite(xy)].all()
    found = detect_fixations(block["time_ns"] / 1e6, DESK_SCREEN.degrees_from_normalised(xy))
    # About 300 ms a fixation and 30 ms a saccade, without the blinks.
    assert 2 < len(found.start) / 90 < 4
    assert np.ptp(found.xy_deg[:, 0]) > 20
    assert np.diff(block["device_time_ns"]).sum() == pytest.approx(
        np.diff(block["time_ns"]).sum() * 1.00002, rel=1e-8
    )


def test_the_simulated_eye_follows_scripts() -> None:
    first = Script(np.array([[5.0, 5.0]]), np.array([10_000.0]))
    with SimulatedTracker(rate_hz=200, script=first, quality=PERFECT, bias_deg=(0.5, 0)) as tracker:
        seen = Collector()
        tracker.subscribe(seen)
        seen.wait_for(20)
        tracker.follow(Script(np.array([[-8.0, 2.0]]), np.array([10_000.0])))
        seen.wait_for(len(seen.samples) + 40)
    xy = np.stack([seen.samples["left_x"], seen.samples["left_y"]], axis=1)
    degrees = DESK_SCREEN.degrees_from_normalised(xy)
    np.testing.assert_allclose(degrees[0], [5.5, 5], atol=0.01)
    np.testing.assert_allclose(degrees[-1], [-7.5, 2], atol=0.01)
    # From one place to the other by a saccade, not by a leap.
    assert ((degrees[:, 0] < 5.4) & (degrees[:, 0] > -7.4)).sum() >= 3


def test_a_replay_gives_every_sample_back_and_ends() -> None:
    old = recorded(1000, 1.0)
    tracker = ReplayTracker(old, speed=4.0)
    assert tracker.rate_hz == pytest.approx(4000)
    assert (tracker.simulated_from, tracker.geometry) == ("masks", old.geometry)
    seen = Collector()
    tracker.open()
    tracker.subscribe(seen)
    deadline = time.monotonic() + 20
    while not tracker.ended:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    tracker.close()
    for name in SAMPLE.names or ():
        if name != "time_ns":
            np.testing.assert_array_equal(seen.samples[name], old.samples[name])
    np.testing.assert_allclose(np.diff(seen.samples["time_ns"]), 250_000, atol=2)


def test_a_whole_replay_is_recorded_without_a_time_limit(tmp_path: Path) -> None:
    result = record_headless(tmp_path / "r", ReplayTracker(recorded(500, 1.0), speed=5.0), "anna")
    assert (result.expected, result.received, result.stored) == (500, 500, 500)


def test_the_mouse_is_where_it_was_moved() -> None:
    with MouseTracker(DESK_SCREEN, rate_hz=250) as mouse:
        seen = Collector()
        mouse.subscribe(seen)
        seen.wait_for(10)
        mouse.move(0.25, 0.75)
        seen.wait_for(len(seen.samples) + 20)
        mouse.leave()
        seen.wait_for(len(seen.samples) + 20)
    x, y = seen.samples["left_x"], seen.samples["right_y"]
    assert np.isnan(x[0])
    assert np.isnan(x[-1])
    moved = np.isfinite(x)
    assert moved.sum() >= 15
    assert set(x[moved].tolist()) == {0.25}
    assert set(y[moved].tolist()) == {0.75}
    assert np.isnan(seen.samples["pupil_left"]).all()


# Recording without a window


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    record_headless(
        tmp_path / "r", SimulatedTracker(), "anna", 1.3, progress=lambda *values: told.append(values)
    )
    assert 2 <= len(told) <= 8
    assert all(0 <= done <= total == 2 for done, total, _ in told)


def test_control_c_ends_a_recording_well(tmp_path: Path) -> None:
    # A shell that starts the tests in its background has them ignore Ctrl+C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.4, _thread.interrupt_main)
    timer.start()
    result = record_headless(tmp_path / "r", SimulatedTracker(rate_hz=200), "anna", 60)
    timer.join()
    signal.signal(signal.SIGINT, before)
    assert 30 < result.stored < 2000
    assert result.expected == result.received == result.stored
    assert "cut_off" not in read_recording(tmp_path / "r").notes


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not remove files in use")
def test_a_removed_folder_ends_the_recording_with_a_sentence(tmp_path: Path) -> None:
    tracker = SimulatedTracker()
    timer = threading.Timer(0.3, shutil.rmtree, [tmp_path / "r"])
    timer.start()
    with pytest.raises(UserError, match="was removed"):
        record_headless(tmp_path / "r", tracker, "anna", 60)
    timer.join()
    assert tracker.ended


class SilentTracker(MouseTracker):
    """Delivers a few samples, then nothing, as one does whose cable was pulled."""

    def _due(self, elapsed_ns: int) -> int | None:
        return min(5, super()._due(elapsed_ns) or 0)


def test_a_tracker_that_falls_silent_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaze_capture.headless.SILENCE_S", 0.3)
    with pytest.raises(UserError, match="delivers nothing") as caught:
        record_headless(tmp_path / "r", SilentTracker(DESK_SCREEN), "anna", 60)
    assert "5 samples" in str(caught.value)
    assert len(read_recording(tmp_path / "r").time_ns) == 5


def test_a_recording_goes_on_when_its_tracker_comes_back(tmp_path: Path) -> None:
    told: list[str] = []
    with GazepointServer(rate_hz=100) as server:
        tracker = GazepointTracker(DESK_SCREEN, server.address)
        timers = [threading.Timer(1.5, server.stop), threading.Timer(2.5, server.restart)]
        for timer in timers:
            timer.start()
        result = record_headless(
            tmp_path / "r", tracker, "anna", 5.0, progress=lambda done, total, label: told.append(label)
        )
    recording = read_recording(tmp_path / "r")
    assert 450 <= result.expected <= 501
    assert 200 < result.stored == result.received == len(recording.time_ns) < 480
    measured = [event for event in recording.events if "offset_ns" in event.values]
    assert measured and {event.kind for event in measured} == {"clock"}
    told_of = [event for event in recording.events if event not in measured]
    assert [event.kind for event in told_of] == ["connection", "connection", "clock"]
    assert [event.values.get("state") for event in told_of] == ["lost", "restored", None]
    assert "Gazepoint GP3HD (123456789)" in told_of[0].values["text"]
    assert told_of[2].values["jumped_s"] < -900
    assert (np.diff(recording.time_ns) > 0).all()
    assert "lost, waiting for it" in told


def test_a_tracker_that_does_not_come_back_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaze_capture.headless.RETURN_S", 0.5)
    with GazepointServer() as server:
        tracker = GazepointTracker(DESK_SCREEN, server.address)
        threading.Timer(1.2, server.stop).start()
        with pytest.raises(UserError, match="did not come back"):
            record_headless(tmp_path / "r", tracker, "anna", 60)
    assert tracker.ended
    assert read_recording(tmp_path / "r").events[-1].values["state"] == "lost"


class SlowingTracker(MouseTracker):
    """Halves its rate after a second, as trackers do that are told to."""

    def _due(self, elapsed_ns: int) -> int | None:
        return int(min(elapsed_ns, 1e9) * 200 / 1e9 + max(0, elapsed_ns - 1e9) * 100 / 1e9) + 1

    def _time_ns(self, first: int, stop: int) -> Any:
        number = np.arange(first, stop)
        elapsed = np.where(number <= 200, number * 5_000_000, 1_000_000_000 + (number - 200) * 10_000_000)
        if first <= 200 < stop:
            self.tell("rate", "It measures 100 times a second.", rate_hz=100.0)
        return self._start_ns + elapsed


def test_samples_are_expected_at_the_rate_of_their_time(tmp_path: Path) -> None:
    result = record_headless(tmp_path / "r", SlowingTracker(DESK_SCREEN, 200), "anna", 2.0)
    assert result.stored == result.received == 300
    assert 300 <= result.expected <= 306
    assert [event.kind for event in read_recording(tmp_path / "r").events] == ["rate"]


@pytest.mark.parametrize(
    ("attempt", "told"),
    [
        (lambda path: SimulatedTracker(rate_hz=0), "rate"),
        (lambda path: ReplayTracker(recorded(), speed=-1), "speed"),
        (lambda path: ReplayTracker(recorded(seconds=0.001)), "too few samples"),
        (lambda path: record_headless(path / "r", SimulatedTracker(), "anna", 0), "longer than 0 s"),
    ],
)
def test_impossible_orders_are_told(tmp_path: Path, attempt: Callable[[Path], Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        attempt(tmp_path)
    assert list(tmp_path.iterdir()) == []
