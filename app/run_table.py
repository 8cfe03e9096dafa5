"""The study's runs as a table: each one's name, how it stands and its Dice; names are changed in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from PySide6.QtCore import (
    QAbstractItemModel,
    QAbstractTableModel,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QRect,
    QRectF,
    QSize,
    Qt,
    QTimer,
    Signal,
)
from PySide6.QtGui import QColor, QFont, QKeyEvent, QPainter
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QLineEdit,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

from app import theme
from app.widgets import paint_pill
from segmentation.run_care import LONGEST_NAME
from segmentation.runs import State

AnyIndex = QModelIndex | QPersistentModelIndex

STATE_TOKENS = {
    "waiting": "muted",
    "running": "accent",
    "done": "accent",
    "stopped": "warning",
    "failed": "danger",
    "interrupted": "danger",
}

ROW_HEIGHT = 58
DICE_WIDTH, MOST_DICE_WIDTH = 84, 160
FOLLOW_AFTER_MS = 150
"""A run is read from its first event on: not each one that the arrow keys pass."""

RowRole = Qt.ItemDataRole.UserRole + 1
ShownRole = Qt.ItemDataRole.UserRole + 2


class RunRow(NamedTuple):
    """A line of the table."""

    id: str
    method: str
    state: State
    word: str
    """The state for people."""
    title: str = ""
    name: str = ""
    """What a person called it; empty where nobody did."""
    detail: str = ""
    """What stands beside the state."""
    dice: str = ""
    dice_tip: str = ""
    tip: str = ""


class RunModel(QAbstractTableModel):
    """The study's runs, newest first."""

    renamed = Signal(str, str)
    """A run's id, and what a person typed as its name."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.rows: list[RunRow] = []
        self.shown = ""
        """Id of the run whose curves are in view."""
        self._dice_title, self._dice_tip = self.tr("Dice"), ""

    def set_rows(self, rows: Sequence[RunRow]) -> None:
        """Show other runs; where they are the same ones, what is chosen or being typed stays."""
        if list(rows) == self.rows:
            return
        if [row.id for row in rows] == [row.id for row in self.rows]:
            self.rows = list(rows)
            self.dataChanged.emit(self.index(0, 0), self.index(len(rows) - 1, 1))
            return
        self.beginResetModel()
        self.rows = list(rows)
        self.endResetModel()

    def set_dice_title(self, title: str, tip: str) -> None:
        """Say of which split the Dice is."""
        if (title, tip) != (self._dice_title, self._dice_tip):
            self._dice_title, self._dice_tip = title, tip
            self.headerDataChanged.emit(Qt.Orientation.Horizontal, 1, 1)

    def set_shown(self, run_id: str) -> None:
        """Mark the run whose curves are in view."""
        if run_id != self.shown:
            self.shown = run_id
            if self.rows:
                self.dataChanged.emit(self.index(0, 0), self.index(len(self.rows) - 1, 1), [ShownRole])

    def row_of(self, run_id: str) -> int:
        """Return the row of a run, or -1."""
        return next((number for number, row in enumerate(self.rows) if row.id == run_id), -1)

    def rowCount(self, parent: AnyIndex | None = None) -> int:
        """Return the number of runs."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: AnyIndex | None = None) -> int:
        """Return the number of columns."""
        return 2

    def flags(self, index: AnyIndex) -> Qt.ItemFlag:
        """Let the name be changed."""
        flags = super().flags(index)
        return flags | Qt.ItemFlag.ItemIsEditable if index.column() == 0 else flags

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return a column's title."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self._dice_title if section else self.tr("Run")
        if role == Qt.ItemDataRole.ToolTipRole and section:
            return self._dice_tip or None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if section else Qt.AlignmentFlag.AlignLeft
            return side | Qt.AlignmentFlag.AlignVCenter
        return None

    def data(self, index: AnyIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell."""
        row = self.rows[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return row.dice if index.column() else row.title
        if role == Qt.ItemDataRole.EditRole:
            return row.name
        if role == Qt.ItemDataRole.ToolTipRole:
            return row.dice_tip if index.column() else row.tip
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return row.dice if index.column() else f"{row.title}, {row.word}, {row.detail}"
        if role == RowRole:
            return row
        if role == ShownRole:
            return row.id == self.shown
        return None

    def setData(self, index: AnyIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Take a name that was typed."""
        if role != Qt.ItemDataRole.EditRole or index.column():
            return False
        row = self.rows[index.row()]
        if str(value).strip() != row.name:
            self.renamed.emit(row.id, str(value))
        return True


class _Delegate(QStyledItemDelegate):
    """Draws a run in two lines, its Dice beside them."""

    def sizeHint(self, option: QStyleOptionViewItem, index: AnyIndex) -> QSize:
        return QSize(DICE_WIDTH, ROW_HEIGHT)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: AnyIndex) -> None:
        ground = QStyleOptionViewItem(option)
        self.initStyleOption(ground, index)
        ground.text = ""
        widget: QWidget = option.widget
        widget.style().drawControl(QStyle.ControlElement.CE_ItemViewItem, ground, painter, widget)
        tokens, row = theme.current(), index.data(RowRole)
        area: QRect = option.rect
        # The second line runs on below the Dice: each cell draws its part of the whole row.
        assert isinstance(widget, QTableView)
        left = widget.columnViewportPosition(0)
        whole = QRect(left, area.top(), widget.columnWidth(0) + widget.columnWidth(1), area.height())
        painter.save()
        painter.setClipRect(area)
        self._paint_second_line(painter, whole.adjusted(theme.LARGE, 31, -theme.LARGE, 0), row)
        line = QRect(area.left(), area.top() + 7, area.width(), 20)
        if index.column():
            painter.setFont(theme.number_font(13))
            painter.setPen(QColor(tokens.text if row.dice[:1].isdigit() else tokens.muted))
            side = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            painter.drawText(line.adjusted(0, 0, -theme.LARGE, 0), side, row.dice)
        else:
            if index.data(ShownRole):
                painter.fillRect(area.left(), area.top(), 3, area.height() - 1, QColor(tokens.accent))
            font = QFont(painter.font())
            font.setPixelSize(13)
            font.setWeight(QFont.Weight.DemiBold if row.name else QFont.Weight.Normal)
            painter.setFont(font)
            painter.setPen(QColor(tokens.text))
            line = line.adjusted(theme.LARGE, 0, 0, 0)
            title = painter.fontMetrics().elidedText(row.title, Qt.TextElideMode.ElideRight, line.width())
            painter.drawText(line, Qt.AlignmentFlag.AlignVCenter, title)
        painter.restore()

    def _paint_second_line(self, painter: QPainter, area: QRect, row: RunRow) -> None:
        font = QFont(painter.font())
        font.setPixelSize(12)
        painter.setFont(font)
        metrics = painter.fontMetrics()
        width = metrics.horizontalAdvance(row.word) + 28
        paint_pill(painter, QRectF(area.left(), area.top(), width, 20), row.word, STATE_TOKENS[row.state])
        rest = QRect(area.left() + width + 8, area.top(), area.width() - width - 8, 20)
        painter.setPen(QColor(theme.current().muted))
        detail = metrics.elidedText(row.detail, Qt.TextElideMode.ElideRight, rest.width())
        painter.drawText(rest, Qt.AlignmentFlag.AlignVCenter, detail)

    def createEditor(self, parent: QWidget, option: QStyleOptionViewItem, index: AnyIndex) -> QWidget:
        editor = QLineEdit(parent)
        editor.setMaxLength(LONGEST_NAME)
        row: RunRow = index.data(RowRole)
        editor.setText(row.name)
        editor.setPlaceholderText(row.title)
        editor.setAccessibleName(self.tr("Name of the run"))
        editor.selectAll()
        return editor

    def setEditorData(self, editor: QWidget, index: AnyIndex) -> None:
        """Leave what is being typed alone when the list is read again."""

    def setModelData(self, editor: QWidget, model: QAbstractItemModel, index: AnyIndex) -> None:
        assert isinstance(editor, QLineEdit)
        model.setData(index, editor.text())

    def updateEditorGeometry(self, editor: QWidget, option: QStyleOptionViewItem, index: AnyIndex) -> None:
        area: QRect = option.rect
        editor.setGeometry(area.left() + 6, area.top() + 12, area.width() - 6, 34)


