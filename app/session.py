"""The open study, its annotator and the current image; one signal says what changed."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Literal

from PySide6.QtCore import QObject, QSettings, Signal

from app.volumes import first_image
from gaze_capture.errors import UserError
from segmentation.study import Study

Change = Literal["study", "image", "target", "annotator", "data", "descriptions", "reviews", "runs"]
"""`study`: another one was opened; `data`: images, gaze, pseudo-masks or explanations came in;
`descriptions`: explanations alone did, and more are on their way."""


class Session(QObject):
    """What all pages share. Of a volume, the current image is the slice shown."""

    changed = Signal(str)
    """A Change."""
    failed = Signal(str)
    """Why the study could not be looked at again."""

    def __init__(self, settings: QSettings, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.settings = settings
        self.study: Study | None = None
        self.image_id: str | None = None
        self.target_id = "target"
        self.drafts: dict[tuple[str, ...], str] = {}
        """Own words that were typed and not kept yet: study folder, image, target and annotator."""
        self.annotator = str(settings.value("annotator", "") or _user())

    def open(self, folder: Path) -> None:
        """Open a study; UserError if it is none."""
        self.set_study(Study.open(folder))

    def set_study(self, study: Study) -> None:
        """Make a study the open one."""
        self.study = study
        self.target_id = study.targets[0].id
        self.image_id = first_image(study)
        recent = [str(study.folder), *(path for path in self.recent() if path != str(study.folder))]
        self.settings.setValue("recent", recent[:6])
        self.changed.emit("study")

    def recent(self) -> list[str]:
        """Return the folders of studies opened before that still exist, newest first."""
        stored = self.settings.value("recent", [])
        paths = [stored] if isinstance(stored, str) else list(stored or [])  # type: ignore[call-overload]
        return [path for path in paths if (Path(path) / "study.json").exists()]

    def set_image(self, image_id: str) -> None:
        """Make an image the current one."""
        if image_id != self.image_id:
            self.image_id = image_id
            self.changed.emit("image")

    def set_target(self, target_id: str) -> None:
        """Make a target the current one."""
        if target_id != self.target_id:
            self.target_id = target_id
            self.changed.emit("target")

    def settle(self) -> None:
        """Hold on to an image and a target that the study has; others may have been taken away."""
        if self.study is not None:
            if self.image_id not in self.study.images:
                self.image_id = first_image(self.study)
            if self.target_id not in {target.id for target in self.study.targets}:
                self.target_id = self.study.targets[0].id

    def set_annotator(self, annotator: str) -> None:
        """Name whose gaze and verdicts follow."""
        name = annotator.strip()
        if name and name != self.annotator:
            self.annotator = name
            self.settings.setValue("annotator", name)
            self.changed.emit("annotator")

    def refresh(self, what: Change) -> None:
        """Say that something in the study changed on disk."""
        if self.study is not None:
            if what == "data":
                try:
                    self.study.refresh()
                except UserError as error:
                    self.failed.emit(str(error))
                    return
            self.changed.emit(what)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "annotator"
