"""How quick a volume is: to scroll from slice to slice with all layers, and to change the window.

Run as ``python -m tests.benchmarks.bench_volume``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import cv2
import numpy as np
from PySide6.QtCore import QEventLoop, QSettings, QTimer

from gaze_capture.fixations import Fixations
from segmentation.pseudomask import make_pseudomask
from segmentation.study import Study
from tests.window_support import make_volume_study

SIDE_PX, SLICES = 512, 40


def fill(study: Study) -> None:
    """Give every slice every layer."""
    rng = np.random.default_rng(0)
    ids = study.volumes["ct"]
    found = []
    for name in ids:
        for target in study.targets:
            mask = study.true_mask(name, target.id)
            assert mask is not None
            for network, blur in (("student", 5), ("teacher", 9)):
                probability = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), blur).astype(np.float32)
                study.save_prediction("run-bench", name, target.id, network, probability)
        duration = rng.uniform(120, 600, 25)
        found.append(
            Fixations(
                name,
                study.targets[0].id,
                "bench",
                "bench",
                np.cumsum(duration) - duration,
                duration,
                rng.normal(SIDE_PX / 2, 40, (25, 2)),
                np.full(25, np.nan),
                "imported",
            )
        )
    (study.runs_folder / "run-bench" / "spec.json").write_text("{}")
    study.save_fixations("bench", found, imported=True)
    for item in found:
        pixels = study.guide(study.image(item.image_id))
        made = make_pseudomask(pixels, [item], study.pseudomask_settings, study.targets[0].id)
        assert made is not None
        study.save_pseudomask(made)


def spin(milliseconds: int) -> None:
    """Let the window live for a while."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def main() -> None:
    """Measure and print a table."""
    from app import theme
    from app.canvas import Canvas
    from app.main_window import MainWindow, make_application
    from app.record_page import RecordPage
    from app.review_page import ReviewPage
    from app.scene import LAYERS, Scene
    from segmentation.intensity import Intensity

    application = make_application()
    theme.apply(application, "dark")
    rows: list[tuple[str, list[float]]] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        study = make_volume_study(folder / "study", slices=SLICES, side=SIDE_PX)
        fill(study)
        window = MainWindow(QSettings(str(folder / "settings.ini"), QSettings.Format.IniFormat))
        window.resize(1920, 1080)
        window.session.set_study(study)
        window.show()
        window.show_page("review")
        review = window.page("review")
        assert isinstance(review, ReviewPage)
        for layer in LAYERS:
            review.canvas.set_layer_visible(layer, True)
        review.canvas.show_others(True)

        def scroll(page: ReviewPage | RecordPage, pause_ms: int) -> list[float]:
            window.session.set_image(study.volumes["ct"][0])
            spin(300)
            spent = []
            for _ in range(SLICES - 1):
                begun = time.perf_counter()
                page.frame.slices.step(1)
                page.canvas.repaint()
                spent.append((time.perf_counter() - begun) * 1e3)
                if pause_ms:
                    spin(pause_ms)
            assert review._cache is not None
            review._cache.forget()
            return spent

        rows.append(("review, next slice, all layers, wheel held", scroll(review, 0)))
        rows.append(("review, next slice, all layers, calm", scroll(review, 100)))
        window.show_page("record")
        record = window.page("record")
        assert isinstance(record, RecordPage)
        record.panel.tracker.setCurrentIndex(record.panel.tracker.findData("mouse"))
        window.session.set_image(study.volumes["ct"][0])
        record.start()
        spent = []
        for _ in range(SLICES - 1):
            begun = time.perf_counter()
            record.frame.slices.step(1)
            record.canvas.repaint()
            spent.append((time.perf_counter() - begun) * 1e3)
        rows.append(("record, next slice within a sitting, wheel held", spent))
        record.end()
        spin(1000)
        window.close()
    rng = np.random.default_rng(0)
    for side in (512, 2048):
        canvas = Canvas()
        canvas.resize(1100, 1000)
        canvas.show()
        values = rng.integers(0, 4096, (side, side, 1)).astype(np.uint16)
        canvas.set_scene(Scene("one", "target", values, Intensity(1, -1024, "HU", window=(40, 400))))
        spin(100)
        spent = []
        for width in range(300, 340):
            begun = time.perf_counter()
            canvas.set_shown_window((40.0, float(width)))
            canvas.repaint()
            spent.append((time.perf_counter() - begun) * 1e3)
        rows.append((f"another window, {side} x {side}", spent))
        canvas.close()
    wide = max(len(name) for name, _ in rows)
    sys.stdout.write(f"{'(ms)':<{wide}}  {'p50':>8}  {'p95':>8}\n")
    for name, found in rows:
        sys.stdout.write(
            f"{name:<{wide}}  {np.percentile(found, 50):8.2f}  {np.percentile(found, 95):8.2f}\n"
        )


if __name__ == "__main__":
    main()
