"""How layers are drawn: a colour and a line style each, and the strokes that make them. Used by the canvas alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from PySide6.QtCore import QLineF, QPointF, QRectF, Qt
from PySide6.QtGui import QBrush, QColor, QFont, QImage, QPainter, QPainterPath, QPen, QPixmap, QPolygonF

from app.scene import LayerName, Marks, Outline, cividis_rgba, inferno_rgba, viridis_rgba

RADIUS_AT_250_MS = 8.0
Place = Callable[[float, float], QPointF]
"""Maps an image position to the widget."""


@dataclass(frozen=True)
class Style:
    """How a layer is drawn: never by colour alone."""

    colour: str
    width: float = 2.0
    dashes: tuple[float, ...] = ()
    """Lengths of dash and gap in units of the pen's width; empty is solid."""
    fill: float = 0.0
    """Opacity of the tint inside, 0..1."""


STYLES: dict[LayerName, Style] = {
    "heatmap": Style("#F98E09"),
    "fixations": Style("#FFFFFF", 1.5),
    "scanpath": Style("#FFFFFF", 1.0),
    "levels": Style("#009E73", 1.5),
    "student": Style("#56B4E9", 2.0, fill=0.18),
    "teacher": Style("#E69F00", 2.0, dashes=(6, 2.5, 1.5, 2.5)),
    "disagreement": Style("#CC79A7", 1.0),
    "reviewed": Style("#FFFFFF", 2.0),
    "truth": Style("#F0E442", 2.0, dashes=(1.2, 2.2)),
    "words": Style("#35B779"),
    "doubt": Style("#CBBA69"),
}
LOWER_LEVEL_DASHES = (5.0, 3.0)
NAME_WIDTH = 140
"""Longer names of other targets are cut."""
DEFAULT_OPACITY: dict[LayerName, float] = {"heatmap": 0.4, "scanpath": 0.8, "words": 0.6, "doubt": 0.6}
HIDDEN_AT_FIRST: frozenset[LayerName] = frozenset(
    {"scanpath", "teacher", "disagreement", "truth", "words", "doubt"}
)


def pen_of(style: Style, *, halo: bool = False) -> QPen:
    """Return a layer's pen, or the dark one that lies under it: solid also under dashes, and fainter there."""
    colour = QColor(0, 0, 0, 110 if style.dashes else 170) if halo else QColor(style.colour)
    pen = QPen(colour, style.width + (2.0 if halo else 0.0))
    pen.setCapStyle(Qt.PenCapStyle.FlatCap if style.dashes else Qt.PenCapStyle.RoundCap)
    pen.setJoinStyle(Qt.PenJoinStyle.BevelJoin)
    if style.dashes and not halo:
        pen.setDashPattern(list(style.dashes))
    return pen


Ramp = Literal["heatmap", "words", "doubt"]
"""A layer that is drawn as a map: each has colours of its own."""


@functools.cache
def _colours(ramp: Ramp) -> list[int]:
    rgba = {"heatmap": inferno_rgba, "words": viridis_rgba, "doubt": cividis_rgba}[ramp]()
    return [QColor(*one).rgba() for one in rgba.tolist()]


def pixmap_of(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], ramp: Ramp | None = None) -> QPixmap:
    """Turn pixels, RGB (H, W, 3) or grey (H, W), or a layer's map (H, W) with its `ramp`, into a pixmap."""
    height, width = pixels.shape[:2]
    coloured = pixels.ndim == 3
    form = (
        QImage.Format.Format_RGB888
        if coloured
        else QImage.Format.Format_Indexed8
        if ramp
        else QImage.Format.Format_Grayscale8
    )
    data = np.ascontiguousarray(pixels)
    image = QImage(data.data, width, height, width * (3 if coloured else 1), form)
    if ramp:
        image.setColorTable(_colours(ramp))
    # fromImage converts, and so copies: the pixmap does not lean on the array's memory.
    return QPixmap.fromImage(image)


def mark_radius(duration_ms: float) -> float:
    """Return a fixation's radius on the screen in logical pixels; the area follows the duration."""
    return RADIUS_AT_250_MS * float(np.sqrt(max(duration_ms, 15.0) / 250.0))


def draw_region(painter: QPainter, name: LayerName, paths: list[QPainterPath]) -> None:
    """Draw a layer of outlines: tint, hatch, line and its dark halo."""
    style = STYLES[name]
    for index, path in enumerate(paths):
        if name == "disagreement":
            painter.fillPath(path, QBrush(QColor(style.colour), Qt.BrushStyle.BDiagPattern))
        if style.fill:
            tint = QColor(style.colour)
            tint.setAlphaF(style.fill)
            painter.fillPath(path, tint)
        lower = name == "levels" and index > 0
        line = Style(style.colour, style.width, LOWER_LEVEL_DASHES) if lower else style
        painter.strokePath(path, pen_of(line, halo=True))
        painter.strokePath(path, pen_of(line))


def draw_other_target(painter: QPainter, path: QPainterPath, colour: str, name: str) -> None:
    """Draw the thin outline of a target that is not the current one, its name beside it."""
    style = Style(colour, 1.2)
    painter.strokePath(path, pen_of(style, halo=True))
    painter.strokePath(path, pen_of(style))
    area = path.boundingRect()
    if area.isEmpty() or not name:
        return
    font = QFont(painter.font())
    font.setPixelSize(11)
    painter.setFont(font)
    text = painter.fontMetrics().elidedText(name, Qt.TextElideMode.ElideMiddle, NAME_WIDTH)
    metrics = painter.fontMetrics()
    ground = QRectF(area.right() + 5, area.top(), metrics.horizontalAdvance(text) + 12, metrics.height() + 4)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(20, 23, 26, 210))
    painter.drawRoundedRect(ground, 4, 4)
    painter.setPen(QColor(colour))
    painter.drawText(ground, Qt.AlignmentFlag.AlignCenter, text)


def draw_scanpath(painter: QPainter, marks: Marks, place: Place) -> None:
    """Draw the lines from fixation to fixation."""
    points = [place(*xy) for xy in marks.xy_px]
    # Line by line: one stroke that crosses itself a hundred times takes the rasteriser ten times as long.
    lines = [QLineF(one, other) for one, other in pairwise(points)]
    for halo in (True, False):
        painter.setPen(pen_of(STYLES["scanpath"], halo=halo))
        painter.drawLines(lines)


def draw_marks(painter: QPainter, marks: Marks, place: Place) -> None:
    """Draw fixations as circles."""
    style = STYLES["fixations"]
    painter.setBrush(QColor(255, 255, 255, 46))
    for halo in (True, False):
        painter.setPen(pen_of(style, halo=halo))
        if not halo:
            painter.setBrush(Qt.BrushStyle.NoBrush)
        for xy, duration in zip(marks.xy_px, marks.duration_ms, strict=True):
            radius = mark_radius(duration)
            painter.drawEllipse(place(*xy), radius, radius)


def path_of(found: Outline) -> QPainterPath:
    """Return an outline as a path in image pixels."""
    path = QPainterPath()
    path.setFillRule(Qt.FillRule.OddEvenFill)
    for contour in found.contours:
        path.addPolygon(QPolygonF([QPointF(x, y) for x, y in contour.tolist()]))
        path.closeSubpath()
    return path


def square(centre: QPointF, half: float) -> QRectF:
    """Return the square around a point."""
    return QRectF(centre.x() - half, centre.y() - half, 2 * half, 2 * half)
