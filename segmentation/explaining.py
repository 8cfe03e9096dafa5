"""Explaining the images of a study: which are due, what is kept, what is asked for, what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from gaze_capture.errors import UserError
from segmentation.explainers.backend import Answer, Answered, Backend, Waiting
from segmentation.explainers.opening import BackendOptions, open_backend
from segmentation.explanation import (
    Explanation,
    choose_explanation,
    load_explanation,
    load_history,
    save_explanation,
)
from segmentation.explanation_presets import ABSENT
from segmentation.explanation_settings import conditions_of, load_settings, preset_for
from segmentation.measured import measure_region
from segmentation.progress import Progress, no_progress
from segmentation.questions import Question
from segmentation.records import StudyImage, Target, utc_now
from segmentation.reply import check_attributes
from segmentation.study import Study
from segmentation.vlm_server import ServerError

GIVE_UP_AFTER = 3
"""Images in a row that failed because of the server itself; the rest is then not asked for."""


@dataclass
class ExplainResult:
    """What came of explaining a study."""

    done: int = 0
    """Explanations made now."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Image id and reason."""
    requests: int = 0
    """Requests sent to a server."""
    skipped: int = 0
    """Explained before, by the same backend from the same gaze."""
    reused: int = 0
    """Asked before in the very same way: the answer was taken from the history."""
    kept: int = 0
    """Edited or approved by somebody, and left alone."""
    waiting: int = 0
    """Images with neither a pseudo-mask nor the word that the target is absent."""
    seconds: float = 0.0
    """Added up over the answers; several may have been awaited at once."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


Due = tuple[StudyImage, Target]


def explain_study(
    study: Study,
    options: BackendOptions | None = None,
    *,
    split: str | None = None,
    image_ids: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> ExplainResult:
    """Explain every target of every image that has a pseudo-mask, or of which the annotator said it is absent.

    What the same backend and model already said of the same question is kept, so that a run that was cut off goes
    on where it stopped; so is what somebody edited or approved. An image that fails is named with its reason and the
    rest goes on.

    Parameters
    ----------
    options : which backend; default: measured
    split : only images of this split; None for all
    image_ids : only these images; None for all
    overwrite : ask again, also what was asked, edited or approved before; the history keeps it
    progress : told done, total and the image's id, several times a second while answers are awaited; what it raises
        abandons the work at once, and all that was answered is kept

    Raises
    ------
    UserError
        If nothing could be done at all: unknown backend, no pseudo-masks, a server that cannot be asked, a study
        that cannot be written.
    """
    due, waiting = due_for_explaining(study, split, image_ids)
    if not due:
        raise UserError(
            f"{study.folder} has no pseudo-masks to explain yet; make them with: gaze-insight pseudomask"
        )
    result = ExplainResult(waiting=waiting)
    with open_backend(study, options or BackendOptions()) as backend:
        batch = _Batch(study, backend, due, overwrite, result, progress)
        failures_in_a_row = 0
        with contextlib.closing(batch.answers()) as answers:
            for answered in answers:
                doing = answered.doing if isinstance(answered, Waiting) else batch.at
                progress(batch.settled, len(due), doing)
                if not isinstance(answered, Answered):
                    continue
                broken = batch.settle(answered)
                failures_in_a_row = failures_in_a_row + 1 if broken else 0
                if broken and failures_in_a_row == GIVE_UP_AFTER:
                    batch.give_up(broken)
                    break
        result.requests = backend.requests
    progress(len(due), len(due), "")
    return result


def due_for_explaining(
    study: Study, split: str | None = None, image_ids: Sequence[str] | None = None
) -> tuple[list[Due], int]:
    """Return what can be explained, and how many images have nothing to explain yet."""
    chosen = None if image_ids is None else set(image_ids)
    wanted = [key for key in study.iterate_keys(split) if chosen is None or key[0].id in chosen]
    known, said = study.pseudomask_keys(), study.presences()
    due = [
        (image, target)
        for image, target in wanted
        if (image.id, target.id) in known or said.get((image.id, target.id)) == ABSENT
    ]
    return due, len({image.id for image, _ in wanted} - {image.id for image, _ in due})


def question_about(study: Study, image: StudyImage, target: Target) -> Question:
    """Return what any backend is asked about a target in an image.

    Raises
    ------
    UserError
        If it has no pseudo-mask, or the study's preset or settings are damaged.
    """
    settings = load_settings(study)
    pseudomask = study.pseudomask(image.id, target.id)
    if pseudomask is None:
        raise UserError(f"The pseudo-mask of {image.id} has gone; make the pseudo-masks again.")
    preset = preset_for(study, image, settings)
    return Question(study, image, target, pseudomask, preset, settings.view, conditions_of(image, settings))


class _Batch:
    """The images of one call on their way."""

    def __init__(
        self,
        study: Study,
        backend: Backend,
        due: Sequence[Due],
        overwrite: bool,
        result: ExplainResult,
        progress: Progress,
    ) -> None:
        self.study = study
        self.backend = backend
        self.due = due
        self.overwrite = overwrite
        self.result = result
        self.progress = progress
        self.at = ""
        """The image that was begun last."""
        self._open = {(image.id, target.id) for image, target in due}

    @property
    def settled(self) -> int:
        """How many need no further work."""
        return len(self.due) - len(self._open)

    def answers(self) -> Generator[Answered | Waiting | None, None, None]:
        """Ask whatever has to be asked, and let the caller breathe where nothing has."""
        yield from self.backend.answers(self._questions())

    def _questions(self) -> Iterator[Question]:
        for image, target in self.due:
            self.at = image.id
            try:
                question = self._to_ask(image, target)
            except UserError as error:
                # A study that is gone ends the work.
                self.study.check_there()
                self._fail(image, target, str(error))
                continue
            if question is None:
                self._open.discard((image.id, target.id))
                self.progress(self.settled, len(self.due), image.id)
            else:
                yield question

    def _to_ask(self, image: StudyImage, target: Target) -> Question | None:
        """Return the question, or None where an answer is at hand."""
        stored = None
        with contextlib.suppress(UserError):  # A damaged one is made again.
            stored = load_explanation(self.study, image.id, target.id)
        if stored is not None and stored.touched and not self.overwrite:
            self.result.kept += 1
            return None
        if self.study.presence(image.id, target.id) == ABSENT:
            self._say_absent(image, target, stored)
            return None
        question = question_about(self.study, image, target)
        if self.overwrite:
            return question
        asked = self._asked(question)
        if stored is not None and stored.asked_sha256 == asked:
            self.result.skipped += 1
            return None
        for earlier in reversed(load_history(self.study, image.id, target.id)):
            if earlier.asked_sha256 == asked and not earlier.touched:
                choose_explanation(self.study, earlier)
                self.result.reused += 1
                return None
        return question

    def _asked(self, question: Question) -> str:
        prompt = self.backend.prompt(question)
        return question.asked_sha256(self.backend.name, self.backend.model, prompt)

    def _say_absent(self, image: StudyImage, target: Target, stored: Explanation | None) -> None:
        """Store that there is no target: whoever looked has answered already."""
        if stored is not None and stored.region_sha256 is None and not self.overwrite:
            self.result.skipped += 1
            return
        settings = load_settings(self.study)
        preset = preset_for(self.study, image, settings)
        gaze = self.study.fixations.get((image.id, target.id), [])
        explanation = Explanation(
            image_id=image.id,
            target_id=target.id,
            backend=self.backend.name,
            model=self.backend.model,
            prompt="",
            attributes=preset.saying(ABSENT),
            text="The annotator saw no such target in this image.",
            raw_reply="",
            created=utc_now(),
            simulated_from=next((item.simulated_from for item in gaze if item.simulated_from), None),
            preset=preset.id,
            preset_sha256=preset.sha256,
            conditions=conditions_of(image, settings),
        )
        save_explanation(self.study, explanation)
        self.result.done += 1

    def settle(self, answered: Answered) -> ServerError | None:
        """Store an answer or note the failure; return the error where the whole server is to blame."""
        question, answer = answered.question, answered.result
        if isinstance(answer, Answer) and (problems := check_attributes(answer.attributes, question.preset)):
            answer = UserError(f"The explanation breaks its schema: {problems[0]}.")
        if isinstance(answer, UserError):
            self.study.check_there()
            self._fail(question.image, question.target, str(answer))
            return answer if isinstance(answer, ServerError) and answer.whole_server else None
        # A full disk ends the work instead of failing every image.
        save_explanation(self.study, self._explanation(question, answer))
        self._open.discard((question.image.id, question.target.id))
        self.result.done += 1
        self.result.seconds += answer.cost.seconds
        self.result.prompt_tokens += answer.cost.prompt_tokens
        self.result.completion_tokens += answer.cost.completion_tokens
        return None

    def _explanation(self, question: Question, answer: Answer) -> Explanation:
        numbers = answer.numbers
        if numbers is None:
            numbers = measure_region(question.pixels(), question.region)
        return Explanation(
            image_id=question.image.id,
            target_id=question.target.id,
            backend=self.backend.name,
            model=self.backend.model,
            prompt=self.backend.prompt(question),
            attributes=answer.attributes,
            text=answer.text,
            raw_reply=answer.raw_reply,
            created=utc_now(),
            simulated_from=question.pseudomask.simulated_from,
            region_sha256=question.region_sha256,
            preset=question.preset.id,
            preset_sha256=question.preset.sha256,
            conditions=question.conditions,
            numbers=numbers,
            asked_sha256=self._asked(question),
            picture_sha256=answer.picture_sha256,
            cost=answer.cost,
        )

    def _fail(self, image: StudyImage, target: Target, reason: str) -> None:
        self._open.discard((image.id, target.id))
        self.result.failed.append((image.id, reason))

    def give_up(self, error: ServerError) -> None:
        """Name what is not asked any more."""
        for image, target in self.due:
            if (image.id, target.id) in self._open:
                self._fail(image, target, f"Not asked: {error}")
