"""A whole gaze-to-insight training step: the program's form against the plain fp32 one, in turns in one process.

Forward, backward and optimiser of both networks in two views, with DARM. ``plain`` is the same mathematics, module by
module (equal in float64 to 1e-9: tests/test_exact_rewrites.py); ``published order`` doubles before it convolves in the
decoder, which is another function of the same weights. Peak memory is that of a process of its own for each side.

    python -m tests.benchmarks.training_step              reference sizes, batch 8 at 224 px: some minutes
    python -m tests.benchmarks.training_step --small
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from segmentation.dataset import Batch
from segmentation.device import Precision, use_threads
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


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="an eighth of the widths, batch 4 at 96 px")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=2, help="timed steps of each side")
    parser.add_argument("--warm", type=int, default=0, help="steps of each side before")
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches of the program's form")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["plain", "bf16"])
    parser.add_argument("--memory", choices=("yes", "no", "alone"), default="yes")
    options = parser.parse_args()
    threads = use_threads(options.threads)
    changes = {"batch_size": options.batch, "image_size_px": options.size, "accumulate": options.accumulate}
    if options.small:
        changes |= {"batch_size": 4, "image_size_px": 96}
        changes |= {"student_widths": (4, 8, 16, 32, 64), "teacher_widths": (8, 16, 32, 64, 128)}
    spec = preset("gaze-to-insight", "reference", targets=("target",), device="cpu", **changes)
    if options.memory == "alone":
        [side] = options.sides
        learn = step_of(side, spec)
        for number in range(2):
            learn(number)
        sys.stdout.write(f"{peak_gib():.2f}\n")
        return

    learners = {side: step_of(side, spec) for side in options.sides}
    seconds: dict[str, list[float]] = {side: [] for side in learners}
    # Of the processors, all threads together: says more than the clock on a machine with other work.
    work: dict[str, list[float]] = {side: [] for side in learners}
    for number in range(options.warm + options.steps):
        for side, learn in learners.items():
            began, busy = time.perf_counter(), time.process_time()
            loss = learn(number)
            seconds[side].append(time.perf_counter() - began)
            work[side].append(time.process_time() - busy)
            sys.stderr.write(f"step {number} {side}: {seconds[side][-1]:.2f} s, loss {loss:.4f}\n")
    del learners
    sys.stdout.write(
        f"A gaze-to-insight step, batch {spec.batch_size} at {spec.image_size_px} px, "
        f"teacher {spec.teacher_widths}, student {spec.student_widths}, {threads} threads\n"
        f"{'':18}{'ms a step':>12}{'speed-up':>10}{'CPU ms':>12}{'speed-up':>10}{'peak GiB':>10}\n"
    )
    first = options.sides[0]

    def middle(of: dict[str, list[float]], side: str) -> float:
        return statistics.median(of[side][options.warm :])

    for side in options.sides:
        peak = "" if options.memory == "no" else peak_of(side)
        columns = "".join(
            f"{1000 * middle(of, side):12.0f}{middle(of, first) / middle(of, side):10.2f}"
            for of in (seconds, work)
        )
        sys.stdout.write(f"{side:18}{columns}{peak:>10}\n")
        sys.stdout.flush()


def peak_of(side: str) -> str:
    """Return the peak memory of two steps of a side in a process of its own, in GiB."""
    command = [sys.executable, "-m", "tests.benchmarks.training_step", *sys.argv[1:]]
    # The last word counts.
    command += ["--memory", "alone", "--sides", side]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return answer.stdout.strip()


if __name__ == "__main__":
    main()
