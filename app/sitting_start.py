"""What stands before a sitting: consent, a display, the plan of images, and how the tracker is made."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtWidgets import QWidget

from app.known_screens import known_geometry, screen_named
from app.places import calibrations_folder
from app.record_panel import RecordPanel
from app.recording_flow import Beginning
from app.session import Session
from app.session_plan import SessionPlan
from app.tracker_choice import TrackerChoice
from app.volumes import entry_of
from gaze_capture.errors import UserError
from gaze_capture.recording import RecordingEvent
from segmentation.consent import has_consented
from segmentation.session_options import SessionOptions, load_options
from segmentation.study import Study


class SittingStart(QObject):
    """Works out how a sitting begins; whoever is measured for the first time in a study is asked first."""

    ready = Signal(object, object)
    """The Beginning and the SessionPlan."""
    consented = Signal(str)
    """The id under which someone agreed; start again with it."""
    declined = Signal()
    """Nobody agreed; nothing starts."""

    def __init__(
        self, session: Session, panel: RecordPanel, trackers: TrackerChoice, parent: QWidget
    ) -> None:
        super().__init__(parent)
        self._session, self._panel, self._trackers, self._over = session, panel, trackers, parent
        self.asking = False
        """Whether someone is asked for their consent."""

    def start(
        self,
        study: Study,
        annotator: str,
        picked: str | None,
        only: tuple[str, str] | None = None,
        known: Sequence[RecordingEvent] | None = None,
    ) -> None:
        """Ask for consent where it is missing, else tell how to begin.

        Parameters
        ----------
        picked
            The image that someone chose to begin with, looked at before or not.
        only
            The one image and target to be looked at, if it is one alone, without practice.
        known
            What was measured of the tracker's accuracy before; it is not calibrated again then.

        Raises
        ------
        UserError
            If the display is not connected, or consent, options or the study's gaze cannot be read.
        """
        # A pointer is no gaze, and a simulated eye is nobody's; rehearsing a whole session includes the question.
        measured = self._trackers.is_device or self._panel.calibrate.isChecked()
        if measured and not has_consented(study, annotator):
            self._ask_consent(study, annotator)
            return
        options = load_options(study)
        screen = screen_named(options.participant_screen) if options.participant_screen else None
        if options.participant_screen and screen is None:
            raise UserError(
                f"The display {options.participant_screen} is not connected: plug it in, or choose another in the "
                "session options."
            )
        plan = (
            SessionPlan.of_one(study, annotator, options, *only)
            if only is not None
            else self._plan(study, annotator, options, picked)
        )
        if plan is None:
            return
        target_id = plan.target_id or self._session.target_id
        shown_on = screen or self._over.screen()
        calibrate = self._panel.calibrate.isChecked() and known is None
        beginning = Beginning(
            self._trackers.maker(study, target_id, known_geometry(self._session.settings, shown_on)),
            study,
            annotator,
            target_id,
            screen=screen,
            calibrate=calibrate,
            practice=options.practice_n if options.practice and only is None else 0,
            anchor_every=(options.anchor_every_n or 0) if calibrate else 0,
            publish=options.publish,
            store_folder=calibrations_folder(),
            known=tuple(known or ()),
        )
        self.ready.emit(beginning, plan)

    def show_consent(self) -> None:
        """Show the annotator's consent, to be read, given or withdrawn."""
        from app.consent_dialog import ConsentDialog

        study = self._session.study
        if study is None:
            return
        annotator = self._panel.annotator.text().strip() or self._session.annotator
        try:
            dialog = ConsentDialog(self._over, study, annotator)
        except UserError as error:
            self._panel.show_hint(str(error), "danger")
            return
        dialog.given.connect(self._session.set_annotator)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def show_options(self) -> None:
        """Ask how this study's sessions are held."""
        from app.session_options_dialog import SessionOptionsDialog

        study = self._session.study
        if study is not None:
            dialog = SessionOptionsDialog(self._over, study, self._session.settings)
            dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            dialog.open()

    def _ask_consent(self, study: Study, annotator: str) -> None:
        from app.consent_dialog import ConsentDialog

        def given(name: str) -> None:
            self.asking = False
            self._session.set_annotator(name)
            self.consented.emit(name)

        def closed() -> None:
            if self.asking:
                self.asking = False
                self.declined.emit()

        dialog = ConsentDialog(self._over, study, annotator)
        self.asking = True
        dialog.finished.connect(closed)
        dialog.given.connect(given)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def _plan(
        self, study: Study, annotator: str, options: SessionOptions, picked: str | None
    ) -> SessionPlan | None:
        """Plan the sitting; None where everything is done, which is told."""
        look_for, current = self._panel.look_for, self._session.image_id
        order: list[str | None] = list(look_for.order(study.targets)) or [self._session.target_id]
        if look_for.is_together(study.targets):
            order = [None]
        plan = SessionPlan(study, annotator, options, order)
        if current is not None and picked == current:
            plan.include(entry_of(study, current))
            plan.begin_at(current, self._session.target_id)
        elif plan.empty:
            self._panel.show_hint(
                self.tr(
                    "All images have been looked at. Choose one in the list to look at it again, or change what is "
                    "left out in the session options."
                ),
                "warning",
            )
            return None
        elif options.order == "as-is" and plan.holds(current):
            plan.begin_at(current, self._session.target_id)
        return plan
