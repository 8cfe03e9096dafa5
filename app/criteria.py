"""What a list of images is narrowed to: words, fields like ``split:test``, and chosen values. Nothing of Qt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gaze_capture.recording import Presence
from segmentation.gaze_index import LookQuality
from segmentation.records import StudyImage

FIELDS = ("split", "presence", "quality")
"""What values can be chosen of, in this order."""
NONE_SAID = ""
"""The value of images nothing is known of."""


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

    @property
    def text(self) -> str:
        """The state in full."""
        parts = [f"{self.state} {self.count}".rstrip(), self.detail]
        if self.slices:
            parts.insert(0, f"{len(self.slices)} slices")
        return " · ".join(part for part in parts if part)


_SEARCHED = {"split", "group", "patient", "id", "name", "volume", "state", "presence", "gaze"}
_FIELD = re.compile(r'(\w+):(?:"([^"]*)"?|(\S*))')


def value_of(row: Row, field: str) -> str:
    """Return a row's value of one of the fields; ``""`` where it has none."""
    if field == "split":
        return row.image.split
    if field == "presence":
        return row.presence or NONE_SAID
    return row.quality or NONE_SAID


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
    }
    return values[field].casefold()


def text_of(row: Row) -> str:
    """Return what words are looked for in: name, id, group, volume and split."""
    image = row.image
    return "\n".join((row.name, image.id, image.group, image.volume, image.split)).casefold()


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

        def take(match: re.Match[str]) -> str:
            name, value = match[1].casefold(), (match[2] or match[3] or "").casefold()
            if name not in _SEARCHED:
                return match[0]
            if value:
                fields.append((name, value))
            return " "

        words = _FIELD.sub(take, self.text).casefold().split()
        found: list[int] = list(range(len(rows)))
        for word in words:
            found = [number for number in found if word in texts[number]]
        for name, value in fields:
            values = {number: _searched_value(rows[number], name) for number in found}
            # A whole name means that one alone: patient-7 is not patient-70.
            whole = [number for number in found if values[number] == value]
            found = whole or [number for number in found if value in values[number]]
        if self.state is not None:
            found = [number for number in found if rows[number].state == self.state]
        for field, wanted in self.chosen:
            found = [number for number in found if value_of(rows[number], field) in wanted]
        return found
