from __future__ import annotations

import datetime
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import shiboken6
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QThreadPool, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QFileDialog
from pytestqt.qtbot import QtBot

from app import theme
from app.import_dialog import ImportDialog
from app.import_result import ImportResult
from app.jobs import Cancelled, StepProgress, Task
from app.main_window import PAGES
from app.new_study_dialog import NewStudyDialog
from app.overview import survey
from app.study_page import StudyPage
from app.texts import duration_text, short_name, when_text
from gaze_capture.errors import UserError
from segmentation.study import Study
from tests.window_support import fill, open_window

# The offscreen platform says so of every dialog.
pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)

ROOT = Path(__file__).resolve().parents[1]


def study_page(window) -> StudyPage:  # type: ignore[no-untyped-def]
    page = window.page("study")
    assert isinstance(page, StudyPage)
    return page


def test_window_never_loads_torch(tmp_path: Path) -> None:
    script = f"""
import sys
from PySide6.QtCore import QSettings
from app.main_window import MainWindow, make_application
application = make_application()
window = MainWindow(QSettings({str(tmp_path / "s.ini")!r}, QSettings.Format.IniFormat))
window.show()
for late in ("pyqtgraph", "scipy.signal", "scipy.stats"):
    assert late not in sys.modules, f"{{late}} would delay the window"
for name in ("study", "record", "train", "review"):
    window.show_page(name)
    application.processEvents()
window.close()
from segmentation import steps
heavy = sorted({{name.split(".")[0] for name in sys.modules}} & {{"torch", "transformers", "safetensors"}})
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("tokens", [theme.DARK, theme.LIGHT], ids=["dark", "light"])
def test_every_text_colour_has_contrast_on_every_ground(tokens: theme.Tokens) -> None:
    for name in ("text", "muted", "accent", "warning", "danger"):
        for ground in tokens.grounds:
            assert theme.contrast(getattr(tokens, name), ground) >= 4.5, (name, ground)
    for accent in (tokens.accent, tokens.accent_hover):
        assert theme.contrast(tokens.on_accent, accent) >= 4.5
    assert "$" not in theme.style_sheet(tokens)


def test_contrast_is_that_of_the_standard() -> None:
    assert theme.contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert theme.contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)


def test_letters_and_ctrl_numbers_change_pages(qtbot: QtBot, tmp_path: Path) -> None:
    window = open_window(qtbot, tmp_path)
    assert window.current_page() == "study"
    for key, name in ((Qt.Key.Key_R, "record"), (Qt.Key.Key_T, "train"), (Qt.Key.Key_V, "review")):
        QTest.keyClick(window.page(window.current_page()), key)
        assert window.current_page() == name
    for number, name in enumerate(PAGES):
        QTest.keyClick(window, Qt.Key(Qt.Key.Key_1 + number), Qt.KeyboardModifier.ControlModifier)
        assert window.current_page() == name
    QTest.mouseClick(window._rail_buttons["study"], Qt.MouseButton.LeftButton)
    assert window.current_page() == "study"
    QTest.keyClick(window, Qt.Key.Key_Question)
    dialogs = [widget for widget in QApplication.topLevelWidgets() if widget.windowTitle() == "Shortcuts"]
    assert dialogs and dialogs[0].isVisible()
    QTest.keyClick(dialogs[0], Qt.Key.Key_Escape)


def test_theme_changes_and_is_remembered(qtbot: QtBot, tmp_path: Path) -> None:
    window = open_window(qtbot, tmp_path)
    for name in PAGES:
        window.show_page(name)
    window.toggle_theme()
    assert theme.current() is theme.LIGHT
    assert window.session.settings.value("theme") == "light"
    assert window.grab().toImage().pixelColor(30, 400).lightness() > 200
    window.toggle_theme()
    assert window.grab().toImage().pixelColor(30, 400).lightness() < 60


def test_size_and_recent_studies_are_remembered(qtbot: QtBot, tmp_path: Path, study: Study) -> None:
    window = open_window(qtbot, tmp_path, study)
    window.resize(1111, 700)
    window.close()
    again = open_window(qtbot, tmp_path)
    assert again.session.recent() == [str(study.folder)]
    assert again.session.annotator == "Dr. Test"


def test_new_study_by_button_then_images_by_dropping(
    qtbot: QtBot, tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = open_window(qtbot, tmp_path)
    page = study_page(window)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "fresh"))
    QTest.mouseClick(page.new_button, Qt.MouseButton.LeftButton)
    [asking] = page.findChildren(NewStudyDialog)
    QTest.mouseClick(asking.folder.button, Qt.MouseButton.LeftButton)
    QTest.mouseClick(asking.create_button, Qt.MouseButton.LeftButton)
    assert window.session.study is not None and window.windowTitle().startswith("fresh")
    assert page.overview.next_step == "import"
    (image_folder / "images" / "broken.png").write_bytes(b"no image")
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(image_folder / "images"))])
    drop = QDropEvent(
        QPointF(5, 5),
        Qt.DropAction.CopyAction,
        mime,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    page.dropEvent(drop)
    [dialog] = page.findChildren(ImportDialog)
    qtbot.waitUntil(dialog.import_button.isEnabled)
    assert dialog.counts() == ["7 pictures"]
    QTest.mouseClick(dialog.import_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: page.overview.images == 6 and not window.tasks)
    assert page.overview.masks == 6, "masks in the folder beside it come along"
    [result] = page.findChildren(ImportResult)
    assert "6 images" in result.text() and "broken.png" in result.text()
    QTest.mouseClick(result.close_button, Qt.MouseButton.LeftButton)
    assert page.next.second_button.text() == "Simulate gaze"
    QTest.mouseClick(page.next.second_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: page.overview.gaze == 6 and not window.tasks, timeout=15000)
    assert page.overview.simulated_from == "masks"
    assert "simulated from masks" in page.cards["gaze"].missing.text()
    QTest.mouseClick(page.next.next_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: page.overview.pseudomasks == 6 and not window.tasks, timeout=15000)
    QTest.mouseClick(page.next.next_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: page.overview.explanations == 6 and not window.tasks, timeout=15000)
    assert "Train" in page.next._hero_title.text()
    QTest.mouseClick(page.next.next_button, Qt.MouseButton.LeftButton)
    assert window.current_page() == "train"


def test_what_cannot_be_opened_or_imported_is_said_in_the_banner(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder, gaze=False)
    window = open_window(qtbot, tmp_path, study)
    page = study_page(window)
    page.open_folder(tmp_path)
    assert "is not a study" in window.banner.text.text()
    assert window.banner.details.isHidden()
    page.take_files([tmp_path / "notes.docx"])
    assert "notes.docx" in window.banner.text.text()
    QTest.keyClick(window, Qt.Key.Key_Escape)
    assert window.banner.isHidden()
    (tmp_path / "gaze.csv").write_text("a,b\n1,2\n")
    page.take_files([tmp_path / "gaze.csv"])
    qtbot.waitUntil(lambda: window.banner.isVisible())
    assert "gaze.csv" in window.banner.text.text()


@pytest.mark.parametrize("way", ["key", "rail", "number"])
def test_what_a_page_told_goes_with_the_page(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path, way: str
) -> None:
    fill(study, image_folder, gaze=False)
    window = open_window(qtbot, tmp_path, study)
    ways = {
        "key": lambda: QTest.keyClick(window, Qt.Key.Key_T),
        "rail": lambda: QTest.mouseClick(window._rail_buttons["train"], Qt.MouseButton.LeftButton),
        "number": lambda: QTest.keyClick(window, Qt.Key.Key_3, Qt.KeyboardModifier.ControlModifier),
    }
    page = study_page(window)
    page.open_folder(tmp_path)
    assert window.banner.isVisible()
    QTest.keyClick(window, Qt.Key.Key_S)
    assert window.banner.isVisible(), "it is the page in front already"
    ways[way]()
    assert window.current_page() == "train" and window.banner.isHidden()
    # What the page that is gone to tells, and what no page told, stays.
    window.session.failed.emit("The study cannot be read.")
    QTest.keyClick(window, Qt.Key.Key_S)
    assert window.current_page() == "study" and window.banner.isVisible()
    broken = study.image_path(next(iter(study.images.values())))
    broken.unlink()
    page.open_folder(tmp_path)
    QTest.keyClick(window, Qt.Key.Key_V)
    assert window.current_page() == "review" and broken.name in window.banner.text.text()
    assert window.banner.isVisible()


def test_unforeseen_failures_show_details_and_known_ones_a_sentence(qtbot: QtBot, tmp_path: Path) -> None:
    window = open_window(qtbot, tmp_path)

    def breaks(_: StepProgress) -> None:
        raise ZeroDivisionError("by zero")

    def refuses(_: StepProgress) -> None:
        raise UserError("The disk is full.")

    window.start_task(Task(breaks, "Counting", window))
    qtbot.waitUntil(lambda: window.banner.isVisible())
    assert window.banner.text.text() == "Counting failed unexpectedly: by zero"
    assert window.banner.details.isVisible()
    QTest.mouseClick(window.banner.details, Qt.MouseButton.LeftButton)
    [details] = [widget for widget in QApplication.topLevelWidgets() if widget.windowTitle() == "Details"]
    details.close()
    qtbot.waitUntil(lambda: not window.tasks)
    window.start_task(Task(refuses, "Counting", window))
    qtbot.waitUntil(lambda: window.banner.text.text() == "The disk is full.")
    assert window.banner.details.isHidden()


def test_long_work_shows_progress_and_can_be_cancelled(qtbot: QtBot, tmp_path: Path) -> None:
    window = open_window(qtbot, tmp_path)
    ended = []

    def endless(progress: StepProgress) -> None:
        import time

        try:
            while True:
                progress(3, 10, "scan.png")
                time.sleep(0.005)
        except Cancelled:
            ended.append(True)
            raise

    window.start_task(Task(endless, "Importing", window))
    qtbot.waitUntil(lambda: window.strip.isVisible() and window.strip.bar.value() == 3)
    assert "scan.png" in window.strip.detail.text()
    other = Task(endless, "Another", window)
    window.start_task(other)
    assert "Importing is still at work" in window.banner.text.text()
    QTest.mouseClick(window.strip.cancel, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not window.tasks)
    assert ended and window.strip.isHidden()


def test_survey_counts_what_is_there(study: Study, image_folder: Path) -> None:
    assert survey(study).next_step == "import"
    fill(study, image_folder, pseudomasks=False)
    counted = survey(study)
    assert (counted.images, counted.masks, counted.gaze, counted.fixations) == (6, 6, 6, 72)
    assert counted.next_step == "pseudomasks" and counted.trainable == 0


def test_times_and_names_in_words() -> None:
    assert [duration_text(s) for s in (0.4, 59.4, 61, 3540, 7500)] == [
        "0 s",
        "59 s",
        "1 min",
        "59 min",
        "2 h 5 min",
    ]
    assert short_name("imported") == "imported"
    assert short_name("rec-20261321-101500-b7d4f0") == "rec-20261321-101500-b7d4f0", "no such month"


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone cannot be set here")
def test_a_run_is_named_by_the_clock_on_the_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = datetime.datetime(2026, 11, 21, 23, 15, tzinfo=datetime.timezone.utc)
    try:
        monkeypatch.setenv("TZ", "XYZ-2")
        time.tzset()
        assert short_name("run-20261121-231500-b7d4f0") == "22 Nov 01:15"
        if begun.year == datetime.datetime.now().year:
            assert when_text(begun.timestamp()) == "22 Nov 01:15", "Train and Review name a run alike"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_click_on_a_thumbnail_opens_the_image(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder)
    window = open_window(qtbot, tmp_path, study)
    mosaic = study_page(window).mosaic
    QTest.mouseClick(mosaic, Qt.MouseButton.LeftButton, pos=QPoint(20, 20))
    assert window.current_page() == "review"
    assert window.session.image_id == next(iter(study.images))


@pytest.mark.parametrize("fails", [False, True])
def test_a_step_that_outlives_its_window_ends_in_silence(
    qtbot: QtBot, capfd: pytest.CaptureFixture[str], fails: bool
) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(progress: StepProgress) -> None:
        begun.set()
        go.wait(10)
        if fails:
            raise ValueError("no window")

    task = Task(slow, "Counting")
    task.start()
    assert begun.wait(10)
    shiboken6.delete(task)
    go.set()
    assert QThreadPool.globalInstance().waitForDone(10_000)
    assert capfd.readouterr().err == ""
