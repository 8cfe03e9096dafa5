"""Live curves: pyqtgraph in the window's own colours, with nothing to click by accident."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import (
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.widgets import ElidedLabel, IconButton, box, label


@dataclass(frozen=True)
class CurveStyle:
    """A curve's colour on dark and light ground, and its line: never told apart by colour alone."""

    dark: str
    light: str
    width: float = 1.5
    line: Qt.PenStyle = Qt.PenStyle.SolidLine

    def pen(self) -> QPen:
        """Return the pen in the current theme."""
        pen = QPen(QColor(self.dark if theme.current().mode == "dark" else self.light), self.width, self.line)
        # Data units are not pixels: without this a line of width 1.5 could be thousands of steps wide.
        pen.setCosmetic(True)
        return pen


STYLES: dict[str, CurveStyle] = {
    "total": CurveStyle("#E8EBEE", "#1B1F24", 2.0),
    "student": CurveStyle("#56B4E9", "#0067A5"),
    "teacher": CurveStyle("#E69F00", "#9A5B00", 1.5, Qt.PenStyle.DashLine),
    "afc": CurveStyle("#2FB7A3", "#0B7A6C"),
    "cwc": CurveStyle("#CC79A7", "#9C3F73", 1.5, Qt.PenStyle.DashLine),
    "dice": CurveStyle("#2FB7A3", "#0B7A6C", 2.0),
    "best": CurveStyle("#A0AAB4", "#56616C", 1.0, Qt.PenStyle.DashLine),
}
OTHERS = (
    CurveStyle("#2FB7A3", "#0B7A6C"),
    CurveStyle("#CC79A7", "#9C3F73", 1.5, Qt.PenStyle.DashDotLine),
    CurveStyle("#F0E442", "#7A6A00", 1.5, Qt.PenStyle.DotLine),
    CurveStyle("#A0AAB4", "#56616C"),
)


LABELLED_DECADES = 2.5
"""On a longer logarithmic axis only powers of ten are labelled."""
LABEL_PX = 48
"""Room for the label of a step."""
KEYS_IN_A_ROW = 3
LOWEST_PX = 104
"""Height of a plot without its head, at least."""


class Key(QWidget):
    """A curve's line, its name and its newest value."""

    def __init__(self, name: str, style: CurveStyle) -> None:
        super().__init__()
        self._style = style
        layout = QHBoxLayout(self)
        box(layout, margins=(22, 0, 0, 0), spacing=theme.SMALL)
        self.value = label("")
        self.value.setFont(theme.number_font(12))
        layout.addWidget(label(name, "muted"))
        layout.addWidget(self.value)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the line."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(self._style.pen())
        painter.drawLine(0, self.height() // 2, 17, self.height() // 2)
        painter.end()


class _Axis(pg.AxisItem):  # type: ignore[misc]
    """An axis whose labels are few enough to be read."""

    def tickValues(self, low: float, high: float, size: float) -> list[tuple[float, list[float]]]:
        """Return the labelled values; on a logarithmic axis 1, 2 and 5 of each decade, as exponents of 10."""
        if self.logMode:
            steps = (1, 2, 5) if high - low < LABELLED_DECADES else (1,)
            decades = range(math.floor(low), math.ceil(high) + 1)
            exponents = [decade + math.log10(step) for decade in decades for step in steps]
            return [(1.0, [one for one in exponents if low <= one <= high])]
        if self.orientation == "bottom":
            least = max((high - low) * LABEL_PX / max(size, 1.0), 1.0)
            power = 10.0 ** math.floor(math.log10(least))
            spacing = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)
            first, last = math.ceil(low / spacing), math.floor(high / spacing)
            return [(spacing, [number * spacing for number in range(first, last + 1)])]
        values: list[tuple[float, list[float]]] = super().tickValues(low, high, size)
        return values

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        """Return the labels."""
        if self.logMode:
            return [f"{10**value:.3g}" for value in values]
        if self.orientation == "bottom":
            return [f"{value:,.0f}" for value in values]
        strings: list[str] = super().tickStrings(values, scale, spacing)
        return strings


@dataclass
class _Curve:
    item: pg.PlotDataItem
    key: Key
    style: CurveStyle
    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)


SIDES = ("left", "bottom")


