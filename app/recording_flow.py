"""The course of a sitting around its images: preparation, practice, pauses, drift checks, the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QScreen
from PySide6.QtWidgets import QWidget

from app.calibrate_view import CalibrateView
from app.calibration_session import CalibrationSession
from app.drift_view import DriftResult, DriftView
from app.jobs import StepProgress, Task
from app.keymap import Keymap, shown
from app.practice_run import PracticeRun
from app.recorder import Recorder
from app.sitting import Sitting
from app.stage import Stage
from gaze_capture.errors import UserError
from gaze_capture.quality import Validation
from gaze_capture.recording import RecordingEvent
from gaze_capture.trackers.tracker import Tracker
from segmentation.study import Study

Phase = Literal["idle", "connecting", "calibrating", "practice", "images", "paused", "drift"]


@dataclass(frozen=True)
class Beginning:
    """What a sitting starts with."""

    make_tracker: Callable[[], Tracker]
    """Makes the tracker, not opened yet; may take seconds, too."""
    study: Study
    annotator: str
    target_id: str
    screen: QScreen | None = None
    """The display that the images will be shown on alone; None: the program's window."""
    calibrate: bool = False
    practice: int = 0
    """So many practice images come first."""
    anchor_every: int = 0
    """After so many images the drift is checked; 0: only when asked for."""
    publish: bool = False
    """Whether gaze and events are published as LSL streams meanwhile."""
    store_folder: Path | None = None
    """Where calibrations are kept for those who come back."""
    known: tuple[RecordingEvent, ...] = ()
    """Validations of a sitting before, which hold still."""


