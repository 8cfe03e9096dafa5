"""Four images with the student's present masks on them: what it has learned so far, at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QBrush, QColor, QPainter, QPainterPath, QPaintEvent, QPixmap, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QWidget

from app import theme
from app.layer_drawing import STYLES, pen_of, pixmap_of
from app.scene import Outline, outline
from gaze_capture.errors import UserError
from segmentation.images import decode_gray16, resize
from segmentation.study import Study

TILES = 4
IMAGE_SIDE_PX = 256
CAPTION_PX = 22


@dataclass(frozen=True)
class _Tile:
    name: str
    image: QPixmap
    mask: Outline
    side: int
    """Side of the mask's own grid."""
    step: int


class SampleStrip(QWidget):
    """Tiles in the order the images first came; each is replaced as its mask improves."""

    def __init__(self) -> None:
        super().__init__()
        self._tiles: dict[str, _Tile] = {}
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(120 + CAPTION_PX)
        self.setMaximumHeight(IMAGE_SIDE_PX + CAPTION_PX)
        self.setAccessibleName(self.tr("Sample masks"))

    def sizeHint(self) -> QSize:
        """Ask for four squares."""
        return QSize(TILES * 176 + (TILES - 1) * theme.WIDE, 176 + CAPTION_PX)

    def clear(self) -> None:
        """Forget all tiles."""
        self._tiles.clear()
        self.update()

    @property
    def shown(self) -> dict[str, int]:
        """The step each shown image's mask is from, by image id."""
        return {name: tile.step for name, tile in self._tiles.items()}

    def show_sample(self, study: Study, image_id: str, path: Path, step: int) -> None:
        """Show a mask; a file that has gone meanwhile is passed over."""
        known = self._tiles.get(image_id)
        if known is None and len(self._tiles) >= TILES:
            return
        try:
            probability = decode_gray16(path)
            image = known.image if known is not None else self._load(study, image_id)
        except UserError:
            return
        name = study.images[image_id].source_name
        self._tiles[image_id] = _Tile(name, image, outline(probability), probability.shape[0], step)
        self.update()

    def _load(self, study: Study, image_id: str) -> QPixmap:
        pixels = study.shown(study.image(image_id))
        # Networks see a square; so does the person who judges them.
        return pixmap_of(resize(pixels, IMAGE_SIDE_PX, IMAGE_SIDE_PX))

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the tiles, or the places where they will be."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        tokens = theme.current()
        width = (self.width() - (TILES - 1) * theme.WIDE) / TILES
        side = min(width, self.height() - CAPTION_PX)
        tiles = list(self._tiles.values())
        small = theme.number_font(12)
        painter.setFont(small)
        for index in range(TILES):
            cell = QRectF(index * (width + theme.WIDE), 0, width, side)
            place = QRectF(cell.center().x() - side / 2, 0, side, side)
            shape = QPainterPath()
            shape.addRoundedRect(cell, theme.RADIUS, theme.RADIUS)
            filled = index < len(tiles)
            painter.fillPath(shape, QColor(theme.SURROUND if filled else tokens.raised))
            if not filled:
                continue
            tile = tiles[index]
            painter.setClipPath(shape)
            painter.drawPixmap(place, tile.image, QRectF(tile.image.rect()))
            self._draw_mask(painter, place, tile)
            painter.setClipping(False)
            painter.setPen(QColor(tokens.muted))
            caption = QRectF(cell.left(), side + 4, cell.width(), CAPTION_PX - 4)
            text = self.tr("{name} · step {step:,}").format(name=tile.name, step=tile.step)
            text = painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideMiddle, int(caption.width()))
            painter.drawText(caption, Qt.AlignmentFlag.AlignCenter, text)
        painter.end()

    def _draw_mask(self, painter: QPainter, place: QRectF, tile: _Tile) -> None:
        scale = place.width() / tile.side
        path = QPainterPath()
        path.setFillRule(Qt.FillRule.OddEvenFill)
        for contour in tile.mask.contours:
            points = (contour + 0.5) * scale
            path.addPolygon(
                QPolygonF([QPointF(place.left() + x, place.top() + y) for x, y in points.tolist()])
            )
            path.closeSubpath()
        style = STYLES["student"]
        tint = QColor(style.colour)
        tint.setAlphaF(0.25)
        painter.fillPath(path, QBrush(tint))
        painter.strokePath(path, pen_of(style, halo=True))
        painter.strokePath(path, pen_of(style))
