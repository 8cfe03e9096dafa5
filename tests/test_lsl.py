import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pylsl")

from gaze_capture.errors import UserError
from gaze_capture.recording import Samples, ScreenGeometry
from gaze_capture.simulate import DESK_SCREEN
from gaze_capture.trackers.discovery import discover, open_tracker
from gaze_capture.trackers.lsl import LslTracker, find_lsl, pylsl
from gaze_capture.trackers.lsl_outlet import GazeOutlet, MarkerOutlet
from gaze_capture.trackers.screen import KnownScreen
from gaze_capture.trackers.simulated import SimulatedTracker
from gaze_capture.trackers.tracker import TrackerEvent
from tests.lsl_double import BINOCULAR, LslSender, Words, wait_until


class Watched:
    """A tracker that is open, with all that it delivers and tells."""

    def __init__(self, tracker: LslTracker) -> None:
        self.tracker = tracker
        self.blocks: list[Samples] = []
        self.events: list[TrackerEvent] = []
        tracker.watch(self.events.append)
        tracker.open()
        tracker.subscribe(self.blocks.append)

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *error: object) -> None:
        self.tracker.close()

    @property
    def samples(self) -> Samples:
        return np.concatenate(self.blocks)

    @property
    def count(self) -> int:
        return sum(map(len, list(self.blocks)))

    def kinds(self) -> list[str]:
        return [event.kind for event in list(self.events)]


def past_stamps(sender: LslSender, order: Iterable[int]) -> list[float]:
    """Return time stamps at 60 Hz, in an order, that lie between the beginning of the reception and now."""
    # What is sent before the connection stands is lost on the way.
    assert sender.outlet.wait_for_consumers(10)
    begin: float = sender.lsl.local_clock()
    time.sleep(0.3)
    return [begin + (k + 1) / 60 for k in order]


def received(channels: Sequence[Words], rows: Sequence[Sequence[float]], **options: Any) -> Samples:
    """Return what a tracker makes of values of channels."""
    with LslSender(60.0, channels, running=False, **options) as sender:
        with Watched(LslTracker(sender.source_id)) as seen:
            sender.push(rows, past_stamps(sender, range(len(rows))))
            wait_until(lambda: seen.count >= len(rows))
            return seen.samples


def test_what_was_sent_is_what_is_received() -> None:
    with LslSender(600.0) as sender:
        with Watched(LslTracker(sender.source_id)) as seen:
            assert seen.tracker.geometry == DESK_SCREEN
            assert sender.name in seen.tracker.label
            wait_until(lambda: seen.count > 400)
        sender.stop()
        samples = seen.samples
        sent_ns = np.round(sender.stamps * 1e9).astype(np.int64)
        first = int(np.searchsorted(sent_ns, samples["device_time_ns"][0]))
        np.testing.assert_array_equal(samples["device_time_ns"], sent_ns[first : first + len(samples)])
        values = sender.values[first : first + len(samples)]
        for column, name in enumerate(
            ("left_x", "left_y", "right_x", "right_y", "pupil_left", "pupil_right")
        ):
            np.testing.assert_array_equal(samples[name], values[:, column])
        clock = seen.tracker.clock
        assert clock is not None
        assert 0 < clock.uncertainty_ns < 100_000_000
        # Sender and receiver share a clock.
        most_ns = clock.uncertainty_ns + 1_000_000
        assert abs(clock.offset_ns) <= most_ns
        np.testing.assert_allclose(samples["time_ns"], samples["device_time_ns"], atol=most_ns, rtol=0)