class RecordingFlow(QObject):
    """Leads one sitting at a time; the page shows the images in between."""

    phase_changed = Signal(str)
    begun = Signal()
    """Everything is ready: the first image can be shown."""
    resumed = Signal()
    """The look that was interrupted goes on."""
    view_wanted = Signal(object)
    """A QWidget to show to the operator in the images' place, or None: the images again."""
    told = Signal(str, str)
    """A sentence, and details."""
    given_up = Signal()
    """The sitting ends before, or in the middle of, its images."""

    def __init__(self, recorder: Recorder, stage: Stage, keymap: Keymap, parent: QObject) -> None:
        super().__init__(parent)
        self._keymap = keymap
        self.phase: Phase = "idle"
        self.validation: Validation | None = None
        """The last one of this sitting."""
        self.validated: tuple[RecordingEvent, ...] = ()
        """What it left to the recording."""
        self._recorder, self._stage = recorder, stage
        self._beginning: Beginning | None = None
        self._task: Task | None = None
        self._view: CalibrateView | DriftView | None = None
        self._since_anchor = 0
        self._started = False
        """Whether the first image has been shown."""
        self._practice = PracticeRun(recorder, stage, keymap, self)
        self._practice.done.connect(self._begin_images)
        stage.display_lost.connect(self._on_display_lost)

    def _enter(self, phase: Phase) -> None:
        if phase != self.phase:
            self.phase = phase
            self.phase_changed.emit(phase)

    # The beginning

    def start(self, beginning: Beginning) -> None:
        """Connect, off the window's thread: some trackers take seconds."""
        self._beginning = beginning
        self._enter("connecting")

        def work(_: StepProgress) -> Tracker:
            tracker = beginning.make_tracker()
            tracker.open()
            return tracker

        task = Task(work, self.tr("Connecting to the tracker"), self)
        task.succeeded.connect(lambda tracker: self._on_connected(beginning, tracker))
        task.failed.connect(lambda text, details: self._on_failed(beginning, text, details))
        task.start()

    def _on_failed(self, beginning: Beginning, sentence: str, details: str) -> None:
        if self._beginning is beginning:
            self._enter("idle")
            self.told.emit(sentence, details)
            self.given_up.emit()

    def _on_connected(self, beginning: Beginning, tracker: Tracker) -> None:
        if self._beginning is not beginning:
            # Someone gave up meanwhile.
            tracker.close()
            return
        self.begin_with(beginning, tracker)

    def begin_with(self, beginning: Beginning, tracker: Tracker) -> None:
        """Go on with an open tracker; everything it measures is recorded from here on."""
        self._beginning = beginning
        self.validation = self._recorder.accuracy_deg = None
        self.validated = beginning.known
        self._since_anchor = 0
        try:
            sitting = Sitting(
                beginning.study, tracker, beginning.annotator, beginning.target_id, publish=beginning.publish
            )
        except UserError as error:
            self._on_failed(beginning, str(error), "")
            return
        if beginning.screen is not None:
            self._stage.open_display(beginning.screen)
        self._recorder.begin(sitting, beginning.study, self._stage.seen)
        # At the time of this recording: that is what its gaze is judged by.
        now = time.monotonic_ns()
        carried = (
            replace(event, time_ns=now, values={**event.values, "carried": True}) for event in beginning.known
        )
        if not self._store(tuple(carried)):
            return
        for event in beginning.known:
            self.validation = Validation.from_json(event.values["validation"])
            self._recorder.accuracy_deg = self.validation.mean_error_deg
        if beginning.calibrate:
            self.calibrate()
        else:
            self._go_on()

    def calibrate(self, *, validate_only: bool = False) -> None:
        """Calibrate and validate, or, with `validate_only`, only measure how well it still is."""
        sitting, beginning = self._recorder.sitting, self._beginning
        if sitting is None or beginning is None:
            return
        self._interrupt("calibrating")
        view = CalibrateView(
            sitting.tracker,
            self._stage.targets_window(),
            beginning.annotator,
            beginning.store_folder,
            eyes=self._recorder.live.eyes,
            validate_first=validate_only,
        )
        view.finished.connect(self._on_calibrated)
        self._show(view)

    def _on_calibrated(self, outcome: CalibrationSession) -> None:
        self._close_view()
        if not self._store(outcome.events):
            return
        if outcome.validation is not None:
            self.validation = outcome.validation
            self.validated = tuple(event for event in outcome.events if event.kind == "validation")[-1:]
            self._recorder.accuracy_deg = outcome.validation.mean_error_deg
        self._recorder.live.eyes = outcome.eyes
        if outcome.remark:
            self.told.emit(outcome.remark, "")
        if outcome.accepted:
            self._go_on()
        else:
            self.given_up.emit()

    def _go_on(self) -> None:
        """Show what comes next: practice, the first image, or the one that was interrupted."""
        beginning = self._beginning
        if self._started:
            self._resume()
        elif beginning is not None and beginning.practice:
            self._enter("practice")
            self._practice.start(beginning.practice)
        else:
            self._begin_images()

    def _begin_images(self) -> None:
        self._started = True
        for canvas in {self._stage.operator, self._stage.seen}:
            canvas.set_layer_visible("truth", False)
        self._enter("images")
        self.begun.emit()

    # In the middle

    def space(self) -> bool:
        """Take Space where it does not mean the next image; returns whether it was taken."""
        if self.phase == "practice":
            self._practice.go_on()
        elif self.phase == "paused":
            self.pause_or_resume()
        else:
            return self.phase != "images"
        return True

    def pause_or_resume(self) -> None:
        """Hide the image and let gaze fall on nothing, or go on."""
        if self.phase == "images":
            self._recorder.pause()
            self._enter("paused")
            self._stage.cover(
                self.tr("Paused"), self._with_key(self.tr("Nothing is recorded on the image. {key} goes on."))
            )
        elif self.phase == "paused":
            self._recorder.resume()
            self._resume()

    def _with_key(self, text: str) -> str:
        return text.format(key=shown(self._keymap.key("next")))

    def offer_break(self) -> None:
        """Pause, and say why."""
        if self.phase == "images":
            self.pause_or_resume()
            self._stage.cover(
                self.tr("Time for a break"),
                self._with_key(self.tr("Look away and rest your eyes. {key} goes on as soon as you like.")),
            )

    def _interrupt(self, phase: Phase) -> None:
        """Let gaze fall on nothing while something else is looked at."""
        if self.phase == "images":
            self._recorder.guarded(lambda: self._recorder.leave(None))
        self._stage.say("")
        self._enter(phase)

    def _resume(self) -> None:
        self._stage.lift()
        self._enter("images")
        self.resumed.emit()

    def anchor_due(self) -> bool:
        """Count an image that was looked at; whether the drift is to be checked before the next one."""
        self._since_anchor += 1
        every = self._beginning.anchor_every if self._beginning is not None else 0
        return 0 < every <= self._since_anchor

    def check_drift(self) -> None:
        """See how far the gaze has drifted since it was validated; the look is interrupted for it."""
        sitting = self._recorder.sitting
        if sitting is None or self.phase not in ("images", "paused"):
            return
        if self.phase == "paused":
            self._recorder.resume()
            self._stage.lift()
        self._since_anchor = 0
        self._interrupt("drift")
        view = DriftView(sitting.tracker, self._stage.targets_window(), self._recorder.live.eyes)
        view.finished.connect(self._on_drift)
        self._show(view)

    def _on_drift(self, result: DriftResult) -> None:
        self._close_view()
        if not self._store(result.events):
            return
        if result.choice in ("validate", "calibrate"):
            self.calibrate(validate_only=result.choice == "validate")
        else:
            self._resume()

    def _on_display_lost(self) -> None:
        self._recorder.seen_on(self._stage.seen)
        if self.phase == "images":
            self.pause_or_resume()
        if self.phase != "idle":
            self.told.emit(
                self.tr("The participant's display was unplugged: the sitting is paused, nothing is lost."),
                "",
            )

    # Ends

    def end(self) -> None:
        """Leave whatever is going on; the recorder's sitting is the page's to save."""
        self._beginning = None
        self._started = False
        if self._view is not None:
            view, self._view = self._view, None
            view.finished.disconnect()
            view.close()
            self.view_wanted.emit(None)
            view.deleteLater()
        self._practice.skip()
        self._stage.targets_over()
        self._stage.lift()
        self._stage.say("")
        self._stage.close_display()
        self._enter("idle")

    def _store(self, events: tuple[RecordingEvent, ...]) -> bool:
        sitting = self._recorder.sitting
        if sitting is None:
            return False
        try:
            for event in events:
                sitting.note(event.kind, event.values, event.time_ns)
        except UserError as error:
            self._recorder.failed.emit(str(error))
            return False
        return True

    def _show(self, view: CalibrateView | DriftView) -> None:
        self._view = view
        shown: QWidget = view
        self.view_wanted.emit(shown)

    def _close_view(self) -> None:
        view, self._view = self._view, None
        self.view_wanted.emit(None)
        self._stage.targets_over()
        if view is not None:
            view.deleteLater()
