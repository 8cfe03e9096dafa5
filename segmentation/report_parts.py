"""What the HTML reports are built of: one page, tables, grades."""

from __future__ import annotations

import datetime
import importlib.metadata
import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · Gaze Insight {kind}</title>
<style>
{style}
</style>
</head>
<body>
<header><div>
<p class="kicker">Gaze Insight {kind}</p>
<h1>{title}</h1>
<p class="muted">{subtitle}</p>
<div>{badges}</div>
</div></header>
<main>
{sections}
</main>
<footer><div>
<strong>Research use only. Not a medical device.</strong> Nothing in this report may guide the care of a patient.<br>
Written by Gaze Insight {version} on {written}.
</div></footer>
</body>
</html>
"""


def whole_page(title: str, subtitle: str, badges: str, sections: Iterable[str], kind: str = "report") -> str:
    """Return a self-contained page; everything but the title is HTML already."""
    return _PAGE.format(
        title=escape(title),
        kind=escape(kind),
        style=resources.files("resources").joinpath("report.css").read_text(encoding="utf-8"),
        badges=badges,
        subtitle=subtitle,
        sections="\n".join(sections),
        version=escape(importlib.metadata.version("gaze-insight")),
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )


def graded(value: float, good: float, fair: float, text: str) -> str:
    """Colour a value by the limits of a good and a fair sitting, with a word for those who do not see colour."""
    if not math.isfinite(value):
        return "–"
    grade = "good" if value <= good else "fair" if value <= fair else "poor"
    return f'<span class="state {grade}" title="{grade}">{text}</span>'


def row(*cells: str, text: Sequence[int] = ()) -> str:
    """Make a row of cells that are HTML already; columns in `text` are set left."""
    marked = (
        f'<td class="text">{cell}</td>' if index in text else f"<td>{cell}</td>"
        for index, cell in enumerate(cells)
    )
    return f"<tr>{''.join(marked)}</tr>"


def table(head: Iterable[str], rows: Iterable[str], text: Sequence[int] = ()) -> str:
    """Make a table of rows that :func:`row` made."""
    cells = "".join(
        f'<th class="text">{escape(name)}</th>' if index in text else f"<th>{escape(name)}</th>"
        for index, name in enumerate(head)
    )
    return f'<div class="panel"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
