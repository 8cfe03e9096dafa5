"""Bringing other programs' gaze into a study."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from gaze_capture.formats.gazemedseg import read_gazemedseg
from gaze_capture.storage import write_bytes_atomic
from segmentation.progress import Progress, no_progress
from segmentation.records import StudyImage, safe_name
from segmentation.study import Study


@dataclass(frozen=True)
class GazeReport:
    """What an import of gaze took, and what it did not."""

    source: str
    """Id of the import: a folder in ``fixations/``."""
    images: int
    fixations: int
    unknown_images: tuple[str, ...]
    """Names in the file that the study has no image for."""
    outside_image: int
    """Fixations kept that lie outside their image; they do not enter heatmaps."""
    dropped: int
    """Rows without a duration."""
    already_there: bool = False


def import_gaze(
    study: Study,
    file: Path | str,
    *,
    format: str = "auto",
    split: str | None = None,
    annotator: str = "imported",
    image_width_deg: float | None = None,
    simulated_from: str | None = None,
    target: str | None = None,
    progress: Progress = no_progress,
) -> GazeReport:
    """Read another program's fixations into the study.

    Parameters
    ----------
    format : ``auto`` or ``gazemedseg``
    split : only images of this split; all when None
    image_width_deg : how wide the images were on the screen; without it sigma is a fraction of the image
    target : id of what was looked for; the study's first target when None
    simulated_from : ``"masks"`` when the file is known to hold no person's gaze

    Raises
    ------
    UserError
        If the file is not understood, no image of the study is in it, or a name fits several images.
    """
    file = Path(file)
    if format not in ("auto", "gazemedseg"):
        raise UserError(f"There is no gaze format {format!r}; this version reads gazemedseg.")
    if image_width_deg is not None and not 0 < image_width_deg < 180:
        raise UserError(
            f"An image cannot be {image_width_deg:g} degrees wide; give a number between 0 and 180."
        )
    if not study.images:
        raise UserError("The study has no images yet; import the images before their gaze.")
    target_id = study.target(target).id
    table = read_gazemedseg(file)
    original = file.read_bytes()
    digest = hashlib.sha256(original).hexdigest()
    source = f"{safe_name(file.stem)}-{digest[:8]}-{safe_name(annotator)}"
    if target is not None:
        # The same table may be told of another target, too.
        source += f"-{target_id}"
    if split is not None:
        source += f"-{safe_name(split)}"
    already_there = (study.folder / "fixations" / source).exists()
    images = study.images_of(split)
    by_name: dict[str, list[StudyImage]] = {}
    for image in images:
        for name in {
            image.source_name.casefold(),
            Path(image.source_name).stem.casefold(),
            image.id.casefold(),
        }:
            by_name.setdefault(name, []).append(image)
    found: list[Fixations] = []
    unknown: list[str] = []
    outside = 0
    for number, (name, gaze) in enumerate(table.images.items()):
        progress(number, len(table.images), name)
        matches = by_name.get(name.casefold(), [])
        if not matches:
            unknown.append(name)
            continue
        if len(matches) > 1:
            ids = ", ".join(match.id for match in matches)
            raise UserError(
                f"{file} speaks of {name!r}, which fits several images of the study ({ids}); "
                "narrow it with --split or use their ids in the file."
            )
        image = matches[0]
        height, width = image.shape[:2]
        xy_px = gaze.xy * [width, height] - 0.5
        outside += int(((gaze.xy < 0) | (gaze.xy > 1)).any(axis=1).sum())
        found.append(
            Fixations(
                image_id=image.id,
                target_id=target_id,
                annotator=annotator,
                source=source,
                start_ms=gaze.start_ms,
                duration_ms=gaze.duration_ms,
                xy_px=xy_px,
                dispersion_deg=np.full(len(xy_px), np.nan),
                detector="imported",
                degrees_per_px=image_width_deg / width if image_width_deg else None,
                simulated_from=simulated_from,
                viewing_ms=float((gaze.start_ms + gaze.duration_ms).max(initial=0.0)),
            )
        )
    if not found:
        raise UserError(
            f"{file} holds gaze for {len(table.images)} images, none of them in the study (the first is "
            f"{unknown[0]!r}); import the images first, or check their names."
        )
    kept = study.folder / "fixations" / source / f"original{file.suffix}"
    write_bytes_atomic(kept, original, within=study.folder)
    study.save_fixations(source, found, imported=True)
    study.audit("import-gaze", source=source, images=len(found), unknown=len(unknown))
    return GazeReport(
        source=source,
        images=len(found),
        fixations=sum(len(item.duration_ms) for item in found),
        unknown_images=tuple(unknown),
        outside_image=outside,
        dropped=table.dropped,
        already_there=already_there,
    )
