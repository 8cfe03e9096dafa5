"""Predictions held against true masks, pseudo-masks or reviews, image by image."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, write_json_atomic
from segmentation.annotation_time import AnnotationTime, annotation_time
from segmentation.job import RunSpec
from segmentation.label_gaze import gaze_words, simulated_behind
from segmentation.metrics import ImageMetrics, VolumeMetrics, image_metrics, volume_metrics
from segmentation.progress import Progress, no_progress
from segmentation.records import Key, StudyImage, utc_now
from segmentation.runs import latest_run
from segmentation.study import Mask, Study

Against = Literal["masks", "pseudomasks", "reviews", "audit"]
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
class VolumeSummary:
    """Measures over whole volumes; NaN where the spacing is unknown."""

    count: int
    dice: Spread
    hd95_mm: Spread
    assd_mm: Spread

    @classmethod
    def of(cls, volumes: list[VolumeMetrics]) -> VolumeSummary:
        """Summarise volumes; distances over those whose spacing is known."""

        def spread(name: str) -> Spread:
            values = [float(getattr(one, name)) for one in volumes]
            return Spread.of([value for value in values if math.isfinite(value)])

        return cls(len(volumes), spread("dice"), spread("hd95_mm"), spread("assd_mm"))

    def to_json(self) -> dict[str, Any]:
        """Return count and spreads."""
        return {
            "count": self.count,
            **{name: getattr(self, name).to_json() for name in ("dice", "hd95_mm", "assd_mm")},
        }


@dataclass(frozen=True)
class Summary:
    """Measures over images, of one target or of all together."""

    images: int
    measures: dict[str, Spread]
    with_target: Spread
    """Dice over the images that hold the target."""
    without_target: Spread
    """Dice over those that do not: 1 where nothing was predicted, else 0."""
    images_without_target: int
    false_positive_area: Spread
    """Percent of the image that was predicted, over the images that do not hold the target."""
    false_positive_share: float
    """Share of these images in which anything was predicted, 0..1; NaN where there are none."""

    def to_json(self) -> dict[str, Any]:
        """Return all of it, null where not defined."""
        share = self.false_positive_share
        return {
            "images": self.images,
            **{name: spread.to_json() for name, spread in self.measures.items()},
            "dice_with_target": self.with_target.to_json(),
            "dice_without_target": self.without_target.to_json(),
            "images_without_target": self.images_without_target,
            "false_positive_area_percent": {
                **self.false_positive_area.to_json(),
                "share_of_images": share if math.isfinite(share) else None,
            },
        }


@dataclass(frozen=True)
class TargetSummary(Summary):
    """Measures of one target, with whole volumes where images form such."""

    volumes: VolumeSummary | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all of it, null where not defined."""
        volumes = {} if self.volumes is None else {"volumes": self.volumes.to_json()}
        return {**super().to_json(), **volumes}


@dataclass(frozen=True)
class Evaluation(Summary):
    """A run's predictions measured on one split, all its targets together and each on its own."""

    run: str
    method: str
    split: str | None
    against: Against
    targets: dict[str, TargetSummary]
    """By target id."""
    annotation_seconds_per_image: float
    """Seconds that annotating an image of the split took that the run learned from; NaN where it learned from no
    gaze. Looks without pauses, re-looks, and a share of calibrating; `annotation_time` lists them apart."""
    simulated_from: str | None
    """``"masks"`` or ``"saliency"`` where the gaze the run learned from was no person's."""
    annotation_time: AnnotationTime | None = None
    per_image: dict[str, ImageMetrics] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    """Images without a prediction."""
    per_volume: dict[str, VolumeMetrics] = field(default_factory=dict)

    @property
    def gaze(self) -> str:
        """Where the gaze came from that the run learned from, in words."""
        return gaze_words(self.method, self.simulated_from)

    def to_json(self) -> dict[str, Any]:
        """Return what ``evaluate --json`` prints."""
        seconds = self.annotation_seconds_per_image
        return {
            "run": self.run,
            "method": self.method,
            "split": self.split,
            "against": self.against,
            **super().to_json(),
            "targets": {name: summary.to_json() for name, summary in self.targets.items()},
            "annotation_seconds_per_image": seconds if math.isfinite(seconds) else None,
            "annotation_time": self.annotation_time.to_json() if self.annotation_time is not None else None,
            "gaze": self.gaze,
            "missing_predictions": list(self.missing),
        }

    @property
    def _time_apart(self) -> str:
        time = self.annotation_time
        if time is None or not (time.relooks_s or time.setup_s or time.pauses_s):
            return ""
        return (
            f": first looks {time.looking_s:.1f}, re-looks {time.relooks_s:.1f}, calibration {time.setup_s:.1f}; "
            f"pauses of {time.pauses_s:.1f} s are left out"
        )

    def to_text(self) -> str:
        """Return the same as a small table."""
        where = f" of the split {self.split!r}" if self.split else ""
        lines = [
            f"{self.run} ({self.method}) on {self.images} images{where}, against {self.against}; gaze: {self.gaze}"
        ]
        lines += _lines(self)
        for name, summary in self.targets.items():
            # A single target without volumes says nothing more than all together.
            if len(self.targets) > 1:
                lines += [
                    f"  Target {name}, {summary.images} images",
                    *(f"  {line}" for line in _lines(summary)),
                ]
            if (volumes := summary.volumes) is not None:
                mm = f", HD95 {volumes.hd95_mm.mean:.2f} mm, ASSD {volumes.assd_mm.mean:.2f} mm"
                lines.append(
                    f"  {name} over {volumes.count} whole volumes: Dice {volumes.dice.mean:.4f} +- "
                    f"{volumes.dice.sd:.4f}{mm if math.isfinite(volumes.hd95_mm.mean) else ''}"
                )
        if math.isfinite(self.annotation_seconds_per_image):
            lines.append(f"  annotation {self.annotation_seconds_per_image:.1f} s an image{self._time_apart}")
        if self.missing:
            lines.append(f"  {len(self.missing)} images have no prediction yet and were left out.")
        return "\n".join(lines)


