"""A model leaves the study whole or not at all, and computes elsewhere what it computes here."""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy

from gaze_capture.errors import UserError
from segmentation.evaluation import evaluate
from segmentation.exported_model import ExportedModel
from segmentation.job import RunSpec
from segmentation.model_card import model_card
from segmentation.model_steps import export_model
from segmentation.prediction import predict
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from segmentation.training import train
from tests.reader_support import review
from tests.run_helpers import at_work
from tests.training_helpers import Events, HashEncoder, fixations_of, make_study, tiny

CONVERTS = importlib.util.find_spec("onnxscript") is not None
RUNS = CONVERTS and importlib.util.find_spec("onnxruntime") is not None
with_onnx = pytest.mark.skipif(not RUNS, reason="the packages of gaze-insight[onnx] are missing")
ONNX = [pytest.param(True, marks=with_onnx), False]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, RunFolder]:
    """Return a study with a run that has learned a little and predicted everything."""
    from tests.conftest import image_folder as raw_images

    folder = tmp_path_factory.mktemp("model")
    study = make_study(folder / "study", raw_images.__wrapped__(folder))  # type: ignore[attr-defined]
    run = create_run(study, tiny(iterations=30, learning_rate=1e-2), "learned")
    events = Events()
    assert train(study, run, events, threads=1, encoder=HashEncoder())
    run.events_path.write_text(
        "".join(
            json.dumps(
                {"run_id": run.id, "kind": kind, "step": step, "total": 30, "time": 1.0, "values": values}
            )
            + "\n"
            for kind, step, values in events.all
            if kind in ("started", "done")
        )
    )
    assert predict(study, run, Events(), engine="torch", threads=1)
    evaluate(study, run.id)
    return study, run


def predicted(study: Study, run: RunFolder, image_id: str) -> npt.NDArray[np.float32]:
    probability = study.prediction(run.id, image_id, "target")
    assert probability is not None
    return probability


@pytest.mark.parametrize("onnx", ONNX)
def test_the_script_segments_as_predict_does(
    trained: tuple[Study, RunFolder], tmp_path: Path, onnx: bool
) -> None:
    study, run = trained
    report = export_model(study, tmp_path / "out", run.id, onnx=onnx)
    assert report.onnx is onnx and ("student.onnx" in report.files) is onnx
    if onnx:
        assert report.onnx_difference is not None and report.onnx_difference < 1e-4
    script = runpy.run_path(str(tmp_path / "out" / "use_model.py"))
    spread = []
    for image in study.images.values():
        found = script["segment"](study.image_path(image))
        expected = predicted(study, run, image.id)
        assert list(found) == ["target"] and found["target"].shape == expected.shape
        assert np.abs(found["target"] - expected).max() < 1e-4
        spread.append(float(expected.max() - expected.min()))
    # It says something: a constant would agree with anything.
    assert max(spread) > 0.05


