"""What the study page can bring out: a dialog, then a task, then what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject

from app.jobs import StepProgress, Task
from app.page import Page

if TYPE_CHECKING:
    # The dialog is imported when it is first opened: the window should be there at once.
    from app.export_choice import ExportChoice, Exported, What

MOST_NOTES = 2
"""So many things that were left out are told at once; the manifest has all."""


class StudyExports(QObject):
    """Opens the dialog of a page and starts what it decides."""

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        self._page = page

    def choose(self, what: What = "masks") -> None:
        """Ask what to export."""
        study = self._page.session.study
        if study is None:
            return
        from app.export_dialog import ExportDialog

        dialog = ExportDialog(self._page, study, what)
        dialog.chosen.connect(self.export)
        dialog.open()

    def export(self, choice: ExportChoice) -> None:
        """Export in a thread; a cancelled export leaves nothing."""
        study = self._page.session.study
        assert study is not None

        def work(progress: StepProgress) -> Exported:
            from app.export_choice import export

            return export(study, choice, progress)

        task = Task(work, self._title(choice.what), self._page)
        task.succeeded.connect(self._tell)
        self._page.start_task(task)

    def _title(self, what: str) -> str:
        return {
            "masks": self.tr("Exporting masks"),
            "gaze": self.tr("Exporting gaze"),
            "model": self.tr("Exporting the model"),
            "report": self.tr("Writing the report"),
        }[what]

    def _tell(self, result: Exported) -> None:
        choice = result.choice
        place = choice.to
        words = {
            "masks": self.tr("Exported to {place}; masks: {n}.").format(n=f"{result.count:,}", place=place),
            "gaze": self.tr("Exported gaze to {place}; images looked at: {n}.").format(
                n=f"{result.count:,}", place=place
            ),
            "model": self.tr("The model is in {place}, with a card and a script that uses it.").format(
                place=place
            ),
            "report": self.tr("The report is {place}.").format(place=place),
        }[choice.what]
        if result.simulated_from and choice.what != "report":
            words += " " + self.tr("It says that gaze was simulated from {what}.").format(
                what=result.simulated_from
            )
        told = result.notes[:MOST_NOTES]
        if told:
            words += " " + " ".join(told)
        if len(result.notes) > MOST_NOTES:
            words += " " + self.tr("More notes in its files: {n}.").format(n=len(result.notes) - MOST_NOTES)
        self._page.notice.emit(words)
