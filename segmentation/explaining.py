"""Explaining the images of a study: which are due, what is kept, what is asked for, what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from gaze_capture.errors import UserError
from segmentation.explainers.backend import Answer, Answered, Backend, Doing
from segmentation.explainers.by_annotator import AnnotatorBackend
from segmentation.explainers.opening import BackendOptions, open_backend
from segmentation.explanation import (
    Explanation,
    choose_explanation,
    load_explanation,
    load_history,
    save_explanation,
)
from segmentation.explanation_presets import ABSENT, Preset
from segmentation.explanation_settings import ExplanationSettings, conditions_of, load_settings, preset_for
from segmentation.measured import VERSION, measure_region
from segmentation.own_words_store import keep_words
from segmentation.progress import Progress, no_progress
from segmentation.questions import Question
from segmentation.records import StudyImage, Target, utc_now
from segmentation.reply import NoAnswer, check_attributes, plain_text
from segmentation.study import Study

GIVE_UP_AFTER = 3
"""Failures in a row because of the server or the model itself; the rest is then not asked for. Each but the first is
of an image that was begun after the one before had failed: several on their way at once tell no more than one."""


@dataclass
class ExplainResult:
    """What came of explaining a study."""

    done: int = 0
    """Explanations made now."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Image id and reason, in the study's order."""
    requests: int = 0
    """Requests sent to a server."""
    skipped: int = 0
    """Explained before, by the same backend from the same gaze."""
    reused: int = 0
    """Asked before in the very same way: the answer was taken from the history."""
    kept: int = 0
    """Somebody's own words, or edited or approved by somebody, and left alone."""
    waiting: int = 0
    """Images with neither a pseudo-mask nor the word that the target is absent."""
    seconds: float = 0.0
    """Added up over the answers, also those that came to nothing; several may have been awaited at once."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    money: float | None = None
    """Estimated from the tokens and the price that was given; None without a price."""

    def reckon(self, price_per_million: tuple[float, float] | None) -> None:
        """Estimate the money from the tokens so far; see `BackendOptions.price_per_million`."""
        if price_per_million is not None:
            tokens = (self.prompt_tokens, self.completion_tokens)
            self.money = sum(
                count * price / 1e6 for count, price in zip(tokens, price_per_million, strict=True)
            )

    def spent_in_words(self) -> str:
        """Say what the work took of a server; empty where none was asked."""
        if not self.requests:
            return ""
        words = f"{self.requests} request{'s' * (self.requests != 1)}, {self.seconds:.0f} s"
        if self.prompt_tokens or self.completion_tokens:
            words += f", {self.prompt_tokens} + {self.completion_tokens} tokens"
        return words if self.money is None else f"{words}, about {self.money:.2f} by the price given"


Due = tuple[StudyImage, Target]


def explain_study(
    study: Study,
    options: BackendOptions | None = None,
    *,
    split: str | None = None,
    image_ids: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
    result: ExplainResult | None = None,
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
    result : counted into while the work goes on, so that another thread sees how far it is; default: a new one

    Raises
    ------
    UserError
        If nothing could be done at all: unknown backend, no pseudo-masks, a server that cannot be asked, a study
        that cannot be written.
    """
    options = options or BackendOptions()
    unknown = [image_id for image_id in image_ids or () if image_id not in study.images]
    if unknown:
        raise UserError(f"{study.folder} has no image {plain_text(unknown[0], 80)!r}.")
    due, waiting = due_for_explaining(study, split, image_ids)
    if not due:
        raise UserError(
            f"{study.folder} has no pseudo-masks to explain yet; make them with: gaze-insight pseudomask"
        )
    result = result or ExplainResult()
    result.waiting = waiting
    questions = Questions(study)
    with open_backend(study, options, lambda: progress(0, len(due), "")) as backend:
        batch = _Batch(questions, backend, due, overwrite, result, progress)
        with contextlib.closing(batch.answers()) as answers:
            for answered in answers:
                doing = answered.doing if isinstance(answered, Doing) else batch.at
                progress(batch.settled, len(due), doing)
                broken = batch.settle(answered) if isinstance(answered, Answered) else None
                result.requests = backend.requests
                result.reckon(options.price_per_million)
                if broken is not None:
                    batch.give_up(broken)
                    break
        result.requests = backend.requests
    order = {image.id: number for number, (image, _) in enumerate(due)}
    result.failed.sort(key=lambda one: order[one[0]])
    result.reckon(options.price_per_million)
    progress(len(due), len(due), result.spent_in_words())
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


