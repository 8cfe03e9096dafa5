"""Gaze quality: measured, shown, and saved."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from app.cli import run_command
from app.main_window import MainWindow
from app.quality_page import QualityPage
from app.record_page import RecordPage
from segmentation.gaze_gates import overrule
from segmentation.gaze_quality import study_quality
from segmentation.study import Study
from tests.window_support import fill, open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)


@pytest.fixture
def window(qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path) -> MainWindow:
    """Return a window on a study of a sitting: one image looked at well, one hardly at all."""
    fill(study, image_folder, gaze=False)
    made = open_window(qtbot, tmp_path, study)
    made.show_page("record")
    page = made.page("record")
    assert isinstance(page, RecordPage)
    page.panel.rate.setValue(250)
    page.start()
    qtbot.wait(2600)
    QTest.keyClick(page.canvas, Qt.Key.Key_Space)
    qtbot.wait(300)
    QTest.keyClick(page.canvas, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not page._saving, timeout=20000)
    return made


def test_looks_recordings_and_annotators(window: MainWindow, study: Study, qtbot: QtBot) -> None:
    ids = list(study.images)
    quality = study_quality(study)
    first, second = quality.looks
    assert (first.image_id, second.image_id) == (ids[0], ids[1])
    assert first.seconds == pytest.approx(2.6, abs=0.5) and first.fixations > 2
    assert 0 < first.rms_s2s_deg < 0.3 and 0 <= first.data_loss < 0.3
    assert any("only" in reason for reason in second.held_back), "so short a look is held back"
    [source] = quality.sources
    assert source.rate_hz == pytest.approx(250, rel=0.02) and source.simulated_from == "masks"
    [annotator] = quality.annotators
    assert annotator.looks == 2 and annotator.held_back >= 1

    window.show_page("quality")
    page = window.page("quality")
    assert isinstance(page, QualityPage)
    qtbot.waitUntil(lambda: page.looks.count == 2, timeout=10000)
    assert "Simulated from masks" in page.summary.text()
    page.looks.selectRow(1)
    again = next(
        button for button in page.panel.findChildren(type(page.html_button)) if button.text() == "Look again"
    )
    QTest.mouseClick(again, Qt.MouseButton.LeftButton)
    assert window.current_page() == "record" and window.session.image_id == ids[1]

    window.show_page("quality")
    overrule(study, [ids[1]], "Dr. Test")
    window.session.refresh("data")
    qtbot.waitUntil(lambda: study_quality(study).sources[0].held_back < source.held_back, timeout=5000)
    kept = study_quality(study).looks[1]
    assert kept.overruled_by == "Dr. Test"


class Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_saved_as_a_page_and_as_json(
    window: MainWindow, study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page_file, json_file = tmp_path / "quality.html", tmp_path / "quality.json"
    assert run_command(["quality", str(study.folder), "--to", str(page_file)]) == 0
    assert "look again at" in capsys.readouterr().out
    words = Words()
    words.feed(page_file.read_text())
    assert "Gaze simulated from masks" in words.text and "must not be used to compare people" in words.text
    assert all(name in words.text for name in list(study.images)[:2])
    assert run_command(["quality", str(study.folder), "--to", str(json_file), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    stored = json.loads(json_file.read_text())
    assert printed["looks"] == stored["looks"] and len(stored["looks"]) == 2
    assert stored["recordings"][0]["validation"] is None
    empty = Study.create(tmp_path / "empty")
    assert run_command(["quality", str(empty.folder), "--to", str(tmp_path / "none.html")]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1) and "looked at yet" in told.err
    assert not (tmp_path / "none.html").exists()
    torn = study.recordings_folder / "rec-torn"
    torn.mkdir()
    (torn / "gaze.frames").write_bytes(b"GAZE")
    assert run_command(["quality", str(study.folder), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [one["recording"] for one in printed["unreadable"]] == ["rec-torn"] and len(printed["looks"]) == 2
