import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaze_capture.calibration import DriftCheck, calibration_event, drift_event, validation_event
from gaze_capture.certificate import Certificate, certify
from gaze_capture.quality import validation_of
from gaze_capture.recording import SAMPLE, Calibration, Samples
from gaze_capture.recording_codec import RecordingHeader, RecordingWriter, read_recording
from gaze_capture.storage import read_json
from gaze_capture.trackers.tracker import CalibrationOutcome, CalibrationPoint
from segmentation.certificate_page import certificate_html
from segmentation.study import Study
from tests.gaze_support import SCREEN, START_NS, Event, ns, record_in
from tests.test_cli import refused, run, values

HZ = 100
STEP = 10_000_000


def steady(seconds: float, hz: float = HZ) -> Samples:
    """Return samples at even intervals, both eyes on the middle, the device's clock ahead by an hour."""
    count = round(seconds * hz)
    found = np.zeros(count, SAMPLE)
    found["time_ns"] = START_NS + (np.arange(count) * 1e9 / hz).round().astype(np.int64)
    found["device_time_ns"] = found["time_ns"] + 3_600_000_000_000
    for name in ("left_x", "left_y", "right_x", "right_y"):
        found[name] = 0.5
    found["pupil_left"] = found["pupil_right"] = 3.0
    return found


def certified(
    folder: Path, samples: Samples, events: tuple[Event, ...] = (), expected: int | None = None, **header: Any
) -> Certificate:
    """Record samples and events, and certify the recording."""
    notes = {"rate_hz": float(HZ)}
    known = RecordingHeader(
        folder.name, "ann", "mouse", SCREEN, "2026-01-01T00:00:00+00:00", **{"notes": notes, **header}
    )
    with RecordingWriter(folder, known) as writer:
        writer.add_samples(samples)
        for kind, moment, told in events:
            writer.add_event(kind, ns(moment), told)  # type: ignore[arg-type]
        writer.close(expected)
    found = certify(read_recording(folder), read_json(folder / "recording.json"))
    assert Certificate.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found
    return found


def test_a_steady_recording_lost_nothing(tmp_path: Path) -> None:
    one = certified(tmp_path / "r", steady(30))
    assert one.samples == {"expected": 3000, "received": 3000, "stored": 3000}
    assert (one.gaps.count, one.gaps.longest_ms, one.gaps.total_ms, one.gaps.missing_samples) == (0, 0, 0, 0)
    assert (one.nominal_hz, one.stored_hz, one.effective_hz) == (100, 100, 100)
    assert (one.data_loss.left, one.data_loss.right, one.data_loss.gaze) == (0, 0, 0)
    assert (one.clocks.drift_ppm, one.clocks.scatter_ms, one.clocks.jumps) == (0, 0, ())
    assert one.clocks.not_ascending == 0 and one.duration_s == 29.99
    assert one.writer_latency_ms is not None and one.recovered is None


def test_gaps_are_counted_and_measured(tmp_path: Path) -> None:
    samples = np.delete(steady(30), [*range(500, 504), *range(2000, 2100)])
    late = int(np.searchsorted(samples["time_ns"], ns(15)))
    # An interval of 1.4 nominal ones, and then one of 0.6, is no gap.
    samples["time_ns"][late] += 4_000_000
    one = certified(tmp_path / "r", samples, expected=3000)
    assert one.samples == {"expected": 3000, "received": 2896, "stored": 2896}
    assert one.gaps.count == 2
    assert one.gaps.longest_ms == pytest.approx(1010)
    assert one.gaps.total_ms == pytest.approx(50 + 1010)
    assert one.gaps.missing_samples == 104
    assert one.stored_hz == pytest.approx(100 * 2895 / 2999, abs=0.01)


def test_losses_of_each_eye(tmp_path: Path) -> None:
    samples = steady(10)
    samples["left_x"][:100] = np.nan
    samples["right_y"][50:250] = np.nan
    one = certified(tmp_path / "both", samples)
    assert (one.data_loss.left, one.data_loss.right, one.data_loss.gaze) == (0.1, 0.2, 0.05)
    assert one.effective_hz == pytest.approx(95)
    outcome = CalibrationOutcome("right", (CalibrationPoint(0.5, 0.5, False, True),), "done")
    told = calibration_event(outcome, 0).values
    one = certified(tmp_path / "right", samples, (("calibration", -5.0, told),))
    assert one.data_loss.gaze == 0.2, "only the eye that was calibrated counts"
    [calibrated] = one.calibrations
    assert (calibrated.at_s, calibrated.eyes, calibrated.points) == (-5.0, "right", 1)


@pytest.mark.parametrize("ppm", [-80.0, 0.0, 25.0])
def test_drift_of_the_clock_withstands_late_samples_and_jumps(tmp_path: Path, ppm: float) -> None:
    samples = steady(120)
    rng = np.random.default_rng(1)
    since = samples["time_ns"] - START_NS
    samples["device_time_ns"] += (since * (ppm / 1e6)).round().astype(np.int64)
    # Delivered late, one in five by up to 9 ms; then the device's clock starts anew.
    late = rng.random(len(since)) < 0.2
    samples["time_ns"][late] += rng.integers(0, 9_000_000, int(late.sum()))
    samples["device_time_ns"][7000:] -= 3_600_000_000_000
    one = certified(tmp_path / "r", samples)
    assert one.clocks.drift_ppm == pytest.approx(ppm, abs=2)
    [jump] = one.clocks.jumps
    assert jump.clock == "device" and jump.at_s == pytest.approx(70, abs=0.02)
    assert jump.by_ms == pytest.approx(3_600_000, abs=10)


