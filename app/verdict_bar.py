"""The foot of the review page's inspector: what can be said of the image shown, the ways on, and how much is done."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QVBoxLayout, QWidget

from app import theme
from app.texts import duration_text
from app.verdicts import Word
from app.widgets import Button, IconButton, box, label


class VerdictBar(QWidget):
    """Buttons beside the keys A, E, R, 0, Q, U, Z, G, Backspace and Space."""

    given = Signal(str)
    """A Word."""
    edit_wanted = Signal()
    undo_wanted = Signal()
    again_wanted = Signal()
    move_wanted = Signal(int)
    """To the next (1) or previous (-1) image."""

    def __init__(self) -> None:
        super().__init__()
        grid = QGridLayout(self)
        box(grid, margins=(theme.LARGE, theme.WIDE, theme.LARGE, theme.LARGE), spacing=theme.NORMAL)
        self.accept_button = self._verdict(
            self.tr("Accept"), "check", self.tr("Accept this mask (A)"), "accepted", "primary"
        )
        self.edit_button = Button(self.tr("Edit"), "pencil-simple", "verdict", on_click=self.edit_wanted.emit)
        self.edit_button.setToolTip(self.tr("Correct this mask by hand (E)"))
        self.edit_button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.reject_button = self._verdict(
            self.tr("Reject"), "x", self.tr("Reject this mask (R)"), "rejected"
        )
        self.nothing_button = self._verdict(
            self.tr("Nothing here"), "", self.tr("The target is not in this image (0)"), "nothing", "word"
        )
        self.unsure_button = self._verdict(
            self.tr("Unsure"), "", self.tr("Whether the target is here cannot be said (Q)"), "unsure", "word"
        )
        self.ungradable_button = self._verdict(
            self.tr("Ungradable"), "", self.tr("The image cannot be judged (U)"), "ungradable", "word"
        )
        rows = (
            (self.accept_button, self.edit_button, self.reject_button),
            (self.nothing_button, self.unsure_button, self.ungradable_button),
        )
        for number, buttons in enumerate(rows):
            for place, button in enumerate(buttons):
                grid.addWidget(button, number, place)
                grid.setColumnStretch(place, 1)
        grid.addLayout(self._make_moves(), len(rows), 0, 1, 3)

    def _verdict(self, text: str, icon: str, tip: str, word: Word, role: str = "verdict") -> Button:
        made = Button(text, icon, role, on_click=lambda: self.given.emit(word))
        made.setToolTip(tip)
        made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        return made

    def _make_moves(self) -> QHBoxLayout:
        self.undo_button = IconButton(
            "arrow-u-up-left",
            self.tr("Undo the last verdict or change of a description (Z)"),
            on_click=self.undo_wanted.emit,
        )
        self.again_button = IconButton(
            "eye",
            self.tr("Look again: record new gaze, now or in the next session (G)"),
            on_click=self.again_wanted.emit,
        )
        self.progress, self.left = label("", "muted"), label("", "muted")
        told = QVBoxLayout()
        box(told, spacing=0)
        for text in (self.progress, self.left):
            text.setFont(theme.number_font(12))
            text.setAlignment(Qt.AlignmentFlag.AlignCenter)
            told.addWidget(text)
        back = IconButton(
            "arrow-left", self.tr("Previous image (Backspace)"), on_click=lambda: self.move_wanted.emit(-1)
        )
        forth = IconButton(
            "arrow-right", self.tr("Next image (Space or N)"), on_click=lambda: self.move_wanted.emit(1)
        )
        moves = QHBoxLayout()
        box(moves, spacing=theme.SMALL)
        moves.addWidget(self.undo_button)
        moves.addWidget(self.again_button)
        moves.addLayout(told, 1)
        moves.addWidget(back)
        moves.addWidget(forth)
        return moves

    def allow(self, *, image: bool, mask: bool, editing: bool, blind: bool) -> None:
        """Offer what can be said.

        Parameters
        ----------
        image
            Whether there is an image.
        mask
            Whether there is a mask to be judged.
        editing
            Whether it is being corrected: it can only be stored then.
        blind
            Whether what others said is hidden: asking for more gaze would tell of it.
        """
        self.accept_button.setEnabled(mask or editing)
        self.reject_button.setEnabled(mask and not editing)
        for button in (self.edit_button, self.nothing_button, self.unsure_button, self.ungradable_button):
            button.setEnabled(image and not editing)
        self.again_button.setEnabled(image and not editing and not blind)

    def show_progress(self, told: str, seconds_left: float | None) -> None:
        """Show how much is done, in words, and how long the rest will take where that is known."""
        self.progress.setText(told)
        self.left.setVisible(seconds_left is not None)
        if seconds_left is not None:
            time = duration_text(max(seconds_left, 1))
            self.left.setText(self.tr("about {time} left").format(time=time))
