"""Record: the operator's view of a sitting. Gaze is drawn live, and stored with where each image lay on the screen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from app.canvas import Canvas
from app.canvas_frame import CanvasFrame
from app.centre import Centre
from app.dwell_mark import DwellGuide
from app.eyes_on_mask import ReviewTracker
from app.keymap import Action, Keymap, shown
from app.known_screens import known_geometry
from app.live_gaze import LiveGaze
from app.page import Page
from app.record_list import RecordList
from app.record_panel import RecordPanel
from app.record_scenes import RecordScenes
from app.record_targets import RecordTargets
from app.recorder import Recorder
from app.recording_flow import Beginning, RecordingFlow
from app.replay_bar import ReplayBar
from app.replaying import Replaying
from app.saving import saving
from app.session import Session
from app.session_plan import SessionPlan
from app.sitting import Sitting, save
from app.sitting_course import SittingCourse
from app.sitting_input import SittingInput
from app.sitting_start import SittingStart
from app.sound import soft_tone
from app.stage import Stage
from app.texts import short_name
from app.tracker_choice import TrackerChoice
from app.voice_notes import VoiceNotes
from app.widgets import box
from gaze_capture.errors import UserError
from gaze_capture.recording import Placement, Presence
from segmentation.study import Study

TICK_MS = 16


class RecordPage(Page):
    """Keys: Space next, Backspace back, 0 nothing here, Q unsure, U ungradable, L next lesion, Tab target, Esc end.

    A word counts for the target looked for, in the image or slice shown. With several targets one by one, going on
    leads to the next target of the same image before it leads to the next image.
    """

    tracker_status = Signal(str)
    again_over = Signal()
    """The look at one image that was asked for with :meth:`record_again` is over, and stored."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._saving = False
        self._picked: str | None = None
        """The image that someone chose in the list, and wants to begin with."""
        self._images = RecordList(session, self)
        self._images.learned.connect(self._follow_facts)
        self._images.failed.connect(self.error)
        self.list = self._images.panel
        self.list.chosen.connect(self._pick)
        self._timer = QTimer(self, interval=TICK_MS, timerType=Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self.tick)
        self.keymap = Keymap(session.settings, self)
        self.panel = RecordPanel()
        self.panel.set_keymap(self.keymap)
        self.trackers = TrackerChoice(self.panel, self)
        self.trackers.told.connect(self.error)
        self._starting = SittingStart(session, self.panel, self.trackers, self)
        self._starting.ready.connect(self._start_sitting)
        self._starting.consented.connect(self._consented)
        self._starting.declined.connect(self._declined)
        self.frame = CanvasFrame()
        self.canvas = self.frame.canvas
        self.frame.slices.chosen.connect(self.scroll_to)
        self.stage = Stage(self.frame, self)
        self.stage.opened.connect(self._take_display)
        self._scenes = RecordScenes(session, self.stage, self.frame, self._images, self)
        self._scenes.failed.connect(self.error)
        self.dwell = DwellGuide(self.stage)
        self.recorder = Recorder(LiveGaze(self.canvas, self.panel), self)
        self.recorder.failed.connect(self._fail)
        self.recorder.look_over.connect(self._look_over)
        self.recorder.enough.connect(self._enough)
        self.recorder.trouble.connect(lambda text: self.panel.show_hint(text, "danger" if text else "muted"))
        self.replay_bar = ReplayBar()
        self.replaying = Replaying(self.recorder.live, self.replay_bar, self)
        self.replaying.shown.connect(self._show_replayed)
        self.flow = RecordingFlow(self.recorder, self.stage, self.keymap, self)
        self.flow.phase_changed.connect(self._show_phase)
        self.course = SittingCourse(session, self.recorder, self.flow, self.panel.look_for, self)
        self.course.shown.connect(self._show_image)
        self.targets = RecordTargets(
            session,
            self.panel,
            self.frame,
            self.course,
            self._images.words,
            lambda: self.replaying.replay is not None,
            self,
        )
        self.course.look_begun.connect(self._follow_look)
        self.course.hinted.connect(self.panel.show_hint)
        self.course.over.connect(self.end)
        self.flow.resumed.connect(lambda: self.stage.seen.setFocus())
        self.voice = VoiceNotes(self.panel, self)
        self.voice.failed.connect(self.error)
        self.flow.view_wanted.connect(self._show_view)
        self.flow.told.connect(self.error)
        self.flow.given_up.connect(self.end)
        for name in ("heatmap", "levels", "student", "reviewed"):
            self.canvas.set_layer_visible(name, False)
        self._input = SittingInput(
            self.recorder,
            self.flow,
            self.stage,
            self.frame.slices,
            self.keymap,
            self._acts(),
            self.replaying.handle_key,
            self,
        )
        self._follow_panel()
        self._centre = Centre(
            self.frame, "eye", self.tr("Gaze is recorded here. Open a study with images first.")
        )
        self._centre.study_wanted.connect(lambda: self.page_wanted.emit("study"))
        layout = QHBoxLayout(self)
        box(layout, spacing=0)
        layout.addWidget(self.list)
        middle = QVBoxLayout()
        box(middle, spacing=0)
        middle.addWidget(self._centre, 1)
        middle.addWidget(self.replay_bar)
        layout.addLayout(middle, 1)
        layout.addWidget(self.panel)
        self.list.left.connect(self.canvas.setFocus)
        self.setFocusProxy(self.canvas)
        self._show_tracker_choice()

    def _follow_panel(self) -> None:
        """Do what is asked for at the right side of the page."""
        panel = self.panel
        panel.annotator_named.connect(self.session.set_annotator)
        panel.tracker_chosen.connect(self._show_tracker_choice)
        panel.start_wanted.connect(self.start)
        panel.end_wanted.connect(self.end)
        panel.left.connect(lambda word: self.go(1) if word is None else self.say(word))
        panel.found_wanted.connect(self.course.found)
        panel.pause_wanted.connect(self.flow.pause_or_resume)
        panel.drift_wanted.connect(self.flow.check_drift)
        panel.options_wanted.connect(self._starting.show_options)
        panel.keys_wanted.connect(self.change_keys)
        panel.consent_wanted.connect(self._starting.show_consent)
        panel.voice_wanted.connect(self.speak)

    # Following the session

    @property
    def sitting(self) -> Sitting | None:
        """The sitting that is on."""
        return self.recorder.sitting

    @property
    def busy(self) -> bool:
        """Whether a sitting or a replay is on; a sitting from connecting to its tracker on."""
        return self.course.on or self.replaying.replay is not None

    def refresh(self, what: str) -> None:
        """Show the study's images and the current one."""
        self.panel.annotator.setText(self.session.annotator)
        study = self.session.study
        empty = study is None or not study.images
        self.list.setVisible(not empty)
        self.panel.setVisible(not empty)
        if study is None or empty:
            self.list.set_rows([])
            self.canvas.set_scene(None)
            self._centre.show_empty(study is not None)
            self.panel.start_button.setEnabled(False)
            return
        self._centre.show_frame()
        if self.busy or what == "descriptions":
            return
        anew = what in ("study", "data")
        self._scenes.follow(study, anew=anew)
        if anew:
            self._images.ask(study)
            self._list_recordings(study)
        self.session.settle()
        if what in ("study", "data", "target"):
            self._images.show()
        self._show_image()
        self._show_tracker_choice()
        if what == "study":
            self.canvas.setFocus()

    def _follow_facts(self) -> None:
        if not self.busy:
            # The slice bar's marks are of the facts, too.
            self._show_image()

    def _list_recordings(self, study: Study) -> None:
        self.panel.recordings.clear()
        for name in reversed(study.recording_ids()):
            self.panel.recordings.addItem(short_name(name), name)

    def _show_tracker_choice(self) -> None:
        ready = self.session.study is not None and bool(self.session.study.images) and not self._saving
        self.panel.show_choice(ready=ready)
        if not self.busy and not self._saving:
            self.panel.show_keys()

    def _show_image(self) -> None:
        if self.session.study is not None and self.session.image_id is not None:
            self._scenes.show(alone=self.busy)
            self.targets.show()

    # One look, for a reviewer

    @property
    def tracker_ready(self) -> bool:
        """Whether a person chose a tracker that records: a simulated eye must not look unasked."""
        return self.trackers.records_unasked and not self.busy and not self._saving

    def record_again(self, image_id: str, target_id: str) -> None:
        """Record new gaze of one image and target, and tell with `again_over` when it is stored."""
        self.course.only = (image_id, target_id)
        self.session.set_target(target_id)
        self.session.set_image(image_id)
        self.start()
        if not self.busy and self.course.only is not None and not self._starting.asking:
            self._again_ended()

    def _declined(self) -> None:
        if self.course.only is not None:
            self._again_ended()

    def _again_ended(self) -> None:
        self.course.only = None
        self.again_over.emit()

    def review_tracker(self) -> ReviewTracker:
        """Return the tracker that follows the eyes while masks are reviewed: the one that is chosen here.

        Raises
        ------
        UserError
            If none is, it is in use, or the annotator has not agreed to be tracked.
        """
        study = self.session.study
        if study is None:
            raise UserError("No study is open: open one first.")
        tracker = self.trackers.for_review(
            study,
            self.session.annotator,
            self.session.target_id,
            known_geometry(self.session.settings, self.screen()),
            self.flow.validated,
        )
        if self.busy:
            raise UserError("The tracker is in use by a recording: end that first.")
        return tracker

    # A sitting

    def _pick(self, image_id: str) -> None:
        self._picked = image_id
        self.session.set_image(image_id)

    def change_keys(self) -> None:
        """Let keys be chosen by pressing them."""
        from app.keymap_dialog import KeymapDialog

        dialog = KeymapDialog(self, self.keymap)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def start(self) -> None:
        """Begin a sitting, or a replay."""
        study = self.session.study
        if study is None or self.busy or not self.panel.start_button.isEnabled():
            return
        annotator = self.panel.annotator.text().strip() or self.session.annotator
        self.session.set_annotator(annotator)
        try:
            if self.trackers.kind == "replay":
                self.replaying.start(study, self.panel.recordings.currentData())
                self._begun(replay=True)
            else:
                again = self.course.only is not None and self.trackers.noted
                known = self.flow.validated if again else ()
                self._starting.start(study, annotator, self._picked, self.course.only, known or None)
        except UserError as error:
            self.error.emit(str(error), "")

    def _start_sitting(self, beginning: Beginning, plan: SessionPlan) -> None:
        self.trackers.note()
        self.course.begin(plan, beginning.target_id)
        self._images.plan(plan.entries)
        self._images.show()
        self._begun(replay=False)
        if self.trackers.is_device:
            self.panel.show_hint(self.tr("Connecting to the tracker…"))
            self.flow.start(beginning)
            return
        # These are there at once.
        tracker = beginning.make_tracker()
        tracker.open()
        self.flow.begin_with(beginning, tracker)

    def _consented(self, annotator: str) -> None:
        self.panel.annotator.setText(annotator)
        self.start()

    def _begun(self, *, replay: bool) -> None:
        self.hush.emit()
        self.list.setEnabled(False)
        self.panel.show_running(True, replay=replay)
        self.recorder.live.begin()
        self.panel.show_hint("")
        self._timer.start()
        self.canvas.setFocus()

    # In the middle of one

    def _show_phase(self, phase: str) -> None:
        self.canvas.set_live(None, None)
        self.panel.show_phase(phase)

    def _show_view(self, view: QWidget | None) -> None:
        """Show the operator a calibration or a drift check in the images' place, or the images again."""
        self.list.setVisible(view is None)
        self.panel.setVisible(view is None)
        self._centre.show_view(view)
        if view is not None:
            view.setFocus()
        else:
            self.canvas.setFocus()

    def _take_display(self, canvas: Canvas) -> None:
        """Treat a canvas on a display of its own as the page's."""
        canvas.tabbed.connect(self.targets.step)
        canvas.scrolled.connect(self.frame.slices.step)

    def _follow_look(self) -> None:
        """Show what belongs to a look, as the session's options want it."""
        plan = self.course.plan
        if plan is not None:
            shown = self.stage.seen if plan.options.show_gaze else None
            self.recorder.live.mirror = shown if shown is not self.canvas else None
            self.dwell.begin_look(plan.options.dwell_to_advance_s)

    def _fail(self, text: str) -> None:
        self.lost.emit(text)
        self.end()

    def _enough(self) -> None:
        plan = self.course.plan
        if plan is not None and plan.options.sound:
            soft_tone()

    def speak(self) -> None:
        """Begin a voice note on the image shown, or end it."""
        sitting, study, image_id = self.sitting, self.session.study, self.session.image_id
        if sitting is not None and study is not None and image_id is not None and self._takes_notes:
            self.voice.toggle(study.recordings_folder / sitting.recording_id, image_id, sitting.target_id)

    @property
    def _takes_notes(self) -> bool:
        plan = self.course.plan
        return plan is not None and plan.options.voice_notes

    def _look_over(self, presence: Presence | None) -> None:
        if self.panel.by_itself.isChecked():
            self.say(presence or "present", staying=False)

    def tick(self) -> None:
        """Take what the tracker delivered, and paint it; 60 times a second."""
        if self.sitting is not None:
            self.recorder.tick()
        elif self.replaying.replay is not None:
            self.replaying.tick()
            self._show_meters("replay", self.replaying.replay.position_s)
        # It may have ended in this very tick.
        if self.sitting is not None:
            self._show_meters(self.sitting.tracker.name, self.sitting.seconds)
            eyes, geometry = self.sitting.tracker.eyes, self.sitting.tracker.geometry
            self.panel.show_distance(eyes.distance_mm if eyes else None, geometry.viewing_distance_mm)
            self.voice.tick(wanted=self._takes_notes)
            if self.flow.phase == "images" and (
                self.course.time_is_up or self.dwell.rested(self.recorder.live.dot)
            ):
                self.go(1)

    def _show_replayed(self, placement: Placement) -> None:
        study = self.session.study
        if study is None or placement.image_id not in study.images:
            # Better nothing than its gaze on another image.
            self.stage.set_scene(None)
            gone = self.tr("The image {name} is no longer in the study; its gaze cannot be shown.")
            self.panel.show_hint(gone.format(name=placement.image_id), "warning")
        else:
            self.panel.show_hint("")
            self.session.image_id = placement.image_id
            if placement.target_id in {target.id for target in study.targets}:
                self.session.target_id = placement.target_id
            self._show_image()
            self.canvas.set_shown_window(placement.window_level)

    def _show_meters(self, name: str, seconds: float) -> None:
        measured = self.recorder.live.show_meters(seconds)
        if measured is not None:
            status = self.tr("tracker: {name} {rate:.0f} Hz, loss {loss:.0f} %")
            self.tracker_status.emit(status.format(name=name, rate=measured[0], loss=measured[1]))

    def say(self, presence: Presence, *, staying: bool = True) -> None:
        """Say a word on the target in what is shown, and go on: in a volume to the next slice, else as `go`.

        After a volume's last slice it stays there, or, not `staying`, goes on as well.
        """
        sitting, study, slices = self.sitting, self.session.study, self.frame.slices
        if sitting is None or study is None:
            return
        following = slices.following
        if not slices.is_volume or (following is None and not staying):
            self.go(1, presence)
            return
        self.course.leave(presence)
        self.scroll_to(following or self.session.image_id or "")
        if following is None:
            self.panel.show_hint(self.tr("That was the last slice in this direction; Space goes on."))

    def scroll_to(self, image_id: str) -> None:
        """Show another slice of the volume."""
        if self.replaying.replay is not None or self.course.elsewhere:
            return
        if self.sitting is None:
            self.session.set_image(image_id)
            return
        self.course.scroll(image_id)

    def go(self, step: int, presence: Presence | None = None) -> None:
        """Leave with a word on the target (after a look, *present* unless another) and go on or back.

        A volume is left without a word: the slice that happens to be shown last need not hold the target.
        """
        sitting, study = self.sitting, self.session.study
        if sitting is not None and self.flow.phase != "images":
            self.flow.space()
            return
        if sitting is None or study is None:
            if not self.busy:
                found = self.list.neighbour(self.session.image_id, step)
                if found is not None:
                    self.session.set_image(found)
            return
        order = self.panel.look_for.order(study.targets) if self.course.only is None else ()
        following = self.list.following(self.session.image_id, self.session.target_id, order, step)
        if following is None and step < 0:
            return

        self.voice.end()
        self.course.go(following, step, presence, volume=self.frame.slices.is_volume)

    def end(self) -> None:
        """End the sitting or the replay; fixations are detected and stored in a thread."""
        self._timer.stop()
        sitting, study = self.course.end(), self.session.study
        self.replaying.end()
        self.voice.end()
        self.panel.show_voice(wanted=False)
        self.dwell.take_away()
        self.flow.end()
        self._picked = None
        self._images.plan(None)
        self.canvas.set_live(None, None)
        self.list.setEnabled(True)
        self.panel.show_running(False)
        self.tracker_status.emit("")
        if sitting is None or study is None:
            self.refresh("image")
            if self.course.only is not None:
                self._again_ended()
            return
        self._saving = True
        self._show_tracker_choice()
        self.panel.show_hint(self.tr("Saving the recording and detecting fixations…"))

        task = saving(sitting, study, self, self.course.only)
        task.succeeded.connect(
            lambda count: self.notice.emit(self.tr("Recorded: {n:,} fixations.").format(n=count))
        )
        task.failed.connect(self.error)
        task.ended.connect(self._saved)
        # Not through the window's queue of tasks: a recording is saved whatever else is at work.
        task.start()

    def _saved(self) -> None:
        self._saving = False
        self.session.refresh("data")
        if not self.isVisible():
            self._show_tracker_choice()
        if self.course.only is not None:
            self._again_ended()

    # Events

    def _acts(self) -> dict[Action, Callable[[], None]]:
        """Return what is done in the middle of a sitting."""
        return {
            "next": lambda: self.go(1),
            "back": lambda: self.go(-1),
            "nothing": lambda: self.say("absent"),
            "unsure": lambda: self.say("unsure"),
            "ungradable": lambda: self.say("ungradable"),
            "found": self.course.found,
            "next_lesion": self.targets.next_lesion,
            "next_target": lambda: self.targets.step(1),
            "previous_target": lambda: self.targets.step(-1),
            "pause": self.flow.pause_or_resume,
            "drift_check": self.flow.check_drift,
            "voice_note": self.speak,
            "end": self.end,
        }

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move on, or take a word on the image; then the canvas's keys."""
        key = event.key()
        plain = not event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        if self.sitting is not None:
            if not self._input.handle_key(event):
                super().keyPressEvent(event)
        elif self.flow.phase == "connecting":
            if self.keymap.action_of(event) == "end":
                self.end()
        elif self.replaying.handle_key(event):
            event.accept()
        elif plain and key == Qt.Key.Key_Space and not event.isAutoRepeat():
            self.go(1)
        elif plain and key == Qt.Key.Key_Backspace:
            self.go(-1)
        elif key == Qt.Key.Key_Escape and self.busy:
            self.end()
        elif self.frame.slices.handle_key(event):
            event.accept()
        elif not self.canvas.handle_key(event):
            super().keyPressEvent(event)

    def keyReleaseEvent(self, event: QKeyEvent) -> None:
        """Pass on to the canvas."""
        if not self.canvas.handle_release(event):
            super().keyReleaseEvent(event)

    def holds(self) -> str:
        """Keep the operator here while someone is recorded."""
        end = shown(self.keymap.key("end"))
        return self.tr("A recording is on: end it first ({end}).").format(end=end) if self.course.on else ""

    def stop(self) -> None:
        """Finish a sitting before the window closes; end the threads."""
        self._timer.stop()
        self.voice.end()
        sitting, study = self.course.end(), self.session.study
        # A display of its own would outlive the window, and a tracker that is still being connected would record.
        self.flow.end()
        self.recorder.stop()
        self._scenes.stop()
        if sitting is not None and study is not None:
            with contextlib.suppress(UserError):
                save(sitting, study)
        self._images.stop()
