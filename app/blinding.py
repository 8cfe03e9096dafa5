"""What an annotator may see while reading for a purpose. Nothing of Qt.

What is allowed is listed, not what is hidden: a layer that is new stays hidden from blind readers until it is put here.
"""

from __future__ import annotations

from app.scene import LAYERS, LayerName, Scene, bare, with_changes
from segmentation.review_index import Purpose

_SEEN_BY_SECOND_READERS: frozenset[LayerName] = frozenset(
    {"heatmap", "fixations", "scanpath", "levels", "student", "teacher", "disagreement", "words", "doubt"}
)
"""The mask that is judged and what made it, but nothing that people said of it."""

_FIELDS_FOR_SECOND_READERS = (
    "heatmap", "gaze", "levels", "thresholds", "level_map", "student", "teacher", "student_probability",
    "teacher_probability", "disagreement", "words", "doubt", "run_id", "simulated_from",
)  # fmt: skip


def allowed_layers(purpose: Purpose) -> frozenset[LayerName]:
    """Return the layers that may be shown while reading for a purpose.

    A second reader sees no review's mask and no true mask; who outlines for an audit sees the bare image.
    """
    if purpose == "audit":
        return frozenset()
    return _SEEN_BY_SECOND_READERS if purpose == "second-read" else frozenset(LAYERS)


def blinded(scene: Scene, purpose: Purpose) -> Scene:
    """Return a scene that holds no more than may be known while reading for a purpose.

    What is hidden is not in it at all, so that no key, probe or comparison can bring it up.
    """
    if purpose in ("review", "consensus"):
        return scene
    empty = bare(scene)
    if purpose == "audit":
        return empty
    return with_changes(empty, **{name: getattr(scene, name) for name in _FIELDS_FOR_SECOND_READERS})
