"""Colours, spacing, type and icons: one set of tokens, dark and light, and the style sheet made of them."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QFont, QFontDatabase, QGuiApplication, QIcon, QPalette
from PySide6.QtWidgets import QApplication

Mode = Literal["dark", "light"]

SMALL, NORMAL, WIDE, LARGE, HUGE = 4, 8, 12, 16, 24
"""Spacing in pixels."""
RADIUS = 6
CONTROL_HEIGHT = 32
ICON_SIZE = 18
SURROUND = "#202020"
"""Neutral grey around the image in both modes: a coloured or bright surround shifts how tissue is seen."""

# What lies on that surround, or on the image itself, is the same in both modes, too.
LINE = "#FFFFFF"
"""Of a tool's marks."""
MARK = "#7FE3D4"
"""What is measured, or spoken of: lighter than every layer's colour, so that it is none of them."""
ON_DARK = "#C6CDD4"
"""Text and icons of the bars that float there."""
BETWEEN = "#3A434D"
"""A line between two canvases, or the groove of a slider."""
RAMPS: dict[str, tuple[tuple[float, str], ...]] = {
    "heatmap": ((0, "#1B0C41"), (0.4, "#A52C60"), (0.7, "#FB9B06"), (1, "#FCFFA4")),
    "words": ((0, "#440154"), (0.4, "#2A788E"), (0.7, "#35B779"), (1, "#FDE725")),
    "doubt": ((0, "#00224E"), (0.4, "#666970"), (0.7, "#A69D75"), (1, "#FEE838")),
}
"""Places and colours of samples of the maps inferno, viridis and cividis."""


@dataclass(frozen=True)
class Tokens:
    """The colours of one mode, as ``#RRGGBB``."""

    mode: Mode
    background: str
    surface: str
    raised: str
    border: str
    text: str
    muted: str
    accent: str
    accent_hover: str
    on_accent: str
    warning: str
    danger: str
    selection: str
    """Ground of a selected row."""

    @property
    def grounds(self) -> tuple[str, ...]:
        """Every colour that text is set on, other than the accent."""
        return self.background, self.surface, self.raised, self.selection


DARK = Tokens(
    mode="dark",
    background="#14171A",
    surface="#1B1F24",
    raised="#242A31",
    border="#323B45",
    text="#E8EBEE",
    muted="#A0AAB4",
    accent="#2FB7A3",
    accent_hover="#4CC9B7",
    on_accent="#0B1512",
    warning="#E0A030",
    danger="#F07167",
    selection="#1A2F2D",
)
LIGHT = Tokens(
    mode="light",
    background="#F6F7F8",
    surface="#FFFFFF",
    raised="#EEF0F2",
    border="#D5DADF",
    text="#1B1F24",
    muted="#56616C",
    accent="#0B7A6C",
    accent_hover="#096659",
    on_accent="#FFFFFF",
    warning="#855600",
    danger="#B3261E",
    selection="#E6F2F0",
)

_ICONS = Path(str(resources.files("resources"))) / "icons"
"""Style sheets take images by path only."""

_current: Tokens = DARK


def current() -> Tokens:
    """Return the tokens in force."""
    return _current


