"""A picture as it is, pixel by pixel: fitted, at full size, or as near as the wheel goes."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QColor, QImage, QMouseEvent, QPainter, QPixmap, QResizeEvent, QWheelEvent
from PySide6.QtWidgets import QFrame, QGraphicsPixmapItem, QGraphicsScene, QGraphicsView

from app import theme

STEP, NEAREST, FARTHEST = 1.25, 16.0, 0.05


class PictureView(QGraphicsView):
    """Shows the very bytes it is given; the wheel zooms, dragging moves, a double click fits or shows full size."""

    zoomed = Signal(float)
    """Screen pixels for a pixel of the picture."""

    def __init__(self, *, fitted: bool = True) -> None:
        super().__init__()
        self._fitted = fitted
        self.data = b""
        self._scene = QGraphicsScene(self)
        self._item = QGraphicsPixmapItem()
        self._item.setTransformationMode(Qt.TransformationMode.SmoothTransformation)
        self._scene.addItem(self._item)
        self.setScene(self._scene)
        self.setBackgroundBrush(QColor(theme.SURROUND))
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setDragMode(QGraphicsView.DragMode.ScrollHandDrag)
        self.setTransformationAnchor(QGraphicsView.ViewportAnchor.AnchorUnderMouse)
        self.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        self.setMinimumSize(160, 120)
        self.setAccessibleName(self.tr("The picture"))

    def show_picture(self, data: bytes) -> None:
        """Show an encoded picture; nothing for no bytes."""
        if data == self.data:
            return
        self.data = data
        image = QImage.fromData(data) if data else QImage()
        self._item.setPixmap(QPixmap.fromImage(image))
        self._scene.setSceneRect(self._item.boundingRect())
        self._place()

    def image(self) -> QImage:
        """Return the picture that is shown."""
        return self._item.pixmap().toImage()

    def fit(self) -> None:
        """Show the whole picture."""
        self._fitted = True
        self._place()

    def full_size(self) -> None:
        """Show a pixel of the picture as one of the screen."""
        self._fitted = False
        self._place()

    def _place(self) -> None:
        self.resetTransform()
        if self._fitted and not self._item.pixmap().isNull():
            self.fitInView(self._item, Qt.AspectRatioMode.KeepAspectRatio)
            if self.transform().m11() > 4:
                self.resetTransform()
                self.scale(4, 4)
        self.zoomed.emit(self.transform().m11())

    def zoom(self, factor: float) -> None:
        """Come nearer or go farther."""
        now = self.transform().m11()
        wanted = min(NEAREST, max(FARTHEST, now * factor))
        self._fitted = False
        self.scale(wanted / now, wanted / now)
        self.zoomed.emit(wanted)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Zoom."""
        if event.angleDelta().y():
            self.zoom(STEP if event.angleDelta().y() > 0 else 1 / STEP)
        event.accept()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Change between the whole picture and its full size."""
        self.full_size() if self._fitted else self.fit()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Go on fitting."""
        super().resizeEvent(event)
        if self._fitted:
            self._place()
