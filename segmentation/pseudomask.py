"""Fixations -> heatmap -> refined heatmap -> nested level masks."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations, simulated_source
from segmentation.dwell import NO_LESION, Floats, Heatmap, clusters_of, dwell_density, lesion_heatmap
from segmentation.prompts import Segment, pooled, prompts_of
from segmentation.refine import REFINERS, refine
from segmentation.spread import spread_factor


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
    centre: float = 0.25
    """The heat at which a pixel is as likely inside as outside, for ``diffusion`` and ``centred-crf``."""
    centred_thresholds: tuple[float, ...] = (0.65, 0.475)
    """Levels of the map that one of these two refined."""
    spread: bool = False
    """Whether the kernel follows how far fixations lie apart (`segmentation.spread`), from the given width on."""
    duration_power: float = 1.0
    """What durations are raised to before they are added; 1: as they are."""

    def levels(self, refiner: str) -> tuple[float, ...]:
        """Return the levels that belong to this kernel and a refiner."""
        if refiner == "none":
            return self.thresholds
        own = {
            "diffusion": self.centred_thresholds,
            "centred-crf": self.centred_thresholds,
            "sam": SAM_THRESHOLDS,
        }
        return own.get(refiner, self.refined_thresholds)


SAM_THRESHOLDS = (0.6, 0.4)
"""Heat of 0.2 inside the segmenter's mask; the mask and, outside it, heat of 0.8."""


PRESETS: dict[str, SigmaPreset] = {
    # Chosen on Kvasir-SEG training images with gaze simulated from their masks: docs/adr/0005 and 0019.
    "spread": SigmaPreset(
        (0.4, 0.25),
        (0.35, 0.15),
        sigma_deg=1.25,
        sigma_fraction=1.25 / 25,
        centre=0.2,
        centred_thresholds=(0.65, 0.475),
        spread=True,
        duration_power=0.5,
    ),
    "degrees": SigmaPreset((0.4, 0.25), (0.35, 0.15), sigma_deg=1.5),
    "fraction": SigmaPreset((0.4, 0.25), (0.35, 0.15), sigma_fraction=1.5 / 25),
    # GazeMedSeg (MICCAI 2024): sigma 70 (Kvasir-SEG) and 50 (NCI-ISBI) on a grid of 768 x 768.
    "gazemedseg-70": SigmaPreset((0.5, 0.3), (0.5, 0.3), sigma_fraction=70 / 768, centre=0.35),
    "gazemedseg-50": SigmaPreset((0.4, 0.2), (0.4, 0.2), sigma_fraction=50 / 768),
}
WITHOUT_GEOMETRY = "fraction"
"""The preset for imported fixations that carry no degrees: as if the image had been 25 degrees wide."""


Lesions = Literal["annotated", "clusters", "together"]
LESIONS: tuple[Lesions, ...] = get_args(Lesions)

Pool = Literal["sum", "mean"]
POOLS: tuple[Pool, ...] = get_args(Pool)


