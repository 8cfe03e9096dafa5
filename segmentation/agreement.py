"""How often what a model says of a study's images agrees with what is measured of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from gaze_capture.errors import UserError
from segmentation.claims import Check, Numbers, agreement, checks_of, contradictions, is_measured, numbers_of
from segmentation.explanation import Explanation, load_explanation, load_history
from segmentation.measured import measure_region
from segmentation.progress import Progress, no_progress
from segmentation.study import Study

Against = Literal["gaze", "masks"]
AGAINST: tuple[Against, ...] = ("gaze", "masks")
SHIFTS = 20
"""So often are the descriptions dealt to other images to learn what agrees by chance."""
_Z = 1.959964
"""Of a 95 % interval."""


@dataclass(frozen=True)
class Share:
    """How many of the claims that could be checked agree."""

    agreeing: int
    checked: int
    by_chance: float | None = None
    """Share that agrees when the same descriptions are dealt to other images; None where there is one image only."""

    @property
    def share(self) -> float | None:
        """0..1, or None where nothing could be checked."""
        return self.agreeing / self.checked if self.checked else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the 95 % interval of Wilson (1927), or None where nothing could be checked."""
        return wilson(self.agreeing, self.checked) if self.checked else None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "agreeing": self.agreeing,
            "checked": self.checked,
            "share": self.share,
            "interval": list(self.interval) if self.interval else None,
            "by_chance": self.by_chance,
        }


@dataclass(frozen=True)
class AgreementRow:
    """What one model said of a study's images."""

    backend: str
    model: str
    preset: str
    images: int
    """Explanations of targets in images."""
    without_numbers: int
    """Of these, nothing is measured of."""
    attributes: Mapping[str, Share]
    """Each claim of an image counts once; in the order of the preset."""
    contradictions: tuple[tuple[str, str, Check], ...]
    """Image id, target id and what is contradicted or was not asked for."""
    simulated_from: tuple[str, ...]
    """Where the gaze behind it was simulated: ``masks``, ``saliency``, both or nothing."""
    by_construction: bool
    """The claims are the measurement itself and agree with it; this is no evidence."""
    against: Against = "gaze"

    @property
    def total(self) -> Share:
        """Claims of all attributes; those of one image hang together, so it has no honest interval."""
        shares = self.attributes.values()
        return Share(sum(one.agreeing for one in shares), sum(one.checked for one in shares))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "backend": self.backend,
            "model": self.model,
            "preset": self.preset,
            "images": self.images,
            "without_numbers": self.without_numbers,
            "against": self.against,
            "by_construction": self.by_construction,
            "simulated_from": list(self.simulated_from),
            "agreeing": self.total.agreeing,
            "checked": self.total.checked,
            "attributes": {name: share.to_json() for name, share in self.attributes.items()},
            "contradictions": [
                {
                    "image": image,
                    "target": target,
                    "attribute": check.attribute,
                    "said": check.said,
                    "measured": check.measured,
                    "verdict": check.verdict,
                    "sentence": check.sentence,
                }
                for image, target, check in self.contradictions
            ],
        }


def wilson(agreeing: int, checked: int) -> tuple[float, float]:
    """Return the 95 % interval of a share after Wilson (1927); `checked` at least 1."""
    share, spread = agreeing / checked, _Z**2 / checked
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / checked + spread / (4 * checked))
    return max(0.0, middle - half), min(1.0, middle + half)


def measure_numbers(
    study: Study, explanation: Explanation, against: Against = "gaze"
) -> dict[str, float | None]:
    """Measure anew what an explanation speaks of: the gazed region as it is now, or the true mask.

    Raises
    ------
    UserError
        If there is no pseudo-mask, or no true mask, or the image cannot be read.
    """
    image = study.image(explanation.image_id)
    if against == "masks":
        region = study.true_mask(image.id, explanation.target_id)
        if region is None:
            raise UserError(f"{image.id} has no true mask to measure; import masks with the images.")
    else:
        pseudomask = study.pseudomask(image.id, explanation.target_id)
        if pseudomask is None:
            raise UserError(f"{image.id} has no pseudo-mask to measure; make the pseudo-masks first.")
        region = pseudomask.level_map >= 1
    pixels = study.guide(image)
    if pixels.shape[:2] != region.shape:
        raise UserError(
            f"{study.image_path(image)} and its mask differ in size; import or make the mask again."
        )
    return measure_region(pixels, region)


