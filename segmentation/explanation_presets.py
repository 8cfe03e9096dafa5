"""Presets: which attributes an explanation has for one kind of task, their words, and what a model is asked.

A preset is a JSON file and a prompt beside it. Those of the program lie in ``resources/explanations``; a study may have
its own in its folder ``presets/``, usually a copy that was edited. Every preset has the attributes of the published
``resources/explanation.schema.json``, except those it leaves out, and may add more.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from gaze_capture.errors import UserError

ABSENT = "absent"
"""Said of an attribute where there is no such thing in the image."""
CANNOT_ASSESS = "cannot assess"
"""Said of an attribute where the image does not tell."""
OPEN_WORDS = (ABSENT, CANNOT_ASSESS)
"""May be said of every attribute but the remarks."""

ALWAYS = ("location", "count", "area_percent", "confidence", "remarks")
"""What no preset may leave out."""
SCALE = "scale"
"""The condition of attributes in millimetres: the image's spacing is known."""
GENERIC = "generic"

Kind = Literal["words", "percent", "millimetres", "text"]


@dataclass(frozen=True)
class Attribute:
    """One thing that is said of a gazed region."""

    name: str
    description: str
    """What it means, as the model reads it."""
    kind: Kind = "words"
    words: tuple[str, ...] = ()
    """What may be said, the open words included; beside a number for ``percent`` and ``millimetres``."""
    phrase: str | None = None
    """What the teacher reads, ``{}`` standing for the word; None: for people only."""
    phrases: Mapping[str, str] = field(default_factory=dict)
    """Phrases of single words in place of that."""
    when: str | None = None
    """Asked only under this condition: a technique that the study states, such as ``NBI``, or ``scale``."""

    def rule(self) -> dict[str, Any]:
        """Return its part of the JSON schema."""
        if self.kind == "text":
            return {"description": self.description, "type": "string"}
        if self.kind == "words":
            return {"description": self.description, "enum": list(self.words)}
        number: dict[str, Any] = {"type": "number", "minimum": 0}
        if self.kind == "percent":
            number["maximum"] = 100
        return {"description": self.description, "anyOf": [number, {"enum": list(self.words)}]}


