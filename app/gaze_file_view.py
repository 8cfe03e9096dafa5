"""One gaze file in the import dialog: its name, what it is, what is in it, and why it cannot come in."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QProgressBar, QVBoxLayout, QWidget

from app import theme
from app.dialogs import LABEL_WIDTH
from app.gaze_words import facts_of, format_words
from app.widgets import ElidedLabel, Pill, box, clear, label
from segmentation.gaze_preview import GazePreview

BUSY_AFTER_MS = 300
NARROW = 80
"""Width of the facts' names where the file shares its row with the questions."""


class GazeFileView(QWidget):
    """Shows a file; a bar moves while it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: dict[str, str] = {}
        """What is shown, by name."""
        self.name = ElidedLabel()
        self.name.setFont(theme.heading_font(16))
        self.pill = Pill()
        head = QHBoxLayout()
        box(head, spacing=theme.WIDE)
        head.addWidget(self.name, 1)
        head.addWidget(self.pill)
        self.trouble = label("", "danger", wrap=True)
        self.trouble.hide()
        self.busy = QProgressBar()
        self.busy.setProperty("role", "thin")
        self.busy.setTextVisible(False)
        self.busy.setRange(0, 0)
        self.busy.hide()
        self._busy_soon = QTimer(self, singleShot=True, interval=BUSY_AFTER_MS)
        self._busy_soon.timeout.connect(self.busy.show)
        self._grid = QGridLayout()
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(theme.WIDE)
        self._grid.setVerticalSpacing(6)
        self._grid.setColumnStretch(1, 1)
        column = QVBoxLayout(self)
        box(column, spacing=theme.WIDE)
        column.addLayout(head)
        column.addWidget(self.trouble)
        column.addWidget(self.busy)
        column.addLayout(self._grid)

    def set_narrow(self, narrow: bool) -> None:
        """Give the facts' names less room, or that of the questions' names."""
        self._grid.setColumnMinimumWidth(0, NARROW if narrow else LABEL_WIDTH)

    def set_busy(self, busy: bool) -> None:
        """Show after a moment that a file is being read."""
        if busy:
            self._busy_soon.start()
        else:
            self._busy_soon.stop()
            self.busy.hide()

    def show_file(self, file: Path, preview: GazePreview | None) -> None:
        """Show a file, and what is known of it; None before it has been read."""
        self.name.setText(file.name)
        self.name.setToolTip(str(file))
        clear(self._grid)
        rows = facts_of(preview) if preview is not None else []
        self.facts = dict(rows)
        for row, (name, words) in enumerate(rows):
            value = label(words, wrap=True)
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            self._grid.addWidget(label(name, "muted"), row, 0, Qt.AlignmentFlag.AlignTop)
            self._grid.addWidget(value, row, 1)
        if preview is None:
            self.pill.set(self.tr("Reading…"), "muted")
        else:
            self.pill.set(format_words(preview.format), "danger" if preview.problem else "accent")
        self.pill.setVisible(preview is None or bool(preview.format))
        self.trouble.setText(preview.problem if preview is not None else "")
        self.trouble.setVisible(bool(self.trouble.text()))
