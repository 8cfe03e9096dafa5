"""The part of MONAI Label's HTTP interface that its extension for 3D Slicer uses, for this computer alone.

What is asked and answered was read from MONAI Label 0.8.5: ``monailabel/client/client.py``, ``monailabel/endpoints``
and ``plugins/slicer/MONAILabel/MONAILabel.py``.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import secrets
import socketserver
import traceback
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote

from gaze_capture.errors import UserError
from segmentation.slicer.service import NotFound, ServedFile, SlicerService

MOST_BYTES = 1 << 29
"""A larger request is refused before it is read: 512 MiB, a compressed volume of about a gigabyte."""
MOST_PARTS = 16
PATIENCE_S = 60.0
"""A connection on which nothing moves for so long is closed."""
Say = Callable[[str], object]


class _Refused(Exception):
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class SlicerServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens once it is made; ``serve_forever`` answers.

    Parameters
    ----------
    host : an address of this computer, 127.0.0.1 unless others shall reach it, too
    port : 0 for any that is free
    say : told of each label and volume that came in

    Raises
    ------
    UserError
        If the address is not this computer's, or the port is taken.
    """

    daemon_threads = True
    # On Windows the option would let two programs listen on one port.
    allow_reuse_address = os.name != "nt"

    def __init__(self, service: SlicerService, host: str, port: int, say: Say = lambda _: None) -> None:
        self.service, self.host, self.say = service, host, say
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"{host}:{port} cannot be listened on ({reason}); another program may use the port: choose one with "
                "--port."
            ) from None

    @property
    def url(self) -> str:
        """What a client is told to connect to."""
        return f"http://{self.host}:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over a client that went away in mid-answer."""


