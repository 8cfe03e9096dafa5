"""Four images with the student's masks on them, at any step of the run: one sees what it learned, and when."""

from __future__ import annotations

import bisect
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, QTimer
from PySide6.QtGui import QBrush, QColor, QPainter, QPainterPath, QPaintEvent, QPixmap, QPolygonF
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QSlider, QVBoxLayout, QWidget

from app import theme
from app.layer_drawing import STYLES, Style, pen_of, pixmap_of
from app.scene import Outline, outline
from app.widgets import IconButton, box, heading, label
from gaze_capture.errors import UserError
from segmentation.images import decode_gray16, resize
from segmentation.study import Study

TILES = 4
IMAGE_SIDE_PX = 256
LOWEST_TILE_PX = 96
CAPTION_PX = 22
PLAY_MS = 160


@dataclass(frozen=True)
class _Mask:
    outline: Outline
    side: int
    """Side of the mask's own grid."""
    style: Style


@dataclass
class _Tile:
    name: str
    image: QPixmap
    masks: list[_Mask]
    step: int


class SampleStrip(QWidget):
    """The images in the order they first came; the slider goes through the steps, and follows the newest at its end."""

    def __init__(self) -> None:
        super().__init__()
        self._images: dict[str, tuple[str, QPixmap]] = {}
        self._styles: dict[str, Style] = {}
        self._paths: dict[str, dict[int, dict[str, Path]]] = {}
        """Files by image, step and target."""
        self._read: dict[Path, _Mask | None] = {}
        self._steps: list[int] = []
        self.setAccessibleName(self.tr("Sample masks"))
        layout = QVBoxLayout(self)
        box(layout, spacing=theme.SMALL)
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        head.addWidget(heading(self.tr("Sample masks"), 13))
        self.play = IconButton("play", self.tr("Show how the masks came about"), on_click=self._play_or_pause)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setAccessibleName(self.tr("Step of the sample masks"))
        self.slider.setToolTip(self.tr("The same images at earlier steps: ← →, Home, End"))
        self.slider.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.slider.setPageStep(5)
        self.moment = label("", "muted")
        self.moment.setFont(theme.number_font(12))
        self.moment.setMinimumWidth(112)
        self.moment.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        head.addSpacing(theme.WIDE)
        head.addWidget(self.play)
        head.addWidget(self.slider, 1)
        head.addWidget(self.moment)
        layout.addLayout(head)
        self._tiles = _Tiles(self)
        layout.addWidget(self._tiles, 1)
        self.slider.valueChanged.connect(lambda _: self._moved())
        self._playing = QTimer(self, interval=PLAY_MS)
        self._playing.timeout.connect(self._go_on)
        self.clear()

    def clear(self) -> None:
        """Forget all images and masks."""
        self._stop()
        for store in (self._images, self._styles, self._paths, self._read, self._steps):
            store.clear()
        self.slider.setRange(0, 0)
        self._moved()

    @property
    def step(self) -> int | None:
        """The step the slider stands at; None before the first sample."""
        return self._steps[self.slider.value()] if self._steps else None

    @property
    def shown(self) -> dict[str, int]:
        """The step each shown image's mask is from, by image id."""
        return {image_id: tile.step for image_id, tile in self.tiles().items()}

    def show_sample(self, study: Study, image_id: str, path: Path, step: int, target_id: str = "") -> None:
        """Take up a mask; an image that cannot be read is passed over."""
        if image_id not in self._images:
            if len(self._images) >= TILES:
                return
            try:
                pixels = study.shown(study.image(image_id))
            except UserError:
                return
            # Networks see a square; so does the person who judges them.
            image = pixmap_of(resize(pixels, IMAGE_SIDE_PX, IMAGE_SIDE_PX))
            self._images[image_id] = study.images[image_id].source_name, image
        if len(study.targets) > 1 and not self._styles:
            student = STYLES["student"]
            self._styles = {
                target.id: dataclasses.replace(student, colour=target.colour) for target in study.targets
            }
        self._paths.setdefault(image_id, {}).setdefault(step, {})[target_id] = path
        self._read.pop(path, None)
        if step not in self._steps:
            newest = self.slider.value() == self.slider.maximum() and not self._playing.isActive()
            bisect.insort(self._steps, step)
            self.slider.setMaximum(len(self._steps) - 1)
            if newest:
                self.slider.setValue(self.slider.maximum())
        self._moved()

    def tiles(self) -> dict[str, _Tile]:
        """Return what is shown at the slider's step: each image with its latest mask up to then."""
        found: dict[str, _Tile] = {}
        step = self.step
        for image_id, steps in self._paths.items():
            known = [one for one in steps if step is not None and one <= step]
            masks: list[_Mask] = []
            for target_id, path in steps[max(known)].items() if known else ():
                if (mask := self._mask(path, target_id)) is not None:
                    masks.append(mask)
            if masks:
                found[image_id] = _Tile(*self._images[image_id], masks, max(known))
        return found

    def _mask(self, path: Path, target_id: str) -> _Mask | None:
        if path not in self._read:
            try:
                probability = decode_gray16(path)
            except UserError:
                # Gone, or not wholly written on a slow share; what else there is can be shown.
                self._read[path] = None
            else:
                style = self._styles.get(target_id, STYLES["student"])
                self._read[path] = _Mask(outline(probability), probability.shape[0], style)
        return self._read[path]

    def _moved(self) -> None:
        several = len(self._steps) > 1
        self.slider.setEnabled(several)
        self.play.setEnabled(several)
        step = self.step
        if step is None:
            self.moment.setText("")
        elif self.slider.value() == self.slider.maximum():
            self.moment.setText(self.tr("step {step:,} · newest").format(step=step))
        else:
            self.moment.setText(self.tr("step {step:,}").format(step=step))
        self._tiles.update()

    def _play_or_pause(self) -> None:
        if self._playing.isActive():
            self._stop()
            return
        if self.slider.value() == self.slider.maximum():
            self.slider.setValue(0)
        self.play.set_icon("pause")
        self._playing.start()

    def _go_on(self) -> None:
        self.slider.setValue(self.slider.value() + 1)
        if self.slider.value() == self.slider.maximum():
            self._stop()

    def _stop(self) -> None:
        self._playing.stop()
        self.play.set_icon("play")


