"""The structured "why" of an image: what it holds, how it is stored, and the phrases the teacher reads.

The training worker reads explanations on machines that have neither a validator nor an HTTP client; making
and checking them is therefore elsewhere (`segmentation.explaining`, `segmentation.reply`).
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, read_json, write_json_atomic
from segmentation.explanation_presets import ABSENT, GENERIC, OPEN_WORDS, Preset, load_preset
from segmentation.records import new_id, refuse_newer

if TYPE_CHECKING:
    from segmentation.study import Study

FORMAT = 2
"""Version of the stored file; 1 knew the attributes of the generic preset alone."""

SECONDS_IN_ID = len("20260101-120000")
"""Characters of an id that are a time; chance follows."""

_LARGEST = 1e12
"""No number in an explanation is larger; infinity and NaN are none."""

AREA_STEPS_PERCENT = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100)
"""Areas are spoken of in these steps, so that few distinct phrases exist and each is encoded once."""
LENGTH_STEPS_MM = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100, 150, 200)
"""Lengths, likewise."""

_SWAPPED_HORIZONTALLY = {"left": "right", "right": "left"}
_SWAPPED_VERTICALLY = {"upper": "lower", "lower": "upper", "top": "bottom", "bottom": "top"}

Backend = Literal["measured", "annotator", "openai", "transformers"]


@dataclass(frozen=True)
class Cost:
    """What an explanation took."""

    seconds: float = 0.0
    requests: int = 0
    prompt_tokens: int = 0
    """As the server counted them; 0 where it does not say."""
    completion_tokens: int = 0


@dataclass(frozen=True)
class Explanation:
    """What a backend said of one target in one image, all that it was asked, and what people made of it."""

    image_id: str
    target_id: str
    backend: str
    """One of `Backend`."""
    model: str
    """The server's or the local model, or the version of the measurement, or the annotator."""
    prompt: str
    """The words a model was asked with; empty where none was asked."""
    attributes: dict[str, Any]
    """By the preset's schema, which it was checked against when it was made or edited."""
    text: str
    """The attributes in words, with where they come from; plain text, whatever it contains."""
    raw_reply: str
    """What the model answered, or the annotator's own words, or the measured numbers as JSON."""
    created: str = ""
    """ISO 8601, UTC."""
    simulated_from: str | None = None
    """``"masks"`` or ``"saliency"`` where the gaze behind it was simulated."""
    region_sha256: str | None = None
    """Of the gazed region: a new pseudo-mask makes it out of date; None where the annotator found no target."""
    preset: str = GENERIC
    preset_sha256: str = ""
    conditions: tuple[str, ...] = ()
    """Under which the preset's attributes were asked, such as ``NBI`` or ``scale``."""
    numbers: dict[str, float | None] = field(default_factory=dict)
    """What was measured of the gazed region (`segmentation.measured.measure_region`), to check claims against."""
    measured_by: str = ""
    """The version of that measurement."""
    asked_sha256: str = ""
    """Of everything that decides the answer: image, gaze, view, prompt, schema, backend and model."""
    picture_sha256: str = ""
    """Of the picture that a model was shown."""
    cost: Cost = field(default_factory=Cost)
    original: dict[str, Any] | None = None
    """The attributes as the backend gave them, once somebody changed one."""
    edited: tuple[str, ...] = ()
    """Attributes that somebody changed."""
    approved: tuple[str, ...] = ()
    """Attributes that somebody confirmed, edited ones among them."""
    revised_by: str = ""
    """Who edited or approved last."""
    revised_at: str = ""
    """ISO 8601, UTC."""

    @property
    def touched(self) -> bool:
        """Whether somebody edited or approved anything."""
        return bool(self.edited or self.approved)

    @property
    def by_people(self) -> bool:
        """Whether it is somebody's own words, or somebody edited or approved anything: no batch replaces it."""
        return self.touched or self.backend == "annotator"


