"""Fixations -> heatmap -> refined heatmap -> nested level masks."""

from __future__ import annotations

import io
import itertools
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations, simulated_source
from segmentation.refine import REFINERS, refine

Floats = npt.NDArray[np.float64]
Heatmap = npt.NDArray[np.float32]

TRUNCATE = 4.0
"""The kernel ends at this many sigmas, as in ``scipy.ndimage.gaussian_filter``."""


@dataclass(frozen=True)
class SigmaPreset:
    """A kernel width together with the levels that belong to it; one makes no sense without the other."""

    thresholds: tuple[float, ...]
    """Levels of the plain heatmap, strictly descending."""
    refined_thresholds: tuple[float, ...]
    """Levels of the refined heatmap."""
    sigma_deg: float | None = None
    """Degrees on the screen; widened by the validated accuracy of the sitting."""
    sigma_fraction: float | None = None
    """Fraction of the image's width and height, where the published fixed grid is followed."""


PRESETS: dict[str, SigmaPreset] = {
    # Chosen on Kvasir-SEG training images with gaze simulated from their masks: docs/adr/0005.
    "degrees": SigmaPreset((0.4, 0.25), (0.35, 0.15), sigma_deg=1.5),
    "fraction": SigmaPreset((0.4, 0.25), (0.35, 0.15), sigma_fraction=1.5 / 25),
    # GazeMedSeg (MICCAI 2024): sigma 70 (Kvasir-SEG) and 50 (NCI-ISBI) on a grid of 768 x 768.
    "gazemedseg-70": SigmaPreset((0.5, 0.3), (0.5, 0.3), sigma_fraction=70 / 768),
    "gazemedseg-50": SigmaPreset((0.4, 0.2), (0.4, 0.2), sigma_fraction=50 / 768),
}
WITHOUT_GEOMETRY = "fraction"
"""The preset for imported fixations that carry no degrees: as if the image had been 25 degrees wide."""


@dataclass(frozen=True)
class PseudoMaskSettings:
    """How a study's pseudo-masks are made."""

    sigma: str = "degrees"
    """A key of PRESETS; `degrees` falls back to `fraction` for gaze imported without geometry."""
    sigma_deg: float | None = None
    """Replaces the preset's sigma in degrees."""
    thresholds: tuple[float, ...] | None = None
    """Replaces the preset's levels; strictly descending, each between 0 and 1."""
    refine: str = "crf"
    """A key of `segmentation.refine.REFINERS`, or ``"none"``."""
    minimum_duration_ms: float = 50.0
    """Shorter fixations do not count (GazeMedSeg)."""

    def __post_init__(self) -> None:
        if self.sigma not in PRESETS:
            raise UserError(f"There is no sigma preset {self.sigma!r}; choose one of {', '.join(PRESETS)}.")
        if self.refine not in REFINERS:
            raise UserError(f"There is no refiner {self.refine!r}; choose one of {', '.join(REFINERS)}.")
        if self.sigma_deg is not None and not 0 < self.sigma_deg < 20:
            raise UserError(f"Sigma should be between 0 and 20 degrees, not {self.sigma_deg}.")
        if self.thresholds is not None:
            check_thresholds(self.thresholds)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PseudoMaskSettings:
        """Build settings from JSON; an unknown field raises TypeError."""
        thresholds = values.get("thresholds")
        return cls(**{**values, "thresholds": tuple(thresholds) if thresholds else None})


def check_thresholds(thresholds: Sequence[float]) -> None:
    """Raise UserError unless there are levels, strictly descending, each between 0 and 1."""
    descending = all(high > low for high, low in itertools.pairwise(thresholds))
    if not thresholds or not descending or not all(0 < level < 1 for level in thresholds):
        text = " ".join(f"{level:g}" for level in thresholds)
        raise UserError(f"Levels must lie between 0 and 1 and descend, like 0.5 0.3, not {text or 'none'}.")


