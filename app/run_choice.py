"""Whose masks are shown and judged: the student's of a run, or those of gaze alone."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QComboBox

from app.texts import short_name
from segmentation.review_queue import predicted_runs
from segmentation.run_list import read_name
from segmentation.runs import RunFolder
from segmentation.study import Study


class RunChoice(QComboBox):
    """Lists the runs that predicted, newest first, and last the gaze alone."""

    def __init__(self) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self.setToolTip(self.tr("Whose masks are shown and judged; of gaze alone, the widest level"))

    @property
    def run_id(self) -> str | None:
        """The run chosen; None for gaze alone."""
        run_id: str | None = self.currentData()
        return run_id

    @property
    def runs(self) -> list[tuple[str, str]]:
        """The ids and names of the runs listed."""
        listed = ((self.itemData(at), self.itemText(at)) for at in range(self.count()))
        return [(run_id, name) for run_id, name in listed if run_id]

    def list_runs(self, study: Study, run_id: str | None = None) -> None:
        """List a study's runs anew and choose one, else keep the one chosen; tells nobody that it may have changed."""
        chosen = run_id or self.run_id
        self.blockSignals(True)
        self.clear()
        for one in predicted_runs(study):
            name = read_name(RunFolder(study.runs_folder / one)) or short_name(one)
            self.addItem(self.tr("Student, run {run}").format(run=name), one)
        self.addItem(self.tr("Gaze alone (pseudo-masks)"), None)
        self.setCurrentIndex(max(0, self.findData(chosen) if chosen else 0))
        self.blockSignals(False)
