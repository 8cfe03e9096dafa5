"""The backend that needs neither a model nor a network: it measures the gazed region."""

from __future__ import annotations

import json
from collections.abc import Iterator

from gaze_capture.errors import UserError
from segmentation import measured
from segmentation.explainers.backend import Answer, Answered
from segmentation.measured import describe, measure_region, measured_text
from segmentation.questions import Question


class MeasuredBackend:
    """Measures the broad level."""

    name = "measured"
    model = measured.VERSION
    requests = 0

    def __enter__(self) -> MeasuredBackend:
        return self

    def __exit__(self, *_: object) -> None: ...

    def prompt(self, question: Question) -> str:
        """Return nothing: nobody is asked."""
        return ""

    def answers(self, questions: Iterator[Question]) -> Iterator[Answered | None]:
        """Measure one image after the other."""
        for question in questions:
            try:
                yield Answered(question, _measure(question))
            except UserError as error:
                yield Answered(question, error)


def _measure(question: Question) -> Answer:
    numbers = measure_region(question.pixels(), question.region)
    attributes = describe(numbers, question.preset)
    return Answer(attributes, measured_text(attributes, question.preset), json.dumps(numbers), numbers)
