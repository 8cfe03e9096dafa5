"""The inspector's list of layers: key, line sample, name, switch and opacity of each."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QCoreApplication, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QBrush, QColor, QLinearGradient, QPainter, QPaintEvent
from PySide6.QtWidgets import QAbstractButton, QCheckBox, QGridLayout, QSlider, QWidget

from app import theme
from app.canvas import Canvas
from app.layer_drawing import LOOKS, REGIONS, STYLES, RegionLook, fill_brushes, pen_of
from app.layer_keys import key_text
from app.scene import LAYERS, LayerName, Scene
from app.widgets import box, label
from segmentation.records import Target


def layer_title(name: LayerName) -> str:
    """Return a layer's name for people."""
    titles = {
        "heatmap": QCoreApplication.translate("Layers", "Heatmap"),
        "fixations": QCoreApplication.translate("Layers", "Fixations"),
        "scanpath": QCoreApplication.translate("Layers", "Scanpath"),
        "levels": QCoreApplication.translate("Layers", "Levels"),
        "student": QCoreApplication.translate("Layers", "Student"),
        "teacher": QCoreApplication.translate("Layers", "Teacher"),
        "disagreement": QCoreApplication.translate("Layers", "Disagreement"),
        "reviewed": QCoreApplication.translate("Layers", "Reviewed"),
        "truth": QCoreApplication.translate("Layers", "True mask"),
        "words": QCoreApplication.translate("Layers", "Words"),
        "doubt": QCoreApplication.translate("Layers", "Doubt"),
        "annotators": QCoreApplication.translate("Layers", "Annotators"),
    }
    return titles[name]


class LineSample(QAbstractButton):
    """A short piece of a layer as the canvas draws it, on the canvas's own ground; clicked, the next way to draw it."""

    def __init__(self, name: LayerName, canvas: Canvas) -> None:
        super().__init__()
        self._name, self._canvas = name, canvas
        self.setFixedSize(QSize(36, 20))
        region = name in REGIONS
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus if region else Qt.FocusPolicy.NoFocus)
        if region:
            self.setCursor(Qt.CursorShape.PointingHandCursor)
            self.clicked.connect(self._next_look)
            canvas.layers_changed.connect(self._follow)
            self._follow()
        else:
            self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)

    def _next_look(self) -> None:
        at = LOOKS.index(self._canvas.layer_look(self._name))
        self._canvas.set_layer_look(self._name, LOOKS[(at + 1) % len(LOOKS)])

    def _follow(self) -> None:
        words: dict[RegionLook, str] = {
            "contour": self.tr("{layer}: contour; click to fill it, too"),
            "both": self.tr("{layer}: contour and filled; click for filled alone"),
            "fill": self.tr("{layer}: filled; click for the contour alone"),
        }
        told = words[self._canvas.layer_look(self._name)].format(layer=layer_title(self._name))
        self.setToolTip(told)
        self.setAccessibleName(told)
        self.update()

    def sizeHint(self) -> QSize:
        """Ask for its fixed size."""
        return self.minimumSize()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw it."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(self.rect())
        marked = self.hasFocus() or (self.underMouse() and self._name in REGIONS)
        painter.setPen(QColor(theme.current().accent) if marked else Qt.PenStyle.NoPen)
        painter.setBrush(QColor(theme.SURROUND))
        painter.drawRoundedRect(area.adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)
        style = STYLES[self._name]
        inner = area.adjusted(6, 5, -6, -5)
        if self._name in theme.RAMPS:
            ramp = QLinearGradient(area.left() + 4, 0, area.right() - 4, 0)
            for place, colour in theme.RAMPS[self._name]:
                ramp.setColorAt(place, QColor(colour))
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QBrush(ramp))
            painter.drawRoundedRect(area.adjusted(4, 6, -4, -6), 2, 2)
        elif self._name == "fixations":
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(pen_of(style))
            middle = area.center().y()
            for x, radius in ((11, 5.0), (24, 3.0)):
                painter.drawEllipse(QRectF(x - radius, middle - radius, 2 * radius, 2 * radius))
        elif self._name in REGIONS and self._canvas.layer_look(self._name) != "contour":
            look = self._canvas.layer_look(self._name)
            painter.setPen(Qt.PenStyle.NoPen)
            for brush in fill_brushes(style, look):
                painter.setBrush(brush)
                painter.drawRect(inner)
            if look == "both":
                painter.setBrush(Qt.BrushStyle.NoBrush)
                painter.setPen(pen_of(style))
                painter.drawRect(inner)
        else:
            painter.setPen(pen_of(style))
            middle = area.center().y()
            painter.drawLine(QPointF(5, middle), QPointF(31, middle))
        painter.end()


