"""How layers are drawn: a colour, a line style and a pattern each, and the strokes that make them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QBrush, QColor, QFont, QImage, QPainter, QPainterPath, QPen, QPixmap

from app.overlay import Surface
from app.scene import (
    TOLERANCE_PX,
    Floats,
    LayerName,
    Marks,
    Outline,
    cividis_rgba,
    inferno_rgba,
    viridis_rgba,
)
from app.strokes import (
    MARGIN_PX,
    dashed_path,
    filled_path,
    polygons_path,
    runs_path,
    stroke,
    stroke_halo,
)

RADIUS_AT_250_MS = 8.0
Place = Callable[[float, float], QPointF]
"""Maps an image position to the widget."""
RegionLook = Literal["contour", "fill", "both"]
"""How a region is drawn."""
LOOKS: tuple[RegionLook, ...] = ("contour", "both", "fill")
REGIONS: tuple[LayerName, ...] = (
    "levels", "student", "teacher", "disagreement", "reviewed", "truth", "annotators",
)  # fmt: skip
"""Layers that are regions, and so may be outlined or filled."""
LOOK_AT_FIRST: dict[LayerName, RegionLook] = {"student": "both", "disagreement": "both", "annotators": "both"}
"""The others are contours."""
DRAWING_ORDER: tuple[LayerName, ...] = (
    "annotators", "disagreement", "levels", "truth", "teacher", "student", "reviewed",
)  # fmt: skip
TINT, TINT_ALONE, PATTERN = 0.18, 0.3, 0.6
"""Opacity of a region's tint with a line around it and without, and of the pattern that tells it from others."""


@dataclass(frozen=True)
class Style:
    """How a layer is drawn: never by colour alone."""

    colour: str
    width: float = 2.0
    dashes: tuple[float, ...] = ()
    """Lengths of dash and gap in units of the pen's width; empty is solid."""
    pattern: Qt.BrushStyle = Qt.BrushStyle.NoBrush
    """What a filled region is strewn with, besides its tint."""
    halo: float = 0.67
    """Darkness of the edge under the line, 0..1; less where there is a line on either side of a sliver."""