@dataclass(frozen=True)
class PseudoMaskSettings:
    """How a study's pseudo-masks are made."""

    sigma: str = "spread"
    """A key of PRESETS; `degrees` falls back to `fraction` for gaze imported without geometry."""
    sigma_deg: float | None = None
    """Replaces the preset's sigma in degrees."""
    thresholds: tuple[float, ...] | None = None
    """Replaces the preset's levels; strictly descending, each between 0 and 1."""
    refine: str = "diffusion"
    """One of `segmentation.refine.REFINERS`."""
    segmenter: str = ""
    """Which promptable segmenter refines (``sam``): its folder's name with a short hash of its files."""
    minimum_duration_ms: float = 50.0
    """Shorter fixations do not count (GazeMedSeg)."""
    lesions: Lesions = "annotated"
    """What has a peak of its own in the heatmap, so that a lesion seen briefly is not lost beside one seen long:
    lesions that the annotator told apart, regions that were looked at apart (``clusters``), or nothing."""
    pool: Pool = "sum"
    """How the dwell of several annotators is added: as it is, so that who looks longer counts more, or (``mean``)
    each one's brought to the same total before."""
    annotators: tuple[str, ...] | None = None
    """Pseudonyms of those whose gaze counts; None for all."""

    def __post_init__(self) -> None:
        if self.sigma not in PRESETS:
            raise UserError(f"There is no sigma preset {self.sigma!r}; choose one of {', '.join(PRESETS)}.")
        if self.refine not in REFINERS:
            raise UserError(f"There is no refiner {self.refine!r}; choose one of {', '.join(REFINERS)}.")
        if self.lesions not in LESIONS:
            raise UserError(
                f"There is no way {self.lesions!r} to tell lesions apart; choose one of {', '.join(LESIONS)}."
            )
        if self.pool not in POOLS:
            raise UserError(
                f"There is no way {self.pool!r} to pool annotators; choose one of {', '.join(POOLS)}."
            )
        if self.annotators is not None and not self.annotators:
            raise UserError("No annotator was chosen whose gaze counts; name at least one.")
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
        lists = {name: values.get(name) for name in ("thresholds", "annotators")}
        return cls(**{**values, **{name: tuple(found) if found else None for name, found in lists.items()}})


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
    """(F,) as it was."""
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
    weight: Floats | None = None
    """(F,) what each duration is multiplied by, where annotators are pooled by ``mean``; else None."""

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
        duration_ms = self.duration_ms if self.weight is None else self.duration_ms * self.weight
        density = dwell_density(self.xy_px, duration_ms, self.sigma_px, (height, width))
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
        weight = [] if self.weight is None else [self.weight]
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            header=np.frombuffer(json.dumps(header, ensure_ascii=False).encode(), dtype=np.uint8),
            level_map=self.level_map,
            heatmap=np.rint(self.heatmap * 65535).astype(np.uint16),
            fixations=np.column_stack([self.xy_px, self.duration_ms, self.sigma_px, *weight]).reshape(
                -1, 5 + len(weight)
            ),
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
        with _explained_damage(source), np.load(io.BytesIO(data), allow_pickle=False) as arrays:
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
                weight=rows[:, 5] if rows.shape[1] > 5 else None,
            )


@dataclass(frozen=True)
class LevelsAndGaze:
    """What can be read of a pseudo-mask in a quarter of the time: all but its heatmap."""

    level_map: npt.NDArray[np.uint8]
    """(H, W) as in `PseudoMask`."""
    levels: int
    xy_px: Floats
    """(F, 2) the fixations that count, x, y in image pixels."""
    duration_ms: Floats
    """(F,)"""
    sigma_px: Floats
    """(F, 2)"""


def levels_and_gaze(data: bytes, source: Path) -> LevelsAndGaze:
    """Decode levels and fixations of a stored pseudo-mask; `source` names the file in the error.

    Raises
    ------
    UserError
        If the data is damaged.
    """
    with _explained_damage(source), np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        rows = arrays["fixations"]
        levels = len(json.loads(arrays["header"].tobytes())["thresholds"])
        return LevelsAndGaze(arrays["level_map"], levels, rows[:, 0:2], rows[:, 2], rows[:, 3:5])


@contextlib.contextmanager
def _explained_damage(source: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{source} is damaged ({error}). Delete it and make the pseudo-masks again."
        ) from None


def levels_of(heatmap: Heatmap, thresholds: Sequence[float]) -> npt.NDArray[np.uint8]:
    """Count for every pixel how many levels its heat reaches (H, W); `thresholds` strictly descending."""
    ascending = np.asarray(thresholds[::-1], dtype=np.float32)
    return np.searchsorted(ascending, heatmap.ravel(), side="right").astype(np.uint8).reshape(heatmap.shape)


@dataclass(frozen=True)
class Gaze:
    """The fixations (F) that count for a target in an image, of all annotators, and how each is weighed."""

    xy_px: Floats
    """(F, 2) x, y in image pixels."""
    duration_ms: Floats
    """(F,) as it was."""
    sigma_px: Floats
    """(F, 2) kernel width along x and y."""
    lesion: npt.NDArray[np.int64]
    """(F,) number of the lesion each belongs to, or NO_LESION."""
    origin: tuple[tuple[int, int], ...]
    """(F) which of the looks given, and which of its fixations, each is, counted from 0."""
    preset: str
    """Key of PRESETS."""
    several: bool
    """Whether they are more than one annotator's."""
    weights: dict[str, float]
    """What the durations of each annotator are multiplied by; empty where they are added as they are."""
    weight: Floats | None
    """(F,) the same for each fixation."""

    @property
    def dwelt_ms(self) -> Floats:
        """(F,) durations as annotators are pooled."""
        return self.duration_ms if self.weight is None else self.duration_ms * self.weight

    @property
    def counted(self) -> Floats:
        """(F,) what each fixation adds to the heat, before its kernel."""
        counted: Floats = self.dwelt_ms ** PRESETS[self.preset].duration_power
        return counted

    def heatmap(self, shape: tuple[int, int]) -> Heatmap:
        """Return the heatmap (H, W) in 0..1 before it is refined."""
        return lesion_heatmap(self.xy_px, self.counted, self.sigma_px, shape, self.lesion)


