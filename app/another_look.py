"""G in review: another look at this image, at once where a tracker was chosen, else in the next session."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject, Signal

from segmentation.look_again import Asked, ask_again, asked_again, take_back
from segmentation.study import Study


class AnotherLook(QObject):
    """Records at once, or marks; `record` begins a recording of an image and target, and returns whether it did."""

    notice = Signal(str)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.record: Callable[[str, str], bool] = lambda image_id, target_id: False

    def ask(self, study: Study, image_id: str, target_id: str, annotator: str) -> Asked | None:
        """Ask for another look; return the mark, or None where new gaze is being recorded, or one stands.

        Raises
        ------
        UserError
            If the study cannot be read or written.
        """
        if self.record(image_id, target_id):
            return None
        if (image_id, target_id) in asked_again(study):
            self.notice.emit(self.tr("This image is marked already: the next session shows it first."))
            return None
        asked = ask_again(study, image_id, target_id, annotator)
        self.notice.emit(
            self.tr(
                "Marked to be looked at again: the next session shows it first. Z takes it back. With a tracker chosen "
                "on Record, G records at once."
            )
        )
        return asked

    def take_back(self, study: Study, asked: Asked) -> None:
        """Withdraw a mark.

        Raises
        ------
        UserError
            If the study cannot be written.
        """
        take_back(study, asked)
        self.notice.emit(self.tr("No longer marked to be looked at again."))
