"""Recording from a tracker without a window."""

from __future__ import annotations

import contextlib
import datetime
import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gaze_capture.certificate import conclude
from gaze_capture.errors import UserError
from gaze_capture.recording import EventKind, Samples
from gaze_capture.recording_codec import RecordingHeader, RecordingWriter
from gaze_capture.trackers.tracker import ClockOffset, Tracker, TrackerEvent

SILENCE_S = 5.0
"""A recording stops when its tracker delivers nothing for so long ..."""
RETURN_S = 60.0
"""... or, if it told that it was lost, when it has not come back after so long."""

STORED_AS: dict[str, EventKind] = {
    "lost": "connection", "restored": "connection", "clock": "clock", "rate": "rate", "note": "note",
}  # fmt: skip
"""How recordings name what trackers tell."""


@dataclass(frozen=True)
class RecordingResult:
    """What :func:`record_headless` recorded."""

    recording: str
    """The recording's id."""
    expected: int
    """Samples that the tracker should have delivered in that time."""
    received: int
    stored: int
    """Samples on disk."""


def header_of(tracker: Tracker, recording_id: str, annotator: str) -> RecordingHeader:
    """Return the header of a recording that begins now, with an open tracker."""
    return RecordingHeader(
        id=recording_id,
        annotator=annotator,
        tracker=tracker.name,
        geometry=tracker.geometry,
        started_utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
        simulated_from=tracker.simulated_from,
        notes={"rate_hz": tracker.rate_hz},
    )


def store_event(writer: RecordingWriter, event: TrackerEvent) -> None:
    """Store what a tracker told, with its text; a connection's event also says its ``state``: lost or restored.

    Raises
    ------
    UserError
        If writing failed.
    """
    kind = STORED_AS[event.kind]
    state = {"state": event.kind} if kind == "connection" else {}
    writer.add_event(kind, event.time_ns, {**state, "text": event.text, **event.values})


def store_clock(writer: RecordingWriter, tracker: Tracker, known: ClockOffset | None) -> ClockOffset | None:
    """Store how far the tracker's clock is off the host's, where that was measured anew; return what is known now.

    Raises
    ------
    UserError
        If writing failed.
    """
    clock = tracker.clock
    if clock is None or clock == known:
        return known
    values = {"offset_ns": clock.offset_ns, "uncertainty_ns": clock.uncertainty_ns}
    writer.add_event("clock", clock.measured_ns, values)
    return clock