def gathered(
    fixations: Sequence[Fixations], settings: PseudoMaskSettings, shape: tuple[int, int]
) -> Gaze | None:
    """Gather the fixations that count in an image (H, W); None where none does.

    Fixations that began before the image's onset, lie outside it or are shorter than the minimum do not count.
    """
    height, width = shape
    xy_parts, duration_parts, sigma_parts, lesion_parts = [], [], [], []
    annotator_parts: list[str] = []
    origin: list[tuple[int, int]] = []
    told_apart: dict[tuple[str, int], int] = {}
    preset_name = settings.sigma
    for number, item in enumerate(fixations):
        if preset_of(settings, item.degrees_per_px) != settings.sigma:
            preset_name = WITHOUT_GEOMETRY
        counts = (
            (item.duration_ms >= settings.minimum_duration_ms)
            & (item.start_ms >= 0)
            & (np.rint(item.xy_px) >= 0).all(axis=1)
            & (np.rint(item.xy_px) <= [width - 1, height - 1]).all(axis=1)
        )
        xy_parts.append(item.xy_px[counts])
        duration_parts.append(item.duration_ms[counts])
        annotator_parts += [item.annotator] * int(counts.sum())
        origin += [(number, row) for row in np.flatnonzero(counts).tolist()]
        # The numbers of one sitting mean nothing in another.
        lesion_parts.append(
            [
                NO_LESION if one is None else told_apart.setdefault((item.source, one), len(told_apart))
                for one in _instances(item, counts)
            ]
        )
        sigma_px = kernel_px(settings, shape, item.degrees_per_px, item.accuracy_deg)
        sigma_parts.append(np.tile(sigma_px, (int(counts.sum()), 1)))
    xy_px = np.concatenate(xy_parts) if xy_parts else np.empty((0, 2))
    if not len(xy_px):
        return None
    duration_ms, sigmas_px = np.concatenate(duration_parts), np.concatenate(sigma_parts)
    lesion = np.concatenate(lesion_parts).astype(np.int64)
    weights = _weights(annotator_parts, duration_ms) if settings.pool == "mean" else {}
    weight = np.array([weights[name] for name in annotator_parts]) if weights else None
    dwelt_ms = duration_ms if weight is None else duration_ms * weight
    if settings.lesions == "clusters":
        lesion = _grouped(lesion, xy_px, dwelt_ms, sigmas_px, shape)
    elif settings.lesions == "together":
        lesion[:] = NO_LESION
    if PRESETS[preset_name].spread:
        for number in np.unique(lesion).tolist():
            own = lesion == number
            sigmas_px[own] *= spread_factor(xy_px[own], sigmas_px[own])
    return Gaze(
        xy_px,
        duration_ms,
        sigmas_px,
        lesion,
        tuple(origin),
        preset_name,
        len(set(annotator_parts)) > 1,
        weights,
        weight,
    )


