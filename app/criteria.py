"""What a list of images is narrowed to: words, fields like ``split:test``, and chosen values. Nothing of Qt."""

from __future__ import annotations

import functools
import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gaze_capture.recording import Presence
from segmentation.gaze_index import LookQuality
from segmentation.records import StudyImage

WHY = "why"
"""The field of what speaks against a mask: the names of the parts of its doubt that are reasons."""
EDIT = "edit"
"""The field of edits that were left as drafts."""
UNFINISHED = "unfinished"
FIELDS = ("split", "presence", "quality", WHY, EDIT)
"""What values can be chosen of, in this order."""
NONE_SAID = ""
"""The value of images nothing is known of."""


SAID = "said:"
"""Begins the field of a description's attribute, as in ``said:boundary``."""
DESCRIPTION = "description"
"""The field of who described an image and what became of it: a backend's name, and `STATES`."""
REMARKS = "remarks"
MOST_WORDS = 40
"""An attribute with more different words than this is free text, and no choice."""
STATES = ("edited", "approved", "contradiction")


@dataclass(frozen=True)
class Described:
    """What a description says, as far as images are looked for by it."""

    by: str
    """The backend's name."""
    model: str = ""
    values: tuple[tuple[str, Any], ...] = ()
    """Attributes with their values, in order."""
    text: str = ""
    edited: bool = False
    approved: bool = False
    contradicted: bool = False
    """Whether a claim contradicts what is measured."""

    @functools.cached_property
    def states(self) -> frozenset[str]:
        """Those of STATES that hold."""
        held = (self.edited, self.approved, self.contradicted)
        return frozenset(state for state, on in zip(STATES, held, strict=True) if on)

    @functools.cached_property
    def words(self) -> dict[str, str]:
        """Attributes that are a word or a text, casefolded."""
        return {name: value.casefold() for name, value in self.values if isinstance(value, str) and value}

    @functools.cached_property
    def numbers(self) -> dict[str, float]:
        """Attributes that are a number."""
        return {name: float(value) for name, value in self.values if isinstance(value, (int, float))}


@dataclass(frozen=True)
class Row:
    """One image, or one volume, as listed."""

    image_id: str
    """Of a volume, the slice that is shown first."""
    name: str
    image: StudyImage
    state: str
    """A word of the page's own, shown; the filter offers each."""
    token: str
    """The theme's colour of the state's dot."""
    detail: str = ""
    presence: Presence | None = None
    """The latest word on the target."""
    quality: LookQuality | None = None
    """What its gaze is worth; None without gaze."""
    slices: tuple[str, ...] = ()
    """Ids of a volume's slices in order."""
    count: str = ""
    """How many of a volume's slices are in the state, as in ``7/24``."""
    described: tuple[Described, ...] = ()
    """What its description says; of a volume, those of its slices."""
    state_name: str = ""
    """The state as it is called in code, whatever the window's language."""
    doubt: float | None = None
    """How far its mask is to be doubted, 0..1; of a volume, the most doubtful of its slices."""
    reasons: tuple[str, ...] = ()
    """Why, in words."""
    why: frozenset[str] = frozenset()
    """Names of the parts of that doubt that are reasons."""
    unfinished: bool = False
    """Whether an edit of it was left as a draft; of a volume, of any of its slices."""


_HAS = {"contradiction": "contradiction", "contradictions": "contradiction", "edits": "edited", "edit": "edited",
        "edited": "edited", "approval": "approved", "approved": "approved"}  # fmt: skip
_COMPARISON = re.compile(r"(\w+)(>=|<=|>|<)(\d+(?:[.,]\d+)?)%?(?!\S)")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le,
}  # fmt: skip
_SPELLED = {"color": "colour", "color_contrast": "colour_contrast", "brightness": "intensity"}
_SEARCHED = {"split", "group", "patient", "id", "name", "volume", "state", "presence", "gaze", "reason"}
_FIELD = re.compile(r'(\w+):(?:"([^"]*)"?|(\S*))')


def value_of(row: Row, field: str) -> str:
    """Return a row's value of one of the fields; ``""`` where it has none."""
    if field == "split":
        return row.image.split
    if field == "presence":
        return row.presence or NONE_SAID
    if field == EDIT:
        return UNFINISHED if row.unfinished else NONE_SAID
    return row.quality or NONE_SAID


def doubts_of(row: Row) -> frozenset[str]:
    """Return what speaks against a row's mask; NONE_SAID where nothing does."""
    return row.why or frozenset({NONE_SAID})


def values_of(row: Row, field: str) -> frozenset[str]:
    """Return all values of a field; several where a description has several states, none where nothing is said."""
    if field == WHY:
        return doubts_of(row)
    if field == DESCRIPTION:
        found = {state for one in row.described for state in one.states}
        return frozenset(found | {one.by for one in row.described}) or frozenset({NONE_SAID})
    if field.startswith(SAID):
        name = field.removeprefix(SAID)
        return frozenset(one.words[name] for one in row.described if name in one.words)
    return frozenset({value_of(row, field)})


