"""What the command ``suggest`` does."""

from __future__ import annotations

import argparse

from app.argument_types import count
from app.commands import AddCommand, Outcome, counted
from segmentation.progress import Progress
from segmentation.study import Study


def add_suggest_command(add: AddCommand) -> None:
    """Add ``suggest``."""
    command = add(
        "suggest",
        suggest,
        "choose sigma, refiner and levels together on training images that have true masks",
    )
    command.add_argument("--apply", action="store_true", help="make them the study's settings")
    command.add_argument("--split", default="train", metavar="NAME", help="never test; default: train")
    command.add_argument("--images", type=count, metavar="N", help="use at most so many; default: 100")


def suggest(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight suggest``."""
    from segmentation import suggesting

    study = Study.open(args.study)
    most = args.images or suggesting.MOST_IMAGES
    found = suggesting.suggest(study, split=args.split, most_images=most, progress=progress)
    levels = " ".join(f"{level:g}" for level in found.settings.thresholds or ())
    lines = [f"  {'sigma':<16}{'refiner':<14}{'level':>6}{'Dice':>8}"]
    lines += [f"  {one.sigma:<16}{one.refine:<14}{one.level:>6.3f}{one.dice:>8.3f}" for one in found.tried]
    label = f", gaze simulated from {found.simulated_from}" if found.simulated_from else ""
    used = f"{counted(found.images, 'image')} of {counted(found.groups, 'group')}"
    lines += [
        f"Tried on {used} with true masks{label}; each at its own best level.",
        f"Suggested: sigma {found.sigma}, refiner {found.settings.refine}, levels {levels}.",
        f"Dice to expect at level {found.level:g}: {found.expected:.3f} +- {found.expected_sd:.3f}{label}; measured on "
        "images that had no part in the choice.",
        (
            f"Today's settings: {found.today:.3f}."
            if found.today is not None
            else f"Today's refiner {study.pseudomask_settings.refine} was not tried."
        ),
    ]
    applied = args.apply and found.changes
    if applied:
        suggesting.apply(study, found)
        lines.append(
            "These are the study's settings now. Make the pseudo-masks again: "
            f"gaze-insight pseudomask {study.folder}"
        )
    elif args.apply:
        lines.append("No better than today's, which stay.")
    elif found.changes:
        lines.append(f"To take them over: gaze-insight suggest {study.folder} --apply")
    else:
        lines.append("No better than today's.")
    return Outcome({**found.to_json(), "applied": applied}, "\n".join(lines))
