"""What the word *absent* is worth: the same phantoms, gaze and seeds, learned with and without presence labels.

A third of the phantoms hold no target. Without the word, the search over such an image becomes a pseudo-mask like
any other. All gaze is simulated from masks.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from segmentation import steps
from segmentation.evaluation import Evaluation
from segmentation.job import RunSpec
from segmentation.phantoms import write_phantoms
from segmentation.presets import preset
from segmentation.study import TEST_SPLIT, Study

ABSENT_SHARE = 0.3
SIZE_PX = 128


def learn(
    folder: Path, seed: int, gives_presence: bool, images: tuple[int, int], spec: RunSpec
) -> tuple[Evaluation, int]:
    """Take phantoms from gaze to a measured student; return its iterations, too."""
    study = Study.create(folder / "study", "Phantoms")
    for split, count, own_seed in zip(("train", TEST_SPLIT), images, (seed, seed + 1000), strict=True):
        drawn, masks = write_phantoms(
            folder / split, count, own_seed, SIZE_PX, prefix=split, absent_share=ABSENT_SHARE
        )
        steps.import_images(study, [drawn], masks=masks, split=split)
    steps.simulate(study, seed=seed, split="train", gives_presence=gives_presence)
    steps.make_pseudomasks(study, split="train")
    steps.explain(study, split="train")
    trained = steps.train(study, spec)
    steps.predict(study, trained.run, split=TEST_SPLIT)
    return steps.evaluate(study, trained.run, split=TEST_SPLIT), trained.iterations


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few small phantoms, one network, one seed")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="default: 0 1")
    quick = parser.parse_args().quick
    seeds = parser.parse_args().seeds or ([0] if quick else [0, 1])
    images = (90, 40) if quick else (300, 120)
    # A count of iterations, so that a busy machine learns as much; minutes are only the limit.
    spec = (
        preset("partial", "phantom", image_size_px=48, iterations=500, max_minutes=2.0)
        if quick
        else preset("gaze-to-insight", "phantom", iterations=900, max_minutes=2.4)
    )
    begun = time.monotonic()
    sys.stdout.write(
        f"{images[0]} phantoms to learn from, {images[1]} unseen, {ABSENT_SHARE:.0%} without a target; {spec.method}, "
        f"preset phantom at {spec.image_size_px} px, {spec.iterations} iterations; gaze simulated from masks\n"
        "  seed  presence   Dice with   Dice without   false-positive area %   any, share   Dice all   iterations\n"
    )
    rows: dict[bool, list[list[float]]] = {True: [], False: []}
    for seed in seeds:
        for told in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                chosen = dataclasses.replace(spec, seed=seed)
                result, iterations = learn(Path(folder), seed, told, images, chosen)
            row = [
                result.with_target.mean,
                result.without_target.mean,
                result.false_positive_area.mean,
                result.false_positive_share,
                result.measures["dice"].mean,
                iterations,
            ]
            rows[told].append(row)
            _write(f"{seed:4d}", told, row)
    if len(seeds) > 1:
        for told, found in rows.items():
            _write("mean", told, np.mean(found, axis=0).tolist())
    sys.stdout.write(f"  {time.monotonic() - begun:.0f} s\n")


def _write(label: str, told: bool, row: list[float]) -> None:
    cells = (
        f"{row[0]:9.3f}   {row[1]:12.3f}   {row[2]:21.2f}   {row[3]:10.2f}   {row[4]:8.3f}   {row[5]:10.0f}"
    )
    sys.stdout.write(f"  {label}  {'with' if told else 'without':<8}   {cells}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
