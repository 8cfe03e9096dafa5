"""Predictions measured against what is known of an image."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from gaze_capture.storage import write_json_atomic
from segmentation.evaluation import evaluate
from segmentation.job import RunSpec
from segmentation.study import Review, Study, StudyImage, utc_now

SHAPE = (30, 40)


def square(top: int, left: int, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.fixture
def predicted(study: Study) -> Study:
    """Return a study of three test images with predictions: right, half right, and empty on an empty image."""
    images = [
        StudyImage(
            name,
            f"images/{name}.png",
            f"{name}.png",
            name * 64,
            (*SHAPE, 3),
            split="test",
            spacing_mm=spacing,
        )
        for name, spacing in (("a", (0.5, 0.5)), ("b", None), ("c", None))
    ]
    looked = StudyImage("t", "images/t.png", "t.png", "t" * 64, (*SHAPE, 3))
    study.add_images([*images, looked])
    empty = np.zeros(SHAPE, dtype=bool)
    truths = {"a": square(5, 5, 10), "b": square(5, 5, 10), "c": empty}
    shown = {"a": square(5, 5, 10), "b": square(5, 10, 10), "c": empty}
    write_json_atomic(study.runs_folder / "run-1" / "spec.json", RunSpec().to_json())
    for name, truth in truths.items():
        study.save_true_mask(name, "target", truth)
        study.save_prediction("run-1", name, "target", "student", shown[name].astype(np.float32) * 0.9)
    gaze = Fixations(
        "t", "target", "ann", "rec", np.zeros(1), np.full(1, 300.0), np.ones((1, 2)), np.zeros(1), "test",
        simulated_from="masks", viewing_ms=9500.0,
    )  # fmt: skip
    study.save_fixations("rec", [gaze], imported=True)
    return study


def test_against_true_masks(predicted: Study) -> None:
    result = evaluate(predicted, "run-1", split="test")
    assert result.images == 3
    assert {name: item.dice for name, item in result.per_image.items()} == pytest.approx(
        {"a": 1, "b": 0.5, "c": 1}
    )
    assert result.measures["dice"].mean == pytest.approx(2.5 / 3)
    assert result.measures["dice"].sd == pytest.approx(np.std([1, 0.5, 1], ddof=1))
    assert result.with_target.mean == pytest.approx(0.75)
    assert (result.images_without_target, result.without_target.mean) == (1, 1.0)
    assert result.measures["hd95_mm"].mean == 0
    assert result.annotation_seconds_per_image == pytest.approx(9.5)
    values = result.to_json()
    assert values["gaze"] == "simulated from masks"
    assert "simulated from masks" in result.to_text()
    stored = json.loads((predicted.runs_folder / "run-1" / "metrics" / "test-masks.json").read_text())
    assert stored["per_image"]["b"]["dice"] == pytest.approx(0.5)
    assert stored["dice"] == values["dice"]


def test_a_higher_threshold_predicts_less(predicted: Study) -> None:
    assert evaluate(predicted, "run-1", split="test", threshold=0.95).with_target.mean == 0


def test_images_without_prediction_are_named(predicted: Study) -> None:
    predicted.prediction_path("run-1", "b", "target").unlink()
    result = evaluate(predicted, "run-1", split="test")
    assert (result.images, result.missing) == (2, ("b",))


def test_against_reviews(predicted: Study) -> None:
    with pytest.raises(UserError, match="no reviewed masks"):
        evaluate(predicted, "run-1", split="test", against="reviews")
    review = Review("b", "target", "ann", "run-1", "edited", "present", 3.0, utc_now())
    predicted.add_review(review, square(5, 10, 10))
    result = evaluate(predicted, "run-1", split="test", against="reviews")
    assert (result.images, result.measures["dice"].mean) == (1, 1.0)


def test_nothing_predicted_yet(predicted: Study) -> None:
    write_json_atomic(predicted.runs_folder / "run-2" / "spec.json", RunSpec(method="supervised").to_json())
    with pytest.raises(UserError, match="has no predictions here yet"):
        evaluate(predicted, "run-2", split="test")
    predicted.save_prediction("run-2", "c", "target", "student", np.zeros(SHAPE, dtype=np.float32))
    supervised = evaluate(predicted, "run-2", split="test")
    assert supervised.gaze == "none, learned from true masks"
    assert supervised.to_json()["annotation_seconds_per_image"] is None
    with pytest.raises(UserError, match="no run 'run-9'"):
        evaluate(predicted, "run-9")
