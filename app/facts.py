"""What the lists of images say of each: gathered in a thread, from names and headers. Nothing of Qt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gaze_capture.fixation_table import Look
from gaze_capture.recording import Presence
from segmentation.gaze_gates import Gates
from segmentation.records import Key
from segmentation.study import Review, Study


@dataclass(frozen=True)
class Facts:
    """By image and target; whoever gives a verdict keeps them up to date."""

    looks: Mapping[Key, list[Look]] = field(default_factory=dict)
    said: dict[Key, Presence] = field(default_factory=dict)
    """The latest word on presence."""
    reviews: dict[Key, Review] = field(default_factory=dict)
    """The latest of each."""
    again: frozenset[Key] = frozenset()
    """Those whose latest gaze is not good enough to learn from."""
    masked: set[Key] = field(default_factory=set)
    """Those with a pseudo-mask, or a prediction of the run asked for."""


def gather(study: Study, run_id: str | None = None) -> Facts:
    """Read what the lists show of a study; `run_id` names whose predictions count."""
    # The images too, so that the window's thread finds them read.
    assert study.images is not None
    predictions = study.prediction_keys(run_id) if run_id else set()
    return Facts(
        study.looks,
        study.presences(),
        study.reviewed(),
        frozenset(Gates(study).look_again()),
        predictions | study.pseudomask_keys(),
    )
