"""The fields for what a gaze file does not tell; only those are shown that are asked for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from PySide6.QtCore import QSettings, Qt, Signal
from PySide6.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QCompleter,
    QHBoxLayout,
    QLineEdit,
    QListView,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.dialogs import Row, narrow
from app.widgets import box, label, set_role

SCREEN_PX = (100, 20_000)
SCREEN_MM = (50, 5_000)
DISTANCE_MM = (100, 5_000)
PLACE_PX = (-20_000, 20_000)
SHARED = ("screen_px", "screen_mm", "distance_mm", "rect_px", "eye", "time_unit", "coordinates")
"""Facts that are said once for all files that do not tell them."""
OF_ONE_FILE = ("stream", "image")
REMEMBERED = ("screen_px", "screen_mm", "distance_mm", "rect_px")
_GROUP = "import-gaze"


class NumberField(QLineEdit):
    """A number that may be left open."""

    def __init__(self, name: str, limits: tuple[float, float], placeholder: str = "") -> None:
        super().__init__()
        self._limits = limits
        self.setAccessibleName(name)
        self.setPlaceholderText(placeholder)
        self.setMaximumWidth(120)

    def value(self) -> float | None:
        """Return the number; None where there is none, or one that cannot be."""
        try:
            value = float(self.text().strip().replace(",", "."))
        except ValueError:
            return None
        low, high = self._limits
        return value if math.isfinite(value) and low <= value <= high else None

    def is_wrong(self) -> bool:
        """Whether something stands there that is no such number."""
        return bool(self.text().strip()) and self.value() is None

    def wrong_words(self) -> str:
        """Return which numbers can be."""
        low, high = self._limits
        return self.tr("{name}: a number from {low} to {high}.").format(
            name=self.accessibleName(), low=f"{low:g}", high=f"{high:g}"
        )


class Numbers(QWidget):
    """Some numbers in a row, with words between them."""

    changed = Signal()

    def __init__(self, fields: Sequence[NumberField], between: Sequence[str], unit: str) -> None:
        super().__init__()
        self.fields = tuple(fields)
        layout = QHBoxLayout(self)
        box(layout, spacing=theme.NORMAL)
        for number, field in enumerate(self.fields):
            if number and between[number - 1]:
                layout.addWidget(label(between[number - 1], "muted"))
            layout.addWidget(field, 1)
            field.textChanged.connect(lambda _: self.changed.emit())
        layout.addWidget(label(unit, "muted"))
        layout.addStretch(1)
        self.setFocusProxy(self.fields[0])

    def values(self) -> tuple[float, ...] | None:
        """Return all numbers, or None where one is open or wrong."""
        values = [field.value() for field in self.fields]
        told = tuple(value for value in values if value is not None)
        return told if len(told) == len(values) else None

    def fill(self, values: Sequence[float]) -> None:
        """Put numbers in."""
        for field, value in zip(self.fields, values, strict=True):
            field.setText(f"{value:g}")

    def wrong_words(self) -> str:
        """Return what is wrong with the first number that is."""
        return next((field.wrong_words() for field in self.fields if field.is_wrong()), "")


class Place(QWidget):
    """Where on the screen the images were."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        box(layout, margins=(0, 4, 0, 0), spacing=theme.SMALL)
        self.fit_button = QRadioButton(self.tr("In the screen's middle, as large as it fits"))
        self.rect_button = QRadioButton(self.tr("In a rectangle: left, top, width, height"))
        self._group = QButtonGroup(self)
        for button in (self.fit_button, self.rect_button):
            self._group.addButton(button)
            button.toggled.connect(lambda _: self._chosen())
        self.numbers = Numbers(
            [
                NumberField(self.tr("Left edge of the image"), PLACE_PX, self.tr("left")),
                NumberField(self.tr("Top edge of the image"), PLACE_PX, self.tr("top")),
                NumberField(self.tr("Width of the image on the screen"), (1, PLACE_PX[1]), self.tr("width")),
                NumberField(
                    self.tr("Height of the image on the screen"), (1, PLACE_PX[1]), self.tr("height")
                ),
            ],
            (",", "·", "×"),
            "px",
        )
        self.numbers.changed.connect(self.changed)
        self.numbers.setContentsMargins(26, 0, 0, 0)
        self.numbers.hide()
        for widget in (self.fit_button, self.rect_button, self.numbers):
            layout.addWidget(widget)
        self.setFocusProxy(self.fit_button)

    def _chosen(self) -> None:
        self.numbers.setVisible(self.rect_button.isChecked())
        self.changed.emit()

    def value(self) -> str | tuple[float, ...] | None:
        """Return ``fit``, a rectangle x, y, width, height in pixels, or None where nothing is said."""
        if self.fit_button.isChecked():
            return "fit"
        return self.numbers.values() if self.rect_button.isChecked() else None


