"""``gaze-insight text-use``: whether a run's teacher uses what it reads."""

from __future__ import annotations

import argparse

from app.commands import Outcome
from segmentation.job import JobEvent
from segmentation.progress import Progress
from segmentation.study import Study
from segmentation.text_use_step import measure_text_use


def text_use(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight text-use``."""

    def show(event: JobEvent) -> None:
        if event.kind == "progress":
            progress(event.step, event.total, "asking the teacher")

    found = measure_text_use(
        Study.open(args.study),
        args.run_id,
        split=args.split,
        images=args.images,
        device=args.device,
        on_event=show,
    )
    return Outcome(found.to_json(), found.to_text())
