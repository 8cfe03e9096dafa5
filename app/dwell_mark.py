"""A mark in the corner of the image's display: resting gaze on it leads to the next image, without a hand."""

from __future__ import annotations

import math
import time

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QWidget

from app import theme
from app.canvas import Canvas
from app.stage import Stage

SIZE = 56
EDGE = 18
REACH = 1.6
"""Gaze as far from the middle as so many radii counts: trackers are not exact."""
ARM_S = 1.0
"""It takes gaze only after the image has been shown for so long: the eyes come from it, after the last image."""
INK = "#AEB6BE"


class DwellMark(QWidget):
    """Fills while gaze rests on it."""

    def __init__(self, canvas: Canvas, dwell_s: float) -> None:
        super().__init__(canvas)
        self._canvas = canvas
        self._dwell_s = dwell_s
        self._since: float | None = None
        self._armed_s = time.monotonic() + ARM_S
        self._left = True
        """Gaze must have been elsewhere since the last time it was full."""
        self._share = 0.0
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAccessibleName(self.tr("Rest your gaze here to go on"))
        self.resize(SIZE, SIZE)
        self.show()

    def sizeHint(self) -> QSize:
        """Ask for its own size."""
        return QSize(SIZE, SIZE)

    def restart(self) -> None:
        """Begin anew, with another image."""
        self._since, self._share, self._left = None, 0.0, False
        self._armed_s = time.monotonic() + ARM_S
        self.update()

    def follow(self, gaze: QPointF | None) -> bool:
        """Take where gaze lies on the canvas; return whether it has rested here for long enough."""
        corner = QPointF(self._canvas.width() - SIZE - EDGE, self._canvas.height() - SIZE - EDGE)
        self.move(corner.toPoint())
        now = time.monotonic()
        middle = corner + QPointF(SIZE / 2, SIZE / 2)
        here = gaze is not None and math.hypot(*(gaze - middle).toTuple()) <= REACH * SIZE / 2
        if not here:
            self._left, self._since = True, None
        elif self._left and now >= self._armed_s and self._since is None:
            self._since = now
        share = 0.0 if self._since is None else min(1.0, (now - self._since) / self._dwell_s)
        if share != self._share:
            self._share = share
            self.update()
        return share >= 1.0

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw a ring that fills, and an arrow."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(4, 4, SIZE - 8, SIZE - 8)
        painter.setBrush(QColor(20, 23, 26, 170))
        painter.setPen(QPen(QColor(INK), 1.5))
        painter.drawEllipse(area)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        pen = QPen(QColor(theme.current().accent), 4)
        pen.setCapStyle(Qt.PenCapStyle.FlatCap)
        painter.setPen(pen)
        painter.drawArc(area, 90 * 16, -round(self._share * 360 * 16))
        painter.setPen(QPen(QColor(INK), 2))
        x, y = SIZE / 2, SIZE / 2
        painter.drawPolyline([QPointF(x - 4, y - 8), QPointF(x + 4, y), QPointF(x - 4, y + 8)])
        painter.end()


class DwellGuide:
    """Leads on by gaze where a sitting is held so: it keeps the mark on the display that the participant looks at."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.mark: DwellMark | None = None
        # The mark goes before its canvas, which goes with the display.
        stage.closing.connect(self.take_away)

    def begin_look(self, dwell_s: float | None) -> None:
        """Have the mark begin anew; None: a sitting without one."""
        if dwell_s is not None and self.mark is None:
            self.mark = DwellMark(self._stage.seen, dwell_s)
        if self.mark is not None:
            self.mark.restart()

    def rested(self, gaze: tuple[float, float] | None) -> bool:
        """Take where gaze lies, in pixels of the image shown; return whether it has rested on the mark."""
        if self.mark is None:
            return False
        return self.mark.follow(None if gaze is None else self._stage.seen.widget_from_image(*gaze))

    def take_away(self) -> None:
        """Remove the mark."""
        mark, self.mark = self.mark, None
        if mark is not None:
            mark.hide()
            mark.deleteLater()
