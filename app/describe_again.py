"""Describes images anew in the background; what people said, edited or approved goes on counting until they choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.jobs import StepProgress, Task
from segmentation.explainers.opening import BackendOptions
from segmentation.explaining import ExplainResult, explain_study
from segmentation.explanation import choose_explanation, load_explanation
from segmentation.study import Study


def describe_again(
    study: Study,
    image_ids: Sequence[str],
    progress: StepProgress,
    options: BackendOptions | None = None,
    result: ExplainResult | None = None,
) -> ExplainResult:
    """Describe images again, whatever was said of them; by default by measuring.

    Parameters
    ----------
    result : see `segmentation.explaining.explain_study`

    Raises
    ------
    UserError
        If nothing could be done.
    """
    touched = [
        stored
        for image_id in image_ids
        for target in study.targets
        if (stored := load_explanation(study, image_id, target.id)) is not None and stored.by_people
    ]
    try:
        return explain_study(
            study, options, image_ids=image_ids, overwrite=True, progress=progress, result=result
        )
    finally:
        for stored in touched:
            choose_explanation(study, stored)


def task_of(study: Study, image_ids: Sequence[str], title: str, done: Callable[[], object]) -> Task:
    """Return the work as a task; `done` is called in the window's thread once it succeeded."""
    task = Task(lambda report: describe_again(study, image_ids, report), title)
    task.succeeded.connect(lambda _: done())
    return task
