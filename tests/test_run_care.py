"""All runs of a study: listed, named, deleted, exported, held side by side."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from segmentation import run_list
from segmentation.evaluation import evaluate
from segmentation.job import RunSpec
from segmentation.records import StudyImage, utc_now
from segmentation.run_care import delete_runs, export_run, folder_size, rename_run, size_text
from segmentation.run_comparison import compare_runs, curves_of, smoothed, thinned
from segmentation.run_list import RunList, shown_measurement, summary_of
from segmentation.runs import RunFolder, create_run, last_event
from segmentation.study import Review, Study
from tests.run_helpers import at_work, finished, measure, tell


def told(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = run_command([str(word) for word in words])
    out, err = capsys.readouterr()
    return status, out, err


def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def review(study: Study, run_id: str, image_id: str, verdict: str = "accepted") -> str:
    return study.add_review(
        Review(image_id, "target", "Dr. Test", run_id, verdict, "present", 2.0, utc_now())  # type: ignore[arg-type]
    )


# Listed


def test_a_list_tells_what_each_run_is_and_reached(study: Study) -> None:
    old = finished(study, "first", seconds=123.0, seed=4, begun=1_700_000_000.0)
    measure(old, {"a": 0.5, "b": 0.7}, gaze="simulated from masks")
    measure(old, {"c": 0.9}, split="train")
    new = create_run(study, RunSpec(method="partial", iterations=300), "second")
    second, first = RunList(study).summaries()
    assert (first.id, first.method, first.state, first.step, first.total) == (
        "first",
        "gaze-to-insight",
        "done",
        100,
        100,
    )
    assert first.seconds == 123.0 and first.device == "cpu" and first.begun == 1_700_000_000.0
    assert [(one.split, one.images, one.simulated) for one in first.measured] == [
        ("test", 2, True),
        ("train", 1, False),
    ]
    assert first.measured[0].dice == pytest.approx(0.6)
    assert (second.id, second.state, second.step, second.total) == ("second", "waiting", 0, 300)
    assert np.isnan(second.seconds) and second.measured == () and second.device == "auto"
    assert new.id == second.id


def test_what_changes_is_seen_and_what_does_not_is_not_read_again(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(study, "one")
    other = finished(study, "other")
    listed = RunList(study)
    listed.summaries()
    reads: list[str] = []
    really = run_list._read

    def counted(run: RunFolder, stamps: Any) -> Any:
        reads.append(run.id)
        return really(run, stamps)

    monkeypatch.setattr(run_list, "_read", counted)
    listed.summaries()
    assert reads == []
    rename_run(study, "one", "Best")
    measure(other, {"a": 0.5})
    reads.clear()
    found = {one.id: one for one in listed.summaries()}
    assert sorted(reads) == ["one", "other"]
    assert found["one"].name == "Best" and found["other"].measured[0].dice == 0.5
    # Measured again within the clock's grain: the file is another one.
    stamp = os.stat(other.path / "metrics" / "test-masks.json")
    path = measure(other, {"a": 0.6})
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert {one.id: one for one in listed.summaries()}["other"].measured[0].dice == 0.6
    delete_runs(study, ["one"])
    assert [one.id for one in listed.summaries()] == ["other"]
    assert run.path.exists() is False


def test_states_are_looked_at_each_time(study: Study) -> None:
    run = create_run(study, RunSpec(), "work")
    tell(run, ("started", 0, {"device": "NVIDIA H100"}), ("step", 7, {"losses": {"total": 1.0}}), total=50)
    at_work(run, 1, host="gpu-7")
    listed = RunList(study)
    [one] = listed.summaries()
    assert (one.state, one.host, one.step, one.total, one.device) == (
        "running",
        "gpu-7",
        7,
        50,
        "NVIDIA H100",
    )
    assert one.seconds == pytest.approx(60, abs=5)
    stamps = os.stat(run.path / "worker.json")
    at_work(run, ended_pid())
    os.utime(run.path / "worker.json", ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    [one] = listed.summaries()
    assert (one.state, one.host) == ("interrupted", "")


def test_a_run_that_was_resumed_tells_its_latest_sitting(study: Study) -> None:
    run = create_run(study, RunSpec(), "twice")
    tell(run, ("started", 0, {"device": "cpu"}), at=1000.0)
    tell(
        run, *(("step", step, {"losses": {"total": 1.0}, "pad": "x" * 200}) for step in range(900)), at=1001.0
    )
    tell(run, ("stopped", 900, {}), at=1002.0)
    tell(run, ("started", 900, {"device": "cuda"}), at=2000.0)
    tell(
        run,
        *(("step", step, {"losses": {"total": 1.0}, "pad": "x" * 200}) for step in range(900, 1800)),
        at=2001.0,
    )
    tell(run, ("stopped", 1800, {}), at=2002.0)
    state = run.path / "checkpoints" / "0001800" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"seconds": 77.5}))
    assert os.stat(run.events_path).st_size > 3 * 65536
    one = summary_of(study, "twice")
    assert (one.state, one.device, one.step, one.seconds, one.begun) == (
        "stopped",
        "cuda",
        1800,
        77.5,
        1000.0,
    )


def test_runs_that_cannot_be_read_are_listed_and_can_be_deleted(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("broken", "{"), ("newer", '{"method": "x", "unheard": 1}'), ("none", "")):
        run = finished(study, name)
        (run.path / "spec.json").write_text(text)
    (study.runs_folder / "none" / "spec.json").unlink()
    (study.runs_folder / "stray").mkdir()
    status, out, err = told(capsys, "runs", study.folder)
    assert status == 0 and err == ""
    assert {line.split()[0] for line in out.splitlines()[1:4]} == {"broken", "newer", "none"}
    assert "broken cannot be read" in out and "unheard" in out
    assert told(capsys, "delete-run", study.folder, "broken", "newer", "none")[0] == 0
    assert RunList(study).summaries() == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "events.jsonl",
            '{"run_id": 1, "kind": "step", "step": "x", "total": 1, "time": "y", "values": []}\n',
        ),
        (
            "events.jsonl",
            '{"run_id": 1, "kind": "done", "step": 1, "total": 1, "time": 1e30, "values": {}}\n',
        ),
        ("events.jsonl", "\0\0\0\n[1]\n"),
        ("worker.json", '{"pid": "x", "host": "HERE", "started": null, "heartbeat": {}}'),
        ("worker.json", "[1]"),
    ],
)
def test_a_run_that_tells_nonsense_spoils_no_list(
    study: Study, file: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(study, "good")
    run = create_run(study, RunSpec(), "odd")
    (run.path / file).write_text(text.replace("HERE", socket.gethostname()))
    assert {one.id for one in RunList(study).summaries()} == {"good", "odd"}
    assert told(capsys, "runs", study.folder)[0] == 0
    assert told(capsys, "delete-run", study.folder, "odd")[0] == 0
    assert study.run_ids() == ["good"]


def test_a_damaged_measurement_or_name_is_as_good_as_none(study: Study) -> None:
    run = finished(study, "one")
    (run.path / "metrics").mkdir()
    (run.path / "metrics" / "test-masks.json").write_text('{"split": "test", "dice": 3}')
    (run.path / "name.json").write_text("[1, 2]")
    one = summary_of(study, "one")
    assert one.measured == () and one.name == "" and one.title == "one"


def test_the_real_evaluation_is_listed(study: Study) -> None:
    shape = (30, 40)
    study.add_images([StudyImage("a", "images/a.png", "a.png", "a" * 64, (*shape, 3), split="test")])
    mask = np.zeros(shape, bool)
    mask[5:15, 5:15] = True
    study.save_true_mask("a", "target", mask)
    finished(study, "one")
    study.save_prediction("one", "a", "target", "student", mask.astype(np.float32))
    evaluate(study, "one", split="test")
    [found] = summary_of(study, "one").measured
    assert (found.split, found.against, found.images, found.dice) == ("test", "masks", 1, 1.0)
    stored = json.loads((study.runs_folder / "one" / "metrics" / "test-masks.json").read_text())
    assert stored["version"] and stored["evaluated"]


def test_one_split_for_all_is_shown(study: Study) -> None:
    assert shown_measurement(RunList(study).summaries()) is None
    measure(finished(study, "a"), {"x": 0.5}, split="val")
    measure(finished(study, "b"), {"x": 0.5}, split="val")
    measure(RunFolder(study.runs_folder / "b"), {"x": 0.5}, split=None, against="reviews")
    assert shown_measurement(RunList(study).summaries()) == ("val", "masks")
    measure(RunFolder(study.runs_folder / "a"), {"x": 0.5})
    assert shown_measurement(RunList(study).summaries()) == ("test", "masks")


def test_the_command_s_table_and_json(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = told(capsys, "runs", study.folder)
    assert status == 0 and "no run yet" in out
    run = finished(study, "one", preset="cpu", seed=3)
    measure(run, {"a": 0.5, "b": 0.7}, gaze="simulated from masks")
    rename_run(study, "one", "A name with spaces")
    status, out, _ = told(capsys, "runs", study.folder)
    head, line = out.splitlines()[:2]
    assert line.index("A name") == head.index("name") and line.index("done") == head.index("state")
    assert "test 0.600 +- 0.141 (2 images, simulated from masks)" in line and "1.5 min" in line
    status, out, _ = told(capsys, "runs", study.folder, "--json")
    values = json.loads(out)
    [listed] = values["runs"]
    assert listed["bytes"] == values["bytes"] == folder_size(run.path)[1] > 1000
    assert (listed["id"], listed["name"], listed["preset"], listed["seed"]) == (
        "one",
        "A name with spaces",
        "cpu",
        3,
    )
    assert listed["metrics"][0]["gaze"] == "simulated from masks"
    assert listed["metrics"][0]["dice"]["mean"] == pytest.approx(0.6)


def test_the_end_of_an_events_file_is_enough(study: Study) -> None:
    run = create_run(study, RunSpec(), "one")
    assert last_event(run.events_path) is None
    tell(run, ("step", 1, {"text": "ö" * 9000}))
    found = last_event(run.events_path)
    assert found is not None and found.values["text"] == "ö" * 9000
    tell(run, *(("step", step, {}) for step in range(2, 500)))
    with open(run.events_path, "ab") as stream:
        stream.write(b'{"run_id": "one", "kind": "done", "st')
    found = last_event(run.events_path)
    assert found is not None and found.step == 499
    with open(run.events_path, "ab") as stream:
        stream.write(b"\n" + b"no event\n" * 1000)
    found = last_event(run.events_path)
    assert found is not None and found.step == 499
    run.events_path.write_bytes(b"")
    assert last_event(run.events_path) is None


# Named


def test_a_name_lies_beside_the_id(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(study, "one")
    spec = (run.path / "spec.json").read_bytes()
    assert told(capsys, "rename-run", study.folder, "one", "  Größe \t zwei ")[0] == 0
    assert summary_of(study, "one").name == "Größe zwei"
    assert (run.path / "spec.json").read_bytes() == spec
    line = json.loads((study.folder / "audit.jsonl").read_text().splitlines()[-1])
    assert (line["action"], line["run"], line["name"], line["before"]) == (
        "rename run",
        "one",
        "Größe zwei",
        "",
    )
    status, out, _ = told(capsys, "rename-run", study.folder, "one", "", "--json")
    assert (status, json.loads(out)) == (0, {"run": "one", "name": None})
    assert not (run.path / "name.json").exists() and summary_of(study, "one").name == ""
    for bad, word in (("x" * 81, "at most 80"), ("a\u202eb", "one line of text")):
        status, _, err = told(capsys, "rename-run", study.folder, "one", bad)
        assert status == 1 and word in err
    status, _, err = told(capsys, "rename-run", study.folder, "../one", "x")
    assert status == 1 and "no run" in err
    assert not (study.folder / "name.json").exists()


# Deleted


def test_deleting_frees_the_disk_and_is_written_down(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished(study, "one")
    finished(study, "two")
    study.save_prediction("one", "a", "target", "student", np.zeros((20, 20), np.float32))
    size = folder_size(run.path)[1]
    status, out, _ = told(capsys, "delete-run", study.folder, "one", "--json")
    assert status == 0
    assert json.loads(out) == {"deleted": [{"run": "one", "bytes": size, "reviews": 0}], "bytes": size}
    assert study.run_ids() == ["two"] and sorted(os.listdir(study.runs_folder)) == ["two"]
    line = json.loads((study.folder / "audit.jsonl").read_text().splitlines()[-1])
    assert (line["action"], line["run"], line["bytes"], line["reviews"]) == ("delete run", "one", size, 0)


def test_a_run_at_work_is_not_deleted_nor_any_named_beside_it(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(study, "done")
    run = create_run(study, RunSpec(), "busy")
    tell(run, ("started", 0, {"device": "cpu"}))
    at_work(run, os.getpid())
    status, _, err = told(capsys, "delete-run", study.folder, "done", "busy", "--yes")
    assert status == 1 and "busy is being worked on" in err
    at_work(run, 1, host="gpu-7")
    status, _, err = told(capsys, "delete-run", study.folder, "done", "busy", "--yes")
    assert status == 1 and "on gpu-7" in err
    assert study.run_ids() == ["busy", "done"]
    status, _, err = told(capsys, "delete-run", study.folder, "done", "nowhere")
    assert status == 1 and "nowhere" in err and study.run_ids() == ["busy", "done"]
    at_work(run, ended_pid())
    assert told(capsys, "delete-run", study.folder, "done", "busy")[0] == 0
    assert study.run_ids() == []


def test_reviewed_runs_ask_for_a_yes_and_reviews_stay(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(study, "one")
    finished(study, "two")
    mask = np.ones((20, 20), bool)
    for image_id in ("a", "b", "b"):
        study.add_review(
            Review(image_id, "target", "Dr. Test", "one", "edited", "present", 2.0, utc_now()), mask
        )
    study.withdraw_review("a", "target", review(study, "one", "a"))
    review(study, "pseudomask", "c")
    status, _, err = told(capsys, "delete-run", study.folder, "one", "two")
    assert status == 1 and "one: 3" in err and "two:" not in err and "--yes" in err
    assert study.run_ids() == ["one", "two"]
    status, out, _ = told(capsys, "delete-run", study.folder, "one", "two", "--yes")
    assert status == 0 and "3 reviews" in out
    again = Study.open(study.folder)
    assert again.run_ids() == [] and len(again.reviews("b", "target")) == 2
    kept = again.reviewed_mask("b", "target")
    assert kept is not None and kept.all()


def test_a_deletion_cut_short_leaves_no_half_run(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(study, "one")
    finished(study, "two")

    def power_cut(path: Path, ignore_errors: bool = False) -> None:
        (next(Path(path).iterdir()) / "events.jsonl").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", power_cut)
        with pytest.raises(KeyboardInterrupt):
            delete_runs(study, ["one"])
    assert not run.path.exists() and study.run_ids() == ["two"]
    assert [one.id for one in RunList(study).summaries()] == ["two"]
    # The next deletion removes what was left.
    delete_runs(study, ["two"])
    assert os.listdir(study.runs_folder) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="folders without write permission")
def test_a_folder_that_cannot_be_changed_is_told(study: Study) -> None:
    finished(study, "one")
    study.runs_folder.chmod(0o555)
    try:
        with pytest.raises(UserError, match="read-only"):
            delete_runs(study, ["one"])
    finally:
        study.runs_folder.chmod(0o755)
    assert study.run_ids() == ["one"]


# Exported


def learned(study: Study, run_id: str) -> RunFolder:
    """Return a run with a checkpoint of one weight."""
    run = finished(study, run_id)
    folder = run.path / "checkpoints" / "0000100"
    folder.mkdir(parents=True)
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    data = len(header).to_bytes(8, "little") + header + b"\0\0\x80?"
    (folder / "student.safetensors").write_bytes(data)
    (folder / "state.json").write_text('{"predicts": "student", "seconds": 90}')
    measure(run, {"a": 0.5})
    return run


def test_a_run_becomes_one_archive(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learned(study, "one")
    file = tmp_path / "one.zip"
    status, out, _ = told(capsys, "export-run", study.folder, "one", "--to", file, "--json")
    assert status == 0 and json.loads(out) == {"run": "one", "file": str(file), "bytes": file.stat().st_size}
    with zipfile.ZipFile(file) as archive:
        assert {
            "one/spec.json",
            "one/events.jsonl",
            "one/metrics/test-masks.json",
            "one/checkpoints/0000100/student.safetensors",
        } <= set(archive.namelist())
    before = file.read_bytes()
    status, _, err = told(capsys, "export-run", study.folder, "one", "--to", file)
    assert status == 1 and "there already" in err and file.read_bytes() == before
    file.write_bytes(b"old")
    assert export_run(study, "one", file, replace=True) == file.stat().st_size > 500
    finished(study, "empty")
    with pytest.raises(UserError, match="no whole checkpoint"):
        export_run(study, "empty", file, replace=True)
    assert zipfile.is_zipfile(file) and sorted(os.listdir(tmp_path)) == ["one.zip", "study"]
    at_work(study_run := create_run(study, RunSpec(), "busy"), os.getpid())
    status, _, err = told(capsys, "export-run", study.folder, study_run.id, "--to", tmp_path / "busy.zip")
    assert status == 1 and "being worked on" in err and not (tmp_path / "busy.zip").exists()


# Side by side


def test_only_what_differs_is_told(study: Study) -> None:
    finished(study, "a", method="partial", seed=1, notes={"simulated": "masks"})
    finished(study, "b", method="partial", seed=2, learning_rate=1e-3)
    found = compare_runs(study, ["b", "a"])
    assert {one.field: one.values for one in found.differing} == {
        "seed": ("2", "1"),
        "learning_rate": ("0.001", "0.002"),
        "notes: simulated": ("", "masks"),
    }
    assert found.baseline == "b" and found.measures == ()


def test_paired_differences_are_those_of_the_images_both_have(study: Study) -> None:
    rng = np.random.default_rng(0)
    names = [f"i{number}" for number in range(40)]
    study.add_images(
        StudyImage(
            name, f"images/{name}.png", name, name * 8, (20, 20, 3), split="test", group=f"g{number // 4}"
        )
        for number, name in enumerate(names)
    )
    base = dict(zip(names, rng.uniform(0.3, 0.8, 40), strict=True))
    better = {name: value + 0.1 for name, value in base.items()}
    measure(finished(study, "a"), base)
    measure(finished(study, "b"), {name: better[name] for name in names[:36]}, gaze="simulated from masks")
    measure(finished(study, "c"), {"elsewhere": 0.4}, split="val", threshold=0.4)
    found = compare_runs(study, ["a", "b", "c"])
    dice = next(one for one in found.measures if (one.split, one.measure) == ("test", "dice"))
    assert dice.images == (40, 36, 0) and dice.pairs == (0, 36, 0)
    assert dice.means[2] is None and dice.differences[0] is None and dice.differences[2] is None
    difference = dice.differences[1]
    assert difference is not None
    assert difference.mean == pytest.approx(0.1)
    # All images gained the same: no resampling of groups changes the mean.
    assert (difference.low, difference.high) == pytest.approx((0.1, 0.1))
    assert "The gaze that run 2 learned from was simulated from masks." in found.notes
    create_run(study, RunSpec(), "new")
    assert compare_runs(study, ["new", "b", "a"]).baseline == "b"
    turned = compare_runs(study, ["a", "b"], baseline="b")
    dice = next(one for one in turned.measures if one.measure == "dice")
    assert dice.differences[0] is not None and dice.differences[0].mean == pytest.approx(-0.1)


def test_images_of_a_group_count_as_one(study: Study) -> None:
    names = [f"i{number}" for number in range(20)]
    rng = np.random.default_rng(1)
    first = dict(zip(names, rng.uniform(0.3, 0.6, 20), strict=True))
    second = {name: value + rng.normal(0.02, 0.05) for name, value in first.items()}

    def images(groups: int) -> list[StudyImage]:
        return [
            StudyImage(
                name, "images/x.png", name, name * 8, (20, 20, 3), split="test", group=f"g{number % groups}"
            )
            for number, name in enumerate(names)
        ]

    measure(finished(study, "a"), first)
    measure(finished(study, "b"), second)
    study.add_images(images(1))
    interval = compare_runs(study, ["a", "b"]).measures[0].differences[1]
    assert interval is not None and np.isnan(interval.low) and np.isfinite(interval.mean)
    study.add_images(images(10))
    interval = compare_runs(study, ["a", "b"]).measures[0].differences[1]
    assert interval is not None and interval.low < interval.mean < interval.high


def test_the_comparison_s_command(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    measure(finished(study, "a", seed=1), {"x": 0.5, "y": 0.6}, threshold=0.5)
    measure(finished(study, "b", seed=2), {"x": 0.6, "y": 0.8}, threshold=0.4)
    status, out, _ = told(capsys, "compare-runs", study.folder, "a", "b")
    assert (
        status == 0 and "seed: 1 | 2" in out and "difference +0.150" in out and "thresholds (0.4, 0.5)" in out
    )
    status, out, _ = told(capsys, "compare-runs", study.folder, "a", "b", "--json")
    values = json.loads(out)
    assert values["differing"] == {"seed": {"a": "1", "b": "2"}}
    assert values["measures"][0]["runs"]["b"]["difference"]["mean"] == pytest.approx(0.15)
    for words in (("a",), ("a", "a"), [f"r{number}" for number in range(9)]):
        status, _, err = told(capsys, "compare-runs", study.folder, *words)
        assert status == 1 and "two to 8" in err
    status, _, err = told(capsys, "compare-runs", study.folder, "a", "nowhere")
    assert status == 1 and "nowhere" in err


def test_curves_are_thinned_but_keep_their_peaks(study: Study) -> None:
    run = create_run(study, RunSpec(), "one")
    tell(
        run,
        *(
            ("step", step, {"losses": {"total": 50.0 if step == 3333 else 1.0, "cwc": None}})
            for step in range(9000)
        ),
        ("agreement", 9000, {"dice": 0.5}),
        ("selection", 9000, {"dice": 0.6, "best": 0.7}),
    )
    curves = curves_of(run, most=400)
    assert set(curves) == {"loss: total", "agreement", "selection"}
    x, y = curves["loss: total"]
    assert len(x) <= 400 and y.max() == 50 and 3333 in x and (np.diff(x) >= 0).all()
    assert curves["selection"][1].tolist() == [0.6]
    x, y = smoothed(np.arange(1000.0), np.tile([0.0, 1.0], 500), 100)
    assert len(x) == 100 and y.tolist() == [0.5] * 100 and x[0] == 4.5
    short = smoothed(np.arange(3.0), np.arange(3.0), 100)
    assert short[1].tolist() == [0, 1, 2]
    short = thinned(np.arange(3.0), np.arange(3.0), most=400)
    assert short[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_499, "999 kB"), (3_440_000, "3.4 MB"), (25e9, "25 GB")],
)
def test_sizes_for_people(size: float, text: str) -> None:
    assert size_text(size) == text


def test_no_torch_is_needed() -> None:
    code = (
        "import segmentation.run_list, segmentation.run_care, segmentation.run_comparison, app.run_commands, sys;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_images_that_cannot_be_read_end_a_comparison_instead_of_ungrouping_it(study: Study) -> None:
    measure(finished(study, "a"), {"i0": 0.5, "i1": 0.6})
    measure(finished(study, "b"), {"i0": 0.6, "i1": 0.6})
    assert compare_runs(study, ["a", "b"]).measures, "of a split that is gone every image stands for itself"
    (study.folder / "images").mkdir(exist_ok=True)
    (study.folder / "images" / "manifest-1.json").write_text("[{}]")
    with pytest.raises(UserError, match=r"manifest-1\.json is damaged"):
        compare_runs(Study.open(study.folder), ["a", "b"])
