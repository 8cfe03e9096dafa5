"""A wall of thumbnails: the study's images at a glance."""

from __future__ import annotations

from PySide6.QtCore import QRect, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPainterPath, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from app import theme
from app.image_list import Thumbnails
from segmentation.study import Study

CELL_PX = 84
GAP_PX = 8
MOST_ROWS = 6


class Mosaic(QWidget):
    """As many of the study's images, evenly drawn from all, as fit; a click names one."""

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.thumbnails = Thumbnails(self)
        self.thumbnails.made.connect(lambda *_: self.update(), Qt.ConnectionType.QueuedConnection)
        self._study: Study | None = None
        self._ids: list[str] = []
        self._under: int | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMouseTracking(True)
        self.setAccessibleName(self.tr("Images of the study"))

    def sizeHint(self) -> QSize:
        """Ask for two rows."""
        return QSize(CELL_PX, 2 * CELL_PX + GAP_PX)

    def minimumSizeHint(self) -> QSize:
        """Be content with one row."""
        return QSize(CELL_PX, CELL_PX)

    def show_study(self, study: Study | None) -> None:
        """Show a study's images."""
        self._study = study
        if study is not None:
            self.thumbnails.set_study(study)
        self._choose()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Choose anew how many fit."""
        self._choose()

    def _shape(self) -> tuple[int, int]:
        columns = max(1, (self.width() + GAP_PX) // (CELL_PX + GAP_PX))
        rows = max(1, min(MOST_ROWS, (self.height() + GAP_PX) // (CELL_PX + GAP_PX)))
        return columns, rows

    def _choose(self) -> None:
        columns, rows = self._shape()
        ids = list(self._study.images) if self._study is not None else []
        count = min(len(ids), columns * rows)
        self._ids = [ids[index * len(ids) // count] for index in range(count)]
        self.update()

    def _cell(self, index: int) -> QRect:
        columns, _ = self._shape()
        width = (self.width() - (columns - 1) * GAP_PX) / columns
        row, column = divmod(index, columns)
        left, right = round(column * (width + GAP_PX)), round(column * (width + GAP_PX) + width)
        return QRect(left, row * (CELL_PX + GAP_PX), right - left, CELL_PX)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the thumbnails."""
        if self._study is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        tokens = theme.current()
        for index, image_id in enumerate(self._ids):
            place = self._cell(index)
            shape = QPainterPath()
            shape.addRoundedRect(QRectF(place), theme.RADIUS, theme.RADIUS)
            painter.fillPath(shape, QColor(tokens.raised))
            pixmap = self.thumbnails.get(self._study.images[image_id])
            if pixmap is not None:
                # Cells are a little wider than high: cut the square's top and bottom alike.
                height = pixmap.width() * place.height() / place.width()
                source = QRectF(0, (pixmap.height() - height) / 2, pixmap.width(), height)
                painter.setClipPath(shape)
                painter.drawPixmap(QRectF(place), pixmap, source)
                painter.setClipping(False)
            if index == self._under:
                painter.setPen(QPen(QColor(tokens.accent), 2))
                painter.setBrush(Qt.BrushStyle.NoBrush)
                painter.drawRoundedRect(QRectF(place).adjusted(1, 1, -1, -1), theme.RADIUS, theme.RADIUS)
        painter.end()

    def _index_at(self, event: QMouseEvent) -> int | None:
        point = event.position().toPoint()
        return next((index for index in range(len(self._ids)) if self._cell(index).contains(point)), None)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Mark the image under the pointer."""
        under = self._index_at(event)
        if under != self._under:
            self._under = under
            self.setToolTip(
                self._study.images[self._ids[under]].source_name if under is not None and self._study else ""
            )
            self.update()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Name the image."""
        index = self._index_at(event)
        if index is not None and event.button() == Qt.MouseButton.LeftButton:
            self.chosen.emit(self._ids[index])
