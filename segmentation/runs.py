"""The run folder as seen from outside: start a worker, follow its events, ask it to stop. Never imports torch.

``runs/<id>/`` holds ``spec.json``, ``events.jsonl`` (the truth about the run), ``worker.json`` (pid, host and
heartbeat of the worker), ``worker.log`` (its stderr), the file ``stop`` while a stop is asked for, and what the
worker makes: ``checkpoints/``, ``samples/``, ``predictions/``, and ``engines/`` (networks converted for other engines).
Beside these lie ``metrics/``, the last measurement of each split, and ``name.json``, what a person calls the run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
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
FAR_STALE_SECONDS = 90.0
"""The same of a worker on another machine: a network share may show what a file held a minute ago."""
STARTING_SECONDS = 120.0
"""A worker that has not written yet may still be importing torch from a cold disk."""
POLL_SECONDS = 0.1
RUN_ID = r"[A-Za-z0-9][\w-]{0,63}"
"""What a run may be called, in ASCII."""
_END_BYTES = 4096
"""How much of an events file is read at first to find its last event."""

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
        except OSError:
            # Not there yet, or its share is out of reach for a while: what is missed now is read later.
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
        """Return what the worker last said of itself, or nothing.

        That is pid, host, started and heartbeat (seconds since the epoch by its own clock), and time and kind of the
        last event `after` which it began.
        """
        try:
            values = read_json(self._worker_path)
        except UserError:
            return {}
        return values if isinstance(values, dict) else {}

    @property
    def _worker_path(self) -> Path:
        return self.path / "worker.json"

    def is_elsewhere(self) -> bool:
        """Whether another machine works, or worked last, on the run."""
        worker = self.worker()
        return bool(worker) and worker.get("host") != socket.gethostname()

    def state(self) -> State:
        """Return how the run stands; `waiting`, too, where its folder cannot be read for a while."""
        worker = self.worker()
        try:
            last = last_event(self.events_path)
        except OSError:
            return "waiting"
        ended = ending(last, worker)
        if ended is not None:
            return ended
        if not worker:
            return "waiting"
        return "running" if _is_alive(worker, self._worker_path) else "interrupted"

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


def last_event(path: Path) -> JobEvent | None:
    """Return the last whole event of an events file, None where there is none; reads no more than its end.

    A window asks several times a second, and for each run of a study.
    """
    events = events_at_end(path)
    return events[-1] if events else None


def events_at_end(path: Path, most: int = 1) -> list[JobEvent]:
    """Return up to `most` whole events from the end of an events file, in their order; none where there is no file."""
    try:
        stream = open(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
        return []
    with stream:
        start = size = stream.seek(0, os.SEEK_END)
        reach = _END_BYTES
        found: list[JobEvent] = []
        while start > 0 and len(found) < most:
            start = max(0, size - reach)
            stream.seek(start)
            data = stream.read(size - start)
            # What follows the last newline is still being written; what precedes the first is cut, unless the file
            # begins there.
            lines = data[: data.rfind(b"\n") + 1].splitlines()[0 if start == 0 else 1 :]
            found = []
            for line in reversed(lines):
                with contextlib.suppress(ValueError):
                    found.append(JobEvent.from_line(line.decode("utf-8", errors="replace")))
                if len(found) == most:
                    break
            reach *= 16
    return found[::-1]


def begun_after(run: RunFolder) -> dict[str, Any] | None:
    """Return time and kind of a run's last event, by which a worker that begins now tells its own from earlier ones."""
    last = last_event(run.events_path)
    return None if last is None else {"time": last.time, "kind": last.kind}


def ending(last: JobEvent | None, worker: dict[str, Any]) -> Literal["done", "stopped", "failed"] | None:
    """Return how a run's latest worker ended, given the run's last event; an earlier worker's ending is none.

    Times are not compared: clocks of machines differ. Workers of earlier versions alone say no more than their time.
    """
    if last is None or last.kind not in ENDINGS:
        return None
    if "after" in worker:
        earlier = {"time": last.time, "kind": last.kind} == worker["after"]
    else:
        earlier = last.time < _number(worker, "started")
    return None if earlier else last.kind  # type: ignore[return-value]


def _number(worker: dict[str, Any], name: str) -> float:
    value = worker.get(name)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _is_alive(worker: dict[str, Any], path: Path) -> bool:
    pid = worker.get("pid")
    starting = not isinstance(pid, int)
    if worker.get("host") != socket.gethostname():
        return _lives.silent_seconds(path, worker) < (STARTING_SECONDS if starting else FAR_STALE_SECONDS)
    if isinstance(pid, int) and not process_exists(pid):
        return False
    return time.time() - _number(worker, "heartbeat") < (STARTING_SECONDS if starting else STALE_SECONDS)


