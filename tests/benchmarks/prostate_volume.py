"""Volumes with two nested targets: a sitting that scrolls, zooms and pans, and what is learned of simulated gaze.

First a synthetic eye follows a script through made-up prostates, slice by slice; every scroll, zoom and pan is a
placement of its own. The fixations found are held against the script: are they on the slice that was shown, and how
far from where the eye was told to look? Then other volumes go from gaze simulated from masks to a student of both
zones.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gaze_capture.fixations import fixations_of
from gaze_capture.recording import Floats, Placement
from gaze_capture.recording_codec import RecordingHeader, RecordingWriter, read_recording
from gaze_capture.simulate import DESK_SCREEN
from gaze_capture.synthetic_eye import Script, TrackerQuality, measure
from segmentation import steps
from segmentation.evaluation import Spread
from segmentation.metrics import dice
from segmentation.presets import preset
from segmentation.records import StudyImage, new_id
from segmentation.study import TEST_SPLIT, Study
from tests.volume_helpers import prostate_study

RATE_HZ = 120.0
LAG_MS = 150.0
"""How long the eye stays where it was after the view has changed."""
PERFECT = TrackerQuality(rms_s2s_deg=0, drift_deg=0, blinks_per_minute=0, dropouts=0)
USUAL = TrackerQuality()
USUAL_BIAS_DEG = 0.25


@dataclass(frozen=True)
class View:
    """One slice as it is shown for a while."""

    image_id: str
    scale: float
    """Screen pixels an image pixel."""
    left: float
    """Where the outer corner of the first pixel lies on the screen."""
    top: float

    def screen_px(self, image_px: Floats) -> Floats:
        """Map image pixels (..., 2), centres at whole numbers, to the screen."""
        mapped: Floats = (image_px + 0.5) * self.scale + [self.left, self.top]
        return mapped

    def image_px(self, screen_px: Floats) -> Floats:
        """Invert :meth:`screen_px`."""
        mapped: Floats = (screen_px - [self.left, self.top]) / self.scale - 0.5
        return mapped

    @property
    def image_from_screen(self) -> Floats:
        """Return the same as the 3x3 matrix that a placement carries."""
        s = 1 / self.scale
        return np.array([[s, 0, -self.left * s - 0.5], [0, s, -self.top * s - 0.5], [0, 0, 1]])


@dataclass(frozen=True)
class Sitting:
    """What the eye is told to do, and when what is shown."""

    script: Script
    views: tuple[View, ...]
    onset_ms: Floats
    """(V,) when each view appears; each ends where the next begins."""
    end_ms: float


def scroll(study: Study, images: Sequence[StudyImage], rng: np.random.Generator) -> Sitting:
    """Plan a sitting through slices in order, and some of the way back: fitted, zoomed, and moved aside."""
    size = images[0].shape[0]
    fitted = 0.9 * DESK_SCREEN.height_px / size
    middle = np.array([DESK_SCREEN.width_px, DESK_SCREEN.height_px]) / 2
    order = [*range(len(images)), *range(len(images) - 2, len(images) // 2, -3)]
    views: list[View] = []
    first_rest: list[int] = []
    points: list[Floats] = []
    durations: list[float] = []
    for index in order:
        mask = study.true_mask(images[index].id, "gland")
        assert mask is not None
        places = np.argwhere(mask)[:, ::-1] if mask.any() else np.array([[size // 2, size // 2]])
        for zoom in (1.0, rng.uniform(1.4, 2.0), None):
            scale = fitted * zoom if zoom else views[-1].scale
            aim = places[rng.integers(len(places))] + 0.5 if zoom != 1.0 else np.full(2, size / 2)
            corner = middle - aim * scale
            view = View(images[index].id, scale, *np.round(corner).tolist())
            first_rest.append(len(points))
            views.append(view)
            for _ in range(int(rng.integers(1, 4))):
                place = places[rng.integers(len(places))] + rng.normal(0, 2, 2)
                points.append(view.screen_px(place))
                durations.append(rng.uniform(220, 600))
    normalised = np.array(points) / [DESK_SCREEN.width_px, DESK_SCREEN.height_px]
    script = Script(DESK_SCREEN.degrees_from_normalised(normalised), np.array(durations))
    # The view changes while the eye still rests on the last place of the view before.
    rest_end = script.start_ms + script.duration_ms
    onset = np.array([0.0 if rest == 0 else rest_end[rest - 1] - LAG_MS for rest in first_rest])
    return Sitting(script, tuple(views), onset, script.end_ms)


def record(folder: Path, sitting: Sitting, quality: TrackerQuality, bias_deg: Floats, seed: int) -> None:
    """Record a sitting as the window would."""
    first_ns = 5_000_000_000
    time_ms = np.arange(0, sitting.end_ms + 50, 1000 / RATE_HZ)
    time_ns = first_ns + np.round(time_ms * 1e6).astype(np.int64)
    rng = np.random.default_rng([seed, 7])
    samples = measure(sitting.script.track(time_ms) + bias_deg, time_ns, time_ns, DESK_SCREEN, quality, rng)
    header = RecordingHeader(
        folder.name,
        "synthetic",
        "simulated",
        DESK_SCREEN,
        "2026-01-01T00:00:00+00:00",
        simulated_from="masks",
    )
    ends = [*sitting.onset_ms[1:], sitting.end_ms]
    screen = (0, 0, DESK_SCREEN.width_px, DESK_SCREEN.height_px)
    with RecordingWriter(folder, header) as writer:
        written = 0
        for view, onset, end in zip(sitting.views, sitting.onset_ms, ends, strict=True):
            start_ns = first_ns + round(float(onset) * 1e6)
            placement = Placement(view.image_id, "gland", start_ns, start_ns, view.image_from_screen, screen)
            number = writer.start_placement(placement)
            until = int(np.searchsorted(time_ms, end))
            writer.add_samples(samples[written:until])
            written = until
            writer.end_placement(number, first_ns + round(float(end) * 1e6))
        writer.add_samples(samples[written:])


@dataclass(frozen=True)
class Found:
    """What came of a sitting's fixations."""

    fixations: int
    right_slice: int
    error_px: Floats
    """(F,) distance in image pixels from where the eye was told to look."""
    error_deg: Floats
    """(F,) the same on the screen."""
    rests: int
    rests_found: int


