"""One HTTP server asked with patience, from a thread of its own, so that whoever waits can walk away at once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import email.utils
import json
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

import httpx

from gaze_capture.errors import UserError
from segmentation.hosts import origin
from segmentation.reply import NoAnswer, plain_text
from segmentation.server_keys import KEY_VARIABLE

Waiting = Callable[[], None]
"""Called about ten times a second while an answer is awaited; what it raises abandons the request."""
OnRequest = Callable[[str, str, str | None], None]
"""Told of every request before it leaves: server, model, hash of the picture (None where none is sent)."""

POLL_S = 0.1
_Reply = TypeVar("_Reply")
_BUSY = frozenset({429, 503, 529})
_WAIT_AS_TOLD = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_TAKES_NO_PICTURES = re.compile(
    r"mmproj|(?:image|vision|multi-?modal)\b.{0,60}\b(?:not supported|unsupported|not available|not enabled)"
    r"|(?:not|n't) (?:support|accept|process|handle|have).{0,40}\b(?:image|vision|multi-?modal)"
    r"|not a multi-?modal",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ServerLimits:
    """How long and how much a server may answer."""

    timeout_s: float = 180.0
    """For one request as a whole; a large model on a CPU takes minutes."""
    connect_s: float = 5.0
    reply_bytes: int = 1 << 20
    tries: int = 3
    """Attempts at one question where the server is broken or silent."""
    backoff_s: float = 1.0
    """Pause before the second attempt, doubled before each further one."""
    longest_pause_s: float = 30.0
    """However long a server asks to be left alone."""
    patience_s: float = 120.0
    """Pauses of one question, added up, while the server says that it is busy."""
    answer_tokens: int = 1024
    """Asked for at first; an answer that is cut short is asked for once more with four times as many."""


class ServerError(NoAnswer):
    """The server gave no usable answer."""

    def __init__(
        self,
        reason: str,
        *,
        everywhere: bool = False,
        slow: bool = False,
        lasting: bool = False,
        wait_s: float | None = None,
        status: int = 0,
        said: str = "",
        web_page: bool = False,
    ) -> None:
        super().__init__(reason, everywhere=everywhere)
        self.slow = slow
        """It took the whole timeout to find out."""
        self.lasting = lasting
        """Asking again seldom helps: somebody has to change something."""
        self.wait_s = wait_s
        """How long the server asks to be left alone."""
        self.status = status
        """Of HTTP; 0 where there was none, or it was 200."""
        self.said = said
        """The server's own message, as plain text."""
        self.web_page = web_page
        """A page for people came, with status 200."""

    @property
    def busy(self) -> bool:
        """The server asks everybody to come back later."""
        return self.status in _BUSY

    @property
    def takes_no_pictures(self) -> bool:
        """The model was asked with a picture and has no eyes."""
        return bool(self.said and _TAKES_NO_PICTURES.search(self.said))


