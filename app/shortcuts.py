"""All keys on one sheet."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import QDialog, QGridLayout, QHBoxLayout, QVBoxLayout, QWidget

from app import theme
from app.keymap import ACTIONS, Keymap, shown, title
from app.layer_keys import key_text
from app.layer_panel import layer_title
from app.scene import KEYS, LAYERS
from app.widgets import box, heading, label, scrolled

AIR = 64
"""Left of the window around the sheet, both sides together."""


class ShortcutsDialog(QDialog):
    """The keys of every page; Esc closes it."""

    def __init__(self, parent: QWidget, keymap: Keymap) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Shortcuts"))
        groups: list[list[tuple[str, list[tuple[str, str]]]]] = [
            [
                (
                    self.tr("Pages"),
                    [
                        ("S", self.tr("Study")),
                        ("R", self.tr("Record (on Review: Ctrl+2)")),
                        ("T", self.tr("Train")),
                        ("V", self.tr("Review")),
                        ("Ctrl+1 … Ctrl+5", self.tr("These and Quality, everywhere")),
                        ("?", self.tr("This sheet")),
                    ],
                ),
                (
                    self.tr("Image"),
                    [
                        ("F", self.tr("Fit")),
                        ("Shift+F", self.tr("One image pixel per pixel of the screen")),
                        ("+  -", self.tr("Zoom, as the wheel; in a volume Ctrl+wheel")),
                        ("W", self.tr("Dragging changes width and centre")),
                        ("Shift+W", self.tr("Next window in common use")),
                        (self.tr("Right drag"), self.tr("Change the window, at any time")),
                    ],
                ),
                (
                    self.tr("Volume"),
                    [
                        (self.tr("Wheel, ↑ ↓"), self.tr("Previous or next slice")),
                        ("PgUp  PgDn", self.tr("Five slices on")),
                        ("Home  End", self.tr("First or last slice")),
                    ],
                ),
                (
                    self.tr("Compare and measure, on Review"),
                    [
                        ("C", self.tr("Other side or image alone, while held")),
                        ("Shift+C", self.tr("Side by side, then blinking, then not")),
                        ("I", self.tr("Probabilities and levels at the pointer")),
                        (self.tr("H  Alt+click"), self.tr("What made a pixel what it is")),
                        ("M", self.tr("Measure by dragging; Esc clears")),
                    ],
                ),
            ],
            [
                (
                    self.tr("Layers (hold to peek)"),
                    [
                        *((key_text(name), layer_title(name)) for name in LAYERS[:KEYS]),
                        (
                            f"{key_text(LAYERS[KEYS])} … {key_text(LAYERS[-1])}",
                            self.tr("With Shift: {layers}").format(
                                layers=", ".join(layer_title(name) for name in LAYERS[KEYS:])
                            ),
                        ),
                        ("O", self.tr("Outlines of all targets")),
                    ],
                ),
                (self.tr("Record"), [(shown(keymap.key(action)), title(action)) for action in ACTIONS]),
                (
                    self.tr("Targets, where there are several"),
                    [
                        ("Tab", self.tr("Next target; Shift+Tab previous")),
                        ("Ctrl+Tab", self.tr("On to the next control")),
                    ],
                ),
            ],
            [
                (
                    self.tr("Review"),
                    [
                        (self.tr("Space  N"), self.tr("Next image or volume")),
                        ("Backspace", self.tr("Back")),
                        ("Ctrl+F", self.tr("Search the list; Enter goes there, Esc clears")),
                        ("0", self.tr("Nothing here")),
                        ("Q  U", self.tr("Unsure, ungradable")),
                        ("A", self.tr("Accept")),
                        ("E", self.tr("Edit the mask")),
                        ("R", self.tr("Reject")),
                        ("G", self.tr("Look again: new gaze, now or next time")),
                        ("Z", self.tr("Undo a verdict, G or a description's change")),
                        ("D", self.tr("Approve the description")),
                        (self.tr("Enter  Del"), self.tr("On a row of the description: edit, revert")),
                        ("Ctrl+Enter", self.tr("On a row of the description: approve")),
                    ],
                ),
                (
                    self.tr("Editing a mask"),
                    [
                        ("B  X", self.tr("Brush, eraser")),
                        ("L  P", self.tr("Lasso, polygon (Enter closes it)")),
                        ("K", self.tr("Flood; again: of holes and parts")),
                        ("T", self.tr("Threshold of the student, live")),
                        (self.tr("[  ]  Wheel"), self.tr("Size, tolerance or threshold")),
                        ("Shift", self.tr("Take away instead of adding")),
                        ("Z  Shift+Z", self.tr("Undo or redo a step")),
                        ("Space", self.tr("Move the image while held")),
                        (self.tr("Enter  A"), self.tr("Store the mask and go on")),
                        ("Esc", self.tr("Leave; the edit is kept as a draft")),
                    ],
                ),
                (
                    self.tr("Train, on the list of runs"),
                    [
                        (self.tr("Ctrl+click"), self.tr("Choose several")),
                        ("C", self.tr("Compare those chosen")),
                        ("F2", self.tr("Rename")),
                        ("Ctrl+E", self.tr("Export as one archive")),
                        (self.tr("Del"), self.tr("Delete")),
                    ],
                ),
            ],
        ]
        notes = (
            self.tr(
                "Recording, the key of the next image says that the target is in the image; with several targets one "
                "by one it leads to the next target of the same image, then to the next image. In a volume nothing "
                "here, unsure and ungradable count for the slice shown and lead to the next one; the key of the next "
                "image leaves the volume."
            ),
            self.tr(
                "Reviewing, verdicts count for the current target and slice, and lead to the next slice that waits "
                "for one, then to the next image."
            ),
        )
        body = QWidget()
        whole = QVBoxLayout(body)
        box(whole, margins=(theme.HUGE,) * 4, spacing=theme.NORMAL)
        columns = QHBoxLayout()
        box(columns, spacing=theme.HUGE)
        whole.addLayout(columns)
        for note in notes:
            whole.addWidget(label(note, "muted", wrap=True))
        for group in groups:
            column = QVBoxLayout()
            box(column, spacing=theme.NORMAL)
            for name, keys in group:
                column.addWidget(heading(name))
                grid = QGridLayout()
                box(grid, spacing=theme.NORMAL)
                grid.setVerticalSpacing(3)
                grid.setColumnStretch(1, 1)
                for row, (key, meaning) in enumerate(keys):
                    grid.addWidget(label(key, "key"), row, 0, Qt.AlignmentFlag.AlignLeft)
                    grid.addWidget(label(meaning), row, 1)
                column.addLayout(grid)
                column.addSpacing(theme.NORMAL)
            column.addStretch(1)
            columns.addLayout(column)
        outer = QVBoxLayout(self)
        box(outer)
        self.area = scrolled(body)
        self.area.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        outer.addWidget(self.area)
        self.area.setFocus()
        # Beside a sheet that is cut below stands its scroll bar; the keys page through it.
        bar = self.area.verticalScrollBar().sizeHint().width()
        width = body.sizeHint().width()
        height = whole.totalHeightForWidth(width)
        room = parent.window().size() - QSize(AIR, AIR)
        self.resize(
            min(width + (bar if height > room.height() else 0), room.width()), min(height, room.height())
        )
