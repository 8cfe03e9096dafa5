from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.storage import write_json_atomic
from segmentation.job import RunSpec
from segmentation.metrics import dice
from segmentation.session_order import doubts
from segmentation.study import Study
from segmentation.uncertainty import (
    EMPTY_SHARE,
    Certainty,
    CertaintyLog,
    Kind,
    Map,
    certainties,
    certainty_of,
    entropy,
    expected_dice,
    save_spread,
    soft_dice,
    spread_path,
    uncertainty,
)
from tests.gaze_support import SHAPE, add_images, record_in


def blob(side: int = 60, softness: float = 3.0, height: float = 1.0) -> Map:
    rows, columns = np.mgrid[0:side, 0:side] - side / 2
    radius = np.hypot(rows, columns)
    soft: Map = (height / (1 + np.exp((radius - side / 4) / softness))).astype(np.float32)
    return soft


# Numbers


@pytest.mark.parametrize(("softness", "height"), [(1.0, 1.0), (4.0, 1.0), (3.0, 0.7), (8.0, 0.9)])
def test_the_expected_dice_is_what_truths_drawn_from_the_probability_give(
    softness: float, height: float
) -> None:
    probability = blob(softness=softness, height=height)
    rng = np.random.default_rng(0)
    found = [dice(probability >= 0.5, rng.random(probability.shape) < probability) for _ in range(300)]
    assert expected_dice(probability) == pytest.approx(np.mean(found), abs=0.01)


def test_a_sure_mask_is_sure_and_an_empty_one_where_little_is_expected() -> None:
    sure = (blob() >= 0.5).astype(np.float32)
    assert expected_dice(sure) == pytest.approx(1.0)
    nothing = np.zeros((60, 60), np.float32)
    assert expected_dice(nothing) == 1.0
    overlooked = blob(height=0.45)
    assert not (overlooked >= 0.5).any() and expected_dice(overlooked) < 0.02
    # As much foreground as EMPTY_SHARE, spread thinly, leaves it open.
    assert expected_dice(np.full_like(nothing, EMPTY_SHARE)) == pytest.approx(0.5)


def test_soft_dice_is_one_of_alike_and_small_of_apart() -> None:
    one = blob()
    assert soft_dice(one, one) == pytest.approx(1.0)
    left, right = np.zeros((2, 60, 60), np.float32)
    left[:, :20], right[:, 40:] = 1, 1
    assert soft_dice(left, right) < 0.01
    assert soft_dice(left, one) == soft_dice(one, left)
    assert soft_dice(np.zeros_like(one), np.zeros_like(one)) == 1.0


def test_entropy_is_one_bit_where_undecided() -> None:
    found = entropy(np.array([0.0, 0.11002786, 0.5, 1.0], np.float32))
    assert found == pytest.approx([0.0, 0.5, 1.0, 0.0], abs=1e-5)


def test_the_mean_is_of_what_is_known() -> None:
    assert Certainty().dice is None and Certainty().words() == ""
    assert Certainty(0.6, 0.9).dice == pytest.approx(0.75)
    known = Certainty(0.6, 0.9, 0.3)
    assert known.dice == pytest.approx(0.6)
    assert known.words() == "expected Dice 0.60, 0.90 among its mirrored views, 0.30 with the teacher"


# What is stored


@pytest.fixture
def predicted(study: Study) -> Study:
    """Two images, a run, and the student's prediction of each."""
    add_images(study, ["a", "b"])
    write_json_atomic(study.runs_folder / "run-1" / "spec.json", RunSpec().to_json())
    for name, softness in (("a", 2.0), ("b", 40.0)):
        probability = np.zeros(SHAPE, np.float32)
        probability[:200, :200] = blob(200, softness)
        study.save_prediction("run-1", name, "target", "student", probability)
    return study


def noted(study: Study, network: str, **numbers: dict[str, float]) -> Path:
    log = CertaintyLog(study, "run-1", network)
    for name, found in numbers.items():
        log.add(name, "target", found)
    log.store()
    return max((study.runs_folder / "run-1" / "predictions" / network).glob("*.jsonl"), key=os.path.getmtime)


