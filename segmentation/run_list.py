"""All runs of a study at a glance: what each is, how it stands, what it was measured to be. Never imports torch.

Reads little of each run and keeps it, so that a list of hundreds can be asked for whenever something may have changed.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import re
import socket
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, read_json
from segmentation.evaluation import Against
from segmentation.job import JobEvent, RunSpec
from segmentation.runs import RunFolder, State, ending, events_at_end
from segmentation.study import TEST_SPLIT, Study

NAME_FILE = "name.json"
"""Holds the name that a person gave the run, beside its id, which never changes."""

_HEAD_BYTES = 8192
"""Of a stored measurement; what it says of all images together comes first."""
_BLOCK_BYTES = 1 << 20
_LONGEST_BEGINNING = 16384
"""How long the line may be that tells of a run's beginning."""
_LATEST = 3
"""How many of the last events are looked at for the step: the very last may tell of none."""
_END_OF_TIME = datetime.datetime(9000, 1, 1).timestamp()
_DAMAGES = (OSError, TypeError, ValueError, KeyError, AttributeError)
_DRAWN_ID = re.compile(r"(?:run-)?\d{8}-\d{6}-[0-9a-f]{6}")
_PER_IMAGE = re.compile(rb'\n  "per_image": ')


@dataclass(frozen=True)
class Measured:
    """The means of one stored measurement."""

    split: str | None
    """None: all images."""
    against: Against
    images: int
    dice: float
    """Mean over images, 0..1; NaN where it is not defined."""
    sd: float
    gaze: str
    """Where the gaze came from that the run learned from, in words."""
    evaluated: str
    """ISO 8601, UTC."""

    @property
    def simulated(self) -> bool:
        """Whether that gaze was no person's."""
        return self.gaze.startswith("simulated")

    def to_json(self) -> dict[str, Any]:
        """Return all of it, null where not defined."""
        return {
            "split": self.split,
            "against": self.against,
            "images": self.images,
            "dice": {"mean": _finite(self.dice), "sd": _finite(self.sd)},
            "gaze": self.gaze,
            "evaluated": self.evaluated,
        }


