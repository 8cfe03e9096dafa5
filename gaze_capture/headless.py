"""Recording from a tracker without a window."""

from __future__ import annotations

import contextlib
import datetime
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording import Samples
from gaze_capture.recording_codec import RecordingHeader, RecordingWriter
from gaze_capture.trackers.tracker import Tracker

SILENCE_S = 5.0
"""A recording stops when its tracker delivers nothing for so long."""


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


def record_headless(
    folder: Path,
    tracker: Tracker,
    annotator: str,
    seconds: float | None = None,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> RecordingResult:
    """Record from a tracker without showing an image; the folder's name becomes the recording's id.

    Ends after some seconds, with the tracker's last sample, or with Ctrl-C, whichever comes first.

    Parameters
    ----------
    tracker
        Not yet opened; it is closed in the end.
    progress
        Called about every 0.2 s with seconds done, seconds in total (0 if unknown) and a label.

    Raises
    ------
    UserError
        If the tracker cannot be used, delivers nothing for 5 s, or writing fails; what was stored is intact.
    """
    if seconds is not None and not seconds > 0:
        raise UserError(f"A recording must last longer than 0 s, not {seconds:g}.")
    tracker.open()
    try:
        with RecordingWriter(folder, header_of(tracker, folder.name, annotator)) as writer:
            intake = _Intake(writer, seconds)
            lasted_s = seconds
            unsubscribe = tracker.subscribe(intake.receive)
            try:
                _wait(tracker, writer, intake, seconds, progress)
            except KeyboardInterrupt:
                lasted_s = None
            finally:
                unsubscribe()
            if lasted_s is None:
                # Half an interval more, or else the last sample itself would not be expected.
                lasted_s = intake.lasted_s + 0.5 / tracker.rate_hz
            expected = max(tracker.expected(lasted_s), intake.received)
            counts = writer.close(expected)
    finally:
        tracker.close()
    return RecordingResult(folder.name, counts.expected, counts.received, counts.stored)


class _Intake:
    """Passes samples on to the writer until the time is over."""

    def __init__(self, writer: RecordingWriter, seconds: float | None) -> None:
        self._writer = writer
        self._limit_ns = None if seconds is None else round(seconds * 1e9)
        self._first_ns = 0
        self.last_arrival = time.monotonic()
        self.lasted_s = 0.0
        self.received = 0
        self.full = threading.Event()

    def receive(self, block: Samples) -> None:
        if self.full.is_set():
            return
        times = block["time_ns"]
        if self.received == 0:
            self._first_ns = int(times[0])
        if self._limit_ns is not None:
            kept = int(np.searchsorted(times, self._first_ns + self._limit_ns))
            if kept < len(block):
                block = block[:kept]
                self.full.set()
        if len(block):
            self.received += len(block)
            self.lasted_s = (int(block["time_ns"][-1]) - self._first_ns) / 1e9
            # A failure is kept by the writer and told by the thread that waits.
            with contextlib.suppress(UserError):
                self._writer.add_samples(block)
        self.last_arrival = time.monotonic()


def _wait(
    tracker: Tracker,
    writer: RecordingWriter,
    intake: _Intake,
    seconds: float | None,
    progress: Callable[[int, int, str], None] | None,
) -> None:
    total = 0 if seconds is None else math.ceil(seconds)
    told = 0.0
    while not intake.full.wait(0.02):
        if writer.failure is not None:
            raise writer.failure
        if tracker.ended:
            return
        now = time.monotonic()
        if now - intake.last_arrival > max(SILENCE_S, 3 / tracker.rate_hz):
            raise UserError(
                f"The {tracker.name} tracker delivers nothing: check its cable and power, then record again. "
                f"{intake.received} samples recorded before are safe in {writer.folder}."
            )
        if progress is not None and now - told > 0.2:
            progress(min(int(intake.lasted_s), total) if total else int(intake.lasted_s), total, "recording")
            told = now
