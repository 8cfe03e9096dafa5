"""Which images a session shows an annotator, and in what order.

What is ordered are units: single images, and whole volumes, whose slices stay together in their own order.

``random``
    By a hash of study, annotator, seed and unit: another order for each annotator, the same one whenever the session
    is resumed, and images that come in later change nothing about the order of the others.
``counterbalanced``
    Rows of a Williams design (Williams 1949), a Latin square in which, over a full set of annotators, each unit stands
    in each place equally often and follows each other unit equally often. A full set is as many annotators as units
    (twice as many for an odd number), so rows are handed out so that few annotators come close to it: annotators 1 and
    2, 3 and 4, ... get an order and its reverse, over which every unit's mean place is the same and anything that grows
    evenly in the course of a session (fatigue, drift) cancels; the pairs' rows are spread over the square. The
    annotator's number is their place in the order in which annotators first recorded; who has not yet comes next.
``by-doubt``
    The highest :func:`doubts` first.

Whatever the order, what a reviewer asked to be looked at again (`segmentation.look_again`) comes first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gaze_capture.recording import UNDECIDED
from segmentation.doubt import Doubt, poor_gaze, student_part
from segmentation.gaze_gates import Gates
from segmentation.gaze_index import look_quality
from segmentation.progress import Progress, no_progress
from segmentation.records import Key
from segmentation.session_options import SessionOptions
from segmentation.study import Study
from segmentation.uncertainty import certainties, certainty_of

VOLUME_SEEN = 0.5
"""A volume of which so large a share of slices was looked at has been looked at: nobody stops at every slice."""

NO_GAZE, LOOK_AGAIN, REJECTED, BRIEF, FEW, UNDECIDED_DOUBT, STUDENT = 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4
"""Scores of doubt; the student's uncertainty counts up to STUDENT."""


@dataclass(frozen=True)
class SessionItem:
    """One image to be shown for one target."""

    image_id: str
    target_id: str | None
    """None while viewing freely."""
    again: bool = False
    """Whether it is shown again because an earlier look of this annotator was not good enough."""
    reasons: tuple[str, ...] = ()
    """Why it is shown again, or (by doubt) why it is shown so early."""


def session_order(
    study: Study,
    annotator: str,
    options: SessionOptions,
    *,
    target_ids: Sequence[str | None] | None = None,
    split: str | None = None,
    run_id: str | None = None,
    progress: Progress = no_progress,
) -> list[SessionItem]:
    """Return what a session shows, one item a slice and target: all slices of a volume for one target, then the next.

    Parameters
    ----------
    target_ids : what is looked for, one after the other in each image or volume; ``[None]`` while viewing freely;
        default: every target
    run_id : whose predictions count by doubt

    Raises
    ------
    UserError
        If the split is named and empty, or the study cannot be read.
    """
    chosen = [target.id for target in study.targets] if target_ids is None else list(target_ids)
    units = units_of(study, split)
    gates = Gates(study)
    again = gates.look_again(annotator)
    done = _looked(study, annotator)
    wanted: dict[str, list[SessionItem]] = {}
    doubted: Mapping[Key, Doubt] = {}
    if options.order == "by-doubt":
        keys = [
            (image_id, name)
            for slices in units.values()
            for image_id in slices
            for name in _counting(study, chosen)
        ]
        doubted = doubts(study, keys, run_id=run_id, gates=gates, progress=progress)
    for unit, slices in units.items():
        items = []
        for target_id in chosen:
            names = _counting(study, [target_id])
            repeated = {
                reason: None for image in slices for name in names for reason in again.get((image, name), ())
            }
            seen = sum(all((image, name) in done for name in names) for image in slices)
            if options.skip_seen and not repeated and seen >= max(1.0, VOLUME_SEEN * len(slices)):
                continue
            why = tuple(repeated) or tuple(
                dict.fromkeys(
                    reason
                    for image in slices
                    for name in names
                    for reason in (doubted[image, name].reasons if (image, name) in doubted else ())
                )
            )
            items += [SessionItem(image, target_id, bool(repeated), why) for image in slices]
        if items:
            wanted[unit] = items
    names = _counting(study, chosen)
    # Sorting keeps the order of those that are alike.
    ordered = sorted(
        _ordered(study, annotator, options, units, doubted),
        key=lambda unit: not any((image, name) in gates.asked for image in units[unit] for name in names),
    )
    return [item for unit in ordered for item in wanted.get(unit, ())]


def units_of(study: Study, split: str | None = None) -> dict[str, tuple[str, ...]]:
    """Return the image ids of each unit, by the id of its volume or image, in the order they came in."""
    units: dict[str, tuple[str, ...]] = {}
    for image in study.images_of(split):
        unit = image.volume or image.id
        if unit not in units:
            slices = study.volumes[unit] if image.volume else (image.id,)
            units[unit] = tuple(name for name in slices if split is None or study.image(name).split == split)
    return units