class _Tiles(QWidget):
    """Draws the strip's tiles, or the places where they will be."""

    def __init__(self, strip: SampleStrip) -> None:
        super().__init__()
        self._strip = strip
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(LOWEST_TILE_PX + CAPTION_PX)
        self.setMaximumHeight(IMAGE_SIDE_PX + CAPTION_PX)

    def sizeHint(self) -> QSize:
        """Ask for four small squares; they grow with the window."""
        return QSize(TILES * LOWEST_TILE_PX + (TILES - 1) * theme.WIDE, LOWEST_TILE_PX + CAPTION_PX)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the tiles."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        tokens = theme.current()
        width = (self.width() - (TILES - 1) * theme.WIDE) / TILES
        side = min(width, self.height() - CAPTION_PX)
        tiles = list(self._strip.tiles().values())
        painter.setFont(theme.number_font(12))
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
            for mask in tile.masks:
                self._draw_mask(painter, place, mask)
            painter.setClipping(False)
            painter.setPen(QColor(tokens.muted))
            caption = QRectF(cell.left(), side + 4, cell.width(), CAPTION_PX - 4)
            text = self.tr("{name} · step {step:,}").format(name=tile.name, step=tile.step)
            text = painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideMiddle, int(caption.width()))
            painter.drawText(caption, Qt.AlignmentFlag.AlignCenter, text)
        painter.end()

    def _draw_mask(self, painter: QPainter, place: QRectF, mask: _Mask) -> None:
        scale = place.width() / mask.side
        path = QPainterPath()
        path.setFillRule(Qt.FillRule.OddEvenFill)
        for contour in mask.outline.contours:
            points = (contour + 0.5) * scale
            path.addPolygon(
                QPolygonF([QPointF(place.left() + x, place.top() + y) for x, y in points.tolist()])
            )
            path.closeSubpath()
        tint = QColor(mask.style.colour)
        tint.setAlphaF(0.25)
        painter.fillPath(path, QBrush(tint))
        painter.strokePath(path, pen_of(mask.style, halo=True))
        painter.strokePath(path, pen_of(mask.style))