class Questions:
    """What any backend is asked about the images of a study, by its settings and presets as they are now.

    Raises
    ------
    UserError
        If the study's settings are damaged.
    """

    def __init__(self, study: Study, settings: ExplanationSettings | None = None) -> None:
        self.study = study
        self.settings = load_settings(study) if settings is None else settings
        self._presets: dict[tuple[str, ...], Preset] = {}

    def preset_of(self, image: StudyImage) -> Preset:
        """Return the preset with the attributes that can be asked of an image.

        Raises
        ------
        UserError
            If it has gone or is damaged.
        """
        conditions = conditions_of(image, self.settings)
        if conditions not in self._presets:
            self._presets[conditions] = preset_for(self.study, image, self.settings)
        return self._presets[conditions]

    def about(self, image: StudyImage, target: Target) -> Question:
        """Return what any backend is asked about a target in an image.

        Raises
        ------
        UserError
            If it has no pseudo-mask, or the preset is damaged.
        """
        pseudomask = self.study.pseudomask(image.id, target.id)
        if pseudomask is None:
            raise UserError(f"The pseudo-mask of {image.id} has gone; make the pseudo-masks again.")
        conditions = conditions_of(image, self.settings)
        return Question(
            self.study, image, target, pseudomask, self.preset_of(image), self.settings.view, conditions
        )


def question_about(
    study: Study, image: StudyImage, target: Target, settings: ExplanationSettings | None = None
) -> Question:
    """Return what any backend is asked about a target in an image; `settings` in place of the study's own.

    Raises
    ------
    UserError
        If it has no pseudo-mask, or the study's preset or settings are damaged.
    """
    return Questions(study, settings).about(image, target)


def explanation_from(backend: Backend, question: Question, answer: Answer) -> Explanation:
    """Make the record of an answer, with what is measured of the gazed region beside it.

    Raises
    ------
    UserError
        If the image cannot be read.
    """
    numbers = answer.numbers
    if numbers is None:
        numbers = measure_region(question.pixels(), question.region)
    return Explanation(
        image_id=question.image.id,
        target_id=question.target.id,
        backend=backend.name,
        model=answer.model or backend.model,
        prompt=backend.prompt(question),
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
        measured_by=VERSION,
        asked_sha256=_asked(backend, question),
        picture_sha256=answer.picture_sha256,
        cost=answer.cost,
    )


def _asked(backend: Backend, question: Question) -> str:
    return question.asked_sha256(backend.name, backend.model, backend.prompt(question))


def explain_in_own_words(
    study: Study, image_id: str, target_id: str, annotator: str, words: str, voice_note: str = ""
) -> Explanation | None:
    """Keep what an annotator said of a target in an image, and let it be the explanation that counts.

    Parameters
    ----------
    voice_note : ``<recording>/<file>`` of the voice note that was written down; nothing where the words were typed

    Returns
    -------
    the explanation, or None where there is no pseudo-mask yet: the words are kept, and read by the backend
    ``annotator`` once there is one

    Raises
    ------
    UserError
        If something of what is said cannot be, or the study cannot be read or written.
    """
    image, target = study.image(image_id), study.target(target_id)
    keep_words(study, image_id, target_id, annotator, words, voice_note)
    if (image_id, target_id) not in study.pseudomask_keys():
        return None
    question = question_about(study, image, target)
    backend = AnnotatorBackend(annotator.strip())
    answered = next(iter(backend.answers(iter([question]))))
    assert isinstance(answered, Answered)
    if isinstance(answered.result, UserError):
        raise answered.result
    explanation = explanation_from(backend, question, answered.result)
    save_explanation(study, explanation)
    return explanation


