"""Workers that torchrun starts, as a cluster would: without a window, on a study whose phrases all have vectors."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segmentation.checkpoints import latest_checkpoint, load_weights
from segmentation.runs import RunFolder
from segmentation.study import Study
from segmentation.text.embedding import embed_study
from segmentation.text.encoder import MiniLM
from tests.training_helpers import make_study


class MiniLMWithoutWeights(MiniLM):
    """Writes vectors in MiniLM's name, so that workers find all phrases known and load no encoder."""

    def encode(self, phrases: Any) -> Any:
        return np.random.default_rng(0).normal(size=(len(phrases), self.width)).astype(np.float32)


def known_study(folder: Path, image_folder: Path) -> Study:
    study = make_study(folder, image_folder)
    embed_study(study, MiniLMWithoutWeights())
    return study


def start_together(task: str, run: RunFolder, count: int, *options: str) -> subprocess.Popen[bytes]:
    """Start a task of `segmentation.cluster` in so many processes, in a process group of their own."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [
        *(torchrun if count > 1 else []),
        "-m",
        "segmentation.cluster",
        task,
        str(run.study_folder),
        run.id,
        "--threads",
        "1",
    ]
    with open(run.path / "torchrun.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, *command, *options],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


def log_of(run: RunFolder) -> str:
    return (run.path / "torchrun.log").read_text(encoding="utf-8", errors="replace")[-6000:]


def wait_until(true: Callable[[], Any], seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def all_weights(run: RunFolder) -> dict[str, torch.Tensor]:
    """Every tensor of the latest checkpoint, the optimiser's among them."""
    folder = latest_checkpoint(run)
    assert folder is not None
    return {
        f"{path.stem}.{key}": tensor
        for path in sorted(folder.glob("*.safetensors"))
        for key, tensor in load_weights(folder, path.stem).items()
    }


def step_of(run: RunFolder) -> int:
    """The step of the latest checkpoint, 0 where there is none."""
    folder = latest_checkpoint(run)
    return int(folder.name) if folder else 0
