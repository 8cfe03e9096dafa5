"""The layers of a scene as a canvas draws them: which are shown, how, and what they are made of."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from PySide6.QtCore import QSize
from PySide6.QtGui import QPainter

from app.image_levels import ImageLevels
from app.layer_drawing import (
    DEFAULT_OPACITY,
    DRAWING_ORDER,
    HIDDEN_AT_FIRST,
    LOOK_AT_FIRST,
    MAPS,
    REGIONS,
    Ramp,
    RegionLook,
    Shape,
    draw_marks,
    draw_other_target,
    draw_region,
    draw_scanpath,
    pixmap_of,
)
from app.overlay import Surface
from app.scene import LAYERS, LayerName, Scene, words_index

CRISP_SCALE = 8.0
"""From here on, in pixels of the screen per image pixel, pixels are shown as they are, not smoothed."""


@dataclass
class LayerState:
    """How a layer is shown."""

    visible: bool
    opacity: float
    look: RegionLook


class SceneLayers:
    """Draws all layers of a scene from the widest to the finest."""

    def __init__(self) -> None:
        self.states: dict[LayerName, LayerState] = {
            name: LayerState(
                name not in HIDDEN_AT_FIRST,
                DEFAULT_OPACITY.get(name, 1.0),
                LOOK_AT_FIRST.get(name, "contour"),
            )
            for name in LAYERS
        }
        self._apart: set[LayerName] | None = None
        """What is shown here alone, whatever the states say; None: as they say."""
        self.others_shown = False
        """Whether the other targets' outlines are drawn."""
        self._scene: Scene | None = None
        self._maps: dict[Ramp, ImageLevels] = {}
        """Made when they are first shown."""
        self._shapes: dict[LayerName, list[Shape]] = {}
        self._others: list[tuple[Shape, str, str]] = []

    def set_apart(self, on: bool) -> None:
        """Show layers apart from the states, which may be shared: none at first; or as the states say again."""
        self._apart = set() if on else None

    def visible(self, name: LayerName) -> bool:
        """Whether a layer is switched on here."""
        return self.states[name].visible if self._apart is None else name in self._apart

    def set_visible(self, name: LayerName, on: bool) -> None:
        """Switch a layer on or off: here alone where layers are shown apart."""
        if self._apart is None:
            self.states[name].visible = on
        elif on:
            self._apart.add(name)
        else:
            self._apart.discard(name)

    def _shown(self, name: LayerName) -> bool:
        """Whether there is anything of a layer to be seen."""
        return self.visible(name) and self.states[name].opacity > 0

    def set_scene(self, scene: Scene | None) -> None:
        """Draw another scene's layers."""
        self._scene = scene
        self._maps, self._shapes, self._others = {}, {}, []
        if scene is None:
            return
        self._others = [(Shape(one.outline), one.colour, one.name) for one in scene.others]
        self._shapes = {
            name: [Shape(found)]
            for name in REGIONS
            if name != "levels" and (found := getattr(scene, name)) is not None
        }
        self._shapes["levels"] = [Shape(level) for level in scene.levels]

    def _map(self, name: Ramp, scene: Scene) -> ImageLevels | None:
        if name not in self._maps:
            values = getattr(scene, name)
            if values is None:
                return None
            index = words_index(scene.words) if scene.words is not None and name == "words" else values
            self._maps[name] = ImageLevels(index, functools.partial(pixmap_of, ramp=name))
        return self._maps[name]

    def draw(self, surface: Surface) -> None:
        """Draw the part of the layers that lies on a surface."""
        scene, painter = self._scene, surface.painter
        if scene is None:
            return
        place = surface.view.place(QSize(scene.image.shape[1], scene.image.shape[0]))
        smooth = surface.view.scale < CRISP_SCALE
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, smooth)
        for ramp in MAPS:
            state = self.states[ramp]
            levels = self._map(ramp, scene) if self._shown(ramp) else None
            if levels is not None:
                painter.setOpacity(state.opacity)
                levels.draw(painter, place, surface.area, surface.scale)
        for name in DRAWING_ORDER:
            state = self.states[name]
            if self._shown(name) and self._shapes.get(name):
                draw_region(surface, name, self._shapes[name], state.look, state.opacity)
        if self.others_shown:
            for shape, colour, title in self._others:
                draw_other_target(surface, shape, colour, title)
        scanpath, fixations = self.states["scanpath"], self.states["fixations"]
        for marks in scene.gaze:
            if self._shown("scanpath"):
                draw_scanpath(surface, marks, scanpath.opacity)
            if self._shown("fixations"):
                painter.setOpacity(fixations.opacity)
                draw_marks(painter, marks, surface.view.widget_from_image, surface.area)