STYLES: dict[LayerName, Style] = {
    "heatmap": Style("#F98E09"),
    "fixations": Style("#FFFFFF", 1.5),
    "scanpath": Style("#FFFFFF", 1.0),
    "levels": Style("#009E73", 1.5, pattern=Qt.BrushStyle.Dense7Pattern),
    "student": Style("#56B4E9", 2.0),
    "teacher": Style("#E69F00", 2.0, (6, 2.5, 1.5, 2.5), Qt.BrushStyle.FDiagPattern),
    "disagreement": Style("#CC79A7", 1.0, pattern=Qt.BrushStyle.BDiagPattern, halo=0.2),
    "reviewed": Style("#FFFFFF", 2.0, pattern=Qt.BrushStyle.VerPattern),
    "truth": Style("#F0E442", 2.0, (1.2, 2.2), Qt.BrushStyle.HorPattern),
    "words": Style("#35B779"),
    "doubt": Style("#CBBA69"),
    "annotators": Style("#D55E00", 1.0, pattern=Qt.BrushStyle.DiagCrossPattern, halo=0.2),
}
LOWER_LEVEL_DASHES = (5.0, 3.0)
NAME_WIDTH = 140
"""Longer names of other targets are cut."""
DEFAULT_OPACITY: dict[LayerName, float] = {"heatmap": 0.4, "scanpath": 0.8, "words": 0.6, "doubt": 0.6}
HIDDEN_AT_FIRST: frozenset[LayerName] = frozenset(
    {"scanpath", "teacher", "disagreement", "truth", "words", "doubt", "annotators"}
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
MAPS: tuple[Ramp, ...] = ("heatmap", "words", "doubt")
"""In the order they are drawn in."""


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


@dataclass(frozen=True)
class Lines:
    """Lines in image pixels as they are drawn at a scale; in a part of the view only what reaches into it counts."""

    points: list[Floats]
    """(K, 2) each, x, y."""
    path: QPainterPath
    """Along all of them."""
    corners: Floats
    """(lines, 2, 2): the least and the most x, y of each."""
    closed: bool = True

    def near(self, surface: Surface) -> list[Floats]:
        """Return the lines that reach into a surface, in the widget's units."""
        scale, corner = surface.view.scale, (surface.view.x, surface.view.y)
        area = surface.area.adjusted(-MARGIN_PX, -MARGIN_PX, MARGIN_PX, MARGIN_PX)
        low, high = np.moveaxis((self.corners + 0.5) * scale + corner, 1, 0)
        reach = (low <= (area.right(), area.bottom())) & (high >= (area.left(), area.top()))
        found = np.flatnonzero(reach.all(axis=1)).tolist()
        return [(self.points[index] + 0.5) * scale + corner for index in found]

    def along(self, surface: Surface) -> QPainterPath:
        """Return the path to be stroked."""
        if surface.whole:
            return surface.view.to_widget().map(self.path)
        return runs_path(self.near(surface), surface.area, closed=self.closed)

    def inside(self, surface: Surface) -> QPainterPath:
        """Return the path to be filled."""
        if surface.whole:
            return surface.view.to_widget().map(self.path)
        return filled_path(self.near(surface), surface.area)


def lines_of(points: Sequence[Floats], *, closed: bool = True) -> Lines:
    """Return lines (K, 2) in image pixels, ready to be drawn."""
    corners = [(one.min(axis=0), one.max(axis=0)) for one in points]
    path = polygons_path(points, closed=closed)
    return Lines(list(points), path, np.array(corners, np.float64).reshape(-1, 2, 2), closed)


class Shape:
    """An outline, with as many points as can be told apart on the screen."""

    def __init__(self, found: Outline) -> None:
        self._found = found
        self._kept: dict[int, Lines] = {}

    def at(self, scale: float) -> Lines:
        """Return its lines for `scale` pixels of the screen per image pixel."""
        coarser = max(0, math.floor(math.log2(1 / scale)) + 1) if scale < 1 else 0
        if coarser not in self._kept:
            contours = list(self._found.contours)
            if coarser:
                tolerance = TOLERANCE_PX * 2**coarser
                contours = [
                    cv2.approxPolyDP(one.astype(np.float32), tolerance, True)
                    .reshape(-1, 2)
                    .astype(np.float64)
                    for one in contours
                ]
            self._kept[coarser] = lines_of(contours)
        return self._kept[coarser]


def fill_brushes(style: Style, look: RegionLook) -> list[QBrush]:
    """Return what a region is filled with, one over the other."""
    tint = QColor(style.colour)
    tint.setAlphaF(TINT if look == "both" else TINT_ALONE)
    brushes = [QBrush(tint)]
    if style.pattern != Qt.BrushStyle.NoBrush:
        colour = QColor(style.colour)
        colour.setAlphaF(PATTERN)
        brushes.append(QBrush(colour, style.pattern))
    return brushes


def draw_region(
    surface: Surface, name: LayerName, shapes: list[Shape], look: RegionLook, opacity: float
) -> None:
    """Draw a layer of outlines: tint, pattern, line and its dark halo."""
    style, painter = STYLES[name], surface.painter
    painter.setOpacity(opacity)
    for index, shape in enumerate(shapes):
        lines = shape.at(surface.scale)
        if look != "contour":
            area = lines.inside(surface)
            for brush in fill_brushes(style, look):
                painter.fillPath(area, brush)
        if look != "fill":
            lower = name == "levels" and index > 0
            line = Style(style.colour, style.width, LOWER_LEVEL_DASHES) if lower else style
            draw_lines(surface, line, lines)


def draw_lines(surface: Surface, style: Style, lines: Lines) -> None:
    """Draw lines over a halo that is solid under dashes, too."""
    path = lines.along(surface)
    width = style.width * surface.ratio
    darkness = min(style.halo, 0.43) if style.dashes else style.halo
    stroke_halo(surface.painter, path, width, surface.ratio, darkness)
    if style.dashes:
        pattern = [part * style.width for part in style.dashes]
        path = dashed_path(lines.near(surface), surface.area, pattern, closed=lines.closed)
    stroke(surface.painter, path, QColor(style.colour), width, surface.ratio)


def draw_other_target(surface: Surface, shape: Shape, colour: str, name: str) -> None:
    """Draw the thin outline of a target that is not the current one, its name beside it."""
    lines = shape.at(surface.scale)
    painter = surface.painter
    painter.setOpacity(1)
    draw_lines(surface, Style(colour, 1.2), lines)
    area = surface.view.to_widget().mapRect(lines.path.boundingRect())
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


def draw_scanpath(surface: Surface, marks: Marks, opacity: float) -> None:
    """Draw the lines from fixation to fixation."""
    if len(marks.xy_px):
        surface.painter.setOpacity(opacity)
        draw_lines(surface, STYLES["scanpath"], lines_of([marks.xy_px], closed=False))


def draw_marks(painter: QPainter, marks: Marks, place: Place, area: QRectF) -> None:
    """Draw the fixations that reach into an area as circles."""
    style = STYLES["fixations"]
    found = []
    for xy, duration in zip(marks.xy_px, marks.duration_ms, strict=True):
        centre, radius = place(*xy), mark_radius(duration)
        if area.intersects(square(centre, radius + 3)):
            found.append((centre, radius))
    painter.setBrush(QColor(255, 255, 255, 46))
    for halo in (True, False):
        painter.setPen(pen_of(style, halo=halo))
        if not halo:
            painter.setBrush(Qt.BrushStyle.NoBrush)
        for centre, radius in found:
            painter.drawEllipse(centre, radius, radius)


def draw_cross(painter: QPainter, centre: QPointF) -> None:
    """Draw a small open cross: where the pointer is on the canvas beside."""
    for colour, width in ((QColor(0, 0, 0, 190), 3.5), (QColor("#FFFFFF"), 1.5)):
        painter.setPen(QPen(colour, width))
        for right, down in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            step = QPointF(right, down)
            painter.drawLine(centre + step * 4, centre + step * 11)


def path_of(found: Outline) -> QPainterPath:
    """Return an outline as a path in image pixels."""
    return polygons_path(found.contours)


def square(centre: QPointF, half: float) -> QRectF:
    """Return the square around a point."""
    return QRectF(centre.x() - half, centre.y() - half, 2 * half, 2 * half)
