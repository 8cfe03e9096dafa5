"""What the command ``provenance`` does."""

from __future__ import annotations

import argparse

from app.commands import AddCommand, Outcome
from app.shared_options import add_run_option, add_target_option
from segmentation.progress import Progress
from segmentation.study import Study


def add_provenance_command(add: AddCommand) -> None:
    """Add ``provenance``."""
    command = add("provenance", provenance, "tell what made a pixel, or an image's masks, what they are")
    command.add_argument("image", metavar="IMAGE", help="the image's id")
    add_target_option(command, help="default: the first")
    command.add_argument(
        "--at", type=_pixel, metavar="X,Y", help="column and row, from 0; default: the whole image"
    )
    add_run_option(command, help="default: the latest that predicted the image")


def _pixel(text: str) -> tuple[int, int]:
    """Read ``X,Y``."""
    try:
        x, y = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} should be two whole numbers: X,Y") from None
    return x, y


def provenance(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight provenance``."""
    from segmentation.provenance import latest_prediction, provenance

    study = Study.open(args.study)
    target = study.target(args.target).id
    run_id = args.run_id or latest_prediction(study, args.image, target)
    story = provenance(study, args.image, target, run_id=run_id, pixel=args.at)
    return Outcome(story.to_json(), story.to_text() or "Nothing was recorded or said of this image yet.")
