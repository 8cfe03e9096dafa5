"""The keys of the record page: what each action is called, which key it has, and which key was pressed.

A key is told as Qt writes it in every language (``Space``, ``Shift+Tab``, ``Ctrl+F13``). Foot pedals send ordinary
keys, often F13 to F24 or PageDown, so that any key can be bound, with or without Ctrl, Alt, Shift and Meta.
"""

from __future__ import annotations

from typing import Literal, get_args

from PySide6.QtCore import QCoreApplication, QKeyCombination, QObject, QSettings, Qt, Signal
from PySide6.QtGui import QKeyEvent, QKeySequence

from gaze_capture.errors import UserError

Action = Literal[
    "next", "back", "nothing", "unsure", "ungradable", "found", "next_lesion", "next_target", "previous_target",
    "pause", "drift_check", "voice_note", "end",
]  # fmt: skip
ACTIONS: tuple[Action, ...] = get_args(Action)

DEFAULTS: dict[Action, str] = {
    "next": "Space",
    "back": "Backspace",
    "nothing": "0",
    "unsure": "Q",
    "ungradable": "U",
    "found": "F",
    "next_lesion": "L",
    "next_target": "Tab",
    "previous_target": "Shift+Tab",
    "pause": "P",
    "drift_check": "D",
    "voice_note": "V",
    "end": "Esc",
}

RESERVED = (
    "Ctrl+1", "Ctrl+2", "Ctrl+3", "Ctrl+4", "Ctrl+5", "Ctrl+N", "Ctrl+O", "Ctrl+Q", "Ctrl+K", "Ctrl+Tab",
    "?", "Shift+?",
)  # fmt: skip
"""Keys of the window, which it would take before the page sees them."""

_ALONE = (
    Qt.Key.Key_Shift, Qt.Key.Key_Control, Qt.Key.Key_Alt, Qt.Key.Key_Meta, Qt.Key.Key_AltGr, Qt.Key.Key_CapsLock,
    Qt.Key.Key_NumLock, Qt.Key.Key_ScrollLock, Qt.Key.Key_unknown,
)  # fmt: skip
_COUNTED = (
    Qt.KeyboardModifier.ShiftModifier
    | Qt.KeyboardModifier.ControlModifier
    | Qt.KeyboardModifier.AltModifier
    | Qt.KeyboardModifier.MetaModifier
)


def title(action: Action) -> str:
    """Return what an action is called."""
    translate = QCoreApplication.translate
    titles: dict[Action, str] = {
        "next": translate("Keymap", "Next image or volume"),
        "back": translate("Keymap", "Back"),
        "nothing": translate("Keymap", "Nothing here"),
        "unsure": translate("Keymap", "Unsure"),
        "ungradable": translate("Keymap", "Ungradable"),
        "found": translate("Keymap", "Found it"),
        "next_lesion": translate("Keymap", "Next lesion of the target"),
        "next_target": translate("Keymap", "Next target"),
        "previous_target": translate("Keymap", "Previous target"),
        "pause": translate("Keymap", "Pause, and go on"),
        "drift_check": translate("Keymap", "Check the drift"),
        "voice_note": translate("Keymap", "Begin or end a voice note"),
        "end": translate("Keymap", "End the recording"),
    }
    return titles[action]


def key_of(event: QKeyEvent) -> str:
    """Return the key that was pressed; empty for a modifier alone, or for none that Qt knows."""
    key, modifiers = event.key(), event.modifiers() & _COUNTED
    if key == 0 or key in _ALONE:
        return ""
    if key == Qt.Key.Key_Backtab:
        # What Qt makes of Shift and Tab.
        key, modifiers = Qt.Key.Key_Tab, modifiers | Qt.KeyboardModifier.ShiftModifier
    return _portable(QKeySequence(QKeyCombination(modifiers, Qt.Key(key))))


def _portable(sequence: QKeySequence) -> str:
    return sequence.toString(QKeySequence.SequenceFormat.PortableText) if sequence.count() == 1 else ""


def shown(key: str) -> str:
    """Return a key as it is written on this computer's keyboard."""
    return QKeySequence(key).toString(QKeySequence.SequenceFormat.NativeText)


class Keymap(QObject):
    """Which key does what; kept in the settings, where only what differs from the defaults is written."""

    changed = Signal()

    def __init__(self, settings: QSettings, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._settings = settings
        self._keys = dict(DEFAULTS)
        self.reload()

    def reload(self) -> None:
        """Read the settings again; what makes no sense in them, or has one key twice, has the defaults."""
        stored = {
            action: _portable(QKeySequence(str(self._settings.value(f"keys/{action}", "") or "")))
            for action in ACTIONS
        }
        keys = {action: stored[action] or DEFAULTS[action] for action in ACTIONS}
        sound = len(set(keys.values())) == len(keys) and not set(keys.values()) & set(RESERVED)
        self._keys = keys if sound else dict(DEFAULTS)

    def key(self, action: Action) -> str:
        """Return an action's key."""
        return self._keys[action]

    def action_of(self, event: QKeyEvent) -> Action | None:
        """Return what a key that was pressed does on the record page, or None."""
        pressed = key_of(event)
        return next((action for action, key in self._keys.items() if key == pressed), None)

    def check(self, action: Action, key: str) -> str:
        """Return the key as it would be stored.

        Raises
        ------
        UserError
            If it is none, belongs to the window, or does something else already.
        """
        portable = _portable(QKeySequence(key))
        if not portable:
            raise UserError(
                QCoreApplication.translate("Keymap", "{key} is no key that can be used.").format(
                    key=key or "–"
                )
            )
        if portable in RESERVED:
            raise UserError(
                QCoreApplication.translate(
                    "Keymap", "{key} belongs to the window itself; choose another key."
                ).format(key=shown(portable))
            )
        other = next(
            (name for name, taken in self._keys.items() if taken == portable and name != action), None
        )
        if other is not None:
            raise UserError(
                QCoreApplication.translate(
                    "Keymap", "{key} is the key of “{other}” already; give that one another key first."
                ).format(key=shown(portable), other=title(other))
            )
        return portable

    def bind(self, action: Action, key: str) -> None:
        """Give an action another key.

        Raises
        ------
        UserError
            As :meth:`check`; nothing is changed then.
        """
        portable = self.check(action, key)
        self._keys[action] = portable
        if portable == DEFAULTS[action]:
            self._settings.remove(f"keys/{action}")
        else:
            self._settings.setValue(f"keys/{action}", portable)
        self.changed.emit()

    def reset(self) -> None:
        """Give every action its first key again."""
        self._settings.remove("keys")
        self._keys = dict(DEFAULTS)
        self.changed.emit()

    @property
    def is_default(self) -> bool:
        """Whether every action has its first key."""
        return self._keys == DEFAULTS
