"""Export in the window: a dialog by mouse and keys, a task that can be cancelled, and what came of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QComboBox
from pytestqt.qtbot import QtBot

from app.export_choice import ExportChoice, problem_with, proposed
from app.export_dialog import FILL, ExportDialog
from app.jobs import Task
from app.main_window import MainWindow
from segmentation.study import Study
from tests.mask_export_support import review
from tests.run_helpers import finished
from tests.test_window_import import only, page_of
from tests.window_support import fill, open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def filled(study: Study, image_folder: Path) -> Study:
    fill(study, image_folder)
    mask = np.zeros((48, 64), bool)
    mask[4:20, 9:30] = True
    review(study, "case_0", "target", mask)
    return study


def choose(picker: QComboBox, data: str) -> None:
    """Choose an entry by keys, as a person does who has opened no list."""
    picker.setFocus()
    for _ in range(picker.count()):
        QTest.keyClick(picker, Qt.Key.Key_Up)
    while picker.currentData() != data:
        before = picker.currentIndex()
        QTest.keyClick(picker, Qt.Key.Key_Down)
        assert picker.currentIndex() > before, f"there is no {data}"


def opened(qtbot: QtBot, window: MainWindow) -> ExportDialog:
    page = page_of(window)
    qtbot.waitUntil(page.export_button.isEnabled)
    QTest.mouseClick(page.export_button, LEFT)
    dialog = only(page, ExportDialog)
    qtbot.waitUntil(lambda: not dialog._tasks)
    return dialog


def test_reviewed_masks_go_out_by_two_clicks(qtbot: QtBot, tmp_path: Path, filled: Study) -> None:
    window = open_window(qtbot, tmp_path, filled)
    dialog = opened(qtbot, window)
    place = Path(dialog.place.text())
    assert place == filled.folder.parent / "study-masks-png"
    page = page_of(window)
    with qtbot.waitSignal(page.notice, timeout=20000) as told:
        QTest.mouseClick(dialog.export_button, LEFT)
    assert told.args[0].startswith(f"Exported to {place}; masks: 1.")
    assert (place / "target" / "case_0.png").exists()
    assert json.loads((place / "manifest.json").read_text())["masks"][0]["annotator"] == "A"


def test_what_is_shown_follows_what_is_chosen(qtbot: QtBot, tmp_path: Path, filled: Study) -> None:
    run = finished(filled, "learned").id
    window = open_window(qtbot, tmp_path, filled)
    dialog = opened(qtbot, window)

    def shown() -> set[str]:
        return {name for name, row in dialog.rows.items() if row.isVisible()}

    assert shown() == {"what", "format", "which", "place"}
    choose(dialog.which, FILL)
    assert shown() == {"what", "format", "which", "run", "probability", "place"}
    assert dialog.run.currentData() == run
    choose(dialog.which, "audit")
    assert shown() == {"what", "format", "which", "place"} and dialog._choice(tmp_path).which == "audit"
    choose(dialog.which, FILL)
    choose(dialog.format, "dicom-seg")
    assert shown() == {"what", "format", "which", "run", "source", "place"}
    assert "folder of the DICOM files" in dialog.problem.text() and not dialog.export_button.isEnabled()
    dialog.take_source(tmp_path)
    assert dialog.export_button.isEnabled() and dialog.place.text().endswith("study-masks-dicom-seg")
    choose(dialog.what, "gaze")
    assert shown() == {"what", "format", "place"} and dialog.place.text().endswith("study-gaze-parquet")
    choose(dialog.what, "model")
    assert shown() == {"what", "run", "onnx", "place"}
    choose(dialog.what, "report")
    assert shown() == {"what", "run", "place"} and dialog.place.text().endswith("study-report.html")
    dialog.place.selectAll()
    QTest.keyClicks(dialog.place, str(tmp_path / "page"))
    assert "ends with .html" in dialog.problem.text() and not dialog.export_button.isEnabled()
    QTest.keyClicks(dialog.place, ".html")
    page = page_of(window)
    with qtbot.waitSignal(page.notice, timeout=60000):
        QTest.keyClick(dialog, Qt.Key.Key_Return)
    assert "<h2>Reviews</h2>" in (tmp_path / "page.html").read_text()


def test_a_cancelled_export_leaves_nothing(
    qtbot: QtBot, tmp_path: Path, filled: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = open_window(qtbot, tmp_path, filled)
    page = page_of(window)
    tasks: list[Task] = []
    page.task_wanted.connect(tasks.append)
    from segmentation.mask_writers import book

    read = book.MaskBook.read

    def slow(self: book.MaskBook, chosen: object) -> object:
        tasks[0].cancel()
        return read(self, chosen)  # type: ignore[arg-type]

    monkeypatch.setattr(book.MaskBook, "read", slow)
    choice = ExportChoice("masks", tmp_path / "out", which="truth")
    page.exports.export(choice)
    with qtbot.waitSignal(tasks[0].ended, timeout=20000):
        pass
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_an_export_that_fails_says_why(qtbot: QtBot, tmp_path: Path, filled: Study) -> None:
    window = open_window(qtbot, tmp_path, filled)
    page = page_of(window)
    tasks: list[Task] = []
    page.task_wanted.connect(tasks.append)
    page.exports.export(ExportChoice("masks", tmp_path / "out", which="student"))
    with qtbot.waitSignal(tasks[0].failed, timeout=20000) as failed:
        pass
    assert "no finished run" in failed.args[0]
    assert not (tmp_path / "out").exists()


def test_places_that_will_not_do(tmp_path: Path, study: Study) -> None:
    masks, report = ExportChoice("masks", Path()), ExportChoice("report", Path())
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    assert problem_with(masks, "") == problem_with(masks, "here") == "nowhere"
    assert problem_with(masks, str(tmp_path / "file")) == "a file"
    assert problem_with(masks, str(tmp_path)) == "not empty"
    assert problem_with(masks, str(tmp_path / "empty")) == problem_with(masks, str(tmp_path / "new")) == ""
    assert problem_with(report, str(tmp_path / "x")) == "no html"
    first = proposed(study, masks)
    first.mkdir()
    assert proposed(study, masks).name == f"{first.name}-2"


def test_corrected_masks_come_back_as_reviews(qtbot: QtBot, tmp_path: Path, filled: Study) -> None:
    from app.import_dialog import MasksDialog
    from segmentation.images import encode_mask

    window = open_window(qtbot, tmp_path, filled)
    page = page_of(window)
    (tmp_path / "corrected").mkdir()
    mask = np.zeros((48, 64), bool)
    mask[8:20, 9:33] = True
    (tmp_path / "corrected" / "case_0.png").write_bytes(encode_mask(mask))
    (tmp_path / "corrected" / "case_1.png").write_bytes(encode_mask(mask[:, :50]))
    page.imports.choose_reviews()
    dialog = only(page, MasksDialog)
    assert "Dr. Test" in dialog.sentence.text()
    dialog.masks.choose(tmp_path / "corrected")
    qtbot.waitUntil(dialog.import_button.isEnabled)
    with qtbot.waitSignal(page.notice, timeout=20000) as told:
        QTest.mouseClick(dialog.import_button, LEFT)
    assert told.args[0].startswith("Reviews that came in: 1;")
    latest = filled.reviewed()["case_0", "target"]
    assert (latest.annotator, latest.verdict) == ("Dr. Test", "edited")
    np.testing.assert_array_equal(filled.reviewed_mask("case_0", "target"), mask)
    assert page.imports.last is not None and "50 x 48" in page.imports.last.skipped[0][1]
