"""The one canvas: draws a Scene with QPainter and maps image pixels to the screen and back, exactly."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QEvent, QPoint, QPointF, QRectF, QSize, QSizeF, Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPixmap,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QWidget

from app import theme, windowing
from app.highlight import Highlight, draw_highlight
from app.image_levels import ImageLevels, Values
from app.layer_drawing import RegionLook, draw_cross, draw_marks, mark_radius, pixmap_of, square
from app.layer_keys import layer_of
from app.measuring import Measures
from app.overlay import Overlay
from app.ruler import draw_scale_bar
from app.scene import Floats, LayerName, Marks, Scene
from app.scene_layers import CRISP_SCALE, SceneLayers
from app.view_geometry import View, fitted, limited
from segmentation.intensity import Window

HOLD_SECONDS = 0.3
"""A layer key held longer than this only peeks: releasing it puts the layer back."""
REST_MS = 70
"""A hand that has not zoomed for so long rests: what was stretched meanwhile is drawn sharp."""
NOTCH = 120
"""A wheel's angle from one notch to the next; touchpads send parts of it."""


class Canvas(QWidget):
    """Shows a Scene; dragging pans, F fits, Shift+F shows pixel for pixel, 1-9 (and with Shift) toggle layers.

    C held shows what it is compared with, or the bare image; W changes the window, Shift+W takes the next one in common
    use; M measures. The wheel zooms; where it scrolls slices (`wheel_scrolls`), it zooms with Ctrl.
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
    scene_changed = Signal()
    probing_changed = Signal()
    compare_held = Signal(bool)
    """C was pressed, or released."""
    compare_next = Signal()
    """Shift+C: the next way to compare."""
    pointed = Signal(object)
    """As `cursor_moved`, by this canvas's own mouse alone."""
    asked = Signal(object)
    """(x, y) in image pixels that Alt+click asks about."""
    tabbed = Signal(int)
    """Tab (1) or Shift+Tab (-1), where the canvas takes it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMinimumSize(120, 120)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setAccessibleName(self.tr("Image"))
        self._scene: Scene | None = None
        self._size = QSize()
        self._image: ImageLevels | None = None
        self._window: Window | None = None
        """None: as the image opens."""
        self._window_mode = False
        self._windowed_from: tuple[QPointF, Window] | None = None
        self.wheel_scrolls = False
        self.takes_tab = False
        self._wheel_angle = 0
        self._foot = 16
        self._layers = SceneLayers()
        self._overlay = Overlay(self._layers.draw)
        self._rest = QTimer(self, singleShot=True, interval=REST_MS)
        self._rest.timeout.connect(self.update)
        self._view = View()
        self._fitted = True
        self._dragged_from: QPointF | None = None
        self._bare = False
        self.bares = True
        """Whether C shows the bare image; not where something else is compared with."""
        self.reviewing = False
        """Whether the keys M and I are taken: nothing of theirs may be seen while gaze is recorded."""
        self._probing = False
        self.measures = Measures(self, self)
        self._peeking: LayerName | None = None
        self._hold = QTimer(self, singleShot=True, interval=int(HOLD_SECONDS * 1000))
        self._dot: tuple[float, float] | None = None
        self._cursor: tuple[float, float] | None = None
        """Where the pointer is on a canvas beside this one."""
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
        self._overlay.invalidate()
        self._layers.set_scene(scene)
        if not same:
            self._highlight = None
            self.measures.clear()
        if scene is None:
            self._image = None
            self._size = QSize()
            self.scene_changed.emit()
            self.update()
            return
        size = QSize(scene.image.shape[1], scene.image.shape[0])
        kept = (same or beside) and size == self._size
        self._size = size
        if not (same or beside):
            self._window = None
        if not same or before is None or scene.image is not before.image:
            self._image = ImageLevels(scene.image, self._shown_values)
        if not same:
            self._dot = self._live = None
        if not kept:
            self.fit()
        # As opened, each slice may have a window of its own.
        self.window_changed.emit()
        self.scene_changed.emit()
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
            if self._image is not None:
                self._image.show_anew(self._shown_values)
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
            if on:
                self.measures.set_active(False)
            self.rest_cursor()
            self.window_changed.emit()

    def rest_cursor(self) -> None:
        """Show the cursor of what a press would begin."""
        if self._window_mode or self.measures.active:
            self.setCursor(Qt.CursorShape.CrossCursor)
        else:
            self.unsetCursor()

    def follow_window(self, other: Canvas) -> None:
        """Show the same image with the same window as another canvas, and drag as it does."""
        if self._scene is not None and other.scene is not None:
            if self._scene.image_id == other.scene.image_id:
                self.set_shown_window(other._window)
        self.set_window_mode(other.window_mode)

    def next_window(self) -> None:
        """Show the image with the next window in common use for its modality, after the last as it opens."""
        if self._scene is not None:
            found = list(windowing.presets(self._scene.modality, self._scene.intensity.unit).values())
            at = found.index(self._window) + 1 if self._window in found else 0
            self.set_shown_window(found[at] if at < len(found) else None)

    def _shown_values(self, values: Values) -> QPixmap:
        assert self._scene is not None
        return pixmap_of(windowing.rendered(values, self._scene.intensity, self.shown_window))

    # Layers

    @property
    def others_shown(self) -> bool:
        """Whether the other targets' outlines are drawn."""
        return self._layers.others_shown

    def show_others(self, on: bool) -> None:
        """Draw the other targets' outlines, or leave them out."""
        if on != self._layers.others_shown:
            self._layers.others_shown = on
            self._redraw_layers()

    def layer_visible(self, name: LayerName) -> bool:
        """Whether a layer is switched on."""
        return self._layers.visible(name)

    def set_layer_visible(self, name: LayerName, visible: bool) -> None:
        """Switch a layer on or off."""
        if self._layers.visible(name) != visible:
            self._layers.set_visible(name, visible)
            self._redraw_layers()

    def set_layers_apart(self, on: bool) -> None:
        """Hide all layers here alone, where they are switched from now on; or show them as they were before."""
        self._let_go()
        self._layers.set_apart(on)
        self._redraw_layers()

    def layer_opacity(self, name: LayerName) -> float:
        """Return a layer's opacity, 0..1."""
        return self._layers.states[name].opacity

    def set_layer_opacity(self, name: LayerName, opacity: float) -> None:
        """Set a layer's opacity, 0..1."""
        if self._layers.states[name].opacity != opacity:
            self._layers.states[name].opacity = opacity
            self._redraw_layers()

    def layer_look(self, name: LayerName) -> RegionLook:
        """Return how a region is drawn: its contour, filled, or both."""
        return self._layers.states[name].look

    def set_layer_look(self, name: LayerName, look: RegionLook) -> None:
        """Have a region outlined, filled, or both."""
        if self._layers.states[name].look != look:
            self._layers.states[name].look = look
            self._redraw_layers()

    def share_layers(self, other: Canvas) -> None:
        """Show layers as another canvas does, from now on."""
        self._layers.states = other._layers.states

        def follow() -> None:
            self._layers.others_shown = other.others_shown
            self._overlay.invalidate()
            self.update()

        other.layers_changed.connect(follow)

    def _redraw_layers(self) -> None:
        self._overlay.invalidate()
        self.update()
        self.layers_changed.emit()

    @property
    def bare(self) -> bool:
        """Whether the image is shown alone."""
        return self._bare

    def set_bare(self, bare: bool) -> None:
        """Show the image alone, to compare."""
        if self._bare != bare:
            self._bare = bare
            self.update()

    @property
    def probing(self) -> bool:
        """Whether the pixel under the pointer is told of."""
        return self._probing

    def set_probing(self, on: bool) -> None:
        """Tell of the pixel under the pointer, or leave it."""
        if on != self._probing:
            self._probing = on
            self.probing_changed.emit()

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
    def view(self) -> View:
        """Scale and place of the image."""
        return self._view

    @property
    def zoom(self) -> float:
        """Logical pixels of the screen per image pixel."""
        return self._view.scale

    def widget_from_image(self, x: float, y: float) -> QPointF:
        """Map an image position (pixel centres at whole numbers) to this widget."""
        return self._view.widget_from_image(x, y)

    def image_from_widget(self, point: QPointF) -> tuple[float, float]:
        """Map a position in this widget to image pixels."""
        return self._view.image_from_widget(point)

    def image_from_screen(self) -> Floats:
        """Return the 3x3 transform from physical pixels of this screen to image pixels, as placements store it."""
        ratio = self.devicePixelRatioF()
        corner = self.mapToGlobal(QPoint(0, 0)) - self.screen().geometry().topLeft()
        scale = 1.0 / (self._view.scale * ratio)
        left = (corner.x() + self._view.x) * ratio
        top = (corner.y() + self._view.y) * ratio
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
        if self._scene is not None:
            self._move_to(fitted(self._size, QSizeF(self.size())))

    def zoom_by(self, factor: float, around: QPointF | None = None) -> None:
        """Zoom, keeping the image under a point of this widget (its centre if not given) where it is."""
        self._zoom_to(self._view.scale * factor, around)

    def show_pixels(self) -> None:
        """Show the image pixel for pixel of the screen, keeping what is under the pointer, or in the centre."""
        pointer = QPointF(self.mapFromGlobal(self.cursor().pos()))
        inside = self.underMouse() and QRectF(self.rect()).contains(pointer)
        self._zoom_to(1 / self.devicePixelRatioF(), pointer if inside else None)
        # On whole pixels of the screen, or each would be mixed of its neighbours.
        ratio = self.devicePixelRatioF()
        view = self._view
        self._move_to(View(view.scale, round(view.x * ratio) / ratio, round(view.y * ratio) / ratio))

    def _zoom_to(self, scale: float, around: QPointF | None) -> None:
        if self._scene is None:
            return
        room = QSizeF(self.size())
        fixed = around if around is not None else QPointF(self.width() / 2, self.height() / 2)
        view = self._view.zoomed(limited(scale, self._size, room), fixed)
        self._fitted = False
        self._move_to(view.kept(self._size, room))

    def follow_view(self, other: Canvas) -> None:
        """Lie as another canvas does, the same image position in the centre of both."""
        if self._scene is not None:
            centre = QPointF(self.width() - other.width(), self.height() - other.height()) / 2
            self._fitted = other._fitted
            self._move_to(other.view.moved(centre))

    def _move_to(self, view: View) -> None:
        if view.scale != self._view.scale:
            self._rest.start()
        self._view = view
        self.view_changed.emit()
        self.update()

    # Events

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Keep the image fitted, or where it was relative to the centre."""
        if self._fitted:
            self.fit()
        elif self._scene is not None:
            grown = event.size() - event.oldSize()
            view = self._view.moved(QPointF(grown.width() / 2, grown.height() / 2))
            self._move_to(view.kept(self._size, QSizeF(self.size())))

    def event(self, event: QEvent) -> bool:
        """Keep Tab where it has a meaning here; with Ctrl it moves on to the next control."""
        if event.type() in (QEvent.Type.FocusOut, QEvent.Type.WindowDeactivate):
            self._let_go()
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
        if left and event.modifiers() & Qt.KeyboardModifier.AltModifier:
            if (place := self._inside(event.position())) is not None:
                self.asked.emit(place)
        elif event.button() == Qt.MouseButton.RightButton or (left and self._window_mode):
            if (window := self.shown_window) is not None:
                self._windowed_from = (event.position(), window)
                self.setCursor(Qt.CursorShape.CrossCursor)
        elif left and self.measures.active and self._scene is not None:
            self.measures.press(event.position())
        elif left or event.button() == Qt.MouseButton.MiddleButton:
            self._dragged_from = event.position()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Pan or change the window, and tell where the pointer is on the image."""
        if self._windowed_from is not None and self._scene is not None:
            (start, window), least = self._windowed_from, self._scene.opened_window[1] * windowing.NARROWEST
            moved = event.position() - start
            if moved.manhattanLength() >= 1:
                self.set_shown_window(windowing.dragged(window, moved.x(), -moved.y(), least))
        elif self.measures.dragging:
            self.measures.drag(event.position())
        elif self._dragged_from is not None and self._scene is not None:
            view = self._view.moved(event.position() - self._dragged_from)
            self._dragged_from = event.position()
            self._fitted = False
            self.setCursor(Qt.CursorShape.ClosedHandCursor)
            self._move_to(view.kept(self._size, QSizeF(self.size())))
        if self._scene is not None:
            self._point_at(self._inside(event.position()))

    def _inside(self, point: QPointF) -> tuple[float, float] | None:
        """Return the image position of a point of this widget; None outside the image."""
        if self._scene is None:
            return None
        x, y = self.image_from_widget(point)
        inside = -0.5 <= x < self._size.width() - 0.5 and -0.5 <= y < self._size.height() - 0.5
        return (x, y) if inside else None

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End dragging."""
        self._dragged_from = self._windowed_from = None
        self.measures.release()
        self.rest_cursor()

    def leaveEvent(self, event: QEvent) -> None:
        """Tell that the pointer is on no pixel any more."""
        self._point_at(None)
        super().leaveEvent(event)

    def _point_at(self, position: tuple[float, float] | None) -> None:
        self.cursor_moved.emit(position)
        self.pointed.emit(position)

    def follow_cursor(self, position: tuple[float, float] | None) -> None:
        """Mark where the pointer is on a canvas beside this one."""
        for place in (self._cursor, position):
            if place is not None:
                self.update(square(self.widget_from_image(*place), 14).toAlignedRect())
        self._cursor = position
        self.cursor_moved.emit(position)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Fit; in window mode, show the image as it opens."""
        if self.measures.active and event.button() == Qt.MouseButton.LeftButton:
            self.mousePressEvent(event)
        elif event.button() == Qt.MouseButton.LeftButton and not self._window_mode:
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
        name = layer_of(event)
        shifted = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        if name is not None:
            if not event.isAutoRepeat():
                self._peeking = name
                self._hold.start()
                self.set_layer_visible(name, not self.layer_visible(name))
        elif key == Qt.Key.Key_C:
            if shifted:
                self.compare_next.emit()
            elif not event.isAutoRepeat():
                self.set_bare(self.bares)
                self.compare_held.emit(True)
        elif key == Qt.Key.Key_F:
            if shifted:
                self.show_pixels()
            else:
                self.fit()
        elif key == Qt.Key.Key_O:
            if not event.isAutoRepeat():
                self.show_others(not self.others_shown)
        elif key == Qt.Key.Key_W:
            if shifted:
                self.next_window()
            elif not event.isAutoRepeat():
                self.set_window_mode(not self._window_mode)
        elif key == Qt.Key.Key_M and self.reviewing:
            if not event.isAutoRepeat():
                self.measures.set_active(not self.measures.active)
        elif key == Qt.Key.Key_I and self.reviewing:
            if not event.isAutoRepeat():
                self.set_probing(not self._probing)
        elif key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal):
            self.zoom_by(1.25)
        elif key == Qt.Key.Key_Minus:
            self.zoom_by(0.8)
        else:
            return key == Qt.Key.Key_Escape and self.measures.escape()
        return True

    def handle_release(self, event: QKeyEvent) -> bool:
        """Act on a released key of the canvas; returns whether it was one."""
        if event.isAutoRepeat():
            return False
        # Shift may have been let go first: the key is not the one that was pressed, then.
        if self._peeking is not None and layer_of(event, either=True) is not None:
            if not self._hold.isActive():
                self.set_layer_visible(self._peeking, not self.layer_visible(self._peeking))
            self._peeking = None
            return True
        if event.key() == Qt.Key.Key_C:
            self.set_bare(False)
            self.compare_held.emit(False)
            return True
        return False

    def _let_go(self) -> None:
        """End what lasts while a key is held: with the focus gone nobody tells of its release."""
        if self._peeking is not None:
            self.set_layer_visible(self._peeking, not self.layer_visible(self._peeking))
            self._peeking = None
        self.set_bare(False)
        self.compare_held.emit(False)

    # Drawing

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw ground, image, the layers, then what is not part of the scene."""
        painter = QPainter(self)
        painter.fillRect(event.rect(), QColor(theme.SURROUND))
        if self._scene is not None:
            place = self._view.place(self._size)
            self._draw_image(painter, place, QRectF(event.rect()))
            if not self._bare:
                sharp = self._overlay.paint(
                    painter,
                    self._view,
                    self.size(),
                    self.devicePixelRatioF(),
                    hurried=self._rest.isActive(),
                )
                if not sharp and not self._rest.isActive():
                    self._rest.start()
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            if self._highlight is not None:
                draw_highlight(painter, self._highlight, place, self._view.to_widget())
            self._draw_live(painter)
            self.measures.draw(painter)
            if self._scene.spacing_mm is not None:
                draw_scale_bar(
                    painter, self.height() - self._foot, self._view.scale / self._scene.spacing_mm[1]
                )
        painter.end()

    def _draw_image(self, painter: QPainter, place: QRectF, area: QRectF) -> None:
        assert self._image is not None
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, self._view.scale < CRISP_SCALE)
        scale = self._view.scale * self.devicePixelRatioF()
        self._image.draw(painter, place, area, scale)

    def _draw_live(self, painter: QPainter) -> None:
        if self._live is not None and len(self._live.xy_px):
            draw_marks(painter, self._live, self.widget_from_image, QRectF(self.rect()))
        if self._dot is not None:
            centre = self.widget_from_image(*self._dot)
            painter.setPen(QPen(QColor(0, 0, 0, 190), 1.5))
            painter.setBrush(QColor(theme.DARK.accent))
            painter.drawEllipse(centre, 6, 6)
        if self._cursor is not None:
            draw_cross(painter, self.widget_from_image(*self._cursor))
