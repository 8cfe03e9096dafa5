from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QFocusEvent, QImage, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QMenu
from pytestqt.qtbot import QtBot

from app.comparison import BLINK_MS
from app.main_window import MainWindow
from app.review_page import ReviewPage
from app.saved_views import View
from app.texts import short_name
from segmentation.records import utc_now
from segmentation.run_care import rename_run
from segmentation.study import Review, Study
from tests.window_support import fill, make_volume_study, open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)

FIRST, SECOND = "run-20261120-101500-a1b2c3", "run-20261124-173000-d4e5f6"
EARLIER, LATER = f"Student, run {short_name(FIRST)}", f"Student, run {short_name(SECOND)}"
SHIFT = Qt.KeyboardModifier.ShiftModifier


def predict(study: Study) -> None:
    """Store predictions of two runs: the true masks, and the same moved by six columns."""
    for run_id, moved in ((FIRST, 0), (SECOND, 6)):
        for image_id in study.images:
            mask = study.true_mask(image_id, "target")
            assert mask is not None
            probability = np.roll(mask, moved, axis=1).astype(np.float32)
            study.save_prediction(run_id, image_id, "target", "student", probability)
        (study.runs_folder / run_id / "spec.json").write_text("{}")


@pytest.fixture
def window(qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path) -> MainWindow:
    fill(study, image_folder)
    predict(study)
    made = open_window(qtbot, tmp_path, study)
    made.show_page("review")
    return made


def page_of(window: MainWindow) -> ReviewPage:
    page = window.page("review")
    assert isinstance(page, ReviewPage)
    return page


def choose(page: ReviewPage, name: str) -> None:
    """Choose from the menu, or from one within it, as a click does."""
    tool = page.comparing.tool
    tool.fill_menu()
    menus = [tool.menu, *tool.menu.findChildren(QMenu)]
    found = (one for menu in menus for one in menu.actions() if one.text().split("\t")[0] == name)
    next(found).trigger()


def offered(page: ReviewPage) -> list[str]:
    page.comparing.tool.fill_menu()
    return [one.text().split("\t")[0] for one in page.comparing.tool.menu.actions() if one.text()]


def left_edge(page: ReviewPage, *, other: bool) -> float:
    scene = (page.comparing.canvas if other else page.canvas).scene
    assert scene is not None and scene.student is not None
    return float(scene.student.contours[0][:, 0].min())


def seen(page: ReviewPage) -> QImage:
    QApplication.processEvents()
    return page.frame.grab().toImage()


def test_C_held_shows_the_bare_image_until_another_side_is_chosen_and_then_that(window: MainWindow) -> None:
    page = page_of(window)
    usual = seen(page)
    QTest.keyPress(page.canvas, Qt.Key.Key_C)
    bare = seen(page)
    QTest.keyRelease(page.canvas, Qt.Key.Key_C)
    assert bare != usual and seen(page) == usual
    assert offered(page)[:2] == ["Image alone", EARLIER], "this side's run is not offered"
    choose(page, EARLIER)
    assert page.frame.captions == (LATER, EARLIER)
    assert left_edge(page, other=False) == pytest.approx(left_edge(page, other=True) + 6)
    chosen = seen(page)
    QTest.keyPress(page.canvas, Qt.Key.Key_C)
    assert page.comparing.canvas.isVisible() and seen(page) not in (bare, usual, chosen)
    assert page.comparing.canvas.geometry() == page.canvas.geometry()
    QTest.keyRelease(page.canvas, Qt.Key.Key_C)
    assert not page.comparing.canvas.isVisible() and seen(page) == chosen
    QTest.mousePress(page.comparing.tool.held, Qt.MouseButton.LeftButton)
    assert page.comparing.canvas.isVisible()
    QTest.mouseRelease(page.comparing.tool.held, Qt.MouseButton.LeftButton)
    assert not page.comparing.canvas.isVisible()
    choose(page, "Image alone")
    assert page.frame.captions == ("", "") and seen(page) == usual


