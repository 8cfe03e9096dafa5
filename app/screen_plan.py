"""The participant's screen seen from the operator's desk: targets, gaze, and how far the two lie apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from app import theme
from app.quality_words import degrees_text, error_token
from gaze_capture.calibration import Validator
from gaze_capture.quality import Validation
from gaze_capture.recording import Floats, ScreenGeometry, eye_positions
from gaze_capture.trackers.tracker import CalibrationOutcome, CalibrationPoint, Point

ENLARGED = 3
"""Errors are some pixels long on a plan of this size: they are drawn so much larger than the plan."""
RINGS_DEG = (0.5, 1.0)
SAMPLES_DRAWN = 120
FOOT = 40
GRAB_PX = 30

LEFT_COLOURS, RIGHT_COLOURS = ("#56B4E9", "#0067A5"), ("#E69F00", "#9A5B00")
"""On dark and on light ground; a circle stands for the left eye, a square for the right one."""


@dataclass(frozen=True)
class PlanPoint:
    """One target on the plan and what is known of it; offsets are gaze minus target, in degrees, y down."""

    x: float
    """Normalised to the screen, as y."""
    y: float
    state: Literal["waiting", "current", "done"] = "done"
    text: str = ""
    token: str = "muted"
    left_deg: Point | None = None
    right_deg: Point | None = None
    samples_deg: Floats | None = None
    """(N, 2)"""
    left_error_deg: float | None = None
    """Where the device tells how far off gaze is, but not which way."""
    right_error_deg: float | None = None
    marked: bool = False


def waiting_points(targets: tuple[Point, ...], current: Point | None, done: int) -> list[PlanPoint]:
    """Return targets of which the first ones are done and one is current."""
    return [
        PlanPoint(*target, state="done" if number < done else "current" if target == current else "waiting")
        for number, target in enumerate(targets)
    ]


def calibrated_points(
    targets: tuple[Point, ...], outcome: CalibrationOutcome, unused: str
) -> list[PlanPoint]:
    """Return the calibration's targets with what the device says of each; `unused` where it could use none."""
    told = {(round(point.x, 4), round(point.y, 4)): point for point in outcome.points}

    def point_of(target: Point) -> PlanPoint:
        found: CalibrationPoint | None = told.get((round(target[0], 4), round(target[1], 4)))
        if found is None or not (found.left or found.right):
            return PlanPoint(*target, text=unused, token="danger", marked=True)
        errors = [
            error
            for used, error in ((found.left, found.left_error_deg), (found.right, found.right_error_deg))
            if used and error is not None
        ]
        return PlanPoint(
            *target,
            text=" ".join(dict.fromkeys(degrees_text(error) for error in errors)),
            token=error_token(max(errors)) if errors else "muted",
            left_error_deg=found.left_error_deg if found.left else None,
            right_error_deg=found.right_error_deg if found.right else None,
        )

    return [point_of(target) for target in targets]


