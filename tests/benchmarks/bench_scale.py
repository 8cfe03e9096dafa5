"""How a study of ten thousand images does: to import, to open, to scroll, to search, to go through.

Run as ``python -m tests.benchmarks.bench_scale [--images N] [--study STUDY]``; a study given is one it made before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
from PySide6.QtCore import QEventLoop, QPoint, QPointF, QSettings, Qt, QTimer
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QApplication

from segmentation import steps
from segmentation.records import StudyImage
from segmentation.study import Study
from tests.benchmarks.scale_study import fill, write_pictures

JPEGS = 1000
STEPS = 300
NOT_TOLD = -1.0


def imported(study: Study, folder: Path) -> float:
    """Import a folder and return the images a second."""
    begun = time.perf_counter()
    report = steps.import_images(study, [folder], group_by=r"(p\d+)_")
    return len(report.imported) / (time.perf_counter() - begun)


def make(folder: Path, images: int) -> tuple[Study, dict[str, float]]:
    """Make the study, and tell how fast it was imported."""
    write_pictures(folder / "raw", range(images))
    write_pictures(folder / "jpeg", range(JPEGS), ".jpg")
    study = Study.create(folder / "study", "benchmark")
    rates = {
        "import, PNG 256 x 256 (images/s)": imported(study, folder / "raw"),
        "import, JPEG 256 x 256 (images/s)": imported(Study.create(folder / "other"), folder / "jpeg"),
    }
    fill(study, recordings=200, looks=50, reviews=images // 5, predictions=images // 2)
    return study, rates


def spin(milliseconds: int) -> None:
    """Let the window live for a while."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Let the window live until something is so."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 5)


Times = tuple[float, float]
"""Milliseconds on the clock, and of a processor for this thread: on a busy computer only these say something."""


