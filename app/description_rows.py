"""One attribute of a description in a row: its name, what is said, where that comes from, and its editor in place."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from PySide6.QtCore import QCoreApplication, QEvent, QObject, Qt, QTimer, Signal
from PySide6.QtGui import (
    QEnterEvent,
    QFocusEvent,
    QKeyEvent,
    QMouseEvent,
    QResizeEvent,
)
from PySide6.QtWidgets import (
    QApplication,
    QFrame,
    QHBoxLayout,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.description_editors import Editor, NumberEditor, TextEditor, WordEditor
from app.widgets import IconButton, IconLabel, box, label
from segmentation.explanation_presets import Attribute

NAME_WIDTH = 104
LONGEST_WORD = 22
"""Longer words may be broken anywhere, so that none is wider than the panel."""

State = Literal["measured", "vlm", "annotator", "edited", "approved"]
STATE_ICONS: dict[State, tuple[str, str]] = {
    "measured": ("ruler", "muted"),
    "vlm": ("robot", "muted"),
    "annotator": ("user", "muted"),
    "edited": ("pencil-simple", "accent"),
    "approved": ("check-circle", "accent"),
}


def readable(name: str) -> str:
    """Return an attribute's name for people."""
    translate = QCoreApplication.translate
    known = {
        "area_percent": translate("Attributes", "Area"),
        "colour_contrast": translate("Attributes", "Colour contrast"),
        "intensity": translate("Attributes", "Brightness"),
    }
    return known.get(name) or name.replace("_", " ").strip().capitalize()