def counts_of(rows: Sequence[Row]) -> dict[str, Counter[str]]:
    """Return how many rows have each value of every field that values can be chosen of.

    Attributes of descriptions are among them where they are words that occur, free texts are not.
    """
    counts = {field: Counter(value for row in rows for value in values_of(row, field)) for field in FIELDS}
    if not any(row.described for row in rows):
        return counts
    counts[DESCRIPTION] = Counter(value for row in rows for value in values_of(row, DESCRIPTION))
    names = dict.fromkeys(
        name for row in rows for one in row.described for name in one.words if name != REMARKS
    )
    for name in names:
        found = Counter(value for row in rows for value in values_of(row, SAID + name))
        if len(found) <= MOST_WORDS:
            counts[SAID + name] = found
    return counts


def _says(row: Row, name: str, value: str, *, whole: bool) -> bool:
    """Whether a description of the row says a value of an attribute; ``by`` and ``has`` are of the description."""
    for one in row.described:
        if name == "by":
            found = value in (one.by, one.model.casefold()) or (not whole and value in one.model.casefold())
            found = found or (value == "vlm" and one.by not in ("measured", "annotator"))
        elif name == "has":
            found = value == "description" or _HAS.get(value) in one.states
        else:
            words = one.words.get(name, "")
            number = one.numbers.get(name)
            found = words == value if whole else value in words
            found = found or (number is not None and value.rstrip("%") == f"{number:g}")
        if found:
            return True
    return False


def _compares(row: Row, name: str, sign: str, number: float) -> bool:
    """Whether the doubt, or a number of a description, compares so.

    An attribute may be named by its beginning (``area``).
    """
    if name == "doubt":
        # Of 1, or in percent.
        limit = number / 100 if number > 1 else number
        return row.doubt is not None and _COMPARE[sign](row.doubt, limit)
    return any(
        _COMPARE[sign](value, number)
        for one in row.described
        for attribute, value in one.numbers.items()
        if attribute == name or attribute.startswith(name + "_")
    )


def _searched_value(row: Row, field: str) -> str:
    image = row.image
    values = {
        "split": image.split,
        "group": image.group,
        "patient": image.group,
        "id": image.id,
        "name": row.name,
        "volume": image.volume,
        "state": row.state,
        "presence": row.presence or "",
        "gaze": row.quality or "",
        "reason": "\n".join((*row.reasons, *sorted(row.why))),
    }
    if field == "state" and row.state_name:
        return f"{row.state}\n{row.state_name}".casefold()
    return values[field].casefold()


def text_of(row: Row) -> str:
    """Return what words are looked for in: name, id, group, volume and split, reasons, and what descriptions say."""
    image = row.image
    said = [
        part for one in row.described for part in (one.text, *(() if not one.states else sorted(one.states)))
    ]
    return "\n".join(
        (row.name, image.id, image.group, image.volume, image.split, *row.reasons, *said)
    ).casefold()


def _said_names(rows: Sequence[Row]) -> frozenset[str]:
    """Return the names that a description can be asked by: of attributes that occur, ``by`` and ``has``."""
    return frozenset(
        {"by", "has"}.union(*(one.words.keys() | one.numbers.keys() for row in rows for one in row.described))
    )


@dataclass(frozen=True)
class Criteria:
    """Rows pass that fulfil all of it."""

    text: str = ""
    state: str | None = None
    chosen: tuple[tuple[str, frozenset[str]], ...] = ()
    """(field, values of which a row must have one)"""

    def passing(self, rows: Sequence[Row], texts: Sequence[str]) -> list[int]:
        """Return the numbers of the rows that pass; `texts` holds :func:`text_of` each."""
        fields: list[tuple[str, str]] = []
        compared: list[tuple[str, str, float]] = []
        said = _said_names(rows) if ":" in self.text else frozenset()

        def take(match: re.Match[str]) -> str:
            name, value = match[1].casefold(), (match[2] or match[3] or "").casefold()
            name = _SPELLED.get(name, name)
            if name not in _SEARCHED and name not in said:
                return match[0]
            if value:
                fields.append((name, value))
            return " "

        def take_comparison(match: re.Match[str]) -> str:
            name = match[1].casefold()
            compared.append((_SPELLED.get(name, name), match[2], float(match[3].replace(",", "."))))
            return " "

        words = _COMPARISON.sub(take_comparison, _FIELD.sub(take, self.text)).casefold().split()
        found: list[int] = list(range(len(rows)))
        for word in words:
            found = [number for number in found if word in texts[number]]
        for name, value in fields:
            if name in _SEARCHED:
                values = {number: _searched_value(rows[number], name) for number in found}
                # A whole name means that one alone: patient-7 is not patient-70.
                whole = [number for number in found if value in values[number].split("\n")]
                found = whole or [number for number in found if value in values[number]]
            else:
                whole = [number for number in found if _says(rows[number], name, value, whole=True)]
                found = whole or [n for n in found if _says(rows[n], name, value, whole=False)]
        for name, sign, limit in compared:
            found = [number for number in found if _compares(rows[number], name, sign, limit)]
        if self.state is not None:
            found = [number for number in found if rows[number].state == self.state]
        for field, wanted in self.chosen:
            found = [number for number in found if values_of(rows[number], field) & wanted]
        return found