class _Batch:
    """The images of one call on their way."""

    def __init__(
        self,
        questions: Questions,
        backend: Backend,
        due: Sequence[Due],
        overwrite: bool,
        result: ExplainResult,
        progress: Progress,
    ) -> None:
        self.questions = questions
        self.study = questions.study
        self.backend = backend
        self.due = due
        self.overwrite = overwrite
        self.result = result
        self.progress = progress
        self.at = ""
        """The image that was begun last."""
        self._open = {(image.id, target.id) for image, target in due}
        self._asked: dict[tuple[str, str], int] = {}
        self._drawn = 0
        self._broken = 0
        self._drawn_when_broken = 0

    @property
    def settled(self) -> int:
        """How many need no further work."""
        return len(self.due) - len(self._open)

    def answers(self) -> Generator[Answered | Doing | None, None, None]:
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
        # Words that were added since are read again.
        reread = stored is not None and not stored.touched and stored.backend == self.backend.name
        if stored is not None and stored.by_people and not reread and not self.overwrite:
            self.result.kept += 1
            return None
        if self.study.presence(image.id, target.id) == ABSENT:
            self._say_absent(image, target, stored)
            return None
        question = self.questions.about(image, target)
        if not self.overwrite:
            asked = _asked(self.backend, question)
            if stored is not None and stored.asked_sha256 == asked:
                self.result.skipped += 1
                return None
            for earlier in reversed(load_history(self.study, image.id, target.id)):
                if earlier.asked_sha256 == asked and not earlier.touched:
                    choose_explanation(self.study, earlier)
                    self.result.reused += 1
                    return None
        self._drawn += 1
        self._asked[image.id, target.id] = self._drawn
        return question

    def _say_absent(self, image: StudyImage, target: Target, stored: Explanation | None) -> None:
        """Store that there is no target: whoever looked has answered already."""
        if stored is not None and stored.region_sha256 is None and not self.overwrite:
            self.result.skipped += 1
            return
        preset = self.questions.preset_of(image)
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
            conditions=conditions_of(image, self.questions.settings),
        )
        save_explanation(self.study, explanation)
        self.result.done += 1

    def settle(self, answered: Answered) -> NoAnswer | None:
        """Store an answer or note the failure; return the error where nobody is worth asking any more."""
        question, answer = answered.question, answered.result
        key = question.image.id, question.target.id
        asked = self._asked.pop(key)
        cost = answer.cost if isinstance(answer, Answer) else answered.cost
        self.result.seconds += cost.seconds
        self.result.prompt_tokens += cost.prompt_tokens
        self.result.completion_tokens += cost.completion_tokens
        if isinstance(answer, Answer) and (problems := check_attributes(answer.attributes, question.preset)):
            answer = UserError(f"The explanation breaks its schema: {problems[0]}.")
        if isinstance(answer, UserError):
            self.study.check_there()
            self._fail(question.image, question.target, str(answer))
            if not (isinstance(answer, NoAnswer) and answer.everywhere):
                self._broken = 0
            elif asked > self._drawn_when_broken:
                self._broken += 1
                self._drawn_when_broken = self._drawn
                return answer if self._broken == GIVE_UP_AFTER else None
            return None
        # A full disk ends the work instead of failing every image.
        save_explanation(self.study, explanation_from(self.backend, question, answer))
        self._open.discard(key)
        self._broken = 0
        self.result.done += 1
        return None

    def _fail(self, image: StudyImage, target: Target, reason: str) -> None:
        self._open.discard((image.id, target.id))
        self.result.failed.append((image.id, reason))

    def give_up(self, error: NoAnswer) -> None:
        """Name what is not asked any more."""
        for image, target in self.due:
            if (image.id, target.id) in self._open:
                self._fail(image, target, f"Not asked: {error}")
