"""Numbers in words for people."""

from __future__ import annotations


def duration_text(seconds: float) -> str:
    """Return a duration for people: `40 s`, `4 min`, `2 h 5 min`."""
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
