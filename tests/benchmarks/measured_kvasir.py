"""What the measuring backend says of 900 colonoscopy images, against the same measured of their true masks.

Run with: python -m tests.benchmarks.measured_kvasir FOLDER_OF_KVASIR_SEG [--study DIR] [--levels]

The folder holds ``train`` and ``validation``, each with ``images``, ``masks`` and ``fixations.csv``. The gaze was
simulated from the masks: all of this says how far a gazed region can stand for the mask, nothing of people's gaze.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmentation import steps
from segmentation.agreement import wilson
from segmentation.claims import agreement, checks_of
from segmentation.explainers.opening import BackendOptions
from segmentation.explaining import explain_study
from segmentation.explanation import Explanation, load_explanation
from segmentation.gaze_import import import_gaze
from segmentation.measured import Numbers, describe, measure_region
from segmentation.study import Study

SPLITS = ("train", "validation")
WORDS = ("location", "count", "intensity", "shape", "boundary", "colour", "colour_contrast", "texture")
CHECKED = ("area_percent", "location", "count", "intensity", "shape", "boundary", "colour", "colour_contrast")
DEALT = 37
"""Descriptions are dealt to the image so many places on, to see what a wrong one is caught by."""


def make_study(data: Path, folder: Path) -> Study:
    """Import images, masks and gaze, and make the pseudo-masks with the usual settings."""
    study = Study.create(folder, "Kvasir-SEG, gaze simulated from masks")
    for split in SPLITS:
        steps.import_images(study, [data / split / "images"], masks=data / split / "masks", split=split)
        import_gaze(
            study,
            data / split / "fixations.csv",
            format="gazemedseg",
            split=split,
            annotator="simulated",
            simulated_from="masks",
        )
    steps.make_pseudomasks(study)
    return study


def explain(study: Study) -> float:
    """Explain all images by measuring; return milliseconds an image, the writing of files included."""
    begun = time.perf_counter()
    result = explain_study(study, BackendOptions("measured"), overwrite=True)
    if result.failed:
        raise SystemExit(f"failed: {result.failed[:3]}")
    return 1000 * (time.perf_counter() - begun) / result.done


@dataclasses.dataclass(frozen=True)
class Pair:
    """What is measured of an image."""

    split: str
    gazed: Numbers
    true: Numbers


def measure_pairs(study: Study) -> tuple[list[Pair], float]:
    """Measure every true mask; return milliseconds a measurement, too."""
    pairs, seconds = [], 0.0
    for image_id, target_id in sorted(study.explanation_keys()):
        explanation, truth = (
            load_explanation(study, image_id, target_id),
            study.true_mask(image_id, target_id),
        )
        assert explanation is not None and truth is not None
        image = study.image(image_id)
        pixels = study.guide(image)
        begun = time.perf_counter()
        numbers = measure_region(pixels, truth)
        seconds += time.perf_counter() - begun
        pairs.append(Pair(image.split, explanation.numbers, numbers))
    return pairs, 1000 * seconds / len(pairs)


def _cell_distance(first: str, second: str) -> int:
    def place(word: str) -> tuple[int, int]:
        row = 0 if word.startswith("upper") else 2 if word.startswith("lower") else 1
        column = 0 if word.endswith("left") else 2 if word.endswith("right") else 1
        return row, column

    (a, b), (c, d) = place(first), place(second)
    return max(abs(a - c), abs(b - d))


def summary(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Compare what is measured of the gazed region with what is measured of the mask."""
    areas = np.array(
        [[pair.gazed["area_percent"] or math.nan, pair.true["area_percent"] or math.nan] for pair in pairs]
    )
    ratio = areas[:, 0] / areas[:, 1]
    off = np.abs(np.log(ratio))
    said = [(describe(pair.gazed), describe(pair.true)) for pair in pairs if pair.gazed["area_percent"]]
    steps_apart = np.array([_cell_distance(one["location"], other["location"]) for one, other in said])
    numeric = {
        "same cell": steps_apart == 0,
        "same or neighbouring cell": steps_apart <= 1,
        "area within a factor 1.5": off <= math.log(1.5),
        "area within a factor 2": off <= math.log(2),
    }
    words = {name: np.array([one[name] == other[name] for one, other in said]) for name in WORDS}
    return {
        "images": len(pairs),
        "area ratio, median": round(float(np.nanmedian(ratio)), 3),
        "area ratio, 5..95 %": np.nanquantile(ratio, [0.05, 0.95]).round(2).tolist(),
        **{name: _share(values) for name, values in numeric.items()},
        **{f"same word: {name}": _share(values) for name, values in words.items()},
    }


