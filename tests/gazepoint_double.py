"""A server that speaks the Open Gaze API over a real socket, with faults that can be switched on."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
import time
from dataclasses import dataclass, field

_REQUEST = re.compile(rb'<(GET|SET) ID="(\w+)"((?: \w+="[^"]*")*) />\r\n')
_VALUE = re.compile(rb'(\w+)="([^"]*)"')


@dataclass
class GazepointServer:
    """Sends numbered records at a rate; `sent` holds the attributes of each, as they went out."""

    rate_hz: float = 150.0
    tell_rate: bool = True
    told_hz: float | None = None
    """Told instead of the true rate."""
    refuse: tuple[str, ...] = ()
    """Answered with NACK."""
    shred: bool = False
    """Cut the stream at random bytes."""
    garbage: bool = False
    """Send bytes between the messages that are none."""
    drop_every: int = 0
    """Leave out every n-th record."""
    swap_every: int = 0
    """Send every n-th record after the one that follows it."""
    unseen_every: int = 0
    """Every n-th record has no left eye."""
    silent: bool = False
    """Accept and say nothing at all."""
    calibration_s: float = 0.02
    sent: list[dict[str, str]] = field(default_factory=list)
    sent_at_ns: list[int] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    points: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(0)
        self.clock_ahead_s = 1000.0
        self.hanging = False
        self.inject: list[str] = []
        self._closing = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listen(0)
        self._number = 0

    def _listen(self, port: int) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> GazepointServer:
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self.stop()

    def stop(self) -> None:
        """Close everything, as when the program ends."""
        listener, self._listener = self._listener, None  # type: ignore[assignment]
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._sockets.clear()

    def restart(self) -> None:
        """Listen again at the same port, with the clock at zero."""
        self.clock_ahead_s = -time.monotonic()
        self._listen(self.port)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                self._sockets.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        lock, data, rest = threading.Lock(), threading.Event(), b""
        with contextlib.suppress(OSError):
            while received := connection.recv(4096):
                rest += received
                if self.silent:
                    continue
                while (match := _REQUEST.match(rest)) is not None:
                    rest = rest[match.end() :]
                    values = {name.decode(): value.decode() for name, value in _VALUE.findall(match[3])}
                    self._answer(connection, lock, data, match[1].decode(), match[2].decode(), values)

    def _answer(
        self,
        connection: socket.socket,
        lock: threading.Lock,
        data: threading.Event,
        verb: str,
        what: str,
        values: dict[str, str],
    ) -> None:
        self.requests.append(f"{verb} {what} {values}" if values else f"{verb} {what}")
        if what in self.refuse:
            self._send(connection, lock, f'<NACK ID="{what}" />\r\n')
            return
        told: dict[str, object] = {**values}
        if what == "PRODUCT_ID":
            told = {"VALUE": "GP3HD", "BUS": "USB3"}
            if self.tell_rate:
                told["RATE"] = f"{self.told_hz or self.rate_hz:g}"
        elif what == "SERIAL_ID":
            told = {"VALUE": "123456789"}
        elif what == "SCREEN_SIZE":
            told = {"X": 0, "Y": 0, "WIDTH": 1920, "HEIGHT": 1080}
        elif what == "TIME_TICK_FREQUENCY":
            told = {"FREQ": 10_000_000}
        elif what == "CALIBRATE_RESULT_SUMMARY":
            told = {"AVE_ERROR": "19.43", "VALID_POINTS": len(self.points)}
        elif what == "CALIBRATE_CLEAR":
            self.points.clear()
            told = {"PTS": 0}
        elif what == "CALIBRATE_ADDPOINT":
            self.points.append((float(values["X"]), float(values["Y"])))
            told = {"PTS": len(self.points)}
        self._send(connection, lock, _line("ACK", {"ID": what, **told}))
        if what == "ENABLE_SEND_DATA" and values.get("STATE") == "1" and not data.is_set():
            data.set()
            threading.Thread(target=self._stream, args=(connection, lock), daemon=True).start()
        if what == "CALIBRATE_START" and values.get("STATE") == "1":
            threading.Thread(target=self._calibrate, args=(connection, lock), daemon=True).start()

    def _stream(self, connection: socket.socket, lock: threading.Lock) -> None:
        begin, number = time.monotonic(), 0
        held: str | None = None
        with contextlib.suppress(OSError):
            while not self._closing.is_set():
                due = begin + number / self.rate_hz
                number += 1
                self._number += 1
                if (left := due - time.monotonic()) > 0:
                    time.sleep(left)
                if self.hanging or (self.drop_every and number % self.drop_every == 0):
                    continue
                while self.inject:
                    self._send(connection, lock, self.inject.pop(0))
                record = self._record(due + self.clock_ahead_s)
                line = _line("REC", record)
                if self.swap_every and number % self.swap_every == 0:
                    held = line
                    continue
                self.sent.append(record)
                self.sent_at_ns.append(round(due * 1e9))
                self._send(connection, lock, line)
                if held is not None:
                    self._send(connection, lock, held)
                    held = None

    def _record(self, seconds: float) -> dict[str, str]:
        n, r = self._number, self.random
        unseen = bool(self.unseen_every) and n % self.unseen_every == 0
        return {
            "TIME": f"{seconds:.5f}",
            "TIME_TICK": str(round(seconds * 1e7)),
            "LPOGX": f"{r.random():.5f}", "LPOGY": f"{r.random():.5f}", "LPOGV": "0" if unseen else "1",
            "RPOGX": f"{r.random():.5f}", "RPOGY": f"{r.random():.5f}", "RPOGV": "1",
            "BPOGX": f"{r.random():.5f}", "BPOGY": f"{r.random():.5f}", "BPOGV": "1",
            "LEYEX": "-0.03100", "LEYEY": "0.02000", "LEYEZ": "0.64000", "LPUPILD": "0.00310", "LPUPILV": "1",
            "REYEX": "0.03200", "REYEY": "0.02100", "REYEZ": "0.66000", "RPUPILD": "0.00320", "RPUPILV": "1",
            "LPMM": f"{2 + r.random():.5f}", "LPMMV": "0" if unseen else "1",
            "RPMM": f"{2 + r.random():.5f}", "RPMMV": "1",
        }  # fmt: skip

    def _calibrate(self, connection: socket.socket, lock: threading.Lock) -> None:
        result: dict[str, object] = {"ID": "CALIB_RESULT"}
        with contextlib.suppress(OSError):
            for number, (x, y) in enumerate(self.points, 1):
                point = {"PT": number, "CALX": f"{x:.5f}", "CALY": f"{y:.5f}"}
                self._send(connection, lock, _line("CAL", {"ID": "CALIB_START_PT", **point}))
                time.sleep(self.calibration_s)
                self._send(connection, lock, _line("CAL", {"ID": " CALIB_RESULT_PT", **point}))
                seen = 0 if number == 2 else 1
                result |= {f"CALX{number}": f"{x:.5f}", f"CALY{number}": f"{y:.5f}"}
                result |= {f"LX{number}": f"{x + 0.01:.5f}", f"LY{number}": f"{y:.5f}", f"LV{number}": seen}
                result |= {f"RX{number}": f"{x:.5f}", f"RY{number}": f"{y:.5f}", f"RV{number}": 1}
            self.clock_ahead_s = -time.monotonic()
            self._send(connection, lock, _line("CAL", result))

    def _send(self, connection: socket.socket, lock: threading.Lock, text: str) -> None:
        data = text.encode()
        if self.garbage and self.random.random() < 0.2:
            data = b'\x00\xff<REC TIME="12.0" LPO\r\n<<>&;' + data
        with lock:
            while self.shred and len(data) > 1:
                cut = self.random.randrange(1, len(data))
                connection.sendall(data[:cut])
                data = data[cut:]
                if self.random.random() < 0.3:
                    time.sleep(0.0005)
            connection.sendall(data)


def _line(tag: str, values: dict[str, object] | dict[str, str]) -> str:
    return f"<{tag} " + " ".join(f'{name}="{value}"' for name, value in values.items()) + " />\r\n"
