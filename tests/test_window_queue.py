"""The review page's queue: its order, filters and views, another look, and whether the eyes were on the mask."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PySide6.QtCore import QEvent, QSettings, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QInputDialog, QMenu
from pytestqt.qtbot import QtBot

from app.criteria import Criteria
from app.eyes_on_mask import LOOKED_MS, ReviewTracker, distances_to, within
from app.image_list import doubt_lines
from app.main_window import MainWindow
from app.record_page import RecordPage
from app.review_clock import ReviewClock, seconds_left
from app.saved_views import SavedViews, View
from gaze_capture.calibration import validation_event
from gaze_capture.quality import Validation
from gaze_capture.trackers.mouse import MouseTracker
from gaze_capture.trackers.tracker import Found
from segmentation.blind_reading import draw_audit
from segmentation.consent import give_consent
from segmentation.look_again import ask_again, asked_again
from segmentation.study import Review, Study
from tests.queue_support import RUN, listed, make_queue_study, review_of, settled
from tests.test_quality import of as validation_of
from tests.window_support import open_window

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)

COUNT = 9


@pytest.fixture
def window(qtbot: QtBot, tmp_path: Path, study: Study) -> MainWindow:
    made = open_window(qtbot, tmp_path, make_queue_study(study, tmp_path / "raw", COUNT), order="")
    made.show_page("review")
    settled(qtbot, review_of(made))
    return made


def press(window: MainWindow, key: Qt.Key) -> None:
    QTest.keyClick(review_of(window).canvas, key)


# The order


def test_the_most_doubtful_comes_first_and_says_why(window: MainWindow, study: Study) -> None:
    page, ids = review_of(window), list(study.images)
    assert page.queue.order.bar.order.currentData() == "doubt"
    order = listed(page)
    assert order[:3] == [ids[8], ids[5], ids[2]], "the further off, the earlier"
    assert window.session.image_id == ids[8], "a study that was just opened begins there"
    assert page.inspector.why.isVisible() and page.inspector.why.text().startswith("Doubt 0.")
    assert "outside the mask" in page.inspector.why.text() or "was not looked at" in page.inspector.why.text()
    rows = {row.image_id: row for row in page.list.model.rows}
    scores = [rows[name].doubt or 0.0 for name in order]
    assert scores == sorted(scores, reverse=True)
    told = page.list.view.model().index(0, 0).data(Qt.ItemDataRole.ToolTipRole)
    assert doubt_lines(rows[ids[8]])[0] in told and rows[ids[8]].reasons[0] in told


def test_the_order_stays_under_the_hands_until_it_is_asked_for(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page = review_of(window)
    before = listed(page)
    press(window, Qt.Key.Key_A)
    press(window, Qt.Key.Key_R)
    assert listed(page) == before and window.session.image_id == before[2]
    last = before[-1]
    mask = study.true_mask(last, "target")
    assert mask is not None
    ask_again(study, last, "target", "Dr. Other")
    window.session.refresh("data")
    settled(qtbot, page)
    assert listed(page) == before
    QTest.mouseClick(page.queue.order.bar.sort_button, Qt.MouseButton.LeftButton)
    assert set(listed(page)[-2:]) == set(before[:2]), "what was reviewed comes last"
    # Other predictions came in: the queue begins anew.
    study.save_prediction(RUN, last, "target", "student", np.roll(mask, 60, axis=1).astype(np.float32))
    window.session.refresh("runs")
    settled(qtbot, page)
    assert listed(page)[0] == last


def test_the_order_chosen_is_kept(window: MainWindow, study: Study, qtbot: QtBot) -> None:
    page, ids = review_of(window), list(study.images)
    combo = page.queue.order.bar.order
    combo.setCurrentIndex(combo.findData("imported"))
    combo.activated.emit(combo.currentIndex())
    assert listed(page) == ids and not page.queue.order.bar.sort_button.isVisible()
    assert window.session.settings.value("review/order") == "imported"
    combo.setCurrentIndex(combo.findData("doubt"))
    combo.activated.emit(combo.currentIndex())
    assert listed(page)[0] == ids[8]


def test_where_doubts_cannot_be_worked_out_nothing_waits_for_them(
    window: MainWindow, study: Study, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = review_of(window)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr("app.review_order.DoubtIndex.doubts", broken)
    page.runs.setCurrentIndex(page.runs.findData(None))
    qtbot.waitUntil(lambda: "a mistake" in window.banner.text.text(), timeout=20000)
    assert not page.inspector.why.isVisible() and listed(page) == list(study.images)


def test_images_without_masks_are_listed_as_imported(qtbot: QtBot, tmp_path: Path, study: Study) -> None:
    import shutil

    make_queue_study(study, tmp_path / "raw", 4)
    shutil.rmtree(study.folder / "pseudomasks")
    shutil.rmtree(study.runs_folder)
    window = open_window(qtbot, tmp_path, study, order="")
    window.show_page("review")
    settled(qtbot, review_of(window))
    page = review_of(window)
    assert listed(page) == list(study.images) and page.queue.order.bar.order.currentData() == "imported"
    assert not page.inspector.why.isVisible()


# Filters and views


@pytest.mark.parametrize(
    ("text", "count"),
    [("doubt>0.3", 3), ("doubt>30", 3), ("state:waiting", COUNT), ('state:"To review"', COUNT),
     ("state:accepted", 0), ("reason:gaze doubt>=0.3", 3), ("outside doubt>0.9", 0)],
)  # fmt: skip
def test_doubts_states_and_reasons_are_searched_for(window: MainWindow, text: str, count: int) -> None:
    page = review_of(window)
    QTest.keyClicks(page.list.search, text)
    assert len(listed(page)) == count
    if count:
        page.list.view.setFocus()


def test_the_filter_offers_the_reasons(window: MainWindow, study: Study) -> None:
    page, ids = review_of(window), list(study.images)
    page.list.filter.open()
    box = page.list.filter.popup.boxes["why", "gaze"]
    assert box.text().startswith("Gaze lies elsewhere")
    box.click()
    page.list.filter.popup.hide()
    assert ids[8] in listed(page) and ids[1] not in listed(page)
    assert page.list.filter.text.text() == "Doubt, because: Gaze lies elsewhere"


def test_views_are_saved_chosen_and_deleted(
    window: MainWindow, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = review_of(window)
    bar = page.queue.order.bar
    page.list.search.setText("doubt>0.3")
    page.list.states.setCurrentText("To review")
    monkeypatch.setattr(QInputDialog, "getText", lambda *_: ("  Worst &  first ", True))

    def action(text: str) -> object:
        bar.menu.aboutToShow.emit()
        return next(one for one in bar.menu.actions() if one.text() == text)

    action("Save this view…").trigger()  # type: ignore[attr-defined]
    [kept] = bar.views.all()
    assert kept == View("Worst & first", Criteria("doubt>0.3", "waiting"), "doubt")
    page.list.search.clear()
    page.list.states.setCurrentIndex(0)
    bar.order_chosen.emit("imported")
    assert listed(page) == list(study.images)
    action("Worst && first").trigger()  # type: ignore[attr-defined]
    assert page.list.search.text() == "doubt>0.3" and page.list.states.currentText() == "To review"
    assert len(listed(page)) == 3 and bar.order.currentData() == "doubt"
    bar.menu.aboutToShow.emit()
    gone = next(one.menu() for one in bar.menu.actions() if one.text() == "Delete")
    assert isinstance(gone, QMenu)
    gone.actions()[0].trigger()
    assert bar.views.all() == []


def test_damaged_views_are_passed_over(tmp_path: Path) -> None:
    settings = QSettings(str(tmp_path / "s.ini"), QSettings.Format.IniFormat)
    views = SavedViews(settings)
    settings.setValue("review/views", "{")
    assert views.all() == []
    settings.setValue("review/views", '[{"name": "x"}, 3, null]')
    assert views.all() == []
    view = View("a", Criteria("x", None, (("why", frozenset({"gaze", ""})),)), "imported")
    views.save(view)
    views.save(View("a", Criteria("y"), "doubt"))
    assert [one.criteria.text for one in SavedViews(settings).all()] == ["y"]


# Time


def test_the_clock_counts_what_is_in_view_alone() -> None:
    now = [0.0]
    clock = ReviewClock(lambda: now[0])
    assert clock.show("a") and clock.seconds == 0
    now[0] = 5
    assert clock.seconds == 0, "nothing counts before the page is in view"
    clock.run(True)
    clock.run(True)
    now[0] = 8
    assert clock.seconds == 3
    clock.run(False)
    now[0] = 100
    assert clock.seconds == 3
    clock.run(True)
    now[0] = 101
    assert not clock.show("a") and clock.seconds == 4
    assert clock.show("b") and clock.seconds == 0
    now[0] = 103
    assert clock.seconds == 2 and clock.running


def test_time_away_is_not_reviewed(window: MainWindow, study: Study, qtbot: QtBot) -> None:
    page, shown = review_of(window), window.session.image_id
    assert shown is not None
    window.show_page("study")
    assert not page.clock.running
    window.show_page("review")
    assert page.clock.running
    # What a window is told when another one comes to the front; without a display that is a matter of luck.
    QApplication.sendEvent(window, QEvent(QEvent.Type.WindowDeactivate))
    assert not page.clock.running
    before = page.clock.seconds
    qtbot.wait(300)
    assert page.clock.seconds == before
    QApplication.sendEvent(window, QEvent(QEvent.Type.WindowActivate))
    assert page.clock.running
    press(window, Qt.Key.Key_A)
    [review] = study.reviews(shown, "target")
    assert before - 0.01 <= review.seconds_spent
    assert page.clock.seconds < 60 and page.clock.running
    QApplication.sendEvent(window, QEvent(QEvent.Type.WindowDeactivate))
    press(window, Qt.Key.Key_A)
    [last] = [one for one in study.reviewed().values() if one.image_id != shown]
    assert last.seconds_spent < 60


def test_what_is_left_is_told_by_the_median(window: MainWindow, study: Study) -> None:
    def review(number: int, seconds: float, annotator: str = "a") -> Review:
        return Review(
            "i", "t", annotator, RUN, "accepted", "present", seconds, f"2026-01-01T00:00:{number:02}"
        )

    assert seconds_left([], "a", 5) is None
    some = [review(1, 4.0), review(2, 6.0), review(3, 10.0), review(4, 5000.0), review(5, 1.0, "b")]
    assert seconds_left(some, "a", 10) == 60
    many = [review(n, 1.0) for n in range(20)] + [review(n, 3.0) for n in range(20, 40)]
    assert seconds_left(many, "a", 2) == 6, "the last twenty count"
    page = review_of(window)
    assert not page.verdict_bar.left.isVisible()
    press(window, Qt.Key.Key_A)
    assert page.verdict_bar.left.isVisible() and page.verdict_bar.left.text().startswith("about ")
    assert page.verdict_bar.progress.text() == f"1 of {COUNT} reviewed"


# Another look


def test_without_a_tracker_the_image_is_marked_and_z_takes_that_back(
    window: MainWindow, study: Study
) -> None:
    page = review_of(window)
    first, second = listed(page)[:2]
    press(window, Qt.Key.Key_G)
    assert set(asked_again(study)) == {(first, "target")} and window.session.image_id == second
    assert "the next session shows it first" in window.banner.text.text()
    press(window, Qt.Key.Key_A)
    press(window, Qt.Key.Key_Z)
    assert window.session.image_id == second and study.reviewed() == {}
    press(window, Qt.Key.Key_Z)
    assert asked_again(study) == {} and window.session.image_id == first
    assert list((study.folder / "look_again").rglob("*.json")), "nothing is erased"
    assert not page.verdict_bar.undo_button.isEnabled()
    page.verdict_bar.again_button.click()
    page.go(-1)
    press(window, Qt.Key.Key_G)
    assert "marked already" in window.banner.text.text() and len(asked_again(study)) == 1


def record_page(window: MainWindow) -> RecordPage:
    page = window.page("record")
    assert isinstance(page, RecordPage)
    return page


def test_with_a_tracker_chosen_new_gaze_is_recorded_at_once(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page, image = review_of(window), window.session.image_id
    assert image is not None
    record = record_page(window)
    press(window, Qt.Key.Key_G)
    assert window.current_page() == "review", "nobody chose a tracker: nothing simulated comes in unasked"
    press(window, Qt.Key.Key_Z)
    record.panel.tracker.activated.emit(0)
    assert record.tracker_ready
    before = study.pseudomask(image, "target")
    press(window, Qt.Key.Key_G)
    assert window.current_page() == "record" and record.sitting is not None
    assert record.course.plan is not None and [entry.image.id for entry in record.course.plan.entries] == [
        image
    ]
    qtbot.waitUntil(lambda: record.recorder.live.total_ms > 1600, timeout=20000)
    QTest.keyClick(record.canvas, Qt.Key.Key_Space)
    assert record.sitting is None
    qtbot.waitUntil(lambda: window.current_page() == "review", timeout=20000)
    assert window.session.image_id == image
    looks = study.looks[image, "target"]
    assert len(looks) == 2 and {
        look.image_id for look in study.fixations.each_look() if look.source.startswith("rec-")
    } == {image}
    after = study.pseudomask(image, "target")
    assert before is not None and after is not None
    gates_passed = len(after.sources) == 2
    assert gates_passed == (len(after.xy_px) > len(before.xy_px))
    # The next sitting is a usual one again.
    settled(qtbot, page)
    window.session.set_annotator("Dr. New")
    window.show_page("record")
    record.start()
    assert record.course.plan is not None and len(record.course.plan.entries) > 1
    QTest.keyClick(record.canvas, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not record._saving, timeout=20000)


# Looked at?


def test_places_on_the_mask_or_within_the_trackers_accuracy_of_it() -> None:
    mask = np.zeros((50, 80), dtype=bool)
    mask[20:30, 30:60] = True
    away = distances_to(mask)
    assert away is not None and distances_to(np.zeros((5, 5), dtype=bool)) is None
    xy = np.array([[45, 25], [62, 25], [66, 25], [np.nan, 25], [45, -3], [200, 25]])
    assert within(away, xy, 4.0).tolist() == [True, True, False, False, False, False]
    assert within(away, xy, 25.0).tolist() == [True, True, True, False, True, False]


def test_in_a_large_image_distances_are_right_to_a_few_pixels() -> None:
    mask = np.zeros((2600, 4100), dtype=bool)
    mask[200, 300] = mask[2000:2100, 4000:] = True
    away = distances_to(mask)
    assert away is not None and away.shape == mask.shape
    exact = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    near = exact < 200
    assert float(np.abs(away - exact)[near].max()) < 8


def test_a_tracker_counts_where_it_was_validated_well_enough() -> None:
    def tracker(needs: bool, found: Validation | None) -> ReviewTracker:
        return ReviewTracker("x", MouseTracker, needs, found)  # type: ignore[arg-type]

    assert tracker(False, None).accuracy_deg == 0.5
    assert tracker(True, None).accuracy_deg is None
    assert tracker(True, validation_of(0.4)).accuracy_deg == pytest.approx(0.4)
    assert tracker(True, validation_of(1.4)).accuracy_deg is None


def test_a_mask_accepted_without_a_look_is_flagged_and_one_looked_at_is_not(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page = review_of(window)
    order = listed(page)
    page.looked.switch.click()
    qtbot.waitUntil(lambda: page.looked.eyes.following, timeout=20000)
    assert "Simulated clinician, exact to 0.5°" in page.looked.about.text()
    press(window, Qt.Key.Key_A)
    assert "Accepted without a look at the mask (0." in window.banner.text.text()
    assert "Z takes it back" in window.banner.text.text()
    [first] = study.reviews(order[0], "target")
    assert first.gaze_on_mask_ms is not None and first.gaze_on_mask_ms < LOOKED_MS
    window.banner.hide()
    assert window.session.image_id == order[1]
    page.go(1)
    page.go(1)
    third = window.session.image_id
    assert third is not None
    qtbot.waitUntil(lambda: (page.looked.on_mask_ms() or 0) > LOOKED_MS + 100, timeout=20000)
    press(window, Qt.Key.Key_A)
    assert not window.banner.isVisible()
    [looked] = study.reviews(third, "target")
    assert looked.gaze_on_mask_ms is not None and looked.gaze_on_mask_ms > LOOKED_MS
    press(window, Qt.Key.Key_R)
    assert not window.banner.isVisible(), "only accepting needs a look"
    window.show_page("study")
    assert not page.looked.eyes.following, "on another page the tracker is let go of"
    window.show_page("review")
    qtbot.waitUntil(lambda: page.looked.eyes.following, timeout=20000)
    page.looked.switch.click()
    assert not page.looked.eyes.following
    press(window, Qt.Key.Key_A)
    assert (
        study.reviewed()[
            max(study.reviewed(), key=lambda key: study.reviewed()[key].reviewed_at)
        ].gaze_on_mask_ms
        is None
    )


def test_a_look_counts_on_while_the_study_is_read_again_and_anew_after_a_verdict(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page = review_of(window)
    last = listed(page)[-1]
    page.looked.switch.click()
    qtbot.waitUntil(lambda: page.looked.eyes.following, timeout=20000)
    window.session.set_image(last)
    qtbot.waitUntil(lambda: (page.looked.on_mask_ms() or 0) > LOOKED_MS, timeout=20000)
    before = page.looked.on_mask_ms()
    # As when another computer has added something.
    window.session.refresh("reviews")
    now = page.looked.on_mask_ms()
    assert before is not None and now is not None and now >= before
    press(window, Qt.Key.Key_R)
    assert window.session.image_id == last and (page.looked.on_mask_ms() or 0) < LOOKED_MS
    page.looked.switch.click()


def test_who_draws_is_not_told_that_the_mask_before_was_not_looked_at(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page = review_of(window)
    page.looked.switch.click()
    qtbot.waitUntil(lambda: page.looked.eyes.following, timeout=20000)
    press(window, Qt.Key.Key_E)
    press(window, Qt.Key.Key_Return)
    assert len(study.reviewed()) == 1 and "without a look" not in window.banner.text.text()
    draw_audit(study, 3, 1)
    page.reading.choice.setCurrentIndex(page.reading.choice.findData("audit"))
    drawn = window.session.image_id
    assert drawn is not None and page.looked.on_mask_ms() is None
    press(window, Qt.Key.Key_E)
    press(window, Qt.Key.Key_Return)
    assert study.reviews(drawn, "target")[-1].gaze_on_mask_ms is None, (
        "where the hidden mask lies is not told"
    )
    assert "without a look" not in window.banner.text.text()
    page.looked.switch.click()


@pytest.fixture
def lsl_gaze() -> Iterator[tuple[Found, list[tuple[float, float]]]]:
    """Send gaze as an LSL stream, always at the place that the list names, normalised to the screen."""
    pytest.importorskip("pylsl")
    from tests.lsl_double import LslSender

    place, closing = [(0.5, 0.5)], threading.Event()
    with LslSender(100.0, running=False) as sender:

        def send() -> None:
            while not closing.wait(0.01):
                x, y = place[0]
                sender.push([[x, y, x, y, 3.0, 3.0]], [sender.lsl.local_clock()])

        thread = threading.Thread(target=send)
        thread.start()
        yield Found("lsl", "Bench tracker", sender.source_id), place
        closing.set()
        thread.join()


def test_an_lsl_tracker_counts_once_it_was_validated(
    window: MainWindow, study: Study, qtbot: QtBot, lsl_gaze: tuple[Found, list[tuple[float, float]]]
) -> None:
    found, place = lsl_gaze
    page, record = review_of(window), record_page(window)
    record.panel.tracker.addItem(found.label, found)
    record.panel.tracker.setCurrentIndex(record.panel.tracker.count() - 1)
    page.looked.switch.click()
    assert not page.looked.on and "has not agreed to eye tracking" in window.banner.text.text()
    give_consent(study, "Dr. Test")
    page.looked.switch.click()
    qtbot.waitUntil(lambda: page.looked.eyes.following, timeout=30000)
    assert "Bench tracker was not validated" in page.looked.about.text()
    shown = window.session.image_id
    assert shown is not None and page.looked.on_mask_ms() is None
    press(window, Qt.Key.Key_A)
    assert study.reviews(shown, "target")[-1].gaze_on_mask_ms is None
    assert "without a look" not in window.banner.text.text()
    page.looked.switch.click()
    # As calibrating on the page Record leaves it.
    record.trackers.note()
    record.flow.validated = (validation_event(validation_of(0.4), 9, time.monotonic_ns()),)
    page.looked.switch.click()
    qtbot.waitUntil(lambda: page.looked.eyes.following, timeout=30000)
    assert page.looked.about.text() == "Bench tracker, exact to 0.4°"

    def look_at(x: float, y: float) -> None:
        screen = np.linalg.inv(page.canvas.image_from_screen()) @ [x, y, 1.0]
        place[0] = (screen[0] / screen[2] / 1920, screen[1] / screen[2] / 1080)

    look_at(2.0, 2.0)
    page.go(1)
    qtbot.wait(500)
    assert page.looked.on_mask_ms() == 0
    mask = study.prediction(RUN, window.session.image_id or "", "target")
    assert mask is not None
    y, x = (float(axis.mean()) for axis in np.nonzero(mask >= 0.5))
    look_at(x, y)
    qtbot.waitUntil(lambda: (page.looked.on_mask_ms() or 0) > LOOKED_MS, timeout=20000)
    page.looked.switch.click()


def test_a_tracker_that_cannot_be_followed_is_told_of_and_switched_off(
    window: MainWindow, qtbot: QtBot
) -> None:
    page, record = review_of(window), record_page(window)
    record.panel.tracker.setCurrentIndex(record.panel.tracker.findData("replay"))
    page.looked.switch.click()
    assert not page.looked.on and "choose a tracker" in window.banner.text.text()
    assert QApplication.activeModalWidget() is None
