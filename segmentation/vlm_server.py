"""Asking a vision-language model behind an OpenAI-compatible server (Ollama, llama.cpp, vLLM, LM Studio)."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import httpx

from gaze_capture.errors import UserError
from segmentation.explanation_presets import Preset
from segmentation.hosts import is_loopback, origin
from segmentation.reply import MAX_CHARACTERS, plain_text, read_reply
from segmentation.server_keys import KEY_VARIABLE, key_for

_Reply = TypeVar("_Reply")
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_REFUSED_FORMAT = frozenset({400, 415, 422, 501})
Ladder = Literal["json_schema", "json_object", "prompt"]
_LADDER: tuple[Ladder, ...] = ("json_schema", "json_object", "prompt")


class ServerError(UserError):
    """The server gave no usable answer."""

    def __init__(
        self, reason: str, *, whole_server: bool = False, slow: bool = False, wait_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.whole_server = whole_server
        """The next image can expect the same."""
        self.slow = slow
        """It took the whole timeout to find out."""
        self.wait_s = wait_s
        """How long the server asks to be left alone."""


class _FormatRefused(Exception):
    """The server does not take this way of asking for structure."""


@dataclass(frozen=True)
class ServerLimits:
    """How long and how much a server may answer."""

    timeout_s: float = 180.0
    """For one request as a whole; a large model on a CPU takes minutes."""
    connect_s: float = 5.0
    reply_bytes: int = 1 << 20
    tries: int = 3
    """Attempts at one question where the server is busy, broken or silent."""
    backoff_s: float = 1.0
    """Pause before the second attempt, doubled before each further one."""
    longest_pause_s: float = 30.0
    """However long a server asks to be left alone."""
    answer_tokens: int = 1024


@dataclass(frozen=True)
class ServerReply:
    """A valid answer."""

    attributes: dict[str, Any]
    raw: str
    """The answer's text as it came, at most 64 KiB."""


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
    except (httpx.InvalidURL, ValueError):
        raise UserError(f"{shown!r} is no server address; give one like {example}.") from None
    if url.userinfo or url.query:
        raise UserError(
            f"A server address holds no user name, password or query; a key belongs into {KEY_VARIABLE}."
        )
    if url.scheme not in ("http", "https") or not url.host:
        raise UserError(f"{shown!r} is no server address; give one like {example}.")
    path = url.path.rstrip("/").removesuffix("/chat/completions")
    return url.copy_with(path=path or "/v1", fragment=None)


