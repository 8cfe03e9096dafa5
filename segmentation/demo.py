"""The whole day on phantoms, through the same functions that a real study uses.

Gaze is simulated from the phantoms' masks, on the unseen ones too, so that what a student learned from gaze can be
held against the pseudo-masks that gaze alone would give on the very same images. Training never reads those.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gaze_capture.storage import explained_os_errors, write_json_atomic
from segmentation import steps
from segmentation.evaluation import Evaluation, Spread
from segmentation.job import JobEvent, RunSpec
from segmentation.metrics import dice
from segmentation.phantoms import write_phantoms
from segmentation.presets import preset
from segmentation.progress import Progress, no_progress
from segmentation.records import Target
from segmentation.report import write_report
from segmentation.study import TEST_SPLIT, Mask, Study

TRAIN_IMAGES = 400
TEST_IMAGES = 100
SIZE_PX = 160

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class LevelScore:
    """How well one pseudo-mask level agrees with the true masks of unseen phantoms."""

    threshold: float
    all_images: Spread
    """Dice, an image whose annotator said *absent* counting as an empty mask."""
    with_target: Spread
    """Dice of the images that hold the target."""


@dataclass(frozen=True)
class DemoResult:
    """Where the demo's study is and what came out."""

    study: Path
    report: Path
    seconds: float
    stages: dict[str, float]
    """Seconds each stage took, in order."""
    evaluation: Evaluation
    """The student on the unseen phantoms."""
    pseudomask: LevelScore
    """The best level on the same phantoms."""

    @property
    def student(self) -> Spread:
        """The student's Dice over all unseen phantoms."""
        return self.evaluation.measures["dice"]

    def to_json(self) -> dict[str, Any]:
        """Return what ``demo --json`` prints."""
        return {
            "study": str(self.study),
            "report": str(self.report),
            "run": self.evaluation.run,
            "seconds": round(self.seconds, 1),
            "images": self.evaluation.images,
            "gaze": self.evaluation.gaze,
            "student": {
                "dice": self.student.to_json(),
                "dice_with_target": self.evaluation.with_target.to_json(),
                "dice_without_target": self.evaluation.without_target.to_json(),
            },
            "pseudomask": {
                "dice": self.pseudomask.all_images.to_json(),
                "dice_with_target": self.pseudomask.with_target.to_json(),
                "level": self.pseudomask.threshold,
            },
            "stages": {name: round(seconds, 1) for name, seconds in self.stages.items()},
        }

    def to_text(self) -> str:
        """Return a few lines for people."""
        student, level = self.student, self.pseudomask
        absent = self.evaluation.images_without_target
        return "\n".join(
            [
                f"On {self.evaluation.images} phantoms that training never saw ({absent} without a target), "
                f"gaze {self.evaluation.gaze}:",
                f"  student, from the image alone  Dice {student.mean:.3f} +- {student.sd:.3f}"
                f"   (with a target {self.evaluation.with_target.mean:.3f})",
                f"  best pseudo-mask level ({level.threshold:g})   Dice {level.all_images.mean:.3f} "
                f"+- {level.all_images.sd:.3f}   (with a target {level.with_target.mean:.3f})",
                f"Study:  {self.study}",
                f"Report: {self.report}",
                f"Took {self.seconds:.0f} s. Research use only, not a medical device.",
            ]
        )


