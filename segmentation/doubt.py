"""How much a mask is to be doubted in review, and why, in words. Never imports torch.

The score is about how far from 1 the mask's Dice with the truth is likely to be, 0..1:

    score = 1 - (1 - base) * product of (1 - warning)

``base`` is the mean of what is known of the student's mask:

``student``
    1 - `segmentation.uncertainty.Certainty.dice`: the entropy of its probability (expected Dice, Borges, Pacheco &
    Silva, arXiv 2402.10665), how alike its mirrored views are, and how alike the teacher's probability is.
``gaze``
    1 - Dice of the mask with the pseudo-mask's broadest level, the region that was looked at. Its reason tells how much
    of the dwell lies outside the mask, and how much of the mask nobody looked at.

Where the pseudo-mask itself is reviewed, ``base`` is

``levels``
    1 - Dice of its narrowest and its broadest level: where they lie far apart, the gaze tells no outline.

Warnings are what no pixel tells. Each is the share of its Dice that a mask lost, in the mean, where it held
(docs/adr/0025), so that two of them count for more than one:

``quality``
    The gaze behind a pseudo-mask: looked at briefly, few fixations inside, or held back by a gate. Of a student's mask
    such gaze says nothing: it is told, and ``gaze`` is left out.
``contradiction``
    A description's claim on area, place, number or shape that the mask itself contradicts. What the program measured in
    the gazed region says nothing new and is left out.
``word``
    An annotator said that the target is absent where there is a mask, or present where there is none; or could not
    tell.

How well the score orders masks was measured with gaze *simulated from masks*: docs/adr/0025.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.recording import UNDECIDED, Presence
from segmentation.claims import Check, checks_of, is_measured
from segmentation.explanation import load_explanation
from segmentation.gaze_gates import Gates
from segmentation.gaze_index import LookQuality, look_quality
from segmentation.measured import measure_form
from segmentation.metrics import dice
from segmentation.progress import Progress, no_progress
from segmentation.pseudomask import LevelsAndGaze, levels_and_gaze
from segmentation.records import Key
from segmentation.study import Mask, Study
from segmentation.uncertainty import Certainty, certainties, expected_dice

PartName = Literal["student", "gaze", "levels", "quality", "contradiction", "word"]

POOR_GAZE = 0.5
CONTRADICTED = 0.3
"""Of each claim; so much of their Dice masks lost, see docs/adr/0025."""
UNDECIDED_WORD, OPPOSED_WORD = 0.5, 1.0
"""By definition: who said that nothing is there leaves no mask a chance."""
TOLD = 0.2
"""Parts of a base below this are no reason for doubt; a warning always is."""
OUTSIDE_KERNELS = 0.5
"""Dwell further from the mask than so many widths of its kernel lies outside."""
UNSEEN_KERNELS = 2.0
"""Mask further from every fixation than so many widths of its kernel was not looked at."""
MOSTLY = 0.5
GRID_PX = 256
"""Distances are measured on a copy of at most so many pixels a side."""
FORM_CLAIMS = frozenset({"area_percent", "location", "count", "shape"})
"""Claims that a mask alone can contradict."""
READERS = 4


@dataclass(frozen=True)
class Part:
    """One piece of evidence against a mask."""

    name: PartName
    value: float
    """0..1, see the module."""
    reason: str
    """In plain words."""


@dataclass(frozen=True)
class Doubt:
    """How doubtful something is, 0..1, and why."""

    score: float
    reasons: tuple[str, ...]
    """In words, the weightiest first."""
    parts: tuple[Part, ...] = ()

    @property
    def why(self) -> frozenset[str]:
        """Names of the parts that are reasons."""
        return frozenset(part.name for part in self.parts if part.reason in self.reasons)


NO_DOUBT = Doubt(0.0, ())


def doubt_of(parts: Sequence[Part]) -> Doubt:
    """Combine parts to one score; see the module."""
    based = [part for part in parts if part.name in ("student", "gaze", "levels")]
    warned = [part for part in parts if part not in based]
    score = sum(part.value for part in based) / len(based) if based else 0.0
    for part in warned:
        score = 1 - (1 - score) * (1 - part.value)
    ordered = sorted(parts, key=lambda part: (-part.value, part in based))
    told = [part.reason for part in ordered if part in warned or part.value >= TOLD]
    return Doubt(score, tuple(told), tuple(ordered))


# The parts


def student_part(certainty: Certainty) -> Part | None:
    """Return how unsure the student is of its mask; None where nothing is known."""
    if certainty.dice is None:
        return None
    unsure = 1 - certainty.dice
    how = "unsure" if unsure > TOLD else "fairly sure"
    return Part("student", unsure, f"the student is {how} of its mask ({certainty.words()})")


def poor_gaze(quality: LookQuality | None, held_back: Sequence[str] = ()) -> str:
    """Return why gaze is not to be relied on: a gate held the last look back, or it was brief or lies beside.

    Empty where nothing speaks against it, or nobody looked.
    """
    if held_back:
        return f"to be looked at again: {'; '.join(held_back)}"
    return {"brief": "looked at briefly", "few": "few fixations inside"}.get(quality or "", "")


def word_part(word: Presence | None, *, empty: bool) -> Part | None:
    """Return what an annotator's word says against a mask, which may be empty; None where it says nothing."""
    if word in UNDECIDED:
        return Part("word", UNDECIDED_WORD, f"it was said to be {word}")
    if word == "absent" and not empty:
        return Part("word", OPPOSED_WORD, "the target was said to be absent, but there is a mask")
    if word == "present" and empty:
        return Part("word", OPPOSED_WORD, "the target was said to be present, but the mask is empty")
    return None


