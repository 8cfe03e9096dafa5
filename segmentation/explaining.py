"""Explaining the images of a study: which are due, what a backend is told, what is kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Protocol

import numpy as np

from gaze_capture.errors import UserError
from segmentation import measured
from segmentation.explanation import (
    ABSENT,
    Explanation,
    in_words,
    load_explanation,
    save_explanation,
    schema,
    vocabulary,
)
from segmentation.measured import describe, grid_word, measure_region, measured_text, saying
from segmentation.pseudomask import PseudoMask
from segmentation.records import StudyImage, Target, utc_now
from segmentation.reply import check_attributes, plain_text
from segmentation.study import Study
from segmentation.vlm_server import ChatServer, ServerError, ServerLimits, encode_picture

BACKENDS = ("measured", "openai")
GIVE_UP_AFTER = 3
"""Images in a row that failed because of the server itself; the rest is then not asked for."""

Progress = Callable[[int, int, str], None]


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
    """Explained before, by the same backend from the same pseudo-mask."""
    waiting: int = 0
    """Images with neither a pseudo-mask nor the word that the target is absent."""


@dataclass(frozen=True)
class Question:
    """What a backend is asked about."""

    study: Study
    image: StudyImage
    target: Target
    pseudomask: PseudoMask

    @property
    def region(self) -> measured.Mask:
        """(H, W) the broad level."""
        region: measured.Mask = self.pseudomask.level_map >= 1
        return region

    def pixels(self) -> measured.Image:
        """Read the image (H, W, C) in 0..1.

        Raises
        ------
        UserError
            If it cannot be read or its size is not the pseudo-mask's.
        """
        pixels = self.study.guide(self.image)
        if pixels.shape[:2] != self.region.shape:
            raise UserError(
                f"{self.study.image_path(self.image)} and its pseudo-mask differ in size; make the pseudo-masks again."
            )
        return pixels


@dataclass(frozen=True)
class Answer:
    """What a backend said."""

    attributes: dict[str, object]
    text: str
    raw_reply: str


class Backend(Protocol):
    """A source of explanations."""

    name: str
    model: str

    @property
    def requests(self) -> int:
        """Requests sent to a server so far."""

    def prompt(self, question: Question) -> str:
        """Return the words that `answer` will ask with; empty where none are."""

    def answer(self, question: Question, prompt: str) -> Answer:
        """Explain, or raise UserError with the reason."""


class MeasuredBackend:
    """Measures the gazed region; needs no model and no network."""

    name = "measured"
    model = measured.VERSION
    requests = 0

    def prompt(self, question: Question) -> str:
        """Return nothing: nobody is asked."""
        return ""

    def answer(self, question: Question, prompt: str) -> Answer:
        """Measure the broad level."""
        numbers = measure_region(question.pixels(), question.region)
        attributes = describe(numbers)
        return Answer(attributes, measured_text(attributes), json.dumps(numbers))


class ServerBackend:
    """Asks a model behind an OpenAI-compatible server on this machine."""

    name = "openai"

    def __init__(self, server: ChatServer) -> None:
        self._server = server
        self.model = server.find_model()

    @property
    def requests(self) -> int:
        """Requests sent so far."""
        return self._server.requests

    def prompt(self, question: Question) -> str:
        """Return the question in words: what is looked for, where was looked, which words may be used."""
        return build_prompt(question)

    def answer(self, question: Question, prompt: str) -> Answer:
        """Send the picture with the region's contour drawn, and the prompt."""
        reply = self._server.ask(prompt, encode_picture(question.pixels(), question.region))
        text = f"Described by {plain_text(self.model, 80)}: {in_words(reply.attributes)}"
        return Answer(reply.attributes, text, reply.raw)


def build_prompt(question: Question) -> str:
    """Fill the prompt template with the target, the gaze in words and the schema's vocabulary."""
    template = resources.files("resources").joinpath("prompts/generic.md").read_text(encoding="utf-8")
    outline = "A cyan contour in the picture encloses where the gaze dwelt."
    return string.Template(template).substitute(
        modality=plain_text(question.image.modality, 60),
        target=plain_text(question.target.name, 60),
        gaze=gaze_in_words(question.pseudomask),
        outline=outline if question.region.any() else "",
        vocabulary=_vocabulary_in_words(),
    )


def _vocabulary_in_words() -> str:
    lines = []
    for name, rule in schema()["properties"].items():
        words = " | ".join(json.dumps(word) for word in vocabulary(name)) or "a text"
        numeric = "a number from 0 to 100 | " if "anyOf" in rule else ""
        lines.append(f'- "{name}": {numeric}{words}. {rule["description"]}')
    return "\n".join(lines)


def gaze_in_words(pseudomask: PseudoMask, longest: int = 5) -> str:
    """Tell how often, how long and where somebody looked; the longest fixations by place, longest first."""
    count = len(pseudomask.duration_ms)
    if not count:
        return "No fixation fell on it."
    height, width = pseudomask.level_map.shape
    order = np.argsort(-pseudomask.duration_ms, kind="stable")[:longest]
    places = []
    for index in order:
        x, y = (pseudomask.xy_px[index] + 0.5) / (width, height)
        place = f"{grid_word(float(x), float(y))} ({x:.0%} from the left, {y:.0%} from the top)"
        places.append(f"{place} for {pseudomask.duration_ms[index] / 1000:.1f} s")
    total_s = float(pseudomask.duration_ms.sum()) / 1000
    times = "once" if count == 1 else f"{count} times"
    return f"The gaze rested {times}, {total_s:.1f} s in all; longest: {'; '.join(places)}."


