"""What the window's tests share: a window with settings of its own, and a small study with gaze."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PySide6.QtCore import QSettings
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app import theme
from app.main_window import MainWindow
from gaze_capture.fixations import Fixations
from segmentation.images import read_image
from segmentation.importing import import_images
from segmentation.pseudomask import make_pseudomask
from segmentation.study import Study


def open_window(qtbot: QtBot, tmp_path: Path, study: Study | None = None) -> MainWindow:
    """Return a window in view, on a study if one is given; pytest-qt closes it."""
    application = QApplication.instance()
    assert isinstance(application, QApplication)
    theme.apply(application, "dark")
    settings = QSettings(str(tmp_path / "settings.ini"), QSettings.Format.IniFormat)
    settings.setValue("annotator", "Dr. Test")
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
