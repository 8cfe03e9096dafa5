"""The answers of several backends side by side; one of them counts."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from app import theme
from app.description_origin import (
    attributes_of,
    contradicted,
    cost_in_words,
    moment,
    origin_of,
    origin_tip,
)
from app.description_rows import breakable, plain_tip, readable, value_in_words
from app.dialogs import Dialog
from app.widgets import Button, ElidedLabel, IconLabel, Pill, box, label
from gaze_capture.errors import UserError
from segmentation.explanation import Explanation, load_explanation, load_history
from segmentation.explanation_presets import Attribute
from segmentation.revising import ChangedElsewhere, distinct_answers, use
from segmentation.study import Study

NAME_WIDTH, COLUMN_WIDTH, MOST_WIDTH = 132, 208, 1160


class CompareDialog(Dialog):
    """A column for the latest answer of each backend and model; attributes in which they differ stand out."""

    used = Signal(object, object)
    """What counted before, and what counts now."""
    wanted = Signal(list)
    """Ids of images to be described again."""

    def __init__(
        self,
        parent: QWidget | None,
        study: Study,
        image_id: str,
        target_id: str,
        annotator: str,
    ) -> None:
        super().__init__(parent, self.tr("Compare descriptions"), scrolls=False)
        self._study, self._key, self._annotator = study, (image_id, target_id), annotator
        self.answers: list[Explanation] = []
        self.use_buttons: list[Button] = []
        self._current: Explanation | None = None
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        self.body.setContentsMargins(theme.HUGE, theme.LARGE, theme.HUGE, theme.LARGE)
        self.body.addWidget(self.area, 1)
        self.again_button = Button(
            self.tr("Describe again with…"), "arrows-clockwise", on_click=lambda: self.wanted.emit([image_id])
        )
        self.again_button.setAutoDefault(False)
        self.foot_left.addWidget(self.again_button)
        self.add_button(self.tr("Close"), self.accept, "primary")
        self.reload()
        width = NAME_WIDTH + len(self.answers) * COLUMN_WIDTH + 96
        most = MOST_WIDTH if parent is None else min(MOST_WIDTH, parent.window().width() - 80)
        self.resize(
            min(max(width, 560), most), 640 if parent is None else min(760, parent.window().height() - 80)
        )

    def reload(self) -> None:
        """Read the answers again."""
        try:
            self._current = load_explanation(self._study, *self._key)
            self.answers = distinct_answers(load_history(self._study, *self._key), self._current)
        except UserError as error:
            self.show_problem(str(error))
            return
        self.sentence.setText(self._in_a_sentence())
        self.sentence.show()
        self.area.setWidget(self._table())

    def _in_a_sentence(self) -> str:
        if len(self.answers) < 2:
            return self.tr("There is one description so far. Describe the image again to compare.")
        differing = sum(self._differs(attribute) for attribute in self._attributes())
        return self.tr("{count} descriptions; they differ in {differing} attributes.").format(
            count=len(self.answers), differing=differing
        )

    def _attributes(self) -> list[Attribute]:
        found: dict[str, Attribute] = {}
        for one in self.answers:
            for attribute, _ in attributes_of(self._study, one):
                found.setdefault(attribute.name, attribute)
        return list(found.values())

    def _differs(self, attribute: Attribute) -> bool:
        if attribute.kind == "text":
            return False
        said = {value_in_words(one.attributes.get(attribute.name), attribute.kind) for one in self.answers}
        return len(said) > 1

    def _table(self) -> QWidget:
        table = QWidget()
        grid = QGridLayout(table)
        box(grid, spacing=0)
        self.use_buttons = []
        for column, answer in enumerate(self.answers, 1):
            grid.addWidget(self._head(answer), 0, column)
            grid.setColumnMinimumWidth(column, COLUMN_WIDTH)
            grid.setColumnStretch(column, 1)
        grid.setColumnMinimumWidth(0, NAME_WIDTH)
        against = [contradicted(one) for one in self.answers]
        for row, attribute in enumerate(self._attributes(), 1):
            differs = self._differs(attribute)
            grid.addWidget(_cell(self._name(attribute, differs), differs), row, 0)
            for column, answer in enumerate(self.answers, 1):
                sentence = against[column - 1].get(attribute.name, "")
                grid.addWidget(_cell(self._value(attribute, answer, differs, sentence), differs), row, column)
        grid.setRowStretch(grid.rowCount(), 1)
        return table

    def _head(self, answer: Explanation) -> QWidget:
        head = QWidget()
        column = QVBoxLayout(head)
        box(column, margins=(theme.WIDE, 0, theme.WIDE, theme.WIDE), spacing=theme.SMALL)
        pill = Pill()
        pill.set(*origin_of(answer))
        model = ElidedLabel(answer.model or answer.backend)
        tip = plain_tip(origin_tip(answer))
        pill.setToolTip(tip)
        model.setToolTip(tip)
        made = " · ".join(part for part in (moment(answer.created), cost_in_words(answer)) if part)
        column.addWidget(pill, 0, Qt.AlignmentFlag.AlignLeft)
        column.addWidget(model)
        column.addWidget(label(made, "muted", wrap=True))
        counts = answer == self._current
        button = Button(
            self.tr("In use") if counts else self.tr("Use this one"), "check" if counts else "",
            on_click=lambda: self._use(answer),
        )  # fmt: skip
        button.setEnabled(not counts)
        button.setAutoDefault(False)
        self.use_buttons.append(button)
        column.addWidget(button)
        return head

    def _name(self, attribute: Attribute, differs: bool) -> QWidget:
        name = QWidget()
        row = QHBoxLayout(name)
        box(row, margins=(theme.NORMAL, 6, theme.SMALL, 6), spacing=theme.SMALL)
        text = label(breakable(readable(attribute.name)), "" if differs else "muted", wrap=True)
        row.addWidget(text, 1, Qt.AlignmentFlag.AlignTop)
        if differs:
            sign = IconLabel("arrows-left-right", "accent", 16)
            sign.setToolTip(self.tr("The descriptions differ"))
            sign.setAccessibleName(self.tr("The descriptions differ"))
            row.addWidget(sign, 0, Qt.AlignmentFlag.AlignTop)
        return name

    def _value(self, attribute: Attribute, answer: Explanation, differs: bool, against: str) -> QWidget:
        value = QWidget()
        column = QVBoxLayout(value)
        box(column, margins=(theme.WIDE, 6, theme.WIDE, 6), spacing=2)
        line = QHBoxLayout()
        box(line, spacing=theme.SMALL)
        words = value_in_words(answer.attributes.get(attribute.name), attribute.kind) or "–"
        text = label(breakable(words), "" if differs else "muted", wrap=True)
        if differs:
            text.setFont(theme.heading_font(13))
        line.addWidget(text, 1, Qt.AlignmentFlag.AlignTop)
        column.addLayout(line)
        if against:
            sign = IconLabel("warning", "warning", 16)
            sign.setToolTip(plain_tip(against))
            line.addWidget(sign, 0, Qt.AlignmentFlag.AlignTop)
            column.addWidget(label(breakable(against), "warning", wrap=True))
        column.addStretch(1)
        return value

    def _use(self, answer: Explanation) -> None:
        before = self._current
        if before is None:
            return
        try:
            after = use(self._study, before, answer, self._annotator)
        except UserError as error:
            self.show_problem(str(error))
            if isinstance(error, ChangedElsewhere):
                self.reload()
            return
        self.show_problem("")
        self.used.emit(before, after)
        self.reload()


def _cell(inner: QWidget, differs: bool) -> QFrame:
    """Return a cell of the table: a hairline below it, and a ground where the answers differ."""
    frame = QFrame()
    frame.setObjectName("cell")
    frame.setProperty("differs", differs)
    column = QVBoxLayout(frame)
    box(column, spacing=0)
    column.addWidget(inner)
    return frame
