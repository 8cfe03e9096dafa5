"""A study of pictures, an oblique NIfTI volume and a DICOM series, with reviews, for what brings masks out and in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from segmentation.import_options import ImportOptions
from segmentation.importing import import_images
from segmentation.records import Target, utc_now
from segmentation.review_index import Purpose, Review, Verdict
from segmentation.study import Mask, Study
from tests.dicom_support import make
from tests.test_importing import noise, write_image

TARGETS = (
    Target("polyp", "Polyp", "#56B4E9", "lesion"),
    Target("gland", "Prostate gland", "#E69F00", "organ", code="SCT:41216001"),
    Target("zone", "Peripheral zone", "#009E73", "zone", inside="gland"),
)
SLICES = 6
OFF = ImportOptions(deidentify="off", modality="mr")


def oblique() -> npt.NDArray[np.float64]:
    """Return an affine turned about all three axes, with voxels of 0.5 x 0.8 x 3 mm."""
    a, b, c = 0.3, -0.2, 0.45
    turn = (
        np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        @ np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        @ np.array([[1, 0, 0], [0, np.cos(c), -np.sin(c)], [0, np.sin(c), np.cos(c)]])
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.5, 0.8, 3.0])
    affine[:3, 3] = [-31.5, 12.25, 7.0]
    return affine


def review(
    study: Study,
    image_id: str,
    target_id: str,
    mask: Mask | None,
    *,
    verdict: Verdict = "edited",
    annotator: str = "A",
    subject: str = "pseudomask",
    purpose: Purpose = "review",
    **more: Any,
) -> None:
    study.add_review(
        Review(
            image_id, target_id, annotator, subject, verdict,
            None if mask is None else "present" if mask.any() else "absent",
            2.5, utc_now(), purpose=purpose, **more,
        ),
        mask,
    )  # fmt: skip


def random_mask(seed: int, shape: tuple[int, int]) -> Mask:
    """Return blobs with holes, parts that touch at corners, and marks at the border."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((shape[0] // 4 + 1, shape[1] // 4 + 1)) < 0.4
    mask: Mask = np.kron(coarse, np.ones((4, 4), bool))[: shape[0], : shape[1]]
    mask ^= rng.random(shape) < 0.02
    return mask


def write_series(folder: Path, **changes: Any) -> list[Path]:
    """Write a DICOM series of `SLICES` oblique, anisotropic slices, its files in an order of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    right = np.array([0.8, 0.6, 0.0])
    down = np.array([0.0, 0.0, -1.0])
    normal = np.cross(right, down)
    files = []
    for index in rng.permutation(SLICES).tolist():
        options: dict[str, Any] = {
            "ImageOrientationPatient": [*right.tolist(), *down.tolist()],
            "ImagePositionPatient": (np.array([5.0, -8.0, 40.0]) + 2.5 * index * normal).tolist(),
            "InstanceNumber": index + 1,
            "PixelSpacing": [0.5, 0.25],
            "SliceThickness": 2.5,
            "PatientSex": "O",
            "SeriesNumber": 4,
        }
        path = folder / f"{rng.integers(10**6)}.dcm"
        make(path, rng.integers(0, 900, (20, 28)).astype(np.int16), **{**options, **changes})
        files.append(path)
    return files


def write_sources(folder: Path) -> None:
    """Write three pictures, a volume and a series below a folder."""
    for number, name in enumerate(("a.png", "b.jpg", "c.png")):
        write_image(folder / "pictures" / name, noise(number, 30 + number, 40, 3))
    values = np.random.default_rng(3).integers(0, 900, (24, 18, SLICES)).astype(np.int16)
    (folder / "volume").mkdir()
    nibabel.save(nibabel.Nifti1Image(values, oblique()), folder / "volume" / "case 7.nii.gz")
    write_series(folder / "dicom")


def make_reviewed(folder: Path) -> Study:
    """Import the sources and judge some of them: the last slices of volume and series have no mask."""
    write_sources(folder / "raw")
    study = Study.create(folder / "study", targets=TARGETS)
    for name in ("pictures", "volume", "dicom"):
        import_images(study, [folder / "raw" / name], options=OFF)
    for number, image in enumerate(study.images.values()):
        shape = image.shape[:2]
        if (image.slice_index or 0) >= SLICES - 2 or image.id == "c":
            continue
        review(study, image.id, "polyp", random_mask(number, shape))
        gland = np.zeros(shape, bool)
        gland[4:15, 5:14] = True
        # Zones nest; one slice holds nothing.
        review(study, image.id, "gland", gland & (image.slice_index != 1), verdict="accepted", annotator="B")
        if not image.volume:
            review(study, image.id, "zone", np.zeros(shape, bool), started_from="empty")
    return study
