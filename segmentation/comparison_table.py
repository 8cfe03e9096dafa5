"""The table of a comparison: means, spreads, differences to a baseline, and what must be said beside them."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segmentation.bootstrap import Interval, clustered_interval, clustered_p, holm
from segmentation.comparison_plan import Plan
from segmentation.evaluation import Spread
from segmentation.report_parts import row, table

MEASURES: dict[str, tuple[str, int]] = {
    "dice": ("Dice", 4),
    "iou": ("IoU", 4),
    "hd95": ("HD95 px", 2),
    "asd": ("ASD px", 2),
    "assd": ("ASSD px", 2),
}
"""What is shown: its title and digits."""

CLAIM_SEEDS = 3
"""With fewer seeds nothing is claimed."""

State = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True)
class CellResult:
    """What one variant with one seed gave; the later fields only where its state is ``done``."""

    variant: str
    seed: int
    key: str
    run: str
    state: State
    message: str
    method: str
    max_minutes: float | None
    seconds: float = math.nan
    iterations: int = 0
    device: str = ""
    precision: str = ""
    threads: int = 0
    annotation_seconds_per_image: float | None = None
    missing: Sequence[str] = ()
    simulated_from: str | None = None
    per_image: Mapping[str, Mapping[str, Any]] | None = None
    """By image (``image.target`` where there are several targets): its group and measures."""

    @property
    def gaze(self) -> str:
        """Where the gaze or text came from that it learned from, in words."""
        if self.state != "done":
            return ""
        if self.simulated_from:
            return f"simulated from {self.simulated_from}"
        # A file that was imported may not say whether a person looked.
        return "none, true masks" if self.method == "supervised" else "recorded or imported"


@dataclass(frozen=True)
class Row:
    """One variant over all its seeds that were done."""

    variant: str
    method: str
    gaze: str
    seeds: tuple[int, ...]
    measures: dict[str, Spread]
    """Mean and SD over images, each image's value being its mean over seeds."""
    seed_means: dict[str, list[float]]
    """The mean over images of each seed."""
    intervals: dict[str, Interval]
    """Of the mean, over groups and seeds."""
    differences: dict[str, Interval]
    """To the baseline, paired by image, over the seeds both have; none for the baseline itself."""
    p: float
    """That the difference in Dice is 0 (`bootstrap.clustered_p`)."""
    p_holm: float
    """The same, corrected by Holm for all variants of the table."""
    seconds: float
    iterations: float
    devices: tuple[str, ...]
    annotation_seconds: float
    """Per image; NaN where none is known, as for true masks."""

    def seed_sd(self, measure: str) -> float:
        """Return the SD over seeds of the mean over images; NaN for one seed."""
        return Spread.of(self.seed_means[measure]).sd


