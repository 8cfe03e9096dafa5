"""The tools of editing: a column of them beside the image, and a row above it with what the tool in hand is set to."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QButtonGroup,
    QFrame,
    QHBoxLayout,
    QMenu,
    QSlider,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.edit_layer import EditLayer
from app.edit_tools import LEAST_RADIUS, Threshold, ToolName
from app.edit_words import start_title, step_title, tool_title
from app.widgets import Button, IconButton, box, label

COLUMN_WIDTH = 44
ROW_HEIGHT = 44
NARROW_PX = 500
"""A row narrower than this does without words that the column or a tooltip tell as well."""
WIDE_PX = 660
"""From here on a size is told in pixels, too, where it is known in mm."""
LARGEST_RADIUS_SHARE = 0.5
"""The brush's largest radius, as a share of the image's longer side."""
ICONS: dict[ToolName, str] = {
    "brush": "paint-brush",
    "eraser": "eraser",
    "lasso": "scribble-loop",
    "polygon": "polygon",
    "flood": "paint-bucket",
    "threshold": "sliders-horizontal",
}
PAGES: dict[ToolName, int] = {
    "brush": 0,
    "eraser": 0,
    "lasso": 1,
    "polygon": 1,
    "flood": 2,
    "threshold": 3,
}
"""Of the settings that a tool has."""


class ToolColumn(QFrame):
    """Tools, undo and redo, and what is done to the whole mask at once."""

    chosen = Signal(str)
    """A tool's name."""
    done = Signal(str, float)
    """An operation, by its step's word, and its radius in pixels or mm; 0 where it has none."""
    undo = Signal()
    redo = Signal()
    added = Signal(str)
    """A start whose mask is to be added."""
    copied = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("panelLeft")
        self.setFixedWidth(COLUMN_WIDTH)
        layout = QVBoxLayout(self)
        box(layout, margins=(6, theme.NORMAL, 5, theme.NORMAL), spacing=1)
        self.tools: dict[ToolName, IconButton] = {}
        group = QButtonGroup(self)
        hints: dict[ToolName, str] = {
            "brush": self.tr("Brush (B); wheel or [ ] for its size, Shift erases"),
            "eraser": self.tr("Eraser (X); wheel or [ ] for its size, Shift draws"),
            "lasso": self.tr("Lasso (L): add what is gone around; Shift takes away"),
            "polygon": self.tr("Polygon (P): a corner a click, Enter closes it; Shift takes away"),
            "flood": self.tr("Flood (K): similar shades around a click, or a hole or part; Shift takes away"),
            "threshold": self.tr(
                "Threshold of the student's probability (T), live; drag around where it counts"
            ),
        }
        for name, icon in ICONS.items():
            made = IconButton(
                icon, hints[name], role="tool", on_click=functools.partial(self.chosen.emit, name)
            )
            made.setCheckable(True)
            made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            group.addButton(made)
            self.tools[name] = made
            layout.addWidget(made)
        self._part(layout)
        self.undo_button = self._button(layout, "arrow-u-up-left", "", self.undo.emit)
        self.redo_button = self._button(layout, "arrow-u-up-right", "", self.redo.emit)
        self._part(layout)
        self.grow = self._menu_button(layout, "arrows-out-cardinal", self.tr("Grow by …"))
        self.shrink = self._menu_button(layout, "arrows-in-cardinal", self.tr("Shrink by …"))
        self.smooth = self._menu_button(layout, "waves", self.tr("Smooth the edge …"))
        self.holes = self._button(
            layout, "record", self.tr("Fill holes"), lambda: self.done.emit("fill-holes", 0.0)
        )
        self.largest = self._button(
            layout,
            "circles-three",
            self.tr("Keep the largest part"),
            lambda: self.done.emit("keep-largest", 0.0),
        )
        self.add = self._menu_button(layout, "stack", self.tr("Add a level, the student or the teacher …"))
        self.copy = self._button(
            layout,
            "copy",
            self.tr("Store this slice's mask, and begin the next slice with a copy"),
            self.copied.emit,
        )
        layout.addStretch(1)

    def _part(self, layout: QVBoxLayout) -> None:
        line = QFrame()
        line.setObjectName("line")
        layout.addSpacing(5)
        layout.addWidget(line)
        layout.addSpacing(5)

    def _button(self, layout: QVBoxLayout, icon: str, tip: str, act: Callable[[], object]) -> IconButton:
        made = IconButton(icon, tip, on_click=act)
        made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        layout.addWidget(made)
        return made

    def _menu_button(self, layout: QVBoxLayout, icon: str, tip: str) -> IconButton:
        made = IconButton(icon, tip)
        made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        made.setMenu(QMenu(made))
        made.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        layout.addWidget(made)
        return made

    def show_sizes(self, spacing_mm: tuple[float, float] | None) -> None:
        """Offer radii that make a difference: in mm where the spacing is known."""
        if spacing_mm is None:
            radii, unit = [1.0, 2.0, 3.0, 5.0, 10.0, 20.0], self.tr("{radius:g} px")
        else:
            least = min(spacing_mm)
            radii = [one for one in (0.5, 1.0, 2.0, 3.0, 5.0, 10.0) if one >= least] or [least]
            unit = self.tr("{radius:g} mm")
        for word, button in (("grow", self.grow), ("shrink", self.shrink)):
            self._offer(button.menu(), word, [(unit.format(radius=one), one) for one in radii])
        amounts = [(self.tr("Lightly"), 1.5), (self.tr("More"), 3.0), (self.tr("Strongly"), 6.0)]
        self._offer(self.smooth.menu(), "smooth", amounts)

    def _offer(self, menu: QMenu, word: str, entries: list[tuple[str, float]]) -> None:
        menu.clear()
        for text, radius in entries:
            menu.addAction(text).triggered.connect(
                lambda _checked=False, radius=radius: self.done.emit(word, radius)
            )

    def show_masks(self, found: list[str]) -> None:
        """Offer masks to add."""
        menu = self.add.menu()
        menu.clear()
        for start in found:
            menu.addAction(start_title(start)).triggered.connect(
                lambda _checked=False, start=start: self.added.emit(start)
            )
        self.add.setEnabled(bool(found))

    def show_state(self, layer: EditLayer) -> None:
        """Show the tool in hand, and what can be taken back."""
        draft, tool = layer.draft, layer.tool
        if draft is None:
            return
        if tool is not None:
            self.tools[tool.name].setChecked(True)
        edit = draft.edit
        for button, word, told, nothing in (
            (self.undo_button, edit.undo_word, self.tr("Undo {step} (Z)"), self.tr("Nothing to undo (Z)")),
            (
                self.redo_button,
                edit.redo_word,
                self.tr("Redo {step} (Shift+Z)"),
                self.tr("Nothing to redo (Shift+Z)"),
            ),
        ):
            text = told.format(step=step_title(word)) if word else nothing
            button.setEnabled(bool(word))
            button.setToolTip(text)
            button.setAccessibleName(text)