def test_pixels_radii_confidence_and_missing_eyes() -> None:
    channels = [
        ("c", "both", "Confidence", "percent"),
        ("lx", "left", "screenx", "Pixels"),
        ("ly", "left", "screeny", "Pixels"),
        ("right gaze x", "", "ScreenX", "px"),
        ("right gaze y", "", "ScreenY", "px"),
        ("pl", "left", "Radius", "mm"),
        ("pr", "right", "Diameter", "pixels"),
    ]
    nan = float("nan")
    samples = received(
        channels,
        [
            (90, 960, 540, 480, 270, 1.5, 30),
            (50, 960, 540, 480, 270, 1.5, 30),
            (90, nan, 540, 480, 270, 0, 30),
            (90, 960, 540, -32768, -32768, nan, 30),
        ],
    )
    np.testing.assert_array_equal(samples["left_x"], np.array([0.5, nan, nan, 0.5], np.float32))
    np.testing.assert_array_equal(samples["left_y"], np.array([0.5, nan, nan, 0.5], np.float32))
    np.testing.assert_array_equal(samples["right_x"], np.array([0.25, nan, 0.25, nan], np.float32))
    np.testing.assert_array_equal(samples["pupil_left"], np.array([3, 3, nan, nan], np.float32))
    assert np.isnan(samples["pupil_right"]).all()


def test_one_eye_alone_and_one_position_for_both() -> None:
    left = received(BINOCULAR[:2], [(0.3, 0.4)])
    assert left["left_x"][0] == np.float32(0.3)
    assert np.isnan(left["right_x"]).all()
    both = received([("x", "both", "ScreenX", "norm"), ("y", "both", "ScreenY", "norm")], [(0.3, 0.4)])
    assert both["left_x"][0] == both["right_x"][0] == np.float32(0.3)


@pytest.mark.parametrize(
    "channels",
    [
        [("Fp1", "", "EEG", "microvolts"), ("Fp2", "", "EEG", "microvolts")],
        [("x", "left", "ScreenX", ""), ("y", "left", "ScreenY", "")],
        # Pupil Core's gaze refers to its scene camera, not to a screen.
        [("norm_x", "both", "ScreenX", "normalized", "world"), ("norm_y", "both", "ScreenY", "normalized", "world")],
        [("x", "left", "ScreenX", "normalized"), ("y", "right", "ScreenY", "normalized")],
    ],
)  # fmt: skip
def test_channels_that_cannot_be_told_are_refused_and_listed(channels: Sequence[Words]) -> None:
    with LslSender(60.0, channels) as sender:
        with pytest.raises(UserError, match="no channels of type ScreenX") as caught:
            LslTracker(sender.source_id)
        assert all(words[0] in str(caught.value) for words in channels)


def test_texts_are_refused_and_whole_numbers_are_not() -> None:
    with LslSender(60.0, format="cf_string", running=False) as sender:
        with pytest.raises(UserError, match="texts"):
            LslTracker(sender.source_id)
    pixels = [("x", "both", "ScreenX", "pixels"), ("y", "both", "ScreenY", "pixels")]
    assert received(pixels, [(960, 540)], format="cf_int16")["left_x"][0] == 0.5


def test_time_stamps_that_make_no_sense_are_passed_over() -> None:
    with LslSender(60.0, running=False) as sender, Watched(LslTracker(sender.source_id)) as seen:
        stamps = past_stamps(sender, range(4))
        for stamp in (stamps[0], float("nan"), stamps[1], float("inf"), -1e300, stamps[2]):
            sender.push([[0.5] * 6], [stamp])
        wait_until(lambda: seen.count >= 3)
        sender.push([[0.5] * 6], [stamps[3]])
        wait_until(lambda: seen.count >= 4)
        assert seen.count == 4
        assert seen.events == []


def test_the_screen_is_the_streams_or_else_the_callers() -> None:
    with LslSender(60.0, screen={"width_px": 800, "height_px": 600}) as sender:
        with pytest.raises(UserError, match=r"--screen-mm.*--distance-mm") as caught:
            LslTracker(sender.source_id)
        assert "--screen-px" not in str(caught.value)
        tracker = LslTracker(sender.source_id, KnownScreen((1, 1), (400.0, 300.0), 600.0))
        assert tracker.geometry == ScreenGeometry(800, 600, 400.0, 300.0, 600.0)
        tracker.close()


