"""Claims of an explanation against what is measured of the region: which agree, which are contradicted.

Nothing here reads an image. What is measured is the gazed region, which is not the target itself, so a claim is
contradicted only where it lies further from the measurement than the gazed region lies from the target. The tolerances
are how far the same measurements of the broad level and of the true mask were apart in 90 to 95 of 100 colonoscopy
training images (Kvasir-SEG, 800 images, gaze simulated from the masks; `tests/benchmarks/measured_kvasir.py`): claims
that are true of the mask are thus rarely held to be contradicted, and many wrong ones pass. Agreement says that nothing
speaks against a description, not that it is right; compare it with what other images' descriptions would get.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from segmentation.explanation import Explanation
from segmentation.explanation_presets import OPEN_WORDS, SCALE
from segmentation.measured import (
    BOUNDARY_STEPS,
    COLOUR_CHANGE,
    ECCENTRICITY_STEPS,
    INTENSITY_STEPS,
    colour_word,
    grid_word,
)
from segmentation.measured import VERSION as MEASURED_BY
from segmentation.reply import plain_text

Verdict = Literal["agrees", "contradicts", "not measurable", "not asked for"]
Numbers = Mapping[str, float | None]

AREA_FACTOR = 2.5
"""Areas of the gazed region and of the mask differed by less in 95 of 100 images (0.44 to 2.53)."""
AREA_SLACK_PERCENT = 3.0
"""Of the image: small regions may differ by more than the factor."""
CENTRE_SLACK = 0.1
"""Of the image's width or height: 95 of 100 centres lay within 0.099 on either axis."""
INTENSITY_SLACK = 10.0
"""In CIELab lightness: 90 of 100 contrasts lay within 9.8."""
COLOUR_SLACK = 7.0
"""In CIELab a and b: 90 of 100 contrasts lay within 6.7 and 5.4."""
ECCENTRICITY_SLACK = 0.25
"""90 of 100 eccentricities lay within 0.24. Lobes and jags of the target leave no trace in the gaze's outline."""
BOUNDARY_SLACK = 1.0
"""90 of 100 ratios lay within 1.04; under the gaze's outline they are lower by 0.3 in the middle."""

_NEIGHBOURS: Mapping[str, str] = {
    "red": "pink orange brown purple",
    "pink": "red orange purple white",
    "orange": "red pink brown yellow",
    "brown": "red orange yellow black grey",
    "yellow": "orange brown green white",
    "green": "yellow blue",
    "blue": "green purple grey",
    "purple": "pink red blue",
    "white": "grey pink yellow",
    "grey": "white black brown blue",
    "black": "grey brown",
}
"""Colours between which people, screens and light sources differ."""
_IN_OTHER_WORDS: Mapping[str, tuple[str, str]] = {
    "hypointense": ("intensity", "darker"),
    "mildly hypointense": ("intensity", "darker"),
    "moderately hypointense": ("intensity", "darker"),
    "markedly hypointense": ("intensity", "much darker"),
    "isointense": ("intensity", "similar"),
    "hyperintense": ("intensity", "brighter"),
    "markedly hyperintense": ("intensity", "much brighter"),
    "circumscribed": ("boundary", "sharp"),
    "well circumscribed": ("boundary", "sharp"),
    "well defined": ("boundary", "sharp"),
    "well demarcated": ("boundary", "sharp"),
    "indistinct": ("boundary", "blurred"),
    "ill defined": ("boundary", "blurred"),
    "poorly defined": ("boundary", "blurred"),
    "poorly demarcated": ("boundary", "blurred"),
}
"""Words of presets that say a published attribute; echogenicity is told against fat and is none of them."""
_SIZE = re.compile(
    r"\d+(?:[.,]\d+)?(?:\s*(?:x|×|by|-|to)\s*\d+(?:[.,]\d+)?)*\s*-?\s*(?:mm|cm|millimet\w+|centimet\w+)\b",
    re.I,
)
_JUDGED = re.compile(
    r"\b(?:pi-?rads?|bi-?rads?|ti-?rads?|li-?rads?|lung-?rads?|gleason|isup|mayo|kudo|likert|tnm|abcd|fleischner|"
    r"boston|spigelman|tds)\b(?:\s*(?:score|grade|category|class|type|stage|total|v?\d+\.\d+))*\s*[:=]?\s*[0-9ivx+]{1,5}\b"
    r"|\b(?:malignan\w*|benign\w*|cancer\w*|carcinoma\w*|adenoma\w*|melanoma\w*|metasta\w*|sarcoma\w*|lymphoma\w*|"
    r"neoplas\w*|diagnos\w*)\b",
    re.I,
)


@dataclass(frozen=True)
class Check:
    """One claim, what was measured of it, and whether the two go together."""

    attribute: str
    said: str
    """On one line, plain text, whatever the model wrote."""
    measured: str
    """In words with the number; empty where nothing was."""
    verdict: Verdict
    sentence: str
    """For people: what was said and what was measured."""


