"""The structured "why" of an image: what it holds, how it is stored, and the phrases the teacher reads.

The training worker reads explanations on machines that have neither a validator nor an HTTP client; making
and checking them is therefore elsewhere (`segmentation.explaining`, `segmentation.reply`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, write_json_atomic

if TYPE_CHECKING:
    from segmentation.study import Study

FORMAT = 1
"""Version of the stored file."""

ABSENT = "absent"
"""Said of an attribute where there is no such thing in the image."""
CANNOT_ASSESS = "cannot assess"
"""Said of an attribute where the image does not tell."""

AREA_STEPS_PERCENT = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100)
"""Areas are spoken of in these steps, so that few distinct phrases exist and each is encoded once."""

_PHRASES = {
    "location": "in the {} of the image",
    "count": "{} separate regions",
    "area_percent": "covering about {} percent of the image",
    "shape": "{} shape",
    "boundary": "{} boundary",
    "colour": "{} colour",
    "colour_contrast": "{} than its surroundings",
    "intensity": "{} than its surroundings",
    "texture": "{} texture",
}
"""Phrase of each attribute; those not named here (confidence, remarks) are for people, not for the encoder."""

_SPECIAL_PHRASES = {
    ("location", "centre"): "in the centre of the image",
    ("location", "whole image"): "across the whole image",
    ("count", "one"): "a single region",
    ("colour_contrast", "similar"): "similar in colour to its surroundings",
    ("intensity", "similar"): "as bright as its surroundings",
}

_SWAPPED_HORIZONTALLY = {"left": "right", "right": "left"}
_SWAPPED_VERTICALLY = {"upper": "lower", "lower": "upper", "top": "bottom", "bottom": "top"}


@dataclass(frozen=True)
class Explanation:
    """What a backend said of one target in one image, and all that it was asked."""

    image_id: str
    target_id: str
    backend: str
    """``"measured"`` or ``"openai"``."""
    model: str
    """The server's model, or the version of the measurement."""
    prompt: str
    """The words a model was asked with; empty where none was asked."""
    attributes: dict[str, Any]
    """By ``resources/explanation.schema.json``, which it was checked against when it was made."""
    text: str
    """The attributes in words, with where they come from; plain text, whatever it contains."""
    raw_reply: str
    """What the model answered, or the measured numbers as JSON."""
    created: str = ""
    """ISO 8601, UTC."""
    simulated_from: str | None = None
    """``"masks"`` or ``"saliency"`` where the gaze behind it was simulated."""
    region_sha256: str | None = None
    """Of the gazed region: a new pseudo-mask makes it out of date; None where the annotator found no target."""


@functools.cache
def schema() -> dict[str, Any]:
    """Return the published JSON schema of the attributes, the very one that is sent to a server."""
    text = resources.files("resources").joinpath("explanation.schema.json").read_text(encoding="utf-8")
    values: dict[str, Any] = json.loads(text)
    return values


def vocabulary(attribute: str) -> tuple[str, ...]:
    """Return the words an attribute may take, beside numbers; none for free text."""
    rule = schema()["properties"][attribute]
    words = list(rule.get("enum", []))
    for choice in rule.get("anyOf", []):
        words += choice.get("enum", [])
    return tuple(words)


def save_explanation(study: Study, explanation: Explanation) -> None:
    """Store an explanation, atomically, in place of an earlier one of the same image and target.

    Raises
    ------
    UserError
        If the study cannot be written.
    """
    path = study.explanation_path(explanation.image_id, explanation.target_id)
    values = {"format": FORMAT, **dataclasses.asdict(explanation)}
    write_json_atomic(path, values, within=study.folder)


def load_explanation(study: Study, image_id: str, target_id: str) -> Explanation | None:
    """Return the stored explanation of a target in an image, or None.

    Raises
    ------
    UserError
        If the file is damaged or a newer version wrote it.
    """
    path = study.explanation_path(image_id, target_id)
    if not path.exists():
        return None
    values = read_json(path)
    version = values.pop("format", None) if isinstance(values, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise UserError(f"{path} was written by a newer Gaze Insight; update the program to read it.")
    try:
        if version is None:
            raise TypeError("it names no format")
        explanation = Explanation(**values)
        if not isinstance(explanation.attributes, dict):
            raise TypeError("its attributes are no object")
    except TypeError as error:
        raise UserError(f"{path} is damaged ({error}). Delete it and explain the image again.") from None
    return explanation


def area_step_percent(area_percent: float) -> int:
    """Round an area to the nearest of AREA_STEPS_PERCENT, by ratio: 1 and 2 differ as much as 10 and 20."""
    return min(AREA_STEPS_PERCENT, key=lambda step: abs(step - area_percent) / (step + area_percent))


def phrase_of(attribute: str, value: Any) -> str | None:
    """Return the phrase of one attribute, or None where it says nothing (absent, cannot assess, free text)."""
    if attribute not in _PHRASES or value in (ABSENT, CANNOT_ASSESS, None):
        return None
    if isinstance(value, (int, float)):
        return _PHRASES[attribute].format(area_step_percent(value))
    special = _SPECIAL_PHRASES.get((attribute, value))
    return special if special is not None else _PHRASES[attribute].format(value)


def attribute_phrases(explanation: Explanation) -> dict[str, str]:
    """Return the phrase of each attribute that says something, by attribute: one text token each.

    Phrases come from a small closed set (`all_phrases`), so an encoder needs to see each only once. Empty where
    the target is absent or nothing could be assessed.
    """
    phrases = {name: phrase_of(name, explanation.attributes.get(name)) for name in _PHRASES}
    return {name: phrase for name, phrase in phrases.items() if phrase is not None}


def all_phrases() -> tuple[str, ...]:
    """Return every phrase that `attribute_phrases` can give, without repeats; flipping leads to no other."""
    phrases = [phrase_of("area_percent", step) for step in AREA_STEPS_PERCENT]
    phrases += [phrase_of(name, word) for name in _PHRASES for word in vocabulary(name)]
    return tuple(dict.fromkeys(phrase for phrase in phrases if phrase is not None))


def flip_phrase(phrase: str, horizontally: bool, vertically: bool) -> str:
    """Say the phrase of the flipped image: left and right, upper and lower change places."""
    swaps = {**(_SWAPPED_HORIZONTALLY if horizontally else {}), **(_SWAPPED_VERTICALLY if vertically else {})}
    if not swaps:
        return phrase
    return re.sub(r"\b(" + "|".join(swaps) + r")\b", lambda match: swaps[match[0]], phrase)


def in_words(attributes: dict[str, Any]) -> str:
    """Write attributes as one sentence for people, ending in the remarks; what cannot be said is left out."""
    if attributes.get("location") == ABSENT:
        sentence = "the target is absent"
    else:
        phrases = [phrase_of(name, attributes.get(name)) for name in _PHRASES if name != "area_percent"]
        area = attributes.get("area_percent")
        if isinstance(area, (int, float)):
            phrases.insert(1, f"{area:.3g} percent of the image")
        sentence = (
            ", ".join(phrase for phrase in phrases if phrase is not None) or "nothing could be assessed"
        )
    remarks = str(attributes.get("remarks") or "").strip()
    return f"{sentence}. {remarks}".strip()
