"""Whether simulated gaze is behind what a run learned from, by whatever way it came in. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gaze_capture.errors import UserError
from segmentation.job import RunSpec
from segmentation.learned_reviews import learned_by, mark_of, teaching
from segmentation.review_index import Review
from segmentation.runs import RunFolder
from segmentation.study import Study


def simulated_behind(study: Study, run_id: str) -> str | None:
    """Return what gaze behind a run's labels was simulated from, ``masks`` or ``saliency``; None where none was.

    The method `supervised` learns from true masks, but where there is none from reviewed ones, which began as a
    pseudo-mask or as what another run predicted, and it may begin with another run's networks. Of a run that is gone
    nobody can tell, and any simulated gaze of the study counts.
    """
    simulated = study.simulated_from()
    return simulated if simulated is not None and _knows_gaze(study, run_id, set()) else None


def simulated_ahead(study: Study, spec: RunSpec) -> str | None:
    """Return the same of a run by a spec that began now."""
    simulated = study.simulated_from()
    if simulated is None or not _gaze_in(study, spec, teaching(study, spec).values(), set()):
        return None
    return simulated


def gaze_words(method: str, simulated_from: str | None) -> str:
    """Return where the gaze behind a run's labels came from, in words."""
    if simulated_from:
        return f"simulated from {simulated_from}"
    # A file that was imported may not say whether a person looked.
    return "none, learned from true masks" if method == "supervised" else "recorded or imported"


def _knows_gaze(study: Study, run_id: str, asked: set[str]) -> bool:
    if run_id in asked:
        return False
    asked.add(run_id)
    run = RunFolder(study.runs_folder / run_id)
    try:
        return _gaze_in(study, run.spec, _learned(study, run, run.spec), asked)
    except UserError:
        return True


def _gaze_in(study: Study, spec: RunSpec, learned: Iterable[Review], asked: set[str]) -> bool:
    return (
        spec.method != "supervised"
        or bool(spec.warm_start and _knows_gaze(study, spec.warm_start, asked))
        or any(_began_with_gaze(study, review, asked) for review in learned)
    )


def _learned(study: Study, run: RunFolder, spec: RunSpec) -> Iterator[Review]:
    learned = learned_by(run)
    if learned is None:
        yield from teaching(study, spec).values()
        return
    for reviews in study.all_reviews().values():
        yield from (review for review in reviews if mark_of(study, review) in learned.marks)


def _began_with_gaze(study: Study, review: Review, asked: set[str]) -> bool:
    if review.started_from == "empty" or review.presence == "absent":
        return False
    # A consensus names its reviews, each of which may have begun with gaze.
    if review.subject == "pseudomask" or review.purpose == "consensus":
        return True
    return _knows_gaze(study, review.subject, asked)
