"""Which masks of a study go out (reviewed, a run's, levels of pseudo-masks, true ones, audits), and who vouches."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.fixations import simulated_source
from gaze_capture.recording import Presence
from segmentation.label_gaze import simulated_behind
from segmentation.readers.shared import stem_of
from segmentation.records import MASK_THRESHOLD, StudyImage, Target, Volume
from segmentation.review_index import COUNTED, Purpose, Review, Verdict
from segmentation.runs import latest_run
from segmentation.study import Mask, Study

Which = Literal["reviewed", "student", "pseudomask", "truth", "audit"]
WHICH: tuple[Which, ...] = get_args(Which)

_KEPT_NAME = re.compile(r"[^\x00-\x1f\\/:*?\"<>|]{1,150}")
"""What a file may be called on every system."""


@dataclass(frozen=True)
class MaskChoice:
    """Which masks of a study an export takes.

    ``audit``: the outlines of blind audits alone, drawn with no mask in view; of several annotators' the latest.
    """

    which: Which = "reviewed"
    run: str | None = None
    """Of ``student`` the run, by default the latest finished; of ``reviewed`` the run whose student stands in where
    nobody has judged yet, by default none."""
    threshold: float = MASK_THRESHOLD
    """On the student's probability."""
    level: float | None = None
    """Which threshold of the pseudo-masks; by default each one's widest level."""
    split: str | None = None
    targets: tuple[str, ...] | None = None
    annotators: tuple[str, ...] | None = None
    """Reviewed masks, or audits, of these alone, also where somebody else's is the one that counts."""


@dataclass(frozen=True)
class Origin:
    """Where a mask comes from and who vouches for it."""

    kind: Which
    """Of masks that were asked for as ``reviewed``, those that nobody judged are the ``student``'s."""
    annotator: str | None = None
    verdict: Verdict | None = None
    purpose: Purpose | None = None
    presence: Presence | None = None
    reviewed_at: str | None = None
    started_from: str | None = None
    edits: tuple[str, ...] = ()
    run: str | None = None
    """The run whose prediction it is, or that was judged."""
    threshold: float | None = None
    """On the run's probability, or of a pseudo-mask the level."""
    simulated_from: str | None = None
    """``masks`` or ``saliency`` where gaze behind it was simulated; None where people looked, or no gaze is in it."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON; `simulated` says in one word what `simulated_from` details."""
        return {**dataclasses.asdict(self), "simulated": self.simulated_from is not None}


@dataclass(frozen=True)
class ChosenMask:
    """One mask that goes out."""

    image: StudyImage
    target: Target
    origin: Origin
    load: Callable[[], Mask | None]

    def read(self) -> Mask:
        """Return the mask (H, W).

        Raises
        ------
        UserError
            If its file is gone or damaged, or of another size than the image.
        """
        mask = self.load()
        where = f"the mask of {self.target.name!r} in {self.image.id} ({self.origin.kind})"
        if mask is None:
            raise UserError(f"{where[0].upper()}{where[1:]} is gone; look at the image again.")
        if mask.shape != self.image.shape[:2]:
            raise UserError(
                f"{where[0].upper()}{where[1:]} has {mask.shape[1]} x {mask.shape[0]} pixels, the image "
                f"{self.image.shape[1]} x {self.image.shape[0]}; judge it anew."
            )
        return mask


@dataclass(frozen=True)
class Unit:
    """An image on its own, or all slices of a volume."""

    id: str
    name: str
    """What its files are called, without ending; no other unit's, in whatever case."""
    images: tuple[StudyImage, ...]
    volume: Volume | None = None
    """What is known of its space."""

    @property
    def is_volume(self) -> bool:
        """Whether it has slices."""
        return bool(self.images[0].volume)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of every slice."""
        return self.images[0].shape[:2]

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Millimetres from row to row, column to column and slice to slice (1 where there is no telling)."""
        spacing = self.images[0].spacing_mm
        if spacing is None:
            return None
        between = self.volume.slice_spacing_mm if self.volume is not None else None
        return spacing[0], spacing[1], between or 1.0


