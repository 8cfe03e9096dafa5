"""The participant's display: a target, an anchor, a message or the image, and nothing beside it."""

from __future__ import annotations

import math
from typing import Literal

from PySide6.QtCore import QEasingCurve, QPointF, QRectF, Qt, QVariantAnimation, Signal
from PySide6.QtGui import (
    QColor,
    QGuiApplication,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QScreen,
)
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from app import theme
from app.screen_trackers import geometry_of
from app.widgets import box, clear, label
from gaze_capture.recording import ScreenGeometry

TRAVEL_MS = 300
SHRINK_MS = 350
START_DEG = 1.8
"""A target's diameter as it arrives ..."""
TARGET_DEG = 0.6
"""... and at rest. Bull's eye and cross hair together hold the eye best (Thaler et al., Vision Research 2013)."""
DOT_DEG = 0.16
TEXT_WIDTH_PX = 720


class ParticipantWindow(QWidget):
    """Fills one screen without a frame, a pointer or a gaze dot; positions are normalised to that screen.

    Shown with :meth:`present`, hidden with :meth:`withdraw`. On a single monitor it covers the operator's window, so
    that keys arrive here: they are passed on as :attr:`key_pressed`.

    Parameters
    ----------
    background
        At the luminance of the study's images: pupil size alone shifts gaze.
    geometry
        Of the tracker's screen, for sizes in degrees; what the screen tells of itself if not given.
    """

    key_pressed = Signal(int)
    """A Qt key, without its repeats."""
    pointer_moved = Signal(float, float)
    """Normalised to the screen; for trackers that the pointer stands in for."""
    display_lost = Signal()
    """The screen was unplugged; the window lies on the primary one now."""

    def __init__(
        self,
        screen: QScreen,
        background: str = theme.SURROUND,
        geometry: ScreenGeometry | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent, Qt.WindowType.Window | Qt.WindowType.FramelessWindowHint)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setWindowTitle(self.tr("Participant's display"))
        self.setAccessibleName(self.windowTitle())
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.background = background
        self._on = screen
        self._geometry = geometry
        self._kind: Literal["nothing", "target"] = "nothing"
        self._from = self._to = (0.5, 0.5)
        self._progress = 1.0
        self._hosted: QWidget | None = None
        self._motion = QVariantAnimation(self, startValue=0.0, endValue=1.0, duration=TRAVEL_MS + SHRINK_MS)
        self._motion.valueChanged.connect(self._move_on)
        layout = QVBoxLayout(self)
        box(layout, spacing=0)
        self._layout = layout
        self._message = _Message(ink_on(background), background)
        layout.addWidget(self._message)
        self._message.hide()
        self.show_pointer(False)
        application = QGuiApplication.instance()
        assert isinstance(application, QGuiApplication)
        application.screenRemoved.connect(self._screen_removed)
        self._place()

    # Where it is

    def covers(self, other: QWidget) -> bool:
        """Whether the window, when shown, hides another: both are on one screen."""
        return other.screen() == self._on

    def present(self) -> None:
        """Fill the screen, above everything, and take the keys where there is no other screen to work on."""
        alone = len(QGuiApplication.screens()) == 1
        self.setAttribute(Qt.WidgetAttribute.WA_ShowWithoutActivating, not alone)
        self._place()
        self.showFullScreen()
        self.raise_()
        if alone:
            self.activateWindow()
            self.setFocus()

    def withdraw(self) -> None:
        """Hide; what is under it, on a single monitor the operator's window, comes back."""
        self._motion.stop()
        self.hide()

    def move_to(self, screen: QScreen, geometry: ScreenGeometry | None = None) -> None:
        """Use another screen from now on."""
        self._on, self._geometry = screen, geometry
        self._place()

    def _place(self) -> None:
        self.setScreen(self._on)
        self.setGeometry(self._on.geometry())

    def _screen_removed(self, screen: QScreen) -> None:
        if screen != self._on:
            return
        # Qt may still name the removed one as the primary.
        left = [other for other in QGuiApplication.screens() if other != screen]
        primary = QGuiApplication.primaryScreen()
        self._on = left[0] if left and primary == screen else primary
        self._geometry = None
        self._place()
        self.display_lost.emit()

    def _widget_point(self, x: float, y: float) -> QPointF:
        """Return where a normalised position lies in the window, which may be smaller than its screen."""
        area = self._on.geometry()
        on_screen = QPointF(area.x() + x * area.width(), area.y() + y * area.height())
        return QPointF(self.mapFromGlobal(on_screen))

    @property
    def px_per_degree(self) -> float:
        """Logical pixels that a degree covers at the screen's centre."""
        geometry = self._geometry or geometry_of(self._on)
        mm_per_degree = geometry.viewing_distance_mm * math.tan(math.radians(1))
        return mm_per_degree / geometry.width_mm * self._on.geometry().width()

    # What it shows

    def show_nothing(self) -> None:
        """Show the background alone."""
        self._clear()
        self.update()

    def show_anchor(self, x: float = 0.5, y: float = 0.5) -> None:
        """Show a target that is there at once and does not move."""
        self._clear()
        self._kind, self._from, self._to, self._progress = "target", (x, y), (x, y), 1.0
        self.update()

    def show_target(self, x: float, y: float) -> None:
        """Let the target travel from where it is to a place, and shrink there; the first one only shrinks."""
        here = self._to if self._kind == "target" else (x, y)
        self._clear()
        self._kind, self._from, self._to, self._progress = "target", here, (x, y), 0.0
        self._motion.start()
        self.update()

    def show_message(self, text: str, keys: tuple[tuple[str, str], ...] = ()) -> None:
        """Show a text, and below it keys with what each of them does."""
        self._clear()
        self._message.set(text, keys)
        self._message.show()
        self.update()

    def host(self, widget: QWidget) -> None:
        """Fill the screen with a widget, which belongs here until :meth:`release`.

        Whatever else is shown hides it; hosting it again brings it back. Another one that was hosted is released.
        """
        self._clear()
        if widget is not self._hosted:
            self.release()
            self._hosted = widget
            self._layout.addWidget(widget)
        widget.show()
        self.update()

    def release(self) -> QWidget | None:
        """Give the hosted widget back, hidden and without a parent; None if there is none."""
        widget, self._hosted = self._hosted, None
        if widget is not None:
            self._layout.removeWidget(widget)
            widget.hide()
            widget.setParent(None)
        return widget

    def show_pointer(self, shown: bool) -> None:
        """Show the pointer only where it stands in for the eyes."""
        self.setCursor(Qt.CursorShape.CrossCursor if shown else Qt.CursorShape.BlankCursor)

    def _clear(self) -> None:
        self._motion.stop()
        self._kind = "nothing"
        self._message.hide()
        if self._hosted is not None:
            self._hosted.hide()

    # Drawing

    def _move_on(self, progress: float) -> None:
        # Only where the target was and is: at 60 Hz a whole 4K screen would be too much.
        self.update(self._target_area().toAlignedRect())
        self._progress = progress
        self.update(self._target_area().toAlignedRect())

    def _target_now(self) -> tuple[QPointF, float]:
        """Return the target's centre and diameter in logical pixels."""
        elapsed = self._progress * (TRAVEL_MS + SHRINK_MS)
        travelled = QEasingCurve(QEasingCurve.Type.InOutCubic).valueForProgress(min(1.0, elapsed / TRAVEL_MS))
        shrunk = QEasingCurve(QEasingCurve.Type.OutCubic).valueForProgress(
            min(1.0, max(0.0, (elapsed - TRAVEL_MS) / SHRINK_MS))
        )
        start, end = self._widget_point(*self._from), self._widget_point(*self._to)
        diameter = START_DEG + (TARGET_DEG - START_DEG) * shrunk
        return start + (end - start) * travelled, diameter * self.px_per_degree

    def _target_area(self) -> QRectF:
        centre, diameter = self._target_now()
        half = diameter / 2 + 3
        return QRectF(centre.x() - half, centre.y() - half, 2 * half, 2 * half)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the background and the target."""
        painter = QPainter(self)
        painter.fillRect(event.rect(), QColor(self.background))
        if self._kind == "target":
            centre, diameter = self._target_now()
            draw_target(painter, centre, diameter, DOT_DEG * self.px_per_degree, self.background)
        painter.end()

    # Keys and pointer

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Pass a key on."""
        if not event.isAutoRepeat():
            self.key_pressed.emit(event.key())

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Tell where the pointer is."""
        area = self._on.geometry()
        place = event.globalPosition() - QPointF(area.topLeft())
        self.pointer_moved.emit(place.x() / area.width(), place.y() / area.height())


def draw_target(painter: QPainter, centre: QPointF, diameter: float, dot: float, background: str) -> None:
    """Draw a disc with a cross and a dot in its middle, light on dark ground and dark on light."""
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    ink = QColor(ink_on(background))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(ink)
    painter.drawEllipse(centre, diameter / 2, diameter / 2)
    cross = QPen(QColor(background), dot, Qt.PenStyle.SolidLine, Qt.PenCapStyle.FlatCap)
    painter.setPen(cross)
    reach = diameter / 2 + 1
    painter.drawLine(centre - QPointF(reach, 0), centre + QPointF(reach, 0))
    painter.drawLine(centre - QPointF(0, reach), centre + QPointF(0, reach))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(ink)
    painter.drawEllipse(centre, dot / 2, dot / 2)
    painter.restore()


def ink_on(background: str) -> str:
    """Return the grey that a target or a text is drawn with on a ground."""
    return "#D6D6D6" if theme.luminance(background) < 0.2 else "#1A1A1A"


class _Message(QWidget):
    """A text and keys, in the ink of the window's own ground: the theme's colours do not count here."""

    def __init__(self, ink: str, background: str) -> None:
        super().__init__()
        self._text = label("", wrap=True)
        self._text.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self._text.setFont(theme.heading_font(24))
        self._text.setFixedWidth(TEXT_WIDTH_PX)
        self._text.setStyleSheet(f"color: {ink};")
        edge = theme.blend(ink, background, 0.5)
        self._chip = (
            f"color: {ink}; border: 1px solid {edge}; border-radius: 5px; padding: 4px 12px; font-size: 16px;"
        )
        self._words = f"color: {ink}; font-size: 16px; padding-right: 16px;"
        self._row = QHBoxLayout()
        box(self._row, spacing=theme.WIDE)
        column = QVBoxLayout(self)
        box(column, spacing=theme.HUGE)
        column.addStretch(2)
        column.addWidget(self._text, 0, Qt.AlignmentFlag.AlignHCenter)
        column.addLayout(self._row)
        column.addStretch(3)

    def set(self, text: str, keys: tuple[tuple[str, str], ...]) -> None:
        self._text.setText(text)
        # A label in a centred cell gets the height of its hint, which knows nothing of lines that wrap.
        self._text.setMinimumHeight(self._text.heightForWidth(TEXT_WIDTH_PX))
        clear(self._row)
        self._row.addStretch(1)
        for key, does in keys:
            for word, sheet in ((key, self._chip), (does, self._words)):
                part = label(word)
                part.setStyleSheet(sheet)
                self._row.addWidget(part)
        self._row.addStretch(1)