def luminance(colour: str) -> float:
    """Return a colour's relative luminance, 0..1 (WCAG 2.2)."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours, 1..21 (WCAG 2.2)."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def mode_of_system() -> Mode:
    """Return what the desktop asks for; dark where it says nothing: reading rooms are dark."""
    scheme = QGuiApplication.styleHints().colorScheme()
    return "light" if scheme == Qt.ColorScheme.Light and sys.platform in ("win32", "darwin") else "dark"


def apply(application: QApplication, mode: Mode) -> None:
    """Put a mode into force: Fusion with an explicit palette, since a wished colour scheme may be ignored."""
    global _current
    _current = DARK if mode == "dark" else LIGHT
    if application.style().objectName() != "fusion":
        application.setStyle("Fusion")
    application.setFont(_base_font())
    application.setPalette(palette(_current))
    application.setStyleSheet(style_sheet(_current))


def _base_font() -> QFont:
    font = QFontDatabase.systemFont(QFontDatabase.SystemFont.GeneralFont)
    if sys.platform.startswith("linux") and font.family().lower() in (
        "sans serif",
        "sans",
        "dejavu sans",
        "",
    ):
        # No desktop has chosen a font: prefer one drawn for screens where it is installed.
        font.setFamilies(["Inter", "Noto Sans", "Cantarell", "Ubuntu", "DejaVu Sans", font.family()])
    font.setPixelSize(13)
    return font


def heading_font(pixels: int) -> QFont:
    """Return the semibold font of headings, 16 or 20 pixels high."""
    font = QFont(QApplication.font())
    font.setPixelSize(pixels)
    font.setWeight(QFont.Weight.DemiBold)
    return font


def number_font(pixels: int, weight: QFont.Weight = QFont.Weight.Normal) -> QFont:
    """Return a font whose figures are all of one width, so that live numbers do not jitter."""
    font = QFont(QApplication.font())
    font.setPixelSize(pixels)
    font.setWeight(weight)
    font.setFeature(QFont.Tag("tnum"), 1)
    return font


def palette(tokens: Tokens) -> QPalette:
    """Return the palette Fusion draws with."""
    role = QPalette.ColorRole
    colours = {
        role.Window: tokens.background,
        role.WindowText: tokens.text,
        role.Base: tokens.surface,
        role.AlternateBase: tokens.raised,
        role.Text: tokens.text,
        role.Button: tokens.raised,
        role.ButtonText: tokens.text,
        role.BrightText: tokens.danger,
        role.ToolTipBase: tokens.raised,
        role.ToolTipText: tokens.text,
        role.PlaceholderText: tokens.muted,
        role.Highlight: tokens.accent,
        role.HighlightedText: tokens.on_accent,
        role.Link: tokens.accent,
        role.LinkVisited: tokens.accent,
        role.Light: tokens.border,
        role.Midlight: tokens.raised,
        role.Mid: tokens.border,
        role.Dark: tokens.border,
        role.Shadow: tokens.background,
    }
    result = QPalette()
    for name, colour in colours.items():
        result.setColor(name, QColor(colour))
    for name in (role.WindowText, role.Text, role.ButtonText):
        result.setColor(
            QPalette.ColorGroup.Disabled, name, QColor(blend(tokens.muted, tokens.background, 0.6))
        )
    return result


def blend(colour: str, ground: str, share: float) -> str:
    """Mix a colour into a ground; `share` 1 is the colour alone."""
    pairs = [(int(colour[i : i + 2], 16), int(ground[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a * share + b * (1 - share)):02X}" for a, b in pairs)


_SHEET = """
QToolTip { background: $raised; color: $text; border: 1px solid $border; padding: 4px 6px; }
QMainWindow, QDialog { background: $background; }
QLabel { background: transparent; }
QLabel[role="muted"] { color: $muted; font-size: 12px; }
QLabel[role="warning"] { color: $warning; font-size: 12px; }
QLabel[role="danger"] { color: $danger; font-size: 12px; }
QLabel[role="good"] { color: $accent; font-size: 12px; }
QLabel[role="key"] {
    color: $muted; background: $raised; border: 1px solid $border; border-radius: 4px;
    padding: 1px 6px; font-size: 12px;
}
QFrame#panel { background: $surface; border: none; }
QFrame#panelLeft { background: $surface; border: none; border-right: 1px solid $border; }
QFrame#panelRight { background: $surface; border: none; border-left: 1px solid $border; }
QFrame#attribute { border: 1px solid transparent; border-radius: 6px; background: transparent; }
QFrame#attribute[pointed="true"] { background: $raised; }
QFrame#attribute:focus { border: 1px solid $accent; }
QFrame#rowButtons { background: $raised; border: none; border-radius: 4px; }
QFrame#cell { background: transparent; border: none; border-bottom: 1px solid $border; }
QFrame#cell[differs="true"] { background: $selection; }
QFrame#rail { background: $background; border: none; border-right: 1px solid $border; }
QFrame#editRow { background: $surface; border: none; border-bottom: 1px solid $border; }
QFrame#statusBar { background: $background; border: none; border-top: 1px solid $border; }
QFrame#card { background: $surface; border: 1px solid $border; border-radius: 6px; }
QFrame#choice { background: $surface; border: 1px solid $border; border-radius: 6px; }
QFrame#choice:hover { background: $raised; }
QFrame#choice:focus { border: 1px solid $text; }
QFrame#choice[chosen="true"] { background: $selection; border: 1px solid $accent; }
QFrame#choice[chosen="true"]:focus { border: 2px solid $accent; }
QFrame#hero { background: $surface; border: 1px solid $border; border-radius: 6px; }
QFrame#chip { background: $selection; border: none; border-radius: 6px; }
QFrame#line { background: $border; border: none; max-height: 1px; min-height: 1px; }
QFrame#dropZone { background: transparent; border: 1px dashed $dashed; border-radius: 6px; }
QFrame#dropZone[hot="true"] { background: $selection; border: 1px dashed $accent; }
QFrame#banner { background: $raised; border: 1px solid $dashed; border-radius: 6px; }
QFrame#miniBar { background: rgba(20, 23, 26, 225); border: 1px solid #3A434D; border-radius: 6px; }
QFrame#miniBar QToolButton { color: #E8EBEE; border-radius: 4px; padding: 0 6px; min-width: 20px; }
QFrame#miniBar QToolButton:hover { background: #2C333B; }
QFrame#miniBar QLabel { color: #C6CDD4; font-size: 12px; }
QFrame#miniBar QToolButton:checked { background: #2C333B; border: 1px solid #4CC9B7; }
QFrame#probe { background: rgba(20, 23, 26, 225); border: 1px solid #3A434D; border-radius: 6px; }
QFrame#probe QLabel { color: #C6CDD4; font-size: 12px; }
QLabel#caption {
    background: rgba(20, 23, 26, 225); color: #E8EBEE; border: 1px solid #3A434D; border-radius: 6px;
    padding: 3px 8px; font-size: 12px;
}
QLabel#stageLine {
    background: rgba(20, 23, 26, 225); color: #E8EBEE; border: 1px solid #3A434D; border-radius: 6px;
    padding: 8px 16px; font-size: 15px;
}

