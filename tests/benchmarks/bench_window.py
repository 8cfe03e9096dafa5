"""How quick the window is: to appear, to show the next image with all its layers, to keep its beat.

Run as ``python -m tests.benchmarks.bench_window [--study STUDY]``; without a study one of 100 images is made for it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import cv2
import numpy as np
from PySide6.QtCore import QEventLoop, QSettings, QTimer

from gaze_capture.fixations import Fixations
from segmentation.images import encode_mask, read_image
from segmentation.importing import import_images
from segmentation.pseudomask import make_pseudomask
from segmentation.study import Study

SIDE_PX = 768
IMAGES = 100

VISIBLE = """
import sys, time
started = float(sys.argv[1])
from pathlib import Path
from PySide6.QtCore import QSettings, QTimer
from app import theme
from app.main_window import MainWindow, make_application
application = make_application()
theme.apply(application, "dark")
window = MainWindow(QSettings(sys.argv[3], QSettings.Format.IniFormat))
window.session.open(Path(sys.argv[2]))
window.show()
def painted():
    sys.stdout.write(str(time.time() - started))
    sys.stdout.flush()
    application.quit()
# The first turn of the event loop delivers the exposure and with it the first painting.
QTimer.singleShot(0, painted)
application.exec()
"""


def make_study(folder: Path) -> Study:
    """Make a study of 100 images with every layer: gaze, pseudo-masks, predictions of both networks, true masks."""
    rng = np.random.default_rng(0)
    raw = folder / "raw"
    for name in ("images", "masks"):
        (raw / name).mkdir(parents=True)
    rows, columns = np.mgrid[0:SIDE_PX, 0:SIDE_PX]
    for number in range(IMAGES):
        centre, radius = rng.uniform(200, SIDE_PX - 200, 2), rng.uniform(60, 150)
        mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
        noise = cv2.GaussianBlur(rng.normal(110, 60, (SIDE_PX, SIDE_PX, 3)), (0, 0), 3)
        pixels = np.clip(noise + mask[:, :, np.newaxis] * [50, 20, 10], 0, 255).astype(np.uint8)
        (raw / "images" / f"{number:03}.jpg").write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
        (raw / "masks" / f"{number:03}.png").write_bytes(encode_mask(mask))
    study = Study.create(folder / "study", "benchmark")
    import_images(study, [raw / "images"], masks=raw / "masks")
    found = []
    for image in study.images.values():
        truth = study.true_mask(image.id, "target")
        assert truth is not None
        y, x = (float(axis.mean()) for axis in np.nonzero(truth))
        duration = rng.uniform(120, 600, 25)
        found.append(
            Fixations(
                image.id,
                "target",
                "bench",
                "bench",
                np.cumsum(duration) - duration,
                duration,
                rng.normal([x, y], 60, (25, 2)),
                np.full(25, np.nan),
                "imported",
            )
        )
        for network, blur in (("student", 9), ("teacher", 15)):
            probability = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), blur)
            study.save_prediction("run-bench", image.id, "target", network, probability.astype(np.float32))
    (study.runs_folder / "run-bench" / "spec.json").write_text("{}")
    study.save_fixations("bench", found, imported=True)
    for image in study.images.values():
        fixations = study.fixations[image.id, "target"]
        made = make_pseudomask(
            read_image(study.image_path(image)), fixations, study.pseudomask_settings, "target"
        )
        assert made is not None
        study.save_pseudomask(made)
    return study


def seconds_until_visible(study: Path, settings: Path, runs: int) -> list[float]:
    """Return the time from starting a fresh process to its window's first painting, a few times."""
    return [
        float(
            subprocess.run(
                [sys.executable, "-c", VISIBLE, str(time.time()), str(study), str(settings)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for _ in range(runs)
    ]


def spin(milliseconds: int) -> None:
    """Let the window live for a while."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        study = Study.open(arguments.study) if arguments.study else make_study(folder)
        visible = seconds_until_visible(study.folder, folder / "settings.ini", arguments.runs)

        from app import theme
        from app.main_window import MainWindow, make_application
        from app.record_page import RecordPage
        from app.review_page import ReviewPage
        from app.scene import LAYERS

        application = make_application()
        theme.apply(application, "dark")
        window = MainWindow(QSettings(str(folder / "settings.ini"), QSettings.Format.IniFormat))
        window.resize(1920, 1080)
        window.session.set_study(study)
        window.show()
        window.show_page("review")
        review = window.page("review")
        assert isinstance(review, ReviewPage)
        for layer in LAYERS:
            review.canvas.set_layer_visible(layer, True)
        spin(500)

        def switch() -> float:
            begun = time.perf_counter()
            review.go(1)
            review.canvas.repaint()
            return (time.perf_counter() - begun) * 1e3

        # Key after key, faster than the next image can be prepared, and as a reader does it.
        hurried, calm = [], []
        count = min(len(study.images) - 1, 99)
        for _ in range(count):
            hurried.append(switch())
        review.stop()
        window.session.set_image(next(iter(study.images)))
        assert review._cache is not None
        review._cache.forget()
        for _ in range(min(count, 40)):
            spin(150)
            calm.append(switch())

        window.show_page("record")
        record = window.page("record")
        assert isinstance(record, RecordPage)
        record.start()
        spin(300)
        ticks: list[float] = []
        lasts: list[float] = []
        original = record.tick

        def timed() -> None:
            begun = time.perf_counter()
            ticks.append(begun)
            original()
            lasts.append((time.perf_counter() - begun) * 1e3)

        record._timer.timeout.disconnect()
        record._timer.timeout.connect(timed)
        spin(8000)
        window.close()
        intervals = np.diff(ticks) * 1e3

    rows = [
        ("window visible, fresh process (s), median", statistics.median(visible)),
        ("window visible, fresh process (s), slowest", max(visible)),
        ("next image, all layers, key held (ms), p50", np.percentile(hurried, 50)),
        ("next image, all layers, key held (ms), p95", np.percentile(hurried, 95)),
        ("next image, all layers, calm (ms), p50", np.percentile(calm, 50)),
        ("next image, all layers, calm (ms), p95", np.percentile(calm, 95)),
        ("tick while recording, interval (ms), p50", np.percentile(intervals, 50)),
        ("tick while recording, interval (ms), p99", np.percentile(intervals, 99)),
        ("tick while recording, work (ms), p99", np.percentile(lasts, 99)),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        sys.stdout.write(f"{name:<{width}}  {value:8.2f}\n")


if __name__ == "__main__":
    main()
