"""What reviews give a next training, by the order in which masks are reviewed; true masks act as the reviewer.

    python -m tests.benchmarks.simulated_reviewers KVASIR_SEG OUT --encoder models/tf_efficientnet_lite0 --seeds 0 1 2

KVASIR_SEG holds ``train`` and ``validation``, each with ``images``, ``masks`` and ``fixations.csv``. Some training
images are drawn; for each seed a run learns from their gaze. Then, round after round, a reviewer goes through the k
masks that an order names and the run is trained again with them (`segmentation.retraining`); the student is measured on
validation images that nobody ever looked at. All of it is *simulated from masks*: the gaze, the reviewer, the minutes.

Orders: ``queue`` is that of the review queue (`segmentation.doubt`), ``session`` that of recording sessions
(`segmentation.session_order.doubts`), ``random`` draws, ``worst`` takes the masks
that truly are the worst, which no program can know, and ``none`` trains as long with no review at all: what lies above
it is due to the reviews. Each order of each seed is a cell, kept in OUT and not done again.

tests/test_simulated_reviewers.py runs it at its smallest, on phantoms.

Time model: a reviewer needs LOOK_S to see whether a mask will do, and accepts it as it is from a Dice of ACCEPT_DICE
on. Otherwise they redraw what of the outline is off by more than TOLERANCE of the image's side, at the pace at which
whole outlines are drawn, and the mask becomes the true one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.storage import write_json_atomic
from segmentation import steps
from segmentation.annotation_time import annotation_time
from segmentation.backbones import examine
from segmentation.bootstrap import clustered_interval
from segmentation.device import use_threads
from segmentation.doubt import DoubtIndex
from segmentation.explainers.opening import BackendOptions
from segmentation.explaining import explain_study
from segmentation.gaze_import import import_gaze
from segmentation.grouping import apply_groups, suggest_groups
from segmentation.job import Kind, RunSpec
from segmentation.learned_reviews import learned_by
from segmentation.metrics import dice
from segmentation.prediction import predict
from segmentation.presets import checked, preset
from segmentation.records import group_of, utc_now
from segmentation.retraining import continued, networks_of, spec_again
from segmentation.runs import RunFolder, create_run
from segmentation.session_order import doubts
from segmentation.study import Review, Study
from segmentation.training import train

LOOK_S = 6.0
"""Assumed: the pace this program is built for, 100 masks in 10 minutes."""
OUTLINE_S = 75.0
"""Seconds for a whole outline of mean length: full masks in the GNAN paper (MICCAI 2025); COCO took 80 s a mask."""
ACCEPT_DICE = 0.9
"""Assumed."""
TOLERANCE = 2 / 352
"""Of the image's side, assumed. That the time of correcting follows the length of outline that is redrawn, and the Dice
hardly, was measured by Kiser et al., J Digit Imaging 34 (2021): Spearman 0.69 for the added path length, -0.25 for
Dice."""

HELD = "validation"
Key = tuple[str, str]
Mask = npt.NDArray[np.bool_]
Order = Callable[[Study, str, Sequence[Key], int], list[Key]]
"""Study, run, the keys that may be reviewed and a seed -> the keys, first first."""


def as_queued(study: Study, run_id: str, keys: Sequence[Key], seed: int) -> list[Key]:
    """Return the order of the review queue."""
    found = DoubtIndex(study).doubts(keys, run_id)
    return sorted(keys, key=lambda key: -found[key].score)


def as_in_sessions(study: Study, run_id: str, keys: Sequence[Key], seed: int) -> list[Key]:
    """Return the order of doubt of recording sessions."""
    found = doubts(study, keys, run_id=run_id)
    return sorted(keys, key=lambda key: -found[key].score)


def at_random(study: Study, run_id: str, keys: Sequence[Key], seed: int) -> list[Key]:
    """Return a drawn order."""
    drawn = np.random.default_rng([seed, 7, len(keys)]).permutation(len(keys))
    return [keys[place] for place in drawn]


def worst_first(study: Study, run_id: str, keys: Sequence[Key], seed: int) -> list[Key]:
    """Return the order that only the true masks know."""
    return sorted(keys, key=lambda key: dice(*_shown_and_true(study, run_id, key)))


ORDERS: dict[str, Order] = {
    "queue": as_queued,
    "session": as_in_sessions,
    "random": at_random,
    "worst": worst_first,
}
DOUBTING = ("queue", "session")
"""Orders that look at the teacher, too."""


def _shown_and_true(study: Study, run_id: str, key: Key) -> tuple[Mask, Mask]:
    probability, truth = study.prediction(run_id, *key), study.true_mask(*key)
    assert probability is not None and truth is not None, key
    return probability >= 0.5, truth


def outline(mask: Mask) -> Mask:
    """Return the pixels of a mask's outline."""
    kernel = np.ones((3, 3), np.uint8)
    eroded = cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    found: Mask = mask & ~eroded.astype(np.bool_)
    return found


