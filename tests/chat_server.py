"""A chat-completions server on loopback that behaves as badly as a test wants."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from segmentation.server_connection import ServerLimits
from tests.test_explanation import GOOD

LIMITS = ServerLimits(
    timeout_s=0.6, connect_s=0.5, reply_bytes=200_000, backoff_s=0.01, longest_pause_s=0.05, patience_s=0.3
)

Play = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    """Speaks the chat-completions protocol as well as the play of the moment lets it."""

    protocol_version = "HTTP/1.1"
    server: FakeServer

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers), {}))
        self.send(200, json.dumps({"data": [{"id": name} for name in self.server.models]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), body))
        plays = self.server.plays
        (plays.pop(0) if len(plays) > 1 else plays[0])(self, body)

    def send(self, status: int, text: str, kind: str = "application/json", **headers: str) -> None:
        self.send_bytes(status, text.encode(), kind, **headers)

    def send_bytes(self, status: int, data: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class FakeServer(ThreadingHTTPServer):
    """A server on loopback; `plays` are used up in turn, the last one stays."""

    daemon_threads = True
    models: tuple[str, ...] = ("tiny-vlm",)

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.plays: list[Play] = [say(json.dumps(GOOD))]
        self.released = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the play."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


def answer(content: Any, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    return {
        "choices": [{"message": {"content": content, **message}, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 900, "completion_tokens": 50},
    }


def say(content: Any) -> Play:
    return lambda handler, body: handler.send(200, json.dumps(answer(content)))


def fail(status: int, text: str = '{"error": {"message": "no luck"}}', **headers: str) -> Play:
    return lambda handler, body: handler.send(status, text, **headers)


def hang(handler: Handler, body: dict[str, Any]) -> None:
    handler.server.released.wait(20)
    handler.close_connection = True


def drip(handler: Handler, body: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        if handler.server.released.wait(0.05):
            break
        handler.wfile.write(b" ")
    handler.close_connection = True


def flood(handler: Handler, body: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(50 << 20))
    handler.end_headers()
    for _ in range(50):
        handler.wfile.write(b"x" * (1 << 20))


def drop(handler: Handler, body: dict[str, Any]) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def only_without(kind: str | None) -> Play:
    """Refuse response formats down to a rung of the ladder."""

    def play(handler: Handler, body: dict[str, Any]) -> None:
        asked = body.get("response_format", {}).get("type")
        if asked == "json_schema" or (asked == "json_object" and kind is None):
            handler.send(400, '{"error": {"message": "response_format is not supported"}}')
        else:
            say(json.dumps(GOOD))(handler, body)

    return play
