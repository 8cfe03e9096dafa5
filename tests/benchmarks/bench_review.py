"""How quickly the page *Review* goes from image to image with every layer shown, and what memory that takes.

Run as ``python -m tests.benchmarks.bench_review [--images 1000] [--keep FOLDER] [--study FOLDER]``. A study of 512 x
512 pixels is made with gaze, pseudo-masks, true masks, predictions of a student and a teacher, and reviews by two
annotators; an offscreen window of 1920 x 1080 goes through it by real keys, all layers on: with time between the keys
for the next image to be built ahead, as a reader has it; key after key back again; and once more forth. Times are from
the key to the painted frame: by the clock, and by the processor time of the window's thread, which alone says something
where the computer is busy with other things.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import cv2
import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QEventLoop, QSettings, Qt, QTimer
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from gaze_capture.fixations import Fixations
from segmentation.images import encode_mask
from segmentation.importing import import_images
from segmentation.pseudomask import PseudoMask
from segmentation.records import utc_now
from segmentation.study import Review, Study

SIDE_PX = 512
FIXATIONS = 25
RUN = "run-20261101-090000-aaaaaa"
PAUSE_MS = 150
"""Between two keys of a reader who is quick."""


def blob(rng: np.random.Generator, centre: npt.NDArray[np.float64], radius: float) -> npt.NDArray[np.float32]:
    """Return a probability (512, 512) of a lesion with an edge as ragged as a real prediction's."""
    small = SIDE_PX // 4
    rows, columns = np.mgrid[0:small, 0:small].astype(np.float32) * 4
    field = radius - np.hypot(rows - centre[0], columns - centre[1])
    field += 90 * cv2.GaussianBlur(rng.normal(0, 1, (small, small)).astype(np.float32), (0, 0), 5)
    probability: npt.NDArray[np.float32] = 1 / (1 + np.exp(-field / 8)).astype(np.float32)
    resized = cv2.resize(probability, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


def make_study(folder: Path, images: int) -> Study:
    """Make a study with every layer of every image."""
    rng = np.random.default_rng(0)
    raw = folder / "raw"
    for name in ("images", "masks"):
        (raw / name).mkdir(parents=True)
    texture = cv2.GaussianBlur(rng.normal(110, 60, (1024, 1024, 3)), (0, 0), 3).clip(0, 255)
    places = []
    for number in range(images):
        centre, radius = rng.uniform(150, SIDE_PX - 150, 2), float(rng.uniform(50, 110))
        places.append((centre, radius))
        truth = blob(rng, centre, radius)
        top, left = number * 7 % 512, number * 13 % 512
        pixels = texture[top : top + SIDE_PX, left : left + SIDE_PX] + truth[:, :, np.newaxis] * [50, 20, 10]
        data = cv2.imencode(".png", pixels.clip(0, 255).astype(np.uint8), (cv2.IMWRITE_PNG_COMPRESSION, 1))[1]
        (raw / "images" / f"{number:05}.png").write_bytes(data.tobytes())
        (raw / "masks" / f"{number:05}.png").write_bytes(encode_mask(truth >= 0.5))
    study = Study.create(folder / "study", "benchmark")
    import_images(study, [raw / "images"], masks=raw / "masks")
    found = []
    for image, (centre, radius) in zip(list(study.images.values()), places, strict=True):
        duration = rng.uniform(120, 600, FIXATIONS)
        xy = rng.normal(centre[::-1], radius * 0.6, (FIXATIONS, 2)).clip(0, SIDE_PX - 1)
        begun = np.cumsum(duration) - duration
        nothing = np.full(FIXATIONS, np.nan)
        found.append(
            Fixations(image.id, "target", "bench", "bench", begun, duration, xy, nothing, "imported")
        )
        heatmap = blob(rng, centre, radius)
        study.save_pseudomask(
            PseudoMask(
                image.id, "target", ("bench",), ("bench",), xy, duration, np.full((FIXATIONS, 2), 30.0), None,
                heatmap, (0.7, 0.4), (heatmap >= 0.7).astype(np.uint8) + (heatmap >= 0.4).astype(np.uint8), "none",
            )
        )  # fmt: skip
        for network in ("student", "teacher"):
            study.save_prediction(RUN, image.id, "target", network, blob(rng, centre, radius))
        for annotator in ("Reader 1", "Reader 2"):
            review = Review(image.id, "target", annotator, RUN, "edited", "present", 3.0, utc_now())
            study.add_review(review, blob(rng, centre, radius) >= 0.5)
    (study.runs_folder / RUN / "spec.json").write_text("{}")
    study.save_fixations("bench", found, imported=True)
    return study


def spin(milliseconds: int) -> None:
    """Let the window live for a while."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def memory_mb() -> float:
    """Return the resident size of this process; NaN where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--study", type=Path, help="a study that this made before")
    parser.add_argument("--keep", type=Path, help="make the study here and keep it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        study = (
            Study.open(arguments.study)
            if arguments.study is not None
            else make_study(arguments.keep or folder, arguments.images)
        )
        measure(study, folder / "settings.ini")


def measure(study: Study, settings: Path) -> None:
    """Go through a study and print how it went."""
    from app import theme
    from app.main_window import MainWindow, make_application
    from app.review_page import ReviewPage
    from app.scene import LAYERS

    application = make_application()
    theme.apply(application, "dark")
    window = MainWindow(QSettings(str(settings), QSettings.Format.IniFormat))
    window.resize(1920, 1080)
    window.session.set_study(study)
    window.show()
    window.show_page("review")
    review = window.page("review")
    assert isinstance(review, ReviewPage)
    spin(1500)
    missing = set(LAYERS) - {"words"} - (review.canvas.scene.available if review.canvas.scene else set())
    assert not missing, missing
    for layer in LAYERS:
        review.canvas.set_layer_visible(layer, True)
    spin(500)

    def switch(key: Qt.Key) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.thread_time()
        before = window.session.image_id
        QTest.keyClick(review.canvas, key)
        review.canvas.repaint()
        QApplication.processEvents()
        assert window.session.image_id != before
        return (time.perf_counter() - wall) * 1e3, (time.thread_time() - cpu) * 1e3

    rows: dict[str, npt.NDArray[np.float64]] = {}
    memory = [(0, memory_mb())]
    count = len(study.images) - 1
    for name, key, pause in (
        ("N, a reader's pace", Qt.Key.Key_N, PAUSE_MS),
        ("Backspace, key after key", Qt.Key.Key_Backspace, 0),
        ("N, key after key", Qt.Key.Key_N, 0),
    ):
        taken = []
        for number in range(count):
            taken.append(switch(key))
            if pause:
                spin(pause)
            if (number + 1) % 100 == 0:
                memory.append((memory[-1][0] + 100, memory_mb()))
        rows[name] = np.array(taken)
    window.close()
    sys.stdout.write(f"{len(study.images)} images, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    sys.stdout.write(
        f"{'':<26}{'p50':>8}{'p95':>8}{'max':>8}   of the processor{'p50':>8}{'p95':>8}{'max':>8}  (ms)\n"
    )
    for name, times in rows.items():
        wall, cpu = (
            "".join(f"{one:8.1f}" for one in (*np.percentile(times[:, at], [50, 95]), times[:, at].max()))
            for at in (0, 1)
        )
        sys.stdout.write(f"{name:<26}{wall}   {'':<16}{cpu}\n")
    sys.stdout.write("switches  memory (MB)\n")
    for switches, megabytes in memory:
        sys.stdout.write(f"{switches:8}  {megabytes:11.0f}\n")


if __name__ == "__main__":
    main()