def test_samples_out_of_order_are_left_out_counted_and_told_once() -> None:
    with LslSender(60.0, running=False) as sender, Watched(LslTracker(sender.source_id)) as seen:
        order = [0, 1, 2, 2, 1, 3, 4, 3, 5]
        sender.push(np.repeat([[k / 10] for k in order], 6, axis=1), past_stamps(sender, order))
        wait_until(lambda: seen.count >= 6)
        np.testing.assert_allclose(seen.samples["left_x"], np.arange(6) / 10, rtol=1e-6)
        assert seen.tracker.out_of_order == 3
        assert seen.kinds() == ["note"]


def test_a_stream_without_a_nominal_rate_is_measured() -> None:
    with LslSender(90.0, nominal_hz=0.0) as sender, Watched(LslTracker(sender.source_id)) as seen:
        assert seen.tracker.rate_hz == pytest.approx(90, rel=0.02)


def test_a_stream_that_sends_at_another_rate_than_it_says_is_told() -> None:
    with LslSender(60.0, nominal_hz=120.0) as sender, Watched(LslTracker(sender.source_id)) as seen:
        wait_until(lambda: "rate" in seen.kinds())
        assert seen.tracker.rate_hz == pytest.approx(60, rel=0.05)


@pytest.mark.parametrize("ahead_s", [1.7e9, -1000.0])
def test_a_sender_with_a_clock_of_its_own_is_timed_by_its_arrivals(ahead_s: float) -> None:
    with LslSender(100.0, ahead_s=ahead_s) as sender, Watched(LslTracker(sender.source_id)) as seen:
        wait_until(lambda: seen.count > 150)
        assert seen.kinds() == ["note"]
        # When it was due, as far as that can be known.
        late_ns = seen.samples["time_ns"] - (seen.samples["device_time_ns"] - round(ahead_s * 1e9))
        assert 0 <= np.median(late_ns[50:]) < 200_000_000
        assert seen.tracker.clock is not None
        assert seen.tracker.clock.offset_ns == pytest.approx(-ahead_s * 1e9, abs=200_000_000)
        # It starts anew.
        sender.ahead_s -= 500
        before = seen.count
        wait_until(lambda: seen.count > before + 50)
        assert seen.kinds() == ["note", "clock"]
        assert seen.events[1].values["jumped_s"] == pytest.approx(-500, abs=0.5)
        assert (np.diff(seen.samples["time_ns"]) > 0).all()


def test_a_pause_is_told_and_nothing_after_it_is_lost() -> None:
    with LslSender(100.0) as sender, Watched(LslTracker(sender.source_id)) as seen:
        wait_until(lambda: seen.count > 20)
        sender.pausing.set()
        wait_until(lambda: "lost" in seen.kinds())
        assert not seen.tracker.connected
        before = seen.count
        sender.pausing.clear()
        wait_until(lambda: "restored" in seen.kinds())
        assert seen.tracker.connected
        wait_until(lambda: seen.count > before + 50)
        sender.stop()
        wait_until(lambda: seen.samples["device_time_ns"][-1] == round(sender.stamps[-1] * 1e9))
        sent_ns = np.round(sender.stamps * 1e9).astype(np.int64)
        assert len(seen.samples) == (sent_ns >= seen.samples["device_time_ns"][0]).sum()


@pytest.mark.parametrize("source_id", [None, ""])
def test_a_sender_that_starts_again_is_found_again(source_id: str | None) -> None:
    """Streams with a source id are recovered by LSL, those without by us."""
    sender = LslSender(100.0, source_id=source_id)
    with Watched(LslTracker(sender.source_id or sender.name)) as seen:
        wait_until(lambda: seen.count > 20)
        sender.pausing.set()
        time.sleep(0.05)
        sender.outlet = None
        wait_until(lambda: "lost" in seen.kinds())
        before = seen.count
        sender.outlet = sender.lsl.StreamOutlet(sender.info)
        sender.pausing.clear()
        wait_until(lambda: seen.count > before + 50, 40)
        assert seen.kinds() == ["lost", "restored"]
        assert (np.diff(seen.samples["time_ns"]) > 0).all()
    sender.stop()


