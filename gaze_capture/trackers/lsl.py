"""Gaze streams of the lab streaming layer, whoever sends them."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording import Floats, Int64s, ScreenGeometry, pack_samples
from gaze_capture.trackers.clocks import JUMP_NS, EnvelopeClock, HostTimes, RateMeter
from gaze_capture.trackers.delivery import DeliveringTracker
from gaze_capture.trackers.lsl_layout import STREAM_TYPE, Gaze, Layout
from gaze_capture.trackers.screen import KnownScreen
from gaze_capture.trackers.tracker import ClockOffset, EyePositions, Found, Millimetres

SEARCH_S = 2.0
CLOCK_EVERY_S = 5.0
SILENT_S = 1.5
"""A stream that sends nothing for so long, or for ten of its intervals, is lost."""
LATEST_S = 9e9
"""A time stamp beyond this, or none, is garbage."""
FOREIGN_NS = 5_000_000_000
"""Time stamps that are farther than this from their arrival are not of LSL's clock, whatever the sender thinks."""


@cache
def pylsl() -> Any:
    """Return the library.

    Raises
    ------
    UserError
        If it is not installed, or cannot find its own liblsl.
    """
    try:
        _quieten()
        return importlib.import_module("pylsl")
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            f"LSL streams need the package pylsl ({error}): install it with pip install 'gaze-insight[lsl]'."
        ) from None


def _unreachable() -> tuple[type[Exception], ...]:
    """Return what the library raises when a stream does not answer, or is gone and cannot be recovered."""
    return TimeoutError, importlib.import_module("pylsl.util").LostError


def _quieten() -> None:
    """Keep liblsl from writing of every connection on stderr, unless someone has configured it."""
    files = ("lsl_api.cfg", "~/lsl_api/lsl_api.cfg", "/etc/lsl_api/lsl_api.cfg")
    if "LSLAPICFG" in os.environ or any(Path(name).expanduser().exists() for name in files):
        return
    library = importlib.import_module("pylsl.lib").lib
    if hasattr(library, "lsl_set_config_content"):
        library.lsl_set_config_content(b"[log]\nlevel = -2\n")


