from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app import theme
from app.calibrate_view import CalibrateView
from app.calibration_session import CalibrationSession
from app.drift_view import DriftResult, DriftView
from app.participant_window import ParticipantWindow
from gaze_capture.calibration import Timing
from gaze_capture.errors import UserError
from gaze_capture.quality import Validation
from gaze_capture.recording import Eyes, Samples
from gaze_capture.saved_calibration import saved_calibration
from gaze_capture.simulate import DESK_SCREEN
from gaze_capture.synthetic_eye import Script, TrackerQuality
from gaze_capture.trackers import simulated
from gaze_capture.trackers.mouse import MouseTracker
from gaze_capture.trackers.simulated import SimulatedCalibrator, SimulatedTracker
from gaze_capture.trackers.tracker import Point, ShowTarget, Tracker

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", "does not support raise", extend=True)

QUICK = Timing(travel_s=0.1, settle_s=0.6, stable_s=0.08, collect_s=0.2, timeout_s=2.0)
CLEAN = TrackerQuality(rms_s2s_deg=0.1, drift_deg=0.02, blinks_per_minute=0, dropouts=0)

OpenView = Callable[..., CalibrateView]


@pytest.fixture(autouse=True)
def quick_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "SETTLE_S", 0.25)
    monkeypatch.setattr(simulated, "COLLECT_S", 0.25)


@pytest.fixture
def participant(qtbot: QtBot) -> ParticipantWindow:
    application = QApplication.instance()
    assert isinstance(application, QApplication)
    theme.apply(application, "dark")
    window = ParticipantWindow(QGuiApplication.primaryScreen())
    qtbot.addWidget(window)
    return window


@pytest.fixture
def open_view(qtbot: QtBot, participant: ParticipantWindow, tmp_path: Path) -> Iterator[OpenView]:
    trackers: list[Tracker] = []
    views: list[CalibrateView] = []

    def make(tracker: Tracker) -> CalibrateView:
        if tracker not in trackers:
            tracker.open()
            trackers.append(tracker)
        view = CalibrateView(tracker, participant, "Dr. Test", tmp_path / "kept", timing=QUICK, seed=1)
        view.finished.connect(lambda session: view.setProperty("session", session))
        qtbot.addWidget(view)
        views.append(view)
        view.resize(1280, 800)
        with qtbot.waitExposed(view):
            view.show()
        # Nobody starts before the tracker does: the first samples of a simulated one take a second to prepare.
        qtbot.waitUntil(lambda: len(view._feed.recent) > 0, timeout=10000)
        return view

    yield make
    for view in views:
        view.stop()
    for tracker in trackers:
        tracker.close()


def press(view: CalibrateView, participant: ParticipantWindow, key: Qt.Key) -> None:
    """Press a key where a single monitor's keyboard would send it."""
    QTest.keyClick(participant if participant.isVisible() else view, key)


def session_of(view: CalibrateView) -> CalibrationSession:
    session = view.property("session")
    assert isinstance(session, CalibrationSession)
    return session


class Alert(SimulatedTracker):
    """An eye that leaves for a target at once: nobody waits for its reaction."""

    def look_at(self, x: float, y: float) -> None:
        there = self.geometry.degrees_from_normalised(np.array([[x, y]]))
        self.follow(Script(there, np.array([3_600_000.0])))


def tracker_of(**wanted: object) -> SimulatedTracker:
    return Alert(250.0, **{"quality": CLEAN, "seed": 2, **wanted})  # type: ignore[arg-type]


