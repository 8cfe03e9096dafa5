"""The tools that a mask is drawn with: what each does when the pointer is pressed, moved and let go.

A tool knows image positions and the draft; it draws what is in the making, and never the mask itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPainterPath, QPen

from app import theme
from segmentation.editing import regions
from segmentation.editing.drafts import Draft
from segmentation.editing.operations import rethreshold
from segmentation.editing.regions import Box, Mask, Region
from segmentation.records import MASK_THRESHOLD

ToolName = Literal["brush", "eraser", "lasso", "polygon", "flood", "threshold"]
Point = tuple[float, float]
"""x, y in image pixels."""

LEAST_RADIUS = 0.5
CLOSING_PX = 10
"""A click so near to a polygon's first corner, on the screen, closes it."""
LASSO_STEP_PX = 0.7
"""A lasso takes a corner after so many pixels of the image."""


@dataclass
class Options:
    """What the tools are set to; kept from image to image."""

    radius_px: float = 0.0
    """Of brush and eraser, in image pixels; 0 before the first image."""
    erase: bool = False
    """Whether lasso, polygon and flood take away; Shift does the other."""
    tolerance: int = 24
    """Of the flood, in the 256 shades that the image is shown with."""
    parts: bool = False
    """Whether the flood fills a hole, or takes the part under the pointer, whatever the image's values."""
    threshold: float = MASK_THRESHOLD


@dataclass
class Board:
    """What the tools work on."""

    options: Options
    draft: Draft
    zoom: Callable[[], float]
    place: Callable[[float, float], QPointF]
    """From an image position to the screen."""
    shades: Callable[[], npt.NDArray[np.uint8]]
    """(H, W, C) the image as it is shown."""
    probability: Callable[[], npt.NDArray[np.float32]]
    """(H, W) of the student; raises UserError where there is none."""
    changed: Callable[[Box | None], None]
    """The mask may have changed there."""
    marked: Callable[[], None]
    """What is in the making looks different."""
    kept: Callable[[Callable[[], object]], object]
    """Runs what ends a step, and tells where it could not be written."""

    @property
    def mask(self) -> Mask:
        """(H, W) as it is now."""
        return self.draft.edit.mask

    def add(self, word: str, found: Region | None, erase: bool) -> None:
        """Add a region to the mask, or take it away, as one step."""
        if found is not None:
            edit = self.draft.edit
            edit.begin(f"{word}-erase" if erase else word)
            self.changed(edit.mark([found], erase=erase))
            self.kept(self.draft.commit)


class Tool:
    """One way to change the mask."""

    name: ToolName

    def __init__(self, board: Board) -> None:
        self.board = board

    @property
    def busy(self) -> bool:
        """Whether something is in the making."""
        return False

    def press(self, at: Point, shift: bool) -> None:
        """Begin where the left button went down."""

    def move(self, at: Point, pressed: bool) -> None:
        """Follow the pointer."""

    def release(self, at: Point) -> None:
        """End where the button was let go."""

    def double(self, at: Point, shift: bool) -> None:
        """Act on a second press right after the first."""
        self.press(at, shift)

    def wheel(self, notches: float) -> bool:
        """Act on the wheel; return whether it has a meaning here."""
        return False

    def finish(self) -> bool:
        """Act on Enter; return whether it had a meaning."""
        return False

    def back(self) -> bool:
        """Take back a part of what is in the making; return whether there was one."""
        return False

    def cancel(self) -> None:
        """Give up what is in the making."""

    def settle(self) -> None:
        """End what is in the making, as something else is about to happen."""
        self.cancel()

    def reach(self, pointer: Point | None) -> QRectF:
        """Return the part of the screen that its marks are in."""
        return QRectF()

    def paint(self, painter: QPainter, pointer: Point | None) -> None:
        """Draw what is in the making, and the pointer's mark."""


def _around(board: Board, points: list[Point], margin: float = 8.0) -> QRectF:
    """Return the part of the screen around some image positions."""
    if not points:
        return QRectF()
    placed = [board.place(x, y) for x, y in _corners(points)]
    area = QRectF(placed[0], placed[1])
    return area.adjusted(-margin, -margin, margin, margin)


def _corners(points: list[Point]) -> tuple[Point, Point]:
    found = np.array(points)
    (left, top), (right, bottom) = found.min(axis=0).tolist(), found.max(axis=0).tolist()
    return (left, top), (right, bottom)


