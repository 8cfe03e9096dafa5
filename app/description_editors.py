"""Editors of one attribute: its words, a number or one of the words beside it, or free remarks."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QCoreApplication, Qt, Signal
from PySide6.QtGui import QKeyEvent, QTextCursor, QValidator, QWheelEvent
from PySide6.QtWidgets import QComboBox, QDoubleSpinBox, QPlainTextEdit

from segmentation.explanation_presets import Attribute
from segmentation.reply import MAX_REMARKS


class WordEditor(QComboBox):
    """An attribute's words; Enter stores, Escape leaves it, choosing with the mouse stores."""

    stored = Signal()
    cancelled = Signal()

    def __init__(self, words: tuple[str, ...], value: Any) -> None:
        super().__init__()
        self.addItems(list(words))
        self.setCurrentIndex(self.findText(str(value)))
        self.setMinimumContentsLength(6)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._by_list = False
        self.activated.connect(self._choose)

    @property
    def value(self) -> str:
        """The word chosen."""
        return self.currentText()

    def showPopup(self) -> None:
        """Open the list; what is chosen there is meant."""
        self._by_list = True
        super().showPopup()

    def _choose(self) -> None:
        if self._by_list:
            self.stored.emit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Store or cancel."""
        self._by_list = False
        if not _ends(self, event):
            super().keyPressEvent(event)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Scroll the panel, not the words."""
        event.ignore()


class NumberEditor(QDoubleSpinBox):
    """A number, or below zero one of the words beside it; Enter stores, Escape leaves it."""

    stored = Signal()
    cancelled = Signal()

    def __init__(self, attribute: Attribute, value: Any) -> None:
        super().__init__()
        self._words = attribute.words
        self._unit = {"percent": " %", "millimetres": " mm"}.get(attribute.kind, "")
        self.setDecimals(1)
        self.setRange(-float(len(self._words)), 100.0 if attribute.kind == "percent" else 100_000.0)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        self.setValue(float(value) if number else self._code(str(value)))
        self.selectAll()

    @property
    def value_said(self) -> float | str:
        """The number or the word."""
        number = round(self.value(), 1)
        return number if number >= 0 else self._words[min(-int(number) - 1, len(self._words) - 1)]

    def _code(self, word: str) -> float:
        return -1.0 - self._words.index(word) if word in self._words else 0.0

    def textFromValue(self, value: float) -> str:
        """Write the number with its unit, or the word."""
        return (
            f"{value:g}{self._unit}"
            if value >= 0
            else self._words[min(-int(value) - 1, len(self._words) - 1)]
        )

    def valueFromText(self, text: str) -> float:
        """Read a number or a word."""
        text = text.strip()
        if text in self._words:
            return self._code(text)
        try:
            return float(text.removesuffix(self._unit.strip()).replace(",", ".").strip())
        except ValueError:
            return self.value()

    def validate(self, text: str, position: int) -> tuple[QValidator.State, str, int]:
        """Let numbers and the beginnings of words pass."""
        plain = text.strip().removesuffix(self._unit.strip()).replace(",", ".").strip()
        if plain in self._words:
            return QValidator.State.Acceptable, text, position
        if not plain or any(word.startswith(plain) for word in self._words):
            return QValidator.State.Intermediate, text, position
        try:
            fine = 0 <= float(plain) <= self.maximum()
        except ValueError:
            fine = False
        return (QValidator.State.Acceptable if fine else QValidator.State.Invalid), text, position

    def stepBy(self, steps: int) -> None:
        """Go by whole numbers; from below one to zero, then through the words."""
        value = self.value()
        self.setValue(0.0 if 0 < value < -steps else value + steps)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Store or cancel."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.interpretText()
        if not _ends(self, event):
            super().keyPressEvent(event)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Scroll the panel, not the number."""
        event.ignore()


class TextEditor(QPlainTextEdit):
    """Free remarks as plain text; Enter stores, Escape leaves them."""

    stored = Signal()
    cancelled = Signal()

    def __init__(self, value: Any) -> None:
        super().__init__(str(value or ""))
        self.setFixedHeight(96)
        self.setTabChangesFocus(True)
        self.setToolTip(
            QCoreApplication.translate("Attributes", "Enter stores, Esc leaves it; at most {count} characters")
            .format(count=MAX_REMARKS)
        )  # fmt: skip
        self.moveCursor(QTextCursor.MoveOperation.End)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Store or cancel."""
        if not _ends(self, event):
            super().keyPressEvent(event)


Editor = WordEditor | NumberEditor | TextEditor


def _ends(editor: Editor, event: QKeyEvent) -> bool:
    if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
        editor.stored.emit()
    elif event.key() == Qt.Key.Key_Escape:
        editor.cancelled.emit()
    else:
        return False
    event.accept()
    return True
