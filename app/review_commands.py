"""``review-queue``: what waits for review, the most doubtful first."""

from __future__ import annotations

import argparse

from app.argument_types import count
from app.commands import AddCommand, Outcome, counted
from app.shared_options import add_run_option, add_split_option, add_target_option
from gaze_capture.errors import UserError
from segmentation.progress import Progress
from segmentation.review_queue import STATES, QueueItem, review_queue, reviewed_run
from segmentation.study import Study

REASONS_SHOWN = 3


def add_review_commands(add: AddCommand) -> None:
    """Add the command."""
    queue = add("review-queue", show_queue, "list the masks to review, the most doubtful first, with reasons")
    add_run_option(queue, help="default: the latest that has predicted")
    queue.add_argument(
        "--pseudomasks", action="store_true", help="review the masks of gaze alone, not a run's"
    )
    add_target_option(queue)
    add_split_option(queue)
    queue.add_argument("--state", choices=(*STATES, "all"), default="waiting", help="default: waiting")
    queue.add_argument("--limit", type=count, metavar="N", help="only the first N")


def show_queue(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight review-queue``."""
    study = Study.open(args.study)
    if args.pseudomasks and args.run_id is not None:
        raise UserError("Choose either --run or --pseudomasks: the masks of one of them are reviewed.")
    run_id = None if args.pseudomasks else reviewed_run(study, args.run_id)
    state = None if args.state == "all" else args.state
    items = review_queue(
        study, run_id=run_id, target_id=args.target, split=args.split, state=state, progress=progress
    )
    shown = items[: args.limit]
    simulated = study.simulated_from()
    values = {
        "run": run_id,
        "state": args.state,
        "count": len(items),
        "simulated_from": simulated,
        "queue": [item.to_json() for item in shown],
    }
    if not items:
        return Outcome(values, _nothing(study, args))
    whose = "the gaze alone" if run_id is None else f"the run {run_id}"
    what = counted(len(items), "image") if len(study.targets) == 1 else counted(len(items), "mask")
    lines = [f"{what} ({args.state}) of {whose}, the most doubtful first:"]
    lines += [_line(number, item, targets=len(study.targets)) for number, item in enumerate(shown, 1)]
    if len(shown) < len(items):
        lines.append(f"... and {len(items) - len(shown)} more.")
    if simulated:
        lines.append(f"Gaze of this study was simulated from {simulated}.")
    return Outcome(values, "\n".join(lines))


def _line(number: int, item: QueueItem, *, targets: int) -> str:
    name = item.image_id if targets == 1 else f"{item.image_id} {item.target_id}"
    why = "; ".join(item.doubt.reasons[:REASONS_SHOWN]) or "nothing speaks against it"
    return f"{number:5}  {item.doubt.score:.2f}  {name}: {why}"


def _nothing(study: Study, args: argparse.Namespace) -> str:
    if args.state != "waiting":
        return f"No image is in the state {args.state!r}."
    if study.pseudomask_keys() or study.run_ids():
        return "Nothing waits for review."
    return f"There are no masks to review yet. Make some with: gaze-insight pseudomask {args.study}"
