"""Checks a preset's two files: what is wrong is said with the file, the line and the reason.

Presets are written by hand, by researchers who may never have edited JSON before; a slip that were only found by a
model's strange answers would cost a day.
"""

from __future__ import annotations

import json
import re
import stat
import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors
from segmentation.spelling import spelled

FORMAT = 1
"""Version of the preset file."""
PLACEHOLDERS = ("modality", "target", "gaze", "outline", "vocabulary")
"""What a prompt may have filled in; it must have the vocabulary."""

MAX_BYTES = 256 * 1024
"""Of either file."""
MAX_ATTRIBUTES = 40
"""Including the published ones that are not left out."""
MAX_WORDS = 64
"""Of one attribute, without the open words."""
_KINDS = ("words", "percent", "millimetres", "text")
_KEYS = ("format", "title", "leave_out", "attributes", "model_knows_words")
_ATTRIBUTE_KEYS = ("description", "kind", "words", "phrase", "phrases", "when")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
_DEVICES = re.compile(r"con|prn|aux|nul|com\d|lpt\d")
"""What Windows keeps for devices, whatever the ending."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')

Place = tuple[str | int, ...]
"""Where in a JSON document: keys and indices from its top."""


@dataclass(frozen=True)
class Base:
    """What every preset starts from, to check a preset's own attributes against."""

    phrases: Mapping[str, Collection[str]]
    """What each published attribute can say to the teacher, by its name."""
    always: Collection[str]
    """Published attributes that cannot be left out."""
    open_words: Collection[str]
    """Words that every attribute has of itself."""


def is_preset_id(preset_id: str) -> bool:
    """Whether an id is a safe file name on every system: lower-case letters, digits, - and _."""
    return bool(_ID.fullmatch(preset_id)) and not _DEVICES.fullmatch(preset_id)


def read_text(path: Path, *, links: bool = False) -> str:
    """Read one of a preset's files; it may be a link only with `links`.

    Raises
    ------
    UserError
        If it is missing, no ordinary file, a link, too large, or not UTF-8.
    """
    with explained_os_errors(path):
        try:
            found = path.stat() if links else path.lstat()
        except FileNotFoundError:
            raise UserError(
                f"{path} is missing; a preset is a .json file and a prompt of the same name in .md."
            ) from None
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path} is a link or no ordinary file; put the preset's text there itself.")
        if found.st_size > MAX_BYTES:
            raise UserError(
                f"{path} is larger than {MAX_BYTES // 1024} KB, which no preset needs; it was not read."
            )
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: the text is not UTF-8; save it in that encoding.") from None
    # The same preset, checked out or edited on another system, is the same question.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_prompt(text: str, path: Path, *, lists_words: bool = True) -> None:
    """Check a prompt's placeholders.

    With `lists_words` the vocabulary has to be among them.

    Raises
    ------
    UserError
        If one is unknown, or the vocabulary is missing; the sentence names the file and the line.
    """
    known = ", ".join(f"${name}" for name in PLACEHOLDERS)
    used = set()
    for found in string.Template.pattern.finditer(text):
        name = found["named"] or found["braced"]
        if found["escaped"] is not None:
            continue
        if name not in PLACEHOLDERS:
            line = text.count("\n", 0, found.start()) + 1
            shown = f"${name}" if name else "a single $"
            raise UserError(
                f"{path}, line {line}: {shown} is no placeholder; there are {known}, and $$ stands for a $."
            )
        used.add(name)
    if lists_words and "vocabulary" not in used:
        last = text.count("\n") + 1
        raise UserError(
            f"{path}, line {last}: the prompt ends without $vocabulary, so no model would know what to answer; a "
            'preset for one that was trained to says "model_knows_words": true.'
        )


def check_preset(text: str, path: Path, base: Base) -> dict[str, Any]:
    """Check a preset's JSON, and return it.

    Raises
    ------
    UserError
        If it is no preset; the sentence names the file, the line and the reason.
    """
    return _Checker(path, base, *_parsed(text, path)).checked()


def _parsed(text: str, path: Path) -> tuple[Any, dict[Place, int]]:
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        # What is missing belongs to the end of the line before, where nothing but blanks follows.
        before = text[: error.pos].rstrip() if "delimiter" in error.msg else text[: error.pos]
        line = before.count("\n") + 1
        raise UserError(f"{path}, line {line}: this is no JSON ({error.msg}).") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, line 1: this is no JSON ({error}).") from None
    return values, _lines(text, path)


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no value")