def pixels_sha256(mask: Mask) -> str:
    """Return the SHA-256 of a mask's pixels, one byte each, 0 or 1, row by row."""
    return hashlib.sha256(np.ascontiguousarray(mask).astype(np.uint8).tobytes()).hexdigest()


@dataclass
class MaskSelection:
    """The masks that a choice comes to, and where they belong."""

    study: Study
    choice: MaskChoice
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""

    def __post_init__(self) -> None:
        self._looks_simulated: dict[tuple[str, str], str | None] = {}
        self._runs_simulated: dict[str, str | None] = {}

    @cached_property
    def images(self) -> dict[str, StudyImage]:
        """The images of the split, by id, in the study's order."""
        return {image.id: image for image in self.study.images_of(self.choice.split)}

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """The targets whose masks are taken, in the study's order."""
        wanted = self.choice.targets
        if wanted is None:
            return self.study.targets
        for target_id in wanted:
            self.study.target(target_id)
        return tuple(target for target in self.study.targets if target.id in wanted)

    @cached_property
    def run(self) -> str | None:
        """The run whose student is taken, where one is."""
        if self.choice.which == "student" or (self.choice.which == "reviewed" and self.choice.run):
            return latest_run(self.study, self.choice.run)
        return None

    @cached_property
    def masks(self) -> dict[tuple[str, str], ChosenMask]:
        """The masks by (image id, target id), in the order of images and targets.

        Raises
        ------
        UserError
            If there is none.
        """
        find = {
            "reviewed": self._reviewed,
            "student": self._students,
            "pseudomask": self._pseudomasks,
            "truth": self._true,
            "audit": self._audits,
        }[self.choice.which]
        found = find()
        ordered = {
            (image_id, target.id): found[image_id, target.id]
            for image_id in self.images
            for target in self.targets
            if (image_id, target.id) in found
        }
        if not ordered:
            raise UserError(_NOTHING[self.choice.which])
        return ordered

    @cached_property
    def simulated_from(self) -> str | None:
        """What gaze behind any of the masks was simulated from."""
        return simulated_source(chosen.origin for chosen in self.masks.values())

    def probability(self, chosen: ChosenMask) -> npt.NDArray[np.float32] | None:
        """Return the probability (H, W) of the run that a mask is of, None where there is none."""
        run = chosen.origin.run
        if run is None or run not in self.study.run_ids():
            return None
        return self.study.prediction(run, chosen.image.id, chosen.target.id)

    # What each choice comes to

    def _keys(self, keys: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        ids = {target.id for target in self.targets}
        return sorted(key for key in keys if key[0] in self.images and key[1] in ids)

    def _reviewed(self) -> dict[tuple[str, str], ChosenMask]:
        reviews = self.study.reviewed()
        found: dict[tuple[str, str], ChosenMask] = {}
        rejected = 0
        if self.choice.annotators is None:
            self._note_gone(reviews)
            wanted = {
                key: (review, partial(self.study.reviewed_mask, *key)) for key, review in reviews.items()
            }
        else:
            # Theirs, also where somebody else's is the one that counts.
            latest = self._latest(COUNTED)
            self._note_gone(latest)
            wanted = {
                key: (review, partial(self.study.review_mask, *key, name))
                for key, (name, review) in latest.items()
            }
        for key in self._keys(wanted):
            review, load = wanted[key]
            if review.verdict == "rejected":
                rejected += 1
                continue
            found[key] = self._chosen(key, self._origin_of(review), load)
        if rejected:
            self.notes.append(f"{rejected} rejected masks were left out.")
        if self.run is not None:
            for key, chosen in self._students().items():
                # A mask that was rejected does not come back by another door.
                if key not in reviews:
                    found[key] = chosen
        return found

    def _note_gone(self, reviews: Iterable[tuple[str, str]]) -> None:
        gone = {image_id for image_id, _ in reviews if image_id not in self.study.images}
        if gone:
            self.notes.append(
                f"{len(gone)} reviews are of images that the study does not have any more; they were left out."
            )

    def _audits(self) -> dict[tuple[str, str], ChosenMask]:
        latest = self._latest(("audit",))
        self._note_gone(latest)
        found: dict[tuple[str, str], ChosenMask] = {}
        rejected = 0
        for key in self._keys(latest):
            name, review = latest[key]
            if review.verdict == "rejected":
                rejected += 1
                continue
            origin = dataclasses.replace(
                self._origin_of(review), kind="audit", run=None, threshold=None, simulated_from=None
            )
            found[key] = self._chosen(key, origin, partial(self.study.review_mask, *key, name))
        if rejected:
            self.notes.append(
                f"Audits without an outline (unsure, ungradable) that were left out: {rejected}."
            )
        return found

    def _latest(self, purposes: Sequence[Purpose]) -> dict[tuple[str, str], tuple[str, Review]]:
        """Return the latest review for one of these purposes that is by who was asked for, with its name."""
        wanted = self.choice.annotators
        latest: dict[tuple[str, str], tuple[str, Review]] = {}
        for key, reviews in self.study.all_reviews().items():
            if not any(review.purpose in purposes for review in reviews):
                continue
            for name, review in self.study.named_reviews(*key).items():
                if review.purpose in purposes and (wanted is None or review.annotator in wanted):
                    latest[key] = name, review
        return latest

    def _origin_of(self, review: Review) -> Origin:
        key = review.image_id, review.target_id
        by_hand = review.verdict == "edited" and review.started_from == "empty"
        return Origin(
            kind="reviewed",
            annotator=review.annotator,
            verdict=review.verdict,
            purpose=review.purpose,
            presence=review.presence,
            reviewed_at=review.reviewed_at,
            started_from=review.started_from or None,
            edits=review.edits,
            # A consensus names what it was made of in place of a run.
            run=None if review.purpose == "consensus" or review.subject == "pseudomask" else review.subject,
            threshold=None if review.subject == "pseudomask" else review.threshold,
            simulated_from=None
            if by_hand
            else self._look_simulated(key)
            if review.subject == "pseudomask"
            else self._run_simulated(review.subject),
        )

    def _students(self) -> dict[tuple[str, str], ChosenMask]:
        assert self.run is not None
        run, threshold = self.run, self.choice.threshold
        if not 0 < threshold < 1:
            raise UserError(f"A threshold lies between 0 and 1, not at {threshold:g}.")
        origin = Origin("student", run=run, threshold=threshold, simulated_from=self._run_simulated(run))

        def load(key: tuple[str, str]) -> Mask | None:
            probability = self.study.prediction(run, *key)
            return None if probability is None else probability >= threshold

        return {
            key: self._chosen(key, origin, partial(load, key))
            for key in self._keys(self.study.prediction_keys(run))
        }

    def _pseudomasks(self) -> dict[tuple[str, str], ChosenMask]:
        found = {}
        wanted = self.choice.level
        without = 0
        for key in self._keys(self.study.pseudomask_keys()):
            pseudomask = self.study.pseudomask(*key)
            if pseudomask is None:
                continue
            levels = [float(level) for level in pseudomask.thresholds]
            near = [
                place for place, level in enumerate(levels) if wanted is None or abs(level - wanted) < 1e-6
            ]
            if not near:
                without += 1
                continue

            def load(key: tuple[str, str] = key, place: int = near[-1]) -> Mask | None:
                again = self.study.pseudomask(*key)
                return None if again is None else again.masks[place]

            origin = Origin(
                "pseudomask",
                annotator=", ".join(pseudomask.annotators) or None,
                threshold=levels[near[-1]],
                simulated_from=pseudomask.simulated_from or self._look_simulated(key),
            )
            found[key] = self._chosen(key, origin, load)
        if without:
            self.notes.append(f"{without} pseudo-masks have no level {wanted:g} and were left out.")
        return found

    def _true(self) -> dict[tuple[str, str], ChosenMask]:
        origin = Origin("truth")
        return {
            key: self._chosen(key, origin, partial(self.study.true_mask, *key))
            for key in self._keys(self.study.mask_keys())
        }

    def _chosen(self, key: tuple[str, str], origin: Origin, load: Callable[[], Mask | None]) -> ChosenMask:
        return ChosenMask(self.images[key[0]], self.study.target(key[1]), origin, load)

    def _look_simulated(self, key: tuple[str, str]) -> str | None:
        if key not in self._looks_simulated:
            self._looks_simulated[key] = simulated_source(self.study.looks.get(key, ()))
        return self._looks_simulated[key]

    def _run_simulated(self, run_id: str) -> str | None:
        if run_id not in self._runs_simulated:
            self._runs_simulated[run_id] = simulated_behind(self.study, run_id)
        return self._runs_simulated[run_id]

    # Where they belong

    @cached_property
    def units(self) -> list[Unit]:
        """The images and volumes that have a mask, in the study's order; of a volume all slices."""
        with_header = set(self.study.volume_ids())
        names = unit_names(self.study)
        units: dict[str, Unit] = {}
        for image_id, _ in self.masks:
            image = self.images[image_id]
            unit_id = image.volume or image.id
            if unit_id in units:
                continue
            units[unit_id] = unit_of(self.study, image, names[unit_id], with_header)
        return list(units.values())

    def of(self, unit: Unit, target: Target) -> list[ChosenMask | None]:
        """Return the mask of each slice of a unit, None where it has none."""
        return [self.masks.get((image.id, target.id)) for image in unit.images]

    def targets_of(self, unit: Unit) -> list[Target]:
        """Return the targets that a unit has masks of."""
        return [target for target in self.targets if any(self.of(unit, target))]


_NOTHING: dict[Which, str] = {
    "reviewed": "No mask of these images was accepted or edited yet; review some, name a --run whose masks stand in, "
    "or choose others: --masks student, pseudomask or truth.",
    "student": "The run has no predictions for these images yet; make them with: gaze-insight predict STUDY",
    "pseudomask": "These images have no pseudo-masks yet; make them with: gaze-insight pseudomask STUDY",
    "truth": "These images have no true masks.",
    "audit": "None of these images was outlined in a blind audit yet; draw one: gaze-insight audit-draw STUDY",
}


def unit_of(study: Study, image: StudyImage, name: str, with_header: Container[str]) -> Unit:
    """Return the image, or the volume that it is a slice of.

    Parameters
    ----------
    name : what its files are called, see `unit_names`
    with_header : `Study.volume_ids`, which are looked up on disk
    """
    unit_id = image.volume or image.id
    slices = tuple(study.image(one) for one in study.slices_beside(image.id))
    return Unit(unit_id, name, slices, study.volume(unit_id) if unit_id in with_header else None)


def image_names(images: Sequence[StudyImage]) -> dict[str, str]:
    """Return what the files of each image are called, without ending: as its source was, or else its id.

    The source's name counts where no other image's is alike in whatever case, and every system can store it.
    """
    stems = {
        image.id: image.source_name if image.volume else stem_of(Path(image.source_name)) for image in images
    }
    return _unique(stems)


def unit_names(study: Study) -> dict[str, str]:
    """Return what the files of each image or volume are called, by its id, as :func:`image_names` does."""
    stems: dict[str, str] = {}
    for image in study.images.values():
        stems.setdefault(
            image.volume or image.id,
            stem_of(Path(image.source_stem)),
        )
    return _unique(stems)


def _unique(stems: dict[str, str]) -> dict[str, str]:
    claims = Counter(stem.casefold() for stem in stems.values())
    ids = {one.casefold() for one in stems}
    return {
        one: stem
        if _KEPT_NAME.fullmatch(stem)
        and stem == stem.strip(". ")
        and claims[stem.casefold()] == 1
        and (stem.casefold() not in ids or stem.casefold() == one.casefold())
        else one
        for one, stem in stems.items()
    }
