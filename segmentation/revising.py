"""What people make of an explanation: edits, approval, taking either back, and which answer counts.

Every change is checked against what is stored now, saved with its history, and leaves a line in the audit log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.storage import locked, make_folder
from segmentation.explainers.backend import with_source
from segmentation.explanation import (
    Explanation,
    choose_explanation,
    load_explanation,
    preset_of,
    save_explanation,
)
from segmentation.explanation_presets import OPEN_WORDS, Preset
from segmentation.records import utc_now
from segmentation.reply import MAX_REMARKS, check_attributes, plain_text
from segmentation.study import Study


class ChangedElsewhere(UserError):
    """Another window or computer stored something else meanwhile; nothing was written."""

    def __init__(self, stored: Explanation | None) -> None:
        who = f" by {stored.revised_by}" if stored is not None and stored.revised_by else ""
        if stored is None:
            super().__init__("The description was removed meanwhile; nothing was stored.")
        else:
            super().__init__(
                f"The description was changed meanwhile{who}; it is shown as it is now, and your change was not stored."
            )
        self.stored = stored


def edit(study: Study, explanation: Explanation, name: str, value: Any, annotator: str) -> Explanation:
    """Store another value of one attribute; it counts as approved, and what the backend said stays beside it.

    Saying what the backend said approves that.

    Parameters
    ----------
    explanation : as it was shown
    value : a word of the attribute, a number, or a text, which is put on one line

    Raises
    ------
    UserError
        If the preset does not know the attribute or the value, or the study cannot be written.
    ChangedElsewhere
        If something else is stored by now.
    """
    preset = preset_of(explanation, study.folder)
    value = _checked(preset, name, value)
    original = explanation.attributes if explanation.original is None else explanation.original
    attributes = {**explanation.attributes, name: value}
    edited = {*explanation.edited, name} if value != original.get(name) else {*explanation.edited} - {name}
    approved = {*explanation.approved, name}
    revised = _in_words(_revised(explanation, attributes, original, edited, approved, annotator), preset)
    was = explanation.attributes.get(name)
    return _store(study, explanation, revised, "edit", attribute=name, was=was, now=value)


def approve(
    study: Study, explanation: Explanation, annotator: str, names: Collection[str] | None = None
) -> Explanation:
    """Store that somebody confirmed attributes; None confirms all of them.

    Raises
    ------
    UserError
        If an attribute is unknown, or the study cannot be written.
    ChangedElsewhere
        If something else is stored by now.
    """
    wanted = list(explanation.attributes) if names is None else list(names)
    unknown = [name for name in wanted if name not in explanation.attributes]
    if unknown:
        raise UserError(
            f"The description of {explanation.image_id} has no attribute {unknown[0]!r} to approve."
        )
    approved = {*explanation.approved, *wanted}
    revised = _revised(
        explanation, explanation.attributes, explanation.original, explanation.edited, approved, annotator
    )
    return _store(study, explanation, revised, "approve", attributes=wanted)


def revert(study: Study, explanation: Explanation, name: str, annotator: str) -> Explanation:
    """Store again what the backend said of an attribute; nobody has approved it then.

    Raises
    ------
    UserError
        If the attribute was not edited, or the study cannot be written.
    ChangedElsewhere
        If something else is stored by now.
    """
    if explanation.original is None or name not in explanation.edited:
        raise UserError(f"{name!r} of {explanation.image_id} was not edited; there is nothing to revert.")
    preset = preset_of(explanation, study.folder)
    attributes = {**explanation.attributes, name: explanation.original.get(name)}
    edited, approved = {*explanation.edited} - {name}, {*explanation.approved} - {name}
    revised = _revised(explanation, attributes, explanation.original, edited, approved, annotator)
    revised = _in_words(revised, preset)
    was, now = explanation.attributes.get(name), attributes[name]
    return _store(study, explanation, revised, "revert", attribute=name, was=was, now=now)


def take_back(study: Study, now: Explanation, before: Explanation, annotator: str) -> Explanation:
    """Undo: let what was there before a change count again; the history keeps both.

    Raises
    ------
    UserError
        If the study cannot be written.
    ChangedElsewhere
        If something else than `now` is stored by now.
    """
    with _unchanged(study, now):
        save_explanation(study, before)
        study.audit("explanation undo", image=now.image_id, target=now.target_id, annotator=annotator)
    return before


def use(study: Study, now: Explanation, chosen: Explanation, annotator: str) -> Explanation:
    """Let another answer of the history count.

    Raises
    ------
    UserError
        If the study cannot be written.
    ChangedElsewhere
        If something else than `now` is stored by now.
    """
    with _unchanged(study, now):
        choose_explanation(study, chosen)
        study.audit(
            "explanation use", image=chosen.image_id, target=chosen.target_id, annotator=annotator,
            backend=chosen.backend, model=chosen.model, created=chosen.created,
        )  # fmt: skip
    return chosen


def distinct_answers(history: Iterable[Explanation], current: Explanation | None) -> list[Explanation]:
    """Return the latest answer of each backend and model, and the latest that people touched, by who answered first.

    What counts is among them, whatever is newer.
    """
    latest: dict[tuple[str, str, bool], Explanation] = {}
    for one in (*history, *([] if current is None else [current])):
        latest[one.backend, one.model, one.touched] = one
    return list(latest.values())


def is_approved(explanation: Explanation) -> bool:
    """Whether somebody confirmed everything that is said; what could not be assessed needs no word."""
    said = {name for name, value in explanation.attributes.items() if says_something(value)}
    return bool(explanation.approved) and said <= {*explanation.approved}


def says_something(value: Any) -> bool:
    """Whether an attribute's value is more than that nothing is there or can be said."""
    return value not in (None, "") and value not in OPEN_WORDS


