"""Sigma, refiner and levels of a study's pseudo-masks, chosen together from images whose true masks are known.

What is reported is honest: the Dice that is to be expected is measured on images that had no part in the choice
(cross-validation over groups), and images of the test split are never looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations, simulated_source
from gaze_capture.recording import UNDECIDED
from segmentation.gaze_gates import Gates
from segmentation.images import resize
from segmentation.progress import Progress, no_progress
from segmentation.pseudomask import PRESETS, PseudoMaskSettings, make_pseudomask, preset_of
from segmentation.pseudomask_making import in_threads
from segmentation.records import StudyImage, Target, group_of
from segmentation.study import TEST_SPLIT, Study

Floats = npt.NDArray[np.float64]

FEWEST_IMAGES = 10
MOST_IMAGES = 100
"""More would change the choice little and take long."""
FOLDS = 5
SIDE_PX = 256
"""Images are measured at this size of the longer side; a heatmap has nothing finer."""
LEVELS = tuple(np.round(np.arange(0.05, 0.825, 0.025), 3).tolist())
SURE = 0.9
"""Share of the highest level's pixels that should lie within the true mask."""
REFINERS_TRIED = ("none", "diffusion", "centred-crf", "crf")


@dataclass(frozen=True)
class Tried:
    """One combination with its best single level, over all images used: a choice, not an expectation."""

    sigma: str
    """Key of PRESETS, or degrees."""
    refine: str
    level: float
    dice: float


@dataclass(frozen=True)
class Suggestion:
    """What was chosen, and what to expect of it."""

    settings: PseudoMaskSettings
    sigma: str
    level: float
    """The chosen settings' level that is nearest the true masks; their last."""
    images: int
    groups: int
    expected: float
    """Mean Dice of the chosen way of choosing on images that had no part in the choice."""
    expected_sd: float
    today: float | None
    """Mean Dice of today's settings, at the level of theirs that is best on the other images; None where today's
    refiner cannot be tried here."""
    tried: tuple[Tried, ...]
    """Best first."""
    simulated_from: str | None
    changes: bool
    """Whether it is worth changing today's settings: only if what is expected is better."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "settings": self.settings.to_json(),
            "images": self.images,
            "groups": self.groups,
            "level": self.level,
            "expected_dice": {"mean": self.expected, "sd": self.expected_sd},
            "today_dice": self.today,
            "changes": self.changes,
            "simulated_from": self.simulated_from,
            "tried": [vars(one) for one in self.tried],
        }


@dataclass(frozen=True)
class _Case:
    image: StudyImage
    target: Target
    fixations: list[Fixations]

    @property
    def group(self) -> str:
        return group_of(self.image)


@dataclass(frozen=True)
class _Curve:
    """Of one image and one combination, at every level of a grid."""

    dice: Floats
    precision: Floats


def suggest(
    study: Study,
    *,
    split: str = "train",
    most_images: int = MOST_IMAGES,
    progress: Progress = no_progress,
) -> Suggestion:
    """Choose sigma, refiner and levels from the images of a split that have gaze and a true mask.

    Every preset of sigma, and some degrees where the gaze has a geometry, is tried with every refiner that needs the
    image alone; nothing is stored.

    Raises
    ------
    UserError
        If the split is for testing, or has too few such images or groups.
    """
    if split == TEST_SPLIT:
        raise UserError(f"The split {TEST_SPLIT!r} is for evaluation alone; settings are never chosen on it.")
    cases = _spaced(_cases(study, split), most_images)
    groups = sorted({case.group for case in cases})
    if len(cases) < FEWEST_IMAGES:
        raise UserError(
            f"Only {len(cases)} images of the split {split!r} have gaze that counts and a true mask that is not empty; "
            f"at least {FEWEST_IMAGES} are needed to choose settings from them."
        )
    if len(groups) < 2:
        raise UserError(
            "All images with true masks are of one group, so that no choice could be checked on others; import masks "
            "of another patient or sequence."
        )
    today = study.pseudomask_settings
    candidates = _candidates(today, cases)
    place = _place(today, candidates)
    own_levels = _own_levels(today, cases) if place is not None else ()
    grid = tuple(sorted({*LEVELS, *own_levels}))
    free = np.isin(grid, LEVELS)

    def measure(case: _Case) -> list[_Curve] | UserError:
        try:
            return _measure(study, case, candidates, grid)
        except UserError as error:
            return error

    curves, used = [], []
    for case, found in in_threads(measure, cases, lambda case: case.image.id, progress):
        if isinstance(found, UserError):
            study.check_there()
            continue
        used.append(case)
        curves.append(found)
    if len(used) < FEWEST_IMAGES:
        raise UserError(f"Only {len(used)} images could be read; run: gaze-insight verify {study.folder}.")
    dice = np.array([[curve.dice for curve in found] for found in curves])
    precision = np.array([[curve.precision for curve in found] for found in curves])
    held = _held_out(dice[..., free], [case.group for case in used])
    today_dice = None
    if place is not None:
        own = np.isin(grid, own_levels)
        today_dice = float(_held_out(dice[:, [place]][..., own], [case.group for case in used]).mean())
    mean = dice[..., free].mean(axis=0)
    number, best = np.unravel_index(mean.argmax(), mean.shape)
    levels = np.array(LEVELS)
    chosen = replace(
        candidates[number],
        thresholds=_nested(levels, precision[:, number][:, free].mean(axis=0), int(best), _count(today)),
    )
    tried = [
        Tried(_sigma_name(one), one.refine, float(levels[row.argmax()]), float(row.max()))
        for one, row in zip(candidates, mean, strict=True)
    ]
    return Suggestion(
        settings=chosen,
        sigma=_sigma_name(chosen),
        level=float(levels[best]),
        images=len(used),
        groups=len({case.group for case in used}),
        expected=float(held.mean()),
        expected_sd=float(held.std(ddof=1)),
        today=today_dice,
        tried=tuple(sorted(tried, key=lambda one: -one.dice)),
        simulated_from=simulated_source([item for case in used for item in case.fixations]),
        changes=today_dice is None or float(held.mean()) > today_dice,
    )


def apply(study: Study, suggestion: Suggestion) -> None:
    """Make the suggested settings the study's own; its pseudo-masks stay as they are until they are made again."""
    study.set_pseudomask_settings(suggestion.settings)
    study.audit(
        "suggest",
        settings=suggestion.settings.to_json(),
        images=suggestion.images,
        expected_dice=round(suggestion.expected, 4),
        simulated_from=suggestion.simulated_from,
    )


