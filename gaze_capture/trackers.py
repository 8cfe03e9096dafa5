"""Sources of gaze samples behind one protocol, and recording from them without a window."""

from __future__ import annotations

import contextlib
import datetime
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording import Floats, Int64s, Recording, Samples, ScreenGeometry, pack_samples
from gaze_capture.recording_codec import RecordingHeader, RecordingWriter
from gaze_capture.simulate import DESK_SCREEN
from gaze_capture.synthetic_eye import MeasurementErrors, Script, TrackerQuality

SampleCallback = Callable[[Samples], None]
"""Takes a block of samples (N >= 1), ascending in time. Called on the tracker's own thread: it may only enqueue,
must not raise, and may keep the block."""


SILENCE_S = 5.0
"""A recording stops when its tracker delivers nothing for so long."""


class Tracker(Protocol):
    """A source of gaze samples. Nothing of a vendor is visible from here."""

    @property
    def name(self) -> str:
        """The kind of tracker, as recordings name it."""

    @property
    def geometry(self) -> ScreenGeometry:
        """The screen that positions are normalised to."""

    @property
    def rate_hz(self) -> float:
        """Nominal samples a second."""

    @property
    def simulated_from(self) -> str | None:
        """What the gaze was made from if no person looks, as in :class:`Recording`."""

    @property
    def ended(self) -> bool:
        """Whether no more samples will come, be it that a replay is over or the tracker was closed."""

    def open(self) -> None:
        """Connect; may take seconds. Raises UserError if the tracker cannot be used."""

    def subscribe(self, callback: SampleCallback) -> Callable[[], None]:
        """Deliver samples to a callback from now on; returns what ends that, after which it is never called."""

    def expected(self, seconds: float) -> int:
        """Return how many samples should come within some seconds from the first on."""

    def close(self) -> None:
        """Stop and disconnect; does nothing the second time."""


PacedT = TypeVar("PacedT", bound="_PacedTracker")


class _PacedTracker:
    """Runs a thread that hands out samples when they are due on the host clock."""

    name = "paced"
    simulated_from: str | None = None

    def __init__(self, geometry: ScreenGeometry, rate_hz: float) -> None:
        if not rate_hz > 0:
            raise UserError(f"A tracker's rate must be above 0 Hz, not {rate_hz:g}.")
        self.geometry = geometry
        self.rate_hz = rate_hz
        self._callbacks: list[SampleCallback] = []
        # Held while callbacks run, so that unsubscribing can promise silence.
        self._delivering = threading.RLock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._start_ns = 0

    @property
    def ended(self) -> bool:
        """Whether no more samples will come."""
        return self._closing.is_set()

    def open(self) -> None:
        """Make ready; the clock starts with the first subscription."""
        if self._thread is not None or self._closing.is_set():
            raise RuntimeError("a tracker is opened once")
        self._thread = threading.Thread(target=self._run, name=f"{self.name} tracker", daemon=True)

    def subscribe(self, callback: SampleCallback) -> Callable[[], None]:
        """Deliver samples to a callback from now on; returns what ends that."""
        if self._thread is None:
            raise RuntimeError("open the tracker first")
        with self._delivering:
            self._callbacks.append(callback)
        if not self._thread.is_alive() and not self.ended:
            self._start_ns = time.monotonic_ns()
            self._thread.start()

        def unsubscribe() -> None:
            with self._delivering, contextlib.suppress(ValueError):
                self._callbacks.remove(callback)

        return unsubscribe

    def expected(self, seconds: float) -> int:
        """Return how many samples should come within some seconds from the first on."""
        return math.ceil(seconds * self.rate_hz - 1e-9)

    def close(self) -> None:
        """Stop the thread; does nothing the second time."""
        self._closing.set()
        if (
            self._thread is not None
            and self._thread.is_alive()
            and self._thread is not threading.current_thread()
        ):
            self._thread.join()

    def __enter__(self: PacedT) -> PacedT:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        delivered = 0
        # Fast trackers deliver in blocks, too; 4 ms are far below what an eye or a display resolves.
        pause_s = max(0.004, min(0.5 / self.rate_hz, 0.02))
        while not self._closing.is_set():
            due = self._due(time.monotonic_ns() - self._start_ns)
            if due is None:
                break
            if due > delivered:
                block = self._block(delivered, due)
                with self._delivering:
                    for callback in tuple(self._callbacks):
                        callback(block)
                delivered = due
            self._closing.wait(pause_s)
        self._closing.set()

    def _due(self, elapsed_ns: int) -> int | None:
        """Return how many samples are due after some time; None when all have been handed out."""
        return int(elapsed_ns * self.rate_hz / 1e9) + 1

    def _time_ns(self, first: int, stop: int) -> Int64s:
        return self._start_ns + np.round(np.arange(first, stop) * (1e9 / self.rate_hz)).astype(np.int64)

    def _block(self, first: int, stop: int) -> Samples:
        raise NotImplementedError


