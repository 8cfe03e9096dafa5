"""Adding, renaming and taking away the targets of a study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from gaze_capture.errors import UserError
from segmentation.records import Target
from segmentation.study import Study

TargetKind = Literal["lesion", "organ", "zone"]
KINDS: tuple[TargetKind, ...] = get_args(TargetKind)

COLOURS = (
    "#56B4E9",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#F0E442",
    "#D55E00",
    "#0072B2",
)
"""Okabe and Ito's colours, which people with every kind of colour vision tell apart; black is left out."""


def free_colour(targets: Sequence[Target]) -> str:
    """Return the colour that the fewest targets have, the first of :data:`COLOURS` where several are as rare."""
    used = [target.colour.upper() for target in targets]
    return min(COLOURS, key=used.count)


def add_target(
    study: Study,
    target_id: str,
    name: str | None = None,
    *,
    kind: TargetKind = "lesion",
    inside: str | None = None,
    code: str = "",
    colour: str | None = None,
) -> Target:
    """Add a target to a study; a colour that no other target has is chosen where none is given.

    Raises
    ------
    UserError
        If the id is taken or no file-name part, the colour is none, or it lies inside of what is no target.
    """
    if any(target.id == target_id for target in study.targets):
        raise UserError(f"The study has a target {target_id!r} already; give the new one an id of its own.")
    if colour is not None and not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
        raise UserError(f"{colour!r} is no colour; write it like {COLOURS[0]}.")
    target = Target(
        target_id, name or target_id, colour or free_colour(study.targets), kind, inside or None, code
    )
    study.set_targets([*study.targets, target])
    study.audit("add target", target=target_id)
    return target


def rename_target(study: Study, target_id: str, name: str) -> Target:
    """Give a target another name; its id, and all that is stored under it, stays.

    Raises
    ------
    UserError
        If there is no such target or the name is empty.
    """
    if not name.strip():
        raise UserError("A target's name should not be empty.")
    renamed = replace(study.target(target_id), name=name.strip())
    study.set_targets([renamed if target.id == target_id else target for target in study.targets])
    study.audit("rename target", target=target_id, name=renamed.name)
    return renamed


def remove_target(study: Study, target_id: str) -> None:
    """Take away a target of which the study holds nothing.

    Raises
    ------
    UserError
        If there is no such target, it is the last, another lies inside of it, or it has masks, gaze or reviews.
    """
    study.target(target_id)
    study.set_targets([target for target in study.targets if target.id != target_id])
    study.audit("remove target", target=target_id)
