"""The backend that asks a model behind an OpenAI-compatible server, about several images at once."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterator
from concurrent.futures import Future

from gaze_capture.errors import UserError
from segmentation.explainers.backend import Answer, Answered
from segmentation.explanation import Cost, in_words
from segmentation.gaze_view import Shown, shown
from segmentation.questions import Question
from segmentation.reply import plain_text
from segmentation.server_connection import POLL_S, ServerError, Waiting
from segmentation.vlm_server import ChatServer, Spent

MOST_AT_ONCE = 16


class ServerBackend:
    """Asks with the picture and the prompt that the preview shows, and nothing else.

    Parameters
    ----------
    server : closed with the backend
    concurrency : questions asked at once, 1..16
    waiting : called about ten times a second while the server is asked for its model; what it raises abandons that

    Raises
    ------
    UserError
        If the concurrency makes no sense, or the server does not say which model to ask.
    """

    name = "openai"

    def __init__(self, server: ChatServer, concurrency: int = 2, waiting: Waiting = lambda: None) -> None:
        if not 1 <= concurrency <= MOST_AT_ONCE:
            raise UserError(f"A server is asked 1 to {MOST_AT_ONCE} questions at once, not {concurrency}.")
        self._server = server
        self._concurrency = concurrency
        self.model = server.find_model(waiting)

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
        return question.prompt

    def answers(self, questions: Iterator[Question]) -> Iterator[Answered | None]:
        """Ask up to `concurrency` questions at once; answers come in the order in which they arrive."""
        asked: dict[Future[Answered], Question] = {}
        more = True
        try:
            while more or asked:
                while more and len(asked) < self._concurrency:
                    question = next(questions, None)
                    if question is None:
                        more = False
                        break
                    try:
                        seen = shown(question)
                    except UserError as error:
                        yield Answered(question, error)
                        continue
                    asked[self._server.connection.submit(self._ask(question, seen))] = question
                arrived, _ = concurrent.futures.wait(asked, POLL_S, concurrent.futures.FIRST_COMPLETED)
                if asked and not arrived:
                    yield None
                for future in arrived:
                    del asked[future]
                    yield future.result()
        finally:
            for future in asked:
                future.cancel()

    async def _ask(self, question: Question, seen: Shown) -> Answered:
        begun, spent = time.monotonic(), Spent()
        try:
            reply = await self._server.asking(seen.prompt, seen.picture_png, question.preset, spent)
        except ServerError as error:
            return Answered(question, error, _cost(begun, spent))
        text = f"Described by {plain_text(self.model, 80)}: {in_words(reply.attributes, question.preset)}"
        cost = _cost(begun, spent)
        return Answered(
            question,
            Answer(reply.attributes, text, reply.raw, picture_sha256=seen.picture_sha256, cost=cost),
            cost,
        )


def _cost(begun: float, spent: Spent) -> Cost:
    seconds = time.monotonic() - begun
    return Cost(seconds, spent.requests, spent.prompt_tokens, spent.completion_tokens)