class Brush(Tool):
    """Draws round strokes; the eraser is one that takes away. Shift does the other."""

    def __init__(self, board: Board, name: ToolName) -> None:
        super().__init__(board)
        self.name = name
        self._last: Point | None = None
        self._erase = False

    @property
    def busy(self) -> bool:
        """Whether a stroke is being drawn."""
        return self._last is not None

    def press(self, at: Point, shift: bool) -> None:
        """Begin a stroke."""
        self.settle()
        self._erase = (self.name == "eraser") != shift
        self.board.draft.edit.begin("eraser" if self._erase else "brush")
        self._draw([at])

    def move(self, at: Point, pressed: bool) -> None:
        """Go on with the stroke."""
        if pressed and self._last is not None:
            self._draw([self._last, at])

    def _draw(self, points: list[Point]) -> None:
        self._last = points[-1]
        edit, radius = self.board.draft.edit, self.board.options.radius_px
        self.board.changed(edit.brush(np.array(points), radius, erase=self._erase))

    def release(self, at: Point) -> None:
        """End the stroke."""
        self.move(at, True)
        self.settle()

    def settle(self) -> None:
        """End the stroke where it is."""
        if self._last is not None:
            self._last = None
            self.board.kept(self.board.draft.commit)

    def cancel(self) -> None:
        """Give the stroke up."""
        if self._last is not None:
            self._last = None
            self.board.changed(self.board.draft.edit.cancel())

    def wheel(self, notches: float) -> bool:
        """Change the size."""
        resize(self.board, 1.15**notches)
        return True

    def reach(self, pointer: Point | None) -> QRectF:
        """Return where the disc is."""
        radius = self.board.options.radius_px * self.board.zoom() + 4
        return _around(self.board, [] if pointer is None else [pointer], radius)

    def paint(self, painter: QPainter, pointer: Point | None) -> None:
        """Show how large it is: a soft disc with a thin ring."""
        if pointer is None:
            return
        radius = self.board.options.radius_px * self.board.zoom()
        centre = self.board.place(*pointer)
        erasing = self._erase if self.busy else self.name == "eraser"
        soft = QColor(theme.DARK.background if erasing else theme.DARK.accent)
        soft.setAlphaF(0.12 if self.busy else 0.28)
        painter.setPen(QPen(QColor(0, 0, 0, 150), 3))
        painter.setBrush(soft)
        painter.drawEllipse(centre, radius, radius)
        pen = QPen(QColor(theme.LINE), 1.2)
        if erasing:
            pen.setDashPattern([3, 2.5])
        painter.setPen(pen)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawEllipse(centre, radius, radius)


def resize(board: Board, factor: float) -> None:
    """Make brush and eraser larger or smaller."""
    most = max(board.draft.edit.shape) / 2
    board.options.radius_px = min(max(board.options.radius_px * factor, LEAST_RADIUS), most)
    board.marked()


def _draw_outline(
    painter: QPainter, board: Board, points: list[Point], erase: bool, *, closed: bool = False
) -> QPainterPath:
    """Draw the corners so far, and the way back to the first one faintly."""
    path = QPainterPath(board.place(*points[0]))
    for point in points[1:]:
        path.lineTo(board.place(*point))
    tint = QColor(theme.DARK.background if erase else theme.DARK.accent)
    tint.setAlphaF(0.25)
    painter.fillPath(path, tint)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    if closed:
        path.closeSubpath()
    painter.setPen(QPen(QColor(0, 0, 0, 170), 3.5))
    painter.drawPath(path)
    pen = QPen(QColor(theme.LINE), 1.5)
    if erase:
        pen.setDashPattern([4, 3])
    painter.setPen(pen)
    painter.drawPath(path)
    if not closed:
        faint = QPen(QColor(255, 255, 255, 140), 1, Qt.PenStyle.DotLine)
        painter.setPen(faint)
        painter.drawLine(board.place(*points[-1]), board.place(*points[0]))
    return path


