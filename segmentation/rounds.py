"""Round by round: how good the student became, and how many minutes of annotation that took. Never imports torch.

A round is a run of the study. Its quality is the Dice of its student on images that tell the truth: true masks of a
split that it did not learn from, or outlines of a blind audit. Its cost is what annotators had spent when it read its
labels: looking, looking again, calibrating (with validation and drift checks), and reviewing. Beside it stands what
outlining by hand takes, as the study's own audits measured it; where there is none, nothing does.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gaze_capture.errors import UserError
from segmentation.annotation_time import annotation_time
from segmentation.bootstrap import Interval, clustered_interval
from segmentation.evaluation import check_size
from segmentation.job import RunSpec
from segmentation.learned_reviews import begun_at, given_at, learned_by, mark_of, reviewing_seconds, teaching
from segmentation.metrics import dice
from segmentation.progress import Progress, no_progress
from segmentation.records import Key, group_of
from segmentation.run_list import read_name
from segmentation.runs import RunFolder, latest_run
from segmentation.study import TEST_SPLIT, Mask, Study

Against = Literal["auto", "masks", "audit"]

THRESHOLD = 0.5
_STAMPED = re.compile(r"rec-(\d{8}-\d{6})-")

Known = dict[tuple[str, Key, object, object], float]
"""Dice by run and key, and what tells the very prediction and truth: what was measured once is not measured again."""


@dataclass(frozen=True)
class Spent:
    """What annotators had spent, in seconds."""

    looking_s: float
    """First looks, pauses taken off."""
    relooks_s: float
    setup_s: float
    """Calibrating, validating, checking the drift."""
    reviewing_s: float
    """All verdicts, those that were taken back, too."""

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.looking_s + self.relooks_s + self.setup_s + self.reviewing_s

    @property
    def minutes(self) -> float:
        """All of it, in minutes."""
        return self.total_s / 60

    def to_json(self) -> dict[str, float]:
        """Return the parts and their sum, in minutes."""
        parts = {name.removesuffix("_s"): round(value / 60, 4) for name, value in asdict(self).items()}
        return {**parts, "total": round(self.minutes, 4)}


@dataclass(frozen=True)
class Reference:
    """What the rounds are measured on."""

    kind: Literal["masks", "audit"]
    split: str | None
    """Of true masks; None: of all images."""
    keys: tuple[Key, ...]

    @property
    def words(self) -> str:
        """Return it in words."""
        where = f" of the split {self.split!r}" if self.split else ""
        images = len({image for image, _ in self.keys})
        what = "true masks" if self.kind == "masks" else "outlines of the blind audit"
        return f"{images} {'image' if images == 1 else 'images'}{where}, {what}"

    @property
    def spends_test(self) -> bool:
        """Whether it is what the last word should be measured on: looked at by rounds, it guides when to stop."""
        return self.split == TEST_SPLIT

    def truth(self, study: Study, key: Key) -> Mask | None:
        """Return the mask that a prediction is held against."""
        return study.true_mask(*key) if self.kind == "masks" else study.audit_mask(*key)

    def version(self, study: Study, key: Key) -> object:
        """Return what tells that mask from any other that stands in its place before or after."""
        if self.kind == "masks":
            return _stamp(study.mask_path(*key))
        return next(
            (
                name
                for name, review in reversed(study.named_reviews(*key).items())
                if review.purpose == "audit"
            ),
            None,
        )


@dataclass(frozen=True)
class Round:
    """One run: its quality, and what it took."""

    run: str
    name: str
    """What a person called it; empty where nobody did."""
    method: str
    begun: float
    """When it read its labels, in seconds since the epoch."""
    warm_start: str
    """The run that it went on from; empty where it began anew."""
    spent: Spent | None
    """None where it learned from true masks, whose cost nobody measured."""
    reviews: int
    """How many reviews it learned from."""
    reviews_sha256: str
    """Which they were; empty where the run does not say."""
    dice: Interval
    """Mean over images with its 95 % interval, groups resampled."""
    measured: int
    """Masks of the reference that it has a prediction for."""
    seen: int
    """Those of them in images of a split that it, or a run that it went on from, learned from."""
    reviewed: int
    """Those of them of which it, or a run that it went on from, learned a review that stands: there it was told the
    answer, or one like it."""

    def dice_text(self, digits: int = 3) -> str:
        """Return the Dice with its interval, where there is one."""
        mean, low, high = (f"{value:.{digits}f}" for value in (self.dice.mean, self.dice.low, self.dice.high))
        return f"{mean} [{low}, {high}]" if math.isfinite(self.dice.low) else mean

    def to_json(self) -> dict[str, Any]:
        """Return what ``rounds --json`` prints of it."""
        begun = datetime.datetime.fromtimestamp(self.begun, datetime.timezone.utc)
        return {
            "run": self.run,
            "name": self.name or None,
            "method": self.method,
            "begun": begun.isoformat(timespec="seconds"),
            "warm_start": self.warm_start or None,
            "minutes": None if self.spent is None else self.spent.to_json(),
            "reviews": {"count": self.reviews, "sha256": self.reviews_sha256 or None},
            "dice": {name: _finite(value) for name, value in self.dice._asdict().items()},
            "measured": self.measured,
            "learned_from": {"same_split": self.seen, "reviewed": self.reviewed},
        }


@dataclass(frozen=True)
class Manual:
    """What outlining by hand takes, as the study's audits measured it."""

    outlines: int
    seconds_each: float
    masks: int
    """That the gaze of the rounds was for: images looked at, in the splits that were learned from, for each target."""

    @property
    def words(self) -> str:
        """How many outlines that is the mean of."""
        return "1 audit" if self.outlines == 1 else f"{self.outlines} audits"

    @property
    def minutes(self) -> float:
        """What outlining all of these would take at this pace."""
        return self.seconds_each * self.masks / 60

    def to_json(self) -> dict[str, float | int]:
        """Return all of it."""
        return {**asdict(self), "minutes": round(self.minutes, 4)}


