"""How fast a thousand images are predicted, and what memory that takes; and what uncertainty costs.

Phantoms of 512 px, a student with random weights: speed does not depend on them. Each engine that is installed has a
process of its own. Wall and processor time are of the whole job; images a second without the time to start.
``python -m tests.benchmarks.predict_many [--images 1000] [--side 512] [--preset cpu] [--look S] [--threads 2]``
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segmentation.engines import ENGINES, installed

if TYPE_CHECKING:
    from segmentation.predictor import Predictor, Views

WITHOUT = "plain"
"""What only averages the flips: neither spread nor certainty is stored."""


def make(folder: Path, images: int, side: int, preset_name: str, look: int | None) -> None:
    """Make a study of phantoms and a run with random weights."""
    from gaze_capture.storage import write_bytes_atomic
    from segmentation.checkpoints import save_checkpoint
    from segmentation.images import encode_display
    from segmentation.methods import make_method
    from segmentation.phantoms import make_phantom
    from segmentation.presets import preset
    from segmentation.records import StudyImage
    from segmentation.runs import create_run
    from segmentation.study import Study

    study = Study.create(folder)
    kinds = [encode_display(make_phantom(seed, "polyp", side).image) for seed in range(20)]
    records = []
    for number in range(images):
        name = f"i{number:05d}"
        path = f"images/{name}.png"
        write_bytes_atomic(folder / path, kinds[number % len(kinds)])
        records.append(StudyImage(name, path, f"{name}.png", f"{number:064x}", (side, side, 3)))
    study.add_images(records)
    size = {"image_size_px": look} if look else {}
    run = create_run(study, preset("supervised", preset_name, device="cpu", **size), "run-bench")
    method = make_method(run.spec, 0)
    state = {"device": "cpu", "precision": "fp32", "text_width": 0, "predicts": "student"}
    save_checkpoint(run, 1, dict(method.networks.items()), None, state)


def once(folder: Path, engine: str, threads: int) -> dict[str, Any]:
    """Predict all; return times in seconds and memory in MiB."""
    from segmentation import predicting, prediction
    from segmentation.predictor import Predictor
    from segmentation.runs import RunFolder
    from segmentation.study import Study

    if engine == WITHOUT:
        engine = "torch"
        Predictor.look = _plain  # type: ignore[method-assign]
        predicting.expected_dice = lambda _: 1.0  # type: ignore[attr-defined,assignment]
    study, memory = Study.open(folder), []
    pace: list[float] = []

    def emit(kind: str, step: int, total: int, **values: object) -> None:
        if kind == "progress":
            memory.append(_resident_mib())
            pace[:] = [float(str(values["images_per_s"]))]

    wall, used = time.perf_counter(), time.process_time()
    prediction.predict(
        study, RunFolder(study.runs_folder / "run-bench"), emit, engine=engine, threads=threads
    )
    early = memory[len(memory) // 10]
    return {
        "images_per_s": pace[0],
        "wall_s": round(time.perf_counter() - wall, 1),
        "processor_s": round(time.process_time() - used, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "grown_mib": round(float(np.max(memory[len(memory) // 10 :])) - early),
    }


def _plain(
    self: Predictor, pixels: npt.NDArray[np.uint8], network: str = "student", text: object = None
) -> Views:
    """Average the views, and nothing else."""
    from segmentation.augmentation import standardised
    from segmentation.predictor import MIRRORED, Views

    images, ask = standardised(pixels), self.engine(network)
    probability = ask(images)
    for axes in MIRRORED:
        probability = probability + ask(images.flip(axes)).flip(axes)
    return Views((probability / 4).numpy())


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Print a table, a row for each engine and round."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--look", type=int, help="the side that the networks look at; default: the preset's")
    parser.add_argument("--engines", nargs="+", default=[WITHOUT, *ENGINES[1:]])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--one", nargs=2, metavar=("STUDY", "ENGINE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(once(Path(options.one[0]), options.one[1], options.threads)) + "\n")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "study"
        make(folder, options.images, options.side, options.preset, options.look)
        say = sys.stdout.write
        say(
            f"{options.images} images of {options.side} px, {options.preset} student, {options.threads} threads\n\n"
        )
        say(
            "| engine | images/s | wall s | processor s | peak MiB | grown MiB |\n|---|---|---|---|---|---|\n"
        )
        for _ in range(options.rounds):
            for engine in (name for name in options.engines if name == WITHOUT or installed(name)):
                shutil.rmtree(folder / "runs" / "run-bench" / "predictions", ignore_errors=True)
                arguments = ["--one", str(folder), engine, "--threads", str(options.threads)]
                command = [sys.executable, "-m", "tests.benchmarks.predict_many", *arguments]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                row = json.loads(done.stdout.splitlines()[-1])
                say(f"| {engine} | " + " | ".join(str(value) for value in row.values()) + " |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
