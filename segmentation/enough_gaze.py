"""Whether an image has had enough gaze: the level masks have stopped changing as fixations come in.

A coarse copy of the heatmap grows by one Gaussian a fixation. When the masks of the highest and the lowest level are
nearly what they were some dwell ago, and there has been a minimum of dwell and of fixations, more gaze would add
little. The masks are those of the plain heatmap: the refiner is too slow to run along.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from segmentation.dwell import TRUNCATE, Floats
from segmentation.pseudomask import PRESETS, PseudoMaskSettings, kernel_px, preset_of

GRID = 96
"""Longer side of the coarse grid."""


@dataclass(frozen=True)
class EnoughRule:
    """When gaze is enough.

    Chosen on gaze simulated from every eighth training mask of Kvasir-SEG, see docs/adr/0011. The simulated eye works
    its way outwards until its last fixation, so that masks grow to the end; the rule errs on the side of more gaze.
    """

    minimum_ms: float = 3000.0
    """Dwell within the image, at least ..."""
    kernel_ms: float = 1250.0
    """... and so much more for each kernel (2 pi sigma^2) that the broad mask is large: more to see takes longer."""
    minimum_fixations: int = 8
    look_back_ms: float = 1500.0
    """Masks are held against those of so much dwell before."""
    broad_iou: float = 0.85
    core_iou: float = 0.6
    """The smaller mask moves more as the highest peak shifts."""
    agreeing: int = 3
    """So many fixations in a row must leave the masks as they are."""


@dataclass(frozen=True)
class GazeAmount:
    """How much gaze an image has had."""

    progress: float
    """0..1: the least of dwell, fixations and stillness of the masks, each as a share of what is asked for."""
    enough: bool
    dwell_ms: float
    fixations: int
    broad_iou: float
    """Lowest level's mask against that of some dwell ago, 0..1; 0 until there is one."""
    core_iou: float


class EnoughGaze:
    """Follows the fixations on one image; each :meth:`add` takes a fraction of a millisecond.

    Parameters
    ----------
    shape : height, width of the image
    sigma_px : kernel width along x and y, in image pixels, as pseudo-masks of the study will have it
    thresholds : levels of the plain heatmap, strictly descending
    """

    def __init__(
        self,
        shape: tuple[int, int],
        sigma_px: tuple[float, float],
        thresholds: tuple[float, ...],
        rule: EnoughRule = EnoughRule(),
    ) -> None:
        self.rule = rule
        height, width = shape
        self._shape = shape
        scale = min(1.0, GRID / max(shape))
        rows, columns = max(1, math.ceil(height * scale)), max(1, math.ceil(width * scale))
        # Cell centres in image pixels; a kernel narrower than a cell would fall between them.
        self._rows = (np.arange(rows) + 0.5) * height / rows - 0.5
        self._columns = (np.arange(columns) + 0.5) * width / columns - 0.5
        self._sigma = (max(sigma_px[0], 0.5 * width / columns), max(sigma_px[1], 0.5 * height / rows))
        cell_px2 = (height / rows) * (width / columns)
        self._kernels_a_cell = cell_px2 / (2 * math.pi * self._sigma[0] * self._sigma[1])
        self._levels = (thresholds[0], thresholds[-1])
        self._density = np.zeros((rows, columns))
        self._dwell_ms = 0.0
        self._count = 0
        self._agreed = 0
        self._past: deque[tuple[float, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]] = deque()
        self.amount = GazeAmount(0.0, False, 0.0, 0, 0.0, 0.0)
        """As of the last fixation."""

    def add(self, x: float, y: float, duration_ms: float) -> GazeAmount:
        """Take a fixation that has ended, at x, y in image pixels; one outside the image changes nothing."""
        height, width = self._shape
        if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
            return self.amount
        across = _kernel(self._columns, x, self._sigma[0])
        down = _kernel(self._rows, y, self._sigma[1])
        # All kernels are as wide and as heavy: their scale does not show in a normalised map.
        self._density += np.outer(down * duration_ms, across)
        self._dwell_ms += duration_ms
        self._count += 1
        low, high = float(self._density.min()), float(self._density.max())
        core, broad = (self._density >= low + level * (high - low) for level in self._levels)
        rule = self.rule
        then = self._dwell_ms - rule.look_back_ms
        # The latest masks that are old enough.
        while len(self._past) > 1 and self._past[1][0] <= then:
            self._past.popleft()
        core_iou = broad_iou = 0.0
        if self._past and self._past[0][0] <= then:
            core_iou, broad_iou = _iou(core, self._past[0][1]), _iou(broad, self._past[0][2])
        self._past.append((self._dwell_ms, core, broad))
        still = broad_iou >= rule.broad_iou and core_iou >= rule.core_iou
        self._agreed = self._agreed + 1 if still else 0
        kernels = float(np.count_nonzero(broad)) * self._kernels_a_cell
        progress = min(
            self._dwell_ms / (rule.minimum_ms + rule.kernel_ms * kernels),
            self._count / rule.minimum_fixations,
            broad_iou / rule.broad_iou,
            core_iou / rule.core_iou,
            1.0,
        )
        enough = progress >= 1.0 and self._agreed >= rule.agreeing
        self.amount = GazeAmount(
            # Full only when it is: a meter that is full says that one may go on.
            progress if enough else min(progress, 0.99),
            enough,
            self._dwell_ms,
            self._count,
            broad_iou,
            core_iou,
        )
        return self.amount


def meter_for(
    settings: PseudoMaskSettings,
    shape: tuple[int, int],
    degrees_per_px: float | None,
    accuracy_deg: float | None = None,
    rule: EnoughRule = EnoughRule(),
) -> EnoughGaze:
    """Return a meter for an image (H, W) with the kernel and the plain heatmap's levels of a study.

    Parameters
    ----------
    degrees_per_px : that one image pixel covers where it is shown, as `Placement.degrees_per_image_px` tells
    accuracy_deg : validated mean error of the sitting; None where unknown
    """
    if PRESETS[settings.sigma].spread:
        # While somebody looks, nobody knows yet how far their fixations will lie apart.
        settings = replace(settings, sigma="degrees", sigma_deg=None)
    thresholds = PRESETS[preset_of(settings, degrees_per_px)].thresholds
    if settings.thresholds is not None and settings.refine == "none":
        thresholds = settings.thresholds
    return EnoughGaze(shape, kernel_px(settings, shape, degrees_per_px, accuracy_deg), thresholds, rule)


def _kernel(centres: Floats, place: float, sigma: float) -> Floats:
    distance = (centres - place) / sigma
    response: Floats = np.exp(-0.5 * distance * distance)
    response[np.abs(distance) > TRUNCATE] = 0.0
    return response


def _iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    union = int(np.count_nonzero(one | other))
    return int(np.count_nonzero(one & other)) / union if union else 0.0
