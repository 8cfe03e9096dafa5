"""The list of a study's images: thumbnails made as rows come into view, a state each, search and filter."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import (
    QAbstractListModel,
    QCoreApplication,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QRect,
    QRectF,
    QRunnable,
    QSize,
    QSortFilterProxyModel,
    Qt,
    QThreadPool,
    QTimer,
    Signal,
)
from PySide6.QtGui import QColor, QFontMetrics, QImage, QPainter, QPainterPath, QPixmap
from PySide6.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLineEdit,
    QListView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
)

from app import theme
from app.widgets import box, heading, label
from gaze_capture.errors import UserError
from segmentation.images import resize
from segmentation.study import Study, StudyImage

THUMBNAIL_PX = 44
ROW_HEIGHT = 60
KEPT_THUMBNAILS = 600

IdRole = Qt.ItemDataRole.UserRole
StateRole = Qt.ItemDataRole.UserRole + 1
RowRole = Qt.ItemDataRole.UserRole + 2

AnyIndex = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True)
class Row:
    """One image, or one volume, as listed."""

    image_id: str
    """Of a volume, the slice that is shown first."""
    name: str
    image: StudyImage
    state: str
    """A word of the page's own, shown; the filter offers each."""
    token: str
    """The theme's colour of the state's dot."""
    detail: str = ""
    slices: tuple[str, ...] = ()
    """Ids of a volume's slices in order."""
    count: str = ""
    """How many of a volume's slices are in the state, as in ``7/24``."""

    @property
    def text(self) -> str:
        """The state in full."""
        parts = [f"{self.state} {self.count}".rstrip(), self.detail]
        if self.slices:
            number = QCoreApplication.translate("ImageList", "{n} slices").format(n=len(self.slices))
            parts.insert(0, number)
        return " · ".join(part for part in parts if part)


class _MakeOne(QRunnable):
    def __init__(self, thumbnails: Thumbnails) -> None:
        super().__init__()
        self._thumbnails = thumbnails

    def run(self) -> None:
        """Make the thumbnail asked for last."""
        self._thumbnails.make_latest()


class Thumbnails(QObject):
    """Makes square thumbnails in one thread, those asked for last first: the rows now in view."""

    made = Signal(str, QImage)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._kept: OrderedDict[str, QPixmap] = OrderedDict()
        self._waiting: list[StudyImage] = []
        self._study: Study | None = None
        self._lock = threading.Lock()
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(1)
        self.made.connect(self._keep, Qt.ConnectionType.QueuedConnection)

    def set_study(self, study: Study) -> None:
        """Make thumbnails of another study's images from now on."""
        with self._lock:
            self._study = study
            self._waiting.clear()

    def get(self, image: StudyImage) -> QPixmap | None:
        """Return a thumbnail, or None while it is being made; `made` tells when it is there."""
        # By content: an image that was blanked or cropped is another picture under the same id.
        key = image.sha256
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        with self._lock:
            if image not in self._waiting:
                self._waiting.append(image)
                # Rows scrolled past long ago are not worth the work; they ask again when they return.
                del self._waiting[:-60]
                self._pool.start(_MakeOne(self))
        return None

    def make_latest(self) -> None:
        """Read, crop and shrink one image; runs in the thread."""
        with self._lock:
            if not self._waiting:
                return
            wanted, study = self._waiting[-1], self._study
        side = 2 * THUMBNAIL_PX
        try:
            assert study is not None, "thumbnails are asked for of a study"
            pixels = study.shown(wanted)
        except UserError:
            image = QImage(side, side, QImage.Format.Format_RGB888)
            image.fill(QColor(theme.SURROUND))
        else:
            height, width = pixels.shape[:2]
            edge = min(height, width)
            top, left = (height - edge) // 2, (width - edge) // 2
            small = resize(pixels[top : top + edge, left : left + edge], side, side)
            # copy(): the image must not lean on memory that is about to go.
            image = QImage(small.tobytes(), side, side, 3 * side, QImage.Format.Format_RGB888).copy()
        with self._lock:
            if wanted in self._waiting:
                self._waiting.remove(wanted)
        self.made.emit(wanted.sha256, image)

    def _keep(self, key: str, image: QImage) -> None:
        self._kept[key] = QPixmap.fromImage(image)
        while len(self._kept) > KEPT_THUMBNAILS:
            self._kept.popitem(last=False)

    def stop(self) -> None:
        """Drop what waits and wait for what is being made."""
        with self._lock:
            self._waiting.clear()
        self._pool.clear()
        self._pool.waitForDone()


class ImageModel(QAbstractListModel):
    """The rows, in the order given."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: list[Row] = []
        self._index: dict[str, int] = {}
        self._entered: dict[str, str] = {}
        """The slice last shown of each volume, by its row's image."""

    def set_rows(self, rows: list[Row]) -> None:
        """Show other rows; where only states differ, the list stays where it is."""
        if [row.image_id for row in rows] == [row.image_id for row in self._rows]:
            for number, (old, new) in enumerate(zip(self._rows, rows, strict=True)):
                if old != new:
                    self._rows[number] = new
                    self.dataChanged.emit(self.index(number), self.index(number))
            return
        self.beginResetModel()
        self._rows = list(rows)
        self._index = {
            name: number for number, row in enumerate(rows) for name in (row.slices or (row.image_id,))
        }
        self.endResetModel()

    def set_row(self, row: Row) -> None:
        """Replace the row of an image."""
        number = self._index[row.image_id]
        self._rows[number] = row
        self.dataChanged.emit(self.index(number), self.index(number))

    def row_of(self, image_id: str) -> int:
        """Return the row of an image or slice, or -1."""
        return self._index.get(image_id, -1)

    def enter(self, image_id: str) -> None:
        """Note which slice of its volume was shown last, so that the row leads back to it."""
        number = self.row_of(image_id)
        if number >= 0 and self._rows[number].slices:
            self._entered[self._rows[number].image_id] = image_id

    def rowCount(self, parent: AnyIndex | None = None) -> int:
        """Return the number of images."""
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def data(self, index: AnyIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a row's name, tooltip, id, state, or (decoration) the row itself."""
        row = self._rows[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return row.name
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{row.name}\n{row.text}"
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return f"{row.name}, {row.state} {row.count}".rstrip()
        if role == IdRole:
            return self._entered.get(row.image_id, row.image_id)
        if role == StateRole:
            return row.state
        if role == RowRole:
            return row
        return None


class _Filter(QSortFilterProxyModel):
    """Rows whose name holds the text and whose state is the one asked for."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._text = ""
        self._state: str | None = None
        self.setDynamicSortFilter(True)

    def set_text(self, text: str) -> None:
        self._text = text.strip().lower()
        self.invalidate()

    def set_state(self, state: str | None) -> None:
        self._state = state
        self.invalidate()

    def filterAcceptsRow(self, source_row: int, source_parent: AnyIndex) -> bool:
        row: Row = self.sourceModel().index(source_row, 0).data(RowRole)
        return self._text in row.name.lower() and self._state in (None, row.state)


class _Delegate(QStyledItemDelegate):
    """Draws thumbnail, name and state."""

    def __init__(self, thumbnails: Thumbnails, parent: QObject) -> None:
        super().__init__(parent)
        self._thumbnails = thumbnails

    def sizeHint(self, option: QStyleOptionViewItem, index: AnyIndex) -> QSize:
        return QSize(120, ROW_HEIGHT)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: AnyIndex) -> None:
        row: Row = index.data(RowRole)
        tokens = theme.current()
        area: QRect = option.rect
        state: QStyle.StateFlag = option.state
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        selected = bool(state & QStyle.StateFlag.State_Selected)
        if selected or state & QStyle.StateFlag.State_MouseOver:
            painter.fillRect(area, QColor(tokens.selection if selected else tokens.raised))
        if selected:
            painter.fillRect(area.left(), area.top(), 3, area.height(), QColor(tokens.accent))
        place = QRect(
            area.left() + 12, area.top() + (ROW_HEIGHT - THUMBNAIL_PX) // 2, THUMBNAIL_PX, THUMBNAIL_PX
        )
        if row.slices:
            # Edges of further slices peep out behind the first.
            painter.setPen(Qt.PenStyle.NoPen)
            for shift, share in ((6, 0.5), (3, 0.8)):
                painter.setBrush(QColor(theme.blend(tokens.muted, tokens.surface, share * 0.6)))
                painter.drawRoundedRect(QRectF(place.adjusted(shift, -shift, shift, -shift)), 4, 4)
        rounded = QPainterPath()
        rounded.addRoundedRect(QRectF(place), 4, 4)
        painter.fillPath(rounded, QColor(tokens.raised))
        pixmap = self._thumbnails.get(row.image)
        if pixmap is not None:
            painter.setClipPath(rounded)
            painter.drawPixmap(place, pixmap)
            painter.setClipping(False)
        left = place.right() + (16 if row.slices else 12)
        width = area.right() - left - 10
        metrics = QFontMetrics(painter.font())
        painter.setPen(QColor(tokens.text))
        name = metrics.elidedText(row.name, Qt.TextElideMode.ElideMiddle, width)
        painter.drawText(QRect(left, area.top() + 10, width, 20), Qt.AlignmentFlag.AlignVCenter, name)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(getattr(tokens, row.token)))
        painter.drawEllipse(QRectF(left + 1, area.top() + 37, 6, 6))
        small = painter.font()
        small.setPixelSize(12)
        painter.setFont(small)
        painter.setPen(QColor(tokens.muted))
        text = QFontMetrics(small).elidedText(row.text, Qt.TextElideMode.ElideRight, width - 14)
        painter.drawText(
            QRect(left + 14, area.top() + 30, width - 14, 20), Qt.AlignmentFlag.AlignVCenter, text
        )
        painter.restore()


class ImageList(QFrame):
    """The left panel: title with a count, search, filter by state, and the images."""

    chosen = Signal(str)
    """The image the person chose."""

    def __init__(self, title: str, states: Iterable[str]) -> None:
        super().__init__()
        self.setObjectName("panelLeft")
        self.setFixedWidth(264)
        self.thumbnails = Thumbnails(self)
        self.model = ImageModel(self)
        self._filter = _Filter(self)
        self._filter.setSourceModel(self.model)
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Search by name"))
        self.search.setClearButtonEnabled(False)
        self.states = QComboBox()
        self.states.addItem(self.tr("All states"), None)
        for state in states:
            self.states.addItem(state, state)
        self.count = label("", "muted")
        self.view = QListView()
        self.view.setModel(self._filter)
        self.view.setItemDelegate(_Delegate(self.thumbnails, self.view))
        self.view.setUniformItemSizes(True)
        self.view.setMouseTracking(True)
        self.view.setVerticalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self.view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.view.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.view.setAccessibleName(title)
        layout = QVBoxLayout(self)
        box(layout, spacing=0)
        top = QVBoxLayout()
        box(top, margins=(theme.WIDE, theme.WIDE, theme.WIDE, theme.NORMAL), spacing=theme.NORMAL)
        head = QHBoxLayout()
        head.addWidget(heading(title), 1)
        head.addWidget(self.count)
        top.addLayout(head)
        top.addWidget(self.search)
        top.addWidget(self.states)
        layout.addLayout(top)
        layout.addWidget(self.view, 1)
        self.search.textChanged.connect(self._filter.set_text)
        self.states.currentIndexChanged.connect(lambda _: self._filter.set_state(self.states.currentData()))
        for signal in (self._filter.modelReset, self._filter.rowsInserted, self._filter.rowsRemoved):
            signal.connect(self._count)
        self._filter.layoutChanged.connect(self._count)
        # Thumbnails come in bursts; one repaint takes them all.
        self._repaint = QTimer(self, singleShot=True, interval=30)
        self._repaint.timeout.connect(self.view.viewport().update)
        self.thumbnails.made.connect(lambda *_: self._repaint.start(), Qt.ConnectionType.QueuedConnection)
        self.view.clicked.connect(lambda index: self.chosen.emit(index.data(IdRole)))

    def set_rows(self, rows: list[Row]) -> None:
        """Show other rows."""
        self.model.set_rows(rows)
        self._count()

    def _count(self) -> None:
        shown, all_rows = self._filter.rowCount(), self.model.rowCount()
        text = (
            f"{shown:,}"
            if shown == all_rows
            else self.tr("{shown} of {all}").format(shown=shown, all=all_rows)
        )
        self.count.setText(text if all_rows else "")

    def visible_ids(self) -> list[str]:
        """Return the ids that pass search and filter, in order."""
        return [self._filter.index(row, 0).data(IdRole) for row in range(self._filter.rowCount())]

    def select(self, image_id: str | None) -> None:
        """Mark an image, or the volume it is a slice of, as the current one and bring it into view."""
        self.model.enter(image_id or "")
        index = self._filter.mapFromSource(self.model.index(self.model.row_of(image_id or ""), 0))
        self.view.setCurrentIndex(index)
        if index.isValid():
            self.view.scrollTo(index)

    def neighbour(self, image_id: str | None, step: int) -> str | None:
        """Return the image `step` rows on among those that pass the filter; None beyond the ends.

        Of a volume it is the slice shown last, or the middle one.
        """
        shown = self._filter.rowCount()
        index = self._filter.mapFromSource(self.model.index(self.model.row_of(image_id or ""), 0))
        row = index.row() + step if index.isValid() else (0 if step > 0 else shown - 1)
        return self._filter.index(row, 0).data(IdRole) if 0 <= row < shown else None

    def following(
        self, image_id: str | None, target_id: str, order: Sequence[str], step: int
    ) -> tuple[str, str] | None:
        """Return image and target that come next (1) or came before (-1); None beyond the ends.

        The targets of an image come in `order`; where it is empty, the target stays.
        """
        if image_id is not None and order and 0 <= (place := order.index(target_id) + step) < len(order):
            return image_id, order[place]
        found = self.neighbour(image_id, step)
        if found is None:
            return None
        return found, (order[0 if step > 0 else -1] if order else target_id)
