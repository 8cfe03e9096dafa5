"""All keys on one sheet."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QGridLayout, QHBoxLayout, QVBoxLayout, QWidget

from app import theme
from app.layer_panel import layer_title
from app.scene import LAYERS
from app.widgets import box, heading, label


class ShortcutsDialog(QDialog):
    """The keys of every page; Esc closes it."""

    def __init__(self, parent: QWidget) -> None:
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
                        ("Ctrl+1 … Ctrl+4", self.tr("The same, everywhere")),
                        ("?", self.tr("This sheet")),
                    ],
                ),
                (
                    self.tr("Image"),
                    [
                        ("F", self.tr("Fit")),
                        ("+  -", self.tr("Zoom; so does the wheel")),
                        ("C", self.tr("Image alone while held")),
                    ],
                ),
            ],
            [
                (
                    self.tr("Layers (hold to peek)"),
                    [(str(n + 1), layer_title(name)) for n, name in enumerate(LAYERS)],
                ),
            ],
            [
                (
                    self.tr("Record and review"),
                    [
                        ("Space", self.tr("Next image")),
                        ("Backspace", self.tr("Previous image")),
                        ("0", self.tr("Nothing here")),
                        ("U", self.tr("Ungradable")),
                    ],
                ),
                (self.tr("Record"), [("Esc", self.tr("End the recording"))]),
                (
                    self.tr("Review"),
                    [
                        ("A", self.tr("Accept")),
                        ("R", self.tr("Reject")),
                        ("Z", self.tr("Undo the verdict")),
                        ("N", self.tr("Next image")),
                    ],
                ),
            ],
        ]
        columns = QHBoxLayout(self)
        box(columns, margins=(theme.HUGE,) * 4, spacing=40)
        for group in groups:
            column = QVBoxLayout()
            box(column, spacing=theme.NORMAL)
            for title, keys in group:
                column.addWidget(heading(title))
                grid = QGridLayout()
                box(grid, spacing=theme.NORMAL)
                grid.setColumnStretch(1, 1)
                for row, (key, meaning) in enumerate(keys):
                    grid.addWidget(label(key, "key"), row, 0, Qt.AlignmentFlag.AlignLeft)
                    grid.addWidget(label(meaning), row, 1)
                column.addLayout(grid)
                column.addSpacing(theme.NORMAL)
            column.addStretch(1)
            columns.addLayout(column)
