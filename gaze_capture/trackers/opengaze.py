"""The Open Gaze API, version 2, over TCP: lines of XML from and to a server such as Gazepoint Control."""

from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import dataclass

from gaze_capture.errors import UserError

PORT = 4242
ANSWER_S = 3.0
LONGEST_MESSAGE = 65_536

_MESSAGE = re.compile(rb"<\s*(ACK|NACK|REC|CAL)\b([^<>]*?)/>")
_ATTRIBUTE = re.compile(rb'([A-Za-z_]\w*)\s*=\s*"([^"]*)"')


@dataclass(frozen=True)
class Message:
    """One message of the server."""

    tag: str
    """ACK, NACK, REC or CAL."""
    values: dict[str, str]
    arrival_ns: int
    """Host time at which its last byte had been read."""

    @property
    def id(self) -> str:
        """What it answers or tells of."""
        return self.values.get("ID", "").strip()

    def number(self, name: str) -> float | None:
        """Return a value as a number; None where it is missing or none."""
        try:
            return float(self.values[name])
        except (KeyError, ValueError):
            return None


class Parser:
    """Finds messages in a stream of bytes, however it is cut; what is no message is passed over."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message]:
        """Take in bytes that came just now; return the messages that they complete."""
        arrival_ns = time.monotonic_ns()
        rest = self._rest + data
        messages, end = [], 0
        for match in _MESSAGE.finditer(rest):
            values = {
                name.decode("ascii", "replace"): value.decode("utf-8", "replace")
                for name, value in _ATTRIBUTE.findall(match[2])
            }
            messages.append(Message(match[1].decode(), values, arrival_ns))
            end = match.end()
        # A message begins with the last "<" or has not begun.
        begun = rest.rfind(b"<", end)
        rest = b"" if begun < 0 else rest[begun:]
        self._rest = rest if len(rest) <= LONGEST_MESSAGE else b""
        return messages


class Connection:
    """A connection to a server; one thread reads, any may send.

    Raises
    ------
    OSError
        From every method, if the connection cannot be made or is gone.
    """

    def __init__(self, host: str, port: int, timeout_s: float = 2.0) -> None:
        self._socket = socket.create_connection((host, port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = Parser()
        self._sending = threading.Lock()

    def send(self, verb: str, what: str, **values: object) -> None:
        """Send a SET or GET."""
        words = "".join(f' {name}="{value}"' for name, value in values.items())
        with self._sending:
            self._socket.sendall(f'<{verb} ID="{what}"{words} />\r\n'.encode())

    def read(self, timeout_s: float) -> list[Message]:
        """Return the messages that come next; none if nothing came in time."""
        self._socket.settimeout(timeout_s)
        try:
            data = self._socket.recv(65_536)
        except TimeoutError:
            return []
        if not data:
            raise ConnectionResetError("the server closed the connection")
        return self._parser.feed(data)

    def ask(self, verb: str, what: str, **values: object) -> Message | None:
        """Send and wait for the answer, passing over all else; None if the server refuses. Only the reading thread."""
        self.send(verb, what, **values)
        deadline = time.monotonic() + ANSWER_S
        while (left := deadline - time.monotonic()) > 0:
            for message in self.read(left):
                if message.tag in ("ACK", "NACK") and message.id == what:
                    return message if message.tag == "ACK" else None
        raise TimeoutError(f"no answer to {what}")

    def close(self) -> None:
        """Close; wakes a thread that reads."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()


def host_and_port(address: str) -> tuple[str, int]:
    """Return host and port of ``host``, ``host:port`` or ``[v6]:port``.

    Raises
    ------
    UserError
        If the port is none.
    """
    match = re.fullmatch(
        r"\[(?P<v6>[^\]]+)\](?::(?P<port6>\d+))?|(?P<host>[^:\s]+)(?::(?P<port>\d+))?", address
    )
    port = int((match["port6"] or match["port"] or PORT) if match else 0)
    if match is None or not 0 < port < 65_536:
        raise UserError(f"The address {address!r} should look like 127.0.0.1:{PORT}.")
    return match["v6"] or match["host"], port