def contradiction_part(checks: Sequence[Check]) -> Part | None:
    """Return what claims on form and place a mask contradicts; None where it contradicts none."""
    found = [one for one in checks if one.verdict == "contradicts" and one.attribute in FORM_CLAIMS]
    if not found:
        return None
    value = 1 - (1 - CONTRADICTED) ** len(found)
    told = "; ".join(one.sentence.rstrip(".") for one in found)
    return Part("contradiction", value, f"the description contradicts the mask ({told})")


@dataclass(frozen=True)
class MaskNumbers:
    """What was worked out of a mask and the gaze behind it; None where there is nothing to work with."""

    empty: bool
    form: Mapping[str, float | None]
    """As `segmentation.measured.measure_form` gives it."""
    expected_dice: float | None = None
    """Of a prediction; see `segmentation.uncertainty.expected_dice`."""
    mismatch: float | None = None
    """1 - Dice with the pseudo-mask's broadest level, where that is not the mask itself."""
    outside: float | None = None
    """Share of the dwell that lies outside the mask."""
    unseen: float | None = None
    """Share of the mask that nobody looked at."""
    levels: float | None = None
    """1 - Dice of the narrowest and the broadest level."""


def gaze_part(numbers: MaskNumbers) -> Part | None:
    """Return how far a mask lies from where people looked; None where nobody did."""
    if numbers.mismatch is None:
        return None
    if numbers.empty:
        return Part("gaze", numbers.mismatch, "the mask is empty, but something was looked at")
    told = []
    if numbers.outside is not None and numbers.outside >= TOLD:
        much = "mostly" if numbers.outside > MOSTLY else "partly"
        told.append(f"the gaze lies {much} outside the mask ({100 * numbers.outside:.0f} % of it)")
    if numbers.unseen is not None and numbers.unseen >= TOLD:
        told.append(f"{100 * numbers.unseen:.0f} % of the mask was not looked at")
    words = " and ".join(told) or f"mask and pseudo-mask differ (Dice {1 - numbers.mismatch:.2f})"
    return Part("gaze", numbers.mismatch, words)


