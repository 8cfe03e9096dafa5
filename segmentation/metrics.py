"""How well a mask matches the truth, per image and at the image's own resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Mask = npt.NDArray[np.bool_]

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)


@dataclass(frozen=True)
class ImageMetrics:
    """All measures of one image; distances in pixels, or in mm where a spacing was given."""

    dice: float
    iou: float
    miou: float
    """Mean IoU of foreground and background."""
    hd95: float
    """95th percentile of the surface distances of both directions, pooled before the percentile (as in medpy)."""
    asd: float
    """Mean distance of the prediction's surface to the truth's (directed)."""
    assd: float
    """Mean of `asd` and its reverse."""


def image_metrics(prediction: Mask, truth: Mask, spacing: tuple[float, float] | None = None) -> ImageMetrics:
    """Measure a predicted mask (H, W) against the true one.

    Two empty masks agree: Dice and IoU are 1, distances 0. Where one alone is empty, all distances are the image's
    diagonal.

    Parameters
    ----------
    prediction, truth
        (H, W) bool, on the same grid.
    spacing
        Millimetres from row to row and from column to column.

    Raises
    ------
    ValueError
        If the grids differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f"a prediction of {prediction.shape} cannot be held against a truth of {truth.shape}"
        )
    hd95, asd, assd = _distances(prediction, truth, spacing or (1.0, 1.0))
    overlap = iou(prediction, truth)
    return ImageMetrics(
        dice(prediction, truth), overlap, (overlap + iou(~prediction, ~truth)) / 2, hd95, asd, assd
    )


def dice(prediction: Mask, truth: Mask) -> float:
    """Return twice the common area over the sum of areas; 1 where both are empty."""
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(prediction & truth) / total if total else 1.0


def iou(prediction: Mask, truth: Mask) -> float:
    """Return the common area over the joint area; 1 where both are empty."""
    joint = np.count_nonzero(prediction | truth)
    return np.count_nonzero(prediction & truth) / joint if joint else 1.0


def hd95(prediction: Mask, truth: Mask, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """Return the 95th percentile of the surface distances of both directions, pooled."""
    return _distances(prediction, truth, spacing)[0]


def asd(prediction: Mask, truth: Mask, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """Return the mean distance of the prediction's surface to the truth's."""
    return _distances(prediction, truth, spacing)[1]


def assd(prediction: Mask, truth: Mask, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """Return the mean of both directed mean surface distances."""
    return _distances(prediction, truth, spacing)[2]


def surface(mask: Mask) -> Mask:
    """Return the mask's pixels (H, W) that touch background or the image's edge on one of their four sides."""
    inner = cv2.erode(mask.astype(np.uint8), _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0.0)
    outline: Mask = mask & (inner == 0)
    return outline


def _distances(prediction: Mask, truth: Mask, spacing: tuple[float, float]) -> tuple[float, float, float]:
    """Return HD95, ASD and ASSD."""
    if not prediction.any() and not truth.any():
        return 0.0, 0.0, 0.0
    if not prediction.any() or not truth.any():
        diagonal = math.hypot(truth.shape[0] * spacing[0], truth.shape[1] * spacing[1])
        return diagonal, diagonal, diagonal
    # A k-d tree of the few surface points is exact, knows spacing, and beats distance transforms of the image.
    own, true = (np.argwhere(surface(mask)) * spacing for mask in (prediction, truth))
    there, back = (
        np.asarray(cKDTree(points).query(asked)[0]) for points, asked in ((true, own), (own, true))
    )
    pooled = np.percentile(np.concatenate([there, back]), 95)
    return float(pooled), float(there.mean()), float((there.mean() + back.mean()) / 2)


# Volumes


@dataclass(frozen=True)
class VolumeMetrics:
    """Measures of one volume; distances in mm, NaN where its spacing is unknown."""

    dice: float
    hd95_mm: float
    """95th percentile of the surface distances of both directions, pooled."""
    assd_mm: float


def volume_metrics(
    prediction: Mask,
    truth: Mask,
    spacing_mm: tuple[float, float, float] | None = None,
    known: Mask | None = None,
) -> VolumeMetrics:
    """Measure a predicted mask (D, H, W) against the true one over the slices whose truth is known.

    Where one mask alone is empty, the distances are the volume's diagonal.

    Parameters
    ----------
    prediction, truth
        (D, H, W) bool, on the same grid.
    spacing_mm
        Millimetres from slice to slice, from row to row and from column to column.
    known
        (D,) which slices count; default: all. An unknown neighbour makes no surface.

    Raises
    ------
    ValueError
        If the grids differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f"a prediction of {prediction.shape} cannot be held against a truth of {truth.shape}"
        )
    known = np.ones(len(truth), np.bool_) if known is None else known
    prediction, truth = (mask & known[:, np.newaxis, np.newaxis] for mask in (prediction, truth))
    overlap = dice(prediction, truth)
    if spacing_mm is None:
        return VolumeMetrics(overlap, math.nan, math.nan)
    if not prediction.any() and not truth.any():
        return VolumeMetrics(overlap, 0.0, 0.0)
    if not prediction.any() or not truth.any():
        diagonal = math.hypot(*(side * step for side, step in zip(truth.shape, spacing_mm, strict=True)))
        return VolumeMetrics(overlap, diagonal, diagonal)
    own, true = (np.argwhere(volume_surface(mask, known)) * spacing_mm for mask in (prediction, truth))
    there, back = (
        np.asarray(cKDTree(points).query(asked)[0]) for points, asked in ((true, own), (own, true))
    )
    pooled = np.percentile(np.concatenate([there, back]), 95)
    return VolumeMetrics(overlap, float(pooled), float((there.mean() + back.mean()) / 2))


def volume_surface(mask: Mask, known: Mask) -> Mask:
    """Return the voxels (D, H, W) that touch background or the volume's border on one of their six sides.

    Towards a slice that is not `known` (D,) nothing is a surface.
    """
    outline: Mask = np.stack([surface(plane) for plane in mask])
    for step in (1, -1):
        beside = np.zeros_like(mask)
        sure = np.ones(len(mask), np.bool_)
        here, there = (slice(1, None), slice(None, -1)) if step == 1 else (slice(None, -1), slice(1, None))
        beside[here], sure[here] = mask[there], known[there]
        outline |= mask & ~beside & sure[:, np.newaxis, np.newaxis]
    return outline
