"""A backend on another machine that is handed only what may be sent there."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any, cast

from gaze_capture.errors import UserError
from segmentation.explainers.backend import Answered, Backend
from segmentation.questions import Question
from segmentation.sending import check_may_send


class PermittedBackend:
    """Passes on the questions whose picture and words may leave, and answers the others with the reason they may not.

    Settings can change, and a permission can be withdrawn, while a batch is on its way.
    """

    def __init__(self, backend: Backend, base_url: str | None) -> None:
        self._backend = backend
        self._base_url = base_url
        self.name = backend.name
        self.model = backend.model

    def __enter__(self) -> PermittedBackend:
        self._backend.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._backend.__exit__(*error)

    @property
    def requests(self) -> int:
        """Requests sent so far."""
        return self._backend.requests

    def prompt(self, question: Question) -> str:
        """Return the words that the question will be asked with."""
        return self._backend.prompt(question)

    def answers(self, questions: Iterator[Question]) -> Iterator[Answered | None]:
        """Answer what may be asked; the rest gets its reason."""
        refused: deque[Answered] = deque()

        def allowed() -> Iterator[Question]:
            for question in questions:
                try:
                    check_may_send(question.study, self._base_url, question)
                except UserError as error:
                    refused.append(Answered(question, error))
                else:
                    yield question

        inner = cast("Generator[Answered | None, Any, None]", self._backend.answers(allowed()))
        with contextlib.closing(inner) as answers:
            for answered in answers:
                while refused:
                    yield refused.popleft()
                yield answered
        yield from refused