def test_streams_are_found_and_chosen() -> None:
    with LslSender(60.0) as one, LslSender(120.0) as two, LslSender(60.0, kind="EEG") as other:
        found = {item.address: item for item in find_lsl(1.5)}
        assert {one.source_id, two.source_id} <= set(found)
        assert other.source_id not in found
        assert "120 Hz" in found[two.source_id].label
        with pytest.raises(UserError, match="several") as caught:
            open_tracker("lsl")
        assert one.source_id in str(caught.value)
        assert two.source_id in str(caught.value)
        assert found[two.source_id] in list(discover(1.0, kinds=("lsl",)))
        tracker = open_tracker(found[two.source_id])
        assert (tracker.name, tracker.rate_hz) == ("lsl", 120.0)
        tracker.close()
    with pytest.raises(UserError, match="No LSL gaze stream 'nobody'"):
        LslTracker("nobody", search_s=0.2)


def test_a_search_can_be_stopped_and_survives_a_kind_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(seconds: float) -> Any:
        raise OSError("no driver")

    def slow(seconds: float) -> Any:
        time.sleep(5)
        return []

    monkeypatch.setitem(discover.__globals__["FINDERS"], "tobii", broken)
    notes: list[str] = []
    assert list(discover(0.1, note=notes.append, kinds=("tobii",))) == []
    assert notes == ["tobii trackers could not be searched for: no driver"]
    stop = threading.Event()
    monkeypatch.setitem(discover.__globals__["FINDERS"], "tobii", slow)
    threading.Timer(0.2, stop.set).start()
    assert list(discover(60.0, stop, kinds=("tobii",))) == []
    monkeypatch.setitem(discover.__globals__, "LATE_S", 0.1)
    notes.clear()
    assert list(discover(0.1, note=notes.append, kinds=("tobii",))) == []
    assert "does not come to an end" in notes[0]


def test_what_is_published_is_read_back_completely() -> None:
    source = SimulatedTracker(250.0, ScreenGeometry(2560, 1440, 600.5, 340.25, 612.5), simulated_from="masks")
    sent: list[Samples] = []
    with source:
        outlet = GazeOutlet(source)
        source.subscribe(sent.append)
        with Watched(LslTracker(outlet.source_id)) as seen:
            tracker = seen.tracker
            assert tracker.geometry == source.geometry
            assert tracker.simulated_from == "masks"
            assert tracker.rate_hz == 250.0
            wait_until(lambda: seen.count > 300)
            eyes = tracker.eyes
            assert eyes is not None
            assert eyes.distance_mm == pytest.approx(612.5, abs=11)
        source.close()
        outlet.close()
    all_sent = np.concatenate(sent)
    # Time stamps travel as seconds in double precision: a nanosecond may go either way.
    first = int(np.argmin(np.abs(all_sent["time_ns"] - seen.samples["device_time_ns"][0])))
    same = all_sent[first : first + len(seen.samples)]
    np.testing.assert_allclose(same["time_ns"], seen.samples["device_time_ns"], atol=1, rtol=0)
    for name in ("left_x", "left_y", "right_x", "right_y", "pupil_left", "pupil_right"):
        np.testing.assert_array_equal(same[name], seen.samples[name])


def test_markers_arrive_with_their_time() -> None:
    lsl = pylsl()
    outlet = MarkerOutlet("events of a test")
    info = lsl.resolve_byprop("name", "events of a test", 1, 10)[0]
    assert (info.type(), info.channel_count()) == ("Markers", 1)
    inlet = lsl.StreamInlet(info)
    inlet.open_stream(10)
    happened = time.monotonic_ns() - 5_000_000
    outlet.push("image case_1 shown: für die Ärztin", happened)
    text, stamp = inlet.pull_sample(10)
    assert text == ["image case_1 shown: für die Ärztin"]
    assert round(stamp * 1e9) == pytest.approx(happened, abs=2_000_000)
    outlet.close()


def test_a_missing_pylsl_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    pylsl.cache_clear()
    monkeypatch.setitem(sys.modules, "pylsl", None)
    with pytest.raises(UserError, match=r"gaze-insight\[lsl\]"):
        find_lsl(0.1)
    pylsl.cache_clear()
