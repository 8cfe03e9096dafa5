import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gaze_capture.errors import UserError
from segmentation.job import JobEvent, Kind, RunSpec
from segmentation.runs import STALE_SECONDS, EventTail, RunFolder, create_run, latest_run, process_exists
from segmentation.study import Study
from segmentation.workers import follow, worker_command


def event(kind: Kind, step: int = 0, **values: object) -> JobEvent:
    return JobEvent("r", kind, step, 10, time.time(), dict(values))


def write(run: RunFolder, *events: JobEvent) -> None:
    with open(run.events_path, "a", encoding="utf-8") as stream:
        stream.writelines(item.to_line() + "\n" for item in events)


def worker(run: RunFolder, pid: int | None, *, host: str | None = None, age: float = 0.0) -> None:
    now = time.time()
    values = {"pid": pid, "host": host or socket.gethostname(), "started": now - 100, "heartbeat": now - age}
    (run.path / "worker.json").write_text(json.dumps(values))


@pytest.fixture
def run(study: Study) -> RunFolder:
    return create_run(study, RunSpec(seed=7))


def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_new_run_keeps_its_spec_and_waits(study: Study, run: RunFolder) -> None:
    assert run.spec == RunSpec(seed=7, targets=("target",))
    assert study.run_ids() == [run.id]
    assert run.state() == "waiting" and run.events() == []
    assert run.study_folder == study.folder


def test_a_run_that_a_person_named_has_its_place_in_time(study: Study) -> None:
    """By its name alone ``zeta`` would be the latest for ever, and ``baseline`` never."""
    zeta, drawn, baseline = (create_run(study, RunSpec(), name) for name in ("zeta", None, "baseline"))
    for run, time_s in ((zeta, 1.5e9), (drawn, 1.5e9), (baseline, 4e9)):
        run.events_path.write_text(JobEvent(run.id, "done", 1, 1, time_s, {}).to_line() + "\n")
    assert study.run_ids() == [zeta.id, drawn.id, baseline.id] and latest_run(study) == baseline.id
    for run in (zeta, baseline):
        run.events_path.unlink()
    os.utime(zeta.path / "spec.json", (1.5e9, 1.5e9))
    os.utime(baseline.path / "spec.json", (4e9, 4e9))
    assert study.run_ids() == [zeta.id, drawn.id, baseline.id]


def test_an_unknown_target_makes_no_run(study: Study) -> None:
    with pytest.raises(UserError, match="no target 'liver'"):
        create_run(study, RunSpec(targets=("liver",)))
    assert study.run_ids() == []


def test_a_damaged_spec_is_named(run: RunFolder) -> None:
    (run.path / "spec.json").write_text("[1]")
    with pytest.raises(UserError, match=r"spec\.json is damaged"):
        _ = run.spec


def test_tail_reads_only_what_is_new_and_waits_for_torn_lines(run: RunFolder) -> None:
    tail = EventTail(run.events_path)
    assert tail.read() == []
    write(run, event("started"), event("step", 1))
    assert [item.kind for item in tail.read()] == ["started", "step"]
    line = event("step", 2, text="größer").to_line().encode()
    with open(run.events_path, "ab") as stream:
        # Cut inside a character of two bytes.
        stream.write(line[: line.index("ö".encode()) + 1])
    assert tail.read() == []
    with open(run.events_path, "ab") as stream:
        stream.write(line[line.index("ö".encode()) + 1 :] + b"\n")
    assert [item.values for item in tail.read()] == [{"text": "größer"}]


def test_a_line_torn_by_a_crash_is_passed_over(run: RunFolder) -> None:
    write(run, event("step", 1))
    with open(run.events_path, "ab") as stream:
        stream.write(b'{"run_id": "r", "ki\n')
    write(run, event("step", 2))
    assert [item.step for item in run.events()] == [1, 2]


