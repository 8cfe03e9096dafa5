"""The run folder as seen from outside: start a worker, follow its events, ask it to stop. Never imports torch.

``runs/<id>/`` holds ``spec.json``, ``events.jsonl`` (the truth about the run), ``worker.json`` (pid, host and
heartbeat of the worker), ``worker.log`` (its stderr), the file ``stop`` while a stop is asked for, and what the
worker makes: ``checkpoints/``, ``samples/``, ``predictions/``, and ``engines/`` (networks converted for other engines).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, read_json, write_bytes_atomic, write_json_atomic
from segmentation.job import ENDINGS, JobEvent, RunSpec
from segmentation.records import new_id
from segmentation.study import Study
from segmentation.text.choice import with_text

State = Literal["waiting", "running", "done", "stopped", "failed", "interrupted"]
"""`waiting`: never started; `interrupted`: its worker is gone without a word (killed, power cut)."""

HEARTBEAT_SECONDS = 2.0
STALE_SECONDS = 30.0
"""A worker whose heartbeat is older is taken for gone; one on this machine is found out sooner, by its pid."""
STARTING_SECONDS = 120.0
"""A worker that has not written yet may still be importing torch from a cold disk."""
POLL_SECONDS = 0.1

INTERRUPTED = (
    "The worker is gone without a word: it was killed (often for want of memory), or the machine was switched off. "
    "Everything up to the last checkpoint is safe; resume the run to go on."
)

_LONGEST_ARGUMENT = 8000
"""Windows refuses command lines beyond 32767 characters; longer jobs travel in a file."""


class EventTail:
    """Reads the new complete lines of a growing events file; a torn last line waits for its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def read(self) -> list[JobEvent]:
        """Return the events written since the last call."""
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self._offset)
                data = stream.read()
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        events = []
        for line in complete.splitlines():
            # A line torn by a crash is closed by the next worker and means nothing.
            with contextlib.suppress(ValueError):
                events.append(JobEvent.from_line(line.decode("utf-8", errors="replace")))
        return events


