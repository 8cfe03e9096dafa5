"""Agreement of the fixation detectors with two human coders, at three rates and noises, with cross-validation.

Data: the seven image trials of Lund 2013 in ``shared/data``, each labelled sample by sample by two experts. Measures:
Cohen's kappa of samples, fixation against the rest, and F1 of fixations matched at an intersection over union of one
half; each the mean over the two coders, then over trials.

Slower and noisier trackers are made of the same trials: every k-th sample is kept, k being the whole number nearest to
the trial's own rate (six have 500 Hz, UH47 has 200 Hz) over the rate asked for, and white normal noise is added to both
axes. Two readings of "noise of 0.2 deg" are measured: a standard deviation of 0.2 deg in each axis (the stricter; its
RMS-S2S is 0.4 deg), and an RMS-S2S of 0.2 deg (0.1 deg in each axis). Rows "same k" keep every 4th and 8th sample of
UH47, too, which leaves 50 and 25 Hz of it.

Cross-validation: the parameters that were tuned are chosen anew from a small grid on the other trials, all
conditions at once, and the trial left out is scored with them; once leaving out single trials, once all trials of one
picture.

Run: ``python -m tests.benchmarks.lund_agreement [--quick] [--seeds N]``
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.io

from gaze_capture.detectors import PRESETS, AdaptiveIVT, Parameters, detect_fixations
from gaze_capture.recording import Floats, ScreenGeometry

LUND = Path(__file__).parents[3] / "shared/data/gaze/lund2013"
FIXATION = 1
GEOMETRY = ScreenGeometry(1024, 768, 380.0, 300.0, 670.0)

GRID = {
    "jump_deg": (0.5, 0.6, 0.7, 0.8),
    "merge_sigmas": (4.0, 4.5, 5.0),
    "level_ms": (200.0, 300.0),
    "border_sigmas": (3.0, 4.0),
    "oscillation_ms": (20.0, 25.0, 30.0),
}
"""What was tuned on these trials, and among which values."""
CHOICE_SEEDS = 2
"""Noises that a cross-validated choice sees; the trial left out is scored with all."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Trial:
    """One trial (N samples) and the coders' masks of fixation."""

    name: str
    time_ms: Floats
    xy_deg: Floats
    coders: tuple[Bools, Bools]

    @property
    def picture(self) -> str:
        """Name of the picture looked at."""
        return self.name.split("_")[2]


@dataclass(frozen=True)
class Condition:
    """A simulated tracker."""

    label: str
    rate_hz: float
    sigma_deg: float
    """Standard deviation of the noise in each axis."""
    yardstick: tuple[float, float]
    """Kappa and event F1 of the adaptive I-VT that is to be beaten."""

    def step(self, trial: Trial, same: bool) -> int:
        """Return k, of which every k-th sample is kept."""
        own = 500.0 if same else 1000 / float(np.median(np.diff(trial.time_ms)))
        return max(1, round(own / self.rate_hz))


CONDITIONS = (
    Condition("500 Hz", 500, 0.0, (0.755, 0.923)),
    Condition("120 Hz, S2S .2", 120, 0.1, (0.741, 0.898)),
    Condition("120 Hz, sd .2", 120, 0.2, (0.741, 0.898)),
    Condition("60 Hz, S2S .4", 60, 0.2, (0.663, 0.864)),
    Condition("60 Hz, sd .4", 60, 0.4, (0.663, 0.864)),
)


def trials(folder: Path = LUND) -> list[Trial]:
    """Read all trials; the eye that was not seen has the position NaN."""
    found = []
    for path in sorted(folder.glob("*_labelled_MN.mat")):
        first, second = (
            scipy.io.loadmat(name, squeeze_me=True, struct_as_record=False)["ETdata"].pos
            for name in (path, path.with_name(path.name.replace("_MN", "_RA")))
        )
        xy_px = first[:, 3:5].copy()
        xy_px[(xy_px == 0).all(axis=1)] = np.nan
        found.append(
            Trial(
                path.name.removesuffix("_labelled_MN.mat"),
                first[:, 0] / 1000,
                GEOMETRY.degrees_from_normalised(xy_px / [GEOMETRY.width_px, GEOMETRY.height_px]),
                (first[:, 5] == FIXATION, second[:, 5] == FIXATION),
            )
        )
    return found


