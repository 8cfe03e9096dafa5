"""A sitting beyond the images themselves: practice, pauses, what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from app.calibrate_view import CalibrateView
from app.consent_dialog import ConsentDialog
from app.drift_view import DriftView
from app.keymap_dialog import KeymapDialog
from app.known_screens import name_of
from app.main_window import MainWindow
from app.record_page import RecordPage
from gaze_capture.recording import ScreenGeometry
from gaze_capture.recording_codec import read_recording
from gaze_capture.session_times import times_of
from gaze_capture.trackers.simulated import SimulatedTracker
from segmentation.session_options import SessionOptions, save_options
from segmentation.study import Study
from tests.window_support import fill, open_window

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


def start(page: RecordPage) -> str:
    QTest.mouseClick(page.panel.start_button, Qt.MouseButton.LeftButton)
    assert page.sitting is not None
    return page.sitting.recording_id


def finish(page: RecordPage, qtbot: QtBot) -> None:
    QTest.keyClick(page.canvas, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not page._saving, timeout=20000)


def test_practice_says_how_it_went_and_belongs_to_no_image(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page = page_of(window)
    page.panel.rate.setValue(250)
    save_options(study, SessionOptions(practice=True))
    recording_id = start(page)
    said = page.stage._lines[0]
    for number in (1, 2):
        assert f"Practice {number} of 2" in said.text()
        scene = page.canvas.scene
        assert scene is not None and scene.image_id == f"practice-{number}"
        qtbot.waitUntil(lambda: page.recorder.live.total_ms > 1500, timeout=15000)
        QTest.keyClick(page.canvas, Qt.Key.Key_0)
        assert "Practice" in said.text(), "only Space counts here"
        QTest.keyClick(page.canvas, Qt.Key.Key_Space)
        assert "fixations" in said.text() and "Space goes on" in said.text()
        answered = page.canvas.scene
        assert answered is not None and {"truth", "fixations"} <= answered.available
        assert page.canvas.layer_visible("truth")
        QTest.keyClick(page.canvas, Qt.Key.Key_Space)
    assert said.isHidden()
    scene = page.canvas.scene
    assert scene is not None and scene.image_id == next(iter(study.images))
    assert not page.canvas.layer_visible("truth"), "whoever is recorded must not see the answer"
    qtbot.wait(200)
    finish(page, qtbot)
    recording = read_recording(study.recordings_folder / recording_id)
    assert [event.values["on"] for event in recording.events if event.kind == "practice"] == [True, False]
    assert {placement.image_id for placement in recording.placements} == {next(iter(study.images))}
    ended = next(event.time_ns for event in recording.events if event.values.get("on") is False)
    assert recording.placements[0].start_ns >= ended


def test_a_pause_hides_the_image_and_splits_the_look(window: MainWindow, study: Study, qtbot: QtBot) -> None:
    page = page_of(window)
    recording_id = start(page)
    first = window.session.image_id
    qtbot.wait(200)
    QTest.keyClick(page.canvas, Qt.Key.Key_F)
    assert "Found" in page.panel.hint.text()
    QTest.keyClick(page.canvas, Qt.Key.Key_P)
    assert "Paused" in page.stage.words
    assert not page.panel.next_button.isEnabled() and page.panel.pause_button.text() == "Go on"
    QTest.keyClick(page.canvas, Qt.Key.Key_0)
    assert window.session.image_id == first, "no word is taken on what nobody sees"
    qtbot.wait(300)
    QTest.mouseClick(page.panel.pause_button, Qt.MouseButton.LeftButton)
    assert page.stage.words == ""
    qtbot.wait(200)
    finish(page, qtbot)
    recording = read_recording(study.recordings_folder / recording_id)
    kinds = [event.kind for event in recording.events if event.kind in ("found", "pause", "resume")]
    assert kinds == ["found", "pause", "resume"]
    before, after = recording.placements
    assert before.image_id == after.image_id == first
    assert after.start_ns - before.end_ns > 250_000_000


def await_phase(page: RecordPage, phase: str, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: page.flow.phase == phase, timeout=15000)


def press(widget: QWidget, *keys: Qt.Key) -> None:
    for key in keys:
        QTest.keyClick(widget, key)


def test_a_whole_session_on_a_display_of_its_own(
    window: MainWindow, study: Study, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connect, calibrate (an eye that sat askew the first time is caught), practise, look, check the drift, end."""

    def askew(
        kind: str, of: Study, target_id: str, geometry: ScreenGeometry, rate_hz: float
    ) -> SimulatedTracker:
        return SimulatedTracker(
            rate_hz, geometry, seed=5, bias_deg=(1.5, -1.0), residual_deg=[(1.4, 0.3)], simulated_from="masks"
        )

    monkeypatch.setattr("app.tracker_choice.tracker_of", askew)
    page = page_of(window)
    page.panel.rate.setValue(250)
    QTest.mouseClick(page.panel.calibrate, Qt.MouseButton.LeftButton)
    save_options(study, SessionOptions(practice=True, participant_screen=name_of(window.screen())))
    QTest.mouseClick(page.panel.start_button, Qt.MouseButton.LeftButton)
    [consent] = window.findChildren(ConsentDialog)
    assert page.sitting is None, "nobody is recorded before they agreed"
    QTest.mouseClick(consent.suggest_button, Qt.MouseButton.LeftButton)
    QTest.mouseClick(
        consent.agree_tick, Qt.MouseButton.LeftButton, pos=QPoint(8, consent.agree_tick.height() // 2)
    )
    QTest.mouseClick(consent.agree_button, Qt.MouseButton.LeftButton)
    assert page.sitting is not None
    recording_id = page.sitting.recording_id
    verdicts = []
    await_phase(page, "calibrating", qtbot)
    view = page._centre.currentWidget()
    assert isinstance(view, CalibrateView)
    display = page.stage.window
    assert display is not None
    qtbot.waitUntil(lambda: view.eye_box.in_place, timeout=10000)
    press(view, Qt.Key.Key_Space)
    for attempt in range(2):
        qtbot.waitUntil(lambda: view.state == "calibrated", timeout=30000)
        press(view, Qt.Key.Key_Space)
        qtbot.waitUntil(lambda: view.state == "result", timeout=40000)
        assert view._validation is not None
        verdicts.append(view._validation.verdict)
        if attempt == 0:
            assert "Calibrate again" in view.panel.title.text()
            press(view, Qt.Key.Key_Space)
    assert verdicts[0] == "recalibrate", "the gate catches the eye that sat askew"
    assert verdicts[1] in ("pass", "warn")
    press(view, Qt.Key.Key_Space)
    await_phase(page, "practice", qtbot)
    seen = page.stage.seen
    assert seen is not page.canvas and seen.window() is display and display.isVisible()
    for _ in range(2):
        qtbot.waitUntil(lambda: page.recorder.live.total_ms > 800, timeout=15000)
        press(seen, Qt.Key.Key_Space, Qt.Key.Key_Space)
    await_phase(page, "images", qtbot)
    ids = list(study.images)
    assert page.canvas.scene is seen.scene and seen.scene is not None and seen.scene.image_id == ids[0]
    assert seen._dot is None, "the annotator sees no gaze"
    qtbot.waitUntil(lambda: page.recorder.live.total_ms > 800, timeout=15000)
    assert page.canvas._dot is not None, "the operator does"
    seen.zoom_by(1.5)
    zoomed = seen.image_from_screen()
    qtbot.wait(150)
    press(seen, Qt.Key.Key_F, Qt.Key.Key_Space)
    assert window.session.image_id == ids[1]
    qtbot.wait(200)
    press(seen, Qt.Key.Key_D)
    await_phase(page, "drift", qtbot)
    drift = page._centre.currentWidget()
    assert isinstance(drift, DriftView)
    qtbot.wait(700)
    press(display, Qt.Key.Key_Space)
    await_phase(page, "images", qtbot)
    assert window.session.image_id == ids[1] and seen.isVisible()
    press(seen, Qt.Key.Key_0)
    press(seen, Qt.Key.Key_P)
    assert "Paused" in page.stage.words
    press(seen, Qt.Key.Key_Space)
    assert page.stage.words == "" and window.session.image_id == ids[2]
    press(seen, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not page._saving, timeout=20000)
    assert page.stage.window is None and page.stage.seen is page.canvas

    recording = read_recording(study.recordings_folder / recording_id)
    kinds = [event.kind for event in recording.events]
    assert kinds.count("calibration") == 2 and kinds.count("validation") == 2 and kinds.count("drift") == 1
    assert recording.calibration is not None and recording.calibration.mean_error_deg < 1.0
    assert recording.calibration.points == 5
    first, *_ = recording.placements
    shown = [(placement.image_id, placement.presence) for placement in recording.placements]
    assert shown[:2] == [(ids[0], None), (ids[0], "present")]
    assert recording.placements[1].image_from_screen == pytest.approx(zoomed)
    assert (ids[1], "absent") in shown
    parts = times_of(recording).parts()
    assert parts["calibration"] > 3 and parts["validation"] > 3 and parts["drift"] > 0.5
    assert parts["practice"] > 1 and parts["rest"] > 0
    assert sum(parts.values()) == pytest.approx(times_of(recording).total_s)
    assert times_of(recording).looks[0].search_s is not None, "F told the search from the sweep"
    screen = display_size(window)
    x, y, width, height = first.viewport_px
    assert (x, y) == (0, 0) and (width, height) == screen, "the image had the display to itself"
    found = study.fixations[ids[0], "target"]
    assert all(item.accuracy_deg == recording.calibration.mean_error_deg for item in found)


def display_size(window: MainWindow) -> tuple[int, int]:
    size = window.screen().geometry().size() * window.screen().devicePixelRatio()
    return size.width(), size.height()


def test_an_image_is_left_when_its_time_is_up_or_gaze_rests_on_the_mark(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page = page_of(window)
    ids = list(study.images)
    save_options(study, SessionOptions(maximum_image_s=1.0))
    page.panel.tracker.setCurrentIndex(page.panel.tracker.findData("mouse"))
    start(page)
    qtbot.waitUntil(lambda: window.session.image_id == ids[1], timeout=5000)
    finish(page, qtbot)

    save_options(study, SessionOptions(dwell_to_advance_s=0.4))
    page.panel.tracker.setCurrentIndex(page.panel.tracker.findData("simulated"))
    start(page)
    shown = window.session.image_id
    mark = page.dwell.mark
    assert mark is not None and mark.isVisible()

    def look_at(x: float, y: float) -> None:
        assert page.sitting is not None and isinstance(page.sitting.tracker, SimulatedTracker)
        place = page.canvas.mapToGlobal(QPoint(round(x), round(y))) - window.screen().geometry().topLeft()
        size = window.screen().geometry().size()
        page.sitting.tracker.look_at(place.x() / size.width(), place.y() / size.height())

    middle = page.canvas.rect().center()
    look_at(middle.x(), middle.y())
    qtbot.wait(1300)
    assert window.session.image_id == shown
    corner = mark.geometry().center()
    look_at(corner.x(), corner.y())
    qtbot.waitUntil(lambda: window.session.image_id != shown, timeout=5000)
    finish(page, qtbot)


def test_a_break_is_offered_and_a_session_goes_on_where_it_stopped(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page = page_of(window)
    ids = list(study.images)
    save_options(study, SessionOptions(break_every_n=1))
    start(page)
    qtbot.wait(1700)
    press(page.canvas, Qt.Key.Key_Space)
    assert "break" in page.stage.words and window.session.image_id == ids[1]
    press(page.canvas, Qt.Key.Key_Space)
    assert page.stage.words == "" and window.session.image_id == ids[1]
    finish(page, qtbot)
    # The second was hardly looked at: it comes again, and says why; the first one is done.
    save_options(study, SessionOptions())
    window.session.set_image(ids[0])
    start(page)
    assert window.session.image_id == ids[1]
    assert "Look again" in page.panel.hint.text()
    listed = [row.image_id for row in page.list.model.rows]
    assert ids[0] not in listed and listed[0] == ids[1]
    finish(page, qtbot)
    again = read_recording(study.recordings_folder / study.recording_ids()[-1])
    assert [event.kind for event in again.events if event.kind == "look_again"] == ["look_again"]


def test_gaze_and_events_are_published_where_that_is_wanted(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    lsl = pytest.importorskip("pylsl")
    page = page_of(window)
    ids = list(study.images)
    save_options(study, SessionOptions(publish=True))
    recording_id = start(page)
    found: list[Any] = []

    def resolved() -> bool:
        found[:] = lsl.resolve_byprop("name", f"Gaze Insight events {recording_id}", timeout=0.5)
        return bool(found)

    qtbot.waitUntil(resolved, timeout=60_000)
    inlet = lsl.StreamInlet(found[0])
    inlet.open_stream(timeout=10)
    qtbot.waitUntil(lambda: bool(lsl.resolve_byprop("type", "Gaze", timeout=0.5)), timeout=15000)
    press(page.canvas, Qt.Key.Key_F, Qt.Key.Key_0)
    heard: list[str] = []

    def told() -> bool:
        while (sample := inlet.pull_sample(timeout=0.0))[0] is not None:
            heard.append(sample[0][0])
        return f"image {ids[1]} target" in heard

    qtbot.waitUntil(told, timeout=15000)
    finish(page, qtbot)
    inlet.close_stream()
    assert "found" in heard
    assert f"word absent {ids[0]} target" in heard and f"image {ids[1]} target" in heard
    assert heard.index(f"word absent {ids[0]} target") < heard.index(f"image {ids[1]} target")


def test_a_pedal_is_bound_and_consent_is_shown_from_the_panel(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page = page_of(window)
    QTest.mouseClick(page.panel.keys_button, Qt.MouseButton.LeftButton)
    [keys] = window.findChildren(KeymapDialog)
    QTest.mouseClick(keys.buttons_of["next"], Qt.MouseButton.LeftButton)
    press(keys.buttons_of["next"], Qt.Key.Key_F13)
    keys.close()
    assert "F13" in page.panel.hint.text() and "F13" in page.panel.next_button.toolTip()
    QTest.mouseClick(page.panel.consent_button, Qt.MouseButton.LeftButton)
    [consent] = window.findChildren(ConsentDialog)
    assert consent.isVisible()
    consent.close()
    start(page)
    before = window.session.image_id
    qtbot.wait(200)
    press(page.canvas, Qt.Key.Key_Space)
    assert window.session.image_id == before
    press(page.canvas, Qt.Key.Key_F13)
    assert window.session.image_id != before
    finish(page, qtbot)
