"""What the tools do to a mask, in the plainest words: loops over pixels, and a list of whole masks for a history."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Path = list[tuple[float, float]]
NEAR = 1e-7


def each(shape: tuple[int, int], inside: Callable[[int, int], bool]) -> Mask:
    """Ask of every pixel (x, y)."""
    return np.array([[inside(x, y) for x in range(shape[1])] for y in range(shape[0])], dtype=bool)


def distance(x: float, y: float, start: tuple[float, float], end: tuple[float, float]) -> float:
    (ax, ay), (bx, by) = start, end
    length = (bx - ax) ** 2 + (by - ay) ** 2
    share = 0.0 if length == 0 else min(max(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length, 0.0), 1.0)
    return math.hypot(x - ax - share * (bx - ax), y - ay - share * (by - ay))


def stroke(shape: tuple[int, int], path: Path, radius: float) -> Mask:
    legs = list(itertools.pairwise(path)) or [(path[0], path[0])]
    return each(shape, lambda x, y: any(distance(x, y, a, b) <= radius + NEAR for a, b in legs))


def winding(x: float, y: float, path: Path) -> int:
    turns = 0
    for (ax, ay), (bx, by) in zip(path, [*path[1:], path[0]], strict=True):
        if (ay <= y) != (by <= y):
            crossing = ax + (y - ay) / (by - ay) * (bx - ax)
            if crossing <= x:
                turns += 1 if by > ay else -1
    return turns


def polygon(shape: tuple[int, int], path: Path) -> Mask:
    return each(shape, lambda x, y: winding(x, y, path) != 0)


def spread(start: list[tuple[int, int]], allowed: Callable[[int, int], bool], shape: tuple[int, int]) -> Mask:
    """Walk from pixel to pixel, side to side."""
    found = np.zeros(shape, dtype=bool)
    waiting = [(x, y) for x, y in start if allowed(x, y)]
    while waiting:
        x, y = waiting.pop()
        if not (0 <= x < shape[1] and 0 <= y < shape[0]) or found[y, x] or not allowed(x, y):
            continue
        found[y, x] = True
        waiting += [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)]
    return found


def flood(values: npt.NDArray[np.uint8], seed: tuple[int, int], tolerance: float) -> Mask:
    wanted = values[seed[1], seed[0]].astype(int)

    def allowed(x: int, y: int) -> bool:
        return bool((np.abs(values[y, x].astype(int) - wanted) <= tolerance).all())

    return spread([seed], allowed, values.shape[:2])


def part(mask: Mask, seed: tuple[int, int]) -> Mask:
    return spread([seed], lambda x, y: bool(mask[y, x] == mask[seed[1], seed[0]]), mask.shape)


def near(mask: Mask, radius: float, row: float = 1, column: float = 1) -> Mask:
    places = [(int(x), int(y)) for y, x in np.argwhere(mask)]
    return each(
        mask.shape,
        lambda x, y: any(math.hypot((x - u) * column, (y - v) * row) <= radius + NEAR for u, v in places),
    )


def grow(mask: Mask, radius: float, row: float = 1, column: float = 1) -> Mask:
    return near(mask, radius, row, column)


def shrink(mask: Mask, radius: float, row: float = 1, column: float = 1) -> Mask:
    return mask & ~near(~mask, radius, row, column)


def smooth(mask: Mask, radius: float) -> Mask:
    reach = int(radius)
    offsets = [
        (i, j)
        for i in range(-reach, reach + 1)
        for j in range(-reach, reach + 1)
        if i * i + j * j <= radius * radius
    ]
    height, width = mask.shape

    def most(x: int, y: int) -> bool:
        votes = sum(mask[min(max(y + i, 0), height - 1), min(max(x + j, 0), width - 1)] for i, j in offsets)
        return bool(votes * 2 > len(offsets))

    return each(mask.shape, most)


def fill_holes(mask: Mask) -> Mask:
    height, width = mask.shape
    rim = [(x, y) for x in range(width) for y in range(height) if x in (0, width - 1) or y in (0, height - 1)]
    return ~spread(rim, lambda x, y: not mask[y, x], mask.shape)


def keep_largest(mask: Mask) -> Mask:
    largest = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        found = part(mask, (int(x), int(y)))
        if found.sum() > largest.sum():
            largest = found
    return largest


class PlainHistory:
    """Every mask there was, whole."""

    def __init__(self, mask: Mask) -> None:
        self.masks = [mask.copy()]
        self.words: list[str] = []
        self.at = 0

    @property
    def mask(self) -> Mask:
        return self.masks[self.at]

    def do(self, word: str, after: Mask) -> None:
        if (after != self.mask).any():
            del self.masks[self.at + 1 :], self.words[self.at :]
            self.masks.append(after.copy())
            self.words.append(word)
            self.at += 1

    def undo(self) -> None:
        self.at = max(self.at - 1, 0)

    def redo(self) -> None:
        self.at = min(self.at + 1, len(self.masks) - 1)
