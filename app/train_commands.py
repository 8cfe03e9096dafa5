"""``train``, and with it ``pack`` and ``import-run``, which share its options."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from app.argument_types import count
from app.commands import AddCommand, Outcome
from app.pack_commands import add_pack_commands, train_packed
from app.rounds_commands import add_again_options, add_rounds_command, train_again
from app.spec_options import add_spec_options, spec_of
from gaze_capture.errors import UserError
from segmentation.progress import Progress
from segmentation.study import PACKED, Study


def add_train_commands(add: AddCommand) -> None:
    """Add ``train``, ``rounds``, ``pack`` and ``import-run``."""
    command = add("train", train, "train teacher and student, of a study or a packed training set")
    begun = command.add_mutually_exclusive_group()
    begun.add_argument("--resume", metavar="RUN")
    begun.add_argument(
        "--prepare",
        action="store_true",
        help="make the run and start nothing: a cluster will (docs/cluster.md)",
    )
    command.add_argument(
        "--processes",
        type=count,
        default=1,
        metavar="N",
        help="train on N GPUs of this machine at once; the same result",
    )
    command.add_argument(
        "--to", type=Path, metavar="FOLDER", help="where a packed training set is unpacked and trained"
    )
    add_again_options(command)
    add_rounds_command(add)
    for one in (command, add_pack_commands(add)):
        add_spec_options(one)


def _advised(study: Study, args: argparse.Namespace) -> dict[str, Any]:
    """Choose preset and device for this computer where none was named, and say why.

    A script that names no method gets the one of the gaze, whatever the study has beside it.
    """
    from segmentation.advice import DEFAULT_METHOD, advise, study_facts
    from segmentation.machine import this_machine

    machine, facts = this_machine(), study_facts(study, args.split or "train")
    advice = advise(machine, facts, method=args.method or DEFAULT_METHOD, device=args.device)
    reasons = list(advice.reasons)
    if args.method is None and (other := advise(machine, facts)).method != advice.method:
        reasons.append(f"{other.reasons[0]} To learn from them: --method {other.method}")
    lines = [
        f"Training {advice.method} with the preset {advice.preset} on the device {advice.device}.",
        *reasons,
        *(f"Please note: {warning}" for warning in advice.warnings),
    ]
    sys.stderr.write("\n".join(lines) + "\n")
    return dataclasses.asdict(advice)


def train(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight train``."""
    if args.again:
        return train_again(args, progress)
    if args.run_id is not None:
        args.usage_error("argument --run: only with --again; --resume goes on with a run that was stopped")
    if args.study.is_file() or (
        args.config is None and args.resume is None and (args.study / PACKED).exists()
    ):
        return train_packed(args, progress)
    from segmentation import steps
    from segmentation.job import JobEvent
    from segmentation.presets import checked
    from segmentation.runs import create_run

    study = Study.open(args.study)
    if args.to is not None:
        raise UserError(f"--to says where a packed training set is unpacked; {args.study} is a study.")
    chosen = args.config is not None or args.preset is not None or args.resume is not None
    advised = {} if chosen else _advised(study, args)
    spec = spec_of(study, args, advised) if args.resume is None else None
    if args.prepare and spec is not None:
        made = create_run(study, checked(spec)).id
        return Outcome(
            {"run": made},
            f"Prepared {made}. Start it where the GPUs are: "
            f"torchrun --nproc-per-node gpu -m segmentation.cluster train {args.study} {made}",
        )

    def show(event: JobEvent) -> None:
        if event.kind == "progress":
            progress(event.step, event.total, str(event.values.get("name", "")))
        elif event.kind == "step":
            progress(event.step, event.total, f"training, loss {event.values['losses']['total'] or 0:.3f}")

    result = steps.train(study, spec, resume=args.resume, processes=args.processes, on_event=show)
    return Outcome(
        {**dataclasses.asdict(result), **({"advice": advised} if advised else {})},
        f"Trained {result.run}: {result.iterations} iterations in {result.seconds:.0f} s on {result.device}. "
        f"Next: gaze-insight predict {args.study}",
    )
