"""Drawing gaze on an image: circles, lines, numbers and a caption, as pixels or as SVG, from one plan."""

from __future__ import annotations

import base64
import html
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.recording import Floats

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
DARK: Colour = (0, 0, 0)
SURROUND: Colour = (0x20, 0x20, 0x20)
STRIP: Colour = (0x14, 0x17, 0x1A)
TEXT: Colour = (0xE8, 0xEB, 0xEE)
MUTED: Colour = (0xA0, 0xAA, 0xB4)
WARNING: Colour = (0xE0, 0xA0, 0x30)

LINE_OPACITY = 0.8
HALO_OPACITY = 0.6
FILL_OPACITY = 0.16
RADIUS_MS = 250.0
"""A fixation this long has the plan's `radius_px`; areas go with durations."""
NARROWEST_PX = 380
"""A caption needs this much width, whatever the image's."""
LONGEST_CIRCLE_MS = 4000.0
"""Longer fixations get no larger circle; it would hide the image."""
_MANY = 25
"""Fixations, from which on they are drawn smaller."""
FONT = "sans"
NUMBER_WEIGHT, NAME_WEIGHT, CAPTION_WEIGHT = 600, 600, 400
_SHIFT = 4
"""Bits of a pixel that shapes are placed to."""
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class Words:
    """A piece of a caption that is not broken."""

    text: str
    style: Literal["name", "plain", "warning"] = "plain"


@dataclass(frozen=True)
class Label:
    """A fixation's number, by the middle of its text."""

    text: str
    x: float
    y: float
    on_white: bool
    """Whether it stands in the filled first circle."""


@dataclass(frozen=True)
class Plan:
    """What is drawn, in pixels of the picture; pixel 0 reaches from 0 to 1."""

    base: Pixels
    """(H, W, 3) the image as it is shown."""
    heat: npt.NDArray[np.float32] | None
    """(H, W) 0..1, or None."""
    saccades: Floats
    """(S, 2, 2) from and to, from the edge of one circle to that of the next; none between two looks."""
    circles: Floats
    """(F, 3) x, y, radius."""
    labels: tuple[Label, ...]
    radius_px: float
    font_px: float
    caption: tuple[tuple[Words, ...], ...]
    """Lines."""
    caption_px: float

    @property
    def line_px(self) -> float:
        """Width of lines."""
        return max(1.25, self.radius_px * 0.1)

    @property
    def width(self) -> int:
        """Width of the whole picture."""
        return max(int(self.base.shape[1]), NARROWEST_PX)

    @property
    def left(self) -> int:
        """Where the image begins in the picture."""
        return (self.width - int(self.base.shape[1])) // 2

    @property
    def line_height(self) -> int:
        """Distance of the caption's lines."""
        return round(self.caption_px * 1.5)

    @property
    def margin(self) -> int:
        """Space around the caption."""
        return round(self.caption_px * 0.8)

    @property
    def height(self) -> int:
        """Height of the whole picture, caption included."""
        return int(self.base.shape[0]) + len(self.caption) * self.line_height + 2 * self.margin


def heat_colours(heat: npt.NDArray[np.float32]) -> Pixels:
    """Return a heatmap (H, W) in 0..1 as RGBA (H, W, 4), not premultiplied: inferno, its alpha following the value.

    The alpha rises steeply so that flanks are seen, but from zero on, or the map's end would be drawn as a contour.
    """
    ramp = np.arange(256, dtype=np.uint8)[:, np.newaxis]
    colours = cv2.applyColorMap(ramp, cv2.COLORMAP_INFERNO)[:, 0, ::-1]
    alpha = 255 * 0.95 * heat / (heat + _HALF_OPAQUE) * (1 + _HALF_OPAQUE)
    index = np.rint(heat * 255).astype(np.uint8)
    return np.concatenate([colours[index], np.rint(alpha).astype(np.uint8)[:, :, np.newaxis]], axis=2)


_HALF_OPAQUE = 0.22
"""Heat at which a heatmap is about half as opaque as at its peak."""


