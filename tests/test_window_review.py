from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from app.image_list import ROW_HEIGHT
from app.main_window import MainWindow
from app.review_page import ReviewPage
from segmentation.study import Study
from tests.window_support import fill, open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)


def predict(study: Study, run_id: str = "run-x") -> None:
    """Store predictions that are the true masks, as a run would."""
    for image_id in study.images:
        mask = study.true_mask(image_id, "target")
        assert mask is not None
        study.save_prediction(run_id, image_id, "target", "student", mask.astype(np.float32))
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


def press(window: MainWindow, key: Qt.Key) -> None:
    """Press a key where the focus is, as a person does."""
    QTest.keyClick(page_of(window).canvas, key)


def test_an_image_whose_reviewed_mask_is_damaged_is_shown_and_judged_anew(
    window: MainWindow, study: Study
) -> None:
    page, (first, second) = page_of(window), list(study.images)[:2]
    press(window, Qt.Key.Key_A)
    (name,) = study.named_reviews(first, "target")
    path = study.folder / "reviews" / f"{first}.target" / f"{name}.png"
    sound = path.read_bytes()
    path.write_bytes(sound[:40])
    window.session.set_image(first)
    scene = page.canvas.scene
    assert scene is not None and scene.image_id == first
    assert {"student", "heatmap"} <= scene.available and "reviewed" not in scene.available
    assert path.name in window.banner.text.text() and "a new verdict" in window.banner.text.text()
    assert window.banner.isVisible()
    window.banner.hide()
    window.session.set_image(second)
    window.session.set_image(first)
    assert not window.banner.isVisible(), "it is told once"
    path.write_bytes(sound)
    window.session.set_image(second)
    window.session.set_image(first)
    assert page.canvas.scene is not None and "reviewed" in page.canvas.scene.available, "it was restored"
    path.write_bytes(b"")
    press(window, Qt.Key.Key_E)
    assert page.editing.active
    press(window, Qt.Key.Key_Return)
    assert len(study.reviews(first, "target")) == 2
    window.session.set_image(first)
    assert page.canvas.scene is not None and "reviewed" in page.canvas.scene.available


def test_five_images_are_reviewed_by_keys_alone(window: MainWindow, study: Study) -> None:
    page = page_of(window)
    ids = list(study.images)
    assert window.focusWidget() is page.canvas
    assert page.runs.currentData() == "run-x"
    for key in (Qt.Key.Key_A, Qt.Key.Key_R, Qt.Key.Key_0, Qt.Key.Key_U, Qt.Key.Key_A):
        press(window, key)
    assert window.session.image_id == ids[5]
    given = [study.reviews(image_id, "target")[-1] for image_id in ids[:5]]
    assert [review.verdict for review in given] == ["accepted", "rejected", "edited", "rejected", "accepted"]
    assert [review.presence for review in given] == ["present", None, "absent", "ungradable", "present"]
    assert {review.subject for review in given} == {"run-x"} and given[0].annotator == "Dr. Test"
    accepted, nothing = study.reviewed_mask(ids[0], "target"), study.reviewed_mask(ids[2], "target")
    truth = study.true_mask(ids[0], "target")
    assert accepted is not None and truth is not None and (accepted == truth).all()
    assert nothing is not None and not nothing.any()
    assert study.reviewed_mask(ids[1], "target") is None
    assert page.verdict_bar.progress.text() == "5 of 6 reviewed"
    assert [page.list.model.index(row).data() for row in range(6)] == [f"case_{n}.png" for n in range(6)]


