"""``runs``, ``rename-run``, ``delete-run``, ``export-run`` and ``compare-runs``: all runs of a study."""

from __future__ import annotations

import argparse
import datetime
import math
from collections.abc import Sequence
from pathlib import Path

from app.commands import AddCommand, Outcome, counted
from segmentation.progress import Progress
from segmentation.run_list import Measured, RunSummary
from segmentation.study import Study

DASH = "-"


def add_run_commands(add: AddCommand) -> None:
    """Add the commands about runs."""
    add(
        "runs",
        runs,
        "list the runs of a study, newest first: how they stand, what they take, what they reached",
    )

    rename = add("rename-run", rename_run, "give a run a name beside its id, which stays as it is")
    rename.add_argument("run_id", metavar="RUN")
    rename.add_argument("name", metavar="NAME", help='"" takes the name away')

    delete = add("delete-run", delete_run, "delete runs with their weights and predictions; reviews stay")
    delete.add_argument("run_ids", nargs="+", metavar="RUN")
    delete.add_argument("--yes", action="store_true", help="even if their predictions were reviewed")

    export = add(
        "export-run", export_run, "write a run into one archive: weights, spec, log, events, metrics"
    )
    export.add_argument("run_id", metavar="RUN")
    export.add_argument("--to", type=Path, required=True, metavar="FILE.zip")

    compare = add(
        "compare-runs",
        compare_runs,
        "say in what runs differ: settings, and measures paired by image with intervals",
    )
    compare.add_argument(
        "run_ids", nargs="+", metavar="RUN", help="the others are held against the first that was measured"
    )


def runs(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight runs``."""
    from segmentation.run_care import folder_size, size_text
    from segmentation.run_list import RunList

    study = Study.open(args.study)
    found = RunList(study).summaries()
    sizes = [folder_size(study.runs_folder / run.id)[1] for run in found]
    values = {
        "runs": [{**run.to_json(), "bytes": size} for run, size in zip(found, sizes, strict=True)],
        "bytes": sum(sizes),
    }
    if not found:
        return Outcome(values, f"The study has no run yet; train first: gaze-insight train {args.study}")
    head = (
        "run",
        "name",
        "method",
        "preset",
        "seed",
        "state",
        "steps",
        "device",
        "time",
        "begun",
        "size",
        "Dice",
    )
    rows = [(*_cells(run), size_text(size), _dice(run)) for run, size in zip(found, sizes, strict=True)]
    lines = [*aligned([head, *rows]), f"{counted(len(found), 'run')}, {size_text(sum(sizes))}."]
    lines += [f"{run.id} cannot be read: {run.problem}" for run in found if run.problem]
    return Outcome(values, "\n".join(lines))


def _cells(run: RunSummary) -> tuple[str, ...]:
    spec = run.spec
    state = f"{run.state} on {run.host}" if run.host else run.state
    steps = str(run.step) if run.state == "done" or not run.total else f"{run.step} of {run.total}"
    begun = datetime.datetime.fromtimestamp(run.begun)
    return (
        run.id,
        run.name or DASH,
        run.method,
        spec.preset if spec else DASH,
        str(spec.seed) if spec else DASH,
        state,
        steps,
        run.device or DASH,
        DASH if math.isnan(run.seconds) else f"{run.seconds / 60:.1f} min",
        f"{begun:%Y-%m-%d %H:%M}",
    )


def _dice(run: RunSummary) -> str:
    return "; ".join(map(measured_text, run.measured)) or DASH


def measured_text(one: Measured) -> str:
    """Return a measurement in words, with what must be said beside it."""
    against = "" if one.against == "masks" else f" against {one.against}"
    spread = "" if math.isnan(one.sd) else f" +- {one.sd:.3f}"
    label = f", {one.gaze}" if one.simulated else ""
    return f"{one.split or 'all'}{against} {one.dice:.3f}{spread} ({counted(one.images, 'image')}{label})"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines whose columns begin below each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def rename_run(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight rename-run``."""
    from segmentation.run_care import rename_run

    name = rename_run(Study.open(args.study), args.run_id, args.name)
    text = (
        f"The run {args.run_id} is called {name!r}."
        if name
        else f"The run {args.run_id} has no name any more."
    )
    return Outcome({"run": args.run_id, "name": name or None}, text)


def delete_run(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight delete-run``."""
    from segmentation.run_care import delete_runs, size_text

    gone = delete_runs(Study.open(args.study), args.run_ids, reviewed_too=args.yes)
    size = sum(one.size_bytes for one in gone)
    values = {
        "deleted": [{"run": one.run, "bytes": one.size_bytes, "reviews": one.reviews} for one in gone],
        "bytes": size,
    }
    kept = sum(one.reviews for one in gone)
    text = f"Deleted {counted(len(gone), 'run')}, {size_text(size)}."
    if kept:
        text += f" {counted(kept, 'review')} of their predictions stay, with the masks they stand for."
    return Outcome(values, text)


def export_run(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight export-run``."""
    from segmentation.run_care import export_run, size_text

    size = export_run(Study.open(args.study), args.run_id, args.to)
    return Outcome(
        {"run": args.run_id, "file": str(args.to), "bytes": size}, f"Wrote {args.to}, {size_text(size)}."
    )


def compare_runs(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight compare-runs``."""
    from segmentation.run_comparison import compare_runs

    found = compare_runs(Study.open(args.study), args.run_ids)
    return Outcome(found.to_json(), found.to_text())