class SimulatedTracker(_PacedTracker):
    """A tracker before which a synthetic eye views freely or follows a script.

    Parameters
    ----------
    script
        Where the eye looks first; afterwards, and without one, it wanders over the screen.
    simulated_from
        ``"masks"`` if scripts are drawn from masks: whatever is recorded will say so.
    """

    name = "simulated"

    _PREPARED_S = 60.0

    def __init__(
        self,
        rate_hz: float = 120.0,
        geometry: ScreenGeometry = DESK_SCREEN,
        *,
        script: Script | None = None,
        seed: int = 0,
        quality: TrackerQuality | None = None,
        bias_deg: tuple[float, float] = (0.0, 0.0),
        simulated_from: str = "saliency",
    ) -> None:
        super().__init__(geometry, rate_hz)
        self.simulated_from = simulated_from
        self._rng = np.random.default_rng(seed)
        self._quality = quality or TrackerQuality()
        self._bias = np.array(bias_deg)
        self._script_lock = threading.Lock()
        self._script = script or self._free_viewing(np.zeros(2))
        self._script_from_ms = 0.0
        self._errors: MeasurementErrors | None = None
        self._errors_first = 0

    def follow(self, script: Script) -> None:
        """Let the eye leave for the script's first place now, and follow the script from there."""
        with self._script_lock:
            now_ms = max(0.0, (time.monotonic_ns() - self._start_ns) / 1e6) if self._start_ns else 0.0
            here = self._script.track(np.array([now_ms - self._script_from_ms]))
            self._script = Script(
                np.concatenate([here, script.xy_deg]), np.concatenate([[0.0], script.duration_ms])
            )
            self._script_from_ms = now_ms

    def _free_viewing(self, from_deg: Floats) -> Script:
        """Draw some ten seconds of looking around."""
        half = self.geometry.degrees_from_normalised(np.ones(2))
        places = np.clip(self._rng.normal(0, 0.4, (30, 2)), -0.95, 0.95) * half
        durations = np.clip(260 * np.exp(self._rng.normal(0, 0.5, 30)), 80, 1500)
        return Script(np.concatenate([from_deg[np.newaxis], places]), np.concatenate([[100.0], durations]))

    def _gaze_deg(self, time_ms: Floats) -> Floats:
        with self._script_lock:
            track = self._script.track(time_ms - self._script_from_ms)
            while time_ms[-1] > (end := self._script_from_ms + self._script.end_ms):
                self._script, self._script_from_ms = self._free_viewing(self._script.xy_deg[-1]), end
                later = time_ms > end
                track[later] = self._script.track(time_ms[later] - end)
        return track

    def _block(self, first: int, stop: int) -> Samples:
        prepared = max(2, math.ceil(self._PREPARED_S * self.rate_hz))
        parts = []
        while first < stop:
            if self._errors is None or first - self._errors_first >= prepared:
                self._errors = MeasurementErrors.draw(prepared, 1000 / self.rate_hz, self._quality, self._rng)
                self._errors_first = first
            end = min(stop, self._errors_first + prepared)
            time_ns = self._time_ns(first, end)
            gaze_deg = self._gaze_deg((time_ns - self._start_ns) / 1e6) + self._bias
            errors = self._errors[first - self._errors_first : end - self._errors_first]
            # The device's clock was started at another time and runs 20 ppm fast.
            device_time_ns = ((time_ns - self._start_ns) * 1.00002).astype(np.int64) + 77_000_000_000
            parts.append(errors.applied(gaze_deg, time_ns, device_time_ns, self.geometry))
            first = end
        return np.concatenate(parts)


class ReplayTracker(_PacedTracker):
    """Replays a recording's samples as if they were measured now; ends with the last of them.

    Parameters
    ----------
    speed
        How many times faster than recorded.
    """

    name = "replay"

    def __init__(self, recording: Recording, speed: float = 1.0) -> None:
        if not speed > 0:
            raise UserError(f"The replay's speed must be above 0, not {speed:g}.")
        if len(recording.time_ns) < 2:
            raise UserError(f"The recording {recording.id} has too few samples to be replayed.")
        intervals = np.diff(recording.time_ns)
        super().__init__(recording.geometry, speed * 1e9 / float(np.median(intervals)))
        self.simulated_from = recording.simulated_from
        self._samples = recording.samples
        self._elapsed_ns = ((recording.time_ns - recording.time_ns[0]) / speed).astype(np.int64)

    def expected(self, seconds: float) -> int:
        """Return how many of the recording's samples fall within some seconds from the first on."""
        return int(np.searchsorted(self._elapsed_ns, seconds * 1e9))

    def _due(self, elapsed_ns: int) -> int | None:
        due = int(np.searchsorted(self._elapsed_ns, elapsed_ns, side="right"))
        # One more round after the last sample, so that it is delivered before the end is told.
        return None if elapsed_ns > self._elapsed_ns[-1] + 50_000_000 else due

    def _block(self, first: int, stop: int) -> Samples:
        block = self._samples[first:stop].copy()
        block["time_ns"] = self._start_ns + self._elapsed_ns[first:stop]
        return block


class MouseTracker(_PacedTracker):
    """The mouse pointer in place of the eyes, fed by whoever sees it move."""

    name = "mouse"

    def __init__(self, geometry: ScreenGeometry, rate_hz: float = 60.0) -> None:
        super().__init__(geometry, rate_hz)
        self._position = (math.nan, math.nan)

    def move(self, x_norm: float, y_norm: float) -> None:
        """Tell where the pointer is, normalised to the screen; may be called from any thread."""
        self._position = (x_norm, y_norm)

    def leave(self) -> None:
        """Tell that the pointer is nowhere: samples are invalid until it moves again."""
        self._position = (math.nan, math.nan)

    def _block(self, first: int, stop: int) -> Samples:
        time_ns = self._time_ns(first, stop)
        xy = np.tile(self._position, (stop - first, 1))
        return pack_samples(time_ns, time_ns, xy, xy, np.full((stop - first, 2), np.nan))


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
