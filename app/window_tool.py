"""The floating bar's part for the window: mode, centre and width, and the windows in common use."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QMenu, QToolButton, QWidget

from app import theme, windowing
from app.canvas import Canvas
from app.widgets import IconButton, box
from segmentation.intensity import Window

TEXT_WIDTH = 140


class WindowTool(QWidget):
    """A switch for the window mode and a menu button that shows centre and width."""

    def __init__(self, canvas: Canvas, colour: str) -> None:
        super().__init__()
        self._canvas = canvas
        self.mode = IconButton(
            "circle-half",
            self.tr(
                "Change the window by dragging: right wider, up a higher centre (W, or the right button)"
            ),
            colour=colour,
        )
        self.mode.setCheckable(True)
        self.mode.toggled.connect(canvas.set_window_mode)
        self.button = QToolButton()
        self.button.setToolTip(self.tr("Centre and width of the window; click for others"))
        self.button.setAccessibleName(self.tr("Window"))
        self.button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.button.setFont(theme.number_font(12))
        self.button.setFixedHeight(28)
        self.button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.button.setCursor(Qt.CursorShape.PointingHandCursor)
        self.menu = QMenu(self.button)
        self.menu.aboutToShow.connect(self.fill_menu)
        self.button.setMenu(self.menu)
        self._compact = False
        layout = QHBoxLayout(self)
        box(layout, spacing=2)
        layout.addWidget(self.mode)
        layout.addWidget(self.button)
        canvas.window_changed.connect(self._follow)
        self.set_compact(False)

    def set_compact(self, compact: bool) -> None:
        """Leave out centre and width where there is no room."""
        self._compact = compact
        self.button.setFixedWidth(28 if compact else TEXT_WIDTH)
        self._follow()

    def _follow(self) -> None:
        scene, window = self._canvas.scene, self._canvas.shown_window
        self.mode.setChecked(self._canvas.window_mode)
        text = ""
        if scene is not None and window is not None:
            text = windowing.window_text(window, scene.intensity.unit)
        self.button.setText("▾" if self._compact or not text else f"{text}  ▾")
        self.button.setAccessibleDescription(text)

    def fill_menu(self) -> None:
        """List the windows of the image shown, the present one ticked."""
        self.menu.clear()
        scene = self._canvas.scene
        if scene is None:
            return
        present = self._canvas.shown_window
        unit = scene.intensity.unit

        def add(name: str, window: Window | None, ticked: bool) -> None:
            shown = window or scene.opened_window
            action = self.menu.addAction(f"{name}\t{windowing.window_text(shown, '')}")
            action.setCheckable(True)
            action.setChecked(ticked)
            action.triggered.connect(lambda _checked=False: self._canvas.set_shown_window(window))

        add(self.tr("As opened"), None, self._canvas.as_opened)
        whole = windowing.full_range(scene.image, scene.intensity)
        add(self.tr("Full range"), whole, not self._canvas.as_opened and present == whole)
        found = windowing.presets(scene.modality, unit)
        if found:
            self.menu.addSeparator()
        for name, window in found.items():
            add(name, window, not self._canvas.as_opened and present == window)
