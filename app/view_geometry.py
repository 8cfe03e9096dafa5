"""Where an image lies on a canvas: scale and place, and how zooming, moving and fitting change them."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF, QSize, QSizeF
from PySide6.QtGui import QTransform

MINIMUM_VISIBLE_PX = 32
MAXIMUM_ZOOM = 40.0
MARGIN_PX = 12


@dataclass(frozen=True)
class View:
    """Logical pixels of the screen per image pixel, and where the image's corner lies on the widget."""

    scale: float = 1.0
    x: float = 0.0
    y: float = 0.0

    @property
    def origin(self) -> QPointF:
        """The image's corner on the widget."""
        return QPointF(self.x, self.y)

    def widget_from_image(self, x: float, y: float) -> QPointF:
        """Map an image position (pixel centres at whole numbers) to the widget."""
        return QPointF((x + 0.5) * self.scale + self.x, (y + 0.5) * self.scale + self.y)

    def image_from_widget(self, point: QPointF) -> tuple[float, float]:
        """Map a position on the widget to image pixels."""
        return (point.x() - self.x) / self.scale - 0.5, (point.y() - self.y) / self.scale - 0.5

    def to_widget(self) -> QTransform:
        """Return the transform from image pixels to the widget."""
        half = self.scale / 2
        return QTransform(self.scale, 0, 0, self.scale, self.x + half, self.y + half)

    def place(self, image: QSize) -> QRectF:
        """Return where the image lies."""
        return QRectF(self.x, self.y, image.width() * self.scale, image.height() * self.scale)

    def moved(self, by: QPointF) -> View:
        """Return the view after the image was moved."""
        return View(self.scale, self.x + by.x(), self.y + by.y())

    def zoomed(self, scale: float, around: QPointF) -> View:
        """Return the view at another scale, the image under a point staying where it is."""
        grown = scale / self.scale
        return View(
            scale, around.x() - (around.x() - self.x) * grown, around.y() - (around.y() - self.y) * grown
        )

    def kept(self, image: QSize, widget: QSizeF) -> View:
        """Return the view nearest to this one in which some of the image can be seen."""
        keep = MINIMUM_VISIBLE_PX
        width, height = image.width() * self.scale, image.height() * self.scale
        return View(
            self.scale,
            min(max(self.x, keep - width), widget.width() - keep),
            min(max(self.y, keep - height), widget.height() - keep),
        )


def fitted(image: QSize, widget: QSizeF) -> View:
    """Return the view that shows all of an image, as large as fits."""
    room_x, room_y = max(widget.width() - 2 * MARGIN_PX, 16), max(widget.height() - 2 * MARGIN_PX, 16)
    scale = min(room_x / image.width(), room_y / image.height())
    return View(
        scale, (widget.width() - image.width() * scale) / 2, (widget.height() - image.height() * scale) / 2
    )


def limited(scale: float, image: QSize, widget: QSizeF) -> float:
    """Return a scale within what can be zoomed to: from a quarter of fitting to large single pixels."""
    least = min(widget.width() / image.width(), widget.height() / image.height()) / 4
    return min(max(scale, least), MAXIMUM_ZOOM)