class ServerConnection:
    """Requests to one server, any number at once, from an event loop in a thread of its own.

    Closing abandons all that is on its way and ends the thread.

    Parameters
    ----------
    url : under which the server's paths lie
    key : sent as a bearer token; empty for none
    limits : how long and how much it may answer
    on_request : told of every request before it leaves; what it raises stops the request
    """

    def __init__(self, url: httpx.URL, key: str, limits: ServerLimits, on_request: OnRequest) -> None:
        self.url = url
        self.limits = limits
        self.requests = 0
        self._key = key
        self._origin = origin(url)
        self._on_request = on_request
        self._not_before = 0.0
        # Neither proxies nor .netrc from the environment: pixels go to this address and nowhere else.
        self.client = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(limits.timeout_s, connect=limits.connect_s, pool=None),
            headers={"Accept-Encoding": "identity", "User-Agent": "gaze-insight"},
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="vlm-server", daemon=True)
        self._thread.start()

    @property
    def server(self) -> str:
        """Host and port, for people and the audit log."""
        return self.url.netloc.decode("ascii")

    def submit(self, work: Coroutine[Any, Any, _Reply]) -> concurrent.futures.Future[_Reply]:
        """Begin work in the connection's thread; cancelling the future closes its connection."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(self, work: Coroutine[Any, Any, _Reply], waiting: Waiting = lambda: None) -> _Reply:
        """Do work and return what it returns; what `waiting` raises abandons it."""
        future = self.submit(work)
        try:
            while not concurrent.futures.wait([future], POLL_S).done:
                waiting()
            return future.result()
        finally:
            future.cancel()

    def close(self) -> None:
        """Abandon what is on its way and end the thread."""
        if self._loop.is_closed():
            return
        self.submit(self._wind_up()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        # Does not wait for a name that is still being looked up.
        self._loop.close()

    async def _wind_up(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        while others:
            for task in others:
                task.cancel()
            # A task that just finished something may have missed that it was cancelled.
            _, others = await asyncio.wait(others, timeout=POLL_S)
        await self.client.aclose()
        # Transports close in the loop's next round.
        await asyncio.sleep(0)

    async def persist(self, send: Callable[[], Awaitable[_Reply]]) -> _Reply:
        """Try again, after a growing pause, what may go better the next time.

        A server that is busy is left alone by everybody for as long as it asks, within the limits.

        Raises
        ------
        ServerError
            The last one, once the tries or the patience are used up.
        """
        limits = self.limits
        pause_s, left, patience_s = limits.backoff_s, limits.tries, limits.patience_s
        while True:
            while (closed_s := self._not_before - time.monotonic()) > 0:
                await asyncio.sleep(closed_s * random.uniform(1.0, 1.1))
            try:
                return await send()
            except ServerError as error:
                wait_s = min(max(error.wait_s or 0.0, pause_s), limits.longest_pause_s)
                if error.busy:
                    patience_s -= wait_s
                    self._not_before = max(self._not_before, time.monotonic() + wait_s)
                else:
                    # Waiting out a timeout costs minutes: such an attempt counts twice.
                    left -= 2 if error.slow or error.lasting else 1
                if left <= 0 or patience_s <= 0:
                    raise
                await asyncio.sleep(wait_s * random.uniform(1.0, 1.2))
                pause_s *= 2

    async def request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        model: str = "",
        image_sha256: str | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Send one request and return the decoded JSON.

        Raises
        ------
        ServerError
            If anything but JSON with status 200 came back, in time and within the limits; the reason is one sentence.
        """
        limit_s = self.limits.timeout_s if timeout_s is None else min(timeout_s, self.limits.timeout_s)
        self._on_request(self.server, model, image_sha256)
        self.requests += 1
        begun: list[httpx.Response] = []
        try:
            data = await asyncio.wait_for(self._receive(method, path, body, begun), limit_s)
        except (asyncio.TimeoutError, httpx.TimeoutException) as error:
            if isinstance(error, httpx.ConnectTimeout):
                raise ServerError(
                    f"{self.server} did not answer within {self.limits.connect_s:g} s.", everywhere=True
                ) from None
            verb = "finish" if begun else "answer"
            raise ServerError(f"{self.server} did not {verb} within {limit_s:g} s.", slow=True) from None
        except httpx.ConnectError as error:
            raise self._connect_error(error) from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            reason = plain_text(self.without_key(str(error)), 120) or type(error).__name__
            raise ServerError(f"{self.server} broke off: {reason.rstrip('.')}.") from None
        response = begun[0]
        if response.status_code != 200:
            raise self._status_error(response.status_code, data, response.headers.get("Retry-After", ""))
        try:
            return json.loads(data)
        except UnicodeDecodeError:
            # A wrong character in a remark costs that character.
            data = data.decode("utf-8", "replace").encode()
        except (ValueError, RecursionError):
            raise self._no_json(response) from None
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise self._no_json(response) from None

    async def _receive(
        self, method: str, path: str, body: dict[str, Any] | None, begun: list[httpx.Response]
    ) -> bytes:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        url = self.url.copy_with(path=self.url.path + path)
        if origin(url) != self._origin:
            # Neither pictures nor the key go anywhere else, whatever happened to the address.
            raise UserError(f"{plain_text(url.host, 80)} is not the server this connection was opened to.")
        data = bytearray()
        async with self.client.stream(method, url, json=body, headers=headers) as response:
            begun.append(response)
            if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
                raise ServerError(f"{self.server} answered compressed, which it was asked not to.")
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > self.limits.reply_bytes:
                    raise ServerError(
                        f"{self.server} answered with more than {self.limits.reply_bytes} bytes."
                    )
        return bytes(data)

    def _no_json(self, response: httpx.Response) -> ServerError:
        page = "html" in response.headers.get("Content-Type", "").lower()
        return ServerError(
            f"{self.server} answered {'a web page' if page else 'something'} that is not JSON.",
            web_page=page,
        )

    def _connect_error(self, error: httpx.ConnectError) -> ServerError:
        causes: list[BaseException] = []
        cause: BaseException | None = error
        while cause is not None and cause not in causes:
            causes.append(cause)
            cause = cause.__cause__ or cause.__context__
        if any(isinstance(one, ssl.SSLCertVerificationError) for one in causes):
            reason = (
                f"The certificate of {self.server} is not one that this computer trusts; check the address."
            )
        elif any(isinstance(one, ssl.SSLError) for one in causes):
            reason = f"{self.server} speaks no TLS; check whether its address begins with http:// instead."
        elif any(isinstance(one, socket.gaierror) for one in causes):
            host = plain_text(self.url.host, 80)
            reason = f"The name {host} cannot be found; check its spelling and the network."
        else:
            reason = f"Nothing answers at {self.server}; start the server or correct --base-url."
        return ServerError(reason, everywhere=True)

    def _status_error(self, status: int, data: bytes, retry_after: str) -> ServerError:
        said = plain_text(self.without_key(_message_in(data)), 160)
        tail = f": {said.rstrip('.')}." if said else "."
        lasting = True
        if status in (401, 403):
            reason = f"{self.server} refuses the key ({status}); set {KEY_VARIABLE} in the environment{tail}"
        elif status == 404:
            reason = f"{self.server} knows no such address or model (404){tail}"
        elif 300 <= status < 400:
            reason = f"{self.server} points to another address ({status}), which is not followed."
        else:
            reason, lasting = f"{self.server} answered with error {status}{tail}", False
        wait_s = _seconds_in(retry_after) if status in _WAIT_AS_TOLD else None
        everywhere = lasting or status in _BUSY
        error = ServerError(
            reason, everywhere=everywhere, lasting=lasting, wait_s=wait_s, status=status, said=said
        )
        error.everywhere = error.everywhere or error.takes_no_pictures
        return error

    def without_key(self, text: str) -> str:
        """Return text that cannot show the key."""
        return text.replace(self._key, "***") if self._key else text


def _seconds_in(retry_after: str) -> float | None:
    """Read a Retry-After header: seconds, or the time of day."""
    text = retry_after.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())


def _message_in(data: bytes) -> str:
    """Return the message of an OpenAI-style error, or nothing: an HTML page is no message."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    error = (
        values.get("error", values.get("message", values.get("detail"))) if isinstance(values, dict) else None
    )
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else ""
