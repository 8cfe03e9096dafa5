"""Masks that were corrected in another program come back as reviews."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gaze_capture.errors import UserError
from segmentation.import_options import ImportOptions
from segmentation.mask_sinks import Reviews
from segmentation.masks import Labels, MaskFiles, take_all
from segmentation.progress import Progress, no_progress
from segmentation.review_index import Verdict
from segmentation.runs import latest_run
from segmentation.study import Study


@dataclass(frozen=True)
class ReviewImportReport:
    """What came in as reviews, and what did not."""

    reviews: int
    images: int
    unchanged: int
    """Masks that are what the latest review has already."""
    left_empty: int
    """Empty masks of what had none before, which were not taken for a word."""
    skipped: tuple[tuple[str, str], ...]
    """(file or image, reason)"""


def import_reviews(
    study: Study,
    path: Path | str,
    annotator: str,
    *,
    verdict: Verdict = "edited",
    run: str | None = None,
    empty: bool = False,
    seconds: float = 0.0,
    labels: Labels | None = None,
    target: str | None = None,
    options: ImportOptions | None = None,
    progress: Progress = no_progress,
) -> ReviewImportReport:
    """Take masks as an annotator's reviews: pictures, NIfTI, NRRD, DICOM-SEG or COCO.

    They find their images as true masks do; a folder called like a target holds that target's. They have to lie on the
    image's own grid. What is there already stays, and a mask that is no other than the latest review's is passed over.

    Parameters
    ----------
    path : a folder, or one file
    annotator : whose reviews they are, a pseudonym
    verdict : ``edited`` or ``accepted``
    run : whose prediction the masks began as; by default what the latest review judged, else the pseudo-mask
    empty : whether every empty mask says that the target is not there; otherwise only where there was a mask before
    seconds : spent on each review, where it is known
    labels, target, options : as `segmentation.masks.import_masks` takes them

    Raises
    ------
    UserError
        If nothing fits any image, a file is no mask or of another size, or labels cannot be told apart; the first
        reason is named, with its file.
    """
    if verdict not in ("edited", "accepted"):
        raise UserError(f"A mask comes in as edited or accepted, not as {verdict!r}.")
    sink = Reviews(
        study, annotator, verdict, latest_run(study, run) if run is not None else None, empty, seconds
    )
    files = MaskFiles.find(study, Path(path), labels, target, options or ImportOptions(), sink)
    count, skipped = take_all(files, progress)
    study.audit("import-reviews", annotator=annotator, verdict=verdict, reviews=count, skipped=len(skipped))
    return ReviewImportReport(count, len(sink.images), sink.unchanged, sink.left_empty, tuple(skipped))