class _Lives:
    """Since when workers on other machines are silent, by this computer's monotonic clock.

    Clocks of two machines may be hours apart, so that what a heartbeat says is worth nothing: what counts is that it
    changes while somebody looks. At the first look it is as old as its file, by the clock of the disk it lies on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[Path, tuple[str, float, float]] = {}
        """What each last said, since when, and when that was last looked at."""

    def silent_seconds(self, path: Path, worker: dict[str, Any]) -> float:
        """Return for how long a worker has said the same in its file."""
        said = json.dumps(worker, sort_keys=True, default=str)
        now = time.monotonic()
        with self._lock:
            before, since, looked = self._seen.get(path, ("", 0.0, 0.0))
            if said != before:
                unseen = now - looked if before else float("inf")
                # Who looked a moment ago knows that it was said since, whatever clocks say.
                since = now - (0.0 if unseen < FAR_STALE_SECONDS / 2 else min(_age_on_disk(path), unseen))
            self._seen[path] = said, since, now
        return now - since


_lives = _Lives()


def _age_on_disk(path: Path) -> float:
    """Return for how many seconds a file is as it is, by the clock that dates the files beside it."""
    probe = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        written = os.stat(path).st_mtime
        try:
            probe.write_bytes(b"?")
            now = os.stat(probe).st_mtime
        except OSError:
            # Nothing may be written here; the next change will tell.
            now = time.time()
    except OSError:
        return 0.0
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return max(0.0, now - written)


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
    if run_id is not None and not re.fullmatch(RUN_ID, run_id, re.ASCII):
        raise UserError(f"A run's name has letters, digits, - and _ (at most 64), not {run_id!r}.")
    if run_id is not None and (study.runs_folder / run_id).exists():
        raise UserError(f"The study has a run {run_id!r} already; choose another name.")
    spec = completed(study, spec)
    run = RunFolder(study.runs_folder / (run_id or new_id("run-")))
    write_json_atomic(run.path / "spec.json", spec.to_json())
    return run


def completed(study: Study, spec: RunSpec) -> RunSpec:
    """Return a spec that says what a run will learn and read, where it left that to the study.

    A packed training set has decided what is read already.

    Raises
    ------
    UserError
        If the study has no such target or imported embeddings.
    """
    spec = dataclasses.replace(spec, targets=spec.targets or tuple(target.id for target in study.targets))
    for target_id in spec.targets:
        study.target(target_id)
    return spec if study.is_packed() else with_text(study, spec)


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


def processors() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        # Neither Windows nor macOS ties a process to processors.
        return os.cpu_count() or 1


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
            write_json_atomic(run.path / "worker.json", {**announced, "after": begun_after(run)})
        elif job["task"] == "predict":
            with explained_os_errors(folder):
                run.stop_path("predict").unlink(missing_ok=True)
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
    worker = run.worker()
    earlier = worker.get("after")
    last: JobEvent | None = None
    while True:
        gone = (
            (process.poll() is not None) if process is not None else run.state() in ("interrupted", "waiting")
        )
        for event in tail.read():
            last = event
            yield event
            if earlier:
                # All up to this one was told by earlier workers, endings included.
                if {"time": event.time, "kind": event.kind} == earlier:
                    earlier = None
            elif ending(event, worker) is not None:
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
    run: RunFolder | Path,
    job: dict[str, Any],
    on_event: Callable[[JobEvent], object] = lambda _: None,
    stop: Callable[[], object] | None = None,
) -> dict[str, Any]:
    """Do a job in a worker that ends with this process, and return the values of its `done` event.

    Parameters
    ----------
    run, job
        As `start_worker` takes them.
    on_event
        Told of every event; what it raises, such as a cancellation, ends the worker.
    stop
        Asks the worker to stop, which is then waited for, so that it is not cut off in mid-work; a second Ctrl-C does.

    Raises
    ------
    UserError
        If the worker failed; the sentence is its own.
    """
    with start_worker(run, job, detached=False) as process:
        events = read_events(process)
        try:
            for event in events:
                on_event(event)
                if event.kind == "done":
                    return event.values
                if event.kind in ENDINGS:
                    raise UserError(str(event.values.get("message")))
        except UserError:
            raise
        except BaseException:
            if stop is not None:
                stop()
                for _ in read_events(process):
                    pass
            raise
    raise AssertionError("a worker's events end with an ending")


def train_to_end(
    run: RunFolder,
    job: dict[str, Any] | None = None,
    *,
    threads: int | None = None,
    processes: int = 1,
    on_event: Callable[[JobEvent], object] = lambda _: None,
) -> tuple[JobEvent, str]:
    """Train a run in a worker and wait for its end; Ctrl+C stops it with a checkpoint.

    Returns
    -------
    tuple
        The run's `done` event, and the device it was trained on.

    Raises
    ------
    UserError
        If the run is being worked on already, failed, or was stopped.
    """
    device = "unknown"
    process = start_worker(run, job, threads=threads, processes=processes)
    last: JobEvent | None = None
    try:
        # A resumed run tells its earlier life first, endings included: only its last word counts.
        for event in follow(run, process):
            on_event(event)
            last = event
            if event.kind == "started":
                device = str(event.values["device"])
    except KeyboardInterrupt:
        run.request_stop()
        raise
    finally:
        process.wait()
    assert last is not None, "a run that is followed ends with an event"
    if last.kind != "done":
        raise UserError(f"{last.values.get('message')} (run {run.id})")
    return last, device


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
