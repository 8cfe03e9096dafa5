"""What a word is about, shown in the image: a field of the grid, the region, its contour, or its surroundings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen, QTransform

from app import theme
from app.layer_drawing import path_of, pixmap_of
from app.scene import Mask, Outline, outline

FILL = 0.16
BAND_SHARE = 0.012
"""Half the width of the band along the contour, as a share of the image's longer side."""
_ROWS = {"upper": 0, "lower": 2}
_COLUMNS = {"left": 0, "right": 2}


@dataclass(frozen=True)
class Highlight:
    """Areas in image pixels, and perhaps weights."""

    area: Outline
    """Tinted and outlined."""
    beside: Outline | None = None
    """What it is compared with: outlined in dashes."""
    weights: npt.NDArray[np.uint8] | None = None
    """(H, W) 0..255, drawn as a heatmap in place of the tint."""


def highlight_of(
    name: str, value: Any, region: Mask, weights: npt.NDArray[np.uint8] | None = None
) -> Highlight | None:
    """Return what an attribute is about in an image; None where there is nothing to show.

    Parameters
    ----------
    name : of the attribute
    value : as it is said; a place decides which field of the grid
    region : (H, W) the gazed region
    weights : (H, W) 0..255, where the word looks, if that is known
    """
    if weights is not None:
        return Highlight(outline(region), weights=weights)
    if name == "location" or "location" in name.split("_"):
        cell = grid_cell(str(value), region.shape)
        if cell is not None:
            return Highlight(cell)
    if not region.any():
        return None
    if name == "boundary" or "border" in name or "margin" in name:
        return Highlight(outline(_near_contour(region)))
    if name == "intensity" or "contrast" in name.split("_"):
        return Highlight(outline(region), beside=outline(_with_surroundings(region)))
    return Highlight(outline(region))


def grid_cell(word: str, shape: tuple[int, ...]) -> Outline | None:
    """Return the field of the 3 x 3 grid that a location names, or all of the image; None where it names none."""
    height, width = shape[:2]
    words = word.split()
    if word == "whole image":
        left, top, right, bottom = 0.0, 0.0, 1.0, 1.0
    elif words and all(one in ("centre", *_ROWS, *_COLUMNS) for one in words):
        row = next((_ROWS[one] for one in words if one in _ROWS), 1)
        column = next((_COLUMNS[one] for one in words if one in _COLUMNS), 1)
        left, top, right, bottom = column / 3, row / 3, (column + 1) / 3, (row + 1) / 3
    else:
        return None
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return Outline((np.array([(x * width - 0.5, y * height - 0.5) for x, y in corners]),))


def _near_contour(region: Mask) -> Mask:
    reach = max(1.5, BAND_SHARE * max(region.shape))
    near: Mask = (_distance(region) <= reach) & (_distance(~region) <= reach)
    return near


def _with_surroundings(region: Mask) -> Mask:
    """Return the region with about as much around it, as it is measured."""
    reach = max(3.0, (math.sqrt(2) - 1) * math.sqrt(np.count_nonzero(region) / math.pi))
    near: Mask = _distance(~region) <= reach
    return near


def _distance(mask: Mask) -> npt.NDArray[np.float32]:
    found = cv2.distanceTransform(np.ascontiguousarray(mask).view(np.uint8), cv2.DIST_L2, 3)
    return np.asarray(found, dtype=np.float32)


def draw_highlight(painter: QPainter, highlight: Highlight, place: QRectF, to_widget: QTransform) -> None:
    """Draw it; `place` is where the image lies, `to_widget` maps image pixels there."""
    painter.save()
    painter.setOpacity(1)
    painter.setClipRect(place)
    area = to_widget.map(path_of(highlight.area))
    if highlight.weights is not None:
        pixmap = pixmap_of(highlight.weights, "heatmap")
        painter.setOpacity(0.8)
        painter.drawPixmap(place, pixmap, QRectF(pixmap.rect()))
        painter.setOpacity(1)
    else:
        tint = QColor(theme.MARK)
        tint.setAlphaF(FILL)
        painter.fillPath(area, tint)
    painter.strokePath(area, QPen(QColor(0, 0, 0, 150), 3.5))
    painter.strokePath(area, QPen(QColor(theme.MARK), 1.5))
    if highlight.beside is not None:
        beside = to_widget.map(path_of(highlight.beside))
        painter.strokePath(beside, QPen(QColor(0, 0, 0, 110), 3.5))
        dashed = QPen(QColor(theme.MARK), 1.5, Qt.PenStyle.CustomDashLine)
        dashed.setDashPattern([4, 3])
        painter.strokePath(beside, dashed)
    painter.restore()
