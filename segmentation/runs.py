"""The run folder as seen from outside: how its run stands, what it told, asking it to stop. Never imports torch.

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
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, write_bytes_atomic, write_json_atomic
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
RUN_ID = r"[A-Za-z0-9][\w-]{0,63}"
"""What a run may be called, in ASCII."""
_END_BYTES = 4096
"""How much of an events file is read at first to find its last event."""


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
