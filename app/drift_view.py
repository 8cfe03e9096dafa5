"""A drift check between images: look at the anchor, press Space, go on if gaze still lies where it should."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QKeyEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QVBoxLayout, QWidget

from app import theme
from app.calibrate_panel import PANEL_WIDTH
from app.gaze_feed import GazeFeed
from app.participant_window import ParticipantWindow
from app.quality_words import drift_sign, drift_words
from app.screen_plan import SAMPLES_DRAWN, PlanPoint, ScreenPlan
from app.widgets import Button, IconLabel, box, heading, label
from gaze_capture.calibration import DriftCheck, check_drift, drift_event
from gaze_capture.errors import UserError
from gaze_capture.recording import SAMPLE, Eyes, RecordingEvent, Samples, eye_positions
from gaze_capture.trackers.mouse import MouseTracker
from gaze_capture.trackers.simulated import SimulatedTracker
from gaze_capture.trackers.tracker import Point, Tracker

TICK_MS = 16
BEFORE_S = 0.2
"""Whoever presses Space looks at the anchor already ..."""
AFTER_S = 0.6
"""... and goes on looking; the most stable part of it counts."""
PATIENCE_S = 1.5

DriftChoice = Literal["go_on", "validate", "calibrate", "cancelled"]


@dataclass(frozen=True)
class DriftResult:
    """What came of a drift check."""

    check: DriftCheck | None
    """None where it was cancelled before anything was measured."""
    events: tuple[RecordingEvent, ...]
    """Every check that was made, in order."""
    choice: DriftChoice


class DriftView(QWidget):
    """Shows the anchor to the person and the outcome to the operator; ends by itself where there is no drift.

    Keys, here and on the participant's display: Space measures, then does what is advised; R checks again; Esc cancels
    or, after a check, goes on all the same.

    Parameters
    ----------
    tracker
        Open; it stays open.
    participant
        A widget that it hosts stays hosted: host it again to bring it back.
    eyes
        Whose gaze counts.
    anchor
        Normalised to the screen.
    """

    finished = Signal(object)
    """A DriftResult; told once."""

    def __init__(
        self,
        tracker: Tracker,
        participant: ParticipantWindow,
        eyes: Eyes = "both",
        parent: QWidget | None = None,
        *,
        anchor: Point = (0.5, 0.5),
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Drift check"))
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.state: Literal["looking", "collecting", "result", "over"] = "looking"
        self._tracker, self._participant = tracker, participant
        self._eyes, self._anchor = eyes, anchor
        self._check: DriftCheck | None = None
        self._events: list[RecordingEvent] = []
        self._pressed_ns = 0
        self._collected: Samples = np.empty(0, SAMPLE)
        self.plan = ScreenPlan(tracker.geometry)
        layout = QHBoxLayout(self)
        box(layout, spacing=0)
        layout.addWidget(self.plan, 1)
        layout.addWidget(self._make_panel())
        participant.key_pressed.connect(self._key)
        if isinstance(tracker, MouseTracker):
            participant.pointer_moved.connect(tracker.move)
        self._feed = GazeFeed(tracker)
        self._timer = QTimer(self, interval=TICK_MS)
        self._timer.timeout.connect(self.tick)
        self._timer.start()
        self._look()

    def _make_panel(self) -> QFrame:
        panel = QFrame()
        panel.setObjectName("panelRight")
        panel.setFixedWidth(PANEL_WIDTH)
        column = QVBoxLayout(panel)
        box(column, margins=(theme.LARGE,) * 4, spacing=theme.WIDE)
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        self._sign = IconLabel("crosshair", "accent", 22)
        self.title = heading("")
        head.addWidget(self._sign)
        head.addWidget(self.title, 1)
        column.addLayout(head)
        self.sentence = label("", wrap=True)
        self.problem = label("", "danger", wrap=True)
        column.addWidget(self.sentence)
        column.addWidget(self.problem)
        column.addStretch(1)
        self.calibrate_button = Button(
            self.tr("Calibrate again"), "arrow-counter-clockwise", on_click=lambda: self._finish("calibrate")
        )
        self.validate_button = Button(
            self.tr("Validate again"), "crosshair", on_click=lambda: self._finish("validate")
        )
        self.again_button = Button(self.tr("Check again"), "arrow-clockwise", on_click=self._look)
        self.go_on_button = Button(
            self.tr("Go on all the same"), "arrow-right", on_click=lambda: self._finish("go_on")
        )
        self.keys = label("", "muted", wrap=True)
        for widget in (
            self.validate_button,
            self.calibrate_button,
            self.again_button,
            self.go_on_button,
        ):
            widget.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            column.addWidget(widget)
        column.addWidget(self.keys)
        return panel

    # Steps

    def _look(self, problem: str = "") -> None:
        """Show the anchor, and wait for Space."""
        self.state = "looking"
        self._show(
            "crosshair",
            "accent",
            self.tr("Drift check"),
            self.tr("Look at the middle of the target, and press Space."),
            self.tr("Space measures · Esc cancels"),
        )
        self.problem.setText(problem)
        self.plan.show_points([PlanPoint(*self._anchor, state="current")])
        self._participant.show_pointer(isinstance(self._tracker, MouseTracker))
        self._participant.show_anchor(*self._anchor)
        self._participant.present()
        if isinstance(self._tracker, SimulatedTracker):
            self._tracker.look_at(*self._anchor)
        if not self._participant.covers(self):
            self.setFocus()

    def _show(self, icon: str, token: str, title: str, sentence: str, keys: str) -> None:
        self._sign.set_icon(icon, token)
        self.title.setText(title)
        self.sentence.setText(sentence)
        self.keys.setText(keys)
        told = self.state == "result"
        self.calibrate_button.setVisible(told)
        self.validate_button.setVisible(told)
        for button in (self.again_button, self.go_on_button):
            button.setVisible(told)

    def _measure(self) -> None:
        if self.state != "looking":
            return
        self.state = "collecting"
        self._pressed_ns = time.monotonic_ns()
        recent = self._feed.recent
        self._collected = recent[recent["time_ns"] >= self._pressed_ns - round(BEFORE_S * 1e9)]

    def tick(self) -> None:
        """Take the samples that came; measure once there are enough."""
        samples = self._feed.drain()
        if self.state in ("looking", "collecting"):
            self.plan.show_gaze(self._feed.gaze(self._eyes))
            if self._tracker.ended or not self._tracker.connected:
                self.problem.setText(self.tr("The tracker is gone: check its cable and power."))
        if self.state != "collecting":
            return
        self._collected = np.concatenate([self._collected, samples])
        end_ns = self._pressed_ns + round(AFTER_S * 1e9)
        enough = len(self._collected) > 0 and int(self._collected["time_ns"][-1]) >= end_ns
        if not enough and time.monotonic_ns() - end_ns < PATIENCE_S * 1e9:
            return
        try:
            check = check_drift(self._collected, self._anchor, self._tracker.geometry, self._eyes)
        except UserError as error:
            self._look(str(error))
            return
        self._show_result(check)

    def _show_result(self, check: DriftCheck) -> None:
        self._check = check
        self._events.append(drift_event(check, time.monotonic_ns()))
        if check.verdict == "ok":
            self._finish("go_on")
            return
        self.state = "result"
        sign = drift_sign(check.verdict)
        self._show(
            sign.icon,
            sign.token,
            sign.title,
            drift_words(check),
            self.tr("Space does what is advised · R checks again · Esc goes on all the same"),
        )
        # The advised way is the primary button.
        for button, verdict in (
            (self.calibrate_button, "recalibrate"),
            (self.validate_button, "revalidate"),
        ):
            button.setProperty("role", "primary" if check.verdict == verdict else "")
            button.style().unpolish(button)
            button.style().polish(button)
            button.set_icon("arrow-counter-clockwise" if verdict == "recalibrate" else "crosshair")
        gaze = self._tracker.geometry.degrees_from_normalised(eye_positions(self._collected, self._eyes))
        gaze = gaze[np.isfinite(gaze).all(axis=1)]
        gaze = gaze - self._tracker.geometry.degrees_from_normalised(np.array(self._anchor))
        point = PlanPoint(
            *self._anchor,
            text=f"{check.distance_deg:.2f}°",
            token=sign.token,
            samples_deg=gaze[:: max(1, len(gaze) // SAMPLES_DRAWN)],
        )
        self.plan.show_points([point])
        if self._participant.covers(self):
            self._participant.withdraw()
            self.activateWindow()
        else:
            self._participant.show_nothing()
        self.setFocus()

    # The end

    def _finish(self, choice: DriftChoice) -> None:
        if self._close_down():
            self.finished.emit(DriftResult(self._check, tuple(self._events), choice))

    def _close_down(self) -> bool:
        if self.state == "over":
            return False
        self.state = "over"
        self._timer.stop()
        self._feed.close()
        self._participant.key_pressed.disconnect(self._key)
        if isinstance(self._tracker, MouseTracker):
            self._participant.pointer_moved.disconnect(self._tracker.move)
        self._participant.show_nothing()
        return True

    def stop(self) -> None:
        """End without a word, as the window closes."""
        self._close_down()

    def closeEvent(self, event: QCloseEvent) -> None:
        """Leave, as Esc does."""
        self._finish("go_on" if self.state == "result" else "cancelled")
        super().closeEvent(event)

    # Keys

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Measure, decide, or leave."""
        if event.isAutoRepeat() or not self._key(event.key()):
            super().keyPressEvent(event)

    def _key(self, key: int) -> bool:
        """Do what a key means now; False where it means nothing."""
        told = self.state == "result"
        if key == Qt.Key.Key_Escape:
            self._finish("go_on" if told else "cancelled")
        elif key in (Qt.Key.Key_Space, Qt.Key.Key_Return, Qt.Key.Key_Enter):
            if told and self._check is not None:
                self._finish("calibrate" if self._check.verdict == "recalibrate" else "validate")
            else:
                self._measure()
        elif key == Qt.Key.Key_R and told:
            self._look()
        else:
            return False
        return True
