"""*Train again with 12 reviews*: a button that is there once a run does not know all that reviewers said."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from app.latest import Latest
from app.overview import run_states
from app.texts import duration_text
from app.widgets import Button
from segmentation.retraining import News, can_go_on, new_reviews
from segmentation.runs import RunFolder
from segmentation.study import Study


@dataclass(frozen=True)
class Standing:
    """What is to be said of training a run again."""

    news: News
    busy: bool
    """Whether a run of the study is at work."""


def standing(study: Study, run_id: str) -> Standing | None:
    """Count what is new to a run; None where it cannot be gone on from."""
    if not can_go_on(RunFolder(study.runs_folder / run_id)):
        return None
    return Standing(new_reviews(study, run_id), run_states(study)[0] is not None)


class AgainButton(Button):
    """Hidden unless the run asked about can be gone on from and reviews are new to it."""

    wanted = Signal(str)
    """The run to go on from."""
    failed = Signal(str, str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", "arrows-clockwise", "", on_click=self._press)
        self._run = ""
        self._withheld = False
        self._found: Standing | None = None
        """What was found last of the run asked about."""
        self._latest = Latest(self)
        self._latest.answered.connect(self._show)
        self._latest.failed.connect(self.failed)
        self.hide()

    def ask(self, study: Study | None, run_id: str | None) -> None:
        """Count what is new to a run; nothing is offered without one."""
        if study is None or not run_id:
            self._latest.drop()
            self._show(None)
            return
        if run_id != self._run:
            self._show(None)
        self._run = run_id
        self._latest.ask(lambda: standing(study, run_id))

    @property
    def pending(self) -> bool:
        """Whether it is being counted."""
        return self._latest.pending

    def withhold(self, on: bool) -> None:
        """Offer nothing, whatever is new, where what others said must not be told; or offer it again."""
        if on != self._withheld:
            self._withheld = on
            self._show(self._found)

    def _show(self, found: Standing | None) -> None:
        self._found = found
        count = 0 if found is None else found.news.count
        self.setVisible(bool(count) and not self._withheld)
        if found is None or not count:
            return
        self.setText(
            self.tr("Train again with 1 review")
            if count == 1
            else self.tr("Train again with {n:,} reviews").format(n=count)
        )
        self.setEnabled(not found.busy)
        self.setToolTip(
            self.tr("One run is at work. Another can start when it has ended.")
            if found.busy
            else self.tr(
                "Go on from this run with what was reviewed since, {time} of work; then predict what nobody has "
                "reviewed"
            ).format(time=duration_text(found.news.seconds))
        )

    def _press(self) -> None:
        # One click is one run.
        self.setEnabled(False)
        self.wanted.emit(self._run)

    def stop(self) -> None:
        """End the thread."""
        self._latest.stop()
