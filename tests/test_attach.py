"""A run that another machine writes into the study folder, its clock an hour off: a real process plays that machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import segmentation.runs as runs
from segmentation.job import JobEvent, RunSpec
from segmentation.runs import EventTail, RunFolder, create_run
from segmentation.study import Study
from segmentation.workers import follow

FAR_WORKER = """
import json, os, sys, time
from pathlib import Path

folder, skew, steps = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
before = json.loads(sys.argv[4])
clock = lambda: time.time() + skew

def put(name, values):
    part = folder / f".{name}.part"
    part.write_text(json.dumps(values))
    os.replace(part, folder / name)

def tell(kind, step, **values):
    line = json.dumps({"run_id": folder.name, "kind": kind, "step": step, "total": steps, "time": clock(),
                       "values": values}) + "\\n"
    with open(folder / "events.jsonl", "ab", buffering=0) as stream:
        # In two halves, as a share shows it.
        stream.write(line[:20].encode())
        time.sleep(0.02)
        stream.write(line[20:].encode())

about = {"pid": 1, "host": "gpu-server", "started": clock(), "after": before}
put("worker.json", {**about, "heartbeat": clock()})
tell("started", 0, device="cuda (H100)")
for step in range(1, steps + 1):
    time.sleep(0.05)
    put("worker.json", {**about, "heartbeat": clock()})
    if (folder / "stop").exists():
        tell("stopped", step, message="Stopped as asked; what was done is kept.")
        sys.exit()
    tell("step", step, losses={"total": 1.0 / step, "student": 1.0 / step}, images_per_s=99.0, eta_s=1.0)
tell("done", steps, seconds=1.0, iterations=steps)
"""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def run(study: Study) -> RunFolder:
    return create_run(study, RunSpec(method="partial"))


@pytest.fixture(autouse=True)
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "FAR_STALE_SECONDS", 4.0)


@pytest.fixture
def far(run: RunFolder) -> Iterator[Start]:
    """Start the other machine's worker on the run."""
    started: list[subprocess.Popen[bytes]] = []

    def start(skew: float = 3600.0, steps: int = 10_000, run: RunFolder = run) -> subprocess.Popen[bytes]:
        after, before = json.dumps(runs.begun_after(run)), run.worker()
        command = [sys.executable, "-c", FAR_WORKER, str(run.path), str(skew), str(steps), after]
        started.append(subprocess.Popen(command))
        wait_until(lambda: run.worker().get("started", 0) != before.get("started", 0))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_until(true: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


@pytest.mark.parametrize("skew", [-3600.0, 0.0, 3600.0])
def test_it_runs_while_its_heart_beats_and_is_interrupted_when_it_falls_silent(
    run: RunFolder, far: Start, skew: float
) -> None:
    process = far(skew)
    assert run.is_elsewhere()
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        assert run.state() == "running"
        time.sleep(0.05)
    process.kill()
    process.wait()
    wait_until(lambda: run.state() == "interrupted")
    # Somebody who looks for the first time, or again after a long while, sees the same.
    runs._lives.__init__()  # type: ignore[misc]
    assert run.state() == "interrupted"
    assert not list(run.path.glob(".*.part"))


def test_one_that_was_looked_at_long_ago_is_not_taken_for_alive(run: RunFolder, far: Start) -> None:
    process = far()
    assert run.state() == "running"
    heard = run.worker()
    wait_until(lambda: run.worker() != heard)
    process.kill()
    process.wait()
    # Its heart beat on after our look; then nobody looked for a while.
    time.sleep(4.5)
    assert run.state() == "interrupted"


def test_a_share_that_cannot_be_written_and_has_another_clock_is_believed_once_it_changes(
    run: RunFolder, far: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "write_bytes", refuse)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    far()
    assert run.state() == "interrupted"
    wait_until(lambda: run.state() == "running")


def test_events_are_followed_to_its_end_and_torn_lines_wait(run: RunFolder, far: Start) -> None:
    far(steps=12)
    tail, seen = EventTail(run.events_path), []
    wait_until(lambda: seen.extend(tail.read()) or (seen and seen[-1].kind == "done"))  # type: ignore[func-returns-value]
    assert [event.step for event in seen if event.kind == "step"] == list(range(1, 13))
    assert run.state() == "done"
    assert [event.kind for event in follow(run)] == [event.kind for event in seen]


def test_the_stop_file_stops_it(run: RunFolder, far: Start) -> None:
    process = far(skew=-3600.0)
    wait_until(lambda: any(event.kind == "step" for event in run.events()))
    run.request_stop()
    kinds = [event.kind for event in follow(run)]
    assert kinds[-1] == "stopped" and process.wait(10) == 0
    assert run.state() == "stopped"


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_what_an_earlier_worker_said_by_another_clock_ends_nothing(
    run: RunFolder, far: Start, skew: float
) -> None:
    far(skew=-skew, steps=3)
    wait_until(lambda: run.state() == "done")
    with open(run.events_path, "ab") as stream:
        last = JobEvent(run.id, "stopped", 3, 3, time.time() - skew, {"message": "stopped"})
        stream.write(last.to_line().encode() + b"\n")
    assert run.state() == "stopped"
    far(skew=skew, steps=10_000)
    # Its first word may not be written yet: what stands last then is the other's ending.
    assert run.state() == "running"
    wait_until(lambda: run.events()[-1].kind == "step")
    run.request_stop()
    told = list(follow(run))
    assert [event.kind for event in told].count("stopped") == 2 and told[-1].kind == "stopped"
    assert run.state() == "stopped"


@pytest.mark.parametrize("text", ["{", "[]", '{"pid": "x", "host": 3, "heartbeat": "y", "started": null}'])
def test_a_damaged_heartbeat_is_no_reason_to_fail(run: RunFolder, text: str) -> None:
    (run.path / "worker.json").write_text(text)
    assert run.state() in ("waiting", "running")
