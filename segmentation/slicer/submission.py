"""A label map that was drawn or corrected in 3D Slicer becomes reviews: of what was said, and of nothing else."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.mask_choice import Unit
from segmentation.mask_sinks import IMPORTED
from segmentation.mask_writers.nifti import affine_of_unit
from segmentation.readers.grids import Fitted, planes_on
from segmentation.readers.volumes import Affine, as_tuple
from segmentation.records import MASK_THRESHOLD, StudyImage, Target, utc_now
from segmentation.review_index import Review, Verdict
from segmentation.stacks import LabelMap
from segmentation.study import Study

Mask = npt.NDArray[np.bool_]
ENDINGS = (".nii.gz", ".nii", ".nrrd")
"""What volumes and labels come as, ``.seg.nrrd`` among them."""
COUNTS = ("accepted", "edited", "unchanged", "left_empty")
"""Of slices: taken as they were, changed, reviewed before and left so, empty and not taken for a word."""
LONGEST_S = 1800.0
"""What came back later than this after it was handed out does not tell how long it took."""


def ending_of(name: str) -> str:
    """Return the ending of a file that a client names; nothing else of the name is used.

    Raises
    ------
    UserError
        If it is none of `ENDINGS`.
    """
    for ending in ENDINGS:
        if name.lower().endswith(ending):
            return ending
    raise UserError(
        f"Volumes and labels are read as NIfTI or NRRD ({', '.join(ENDINGS)}); choose one of them in Slicer's "
        "settings of MONAI Label."
    )


@dataclass(frozen=True)
class _Grid:
    """Where a unit's slices lie; of a picture, as it was handed out."""

    name: str
    shape: tuple[int, int, int]
    count: int
    affine: Affine | None
    source_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """Which labels of a label map are of which target, on a unit's own grid."""

    labels: Mapping[str, Sequence[int]]
    """Target id -> numbers; none where its segment is empty."""
    left_out: tuple[str, ...]
    """Segments that are of no target."""
    layered: bool
    """Whether segments can overlap, as in Slicer's own files; in others a voxel is of one."""
    read: Fitted

    def mask(self, number: int, image: StudyImage, target_id: str) -> Mask:
        """Return the mask (H, W) of a slice."""
        mask: Mask = np.zeros(image.shape[:2], np.bool_)
        for label in self.labels[target_id]:
            mask |= self.read(number, label)
        return mask


def read_drawn(path: Path, unit: Unit, targets: Mapping[str, str], segments: Sequence[str]) -> Drawn:
    """Read a label map.

    Parameters
    ----------
    targets : what each target's segment is called in Slicer, in lower case -> its id
    segments : the names of the label map's segments, in order: Slicer counts them from 1, whatever number it tells

    Raises
    ------
    UserError
        If it is no label map, lies on another grid than the unit, or has no segment of a target.
    """
    if path.name.endswith(".nrrd"):
        from segmentation.readers.nrrd import read_nrrd_labels as read
    else:
        from segmentation.readers.nifti import read_nifti_labels as read
    # A volume is cut as its images are, a picture as it was handed out: one slice, the third axis.
    axis = unit.volume.header.get("axis") if unit.volume is not None else None if unit.is_volume else 2
    found = read(path, axis)
    placed = _placed(unit, found)
    if not placed.exact:
        raise UserError(
            f"The label was drawn on another grid than {unit.name}; save it with that volume as the reference."
        )
    named = {number: name for number, name in found.labels.items() if name != f"label {number}"}
    layered = bool(named)
    if not layered:
        if not segments and len(found.labels) <= 1 and len(targets) == 1:
            segments = list(targets)
        named = dict(enumerate(segments, 1))
    labels: dict[str, list[int]] = {}
    for number, name in named.items():
        target_id = targets.get(name.casefold())
        if target_id is not None:
            labels.setdefault(target_id, []).extend([number] if number in found.labels else [])
    # A segment that is empty has no voxels to be found by.
    for name in segments:
        if name.casefold() in targets:
            labels.setdefault(targets[name.casefold()], [])
    known = {number for numbers in labels.values() for number in numbers}
    left_out = tuple(named.get(number, f"label {number}") for number in found.labels if number not in known)
    if not labels:
        raise UserError(
            f"The label has no segment of a target; name one of its segments {' or '.join(targets)}"
            f"{f', it has: {names}' if (names := ', '.join(left_out)) else ''}."
        )
    return Drawn(labels, left_out, layered, placed)


def _placed(unit: Unit, found: LabelMap) -> Fitted:
    affine = as_tuple(affine_of_unit(unit)[0])
    return planes_on(_Grid(unit.name, unit.images[0].shape, len(unit.images), affine), found)


@dataclass(frozen=True)
class Shown:
    """The mask of a slice as a client has it."""

    bits: bytes
    """Eight pixels a byte."""
    began: str
    """What a review of it says that it began as."""

    @classmethod
    def of(cls, mask: Mask, began: str) -> Shown:
        """Note a mask."""
        return cls(np.packbits(mask).tobytes(), began)

    @property
    def marked(self) -> bool:
        """Whether any pixel is."""
        return any(self.bits)

    def overlaps(self, other: Shown) -> bool:
        """Whether a pixel is marked in both."""
        return bool((np.frombuffer(self.bits, np.uint8) & np.frombuffer(other.bits, np.uint8)).any())


