"""A sitting beyond the images themselves: practice, pauses, what was found."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from app.main_window import MainWindow
from app.record_page import RecordPage
from gaze_capture.recording_codec import read_recording
from segmentation.study import Study
from tests.window_support import fill, open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)


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
    QTest.mouseClick(page.panel.practice, Qt.MouseButton.LeftButton)
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
