"""Pseudo-masks of images with several lesions: one peak for all gaze, or one for each region looked at.

Phantoms, and Kvasir-SEG training images where the shared data is at hand. All gaze is simulated from masks.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from gaze_capture.fixations import Fixations, fixations_of
from gaze_capture.simulate import ImageToLookAt, SyntheticClinician, saliency, simulate_sitting
from segmentation.images import decode_mask, read_image
from segmentation.metrics import dice
from segmentation.phantoms import make_phantom
from segmentation.pseudomask import Lesions, PseudoMaskSettings, make_pseudomask

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "kvasir_seg" / "train"
LEVELS = (0.5, 0.35, 0.25, 0.15)
RULES: tuple[Lesions, ...] = ("together", "clusters")

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """An image with its mask and the gaze drawn from it."""

    image: npt.NDArray[np.float32]
    mask: Mask
    fixations: Fixations


def parts(mask: Mask) -> list[Mask]:
    """Return the mask's connected parts of at least a tenth of the largest."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return [labels == index + 1 for index in range(count) if sizes[index] >= 0.1 * sizes.max()]


def phantoms(count: int, folder: Path, false_attractors: float) -> Iterator[Case]:
    """Draw phantoms of the kinds that may hold several lesions, and let the synthetic clinician look at them."""
    clinician = SyntheticClinician(missed_second=0.0, false_attractors=false_attractors)
    drawn = [make_phantom(seed, ("polyp", "lesion")[seed % 2], 160, absent_share=0) for seed in range(count)]
    for sitting, start in enumerate(range(0, count, 50)):
        batch = drawn[start : start + 50]
        looked_at = [
            ImageToLookAt(str(number), one.mask.shape, one.mask, saliency(one.image / 255))
            for number, one in enumerate(batch)
        ]
        recording = simulate_sitting(folder / str(sitting), looked_at, clinician, sitting=sitting)
        for one, fixations in zip(batch, fixations_of(recording), strict=True):
            yield Case((one.image / 255).astype(np.float32), one.mask, fixations)


def kvasir(count: int) -> Iterator[Case]:
    """Read training images with the fixations that were simulated for them, half of them with several parts."""
    paths = sorted((SHARED / "masks").iterdir())
    several = [path for path in paths if len(parts(decode_mask(path))) > 1][: count // 2]
    single = [path for path in paths if path not in several][: count - len(several)]
    yield from _read(several + single)


def kvasir_every(count: int) -> Iterator[Case]:
    """Read so many training images, evenly spaced, with the fixations that were simulated for them."""
    paths = sorted((SHARED / "masks").iterdir())
    yield from _read(paths[:: max(1, len(paths) // count)][:count])


def _read(paths: list[Path]) -> Iterator[Case]:
    rows: dict[str, list[list[float]]] = {}
    with open(SHARED / "fixations.csv", newline="") as stream:
        for row in csv.DictReader(stream):
            names = ("X", "Y", "DURATION", "START")
            rows.setdefault(row["IMAGE"], []).append([float(row[f"CURRENT_FIX_{name}"]) for name in names])
    for path in paths:
        mask = decode_mask(path)
        table = np.array(rows[path.stem])
        xy_px = table[:, :2] * [mask.shape[1], mask.shape[0]] - 0.5
        unknown = np.full(len(table), np.nan)
        yield Case(
            read_image(next((SHARED / "images").glob(f"{path.stem}.*"))),
            mask,
            Fixations(path.stem, "polyp", "simulated", "kvasir", table[:, 3], table[:, 2], xy_px, unknown,
                      "imported", simulated_from="masks"),
        )  # fmt: skip


def measure(name: str, cases: Iterator[Case]) -> None:
    """Print the Dice of every level, apart for images with one and with several lesions."""
    scores: dict[tuple[str, str, float], list[float]] = {}
    found: dict[tuple[str, str], list[float]] = {}
    told: dict[str, list[int]] = {}
    spent = dict.fromkeys(RULES, 0.0)
    for case in cases:
        lesions = parts(case.mask)
        group = "one lesion" if len(lesions) == 1 else "several"
        for rule in RULES:
            begun = time.perf_counter()
            settings = PseudoMaskSettings("degrees", thresholds=LEVELS, refine="crf", lesions=rule)
            made = make_pseudomask(case.image, [replace(case.fixations)], settings, "target")
            spent[rule] += time.perf_counter() - begun
            if made is None:
                continue
            for threshold, mask in zip(made.thresholds, made.masks, strict=True):
                scores.setdefault((group, rule, threshold), []).append(dice(mask, case.mask))
            smallest = min(lesions, key=np.count_nonzero)
            found.setdefault((group, rule), []).append(float(made.masks[1][smallest].mean()))
            if rule == "clusters":
                told.setdefault(group, []).append(int(made.notes["lesions"]))
    head = "".join(f"  Dice {level:4.2f}" for level in LEVELS)
    sys.stdout.write(
        f"\n{name}, dense CRF, gaze simulated from masks\n  {'':<24}{'n':>4}{head}  smallest covered at 0.35\n"
    )
    for group in ("one lesion", "several"):
        for rule in RULES:
            if (group, rule, LEVELS[0]) in scores:
                means = "".join(f"  {np.mean(scores[group, rule, level]):9.3f}" for level in LEVELS)
                sys.stdout.write(
                    f"  {group:<12}{rule:<12}{len(scores[group, rule, LEVELS[0]]):>4}{means}"
                    f"  {np.mean(found[group, rule]):9.3f}\n"
                )
    for group, counts in told.items():
        sys.stdout.write(f"  clusters told apart, {group}: {np.mean(counts):.2f} on average\n")
    sys.stdout.write(f"  seconds: {', '.join(f'{rule} {spent[rule]:.0f}' for rule in RULES)}\n")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    count = 40 if parser.parse_args().quick else 300
    with tempfile.TemporaryDirectory() as folder:
        measure("Phantoms (polyp, lesion), 160 px", phantoms(count, Path(folder) / "sure", 0.0))
        measure(
            "The same, the clinician led astray in every second",
            phantoms(count, Path(folder) / "astray", 0.5),
        )
    if SHARED.is_dir():
        measure("Kvasir-SEG train, 352 px", kvasir(count))


if __name__ == "__main__":
    main()