def value_in_words(value: Any, kind: str = "words") -> str:
    """Return what is said, for people."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.3g}" + {"percent": " %", "millimetres": " mm"}.get(kind, "")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def breakable(text: str) -> str:
    """Let long words break anywhere; what is shown stays the same."""
    return " ".join(
        "\u200b".join(word[at : at + 8] for at in range(0, len(word), 8))
        if len(word) > LONGEST_WORD
        else word
        for word in text.split(" ")
    )


def plain_tip(text: str) -> str:
    """Return a tooltip that shows a text as it is: Qt would take what looks like HTML for HTML."""
    return "<qt>" + html.escape(text).replace("\n", "<br>") + "</qt>" if text else ""


@dataclass(frozen=True)
class Said:
    """What a row shows."""

    attribute: Attribute
    value: Any
    state: State
    state_tip: str
    """Where it comes from, in a sentence; plain text."""
    contradiction: str = ""
    """The sentence where it contradicts what is measured; plain text."""
    can_revert: bool = False
    can_approve: bool = True
    can_edit: bool = True


class AttributeRow(QFrame):
    """Name and value; hovered or focused, it tells so and offers to edit, approve and revert."""

    pointed = Signal(str, bool)
    """The attribute, and whether pointer or focus are on it now."""
    changed = Signal(str, object)
    """Another value was entered."""
    approved = Signal(str)
    reverted = Signal(str)
    stepped = Signal(int)
    """Up (-1) or Down (1) was pressed."""
    left = Signal()
    """Escape was pressed."""

    def __init__(self, said: Said) -> None:
        super().__init__()
        self.setObjectName("attribute")
        self.said = said
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setToolTip(plain_tip(said.attribute.description))
        words = value_in_words(said.value, said.attribute.kind)
        self.setAccessibleName(f"{readable(said.attribute.name)}: {words}")
        self.setAccessibleDescription(f"{said.state_tip}. {said.contradiction}".strip())
        self.name = label(breakable(readable(said.attribute.name)), "muted", wrap=True)
        self.value = label(breakable(words), wrap=True)
        self.value.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.mark = IconLabel(*STATE_ICONS[said.state], 16)
        self.mark.setToolTip(plain_tip(said.state_tip))
        self.editor: Editor | None = None
        column = QVBoxLayout(self)
        box(column, margins=(theme.NORMAL, 5, theme.NORMAL, 5), spacing=2)
        self._line = QHBoxLayout()
        box(self._line, spacing=theme.NORMAL)
        top = Qt.AlignmentFlag.AlignTop
        long = said.attribute.kind == "text"
        if long:
            # Remarks need all of the width.
            head = QHBoxLayout()
            head.addWidget(self.name, 1)
            head.addWidget(self.mark, 0, top)
            column.addLayout(head)
            self._line.addWidget(self.value, 1)
        else:
            self.name.setFixedWidth(NAME_WIDTH)
            self._line.addWidget(self.name, 0, top)
            self._line.addWidget(self.value, 1)
        self.warning: QWidget | None = None
        if said.contradiction:
            sign = IconLabel("warning", "warning", 16)
            sign.setToolTip(plain_tip(said.contradiction))
            sign.setAccessibleName(said.contradiction)
            self._line.addWidget(sign, 0, top)
            self.warning = sign
        if not long:
            self._line.addWidget(self.mark, 0, top)
        column.addLayout(self._line)
        if said.contradiction:
            column.addWidget(label(breakable(said.contradiction), "warning", wrap=True))
        self.buttons: QFrame | None = None
        """Made when the row is first pointed at: thirty of them would delay each image."""

    def _make_buttons(self) -> QFrame:
        buttons = QFrame(self)
        buttons.setObjectName("rowButtons")
        row = QHBoxLayout(buttons)
        box(row, spacing=0)
        name = self.said.attribute.name

        def button(icon: str, tip: str, act: Callable[[], object]) -> IconButton:
            made = IconButton(icon, tip, on_click=act)
            made.setFixedSize(28, 22)
            made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            row.addWidget(made)
            return made

        if self.said.can_edit:
            button("pencil-simple", self.tr("Edit (Enter)"), lambda: self.edit(by_mouse=True))
        if self.said.can_approve:
            button("check", self.tr("Approve (Ctrl+Enter)"), lambda: self.approved.emit(name))
        if self.said.can_revert:
            tip = self.tr("Revert to what was said first (Del)")
            button("arrow-counter-clockwise", tip, lambda: self.reverted.emit(name))
        return buttons

    # Editing

    def edit(self, *, by_mouse: bool = False) -> None:
        """Put the attribute's editor in the value's place."""
        if self.editor is not None or not self.said.can_edit:
            return
        attribute, value = self.said.attribute, self.said.value
        made: Editor
        if attribute.kind == "words":
            made = WordEditor(attribute.words, value)
        elif attribute.kind == "text":
            made = TextEditor(value)
        else:
            made = NumberEditor(attribute, value)
        made.setAccessibleName(readable(attribute.name))
        made.stored.connect(self.store)
        made.cancelled.connect(self.cancel)
        made.installEventFilter(self)
        self.editor = made
        self.value.hide()
        self._place_buttons(False)
        self._line.insertWidget(self._line.indexOf(self.value), made, 1)
        made.show()
        made.setFocus()
        if isinstance(made, WordEditor) and by_mouse:
            # Later: the release of the button that is down would choose a word.
            QTimer.singleShot(0, made, made.showPopup)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Store what was changed where the focus goes elsewhere."""
        if (
            watched is self.editor
            and QApplication.activePopupWidget() is None
            and isinstance(event, QFocusEvent)
            and event.type() == QEvent.Type.FocusOut
            and event.reason()
            not in (Qt.FocusReason.PopupFocusReason, Qt.FocusReason.ActiveWindowFocusReason)
        ):
            self.store(keep_focus=False)
        return super().eventFilter(watched, event)

    def entered(self) -> Any:
        """Return what the editor holds."""
        editor = self.editor
        if isinstance(editor, WordEditor):
            return editor.value
        if isinstance(editor, NumberEditor):
            return editor.value_said
        return editor.toPlainText() if editor is not None else self.said.value

    def store(self, *, keep_focus: bool = True) -> None:
        """Close the editor and tell what was entered, if it is something else."""
        if self.editor is not None:
            entered = self.entered()
            self._close(keep_focus)
            if entered != self.said.value:
                self.changed.emit(self.said.attribute.name, entered)

    def cancel(self) -> None:
        """Close the editor; nothing has changed."""
        if self.editor is not None:
            self._close(True)

    def _close(self, keep_focus: bool) -> None:
        editor, self.editor = self.editor, None
        assert editor is not None
        self.value.show()
        if keep_focus:
            self.setFocus()
        editor.hide()
        editor.deleteLater()

    # Pointer, focus and keys

    def _point(self, on: bool) -> None:
        on = on or self.underMouse() or self.hasFocus()
        self.setProperty("pointed", on)
        self.style().unpolish(self)
        self.style().polish(self)
        self._place_buttons(on and self.editor is None)

    def _place_buttons(self, shown: bool) -> None:
        """Show the buttons at the right, over the marks, or hide them."""
        if self.buttons is None:
            if not shown:
                return
            self.buttons = self._make_buttons()
        self.buttons.adjustSize()
        self.buttons.move(self.width() - self.buttons.width() - 4, 3)
        self.buttons.setVisible(shown)
        self.buttons.raise_()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Keep the buttons at the right."""
        super().resizeEvent(event)
        if self.buttons is not None:
            self._place_buttons(self.buttons.isVisible())

    def enterEvent(self, event: QEnterEvent) -> None:
        """Tell that it is pointed at."""
        super().enterEvent(event)
        self._point(True)
        self.pointed.emit(self.said.attribute.name, True)

    def leaveEvent(self, event: QEvent) -> None:
        """Tell that it is not."""
        super().leaveEvent(event)
        self._point(self.hasFocus())
        self.pointed.emit(self.said.attribute.name, False)

    def focusInEvent(self, event: QFocusEvent) -> None:
        """Tell that it is pointed at."""
        super().focusInEvent(event)
        self._point(True)
        self.pointed.emit(self.said.attribute.name, True)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        """Tell that it is not."""
        super().focusOutEvent(event)
        self._point(False)
        self.pointed.emit(self.said.attribute.name, False)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Edit."""
        if event.button() == Qt.MouseButton.LeftButton:
            self.edit(by_mouse=True)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Take the click: the row has the focus now."""
        event.accept()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Edit, approve, revert, or go to the next row; other keys are the page's."""
        key, control = event.key(), bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and control:
            if self.said.can_approve:
                self.approved.emit(self.said.attribute.name)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.edit()
        elif key == Qt.Key.Key_Delete:
            if self.said.can_revert:
                self.reverted.emit(self.said.attribute.name)
        elif key in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            self.stepped.emit(1 if key == Qt.Key.Key_Down else -1)
        elif key == Qt.Key.Key_Escape:
            self.left.emit()
        else:
            super().keyPressEvent(event)