class Watch:
    """Takes both times since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.thread_time()

    def times(self) -> Times:
        """Return the times so far."""
        return (time.perf_counter() - self._wall) * 1e3, (time.thread_time() - self._cpu) * 1e3


def p95(taken: list[Times]) -> Times:
    """Return the 95th percentile of each."""
    wall, cpu = np.percentile(np.array(taken), 95, axis=0)
    return float(wall), float(cpu)


def measure_window(folder: Path) -> dict[str, Times]:
    """Measure the window on a study; in a process of its own, whose memory is its own."""
    from app import theme
    from app.main_window import MainWindow, make_application
    from app.record_page import RecordPage
    from app.review_page import ReviewPage
    from app.study_page import StudyPage

    found: dict[str, Times] = {}
    application = make_application()
    theme.apply(application, "dark")
    with tempfile.TemporaryDirectory() as settings:
        window = MainWindow(QSettings(f"{settings}/settings.ini", QSettings.Format.IniFormat))
        window.resize(1440, 900)
        window.show()
        spin(300)
        overview, record, review = (window.page(name) for name in ("study", "record", "review"))
        assert isinstance(overview, StudyPage)
        assert isinstance(record, RecordPage)
        assert isinstance(review, ReviewPage)

        def timed(name: str, act: Callable[[], object]) -> None:
            watch = Watch()
            act()
            application.processEvents()
            found[name] = watch.times()

        whole = Watch()
        timed("open: study page painted (ms)", lambda: window.session.open(folder))
        timed("record page shown (ms)", lambda: window.show_page("record"))
        timed("review page shown (ms)", lambda: window.show_page("review"))
        found["open and all three pages shown (ms)"] = whole.times()
        until(lambda: not review.queue.pending and not record._images.pending)
        found["... all states filled in (ms)"] = whole.times()
        window.show_page("study")
        until(lambda: overview.overview.gaze > 0)
        found["... everything counted (ms)"] = whole.times()
        window.show_page("review")
        spin(500)

        frames: list[Times] = []
        view = review.list.view
        bar = view.verticalScrollBar()
        while bar.value() < bar.maximum() and len(frames) < 2500:
            place = QPointF(view.viewport().rect().center())
            wheel = QWheelEvent(
                place, view.viewport().mapToGlobal(place), QPoint(), QPoint(0, -1200),
                Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
            )  # fmt: skip
            watch = Watch()
            application.sendEvent(view.viewport(), wheel)
            view.viewport().repaint()
            frames.append(watch.times())
            spin(4)
        found["list scrolled, a wheel event and its frame, p95 (ms)"] = p95(frames)

        keys: list[Times] = []
        words = ("p0123", "split:test", "group:p0042", "0100")
        for word in words:
            typed = [word[:count] for count in range(1, len(word) + 1)]
            for text in [*typed, *reversed(typed[:-1]), ""]:
                watch = Watch()
                review.list.search.setText(text)
                application.processEvents()
                keys.append(watch.times())
        found["search, a key and its frame, p95 (ms)"] = p95(keys)
        filtered: list[Times] = []
        popup = review.list.filter.popup
        review.list.filter.open()
        for tick in [*popup.boxes.values(), *popup.boxes.values()]:
            watch = Watch()
            tick.click()
            application.processEvents()
            filtered.append(watch.times())
        popup.close()
        found["filter, a tick and its frame, p95 (ms)"] = p95(filtered)

        for name, pause in (("key held", 0), ("calm", 120)):
            switched: list[Times] = []
            for _ in range(STEPS if not pause else STEPS // 4):
                watch = Watch()
                review.go(1)
                review.canvas.repaint()
                switched.append(watch.times())
                if pause:
                    spin(pause)
                else:
                    application.processEvents()
            found[f"next image, {name}, p95 (ms)"] = p95(switched)
        verdicts: list[Times] = []
        for _ in range(20):
            watch = Watch()
            review.give("nothing")
            application.processEvents()
            verdicts.append(watch.times())
            review.undo()
            spin(60)
        found["verdict and next image, p95 (ms)"] = p95(verdicts)

        other = Study.open(folder)
        rows = review.list.model.rowCount()
        stamp = time.time_ns()
        record_of_first = next(iter(other.images.values()))
        other.add_images(
            StudyImage(f"late-{stamp}-{n}", record_of_first.path, f"late {n}.png", "0" * 64, (256, 256, 3))
            for n in range(100)
        )
        blocked = [0.0]
        last = [time.perf_counter()]

        def beat() -> None:
            now = time.perf_counter()
            blocked[0] = max(blocked[0], now - last[0])
            last[0] = now

        pulse = QTimer(interval=1)
        pulse.timeout.connect(beat)
        pulse.start()
        last[0] = time.perf_counter()
        watch = Watch()
        window.study_watch.look()
        until(lambda: review.list.model.rowCount() == rows + 100)
        found["100 images of another computer: seen and listed (ms)"] = watch.times()
        until(lambda: not review.queue.pending)
        found["... longest time the window did not answer (ms)"] = (blocked[0] * 1e3, NOT_TOLD)
        pulse.stop()
        found["peak memory of the window's process (MB)"] = (peak_memory_mb(), NOT_TOLD)
        window.close()
        newest = other.manifests()[-1]
        newest.unlink()
    return found


def peak_memory_mb() -> float:
    """Return the largest resident size this process had."""
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def measure_study(folder: Path) -> dict[str, Times]:
    """Measure what the window reads, without a window."""
    from app.facts import gather
    from app.overview import survey

    found: dict[str, Times] = {}

    def timed(name: str, act: Callable[[], Any]) -> None:
        watch = Watch()
        act()
        found[name] = watch.times()

    study = Study.open(folder)
    run_id = study.run_ids()[-1]
    timed("Study.images (ms)", lambda: study.images)
    timed("Study.fixations, keys of all (ms)", lambda: len(study.fixations))
    timed("Study.fixations, one image (ms)", lambda: next(iter(study.fixations.values())))
    timed("Study.reviewed (ms)", study.reviewed)
    timed("all that the lists show (ms)", lambda: gather(study, run_id))
    timed("all counts of the study page (ms)", lambda: survey(study))
    timed("looking for news, nothing new (ms)", study.changed_elsewhere)
    return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--study", type=Path, help="a study that this made before")
    parser.add_argument("--keep", type=Path, help="make the study here and keep it")
    parser.add_argument("--window", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.window is not None:
        sys.stdout.write(json.dumps(measure_window(arguments.window)))
        return
    rows: dict[str, Times] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        if arguments.study is not None:
            folder = arguments.study
        else:
            study, rates = make(arguments.keep or Path(temporary), arguments.images)
            folder = study.folder
            rows |= {name: (rate, NOT_TOLD) for name, rate in rates.items()}
        rows |= measure_study(folder)
        command = [sys.executable, "-m", "tests.benchmarks.bench_scale", "--window", str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows |= json.loads(done.stdout)
    width = max(len(name) for name in rows)
    sys.stdout.write(f"{'':<{width}}  {'clock':>9}  {'processor':>9}\n")
    for name, (wall, cpu) in rows.items():
        processor = f"{cpu:9.1f}" if cpu != NOT_TOLD else ""
        sys.stdout.write(f"{name:<{width}}  {wall:9.1f}  {processor}\n")


if __name__ == "__main__":
    main()
