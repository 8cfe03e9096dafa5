"""Damage thousands of files of every format and read them: ``python -m tests.benchmarks.fuzz_readers --count 2000``.

Every file is read in a child process, which may take 5 s and 1 GiB for it. Exit status 1 tells of a crash, a file
that took longer or more, or of any exception but a sentence for the user.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from gaze_capture.errors import UserError
from tests.fuzzing import damaged, deeply_damaged, read_everything, samples

SECONDS = 5.0
MAX_RSS_MIB = 1024


@dataclass
class Row:
    """What became of one format's files."""

    files: int = 0
    read: int = 0
    refused: int = 0
    crashed: int = 0
    other: int = 0
    slow: int = 0
    peak_mib: int = 0
    samples: dict[str, str] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)

    def fault(self, kind: str, sample: str) -> None:
        """Keep the first of every kind of fault."""
        self.faults[kind] += 1
        self.samples.setdefault(kind, sample)


def _rss_mib(pid: int) -> int:
    """Return the peak resident size of a process in MiB since it was last reset; 0 where it cannot be told."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) >> 10
    except (OSError, ValueError):
        pass
    return 0


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def work() -> None:
    """Read the files named on standard input, one a line, and answer with one line of JSON each."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    # Libraries print what they think of a file; nobody is to take that for an answer.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    warnings.simplefilter("error")
    answers.write("{}\n")
    for line in sys.stdin:
        _reset_peak()
        answer: dict[str, Any]
        try:
            read_everything(Path(line.rstrip("\n")))
            answer = {"result": "read"}
        except UserError as error:
            answer = {"result": "refused", "text": str(error)}
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
            answer = {"result": "other", "kind": kind, "text": traceback.format_exc()[-3000:]}
        answer["rss"] = _rss_mib(os.getpid())
        answers.write(json.dumps(answer) + "\n")


class _Child:
    """A process that reads files, begun anew after a crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.benchmarks.fuzz_readers", "--work"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process, self._answers = process, queue.Queue()
        threading.Thread(target=self._follow, args=(process, self._answers), daemon=True).start()
        if not self._answers.get(timeout=120):
            raise RuntimeError("the reading process does not start")
        return process

    @staticmethod
    def _follow(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    def read(self, path: Path) -> dict[str, Any]:
        """Have a file read; crashes, slowness and greed are answers too."""
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        end, peak = time.monotonic() + SECONDS, 0
        while True:
            try:
                line = self._answers.get(timeout=0.02)
            except queue.Empty:
                peak = max(peak, _rss_mib(process.pid))
                if peak > 4 * MAX_RSS_MIB or time.monotonic() > end:
                    slow = peak <= 4 * MAX_RSS_MIB
                    self.close()
                    return {"result": "slow" if slow else "greedy", "rss": peak}
                continue
            if not line:
                code = process.wait()
                self.close()
                return {"result": "crashed", "code": code, "rss": peak}
            answer: dict[str, Any] = json.loads(line)
            answer["rss"] = max(peak, answer["rss"])
            return answer

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                with contextlib.suppress(OSError):
                    self._process.stdin.close()
            self._process = None


def fuzz(count: int, seed: int, keep: Path | None, only: str | None) -> dict[str, Row]:
    """Damage and read `count` files, format after format."""
    rng = np.random.default_rng(seed)
    child = _Child()
    with tempfile.TemporaryDirectory() as folder:
        made = {name: choices for name, choices in samples(Path(folder)).items() if only in (None, name)}
        rows = {name: Row() for name in made}
        each = -(-count // len(made))
        for order, name in enumerate(made):
            # A process of its own for every format: what one left in memory is not another's peak.
            try:
                for number in range(order * each, min((order + 1) * each, count)):
                    choices = made[name]
                    files = choices[int(rng.integers(len(choices)))]
                    # The first is read as it is: what cannot be read whole proves nothing.
                    if number > order * each:
                        files = (deeply_damaged if number % 2 else damaged)(files, rng)
                    place = Path(folder) / str(number)
                    place.mkdir()
                    for file, data in files.items():
                        (place / file).write_bytes(data)
                    _count(rows[name], child.read(place / next(iter(files))), number, keep, place)
                    for path in place.iterdir():
                        path.unlink()
                    place.rmdir()
            finally:
                child.close()
    return rows


def _count(row: Row, answer: dict[str, Any], number: int, keep: Path | None, place: Path) -> None:
    row.files += 1
    row.peak_mib = max(row.peak_mib, answer["rss"])
    result = answer["result"]
    if result == "read":
        row.read += 1
    elif result == "refused":
        row.refused += 1
    elif result == "other":
        row.other += 1
        row.fault(answer["kind"], f"file {number}\n{answer['text']}")
    elif result == "slow":
        row.slow += 1
        row.fault(f"slower than {SECONDS:.0f} s", f"file {number}")
    elif result == "crashed":
        row.crashed += 1
        row.fault(f"crash, status {answer['code']}", f"file {number}")
    if answer["rss"] > MAX_RSS_MIB:
        row.fault(f"more than {MAX_RSS_MIB} MiB", f"file {number}: {answer['rss']} MiB")
    if keep is not None and (result not in ("read", "refused") or answer["rss"] > MAX_RSS_MIB):
        keep.mkdir(parents=True, exist_ok=True)
        for path in place.iterdir():
            (keep / f"{number}-{path.name}").write_bytes(path.read_bytes())


def main() -> int:
    """Print the table; return 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one format, as the table names it")
    parser.add_argument("--keep", type=Path, help="folder for the files that were not read cleanly")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work()
        return 0
    started = time.monotonic()
    rows = fuzz(options.count, options.seed, options.keep, options.only)
    console = Console(width=110)
    table = Table(title=f"{options.count} files, seed {options.seed}, {time.monotonic() - started:.0f} s")
    for name in ("format", "files", "read", "refused", "crashed", "other exception", "> 5 s", "peak RSS MiB"):
        table.add_column(name, justify="left" if name == "format" else "right")
    for name, row in rows.items():
        counts = (row.files, row.read, row.refused, row.crashed, row.other, row.slow, row.peak_mib)
        table.add_row(name, *map(str, counts))
    console.print(table)
    wrong = False
    for name, row in rows.items():
        for kind, times in row.faults.items():
            wrong = True
            console.print(f"\n{name}: {kind}, {times} times, first at {row.samples[kind]}", markup=False)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