def record_headless(
    folder: Path,
    tracker: Tracker,
    annotator: str,
    seconds: float | None = None,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> RecordingResult:
    """Record from a tracker without showing an image; the folder's name becomes the recording's id.

    Ends after some seconds, with the tracker's last sample, or with Ctrl-C, whichever comes first. A tracker that is
    lost for less than a minute goes on being recorded; what it should have delivered meanwhile counts as expected.

    Parameters
    ----------
    tracker
        Not yet opened; it is closed in the end.
    progress
        Called about every 0.2 s with seconds done, seconds in total (0 if unknown) and a label.

    Raises
    ------
    UserError
        If the tracker cannot be used, delivers nothing for 5 s, is lost for 60 s, or writing fails; what was stored
        is intact.
    """
    if seconds is not None and not seconds > 0:
        raise UserError(f"A recording must last longer than 0 s, not {seconds:g}.")
    told: queue.SimpleQueue[TrackerEvent] = queue.SimpleQueue()
    unwatch = tracker.watch(told.put)
    try:
        tracker.open()
        with RecordingWriter(folder, header_of(tracker, folder.name, annotator)) as writer:
            intake = _Intake(writer, seconds)
            rates = Rates(tracker)
            unsubscribe = tracker.subscribe(intake.receive)
            try:
                _wait(tracker, writer, intake, rates, told, seconds, progress)
                lasted_s = seconds
            except KeyboardInterrupt:
                lasted_s = None
            finally:
                unsubscribe()
                _store_told(writer, rates, told)
            if lasted_s is None:
                # Half an interval more, or else the last sample itself would not be expected.
                lasted_s = intake.lasted_s + 0.5 / tracker.rate_hz
            expected = max(rates.expected(intake.first_ns, lasted_s), intake.received)
            counts = writer.close(expected)
        conclude(folder)
    finally:
        unwatch()
        tracker.close()
    return RecordingResult(folder.name, counts.expected, counts.received, counts.stored)


class Rates:
    """The tracker's sampling rate, period by period."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._periods = [(0, tracker.rate_hz)]

    def changed(self, event: TrackerEvent) -> None:
        """Note that the rate is another one from an event of the kind ``rate`` on."""
        self._periods.append((event.time_ns, event.values.get("rate_hz", self._tracker.rate_hz)))

    def expected(self, first_ns: int, seconds: float) -> int:
        """Return how many samples should come within some seconds from the first on."""
        if len(self._periods) == 1:
            return self._tracker.expected(seconds)
        end_ns = first_ns + round(seconds * 1e9)
        starts = [min(max(start, first_ns), end_ns) for start, _ in self._periods]
        lasted = np.diff([*starts, end_ns]) / 1e9
        return math.ceil(float(lasted @ [rate for _, rate in self._periods]) - 1e-9)


def _store_told(writer: RecordingWriter, rates: Rates, told: queue.SimpleQueue[TrackerEvent]) -> bool | None:
    """Store what was told since; return whether the connection was restored (True) or lost (False) last, if told."""
    restored = None
    while not told.empty():
        event = told.get_nowait()
        if event.kind == "rate":
            rates.changed(event)
        elif event.kind in ("lost", "restored"):
            restored = event.kind == "restored"
        # A failure is kept by the writer and told by the thread that waits.
        with contextlib.suppress(UserError):
            store_event(writer, event)
    return restored


class _Intake:
    """Passes samples on to the writer until the time is over."""

    def __init__(self, writer: RecordingWriter, seconds: float | None) -> None:
        self._writer = writer
        self._limit_ns = None if seconds is None else round(seconds * 1e9)
        self.first_ns = 0
        self.last_arrival = time.monotonic()
        self.lasted_s = 0.0
        self.received = 0
        self.full = threading.Event()

    def receive(self, block: Samples) -> None:
        if self.full.is_set():
            return
        times = block["time_ns"]
        if self.received == 0:
            self.first_ns = int(times[0])
        if self._limit_ns is not None:
            kept = int(np.searchsorted(times, self.first_ns + self._limit_ns))
            if kept < len(block):
                block = block[:kept]
                self.full.set()
        if len(block):
            self.received += len(block)
            self.lasted_s = (int(block["time_ns"][-1]) - self.first_ns) / 1e9
            # A failure is kept by the writer and told by the thread that waits.
            with contextlib.suppress(UserError):
                self._writer.add_samples(block)
        self.last_arrival = time.monotonic()


def _wait(
    tracker: Tracker,
    writer: RecordingWriter,
    intake: _Intake,
    rates: Rates,
    told: queue.SimpleQueue[TrackerEvent],
    seconds: float | None,
    progress: Callable[[int, int, str], None] | None,
) -> None:
    total = 0 if seconds is None else math.ceil(seconds)
    progress_at = clock_at = 0.0
    clock: ClockOffset | None = None
    lost_at: float | None = None
    while not intake.full.wait(0.02):
        if writer.failure is not None:
            raise writer.failure
        now = time.monotonic()
        if now - clock_at > 1.0:
            clock, clock_at = store_clock(writer, tracker, clock), now
        if tracker.ended:
            return
        restored = _store_told(writer, rates, told)
        if restored is not None:
            lost_at = None if restored else now
            # It has as long as any to deliver again.
            intake.last_arrival = now
        silent_s = now - intake.last_arrival
        if lost_at is not None:
            over_at = math.inf if seconds is None else intake.first_ns / 1e9 + seconds + SILENCE_S
            if intake.received and now > over_at:
                return
            if now - lost_at > RETURN_S:
                raise UserError(
                    f"The {tracker.name} tracker was lost and did not come back: check its cable and power, then "
                    f"record again. {intake.received} samples recorded before are safe in {writer.folder}."
                )
        elif silent_s > max(SILENCE_S, 3 / tracker.rate_hz):
            raise UserError(
                f"The {tracker.name} tracker delivers nothing: check its cable and power, then record again. "
                f"{intake.received} samples recorded before are safe in {writer.folder}."
            )
        if progress is not None and now - progress_at > 0.2:
            label = "recording" if lost_at is None else "lost, waiting for it"
            progress(min(int(intake.lasted_s), total) if total else int(intake.lasted_s), total, label)
            progress_at = now
