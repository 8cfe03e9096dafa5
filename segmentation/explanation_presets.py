"""Presets: which attributes an explanation has for one kind of task, their words, and what a model is asked.

A preset is a JSON file and a prompt beside it (`segmentation.preset_reading` has the rules). Those of the program lie
in ``resources/explanations``; a study may have its own in its folder ``presets/``, usually a copy that was edited.
Every preset has the attributes of the published ``resources/explanation.schema.json``, except those it leaves out, and
may add more.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, write_bytes_atomic
from segmentation.preset_reading import Base, check_preset, check_prompt, is_preset_id, read_text

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
    """A `string.Template`; see `segmentation.questions.build_prompt` for what is filled in."""
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


@functools.cache
def programs_folder() -> Path:
    """Return where the program's presets lie; they are read only there, and copied to be changed."""
    return Path(str(resources.files("resources").joinpath("explanations")))


def preset_ids(study_folder: Path | None = None) -> tuple[str, ...]:
    """Return the ids of the program's presets and of a study's own, which come first where both have one."""
    folders = [*([own_folder(study_folder)] if study_folder else []), programs_folder()]
    found = (path.stem for folder in folders for path in sorted(folder.glob("*.json")))
    return tuple(dict.fromkeys(one for one in found if is_preset_id(one)))


def preset_path(preset_id: str, study_folder: Path | None = None) -> Path:
    """Return the JSON file that counts for a preset: the study's own where it has one of this id, else the program's.

    Raises
    ------
    UserError
        If there is no such preset.
    """
    if is_preset_id(preset_id):
        if study_folder is not None:
            own = own_folder(study_folder) / f"{preset_id}.json"
            # A prompt alone is half of a copy: the program's preset in its place would hide that.
            if os.path.lexists(own) or os.path.lexists(own.with_suffix(".md")):
                return own
        if (path := programs_folder() / f"{preset_id}.json").exists():
            return path
    known = ", ".join(preset_ids(study_folder))
    raise UserError(f"There is no explanation preset {preset_id!r}; choose one of: {known}.")


def load_preset(preset_id: str = GENERIC, study_folder: Path | None = None) -> Preset:
    """Return a preset: the study's own where it has one of this id, else the program's.

    Asked for every image, so a preset is read again only when one of its files has changed.

    Raises
    ------
    UserError
        If there is no such preset, or its file is no preset; the sentence names the file, the line and the reason.
    """
    return read_preset(preset_path(preset_id, study_folder))


def read_preset(path: Path) -> Preset:
    """Read a preset from its JSON file, wherever that lies, and the prompt beside it.

    Raises
    ------
    UserError
        If it is no preset; the sentence names the file, the line and the reason.
    """
    if not is_preset_id(path.stem):
        raise UserError(
            f"{path}: a preset's file name should be lower-case letters, digits, - and _, 60 at most; rename it."
        )
    return _read_preset(path, _stamp(path), _stamp(path.with_suffix(".md")))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with a file: its time, its size, and which file it is, as one may take another's place."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@functools.lru_cache(maxsize=64)
def _read_preset(path: Path, *stamps: tuple[int, int, int] | None) -> Preset:
    # Errors are not kept: a file that is mended is read at once.
    # Installers may link the program's own files; a link in a study could send any file to a server as the prompt.
    links = path.parent == programs_folder()
    return parse_preset(read_text(path, links=links), read_text(path.with_suffix(".md"), links=links), path)


def copy_preset(preset_id: str, study_folder: Path, new_id: str | None = None) -> Path:
    """Copy the preset that counts into a study, to be changed there, and return its JSON file.

    Under its own id the copy counts in place of the program's.

    Raises
    ------
    UserError
        If there is no such preset, it is none, the new id is no safe file name or taken, or the study cannot be
        written.
    """
    source = preset_path(preset_id, study_folder)
    read_preset(source)
    name = new_id or preset_id
    if not is_preset_id(name):
        raise UserError(
            f"{name!r} cannot be a preset's id: use lower-case letters, digits, - and _, 60 at most."
        )
    target = own_folder(study_folder) / f"{name}.json"
    for path in (target, target.with_suffix(".md")):
        if os.path.lexists(path):
            raise UserError(f"{path} exists already; change it, or choose another id for the copy.")
    for suffix in (".md", ".json"):
        with explained_os_errors(target):
            data = source.with_suffix(suffix).read_bytes()
            write_bytes_atomic(target.with_suffix(suffix), data, within=study_folder)
    return target


def parse_preset(text: str, prompt: str, path: Path) -> Preset:
    """Read a preset from the texts of its two files; `path` names them in errors.

    Raises
    ------
    UserError
        If it is no preset; the sentence names the file, the line and the reason.
    """
    values = check_preset(text, path, _base())
    check_prompt(prompt, path.with_suffix(".md"), lists_words=not values.get("model_knows_words", False))
    left_out = values.get("leave_out", [])
    attributes = [one for one in published_attributes() if one.name not in left_out]
    # Before confidence and remarks, which close an explanation.
    added = [_attribute(name, given) for name, given in values.get("attributes", {}).items()]
    attributes[-2:-2] = added
    sha256 = hashlib.sha256(f"{text}\0{prompt}".encode()).hexdigest()
    return Preset(path.stem, values["title"], tuple(attributes), prompt, sha256)


@functools.cache
def _base() -> Base:
    phrases = {}
    for one in published_attributes():
        words = [word for word in one.words if word not in OPEN_WORDS]
        numbers = ["{}"] if one.kind in ("percent", "millimetres") else []
        phrases[one.name] = [
            one.phrases.get(word) or one.phrase.replace("{}", word)
            for word in (*words, *numbers)
            if one.phrase is not None
        ]
    return Base(phrases, ALWAYS, OPEN_WORDS)


def _attribute(name: str, given: dict[str, Any]) -> Attribute:
    kind: Kind = given.get("kind", "words")
    return Attribute(
        name,
        given["description"],
        kind,
        () if kind == "text" else (*given.get("words", ()), *OPEN_WORDS),
        given.get("phrase"),
        given.get("phrases", {}),
        SCALE if kind == "millimetres" else given.get("when"),
    )