def explain_study(
    study: Study,
    *,
    backend: str = "measured",
    base_url: str | None = None,
    model: str | None = None,
    split: str | None = None,
    overwrite: bool = False,
    limits: ServerLimits | None = None,
    progress: Progress | None = None,
) -> ExplainResult:
    """Explain every target of every image that has a pseudo-mask, or of which the annotator said it is absent.

    What the same backend and model already said of the same region is kept, so that a run that was cut off goes
    on where it stopped. An image that fails is named with its reason and the rest goes on.

    Parameters
    ----------
    backend : ``"measured"`` or ``"openai"``
    base_url, model : of the server, for ``"openai"``
    split : only images of this split; None for all
    overwrite : explain again what is explained already
    limits : patience with a server
    progress : told done, total and the image's id

    Raises
    ------
    UserError
        If nothing could be done at all: unknown backend, no pseudo-masks, a server that cannot be asked, a study
        that cannot be written.
    """
    wanted = list(study.iterate_keys(split))
    known, said = study.pseudomask_keys(), study.presences()
    due = [
        (image, target)
        for image, target in wanted
        if (image.id, target.id) in known or said.get((image.id, target.id)) == ABSENT
    ]
    if not due:
        raise UserError(
            f"{study.folder} has no pseudo-masks to explain yet; make them with: gaze-insight pseudomask"
        )
    result = ExplainResult(waiting=len({image.id for image, _ in wanted} - {image.id for image, _ in due}))
    server_failures = 0
    with _open_backend(study, backend, base_url, model, limits) as source:
        for index, (image, target) in enumerate(due):
            if progress is not None:
                progress(index, len(due), image.id)
            try:
                explanation = _explain_one(study, source, image, target, overwrite)
            except UserError as error:
                # A study that is gone ends the work, too.
                study.check_there()
                result.failed.append((image.id, str(error)))
                server_failures = (
                    server_failures + 1 if isinstance(error, ServerError) and error.whole_server else 0
                )
                if server_failures == GIVE_UP_AFTER:
                    result.failed += [(rest.id, f"Not asked: {error}") for rest, _ in due[index + 1 :]]
                    break
                continue
            server_failures = 0
            if explanation is None:
                result.skipped += 1
            else:
                # Not within the try: a full disk ends the work instead of failing every image.
                save_explanation(study, explanation)
                result.done += 1
        result.requests = source.requests
    if progress is not None:
        progress(len(due), len(due), "")
    return result


@contextlib.contextmanager
def _open_backend(
    study: Study, name: str, base_url: str | None, model: str | None, limits: ServerLimits | None
) -> Iterator[Backend]:
    if name == "measured":
        yield MeasuredBackend()
    elif name == "openai":

        def note(server: str, asked_model: str, image_sha256: str | None) -> None:
            study.audit("explanation-request", server=server, model=asked_model, image_sha256=image_sha256)

        with ChatServer(base_url, model, limits or ServerLimits(), note) as server:
            yield ServerBackend(server)
    else:
        raise UserError(f"There is no backend {name!r}; choose one of: {', '.join(BACKENDS)}.")


def _explain_one(
    study: Study, backend: Backend, image: StudyImage, target: Target, overwrite: bool
) -> Explanation | None:
    """Return a new explanation, or None where the stored one still holds."""
    question = region_sha256 = None
    gaze = study.fixations.get((image.id, target.id), [])
    simulated_from = next((item.simulated_from for item in gaze if item.simulated_from), None)
    if study.presence(image.id, target.id) != ABSENT:
        pseudomask = study.pseudomask(image.id, target.id)
        if pseudomask is None:
            raise UserError(f"The pseudo-mask of {image.id} has gone; make the pseudo-masks again.")
        question = Question(study, image, target, pseudomask)
        region_sha256 = _region_sha256(question.region)
        simulated_from = pseudomask.simulated_from
    prompt = "" if question is None else backend.prompt(question)
    if not overwrite:
        with contextlib.suppress(UserError):  # A damaged one is made again.
            stored = load_explanation(study, image.id, target.id)
            asked = (backend.name, backend.model, prompt, region_sha256)
            if stored and (stored.backend, stored.model, stored.prompt, stored.region_sha256) == asked:
                return None
    if question is None:
        # Whoever looked has answered already; a search over a normal image is no region to describe.
        answer = Answer(saying(ABSENT), "The annotator saw no such target in this image.", "")
    else:
        answer = backend.answer(question, prompt)
    if problems := check_attributes(answer.attributes):
        raise UserError(f"{image.id}: the explanation breaks its schema: {problems[0]}.")
    return Explanation(
        image_id=image.id,
        target_id=target.id,
        backend=backend.name,
        model=backend.model,
        prompt=prompt,
        attributes=answer.attributes,
        text=answer.text,
        raw_reply=answer.raw_reply,
        created=utc_now(),
        simulated_from=simulated_from,
        region_sha256=region_sha256,
    )


def _region_sha256(region: measured.Mask) -> str:
    header = f"{region.shape[0]}x{region.shape[1]}:".encode()
    return hashlib.sha256(header + np.packbits(region).tobytes()).hexdigest()
