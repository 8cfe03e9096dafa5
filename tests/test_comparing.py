"""Comparisons with real, tiny trainings in worker processes; the statistics against known values."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from segmentation.bootstrap import clustered_interval, clustered_p, holm
from segmentation.comparing import Cell, Comparison, cells_of, compare
from segmentation.comparison_plan import Plan, make_plan, read_variants
from segmentation.comparison_plot import plot_svg
from segmentation.comparison_table import CellResult, ComparisonTable
from segmentation.job import ENDINGS, JobEvent, RunSpec
from segmentation.metrics import dice
from segmentation.phantoms import write_phantoms
from segmentation.presets import preset_names
from segmentation.records import utc_now
from segmentation.reproducing import reproduce
from segmentation.runs import RunFolder
from segmentation.study import Review, Study
from segmentation.study_content import StudyContent
from tests.training_helpers import TINY, make_study

CHANGES = {name: value for name, value in TINY.items() if name != "targets"}


@pytest.fixture
def filled(tmp_path: Path, image_folder: Path) -> Study:
    """Four images to learn from and two, of groups of their own, to measure."""
    study = make_study(tmp_path / "filled", image_folder, explained=False)
    last = list(study.images.values())[-2:]
    study.add_images(dataclasses.replace(image, split="test") for image in last)
    return study


def plan_of(*methods: str, **options: Any) -> Plan:
    options.setdefault("seeds", (0, 1))
    changes = {**CHANGES, **options.pop("changes", {})}
    return make_plan(methods, changes=changes, **options)


def rows_of(found: Comparison) -> dict[str, dict[str, str]]:
    text = (found.folder / "table.csv").read_text(encoding="utf-8")
    return {line["variant"]: line for line in csv.DictReader(io.StringIO(text))}


def test_two_methods_with_two_seeds_are_trained_once_and_measured(filled: Study) -> None:
    plan = plan_of("supervised", "partial")
    found = compare(filled, plan)
    assert (found.trained, found.failed) == (4, ())
    assert len(filled.run_ids()) == 4

    rows = rows_of(found)
    assert list(rows) == ["supervised", "partial"]
    # The label stands in the row, in the caption, in the fragment, in the plot and beside each image's numbers.
    assert rows["partial"]["gaze"] == "simulated from masks"
    assert rows["supervised"]["gaze"] == "none, true masks"
    markdown = (found.folder / "table.md").read_text(encoding="utf-8")
    assert markdown.startswith(
        "**Gaze simulated from masks. Measured on the split 'test' (2 images in 2 groups)"
    )
    assert "nothing was chosen on it" in markdown and "Fewer than 3 seeds" in markdown
    for name in ("table.html", "plot.svg"):
        assert "simulated from masks" in (found.folder / name).read_text(encoding="utf-8")
    ElementTree.fromstring((found.folder / "plot.svg").read_text(encoding="utf-8"))

    # Every number is that of the stored predictions.
    lines = list(csv.DictReader(io.StringIO((found.folder / "per_image.csv").read_text(encoding="utf-8"))))
    assert len(lines) == 8
    for line in lines:
        probability = filled.prediction(line["run"], line["image"], "target")
        truth = filled.true_mask(line["image"], "target")
        assert probability is not None and truth is not None
        assert float(line["dice"]) == dice(probability >= 0.5, truth)
    partial = [float(line["dice"]) for line in lines if line["variant"] == "partial"]
    supervised = [float(line["dice"]) for line in lines if line["variant"] == "supervised"]
    assert float(rows["partial"]["dice_mean"]) == pytest.approx(np.mean(partial))
    assert float(rows["partial"]["dice_minus_baseline"]) == pytest.approx(
        np.mean(partial) - np.mean(supervised)
    )
    # Two groups alone can never be significant.
    assert float(rows["partial"]["p"]) >= 0.5
    assert {line["gaze"] for line in lines if line["variant"] == "partial"} == {"simulated from masks"}

    # The specs are those of the runs.
    for cell in cells_of(filled, plan):
        path = found.folder / "specs" / f"{cell.variant}-seed{cell.seed}.json"
        run = RunFolder(filled.runs_folder / cell.stored()["run"])
        assert RunSpec.from_json(json.loads(path.read_text())) == run.spec == cell.spec

    # What is kept is not trained again, not even for another comparison that has cells in common.
    assert compare(filled, plan).trained == 0
    assert compare(filled, plan_of("partial", seeds=(1,), name="one")).trained == 0
    assert (filled.folder / "comparisons" / "one" / "table.csv").exists()
    assert len(filled.run_ids()) == 4


def test_a_changed_study_makes_new_cells_of_what_reads_the_change(filled: Study) -> None:
    plan = plan_of("supervised", "partial", "gaze-to-insight", seeds=(0,), changes={"text": "none"})

    def keys() -> dict[str, str]:
        filled.refresh()
        return {cell.variant: cell.key for cell in cells_of(filled, plan)}

    def changed(before: dict[str, str]) -> set[str]:
        return {name for name, key in keys().items() if key != before[name]}

    learned, measured = filled.images_of("train")[0], filled.images_of("test")[0]
    before = keys()
    assert keys() == before
    filled.audit("nothing")
    pseudomask = filled.pseudomask(learned.id, "target")
    assert pseudomask is not None
    filled.save_pseudomask(pseudomask)
    assert keys() == before

    filled.save_pseudomask(dataclasses.replace(pseudomask, level_map=np.zeros_like(pseudomask.level_map)))
    assert changed(before) == {"partial", "gaze-to-insight"}
    before = keys()
    filled.save_true_mask(learned.id, "target", np.zeros(learned.shape[:2], np.bool_))
    assert changed(before) == {"supervised"}
    before = keys()
    filled.save_true_mask(measured.id, "target", np.zeros(measured.shape[:2], np.bool_))
    assert changed(before) == {"supervised", "partial", "gaze-to-insight"}
    before = keys()
    review = Review(learned.id, "target", "A", "pseudomask", "rejected", None, 1.0, utc_now())
    filled.add_review(review)
    assert changed(before) == {"partial", "gaze-to-insight"}
    before = keys()
    filled.add_images([dataclasses.replace(measured, group="patient")])
    assert changed(before) == {"supervised", "partial", "gaze-to-insight"}


def test_words_are_part_of_what_a_text_reading_cell_stands_for(tmp_path: Path, image_folder: Path) -> None:
    study = make_study(tmp_path / "said", image_folder)
    image_id = next(iter(study.images))
    specs = plan_of("gaze-to-insight", "partial").variants

    def digests() -> dict[str, str]:
        content = StudyContent(study)
        return {
            name: content.digest(dataclasses.replace(spec, targets=("target",)), "train")
            for name, spec in specs.items()
        }

    before = digests()
    study.explanation_path(image_id, "target").unlink()
    after = digests()
    assert after["gaze-to-insight"] != before["gaze-to-insight"] and after["partial"] == before["partial"]


def test_a_killed_worker_is_named_the_others_go_on_and_the_next_comparison_resumes_it(filled: Study) -> None:
    variants: dict[str, dict[str, Any]] = {
        "killed": {"method": "partial", "iterations": 150},
        "cannot": {"method": "partial", "student_levels": [5, 5]},
        "fine": {"method": "supervised"},
    }
    plan = plan_of(variants=variants, seeds=(0,), baseline="fine")

    def kill(cell: Cell, event: JobEvent) -> None:
        if cell.variant == "killed" and event.kind == "started":
            os.kill(RunFolder(filled.runs_folder / event.run_id).worker()["pid"], signal.SIGKILL)

    found = compare(filled, plan, on_event=kill)
    failed = dict(found.failed)
    assert set(failed) == {"killed, seed 0", "cannot, seed 0"}
    assert "was killed" in failed["killed, seed 0"]
    assert "only 2" in failed["cannot, seed 0"]
    assert [one.variant for one in found.table.rows] == ["fine"]
    assert any(
        note.startswith("Failed: cannot, seed 0: The run asks for levels") for note in found.table.notes
    )
    runs = filled.run_ids()
    assert len(runs) == 3

    again = compare(filled, plan)
    # The run that was killed is the one that goes on; what was done stays.
    assert filled.run_ids() == runs
    assert [cell.state for cell in again.table.cells] == ["done", "failed", "done"]
    assert again.trained == 2
    starts = [event for event in RunFolder(filled.runs_folder / runs[0]).events() if event.kind == "started"]
    assert len(starts) == 2
    assert again.table.cells[0].iterations == 150


def test_stopped_by_hand_it_goes_on_from_the_checkpoint(filled: Study) -> None:
    plan = plan_of("partial", seeds=(0,), changes={"iterations": 150})
    begun = False

    def stop(cell: Cell, event: JobEvent) -> None:
        nonlocal begun
        if event.kind == "sample" and not begun:
            begun = True
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(filled, plan, on_event=stop)
    [run_id] = filled.run_ids()
    assert RunFolder(filled.runs_folder / run_id).state() == "stopped"
    found = compare(filled, plan)
    assert filled.run_ids() == [run_id]
    assert found.table.cells[0].state == "done"
    assert any(event.values.get("resumed") for event in RunFolder(filled.runs_folder / run_id).events())


def test_cells_side_by_side_give_what_they_give_one_by_one(filled: Study) -> None:
    plan = plan_of("supervised", "partial", seeds=(0,))
    alone = compare(filled, plan)
    shutil.rmtree(filled.folder / "comparisons")
    at_work: set[str] = set()
    most = 0

    def count(cell: Cell, event: JobEvent) -> None:
        nonlocal most
        if event.kind in ENDINGS:
            at_work.discard(cell.key)
        else:
            at_work.add(cell.key)
        most = max(most, len(at_work))

    both = compare(filled, plan, jobs=2, on_event=count)
    assert both.failed == () and both.trained == 2 and most == 2
    found = [[cell.per_image for cell in one.table.cells] for one in (alone, both)]
    assert found[0] == found[1]


def test_stopped_by_hand_all_that_is_at_work_goes_on_later(filled: Study) -> None:
    command = [sys.executable, "-m", "app", "compare", str(filled.folder), "--methods", "partial,supervised"]
    command += ["--seeds", "0", "--jobs", "2", "--iterations", "100000", "--set", "image_size_px=32"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    runs: list[RunFolder] = []
    while len(runs) < 2:
        assert process.poll() is None
        time.sleep(0.1)
        found = [RunFolder(filled.runs_folder / run_id) for run_id in filled.run_ids()]
        runs = [run for run in found if any(event.kind == "step" for event in run.events())]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode not in (0, 1)
    assert [run.state() for run in runs] == ["stopped", "stopped"]
    kept = [json.loads(path.read_text()) for path in (filled.folder / "comparisons" / "cells").iterdir()]
    assert {one["state"] for one in kept} == {"running"}
    assert {one["run"] for one in kept} == {run.id for run in runs}


def test_a_study_that_changes_meanwhile_gives_no_result(filled: Study) -> None:
    plan = plan_of("supervised", seeds=(0,))
    learned = filled.images_of("train")[0]
    mask = filled.true_mask(learned.id, "target")
    assert mask is not None

    def draw(cell: Cell, event: JobEvent) -> None:
        if event.kind == "started":
            filled.save_true_mask(learned.id, "target", ~mask)

    found = compare(filled, plan, on_event=draw)
    [(_, reason)] = found.failed
    assert "study changed while" in reason
    # As it was before, it is the same cell, but not the same run.
    filled.save_true_mask(learned.id, "target", mask)
    again = compare(filled, plan)
    assert again.failed == () and len(filled.run_ids()) == 2
    assert again.table.cells[0].key == found.table.cells[0].key
    assert again.table.cells[0].run == filled.run_ids()[1]


def test_the_commands(filled: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variants = tmp_path / "variants.json"
    variants.write_text(json.dumps({"gazed": {"method": "partial"}}))
    options = [f"--set={name}={json.dumps(value)}" for name, value in CHANGES.items()]
    arguments = ["compare", str(filled.folder), "--methods", "supervised", "--variants", str(variants)]
    arguments += ["--seeds", "4", "--to", str(tmp_path / "tables"), *options]
    assert run_command([*arguments, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["trained"] == 2 and values["simulated"] is True
    assert [row["gaze"] for row in values["rows"]] == ["none, true masks", "simulated from masks"]
    assert (tmp_path / "tables" / "plot.svg").exists()
    assert run_command(arguments) == 0
    assert "0 cells of 2 trained now" in capsys.readouterr().out
    assert run_command(["verify", str(filled.folder)]) == 0
    capsys.readouterr()
    assert run_command([*arguments, "--split", "train"]) == 1
    assert "would be trained on the split 'train' that is measured" in capsys.readouterr().err

    # On the processor, with a fixed number of iterations, a run repeats itself bit for bit.
    run_id = values["cells"][1]["run"]
    assert run_command(["reproduce", str(filled.folder), run_id, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["same_weights"] is True and again["notes"] == []
    assert {one["measure"]: one["largest"] for one in again["closeness"]}["dice"] == 0.0
    # Another seed is told from the same: the test of sameness can fail.
    spec = dataclasses.replace(RunFolder(filled.runs_folder / run_id).spec, seed=5)
    (filled.runs_folder / run_id / "spec.json").write_text(json.dumps(spec.to_json()))
    other = reproduce(filled, run_id)
    assert not other.same_weights and "not the same" in other.to_text()


def test_plans_refuse_what_cannot_be_compared(tmp_path: Path) -> None:
    for options, sentence in (
        ({"methods": []}, "Nothing is to be compared"),
        ({"methods": ["none"]}, "There is no method 'none'"),
        ({"baseline": "supervised"}, "baseline 'supervised' is not compared; choose one of: partial"),
        ({"seeds": (1, 1)}, "different whole numbers"),
        ({"changes": {"colour": 1}}, "Variant 'partial': .* colour"),
        ({"changes": {"name": "cpu"}}, "Variant 'partial': .* name"),
        ({"changes": {"batch_size": 1}}, "Variant 'partial': .*batch_size should be 2"),
        ({"variants": {"partial": {}}}, "Two variants are called 'partial'"),
        ({"variants": {"a b": {}, "a_b": {}}}, "differ in signs alone"),
        ({"name": "cells"}, "cannot be called"),
        ({"name": "../x"}, "cannot be called"),
        ({"ablate": ["luck"]}, "no ablation 'luck'"),
    ):
        arguments: dict[str, Any] = {"methods": ["partial"], **options}
        with pytest.raises(UserError, match=sentence):
            make_plan(**arguments)
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UserError, match=r"list\.json should be a JSON object of variants"):
        read_variants(tmp_path / "list.json")


def test_ablations_differ_from_the_full_method_in_one_thing() -> None:
    plan = make_plan(["partial"], ablate=["text", "darm", "afc", "cwc", "shuffled", "levels"])
    assert plan.baseline == "partial"
    full = plan.variants["gaze-to-insight"].to_json()
    differences = {
        name: [key for key, value in spec.to_json().items() if value != full[key]]
        for name, spec in plan.variants.items()
        if name.startswith("gaze-to-insight ")
    }
    assert differences == {
        "gaze-to-insight without text": ["text"],
        "gaze-to-insight without darm": ["darm_share"],
        "gaze-to-insight without afc": ["afc_weight"],
        "gaze-to-insight without cwc": ["cwc_weight"],
        "gaze-to-insight text shuffled": ["text"],
        "gaze-to-insight without levels": ["teacher_levels"],
    }


def test_the_shipped_variants_can_be_trained() -> None:
    files = sorted((Path(__file__).parent.parent / "resources" / "comparisons").glob("*.json"))
    assert [path.stem for path in files] == ["ablations", "methods"]
    for path in files:
        for name in preset_names():
            plan = make_plan(variants=read_variants(path), preset_name=name)
            specs = [json.dumps(spec.to_json()) for spec in plan.variants.values()]
            assert len(set(specs)) == len(specs)


def test_a_published_set_is_compared_by_one_command(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "raw", 5, size_px=64, kinds=("polyp",))
    (tmp_path / "test.txt").write_text("phantom-polyp-0003\nphantom-polyp-0004")
    variants = {"gazed": {**CHANGES, "method": "partial", "preset": "cpu"}}
    (tmp_path / "variants.json").write_text(json.dumps(variants))
    command = [sys.executable, "-m", "resources.examples.kvasir_seg", tmp_path / "raw", tmp_path / "study"]
    command += ["--test", tmp_path / "test.txt", "--compare", tmp_path / "variants.json"]
    finished = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("**Gaze simulated from masks. Measured on the split 'test' (2 images")
    assert "| gazed | simulated from masks | 3/3 |" in finished.stdout
    study = Study.open(tmp_path / "study")
    assert compare(study, make_plan(variants=variants, preset_name="reference")).trained == 0


# Statistics


def test_holm_corrects_step_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, math.nan, 0.6])[::2] == pytest.approx([1.0, 1.0])
    assert math.isnan(holm([0.5, math.nan])[1])
    assert holm([]) == []


def test_few_groups_are_flipped_in_all_ways() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.15, 0.05])
    # All five of one sign: two of 32 ways are as extreme, whatever the bootstrap claims.
    assert clustered_p(values, list("abcde")) == 2 / 32
    assert clustered_p(-values, list("abcde")) == 2 / 32
    flipped = np.array(
        [np.dot(values * [1, 1, 1, 1, -1], signs) for signs in itertools.product((1, -1), repeat=5)]
    )
    expected = np.mean(np.abs(flipped) >= 0.7 - 1e-12)
    assert clustered_p(values * [1, 1, 1, 1, -1], list("abcde")) == expected
    assert math.isnan(clustered_p(values, ["a"] * 5))
    assert clustered_p(np.zeros(5), list("abcde")) == 1.0


def test_images_of_one_group_are_no_independent_evidence() -> None:
    rng = np.random.default_rng(1)
    values = np.repeat(rng.normal(0.15, 1.0, 10), 20)
    alone = [str(number) for number in range(200)]
    together = [str(number // 20) for number in range(200)]
    assert clustered_p(values, alone) < 0.05 < clustered_p(values, together)


def test_p_is_uniform_where_there_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    groups = [str(number) for number in range(30)]
    found = np.array([clustered_p(rng.normal(size=30), groups, replicates=500) for _ in range(200)])
    assert (found < 0.05).mean() < 0.10
    assert 0.4 < found.mean() < 0.65


def cell(variant: str, seed: int, scores: dict[str, float], **values: Any) -> CellResult:
    per_image = {
        name: {"group": name[0], "dice": score, "iou": score, "hd95": 1.0, "asd": 1.0, "assd": 1.0}
        for name, score in scores.items()
    }
    about = {"method": variant, "max_minutes": None, "device": "cpu", "precision": "fp32", **values}
    return CellResult(variant, seed, "k", "r", "done", "", per_image=per_image, seconds=2.0, **about)


def test_the_table_pairs_images_and_seeds_and_says_what_it_left_out() -> None:
    plan = make_plan(["supervised", "partial"], seeds=(0, 1, 2))
    cells = [
        cell("supervised", 0, {"a1": 0.9, "b1": 0.8, "b2": 0.7}),
        cell("supervised", 1, {"a1": 0.7, "b1": 0.8, "b2": 0.9}),
        cell(
            "partial", 0, {"a1": 0.8, "b1": 0.6}, simulated_from="masks", precision="bf16", max_minutes=14.0
        ),
    ]
    table = ComparisonTable.of(plan, cells)
    supervised, partial = table.rows
    assert (table.images, table.groups) == (2, 2)
    assert supervised.measures["dice"].mean == pytest.approx(0.8)
    assert supervised.seed_means["dice"] == pytest.approx([0.85, 0.75])
    assert supervised.seed_sd("dice") == pytest.approx(0.1 / math.sqrt(2))
    # To the same seed of the baseline: 0.8 - 0.9 and 0.6 - 0.8.
    expected = clustered_interval(np.array([[-0.1, -0.2]]), ["a", "b"])
    assert partial.differences["dice"] == pytest.approx(expected)
    assert supervised.differences == {} and math.isnan(supervised.p_holm)
    assert table.simulated and "Gaze simulated from masks" in table.caption
    notes = " ".join(table.notes)
    for words in ("left out: 1.", "different precision", "at most 14 minutes", "different seeds"):
        assert words in notes
    assert "simulated from masks" in plot_svg(table)


def test_a_table_without_simulated_gaze_does_not_say_so() -> None:
    plan = make_plan(["supervised", "partial"], seeds=(0,))
    scores = {"a1": 0.9, "b1": 0.8}
    table = ComparisonTable.of(plan, [cell("supervised", 0, scores), cell("partial", 0, scores)])
    assert not table.simulated
    for text in (table.to_markdown(), table.to_html(), table.to_csv(), plot_svg(table)):
        assert "simulated" not in text
    assert table.rows[1].gaze == "recorded or imported" and table.rows[1].p == 1.0


def test_names_cannot_break_the_table_or_the_plot() -> None:
    variants = {"<b>a|b</b>": {"method": "partial"}, "other": {"method": "supervised"}}
    plan = make_plan(variants=variants, seeds=(0,))
    scores = {"a1": 0.9, "b1": 0.8}
    table = ComparisonTable.of(plan, [cell(name, 0, scores) for name in variants])
    assert "<b>" not in table.to_html()
    assert "a\\|b" in table.to_markdown()
    ElementTree.fromstring(plot_svg(table))
