"""What a newcomer stumbles over: where the window would be without a word, and whose the keys are."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLabel, QWidget
from pytestqt.qtbot import QtBot

from app.export_dialog import ExportDialog
from app.main_window import PAGES, MainWindow
from app.new_study_dialog import NewStudyDialog
from app.record_page import RecordPage
from app.review_page import ReviewPage
from segmentation.blind_reading import draw_audit
from segmentation.study import Study
from tests.test_window_review import page_of, predict, press
from tests.window_support import fill, open_window

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)


@pytest.fixture
def window(qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path) -> MainWindow:
    fill(study, image_folder)
    predict(study)
    made = open_window(qtbot, tmp_path, study)
    made.show_page("review")
    return made


def told(window: MainWindow) -> str:
    return window.banner.text.text() if window.banner.isVisible() else ""


def test_the_first_sentence_of_all_is_whole(qtbot: QtBot, tmp_path: Path) -> None:
    window = open_window(qtbot, tmp_path)
    sentence = next(one for one in window.findChildren(QLabel) if one.text().startswith("A study is"))
    assert sentence.isVisible() and sentence.width() > 300
    assert sentence.heightForWidth(sentence.width()) <= sentence.height()


def test_a_study_without_images_is_not_asked_for_another_study(
    qtbot: QtBot, tmp_path: Path, study: Study
) -> None:
    window = open_window(qtbot, tmp_path, study)
    for name in ("review", "record"):
        window.show_page(name)
        words = [one.text() for one in window.page(name).findChildren(QLabel) if one.isVisible()]
        assert "This study has no images yet." in words
    window = open_window(qtbot, tmp_path / "other")
    window.show_page("review")
    words = [one.text() for one in window.page("review").findChildren(QLabel) if one.isVisible()]
    assert "Masks are reviewed here. Open a study with images first." in words


def test_it_is_said_which_mask_a_verdict_is_on(window: MainWindow, study: Study) -> None:
    page = page_of(window)
    second = list(study.images)[1]
    assert not page.inspector.judged.label.isVisible(), "the run chosen has a mask"
    study.prediction_path("run-x", second, "target").unlink()
    window.session.refresh("data")
    press(window, Qt.Key.Key_N)
    assert window.session.image_id == second and page.inspector.judged.label.isVisible()
    assert page.inspector.judged.label.text() == (
        "This run has no mask here: judged is the gaze's widest level. Predict masks, on Train, makes one."
    )
    press(window, Qt.Key.Key_A)
    assert study.reviews(second, "target")[-1].subject == "pseudomask"
    press(window, Qt.Key.Key_Backspace)
    assert (
        page.inspector.judged.label.text() == "This run has no mask here: judged is the gaze's widest level."
    )
    page.runs.setCurrentIndex(page.runs.findData(None))
    assert not page.inspector.judged.label.isVisible() and "widest level" in page.runs.toolTip()


def test_an_audit_says_why_nothing_is_accepted(window: MainWindow, study: Study) -> None:
    page = page_of(window)
    draw_audit(study, 3, 5)
    page.reading.choice.setCurrentIndex(page.reading.choice.findData("audit"))
    press(window, Qt.Key.Key_R)
    assert "E outlines, 0 says that nothing is here" in told(window)
    press(window, Qt.Key.Key_E)
    tool = page.editing.layer.tool
    assert tool is not None
    press(window, Qt.Key.Key_T)
    assert "nothing of the student" in told(window)
    assert page.editing.layer.tool is tool and page.editing.column.tools[tool.name].isChecked()
    press(window, Qt.Key.Key_Escape)
    QTest.keyClick(page.canvas, Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    assert told(window) == "Reading blind, there is nothing to compare with."


def test_without_a_mask_accepting_says_what_can_be_done(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder, gaze=False)
    window = open_window(qtbot, tmp_path, study)
    window.show_page("review")
    press(window, Qt.Key.Key_A)
    assert "E draws one, 0 says that nothing is here" in told(window)


def test_after_the_last_image_it_is_said_how_many_wait(window: MainWindow, study: Study) -> None:
    ids = list(study.images)
    window.session.set_image(ids[-1])
    press(window, Qt.Key.Key_N)
    assert told(window) == "That was the last image of the list. 6 still wait for a verdict."
    press(window, Qt.Key.Key_A)
    assert told(window) == "That was the last image of the list. 5 still wait for a verdict."
    for image_id in ids[:5]:
        window.session.set_image(image_id)
        press(window, Qt.Key.Key_A)
    window.session.set_image(ids[-1])
    press(window, Qt.Key.Key_A)
    assert told(window) == "That was the last image of the list."


def test_a_list_without_a_fitting_image_says_so_and_is_widened_at_a_click(window: MainWindow) -> None:
    listed = page_of(window).list
    assert not listed.none.isVisible()
    listed.search.setText("no such name")
    listed.states.setCurrentIndex(listed.states.findData("Rejected"))
    assert listed.none.isVisible() and listed.count.text() == "0 of 6"
    QTest.mouseClick(listed.show_all, Qt.MouseButton.LeftButton)
    assert not listed.none.isVisible() and len(listed.visible_ids()) == 6
    assert listed.search.text() == "" and listed.states.currentData() is None


def test_the_count_of_reviews_is_not_cut_off(window: MainWindow) -> None:
    page = page_of(window)
    page.verdict_bar.progress.setText("1287 of 9999 reviewed")
    QTest.qWait(1)
    assert page.verdict_bar.progress.width() >= page.verdict_bar.progress.sizeHint().width()


def test_a_pixels_card_stays_in_view_when_the_canvas_gets_narrower(window: MainWindow) -> None:
    page = page_of(window)
    handle, canvas = window.windowHandle(), page.canvas
    QTest.mouseMove(handle, canvas.mapTo(window, canvas.rect().center()))
    card = page.frame.probes[0]
    assert card.isVisible() and canvas.rect().contains(card.geometry())
    wide = canvas.width()
    press(window, Qt.Key.Key_E)
    QTest.qWait(1)
    assert canvas.width() < wide and card.isVisible() and canvas.rect().contains(card.geometry())


def test_the_keys_are_the_images_again_after_a_search(window: MainWindow, study: Study) -> None:
    page, handle = page_of(window), window.windowHandle()
    ids = list(study.images)

    def type_in_search(text: str) -> None:
        search = page.list.search
        QTest.mouseClick(handle, Qt.MouseButton.LeftButton, pos=search.mapTo(window, search.rect().center()))
        assert window.focusWidget() is search
        QTest.keyClicks(search, text)

    type_in_search("case_3")
    QTest.keyClick(window.focusWidget(), Qt.Key.Key_Return)
    assert window.focusWidget() is page.canvas and window.session.image_id == ids[3], "Enter goes there"
    QTest.keyClick(window.focusWidget(), Qt.Key.Key_A)
    assert study.reviews(ids[3], "target")[-1].verdict == "accepted" and page.list.search.text() == "case_3"
    type_in_search("x")
    QTest.keyClick(window.focusWidget(), Qt.Key.Key_Escape)
    assert window.focusWidget() is page.canvas and len(page.list.visible_ids()) == 6
    # Enter stays where the image is among those found.
    type_in_search("case")
    QTest.keyClick(window.focusWidget(), Qt.Key.Key_Return)
    assert window.session.image_id == ids[3]


@pytest.mark.parametrize("name", ["states", "runs", "purpose"])
def test_a_choice_by_mouse_leaves_the_keys_to_the_image(window: MainWindow, study: Study, name: str) -> None:
    page, handle = page_of(window), window.windowHandle()
    box = {"states": page.list.states, "runs": page.runs, "purpose": page.reading.choice}[name]
    first = next(iter(study.images))
    was = box.currentIndex()
    QTest.mouseClick(handle, Qt.MouseButton.LeftButton, pos=box.mapTo(window, box.rect().center()))
    QTest.keyClick(box.view(), Qt.Key.Key_Return)
    assert box.currentIndex() == was and window.focusWidget() is page.canvas
    QTest.keyClick(window.focusWidget(), Qt.Key.Key_A)
    assert box.currentIndex() == was and study.reviews(first, "target")[-1].verdict == "accepted"


def test_editing_has_room_in_the_smallest_window(window: MainWindow) -> None:
    page = page_of(window)
    window.resize(window.minimumSize())
    for key in (Qt.Key.Key_E, Qt.Key.Key_B, Qt.Key.Key_T, Qt.Key.Key_K):
        press(window, key)
        QTest.qWait(1)
        row = page.editing.row
        assert page.frame.rect().contains(page.frame.bar.geometry()), "nothing of the bar below is cut off"
        for widget in (row.started, row.store_button):
            assert widget.isVisible() and widget.width() >= widget.minimumSizeHint().width()
            assert row.rect().contains(widget.geometry())
    assert "From: Student" in row.started.toolTip()
    window.resize(1280, 800)
    QTest.qWait(1)
    assert row.store_button.text() == "Store" and "From: Student" in row.started.text()


def test_one_annotator_is_not_compared_with_themselves(window: MainWindow) -> None:
    page = page_of(window)
    press(window, Qt.Key.Key_A)
    QTest.keyClick(page.canvas, Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    assert told(window) == "There is no other run and no second annotator to compare with."
    assert page.comparing.manner == "held" and page.comparing.other is None


class _Strays(QObject):
    """Notes what is shown as a window of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Show and isinstance(watched, QWidget) and watched.isWindow():
            self.seen.append(f"{type(watched).__name__} {watched.accessibleName()}")
        return False


def test_no_page_opens_a_window_of_its_own_while_it_is_made(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder)
    window = open_window(qtbot, tmp_path, study)
    qtbot.waitUntil(window.isActiveWindow)
    strays, application = _Strays(), QApplication.instance()
    assert application is not None
    application.installEventFilter(strays)
    try:
        for name in PAGES:
            window.show_page(name)
            QTest.qWait(20)
        assert strays.seen == [] and window.isActiveWindow(), "the keys stay with the window"
        for dialog in (ExportDialog(window, study), NewStudyDialog(window)):
            dialog.show()
            dialog.close()
    finally:
        application.removeEventFilter(strays)
    assert [name.split()[0] for name in strays.seen] == ["ExportDialog", "NewStudyDialog"]


def test_ctrl_f_searches_on_the_page_in_view(window: MainWindow) -> None:
    for name in ("record", "review"):
        window.show_page(name)
        page = window.page(name)
        assert isinstance(page, RecordPage | ReviewPage)
        page.setFocus()
        QTest.keyClick(window.focusWidget(), Qt.Key.Key_F, Qt.KeyboardModifier.ControlModifier)
        assert window.focusWidget() is page.list.search