def preset_of(explanation: Explanation, study_folder: Path | None = None) -> Preset:
    """Return the preset an explanation was made by, as it is now, with the attributes that were asked.

    Raises
    ------
    UserError
        If the preset has gone or is damaged.
    """
    return load_preset(explanation.preset, study_folder).under(explanation.conditions)


def save_explanation(study: Study, explanation: Explanation) -> None:
    """Store an explanation in place of an earlier one of the same image and target, which its history keeps.

    Raises
    ------
    UserError
        If the study cannot be written.
    """
    values = {"format": FORMAT, **dataclasses.asdict(explanation)}
    folder = study.explanation_history(explanation.image_id, explanation.target_id)
    write_json_atomic(folder / f"{new_id()}.json", values, within=study.folder)
    choose_explanation(study, explanation)


def choose_explanation(study: Study, explanation: Explanation) -> None:
    """Let an explanation of the history be the one that counts.

    Raises
    ------
    UserError
        If the study cannot be written.
    """
    path = study.explanation_path(explanation.image_id, explanation.target_id)
    write_json_atomic(path, {"format": FORMAT, **dataclasses.asdict(explanation)}, within=study.folder)


def load_explanation(study: Study, image_id: str, target_id: str) -> Explanation | None:
    """Return the explanation of a target in an image that counts, or None.

    Raises
    ------
    UserError
        If the file is damaged or a newer version wrote it.
    """
    path = study.explanation_path(image_id, target_id)
    return read_explanation(path) if path.exists() else None


def load_history(study: Study, image_id: str, target_id: str) -> list[Explanation]:
    """Return everything that was ever said of a target in an image, oldest first; damaged files are passed over.

    Raises
    ------
    UserError
        If the folder cannot be read.
    """
    folder = study.explanation_history(image_id, target_id)
    with explained_os_errors(folder):
        # Ids tell seconds; what was stored within one is told apart by the files' own times.
        paths = sorted(
            folder.glob("*.json") if folder.exists() else (),
            key=lambda path: (path.name[:SECONDS_IN_ID], path.stat().st_mtime_ns, path.name),
        )
    found = []
    for path in paths:
        try:
            found.append(read_explanation(path))
        except UserError:
            continue
    return found


def read_explanation(path: Path) -> Explanation:
    """Read an explanation from its file, one that counts or one of the history.

    Raises
    ------
    UserError
        If it is damaged or a newer version wrote it.
    """
    values = read_json(path)
    refuse_newer(path, values, FORMAT, "format")
    version = values.pop("format", None) if isinstance(values, dict) else None
    try:
        if version is None:
            raise TypeError("it names no format")
        for name in _LISTS:
            if not isinstance(values.get(name, []), list):
                raise TypeError(f"its {name} is no list")
            values[name] = tuple(values.get(name, ()))
        values["cost"] = Cost(**values.get("cost", {}))
        explanation = Explanation(**values)
        _check_types(explanation)
    except (TypeError, UnicodeError) as error:
        raise UserError(f"{path} is damaged ({error}). Delete it and explain the image again.") from None
    return explanation


_LISTS = ("conditions", "edited", "approved")
_MAY_BE_MISSING = ("simulated_from", "region_sha256")


def _check_types(explanation: Explanation) -> None:
    """Raise TypeError where a value is not what everybody who reads explanations relies on."""
    for name, value in vars(explanation).items():
        if name in _LISTS:
            if not all(map(_is_text, value)):
                raise TypeError(f"its {name} holds what is no text")
        elif name in ("attributes", "original", "numbers"):
            if value is None and name == "original":
                continue
            if not isinstance(value, dict):
                raise TypeError(f"its {name} is no object")
            for key, one in value.items():
                said = one is None or _is_number(one) or (_is_text(one) and name != "numbers")
                if not (_is_text(key) and said):
                    raise TypeError(f"{key!r} in its {name} is nothing that can be said")
        elif name == "cost":
            if not all(_is_number(one) and one >= 0 for one in vars(value).values()):
                raise TypeError("its cost is no number")
        elif not (_is_text(value) or (value is None and name in _MAY_BE_MISSING)):
            raise TypeError(f"its {name} is no text")


