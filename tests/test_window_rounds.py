"""The chart of rounds and *Train again with reviews*, by mouse and keys."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.again_button import AgainButton
from app.main_window import MainWindow
from app.review_page import ReviewPage
from app.rounds_card import RoundsCard
from app.train_page import TrainPage
from gaze_capture.errors import UserError
from segmentation.retraining import is_again
from segmentation.runs import RunFolder
from segmentation.study import Study
from tests.rounds_support import say, trained
from tests.test_window_runs import click
from tests.training_helpers import tiny
from tests.window_support import fill, open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)
SPEC = tiny("partial", iterations=2)


@pytest.fixture
def filled(study: Study, image_folder: Path) -> Study:
    """Six images with gaze, the last two in the split test."""
    fill(study, image_folder)
    study.add_images([dataclasses.replace(one, split="test") for one in list(study.images.values())[4:]])
    return Study.open(study.folder)


def train_page(window: MainWindow) -> TrainPage:
    page = window.page("train")
    assert isinstance(page, TrainPage)
    return page


def review_page(window: MainWindow) -> ReviewPage:
    page = window.page("review")
    assert isinstance(page, ReviewPage)
    return page


def click_on(card: RoundsCard, number: int) -> None:
    """Click the point of a round, where a person sees it."""
    one = card.charted()[number]
    assert one.spent is not None
    box = card.view.getPlotItem().vb
    place = box.mapViewToScene(QPointF(one.spent.minutes, one.dice.mean))
    at = card.view.mapFromScene(place)
    QTest.mouseClick(card.view.viewport(), Qt.MouseButton.LeftButton, pos=at)


def test_rounds_are_charted_clicked_and_walked_by_keys(qtbot: QtBot, tmp_path: Path, filled: Study) -> None:
    ids = list(filled.images)
    first = trained(filled, SPEC)
    say(filled, ids[0], seconds_spent=90.0)
    second = trained(filled, tiny("partial", iterations=2, warm_start=first.id))
    window = open_window(qtbot, tmp_path, filled)
    window.show_page("train")
    page, card = train_page(window), train_page(window).rounds
    qtbot.waitUntil(lambda: len(card.charted()) == 2, timeout=30_000)
    assert card.isVisible() and "2 images of the split 'test', true masks" in card.caption.text()
    assert "simulated from masks" in card.caption.text(), "said where the numbers are"
    assert "no test any more" in card.notes.text(), "the only unseen split is test"
    assert "not measured" in card.notes.text() and "Dashed" not in card.notes.text()
    qtbot.waitUntil(lambda: page.watcher is not None, timeout=30_000)
    qtbot.wait(50)
    click_on(card, 0)
    assert page.watcher is not None and page.watcher.run.id == first.id
    assert "Round 1" in card.details.text() and "reviewing 0.0; learned from 0 reviews" in card.details.text()
    assert window.focusWidget() == card.view
    QTest.keyClick(card.view, Qt.Key.Key_Right)
    assert "Round 2" in card.details.text() and "reviewing 1.5; learned from 1 review" in card.details.text()
    assert page.watcher.run.id == first.id, "looking at a point follows nothing yet"
    QTest.keyClick(card.view, Qt.Key.Key_Right)
    assert "Round 2" in card.details.text(), "there is no third"
    QTest.keyClick(card.view, Qt.Key.Key_Return)
    assert page.watcher.run.id == second.id
    QTest.keyClick(card.view, Qt.Key.Key_Left)
    assert "Round 1" in card.details.text()
    corner = card.view.viewport().rect().topLeft() + QPoint(60, 8)
    QTest.mouseClick(card.view.viewport(), Qt.MouseButton.LeftButton, pos=corner)
    assert page.watcher.run.id == second.id, "a click beside every point means none"


def test_the_chart_grows_with_the_window(qtbot: QtBot, tmp_path: Path, filled: Study) -> None:
    trained(filled, SPEC)
    window = open_window(qtbot, tmp_path, filled)
    window.show_page("train")
    card = train_page(window).rounds
    qtbot.waitUntil(lambda: len(card.charted()) == 1, timeout=30_000)
    heights = []
    for size in ((1280, 800), (1920, 1080), (3840, 2160)):
        window.resize(*size)
        QApplication.processEvents()
        heights.append(card.view.height())
    assert heights[0] < 240 < 280 < heights[1] < heights[2] <= 480


def test_an_audit_brings_the_measured_outlining_beside_it(
    qtbot: QtBot, tmp_path: Path, filled: Study
) -> None:
    ids = list(filled.images)
    trained(filled, SPEC)
    say(filled, ids[0], purpose="audit", seconds_spent=50.0)
    window = open_window(qtbot, tmp_path, filled)
    window.show_page("train")
    card = train_page(window).rounds
    qtbot.waitUntil(lambda: len(card.charted()) == 1, timeout=30_000)
    assert "by hand, 50 s a mask as 1 audit took" in card.notes.text()
    QTest.keyClick(card.against, Qt.Key.Key_End)
    assert card.against.currentData() == "audit"
    qtbot.waitUntil(lambda: "blind audit" in card.caption.text(), timeout=30_000)
    assert "no test any more" not in card.notes.text()
    card.show_run(card.charted()[0].run)
    assert "1 of them it had learned from by gaze" in card.details.text()


def test_what_cannot_be_charted_is_said(qtbot: QtBot, tmp_path: Path, filled: Study) -> None:
    window = open_window(qtbot, tmp_path, filled)
    window.show_page("train")
    card = train_page(window).rounds
    qtbot.wait(100)
    assert card.isHidden(), "no run, no chart"
    trained(filled, SPEC)
    for path in (filled.folder / "masks").iterdir():
        path.unlink()
    window.session.refresh("runs")
    qtbot.waitUntil(card.isVisible, timeout=30_000)
    assert "nothing to measure rounds against" in card.caption.text() and card.view.isHidden()


def test_the_button_counts_what_is_new_to_the_run_shown(qtbot: QtBot, tmp_path: Path, filled: Study) -> None:
    run = trained(filled, SPEC)
    window = open_window(qtbot, tmp_path, filled)
    window.show_page("review")
    page = review_page(window)
    assert page.runs.currentData() == run.id
    qtbot.wait(100)
    assert page.training.isHidden(), "nothing is new"
    QTest.keyClick(page.canvas, Qt.Key.Key_A)
    qtbot.waitUntil(page.training.isVisible, timeout=30_000)
    assert page.training.text() == "Train again with 1 review" and page.training.isEnabled()
    QTest.keyClick(page.canvas, Qt.Key.Key_0)
    qtbot.waitUntil(lambda: page.training.text() == "Train again with 2 reviews", timeout=30_000)
    QTest.keyClick(page.canvas, Qt.Key.Key_R)
    QTest.keyClick(page.canvas, Qt.Key.Key_Z)
    QTest.keyClick(page.canvas, Qt.Key.Key_Z)
    qtbot.waitUntil(lambda: page.training.text() == "Train again with 1 review", timeout=30_000)
    for _ in range(2):
        # How many were reviewed is no news for who reads blind.
        QTest.keyClick(page.reading.choice, Qt.Key.Key_Down)
        assert page.reading.blind and page.training.isHidden()
        window.session.refresh("reviews")
        qtbot.waitUntil(lambda: not page.training.pending, timeout=30_000)
        assert page.training.isHidden(), "nor once it was counted anew"
    QTest.keyClick(page.reading.choice, Qt.Key.Key_Home)
    qtbot.waitUntil(page.training.isVisible, timeout=30_000)
    page.runs.setCurrentIndex(page.runs.findData(None))
    qtbot.waitUntil(page.training.isHidden, timeout=30_000)


def test_nothing_waits_for_a_count_that_nobody_wants_any_more(
    qtbot: QtBot, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over, counted = threading.Event(), threading.Event(), threading.Event()

    def slow(study: Study, run_id: str) -> None:
        begun.set()
        over.wait(5)
        counted.set()

    monkeypatch.setattr("app.again_button.standing", slow)
    button = AgainButton()
    qtbot.addWidget(button)
    button.ask(study, "run-x")
    assert begun.wait(20)
    button.ask(study, None)
    assert not counted.is_set() and button.isHidden()
    over.set()
    button.stop()


def test_where_training_again_fails_it_can_be_tried_again(
    qtbot: QtBot, tmp_path: Path, filled: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(filled, SPEC)
    window = open_window(qtbot, tmp_path, filled)
    window.show_page("review")
    page = review_page(window)
    QTest.keyClick(page.canvas, Qt.Key.Key_A)
    qtbot.waitUntil(page.training.isVisible, timeout=30_000)

    def full(*_: object) -> None:
        raise UserError("The disk is full: make room and try again.")

    monkeypatch.setattr("app.train_page.create_run", full)
    QTest.mouseClick(page.training, Qt.MouseButton.LeftButton)
    assert "The disk is full" in window.banner.text.text()
    qtbot.waitUntil(page.training.isEnabled, timeout=30_000)


def test_one_click_trains_again_and_the_next_image_shows_the_new_masks(
    qtbot: QtBot, tmp_path: Path, filled: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Workers step back for others, which on a busy machine would keep the test waiting.
    for module in ("app.train_page", "segmentation.steps"):
        monkeypatch.setattr(f"{module}.folders_job", lambda spec: {"nice": 0})
    ids = list(filled.images)
    run = trained(filled, SPEC)
    window = open_window(qtbot, tmp_path, filled)
    window.show_page("review")
    page = review_page(window)
    QTest.keyClick(page.canvas, Qt.Key.Key_A)
    qtbot.waitUntil(page.training.isVisible, timeout=30_000)
    QTest.mouseClick(page.training, Qt.MouseButton.LeftButton)
    assert not page.training.isEnabled(), "one click is one run"
    new = next(name for name in filled.run_ids() if name != run.id)
    again = RunFolder(filled.runs_folder / new)
    assert again.spec.warm_start == run.id and is_again(again.spec)
    assert window.current_page() == "review", "reviewing goes on meanwhile"
    # Whichever run is looked at meanwhile, the masks come.
    window.show_page("train")
    table = train_page(window).table
    click(table, run.id)
    watcher = train_page(window).watcher
    assert watcher is not None and watcher.run.id == run.id
    window.show_page("review")
    qtbot.waitUntil(lambda: again.state() in ("done", "failed"), timeout=400_000)
    assert again.state() == "done", again.log_tail()
    qtbot.waitUntil(lambda: len(filled.prediction_keys(new)) == 5, timeout=400_000)
    qtbot.waitUntil(lambda: not window.tasks, timeout=60_000)
    assert (ids[0], "target") not in filled.prediction_keys(new), "what was reviewed is not predicted"
    assert json.loads((again.path / "reviews.json").read_text())["count"] == 1
    assert page.runs.currentData() == run.id, "the image in view keeps its mask"
    QTest.keyClick(page.canvas, Qt.Key.Key_Space)
    assert page.runs.currentData() == new
    qtbot.waitUntil(page.training.isHidden, timeout=30_000)
