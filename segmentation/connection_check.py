"""*Test connection*: what is wrong with a server, or what it can do, found out with a made-up picture."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
import time
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from gaze_capture.errors import UserError
from segmentation.hosts import origin
from segmentation.reply import plain_text
from segmentation.server_connection import OnRequest, ServerError, ServerLimits, Waiting
from segmentation.vlm_server import ChatServer, Rung, Spent, picture_messages, server_url

CHECK_LIMITS = ServerLimits(tries=2, patience_s=10)
"""Somebody is waiting."""
SIDE_PX = 256
_COLOURS_BGR = {"black": (0, 0, 0), "red": (0, 0, 220), "green": (0, 160, 0), "blue": (220, 0, 0)}
_PLACES = {
    "upper left": (64, 64),
    "upper right": (192, 64),
    "lower left": (64, 192),
    "lower right": (192, 192),
}
"""Where the middle of the disc lies: x, y."""
_PROMPT = (
    "The picture shows one disc on a white ground. Answer with one JSON object of the keys "
    f'"colour" ({", ".join(_COLOURS_BGR)}) and "place" ({", ".join(_PLACES)}).'
)
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "colour": {"type": "string", "enum": list(_COLOURS_BGR)},
        "place": {"type": "string", "enum": list(_PLACES)},
    },
    "required": ["colour", "place"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class ConnectionReport:
    """What a server can do, or what is wrong with it."""

    ok: bool
    """It answers, and the model saw the picture."""
    sentence: str
    """For people."""
    server: str = ""
    """Host and port."""
    model: str = ""
    models: tuple[str, ...] = ()
    """What the server offers, where it says so."""
    saw: bool | None = None
    """Whether the model saw what the picture shows; None where it was not asked or gave no answer."""
    rung: Rung | None = None
    """The way of asking for structure that it took."""
    seconds: float = 0.0
    """For the answer about the picture, which took a fresh start of the model where none was loaded."""
    requests: int = 0


def check_connection(
    base_url: str | None,
    model: str | None = None,
    *,
    limits: ServerLimits = CHECK_LIMITS,
    key: str | None = None,
    on_request: OnRequest = lambda server, model, image_sha256: None,
    waiting: Waiting = lambda: None,
) -> ConnectionReport:
    """Ask a server which models it offers, and the model what a made-up picture shows; no image of a study is sent.

    Parameters
    ----------
    base_url : the server's address
    model : None where the server offers exactly one
    limits : patience
    key : None takes the one that is stored for the server
    on_request : told of every request before it leaves
    waiting : called about ten times a second; what it raises abandons the check at once
    """
    try:
        # Nothing of a study leaves: the address somebody asks about is all the permission it takes.
        permitted = origin(server_url(base_url))
        chat = ChatServer(base_url, model, limits, on_request, key, permitted)
    except UserError as error:
        return ConnectionReport(False, str(error))
    with chat:
        return _Check(chat, waiting).report()


class _Check:
    def __init__(self, chat: ChatServer, waiting: Waiting) -> None:
        self.chat = chat
        self.waiting = waiting
        self.models: tuple[str, ...] = ()

    def report(self) -> ConnectionReport:
        chat = self.chat
        try:
            self.models = chat.list_models(self.waiting)
        except ServerError as error:
            no_list = error.status in (404, 405, 501)
            if not (no_list and chat.model):
                return self.wrong(self.without_list(error))
        if not chat.model:
            if len(self.models) != 1:
                return self.wrong(f"Name the model to ask; {chat.server} offers: {self.offered}.")
            chat.model = self.models[0]
        return self.look()

    def without_list(self, error: ServerError) -> str:
        """Say why there is no list of models."""
        chat = self.chat
        if error.everywhere and error.status != 404:
            return str(error)
        if error.status in (404, 405) or error.web_page:
            path = chat.url.path
            sentence = f"Something answers at {chat.server}, but under {path} is no chat-completions server"
            hint = "give its address up to /v1" if path.endswith("/v1") else f"try {path.rstrip('/')}/v1"
            return f"{sentence}; {hint}."
        return str(error)

    def look(self) -> ConnectionReport:
        """Show the model the picture."""
        chat = self.chat
        model = plain_text(chat.model or "", 60)
        colour, place = random.choice(list(itertools.product(_COLOURS_BGR, _PLACES)))
        picture = disc(colour, place)
        # Enough for one that thinks first.
        tokens = 4 * chat.limits.answer_tokens
        begun = time.monotonic()
        asked = chat.converse(
            picture_messages(_PROMPT, picture),
            _SCHEMA,
            hashlib.sha256(picture).hexdigest(),
            Spent(),
            tokens,
        )
        try:
            said = chat.connection.wait(asked, self.waiting)
        except ServerError as error:
            if error.takes_no_pictures:
                return self.wrong(f"{model} takes no pictures: {error.said.rstrip('.')}.", saw=False)
            if error.status in (400, 404) and self.models and chat.model not in self.models:
                return self.wrong(f"{chat.server} has no model {model!r}; it offers: {self.offered}.")
            return self.wrong(str(error))
        seconds = time.monotonic() - begun
        answer = _answer_in(said.text)
        if answer is None and said.cut_short:
            return self.wrong(f"{model} came to no end within {tokens} tokens; choose one that thinks less.")
        saw = answer == (colour, place)
        how = f"{chat.server} answered as {model} in {seconds:.1f} s ({said.rung})"
        if saw:
            sentence = f"All is well: {how}, and it saw what the test picture shows."
        elif answer is None and said.text.strip() and "{" not in said.text:
            quoted = plain_text(said.text, 60) or "nothing"
            sentence = (
                f"{how}, but not in the form that was asked for; it said: {quoted.rstrip('.')}. Such answers are sent "
                "back once to be repaired; a model that keeps to a schema is faster."
            )
        else:
            said_of_it = " ".join(answer) if answer else plain_text(said.text, 60) or "nothing"
            sentence = (
                f"{how}, but did not see what the test picture shows: a {colour} disc, {place}; it said: "
                f"{said_of_it.rstrip('.')}. Choose a model that takes pictures."
            )
        return ConnectionReport(
            saw, sentence, chat.server, chat.model or "", self.models, saw, said.rung, seconds, chat.requests
        )

    def wrong(self, sentence: str, saw: bool | None = None) -> ConnectionReport:
        chat = self.chat
        return ConnectionReport(
            False, sentence, chat.server, chat.model or "", self.models, saw, requests=chat.requests
        )

    @property
    def offered(self) -> str:
        return plain_text(", ".join(self.models[:20]), 300) or "none"


def disc(colour: str, place: str) -> bytes:
    """Draw the made-up picture as PNG."""
    pixels = np.full((SIDE_PX, SIDE_PX, 3), 255, np.uint8)
    cv2.circle(pixels, _PLACES[place], 40, _COLOURS_BGR[colour], thickness=-1)
    return cv2.imencode(".png", pixels)[1].tobytes()


def _answer_in(text: str) -> tuple[str, str] | None:
    """Return colour and place in an answer, in JSON or in prose; None where it names not exactly one of each."""
    for match in re.finditer(r"\{[^{}]*\}", text):
        try:
            values = json.loads(match[0])
        except ValueError:
            continue
        pair = str(values.get("colour", "")).lower(), str(values.get("place", "")).lower()
        if pair[0] in _COLOURS_BGR and pair[1] in _PLACES:
            return pair
    words = re.sub(r"[\s_-]+", " ", text.lower()).replace("top", "upper").replace("bottom", "lower")
    colours = [colour for colour in _COLOURS_BGR if re.search(rf"\b{colour}\b", words)]
    places = [place for place in _PLACES if place in words]
    return (colours[0], places[0]) if len(colours) == len(places) == 1 else None
