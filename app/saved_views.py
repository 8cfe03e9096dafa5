"""Named views of a list: what it is narrowed to and how it is ordered, kept in the user's settings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from PySide6.QtCore import QSettings

from app.criteria import Criteria

KEY = "review/views"
LONGEST_NAME = 60

Order = Literal["doubt", "imported"]
ORDERS: tuple[Order, ...] = get_args(Order)


@dataclass(frozen=True)
class View:
    """A name for criteria and an order; the state is called as in code, whatever the window's language."""

    name: str
    criteria: Criteria
    order: Order

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "name": self.name,
            "text": self.criteria.text,
            "state": self.criteria.state,
            "chosen": {field: sorted(values) for field, values in self.criteria.chosen},
            "order": self.order,
        }

    @classmethod
    def from_json(cls, values: Any) -> View:
        """Build a view from JSON; ValueError, KeyError, TypeError or AttributeError where it is none."""
        chosen = tuple((str(field), frozenset(map(str, found))) for field, found in values["chosen"].items())
        state = values["state"]
        if values["order"] not in ORDERS or not (state is None or isinstance(state, str)):
            raise ValueError("no order or state")
        return cls(str(values["name"]), Criteria(str(values["text"]), state, chosen), values["order"])


class SavedViews:
    """The views of this user, in the order they were saved; one of a name replaces the earlier one."""

    def __init__(self, settings: QSettings) -> None:
        self._settings = settings

    def all(self) -> list[View]:
        """Return them; what cannot be read is left out."""
        found = []
        try:
            stored = json.loads(str(self._settings.value(KEY, "[]")))
        except ValueError:
            return []
        for values in stored if isinstance(stored, list) else []:
            try:
                found.append(View.from_json(values))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        return found

    def save(self, view: View) -> None:
        """Keep a view."""
        self._store([*(one for one in self.all() if one.name != view.name), view])

    def delete(self, name: str) -> None:
        """Forget a view."""
        self._store([one for one in self.all() if one.name != name])

    def _store(self, views: list[View]) -> None:
        self._settings.setValue(KEY, json.dumps([view.to_json() for view in views]))