def _checked(preset: Preset, name: str, value: Any) -> Any:
    if name not in preset:
        raise UserError(
            f"The preset {preset.id!r} has no attribute {name!r}; choose one of: {', '.join(preset.names)}."
        )
    if isinstance(value, str) and preset[name].kind == "text":
        value = plain_text(value, MAX_REMARKS)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} must be a number; not {value}.")
    alone = dataclasses.replace(preset, attributes=(preset[name],))
    problems = check_attributes({name: value}, alone)
    if problems:
        raise UserError(f"{problems[0]}.")
    return value


@contextlib.contextmanager
def _unchanged(study: Study, explanation: Explanation) -> Iterator[None]:
    """Let nobody else write while something is stored in place of an explanation, if it still is what counts."""
    path = study.explanation_path(explanation.image_id, explanation.target_id)
    make_folder(path.parent, within=study.folder)
    with locked(path):
        stored = load_explanation(study, explanation.image_id, explanation.target_id)
        if stored != explanation:
            raise ChangedElsewhere(stored)
        yield


def _revised(
    explanation: Explanation,
    attributes: dict[str, Any],
    original: dict[str, Any] | None,
    edited: Collection[str],
    approved: Collection[str],
    annotator: str,
) -> Explanation:
    return dataclasses.replace(
        explanation,
        attributes=attributes,
        original=original if edited else None,
        edited=tuple(name for name in attributes if name in edited),
        approved=tuple(name for name in attributes if name in approved),
        revised_by=annotator,
        revised_at=utc_now(),
    )


def _store(
    study: Study, before: Explanation, revised: Explanation, action: str, **values: Any
) -> Explanation:
    with _unchanged(study, before):
        save_explanation(study, revised)
        study.audit(
            f"explanation {action}",
            image=revised.image_id,
            target=revised.target_id,
            annotator=revised.revised_by,
            **values,
        )
    return revised


def _in_words(explanation: Explanation, preset: Preset) -> Explanation:
    """Write its text anew: where the words come from, then the words."""
    edited_by = explanation.revised_by if explanation.edited else ""
    text = with_source(explanation.backend, explanation.model, explanation.attributes, preset, edited_by)
    return dataclasses.replace(explanation, text=text)