def test_a_jump_of_the_host_is_no_gap(tmp_path: Path) -> None:
    samples = steady(30)
    samples["time_ns"][1000:] += 2_000_000_000
    one = certified(tmp_path / "r", samples)
    [jump] = one.clocks.jumps
    assert (jump.clock, jump.by_ms, jump.at_s) == ("host", 2000, 12)
    assert one.gaps.count == 0 and one.clocks.drift_ppm == 0


def test_one_late_sample_is_no_jump(tmp_path: Path) -> None:
    samples = steady(30, 20)
    samples["time_ns"][200] += 40_000_000
    one = certified(tmp_path / "r", samples, notes={"rate_hz": 20.0})
    assert one.clocks.jumps == () and one.gaps.count == 1


def test_below_ten_seconds_no_drift_is_told(tmp_path: Path) -> None:
    assert certified(tmp_path / "r", steady(9.9)).clocks.drift_ppm is None


def test_a_rate_that_changed_makes_no_gaps(tmp_path: Path) -> None:
    slower = steady(10, 50)
    slower["time_ns"] += 10_000_000_000
    samples = np.concatenate([steady(10), slower])
    told = ("rate", 10.4, {"text": "slower", "rate_hz": 50.0})
    assert certified(tmp_path / "told", samples, (told,)).gaps.count == 0
    assert certified(tmp_path / "untold", samples).gaps.count == 499
    assert certified(tmp_path / "unknown", steady(10), notes={}).gaps.count == 0


def test_events_are_summed_up(tmp_path: Path) -> None:
    rested = steady(1)
    rested["left_x"] += 0.005
    targets = [((0.5, 0.5), rested), ((0.5, 0.5), steady(1))]
    found = validation_of(targets, SCREEN)
    unseen = steady(1)
    unseen["left_x"] = unseen["right_x"] = np.nan
    never = validation_of([((0.2, 0.2), unseen)], SCREEN)
    events: tuple[Event, ...] = (
        ("validation", 1.0, validation_event(found, 5, 0).values),
        ("validation", 2.0, validation_event(never, 5, 0).values),
        ("drift", 3.0, drift_event(DriftCheck(0.5, 0.5, (0.9, 1.2), 1.5), 0).values),
        ("connection", 4.0, {"state": "lost", "text": "lost"}),
        ("connection", 5.5, {"state": "restored", "text": "back"}),
        ("connection", 9.0, {"state": "lost", "text": "lost"}),
        ("clock", 1.0, {"offset_ns": 5000, "uncertainty_ns": 900}),
        ("clock", 2.0, {"offset_ns": 5100, "uncertainty_ns": 300}),
        ("clock", 3.0, {"text": "The clock jumped.", "jump_ns": 4}),
    )
    start = Calibration(5, 0.4, 0.8, 0.1, 0.02)
    one = certified(tmp_path / "r", steady(10), events, simulated_from="masks", calibration=start)
    first, second = one.validations
    assert first.mean_error_deg == pytest.approx(found.mean_error_deg, abs=1e-4)
    assert (first.at_s, first.verdict, first.data_loss) == (1.0, "pass", 0)
    assert (second.mean_error_deg, second.verdict, second.data_loss) == (None, "recalibrate", 1)
    [check] = one.drift_checks
    assert (check.at_s, check.distance_deg, check.verdict) == (3.0, 1.5, "revalidate")
    assert (one.connection.losses, one.connection.lost_s) == (2, 1.5 + 0.99)
    clocks = one.clocks
    assert (clocks.offset_ns, clocks.uncertainty_ns, clocks.measurements) == (5100, 900, 2)
    assert one.simulated_from == "masks"
    assert one.validated_before is not None and one.validated_before["mean_error_deg"] == 0.4

    page = certificate_html(one, ["gaze.frames"])
    for words in (
        "Gaze simulated from masks", "gaze.frames is not what was certified", "1.50°", "revalidate",
        "recalibrate", one.sha256["gaze.frames"], "2 times, 2.5 s",
    ):  # fmt: skip
        assert words in page, words


def test_a_recording_without_samples_can_be_certified(tmp_path: Path) -> None:
    one = certified(tmp_path / "r", steady(0))
    assert (one.data_loss.left, one.effective_hz, one.clocks.drift_ppm) == (None, None, None)
    assert certified(tmp_path / "one", steady(0.01)).stored_hz is None
    assert "<!DOCTYPE html>" in certificate_html(one)


def test_the_command_tells_it_and_notices_changes(tmp_path: Path) -> None:
    study = Study.create(tmp_path / "study")
    name = record_in(
        study, "rec-1", [("a", 0.1, 12.0)], [("drift", 0.1, {"distance_deg": 0.25})], annotator="<ann>"
    )
    folder = study.recordings_folder / name
    page = tmp_path / "c.html"
    told = values("certificate", study.folder, name, "--to", page)
    assert (told["recording"], told["changed"]) == (name, [])
    assert told["samples"]["stored"] == len(read_recording(folder).time_ns)
    assert "&lt;ann&gt;" in page.read_text() and "<ann>" not in page.read_text()
    assert not (folder / "certificate.json").exists(), "looking at it changes nothing"

    assert values("recover", study.folder)["archived"] == [name]
    told = values("certificate", study.folder, name)
    assert set(told["sha256"]) == {"gaze.frames", "gaze.parquet"}
    (folder / "gaze.parquet").write_bytes(b"PAR1")
    changed = run("certificate", study.folder, name, "--json")
    assert changed.returncode == 1
    assert json.loads(changed.stdout)["changed"] == ["gaze.parquet"]
    assert "has no recording 'other'" in refused("certificate", study.folder, "other")
    (folder / "recording.json").unlink()
    assert "gaze-insight recover" in refused("certificate", study.folder, name)
