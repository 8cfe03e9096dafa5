"""A sitting's end, off the window's thread."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, QObject

from app.jobs import StepProgress, Task
from app.sitting import Sitting, save
from segmentation.study import Study


def saving(sitting: Sitting, study: Study, parent: QObject) -> Task:
    """Return the task that ends a sitting and detects its fixations; its result is their number."""

    def work(_: StepProgress) -> int:
        return save(sitting, study)

    return Task(work, QCoreApplication.translate("RecordPage", "Saving the recording"), parent)
