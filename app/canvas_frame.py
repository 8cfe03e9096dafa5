"""The canvas with its floating bar: zoom, fit, compare."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QWidget

from app import theme
from app.canvas import Canvas
from app.widgets import IconButton, box, label

ON_DARK = "#C6CDD4"


class CanvasFrame(QWidget):
    """Holds a canvas; the bar floats at the bottom's centre and never covers more than its own size."""

    def __init__(self) -> None:
        super().__init__()
        self.canvas = Canvas(self)
        self.bar = QFrame(self)
        self.bar.setObjectName("miniBar")
        layout = QHBoxLayout(self.bar)
        box(layout, margins=(theme.SMALL, theme.SMALL, theme.SMALL, theme.SMALL), spacing=2)
        self._zoom = label("100 %")
        self._zoom.setFont(theme.number_font(12))
        self._zoom.setFixedWidth(48)
        self._zoom.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._bare = IconButton("eye", self.tr("Image alone while pressed (C)"), colour=ON_DARK)
        self._bare.pressed.connect(lambda: self.canvas.set_bare(True))
        self._bare.released.connect(lambda: self.canvas.set_bare(False))
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
        )
        for widget in widgets:
            layout.addWidget(widget)
        self._position = label("")
        self._position.setFont(theme.number_font(12))
        self._position.setFixedWidth(88)
        self._position.setAlignment(Qt.AlignmentFlag.AlignCenter)
        layout.addWidget(self._position)
        self.canvas.view_changed.connect(self._show_zoom)
        self.canvas.cursor_moved.connect(self._show_position)
        self.bar.hide()

    def _show_zoom(self) -> None:
        self.bar.setVisible(self.canvas.scene is not None)
        self._zoom.setText(f"{round(self.canvas.zoom * 100)} %")

    def _show_position(self, position: tuple[float, float] | None) -> None:
        self._position.setText("" if position is None else f"{round(position[0])}, {round(position[1])}")

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Keep the bar at the bottom's centre."""
        self.canvas.setGeometry(self.rect())
        size = self.bar.sizeHint()
        self.bar.setGeometry(
            (self.width() - size.width()) // 2,
            self.height() - size.height() - 16,
            size.width(),
            size.height(),
        )
        self.bar.raise_()
