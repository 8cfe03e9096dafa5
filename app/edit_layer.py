"""What lies over the canvas while a mask is edited: the mask, and the tool that has the mouse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PySide6.QtCore import QEvent, QObject, QPointF, QRect, QRectF, Qt, QTimer, Signal
from PySide6.QtGui import QHideEvent, QImage, QMouseEvent, QPainter, QPaintEvent, QWheelEvent
from PySide6.QtWidgets import QLabel, QWidget

from app import windowing
from app.canvas import NOTCH, Canvas
from app.edit_rendering import MARGIN_PX, Pixels, overlay
from app.edit_tools import Board, Options, Point, Tool, ToolName, make_tool, resize
from gaze_capture.errors import UserError
from segmentation.editing.drafts import Draft
from segmentation.editing.regions import Box
from segmentation.editing.starts import probability

HINT_MS = 1800
FIRST_RADIUS = 1 / 40
"""The brush's radius at first, as a share of the image's longer side."""


class EditLayer(QWidget):
    """Covers a canvas. What the tool has no use for (other buttons, a click with Alt, Ctrl with the wheel) is its.

    The mask is kept as it lies on the screen; a stroke draws anew only what it touched.
    """

    changed = Signal()
    """A step was made, taken back or begun; or the tool or its settings are others."""
    failed = Signal(str)
    """Why something could not be done or written."""

    def __init__(self, canvas: Canvas) -> None:
        super().__init__(canvas)
        self.canvas = canvas
        self.options = Options()
        self.tool: Tool | None = None
        self.panning = False
        """Whether the left button moves the image for the moment."""
        self._board: Board | None = None
        self._pixels: Pixels = np.zeros((1, 1), dtype=np.uint32)
        self._image = QImage()
        self._dirty: Box | None = None
        self._stale = True
        self._pointer: Point | None = None
        self._pressed = False
        """Whether the tool has the left button: it keeps it until that is let go, whatever else is pressed."""
        self._marked: QRectF = QRectF()
        self.hint = QLabel(self)
        """Says for a moment what was done, at the image's upper edge, where it covers little."""
        self.hint.setObjectName("stageLine")
        self.hint.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.hint.hide()
        self._hinting = QTimer(self, singleShot=True, interval=HINT_MS)
        self._hinting.timeout.connect(self.hint.hide)
        self.setMouseTracking(True)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.hide()
        canvas.installEventFilter(self)
        canvas.view_changed.connect(self._moved)
        canvas.window_changed.connect(self._hand_over)
        canvas.measures.changed.connect(self._hand_over)

    # What is edited

    @property
    def draft(self) -> Draft | None:
        """What is edited; None where nothing is."""
        return None if self._board is None else self._board.draft

    def edit(self, draft: Draft, keep: Callable[[Callable[[], object]], object], run_id: str | None) -> None:
        """Show a draft and let tools work on it; `keep` runs what ends a step."""
        longer = max(draft.edit.shape)
        if not self.options.radius_px or self.options.radius_px > longer / 2:
            self.options.radius_px = max(longer * FIRST_RADIUS, 2.0)
        header = draft.header
        self._board = Board(
            self.options,
            draft,
            lambda: self.canvas.zoom,
            self.canvas.widget_from_image,
            self._shades,
            lambda: probability(draft.study, header.image_id, header.target_id, run_id),
            self.refresh,
            self._mark,
            keep,
        )
        self.setGeometry(self.canvas.rect())
        self._stale = True
        self.show()
        self.raise_()

    def end(self) -> None:
        """Show nothing."""
        self.hide()
        self.hint.hide()
        self.tool = self._board = self._pointer = None
        self.panning = self._pressed = False
        self._image = QImage()
        self._pixels = np.zeros((1, 1), dtype=np.uint32)

    def _shades(self) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        scene = self.canvas.scene
        assert scene is not None
        return windowing.rendered(scene.image, scene.intensity, self.canvas.shown_window)

    def choose(self, name: ToolName) -> bool:
        """Take a tool; return whether it can be had."""
        if self._board is None:
            return False
        self.settle()
        try:
            self.tool = make_tool(name, self._board)
        except UserError as error:
            self.failed.emit(str(error))
            return False
        finally:
            self.changed.emit()
        self._rest_cursor()
        self._mark()
        return True

    def settle(self) -> None:
        """End what is in the making, as something else is about to happen."""
        self._pressed = False
        if self.tool is not None:
            self.tool.settle()

    def resize_brush(self, factor: float) -> None:
        """Make brush and eraser larger or smaller."""
        if self._board is not None:
            resize(self._board, factor)

    def set_panning(self, on: bool) -> None:
        """Have the left button move the image."""
        if on != self.panning:
            self.panning = on
            self._hand_over()

    def say(self, text: str) -> None:
        """Show for a moment what was done."""
        self.hint.setText(text)
        self.hint.adjustSize()
        self.hint.move((self.width() - self.hint.width()) // 2, 12)
        self.hint.show()
        self._hinting.start()

    # Drawing

    def refresh(self, box: Box | None = None) -> None:
        """Draw the mask anew where it changed: a box of image pixels, or all of it."""
        if box is None:
            self._stale = True
            self.update()
            return
        self._dirty = box if self._dirty is None else self._dirty.united(box)
        self.update(self._on_screen(box))

    def _on_screen(self, box: Box) -> QRect:
        """Return where a box of image pixels lies, with the edges' room."""
        first = self.canvas.widget_from_image(box.left - 0.5, box.top - 0.5)
        last = self.canvas.widget_from_image(box.right - 0.5, box.bottom - 0.5)
        room = 2 * MARGIN_PX
        return QRectF(first, last).toAlignedRect().adjusted(-room, -room, room, room)

    def _moved(self) -> None:
        self._stale = True
        self.update()

    def _mark(self) -> None:
        """Draw the tool's marks anew, where they were and where they are."""
        area = self._marked
        self._marked = QRectF() if self.tool is None else self.tool.reach(self._pointer)
        self.update(area.united(self._marked).toAlignedRect())
        self.changed.emit()

    def _render(self) -> None:
        """Bring the mask as it lies on the screen up to date."""
        draft = self.draft
        if draft is None or self.canvas.scene is None:
            return
        ratio = self.devicePixelRatioF()
        size = self.size() * ratio
        width, height = max(size.width(), 1), max(size.height(), 1)
        if self._pixels.shape != (height, width):
            self._pixels = np.zeros((height, width), dtype=np.uint32)
            self._image = QImage(
                self._pixels.data, width, height, 4 * width, QImage.Format.Format_ARGB32_Premultiplied
            )
            self._stale = True
        area = QRect(0, 0, width, height)
        if not self._stale:
            if self._dirty is None:
                return
            seen = self._on_screen(self._dirty)
            area &= QRectF(
                seen.x() * ratio, seen.y() * ratio, seen.width() * ratio, seen.height() * ratio
            ).toAlignedRect()
        self._stale, self._dirty = False, None
        if area.isEmpty():
            return
        corner = self.canvas.widget_from_image(-0.5, -0.5) * ratio
        rows, columns = slice(area.top(), area.bottom() + 1), slice(area.left(), area.right() + 1)
        self._pixels[rows, columns] = overlay(
            draft.edit.mask,
            self.canvas.zoom * ratio,
            (corner.x(), corner.y()),
            (area.left(), area.top(), area.width(), area.height()),
            ratio,
        )

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the mask, then what the tool has in the making."""
        if self.draft is None or self.canvas.bare:
            return
        self._render()
        painter = QPainter(self)
        ratio = self.devicePixelRatioF()
        rect = event.rect()
        source = QRectF(rect.x() * ratio, rect.y() * ratio, rect.width() * ratio, rect.height() * ratio)
        painter.drawImage(QRectF(rect), self._image, source)
        if self.tool is not None and (self._pressed or not self._yields):
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            self.tool.paint(painter, self._pointer)
        painter.end()

    # Events

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Keep the canvas's size."""
        if event.type() == QEvent.Type.Resize and watched is self.canvas:
            self.setGeometry(self.canvas.rect())
        return False

    def _rest_cursor(self) -> None:
        if self.panning:
            self.setCursor(Qt.CursorShape.OpenHandCursor)
        elif self.tool is not None and not self._yields:
            self.setCursor(Qt.CursorShape.CrossCursor)
        else:
            self.unsetCursor()

    @property
    def _yields(self) -> bool:
        """Whether the left button is the canvas's: it moves the image, changes the window, or measures."""
        return self.panning or self.canvas.window_mode or self.canvas.measures.active

    def _hand_over(self) -> None:
        """Show whose the left button is now."""
        self._rest_cursor()
        self.update()

    def _takes(self, event: QMouseEvent) -> bool:
        # With Alt a click asks the canvas where a pixel comes from.
        asks = event.modifiers() & Qt.KeyboardModifier.AltModifier
        return (
            self.tool is not None
            and not self._yields
            and not asks
            and event.button() == Qt.MouseButton.LeftButton
        )

    def _point(self, position: QPointF) -> Point:
        return self.canvas.image_from_widget(position)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Begin with the tool; other buttons are the canvas's."""
        self.canvas.setFocus(Qt.FocusReason.MouseFocusReason)
        if not self._takes(event) or self.tool is None:
            event.ignore()
            return
        self._pressed = True
        self._follow(event.position())
        self.tool.press(self._point(event.position()), _shift(event))
        self._mark()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Close a polygon; draw on with the others."""
        if not self._takes(event) or self.tool is None:
            event.ignore()
            return
        self._pressed = True
        self.tool.double(self._point(event.position()), _shift(event))
        self._mark()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Go on with the tool; the canvas tells of the pixel, and moves where another button is down."""
        self._follow(event.position())
        if self._pressed and not event.buttons() & Qt.MouseButton.LeftButton:
            # It was let go where this layer could not see it.
            self._let_go(event.position())
        if self.tool is not None and (self._pressed or not self._yields):
            self.tool.move(self._point(event.position()), self._pressed)
        event.ignore()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End with the tool, where it was begun with."""
        if event.button() == Qt.MouseButton.LeftButton and self._pressed:
            self._let_go(event.position())
        else:
            event.ignore()

    def _let_go(self, position: QPointF) -> None:
        self._pressed = False
        if self.tool is not None:
            self.tool.release(self._point(position))
            self._mark()

    def _follow(self, position: QPointF | None) -> None:
        before = self._pointer
        self._pointer = None if position is None else self._point(position)
        if self._pointer != before and self.tool is not None:
            area = self._marked
            self._marked = self.tool.reach(self._pointer)
            self.update(area.united(self._marked).toAlignedRect())

    def leaveEvent(self, event: QEvent) -> None:
        """Take the brush's mark away."""
        self._follow(None)
        super().leaveEvent(event)

    def hideEvent(self, event: QHideEvent) -> None:
        """End what is in the making: the page goes out of view."""
        self.settle()
        super().hideEvent(event)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Change the tool's size, tolerance or threshold; with Ctrl the canvas zooms."""
        angle = event.angleDelta().y()
        ctrl = event.modifiers() & Qt.KeyboardModifier.ControlModifier
        if self.tool is None or ctrl or self.panning or not angle or not self.tool.wheel(angle / NOTCH):
            self.canvas.wheelEvent(event)
        event.accept()


def _shift(event: QMouseEvent) -> bool:
    return bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
