"""The slim slider beside a volume: where one is, and on which slices there is gaze, a mask, a review."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QHelpEvent, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QWheelEvent
from PySide6.QtWidgets import QToolTip, QWidget

from app import theme
from app.canvas import NOTCH
from app.layer_drawing import STYLES
from app.volumes import SliceMarks

WIDTH = 52
TOP, BOTTOM = 20, 48
PAGE = 5
"""Slices that PageUp and PageDown go."""
GROOVE, HANDLE, TEXT = theme.BETWEEN, theme.DARK.text, theme.ON_DARK
"""On the canvas's own ground, which is dark in both modes."""
LANES = ((9.0, "gaze"), (34.0, "masks"), (43.0, "reviews"))
MARK_WIDTH = 7
"""Left edges of the marks' columns."""
COLOURS = {"gaze": theme.DARK.text, "masks": STYLES["student"].colour, "reviews": theme.DARK.accent}


class SliceBar(QWidget):
    """Chooses a slice by mouse, wheel and, where a page passes them on, keys."""

    chosen = Signal(str)
    """The id of the slice to show."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedWidth(WIDTH)
        self.setMouseTracking(True)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self._slices: tuple[str, ...] = ()
        self._current = 0
        self._direction = 1
        self._marks = SliceMarks()
        self._wheel_angle = 0
        self.hide()

    # State

    @property
    def is_volume(self) -> bool:
        """Whether there is more than one slice."""
        return len(self._slices) > 1

    @property
    def following(self) -> str | None:
        """The next slice in the direction of scrolling, or None at the end."""
        place = self._current + self._direction
        return self._slices[place] if 0 <= place < len(self._slices) else None

    @property
    def text(self) -> str:
        """Where one is, as in `12 / 24`."""
        return f"{self._current + 1} / {len(self._slices)}"

    def show_slice(self, slices: tuple[str, ...], image_id: str) -> None:
        """Show where a slice lies among those of its volume."""
        current = slices.index(image_id)
        if slices != self._slices:
            self._direction = 1
        elif current != self._current:
            self._direction = 1 if current > self._current else -1
        self._slices, self._current = slices, current
        self.setAccessibleName(self.tr("Slice {number} of {all}").format(number=current + 1, all=len(slices)))
        self.update()

    def set_marks(self, marks: SliceMarks) -> None:
        """Mark slices."""
        if marks != self._marks:
            self._marks = marks
            self.update()

    def ahead(self, count: int) -> list[str]:
        """Return the slices that come next in the direction of scrolling, then the one behind."""
        if not self.is_volume:
            return []
        steps = [*(self._direction * step for step in range(1, count + 1)), -self._direction]
        places = (self._current + step for step in steps)
        return [self._slices[place] for place in places if 0 <= place < len(self._slices)]

    # Choosing

    def step(self, count: int) -> None:
        """Ask for the slice so many on; the ends hold."""
        self._choose(self._current + count)

    def _choose(self, place: int) -> None:
        place = min(max(place, 0), len(self._slices) - 1)
        if self.is_volume and place != self._current:
            self.chosen.emit(self._slices[place])

    def handle_key(self, event: QKeyEvent) -> bool:
        """Act on a key that scrolls; returns whether it was one."""
        if not self.is_volume or event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier:
            return False
        steps = {
            Qt.Key.Key_Up: -1,
            Qt.Key.Key_Down: 1,
            Qt.Key.Key_PageUp: -PAGE,
            Qt.Key.Key_PageDown: PAGE,
            Qt.Key.Key_Home: -len(self._slices),
            Qt.Key.Key_End: len(self._slices),
        }
        step = steps.get(Qt.Key(event.key()))
        if step is None:
            return False
        self.step(step)
        return True

    def _track(self) -> QRectF:
        return QRectF(WIDTH / 2 - 2, TOP, 4, max(self.height() - TOP - BOTTOM, 8))

    def _place_at(self, y: float) -> int:
        track = self._track()
        return int((y - track.top()) / track.height() * len(self._slices))

    def _y_of(self, place: int) -> float:
        track = self._track()
        return track.top() + (place + 0.5) * track.height() / len(self._slices)

    # Events

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Go to the slice under the pointer."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._choose(self._place_at(event.position().y()))

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Scroll while the button is down."""
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._choose(self._place_at(event.position().y()))

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Scroll."""
        self._wheel_angle += event.angleDelta().y()
        notches = int(self._wheel_angle / NOTCH)
        self._wheel_angle -= notches * NOTCH
        if notches:
            self.step(-notches)
        event.accept()

    def event(self, event: QEvent) -> bool:
        """Tell what the slice under the pointer has."""
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip and self._slices:
            place = min(max(self._place_at(event.pos().y()), 0), len(self._slices) - 1)
            words = [self.tr("Slice {number} of {all}").format(number=place + 1, all=len(self._slices))]
            names = {"gaze": self.tr("gaze"), "masks": self.tr("mask"), "reviews": self.tr("reviewed")}
            words += [
                name for lane, name in names.items() if self._slices[place] in getattr(self._marks, lane)
            ]
            keys = self.tr("Wheel, Up and Down, PageUp and PageDown, Home and End scroll")
            QToolTip.showText(event.globalPos(), " · ".join(words) + "\n" + keys, self)
            return True
        return super().event(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw groove, marks, handle and number."""
        painter = QPainter(self)
        painter.fillRect(event.rect(), QColor(theme.SURROUND))
        if not self._slices:
            painter.end()
            return
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        track = self._track()
        painter.setBrush(QColor(GROOVE))
        painter.drawRoundedRect(track, 2, 2)
        high = min(max(track.height() / len(self._slices) - 1.5, 1.5), 5.0)
        for left, lane in LANES:
            marked: frozenset[str] = getattr(self._marks, lane)
            painter.setBrush(QColor(COLOURS[lane]))
            for place, name in enumerate(self._slices):
                if name in marked:
                    painter.drawRoundedRect(
                        QRectF(left, self._y_of(place) - high / 2, MARK_WIDTH, high), 1, 1
                    )
        painter.setBrush(QColor(HANDLE))
        painter.drawEllipse(QPointF(track.center().x(), self._y_of(self._current)), 6, 6)
        painter.setPen(QColor(TEXT))
        painter.setFont(theme.number_font(12))
        text = self.text
        if painter.fontMetrics().horizontalAdvance(text) > WIDTH - 4:
            text = text.replace(" ", "")
        area = QRectF(0, self.height() - BOTTOM + 14, WIDTH, 20)
        painter.drawText(area, Qt.AlignmentFlag.AlignCenter, text)
        painter.end()
