"""Naming what is to be segmented: add, rename, reorder, colour, nest and remove targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QHBoxLayout,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.dialogs import Dialog, Row, narrow, swatch
from app.widgets import Button, IconButton, box
from gaze_capture.errors import UserError
from segmentation.records import Target, check_targets, safe_name
from segmentation.study import Study

COLOURS = (
    ("#56B4E9", "Sky blue"),
    ("#E69F00", "Orange"),
    ("#009E73", "Green"),
    ("#F0E442", "Yellow"),
    ("#0072B2", "Blue"),
    ("#D55E00", "Vermilion"),
    ("#CC79A7", "Purple"),
    ("#FFFFFF", "White"),
)
"""Okabe and Ito's, told apart by colour-blind eyes; white in place of black, which the images are."""


class TargetsDialog(Dialog):
    """The targets at the left, the chosen one's properties at the right."""

    stored = Signal(object)
    """The targets (a tuple), stored in the study where there is one."""

    def __init__(self, parent: QWidget | None, targets: Sequence[Target], study: Study | None = None) -> None:
        super().__init__(
            parent,
            self.tr("Targets"),
            self.tr("What is to be segmented: a lesion, an organ, a zone of one."),
            scrolls=False,
        )
        self._study = study
        self.targets: list[Target] = list(targets)
        self._stored = {target.id for target in study.targets} if study is not None else set[str]()
        self._showing = False
        columns = QHBoxLayout()
        box(columns, spacing=theme.HUGE)
        columns.addLayout(self._make_list(), 2)
        columns.addLayout(self._make_form(), 3)
        self.body.addLayout(columns, 1)
        self.add_button(self.tr("Cancel"), self.reject)
        self.save_button = self.add_button(self.tr("Save"), self._save, "primary")
        self.resize(760, 460)
        self._list_again(0)
        self.name.setFocus()
        self.name.selectAll()

    def _make_list(self) -> QVBoxLayout:
        self.list = QListWidget()
        self.list.setAccessibleName(self.tr("Targets"))
        self.list.setIconSize(QSize(14, 14))
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.currentRowChanged.connect(self._show_target)
        self.plus_button = Button(self.tr("Add"), "plus", "", self.add)
        self.up_button = IconButton(
            "arrow-up", self.tr("Move up (Alt+Up)"), on_click=lambda: self.move_by(-1)
        )
        self.down_button = IconButton(
            "arrow-down", self.tr("Move down (Alt+Down)"), on_click=lambda: self.move_by(1)
        )
        self.up_button.setShortcut("Alt+Up")
        self.down_button.setShortcut("Alt+Down")
        self.remove_button = IconButton("trash", self.tr("Remove this target"), on_click=self.remove)
        self.plus_button.setAutoDefault(False)
        tools = QHBoxLayout()
        box(tools, spacing=theme.SMALL)
        tools.addWidget(self.plus_button)
        tools.addStretch(1)
        for button in (self.up_button, self.down_button, self.remove_button):
            tools.addWidget(button)
        column = QVBoxLayout()
        box(column, spacing=theme.NORMAL)
        column.addWidget(self.list, 1)
        column.addLayout(tools)
        return column

    def _make_form(self) -> QVBoxLayout:
        self.name = QLineEdit()
        self.name.textEdited.connect(self._name_edited)
        self.id = QLineEdit()
        self.id.textEdited.connect(lambda text: self._change(id=text))
        self.kind = QComboBox()
        for text, value in (
            (self.tr("Lesion"), "lesion"),
            (self.tr("Organ"), "organ"),
            (self.tr("Zone"), "zone"),
        ):
            self.kind.addItem(text, value)
        self.kind.activated.connect(lambda _: self._change(kind=self.kind.currentData()))
        self.inside = narrow(QComboBox())
        self.inside.activated.connect(lambda _: self._change(inside=self.inside.currentData()))
        self.code = QLineEdit()
        self.code.setPlaceholderText(self.tr("Optional, e.g. SCT:41216001"))
        self.code.textEdited.connect(lambda text: self._change(code=text.strip()))
        column = QVBoxLayout()
        box(column, spacing=theme.NORMAL)
        self.id_row = Row(self.tr("Id"), self.id)
        for row in (
            Row(self.tr("Name"), self.name),
            self.id_row,
            Row(self.tr("Colour"), self._make_colours()),
            Row(self.tr("Kind"), self.kind),
            Row(self.tr("Inside of"), self.inside),
            Row(self.tr("Code"), self.code),
        ):
            row.name.setFixedWidth(72)
            column.addWidget(row)
        column.addStretch(1)
        return column

    def _make_colours(self) -> QWidget:
        field = QWidget()
        layout = QHBoxLayout(field)
        box(layout, spacing=2)
        self._colours = QButtonGroup(field)
        self.colour_buttons: dict[str, QToolButton] = {}
        for colour, name in COLOURS:
            button = QToolButton()
            button.setCheckable(True)
            button.setIcon(swatch(colour))
            button.setIconSize(QSize(16, 16))
            button.setFixedSize(30, 30)
            button.setToolTip(self.tr(name))
            button.setAccessibleName(self.tr(name))
            button.setObjectName("swatch")
            button.clicked.connect(lambda _=False, colour=colour: self._change(colour=colour))
            self._colours.addButton(button)
            self.colour_buttons[colour] = button
            layout.addWidget(button)
        layout.addStretch(1)
        return field

    # Showing

    def _list_again(self, row: int) -> None:
        self._showing = True
        self.list.clear()
        for target in self.targets:
            self.list.addItem(QListWidgetItem(swatch(target.colour, 14), self._listed(target)))
        self._showing = False
        self.list.setCurrentRow(row)
        self._check()

    def _listed(self, target: Target) -> str:
        depth, outer, seen = 0, target.inside, {target.id}
        ids = {one.id: one for one in self.targets}
        while outer in ids and outer not in seen:
            seen.add(outer)
            depth, outer = depth + 1, ids[outer].inside
        return "    " * depth + (target.name or target.id)

    def _show_target(self, row: int) -> None:
        if self._showing or not 0 <= row < len(self.targets):
            return
        target = self.targets[row]
        self.name.setText(target.name)
        self.name.setCursorPosition(0)
        self.name.setToolTip(target.name)
        self.id.setText(target.id)
        fixed = target.id in self._stored
        self.id.setReadOnly(fixed)
        self.id.setEnabled(not fixed)
        self.id_row.set_hint(self.tr("Stays: masks and gaze are stored under it.") if fixed else "")
        self.kind.setCurrentIndex(self.kind.findData(target.kind))
        self.inside.clear()
        self.inside.addItem(self.tr("Nothing: it stands alone"), None)
        for other in self.targets:
            if other.id != target.id:
                self.inside.addItem(swatch(other.colour, 12), other.name, other.id)
        self.inside.setCurrentIndex(max(0, self.inside.findData(target.inside)) if target.inside else 0)
        self.code.setText(target.code)
        self._colours.setExclusive(False)
        for colour, button in self.colour_buttons.items():
            button.setChecked(colour.casefold() == target.colour.casefold())
        self._colours.setExclusive(True)
        self.up_button.setEnabled(row > 0)
        self.down_button.setEnabled(row < len(self.targets) - 1)
        self.remove_button.setEnabled(len(self.targets) > 1)

    # Changing

    @property
    def row(self) -> int:
        """The chosen target's place."""
        return self.list.currentRow()

    def _change(self, **values: object) -> None:
        row = self.row
        old = self.targets[row]
        new = dataclasses.replace(old, **values)  # type: ignore[arg-type]
        self.targets[row] = new
        if new.id != old.id:
            # What lay inside of it still does.
            self.targets = [
                dataclasses.replace(one, inside=new.id) if one.inside == old.id else one
                for one in self.targets
            ]
        for number, target in enumerate(self.targets):
            item = self.list.item(number)
            item.setText(self._listed(target))
            item.setIcon(swatch(target.colour, 14))
        self._check()

    def _name_edited(self, text: str) -> None:
        target = self.targets[self.row]
        if target.id in self._stored or target.id != _id_of(target.name):
            self._change(name=text)
            return
        # An id that nobody chose follows the name.
        self._change(name=text, id=_id_of(text))
        self.id.setText(self.targets[self.row].id)

    def add(self) -> None:
        """Add a target of a free name and colour."""
        used = {target.colour.casefold() for target in self.targets}
        colour = next((one for one, _ in COLOURS if one.casefold() not in used), COLOURS[0][0])
        ids = {target.id for target in self.targets}
        number = len(self.targets) + 1
        while _id_of(name := self.tr("Target {n}").format(n=number)) in ids:
            number += 1
        self.targets.append(Target(_id_of(name), name, colour))
        self._list_again(len(self.targets) - 1)
        self.name.setFocus()
        self.name.selectAll()

    def move_by(self, by: int) -> None:
        """Move the chosen target up or down."""
        row, to = self.row, self.row + by
        if 0 <= to < len(self.targets):
            self.targets[row], self.targets[to] = self.targets[to], self.targets[row]
            self._list_again(to)

    def remove(self) -> None:
        """Take the chosen target away, unless the study holds anything of it."""
        gone = self.targets[self.row]
        if len(self.targets) < 2:
            return
        if self._study is not None and gone.id in self._stored and self._study.holds_anything_of(gone.id):
            left = [
                dataclasses.replace(one, inside=None) if one.inside == gone.id else one
                for one in self._study.targets
                if one.id != gone.id
            ]
            try:
                # Refuses: it says why in its own words.
                self._study.set_targets(left or [Target(safe_name(f"not_{gone.id}"))])
            except UserError as error:
                self.show_problem(str(error))
                return
        self.targets = [
            dataclasses.replace(one, inside=None) if one.inside == gone.id else one
            for one in self.targets
            if one.id != gone.id
        ]
        self._list_again(min(self.row, len(self.targets) - 1))

    def _check(self) -> None:
        problem = next(
            (self.tr("A target needs a name.") for target in self.targets if not target.name.strip()), ""
        )
        if not problem:
            try:
                check_targets(self.targets)
            except UserError as error:
                problem = str(error)
        self.show_problem(problem)
        self.save_button.setEnabled(not problem)

    def _save(self) -> None:
        targets = tuple(dataclasses.replace(one, name=one.name.strip()) for one in self.targets)
        if self._study is not None:
            try:
                self._study.set_targets(targets)
            except UserError as error:
                self.show_problem(str(error))
                return
        self.accept()
        self.stored.emit(targets)


def _id_of(name: str) -> str:
    return safe_name(name.strip().casefold()) if name.strip() else "target"
