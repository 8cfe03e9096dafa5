"""How long a student takes for one image, by what computes it: all forms in one run, in turns.

The eager form is the student as it was trained, in fp32. ``published order`` has plain layers and a decoder that
doubles before it convolves, as published code does: more work, and another function of the same weights. Weights are
random: speed does not depend on them.

    python -m tests.benchmarks.student_inference [--rounds N] [--sizes 224 384] [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from segmentation.device import Precision, use_threads
from segmentation.engines import OnnxEngine, OpenVinoEngine, TorchEngine, installed, to_onnx
from segmentation.networks import Student
from segmentation.presets import preset
from tests.benchmarks.plain_step import PlainStudent

Form = Callable[[Tensor], Tensor]

IN_A_ROW, PAUSE_SECONDS = 5, 0.3


def forms(student: Student, plain: PlainStudent | None, size: int, threads: int) -> dict[str, Form]:
    """Return every way to compute the student that is possible here, by name."""
    cpu = torch.device("cpu")

    @torch.inference_mode()
    def eager(images: Tensor) -> Tensor:
        return student(images).logits.sigmoid()  # type: ignore[no-any-return]

    found: dict[str, Form] = {}
    if plain is not None:
        found["published order fp32"] = torch.inference_mode()(lambda images: plain(images)[0].sigmoid())
    found["eager fp32"] = eager
    for name in ("fp32", "bf16"):
        found[f"lean torch {name}"] = TorchEngine(student, Precision(cpu, name))
    if installed("onnx") or installed("openvino"):
        model = to_onnx(student, size)
        if installed("onnx"):
            found["ONNX Runtime fp32"] = OnnxEngine(model, threads)
        if installed("openvino"):
            for name in ("fp32", "bf16"):
                found[f"OpenVINO {name}"] = OpenVinoEngine(model, name, threads)
    return found


def measure(
    student: Student, plain: PlainStudent | None, size: int, threads: int, rounds: int, batch: int
) -> None:
    """Print a table: ms an image, median and 95th percentile, against two of them, and the difference to eager."""
    found = forms(student, plain, size, threads)
    images = torch.randn(batch, 3, size, size)
    expected = found["eager fp32"](images)
    apart = {name: float((form(images) - expected).abs().max()) for name, form in found.items()}
    taken: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds // IN_A_ROW):
        for name, form in found.items():
            # The threads of the form before go on spinning for a while: neither that nor a cold cache is its own time.
            time.sleep(PAUSE_SECONDS)
            form(images)
            for _ in range(IN_A_ROW):
                begun = time.perf_counter()
                form(images)
                taken[name].append((time.perf_counter() - begun) * 1000 / batch)
    eager, first = statistics.median(taken["eager fp32"]), statistics.median(next(iter(taken.values())))
    for name, times in taken.items():
        median = statistics.median(times)
        high = sorted(times)[round(0.95 * (len(times) - 1))]
        sys.stdout.write(
            f"| {name} | {median:.1f} | {high:.1f} | {first / median:.2f} | {eager / median:.2f} "
            f"| {apart[name]:.1e} |\n"
        )


def main() -> None:
    """Measure both students at each size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 384])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    threads = use_threads(options.threads)
    for name in ("reference", "cpu"):
        for size in options.sizes:
            torch.manual_seed(0)
            spec = preset("gaze-to-insight", name)
            student = Student(1, spec.student_widths, spec.teacher_widths).eval()
            # The compact pair has no published form.
            widths = spec.student_widths, spec.teacher_widths
            plain = PlainStudent(1, *widths, upsample_first=True).eval() if name == "reference" else None
            sys.stdout.write(f"\n{name} student, {size} px, batch {options.batch}, {threads} threads" + "\n")
            sys.stdout.write(
                "| form | median ms | p95 ms | times the first | times eager | largest difference |\n"
                "|---|---|---|---|---|---|\n"
            )
            measure(student, plain, size, threads, options.rounds, options.batch)


if __name__ == "__main__":
    main()
