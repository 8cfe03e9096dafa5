"""Who describes: four cards, one of which is chosen."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QVBoxLayout, QWidget

from app import theme
from app.widgets import Card, IconLabel, box, heading, label


class BackendCard(Card):
    """A backend's name, what it does, and where the images go."""

    chosen = Signal()
    stepped = Signal(int)

    def __init__(self, icon: str, title: str, sentence: str) -> None:
        super().__init__(clickable=True)
        self.setObjectName("choice")
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAccessibleName(title)
        self.setAccessibleDescription(sentence)
        layout = QVBoxLayout(self)
        box(layout, margins=(theme.WIDE, theme.NORMAL, theme.WIDE, theme.NORMAL), spacing=2)
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        self.icon = IconLabel(icon)
        self._icon_name = icon
        head.addWidget(self.icon)
        head.addWidget(heading(title, 13), 1)
        self.sentence = label(sentence, "muted", wrap=True)
        layout.addLayout(head)
        layout.addWidget(self.sentence)
        layout.addStretch(1)
        self.clicked.connect(self.chosen)

    def mark(self, chosen: bool) -> None:
        """Show whether it is the chosen one."""
        self.setProperty("chosen", chosen)
        self.style().unpolish(self)
        self.style().polish(self)
        self.icon.set_icon(self._icon_name, "accent" if chosen else "muted")

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Choose by Space or Enter; arrows go to the neighbour."""
        steps = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1, Qt.Key.Key_Up: -2, Qt.Key.Key_Down: 2}
        if event.key() in (Qt.Key.Key_Space, Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.chosen.emit()
        elif event.key() in steps:
            self.stepped.emit(steps[Qt.Key(event.key())])
        else:
            super().keyPressEvent(event)


class BackendCards(QWidget):
    """Measured, own words, a server, a local model."""

    chosen = Signal(str)
    """One of `segmentation.explainers.opening.BACKENDS`."""

    def __init__(self) -> None:
        super().__init__()
        grid = QGridLayout(self)
        box(grid, spacing=theme.NORMAL)
        self.cards = {
            "measured": BackendCard(
                "ruler", self.tr("Measured"), self.tr("From the pixels, no model. Stays here; seconds.")
            ),
            "annotator": BackendCard(
                "note-pencil", self.tr("Own words"), self.tr("You type what you see. Stays here.")
            ),
            "openai": BackendCard(
                "hard-drives", self.tr("Server"), self.tr("Ollama, LM Studio, vLLM, or a cloud with consent.")
            ),
            "transformers": BackendCard(
                "cpu", self.tr("Local model"), self.tr("A model from a folder, run here. No network.")
            ),
        }
        self.value = ""
        for place, (name, card) in enumerate(self.cards.items()):
            grid.addWidget(card, place // 2, place % 2)
            grid.setColumnStretch(place % 2, 1)
            card.chosen.connect(lambda name=name: self.choose(name))
            card.stepped.connect(lambda step, place=place: self._step(place, step))

    def choose(self, name: str) -> None:
        """Choose a backend."""
        if name == self.value:
            return
        self.value = name
        for one, card in self.cards.items():
            card.mark(one == name)
        self.chosen.emit(name)

    def _step(self, place: int, step: int) -> None:
        names = list(self.cards)
        if 0 <= place + step < len(names):
            self.choose(names[place + step])
            self.cards[names[place + step]].setFocus()


def frame(body: QWidget) -> QFrame:
    """Return a part of a form in a frame of its own."""
    made = QFrame()
    made.setObjectName("card")
    layout = QVBoxLayout(made)
    box(layout, margins=(theme.WIDE,) * 4)
    layout.addWidget(body)
    return made