def make_pseudomask(
    image: npt.NDArray[np.float32],
    fixations: Sequence[Fixations],
    settings: PseudoMaskSettings,
    target_id: str,
    segment: Segment | None = None,
) -> PseudoMask | None:
    """Make the pseudo-mask of one target from the fixations of one or more annotators on an image.

    Fixations that began before the image's onset, lie outside it or are shorter than the minimum do not count.

    Parameters
    ----------
    image : (H, W, C) 0..1, guides the refiner
    fixations : all of the same image and target
    segment : answers for the refiner ``sam``

    Returns
    -------
    None where no fixation counts. The note ``lesions`` tells how many have a peak of their own; of several annotators
    the note ``pool`` tells how they were added, and ``weights`` what the durations of each were multiplied by.
    """
    height, width = image.shape[:2]
    gaze = gathered(fixations, settings, (height, width))
    if gaze is None:
        return None
    xy_px, duration_ms, sigmas_px, lesion = gaze.xy_px, gaze.duration_ms, gaze.sigma_px, gaze.lesion
    preset = PRESETS[gaze.preset]
    heatmap = gaze.heatmap((height, width))
    thresholds = settings.thresholds
    if thresholds is None:
        thresholds = preset.levels(settings.refine)
    if settings.refine == "sam":
        if segment is None:
            raise ValueError("the refiner sam needs a segmenter")
        region = lesion
        if settings.lesions != "together":
            region = _grouped(lesion, xy_px, gaze.dwelt_ms, sigmas_px, (height, width))
        prompts = prompts_of(xy_px, duration_ms, heatmap, region)
        refined = pooled(heatmap, segment(image, prompts, heatmap))
    else:
        refined = refine(settings.refine, image, heatmap, centre=preset.centre)
    notes: dict[str, Any] = {"sigma": gaze.preset, "lesions": len(set(lesion.tolist()) - {NO_LESION}) or 1}
    if gaze.several:
        notes |= {"pool": settings.pool, **({"weights": gaze.weights} if gaze.weights else {})}
    if settings.refine == "sam":
        notes["segmenter"] = settings.segmenter
        notes["prompts"] = [len(points) for points in prompts]
    if settings.annotators is not None:
        notes["chosen_annotators"] = list(settings.annotators)
    known_degrees = [item.degrees_per_px for item in fixations if item.degrees_per_px is not None]
    return PseudoMask(
        image_id=fixations[0].image_id,
        target_id=target_id,
        annotators=tuple(dict.fromkeys(item.annotator for item in fixations)),
        sources=tuple(dict.fromkeys(item.source for item in fixations)),
        xy_px=xy_px,
        duration_ms=duration_ms,
        sigma_px=sigmas_px,
        degrees_per_px=float(np.mean(known_degrees)) if len(known_degrees) == len(fixations) else None,
        heatmap=refined,
        thresholds=tuple(thresholds),
        level_map=levels_of(refined, thresholds),
        refiner=settings.refine,
        simulated_from=simulated_source(fixations),
        notes=notes,
        weight=gaze.weight,
    )


def _weights(annotators: Sequence[str], duration_ms: Floats) -> dict[str, float]:
    """Return what brings each annotator's dwell to the same total, the sum of all kept; nothing for one alone."""
    totals: dict[str, float] = {}
    for name, duration in zip(annotators, duration_ms.tolist(), strict=True):
        totals[name] = totals.get(name, 0.0) + duration
    if len(totals) < 2:
        return {}
    share = sum(totals.values()) / len(totals)
    return {name: share / total for name, total in totals.items()}


def _grouped(
    lesion: npt.NDArray[np.int64],
    xy_px: Floats,
    duration_ms: Floats,
    sigma_px: Floats,
    shape: tuple[int, int],
) -> npt.NDArray[np.int64]:
    """Give fixations of no lesion the number of the region they lie in; what was told apart stays apart."""
    free = lesion == NO_LESION
    grouped = lesion.copy()
    if free.any():
        found = clusters_of(xy_px[free], duration_ms[free], sigma_px[free], shape)
        grouped[free] = np.where(found == NO_LESION, NO_LESION, found + lesion.max() + 1)
    return grouped


def _instances(fixations: Fixations, counts: npt.NDArray[np.bool_]) -> list[int | None]:
    if fixations.instance is None:
        return [None] * int(counts.sum())
    return list(fixations.instance[counts].tolist())


def preset_of(settings: PseudoMaskSettings, degrees_per_px: float | None) -> str:
    """Return the key of the preset that holds for gaze of a geometry, or of none."""
    preset = PRESETS[settings.sigma]
    if degrees_per_px is None and preset.sigma_fraction is None:
        return WITHOUT_GEOMETRY
    return settings.sigma


def kernel_px(
    settings: PseudoMaskSettings,
    shape: tuple[int, int],
    degrees_per_px: float | None,
    accuracy_deg: float | None,
) -> tuple[float, float]:
    """Return the kernel's width along x and y in pixels of an image (H, W), before it follows the fixations.

    Parameters
    ----------
    degrees_per_px : that one image pixel covered; None where unknown
    accuracy_deg : validated mean error of the sitting; None where unknown
    """
    height, width = shape
    preset = PRESETS[preset_of(settings, degrees_per_px)]
    if preset.sigma_fraction is not None and (preset.sigma_deg is None or degrees_per_px is None):
        return preset.sigma_fraction * width, preset.sigma_fraction * height
    assert preset.sigma_deg is not None and degrees_per_px is not None
    # An eye that is measured worse was less surely where the tracker says.
    sigma_px = math.hypot(settings.sigma_deg or preset.sigma_deg, accuracy_deg or 0.0) / degrees_per_px
    return sigma_px, sigma_px