def test_a_biased_calibration_is_caught_and_the_second_one_passes(
    open_view: OpenView, participant: ParticipantWindow, qtbot: QtBot, tmp_path: Path
) -> None:
    tracker = tracker_of(bias_deg=(2.0, -1.0), residual_deg=[(1.4, 0.0)])
    view = open_view(tracker)
    qtbot.waitUntil(lambda: "good" in view.eye_box.advice, timeout=5000)
    assert not participant.isVisible(), "on a single monitor the position is seen here"
    press(view, participant, Qt.Key.Key_Space)
    assert view.state == "calibrating" and participant.isVisible()
    qtbot.waitUntil(lambda: view.state == "calibrated", timeout=15000)
    assert not participant.isVisible() and len(view.plan.points) == 5
    press(view, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: view.state == "result", timeout=15000)
    assert view.panel.title.text() == "Calibrate again" and "mean error" in view.panel.sentence.text()
    assert "lesions from" in view.panel.lesions.text()
    assert not tracker.calibrator._entered, "calibration was left before the validation"

    # Such a result is accepted only by saying so twice; Space does what is advised instead.
    QTest.mouseClick(view.panel.buttons["accept"], Qt.MouseButton.LeftButton)
    assert view.panel.confirm.isVisible() and view.property("session") is None
    press(view, participant, Qt.Key.Key_Space)
    assert view.state == "calibrating"
    qtbot.waitUntil(lambda: view.state == "calibrated", timeout=15000)
    press(view, participant, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: view.state == "result", timeout=15000)
    assert view.panel.title.text() == "Good"
    QTest.mouseClick(view.panel.buttons["accept"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: view.property("session") is not None, timeout=5000)

    session = session_of(view)
    assert session.accepted and session.eyes == "both" and session.points == 5 and not session.remark
    assert [event.kind for event in session.events] == ["calibration", "validation"] * 2
    times = [event.time_ns for event in session.events]
    assert times == sorted(times)
    verdicts = [event.values["verdict"] for event in session.events if event.kind == "validation"]
    assert verdicts == ["recalibrate", "pass"]
    first, last = (Validation.from_json(session.events[n].values["validation"]) for n in (1, 3))
    assert first.mean_error_deg == pytest.approx(1.4, abs=0.3) and last.mean_error_deg < 0.5
    places = {(target.x, target.y) for target in first.targets}
    assert places.isdisjoint((target.x, target.y) for target in last.targets), "targets are fresh each time"
    calibration = session.calibration
    assert calibration is not None and calibration.points == 5
    kept = saved_calibration(tmp_path / "kept", "Dr. Test", tracker)
    assert kept is not None and kept.validation == session.validation


def test_who_returns_is_offered_the_calibration_and_validates_it(
    open_view: OpenView, participant: ParticipantWindow, qtbot: QtBot
) -> None:
    tracker = tracker_of(bias_deg=(2.0, -1.0))
    view = open_view(tracker)
    assert "restore" not in view.panel.buttons
    press(view, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: view.state == "calibrated", timeout=15000)
    press(view, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: view.state == "result", timeout=15000)
    press(view, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: view.property("session") is not None, timeout=5000)

    tracker.calibrator.begin()
    tracker.calibrator.end()
    again = open_view(tracker)
    assert "is at hand" in again.panel.sentence.text()
    QTest.mouseClick(again.panel.buttons["restore"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: again.state == "result", timeout=15000)
    assert again.panel.title.text() == "Good", "the bias of two degrees is taken away again"
    press(again, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: again.property("session") is not None, timeout=5000)
    session = session_of(again)
    assert [event.kind for event in session.events] == ["calibration", "validation"]
    assert session.events[0].values["saved_utc"] and session.points == 5


class OneEyed(Alert):
    """The right eye is behind a patch."""

    def _block(self, first: int, stop: int) -> Samples:
        block = super()._block(first, stop)
        block["right_x"] = block["right_y"] = block["pupil_right"] = np.nan
        return block


def test_a_lost_eye_is_named_and_the_other_one_is_calibrated_alone(
    open_view: OpenView, participant: ParticipantWindow, qtbot: QtBot
) -> None:
    view = open_view(OneEyed(250.0, quality=CLEAN, seed=3))
    qtbot.waitUntil(lambda: "right eye is hardly seen" in view.eye_box.advice, timeout=5000)
    press(view, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: view.state == "calibrated", timeout=15000)
    press(view, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: view.state == "result", timeout=15000)
    assert "right eye was hardly seen" in view.panel.sentence.text()
    assert all(point.right_deg is None for point in view.plan.points)

    QTest.mouseClick(view.panel.eyes.button(1), Qt.MouseButton.LeftButton)
    press(view, participant, Qt.Key.Key_R)
    qtbot.waitUntil(lambda: view.state == "calibrated", timeout=15000)
    press(view, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: view.state == "result", timeout=15000)
    assert "hardly seen" not in view.panel.sentence.text()
    press(view, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: view.property("session") is not None, timeout=5000)
    session = session_of(view)
    assert session.eyes == "left" and session.validation is not None and session.validation.eyes == "left"
    assert [event.values["eyes"] for event in session.events if event.kind == "calibration"] == [
        "both",
        "left",
    ]


def test_cancelling_in_the_middle_leaves_calibration(
    open_view: OpenView, participant: ParticipantWindow, qtbot: QtBot
) -> None:
    tracker = tracker_of()
    view = open_view(tracker)
    press(view, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: tracker.calibrator._entered and participant.isVisible(), timeout=5000)
    qtbot.wait(100)
    press(view, participant, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: view.state == "position", timeout=5000)
    assert not tracker.calibrator._entered and "stopped" in view.panel.problem.text()

    # R, in the middle, begins anew; Esc twice leaves for good.
    press(view, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: len(tracker.calibrator._found) == 1, timeout=5000)
    press(view, participant, Qt.Key.Key_R)
    qtbot.waitUntil(lambda: view.state == "calibrating", timeout=5000)
    qtbot.waitUntil(lambda: view.state == "calibrated", timeout=15000)
    assert len(view.plan.points) == 5
    press(view, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: view.state == "validating", timeout=5000)
    press(view, participant, Qt.Key.Key_Escape)
    assert view.state == "position" and "stopped" in view.panel.problem.text()
    press(view, participant, Qt.Key.Key_Escape)
    session = session_of(view)
    assert not session.accepted and session.validation is None
    assert [event.kind for event in session.events] == ["calibration"]
    assert not participant.isVisible() and not tracker._callbacks


def test_closing_the_view_in_the_middle_leaves_calibration(
    open_view: OpenView, participant: ParticipantWindow, qtbot: QtBot
) -> None:
    tracker = tracker_of()
    view = open_view(tracker)
    press(view, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: tracker.calibrator._entered, timeout=5000)
    view.close()
    assert not session_of(view).accepted
    qtbot.waitUntil(lambda: not tracker.calibrator._entered, timeout=5000)

    # And so does closing it between calibration and validation.
    view = open_view(tracker)
    press(view, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: view.state == "calibrated", timeout=15000)
    assert tracker.calibrator._entered
    view.close()
    qtbot.waitUntil(lambda: not tracker.calibrator._entered, timeout=5000)


def test_marked_targets_are_collected_again(
    open_view: OpenView, participant: ParticipantWindow, qtbot: QtBot
) -> None:
    tracker = tracker_of()
    shown: list[tuple[float, float]] = []
    view = open_view(tracker)
    press(view, participant, Qt.Key.Key_Space)
    assert view._calls is not None
    view._calls.target_shown.connect(lambda x, y: shown.append((x, y)))
    qtbot.waitUntil(lambda: view.state == "calibrated", timeout=15000)
    assert not view.panel.buttons["redo_marked"].isEnabled()
    point = view.plan.points[3]
    QTest.mouseClick(
        view.plan,
        Qt.MouseButton.LeftButton,
        pos=view.plan.place_of(point.x, point.y).toPoint() + QPoint(4, 3),
    )
    press(view, participant, Qt.Key.Key_1)
    press(view, participant, Qt.Key.Key_2)
    press(view, participant, Qt.Key.Key_2)
    marked = [(one.x, one.y) for one in (view.plan.points[0], view.plan.points[3])]
    assert list(view.plan.marked) == marked
    assert "2" in view.panel.buttons["redo_marked"].text()
    shown.clear()
    before = dict(tracker.calibrator._found)
    press(view, participant, Qt.Key.Key_R)
    qtbot.waitUntil(lambda: view.state == "calibrated", timeout=15000)
    assert shown == marked
    changed = {place for place, found in tracker.calibrator._found.items() if found is not before[place]}
    assert changed == set(shown) and len(view.plan.points) == 5, "the other three are kept"


@pytest.mark.parametrize("when", ["calibrating", "validating"])
def test_a_tracker_that_dies_in_the_middle_is_told_in_a_sentence(
    open_view: OpenView, participant: ParticipantWindow, qtbot: QtBot, when: str
) -> None:
    tracker = tracker_of()
    view = open_view(tracker)
    press(view, participant, Qt.Key.Key_Space)
    if when == "validating":
        qtbot.waitUntil(lambda: view.state == "calibrated", timeout=15000)
        press(view, participant, Qt.Key.Key_Space)
        qtbot.waitUntil(lambda: view.state == "validating", timeout=15000)
    qtbot.wait(200)
    tracker.close()
    qtbot.waitUntil(lambda: view.state == "position", timeout=5000)
    assert "The tracker is gone" in view.panel.problem.text()
    assert not participant.isVisible() and not tracker.calibrator._entered
    press(view, participant, Qt.Key.Key_Space)
    assert view.state == "position" and "The tracker is gone" in view.panel.problem.text()


class Refusing(SimulatedCalibrator):
    """Waits in `begin`, as devices do, and then refuses."""

    def __init__(self, tracker: SimulatedTracker) -> None:
        super().__init__(tracker, ())
        self.go_on = threading.Event()
        self.ended = 0

    def begin(self, eyes: Eyes = "both") -> None:
        self._entered = True
        self.go_on.wait(20)

    def collect(self, points: Sequence[Point], show: ShowTarget, stop: threading.Event) -> None:
        raise UserError("The device is in use by another program; close it.")

    def end(self) -> None:
        self.ended += 1
        super().end()


def test_a_device_that_takes_its_time_blocks_nothing_and_its_refusal_is_told(
    open_view: OpenView, participant: ParticipantWindow, qtbot: QtBot
) -> None:
    tracker = tracker_of()
    tracker._calibrator = refusing = Refusing(tracker)
    view = open_view(tracker)
    press(view, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: view.plan._gaze is not None, timeout=5000)
    before = view.plan._gaze
    qtbot.waitUntil(lambda: view.plan._gaze != before, timeout=5000)
    assert view.state == "calibrating", "the device still thinks, and gaze is drawn all the while"
    refusing.go_on.set()
    qtbot.waitUntil(lambda: view.state == "position", timeout=5000)
    assert view.panel.problem.text() == "The device is in use by another program; close it."
    assert refusing.ended == 1


def test_a_calibration_that_failed_offers_no_validation(
    open_view: OpenView, participant: ParticipantWindow, qtbot: QtBot
) -> None:
    blind = TrackerQuality(dropouts=30.0)
    view = open_view(tracker_of(quality=blind))
    press(view, participant, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: view.state == "calibrated", timeout=15000)
    assert view.panel.title.text() == "The calibration failed" and "continue" not in view.panel.buttons
    assert all(point.text == "not seen" and point.marked for point in view.plan.points)
    press(view, participant, Qt.Key.Key_Escape)
    assert [event.kind for event in session_of(view).events] == ["note"]


def test_a_tracker_without_calibrator_is_validated_only(
    open_view: OpenView, participant: ParticipantWindow, qtbot: QtBot
) -> None:
    tracker = MouseTracker(DESK_SCREEN, 120.0)
    view = open_view(tracker)
    # The offscreen platform hands pointer moves to the older window of two at one place.
    view.move(2000, 0)
    press(view, participant, Qt.Key.Key_Space)
    assert view.state == "validating" and participant.isVisible()
    assert participant.cursor().shape() != Qt.CursorShape.BlankCursor, "the pointer stands in for the eyes"
    nudge = 0
    while view.state == "validating":
        validator = view._validator
        assert validator is not None and validator.current is not None
        nudge = 1 - nudge
        x, y = validator.current
        QTest.mouseMove(
            participant, QPoint(round(x * participant.width()) + nudge, round(y * participant.height()))
        )
        qtbot.wait(20)
    assert view.state == "result" and view.panel.title.text() == "Good"
    assert "recalibrate" not in view.panel.buttons
    press(view, participant, Qt.Key.Key_Space)
    session = session_of(view)
    assert session.accepted and session.points == 0
    assert [event.kind for event in session.events] == ["validation"]


# Drift


def open_drift(
    qtbot: QtBot, tracker: SimulatedTracker, participant: ParticipantWindow
) -> tuple[DriftView, list[DriftResult]]:
    view = DriftView(tracker, participant, anchor=(0.5, 0.4))
    results: list[DriftResult] = []
    view.finished.connect(results.append)
    qtbot.addWidget(view)
    view.show()
    return view, results


@pytest.mark.parametrize(
    ("bias", "key", "choice"),
    [
        ((0.3, 0.2), None, "go_on"),
        ((1.3, 0.5), Qt.Key.Key_Space, "validate"),
        ((-2.4, 0.5), Qt.Key.Key_Space, "calibrate"),
        ((-2.4, 0.5), Qt.Key.Key_Escape, "go_on"),
    ],
)
def test_drift_is_checked_on_an_anchor(
    qtbot: QtBot, participant: ParticipantWindow, bias: Point, key: Qt.Key | None, choice: str
) -> None:
    with tracker_of(bias_deg=bias) as tracker:
        view, results = open_drift(qtbot, tracker, participant)
        assert participant.isVisible()
        qtbot.wait(400)
        QTest.keyClick(participant, Qt.Key.Key_Space)
        if key is not None:
            qtbot.waitUntil(lambda: view.state == "result", timeout=5000)
            assert not participant.isVisible() and view.validate_button.isVisible()
            assert "from the anchor" in view.sentence.text()
            QTest.keyClick(view, key)
        qtbot.waitUntil(lambda: bool(results), timeout=5000)
        [result] = results
        assert result.choice == choice and result.check is not None
        assert result.check.offset_deg == pytest.approx(bias, abs=0.3)
        [event] = result.events
        assert event.kind == "drift" and event.values["verdict"] == result.check.verdict
        assert event.values["offset_deg"] == list(result.check.offset_deg) and event.values["y"] == 0.4
        assert not tracker._callbacks


def test_drift_without_eyes_asks_again_and_can_be_cancelled(
    qtbot: QtBot, participant: ParticipantWindow
) -> None:
    with tracker_of(quality=TrackerQuality(dropouts=30.0)) as tracker:
        view, results = open_drift(qtbot, tracker, participant)
        QTest.keyClick(participant, Qt.Key.Key_Space)
        qtbot.waitUntil(lambda: "not seen" in view.problem.text(), timeout=5000)
        assert view.state == "looking"
        QTest.keyClick(participant, Qt.Key.Key_Escape)
        assert results == [DriftResult(None, (), "cancelled")]