def plan(
    base: Pixels,
    looks: Sequence[tuple[Floats, Floats]],
    *,
    scanpath: bool,
    heat: npt.NDArray[np.float32] | None,
    caption: Sequence[Words],
) -> Plan:
    """Place everything.

    Parameters
    ----------
    base : (H, W, 3) the image, of the size that it is drawn at
    looks : positions (F, 2) in pixels of `base`, pixel 0 reaching from 0 to 1, and durations (F,) in ms
    caption : in order; the first is the name and has a line of its own
    """
    height, width = base.shape[:2]
    shortest, longest = sorted((height, width))
    # In proportion to the area; on long strips, to what is seen of them when they are shown whole.
    radius = max(0.02 * math.sqrt(width * height), min(0.011 * longest, 0.08 * shortest))
    # Many are drawn smaller, as they would hide each other and the image.
    radius *= float(np.clip(math.sqrt(_MANY / max(sum(len(xy) for xy, _ in looks), 1)), 0.6, 1.0))
    radius = float(np.clip(radius, 5.0, 0.14 * shortest + 3.0))
    font = max(11.0, 0.85 * radius)
    caption_px = float(np.clip(math.sqrt(width * height) / 48, 13.0, 36.0))
    saccades: list[Floats] = []
    circles = np.empty((0, 3))
    if scanpath and looks:
        xy = np.concatenate([xy for xy, _ in looks])
        duration = np.clip(np.concatenate([duration for _, duration in looks]), 0, LONGEST_CIRCLE_MS)
        circles = np.column_stack([xy, radius * np.sqrt(duration / RADIUS_MS)])
        ends = np.cumsum([len(xy) for xy, _ in looks])
        saccades = [_between(circles[start:end]) for start, end in itertools.pairwise([0, *ends.tolist()])]
    lines = _wrapped(caption, max(width, NARROWEST_PX) - 2 * round(caption_px * 0.8), caption_px)
    labels = _labels(circles, font, (height, width))
    moves = np.concatenate([np.empty((0, 2, 2)), *saccades])
    return Plan(base, heat, moves, circles, labels, radius, font, lines, caption_px)


def _between(circles: Floats) -> Floats:
    """Return the lines (S, 2, 2) from the edge of each circle to that of the next; a number is not struck through."""
    start, end = circles[:-1], circles[1:]
    way = end[:, :2] - start[:, :2]
    length = np.hypot(way[:, 0], way[:, 1])
    apart = length > start[:, 2] + end[:, 2]
    start, end, unit = start[apart], end[apart], way[apart] / length[apart, np.newaxis]
    return np.stack([start[:, :2] + unit * start[:, 2:], end[:, :2] - unit * end[:, 2:]], axis=1)


def _labels(circles: Floats, font_px: float, shape: tuple[int, int]) -> tuple[Label, ...]:
    """Put each number in its circle, or beside it where that is too small or another number stands there."""
    placed: list[tuple[float, float, float, float]] = []
    labels = []
    height, width = shape
    tall = 0.74 * font_px
    for number, (x, y, radius) in enumerate(circles.tolist(), start=1):
        text = str(number)
        wide = 0.6 * font_px * len(text)
        if not (-radius <= x <= width + radius and -radius <= y <= height + radius):
            continue
        fits = math.hypot(wide, tall) <= 2.1 * radius
        aside = [
            (
                x + (radius + 0.35 * font_px + wide / 2) * math.cos(angle),
                y + (radius + 0.35 * font_px + tall / 2) * math.sin(angle),
            )
            for angle in np.radians([-45, 45, -135, 135, -90, 0, 90, 180]).tolist()
        ]
        places = [(x, y), *aside] if fits else aside
        costs = [_cost(place, (wide, tall), placed, shape) for place in places]
        best = int(np.argmin(costs))
        at = places[best]
        placed.append((*at, wide, tall))
        labels.append(Label(text, *at, on_white=number == 1 and fits and best == 0))
    return tuple(labels)


