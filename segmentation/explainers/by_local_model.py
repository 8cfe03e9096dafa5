"""The backend that asks a model from a local folder, which a worker process runs."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import queue
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from segmentation.explainers.backend import Answer, Answered, Doing, with_source
from segmentation.explanation import Cost
from segmentation.gaze_view import encode_view
from segmentation.job import JobEvent
from segmentation.questions import Question
from segmentation.reply import NoAnswer, beyond_repair, read_reply, repair_turns
from segmentation.study import Study
from segmentation.vlm_folder import check_model_folder, is_hub_id, model_name
from segmentation.workers import read_events, start_worker

AHEAD = 2
"""Questions given to the worker: the one it works on, and the next."""
_TICK_S = 0.1

GONE = (
    "The model's process ended without a word: it was killed, most often for want of memory; choose a smaller model, "
    "another --dtype or another --device."
)


@dataclass
class _Asked:
    """A question on its way."""

    question: Question
    picture: bytes
    turns: list[str]
    requests: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class LocalModelBackend:
    """Asks a vision-language model on this machine; the worker sees the picture and the prompt, and nothing else.

    Raises
    ------
    UserError
        If the folder cannot hold a usable model, or a model's name is given and may not be downloaded.
    """

    name = "transformers"

    def __init__(
        self,
        study: Study,
        model: str | None,
        device: str = "auto",
        dtype: str = "auto",
        *,
        allow_download: bool = False,
    ) -> None:
        if not model:
            raise UserError(
                "The transformers backend needs a model: --model FOLDER, a vision-language model's folder."
            )
        self._study = study
        self._hub_id = model if is_hub_id(model) else None
        self._job = {"task": "describe", "device": device, "dtype": dtype, "allow_download": allow_download}
        self.requests = 0
        """Answers generated so far, repairs included."""
        self.model = model
        """The folder's name and a hash of its content; a model of the hub has its hash once its folder is known."""
        if self._hub_id is None:
            folder = Path(model).expanduser().resolve()
            check_model_folder(folder)
            self.model = model_name(folder)
            self._job["model"] = str(folder)
        else:
            self._job["model"] = self._hub_id

    def __enter__(self) -> LocalModelBackend:
        return self

    def __exit__(self, *_: object) -> None: ...

    def prompt(self, question: Question) -> str:
        """Return the question in words: what is looked for, where was looked, which words may be used."""
        return question.prompt

    def answers(self, questions: Iterator[Question]) -> Iterator[Answered | Doing | None]:
        """Ask one question after the other; a worker that dies costs the question it worked on.

        Raises
        ------
        UserError
            If the model cannot be loaded.
        """
        waiting: deque[_Asked] = deque()
        worker: _Worker | None = None
        begun_before = exhausted = False
        try:
            if self._hub_id is not None and self.model == self._hub_id:
                worker = self._start()
                yield from self._find(worker)
            while True:
                while not exhausted and len(waiting) < AHEAD:
                    question = next(questions, None)
                    if question is None:
                        exhausted = True
                        break
                    try:
                        asked = _Asked(question, encode_view(question), [question.prompt])
                    except UserError as error:
                        yield Answered(question, error)
                        continue
                    waiting.append(asked)
                    if worker is not None:
                        self._send(worker, asked)
                if not waiting:
                    return
                if worker is None:
                    worker = self._start()
                    for asked in waiting:
                        self._send(worker, asked)
                event = worker.next_event(_TICK_S)
                if event is None:
                    yield None if worker.begun else Doing(worker.doing)
                elif event.kind == "answer":
                    asked = waiting.popleft()
                    result = self._take(asked, event.values)
                    if result is None:
                        waiting.append(asked)
                        self._send(worker, asked)
                    else:
                        yield Answered(asked.question, result)
                elif event.kind == "started":
                    begun_before = True
                elif event.kind in ("failed", "stopped"):
                    reason = GONE if event.values.get("interrupted") else str(event.values.get("message"))
                    worker.close()
                    worker = None
                    if not begun_before:
                        raise UserError(reason)
                    # The others are asked again of a new worker: one picture may have been too large.
                    yield Answered(waiting.popleft().question, NoAnswer(reason, everywhere=True))
                else:
                    yield Doing(worker.doing)
        finally:
            if worker is not None:
                worker.close()

    def _start(self) -> _Worker:
        # A window, or whatever else the person does, keeps a core.
        return _Worker(self._study, {**self._job, "threads": max(1, (os.cpu_count() or 2) - 1)})

    def _find(self, worker: _Worker) -> Iterator[Doing]:
        """Wait until the folder of a model of the hub is known: only then it is known what was asked before."""
        if self._job["allow_download"]:
            self._study.audit("model-download", model=self._hub_id)
        while True:
            event = worker.next_event(_TICK_S)
            if event is not None and event.kind == "failed":
                raise UserError(GONE if event.values.get("interrupted") else str(event.values.get("message")))
            if event is not None and "folder" in event.values:
                self.model = f"{self._hub_id}-{model_name(Path(event.values['folder'])).rpartition('-')[2]}"
                return
            yield Doing(worker.doing)

    def _send(self, worker: _Worker, asked: _Asked) -> None:
        self.requests += 1
        asked.requests += 1
        picture = base64.b64encode(asked.picture).decode("ascii")
        worker.send({"id": self.requests, "picture": picture, "turns": asked.turns})

    def _take(self, asked: _Asked, said: dict[str, Any]) -> Answer | UserError | None:
        """Return what came of an answer, or None where it has to be repaired."""
        asked.seconds += float(said["seconds"])
        if "problem" in said:
            return NoAnswer(str(said["problem"]), everywhere=bool(said["everywhere"]))
        asked.prompt_tokens += int(said["prompt_tokens"])
        asked.completion_tokens += int(said["completion_tokens"])
        text = str(said["text"])
        attributes, problem = read_reply(text, asked.question.preset)
        if attributes is None and len(asked.turns) == 1:
            asked.turns += repair_turns(text, problem)
            return None
        if attributes is None:
            return NoAnswer(beyond_repair(self.model, problem))
        return Answer(
            attributes,
            with_source(self.name, self.model, attributes, asked.question.preset),
            text,
            picture_sha256=hashlib.sha256(asked.picture).hexdigest(),
            cost=Cost(asked.seconds, asked.requests, asked.prompt_tokens, asked.completion_tokens),
        )


