"""The replay's time line: which image was shown when, what happened, where it stands, and how fast it goes."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QHelpEvent, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QComboBox, QFrame, QHBoxLayout, QSizePolicy, QToolTip, QWidget

from app import theme
from app.replay import SPEEDS, Span
from app.widgets import IconButton, box, label
from gaze_capture.recording import RecordingEvent

BAND = 12
NEAR_PX = 4


class Timeline(QWidget):
    """Bands for images, ticks for events, a handle at the moment shown; a click or a drag goes there."""

    sought = Signal(float)
    """Seconds since the first sample."""

    def __init__(self) -> None:
        super().__init__()
        self.setMouseTracking(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(self.tr("Time line"))
        self._spans: Sequence[Span] = ()
        self._events: Sequence[tuple[float, RecordingEvent]] = ()
        self._duration_s = 1.0
        self._position_s = 0.0
        self._kinds = {
            "connection": self.tr("Connection"),
            "clock": self.tr("Clock measured"),
            "rate": self.tr("Rate changed"),
            "note": self.tr("Note"),
            "calibration": self.tr("Calibration"),
            "validation": self.tr("Validation"),
            "drift": self.tr("Drift check"),
            "pause": self.tr("Pause"),
            "resume": self.tr("Resumed"),
            "found": self.tr("Found"),
            "look_again": self.tr("Looked again"),
            "practice": self.tr("Practice"),
        }

    def sizeHint(self) -> QSize:
        """Ask for a band's height and room for the handle."""
        return QSize(400, 32)

    def show_recording(
        self, spans: Sequence[Span], events: Sequence[tuple[float, RecordingEvent]], duration_s: float
    ) -> None:
        """Show another recording."""
        told = [(at, event) for at, event in events if event.kind in self._kinds and event.kind != "clock"]
        self._spans, self._events, self._duration_s = spans, told, max(duration_s, 1e-3)
        self.update()

    def set_position(self, seconds: float) -> None:
        """Move the handle."""
        if round(self._x(seconds)) != round(self._x(self._position_s)):
            self.update()
        self._position_s = seconds

    def _x(self, seconds: float) -> float:
        return 6 + (self.width() - 12) * min(max(seconds / self._duration_s, 0.0), 1.0)

    def _seconds(self, x: float) -> float:
        return (x - 6) / max(1, self.width() - 12) * self._duration_s

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw bands, ticks and the handle."""
        tokens = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        top = (self.height() - BAND) / 2
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(tokens.raised))
        painter.drawRoundedRect(QRectF(6, top, self.width() - 12, BAND), 3, 3)
        for number, span in enumerate(self._spans):
            shade = tokens.border if number % 2 else theme.blend(tokens.muted, tokens.raised, 0.45)
            painter.setBrush(QColor(shade))
            left, right = self._x(span.start_s), self._x(span.end_s)
            painter.drawRect(QRectF(left, top, max(1.0, right - left), BAND))
        for at, told in self._events:
            bad = told.kind == "connection" and told.values.get("state") == "lost"
            painter.setPen(QPen(QColor(tokens.danger if bad else tokens.warning), 1.5))
            painter.drawLine(QPointF(self._x(at), top - 4), QPointF(self._x(at), top + BAND + 4))
        painter.setPen(QPen(QColor(tokens.surface), 2))
        painter.setBrush(QColor(tokens.accent))
        painter.drawEllipse(QPointF(self._x(self._position_s), self.height() / 2), 7, 7)
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Go to the moment under the pointer."""
        if event.button() == Qt.MouseButton.LeftButton:
            self.sought.emit(self._seconds(event.position().x()))

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Drag the handle."""
        if event.buttons() & Qt.MouseButton.LeftButton:
            self.sought.emit(self._seconds(event.position().x()))

    def event(self, event: QEvent) -> bool:
        """Say what is under the pointer."""
        if isinstance(event, QHelpEvent):
            text = self._tip(event.pos().x())
            QToolTip.showText(event.globalPos(), text, self)
            return True
        return super().event(event)

    def _tip(self, x: float) -> str:
        seconds = min(max(self._seconds(x), 0.0), self._duration_s)
        lines = [clock_text(seconds)]
        lines += [span.image_id for span in self._spans if span.start_s <= seconds <= span.end_s]
        near = [told for at, told in self._events if abs(self._x(at) - x) <= NEAR_PX]
        lines += [self._kinds[told.kind] for told in near]
        return "\n".join(lines)


class ReplayBar(QFrame):
    """Play, pause, steps from image to image, time line, speed."""

    play_wanted = Signal()
    step_wanted = Signal(int)
    speed_chosen = Signal(float)

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("replayBar")
        self.timeline = Timeline()
        self._play = IconButton("pause", self.tr("Pause (Space)"), on_click=self.play_wanted.emit)
        self._time = label("0:00 / 0:00")
        self._time.setFont(theme.number_font(12))
        self.speed = QComboBox()
        for speed in SPEEDS:
            self.speed.addItem(f"{speed:g} ×", speed)
        self.speed.setCurrentIndex(SPEEDS.index(1.0))
        self.speed.setToolTip(self.tr("How fast it is replayed (+ faster, - slower)"))
        self.speed.currentIndexChanged.connect(
            lambda _: self.speed_chosen.emit(float(self.speed.currentData()))
        )
        self.speed.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        layout = QHBoxLayout(self)
        box(layout, margins=(theme.WIDE, theme.NORMAL, theme.WIDE, theme.NORMAL), spacing=theme.NORMAL)
        back = IconButton(
            "skip-back", self.tr("Previous image (←)"), on_click=lambda: self.step_wanted.emit(-1)
        )
        on = IconButton("skip-forward", self.tr("Next image (→)"), on_click=lambda: self.step_wanted.emit(1))
        for widget in (back, self._play, on):
            layout.addWidget(widget)
        layout.addWidget(self.timeline, 1)
        layout.addWidget(self._time)
        layout.addWidget(self.speed)

    def show_state(self, position_s: float, duration_s: float, playing: bool) -> None:
        """Show where the replay stands."""
        self.timeline.set_position(position_s)
        self._time.setText(f"{clock_text(position_s)} / {clock_text(duration_s)}")
        self._play.set_icon("pause" if playing else "play")
        self._play.setToolTip(self.tr("Pause (Space)") if playing else self.tr("Go on (Space)"))

    def change_speed(self, step: int) -> None:
        """Go faster (1) or slower (-1)."""
        place = min(max(self.speed.currentIndex() + step, 0), self.speed.count() - 1)
        self.speed.setCurrentIndex(place)


def clock_text(seconds: float) -> str:
    """Return a time as minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
