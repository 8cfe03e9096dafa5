"""Training again with reviews: what the next run begins with, and what it then predicts. Never imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gaze_capture.errors import UserError
from segmentation.job import JobEvent, RunSpec
from segmentation.learned_reviews import (
    Learned,
    begun_at,
    given_at,
    learned_by,
    mark_of,
    seconds_behind,
    teaching,
)
from segmentation.presets import checked
from segmentation.review_index import COUNTED
from segmentation.runs import RunFolder, latest_run
from segmentation.study import Study

AGAIN_LENGTH = 0.5
"""Length of a training that begins with an earlier run's networks, as a share of the first one's: they need not learn
again what edges and the target look like, only what the reviews changed."""
AGAIN_RATE = 0.5
"""Its highest learning rate, as a share of the first one's, so that its beginning does not undo what is known."""


@dataclass(frozen=True)
class News:
    """Reviews that a run has not learned from and a next one would."""

    run: str
    count: int
    seconds: float


def new_reviews(study: Study, run_id: str) -> News:
    """Return which reviews came since a run that the same training would learn from now.

    Raises
    ------
    UserError
        If there is no such run, or its spec is damaged.
    """
    run = RunFolder(study.runs_folder / latest_run(study, run_id))
    spec = run.spec
    learned = learned_by(run) if spec.learn_from_reviews else None
    since = begun_at(run) if learned is None and spec.learn_from_reviews else 0.0
    new = [
        review
        for review in teaching(study, dataclasses.replace(spec, learn_from_reviews=True)).values()
        if (mark_of(study, review) not in learned.marks if learned is not None else given_at(review) > since)
    ]
    return News(run_id, len(new), sum(seconds_behind(study, review) for review in new))


def spec_again(study: Study, run_id: str | None = None, **changes: Any) -> RunSpec:
    """Return the spec of a run that goes on from an earlier one, by default the latest finished, with what reviews say.

    It is the earlier one's but for its length and learning rate (`AGAIN_LENGTH`, `AGAIN_RATE`; they stay as they are
    when the earlier one went on from another itself) and begins with its networks. `changes` are fields set by hand.

    Raises
    ------
    UserError
        If there is no such run, it is being worked on, has learned nothing yet, or no review is new to it.
    """
    run = RunFolder(study.runs_folder / latest_run(study, run_id))
    if run.state() == "running":
        raise UserError(
            f"The run {run.id} is being worked on; wait for its end, or stop it, and train again."
        )
    if not can_go_on(run):
        raise UserError(
            f"The run {run.id} has learned nothing to go on from: it has no checkpoint. Train first."
        )
    if not new_reviews(study, run.id).count:
        raise UserError(
            f"The run {run.id} knows every review that it could learn from; review some of its masks first, "
            "then train again."
        )
    return continued(run, **changes)


def is_again(spec: RunSpec) -> bool:
    """Whether a spec is that of a run that goes on from another with reviews."""
    return "again" in spec.notes


def can_go_on(run: RunFolder) -> bool:
    """Whether a run has learned something that another can begin with."""
    return any((run.path / "checkpoints").glob("[0-9]*/state.json"))


def continued(run: RunFolder, **changes: Any) -> RunSpec:
    """Return the spec by which a run would be gone on from, whether or not anything is new; see `spec_again`."""
    earlier = run.spec
    rounds = earlier.notes.get("again", {}).get("round", 0)
    length, rate = (1.0, 1.0) if rounds else (AGAIN_LENGTH, AGAIN_RATE)
    fields: dict[str, Any] = {
        "warm_start": run.id,
        "learn_from_reviews": True,
        "iterations": max(1, round(earlier.iterations * length)),
        "max_minutes": earlier.max_minutes and earlier.max_minutes * length,
        "learning_rate": earlier.learning_rate * rate,
        "notes": {**earlier.notes, "again": {"run": run.id, "round": rounds + 1}},
    }
    return checked(dataclasses.replace(earlier, **{**fields, **changes}))


def to_predict(study: Study, run: RunFolder) -> list[str]:
    """Return the ids of images in which a target of the run has no mask that a reviewer stands for.

    Where everything was reviewed there is nothing more to be had from a prediction. What a run is measured on is
    predicted all the same, lest later rounds be measured without the doubtful images that were reviewed: what was
    audited, and what has a true mask in a split that the run does not learn from.
    """
    spec = run.spec
    settled, measured = set(), set()
    for key, reviews in study.all_reviews().items():
        own = [review for review in reviews if review.purpose in COUNTED]
        if own and own[-1].verdict != "rejected":
            settled.add(key)
        if any(review.purpose == "audit" for review in reviews):
            measured.add(key[0])
    measured |= {
        image
        for image, target in study.mask_keys()
        if target in spec.targets and image in study.images and study.images[image].split != spec.split
    }
    return [
        image
        for image in study.images
        if image in measured or any((image, target) not in settled for target in spec.targets)
    ]


def networks_of(spec: RunSpec) -> Sequence[str]:
    """Return the networks that predict for review: the teacher, too, where there is one, that the two can differ."""
    return ("student",) if spec.method in ("partial", "supervised") else ("student", "teacher")


@dataclass(frozen=True)
class AgainResult:
    """How training again ended."""

    run: str
    earlier: str
    """The run whose networks it began with."""
    learned: Learned
    new: int
    """Reviews that the earlier run had not learned from."""
    seconds: float
    iterations: int
    device: str
    predicted: int
    failed: list[dict[str, str]]

    def to_json(self) -> dict[str, Any]:
        """Return what ``train --again --json`` prints."""
        reviews = {"count": self.learned.count, "new": self.new, "sha256": self.learned.sha256}
        return {
            "run": self.run,
            "seconds": self.seconds,
            "iterations": self.iterations,
            "device": self.device,
            "warm_start": self.earlier,
            "reviews": {**reviews, "seconds": self.learned.seconds, "spent_s": self.learned.spent_s},
            "predicted": self.predicted,
            "failed": self.failed,
        }


def train_again(
    study: Study,
    run_id: str | None = None,
    *,
    threads: int | None = None,
    on_event: Callable[[JobEvent], None] = lambda event: None,
    **changes: Any,
) -> AgainResult:
    """Train a run on with the reviews since, then let it predict what nobody has reviewed; waits for the end.

    Parameters
    ----------
    on_event : told of all that the workers report
    changes : fields of the spec set by hand

    Raises
    ------
    UserError
        As `spec_again` and `segmentation.steps.train`.
    """
    # Reads trackers and formats along, which the window's pages can do without.
    from segmentation import steps

    spec = spec_again(study, run_id, **changes)
    new = new_reviews(study, spec.warm_start).count
    trained = steps.train(study, spec, threads=threads, on_event=on_event)
    run = RunFolder(study.runs_folder / trained.run)
    learned = learned_by(run)
    assert learned is not None, "a training of this version notes its reviews"
    images = to_predict(study, run)
    predicted, failed = 0, []
    if images:
        found = steps.predict(
            study,
            run.id,
            images=images,
            networks=networks_of(spec),
            device=spec.device,
            threads=threads,
            on_event=on_event,
        )
        predicted, failed = found.images, found.failed
    return AgainResult(
        run.id,
        spec.warm_start,
        learned,
        new,
        trained.seconds,
        trained.iterations,
        trained.device,
        predicted,
        failed,
    )