class Questions(QWidget):
    """One row for each fact; `answers` has what was said."""

    changed = Signal()
    own_changed = Signal(str)
    """The answer about the file in view was changed: `stream` or `image`."""

    def __init__(self, images: Sequence[tuple[str, str]]) -> None:
        """Take the study's images as (words, id)."""
        super().__init__()
        self.screen_px = Numbers(
            [
                NumberField(self.tr("Width of the screen in pixels"), SCREEN_PX, "1920"),
                NumberField(self.tr("Height of the screen in pixels"), SCREEN_PX, "1080"),
            ],
            "×",
            "px",
        )
        self.screen_mm = Numbers(
            [
                NumberField(self.tr("Width of the screen in mm"), SCREEN_MM),
                NumberField(self.tr("Height of the screen in mm"), SCREEN_MM),
            ],
            "×",
            "mm",
        )
        self.distance_mm = Numbers([NumberField(self.tr("Distance in mm"), DISTANCE_MM)], "", "mm")
        self.place = Place()
        self.eye = self._choice(
            ((self.tr("Left"), "left"), (self.tr("Right"), "right"), (self.tr("Both"), "both"))
        )
        self.time_unit = self._choice(
            (
                (self.tr("Seconds"), "s"),
                (self.tr("Milliseconds"), "ms"),
                (self.tr("Microseconds"), "us"),
                (self.tr("Nanoseconds"), "ns"),
            )
        )
        self.coordinates = self._choice(
            ((self.tr("Pixels of the screen"), "px"), (self.tr("Shares of the screen, 0 to 1"), "normalised"))
        )
        self.stream = self._choice(())
        self.image = self._choice(images)
        self.image.setEditable(True)
        self.image.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        edit = self.image.lineEdit()
        assert edit is not None
        edit.setPlaceholderText(self.tr("Type a part of its name"))
        completer = QCompleter(self.image.model(), self.image)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        popup = completer.popup()
        if isinstance(popup, QListView):
            popup.setSpacing(3)
        self.image.setCompleter(completer)
        self.rows = {
            "stream": Row(
                self.tr("Recording"), self.stream, self.tr("The file holds several; one is taken at a time.")
            ),
            "image": Row(self.tr("Image"), self.image, self.tr("The one that was looked at all the time.")),
            "screen_px": Row(self.tr("Screen"), self.screen_px),
            "screen_mm": Row(
                self.tr("Screen's size"), self.screen_mm, self.tr("Of the picture, without the frame.")
            ),
            "distance_mm": Row(
                self.tr("Distance"), self.distance_mm, self.tr("From the eyes to the screen.")
            ),
            "rect_px": Row(self.tr("Image was"), self.place),
            "eye": Row(self.tr("Eye"), self.eye, self.tr("Of which the positions are.")),
            "time_unit": Row(self.tr("Times are in"), self.time_unit),
            "coordinates": Row(self.tr("Positions are"), self.coordinates),
        }
        column = QVBoxLayout(self)
        box(column, spacing=theme.WIDE)
        for row in self.rows.values():
            row.hide()
            column.addWidget(row)
        fields: list[QWidget] = [self.stream, self.image]
        for numbers in (self.screen_px, self.screen_mm, self.distance_mm):
            fields += numbers.fields
        fields += [self.place.fit_button, self.place.rect_button, *self.place.numbers.fields]
        fields += [self.eye, self.time_unit, self.coordinates]
        for first, second in itertools.pairwise(fields):
            QWidget.setTabOrder(first, second)
        self._hints = {fact: row.hint.text() for fact, row in self.rows.items()}
        self._as_before: set[str] = set()
        for numbers in (self.screen_px, self.screen_mm, self.distance_mm):
            numbers.changed.connect(self.changed)
        self.place.changed.connect(self.changed)
        for picker in (self.eye, self.time_unit, self.coordinates):
            picker.currentIndexChanged.connect(lambda _: self.changed.emit())
        for fact, picker in (("stream", self.stream), ("image", self.image)):
            picker.currentIndexChanged.connect(lambda _, fact=fact: self.own_changed.emit(fact))
        edit.textEdited.connect(self._image_typed)

    def _choice(self, items: Sequence[tuple[str, str]]) -> QComboBox:
        picker = narrow(QComboBox())
        for text, value in items:
            picker.addItem(text, value)
        picker.setCurrentIndex(-1)
        picker.setPlaceholderText(self.tr("Choose…"))
        return picker

    def _image_typed(self, text: str) -> None:
        """Choose the image of the name that is typed, and none while it is the name of none."""
        edit = self.image.lineEdit()
        number = self.image.findText(text.strip(), Qt.MatchFlag.MatchFixedString) if text.strip() else -1
        if edit is None or number == self.image.currentIndex():
            return
        cursor = edit.cursorPosition()
        self.image.setCurrentIndex(number)
        edit.setText(text)
        edit.setCursorPosition(cursor)

    def ask(self, facts: Collection[str]) -> None:
        """Show the fields of some facts."""
        for fact, row in self.rows.items():
            row.setVisible(fact in facts)

    def show_file(self, streams: Sequence[str], stream: str | None, image: str | None) -> None:
        """Show what is said of the file in view alone."""
        for picker in (self.stream, self.image):
            picker.blockSignals(True)
        if [self.stream.itemText(number) for number in range(self.stream.count())] != list(streams):
            self.stream.clear()
            for name in streams:
                self.stream.addItem(name, name)
        self.stream.setCurrentIndex(self.stream.findData(stream) if stream else -1)
        number = self.image.findData(image) if image else -1
        self.image.setCurrentIndex(number)
        self.image.setEditText(self.image.itemText(number) if number >= 0 else "")
        for picker in (self.stream, self.image):
            picker.blockSignals(False)

    def answers(self) -> dict[str, Any]:
        """Return what was said, by fact; for `rect_px` also ``fit``. A fact of which nothing was said is left out."""
        px, mm, distance = (
            numbers.values() for numbers in (self.screen_px, self.screen_mm, self.distance_mm)
        )
        told = {
            "screen_px": px and (round(px[0]), round(px[1])),
            "screen_mm": mm,
            "distance_mm": distance and distance[0],
            "rect_px": self.place.value(),
            "eye": self.eye.currentData(),
            "time_unit": self.time_unit.currentData(),
            "coordinates": self.coordinates.currentData(),
        }
        return {fact: value for fact, value in told.items() if value is not None}

    def wrong_words(self) -> str:
        """Return what is wrong with a number that was typed; empty where all are good or open."""
        for row, numbers in (
            ("screen_px", self.screen_px),
            ("screen_mm", self.screen_mm),
            ("distance_mm", self.distance_mm),
            ("rect_px", self.place.numbers),
        ):
            words = numbers.wrong_words()
            if words and not self.rows[row].isHidden():
                return words
        return ""

    def focus_first(self, facts: Collection[str]) -> bool:
        """Put the cursor where the first open fact is said; False where nothing is open."""
        fields = {"stream": self.stream, "image": self.image, "rect_px": self.place}
        for fact in self.rows:
            if fact in facts:
                fields.get(fact, getattr(self, fact, self)).setFocus()
                return True
        return False

    def mark(self, facts: Collection[str]) -> None:
        """Explain the rows, those remembered as such, and colour the names of those that wait for an answer."""
        for fact, row in self.rows.items():
            set_role(row.name, "warning" if fact in facts else "")
            if fact in self._as_before and fact not in facts:
                row.set_hint(self.tr("As for the last file of this kind; check that it was the same screen."))
            else:
                row.set_hint(self._hints[fact])

    # From one import to the next

    def recall(self, settings: QSettings) -> None:
        """Put in what was said of the screen last time."""
        for fact, numbers in (
            ("screen_px", self.screen_px),
            ("screen_mm", self.screen_mm),
            ("distance_mm", self.distance_mm),
        ):
            values = _numbers(settings.value(f"{_GROUP}/{fact}", ""))
            if len(values) == len(numbers.fields):
                numbers.fill(values)
                self._as_before.add(fact)
        place = settings.value(f"{_GROUP}/rect_px", "")
        if place == "fit":
            self.place.fit_button.setChecked(True)
        elif len(values := _numbers(place)) == 4:
            self.place.rect_button.setChecked(True)
            self.place.numbers.fill(values)
        if self.place.value() is not None:
            self._as_before.add("rect_px")
        for numbers, fact in (
            (self.screen_px, "screen_px"),
            (self.screen_mm, "screen_mm"),
            (self.distance_mm, "distance_mm"),
        ):
            numbers.changed.connect(lambda fact=fact: self._as_before.discard(fact))
        self.place.changed.connect(lambda: self._as_before.discard("rect_px"))

    def remember(self, settings: QSettings, answers: Mapping[str, Any]) -> None:
        """Keep what was said of the screen."""
        for fact in REMEMBERED:
            value = answers.get(fact)
            if value is None:
                continue
            values = value if isinstance(value, tuple) else (value,)
            text = value if isinstance(value, str) else " ".join(f"{one:g}" for one in values)
            settings.setValue(f"{_GROUP}/{fact}", text)


def _numbers(text: object) -> list[float]:
    try:
        return [float(part) for part in str(text).split()]
    except ValueError:
        return []