def off(one: Mask, other: Mask) -> int:
    """Return how many outline pixels of one mask lie further than TOLERANCE from the other's outline."""
    edge, against = outline(one), outline(other)
    if not against.any():
        return int(edge.sum())
    distance = cv2.distanceTransform((~against).astype(np.uint8), cv2.DIST_L2, 5)
    return int((edge & (distance > TOLERANCE * max(one.shape))).sum())


def seconds_to_correct(shown: Mask, truth: Mask, mean_outline_px: float) -> float:
    """Return what correcting a shown mask takes; never more than drawing it anew."""
    redrawn = min(max(off(truth, shown), off(shown, truth)), int(outline(truth).sum()))
    return LOOK_S + OUTLINE_S * redrawn / mean_outline_px


def make_study(data: Path, folder: Path, images: int, seed: int) -> Study:
    """Draw training images, leave out those that show what a held-out one shows, and make their pseudo-masks."""
    study = Study.create(folder, "Kvasir-SEG, simulated from masks")
    paths = sorted((data / "train" / "images").iterdir())
    drawn = np.random.default_rng([seed, 5]).permutation(len(paths))[:images]
    steps.import_images(study, [paths[place] for place in sorted(drawn)], masks=data / "train" / "masks")
    steps.import_images(study, [data / HELD / "images"], masks=data / HELD / "masks", split=HELD)
    apply_groups(study, suggest_groups(study))
    held = {group_of(image) for image in study.images_of(HELD)}
    shared = [image for image in study.images_of("train") if group_of(image) in held]
    study.add_images(dataclasses.replace(image, split="left out") for image in shared)
    import_gaze(
        study,
        data / "train" / "fixations.csv",
        format="gazemedseg",
        split="train",
        annotator="simulated",
        simulated_from="masks",
    )
    steps.make_pseudomasks(study, split="train")
    # The teacher predicts explained images alone; it reads none of the words here.
    explain_study(study, BackendOptions("measured"))
    return study


def review(study: Study, run_id: str, keys: Sequence[Key], mean_outline_px: float) -> dict[str, Any]:
    """Give the verdicts of the true masks; return what the reviewer met."""
    met, corrected, spent = [], 0, 0.0
    for key in keys:
        shown, truth = _shown_and_true(study, run_id, key)
        met.append(dice(shown, truth))
        accepted = met[-1] >= ACCEPT_DICE
        seconds = LOOK_S if accepted else seconds_to_correct(shown, truth, mean_outline_px)
        corrected += not accepted
        spent += seconds
        study.add_review(
            Review(
                image_id=key[0],
                target_id=key[1],
                annotator="simulated",
                subject=run_id,
                verdict="accepted" if accepted else "edited",
                presence="present",
                seconds_spent=round(seconds, 2),
                reviewed_at=utc_now(),
                started_from="student",
            ),
            shown if accepted else truth,
        )
    return {"reviewed": len(keys), "corrected": corrected, "met": float(np.mean(met)), "seconds": spent}


def held_dice(study: Study, run_id: str) -> dict[str, float]:
    """Return the student's Dice of each held-out image."""
    return {
        image.id: dice(*_shown_and_true(study, run_id, (image.id, "target")))
        for image in study.images_of(HELD)
    }


def _ignore(kind: Kind, step: int, total: int, **values: object) -> None:
    """Report to nobody."""