@pytest.mark.parametrize("onnx", ONNX)
def test_the_script_runs_by_itself(trained: tuple[Study, RunFolder], tmp_path: Path, onnx: bool) -> None:
    study, run = trained
    export_model(study, tmp_path / "out", run.id, onnx=onnx)
    image = study.image("case_0")
    # With ONNX it needs nothing of this program: not even its folder is on the path.
    command = [sys.executable, *(["-I"] if onnx and not os.environ.get("PYTHONPATH") else [])]
    finished = subprocess.run(
        [*command, str(tmp_path / "out" / "use_model.py"), str(study.image_path(image)), str(tmp_path / "mask")],
        capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path if onnx else None,
        env=None if onnx else {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    mask = cv2.imread(str(tmp_path / "mask.target.png"), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    probability = predicted(study, run, image.id)
    sure = np.abs(probability - 0.5) > 1e-3
    np.testing.assert_array_equal(mask[sure] > 0, probability[sure] >= 0.5)
    if onnx:
        text = (tmp_path / "out" / "use_model.py").read_text()
        assert "segmentation" not in text and "torch" not in text


def test_the_exported_weights_are_the_runs_own(trained: tuple[Study, RunFolder], tmp_path: Path) -> None:
    study, run = trained
    export_model(study, tmp_path / "out", run.id, onnx=False)
    weights = safetensors.numpy.load_file(tmp_path / "out" / "student.safetensors")
    assert weights and all(np.isfinite(one).all() for one in weights.values())
    model = ExportedModel(tmp_path / "out")
    assert model.targets == ("target",)
    image = study.image("case_3")
    pixels = study.network_input(image, run.spec.normalisation)
    assert np.abs(model.segment(pixels)[0] - predicted(study, run, image.id)).max() < 1e-4
    assert RunSpec.from_json(json.loads((tmp_path / "out" / "spec.json").read_text())) == run.spec


def test_the_card_tells_data_method_metrics_and_limits(
    trained: tuple[Study, RunFolder], tmp_path: Path
) -> None:
    study, run = trained
    report = export_model(study, tmp_path / "out", run.id, onnx=False)
    card: dict[str, Any] = json.loads((tmp_path / "out" / "model_card.json").read_text())
    assert report.simulated_from == card["data"]["simulated_from"] == "masks"
    assert card["research_use_only"] is True
    assert card["data"]["learned_from"] | {"groups": 6} == card["data"]["learned_from"]
    assert card["data"]["learned_from"]["images_learned"] == 6 and card["data"]["splits"] == {"train": 6}
    assert card["method"]["iterations"] == 30 and card["method"]["spec"] == json.loads(
        json.dumps(run.spec.to_json())
    )
    (metric,) = card["metrics"]
    low, high = metric["dice_interval_95"]
    assert low <= metric["dice"]["mean"] <= high and metric["groups"] == 6
    assert metric["gaze"] == "simulated from masks" and metric["honest_split"] is False
    text = (tmp_path / "out" / "model_card.md").read_text()
    for words in (
        "Not a medical device", "Gaze: **simulated from masks**", "| all | masks | simulated from masks | 6 (6) |",
        f"{low:.3f} to {high:.3f}", "seed 0", "## Limits", "use_model.py",
    ):  # fmt: skip
        assert words in text, words
    how = json.loads((tmp_path / "out" / "preprocessing.json").read_text())
    assert (how["size_px"], how["normalisation"]) == (32, {"photo": "as is"})


def test_the_card_counts_who_looked_at_what_was_learned_from(
    trained: tuple[Study, RunFolder], tmp_path: Path
) -> None:
    study = Study.open(shutil.copytree(trained[0].folder, tmp_path / "study"))
    last = list(study.images)[-1]
    study.add_images([dataclasses.replace(study.image(last), split="other")])
    study.save_fixations("import-z", [fixations_of(last, annotator="Z", source="import-z")], imported=True)
    facts = dict.fromkeys(
        ("iterations", "parameters", "weights_are", "weights_sha256", "onnx_sha256", "onnx_difference")
    )
    card = model_card(study, RunFolder(study.runs_folder / trained[1].id), facts)
    learned = card["data"]["learned_from"]
    assert (learned["annotators"], learned["groups"], learned["images_of_split"]) == (1, 5, 5)


def test_what_stands_against_it_is_said(
    trained: tuple[Study, RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, run = trained
    with pytest.raises(UserError, match="no run 'none'"):
        export_model(study, tmp_path / "out", "none")
    fresh = create_run(study, tiny(), "fresh")
    with pytest.raises(UserError, match="no checkpoint"):
        export_model(study, tmp_path / "out", fresh.id, onnx=False)
    at_work(fresh, os.getpid())
    with pytest.raises(UserError, match="is being worked on"):
        export_model(study, tmp_path / "out", fresh.id, onnx=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"gaze-insight\[onnx\]"):
        export_model(study, tmp_path / "out", run.id)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_leaves_nothing(
    trained: tuple[Study, RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, run = trained

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        export_model(study, tmp_path / "out", run.id, onnx=False)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_exports_a_model(trained: tuple[Study, RunFolder], tmp_path: Path) -> None:
    study, run = trained
    command = [sys.executable, "-m", "app", "export-model", str(study.folder), "--to", str(tmp_path / "out")]
    options = ["--run", run.id, "--without-onnx", "--json"]
    finished = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300, check=True)
    values = json.loads(finished.stdout)
    assert values["run"] == run.id and "model_card.md" in values["files"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == values["files"]


def test_the_card_counts_the_reviews_that_taught_and_no_later_ones(
    image_folder: Path, tmp_path: Path
) -> None:
    made = make_study(tmp_path / "day", image_folder)
    mask = np.ones(made.image("case_0").shape[:2], dtype=bool)
    review(made, "case_0", "anna", mask)
    run = create_run(made, tiny(iterations=2), "learned")
    assert train(made, run, Events(), threads=1, encoder=HashEncoder())
    review(made, "case_1", "anna", mask)
    report = export_model(made, tmp_path / "out", run.id, onnx=False)
    card = json.loads((tmp_path / "out" / "model_card.json").read_text())
    assert card["data"]["learned_from"]["reviews"] == {"edited": 1}, report
    assert "explained and reviews as training began" in card["data"]["counted"]
    # A run of an earlier version notes none: those of today are counted, and the card says so.
    (run.path / "reviews.json").unlink()
    export_model(made, tmp_path / "old", run.id, onnx=False)
    card = json.loads((tmp_path / "old" / "model_card.json").read_text())
    assert card["data"]["learned_from"]["reviews"] == {"edited": 2}
    assert "strong_labels and explained as training began" in card["data"]["counted"]