def test_moving_layers_and_undoing(window: MainWindow, study: Study) -> None:
    page = page_of(window)
    ids = list(study.images)
    press(window, Qt.Key.Key_Space)
    press(window, Qt.Key.Key_N)
    press(window, Qt.Key.Key_Backspace)
    assert window.session.image_id == ids[1]
    switch = page.inspector.layers.switches["student"]
    assert switch.isChecked()
    press(window, Qt.Key.Key_5)
    assert not switch.isChecked() and not page.canvas.layer_visible("student")
    QTest.mouseClick(switch, Qt.MouseButton.LeftButton, pos=QPoint(8, switch.height() // 2))
    assert page.canvas.layer_visible("student")
    page.inspector.layers.sliders["heatmap"].setValue(10)
    assert page.canvas.layer_opacity("heatmap") == pytest.approx(0.1)
    assert not page.inspector.layers.switches["reviewed"].isEnabled()
    press(window, Qt.Key.Key_A)
    assert window.session.image_id == ids[2]
    press(window, Qt.Key.Key_Z)
    assert window.session.image_id == ids[1], "undoing returns to the image"
    assert study.reviews(ids[1], "target") == []
    assert list((study.folder / "reviews").rglob("*.json")), "nothing is erased"
    press(window, Qt.Key.Key_Z)
    assert study.reviews(ids[1], "target") == []
    press(window, Qt.Key.Key_R)
    press(window, Qt.Key.Key_Backspace)
    assert page.inspector.pill.accessibleName() == "Rejected"


def test_zero_on_an_image_without_any_mask_is_a_label(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder, gaze=False)
    window = open_window(qtbot, tmp_path, study)
    window.show_page("review")
    first = next(iter(study.images))
    press(window, Qt.Key.Key_A)
    assert study.reviewed() == {}, "there is nothing to accept"
    press(window, Qt.Key.Key_0)
    assert study.presence(first, "target") == "absent"


def test_queue_is_searched_and_filtered(window: MainWindow, study: Study, qtbot: QtBot) -> None:
    page = page_of(window)
    press(window, Qt.Key.Key_R)
    page.list.states.setCurrentText("Rejected")
    assert page.list.visible_ids() == [next(iter(study.images))]
    page.list.states.setCurrentIndex(0)
    QTest.keyClicks(page.list.search, "case_3")
    assert len(page.list.visible_ids()) == 1 and page.list.count.text() == "1 of 6"
    first = page.list.view.visualRect(page.list.view.model().index(0, 0)).center()
    QTest.mouseClick(page.list.view.viewport(), Qt.MouseButton.LeftButton, pos=first)
    assert window.session.image_id == page.list.visible_ids()[0]
    assert page.inspector.title.text() == "case_3.png"


def test_what_is_known_is_told(window: MainWindow, study: Study) -> None:
    from segmentation import steps

    page = page_of(window)
    steps.explain(study)
    window.session.refresh("data")
    assert page.description.origin.accessibleName() == "Measured"
    assert len(page.description.rows) >= 8
    told = page.inspector.provenance.text.text()
    assert "12 fixations" in told and "simulated from masks" in told and "run-x" in told


def test_an_image_that_cannot_be_read_is_named_and_the_rest_goes_on(window: MainWindow, study: Study) -> None:
    second = study.images[list(study.images)[1]]
    page = page_of(window)
    page.stop()
    study.image_path(second).write_bytes(b"")
    window.session.refresh("data")
    press(window, Qt.Key.Key_Space)
    assert second.path.split("/")[-1] in window.banner.text.text() and "empty" in window.banner.text.text()
    press(window, Qt.Key.Key_Space)
    assert page.canvas.scene is not None


def test_thumbnails_are_made_only_for_rows_in_view(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    import dataclasses

    fill(study, image_folder, gaze=False)
    template = next(iter(study.images.values()))
    study.add_images(
        dataclasses.replace(
            template, id=f"copy_{number:04}", source_name=f"a very long name of a copy {number}.png"
        )
        for number in range(1000)
    )
    window = open_window(qtbot, tmp_path, study)
    window.show_page("review")
    page = page_of(window)
    made: list[str] = []
    page.list.thumbnails.made.connect(lambda path, _: made.append(path))
    assert page.list.model.rowCount() == 1006
    qtbot.waitUntil(lambda: bool(made))
    qtbot.wait(100)
    assert len(set(made)) <= page.list.view.height() // ROW_HEIGHT + 2
    press(window, Qt.Key.Key_Backspace)
    assert window.session.image_id == template.id
    page.list.select("copy_0999")
    assert page.list.neighbour("copy_0999", 1) is None


@pytest.mark.qt_log_ignore("This plugin does not support", extend=True)
def test_a_list_chosen_from_by_mouse_leaves_the_keys_to_the_image(window: MainWindow, study: Study) -> None:
    page, first = page_of(window), next(iter(study.images))
    for choice in (page.runs, page.list.states):
        QTest.mouseClick(choice, Qt.MouseButton.LeftButton)
        choice.hidePopup()
        assert window.focusWidget() is page.canvas
    press(window, Qt.Key.Key_A)
    assert len(study.reviews(first, "target")) == 1 and page.list.states.currentIndex() == 0
