"""The one-click training: what is advised on which computer for which study, and what would fail before it starts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from app.cli import run_command
from segmentation import steps
from segmentation.advice import (
    Advice,
    StudyFacts,
    advise,
    fitting_runs,
    in_gb,
    study_facts,
    what_prevents,
)
from segmentation.explaining import explain_study
from segmentation.job import RunSpec
from segmentation.machine import GIB, Gpu, Graphics, Machine, TorchBuild
from segmentation.presets import preset
from segmentation.records import utc_now
from segmentation.study import Review, Study
from tests.machine_support import ON_LINUX, FakeSmi, smi
from tests.window_support import fill

__all__ = ["smi"]

CUDA = TorchBuild("2.9.0+cu128", "12.8")
LAPTOP = Machine(4, 16 * GIB, Graphics(), TorchBuild("2.9.0+cpu"))
FACTS = StudyFacts(
    images=100, gazed=100, pseudomasks=90, explained=80, groups=40, from_gaze=90, side_px=600,
)  # fmt: skip


def with_card(memory_gb: float, free_gb: float | None = None, driver: str = "550.54.15") -> Machine:
    cuda = {"470.82.01": "11.4"}.get(driver, "12.4")
    free = memory_gb if free_gb is None else free_gb
    card = Gpu("NVIDIA Card", int(memory_gb * GIB), int(free * GIB))
    return Machine(16, 64 * GIB, Graphics((card,), driver, cuda), CUDA)


def chosen(advice: Advice) -> tuple[str, str, str]:
    return advice.method, advice.preset, advice.device


def test_the_computer_decides_on_preset_and_device() -> None:
    laptop = advise(LAPTOP, FACTS)
    assert chosen(laptop) == ("gaze-to-insight", "cpu", "auto") and laptop.warnings == ()
    assert "90 of 100 images have pseudo-masks from gaze" in laptop.reasons[0]
    assert "no NVIDIA graphics card" in laptop.reasons[1]
    large = advise(with_card(23.6), FACTS)
    assert chosen(large) == ("gaze-to-insight", "reference", "cuda")
    assert "The NVIDIA Card has 24 GB" in large.reasons[1]
    # Sold as 8 GB, and telling of 7.9.
    assert chosen(advise(with_card(7.9), FACTS))[1:] == ("reference", "cuda")
    assert chosen(advise(with_card(6), FACTS))[1:] == ("cpu", "cuda")
    busy = advise(with_card(24, free_gb=3), FACTS)
    assert chosen(busy)[1:] == ("cpu", "cuda") and "only 3.0 GB are free" in busy.reasons[1]
    assert chosen(advise(with_card(1.5), FACTS))[1:] == ("cpu", "cpu")
    old = advise(with_card(24, driver="470.82.01"), FACTS)
    assert chosen(old)[1:] == ("cpu", "auto") and "too old" in old.reasons[1]
    # What a person has chosen is kept, and the rest goes with it.
    assert chosen(advise(with_card(24), FACTS, device="cpu")) == ("gaze-to-insight", "cpu", "cpu")
    assert chosen(advise(with_card(24), FACTS, device="cuda:1"))[2] == "cuda:1"
    assert chosen(advise(with_card(24), FACTS, method="partial"))[:2] == ("partial", "reference")


@pytest.mark.parametrize(
    ("changes", "method", "reason"),
    [
        ({}, "gaze-to-insight", "90 of 100 images"),
        # True masks beside gaze are there to compare with.
        ({"true_masks": 100, "from_masks": 100}, "gaze-to-insight", "left out of the learning, for comparison"),
        ({"gazed": 0, "pseudomasks": 0, "true_masks": 60}, "supervised", "nobody has looked"),
        ({"gazed": 20, "true_masks": 95}, "supervised", "only 20 gaze"),
        ({"reviewed": 85}, "supervised", "nearly all"),
        ({"reviewed": 40}, "gaze-to-insight", "40 a reviewed mask, which counts more"),
        # So few reviews say nothing yet, though they be all there are.
        ({"reviewed": 6, "from_gaze": 6}, "gaze-to-insight", "6 a reviewed mask"),
    ],
)  # fmt: skip
def test_the_study_decides_on_the_method(changes: dict[str, Any], method: str, reason: str) -> None:
    advice = advise(LAPTOP, dataclasses.replace(FACTS, **changes))
    assert advice.method == method and reason in advice.reasons[0]


def test_what_to_know_before_is_said() -> None:
    def warnings(machine: Machine = LAPTOP, **changes: Any) -> str:
        return " ".join(advise(machine, dataclasses.replace(FACTS, **changes)).warnings)

    assert warnings() == ""
    assert "12 images are few" in warnings(from_gaze=12)
    assert "1 image is few" in warnings(from_gaze=1)
    assert "one group" in warnings(groups=1)
    assert "from 2000 to 160 pixels" in warnings(side_px=2000)
    assert "3.0 GB of memory" in warnings(dataclasses.replace(LAPTOP, memory_bytes=3 * GIB))
    assert "without words" in advise(LAPTOP, dataclasses.replace(FACTS, explained=0)).reasons[-1]
    assert in_gb(int(15.6 * GIB)) == "16 GB" and in_gb(GIB) == "1.0 GB"


def test_a_study_is_counted_as_training_will_read_it(study: Study, image_folder: Path) -> None:
    assert study_facts(study) == StudyFacts()
    fill(study, image_folder)
    facts = study_facts(study)
    assert facts == StudyFacts(
        images=6, gazed=6, pseudomasks=6, true_masks=6, true_mask_groups=6, groups=6, from_gaze=6, from_masks=6,
        side_px=64, simulated_from="masks",
    )  # fmt: skip
    explain_study(study)
    ids = list(study.images)
    mask = study.true_mask(ids[0], "target")
    for image_id, verdict in ((ids[0], "accepted"), (ids[1], "rejected")):
        review = Review(image_id, "target", "A", "pseudomask", verdict, None, 2.0, utc_now())  # type: ignore[arg-type]
        study.add_review(review, mask if verdict == "accepted" else None)
    study.add_images([dataclasses.replace(study.images[ids[5]], split="test")])
    facts = study_facts(study)
    assert (facts.images, facts.explained, facts.reviewed, facts.from_gaze) == (5, 4, 1, 4)
    assert study_facts(study, "test").images == 1
    # The rejected pseudo-mask teaches nothing; its image's true mask would.
    assert (facts.to_learn_from("partial"), facts.to_learn_from("supervised")) == (4, 5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"device": "cuda"}, "The device cuda cannot be used. There is no NVIDIA graphics card"),
        ({"precision": "fp16"}, "fp16 is for graphics cards"),
        ({"precision": "bf16"}, ""),
        ({"text": "shuffled"}, "needs explanations"),
        ({"text": "empty"}, ""),
        ({"holdout": 0.2}, "the study has none"),
    ],
)
def test_what_would_fail_is_said_before(changes: dict[str, object], reason: str) -> None:
    found = what_prevents(preset(**changes), dataclasses.replace(FACTS, explained=0), LAPTOP)  # type: ignore[arg-type]
    assert found.startswith(reason) if not reason or reason.startswith("The dev") else reason in found
    assert bool(found) == bool(reason)


def test_holding_out_goes_by_groups() -> None:
    facts = dataclasses.replace(FACTS, true_masks=20, true_mask_groups=4)
    assert "So few images" in what_prevents(preset(holdout=0.1), facts, LAPTOP)
    assert what_prevents(preset(holdout=0.25), facts, LAPTOP) == ""
    assert "More than half" in what_prevents(preset(holdout=0.7), facts, LAPTOP)
    only_reviews = StudyFacts(images=10, reviewed=10, from_gaze=10)
    assert "nothing to learn from" in what_prevents(preset(learn_from_reviews=False), only_reviews, LAPTOP)
    assert what_prevents(preset(precision="fp16", device="cuda"), facts, with_card(24)) == ""


def test_only_runs_of_the_same_networks_can_be_begun_with() -> None:
    base = preset(targets=("target",), seed=1)
    earlier = {
        "a-same": preset(targets=("target",), max_minutes=3.0, image_size_px=320),
        "b-same": base,
        "c-larger": preset("gaze-to-insight", "reference", targets=("target",)),
        "d-no-text": preset(targets=("target",), text="none"),
        "e-two": preset(targets=("target", "zone")),
        "f-partial": preset("partial", targets=("target",)),
    }
    assert fitting_runs(base, earlier) == ["b-same", "a-same"]
    assert fitting_runs(preset("supervised", targets=("target",)), earlier) == ["f-partial"]
    assert fitting_runs(preset("gaze-multilevel", targets=("target",)), earlier) == []
    other = dataclasses.replace(base, text_encoder="own", text_encoder_sha256="1" * 64)
    assert fitting_runs(other, earlier) == []


@ON_LINUX
def test_the_command_line_takes_the_advice_and_says_why(
    study: Study,
    image_folder: Path,
    smi: FakeSmi,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fill(study, image_folder)
    smi.lists("NVIDIA GeForce RTX 4090, 24564, 23028", driver="470.82.01", cuda="11.4")
    monkeypatch.setattr("segmentation.machine.installed_torch", lambda: CUDA)
    asked: list[RunSpec] = []

    def train(study: Study, spec: RunSpec, **_: object) -> steps.TrainResult:
        asked.append(spec)
        return steps.TrainResult("run-x", 1.0, 1, "cpu", ("target",), {})

    monkeypatch.setattr(steps, "train", train)

    def command(*words: str) -> tuple[dict[str, object], str]:
        assert run_command(["train", str(study.folder), "--json", *words]) == 0
        told = capsys.readouterr()
        return json.loads(told.out), told.err

    values, said = command()
    assert asked[-1] == preset(device="auto")
    assert values["advice"]["preset"] == "cpu" and values["run"] == "run-x"  # type: ignore[index]
    assert "Training gaze-to-insight with the preset cpu on the device auto." in said
    assert "its driver 470.82.01 is too old" in said and "Please note: 6 images are few" in said
    smi.lists("NVIDIA GeForce RTX 4090, 24564, 23028")
    values, said = command("--seed", "4")
    assert asked[-1] == preset("gaze-to-insight", "reference", device="cuda", seed=4)
    assert "enough for networks of the published size" in said
    # What is named is taken, and where the preset is, nothing is advised.
    command("--device", "cpu", "--method", "partial")
    assert asked[-1] == preset("partial", "cpu", device="cpu")
    values, said = command("--preset", "phantom")
    assert asked[-1] == preset("gaze-to-insight", "phantom") and "advice" not in values and said == ""
    # A script that names no method never learns from masks unasked; it is told that it could.
    masks_alone = Study.create(study.folder.parent / "masks")
    fill(masks_alone, image_folder, gaze=False)
    study = masks_alone
    _, said = command()
    assert asked[-1].method == "gaze-to-insight" and "--method supervised" in said


def test_reviews_can_be_left_out_of_the_learning(study: Study, image_folder: Path) -> None:
    pytest.importorskip("torch")
    from segmentation.dataset import load_training_set

    fill(study, image_folder)
    first, second, *_ = study.images
    whole = study.true_mask(first, "target")
    assert whole is not None
    for image_id, verdict, mask in ((first, "edited", ~whole), (second, "rejected", None)):
        review = Review(image_id, "target", "A", "pseudomask", verdict, None, 2.0, utc_now())  # type: ignore[arg-type]
        study.add_review(review, mask)
    spec = preset("partial", targets=("target",), image_size_px=32)
    with_reviews = load_training_set(study, spec, None)
    without = load_training_set(study, dataclasses.replace(spec, learn_from_reviews=False), None)
    assert (len(with_reviews), with_reviews.strong) == (5, 1) and (len(without), without.strong) == (6, 0)
    # The reviewer's mask is the other way round: the gaze's is learned again without it.
    assert ((with_reviews.levels[0] > 0) != (without.levels[0] > 0)).mean() > 0.8
    assert RunSpec.from_json(RunSpec().to_json()).learn_from_reviews