def host_ahead_ns(lsl: Any) -> tuple[int, int]:
    """Return by how much the host's monotonic clock is ahead of LSL's on this machine, and within how much that is."""
    best: tuple[int, int] | None = None
    for _ in range(20):
        # Some systems' clocks stand still for 16 ms; just after it moved, it is right.
        old = before = time.monotonic_ns()
        while before == old:
            before = time.monotonic_ns()
        read = round(lsl.local_clock() * 1e9)
        after = time.monotonic_ns()
        if before <= read <= after:
            # One and the same clock, as on Linux: no measurement could be better.
            return 0, 0
        if best is None or after - before < 2 * best[1]:
            best = ((before + after) // 2 - read, (after - before) // 2)
    assert best is not None
    return best


def find_lsl(seconds: float = SEARCH_S) -> list[Found]:
    """Return the gaze streams that answer within some seconds; takes as long.

    Raises
    ------
    UserError
        If pylsl is missing.
    """
    streams = [
        info for info in pylsl().resolve_streams(seconds) if info.type().lower() == STREAM_TYPE.lower()
    ]
    sources = [info.source_id() or info.name() for info in streams]
    return sorted(
        (
            Found("lsl", _label(info), source if sources.count(source) == 1 else info.uid())
            for info, source in zip(streams, sources, strict=True)
        ),
        key=lambda found: (found.label, found.address),
    )


def _label(info: Any) -> str:
    rate = info.nominal_srate()
    return f"{info.name()} on {info.hostname()}, {f'{rate:g} Hz' if rate > 0 else 'irregular rate'}"


def _resolve(address: str, seconds: float) -> Any | None:
    """Return the stream of an address as soon as it answers; None if none does."""
    quote = '"' if "'" in address else "'"
    if quote in address:
        raise UserError(f"An LSL stream's address cannot have both kinds of quotes: {address}")
    same = " or ".join(f"{name}={quote}{address}{quote}" for name in ("source_id", "uid", "name"))
    kinds = f"type='{STREAM_TYPE}' or type='{STREAM_TYPE.lower()}'"
    streams = pylsl().resolve_bypred(f"({kinds}) and ({same})", 1, seconds)
    return streams[0] if streams else None


class LslTracker(DeliveringTracker):
    """A gaze stream of any sender.

    Connects when it is made, which may take seconds: geometry and rate are the stream's own.

    Parameters
    ----------
    address
        The stream's source id, uid or name.
    screen
        What the caller knows of the screen, for what the stream does not tell.
    rate_hz
        Assumed at first for a stream without a nominal rate; it is measured then.
    min_confidence
        Gaze of less confidence is invalid.

    Raises
    ------
    UserError
        If there is no such stream, its channels cannot be told, or the screen is not known.

    Attributes
    ----------
    out_of_order
        Samples that were left out because they were not later than all before.
    """

    name = "lsl"

    def __init__(
        self,
        address: str,
        screen: ScreenGeometry | KnownScreen | None = None,
        rate_hz: float | None = None,
        *,
        min_confidence: float = 0.6,
        search_s: float = SEARCH_S,
    ) -> None:
        info = _resolve(address, search_s)
        if info is None:
            raise UserError(
                f"No LSL gaze stream {address!r} answers on this network: start its sender, then try again."
            )
        self._min_confidence = min_confidence
        self._screen = KnownScreen.of(screen)
        self._inlet, self._layout = self._connected_to(info)
        self.simulated_from = self._layout.simulated_from
        nominal = float(info.nominal_srate())
        super().__init__(self._layout.geometry, nominal if nominal > 0 else rate_hz or 60.0)
        self._nominal = nominal > 0
        self._label = self._layout.label or _label(info)
        self._address = info.source_id() or info.name()
        self._thread = threading.Thread(target=self._run, name="lsl tracker", daemon=True)
        self._times, self._rate = HostTimes(), RateMeter()
        self._envelope: EnvelopeClock | None = None
        self._newest_ns = self._begin_ns = 0
        self.out_of_order = 0

    @property
    def label(self) -> str:
        """Which one it is, for people."""
        return self._label

    def _connected_to(self, info: Any) -> tuple[Any, Layout]:
        if info.channel_format() == pylsl().cf_string:
            raise UserError(f"The LSL stream {info.name()!r} sends texts, not gaze: choose another stream.")
        inlet = pylsl().StreamInlet(info, max_buflen=360, recover=bool(info.source_id()))
        try:
            return inlet, Layout(inlet.info(5.0).as_xml(), self._screen, self._min_confidence)
        except _unreachable():
            raise UserError(f"The LSL stream {info.name()!r} does not answer: restart its sender.") from None

    def _connect(self) -> None:
        try:
            self._inlet.open_stream(5.0)
            self._measure_clock(5.0)
            if not self._nominal:
                self._measure_rate()
        except _unreachable():
            raise UserError(f"The LSL stream {self._label} does not answer: restart its sender.") from None

    def _measure_rate(self) -> None:
        """Listen for a second to a stream that has no nominal rate."""
        _, stamps = self._inlet.pull_chunk(1.0, 4096, as_numpy=True)
        intervals = np.diff(stamps)
        if len(intervals) >= 5 and np.median(intervals) > 0:
            self.rate_hz = 1 / float(np.median(intervals))

    def _begin(self) -> None:
        self._begin_ns = time.monotonic_ns()
        self._inlet.flush()
        self._thread.start()

    def _disconnect(self) -> None:
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        self._inlet = None

    def _measure_clock(self, timeout_s: float) -> None:
        """Measure the sender's clock; raises TimeoutError if it does not answer."""
        if self._envelope is not None:
            return
        # pylsl's own time_correction() does not tell the uncertainty.
        library = importlib.import_module("pylsl.lib").lib
        correction = library.lsl_time_correction_ex
        correction.restype = ctypes.c_double
        remote, spread, error = ctypes.c_double(), ctypes.c_double(), ctypes.c_int()
        offset_s = correction(
            self._inlet.obj,
            ctypes.byref(remote),
            ctypes.byref(spread),
            ctypes.c_double(timeout_s),
            ctypes.byref(error),
        )
        if error.value:
            raise TimeoutError
        ahead_ns, within_ns = host_ahead_ns(pylsl())
        measured = ClockOffset(
            round(offset_s * 1e9) + ahead_ns, round(spread.value * 1e9) + within_ns, time.monotonic_ns()
        )
        before = self.clock
        self.clock = measured
        if before is not None and abs(measured.offset_ns - before.offset_ns) > JUMP_NS:
            self._tell_jump((before.offset_ns - measured.offset_ns) / 1e9)

    def _run(self) -> None:
        if self._layout.one_for_both:
            self.tell("note", f"{self._label} tells one position for both eyes; it is stored for each.")
        heard = clock_at = time.monotonic()
        # Fast streams are read in blocks: 4 ms are far below what an eye or a display resolves.
        pause_s = 0.004 if self.rate_hz > 200 or not self._nominal else 0.0
        while not self._closing.is_set():
            try:
                values, stamps = self._inlet.pull_chunk(0.1, 1024, min_samples=1, as_numpy=True)
            except _unreachable():
                self._reconnect()
                heard = time.monotonic()
                continue
            now = time.monotonic()
            if len(stamps):
                heard = now
                if not self._connected:
                    # Another machine, or the same one after a restart, has another clock.
                    clock_at = self._clock_after_a_gap(now)
                    self.tell("restored", f"{self._label} sends again.")
                self._take(values, stamps)
            elif self._connected and now - heard > max(SILENT_S, 10 / self.rate_hz):
                self._rate.forget()
                self.tell("lost", f"{self._label} sends nothing; waiting for it to come back.")
            if now - clock_at > CLOCK_EVERY_S:
                clock_at = now
                with contextlib.suppress(TimeoutError):
                    self._measure_clock(0.0)
            if pause_s:
                self._closing.wait(pause_s)

    def _clock_after_a_gap(self, now: float) -> float:
        with contextlib.suppress(TimeoutError):
            self._measure_clock(1.0)
            return now
        return now - CLOCK_EVERY_S

    def _reconnect(self) -> None:
        """Look for a stream that LSL itself cannot recover, until it is back."""
        self._rate.forget()
        if self._connected:
            self.tell("lost", f"{self._label} is gone; waiting for it to come back.")
        while not self._closing.is_set():
            info = _resolve(self._address, 0.5)
            if info is None:
                continue
            try:
                self._inlet, layout = self._connected_to(info)
                self._inlet.open_stream(2.0)
            except (UserError, OSError, RuntimeError):
                self._closing.wait(0.5)
                continue
            if layout.geometry != self.geometry:
                self.tell(
                    "note", f"{self._label} came back with another screen; the first one's size is kept."
                )
            self._layout = layout
            return

    def _take(self, values: Floats, stamps: Floats) -> None:
        sane = np.abs(stamps) < LATEST_S
        device_ns, values = np.round(stamps[sane] * 1e9).astype(np.int64), values[sane]
        if not len(device_ns):
            return
        newest = np.maximum.accumulate(np.concatenate([[self._restarted(device_ns)], device_ns]))
        ascending = device_ns > newest[:-1]
        self._tell_misplaced(int(len(device_ns) - ascending.sum()))
        device_ns, values = device_ns[ascending], values[ascending]
        if not len(device_ns):
            return
        self._newest_ns = int(device_ns[-1])
        self._follow_rate(device_ns)
        arrival_ns = time.monotonic_ns()
        time_ns = self._times.of(device_ns, self._offset_ns(device_ns, arrival_ns), arrival_ns)
        fresh = time_ns >= self._begin_ns
        if not fresh.any():
            return
        gaze = self._layout.read(values[fresh])
        self.eyes = _eyes_of(gaze, int(time_ns[-1]))
        self.deliver(
            pack_samples(time_ns[fresh], device_ns[fresh], gaze.left_xy, gaze.right_xy, gaze.pupil_mm)
        )

    def _offset_ns(self, device_ns: Int64s, arrival_ns: int) -> int:
        """Return host minus sender time; by the arrivals where the time stamps are not of LSL's clock."""
        assert self.clock is not None
        last_ns = int(device_ns[-1])
        if not self._times.used and abs(last_ns + self.clock.offset_ns - arrival_ns) > FOREIGN_NS:
            self._envelope = EnvelopeClock()
            self.tell(
                "note", f"{self._label} has a clock of its own; times are found from when its samples arrive."
            )
        if self._envelope is None:
            return self.clock.offset_ns
        for stamp_ns in device_ns.tolist():
            before_ns = self._envelope.offset_ns(stamp_ns)
            if not self._envelope.see(stamp_ns, arrival_ns):
                self._tell_jump((before_ns - arrival_ns + stamp_ns) / 1e9)
        offset_ns = self._envelope.offset_ns(last_ns)
        self.clock = ClockOffset(offset_ns, self._envelope.uncertainty_ns, arrival_ns)
        return offset_ns

    def _tell_jump(self, seconds: float) -> None:
        self.tell("clock", f"The clock of {self._label} jumped by {seconds:.3f} s.", jumped_s=seconds)

    def _restarted(self, device_ns: Int64s) -> int:
        """Return the newest device time so far, or nothing where the clock began anew."""
        if self._newest_ns and device_ns[0] < self._newest_ns - 1_000_000_000:
            if self._envelope is not None:
                self._rate.forget()
                return int(device_ns[0]) - 1
            with contextlib.suppress(TimeoutError):
                self._measure_clock(1.0)
            if (
                self.clock is not None
                and device_ns[-1] + self.clock.offset_ns > time.monotonic_ns() - 500_000_000
            ):
                self._rate.forget()
                return int(device_ns[0]) - 1
        return self._newest_ns

    def _tell_misplaced(self, count: int) -> None:
        if count and not self.out_of_order:
            self.tell("note", f"{self._label} sends samples out of order; they are left out and counted.")
        self.out_of_order += count

    def _follow_rate(self, device_ns: Int64s) -> None:
        measured = self._rate.see(device_ns)
        if measured is not None and abs(measured / self.rate_hz - 1) > (0.1 if self._nominal else 0.02):
            self.rate_hz = measured
            self.tell("rate", f"{self._label} sends {measured:.4g} samples a second.", rate_hz=measured)


def _eyes_of(gaze: Gaze, time_ns: int) -> EyePositions | None:
    if gaze.eyes_mm is None:
        return None

    def last(eye: Floats) -> Millimetres | None:
        x, y, z = eye[-1].tolist()
        return (x, y, z) if np.isfinite(eye[-1]).all() else None

    return EyePositions(time_ns, last(gaze.eyes_mm[0]), last(gaze.eyes_mm[1]))