def test_two_runs_stand_side_by_side_and_move_zoom_window_and_point_together(
    window: MainWindow, qtbot: QtBot
) -> None:
    page = page_of(window)
    QTest.keyClick(page.canvas, Qt.Key.Key_C, SHIFT)
    this, other = page.canvas, page.comparing.canvas
    assert other.isVisible()
    assert page.frame.captions[1] == EARLIER, "the first there is, where none was chosen"
    assert this.size() == other.size() and not this.geometry().intersects(other.geometry())
    assert this.view == other.view
    for canvas, follower in ((this, other), (other, this)):
        pointer = QPointF(120, 200)
        wheel = QWheelEvent(
            pointer, canvas.mapToGlobal(pointer), QPoint(), QPoint(0, 240), Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
        )  # fmt: skip
        before = canvas.view
        QApplication.sendEvent(canvas, wheel)
        assert canvas.view != before and follower.view == canvas.view
        before = canvas.view
        QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=QPoint(100, 100))
        QTest.mouseMove(canvas, QPoint(140, 120))
        QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=QPoint(140, 120))
        assert canvas.view.x == before.x + 40 and follower.view == canvas.view
        QTest.mousePress(canvas, Qt.MouseButton.RightButton, pos=QPoint(100, 100))
        QTest.mouseMove(canvas, QPoint(150, 90))
        QTest.mouseRelease(canvas, Qt.MouseButton.RightButton, pos=QPoint(150, 90))
        assert not canvas.as_opened and follower.shown_window == canvas.shown_window
        at = canvas.widget_from_image(30, 20).toPoint()
        plain = follower.grab().toImage()
        QTest.mouseMove(canvas, at)
        assert [card.isVisible() for card in page.frame.probes] == [True, True]
        assert follower.grab().toImage() != plain, "a cross where the pointer is over there"
    texts = [card.text for card in page.frame.probes]
    assert "30, 20" in texts[0] and "30, 20" in texts[1]
    QTest.keyClick(this, Qt.Key.Key_F)
    assert other.view == this.view and other.widget_from_image(-0.5, 0).x() == pytest.approx(12)
    QTest.keyClick(this, Qt.Key.Key_5)
    assert not other.layer_visible("student")
    # A click beside leaves the keys where they were.
    QTest.mouseClick(other, Qt.MouseButton.LeftButton, pos=QPoint(50, 50))
    assert window.focusWidget() is this
    whole = this.width()
    QTest.keyClick(this, Qt.Key.Key_C, SHIFT)
    QTest.keyClick(this, Qt.Key.Key_C, SHIFT)
    assert page.comparing.manner == "held" and not other.isVisible() and this.width() > 2 * whole


def test_both_sides_go_from_image_to_image_and_a_verdict_counts_for_this_one(
    window: MainWindow, study: Study
) -> None:
    page = page_of(window)
    ids = list(study.images)
    QTest.keyClick(page.canvas, Qt.Key.Key_C, SHIFT)
    QTest.keyClick(page.canvas, Qt.Key.Key_N)
    for canvas, run_id in ((page.canvas, SECOND), (page.comparing.canvas, FIRST)):
        assert canvas.scene is not None and (canvas.scene.image_id, canvas.scene.run_id) == (ids[1], run_id)
    QTest.keyClick(page.canvas, Qt.Key.Key_A)
    review = study.reviews(ids[1], "target")[-1]
    mask, truth = study.reviewed_mask(ids[1], "target"), study.true_mask(ids[1], "target")
    assert review.subject == SECOND
    assert mask is not None and truth is not None and (mask == np.roll(truth, 6, axis=1)).all()
    page.runs.setCurrentIndex(page.runs.findData(FIRST))
    assert page.frame.captions == (EARLIER, EARLIER)
    assert LATER in offered(page)


def test_blinking_shows_both_in_turn(window: MainWindow, qtbot: QtBot) -> None:
    page = page_of(window)
    choose(page, EARLIER)
    choose(page, "Blinking")
    other = page.comparing.canvas
    assert not other.isVisible()
    qtbot.waitUntil(other.isVisible, timeout=4 * BLINK_MS)
    qtbot.waitUntil(lambda: not other.isVisible(), timeout=4 * BLINK_MS)
    choose(page, "While C is held")
    qtbot.wait(BLINK_MS + 200)
    assert not other.isVisible()


