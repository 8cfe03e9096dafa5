"""What a recording loses when its process is killed at any instant.

``gaze-insight record`` runs as a process of its own at 1200 Hz, is killed with SIGKILL some time after its first
samples are on disk, and is recovered. Lost are the milliseconds between the kill and the last sample that was
recovered. Run by name: ``python -m tests.benchmarks.kill_recordings --tries 200``.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording_codec import FRAMES_NAME, read_recording, recover
from segmentation.records import Target
from segmentation.study import Study

FIRST_BYTES = 20_000
"""The recording is under way once its file is so long."""
AT_ONCE = 2


@dataclass(frozen=True)
class Killed:
    """One recording that was killed."""

    lost_ms: float
    opened: bool
    ascending: bool


def kill_one(folder: Path, rate_hz: float, after_s: float) -> Killed:
    """Record into a study of its own, kill, recover."""
    study = Study.create(folder, "Killed", (Target("target", "Target"),))
    command = [sys.executable, "-m", "app", "record", str(folder), "--tracker", "simulated"]
    command += ["--rate", f"{rate_hz:g}", "--seconds", "60"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        frames: Sequence[Path] = ()
        while not frames or frames[0].stat().st_size < FIRST_BYTES:
            time.sleep(0.01)
            frames = list(study.recordings_folder.glob(f"*/{FRAMES_NAME}"))
        time.sleep(after_s)
        killed_ns = time.monotonic_ns()
        os.kill(process.pid, signal.SIGKILL)
    place = frames[0].parent
    try:
        recovered = recover(place)
        recording = read_recording(place)
    except UserError as error:
        sys.stdout.write(f"{error}\n")
        return Killed(float("nan"), False, False)
    last_ns = recovered.last_time_ns
    assert last_ns is not None
    ascending = bool((np.diff(recording.time_ns) > 0).all()) and len(recording.time_ns) == recovered.stored
    return Killed((killed_ns - last_ns) / 1e6, True, ascending)


def main() -> None:
    """Kill many, and print what was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=200)
    parser.add_argument("--rate", type=float, default=1200.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    waits = np.random.default_rng(args.seed).uniform(0.0, 2.5, args.tries)
    with tempfile.TemporaryDirectory(prefix="gaze-kill-") as name, ThreadPoolExecutor(AT_ONCE) as pool:
        work = [
            pool.submit(kill_one, Path(name) / f"study-{number}", args.rate, float(wait))
            for number, wait in enumerate(waits)
        ]
        found = [future.result() for future in work]
    lost = np.array([one.lost_ms for one in found if one.opened])
    write = sys.stdout.write
    write(f"killed at random instants  {len(found)} at {args.rate:g} Hz, {AT_ONCE} at once\n")
    write(f"not opened by recover      {sum(not one.opened for one in found)}\n")
    write(f"not in order afterwards    {sum(one.opened and not one.ascending for one in found)}\n")
    write(f"lost, median               {np.median(lost):.0f} ms\n")
    write(f"lost, 95 %                 {np.percentile(lost, 95):.0f} ms\n")
    write(f"lost, most                 {lost.max():.0f} ms\n")


if __name__ == "__main__":
    main()
