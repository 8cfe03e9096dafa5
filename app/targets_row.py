"""A study's targets as pills of their colours, and the button to change them."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFontMetrics, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QWidget

from app import theme
from app.widgets import Button, box, label
from segmentation.records import Target

PILL_HEIGHT = 24
MOST_NAME_PX = 180


class TargetPills(QWidget):
    """As many pills as fit; the rest are counted."""

    def __init__(self) -> None:
        super().__init__()
        self._targets: tuple[Target, ...] = ()
        font = self.font()
        font.setPixelSize(12)
        self.setFont(font)
        self.setFixedHeight(PILL_HEIGHT)
        self.setMinimumWidth(80)
        self.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)

    def show_targets(self, targets: Sequence[Target]) -> None:
        """Show these targets."""
        self._targets = tuple(targets)
        names = ", ".join(target.name for target in targets)
        self.setAccessibleName(self.tr("Targets: {names}").format(names=names))
        self.setToolTip("\n".join(f"{target.name} ({target.id})" for target in targets))
        self.updateGeometry()
        self.update()

    def _text(self, target: Target) -> str:
        return QFontMetrics(self.font()).elidedText(target.name, Qt.TextElideMode.ElideMiddle, MOST_NAME_PX)

    def _width(self, target: Target) -> int:
        return QFontMetrics(self.font()).horizontalAdvance(self._text(target)) + 38

    def sizeHint(self) -> QSize:
        """Ask for the width of all."""
        width = sum(self._width(target) + theme.NORMAL for target in self._targets)
        return QSize(width, PILL_HEIGHT)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the pills."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        tokens = theme.current()
        left = 0
        for number, target in enumerate(self._targets):
            width = self._width(target)
            rest = len(self._targets) - number
            room = self.width() - left - (44 if rest > 1 else 0)
            if width > room:
                painter.setPen(QColor(tokens.muted))
                painter.drawText(
                    QRectF(left, 0, self.width() - left, PILL_HEIGHT),
                    Qt.AlignmentFlag.AlignVCenter,
                    f"+{rest}",
                )
                break
            area = QRectF(left + 0.5, 0.5, width - 1, PILL_HEIGHT - 1)
            painter.setPen(QPen(QColor(tokens.border), 1))
            painter.setBrush(QColor(tokens.surface))
            painter.drawRoundedRect(area, area.height() / 2, area.height() / 2)
            painter.setPen(QPen(QColor(tokens.muted), 1))
            painter.setBrush(QColor(target.colour))
            painter.drawRoundedRect(QRectF(left + 10.5, 6.5, 11, 11), 3, 3)
            painter.setPen(QColor(tokens.text))
            painter.drawText(area.adjusted(28, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, self._text(target))
            left += width + theme.NORMAL
        painter.end()


class TargetsRow(QWidget):
    """What is segmented in this study."""

    edit_wanted = Signal()

    def __init__(self, *, named: bool = True) -> None:
        super().__init__()
        layout = QHBoxLayout(self)
        box(layout, spacing=theme.NORMAL)
        if named:
            layout.addWidget(label(self.tr("Targets"), "muted"))
        self.pills = TargetPills()
        self.edit_button = Button(self.tr("Edit…"), "", "plain", self.edit_wanted.emit)
        self.edit_button.setAccessibleName(self.tr("Edit the targets"))
        self.edit_button.setAutoDefault(False)
        layout.addWidget(self.pills)
        layout.addWidget(self.edit_button)
        layout.addStretch(1)

    def show_targets(self, targets: Sequence[Target]) -> None:
        """Show these targets."""
        self.pills.show_targets(targets)
