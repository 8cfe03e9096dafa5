"""What is compared: named variants, each a run's spec, and the seeds each is trained with. Never imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json
from segmentation.job import RunSpec
from segmentation.presets import checked, preset
from segmentation.records import safe_name
from segmentation.study import TEST_SPLIT
from segmentation.study_content import digest_of

ABLATIONS: dict[str, dict[str, Any]] = {
    "text": {"text": "empty"},
    "shuffled": {"text": "shuffled"},
    "area-only": {"text": "area-only"},
    "darm": {"darm_share": 0.0},
    "afc": {"afc_weight": 0.0},
    "cwc": {"cwc_weight": 0.0},
    "levels": {"teacher_levels": (-1, -1)},
}
"""What each shortcut changes in the full method: `text` keeps the networks but says nothing, `levels` gives the teacher
the student's labels; the others switch a term off or change the text."""

ABLATED = "gaze-to-insight"
"""The method whose parts are taken away."""

CELLS = "cells"
"""Name of the folder of all cells in ``comparisons/``, which no comparison can have."""


@dataclass(frozen=True)
class Plan:
    """Variants x seeds, measured on one split."""

    variants: Mapping[str, RunSpec]
    """By the name shown; the specs' seed is replaced by each of `seeds`."""
    seeds: tuple[int, ...]
    baseline: str
    """The variant that the others are held against."""
    split: str = TEST_SPLIT
    name: str = ""
    """Of the folder the table goes to; empty stands for one that follows from the rest."""

    def __post_init__(self) -> None:
        if not self.variants:
            raise UserError("Nothing is to be compared: name methods (--methods) or variants (--variants).")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise UserError("Seeds should be one or more different whole numbers, such as 0,1,2.")
        if self.baseline not in self.variants:
            raise UserError(
                f"The baseline {self.baseline!r} is not compared; choose one of: {', '.join(self.variants)}."
            )
        for name, spec in self.variants.items():
            if spec.split == self.split:
                raise UserError(
                    f"{name} would be trained on the split {self.split!r} that is measured; measure another (--split)."
                )
        files = [safe_name(name) for name in self.variants]
        if len(set(files)) < len(files):
            raise UserError("Two variants have names that differ in signs alone; rename one of them.")
        if self.name == CELLS or (self.name and self.name != safe_name(self.name)):
            raise UserError(f"A comparison cannot be called {self.name!r}; use letters, digits, - and _.")

    @property
    def folder_name(self) -> str:
        """The comparison's own name, or one that is the same for the same plan."""
        if self.name:
            return self.name
        specs = {name: spec.to_json() for name, spec in self.variants.items()}
        return f"{safe_name(self.split)}-{digest_of([specs, self.seeds, self.baseline, self.split])[:10]}"


def make_plan(
    methods: Sequence[str] = (),
    *,
    seeds: Sequence[int] = (0, 1, 2),
    preset_name: str = "cpu",
    changes: Mapping[str, Any] | None = None,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    ablate: Sequence[str] = (),
    split: str = TEST_SPLIT,
    baseline: str | None = None,
    name: str = "",
    find_encoder: Callable[[str], Mapping[str, Any]] | None = None,
) -> Plan:
    """Build a plan of methods, of variants that say how they differ, and of ablations of the full method.

    Parameters
    ----------
    preset_name, changes
        Of every variant; fields that a variant names itself win.
    variants
        By name: ``method``, ``preset`` and any field of a RunSpec.
    ablate
        Keys of `ABLATIONS`; the full method comes along.
    baseline
        Default: the first variant.
    find_encoder
        Gives the fields of a spec that begins with the pretrained encoder of a folder or a name in the hub, which a
        variant calls its ``encoder``; an empty one stands for the U-Net's own.

    Raises
    ------
    UserError
        If a method, preset, field or value is unknown, or the plan compares nothing.
    """
    common = dict(changes or {})
    specs: dict[str, RunSpec] = {}

    def add(shown: str, own: Mapping[str, Any]) -> None:
        if shown in specs:
            raise UserError(f"Two variants are called {shown!r}; give one of them another name.")
        values = {**common, **own}
        method, based_on = str(values.pop("method", ABLATED)), str(values.pop("preset", preset_name))
        try:
            # A stored spec names the encoder's hash, too, and is taken as it is.
            if values.get("encoder") and "encoder_sha256" not in values and find_encoder:
                values |= find_encoder(str(values["encoder"]))
            specs[shown] = checked(dataclasses.replace(preset(method, based_on), **_fields(values)))
        except UserError as error:
            raise UserError(f"Variant {shown!r}: {error}") from None

    for method in dict.fromkeys(methods):
        add(method, {"method": method})
    for part in ablate:
        if part not in ABLATIONS:
            raise UserError(f"There is no ablation {part!r}; choose from: {', '.join(ABLATIONS)}.")
    if ablate and ABLATED not in specs:
        add(ABLATED, {})
    for part in dict.fromkeys(ablate):
        shown = f"text {part}" if part in ("shuffled", "area-only") else f"without {part}"
        add(f"{ABLATED} {shown}", ABLATIONS[part])
    for shown, own in (variants or {}).items():
        add(shown, own)
    return Plan(
        variants=specs,
        seeds=tuple(seeds),
        baseline=baseline if baseline is not None else next(iter(specs), ""),
        split=split,
        name=name,
    )


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    spec = RunSpec.from_json(values)
    return {name: getattr(spec, name) for name in values}


def read_variants(path: Path) -> dict[str, dict[str, Any]]:
    """Read a file of variants: a JSON object of objects, by name.

    Raises
    ------
    UserError
        If it cannot be read or is something else.
    """
    values = read_json(path)
    if not isinstance(values, dict) or not all(isinstance(own, dict) for own in values.values()):
        raise UserError(
            f'{path} should be a JSON object of variants, such as {{"no text": {{"text": "empty"}}}}.'
        )
    return values


def seeded(spec: RunSpec, seed: int) -> RunSpec:
    """Return a variant's spec with one of the seeds."""
    return dataclasses.replace(spec, seed=seed)
