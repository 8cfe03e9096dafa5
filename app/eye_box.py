"""Where the person's eyes are before the tracker, and which way to move."""

from __future__ import annotations

import math

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetrics, QPainter, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from app import theme
from gaze_capture.trackers.tracker import EyePositions, Millimetres

GOOD_MM = 50.0
"""So far from the distance that the geometry assumes, gaze in degrees stays right within 8 %."""
HALF_EYES_MM = 32.0
GAUGE_MM = 250.0
"""The gauge shows so far on either side."""
HALF_WIDTH_MM, HALF_HEIGHT_MM = 190.0, 130.0
"""How much of the space before the screen the box shows; trackers see about as much."""
ASIDE_MM = 80.0
"""So far from the screen's middle, eyes are near the edge of what most trackers see."""
LEAST_SEEN = 0.5


class EyeBox(QWidget):
    """Both eyes as in a mirror, their distance on a gauge, and a sentence on what to change.

    Parameters
    ----------
    expected_mm
        Viewing distance of the geometry that gaze is measured in.
    ground, ink
        Fixed colours for a display whose ground is not the theme's.
    """

    def __init__(self, expected_mm: float, ground: str | None = None, ink: str | None = None) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(320, 240)
        self._expected_mm = expected_mm
        self._ground, self._ink = ground, ink
        self._eyes: EyePositions | None = None
        self._told = False
        self._seen = (0.0, 0.0)
        self._advice = ""
        self.setAccessibleName(self.tr("Eye position"))

    def sizeHint(self) -> QSize:
        """Ask for room."""
        return QSize(640, 480)

    @property
    def advice(self) -> str:
        """What to change, or that nothing need be."""
        return self._advice

    @property
    def in_place(self) -> bool:
        """Whether the eyes that can be told of are where they should be."""
        distance = self._eyes.distance_mm if self._eyes is not None else None
        if not self._told:
            return max(self._seen) > LEAST_SEEN
        near = distance is not None and abs(distance - self._expected_mm) <= GOOD_MM
        return near and abs(self._aside_mm) <= ASIDE_MM

    @property
    def _aside_mm(self) -> float:
        """How far to the right of the screen's middle the head is."""
        eyes = self._eyes
        if eyes is None or (eyes.left_mm is None and eyes.right_mm is None):
            return 0.0
        left, right = (
            None if place is None else place[0] + HALF_EYES_MM * side
            for place, side in ((eyes.left_mm, 1), (eyes.right_mm, -1))
        )
        seen = [x for x in (left, right) if x is not None]
        return sum(seen) / len(seen)

    def show_eyes(self, eyes: EyePositions | None, left_seen: float, right_seen: float) -> None:
        """Show where the eyes are, and in what share of the last samples (0..1) each was seen."""
        self._eyes = eyes
        # A device that never told where the eyes are cannot; one that does so sometimes, lost them.
        self._told = self._told or eyes is not None
        self._seen = (left_seen, right_seen)
        self._advice = self._find_advice()
        self.setAccessibleDescription(self._advice)
        self.update()

    def _find_advice(self) -> str:
        left, right = self._seen
        if max(left, right) < 0.05:
            return self.tr("No eye is seen: sit before the middle of the screen.")
        distance = self._eyes.distance_mm if self._eyes is not None else None
        if distance is not None and abs(off := distance - self._expected_mm) > GOOD_MM:
            centimetres = max(1, round(abs(off) / 10))
            if off > 0:
                return self.tr("Come {n} cm closer.").format(n=centimetres)
            return self.tr("Move {n} cm back.").format(n=centimetres)
        if abs(aside := self._aside_mm) > ASIDE_MM:
            words = self.tr("Move {n} cm to the left.") if aside > 0 else self.tr("Move {n} cm to the right.")
            return words.format(n=round(abs(aside) / 10))
        if min(left, right) < LEAST_SEEN:
            side = self.tr("left") if left < right else self.tr("right")
            return self.tr(
                "The {side} eye is hardly seen: look for hair, glare or a frame before it."
            ).format(side=side)
        if distance is None:
            return self.tr("Both eyes are seen. This tracker does not tell where they are.")
        return self.tr("The position is good: {n} cm.").format(n=round(distance / 10))

    # Drawing

    def _colours(self) -> tuple[str, str, str, str]:
        """Return ground, line, muted and text colours."""
        tokens = theme.current()
        if self._ground is None or self._ink is None:
            return tokens.raised, tokens.border, tokens.muted, tokens.text
        blend = theme.blend
        ground, ink = self._ground, self._ink
        return blend(ink, ground, 0.06), blend(ink, ground, 0.3), blend(ink, ground, 0.65), ink

    def _signal_colours(self) -> tuple[str, str]:
        """Return the colours of good and of bad."""
        tokens = theme.current() if self._ground is None else theme.DARK
        return tokens.accent, tokens.warning

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw box, gauge and sentence."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self._ground is not None:
            painter.fillRect(self.rect(), QColor(self._ground))
        gauge = 92 if self._told else 0
        width = min(self.width() - gauge - 64, (self.height() - 112) * HALF_WIDTH_MM / HALF_HEIGHT_MM, 720)
        height = width * HALF_HEIGHT_MM / HALF_WIDTH_MM
        left = (self.width() - width - gauge) / 2
        top = max(24.0, (self.height() - height - 72) / 2)
        area = QRectF(left, top, width, height)
        self._draw_box(painter, area)
        if self._told:
            self._draw_gauge(painter, QRectF(area.right() + 40, area.top() + 8, 12, height - 16))
        self._draw_advice(painter, QRectF(0, area.bottom() + 18, self.width(), 48))
        painter.end()

    def _draw_box(self, painter: QPainter, area: QRectF) -> None:
        ground, border, muted, text = self._colours()
        good, bad = self._signal_colours()
        painter.setPen(QPen(QColor(good if self.in_place else border), 2))
        painter.setBrush(QColor(ground))
        painter.drawRoundedRect(area, 12, 12)
        painter.setPen(QPen(QColor(border), 1, Qt.PenStyle.DashLine))
        painter.drawLine(
            QPointF(area.center().x(), area.top() + 12), QPointF(area.center().x(), area.bottom() - 12)
        )
        painter.drawLine(
            QPointF(area.left() + 12, area.center().y()), QPointF(area.right() - 12, area.center().y())
        )
        names = (self.tr("Left"), self.tr("Right"))
        places = (None, None) if self._eyes is None else (self._eyes.left_mm, self._eyes.right_mm)
        for side, (name, place, seen) in enumerate(zip(names, places, self._seen, strict=True)):
            centre, radius = self._eye_at(area, side, place or _beside(places[1 - side], side))
            visible = seen >= LEAST_SEEN and (place is not None or not self._told)
            painter.setPen(
                QPen(
                    QColor(good if visible else bad),
                    3,
                    Qt.PenStyle.SolidLine if visible else Qt.PenStyle.DashLine,
                )
            )
            painter.setBrush(QColor(theme.blend(good, ground, 0.2)) if visible else Qt.BrushStyle.NoBrush)
            eye = QPainterPath(centre - QPointF(radius, 0))
            eye.quadTo(centre - QPointF(0, radius * 1.25), centre + QPointF(radius, 0))
            eye.quadTo(centre + QPointF(0, radius * 1.25), centre - QPointF(radius, 0))
            painter.drawPath(eye)
            if visible:
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(QColor(good))
                painter.drawEllipse(centre, radius * 0.3, radius * 0.3)
            font = theme.number_font(13)
            painter.setFont(font)
            painter.setPen(QColor(text if visible else muted))
            words = self.tr("{name}: seen {percent} %") if visible else self.tr("{name}: not seen")
            below = QRectF(centre.x() - 90, centre.y() + radius + 4, 180, 22)
            below.moveLeft(min(max(below.left(), area.left() + 4), area.right() - 184))
            painter.drawText(
                below,
                Qt.AlignmentFlag.AlignCenter,
                words.format(name=name, percent=min(100, round(100 * seen))),
            )

    def _eye_at(self, area: QRectF, side: int, place: Millimetres | None) -> tuple[QPointF, float]:
        """Return an eye's centre and half width in the box; where it is not known, where it should be."""
        scale = area.width() / (2 * HALF_WIDTH_MM)
        x, y, z = (
            place if place is not None else ((-HALF_EYES_MM, HALF_EYES_MM)[side], 0.0, self._expected_mm)
        )
        nearness = min(1.5, max(0.6, self._expected_mm / max(z, 1.0)))
        radius = 22 * scale * nearness
        # Real eyes are 64 mm apart: drawn larger than they are, they still must not touch.
        at = area.center() + QPointF(x * scale * 1.35, -y * scale)
        half = QPointF(area.width() / 2 - radius - 8, area.height() / 2 - radius - 28)
        off = at - area.center()
        off = QPointF(math.copysign(min(abs(off.x()), half.x()), off.x()),
                      math.copysign(min(abs(off.y()), half.y()), off.y()))  # fmt: skip
        return area.center() + off, radius

    def _draw_gauge(self, painter: QPainter, area: QRectF) -> None:
        """Draw the distance: far above, near below, the good range in the middle."""
        ground, border, muted, _ = self._colours()
        good, bad = self._signal_colours()
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(border))
        painter.drawRoundedRect(area, 6, 6)
        half = area.height() / 2 * GOOD_MM / GAUGE_MM
        painter.setBrush(QColor(theme.blend(good, ground, 0.55)))
        painter.drawRect(QRectF(area.left(), area.center().y() - half, area.width(), 2 * half))
        painter.setFont(theme.number_font(12))
        painter.setPen(QColor(muted))
        for text, y in ((self.tr("far"), area.top()), (self.tr("near"), area.bottom())):
            painter.drawText(QRectF(area.right() + 14, y - 9, 48, 18), Qt.AlignmentFlag.AlignVCenter, text)
        distance = self._eyes.distance_mm if self._eyes is not None else None
        if distance is None:
            return
        share = min(1.0, max(-1.0, (distance - self._expected_mm) / GAUGE_MM))
        y = area.center().y() - share * area.height() / 2
        painter.setPen(QPen(QColor(good if self.in_place else bad), 3))
        painter.drawLine(QPointF(area.left() - 7, y), QPointF(area.right() + 7, y))
        words = self.tr("{n} cm").format(n=round(distance / 10))
        painter.setPen(QColor(good if self.in_place else bad))
        if min(y - area.top(), area.bottom() - y) > 20:
            painter.drawText(QRectF(area.right() + 14, y - 9, 48, 18), Qt.AlignmentFlag.AlignVCenter, words)

    def _draw_advice(self, painter: QPainter, area: QRectF) -> None:
        _, _, _, text = self._colours()
        good, bad = self._signal_colours()
        well = self.in_place and min(self._seen) >= LEAST_SEEN
        font = theme.heading_font(16)
        painter.setFont(font)
        width = QFontMetrics(font).horizontalAdvance(self._advice)
        start = area.center().x() - (width + 28) / 2
        icon = theme.icon("check-circle" if well else "warning", good if well else bad)
        icon.paint(painter, round(start), round(area.top()), 20, 22)
        painter.setPen(QColor(text))
        painter.drawText(
            QRectF(start + 28, area.top(), width + 4, 22), Qt.AlignmentFlag.AlignVCenter, self._advice
        )


def _beside(other: Millimetres | None, side: int) -> Millimetres | None:
    """Return where the left (0) or right (1) eye should be, from where the other one is."""
    if other is None:
        return None
    return other[0] + 2 * HALF_EYES_MM * (-1, 1)[side], other[1], other[2]