def validated_points(
    validation: Validation, validator: Validator | None, geometry: ScreenGeometry
) -> list[PlanPoint]:
    """Return the validation's targets, with the gaze that was collected on each where it is at hand."""
    points = []
    collected = validator.collected if validator is not None else ()
    for number, target in enumerate(validation.targets):
        place = (target.x, target.y)
        kept = np.empty((0, 2))
        if number < len(collected):
            gaze = geometry.degrees_from_normalised(eye_positions(collected[number][1], validation.eyes))
            gaze = gaze[np.isfinite(gaze).all(axis=1)] - geometry.degrees_from_normalised(np.array(place))
            kept = gaze[:: max(1, len(gaze) // SAMPLES_DRAWN)]
        left, right = (
            one.offset_deg if np.isfinite(one.offset_deg).all() else None
            for one in (target.left, target.right)
        )
        points.append(
            PlanPoint(
                *place,
                text=degrees_text(target.both.error_deg),
                token=error_token(target.both.error_deg),
                left_deg=left if validation.eyes != "right" else None,
                right_deg=right if validation.eyes != "left" else None,
                samples_deg=kept,
            )
        )
    return points


class ScreenPlan(QWidget):
    """Draws the screen with its targets; where `markable`, a click or a digit marks a target to be done again."""

    marks_changed = Signal()

    def __init__(self, geometry: ScreenGeometry) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(360, 240)
        self.setMouseTracking(True)
        self.setAccessibleName(self.tr("Screen plan"))
        self._geometry = geometry
        self._points: list[PlanPoint] = []
        self._gaze: Point | None = None
        self._markable = False
        self._hot: int | None = None

    def sizeHint(self) -> QSize:
        """Ask for room."""
        return QSize(720, 480)

    @property
    def points(self) -> tuple[PlanPoint, ...]:
        """What is drawn."""
        return tuple(self._points)

    @property
    def marked(self) -> tuple[Point, ...]:
        """The targets to be done again."""
        return tuple((point.x, point.y) for point in self._points if point.marked)

    def show_points(self, points: list[PlanPoint], *, markable: bool = False) -> None:
        """Show other targets."""
        self._points, self._markable, self._gaze, self._hot = points, markable, None, None
        texts = [f"{number}: {point.text}" for number, point in enumerate(points, 1) if point.text]
        self.setAccessibleDescription(", ".join(texts))
        self.update()

    def show_gaze(self, gaze: Point | None) -> None:
        """Show where the eyes look now."""
        if gaze != self._gaze:
            self._gaze = gaze
            self.update()

    def toggle(self, number: int) -> bool:
        """Mark the target of a number (from 0), or take its mark away; False where there is none."""
        if not self._markable or not 0 <= number < len(self._points):
            return False
        point = self._points[number]
        self._points[number] = replace(point, marked=not point.marked)
        self.update()
        self.marks_changed.emit()
        return True

    # Where things lie

    def _screen(self) -> QRectF:
        """Return where the screen is drawn."""
        room = QRectF(self.rect()).adjusted(24, 24, -24, -24 - FOOT)
        aspect = self._geometry.width_mm / self._geometry.height_mm
        width = min(room.width(), room.height() * aspect)
        height = width / aspect
        top = room.top() + (room.height() - height) / 2
        return QRectF(room.center().x() - width / 2, top, width, height)

    def place_of(self, x: float, y: float) -> QPointF:
        """Return where a normalised position lies in the widget."""
        screen = self._screen()
        return QPointF(screen.left() + x * screen.width(), screen.top() + y * screen.height())

    def _px_per_deg(self) -> float:
        """Return how long a degree of error is drawn."""
        half_deg = self._geometry.degrees_from_normalised(np.array([1.0, 0.5]))[0]
        return ENLARGED * self._screen().width() / 2 / float(half_deg)

    def _at(self, position: QPointF) -> int | None:
        near = [
            (distance, number)
            for number, point in enumerate(self._points)
            if (distance := (self.place_of(point.x, point.y) - position).manhattanLength()) < GRAB_PX
        ]
        return min(near)[1] if near else None

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Show what a click would mark."""
        hot = self._at(event.position()) if self._markable else None
        self.setCursor(Qt.CursorShape.PointingHandCursor if hot is not None else Qt.CursorShape.ArrowCursor)
        if hot != self._hot:
            self._hot = hot
            self.update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Mark a target."""
        number = self._at(event.position())
        if event.button() != Qt.MouseButton.LeftButton or number is None or not self.toggle(number):
            super().mousePressEvent(event)

    # Drawing

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the screen, targets and gaze."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        tokens = theme.current()
        screen = self._screen()
        painter.setPen(QPen(QColor(tokens.border), 1.5))
        painter.setBrush(QColor(tokens.raised))
        painter.drawRoundedRect(screen, 8, 8)
        painter.save()
        painter.setClipRect(screen)
        for number, point in enumerate(self._points):
            self._draw_errors(painter, point)
            self._draw_target(painter, number, point)
        for number, point in enumerate(self._points):
            self._draw_text(painter, number, point)
        if self._gaze is not None:
            painter.setPen(QPen(QColor(tokens.background), 1))
            painter.setBrush(QColor(tokens.accent))
            painter.drawEllipse(self.place_of(*self._gaze), 6, 6)
        painter.restore()
        self._draw_legend(painter, QRectF(screen.left(), screen.bottom() + 12, screen.width(), 24))
        painter.end()

    def _draw_errors(self, painter: QPainter, point: PlanPoint) -> None:
        tokens = theme.current()
        centre, scale = self.place_of(point.x, point.y), self._px_per_deg()
        if point.state != "done":
            return
        ring = QPen(QColor(theme.blend(tokens.muted, tokens.raised, 0.55)), 1, Qt.PenStyle.DashLine)
        painter.setPen(ring)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for radius in RINGS_DEG if self._knows_errors() else ():
            painter.drawEllipse(centre, radius * scale, radius * scale)
        if point.samples_deg is not None:
            painter.setPen(Qt.PenStyle.NoPen)
            dot = QColor(tokens.text)
            dot.setAlpha(70)
            painter.setBrush(dot)
            for x, y in point.samples_deg * scale:
                painter.drawEllipse(centre + QPointF(float(x), float(y)), 1.5, 1.5)
        for offset, error, left in (
            (point.left_deg, point.left_error_deg, True),
            (point.right_deg, point.right_error_deg, False),
        ):
            colour = _eye_colour(left)
            line = Qt.PenStyle.SolidLine if left else Qt.PenStyle.DashLine
            if error is not None:
                painter.setPen(QPen(colour, 2, line))
                painter.setBrush(Qt.BrushStyle.NoBrush)
                painter.drawEllipse(centre, error * scale, error * scale)
            if offset is not None:
                tip = centre + QPointF(*offset) * scale
                painter.setPen(QPen(colour, 2, line))
                painter.drawLine(centre, tip)
                _draw_eye(painter, tip, left)

    def _draw_target(self, painter: QPainter, number: int, point: PlanPoint) -> None:
        tokens = theme.current()
        centre = self.place_of(point.x, point.y)
        if point.marked or number == self._hot:
            painter.setPen(
                QPen(QColor(tokens.accent), 2, Qt.PenStyle.SolidLine if point.marked else Qt.PenStyle.DotLine)
            )
            painter.setBrush(
                QColor(theme.blend(tokens.accent, tokens.raised, 0.25))
                if point.marked
                else Qt.BrushStyle.NoBrush
            )
            painter.drawEllipse(centre, 15, 15)
        if point.state == "current":
            painter.setPen(QPen(QColor(tokens.accent), 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawEllipse(centre, 12, 12)
        ink = QColor(tokens.muted if point.state == "waiting" else tokens.text)
        painter.setPen(QPen(ink, 1.5))
        for across in (QPointF(6, 0), QPointF(0, 6)):
            painter.drawLine(centre - across, centre + across)

    def _draw_text(self, painter: QPainter, number: int, point: PlanPoint) -> None:
        tokens = theme.current()
        if point.state != "done" or not (point.text or self._markable):
            return
        centre = self.place_of(point.x, point.y)
        words = f"{number + 1}   {point.text}" if self._markable else point.text
        painter.setFont(theme.number_font(13))
        width = painter.fontMetrics().horizontalAdvance(words) + 34
        chip = QRectF(centre.x() - width / 2, centre.y() + 22, width, 22)
        screen = self._screen().adjusted(4, 4, -4, -4)
        chip.moveLeft(min(max(chip.left(), screen.left()), screen.right() - width))
        # Where gaze is not.
        below = sum(offset[1] for offset in (point.left_deg, point.right_deg) if offset is not None)
        if point.samples_deg is not None and len(point.samples_deg):
            below += float(point.samples_deg[:, 1].mean())
        if chip.bottom() > screen.bottom() or (below > 0 and centre.y() - 44 > screen.top()):
            chip.moveBottom(centre.y() - 22)
        painter.setPen(QPen(QColor(tokens.border), 1))
        painter.setBrush(QColor(tokens.surface))
        painter.drawRoundedRect(chip, 11, 11)
        names = {"accent": "check-circle", "warning": "warning", "danger": "x-circle"}
        name = "arrow-counter-clockwise" if point.marked else names.get(point.token, "circle")
        colour = getattr(tokens, "accent" if point.marked else point.token)
        theme.icon(name, colour).paint(painter, round(chip.left()) + 6, round(chip.top()) + 3, 16, 16)
        painter.setPen(QColor(tokens.text))
        painter.drawText(chip.adjusted(26, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, words)

    def _knows_errors(self) -> bool:
        return any(
            one is not None
            for point in self._points
            for one in (
                point.samples_deg,
                point.left_deg,
                point.right_deg,
                point.left_error_deg,
                point.right_error_deg,
            )
        )

    def _draw_legend(self, painter: QPainter, area: QRectF) -> None:
        if not self._knows_errors():
            return
        tokens = theme.current()
        ways = any(point.left_deg or point.right_deg for point in self._points)
        circles = any(point.left_error_deg or point.right_error_deg for point in self._points)
        rings = self.tr("rings at 0.5° and 1°, errors drawn {n}× larger").format(n=ENLARGED)
        painter.setFont(theme.number_font(12))
        painter.setPen(QColor(tokens.muted))
        x = area.left()
        eyes = ((True, self.tr("left eye")), (False, self.tr("right eye")))
        for left, name in eyes if ways or circles else ():
            middle = area.center().y()
            painter.setPen(
                QPen(_eye_colour(left), 2, Qt.PenStyle.SolidLine if left else Qt.PenStyle.DashLine)
            )
            painter.drawLine(QPointF(x, middle), QPointF(x + 22, middle))
            if ways:
                _draw_eye(painter, QPointF(x + 22, middle), left)
            painter.setPen(QColor(tokens.muted))
            width = painter.fontMetrics().horizontalAdvance(name)
            painter.drawText(
                QRectF(x + 32, area.top(), width + 4, area.height()), Qt.AlignmentFlag.AlignVCenter, name
            )
            x += width + 56
        painter.drawText(
            QRectF(x, area.top(), area.right() - x, area.height()),
            Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight,
            rings,
        )


def _eye_colour(left: bool) -> QColor:
    colours = LEFT_COLOURS if left else RIGHT_COLOURS
    return QColor(colours[theme.current().mode == "light"])


def _draw_eye(painter: QPainter, at: QPointF, left: bool) -> None:
    painter.setPen(QPen(QColor(theme.current().surface), 1))
    painter.setBrush(_eye_colour(left))
    if left:
        painter.drawEllipse(at, 5, 5)
    else:
        painter.drawRect(QRectF(at.x() - 4.5, at.y() - 4.5, 9, 9))
