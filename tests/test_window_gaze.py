"""Importing gaze in the window: what is told of a file, what is asked, what comes of it; by mouse and keys."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent, QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QComboBox, QFileDialog, QLineEdit, QWidget
from pytestqt.qtbot import QtBot

from app.gaze_import_dialog import GazeImportDialog
from app.gaze_import_result import GazeImportResult
from app.import_dialog import ImportDialog
from app.main_window import MainWindow
from app.study_page import StudyPage
from gaze_capture.recording import Recording
from gaze_capture.recording_codec import read_recording
from segmentation.gaze_import import GazeReport, import_gaze
from segmentation.importing import import_images
from segmentation.records import Target
from segmentation.study import Study
from tests import test_bids
from tests.gaze_files import (
    BINOCULAR,
    eyelink,
    gazepoint,
    pro_lab,
    pupil_surface,
    studio,
    written,
    xdf,
)
from tests.test_importing import gaze_csv
from tests.test_window_import import only, page_of
from tests.window_support import open_window

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)

LEFT = Qt.MouseButton.LeftButton
WORLD = "world_index,gaze_timestamp,norm_pos_x,norm_pos_y\r\n0,1,0.5,0.5\r\n"


@pytest.fixture
def with_images(study: Study, image_folder: Path) -> Study:
    import_images(study, [image_folder / "images"])
    return study


def drop_on(page: StudyPage | GazeImportDialog, *paths: Path) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    page.dropEvent(
        QDropEvent(
            QPointF(5, 5),
            Qt.DropAction.CopyAction,
            data,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
        )
    )


def opened(qtbot: QtBot, page: StudyPage) -> GazeImportDialog:
    """Return the dialog, once it is there and has read its files."""
    qtbot.waitUntil(
        lambda: any(one.isVisible() for one in page.findChildren(GazeImportDialog)), timeout=10_000
    )
    dialog = only(page, GazeImportDialog)
    settled(qtbot, dialog)
    return dialog


def settled(qtbot: QtBot, dialog: GazeImportDialog) -> None:
    qtbot.waitUntil(lambda: "eading" not in dialog.problem.text() and bool(dialog.view.facts), timeout=10_000)


def asked(dialog: GazeImportDialog) -> list[str]:
    """Return the questions that are in view."""
    return [fact for fact, row in dialog.questions.rows.items() if row.isVisible()]


def states(dialog: GazeImportDialog) -> list[str]:
    """Return what the list says of each file."""
    items = [dialog.list.topLevelItem(number) for number in range(dialog.list.topLevelItemCount())]
    return [item.text(1) for item in items if item is not None]


def image_edit(dialog: GazeImportDialog) -> QLineEdit:
    edit = dialog.questions.image.lineEdit()
    assert edit is not None
    return edit


def type_in(fields: tuple[QLineEdit, ...], *numbers: str) -> None:
    for field, number in zip(fields, numbers, strict=True):
        field.setFocus()
        field.selectAll()
        QTest.keyClicks(field, number)


def pick(picker: QComboBox, *keys: Qt.Key) -> None:
    picker.setFocus()
    for key in keys:
        QTest.keyClick(picker, key)


def say_screen(dialog: GazeImportDialog) -> None:
    questions = dialog.questions
    type_in(questions.screen_px.fields, "1920", "1080")
    type_in(questions.screen_mm.fields, "530", "300,5")
    type_in(questions.distance_mm.fields, "640")


def imported(qtbot: QtBot, window: MainWindow, dialog: GazeImportDialog) -> None:
    qtbot.waitUntil(dialog.import_button.isEnabled, timeout=10_000)
    QTest.mouseClick(dialog.import_button, LEFT)
    qtbot.waitUntil(lambda: not window.tasks, timeout=15_000)


def newest(study: Study) -> Recording:
    [*_, last] = sorted(study.recording_ids())
    return read_recording(study.recordings_folder / last)


def test_a_file_that_tells_everything_comes_in_with_two_clicks(
    qtbot: QtBot, tmp_path: Path, with_images: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = open_window(qtbot, tmp_path, with_images)
    page = page_of(window)
    file = written(tmp_path / "export.tsv", pro_lab(names=("case_0.png", "stranger.png", "case_1.png")))
    filters: list[str] = []

    def choose(*args: Any) -> tuple[list[str], str]:
        filters.append(args[3])
        return [str(file)], ""

    monkeypatch.setattr(QFileDialog, "getOpenFileNames", choose)
    QTest.mouseClick(page.import_gaze_button, LEFT)
    dialog = opened(qtbot, page)
    assert all(ending in filters[0] for ending in ("*.tsv", "*.asc", "*.xdf", "*.csv", "*_physio.tsv.gz"))
    facts = dialog.view.facts
    assert facts["Samples"] == "192 samples · 120 Hz · 1.6 s"
    assert facts["Lost"] == "left eye 2.6 % · right eye 2.6 % · both at once 2.6 %"
    assert facts["Screen"] == "1920 × 1080 px · 530 × 300 mm · 640 mm away"
    assert facts["Images"] == "2 of 3 are in the study; not in it: stranger.png"
    assert "4 of the file's own, 400 ms in the median" in facts["Fixations"]
    assert not asked(dialog) and dialog.view.pill.accessibleName() == "Tobii export"
    assert not dialog.how.target_row.isVisible() and not dialog.how.split_row.isVisible()
    qtbot.waitUntil(dialog.import_button.isEnabled)
    QTest.keyClick(dialog, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: page.overview.gaze == 2 and not window.tasks, timeout=15_000)
    assert page.cards["gaze"].number.text() == "2"
    recording = newest(with_images)
    assert (recording.annotator, recording.tracker) == ("Dr. Test", "Tobii Pro Lab file")
    # An image that the study has not is worth a word.
    result = only(page, GazeImportResult)
    assert "stranger.png" in result.text()
    QTest.keyClick(result, Qt.Key.Key_Return)
    drop_on(page, file)
    imported(qtbot, window, opened(qtbot, page))
    qtbot.waitUntil(lambda: any(one.isVisible() for one in page.findChildren(GazeImportResult)))
    assert "In the study already" in only(page, GazeImportResult).text()
    assert len(with_images.recording_ids()) == 1


def test_only_what_is_missing_is_asked_and_the_screen_is_remembered(
    qtbot: QtBot, tmp_path: Path, with_images: Study
) -> None:
    window = open_window(qtbot, tmp_path, with_images)
    page = page_of(window)
    drop_on(page, written(tmp_path / "User 0_all_gaze.csv", gazepoint()))
    dialog = opened(qtbot, page)
    assert asked(dialog) == ["screen_px", "screen_mm", "distance_mm", "rect_px"]
    assert not dialog.import_button.isEnabled()
    assert dialog.problem.text() == (
        "Not said yet: the screen's pixels, the screen's size, the eyes' distance and where the image was."
    )
    assert dialog.questions.screen_px.fields[0].hasFocus(), "one can type at once"
    assert "Screen" not in dialog.view.facts, "no number that is not known is shown"
    type_in(dialog.questions.screen_px.fields, "19x", "1080")
    assert "a number from 100 to 20000" in dialog.problem.text()
    say_screen(dialog)
    assert dialog.problem.text() == "Not said yet: where the image was."
    QTest.mouseClick(
        dialog.questions.place.fit_button, LEFT, pos=dialog.questions.place.fit_button.rect().center()
    )
    qtbot.waitUntil(lambda: "Screen" in dialog.view.facts, timeout=10_000)
    imported(qtbot, window, dialog)
    qtbot.waitUntil(lambda: page.overview.gaze == 2)
    assert window.banner.text.text().startswith(
        "The gaze came in: 96 samples, in them 4 fixations on 2 images"
    )
    recording = newest(with_images)
    assert (recording.geometry.width_px, recording.geometry.height_mm) == (1920, 300.5)
    assert recording.geometry.viewing_distance_mm == 640
    assert recording.placements[0].viewport_px == (240, 0, 1440, 1080)

    drop_on(page, written(tmp_path / "User 1_all_gaze.csv", gazepoint(eyes=True)))
    dialog = opened(qtbot, page)
    assert "last file" in dialog.questions.rows["screen_mm"].hint.text()
    assert dialog.questions.screen_mm.fields[1].text() == "300.5"
    QTest.mouseClick(dialog.questions.place.rect_button, LEFT)
    assert not dialog.import_button.isEnabled()
    type_in(dialog.questions.place.numbers.fields, "480", "180", "960", "720")
    assert "last file" not in dialog.questions.rows["rect_px"].hint.text()
    imported(qtbot, window, dialog)
    qtbot.waitUntil(lambda: len(with_images.recording_ids()) == 2)
    viewports = {
        read_recording(with_images.recordings_folder / name).placements[0].viewport_px
        for name in with_images.recording_ids()
    }
    assert viewports == {(240, 0, 1440, 1080), (480, 180, 960, 720)}
    # What one file needs does not spill over to one that tells it itself.
    drop_on(page, written(tmp_path / "e.asc", eyelink()))
    assert not asked(opened(qtbot, page))


def test_a_real_recording_without_an_image_is_put_on_one(
    qtbot: QtBot, tmp_path: Path, with_images: Study, shared_data: Path
) -> None:
    window = open_window(qtbot, tmp_path, with_images)
    page = page_of(window)
    drop_on(page, shared_data / "gaze" / "i2mc_tx300" / "participant1" / "1.tsv")
    dialog = opened(qtbot, page)
    assert asked(dialog) == ["image", "screen_px", "rect_px"]
    assert dialog.view.facts["Samples"] == "651 samples · 300 Hz · 2.2 s"
    assert "514 x 290 mm" in dialog.view.facts["To know"]
    image = dialog.questions.image
    assert dialog.focusWidget() in (image, image_edit(dialog))
    QTest.keyClicks(image_edit(dialog), "case_4.pn")
    assert "the image and" in dialog.problem.text(), "part of a name is no name"
    QTest.keyClick(image_edit(dialog), Qt.Key.Key_G)
    assert "the image and" not in dialog.problem.text()
    QTest.keyClick(image_edit(dialog), Qt.Key.Key_Backspace)
    assert image.currentText() == "case_4.pn" and "the image and" in dialog.problem.text()
    image_edit(dialog).selectAll()
    QTest.keyClicks(image_edit(dialog), "CASE_4.png")
    type_in(dialog.questions.screen_px.fields, "1920", "1080")
    QTest.mouseClick(dialog.questions.place.fit_button, LEFT)
    qtbot.waitUntil(lambda: dialog.view.facts.get("Images") == "case_4", timeout=10_000)
    assert "514 × 290 mm · 585 mm away" in dialog.view.facts["Screen"]
    imported(qtbot, window, dialog)
    qtbot.waitUntil(lambda: page.overview.gaze == 1)
    recording = newest(with_images)
    assert [place.image_id for place in recording.placements] == ["case_4"]
    assert len(recording.time_ns) == 651


def test_one_of_several_streams_is_chosen_by_key(qtbot: QtBot, tmp_path: Path, with_images: Study) -> None:
    unnamed = [("gaze_x", "", "", "px", ""), ("gaze_y", "", "", "px", "")]
    streams = (("First", BINOCULAR), ("Second", unnamed))
    window = open_window(qtbot, tmp_path, with_images)
    page = page_of(window)
    drop_on(page, written(tmp_path / "two.xdf", xdf(streams=streams)))
    dialog = opened(qtbot, page)
    assert asked(dialog)[0] == "stream" and "eye" not in asked(dialog)
    pick(dialog.questions.stream, Qt.Key.Key_Down, Qt.Key.Key_Down)
    qtbot.waitUntil(lambda: "eye" in asked(dialog), timeout=10_000)
    pick(dialog.questions.eye, Qt.Key.Key_R)
    say_screen(dialog)
    QTest.mouseClick(dialog.questions.place.fit_button, LEFT)
    imported(qtbot, window, dialog)
    qtbot.waitUntil(lambda: page.overview.gaze == 2)
    recording = newest(with_images)
    assert recording.tracker == "XDF file, stream Second"
    assert np.isnan(recording.left_xy).all() and np.isfinite(recording.right_xy).all()


def test_several_files_share_their_answers_and_are_summed_up(
    qtbot: QtBot, tmp_path: Path, with_images: Study
) -> None:
    window = open_window(qtbot, tmp_path, with_images)
    page = page_of(window)
    files = [
        written(tmp_path / "export.tsv", pro_lab()),
        written(tmp_path / "studio.tsv", studio()),
        written(tmp_path / "world.csv", WORLD),
        written(tmp_path / "case_3.csv", pupil_surface()),
        written(tmp_path / "surface.csv", pupil_surface().replace("0.98", "0.97")),
    ]
    drop_on(page, *files, written(tmp_path / "notes.txt", "nothing of gaze"))
    dialog = opened(qtbot, page)
    assert "notes.txt" in window.banner.text.text(), "what is no gaze is named"
    qtbot.waitUntil(lambda: "reading…" not in states(dialog), timeout=10_000)
    expected = ["ready", "1 thing to say", "cannot come in", "4 things to say", "5 things to say"]
    assert states(dialog) == expected
    assert asked(dialog) == ["screen_px", "screen_mm", "distance_mm", "rect_px"]
    say_screen(dialog)
    QTest.mouseClick(dialog.questions.place.fit_button, LEFT)
    assert dialog.problem.text() == "surface.csv, not said yet: the image."
    qtbot.waitUntil(
        lambda: states(dialog)[:4] == ["ready", "ready", "cannot come in", "ready"], timeout=10_000
    )
    assert states(dialog)[4] == "1 thing to say"
    assert dialog.import_button.text() == "Import 4 of 5 files" and not dialog.import_button.isEnabled()
    dialog.list.setFocus()
    QTest.keyClick(dialog.list, Qt.Key.Key_Down)
    QTest.keyClick(dialog.list, Qt.Key.Key_Down)
    assert dialog.view.trouble.isVisible() and "world camera" in dialog.view.trouble.text()
    QTest.keyClick(dialog.list, Qt.Key.Key_Down)
    assert dialog.questions.image.currentText() == "case_3.png", "the file is called like it"
    QTest.keyClick(dialog.list, Qt.Key.Key_Down)
    assert dialog.questions.image.currentText() == ""
    QTest.keyClicks(image_edit(dialog), "case_5.png")
    imported(qtbot, window, dialog)
    qtbot.waitUntil(lambda: page.overview.gaze == 4)
    result = only(page, GazeImportResult)
    assert result.tiles()[:2] == [(4, "files in the study"), (1, "left out")]
    text = result.text()
    assert "Not imported" in text and "world camera" in text and "export.tsv: 192 samples" in text
    QTest.mouseClick(result.copy_button, LEFT)
    assert QGuiApplication.clipboard().text() == text
    found = {
        read_recording(with_images.recordings_folder / name).notes["file"]: read_recording(
            with_images.recordings_folder / name
        )
        for name in with_images.recording_ids()
    }
    # The answer is for the files that do not tell: the export's own screen stays as it says.
    assert round(found["export.tsv"].geometry.height_mm) == 300
    assert found["studio.tsv"].geometry.height_mm == 300.5
    assert [place.image_id for place in found["case_3.csv"].placements] == ["case_3"]
    assert [place.image_id for place in found["surface.csv"].placements] == ["case_5"]


def test_a_file_is_left_out_and_another_added(
    qtbot: QtBot, tmp_path: Path, with_images: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = open_window(qtbot, tmp_path, with_images)
    page = page_of(window)
    drop_on(page, written(tmp_path / "g.csv", gazepoint()))
    dialog = opened(qtbot, page)
    assert not dialog.list.isVisible(), "one file needs no list"
    added = written(tmp_path / "e.asc", eyelink())
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *_: ([str(added)], ""))
    QTest.mouseClick(dialog.add_files_button, LEFT)
    qtbot.waitUntil(lambda: states(dialog)[1] == "ready", timeout=10_000)
    assert dialog.list.isVisible() and asked(dialog)
    QTest.mouseClick(dialog.remove_button, LEFT)
    assert not dialog.list.isVisible() and not asked(dialog)
    assert dialog.view.name.text() == "e.asc"
    imported(qtbot, window, dialog)
    qtbot.waitUntil(lambda: page.overview.gaze == 2)


def test_the_files_own_fixations_another_annotator_and_target(
    qtbot: QtBot, tmp_path: Path, with_images: Study
) -> None:
    with_images.set_targets([Target(), Target("nodule", "Nodule")])
    window = open_window(qtbot, tmp_path, with_images)
    page = page_of(window)
    drop_on(page, written(tmp_path / "e.asc", eyelink()))
    dialog = opened(qtbot, page)
    assert dialog.how.target_row.isVisible()
    dialog.how.annotator.selectAll()
    QTest.keyClick(dialog.how.annotator, Qt.Key.Key_Delete)
    assert "whose gaze" in dialog.problem.text() and not dialog.import_button.isEnabled()
    QTest.keyClicks(dialog.how.annotator, "Dr. Other")
    pick(dialog.how.target, Qt.Key.Key_End)
    pick(dialog.how.fixations, Qt.Key.Key_End)
    QTest.mouseClick(dialog.how.fold.toggle, LEFT)
    pick(dialog.how.simulated, Qt.Key.Key_Down)
    imported(qtbot, window, dialog)
    qtbot.waitUntil(lambda: ("case_0", "nodule") in with_images.fixations)
    assert not with_images.recording_ids()
    (found,) = with_images.fixations["case_0", "nodule"]
    assert (found.detector, found.annotator, found.simulated_from) == ("imported", "Dr. Other", "masks")


def test_a_table_of_fixations_comes_in_at_once_where_nothing_is_to_be_asked(
    qtbot: QtBot, tmp_path: Path, with_images: Study
) -> None:
    window = open_window(qtbot, tmp_path, with_images)
    page = page_of(window)
    table = gaze_csv(tmp_path / "t.csv", ["case_0", "case_1"])
    drop_on(page, table)
    qtbot.waitUntil(lambda: page.overview.gaze == 2 and not window.tasks, timeout=15_000)
    assert not page.findChildren(GazeImportDialog)
    assert window.banner.text.text() == "The gaze came in: 6 fixations on 2 images."
    with_images.set_targets([Target(), Target("nodule", "Nodule")])
    drop_on(page, table)
    dialog = opened(qtbot, page)
    assert dialog.how.target_row.isVisible() and dialog.how.width_row.isVisible() and not asked(dialog)
    pick(dialog.how.target, Qt.Key.Key_End)
    type_in(dialog.how.width_deg.fields, "20")
    imported(qtbot, window, dialog)
    qtbot.waitUntil(lambda: ("case_0", "nodule") in with_images.fixations)
    (found,) = with_images.fixations["case_0", "nodule"]
    assert found.degrees_per_px == pytest.approx(20 / 64)
    # The first target is the same import as before, which named none.
    drop_on(page, table)
    imported(qtbot, window, opened(qtbot, page))
    qtbot.waitUntil(lambda: "has been replaced" in window.banner.text.text())
    assert len(with_images.fixations["case_0", "target"]) == 1


def test_images_of_one_name_are_told_apart_by_their_split(
    qtbot: QtBot, tmp_path: Path, with_images: Study, image_folder: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "case_0.png").write_bytes((image_folder / "masks" / "case_0.png").read_bytes())
    import_images(with_images, [other], split="test")
    window = open_window(qtbot, tmp_path, with_images)
    page = page_of(window)
    drop_on(page, gaze_csv(tmp_path / "t.csv", ["case_0"]))
    dialog = opened(qtbot, page)
    assert "several images" in dialog.how.split_row.hint.text() and not dialog.import_button.isEnabled()
    assert dialog.problem.text() == "Not said yet: which images."
    pick(dialog.how.split, Qt.Key.Key_Down)
    assert dialog.how.split.currentData() == "test"
    imported(qtbot, window, dialog)
    qtbot.waitUntil(lambda: page.overview.gaze == 1)
    [(image_id, _)] = with_images.fixations
    assert with_images.image(image_id).split == "test"


def bids_of(study: Study, image_folder: Path, tmp_path: Path) -> Path:
    """Write a recording in BIDS of which the study has one image, and return its first eye's file."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "a 1.png").write_bytes((image_folder / "masks" / "case_0.png").read_bytes())
    import_images(study, [folder])
    return test_bids.written(tmp_path / "bids", test_bids.a_recording())