def inside(targets: Mapping[str, Target], target_id: str) -> set[str]:
    """Return the targets that a target is a part of."""
    found: set[str] = set()
    outer = targets[target_id].inside
    while outer is not None and outer in targets:
        found.add(outer)
        outer = targets[outer].inside
    return found


def disentangled(
    drawn: Drawn, targets: Mapping[str, Target], handed_out: Mapping[str, Sequence[Shown]]
) -> Drawn:
    """Return a label map's targets with what it could not hold: where one lies in another, a voxel is of both.

    Parameters
    ----------
    targets : by id
    handed_out : by target's id, the masks that a client has of the unit, slice by slice

    Raises
    ------
    UserError
        If masks that were handed out overlap otherwise, so that one of them would come back with a hole.
    """
    if drawn.layered:
        return drawn
    labels = {target_id: list(numbers) for target_id, numbers in drawn.labels.items()}
    for inner in drawn.labels:
        for outer in inside(targets, inner) & labels.keys():
            # An outer one that was neither asked for nor drawn is not there.
            if drawn.labels[outer] or outer in handed_out:
                labels[outer] += drawn.labels[inner]
    for one, other in itertools.combinations(labels.keys() & handed_out.keys(), 2):
        nested = one in inside(targets, other) or other in inside(targets, one)
        if not nested and any(map(Shown.overlaps, handed_out[one], handed_out[other])):
            raise UserError(
                f"{targets[one].name} and {targets[other].name} overlap, which this type of file cannot hold; in "
                "Slicer's settings of MONAI Label, allow overlapping segmentations, write .seg.nrrd as the file "
                "extension, and submit again."
            )
    return dataclasses.replace(drawn, labels=labels)


@dataclass
class Submission:
    """What an annotator says of a unit by submitting a label map."""

    study: Study
    run: str
    annotator: str
    empty: bool = False
    """Whether an empty slice always says that the target is not there."""
    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(COUNTS, 0)))
    _reviews: list[tuple[Review, Mask]] = field(default_factory=list)

    def judge(
        self, unit: Unit, target: Target, drawn: Drawn, handed_out: Sequence[Shown] | None
    ) -> list[Shown]:
        """Take the slices of one target, and return what the client has of it now.

        Parameters
        ----------
        handed_out : the masks that the label began as, slice by slice; None where there were none: an empty slice is
            nobody's word then
        """
        now = []
        for number, image in enumerate(unit.images):
            mask = drawn.mask(number, image, target.id)
            before = handed_out[number] if handed_out is not None else None
            now.append(Shown.of(mask, "reviewed"))
            same = before is not None and before.bits == now[-1].bits
            if self._stands(image, target, mask, untouched=same):
                self.counts["unchanged"] += 1
                continue
            # A volume's slice that was empty and is empty may never have been looked at.
            said = before is not None and (before.marked or not unit.is_volume)
            if not mask.any() and not said and not self.empty:
                self.counts["left_empty"] += 1
                continue
            verdict: Verdict = "accepted" if same else "edited"
            self.counts[verdict] += 1
            review = Review(
                image_id=image.id,
                target_id=target.id,
                annotator=self.annotator,
                subject=self.run,
                verdict=verdict,
                presence="present" if mask.any() else "absent",
                seconds_spent=0.0,
                reviewed_at=utc_now(),
                threshold=MASK_THRESHOLD,
                started_from="" if same or before is None else before.began,
                edits=() if same else (IMPORTED,),
            )
            self._reviews.append((review, mask))
        return now

    def _stands(self, image: StudyImage, target: Target, mask: Mask, *, untouched: bool) -> bool:
        """Whether a review stands that an untouched mask leaves as it is, or that says the same."""
        key = image.id, target.id
        if key not in self._reviewed:
            return False
        standing = self.study.reviewed_mask(*key)
        return untouched or (standing is not None and np.array_equal(standing, mask))

    @functools.cached_property
    def _reviewed(self) -> dict[tuple[str, str], Review]:
        return self.study.reviewed()

    def store(self, seconds: float) -> None:
        """Add the reviews, the time shared out among them."""
        each = round(seconds / len(self._reviews), 2) if self._reviews and seconds <= LONGEST_S else 0.0
        for review, mask in self._reviews:
            self.study.add_review(dataclasses.replace(review, seconds_spent=each), mask)


def standing_mask(
    study: Study, run: str, image_id: str, target_id: str, *, reviewed: bool
) -> tuple[Mask | None, str]:
    """Return the mask (H, W) that stands, and what a review calls it: a reviewer's own, else the student's."""
    mask = study.reviewed_mask(image_id, target_id) if reviewed else None
    if mask is not None:
        return mask, "reviewed"
    probability = study.prediction(run, image_id, target_id)
    return (None if probability is None else probability >= MASK_THRESHOLD), "student"
