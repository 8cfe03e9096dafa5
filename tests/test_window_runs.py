"""The list of runs, driven by mouse and keys."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QFileDialog, QLineEdit, QMenu
from pytestqt.qtbot import QtBot

from app.main_window import MainWindow
from app.run_compare import CompareDialog
from app.run_panel import DeleteDialog
from app.run_plot import MEAN_POINTS, RUN_STYLES
from app.run_table import RunTable
from app.train_page import TrainPage
from segmentation.importing import import_images
from segmentation.job import RunSpec
from segmentation.records import StudyImage, utc_now
from segmentation.run_care import delete_runs, rename_run
from segmentation.run_list import summary_of
from segmentation.runs import RunFolder, create_run
from segmentation.study import Review, Study
from tests.run_helpers import at_work, finished, measure, tell
from tests.test_run_care import learned
from tests.window_support import open_window

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)

LEFT, RIGHT = Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton
CONTROL = Qt.KeyboardModifier.ControlModifier


def page_of(window: MainWindow) -> TrainPage:
    window.show_page("train")
    page = window.page("train")
    assert isinstance(page, TrainPage)
    return page


def place(table: RunTable, run_id: str) -> QPoint:
    model = table.model()
    row = next(n for n in range(model.rowCount()) if table._runs.rows[n].id == run_id)
    return table.visualRect(model.index(row, 0)).center()


def click(table: RunTable, run_id: str, *, also: bool = False) -> None:
    modifiers = CONTROL if also else Qt.KeyboardModifier.NoModifier
    QTest.mouseClick(table.viewport(), LEFT, modifiers, place(table, run_id))


def dialogs(kind: type[Any]) -> list[Any]:
    return [one for one in QApplication.topLevelWidgets() if type(one) is kind and one.isVisible()]


@pytest.fixture
def runs(study: Study) -> Study:
    """Three finished runs, the newest first: c, b, a."""
    for number, name in enumerate("abc"):
        finished(study, name, seed=number, begun=1_700_000_000.0 + number)
    return study


def test_a_run_is_followed_by_click_and_by_key(qtbot: QtBot, tmp_path: Path, runs: Study) -> None:
    page = page_of(open_window(qtbot, tmp_path, runs))
    assert [row.id for row in page.runs.rows] == ["c", "b", "a"]
    assert page.watcher is not None and page.watcher.run.id == "c" == page.runs.shown
    click(page.table, "a")
    assert page.watcher.run.id == "a" == page.runs.shown
    QTest.keyClick(page.table, Qt.Key.Key_Up)
    QTest.keyClick(page.table, Qt.Key.Key_Up)
    qtbot.waitUntil(lambda: page.runs.shown == "c")
    # Choosing several to compare leaves the run in view alone.
    click(page.table, "a", also=True)
    qtbot.wait(250)
    assert page.table.chosen() == ["c", "a"] and page.runs.shown == "c"
    # Letters the list has no use for change the page.
    QTest.keyClick(page.table, Qt.Key.Key_S)
    assert page.window().current_page() == "study"  # type: ignore[attr-defined]


def test_dice_is_of_one_split_and_says_when_gaze_was_simulated(
    qtbot: QtBot, tmp_path: Path, runs: Study
) -> None:
    measure(RunFolder(runs.runs_folder / "a"), {"x": 0.5, "y": 0.7}, gaze="simulated from masks")
    measure(RunFolder(runs.runs_folder / "b"), {"x": 0.8})
    measure(RunFolder(runs.runs_folder / "c"), {"x": 0.9}, split="train")
    page = page_of(open_window(qtbot, tmp_path, runs))
    assert [row.dice for row in page.runs.rows] == ["–", "0.800", "0.600*"]
    header = page.runs.headerData(1, Qt.Orientation.Horizontal)
    tip = page.runs.headerData(1, Qt.Orientation.Horizontal, Qt.ItemDataRole.ToolTipRole)
    assert header == "Dice, test" and "against true masks" in tip
    assert page.run_panel.footnote.isVisible() and "simulated" in page.run_panel.footnote.text()
    assert "simulated from masks" in page.runs.rows[2].dice_tip and "0.900" in page.runs.rows[0].dice_tip
    delete_runs(runs, ["a"])
    page.session.refresh("runs")
    assert not page.run_panel.footnote.isVisible()


def test_f2_names_a_run_where_it_stands(qtbot: QtBot, tmp_path: Path, runs: Study) -> None:
    page = page_of(open_window(qtbot, tmp_path, runs))
    click(page.table, "b")
    QTest.keyClick(page.table, Qt.Key.Key_F2)
    [editor] = page.table.findChildren(QLineEdit)
    assert editor.placeholderText() == "b" and editor.hasFocus()
    QTest.keyClicks(editor, "Sigma 1.5")
    # What happens to other runs meanwhile takes nothing of what is typed.
    measure(RunFolder(runs.runs_folder / "a"), {"x": 0.5})
    page.session.refresh("runs")
    assert editor.text() == "Sigma 1.5"
    QTest.keyClick(editor, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: summary_of(runs, "b").name == "Sigma 1.5")
    assert page.runs.rows[1].title == "Sigma 1.5" and page.run_name.text().startswith("Sigma 1.5 · ")
    QTest.mouseClick(page.run_panel.buttons["rename"], LEFT)
    [editor] = [one for one in page.table.findChildren(QLineEdit) if one.isVisible()]
    assert editor.text() == "Sigma 1.5"
    QTest.keyClicks(editor, "no")
    QTest.keyClick(editor, Qt.Key.Key_Escape)
    assert summary_of(runs, "b").name == "Sigma 1.5"


def test_review_tells_runs_by_their_names(
    qtbot: QtBot, tmp_path: Path, runs: Study, image_folder: Path
) -> None:
    import_images(runs, [image_folder / "images"])
    for name in ("a", "b"):
        image = next(iter(runs.images))
        runs.save_prediction(name, image, "target", "student", np.zeros((48, 64), np.float32))
    rename_run(runs, "b", "Sigma 1.5")
    window = open_window(qtbot, tmp_path, runs)
    window.show_page("review")
    shown: Any = window.page("review")
    assert [shown.runs.itemText(n) for n in range(2)] == ["Student, run Sigma 1.5", "Student, run a"]


def test_delete_says_what_goes_and_what_stays(qtbot: QtBot, tmp_path: Path, runs: Study) -> None:
    for _ in range(2):
        runs.add_review(Review("x", "target", "Dr. Test", "b", "accepted", "present", 2.0, utc_now()))
    window = open_window(qtbot, tmp_path, runs)
    page = page_of(window)
    click(page.table, "b")
    click(page.table, "c", also=True)
    QTest.keyClick(page.table, Qt.Key.Key_Delete)
    [dialog] = dialogs(DeleteDialog)
    qtbot.waitUntil(dialog.delete_button.isEnabled)
    assert "2 runs" in dialog.windowTitle() and "2 reviews" in dialog.reviewed.text.text()
    assert "kB become free" in dialog.what.text()
    # Enter does not delete.
    QTest.keyClick(dialog, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: not dialogs(DeleteDialog))
    assert runs.run_ids() == ["a", "b", "c"]
    QTest.keyClick(page.table, Qt.Key.Key_Delete)
    [dialog] = dialogs(DeleteDialog)
    qtbot.waitUntil(dialog.delete_button.isEnabled)
    QTest.mouseClick(dialog.delete_button, LEFT)
    qtbot.waitUntil(lambda: runs.run_ids() == ["a"])
    qtbot.waitUntil(lambda: [row.id for row in page.runs.rows] == ["a"])
    assert page.watcher is not None and page.watcher.run.id == "a" == page.runs.shown
    assert "free again" in window.banner.text.text()
    assert len(Study.open(runs.folder).reviews("x", "target")) == 2


def test_a_run_at_work_elsewhere_is_shown_and_kept(qtbot: QtBot, tmp_path: Path, runs: Study) -> None:
    run = create_run(runs, RunSpec(), "far")
    tell(run, ("started", 0, {"device": "NVIDIA H100"}), ("step", 3, {"losses": {"total": 1.0}}))
    at_work(run, 1, host="gpu-7", age=-600)
    window = open_window(qtbot, tmp_path, runs)
    page = page_of(window)
    row = page.runs.rows[0]
    assert (row.id, row.word) == ("far", "Running") and "gpu-7" in row.detail and "NVIDIA H100" in row.tip
    click(page.table, "far")
    for act in ("delete", "export"):
        assert not page.run_panel.buttons[act].isEnabled()
        assert "being worked on" in page.run_panel.buttons[act].toolTip()
    QTest.keyClick(page.table, Qt.Key.Key_Delete)
    assert not dialogs(DeleteDialog) and "being worked on" in window.banner.text.text()
    assert page.run_panel.buttons["rename"].isEnabled()


def test_a_run_that_cannot_be_read_is_listed_and_can_go(qtbot: QtBot, tmp_path: Path, runs: Study) -> None:
    broken = create_run(runs, RunSpec(), "zbroken")
    (broken.path / "spec.json").write_text("{")
    window = open_window(qtbot, tmp_path, runs)
    page = page_of(window)
    assert page.runs.rows[0].id == "zbroken" and "cannot be read" in page.runs.rows[0].detail
    assert page.runs.shown == "c" and not window.banner.isVisible()
    click(page.table, "zbroken")
    assert "spec.json is damaged" in window.banner.text.text() and page.runs.shown == "c"
    QTest.mouseClick(page.run_panel.buttons["delete"], LEFT)
    [dialog] = dialogs(DeleteDialog)
    qtbot.waitUntil(dialog.delete_button.isEnabled)
    QTest.mouseClick(dialog.delete_button, LEFT)
    qtbot.waitUntil(lambda: len(page.runs.rows) == 3)
    assert not broken.path.exists()


def test_export_writes_one_archive(
    qtbot: QtBot, tmp_path: Path, runs: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned(runs, "trained")
    rename_run(runs, "trained", "Best: 1/2")
    window = open_window(qtbot, tmp_path, runs)
    page = page_of(window)
    proposed: list[str] = []
    answers = iter(("v1.5", "v1.5", "v1.5.zip"))

    def choose(_parent: object, _title: str, path: str, _filter: str) -> tuple[str, str]:
        proposed.append(path)
        return str(tmp_path / next(answers)), ""

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    click(page.table, "trained")
    QTest.keyClick(page.table, Qt.Key.Key_E, CONTROL)
    qtbot.waitUntil(lambda: "Saved as" in window.banner.text.text())
    assert Path(proposed[0]).name == "Best- 1-2.zip"
    with zipfile.ZipFile(tmp_path / "v1.5.zip") as archive:
        assert json.loads(archive.read("trained/spec.json"))["method"] == "gaze-to-insight"
    # A name that was completed was not asked about: the file stays.
    QTest.keyClick(page.table, Qt.Key.Key_E, CONTROL)
    qtbot.waitUntil(lambda: "there already" in window.banner.text.text())
    click(page.table, "a")
    QTest.keyClick(page.table, Qt.Key.Key_E, CONTROL)
    qtbot.waitUntil(lambda: "no whole checkpoint" in window.banner.text.text())
    assert zipfile.is_zipfile(tmp_path / "v1.5.zip")


def test_the_menu_names_its_keys_and_acts(qtbot: QtBot, tmp_path: Path, runs: Study) -> None:
    page = page_of(open_window(qtbot, tmp_path, runs))
    click(page.table, "b")
    menu = page.run_panel.make_menu()
    texts = {action.text(): action for action in menu.actions() if not action.isSeparator()}
    assert list(texts) == [
        "Compare the runs chosen\tC",
        "Rename\tF2",
        "Export as one archive…\tCtrl+E",
        "Delete\tDel",
    ]
    assert [action.isEnabled() for action in texts.values()] == [False, True, True, True]
    menu.popup(QPoint(10, 10))
    QTest.mouseClick(menu, LEFT, pos=menu.actionGeometry(texts["Rename\tF2"]).center())
    assert [one.isVisible() for one in page.table.findChildren(QLineEdit)] == [True]
    # The right button asks for it, on the run it is pressed on.
    QTest.keyClick(page.table.findChildren(QLineEdit)[0], Qt.Key.Key_Escape)
    opened: list[QMenu] = []
    page.run_panel.make_menu = lambda: opened.append(QMenu(page)) or opened[-1]  # type: ignore[method-assign,func-returns-value]
    page.table.customContextMenuRequested.emit(place(page.table, "b"))
    assert len(opened) == 1
    opened[0].close()


def test_runs_are_compared(qtbot: QtBot, tmp_path: Path, runs: Study) -> None:
    rng = np.random.default_rng(0)
    names = [f"i{number}" for number in range(30)]
    runs.add_images(
        StudyImage(
            name, f"images/{name}.png", name, name * 8, (20, 20, 3), split="test", group=f"g{number // 3}"
        )
        for number, name in enumerate(names)
    )
    base = dict(zip(names, rng.uniform(0.4, 0.8, 30), strict=True))
    measure(RunFolder(runs.runs_folder / "a"), base, gaze="simulated from masks")
    better = {name: value + rng.normal(0.05, 0.01) for name, value in base.items()}
    measure(RunFolder(runs.runs_folder / "b"), better, gaze="simulated from masks")
    tell(
        RunFolder(runs.runs_folder / "b"),
        *(("step", step, {"losses": {"total": rng.normal(1, 0.1)}}) for step in range(101, 9000)),
        ("done", 9000, {"seconds": 5.0}),
    )
    window = open_window(qtbot, tmp_path, runs)
    page = page_of(window)
    click(page.table, "b")
    QTest.keyClick(page.table, Qt.Key.Key_C)
    assert not dialogs(CompareDialog) and "choose two to 8 runs" in window.banner.text.text()
    click(page.table, "a", also=True)
    click(page.table, "c", also=True)
    QTest.keyClick(page.table, Qt.Key.Key_C)
    [dialog] = dialogs(CompareDialog)
    qtbot.waitUntil(lambda: dialog.comparison is not None, timeout=20_000)
    # The oldest first; of 9000 points a mean course is drawn.
    assert [run.id for run in dialog.comparison.runs] == ["a", "b", "c"]
    assert dialog.losses.choice.currentText() == "all losses together"
    assert dialog.losses.points() == [100, MEAN_POINTS, 100]
    assert dialog.scores.points() == [1, 1, 1]
    cells = {row.key: [cell.text for cell in row.cells] for row in dialog.measures._rows.rows}
    assert (
        cells["test", "masks", "dice", "mean"][0] == "Dice, test"
        and cells["test", "masks", "dice", "mean"][3] == "–"
    )
    difference = cells["test", "masks", "dice", "difference"]
    assert difference[1] == "–" and difference[2].startswith("+0.05") and "[+0.04" in difference[2]
    assert "simulated from masks" in dialog.notes.text() and "95 %" in dialog.notes.text()
    dialog.baseline.setCurrentIndex(1)
    qtbot.waitUntil(lambda: dialog.comparison.baseline == "b", timeout=20_000)
    cells = {row.key: [cell.text for cell in row.cells] for row in dialog.measures._rows.rows}
    assert cells["test", "masks", "dice", "difference"][1].startswith("-0.05")
    QTest.mouseClick(dialog._choice.button(1), LEFT)
    assert dialog.settings.isVisible()
    assert [row.key for row in dialog.settings._rows.rows] == ["seed"]
    assert "95 %" not in dialog.notes.text()
    QTest.keyClick(dialog, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not dialogs(CompareDialog))


def test_nothing_to_compare_by_is_said(qtbot: QtBot, tmp_path: Path, study: Study) -> None:
    create_run(study, RunSpec(), "one")
    create_run(study, RunSpec(), "two")
    page = page_of(open_window(qtbot, tmp_path, study))
    click(page.table, "one")
    click(page.table, "two", also=True)
    QTest.mouseClick(page.run_panel.buttons["compare"], LEFT)
    [dialog] = dialogs(CompareDialog)
    qtbot.waitUntil(lambda: dialog.comparison is not None, timeout=20_000)
    assert "None of them was measured" in dialog.nothing.text() and dialog.nothing.isVisible()
    QTest.mouseClick(dialog._choice.button(1), LEFT)
    assert "settings are the same" in dialog.nothing.text()
    assert not dialog.losses.choice.isVisible()
    dialog.close()


def test_without_runs_the_list_says_what_will_be_there(qtbot: QtBot, tmp_path: Path, study: Study) -> None:
    page = page_of(open_window(qtbot, tmp_path, study))
    assert page.run_panel.empty.isVisible() and not page.table.isVisible()
    assert not any(button.isEnabled() for button in page.run_panel.buttons.values())
    run = finished(study, "first")
    page.session.refresh("runs")
    assert page.table.isVisible() and not page.run_panel.empty.isVisible()
    # Taken away in another window.
    delete_runs(study, [run.id])
    page.session.refresh("runs")
    assert page.run_panel.empty.isVisible() and page.watcher is None


def test_no_two_runs_share_colour_or_line() -> None:
    assert len({style.dark for style in RUN_STYLES}) == len({style.light for style in RUN_STYLES}) == 8
    assert len({(style.line, style.width) for style in RUN_STYLES}) == 8
