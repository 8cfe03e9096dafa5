"""Bringing other programs' gaze into a study."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from gaze_capture.formats import gazemedseg
from gaze_capture.formats.gaze_file import Known
from gaze_capture.formats.reading import FORMATS
from gaze_capture.storage import write_bytes_atomic
from segmentation.gaze_matching import GazeReport, ImageNames, none_of_them
from segmentation.progress import Progress, no_progress
from segmentation.records import safe_name
from segmentation.sample_import import ShownAt, import_samples
from segmentation.study import Study

TABLE_FORMAT = "gazemedseg"

__all__ = ["TABLE_FORMAT", "GazeReport", "ShownAt", "import_gaze"]


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
    known: Known | None = None,
    shown_at: ShownAt | None = None,
    fixations: Literal["detect", "own"] = "detect",
    progress: Progress = no_progress,
) -> GazeReport:
    """Read another program's gaze into the study: a table of fixations, or samples, which become a recording.

    Parameters
    ----------
    format : ``auto``, ``gazemedseg`` or one of :data:`gaze_capture.formats.gaze_file.FORMATS`
    split : only images of this split; all when None
    image_width_deg : how wide the images of a table were on the screen; without it sigma is a fraction of the image
    target : id of what was looked for; the study's first target when None
    simulated_from : ``"masks"`` when the file is known to hold no person's gaze
    known : what a file of samples does not tell of itself
    shown_at : which image a file of samples showed and where, as far as it does not tell itself
    fixations : ``own`` takes the file's own fixations instead of a recording whose fixations are detected

    Raises
    ------
    UserError
        If the file is not understood, a fact is missing, no image of the study is in it, or a name fits several
        images.
    """
    file, known, shown_at = Path(file), known or Known(), shown_at or ShownAt()
    if format not in ("auto", TABLE_FORMAT, *FORMATS):
        formats = ", ".join((TABLE_FORMAT, *FORMATS))
        raise UserError(f"There is no gaze format {format!r}; this version reads {formats}.")
    if image_width_deg is not None and not 0 < image_width_deg < 180:
        raise UserError(
            f"An image cannot be {image_width_deg:g} degrees wide; give a number between 0 and 180."
        )
    if not study.images:
        raise UserError("The study has no images yet; import the images before their gaze.")
    target_id = study.target(target).id
    if format == TABLE_FORMAT or (format == "auto" and gazemedseg.sniff(file)):
        if known != Known() or shown_at != ShownAt() or fixations == "own":
            raise UserError(
                f"{file} is a table of fixations as shares of their images: what the screen was, where the image was "
                "on it and whose fixations they are is not asked for; leave those options away."
            )
        # The same table may be told of another target, too.
        more = f"-{target_id}" if target is not None else ""
        return _import_table(
            study,
            file,
            target_id,
            source_ending=more,
            split=split,
            annotator=annotator,
            image_width_deg=image_width_deg,
            simulated_from=simulated_from,
            progress=progress,
        )
    if image_width_deg is not None:
        raise UserError(
            f"How wide the images of {file} were follows from its screen; leave --image-width-deg away."
        )
    return import_samples(
        study,
        file,
        format=format,
        known=known,
        shown_at=shown_at,
        own_fixations=fixations == "own",
        split=split,
        annotator=annotator,
        target_id=target_id,
        simulated_from=simulated_from,
        progress=progress,
    )


def _import_table(
    study: Study,
    file: Path,
    target_id: str,
    *,
    source_ending: str,
    split: str | None,
    annotator: str,
    image_width_deg: float | None,
    simulated_from: str | None,
    progress: Progress,
) -> GazeReport:
    """Read fixations that are shares of their images."""
    table = gazemedseg.read_gazemedseg(file)
    original = file.read_bytes()
    digest = hashlib.sha256(original).hexdigest()
    source = f"{safe_name(file.stem)}-{digest[:8]}-{safe_name(annotator)}{source_ending}"
    if split is not None:
        source += f"-{safe_name(split)}"
    already_there = (study.folder / "fixations" / source).exists()
    names = ImageNames(study.images_of(split))
    found: list[Fixations] = []
    unknown: list[str] = []
    outside = 0
    for number, (name, gaze) in enumerate(table.images.items()):
        progress(number, len(table.images), name)
        image = names.find(file, name)
        if image is None:
            unknown.append(name)
            continue
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
        raise none_of_them(file, unknown)
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
