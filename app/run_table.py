"""The study's runs as a table."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QTableView,
)

from app.tables import PillDelegate
from app.texts import short_name

STATE_TOKENS = {
    "waiting": "muted",
    "running": "accent",
    "done": "accent",
    "stopped": "warning",
    "failed": "danger",
    "interrupted": "danger",
}


class RunModel(QAbstractTableModel):
    """The study's runs, newest first."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.rows: list[tuple[str, str, str, str]] = []
        """Run id, method, state (as in `segmentation.runs`), state in words."""
        self._titles = (self.tr("Run"), self.tr("Method"), self.tr("State"))

    def set_rows(self, rows: list[tuple[str, str, str, str]]) -> None:
        """Show other runs."""
        if rows != self.rows:
            self.beginResetModel()
            self.rows = rows
            self.endResetModel()

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex | None = None) -> int:
        """Return the number of runs."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex | QPersistentModelIndex | None = None) -> int:
        """Return the number of columns."""
        return 3

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return a column's title."""
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return self._titles[section]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        return None

    def data(
        self, index: QModelIndex | QPersistentModelIndex, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return a cell."""
        run_id, method, state, word = self.rows[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return (short_name(run_id), method, word)[index.column()]
        if role == Qt.ItemDataRole.ToolTipRole:
            return run_id
        if role == Qt.ItemDataRole.UserRole:
            return STATE_TOKENS[state]
        return None


class RunTable(QTableView):
    """Shows a RunModel, one run chosen at a time."""

    def __init__(self, model: RunModel) -> None:
        super().__init__()
        self.setModel(model)
        self.setItemDelegateForColumn(2, PillDelegate(self))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(36)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setSectionsClickable(False)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.setColumnWidth(0, 112)
        self.setColumnWidth(2, 112)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
