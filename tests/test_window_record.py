from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from app.main_window import MainWindow
from app.record_page import RecordPage
from gaze_capture.certificate import changed_files, read_certificate
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


def test_sitting_with_the_simulated_tracker_by_keys(window: MainWindow, study: Study, qtbot: QtBot) -> None:
    page = page_of(window)
    ids = list(study.images)
    page.panel.rate.setValue(250)
    QTest.mouseClick(page.panel.start_button, Qt.MouseButton.LeftButton)
    assert page.sitting is not None
    first_view = page.canvas.image_from_screen()
    qtbot.waitUntil(lambda: page.recorder.live.total_ms > 600, timeout=5000)
    assert page.canvas._dot is not None, "the dot is drawn live"
    assert page.canvas.scene is not None and not page.canvas.scene.available, "nothing but the image is shown"
    qtbot.waitUntil(lambda: "simulated" in window.tracker_status.text(), timeout=5000)
    QTest.keyClick(page.canvas, Qt.Key.Key_V)
    assert window.current_page() == "record", "letters do not leave the page in the middle of it"
    window.show_page("train")
    assert window.current_page() == "record" and "end it first" in window.banner.text.text()
    QTest.keyClick(page.canvas, Qt.Key.Key_Space)
    assert window.session.image_id == ids[1]
    qtbot.wait(250)
    page.canvas.zoom_by(1.5)
    zoomed_view = page.canvas.image_from_screen()
    qtbot.wait(250)
    QTest.keyClick(page.canvas, Qt.Key.Key_0)
    assert window.session.image_id == ids[2]
    assert page.panel.hint.text(), "so short a look is remarked upon at once"
    qtbot.wait(100)
    QTest.keyClick(page.canvas, Qt.Key.Key_Backspace)
    assert window.session.image_id == ids[1]
    qtbot.wait(100)
    recording_id = page.sitting.recording_id
    QTest.keyClick(page.canvas, Qt.Key.Key_Escape)
    assert page.sitting is None
    qtbot.waitUntil(lambda: not page._saving, timeout=10000)

    recording = read_recording(study.recordings_folder / recording_id)
    assert recording.annotator == "Dr. Test" and recording.simulated_from == "masks"
    shown = [(placement.image_id, placement.presence) for placement in recording.placements]
    assert shown == [
        (ids[0], "present"),
        (ids[1], None),
        (ids[1], "absent"),
        (ids[2], None),
        (ids[1], None),
    ]
    assert recording.placements[0].image_from_screen == pytest.approx(first_view)
    assert recording.placements[2].image_from_screen == pytest.approx(zoomed_view)
    for one, other in zip(recording.placements, recording.placements[1:], strict=False):
        assert one.end_ns <= other.start_ns
    seconds = (recording.time_ns[-1] - recording.time_ns[0]) / 1e9
    assert len(recording.time_ns) == pytest.approx(250 * seconds, rel=0.02)
    # Detected fixations are stored, and fall where the live ones were seen: on the image.
    [fixations] = study.fixations[ids[0], "target"]
    assert len(fixations.duration_ms) >= 1 and fixations.presence == "present"
    assert study.presence(ids[1], "target") == "absent"
    state = page.list.model.index(page.list.model.row_of(ids[0])).data(Qt.ItemDataRole.AccessibleTextRole)
    assert state == "case_0.png, Look again", "so short a look is not learned from"


def test_a_long_name_is_cut_in_its_middle_until_it_is_typed_in(window: MainWindow) -> None:
    page, field = page_of(window), page_of(window).panel.annotator
    assert field.shown == "Dr. Test" == field.toolTip()
    page.panel.tracker.setFocus()
    name = "Professor Maximiliana Theodora von Hohenstein-Wittelsbach, department of radiology"
    window.session.set_annotator(name)
    assert field.text() == name == field.toolTip()
    assert field.shown.startswith("Professor") and "…" in field.shown and field.shown.endswith("logy")
    cut = field.grab().toImage()
    QTest.mouseClick(field, Qt.MouseButton.LeftButton)
    assert field.hasFocus() and field.shown == name
    page.panel.tracker.setFocus()
    assert field.grab().toImage() == cut
    window.session.set_annotator("Professor Maximiliana Theodora von Hohenstein-Wittelsbach, Radiology")
    assert field.grab().toImage() != cut, "the end is seen, too"


