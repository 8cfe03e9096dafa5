"""Two runs, or two annotators' masks, of one image: in turn in one place, or side by side."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from PySide6.QtCore import QObject, Qt, QTimer, Signal
from PySide6.QtWidgets import QHBoxLayout, QMenu, QToolButton, QWidget

from app import theme
from app.canvas import Canvas
from app.canvas_frame import CanvasFrame
from app.scene import Key, Scene, SceneCache, reviewed_by
from app.texts import for_menu
from app.widgets import IconButton, box
from gaze_capture.errors import UserError
from segmentation.blind_reading import readers_of
from segmentation.study import Study

BLINK_MS = 700

Manner = Literal["held", "beside", "blinking"]
"""The other side is seen while C is held, all the time beside this one, or in turn with it."""
MANNERS: tuple[Manner, ...] = ("held", "beside", "blinking")


@dataclass(frozen=True)
class Side:
    """What may be compared with: the masks of a run, or an annotator's."""

    kind: Literal["run", "annotator"]
    id: str
    name: str


class Comparison(QObject):
    """Shows a scene, and beside or over it another side of it.

    The canvas itself always shows this side, whatever is seen: a verdict counts for it.
    """

    failed = Signal(str)
    told = Signal(str)
    """There is nothing to compare with."""
    changed = Signal()
    """Another side, or another manner."""
    scene_wanted = Signal()
    """This side or the other is to be shown anew."""

    def __init__(self, frame: CanvasFrame) -> None:
        super().__init__(frame)
        self._frame = frame
        self._canvas = frame.canvas
        self.canvas = Canvas(frame)
        """The other side's."""
        self._study: Study | None = None
        self._runs: tuple[Side, ...] = ()
        self.run: str | None = None
        """The run of this side."""
        self.other: Side | None = None
        self.own: Side | None = None
        """Whose review this side shows; None: the one that counts."""
        self.manner: Manner = "held"
        self._blind = False
        self._blink = QTimer(self, interval=BLINK_MS)
        self._blink.timeout.connect(self._blinked)
        self._held = False
        self._seen = False
        self._paused = False
        self._following = False
        self._link()
        frame.set_other(self.canvas)
        self.tool = CompareTool(self, theme.ON_DARK)
        frame.set_compare_tool(self.tool)
        self._canvas.compare_held.connect(self.hold)
        self._canvas.compare_next.connect(self.next_manner)

    def _link(self) -> None:
        this, other = self._canvas, self.canvas
        # Ctrl zooms where the wheel scrolls.
        this.scene_changed.connect(lambda: setattr(other, "wheel_scrolls", this.wheel_scrolls))
        other.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        other.share_layers(this)
        for one, follower in ((this, other), (other, this)):
            one.view_changed.connect(lambda one=one, follower=follower: self._follow_view(one, follower))
            one.pointed.connect(follower.follow_cursor)
            one.window_changed.connect(lambda one=one, follower=follower: self._follow_window(one, follower))
            one.measures.changed.connect(
                lambda one=one, follower=follower: follower.measures.set_active(one.measures.active)
            )
        this.probing_changed.connect(lambda: other.set_probing(this.probing))
        other.set_probing(this.probing)
        other.scrolled.connect(this.scrolled)

    def _follow_view(self, one: Canvas, follower: Canvas) -> None:
        # The follower's own view changes by that: it is not to be followed in turn.
        if self.canvas.isVisible() and not self._following:
            self._following = True
            try:
                follower.follow_view(one)
            finally:
                self._following = False

    def _follow_window(self, one: Canvas, follower: Canvas) -> None:
        if not self._following:
            follower.follow_window(one)

    # What there is

    @property
    def sides(self) -> tuple[Side, ...]:
        """All that may be compared with; nothing where reading is blind."""
        if self._blind:
            return ()
        return (*(side for side in self._runs if side.id != self.run), *self.annotators)

    @property
    def annotators(self) -> tuple[Side, ...]:
        """Those who gave reviews; reads what it does not know of them yet."""
        names = readers_of(self._study) if self._study is not None else []
        return tuple(Side("annotator", name, name) for name in names)

    def offer(self, study: Study, runs: Sequence[tuple[str, str]]) -> None:
        """Tell what there is: runs by id and name, and a study with reviews; ends what is there no more."""
        fresh = study is not self._study
        self._study = study
        self._runs = tuple(Side("run", run_id, name) for run_id, name in runs)
        gone = self.other is not None and self.other.kind == "run" and self.other not in self._runs
        if fresh or gone:
            self.other = self.own = None
            self.manner = "held"
            self._apply()

    # Choosing

    def set_blind(self, blind: bool) -> None:
        """Keep the masks of others and of other runs out of view, or offer them again."""
        self._blind = blind
        if blind:
            self.end()

    def compare_with(self, side: Side | None) -> None:
        """Choose the other side; None compares with the image alone."""
        self.other = side
        self.own = None
        if side is None:
            self.manner = "held"
        elif side.kind == "annotator":
            # With one's own mask on both sides there would be nothing to see.
            self.own = next((one for one in self.annotators if one != side), None)
            for canvas in (self._canvas, self.canvas):
                canvas.set_layer_visible("reviewed", True)
        self._apply()
        self.scene_wanted.emit()

    def show_own(self, side: Side | None) -> None:
        """Choose whose review this side shows."""
        self.own = side
        self._apply()
        self.scene_wanted.emit()

    def set_manner(self, manner: Manner) -> None:
        """Show both sides another way; where no other is chosen, the first there is."""
        if manner != "held" and self.other is None:
            sides = self.sides
            # The one annotator there is would stand beside the review that counts, which is the same.
            if not any(side.kind == "run" for side in sides) and len(sides) < 2:
                self.told.emit(
                    self.tr("Reading blind, there is nothing to compare with.")
                    if self._blind
                    else self.tr("There is no other run and no second annotator to compare with.")
                )
                return
            self.compare_with(sides[0])
        self.manner = manner
        self._apply()

    def next_manner(self) -> None:
        """From held to side by side, to blinking, and back."""
        self.set_manner(MANNERS[(MANNERS.index(self.manner) + 1) % len(MANNERS)])

    def end(self) -> None:
        """Compare with the image alone, as at first."""
        if self.other is not None:
            self.compare_with(None)

    def hold(self, on: bool) -> None:
        """Show the other side while the canvas's key is held, which shows the bare image itself."""
        self._held = on
        self._apply()

    def press(self, on: bool) -> None:
        """Show the other side, or the bare image, while a button is pressed."""
        self._canvas.set_bare(on and self._canvas.bares)
        self.hold(on)

    def pause(self, on: bool) -> None:
        """Show the other side in turn no more, or again: it would come between a mask and the hand that draws it."""
        if on != self._paused:
            self._paused = on
            self._apply()

    def _blinked(self) -> None:
        self._seen = not self._seen
        self._apply()

    def _apply(self) -> None:
        self._canvas.bares = self.other is None
        blinking = self.manner == "blinking" and self.other is not None and not self._paused
        if blinking != self._blink.isActive():
            self._seen = False
            if blinking:
                self._blink.start()
            else:
                self._blink.stop()
        if self.other is None:
            self._frame.show_other("hidden")
        elif self.manner == "beside":
            self._frame.show_other("beside")
        else:
            self._frame.show_other("over" if self._held != self._seen else "hidden")
        if self.canvas.isVisible():
            self._follow_view(self._canvas, self.canvas)
        self._caption()
        self.changed.emit()

    def _caption(self) -> None:
        if self.other is None:
            self._frame.set_captions("", "")
            return
        if self.other.kind == "run":
            names = [side.name for side in self._runs if side.id == self.run]
            this = names[0] if names else self.tr("Gaze alone (pseudo-masks)")
        else:
            this = self.own.name if self.own is not None else self.tr("Review that counts")
        self._frame.set_captions(this, self.other.name)

    # Showing

    def show(self, study: Study, cache: SceneCache, scene: Scene, others: bool = False) -> None:
        """Show a scene, and the other side of it.

        Parameters
        ----------
        scene : of this side, as it is built
        others : whether it was built with the other targets' masks
        """
        self.run = scene.run_id
        try:
            if self.own is not None:
                this = reviewed_by(study, scene, self.own.id)
            else:
                this = scene
            other = self._other_scene(study, cache, scene, others)
        except UserError as error:
            self._canvas.set_scene(scene)
            self.end()
            self.failed.emit(str(error))
            return
        # This side leads, also where the other has never been seen yet.
        self._following = True
        try:
            self._canvas.set_scene(this)
            self.canvas.set_scene(other)
        finally:
            self._following = False
        self._follow_window(self._canvas, self.canvas)
        self._apply()

    def _other_scene(self, study: Study, cache: SceneCache, scene: Scene, others: bool) -> Scene | None:
        if self.other is None:
            return None
        if self.other.kind == "annotator":
            return reviewed_by(study, scene, self.other.id)
        return cache.get(scene.image_id, scene.target_id, self.other.id, others)

    def clear(self) -> None:
        """There is no image."""
        self._canvas.set_scene(None)
        self.canvas.set_scene(None)

    def ahead(self, keys: Sequence[Key]) -> list[Key]:
        """Return the scenes to build ahead of a reader: of both sides, the nearest first."""
        if self.other is None or self.other.kind != "run":
            return list(keys)
        run = self.other.id
        return [one for key in keys for one in (key, (key[0], key[1], run, key[3]))]


