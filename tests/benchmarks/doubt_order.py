"""How well the score of doubt orders masks by their true Dice, against random order and against each of its parts.

Spearman's correlation of each number with 1 - Dice, and the area under the risk-coverage curve (Geifman & El-Yaniv
2017) as a share of the way from the best order there is (0) to a random one (1), with its 95 % interval over images
drawn again. ``--warnings`` measures what a brief look, few fixations, and a contradicted claim cost.

``python -m tests.benchmarks.doubt_order STUDY --run RUN... --split validation`` (gaze drawn from masks: *simulated from
masks*; descriptions of ``--warnings`` are measured in the true masks)
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from gaze_capture.fixations import Fixations
from segmentation.claims import checks_of
from segmentation.doubt import FORM_CLAIMS, DoubtIndex
from segmentation.explanation import load_explanation
from segmentation.measured import describe, measure_form
from segmentation.metrics import dice
from segmentation.pseudomask import make_pseudomask
from segmentation.study import Mask, Study
from segmentation.uncertainty import Certainty, certainties
from tests.benchmarks.uncertainty import risk_coverage

Values = npt.NDArray[np.float64]
DRAWS = 1000
EVERY = 12
"""Of ``--warnings``: so many images are passed over between two that are measured."""
say = sys.stdout.write


def masks_of(study: Study, run_id: str | None, split: str) -> dict[tuple[str, str], Mask]:
    """Return the masks under review that have a true mask."""
    found = {}
    target = study.targets[0].id
    true = study.mask_keys()
    for image in study.images_of(split):
        key = (image.id, target)
        if key not in true:
            continue
        if run_id is None:
            pseudomask = study.pseudomask(*key)
            if pseudomask is not None:
                found[key] = pseudomask.masks[-1]
        elif (probability := study.prediction(run_id, *key)) is not None:
            found[key] = probability >= 0.5
    return found


def share(doubt: Values, risk: Values) -> float:
    """Return where the area under the risk-coverage curve lies between the best order (0) and a random one (1)."""
    best, chance = risk_coverage(risk, risk), float(risk.mean())
    return (risk_coverage(doubt, risk) - best) / (chance - best)


def measure(study: Study, run_id: str | None, split: str) -> None:
    """Print the table of one run, or of the pseudo-masks."""
    masks = masks_of(study, run_id, split)
    keys = list(masks)
    truths = {key: study.true_mask(*key) for key in keys}
    risk = np.array([1 - dice(masks[key], truth) for key in keys if (truth := truths[key]) is not None])
    index = DoubtIndex(study)
    begun, used = time.perf_counter(), time.process_time()
    doubts = index.doubts(keys, run_id)
    first_s, first_cpu_s = time.perf_counter() - begun, time.process_time() - used
    begun = time.perf_counter()
    index.doubts(keys, run_id)
    again_s = time.perf_counter() - begun
    numbers = index.numbers(keys, run_id)
    sure = certainties(study, run_id) if run_id is not None else {}
    columns: dict[str, list[float | None]] = {"**score**": [doubts[key].score for key in keys]}
    for name in ("student", "gaze", "levels", "quality", "contradiction", "word"):
        parts = [{part.name: part.value for part in doubts[key].parts} for key in keys]
        columns[f"part: {name}"] = [one.get(name) for one in parts]
    for name in ("outside", "unseen"):
        columns[f"dwell outside, mask not looked at: {name}"] = [getattr(numbers[key], name) for key in keys]
    for name in ("expected_dice", "flips_dice", "teacher_dice"):
        known = [getattr(sure.get(key, Certainty()), name) for key in keys]
        columns[f"of student: 1 - {name}"] = [None if value is None else 1 - value for value in known]
    who = "pseudo-masks" if run_id is None else run_id
    say(f"{who}, {len(keys)} images of {split}: Dice {1 - risk.mean():.3f}; simulated from masks\n")
    say(f"first {first_s:.1f} s ({first_cpu_s:.1f} s of processor), again {again_s:.2f} s\n\n")
    say("| number | Spearman with 1 - Dice | risk-coverage, 0 best, 1 random | 95 % | mean |\n")
    say("|---|---|---|---|---|\n")
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(risk), len(risk)) for _ in range(DRAWS)]
    for name, values in columns.items():
        here = np.array([0.0 if value is None else value for value in values])
        if not here.std():
            continue
        area = share(here, risk)
        low, high = np.quantile([share(here[draw], risk[draw]) for draw in draws], [0.025, 0.975])
        say(
            f"| {name} | {spearmanr(here, risk)[0]:.3f} | {area:.3f} | {low:.3f}-{high:.3f} | {here.mean():.3f} |\n"
        )
    random = [share(rng.permutation(len(risk)).astype(float), risk) for _ in range(DRAWS)]
    low, high = np.quantile(random, [0.025, 0.975])
    say(f"| random order | 0 | {np.mean(random):.3f} | {low:.3f}-{high:.3f} | |\n")
    score = np.array(columns["**score**"], dtype=float)
    first = np.argsort(-score)[: max(1, len(keys) // 10)]
    say(f"\nThe first tenth of the queue has a mean Dice of {1 - risk[first].mean():.3f}; ")
    say(f"the score is off 1 - Dice by {np.abs(score - risk).mean():.3f} in the mean.\n\n")


def spoiled(fixations: Fixations, keep: Callable[[Fixations], npt.NDArray[np.bool_]]) -> Fixations:
    """Return the fixations of a look of which less was recorded."""
    kept = keep(fixations)
    return dataclasses.replace(
        fixations,
        start_ms=fixations.start_ms[kept],
        duration_ms=fixations.duration_ms[kept],
        xy_px=fixations.xy_px[kept],
        dispersion_deg=fixations.dispersion_deg[kept],
        instance=None,
    )


def measure_warnings(study: Study, run_id: str | None, split: str) -> None:
    """Print what poor gaze costs a pseudo-mask, and what a contradicted claim tells of a student's mask."""
    target = study.targets[0].id
    kinds: dict[str, Callable[[Fixations], npt.NDArray[np.bool_]]] = {
        "all of it": lambda one: np.ones(len(one.start_ms), dtype=bool),
        "the first 1.5 s": lambda one: one.start_ms < 1500,
        "the first two fixations": lambda one: np.arange(len(one.start_ms)) < 2,
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for image in study.images_of(split)[::EVERY]:
        truth, looks = study.true_mask(image.id, target), study.fixations.get((image.id, target))
        if truth is None or not looks:
            continue
        for name, keep in kinds.items():
            made = make_pseudomask(
                study.guide(image), [spoiled(looks[0], keep)], study.pseudomask_settings, target
            )
            found[name].append(0.0 if made is None else dice(made.masks[-1], truth))
    say("| gaze | images | Dice of the pseudo-mask | lost share |\n|---|---|---|---|\n")
    whole = float(np.mean(found["all of it"]))
    for name, values in found.items():
        say(f"| {name} | {len(values)} | {np.mean(values):.3f} | {1 - np.mean(values) / whole:.2f} |\n")
    say("\n")
    if run_id is None:
        return
    dices: dict[int, list[float]] = {}
    for key, mask in masks_of(study, run_id, split).items():
        truth, said = study.true_mask(*key), load_explanation(study, *key)
        if truth is None or said is None:
            continue
        words = describe(measure_form(truth))
        claims = dataclasses.replace(said, backend="annotator", attributes=words)
        checks = [one for one in checks_of(claims, measure_form(mask)) if one.attribute in FORM_CLAIMS]
        count = sum(one.verdict == "contradicts" for one in checks)
        dices.setdefault(count, []).append(dice(mask, truth))
    say("| contradicted claims | images | Dice of the student's mask | lost share |\n|---|---|---|---|\n")
    whole = float(np.mean(dices[0]))
    for count in sorted(dices):
        mean = float(np.mean(dices[count]))
        say(f"| {count} | {len(dices[count])} | {mean:.3f} | {1 - mean / whole:.2f} |\n")
    say("\n")


def main() -> None:
    """Measure the pseudo-masks, or the runs named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("--run", nargs="+", metavar="RUN")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--warnings", action="store_true")
    options = parser.parse_args()
    study = Study.open(options.study)
    for run in options.run or [None]:
        (measure_warnings if options.warnings else measure)(study, run, options.split)


if __name__ == "__main__":
    main()
