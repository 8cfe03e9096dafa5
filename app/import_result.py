"""After an import: what came in, what did not and why, what a person should look at."""

from __future__ import annotations

from PySide6.QtCore import QRect, QSize, Qt, Signal
from PySide6.QtGui import QGuiApplication, QKeySequence, QResizeEvent, QShortcut
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.dialogs import Dialog, WarningRow
from app.import_choice import by_reason
from app.study_cards import text_warning
from app.widgets import box, label
from segmentation.importing import ImportReport

MOST_FILES = 2000
"""Of one reason so many files are listed; the copied text has all."""


class ReasonTree(QTreeWidget):
    """A tree whose reasons take as many lines as they need."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[QTreeWidgetItem] = []

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Wrap long reasons anew."""
        super().resizeEvent(event)
        width = self.viewport().width() - 2 * self.indentation() - 16
        for item in self.reasons:
            area = self.fontMetrics().boundingRect(
                QRect(0, 0, width, 1000), Qt.TextFlag.TextWordWrap, item.text(0)
            )
            item.setSizeHint(0, QSize(width, area.height() + 8))


class ImportResult(Dialog):
    """Counts, then what was left out and what is to be known, equal reasons together."""

    look_wanted = Signal()
    """The person wants to see the images in which text is likely."""

    def __init__(self, parent: QWidget | None, report: ImportReport, title: str = "") -> None:
        super().__init__(parent, title or self.tr("Imported"), scrolls=False)
        self.report = report
        self.body.addLayout(self._counts())
        self.warning = WarningRow(self.tr("Look at them"), self._look)
        self.warning.warn(text_warning(self, len(report.burned_in)))
        self.body.addWidget(self.warning)
        self.tree = ReasonTree()
        self.tree.setHeaderHidden(True)
        self.tree.setColumnCount(1)
        self.tree.setWordWrap(True)
        self.tree.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.tree.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.tree.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.tree.setAccessibleName(self.tr("What was left out, and notes"))
        self._fill()
        nothing = not self.tree.topLevelItemCount()
        self.tree.setVisible(not nothing)
        if nothing:
            self.body.addWidget(label(self.tr("Nothing was left out."), "muted"))
            self.body.addStretch(1)
        self.body.addWidget(self.tree, 1)
        self.copy_button = self.add_button(self.tr("Copy all"), self.copy_all, icon="copy")
        self.copy_button.setToolTip(self.tr("Copy the whole report as text"))
        self.close_button = self.add_button(self.tr("Close"), self.accept, "primary")
        QShortcut(QKeySequence.StandardKey.Copy, self.tree, self._copy_selected)
        if nothing:
            self.fit(560)
        else:
            self.resize(720, 540)
        self.close_button.setFocus()

    def _tiles(self) -> list[tuple[int, str]]:
        r = self.report
        tiles = [
            (len(r.imported), self.tr("images")),
            (r.volumes, self.tr("volumes")),
            (r.masks, self.tr("true masks")),
            (len(r.duplicates), self.tr("in the study already")),
            (len(r.skipped), self.tr("left out")),
        ]
        return [tile for number, tile in enumerate(tiles) if tile[0] or number in (0, 4)]

    def _counts(self) -> QHBoxLayout:
        row = QHBoxLayout()
        box(row, spacing=32)
        for count, word in self._tiles():
            tile = QVBoxLayout()
            box(tile, spacing=0)
            number = label(f"{count:,}")
            number.setFont(theme.heading_font(20))
            tile.addWidget(number)
            tile.addWidget(label(word, "muted"))
            row.addLayout(tile)
        row.addStretch(1)
        return row

    def _fill(self) -> None:
        self._section(self.tr("Left out"), by_reason(self.report.skipped))
        self._section(self.tr("To know"), by_reason(self.report.notes))
        if self.report.duplicates:
            top = self._top(self.tr("In the study already"), len(self.report.duplicates), opened=False)
            self._files(top, list(self.report.duplicates))

    def _top(self, title: str, count: int, *, opened: bool) -> QTreeWidgetItem:
        top = QTreeWidgetItem(self.tree, [f"{title} ({count:,})"])
        font = top.font(0)
        font.setBold(True)
        top.setFont(0, font)
        top.setExpanded(opened)
        return top

    def _section(self, title: str, rows: list[tuple[str, list[str]]]) -> None:
        if not rows:
            return
        top = self._top(title, sum(len(files) for _, files in rows), opened=True)
        for reason, files in rows:
            text = reason if len(files) == 1 else f"{len(files):,} ×  {reason}"
            item = QTreeWidgetItem(top, [text])
            self.tree.reasons.append(item)
            item.setToolTip(0, reason if len(files) > 1 else f"{files[0]}\n{reason}")
            self._files(item, files)

    def _files(self, parent: QTreeWidgetItem, files: list[str]) -> None:
        for file in files[:MOST_FILES]:
            child = QTreeWidgetItem(parent, [file])
            child.setToolTip(0, file)
        if len(files) > MOST_FILES:
            QTreeWidgetItem(parent, [self.tr("and {n} more").format(n=f"{len(files) - MOST_FILES:,}")])

    def text(self) -> str:
        """Return the whole report as text."""
        lines = [f"{count:,} {word}" for count, word in self._tiles()]
        if self.report.burned_in:
            lines += ["", text_warning(self, len(self.report.burned_in)), *self.report.burned_in]
        for title, items in (
            (self.tr("Left out"), self.report.skipped),
            (self.tr("To know"), self.report.notes),
        ):
            if items:
                lines += ["", f"{title}:", *(f"{file}: {reason}" for file, reason in items)]
        if self.report.duplicates:
            lines += ["", self.tr("In the study already") + ":", *self.report.duplicates]
        return "\n".join(lines)

    def copy_all(self) -> None:
        """Copy the report, and say so."""
        QGuiApplication.clipboard().setText(self.text())
        self.copy_button.setText(self.tr("Copied"))

    def _copy_selected(self) -> None:
        items = self.tree.selectedItems()
        if items:
            QGuiApplication.clipboard().setText("\n".join(item.text(0) for item in items))

    def _look(self) -> None:
        self.accept()
        self.look_wanted.emit()


def worth_showing(report: ImportReport) -> bool:
    """Whether a report says more than its counts."""
    return bool(report.skipped or report.notes or report.burned_in)
