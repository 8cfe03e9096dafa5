"""The button that opens a list's filter, the filter itself, and the line that says what is filtered."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from PySide6.QtCore import QPoint, Qt, Signal
from PySide6.QtWidgets import QCheckBox, QFrame, QHBoxLayout, QVBoxLayout, QWidget

from app import theme
from app.criteria import DESCRIPTION, EDIT, FIELDS, NONE_SAID, SAID, UNFINISHED, WHY
from app.description_rows import readable
from app.texts import for_menu
from app.widgets import Button, ElidedLabel, Fold, IconButton, box, clear, label, scrolled

LONGEST = 24
"""Values of more characters are cut."""

Chosen = tuple[tuple[str, frozenset[str]], ...]


class FilterPopup(QFrame):
    """Groups of values to tick, with how many images have each; none ticked in a group means all."""

    changed = Signal()

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Popup)
        self.setObjectName("card")
        self.boxes: dict[tuple[str, str], QCheckBox] = {}
        self._ticked: dict[str, set[str]] = defaultdict(set)
        self._unfolded: set[str] = set()
        self._titles = {
            "split": self.tr("Split"),
            "presence": self.tr("Target"),
            "quality": self.tr("Gaze"),
            WHY: self.tr("Doubt, because"),
            EDIT: self.tr("Edit"),
            DESCRIPTION: self.tr("Description"),
        }
        self._words = {
            ("presence", "present"): self.tr("Present"),
            ("presence", "absent"): self.tr("Absent"),
            ("presence", "unsure"): self.tr("Unsure"),
            ("presence", "ungradable"): self.tr("Ungradable"),
            ("presence", NONE_SAID): self.tr("Nothing said"),
            ("quality", "ok"): self.tr("Good"),
            ("quality", "brief"): self.tr("Looked at briefly"),
            ("quality", "few"): self.tr("Few fixations inside"),
            ("quality", NONE_SAID): self.tr("No gaze"),
            (WHY, "student"): self.tr("Student is unsure"),
            (WHY, "gaze"): self.tr("Gaze lies elsewhere"),
            (WHY, "levels"): self.tr("Levels lie far apart"),
            (WHY, "quality"): self.tr("Gaze is poor"),
            (WHY, "contradiction"): self.tr("Description differs"),
            (WHY, "word"): self.tr("Annotator disagrees"),
            (WHY, NONE_SAID): self.tr("No reason"),
            (EDIT, UNFINISHED): self.tr("Unfinished"),
            (EDIT, NONE_SAID): self.tr("None left unfinished"),
            (DESCRIPTION, "measured"): self.tr("Measured"),
            (DESCRIPTION, "openai"): self.tr("VLM on a server"),
            (DESCRIPTION, "transformers"): self.tr("Local VLM"),
            (DESCRIPTION, "annotator"): self.tr("Annotator"),
            (DESCRIPTION, "contradiction"): self.tr("With contradictions"),
            (DESCRIPTION, "edited"): self.tr("Edited"),
            (DESCRIPTION, "approved"): self.tr("Approved"),
            (DESCRIPTION, NONE_SAID): self.tr("None"),
        }
        outer = QVBoxLayout(self)
        box(outer, margins=(0, theme.NORMAL, 0, theme.NORMAL), spacing=theme.NORMAL)
        body = QWidget()
        self._groups = QVBoxLayout(body)
        box(self._groups, margins=(theme.WIDE, 0, theme.WIDE, 0), spacing=2)
        outer.addWidget(scrolled(body), 1)
        foot = QHBoxLayout()
        box(foot, margins=(theme.NORMAL, 0, theme.WIDE, 0))
        self.clear_button = Button(self.tr("Clear"), role="plain", on_click=self.clear)
        foot.addWidget(self.clear_button)
        foot.addStretch(1)
        outer.addLayout(foot)
        self.setFixedWidth(240)

    def word(self, field: str, value: str) -> str:
        """Return a value in words; a split's own name."""
        return self._words.get((field, value), value)

    def offer(self, counts: Mapping[str, Counter[str]]) -> None:
        """Offer the values that occur, and those that are ticked; a group of a single value needs no choice."""
        clear(self._groups)
        self.boxes.clear()
        for field in (*FIELDS, DESCRIPTION):
            values = set(counts.get(field, ())) | self._ticked[field]
            if len(values) < 2 and not self._ticked[field]:
                continue
            self._groups.addWidget(label(self._titles[field], "muted"))
            self._add_boxes(self._groups, field, values, counts.get(field, Counter()))
            self._groups.addSpacing(theme.SMALL)
        self._offer_words(counts)
        if not self.boxes:
            self._groups.addWidget(label(self.tr("All images are alike so far."), "muted", wrap=True))
        self._groups.addStretch(1)
        self._fit()

    def _add_boxes(self, column: QVBoxLayout, field: str, values: set[str], counts: Counter[str]) -> None:
        order = {key: number for number, key in enumerate(self._words)}
        for value in sorted(values, key=lambda value: (order.get((field, value), 0), value)):
            words = self.word(field, value)
            if len(words) > LONGEST:
                words = words[: LONGEST - 1] + "…"
            tick = QCheckBox(for_menu(f"{words}  {counts[value]:,}"))
            tick.setChecked(value in self._ticked[field])
            tick.toggled.connect(lambda on, value=value: self._tick(field, value, on))
            column.addWidget(tick)
            self.boxes[field, value] = tick

    def _offer_words(self, counts: Mapping[str, Counter[str]]) -> None:
        """Offer the words of each attribute that descriptions have, folded away: there are many."""
        fields = dict.fromkeys([*counts, *(field for field, values in self._ticked.items() if values)])
        for field in (field for field in fields if field.startswith(SAID)):
            values = set(counts.get(field, ())) | self._ticked[field]
            if len(values) < 2 and not self._ticked[field]:
                continue
            fold = Fold(self.title(field))
            column = QVBoxLayout(fold.body)
            box(column, margins=(theme.WIDE, 0, 0, theme.SMALL), spacing=2)
            self._add_boxes(column, field, values, counts.get(field, Counter()))
            fold.toggle.setChecked(bool(self._ticked[field]) or field in self._unfolded)
            fold.toggle.toggled.connect(lambda on, field=field: self._unfold(field, on))
            self._groups.addWidget(fold)

    def _unfold(self, field: str, opened: bool) -> None:
        (self._unfolded.add if opened else self._unfolded.discard)(field)
        self._fit()

    def _fit(self) -> None:
        """Be as high as what is offered, within limits."""
        shown = [key for key in self.boxes if not key[0].startswith(SAID) or self._is_unfolded(key[0])]
        folds = len({field for field, _ in self.boxes if field.startswith(SAID)})
        groups = len({field for field, _ in self.boxes if not field.startswith(SAID)})
        self.setFixedHeight(min(520, 72 + 26 * max(len(shown), 1) + 28 * groups + 30 * folds))

    def _is_unfolded(self, field: str) -> bool:
        return field in self._unfolded or bool(self._ticked[field])

    def title(self, field: str) -> str:
        """Return a field's name for people."""
        return self._titles.get(field) or readable(field.removeprefix(SAID))

    def _tick(self, field: str, value: str, on: bool) -> None:
        (self._ticked[field].add if on else self._ticked[field].discard)(value)
        self.changed.emit()

    def clear(self) -> None:
        """Untick everything."""
        for ticked in self._ticked.values():
            ticked.clear()
        for tick in self.boxes.values():
            tick.blockSignals(True)
            tick.setChecked(False)
            tick.blockSignals(False)
        self.changed.emit()

    @property
    def chosen(self) -> Chosen:
        """The ticked values by field."""
        return tuple((field, frozenset(values)) for field, values in self._ticked.items() if values)

    def choose(self, chosen: Chosen) -> None:
        """Tick these values alone."""
        self._ticked.clear()
        for field, values in chosen:
            self._ticked[field] = set(values)
        self.changed.emit()

    def sentence(self) -> str:
        """Say what is filtered; empty where nothing is."""
        parts = (
            f"{self.title(field)}: {', '.join(sorted(self.word(field, value) for value in values))}"
            for field, values in self.chosen
        )
        return " · ".join(parts)


