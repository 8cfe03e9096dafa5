"""Refiners against true masks, and their time: Kvasir-SEG training images (where at hand) and phantoms.

A level is chosen on every second image and its Dice reported on the others. All gaze is simulated from masks.
pydensecrf is measured where it is installed: `pip install --target DIR pydensecrf2==1.1`, then PYTHONPATH=DIR.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from segmentation.images import resize
from segmentation.pseudomask import PRESETS, WITHOUT_GEOMETRY, PseudoMaskSettings, make_pseudomask
from segmentation.refine import refine
from tests.benchmarks.several_lesions import SHARED, Case, kvasir_every, phantoms

Floats = npt.NDArray[np.float32]
Refiner = Callable[[Floats, Floats, float], Floats]
"""Takes an image (H, W, C), a heatmap (H, W), and the heat at which inside and outside are as likely."""

LEVELS = np.round(np.arange(0.05, 0.9, 0.025), 3).astype(np.float32)


def named(name: str) -> Refiner:
    """Return a refiner of the program."""
    return lambda image, heatmap, centre: refine(name, image, heatmap, centre=centre)


def rgb(image: Floats) -> npt.NDArray[np.uint8]:
    """Return an image as (H, W, 3) bytes."""
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels[..., :1], 3, axis=2)


def grabcut(image: Floats, heatmap: Floats, centre: float) -> Floats:
    """Cut by colour models of what is hot and cold; the heat stays in part, so that there are levels."""
    labels = np.full(heatmap.shape, cv2.GC_PR_BGD, np.uint8)
    labels[heatmap >= centre] = cv2.GC_PR_FGD
    labels[heatmap >= 0.8] = cv2.GC_FGD
    labels[heatmap < 0.03] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(rgb(image), labels, (0, 0, 1, 1), *models, 5, cv2.GC_INIT_WITH_MASK)
    cut = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    mean: Floats = ((cut + heatmap) / 2).astype(np.float32)
    return mean


def guided(image: Floats, heatmap: Floats, centre: float) -> Floats:
    """Filter by the grey image as guide (He et al., 2013)."""
    guide = image.mean(axis=2)
    radius = 2 * round(0.06 * max(heatmap.shape)) + 1

    def mean(values: Floats) -> Floats:
        return np.asarray(cv2.blur(values, (radius, radius)), dtype=np.float32)

    slope = (mean(guide * heatmap) - mean(guide) * mean(heatmap)) / (
        mean(guide * guide) - mean(guide) ** 2 + 1e-3
    )
    offset = mean(heatmap) - slope * mean(guide)
    filtered: Floats = np.clip(mean(slope) * guide + mean(offset), 0, 1).astype(np.float32)
    return filtered


def joint_bilateral(image: Floats, heatmap: Floats, centre: float) -> Floats:
    """Average the heat over what is near in place and colour: one iteration of the field, without the heat itself."""
    from segmentation.refine import _BilateralKernel

    kernel = _BilateralKernel(image, 0.08 * max(heatmap.shape), 13.0)
    ones = kernel(np.ones(heatmap.size))
    return (kernel(heatmap.ravel().astype(float)) / ones).reshape(heatmap.shape).astype(np.float32)


REFINERS: dict[str, Refiner] = {
    "none": named("none"),
    "crf": named("crf"),
    "centred-crf": named("centred-crf"),
    "diffusion": named("diffusion"),
    "grabcut": grabcut,
    "guided filter": guided,
    "joint bilateral": joint_bilateral,
}
if importlib.util.find_spec("pydensecrf"):
    REFINERS["pydensecrf"] = named("pydensecrf")


def dice_at(heatmap: Floats, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the Dice (L,) of every level."""
    hot = heatmap.size - np.searchsorted(np.sort(heatmap, axis=None), LEVELS)
    right = mask.sum() - np.searchsorted(np.sort(heatmap[mask]), LEVELS)
    return np.asarray(2 * right / (hot + mask.sum()))


def measure(title: str, cases: Iterable[Case], only: list[str] | None) -> None:
    """Print a table: the sigma of GazeMedSeg's kind and the default's, every refiner."""
    scores: dict[tuple[str, str], list[npt.NDArray[np.float64]]] = {}
    for case in cases:
        known = case.fixations.degrees_per_px is not None
        for sigma in ("degrees", "spread"):
            settings = PseudoMaskSettings(sigma=sigma, refine="none")
            made = make_pseudomask(case.image, [replace(case.fixations)], settings, "target")
            if made is None:
                continue
            preset = PRESETS[sigma if known or sigma == "spread" else WITHOUT_GEOMETRY]
            for name, refiner in REFINERS.items():
                if only is None or name in only:
                    refined = refiner(case.image, made.heatmap, preset.centre)
                    scores.setdefault((sigma, name), []).append(dice_at(refined, case.mask))
    count = len(next(iter(scores.values())))
    sys.stdout.write(
        f"\n{title}: {count} images, gaze simulated from masks, mean Dice\n"
        f"  {'sigma':<10}{'refiner':<17}{'level':>6}{'others':>8}{'all':>7}   at 0.5  0.4  0.35  0.3  0.25  0.15\n"
    )
    shown = [int(np.abs(LEVELS - level).argmin()) for level in (0.5, 0.4, 0.35, 0.3, 0.25, 0.15)]
    for (sigma, name), found in scores.items():
        table = np.array(found)
        best = table[::2].mean(axis=0).argmax()
        mean = table.mean(axis=0)
        sys.stdout.write(
            f"  {sigma:<10}{name:<17}{LEVELS[best]:>6.3f}{table[1::2].mean(axis=0)[best]:>8.3f}{mean.max():>7.3f}   "
            + " ".join(f"{mean[place]:.3f}" for place in shown)
            + "\n"
        )
    sys.stdout.flush()


def speed(image: Floats, heatmap: Floats) -> None:
    """Print the milliseconds for 512 x 512, the best of three."""
    pixels, heat = resize(image, 512, 512), resize(heatmap, 512, 512)
    sys.stdout.write("\nms for 512 x 512, one core, best of three\n")
    for name, refiner in REFINERS.items():
        spent = []
        for _ in range(3):
            begun = time.process_time()
            refiner(pixels, heat, 0.25)
            spent.append(time.process_time() - begun)
        sys.stdout.write(f"  {name:<17}{1000 * min(spent):>7.0f}\n")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--only", nargs="+", choices=REFINERS)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        drawn = list(phantoms(args.images, Path(folder), 0.2))
    first = make_pseudomask(drawn[0].image, [drawn[0].fixations], PseudoMaskSettings(refine="none"), "target")
    assert first is not None
    speed(drawn[0].image, first.heatmap)
    if SHARED.is_dir():
        case = next(iter(kvasir_every(1)))
        made = make_pseudomask(case.image, [case.fixations], PseudoMaskSettings(refine="none"), "target")
        assert made is not None
        speed(case.image, made.heatmap)
        measure("Kvasir-SEG train", kvasir_every(args.images), args.only)
    measure("Phantoms (polyp, lesion), 160 px", drawn, args.only)


if __name__ == "__main__":
    main()
