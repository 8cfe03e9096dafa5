"""What the commands about networks that were made elsewhere do."""

from __future__ import annotations

import argparse

from app.commands import Outcome
from segmentation.progress import Progress
from segmentation.study import Study


def import_checkpoint(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight import-checkpoint``."""
    from segmentation import network_steps

    study = Study.open(args.study)
    made = network_steps.import_checkpoint(study, args.file, run_id=args.run_id, target=args.target)
    return Outcome(
        made,
        f"Imported {' and '.join(made['networks'])} of {args.file.name} as the run {made['run']}. "
        f"Next: gaze-insight predict {study.folder} --run {made['run']}",
    )
