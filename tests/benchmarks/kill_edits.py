"""What an edit loses when its process is killed at any instant.

A process edits a mask stroke after stroke and tells of each one that is kept; it is killed with SIGKILL some time
after the first, and the draft is opened again. Lost are the steps that were told of and are not there. Run by name:
``python -m tests.benchmarks.kill_edits --tries 100``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmentation.editing.drafts import open_draft
from segmentation.editing.history import EditableMask
from segmentation.study import Study
from tests.drafts_support import one_image
from tests.edit_worker import SIDE, act

AT_ONCE = 2


@dataclass(frozen=True)
class Killed:
    """One edit that was killed."""

    told: int
    """Things done that were told of before it died."""
    lost: int
    """Of those, how many the draft lacks; -1 where it is of no moment of that edit."""
    undone: bool
    """Whether taking everything back led to the mask it began as."""


def kill_one(folder: Path, seed: int, after_s: float) -> Killed:
    """Edit in a study of its own, kill, open again."""
    folder.mkdir()
    study = one_image(folder, (SIDE, SIDE))
    command = [sys.executable, "-m", "tests.edit_worker", str(study.folder), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(after_s)
        process.kill()
        lines = (first + process.stdout.read()).splitlines(keepends=True)
    told = sum(line.endswith("\n") for line in lines)
    draft = open_draft(Study.open(study.folder), "one", "target", "ann", None)
    # The same edit again, in memory alone: after which of its things is it like the draft?
    plain = EditableMask(np.zeros((SIDE, SIDE), dtype=bool), "empty")
    like = []
    for number in range(told + 3):
        if number:
            act(plain, seed, number)
        same = len(plain.steps) == len(draft.edit.steps) and len(plain.undone) == len(draft.edit.undone)
        if same and (plain.mask == draft.edit.mask).all():
            like.append(number)
    lost = max(told - max(like), 0) if like else -1
    while draft.undo():
        pass
    undone = not draft.edit.mask.any()
    draft.close()
    return Killed(told, lost, undone)


def main() -> None:
    """Kill many, and print what was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    waits = np.random.default_rng(args.seed).uniform(0.0, 0.6, args.tries)
    with tempfile.TemporaryDirectory(prefix="gaze-kill-") as name, ThreadPoolExecutor(AT_ONCE) as pool:
        work = [
            pool.submit(kill_one, Path(name) / f"try-{number}", args.seed + number, float(wait))
            for number, wait in enumerate(waits)
        ]
        found = [future.result() for future in work]
    told = np.array([one.told for one in found])
    write = sys.stdout.write
    write(f"edits killed at random instants                    {len(found)}\n")
    write(
        f"things done before the kill, least to most         {told.min()} to {told.max()}, {told.sum()} in all\n"
    )
    write(f"drafts of no moment of their edit                  {sum(one.lost < 0 for one in found)}\n")
    write(f"drafts that lack something that was told as kept   {sum(one.lost > 0 for one in found)}\n")
    write(f"most steps lost                                    {max(one.lost for one in found)}\n")
    write(f"not taken back to the first mask by undo           {sum(not one.undone for one in found)}\n")


if __name__ == "__main__":
    main()