@dataclass(frozen=True)
class ComparisonTable:
    """All rows, in the plan's order, and the sentences that belong to them."""

    split: str
    baseline: str
    seeds: tuple[int, ...]
    images: int
    groups: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    cells: tuple[CellResult, ...]

    @classmethod
    def of(cls, plan: Plan, cells: Sequence[CellResult], notes: Sequence[str] = ()) -> ComparisonTable:
        """Make the table of the cells that are done.

        Over the images that all of these have measured; a note says how many that leaves out.
        """
        done = [cell for cell in cells if cell.per_image]
        measured = [set(cell.per_image or ()) for cell in done]
        common = sorted(set.intersection(*measured)) if measured else []
        left_out = len(set().union(*measured)) - len(common)
        group_of = {label: str((done[0].per_image or {})[label]["group"]) for label in common}
        groups = [group_of[label] for label in common]
        by_variant = {
            name: {cell.seed: cell for cell in done if cell.variant == name} for name in plan.variants
        }
        tables = {
            name: {
                measure: {seed: _values(cell, common, measure) for seed, cell in of_seed.items()}
                for measure in MEASURES
            }
            for name, of_seed in by_variant.items()
        }
        rows = [
            _row(name, list(by_variant[name].values()), tables[name], tables[plan.baseline], groups, plan)
            for name in plan.variants
            if by_variant[name] and common
        ]
        rows = [
            dataclasses.replace(one, p_holm=value)
            for one, value in zip(rows, holm([one.p for one in rows]), strict=True)
        ]
        return cls(
            split=plan.split,
            baseline=plan.baseline,
            seeds=plan.seeds,
            images=len({label.partition(".")[0] for label in common}),
            groups=len(set(groups)),
            rows=tuple(rows),
            notes=tuple([*notes, *_notes(plan, cells, rows, left_out)]),
            cells=tuple(cells),
        )

    @property
    def simulated(self) -> bool:
        """Whether any gaze or text behind the numbers was simulated."""
        return any(one.gaze.startswith("simulated") for one in self.rows)

    @property
    def caption(self) -> str:
        """What must be read with the numbers."""
        sources = sorted({one.gaze for one in self.rows if one.gaze.startswith("simulated")})
        label = f"Gaze {' and '.join(sources)}. " if sources else ""
        return (
            f"{label}Measured on the split {self.split!r} ({self.images} images in {self.groups} groups) against true "
            "masks at native resolution; no training read it, and nothing was chosen on it. "
            f"Differences are to {self.baseline}."
        )

    @property
    def method_note(self) -> str:
        """How the numbers were made."""
        return (
            "Mean ± SD over images, each averaged over its seeds; HD95 pools both directions before the percentile, "
            "ASD is from prediction to truth. Differences are paired by image; 95 % intervals by bootstrap over groups "
            "and seeds. p of the Dice difference: the larger of that bootstrap's and of flipping the signs of whole "
            "groups, corrected by Holm over the table."
        )

    def _head(self) -> list[str]:
        return [
            "Variant",
            "Gaze",
            "Seeds",
            *(title for title, _ in MEASURES.values()),
            "Dice SD over seeds",
            "Dice minus baseline [95 %]",
            "p (Holm)",
            "Training s",
            "Iterations",
            "Device",
            "Annotation s/image",
        ]

    def _cells_of(self, one: Row) -> list[str]:
        return [
            one.variant,
            one.gaze,
            f"{len(one.seeds)}/{len(self.seeds)}",
            *(
                f"{_number(one.measures[name].mean, digits)} ± {_number(one.measures[name].sd, digits)}"
                for name, (_, digits) in MEASURES.items()
            ),
            _number(one.seed_sd("dice"), 4),
            _difference(one.differences.get("dice")),
            _p(one.p_holm),
            _number(one.seconds, 0),
            _number(one.iterations, 0),
            ", ".join(one.devices),
            _number(one.annotation_seconds, 1),
        ]

    def to_markdown(self) -> str:
        """Return the table for a document."""
        lines = [f"**{self.caption}**", ""]
        lines += ["| " + " | ".join(self._head()) + " |", "|" + "---|" * len(self._head())]
        for one in self.rows:
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in self._cells_of(one)) + " |")
        lines += ["", self.method_note, "", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"

    def to_html(self) -> str:
        """Return the table as a fragment of a page."""
        rows = [row(*map(escape, self._cells_of(one)), text=(0, 1)) for one in self.rows]
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return (
            f"<p><strong>{escape(self.caption)}</strong></p>\n{table(self._head(), rows, text=(0, 1))}\n"
            f'<p class="note">{escape(self.method_note)}</p>\n' + (f"<ul>{notes}</ul>\n" if notes else "")
        )

    def to_csv(self) -> str:
        """Return one line a variant with every number in full; differences of all measures."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        lines = [_flat(one, self) for one in self.rows]
        if lines:
            writer.writerow(lines[0])
            writer.writerows(line.values() for line in lines)
        return stream.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Return all of it but the numbers of single images; null where not defined."""
        return {
            "caption": self.caption,
            "simulated": self.simulated,
            "images": self.images,
            "groups": self.groups,
            "rows": [{name: _finite(value) for name, value in _flat(one, self).items()} for one in self.rows],
            "notes": list(self.notes),
            "cells": [
                {
                    "variant": cell.variant,
                    "seed": cell.seed,
                    "state": cell.state,
                    "run": cell.run,
                    "key": cell.key,
                    "message": cell.message,
                    "gaze": cell.gaze,
                    "seconds": _finite(cell.seconds),
                    "iterations": cell.iterations,
                    "device": cell.device,
                    "precision": cell.precision,
                    "threads": cell.threads,
                }
                for cell in self.cells
            ],
        }


def _values(cell: CellResult, labels: Sequence[str], measure: str) -> npt.NDArray[np.float64]:
    assert cell.per_image is not None
    return np.array([cell.per_image[label][measure] for label in labels], dtype=np.float64)


def _row(
    name: str,
    cells: Sequence[CellResult],
    own: dict[str, dict[int, npt.NDArray[np.float64]]],
    baseline: dict[str, dict[int, npt.NDArray[np.float64]]],
    groups: Sequence[str],
    plan: Plan,
) -> Row:
    seeds = tuple(sorted(own["dice"]))
    stacks = {measure: np.stack([of_seed[seed] for seed in seeds]) for measure, of_seed in own.items()}
    shared = [seed for seed in seeds if seed in baseline["dice"]]
    differences: dict[str, npt.NDArray[np.float64]] = {}
    if name != plan.baseline and shared:
        differences = {
            measure: np.stack([own[measure][seed] - baseline[measure][seed] for seed in shared])
            for measure in MEASURES
        }
    seconds = [cell.annotation_seconds_per_image for cell in cells]
    return Row(
        variant=name,
        method=cells[0].method,
        # The label is that of the worst of the cells.
        gaze=max((cell.gaze for cell in cells), key=lambda gaze: gaze.startswith("simulated")),
        seeds=seeds,
        measures={measure: Spread.of(list(stack.mean(axis=0))) for measure, stack in stacks.items()},
        seed_means={
            measure: [float(value) for value in stack.mean(axis=1)] for measure, stack in stacks.items()
        },
        intervals={measure: clustered_interval(stack, groups) for measure, stack in stacks.items()},
        differences={measure: clustered_interval(stack, groups) for measure, stack in differences.items()},
        p=clustered_p(differences["dice"], groups) if differences else math.nan,
        p_holm=math.nan,
        seconds=float(np.mean([cell.seconds for cell in cells])),
        iterations=float(np.mean([cell.iterations for cell in cells])),
        devices=tuple(dict.fromkeys(f"{cell.device}, {cell.precision}" for cell in cells)),
        annotation_seconds=float(np.mean([one for one in seconds if one is not None]))
        if any(one is not None for one in seconds)
        else math.nan,
    )


def _notes(plan: Plan, cells: Sequence[CellResult], rows: Sequence[Row], left_out: int) -> list[str]:
    notes = []
    for cell in cells:
        if cell.state == "failed":
            notes.append(f"Failed: {cell.variant}, seed {cell.seed}: {cell.message}")
    waiting = [f"{cell.variant}, seed {cell.seed}" for cell in cells if cell.state in ("waiting", "running")]
    if waiting:
        notes.append(f"Not done yet: {'; '.join(waiting)}.")
    if any(len(one.seeds) < CLAIM_SEEDS for one in rows):
        notes.append(
            f"Fewer than {CLAIM_SEEDS} seeds: training's own chance is not known well enough for a claim."
        )
    uneven = [one.variant for one in rows if one.seeds != rows[0].seeds]
    if uneven:
        notes.append("Variants have different seeds; differences are over those that both have.")
    done = [cell for cell in cells if cell.state == "done"]
    limits = {cell.max_minutes for cell in done} - {None}
    if limits:
        notes.append(
            f"Trainings ended after at most {max(limit for limit in limits if limit):g} minutes: what else the "
            "computer did decides how many iterations they had. Give --iterations for the same number everywhere."
        )
    if len({cell.device for cell in done}) > 1 or len({cell.precision for cell in done}) > 1:
        notes.append(
            "Cells ran on different devices or in different precision; differences may come from that."
        )
    if left_out:
        notes.append(f"Masks that not every cell has predicted are left out: {left_out}.")
    return notes


def _flat(one: Row, whole: ComparisonTable) -> dict[str, Any]:
    values: dict[str, Any] = {
        "variant": one.variant,
        "method": one.method,
        "gaze": one.gaze,
        "split": whole.split,
        "images": whole.images,
        "groups": whole.groups,
        "seeds": len(one.seeds),
    }
    for name in MEASURES:
        values |= {
            f"{name}_mean": one.measures[name].mean,
            f"{name}_sd_images": one.measures[name].sd,
            f"{name}_sd_seeds": one.seed_sd(name),
            f"{name}_low": one.intervals[name].low,
            f"{name}_high": one.intervals[name].high,
        }
    for name in MEASURES:
        difference = one.differences.get(name, Interval(math.nan, math.nan, math.nan))
        values |= {
            f"{name}_minus_baseline": difference.mean,
            f"{name}_minus_baseline_low": difference.low,
            f"{name}_minus_baseline_high": difference.high,
        }
    return values | {
        "baseline": whole.baseline,
        "p": one.p,
        "p_holm": one.p_holm,
        "training_seconds": one.seconds,
        "iterations": one.iterations,
        "device": "; ".join(one.devices),
        "annotation_seconds_per_image": one.annotation_seconds,
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _difference(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    bounds = f" [{interval.low:+.4f}, {interval.high:+.4f}]" if math.isfinite(interval.low) else ""
    return f"{interval.mean:+.4f}{bounds}"


def _p(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
