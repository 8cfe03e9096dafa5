"""Real processes, started by torchrun and joined by gloo: they learn what one learns."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from segmentation.job import JobEvent, RunSpec
from segmentation.prediction import predict
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from tests.several_support import all_weights, known_study, log_of, start_together, step_of, wait_until
from tests.training_helpers import Events, tiny

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="torch without gloo",
)

EXACT: dict[str, Any] = {
    "norm": "group",
    "batch_size": 4,
    "iterations": 6,
    "augmentation": "strong",
    "dice_weight": 0.5,
    "optimiser": "sgd",
    "learning_rate": 0.02,
}

GAZE: dict[str, Any] = {
    **EXACT,
    "consistency_ramp": 0.2,
    "darm_every": 1,
    "text_dropout": 0.3,
    "cwc_confidence": 0.51,
    "cutmix_share": 0.5,
}


@pytest.fixture
def filled(tmp_path: Path, image_folder: Path) -> Study:
    return known_study(tmp_path / "study", image_folder)


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.close()
        process.wait()


def alone(study: Study, spec: RunSpec, processes: list[subprocess.Popen[bytes]]) -> RunFolder:
    """Train in a process of its own: what ran before in this one decides how torch adds up."""
    run = create_run(study, spec)
    processes.append(start_together("train", run, 1))
    assert processes[-1].wait() == 0, log_of(run)
    return run


BEGIN = """
import sys
from pathlib import Path
from segmentation.runs import RunFolder
from segmentation.study import Study
from segmentation.training import train

run = RunFolder(Path(sys.argv[1]))

def emit(kind, step, total, **values):
    # Samples are written at every step of so short a run.
    if kind == "sample" and step == 3:
        run.request_stop()

sys.exit(train(Study.open(run.study_folder), run, emit, threads=1))
"""


def begin_alone(run: RunFolder) -> None:
    """Learn three steps in one process."""
    subprocess.run([sys.executable, "-c", BEGIN, str(run.path)], cwd=ROOT, check=True, timeout=180)
    assert step_of(run) == 3


def assert_equal(first: RunFolder, second: RunFolder) -> None:
    expected, found = all_weights(first), all_weights(second)
    assert expected.keys() == found.keys()
    apart = {key: (found[key] - expected[key]).abs().max().item() for key in expected}
    assert max(apart.values()) <= 1e-5, max(apart.items(), key=lambda item: item[1])


@pytest.mark.parametrize(
    ("method", "changes", "begun_alone"),
    [
        ("gaze-to-insight", {**GAZE, "views": "two"}, False),
        ("gaze-to-insight", {**GAZE, "views": "one", "augmentation": "flips", "data_on_device": "on"}, True),
        ("supervised", EXACT, False),
    ],
)
def test_two_processes_learn_what_one_learns(
    filled: Study,
    processes: list[subprocess.Popen[bytes]],
    method: Any,
    changes: dict[str, Any],
    begun_alone: bool,
) -> None:
    spec = tiny(method, **changes)
    single = alone(filled, spec, processes)
    double = create_run(filled, spec)
    if begun_alone:
        begin_alone(double)
    processes.append(start_together("train", double, 2))
    assert processes[-1].wait() == 0, log_of(double)
    events = double.events()
    assert double.state() == "done" and [event.kind for event in events].count("done") == 1
    [started] = [event for event in events if event.kind == "started"]
    assert started.values["processes"] == 2 and not [event for event in events if event.kind == "warning"]
    assert_equal(single, double)
    losses = [
        [event for event in run.events() if event.kind == "step"][-1].values["losses"]
        for run in (single, double)
    ]
    # Means since the last report, which comes when it is due.
    assert losses[0]["total"] > 0 and losses[1]["total"] > 0


def member(process: subprocess.Popen[bytes], rank: int) -> int:
    """The process id of a rank among the children of torchrun."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        told = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in told:
            return int(child)
    raise AssertionError("no such rank")


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the processes in /proc")
def test_what_happens_to_several_processes_costs_nothing(
    filled: Study, processes: list[subprocess.Popen[bytes]]
) -> None:
    spec = tiny("partial", **{**EXACT, "iterations": 120, "checkpoint_steps": 2, "learning_rate": 0.002})
    run = create_run(filled, spec)

    # The machine is wanted back: a checkpoint, and a run that was stopped.
    processes.append(start_together("train", run, 2))
    wait_until(lambda: step_of(run) >= 2)
    processes[0].terminate()
    processes[0].wait()
    assert run.state() == "stopped", log_of(run)
    reached = step_of(run)
    assert reached < 120

    # One of two is killed outright: the other says so, and nothing is left hanging.
    processes.append(start_together("train", run, 2))
    wait_until(lambda: step_of(run) > reached)
    os.kill(member(processes[1], 1), signal.SIGKILL)
    assert processes[1].wait() != 0
    last = run.events()[-1]
    assert run.state() == "failed" and "Another process of the run is gone" in last.values["message"], last
    assert reached < step_of(run) < 120

    # One alone brings it to its end.
    processes.append(start_together("train", run, 1))
    assert processes[2].wait() == 0, log_of(run)
    assert run.state() == "done" and step_of(run) == 120
    started = [event.values for event in run.events() if event.kind == "started"]
    assert [values["processes"] for values in started] == [2, 2, 1]
    assert {values["accumulate"] for values in started} == {1}
    # Once done it stays done.
    processes.append(start_together("train", run, 1))
    assert processes[3].wait() == 0 and "is done already" in log_of(run)


def test_a_process_that_fails_says_what_went_wrong(
    filled: Study, processes: list[subprocess.Popen[bytes]]
) -> None:
    run = create_run(filled, tiny("partial", **{**EXACT, "batch_size": 6}))
    processes.append(start_together("train", run, 2))
    assert processes[0].wait() != 0
    assert run.state() == "failed"
    told = [event.values["message"] for event in run.events() if event.kind == "failed"]
    assert len(told) == 1 and "start 1 or 3 processes" in told[0]


def test_images_are_shared_out_for_prediction(
    filled: Study, processes: list[subprocess.Popen[bytes]]
) -> None:
    run = alone(filled, tiny("partial", iterations=2), processes)

    def predictions() -> dict[str, bytes]:
        return {
            image_id: filled.prediction_path(run.id, image_id, "target", "student").read_bytes()
            for image_id, _ in filled.prediction_keys(run.id)
        }

    def told(process: subprocess.Popen[bytes]) -> dict[str, Any]:
        output, _ = process.communicate()
        assert process.returncode == 0, log_of(run)
        events = [JobEvent.from_line(line) for line in output.decode().splitlines()]
        assert [event.kind for event in events].count("done") == 1
        return events[-1].values

    # One job of two that know nothing of each other, then two processes together: what is done stays.
    processes.append(start_together("predict", run, 1, "--shard", "2/2"))
    assert told(processes[-1]) == {"predicted": 3, "skipped": 0, "failed": []}
    assert set(predictions()) == set(list(filled.images)[1::2])
    processes.append(start_together("predict", run, 2))
    assert told(processes[-1]) == {"predicted": 3, "skipped": 3, "failed": []}
    shared = predictions()
    assert set(shared) == set(filled.images)
    assert predict(filled, run, Events(), threads=1, overwrite=True)
    assert predictions() == shared