@dataclass(frozen=True)
class Rounds:
    """All rounds of a study, oldest first."""

    reference: Reference
    rounds: tuple[Round, ...]
    manual: Manual | None
    simulated_from: str | None
    """``"masks"`` or ``"saliency"`` where any gaze was no person's."""
    left_out: tuple[tuple[str, str], ...] = ()
    """(run, why it cannot be measured)."""
    orphans: int = 0
    """Reviews of images that the study no longer has: their time counts, they teach nothing."""

    @property
    def gaze(self) -> str:
        """Where the gaze came from, in words."""
        return f"simulated from {self.simulated_from}" if self.simulated_from else "recorded or imported"

    def to_json(self) -> dict[str, Any]:
        """Return what ``rounds --json`` prints."""
        reference = self.reference
        return {
            "reference": {"kind": reference.kind, "split": reference.split, "masks": len(reference.keys)},
            "gaze": self.gaze,
            "rounds": [one.to_json() for one in self.rounds],
            "manual": None if self.manual is None else self.manual.to_json(),
            "left_out": [{"run": run, "reason": reason} for run, reason in self.left_out],
            "reviews_of_deleted_images": self.orphans,
        }

    def to_text(self) -> str:
        """Return the same as a table, with what must be known to read it."""
        lines = [
            f"Dice of the student on {self.reference.words}; gaze: {self.gaze}",
            "",
            f"{'run':<34} {'min':>7} {'gaze':>7} {'again':>7} {'calib.':>7} {'review':>7} {'reviews':>8}  Dice [95 %]",
        ]
        for one in self.rounds:
            spent = one.spent
            parts = (
                (spent.minutes, *(value / 60 for value in asdict(spent).values()))
                if spent is not None
                else ()
            )
            minutes = " ".join(f"{value:7.1f}" for value in parts) if parts else f"{'true masks':>39}"
            notes = ", ".join(self.notes(one))
            lines.append(
                f"{one.name or one.run:<34} {minutes} {one.reviews:8d}  {one.dice_text(4)}"
                + (f"  ({notes})" if notes else "")
            )
        left_out = (f"Left out: {run}: {reason}" for run, reason in self.left_out)
        return "\n".join([*lines, "", *self.remarks(), *left_out])

    def remarks(self) -> list[str]:
        """Return what must be known beside the numbers: a test that is spent, outlining by hand, deleted images."""
        if self.manual is not None:
            lines = [
                f"Outlining by hand took {self.manual.seconds_each:.1f} s a mask ({self.manual.words}): "
                f"{self.manual.minutes:.1f} min for the {self.manual.masks} masks whose gaze was learned from."
            ]
        else:
            lines = ["How long outlining by hand takes was not measured: an audit would tell."]
        if self.reference.spends_test:
            lines.insert(
                0,
                f"Whoever looks at the split {TEST_SPLIT!r} round after round and stops by it has no test any more: "
                "measure rounds on true masks of another split, or on a blind audit.",
            )
        if self.orphans:
            noun = "review is of an image" if self.orphans == 1 else "reviews are of images"
            lines.append(
                f"{self.orphans} {noun} the study no longer has: the time counts, nothing is learned from them."
            )
        return lines

    def notes(self, one: Round) -> list[str]:
        """Return what must be known of the Dice of one of the rounds: what it is not measured on, and what it saw."""
        notes = []
        if one.measured < len(self.reference.keys):
            notes.append(f"{one.measured} of {len(self.reference.keys)} predicted")
        if one.reviewed:
            notes.append(f"{one.reviewed} learned from in review")
        elif one.seen:
            notes.append(f"{one.seen} learned from by gaze")
        return notes