def _cost(
    place: tuple[float, float],
    size: tuple[float, float],
    placed: Sequence[tuple[float, float, float, float]],
    shape: tuple[int, int],
) -> float:
    """Return how much a text (by its middle) covers others, and lies outside the image."""
    (x, y), (wide, tall) = place, size
    covered = 0.0
    for other_x, other_y, other_wide, other_tall in placed:
        across = (wide + other_wide) / 2 + 1 - abs(x - other_x)
        down = (tall + other_tall) / 2 + 1 - abs(y - other_y)
        if across > 0 and down > 0:
            covered += across * down
    outside = max(0.0, wide / 2 - x, x + wide / 2 - shape[1], tall / 2 - y, y + tall / 2 - shape[0])
    return covered + 2 * outside * tall


def _wrapped(caption: Sequence[Words], width: float, size_px: float) -> tuple[tuple[Words, ...], ...]:
    """Break a caption into lines that fit; the first words have a line of their own, cut where too long."""
    face = cv2.FontFace(FONT)
    lines: list[list[Words]] = []
    for number, words in enumerate(caption):
        words = _cut(words, width, size_px, face)
        if number < 2:
            lines.append([words])
            continue
        parts = [*lines[-1], words]
        used = sum(_text_width(part, size_px, face) + _GAP * size_px for part in parts)
        if used > 0.94 * width:
            lines.append([words])
        else:
            lines[-1].append(words)
    return tuple(tuple(line) for line in lines)


_GAP = 1.5
"""Space between a caption's words, dot included, in font sizes."""


def _cut(words: Words, width: float, size_px: float, face: cv2.FontFace) -> Words:
    """Shorten words in their middle: names differ at their ends."""
    text, keep = words.text, len(words.text)
    while keep > 4 and _text_width(words, size_px, face) > 0.94 * width:
        keep -= 1
        words = Words(f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}", words.style)
    return words


def _text_width(words: Words, size_px: float, face: cv2.FontFace) -> int:
    _, weight = _style_of(words)
    _, _, width, _ = cv2.getTextSize((1 << 14, 64), words.text, (0, 0), face, round(size_px), weight)
    return int(width)


# Pixels


