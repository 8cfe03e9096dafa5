"""Methods x seeds on one study: each cell is trained and measured once, kept, and taken up where it stopped.

``comparisons/cells/<key>.json`` holds what a cell gave; the key is the hash of its whole spec and of all that it reads
of the study, so that a changed study makes new cells. ``comparisons/<name>/`` holds the tables of one comparison.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import io
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, write_bytes_atomic, write_json_atomic
from segmentation import steps
from segmentation.comparison_plan import CELLS, Plan, seeded
from segmentation.comparison_plot import plot_svg
from segmentation.comparison_table import CellResult, ComparisonTable
from segmentation.job import JobEvent, RunSpec
from segmentation.label_gaze import simulated_behind
from segmentation.machine import processors
from segmentation.progress import Progress, no_progress
from segmentation.records import SCHEMA, safe_name
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from segmentation.study_content import StudyContent, digest_of, groups_of, reads_explanations
from segmentation.text.choice import with_text
from segmentation.workers import follow

STORED_MEASURES = ("dice", "iou", "miou", "hd95", "asd", "assd")

OnCellEvent = Callable[["Cell", JobEvent], None]


def _ignore(cell: Cell, event: JobEvent) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class Cell:
    """One variant with one seed."""

    variant: str
    spec: RunSpec
    split: str
    key: str
    path: Path
    """Where its result is kept, once there is any."""

    @property
    def seed(self) -> int:
        """The seed it is trained with."""
        return self.spec.seed

    def stored(self) -> dict[str, Any]:
        """Return what is kept of it; a file that is damaged is made again."""
        try:
            values = read_json(self.path)
        except UserError:
            return {}
        return values if isinstance(values, dict) and values.get("key") == self.key else {}


@dataclass(frozen=True)
class Comparison:
    """What a comparison found, and where it was written."""

    folder: Path
    table: ComparisonTable
    trained: int
    """Cells that were run this time; the others were kept from before."""
    failed: tuple[tuple[str, str], ...]
    """(cell, reason)"""


def cells_of(study: Study, plan: Plan) -> list[Cell]:
    """Return the cells of a plan, a seed's together, with the keys that the study as it is gives them.

    Raises
    ------
    UserError
        If the study has no such split, target or text.
    """
    content = StudyContent(study)
    specs = {name: _resolved(study, spec) for name, spec in plan.variants.items()}
    return [
        _cell(study, content, name, seeded(spec, seed), plan.split)
        for seed in plan.seeds
        for name, spec in specs.items()
    ]


def _resolved(study: Study, spec: RunSpec) -> RunSpec:
    """Name the targets and the text encoder, as making the run would."""
    spec = dataclasses.replace(spec, targets=spec.targets or tuple(target.id for target in study.targets))
    return with_text(study, spec) if reads_explanations(spec) or spec.text_embeddings else spec


def _cell(study: Study, content: StudyContent, variant: str, spec: RunSpec, split: str) -> Cell:
    version = importlib.metadata.version("gaze-insight")
    key = digest_of([spec.to_json(), split, content.digest(spec, split), version])[:32]
    return Cell(variant, spec, split, key, study.folder / "comparisons" / CELLS / f"{key}.json")


def compare(
    study: Study,
    plan: Plan,
    *,
    folder: Path | None = None,
    jobs: int = 1,
    on_event: OnCellEvent = _ignore,
    progress: Progress = no_progress,
) -> Comparison:
    """Train and measure every cell that is not kept yet and write the tables.

    A cell that fails is named and the others go on; run again, the comparison takes up what failed or was cut off.
    The tables are written after every cell, so that a comparison of days can be looked at.

    Parameters
    ----------
    folder
        Where the tables go; default: ``comparisons/<name>`` in the study.
    jobs
        Cells at work at once, which share the processor's threads. Small networks gain little from a second thread,
        so that two cells side by side are ready sooner than one after the other.
    on_event
        Told of everything that the workers report; with several jobs from as many threads.

    Raises
    ------
    UserError
        If nothing of the plan can be begun, or the study's folder is gone.
    """
    cells = cells_of(study, plan)
    truths = {key[0] for key in study.mask_keys()}
    groups = groups_of(study, plan.split)
    if not truths & set(groups):
        raise UserError(f"No image of the split {plan.split!r} has a true mask to measure against.")
    folder = folder or study.folder / "comparisons" / plan.folder_name
    notes = (*_leaks(study, plan), *_chosen_by_masks(plan))
    todo = [cell for cell in cells if cell.stored().get("state") != "done"]
    work = _Work(study, max(1, min(jobs, len(todo))), on_event, progress, len(cells), len(cells) - len(todo))
    for _ in work.done(todo):
        _write(folder, plan, cells, notes)
    progress(len(cells), len(cells), "")
    table = _write(folder, plan, cells, notes)
    study.audit("compare", comparison=str(folder), split=plan.split, cells=len(cells), trained=len(todo))
    failed = tuple(
        (f"{cell.variant}, seed {cell.seed}", cell.message) for cell in table.cells if cell.state == "failed"
    )
    return Comparison(folder, table, len(todo), failed)


def _leaks(study: Study, plan: Plan) -> list[str]:
    """Say where images of one group are both learned from and measured."""
    measured = {image.group for image in study.images_of(plan.split) if image.group}
    notes = []
    for split in sorted({spec.split for spec in plan.variants.values()}):
        shared = measured & {image.group for image in study.images_of(split)}
        if shared:
            notes.append(
                f"{len(shared)} groups have images both in {split!r}, which is learned from, and in {plan.split!r}: "
                "the numbers are too good. Mend it with suggest-groups --mend-splits."
            )
    return notes


def _chosen_by_masks(plan: Plan) -> list[str]:
    """Say whose checkpoint true masks chose."""
    names = [name for name, spec in plan.variants.items() if spec.holdout]
    if not names:
        return []
    return [
        f"True masks of training images that were set apart chose the checkpoint of: {', '.join(names)}. "
        "Where no true masks exist, that cannot be done."
    ]


class _Work:
    """Brings cells to their end, several at once; Ctrl+C stops their runs with checkpoints."""

    def __init__(
        self, study: Study, jobs: int, on_event: OnCellEvent, progress: Progress, cells: int, kept: int
    ) -> None:
        self._study, self._jobs = study, jobs
        self._on_event, self._progress = on_event, progress
        self._cells, self._finished = cells, kept
        self._threads = None if jobs == 1 else max(1, processors() // jobs)
        self._stopping = threading.Event()
        self._runs: set[RunFolder] = set()

    def done(self, cells: Sequence[Cell]) -> Iterator[Cell]:
        """Work on cells and yield each when it has ended."""
        if self._jobs == 1:
            for cell in cells:
                self._tell(cell, "")
                self._bring_to_end(cell)
                self._finished += 1
                yield cell
            return
        with ThreadPoolExecutor(self._jobs) as pool:
            waiting = {pool.submit(self._bring_to_end, cell): cell for cell in cells}
            try:
                for future in as_completed(waiting):
                    future.result()
                    self._finished += 1
                    yield waiting[future]
            except BaseException:
                self._stop()
                pool.shutdown(cancel_futures=True)
                raise

    def _stop(self) -> None:
        self._stopping.set()
        for run in tuple(self._runs):
            if run.state() == "running":
                run.request_stop()

    def _tell(self, cell: Cell, how_far: str) -> None:
        self._progress(self._finished, self._cells, f"{cell.variant}, seed {cell.seed}{how_far}")

    def _bring_to_end(self, cell: Cell) -> None:
        """Train, predict and measure a cell, and keep what it gave, or why it failed."""
        if self._stopping.is_set():
            return

        def tell(event: JobEvent) -> None:
            self._on_event(cell, event)
            if event.kind == "step":
                self._tell(cell, f": {event.step}/{event.total}")

        study, kept = self._study, cell.stored()
        about = {
            "schema": SCHEMA,
            "key": cell.key,
            "variant": cell.variant,
            "split": cell.split,
            "version": importlib.metadata.version("gaze-insight"),
            "spec": cell.spec.to_json(),
        }
        try:
            run = RunFolder(study.runs_folder / str(kept.get("run")))
            if not (run.path / "spec.json").exists():
                run = create_run(study, cell.spec)
            about["run"] = run.id
            write_json_atomic(cell.path, {**about, "state": "running"}, within=study.folder)
            self._runs.add(run)
            self._train(run, tell)
            steps.predict(
                study,
                run.id,
                split=cell.split,
                device=cell.spec.device,
                threads=self._threads,
                on_event=tell,
            )
            measured = _measured(study, run, cell)
            study.refresh()
            content = StudyContent(study)
            if _cell(study, content, cell.variant, cell.spec, cell.split).key != cell.key:
                # Nobody knows which of both this run has seen: it does not go on.
                del about["run"]
                raise UserError("The study changed while this cell was at work; compare again.")
            measured["simulated_from"] = content.simulated_from(cell.spec) or simulated_behind(study, run.id)
            write_json_atomic(cell.path, {**about, "state": "done", "result": measured}, within=study.folder)
        except UserError as error:
            if self._stopping.is_set():
                return
            # A cell that fails is passed over; a study that is gone ends the work.
            study.check_there()
            write_json_atomic(
                cell.path, {**about, "state": "failed", "message": str(error)}, within=study.folder
            )

    def _train(self, run: RunFolder, tell: Callable[[JobEvent], None]) -> None:
        if run.state() == "running":
            # Its worker outlived the comparison that started it.
            for event in follow(run):
                tell(event)
        if run.state() != "done":
            steps.train(self._study, resume=run.id, threads=self._threads, on_event=tell)


def _measured(study: Study, run: RunFolder, cell: Cell) -> dict[str, Any]:
    found = steps.evaluate(study, run.id, split=cell.split)
    groups = groups_of(study, cell.split)
    events = run.events()
    started = [event.values for event in events if event.kind == "started"]
    done = next(event.values for event in reversed(events) if event.kind == "done")
    seconds = found.annotation_seconds_per_image
    return {
        "seconds": float(done["seconds"]),
        "iterations": int(done["iterations"]),
        "device": started[-1]["device"],
        "precision": started[-1]["precision"],
        "threads": started[-1]["threads"],
        "annotation_seconds_per_image": seconds if math.isfinite(seconds) else None,
        "missing": list(found.missing),
        "per_image": {
            label: {
                "group": groups[label.partition(".")[0]],
                **{name: getattr(item, name) for name in STORED_MEASURES},
            }
            for label, item in found.per_image.items()
        },
    }


# What is written


def _write(folder: Path, plan: Plan, cells: list[Cell], notes: tuple[str, ...]) -> ComparisonTable:
    results = [_result(cell) for cell in cells]
    table = ComparisonTable.of(plan, results, notes)
    texts = {
        "table.csv": table.to_csv(),
        "table.md": table.to_markdown(),
        "table.html": table.to_html(),
        "plot.svg": plot_svg(table),
        "per_image.csv": _per_image(results),
    }
    for name, text in texts.items():
        write_bytes_atomic(folder / name, text.encode())
    for cell in cells:
        # Each can be trained again: train STUDY --config FILE.
        name = f"{safe_name(cell.variant)}-seed{cell.seed}.json"
        write_json_atomic(folder / "specs" / name, cell.spec.to_json())
    write_json_atomic(
        folder / "comparison.json",
        {
            "schema": SCHEMA,
            "split": plan.split,
            "baseline": plan.baseline,
            "seeds": list(plan.seeds),
            "variants": {name: spec.to_json() for name, spec in plan.variants.items()},
            "version": importlib.metadata.version("gaze-insight"),
            **table.to_json(),
        },
    )
    return table


def _result(cell: Cell) -> CellResult:
    kept = cell.stored()
    values = kept.get("result") or {}
    return CellResult(
        variant=cell.variant,
        seed=cell.seed,
        key=cell.key,
        run=str(kept.get("run", "")),
        state=kept.get("state", "waiting"),
        message=str(kept.get("message", "")),
        method=cell.spec.method,
        max_minutes=cell.spec.max_minutes,
        **values,
    )


def _per_image(results: list[CellResult]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["variant", "seed", "run", "gaze", "image", "group", *STORED_MEASURES])
    for cell in results:
        for label, item in (cell.per_image or {}).items():
            values = [item[name] for name in STORED_MEASURES]
            writer.writerow([cell.variant, cell.seed, cell.run, cell.gaze, label, item["group"], *values])
    return stream.getvalue()