@dataclass(frozen=True)
class Preset:
    """The attributes of one kind of task, and the prompt that asks for them."""

    id: str
    title: str
    attributes: tuple[Attribute, ...]
    prompt: str
    """A `string.Template`; see `segmentation.explaining.build_prompt` for what is filled in."""
    sha256: str
    """Of both files: another text is another question."""

    def __getitem__(self, name: str) -> Attribute:
        """Return an attribute by name, or raise KeyError."""
        return next(one for one in self.attributes if one.name == name)

    def __contains__(self, name: object) -> bool:
        """Whether the preset has an attribute."""
        return any(one.name == name for one in self.attributes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the attributes, in their order."""
        return tuple(one.name for one in self.attributes)

    @property
    def techniques(self) -> tuple[str, ...]:
        """The conditions that a study may state, such as ``NBI``."""
        return tuple(dict.fromkeys(one.when for one in self.attributes if one.when not in (None, SCALE)))

    def under(self, conditions: Collection[str]) -> Preset:
        """Return the preset with only those attributes whose condition is met."""
        kept = tuple(one for one in self.attributes if one.when is None or one.when in conditions)
        return replace(self, attributes=kept)

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the attributes, the very one that is sent to a server."""
        return {
            **{key: value for key, value in published().items() if key not in ("required", "properties")},
            "required": list(self.names),
            "properties": {one.name: one.rule() for one in self.attributes},
        }

    def saying(self, word: str) -> dict[str, Any]:
        """Return attributes that all say ``"absent"`` or ``"cannot assess"``, without remarks."""
        return {one.name: "" if one.kind == "text" else word for one in self.attributes}


_PHRASES: dict[str, tuple[str, dict[str, str]]] = {
    "location": (
        "in the {} of the image",
        {"centre": "in the centre of the image", "whole image": "across the whole image"},
    ),
    "count": ("{} separate regions", {"one": "a single region"}),
    "area_percent": ("covering about {} percent of the image", {}),
    "shape": ("{} shape", {}),
    "boundary": ("{} boundary", {}),
    "colour": ("{} colour", {}),
    "colour_contrast": ("{} than its surroundings", {"similar": "similar in colour to its surroundings"}),
    "intensity": ("{} than its surroundings", {"similar": "as bright as its surroundings"}),
    "texture": ("{} texture", {}),
}
"""Phrases of the published attributes; confidence and remarks are for people, not for the encoder."""


@functools.cache
def published() -> dict[str, Any]:
    """Return the published JSON schema, which holds the attributes that every preset starts from."""
    text = resources.files("resources").joinpath("explanation.schema.json").read_text(encoding="utf-8")
    values: dict[str, Any] = json.loads(text)
    return values


@functools.cache
def published_attributes() -> tuple[Attribute, ...]:
    """Return the attributes of the published schema."""
    found = []
    for name, rule in published()["properties"].items():
        numeric = "anyOf" in rule
        words = rule["anyOf"][1]["enum"] if numeric else rule.get("enum", ())
        kind: Kind = "percent" if numeric else "words" if words else "text"
        phrase, phrases = _PHRASES.get(name, (None, {}))
        found.append(Attribute(name, rule["description"], kind, tuple(words), phrase, phrases))
    return tuple(found)


def own_folder(study_folder: Path) -> Path:
    """Return where a study keeps presets of its own."""
    return study_folder / "presets"


def preset_ids(study_folder: Path | None = None) -> tuple[str, ...]:
    """Return the ids of the program's presets and of a study's own, which come first where both have one."""
    own = sorted(path.stem for path in own_folder(study_folder).glob("*.json")) if study_folder else []
    programs = sorted(
        name.removesuffix(".json")
        for name in (path.name for path in resources.files("resources").joinpath("explanations").iterdir())
        if name.endswith(".json")
    )
    return tuple(dict.fromkeys([*own, *programs]))


def load_preset(preset_id: str = GENERIC, study_folder: Path | None = None) -> Preset:
    """Return a preset: the study's own where it has one of this id, else the program's.

    Raises
    ------
    UserError
        If there is no such preset, or its file is no preset; the sentence names the file, the line and the reason.
    """
    if preset_id not in preset_ids(study_folder):
        known = ", ".join(preset_ids(study_folder))
        raise UserError(f"There is no explanation preset {preset_id!r}; choose one of: {known}.")
    path = own_folder(study_folder) / f"{preset_id}.json" if study_folder else None
    if path is not None and path.exists():
        return parse_preset(
            path.read_text(encoding="utf-8"), path.with_suffix(".md").read_text("utf-8"), path
        )
    return _programs_preset(preset_id)


@functools.cache
def _programs_preset(preset_id: str) -> Preset:
    folder = resources.files("resources").joinpath("explanations")
    name = f"{preset_id}.json"
    text = folder.joinpath(name).read_text(encoding="utf-8")
    prompt = folder.joinpath(f"{preset_id}.md").read_text(encoding="utf-8")
    return parse_preset(text, prompt, Path(name))


def parse_preset(text: str, prompt: str, path: Path) -> Preset:
    """Read a preset from the texts of its two files; `path` names it in errors.

    Raises
    ------
    UserError
        If it is no preset; the sentence names the file, the line and the reason.
    """
    values = json.loads(text)
    left_out = values.get("leave_out", [])
    attributes = [one for one in published_attributes() if one.name not in left_out]
    # Before confidence and remarks, which close an explanation.
    added = [_attribute(name, given) for name, given in values.get("attributes", {}).items()]
    attributes[-2:-2] = added
    sha256 = hashlib.sha256(f"{text}\0{prompt}".encode()).hexdigest()
    return Preset(path.stem, values["title"], tuple(attributes), prompt, sha256)


def _attribute(name: str, given: dict[str, Any]) -> Attribute:
    kind: Kind = given.get("kind", "words")
    return Attribute(
        name,
        given["description"],
        kind,
        (*given.get("words", ()), *OPEN_WORDS),
        given.get("phrase"),
        given.get("phrases", {}),
        SCALE if kind == "millimetres" else given.get("when"),
    )