class LayerPanel(QWidget):
    """Switches and sliders of a canvas's layers; those the scene lacks are greyed."""

    def __init__(self, canvas: Canvas) -> None:
        super().__init__()
        self._canvas = canvas
        self.switches: dict[LayerName, QCheckBox] = {}
        self.sliders: dict[LayerName, QSlider] = {}
        self.samples: dict[LayerName, LineSample] = {}
        layout = QGridLayout(self)
        box(layout, spacing=theme.SMALL)
        layout.setHorizontalSpacing(theme.NORMAL)
        layout.setColumnStretch(2, 1)
        for row, name in enumerate(LAYERS):
            key = label(key_text(name), "key")
            switch = QCheckBox(layer_title(name))
            switch.setToolTip(
                "\n".join(
                    part
                    for part in (
                        self._meaning(name),
                        self.tr("Show or hide; key {key}, hold it to peek").format(key=key_text(name)),
                    )
                    if part
                )
            )
            switch.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            slider = QSlider(Qt.Orientation.Horizontal)
            slider.setRange(0, 100)
            slider.setFixedWidth(72)
            slider.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            slider.setAccessibleName(self.tr("Opacity of {layer}").format(layer=layer_title(name)))
            slider.setToolTip(slider.accessibleName())
            layout.addWidget(key, row, 0)
            self.samples[name] = LineSample(name, canvas)
            layout.addWidget(self.samples[name], row, 1)
            layout.addWidget(switch, row, 2)
            layout.addWidget(slider, row, 3)
            switch.toggled.connect(lambda on, name=name: canvas.set_layer_visible(name, on))
            slider.valueChanged.connect(lambda value, name=name: canvas.set_layer_opacity(name, value / 100))
            self.switches[name], self.sliders[name] = switch, slider
        self.others_key = label("O", "key")
        self.others = QCheckBox(self.tr("All targets"))
        self.others.setToolTip(self.tr("Show the other targets' masks as thin outlines in their colours (O)"))
        self.others.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.others.toggled.connect(canvas.show_others)
        layout.addWidget(self.others_key, len(LAYERS), 0)
        layout.addWidget(self.others, len(LAYERS), 2, 1, 2)
        self.show_targets(())
        canvas.layers_changed.connect(self._follow)
        self._follow()

    def _meaning(self, name: LayerName) -> str:
        meanings: dict[LayerName, str] = {
            "doubt": self.tr("Where the student is undecided, or the teacher says otherwise"),
            "words": self.tr(
                "Where the words of the description change the teacher's answer; made by text-use"
            ),
            "annotators": self.tr("Where the masks of several annotators differ"),
        }
        return meanings.get(name, "")

    def show_targets(self, targets: Sequence[Target]) -> None:
        """Offer the other targets' outlines where there are others."""
        for widget in (self.others_key, self.others):
            widget.setVisible(len(targets) > 1)

    def show_scene(self, scene: Scene | None) -> None:
        """Grey what the scene has nothing of."""
        available = scene.available if scene is not None else frozenset()
        for name, switch in self.switches.items():
            switch.setEnabled(name in available)
            self.sliders[name].setEnabled(name in available)
            self.samples[name].setEnabled(name in available)

    def _follow(self) -> None:
        self.others.setChecked(self._canvas.others_shown)
        for name in LAYERS:
            self.switches[name].setChecked(self._canvas.layer_visible(name))
            self.sliders[name].setValue(round(self._canvas.layer_opacity(name) * 100))
