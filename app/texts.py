"""Numbers in words for people."""

from __future__ import annotations

import datetime


def duration_text(seconds: float) -> str:
    """Return a duration for people: `40 s`, `4 min`, `2 h 5 min`."""
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def short_name(name: str) -> str:
    """Return the day and time of a run's or recording's id, as in `21 Nov 10:15`; any other id as it is.

    Ids are stamped in UTC; told is the time in this computer's zone, as `when_text` tells it.
    """
    stamp, _, tail = name.removeprefix("run-").removeprefix("rec-").rpartition("-")
    try:
        then = datetime.datetime.strptime(stamp, "%Y%m%d-%H%M%S")
    except ValueError:
        return name
    there = then.replace(tzinfo=datetime.timezone.utc).astimezone()
    return f"{there.day} {there:%b %H:%M}" if tail else name


def when_text(seconds: float) -> str:
    """Return a time (seconds since the epoch) in this computer's zone: `26 Nov 13:43`, `26 Nov 2025` in other years."""
    then = datetime.datetime.fromtimestamp(seconds)
    day = f"{then.day} {then:%b}"
    return f"{day} {then:%H:%M}" if then.year == datetime.datetime.now().year else f"{day} {then.year}"


def for_menu(text: str) -> str:
    """Return a text as menus and buttons have to be given it, or an ampersand would underline what follows."""
    return text.replace("&", "&&")