def rounds(
    study: Study,
    *,
    against: Against = "auto",
    split: str | None = None,
    known: Known | None = None,
    progress: Progress = no_progress,
) -> Rounds:
    """Measure all runs of a study that have ended and predicted, oldest first.

    Parameters
    ----------
    against
        ``masks``: true masks of `split`; ``audit``: outlines of the blind audit; ``auto``: true masks outside the split
        that is learned from where there are any (``test`` last, lest it guide when to stop), else the audit.
    known
        What was measured before; it is added to.

    Raises
    ------
    UserError
        If there is no run yet, nothing to measure against, or a file is damaged.
    """
    names = study.run_ids()
    latest_run(study)
    reference = choose_reference(study, against, split)
    known = {} if known is None else known
    marks = {
        mark_of(study, review): key for key, reviews in study.all_reviews().items() for review in reviews
    }
    found, specs, left_out = [], [], []
    for number, name in enumerate(names):
        progress(number, len(names), name)
        run = RunFolder(study.runs_folder / name)
        try:
            spec = run.spec
        except UserError as error:
            left_out.append((name, str(error)))
            continue
        state = run.state()
        if state not in ("done", "stopped"):
            left_out.append((name, f"it is {state}"))
            continue
        one = _round(study, run, spec, reference, known, marks)
        if one is None:
            where = f" --split {reference.split}" if reference.split else ""
            left_out.append(
                (
                    name,
                    f"it has predicted none of these images yet: gaze-insight predict STUDY --run {name}{where}",
                )
            )
        else:
            found.append(one)
            if one.spent is not None:
                specs.append(spec)
    progress(len(names), len(names), "")
    found.sort(key=lambda one: (one.begun, one.run))
    return Rounds(
        reference,
        tuple(found),
        manual_outlining(study, specs),
        study.simulated_from(),
        tuple(left_out),
        sum(len(reviews) for key, reviews in study.all_reviews().items() if key[0] not in study.images),
    )


def choose_reference(study: Study, against: Against = "auto", split: str | None = None) -> Reference:
    """Return what rounds are measured on; see `rounds`.

    Raises
    ------
    UserError
        If there is no such split, or nothing to measure against.
    """
    targets = {target.id for target in study.targets}
    if split is not None:
        study.images_of(split)
    if against == "audit" and split is not None:
        raise UserError(
            "The blind audit is measured as a whole; leave the split away, or measure against masks."
        )
    masked = [key for key in study.mask_keys() if key[0] in study.images and key[1] in targets]
    audited = [
        key
        for key, reviews in study.all_reviews().items()
        if key[0] in study.images
        and key[1] in targets
        and any(review.purpose == "audit" for review in reviews)
        and study.audit_mask(*key) is not None
    ]
    order = {name: place for place, name in enumerate(study.images)}

    def sorted_keys(keys: Sequence[Key]) -> tuple[Key, ...]:
        return tuple(sorted(keys, key=lambda key: (order[key[0]], key[1])))

    if against != "audit":
        by_split: dict[str, list[Key]] = {}
        for key in masked:
            by_split.setdefault(study.images[key[0]].split, []).append(key)
        if split is None:
            learned = _learned_splits(study)
            unseen = {name: keys for name, keys in by_split.items() if name not in learned}
            split = max(unseen, key=lambda name: (name != TEST_SPLIT, len(unseen[name]), name), default=None)
        if split is not None and split in by_split:
            return Reference("masks", split, sorted_keys(by_split[split]))
        if against == "masks" or split is not None:
            where = f"in the split {split!r}" if split else "outside the splits that are learned from"
            raise UserError(
                f"The study has no true mask {where}; import some, or measure against a blind audit "
                "(gaze-insight rounds STUDY --against audit)."
            )
    if audited:
        return Reference("audit", None, sorted_keys(audited))
    raise UserError(
        "There is nothing to measure rounds against: no image outside the splits that are learned from has a true "
        "mask, and none was outlined in a blind audit. Draw an audit (gaze-insight audit-draw STUDY), or import masks."
        if against == "auto"
        else "No image was outlined in a blind audit yet; draw one first: gaze-insight audit-draw STUDY"
    )


def _learned_splits(study: Study) -> set[str]:
    found = {"train"}
    for name in study.run_ids():
        with contextlib.suppress(UserError):
            found.add(RunFolder(study.runs_folder / name).spec.split)
    return found


