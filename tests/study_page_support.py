"""What the tests of the study page's dialogs share: a study with pictures, and a double of the import."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmentation.images import encode_plane
from segmentation.import_options import ImportOptions
from segmentation.importing import ImportReport
from segmentation.phantoms import make_phantom
from segmentation.records import StudyImage
from segmentation.study import Study


def add_pictures(
    study: Study,
    count: int,
    *,
    seed: int = 0,
    text: bool = False,
    split: str = "train",
    group: str = "",
    volume: str = "",
    size_px: int = 64,
) -> list[StudyImage]:
    """Put phantoms into a study as the import would."""
    images = []
    for number in range(count):
        pixels = make_phantom(seed + number, size_px=size_px).image
        if text:
            import cv2

            pixels = pixels.copy()
            cv2.putText(pixels, "DOE JANE 1961", (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 255), 1)
        data, ending = encode_plane(pixels)
        name = f"{volume or ('text' if text else 'case')}-{seed + number:04d}"
        image = StudyImage(
            id=name,
            path=f"images/{name}{ending}",
            source_name=f"{name}.png",
            sha256=hashlib.sha256(data).hexdigest(),
            shape=pixels.shape,
            split=split,
            group=group or volume or name,
            volume=volume,
            slice_index=number if volume else None,
            burned_in="bright letters at the top" if text else "",
        )
        study.image_path(image).parent.mkdir(exist_ok=True)
        study.image_path(image).write_bytes(data)
        images.append(image)
    study.add_images(images)
    return images


class ImportDouble:
    """Takes the place of `import_images`: keeps what it was asked, and brings in a picture for every PNG."""

    def __init__(self, **report: Any) -> None:
        self.calls: list[dict[str, Any]] = []
        self._report = report

    def __call__(self, study: Study, paths: Sequence[Path], **values: Any) -> ImportReport:
        """Note what is asked."""
        self.calls.append({"paths": list(paths), **values})
        options: ImportOptions = values["options"]
        files = [file for path in paths for file in sorted(path.rglob("*.png")) if path.is_dir()]
        good = [file for file in files if file.read_bytes()[:4] == b"\x89PNG"]
        images = add_pictures(study, len(good), seed=len(study.images), split=options.split)
        masks = values["masks"]
        if masks is not None:
            for image in images:
                study.save_true_mask(image.id, "target", np.eye(64, dtype=np.bool_))
        skipped = tuple((str(file), f"{file} is no image.") for file in files if file not in good)
        report = {
            "imported": tuple(image.id for image in images),
            "masks": len(images) if masks is not None else 0,
            "skipped": skipped,
            **self._report,
        }
        return ImportReport(**report)