class _Corners(Tool):
    """Takes what lies between the corners of a way."""

    def __init__(self, board: Board) -> None:
        super().__init__(board)
        self._points: list[Point] = []
        self._erase = False

    @property
    def busy(self) -> bool:
        """Whether there is a corner."""
        return bool(self._points)

    def _begin(self, at: Point, shift: bool) -> None:
        self._points = [at]
        self._erase = self.board.options.erase != shift
        self.board.marked()

    def _add(self, at: Point) -> None:
        self._points.append(at)
        self.board.marked()

    def _take(self) -> bool:
        """Add what lies between the corners to the mask, or take it away; return whether there was a corner."""
        if not self._points:
            return False
        points, self._points = self._points, []
        self.board.marked()
        found = regions.enclosed(np.array(points), self.board.draft.edit.shape)
        self.board.add(self.name, found, self._erase)
        return True

    def cancel(self) -> None:
        """Give it up."""
        if self._points:
            self._points = []
            self.board.marked()

    def reach(self, pointer: Point | None) -> QRectF:
        """Return where the way is."""
        return _around(self.board, self._points)


class Lasso(_Corners):
    """Takes what the pointer goes around while the button is down."""

    name: ToolName = "lasso"

    def press(self, at: Point, shift: bool) -> None:
        """Begin."""
        self._begin(at, shift)

    def move(self, at: Point, pressed: bool) -> None:
        """Go on."""
        if pressed and self._points and math.dist(at, self._points[-1]) >= LASSO_STEP_PX:
            self._add(at)

    def release(self, at: Point) -> None:
        """Take what was gone around."""
        self._take()

    def paint(self, painter: QPainter, pointer: Point | None) -> None:
        """Draw the way so far."""
        if self._points:
            _draw_outline(painter, self.board, self._points, self._erase)


class Polygon(_Corners):
    """Takes what lies between corners; Enter, a double click, or a click on the first one closes it."""

    name: ToolName = "polygon"

    def _closes(self, at: Point) -> bool:
        return len(self._points) > 2 and (math.dist(at, self._points[0]) * self.board.zoom() <= CLOSING_PX)

    def press(self, at: Point, shift: bool) -> None:
        """Add a corner, or close."""
        if not self._points:
            self._begin(at, shift)
        elif self._closes(at):
            self.finish()
        else:
            self._add(at)

    def double(self, at: Point, shift: bool) -> None:
        """Close: the first click of the two was the last corner."""
        self.finish()

    def finish(self) -> bool:
        """Take what lies between the corners."""
        return self._take()

    def settle(self) -> None:
        """Close what goes around something: that is a step, and can be undone; less is given up."""
        if len(self._points) > 2:
            self._take()
        else:
            self.cancel()

    def move(self, at: Point, pressed: bool) -> None:
        """Draw the line to the pointer."""
        if self._points:
            self.board.marked()

    def back(self) -> bool:
        """Take the last corner back."""
        if not self._points:
            return False
        self._points.pop()
        self.board.marked()
        return True

    def reach(self, pointer: Point | None) -> QRectF:
        """Return where the corners and the pointer are."""
        return _around(self.board, [*self._points, *([pointer] if pointer and self._points else [])])

    def paint(self, painter: QPainter, pointer: Point | None) -> None:
        """Draw the corners, and the lines between them."""
        if not self._points:
            return
        closing = pointer is not None and self._closes(pointer)
        points = self._points if closing or pointer is None else [*self._points, pointer]
        _draw_outline(painter, self.board, points, self._erase, closed=closing)
        painter.setPen(QPen(QColor(0, 0, 0, 200), 1))
        for number, point in enumerate(self._points):
            painter.setBrush(QColor(theme.DARK.accent if number == 0 else theme.LINE))
            size = 5.5 if number == 0 and closing else 4.0 if number == 0 else 3.0
            painter.drawEllipse(self.board.place(*point), size, size)


class Flood(Tool):
    """Takes what hangs together with the pixel clicked: similar shades of the image, or a hole or part of the mask."""

    name: ToolName = "flood"

    def press(self, at: Point, shift: bool) -> None:
        """Take it."""
        seed = (round(at[0]), round(at[1]))
        height, width = self.board.draft.edit.shape
        if not (0 <= seed[0] < width and 0 <= seed[1] < height):
            return
        options = self.board.options
        if options.parts:
            # A hole is filled, a part is taken away: whatever is there turns.
            erase = bool(self.board.mask[seed[1], seed[0]])
            self.board.add("flood", regions.part_at(self.board.mask, seed), erase)
        else:
            found = regions.similar(self.board.shades(), seed, options.tolerance)
            self.board.add("flood", found, options.erase != shift)

    def wheel(self, notches: float) -> bool:
        """Change the tolerance."""
        if self.board.options.parts:
            return False
        step = math.copysign(max(round(abs(notches) * 2), 1), notches)
        self.board.options.tolerance = int(min(max(self.board.options.tolerance + step, 0), 255))
        self.board.marked()
        return True


