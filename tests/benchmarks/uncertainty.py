"""Which number of doubt tells the student's bad masks from its good ones, and which map its wrong pixels.

Of images with true masks that the run did not learn from: Spearman's correlation of each number with 1 - Dice, and the
area under the risk-coverage curve (Geifman & El-Yaniv 2017), as a share of the way from the best order there is (0) to
a random one (1). Of maps: the area under the ROC curve of a pixel's being wrong.

``python -m tests.benchmarks.uncertainty STUDY RUN --split validation`` (gaze drawn from masks: *simulated from masks*)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata, spearmanr

from segmentation.augmentation import standardised
from segmentation.device import use_threads
from segmentation.images import resize
from segmentation.methods import reads_text
from segmentation.metrics import dice
from segmentation.predictor import MIRRORED, Predictor
from segmentation.runs import RunFolder
from segmentation.study import Study
from segmentation.text.embedding import text_of
from segmentation.text.phrases import phrase_table
from segmentation.uncertainty import entropy, expected_dice, soft_dice

Values = npt.NDArray[np.float64]
BATCH = 10


def numbers_of(
    views: npt.NDArray[np.float32], teacher: npt.NDArray[np.float32] | None
) -> tuple[dict[str, float], dict[str, npt.NDArray[np.float32]]]:
    """Return numbers of doubt and maps (S, S) of one image, from the probability of its four views (4, S, S)."""
    mean = views.mean(0)
    mask, region = mean >= 0.5, mean >= 0.2
    deviation, bits = views.std(0), entropy(mean)
    maps = {"entropy": bits, "spread": deviation, "mutual information": bits - entropy(views).mean(0)}

    def inside(values: npt.NDArray[np.float32]) -> float:
        return float(values[region].mean()) if region.any() else 0.0

    found = {
        "unsure share of region": inside((mean <= 0.8).astype(np.float32)),
        "1 - expected Dice": 1 - expected_dice(mean),
        "1 - Dice of flips": 1 - float(np.mean([dice(view >= 0.5, mask) for view in views])),
        "mean entropy, region": inside(bits),
        "mean entropy, image": float(bits.mean()),
        "mean spread, region": inside(deviation),
        "mean mutual information, region": inside(maps["mutual information"]),
    }
    both = [found["1 - expected Dice"], found["1 - Dice of flips"]]
    found["mean of expected and flips"] = float(np.mean(both))
    if teacher is not None:
        maps["disagreement"] = np.abs(teacher - mean)
        maps["entropy or disagreement"] = np.maximum(bits, maps["disagreement"])
        found["1 - soft Dice of teacher"] = 1 - soft_dice(teacher, mean)
        found["1 - Dice of teacher"] = 1 - dice(teacher >= 0.5, mask)
        found["mean disagreement, image"] = float(maps["disagreement"].mean())
        found["mean of expected and teacher"] = float(np.mean([both[0], found["1 - soft Dice of teacher"]]))
        found["mean of expected, flips and teacher"] = float(
            np.mean([*both, found["1 - soft Dice of teacher"]])
        )
    return found, maps


def risk_coverage(doubt: Values, risk: Values) -> float:
    """Return the area under the curve of the mean risk of the k least doubtful, over k."""
    ordered = risk[np.argsort(doubt, kind="stable")]
    return float((np.cumsum(ordered) / np.arange(1, len(risk) + 1)).mean())


def roc_area(wrong: npt.NDArray[np.bool_], doubt: Values) -> float:
    """Return the chance that a wrong pixel is more doubtful than a right one."""
    ranks = rankdata(doubt)
    positives = int(wrong.sum())
    return float(
        (ranks[wrong].sum() - positives * (positives + 1) / 2) / (positives * (wrong.size - positives))
    )


def measure(study: Study, run: RunFolder, split: str) -> None:
    """Print the tables."""
    predictor, target = Predictor(run, device="cpu"), run.spec.targets[0]
    images = [image for image in study.images_of(split) if study.true_mask(image.id, target) is not None]
    explained = study.explanation_keys()
    reads = "teacher" in predictor.networks and reads_text(run.spec)
    reads = reads and all((image.id, target) in explained for image in images)
    said = text_of(study, run.spec, None, None) if reads else None
    dices, rows, wrong, maps = [], [], [], []
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        small = np.stack([predictor.shown(study.network_input(one, run.spec.normalisation)) for one in part])
        pixels, ask = standardised(small), predictor.engine("student")
        views = torch.stack([ask(pixels), *(ask(pixels.flip(axes)).flip(axes) for axes in MIRRORED)]).numpy()
        teacher = None
        if reads:
            text = phrase_table(study, [one.id for one in part], run.spec, said).text(np.arange(len(part)))
            teacher = predictor.look(small, "teacher", text).probability
        for place, image in enumerate(part):
            truth = study.true_mask(image.id, target)
            assert truth is not None
            mean = views[:, place, 0].mean(0)
            dices.append(dice(resize(mean, *truth.shape) >= 0.5, truth))
            found, of_pixels = numbers_of(views[:, place, 0], None if teacher is None else teacher[place, 0])
            rows.append(found)
            wrong.append((resize(truth.astype(np.float32), *mean.shape) >= 0.5) != (mean >= 0.5))
            maps.append(of_pixels)
    risk = 1 - np.array(dices)
    best, chance = risk_coverage(risk, risk), float(risk.mean())
    say = sys.stdout.write
    say(f"{run.id} ({run.spec.method}), {len(images)} images of {split}: Dice {1 - chance:.3f}, ")
    say(f"SD {risk.std():.3f}; simulated from masks\n\n")
    say(
        "| number | Spearman with 1 - Dice | risk-coverage, 0 best, 1 random | mean | off by |\n|---|---|---|---|---|\n"
    )
    for name in rows[0]:
        doubt = np.array([row[name] for row in rows])
        share = (risk_coverage(doubt, risk) - best) / (chance - best)
        correlation = float(spearmanr(doubt, risk)[0])
        say(
            f"| {name} | {correlation:.3f} | {share:.3f} | {doubt.mean():.3f} | {np.abs(doubt - risk).mean():.3f} |\n"
        )
    say("\n| map | ROC area of wrong pixels |\n|---|---|\n")
    # Every seventh pixel: neighbours tell the same.
    flat = np.concatenate([one.ravel()[::7] for one in wrong])
    for name in maps[0]:
        area = roc_area(flat, np.concatenate([one[name].ravel()[::7] for one in maps]))
        say(f"| {name} | {area:.4f} |\n")
    say("\n")


def main() -> None:
    """Measure the runs named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    use_threads(options.threads)
    study = Study.open(options.study)
    for run in options.runs:
        measure(study, RunFolder(study.runs_folder / run), options.split)


if __name__ == "__main__":
    main()
