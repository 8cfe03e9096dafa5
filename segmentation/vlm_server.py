"""Asking a vision-language model behind an OpenAI-compatible server (Ollama, llama.cpp, vLLM, LM Studio)."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from gaze_capture.errors import UserError
from segmentation.explanation_presets import Preset
from segmentation.hosts import is_loopback, origin
from segmentation.reply import MAX_CHARACTERS, beyond_repair, plain_text, read_reply, repair_turns
from segmentation.server_connection import (
    OnRequest,
    ServerConnection,
    ServerError,
    ServerLimits,
    Waiting,
)
from segmentation.server_keys import KEY_VARIABLE, checked_key, key_for

Rung = Literal["json_schema", "json_object", "prompt"]
_LADDER: tuple[Rung, ...] = ("json_schema", "json_object", "prompt")
_REFUSED_FORMAT = frozenset({400, 415, 422, 501})
_ABOUT_FORMAT = re.compile(r"response_?format|json|schema|grammar|structured|guided", re.IGNORECASE)
_MORE_TOKENS = 4
_LONGEST_MODEL_NAME = 300
"""Paths of files are names, too."""
_LIST_S = 15.0
"""A list of models needs no thinking."""


@dataclass(frozen=True)
class ServerReply:
    """A valid answer."""

    attributes: dict[str, Any]
    raw: str
    """The answer's text as it came, at most 64 KiB."""


@dataclass
class Spent:
    """What one question has cost so far, answered or not."""

    requests: int = 0
    prompt_tokens: int = 0
    """As the server counts them; 0 where it does not say."""
    completion_tokens: int = 0


@dataclass(frozen=True)
class Said:
    """The text of one answer."""

    text: str
    cut_short: bool
    """The tokens were used up."""
    rung: Rung
    """How it was asked for structure."""


def server_url(base_url: str | None) -> httpx.URL:
    """Return the address under which a server's ``/chat/completions`` lies.

    Takes ``http://127.0.0.1:11434``, ``.../v1`` or ``.../v1/chat/completions``.

    Raises
    ------
    UserError
        If it is no address.
    """
    example = "for example http://127.0.0.1:11434/v1 (Ollama) or http://127.0.0.1:1234/v1 (LM Studio)"
    if not base_url:
        raise UserError(f"The openai backend needs the address of a server: --base-url, {example}.")
    shown = plain_text(base_url, 100)
    try:
        url = httpx.URL(base_url.strip())
        # A name that only looks international is found out where it is decoded.
        host, port = url.host, url.port
    except (httpx.InvalidURL, ValueError):
        raise UserError(f"{shown!r} is no server address; give one like {example}.") from None
    if url.userinfo or url.query:
        raise UserError(
            f"A server address holds no user name, password or query; a key belongs into {KEY_VARIABLE}."
        )
    if url.scheme not in ("http", "https") or not host or (port is not None and not 0 < port < 1 << 16):
        raise UserError(f"{shown!r} is no server address; give one like {example}.")
    if is_loopback(host) and host.endswith("."):
        # With its dot, many systems ask the network what it means.
        url = url.copy_with(host=host.rstrip("."))
    path = url.path.rstrip("/").removesuffix("/chat/completions")
    return url.copy_with(path=path or "/v1", fragment=None)


