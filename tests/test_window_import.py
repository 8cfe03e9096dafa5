"""Import in the window: what is asked beforehand, what is told afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent, QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QFileDialog, QWidget
from pytestqt.qtbot import QtBot

import segmentation.importing
import segmentation.published
from app.burned_in_dialog import BurnedInDialog
from app.import_choice import (
    PER_FOLDER,
    FoundLabel,
    by_reason,
    grouped,
    guessed_target,
    labels_in,
    propose_masks,
)
from app.import_dialog import ImportDialog, MasksDialog
from app.import_result import ImportResult
from app.main_window import MainWindow
from app.new_study_dialog import PublishedDialog
from app.study_page import StudyPage
from gaze_capture.errors import UserError
from segmentation.importing import ImportReport
from segmentation.records import Target
from segmentation.study import Study
from tests.dicom_support import make
from tests.study_page_support import ImportDouble, add_pictures
from tests.test_import_volumes import nifti, volume
from tests.window_support import open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)

T = TypeVar("T", bound=QWidget)
LEFT = Qt.MouseButton.LeftButton
ZONES = (
    Target("gland", "Prostate"),
    Target("pz", "Peripheral zone", "#E69F00", "zone", "gland"),
)


def page_of(window: MainWindow) -> StudyPage:
    page = window.page("study")
    assert isinstance(page, StudyPage)
    return page


def only(parent: QWidget, kind: type[T]) -> T:
    """Return the one dialog of a kind that is open."""
    [found] = [one for one in parent.findChildren(kind) if one.isVisible()]
    return found


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> ImportDouble:
    """Take the place of the import, so that what it is asked can be looked at."""
    made = ImportDouble()
    monkeypatch.setattr(segmentation.importing, "import_images", made)
    return made


def no_labels(*_: object, **__: object) -> list[FoundLabel]:
    return []


def ready(qtbot: QtBot, dialog: ImportDialog) -> None:
    qtbot.waitUntil(dialog.import_button.isEnabled)


def drop_on(widget: StudyPage | ImportDialog, *paths: Path) -> None:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    widget.dropEvent(
        QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, mime, LEFT, Qt.KeyboardModifier.NoModifier)
    )


def test_a_folder_of_pictures_is_two_clicks_in_the_dialog(
    qtbot: QtBot,
    tmp_path: Path,
    study: Study,
    image_folder: Path,
    double: ImportDouble,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.masks_part.labels_in", no_labels)
    window = open_window(qtbot, tmp_path, study)
    page = page_of(window)
    QTest.mouseClick(page.import_images_button, LEFT)
    dialog = only(page, ImportDialog)
    assert not dialog.import_button.isEnabled()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(image_folder / "images"))
    QTest.mouseClick(dialog.folder_button, LEFT)
    ready(qtbot, dialog)
    assert dialog.counts() == ["6 pictures"]
    assert dialog.import_button.text() == "Import 6 files"
    QTest.mouseClick(dialog.import_button, LEFT)
    qtbot.waitUntil(lambda: page.overview.images == 6 and not window.tasks)
    [asked] = double.calls
    assert asked["paths"] == [image_folder / "images"]
    assert asked["masks"] == image_folder / "masks", "masks that lie beside the images come along"
    options = asked["options"]
    assert (options.split, options.group_by, options.deidentify, options.every) == ("train", None, "auto", 1)
    assert asked["labels"] is None and asked["target"] is None
    assert window.banner.text.text() == "6 images came in. 6 true masks came with them."
    assert page.overview.masks == 6


def test_every_choice_reaches_the_import(
    qtbot: QtBot,
    tmp_path: Path,
    study: Study,
    image_folder: Path,
    double: ImportDouble,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study.set_targets(ZONES)
    labels = [FoundLabel("1", "peripheral zone"), FoundLabel("2", "fat")]
    monkeypatch.setattr("app.masks_part.labels_in", lambda *_, **__: labels)
    window = open_window(qtbot, tmp_path, study)
    page = page_of(window)
    drop_on(page, image_folder / "images")
    dialog = only(page, ImportDialog)
    ready(qtbot, dialog)
    qtbot.waitUntil(lambda: len(dialog.masks.pickers) == 2)
    assert [picker.currentData() for picker in dialog.masks.pickers] == ["pz", None]
    # By key alone: fat is no target, but the person says what it is.
    dialog.masks.pickers[1].setFocus()
    QTest.keyClick(dialog.masks.pickers[1], Qt.Key.Key_Down)
    dialog.split.setFocus()
    QTest.keyClick(dialog.split, Qt.Key.Key_End)
    assert dialog.split_name.isVisible()
    QTest.keyClicks(dialog.split_name, "ab c")
    assert "Name the split" in dialog.problem.text() and not dialog.import_button.isEnabled()
    dialog.split_name.clear()
    QTest.keyClicks(dialog.split_name, "val")
    dialog.per_folder.setFocus()
    QTest.keyClick(dialog.per_folder, Qt.Key.Key_Space)
    assert "images/case_0.png  →  images" in dialog.group_row.hint.text()
    QTest.mouseClick(dialog.fold.toggle, LEFT)
    QTest.keyClicks(dialog.pattern, r"case_(\d")
    qtbot.waitUntil(lambda: "This is not a regular" in dialog.pattern_row.hint.text())
    assert not dialog.import_button.isEnabled()
    QTest.keyClicks(dialog.pattern, ")")
    qtbot.waitUntil(lambda: "images/case_0.png  →  0" in dialog.pattern_row.hint.text())
    dialog.modality.setCurrentIndex(dialog.modality.findData("us"))
    button = dialog.deidentify_buttons["names"]
    button.setFocus()
    QTest.keyClick(button, Qt.Key.Key_Space)
    QTest.keyClick(dialog, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: bool(double.calls) and not window.tasks)
    [asked] = double.calls
    assert asked["labels"] == {"pz": ("1",), "gland": ("2",)}
    options = asked["options"]
    assert (options.split, options.group_by) == ("val", r"case_(\d)")
    assert (options.modality, options.deidentify) == ("us", "names")


def test_masks_without_any_target_hold_the_import_back(
    qtbot: QtBot, study: Study, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [FoundLabel("1", ""), FoundLabel("2", "")]
    monkeypatch.setattr("app.masks_part.labels_in", lambda *_, **__: labels)
    dialog = ImportDialog(None, study, [image_folder / "images"])
    qtbot.addWidget(dialog)
    dialog.show()
    qtbot.waitUntil(lambda: "at least one label" in dialog.problem.text())
    assert not dialog.import_button.isEnabled()
    QTest.mouseClick(dialog.masks.clear_button, LEFT)
    ready(qtbot, dialog)
    assert dialog.choice().masks is None and not dialog.problem.text()


def test_masks_of_one_label_ask_for_their_target(
    qtbot: QtBot, study: Study, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.set_targets(ZONES)
    monkeypatch.setattr("app.masks_part.labels_in", no_labels)
    dialog = ImportDialog(None, study, [image_folder / "images"])
    qtbot.addWidget(dialog)
    dialog.show()
    ready(qtbot, dialog)
    assert dialog.masks.target_row.isVisible()
    dialog.masks.target.setFocus()
    QTest.keyClick(dialog.masks.target, Qt.Key.Key_Down)
    assert dialog.choice().target == "pz"


def test_rows_of_volumes_and_videos_come_with_them(qtbot: QtBot, study: Study, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("a.dcm", "b.dcm", "c.nii.gz", "d.nrrd", "e.mp4", "f.png", "notes.txt"):
        (folder / name).write_bytes(b"x")
    dialog = ImportDialog(None, study, [folder / "f.png"])
    qtbot.addWidget(dialog)
    dialog.show()
    ready(qtbot, dialog)
    for row in (dialog.axis_row, dialog.every_row, dialog.modality_row, dialog.deidentify_row):
        assert not row.isVisible()
    drop_on(dialog, folder)
    qtbot.waitUntil(lambda: len(dialog.counts()) == 4)
    assert dialog.counts() == ["1 picture", "2 DICOM files", "2 volumes", "1 video"]
    rows = (dialog.axis_row, dialog.every_row, dialog.modality_row, dialog.deidentify_row)
    qtbot.waitUntil(lambda: all(row.isVisible() for row in rows))
    dialog.axis.setFocus()
    QTest.keyClick(dialog.axis, Qt.Key.Key_End)
    options = dialog.choice().options
    assert (options.axis, options.every) == (2, 25)
    QTest.mouseClick(dialog.clear_button, LEFT)
    assert not dialog.import_button.isEnabled() and dialog.drop_zone.isVisible()


def test_what_holds_no_images_is_said(qtbot: QtBot, study: Study, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    dialog = ImportDialog(None, study, [tmp_path / "empty"])
    qtbot.addWidget(dialog)
    qtbot.waitUntil(lambda: "no images here" in dialog.problem.text())
    dialog.add_paths([tmp_path / "gone"])
    qtbot.waitUntil(lambda: "does not exist" in dialog.problem.text())
    assert not dialog.import_button.isEnabled()


def test_closing_while_it_counts_is_harmless(qtbot: QtBot, study: Study, image_folder: Path) -> None:
    for _ in range(5):
        dialog = ImportDialog(None, study, [image_folder / "images"])
        dialog.show()
        dialog.reject()
    qtbot.wait(100)


def test_result_groups_a_thousand_reasons_and_can_be_copied(qtbot: QtBot) -> None:
    report = ImportReport(
        imported=("a",),
        skipped=(
            *((f"/d/{n}.png", f"/d/{n}.png is damaged.") for n in range(1000)),
            ("/d/x.bmp", "/d/x.bmp is no image."),
        ),
        notes=(("/d/v.nii", "It has no spacing."),),
        duplicates=("/d/twice.png",),
    )
    dialog = ImportResult(None, report)
    qtbot.addWidget(dialog)
    dialog.show()
    tops = [dialog.tree.topLevelItem(n) for n in range(dialog.tree.topLevelItemCount())]
    assert [top.text(0) for top in tops if top] == [
        "Left out (1,001)",
        "To know (1)",
        "In the study already (1)",
    ]
    first = tops[0]
    assert first is not None and first.childCount() == 2
    commonest = first.child(0)
    assert commonest is not None
    assert commonest.text(0) == "1,000 ×  … is damaged." and commonest.childCount() == 1000
    assert dialog.warning.isHidden()
    QTest.mouseClick(dialog.copy_button, LEFT)
    copied = QGuiApplication.clipboard().text()
    assert "/d/999.png: /d/999.png is damaged." in copied and "1,001 left out" in copied
    QTest.keyClick(dialog, Qt.Key.Key_Return)
    assert not dialog.isVisible()


def test_likely_text_leads_from_the_result_to_the_images(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path, double: ImportDouble
) -> None:
    marked = add_pictures(study, 2, text=True)
    double._report = {"burned_in": tuple(image.id for image in marked)}
    window = open_window(qtbot, tmp_path, study)
    page = page_of(window)
    qtbot.waitUntil(page.text_warning.isVisible)
    assert "2 images" in page.text_warning.text.text()
    page.take_files([image_folder / "images"])
    dialog = only(page, ImportDialog)
    dialog.masks.choose(None)
    ready(qtbot, dialog)
    QTest.mouseClick(dialog.import_button, LEFT)
    qtbot.waitUntil(lambda: any(one.isVisible() for one in page.findChildren(ImportResult)))
    result = only(page, ImportResult)
    assert "pixels of 2 images" in result.warning.text.text()
    QTest.mouseClick(result.warning.button, LEFT)
    looking = only(page, BurnedInDialog)
    assert len(looking.images) == 2
    QTest.keyClick(looking, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not window.tasks)


def test_masks_for_images_that_are_there(
    qtbot: QtBot, tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segmentation.masks import MaskReport

    add_pictures(study, 2)
    asked = []

    def double(study: Study, path: Path, **values: object) -> MaskReport:
        asked.append(path)
        return MaskReport(2, 2, ())

    monkeypatch.setattr("segmentation.masks.import_masks", double)
    monkeypatch.setattr("app.masks_part.labels_in", no_labels)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "truth"))
    window = open_window(qtbot, tmp_path, study)
    page = page_of(window)
    qtbot.waitUntil(lambda: page.overview.images == 2)
    QTest.mouseClick(page.cards["masks"], LEFT)
    dialog = only(page, MasksDialog)
    QTest.mouseClick(dialog.masks.folder_button, LEFT)
    qtbot.waitUntil(dialog.import_button.isEnabled)
    QTest.keyClick(dialog, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: window.banner.text.text() == "2 true masks came in, for 2 images.")
    assert asked == [tmp_path / "truth"]


def test_a_published_data_set_from_the_menu(
    qtbot: QtBot, tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def double(study: Study, name: str, folder: Path, **values: object) -> list[tuple[str, ImportReport]]:
        asked.append((name, folder, values["test_names"]))
        return [
            ("train", ImportReport(imported=("a",))),
            ("test", ImportReport(imported=("b", "c"), masks=3)),
        ]

    monkeypatch.setattr(segmentation.published, "import_dataset", double)
    (tmp_path / "set").mkdir()
    (tmp_path / "test.txt").write_text("x.png\n\ny.png\n")
    window = open_window(qtbot, tmp_path, study)
    page = page_of(window)
    menu = page.more_button.menu()
    menu.aboutToShow.emit()
    entries = {action.text(): action for action in menu.actions()}
    assert not entries["Similar images…"].isEnabled() and not entries["Import masks…"].isEnabled()
    entries["Published data set…"].trigger()
    dialog = only(page, PublishedDialog)
    QTest.keyClicks(dialog.folder.text, str(tmp_path / "nowhere"))
    assert "no such folder" in dialog.problem.text() and not dialog.import_button.isEnabled()
    dialog.folder.text.clear()
    QTest.keyClicks(dialog.folder.text, str(tmp_path / "set"))
    QTest.keyClicks(dialog.tests.text, str(tmp_path / "test.txt"))
    QTest.keyClick(dialog, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: window.banner.text.text() == "3 images came in. 3 true masks came with them.")
    assert asked == [("kvasir-seg", tmp_path / "set", ["x.png", "y.png"])]


def test_groups_masks_and_labels_are_guessed(tmp_path: Path) -> None:
    for name in ("set/imagesTr", "set/labelsTr", "other/a"):
        (tmp_path / name).mkdir(parents=True)
    assert propose_masks([tmp_path / "set" / "imagesTr"]) == tmp_path / "set" / "labelsTr"
    assert propose_masks([tmp_path / "set"]) == tmp_path / "set" / "labelsTr"
    assert propose_masks([tmp_path / "other"]) is None
    assert propose_masks([tmp_path / "set", tmp_path / "other"]) is None
    assert grouped(PER_FOLDER, [Path("/x/p 1/a.png"), Path("b.png")]) == [
        ("p 1/a.png", "p_1"),
        ("/b.png", ""),
    ]
    with pytest.raises(UserError, match="not a regular expression"):
        grouped("(", [])
    assert guessed_target(FoundLabel("1", "PROSTATE"), ZONES) == "gland"
    assert guessed_target(FoundLabel("1", ""), ZONES) is None


def test_equal_reasons_are_put_together() -> None:
    rows = by_reason([("/a/1.png", "x"), ("/a/2.png", "/a/2.png is cut."), ("/a/3.png", "3.png is cut.")])
    assert rows == [("… is cut.", ["/a/2.png", "/a/3.png"]), ("x", ["/a/1.png"])]


def test_labels_are_read_from_mask_files(study: Study, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    masks = tmp_path / "masks"
    masks.mkdir()
    for name, values in (("a", (0, 1)), ("b", (0, 1, 2)), ("c", (0, 255))):
        pixels = np.array(values, np.uint8).repeat(8)[None, :].repeat(8, axis=0)
        assert cv2.imwrite(str(masks / f"{name}.png"), pixels)
    assert labels_in(study, masks) == [FoundLabel("1", ""), FoundLabel("2", "")]
    (masks / "b.png").unlink()
    assert labels_in(study, masks) == []


def test_a_series_and_a_volume_come_in_for_real(
    qtbot: QtBot, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing stands in for anything here: files on disk, the dialog, the import, the page, the review."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    series = tmp_path / "raw" / "Smith_John"
    series.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(4):
        make(
            series / f"{index}.dcm",
            rng.integers(0, 900, (32, 40)).astype(np.int16),
            ImagePositionPatient=[0, 0, 3.0 * index],
        )
    nifti(tmp_path / "raw" / "scan.nii.gz", volume(1, (40, 32, 5)))
    window = open_window(qtbot, tmp_path, study)
    page = page_of(window)
    drop_on(page, tmp_path / "raw")
    dialog = only(window, ImportDialog)
    ready(qtbot, dialog)
    QTest.mouseClick(dialog.import_button, LEFT)
    qtbot.waitUntil(lambda: len(Study.open(study.folder).images) == 9, timeout=20000)
    qtbot.waitUntil(lambda: window.session.study is not None and len(window.session.study.images) == 9)
    opened = window.session.study
    assert opened is not None
    assert sorted(map(len, opened.volumes.values())) == [4, 5]
    assert not [path for path in study.folder.rglob("*") if "mith" in path.name]
    window.show_page("review")
    review = window.page("review")
    qtbot.waitUntil(lambda: window.session.image_id in opened.images)
    QTest.qWait(50)
    assert not review.grab().isNull()