def _lines(text: str, path: Path) -> dict[Place, int]:
    """Return the line of each value of a valid JSON text, that of its key in an object; refuse a key given twice."""
    lines: dict[Place, int] = {}
    open_at: list[Place] = []
    place: Place = ()
    line, seen_to, key = 1, 0, ""
    expects_key = False
    for token in _TOKEN.finditer(text):
        line += text.count("\n", seen_to, token.start())
        seen_to = token.start()
        sign = token[0]
        if sign in "}]":
            place = open_at.pop()
            continue
        if sign == ",":
            # Back to the object or array, and on to its next member.
            expects_key = isinstance(place[-1], str)
            if isinstance(place[-1], int):
                place = (*place[:-1], place[-1] + 1)
            continue
        if sign == ":":
            continue
        if expects_key:
            key = json.loads(sign)
            place = (*open_at[-1], key)
            if place in lines:
                raise UserError(f"{path}, line {line}: {key!r} was given before, in line {lines[place]}.")
            lines[place] = line
            expects_key = False
            continue
        lines.setdefault(place, line)
        if sign in "{[":
            open_at.append(place)
            expects_key = sign == "{"
            place = (*place, "" if expects_key else 0)
    return lines


@dataclass(frozen=True)
class _Checker:
    path: Path
    base: Base
    values: Any
    lines: Mapping[Place, int]
    said: dict[str, str] = field(default_factory=dict)
    """The attribute of each phrase."""

    def checked(self) -> dict[str, Any]:
        values = self.values
        if not isinstance(values, dict):
            self.refuse((), "a preset is one JSON object")
        version = values.get("format")
        if type(version) is not int or version < 1:
            self.refuse(("format",), f'a preset says "format": {FORMAT}')
        if version > FORMAT:
            self.refuse(("format",), "a newer Gaze Insight wrote this preset; update the program to read it")
        self.only_keys((), values, _KEYS)
        self.one_line(("title",), values.get("title"), "the title", 100)
        if type(values.get("model_knows_words", False)) is not bool:
            self.refuse(("model_knows_words",), "model_knows_words is true or false")
        left_out = self.left_out()
        attributes = values.get("attributes", {})
        if not isinstance(attributes, dict):
            self.refuse(("attributes",), "the attributes are an object: their names, and what each is")
        count = len(self.base.phrases) - len(left_out) + len(attributes)
        if count > MAX_ATTRIBUTES:
            self.refuse(
                ("attributes",),
                f"{count} attributes with the published ones are more than the {MAX_ATTRIBUTES} a model can follow",
            )
        for name, phrases in self.base.phrases.items():
            if name not in left_out:
                self.said.update(dict.fromkeys(phrases, name))
        names: dict[str, str] = {spelled(name): name for name in self.base.phrases}
        for name, given in attributes.items():
            self.name(name, names)
            self.attribute(name, given)
        return values

    def refuse(self, place: Place, reason: str) -> NoReturn:
        while place not in self.lines and place:
            place = place[:-1]
        raise UserError(f"{self.path}, line {self.lines.get(place, 1)}: {reason}.")

    def only_keys(self, place: Place, given: Mapping[str, Any], known: Collection[str]) -> None:
        for key in given:
            if key not in known:
                self.refuse((*place, key), f"{key!r} is unknown here; there are {', '.join(known)}")

    def one_line(self, place: Place, text: Any, what: str, longest: int) -> str:
        if not isinstance(text, str) or not text or text != text.strip() or not text.isprintable():
            self.refuse(place, f"{what} should be one line of plain text without blanks at its ends")
        if len(text) > longest:
            self.refuse(place, f"{what} has {len(text)} letters; {longest} are the most")
        return text

    def left_out(self) -> list[str]:
        given = self.values.get("leave_out", [])
        place: Place = ("leave_out",)
        if not isinstance(given, list):
            self.refuse(place, "leave_out is a list of published attributes")
        for index, name in enumerate(given):
            if not isinstance(name, str) or name not in self.base.phrases:
                known = ", ".join(one for one in self.base.phrases if one not in self.base.always)
                self.refuse((*place, index), f"{name!r} is no published attribute; {known} can be left out")
            if name in self.base.always:
                self.refuse((*place, index), f"{name!r} cannot be left out: every explanation has it")
            if name in given[:index]:
                self.refuse((*place, index), f"{name!r} is left out twice")
        return given

    def name(self, name: str, names: dict[str, str]) -> None:
        place: Place = ("attributes", name)
        if name in self.base.phrases:
            self.refuse(
                place,
                f"{name!r} is the name of a published attribute; leave that out, and choose another name",
            )
        if not _NAME.fullmatch(name):
            self.refuse(
                place,
                f"{name!r} should be lower-case letters, digits and _ after a first letter, 40 at most",
            )
        if (other := names.setdefault(spelled(name), name)) != name:
            self.refuse(place, f"{name!r} and {other!r} would be taken for the same")

    def attribute(self, name: str, given: Any) -> None:
        place: Place = ("attributes", name)
        if not isinstance(given, dict):
            self.refuse(place, f"{name!r} should be an object with a description and words")
        self.only_keys(place, given, _ATTRIBUTE_KEYS)
        self.one_line((*place, "description"), given.get("description"), f"the description of {name!r}", 500)
        kind = given.get("kind", "words")
        if kind not in _KINDS:
            self.refuse((*place, "kind"), f"the kind {kind!r} is unknown; there are {', '.join(_KINDS)}")
        if "when" in given:
            self.one_line((*place, "when"), given["when"], f"the condition of {name!r}", 40)
            if kind == "millimetres":
                self.refuse(
                    (*place, "when"),
                    "millimetres are asked where the image has a scale, and under no other condition",
                )
        if kind == "text":
            for key in ("words", "phrase", "phrases"):
                if key in given:
                    self.refuse(
                        (*place, key), f"free text has no {key}: the teacher reads a closed set of phrases"
                    )
            return
        self.words(place, name, kind, given)
        self.phrases(place, name, kind, given)

    def words(self, place: Place, name: str, kind: str, given: Mapping[str, Any]) -> None:
        place = (*place, "words")
        words = given.get("words", [])
        if not isinstance(words, list) or (kind == "words" and not words):
            self.refuse(place, f"{name!r} needs a list of words to choose from")
        if len(words) > MAX_WORDS:
            self.refuse(place, f"{name!r} has {len(words)} words; {MAX_WORDS} are the most")
        known = {spelled(word): word for word in self.base.open_words}
        for index, word in enumerate(words):
            self.one_line((*place, index), word, f"a word of {name!r}", 80)
            if word in self.base.open_words:
                self.refuse((*place, index), f"{word!r} may be said of every attribute and is not listed")
            if (other := known.setdefault(spelled(word), word)) != word or word in words[:index]:
                self.refuse((*place, index), f"{word!r} and {other!r} would be taken for the same word")

    def phrases(self, place: Place, name: str, kind: str, given: Mapping[str, Any]) -> None:
        words = given.get("words", [])
        special = given.get("phrases", {})
        if "phrase" not in given:
            if "phrases" in given:
                self.refuse(
                    (*place, "phrases"), f"{name!r} has phrases of single words but no phrase for the others"
                )
            return
        phrase = self.one_line((*place, "phrase"), given["phrase"], f"the phrase of {name!r}", 120)
        if phrase.count("{}") != 1 or re.search(r"[{}]", phrase.replace("{}", "", 1)):
            self.refuse((*place, "phrase"), "a phrase has {} once, where the word goes, and no other braces")
        if not isinstance(special, dict):
            self.refuse(
                (*place, "phrases"), "phrases is an object: words, and what the teacher reads for each"
            )
        for word, text in special.items():
            here = (*place, "phrases", word)
            if word not in words:
                self.refuse(here, f"{word!r} is none of the words of {name!r} that something is said of")
            self.one_line(here, text, f"the phrase of {word!r}", 120)
            if re.search(r"[{}]", text):
                self.refuse(here, f"the phrase of {word!r} has braces; it is read as it stands")
        # A number is spoken of in steps; two attributes with one template would be read alike.
        said_of = [*words, *(["{}"] if kind in ("percent", "millimetres") else [])]
        for index, word in enumerate(said_of):
            said = special.get(word, phrase.replace("{}", word))
            if (other := self.said.get(said)) is not None:
                here = (
                    ("phrases", word)
                    if word in special
                    else ("words", index)
                    if index < len(words)
                    else ("phrase",)
                )
                self.refuse((*place, *here), f"the teacher would read {said!r} twice, here and for {other!r}")
            self.said[said] = name
