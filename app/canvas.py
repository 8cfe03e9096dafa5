"""The one canvas: draws a Scene with QPainter and maps image pixels to the screen and back, exactly."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PySide6.QtCore import QLineF, QPoint, QPointF, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QBrush,
    QColor,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPainterPath,
    QPaintEvent,
    QPen,
    QPixmap,
    QPolygonF,
    QResizeEvent,
    QTransform,
    QWheelEvent,
)
from PySide6.QtWidgets import QWidget

from app import theme
from app.scene import LAYERS, Floats, LayerName, Marks, Outline, Scene, inferno_rgba

MINIMUM_VISIBLE_PX = 32
MAXIMUM_ZOOM = 40.0
RADIUS_AT_250_MS = 8.0
HOLD_SECONDS = 0.3
"""A layer key held longer than this only peeks: releasing it puts the layer back."""


@dataclass(frozen=True)
class Style:
    """How a layer is drawn: never by colour alone."""

    colour: str
    width: float = 2.0
    dashes: tuple[float, ...] = ()
    """Lengths of dash and gap in units of the pen's width; empty is solid."""
    fill: float = 0.0
    """Opacity of the tint inside, 0..1."""


STYLES: dict[LayerName, Style] = {
    "heatmap": Style("#F98E09"),
    "fixations": Style("#FFFFFF", 1.5),
    "scanpath": Style("#FFFFFF", 1.0),
    "levels": Style("#009E73", 1.5),
    "student": Style("#56B4E9", 2.0, fill=0.18),
    "teacher": Style("#E69F00", 2.0, dashes=(6, 2.5, 1.5, 2.5)),
    "disagreement": Style("#CC79A7", 1.0),
    "reviewed": Style("#FFFFFF", 2.0),
    "truth": Style("#F0E442", 2.0, dashes=(1.2, 2.2)),
}
LOWER_LEVEL_DASHES = (5.0, 3.0)
DEFAULT_OPACITY: dict[LayerName, float] = {"heatmap": 0.4, "scanpath": 0.8}
HIDDEN_AT_FIRST: frozenset[LayerName] = frozenset({"scanpath", "teacher", "disagreement", "truth"})


def pen_of(style: Style, *, halo: bool = False) -> QPen:
    """Return a layer's pen, or the dark one that lies under it: solid also under dashes, and fainter there."""
    colour = QColor(0, 0, 0, 110 if style.dashes else 170) if halo else QColor(style.colour)
    pen = QPen(colour, style.width + (2.0 if halo else 0.0))
    pen.setCapStyle(Qt.PenCapStyle.FlatCap if style.dashes else Qt.PenCapStyle.RoundCap)
    pen.setJoinStyle(Qt.PenJoinStyle.BevelJoin)
    if style.dashes and not halo:
        pen.setDashPattern(list(style.dashes))
    return pen


@functools.cache
def _inferno() -> list[int]:
    return [QColor(*rgba).rgba() for rgba in inferno_rgba().tolist()]


