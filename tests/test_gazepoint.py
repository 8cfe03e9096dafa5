import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.recording import Samples
from gaze_capture.simulate import DESK_SCREEN
from gaze_capture.trackers import gazepoint, opengaze
from gaze_capture.trackers.discovery import open_tracker
from gaze_capture.trackers.gazepoint import GazepointTracker, find_gazepoint
from gaze_capture.trackers.opengaze import Parser, host_and_port
from gaze_capture.trackers.screen import KnownScreen
from gaze_capture.trackers.tracker import Point, TrackerEvent
from tests.gazepoint_double import GazepointServer
from tests.lsl_double import wait_until

SCREEN = KnownScreen(mm=(527.0, 296.0), viewing_distance_mm=650.0)


class Watched:
    """A tracker that is open, with all that it delivers and tells."""

    def __init__(self, server: GazepointServer) -> None:
        self.tracker = GazepointTracker(SCREEN, server.address)
        self.blocks: list[Samples] = []
        self.events: list[TrackerEvent] = []
        self.tracker.watch(self.events.append)
        self.tracker.open()
        self.tracker.subscribe(self.blocks.append)

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *error: object) -> None:
        self.tracker.close()

    @property
    def samples(self) -> Samples:
        return np.concatenate(self.blocks)

    def wait_for(self, more: int) -> None:
        have = sum(map(len, list(self.blocks)))
        wait_until(lambda: sum(map(len, list(self.blocks))) >= have + more)

    def wait_told(self, kind: str) -> None:
        wait_until(lambda: kind in self.kinds())

    def kinds(self) -> list[str]:
        return [event.kind for event in list(self.events)]


def assert_equal_to_sent(samples: Samples, server: GazepointServer) -> None:
    """Every sample is what was sent, to float32, and none between the first and the last is missing."""
    sent = {round(float(record["TIME"]) * 1e9): record for record in list(server.sent)}
    times = samples["device_time_ns"].tolist()
    assert times == [time for time in sent if times[0] <= time <= times[-1]]
    for side, flag in (("left", "L"), ("right", "R")):
        for name, word, valid in (
            (f"{side}_x", f"{flag}POGX", f"{flag}POGV"),
            (f"{side}_y", f"{flag}POGY", f"{flag}POGV"),
            (f"pupil_{side}", f"{flag}PMM", f"{flag}PMMV"),
        ):
            records = [sent[time] for time in times]
            wanted = [float(item[word]) if item[valid] == "1" else np.nan for item in records]
            np.testing.assert_array_equal(samples[name], np.array(wanted, np.float32))


@pytest.mark.parametrize(
    "faults", [{}, {"shred": True, "garbage": True}, {"unseen_every": 7, "drop_every": 5}]
)
def test_what_was_sent_is_what_is_received(faults: dict[str, bool | int]) -> None:
    with GazepointServer(**faults) as server, Watched(server) as seen:  # type: ignore[arg-type]
        seen.wait_for(150)
        seen.tracker.close()
        assert_equal_to_sent(seen.samples, server)
        assert seen.tracker.label == "Gazepoint GP3HD (123456789)"
        assert seen.tracker.geometry == DESK_SCREEN
        assert seen.tracker.rate_hz == 150.0
        assert seen.events == []


def test_host_times_are_those_of_the_device_not_of_the_arrival() -> None:
    with GazepointServer(shred=True) as server, Watched(server) as seen:
        seen.wait_for(300)
        seen.tracker.close()
        at = {
            round(float(record["TIME"]) * 1e9): ns
            for record, ns in zip(server.sent, server.sent_at_ns, strict=False)
        }
        late = np.array([row["time_ns"] - at[int(row["device_time_ns"])] for row in seen.samples]) / 1e6
        # The same for all of them; the arrivals themselves differ by much more on a busy machine.
        assert np.ptp(np.quantile(late, [0.05, 0.95])) < 5.0
        assert np.median(late) > -1.0
        clock = seen.tracker.clock
        assert clock is not None
        assert clock.offset_ns == pytest.approx(-1000e9, abs=0.05e9)
        eyes = seen.tracker.eyes
        assert eyes is not None
        assert eyes.distance_mm == pytest.approx(650)
        assert eyes.left_mm == pytest.approx((-31.0, 20 - 148, 640.0))


def test_records_out_of_order_are_left_out_counted_and_told_once() -> None:
    with GazepointServer(swap_every=10) as server, Watched(server) as seen:
        seen.wait_for(100)
        seen.tracker.close()
        assert_equal_to_sent(seen.samples, server)
        assert seen.tracker.out_of_order >= 9
        assert seen.kinds() == ["note"]