QPushButton {
    background: $raised; color: $text; border: 1px solid $border; border-radius: 6px;
    padding: 0 12px; min-height: 30px;
}
QPushButton:hover { background: $hover; }
QPushButton:pressed { background: $border; }
QPushButton:focus { border: 1px solid $accent; }
QPushButton:disabled { color: $disabled; background: $surface; }
QPushButton[role="primary"] {
    background: $accent; color: $on_accent; border: 1px solid $accent; min-height: 38px;
    padding: 0 20px; font-weight: 600;
}
QPushButton[role="primary"]:hover { background: $accent_hover; border-color: $accent_hover; }
QPushButton[role="primary"]:focus { border: 2px solid $text; }
QPushButton[role="primary"]:disabled { background: $raised; color: $disabled; border-color: $border; }
QPushButton[role="danger"] { background: $raised; color: $danger; border: 1px solid $danger; min-height: 38px; }
QPushButton[role="danger"]:hover { background: $endangered; }
QPushButton[role="danger"]:focus { border: 2px solid $danger; }
QPushButton[role="danger"]:disabled { color: $disabled; border-color: $border; }
QPushButton[role="plain"] { background: transparent; border: 1px solid transparent; color: $accent; padding: 0 6px; }
QPushButton[role="plain"]:hover { background: $raised; }
QPushButton[role="plain"]:focus { border: 1px solid $accent; }
QPushButton[role="plain"]:disabled { color: $disabled; background: transparent; }
QPushButton[role="segment"] {
    background: transparent; border: 1px solid $border; border-radius: 0; padding: 0 8px; min-height: 24px;
    font-size: 12px;
}
QPushButton[role="segment"]:hover { background: $raised; }
QPushButton[role="segment"]:checked { background: $selection; border: 1px solid $accent; }
QPushButton[role="segment"]:focus { border: 1px solid $accent; }
QPushButton[role="segment"][side="left"] { border-top-left-radius: 6px; border-bottom-left-radius: 6px; }
QPushButton[role="segment"][side="right"] { border-top-right-radius: 6px; border-bottom-right-radius: 6px; }
QPushButton[role="word"] { min-height: 38px; padding: 0 2px; font-size: 12px; }
QPushButton[role="verdict"] { min-height: 38px; }
QPushButton[role="verdict"]:checked { background: $selection; border: 1px solid $accent; font-weight: 600; }