def levels_part(numbers: MaskNumbers) -> Part | None:
    """Return how far a pseudo-mask's levels lie apart; None of a single level."""
    if numbers.levels is None:
        return None
    return Part("levels", numbers.levels, f"its levels lie far apart (Dice {1 - numbers.levels:.2f})")


# Of pixels


def numbers_of(
    mask: Mask, gaze: LevelsAndGaze | None, probability: npt.NDArray[np.float32] | None = None
) -> MaskNumbers:
    """Work out of a mask (H, W) what its doubt needs.

    Parameters
    ----------
    gaze : its pseudo-mask; one of another size says nothing
    probability : (H, W) of a prediction; None where the mask is the pseudo-mask's own
    """
    if gaze is not None and gaze.level_map.shape != mask.shape:
        gaze = None
    height, width = mask.shape
    scale = min(1.0, GRID_PX / max(height, width))
    small = mask.astype(np.uint8)
    if scale < 1:
        sides = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(small, sides, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
    mismatch = outside = unseen = levels = None
    if gaze is not None:
        if probability is not None:
            mismatch = 1 - float(dice(mask, gaze.level_map >= 1))
        elif gaze.levels > 1:
            levels = 1 - float(dice(gaze.level_map >= gaze.levels, mask))
        outside, unseen = _apart(small, scale, gaze)
    return MaskNumbers(
        empty=not mask.any(),
        form=measure_form(small.astype(bool)),
        expected_dice=None if probability is None else expected_dice(probability),
        mismatch=mismatch,
        outside=outside,
        unseen=unseen,
        levels=levels,
    )


def _apart(
    small: npt.NDArray[np.uint8], scale: float, gaze: LevelsAndGaze
) -> tuple[float | None, float | None]:
    """Return which share of the dwell lies outside a mask, and which share of the mask lies far from all of it."""
    total = float(gaze.duration_ms.sum())
    if not total > 0:
        return None, None
    rows, columns = small.shape
    if not small.any():
        return 1.0, None
    x, y = ((gaze.xy_px + 0.5) * scale).astype(int).clip(0, [columns - 1, rows - 1]).T
    kernel = gaze.sigma_px.mean(axis=1) * scale
    distance = cv2.distanceTransform((small == 0).astype(np.uint8), cv2.DIST_L2, 5)
    outside = float(gaze.duration_ms[distance[y, x] > OUTSIDE_KERNELS * kernel].sum()) / total
    places = np.ones_like(small)
    places[y, x] = 0
    reach = cv2.distanceTransform(places, cv2.DIST_L2, 5)
    unseen = float((reach[small > 0] > UNSEEN_KERNELS * float(np.median(kernel))).mean())
    return outside, unseen


# Of a study


_Stamp = tuple[int, int]


class DoubtIndex:
    """Doubts of a study's masks; pixels are read once while their files stay the same. Safe to use in one thread."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._kept: dict[tuple[str | None, Key], tuple[tuple[_Stamp | None, _Stamp | None], MaskNumbers]] = {}

    def numbers(
        self, keys: Sequence[Key], run_id: str | None = None, progress: Progress = no_progress
    ) -> dict[Key, MaskNumbers]:
        """Return what is known of those masks that there are: of the run's student, else of the gaze.

        Raises
        ------
        UserError
            If a prediction or a pseudo-mask is damaged.
        """
        study = self._study
        gazed = _stamps(study.folder / "pseudomasks", ".npz")
        folder = study.prediction_path(run_id, "", "").parent if run_id is not None else None
        predicted = _stamps(folder, ".png") if folder is not None else {}
        found: dict[Key, MaskNumbers] = {}
        due: list[tuple[Key, str | None, tuple[_Stamp | None, _Stamp | None]]] = []
        for key in keys:
            stamps = predicted.get(key), gazed.get(key)
            if stamps == (None, None):
                continue
            subject = run_id if key in predicted else None
            kept = self._kept.get((subject, key))
            if kept is not None and kept[0] == stamps:
                found[key] = kept[1]
            else:
                due.append((key, subject, stamps))

        def work(item: tuple[Key, str | None, object]) -> MaskNumbers | None:
            key, subject, _ = item
            return self._read(key, subject)

        with ThreadPoolExecutor(max_workers=min(READERS, os.cpu_count() or 1)) as pool:
            for number, ((key, subject, stamps), numbers) in enumerate(
                zip(due, pool.map(work, due), strict=True)
            ):
                progress(number, len(due), key[0])
                if numbers is not None:
                    found[key] = numbers
                    self._kept[subject, key] = (stamps, numbers)
        return found

    def newest(self, run_id: str | None) -> tuple[int, int]:
        """Return number and time of the latest of the masks last worked out: others came in when it differs."""
        own = [stamps for (subject, _), (stamps, _) in self._kept.items() if subject == run_id]
        place = 1 if run_id is None else 0
        return len(own), max((stamp[0] for stamps in own if (stamp := stamps[place]) is not None), default=0)

    def _read(self, key: Key, run_id: str | None) -> MaskNumbers | None:
        study = self._study
        path = study.folder / "pseudomasks" / f"{key[0]}.{key[1]}.npz"
        gaze = None
        with contextlib.suppress(FileNotFoundError):
            gaze = levels_and_gaze(path.read_bytes(), path)
        probability = study.prediction(run_id, *key) if run_id is not None else None
        if probability is not None:
            return numbers_of(probability >= 0.5, gaze, probability)
        return None if gaze is None else numbers_of(gaze.level_map >= 1, gaze)

    def doubts(
        self,
        keys: Sequence[Key],
        run_id: str | None = None,
        *,
        gates: Gates | None = None,
        progress: Progress = no_progress,
    ) -> dict[Key, Doubt]:
        """Return how far masks are to be doubted, of those images and targets that have one.

        Parameters
        ----------
        run_id : whose student's masks are reviewed; where it has none, and with None, the pseudo-masks are

        Raises
        ------
        UserError
            If the study, a prediction or a pseudo-mask cannot be read.
        """
        study = self._study
        gates = gates or Gates(study)
        held = gates.look_again()
        said, explained = study.presences(), study.explanation_keys()
        sure = certainties(study, run_id) if run_id is not None else {}
        found = {}
        for key, numbers in self.numbers(keys, run_id, progress).items():
            certainty = sure.get(key) or Certainty(numbers.expected_dice)
            predicted = numbers.expected_dice is not None
            asked = gates.asked.get(key)
            # That someone wants another look says nothing against the gaze there is.
            failed = [reason for reason in held.get(key, ()) if asked is None or reason != asked.reason]
            poor = poor_gaze(look_quality(study.looks.get(key, ())), failed)
            parts = (
                student_part(certainty) if predicted else levels_part(numbers),
                None if poor else gaze_part(numbers),
                Part("quality", 0.0 if predicted else POOR_GAZE, poor) if poor else None,
                Part("quality", 0.0, asked.reason) if asked is not None else None,
                self._contradiction(key, numbers) if key in explained else None,
                word_part(said.get(key), empty=numbers.empty),
            )
            found[key] = doubt_of([part for part in parts if part is not None])
        return found

    def _contradiction(self, key: Key, numbers: MaskNumbers) -> Part | None:
        try:
            explanation = load_explanation(self._study, *key)
        except UserError:
            # A damaged one is named when its image is shown.
            return None
        if explanation is None or is_measured(explanation):
            return None
        return contradiction_part(checks_of(explanation, numbers.form))


def _stamps(folder: Path, ending: str) -> dict[Key, _Stamp]:
    """Return what tells each file from a later one of its name, by image and target."""
    found: dict[Key, _Stamp] = {}
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return found
    with entries:
        for entry in entries:
            if entry.name.endswith(ending) and not entry.name.startswith("."):
                image_id, _, target_id = entry.name.removesuffix(ending).partition(".")
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    found[image_id, target_id] = (status.st_mtime_ns, status.st_size)
    return found
