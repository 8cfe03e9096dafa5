"""The description in the Review page's inspector: told, pointed at, edited, approved, undone, compared."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QImage
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLabel
from pytestqt.qtbot import QtBot

from app.description_editors import NumberEditor, TextEditor, WordEditor
from app.description_rows import AttributeRow
from app.main_window import MainWindow
from app.review_page import ReviewPage
from app.widgets import IconButton
from segmentation.claims import checks_of, contradictions
from segmentation.explaining import explain_study
from segmentation.explanation import Cost, Explanation, load_explanation, load_history, save_explanation
from segmentation.revising import approve
from segmentation.study import Study
from tests.window_support import fill, open_window

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)

HOSTILE = "<b>bold</b> <img src='http://evil.example/x.png'> " + "W" * 300 + " </qt> & run rm"


@pytest.fixture
def window(qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path) -> MainWindow:
    fill(study, image_folder)
    explain_study(study)
    made = open_window(qtbot, tmp_path, study)
    made.show_page("review")
    with qtbot.waitActive(made):
        made.activateWindow()
    return made


def page_of(window: MainWindow) -> ReviewPage:
    page = window.page("review")
    assert isinstance(page, ReviewPage)
    return page


def row_of(window: MainWindow, name: str) -> AttributeRow:
    return page_of(window).description.rows[name]


def stored(study: Study, number: int = 0) -> Explanation:
    found = load_explanation(study, list(study.images)[number], "target")
    assert found is not None
    return found


def told_by_model(explanation: Explanation, **attributes: object) -> Explanation:
    return dataclasses.replace(
        explanation,
        backend="openai",
        model="tiny-vlm",
        attributes={**explanation.attributes, **attributes},
        cost=Cost(6.4, 1, 1000, 200),
        created="2026-01-02T03:04:05Z",
    )


def show_again(window: MainWindow) -> None:
    window.session.refresh("data")


def shown_texts(window: MainWindow) -> list[str]:
    return [one.text() for one in page_of(window).description.findChildren(QLabel) if one.isVisible()]


def press(
    window: MainWindow, key: Qt.Key, modifier: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier
) -> None:
    """Press a key where the focus is."""
    focus = QApplication.focusWidget()
    assert focus is not None
    QTest.keyClick(focus, key, modifier)


def test_a_word_is_changed_reverted_and_undone_by_keys(window: MainWindow, study: Study) -> None:
    page, first = page_of(window), stored(study)
    words = row_of(window, "shape").said.attribute.words
    row_of(window, "shape").setFocus()
    press(window, Qt.Key.Key_Return)
    editor = row_of(window, "shape").editor
    assert isinstance(editor, WordEditor) and QApplication.focusWidget() is editor
    assert editor.value == first.attributes["shape"]
    step = Qt.Key.Key_Up if editor.currentIndex() else Qt.Key.Key_Down
    press(window, step)
    wanted = editor.value
    assert wanted != first.attributes["shape"] and wanted in words
    press(window, Qt.Key.Key_Escape)
    assert row_of(window, "shape").editor is None and stored(study) == first, "Escape leaves it"
    press(window, Qt.Key.Key_Return)
    press(window, step)
    press(window, Qt.Key.Key_Return)
    now = stored(study)
    assert now.attributes["shape"] == wanted and now.original == first.attributes
    assert now.edited == ("shape",) and now.revised_by == "Dr. Test"
    row = row_of(window, "shape")
    assert row.hasFocus() and row.value.text() == wanted
    assert f"was: {first.attributes['shape']} (Measured)" in row.mark.toolTip()
    assert page.description.origin.accessibleName() == "Edited"
    press(window, Qt.Key.Key_Delete)
    assert stored(study).attributes == first.attributes and not stored(study).edited
    press(window, Qt.Key.Key_Z)
    assert stored(study).attributes["shape"] == wanted, "undoing the revert"
    press(window, Qt.Key.Key_Z)
    assert stored(study) == first and page.description.origin.accessibleName() == "Measured"
    assert not page.verdict_bar.undo_button.isEnabled()
    assert len(load_history(study, first.image_id, "target")) == 5, "nothing is erased"


def test_a_number_takes_numbers_and_words(window: MainWindow, study: Study) -> None:
    row_of(window, "area_percent").setFocus()
    press(window, Qt.Key.Key_Return)
    editor = row_of(window, "area_percent").editor
    assert isinstance(editor, NumberEditor)
    editor.selectAll()
    QTest.keyClicks(editor, "41.5")
    press(window, Qt.Key.Key_Return)
    assert stored(study).attributes["area_percent"] == 41.5
    assert row_of(window, "area_percent").value.text() == "41.5 %"
    press(window, Qt.Key.Key_Return)
    editor = row_of(window, "area_percent").editor
    assert isinstance(editor, NumberEditor)
    editor.selectAll()
    QTest.keyClicks(editor, "cannot assess")
    press(window, Qt.Key.Key_Return)
    assert stored(study).attributes["area_percent"] == "cannot assess"


def test_typing_goes_on_while_the_study_is_read_again_and_is_kept_when_the_image_changes(
    window: MainWindow, study: Study
) -> None:
    row_of(window, "shape").setFocus()
    page_of(window).description.rows["remarks"].edit()
    editor = row_of(window, "remarks").editor
    assert isinstance(editor, TextEditor)
    QTest.keyClicks(editor, "flat lesion")
    show_again(window)
    assert row_of(window, "remarks").editor is editor and editor.toPlainText() == "flat lesion"
    window.session.set_image(list(study.images)[1])
    assert stored(study).attributes["remarks"] == "flat lesion"
    assert stored(study, 1).attributes["remarks"] == ""


def test_one_and_then_everything_is_approved(window: MainWindow, study: Study) -> None:
    page = page_of(window)
    row_of(window, "location").setFocus()
    press(window, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    assert stored(study).approved == ("location",)
    assert "approved by Dr. Test" in row_of(window, "location").mark.toolTip()
    page.canvas.setFocus()
    press(window, Qt.Key.Key_D)
    assert set(stored(study).approved) == set(stored(study).attributes)
    assert page.description.origin.accessibleName() == "Approved"
    assert page.description.approved_by.isVisible() and not page.description.approve_button.isVisible()
    press(window, Qt.Key.Key_A)
    press(window, Qt.Key.Key_Z)
    press(window, Qt.Key.Key_Z)
    assert stored(study).approved == ("location",), "verdicts and changes are undone in their order"


Pixels = npt.NDArray[np.uint8]


def pixels(window: MainWindow) -> Pixels:
    image = page_of(window).canvas.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    flat = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return flat[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()


def changed_cell(window: MainWindow, before: Pixels) -> npt.NDArray[np.bool_]:
    changed: npt.NDArray[np.bool_] = (pixels(window) != before).any(axis=2)
    return changed


def test_what_a_row_is_about_lights_up_and_goes(window: MainWindow, qtbot: QtBot, study: Study) -> None:
    page = page_of(window)
    canvas = page.canvas
    calm = pixels(window)
    row = row_of(window, "location")
    QTest.mouseMove(row, QPoint(30, 10))
    QApplication.processEvents()
    touched = changed_cell(window, calm)
    assert touched.any(), "the field of the grid"
    rows, columns = np.nonzero(touched)
    height, width, _ = study.images[next(iter(study.images))].shape
    ends = [canvas.widget_from_image(-0.5, -0.5), canvas.widget_from_image(width - 0.5, height - 0.5)]
    share_x = (columns.max() - columns.min()) / (ends[1].x() - ends[0].x())
    share_y = (rows.max() - rows.min()) / (ends[1].y() - ends[0].y())
    assert share_x == pytest.approx(1 / 3, abs=0.05) and share_y == pytest.approx(1 / 3, abs=0.05)
    QTest.mouseMove(canvas, QPoint(20, 20))
    QApplication.processEvents()
    assert (pixels(window) == calm).all(), "gone with the pointer"
    seen = {}
    for name in ("shape", "boundary", "intensity"):
        row_of(window, name).setFocus()
        seen[name] = changed_cell(window, calm)
        assert seen[name].any()
    assert (seen["shape"] != seen["boundary"]).any() and (seen["intensity"] & ~seen["shape"]).any()
    canvas.setFocus()
    assert (pixels(window) == calm).all(), "gone with the focus"
    weights = np.zeros((height, width), np.uint8)
    weights[: height // 4] = 255
    page.description.show_weights({"shape": weights})
    row_of(window, "shape").setFocus()
    assert changed_cell(window, calm)[int(ends[0].y()) + 4, int(ends[0].x()) + 4], "where the word looks"


def test_rows_are_walked_by_keys_and_escape_leads_back(window: MainWindow) -> None:
    page = page_of(window)
    row_of(window, "location").setFocus()
    press(window, Qt.Key.Key_Down)
    assert row_of(window, "count").hasFocus()
    press(window, Qt.Key.Key_Up)
    press(window, Qt.Key.Key_Up)
    assert row_of(window, "location").hasFocus()
    press(window, Qt.Key.Key_Escape)
    assert page.canvas.hasFocus()


def test_hostile_words_stay_words_and_fit(
    window: MainWindow, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(window)
    hostile = dataclasses.replace(
        told_by_model(stored(study), remarks=HOSTILE[:500], boundary="cannot assess"), model=HOSTILE
    )
    monkeypatch.setattr("app.description_panel.contradicted", lambda _: {"shape": HOSTILE})
    save_explanation(study, hostile)
    show_again(window)
    QApplication.processEvents()
    texts = [text.replace("\u200b", "") for text in shown_texts(window)]
    assert HOSTILE[:500] in texts and HOSTILE in texts, "the remarks, and the contradiction"
    for one in page.description.findChildren(QLabel):
        assert one.textFormat() == Qt.TextFormat.PlainText or not one.text()
    row = row_of(window, "shape")
    for widget in (page.description.model, row.mark, row.warning):
        assert widget is not None and "<img" not in widget.toolTip() and "&lt;img" in widget.toolTip()
    assert page.description.width() <= 324
    shown = [row for row in page.description.rows.values() if row.isVisible()]
    assert len(shown) >= 8
    for row in shown:
        assert row.width() <= page.description.width()
    assert page.description.minimumSizeHint().width() <= 292
    assert not row_of(window, "boundary").isVisible(), "what was not assessed is folded away"


def test_an_earlier_region_and_what_somebody_else_stored_are_told(window: MainWindow, study: Study) -> None:
    page, first = page_of(window), stored(study)
    assert not page.description.stale.isVisible()
    save_explanation(study, dataclasses.replace(first, region_sha256="0" * 64))
    show_again(window)
    assert page.description.stale.isVisible()
    elsewhere = approve(Study.open(study.folder), stored(study), "Dr. Other", ["shape"])
    row_of(window, "texture").setFocus()
    press(window, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    assert "changed meanwhile by Dr. Other" in window.banner.text.text()
    assert stored(study) == elsewhere == page.description.explanation
    assert "approved by Dr. Other" in row_of(window, "shape").mark.toolTip()


def test_answers_are_compared_and_another_one_is_used(window: MainWindow, qtbot: QtBot, study: Study) -> None:
    page, first = page_of(window), stored(study)
    other = told_by_model(first, area_percent=88.0)
    save_explanation(study, other)
    show_again(window)

    QTest.mouseClick(page.description.compare_button, Qt.MouseButton.LeftButton)
    dialog = page.description._comparison
    assert dialog is not None and dialog.isVisible()
    assert dialog.answers == [first, other]
    assert "differ in 1 attributes" in dialog.sentence.text()
    texts = [one.text() for one in dialog.findChildren(QLabel)]
    [wrong] = contradictions(checks_of(other))
    assert (
        "88 %" in texts and wrong.attribute == "area_percent" and wrong.sentence.partition(": ")[2] in texts
    )
    assert [button.text() for button in dialog.use_buttons] == ["Use this one", "In use"]
    QTest.mouseClick(dialog.use_buttons[0], Qt.MouseButton.LeftButton)
    assert stored(study) == first == page.description.explanation
    assert [button.text() for button in dialog.use_buttons] == ["In use", "Use this one"]
    dialog.accept()
    page.undo()
    assert stored(study) == other


def test_describing_again_measures_and_keeps_what_people_edited(
    window: MainWindow, qtbot: QtBot, study: Study
) -> None:
    page, first = page_of(window), stored(study)
    edited = approve(study, first, "Dr. Test", ["shape"])
    show_again(window)
    page.description.compare()
    dialog = page.description._comparison
    assert dialog is not None and len(dialog.answers) == 2
    QTest.mouseClick(dialog.again_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(load_history(study, first.image_id, "target")) == 3 and not window.tasks)
    assert stored(study) == edited, "until somebody chooses"
    dialog.accept()
    study.explanation_path(first.image_id, "target").unlink()
    show_again(window)
    qtbot.waitUntil(lambda: "None yet." in shown_texts(window))
    page.description._describe_again()
    qtbot.waitUntil(lambda: page.description.origin.isVisible())
    assert stored(study).attributes == first.attributes


def test_twenty_five_attributes_with_long_names_fit(window: MainWindow, study: Study) -> None:
    page, first = page_of(window), stored(study)
    names = [f"asymmetry_of_the_pigmentation_network_{number}" for number in range(14)]
    folder = study.folder / "presets"
    folder.mkdir()
    added = {
        name: {"description": "d", "words": ["atypicalinhomogeneouspolymorphousvascular", "b"]}
        for name in names
    }
    preset = {"format": 1, "title": "Wide", "attributes": added}
    (folder / "wide.json").write_text(json.dumps(preset), "utf-8")
    (folder / "wide.md").write_text("$vocabulary $target $modality $gaze $outline", "utf-8")
    said = {name: "atypicalinhomogeneouspolymorphousvascular" for name in names}
    save_explanation(study, told_by_model(dataclasses.replace(first, preset="wide"), **said))
    show_again(window)
    QApplication.processEvents()
    assert len(page.description.rows) == 25
    assert list(page.description.rows)[-2:] == ["confidence", "remarks"], "in the preset's order"
    right = page.description.mapTo(window, QPoint(page.description.width(), 0)).x()
    for row in page.description.rows.values():
        if row.isVisible():
            assert row.mapTo(window, QPoint(row.width(), 0)).x() <= right
            assert row.mark.mapTo(window, QPoint(row.mark.width(), 0)).x() <= right
    row_of(window, names[0]).setFocus()
    for _ in range(13):
        press(window, Qt.Key.Key_Down)
    assert row_of(window, names[13]).hasFocus()
    assert not row_of(window, names[13]).visibleRegion().isEmpty(), "scrolled into view"
    row_of(window, names[13]).edit()
    assert row_of(window, names[13]).width() <= page.description.width()
    press(window, Qt.Key.Key_Escape)
    (folder / "wide.json").write_text("{", "utf-8")
    save_explanation(study, told_by_model(dataclasses.replace(first, preset="wide"), **said, count="two"))
    show_again(window)
    assert row_of(window, names[0]).value.text(), "a damaged preset hides nothing"
    row_of(window, names[0]).setFocus()
    press(window, Qt.Key.Key_Return)
    assert row_of(window, names[0]).editor is None


def test_the_mouse_opens_the_words_chooses_and_approves(
    window: MainWindow, qtbot: QtBot, study: Study
) -> None:
    row = row_of(window, "texture")
    before = row.said.value
    QTest.mouseDClick(row, Qt.MouseButton.LeftButton, pos=QPoint(120, 10))
    editor = row.editor
    assert isinstance(editor, WordEditor)
    qtbot.waitUntil(editor.view().isVisible)
    number = next(n for n in range(editor.count()) if editor.itemText(n) != before)
    wanted = editor.itemText(number)
    place = editor.view().visualRect(editor.model().index(number, 0)).center()
    qtbot.wait(
        QApplication.doubleClickInterval() + 50
    )  # A popup takes no click that may belong to a double click.
    QTest.mouseMove(editor.view().viewport(), place)
    QTest.mouseClick(editor.view().viewport(), Qt.MouseButton.LeftButton, pos=place)
    qtbot.waitUntil(lambda: stored(study).attributes["texture"] == wanted)
    row = row_of(window, "count")
    assert row.buttons is None
    QTest.mouseMove(row, QPoint(20, 10))
    QApplication.processEvents()
    assert row.buttons is not None and row.buttons.isVisible()
    approve_button = next(one for one in row.buttons.findChildren(IconButton) if "Approve" in one.toolTip())
    QTest.mouseClick(approve_button, Qt.MouseButton.LeftButton)
    assert set(stored(study).approved) == {"texture", "count"}
