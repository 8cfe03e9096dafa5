"""Which target is looked for or judged: a row each, in its colour, nested ones indented; the current one large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import (
    QAbstractButton,
    QButtonGroup,
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.widgets import ElidedLabel, Pill, box, clear, heading
from segmentation.records import Target

ROW_HEIGHT = 30
INDENT = 14
States = Mapping[str, tuple[str, str]]
"""A word on a target in the image shown, and the theme's colour of it, by target id."""


class Dot(QWidget):
    """A target's colour."""

    def __init__(self, size: int = 12) -> None:
        super().__init__()
        self._colour = QColor()
        self.setFixedSize(size, size)

    def set_colour(self, colour: str) -> None:
        """Show another colour."""
        self._colour = QColor(colour)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw it, with an edge that stands out from every ground."""
        painter = QPainter(self)
        _draw_dot(painter, QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), self._colour)
        painter.end()


def _draw_dot(painter: QPainter, area: QRectF, colour: QColor) -> None:
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(QColor(theme.current().muted), 1))
    painter.setBrush(colour)
    painter.drawEllipse(area)


class TargetRow(QAbstractButton):
    """A target that can be chosen; long names are cut in their middle."""

    def __init__(self, target: Target, depth: int) -> None:
        super().__init__()
        self.target = target
        self._indent = depth * INDENT
        self._word, self._token = "", "muted"
        self.setCheckable(True)
        self.setText(target.name)
        self.setToolTip(target.name)
        self.setAccessibleName(target.name)
        self.setFixedHeight(ROW_HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def set_state(self, word: str, token: str) -> None:
        """Show a word at the row's end."""
        if (word, token) != (self._word, self._token):
            self._word, self._token = word, token
            self.setAccessibleDescription(word)
            self.update()

    def sizeHint(self) -> QSize:
        """Ask for little: the panel's width is given."""
        return QSize(120, ROW_HEIGHT)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw ground, dot, name and word."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        tokens = theme.current()
        area = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
        if self.isChecked() or self.underMouse() or self.hasFocus():
            edged = self.isChecked() or self.hasFocus()
            painter.setPen(QPen(QColor(tokens.accent), 1) if edged else Qt.PenStyle.NoPen)
            painter.setBrush(QColor(tokens.selection if self.isChecked() else tokens.raised))
            painter.drawRoundedRect(area, theme.RADIUS, theme.RADIUS)
        left = area.left() + 10 + self._indent
        _draw_dot(painter, QRectF(left, area.center().y() - 5, 10, 10), QColor(self.target.colour))
        right = area.right() - 10
        small = painter.font()
        small.setPixelSize(12)
        if self._word:
            painter.setFont(small)
            width = painter.fontMetrics().horizontalAdvance(self._word)
            painter.setPen(QColor(getattr(tokens, self._token)))
            place = QRectF(right - width, area.top(), width + 1, area.height())
            painter.drawText(place, Qt.AlignmentFlag.AlignVCenter, self._word)
            right -= width + 8
        font = self.font()
        font.setWeight(font.Weight.DemiBold if self.isChecked() else font.Weight.Normal)
        painter.setFont(font)
        painter.setPen(QColor(tokens.text if self.isEnabled() else tokens.muted))
        room = QRectF(left + 18, area.top(), right - left - 18, area.height())
        text = painter.fontMetrics().elidedText(self.text(), Qt.TextElideMode.ElideMiddle, int(room.width()))
        painter.drawText(room, Qt.AlignmentFlag.AlignVCenter, text)
        painter.end()


class TargetsBar(QWidget):
    """The study's targets, one of them current; hidden where there is only one."""

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, TargetRow] = {}
        self._targets: tuple[Target, ...] = ()
        self._group = QButtonGroup(self)
        self._layout = QVBoxLayout(self)
        box(self._layout, spacing=2)
        self.hide()

    def show_targets(self, targets: Sequence[Target], current: str | None) -> None:
        """Show the targets and which of them is current; None for all of them at once."""
        if tuple(targets) != self._targets:
            self._targets = tuple(targets)
            for row in self.rows.values():
                self._group.removeButton(row)
            clear(self._layout)
            self.rows = {}
            for target in targets:
                row = TargetRow(target, depth_of(target, targets))
                row.clicked.connect(lambda _checked=False, name=target.id: self.chosen.emit(name))
                self._group.addButton(row)
                self._layout.addWidget(row)
                self.rows[target.id] = row
        self._group.setExclusive(current is not None)
        for name, row in self.rows.items():
            row.setChecked(current is None or name == current)
        self.setVisible(len(targets) > 1)

    def set_states(self, states: States) -> None:
        """Show a word for each target, where there is one."""
        for name, row in self.rows.items():
            row.set_state(*states.get(name, ("", "muted")))