def run_demo(
    out: Path,
    *,
    progress: Progress = no_progress,
    train_images: int = TRAIN_IMAGES,
    test_images: int = TEST_IMAGES,
    size_px: int = SIZE_PX,
    seed: int = 0,
    spec: RunSpec | None = None,
) -> DemoResult:
    """Make a phantom study and take it through the whole day: import, gaze, masks, words, training, report.

    Parameters
    ----------
    out
        Folder for ``phantoms/``, ``study/`` and ``report.html``. If it holds something already, the demo goes beside
        it, with a number after the name; nothing is ever overwritten.
    spec
        Replaces the preset ``phantom``.

    Raises
    ------
    UserError
        If the disk refuses or the training fails.
    """
    started = time.monotonic()
    out = _free_folder(Path(out).absolute())
    stages: dict[str, float] = {}

    def stage(name: str, work: Callable[..., _Result], *arguments: Any, **options: Any) -> _Result:
        begun = time.monotonic()
        shown: Progress = lambda done, total, label: progress(done, total, name)  # noqa: E731
        shown(0, 0, name)
        result = work(*arguments, **options, progress=shown)
        stages[name] = stages.get(name, 0.0) + time.monotonic() - begun
        return result

    study = Study.create(out / "study", "Phantoms", (Target("target", "Target"),))
    # Another seed of the generator and other sittings: the unseen phantoms share nothing with those of training.
    for split, count, own_seed in (("train", train_images, seed), (TEST_SPLIT, test_images, seed + 1)):
        folder = out / "phantoms" / split
        images, masks = stage(
            "drawing phantoms", write_phantoms, folder, count, own_seed, size_px, prefix=split
        )
        stage("importing", steps.import_images, study, [images], masks=masks, split=split)
        stage("simulating gaze", steps.simulate, study, seed=own_seed, split=split)
    stage("making pseudo-masks", steps.make_pseudomasks, study)
    stage("explaining", steps.explain, study)
    run = stage("training", _train, study, spec or preset("gaze-to-insight", "phantom", seed=seed)).run
    stage("predicting", _predict, study, run)
    evaluation = stage("measuring", steps.evaluate, study, run, split=TEST_SPLIT)
    pseudomask = best_level(study, TEST_SPLIT)
    report = out / "report.html"
    stage("writing the report", write_report, study, report, run)
    result = DemoResult(study.folder, report, time.monotonic() - started, stages, evaluation, pseudomask)
    write_json_atomic(out / "demo.json", result.to_json())
    return result


def _train(study: Study, spec: RunSpec, *, progress: Progress) -> steps.TrainResult:
    def show(event: JobEvent) -> None:
        if event.kind == "step":
            progress(event.step, event.total, "")

    return steps.train(study, spec, on_event=show)


def _predict(study: Study, run: str, *, progress: Progress) -> None:
    def show(event: JobEvent) -> None:
        if event.kind == "progress":
            progress(event.step, event.total, "")

    # Those that it learned from, too: a review goes through all masks of a study.
    steps.predict(study, run, on_event=show)


def best_level(study: Study, split: str) -> LevelScore:
    """Find the pseudo-mask level with the highest mean Dice over all images of a split that have a true mask.

    An image that its annotator called *absent*, or whose gaze gave no pseudo-mask, counts as an empty one, so that
    the mean is over the same images as a network's.
    """
    target = study.target()
    truths: list[Mask] = []
    found: list[dict[float, Mask]] = []
    for image in study.images_of(split):
        truth = study.true_mask(image.id, target.id)
        if truth is None:
            continue
        pseudomask = study.pseudomask(image.id, target.id)
        if pseudomask is None or study.presence(image.id, target.id) == "absent":
            found.append({})
        else:
            found.append(dict(zip(pseudomask.thresholds, pseudomask.masks, strict=True)))
        truths.append(truth)
    best: LevelScore | None = None
    for threshold in sorted({level for levels in found for level in levels}):
        scores = [
            dice(levels.get(threshold, np.zeros_like(truth)), truth)
            for levels, truth in zip(found, truths, strict=True)
        ]
        held = [score for score, truth in zip(scores, truths, strict=True) if truth.any()]
        score = LevelScore(threshold, Spread.of(scores), Spread.of(held))
        if best is None or score.all_images.mean > best.all_images.mean:
            best = score
    return best or LevelScore(float("nan"), Spread.of([]), Spread.of([]))


def _free_folder(folder: Path) -> Path:
    with explained_os_errors(folder):
        candidate, number = folder, 1
        while candidate.exists() and (not candidate.is_dir() or any(candidate.iterdir())):
            number += 1
            candidate = folder.with_name(f"{folder.name}-{number}")
        candidate.mkdir(parents=True, exist_ok=True)
    return candidate