@pytest.mark.parametrize("jump_s", [100.0, -100.0, -0.5])
def test_a_jump_of_the_clock_is_told_and_host_times_go_on(jump_s: float) -> None:
    with GazepointServer() as server, Watched(server) as seen:
        # The clock must have been known for a while before it can be said to jump.
        seen.wait_for(400)
        server.clock_ahead_s += jump_s
        seen.wait_told("clock")
        told = next(event for event in seen.events if event.kind == "clock")
        assert told.values["jumped_s"] == pytest.approx(jump_s, abs=0.3)
        seen.wait_for(100)
        samples = seen.samples
        assert (np.diff(samples["time_ns"]) > 0).all()
        assert np.diff(samples["time_ns"]).max() < 5e9
        assert seen.kinds().count("clock") == 1


@pytest.mark.parametrize("restart", [True, False])
def test_a_server_that_closes_is_connected_to_again(restart: bool) -> None:
    with GazepointServer() as server, Watched(server) as seen:
        seen.wait_for(30)
        server.stop()
        seen.wait_told("lost")
        assert not seen.tracker.connected
        ahead = server.clock_ahead_s
        server.restart()
        if not restart:
            server.clock_ahead_s = ahead
        seen.wait_told("restored")
        seen.wait_for(100)
        assert seen.tracker.connected
        assert (np.diff(seen.samples["time_ns"]) > 0).all()
        assert seen.samples["time_ns"][-1] == pytest.approx(time.monotonic_ns(), abs=1e9)
        assert seen.kinds() == (["lost", "restored", "clock"] if restart else ["lost", "restored"])


def test_a_server_that_hangs_is_connected_to_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gazepoint, "SILENT_S", 0.3)
    with GazepointServer() as server, Watched(server) as seen:
        seen.wait_for(30)
        server.hanging = True
        seen.wait_told("lost")
        server.hanging = False
        seen.wait_told("restored")
        seen.wait_for(30)


def test_a_rate_that_is_not_told_is_measured() -> None:
    with GazepointServer(60.0, tell_rate=False) as server, Watched(server) as seen:
        assert seen.tracker.rate_hz == pytest.approx(60, rel=0.05)
        assert seen.events == []
        server.rate_hz = 150.0


def test_another_rate_than_the_told_one_is_told() -> None:
    with GazepointServer(150.0, told_hz=60.0) as server, Watched(server) as seen:
        assert seen.tracker.rate_hz == 60.0
        seen.wait_told("rate")
        assert seen.tracker.rate_hz == pytest.approx(150, rel=0.1)
        assert seen.events[0].values == {"rate_hz": seen.tracker.rate_hz}


def test_records_that_make_no_sense_are_passed_over() -> None:
    with GazepointServer() as server, Watched(server) as seen:
        seen.wait_for(20)
        server.inject += [
            '<REC TIME="nan" LPOGX="0.5" LPOGY="0.5" LPOGV="1" />\r\n',
            '<REC TIME="1e300" LPOGX="0.5" />\r\n',
            '<REC TIME="soon" />\r\n',
            "<REC />\r\n",
            '<CAL ID="CALIB_START_PT" PT="x" />\r\n',
            '<ACK />\r\n<NACK ID="NOBODY_ASKED" />\r\n',
        ]
        seen.wait_for(60)
        assert server.inject == []
        seen.tracker.close()
        assert_equal_to_sent(seen.samples, server)


def test_a_server_with_only_the_best_point_of_gaze_gives_it_to_both_eyes() -> None:
    with (
        GazepointServer(refuse=("ENABLE_SEND_POG_LEFT", "ENABLE_SEND_POG_RIGHT")) as server,
        Watched(server) as seen,
    ):
        seen.wait_for(20)
        sent = {round(float(record["TIME"]) * 1e9): record for record in list(server.sent)}
        row = seen.samples[10]
        record = sent[int(row["device_time_ns"])]
        assert row["left_x"] == row["right_x"] == np.float32(record["BPOGX"])


def test_what_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opengaze, "ANSWER_S", 0.3)
    with GazepointServer() as server:
        with pytest.raises(UserError, match=r"--screen-mm.*--distance-mm"):
            GazepointTracker(None, server.address)
        address = server.address
    with pytest.raises(UserError, match="start Gazepoint Control"):
        GazepointTracker(SCREEN, address)
    with GazepointServer(silent=True) as server, pytest.raises(UserError, match="start Gazepoint Control"):
        GazepointTracker(SCREEN, server.address)
    with GazepointServer(refuse=("ENABLE_SEND_DATA",)) as server:
        tracker = GazepointTracker(SCREEN, server.address)
        with pytest.raises(UserError, match="refuses ENABLE_SEND_DATA"):
            tracker.open()
        tracker.close()
    for wrong in ("", "host:0", "host:99999", "a b:1"):
        with pytest.raises(UserError, match="should look like"):
            host_and_port(wrong)
    assert host_and_port("[::1]:17") == ("::1", 17)
    assert host_and_port("eye") == ("eye", 4242)