@dataclass(frozen=True)
class PseudoMask:
    """The stack of nested level masks of one target in one image, and all that made it."""

    image_id: str
    target_id: str
    annotators: tuple[str, ...]
    sources: tuple[str, ...]
    """Ids of the recordings and imports whose fixations are in it."""
    xy_px: Floats
    """(F, 2) the fixations that count, x, y in image pixels."""
    duration_ms: Floats
    """(F,)"""
    sigma_px: Floats
    """(F, 2) kernel width of each fixation along x and y."""
    degrees_per_px: float | None
    heatmap: Heatmap
    """(H, W) 0..1, refined where a refiner is named."""
    thresholds: tuple[float, ...]
    """(L,) strictly descending."""
    level_map: npt.NDArray[np.uint8]
    """(H, W) number of levels a pixel belongs to, 0..L: nested by construction."""
    refiner: str
    simulated_from: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """(L, H, W) the level masks, highest threshold (smallest mask) first."""
        count = len(self.thresholds)
        depth = np.arange(count, 0, -1, dtype=np.uint8)[:, np.newaxis, np.newaxis]
        masks: npt.NDArray[np.bool_] = self.level_map[np.newaxis] >= depth
        return masks

    @property
    def dwell(self) -> Heatmap:
        """(H, W) dwell before normalising, in ms/deg^2 (ms/px^2 where the geometry is unknown)."""
        height, width = self.level_map.shape
        density = dwell_density(self.xy_px, self.duration_ms, self.sigma_px, (height, width))
        per_degree = 1.0 if self.degrees_per_px is None else self.degrees_per_px**-2
        return (density * per_degree).astype(np.float32)

    def to_bytes(self) -> bytes:
        """Encode as one compressed npz: arrays and a JSON header, no pickled objects."""
        header = {
            "image_id": self.image_id,
            "target_id": self.target_id,
            "annotators": self.annotators,
            "sources": self.sources,
            "degrees_per_px": self.degrees_per_px,
            "thresholds": self.thresholds,
            "refiner": self.refiner,
            "simulated_from": self.simulated_from,
            "notes": self.notes,
        }
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            header=np.frombuffer(json.dumps(header, ensure_ascii=False).encode(), dtype=np.uint8),
            level_map=self.level_map,
            heatmap=np.rint(self.heatmap * 65535).astype(np.uint16),
            fixations=np.column_stack([self.xy_px, self.duration_ms, self.sigma_px]).reshape(-1, 5),
        )
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, source: Path) -> PseudoMask:
        """Decode; `source` names the file in the error.

        Raises
        ------
        UserError
            If the data is damaged.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                header = json.loads(arrays["header"].tobytes())
                rows = arrays["fixations"]
                return cls(
                    image_id=header["image_id"],
                    target_id=header["target_id"],
                    annotators=tuple(header["annotators"]),
                    sources=tuple(header["sources"]),
                    xy_px=rows[:, 0:2],
                    duration_ms=rows[:, 2],
                    sigma_px=rows[:, 3:5],
                    degrees_per_px=header["degrees_per_px"],
                    heatmap=arrays["heatmap"].astype(np.float32) / 65535,
                    thresholds=tuple(header["thresholds"]),
                    level_map=arrays["level_map"],
                    refiner=header["refiner"],
                    simulated_from=header["simulated_from"],
                    notes=header["notes"],
                )
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{source} is damaged ({error}). Delete it and make the pseudo-masks again."
            ) from None


def dwell_density(xy_px: Floats, duration_ms: Floats, sigma_px: Floats, shape: tuple[int, int]) -> Floats:
    """Sum a truncated Gaussian for each fixation, weighted by its duration.

    Equal to placing the durations on the pixel grid and running ``scipy.ndimage.gaussian_filter`` with its
    ``reflect`` border and a cut-off at 4 sigma, but computed as the matrix product
    ``G_y^T diag(duration) G_x``: exact, and without blurring an image.

    Parameters
    ----------
    xy_px : (F, 2) x, y in pixels; rounded to the pixel they fall in, must lie inside the image
    duration_ms : (F,)
    sigma_px : (F, 2) kernel width along x and y
    shape : height, width

    Returns
    -------
    (H, W) float64, ms/px^2
    """
    height, width = shape
    columns = _kernel_rows(xy_px[:, 0], sigma_px[:, 0], width)
    rows = _kernel_rows(xy_px[:, 1], sigma_px[:, 1], height)
    density: Floats = (rows * duration_ms[:, np.newaxis]).T @ columns
    return density


def _kernel_rows(centre: Floats, sigma: Floats, length: int) -> Floats:
    """Response (F, length) of a normalised truncated Gaussian to a unit mass at each centre, reflected at the ends."""
    centre = np.rint(centre)
    radius = np.floor(TRUNCATE * sigma + 0.5)
    total = np.empty_like(sigma)
    for value in np.unique(sigma):
        reach = np.arange(-math.floor(TRUNCATE * value + 0.5), math.floor(TRUNCATE * value + 0.5) + 1)
        total[sigma == value] = np.exp(-0.5 * (reach / value) ** 2).sum()
    # Reflection (d c b a | a b c d | d c b a) repeats every 2 * length: each mass has images at these places.
    repeats = math.ceil(float(radius.max(initial=0)) / (2 * length))
    grid = np.arange(length)
    response = np.zeros((len(centre), length))
    for shift in range(-repeats, repeats + 1):
        for place in (centre + 2 * length * shift, 2 * length * (shift + 1) - 1 - centre):
            near = np.flatnonzero((place + radius >= 0) & (place - radius < length))
            if near.size:
                distance = grid - place[near, np.newaxis]
                weight = np.exp(-0.5 * (distance / sigma[near, np.newaxis]) ** 2)
                weight[np.abs(distance) > radius[near, np.newaxis]] = 0.0
                response[near] += weight
    normalised: Floats = response / total[:, np.newaxis]
    return normalised


def normalise(density: Floats) -> Heatmap:
    """Stretch to 0..1 by minimum and maximum; a constant map becomes 0."""
    low, high = float(density.min()), float(density.max())
    if high <= low:
        return np.zeros(density.shape, dtype=np.float32)
    return ((density - low) / (high - low)).astype(np.float32)


def levels_of(heatmap: Heatmap, thresholds: Sequence[float]) -> npt.NDArray[np.uint8]:
    """Count for every pixel how many levels its heat reaches (H, W); `thresholds` strictly descending."""
    ascending = np.asarray(thresholds[::-1], dtype=np.float32)
    return np.searchsorted(ascending, heatmap.ravel(), side="right").astype(np.uint8).reshape(heatmap.shape)


def make_pseudomask(
    image: npt.NDArray[np.float32],
    fixations: Sequence[Fixations],
    settings: PseudoMaskSettings,
    target_id: str,
) -> PseudoMask | None:
    """Make the pseudo-mask of one target from the fixations of one or more annotators on an image.

    Fixations that began before the image's onset, lie outside it or are shorter than the minimum do not count.

    Parameters
    ----------
    image : (H, W, C) 0..1, guides the refiner
    fixations : all of the same image and target

    Returns
    -------
    None where no fixation counts.
    """
    height, width = image.shape[:2]
    xy_parts, duration_parts, sigma_parts = [], [], []
    preset_name = settings.sigma
    for item in fixations:
        preset = PRESETS[settings.sigma]
        if preset.sigma_deg is not None and item.degrees_per_px is None:
            preset_name, preset = WITHOUT_GEOMETRY, PRESETS[WITHOUT_GEOMETRY]
        counts = (
            (item.duration_ms >= settings.minimum_duration_ms)
            & (item.start_ms >= 0)
            & (np.rint(item.xy_px) >= 0).all(axis=1)
            & (np.rint(item.xy_px) <= [width - 1, height - 1]).all(axis=1)
        )
        xy_parts.append(item.xy_px[counts])
        duration_parts.append(item.duration_ms[counts])
        sigma_parts.append(
            np.tile(_sigma_px(preset, settings, item, (height, width)), (int(counts.sum()), 1))
        )
    xy_px = np.concatenate(xy_parts) if xy_parts else np.empty((0, 2))
    if not len(xy_px):
        return None
    duration_ms, sigma_px = np.concatenate(duration_parts), np.concatenate(sigma_parts)
    heatmap = normalise(dwell_density(xy_px, duration_ms, sigma_px, (height, width)))
    preset = PRESETS[preset_name]
    thresholds = settings.thresholds
    if thresholds is None:
        thresholds = preset.thresholds if settings.refine == "none" else preset.refined_thresholds
    refined = refine(settings.refine, image, heatmap)
    known_degrees = [item.degrees_per_px for item in fixations if item.degrees_per_px is not None]
    return PseudoMask(
        image_id=fixations[0].image_id,
        target_id=target_id,
        annotators=tuple(dict.fromkeys(item.annotator for item in fixations)),
        sources=tuple(dict.fromkeys(item.source for item in fixations)),
        xy_px=xy_px,
        duration_ms=duration_ms,
        sigma_px=sigma_px,
        degrees_per_px=float(np.mean(known_degrees)) if len(known_degrees) == len(fixations) else None,
        heatmap=refined,
        thresholds=tuple(thresholds),
        level_map=levels_of(refined, thresholds),
        refiner=settings.refine,
        simulated_from=simulated_source(fixations),
        notes={"sigma": preset_name},
    )


def _sigma_px(
    preset: SigmaPreset, settings: PseudoMaskSettings, fixations: Fixations, shape: tuple[int, int]
) -> tuple[float, float]:
    height, width = shape
    if preset.sigma_fraction is not None:
        return preset.sigma_fraction * width, preset.sigma_fraction * height
    assert preset.sigma_deg is not None and fixations.degrees_per_px is not None
    # An eye that is measured worse was less surely where the tracker says.
    sigma_deg = math.hypot(settings.sigma_deg or preset.sigma_deg, fixations.accuracy_deg or 0.0)
    sigma_px = sigma_deg / fixations.degrees_per_px
    return sigma_px, sigma_px