def test_pointer_rests_become_fixations_where_it_rested(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page = page_of(window)
    page.panel.tracker.setCurrentIndex(page.panel.tracker.findData("mouse"))
    page.start()
    assert page.sitting is not None
    recording_id = page.sitting.recording_id
    for x, y in ((20, 12), (40, 30)):
        point = page.canvas.widget_from_image(x, y).toPoint()
        QTest.mouseMove(page.canvas, point)
        qtbot.wait(40)
        QTest.mouseMove(page.canvas, point + QPoint(1, 0))
        qtbot.wait(400)
    QTest.keyClick(page.canvas, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not page._saving, timeout=10000)
    recording = read_recording(study.recordings_folder / recording_id)
    assert recording.tracker == "mouse" and recording.simulated_from is None
    [fixations] = study.fixations[next(iter(study.images)), "target"]
    assert fixations.xy_px == pytest.approx(np.array([[20, 12], [40, 30]]), abs=0.5)
    folder = study.recordings_folder / recording_id
    certificate = read_certificate(folder)
    assert certificate is not None and certificate.samples["stored"] == len(recording.time_ns)
    assert set(certificate.sha256) == {"gaze.frames", "gaze.parquet"}
    assert changed_files(folder, certificate) == []


def test_replay_shows_a_recording_as_it_was_and_stores_nothing(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page = page_of(window)
    ids = list(study.images)
    page.start()
    qtbot.wait(400)
    QTest.keyClick(page.canvas, Qt.Key.Key_Space)
    qtbot.wait(400)
    page.end()
    qtbot.waitUntil(lambda: not page._saving, timeout=10000)
    before = study.recording_ids()
    window.session.set_image(ids[4])
    page.panel.tracker.setCurrentIndex(page.panel.tracker.findData("replay"))
    assert page.panel.start_button.isEnabled()
    seen: list[str] = []
    page.start()
    assert page.panel.next_button.isHidden() and page.replay_bar.isVisible()
    replay = page.replaying.replay
    assert replay is not None

    def ended() -> bool:
        scene = page.canvas.scene
        if scene is not None and scene.image_id not in seen:
            seen.append(scene.image_id)
        return replay.ended

    qtbot.waitUntil(ended, timeout=5000)
    assert ids[0] in seen and ids[1] in seen
    assert study.recording_ids() == before
    assert page.busy, "one may go back from the end"
    QTest.keyClick(page.canvas, Qt.Key.Key_Escape)
    assert not page.busy and page.replay_bar.isHidden()


def test_replay_goes_where_the_time_line_is_clicked_and_as_fast_as_wanted(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page = page_of(window)
    ids = list(study.images)
    page.start()
    for _ in range(2):
        qtbot.wait(700)
        QTest.keyClick(page.canvas, Qt.Key.Key_Space)
    qtbot.wait(300)
    page.end()
    qtbot.waitUntil(lambda: not page._saving, timeout=10000)
    page.panel.tracker.setCurrentIndex(page.panel.tracker.findData("replay"))
    page.start()
    replay = page.replaying.replay
    assert replay is not None
    line = page.replay_bar.timeline
    QTest.keyClick(page.canvas, Qt.Key.Key_Space)
    assert not replay.playing
    [first, second, third] = replay.spans
    middle = (second.start_s + second.end_s) / 2
    place = QPoint(round(line._x(middle)), line.height() // 2)
    QTest.mouseClick(line, Qt.MouseButton.LeftButton, pos=place)
    assert window.session.image_id == ids[1]
    assert replay.position_s == pytest.approx(middle, abs=0.05)
    before = page.recorder.live.total_ms
    qtbot.wait(150)
    assert replay.position_s == pytest.approx(middle, abs=0.05), "it stands still"
    assert page.recorder.live.total_ms == before
    QTest.keyClick(page.canvas, Qt.Key.Key_Right)
    assert window.session.image_id == ids[2] and replay.position_s == pytest.approx(third.start_s, abs=0.02)
    QTest.keyClick(page.canvas, Qt.Key.Key_Left)
    QTest.keyClick(page.canvas, Qt.Key.Key_Left)
    assert window.session.image_id == ids[0] and replay.position_s == pytest.approx(first.start_s, abs=0.02)
    for _ in range(4):
        QTest.keyClick(page.canvas, Qt.Key.Key_Plus)
    assert replay.speed == 16
    QTest.keyClick(page.canvas, Qt.Key.Key_Space)
    # 1.7 s of recording in about a tenth of a second.
    qtbot.waitUntil(lambda: replay.ended, timeout=1500)
    assert window.session.image_id == ids[2]
    QTest.keyClick(page.canvas, Qt.Key.Key_Escape)


def test_closing_the_window_keeps_the_recording(window: MainWindow, study: Study, qtbot: QtBot) -> None:
    page = page_of(window)
    page.start()
    assert page.sitting is not None
    recording_id = page.sitting.recording_id
    qtbot.wait(500)
    window.close()
    recording = read_recording(study.recordings_folder / recording_id)
    assert len(recording.time_ns) > 40 and len(recording.placements) == 1
    study.refresh()
    assert (next(iter(study.images)), "target") in study.fixations
