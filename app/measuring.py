"""Distances measured by dragging: in millimetres where the pixels' size is known, else in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

from PySide6.QtCore import QObject, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPen

from app import theme
from app.scene import Scene

Position = tuple[float, float]
"""x, y in image pixels."""
GRIP_PX = 9.0
"""An end can be taken hold of within this of it."""
SHORTEST_PX = 3.0
"""A shorter drag, on the screen, was a click."""


@dataclass(frozen=True)
class Measure:
    """A distance between two positions."""

    start: Position
    end: Position

    def length_px(self) -> float:
        """Return the distance in pixels."""
        return math.dist(self.start, self.end)

    def length_mm(self, spacing_mm: tuple[float, float]) -> float:
        """Return the distance, from the millimetres from row to row and from column to column."""
        right, down = self.end[0] - self.start[0], self.end[1] - self.start[1]
        return math.hypot(right * spacing_mm[1], down * spacing_mm[0])

    def text(self, spacing_mm: tuple[float, float] | None) -> str:
        """Return the distance for people."""
        if spacing_mm is None:
            return f"{self.length_px():.1f} px"
        length = self.length_mm(spacing_mm)
        return (
            f"{length * 1000:.1f} µm"
            if length < 0.1
            else f"{length:.1f} mm"
            if length >= 1
            else f"{length:.2f} mm"
        )


class Ground(Protocol):
    """What is measured on: the canvas."""

    @property
    def scene(self) -> Scene | None:
        """What is shown."""

    @property
    def zoom(self) -> float:
        """Logical pixels of the screen per image pixel."""

    def widget_from_image(self, x: float, y: float) -> QPointF:
        """Map an image position to the widget."""

    def image_from_widget(self, point: QPointF) -> Position:
        """Map a position in the widget to image pixels."""

    def set_window_mode(self, on: bool) -> None:
        """Have dragging change the window, or not."""

    def rest_cursor(self) -> None:
        """Show the cursor that says what dragging does."""

    def update(self) -> None:
        """Draw again."""

    def width(self) -> int:
        """Return the width in logical pixels."""

    def height(self) -> int:
        """Return the height in logical pixels."""


class Measures(QObject):
    """The distances measured in the image shown, and the hand that drags them."""

    changed = Signal()

    def __init__(self, canvas: Ground, parent: QObject) -> None:
        super().__init__(parent)
        self._canvas = canvas
        self._active = False
        self._measures: list[Measure] = []
        self._held: tuple[int, str] | None = None
        """Index of the measure that is dragged, and which end."""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Oldest first."""
        return tuple(self._measures)

    @property
    def active(self) -> bool:
        """Whether dragging measures."""
        return self._active

    @property
    def dragging(self) -> bool:
        """Whether the hand is at it."""
        return self._held is not None

    def set_active(self, on: bool) -> None:
        """Have dragging measure, or not; what was measured stays."""
        if on != self._active:
            self._active = on
            if on:
                self._canvas.set_window_mode(False)
            self._canvas.rest_cursor()
            self.changed.emit()

    def clear(self) -> None:
        """Forget all."""
        if self._measures:
            self._measures.clear()
            self._held = None
            self._tell()

    def escape(self) -> bool:
        """Clear what was measured, or else end measuring; returns whether there was anything to end."""
        if self._measures:
            self.clear()
            return True
        ended = self._active
        self.set_active(False)
        return ended

    # The hand

    def press(self, point: QPointF) -> None:
        """Take hold of an end that is near, or begin a new distance."""
        for index, measure in reversed(list(enumerate(self._measures))):
            for end in ("end", "start"):
                place = self._canvas.widget_from_image(*getattr(measure, end))
                if (place - point).manhattanLength() <= GRIP_PX:
                    self._held = index, end
                    return
        position = self._canvas.image_from_widget(point)
        self._measures.append(Measure(position, position))
        self._held = len(self._measures) - 1, "end"

    def drag(self, point: QPointF) -> None:
        """Move the end that is held."""
        if self._held is not None:
            index, end = self._held
            position = self._canvas.image_from_widget(point)
            self._measures[index] = replace(self._measures[index], **{end: position})
            self._tell()

    def release(self) -> None:
        """Let go; what is too short to be meant is forgotten."""
        if self._held is None:
            return
        index, _ = self._held
        self._held = None
        if self._measures[index].length_px() * self._canvas.zoom < SHORTEST_PX:
            del self._measures[index]
        self._tell()

    def _tell(self) -> None:
        self._canvas.update()
        self.changed.emit()

    # Drawing

    def draw(self, painter: QPainter) -> None:
        """Draw each with its ends and its length."""
        scene = self._canvas.scene
        if scene is None:
            return
        painter.setFont(theme.number_font(12))
        for measure in self._measures:
            start, end = (self._canvas.widget_from_image(*one) for one in (measure.start, measure.end))
            for colour, width in ((QColor(0, 0, 0, 190), 4.0), (QColor(theme.MARK), 1.5)):
                painter.setPen(QPen(colour, width, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
                painter.drawLine(start, end)
                painter.setBrush(Qt.BrushStyle.NoBrush)
                for place in (start, end):
                    painter.drawEllipse(place, 4, 4)
            self._label(painter, measure.text(scene.spacing_mm), start, end)

    def _label(self, painter: QPainter, text: str, start: QPointF, end: QPointF) -> None:
        metrics = painter.fontMetrics()
        width, height = metrics.horizontalAdvance(text) + 12, metrics.height() + 4
        # Beside the line's end, on the side away from the line, and never outside the canvas.
        left = end.x() + 10 if end.x() >= start.x() else end.x() - 10 - width
        top = end.y() - height / 2
        left = min(max(left, 4.0), self._canvas.width() - width - 4.0)
        top = min(max(top, 4.0), self._canvas.height() - height - 4.0)
        ground = QRectF(left, top, width, height)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(20, 23, 26, 220))
        painter.drawRoundedRect(ground, 4, 4)
        painter.setPen(QColor(theme.MARK))
        painter.drawText(ground, Qt.AlignmentFlag.AlignCenter, text)
