"""Other keys for the record page: press the button, then the key or the foot pedal."""

from __future__ import annotations

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QFocusEvent, QKeyEvent
from PySide6.QtWidgets import QGridLayout, QWidget

from app import theme
from app.dialogs import Dialog
from app.keymap import ACTIONS, Action, Keymap, key_of, shown, title
from app.widgets import Button, box, label
from gaze_capture.errors import UserError


class KeyButton(Button):
    """Shows a key; pressed, it takes the next one, whatever that would do elsewhere."""

    key_pressed = Signal(str)
    # Before Qt's own constructor, which sends events already.
    waiting = False

    def __init__(self, name: str) -> None:
        super().__init__("")
        self._name = name
        self._key = ""
        self.setAutoDefault(False)
        self.setFixedWidth(190)
        self.clicked.connect(lambda _=False: self.wait(not self.waiting))

    def show_key(self, key: str) -> None:
        """Show a key."""
        self._key = key
        self.wait(False)

    def wait(self, on: bool) -> None:
        """Wait for a key, or no longer."""
        self.waiting = on
        text = self.tr("Press a key…") if on else shown(self._key)
        self.setText(text)
        self.setAccessibleName(f"{self._name}: {text}")
        self.setProperty("role", "verdict" if on else "")
        self.style().unpolish(self)
        self.style().polish(self)

    def event(self, event: QEvent) -> bool:
        """Take keys before shortcuts, Tab and the dialog's Esc and Enter do."""
        if self.waiting and isinstance(event, QKeyEvent):
            if event.type() == QEvent.Type.ShortcutOverride:
                event.accept()
                return True
            if event.type() == QEvent.Type.KeyPress:
                key = key_of(event)
                if key and not event.isAutoRepeat():
                    self.wait(False)
                    self.key_pressed.emit(key)
                return True
            if event.type() == QEvent.Type.KeyRelease:
                # That of the key which began the waiting.
                return True
        return super().event(event)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        """Wait no longer."""
        if self.waiting:
            self.wait(False)
        super().focusOutEvent(event)


class KeymapDialog(Dialog):
    """A row for each action; what is pressed counts at once."""

    def __init__(self, parent: QWidget | None, keymap: Keymap) -> None:
        super().__init__(
            parent,
            self.tr("Keys while recording"),
            self.tr(
                "Press a button, then the key it should have. Foot pedals send keys, too: press the pedal."
            ),
        )
        self.keymap = keymap
        self.buttons_of: dict[Action, KeyButton] = {}
        grid = QGridLayout()
        box(grid, spacing=theme.NORMAL)
        grid.setHorizontalSpacing(theme.HUGE)
        half = -(-len(ACTIONS) // 2)
        for number, action in enumerate(ACTIONS):
            column, row = divmod(number, half)
            name = label(title(action))
            button = KeyButton(title(action))
            button.key_pressed.connect(lambda key, action=action: self._bind(action, key))
            name.setBuddy(button)
            grid.addWidget(name, row, 2 * column)
            grid.addWidget(button, row, 2 * column + 1)
            self.buttons_of[action] = button
        self.body.addLayout(grid)
        self.body.addWidget(
            label(
                self.tr(
                    "In a volume, a key bound here no longer scrolls. Keys of the window, such as Ctrl+1, cannot be "
                    "used."
                ),
                "muted",
                wrap=True,
            )
        )
        self.body.addStretch(1)
        self.reset_button = Button(self.tr("Reset to defaults"), "arrow-counter-clockwise", "", self._reset)
        self.reset_button.setAutoDefault(False)
        self.foot_left.addWidget(self.reset_button)
        self.done_button = self.add_button(self.tr("Done"), self.accept, "primary")
        # Enter belongs to the row that waits for a key.
        self.done_button.setAutoDefault(False)
        self.done_button.setDefault(False)
        self._show()
        self.fit(820)
        self.buttons_of["next"].setFocus(Qt.FocusReason.OtherFocusReason)

    def _show(self) -> None:
        for action, button in self.buttons_of.items():
            button.show_key(self.keymap.key(action))
        self.reset_button.setEnabled(not self.keymap.is_default)

    def _bind(self, action: Action, key: str) -> None:
        try:
            self.keymap.bind(action, key)
        except UserError as error:
            self.show_problem(str(error))
        else:
            self.show_problem("")
        self._show()

    def _reset(self) -> None:
        self.keymap.reset()
        self.show_problem("")
        self._show()
