"""How far annotators agree: Dice of their masks and Cohen's kappa, pair by pair, with intervals over patients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentation.blind_reading import BLIND, check_readers
from segmentation.bootstrap import Interval, clustered_interval, clustered_statistic
from segmentation.metrics import dice
from segmentation.progress import Progress, no_progress
from segmentation.readings import OWN, Reading, each_reading
from segmentation.records import group_of
from segmentation.review_index import Purpose
from segmentation.study import Mask, Study

PRESENCES = ("present", "absent", "unsure", "ungradable")


@dataclass(frozen=True)
class PairAgreement:
    """Two annotators on one target; intervals are 95 %, by resampling groups (patients)."""

    target: str
    annotators: tuple[str, str]
    images: int
    """That both read."""
    blind: int
    """Of these, those that at least one of the two read blind: the others may have been seen by the other."""
    masks: int
    """Images of which both gave a mask and at least one of the two is not empty: what Dice is over."""
    groups: int
    dice: Interval
    pixel_kappa: Interval
    """Mean over the same images of Cohen's kappa of their pixels."""
    presence_images: int
    """Images on whose presence both said a word."""
    presence_kappa: Interval
    """Cohen's kappa over the words present, absent, unsure, ungradable; NaN where both said one and the same of all."""
    presence_agreed: float
    """Share of the images on which they said the same; NaN without any."""

    def to_json(self) -> dict[str, Any]:
        """Return all of it, null where not defined."""
        return {
            "target": self.target,
            "annotators": list(self.annotators),
            "images": self.images,
            "blind": self.blind,
            "masks": self.masks,
            "groups": self.groups,
            "dice": _json_of(self.dice),
            "pixel_kappa": _json_of(self.pixel_kappa),
            "presence_images": self.presence_images,
            "presence_kappa": _json_of(self.presence_kappa),
            "presence_agreed": _finite(self.presence_agreed),
        }


def reader_agreement(
    study: Study,
    *,
    target_id: str | None = None,
    split: str | None = None,
    purposes: Sequence[Purpose] = OWN,
    annotators: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> list[PairAgreement]:
    """Compare every two annotators on everything that both read; each one's latest reading counts.

    Parameters
    ----------
    target_id : None for every target, each on its own
    purposes : why the reviews were made that count
    annotators : None for all

    Raises
    ------
    UserError
        If the study has no such target, split or annotator, or a mask cannot be read.
    """
    check_readers(study, annotators or ())
    targets = [study.target(target_id).id] if target_id else [target.id for target in study.targets]
    found: list[PairAgreement] = []
    for target in targets:
        both: dict[tuple[str, str], list[tuple[str, Reading, Reading]]] = {}
        scores: dict[tuple[str, str], list[tuple[str, float, float]]] = {}
        for (image_id, _), read in each_reading(
            study, target, split=split, purposes=purposes, annotators=annotators
        ):
            progress(0, 0, image_id)
            image = study.image(image_id)
            group = group_of(image)
            for pair in itertools.combinations(sorted(read), 2):
                one, other = (read[name] for name in pair)
                # Masks of thousands of images do not fit in memory: what is kept is what they came to.
                both.setdefault(pair, []).append((group, _bare(one), _bare(other)))
                if one.mask is not None and other.mask is not None and (one.mask.any() or other.mask.any()):
                    scores.setdefault(pair, []).append(
                        (group, dice(one.mask, other.mask), pixel_kappa(one.mask, other.mask))
                    )
        found += [_pair(target, pair, both[pair], scores.get(pair, []), seed) for pair in sorted(both)]
    return found


def _bare(reading: Reading) -> Reading:
    return Reading(reading.name, reading.review, None)


def _pair(
    target: str,
    pair: tuple[str, str],
    both: Sequence[tuple[str, Reading, Reading]],
    scores: Sequence[tuple[str, float, float]],
    seed: int,
) -> PairAgreement:
    # Two masks that fill the image alike leave nothing to chance, and so no kappa.
    kappas = [(group, kappa) for group, _, kappa in scores if math.isfinite(kappa)]
    words = [
        (group, PRESENCES.index(one.presence), PRESENCES.index(other.presence))
        for group, one, other in both
        if one.presence is not None and other.presence is not None
    ]
    tables = np.zeros((len(words), len(PRESENCES) ** 2))
    for row, (_, one, other) in enumerate(words):
        tables[row, one * len(PRESENCES) + other] = 1
    return PairAgreement(
        target=target,
        annotators=pair,
        images=len(both),
        blind=sum(any(one.review.purpose in BLIND for one in (first, second)) for _, first, second in both),
        masks=len(scores),
        groups=len({group for group, _, _ in both}),
        dice=clustered_interval(
            np.array([value for _, value, _ in scores]), [group for group, _, _ in scores], seed=seed
        ),
        pixel_kappa=clustered_interval(
            np.array([value for _, value in kappas]), [group for group, _ in kappas], seed=seed
        ),
        presence_images=len(words),
        presence_kappa=clustered_statistic(
            tables, [group for group, _, _ in words], lambda table: _kappas(table, len(PRESENCES)), seed=seed
        ),
        presence_agreed=float(np.mean([one == other for _, one, other in words])) if words else math.nan,
    )


def pixel_kappa(one: Mask, other: Mask) -> float:
    """Return Cohen's kappa of the pixels of two masks of one shape; NaN where both are all or nothing alike."""
    inside = np.count_nonzero(one & other)
    only_one, only_other = np.count_nonzero(one) - inside, np.count_nonzero(other) - inside
    return cohens_kappa(
        np.array([[one.size - inside - only_one - only_other, only_other], [only_one, inside]], np.float64)
    )


def cohens_kappa(table: npt.NDArray[np.float64]) -> float:
    """Return Cohen's kappa of a table (K, K) of counts: first annotator's word by row, the second's by column.

    J. Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20 (1960).

    Returns
    -------
    -1..1; NaN where chance alone would agree throughout, or the table is empty
    """
    return float(_kappas(table.reshape(1, -1), len(table))[0])


def _kappas(tables: npt.NDArray[np.float64], kinds: int) -> npt.NDArray[np.float64]:
    """Return Cohen's kappa (N,) of tables (N, K * K)."""
    table = tables.reshape(-1, kinds, kinds)
    total = table.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        agreed = np.trace(table, axis1=1, axis2=2) / total
        chance = (table.sum(axis=2) * table.sum(axis=1)).sum(axis=1) / total**2
        kappa: npt.NDArray[np.float64] = np.where(
            1 - chance > 1e-12, (agreed - chance) / (1 - chance), np.nan
        )
    return kappa


def _json_of(interval: Interval) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in interval._asdict().items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
