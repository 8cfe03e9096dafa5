"""How the record page lists images and volumes: by the gaze they have had. Nothing of Qt's events."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QCoreApplication

from app.image_list import Row
from app.volumes import Entry, common_state
from segmentation.study import Study

ORDER = ("gaze", "unsure", "ungradable", "absent", "none")
"""The first of these that a slice is in stands for its volume."""


def gaze_row(study: Study, entry: Entry, target_id: str, words: Mapping[str, str]) -> Row:
    """Return the row of an image or volume, by the gaze on a target; `words` names the states."""
    states = [_state(study, image_id, target_id) for image_id in entry.slices]
    state, _ = common_state(states, ORDER)
    token = "muted" if state == "none" else "accent"
    image = entry.image
    if entry.is_volume:
        looked = len(states) - states.count("none")
        count = f"{looked}/{len(states)}" if looked else ""
        return Row(image.id, entry.name, image, words[state], token, slices=entry.slices, count=count)
    detail = ""
    if state != "none":
        number = sum(len(item.duration_ms) for item in study.fixations[image.id, target_id])
        detail = QCoreApplication.translate("RecordPage", "{n} fixations").format(n=number)
    return Row(image.id, entry.name, image, words[state], token, detail)


def _state(study: Study, image_id: str, target_id: str) -> str:
    looks = study.fixations.get((image_id, target_id), [])
    if not looks:
        return "none"
    presence = looks[-1].presence
    return presence if presence in ("absent", "unsure", "ungradable") else "gaze"