def test_a_bids_recording_comes_with_its_json_and_without_it_says_so(
    qtbot: QtBot, tmp_path: Path, with_images: Study, image_folder: Path
) -> None:
    physio = bids_of(with_images, image_folder, tmp_path)
    window = open_window(qtbot, tmp_path, with_images)
    page = page_of(window)
    drop_on(page, *sorted(physio.parent.glob("*_physio.tsv.gz")))
    dialog = opened(qtbot, page)
    assert not dialog.list.isVisible(), "two eyes are one recording"
    assert dialog.view.pill.accessibleName() == "BIDS eye tracking"
    assert "not in the file" not in dialog.view.facts["Lost"] and not asked(dialog)
    imported(qtbot, window, dialog)
    qtbot.waitUntil(lambda: page.overview.gaze == 1)
    assert np.isfinite(newest(with_images).right_xy).any()
    test_bids.sidecar(physio).unlink()
    drop_on(page, physio)
    qtbot.waitUntil(lambda: "PhysioType" in window.banner.text.text(), timeout=10_000)
    assert not [one for one in page.findChildren(GazeImportDialog) if one.isVisible()]


def test_an_answer_that_cannot_be_is_explained_and_given_anew(
    qtbot: QtBot, tmp_path: Path, with_images: Study, image_folder: Path
) -> None:
    physio = bids_of(with_images, image_folder, tmp_path)
    for sidecar in physio.parent.glob("*_physio.json"):
        values = json.loads(sidecar.read_text())
        for column in ("timestamp", "x_coordinate", "y_coordinate"):
            values[column].pop("Units")
        sidecar.write_text(json.dumps(values))
    window = open_window(qtbot, tmp_path, with_images)
    page = page_of(window)
    drop_on(page, physio)
    qtbot.waitUntil(lambda: bool(page.findChildren(GazeImportDialog)), timeout=10_000)
    dialog = only(page, GazeImportDialog)
    qtbot.waitUntil(lambda: asked(dialog) == ["time_unit", "coordinates"], timeout=10_000)
    pick(dialog.questions.coordinates, Qt.Key.Key_P)
    pick(dialog.questions.time_unit, Qt.Key.Key_N)
    qtbot.waitUntil(lambda: "timestamps advance" in dialog.view.trouble.text(), timeout=10_000)
    assert not dialog.import_button.isEnabled()
    assert "time_unit" in asked(dialog), "the answer can be changed"
    pick(dialog.questions.time_unit, Qt.Key.Key_Home)
    qtbot.waitUntil(lambda: "Samples" in dialog.view.facts, timeout=10_000)
    assert not dialog.view.trouble.isVisible()
    imported(qtbot, window, dialog)
    qtbot.waitUntil(lambda: page.overview.gaze == 1)


