"""Runs side by side: their curves, the settings in which they differ, and their measures paired by image. No torch."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json
from segmentation.bootstrap import Interval, clustered_interval
from segmentation.evaluation import Against, Spread
from segmentation.job import RunSpec
from segmentation.records import group_of
from segmentation.run_list import Measured, RunSummary, summary_of
from segmentation.runs import RunFolder
from segmentation.study import Study

MEASURES: dict[str, tuple[str, int]] = {
    "dice": ("Dice", 3),
    "iou": ("IoU", 3),
    "hd95": ("HD95 px", 1),
    "assd": ("ASSD px", 1),
}
"""What is shown side by side: its title and digits."""

MOST_RUNS = 8
"""More curves in one plot nobody can tell apart."""
MOST_POINTS = 800
"""Of a curve: about as many as a plot has columns of pixels."""

Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Steps (N,) and values (N,)."""


@dataclass(frozen=True)
class Difference:
    """A field of the specs in which runs differ."""

    field: str
    values: tuple[str, ...]
    """One a run; empty where its spec cannot be read or has no such note."""


@dataclass(frozen=True)
class SideBySide:
    """One measure of one split against one kind of truth."""

    split: str | None
    against: Against
    measure: str
    means: tuple[Spread | None, ...]
    """Of each run, over all images it was measured on; None where it was not."""
    images: tuple[int, ...]
    """How many those are."""
    differences: tuple[Interval | None, ...]
    """Of each run to the baseline, over the images that both were measured on: mean and its 95 % interval under
    resampling of groups. None for the baseline, and where either was not measured."""
    pairs: tuple[int, ...]
    """How many images the difference is of."""

    def to_json(self, run_ids: Sequence[str]) -> dict[str, Any]:
        """Return all of it by run, null where not defined."""
        return {
            "split": self.split,
            "against": self.against,
            "measure": self.measure,
            "runs": {
                run: {
                    **(spread.to_json() if spread else {"mean": None, "sd": None}),
                    "images": images,
                    "difference": None
                    if difference is None
                    else {name: _finite(value) for name, value in difference._asdict().items()},
                    "paired_images": pairs,
                }
                for run, spread, images, difference, pairs in zip(
                    run_ids, self.means, self.images, self.differences, self.pairs, strict=True
                )
            },
        }


@dataclass(frozen=True)
class RunComparison:
    """Runs side by side, in the order asked for."""

    runs: tuple[RunSummary, ...]
    baseline: str
    """Id of the run that the others are held against."""
    differing: tuple[Difference, ...]
    measures: tuple[SideBySide, ...]
    notes: tuple[str, ...]
    """What must be said beside the numbers."""

    def to_json(self) -> dict[str, Any]:
        """Return all of it."""
        ids = [run.id for run in self.runs]
        return {
            "runs": [run.to_json() for run in self.runs],
            "baseline": self.baseline,
            "differing": {one.field: dict(zip(ids, one.values, strict=True)) for one in self.differing},
            "measures": [one.to_json(ids) for one in self.measures],
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """Return the same as sentences, a line each."""
        lines = [
            f"{number}: {run.id} {run.title} ({run.state})" for number, run in enumerate(self.runs, start=1)
        ]
        lines.append("Settings that differ:" if self.differing else "Their settings are the same.")
        lines += [
            f"  {one.field}: {' | '.join(value or '-' for value in one.values)}" for one in self.differing
        ]
        for one in self.measures:
            title, digits = MEASURES[one.measure]
            lines.append(f"{title}, {one.split or 'all'}, against {one.against}:")
            for number, (spread, images, difference, pairs) in enumerate(
                zip(one.means, one.images, one.differences, one.pairs, strict=True), start=1
            ):
                if spread is None:
                    continue
                line = f"  {number}: {spread.mean:.{digits}f} +- {spread.sd:.{digits}f} ({images} images)"
                if difference is not None:
                    line += f", difference {interval_text(difference, digits)} over {pairs} paired images"
                lines.append(line)
        return "\n".join([*lines, *self.notes])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def interval_text(interval: Interval, digits: int) -> str:
    """Return a difference with its interval, where there is one."""
    text = f"{interval.mean:+.{digits}f}"
    if math.isfinite(interval.low):
        text += f" [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"
    return text


def compare_runs(study: Study, run_ids: Sequence[str], baseline: str | None = None) -> RunComparison:
    """Hold runs of a study side by side, by what is stored of them.

    Parameters
    ----------
    run_ids
        Two or more, at most `MOST_RUNS`.
    baseline
        What the others are held against; default: the first that was measured.

    Raises
    ------
    UserError
        If there are too few or too many, or the study has no such run.
    """
    ids = list(dict.fromkeys(run_ids))
    if not 2 <= len(ids) <= MOST_RUNS:
        raise UserError(f"Name two to {MOST_RUNS} different runs to compare, not {len(ids)}.")
    runs = tuple(summary_of(study, run_id) for run_id in ids)
    base = baseline or next((run.id for run in runs if run.measured), ids[0])
    if base not in ids:
        raise UserError(f"The baseline {base!r} is none of the runs compared: {', '.join(ids)}.")
    tables = {run.id: _tables(RunFolder(study.runs_folder / run.id), run.measured) for run in runs}
    keys = list(dict.fromkeys((one.split, one.against) for run in runs for one in run.measured))
    measures: list[SideBySide] = []
    notes: list[str] = []
    for key in keys:
        groups = _groups(study, key[0])
        by_run = [tables[run.id].get(key) for run in runs]
        measures += [_side_by_side(key, name, by_run, ids.index(base), groups) for name in MEASURES]
        thresholds = sorted({table.threshold for table in by_run if table is not None})
        if len(thresholds) > 1:
            notes.append(
                f"On {key[0] or 'all images'}, against {key[1]}, they were measured at different thresholds "
                f"({', '.join(f'{one:g}' for one in thresholds)})."
            )
    for label in sorted({one.gaze for run in runs for one in run.measured if one.simulated}):
        of = [
            str(place) for place, run in enumerate(runs, 1) if any(one.gaze == label for one in run.measured)
        ]
        whom = (
            "they all"
            if len(of) == len(runs)
            else f"run {of[0]}"
            if len(of) == 1
            else f"runs {', '.join(of)}"
        )
        notes.append(f"The gaze that {whom} learned from was {label}.")
    for run in runs:
        if run.problem:
            notes.append(run.problem)
    return RunComparison(
        runs=runs,
        baseline=base,
        differing=tuple(differing([run.spec for run in runs])),
        measures=tuple(measures),
        notes=tuple(dict.fromkeys(notes)),
    )


def differing(specs: Sequence[RunSpec | None]) -> list[Difference]:
    """Return the fields in which specs differ, each note a field of its own, in the order of the spec."""
    flat = [_flat(spec) if spec else {} for spec in specs]
    names = list(dict.fromkeys(name for values in flat for name in values))
    found = []
    for name in names:
        values = tuple(_shown(one[name]) if name in one else "" for one in flat)
        known = {value for value, spec in zip(values, specs, strict=True) if spec is not None}
        if len(known) > 1:
            found.append(Difference(name, values))
    return found


def _flat(spec: RunSpec) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in dataclasses.fields(spec):
        value = getattr(spec, item.name)
        if item.name in ("notes", "normalisation"):
            values |= {f"{item.name}: {name}": one for name, one in sorted(value.items())}
        elif item.name != "encoder_config":
            # Where that differs, the encoder's hash differs.
            values[item.name] = value
    return values


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False, default=str)


