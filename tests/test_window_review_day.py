"""A whole review of twenty images by real mouse and key events, and what lies on disk after it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from app.session_plan import SessionPlan
from segmentation.look_again import asked_again
from segmentation.session_options import SessionOptions
from segmentation.study import Study
from tests.queue_support import RUN, listed, make_queue_study, review_of, settled
from tests.window_support import open_window

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)


def test_twenty_images_are_reviewed(qtbot: QtBot, tmp_path: Path, study: Study) -> None:
    make_queue_study(study, tmp_path / "raw", 20)
    window = open_window(qtbot, tmp_path, study, order="")
    window.show_page("review")
    page = review_of(window)
    settled(qtbot, page)
    order = listed(page)
    assert len(order) == 20 and window.session.image_id == order[0]

    def press(key: Qt.Key) -> None:
        QTest.keyClick(page.canvas, key)

    def click(widget: QWidget) -> None:
        QTest.mouseClick(widget, Qt.MouseButton.LeftButton)

    def click_row(image_id: str) -> None:
        index = page.list.view.model().index(listed(page).index(image_id), 0)
        page.list.view.scrollTo(index)
        place: QPoint = page.list.view.visualRect(index).center()
        QTest.mouseClick(page.list.view.viewport(), Qt.MouseButton.LeftButton, pos=place)

    # The worst are rejected, one of them by the mouse, and one is to be looked at again.
    press(Qt.Key.Key_R)
    click(page.verdict_bar.reject_button)
    press(Qt.Key.Key_G)
    assert window.session.image_id == order[3]
    # One verdict was wrong, and is taken back.
    press(Qt.Key.Key_R)
    press(Qt.Key.Key_Z)
    assert window.session.image_id == order[3]
    press(Qt.Key.Key_Q)
    click(page.verdict_bar.ungradable_button)
    press(Qt.Key.Key_0)
    assert window.session.image_id == order[6]
    # Only what waits is listed from here on, and accepted; each goes from the list as it is done.
    page.list.states.setFocus()
    QTest.keyClicks(page.list.search, "state:waiting")
    assert len(listed(page)) == 15 and order[2] in listed(page)
    page.canvas.setFocus()
    click_row(order[6])
    for _ in range(8):
        press(Qt.Key.Key_A)
    assert window.session.image_id == order[14] and len(listed(page)) == 7
    click(page.verdict_bar.accept_button)
    press(Qt.Key.Key_Space)
    press(Qt.Key.Key_Backspace)
    assert window.session.image_id == order[15]
    page.list.search.clear()
    assert listed(page) == order, "the order did not change under the hands"
    press(Qt.Key.Key_N)
    assert window.session.image_id == order[16]
    click_row(order[15])
    for _ in range(5):
        press(Qt.Key.Key_A)
    assert "last image of the list" in window.banner.text.text()
    assert page.verdict_bar.progress.text() == "19 of 20 reviewed"

    # What lies on disk.
    again = Study.open(study.folder)
    found = {image: review for (image, _), review in again.reviewed().items()}
    assert set(found) == set(order) - {order[2]}
    assert [found[name].verdict for name in (order[0], order[1])] == ["rejected", "rejected"]
    assert [found[name].presence for name in order[3:6]] == ["unsure", "ungradable", "absent"]
    assert {found[name].verdict for name in order[6:]} == {"accepted"}
    assert {review.subject for review in found.values()} == {RUN}
    assert {review.annotator for review in found.values()} == {"Dr. Test"}
    assert all(0 <= review.seconds_spent < 600 for review in found.values())
    assert all(review.gaze_on_mask_ms is None for review in found.values()), "no tracker ran"
    for name in order[6:]:
        mask, probability = again.reviewed_mask(name, "target"), again.prediction(RUN, name, "target")
        assert mask is not None and probability is not None and (mask == (probability >= 0.5)).all()
    nothing = again.reviewed_mask(order[5], "target")
    assert nothing is not None and not nothing.any()
    files = list((study.folder / "reviews").rglob("*.json"))
    assert len(files) == 20 and len(list((study.folder / "reviews").rglob("*.withdrawn"))) == 1
    assert all(json.loads(path.read_text())["purpose"] == "review" for path in files)
    assert set(asked_again(again)) == {(order[2], "target")}
    plan = SessionPlan(again, "Dr. Test", SessionOptions(order="random"), ["target"])
    assert plan.image_id == order[2] and len(plan.entries) == 1
