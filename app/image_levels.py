"""An image at half, a quarter, an eighth ... of its size, so that zoomed out it is drawn as quickly as a small one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QRectF
from PySide6.QtGui import QPainter, QPixmap

Values = npt.NDArray[Any]
SMALLEST_PX = 64
"""Images are not halved below this."""
SPARE_PX = 2.0
"""Image pixels drawn beyond the part in view, so that smoothing at the edge knows its neighbours."""


class ImageLevels:
    """Draws an image or a map; each size is made when it is first wanted.

    Parameters
    ----------
    values : (H, W) or (H, W, C) of any type
    show : turns values, of whatever size, into a pixmap
    """

    def __init__(self, values: Values, show: Callable[[Values], QPixmap]) -> None:
        self._values = [values]
        self._pixmaps: dict[int, QPixmap] = {}
        self._show = show

    def show_anew(self, show: Callable[[Values], QPixmap]) -> None:
        """Turn values into pixmaps another way; the halved values are kept."""
        self._show = show
        self._pixmaps.clear()

    def level_for(self, scale: float) -> int:
        """Return how often the image is halved where a pixel is `scale` pixels of the screen wide."""
        height, width = self._values[0].shape[:2]
        level = 0
        while scale * 2 ** (level + 1) <= 1 and min(height, width) >> (level + 1) >= SMALLEST_PX:
            level += 1
        return level

    def _level(self, level: int) -> Values:
        while len(self._values) <= level:
            last = self._values[-1]
            height, width = last.shape[:2]
            smaller = cv2.resize(last, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
            # OpenCV drops a single channel's axis.
            self._values.append(smaller.reshape(*smaller.shape[:2], *last.shape[2:]))
        return self._values[level]

    def draw(self, painter: QPainter, place: QRectF, view: QRectF, scale: float) -> None:
        """Draw what is in view.

        Parameters
        ----------
        place : where the whole image lies, in the painter's units
        view : what is to be covered, in the same
        scale : pixels of the screen per image pixel
        """
        level = self.level_for(scale)
        if level not in self._pixmaps:
            self._pixmaps[level] = self._show(np.ascontiguousarray(self._level(level)))
        pixmap = self._pixmaps[level]
        per_x, per_y = pixmap.width() / place.width(), pixmap.height() / place.height()
        spare = QRectF(view).adjusted(
            -SPARE_PX / per_x, -SPARE_PX / per_y, SPARE_PX / per_x, SPARE_PX / per_y
        )
        seen = spare.intersected(place)
        if seen.isEmpty():
            return
        source = QRectF(
            (seen.x() - place.x()) * per_x,
            (seen.y() - place.y()) * per_y,
            seen.width() * per_x,
            seen.height() * per_y,
        )
        painter.drawPixmap(seen, pixmap, source)
