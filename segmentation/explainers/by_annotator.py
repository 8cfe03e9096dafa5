"""The backend that reads the clinician's own words: typed, or written down from a voice note."""

from __future__ import annotations

from collections.abc import Iterator

from gaze_capture.errors import UserError
from segmentation.explainers.backend import Answer, Answered, with_source
from segmentation.own_words_reading import read_own_words
from segmentation.own_words_store import OwnWords, latest, load_words, why_no_words
from segmentation.questions import Question


class AnnotatorBackend:
    """Reads the words that the study keeps, the latest of each image; no speech is recognised."""

    name = "annotator"
    model = "own words"
    """Of the question alone: every explanation names its annotator."""
    requests = 0

    def __init__(self, annotator: str | None = None) -> None:
        self._annotator = annotator

    def __enter__(self) -> AnnotatorBackend:
        return self

    def __exit__(self, *_: object) -> None: ...

    def prompt(self, question: Question) -> str:
        """Return which of the stored words are read: other words are another question."""
        own = self._words(question)
        return f"Own words {own.id}" if own is not None else ""

    def answers(self, questions: Iterator[Question]) -> Iterator[Answered | None]:
        """Read one image's words after the other."""
        for question in questions:
            try:
                own = self._words(question)
                if own is None:
                    raise why_no_words(question.study, question.image.id, question.target.id)
                yield Answered(question, read_answer(question, own))
            except UserError as error:
                yield Answered(question, error)

    def _words(self, question: Question) -> OwnWords | None:
        return latest(load_words(question.study, question.image.id, question.target.id), self._annotator)


def read_answer(question: Question, own: OwnWords) -> Answer:
    """Read an annotator's words as the answer to a question."""
    attributes = read_own_words(own.words, question.preset, question.target.name)
    # The remarks are the words themselves, so that the sentence ends in what was really said.
    text = with_source(AnnotatorBackend.name, own.annotator, attributes, question.preset)
    return Answer(attributes, text, own.words, model=own.annotator)
