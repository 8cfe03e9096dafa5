"""Words before the participant's eyes: over the whole picture, or in a line above it."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QColor, QFont, QPainter, QPaintEvent
from PySide6.QtWidgets import QLabel, QVBoxLayout, QWidget

from app import theme
from app.widgets import box

TEXT = "#D5DADF"
TITLE = "#F2F4F6"


class Veil(QWidget):
    """Hides what its parent shows, and says why; as large as the parent, whatever its size."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._over = parent
        self._title = _words(TITLE, theme.heading_font(22))
        self._text = _words(TEXT, theme.heading_font(15))
        column = QVBoxLayout(self)
        box(column, margins=(theme.HUGE,) * 4, spacing=theme.LARGE)
        column.addStretch(1)
        column.addWidget(self._title)
        column.addWidget(self._text)
        column.addStretch(1)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        parent.installEventFilter(self)
        self.hide()

    @property
    def words(self) -> str:
        """What is said now; empty where nothing is hidden."""
        return "" if self.isHidden() else f"{self._title.text()}\n{self._text.text()}"

    def cover(self, title: str, text: str) -> None:
        """Hide the parent's picture and say something."""
        self._title.setText(title)
        self._text.setText(text)
        self._fill()
        self.show()
        self.raise_()

    def lift(self) -> None:
        """Show the picture again."""
        self.hide()

    def _fill(self) -> None:
        self.setGeometry(self._over.rect())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Stay as large as the parent."""
        if event.type() == QEvent.Type.Resize and not self.isHidden():
            self._fill()
        return False

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the canvas's own surround: hiding an image must not change how bright the display is."""
        QPainter(self).fillRect(self.rect(), QColor(theme.SURROUND))


class Line(QLabel):
    """One sentence at the top of its parent."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._over = parent
        self.setObjectName("stageLine")
        self.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.setWordWrap(True)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        parent.installEventFilter(self)
        self.hide()

    def say(self, text: str) -> None:
        """Show a sentence; hide with an empty one."""
        self.setText(text)
        self.setVisible(bool(text))
        if text:
            self._place()
            self.raise_()

    def _place(self) -> None:
        room = max(120, self._over.width() - 2 * theme.HUGE)
        width = min(room, self.fontMetrics().horizontalAdvance(self.text()) + 2 * theme.LARGE + 4)
        height = self.heightForWidth(width)
        self.setGeometry((self._over.width() - width) // 2, theme.LARGE, width, height)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Stay at the parent's top."""
        if event.type() == QEvent.Type.Resize and not self.isHidden():
            self._place()
        return False


def _words(colour: str, font: QFont) -> QLabel:
    made = QLabel()
    made.setAlignment(Qt.AlignmentFlag.AlignCenter)
    made.setWordWrap(True)
    made.setFont(font)
    made.setStyleSheet(f"color: {colour}; background: transparent;")
    return made
