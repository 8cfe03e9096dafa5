"""An image on which rectangles are drawn with the mouse, in image pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent, QPen, QPixmap
from PySide6.QtWidgets import QSizePolicy, QWidget

from app import theme
from segmentation.blanking import Rectangle

LEAST_PX = 3
"""Of the screen: a shorter drag was a click."""
MARGIN_PX = 12


class RectangleCanvas(QWidget):
    """Shows an image whole; a drag draws a rectangle, filled as the image will be."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.rectangles: list[Rectangle] = []
        self._pixmap: QPixmap | None = None
        self._begun: QPointF | None = None
        self._now = QPointF()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(320, 240)
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.setAccessibleName(self.tr("Image; drag over text to cover it"))

    def sizeHint(self) -> QSize:
        """Ask for much room."""
        return QSize(900, 560)

    def show_image(self, pixels: npt.NDArray[np.uint8] | None) -> None:
        """Show an image (H, W, 3), or none; rectangles stay."""
        if pixels is None:
            self._pixmap = None
        else:
            data = np.ascontiguousarray(pixels)
            height, width = data.shape[:2]
            image = QImage(data.data, width, height, 3 * width, QImage.Format.Format_RGB888)
            self._pixmap = QPixmap.fromImage(image)
        self._begun = None
        self.update()

    def set_rectangles(self, rectangles: list[Rectangle]) -> None:
        """Show these rectangles."""
        self.rectangles = list(rectangles)
        self.update()
        self.changed.emit()

    def undo(self) -> None:
        """Take the last rectangle away."""
        self.set_rectangles(self.rectangles[:-1])

    def add_band(self, *, top: bool) -> None:
        """Cover a tenth of the image at its top or bottom, as devices write there; again, and it grows."""
        if self._pixmap is None:
            return
        width, height = self._pixmap.width(), self._pixmap.height()
        deep = max(1, height // 10)
        bands = [
            one
            for one in self.rectangles
            if one[2] == width and (one[1] == 0 if top else one[1] + one[3] == height)
        ]
        deep += max((one[3] for one in bands), default=0)
        kept = [one for one in self.rectangles if one not in bands]
        self.set_rectangles([*kept, (0, 0 if top else height - deep, width, min(deep, height))])

    # Geometry

    def image_area(self) -> QRectF:
        """Return where the image lies on the widget."""
        if self._pixmap is None:
            return QRectF()
        room = QRectF(self.rect()).adjusted(MARGIN_PX, MARGIN_PX, -MARGIN_PX, -MARGIN_PX)
        width, height = self._pixmap.width(), self._pixmap.height()
        scale = min(room.width() / width, room.height() / height)
        size = (width * scale, height * scale)
        return QRectF(room.center().x() - size[0] / 2, room.center().y() - size[1] / 2, size[0], size[1])

    def _scale(self) -> float:
        return self.image_area().width() / self._pixmap.width() if self._pixmap is not None else 1.0

    def on_screen(self, rectangle: Rectangle) -> QRectF:
        """Return where a rectangle lies on the widget."""
        area, scale = self.image_area(), self._scale()
        x, y, width, height = rectangle
        return QRectF(area.left() + x * scale, area.top() + y * scale, width * scale, height * scale)

    def _in_image(self, area: QRectF) -> Rectangle | None:
        assert self._pixmap is not None
        image, scale = self.image_area(), self._scale()
        cut = area.intersected(image)
        if cut.width() < LEAST_PX or cut.height() < LEAST_PX:
            return None
        # Outwards: what was covered on the screen is covered in the image.
        left, top = int((cut.left() - image.left()) / scale), int((cut.top() - image.top()) / scale)
        right = min(self._pixmap.width(), int(np.ceil((cut.right() - image.left()) / scale)))
        bottom = min(self._pixmap.height(), int(np.ceil((cut.bottom() - image.top()) / scale)))
        return left, top, right - left, bottom - top

    # Mouse

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Begin a rectangle."""
        if event.button() == Qt.MouseButton.LeftButton and self._pixmap is not None:
            self._begun = self._now = event.position()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Let it grow."""
        if self._begun is not None:
            self._now = event.position()
            self.update()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Keep it."""
        if self._begun is None or event.button() != Qt.MouseButton.LeftButton:
            return
        drawn = self._in_image(QRectF(self._begun, event.position()).normalized())
        self._begun = None
        if drawn is not None:
            self.set_rectangles([*self.rectangles, drawn])
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the image and what covers it."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(theme.SURROUND))
        if self._pixmap is not None:
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            painter.drawPixmap(self.image_area(), self._pixmap, QRectF(self._pixmap.rect()))
            for rectangle in self.rectangles:
                self._draw(painter, self.on_screen(rectangle))
            if self._begun is not None:
                self._draw(painter, QRectF(self._begun, self._now).normalized() & self.image_area())
        painter.end()

    def _draw(self, painter: QPainter, area: QRectF) -> None:
        painter.fillRect(area, QColor(0, 0, 0, 200))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        # Dark below bright: seen on any image.
        painter.setPen(QPen(QColor("#101010"), 3))
        painter.drawRect(area)
        painter.setPen(QPen(QColor("#E69F00"), 1.5))
        painter.drawRect(area)