def test_states_by_heartbeat_and_process(run: RunFolder) -> None:
    write(run, event("started"))
    worker(run, os.getpid())
    assert run.state() == "running"
    worker(run, os.getpid(), age=STALE_SECONDS + 1)
    assert run.state() == "interrupted"
    worker(run, ended_pid())
    assert run.state() == "interrupted"
    # The same number on another machine says nothing here; its heartbeat does.
    worker(run, ended_pid(), host="elsewhere")
    assert run.state() == "running"


@pytest.mark.parametrize("kind", ["done", "stopped", "failed"])
def test_the_last_event_ends_a_run(run: RunFolder, kind: Kind) -> None:
    worker(run, ended_pid())
    write(run, event("started"), event(kind))
    assert run.state() == kind


def test_a_zombie_is_no_worker() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not process_exists(process.pid)
    process.wait()
    assert process_exists(os.getpid())


def test_follow_yields_what_comes_until_the_end(run: RunFolder) -> None:
    worker(run, os.getpid())
    write(run, event("started"))
    steps = iter([event("step", 1), event("step", 2), event("done", 3)])
    found = list(follow(run, wait=lambda _: write(run, next(steps))))
    assert [item.kind for item in found] == ["started", "step", "step", "done"]


def test_follow_passes_the_ending_of_an_earlier_worker(run: RunFolder) -> None:
    write(run, event("started"), event("stopped", 4))
    time.sleep(0.01)
    now = time.time()
    values = {"pid": os.getpid(), "host": socket.gethostname(), "started": now, "heartbeat": now}
    (run.path / "worker.json").write_text(json.dumps(values))
    assert run.state() == "running"
    found = list(follow(run, wait=lambda _: write(run, event("started", 4), event("done", 9))))
    assert [item.kind for item in found] == ["started", "stopped", "started", "done"]


def test_follow_tells_of_a_worker_that_died_in_silence(run: RunFolder) -> None:
    worker(run, ended_pid())
    write(run, event("started"), event("step", 5))
    last = list(follow(run))[-1]
    assert last.kind == "failed" and last.step == 5 and last.values["interrupted"]
    assert [item.kind for item in run.events()] == ["started", "step"]


def test_follow_notices_its_child_s_death_at_once(run: RunFolder) -> None:
    worker(run, None)
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    killer = threading.Timer(0.3, process.kill)
    killer.start()
    begun = time.monotonic()
    assert [item.kind for item in follow(run, process)] == ["failed"]
    assert time.monotonic() - begun < 20
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def test_stop_and_resume_leave_no_trace_of_each_other(run: RunFolder) -> None:
    run.request_stop()
    assert run.stop_path().exists()
    worker(run, ended_pid())
    run.prepare_resume()
    assert not run.stop_path().exists()


def test_a_run_at_work_or_done_is_not_resumed(study: Study, run: RunFolder) -> None:
    worker(run, os.getpid())
    with pytest.raises(UserError, match="being worked on"):
        run.prepare_resume()
    write(run, event("done"))
    with pytest.raises(UserError, match="is done"):
        run.prepare_resume()
    with pytest.raises(UserError, match="no run run-nowhere"):
        RunFolder(study.runs_folder / "run-nowhere").prepare_resume()


def test_latest_run_is_the_last_that_finished(study: Study, run: RunFolder) -> None:
    with pytest.raises(UserError, match="no finished run"):
        latest_run(study)
    worker(run, ended_pid())
    write(run, event("done"))
    create_run(study, RunSpec())
    assert latest_run(study) == run.id


def test_a_long_job_travels_in_a_file(tmp_path: Path) -> None:
    short = worker_command({"task": "embed"}, tmp_path)
    assert short[1:5] == ["-I", "-m", "app", "--worker"] and json.loads(short[5]) == {"task": "embed"}
    job = {"task": "predict", "images": [f"image-{number:06}" for number in range(5000)]}
    path = Path(worker_command(job, tmp_path)[-1])
    assert path.parent == tmp_path and json.loads(path.read_text()) == job


def test_this_module_needs_no_torch() -> None:
    code = "import segmentation.runs, segmentation.presets, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
