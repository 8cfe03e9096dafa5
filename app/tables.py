"""Tables of rows that hold still: text, numbers that sort as numbers, and states as pills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QRect,
    QRectF,
    QSize,
    QSortFilterProxyModel,
    Qt,
    Signal,
)
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
)

from app import theme
from app.widgets import paint_pill

AnyIndex = QModelIndex | QPersistentModelIndex
SORT_ROLE = Qt.ItemDataRole.UserRole + 1


@dataclass(frozen=True)
class Cell:
    """What stands in a cell."""

    text: str
    order: float | str = ""
    """What it is sorted by; the text if not given."""
    token: str = ""
    """Of the theme: the colour of the text, or of the pill in a column of pills."""
    tip: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a table; `key` is what it stands for."""

    key: object
    cells: tuple[Cell, ...]


class RowsModel(QAbstractTableModel):
    """Rows under titles."""

    def __init__(self, titles: Sequence[str], numbers: Sequence[int], parent: QObject) -> None:
        super().__init__(parent)
        self.rows: Sequence[Row] = ()
        self._titles, self._numbers = tuple(titles), frozenset(numbers)

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Show other rows."""
        self.beginResetModel()
        self.rows = tuple(rows)
        self.endResetModel()

    def rowCount(self, parent: AnyIndex | None = None) -> int:
        """Return the number of rows."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: AnyIndex | None = None) -> int:
        """Return the number of columns."""
        return len(self._titles)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return a column's title."""
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return self._titles[section]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return self._side(section)
        return None

    def _side(self, column: int) -> Qt.AlignmentFlag:
        side = Qt.AlignmentFlag.AlignRight if column in self._numbers else Qt.AlignmentFlag.AlignLeft
        return side | Qt.AlignmentFlag.AlignVCenter

    def data(self, index: AnyIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what is shown or known of a cell."""
        cell = self.rows[index.row()].cells[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return cell.text
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return self._side(index.column())
        if role == Qt.ItemDataRole.ForegroundRole and cell.token:
            return QColor(getattr(theme.current(), cell.token))
        if role == Qt.ItemDataRole.ToolTipRole:
            return cell.tip or None
        if role == Qt.ItemDataRole.UserRole:
            return cell.token or "muted"
        if role == SORT_ROLE:
            return cell.text if cell.order == "" else cell.order
        return None


class PillDelegate(QStyledItemDelegate):
    """Draws a cell's text as a pill in the colour of the token that UserRole names."""

    def sizeHint(self, option: QStyleOptionViewItem, index: AnyIndex) -> QSize:
        """Ask for the pill's size."""
        size = super().sizeHint(option, index)
        return QSize(size.width() + 24, size.height())

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: AnyIndex) -> None:
        """Draw the row's ground as the style does, and the pill upon it."""
        ground = QStyleOptionViewItem(option)
        self.initStyleOption(ground, index)
        ground.text = ""
        style = option.widget.style()
        style.drawControl(QStyle.ControlElement.CE_ItemViewItem, ground, painter, option.widget)
        area: QRect = option.rect
        painter.save()
        font = painter.font()
        font.setPixelSize(12)
        painter.setFont(font)
        word = index.data()
        width = min(area.width() - 8, painter.fontMetrics().horizontalAdvance(word) + 30)
        token = index.data(Qt.ItemDataRole.UserRole)
        paint_pill(painter, QRectF(area.left() + 4, area.center().y() - 10, width, 22), word, token)
        painter.restore()


class RowsTable(QTableView):
    """Shows rows; one at a time is chosen.

    Parameters
    ----------
    numbers
        Columns of numbers, set right.
    pills
        Columns of states.
    stretched
        The column that takes the room that is left.
    sortable
        Whether a click on a title sorts.
    """

    chosen = Signal(object)
    """A row's key, or None."""

    def __init__(
        self,
        titles: Sequence[str],
        *,
        numbers: Sequence[int] = (),
        pills: Sequence[int] = (),
        stretched: int = 0,
        sortable: bool = True,
    ) -> None:
        super().__init__()
        self._stretched = stretched
        self._rows = RowsModel(titles, numbers, self)
        self._sorted = QSortFilterProxyModel(self)
        self._sorted.setSourceModel(self._rows)
        self._sorted.setSortRole(SORT_ROLE)
        self.setModel(self._sorted)
        for column in pills:
            self.setItemDelegateForColumn(column, PillDelegate(self))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(36)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setResizeContentsPrecision(200)
        header.setSectionResizeMode(stretched, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(72)
        if sortable:
            self.setSortingEnabled(True)
            # As given, until a title is clicked.
            self._sorted.sort(-1)
            header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        else:
            header.setSectionsClickable(False)
        self.selectionModel().selectionChanged.connect(lambda *_: self.chosen.emit(self.current_key()))

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Show other rows; the chosen one stays chosen where it is still there."""
        before = self.current_key()
        self._rows.set_rows(rows)
        for column in range(self._rows.columnCount()):
            if column != self._stretched:
                self.resizeColumnToContents(column)
        for number, row in enumerate(rows):
            if row.key == before and before is not None:
                self.selectRow(self._sorted.mapFromSource(self._rows.index(number, 0)).row())

    @property
    def count(self) -> int:
        """Number of rows."""
        return self._rows.rowCount()

    def current_key(self) -> object:
        """Return what the chosen row stands for, or None."""
        indices = self.selectionModel().selectedRows()
        return self._rows.rows[self._sorted.mapToSource(indices[0]).row()].key if indices else None
