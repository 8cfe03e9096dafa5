"""What a pretrained encoder costs: milliseconds of one processor core a step, in turns in one process.

    python -m tests.benchmarks.encoder_step models/tf_efficientnet_lite0 --methods supervised gaze-to-insight

``own`` is the preset's own encoder, the numbers after it are stages left as they came (`encoder_frozen_stages`);
``torch's gradients`` is without `segmentation.depthwise`.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from segmentation import backbones
from segmentation.device import use_threads
from segmentation.presets import preset
from tests.benchmarks.training_step import step_of


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the encoder")
    parser.add_argument("--methods", nargs="+", default=["supervised"])
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    threads = use_threads(options.threads)
    fields = backbones.examine(options.folder)

    learners: dict[str, Callable[[int], float]] = {}
    for method in options.methods:

        def add(name: str, method: str = method, **changes: object) -> None:
            spec = preset(method, "cpu", targets=("target",), device="cpu", **changes)
            learners[f"{method}, {name}"] = step_of(options.precision, spec)

        add("own")
        add("torch's gradients", **fields)
        for stages in range(5):
            add(str(stages), **fields, encoder_frozen_stages=stages)

    work: dict[str, list[float]] = {name: [] for name in learners}
    for number in range(2 + options.steps):
        for name, learn in learners.items():
            plain = mock.patch.object(backbones, "quick_depthwise", lambda device: contextlib.nullcontext())
            with plain if "torch's" in name else contextlib.nullcontext():
                began = time.process_time()
                learn(number)
                work[name].append(time.process_time() - began)
    sys.stdout.write(f"{options.folder.name}, batch 8 at 160 px, {options.precision}, {threads} threads\n")
    for name, seconds in work.items():
        sys.stdout.write(f"{name:40}{1000 * statistics.median(seconds[2:]):8.0f} ms\n")


if __name__ == "__main__":
    main()