def pixmap_of(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> QPixmap:
    """Turn RGB pixels (H, W, 3), or a heatmap (H, W), into a pixmap."""
    height, width = pixels.shape[:2]
    coloured = pixels.ndim == 3
    form = QImage.Format.Format_RGB888 if coloured else QImage.Format.Format_Indexed8
    data = np.ascontiguousarray(pixels)
    image = QImage(data.data, width, height, width * (3 if coloured else 1), form)
    if not coloured:
        image.setColorTable(_inferno())
    # fromImage converts, and so copies: the pixmap does not lean on the array's memory.
    return QPixmap.fromImage(image)


def mark_radius(duration_ms: float) -> float:
    """Return a fixation's radius on the screen in logical pixels; the area follows the duration."""
    return RADIUS_AT_250_MS * float(np.sqrt(max(duration_ms, 15.0) / 250.0))


class Canvas(QWidget):
    """Shows a Scene; wheel zooms, dragging pans, F fits, 1-9 toggle layers, C held shows the bare image."""

    view_changed = Signal()
    """The image lies elsewhere on the screen now (zoom, pan, resize, another image)."""
    layers_changed = Signal()
    cursor_moved = Signal(object)
    """(x, y) in image pixels, or None outside the image."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMinimumSize(320, 240)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setAccessibleName(self.tr("Image"))
        self._scene: Scene | None = None
        self._image: QPixmap | None = None
        self._heatmap: QPixmap | None = None
        self._paths: dict[LayerName, list[QPainterPath]] = {}
        self._mapped: dict[LayerName, list[QPainterPath]] | None = None
        self._scale = 1.0
        self._origin = QPointF()
        self._fitted = True
        self._dragged_from: QPointF | None = None
        self._visible: dict[LayerName, bool] = {name: name not in HIDDEN_AT_FIRST for name in LAYERS}
        self._opacity: dict[LayerName, float] = {name: DEFAULT_OPACITY.get(name, 1.0) for name in LAYERS}
        self._bare = False
        self._peeking: LayerName | None = None
        self._hold = QTimer(self, singleShot=True, interval=int(HOLD_SECONDS * 1000))
        self._dot: tuple[float, float] | None = None
        self._live: Marks | None = None

    @property
    def scene(self) -> Scene | None:
        """What is shown."""
        return self._scene

    def sizeHint(self) -> QSize:
        """Ask for room."""
        return QSize(640, 640)

    def set_scene(self, scene: Scene | None) -> None:
        """Show another scene; zoom and pan stay where only the layers of the same image changed."""
        same = scene is not None and self._scene is not None and scene.image_id == self._scene.image_id
        self._scene = scene
        self._mapped = None
        if scene is None:
            self._image = self._heatmap = None
            self._paths = {}
            self.update()
            return
        if not same or self._image is None:
            self._image = pixmap_of(scene.image)
        self._heatmap = None if scene.heatmap is None else pixmap_of(scene.heatmap)
        self._paths = {
            name: [_path(found)]
            for name in ("student", "teacher", "disagreement", "reviewed", "truth")
            if (found := getattr(scene, name)) is not None
        }
        self._paths["levels"] = [_path(level) for level in scene.levels]
        if not same:
            self._dot = self._live = None
            self.fit()
        self.update()

    # Layers

    def layer_visible(self, name: LayerName) -> bool:
        """Whether a layer is switched on."""
        return self._visible[name]

    def set_layer_visible(self, name: LayerName, visible: bool) -> None:
        """Switch a layer on or off."""
        if self._visible[name] != visible:
            self._visible[name] = visible
            self.layers_changed.emit()
            self.update()

    def layer_opacity(self, name: LayerName) -> float:
        """Return a layer's opacity, 0..1."""
        return self._opacity[name]

    def set_layer_opacity(self, name: LayerName, opacity: float) -> None:
        """Set a layer's opacity, 0..1."""
        if self._opacity[name] != opacity:
            self._opacity[name] = opacity
            self.layers_changed.emit()
            self.update()

    def set_bare(self, bare: bool) -> None:
        """Show the image alone, to compare."""
        if self._bare != bare:
            self._bare = bare
            self.update()

    # Live gaze

    def set_live(self, dot: tuple[float, float] | None, marks: Marks | None) -> None:
        """Show where the eye is, in image pixels, and the fixations so far; only what changed is repainted."""
        touched = self._live_area()
        self._dot, self._live = dot, marks
        area = touched.united(self._live_area())
        if not area.isEmpty():
            self.update(area.toAlignedRect().adjusted(-2, -2, 2, 2))

    def _live_area(self) -> QRectF:
        """Return the part of the widget that the dot and the last two fixations cover; older ones stand still."""
        area = QRectF()
        if self._dot is not None:
            area = _square(self.widget_from_image(*self._dot), 14)
        if self._live is not None:
            for xy, duration in zip(self._live.xy_px[-2:], self._live.duration_ms[-2:], strict=True):
                area = area.united(_square(self.widget_from_image(*xy), mark_radius(duration) + 4))
        return area

    # Where the image lies

    @property
    def zoom(self) -> float:
        """Logical pixels of the screen per image pixel."""
        return self._scale

    def widget_from_image(self, x: float, y: float) -> QPointF:
        """Map an image position (pixel centres at whole numbers) to this widget."""
        return QPointF(
            (x + 0.5) * self._scale + self._origin.x(),
            (y + 0.5) * self._scale + self._origin.y(),
        )

    def image_from_widget(self, point: QPointF) -> tuple[float, float]:
        """Map a position in this widget to image pixels."""
        return (
            (point.x() - self._origin.x()) / self._scale - 0.5,
            (point.y() - self._origin.y()) / self._scale - 0.5,
        )

    def image_from_screen(self) -> Floats:
        """Return the 3x3 transform from physical pixels of this screen to image pixels, as placements store it."""
        ratio = self.devicePixelRatioF()
        corner = self.mapToGlobal(QPoint(0, 0)) - self.screen().geometry().topLeft()
        scale = 1.0 / (self._scale * ratio)
        left = (corner.x() + self._origin.x()) * ratio
        top = (corner.y() + self._origin.y()) * ratio
        return np.array([[scale, 0, -left * scale - 0.5], [0, scale, -top * scale - 0.5], [0, 0, 1]])

    def viewport_on_screen(self) -> tuple[int, int, int, int]:
        """Return x, y, width and height of this canvas on its screen, in physical pixels."""
        ratio = self.devicePixelRatioF()
        corner = self.mapToGlobal(QPoint(0, 0)) - self.screen().geometry().topLeft()
        x, y, width, height = (
            round(v * ratio) for v in (corner.x(), corner.y(), self.width(), self.height())
        )
        return x, y, width, height

    def fit(self) -> None:
        """Show all of the image, as large as fits."""
        self._fitted = True
        if self._image is None:
            return
        margin = 12
        size = self._image.size()
        room_x, room_y = max(self.width() - 2 * margin, 16), max(self.height() - 2 * margin, 16)
        self._scale = min(room_x / size.width(), room_y / size.height())
        self._origin = QPointF(
            (self.width() - size.width() * self._scale) / 2,
            (self.height() - size.height() * self._scale) / 2,
        )
        self._moved()

    def zoom_by(self, factor: float, around: QPointF | None = None) -> None:
        """Zoom, keeping the image under a point of this widget (its centre if not given) where it is."""
        if self._image is None:
            return
        fixed = around if around is not None else QPointF(self.width() / 2, self.height() / 2)
        least = min(self.width() / self._image.width(), self.height() / self._image.height()) / 4
        scale = min(max(self._scale * factor, least), MAXIMUM_ZOOM)
        self._origin = fixed - (fixed - self._origin) * (scale / self._scale)
        self._scale = scale
        self._fitted = False
        self._keep_in_view()
        self._moved()

    def _keep_in_view(self) -> None:
        assert self._image is not None
        width, height = self._image.width() * self._scale, self._image.height() * self._scale
        keep = MINIMUM_VISIBLE_PX
        self._origin = QPointF(
            min(max(self._origin.x(), keep - width), self.width() - keep),
            min(max(self._origin.y(), keep - height), self.height() - keep),
        )

    def _moved(self) -> None:
        self._mapped = None
        self.view_changed.emit()
        self.update()

    # Events

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Keep the image fitted, or where it was relative to the centre."""
        if self._fitted:
            self.fit()
        elif self._image is not None:
            grown = event.size() - event.oldSize()
            self._origin += QPointF(grown.width() / 2, grown.height() / 2)
            self._keep_in_view()
            self._moved()

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Zoom around the pointer."""
        steps = event.angleDelta().y() / 120.0
        if steps:
            self.zoom_by(1.2**steps, event.position())
        event.accept()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Begin to pan."""
        if event.button() in (Qt.MouseButton.LeftButton, Qt.MouseButton.MiddleButton):
            self._dragged_from = event.position()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Pan, and tell where the pointer is on the image."""
        if self._dragged_from is not None and self._image is not None:
            self._origin += event.position() - self._dragged_from
            self._dragged_from = event.position()
            self._fitted = False
            self.setCursor(Qt.CursorShape.ClosedHandCursor)
            self._keep_in_view()
            self._moved()
        if self._image is not None:
            x, y = self.image_from_widget(event.position())
            inside = -0.5 <= x < self._image.width() - 0.5 and -0.5 <= y < self._image.height() - 0.5
            self.cursor_moved.emit((x, y) if inside else None)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End panning."""
        self._dragged_from = None
        self.unsetCursor()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Fit."""
        self.fit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Toggle layers, compare, fit, zoom."""
        if not self.handle_key(event):
            super().keyPressEvent(event)

    def keyReleaseEvent(self, event: QKeyEvent) -> None:
        """End peeking."""
        if not self.handle_release(event):
            super().keyReleaseEvent(event)

    def handle_key(self, event: QKeyEvent) -> bool:
        """Act on a key of the canvas; a page that has the focus passes its keys on. Returns whether it was one."""
        key = event.key()
        if event.modifiers() & (Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.AltModifier):
            return False
        if Qt.Key.Key_1 <= key <= Qt.Key.Key_9:
            if not event.isAutoRepeat():
                name = LAYERS[key - Qt.Key.Key_1]
                self._peeking = name
                self._hold.start()
                self.set_layer_visible(name, not self._visible[name])
            return True
        if key == Qt.Key.Key_C:
            self.set_bare(True)
        elif key == Qt.Key.Key_F:
            self.fit()
        elif key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal):
            self.zoom_by(1.25)
        elif key == Qt.Key.Key_Minus:
            self.zoom_by(0.8)
        else:
            return False
        return True

    def handle_release(self, event: QKeyEvent) -> bool:
        """Act on a released key of the canvas; returns whether it was one."""
        key = event.key()
        if event.isAutoRepeat():
            return False
        if Qt.Key.Key_1 <= key <= Qt.Key.Key_9 and self._peeking == LAYERS[key - Qt.Key.Key_1]:
            if not self._hold.isActive():
                self.set_layer_visible(self._peeking, not self._visible[self._peeking])
            self._peeking = None
            return True
        if key == Qt.Key.Key_C:
            self.set_bare(False)
            return True
        return False

    # Drawing

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw ground, image, then the layers from the widest to the finest."""
        painter = QPainter(self)
        painter.fillRect(event.rect(), QColor(theme.SURROUND))
        if self._image is not None and self._scene is not None:
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, self._scale < 8)
            place = QRectF(
                self._origin.x(),
                self._origin.y(),
                self._image.width() * self._scale,
                self._image.height() * self._scale,
            )
            painter.drawPixmap(place, self._image, QRectF(self._image.rect()))
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            if not self._bare:
                self._draw_layers(painter, place, self._scene)
            self._draw_live(painter)
        painter.end()

    def _shows(self, name: LayerName) -> bool:
        return self._visible[name] and self._opacity[name] > 0

    def _draw_layers(self, painter: QPainter, place: QRectF, scene: Scene) -> None:
        if self._heatmap is not None and self._shows("heatmap"):
            painter.setOpacity(self._opacity["heatmap"])
            painter.drawPixmap(place, self._heatmap, QRectF(self._heatmap.rect()))
        if self._mapped is None:
            to_widget = QTransform(
                self._scale,
                0,
                0,
                self._scale,
                self._origin.x() + self._scale / 2,
                self._origin.y() + self._scale / 2,
            )
            self._mapped = {
                name: [to_widget.map(path) for path in paths] for name, paths in self._paths.items()
            }
        order: tuple[LayerName, ...] = ("disagreement", "levels", "truth", "teacher", "student", "reviewed")
        for name in order:
            if self._shows(name) and self._mapped.get(name):
                painter.setOpacity(self._opacity[name])
                self._draw_region(painter, name, self._mapped[name])
        for marks in scene.gaze:
            if self._shows("scanpath"):
                painter.setOpacity(self._opacity["scanpath"])
                self._draw_scanpath(painter, marks)
            if self._shows("fixations"):
                painter.setOpacity(self._opacity["fixations"])
                self._draw_marks(painter, marks)
        painter.setOpacity(1)

    def _draw_region(self, painter: QPainter, name: LayerName, paths: list[QPainterPath]) -> None:
        style = STYLES[name]
        for index, path in enumerate(paths):
            if name == "disagreement":
                painter.fillPath(path, QBrush(QColor(style.colour), Qt.BrushStyle.BDiagPattern))
            if style.fill:
                tint = QColor(style.colour)
                tint.setAlphaF(style.fill)
                painter.fillPath(path, tint)
            lower = name == "levels" and index > 0
            line = Style(style.colour, style.width, LOWER_LEVEL_DASHES) if lower else style
            painter.strokePath(path, pen_of(line, halo=True))
            painter.strokePath(path, pen_of(line))

    def _draw_scanpath(self, painter: QPainter, marks: Marks) -> None:
        points = [self.widget_from_image(*xy) for xy in marks.xy_px]
        # Line by line: one stroke that crosses itself a hundred times takes the rasteriser ten times as long.
        lines = [QLineF(one, other) for one, other in pairwise(points)]
        for halo in (True, False):
            painter.setPen(pen_of(STYLES["scanpath"], halo=halo))
            painter.drawLines(lines)

    def _draw_marks(self, painter: QPainter, marks: Marks) -> None:
        style = STYLES["fixations"]
        painter.setBrush(QColor(255, 255, 255, 46))
        for halo in (True, False):
            painter.setPen(pen_of(style, halo=halo))
            if not halo:
                painter.setBrush(Qt.BrushStyle.NoBrush)
            for xy, duration in zip(marks.xy_px, marks.duration_ms, strict=True):
                radius = mark_radius(duration)
                painter.drawEllipse(self.widget_from_image(*xy), radius, radius)

    def _draw_live(self, painter: QPainter) -> None:
        if self._live is not None and len(self._live.xy_px):
            self._draw_marks(painter, self._live)
        if self._dot is not None:
            centre = self.widget_from_image(*self._dot)
            painter.setPen(QPen(QColor(0, 0, 0, 190), 1.5))
            painter.setBrush(QColor(theme.DARK.accent))
            painter.drawEllipse(centre, 6, 6)


def _path(found: Outline) -> QPainterPath:
    path = QPainterPath()
    path.setFillRule(Qt.FillRule.OddEvenFill)
    for contour in found.contours:
        path.addPolygon(QPolygonF([QPointF(x, y) for x, y in contour.tolist()]))
        path.closeSubpath()
    return path


def _square(centre: QPointF, half: float) -> QRectF:
    return QRectF(centre.x() - half, centre.y() - half, 2 * half, 2 * half)