def compare(folder: Path, sitting: Sitting) -> Found:
    """Hold the fixations of a recorded sitting against its script."""
    recording = read_recording(folder)
    origin_ns = int(recording.time_ns[0])
    script = sitting.script
    starts = script.start_ms
    right, errors, degrees, rests = 0, [], [], set()
    for placement, item in zip(recording.placements, fixations_of(recording), strict=True):
        onset = (placement.start_ns - origin_ns) / 1e6
        begin = onset + np.maximum(item.start_ms, 0)
        for middle, xy in zip(begin + item.duration_ms / 2, item.xy_px, strict=True):
            view = sitting.views[int(np.searchsorted(sitting.onset_ms, middle, side="right")) - 1]
            right += item.image_id == view.image_id
            rest = int(np.searchsorted(starts, middle, side="right")) - 1
            rests.add(rest)
            told = script.xy_deg[rest]
            screen_px = DESK_SCREEN.normalised_from_degrees(told) * [
                DESK_SCREEN.width_px,
                DESK_SCREEN.height_px,
            ]
            off_px = float(np.hypot(*(xy - view.image_px(screen_px))))
            errors.append(off_px)
            degrees.append(off_px * view.scale * DESK_SCREEN.degrees_per_screen_px)
    return Found(len(errors), right, np.array(errors), np.array(degrees), len(starts), len(rests))


