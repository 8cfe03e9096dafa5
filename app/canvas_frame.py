"""The canvas with what stands around it: the floating bar, and the slider of a volume's slices."""

from __future__ import annotations

from typing import Literal

from PySide6.QtCore import QRect, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QWidget

from app import theme, windowing
from app.canvas import Canvas
from app.probe import ProbeCard
from app.slice_bar import WIDTH, SliceBar
from app.volumes import SliceMarks
from app.widgets import IconButton, box, label
from app.window_tool import WindowTool

SCALE_BAR_WIDTH = 190
NO_MARKS = SliceMarks()


class CanvasFrame(QWidget):
    """Holds a canvas; the bar floats at the bottom's centre and never covers more than its own size.

    Parameters
    ----------
    reviewing
        Whether pixels can be probed, distances measured, and another canvas stand beside this one.
    """

    def __init__(self, *, reviewing: bool = False) -> None:
        super().__init__()
        self.setMinimumSize(320, 240)
        self.canvas = Canvas(self)
        self.canvas.reviewing = reviewing
        self._probes = [ProbeCard(self.canvas)]
        self.canvas.probing_changed.connect(self._arrange)
        self.other: Canvas | None = None
        self._other_shown: Literal["hidden", "over", "beside"] = "hidden"
        self._captions = (self._caption(self.canvas), self._caption(self.canvas))
        self.slices = SliceBar(self)
        self.canvas.scrolled.connect(self.slices.step)
        self.bar = QFrame(self)
        self.bar.setObjectName("miniBar")
        layout = QHBoxLayout(self.bar)
        box(layout, margins=(theme.SMALL, theme.SMALL, theme.SMALL, theme.SMALL), spacing=2)
        self._zoom = self._number(48)
        self._bare = IconButton("eye", self.tr("Image alone while pressed (C)"), colour=theme.ON_DARK)
        self._bare.pressed.connect(lambda: self.canvas.set_bare(True))
        self._bare.released.connect(lambda: self.canvas.set_bare(False))
        self.ruler = IconButton(
            "ruler", self.tr("Measure by dragging (M); Esc clears what was measured"), colour=theme.ON_DARK
        )
        self.ruler.setCheckable(True)
        self.ruler.toggled.connect(self.canvas.measures.set_active)
        self.canvas.measures.changed.connect(lambda: self.ruler.setChecked(self.canvas.measures.active))
        self.window_tool = WindowTool(self.canvas, theme.ON_DARK)
        self._ones = IconButton(
            "number-square-one",
            self.tr("One image pixel per pixel of the screen (Shift+F)"),
            colour=theme.ON_DARK,
            on_click=self.canvas.show_pixels,
        )
        self._position, self._value = self._number(80), self._number(84)
        widgets = (
            IconButton(
                "minus",
                self.tr("Zoom out (-)"),
                colour=theme.ON_DARK,
                on_click=lambda: self.canvas.zoom_by(0.8),
            ),
            self._zoom,
            IconButton(
                "plus",
                self.tr("Zoom in (+)"),
                colour=theme.ON_DARK,
                on_click=lambda: self.canvas.zoom_by(1.25),
            ),
            IconButton("frame-corners", self.tr("Fit (F)"), colour=theme.ON_DARK, on_click=self.canvas.fit),
            self._ones,
            self.ruler,
            self._bare,
            self.window_tool,
            self._position,
            self._value,
        )
        for widget in widgets:
            layout.addWidget(widget)
        self.ruler.setVisible(reviewing)
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

    def _caption(self, canvas: Canvas) -> QLabel:
        made = QLabel(canvas)
        made.setObjectName("caption")
        made.setTextFormat(Qt.TextFormat.PlainText)
        made.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        made.hide()
        return made

    # Another canvas beside

    def set_compare_tool(self, tool: QWidget) -> None:
        """Put a tool in the place of the button that shows the bare image."""
        layout = self.bar.layout()
        assert layout is not None
        layout.replaceWidget(self._bare, tool)
        self._bare.hide()
        self._arrange()

    def set_other(self, other: Canvas) -> None:
        """Have a canvas that may stand beside this one, or over it."""
        self.other = other
        self._probes.append(ProbeCard(other))
        self._captions[1].setParent(other)
        other.hide()

    def show_other(self, how: Literal["hidden", "over", "beside"]) -> None:
        """Show the other canvas beside this one, over it, or not."""
        if self.other is not None and how != self._other_shown:
            self._other_shown = how
            self._arrange()
            self.other.setVisible(how != "hidden")
            self.bar.raise_()

    @property
    def captions(self) -> tuple[str, str]:
        """What both sides are named."""
        return self._captions[0].text(), self._captions[1].text()

    def set_captions(self, this: str, other: str) -> None:
        """Name both sides; nothing where empty."""
        for caption, text in zip(self._captions, (this, other), strict=True):
            caption.setText(text)
            caption.adjustSize()
            caption.move(theme.WIDE, theme.WIDE)
            caption.setVisible(bool(text))
        below = theme.WIDE if not this else self._captions[0].geometry().bottom() + theme.NORMAL
        for probe in self._probes:
            probe.top = below

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

    @property
    def probes(self) -> tuple[ProbeCard, ...]:
        """The cards that tell of the pixel under the pointer: of this canvas, and of the other."""
        return tuple(self._probes)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the line between two canvases."""
        painter = QPainter(self)
        painter.fillRect(event.rect(), QColor(theme.BETWEEN))
        painter.end()

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
        whole = QRect(0, 0, width, self.height())
        if self.other is not None and self._other_shown == "beside":
            half = (width - 1) // 2
            # Of one size, so that both show the same part; the line between them takes what is left.
            self.canvas.setGeometry(0, 0, half, self.height())
            self.other.setGeometry(width - half, 0, half, self.height())
        else:
            self.canvas.setGeometry(whole)
            if self.other is not None:
                self.other.setGeometry(whole)
        self.slices.setGeometry(width, 0, WIDTH, self.height())
        room = width - 2 * theme.WIDE
        # The card at the pointer's pixel tells both already.
        told = self.canvas.probing
        self._position.setVisible(not told)
        self._value.setVisible(not told)
        self._zoom.show()
        self._ones.show()
        self.window_tool.set_compact(False)
        for leave_out in (
            self._position.hide,
            self._value.hide,
            lambda: self.window_tool.set_compact(True),
            self._zoom.hide,
            self._ones.hide,
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