def _cases(study: Study, split: str) -> list[_Case]:
    chosen = study.pseudomask_settings.annotators
    said = study.presences(chosen)
    gates = Gates(study)
    known = study.mask_keys()
    found = []
    for image, target in study.iterate_keys(split):
        key = (image.id, target.id)
        word = said.get(key)
        if key not in known or key not in study.looks or word == "absent" or word in UNDECIDED:
            continue
        looks = [
            item
            for item in gates.usable(key, study.fixations[key])
            if chosen is None or item.annotator in chosen
        ]
        mask = study.true_mask(*key) if looks else None
        if mask is not None and mask.any():
            found.append(_Case(image, target, looks))
    return found


def _spaced(cases: list[_Case], most: int) -> list[_Case]:
    """Return at most so many, evenly over the groups."""
    if len(cases) <= most:
        return cases
    ordered = sorted(cases, key=lambda case: (case.group, case.image.id, case.target.id))
    places = np.linspace(0, len(ordered) - 1, most).round().astype(int)
    return [ordered[place] for place in places]


def _candidates(today: PseudoMaskSettings, cases: Sequence[_Case]) -> list[PseudoMaskSettings]:
    """Return what is tried, today's sigma and refiner among it where they can be."""
    has_degrees = all(item.degrees_per_px is not None for case in cases for item in case.fixations)
    sigmas: list[tuple[str, float | None]] = [
        ("spread", None),
        ("gazemedseg-70", None),
        ("gazemedseg-50", None),
    ]
    if has_degrees:
        sigmas += [("spread", 0.8), ("spread", 1.8), ("degrees", 1.0), ("degrees", None), ("degrees", 2.0)]
    else:
        sigmas += [("fraction", None)]
    tried = [
        replace(today, sigma=sigma, sigma_deg=degrees, refine=refiner, thresholds=None, segmenter="")
        for sigma, degrees in sigmas
        for refiner in REFINERS_TRIED
    ]
    if today.refine in REFINERS_TRIED and _place(today, tried) is None:
        tried.append(replace(today, thresholds=None, segmenter=""))
    return tried