class _Worker:
    """A worker process that loads a model and describes what it is sent; never blocks whoever asks."""

    def __init__(self, study: Study, job: dict[str, Any]) -> None:
        self.doing = "starting the model's process"
        self.begun = False
        """Whether the model is loaded."""
        self._process = start_worker(study.folder, job, detached=False)
        self._events: queue.SimpleQueue[JobEvent] = queue.SimpleQueue()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Pipes are read and written in threads: a worker busy with loading takes nothing for seconds.
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._listen, self._feed)]
        for thread in self._threads:
            thread.start()

    def send(self, item: dict[str, Any]) -> None:
        """Queue an item for the worker."""
        self._lines.put(json.dumps(item).encode() + b"\n")

    def next_event(self, timeout_s: float) -> JobEvent | None:
        """Return the next event, or None if none came in that time."""
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if event.kind == "phase":
            self.doing = str(event.values["name"])
        elif event.kind == "progress" and event.total:
            self.doing = f"{event.values['name']}, {event.step / event.total:.0%}"
        self.begun = self.begun or event.kind == "started"
        return event

    def close(self) -> None:
        """End the process at once: nothing that it does is worth waiting for."""
        self._process.kill()
        self._process.wait()
        self._lines.put(None)
        for thread in self._threads:
            thread.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _listen(self) -> None:
        for event in read_events(self._process):
            self._events.put(event)

    def _feed(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            while (line := self._lines.get()) is not None:
                self._process.stdin.write(line)
                self._process.stdin.flush()
