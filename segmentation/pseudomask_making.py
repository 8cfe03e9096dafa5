"""Pseudo-masks of a whole study: which looks count, and what became of every image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from gaze_capture.errors import UserError
from gaze_capture.recording import UNDECIDED
from segmentation.gaze_gates import Gates
from segmentation.progress import Progress, no_progress
from segmentation.prompts import Segment
from segmentation.pseudomask import PseudoMask, PseudoMaskSettings, make_pseudomask
from segmentation.records import StudyImage, Target
from segmentation.study import Study

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    label: Callable[[_Item], str],
    progress: Progress,
) -> Iterator[tuple[_Item, _Result]]:
    """Apply a function to items on all cores but report, yield and stop in order."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for number, (item, future) in enumerate(zip(items, futures, strict=True)):
                progress(number, len(items), label(item))
                yield item, future.result()
        finally:
            for future in futures:
                future.cancel()
    progress(len(items), len(items), "")


@dataclass(frozen=True)
class PseudoMaskReport:
    """What became a pseudo-mask and what did not."""

    made: int
    waiting: int
    """Images without gaze."""
    absent: int
    """Images whose annotator said that the target is absent: they need no mask to teach."""
    undecided: int
    """Images whose annotator was unsure or called them ungradable: they teach nothing of the target."""
    look_again: tuple[tuple[str, str], ...]
    """(image id, reasons): their gaze is not good enough, and nobody has overruled that."""
    empty: tuple[str, ...]
    """Images whose gaze holds no fixation that counts."""
    failed: tuple[tuple[str, str], ...]
    """(image id, reason)"""
    of_others: int = 0
    """Images without gaze of the annotators chosen that keep the pseudo-mask they had."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PseudoMaskReport:
        """Build a report from what a worker told of it."""
        pairs = {name: tuple(tuple(pair) for pair in values[name]) for name in ("look_again", "failed")}
        return cls(**{**values, "empty": tuple(values["empty"]), **pairs})


def _ids(key: tuple[StudyImage, Target]) -> tuple[str, str]:
    return key[0].id, key[1].id


def make_pseudomasks(
    study: Study,
    *,
    settings: PseudoMaskSettings | None = None,
    segment: Segment | None = None,
    split: str | None = None,
    progress: Progress = no_progress,
) -> PseudoMaskReport:
    """Make the pseudo-masks of all images with gaze; new settings become the study's own.

    Looks that a gate held back do not count, unless overruled; an image without any other waits to be looked at again.
    `segment` answers for the refiner ``sam``.

    Raises
    ------
    UserError
        If no image has gaze, or none of the annotators that the settings name.
    """
    chosen = (settings or study.pseudomask_settings).annotators
    if chosen is not None:
        study.check_annotators(chosen)
    if settings is not None and settings != study.pseudomask_settings:
        study.set_pseudomask_settings(settings)
    keys = [(image, target) for image, target in study.iterate_keys(split)]
    with_gaze = [
        (image, target)
        for image, target in keys
        if any(
            chosen is None or look.annotator in chosen for look in study.looks.get((image.id, target.id), ())
        )
    ]
    if not with_gaze:
        raise UserError("No image has gaze yet; record, simulate or import some first.")
    said = study.presences(chosen)
    words = [said.get((image.id, target.id)) for image, target in with_gaze]
    todo = [
        key for key, word in zip(with_gaze, words, strict=True) if word != "absent" and word not in UNDECIDED
    ]

    gates = Gates(study)
    held = [key for key in todo if not gates.usable(_ids(key), study.looks[_ids(key)])]
    reasons = gates.look_again()
    barred = {_ids(key) for key in held}
    todo = [key for key in todo if _ids(key) not in barred]
    for image, target in held:
        # One made before its gaze was judged, or of looks that failed, would go on teaching.
        study.remove_pseudomask(image.id, target.id)

    def make(key: tuple[StudyImage, Target]) -> PseudoMask | UserError | None:
        try:
            return _make(study, gates, key[0], key[1].id, segment)
        except UserError as error:
            return error

    made, empty, failed = 0, [], []
    for (image, _), result in in_threads(make, todo, lambda key: key[0].id, progress):
        if isinstance(result, PseudoMask):
            study.save_pseudomask(result)
            made += 1
        elif result is None:
            empty.append(image.id)
        else:
            # An image that cannot be read is passed over; a study that is gone ends the work.
            study.check_there()
            failed.append((image.id, str(result)))
    seen = {(image.id, target.id) for image, target in with_gaze}
    others = {(image.id, target.id) for image, target in keys} - seen
    study.audit("pseudomask", made=made, look_again=len(held), settings=study.pseudomask_settings.to_json())
    return PseudoMaskReport(
        made=made,
        waiting=len(keys) - len(with_gaze),
        absent=words.count("absent"),
        undecided=sum(word in UNDECIDED for word in words),
        look_again=tuple(
            (image.id, "; ".join(reasons.get((image.id, target.id), ()))) for image, target in held
        ),
        empty=tuple(empty),
        failed=tuple(failed),
        of_others=len(others & study.pseudomask_keys()) if chosen is not None else 0,
    )


def _make(
    study: Study, gates: Gates, image: StudyImage, target_id: str, segment: Segment | None
) -> PseudoMask | None:
    """Make one pseudo-mask; None where no gaze counts, UserError where the image cannot be read."""
    settings, key = study.pseudomask_settings, (image.id, target_id)
    pixels = study.guide(image)
    fixations = [
        item
        for item in gates.usable(key, study.fixations[key])
        if settings.annotators is None or item.annotator in settings.annotators
    ]
    return make_pseudomask(pixels, fixations, settings, target_id, segment)


def make_one(study: Study, image_id: str, target_id: str) -> bool:
    """Make the pseudo-mask of one image and target anew, by the study's settings; return whether there is one now.

    It is made of what was looked at, unless the latest word is that the target is absent, or cannot be told.

    Raises
    ------
    UserError
        If the image cannot be read, or the settings name a segmenter, which runs elsewhere.
    """
    if study.pseudomask_settings.refine == "sam":
        raise UserError("This study's pseudo-masks need a segmenter: make them again on the page Study.")
    word = study.presence(image_id, target_id)
    made = None
    if (image_id, target_id) in study.fixations and word != "absent" and word not in UNDECIDED:
        made = _make(study, Gates(study), study.image(image_id), target_id, None)
    if made is None:
        study.remove_pseudomask(image_id, target_id)
        return False
    study.save_pseudomask(made)
    study.audit("pseudomask", made=1, image=image_id, target=target_id)
    return True
