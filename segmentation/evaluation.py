"""Predictions held against true masks, pseudo-masks or reviews, image by image."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, write_json_atomic
from segmentation.job import RunSpec
from segmentation.metrics import ImageMetrics, image_metrics
from segmentation.progress import Progress, no_progress
from segmentation.runs import latest_run
from segmentation.study import Mask, Study, StudyImage, utc_now

Against = Literal["masks", "pseudomasks", "reviews"]
MEASURES = ("dice", "iou", "miou", "hd95", "asd", "assd")
DISTANCES = ("hd95", "asd", "assd")


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over images; NaN where there are too few."""

    mean: float
    sd: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Summarise values."""
        array = np.asarray(values, dtype=np.float64)
        return cls(
            float(array.mean()) if array.size else math.nan,
            float(array.std(ddof=1)) if array.size > 1 else math.nan,
        )

    def to_json(self) -> dict[str, float | None]:
        """Return mean and sd, null where not defined."""
        return {
            name: value if math.isfinite(value) else None
            for name, value in (("mean", self.mean), ("sd", self.sd))
        }


@dataclass(frozen=True)
class Evaluation:
    """A run's predictions measured on one split."""

    run: str
    method: str
    split: str | None
    against: Against
    images: int
    measures: dict[str, Spread]
    with_target: Spread
    """Dice over the images that hold the target."""
    without_target: Spread
    """Dice over those that do not: 1 where nothing was predicted, else 0."""
    images_without_target: int
    annotation_seconds_per_image: float
    """Seconds of gaze an image of the split the run learned from; NaN where it learned from no gaze."""
    simulated_from: str | None
    """``"masks"`` or ``"saliency"`` where the gaze the run learned from was no person's."""
    per_image: dict[str, ImageMetrics] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    """Images without a prediction."""

    @property
    def gaze(self) -> str:
        """Where the gaze came from that the run learned from, in words."""
        if self.method == "supervised":
            return "none, learned from true masks"
        # A file that was imported may not say whether a person looked.
        return f"simulated from {self.simulated_from}" if self.simulated_from else "recorded or imported"

    def to_json(self) -> dict[str, Any]:
        """Return what ``evaluate --json`` prints."""
        seconds = self.annotation_seconds_per_image
        return {
            "run": self.run,
            "method": self.method,
            "split": self.split,
            "against": self.against,
            "images": self.images,
            **{name: spread.to_json() for name, spread in self.measures.items()},
            "dice_with_target": self.with_target.to_json(),
            "dice_without_target": self.without_target.to_json(),
            "images_without_target": self.images_without_target,
            "annotation_seconds_per_image": seconds if math.isfinite(seconds) else None,
            "gaze": self.gaze,
            "missing_predictions": list(self.missing),
        }

    def to_text(self) -> str:
        """Return the same as a small table."""
        where = f" of the split {self.split!r}" if self.split else ""
        lines = [
            f"{self.run} ({self.method}) on {self.images} images{where}, against {self.against}; gaze: {self.gaze}"
        ]
        for name, spread in self.measures.items():
            unit = " mm" if name.endswith("_mm") else " px" if name in DISTANCES else ""
            digits = 4 if name in ("dice", "iou", "miou") else 2
            lines.append(f"  {name:<8} {spread.mean:.{digits}f} +- {spread.sd:.{digits}f}{unit}")
        if math.isfinite(self.annotation_seconds_per_image):
            lines.append(f"  annotation {self.annotation_seconds_per_image:.1f} s an image")
        if self.missing:
            lines.append(f"  {len(self.missing)} images have no prediction yet and were left out.")
        return "\n".join(lines)


