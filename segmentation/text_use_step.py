"""Asking a run's teacher, in a worker, whether it uses what it reads."""

from __future__ import annotations

from collections.abc import Callable

from gaze_capture.errors import UserError
from segmentation.encoder_folders import text_job
from segmentation.job import ENDINGS, JobEvent
from segmentation.runs import RunFolder, latest_run, read_events, start_worker
from segmentation.study import Study
from segmentation.text_use import TextUse


def measure_text_use(
    study: Study,
    run_id: str | None = None,
    *,
    split: str | None = None,
    images: int | None = None,
    device: str | None = None,
    on_event: Callable[[JobEvent], object] = lambda _: None,
) -> TextUse:
    """Ask a run's teacher, in a worker, about the images of a split, or some of them; stores its attention, too.

    Raises
    ------
    UserError
        If the run's teacher reads no text, no image of the split is explained, or the worker failed.
    """
    run = RunFolder(study.runs_folder / latest_run(study, run_id))
    study.images_of(split)
    job = {"task": "text-use", "split": split, "limit": images, "device": device, **text_job(run.spec)}
    with start_worker(run, job, detached=False) as process:
        for event in read_events(process):
            on_event(event)
            if event.kind == "done":
                return TextUse.from_json(event.values["found"])
            if event.kind in ENDINGS:
                raise UserError(str(event.values.get("message")))
    raise AssertionError("a worker's events end with an ending")
