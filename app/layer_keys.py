"""Which layer a key stands for: the digits by their place on the keyboard, whatever Shift makes of them."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication, QKeyEvent

from app.scene import KEYS, LAYERS, LayerName

_MAC_DIGITS = (18, 19, 20, 21, 23, 22, 26, 28, 25)
"""Virtual keys of 1 to 9."""
_FIRST_SCAN_CODE = {"windows": 2, "xcb": 10, "wayland": 10}
"""Of the key 1; 2 to 9 follow."""


def key_text(name: LayerName) -> str:
    """Return a layer's key for people."""
    number = LAYERS.index(name) + 1
    return str(number) if number <= KEYS else f"⇧{number - KEYS}"


def layer_of(event: QKeyEvent, *, either: bool = False) -> LayerName | None:
    """Return the layer whose key an event is of, or None; `either` disregards Shift."""
    digit = _digit(event)
    if digit is None:
        return None
    # A keypad's digits with Shift are other keys to Qt already.
    beyond = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier) and not either
    place = digit - 1 + (KEYS if beyond else 0)
    return LAYERS[place] if place < len(LAYERS) else None


def _digit(event: QKeyEvent) -> int | None:
    platform = QGuiApplication.platformName()
    if platform == "cocoa" and event.nativeVirtualKey() in _MAC_DIGITS:
        return _MAC_DIGITS.index(event.nativeVirtualKey()) + 1
    first = _FIRST_SCAN_CODE.get(platform)
    if first is not None and first <= event.nativeScanCode() < first + KEYS:
        return event.nativeScanCode() - first + 1
    digit = event.key() - int(Qt.Key.Key_0)
    return digit if 1 <= digit <= KEYS else None
