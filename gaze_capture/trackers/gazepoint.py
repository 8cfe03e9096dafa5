"""Gazepoint eye trackers, and whatever else speaks the Open Gaze API."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Sequence

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording import Floats, Int64s, Samples, ScreenGeometry, pack_samples
from gaze_capture.trackers.clocks import EnvelopeClock, HostTimes, RateMeter
from gaze_capture.trackers.delivery import DeliveringTracker
from gaze_capture.trackers.gazepoint_calibration import GazepointCalibrator
from gaze_capture.trackers.opengaze import ANSWER_S, PORT, Connection, Message, host_and_port
from gaze_capture.trackers.screen import KnownScreen
from gaze_capture.trackers.tracker import (
    ClockOffset,
    EyePositions,
    Found,
    Millimetres,
)

DEFAULT_ADDRESS = f"127.0.0.1:{PORT}"
SILENT_S = 2.0
"""A server that sends nothing for so long hangs: the connection is made anew."""
RETRY_S = 0.5
CLOCK_EVERY_S = 5.0
FARTHEST_M = 5.0
LATEST_S = 1e9
"""A device time beyond this is garbage."""

DATA = (
    "ENABLE_SEND_TIME", "ENABLE_SEND_POG_LEFT", "ENABLE_SEND_POG_RIGHT",
    "ENABLE_SEND_TIME_TICK", "ENABLE_SEND_POG_BEST", "ENABLE_SEND_PUPILMM", "ENABLE_SEND_EYE_LEFT",
    "ENABLE_SEND_EYE_RIGHT",
)  # fmt: skip


def find_gazepoint(address: str = DEFAULT_ADDRESS) -> list[Found]:
    """Return the tracker behind a server on this machine, if one answers."""
    try:
        connection = Connection(*host_and_port(address), timeout_s=1.0)
    except OSError:
        return []
    try:
        return [Found("gazepoint", _label(connection)[0], address)]
    except OSError:
        return []
    finally:
        connection.close()


def _label(connection: Connection) -> tuple[str, float | None]:
    """Return what the tracker is called, and its nominal rate if it tells."""
    product, serial = connection.ask("GET", "PRODUCT_ID"), connection.ask("GET", "SERIAL_ID")
    name = product.values.get("VALUE", "") if product else ""
    number = serial.values.get("VALUE", "") if serial else ""
    label = f"Gazepoint {name or 'tracker'}" + (f" ({number})" if number else "")
    rate_hz = product.number("RATE") if product else None
    return label, rate_hz if rate_hz is not None and 0 < rate_hz < 10_000 else None


class GazepointTracker(DeliveringTracker):
    """A Gazepoint tracker behind its server, Gazepoint Control.

    Connects when it is made, which may take seconds: the rate and the screen's pixels are the device's own. After a
    lost connection it connects again by itself.

    Parameters
    ----------
    screen
        Size in mm and viewing distance, which the server does not tell.
    address
        ``host:port`` of the server.
    rate_hz
        Assumed at first where the server does not tell a rate.

    Raises
    ------
    UserError
        If no server answers, it does not serve gaze, or the screen is not known.

    Attributes
    ----------
    out_of_order
        Samples that were left out because they were not later than all before.
    calibration_messages
        Where messages about a calibration go, while one runs.
    """

    name = "gazepoint"

    def __init__(
        self,
        screen: ScreenGeometry | KnownScreen | None = None,
        address: str = DEFAULT_ADDRESS,
        rate_hz: float | None = None,
    ) -> None:
        self._host, self._port = host_and_port(address)
        try:
            self._connection: Connection | None = Connection(self._host, self._port)
            try:
                self._label, told_hz = _label(self._connection)
                size = self._connection.ask("GET", "SCREEN_SIZE")
                told = KnownScreen(_pixels(size))
                geometry = told.filled(KnownScreen.of(screen)).geometry(f"The {self._label} at {address}")
            except BaseException:
                self._connection.close()
                raise
        except OSError as error:
            raise UserError(
                f"No Gazepoint server answers at {address} ({error}): start Gazepoint Control, then try again."
            ) from None
        super().__init__(geometry, told_hz or rate_hz or 60.0)
        self._rate_told = told_hz is not None
        self._seen = 0
        self._tick_hz = 0.0
        self._one_for_both = False
        self._envelope, self._times, self._rate = EnvelopeClock(), HostTimes(), RateMeter()
        self._newest_ns: int | None = None
        self._begin_ns: int | None = None
        self.out_of_order = self._backward_now = 0
        self._clock_at_s = 0.0
        self._answers: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._asking = threading.Lock()
        self.calibration_messages: queue.SimpleQueue[Message] | None = None
        self._warm = threading.Event()
        self._calibrator = GazepointCalibrator(self)
        self._thread = threading.Thread(target=self._run, name="gazepoint tracker", daemon=True)

    @property
    def label(self) -> str:
        """Which one it is, for people."""
        return self._label

    @property
    def calibrator(self) -> GazepointCalibrator:
        """The server's own calibration, with targets drawn by the caller."""
        return self._calibrator

    def _connect(self) -> None:
        assert self._connection is not None
        try:
            self._start_data(self._connection)
        except OSError as error:
            raise UserError(
                f"The {self._label} does not send gaze ({error}): restart Gazepoint Control, then try again."
            ) from None
        # The reader sets it, too, when the connection is lost at once.
        self._connected = True
        self._thread.start()
        # The first samples may be late; the clock is better after a few, and the rate may not have been told.
        self._warm.wait(1.0 if self._rate_told else 3.0)
        self._warm.set()

    def _begin(self) -> None:
        self._begin_ns = time.monotonic_ns()

    def _disconnect(self) -> None:
        if (connection := self._connection) is not None:
            connection.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        # It may have been connecting again.
        if (connection := self._connection) is not None:
            connection.close()

    def _start_data(self, connection: Connection) -> None:
        given = {what: connection.ask("SET", what, STATE=1) is not None for what in DATA}
        self._one_for_both = not (given["ENABLE_SEND_POG_LEFT"] or given["ENABLE_SEND_POG_RIGHT"])
        if self._one_for_both and not given["ENABLE_SEND_POG_BEST"]:
            raise ConnectionError("the server refuses ENABLE_SEND_POG_LEFT and ENABLE_SEND_POG_BEST")
        frequency = connection.ask("GET", "TIME_TICK_FREQUENCY")
        self._tick_hz = (frequency and frequency.number("FREQ")) or 0.0
        if connection.ask("SET", "ENABLE_SEND_DATA", STATE=1) is None:
            raise ConnectionError("the server refuses ENABLE_SEND_DATA")

    def request(self, verb: str, what: str, **values: object) -> Message:
        """Send a SET or GET while data flow, and return the answer; from any thread.

        Raises
        ------
        UserError
            If the server refuses, does not answer, or is gone.
        """
        with self._asking:
            while not self._answers.empty():
                self._answers.get_nowait()
            connection = self._connection
            try:
                if connection is None:
                    raise ConnectionError("the connection is lost")
                connection.send(verb, what, **values)
                deadline = time.monotonic() + ANSWER_S
                while True:
                    answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
                    if answer.id == what:
                        break
            except queue.Empty:
                raise UserError(
                    f"The {self._label} does not answer {what}: restart Gazepoint Control."
                ) from None
            except OSError as error:
                raise UserError(
                    f"The {self._label} is gone ({error}): check that Gazepoint Control runs."
                ) from None
        if answer.tag == "NACK":
            raise UserError(f"The {self._label} refuses {what}: restart Gazepoint Control, then try again.")
        return answer

    def _run(self) -> None:
        while not self._closing.is_set():
            connection = self._connection
            try:
                if connection is None:
                    self._connect_again()
                else:
                    self._read(connection)
            except OSError as error:
                if self._closing.is_set():
                    return
                if connection is not None:
                    connection.close()
                self._connection = None
                if self._connected:
                    self.tell("lost", f"{self._label} is lost ({error}); waiting for it to come back.")
                self._closing.wait(RETRY_S)

    def _connect_again(self) -> None:
        connection = Connection(self._host, self._port, timeout_s=1.0)
        try:
            self._start_data(connection)
        except BaseException:
            connection.close()
            raise
        if self._closing.is_set():
            connection.close()
            return
        self._connection = connection
        # The server may have started anew, and its clock with it; EnvelopeClock sees to that.
        self._rate.forget()

    def _read(self, connection: Connection) -> None:
        heard = time.monotonic()
        while not self._closing.is_set():
            messages = connection.read(0.2)
            now = time.monotonic()
            records = [message for message in messages if message.tag == "REC"]
            for message in messages:
                if message.tag in ("ACK", "NACK"):
                    self._answers.put(message)
                elif message.tag == "CAL" and (calibrating := self.calibration_messages) is not None:
                    calibrating.put(message)
            if records:
                heard = now
                if not self._connected:
                    self.tell("restored", f"{self._label} sends again.")
                self._take(records)
            elif now - heard > max(SILENT_S, 10 / self.rate_hz):
                raise TimeoutError("it sends nothing")

    def _take(self, records: list[Message]) -> None:
        taken: list[tuple[int, Message]] = []
        for record in records:
            device_ns = self._device_ns(record)
            if device_ns is None:
                continue
            newest_ns = self._newest_ns if self._newest_ns is not None else device_ns - 1
            backward_ns = newest_ns - device_ns
            if backward_ns >= 0:
                # A record out of order is alone; a clock that went back goes on from where it is.
                self._backward_now += 1
                if backward_ns < 1_000_000_000 and self._backward_now < 6:
                    self._count_backward()
                    continue
            offset_ns = self._envelope.offset_ns(newest_ns)
            agrees = self._envelope.see(device_ns, record.arrival_ns)
            if backward_ns >= 0 or not agrees:
                self._hand_on(taken, offset_ns)
                taken = []
                if agrees:
                    self._envelope.forget()
                    self._envelope.see(device_ns, record.arrival_ns)
                self._rate.forget()
                seconds = (offset_ns - (record.arrival_ns - device_ns)) / 1e9
                self.tell("clock", f"The clock of {self._label} jumped by {seconds:.3f} s.", jumped_s=seconds)
            self._backward_now = 0
            self._newest_ns = device_ns
            taken.append((device_ns, record))
        if taken:
            self._hand_on(taken, self._envelope.offset_ns(taken[-1][0]))

    def _count_backward(self) -> None:
        if not self.out_of_order:
            self.tell("note", f"{self._label} sends samples out of order; they are left out and counted.")
        self.out_of_order += 1

    def _device_ns(self, record: Message) -> int | None:
        seconds = record.number("TIME")
        if seconds is None and self._tick_hz > 0 and (ticks := record.number("TIME_TICK")) is not None:
            seconds = ticks / self._tick_hz
        return None if seconds is None or not abs(seconds) < LATEST_S else round(seconds * 1e9)

    def _hand_on(self, taken: list[tuple[int, Message]], offset_ns: int) -> None:
        if not taken:
            return
        device_ns = np.array([device for device, _ in taken], dtype=np.int64)
        now_ns = time.monotonic_ns()
        if now_ns / 1e9 - self._clock_at_s > CLOCK_EVERY_S or self.clock is None:
            self._clock_at_s = now_ns / 1e9
            self.clock = ClockOffset(offset_ns, self._envelope.uncertainty_ns, now_ns)
        measured = self._rate.see(device_ns)
        if measured is not None and abs(measured / self.rate_hz - 1) > 0.1:
            self.rate_hz = measured
            if self._warm.is_set():
                self.tell("rate", f"{self._label} sends {measured:.4g} samples a second.", rate_hz=measured)
        self._seen += len(taken)
        if self._seen > (0.4 * self.rate_hz if self._rate_told else 5) and (self._rate_told or measured):
            self._warm.set()
        time_ns = self._times.of(device_ns, offset_ns, taken[-1][1].arrival_ns)
        last = taken[-1][1]
        self.eyes = EyePositions(int(time_ns[-1]), self._eye_mm(last, "L"), self._eye_mm(last, "R"))
        if self._begin_ns is None:
            return
        block = _samples(device_ns, time_ns, [record for _, record in taken], self._one_for_both)
        block = block[time_ns >= self._begin_ns]
        if len(block):
            self.deliver(block)

    def _eye_mm(self, record: Message, side: str) -> Millimetres | None:
        """Return an eye's place; the camera is taken to look straight ahead from the middle of the lower edge."""
        x, y, z = (record.number(f"{side}EYE{axis}") for axis in "XYZ")
        if (
            x is None
            or y is None
            or z is None
            or not 0 < z < FARTHEST_M
            or record.values.get(f"{side}PUPILV", "1") == "0"
        ):
            return None
        return x * 1000, y * 1000 - self.geometry.height_mm / 2, z * 1000


def _pixels(size: Message | None) -> tuple[int, int] | None:
    width, height = (size.number(name) if size else None for name in ("WIDTH", "HEIGHT"))
    return (round(width), round(height)) if width and height and width > 0 and height > 0 else None


def _samples(device_ns: Int64s, time_ns: Int64s, records: list[Message], one_for_both: bool) -> Samples:
    left, right = (
        _valid(records, (f"{side}POGX", f"{side}POGY"), f"{side}POGV")
        for side in ("BB" if one_for_both else "LR")
    )
    pupils = [_valid(records, (f"{side}PMM",), f"{side}PMMV") for side in "LR"]
    return pack_samples(time_ns, device_ns, left, right, np.concatenate(pupils, axis=1))


def _valid(records: list[Message], names: Sequence[str], flag: str) -> Floats:
    """Return the values (N, names) of records; NaN where one is missing or they are flagged as invalid."""
    values = np.array([[record.number(name) for name in names] for record in records], dtype=np.float64)
    good = np.array([record.number(flag) == 1 for record in records])
    good &= np.isfinite(values).all(axis=1)
    return np.where(good[:, np.newaxis], values, math.nan)