class OptionsRow(QFrame):
    """What the tool in hand is set to, what the mask began as, and how it ends."""

    store = Signal()
    leave = Signal()
    anew = Signal(str)
    """A start to begin anew from."""

    def __init__(self, layer: EditLayer) -> None:
        super().__init__()
        self.setObjectName("editRow")
        self.setFixedHeight(ROW_HEIGHT)
        self._layer = layer
        layout = QHBoxLayout(self)
        box(layout, margins=(theme.WIDE, 0, theme.NORMAL, 0), spacing=theme.NORMAL)
        self.title = label("")
        self.title.setFont(theme.heading_font(13))
        self.title.setFixedWidth(72)
        self.settings = QStackedWidget()
        self.radius = _Slider(self.tr("Size of brush and eraser ([ ] or the wheel)"), 0, 1000)
        self.radius.slider.valueChanged.connect(self._set_size)
        self.tolerance = _Slider(self.tr("Tolerance in shades (the wheel)"), 0, 128)
        self.tolerance.slider.valueChanged.connect(self._set_tolerance)
        self.threshold = _Slider(self.tr("Threshold of the student's probability ([ ] or the wheel)"), 1, 99)
        self.threshold.slider.valueChanged.connect(self._set_threshold)
        self.everywhere = self._switch("frame-corners", self.tr("Have the threshold count everywhere again"))
        self.everywhere.clicked.connect(self._everywhere)
        self.add = self._switch("plus", self.tr("Add to the mask; Shift takes away"))
        self.take = self._switch("minus", self.tr("Take away from the mask; Shift adds"))
        self.shades = self._switch("drop-half", self.tr("Flood similar shades of the image (K)"))
        self.parts = self._switch("circle-dashed", self.tr("Fill a hole, or take a part away (K again)"))
        self._ways = _exclusive(self.add, self.take)
        self._kinds = _exclusive(self.shades, self.parts)
        self.add.clicked.connect(lambda: self._set_erase(False))
        self.take.clicked.connect(lambda: self._set_erase(True))
        self.shades.clicked.connect(lambda: self.set_parts(False))
        self.parts.clicked.connect(lambda: self.set_parts(True))
        for widgets in (
            (self.radius,),
            (self.add, self.take),
            (self.shades, self.parts, self.tolerance),
            (self.threshold, self.everywhere),
        ):
            self.settings.addWidget(_row(*widgets))
        self.started = QToolButton()
        self.started.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.started.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.started.setCursor(Qt.CursorShape.PointingHandCursor)
        self.started.setFixedHeight(28)
        self.menu = QMenu(self.started)
        self.started.setMenu(self.menu)
        self.store_button = Button(self.tr("Store"), "check", on_click=self.store.emit)
        self.store_button.setAccessibleName(self.tr("Store"))
        self.store_button.setToolTip(self.tr("Store the mask as reviewed, and go on (Enter or A)"))
        leave = IconButton("x", self.tr("Leave; the edit is kept as a draft (Esc)"), on_click=self.leave.emit)
        for widget in (self.store_button, leave):
            widget.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        layout.addWidget(self.title)
        layout.addWidget(self.settings, 1)
        layout.addWidget(self.started)
        layout.addWidget(self.store_button)
        layout.addWidget(leave)

    def _switch(self, icon: str, tip: str) -> IconButton:
        made = IconButton(icon, tip, role="tool")
        made.setCheckable(True)
        made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        return made

    # What is chosen here

    def _largest_radius(self) -> float:
        draft = self._layer.draft
        share = 0.0 if draft is None else max(draft.edit.shape) * LARGEST_RADIUS_SHARE
        return max(share, 2 * LEAST_RADIUS)

    def _set_size(self, value: int) -> None:
        # The lower half is the small sizes, where one pixel makes a difference.
        wanted = LEAST_RADIUS * (self._largest_radius() / LEAST_RADIUS) ** (value / 1000)
        self._layer.resize_brush(wanted / self._layer.options.radius_px)

    def _set_tolerance(self, value: int) -> None:
        self._layer.options.tolerance = value
        self.show_state()

    def _set_threshold(self, value: int) -> None:
        if isinstance(self._layer.tool, Threshold):
            self._layer.tool.try_out(value / 100)

    def _everywhere(self) -> None:
        if isinstance(self._layer.tool, Threshold):
            self._layer.tool.everywhere()
        self.show_state()

    def _set_erase(self, erase: bool) -> None:
        self._layer.options.erase = erase
        self.show_state()

    def set_parts(self, parts: bool) -> None:
        """Have the flood take parts and holes of the mask, or similar shades of the image."""
        self._layer.options.parts = parts
        self.show_state()

    # What is shown

    def show_starts(self, found: list[str]) -> None:
        """Offer what to begin anew from."""
        self.menu.clear()
        for start in found:
            self.menu.addAction(start_title(start)).triggered.connect(
                lambda _checked=False, start=start: self.anew.emit(start)
            )

    def show_state(self) -> None:
        """Show what the tool in hand is set to."""
        draft, tool, options = self._layer.draft, self._layer.tool, self._layer.options
        if draft is None or tool is None:
            return
        self.title.setText(tool_title(tool.name))
        self.settings.setCurrentIndex(PAGES[tool.name])
        radius = max(options.radius_px, LEAST_RADIUS)
        share = math.log(radius / LEAST_RADIUS) / math.log(self._largest_radius() / LEAST_RADIUS)
        scene = self._layer.canvas.scene
        size = f"{2 * radius:.0f} px" if radius >= 5 else f"{2 * radius:.1f} px"
        if scene is not None and scene.spacing_mm is not None:
            physical = f"{2 * radius * scene.spacing_mm[1]:.3g} mm"
            size = f"{size} · {physical}" if self.width() >= WIDE_PX else physical
        self.radius.show_value(round(1000 * share), f"Ø {size}")
        self.tolerance.show_value(options.tolerance, f"± {options.tolerance}")
        self.tolerance.setEnabled(not options.parts)
        self.threshold.show_value(round(options.threshold * 100), f"≥ {options.threshold:.2f}")
        limited = isinstance(tool, Threshold) and tool.limited
        self.everywhere.setVisible(limited)
        self.everywhere.setChecked(False)
        (self.take if options.erase else self.add).setChecked(True)
        (self.parts if options.parts else self.shades).setChecked(True)
        begun = self.tr("From: {start}").format(start=start_title(draft.edit.started_from))
        narrow = self.width() < NARROW_PX
        self.title.setVisible(not narrow)
        self.store_button.setText("" if narrow else self.tr("Store"))
        self.started.setText("▾" if narrow else f"{begun}  ▾")
        self.started.setToolTip(
            f"{begun}\n{self.tr('What the mask began as; click to begin anew from another')}"
        )

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Leave words out where there is no room."""
        super().resizeEvent(event)
        self.show_state()


class _Slider(QWidget):
    """A slider with its value beside it; it leaves the keys to the image."""

    def __init__(self, tip: str, least: int, most: int) -> None:
        super().__init__()
        layout = QHBoxLayout(self)
        box(layout, spacing=theme.NORMAL)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(least, most)
        self.slider.setMinimumWidth(60)
        self.slider.setMaximumWidth(220)
        self.slider.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.slider.setToolTip(tip)
        self.slider.setAccessibleName(tip)
        self.value = label("", "muted")
        self.value.setFont(theme.number_font(12))
        self.value.setMinimumWidth(52)
        # Wide enough for a size in mm; what follows stays near on a large screen.
        self.setMaximumWidth(340)
        layout.addWidget(self.slider, 1)
        layout.addWidget(self.value)

    def show_value(self, value: int, text: str) -> None:
        """Show a value without acting on it."""
        self.slider.blockSignals(True)
        self.slider.setValue(value)
        self.slider.blockSignals(False)
        self.value.setText(text)


def _exclusive(*buttons: IconButton) -> QButtonGroup:
    group = QButtonGroup(buttons[0])
    for button in buttons:
        group.addButton(button)
    return group


def _row(*widgets: QWidget) -> QWidget:
    holder = QWidget()
    layout = QHBoxLayout(holder)
    box(layout, spacing=2)
    for widget in widgets:
        layout.addWidget(widget, 4 if isinstance(widget, _Slider) else 0)
    layout.addStretch(1)
    return holder
