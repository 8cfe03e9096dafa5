"""What the tests of drafts share: a study of one image."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from segmentation.records import StudyImage
from segmentation.study import Study


def one_image(folder: Path, shape: tuple[int, int], name: str = "one") -> Study:
    """Make a study of one grey image of noise, its id being its name."""
    study = Study.create(folder / "study")
    pixels = np.random.default_rng(0).integers(60, 200, shape).astype(np.uint8)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    path = study.folder / "images" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    study.add_images(
        [StudyImage(name, f"images/{name}.png", f"{name}.png", hashlib.sha256(data).hexdigest(), (*shape, 1))]
    )
    return study
