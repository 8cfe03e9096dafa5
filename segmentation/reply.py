"""From what a model answered to attributes of the schema, or to the sentence that says what is wrong.

A reply is data: it is searched for one JSON object, checked word by word, and never run or rendered.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from gaze_capture.errors import UserError
from segmentation.explanation_presets import Preset
from segmentation.spelling import spelled

MAX_CHARACTERS = 64 * 1024
"""A reply is read no further than this."""
MAX_REMARKS = 500
"""Longer remarks are cut."""
MAX_EARLIER = 4000
"""Of a reply that cannot be used, so many characters are shown to its model again."""
MAX_MILLIMETRES = 10_000
_MAX_CANDIDATES = 200


class NoAnswer(UserError):
    """Whoever was asked gave no usable answer."""

    def __init__(self, reason: str, *, everywhere: bool = False) -> None:
        super().__init__(reason)
        self.everywhere = everywhere
        """The next image can expect the same."""


def repair_turns(text: str, problem: str) -> tuple[str, str]:
    """Return what a model said, as it is shown to it again, and the words that ask it to repair that."""
    wanted = f"That cannot be used: {problem}. Answer again with the one corrected JSON object only."
    return text[:MAX_EARLIER] or "(empty)", wanted


def beyond_repair(model: str, problem: str) -> str:
    """Say that a model was asked twice and that the second reply cannot be used either."""
    return f"{plain_text(model, 60)} gave no valid answer, also when asked to repair it: {problem}."


def plain_text(text: str, length: int) -> str:
    """Return text on one line without control and formatting characters, cut to a length."""
    cleaned = "".join(
        " " if unicodedata.category(letter)[0] == "C" else letter for letter in text[: 4 * length]
    )
    cleaned = " ".join(cleaned.split())
    return cleaned if len(cleaned) <= length else cleaned[: length - 3].rstrip() + "..."


def read_reply(text: str, preset: Preset) -> tuple[dict[str, Any] | None, str]:
    """Find attributes in a model's answer.

    Prose, code fences and thinking around the JSON are passed over; of several objects the last valid one counts.
    Keys and words are compared without regard to case and spelling (centre, center), keys the schema does not
    know are dropped.

    Returns
    -------
    the attributes and ``""``, or None and what is wrong, in words a model can act upon
    """
    problem = "there is no JSON object in the answer, or it is cut short"
    for candidate in reversed(_objects(_without_thinking(text[:MAX_CHARACTERS]))):
        attributes = _normalised(candidate, preset)
        problems = check_attributes(attributes, preset)
        if not problems:
            return attributes, ""
        if attributes or problem.startswith("there is no"):
            problem = "; ".join(problems[:6])
    return None, problem


def _without_thinking(text: str) -> str:
    """Drop what a model thought aloud: a draft in there is no answer. Some servers swallow the opening tag."""
    thought, end, rest = text.rpartition("</think>")
    if end and (thought.lstrip().startswith("<think>") or "{" in rest):
        return rest
    return "" if text.lstrip().startswith("<think>") else text


def check_attributes(attributes: Any, preset: Preset) -> list[str]:
    """Check attributes by the preset's schema; an empty list is good news."""
    # Takes 0.1 s to import, and nothing else needs it.
    import jsonschema

    validator = jsonschema.Draft202012Validator(preset.schema())
    problems = [
        _sentence(error, preset)
        for error in sorted(validator.iter_errors(attributes), key=lambda error: str(error.path))
    ]
    # JSON has numbers beyond all measure, which the schema of a length does not rule out.
    return problems or [
        f"{name} must be a number up to {MAX_MILLIMETRES}"
        for name, value in attributes.items()
        if isinstance(value, (int, float)) and value > MAX_MILLIMETRES
    ]


def _sentence(error: Any, preset: Preset) -> str:
    name = str(error.path[0]) if error.path else ""
    if not name:
        return plain_text(str(error.message), 200)
    attribute = preset[name]
    expected = f"one of: {', '.join(attribute.words)}" if attribute.words else "a text"
    number = {"percent": "a number from 0 to 100", "millimetres": "a number of 0 or more"}.get(attribute.kind)
    if number is not None:
        expected = f"{number}, or {expected}"
    return f"{name} must be {expected}; not {plain_text(json.dumps(error.instance, ensure_ascii=False), 60)}"


def _objects(text: str) -> list[dict[str, Any]]:
    """Return the outermost JSON objects in a text, in order."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    found: list[dict[str, Any]] = []
    position = tries = 0
    while tries < _MAX_CANDIDATES and (start := text.find("{", position)) >= 0:
        tries += 1
        try:
            value, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            position = start + 1
        else:
            found.append(value)
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _normalised(candidate: dict[str, Any], preset: Preset) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    names = {spelled(name): name for name in preset.names}
    for key, value in candidate.items():
        if (name := names.get(spelled(key))) is None:
            continue
        attribute = preset[name]
        if attribute.kind == "text" and isinstance(value, str):
            value = plain_text(value, MAX_REMARKS)
        elif isinstance(value, str):
            word = spelled(value)
            # A preset's words may have capitals, as classifications do.
            known = {spelled(one): one for one in attribute.words}
            if word in known:
                value = known[word]
            elif attribute.kind in ("percent", "millimetres") and (
                match := re.fullmatch(r"(?:about )?([\d.]{1,8}) ?(?:%|percent|mm)?", word)
            ):
                value = _number(match[1], value)
        attributes[name] = value
    return attributes


def _number(text: str, otherwise: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return otherwise
