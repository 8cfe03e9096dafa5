"""The benchmark behind docs/adr/0026 at its smallest, on phantoms: that it runs with the present score of doubt."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from segmentation import steps
from segmentation.doubt import DoubtIndex
from segmentation.export import export_study
from segmentation.phantoms import write_phantoms
from segmentation.runs import RunFolder
from segmentation.study import Study
from tests.benchmarks.simulated_reviewers import ORDERS
from tests.training_helpers import save_image_encoder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Phantoms and gaze drawn from their masks, laid out as Kvasir-SEG is."""
    folder = tmp_path / "data"
    for split, seed in (("train", 0), ("validation", 1)):
        write_phantoms(folder / split, 8, seed, 64, prefix=split, absent_share=0.0)
    study = Study.create(tmp_path / "gaze")
    steps.import_images(study, [folder / "train" / "images"], masks=folder / "train" / "masks")
    steps.simulate(study, seed=0)
    export_study(study, tmp_path / "exported", "gazemedseg")
    (tmp_path / "exported" / "train.csv").rename(folder / "train" / "fixations.csv")
    return folder


def test_it_runs_and_its_order_is_that_of_the_queue(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = [
        "--images",
        "8",
        "--side",
        "32",
        "--iterations",
        "2",
        "--rounds",
        "2",
        "--reviews",
        "2",
        "--seeds",
        "0",
    ]
    options += ["--encoder", str(save_image_encoder(tmp_path / "tiny-resnet", "resnet")), "--frozen", "3"]
    command = [sys.executable, "-m", "tests.benchmarks.simulated_reviewers", str(data), str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    rows = {
        tuple(cells[1:3]) for line in done.stdout.splitlines() if len(cells := re.split(r" *\| *", line)) > 5
    }
    assert {(order, str(number)) for order in ("queue", "random", "none") for number in (1, 2)} <= rows
    assert "queue minus random, round 2" in done.stdout
    kept = json.loads((out / "seed-0-queue.json").read_text())["rounds"]
    assert [one["reviewed"] for one in kept] == [2, 2] and all(one["dice"] for one in kept)

    study = Study.open(out / "seed-0")
    run_id = json.loads((out / "seed-0.json").read_text())["run"]
    spec = RunFolder(study.runs_folder / run_id).spec
    assert spec.encoder and spec.encoder_frozen_stages == 3
    keys = [(image.id, "target") for image in study.images_of("train")]
    found = DoubtIndex(study).doubts(keys, run_id)
    ordered = ORDERS["queue"](study, run_id, keys, 0)
    scores = [found[key].score for key in ordered]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[-1]