class CompareTool(QWidget):
    """A button that shows the other side while it is pressed, and a menu of what that is."""

    def __init__(self, comparison: Comparison, colour: str) -> None:
        super().__init__()
        self._comparison = comparison
        self.held = IconButton("eye", "", colour=colour)
        self.held.pressed.connect(lambda: comparison.press(True))
        self.held.released.connect(lambda: comparison.press(False))
        self.button = QToolButton()
        self.button.setText("▾")
        self.button.setToolTip(
            self.tr("Compare with another run or annotator (Shift+C: side by side, blinking)")
        )
        self.button.setAccessibleName(self.tr("Compare with"))
        self.button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.button.setFixedSize(24, 28)
        self.button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.button.setCursor(Qt.CursorShape.PointingHandCursor)
        self.menu = QMenu(self.button)
        self._own = QMenu(self.tr("This side shows"), self.menu)
        self.menu.aboutToShow.connect(self.fill_menu)
        self.button.setMenu(self.menu)
        layout = QHBoxLayout(self)
        box(layout, spacing=0)
        layout.addWidget(self.held)
        layout.addWidget(self.button)
        comparison.changed.connect(self._follow)
        self._follow()

    def _follow(self) -> None:
        other = self._comparison.other
        tip = (
            self.tr("Image alone while pressed (C)")
            if other is None
            else self.tr("{name} while pressed (C)").format(name=other.name)
        )
        self.held.setToolTip(tip)
        self.held.setAccessibleName(tip)

    def _title(self, side: Side) -> str:
        return side.name if side.kind == "run" else self.tr("Review of {name}").format(name=side.name)

    def fill_menu(self) -> None:
        """List what there is to compare with, and how."""
        comparison, menu = self._comparison, self.menu
        menu.clear()

        def add(to: QMenu, name: str, ticked: bool, act: Callable[[], object], key: str = "") -> None:
            action = to.addAction(for_menu(name) + (f"\t{key}" if key else ""))
            action.setCheckable(True)
            action.setChecked(ticked)
            action.triggered.connect(lambda _checked=False: act())

        add(menu, self.tr("Image alone"), comparison.other is None, lambda: comparison.compare_with(None))
        for side in comparison.sides:
            chosen = side == comparison.other
            add(menu, self._title(side), chosen, functools.partial(comparison.compare_with, side))
        menu.addSeparator()
        words = {
            "held": (self.tr("While C is held"), "C"),
            "beside": (self.tr("Side by side"), "Shift+C"),
            "blinking": (self.tr("Blinking"), "Shift+C"),
        }
        for manner in MANNERS:
            name, key = words[manner]
            chosen = manner == comparison.manner
            add(menu, name, chosen, functools.partial(comparison.set_manner, manner), key)
        if comparison.other is not None and comparison.other.kind == "annotator":
            menu.addSeparator()
            this, own = self._own, comparison.own
            this.clear()
            menu.addMenu(this)
            add(this, self.tr("Review that counts"), own is None, lambda: comparison.show_own(None))
            for side in comparison.annotators:
                if side != comparison.other:
                    add(this, self._title(side), side == own, functools.partial(comparison.show_own, side))
