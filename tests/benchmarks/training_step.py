"""A whole gaze-to-insight training step: the program's form against the plain fp32 one, in turns.

Forward, backward and optimiser of both networks in two views, with DARM. ``plain`` is the same mathematics, module by
module (equal in float64 to 1e-9: tests/test_exact_rewrites.py); ``published order`` doubles before it convolves in the
decoder, which is another function of the same weights. Each side has a process of its own; peak
memory is all of it.

    python -m tests.benchmarks.training_step              reference sizes, batch 8 at 224 px: some minutes
    python -m tests.benchmarks.training_step --small
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from segmentation.dataset import Batch
from segmentation.device import Precision, keep_freed_memory, use_threads
from segmentation.job import RunSpec
from segmentation.learning import Learner
from segmentation.methods import make_method
from segmentation.networks import Text
from segmentation.optimising import make_optimiser
from segmentation.presets import preset
from tests.benchmarks.plain_step import PlainGazeToInsight

TEXT_WIDTH, TOKENS = 384, 7
SIDES = ("plain", "published order", "fp32", "bf16")
PROGRESS = 0.5
"""Of the run: the consistency losses at full weight, DARM at work."""


def batch_of(spec: RunSpec, step: int) -> Batch:
    """Return noise with plausible labels and text."""
    rng = torch.Generator().manual_seed(step)
    count, size = spec.batch_size, spec.image_size_px
    levels = torch.randint(0, 3, (count, 1, size // 8, size // 8), generator=rng, dtype=torch.uint8)
    levels = levels.repeat_interleave(8, 2).repeat_interleave(8, 3)
    return Batch(
        step=step,
        index=np.arange(count),
        images=torch.randn(count, 3, size, size, generator=rng),
        labels={
            "student": (levels > 0).to(torch.uint8),
            "teacher": torch.tensor([0, 255, 1], dtype=torch.uint8)[levels.long()],
        },
        text=Text(
            torch.randn(count, TOKENS, TEXT_WIDTH, generator=rng), torch.ones(count, TOKENS, dtype=torch.bool)
        ),
    )


def step_of(side: str, spec: RunSpec) -> Callable[[int], float]:
    """Return what learns from the batch of a step, and gives its loss."""
    if side in ("plain", "published order"):
        plain = PlainGazeToInsight(spec, TEXT_WIDTH, upsample_first=side == "published order")
        optimiser = torch.optim.SGD(
            plain.networks.parameters(),
            spec.learning_rate,
            0.9,
            weight_decay=spec.weight_decay,
            nesterov=True,
        )

        def learn_plainly(step: int) -> float:
            loss = plain.loss(batch_of(spec, step), PROGRESS)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad()
            return float(loss.detach())

        return learn_plainly

    method = make_method(spec, TEXT_WIDTH)
    method.networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    own_optimiser = make_optimiser(spec, method.networks)
    device = torch.device("cpu")
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    learner = Learner(method, Precision(device, side), scaler, spec.accumulate, lambda step, message: None)

    def learn(step: int) -> float:
        losses = learner.gradients(batch_of(spec, step).to(device), PROGRESS)
        own_optimiser.step()
        own_optimiser.zero_grad()
        return float(losses["total"])

    return learn


def peak_gib() -> float:
    """Return the highest resident memory of this process up to now."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


class Side:
    """A process of its own that learns when told: neither side meets the memory that the other has left behind."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.training_step", *sys.argv[1:], "--only", name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.rows: list[Row] = []

    def learn(self, step: int) -> Row:
        """Learn from the batch of a step."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{step}\n")
        self._process.stdin.flush()
        row = Row(*map(float, self._process.stdout.readline().split()))
        self.rows.append(row)
        return row

    def end(self) -> None:
        """Let the process end."""
        self._process.communicate()


class Row(NamedTuple):
    """What a step took."""

    seconds: float
    work: float
    """Seconds of the processors, all threads together: says more than the clock on a machine with other work."""
    peak: float
    """GiB, of the process up to now"""
    loss: float


def answer(side: str, spec: RunSpec) -> None:
    """Learn from the batch of each step that is named on stdin."""
    if side in ("fp32", "bf16"):
        # As the program's worker does.
        keep_freed_memory()
    learn = step_of(side, spec)
    for line in sys.stdin:
        began, busy = time.perf_counter(), time.process_time()
        loss = learn(int(line))
        row = Row(time.perf_counter() - began, time.process_time() - busy, peak_gib(), loss)
        sys.stdout.write(" ".join(map(str, row)) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="an eighth of the widths, batch 4 at 96 px")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=2, help="timed steps of each side")
    parser.add_argument("--warm", type=int, default=1, help="steps of each side before")
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches of the program's form")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["plain", "bf16"])
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads = use_threads(options.threads)
    changes = {"batch_size": options.batch, "image_size_px": options.size, "accumulate": options.accumulate}
    if options.small:
        changes |= {"batch_size": 4, "image_size_px": 96}
        changes |= {"student_widths": (4, 8, 16, 32, 64), "teacher_widths": (8, 16, 32, 64, 128)}
    spec = preset("gaze-to-insight", "reference", targets=("target",), device="cpu", **changes)
    if options.only:
        answer(options.only, spec)
        return

    sides = {name: Side(name) for name in options.sides}
    for step in range(options.warm + options.steps):
        for name, side in sides.items():
            row = side.learn(step)
            sys.stderr.write(f"step {step} {name}: {row.seconds:.2f} s, loss {row.loss:.4f}\n")
    for side in sides.values():
        side.end()
    sys.stdout.write(
        f"A gaze-to-insight step, batch {spec.batch_size} at {spec.image_size_px} px, "
        f"teacher {spec.teacher_widths}, student {spec.student_widths}, {threads} threads\n"
        f"{'':18}{'ms a step':>12}{'speed-up':>10}{'CPU ms':>12}{'speed-up':>10}{'peak GiB':>10}\n"
    )
    middles = {
        name: Row(*map(statistics.median, zip(*side.rows[options.warm :], strict=True)))
        for name, side in sides.items()
    }
    first = middles[options.sides[0]]
    for name, middle in middles.items():
        times = f"{1000 * middle.seconds:12.0f}{first.seconds / middle.seconds:10.2f}"
        work = f"{1000 * middle.work:12.0f}{first.work / middle.work:10.2f}"
        sys.stdout.write(f"{name:18}{times}{work}{sides[name].rows[-1].peak:10.2f}\n")


if __name__ == "__main__":
    main()
