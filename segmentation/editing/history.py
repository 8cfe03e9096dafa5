"""A mask with its history: every step can be taken back and done again, and costs what it changed, no more."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from segmentation.editing.regions import Box, Mask, Points, Region, box_of, stroke

TILE_PX = 256
"""While a stroke lasts, the mask is kept as it was in squares of this side, where it was touched."""


def packed(mask: Mask) -> bytes:
    """Return a mask (H, W) as compressed bits."""
    return zlib.compress(np.packbits(mask).tobytes(), 1)


def unpacked(data: bytes, shape: tuple[int, int]) -> Mask:
    """Return the mask that was packed; ValueError where it is none of this shape."""
    try:
        bits = np.frombuffer(zlib.decompress(data), dtype=np.uint8)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    count = shape[0] * shape[1]
    if len(bits) != -(-count // 8):
        raise ValueError("a mask of another size")
    return np.unpackbits(bits, count=count).reshape(shape).view(np.bool_)


@dataclass(frozen=True)
class Step:
    """One change of a mask, the same forth and back."""

    word: str
    """The tool: brush, eraser, polygon ..."""
    box: Box
    flipped: bytes
    """Which pixels of the box changed, packed."""
    start: str = ""
    """What the mask began anew as in this step; empty for an edit of what was there."""

    def flip(self, mask: Mask) -> None:
        """Do this step to a mask, or take it back; ValueError where it was made for another."""
        part = mask[self.box.slices]
        if part.shape != self.box.shape:
            raise ValueError("a step beyond the mask")
        part ^= unpacked(self.flipped, self.box.shape)


class EditableMask:
    """A mask (H, W) that is edited: live, between `begin` and `commit`, or in one go by `apply`."""

    def __init__(self, mask: Mask, started_from: str) -> None:
        self._mask = np.array(mask, dtype=np.bool_, order="C")
        self._began_as = started_from
        self._steps: list[Step] = []
        self._standing = 0
        self._live = ""
        self._touched: Box | None = None
        self._before: dict[tuple[int, int], Mask] = {}

    # What there is

    @property
    def mask(self) -> Mask:
        """The mask as it is now, not to be written to."""
        view = self._mask.view()
        view.flags.writeable = False
        return view

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self._mask.shape
        return height, width

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that stand, oldest first."""
        return tuple(self._steps[: self._standing])

    @property
    def undone(self) -> tuple[Step, ...]:
        """The steps that were taken back and can be done again, the next one first."""
        return tuple(self._steps[self._standing :])

    @property
    def undo_word(self) -> str:
        """What would be taken back; empty where there is nothing."""
        return self._steps[self._standing - 1].word if self._standing else ""

    @property
    def redo_word(self) -> str:
        """What would be done again; empty where there is nothing."""
        return self._steps[self._standing].word if self._standing < len(self._steps) else ""

    @property
    def started_from(self) -> str:
        """What the mask began as, of what stands."""
        return next((step.start for step in reversed(self.steps) if step.start), self._began_as)

    @property
    def edits(self) -> tuple[str, ...]:
        """The words of the steps since the mask began as what it did."""
        words: list[str] = []
        for step in self.steps:
            words = [] if step.start else [*words, step.word]
        return tuple(words)

    # Live

    @property
    def live(self) -> str:
        """The word of the step that is being made; empty between steps."""
        return self._live

    def begin(self, word: str) -> None:
        """Begin a step that grows while it is seen."""
        if self._live:
            raise RuntimeError(f"{self._live} is not finished")
        self._live = word

    def _touch(self, box: Box) -> None:
        for row in range(box.top // TILE_PX, (box.bottom - 1) // TILE_PX + 1):
            for column in range(box.left // TILE_PX, (box.right - 1) // TILE_PX + 1):
                if (row, column) not in self._before:
                    self._before[row, column] = self._mask[_tile(row, column)].copy()
        self._touched = box if self._touched is None else self._touched.united(box)

    def mark(self, regions: Iterable[Region], *, erase: bool = False) -> Box | None:
        """Add regions to the mask, or take them away, within the step begun; return what may have changed."""
        changed: Box | None = None
        for region in regions:
            self._touch(region.box)
            part = self._mask[region.box.slices]
            if erase:
                part &= ~region.inside
            else:
                part |= region.inside
            changed = region.box if changed is None else changed.united(region.box)
        return changed

    def brush(self, points: Points, radius_px: float, *, erase: bool = False) -> Box | None:
        """Draw along a path (K, 2) with a round brush, within the step begun; return what may have changed."""
        return self.mark(stroke(points, radius_px, self.shape), erase=erase)

    def replace(self, after: Mask) -> Box:
        """Have the mask be another (H, W), within the step begun; again and again where it is tried out."""
        if after.shape != self._mask.shape:
            raise ValueError(f"a mask of {after.shape} in the place of one of {self._mask.shape}")
        whole = Box(0, 0, *self.shape)
        self._touch(whole)
        self._mask[:] = after
        return whole

    def commit(self, start: str = "") -> Step | None:
        """End the step begun; None where it changed nothing. What was taken back before cannot be done again then."""
        word, self._live = self._live, ""
        touched, self._touched = self._touched, None
        before, self._before = self._before, {}
        changed = None if touched is None else self._changed(before)
        if changed is None and not start:
            return None
        box, flipped = changed if changed is not None else (Box(0, 0, 1, 1), np.zeros((1, 1), dtype=bool))
        step = Step(word, box, packed(flipped), start)
        del self._steps[self._standing :]
        self._steps.append(step)
        self._standing += 1
        return step

    def _changed(self, before: dict[tuple[int, int], Mask]) -> tuple[Box, Mask] | None:
        """Return the box around all that differs from before, and what differs in it."""
        found: dict[Box, Mask] = {}
        for (row, column), was in before.items():
            differs = was ^ self._mask[_tile(row, column)]
            inner = box_of(differs)
            if inner is not None:
                top, left = row * TILE_PX, column * TILE_PX
                box = Box(inner.top + top, inner.left + left, inner.bottom + top, inner.right + left)
                found[box] = differs[inner.slices]
        if not found:
            return None
        around = next(iter(found))
        for box in found:
            around = around.united(box)
        flipped = np.zeros(around.shape, dtype=bool)
        for box, differs in found.items():
            top, left = box.top - around.top, box.left - around.left
            flipped[top : top + box.shape[0], left : left + box.shape[1]] = differs
        return around, flipped

    def cancel(self) -> Box | None:
        """Give the step begun up; return what may have changed."""
        touched, self._touched, self._live = self._touched, None, ""
        for (row, column), was in self._before.items():
            self._mask[_tile(row, column)] = was
        self._before = {}
        return touched

    # In one go

    def apply(self, word: str, after: Mask, start: str = "") -> Step | None:
        """Have the mask be another (H, W), as one step; None where it is the same."""
        self.begin(word)
        self.replace(after)
        return self.commit(start)

    def restore(self, step: Step) -> None:
        """Do a step that was made before, read back from where it was kept; ValueError where it does not fit."""
        step.flip(self._mask)
        del self._steps[self._standing :]
        self._steps.append(step)
        self._standing += 1

    # Back and forth

    def undo(self) -> Step | None:
        """Take the last step back; None where there is none, or one is being made."""
        if not self._standing or self._live:
            return None
        self._standing -= 1
        step = self._steps[self._standing]
        step.flip(self._mask)
        return step

    def redo(self) -> Step | None:
        """Do the step taken back last again; None where there is none, or one is being made."""
        if self._standing == len(self._steps) or self._live:
            return None
        step = self._steps[self._standing]
        step.flip(self._mask)
        self._standing += 1
        return step


def _tile(row: int, column: int) -> tuple[slice, slice]:
    return (
        slice(row * TILE_PX, (row + 1) * TILE_PX),
        slice(column * TILE_PX, (column + 1) * TILE_PX),
    )
