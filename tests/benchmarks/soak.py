"""A long recording while a training keeps the machine busy: what came, what is on disk, how late it got there.

``gaze-insight record`` runs as a process of its own, as do trainings, one after the other at the priority the
program gives them. Run by name: ``python -m tests.benchmarks.soak --minutes 10``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from gaze_capture.recording_codec import read_recording
from gaze_capture.storage import read_json
from segmentation import steps
from segmentation.phantoms import write_phantoms
from segmentation.records import Target
from segmentation.study import Study

PROGRAM = [sys.executable, "-m", "app"]


def phantom_study(folder: Path, images: int) -> Study:
    """Make a study with gaze and pseudo-masks, ready for training."""
    study = Study.create(folder / "study", "Soak", (Target("target", "Target"),))
    pictures, masks = write_phantoms(folder / "phantoms", images, 0, 160)
    steps.import_images(study, [pictures], masks=masks)
    steps.simulate(study)
    steps.make_pseudomasks(study)
    return study


def train_until(stopped: threading.Event, study: Study) -> int:
    """Train again and again; return how many trainings were begun."""
    for number in itertools.count():
        if stopped.is_set():
            return number
        command = [
            *PROGRAM,
            "train",
            str(study.folder),
            "--preset",
            "phantom",
            "--seed",
            str(number),
            "--json",
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as training:
            while training.poll() is None and not stopped.wait(0.5):
                pass
            if training.poll() is None:
                for run in study.run_ids():
                    (study.runs_folder / run / "stop").touch()
                training.wait()
            elif training.returncode:
                stopped.wait(5.0)
    raise AssertionError


def resident_mib(pid: int) -> float:
    """Return how much memory a process holds (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the soak and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=1200.0)
    parser.add_argument("--images", type=int, default=400, help="phantoms to train on")
    parser.add_argument("--no-training", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gaze-soak-") as name:
        study = phantom_study(Path(name), args.images)
        stopped = threading.Event()
        trainings: list[int] = []
        trainer = threading.Thread(target=lambda: trainings.append(train_until(stopped, study)))
        if not args.no_training:
            trainer.start()
        memory: list[float] = []
        command = [
            *PROGRAM,
            "record",
            str(study.folder),
            "--tracker",
            "simulated",
            "--rate",
            f"{args.rate:g}",
        ]
        command += ["--seconds", f"{args.minutes * 60:g}", "--annotator", "soak", "--json"]
        told = begun = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE) as recorder:
            while recorder.poll() is None:
                try:
                    memory.append(resident_mib(recorder.pid))
                except (ProcessLookupError, FileNotFoundError):
                    break
                if time.monotonic() - told > 60:
                    told = time.monotonic()
                    sizes = [path.stat().st_size for path in study.recordings_folder.glob("*/gaze.frames")]
                    say(f"{(told - begun) / 60:5.1f} min: {memory[-1]:.0f} MiB, {max(sizes) / 1e6:.1f} MB")
                time.sleep(2)
            output, _ = recorder.communicate()
        stopped.set()
        if not args.no_training:
            trainer.join()
        if recorder.returncode:
            sys.exit(f"the recording failed with {recorder.returncode}")
        counts = json.loads(output)
        folder = study.recordings_folder / counts["recording"]
        recording = read_recording(folder)
        summary = read_json(folder / "recording.json")
        intervals = np.diff(recording.time_ns)
        nominal = 1e9 / args.rate
        say(f"minutes                 {args.minutes:g} at {args.rate:g} Hz, {sum(trainings)} trainings begun")
        say(f"samples expected        {counts['expected']}")
        say(f"samples received        {counts['received']}")
        say(f"samples on disk         {len(recording.time_ns)}")
        say(f"gaps > 1.5 intervals    {int((intervals > 1.5 * nominal).sum())}")
        say(f"longest interval        {intervals.max() / 1e6:.2f} ms")
        say(f"writer latency          {summary['writer_latency_ms']} ms")
        settled = memory[min(len(memory) - 1, 15)]
        say(
            f"memory after 30 s, max  {settled:.0f}, {max(memory):.0f} MiB, while recording {memory[-5]:.0f} MiB"
        )
        say(
            f"closing                 {time.monotonic() - begun - args.minutes * 60:.1f} s with start and checks"
        )


if __name__ == "__main__":
    main()
