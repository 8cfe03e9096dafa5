"""How long a list of many runs takes to read, first and again, and to bring into the window.

Run as ``python -m tests.benchmarks.run_list [--runs N] [--events N] [--images N]``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
from PySide6.QtWidgets import QApplication

from app import theme
from app.run_panel import RunPanel
from segmentation.run_comparison import compare_runs, curves_of
from segmentation.run_list import RunList
from segmentation.runs import RunFolder
from segmentation.study import Study
from tests.run_helpers import finished, measure

WORDS = dict.fromkeys(("waiting", "running", "done", "stopped", "failed", "interrupted"), "Word")


def times(function: Callable[[], object], rounds: int = 9) -> str:
    """Return the median and the best, in milliseconds on the clock and of this thread's processor."""
    clock, processor = [], []
    for _ in range(rounds):
        begun, used = time.perf_counter(), time.thread_time()
        function()
        clock.append(1000 * (time.perf_counter() - begun))
        processor.append(1000 * (time.thread_time() - used))
    return (
        f"{statistics.median(clock):7.1f} ms (best {min(clock):.1f}), "
        f"of the processor {statistics.median(processor):.1f}"
    )


def main() -> None:
    """Make a study of many runs and tell the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--events", type=int, default=1500)
    parser.add_argument("--images", type=int, default=200)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        study = Study.create(Path(folder) / "study")
        for number in range(args.runs):
            run = finished(study, f"run-20261126-{number:06}-abcdef", steps=args.events, seed=number)
            for split in ("test", "val"):
                measure(run, {f"i{place}": float(rng.uniform()) for place in range(args.images)}, split=split)
        application = QApplication([])
        theme.apply(application, "dark")
        panel = RunPanel(WORDS)
        panel.resize(352, 800)
        panel.show()
        kept = RunList(study)
        kept.summaries()
        ids = study.run_ids()

        def first() -> None:
            panel.list_runs(None)
            panel.list_runs(study)
            application.processEvents()

        def again() -> None:
            panel.list_runs(study)
            application.processEvents()

        lines = [
            f"{args.runs} runs of {args.events} events, measured twice on {args.images} images",
            f"read first:                {times(lambda: RunList(study).summaries())}",
            f"read again:                {times(kept.summaries)}",
            f"first into the window:     {times(first)}",
            f"again into the window:     {times(again)}",
            f"compare 8 runs:            {times(lambda: compare_runs(study, ids[:8]), 3)}",
            f"curves of 8 runs:          "
            f"{times(lambda: [curves_of(RunFolder(study.runs_folder / one)) for one in ids[:8]], 3)}",
        ]
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