class _Handler(BaseHTTPRequestHandler):
    server: SlicerServer
    server_version = "GazeInsight"
    sys_version = ""
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        self._answer("GET")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of single requests."""

    def _answer(self, method: str) -> None:
        try:
            self._check_sender()
            body = self._body()
            path, _, asked = self.path.partition("?")
            parts = [unquote(part) for part in path.strip("/").split("/")]
            query = {name: values[-1] for name, values in parse_qs(asked).items()}
            kind = self.headers.get("Content-Type", "")
            answer = _route(method, parts)(_Request(self.server, parts, query, body, kind))
            if isinstance(answer, ServedFile) and answer.params:
                self._send(200, *_multipart(answer))
            elif isinstance(answer, ServedFile):
                self._send(200, "application/gzip", answer.data)
            else:
                self._send_json(200, answer)
        except _Refused as error:
            self._send_json(error.status, {"detail": str(error)})
        except NotFound as error:
            self._send_json(404, {"detail": str(error)})
        except UserError as error:
            self._send_json(400, {"detail": str(error)})
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:
            self.server.say(traceback.format_exc())
            self._send_json(
                500, {"detail": f"Gaze Insight failed at this ({type(error).__name__}: {error})."}
            )

    def _check_sender(self) -> None:
        """Refuse what a web page sends: by a name that was made to lead here, or across origins."""
        host = self.headers.get("Host", "")
        name = re.sub(r":[0-9]+$", "", host).strip("[]").lower()
        if not (_is_address(name) or name in ("localhost", self.server.host.lower())):
            raise _Refused(403, f"This server is not called {name!r}; connect to {self.server.url}.")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            raise _Refused(403, "Web pages cannot use this server; connect to it from 3D Slicer.")

    def _body(self) -> bytes:
        """Read the request's body."""
        said = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not re.fullmatch(r"[0-9]{1,15}", said):
            raise _Refused(411, "A request has to say how many bytes it has (Content-Length).")
        length = int(said)
        if length > MOST_BYTES:
            # Read all the same, within reason: a client that cannot send on does not look for an answer.
            left = min(length, 8 * MOST_BYTES)
            while left and (block := self.rfile.read(min(left, 1 << 20))):
                left -= len(block)
            raise _Refused(413, f"More than {MOST_BYTES >> 20} MiB are not taken at a time; crop the volume.")
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionError
        return body

    def _send_json(self, status: int, values: Any) -> None:
        self._send(status, "application/json", json.dumps(values).encode())

    def _send(self, status: int, kind: str, data: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cross-Origin-Resource-Policy", "same-origin")
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            # The client has gone.
            self.close_connection = True


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _multipart(given: ServedFile) -> tuple[str, bytes]:
    """Return the content type and body of an answer of parameters and a file."""
    boundary = secrets.token_hex(16)
    lines = [
        f"--{boundary}",
        'Content-Disposition: form-data; name="params"',
        "Content-Type: application/json",
        "",
        json.dumps(given.params),
        f"--{boundary}",
        f'Content-Disposition: form-data; name="image"; filename="{given.name}"',
        "Content-Type: application/gzip",
        "",
        "",
    ]
    end = f"\r\n--{boundary}--\r\n"
    return f"multipart/form-data; boundary={boundary}", "\r\n".join(
        lines
    ).encode() + given.data + end.encode()


class _Request:
    """What a client asks."""

    def __init__(
        self, server: SlicerServer, parts: list[str], query: Mapping[str, str], body: bytes, kind: str
    ) -> None:
        self.service, self.say, self.parts, self.query = server.service, server.say, parts, query
        self._body, self._kind = body, kind

    def asked(self, name: str) -> str:
        """Return a word of the address."""
        if not self.query.get(name):
            raise _Refused(422, f"The request does not say which {name}.")
        return self.query[name]

    def form(self) -> tuple[dict[str, Any], dict[str, tuple[str, bytes]]]:
        """Return the parameters, and the files by field: their names and bytes (RFC 7578)."""
        found = re.search(r'boundary="?([^";,]{1,200})', self._kind)
        if not self._kind.lower().startswith("multipart/form-data") or found is None:
            raise _Refused(415, "A file is sent as multipart/form-data.")
        marker = b"\r\n--" + found[1].strip().encode("latin-1")
        params: dict[str, Any] = {}
        files: dict[str, tuple[str, bytes]] = {}
        for part in (b"\r\n" + self._body).split(marker, MOST_PARTS + 1)[1:]:
            head, blank, content = part.partition(b"\r\n\r\n")
            if part.startswith(b"--") or not blank:
                break
            said = head.decode("utf-8", "replace")
            name = re.search(r'[; ]name="([^"]*)"', said)
            filename = re.search(r'[; ]filename="([^"]*)"', said)
            if name and filename:
                files[name[1]] = filename[1], content
            elif name and name[1] == "params":
                params = _read_json(content)
        return params, files

    def file(self, field: str) -> tuple[str, bytes]:
        """Return the name and the bytes of a file."""
        files = self.form()[1]
        if field not in files:
            raise _Refused(422, f"The request brings no file as {field!r}.")
        return files[field]


def _read_json(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise _Refused(422, "The parameters of the request are no JSON.") from None
    return values if isinstance(values, dict) else {}


# What can be asked


def _info(request: _Request) -> object:
    return request.service.info()


def _datastore(request: _Request) -> object:
    return request.service.datastore(request.query.get("output", ""))


def _image(request: _Request) -> object:
    return request.service.image(request.asked("image"))


def _send_image(request: _Request) -> object:
    name = request.asked("image")
    answer = request.service.send(name, *request.file("file"))
    request.say(f"{answer['image']} {'came in' if answer['new'] else 'is in the study already'}.")
    return answer


def _save_label(request: _Request) -> object:
    params, files = request.form()
    if "label" not in files:
        raise _Refused(422, "The request brings no file as 'label'.")
    answer = request.service.submit(request.asked("image"), *files["label"], params)
    request.say(
        f"{answer['image']}: {answer['edited']} edited, {answer['accepted']} accepted, {answer['unchanged']} as "
        f"before, {answer['left_empty']} empty and not counted."
    )
    return answer


def _next_sample(request: _Request) -> object:
    return request.service.next_sample(request.parts[1])


def _infer(request: _Request) -> object:
    session = request.query.get("session_id", "")
    # A mask goes by the client's name of the image, which a label comes back with.
    return request.service.infer(
        request.parts[1], request.query.get("image", "") or request.asked("session_id"), session
    )


def _open_session(request: _Request) -> object:
    return request.service.open_session(*request.file("files"))


def _session(request: _Request) -> object:
    return request.service.session(request.parts[1])


def _close_session(request: _Request) -> object:
    return request.service.session(request.parts[1], close=True)


def _no_login(request: _Request) -> object:
    return {"enabled": False}


def _not_here(request: _Request) -> object:
    raise NotFound(
        "Gaze Insight does not train from 3D Slicer; train again with the reviews in its window, or with: gaze-insight "
        "train STUDY --again"
    )


_Answer = Callable[[_Request], object]
_ROUTES: dict[tuple[str, str, int], _Answer] = {
    ("GET", "info", 1): _info,
    ("GET", "auth", 1): _no_login,
    ("GET", "datastore", 1): _datastore,
    ("PUT", "datastore", 1): _send_image,
    ("GET", "datastore/image", 2): _image,
    ("PUT", "datastore/image", 2): _send_image,
    ("PUT", "datastore/label", 2): _save_label,
    ("POST", "infer", 2): _infer,
    ("POST", "activelearning", 2): _next_sample,
    ("PUT", "session", 1): _open_session,
    ("GET", "session", 2): _session,
    ("DELETE", "session", 2): _close_session,
    ("GET", "train", 1): _not_here,
    ("POST", "train", 1): _not_here,
    ("POST", "train", 2): _not_here,
    ("DELETE", "train", 1): _not_here,
}
"""By method, the beginning of the path, and how many parts the path has."""


def _route(method: str, parts: list[str]) -> _Answer:
    for name in ("/".join(parts[:2]), parts[0]):
        found = _ROUTES.get((method, name, len(parts)))
        if found is not None:
            return found
    raise _Refused(
        404, f"{method} /{'/'.join(parts)[:100]} is nothing that is served here; see docs/slicer.md."
    )
