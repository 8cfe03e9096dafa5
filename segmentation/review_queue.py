"""What waits for review, the most doubtful first, with reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from gaze_capture.errors import UserError
from segmentation.doubt import NO_DOUBT, Doubt, DoubtIndex
from segmentation.progress import Progress, no_progress
from segmentation.runs import latest_run
from segmentation.study import Review, Study

State = Literal["waiting", "empty", "accepted", "edited", "rejected", "nothing", "unsure", "ungradable"]
"""Of an image for a target: a mask waits, there is none yet, or what the latest review says."""
STATES: tuple[State, ...] = get_args(State)


def state_of(review: Review | None, *, has_mask: bool) -> State:
    """Return how an image stands for a target."""
    if review is None:
        return "waiting" if has_mask else "empty"
    if review.presence == "absent":
        return "nothing"
    if review.presence == "unsure" or review.presence == "ungradable":
        return review.presence
    return review.verdict


@dataclass(frozen=True)
class QueueItem:
    """One mask to be reviewed."""

    image_id: str
    target_id: str
    state: State
    subject: str
    """The run whose student's mask it is, or ``pseudomask``; empty where there is none."""
    doubt: Doubt

    def to_json(self) -> dict[str, Any]:
        """Return what ``review-queue --json`` prints of it."""
        return {
            "image": self.image_id,
            "target": self.target_id,
            "state": self.state,
            "subject": self.subject,
            "doubt": round(self.doubt.score, 4),
            "reasons": list(self.doubt.reasons),
            "parts": {part.name: round(part.value, 4) for part in self.doubt.parts},
        }


def predicted_runs(study: Study) -> list[str]:
    """Return the runs whose student has predicted, newest first."""
    return [
        run_id
        for run_id in reversed(study.run_ids())
        if (study.runs_folder / run_id / "predictions" / "student").is_dir()
    ]


def reviewed_run(study: Study, run_id: str | None = None) -> str | None:
    """Return the run whose masks are reviewed: the one asked for, else the newest that predicted; None without any.

    Raises
    ------
    UserError
        If the run asked for is not there or has predicted nothing.
    """
    predicted = predicted_runs(study)
    if run_id is None:
        return predicted[0] if predicted else None
    if latest_run(study, run_id) not in predicted:
        raise UserError(
            f"The run {run_id!r} has no predictions yet; make them with: "
            f"gaze-insight predict {study.folder} --run {run_id}"
        )
    return run_id


def review_queue(
    study: Study,
    *,
    run_id: str | None = None,
    target_id: str | None = None,
    split: str | None = None,
    state: State | None = "waiting",
    index: DoubtIndex | None = None,
    progress: Progress = no_progress,
) -> list[QueueItem]:
    """Return images and targets in a state, the most doubtful first; of equal doubt in the order they came in.

    Parameters
    ----------
    run_id : whose student's masks are reviewed (see :func:`reviewed_run`); pseudo-masks stand in where it has none
    target_id : None for every target
    state : None for all

    Raises
    ------
    UserError
        If there is no such split or target, or something cannot be read.
    """
    targets = study.targets if target_id is None else (study.target(target_id),)
    keys = [(image.id, target.id) for image in study.images_of(split) for target in targets]
    masked = study.pseudomask_keys()
    predicted = study.prediction_keys(run_id) if run_id is not None else set()
    reviewed = study.reviewed()
    states = {key: state_of(reviewed.get(key), has_mask=key in masked or key in predicted) for key in keys}
    chosen = [key for key in keys if state is None or states[key] == state]
    doubts = (index or DoubtIndex(study)).doubts(chosen, run_id, progress=progress)
    items = [
        QueueItem(
            *key,
            states[key],
            (run_id or "") if key in predicted else "pseudomask" if key in masked else "",
            doubts.get(key, NO_DOUBT),
        )
        for key in chosen
    ]
    return sorted(items, key=lambda item: -item.doubt.score)
