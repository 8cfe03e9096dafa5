"""What the descriptions of all images say, for search and filter: read in a thread, each file once while it stands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from PySide6.QtCore import QObject, Signal

from app.criteria import Described
from app.description_origin import contradicted
from app.latest import Latest
from gaze_capture.errors import UserError
from segmentation.explanation import Explanation, load_explanation
from segmentation.records import Key
from segmentation.study import Study


@dataclass(frozen=True)
class _Read:
    stamp: tuple[int, int]
    described: Described


class DescribedImages(QObject):
    """By image and target; asked again, it reads only what has changed."""

    changed = Signal()
    """Something else is known now."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._study: Study | None = None
        self._known: Mapping[Key, _Read] = {}
        self._latest = Latest(self)
        self._latest.answered.connect(self._learn)

    def ask(self, study: Study) -> None:
        """Look what has changed; `changed` tells when something has."""
        if study is not self._study:
            self._study, self._known = study, {}
        known = self._known
        self._latest.ask(lambda: self._gather(study, known))

    def of(self, image_id: str, target_id: str) -> Described | None:
        """Return what is known so far."""
        read = self._known.get((image_id, target_id))
        return None if read is None else read.described

    def _gather(self, study: Study, known: Mapping[Key, _Read]) -> Mapping[Key, _Read]:
        found: dict[Key, _Read] = {}
        folder = study.folder / "explanations"
        try:
            entries = list(os.scandir(folder)) if folder.is_dir() else []
        except OSError:
            # The study is out of reach, which the window's watch tells of.
            return known
        for entry in entries:
            if not entry.name.endswith(".json") or entry.name.startswith("."):
                continue
            image_id, _, target_id = entry.name.removesuffix(".json").partition(".")
            key = (image_id, target_id)
            try:
                status = os.stat(entry.path)
                stamp = (status.st_mtime_ns, status.st_size)
                before = known.get(key)
                if before is not None and before.stamp == stamp:
                    found[key] = before
                    continue
                explanation = load_explanation(study, *key)
            except (OSError, UserError):
                # A damaged one is named when its image is shown.
                continue
            if explanation is not None:
                found[key] = _Read(stamp, self._described(explanation))
        return found

    def _described(self, explanation: Explanation) -> Described:
        return Described(
            by=explanation.backend,
            model=explanation.model,
            values=tuple(explanation.attributes.items()),
            text=explanation.text,
            edited=bool(explanation.edited),
            approved=bool(explanation.approved),
            contradicted=bool(contradicted(explanation)),
        )

    def _learn(self, found: Mapping[Key, _Read]) -> None:
        if found != self._known:
            self._known = found
            self.changed.emit()

    def stop(self) -> None:
        """End the thread."""
        self._latest.stop()