def agreement_table(
    study: Study,
    *,
    split: str | None = None,
    image_ids: Sequence[str] | None = None,
    against: Against = "gaze",
    progress: Progress = no_progress,
) -> list[AgreementRow]:
    """Return a row for each model that described images of a study, those of the most images first.

    The latest that each model said of an image counts, whether or not it is the explanation that counts for the image,
    and as the model said it: what people corrected is theirs. Damaged files are passed over; ``verify`` names them.

    Parameters
    ----------
    split, image_ids : only these images; None for all
    against : ``gaze`` compares with what was measured of the gazed region when it was said, ``masks`` with the true
        masks, measured now; images without a true mask are left out. Measuring the split ``test`` so is allowed,
        choosing or training by it is not.

    Raises
    ------
    UserError
        If there is no such split, or an image cannot be read that has to be measured.
    """
    said: dict[tuple[str, str, str], list[tuple[Explanation, Numbers]]] = {}
    chosen = None if image_ids is None else set(image_ids)
    keys = [
        (image.id, target.id)
        for image, target in study.iterate_keys(split)
        if chosen is None or image.id in chosen
    ]
    explained, masks = study.explanation_keys(), study.mask_keys()
    for number, key in enumerate(keys):
        progress(number, len(keys), key[0])
        if key not in explained or (against == "masks" and key not in masks):
            continue
        numbers = None
        for one in _latest_of_each(study, *key):
            if against == "masks":
                numbers = measure_numbers(study, one, "masks") if numbers is None else numbers
            said.setdefault((one.backend, one.model, one.preset), []).append(
                (one, numbers_of(one) if numbers is None else numbers)
            )
    progress(len(keys), len(keys), "")
    rows = [_row(name, found, against) for name, found in said.items()]
    return sorted(rows, key=lambda row: (-row.images, row.backend, row.model, row.preset))


def _latest_of_each(study: Study, image_id: str, target_id: str) -> Iterable[Explanation]:
    """Return the latest of each backend, model and preset, as it was said."""
    everything = load_history(study, image_id, target_id)
    if not everything:  # Made before there was a history.
        with contextlib.suppress(UserError):
            current = load_explanation(study, image_id, target_id)
            everything = [current] if current is not None else []
    latest = {}
    for one in sorted(everything, key=lambda one: one.created):
        # What nobody was asked, because the annotator saw no target, is nobody's claim.
        if one.region_sha256 is not None:
            latest[one.backend, one.model, one.preset] = one
    return latest.values()


def _row(
    name: tuple[str, str, str],
    found: Sequence[tuple[Explanation, Numbers]],
    against: Against,
) -> AgreementRow:
    said = [_as_said(one) for one, _ in found]
    measured = [numbers for _, numbers in found]
    checks = [checks_of(one, numbers) for one, numbers in zip(said, measured, strict=True)]
    shares = _shares(checks)
    dealt = [
        checks_of(said[(place + shift) % len(said)], numbers)
        for shift in _shifts(len(said))
        for place, numbers in enumerate(measured)
    ]
    chance = _shares(dealt)
    return AgreementRow(
        *name,
        images=len(found),
        without_numbers=sum(not numbers for numbers in measured),
        attributes={
            attribute: Share(
                one.agreeing, one.checked, chance[attribute].share if attribute in chance else None
            )
            for attribute, one in shares.items()
        },
        contradictions=tuple(
            (one.image_id, one.target_id, check)
            for one, checked in zip(said, checks, strict=True)
            for check in contradictions(checked)
        ),
        simulated_from=tuple(sorted({one.simulated_from for one in said if one.simulated_from})),
        by_construction=against == "gaze" and all(is_measured(one) for one in said),
        against=against,
    )


def _as_said(explanation: Explanation) -> Explanation:
    if explanation.original is None:
        return explanation
    return replace(explanation, attributes=explanation.original)


def _shifts(count: int) -> list[int]:
    """Return by how many images descriptions are moved on, spread evenly; images beside one another may be alike."""
    if count < 2:
        return []
    return sorted({int(shift) for shift in np.linspace(1, count - 1, min(SHIFTS, count - 1)).round()})


def _shares(checks: Iterable[Sequence[Check]]) -> dict[str, Share]:
    by_attribute: dict[str, list[Check]] = {}
    for of_image in checks:
        for check in of_image:
            by_attribute.setdefault(check.attribute, []).append(check)
    counted = {name: agreement(found) for name, found in by_attribute.items()}
    return {name: Share(agreeing, checked) for name, (agreeing, checked) in counted.items() if checked}
