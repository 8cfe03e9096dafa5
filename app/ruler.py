"""The scale bar in the corner of an image whose pixels' size is known."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen

from app import theme

LONGEST_PX = 150.0
MARGIN_PX = 18.0
LENGTHS_MM = tuple(factor * 10.0**power for power in range(-3, 4) for factor in (1, 2, 5))


def scale_bar(px_per_mm: float) -> tuple[float, float] | None:
    """Return length in mm and on the screen in pixels of the longest round length that is not too long."""
    fitting = [length for length in LENGTHS_MM if length * px_per_mm <= LONGEST_PX]
    if not fitting or fitting[-1] * px_per_mm < LONGEST_PX / 10:
        return None
    return fitting[-1], fitting[-1] * px_per_mm


def length_text(length_mm: float) -> str:
    """Return a length for people."""
    return f"{length_mm * 1000:g} µm" if length_mm < 0.1 else f"{length_mm:g} mm"


def draw_scale_bar(painter: QPainter, bottom: int, px_per_mm: float) -> None:
    """Draw the bar at the left, its foot at `bottom`, white on a dark halo."""
    found = scale_bar(px_per_mm)
    if found is None:
        return
    length_mm, length_px = found
    left = MARGIN_PX
    strokes = (
        (QPointF(left, bottom), QPointF(left + length_px, bottom)),
        (QPointF(left, bottom - 5), QPointF(left, bottom + 1)),
        (QPointF(left + length_px, bottom - 5), QPointF(left + length_px, bottom + 1)),
    )
    for colour, width in ((QColor(0, 0, 0, 170), 4.0), (QColor("#E8EBEE"), 1.5)):
        pen = QPen(colour, width)
        pen.setCapStyle(Qt.PenCapStyle.FlatCap)
        painter.setPen(pen)
        for one, other in strokes:
            painter.drawLine(one, other)
    painter.setFont(theme.number_font(12))
    area = QRectF(left, bottom - 26, max(length_px, 80.0), 18)
    flags = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
    for shift_x, shift_y in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        painter.setPen(QColor(0, 0, 0, 170))
        painter.drawText(area.translated(4 + shift_x, shift_y), flags, length_text(length_mm))
    painter.setPen(QColor("#E8EBEE"))
    painter.drawText(area.translated(4, 0), flags, length_text(length_mm))
