"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is being worked on)."""


def no_progress(done: int, total: int, label: str) -> None:
    """Report to nobody."""
