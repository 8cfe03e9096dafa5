"""When the enough-gaze meter says enough, and what stopping there costs; gaze simulated from Kvasir-SEG's train masks.

Run with: python -m tests.benchmarks.enough_gaze_kvasir FOLDER_OF_MASKS [--every N] [--search]
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from gaze_capture.fixations import Fixations, fixations_of
from gaze_capture.simulate import ImageToLookAt, SyntheticClinician, simulate_sitting
from segmentation.dwell import dwell_density, normalise
from segmentation.enough_gaze import EnoughGaze, EnoughRule
from segmentation.images import decode_mask
from segmentation.pseudomask import (
    PRESETS,
    PseudoMaskSettings,
    kernel_px,
    levels_of,
)

Bools = npt.NDArray[np.bool_]
PER_SITTING = 50
FALSE_STOP_IOU = 0.7


@dataclass(frozen=True)
class Look:
    """A whole look: fixations inside the image, and the true mask."""

    xy_px: npt.NDArray[np.float64]
    start_ms: npt.NDArray[np.float64]
    duration_ms: npt.NDArray[np.float64]
    sigma_px: tuple[float, float]
    viewing_ms: float
    mask: Bools
    known: dict[int, Bools] = field(default_factory=dict)

    def levels(self, count: int) -> Bools:
        """Masks (2, H, W) of the highest and lowest level after so many fixations."""
        if count not in self.known:
            self.known[count] = self._levels(count)
        return self.known[count]

    def _levels(self, count: int) -> Bools:
        sigma = np.tile(self.sigma_px, (count, 1))
        density = dwell_density(self.xy_px[:count], self.duration_ms[:count], sigma, self.mask.shape)
        thresholds = PRESETS["degrees"].thresholds
        reached = levels_of(normalise(density), thresholds)
        return np.stack([reached >= len(thresholds), reached >= 1])


@dataclass(frozen=True)
class Stop:
    """Where a rule stops, and what the masks are then."""

    seconds: float
    share: float
    core_iou: float
    broad_iou: float
    dice: float
    dice_at_end: float
    lesion_lost: bool


def looks_at(folder: Path, every: int, seed: int) -> list[Look]:
    """Simulate a look at every n-th mask of a folder."""
    paths = sorted(folder.iterdir())[::every]
    looks: list[Look] = []
    with tempfile.TemporaryDirectory() as scratch:
        for sitting, start in enumerate(range(0, len(paths), PER_SITTING)):
            masks = {path.stem: decode_mask(path) for path in paths[start : start + PER_SITTING]}
            shown = [ImageToLookAt(name, mask.shape, mask) for name, mask in masks.items()]
            clinician = SyntheticClinician(seed=seed)
            recording = simulate_sitting(
                Path(scratch) / f"{seed}-{sitting}", shown, clinician, sitting=sitting
            )
            looks += [look_of(item, masks[item.image_id]) for item in fixations_of(recording)]
    return [look for look in looks if len(look.xy_px) and look.mask.any()]


def look_of(item: Fixations, mask: Bools) -> Look:
    """Keep what counts for heatmaps."""
    settings = PseudoMaskSettings()
    height, width = mask.shape
    own = (
        (item.duration_ms >= settings.minimum_duration_ms)
        & (item.start_ms >= 0)
        & (np.rint(item.xy_px) >= 0).all(axis=1)
        & (np.rint(item.xy_px) <= [width - 1, height - 1]).all(axis=1)
    )
    sigma = kernel_px(settings, (height, width), item.degrees_per_px, item.accuracy_deg)
    return Look(item.xy_px[own], item.start_ms[own], item.duration_ms[own], sigma, item.viewing_ms, mask)


def iou(one: Bools, other: Bools) -> float:
    """Return intersection over union; 1 for two empty masks."""
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0


def dice(one: Bools, other: Bools) -> float:
    """Return the Dice coefficient."""
    total = one.sum() + other.sum()
    return float(2 * (one & other).sum() / total) if total else 1.0


def stop_of(look: Look, rule: EnoughRule) -> Stop | None:
    """Return where a rule stops in a look, or None where it never does."""
    meter = EnoughGaze(look.mask.shape, look.sigma_px, PRESETS["degrees"].thresholds, rule)
    for number, ((x, y), duration) in enumerate(zip(look.xy_px, look.duration_ms, strict=True), start=1):
        if not meter.add(float(x), float(y), float(duration)).enough:
            continue
        then, end = look.levels(number), look.levels(len(look.xy_px))
        parts, count = ndimage.label(look.mask, structure=np.ones((3, 3)))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        lost = any(
            (end[1] & (parts == part)).any() and not (then[1] & (parts == part)).any()
            for part in range(1, count + 1)
            if sizes[part - 1] >= 0.1 * sizes.max()
        )
        seconds = (look.start_ms[number - 1] + duration) / 1000
        return Stop(
            seconds,
            seconds * 1000 / look.viewing_ms,
            iou(then[0], end[0]),
            iou(then[1], end[1]),
            dice(then[1], look.mask),
            dice(end[1], look.mask),
            lost,
        )
    return None


def row(rule: EnoughRule, looks: list[Look]) -> str:
    """Return a line of the table."""
    stops = [stop_of(look, rule) for look in looks]
    said = [stop for stop in stops if stop is not None]
    name = (
        f"{rule.minimum_ms / 1000:4.1f} s {rule.kernel_ms / 1000:3.1f} s {rule.minimum_fixations:3d} "
        f"{rule.look_back_ms / 1000:4.1f} s {rule.broad_iou:4.2f} {rule.core_iou:4.2f} {rule.agreeing:2d}"
    )
    if not said:
        return f"{name}  never"
    columns = np.array([[s.seconds, s.share, s.core_iou, s.broad_iou, s.dice, s.dice_at_end] for s in said])
    mean = columns.mean(axis=0)
    early = np.mean([stop.broad_iou < FALSE_STOP_IOU for stop in said])
    lost = np.mean([stop.lesion_lost for stop in said])
    latest = np.percentile(columns[:, 0], 90)
    return (
        f"{name}  {len(said) / len(looks):4.0%}  {mean[0]:5.2f} s ({latest:5.2f})  {mean[1]:4.0%}  {mean[2]:.3f}  "
        f"{mean[3]:.3f}  {mean[4]:.3f}  {mean[5]:.3f}  {early:5.1%}  {lost:5.1%}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("masks", type=Path)
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    looks = looks_at(args.masks, args.every, args.seed)
    full = np.mean([look.viewing_ms for look in looks]) / 1000
    sys.stdout.write(
        f"{len(looks)} looks simulated from masks, {full:.1f} s on average; levels of the plain heatmap\n"
        "dwell  kern. fix. back   broad core n  says  after (90 %)     of look  IoU core, broad with the end's  "
        f"Dice then, at end  IoU < {FALSE_STOP_IOU}  lesion lost\n"
    )
    rules = [EnoughRule()]
    if args.search:
        values = itertools.product((1000.0, 1250.0), (1500.0, 2000.0), (0.75, 0.8, 0.85, 0.88), (2, 3))
        rules += [EnoughRule(3000.0, k, 8, back, b, 0.6, a) for k, back, b, a in values]
    for rule in rules:
        sys.stdout.write(row(rule, looks) + "\n")
        sys.stdout.flush()
    meter = EnoughGaze((1080, 1440), (90.0, 90.0), PRESETS["degrees"].thresholds)
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 1000, (2000, 2)).tolist()
    spent = []
    for x, y in places:
        begun = time.perf_counter()
        meter.add(x, y, 250.0)
        spent.append(time.perf_counter() - begun)
    sys.stdout.write(
        f"one update: {np.median(spent) * 1e3:.3f} ms median, {np.percentile(spent, 99) * 1e3:.3f} ms at 99 %\n"
    )


if __name__ == "__main__":
    main()
