"""Recording where something goes wrong, or where someone presses what does not count now."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.known_screens import name_of
from app.main_window import MainWindow
from app.participant_window import ParticipantWindow
from app.record_page import RecordPage
from gaze_capture.recording_codec import read_recording
from gaze_capture.trackers.simulated import SimulatedTracker
from segmentation.session_options import SessionOptions, save_options
from segmentation.study import Study
from tests.window_support import fill, make_volume_study, open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", r"does not support raise\(\)", extend=True)


@pytest.fixture
def window(qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path) -> MainWindow:
    fill(study, image_folder, gaze=False)
    made = open_window(qtbot, tmp_path, study)
    made.show_page("record")
    return made


def page_of(window: MainWindow) -> RecordPage:
    page = window.page("record")
    assert isinstance(page, RecordPage)
    return page


def finish(page: RecordPage, qtbot: QtBot) -> None:
    QTest.keyClick(page.canvas, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not page._saving, timeout=20000)


def in_phase(page: RecordPage, phase: str) -> bool:
    return page.flow.phase == phase


def click_start(page: RecordPage) -> None:
    QTest.mouseClick(page.panel.start_button, Qt.MouseButton.LeftButton)


class SlowToOpen(SimulatedTracker):
    """A tracker that answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(60)
        self.answer = threading.Event()
        self.closed = threading.Event()

    def open(self) -> None:
        self.answer.wait(20)
        super().open()

    def close(self) -> None:
        super().close()
        self.closed.set()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowToOpen:
    tracker = SlowToOpen()
    monkeypatch.setattr("app.tracker_choice.TrackerChoice.is_device", property(lambda self: True))
    monkeypatch.setattr("app.tracker_choice.TrackerChoice.maker", lambda *a: lambda: tracker)
    monkeypatch.setattr("app.sitting_start.has_consented", lambda *a: True)
    return tracker


def test_while_connecting_nothing_moves_and_esc_gives_up(
    window: MainWindow, study: Study, qtbot: QtBot, slow: SlowToOpen
) -> None:
    page = page_of(window)
    click_start(page)
    assert in_phase(page, "connecting") and page.sitting is None
    shown = window.session.image_id
    QTest.keyClick(page.canvas, Qt.Key.Key_Space)
    assert window.session.image_id == shown, "no image may move on before the first one was recorded"
    assert not window.show_page("study"), "the page holds on to a sitting that is about to begin"
    QTest.keyClick(page.canvas, Qt.Key.Key_Escape)
    assert in_phase(page, "idle") and page.panel.start_button.isVisible()
    slow.answer.set()
    qtbot.waitUntil(slow.closed.is_set, timeout=5000)
    assert page.sitting is None and study.recording_ids() == []


def test_a_window_closed_while_connecting_records_nothing(
    window: MainWindow, study: Study, qtbot: QtBot, slow: SlowToOpen
) -> None:
    page = page_of(window)
    click_start(page)
    QTest.qWait(100)
    threading.Timer(0.3, slow.answer.set).start()
    window.close()
    QTest.qWait(800)
    assert page.sitting is None and study.recording_ids() == []
    assert slow.closed.is_set()


