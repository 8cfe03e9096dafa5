"""A run's spec trained once more: how close the numbers come, and whether the weights are the same bit for bit."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, read_json, write_json_atomic
from segmentation import steps
from segmentation.evaluation import MEASURES
from segmentation.runs import RunFolder, create_run, latest_run
from segmentation.study import Study


@dataclass(frozen=True)
class Closeness:
    """One measure of one measurement, before and again."""

    split: str | None
    against: str
    measure: str
    before: float
    """Mean over images."""
    again: float
    largest: float
    """The largest difference of one image."""


@dataclass(frozen=True)
class Reproduction:
    """A run beside its repetition."""

    run: str
    again: str
    iterations: tuple[int, int]
    """Before and again."""
    seconds: float
    device: str
    weights: dict[str, bool]
    """By file of the last checkpoint: whether every bit is the same."""
    closeness: tuple[Closeness, ...]
    """Of every measurement that was stored with the run."""
    notes: tuple[str, ...]
    """What may explain a difference."""

    @property
    def same_weights(self) -> bool:
        """Whether all networks are the same bit for bit."""
        return bool(self.weights) and all(self.weights.values())

    def to_json(self) -> dict[str, Any]:
        """Return all of it."""
        return {**dataclasses.asdict(self), "same_weights": self.same_weights}

    def to_text(self) -> str:
        """Return sentences."""
        lines = [
            f"{self.again} repeats {self.run}: {self.iterations[1]} iterations (before: {self.iterations[0]}) in "
            f"{self.seconds:.0f} s on {self.device}."
        ]
        if self.same_weights:
            lines.append("The weights are the same, bit for bit.")
        else:
            lines.append("The weights are not the same bit for bit.")
        for one in self.closeness:
            where = one.split or "all"
            lines.append(
                f"  {where}, against {one.against}: {one.measure} {one.before:.4f} -> {one.again:.4f}, "
                f"largest difference of an image {one.largest:.4f}"
            )
        return "\n".join([*lines, *self.notes])


def reproduce(study: Study, run_id: str, *, on_event: steps.OnEvent = lambda event: None) -> Reproduction:
    """Train a finished run's spec again, as a new run, and measure it wherever the run was measured.

    On the processor, with a fixed number of iterations and as many threads, the weights should be the same.

    Raises
    ------
    UserError
        If there is no such run, it is not finished, or the new one fails.
    """
    run = RunFolder(study.runs_folder / latest_run(study, run_id))
    if run.state() != "done":
        raise UserError(f"The run {run.id} is not finished ({run.state()}); resume it first.")
    spec = run.spec
    new = create_run(study, dataclasses.replace(spec, notes={**spec.notes, "reproduces": run.id}))
    started = _told(run, "started")
    # Sums come out differently with another number of threads.
    result = steps.train(study, resume=new.id, threads=started.get("threads"), on_event=on_event)
    closeness: list[Closeness] = []
    measurements = sorted((run.path / "metrics").glob("*.json"))
    for path in measurements:
        before = read_json(path)
        if not isinstance(before, dict) or not {"split", "against", "per_image", *MEASURES} <= set(before):
            raise UserError(f"{path} is damaged; measure again: gaze-insight evaluate STUDY --run {run.id}")
        split, against = before["split"], before["against"]
        steps.predict(study, new.id, split=split, device=spec.device, on_event=on_event)
        again = steps.evaluate(
            study, new.id, split=split, against=against, threshold=float(before.get("threshold", 0.5))
        )
        closeness += [_closeness(before, again, name) for name in MEASURES]
    done = _told(run, "done")
    found = Reproduction(
        run=run.id,
        again=new.id,
        iterations=(int(done["iterations"]), result.iterations),
        seconds=result.seconds,
        device=result.device,
        weights=_same_weights(run, new),
        closeness=tuple(closeness),
        notes=tuple(_notes(run, new, measured=bool(measurements))),
    )
    write_json_atomic(new.path / "reproduction.json", found.to_json(), within=study.folder)
    return found


def _closeness(before: dict[str, Any], again: steps.Evaluation, measure: str) -> Closeness:
    pairs = [
        (float(before["per_image"][label][measure]), float(getattr(item, measure)))
        for label, item in again.per_image.items()
        if label in before["per_image"]
    ]
    return Closeness(
        again.split,
        again.against,
        measure,
        float(before[measure]["mean"]),
        again.measures[measure].mean,
        max((abs(first - second) for first, second in pairs), default=0.0),
    )


def _told(run: RunFolder, kind: str) -> dict[str, Any]:
    return next((event.values for event in reversed(run.events()) if event.kind == kind), {})


def _same_weights(run: RunFolder, new: RunFolder) -> dict[str, bool]:
    before, again = _weights(run), _weights(new)
    return {name: before.get(name) == again.get(name) for name in sorted(before | again)}


def _weights(run: RunFolder) -> dict[str, str]:
    """Return the hash of each network's file in the last checkpoint; torch is not needed to tell bits apart."""
    folders = sorted(path.parent for path in (run.path / "checkpoints").glob("[0-9]*/state.json"))
    if not folders:
        return {}
    return {
        path.stem: _digest(path)
        for path in sorted(folders[-1].glob("*.safetensors"))
        if path.stem != "optimiser"
    }


def _digest(path: Path) -> str:
    with explained_os_errors(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()


def _notes(run: RunFolder, new: RunFolder, *, measured: bool) -> list[str]:
    notes = []
    if run.spec.max_minutes is not None:
        notes.append(
            "The run ends by the clock (max_minutes): its schedule followed the speed of that hour and cannot be "
            "repeated exactly."
        )
    before, again = _told(run, "started"), _told(new, "started")
    for name, words in {
        "device": "another device",
        "precision": "another precision",
        "threads": "another number of threads",
        "images": "another number of images: the study has changed",
        "strong_labels": "another number of reviewed labels: the study has changed",
        "explained": "another number of explained images: the study has changed",
    }.items():
        if before.get(name) != again.get(name):
            notes.append(f"It ran with {words} ({before.get(name)} before, {again.get(name)} now).")
    if any(event.values.get("resumed") for event in run.events() if event.kind == "started"):
        notes.append("The run was stopped and resumed on its way.")
    if not measured:
        notes.append("The run was never measured, so that only weights were compared.")
    return notes
