"""Targets, burned-in text, similar images and new studies in the window, by mouse and keys."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt, QTimer
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QMessageBox, QWidget
from pytestqt.qtbot import QtBot

from app.burned_in_dialog import BurnedInDialog
from app.jobs import StepProgress
from app.new_study_dialog import NewStudyDialog
from app.overview import survey
from app.similar_dialog import SimilarDialog
from app.study_cards import images_words
from app.targets_dialog import COLOURS, TargetsDialog
from gaze_capture.errors import UserError
from segmentation.images import read_stored
from segmentation.records import Target
from segmentation.study import Study
from tests.study_page_support import add_pictures
from tests.test_window_import import only, page_of
from tests.window_support import open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)

LEFT = Qt.MouseButton.LeftButton


def in_front(qtbot: QtBot, window: QWidget) -> None:
    """Make a window the active one, as a window manager does when a question closes."""
    window.activateWindow()
    qtbot.waitUntil(lambda: QApplication.activeWindow() is window)


# Targets


def test_targets_are_added_named_nested_and_stored(qtbot: QtBot, tmp_path: Path, study: Study) -> None:
    window = open_window(qtbot, tmp_path, study)
    page = page_of(window)
    QTest.mouseClick(page.targets_row.edit_button, LEFT)
    dialog = only(page, TargetsDialog)
    QTest.mouseClick(dialog.plus_button, LEFT)
    assert dialog.name.hasSelectedText(), "typing replaces the name it was given"
    QTest.keyClicks(dialog.name, "Peripheral zone")
    assert dialog.id.text() == "peripheral_zone", "an id that nobody chose follows the name"
    dialog.id.selectAll()
    QTest.keyClicks(dialog.id, "a zone")
    assert "cannot be a target's id" in dialog.problem.text() and not dialog.save_button.isEnabled()
    dialog.id.selectAll()
    QTest.keyClicks(dialog.id, "pz")
    assert not dialog.problem.text()
    QTest.mouseClick(dialog.colour_buttons["#CC79A7"], LEFT)
    dialog.kind.setFocus()
    QTest.keyClick(dialog.kind, Qt.Key.Key_End)
    dialog.inside.setFocus()
    QTest.keyClick(dialog.inside, Qt.Key.Key_End)
    QTest.keyClicks(dialog.code, "SCT:1")
    in_front(qtbot, dialog)
    QTest.keyClick(dialog, Qt.Key.Key_Up, Qt.KeyboardModifier.AltModifier)
    qtbot.waitUntil(lambda: [target.id for target in dialog.targets] == ["pz", "target"])
    QTest.mouseClick(dialog.save_button, LEFT)
    zone = Target("pz", "Peripheral zone", "#CC79A7", "zone", "target", "SCT:1")
    assert study.targets == (zone, Target())
    assert Study.open(study.folder).targets == study.targets
    assert "Peripheral zone" in page.targets_row.pills.accessibleName()


def test_a_target_with_masks_cannot_be_removed(qtbot: QtBot, study: Study) -> None:
    study.set_targets([Target(), Target("other", "Other")])
    [image] = add_pictures(study, 1)
    study.save_true_mask(image.id, "target", np.ones((64, 64), np.bool_))
    dialog = TargetsDialog(None, study.targets, study)
    qtbot.addWidget(dialog)
    dialog.show()
    assert not dialog.id.isEnabled(), "what is stored under an id stays there"
    QTest.mouseClick(dialog.remove_button, LEFT)
    assert "cannot be taken away" in dialog.problem.text()
    assert len(dialog.targets) == 2 and len(study.targets) == 2
    dialog.list.setFocus()
    QTest.keyClick(dialog.list, Qt.Key.Key_Down)
    QTest.mouseClick(dialog.remove_button, LEFT)
    assert [target.id for target in dialog.targets] == ["target"] and len(study.targets) == 2
    assert not dialog.remove_button.isEnabled(), "one stays"
    QTest.keyClick(dialog.name, Qt.Key.Key_Return)
    assert [target.id for target in study.targets] == ["target"]


def test_names_are_needed_and_rings_refused(qtbot: QtBot) -> None:
    dialog = TargetsDialog(None, [Target("a", "A", inside="b"), Target("b", "B", inside="a")])
    qtbot.addWidget(dialog)
    dialog.show()
    assert "inside of itself" in dialog.problem.text()
    dialog.inside.setFocus()
    QTest.keyClick(dialog.inside, Qt.Key.Key_Home)
    assert dialog.problem.text() == ""
    dialog.name.clear()
    QTest.keyClicks(dialog.name, " ")
    assert "needs a name" in dialog.problem.text()
    assert len({colour for colour, _ in COLOURS}) == 8


# New study


def test_a_new_study_gets_its_name_and_targets(qtbot: QtBot, tmp_path: Path) -> None:
    window = open_window(qtbot, tmp_path)
    page = page_of(window)
    QTest.keyClick(window, Qt.Key.Key_N, Qt.KeyboardModifier.ControlModifier)
    dialog = only(page, NewStudyDialog)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    QTest.keyClicks(dialog.folder.text, str(tmp_path / "full"))
    QTest.keyClick(dialog, Qt.Key.Key_Return)
    assert "is not empty" in dialog.problem.text() and dialog.isVisible()
    QTest.keyClicks(dialog.folder.text, "2")
    QTest.keyClicks(dialog.name, "Prostate")
    QTest.mouseClick(dialog.targets_row.edit_button, LEFT)
    targets = only(dialog, TargetsDialog)
    targets.name.selectAll()
    QTest.keyClicks(targets.name, "Gland")
    assert targets.id.text() == "gland", "nothing is stored yet: the id follows the name"
    QTest.mouseClick(targets.save_button, LEFT)
    QTest.mouseClick(dialog.create_button, LEFT)
    study = window.session.study
    assert study is not None and study.folder == tmp_path / "full2" and study.name == "Prostate"
    assert study.targets == (Target("gland", "Gland"),)


# Text in the pixels


@pytest.fixture
def marked(qtbot: QtBot, study: Study) -> BurnedInDialog:
    """Return the dialog on two marked images of 64 pixels and one of 96."""
    add_pictures(study, 1)
    add_pictures(study, 2, seed=10, text=True)
    add_pictures(study, 1, seed=20, text=True, size_px=96)
    dialog = BurnedInDialog(None, study)
    qtbot.addWidget(dialog)
    with qtbot.waitExposed(dialog):
        dialog.show()
    return dialog


def drag(dialog: BurnedInDialog, x: int, y: int, width: int, height: int) -> None:
    """Drag over a rectangle of image pixels."""
    area = dialog.canvas.on_screen((x, y, width, height)).toRect()
    QTest.mousePress(dialog.canvas, LEFT, pos=area.topLeft())
    QTest.mouseMove(dialog.canvas, area.center())
    QTest.mouseRelease(dialog.canvas, LEFT, pos=area.bottomRight() + QPoint(1, 1))


def answer(words: str, *, tick: bool = False) -> list[str]:
    """Press a button of the question that comes up; return what it will have said."""
    said: list[str] = []

    def press() -> None:
        box = next(one for one in QApplication.topLevelWidgets() if isinstance(one, QMessageBox))
        said.extend([box.text(), box.informativeText()])
        if tick:
            QTest.mouseClick(box.checkBox(), LEFT, pos=QPoint(8, box.checkBox().height() // 2))
        [button] = [one for one in box.buttons() if one.text() == words]
        QTest.mouseClick(button, LEFT)

    QTimer.singleShot(50, press)
    return said


def test_text_is_blanked_where_it_was_dragged_over(
    qtbot: QtBot, study: Study, marked: BurnedInDialog
) -> None:
    assert marked.place.text() == "1 of 3" and not marked.blank_button.isEnabled()
    before = read_stored(study.image_path(study.image("text-0010"))).copy()
    drag(marked, 0, 4, 64, 14)
    drag(marked, 20, 40, 10, 10)
    assert len(marked.canvas.rectangles) == 2
    QTest.keyClick(marked, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    [(x, y, width, height)] = marked.canvas.rectangles
    assert abs(x) <= 1 and abs(y - 4) <= 1 and abs(width - 64) <= 1 and abs(height - 14) <= 2
    said = answer("Cancel")
    QTest.keyClick(marked, Qt.Key.Key_Return)
    assert "1 place in 1 image" in said[0] and "cannot be undone" in said[1]
    np.testing.assert_array_equal(read_stored(study.image_path(study.image("text-0010"))), before)
    answer("Blank for good")
    QTest.keyClick(marked, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: len(marked.images) == 2)
    after = read_stored(study.image_path(study.image("text-0010")))
    covered = after[y : y + height, x : x + width]
    assert (covered == covered.flat[0]).all()
    np.testing.assert_array_equal(after[30:], before[30:])
    assert study.image("text-0010").burned_in == "" and marked.name.text() == "text-0011.png"


def test_same_rectangles_for_all_of_one_size(qtbot: QtBot, study: Study, marked: BurnedInDialog) -> None:
    assert marked.same_size.text() == "Same rectangles for all 2 of this size"
    QTest.keyClick(marked, Qt.Key.Key_T)
    QTest.keyClick(marked, Qt.Key.Key_T)
    assert marked.canvas.rectangles == [(0, 0, 64, 12)]
    QTest.mouseClick(marked.same_size, LEFT, pos=QPoint(8, marked.same_size.height() // 2))
    assert marked.blank_button.text() == "Blank 2 images for good"
    said = answer("Blank for good", tick=True)
    QTest.mouseClick(marked.blank_button, LEFT)
    qtbot.waitUntil(lambda: len(marked.images) == 1)
    assert "2 images" in said[0]
    assert marked.same_size.isHidden() and marked.image is not None and marked.image.shape[:2] == (96, 96)
    # Not asked again: the person said so.
    in_front(qtbot, marked)
    QTest.keyClick(marked, Qt.Key.Key_B)
    QTest.keyClick(marked, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: not marked.images)
    assert marked.empty.isVisible() and not survey(study).burned_in


def test_images_without_text_are_said_to_have_none(
    qtbot: QtBot, study: Study, marked: BurnedInDialog
) -> None:
    drag(marked, 10, 10, 20, 20)
    QTest.keyClick(marked, Qt.Key.Key_Right)
    assert marked.place.text() == "2 of 3" and not marked.canvas.rectangles
    QTest.keyClick(marked, Qt.Key.Key_Left)
    assert len(marked.canvas.rectangles) == 1, "what was drawn is kept"
    QTest.mouseClick(marked.clear_button, LEFT)
    QTest.keyClick(marked, Qt.Key.Key_Left)
    assert marked.place.text() == "3 of 3"
    files = {image.id: study.image_path(image).read_bytes() for image in study.images.values()}
    for _ in range(3):
        before = marked.image
        QTest.keyClick(marked, Qt.Key.Key_N)
        qtbot.waitUntil(lambda before=before: marked.image is not before)  # type: ignore[misc]
    assert not any(image.burned_in for image in study.images.values())
    assert files == {image.id: study.image_path(image).read_bytes() for image in study.images.values()}


# Similar images


@dataclasses.dataclass(frozen=True)
class Suggested:
    groups: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Across:
    images: tuple[str, ...]
    splits: tuple[str, ...]


class GroupingDouble:
    """Suggests the groups it is given."""

    def __init__(self, *groups: tuple[str, ...]) -> None:
        self.groups = groups
        self.applied: list[tuple[tuple[str, ...], ...]] = []
        self.across: list[Across] = []
        self.fails = False

    def suggest_groups(self, study: Study, progress: StepProgress) -> Suggested:
        progress(1, 2, "a")
        if self.fails:
            raise UserError("The study has fewer than two images.")
        return Suggested(self.groups)

    def apply_groups(self, study: Study, suggestion: Suggested) -> int:
        self.applied.append(suggestion.groups)
        self.across = [Across(suggestion.groups[0], ("test", "train"))]
        return sum(map(len, suggestion.groups))

    def leaks(self, study: Study) -> list[Across]:
        return self.across

    def mend_splits(self, study: Study) -> int:
        self.across = []
        return 2


def opened(qtbot: QtBot, make: Callable[[], QWidget]) -> None:
    dialog = make()
    qtbot.addWidget(dialog)
    with qtbot.waitExposed(dialog):
        dialog.show()


def test_checked_groups_are_applied_and_splits_mended(qtbot: QtBot, study: Study) -> None:
    ids = [image.id for image in add_pictures(study, 7)]
    double = GroupingDouble(tuple(ids[:2]), tuple(ids[2:5]), tuple(ids[5:]))
    dialog = SimilarDialog(None, study, double)
    opened(qtbot, lambda: dialog)
    told: list[str] = []
    dialog.stored.connect(told.append)
    QTest.keyClick(dialog, Qt.Key.Key_Return)
    qtbot.waitUntil(dialog.results.isVisible)
    assert len(dialog.checks) == 3 and dialog.apply_button.text() == "Make 3 groups"
    # The largest comes first; the second is none, the person sees.
    dialog.checks[1].setFocus()
    QTest.keyClick(dialog.checks[1], Qt.Key.Key_Space)
    assert dialog.count.text() == "2 of 3 groups chosen, 5 images"
    QTest.mouseClick(dialog.apply_button, LEFT)
    qtbot.waitUntil(lambda: len(dialog.checks) == 1)
    assert double.applied == [(tuple(ids[2:5]), tuple(ids[5:]))]
    qtbot.waitUntil(dialog.leak.isVisible)
    QTest.mouseClick(dialog.leak.button, LEFT)
    qtbot.waitUntil(dialog.leak.isHidden)
    assert told == ["5 images joined a group.", "2 images moved to the split of their group."]
    QTest.mouseClick(dialog.none_button, LEFT)
    assert not dialog.apply_button.isEnabled()


def test_nothing_alike_and_failures_are_said(qtbot: QtBot, study: Study) -> None:
    double = GroupingDouble()
    double.fails = True
    dialog = SimilarDialog(None, study, double)
    opened(qtbot, lambda: dialog)
    QTest.mouseClick(dialog.look_button, LEFT)
    qtbot.waitUntil(lambda: "fewer than two" in dialog.problem.text())
    double.fails = False
    QTest.mouseClick(dialog.look_button, LEFT)
    qtbot.waitUntil(lambda: "look alike" in dialog.state.sentence.text())
    assert not dialog.problem.text() and dialog.results.isHidden()


@pytest.mark.skipif(
    importlib.util.find_spec("segmentation.grouping") is None, reason="what finds groups is not there"
)
def test_copies_are_found_for_real(qtbot: QtBot, study: Study) -> None:
    first = add_pictures(study, 3, size_px=128)
    second = add_pictures(study, 1, seed=50, size_px=128, split="test")
    copy = dataclasses.replace(second[0], path=first[0].path, sha256=first[0].sha256)
    study.add_images([copy])
    dialog = SimilarDialog(None, study)
    opened(qtbot, lambda: dialog)
    QTest.mouseClick(dialog.look_button, LEFT)
    qtbot.waitUntil(dialog.results.isVisible, timeout=60000)
    QTest.mouseClick(dialog.apply_button, LEFT)
    qtbot.waitUntil(dialog.leak.isVisible, timeout=10000)
    assert study.image(copy.id).group == study.image(first[0].id).group
    QTest.mouseClick(dialog.leak.button, LEFT)
    qtbot.waitUntil(dialog.leak.isHidden, timeout=10000)
    assert study.image(first[0].id).split == "test"


# The page


def test_images_card_counts_volumes_patients_and_splits(qtbot: QtBot, tmp_path: Path, study: Study) -> None:
    add_pictures(study, 3)
    assert survey(study).patients is None
    add_pictures(study, 2, seed=10, volume="v1", group="p1")
    add_pictures(study, 2, seed=20, volume="v2", group="p1", split="test")
    add_pictures(study, 1, seed=30, split="val")
    counted = survey(study)
    assert (counted.images, counted.volumes, counted.patients) == (8, 2, 5)
    words = "2 volumes · 5 patients · 2 for testing · 1 val"
    window = open_window(qtbot, tmp_path, study)
    page = page_of(window)
    assert images_words(page, counted) == words
    qtbot.waitUntil(lambda: page.cards["images"].missing.text() == words)
    assert page.similar_button.isVisible() and page.text_warning.isHidden()
    QTest.mouseClick(page.similar_button, LEFT)
    dialog = only(page, SimilarDialog)
    QTest.keyClick(dialog, Qt.Key.Key_Escape)
    assert not dialog.isVisible()
