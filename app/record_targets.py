"""Which target is looked for on the record page, and how the panel and the keys lead from one to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PySide6.QtCore import QObject

from app.canvas_frame import CanvasFrame
from app.record_panel import RecordPanel
from app.session import Session
from app.sitting_course import SittingCourse
from app.targets_bar import beside


class RecordTargets(QObject):
    """Changes the session's target, in a sitting by a new look at the same image.

    Parameters
    ----------
    words
        What is said of a target, by its name in code.
    replays
        Whether a recording is replayed: what was looked for is shown then.
    """

    def __init__(
        self,
        session: Session,
        panel: RecordPanel,
        frame: CanvasFrame,
        course: SittingCourse,
        words: Mapping[str, str],
        replays: Callable[[], bool],
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._session, self._panel, self._frame, self._course = session, panel, frame, course
        self._words, self._replays = words, replays
        frame.canvas.tabbed.connect(self.step)
        panel.look_for.target_chosen.connect(self.look_for)
        panel.look_for.together_wanted.connect(lambda _: self._look_anew())
        panel.lesion_wanted.connect(self.next_lesion)

    def step(self, step: int) -> None:
        """Look for the next (1) or previous (-1) target in the same image; after the last comes the first."""
        study = self._session.study
        if study is not None and self._panel.look_for.order(study.targets):
            self.look_for(beside(study.targets, self._session.target_id, step))

    def look_for(self, target_id: str) -> None:
        """Look for a target in the image shown, from now on."""
        study = self._session.study
        course = self._course
        if study is None or self._replays() or course.elsewhere or course.only is not None:
            return
        if course.sitting is None:
            self._session.set_target(target_id)
        elif target_id != self._session.target_id and self._panel.look_for.order(study.targets):
            course.look_for(target_id)
            self._frame.canvas.setFocus()
        self.show()

    def _look_anew(self) -> None:
        """Begin a look at the image shown, for all targets or for each of them."""
        if self._session.study is not None and not self._course.elsewhere:
            self._course.look()
            self._frame.canvas.setFocus()

    def next_lesion(self) -> None:
        """Count the next lesion of the target, in the same image."""
        if self._session.study is not None:
            self._course.next_lesion()
            self.show()

    def show(self) -> None:
        """Show what is looked for, and what was said of each target in the image shown."""
        study, sitting, look_for = self._session.study, self._course.sitting, self._panel.look_for
        if study is None:
            return
        target = study.target(self._session.target_id)
        self._frame.canvas.takes_tab = len(study.targets) > 1
        instance = sitting.instance if sitting is not None else None
        look_for.show_look(study.targets, target, instance, running=self._course.on or self._replays())
        said = sitting.said if sitting is not None else {}
        here = {of: word for (image_id, of), word in said.items() if image_id == self._session.image_id}
        tokens = {of: "accent" if word == "present" else "muted" for of, word in here.items()}
        look_for.targets.set_states({of: (self._words[word], tokens[of]) for of, word in here.items()})
        ordered = look_for.order(study.targets)
        more = bool(ordered) and ordered[-1] != target.id
        self._panel.show_flow(several=more, volume=self._frame.slices.is_volume)