def kappa(left: Bools, right: Bools) -> float:
    """Cohen's kappa of two masks."""
    agreed = float((left == right).mean())
    chance = float(left.mean() * right.mean() + (1 - left.mean()) * (1 - right.mean()))
    return (agreed - chance) / (1 - chance)


def event_f1(left: Bools, right: Bools) -> float:
    """F1 of runs of True, matched one to one where their intersection is at least half of their union."""
    mine, theirs = (
        np.flatnonzero(np.diff(mask.astype(int), prepend=0, append=0)).reshape(-1, 2)
        for mask in (left, right)
    )
    if not len(mine) or not len(theirs):
        return float(len(mine) == len(theirs))
    common = np.minimum.outer(mine[:, 1], theirs[:, 1]) - np.maximum.outer(mine[:, 0], theirs[:, 0])
    either = np.maximum.outer(mine[:, 1], theirs[:, 1]) - np.minimum.outer(mine[:, 0], theirs[:, 0])
    # From one half on, at most one run of the other side can match.
    return 2 * float((common >= 0.5 * either).any(axis=1).sum()) / (len(mine) + len(theirs))


def score(
    trial: Trial, condition: Condition, parameters: Parameters, seeds: int, *, same: bool = False
) -> Floats:
    """Return kappa and event F1 (2,) of a trial: means over both coders and all noises."""
    step = condition.step(trial, same)
    time_ms, clean = trial.time_ms[::step], trial.xy_deg[::step]
    coders = [coder[::step] for coder in trial.coders]
    scores = []
    for seed in range(seeds if condition.sigma_deg else 1):
        # The name makes the noise of one trial another than that of the next.
        rng = np.random.default_rng([seed, *trial.name.encode()])
        found = detect_fixations(time_ms, clean + rng.normal(0, condition.sigma_deg, clean.shape), parameters)
        ours = np.zeros(len(clean), dtype=np.bool_)
        for start, stop in zip(found.start, found.stop, strict=True):
            ours[start:stop] = True
        scores += [(kappa(ours, coder), event_f1(ours, coder)) for coder in coders]
    mean: Floats = np.mean(scores, axis=0)
    return mean


def score_all(data: Sequence[Trial], parameters: Parameters, seeds: int, *, same: bool = False) -> Floats:
    """Return (conditions, trials, 2) kappa and event F1."""
    return np.array(
        [
            [score(trial, condition, parameters, seeds, same=same) for trial in data]
            for condition in CONDITIONS
        ]
    )


def human_scores(data: Sequence[Trial]) -> Floats:
    """Return (conditions, trials, 2) agreement of the coders with each other."""
    return np.array(
        [
            [
                (kappa(*pair), event_f1(*pair))
                for trial in data
                for pair in [[coder[:: condition.step(trial, False)] for coder in trial.coders]]
            ]
            for condition in CONDITIONS
        ]
    )


def cross_validated(data: Sequence[Trial], seeds: int) -> list[tuple[str, Floats, list[str]]]:
    """Return, a way of leaving out, its name, the scores (conditions, trials, 2) and what was chosen."""
    candidates = [
        AdaptiveIVT(**dict(zip(GRID, values, strict=True))) for values in itertools.product(*GRID.values())
    ]
    table = np.array([score_all(data, candidate, min(CHOICE_SEEDS, seeds)) for candidate in candidates])
    final: dict[int, Floats] = {}
    results = []
    for label, groups in (
        ("trial", [trial.name for trial in data]),
        ("picture", [trial.picture for trial in data]),
    ):
        scores = np.empty((len(CONDITIONS), len(data), 2))
        chosen = []
        for group in dict.fromkeys(groups):
            out = np.array([name == group for name in groups])
            best = int(table[:, :, ~out].mean(axis=(1, 2, 3)).argmax())
            if best not in final:
                final[best] = score_all(data, candidates[best], seeds)
            scores[:, out] = final[best][:, out]
            values = ", ".join(f"{name} {getattr(candidates[best], name):g}" for name in GRID)
            chosen.append(f"{group}: {values}")
        results.append((label, scores, chosen))
    return results


