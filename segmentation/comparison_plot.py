"""The plot of a comparison: each variant's mean Dice with its interval, its seeds beside it, as an SVG by hand."""

from __future__ import annotations

import math
from html import escape

from segmentation.comparison_table import ComparisonTable

WIDTH, LEFT, RIGHT, TOP, ROW = 860, 320, 40, 66, 34
INK, MUTED, ACCENT = "#1f2933", "#7b8794", "#0b6e99"


def plot_svg(table: ComparisonTable) -> str:
    """Return a self-contained SVG; the label of simulated gaze stands in it."""
    rows = table.rows
    height = TOP + ROW * max(len(rows), 1) + 48
    values = [
        value
        for one in rows
        for value in (*one.intervals["dice"], *one.seed_means["dice"])
        if math.isfinite(value)
    ]
    low = math.floor(10 * min(values, default=0.0)) / 10
    high = math.ceil(10 * max(values, default=1.0)) / 10
    low, high = max(0.0, low), max(high, low + 0.1)

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    bottom = TOP + ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="13" role="img">',
        f"<title>{escape(table.caption)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" fill="{INK}" font-weight="bold">Dice on the split {escape(repr(table.split))}, '
        f"{table.images} images in {table.groups} groups</text>",
        f'<text x="12" y="42" fill="{MUTED}">Mean with 95 % interval over groups and seeds; '
        "small dots are seeds</text>",
    ]
    ticks = round((high - low) / 0.1)
    for index in range(ticks + 1):
        value = low + index * (high - low) / ticks
        parts.append(
            f'<line x1="{x(value):.1f}" y1="{TOP - 8}" x2="{x(value):.1f}" y2="{bottom}" stroke="#e4e7eb"/>'
            f'<text x="{x(value):.1f}" y="{bottom + 18}" fill="{MUTED}" text-anchor="middle">{value:.1f}</text>'
        )
    for number, one in enumerate(rows):
        y = TOP + ROW * number + ROW / 2 - 4
        interval = one.intervals["dice"]
        shown = one.variant if len(one.variant) <= 40 else one.variant[:39] + "…"
        parts.append(
            f'<text x="{LEFT - 14}" y="{y}" fill="{INK}" text-anchor="end">{escape(shown)}</text>'
            f'<text x="{LEFT - 14}" y="{y + 13}" fill="{MUTED}" font-size="10" text-anchor="end">'
            f"{escape(one.gaze)}</text>"
        )
        if math.isfinite(interval.low):
            parts.append(
                f'<line x1="{x(interval.low):.1f}" y1="{y}" x2="{x(interval.high):.1f}" y2="{y}" '
                f'stroke="{ACCENT}" stroke-width="2"/>'
            )
        for value in one.seed_means["dice"]:
            parts.append(f'<circle cx="{x(value):.1f}" cy="{y + 9}" r="2.5" fill="{MUTED}"/>')
        parts.append(f'<circle cx="{x(interval.mean):.1f}" cy="{y}" r="5" fill="{ACCENT}"/>')
        parts.append(
            f'<text x="{x(interval.mean):.1f}" y="{y - 8}" fill="{INK}" font-size="10" text-anchor="middle">'
            f"{interval.mean:.3f}</text>"
        )
    parts.append("</svg>\n")
    return "\n".join(parts)
