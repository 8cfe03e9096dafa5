"""Real worker processes: slow to start (they import torch), so that each test asks several questions."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from segmentation.job import ENDINGS, JobEvent, RunSpec
from segmentation.runs import RunFolder, create_run, process_exists
from segmentation.study import Study
from segmentation.text.embedding import embed_study
from segmentation.training import train
from segmentation.workers import follow, read_events, start_worker
from tests.several_support import MiniLMWithoutWeights, all_weights, known_study, step_of, wait_until
from tests.training_helpers import Events, tiny


@pytest.fixture
def filled(tmp_path: Path, image_folder: Path) -> Study:
    return known_study(tmp_path / "study with a space", image_folder)


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.wait()


def endless(study: Study) -> RunFolder:
    return create_run(study, tiny("partial", iterations=10_000_000))


def stepped(run: RunFolder) -> bool:
    return any(event.kind == "step" for event in run.events())


def test_a_detached_run_from_start_to_prediction(
    filled: Study, processes: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    # A stranger's packages in the way: the folder we stand in and PYTHONPATH must not shadow ours.
    stranger = filled.folder / "runs"
    (stranger / "app").mkdir(parents=True)
    (stranger / "app" / "__init__.py").write_text("raise SystemExit('a stranger')")
    run = create_run(filled, tiny())
    (run.path / "numpy.py").write_text("raise SystemExit('a stranger')")
    os.environ["PYTHONPATH"] = str(stranger)
    try:
        process = start_worker(run, threads=1)
    finally:
        del os.environ["PYTHONPATH"]
    processes.append(process)
    events = list(follow(run, process))
    assert events[-1].kind == "done", (events[-1], run.log_tail())
    assert process.wait() == 0 and run.state() == "done"
    assert [event.to_line() for event in run.events()] == [event.to_line() for event in events]
    worker = run.worker()
    assert worker["pid"] == process.pid and worker["heartbeat"] >= worker["started"]
    assert run.log_tail() == ""

    job = {"task": "predict", "split": "train", "networks": ["student", "teacher"], "threads": 1}
    process = start_worker(run, job, detached=False)
    processes.append(process)
    told = list(read_events(process))
    assert told[-1].kind == "done" and told[-1].values == {"predicted": 12, "skipped": 0, "failed": []}
    assert len(filled.prediction_keys(run.id)) == len(filled.prediction_keys(run.id, "teacher")) == 6
    # The training's own story is not touched by a prediction.
    assert run.state() == "done" and len(run.events()) == len(events)


def test_stop_then_resume(filled: Study, processes: list[subprocess.Popen[bytes]]) -> None:
    run = endless(filled)
    processes.append(start_worker(run, threads=1))
    wait_until(lambda: stepped(run))
    assert run.state() == "running"
    assert os.getpriority(os.PRIO_PROCESS, processes[0].pid) > os.getpriority(os.PRIO_PROCESS, 0)
    run.request_stop()
    events = list(follow(run, processes[0]))
    assert events[-1].kind == "stopped" and processes[0].wait() == 0 and run.state() == "stopped"

    run.prepare_resume()
    processes.append(start_worker(run, threads=1))
    assert run.state() == "running"
    first_end = len(events)
    for event in follow(run, processes[1]):
        if event.kind == "started" and event.values["resumed"]:
            run.request_stop()
    assert run.state() == "stopped"
    later = run.events()[first_end:]
    assert later[-1].kind == "stopped"
    resumed = next(event for event in later if event.kind == "started")
    assert resumed.step > 0


def test_a_killed_worker_is_noticed_and_its_torn_line_mended(
    filled: Study, processes: list[subprocess.Popen[bytes]]
) -> None:
    run = endless(filled)
    processes.append(start_worker(run, threads=1))
    wait_until(lambda: stepped(run))
    processes[0].kill()
    assert run.state() in ("running", "interrupted")
    assert list(follow(run))[-1].values["interrupted"]
    assert run.state() == "interrupted"
    with open(run.events_path, "ab") as stream:
        stream.write(b'{"run_id": "torn')
    run.prepare_resume()
    run.request_stop()
    processes.append(start_worker(run, threads=1))
    assert list(follow(run, processes[1]))[-1].kind == "stopped"
    lines = run.events_path.read_bytes().splitlines()
    assert lines.count(b'{"run_id": "torn') == 1 and JobEvent.from_line(lines[-1].decode()).kind == "stopped"


@pytest.mark.parametrize(
    "spec",
    [
        tiny(iterations=40, checkpoint_steps=3, consistency_ramp=0.2, darm_every=2),
        tiny("supervised", iterations=60, checkpoint_steps=3, augmentation="strong"),
    ],
    ids=lambda spec: str(spec.method),
)
def test_a_run_killed_outright_and_resumed_equals_an_unbroken_one(
    filled: Study, processes: list[subprocess.Popen[bytes]], spec: RunSpec
) -> None:
    whole = create_run(filled, spec)
    assert train(filled, whole, Events(), threads=1)
    broken = create_run(filled, spec)
    processes.append(start_worker(broken, threads=1))
    wait_until(lambda: step_of(broken) > 0)
    processes[0].send_signal(signal.SIGKILL)
    processes[0].wait()
    assert broken.state() == "interrupted"
    broken.prepare_resume()
    assert 0 < step_of(broken) < spec.iterations
    processes.append(start_worker(broken, threads=1))
    assert list(follow(broken, processes[-1]))[-1].kind == "done", broken.log_tail()
    expected, found = all_weights(whole), all_weights(broken)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_request_to_end_is_one_to_stop_with_a_checkpoint(
    filled: Study, processes: list[subprocess.Popen[bytes]]
) -> None:
    run = endless(filled)
    processes.append(start_worker(run, threads=1))
    wait_until(lambda: stepped(run))
    processes[0].terminate()
    assert list(follow(run, processes[0]))[-1].kind == "stopped"
    assert processes[0].wait() == 0 and step_of(run) > 0


def test_failures_are_one_sentence(filled: Study, processes: list[subprocess.Popen[bytes]]) -> None:
    for image_id in list(filled.images):
        (filled.folder / "pseudomasks" / f"{image_id}.target.npz").unlink()
    run = create_run(filled, tiny("partial"))
    processes.append(start_worker(run, threads=1))
    last = list(follow(run, processes[0]))[-1]
    assert last.kind == "failed" and "has a pseudo-mask yet" in last.values["message"]
    assert processes[0].wait() == 1 and run.state() == "failed"
    assert "Traceback" not in run.log_tail()

    # Not foreseen: one sentence for people all the same, the traceback in the log.
    processes.append(start_worker(run, {"threads": "many"}))
    last = list(follow(run, processes[1]))[-1]
    assert last.kind == "failed" and "\n" not in last.values["message"]
    assert "worker.log" in last.values["message"] and "Traceback" in run.log_tail(200)
    assert sum(event.kind in ENDINGS for event in run.events()) == 2


_PARENT = """
import sys, time
from pathlib import Path
from segmentation.runs import RunFolder
from segmentation.workers import start_worker
process = start_worker(RunFolder(Path(sys.argv[1])), threads=1, detached=False)
print(process.pid, flush=True)
time.sleep(600)
"""


def test_an_interactive_worker_ends_with_its_parent(
    filled: Study, processes: list[subprocess.Popen[bytes]]
) -> None:
    run = endless(filled)
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(run.path)], stdout=subprocess.PIPE)
    processes.append(parent)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    wait_until(lambda: stepped(run))
    assert process_exists(pid)
    parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not process_exists(pid))
    assert run.state() == "interrupted"


def test_stray_prints_stay_out_of_the_events(filled: Study, processes: list[subprocess.Popen[bytes]]) -> None:
    code = (
        "import sys, os, segmentation.study as s\n"
        "original = s.Study.open\n"
        "def loud(folder):\n"
        "    print('stray'); os.write(1, b'stray')\n"
        "    return original(folder)\n"
        "s.Study.open = loud\n"
        "from segmentation.worker import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    job = json.dumps({"task": "embed", "study": str(filled.folder)})
    process = subprocess.Popen(
        [sys.executable, "-c", code, job],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    processes.append(process)
    events = list(read_events(process))
    assert process.stderr is not None
    told = process.stderr.read()
    process.stderr.close()
    assert {event.kind for event in events[:-1]} == {"progress"} and events[-1].kind == "done"
    assert told.count(b"stray") == 2, told
    assert events[-1].values["phrases"] == embed_study(filled, MiniLMWithoutWeights()) > 5


def test_a_prediction_that_is_cancelled_ends_whole_and_goes_on(filled: Study) -> None:
    from segmentation import steps
    from segmentation.training import train

    run = create_run(filled, tiny("partial", iterations=1))
    assert train(filled, run, Events(), threads=1)
    began: list[JobEvent] = []

    def interrupt(event: JobEvent) -> None:
        began.append(event)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"Stopped; at least 0 of 6 images .* same command goes on"):
        steps.predict(filled, run.id, on_event=interrupt)
    assert [event.kind for event in began] == ["started"]
    # The worker ended by itself: nothing is torn, and the request is still there for whoever looks.
    assert run.stop_path("predict").exists() and not list(run.path.rglob("*.part"))
    kept = filled.prediction_keys(run.id)
    assert all(filled.prediction(run.id, *key) is not None for key in kept)
    seen: list[JobEvent] = []
    result = steps.predict(filled, run.id, overwrite=True, on_event=seen.append)
    assert (result.images, result.skipped, result.engine) == (6, 0, "torch") and result.images_per_s > 0
    told = [event.values for event in seen if event.kind == "progress"]
    assert told[-1]["eta_s"] == 0 and told[-1]["images_per_s"] > 0
