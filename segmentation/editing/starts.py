"""What an edited mask may begin as: a prediction, a level of the pseudo-mask, what was reviewed before, nothing."""

from __future__ import annotations

import contextlib

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.editing.regions import Mask
from segmentation.records import MASK_THRESHOLD
from segmentation.review_index import Purpose
from segmentation.study import Study


def level_name(threshold: float) -> str:
    """Return what a level is called as a start, as in ``level 0.65``."""
    return f"level {threshold:g}"


def starts(
    study: Study, image_id: str, target_id: str, run_id: str | None, purpose: Purpose = "review"
) -> list[str]:
    """Return what an image's mask may begin as, in the order of a menu; the first that applies is the usual one.

    ``reviewed`` comes first where the mask that counts was itself edited; then ``student``, ``teacher``, the levels
    from the broadest to the narrowest, and ``empty``, which is always there. A second reader is not offered what was
    reviewed, and who outlines for an audit nothing at all.
    """
    if purpose == "audit":
        return ["empty"]
    reviews = study.counted_reviews(image_id, target_id) if purpose != "second-read" else []
    reviewed = []
    # A mask that cannot be read is nothing to begin with.
    with contextlib.suppress(UserError):
        if reviews and study.reviewed_mask(image_id, target_id) is not None:
            reviewed = ["reviewed"]
    networks = [
        network
        for network in ("student", "teacher")
        if run_id is not None and study.prediction_path(run_id, image_id, target_id, network).exists()
    ]
    pseudomask = study.pseudomask(image_id, target_id)
    levels = [] if pseudomask is None else [level_name(one) for one in reversed(pseudomask.thresholds)]
    if reviewed and reviews[-1].verdict == "edited":
        return [*reviewed, *networks, *levels, "empty"]
    return [*networks, *levels, *reviewed, "empty"]


def start_mask(study: Study, image_id: str, target_id: str, run_id: str | None, start: str) -> Mask:
    """Return the mask (H, W) that a start stands for.

    Raises
    ------
    UserError
        If it is gone by now, or of another size than its image.
    """
    height, width, _ = study.image(image_id).shape
    if start == "empty":
        return np.zeros((height, width), dtype=np.bool_)
    mask: Mask | None = None
    if start in ("student", "teacher"):
        found = probability(study, image_id, target_id, run_id, start)
        mask = found >= np.float32(MASK_THRESHOLD)
    elif start == "reviewed":
        mask = study.reviewed_mask(image_id, target_id)
    else:
        pseudomask = study.pseudomask(image_id, target_id)
        for threshold, level in zip(
            () if pseudomask is None else pseudomask.thresholds,
            () if pseudomask is None else pseudomask.masks,
            strict=True,
        ):
            if level_name(threshold) == start:
                mask = level
    if mask is None:
        raise UserError(
            f"There is no mask {start!r} of the image {image_id} any more: it was taken away meanwhile. "
            "Begin with another one."
        )
    return fitting(mask, (height, width), f"The mask {start!r} of the image {image_id}")


def probability(
    study: Study, image_id: str, target_id: str, run_id: str | None, network: str = "student"
) -> npt.NDArray[np.float32]:
    """Return a network's probability (H, W) in 0..1 for an image.

    Raises
    ------
    UserError
        If the run has none for this image, or it is of another size than the image.
    """
    found = None if run_id is None else study.prediction(run_id, image_id, target_id, network)
    if found is None:
        raise UserError(
            f"There is no prediction of the {network} for the image {image_id}"
            + (f" in the run {run_id}" if run_id else "")
            + ": choose a run that has one, or predict it again."
        )
    height, width, _ = study.image(image_id).shape
    if found.shape != (height, width):
        raise UserError(
            _misfit(f"The {network}'s prediction for the image {image_id}", found.shape, (height, width))
        )
    return found


def fitting(mask: Mask, shape: tuple[int, int], what: str) -> Mask:
    """Return a mask as it is, or raise UserError where it is not of this shape; `what` names it."""
    if mask.shape != shape:
        raise UserError(_misfit(what, mask.shape, shape))
    return mask


def _misfit(what: str, found: tuple[int, ...], shape: tuple[int, int]) -> str:
    return (
        f"{what} is {found[1]} x {found[0]} pixels, the image {shape[1]} x {shape[0]}; make it again, "
        "or begin with another one."
    )