def sittings(study: Study, folder: Path) -> None:
    """Print how fixations of scrolling sittings compare with their scripts."""
    sys.stdout.write(
        f"Scrolling sittings, {RATE_HZ:g} Hz; the view changes {LAG_MS:g} ms before the eye leaves\n"
        "  tracker   placements  fixations  rests found  right slice   error px: median   95 %    max   "
        "error deg: median   max\n"
    )
    for name, quality, bias in (("perfect", PERFECT, 0.0), ("usual", USUAL, USUAL_BIAS_DEG)):
        results, placements = [], 0
        for number, image_ids in enumerate(study.volumes.values()):
            rng = np.random.default_rng([number, 11])
            sitting = scroll(study, [study.image(image_id) for image_id in image_ids], rng)
            path = folder / f"{new_id('rec-')}-{name}"
            record(path, sitting, quality, rng.normal(0, bias, 2) if bias else np.zeros(2), number)
            results.append(compare(path, sitting))
            placements += len(sitting.views)
        px, deg = (
            np.concatenate([getattr(one, kind) for one in results]) for kind in ("error_px", "error_deg")
        )
        count = sum(one.fixations for one in results)
        share = sum(one.right_slice for one in results) / count
        rests = sum(one.rests_found for one in results) / sum(one.rests for one in results)
        sys.stdout.write(
            f"  {name:<9}{placements:>11}{count:>11}{rests:>13.1%}{share:>13.2%}{np.median(px):>19.2f}"
            f"{np.percentile(px, 95):>7.2f}{px.max():>7.2f}{np.median(deg):>20.3f}{deg.max():>6.2f}\n"
        )
    sys.stdout.flush()


def learn(study: Study, length: dict[str, float]) -> None:
    """Print what a student learns of both zones from gaze simulated from masks."""
    begun = time.monotonic()
    simulated = steps.simulate(study, split="train")
    made = steps.make_pseudomasks(study, split="train")
    steps.explain(study, split="train")
    sys.stdout.write(
        f"\n{simulated.images} looks simulated from masks, {made.made} pseudo-masks, {made.absent} absent\n"
    )
    for target in study.targets:
        scores: dict[float, list[float]] = {}
        for image in study.images_of("train"):
            pseudomask = study.pseudomask(image.id, target.id)
            truth = study.true_mask(image.id, target.id)
            if pseudomask is not None and truth is not None:
                for threshold, mask in zip(pseudomask.thresholds, pseudomask.masks, strict=True):
                    scores.setdefault(threshold, []).append(dice(mask, truth))
        levels = ", ".join(f"{level:g}: {Spread.of(found).mean:.3f}" for level, found in scores.items())
        sys.stdout.write(f"  pseudo-mask Dice of {target.id} by level: {levels}\n")
    result = steps.train(study, preset("gaze-to-insight", "phantom", **length))
    steps.predict(study, result.run, split=TEST_SPLIT)
    measured = steps.evaluate(study, result.run, split=TEST_SPLIT)
    sys.stdout.write(
        f"Student of {', '.join(result.targets)}, {result.iterations} iterations in {result.seconds:.0f} s; "
        f"normalisation {result.normalisation}\n{measured.to_text()}\n{time.monotonic() - begun:.0f} s\n"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small volumes and 160 iterations")
    quick = parser.parse_args().quick
    train, test = (4, 2) if quick else (10, 4)
    length = {"iterations": 160, "max_minutes": 2.0} if quick else {"iterations": 1400, "max_minutes": 3.2}
    shape = (12, 96, 96) if quick else (24, 128, 128)
    with tempfile.TemporaryDirectory() as folder:
        looked_at = prostate_study(
            Path(folder) / "sittings", {"train": range(900, 902 if quick else 906)}, shape
        )
        sittings(looked_at, Path(folder) / "recordings")
        study = prostate_study(
            Path(folder) / "study", {"train": range(train), TEST_SPLIT: range(500, 500 + test)}, shape
        )
        learn(study, length)


if __name__ == "__main__":
    main()