@dataclass(frozen=True)
class RunFolder:
    """One run of a study, on disk."""

    path: Path

    @property
    def id(self) -> str:
        """The run's id, the name of its folder."""
        return self.path.name

    @property
    def study_folder(self) -> Path:
        """The study the run belongs to."""
        return self.path.parent.parent

    @property
    def spec(self) -> RunSpec:
        """What the run was asked to do.

        Raises
        ------
        UserError
            If spec.json is missing or damaged.
        """
        path = self.path / "spec.json"
        values = read_json(path)
        if not isinstance(values, dict):
            raise UserError(f"{path} is damaged: it holds no run spec. Start a new run.")
        return RunSpec.from_json(values, str(path))

    @property
    def events_path(self) -> Path:
        """The run's events, one JSON object a line."""
        return self.path / "events.jsonl"

    def events(self) -> list[JobEvent]:
        """Return all events up to now."""
        return EventTail(self.events_path).read()

    def worker(self) -> dict[str, Any]:
        """Return what the worker last said of itself: pid, host, started, heartbeat (epoch seconds); or nothing."""
        try:
            values = read_json(self.path / "worker.json")
        except UserError:
            return {}
        return values if isinstance(values, dict) else {}

    def state(self) -> State:
        """Return how the run stands."""
        worker = self.worker()
        ending = _ending(self.events(), float(worker.get("started", 0.0)))
        if ending is not None:
            return ending
        if not worker:
            return "waiting"
        return "running" if _is_alive(worker) else "interrupted"

    def stop_path(self, task: Literal["train", "predict"] = "train") -> Path:
        """Return the file whose presence asks a worker to stop."""
        return self.path / "stop" if task == "train" else self.path / "predictions" / "stop"

    def request_stop(self, task: Literal["train", "predict"] = "train") -> None:
        """Ask the worker to stop at its next step; it keeps what it has done."""
        write_bytes_atomic(self.stop_path(task), b"")

    def prepare_resume(self) -> None:
        """Take back an earlier request to stop, so that the run can go on.

        Raises
        ------
        UserError
            If there is no such run, or a worker is at work on it.
        """
        if not (self.path / "spec.json").exists():
            raise UserError(f"There is no run {self.id} in {self.study_folder}.")
        state = self.state()
        if state == "running":
            raise UserError(f"The run {self.id} is being worked on already; stop it first or wait.")
        if state == "done":
            raise UserError(f"The run {self.id} is done; start a new one.")
        self.stop_path().unlink(missing_ok=True)

    def log_tail(self, lines: int = 20) -> str:
        """Return the end of the worker's own log, for a report of what went wrong."""
        try:
            text = (self.path / "worker.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


def _ending(events: list[JobEvent], started: float) -> Literal["done", "stopped", "failed"] | None:
    """Return how the latest worker ended; an ending from before it started is an earlier worker's."""
    if events and events[-1].kind in ENDINGS and events[-1].time >= started:
        return events[-1].kind  # type: ignore[return-value]
    return None


def _is_alive(worker: dict[str, Any]) -> bool:
    age = time.time() - float(worker.get("heartbeat", 0.0))
    pid = worker.get("pid")
    if pid is None:
        return age < STARTING_SECONDS
    if worker.get("host") == socket.gethostname() and not process_exists(int(pid)):
        return False
    return age < (STARTING_SECONDS if worker.get("starting") else STALE_SECONDS)


def process_exists(pid: int) -> bool:
    """Whether a process of this machine is there and has not ended."""
    if sys.platform == "win32":
        import ctypes

        # os.kill(pid, 0) would end the process on Windows.
        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(0x1000, False, pid)
        if not handle:
            return False
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return code.value == 259
    try:
        # A child nobody has waited for yet is a zombie: still listed, yet ended.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def create_run(study: Study, spec: RunSpec, run_id: str | None = None) -> RunFolder:
    """Make the folder of a new run and store its spec; one that names no target learns all of the study's.

    Raises
    ------
    UserError
        If the study cannot be written, or has no such target or imported embeddings, or has a run of that id.
    """
    if run_id is not None and not re.fullmatch(r"[A-Za-z0-9][\w-]{0,63}", run_id, re.ASCII):
        raise UserError(f"A run's name has letters, digits, - and _ (at most 64), not {run_id!r}.")
    if run_id is not None and (study.runs_folder / run_id).exists():
        raise UserError(f"The study has a run {run_id!r} already; choose another name.")
    spec = dataclasses.replace(spec, targets=spec.targets or tuple(target.id for target in study.targets))
    for target_id in spec.targets:
        study.target(target_id)
    spec = with_text(study, spec)
    run = RunFolder(study.runs_folder / (run_id or new_id("run-")))
    write_json_atomic(run.path / "spec.json", spec.to_json())
    return run


def worker_command(job: dict[str, Any], folder: Path, processes: int = 1) -> list[str]:
    """Return the command that does a job: this very program with ``--worker``, isolated from the environment.

    Several processes of it are started by torchrun.

    Raises
    ------
    UserError
        If several are asked for where there is no torchrun: in a bundled program.
    """
    text = json.dumps(job, ensure_ascii=False)
    if len(text) > _LONGEST_ARGUMENT:
        path = folder / f"job-{new_id()}.json"
        write_bytes_atomic(path, text.encode())
        text = str(path)
    if getattr(sys, "frozen", False):
        if processes > 1:
            raise UserError(
                "This bundled program trains in one process; several GPUs need an installation with pip."
            )
        return [sys.executable, "--worker", text]
    worker = [sys.executable, "-I", "-m", "app", "--worker", text]
    if processes == 1:
        return worker
    torchrun = [sys.executable, "-I", "-m", "torch.distributed.run"]
    return [*torchrun, "--standalone", "--nproc-per-node", str(processes), "--no-python", *worker]


def start_worker(
    run: RunFolder | Path,
    job: dict[str, Any] | None = None,
    *,
    detached: bool = True,
    threads: int | None = None,
    processes: int = 1,
) -> subprocess.Popen[bytes]:
    """Start a worker on a run, or on another job of a study.

    Parameters
    ----------
    run
        The run, or for a job without one the study's folder.
    job
        ``{"task": "train"}`` (default), ``{"task": "predict", ...}``, ``{"task": "embed", ...}``,
        ``{"task": "import-embeddings", ...}`` or ``{"task": "describe", ...}``; see `segmentation.worker`.
    detached
        A detached worker outlives this process and speaks through the run's events file alone. Any other speaks on
        its stdout, too (see `read_events`), and ends with this process.
    threads
        Processor threads it may use; None for all cores. A program with an open window gives one less.
    processes
        How many of them train together, a GPU each; see `segmentation.processes`.

    Raises
    ------
    UserError
        If the run is being worked on already, or its folder cannot be written.
    """
    folder = run.path if isinstance(run, RunFolder) else Path(run)
    job = {"task": "train", "threads": threads, "detached": detached, **(job or {})}
    if isinstance(run, RunFolder):
        job |= {"study": str(run.study_folder), "run": run.id}
        if job["task"] == "train":
            if run.state() == "running":
                raise UserError(f"The run {run.id} is being worked on already.")
            now = time.time()
            announced = {"pid": None, "host": socket.gethostname(), "started": now, "heartbeat": now}
            write_json_atomic(run.path / "worker.json", announced)
    else:
        job |= {"study": str(folder)}
    options: dict[str, Any] = {}
    if detached:
        if sys.platform == "win32":
            options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS
        else:
            options["start_new_session"] = True
    elif sys.platform == "win32":
        options["creationflags"] = subprocess.CREATE_NO_WINDOW
    with explained_os_errors(folder), open(folder / "worker.log", "ab") as log:
        return subprocess.Popen(
            worker_command(job, folder, processes),
            cwd=folder,
            stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
            stdout=subprocess.DEVNULL if detached else subprocess.PIPE,
            stderr=log,
            **options,
        )


def follow(
    run: RunFolder,
    process: subprocess.Popen[bytes] | None = None,
    *,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[JobEvent]:
    """Yield the run's events from its first to its end, waiting for new ones.

    A worker that went without a word ends the iteration with a `failed` event that says so; it is not written to the
    run. Give the `process` where it is a child of this one, so that its end is noticed at once.
    """
    tail = EventTail(run.events_path)
    started = float(run.worker().get("started", 0.0))
    last: JobEvent | None = None
    while True:
        gone = (
            (process.poll() is not None) if process is not None else run.state() in ("interrupted", "waiting")
        )
        for event in tail.read():
            last = event
            yield event
            if event.kind in ENDINGS and event.time >= started:
                return
        if gone:
            # What it wrote last was read above, after its end was seen.
            step, total = (last.step, last.total) if last else (0, 0)
            yield JobEvent(
                run.id, "failed", step, total, time.time(), {"message": INTERRUPTED, "interrupted": True}
            )
            return
        wait(POLL_SECONDS)


def read_events(process: subprocess.Popen[bytes]) -> Iterator[JobEvent]:
    """Yield the events of a worker that is not detached, up to its end; a silent death becomes a `failed` event."""
    assert process.stdout is not None
    ended = False
    last: JobEvent | None = None
    for line in process.stdout:
        with contextlib.suppress(ValueError):
            last = JobEvent.from_line(line.decode("utf-8", errors="replace"))
            ended = last.kind in ENDINGS
            yield last
    process.wait()
    if not ended:
        run_id, step, total = (last.run_id, last.step, last.total) if last else ("", 0, 0)
        yield JobEvent(
            run_id, "failed", step, total, time.time(), {"message": INTERRUPTED, "interrupted": True}
        )


def await_worker(
    run: RunFolder | Path, job: dict[str, Any], on_event: Callable[[JobEvent], object] = lambda _: None
) -> dict[str, Any]:
    """Do a job in a worker that ends with this process, and return the values of its `done` event.

    Parameters
    ----------
    run, job
        As `start_worker` takes them.
    on_event
        Told of every event.

    Raises
    ------
    UserError
        If the worker failed; the sentence is its own.
    """
    with start_worker(run, job, detached=False) as process:
        for event in read_events(process):
            on_event(event)
            if event.kind == "done":
                return event.values
            if event.kind in ENDINGS:
                raise UserError(str(event.values.get("message")))
    raise AssertionError("a worker's events end with an ending")


def latest_run(study: Study, run_id: str | None = None) -> str:
    """Return the run asked for, or the latest that finished.

    Raises
    ------
    UserError
        If there is none.
    """
    known = study.run_ids()
    if run_id is not None:
        if run_id not in known:
            raise UserError(f"The study has no run {run_id!r}; it has: {', '.join(known) or 'none yet'}.")
        return run_id
    for name in reversed(known):
        if RunFolder(study.runs_folder / name).state() == "done":
            return name
    raise UserError("The study has no finished run yet; train first: gaze-insight train STUDY")
