"""The workers of a study as their starter sees them: start one, follow what it tells, wait for its end.

A worker is this very program in a process of its own; what it does is told in `segmentation.worker`, where it writes in
`segmentation.runs`. Never imports torch.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, write_bytes_atomic, write_json_atomic
from segmentation.job import ENDINGS, JobEvent
from segmentation.records import new_id
from segmentation.runs import EventTail, RunFolder, begun_after, ending

POLL_SECONDS = 0.1
INTERRUPTED = (
    "The worker is gone without a word: it was killed (often for want of memory), or the machine was switched off. "
    "Everything up to the last checkpoint is safe; resume the run to go on."
)
_LONGEST_ARGUMENT = 8000
"""Windows refuses command lines beyond 32767 characters; longer jobs travel in a file."""


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
