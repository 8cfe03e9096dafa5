"""The chart of rounds as an SVG by hand: Dice against minutes of annotation, for the report and for a paper."""

from __future__ import annotations

import math
from html import escape

from segmentation.rounds import Round, Rounds

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 62, 30, 66, 66
INK, MUTED, GRID, ACCENT, HAND = "#1f2933", "#616e7c", "#e4e7eb", "#0b6e99", "#9a5b00"
STEPS = (1, 2, 5)


def ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Return round values from `low` to `high`, at most so many."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(
        (factor * power for factor in (*STEPS, 10) if (high - low) / (factor * power) <= most), 10 * power
    )
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def links(rounds: tuple[Round, ...]) -> list[tuple[Round, Round]]:
    """Return (earlier, later) of the rounds that went on from one another, both with minutes."""
    charted = {one.run: one for one in rounds if one.spent is not None}
    return [(charted[one.warm_start], one) for one in charted.values() if one.warm_start in charted]


def rounds_figure(rounds: Rounds) -> str:
    """Return a self-contained SVG; where the gaze is simulated, that stands in it.

    Rounds that went on from one another are joined. Runs that learned from true masks have no minutes and are not
    drawn; the dashed line is what outlining all gazed images by hand would take, where audits measured that.
    """
    charted = [one for one in rounds.rounds if one.spent is not None]
    minutes = [one.spent.minutes for one in charted if one.spent is not None]
    values = [
        value
        for one in charted
        for value in (one.dice.low, one.dice.mean, one.dice.high)
        if math.isfinite(value)
    ]
    hand = rounds.manual.minutes if rounds.manual is not None else None
    right = max([*minutes, *([hand] if hand is not None else []), 1.0]) * 1.06
    low = max(0.0, math.floor(20 * min(values, default=0.0)) / 20)
    high = min(1.0, max(math.ceil(20 * max(values, default=1.0)) / 20, low + 0.05))

    def x(value: float) -> float:
        return LEFT + value / right * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    title = f"Dice of the student on {rounds.reference.words}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}; gaze {escape(rounds.gaze)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="12" y="22" fill="{INK}" font-size="14" font-weight="bold">{escape(title)}</text>',
        f'<text x="12" y="42" fill="{MUTED}">Gaze: {escape(rounds.gaze)}. Mean with 95 % interval over groups; each '
        "point is a run</text>",
    ]
    for value in ticks(low, high):
        parts.append(
            f'<line x1="{LEFT}" y1="{y(value):.1f}" x2="{WIDTH - RIGHT}" y2="{y(value):.1f}" stroke="{GRID}"/>'
            f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" fill="{MUTED}" text-anchor="end">{value:.2f}</text>'
        )
    for value in ticks(0.0, right):
        parts.append(
            f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 18}" fill="{MUTED}" text-anchor="middle">{value:g}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - BOTTOM + 38}" fill="{INK}" text-anchor="middle">'
        "Minutes of annotation: looking, looking again, calibrating, reviewing</text>"
    )
    if rounds.manual is not None and hand is not None:
        parts.append(
            f'<line x1="{x(hand):.1f}" y1="{TOP - 6}" x2="{x(hand):.1f}" y2="{HEIGHT - BOTTOM}" stroke="{HAND}" '
            'stroke-width="1.5" stroke-dasharray="6 4"/>'
            f'<text x="{x(hand) - 6:.1f}" y="{TOP + 6}" fill="{HAND}" text-anchor="end">by hand: '
            f"{rounds.manual.seconds_each:.0f} s a mask, {rounds.manual.words}</text>"
        )
    for earlier, later in links(rounds.rounds):
        assert earlier.spent is not None and later.spent is not None
        parts.append(
            f'<line x1="{x(earlier.spent.minutes):.1f}" y1="{y(earlier.dice.mean):.1f}" '
            f'x2="{x(later.spent.minutes):.1f}" y2="{y(later.dice.mean):.1f}" stroke="{ACCENT}" stroke-width="1.5"/>'
        )
    for number, one in enumerate(charted, start=1):
        assert one.spent is not None
        place = x(one.spent.minutes)
        if math.isfinite(one.dice.low):
            parts.append(
                f'<line x1="{place:.1f}" y1="{y(one.dice.low):.1f}" x2="{place:.1f}" y2="{y(one.dice.high):.1f}" '
                f'stroke="{ACCENT}" stroke-width="2"/>'
            )
        told = f"{one.name or one.run}: {one.dice.mean:.3f} after {one.spent.minutes:.1f} min, {one.reviews} reviews"
        parts.append(
            f'<circle cx="{place:.1f}" cy="{y(one.dice.mean):.1f}" r="5" fill="{ACCENT}">'
            f"<title>{escape(told)}</title></circle>"
            f'<text x="{place + 8:.1f}" y="{y(one.dice.mean) - 7:.1f}" fill="{INK}">{number}</text>'
        )
    parts.append("</svg>\n")
    return "\n".join(parts)