@dataclass(frozen=True)
class RunSummary:
    """One run, as a list shows it."""

    id: str
    name: str
    """What a person called it; empty where nobody did."""
    spec: RunSpec | None
    """None where it cannot be read."""
    problem: str
    """Why it cannot, in a sentence."""
    state: State
    host: str
    """The other machine that works on it; empty where it is this one, or none does."""
    step: int
    total: int
    """Steps that the run will have; 0 before it begins."""
    device: str
    """As the worker named it; before it began what was asked for."""
    seconds: float
    """Of training; of an unfinished run up to its last checkpoint, of one at work of this sitting. NaN: unknown."""
    begun: float
    """When it was first begun or, before that, made; seconds since the epoch."""
    measured: tuple[Measured, ...]
    """The last measurement of each split and kind of truth, the split ``test`` first."""

    @property
    def method(self) -> str:
        """Its method; ``?`` where the spec cannot be read."""
        return self.spec.method if self.spec else "?"

    @property
    def title(self) -> str:
        """What people tell it by: its name, else an id that somebody chose, else its method."""
        return self.name or (self.method if _DRAWN_ID.fullmatch(self.id) and self.spec else self.id)

    @property
    def simulated(self) -> bool:
        """Whether any of its measurements is of simulated gaze."""
        return any(one.simulated for one in self.measured)

    def measurement(self, split: str | None, against: str) -> Measured | None:
        """Return the measurement of a split against a kind of truth."""
        return next((one for one in self.measured if (one.split, one.against) == (split, against)), None)

    def to_json(self) -> dict[str, Any]:
        """Return what ``runs --json`` prints of it, but its size."""
        spec = self.spec
        return {
            "id": self.id,
            "name": self.name or None,
            "method": spec.method if spec else None,
            "preset": spec.preset if spec else None,
            "seed": spec.seed if spec else None,
            "state": self.state,
            "host": self.host or None,
            "steps": self.step,
            "total": self.total,
            "device": self.device,
            "seconds": _finite(self.seconds),
            "begun": datetime.datetime.fromtimestamp(self.begun, datetime.timezone.utc).isoformat(
                timespec="seconds"
            ),
            "metrics": [one.to_json() for one in self.measured],
            "problem": self.problem or None,
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class _Stamp(NamedTuple):
    name: str
    mtime_ns: int
    size: int
    inode: int


@dataclass(frozen=True)
class _Read:
    """What the files of a run said when they last changed."""

    stamps: tuple[_Stamp, ...]
    name: str
    spec: RunSpec | None
    problem: str
    worker: dict[str, Any]
    ended: State | None
    """How it ended, which stays so while its files are the same; None: its state changes by itself."""
    step: int
    total: int
    device: str
    seconds: float
    begun: float
    measured: tuple[Measured, ...]


class RunList:
    """The runs of a study, newest first; of a run whose files are as before only its state is looked at again."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._read: dict[str, _Read] = {}

    def summaries(self) -> list[RunSummary]:
        """Return all runs as they are now, those that cannot be read, too.

        Raises
        ------
        UserError
            If the study cannot be reached.
        """
        names = _run_names(self.study.runs_folder)
        if not names:
            self.study.check_there()
        self._read = {name: self._read[name] for name in names if name in self._read}
        found = [one for one in map(self._summary, names) if one is not None]
        return sorted(found, key=lambda one: (one.begun, one.id), reverse=True)

    def _summary(self, name: str) -> RunSummary | None:
        run = RunFolder(self.study.runs_folder / name)
        stamps = tuple(_stamps(run.path))
        kept = self._read.get(name)
        if kept is None or kept.stamps != stamps:
            if not stamps:
                return None
            try:
                kept = _read(run, stamps)
            except _DAMAGES as error:
                kept = _damaged(run, stamps, error)
            self._read[name] = kept
        host = str(kept.worker.get("host", ""))
        try:
            state = kept.ended or run.state()
        except _DAMAGES:
            state = "interrupted"
        return RunSummary(
            id=name,
            name=kept.name,
            spec=kept.spec,
            problem=kept.problem,
            state=state,
            host=host if state == "running" and host != socket.gethostname() else "",
            step=kept.step,
            total=kept.total,
            device=kept.device,
            seconds=kept.seconds,
            begun=kept.begun,
            measured=kept.measured,
        )


def summary_of(study: Study, run_id: str) -> RunSummary:
    """Return one run of a study.

    Raises
    ------
    UserError
        If there is none of this id.
    """
    names = _run_names(study.runs_folder)
    found = RunList(study)._summary(run_id) if run_id in names else None
    if found is None:
        study.check_there()
        known = f"it has: {', '.join(names)}" if names else "it has none yet"
        raise UserError(f"The study {study.folder} has no run {run_id!r}; {known}.")
    return found


def _run_names(folder: Path) -> list[str]:
    with explained_os_errors(folder):
        try:
            with os.scandir(folder) as entries:
                return sorted(one.name for one in entries if one.name[0] != "." and one.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []


def _stamps(folder: Path) -> Iterator[_Stamp]:
    """Tell what a change of a run's files would change; nothing of a folder that holds none of them."""
    # Of hundreds of runs: joining paths costs more than asking for their stamps.
    base = f"{folder}{os.sep}"
    for name in ("spec.json", NAME_FILE, "events.jsonl", "worker.json"):
        with contextlib.suppress(OSError):
            found = os.stat(base + name)
            if stat.S_ISREG(found.st_mode):
                yield _Stamp(name, found.st_mtime_ns, found.st_size, found.st_ino)
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(base + "metrics")):
            if name.endswith(".json") and name[0] != ".":
                found = os.stat(f"{base}metrics{os.sep}{name}")
                yield _Stamp(f"metrics/{name}", found.st_mtime_ns, found.st_size, found.st_ino)


def _read(run: RunFolder, stamps: tuple[_Stamp, ...]) -> _Read:
    spec, problem = None, ""
    try:
        spec = run.spec
    except UserError as error:
        problem = str(error)
    worker = run.worker()
    latest = events_at_end(run.events_path, _LATEST)
    first, started = _beginning(run.events_path)
    last = latest[-1] if latest else None
    since = _number(worker.get("started"))
    return _Read(
        stamps=stamps,
        name=read_name(run),
        spec=spec,
        problem=problem,
        worker=worker,
        ended=ending(last, worker),
        step=max((event.step for event in latest), default=0),
        total=last.total if last else spec.iterations if spec else 0,
        device=str(started.values.get("device", "")) if started else spec.device if spec else "",
        seconds=_seconds(run, last, since),
        begun=_begun(first, stamps),
        measured=tuple(_measurements(run, stamps)),
    )