def test_records_come_back_the_later_ones_first_of_all_networks(predicted: Study) -> None:
    assert certainties(predicted, "run-1") == {}
    first = noted(predicted, "student", a={"expected_dice": 0.5, "flips_dice": 0.6}, b={"expected_dice": 0.4})
    os.utime(first, (1, 1))
    noted(predicted, "student", b={"expected_dice": 0.8})
    noted(predicted, "teacher", a={"teacher_dice": 0.7}, b={})
    found = certainties(predicted, "run-1")
    assert found == {("a", "target"): Certainty(0.5, 0.6, 0.7), ("b", "target"): Certainty(0.8)}


def test_lines_that_are_no_record_are_passed_over(predicted: Study) -> None:
    path = noted(predicted, "student", a={"expected_dice": 0.5})
    whole = path.read_bytes()
    path.write_bytes(b'\xff\n[1]\n{"image": "b"}\n{"image": "b", "target": "target"}\n' + whole + whole[:20])
    assert certainties(predicted, "run-1") == {("a", "target"): Certainty(0.5)}


def test_without_a_record_the_prediction_is_read(predicted: Study) -> None:
    found = certainty_of(predicted, "run-1", ("a", "target"))
    assert found.expected_dice is not None and found.expected_dice > 0.8
    assert found.flips_dice is None and found.teacher_dice is None
    with pytest.raises(UserError, match="no prediction of c"):
        certainty_of(predicted, "run-1", ("c", "target"))


def test_maps_lie_on_the_images_grid(predicted: Study) -> None:
    student = predicted.prediction("run-1", "a", "target")
    assert student is not None

    def map_of(kind: Kind) -> Map:
        found = uncertainty(predicted, "run-1", "a", "target", kind)
        assert found is not None
        return found

    assert uncertainty(predicted, "run-1", "a", "target", "spread") is None
    assert uncertainty(predicted, "run-1", "a", "target", "disagreement") is None
    assert np.allclose(map_of("entropy"), entropy(student))
    deviation = np.zeros((16, 16), np.float32)
    deviation[:8] = 0.5
    save_spread(predicted, "run-1", "a", "target", deviation)
    assert spread_path(predicted, "run-1", "a", "target").stat().st_size < 200
    spread = map_of("spread")
    assert spread.shape == SHAPE and spread[0, 0] == 1 and spread[-1, -1] == 0
    predicted.save_prediction("run-1", "a", "target", "teacher", 1 - student)
    assert np.allclose(map_of("disagreement"), np.abs(1 - 2 * student), atol=1e-4)
    assert uncertainty(predicted, "run-1", "c", "target", "entropy") is None


# The queue


def test_the_queue_reads_records_and_opens_no_picture(
    predicted: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_in(predicted, "rec-1", [("a", 1, 5), ("b", 6, 10)], annotator="ben")
    predicted.refresh()
    keys = [("a", "target"), ("b", "target")]
    slow = doubts(predicted, keys, run_id="run-1")
    assert slow["b", "target"].score > slow["a", "target"].score > 0
    for name in ("a", "b"):
        own = certainty_of(predicted, "run-1", (name, "target")).expected_dice
        assert own is not None
        noted(predicted, "student", **{name: {"expected_dice": own}})

    def refuse(*_: object) -> None:
        raise AssertionError("a prediction was read")

    monkeypatch.setattr(Study, "prediction", refuse)
    quick = doubts(predicted, keys, run_id="run-1")
    assert {key: one.score for key, one in quick.items()} == pytest.approx(
        {key: one.score for key, one in slow.items()}, abs=1e-4
    )
    noted(predicted, "teacher", a={"teacher_dice": 0.05})
    told = doubts(predicted, keys, run_id="run-1")["a", "target"]
    assert told.score > 3 * slow["a", "target"].score
    assert told.reasons == ("the student is unsure of its mask (expected Dice 0.95, 0.05 with the teacher)",)
