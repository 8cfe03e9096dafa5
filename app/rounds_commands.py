"""``train --again``, which goes on with what reviewers said, and ``rounds``, which says what that gave."""

from __future__ import annotations

import argparse
from pathlib import Path

from app.commands import AddCommand, Outcome, counted, named
from app.shared_options import add_run_option, add_split_option
from gaze_capture.errors import UserError
from segmentation.progress import Progress
from segmentation.study import PACKED, Study

_OF_THE_EARLIER_RUN = (
    "method", "preset", "config", "split", "warm_start", "embeddings", "encoder", "encoder_rate", "encoder_frozen",
    "targets", "normalise", "resume", "to",
)  # fmt: skip
"""Options of ``train`` that the earlier run has settled."""
_CHANGED = ("device", "iterations", "max_minutes", "seed")


def add_again_options(command: argparse.ArgumentParser) -> None:
    """Add what ``train`` takes to go on from an earlier run."""
    command.add_argument(
        "--again",
        action="store_true",
        help="go on from an earlier run with the reviews since (half as long, at half the learning rate), then "
        "predict what nobody has reviewed; --iterations, --max-minutes, --seed and --device may change it",
    )
    add_run_option(command, help="with --again: from which; default: the latest finished")
    command.set_defaults(usage_error=command.error)


def add_rounds_command(add: AddCommand) -> None:
    """Add ``rounds``."""
    command = add(
        "rounds", rounds, "chart each run's Dice against the minutes of annotation spent until it began"
    )
    command.add_argument(
        "--against",
        choices=("auto", "masks", "audit"),
        default="auto",
        help="true masks outside the splits learned from, or the blind audit; auto: whichever there is",
    )
    add_split_option(command, help="whose true masks; default: the largest not learned from, test last")
    command.add_argument("--to", type=Path, metavar="FILE.svg", help="draw the chart into a file")


def train_again(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight train --again``."""
    from segmentation import retraining
    from segmentation.job import JobEvent

    given = [name for name in _OF_THE_EARLIER_RUN if getattr(args, name) is not None]
    given += [name for name in ("prepare",) if getattr(args, name)]
    if given or args.processes != 1:
        option = "--" + (given[0] if given else "processes").replace("_", "-")
        args.usage_error(
            f"argument --again: not allowed with argument {option}: the earlier run has settled it"
        )
    if args.study.is_file() or (args.study / PACKED).exists():
        raise UserError(
            f"{args.study} is a packed training set, which holds no reviews; train again in its study."
        )
    study = Study.open(args.study)

    def show(event: JobEvent) -> None:
        if event.kind == "progress":
            progress(event.step, event.total, str(event.values.get("name", "")))
        elif event.kind == "step":
            progress(event.step, event.total, f"training, loss {event.values['losses']['total'] or 0:.3f}")

    changes = {name: getattr(args, name) for name in _CHANGED if getattr(args, name) is not None}
    result = retraining.train_again(study, args.run_id, on_event=show, **changes)
    lines = [
        f"Trained {result.run} on from {result.earlier} with {counted(result.learned.count, 'review')}, "
        f"{result.new} of them new: {counted(result.iterations, 'iteration')} in {result.seconds:.0f} s on "
        f"{result.device}; {counted(result.predicted, 'mask')} predicted that nobody has reviewed.",
        *named("Could not be read", [f"{one['image']}: {one['reason']}" for one in result.failed]),
        f"Next: gaze-insight rounds {args.study}",
    ]
    return Outcome(result.to_json(), "\n".join(lines))


def rounds(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight rounds``."""
    from gaze_capture.storage import write_bytes_atomic
    from segmentation.leaving import outside
    from segmentation.rounds import rounds
    from segmentation.rounds_plot import rounds_figure

    study = Study.open(args.study)
    found = rounds(study, against=args.against, split=args.split, progress=progress)
    if not found.rounds:
        run, reason = found.left_out[-1]
        more = f" ({len(found.left_out) - 1} more are left out)" if len(found.left_out) > 1 else ""
        raise UserError(f"No run can be charted yet; {run}: {reason}{more}")
    text = found.to_text()
    if args.to is not None:
        write_bytes_atomic(outside(study, args.to), rounds_figure(found).encode())
        text += f"\nDrew {args.to}."
    return Outcome(found.to_json(), text)