def test_a_server_is_found_and_opened() -> None:
    with GazepointServer() as server:
        found = find_gazepoint(server.address)
        assert [(item.kind, item.address) for item in found] == [("gazepoint", server.address)]
        tracker = open_tracker(found[0], screen=SCREEN)
        assert tracker.name == "gazepoint"
        tracker.close()
    assert find_gazepoint(server.address) == []


# Calibration

POINTS = ((0.5, 0.5), (0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9))


def test_calibration_shows_the_targets_and_tells_each_eye() -> None:
    shown: list[Point] = []
    with GazepointServer() as server, Watched(server) as seen:
        calibrator = seen.tracker.calibrator
        assert not calibrator.can_redo
        calibrator.begin()
        calibrator.collect(POINTS, lambda x, y: shown.append((x, y)), threading.Event())
        outcome = calibrator.compute()
        calibrator.end()
        assert shown == list(POINTS)
        assert server.points == list(POINTS)
        # Our window draws the targets, not the server's.
        assert "SET CALIBRATE_SHOW {'STATE': '0'}" in server.requests
        assert outcome.eyes == "both"
        assert outcome.text == "Calibrated on 5 of 5 targets, mean error 19 pixels."
        assert [(point.left, point.right) for point in outcome.points] == [(k != 1, True) for k in range(5)]
        assert outcome.points[0].left_error_deg == pytest.approx(np.degrees(np.arctan(5.27 / 650)), rel=0.01)
        assert outcome.points[0].right_error_deg == 0
        assert outcome.points[1].left_error_deg is None
        assert calibrator.save() is None
        with pytest.raises(UserError, match="calibrate anew"):
            calibrator.restore(b"")
        # Calibration starts the device's clock anew.
        seen.wait_told("clock")
        seen.wait_for(50)


def test_calibration_can_be_stopped() -> None:
    with GazepointServer(calibration_s=30) as server, Watched(server) as seen:
        calibrator, stop = seen.tracker.calibrator, threading.Event()
        calibrator.begin("left")
        calibrator.collect(POINTS, lambda x, y: stop.set(), stop)
        assert server.requests[-1] == "SET CALIBRATE_START {'STATE': '0'}"
        assert calibrator.compute().eyes is None


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda server: server.stop(), "lost|gone"),
        (lambda server: setattr(server, "refuse", ("CALIBRATE_START",)), "refuses"),
    ],
)
def test_calibration_that_fails_is_told(spoil: Callable[[GazepointServer], None], told: str) -> None:
    with GazepointServer(calibration_s=30) as server, Watched(server) as seen:
        calibrator = seen.tracker.calibrator
        with pytest.raises(UserError, match="not begun"):
            calibrator.collect(POINTS, lambda x, y: None, threading.Event())
        calibrator.begin()
        threading.Timer(0.0 if told == "refuses" else 0.3, spoil, [server]).start()
        time.sleep(0.1)
        with pytest.raises(UserError, match=told):
            calibrator.collect(POINTS, lambda x, y: None, threading.Event())


# The parser


def test_messages_are_found_however_the_bytes_are_cut() -> None:
    text = (
        b'<ACK ID="A" VALUE="1" />\r\n<REC TIME="1.5" X="0.2"/>garbage<REC TIME="2.5"\r\nX="nan" />'
        b'\x00<CAL ID=" B" /><NACK ID="C" />'
    )
    wanted = [("ACK", "A"), ("REC", ""), ("REC", ""), ("CAL", "B"), ("NACK", "C")]
    for size in (1, 2, 3, 7, len(text)):
        parser = Parser()
        found = [m for start in range(0, len(text), size) for m in parser.feed(text[start : start + size])]
        assert [(message.tag, message.id) for message in found] == wanted
        assert found[1].number("TIME") == 1.5
        assert found[1].number("MISSING") is None


def test_a_record_that_was_cut_off_does_not_spoil_the_next() -> None:
    parser = Parser()
    found = parser.feed(b'<REC TIME="1.0" LPO<REC TIME="2.0" />')
    assert [message.number("TIME") for message in found] == [2.0]
    # What never ends is forgotten.
    assert parser.feed(b"<REC " + b"x" * 100_000) == []
    assert [message.number("TIME") for message in parser.feed(b'<REC TIME="3.0" />')] == [3.0]