class Simulation:
    """The cells of one setting; what a cell gave is kept."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.out: Path = options.out

    def _study(self) -> Path:
        """Return the study before any run, made where it is not kept."""
        folder, done = self.out / "study", self.out / "study.json"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            begun = time.monotonic()
            study = make_study(self.options.data, folder, self.options.images, self.options.draw)
            write_json_atomic(done, {split: len(study.images_of(split)) for split in ("train", HELD)})
            self.say(f"study made in {time.monotonic() - begun:.0f} s: {done.read_text()}")
        return folder

    def _base(self, seed: int) -> Path:
        """Return a study with a seed's first run, made where it is not kept."""
        folder, done = self.out / f"seed-{seed}", self.out / f"seed-{seed}.json"
        if done.exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._study(), folder)
        study = Study.open(folder)
        begun = time.monotonic()
        spec = preset(
            "gaze-to-insight",
            "cpu",
            image_size_px=self.options.side,
            iterations=self.options.iterations,
            max_minutes=None,
            text="none",
            seed=seed,
            device="cpu",
        )
        if self.options.encoder is not None:
            fields = {
                **examine(self.options.encoder),
                "encoder_learning_rate": 0.3,
                "encoder_frozen_stages": self.options.frozen,
            }
            spec = checked(dataclasses.replace(spec, **fields))
        run_id = self._train(study, spec)
        held = self._measure(study, run_id)
        self._predict(study, run_id, [image.id for image in study.images_of("train")])
        gaze = annotation_time(study, [image.id for image in study.images_of("train")], ["target"])
        assert gaze is not None
        own = [
            dice(*_shown_and_true(study, run_id, (image.id, "target"))) for image in study.images_of("train")
        ]
        values = {
            "run": run_id,
            "images": len(own),
            "gaze_s": gaze.images * gaze.seconds_per_image,
            "groups": {image.id: group_of(image) for image in study.images_of(HELD)},
            "dice": held,
            "train_dice": float(np.mean(own)),
        }
        write_json_atomic(done, values)
        mean = np.mean(list(held.values()))
        self.say(f"seed {seed}, gaze alone: Dice {mean:.4f}, took {time.monotonic() - begun:.0f} s")
        return folder

    def _train(self, study: Study, spec: RunSpec) -> str:
        """Train in this very process: a worker would spend as long on its imports, and lower its priority."""
        run = create_run(study, spec)
        train(study, run, _ignore, threads=1, image_encoder_folder=self.options.encoder)
        return run.id

    def _predict(
        self, study: Study, run_id: str, images: Iterable[str], *, teacher: bool = True, flips: bool = True
    ) -> None:
        run = RunFolder(study.runs_folder / run_id)
        networks = networks_of(run.spec) if teacher else ("student",)
        predict(
            study,
            run,
            _ignore,
            image_ids=list(images),
            networks=networks,
            flip_average=flips,
            engine="torch",
            threads=1,
        )

    def _measure(self, study: Study, run_id: str) -> dict[str, float]:
        """Return the Dice of each held-out image, by the student's plain look: its mirrored views cost four times."""
        self._predict(
            study, run_id, [image.id for image in study.images_of(HELD)], teacher=False, flips=False
        )
        found = held_dice(study, run_id)
        # What is reviewed is predicted as the program does.
        shutil.rmtree(study.runs_folder / run_id / "predictions")
        return found

    def cell(self, order: str, seed: int) -> None:
        """Do what one order gives with one seed, where it is not kept."""
        kept = self.out / f"seed-{seed}-{order}.json"
        if kept.exists():
            return
        base = self._base(seed)
        run_id = str(json.loads(base.with_suffix(".json").read_text())["run"])
        folder = self.out / f"at-work-{seed}-{order}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder)
        study = Study.open(folder)
        lengths = [
            int(outline(mask).sum())
            for image in study.images_of("train")
            if (mask := study.true_mask(image.id, "target")) is not None
        ]
        rounds: list[dict[str, Any]] = []
        for number in range(1, self.options.rounds + 1):
            begun = time.monotonic()
            met: dict[str, Any] = {"reviewed": 0, "corrected": 0, "met": None, "seconds": 0.0}
            if order == "none":
                spec = continued(RunFolder(study.runs_folder / run_id))
            else:
                reviewed = study.reviewed()
                left = [(image.id, "target") for image in study.images_of("train")]
                left = [key for key in left if key not in reviewed]
                if order == "random":
                    left = at_random(study, run_id, left, seed)[: self.options.reviews]
                self._predict(study, run_id, [key[0] for key in left], teacher=order in DOUBTING)
                chosen = ORDERS[order](study, run_id, left, seed)[: self.options.reviews]
                met = review(study, run_id, chosen, float(np.mean(lengths)))
                spec = spec_again(study, run_id)
            run_id = self._train(study, spec)
            learned = learned_by(RunFolder(study.runs_folder / run_id))
            assert learned is not None and learned.count == (order != "none") * number * self.options.reviews
            rounds.append({**met, "dice": self._measure(study, run_id)})
            mean = np.mean(list(rounds[-1]["dice"].values()))
            self.say(
                f"seed {seed}, {order}, round {number}: Dice {mean:.4f}, {met['corrected']} of "
                f"{met['reviewed']} corrected in {met['seconds'] / 60:.1f} min, took {time.monotonic() - begun:.0f} s"
            )
        shutil.rmtree(folder)
        write_json_atomic(kept, {"order": order, "seed": seed, "rounds": rounds})

    def say(self, text: str) -> None:
        """Tell how far it is."""
        sys.stdout.write(f"[{time.strftime('%H:%M:%S')}] {text}\n")
        sys.stdout.flush()

    def table(self) -> str:
        """Return the table of all cells that are kept."""
        seeds = [seed for seed in self.options.seeds if (self.out / f"seed-{seed}.json").exists()]
        bases = {seed: json.loads((self.out / f"seed-{seed}.json").read_text()) for seed in seeds}
        if not bases:
            return "Nothing is ready yet.\n"
        groups = [str(value) for value in bases[seeds[0]]["groups"].values()]
        names = list(bases[seeds[0]]["groups"])

        def per_image(values: dict[int, dict[str, float]]) -> npt.NDArray[np.float64]:
            return np.array([[values[seed][name] for name in names] for seed in values])

        first = per_image({seed: bases[seed]["dice"] for seed in seeds})
        gaze_min = float(np.mean([bases[seed]["gaze_s"] for seed in seeds])) / 60
        lines = [
            "| order | round | seeds | reviewed | corrected | Dice met | review minutes | Dice | gain over round 0 "
            "[95 %] | gain over none [95 %] | gain in Dice points a review minute |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
            f"| gaze alone | 0 | {len(seeds)} | 0 | 0 | | 0.0 (gaze {gaze_min:.1f}) | {first.mean():.4f} | | | |",
        ]
        cells = {
            (order, seed): json.loads(path.read_text())["rounds"]
            for order in ("none", *ORDERS)
            for seed in seeds
            if (path := self.out / f"seed-{seed}-{order}.json").exists()
        }
        for order in ("none", *ORDERS):
            own = [seed for seed in seeds if (order, seed) in cells]
            for number in range(self.options.rounds if own else 0):
                found = [cells[order, seed][: number + 1] for seed in own]
                after = per_image({seed: cells[order, seed][number]["dice"] for seed in own})
                before = per_image({seed: bases[seed]["dice"] for seed in own})
                gain = clustered_interval(after - before, groups)
                minutes = float(np.mean([sum(one["seconds"] for one in rounds) for rounds in found])) / 60
                both = [seed for seed in own if ("none", seed) in cells] if order != "none" else []
                above = ""
                if both:
                    with_, without = (
                        per_image({seed: cells[name, seed][number]["dice"] for seed in both})
                        for name in (order, "none")
                    )
                    above = str(clustered_interval(with_ - without, groups))
                met = [one[-1]["met"] for one in found if one[-1]["met"] is not None]
                lines.append(
                    f"| {order} | {number + 1} | {len(own)} | "
                    f"{np.mean([sum(one['reviewed'] for one in rounds) for rounds in found]):.0f} | "
                    f"{np.mean([sum(one['corrected'] for one in rounds) for rounds in found]):.1f} | "
                    f"{f'{np.mean(met):.3f}' if met else ''} | {minutes:.1f} | {after.mean():.4f} | {gain} | {above} | "
                    f"{f'{100 * gain.mean / minutes:.3f}' if minutes else ''} |"
                )
        for order in DOUBTING:
            both = [seed for seed in seeds if all((name, seed) in cells for name in (order, "random"))]
            for number in range(self.options.rounds if both else 0):
                doubt, random = (
                    per_image({seed: cells[name, seed][number]["dice"] for seed in both})
                    for name in (order, "random")
                )
                gain = clustered_interval(doubt - random, groups)
                lines.append(
                    f"\n{order} minus random, round {number + 1}: {gain}; by seed "
                    + ", ".join(f"{value:+.4f}" for value in (doubt - random).mean(axis=1))
                )
        return "\n".join(lines) + "\n"


def main() -> None:
    """Bring every cell to its end and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--orders", nargs="+", choices=("none", *ORDERS), default=["queue", "random", "none"])
    parser.add_argument("--images", type=int, default=220)
    parser.add_argument("--draw", type=int, default=0, metavar="N", help="which images are drawn")
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--frozen", type=int, default=2, help="stages of the encoder that stay as they came")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--reviews", type=int, default=30, help="masks reviewed in a round")
    parser.add_argument("--table", action="store_true", help="of what is ready; nothing is trained")
    simulation = Simulation(parser.parse_args())
    options = simulation.options
    options.out.mkdir(parents=True, exist_ok=True)
    use_threads(1)
    for seed in () if options.table else options.seeds:
        for order in options.orders:
            simulation.cell(order, seed)
    sys.stdout.write(simulation.table())


if __name__ == "__main__":
    main()