QToolButton { background: transparent; border: 1px solid transparent; border-radius: 6px; color: $text; }
QToolButton:hover { background: $raised; }
QToolButton:focus { border: 1px solid $accent; }
QToolButton[role="rail"] { color: $muted; font-size: 11px; padding: 6px 0 4px 0; min-width: 54px; max-width: 54px; }
QToolButton[role="rail"]:checked { background: $selection; color: $accent; font-weight: 600; }
QToolButton[role="tool"]:checked { background: $selection; border: 1px solid $accent; }
QToolButton[role="fold"] { color: $text; padding: 4px 6px 4px 0; }
QToolButton::menu-indicator { image: none; }

QLineEdit, QComboBox, QSpinBox, QDoubleSpinBox {
    background: $field; color: $text; border: 1px solid $border; border-radius: 6px; min-height: 30px;
    padding: 0 8px; selection-background-color: $accent; selection-color: $on_accent;
}
QLineEdit:focus, QComboBox:focus, QSpinBox:focus, QDoubleSpinBox:focus { border: 1px solid $accent; }
QLineEdit:disabled, QComboBox:disabled, QSpinBox:disabled, QDoubleSpinBox:disabled { color: $disabled; }
QFrame#attribute QPlainTextEdit {
    background: $field; color: $text; border: 1px solid $border; border-radius: 6px; padding: 2px;
    selection-background-color: $accent; selection-color: $on_accent;
}
QFrame#attribute QPlainTextEdit:focus { border: 1px solid $accent; }
QDialog QPlainTextEdit {
    background: $field; color: $text; border: 1px solid $border; border-radius: 6px; padding: 4px;
    selection-background-color: $accent; selection-color: $on_accent;
}
QDialog QPlainTextEdit:focus { border: 1px solid $accent; }
QComboBox { padding-right: 4px; }
QComboBox::drop-down { border: none; width: 24px; }
QComboBox::down-arrow { image: url($caret); width: 12px; height: 12px; }
QComboBox QAbstractItemView {
    background: $raised; color: $text; border: 1px solid $border; outline: none; padding: 4px;
    selection-background-color: $selection; selection-color: $text;
}
QAbstractSpinBox QLineEdit { border: none; background: transparent; min-height: 0; padding: 0; }
QAbstractSpinBox { min-height: 25px; padding-left: 0; }
QAbstractSpinBox::up-button, QAbstractSpinBox::down-button { width: 0; border: none; }
QCheckBox { spacing: 8px; min-height: 24px; }