def _lines(summary: Summary) -> list[str]:
    lines = []
    for name, spread in summary.measures.items():
        unit = " mm" if name.endswith("_mm") else " px" if name in DISTANCES else ""
        digits = 4 if name in ("dice", "iou", "miou") else 2
        lines.append(f"  {name:<8} {spread.mean:.{digits}f} +- {spread.sd:.{digits}f}{unit}")
    if without := summary.images_without_target:
        held = summary.images - without
        lines += [
            f"  dice of the {held} images with the target {summary.with_target.mean:.4f}, "
            f"of the {without} without {summary.without_target.mean:.4f}"
            if held
            else "  the target is in none of these images",
            f"  false-positive area {summary.false_positive_area.mean:.2f} % of an image without the target; "
            f"any in {summary.false_positive_share:.0%} of them",
        ]
    return lines


@dataclass(frozen=True)
class _Measured:
    """One target of one image."""

    target_id: str
    label: str
    metrics: ImageMetrics
    in_mm: ImageMetrics | None
    empty_truth: bool
    predicted_share: float
    """Of the image's area, 0..1."""


def _summary(items: list[_Measured]) -> Summary:
    measures = {name: Spread.of([getattr(item.metrics, name) for item in items]) for name in MEASURES}
    in_mm = [item.in_mm for item in items if item.in_mm is not None]
    if in_mm:
        measures |= {f"{name}_mm": Spread.of([getattr(item, name) for item in in_mm]) for name in DISTANCES}
    held = [item.metrics.dice for item in items if not item.empty_truth]
    without = [item for item in items if item.empty_truth]
    area = [100 * item.predicted_share for item in without]
    return Summary(
        images=len(items),
        measures=measures,
        with_target=Spread.of(held),
        without_target=Spread.of([item.metrics.dice for item in without]),
        images_without_target=len(without),
        false_positive_area=Spread.of(area),
        false_positive_share=float(np.mean([value > 0 for value in area])) if area else math.nan,
    )


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
    against : true masks, the broad level of pseudo-masks, reviewed masks (circular for those accepted as shown), or
        the masks of a blind audit, outlined by people who saw no prediction
    threshold : on the probability

    Raises
    ------
    UserError
        If the run has no predictions for the split, or there is nothing to hold them against.
    """
    run = latest_run(study, run_id)
    spec_path = study.runs_folder / run / "spec.json"
    spec = RunSpec.from_json(read_json(spec_path), str(spec_path))
    learned = spec.targets or tuple(target.id for target in study.targets)
    keys = [(image, target) for image, target in study.iterate_keys(split) if target.id in learned]
    predicted = study.prediction_keys(run)
    found: list[_Measured] = []
    missing: list[str] = []
    for number, (image, target) in enumerate(keys):
        progress(number, len(keys), image.id)
        truth = _truth(study, image, target.id, against)
        if truth is None:
            continue
        label = image.id if len(learned) == 1 else f"{image.id}.{target.id}"
        probability = (
            study.prediction(run, image.id, target.id) if (image.id, target.id) in predicted else None
        )
        if probability is None:
            missing.append(label)
            continue
        mask = probability >= threshold
        check_size(study, run, (image.id, target.id), mask, truth)
        spacing = image.spacing_mm
        found.append(
            _Measured(
                target_id=target.id,
                label=label,
                metrics=image_metrics(mask, truth),
                in_mm=None if spacing is None else image_metrics(mask, truth, spacing=spacing),
                empty_truth=not truth.any(),
                predicted_share=float(mask.mean()),
            )
        )
    progress(len(keys), len(keys), "")
    if not found:
        if missing:
            raise UserError(
                f"The run {run} has no predictions here yet; make them with: gaze-insight predict STUDY"
            )
        raise UserError(f"There is nothing to measure against: no {_NOUNS[against]} for these images.")
    per_image = {item.label: item.metrics for item in found}
    time = _annotation_time(study, spec)
    summaries: dict[str, TargetSummary] = {}
    per_volume: dict[str, VolumeMetrics] = {}
    for target_id in dict.fromkeys(item.target_id for item in found):
        volumes = _volumes(study, run, target_id, split, against, threshold)
        per_volume |= {
            name if len(learned) == 1 else f"{name}.{target_id}": one for name, one in volumes.items()
        }
        summaries[target_id] = TargetSummary(
            **vars(_summary([item for item in found if item.target_id == target_id])),
            volumes=VolumeSummary.of(list(volumes.values())) if volumes else None,
        )
    result = Evaluation(
        **vars(_summary(found)),
        run=run,
        method=spec.method,
        split=split,
        against=against,
        targets=summaries,
        per_volume=per_volume,
        annotation_seconds_per_image=time.seconds_per_image if time is not None else math.nan,
        annotation_time=time,
        simulated_from=simulated_behind(study, run),
        per_image=per_image,
        missing=tuple(missing),
    )
    stored = result.to_json() | {
        "evaluated": utc_now(),
        "version": importlib.metadata.version("gaze-insight"),
        "threshold": threshold,
        "per_image": {label: _finite(dataclasses.asdict(item)) for label, item in per_image.items()},
        "per_volume": {label: _finite(dataclasses.asdict(item)) for label, item in per_volume.items()},
    }
    write_json_atomic(study.runs_folder / run / "metrics" / f"{split or 'all'}-{against}.json", stored)
    return result


def _volumes(
    study: Study, run: str, target_id: str, split: str | None, against: Against, threshold: float
) -> dict[str, VolumeMetrics]:
    """Measure whole volumes, over their slices of the split that have a truth and a prediction."""
    measured = {}
    described = set(study.volume_ids())
    for name, image_ids in study.volumes.items():
        slices = [study.image(image_id) for image_id in image_ids]
        slices = [image for image in slices if split is None or image.split == split]
        masks: dict[int, tuple[Mask, Mask]] = {}
        for place, image in enumerate(slices):
            truth = _truth(study, image, target_id, against)
            probability = study.prediction(run, image.id, target_id) if truth is not None else None
            if truth is not None and probability is not None:
                index = place if image.slice_index is None else image.slice_index
                masks[index] = (probability >= threshold, truth)
        # Pages of one file may differ in size: they form no space.
        if len(masks) < 2 or len({truth.shape for _, truth in masks.values()}) > 1:
            continue
        first, last = min(masks), max(masks)
        shape = (last - first + 1, *next(iter(masks.values()))[1].shape)
        prediction, truth = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
        known = np.zeros(shape[0], np.bool_)
        for index, (own, true) in masks.items():
            prediction[index - first], truth[index - first], known[index - first] = own, true, True
        spacing = _spacing_of(study, name, slices) if name in described else None
        measured[name] = volume_metrics(prediction, truth, spacing, known)
    return measured


def _spacing_of(study: Study, volume_id: str, slices: list[StudyImage]) -> tuple[float, float, float] | None:
    """Return millimetres from slice to slice, row to row and column to column, or None where one is unknown."""
    in_plane = {image.spacing_mm for image in slices}
    if len(in_plane) != 1 or (plane := in_plane.pop()) is None:
        return None
    between = study.volume(volume_id).slice_spacing_mm
    return (between, *plane) if between else None


_NOUNS = {
    "masks": "true masks",
    "pseudomasks": "pseudo-masks",
    "reviews": "reviewed masks",
    "audit": "masks of a blind audit",
}


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def check_size(study: Study, run_id: str, key: Key, mask: Mask, truth: Mask) -> None:
    """Raise UserError where a run's mask is of another size than the one that it is to be measured against."""
    if mask.shape != truth.shape:
        raise UserError(
            f"{study.prediction_path(run_id, *key)} is {mask.shape[1]} x {mask.shape[0]} pixels, the mask to measure "
            f"it against {truth.shape[1]} x {truth.shape[0]}; delete it and predict again, or import the right mask."
        )


def _truth(study: Study, image: StudyImage, target_id: str, against: Against) -> Mask | None:
    if against == "masks":
        return study.true_mask(image.id, target_id)
    if against == "reviews":
        return study.reviewed_mask(image.id, target_id)
    if against == "audit":
        return study.audit_mask(image.id, target_id)
    pseudomask = study.pseudomask(image.id, target_id)
    return pseudomask.masks[-1] if pseudomask is not None else None


def _annotation_time(study: Study, spec: RunSpec) -> AnnotationTime | None:
    """Return what annotating the images that the run learned from took."""
    if spec.method == "supervised":
        return None
    learned = spec.targets or tuple(target.id for target in study.targets)
    images = (image.id for image in study.images.values() if image.split == spec.split)
    return annotation_time(study, images, learned)