def bare_view(
    title: str, *, right: int, left_axis: int, axes: dict[str, pg.AxisItem] | None = None
) -> pg.PlotWidget:
    """Return a plot that is looked at alone: no menu, no dragging, no frame; margin and axis in pixels."""
    view = pg.PlotWidget(enableMenu=False, axisItems=axes)
    view.setMouseEnabled(False, False)
    view.hideButtons()
    view.setFrameShape(QFrame.Shape.NoFrame)
    view.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    view.setAccessibleName(title)
    item = view.getPlotItem()
    item.setContentsMargins(0, 4, right, 0)
    for side in SIDES:
        axis = item.getAxis(side)
        axis.setStyle(tickLength=0, tickTextOffset=6, maxTickLevel=0)
        axis.enableAutoSIPrefix(False)
    item.getAxis("left").setWidth(left_axis)
    return view


class Plot(QFrame):
    """A titled plot of curves over steps; until there are points it says what it waits for.

    `can_log` offers a logarithmic axis, on which what is not above 0 is left out.
    """

    def __init__(self, title: str, waiting: str, *, can_log: bool = False) -> None:
        super().__init__()
        self.setObjectName("card")
        self._curves: dict[str, _Curve] = {}
        self._plain = 0
        layout = QVBoxLayout(self)
        box(layout, margins=(theme.LARGE, theme.WIDE, theme.WIDE, theme.NORMAL), spacing=theme.SMALL)
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        self.title = ElidedLabel(title)
        self.title.setFont(theme.heading_font(13))
        self.title.setMinimumHeight(28)
        head.addWidget(self.title, 1)
        self.log = IconButton("trend-up", self.tr("Logarithmic axis"), text=self.tr("log"))
        self.log.setCheckable(True)
        self.log.toggled.connect(self._set_log)
        head.addWidget(self.log)
        layout.addLayout(head)
        self.log.setVisible(can_log)
        self._keys = QGridLayout()
        box(self._keys, spacing=theme.SMALL)
        self._keys.setHorizontalSpacing(theme.NORMAL)
        self._keys.setColumnStretch(KEYS_IN_A_ROW, 1)
        layout.addLayout(self._keys)
        self.view = bare_view(title, right=8, left_axis=40, axes={side: _Axis(side) for side in SIDES})
        self._waiting = label(waiting, "muted", wrap=True)
        self._waiting.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._stack = QStackedWidget()
        self._stack.addWidget(self._waiting)
        self._stack.addWidget(self.view)
        # A plot takes the height that is left over; it asks for none.
        self.view.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Ignored)
        self._stack.setMinimumHeight(LOWEST_PX)
        layout.addWidget(self._stack, 1)
        self._paint()

    def clear(self, waiting: str | None = None) -> None:
        """Forget all curves."""
        for curve in self._curves.values():
            self.view.removeItem(curve.item)
        self._curves.clear()
        self._plain = 0
        while self._keys.count():
            taken = self._keys.takeAt(0)
            if taken is not None and (widget := taken.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        if waiting is not None:
            self._waiting.setText(waiting)
        self._stack.setCurrentIndex(0)

    def add(self, name: str, title: str, x: float, y: float) -> None:
        """Add a point to a curve; `redraw` shows it."""
        curve = self._curves.get(name)
        if curve is None:
            style = STYLES.get(name)
            if style is None:
                style = OTHERS[self._plain % len(OTHERS)]
                self._plain += 1
            item = self.view.plot([], [], pen=style.pen(), antialias=True, connect="finite")
            curve = self._curves[name] = _Curve(item, Key(title, style), style)
            self._keys.addWidget(curve.key, *divmod(len(self._curves) - 1, KEYS_IN_A_ROW))
            self._stack.setCurrentIndex(1)
        curve.x.append(x)
        curve.y.append(y)

    def redraw(self) -> None:
        """Show all points added."""
        log = self.log.isChecked()
        for curve in self._curves.values():
            y = np.array(curve.y)
            curve.item.setData(np.array(curve.x), np.where(y > 0, y, np.nan) if log else y)
            if curve.y:
                newest = curve.y[-1]
                curve.key.value.setText(f"{newest:.3f}" if newest >= 0.1 else f"{newest:.2g}")

    def _set_log(self, on: bool) -> None:
        self.view.getPlotItem().setLogMode(y=on)
        self.redraw()

    def points(self, name: str) -> int:
        """Return how many points a curve has."""
        return len(self._curves[name].x) if name in self._curves else 0

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
        for curve in self._curves.values():
            curve.item.setPen(curve.style.pen())

    def changeEvent(self, event: QEvent) -> None:
        """Take on the new palette."""
        if event.type() == QEvent.Type.PaletteChange and hasattr(self, "_stack"):
            self._paint()
        super().changeEvent(event)
