"""Made-up prostate volumes as a study's slices, and as NIfTI files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.storage import sha256_of, write_bytes_atomic
from segmentation.intensity import Intensity, Statistics
from segmentation.prostate import ProstatePhantom, make_prostate
from segmentation.records import StudyImage, Target, Volume
from segmentation.study import Study

ZONES = (
    Target("gland", "Prostate", "#56B4E9", "organ"),
    Target("central", "Central gland", "#E69F00", "zone", inside="gland"),
)


def write_nifti(path: Path, values: npt.NDArray[Any], spacing_mm: tuple[float, float, float]) -> None:
    """Write (D, H, W) values as NIfTI, slices along the third axis, patient axes RAS+."""
    import nibabel

    between, down, across = spacing_mm
    # Columns run to the left, rows to the back, slices upwards.
    affine = np.diag([-across, -down, between, 1.0])
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(values.transpose(2, 1, 0)), affine), path)


def write_prostate(folder: Path, prostate: ProstatePhantom) -> tuple[Path, Path, Path]:
    """Write ``volume.nii.gz``, ``gland.nii.gz`` and ``central.nii.gz``."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, npt.NDArray[Any]] = {
        "volume": prostate.volume,
        "gland": prostate.gland.astype(np.uint8),
        "central": prostate.central.astype(np.uint8),
    }
    for name, values in parts.items():
        write_nifti(folder / f"{name}.nii.gz", values, prostate.spacing_mm)
    return folder / "volume.nii.gz", folder / "gland.nii.gz", folder / "central.nii.gz"


def add_volume(
    study: Study, name: str, prostate: ProstatePhantom, split: str, modality: str = "mr"
) -> list[StudyImage]:
    """Add a volume's slices, its masks of both zones and its facts to a study."""
    statistics = Statistics()
    for plane in prostate.volume:
        statistics.add(plane.astype(np.float32))
    intensity = statistics.on(Intensity())
    images = []
    for index, plane in enumerate(prostate.volume):
        image_id = f"{name}_{index:03d}"
        path = f"images/{image_id}.png"
        write_bytes_atomic(study.folder / path, cv2.imencode(".png", plane)[1].tobytes())
        images.append(
            StudyImage(
                id=image_id,
                path=path,
                source_name=f"{name}.nii.gz",
                sha256=sha256_of(study.folder / path),
                shape=(*plane.shape, 1),
                modality=modality,
                spacing_mm=prostate.spacing_mm[1:],
                slice_index=index,
                split=split,
                group=name,
                volume=name,
                intensity=intensity,
            )
        )
        study.save_true_mask(image_id, "gland", prostate.gland[index])
        study.save_true_mask(image_id, "central", prostate.central[index])
    study.add_images(images)
    study.save_volume(Volume(name, tuple(image.id for image in images), prostate.spacing_mm[0]))
    return images


def prostate_study(
    folder: Path,
    seeds: Mapping[str, Sequence[int]],
    shape: tuple[int, int, int] = (24, 128, 128),
    targets: Sequence[Target] = ZONES,
) -> Study:
    """Make a study of one volume a seed, by split."""
    study = Study.create(folder, "Prostates", targets)
    for split, chosen in seeds.items():
        for seed in chosen:
            add_volume(study, f"{split}{seed:03d}", make_prostate(seed, shape), split)
    return study
