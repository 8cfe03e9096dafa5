"""The backend that asks a model behind an OpenAI-compatible server."""

from __future__ import annotations

import time
from collections.abc import Iterator

from gaze_capture.errors import UserError
from segmentation.explainers.backend import Answer, Answered
from segmentation.explanation import Cost, in_words
from segmentation.gaze_view import shown
from segmentation.questions import Question, build_prompt
from segmentation.reply import plain_text
from segmentation.vlm_server import ChatServer


class ServerBackend:
    """Asks with the picture and the prompt that the preview shows, and nothing else."""

    name = "openai"

    def __init__(self, server: ChatServer) -> None:
        self._server = server
        self.model = server.find_model()

    def __enter__(self) -> ServerBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    @property
    def requests(self) -> int:
        """Requests sent so far."""
        return self._server.requests

    def prompt(self, question: Question) -> str:
        """Return the question in words: what is looked for, where was looked, which words may be used."""
        return build_prompt(question)

    def answers(self, questions: Iterator[Question]) -> Iterator[Answered | None]:
        """Ask one question after the other."""
        for question in questions:
            try:
                yield Answered(question, self._ask(question))
            except UserError as error:
                yield Answered(question, error)

    def _ask(self, question: Question) -> Answer:
        begun, before = time.monotonic(), self._server.requests
        seen = shown(question)
        reply = self._server.ask(seen.prompt, seen.picture_png, question.preset)
        text = f"Described by {plain_text(self.model, 80)}: {in_words(reply.attributes, question.preset)}"
        cost = Cost(time.monotonic() - begun, self._server.requests - before)
        return Answer(
            reply.attributes,
            text,
            reply.raw,
            picture_sha256=seen.picture_sha256,
            cost=cost,
        )