def checks_of(explanation: Explanation, numbers: Numbers | None = None) -> list[Check]:
    """Check every claim of an explanation; attributes that claim nothing (absent, cannot assess) have no check.

    Parameters
    ----------
    explanation
        As it stands, edited or not. Of a measurement every claim agrees: it is the measurement.
    numbers
        What `segmentation.measured.measure_region` gave; default: what is stored with the explanation. An earlier
        version measured none, or other ones, and nothing of its explanations can be checked then.
    """
    numbers = _usable(numbers_of(explanation) if numbers is None else numbers)
    checks = []
    for name, value in explanation.attributes.items():
        if name == "confidence" or (name != "remarks" and value in (None, "", *OPEN_WORDS)):
            continue
        if name == "remarks":
            # A clinician may say what they like; a model was told not to.
            if explanation.backend not in ("annotator", "measured"):
                checks += _remarks(str(value or ""), SCALE in explanation.conditions)
            continue
        checks.append(_check(name, value, numbers))
    return checks


def numbers_of(explanation: Explanation) -> Numbers:
    """Return what is stored of measuring the gazed region; nothing where another version measured."""
    return explanation.numbers if explanation.measured_by == MEASURED_BY else {}


def _usable(numbers: Numbers) -> Numbers:
    """Leave out what no measurement gives: the file may have been edited by hand."""
    return {
        name: float(value)
        for name, value in numbers.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def agreement(checks: Sequence[Check]) -> tuple[int, int]:
    """Return how many claims agree, and how many could be checked."""
    agreeing = sum(check.verdict == "agrees" for check in checks)
    return agreeing, agreeing + sum(check.verdict == "contradicts" for check in checks)


def contradictions(checks: Sequence[Check]) -> list[Check]:
    """Return what a reader has to be told: claims that are contradicted, and what nobody asked for."""
    return [check for check in checks if check.verdict in ("contradicts", "not asked for")]


@dataclass(frozen=True)
class _Finding:
    measured: str
    agrees: bool | None
    """None where the measurement tells neither."""


def _check(name: str, value: Any, numbers: Numbers) -> Check:
    said = plain_text(f"{value:g}" if isinstance(value, float) else str(value), 80)
    about, word = _IN_OTHER_WORDS.get(" ".join(re.split(r"[\s-]+", said.casefold())), (name, value))
    if name in _MEASURES:
        about, word = name, value
    measure = _MEASURES.get(about)
    spoken = name.replace("_", " ")
    if measure is None:
        return Check(name, said, "", "not measurable", f"{spoken}: {said}; nothing of this is measured.")
    if not numbers.get("area_percent"):
        return Check(name, said, "", "not measurable", f"{spoken}: {said}; no region was measured.")
    finding = measure(word, numbers)
    if finding is None or finding.agrees is None:
        detail = (
            "this cannot be measured here" if finding is None else f"{finding.measured}, which tells neither"
        )
        measured = "" if finding is None else finding.measured
        return Check(name, said, measured, "not measurable", f"{spoken}: {said}; {detail}.")
    verdict: Verdict = "agrees" if finding.agrees else "contradicts"
    return Check(name, said, finding.measured, verdict, f"{spoken}: {said}; measured: {finding.measured}.")


def _area(said: Any, numbers: Numbers) -> _Finding | None:
    measured = numbers.get("area_percent")
    if isinstance(said, bool) or not isinstance(said, (int, float)) or measured is None:
        return None
    far = abs(said - measured) > AREA_SLACK_PERCENT
    beyond = max(said, measured) > AREA_FACTOR * max(min(said, measured), 1e-9)
    return _Finding(f"{measured:.3g} % of the image", not (far and beyond))


def _location(said: Any, numbers: Numbers) -> _Finding | None:
    x, y, area = numbers.get("centre_x"), numbers.get("centre_y"), numbers.get("area_percent")
    if x is None or y is None or area is None:
        return None
    if said == "whole image":
        # `describe` says so from 80 % on.
        return _Finding(f"{area:.3g} % of the image", area * AREA_FACTOR >= 80)
    cell = _cell(said)
    if cell is None:
        return None
    outside = max(_outside(x, *cell[0]), _outside(y, *cell[1]))
    return _Finding(f"{grid_word(x, y)} (centre at {x:.2f}, {y:.2f})", outside <= CENTRE_SLACK)


def _cell(word: Any) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Return a grid word's field as (from, to) in x and in y."""
    for row in range(3):
        for column in range(3):
            if grid_word((column + 0.5) / 3, (row + 0.5) / 3) == word:
                return (column / 3, (column + 1) / 3), (row / 3, (row + 1) / 3)
    return None


def _outside(value: float, low: float, high: float) -> float:
    """Distance to an interval; 0 inside."""
    return max(0.0, low - value, value - high)


def _count(said: Any, numbers: Numbers) -> _Finding | None:
    parts = numbers.get("components")
    steps = {"one": 1, "two": 2, "several": 3}
    if said not in steps or not parts:
        return None
    # Two lesions may be looked at as one and one as two: that was so in 1 of 20 images.
    agrees = abs(min(parts, 3) - steps[said]) < 2
    return _Finding("1 region" if parts == 1 else f"{parts:.0f} regions", agrees)


def _intensity(said: Any, numbers: Numbers) -> _Finding | None:
    contrast = numbers.get("lightness_contrast")
    much_darker, darker, brighter, much_brighter = INTENSITY_STEPS
    meant = {
        "much darker": (-math.inf, much_darker),
        "darker": (-math.inf, darker),
        "similar": (darker, brighter),
        "brighter": (brighter, math.inf),
        "much brighter": (much_brighter, math.inf),
    }
    if contrast is None or said not in meant:
        return None
    measured = f"{contrast:+.0f} of 100 against its surroundings"
    return _Finding(measured, _outside(contrast, *meant[said]) <= INTENSITY_SLACK)


def _colour(said: Any, numbers: Numbers) -> _Finding | None:
    lightness, red_green, yellow_blue = (
        numbers.get(one) for one in ("lightness", "red_green", "yellow_blue")
    )
    if said not in _NEIGHBOURS or lightness is None:
        return None
    if red_green is None or yellow_blue is None:
        # Black, grey and white are also said of greyscale.
        return None if said in ("black", "grey", "white") else _Finding("an image without colour", False)
    measured = colour_word(lightness, red_green, yellow_blue)
    return _Finding(measured, said == measured or said in _NEIGHBOURS[measured].split())


def _colour_contrast(said: Any, numbers: Numbers) -> _Finding | None:
    own = numbers.get("red_green"), numbers.get("yellow_blue")
    change = numbers.get("red_green_contrast"), numbers.get("yellow_blue_contrast")
    if own[0] is None or own[1] is None:
        return None if said == "similar" else _Finding("an image without colour", False)
    by_red, by_yellow = change
    if by_red is None or by_yellow is None:
        return None
    # How far the change leads from the surroundings' colour towards grey.
    around = own[0] - by_red, own[1] - by_yellow
    paler = -(around[0] * by_red + around[1] * by_yellow) / max(math.hypot(*around), 1e-6)
    towards = {
        "redder": by_red,
        "greener": -by_red,
        "yellower": by_yellow,
        "bluer": -by_yellow,
        "paler": paler,
    }
    measured = f"{by_red:+.0f} in red, {by_yellow:+.0f} in yellow against its surroundings"
    if said == "similar":
        return _Finding(measured, math.hypot(by_red, by_yellow) - COLOUR_CHANGE <= COLOUR_SLACK)
    if said not in towards:
        return None
    return _Finding(measured, COLOUR_CHANGE / math.sqrt(2) - towards[said] <= COLOUR_SLACK)


def _boundary(said: Any, numbers: Numbers) -> _Finding | None:
    ratio = numbers.get("boundary_ratio")
    moderate, sharp = BOUNDARY_STEPS
    meant = {"blurred": (0.0, moderate), "moderately sharp": (moderate, sharp), "sharp": (sharp, math.inf)}
    if ratio is None or said not in meant:
        return None
    measured = f"an edge {ratio:.1f} times the image's mean gradient"
    return _Finding(measured, _outside(ratio, *meant[said]) <= BOUNDARY_SLACK)


def _shape(said: Any, numbers: Numbers) -> _Finding | None:
    eccentricity = numbers.get("eccentricity")
    oval, elongated = ECCENTRICITY_STEPS
    meant = {"round": (0.0, oval), "oval": (oval, elongated), "elongated": (elongated, 1.0)}
    # Too small a region has a grid's form.
    if eccentricity is None or numbers.get("solidity") is None or said not in meant:
        return None
    axes = 1 / math.sqrt(max(1 - eccentricity**2, 1e-6))
    measured = f"{axes:.1f} times as long as wide"
    return _Finding(measured, _outside(eccentricity, *meant[said]) <= ECCENTRICITY_SLACK)


_MEASURES: Mapping[str, Callable[[Any, Numbers], _Finding | None]] = {
    "area_percent": _area,
    "location": _location,
    "count": _count,
    "intensity": _intensity,
    "colour": _colour,
    "colour_contrast": _colour_contrast,
    "boundary": _boundary,
    "shape": _shape,
}
CHECKED_ATTRIBUTES = tuple(_MEASURES)
"""Published attributes of which something is measured."""


def _remarks(remarks: str, has_scale: bool) -> list[Check]:
    """Find what a model was told not to say: a size where nothing tells the scale, a score, a diagnosis."""
    found = []
    if not has_scale and (match := _SIZE.search(remarks)):
        size = plain_text(match[0], 60)
        sentence = f"remarks: a size ({size}) was not asked for; nothing tells the scale of this image."
        found.append(Check("remarks", size, "", "not asked for", sentence))
    if match := _JUDGED.search(remarks):
        judged = plain_text(match[0], 60)
        sentence = f"remarks: a score or diagnosis ({judged}) was not asked for."
        found.append(Check("remarks", judged, "", "not asked for", sentence))
    return found


def is_measured(explanation: Explanation) -> bool:
    """Whether an explanation is the measurement itself, which agrees with itself and is no evidence."""
    return explanation.backend == "measured"