class RunTable(QTableView):
    """Shows a RunModel; several runs may be chosen, and the one alone that is chosen is followed."""

    picked = Signal(str)
    """Id of the run a person wants to look at."""
    choice_changed = Signal()
    key_pressed = Signal(str)
    """What is to be done with the runs chosen: `compare`, `rename`, `export` or `delete`."""

    def __init__(self, model: RunModel) -> None:
        super().__init__()
        self._runs = model
        self._restoring = False
        self._kept: list[str] = []
        self._picking = QTimer(self, singleShot=True, interval=FOLLOW_AFTER_MS)
        self._picking.timeout.connect(self._pick)
        self.setModel(model)
        self.setItemDelegate(_Delegate(self))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        # The page asks for it: a double click should not begin a name.
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTabKeyNavigation(False)
        self.setAccessibleName(self.tr("Runs"))
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setSectionsClickable(False)
        # Titles stand above what the rows say.
        header.setStyleSheet(f"QHeaderView::section {{ padding: 6px {theme.LARGE}px; }}")
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Fixed)
        self._fit_dice()
        model.headerDataChanged.connect(lambda *_: self._fit_dice())
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.clicked.connect(lambda _: self._pick())
        model.modelAboutToBeReset.connect(self._keep)
        model.modelReset.connect(self._restore)

    def _fit_dice(self) -> None:
        """Give the Dice's title, which names a split, the room it needs."""
        wanted = self.horizontalHeader().sectionSizeHint(1)
        self.setColumnWidth(1, min(max(wanted, DICE_WIDTH), MOST_DICE_WIDTH))

    def chosen(self) -> list[str]:
        """Return the ids of the runs chosen, in the order shown."""
        rows = sorted(index.row() for index in self.selectionModel().selectedRows())
        return [self._runs.rows[row].id for row in rows]

    def choose(self, run_ids: Sequence[str]) -> None:
        """Choose runs, without asking to look at them."""
        rows = [row for row in map(self._runs.row_of, run_ids) if row >= 0]
        if sorted(index.row() for index in self.selectionModel().selectedRows()) == sorted(rows):
            return
        selection = QItemSelection()
        for row in rows:
            selection.select(self._runs.index(row, 0), self._runs.index(row, 1))
        self._restoring = True
        self.selectionModel().select(selection, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        if rows:
            flag = QItemSelectionModel.SelectionFlag.NoUpdate
            self.selectionModel().setCurrentIndex(self._runs.index(rows[0], 0), flag)
        self._restoring = False
        self.choice_changed.emit()

    def rename(self, run_id: str) -> None:
        """Let the name of a run be typed where it stands."""
        row = self._runs.row_of(run_id)
        if row >= 0:
            self.setFocus()
            self.scrollTo(self._runs.index(row, 0))
            self.edit(self._runs.index(row, 0))

    def _keep(self) -> None:
        self._kept = self.chosen()

    def _restore(self) -> None:
        self.choose(self._kept)
        self.choice_changed.emit()

    def _pick(self) -> None:
        self._picking.stop()
        chosen = self.chosen()
        if len(chosen) == 1:
            self.picked.emit(chosen[0])

    def selectionChanged(self, selected: QItemSelection, deselected: QItemSelection) -> None:
        """Follow the run alone that is chosen, once the choice rests."""
        super().selectionChanged(selected, deselected)
        if not self._restoring:
            self.choice_changed.emit()
            self._picking.start()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Act on the runs chosen; letters the list has no use for are the window's."""
        key, modifiers = event.key(), event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        plain, control = not modifiers, modifiers == Qt.KeyboardModifier.ControlModifier
        acts: dict[tuple[int, bool], str] = {
            (Qt.Key.Key_F2, plain): "rename",
            (Qt.Key.Key_Delete, plain): "delete",
            (Qt.Key.Key_C, plain): "compare",
            (Qt.Key.Key_E, control): "export",
        }
        act = acts.get((key, True))
        if act is not None:
            self.key_pressed.emit(act)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._pick()
        elif event.text().strip().isprintable() and event.text().strip() and not control:
            event.ignore()
        else:
            super().keyPressEvent(event)
