"""What the window's tests share: a window with settings of its own, and a small study with gaze."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PySide6.QtCore import QSettings
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app import theme
from app.main_window import MainWindow
from gaze_capture.fixations import Fixations
from segmentation.images import read_image
from segmentation.importing import import_images
from segmentation.intensity import Intensity
from segmentation.pseudomask import make_pseudomask
from segmentation.records import StudyImage, Target, Volume
from segmentation.study import Study

GLAND, LESION = (
    Target("gland", "Gland", "#E69F00", "organ"),
    Target("nodule", "Nodule", "#CC79A7", inside="gland"),
)


def open_window(
    qtbot: QtBot, tmp_path: Path, study: Study | None = None, order: str | None = None
) -> MainWindow:
    """Return a window in view, on a study if one is given; pytest-qt closes it.

    `order` is that of the review page's list: ``imported`` where not given, ``""`` for what the program chooses.
    """
    application = QApplication.instance()
    assert isinstance(application, QApplication)
    theme.apply(application, "dark")
    settings = QSettings(str(tmp_path / "settings.ini"), QSettings.Format.IniFormat)
    settings.setValue("annotator", "Dr. Test")
    # What most tests are about is easier to follow in an order that is known beforehand.
    settings.setValue("review/order", "imported" if order is None else order)
    window = MainWindow(settings)
    qtbot.addWidget(window)
    window.resize(1280, 800)
    if study is not None:
        window.session.set_study(study)
    with qtbot.waitExposed(window):
        window.show()
    window.activateWindow()
    return window


def fill(study: Study, image_folder: Path, *, gaze: bool = True, pseudomasks: bool = True) -> Study:
    """Import six images with masks, and let one annotator have looked at the bright disc of each."""
    import_images(study, [image_folder / "images"], masks=image_folder / "masks")
    if not gaze:
        return study
    rng = np.random.default_rng(1)
    found = []
    for image in study.images.values():
        mask = study.true_mask(image.id, "target")
        assert mask is not None
        y, x = (float(axis.mean()) for axis in np.nonzero(mask))
        duration = rng.uniform(150, 500, 12)
        found.append(
            Fixations(
                image_id=image.id,
                target_id="target",
                annotator="Dr. Test",
                source="import-test",
                start_ms=np.cumsum(duration) - duration,
                duration_ms=duration,
                xy_px=rng.normal([x, y], 4, (12, 2)),
                dispersion_deg=np.full(12, np.nan),
                detector="imported",
                simulated_from="masks",
            )
        )
    study.save_fixations("import-test", found, imported=True)
    if pseudomasks:
        for image in study.images.values():
            pixels = read_image(study.image_path(image))
            fixations = study.fixations[image.id, "target"]
            made = make_pseudomask(pixels, fixations, study.pseudomask_settings, "target")
            assert made is not None
            study.save_pseudomask(made)
    return study


def make_volume_study(
    folder: Path, *, slices: int = 8, side: int = 96, targets: tuple[Target, ...] = ()
) -> Study:
    """Make a study of a CT-like volume of 16-bit slices between two photographs, two targets nested in it.

    The stored numbers are Hounsfield units + 1024: air around a body of 40, a gland of 120 and in it a nodule of 200;
    the pixel at the top left tells the slice's number.
    """
    study = Study.create(folder, "volumes", targets or (GLAND, LESION))
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[0:side, 0:side] / side - 0.5
    whole = Intensity(1.0, -1024.0, "HU", window=(40.0, 400.0), low=-1000.0, high=250.0, mean=60.0, sd=40.0)

    def add(name: str, pixels: np.ndarray[tuple[int, ...], np.dtype[Any]], **known: Any) -> None:
        data = cv2.imencode(".png", pixels)[1].tobytes()
        path = folder / "images" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        height, width = pixels.shape[:2]
        channels = pixels.shape[2] if pixels.ndim == 3 else 1
        study.add_images(
            [
                StudyImage(
                    id=name,
                    path=f"images/{name}.png",
                    source_name=known.pop("source_name", f"{name}.png"),
                    sha256=hashlib.sha256(data).hexdigest(),
                    shape=(height, width, channels),
                    **known,
                )
            ]
        )

    add("first", rng.integers(60, 200, (40, 60, 3)).astype(np.uint8))
    ids = []
    for number in range(slices):
        grow = 1 - abs(number - slices / 2) / slices
        body = (rows / 0.45) ** 2 + (columns / 0.4) ** 2 < 1
        gland = (rows / (0.3 * grow)) ** 2 + (columns / (0.28 * grow)) ** 2 < 1
        nodule = ((rows - 0.05) / 0.08) ** 2 + ((columns + 0.06) / 0.1) ** 2 < grow - 0.6
        real = -1000 + body * 1040.0 + gland * 80 + nodule * 80 + rng.normal(0, 8, body.shape)
        stored = np.clip(real + 1024, 0, 65535).astype(np.uint16)
        stored[0, 0] = 24 + number
        ids.append(f"ct_{number:03}")
        add(
            ids[-1],
            stored,
            source_name="abdomen.nii.gz",
            modality="ct",
            spacing_mm=(0.8, 0.8),
            slice_index=number,
            volume="ct",
            intensity=whole,
        )
        study.save_true_mask(ids[-1], study.targets[0].id, gland)
        study.save_true_mask(ids[-1], study.targets[1].id, nodule)
    study.save_volume(Volume("ct", tuple(ids), slice_spacing_mm=3.0))
    add("last", rng.integers(60, 200, (40, 60, 3)).astype(np.uint8))
    return study
