"""The course of a sitting through its images: what is looked at, for which target, and what is said of it."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from app.recorder import Recorder
from app.recording_flow import RecordingFlow
from app.session import Session
from app.session_plan import SessionPlan
from app.sitting import Sitting
from app.targets_bar import LookFor
from gaze_capture.recording import Presence
from segmentation.records import Key

TOO_BRIEF_MS = 1500.0


class SittingCourse(QObject):
    """Leads one sitting at a time; the session says which image and target are looked at.

    They are set without the session's signal: the page shows the image itself, so that where it lies is known when
    the look begins, before anyone else reacts.

    Parameters
    ----------
    look_for
        Where the operator says whether all targets are looked for at once, or one by one.
    """

    shown = Signal()
    """The session's image or target is another; it must be in view when this returns, as gaze falls on it then."""
    look_begun = Signal()
    """Gaze falls on the image now: a new look at it, or one that was interrupted."""
    hinted = Signal(str, str)
    """A text for the operator, and its role."""
    over = Signal()
    """There is nothing more to look at."""

    def __init__(
        self, session: Session, recorder: Recorder, flow: RecordingFlow, look_for: LookFor, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._session, self._recorder, self._flow, self._look_for = session, recorder, flow, look_for
        self.plan: SessionPlan | None = None
        """Of the sitting that is on."""
        self.only: Key | None = None
        """The one image and target that are looked at, where a reviewer asked for new gaze of them."""
        flow.phase_changed.connect(self._follow_phase)
        flow.begun.connect(self.look)
        flow.resumed.connect(self._take_up)

    @property
    def sitting(self) -> Sitting | None:
        """The sitting that is on."""
        return self._recorder.sitting

    @property
    def on(self) -> bool:
        """Whether a sitting is on, from connecting to its tracker on."""
        return self.sitting is not None or self._flow.phase != "idle"

    @property
    def elsewhere(self) -> bool:
        """Whether something else than the study's images is, or is about to be, looked at."""
        return self._flow.phase not in ("idle", "images", "paused")

    @property
    def time_is_up(self) -> bool:
        """Whether the image has been shown for as long as it may be."""
        return self.plan is not None and self.plan.time_is_up

    def begin(self, plan: SessionPlan, target_id: str) -> None:
        """Take what a sitting will show; its first look begins once the flow has begun."""
        self.plan = plan
        self._session.image_id, self._session.target_id = plan.image_id, target_id

    def end(self) -> Sitting | None:
        """Let go of the sitting and return it; it still has to be saved."""
        self.plan = None
        return self._recorder.release()

    def _follow_phase(self, phase: str) -> None:
        if self.plan is not None and phase not in ("idle", "images"):
            self.plan.interrupt()

    # Looks

    def look(self, image_id: str | None = None) -> None:
        """Begin a look at an image (None: the same) for the session's target, or for all at once."""
        sitting, study, session = self.sitting, self._session.study, self._session
        if sitting is not None and study is not None:
            together = self._look_for.is_together(study.targets) and self.only is None
            target = study.target(session.target_id)
            sitting.target_id = None if together else target.id
            sitting.instance = 1 if target.kind == "lesion" and not together else None
        session.image_id = image_id or session.image_id
        self.shown.emit()
        self._recorder.show("look")
        if self.plan is not None:
            self.plan.shown()
            self._tell_why(self.plan, sitting)
            self.look_begun.emit()

    def _tell_why(self, plan: SessionPlan, sitting: Sitting | None) -> None:
        """Say why an image is shown again."""
        image_id = self._session.image_id
        item = plan.item(image_id, sitting.target_id) if sitting and image_id else None
        if sitting is not None and item is not None and item.again:
            seen = {"image_id": item.image_id, "target_id": item.target_id}
            self._recorder.guarded(lambda: sitting.note("look_again", seen))
            reasons = "; ".join(item.reasons)
            self.hinted.emit(self.tr("Look again: {reasons}.").format(reasons=reasons), "warning")

    def _take_up(self) -> None:
        """Go on with the look that was interrupted, in a placement of its own."""
        self.shown.emit()
        self._recorder.show("image")
        if self.plan is not None:
            self.plan.go_on()
            self.look_begun.emit()

    def scroll(self, image_id: str) -> None:
        """Go on with the look in another slice of the volume."""
        self._session.image_id = image_id
        self.shown.emit()
        self._recorder.show("image")

    def look_for(self, target_id: str) -> None:
        """Begin a look at the same image for another target."""
        self._session.target_id = target_id
        self.look()

    def next_lesion(self) -> None:
        """Count the next lesion of the target, in the same image."""
        sitting = self.sitting
        if sitting is None:
            return
        if sitting.target_id is None:
            told = self.tr("Lesions are counted when targets are looked for one by one.")
            self.hinted.emit(told, "warning")
            return
        sitting.instance = (sitting.instance or 1) + 1
        self._recorder.show("view")

    def found(self) -> None:
        """Note that the target was found: the search is over, the sweep begins."""
        sitting = self.sitting
        if sitting is not None and self._flow.phase == "images":
            self._recorder.guarded(sitting.found)
            self.hinted.emit(self.tr("Found: look all over it, edge included."), "accent")

    # Going on

    def leave(self, presence: Presence) -> None:
        """Say a word on the target in what is shown; the look goes on with what is shown next."""
        self._recorder.guarded(lambda: self._recorder.leave(presence))

    def go(self, following: Key | None, step: int, presence: Presence | None, *, volume: bool) -> None:
        """Leave what is shown, with a word on the target if there is one, for what follows; None: nothing does.

        Parameters
        ----------
        following
            Image and target.
        step
            1 on, -1 back.
        presence
            Going on without a word says *present* of an image that was looked at. A volume is left without one: the
            slice that happens to be shown last need not hold the target.
        volume
            Whether a slice of one is shown.
        """
        sitting, gaze_ms = self.sitting, self._recorder.live.look_ms
        single = not volume and sitting is not None and sitting.target_id is not None
        if step > 0 and presence is None and gaze_ms > 0 and single:
            presence = "present"

        def move() -> None:
            self._recorder.leave(presence)
            brief = self.tr("The last image was looked at for {s:.1f} s only: go back with Backspace?")
            if step > 0 and gaze_ms < TOO_BRIEF_MS:
                self.hinted.emit(brief.format(s=gaze_ms / 1000), "warning")
            else:
                self.hinted.emit("", "muted")
            if following is None:
                self.over.emit()
                return
            image_id, self._session.target_id = following
            self.look(image_id)
            if step > 0:
                self._between()

        self._recorder.guarded(move)

    def _between(self) -> None:
        """Offer a break, or check the drift, where one is due before the image that was just shown is looked at."""
        plan = self.plan
        if plan is None or self._flow.phase != "images":
            return
        plan.looked()
        if plan.break_due:
            plan.rested()
            self._flow.offer_break()
        elif self._flow.anchor_due():
            self._flow.check_drift()