def draw_pixels(plan: Plan) -> Pixels:
    """Draw a plan as an RGB picture (H, W, 3)."""
    height, width = plan.base.shape[:2]
    image = plan.base.copy()
    face = cv2.FontFace(FONT)
    if plan.heat is not None:
        coloured = heat_colours(plan.heat)
        alpha = coloured[:, :, 3:].astype(np.float32) / 255
        image = np.rint(image * (1 - alpha) + coloured[:, :, :3] * alpha).astype(np.uint8)
    line = plan.line_px
    lines = np.zeros((height, width), dtype=np.uint8)
    halos = np.zeros_like(lines)
    moves = [_fixed(move) for move in plan.saccades]
    cv2.polylines(halos, moves, False, 255, round(line + 2), cv2.LINE_AA, _SHIFT)
    cv2.polylines(lines, moves, False, 255, max(1, round(line)), cv2.LINE_AA, _SHIFT)
    _blend(image, halos, DARK, HALO_OPACITY * LINE_OPACITY)
    _blend(image, lines, WHITE, LINE_OPACITY)
    fills, rings, ring_halos = np.zeros_like(lines), np.zeros_like(lines), np.zeros_like(lines)
    for x, y, radius in plan.circles.tolist():
        centre = tuple(_fixed(np.array([[x, y]]))[0, 0].tolist())
        size = round(radius * (1 << _SHIFT))
        cv2.circle(fills, centre, size, 255, -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(ring_halos, centre, size, 255, round(line * 1.2 + 2), cv2.LINE_AA, _SHIFT)
        cv2.circle(rings, centre, size, 255, max(1, round(line * 1.2)), cv2.LINE_AA, _SHIFT)
    _blend(image, fills, WHITE, FILL_OPACITY)
    _blend(image, ring_halos, DARK, HALO_OPACITY)
    _blend(image, rings, WHITE, 1.0)
    if any(label.on_white for label in plan.labels):
        first = np.zeros_like(lines)
        x, y, radius = plan.circles[0].tolist()
        centre = tuple(_fixed(np.array([[x, y]]))[0, 0].tolist())
        cv2.circle(first, centre, round(radius * (1 << _SHIFT)), 255, -1, cv2.LINE_AA, _SHIFT)
        _blend(image, first, WHITE, 1.0)
    numbers = np.zeros_like(image)
    dark_numbers = np.zeros_like(image)
    for label in plan.labels:
        _put_number(dark_numbers if label.on_white else numbers, label, plan.font_px, face)
    reach = 2 * max(1, round(plan.font_px / 11)) + 1
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    around = cv2.dilate(numbers[:, :, 0], near)
    _blend(image, around.astype(np.uint8, copy=False), DARK, 0.85)
    _blend(image, numbers[:, :, 0], WHITE, 1.0)
    _blend(image, dark_numbers[:, :, 0], STRIP, 1.0)
    picture = np.empty((plan.height, plan.width, 3), dtype=np.uint8)
    picture[:height] = SURROUND
    picture[height:] = STRIP
    picture[:height, plan.left : plan.left + width] = image
    for place, words in _caption_places(plan, face):
        colour, weight = _style_of(words)
        cv2.putText(picture, words.text, place, colour, face, round(plan.caption_px), weight)
    return picture


def _fixed(points: Floats) -> npt.NDArray[np.int32]:
    """Return points (P, 1, 2) as OpenCV draws them: whole sixteenths, pixel centres at whole numbers."""
    return np.rint((points - 0.5) * (1 << _SHIFT)).astype(np.int32)[:, np.newaxis]


def _blend(image: Pixels, mask: Pixels, colour: Colour, opacity: float) -> None:
    x, y, width, height = cv2.boundingRect(mask)
    if not width:
        return
    part = np.s_[y : y + height, x : x + width]
    alpha = mask[part][:, :, np.newaxis].astype(np.float32) * (opacity / 255)
    mixed = image[part] * (1 - alpha) + np.asarray(colour, dtype=np.float32) * alpha
    image[part] = np.rint(mixed).astype(np.uint8)


def _put_number(layer: Pixels, label: Label, font_px: float, face: cv2.FontFace) -> None:
    size = round(font_px)
    x, _, width, _ = cv2.getTextSize((0, 0), label.text, (0, 0), face, size, NUMBER_WEIGHT)
    # The box of the digits alone: text is centred by what is seen of it.
    tall = round(0.72 * size)
    origin = (round(label.x - width / 2 - x), round(label.y + tall / 2))
    cv2.putText(layer, label.text, origin, WHITE, face, size, NUMBER_WEIGHT)


def _caption_places(plan: Plan, face: cv2.FontFace) -> list[tuple[tuple[int, int], Words]]:
    found = []
    gap = _GAP * plan.caption_px
    for number, line in enumerate(plan.caption):
        baseline = plan.base.shape[0] + plan.margin + round((number + 0.72) * plan.line_height)
        x = float(plan.margin)
        for index, words in enumerate(line):
            if index:
                found.append(((round(x + 0.36 * gap), baseline), Words("·")))
                x += gap
            found.append(((round(x), baseline), words))
            x += _text_width(words, plan.caption_px, face)
    return found


def _style_of(words: Words) -> tuple[Colour, int]:
    if words.style == "name":
        return TEXT, NAME_WEIGHT
    return (WARNING, NAME_WEIGHT) if words.style == "warning" else (MUTED, CAPTION_WEIGHT)


# SVG


def draw_svg(plan: Plan) -> str:
    """Draw a plan as an SVG document with the image in it; numbers and caption are text."""
    height, width = plan.base.shape[:2]
    line = plan.line_px
    parts = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{plan.width}" height="{plan.height}" '
        f'viewBox="0 0 {plan.width} {plan.height}" font-family="system-ui, sans-serif">',
        f"<title>{_xml(' '.join(words.text for row in plan.caption for words in row))}</title>",
        f'<g transform="translate({plan.left} 0)">',
        f'<image width="{width}" height="{height}" xlink:href="{_jpeg(plan.base)}"/>',
    ]
    if plan.heat is not None:
        parts.append(
            f'<image width="{width}" height="{height}" xlink:href="{_png(heat_colours(plan.heat))}"/>'
        )
    if len(plan.saccades):
        d = "".join(f"M{x0:.2f} {y0:.2f}L{x1:.2f} {y1:.2f}" for (x0, y0), (x1, y1) in plan.saccades.tolist())
        for colour, opacity, wide in (
            ("#000", HALO_OPACITY * LINE_OPACITY, line + 2),
            ("#fff", LINE_OPACITY, line),
        ):
            parts.append(
                f'<path d="{d}" stroke="{colour}" stroke-opacity="{opacity:.2f}" stroke-width="{wide:.2f}"/>'
            )
    first = any(label.on_white for label in plan.labels)
    for number, (x, y, radius) in enumerate(plan.circles.tolist()):
        place = f'cx="{x:.2f}" cy="{y:.2f}" r="{radius:.2f}"'
        opacity = 1 if first and number == 0 else FILL_OPACITY
        parts.append(
            f'<circle {place} fill="#fff" fill-opacity="{opacity}" stroke="#000" '
            f'stroke-opacity="{HALO_OPACITY}" stroke-width="{line * 1.2 + 2:.2f}"/>'
            f'<circle {place} fill="none" stroke="#fff" stroke-width="{line * 1.2:.2f}"/>'
        )
    for label in plan.labels:
        place = (
            f'x="{label.x:.2f}" y="{label.y + 0.36 * plan.font_px:.2f}" text-anchor="middle" '
            f'font-size="{plan.font_px:.1f}" font-weight="{NUMBER_WEIGHT}"'
        )
        if not label.on_white:
            # A text of its own: not every program draws a stroke below its fill.
            parts.append(
                f'<text {place} aria-hidden="true" stroke="#000" stroke-opacity="0.85" '
                f'stroke-width="{plan.font_px / 5:.2f}" stroke-linejoin="round">{label.text}</text>'
            )
        colour = _hex(STRIP if label.on_white else WHITE)
        parts.append(f'<text {place} fill="{colour}">{label.text}</text>')
    parts.append("</g>")
    # Drawn over it, instead of a clip that not every program knows: what lies outside the image is hidden.
    for x, wide in ((0, plan.left), (plan.left + width, plan.width - plan.left - width)):
        if wide:
            parts.append(f'<rect x="{x}" width="{wide}" height="{height}" fill="{_hex(SURROUND)}"/>')
    parts.append(
        f'<rect y="{height}" width="{plan.width}" height="{plan.height - height}" fill="{_hex(STRIP)}"/>'
    )
    for number, row in enumerate(plan.caption):
        baseline = height + plan.margin + round((number + 0.72) * plan.line_height)
        spans = f'<tspan fill="{_hex(MUTED)}">{_SVG_DOT}</tspan>'.join(map(_span, row))
        parts.append(
            f'<text x="{plan.margin}" y="{baseline}" font-size="{plan.caption_px:.1f}">{spans}</text>'
        )
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


_SVG_DOT = "\u00a0\u00a0·\u00a0\u00a0"
"""Spaces that no program takes away."""


def _span(words: Words) -> str:
    colour, weight = _style_of(words)
    return f'<tspan fill="{_hex(colour)}" font-weight="{weight}">{_xml(words.text)}</tspan>'


def _hex(colour: Colour) -> str:
    return "#{:02X}{:02X}{:02X}".format(*colour)


def _xml(text: str) -> str:
    # XML knows no control characters, and a file's name may hold some.
    return html.escape(re.sub(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "\ufffd", text))


def _jpeg(pixels: Pixels) -> str:
    ok, data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert ok, "JPEG holds every picture of this size"
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _png(rgba: Pixels) -> str:
    ok, data = cv2.imencode(".png", rgba[:, :, [2, 1, 0, 3]])
    assert ok, "PNG holds every picture"
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()
