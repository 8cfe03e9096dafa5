"""The switch *Track my eyes while I review*, and what it tells of masks accepted without a look."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from app import theme
from app.canvas import Canvas
from app.eyes_on_mask import LOOKED_MS, EyesOnMask, ReviewTracker
from app.scene import Scene
from app.verdicts import Word
from app.widgets import box, label, set_role
from gaze_capture.errors import UserError
from segmentation.study import Study

HALF = 128
"""A probability of a half, as a scene holds it: 0..255."""


class LookedAt(QWidget):
    """Follows a tracker while the page is in view and the switch is on; it never keeps anyone from judging."""

    error = Signal(str, str)

    def __init__(self, canvas: Canvas, parent: QObject) -> None:
        super().__init__()
        self.tracker: Callable[[], ReviewTracker] | None = None
        """Returns the tracker to follow; UserError where there is none."""
        self.eyes = EyesOnMask(canvas, parent)
        self.eyes.told.connect(self._tell)
        self.eyes.failed.connect(self._on_failed)
        self.switch = QCheckBox(self.tr("Track my eyes while I review"))
        self.switch.setToolTip(
            self.tr("Tells of a mask accepted without a look at it. Only the time on the mask is stored.")
        )
        self.switch.toggled.connect(lambda _: self.follow(self.isVisible()))
        self.about = label("", "muted", wrap=True)
        self.about.hide()
        column = QVBoxLayout(self)
        box(column, spacing=theme.SMALL)
        column.addWidget(self.switch)
        column.addWidget(self.about)

    @property
    def on(self) -> bool:
        """Whether the eyes are followed, or are about to be."""
        return self.switch.isChecked()

    def follow(self, in_view: bool) -> None:
        """Follow the tracker while the page is in view and the switch on; let go of it else."""
        if not self.on or not in_view:
            self.eyes.stop()
            self._tell("", "muted")
            return
        if self.eyes.following or self.tracker is None:
            return
        try:
            self.eyes.start(self.tracker())
        except UserError as error:
            self._on_failed(str(error), "")

    def _on_failed(self, sentence: str, details: str) -> None:
        self.switch.setChecked(False)
        self._tell("", "muted")
        self.error.emit(sentence, details)

    def _tell(self, text: str, role: str) -> None:
        self.about.setText(text)
        set_role(self.about, role)
        self.about.setVisible(bool(text))

    def show_scene(self, study: Study, scene: Scene) -> None:
        """Count from now on how long the eyes are on the mask that is judged now: the student's, else the broad level.

        A scene that hides its masks, as an audit's does, has none to look at.
        """
        if self.on:
            student = scene.student_probability
            mask = scene.region if student is None else student >= HALF
            self.eyes.show(study, (scene.image_id, scene.target_id), mask)

    def on_mask_ms(self) -> float | None:
        """Return how long the eyes were on the mask until now; None where that cannot be told."""
        if not self.on:
            return None
        self.eyes.tick()
        return self.eyes.on_mask_ms

    def forget(self) -> None:
        """Count for no mask until the next is shown: a verdict was given."""
        self.eyes.forget()

    def flag(self, word: Word, on_mask_ms: float | None) -> str:
        """Return what is to be said of a verdict; empty where there is nothing."""
        if word != "accepted" or on_mask_ms is None or on_mask_ms >= LOOKED_MS:
            return ""
        told = self.tr("Accepted without a look at the mask ({seconds:.1f} s). Z takes it back.")
        return told.format(seconds=on_mask_ms / 1000)

    def close_all(self) -> None:
        """Let go of the tracker, and end the threads."""
        self.eyes.close()
