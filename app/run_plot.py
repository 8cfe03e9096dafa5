"""Curves of several runs in one plot, told apart by colour and by line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QEvent, QSize, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QComboBox, QFrame, QHBoxLayout, QStackedWidget, QVBoxLayout, QWidget

from app import theme
from app.dialogs import narrow
from app.plots import CurveStyle, bare_view
from app.widgets import box, heading, label
from segmentation.run_comparison import Curve, smoothed

MEAN_POINTS = 160
"""A curve of more points is noise to the eye: its mean course is drawn over it."""

_LINE = Qt.PenStyle
RUN_STYLES = (
    CurveStyle("#56B4E9", "#0067A5", 2.0),
    CurveStyle("#E69F00", "#9A5B00", 2.0, _LINE.DashLine),
    CurveStyle("#1FC79A", "#00795A", 2.0, _LINE.DashDotLine),
    CurveStyle("#CC79A7", "#9C3F73", 2.0, _LINE.DotLine),
    CurveStyle("#F0E442", "#7A6A00", 2.0, _LINE.DashDotDotLine),
    CurveStyle("#F07F3C", "#B34700", 3.0),
    CurveStyle("#A0AAB4", "#56616C", 3.0, _LINE.DashLine),
    CurveStyle("#E8EBEE", "#1B1F24", 3.0, _LINE.DotLine),
)
"""Okabe and Ito's colours, which colour-blind eyes tell apart, darkened on light ground; a line of its own for each."""


class LineMark(QWidget):
    """A short piece of a run's line."""

    def __init__(self, style: CurveStyle) -> None:
        super().__init__()
        self._style = style
        self.setFixedSize(36, 16)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the line."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(self._style.pen())
        painter.drawLine(1, self.height() // 2, self.width() - 2, self.height() // 2)
        painter.end()


class RunPlot(QFrame):
    """A plot of one curve of each run; which curve is chosen in its head."""

    shown = Signal()
    """Another curve came into view."""

    def __init__(self, title: str, waiting: str) -> None:
        super().__init__()
        self.setObjectName("card")
        self._curves: list[Mapping[str, Curve]] = []
        self._items: list[tuple[pg.PlotDataItem, CurveStyle]] = []
        self._ghosts: list[tuple[pg.PlotDataItem, CurveStyle]] = []
        """Noisy curves as they are, pale behind their mean course."""
        layout = QVBoxLayout(self)
        box(layout, margins=(theme.LARGE, theme.WIDE, theme.WIDE, theme.NORMAL), spacing=theme.SMALL)
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        head.addWidget(heading(title), 1)
        self.choice = narrow(QComboBox())
        self.choice.setMinimumWidth(230)
        self.choice.hide()
        self.choice.setAccessibleName(title)
        self.choice.currentIndexChanged.connect(lambda _: self._draw())
        head.addWidget(self.choice)
        layout.addLayout(head)
        self.view = bare_view(title, right=20, left_axis=44)
        self.view.setMinimumHeight(120)
        self._nothing = label(waiting, "muted", wrap=True)
        self._nothing.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._stack = QStackedWidget()
        self._stack.addWidget(self._nothing)
        self._stack.addWidget(self.view)
        layout.addWidget(self._stack, 1)
        self._paint()

    def sizeHint(self) -> QSize:
        """Ask for a flat rectangle."""
        return QSize(400, 230)

    def set_curves(
        self, curves: Sequence[Mapping[str, Curve]], choices: Sequence[tuple[str, str]], nothing: str
    ) -> None:
        """Show the runs' curves: one of these, by name and title; where no run has any, say so."""
        self._curves = list(curves)
        known = [(name, title) for name, title in choices if any(name in one for one in curves)]
        self.choice.blockSignals(True)
        self.choice.clear()
        for name, title in known:
            self.choice.addItem(title, name)
        self.choice.blockSignals(False)
        self.choice.setVisible(bool(known))
        self._nothing.setText(nothing)
        self._stack.setCurrentIndex(1 if known else 0)
        self._draw()

    def points(self) -> list[int]:
        """Return how many points are drawn of each run's curve in view."""
        return [len(item.xData) if item.xData is not None else 0 for item, _ in self._items]

    def _draw(self) -> None:
        for item, _ in (*self._items, *self._ghosts):
            self.view.removeItem(item)
        self._items.clear()
        self._ghosts.clear()
        name = self.choice.currentData()
        empty = np.empty(0)
        chosen = [curves.get(name, (empty, empty)) for curves in self._curves]
        for (x, y), style in zip(chosen, RUN_STYLES, strict=False):
            if len(x) > MEAN_POINTS:
                self._ghosts.append((self.view.plot(x, y), style))
        for (x, y), style in zip(chosen, RUN_STYLES, strict=False):
            # A run that told of one value alone would leave no line.
            mark = {"symbol": "o", "symbolSize": 6} if len(x) == 1 else {}
            item = self.view.plot(*smoothed(x, y, MEAN_POINTS), antialias=True, **mark)
            self._items.append((item, style))
        self._paint()
        self.shown.emit()

    def _paint(self) -> None:
        tokens = theme.current()
        self.view.setBackground(QColor(tokens.surface))
        item = self.view.getPlotItem()
        for side in ("left", "bottom"):
            axis = item.getAxis(side)
            axis.setPen(QPen(QColor(tokens.border), 1))
            axis.setTextPen(QColor(tokens.muted))
            axis.setTickFont(theme.number_font(11))
        item.showGrid(x=False, y=True, alpha=0.12)
        for curve, style in self._items:
            curve.setPen(style.pen())
            curve.setSymbolPen(style.pen())
            curve.setSymbolBrush(style.pen().color())

        for curve, style in self._ghosts:
            pen = style.pen()
            pale = pen.color()
            pale.setAlphaF(0.22)
            pen.setColor(pale)
            pen.setWidthF(1.0)
            pen.setStyle(Qt.PenStyle.SolidLine)
            curve.setPen(pen)

    def changeEvent(self, event: QEvent) -> None:
        """Take on the new palette."""
        if event.type() == QEvent.Type.PaletteChange and hasattr(self, "_stack"):
            self._paint()
        super().changeEvent(event)
