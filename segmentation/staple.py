"""One mask out of several annotators': by majority, or by STAPLE, which also says how far each can be relied on.

S. K. Warfield, K. H. Zou, W. M. Wells, Simultaneous truth and performance level estimation (STAPLE): an algorithm for
the validation of image segmentation, IEEE Transactions on Medical Imaging 23 (2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segmentation.study import Mask

Floats = npt.NDArray[np.float64]

MARGIN_PX = 10
"""How far around the pixels in dispute the estimate reaches: a whole image of undisputed background would make every
annotator's specificity 1 and the prior next to nothing."""
BEGIN = 0.99
"""Sensitivity and specificity that the estimate begins with: annotators are trusted until they disagree."""
TOLERANCE = 1e-9
MOST_ITERATIONS = 2000
MOST_ANNOTATORS = 16
_CERTAIN = 1e-9
"""No rate is taken to be nearer to 0 or 1."""


@dataclass(frozen=True)
class Staple:
    """What the annotators' masks come to."""

    probability: npt.NDArray[np.float32]
    """(H, W) of the target, 0..1; outside the region what all say, 0 or 1."""
    sensitivity: Floats
    """(R,) of each annotator inside the region; NaN where nothing is in dispute."""
    specificity: Floats
    """(R,) likewise."""
    region_px: int
    """Pixels that the estimate is over: those in dispute, and the margin around them."""
    iterations: int


def majority(masks: Sequence[Mask]) -> Mask:
    """Return the pixels (H, W) that more than half of the masks hold; a pixel that divides them in halves is out."""
    votes = np.zeros(masks[0].shape, dtype=np.uint16)
    for mask in masks:
        votes += mask
    held: Mask = 2 * votes > len(masks)
    return held


def staple(masks: Sequence[Mask], *, margin_px: int = MARGIN_PX) -> Staple:
    """Estimate the true mask and each annotator's sensitivity and specificity together, by expectation-maximisation.

    Pixels are taken as independent given the truth; the prior is the mean of all masks inside the region. Pixels of
    which the annotators say the same are counted together, so that an iteration costs the same however large the
    image is.

    Parameters
    ----------
    masks : (R) x (H, W), R from 2 to MOST_ANNOTATORS
    margin_px : how far the region reaches around the pixels in dispute
    """
    if not 2 <= len(masks) <= MOST_ANNOTATORS:
        raise ValueError(f"STAPLE of {len(masks)} masks")
    common, anyone = np.logical_and.reduce(masks), np.logical_or.reduce(masks)
    disputed = anyone & ~common
    probability = common.astype(np.float32)
    if not disputed.any():
        unknown = np.full(len(masks), np.nan)
        return Staple(probability, unknown, unknown.copy(), 0, 0)
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin_px + 1, 2 * margin_px + 1))
    part = _box(disputed, margin_px)
    region = cv2.dilate(disputed[part].astype(np.uint8), around) > 0
    said = np.stack([mask[part][region] for mask in masks])
    codes = np.zeros(said.shape[1], dtype=np.int64)
    for number, row in enumerate(said):
        codes |= row.astype(np.int64) << number
    patterns, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
    table = ((patterns[:, np.newaxis] >> np.arange(len(masks))) & 1).astype(np.float64)
    weight, sensitivity, specificity, iterations = _estimated(table, counts.astype(np.float64))
    probability[part][region] = weight[place.ravel()]
    return Staple(probability, sensitivity, specificity, int(region.sum()), iterations)


def _box(mask: Mask, margin_px: int) -> tuple[slice, slice]:
    """Return the rows and columns that hold all of a mask, and a margin around it."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return (
        slice(max(0, int(rows[0]) - margin_px), int(rows[-1]) + margin_px + 1),
        slice(max(0, int(columns[0]) - margin_px), int(columns[-1]) + margin_px + 1),
    )


def _estimated(said: Floats, counts: Floats) -> tuple[Floats, Floats, Floats, int]:
    """Run the EM over patterns (P, R) of what annotators say, each met so often.

    Returns
    -------
    Probability (P,) of the target, sensitivity and specificity (R,), and the number of iterations
    """
    prior = _inner(np.average(said, axis=0, weights=counts).mean())
    annotators = said.shape[1]
    sensitivity, specificity = np.full(annotators, BEGIN), np.full(annotators, BEGIN)
    weight = np.zeros(len(said))
    iterations, moved = 0, 1.0
    while moved >= TOLERANCE and iterations < MOST_ITERATIONS:
        iterations += 1
        p, q = _inner(sensitivity), _inner(specificity)
        odds = np.log(prior / (1 - prior)) + said @ np.log(p / (1 - q)) + (1 - said) @ np.log((1 - p) / q)
        weight = 1 / (1 + np.exp(-np.clip(odds, -700, 700)))
        inside, outside = counts * weight, counts * (1 - weight)
        before = sensitivity, specificity
        # Where all is inside, or nothing, the other rate is told by no pixel and stays.
        if inside.sum() > _CERTAIN:
            sensitivity = inside @ said / inside.sum()
        if outside.sum() > _CERTAIN:
            specificity = outside @ (1 - said) / outside.sum()
        moved = max(np.abs(sensitivity - before[0]).max(), np.abs(specificity - before[1]).max())
    return weight, sensitivity, specificity, iterations


def _inner(rate: Floats) -> Floats:
    inner: Floats = np.clip(rate, _CERTAIN, 1 - _CERTAIN)
    return inner