def test_two_annotators_masks_are_compared(window: MainWindow, study: Study) -> None:
    page = page_of(window)
    image_id = next(iter(study.images))
    truth = study.true_mask(image_id, "target")
    assert truth is not None
    for annotator, moved in (("Dr. A", 3), ("Dr. B", 8), ("Dr. C", 12)):
        review = Review(image_id, "target", annotator, FIRST, "edited", "present", 1.0, utc_now())
        study.add_review(review, np.roll(truth, moved, axis=1))
    window.session.refresh("reviews")
    window.session.refresh("data")

    def edges() -> list[float]:
        scenes = [page.canvas.scene, page.comparing.canvas.scene]
        assert all(scene is not None and scene.reviewed is not None for scene in scenes)
        return [float(scene.reviewed.contours[0][:, 0].min()) for scene in scenes]  # type: ignore[union-attr]

    choose(page, "Review of Dr. C")
    choose(page, "Side by side")
    assert page.frame.captions == ("Dr. A", "Dr. C"), "not the latest on both sides"
    this, other = edges()
    assert other - this == pytest.approx(9)
    choose(page, "Review of Dr. B")
    assert page.frame.captions == ("Dr. A", "Dr. B") and np.diff(edges()) == pytest.approx(5)
    choose(page, "Review that counts")
    assert page.frame.captions == ("Review that counts", "Dr. B") and np.diff(edges()) == pytest.approx(-4)
    QTest.keyClick(page.canvas, Qt.Key.Key_N)
    scene = page.comparing.canvas.scene
    assert scene is not None and scene.reviewed is None and "reviewed" not in scene.available


def test_with_nothing_to_compare_it_says_so(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder)
    window = open_window(qtbot, tmp_path, study)
    window.show_page("review")
    page = page_of(window)
    QTest.keyClick(page.canvas, Qt.Key.Key_C, SHIFT)
    assert "no other run" in window.banner.text.text() and not page.comparing.canvas.isVisible()
    assert page.comparing.manner == "held"


def test_a_prediction_that_cannot_be_read_ends_comparing_and_is_named(
    window: MainWindow, study: Study
) -> None:
    page = page_of(window)
    second = list(study.images)[1]
    page.stop()
    path = study.prediction_path(FIRST, second, "target")
    path.write_bytes(b"no picture")
    QTest.keyClick(page.canvas, Qt.Key.Key_C, SHIFT)
    page.stop()
    QTest.keyClick(page.canvas, Qt.Key.Key_N)
    assert path.name in window.banner.text.text()
    assert page.comparing.other is None and not page.comparing.canvas.isVisible()
    assert page.canvas.scene is not None and page.canvas.scene.image_id == second


