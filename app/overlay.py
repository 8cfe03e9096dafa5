"""What lies over an image, kept as a picture of the view: moving shifts it, and only the edge that appears is drawn.

While a hand zooms, the picture is stretched where drawing it anew takes longer than a frame may; the canvas asks for a
sharp one as soon as the hand rests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from PySide6.QtCore import QPoint, QRect, QRectF, QSize, QSizeF, Qt
from PySide6.QtGui import QImage, QPainter

from app.view_geometry import View

QUICK_MS = 5.0
"""An overlay drawn within this is drawn anew for every frame."""


@dataclass(frozen=True)
class Surface:
    """A part of the overlay to be drawn, by a painter in the widget's own units."""

    painter: QPainter
    view: View
    ratio: float
    """Pixels of the screen per logical pixel."""
    area: QRectF
    """The part of the widget."""

    @property
    def scale(self) -> float:
        """Pixels of the screen per image pixel."""
        return self.view.scale * self.ratio


class Overlay:
    """Keeps what `draw` draws; after `invalidate` it is asked again."""

    def __init__(self, draw: Callable[[Surface], None]) -> None:
        self._draw = draw
        self._image = QImage()
        self._view: View | None = None
        """What it was drawn for; None where something else is to be drawn now."""
        self._ratio = 1.0
        self._cost_ms = 0.0

    def invalidate(self) -> None:
        """Something else is to be drawn."""
        self._view = None

    def paint(self, painter: QPainter, view: View, size: QSize, ratio: float, *, hurried: bool) -> bool:
        """Draw it on a widget; returns whether it is sharp, or stretched because there was a hurry."""
        wide, high = math.ceil(size.width() * ratio), math.ceil(size.height() * ratio)
        before = self._view
        if before is None or self._image.size() != QSize(wide, high) or ratio != self._ratio:
            self._render(view, wide, high, ratio)
        elif view.scale != before.scale:
            if hurried and self._cost_ms > QUICK_MS:
                grown = view.scale / before.scale
                corner = view.origin - before.origin * grown
                painter.drawImage(QRectF(corner, QSizeF(wide, high) / ratio * grown), self._image)
                return False
            self._render(view, wide, high, ratio)
        elif view != before:
            self._shift(view, before)
        painter.drawImage(0, 0, self._image)
        return True

    def _render(self, view: View, wide: int, high: int, ratio: float) -> None:
        begun = time.perf_counter()
        self._renew(view, wide, high, ratio)
        self._draw_part(QRect(0, 0, wide, high))
        self._cost_ms = (time.perf_counter() - begun) * 1e3

    def _renew(self, view: View, wide: int, high: int, ratio: float) -> None:
        self._view, self._ratio = view, ratio
        self._image = QImage(wide, high, QImage.Format.Format_ARGB32_Premultiplied)
        self._image.fill(Qt.GlobalColor.transparent)

    def _shift(self, view: View, before: View) -> None:
        wide, high = self._image.width(), self._image.height()
        right, down = (view.x - before.x) * self._ratio, (view.y - before.y) * self._ratio
        dx, dy = round(right), round(down)
        if max(abs(dx - right), abs(dy - down)) > 0.01 or abs(dx) >= wide or abs(dy) >= high:
            self._render(view, wide, high, self._ratio)
            return
        old = self._image
        self._renew(view, wide, high, self._ratio)
        old.setDevicePixelRatio(1)
        painter = QPainter(self._image)
        painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_Source)
        painter.drawImage(QPoint(dx, dy), old)
        painter.end()
        if dy:
            self._draw_part(QRect(0, 0 if dy > 0 else high + dy, wide, abs(dy)))
        if dx:
            self._draw_part(QRect(0 if dx > 0 else wide + dx, max(dy, 0), abs(dx), high - abs(dy)))

    def _draw_part(self, part: QRect) -> None:
        assert self._view is not None
        ratio = self._ratio
        self._image.setDevicePixelRatio(ratio)
        area = QRectF(part.x() / ratio, part.y() / ratio, part.width() / ratio, part.height() / ratio)
        painter = QPainter(self._image)
        painter.setClipRect(area)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setBrushOrigin(self._view.origin)
        try:
            self._draw(Surface(painter, self._view, ratio, area))
        finally:
            painter.end()
