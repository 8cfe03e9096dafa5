"""Calibration as it is lived through: sit well, follow the targets, see how well gaze is measured, accept it or not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import numpy as np
from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QKeyEvent
from PySide6.QtWidgets import QHBoxLayout, QStackedWidget, QWidget

from app.calibrate_panel import EYES, Action, CalibratePanel
from app.calibration_session import CalibrationSession
from app.calibrator_calls import CalibratorCalls
from app.eye_box import EyeBox
from app.gaze_feed import GazeFeed
from app.participant_window import ParticipantWindow, ink_on
from app.quality_words import lesion_words
from app.screen_plan import ScreenPlan, calibrated_points, validated_points, waiting_points
from app.widgets import box
from gaze_capture.calibration import (
    Timing,
    Validator,
    calibration_event,
    calibration_targets,
    restored_event,
    validation_event,
    validation_targets,
)
from gaze_capture.errors import UserError
from gaze_capture.quality import Validation
from gaze_capture.recording import Eyes, RecordingEvent
from gaze_capture.saved_calibration import SavedCalibration, save_calibration, saved_calibration
from gaze_capture.trackers.mouse import MouseTracker
from gaze_capture.trackers.simulated import SimulatedTracker
from gaze_capture.trackers.tracker import CalibrationOutcome, Calibrator, Point, Tracker

TICK_MS = 16
SILENCE_S = 2.0

State = Literal["position", "calibrating", "leaving", "calibrated", "validating", "result", "over"]


class CalibrateView(QWidget):
    """Leads through position, calibration, validation and result; the operator sees it, the person sees targets.

    Keys, here and on the participant's display: Space or Enter goes on, R does it again, V validates again, 1-9 marks
    a target, Esc stops and then leaves. Calls of the device run in a thread.

    Parameters
    ----------
    tracker
        Open; it stays open. One without a calibrator is only validated.
    participant
        Used until :attr:`finished`; a widget that it hosted is released.
    store_folder
        Where calibrations are kept for those who come back; None keeps none.
    eyes
        Whose gaze counts until others are chosen.
    validate_first
        Measures the calibration in use before anything else, as after a drift.
    degrees_per_image_px, spacing_mm
        Of the images to be shown, where known, to tell what lesions can be marked.
    """

    finished = Signal(object)
    """A CalibrationSession; told once."""

    def __init__(
        self,
        tracker: Tracker,
        participant: ParticipantWindow,
        annotator: str,
        store_folder: Path | None,
        parent: QWidget | None = None,
        *,
        timing: Timing | None = None,
        degrees_per_image_px: float | None = None,
        spacing_mm: float | None = None,
        seed: int | None = None,
        eyes: Eyes = "both",
        validate_first: bool = False,
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Calibration"))
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.state: State = "position"
        self._tracker = tracker
        self._participant = participant
        self._annotator = annotator
        self._store_folder = store_folder
        self._timing = timing or Timing()
        self._image = (degrees_per_image_px, spacing_mm)
        self._seed = int(np.random.default_rng(seed).integers(1 << 31))
        self._eyes: Eyes = eyes
        self._wanted: Eyes = eyes
        self._count: Literal[5, 9] = 5
        self._targets: tuple[Point, ...] = ()
        self._collecting: tuple[Point, ...] = ()
        """Those of them that are being shown."""
        self._outcome: CalibrationOutcome | None = None
        self._points = 0
        self._restarting = False
        self._problem = ""
        """What to say once calibration was left."""
        self._validator: Validator | None = None
        self._validation: Validation | None = None
        self._events: list[RecordingEvent] = []
        self._saved: SavedCalibration | None = None
        self._calls: CalibratorCalls | None = None
        if tracker.calibrator is not None:
            self._calls = calls = CalibratorCalls(tracker.calibrator, self)
            calls.target_shown.connect(self._show_target)
            calls.calibrated.connect(self._on_calibrated)
            calls.stopped.connect(self._on_stopped)
            calls.failed.connect(self._on_call_failed)
        expected_mm = tracker.geometry.viewing_distance_mm
        self.eye_box = EyeBox(expected_mm)
        self._mirror = EyeBox(expected_mm, participant.background, ink_on(participant.background))
        self.plan = ScreenPlan(tracker.geometry)
        self.plan.marks_changed.connect(self._on_marks)
        self._stack = QStackedWidget()
        self._stack.addWidget(self.eye_box)
        self._stack.addWidget(self.plan)
        self.panel = CalibratePanel(calibrates=self._calls is not None)
        self.panel.eyes.choose(EYES.index(eyes))
        self.panel.acted.connect(self._act)
        self.panel.eyes_chosen.connect(self._choose_eyes)
        self.panel.points_chosen.connect(self._choose_points)
        layout = QHBoxLayout(self)
        box(layout, spacing=0)
        layout.addWidget(self._stack, 1)
        layout.addWidget(self.panel)
        participant.key_pressed.connect(self._key)
        participant.display_lost.connect(self._on_display_lost)
        if isinstance(tracker, MouseTracker):
            participant.pointer_moved.connect(tracker.move)
        self._feed = GazeFeed(tracker)
        self._timer = QTimer(self, interval=TICK_MS)
        self._timer.timeout.connect(self.tick)
        self._timer.start()
        problem = self._find_saved()
        self._show_position(problem)
        if validate_first:
            # Once it is in view.
            QTimer.singleShot(0, self, self._validate)

    def _find_saved(self) -> str:
        """Look for a calibration to use again; return what is wrong with it, if anything."""
        if self._store_folder is not None and self._calls is not None:
            try:
                self._saved = saved_calibration(self._store_folder, self._annotator, self._tracker)
            except UserError as error:
                return str(error)
        return ""

    # The participant's display

    def _take_display(self) -> None:
        """Let the person see targets; on a single monitor the operator sees nothing else, either."""
        self._participant.show_pointer(isinstance(self._tracker, MouseTracker))
        self._participant.present()

    def _give_display_back(self) -> None:
        """Let the operator see this view; the person, on another monitor, sees nothing or where the eyes are."""
        if self._participant.covers(self):
            self._participant.withdraw()
            self.activateWindow()
        elif self.state == "position":
            self._participant.host(self._mirror)
            self._participant.present()
        else:
            self._participant.show_nothing()
        self.setFocus()

    def _show_target(self, x: float, y: float) -> None:
        """Show the target that the device waits for."""
        if self.state != "calibrating":
            return
        self._participant.show_target(x, y)
        targets = self._collecting
        done = targets.index((x, y)) if (x, y) in targets else 0
        self.plan.show_points(waiting_points(targets, (x, y), done))

    def _on_display_lost(self) -> None:
        """Stop what the person cannot see any more."""
        if self.state in ("calibrating", "validating"):
            self._fail(self.tr("The participant's display is gone: plug it in again, then start over."))
        elif self.state != "over":
            self._give_display_back()

    # Steps

    def _show_position(self, problem: str = "") -> None:
        self.state = "position"
        self._validator = None
        self._problem = ""
        self._stack.setCurrentWidget(self.eye_box)
        self.panel.show_position(self._saved)
        self.panel.show_problem(problem)
        self._give_display_back()

    def _calibrate(self, targets: tuple[Point, ...], *, redo: bool = False) -> None:
        if self._calls is None:
            self._validate()
            return
        self.state = "calibrating"
        if not redo:
            self._targets = targets
        self._collecting = targets
        self._stack.setCurrentWidget(self.plan)
        self.plan.show_points(waiting_points(targets, None, 0))
        self.panel.show_under_way(len(targets), validation=False)
        self._participant.show_nothing()
        self._take_display()
        self._calls.calibrate(targets, self._wanted, redo=redo)

    def _on_calibrated(self, outcome: CalibrationOutcome) -> None:
        self._events.append(calibration_event(outcome, time.monotonic_ns()))
        if self.state != "calibrating":
            # Esc came while the device computed.
            self._leave_calibration()
            return
        self.state = "calibrated"
        self._outcome = outcome
        self._points = len(outcome.points)
        self._eyes = outcome.eyes or self._wanted
        can_redo = self._tracker.calibrator is not None and self._tracker.calibrator.can_redo
        points = calibrated_points(self._targets, outcome, self.tr("not seen"))
        self.plan.show_points(points, markable=can_redo)
        self.panel.show_calibrated(outcome, can_redo=can_redo)
        self._on_marks()
        self._give_display_back()

    def _on_marks(self) -> None:
        self.panel.show_marked(len(self.plan.marked))

    def _validate(self, _: object = None) -> None:
        """Begin a validation; the device has left calibration."""
        if self.state == "over":
            return
        self.state = "validating"
        self._seed += 1
        targets = validation_targets(self._seed)
        self._validator = Validator(targets, self._tracker.geometry, self._eyes, self._timing)
        self._stack.setCurrentWidget(self.plan)
        self.panel.show_under_way(len(targets), validation=True)
        self._participant.show_nothing()
        self._take_display()
        self._next_target(self._validator)

    def _next_target(self, validator: Validator) -> None:
        target = validator.current
        if target is None:
            self._show_result(validator)
            return
        self._participant.show_target(*target)
        self.plan.show_points(waiting_points(validator.targets, target, len(validator.collected)))
        # The onset is taken after what makes the target come, so that no gaze from before counts.
        validator.show(time.monotonic_ns())
        if isinstance(self._tracker, SimulatedTracker):
            self._tracker.look_at(*target)

    def _show_result(self, validator: Validator) -> None:
        self.state = "result"
        self._validator = None
        self._validation = validation = validator.validation()
        self._events.append(validation_event(validation, self._points, time.monotonic_ns()))
        geometry = self._tracker.geometry
        self.plan.show_points(validated_points(validation, validator, geometry))
        self.panel.show_result(validation, lesion_words(validation, geometry, *self._image))
        self._give_display_back()

    # What is asked for

    def _act(self, action: Action) -> None:
        if self.state == "over" or (self.state == "leaving" and action != "leave"):
            # The device is at work: nothing else may begin meanwhile.
            return
        if action == "start" or action == "redo_all" or action == "recalibrate":
            self._begin()
        elif action == "restore":
            self._restore()
        elif action == "stop":
            self._stop()
        elif action == "again":
            self._again()
        elif action == "redo_marked":
            self._redo_marked()
        elif action == "continue":
            self._continue()
        elif action == "validate":
            self._validate()
        elif action == "accept":
            self._accept()
        else:
            self._finish(accepted=False)

    def _begin(self) -> None:
        """Calibrate from the beginning; where that cannot be done, validate."""
        problem = self._tracker_problem()
        if problem:
            self.panel.show_problem(problem)
            return
        self._seed += 1
        self._calibrate(calibration_targets(self._count, self._seed))

    def _redo_marked(self) -> None:
        if marked := self.plan.marked:
            self._calibrate(marked, redo=True)

    def _continue(self) -> None:
        if self._calls is not None and self.state == "calibrated" and self._outcome is not None:
            if self._outcome.eyes is None:
                self._begin()
                return
            self.state = "leaving"
            self._calls.end(self._validate)

    def _restore(self) -> None:
        saved, calls = self._saved, self._calls
        if saved is None or calls is None or self.state != "position":
            return
        self.state = "leaving"
        calls.call(lambda calibrator: calibrator.restore(saved.data), self._on_restored)

    def _on_restored(self, _: object) -> None:
        saved = self._saved
        assert saved is not None
        self._eyes, self._points = saved.eyes, saved.points
        self._events.append(restored_event(saved.eyes, saved.points, saved.saved_utc, time.monotonic_ns()))
        self._validate()

    def _again(self) -> None:
        if self.state == "validating":
            self._validate()
        elif self.state == "calibrating":
            self._restarting = True
            self._leave_calibration()

    def _stop(self) -> None:
        if self.state == "validating":
            self._show_position(self.tr("The validation was stopped."))
        elif self.state == "calibrating":
            self._leave_calibration()

    def _leave_calibration(self, problem: str = "") -> None:
        """Have the device leave calibration; then start over, or go back to the position with a sentence."""
        assert self._calls is not None
        collecting = self.state == "calibrating"
        self.state = "leaving"
        self._problem = problem or self._problem or self.tr("The calibration was stopped.")
        self._participant.show_nothing()
        self.panel.show_leaving()
        if collecting:
            self._calls.stop()
        else:
            self._calls.end(self._on_stopped)

    def _on_stopped(self, _: object = None) -> None:
        if self.state == "over":
            return
        restarting, self._restarting = self._restarting, False
        problem = self._tracker_problem() if restarting else self._problem
        if restarting and not problem:
            self._problem = ""
            self._begin()
        else:
            self._show_position(problem)

    def _choose_eyes(self, eyes: Eyes) -> None:
        self._wanted = eyes
        if self.state in ("calibrated", "result"):
            self.panel.show_problem(self.tr("Counts from the next calibration on."), "muted")
        self.setFocus()

    def _choose_points(self, count: int) -> None:
        self._count = 9 if count == 9 else 5
        self.setFocus()

    def _accept(self) -> None:
        validation = self._validation
        if validation is None or self.state != "result":
            return
        if validation.verdict == "recalibrate" and self.panel.confirm.isHidden():
            self.panel.confirm.show()
            self.panel.buttons["accept"].setEnabled(False)
            return
        keeps = self._store_folder is not None and validation.verdict != "recalibrate"
        if self._calls is None or not keeps:
            self._finish(accepted=True)
            return
        self.state = "leaving"
        self._calls.call(self._keep, self._on_kept)

    def _keep(self, calibrator: Calibrator) -> str:
        """Keep the calibration for the next time, in a thread; return what went wrong."""
        assert self._store_folder is not None and self._validation is not None
        try:
            data = calibrator.save()
            if data is not None:
                save_calibration(
                    self._store_folder,
                    self._annotator,
                    self._tracker,
                    data,
                    eyes=self._eyes,
                    points=self._points,
                    validation=self._validation,
                )
        except UserError as error:
            return str(error)
        return ""

    def _on_kept(self, remark: str) -> None:
        self._finish(accepted=True, remark=remark)

    # The tracker

    def tick(self) -> None:
        """Take the samples that came, and look after the tracker."""
        samples = self._feed.drain()
        tracker, feed = self._tracker, self._feed
        if self.state == "position":
            for eye_box in (self.eye_box, self._mirror):
                eye_box.show_eyes(tracker.eyes, *feed.seen)
        elif self.state in ("calibrating", "validating"):
            self.plan.show_gaze(feed.gaze(self._wanted))
            if problem := self._tracker_problem():
                self._fail(problem)
                return
        validator = self._validator
        if validator is not None and self.state == "validating":
            before = validator.current
            validator.add(samples)
            validator.advance(time.monotonic_ns())
            if validator.current != before:
                self._next_target(validator)

    def _tracker_problem(self) -> str:
        tracker = self._tracker
        if tracker.ended or not tracker.connected:
            return self.tr("The tracker is gone: check its cable and power, then start over.")
        # In calibration, some devices deliver nothing.
        if self.state == "validating" and self._feed.silent_s > max(SILENCE_S, 3 / tracker.rate_hz):
            return self.tr("The tracker delivers nothing: check its cable and power, then start over.")
        return ""

    def _fail(self, problem: str) -> None:
        """Go back to the position, with a sentence."""
        if self.state == "calibrating":
            self._leave_calibration(problem)
        elif self.state not in ("leaving", "over"):
            self._show_position(problem)

    def _on_call_failed(self, problem: str) -> None:
        """Go back to the position; the device has left calibration."""
        if self.state != "over":
            self._restarting = False
            self._show_position(problem)

    # The end

    def _finish(self, *, accepted: bool, remark: str = "") -> None:
        session = CalibrationSession(
            tuple(self._events), self._validation, self._eyes, self._points, accepted, remark
        )
        if self._close_down():
            self.finished.emit(session)

    def _close_down(self) -> bool:
        """Let go of tracker and display; False the second time."""
        if self.state == "over":
            return False
        self.state = "over"
        self._timer.stop()
        self._feed.close()
        if self._calls is not None:
            self._calls.leave()
        participant = self._participant
        participant.key_pressed.disconnect(self._key)
        participant.display_lost.disconnect(self._on_display_lost)
        if isinstance(self._tracker, MouseTracker):
            participant.pointer_moved.disconnect(self._tracker.move)
        participant.release()
        participant.show_nothing()
        if participant.covers(self):
            participant.withdraw()
        return True

    def stop(self) -> None:
        """End without a word, as the window closes; the device leaves calibration by itself."""
        self._close_down()

    def closeEvent(self, event: QCloseEvent) -> None:
        """Leave, as Esc does."""
        self._finish(accepted=False)
        super().closeEvent(event)

    # Keys

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Go on, do again, or leave."""
        plain = not event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        if not plain or event.isAutoRepeat() or not self._key(event.key()):
            super().keyPressEvent(event)

    def _key(self, key: int) -> bool:
        """Do what a key means now; False where it means nothing."""
        if self.state == "over":
            return False
        buttons = self.panel.buttons
        if key == Qt.Key.Key_Escape:
            # A device that never answers must not keep anyone here, either.
            self._act("stop" if "stop" in buttons and self.state != "leaving" else "leave")
        elif self.state == "leaving":
            return True
        elif key in (Qt.Key.Key_Space, Qt.Key.Key_Return, Qt.Key.Key_Enter):
            if self.panel.default is not None:
                self._act(self.panel.default)
        elif key == Qt.Key.Key_R:
            self._do_again()
        elif key == Qt.Key.Key_V and "validate" in buttons:
            self._act("validate")
        elif Qt.Key.Key_1 <= key <= Qt.Key.Key_9:
            return self.plan.toggle(key - int(Qt.Key.Key_1))
        else:
            return False
        return True

    def _do_again(self) -> None:
        buttons = self.panel.buttons
        if "redo_marked" in buttons and self.plan.marked:
            self._act("redo_marked")
            return
        for action in ("again", "redo_all", "recalibrate"):
            if action in buttons:
                self._act(action)
                return