def _counting(study: Study, target_ids: Sequence[str | None]) -> list[str]:
    """Return the targets that looks for these count for: free viewing counts for all."""
    if None in target_ids:
        return [target.id for target in study.targets]
    return [name for name in target_ids if name is not None]


def _looked(study: Study, annotator: str) -> set[Key]:
    return {key for key, looks in study.looks.items() if any(look.annotator == annotator for look in looks)}


def _ordered(
    study: Study,
    annotator: str,
    options: SessionOptions,
    units: Mapping[str, tuple[str, ...]],
    doubted: Mapping[Key, Doubt],
) -> list[str]:
    names = list(units)
    if options.order == "random":
        return sorted(names, key=_shuffle(study.uid, annotator, str(options.seed)))
    if options.order == "counterbalanced":
        base = sorted(names, key=_shuffle(study.uid, "", str(options.seed)))
        return [base[place] for place in counterbalanced(len(base), annotator_number(study, annotator))]
    if options.order == "by-doubt":
        of_image: dict[str, float] = {}
        for (image, _), doubt in doubted.items():
            of_image[image] = max(doubt.score, of_image.get(image, 0.0))
        worst = {unit: max(of_image.get(image, 0.0) for image in units[unit]) for unit in names}
        return sorted(names, key=lambda unit: -worst[unit])
    return names


def _shuffle(*words: str) -> Callable[[str], bytes]:
    return lambda unit: hashlib.sha256("\0".join((*words, unit)).encode()).digest()


def annotator_number(study: Study, annotator: str) -> int:
    """Return an annotator's place, from 0, in the order in which annotators first recorded in the study.

    Two who begin at the same moment on two workstations get the same one.
    """
    recordings = set(study.recording_ids())
    first: dict[str, str] = {}
    for look in study.fixations.each_look():
        if look.source in recordings:
            first[look.annotator] = min(look.source, first.get(look.annotator, look.source))
    known = sorted(first, key=lambda name: first[name])
    return known.index(annotator) if annotator in known else len(known)


def counterbalanced(count: int, annotator: int) -> list[int]:
    """Return the order of units 0..count-1 for the annotator of a number, counted from 0; see the module's text."""
    if count < 2:
        return list(range(count))
    # Of an even square the reverse of a row is a row of it; of an odd one it belongs to the design's second square.
    pairs = count // 2 if count % 2 == 0 else count
    shift = _spread(pairs)[(annotator // 2) % pairs]
    zigzag = [(place + 1) // 2 if place % 2 else (count - place // 2) % count for place in range(count)]
    order = [(step + shift) % count for step in zigzag]
    return order[::-1] if annotator % 2 else order


def _spread(count: int) -> list[int]:
    """Return 0..count-1 such that any first few lie far apart: reversed bits, those beyond left out."""
    bits = max(1, (count - 1).bit_length())
    reversed_bits = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits))
    return [number for number in reversed_bits if number < count]


def doubts(
    study: Study,
    keys: Sequence[Key],
    *,
    run_id: str | None = None,
    gates: Gates | None = None,
    progress: Progress = no_progress,
) -> dict[Key, Doubt]:
    """Return how doubtful images are for targets.

    The largest of: no gaze yet 1, to be looked at again 0.9, mask rejected in review 0.8, looked at briefly 0.7, few
    fixations inside 0.6, said to be unsure or ungradable 0.5, and up to 0.4 by how far from 1 the Dice of the run's
    student is likely to be (`segmentation.uncertainty.Certainty.dice`, read from what was stored while predicting). An
    accepted or edited mask settles all: 0.

    Raises
    ------
    UserError
        If the study cannot be read.
    """
    judged = (gates or Gates(study)).look_again()
    said, reviewed = study.presences(), study.reviewed()
    predicted = study.prediction_keys(run_id) if run_id else set()
    sure = certainties(study, run_id) if run_id else {}
    found: dict[Key, Doubt] = {}
    for number, key in enumerate(keys):
        progress(number, len(keys), key[0])
        review = reviewed.get(key)
        if review is not None and review.verdict != "rejected":
            found[key] = Doubt(0.0, ())
            continue
        scored: list[tuple[float, str]] = []
        quality = look_quality(study.looks.get(key, ()))
        if quality is None:
            scored.append((NO_GAZE, "no gaze yet"))
        if key in judged:
            scored.append((LOOK_AGAIN, "to be looked at again"))
        if review is not None:
            scored.append((REJECTED, "its mask was rejected"))
        if poor := poor_gaze(quality):
            scored.append((BRIEF if quality == "brief" else FEW, poor))
        if (word := said.get(key)) in UNDECIDED:
            scored.append((UNDECIDED_DOUBT, f"said to be {word}"))
        if run_id is not None and key in predicted:
            student = student_part(sure.get(key) or certainty_of(study, run_id, key))
            if student is not None:
                scored.append((STUDENT * student.value, student.reason))
        scored.sort(key=lambda item: -item[0])
        found[key] = Doubt(
            scored[0][0] if scored else 0.0, tuple(reason for score, reason in scored if score)
        )
    progress(len(keys), len(keys), "")
    return found