def depth_of(target: Target, targets: Sequence[Target]) -> int:
    """Return how many targets a target lies inside of."""
    outer = {one.id: one.inside for one in targets}
    depth, name = 0, target.inside
    while name is not None and depth < len(targets):
        depth, name = depth + 1, outer.get(name)
    return depth


def beside(targets: Sequence[Target], current: str, step: int) -> str:
    """Return the target `step` on; after the last comes the first."""
    ids = [target.id for target in targets]
    return ids[(ids.index(current) + step) % len(ids)]


class LookFor(QWidget):
    """What is looked for while recording: the current target large, the others below, and how they are taken."""

    target_chosen = Signal(str)
    together_wanted = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        column = QVBoxLayout(self)
        box(column, spacing=theme.NORMAL)
        self._way = QWidget()
        row = QHBoxLayout(self._way)
        box(row, spacing=0)
        self.one_by_one = self._segment(
            "left",
            self.tr("One by one"),
            self.tr("Each image is looked at once for each target; Tab goes to the next target"),
        )
        self.together = self._segment(
            "right",
            self.tr("Together"),
            self.tr("Each image is looked at once, for all targets; the words count for each of them"),
        )
        group = QButtonGroup(self)
        for button in (self.one_by_one, self.together):
            group.addButton(button)
        self.one_by_one.setChecked(True)
        self.together.toggled.connect(self.together_wanted)
        row.addWidget(heading(self.tr("Look for")), 1)
        row.addWidget(self.one_by_one)
        row.addWidget(self.together)
        self._large = QWidget()
        large = QHBoxLayout(self._large)
        box(large, spacing=theme.NORMAL)
        self._dot = Dot(14)
        self.name = ElidedLabel()
        self.name.setFont(theme.heading_font(20))
        self.lesion = Pill()
        self.lesion.setToolTip(self.tr("Which lesion of this target is looked at; L goes to the next"))
        large.addWidget(self._dot)
        large.addWidget(self.name, 1)
        large.addWidget(self.lesion)
        self.targets = TargetsBar()
        self.targets.chosen.connect(self.target_chosen)
        for widget in (self._way, self._large, self.targets):
            column.addWidget(widget)
        self.hide()

    def _segment(self, side: str, text: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setProperty("role", "segment")
        button.setProperty("side", side)
        button.setCheckable(True)
        button.setToolTip(tip)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        button.setCursor(Qt.CursorShape.PointingHandCursor)
        return button

    def show_look(
        self, targets: Sequence[Target], current: Target, instance: int | None, *, running: bool
    ) -> None:
        """Show what is looked for; of a study with one target, only while it is recorded."""
        several, together = len(targets) > 1, self.is_together(targets)
        self._way.setVisible(several)
        self.targets.show_targets(targets, None if together else current.id)
        self._large.setVisible(running)
        self.name.setText(self.tr("All targets") if together else current.name)
        self._dot.setVisible(not together)
        self._dot.set_colour(current.colour)
        self.lesion.setVisible(instance is not None)
        if instance is not None:
            self.lesion.set(self.tr("lesion {number}").format(number=instance), "accent")
        self.setVisible(several or running)

    def is_together(self, targets: Sequence[Target]) -> bool:
        """Whether all targets are looked for at once."""
        return len(targets) > 1 and self.together.isChecked()

    def order(self, targets: Sequence[Target]) -> list[str]:
        """Return the targets in the order they are looked for; empty where there is none: one, or all at once."""
        several = len(targets) > 1 and not self.is_together(targets)
        return [target.id for target in targets] if several else []