def evaluate(
    study: Study,
    run_id: str | None = None,
    *,
    split: str | None = None,
    against: Against = "masks",
    threshold: float = 0.5,
    progress: Progress = no_progress,
) -> Evaluation:
    """Measure the student's predictions at native resolution and store the result with the run.

    Parameters
    ----------
    against : true masks, the broad level of pseudo-masks, or reviewed masks (circular for those accepted as shown)
    threshold : on the probability

    Raises
    ------
    UserError
        If the run has no predictions for the split, or there is nothing to hold them against.
    """
    run = latest_run(study, run_id)
    spec_path = study.runs_folder / run / "spec.json"
    spec = RunSpec.from_json(read_json(spec_path), str(spec_path))
    keys = [(image, target) for image, target in study.iterate_keys(split) if target.id in spec.targets]
    predicted = study.prediction_keys(run)
    per_image: dict[str, ImageMetrics] = {}
    in_mm: dict[str, list[float]] = {f"{name}_mm": [] for name in DISTANCES}
    without_target: set[str] = set()
    missing: list[str] = []
    for number, (image, target) in enumerate(keys):
        progress(number, len(keys), image.id)
        truth = _truth(study, image, target.id, against)
        if truth is None:
            continue
        label = image.id if len(spec.targets) == 1 else f"{image.id}.{target.id}"
        probability = (
            study.prediction(run, image.id, target.id) if (image.id, target.id) in predicted else None
        )
        if probability is None:
            missing.append(label)
            continue
        measured = image_metrics(probability >= threshold, truth)
        per_image[label] = measured
        if not truth.any():
            without_target.add(label)
        if image.spacing_mm is not None:
            millimetres = image_metrics(probability >= threshold, truth, spacing=image.spacing_mm)
            for name in DISTANCES:
                in_mm[f"{name}_mm"].append(getattr(millimetres, name))
    progress(len(keys), len(keys), "")
    if not per_image:
        if missing:
            raise UserError(
                f"The run {run} has no predictions here yet; make them with: gaze-insight predict STUDY"
            )
        raise UserError(f"There is nothing to measure against: no {_NOUNS[against]} for these images.")
    measures = {name: Spread.of([getattr(item, name) for item in per_image.values()]) for name in MEASURES}
    measures |= {name: Spread.of(values) for name, values in in_mm.items() if values}
    dice = {label: item.dice for label, item in per_image.items()}
    result = Evaluation(
        run=run,
        method=spec.method,
        split=split,
        against=against,
        images=len(per_image),
        measures=measures,
        with_target=Spread.of([value for label, value in dice.items() if label not in without_target]),
        without_target=Spread.of([value for label, value in dice.items() if label in without_target]),
        images_without_target=len(without_target),
        annotation_seconds_per_image=_annotation_seconds(study, spec),
        simulated_from=study.simulated_from() if spec.method != "supervised" else None,
        per_image=per_image,
        missing=tuple(missing),
    )
    stored = result.to_json() | {
        "evaluated": utc_now(),
        "threshold": threshold,
        "per_image": {label: _finite(dataclasses.asdict(item)) for label, item in per_image.items()},
    }
    write_json_atomic(study.runs_folder / run / "metrics" / f"{split or 'all'}-{against}.json", stored)
    return result


_NOUNS = {"masks": "true masks", "pseudomasks": "pseudo-masks", "reviews": "reviewed masks"}


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _truth(study: Study, image: StudyImage, target_id: str, against: Against) -> Mask | None:
    if against == "masks":
        return study.true_mask(image.id, target_id)
    if against == "reviews":
        return study.reviewed_mask(image.id, target_id)
    pseudomask = study.pseudomask(image.id, target_id)
    return pseudomask.masks[-1] if pseudomask is not None else None


def _annotation_seconds(study: Study, spec: RunSpec) -> float:
    """Mean viewing time of the images the run learned from; several looks at one image add up."""
    if spec.method == "supervised":
        return math.nan
    totals = [
        sum(item.viewing_ms for item in study.fixations[image.id, target]) / 1000
        for image in study.images_of(spec.split)
        for target in spec.targets
        if (image.id, target) in study.fixations
    ]
    return float(np.mean(totals)) if totals else math.nan