@dataclass
class _Within:
    """A part of the image that a threshold is tried in."""

    points: list[Point]
    outside: bool
    where: Mask = field(repr=False)


class Threshold(Tool):
    """Takes where the student's probability reaches a threshold, live; dragging draws around where, Shift where not."""

    name: ToolName = "threshold"

    def __init__(self, board: Board) -> None:
        super().__init__(board)
        self._probability = board.probability()
        self._base: Mask | None = None
        self._within: _Within | None = None
        self._points: list[Point] = []
        self._outside = False

    @property
    def busy(self) -> bool:
        """Whether a threshold is being tried out, or where is being drawn."""
        return self._base is not None or bool(self._points)

    @property
    def limited(self) -> bool:
        """Whether it counts in a part of the image only."""
        return self._within is not None

    def try_out(self, threshold: float) -> None:
        """Show the mask of a threshold; it becomes a step when something else is done, or after a while."""
        self.board.options.threshold = min(max(threshold, 0.01), 0.99)
        edit = self.board.draft.edit
        if self._base is None:
            self._base = edit.mask.copy()
            edit.begin("threshold")
        where = None if self._within is None else self._within.where
        after = rethreshold(self._base, self._probability, self.board.options.threshold, where)
        self.board.changed(edit.replace(after))
        self.board.marked()

    def everywhere(self) -> None:
        """Have it count in the whole image again."""
        self.settle()
        self._within = None
        self.board.marked()

    def press(self, at: Point, shift: bool) -> None:
        """Begin to draw around where it counts."""
        self.settle()
        self._points, self._outside = [at], shift

    def move(self, at: Point, pressed: bool) -> None:
        """Go on."""
        if pressed and self._points and math.dist(at, self._points[-1]) >= LASSO_STEP_PX:
            self._points.append(at)
            self.board.marked()

    def release(self, at: Point) -> None:
        """Have the threshold count there; a mere click has it count everywhere."""
        points, self._points = self._points, []
        found = regions.enclosed(np.array(points), self.board.draft.edit.shape) if points else None
        if found is None:
            self.everywhere()
            return
        where = np.zeros(self.board.draft.edit.shape, dtype=np.bool_)
        where[found.box.slices] = found.inside
        self._within = _Within(points, self._outside, ~where if self._outside else where)
        self.try_out(self.board.options.threshold)

    def wheel(self, notches: float) -> bool:
        """Change the threshold."""
        self.try_out(self.board.options.threshold - notches * 0.02)
        return True

    def finish(self) -> bool:
        """Keep what is tried out."""
        busy = self._base is not None
        self.settle()
        return busy

    def settle(self) -> None:
        """Keep what is tried out."""
        self._points = []
        if self._base is not None:
            self._base = None
            self.board.kept(self.board.draft.commit)

    def cancel(self) -> None:
        """Have the mask as it was before."""
        self._points = []
        if self._base is not None:
            self._base = None
            self.board.changed(self.board.draft.edit.cancel())
        self.board.marked()

    def reach(self, pointer: Point | None) -> QRectF:
        """Return where the line around is."""
        return _around(self.board, [*self._points, *(self._within.points if self._within else [])])

    def paint(self, painter: QPainter, pointer: Point | None) -> None:
        """Draw where it counts."""
        if self._points:
            _draw_outline(painter, self.board, self._points, self._outside)
        elif self._within is not None:
            path = QPainterPath(self.board.place(*self._within.points[0]))
            for point in self._within.points[1:]:
                path.lineTo(self.board.place(*point))
            path.closeSubpath()
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(QColor(0, 0, 0, 150), 3))
            painter.drawPath(path)
            painter.setPen(QPen(QColor(theme.LINE), 1.2, Qt.PenStyle.DashLine))
            painter.drawPath(path)


def make_tool(name: ToolName, board: Board) -> Tool:
    """Return a tool by name; raises UserError where it lacks what it needs."""
    if name in ("brush", "eraser"):
        return Brush(board, name)
    kinds: dict[str, type[Tool]] = {
        "lasso": Lasso,
        "polygon": Polygon,
        "flood": Flood,
        "threshold": Threshold,
    }
    return kinds[name](board)
