"""A sitting's end, off the window's thread."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, QObject

from app.jobs import StepProgress, Task
from app.sitting import Sitting, save
from segmentation.pseudomask_making import make_one
from segmentation.study import Study


def saving(sitting: Sitting, study: Study, parent: QObject, remake: tuple[str, str] | None = None) -> Task:
    """Return the task that ends a sitting and detects its fixations; its result is their number.

    The pseudo-mask of the image and target `remake` is made anew with them.
    """

    def work(_: StepProgress) -> int:
        count = save(sitting, study)
        if remake is not None:
            make_one(study, *remake)
        return count

    return Task(work, QCoreApplication.translate("RecordPage", "Saving the recording"), parent)