@dataclass(frozen=True)
class _Table:
    """A stored measurement, image by image."""

    per_image: Mapping[str, Mapping[str, float | None]]
    threshold: float


def _tables(run: RunFolder, measured: Sequence[Measured]) -> dict[tuple[str | None, Against], _Table]:
    found = {}
    for one in measured:
        path = run.path / "metrics" / f"{one.split or 'all'}-{one.against}.json"
        values = read_json(path)
        try:
            per_image = {str(label): dict(item) for label, item in values["per_image"].items()}
            found[one.split, one.against] = _Table(per_image, float(values.get("threshold", 0.5)))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(
                f"{path} is damaged; measure again: gaze-insight evaluate STUDY --run {run.id}"
            ) from None
    return found


def _groups(study: Study, split: str | None) -> dict[str, str]:
    """Return the group of each image of a split, or of all; of a split that is gone since, nothing."""
    return {image.id: group_of(image) for image in study.images.values() if split in (None, image.split)}


def _side_by_side(
    key: tuple[str | None, Against],
    measure: str,
    tables: Sequence[_Table | None],
    baseline: int,
    groups: Mapping[str, str],
) -> SideBySide:
    values = [_values(table, measure) for table in tables]
    means: list[Spread | None] = []
    differences: list[Interval | None] = []
    pairs: list[int] = []
    for number, own in enumerate(values):
        means.append(Spread.of(list(own.values())) if own else None)
        common = sorted(own.keys() & values[baseline].keys())
        if number == baseline or not common:
            differences.append(None)
            pairs.append(0)
            continue
        apart = np.array([own[label] - values[baseline][label] for label in common])
        # Of several targets the label is image.target; ids themselves hold no dot.
        members = [groups.get(label.partition(".")[0], label) for label in common]
        differences.append(clustered_interval(apart, members))
        pairs.append(len(common))
    return SideBySide(
        split=key[0],
        against=key[1],
        measure=measure,
        means=tuple(means),
        images=tuple(map(len, values)),
        differences=tuple(differences),
        pairs=tuple(pairs),
    )


def _values(table: _Table | None, measure: str) -> dict[str, float]:
    if table is None:
        return {}
    found = {label: item.get(measure) for label, item in table.per_image.items()}
    return {label: float(value) for label, value in found.items() if value is not None}


# Curves


def curves_of(run: RunFolder, most: int = MOST_POINTS) -> dict[str, Curve]:
    """Return a run's curves over its steps, at most `most` points each.

    ``loss: total`` and the like, ``agreement`` (Dice with its own labels) and ``selection`` (Dice on images set apart).
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for event in run.events():
        for name, value in _told(event.kind, event.values).items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                points.setdefault(name, []).append((float(event.step), float(value)))
    return {name: thinned(*np.array(found).T, most=most) for name, found in points.items()}


def _told(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    if kind == "step" and isinstance(values.get("losses"), dict):
        return {f"loss: {name}": value for name, value in values["losses"].items()}
    if kind in ("agreement", "selection"):
        return {kind: values.get("dice")}
    return {}


def thinned(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], *, most: int) -> Curve:
    """Keep the lowest and the highest point of each of ``most / 2`` stretches, so that no peak is lost.

    Parameters
    ----------
    x, y
        (N,) a curve's points, in their order.

    Returns
    -------
    The curve as it is where it has no more than `most` points.
    """
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), most // 2 + 1).astype(int)
    kept: list[int] = []
    for start, end in itertools.pairwise(edges):
        part = y[start:end]
        kept += sorted({start + int(part.argmin()), start + int(part.argmax())})
    return x[kept], y[kept]


def smoothed(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], most: int) -> Curve:
    """Return the mean course of a curve (N,): the means of `most` stretches; as it is where it has no more points."""
    if len(x) <= most:
        return x, y
    starts = np.linspace(0, len(x), most, endpoint=False).astype(int)
    sizes = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes
