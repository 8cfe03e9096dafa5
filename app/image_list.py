"""The list of a study's images: thumbnails made as rows come into view, a state each, search and filter."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence, Set
from typing import Any

from PySide6.QtCore import (
    QAbstractListModel,
    QCoreApplication,
    QEvent,
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
from PySide6.QtGui import (
    QColor,
    QFontMetrics,
    QImage,
    QKeyEvent,
    QKeySequence,
    QPainter,
    QPainterPath,
    QPixmap,
    QShortcut,
)
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
    QWidget,
)

from app import theme
from app.criteria import Criteria, counts_of, text_of
from app.criteria import Row as Row
from app.list_filter import ListFilter
from app.widgets import Button, box, heading, label
from gaze_capture.errors import UserError
from segmentation.images import resize
from segmentation.records import StudyImage
from segmentation.study import Study

THUMBNAIL_PX = 44
ROW_HEIGHT = 60
KEPT_THUMBNAILS = 600
DOUBT_WIDTH = 52
"""Of the number and the bar at a row's right."""
VERY_DOUBTFUL = 0.5
PENCIL_PX = 15
"""The sign of an unfinished edit, at the end of a row's name."""

IdRole = Qt.ItemDataRole.UserRole
StateRole = Qt.ItemDataRole.UserRole + 1
RowRole = Qt.ItemDataRole.UserRole + 2

AnyIndex = QModelIndex | QPersistentModelIndex


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


def state_of(row: Row) -> str:
    """Return how an image, or a volume, stands in full."""
    parts = [f"{row.state} {row.count}".rstrip(), row.detail]
    if row.slices:
        slices = QCoreApplication.translate("ImageList", "{n:,} slices").format(n=len(row.slices))
        parts.insert(0, slices)
    return " · ".join(part for part in parts if part)


def doubt_lines(row: Row) -> list[str]:
    """Return a row's doubt and its reasons in words; nothing where it has none."""
    if row.doubt is None:
        return []
    told = QCoreApplication.translate("ImageList", "Doubt {doubt:.2f}").format(doubt=row.doubt)
    return [told, *row.reasons]


def notes_of(row: Row) -> list[str]:
    """Return what a row's tooltip says besides its state: an unfinished edit, its doubt and why."""
    left = [QCoreApplication.translate("ImageList", "An edit was left unfinished; E goes on with it")]
    return [*(left if row.unfinished else ()), *doubt_lines(row)]


class ImageModel(QAbstractListModel):
    """The rows, in the order given."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: list[Row] = []
        self._ids: list[str] = []
        self._texts: list[str] = []
        self._index: dict[str, int] = {}
        self._entered: dict[str, str] = {}
        """The slice last shown of each volume, by its row's image."""
        self._unfinished: Set[str] = frozenset()

    @property
    def rows(self) -> Sequence[Row]:
        """The rows."""
        return self._rows

    @property
    def texts(self) -> Sequence[str]:
        """What words are looked for in, a row each."""
        return self._texts

    def set_rows(self, rows: list[Row]) -> None:
        """Show other rows; where only states differ, the list stays where it is."""
        rows = [self._marked(row) for row in rows]
        ids = [row.image_id for row in rows]
        if ids == self._ids:
            changed = [
                number
                for number, (old, new) in enumerate(zip(self._rows, rows, strict=True))
                if old is not new and old != new
            ]
            if changed:
                self._rows = rows
                self._texts = [text_of(row) for row in rows]
                self.dataChanged.emit(self.index(changed[0]), self.index(changed[-1]))
            return
        self.beginResetModel()
        self._rows = rows
        self._ids = ids
        self._texts = [text_of(row) for row in rows]
        self._index = {
            name: number for number, row in enumerate(rows) for name in (row.slices or (row.image_id,))
        }
        self.endResetModel()

    def set_row(self, row: Row) -> None:
        """Replace the row of an image."""
        number = self._index[row.image_id]
        self._rows[number] = self._marked(row)
        self._texts[number] = text_of(row)
        self.dataChanged.emit(self.index(number), self.index(number))

    def mark_unfinished(self, image_ids: Set[str]) -> None:
        """Mark the rows of these images, and no others: an edit of them was left as a draft."""
        if image_ids != self._unfinished:
            self._unfinished = image_ids
            self.set_rows(self._rows)

    def _marked(self, row: Row) -> Row:
        left = not self._unfinished.isdisjoint(row.slices or (row.image_id,))
        return row if row.unfinished == left else dataclasses.replace(row, unfinished=left)

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
            return "\n".join((f"{row.name}\n{state_of(row)}", *notes_of(row)))
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return ", ".join((f"{row.name}, {row.state} {row.count}".rstrip(), *notes_of(row)))
        if role == IdRole:
            return self._entered.get(row.image_id, row.image_id)
        if role == StateRole:
            return row.state
        if role == RowRole:
            return row
        return None


class _Passing(QAbstractListModel):
    """The rows that fulfil the criteria, in their order.

    All of them are judged at once: a proxy that is asked row by row takes longer than a person types.
    """

    def __init__(self, rows: ImageModel, parent: QObject) -> None:
        super().__init__(parent)
        self._source = rows
        self._criteria = Criteria()
        self._numbers: list[int] = []
        self._places: dict[int, int] = {}
        rows.modelReset.connect(self._judge)
        rows.dataChanged.connect(self._follow)

    def set_criteria(self, criteria: Criteria) -> None:
        """Show what fulfils other criteria."""
        if criteria != self._criteria:
            self._criteria = criteria
            if self._found() != self._numbers:
                self._judge()

    def _found(self) -> list[int]:
        return self._criteria.passing(self._source.rows, self._source.texts)

    def _judge(self) -> None:
        self.beginResetModel()
        self._numbers = self._found()
        self._places = {number: place for place, number in enumerate(self._numbers)}
        self.endResetModel()

    def _follow(self, first: QModelIndex, last: QModelIndex) -> None:
        found = self._found()
        if found == self._numbers:
            places = [self._places[n] for n in range(first.row(), last.row() + 1) if n in self._places]
            if places:
                self.dataChanged.emit(self.index(places[0]), self.index(places[-1]))
            return
        gone = sorted(set(self._numbers) - set(found))
        if len(gone) == 1 and len(found) == len(self._numbers) - 1:
            # One image got a state that is filtered out: the list stays where it is.
            place = self._places[gone[0]]
            self.beginRemoveRows(QModelIndex(), place, place)
            self._numbers = found
            self._places = {number: place for place, number in enumerate(found)}
            self.endRemoveRows()
            return
        self._judge()

    def place_of(self, image_id: str | None) -> int:
        """Return the place of an image among the rows shown, or -1."""
        return self._places.get(self._source.row_of(image_id or ""), -1)

    def id_at(self, place: int) -> str:
        """Return the image at a place."""
        found: str = self._source.data(self._source.index(self._numbers[place]), IdRole)
        return found

    def rowCount(self, parent: AnyIndex | None = None) -> int:
        """Return the number of rows shown."""
        return 0 if parent is not None and parent.isValid() else len(self._numbers)

    def data(self, index: AnyIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what the row says."""
        if role == RowRole:
            return self._source.rows[self._numbers[index.row()]]
        return self._source.data(self._source.index(self._numbers[index.row()]), role)


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
        if row.unfinished:
            width -= PENCIL_PX + 4
            sign = QRect(left + width + 4, area.top() + 12, PENCIL_PX, PENCIL_PX)
            theme.icon("pencil-simple", tokens.accent).paint(painter, sign)
        name = metrics.elidedText(row.name, Qt.TextElideMode.ElideMiddle, width)
        painter.drawText(QRect(left, area.top() + 10, width, 20), Qt.AlignmentFlag.AlignVCenter, name)
        width = area.right() - left - 10
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(getattr(tokens, row.token)))
        painter.drawEllipse(QRectF(left + 1, area.top() + 37, 6, 6))
        small = painter.font()
        small.setPixelSize(12)
        painter.setFont(small)
        painter.setPen(QColor(tokens.muted))
        room = width - 14 - (0 if row.doubt is None else DOUBT_WIDTH + 6)
        text = QFontMetrics(small).elidedText(state_of(row), Qt.TextElideMode.ElideRight, room)
        painter.drawText(QRect(left + 14, area.top() + 30, room, 20), Qt.AlignmentFlag.AlignVCenter, text)
        if row.doubt is not None:
            place = QRect(area.right() - 10 - DOUBT_WIDTH, area.top() + 30, DOUBT_WIDTH, 20)
            self._paint_doubt(painter, place, row.doubt)
        painter.restore()

    def _paint_doubt(self, painter: QPainter, place: QRect, doubt: float) -> None:
        """Draw how far a mask is to be doubted: a bar and, so that its length need not be guessed, the number."""
        tokens = theme.current()
        painter.setFont(theme.number_font(12))
        painter.setPen(QColor(tokens.text if doubt >= VERY_DOUBTFUL else tokens.muted))
        side = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight
        painter.drawText(place, side, f"{doubt:.2f}")
        bar = QRectF(place.left(), place.top() + 8, DOUBT_WIDTH - 32, 4)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(tokens.border))
        painter.drawRoundedRect(bar, 2, 2)
        painter.setBrush(QColor(tokens.warning if doubt >= VERY_DOUBTFUL else tokens.muted))
        painter.drawRoundedRect(
            QRectF(bar.left(), bar.top(), max(2.0, bar.width() * doubt), bar.height()), 2, 2
        )


class ImageList(QFrame):
    """The left panel: title with a count, search, filter by state, and the images."""

    chosen = Signal(str)
    """The image the person chose."""
    narrowed = Signal()
    """Search, state or filter changed."""
    left = Signal()
    """The person is done with the search: the keys are the image's again."""

    def __init__(self, title: str, states: Iterable[str]) -> None:
        super().__init__()
        self.setObjectName("panelLeft")
        self.setFixedWidth(264)
        self.thumbnails = Thumbnails(self)
        self.model = ImageModel(self)
        self._passing = _Passing(self.model, self)
        # Filters nothing: it answers the view's ten thousand questions for row and column without Python.
        self._shown = QSortFilterProxyModel(self)
        self._shown.setSourceModel(self._passing)
        self._current: str | None = None
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Name, id or group (Ctrl+F)"))
        self.search.setToolTip(
            self.tr("Words of name, id, group or split; or a field, like split:test or group:patient-7")
        )
        self.search.setClearButtonEnabled(False)
        self.search.installEventFilter(self)
        QShortcut(QKeySequence.StandardKey.Find, self.search, self._begin_search)
        self.states = QComboBox()
        # A click leaves the keys to the image: A would choose the state Accepted.
        self.states.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.states.addItem(self.tr("All states"), None)
        for state in states:
            self.states.addItem(state, state)
        self.count = label("", "muted")
        self.view = QListView()
        self.view.setModel(self._shown)
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
        self.filter = ListFilter(self._values)
        narrow = QHBoxLayout()
        box(narrow, spacing=theme.SMALL)
        narrow.addWidget(self.states, 1)
        narrow.addWidget(self.filter.button)
        top.addWidget(self.search)
        top.addLayout(narrow)
        top.addWidget(self.filter)
        self._top = top
        layout.addLayout(top)
        layout.addWidget(self._make_none())
        layout.addWidget(self.view, 1)
        self.search.textChanged.connect(lambda _: self._narrow())
        self.states.currentIndexChanged.connect(lambda _: self._narrow())
        self.filter.changed.connect(self._narrow)
        self._shown.modelReset.connect(self._restore)
        # Of the rows themselves: the model between tells of a removal before it has happened.
        self._passing.rowsRemoved.connect(self._count)
        # Thumbnails come in bursts; one repaint takes them all.
        self._repaint = QTimer(self, singleShot=True, interval=30)
        self._repaint.timeout.connect(self.view.viewport().update)
        self.thumbnails.made.connect(lambda *_: self._repaint.start(), Qt.ConnectionType.QueuedConnection)
        self.view.clicked.connect(lambda index: self.chosen.emit(index.data(IdRole)))

    def _make_none(self) -> QWidget:
        """Return what stands in place of rows where none pass."""
        self.none = QWidget()
        layout = QVBoxLayout(self.none)
        box(layout, margins=(theme.WIDE, theme.LARGE, theme.WIDE, theme.LARGE), spacing=theme.NORMAL)
        layout.addWidget(label(self.tr("No image fits search, state and filter."), "muted", wrap=True))
        self.show_all = Button(self.tr("Show all"), on_click=lambda: self.narrow_to(Criteria()))
        self.show_all.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        layout.addWidget(self.show_all)
        self.none.hide()
        return self.none

    def add_bar(self, bar: QWidget) -> None:
        """Add a row of controls below the filter."""
        self._top.addWidget(bar)

    def set_rows(self, rows: list[Row]) -> None:
        """Show other rows."""
        self.model.set_rows(rows)
        self._count()

    def mark_unfinished(self, image_ids: Set[str]) -> None:
        """Mark the rows of these images, and no others: an edit of them was left as a draft."""
        self.model.mark_unfinished(image_ids)
        self._count()

    def _begin_search(self) -> None:
        self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.search.selectAll()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Enter goes to what was searched for, Esc clears the search; both give the keys back to the image."""
        if watched is self.search and event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                first = self.neighbour(None, 1)
                if first is not None and self._passing.place_of(self._current) < 0:
                    self.chosen.emit(first)
                self.left.emit()
                return True
            if event.key() == Qt.Key.Key_Escape:
                self.search.clear()
                self.left.emit()
                return True
        return super().eventFilter(watched, event)

    @property
    def criteria(self) -> Criteria:
        """What the list is narrowed to."""
        return Criteria(self.search.text(), self.states.currentData(), self.filter.chosen)

    def narrow_to(self, criteria: Criteria) -> None:
        """Search, state and filter as given; a state that the list does not offer means all."""
        for field in (self.search, self.states):
            field.blockSignals(True)
        self.search.setText(criteria.text)
        self.states.setCurrentIndex(max(0, self.states.findData(criteria.state)))
        for field in (self.search, self.states):
            field.blockSignals(False)
        self.filter.choose(criteria.chosen)

    def _narrow(self) -> None:
        self._passing.set_criteria(self.criteria)
        self._count()
        self.narrowed.emit()

    def _values(self) -> dict[str, Counter[str]]:
        return counts_of(self.model.rows)

    def _restore(self) -> None:
        """Mark the current image again, which a reset forgets."""
        self.select(self._current)
        self._count()

    def _count(self) -> None:
        shown, all_rows = self._passing.rowCount(), self.model.rowCount()
        text = (
            f"{shown:,}"
            if shown == all_rows
            else self.tr("{shown:,} of {all:,}").format(shown=shown, all=all_rows)
        )
        self.count.setText(text if all_rows else "")
        self.none.setVisible(bool(all_rows) and not shown)

    def visible_ids(self) -> list[str]:
        """Return the ids that pass search and filter, in order."""
        return [self._passing.id_at(place) for place in range(self._passing.rowCount())]

    def select(self, image_id: str | None) -> None:
        """Mark an image, or the volume it is a slice of, as the current one and bring it into view."""
        self._current = image_id
        self.model.enter(image_id or "")
        place = self._passing.place_of(image_id)
        index = self._shown.index(place, 0) if place >= 0 else QModelIndex()
        self.view.setCurrentIndex(index)
        if index.isValid():
            self.view.scrollTo(index)

    def neighbour(self, image_id: str | None, step: int) -> str | None:
        """Return the image `step` rows on among those that pass the filter; None beyond the ends.

        Of a volume it is the slice shown last, or the middle one.
        """
        shown = self._passing.rowCount()
        place = self._passing.place_of(image_id)
        row = place + step if place >= 0 else (0 if step > 0 else shown - 1)
        return self._passing.id_at(row) if 0 <= row < shown else None

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