def _round(
    study: Study,
    run: RunFolder,
    spec: RunSpec,
    reference: Reference,
    known: Known,
    marks: Mapping[str, Key],
) -> Round | None:
    targets = _targets_of(study, spec)
    keys = [key for key in reference.keys if key[1] in targets]
    measured: dict[Key, float] = {}
    for key in keys:
        value = _dice(study, run.id, key, reference, known)
        if value is not None:
            measured[key] = value
    if not measured:
        return None
    learned, begun = learned_by(run), begun_at(run)
    own = _told(study, run, spec, marks)
    earlier = [(one, one.spec) for one in _went_on_from(study, spec)]
    splits = {spec.split, *(its.split for _, its in earlier)}
    told = own.union(*(_told(study, one, its, marks) for one, its in earlier))
    images = [study.images[image] for image, _ in measured]
    return Round(
        run=run.id,
        name=read_name(run),
        method=spec.method,
        begun=begun,
        warm_start=spec.warm_start,
        spent=_spent(study, spec, begun, learned.spent_s if learned is not None else None),
        reviews=learned.count if learned is not None else len(own),
        reviews_sha256=learned.sha256 if learned is not None else "",
        dice=clustered_interval(np.array(list(measured.values())), [group_of(image) for image in images]),
        measured=len(measured),
        seen=sum(image.split in splits for image in images),
        reviewed=sum(key in told for key in measured),
    )


def _told(study: Study, run: RunFolder, spec: RunSpec, marks: Mapping[str, Key]) -> set[Key]:
    """Return the images and targets of whose reviews a run learned, also where others have followed since."""
    learned = learned_by(run)
    if learned is not None:
        return {marks[one] for one in learned.marks if one in marks}
    begun = begun_at(run)
    return {key for key, review in teaching(study, spec).items() if given_at(review) <= begun}


def _went_on_from(study: Study, spec: RunSpec) -> Iterator[RunFolder]:
    """Yield the runs whose networks a run's began as, the latest first, as far back as the study has them."""
    seen = set()
    while spec.warm_start and spec.warm_start not in seen:
        seen.add(spec.warm_start)
        run = RunFolder(study.runs_folder / spec.warm_start)
        try:
            spec = run.spec
        except UserError:
            return
        yield run


def _dice(study: Study, run_id: str, key: Key, reference: Reference, known: Known) -> float | None:
    predicted = _stamp(study.prediction_path(run_id, *key))
    if predicted is None:
        return None
    place = (run_id, key, predicted, reference.version(study, key))
    if place not in known:
        probability, truth = study.prediction(run_id, *key), reference.truth(study, key)
        if probability is None or truth is None:
            return None
        mask = probability >= THRESHOLD
        check_size(study, run_id, key, mask, truth)
        known[place] = dice(mask, truth)
    return known[place]


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return a file's time and size; None where there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _spent(study: Study, spec: RunSpec, until: float, reviewing_s: float | None) -> Spent | None:
    images = [image.id for image in study.images.values() if image.split == spec.split]
    targets = _targets_of(study, spec)
    if spec.method == "supervised" and study.mask_keys() & {
        (image, target) for image in images for target in targets
    }:
        return None
    gaze = annotation_time(study, images, targets, counts=recorded_before(until))
    count = gaze.images if gaze is not None else 0
    return Spent(
        looking_s=gaze.looking_s * count if gaze is not None else 0.0,
        relooks_s=gaze.relooks_s * count if gaze is not None else 0.0,
        setup_s=gaze.setup_s * count if gaze is not None else 0.0,
        reviewing_s=reviewing_seconds(study, until) if reviewing_s is None else reviewing_s,
    )


def recorded_before(until: float) -> Callable[[str], bool]:
    """Return whether gaze from a source was there at a time: of recordings their names tell, imports always were."""

    def counts(source: str) -> bool:
        found = _STAMPED.match(source)
        if found is None:
            return True
        begun = datetime.datetime.strptime(found[1], "%Y%m%d-%H%M%S").replace(tzinfo=datetime.timezone.utc)
        return begun.timestamp() <= until

    return counts


def manual_outlining(study: Study, specs: Sequence[RunSpec]) -> Manual | None:
    """Return what the audits' outlines took, or None without any whose time was kept.

    It is held against the minutes of runs by these specs, and so is of the masks that their gaze was for and no others.
    """
    seconds = [
        review.seconds_spent
        for key, reviews in study.all_reviews().items()
        if key[0] in study.images
        for review in reviews
        if review.purpose == "audit" and review.verdict == "edited" and review.seconds_spent > 0
    ]
    if not seconds:
        return None
    learned = {
        (image.id, target_id)
        for spec in specs
        for image in study.images.values()
        if image.split == spec.split
        for target_id in _targets_of(study, spec)
    }
    return Manual(len(seconds), float(np.mean(seconds)), len(learned & set(study.looks)))


def _targets_of(study: Study, spec: RunSpec) -> tuple[str, ...]:
    return spec.targets or tuple(target.id for target in study.targets)


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