def _share(values: Any) -> str:
    good, count = int(np.count_nonzero(values)), len(values)
    low, high = wilson(good, count)
    return f"{good / count:.3f} ({low:.3f}..{high:.3f})"


def contradicted(pairs: Sequence[Pair], shift: int) -> dict[str, str]:
    """Check descriptions of the masks against the gazed regions: of the same images, or dealt to others."""
    counts: dict[str, list[int]] = {name: [0, 0] for name in CHECKED}
    for place, pair in enumerate(pairs):
        described = describe(pairs[(place + shift) % len(pairs)].true)
        stranger = Explanation("", "", "openai", "", "", described, "", "")
        for check in checks_of(stranger, pair.gazed):
            if check.attribute in counts:
                agreeing, checked = agreement([check])
                counts[check.attribute][0] += checked - agreeing
                counts[check.attribute][1] += checked
    return {name: f"{wrong}/{checked}" for name, (wrong, checked) in counts.items()}


def compare_levels(study: Study) -> dict[str, dict[str, str]]:
    """Area and place of other regions that could be measured, on train alone: validation is not for choosing."""
    thresholds = (0.1, 0.15, 0.2, 0.25, 0.3)
    names = ["broad level", "strict level", *(f"heatmap above {threshold:g}" for threshold in thresholds)]
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in names}
    for image in study.images_of("train"):
        mask, truth = study.pseudomask(image.id, "target"), study.true_mask(image.id, "target")
        assert mask is not None and truth is not None
        # Form alone: no pixels are needed.
        blank = np.zeros((*truth.shape, 1), np.float32)
        wanted = measure_region(blank, truth)
        regions = [mask.masks[-1], mask.masks[0], *(mask.heatmap >= threshold for threshold in thresholds)]
        for name, region in zip(names, regions, strict=True):
            numbers = measure_region(blank, region)
            if numbers["area_percent"]:
                apart = _cell_distance(describe(numbers)["location"], describe(wanted)["location"])
                found[name].append((numbers["area_percent"] / (wanted["area_percent"] or math.nan), apart))
    table = {}
    for name, values in found.items():
        ratio, cells = np.array([one for one, _ in values]), np.array([one for _, one in values])
        table[name] = {
            "area ratio, median": f"{np.median(ratio):.3f}",
            "area within a factor 1.5": _share(np.abs(np.log(ratio)) <= math.log(1.5)),
            "same cell": _share(cells == 0),
            "same or neighbouring cell": _share(cells <= 1),
        }
    return table


def main() -> None:
    """Print everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--study", type=Path, help="made there, or used where it is")
    parser.add_argument("--levels", action="store_true", help="compare other regions to measure, on train")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.study or Path(scratch) / "study"
        study = Study.open(folder) if (folder / "study.json").exists() else make_study(args.data, folder)
        answer: dict[str, Any] = {
            "gaze": "simulated from masks",
            "explain, ms an image": round(explain(study), 1),
        }
        pairs, milliseconds = measure_pairs(study)
        answer["of these, measuring, ms"] = round(milliseconds, 1)
        for split in SPLITS:
            own = [pair for pair in pairs if pair.split == split]
            answer[split] = {
                **summary(own),
                "contradicted, true descriptions": contradicted(own, 0),
                "contradicted, descriptions of other images": contradicted(own, DEALT),
            }
        if args.levels:
            answer["regions, train"] = compare_levels(study)
    sys.stdout.write(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