class Held:
    """The real import, which waits before the file of a name until it may go on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, study: Study, file: Path, **values: Any) -> GazeReport:
        if file.name == self._name:
            self.begun.set()
            self.go_on.wait(20)
        return import_gaze(study, file, **values)


@pytest.mark.parametrize("before", [0, 1])
def test_a_cancelled_import_leaves_nothing_half_done(
    qtbot: QtBot, tmp_path: Path, with_images: Study, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    held = Held("last.tsv")
    monkeypatch.setattr("app.gaze_choice.import_gaze", held)
    window = open_window(qtbot, tmp_path, with_images)
    page = page_of(window)
    files = [written(tmp_path / "first.asc", eyelink())] * before
    drop_on(page, *files, written(tmp_path / "last.tsv", pro_lab()))
    dialog = opened(qtbot, page)
    qtbot.waitUntil(dialog.import_button.isEnabled, timeout=10_000)
    QTest.mouseClick(dialog.import_button, LEFT)
    qtbot.waitUntil(lambda: held.begun.is_set() and window.strip.isVisible())
    assert window.strip.title.text() == "Importing gaze"
    QTest.mouseClick(window.strip.cancel, LEFT)
    held.go_on.set()
    qtbot.waitUntil(lambda: not window.tasks)
    assert len(with_images.recording_ids()) == before
    assert not window.banner.isVisible()
    if before:
        qtbot.waitUntil(lambda: page.overview.gaze == 2)
        text = only(page, GazeImportResult).text()
        assert "first.asc: 800 samples" in text and "stopped before it came in" in text


def test_gaze_dropped_with_its_images_waits_for_them(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    window = open_window(qtbot, tmp_path, study)
    page = page_of(window)
    table = gaze_csv(tmp_path / "t.csv", ["case_0", "case_1"])
    drop_on(page, table)
    assert "no images yet" in window.banner.text.text()
    drop_on(page, image_folder / "images", table)
    images = only(page, ImportDialog)
    qtbot.waitUntil(images.import_button.isEnabled)
    QTest.mouseClick(images.import_button, LEFT)
    qtbot.waitUntil(lambda: page.overview.gaze == 2 and not window.tasks, timeout=15_000)
    assert page.overview.images == 6


def test_the_dialog_may_be_closed_while_it_reads(qtbot: QtBot, tmp_path: Path, with_images: Study) -> None:
    window = open_window(qtbot, tmp_path, with_images)
    page = page_of(window)
    dialog = GazeImportDialog(page, page.session, [written(tmp_path / "g.csv", gazepoint())])
    dialog.open()
    assert dialog.view.pill.accessibleName() == "Reading…" and not dialog.import_button.isEnabled()
    destroyed: list[QWidget] = []
    dialog.destroyed.connect(lambda: destroyed.append(page))
    QTest.keyClick(dialog, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: bool(destroyed))
    assert not with_images.recording_ids()
