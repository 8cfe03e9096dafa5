"""What an annotator may see while reading for a purpose. Nothing of Qt.

What is allowed is listed, not what is hidden: a field of the scene that is new stays hidden from blind readers until it
is put here. Which layers there are to see follows from it (`app.scene.Scene.available`).
"""

from __future__ import annotations

from app.scene import Scene, bare, with_changes
from segmentation.review_index import Purpose

_FIELDS_FOR_SECOND_READERS = (
    "heatmap", "gaze", "levels", "thresholds", "level_map", "student", "teacher", "student_probability",
    "teacher_probability", "disagreement", "words", "doubt", "run_id", "simulated_from",
)  # fmt: skip
"""The mask that is judged and what made it, but nothing that people said of it: no review's mask and no true mask."""


def blinded(scene: Scene, purpose: Purpose) -> Scene:
    """Return a scene that holds no more than may be known while reading for a purpose.

    Who outlines for an audit sees the bare image. What is hidden is not in the scene at all, so that no key, probe or
    comparison can bring it up.
    """
    if purpose in ("review", "consensus"):
        return scene
    empty = bare(scene)
    if purpose == "audit":
        return empty
    return with_changes(empty, **{name: getattr(scene, name) for name in _FIELDS_FOR_SECOND_READERS})
