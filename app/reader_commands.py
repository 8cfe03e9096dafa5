"""What the commands about several annotators do: audits drawn blind, agreement, consensus, and merging their work."""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

from app.argument_types import annotator, count, seed
from app.commands import AddCommand, Outcome, counted, named
from app.shared_options import add_annotators_option, add_split_option, add_target_option
from gaze_capture.errors import UserError
from segmentation.bootstrap import Interval
from segmentation.progress import Progress
from segmentation.study import Study


def add_reader_commands(add: AddCommand) -> None:
    """Add ``audit-draw``, ``readers``, ``consensus`` and ``merge``."""
    draw = add("audit-draw", audit_draw, "draw images at random that are outlined blind, to measure against")
    draw.add_argument("--count", type=count, required=True, metavar="N")
    draw.add_argument("--seed", type=seed, required=True, metavar="S", help="one seed draws the same again")
    draw.add_argument("--annotator", type=annotator, metavar="A", help="who outlines them; default: everyone")

    readers = add("readers", readers_agree, "measure how far annotators agree")
    consensus = add("consensus", make_consensus, "bring several annotators' masks of an image together")
    consensus.add_argument("--method", choices=("majority", "staple"), required=True)
    consensus.add_argument("--threshold", type=float, default=0.5, metavar="P", help="staple; default: 0.5")
    consensus.add_argument(
        "--least", type=count, default=2, metavar="N", help="annotators an image needs; default: 2"
    )
    add_target_option(draw, readers, consensus)
    add_split_option(draw, readers, consensus)
    add_annotators_option(readers, consensus)
    readers.add_argument(
        "--purpose",
        nargs="+",
        choices=("review", "second-read", "audit"),
        help="why the reviews were made that count; default: any",
    )
    readers.add_argument("--seed", type=seed, default=0, metavar="S", help="of the intervals; default: 0")

    merge = add("merge", merge_studies, "copy what another copy of a study has and this one lacks")
    merge.add_argument("other", type=Path, metavar="OTHER", help="the other copy's folder; it stays as it is")


def audit_draw(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight audit-draw``."""
    from segmentation.blind_reading import draw_audit

    draw = draw_audit(
        Study.open(args.study),
        args.count,
        args.seed,
        split=args.split,
        target_id=args.target,
        annotator=args.annotator,
    )
    who = args.annotator or "every annotator who has not reviewed them"
    return Outcome(
        dataclasses.asdict(draw),
        f"Drew {counted(len(draw.image_ids), 'image')} of {draw.out_of} ({draw.id}). They wait for {who} on the page "
        "Review, under Audit; then: gaze-insight evaluate STUDY --against audit",
    )


def readers_agree(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight readers``."""
    from segmentation.blind_reading import readers_of
    from segmentation.reader_agreement import reader_agreement
    from segmentation.readings import OWN

    study = Study.open(args.study)
    pairs = reader_agreement(
        study,
        target_id=args.target,
        split=args.split,
        purposes=args.purpose or OWN,
        annotators=args.annotator,
        seed=args.seed,
        progress=progress,
    )
    if not pairs:
        raise UserError(
            "No image was read by two annotators yet; let one review, or read blind (second reads, audit), what "
            "another one has."
        )
    lines = []
    for one in pairs:
        lines += [
            f"{one.target}: {one.annotators[0]} and {one.annotators[1]}, {counted(one.images, 'image')} of "
            f"{counted(one.groups, 'group')}, {one.blind} of them read blind",
            f"  Dice {_shown(one.dice)} and pixel kappa {_shown(one.pixel_kappa)} over "
            f"{counted(one.masks, 'image')} with a mask",
            f"  presence kappa {_shown(one.presence_kappa)}, the same word on {one.presence_agreed:.0%} of "
            f"{counted(one.presence_images, 'image')}"
            if one.presence_images
            else "  presence: no word by both",
        ]
    lines.append("Intervals are 95 %, by resampling groups (patients).")
    return Outcome(
        {"annotators": readers_of(study), "pairs": [one.to_json() for one in pairs]}, "\n".join(lines)
    )


def _shown(interval: Interval) -> str:
    if math.isnan(interval.mean):
        return "undefined"
    bounds = "" if math.isnan(interval.low) else f" [{interval.low:.3f}, {interval.high:.3f}]"
    return f"{interval.mean:.3f}{bounds}"


def make_consensus(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight consensus``."""
    from segmentation.consensus import make_consensus

    report = make_consensus(
        Study.open(args.study),
        args.method,
        target_id=args.target,
        split=args.split,
        annotators=args.annotator,
        threshold=args.threshold,
        least=args.least,
        progress=progress,
    )
    lines = [
        f"Stored the consensus ({args.method}) of {counted(len(report.written), 'mask')}"
        + (f"; {report.as_before} stand as before." if report.as_before else "."),
        *named(
            "Left undecided",
            [f"{'.'.join(key)}: {reason}" for key, reason in report.undecided.items()],
        ),
        *(
            f"  {one.annotator}: sensitivity {one.sensitivity:.3f}, specificity {one.specificity:.3f} around what "
            f"is in dispute, {counted(one.images, 'image')}"
            for one in report.performance
        ),
    ]
    if not (report.written or report.as_before or report.undecided):
        raise UserError(f"No image has been read by {args.least} annotators yet; nothing was stored.")
    return Outcome(report.to_json(), "\n".join(lines))


def merge_studies(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight merge``."""
    from segmentation.merging import merge

    report = merge(Study.open(args.study), Study.open(args.other), progress)
    copied = ", ".join(f"{number:,} {kind}" for kind, number in report.copied.items())
    lines = [
        f"Copied {copied}; {report.present:,} records were here already."
        if copied
        else f"Nothing is new there; {report.present:,} records are in both.",
        *named(
            "Refused, as the same name holds something else here", [" ".join(one) for one in report.conflicts]
        ),
        *named("Left out", [" ".join(one) for one in report.left_out]),
        *named("Please note", report.notes),
    ]
    return Outcome(report.to_json(), "\n".join(lines))
