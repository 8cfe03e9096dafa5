"""What lies over an image, kept as a picture of the view: moving shifts it, and only the edge that appears is drawn.

While a hand zooms, the picture is stretched where drawing it anew takes longer than a frame may; the canvas asks for a
sharp one as soon as the hand rests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QRect, QRectF, QSize, QSizeF
from PySide6.QtGui import QImage, QPainter

from app.strokes import Pixels, Points
from app.view_geometry import View

QUICK_MS = 5.0
"""An overlay drawn within this is drawn anew for every frame."""


@dataclass(frozen=True)
class Surface:
    """A part of the overlay to be drawn: its pixels, and a painter that draws there in the widget's own units."""

    pixels: Pixels
    """(H, W, 4) blue, green, red, alpha, premultiplied."""
    painter: QPainter
    view: View
    ratio: float
    """Pixels of the screen per logical pixel."""
    area: QRectF
    """The part of the widget that `pixels` covers."""

    @property
    def scale(self) -> float:
        """Pixels of the screen per image pixel."""
        return self.view.scale * self.ratio

    def line(self, xy: npt.NDArray[np.float64]) -> Points:
        """Map image positions (K, 2) to `pixels`."""
        corner = (self.view.x - self.area.x(), self.view.y - self.area.y())
        points: Points = (xy + 0.5) * self.scale + np.array(corner) * self.ratio
        return points


class Overlay:
    """Keeps what `draw` draws; after `invalidate` it is asked again."""

    def __init__(self, draw: Callable[[Surface], None]) -> None:
        self._draw = draw
        self._pixels: Pixels = np.zeros((0, 0, 4), np.uint8)
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
        if before is None or self._pixels.shape[:2] != (high, wide) or ratio != self._ratio:
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
        self._renew(np.zeros((high, wide, 4), np.uint8), view, ratio)
        self._draw_part(QRect(0, 0, wide, high))
        self._cost_ms = (time.perf_counter() - begun) * 1e3

    def _renew(self, pixels: Pixels, view: View, ratio: float) -> None:
        high, wide = pixels.shape[:2]
        self._pixels, self._view, self._ratio = pixels, view, ratio
        form = QImage.Format.Format_ARGB32_Premultiplied
        # The image leans on the array's memory, which lives as long.
        self._image = QImage(pixels.data, wide, high, wide * 4, form)
        self._image.setDevicePixelRatio(ratio)

    def _shift(self, view: View, before: View) -> None:
        high, wide = self._pixels.shape[:2]
        right, down = (view.x - before.x) * self._ratio, (view.y - before.y) * self._ratio
        dx, dy = round(right), round(down)
        if max(abs(dx - right), abs(dy - down)) > 0.01 or abs(dx) >= wide or abs(dy) >= high:
            self._render(view, wide, high, self._ratio)
            return
        old, moved = self._pixels, np.zeros_like(self._pixels)
        rows, columns = slice(max(dy, 0), high + min(dy, 0)), slice(max(dx, 0), wide + min(dx, 0))
        moved[rows, columns] = old[
            max(-dy, 0) : high - max(dy, 0),
            max(-dx, 0) : wide - max(dx, 0),
        ]
        self._renew(moved, view, self._ratio)
        if dy:
            self._draw_part(QRect(0, 0 if dy > 0 else high + dy, wide, abs(dy)))
        if dx:
            self._draw_part(QRect(0 if dx > 0 else wide + dx, rows.start, abs(dx), rows.stop - rows.start))

    def _draw_part(self, part: QRect) -> None:
        assert self._view is not None
        left, top = part.x(), part.y()
        area = QRectF(
            left / self._ratio, top / self._ratio, part.width() / self._ratio, part.height() / self._ratio
        )
        painter = QPainter(self._image)
        painter.setClipRect(area)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setBrushOrigin(self._view.origin)
        pixels = self._pixels[top : top + part.height(), left : left + part.width()]
        try:
            self._draw(Surface(pixels, painter, self._view, self._ratio, area))
        finally:
            painter.end()
