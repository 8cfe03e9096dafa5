"""How fluid drawing is: each move of a brush with the frame it asks for, undo, and what a long history weighs.

Run as ``python -m tests.benchmarks.bench_edit``. A frame is a real mouse event to a real window, and all painting
that it brings about; the image fits the canvas, then is seen at 1:1.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import cv2
import numpy as np
from PySide6.QtCore import QCoreApplication, QEvent, QEventLoop, QPointF, QSettings, Qt, QTimer
from PySide6.QtGui import QMouseEvent
from PySide6.QtTest import QTest

from app import theme
from app.edit_layer import EditLayer
from app.main_window import MainWindow, make_application
from app.review_page import ReviewPage
from segmentation.records import StudyImage
from segmentation.study import Study

MOVES = 240


def make_study(folder: Path, side: int) -> Study:
    """Make a study of one colour image, with a student's prediction."""
    study = Study.create(folder / f"study-{side}")
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 220, (side // 16, side // 16, 3)).astype(np.uint8)
    pixels = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".jpg", pixels)[1].tobytes()
    (study.folder / "images").mkdir(exist_ok=True)
    (study.folder / "images" / "one.jpg").write_bytes(data)
    study.add_images(
        [StudyImage("one", "images/one.jpg", "one.jpg", hashlib.sha256(data).hexdigest(), (side, side, 3))]
    )
    rows, columns = np.mgrid[0:side, 0:side] / side - 0.5
    wobbly = 0.28 + 0.03 * np.sin(9 * np.arctan2(rows, columns))
    probability = 1 / (1 + np.exp((np.hypot(rows, columns) - wobbly) * 60))
    for network in ("student", "teacher"):
        study.save_prediction("run-bench", "one", "target", network, probability.astype(np.float32))
    (study.runs_folder / "run-bench" / "spec.json").write_text("{}")
    return study


def spin(milliseconds: int) -> None:
    """Let the window live for a while."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


Took = tuple[float, float]
"""Milliseconds on the clock, and of the processor: on a busy machine the first says how busy it is."""


def timed(act: Callable[[], object]) -> Took:
    """Do something, let everything be painted that it asks for, and return how long it took."""
    begun, worked = time.perf_counter(), time.process_time()
    act()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.UpdateRequest)
    QCoreApplication.processEvents()
    return (time.perf_counter() - begun) * 1e3, (time.process_time() - worked) * 1e3


def send(layer: EditLayer, kind: QEvent.Type, at: QPointF) -> Took:
    """Send a mouse event; return how long it took."""
    moving = kind == QEvent.Type.MouseMove
    event = QMouseEvent(
        kind,
        at,
        layer.mapToGlobal(at),
        Qt.MouseButton.NoButton if moving else Qt.MouseButton.LeftButton,
        Qt.MouseButton.NoButton if kind == QEvent.Type.MouseButtonRelease else Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    return timed(lambda: QCoreApplication.sendEvent(layer, event))


def draw(layer: EditLayer, seed: int) -> tuple[list[Took], Took, Took]:
    """Draw one long stroke around; return what each move took, the press and the release."""
    rng = np.random.default_rng(seed)
    middle = QPointF(layer.width() / 2, layer.height() / 2)
    reach = 0.38 * min(layer.width(), layer.height())

    def place(share: float) -> QPointF:
        angle, far = 2 * np.pi * share, reach * (1 + 0.1 * np.sin(23 * share))
        return middle + QPointF(far * np.cos(angle), far * np.sin(angle) + rng.uniform(-1, 1))

    pressed = send(layer, QEvent.Type.MouseButtonPress, place(0))
    moves = [send(layer, QEvent.Type.MouseMove, place(number / MOVES)) for number in range(1, MOVES)]
    return moves, pressed, send(layer, QEvent.Type.MouseButtonRelease, place(1))


def undone(page: ReviewPage, steps: int) -> list[Took]:
    """Take steps back by key, the painting included."""
    return [timed(lambda: QTest.keyClick(page.canvas, Qt.Key.Key_Z)) for _ in range(steps)]


def resident_mb() -> float:
    """Return this process's memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def report(name: str, values: Sequence[Took]) -> None:
    """Print one line."""
    clock, processor = np.array(values).T
    sys.stdout.write(
        f"{name:<58} p50 {np.percentile(clock, 50):6.1f}  p95 {np.percentile(clock, 95):6.1f}  "
        f"most {clock.max():6.1f} ms   processor p95 {np.percentile(processor, 95):6.1f} ms\n"
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--window", default="1920x1080")
    parser.add_argument(
        "--layers", action="store_true", help="with the student's and teacher's layers shown, too"
    )
    arguments = parser.parse_args()
    width, height = (int(part) for part in arguments.window.split("x"))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        application = make_application()
        theme.apply(application, "dark")
        for side in arguments.sides:
            study = make_study(folder, side)
            settings = QSettings(str(folder / "settings.ini"), QSettings.Format.IniFormat)
            window = MainWindow(settings)
            window.resize(width, height)
            window.session.set_study(study)
            window.show()
            window.show_page("review")
            page = window.page("review")
            assert isinstance(page, ReviewPage)
            spin(600)
            QTest.keyClick(page.canvas, Qt.Key.Key_E)
            spin(300)
            layer = page.editing.layer
            if arguments.layers:
                for name in ("student", "teacher", "disagreement"):
                    page.canvas.set_layer_visible(name, True)
                spin(300)
            sys.stdout.write(
                f"{side} x {side}, window {width} x {height}, canvas {page.canvas.width()} x {page.canvas.height()}\n"
            )
            begun_mb = resident_mb()
            presses, releases = [], []
            for view in ("fitted", "1:1"):
                if view == "1:1":
                    page.canvas.zoom_by(1 / page.canvas.zoom)
                    spin(100)
                for radius in (side / 80, side / 40, side / 16):
                    layer.options.radius_px = radius
                    moves, pressed, released = draw(layer, round(radius))
                    presses.append(pressed)
                    releases.append(released)
                    report(f"  brush move, {view}, radius {radius:.0f} px", moves)
            report("  press", presses)
            report("  release: the step is packed and on its way to the disk", releases)
            report("  undo by key", undone(page, 6))
            page.canvas.fit()
            spin(100)
            layer.options.radius_px = side / 40
            for seed in range(94):
                draw(layer, seed)
            held_mb = resident_mb() - begun_mb
            draft = page.editing.draft
            assert draft.path is not None
            sys.stdout.write(
                f"  after 94 more strokes of {MOVES} moves: {held_mb:.0f} MB more, draft "
                f"{draft.path.stat().st_size / 2**20:.2f} MB\n"
            )
            report("  undo by key, all of them", undone(page, 94))
            window.close()


if __name__ == "__main__":
    main()
