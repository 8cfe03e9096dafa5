"""How fluid the canvas is: zooming and panning over large images with all layers shown.

Run as ``python -m tests.benchmarks.bench_canvas [--sides 2048 4096] [--window 1920x1080]``. Each row tells the 50th and
95th percentile of a frame, by the clock and by the processor time of the window's thread: on a busy computer only the
latter says something of the program.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import cv2
import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from app.canvas import Canvas
from app.scene import LAYERS, Marks, Scene, doubt_index, heatmap_index, outline
from segmentation.text.attention import AttentionMaps

Times = tuple[float, float]


def blob(side: int, rng: np.random.Generator, roughness: float) -> npt.NDArray[np.float32]:
    """Return a probability (side, side) of a ragged lesion, its edge as wild as those of real predictions."""
    small = 256
    rows, columns = np.mgrid[0:small, 0:small].astype(np.float32) / small - 0.5
    field = 0.3 - np.hypot(rows, columns)
    field += roughness * cv2.GaussianBlur(rng.normal(0, 1, (small, small)).astype(np.float32), (0, 0), 4)
    resized = cv2.resize(1 / (1 + np.exp(-30 * field)), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(resized, np.float32)


def full_scene(side: int) -> Scene:
    """Return a scene that has everything."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (side // 4, side // 4, 3)).astype(np.uint8)
    image = np.asarray(cv2.resize(coarse, (side, side)), np.uint8)
    student, teacher, truth = (blob(side, rng, roughness) for roughness in (0.6, 0.4, 0.2))
    heatmap = blob(side, rng, 0.1)
    return Scene(
        "one",
        "target",
        image,
        spacing_mm=(0.2, 0.2),
        heatmap=heatmap_index(heatmap),
        gaze=(Marks(rng.uniform(0.2, 0.8, (60, 2)) * side, rng.uniform(120, 600, 60)),),
        levels=(outline(heatmap, 0.7), outline(heatmap, 0.3)),
        student=outline(student),
        teacher=outline(teacher),
        disagreement=outline((student >= 0.5) != (teacher >= 0.5)),
        reviewed=outline(truth),
        truth=outline(truth),
        words=AttentionMaps(("shape",), ("round",), np.ones((1, 28, 28), np.float32),
                            rng.uniform(-0.5, 0.5, (28, 28)).astype(np.float32), 1),
        doubt=doubt_index(heatmap_index(student), heatmap_index(teacher)),
    )  # fmt: skip


def frames(canvas: Canvas, acts: Iterator[Callable[[], object]]) -> list[Times]:
    """Return what each act and the frame after it took, in milliseconds."""
    taken = []
    for act in acts:
        wall, cpu = time.perf_counter(), time.thread_time()
        act()
        canvas.repaint()
        taken.append(((time.perf_counter() - wall) * 1e3, (time.thread_time() - cpu) * 1e3))
    return taken


def zooming(canvas: Canvas) -> Iterator[Callable[[], object]]:
    """Yield wheel events: from all of the image to single pixels and back, by a touchpad's small steps."""
    centre = QPointF(canvas.width() * 0.43, canvas.height() * 0.37)

    def wheel(angle: int) -> None:
        event = QWheelEvent(
            centre, canvas.mapToGlobal(centre), QPoint(), QPoint(0, angle), Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
        )  # fmt: skip
        QApplication.sendEvent(canvas, event)

    for angle in (40, -40):
        for _ in range(75):
            yield functools.partial(wheel, angle)


def panning(canvas: Canvas) -> Iterator[Callable[[], object]]:
    """Yield the moves of a dragging hand."""
    QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=canvas.rect().center())
    for step in range(120):
        angle = step / 12
        moved = QPoint(round(np.cos(angle) * step * 2.5), round(np.sin(angle) * step * 2.5))
        yield functools.partial(QTest.mouseMove, canvas, canvas.rect().center() + moved)
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=canvas.rect().center())


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 2048, 4096])
    parser.add_argument("--window", default="1920x1080")
    arguments = parser.parse_args()
    application = QApplication(sys.argv[:1])
    canvas = Canvas()
    canvas.resize(*(int(one) for one in arguments.window.split("x")))
    canvas.show()
    application.processEvents()
    for side in arguments.sides:
        scene = full_scene(side)
        usual = {name: canvas.layer_visible(name) for name in LAYERS}
        for which in ("layers at first", "all layers"):
            for name in LAYERS:
                canvas.set_layer_visible(name, usual[name] or which == "all layers")
            canvas.set_scene(None)
            begun = time.perf_counter()
            canvas.set_scene(scene)
            canvas.repaint()
            first = (time.perf_counter() - begun) * 1e3
            sys.stdout.write(f"{side} px, {which}: first frame {first:.0f} ms\n")
            tables = [("zoom", frames(canvas, zooming(canvas)))]
            for view, factor in (("pan, fitted", 1.0), ("pan, 1:1", 0.0), ("pan, 4 x", 4.0)):
                canvas.fit()
                canvas.zoom_by(factor if factor else 1 / canvas.zoom)
                canvas.repaint()
                application.processEvents()
                tables.append((view, frames(canvas, panning(canvas))))
            for view, taken in tables:
                numbers = [*np.percentile(taken, 50, axis=0), *np.percentile(taken, 95, axis=0)]
                row = "  {:<12} p50 {:6.1f} ms ({:6.1f} cpu)   p95 {:6.1f} ms ({:6.1f} cpu)\n"
                sys.stdout.write(row.format(view, *numbers))
        for name in LAYERS:
            canvas.set_layer_visible(name, usual[name])


if __name__ == "__main__":
    main()