def test_slices_scroll_on_both_sides(qtbot: QtBot, tmp_path: Path) -> None:
    study = make_volume_study(tmp_path / "volumes")
    target = study.targets[0].id
    for run_id in (FIRST, SECOND):
        for image_id in study.images:
            mask = study.true_mask(image_id, target)
            if mask is not None:
                study.save_prediction(run_id, image_id, target, "student", mask.astype(np.float32))
        (study.runs_folder / run_id / "spec.json").write_text("{}")
    window = open_window(qtbot, tmp_path, study)
    window.show_page("review")
    page = page_of(window)
    window.session.set_image("ct_003")
    QTest.keyClick(page.canvas, Qt.Key.Key_C, SHIFT)
    page.canvas.set_shown_window((-600.0, 1500.0))
    pointer = QPointF(120, 200)
    other = page.comparing.canvas
    wheel = QWheelEvent(
        pointer, other.mapToGlobal(pointer), QPoint(), QPoint(0, -120), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(other, wheel)
    assert window.session.image_id == "ct_004"
    for canvas in (page.canvas, other):
        assert canvas.scene is not None and canvas.scene.image_id == "ct_004"
        assert canvas.shown_window == (-600.0, 1500.0)


def test_a_key_let_go_of_in_another_window_holds_nothing_any_more(window: MainWindow) -> None:
    page = page_of(window)
    for side in ("Image alone", EARLIER):
        choose(page, side)
        QTest.keyPress(page.canvas, Qt.Key.Key_C)
        assert page.canvas.bare != page.comparing.canvas.isVisible()
        # What the canvas is told when another window comes to the front.
        QApplication.sendEvent(page.canvas, QFocusEvent(QEvent.Type.FocusOut))
        assert not page.canvas.bare and not page.comparing.canvas.isVisible()


@pytest.mark.parametrize("told", [QEvent.Type.FocusOut, QEvent.Type.WindowDeactivate])
def test_a_layer_peeked_at_is_put_back_when_its_key_is_let_go_of_elsewhere(
    window: MainWindow, told: QEvent.Type
) -> None:
    page = page_of(window)
    before = page.canvas.layer_visible("student")
    QTest.keyPress(page.canvas, Qt.Key.Key_5)
    assert page.canvas.layer_visible("student") != before
    QApplication.sendEvent(page.canvas, QFocusEvent(told) if told == QEvent.Type.FocusOut else QEvent(told))
    assert page.canvas.layer_visible("student") == before
    QTest.keyRelease(page.canvas, Qt.Key.Key_5)
    assert page.canvas.layer_visible("student") == before
    QTest.keyClick(page.canvas, Qt.Key.Key_5)
    assert page.canvas.layer_visible("student") != before, "a tap switches it for good, as ever"


def test_while_one_side_is_edited_the_other_keeps_its_layers(window: MainWindow) -> None:
    page = page_of(window)
    choose(page, EARLIER)
    QTest.keyClick(page.canvas, Qt.Key.Key_C, SHIFT)
    other = page.comparing.canvas
    assert other.isVisible() and other.layer_visible("student")
    QApplication.processEvents()
    before = other.grab().toImage()
    QTest.keyClick(page.canvas, Qt.Key.Key_E)
    QApplication.processEvents()
    assert page.editing.active and not page.canvas.layer_visible("student")
    assert other.layer_visible("student") and page.inspector.layers.switches["student"].isChecked() is False
    QTest.keyClick(page.canvas, Qt.Key.Key_5)
    assert page.canvas.layer_visible("student"), "it can be looked at beneath the edit"
    QTest.keyClick(page.canvas, Qt.Key.Key_5)
    QTest.keyClick(page.canvas, Qt.Key.Key_Escape)
    QApplication.processEvents()
    assert page.canvas.layer_visible("student") and other.layer_visible("student")
    assert other.grab().toImage() == before
    QTest.keyClick(page.canvas, Qt.Key.Key_5)
    assert not other.layer_visible("student"), "afterwards both are switched together again"


def test_nothing_blinks_over_a_mask_that_is_drawn(window: MainWindow, qtbot: QtBot) -> None:
    page = page_of(window)
    for _ in range(2):
        QTest.keyClick(page.canvas, Qt.Key.Key_C, SHIFT)
    other = page.comparing.canvas
    qtbot.waitUntil(other.isVisible, timeout=20 * BLINK_MS)
    QTest.keyClick(page.canvas, Qt.Key.Key_E)
    for _ in range(4):
        qtbot.wait(BLINK_MS // 2)
        assert page.editing.active and not other.isVisible()
    QTest.keyClick(page.canvas, Qt.Key.Key_Escape)
    qtbot.waitUntil(other.isVisible, timeout=20 * BLINK_MS)


def test_menus_name_sides_as_they_are_called_and_grow_by_nothing(window: MainWindow, study: Study) -> None:
    page = page_of(window)
    rename_run(study, FIRST, "R&D")
    window.session.refresh("runs")
    tool = page.comparing.tool
    assert "R&&D" in offered(page)[1], "an ampersand, not an underline"
    before = len(tool.menu.findChildren(QMenu)), len(page.queue.order.bar.findChildren(QMenu))
    page.queue.order.bar.views.save(View("mine", page.list.criteria, "doubt"))
    for _ in range(3):
        tool.fill_menu()
        page.queue.order.bar.menu.aboutToShow.emit()
    assert (len(tool.menu.findChildren(QMenu)), len(page.queue.order.bar.findChildren(QMenu))) == before


def test_new_masks_of_another_study_change_nothing_here(
    window: MainWindow, tmp_path: Path, image_folder: Path
) -> None:
    page = page_of(window)
    page.show_run_next("run-of-the-study-before")
    other = fill(Study.create(tmp_path / "other"), image_folder)
    predict(other)
    window.session.set_study(other)
    page.runs.setCurrentIndex(page.runs.findData(FIRST))
    QTest.keyClick(page.canvas, Qt.Key.Key_N)
    assert page.runs.currentData() == FIRST
