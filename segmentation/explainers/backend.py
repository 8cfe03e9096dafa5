"""What the engine and the backends agree upon: a question about one image, an answer, and who gives it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from gaze_capture.errors import UserError
from segmentation.explanation import Cost, in_words
from segmentation.explanation_presets import Preset
from segmentation.questions import Question
from segmentation.reply import plain_text


@dataclass(frozen=True)
class Answer:
    """What a backend said."""

    attributes: dict[str, Any]
    """By the schema of the question's preset."""
    text: str
    """The attributes in words, with where they come from."""
    raw_reply: str
    numbers: dict[str, float | None] | None = None
    """What was measured of the region, where the backend did so; else the engine measures."""
    picture_sha256: str = ""
    cost: Cost = field(default_factory=Cost)
    model: str = ""
    """Who said it, where that differs from image to image; else the backend's model did."""


@dataclass(frozen=True)
class Doing:
    """Answers are still awaited, because of something else than the question."""

    doing: str
    """What is being done, such as ``loading the model``."""


@dataclass(frozen=True)
class Answered:
    """A question with its answer, or with the reason there is none."""

    question: Question
    result: Answer | UserError
    cost: Cost = field(default_factory=Cost)
    """What it took, also where no answer came."""


def with_source(
    backend: str, model: str, attributes: dict[str, Any], preset: Preset, edited_by: str = ""
) -> str:
    """Write attributes as a sentence for people that begins with where they come from."""
    source = (
        "Measured from the gazed region" if backend == "measured" else f"Described by {plain_text(model, 80)}"
    )
    if edited_by:
        source += f", edited by {plain_text(edited_by, 80)}"
    return f"{source}: {in_words(attributes, preset)}"


class Backend(Protocol):
    """A source of explanations; use as a context manager."""

    name: str
    model: str

    @property
    def requests(self) -> int:
        """Requests sent to a server so far."""

    def prompt(self, question: Question) -> str:
        """Return the words that the question will be asked with; empty where none are."""

    def answers(self, questions: Iterator[Question]) -> Iterator[Answered | Doing | None]:
        """Answer questions in any order, drawing them as they are needed, and never more than are being worked on.

        None or Doing says, several times a second, that answers are still awaited: the caller may then close the
        generator, which abandons at once whatever is on its way.

        Raises
        ------
        UserError
            If no question can be answered, such as by a model that cannot be loaded.
        """

    def __enter__(self) -> Backend: ...

    def __exit__(self, *_: object) -> None: ...
