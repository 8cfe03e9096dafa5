"""The canvas with what stands around it: the floating bar, and the slider of a volume's slices."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QWidget

from app import theme, windowing
from app.canvas import Canvas
from app.slice_bar import WIDTH, SliceBar
from app.volumes import SliceMarks
from app.widgets import IconButton, box, label
from app.window_tool import WindowTool

SCALE_BAR_WIDTH = 190
ON_DARK = "#C6CDD4"
NO_MARKS = SliceMarks()


class CanvasFrame(QWidget):
    """Holds a canvas; the bar floats at the bottom's centre and never covers more than its own size."""

    def __init__(self) -> None:
        super().__init__()
        self.canvas = Canvas(self)
        self.slices = SliceBar(self)
        self.canvas.scrolled.connect(self.slices.step)
        self.bar = QFrame(self)
        self.bar.setObjectName("miniBar")
        layout = QHBoxLayout(self.bar)
        box(layout, margins=(theme.SMALL, theme.SMALL, theme.SMALL, theme.SMALL), spacing=2)
        self._zoom = self._number(48)
        self._bare = IconButton("eye", self.tr("Image alone while pressed (C)"), colour=ON_DARK)
        self._bare.pressed.connect(lambda: self.canvas.set_bare(True))
        self._bare.released.connect(lambda: self.canvas.set_bare(False))
        self.window_tool = WindowTool(self.canvas, ON_DARK)
        self._position, self._value = self._number(80), self._number(84)
        widgets = (
            IconButton(
                "minus", self.tr("Zoom out (-)"), colour=ON_DARK, on_click=lambda: self.canvas.zoom_by(0.8)
            ),
            self._zoom,
            IconButton(
                "plus", self.tr("Zoom in (+)"), colour=ON_DARK, on_click=lambda: self.canvas.zoom_by(1.25)
            ),
            IconButton("frame-corners", self.tr("Fit (F)"), colour=ON_DARK, on_click=self.canvas.fit),
            self._bare,
            self.window_tool,
            self._position,
            self._value,
        )
        for widget in widgets:
            layout.addWidget(widget)
        self._position.setToolTip(self.tr("Column and row under the pointer"))
        self._value.setToolTip(self.tr("Value of the pixel under the pointer"))
        self._pointer: tuple[float, float] | None = None
        self.canvas.view_changed.connect(self._show_zoom)
        self.canvas.cursor_moved.connect(self._show_position)
        self.canvas.window_changed.connect(lambda: self._show_position(self._pointer))
        self.bar.hide()

    def _number(self, width: int) -> QLabel:
        made = label("")
        made.setFont(theme.number_font(12))
        made.setFixedWidth(width)
        made.setAlignment(Qt.AlignmentFlag.AlignCenter)
        return made

    def show_slices(self, slices: tuple[str, ...], image_id: str, marks: SliceMarks = NO_MARKS) -> None:
        """Show the slider where an image is one of several slices; then the wheel scrolls."""
        self.slices.show_slice(slices, image_id)
        self.slices.set_marks(marks)
        several = len(slices) > 1
        self.canvas.wheel_scrolls = several
        if several == self.slices.isHidden():
            self.slices.setVisible(several)
            self._arrange()

    def _show_zoom(self) -> None:
        self.bar.setVisible(self.canvas.scene is not None)
        self._zoom.setText(f"{round(self.canvas.zoom * 100)} %")

    def _show_position(self, position: tuple[float, float] | None) -> None:
        self._pointer = position
        scene = self.canvas.scene
        if position is None or scene is None:
            self._position.setText("")
            self._value.setText("")
            return
        # Scrolled to a slice of another size, the pointer may rest beside the image.
        column = min(round(position[0]), scene.image.shape[1] - 1)
        row = min(round(position[1]), scene.image.shape[0] - 1)
        self._position.setText(f"{column}, {row}")
        self._value.setText(windowing.value_text(scene.image, scene.intensity, column, row))

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Keep everything in its place."""
        self._arrange()

    def _bar_size(self) -> QSize:
        # Hiding and narrowing take effect in a later turn of the event loop otherwise.
        for layout in (self.window_tool.layout(), self.bar.layout()):
            if layout is not None:
                layout.invalidate()
                layout.activate()
        return self.bar.sizeHint()

    def _arrange(self) -> None:
        beside = 0 if self.slices.isHidden() else WIDTH
        width = self.width() - beside
        self.canvas.setGeometry(0, 0, width, self.height())
        self.slices.setGeometry(width, 0, WIDTH, self.height())
        room = width - 2 * theme.WIDE
        self._position.show()
        self._value.show()
        self.window_tool.set_compact(False)
        for leave_out in (
            self._position.hide,
            self._value.hide,
            lambda: self.window_tool.set_compact(True),
        ):
            if self._bar_size().width() <= room:
                break
            leave_out()
        size = self._bar_size()
        left, foot = (width - size.width()) // 2, 16
        self.bar.setGeometry(left, self.height() - size.height() - foot, size.width(), size.height())
        # The scale bar stands beside the floating bar, or above it where there is no room.
        self.canvas.set_foot(foot if left > SCALE_BAR_WIDTH else size.height() + 2 * foot)
        self.bar.raise_()
