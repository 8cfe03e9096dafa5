"""The command line as scripts use it: real processes, JSON on stdout, sentences on stderr, exit statuses."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.cli import _parser, run_command
from gaze_capture.errors import UserError
from segmentation.demo import DemoResult
from segmentation.job import RunSpec
from segmentation.progress import Progress


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, check=False)


def values(*arguments: object) -> dict[str, Any]:
    finished = run(*arguments, "--json")
    assert finished.returncode == 0, finished.stderr
    parsed: dict[str, Any] = json.loads(finished.stdout)
    return parsed


def refused(*arguments: object, status: int = 1) -> str:
    finished = run(*arguments)
    assert finished.returncode == status
    assert "Traceback" not in finished.stderr
    return finished.stderr.strip()


TINY = RunSpec(
    image_size_px=32,
    batch_size=2,
    iterations=4,
    student_widths=(4, 4, 8, 8, 8),
    teacher_widths=(4, 4, 8, 8, 8),
    text_heads=2,
    precision="fp32",
)


def test_the_whole_day(image_folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    assert values("new", study) == {"study": str(study)}
    imported = values("import-images", study, image_folder / "images", "--masks", image_folder / "masks")
    assert (imported["imported"], imported["masks"]) == (6, 6)
    simulated = values("simulate", study, "--seed", 3)
    assert (simulated["images"], simulated["from_masks"]) == (6, 6)
    made = values("pseudomask", study, "--levels", 0.5, 0.25, "--lesions", "clusters")
    assert made["made"] == 6
    assert made["settings"]["lesions"] == "clusters"
    assert made["settings"]["thresholds"] == [0.5, 0.25]
    assert values("explain", study) == {
        "done": 6, "failed": [], "requests": 0, "skipped": 0, "reused": 0, "kept": 0, "waiting": 0, "seconds": 0,
        "tokens": {"prompt": 0, "completion": 0},
    }  # fmt: skip
    config = tmp_path / "spec.json"
    config.write_text(json.dumps(TINY.to_json()))
    trained = values("train", study, "--config", config, "--seed", 1)
    assert trained["iterations"] == 4
    assert trained["device"].startswith(("cpu", "cuda"))
    assert values("predict", study, "--engine", "torch")["images"] == 6
    evaluated = values("evaluate", study, "--split", "train")
    assert evaluated["run"] == trained["run"]
    assert evaluated["images"] == 6
    assert evaluated["gaze"] == "simulated from masks"
    assert set(evaluated["hd95"]) == {"mean", "sd"}
    assert 2 < evaluated["annotation_seconds_per_image"] < 30
    against_gaze = values("evaluate", study, "--against", "pseudomasks")
    assert against_gaze["images"] == 6
    report = tmp_path / "report.html"
    values("report", study, "--to", report)
    assert "simulated from masks" in report.read_text(encoding="utf-8")


def test_a_recording_without_images(tmp_path: Path) -> None:
    study = tmp_path / "study"
    run("new", study)
    recorded = values("record", study, "--tracker", "simulated", "--rate", 240, "--seconds", 1)
    assert recorded["expected"] == recorded["received"] == recorded["stored"]
    assert recorded["stored"] == pytest.approx(240, abs=12)
    replayed = values("record", study, "--tracker", "replay", "--seconds", 0.5)
    assert 100 < replayed["stored"] <= 140
    assert values("recover", study) == {"recordings": [], "archived": [], "failed": []}


def test_fixations_of_a_csv(tmp_path: Path) -> None:
    time_ms = np.arange(0, 2000, 4)
    x_px = np.where(time_ms < 1000, 400.0, 900.0)
    rows = [
        f"{time},{x:.1f},500" if not 600 <= time < 640 else f"{time},,"
        for time, x in zip(time_ms, x_px, strict=True)
    ]
    (tmp_path / "samples.csv").write_text("time_ms,x_px,y_px\n" + "\n".join(rows) + "\n")
    screen = ("--screen-px", "1920x1080", "--screen-mm", "527x296", "--distance-mm", 650)
    out = tmp_path / "fixations.csv"
    assert values("fixations", tmp_path / "samples.csv", "--out", out, *screen)["fixations"] == 2
    lines = out.read_text().splitlines()
    assert lines[0] == "start_ms,duration_ms,x_px,y_px,dispersion_deg"
    assert float(lines[1].split(",")[2]) == pytest.approx(400, abs=1)
    (tmp_path / "bad.csv").write_text("time_ms,x_px\n1,2\n")
    assert "y_px" in refused("fixations", tmp_path / "bad.csv", "--out", out, *screen)


def test_refusals_are_one_sentence(tmp_path: Path, image_folder: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert "is not a study" in refused("pseudomask", nowhere)
    run("new", tmp_path / "s")
    assert "already" in refused("new", tmp_path / "s")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refused("import-images", tmp_path / "s", tmp_path / "empty")
    assert "import some first" in refused("simulate", tmp_path / "s")
    run("import-images", tmp_path / "s", image_folder / "images")
    assert "gaze" in refused("pseudomask", tmp_path / "s")
    assert "descend" in refused("pseudomask", tmp_path / "s", "--levels", 0.2, 0.5)
    assert "no finished run" in refused("predict", tmp_path / "s")
    assert "no run 'x'" in refused("evaluate", tmp_path / "s", "--run", "x")
    assert "gaze" in refused("train", tmp_path / "s")
    bad = tmp_path / "spec.json"
    bad.write_text('{"iterations": "many", "colour": 1}')
    assert "colour" in refused("train", tmp_path / "s", "--config", bad)
    assert "not valid JSON" in refused(
        "train", tmp_path / "s", "--config", image_folder / "images" / "case_0.png"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("train",),
        (
            "fixations",
            "x.csv",
            "--out",
            "y.csv",
            "--screen-px",
            "wide",
            "--screen-mm",
            "1x1",
            "--distance-mm",
            "1",
        ),
        ("record", "s", "--tracker", "simulated", "--rate", "-1"),
    ],
)
def test_wrong_usage_is_status_2(arguments: tuple[str, ...]) -> None:
    assert "usage:" in refused(*arguments, status=2)


def test_version_and_doctor() -> None:
    version = run("--version").stdout.strip()
    assert version.startswith("gaze-insight ")
    found = values("doctor")
    assert found["Gaze Insight"]["text"] == version.removeprefix("gaze-insight ")
    assert found["torch"]["ok"] and "MiniLM" in found["Text encoder"]["text"]
    # Neither is needed for the default day.
    assert found["Keyring"]["ok"] and found["torchvision"]["ok"]


def test_fixations_by_another_detector(tmp_path: Path) -> None:
    time_ms = np.arange(0, 1500, 2)
    # Drift of 1 deg/s, then a saccade of 10 deg.
    x_px = 400 + time_ms * 0.0413 + np.where(time_ms < 800, 0.0, 413.0)
    lines = [f"{time},{x:.2f},500" for time, x in zip(time_ms, x_px, strict=True)]
    (tmp_path / "samples.csv").write_text("time_ms,x_px,y_px\n" + "\n".join(lines) + "\n")
    common = ("fixations", tmp_path / "samples.csv", "--out", tmp_path / "out.csv", "--screen-px", "1920x1080",
              "--screen-mm", "527x296", "--distance-mm", 650)  # fmt: skip
    found = values(*common, "--detector", "idt", "--dispersion-deg", 0.5, "--minimum-ms", 100)
    assert found["detector"] == "idt"
    assert found["parameters"] == {"bridge_ms": 75.0, "dispersion_deg": 0.5, "minimum_ms": 100.0}
    assert found["fixations"] == 4
    assert values(*common, "--detector", "tobii-ivt", "--threshold-deg-s", 40)["fixations"] == 2
    assert values(*common)["detector"] == "adaptive"
    told = refused(*common, "--detector", "idt", "--sigmas", 6)
    assert told == "The detector idt has no parameter sigmas; it has bridge_ms, dispersion_deg, minimum_ms."
    assert "-1" in refused(*common, "--minimum-ms", -1)
    assert "usage:" in refused(*common, "--detector", "magic", status=2)


def test_detecting_again_replaces_the_fixations_of_one_recording(tmp_path: Path, image_folder: Path) -> None:
    study = tmp_path / "study"
    run("new", study)
    run("import-images", study, image_folder / "images", "--masks", image_folder / "masks")
    assert "no recordings yet" in refused("detect", study)
    run("simulate", study, "--seed", 1)
    (recording,) = sorted((study / "recordings").iterdir())
    before = (recording / "fixations.csv").read_bytes()
    frames = (recording / "gaze.frames").read_bytes()
    again = values("detect", study, "--detector", "idt", "--recording", recording.name)
    assert again["recordings"] == [recording.name]
    assert again["failed"] == []
    table = (recording / "fixations.csv").read_bytes()
    assert table != before
    assert table.count(b"\n") == again["fixations"] + 1
    header = json.loads((recording / "fixations.json").read_text())["shared"]
    assert (header["detector"], header["parameters"]["dispersion_deg"]) == ("I-DT", 1.0)
    assert (recording / "gaze.frames").read_bytes() == frames
    assert values("detect", study)["fixations"] == before.count(b"\n") - 1
    assert (recording / "fixations.csv").read_bytes() == before
    assert "has no recording 'x'" in refused("detect", study, "--recording", "x")


def test_an_option_is_called_alike_wherever_it_is() -> None:
    """Whoever knows one command's options can guess another's."""
    [commands] = [one for one in _parser()._actions if isinstance(one, argparse._SubParsersAction)]
    names = {"--split": "NAME", "--target": "ID", "--run": "RUN", "--annotator": "A"}
    found = [
        (command, option.option_strings[0], option.metavar)
        for command, parser in commands.choices.items()
        for option in parser._actions
        if option.option_strings and option.option_strings[0] in names
    ]
    assert len(found) > 40
    assert [one for one in found if one[2] != names[one[1]]] == []


def test_ctrl_c_while_modules_load_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from app.__main__ import main

    class Pressed:
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "app.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "app.cli", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Pressed(), *sys.meta_path])
    assert main(["doctor"]) == 130
    assert capsys.readouterr() == ("", "Stopped before anything was done.\n")


def test_the_demo_tells_in_lines_where_it_is_if_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def short(out: Path, *, progress: Progress) -> DemoResult:
        for done, label in ((0, "drawing"), (1, "drawing"), (0, "training")):
            progress(done, 2, label)
        raise UserError("Enough.")

    monkeypatch.setattr("segmentation.demo.run_demo", short)
    assert run_command(["demo", "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr() == ("", "drawing ...\ntraining ...\nEnough.\n")
    assert run_command(["demo", "--json", "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr() == ("", "Enough.\n")
