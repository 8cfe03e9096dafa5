import threading
import time
from functools import partial

import numpy as np
import pytest

from gaze_capture.quality import Validation, validation_of
from gaze_capture.recording import Samples
from gaze_capture.trackers.simulated import SimulatedTracker

TARGETS = [(0.5, 0.1), (0.1, 0.9), (0.9, 0.9)]


def validated(tracker: SimulatedTracker) -> Validation:
    parts: list[tuple[tuple[float, float], Samples]] = []
    for point in [(0.3, 0.4)]:
        tracker.look_at(*point)
        time.sleep(0.5)
        since_ns = time.monotonic_ns()
        blocks: list[Samples] = []
        end = tracker.subscribe(blocks.append)
        time.sleep(0.35)
        end()
        samples = np.concatenate(blocks)
        parts.append((point, samples[samples["time_ns"] >= since_ns]))
    return validation_of(parts, tracker.geometry)


def note(shown: list[tuple[float, float]], x: float, y: float) -> None:
    shown.append((x, y))


def test_a_calibration_takes_the_bias_away_and_can_leave_a_residue() -> None:
    with SimulatedTracker(300.0, bias_deg=(2.0, -1.0), residual_deg=[(1.4, 0.0)], seed=3) as tracker:
        tracker.subscribe(lambda block: None)
        before = validated(tracker)
        assert before.mean_error_deg == pytest.approx(5**0.5, abs=0.4)
        assert before.verdict == "recalibrate"

        calibrator = tracker.calibrator
        verdicts = []
        for _ in range(2):
            shown: list[tuple[float, float]] = []
            calibrator.begin()
            calibrator.collect(TARGETS, partial(note, shown), threading.Event())
            outcome = calibrator.compute()
            calibrator.end()
            assert shown == TARGETS
            assert outcome.eyes == "both" and len(outcome.points) == 3
            verdicts.append(validated(tracker).verdict)
        assert verdicts[0] == "recalibrate"
        assert verdicts[1] in ("pass", "warn")

        kept = calibrator.save()
        assert kept is not None
        calibrator.begin()
        assert validated(tracker).verdict == "recalibrate"
        calibrator.restore(kept)
        again = validated(tracker)
        assert again.mean_error_deg < 0.6
        assert Validation.from_json(again.to_json()).mean_error_deg == again.mean_error_deg


def test_too_few_targets_leave_the_tracker_as_it_was() -> None:
    with SimulatedTracker(300.0, bias_deg=(1.0, 0.0)) as tracker:
        tracker.subscribe(lambda block: None)
        tracker.calibrator.begin()
        stop = threading.Event()
        stop.set()
        tracker.calibrator.collect(TARGETS, lambda x, y: None, stop)
        outcome = tracker.calibrator.compute()
        assert outcome.eyes is None
        assert "fewer than three" in outcome.text