QListView, QTableView {
    background: $surface; border: none; outline: none; gridline-color: transparent;
    selection-background-color: $selection; selection-color: $text;
}
QHeaderView { background: $surface; border: none; }
QHeaderView::section {
    background: $surface; color: $muted; border: none; border-bottom: 1px solid $border;
    padding: 6px 12px; font-size: 12px; text-align: left;
}
QTableView::item { padding: 0 8px; border: none; border-bottom: 1px solid $faint; }
QTableView::item:selected { background: $selection; color: $text; }
QTreeView {
    background: $surface; border: 1px solid $border; border-radius: 6px; outline: none; padding: 4px;
    selection-background-color: $selection; selection-color: $text;
}
QTreeView::item { padding: 3px 0; }
QTreeView::item:selected { background: $selection; color: $text; }
QDialog QListWidget { border: 1px solid $border; border-radius: 6px; padding: 4px; }
QDialog QListWidget::item { padding: 6px 8px; border-radius: 4px; }
QDialog QListWidget::item:selected { background: $selection; color: $text; }
QRadioButton { spacing: 8px; min-height: 24px; }
QCheckBox::indicator, QRadioButton::indicator {
    width: 16px; height: 16px; background: $field; border: 1px solid $edge; border-radius: 4px;
}
QRadioButton::indicator { border-radius: 9px; }
QCheckBox::indicator:hover, QRadioButton::indicator:hover { border: 1px solid $accent; }
QCheckBox::indicator:checked { background: $accent; border: 1px solid $accent; image: url($check); }
QRadioButton::indicator:checked { background: $accent; border: 1px solid $accent; image: url($dot); }
QCheckBox::indicator:focus, QRadioButton::indicator:focus { border: 2px solid $text; }
QCheckBox::indicator:disabled, QRadioButton::indicator:disabled { border: 1px solid $border; background: $faint; }
QPushButton::menu-indicator { image: none; width: 0; }
QWidget#warningRow { background: $warned; border: 1px solid $warning; border-radius: 6px; }
QToolButton#swatch:checked { border: 2px solid $text; }
QScrollArea { background: transparent; border: none; }
QScrollArea > QWidget > QWidget { background: transparent; }
QScrollBar:vertical { background: transparent; width: 10px; margin: 2px; }
QScrollBar:horizontal { background: transparent; height: 10px; margin: 2px; }
QScrollBar::handle { background: $border; border-radius: 3px; min-height: 28px; min-width: 28px; }
QScrollBar::handle:hover { background: $dashed; }
QScrollBar::add-line, QScrollBar::sub-line, QScrollBar::add-page, QScrollBar::sub-page {
    background: transparent; width: 0; height: 0;
}
QProgressBar {
    background: $raised; border: none; border-radius: 3px; min-height: 6px; max-height: 6px; color: transparent;
}
QProgressBar::chunk { background: $accent; border-radius: 3px; }
QProgressBar[role="thin"], QProgressBar[role="filling"] { min-height: 4px; max-height: 4px; border-radius: 2px; }
QProgressBar[role="thin"]::chunk { border-radius: 2px; }
QProgressBar[role="filling"]::chunk { border-radius: 2px; background: $muted; }
QSlider::groove:horizontal { background: $border; height: 4px; border-radius: 2px; }
QSlider::sub-page:horizontal { background: $slider; height: 4px; border-radius: 2px; }
QSlider::handle:horizontal { background: $muted; width: 12px; height: 12px; margin: -4px 0; border-radius: 6px; }
QSlider::handle:horizontal:hover, QSlider::handle:horizontal:focus { background: $accent; }
QSlider::sub-page:horizontal:disabled, QSlider::groove:horizontal:disabled { background: $faint; }
QSlider::handle:horizontal:disabled { background: $border; }
QMenu { background: $raised; color: $text; border: 1px solid $border; padding: 4px; }
QMenu::item { padding: 6px 24px 6px 12px; border-radius: 4px; }
QMenu::item:selected { background: $selection; }
QMenu::separator { height: 1px; background: $border; margin: 4px 8px; }
QSplitter::handle { background: $border; }
"""


def style_sheet(tokens: Tokens) -> str:
    """Return the application's style sheet in a mode's colours."""
    values = {
        **{name: value for name, value in vars(tokens).items() if isinstance(value, str)},
        "hover": blend(tokens.border, tokens.raised, 0.6),
        "dashed": blend(tokens.muted, tokens.border, 0.4),
        "disabled": blend(tokens.muted, tokens.background, 0.6),
        "field": tokens.background if tokens.mode == "dark" else tokens.surface,
        "endangered": blend(tokens.danger, tokens.surface, 0.14),
        "warned": blend(tokens.warning, tokens.surface, 0.12),
        "faint": blend(tokens.border, tokens.surface, 0.5),
        "edge": blend(tokens.muted, tokens.border, 0.7),
        "check": (_ICONS / f"check-{tokens.mode}.svg").as_posix(),
        "dot": (_ICONS / f"dot-{tokens.mode}.svg").as_posix(),
        "caret": (_ICONS / f"caret-{tokens.mode}.svg").as_posix(),
        "slider": blend(tokens.accent, tokens.border, 0.7),
    }
    sheet = _SHEET
    # Longest names first: $accent is the beginning of $accent_hover.
    for name in sorted(values, key=len, reverse=True):
        sheet = sheet.replace(f"${name}", values[name])
    return sheet


@functools.cache
def _icon_font() -> Any:
    # One font of qtawesome's twelve: loading them all costs a tenth of a second at start.
    from qtawesome.iconic_font import IconicFont

    return IconicFont(("ph", "phosphor-1.3.0.ttf", "phosphor-charmap-1.3.0.json"))


def icon(name: str, colour: str | None = None, *, active: str | None = None) -> QIcon:
    """Return a Phosphor icon by name in a colour (text's if not given); `active` colours its checked state."""
    tokens = current()
    base = colour or tokens.text
    options: dict[str, str] = {
        "color": base,
        "color_disabled": blend(tokens.muted, tokens.background, 0.5),
        "color_on": active or base,
        "color_on_active": active or base,
        "color_on_selected": active or base,
    }
    result: QIcon = _icon_font().icon(f"ph.{name}", **options)
    return result
