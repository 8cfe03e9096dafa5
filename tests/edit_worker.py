"""Edits a mask without end, and tells of each thing it did once it is kept; runs as a process that is killed.

``python -m tests.edit_worker STUDY SEED`` writes a line for each: its number, from 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from segmentation.editing.drafts import Draft, open_draft
from segmentation.editing.history import EditableMask
from segmentation.study import Study

SIDE = 300


def act(draft: Draft | EditableMask, seed: int, number: int) -> None:
    """Do the thing of a number: mostly a stroke, sometimes a step back or forth."""
    rng = np.random.default_rng((seed, number))
    kind = rng.integers(0, 8)
    edit = draft.edit if isinstance(draft, Draft) else draft
    if kind == 0:
        draft.undo()
    elif kind == 1:
        draft.redo()
    else:
        edit.begin("eraser" if kind == 2 else "brush")
        points = rng.uniform(0, SIDE, (int(rng.integers(2, 12)), 2))
        edit.brush(points, float(rng.uniform(2, 20)), erase=bool(kind == 2))
        draft.commit()


def main() -> None:
    """Edit until killed."""
    study = Study.open(Path(sys.argv[1]))
    draft = open_draft(study, "one", "target", "ann", None)
    number = 0
    while True:
        number += 1
        act(draft, int(sys.argv[2]), number)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
