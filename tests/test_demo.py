from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segmentation.demo import DemoResult, best_level, run_demo
from segmentation.metrics import dice
from segmentation.presets import preset
from segmentation.study import TEST_SPLIT, Study


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    """The day at a fraction of its length: twelve phantoms, five iterations, a real worker."""
    out = tmp_path_factory.mktemp("demo") / "out"
    spec = preset(
        "gaze-to-insight", "phantom", iterations=5, max_minutes=None, image_size_px=32, device="cpu"
    )
    return run_demo(out, train_images=12, test_images=9, size_px=64, spec=spec)


def test_it_leaves_a_study_a_report_and_its_numbers(demo: DemoResult) -> None:
    study = Study.open(demo.study)
    assert len(study.images_of("train")) == 12 and len(study.images_of(TEST_SPLIT)) == 9
    assert "Research use only" in demo.report.read_text(encoding="utf-8")
    values = json.loads((demo.study.parent / "demo.json").read_text(encoding="utf-8"))
    assert values == json.loads(json.dumps(demo.to_json()))
    assert 0 <= values["student"]["dice"]["mean"] <= 1
    assert values["pseudomask"]["dice"]["mean"] > 0.5, "gaze alone says roughly where the target is"
    assert values["gaze"] == "simulated from masks"
    assert values["images"] == 9
    assert study.prediction_keys(values["run"]) == {(name, "target") for name in study.images}, (
        "all can be reviewed"
    )
    assert sum(values["stages"].values()) <= values["seconds"] + 1


def test_student_and_pseudomask_are_measured_on_the_same_images(demo: DemoResult) -> None:
    study = Study.open(demo.study)
    assert set(demo.evaluation.per_image) == {image.id for image in study.images_of(TEST_SPLIT)}
    scores = []
    for image in study.images_of(TEST_SPLIT):
        truth = study.true_mask(image.id, "target")
        pseudomask = study.pseudomask(image.id, "target")
        assert truth is not None
        if pseudomask is None:
            found = np.zeros_like(truth)
        else:
            found = pseudomask.masks[pseudomask.thresholds.index(demo.pseudomask.threshold)]
        scores.append(dice(found, truth))
    assert demo.pseudomask.all_images.mean == pytest.approx(np.mean(scores))
    held = [
        score
        for score, image in zip(scores, study.images_of(TEST_SPLIT), strict=True)
        if _holds(study, image.id)
    ]
    assert demo.pseudomask.with_target.mean == pytest.approx(np.mean(held))


def _holds(study: Study, image_id: str) -> bool:
    truth = study.true_mask(image_id, "target")
    return truth is not None and bool(truth.any())


def test_the_best_level_is_the_best(demo: DemoResult) -> None:
    study = Study.open(demo.study)
    per_level: dict[float, list[float]] = {}
    for image in study.images_of(TEST_SPLIT):
        truth, pseudomask = study.true_mask(image.id, "target"), study.pseudomask(image.id, "target")
        if truth is not None and pseudomask is not None:
            for threshold, mask in zip(pseudomask.thresholds, pseudomask.masks, strict=True):
                per_level.setdefault(threshold, []).append(dice(mask, truth))
    means = {threshold: np.mean(scores) for threshold, scores in per_level.items()}
    assert len(means) > 1
    assert best_level(study, TEST_SPLIT).threshold == max(means, key=lambda threshold: means[threshold])


def test_unseen_phantoms_are_unseen(demo: DemoResult) -> None:
    study = Study.open(demo.study)
    assert not {image.sha256 for image in study.images_of("train")} & {
        image.sha256 for image in study.images_of(TEST_SPLIT)
    }
    sources = {
        split: {
            item.source for image in study.images_of(split) for item in study.fixations[image.id, "target"]
        }
        for split in ("train", TEST_SPLIT)
    }
    assert not sources["train"] & sources[TEST_SPLIT], (
        "the unseen phantoms were looked at in sittings of their own"
    )


def test_a_second_demo_goes_beside_the_first(tmp_path: Path) -> None:
    from segmentation.demo import _free_folder

    (tmp_path / "demo").mkdir()
    assert _free_folder(tmp_path / "demo") == tmp_path / "demo", "an empty folder is as good as none"
    (tmp_path / "demo" / "mine.txt").write_text("keep")
    (tmp_path / "demo-2").write_text("a file of that name")
    assert _free_folder(tmp_path / "demo") == tmp_path / "demo-3"
    assert (tmp_path / "demo" / "mine.txt").read_text() == "keep"
