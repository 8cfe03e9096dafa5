"""Voice notes in a sitting: begun and ended with a key, and ended by themselves where they cannot go on."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QObject, Signal

from app.record_panel import RecordPanel
from app.sound import VoiceRecorder
from gaze_capture.errors import UserError


class VoiceNotes(QObject):
    """One note at a time, of the image that is shown; the panel tells how long it is."""

    failed = Signal(str, str)
    """A sentence, and details."""

    def __init__(self, panel: RecordPanel, parent: QObject) -> None:
        super().__init__(parent)
        self._panel = panel
        self._recorder = VoiceRecorder()

    def toggle(self, folder: Path, image_id: str, target_id: str | None) -> None:
        """Begin a note in a recording's folder, or end the one that is spoken."""
        if self._recorder.on:
            self.end()
            return
        try:
            self._recorder.start(folder, image_id, target_id)
        except UserError as error:
            self.failed.emit(str(error), "")

    def end(self) -> None:
        """End the note that is being spoken, if any."""
        try:
            self._recorder.stop()
        except UserError as error:
            self.failed.emit(str(error), "")

    def tick(self, *, wanted: bool) -> None:
        """End a note that is as long as it may be, or that the microphone left; show how long it is.

        Parameters
        ----------
        wanted
            Whether notes are spoken in this sitting.
        """
        if trouble := self._recorder.trouble:
            self.failed.emit(trouble, "")
        if self._recorder.full or trouble:
            self.end()
        self._panel.show_voice(wanted=wanted, seconds=self._recorder.seconds)
