"""What was sent equals what was stored: LSL and Gazepoint trackers on one machine, recorded and compared.

``python -m tests.benchmarks.loopback_trackers [SECONDS]``: 600 Hz of LSL and 150 Hz of Gazepoint, 60 s each.
Latency is from the moment a sample was due at its sender until the tracker hands it over.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gaze_capture.headless import record_headless
from gaze_capture.recording import Float32s, Int64s, Samples
from gaze_capture.recording_codec import read_recording
from gaze_capture.simulate import DESK_SCREEN
from gaze_capture.trackers.gazepoint import GazepointTracker
from gaze_capture.trackers.lsl import LslTracker
from gaze_capture.trackers.tracker import Tracker
from tests.gazepoint_double import GazepointServer
from tests.lsl_double import LslSender

COLUMNS = ("left_x", "left_y", "right_x", "right_y", "pupil_left", "pupil_right")


@dataclass(frozen=True)
class Loopback:
    """What came of one tracker."""

    sent: int
    """Samples sent from the first that was stored to the last."""
    received: int
    stored: int
    equal: int
    """Stored samples of which every value is what was sent, to float32."""
    latency_ms: tuple[float, float]
    """50th and 99th percentile."""
    time_error_ms: tuple[float, float]
    """Host time minus the time the sample was due: 50th percentile, and 99th of the distance from it."""


class _Tap:
    """Notes when each sample is handed over."""

    def __init__(self, tracker: Tracker) -> None:
        self.at: dict[int, int] = {}
        subscribe = tracker.subscribe

        def tapped(callback: Callable[[Samples], None]) -> Callable[[], None]:
            def noting(block: Samples) -> None:
                now = time.monotonic_ns()
                self.at.update(dict.fromkeys(block["device_time_ns"].tolist(), now))
                callback(block)

            return subscribe(noting)

        tracker.subscribe = tapped  # type: ignore[method-assign]


def lsl(folder: Path, seconds: float, rate_hz: float = 600.0) -> Loopback:
    """Send, record and compare a stream of LSL."""
    with LslSender(rate_hz) as sender:
        tracker = LslTracker(sender.source_id)
        tap = _Tap(tracker)
        received = record_headless(folder, tracker, "bench", seconds).received
    sent_ns = np.round(sender.stamps * 1e9).astype(np.int64)
    return _compared(folder, received, tap, sent_ns, sender.values, {ns: ns for ns in sent_ns.tolist()})


def gazepoint(folder: Path, seconds: float, rate_hz: float = 150.0) -> Loopback:
    """Send, record and compare what a Gazepoint server says."""
    with GazepointServer(rate_hz, shred=True, unseen_every=11) as server:
        tracker = GazepointTracker(DESK_SCREEN, server.address)
        tap = _Tap(tracker)
        received = record_headless(folder, tracker, "bench", seconds).received
        records = server.sent[: len(server.sent_at_ns)]
    sent_ns = np.array([round(float(record["TIME"]) * 1e9) for record in records])
    words = [(word, word[:-1] + "V") for word in ("LPOGX", "LPOGY", "RPOGX", "RPOGY")]
    words += [("LPMM", "LPMMV"), ("RPMM", "RPMMV")]
    values = [
        [float(item[word]) if item[flag] == "1" else np.nan for word, flag in words] for item in records
    ]
    due = dict(zip(sent_ns.tolist(), server.sent_at_ns, strict=False))
    return _compared(folder, received, tap, sent_ns, np.array(values, dtype=np.float32), due)


def _compared(
    folder: Path, received: int, tap: _Tap, sent_ns: Int64s, values: Float32s, due: dict[int, int]
) -> Loopback:
    recording = read_recording(folder)
    stored = recording.samples
    times = stored["device_time_ns"]
    within = (sent_ns >= times[0]) & (sent_ns <= times[-1])
    row = {time_ns: number for number, time_ns in enumerate(sent_ns.tolist())}
    equal = 0
    for sample in stored:
        number = row.get(int(sample["device_time_ns"]))
        mine = np.array([sample[name] for name in COLUMNS])
        equal += number is not None and np.array_equal(mine, values[number], equal_nan=True)
    latency = [(tap.at[time_ns] - due[time_ns]) / 1e6 for time_ns in times.tolist()]
    error = (stored["time_ns"] - np.array([due[time_ns] for time_ns in times.tolist()])) / 1e6
    middle = float(np.median(error))
    return Loopback(
        int(within.sum()),
        received,
        len(stored),
        int(equal),
        (float(np.quantile(latency, 0.5)), float(np.quantile(latency, 0.99))),
        (middle, float(np.quantile(np.abs(error - middle), 0.99))),
    )


def main() -> None:
    """Run both and print a table."""
    # Nothing leaves the machine.
    os.environ.setdefault("LSLAPICFG", str(Path(__file__).parents[1] / "lsl_api.cfg"))
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    write = sys.stdout.write
    write(
        f"{'tracker':<18}{'sent':>8}{'received':>10}{'stored':>8}{'equal':>8}   latency p50/p99   host time off by\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, run in (("LSL 600 Hz", lsl), ("Gazepoint 150 Hz", gazepoint)):
            found = run(Path(folder) / name, seconds)
            write(
                f"{name:<18}{found.sent:>8}{found.received:>10}{found.stored:>8}{found.equal:>8}"
                f"{found.latency_ms[0]:>9.2f} /{found.latency_ms[1]:>6.2f} ms"
                f"{found.time_error_ms[0]:>9.2f} ±{found.time_error_ms[1]:.2f} ms\n"
            )


if __name__ == "__main__":
    main()
