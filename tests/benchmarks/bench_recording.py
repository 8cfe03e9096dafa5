"""How late the gaze is drawn, and whether the window keeps its beat, while it records and a training runs.

Run as ``python -m tests.benchmarks.bench_recording [--rate 120] [--seconds 20]``. Latency is the time from a sample's
own moment to the end of the painting that first shows it, on the platform Qt runs on here (offscreen unless
QT_QPA_PLATFORM says otherwise): a display and a real tracker add their own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
from PySide6.QtCore import QSettings
from PySide6.QtGui import QPaintEvent

from gaze_capture.recording import Placement, Samples, ScreenGeometry
from gaze_capture.storage import read_json
from segmentation.study import Study
from tests.benchmarks.bench_window import spin
from tests.benchmarks.soak import phantom_study, train_until


class Probe:
    """Notes when ticks come, how long they take, and how old a sample is when it has been painted."""

    def __init__(self, page: object) -> None:
        from app.record_page import RecordPage

        assert isinstance(page, RecordPage)
        self.ticks: list[float] = []
        self.lasts: list[float] = []
        self.latencies_ms: list[float] = []
        self._waiting_ns: list[int] = []
        self._tick = page.tick
        page._timer.timeout.disconnect()
        page._timer.timeout.connect(self.tick)
        self._take = page.recorder.live.take
        page.recorder.live.take = self.take  # type: ignore[method-assign]
        self._paint = page.canvas.paintEvent
        page.canvas.paintEvent = self.paint  # type: ignore[method-assign]

    def tick(self) -> None:
        """Time a tick."""
        begun = time.perf_counter()
        self.ticks.append(begun)
        self._tick()
        self.lasts.append((time.perf_counter() - begun) * 1e3)

    def take(
        self, samples: Samples, counted: Samples, geometry: ScreenGeometry, placement: Placement
    ) -> None:
        """Note the samples that the next painting will show."""
        self._take(samples, counted, geometry, placement)
        seen = np.isfinite(samples["left_x"]) | np.isfinite(samples["right_x"])
        self._waiting_ns += samples["time_ns"][seen].tolist()

    def paint(self, event: QPaintEvent) -> None:
        """Note how old they have become."""
        self._paint(event)
        now = time.monotonic_ns()
        self.latencies_ms += [(now - then) / 1e6 for then in self._waiting_ns]
        self._waiting_ns = []


def measured(study: Study, folder: Path, rate_hz: float, seconds: float) -> tuple[Probe, dict[str, Any]]:
    """Record for a while in a window; return what was noted, and the recording's summary."""
    from app import theme
    from app.main_window import MainWindow, make_application
    from app.record_page import RecordPage

    application = make_application()
    theme.apply(application, "dark")
    window = MainWindow(QSettings(str(folder / "settings.ini"), QSettings.Format.IniFormat))
    window.resize(1920, 1080)
    window.session.set_study(study)
    window.show()
    window.show_page("record")
    page = window.page("record")
    assert isinstance(page, RecordPage)
    page.panel.rate.setValue(round(rate_hz))
    page.panel.by_itself.setChecked(True)
    page.start()
    spin(1000)
    probe = Probe(page)
    spin(round(seconds * 1000))
    sitting = page.sitting
    if sitting is None:
        sys.exit("the sitting ended before the time was over: ask for more images")
    page.end()
    while page._saving:
        spin(50)
    window.close()
    return probe, read_json(study.recordings_folder / sitting.recording_id / "recording.json")


def main() -> None:
    """Measure with and without a training beside it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=120.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--images", type=int, default=60, help="phantoms to look at and to train on")
    parser.add_argument("--only-training", action="store_true", help="leave out the measurement without one")
    arguments = parser.parse_args()
    write = sys.stdout.write
    write(f"{arguments.rate:g} Hz, {arguments.seconds:g} s each; ms\n")
    write(
        f"{'':<10}{'gaze to pixel p50':>18}{'p95':>7}{'p99':>7}{'tick interval p99':>19}{'tick work p99':>15}"
        f"{'expected':>11}{'received':>10}{'on disk':>10}  writer latency\n"
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        study = phantom_study(folder, arguments.images)
        for name in ("training",) if arguments.only_training else ("alone", "training"):
            stopped = threading.Event()
            trainer = threading.Thread(target=train_until, args=(stopped, study))
            if name == "training":
                trainer.start()
                time.sleep(20)
            try:
                probe, summary = measured(study, folder, arguments.rate, arguments.seconds)
            finally:
                stopped.set()
                if name == "training":
                    trainer.join()
            late = np.percentile(probe.latencies_ms, [50, 95, 99])
            beat = np.percentile(np.diff(probe.ticks) * 1e3, 99)
            counts = summary["samples"]
            write(
                f"{name:<10}{late[0]:>18.1f}{late[1]:>7.1f}{late[2]:>7.1f}{beat:>19.1f}"
                f"{np.percentile(probe.lasts, 99):>15.1f}{counts['expected']:>11}{counts['received']:>10}"
                f"{counts['stored']:>10}  {summary['writer_latency_ms']}\n"
            )


if __name__ == "__main__":
    main()
