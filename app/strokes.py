"""Lines of layers, put together of hair lines side by side: many times quicker than a painter strokes a wide one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPainterPath, QPen, QPolygonF

Points = npt.NDArray[np.float64]
"""(K, 2) x, y in the painter's units."""

MARGIN_PX = 12.0
"""What lies so far outside an area is not drawn: half the width of the widest line, and some more."""
DIRECTIONS = 8


def visible_runs(points: Points, area: QRectF, closed: bool) -> Iterator[tuple[Points, float]]:
    """Yield the pieces of a line that run through an area, each with how far along the line it begins."""
    whole = np.concatenate([points, points[:1]]) if closed else points
    if len(whole) < 2:
        return
    low, high = np.minimum(whole[:-1], whole[1:]), np.maximum(whole[:-1], whole[1:])
    least = (area.left() - MARGIN_PX, area.top() - MARGIN_PX)
    most = (area.right() + MARGIN_PX, area.bottom() + MARGIN_PX)
    inside = ((high >= least) & (low <= most)).all(axis=1)
    if not inside.any():
        return
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(whole, axis=0).T))])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]])))
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        yield whole[begin : end + 1], float(along[begin])


def dashed(points: Points, begun: float, pattern: Sequence[float]) -> Points:
    """Cut a line into dashes: (D, 2, 2), the two ends of each straight piece.

    Parameters
    ----------
    points : (K, 2)
    begun : how far along the whole line it begins, so that dashes stand still while the picture moves
    pattern : lengths of dash, gap, dash, gap ...
    """
    period = float(sum(pattern))
    along = begun + np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    marks = np.concatenate([[0.0], np.cumsum(pattern)])[:-1]
    first, last = int(along[0] // period), int(along[-1] // period)
    cuts = (np.arange(first, last + 1)[:, np.newaxis] * period + marks).ravel()
    cuts = cuts[(cuts > along[0]) & (cuts < along[-1])]
    places = np.unique(np.concatenate([along, cuts]))
    middles = (places[:-1] + places[1:]) / 2 % period
    drawn = np.searchsorted(np.cumsum(pattern), middles, side="right") % 2 == 0
    xy = np.stack([np.interp(places, along, points[:, axis]) for axis in (0, 1)], axis=1)
    pieces: Points = np.stack([xy[:-1][drawn], xy[1:][drawn]], axis=1)
    return pieces


def dashed_path(
    lines: Sequence[Points], area: QRectF, pattern: Sequence[float], *, closed: bool
) -> QPainterPath:
    """Return the dashes of lines that lie in an area."""
    path = QPainterPath()
    for line in lines:
        for run, begun in visible_runs(line, area, closed):
            for start, end in dashed(run, begun, pattern).tolist():
                path.moveTo(*start)
                path.lineTo(*end)
    return path


def runs_path(lines: Sequence[Points], area: QRectF, *, closed: bool) -> QPainterPath:
    """Return what of lines lies in an area."""
    return polygons_path([run for line in lines for run, _ in visible_runs(line, area, closed)], closed=False)


def polygons_path(lines: Sequence[Points], *, closed: bool = True) -> QPainterPath:
    """Return a path along lines; its inside is where an odd number of them lies around."""
    path = QPainterPath()
    path.setFillRule(Qt.FillRule.OddEvenFill)
    for line in lines:
        path.addPolygon(QPolygonF([QPointF(x, y) for x, y in line.tolist()]))
        if closed:
            path.closeSubpath()
    return path


def filled_path(lines: Sequence[Points], area: QRectF) -> QPainterPath:
    """Return closed lines to be filled in an area: what they do beyond it is straightened."""
    return polygons_path([_straightened(line, area) for line in lines])


def _straightened(points: Points, area: QRectF) -> Points:
    low = (area.left() - MARGIN_PX, area.top() - MARGIN_PX)
    high = (area.right() + MARGIN_PX, area.bottom() + MARGIN_PX)
    for axis in (0, 1):
        for sign, limit in ((-1.0, -low[axis]), (1.0, high[axis])):
            # A point between two others beyond the same side: nothing it does reaches the area.
            beyond = points[:, axis] * sign > limit
            points = points[~(beyond & np.roll(beyond, 1) & np.roll(beyond, -1))]
    return points


def _ring(radius: float, count: int) -> list[QPointF]:
    turns = (2 * math.pi * step / count for step in range(count))
    return [QPointF(math.cos(turn) * radius, math.sin(turn) * radius) for turn in turns]


def stroke(painter: QPainter, path: QPainterPath, colour: QColor, width_px: float, ratio: float) -> None:
    """Draw a line along a path.

    Parameters
    ----------
    width_px : in pixels of the screen
    ratio : pixels of the screen per unit of the painter
    """
    pen = QPen(colour, 1)
    pen.setCosmetic(True)
    radius = (width_px - 1) / 2
    places = [QPointF()] if radius < 0.2 else _ring(radius / ratio, 4 if radius < 1 else DIRECTIONS)
    for place in places:
        painter.translate(place)
        painter.strokePath(path, pen)
        painter.translate(-place)


def stroke_halo(
    painter: QPainter, path: QPainterPath, width_px: float, ratio: float, darkness: float
) -> None:
    """Draw a dark edge on both sides of a line of a width; `darkness` is 0..1."""
    # Three hair lines or so lie over each other at any place.
    share = 1 - (1 - darkness) ** (1 / 2.4)
    pen = QPen(QColor.fromRgbF(0, 0, 0, share), 1, Qt.PenStyle.SolidLine)
    pen.setCosmetic(True)
    for place in _ring((width_px + ratio) / 2 / ratio, DIRECTIONS):
        painter.translate(place)
        painter.strokePath(path, pen)
        painter.translate(-place)
