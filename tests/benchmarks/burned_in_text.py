"""How much burned-in text is blanked, and what else: ``python -m tests.benchmarks.burned_in_text KVASIR [EVERY]``.

Kvasir's text stands in its leftmost 110 of 352 pixels (looked at), so that a rectangle elsewhere is a false one. Dates
are also burned in at known places, for the share of their strokes that is covered.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from segmentation.burned_in_text import text_boxes
from segmentation.images import decode_mask, read_stored
from segmentation.readers.burned_in import likely_text
from segmentation.view_geometry import Box

TEXT_COLUMNS = 110


def covered(shape: tuple[int, int], boxes: tuple[Box, ...]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    for x, y, width, height in boxes:
        mask[y : y + height, x : x + width] = True
    return mask


def with_date(
    pixels: npt.NDArray[np.uint8], rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    layer = np.zeros(pixels.shape[:2], np.uint8)
    text = f"{rng.integers(1, 29):02}/{rng.integers(1, 13):02}/{rng.integers(1990, 2025)}"
    place = int(rng.integers(130, 240)), int(rng.integers(20, 330))
    cv2.putText(layer, text, place, cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.3, 0.5), 255, 1, cv2.LINE_AA)
    alpha = 0.9 * layer[:, :, None] / 255
    return np.rint(pixels * (1 - alpha) + 235 * alpha).astype(np.uint8), layer > 128


def main(folder: Path, every: int) -> None:
    rng = np.random.default_rng(5)
    files = sorted(folder.glob("*/images/*.jpg"))[::every]
    strict = found = false = 0
    hidden, strokes, seconds = [], [], 0.0
    for path in files:
        pixels = read_stored(path).astype(np.uint8)
        truth = decode_mask(path.parents[1] / "masks" / f"{path.stem}.png")
        begun = time.perf_counter()
        boxes = text_boxes(pixels)
        seconds += time.perf_counter() - begun
        middles = [x + width / 2 for x, _, width, _ in boxes]
        strict += bool(likely_text(pixels))
        found += any(middle < TEXT_COLUMNS for middle in middles)
        false += any(middle >= TEXT_COLUMNS for middle in middles)
        hidden.append(float(covered(truth.shape, boxes)[truth].mean()) if truth.any() else 0.0)
        dated, text = with_date(pixels, rng)
        strokes.append(float(covered(text.shape, text_boxes(dated))[text].mean()))
    hides, shares = np.array(hidden), np.array(strokes)
    sys.stdout.write(
        f"{len(files)} images, {1000 * seconds / len(files):.0f} ms each\n"
        f"text blanked in {found} (strict reader: finds some in {strict}); blanked elsewhere in {false}\n"
        f"target hidden: mean {hides.mean():.2%}, any in {np.count_nonzero(hides)}, "
        f"over 5 % in {np.count_nonzero(hides > 0.05)}, at most {hides.max():.1%}\n"
        f"dates burned in: {shares.mean():.1%} of the strokes covered, over 90 % in {np.mean(shares > 0.9):.0%}, "
        f"none in {np.mean(shares == 0):.0%}\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