def _damaged(run: RunFolder, stamps: tuple[_Stamp, ...], error: Exception) -> _Read:
    """Tell of a run whose events or worker's word are none, that it can be seen and deleted."""
    return _Read(
        stamps=stamps,
        name=read_name(run),
        spec=None,
        problem=f"{run.path} is damaged: what it tells of itself cannot be understood ({error}). Delete the run.",
        worker={},
        ended=None,
        step=0,
        total=0,
        device="",
        seconds=math.nan,
        begun=stamps[0].mtime_ns / 1e9,
        measured=(),
    )


def _begun(first: JobEvent | None, stamps: Sequence[_Stamp]) -> float:
    time = _number(first.time) if first is not None else math.nan
    # A clock that nobody set, or a number that is no time.
    return time if 0 < time < _END_OF_TIME else stamps[0].mtime_ns / 1e9


def read_name(run: RunFolder) -> str:
    """Return the name that somebody gave a run; empty where nobody did, or its file is damaged."""
    try:
        values = read_json(run.path / NAME_FILE)
    except UserError:
        return ""
    name = values.get("name") if isinstance(values, dict) else None
    return name if isinstance(name, str) else ""


def _beginning(path: Path) -> tuple[JobEvent | None, JobEvent | None]:
    """Return a run's first event, and how its latest sitting began."""
    try:
        with open(path, "rb") as stream:
            first = _event(stream.readline())
            end = stream.seek(0, os.SEEK_END)
            # A run that was resumed begins several times: the last is looked for from the end.
            while end > 0:
                start = max(0, end - _BLOCK_BYTES)
                stream.seek(start)
                # A line that lies across two blocks is whole in one of them.
                started = _started(stream.read(end - start + _LONGEST_BEGINNING))
                if started is not None:
                    return first, started
                end = start
            return first, None
    except OSError:
        return None, None


def _started(data: bytes) -> JobEvent | None:
    end = len(data)
    while (place := data.rfind(b'"kind": "started"', 0, end)) >= 0:
        begin = data.rfind(b"\n", 0, place) + 1
        event = _event(data[begin:].partition(b"\n")[0])
        if event is not None and event.kind == "started":
            return event
        end = place
    return None


def _event(line: bytes) -> JobEvent | None:
    try:
        return JobEvent.from_line(line.decode("utf-8", errors="replace"))
    except ValueError:
        return None


def _seconds(run: RunFolder, last: JobEvent | None, started: float) -> float:
    if last is None:
        return math.nan
    if last.kind == "done":
        return _number(last.values.get("seconds"))
    if last.kind not in ("stopped", "failed") and last.time >= started > 0 and run.state() == "running":
        return last.time - started
    states = sorted((run.path / "checkpoints").glob("[0-9]*/state.json"))
    try:
        return _number(read_json(states[-1]).get("seconds")) if states else math.nan
    except (UserError, AttributeError):
        return math.nan


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _measurements(run: RunFolder, stamps: Sequence[_Stamp]) -> list[Measured]:
    found = []
    for stamp in stamps:
        if stamp.name.startswith("metrics/"):
            # A damaged one is as good as none: measuring again mends it.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                values = _head_of(run.path / stamp.name)
                found.append(
                    Measured(
                        split=values["split"],
                        against=values["against"],
                        images=int(values["images"]),
                        dice=_number(values["dice"]["mean"]),
                        sd=_number(values["dice"]["sd"]),
                        gaze=str(values["gaze"]),
                        evaluated=str(values.get("evaluated", "")),
                    )
                )
    return sorted(found, key=lambda one: (one.split != TEST_SPLIT, one.against != "masks", one.split or ""))


def _head_of(path: Path) -> dict[str, Any]:
    """Read a stored measurement without its images, which are by far the most of it."""
    with open(path, "rb") as stream:
        data = stream.read(_HEAD_BYTES)
        cut = _PER_IMAGE.search(data)
        if cut is not None:
            head: dict[str, Any] = json.loads(data[: cut.start()].rstrip().rstrip(b",") + b"}")
            return head
        values: dict[str, Any] = json.loads(data + stream.read())
        return values


def shown_measurement(runs: Sequence[RunSummary]) -> tuple[str | None, str] | None:
    """Return the split and truth that a list of runs shows the Dice of: one for all, that numbers can be compared.

    The split ``test`` against true masks where any run has it, else what most runs have.
    """
    counts: dict[tuple[str | None, str], int] = {}
    for run in runs:
        for one in run.measured:
            counts[one.split, one.against] = counts.get((one.split, one.against), 0) + 1
    if not counts:
        return None
    return max(
        counts, key=lambda key: (key == (TEST_SPLIT, "masks"), counts[key], key[1] == "masks", str(key[0]))
    )