class ListFilter(QFrame):
    """The chip under the search field; its button sits beside the field."""

    changed = Signal()

    def __init__(self, counts: Callable[[], Mapping[str, Counter[str]]]) -> None:
        super().__init__()
        self.setObjectName("chip")
        self._counts = counts
        self.button = IconButton("funnel", self.tr("Filter the list"), on_click=self.open)
        self.popup = FilterPopup(self)
        self.popup.changed.connect(self._follow)
        layout = QHBoxLayout(self)
        box(layout, margins=(theme.NORMAL, 0, 0, 0), spacing=theme.SMALL)
        self.text = ElidedLabel("", "muted")
        self.clear_button = IconButton("x", self.tr("Clear the filter"), on_click=self.popup.clear)
        layout.addWidget(self.text, 1)
        layout.addWidget(self.clear_button)
        self.hide()

    @property
    def chosen(self) -> Chosen:
        """The ticked values by field."""
        return self.popup.chosen

    def choose(self, chosen: Chosen) -> None:
        """Tick these values alone."""
        self.popup.choose(chosen)

    def open(self) -> None:
        """Show the filter under its button."""
        self.popup.offer(self._counts())
        corner = self.button.mapToGlobal(QPoint(self.button.width(), self.button.height() + 4))
        self.popup.move(corner - QPoint(self.popup.width(), 0))
        self.popup.show()

    def _follow(self) -> None:
        sentence = self.popup.sentence()
        self.text.setText(sentence)
        self.setVisible(bool(sentence))
        self.button.set_icon("funnel-simple" if sentence else "funnel")
        self.changed.emit()
