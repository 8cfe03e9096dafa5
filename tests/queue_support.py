"""A study to be reviewed: images with a disc each, gaze on them, and a student that is wrong on some."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from pytestqt.qtbot import QtBot

from app.main_window import MainWindow
from app.review_page import ReviewPage
from gaze_capture.fixations import Fixations
from gaze_capture.storage import write_json_atomic
from segmentation.images import encode_mask, read_image
from segmentation.importing import import_images
from segmentation.job import RunSpec
from segmentation.pseudomask import make_pseudomask
from segmentation.study import Study

RUN = "run-20260101-000000-aaaaaa"
SHAPE = (120, 160)


def make_queue_study(study: Study, folder: Path, count: int) -> Study:
    """Import images; the student's mask of every third lies off its disc, the further the later it comes."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for number in range(count):
        y, x = rng.uniform([45, 50], [75, 90])
        mask = (rows - y) ** 2 + (columns - x) ** 2 < rng.uniform(18, 26) ** 2
        pixels = rng.normal(90, 12, (*SHAPE, 3)) + mask[:, :, None] * [60, 30, 20]
        data = cv2.imencode(".png", np.clip(pixels, 0, 255).astype(np.uint8))[1]
        (folder / "images" / f"case_{number:02}.png").write_bytes(data.tobytes())
        (folder / "masks" / f"case_{number:02}.png").write_bytes(encode_mask(mask))
    import_images(study, [folder / "images"], masks=folder / "masks")
    found = []
    for image in study.images.values():
        truth = study.true_mask(image.id, "target")
        assert truth is not None
        places = np.argwhere(truth)[:, ::-1].astype(float)
        chosen = places[rng.permutation(len(places))[:14]]
        duration = rng.uniform(150, 450, len(chosen))
        start = np.cumsum(duration + 20) - duration
        found.append(
            Fixations(
                image.id,
                "target",
                "Dr. Test",
                "import-test",
                start,
                duration,
                chosen,
                np.full(len(chosen), np.nan),
                "imported",
                simulated_from="masks",
                viewing_ms=float(start[-1] + duration[-1]),
            )
        )
    study.save_fixations("import-test", found, imported=True)
    for number, image in enumerate(study.images.values()):
        made = make_pseudomask(
            read_image(study.image_path(image)), study.fixations[image.id, "target"],
            study.pseudomask_settings, "target",
        )  # fmt: skip
        truth = study.true_mask(image.id, "target")
        assert made is not None and truth is not None
        study.save_pseudomask(made)
        student = truth.astype(np.float32)
        if number % 3 == 2:
            student = 0.7 * np.roll(student, 10 + 5 * number, axis=1)
        study.save_prediction(RUN, image.id, "target", "student", student)
    write_json_atomic(study.runs_folder / RUN / "spec.json", RunSpec().to_json())
    return study


def review_of(window: MainWindow) -> ReviewPage:
    """Return the review page."""
    page = window.page("review")
    assert isinstance(page, ReviewPage)
    return page


def listed(page: ReviewPage) -> list[str]:
    """Return the images in the order of the list."""
    return page.list.visible_ids()


def settled(qtbot: QtBot, page: ReviewPage) -> None:
    """Wait until everything the list shows has been read."""
    qtbot.waitUntil(lambda: not page.queue.pending, timeout=20000)
