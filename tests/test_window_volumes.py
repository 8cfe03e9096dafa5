"""Volumes, windows and several targets, by mouse, wheel and keys as a person uses them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.canvas import Canvas
from app.main_window import MainWindow
from app.record_page import RecordPage
from app.review_page import ReviewPage
from app.volumes import entries
from gaze_capture.recording import Recording
from gaze_capture.recording_codec import read_recording
from segmentation.study import Study
from tests.window_support import make_volume_study, open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)

NO_KEY = Qt.KeyboardModifier.NoModifier


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_volume_study(tmp_path / "volumes")


@pytest.fixture
def window(qtbot: QtBot, tmp_path: Path, study: Study) -> MainWindow:
    return open_window(qtbot, tmp_path, study)


def record_page(window: MainWindow) -> RecordPage:
    window.show_page("record")
    page = window.page("record")
    assert isinstance(page, RecordPage)
    return page


def review_page(window: MainWindow) -> ReviewPage:
    window.show_page("review")
    page = window.page("review")
    assert isinstance(page, ReviewPage)
    return page


def roll(canvas: Canvas, angle: int, keys: Qt.KeyboardModifier = NO_KEY, at: QPointF | None = None) -> None:
    """Turn the wheel over the canvas: downwards is negative."""
    place = at if at is not None else QPointF(canvas.width() / 2, canvas.height() / 2)
    wheel = QWheelEvent(
        place,
        canvas.mapToGlobal(place),
        QPoint(),
        QPoint(0, angle),
        Qt.MouseButton.NoButton,
        keys,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(canvas, wheel)


def drag(canvas: Canvas, button: Qt.MouseButton, start: QPoint, by: QPoint) -> None:
    QTest.mousePress(canvas, button, pos=start)
    QTest.mouseMove(canvas, start + by)
    QTest.mouseRelease(canvas, button, pos=start + by)


def grey_at(canvas: Canvas, x: float, y: float) -> int:
    return canvas.grab().toImage().pixelColor(canvas.widget_from_image(x, y).toPoint()).red()


def finish(page: RecordPage, study: Study, qtbot: QtBot) -> Recording:
    assert page.sitting is not None
    name = page.sitting.recording_id
    QTest.keyClick(page.canvas, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not page._saving, timeout=10000)
    return read_recording(study.recordings_folder / name)


def start_with_mouse(page: RecordPage) -> None:
    page.panel.tracker.setCurrentIndex(page.panel.tracker.findData("mouse"))
    QTest.mouseClick(page.panel.start_button, Qt.MouseButton.LeftButton)
    assert page.sitting is not None


def rest_at(canvas: Canvas, point: QPoint, qtbot: QtBot) -> None:
    """Rest the pointer, as eyes do."""
    QTest.mouseMove(canvas, point + QPoint(30, 0))
    qtbot.wait(30)
    QTest.mouseMove(canvas, point)
    qtbot.wait(450)


# Window


def test_dragging_changes_the_window_and_what_is_on_the_screen(window: MainWindow, study: Study) -> None:
    page = review_page(window)
    canvas = page.canvas
    window.session.set_image("ct_004")
    for layer in page.inspector.layers.switches:
        canvas.set_layer_visible(layer, False)
    assert page.frame.window_tool.button.accessibleDescription() == "C 40 W 400 HU"
    # Fat of 40 HU lies at the centre of the opening window.
    assert grey_at(canvas, 48, 10) == pytest.approx(128, abs=8)
    view = canvas.image_from_screen()
    QTest.keyClick(canvas, Qt.Key.Key_W)
    assert page.frame.window_tool.mode.isChecked()
    drag(canvas, Qt.MouseButton.LeftButton, QPoint(200, 200), QPoint(100, -40))
    assert canvas.shown_window == pytest.approx((80, 500))
    assert page.frame.window_tool.button.accessibleDescription() == "C 80 W 500 HU"
    assert grey_at(canvas, 48, 10) == pytest.approx(127.5 - 40 / 500 * 255, abs=6)
    assert canvas.image_from_screen() == pytest.approx(view), "the image stays where it is"
    QTest.keyClick(canvas, Qt.Key.Key_W)
    drag(canvas, Qt.MouseButton.LeftButton, QPoint(200, 200), QPoint(10, 10))
    assert canvas.shown_window == pytest.approx((80, 500))
    assert not np.allclose(canvas.image_from_screen(), view), "outside of the mode dragging moves the image"
    drag(canvas, Qt.MouseButton.RightButton, QPoint(200, 200), QPoint(-40, 0))
    assert canvas.shown_window == pytest.approx((80, 450)), "the right button changes the window in any mode"
    roll(canvas, -120)
    assert window.session.image_id == "ct_005"
    assert canvas.shown_window == pytest.approx((80, 450)), "within a volume the window is kept"
    QTest.keyClick(canvas, Qt.Key.Key_Space)
    assert window.session.image_id == "last" and canvas.as_opened
    QTest.keyClick(canvas, Qt.Key.Key_Backspace)
    assert window.session.image_id == "ct_005" and canvas.as_opened, "and the volume opens where it was left"


def test_windows_in_common_use_are_in_the_menu(window: MainWindow) -> None:
    page = review_page(window)
    window.session.set_image("ct_004")
    tool = page.frame.window_tool

    def choose(name: str) -> None:
        tool.fill_menu()
        next(action for action in tool.menu.actions() if action.text().startswith(name)).trigger()

    choose("Lung")
    assert page.canvas.shown_window == (-600.0, 1500.0)
    choose("Full range")
    low, high = -1000.0, 200.0
    centre, width = page.canvas.shown_window or (0.0, 0.0)
    assert centre - width / 2 == pytest.approx(low, abs=60) and centre + width / 2 == pytest.approx(
        high, abs=60
    )
    choose("As opened")
    assert page.canvas.as_opened and page.canvas.shown_window == (40.0, 400.0)
    window.session.set_image("first")
    tool.fill_menu()
    assert len(tool.menu.actions()) == 2, "a photograph has no windows of its own"
    drag(page.canvas, Qt.MouseButton.RightButton, QPoint(200, 200), QPoint(0, 60))
    assert page.canvas.window_level() is not None and not page.canvas.as_opened
    choose("As opened")
    assert page.canvas.window_level() is None, "an 8-bit image is shown as it is"


def test_the_value_under_the_pointer_is_the_real_one(window: MainWindow) -> None:
    page = review_page(window)
    window.session.set_image("ct_004")
    QTest.mouseMove(page.canvas, page.canvas.widget_from_image(0, 0).toPoint())
    assert page.frame._position.text() == "0, 0" and page.frame._value.text() == "-996 HU"
    roll(page.canvas, -120, at=page.canvas.widget_from_image(0, 0))
    assert page.frame._value.text() == "-995 HU", "it follows the slice"


# Slices


def test_a_volume_is_one_row_and_is_scrolled_by_wheel_keys_and_slider(
    window: MainWindow, study: Study
) -> None:
    page = review_page(window)
    canvas, bar = page.canvas, page.frame.slices
    assert page.list.model.rowCount() == 3
    assert [entry.name for entry in entries(study)] == ["first.png", "abdomen.nii.gz", "last.png"]
    zoom = canvas.zoom
    assert bar.isHidden()
    roll(canvas, 120)
    assert canvas.zoom == pytest.approx(zoom * 1.2), "a single image is zoomed"
    QTest.keyClick(canvas, Qt.Key.Key_Space)
    assert window.session.image_id == "ct_004" and bar.isVisible() and bar.text == "5 / 8"
    canvas.zoom_by(1.7)
    view = canvas.image_from_screen()
    roll(canvas, -240)
    assert window.session.image_id == "ct_006"
    roll(canvas, 60)
    roll(canvas, 60)
    assert window.session.image_id == "ct_005", "half notches of a touchpad add up"
    assert canvas.image_from_screen() == pytest.approx(view), "zoom and pan stay"
    roll(canvas, 120, Qt.KeyboardModifier.ControlModifier)
    assert window.session.image_id == "ct_005" and canvas.zoom > 1.15 * 1.7 * zoom / 2
    assert not np.allclose(canvas.image_from_screen(), view), "with Ctrl the wheel zooms"
    for key, slice_id in (
        (Qt.Key.Key_Up, "ct_004"),
        (Qt.Key.Key_Home, "ct_000"),
        (Qt.Key.Key_Up, "ct_000"),
        (Qt.Key.Key_PageDown, "ct_005"),
        (Qt.Key.Key_Down, "ct_006"),
        (Qt.Key.Key_End, "ct_007"),
        (Qt.Key.Key_PageUp, "ct_002"),
    ):
        QTest.keyClick(canvas, key)
        assert window.session.image_id == slice_id
    assert page.list.model.rowCount() == 3 and page.list.view.currentIndex().row() == 1
    assert bar.ahead(2) == ["ct_001", "ct_000", "ct_003"], "what is built ahead follows the scrolling"
    QTest.mouseClick(bar, Qt.MouseButton.LeftButton, pos=QPoint(26, int(bar._y_of(7))))
    assert window.session.image_id == "ct_007"
    assert canvas.scene is not None and int(canvas.scene.image[0, 0, 0]) == 24 + 7
    QTest.keyClick(canvas, Qt.Key.Key_Space)
    assert window.session.image_id == "last" and bar.isHidden()
    QTest.keyClick(canvas, Qt.Key.Key_Up)
    assert window.session.image_id == "ct_007", "where there is nothing to scroll, Up goes to the row before"


def test_a_slice_that_cannot_be_read_is_passed(window: MainWindow, study: Study) -> None:
    page = review_page(window)
    window.session.set_image("ct_004")
    page._ahead.stop()
    study.image_path(study.image("ct_006")).write_bytes(b"")
    window.session.refresh("data")
    roll(page.canvas, -120)
    roll(page.canvas, -120)
    assert "ct_006.png" in window.banner.text.text() and page.canvas.scene is None
    roll(page.canvas, -120)
    assert window.session.image_id == "ct_007" and page.canvas.scene is not None


# Recording


def test_placements_tell_slice_target_window_and_place(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    window.session.set_image("ct_004")
    page = record_page(window)
    canvas = page.canvas
    start_with_mouse(page)
    seen = []

    def settled() -> bool:
        now = page.recorder.placement
        return (
            now is not None
            and now.window_level == canvas.window_level()
            and np.array_equal(now.image_from_screen, canvas.image_from_screen())
        )

    def note() -> None:
        qtbot.waitUntil(settled)
        qtbot.wait(20)
        assert window.session.image_id is not None
        seen.append((window.session.image_id, canvas.window_level(), canvas.image_from_screen()))

    note()
    roll(canvas, -120)
    note()
    roll(canvas, 120, Qt.KeyboardModifier.ControlModifier)
    note()
    drag(canvas, Qt.MouseButton.RightButton, QPoint(200, 200), QPoint(80, 0))
    note()
    drag(canvas, Qt.MouseButton.LeftButton, QPoint(200, 200), QPoint(30, 20))
    note()
    QTest.keyClick(canvas, Qt.Key.Key_Up)
    note()
    QTest.keyClick(canvas, Qt.Key.Key_Tab)
    note()
    QTest.keyClick(canvas, Qt.Key.Key_Tab, Qt.KeyboardModifier.ShiftModifier)
    note()
    recording = finish(page, study, qtbot)
    found = recording.placements
    assert [one.image_id for one in found] == [image for image, _, _ in seen]
    assert [one.window_level for one in found] == [pytest.approx(level) for _, level, _ in seen]
    assert [one.target_id for one in found] == ["gland"] * 6 + ["nodule", "gland"]
    for placement, (_, _, transform) in zip(found, seen, strict=True):
        assert placement.image_from_screen == pytest.approx(transform)
    assert found[0].window_level == (40.0, 400.0) and found[3].window_level == pytest.approx((40, 480))
    for one, other in pairwise(found):
        assert one.end_ns <= other.start_ns


def test_a_window_that_is_dragged_slowly_starts_few_placements(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    window.session.set_image("ct_004")
    page = record_page(window)
    start_with_mouse(page)
    qtbot.wait(250)
    QTest.mousePress(page.canvas, Qt.MouseButton.RightButton, pos=QPoint(200, 200))
    for step in range(30):
        QTest.mouseMove(page.canvas, QPoint(200 + step, 200))
        qtbot.wait(17)
    QTest.mouseRelease(page.canvas, Qt.MouseButton.RightButton, pos=QPoint(229, 200))
    level = page.canvas.window_level()
    qtbot.waitUntil(
        lambda: page.recorder.placement is not None and page.recorder.placement.window_level == level
    )
    found = finish(page, study, qtbot).placements
    assert 3 <= len(found) <= 8
    assert found[-1].window_level == level and found[0].window_level == (40.0, 400.0)


def test_a_replay_shows_slices_and_windows_as_they_were(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    window.session.set_image("ct_004")
    page = record_page(window)
    start_with_mouse(page)
    qtbot.wait(200)
    QTest.keyClick(page.canvas, Qt.Key.Key_Tab)
    drag(page.canvas, Qt.MouseButton.RightButton, QPoint(200, 200), QPoint(80, 0))
    qtbot.wait(200)
    QTest.keyClick(page.canvas, Qt.Key.Key_Down)
    qtbot.wait(300)
    finish(page, study, qtbot)
    page.canvas.set_shown_window(None)
    page.panel.tracker.setCurrentIndex(page.panel.tracker.findData("replay"))
    seen = set()
    page.start()
    roll(page.canvas, -120)

    def ended() -> bool:
        level = page.canvas.shown_window
        if page.busy and level is not None:
            seen.add((window.session.image_id, window.session.target_id, round(level[1])))
        return page.replaying.replay is not None and page.replaying.replay.ended

    qtbot.waitUntil(ended, timeout=5000)
    assert {("ct_004", "gland", 400), ("ct_004", "nodule", 480), ("ct_005", "nodule", 480)} <= seen


def test_a_fixation_lands_on_its_slice_and_pixel_after_zoom_scroll_and_window(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    window.session.set_image("ct_004")
    page = record_page(window)
    canvas = page.canvas
    start_with_mouse(page)
    roll(canvas, 360, Qt.KeyboardModifier.ControlModifier, canvas.widget_from_image(60, 40))
    roll(canvas, -240)
    drag(canvas, Qt.MouseButton.RightButton, QPoint(150, 150), QPoint(-60, 30))
    qtbot.wait(40)
    point = QPoint(canvas.width() // 2 - 37, canvas.height() // 2 + 21)
    wanted = canvas.image_from_widget(QPointF(point))
    rest_at(canvas, point, qtbot)
    QTest.keyClick(canvas, Qt.Key.Key_Down)
    later = QPoint(canvas.width() // 2 + 80, canvas.height() // 2 - 60)
    wanted_later = canvas.image_from_widget(QPointF(later))
    rest_at(canvas, later, qtbot)
    finish(page, study, qtbot)
    for slice_id, expected in (("ct_006", wanted), ("ct_007", wanted_later)):
        fixations = [item for item in study.fixations[slice_id, "gland"] if len(item.duration_ms)]
        longest = max(
            (
                (float(ms), xy)
                for item in fixations
                for ms, xy in zip(item.duration_ms, item.xy_px, strict=True)
            ),
            key=lambda one: one[0],
        )
        assert longest[0] > 250
        assert np.linalg.norm(longest[1] - np.array(expected)) < 1.0
    assert ("ct_004", "nodule") not in study.fixations
    row = page.list.model.index(1)
    assert row.data(Qt.ItemDataRole.ToolTipRole).startswith("abdomen.nii.gz\n8 slices · Look again ")
    assert {"ct_006", "ct_007"} <= page.frame.slices._marks.gaze


def test_words_are_stored_for_each_target_and_lead_to_the_next(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    window.session.set_image("first")
    page = record_page(window)
    canvas, session = page.canvas, window.session
    start_with_mouse(page)
    assert page.panel.look_for.name.text() == "Gland"
    rest_at(canvas, QPoint(200, 200), qtbot)
    QTest.keyClick(canvas, Qt.Key.Key_Space)
    assert (session.image_id, session.target_id) == ("first", "nodule"), "the other target of the same image"
    assert page.panel.look_for.name.text() == "Nodule"
    assert page.panel.look_for.targets.rows["gland"].accessibleDescription() == "Present"
    qtbot.wait(30)
    QTest.keyClick(canvas, Qt.Key.Key_Q)
    assert (session.image_id, session.target_id) == ("ct_004", "gland"), "then the next image"
    qtbot.wait(30)
    QTest.keyClick(canvas, Qt.Key.Key_0)
    assert (session.image_id, session.target_id) == ("ct_005", "gland"), "in a volume a word is on the slice"
    qtbot.wait(30)
    QTest.keyClick(canvas, Qt.Key.Key_Space)
    assert (session.image_id, session.target_id) == ("ct_005", "nodule")
    QTest.keyClick(canvas, Qt.Key.Key_Space)
    assert (session.image_id, session.target_id) == ("last", "gland")
    QTest.keyClick(canvas, Qt.Key.Key_U)
    QTest.keyClick(canvas, Qt.Key.Key_Backspace)
    assert (session.image_id, session.target_id) == ("last", "gland"), "back is the same way"
    finish(page, study, qtbot)
    said = {
        key: word
        for key in (*(("first", t) for t in ("gland", "nodule")), ("ct_004", "gland"), ("last", "gland"))
        if (word := study.presence(*key)) is not None
    }
    assert said == {
        ("first", "gland"): "present",
        ("first", "nodule"): "unsure",
        ("ct_004", "gland"): "absent",
        ("last", "gland"): "ungradable",
    }
    assert study.presence("ct_005", "nodule") is None, "a volume is left without a word on its last slice"


def test_targets_together_are_one_look_and_a_word_counts_for_all(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    window.session.set_image("first")
    page = record_page(window)
    QTest.mouseClick(page.panel.look_for.together, Qt.MouseButton.LeftButton)
    start_with_mouse(page)
    assert page.panel.look_for.name.text() == "All targets"
    qtbot.wait(30)
    QTest.keyClick(page.canvas, Qt.Key.Key_Tab)
    assert window.session.target_id == "gland"
    QTest.keyClick(page.canvas, Qt.Key.Key_0)
    assert window.session.image_id == "ct_004"
    recording = finish(page, study, qtbot)
    assert recording.placements[0].target_id is None
    assert study.presence("first", "gland") == study.presence("first", "nodule") == "absent"


def test_lesions_are_counted_within_an_image(window: MainWindow, study: Study, qtbot: QtBot) -> None:
    window.session.set_image("first")
    window.session.set_target("nodule")
    page = record_page(window)
    start_with_mouse(page)
    sitting = page.sitting
    assert sitting is not None and sitting.instance == 1
    QTest.keyClick(page.canvas, Qt.Key.Key_L)
    assert sitting.instance == 2 and page.panel.look_for.lesion.accessibleName() == "lesion 2"
    QTest.keyClick(page.canvas, Qt.Key.Key_Space)
    assert window.session.target_id == "gland" and sitting.instance is None, "a gland is not counted"
    QTest.keyClick(page.canvas, Qt.Key.Key_Tab)
    assert sitting.instance == 1, "another image begins anew"
    assert len(finish(page, study, qtbot).placements) == 4


def test_the_simulated_clinician_goes_through_a_volume_by_itself(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    window.session.set_image("ct_005")
    page = record_page(window)
    page.panel.by_itself.setChecked(True)
    page.start()
    seen: set[str | None] = set()

    def through() -> bool:
        seen.add(window.session.image_id)
        # Quicker than the clinician looks: the end of the look is what is tested.
        page.recorder._look_ends = 0.0 if page.recorder._look_ends is not None else None
        return window.session.target_id == "nodule"

    qtbot.waitUntil(through, timeout=8000)
    assert seen == {"ct_005", "ct_006", "ct_007"}
    finish(page, study, qtbot)
    assert {study.presence(name, "gland") for name in ("ct_005", "ct_006", "ct_007")} == {"present"}


# Review


def test_verdicts_count_for_the_target_and_slice_shown(window: MainWindow, study: Study) -> None:
    for name in study.volumes["ct"]:
        for target in study.targets:
            mask = study.true_mask(name, target.id)
            assert mask is not None
            study.save_prediction("run-x", name, target.id, "student", mask.astype(np.float32))
    (study.runs_folder / "run-x" / "spec.json").write_text("{}")
    page = review_page(window)
    window.session.set_image("ct_003")
    canvas = page.canvas
    row = page.list.model.index(1)
    assert row.data(Qt.ItemDataRole.AccessibleTextRole).startswith("abdomen.nii.gz, To review 8/8")
    assert page.frame.slices._marks.masks == frozenset(study.volumes["ct"])
    QTest.keyClick(canvas, Qt.Key.Key_A)
    assert window.session.image_id == "ct_004", "the next slice that waits for a verdict"
    QTest.keyClick(canvas, Qt.Key.Key_Tab)
    assert window.session.target_id == "nodule" and window.session.image_id == "ct_004"
    QTest.keyClick(canvas, Qt.Key.Key_Q)
    [unsure] = study.reviews("ct_004", "nodule")
    assert (unsure.verdict, unsure.presence) == ("rejected", "unsure")
    assert study.reviewed_mask("ct_004", "nodule") is None and study.reviews("ct_004", "gland") == []
    [accepted] = study.reviews("ct_003", "gland")
    assert accepted.verdict == "accepted" and accepted.presence == "present"
    QTest.mouseClick(page.inspector.targets.rows["gland"], Qt.MouseButton.LeftButton)
    assert window.session.target_id == "gland"
    assert page.verdict_bar.progress.text() == "1 of 10 reviewed"
    assert page.frame.slices._marks.reviews == {"ct_003"}
    QTest.keyClick(canvas, Qt.Key.Key_Z)
    assert (window.session.image_id, window.session.target_id) == ("ct_004", "nodule")
    assert study.reviews("ct_004", "nodule") == []


def test_all_targets_are_outlined_at_once(window: MainWindow, study: Study) -> None:
    page = review_page(window)
    nodule = study.true_mask("ct_004", "nodule")
    assert nodule is not None
    study.save_prediction("run-x", "ct_004", "nodule", "student", nodule.astype(np.float32))
    (study.runs_folder / "run-x" / "spec.json").write_text("{}")
    window.session.refresh("runs")
    window.session.set_image("ct_004")
    before = page.canvas.grab().toImage()
    QTest.keyClick(page.canvas, Qt.Key.Key_O)
    assert page.inspector.layers.others.isChecked() and page.canvas.scene is not None
    assert [one.target_id for one in page.canvas.scene.others] == ["nodule"]
    after = page.canvas.grab().toImage()
    assert before != after
    QTest.mouseClick(page.inspector.layers.others, Qt.MouseButton.LeftButton, pos=QPoint(8, 12))
    assert page.canvas.grab().toImage() == before


def test_targets_taken_away_meanwhile_are_let_go(window: MainWindow, study: Study) -> None:
    page = review_page(window)
    window.session.set_target("nodule")
    for path in (study.folder / "masks").glob("*.nodule.png"):
        path.unlink()
    study.set_targets(study.targets[:1])
    window.session.refresh("data")
    assert window.session.target_id == "gland" and page.inspector.targets.isHidden()