@pytest.mark.parametrize("phase", ["calibrating", "practice", "images", "paused", "drift"])
def test_a_window_closed_in_the_middle_saves_and_leaves_no_display_behind(
    window: MainWindow, study: Study, qtbot: QtBot, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.sitting_start.has_consented", lambda *a: True)
    page = page_of(window)
    save_options(
        study, SessionOptions(practice=phase == "practice", participant_screen=name_of(window.screen()))
    )
    if phase == "calibrating":
        page.panel.calibrate.setChecked(True)
    click_start(page)
    qtbot.wait(300)
    if phase == "paused":
        QTest.keyClick(page.stage.seen, Qt.Key.Key_P)
    if phase == "drift":
        QTest.keyClick(page.stage.seen, Qt.Key.Key_D)
    assert page.flow.phase == phase
    qtbot.wait(200)
    window.close()
    QTest.qWait(50)
    left = [w for w in QApplication.topLevelWidgets() if isinstance(w, ParticipantWindow) and w.isVisible()]
    assert left == []
    [name] = study.recording_ids()
    recording = read_recording(study.recordings_folder / name)
    # The simulated eye is still while the positioning of the head is shown.
    assert len(recording.samples) > 10 or phase == "calibrating"


def test_time_that_was_a_pause_is_no_time_of_the_image(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page = page_of(window)
    save_options(study, SessionOptions(maximum_image_s=1.5))
    click_start(page)
    first = window.session.image_id
    qtbot.wait(300)
    QTest.keyClick(page.canvas, Qt.Key.Key_P)
    qtbot.wait(1700)
    QTest.keyClick(page.canvas, Qt.Key.Key_P)
    qtbot.wait(300)
    assert window.session.image_id == first
    qtbot.waitUntil(lambda: window.session.image_id != first, timeout=5000)
    finish(page, qtbot)


def test_a_display_that_is_unplugged_takes_its_mark_with_it(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page = page_of(window)
    save_options(study, SessionOptions(dwell_to_advance_s=1.0, participant_screen=name_of(window.screen())))
    click_start(page)
    qtbot.wait(300)
    assert page.stage.window is not None
    page.stage.window.display_lost.emit()
    assert page.flow.phase == "paused"
    qtbot.wait(300)
    QTest.keyClick(page.canvas, Qt.Key.Key_P)
    qtbot.wait(300)
    assert page.dwell.mark is not None and page.dwell.mark.isVisible()
    finish(page, qtbot)


def test_scrolling_a_volume_in_practice_shows_no_slice(qtbot: QtBot, tmp_path: Path) -> None:
    study = make_volume_study(tmp_path / "volumes")
    window = open_window(qtbot, tmp_path, study)
    window.show_page("record")
    page = page_of(window)
    window.session.set_image("ct_003")
    page._pick("ct_003")
    save_options(study, SessionOptions(practice=True))
    click_start(page)
    assert page.flow.phase == "practice"
    page.frame.slices.chosen.emit("ct_004")
    page.targets.step(1)
    page.panel.look_for.target_chosen.emit(study.targets[1].id)
    page.panel.nothing_button.click()
    scene = page.canvas.scene
    assert scene is not None and scene.image_id == "practice-1"
    assert page.recorder.placement is None
    finish(page, qtbot)


def test_every_key_and_button_in_every_phase(window: MainWindow, study: Study, qtbot: QtBot) -> None:
    page = page_of(window)
    keys = [
        getattr(Qt.Key, f"Key_{name}")
        for name in (
            "F L Q U 0 Backspace Tab Left Right Up Down PageDown Home End W Plus Minus H G M F11 F13 D P".split()
        )
    ]
    for practice in (True, False):
        save_options(study, SessionOptions(practice=practice))
        click_start(page)
        qtbot.wait(100)
        for pause in (False, True):
            if pause and not practice:
                QTest.keyClick(page.canvas, Qt.Key.Key_P)
            for key in keys:
                focus = QApplication.focusWidget() or page.canvas
                QTest.keyClick(focus, key)
                QTest.keyClick(focus, key, Qt.KeyboardModifier.ShiftModifier)
                qtbot.wait(15)
                if page.sitting is None:
                    break
                for button in (*page.panel._while_recording,):
                    if button is not page.panel.end_button:
                        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
            if page.sitting is None:
                qtbot.waitUntil(lambda: not page._saving, timeout=20000)
                break
        for _ in range(3):
            if page.sitting is not None:
                QTest.keyClick(QApplication.focusWidget() or page.canvas, Qt.Key.Key_Escape)
                qtbot.wait(50)
        assert page.sitting is None
        qtbot.waitUntil(lambda: not page._saving, timeout=20000)


def test_a_replay_of_an_image_that_is_gone_shows_no_other_image(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page = page_of(window)
    click_start(page)
    gone = window.session.image_id
    qtbot.wait(600)
    QTest.keyClick(page.canvas, Qt.Key.Key_Space)
    qtbot.wait(600)
    finish(page, qtbot)
    assert gone is not None
    del study.images[gone]
    window.session.settle()
    page.panel.tracker.setCurrentIndex(page.panel.tracker.findData("replay"))
    click_start(page)
    qtbot.wait(200)
    assert page.canvas.scene is None
    page.replaying.seek(page.replaying.replay.duration_s if page.replaying.replay else 0)
    assert page.canvas.scene is not None
    page.replaying.seek(0.1)
    assert page.canvas.scene is None
    QTest.keyClick(page.canvas, Qt.Key.Key_Escape)


def test_a_study_removed_in_the_middle_says_so(window: MainWindow, study: Study, qtbot: QtBot) -> None:
    import shutil

    page = page_of(window)
    told: list[str] = []
    page.error.connect(lambda text, details: told.append(text))
    click_start(page)
    qtbot.wait(300)
    shutil.rmtree(study.folder)
    qtbot.wait(1500)
    if page.sitting is not None:
        QTest.keyClick(page.canvas, Qt.Key.Key_Space)
        qtbot.wait(300)
    if page.sitting is not None:
        QTest.keyClick(page.canvas, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not page._saving, timeout=20000)
    assert told


def test_an_image_that_cannot_be_read(qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path) -> None:
    fill(study, image_folder, gaze=False)
    ids = list(study.images)
    # Before the window reads ahead.
    study.image_path(study.images[ids[1]]).write_bytes(b"no image")
    window = open_window(qtbot, tmp_path, study)
    window.show_page("record")
    page = page_of(window)
    told: list[str] = []
    page.error.connect(lambda text, details: told.append(text))
    click_start(page)
    qtbot.wait(1700)
    QTest.keyClick(page.canvas, Qt.Key.Key_Space)
    qtbot.wait(300)
    assert window.session.image_id == ids[1] and page.canvas.scene is None
    for key in (Qt.Key.Key_F, Qt.Key.Key_P, Qt.Key.Key_P, Qt.Key.Key_D):
        QTest.keyClick(QApplication.focusWidget() or page.canvas, key)
        qtbot.wait(50)
    QTest.keyClick(QApplication.focusWidget() or page.canvas, Qt.Key.Key_Escape)
    qtbot.wait(100)
    if page.sitting is not None:
        QTest.keyClick(page.canvas, Qt.Key.Key_0)
        assert window.session.image_id == ids[2]
        qtbot.wait(200)
        finish(page, qtbot)


def test_two_windows_record_at_once(window: MainWindow, study: Study, qtbot: QtBot, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    other = open_window(qtbot, tmp_path / "b", Study.open(study.folder))
    other.show_page("record")
    pages = [page_of(window), page_of(other)]
    told: list[str] = []
    for page in pages:
        page.error.connect(lambda text, details: told.append(text))
        page.lost.connect(told.append)
        click_start(page)
    qtbot.wait(1200)
    for page in pages:
        QTest.keyClick(page.canvas, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not any(page._saving for page in pages), timeout=20000)
    assert not told and len(Study.open(study.folder).recording_ids()) == 2