@dataclass
class ChatServer:
    """A model behind a chat-completions server; remembers how it wants to be asked.

    Use as a context manager, or call `close`, which abandons whatever is on its way.
    """

    base_url: str | None
    model: str | None = None
    """None asks the server, which has to offer exactly one."""
    limits: ServerLimits = field(default_factory=ServerLimits)
    on_request: OnRequest = lambda server, model, image_sha256: None
    key: str | None = field(default=None, repr=False)
    """None takes the environment's or the keyring's."""
    permitted: str | None = None
    """The one other machine (scheme, host, port, as `hosts.origin` writes it) that may be asked; None: none."""

    def __post_init__(self) -> None:
        self.url = server_url(self.base_url)
        if not is_loopback(self.url.host) and origin(self.url) != self.permitted:
            raise UserError(
                f"{plain_text(self.url.host, 80)} is not this machine, and nobody has allowed to send anything there."
            )
        if self.model and not _is_model_name(self.model):
            raise UserError(f"{plain_text(self.model, 60)!r} cannot be a model's name; correct --model.")
        key = key_for(origin(self.url)) if self.key is None else checked_key(self.key.strip(), "The key")
        self._rung = 0
        self._refusals = 0
        self._tokens = self.limits.answer_tokens
        self._tokens_name = "max_tokens"
        self._takes_temperature = True
        self.connection = ServerConnection(self.url, key, self.limits, self.on_request)

    def __enter__(self) -> ChatServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Abandon what is on its way and close the connections."""
        self.connection.close()

    @property
    def server(self) -> str:
        """Host and port, for people and the audit log."""
        return self.connection.server

    @property
    def requests(self) -> int:
        """Requests sent so far."""
        return self.connection.requests

    def find_model(self, waiting: Waiting = lambda: None) -> str:
        """Return the model's name, asking the server where none was given.

        Raises
        ------
        ServerError
            If the server cannot be asked or offers none or several.
        """
        if self.model:
            return self.model

        names = self.list_models(waiting)
        if len(names) != 1:
            offered = plain_text(", ".join(names[:20]), 300) or "none"
            raise ServerError(f"Name the model to ask with --model; {self.server} offers: {offered}.")
        self.model = names[0]
        return self.model

    def list_models(self, waiting: Waiting = lambda: None) -> tuple[str, ...]:
        """Ask with patience which models the server offers.

        Raises
        ------
        ServerError
            If it does not say.
        """

        async def listed() -> tuple[str, ...]:
            return await self.connection.persist(self.models)

        return self.connection.wait(listed(), waiting)

    async def models(self) -> tuple[str, ...]:
        """Ask once which models the server offers."""
        listed = await self.connection.request("GET", "/models", model=self.model or "", timeout_s=_LIST_S)
        data = listed.get("data") if isinstance(listed, dict) else None
        rows = data if isinstance(data, list) else []
        names = (row.get("id") for row in rows if isinstance(row, dict))
        return tuple(name for name in names if isinstance(name, str) and _is_model_name(name))

    def ask(
        self, prompt: str, picture_png: bytes, preset: Preset, waiting: Waiting = lambda: None
    ) -> ServerReply:
        """Ask about one picture and wait for the answer; see `asking`."""
        self.find_model(waiting)
        return self.connection.wait(self.asking(prompt, picture_png, preset, Spent()), waiting)

    async def asking(self, prompt: str, picture_png: bytes, preset: Preset, spent: Spent) -> ServerReply:
        """Ask about one picture and insist on an answer of the preset's schema.

        Asks for structure the strictest way the server takes (json_schema, json_object, the prompt alone) and checks
        the answer itself. One that was cut short is asked for once more with more tokens; one that is wrong goes
        back once with what is wrong to be repaired. `spent` counts along, also where nothing comes of it.

        Raises
        ------
        ServerError
            If no valid answer came; the reason is one sentence.
        """
        schema = preset.schema()
        messages = picture_messages(prompt, picture_png)
        image_sha256 = hashlib.sha256(picture_png).hexdigest()
        tokens = self._tokens
        said = await self.converse(messages, schema, image_sha256, spent, tokens)
        attributes, problem = read_reply(said.text, preset)
        if attributes is None and said.cut_short:
            tokens *= _MORE_TOKENS
            said = await self.converse(messages, schema, image_sha256, spent, tokens)
            attributes, problem = read_reply(said.text, preset)
            if attributes is None and said.cut_short:
                raise ServerError(
                    f"{plain_text(self._name, 60)} came to no end within {tokens} tokens; "
                    "a model that thinks less may do better."
                )
            # A model that thinks aloud does so each time.
            self._tokens = min(tokens, self.limits.answer_tokens * _MORE_TOKENS)
        if attributes is None:
            shown, wanted = repair_turns(said.text, problem)
            messages = [
                *messages,
                {"role": "assistant", "content": shown},
                {"role": "user", "content": wanted},
            ]
            said = await self.converse(messages, schema, image_sha256, spent, tokens)
            attributes, problem = read_reply(said.text, preset)
        if attributes is None:
            raise ServerError(beyond_repair(self._name, problem))
        return ServerReply(attributes, self.connection.without_key(said.text))

    @property
    def _name(self) -> str:
        return self.model or ""

    async def converse(
        self,
        messages: list[dict[str, Any]],
        schema: dict[str, Any],
        image_sha256: str | None,
        spent: Spent,
        tokens: int,
    ) -> Said:
        """Send messages, adapting to what the server refuses, and return the answer's text.

        Raises
        ------
        ServerError
            If there is none.
        """
        rung, plainly = self._rung, False
        while True:
            asked_rung, tokens_name, temperature = rung, self._tokens_name, self._takes_temperature
            body: dict[str, Any] = {
                "model": self._name,
                "messages": messages,
                tokens_name: tokens,
                "stream": False,
                **({"temperature": 0} if temperature else {}),
                **_response_format(_LADDER[asked_rung], schema),
            }

            async def send(
                body: dict[str, Any] = body,
                asked_rung: int = asked_rung,
                tokens_name: str = tokens_name,
                temperature: bool = temperature,
            ) -> Said:
                spent.requests += 1
                try:
                    reply = await self.connection.request(
                        "POST", "/chat/completions", body, model=self._name, image_sha256=image_sha256
                    )
                except ServerError as error:
                    if self._adapts_to(error, asked_rung, tokens_name, temperature):
                        raise _Adapted from None
                    raise
                return self._read(reply, spent, _LADDER[asked_rung])

            try:
                said = await self.connection.persist(send)
            except _FormatRefused as refused:
                rung, plainly = max(rung + 1, self._rung), plainly or refused.plainly
                continue
            except _Adapted:
                continue
            self._learn(asked_rung, plainly)
            return said

    def _learn(self, rung: int, plainly: bool) -> None:
        """Remember the rung that was taken; a refusal that named no format may have had any reason: once is no rule."""
        self._refusals = self._refusals + 1 if rung > self._rung else 0
        if plainly or self._refusals >= 2:
            self._rung, self._refusals = max(rung, self._rung), 0

    def _adapts_to(self, error: ServerError, rung: int, tokens_name: str, temperature: bool) -> bool:
        """Whether the same can be asked in another way; raises _FormatRefused where that is the format's."""
        if error.takes_no_pictures:
            return False
        refused = error.status in _REFUSED_FORMAT
        if refused and tokens_name == "max_tokens" and "max_completion_tokens" in error.said:
            self._tokens_name = "max_completion_tokens"
            return True
        if refused and temperature and "temperature" in error.said:
            self._takes_temperature = False
            return True
        plainly = bool(_ABOUT_FORMAT.search(error.said))
        if rung < len(_LADDER) - 1 and (refused or (error.status == 500 and plainly)):
            raise _FormatRefused(plainly)
        return False

    def _read(self, reply: Any, spent: Spent, rung: Rung) -> Said:
        """Return the text in a reply, and count its tokens."""
        usage = reply.get("usage") if isinstance(reply, dict) else None
        if isinstance(usage, dict):
            spent.prompt_tokens += _count(usage.get("prompt_tokens"))
            spent.completion_tokens += _count(usage.get("completion_tokens"))
        try:
            choice = reply["choices"][0]
            message = choice["message"]
            content = message["content"]
            why = choice.get("finish_reason")
            refusal = message.get("refusal")
        except (KeyError, IndexError, TypeError, AttributeError):
            content = why = refusal = None
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        model = plain_text(self._name, 60)
        if not content and isinstance(refusal, str) and refusal:
            raise ServerError(f"{model} declines to answer: {self._plain(refusal)}.", lasting=True)
        if not content and why == "content_filter":
            raise ServerError(f"{self.server} filtered the answer of {model} out.", lasting=True)
        if content is None and why == "length":
            # All tokens went into thinking.
            content = ""
        if not isinstance(content, str):
            raise ServerError(f"{self.server} answered without a message; is it a chat-completions server?")
        # Half a surrogate pair is valid JSON but cannot be written to a file.
        text = content[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
        return Said(text, why == "length", rung)

    def _plain(self, text: str) -> str:
        return plain_text(self.connection.without_key(text), 160).rstrip(".")


class _Adapted(Exception):
    """The server refused something that can be asked for in another way."""


class _FormatRefused(Exception):
    """The server does not take this way of asking for structure."""

    def __init__(self, plainly: bool) -> None:
        super().__init__()
        self.plainly = plainly
        """It says that this is the reason."""


def _is_model_name(name: str) -> bool:
    """Whether a name can be sent, logged and shown as it is: one line of plain text."""
    return bool(name) and len(name) <= _LONGEST_MODEL_NAME and name.isprintable()


def picture_messages(prompt: str, picture_png: bytes) -> list[dict[str, Any]]:
    """Return the messages that ask about a picture."""
    picture = base64.b64encode(picture_png).decode("ascii")
    content = [
        {"type": "text", "text": prompt},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
    ]
    return [{"role": "user", "content": content}]


def _response_format(rung: Rung, schema: dict[str, Any]) -> dict[str, Any]:
    if rung == "json_schema":
        described = {"name": "explanation", "strict": True, "schema": schema}
        return {"response_format": {"type": "json_schema", "json_schema": described}}
    return {"response_format": {"type": "json_object"}} if rung == "json_object" else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else 0
