"""Predictions measured against what is known of an image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from gaze_capture.storage import write_json_atomic
from segmentation.evaluation import evaluate
from segmentation.job import RunSpec
from segmentation.prostate import make_prostate
from segmentation.records import StudyImage, utc_now
from segmentation.study import Review, Study
from segmentation.targets import add_target
from tests.volume_helpers import prostate_study

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


def test_a_prediction_of_another_size_is_named(predicted: Study) -> None:
    predicted.save_prediction("run-1", "a", "target", "student", np.zeros((5, 9), dtype=np.float32))
    with pytest.raises(UserError, match=r"a\.target\.png is 9 x 5 pixels, the mask to measure it against"):
        evaluate(predicted, "run-1", split="test")


def test_simulated_gaze_is_told_by_whatever_way_it_came_in(predicted: Study) -> None:
    """A supervised run learns from reviewed masks where there is no true one, and those may have begun with gaze."""

    def told(number: int, spec: RunSpec, *reviews: Review) -> tuple[str, str | None]:
        run = f"run-{number}"
        write_json_atomic(predicted.runs_folder / run / "spec.json", spec.to_json())
        for review in reviews:
            predicted.add_review(review, square(5, 10, 10))
        predicted.save_prediction(run, "c", "target", "student", np.zeros(SHAPE, dtype=np.float32))
        found = evaluate(predicted, run, split="test")
        return found.gaze, found.simulated_from

    supervised = RunSpec(method="supervised", split="val")
    predicted.add_images(
        [
            StudyImage(name, f"images/{name}.png", f"{name}.png", name * 64, (*SHAPE, 3), split="val")
            for name in "xyz"
        ]
    )
    none = ("none, learned from true masks", None)
    by_hand = Review(
        "x", "target", "A", "pseudomask", "edited", "present", 3.0, utc_now(), started_from="empty"
    )
    assert told(3, supervised) == none and told(4, supervised, by_hand) == none
    of_clean = Review("y", "target", "A", "run-4", "accepted", "present", 3.0, utc_now())
    assert told(5, supervised, of_clean) == none
    of_gaze = Review("z", "target", "A", "pseudomask", "accepted", "present", 3.0, utc_now())
    assert told(6, supervised, of_gaze) == ("simulated from masks", "masks")
    assert told(7, RunSpec(method="supervised", split="train")) == none
    assert told(8, RunSpec(method="supervised", split="train", warm_start="run-6")) == (
        "simulated from masks",
        "masks",
    )


# Several targets, images without them, whole volumes


def test_what_is_drawn_where_nothing_is_is_told_in_percent(predicted: Study) -> None:
    blank = np.zeros(SHAPE, dtype=bool)
    for name, shown in (("d", square(0, 0, 6)), ("e", blank)):
        predicted.add_images(
            [StudyImage(name, f"images/{name}.png", f"{name}.png", name * 64, (*SHAPE, 3), split="test")]
        )
        predicted.save_true_mask(name, "target", blank)
        predicted.save_prediction("run-1", name, "target", "student", shown.astype(np.float32))
    result = evaluate(predicted, "run-1", split="test")
    values = result.to_json()
    assert values["images_without_target"] == 3
    # 36 of 1200 pixels on one image, nothing on the other two.
    assert values["false_positive_area_percent"] == {
        "mean": pytest.approx(1.0),
        "sd": pytest.approx(np.std([3, 0, 0], ddof=1)),
        "share_of_images": pytest.approx(1 / 3),
    }
    assert values["dice_without_target"]["mean"] == pytest.approx(2 / 3)
    assert "false-positive area 1.00 %" in result.to_text()
    assert values["targets"]["target"]["false_positive_area_percent"] == values["false_positive_area_percent"]
    assert "volumes" not in values["targets"]["target"]


def test_where_the_target_is_nowhere_no_mean_of_nothing_is_told(predicted: Study) -> None:
    blank = np.zeros(SHAPE, dtype=bool)
    for name in ("d", "e"):
        predicted.add_images(
            [StudyImage(name, f"images/{name}.png", f"{name}.png", name * 64, (*SHAPE, 3), split="bare")]
        )
        predicted.save_true_mask(name, "target", blank)
        predicted.save_prediction("run-1", name, "target", "student", blank.astype(np.float32))
    told = evaluate(predicted, "run-1", split="bare").to_text()
    assert "the target is in none of these images" in told and "dice of the" not in told


def test_without_empty_images_there_is_no_area(predicted: Study) -> None:
    predicted.mask_path("c", "target").unlink()
    values = evaluate(predicted, "run-1", split="test").to_json()
    assert values["false_positive_area_percent"] == {"mean": None, "sd": None, "share_of_images": None}


def test_the_keys_others_rely_on_are_there(predicted: Study) -> None:
    values = evaluate(predicted, "run-1", split="test").to_json()
    assert {
        "run", "method", "split", "against", "images", "dice", "iou", "miou", "hd95", "asd", "assd", "hd95_mm",
        "dice_with_target", "dice_without_target", "images_without_target", "annotation_seconds_per_image", "gaze",
        "missing_predictions",
    } <= set(values)  # fmt: skip


def shifted_zones(folder: Path, shape: tuple[int, int, int] = (10, 64, 64)) -> Study:
    """A prostate whose central gland is predicted right, and whose gland is predicted a slice too high."""
    study = prostate_study(folder, {"test": [0, 1]}, shape)
    write_json_atomic(study.runs_folder / "run-1" / "spec.json", RunSpec().to_json())
    for seed, image_ids in enumerate(study.volumes.values()):
        one = make_prostate(seed, shape)
        for mask, target_id in ((np.roll(one.gland, 1, axis=0), "gland"), (one.central, "central")):
            for image_id, plane in zip(image_ids, mask, strict=True):
                study.save_prediction("run-1", image_id, target_id, "student", plane.astype(np.float32))
    return study


def test_targets_and_volumes_are_measured_apart(tmp_path: Path) -> None:
    study = shifted_zones(tmp_path / "zones")
    result = evaluate(study, "run-1", split="test")
    values = result.to_json()
    gland, central = values["targets"]["gland"], values["targets"]["central"]
    assert (gland["images"], gland["volumes"]["count"]) == (20, 2)
    assert central["volumes"]["dice"]["mean"] == 1 and central["volumes"]["hd95_mm"]["mean"] == 0
    expected = []
    for seed in (0, 1):
        truth = make_prostate(seed, (10, 64, 64)).gland
        moved = np.roll(truth, 1, axis=0)
        expected.append(2 * (moved & truth).sum() / (moved.sum() + truth.sum()))
    assert gland["volumes"]["dice"]["mean"] == pytest.approx(np.mean(expected))
    assert 0 < gland["volumes"]["assd_mm"]["mean"] <= gland["volumes"]["hd95_mm"]["mean"] <= 3.0
    assert gland["dice_with_target"]["mean"] < 1 and central["dice_with_target"]["mean"] == 1
    assert values["images"] == 40
    assert "central over 2 whole volumes: Dice 1.0000" in result.to_text()
    stored = json.loads((study.runs_folder / "run-1" / "metrics" / "test-masks.json").read_text())
    assert stored["per_volume"]["test000.central"]["dice"] == 1.0


def test_slices_without_truth_or_spacing(tmp_path: Path) -> None:
    study = shifted_zones(tmp_path / "zones")
    name, image_ids = next(iter(study.volumes.items()))
    study.mask_path(image_ids[4], "central").unlink()
    study.prediction_path("run-1", image_ids[5], "central").unlink()
    volumes = evaluate(study, "run-1", split="test").targets["central"].volumes
    assert volumes is not None and (volumes.dice.mean, volumes.hd95_mm.mean) == (1.0, 0.0)
    (study.folder / "volumes" / f"{name}.json").unlink()
    result = evaluate(study, "run-1", split="test")
    volumes = result.targets["gland"].volumes
    assert volumes is not None and volumes.count == 2
    assert result.per_volume["test001.gland"].hd95_mm > 0
    assert np.isnan(result.per_volume["test000.gland"].hd95_mm)


def test_free_viewing_takes_its_time_once(predicted: Study) -> None:
    add_target(predicted, "other")
    write_json_atomic(
        predicted.runs_folder / "run-1" / "spec.json", RunSpec(targets=("target", "other")).to_json()
    )
    free = Fixations(
        "t", None, "ann", "free", np.zeros(1), np.full(1, 300.0), np.ones((1, 2)), np.zeros(1), "test",
        viewing_ms=4000.0,
    )  # fmt: skip
    predicted.save_fixations("free", [free], imported=True)
    assert evaluate(predicted, "run-1", split="test").annotation_seconds_per_image == pytest.approx(13.5)
