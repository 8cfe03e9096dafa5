"""The one canvas: draws a Scene with QPainter and maps image pixels to the screen and back, exactly."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QEvent, QPoint, QPointF, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPainterPath,
    QPaintEvent,
    QPen,
    QPixmap,
    QResizeEvent,
    QTransform,
    QWheelEvent,
)
from PySide6.QtWidgets import QWidget

from app import theme, windowing
from app.highlight import Highlight, draw_highlight
from app.layer_drawing import (
    DEFAULT_OPACITY,
    HIDDEN_AT_FIRST,
    draw_marks,
    draw_other_target,
    draw_region,
    draw_scanpath,
    mark_radius,
    path_of,
    pixmap_of,
    square,
)
from app.ruler import draw_scale_bar
from app.scene import LAYERS, Floats, LayerName, Marks, Scene, words_index
from segmentation.intensity import Window

MINIMUM_VISIBLE_PX = 32
MAXIMUM_ZOOM = 40.0
HOLD_SECONDS = 0.3
"""A layer key held longer than this only peeks: releasing it puts the layer back."""
NOTCH = 120
"""A wheel's angle from one notch to the next; touchpads send parts of it."""


class Canvas(QWidget):
    """Shows a Scene; dragging pans, F fits, 1-9 toggle layers, C held shows the bare image, W changes the window.

    The wheel zooms; where it scrolls slices (`wheel_scrolls`), it zooms with Ctrl.
    """

    view_changed = Signal()
    """The image lies elsewhere on the screen now (zoom, pan, resize, another image)."""
    layers_changed = Signal()
    cursor_moved = Signal(object)
    """(x, y) in image pixels, or None outside the image."""
    window_changed = Signal()
    """Centre and width, or the way dragging acts, are others now."""
    scrolled = Signal(int)
    """The wheel asks for so many slices on."""
    tabbed = Signal(int)
    """Tab (1) or Shift+Tab (-1), where the canvas takes it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMinimumSize(320, 240)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setAccessibleName(self.tr("Image"))
        self._scene: Scene | None = None
        self._size = QSize()
        self._image: QPixmap | None = None
        """Rendered when it is next drawn, where None: a drag may change the window many times in between."""
        self._window: Window | None = None
        """None: as the image opens."""
        self._window_mode = False
        self._windowed_from: tuple[QPointF, Window] | None = None
        self.wheel_scrolls = False
        self.takes_tab = False
        self._wheel_angle = 0
        self._foot = 16
        self._others: list[tuple[QPainterPath, str, str]] = []
        self._others_shown = False
        self._heatmap: QPixmap | None = None
        self._words: QPixmap | None = None
        self._doubt: QPixmap | None = None
        """Made when it is first shown, as it seldom is."""
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
        self._highlight: Highlight | None = None

    @property
    def scene(self) -> Scene | None:
        """What is shown."""
        return self._scene

    def sizeHint(self) -> QSize:
        """Ask for room."""
        return QSize(640, 640)

    def set_scene(self, scene: Scene | None) -> None:
        """Show another scene; zoom, pan and window stay within an image and within a volume."""
        before = self._scene
        same = scene is not None and before is not None and scene.image_id == before.image_id
        beside = scene is not None and before is not None and scene.volume == before.volume != ""
        self._scene = scene
        self._mapped = self._doubt = None
        if not same:
            self._highlight = None
        if scene is None:
            self._image = self._heatmap = self._words = None
            self._size = QSize()
            self._paths, self._others = {}, []
            self.update()
            return
        size = QSize(scene.image.shape[1], scene.image.shape[0])
        kept = (same or beside) and size == self._size
        self._size = size
        if not same or before is None or scene.image is not before.image:
            self._image = None
        if not (same or beside):
            self._window = None
        self._heatmap = None if scene.heatmap is None else pixmap_of(scene.heatmap, "heatmap")
        self._words = None if scene.words is None else pixmap_of(words_index(scene.words), "words")
        self._others = [(path_of(one.outline), one.colour, one.name) for one in scene.others]
        self._paths = {
            name: [path_of(found)]
            for name in ("student", "teacher", "disagreement", "reviewed", "truth")
            if (found := getattr(scene, name)) is not None
        }
        self._paths["levels"] = [path_of(level) for level in scene.levels]
        if not same:
            self._dot = self._live = None
        if not kept:
            self.fit()
        # As opened, each slice may have a window of its own.
        self.window_changed.emit()
        self.update()

    # Window

    @property
    def shown_window(self) -> Window | None:
        """Centre and width in real values that the image is shown with; None without an image."""
        return None if self._scene is None else self._window or self._scene.opened_window

    @property
    def as_opened(self) -> bool:
        """Whether the window is the image's own."""
        return self._window is None

    def window_level(self) -> Window | None:
        """Return the window as placements store it: None where an 8-bit image is shown as it is."""
        return None if self.shown_window == windowing.IDENTITY and self._window is None else self.shown_window

    def set_shown_window(self, window: Window | None) -> None:
        """Show the image with a window, or as it opens."""
        if window != self._window:
            self._window = window
            self._image = None
            self.window_changed.emit()
            self.update()

    @property
    def window_mode(self) -> bool:
        """Whether dragging with the left button changes the window instead of moving the image."""
        return self._window_mode

    @property
    def changing_window(self) -> bool:
        """Whether the window is being dragged."""
        return self._windowed_from is not None

    def set_window_mode(self, on: bool) -> None:
        """Have dragging change the window, or move the image."""
        if on != self._window_mode:
            self._window_mode = on
            self._rest_cursor()
            self.window_changed.emit()

    def _rest_cursor(self) -> None:
        if self._window_mode:
            self.setCursor(Qt.CursorShape.CrossCursor)
        else:
            self.unsetCursor()

    def _pixmap(self, scene: Scene) -> QPixmap:
        if self._image is None:
            self._image = pixmap_of(windowing.rendered(scene.image, scene.intensity, self.shown_window))
        return self._image

    # Layers

    @property
    def others_shown(self) -> bool:
        """Whether the other targets' outlines are drawn."""
        return self._others_shown

    def show_others(self, on: bool) -> None:
        """Draw the other targets' outlines, or leave them out."""
        if on != self._others_shown:
            self._others_shown = on
            self.layers_changed.emit()
            self.update()

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

    @property
    def bare(self) -> bool:
        """Whether the image is shown alone."""
        return self._bare

    def set_bare(self, bare: bool) -> None:
        """Show the image alone, to compare."""
        if self._bare != bare:
            self._bare = bare
            self.update()

    def set_highlight(self, highlight: Highlight | None) -> None:
        """Show what is being spoken of, over all layers; None ends it."""
        if highlight is not self._highlight:
            self._highlight = highlight
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
            area = square(self.widget_from_image(*self._dot), 14)
        if self._live is not None:
            for xy, duration in zip(self._live.xy_px[-2:], self._live.duration_ms[-2:], strict=True):
                area = area.united(square(self.widget_from_image(*xy), mark_radius(duration) + 4))
        return area

    def set_foot(self, height: int) -> None:
        """Keep the scale bar so far above the lower edge."""
        if height != self._foot:
            self._foot = height
            self.update()

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
        if self._scene is None:
            return
        margin = 12
        size = self._size
        room_x, room_y = max(self.width() - 2 * margin, 16), max(self.height() - 2 * margin, 16)
        self._scale = min(room_x / size.width(), room_y / size.height())
        self._origin = QPointF(
            (self.width() - size.width() * self._scale) / 2,
            (self.height() - size.height() * self._scale) / 2,
        )
        self._moved()

    def zoom_by(self, factor: float, around: QPointF | None = None) -> None:
        """Zoom, keeping the image under a point of this widget (its centre if not given) where it is."""
        if self._scene is None:
            return
        fixed = around if around is not None else QPointF(self.width() / 2, self.height() / 2)
        least = min(self.width() / self._size.width(), self.height() / self._size.height()) / 4
        scale = min(max(self._scale * factor, least), MAXIMUM_ZOOM)
        self._origin = fixed - (fixed - self._origin) * (scale / self._scale)
        self._scale = scale
        self._fitted = False
        self._keep_in_view()
        self._moved()

    def _keep_in_view(self) -> None:
        width, height = self._size.width() * self._scale, self._size.height() * self._scale
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
        elif self._scene is not None:
            grown = event.size() - event.oldSize()
            self._origin += QPointF(grown.width() / 2, grown.height() / 2)
            self._keep_in_view()
            self._moved()

    def event(self, event: QEvent) -> bool:
        """Keep Tab where it has a meaning here; with Ctrl it moves on to the next control."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress and self.takes_tab:
            steps = {Qt.Key.Key_Tab: 1, Qt.Key.Key_Backtab: -1}
            step = steps.get(Qt.Key(event.key()))
            if step is not None:
                if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
                    self.focusNextPrevChild(step > 0)
                else:
                    back = event.modifiers() & Qt.KeyboardModifier.ShiftModifier
                    self.tabbed.emit(-1 if back else step)
                event.accept()
                return True
        return super().event(event)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Zoom around the pointer, or scroll through slices."""
        angle = event.angleDelta().y()
        zooms = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
        if self.wheel_scrolls and not zooms:
            if angle * self._wheel_angle < 0:
                self._wheel_angle = 0
            self._wheel_angle += angle
            notches = int(self._wheel_angle / NOTCH)
            if notches:
                self._wheel_angle -= notches * NOTCH
                self.scrolled.emit(-notches)
        elif angle:
            self.zoom_by(1.2 ** (angle / NOTCH), event.position())
        event.accept()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Begin to pan, or to change the window."""
        left = event.button() == Qt.MouseButton.LeftButton
        if event.button() == Qt.MouseButton.RightButton or (left and self._window_mode):
            if (window := self.shown_window) is not None:
                self._windowed_from = (event.position(), window)
                self.setCursor(Qt.CursorShape.CrossCursor)
        elif left or event.button() == Qt.MouseButton.MiddleButton:
            self._dragged_from = event.position()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Pan or change the window, and tell where the pointer is on the image."""
        if self._windowed_from is not None and self._scene is not None:
            (start, window), least = self._windowed_from, self._scene.opened_window[1] * windowing.NARROWEST
            moved = event.position() - start
            if moved.manhattanLength() >= 1:
                self.set_shown_window(windowing.dragged(window, moved.x(), -moved.y(), least))
        elif self._dragged_from is not None and self._scene is not None:
            self._origin += event.position() - self._dragged_from
            self._dragged_from = event.position()
            self._fitted = False
            self.setCursor(Qt.CursorShape.ClosedHandCursor)
            self._keep_in_view()
            self._moved()
        if self._scene is not None:
            x, y = self.image_from_widget(event.position())
            inside = -0.5 <= x < self._size.width() - 0.5 and -0.5 <= y < self._size.height() - 0.5
            self.cursor_moved.emit((x, y) if inside else None)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End dragging."""
        self._dragged_from = self._windowed_from = None
        self._rest_cursor()

    def leaveEvent(self, event: QEvent) -> None:
        """Tell that the pointer is on no pixel any more."""
        self.cursor_moved.emit(None)
        super().leaveEvent(event)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Fit; in window mode, show the image as it opens."""
        if event.button() == Qt.MouseButton.LeftButton and not self._window_mode:
            self.fit()
        else:
            self.set_shown_window(None)

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
        elif key == Qt.Key.Key_O:
            if not event.isAutoRepeat():
                self.show_others(not self._others_shown)
        elif key == Qt.Key.Key_W:
            if not event.isAutoRepeat():
                self.set_window_mode(not self._window_mode)
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
        if self._scene is not None:
            image = self._pixmap(self._scene)
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, self._scale < 8)
            place = QRectF(
                self._origin.x(),
                self._origin.y(),
                image.width() * self._scale,
                image.height() * self._scale,
            )
            painter.drawPixmap(place, image, QRectF(image.rect()))
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            if not self._bare:
                self._draw_layers(painter, place, self._scene)
            if self._highlight is not None:
                draw_highlight(painter, self._highlight, place, self._to_widget())
            self._draw_live(painter)
            if self._scene.spacing_mm is not None:
                draw_scale_bar(painter, self.height() - self._foot, self._scale / self._scene.spacing_mm[1])
        painter.end()

    def _shows(self, name: LayerName) -> bool:
        return self._visible[name] and self._opacity[name] > 0

    def _draw_layers(self, painter: QPainter, place: QRectF, scene: Scene) -> None:
        if self._heatmap is not None and self._shows("heatmap"):
            painter.setOpacity(self._opacity["heatmap"])
            painter.drawPixmap(place, self._heatmap, QRectF(self._heatmap.rect()))
        if self._words is not None and self._shows("words"):
            painter.setOpacity(self._opacity["words"])
            painter.drawPixmap(place, self._words, QRectF(self._words.rect()))
        if scene.doubt is not None and self._shows("doubt"):
            self._doubt = self._doubt or pixmap_of(scene.doubt, "doubt")
            painter.setOpacity(self._opacity["doubt"])
            painter.drawPixmap(place, self._doubt, QRectF(self._doubt.rect()))
        to_widget = self._to_widget()
        if self._mapped is None:
            self._mapped = {
                name: [to_widget.map(path) for path in paths] for name, paths in self._paths.items()
            }
        order: tuple[LayerName, ...] = ("disagreement", "levels", "truth", "teacher", "student", "reviewed")
        for name in order:
            if self._shows(name) and self._mapped.get(name):
                painter.setOpacity(self._opacity[name])
                draw_region(painter, name, self._mapped[name])
        if self._others_shown:
            painter.setOpacity(1)
            for path, colour, title in self._others:
                draw_other_target(painter, to_widget.map(path), colour, title)
        for marks in scene.gaze:
            if self._shows("scanpath"):
                painter.setOpacity(self._opacity["scanpath"])
                draw_scanpath(painter, marks, self.widget_from_image)
            if self._shows("fixations"):
                painter.setOpacity(self._opacity["fixations"])
                draw_marks(painter, marks, self.widget_from_image)
        painter.setOpacity(1)

    def _to_widget(self) -> QTransform:
        half = self._scale / 2
        return QTransform(self._scale, 0, 0, self._scale, self._origin.x() + half, self._origin.y() + half)

    def _draw_live(self, painter: QPainter) -> None:
        if self._live is not None and len(self._live.xy_px):
            draw_marks(painter, self._live, self.widget_from_image)
        if self._dot is not None:
            centre = self.widget_from_image(*self._dot)
            painter.setPen(QPen(QColor(0, 0, 0, 190), 1.5))
            painter.setBrush(QColor(theme.DARK.accent))
            painter.drawEllipse(centre, 6, 6)
