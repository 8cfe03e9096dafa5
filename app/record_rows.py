"""How the record page lists images and volumes: by the gaze they have had. Nothing of Qt's events."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QCoreApplication

from app.criteria import Row
from app.facts import Facts
from app.volumes import Entry, common_state
from segmentation.gaze_index import look_quality

ORDER = ("again", "gaze", "unsure", "ungradable", "absent", "none")
"""The first of these that a slice is in stands for its volume."""


def gaze_row(facts: Facts, entry: Entry, target_id: str, words: Mapping[str, str]) -> Row:
    """Return the row of an image or volume, by the gaze on a target; `words` names the states."""
    states = [_state(facts, image_id, target_id) for image_id in entry.slices]
    state, _ = common_state(states, ORDER)
    token = {"none": "muted", "again": "warning"}.get(state, "accent")
    image = entry.image
    if entry.is_volume:
        looked = len(states) - states.count("none")
        count = f"{looked}/{len(states)}" if looked else ""
        return Row(image.id, entry.name, image, words[state], token, slices=entry.slices, count=count)
    detail = ""
    if state != "none":
        number = sum(look.fixations for look in facts.looks[image.id, target_id])
        detail = QCoreApplication.translate("RecordPage", "{n} fixations").format(n=number)
    key = (image.id, target_id)
    return Row(
        image.id, entry.name, image, words[state], token, detail,
        presence=facts.said.get(key), quality=look_quality(facts.looks.get(key, ())),
    )  # fmt: skip


def _state(facts: Facts, image_id: str, target_id: str) -> str:
    looks = facts.looks.get((image_id, target_id), ())
    if not looks:
        return "none"
    if (image_id, target_id) in facts.again:
        return "again"
    presence = looks[-1].presence
    return presence if presence in ("absent", "unsure", "ungradable") else "gaze"
