"""Record: the operator's view of a sitting. Gaze is drawn live, and stored with where each image lay on the screen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from PySide6.QtCore import QEvent, QObject, Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent, QMouseEvent
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from app.canvas import Canvas
from app.canvas_frame import NO_MARKS, CanvasFrame
from app.centre import Centre
from app.dwell_mark import DwellMark
from app.eyes_on_mask import ReviewTracker
from app.facts import NOTHING_KNOWN, Facts, gather
from app.image_list import ImageList
from app.keymap import Action, Keymap, shown
from app.known_screens import known_geometry
from app.latest import NO_FLICKER_MS, Latest
from app.live_gaze import LiveGaze
from app.page import Page
from app.prefetch import Prefetcher
from app.record_panel import RecordPanel
from app.record_rows import gaze_row
from app.recorder import Recorder
from app.recording_flow import Beginning, RecordingFlow
from app.replay_bar import ReplayBar
from app.replaying import Replaying
from app.saving import saving
from app.scene import SceneCache, bare, with_changes
from app.session import Session
from app.session_plan import SessionPlan
from app.sitting import Sitting, save
from app.sitting_start import SittingStart
from app.sound import VoiceRecorder, soft_tone
from app.stage import Stage
from app.targets_bar import beside
from app.texts import short_name
from app.tracker_choice import TrackerChoice
from app.volumes import entries, marks_of
from app.widgets import box
from gaze_capture.errors import UserError
from gaze_capture.quality import Validation
from gaze_capture.recording import Placement, Presence, RecordingEvent
from gaze_capture.trackers.mouse import MouseTracker
from segmentation.consent import has_consented
from segmentation.study import Study

TICK_MS = 16
TOO_BRIEF_MS = 1500.0
PREFETCHED = 4
VIEW_KEYS = (Qt.Key.Key_W, Qt.Key.Key_Plus, Qt.Key.Key_Equal, Qt.Key.Key_Minus)
"""Keys of the canvas that hold while recording: they change how the image is seen, not what is drawn over it."""


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
        self._cache: SceneCache | None = None
        self._cached_study: Study | None = None
        self._saving = False
        self._picked: str | None = None
        """The image that someone chose in the list, and wants to begin with."""
        self._only: tuple[str, str] | None = None
        """The one image and target that are looked at, where a reviewer asked for new gaze of them."""
        self._used: object = None
        """The tracker of the last sitting, or the one that a person picked."""
        self.plan: SessionPlan | None = None
        self._mark: DwellMark | None = None
        self._voice = VoiceRecorder()
        self._known = NOTHING_KNOWN
        self._facts = Latest(self)
        self._facts.answered.connect(self._learn)
        self._facts.failed.connect(self.error)
        self._ahead = Prefetcher(self)
        self._timer = QTimer(self, interval=TICK_MS, timerType=Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self.tick)
        self._words = {
            "none": self.tr("No gaze"),
            "gaze": self.tr("Gaze"),
            "again": self.tr("Look again"),
            "present": self.tr("Present"),
            "absent": self.tr("Nothing here"),
            "unsure": self.tr("Unsure"),
            "ungradable": self.tr("Ungradable"),
        }
        self.keymap = Keymap(session.settings, self)
        self.panel = RecordPanel()
        self.panel.set_keymap(self.keymap)
        self.trackers = TrackerChoice(self.panel, self)
        self.trackers.told.connect(self.error)
        self._starting = SittingStart(session, self.panel, self.trackers, self)
        self._starting.ready.connect(self._start_sitting)
        self._starting.consented.connect(self._consented)
        self._starting.declined.connect(self._declined)
        self.panel.annotator_named.connect(self.session.set_annotator)
        self.panel.tracker_chosen.connect(self._show_tracker_choice)
        self.panel.tracker.activated.connect(lambda _: self._note_tracker())
        self.panel.start_wanted.connect(self.start)
        self.panel.end_wanted.connect(self.end)
        self.panel.left.connect(lambda word: self.go(1) if word is None else self.say(word))
        self.panel.lesion_wanted.connect(self.next_lesion)
        self.panel.options_wanted.connect(self.change_options)
        self.panel.keys_wanted.connect(self.change_keys)
        self.panel.consent_wanted.connect(lambda: self._starting.show_consent())
        self.panel.voice_wanted.connect(self.speak)
        self.panel.found_wanted.connect(self.found)
        self.panel.look_for.target_chosen.connect(self.look_for)
        self.panel.look_for.together_wanted.connect(lambda _: self._change_look())
        self.list = ImageList(
            self.tr("Images"), [word for name, word in self._words.items() if name != "present"]
        )
        self.frame = CanvasFrame()
        self.canvas = self.frame.canvas
        self.canvas.tabbed.connect(self.next_target)
        self.frame.slices.chosen.connect(self.scroll_to)
        self.stage = Stage(self.frame, self)
        self.stage.opened.connect(self._take_display)
        self.stage.closing.connect(self._take_mark_away)
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
        self.flow.begun.connect(lambda: self._show_look(None))
        self.flow.resumed.connect(self._take_up)
        self.flow.view_wanted.connect(self._show_view)
        self.flow.told.connect(self.error)
        self.panel.pause_wanted.connect(self.flow.pause_or_resume)
        self.panel.drift_wanted.connect(self.flow.check_drift)
        self.flow.given_up.connect(self.end)
        for name in ("heatmap", "levels", "student", "reviewed"):
            self.canvas.set_layer_visible(name, False)
        self.canvas.installEventFilter(self)
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
        self.list.chosen.connect(self._pick)
        self.list.left.connect(self.canvas.setFocus)
        self.setFocusProxy(self.canvas)
        self._show_tracker_choice()

    # Following the session

    @property
    def sitting(self) -> Sitting | None:
        """The sitting that is on."""
        return self.recorder.sitting

    @property
    def busy(self) -> bool:
        """Whether a sitting or a replay is on; a sitting from connecting to its tracker on."""
        begun = self.sitting is not None or self.flow.phase != "idle"
        return begun or self.replaying.replay is not None

    @property
    def _elsewhere(self) -> bool:
        """Whether something else than the study's images is, or is about to be, looked at in a sitting."""
        return self.flow.phase not in ("idle", "images", "paused")

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
        fresh = study is not self._cached_study
        if fresh:
            self._cache, self._cached_study = SceneCache(study), study
            self.list.thumbnails.set_study(study)
        if what in ("study", "data") and self._cache is not None:
            self._cache.forget()
            self._facts.ask(lambda: gather(study), NO_FLICKER_MS)
            if fresh and self._facts.pending:
                self._known = NOTHING_KNOWN
            self._list_recordings(study)
        self.session.settle()
        if what in ("study", "data", "target"):
            self._list_images(study)
        self._show_image()
        self._show_tracker_choice()
        if what == "study":
            self.canvas.setFocus()

    def _learn(self, facts: Facts) -> None:
        self._known = facts
        if self.session.study is not None:
            self._list_images(self.session.study)
            if not self.busy:
                # The slice bar's marks are of the facts, too.
                self._show_image()

    def _list_images(self, study: Study) -> None:
        target = self.session.target_id
        listed = self.plan.entries if self.plan is not None else entries(study)
        self.list.set_rows([gaze_row(self._known, entry, target, self._words) for entry in listed])

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
        study, image_id = self.session.study, self.session.image_id
        if study is None or image_id is None or self._cache is None:
            return
        slices = study.slices_beside(image_id)
        gazed = study.fixations.keys()
        known = marks_of(
            slices, self.session.target_id, gazed, self._known.masked, self._known.reviews.keys()
        )
        # Whoever is recorded must not see where they, or others, looked before.
        self.frame.show_slices(slices, image_id, NO_MARKS if self.busy else known)
        self.list.select(image_id)
        self._show_target(study)
        try:
            scene = self._cache.get(image_id, self.session.target_id)
        except UserError as error:
            self.stage.set_scene(None)
            self.error.emit(str(error), "")
            return
        self.stage.set_scene(bare(scene) if self.busy else with_changes(scene, heatmap=None))
        following = self.frame.slices.ahead(PREFETCHED) if len(slices) > 1 else []
        names = [*following, self.list.neighbour(image_id, 1)]
        self._ahead.request(
            self._cache, [(name, self.session.target_id, None, False) for name in names if name]
        )

    def _show_target(self, study: Study) -> None:
        look_for, instance = self.panel.look_for, self.sitting.instance if self.sitting is not None else None
        target = study.target(self.session.target_id)
        self.canvas.takes_tab = len(study.targets) > 1
        look_for.show_look(study.targets, target, instance, running=self.busy)
        said = self.sitting.said if self.sitting is not None else {}
        here = {of: word for (image_id, of), word in said.items() if image_id == self.session.image_id}
        tokens = {of: "accent" if word == "present" else "muted" for of, word in here.items()}
        look_for.targets.set_states({of: (self._words[word], tokens[of]) for of, word in here.items()})
        ordered = look_for.order(study.targets)
        more = bool(ordered) and ordered[-1] != target.id
        self.panel.show_flow(several=more, volume=self.frame.slices.is_volume)

    # Targets

    def next_target(self, step: int) -> None:
        """Look for the next (1) or previous (-1) target in the same image; after the last comes the first."""
        study = self.session.study
        if study is not None and self.panel.look_for.order(study.targets):
            self.look_for(beside(study.targets, self.session.target_id, step))

    def look_for(self, target_id: str) -> None:
        """Look for a target in the image shown, from now on."""
        study = self.session.study
        if study is None or self.replaying.replay is not None or self._elsewhere or self._only is not None:
            return
        if self.sitting is None:
            self.session.set_target(target_id)
        elif target_id != self.session.target_id and self.panel.look_for.order(study.targets):
            self.session.target_id = target_id
            self._change_look()
        self._show_target(study)

    def _change_look(self) -> None:
        """Begin a look at the image shown: for another target, or for all or each of them."""
        if self.session.study is None or self._elsewhere:
            return
        self._show_look(None)
        self.canvas.setFocus()

    def next_lesion(self) -> None:
        """Count the next lesion of the target, in the same image."""
        sitting, study = self.sitting, self.session.study
        if sitting is None or study is None:
            return
        if sitting.target_id is None:
            self.panel.show_hint(
                self.tr("Lesions are counted when targets are looked for one by one."), "warning"
            )
            return
        sitting.instance = (sitting.instance or 1) + 1
        self.recorder.show("view")
        self._show_target(study)

    # One look, for a reviewer

    def _note_tracker(self) -> None:
        self._used = self.trackers.chosen

    @property
    def tracker_ready(self) -> bool:
        """Whether a person chose a tracker that records: a simulated eye must not look unasked."""
        chosen = self.trackers.is_device or self._used == self.trackers.chosen
        return chosen and self.trackers.kind != "replay" and not self.busy and not self._saving

    def record_again(self, image_id: str, target_id: str) -> None:
        """Record new gaze of one image and target, and tell with `again_over` when it is stored."""
        self._only = (image_id, target_id)
        self.session.set_target(target_id)
        self.session.set_image(image_id)
        self.start()
        if not self.busy and self._only is not None and not self._starting.asking:
            self._again_ended()

    def _declined(self) -> None:
        if self._only is not None:
            self._again_ended()

    def _again_ended(self) -> None:
        self._only = None
        self.again_over.emit()

    def review_tracker(self) -> ReviewTracker:
        """Return the tracker that follows the eyes while masks are reviewed: the one that is chosen here.

        Raises
        ------
        UserError
            If none is, it is in use, or the annotator has not agreed to be tracked.
        """
        study = self.session.study
        if study is None or self.trackers.kind == "replay":
            raise UserError("A replay sees no eyes: choose a tracker on the page Record first.")
        if self.busy:
            raise UserError("The tracker is in use by a recording: end that first.")
        annotator = self.session.annotator
        if self.trackers.is_device and not has_consented(study, annotator):
            raise UserError(
                f"{annotator} has not agreed to eye tracking in this study: give consent on the page Record first."
            )
        validated = self._validated
        return ReviewTracker(
            self.trackers.name,
            self.trackers.maker(
                study,
                self.session.target_id,
                known_geometry(self.session.settings, self.screen()),
                float(self.panel.rate.value()),
            ),
            needs_calibration=self.trackers.is_device,
            validation=Validation.from_json(validated[-1].values["validation"]) if validated else None,
        )

    @property
    def _validated(self) -> tuple[RecordingEvent, ...]:
        """The last validation of the chosen tracker; nothing where it had none."""
        return self.flow.validated if self._used == self.trackers.chosen else ()

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

    def change_options(self) -> None:
        """Ask how this study's sessions are held."""
        from app.session_options_dialog import SessionOptionsDialog

        study = self.session.study
        if study is not None:
            dialog = SessionOptionsDialog(self, study, self.session.settings)
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
                known = self._validated if self._only is not None else ()
                self._starting.start(study, annotator, self._picked, self._only, known or None)
        except UserError as error:
            self.error.emit(str(error), "")

    def _start_sitting(self, beginning: Beginning, plan: SessionPlan) -> None:
        self.plan = plan
        self._note_tracker()
        self.session.image_id, self.session.target_id = plan.image_id, beginning.target_id
        self._list_images(beginning.study)
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

    def found(self) -> None:
        """Note that the target was found: the search is over, the sweep begins."""
        sitting = self.sitting
        if sitting is not None and self.flow.phase == "images":
            self.recorder.guarded(sitting.found)
            self.panel.show_hint(self.tr("Found: look all over it, edge included."), "accent")

    def _show_phase(self, phase: str) -> None:
        self.canvas.set_live(None, None)
        self.panel.show_phase(phase)
        if self.plan is not None and phase not in ("idle", "images"):
            self.plan.interrupt()

    def _take_up(self) -> None:
        """Go on with the look that was interrupted, in a placement of its own."""
        self._show_image()
        self.recorder.show("image")
        if self.plan is not None:
            self.plan.go_on()
            self._place_mark(self.plan.options.dwell_to_advance_s)
        self.stage.seen.setFocus()

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
        canvas.installEventFilter(self)
        canvas.tabbed.connect(self.next_target)
        canvas.scrolled.connect(self.frame.slices.step)

    def _show_look(self, image_id: str | None) -> None:
        """Show an image (None: the same) for the current target, and begin to look at it."""
        sitting, study = self.sitting, self.session.study
        if sitting is not None and study is not None:
            together = self.panel.look_for.is_together(study.targets) and self._only is None
            target = study.target(self.session.target_id)
            sitting.target_id = None if together else target.id
            sitting.instance = 1 if target.kind == "lesion" and not together else None
        # Set directly: the page shows the image itself, with where it lies, before anyone else reacts.
        self.session.image_id = image_id or self.session.image_id
        self._show_image()
        self.recorder.show("look")
        if self.plan is not None:
            self.plan.shown()
            self._tell_why(sitting)
            shown = self.stage.seen if self.plan.options.show_gaze else None
            self.recorder.live.mirror = shown if shown is not self.canvas else None
            self._place_mark(self.plan.options.dwell_to_advance_s)

    def _take_mark_away(self) -> None:
        """Remove the mark before its canvas, which goes with the display."""
        mark, self._mark = self._mark, None
        if mark is not None:
            mark.hide()
            mark.deleteLater()

    def _place_mark(self, dwell_s: float | None) -> None:
        """Show the mark that leads on by gaze, where it is wanted."""
        if dwell_s is not None and self._mark is None and self.sitting is not None:
            self._mark = DwellMark(self.stage.seen, dwell_s)
        if self._mark is not None:
            self._mark.restart()

    def _tell_why(self, sitting: Sitting | None) -> None:
        """Say why an image is shown again."""
        plan, image_id = self.plan, self.session.image_id
        item = plan.item(image_id, sitting.target_id) if plan and sitting and image_id else None
        if sitting is not None and item is not None and item.again:
            self.recorder.guarded(
                lambda: sitting.note("look_again", {"image_id": item.image_id, "target_id": item.target_id})
            )
            reasons = "; ".join(item.reasons)
            self.panel.show_hint(self.tr("Look again: {reasons}.").format(reasons=reasons), "warning")

    def _fail(self, text: str) -> None:
        self.error.emit(text, "")
        self.end()

    def _enough(self) -> None:
        if self.plan is not None and self.plan.options.sound:
            soft_tone()

    def speak(self) -> None:
        """Begin a voice note on the image shown, or end it."""
        sitting, study, image_id = self.sitting, self.session.study, self.session.image_id
        if sitting is None or study is None or image_id is None or self.plan is None:
            return
        if self.plan.options.voice_notes:
            try:
                if self._voice.on:
                    self._end_note()
                else:
                    folder = study.recordings_folder / sitting.recording_id
                    self._voice.start(folder, image_id, sitting.target_id)
            except UserError as error:
                self.error.emit(str(error), "")

    def _end_note(self) -> None:
        """End the note that is being spoken: it belongs to the image shown."""
        try:
            self._voice.stop()
        except UserError as error:
            self.error.emit(str(error), "")

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
            if trouble := self._voice.trouble:
                self.error.emit(trouble, "")
            if self._voice.full or trouble:
                self._end_note()
            wanted = self.plan is not None and self.plan.options.voice_notes
            self.panel.show_voice(wanted=wanted, seconds=self._voice.seconds)
            if self.flow.phase == "images" and self._goes_on_by_itself():
                self.go(1)

    def _goes_on_by_itself(self) -> bool:
        """Whether the longest time is over, or gaze has rested on the mark that asks for the next image."""
        if self.plan is not None and self.plan.time_is_up:
            return True
        dot, mark = self.recorder.live.dot, self._mark
        return mark is not None and mark.follow(
            None if dot is None else self.stage.seen.widget_from_image(*dot)
        )

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
        self.recorder.guarded(lambda: self.recorder.leave(presence))
        self.scroll_to(following or self.session.image_id or "")
        if following is None:
            self.panel.show_hint(self.tr("That was the last slice in this direction; Space goes on."))

    def scroll_to(self, image_id: str) -> None:
        """Show another slice of the volume."""
        if self.replaying.replay is not None or self._elsewhere:
            return
        if self.sitting is None:
            self.session.set_image(image_id)
            return
        self.session.image_id = image_id
        self._show_image()
        self.recorder.show("image")

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
        gaze_ms = self.recorder.live.look_ms
        single = not self.frame.slices.is_volume and sitting.target_id is not None
        if step > 0 and presence is None and gaze_ms > 0 and single:
            presence = "present"
        order = self.panel.look_for.order(study.targets) if self._only is None else ()
        following = self.list.following(self.session.image_id, self.session.target_id, order, step)
        if following is None and step < 0:
            return

        self._end_note()

        def move() -> None:
            self.recorder.leave(presence)
            if step > 0 and gaze_ms < TOO_BRIEF_MS:
                told = self.tr("The last image was looked at for {s:.1f} s only: go back with Backspace?")
                self.panel.show_hint(told.format(s=gaze_ms / 1000), "warning")
            else:
                self.panel.show_hint("")
            if following is None:
                self.end()
                return
            image_id, self.session.target_id = following
            self._show_look(image_id)
            if step > 0:
                self._between()

        self.recorder.guarded(move)

    def _between(self) -> None:
        """Offer a break, or check the drift, where one is due before the image that was just shown is looked at."""
        plan = self.plan
        if plan is None or self.flow.phase != "images":
            return
        plan.looked()
        if plan.break_due:
            plan.rested()
            self.flow.offer_break()
        elif self.flow.anchor_due():
            self.flow.check_drift()

    def end(self) -> None:
        """End the sitting or the replay; fixations are detected and stored in a thread."""
        self._timer.stop()
        sitting, study = self.recorder.release(), self.session.study
        self.replaying.end()
        self._end_note()
        self.panel.show_voice(wanted=False)
        self._take_mark_away()
        self.flow.end()
        self.plan = self._picked = None
        self.canvas.set_live(None, None)
        self.list.setEnabled(True)
        self.panel.show_running(False)
        self.tracker_status.emit("")
        if sitting is None or study is None:
            self.refresh("image")
            if self._only is not None:
                self._again_ended()
            return
        self._saving = True
        self._show_tracker_choice()
        self.panel.show_hint(self.tr("Saving the recording and detecting fixations…"))

        task = saving(sitting, study, self, self._only)
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
        if self._only is not None:
            self._again_ended()

    # Events

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Take keys before the canvas does while someone is recorded; pass the pointer on that stands in for eyes."""
        tracker = self.sitting.tracker if self.sitting is not None else None
        if tracker is not None and event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            return self._handle_in_sitting(event)
        if event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            return self.replaying.handle_key(event)
        if isinstance(tracker, MouseTracker) and isinstance(watched, Canvas) and watched is self.stage.seen:
            if event.type() == QEvent.Type.MouseMove and isinstance(event, QMouseEvent):
                place = event.globalPosition() - watched.screen().geometry().topLeft()
                size = watched.screen().geometry().size()
                tracker.move(place.x() / size.width(), place.y() / size.height())
            elif event.type() == QEvent.Type.Leave:
                tracker.leave()
        return super().eventFilter(watched, event)

    def _act(self, action: Action) -> None:
        """Do what a key means in the middle of a sitting."""
        acts: dict[Action, Callable[[], None]] = {
            "next": lambda: self.go(1),
            "back": lambda: self.go(-1),
            "nothing": lambda: self.say("absent"),
            "unsure": lambda: self.say("unsure"),
            "ungradable": lambda: self.say("ungradable"),
            "found": self.found,
            "next_lesion": self.next_lesion,
            "next_target": lambda: self.next_target(1),
            "previous_target": lambda: self.next_target(-1),
            "pause": self.flow.pause_or_resume,
            "drift_check": self.flow.check_drift,
            "voice_note": self.speak,
            "end": self.end,
        }
        acts[action]()

    def _handle_in_sitting(self, event: QKeyEvent) -> bool:
        """Act on a key in the middle of a sitting; returns whether it was taken."""
        action = self.keymap.action_of(event)
        if action in ("next_target", "previous_target") and not self.canvas.takes_tab:
            # There is but one target: Tab goes on to the next control.
            return False
        if action is not None:
            if event.isAutoRepeat():
                return True
            if self.flow.phase == "images" or action in ("pause", "drift_check", "end"):
                self._act(action)
            elif action == "next":
                self.flow.space()
            return True
        if self.flow.phase == "images" and self.frame.slices.handle_key(event):
            return True
        plain = not event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        if event.key() in VIEW_KEYS and plain:
            return self.stage.seen.handle_key(event)
        # No letter may leave the page, or toggle a layer, in the middle of a recording.
        return plain and bool(event.text())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move on, or take a word on the image; then the canvas's keys."""
        key = event.key()
        plain = not event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        if self.sitting is not None:
            if not self._handle_in_sitting(event):
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
        on = self.sitting is not None or self.flow.phase != "idle"
        end = shown(self.keymap.key("end"))
        return self.tr("A recording is on: end it first ({end}).").format(end=end) if on else ""

    def stop(self) -> None:
        """Finish a sitting before the window closes; end the threads."""
        self._timer.stop()
        self._facts.stop()
        self._end_note()
        sitting, study = self.recorder.release(), self.session.study
        # A display of its own would outlive the window, and a tracker that is still being connected would record.
        self.flow.end()
        self.recorder.stop()
        self._ahead.stop()
        if sitting is not None and study is not None:
            with contextlib.suppress(UserError):
                save(sitting, study)
        self.list.thumbnails.stop()