@dataclass
class ChatServer:
    """A model behind a chat-completions server; remembers which kind of structured output it takes.

    Use as a context manager, or call `close`.
    """

    base_url: str | None
    model: str | None = None
    """None asks the server, which has to offer exactly one."""
    limits: ServerLimits = field(default_factory=ServerLimits)
    on_request: Callable[[str, str, str | None], None] = lambda server, model, image_sha256: None
    """Told of every request before it leaves: server, model, hash of the picture (None where none is sent)."""
    requests: int = 0
    permitted: str | None = None
    """The one other machine (scheme, host, port, as `hosts.origin` writes it) that may be asked; None: none."""

    def __post_init__(self) -> None:
        self.url = server_url(self.base_url)
        self._check_host(self.url)
        self._key_origin = origin(self.url)
        self._key = key_for(self._key_origin)
        self._rung = 0
        # Neither proxies nor .netrc from the environment: pixels go to this address and nowhere else.
        self._client = httpx.Client(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(self.limits.timeout_s, connect=self.limits.connect_s),
            headers={"Accept-Encoding": "identity", "User-Agent": "gaze-insight"},
        )

    def __enter__(self) -> ChatServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @property
    def server(self) -> str:
        """Host and port, for people and the audit log."""
        return self.url.netloc.decode("ascii")

    def _check_host(self, url: httpx.URL) -> None:
        if not is_loopback(url.host) and origin(url) != self.permitted:
            raise UserError(
                f"{plain_text(url.host, 80)} is not this machine, and nobody has allowed to send anything there."
            )

    def find_model(self) -> str:
        """Return the model's name, asking the server where none was given.

        Raises
        ------
        ServerError
            If the server cannot be asked or offers none or several.
        """
        if self.model:
            return self.model
        listed = self._persist(lambda: self._send("GET", "/models", None, None))
        data = listed.get("data") if isinstance(listed, dict) else None
        rows = data if isinstance(data, list) else []
        names = [str(row["id"]) for row in rows if isinstance(row, dict) and row.get("id")]
        if len(names) != 1:
            offered = plain_text(", ".join(names[:20]), 300) or "none"
            raise ServerError(f"Name the model to ask with --model; {self.server} offers: {offered}.")
        self.model = names[0]
        return self.model

    def ask(self, prompt: str, picture_png: bytes, preset: Preset) -> ServerReply:
        """Ask about one picture and insist on an answer of the preset's schema.

        Asks for structure the strictest way the server takes (json_schema, json_object, the prompt alone), checks
        the answer itself, and returns it once with what is wrong to be repaired.

        Raises
        ------
        ServerError
            If no valid answer came; the reason is one sentence.
        """
        model = self.find_model()
        picture = base64.b64encode(picture_png).decode("ascii")
        image_sha256 = hashlib.sha256(picture_png).hexdigest()
        messages: list[dict[str, Any]] = [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": prompt},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
                ],
            }
        ]
        answer = self._converse(model, messages, image_sha256, preset)
        attributes, problem = read_reply(answer, preset)
        if attributes is None:
            messages += [
                {"role": "assistant", "content": answer[:4000] or "(empty)"},
                {
                    "role": "user",
                    "content": f"That cannot be used: {problem}. Answer again with the one corrected JSON object only.",
                },
            ]
            answer = self._converse(model, messages, image_sha256, preset)
            attributes, problem = read_reply(answer, preset)
        if attributes is None:
            raise ServerError(
                f"{plain_text(model, 60)} gave no valid answer, also when asked to repair it: {problem}."
            )
        return ServerReply(attributes, self._without_key(answer))

    def _converse(self, model: str, messages: list[dict[str, Any]], image_sha256: str, preset: Preset) -> str:
        """Send messages, stepping down the ladder where the server refuses a response format; return the answer."""
        for rung in range(self._rung, len(_LADDER)):
            body: dict[str, Any] = {
                "model": model,
                "messages": messages,
                "temperature": 0,
                "max_tokens": self.limits.answer_tokens,
                "stream": False,
                **_response_format(_LADDER[rung], preset),
            }
            last = rung == len(_LADDER) - 1

            def send(body: dict[str, Any] = body, last: bool = last) -> str:
                reply = self._send(
                    "POST", "/chat/completions", body, image_sha256, format_negotiable=not last
                )
                return self._answer_in(reply)

            try:
                answer = self._persist(send)
            except _FormatRefused:
                continue
            self._rung = rung
            return answer
        raise AssertionError("the last rung refuses nothing")

    def _answer_in(self, reply: Any) -> str:
        try:
            content = reply["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            content = None
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if not isinstance(content, str):
            raise ServerError(f"{self.server} answered without a message; is it a chat-completions server?")
        # Half a surrogate pair is valid JSON but cannot be written to a file.
        return content[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")

    def _persist(self, send: Callable[[], _Reply]) -> _Reply:
        """Try again, after a growing pause, what may go better the next time."""
        pause_s = self.limits.backoff_s
        left = self.limits.tries
        while True:
            try:
                return send()
            except ServerError as error:
                # Waiting out a timeout costs minutes: such an attempt counts twice.
                left -= 2 if error.slow else 1
                if left <= 0:
                    raise
                wait_s = pause_s * random.uniform(0.8, 1.2) if error.wait_s is None else error.wait_s
                time.sleep(min(wait_s, self.limits.longest_pause_s))
                pause_s *= 2

    def _send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        image_sha256: str | None,
        *,
        format_negotiable: bool = False,
    ) -> Any:
        """Send one request and return the decoded JSON, or raise ServerError with the reason."""
        url = self.url.copy_with(path=self.url.path + path)
        self._check_host(url)
        self.requests += 1
        self.on_request(self.server, self.model or "", image_sha256)
        own_key = self._key if origin(url) == self._key_origin else ""
        headers = {"Authorization": f"Bearer {own_key}"} if own_key else {}
        deadline = time.monotonic() + self.limits.timeout_s
        data = bytearray()
        try:
            with self._client.stream(method, url, json=body, headers=headers) as response:
                for chunk in response.iter_raw():
                    data += chunk
                    if len(data) > self.limits.reply_bytes:
                        raise ServerError(
                            f"{self.server} answered with more than {self.limits.reply_bytes} bytes."
                        )
                    if time.monotonic() > deadline:
                        raise ServerError(
                            f"{self.server} did not finish within {self.limits.timeout_s:g} s.", slow=True
                        )
        except httpx.TimeoutException as error:
            connecting = isinstance(error, httpx.ConnectTimeout)
            limit_s = self.limits.connect_s if connecting else self.limits.timeout_s
            raise ServerError(
                f"{self.server} did not answer within {limit_s:g} s.",
                whole_server=connecting,
                slow=not connecting,
            ) from None
        except httpx.ConnectError:
            raise ServerError(
                f"Nothing answers at {self.server}; start the server or correct --base-url.",
                whole_server=True,
            ) from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            reason = plain_text(self._without_key(str(error)), 120) or type(error).__name__
            raise ServerError(f"{self.server} broke off: {reason}.") from None
        status = response.status_code
        if status == 200:
            try:
                return json.loads(data)
            except (ValueError, RecursionError):
                raise ServerError(f"{self.server} answered something that is not JSON.") from None
        if format_negotiable and status in _REFUSED_FORMAT:
            raise _FormatRefused
        raise self._status_error(status, bytes(data), response.headers.get("Retry-After", ""))

    def _status_error(self, status: int, data: bytes, retry_after: str) -> ServerError:
        said = plain_text(self._without_key(_message_in(data)), 160)
        tail = f": {said.rstrip('.')}." if said else "."
        if status in (401, 403):
            return ServerError(
                f"{self.server} refuses the key ({status}); set {KEY_VARIABLE} in the environment{tail}",
                whole_server=True,
            )
        if status == 404:
            return ServerError(f"{self.server} knows no such address or model (404){tail}", whole_server=True)
        if 300 <= status < 400:
            return ServerError(
                f"{self.server} points to another address ({status}), which is not followed.",
                whole_server=True,
            )
        wait_s = float(retry_after) if status in _RETRIED and retry_after.isdecimal() else None
        return ServerError(f"{self.server} answered with error {status}{tail}", wait_s=wait_s)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _response_format(rung: Ladder, preset: Preset) -> dict[str, Any]:
    if rung == "json_schema":
        described = {"name": "explanation", "strict": True, "schema": preset.schema()}
        return {"response_format": {"type": "json_schema", "json_schema": described}}
    return {"response_format": {"type": "json_object"}} if rung == "json_object" else {}


def _message_in(data: bytes) -> str:
    """Return the message of an OpenAI-style error, or nothing: an HTML page is no message."""
    try:
        error = json.loads(data)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return str(error.get("message", "")) if isinstance(error, dict) else str(error)