def samples_per_second(data: Sequence[Trial], parameters: Parameters, condition: Condition) -> float:
    """Return how many samples a second are worked through, on all trials of a condition, twenty times in a row."""
    parts = []
    for trial in data:
        step = condition.step(trial, False)
        noise = np.random.default_rng(0).normal(0, condition.sigma_deg, trial.xy_deg[::step].shape)
        parts.append((trial.time_ms[::step] - trial.time_ms[0], trial.xy_deg[::step] + noise))
    time_ms = np.concatenate([part[0] + 20_000.0 * number for number, part in enumerate(parts * 20)])
    xy_deg = np.concatenate([part[1] for part in parts * 20])
    detect_fixations(time_ms, xy_deg, parameters)
    started = time.perf_counter()
    detect_fixations(time_ms, xy_deg, parameters)
    return len(time_ms) / (time.perf_counter() - started)


def _row(label: str, scores: Floats) -> str:
    """One line of the table; `scores` are (conditions, trials, 2) or (conditions, 2)."""
    means = scores.mean(axis=1) if scores.ndim == 3 else scores
    return f"{label:<26}" + "".join(f"{value[0]:>9.3f} /{value[1]:.3f}" for value in means.tolist()) + "\n"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two noises and no cross-validation")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="noises a condition")
    args = parser.parse_args()
    seeds = 2 if args.quick else args.seeds
    data = trials()
    if not data:
        sys.stdout.write(f"{LUND} is not there; nothing was measured.\n")
        return
    write = sys.stdout.write
    yardstick = np.array([condition.yardstick for condition in CONDITIONS])
    adaptive = score_all(data, AdaptiveIVT(), seeds)
    write(
        f"Mean of {len(data)} trials and 2 coders, {seeds} noises: kappa / event F1\n"
        f"{'':<26}" + "".join(f"{condition.label:>16}" for condition in CONDITIONS) + "\n"
    )
    write(_row("human - human", human_scores(data)) + _row("yardstick", yardstick))
    write(_row("adaptive", adaptive))
    results = [] if args.quick else cross_validated(data, seeds)
    for label, scores, _ in results:
        write(_row(f"adaptive, leave out {label}", scores))
    write(_row("adaptive, same k", score_all(data, AdaptiveIVT(), seeds, same=True)))
    for name, parameters in PRESETS.items():
        if name != "adaptive":
            write(_row(name, score_all(data, parameters, seeds)))
    write("\nAdaptive, trial by trial\n")
    for number, trial in enumerate(data):
        write(_row(trial.name[:26], adaptive[:, number]))
    for label, _, chosen in results:
        write(f"\nChosen without the {label}\n" + "".join(f"  {line}\n" for line in chosen))
    write("\nSpeed, million samples a second (500 Hz; 60 Hz, sd .4)\n")
    for name, parameters in PRESETS.items():
        speeds = [samples_per_second(data, parameters, CONDITIONS[index]) / 1e6 for index in (0, -1)]
        write(f"  {name:<24}{speeds[0]:6.2f}{speeds[1]:8.2f}\n")
    write(
        "\nAdaptive I-VT: "
        + ", ".join(f"{k} {v:g}" for k, v in dataclasses.asdict(AdaptiveIVT()).items())
        + "\n"
    )


if __name__ == "__main__":
    main()