def _is_text(value: Any) -> bool:
    """Whether a value is a text; half a surrogate pair, which raises UnicodeError, can be neither shown nor stored."""
    return isinstance(value, str) and (value.isascii() or bool(value.encode()))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _step(value: float, steps: tuple[int, ...]) -> int:
    """Round to the nearest step by ratio: 1 and 2 differ as much as 10 and 20."""
    return min(steps, key=lambda step: abs(step - value) / (step + value))


def area_step_percent(area_percent: float) -> int:
    """Round an area to the nearest of AREA_STEPS_PERCENT, by ratio."""
    return _step(area_percent, AREA_STEPS_PERCENT)


def length_step_mm(length_mm: float) -> int:
    """Round a length to the nearest of LENGTH_STEPS_MM, by ratio."""
    return _step(length_mm, LENGTH_STEPS_MM)


def phrase_of(preset: Preset, name: str, value: Any) -> str | None:
    """Return the phrase of one attribute, or None where it says nothing (absent, cannot assess, free text)."""
    attribute = preset[name]
    if attribute.phrase is None or value in OPEN_WORDS or value is None:
        return None
    if isinstance(value, (int, float)):
        millimetres = attribute.kind == "millimetres"
        return attribute.phrase.format(length_step_mm(value) if millimetres else area_step_percent(value))
    special = attribute.phrases.get(value)
    return special if special is not None else attribute.phrase.format(value)


def attribute_phrases(explanation: Explanation, preset: Preset) -> dict[str, str]:
    """Return the phrase of each attribute that says something, by attribute: one text token each.

    Phrases come from a small closed set (`all_phrases`), so an encoder needs to see each only once. Empty where
    the target is absent or nothing could be assessed.
    """
    phrases = {name: phrase_of(preset, name, explanation.attributes.get(name)) for name in preset.names}
    return {name: phrase for name, phrase in phrases.items() if phrase is not None}


def all_phrases(preset: Preset) -> tuple[str, ...]:
    """Return every phrase that `attribute_phrases` can give, without repeats; flipping leads to no other."""
    phrases: list[str | None] = []
    for one in preset.attributes:
        steps = {"percent": AREA_STEPS_PERCENT, "millimetres": LENGTH_STEPS_MM}.get(one.kind, ())
        phrases += [phrase_of(preset, one.name, value) for value in (*steps, *one.words)]
    return tuple(dict.fromkeys(phrase for phrase in phrases if phrase is not None))


def flip_phrase(phrase: str, horizontally: bool, vertically: bool) -> str:
    """Say the phrase of the flipped image: left and right, upper and lower change places."""
    swaps = {**(_SWAPPED_HORIZONTALLY if horizontally else {}), **(_SWAPPED_VERTICALLY if vertically else {})}
    if not swaps:
        return phrase
    return re.sub(r"\b(" + "|".join(swaps) + r")\b", lambda match: swaps[match[0]], phrase)


def in_words(attributes: dict[str, Any], preset: Preset) -> str:
    """Write attributes as one sentence for people, ending in the remarks; what cannot be said is left out."""
    if attributes.get("location") == ABSENT:
        sentence = "the target is absent"
    else:
        said = []
        for name in preset.names:
            value = attributes.get(name)
            if name == "area_percent" and isinstance(value, (int, float)):
                said.append(f"{value:.3g} percent of the image")
            elif preset[name].kind == "millimetres" and isinstance(value, (int, float)):
                said.append(f"{value:.3g} mm")
            elif (phrase := phrase_of(preset, name, value)) is not None:
                said.append(phrase)
        sentence = ", ".join(said) or "nothing could be assessed"
    remarks = str(attributes.get("remarks") or "").strip()
    return f"{sentence}. {remarks}".strip()