def _place(settings: PseudoMaskSettings, candidates: Sequence[PseudoMaskSettings]) -> int | None:
    """Return which candidate gives the same maps; levels aside."""
    without_levels = replace(settings, thresholds=None, segmenter="")
    return candidates.index(without_levels) if without_levels in candidates else None


def _sigma_name(settings: PseudoMaskSettings) -> str:
    if settings.sigma_deg is None:
        return settings.sigma
    return (
        f"{settings.sigma_deg:g}"
        if settings.sigma == "degrees"
        else f"{settings.sigma} {settings.sigma_deg:g}"
    )


def _own_levels(settings: PseudoMaskSettings, cases: Sequence[_Case]) -> tuple[float, ...]:
    """Return the levels that today's pseudo-masks have, by the geometry of the first image's gaze."""
    if settings.thresholds is not None:
        return settings.thresholds
    name = preset_of(settings, cases[0].fixations[0].degrees_per_px)
    return PRESETS[name].levels(settings.refine)


def _count(settings: PseudoMaskSettings) -> int:
    return len(settings.thresholds) if settings.thresholds is not None else 2


def _measure(
    study: Study, case: _Case, candidates: Sequence[PseudoMaskSettings], grid: Sequence[float]
) -> list[_Curve]:
    """Return one curve for each candidate, on the image made smaller."""
    pixels = study.guide(case.image)
    truth = study.true_mask(case.image.id, case.target.id)
    assert truth is not None, "it was there when the images were chosen"
    height, width = truth.shape
    scale = min(1.0, SIDE_PX / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    ratio = np.array([size[1] / width, size[0] / height])
    small = np.clip(resize(pixels, *size), 0, 1).reshape(*size, pixels.shape[2])
    share = cv2.resize(truth.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    inside = share >= 0.5 if (share >= 0.5).any() else share > 0
    looks = [
        replace(
            item,
            xy_px=(item.xy_px + 0.5) * ratio - 0.5,
            degrees_per_px=item.degrees_per_px and item.degrees_per_px / scale,
        )
        for item in case.fixations
    ]
    found = []
    for settings in candidates:
        made = make_pseudomask(small, looks, settings, case.target.id)
        if made is None:
            raise UserError(f"{case.image.id} has no fixation that counts.")
        found.append(_curve(made.heatmap, inside, grid))
    return found


def _curve(heatmap: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_], grid: Sequence[float]) -> _Curve:
    levels = np.asarray(grid, dtype=np.float32)
    hot = heatmap.size - np.searchsorted(np.sort(heatmap, axis=None), levels)
    right = inside.sum() - np.searchsorted(np.sort(heatmap[inside]), levels)
    return _Curve(2 * right / (hot + inside.sum()), np.where(hot > 0, right / np.maximum(hot, 1), 1.0))


def _held_out(dice: Floats, groups: Sequence[str]) -> Floats:
    """Return each image's Dice (N,) at what the other folds' images would have chosen, of dice (N, candidates, levels).

    Folds are of whole groups, in an order that no name decides.
    """
    names = sorted(set(groups))
    order = np.random.default_rng(0).permutation(len(names))
    fold_of = {names[place]: number % min(FOLDS, len(names)) for number, place in enumerate(order)}
    fold = np.array([fold_of[name] for name in groups])
    held = np.empty(len(dice))
    for number in np.unique(fold):
        out = fold == number
        mean = dice[~out].mean(axis=0)
        candidate, level = np.unravel_index(mean.argmax(), mean.shape)
        held[out] = dice[out, candidate, level]
    return held


def _nested(levels: Floats, precision: Floats, best: int, count: int) -> tuple[float, ...]:
    """Return `count` levels, descending to the best one from the lowest that is SURE, or a little above the best."""
    if count == 1:
        return (float(levels[best]),)
    sure = np.flatnonzero(precision >= SURE)
    highest = max(int(sure[0]) if sure.size else 0, best + 2 * (count - 1))
    highest = min(highest, len(levels) - 1)
    places = np.unique(np.linspace(min(best, highest - count + 1), highest, count).round().astype(int))
    return tuple(float(levels[place]) for place in places[::-1])
