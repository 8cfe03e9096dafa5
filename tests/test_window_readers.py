"""Second reads, audits and the story of a pixel in the window, by real mouse and key events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QInputDialog
from pytestqt.qtbot import QtBot

from app.blinding import blinded
from app.main_window import MainWindow
from app.review_page import ReviewPage
from app.scene import LAYERS, Outline, build_scene
from segmentation.blind_reading import draw_audit
from segmentation.study import Study
from segmentation.text.attention import AttentionMaps
from tests.reader_support import left_for, review
from tests.test_window_review import page_of, predict, press
from tests.window_support import fill, make_volume_study, open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)


@pytest.fixture
def window(qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path) -> MainWindow:
    """Four of six images were reviewed by somebody else."""
    fill(study, image_folder)
    predict(study)
    for image_id in list(study.images)[:4]:
        mask = study.true_mask(image_id, "target")
        assert mask is not None
        review(study, image_id, "Dr. Other", mask, subject="run-x")
    made = open_window(qtbot, tmp_path, study)
    made.show_page("review")
    return made


def choose(page: ReviewPage, purpose: str) -> None:
    page.reading.choice.setCurrentIndex(page.reading.choice.findData(purpose))


def said_in(page: ReviewPage) -> str:
    """Everything that the inspector and the list tell at this moment."""
    from PySide6.QtWidgets import QLabel

    words = [one.text() for one in page.findChildren(QLabel) if one.isVisible()]
    words += [page.inspector.pill.accessibleName()] if page.inspector.pill.isVisible() else []
    rows = page.list.model.rows
    return "\n".join([*words, *(f"{row.state} {row.presence} {row.described}" for row in rows)])


def test_blind_scenes_hold_nothing_to_see(window: MainWindow, study: Study) -> None:
    first = next(iter(study.images))
    words = AttentionMaps(("a",), ("b",), np.zeros((1, 4, 4), np.float32), np.zeros((4, 4), np.float32), 1)
    scene = replace(
        build_scene(study, first, "target", "run-x", others=True),
        annotators=Outline(()),
        words=words,
        doubt=np.zeros(study.image(first).shape[:2], np.uint8),
        teacher=Outline(()),
        disagreement=Outline(()),
        unread="reviews/.../20260101-dr-other.png is damaged",
    )
    assert scene.available == set(LAYERS) and scene.verdict, "all there is to hide"
    assert blinded(scene, "review") is scene
    second = blinded(scene, "second-read")
    # Where annotators differ is what others said, too.
    assert second.available == set(LAYERS) - {"reviewed", "truth", "annotators"} and second.verdict is None
    assert second.student_probability is not None and second.others == () and second.reviewed_by == ""
    assert second.unread == "", "it names who reviewed"
    audit = blinded(scene, "audit")
    assert audit.available == frozenset() and audit.run_id is None and audit.region is None
    assert audit.image is scene.image and audit.opened_window == scene.opened_window


def test_a_second_read_sees_no_verdict_and_decides_nothing(window: MainWindow, study: Study) -> None:
    page, ids = page_of(window), list(study.images)
    window.session.set_image(ids[5])
    assert "Dr. Other" not in said_in(page)
    window.session.set_image(ids[1])
    assert "Dr. Other" in said_in(page), "the usual review tells whose it is"
    choose(page, "second-read")
    assert page.list.visible_ids() == ids[:4], "what others reviewed"
    assert window.session.image_id == ids[0] and page.verdict_bar.progress.text() == "0 of 4 read"
    told = said_in(page)
    assert "Dr. Other" not in told and "Edited" not in told and "present" not in told
    assert page.canvas.scene is not None
    assert (
        not {"reviewed", "truth"} & page.canvas.scene.available and "student" in page.canvas.scene.available
    )
    press(window, Qt.Key.Key_A)
    press(window, Qt.Key.Key_R)
    press(window, Qt.Key.Key_0)
    assert page.verdict_bar.progress.text() == "3 of 4 read" and window.session.image_id == ids[3]
    given = [study.reviews(image_id, "target")[-1] for image_id in ids[:3]]
    assert [(one.purpose, one.annotator, one.verdict) for one in given] == [
        ("second-read", "Dr. Test", "accepted"),
        ("second-read", "Dr. Test", "rejected"),
        ("second-read", "Dr. Test", "edited"),
    ]
    assert {one.annotator for one in study.reviewed().values()} == {"Dr. Other"}
    assert study.presence(ids[2], "target") == "present", "a second read is no word that counts"
    press(window, Qt.Key.Key_Z)
    assert page.verdict_bar.progress.text() == "2 of 4 read" and window.session.image_id == ids[2]
    choose(page, "review")
    assert len(page.list.visible_ids()) == 6 and "Dr. Other" in said_in(page)


def test_an_audit_shows_the_bare_image(window: MainWindow, study: Study) -> None:
    page = page_of(window)
    draw = draw_audit(study, 3, 5)
    choose(page, "audit")
    assert page.list.visible_ids() == list(draw.image_ids), "in the order drawn"
    assert window.session.image_id == draw.image_ids[0]
    assert page.canvas.scene is not None and not page.canvas.scene.available
    for part in (
        page.inspector.layers,
        page.description,
        page.inspector.provenance,
        page.runs,
        page.inspector.pill,
    ):
        assert not part.isVisible()
    assert not page.verdict_bar.accept_button.isEnabled() and not page.verdict_bar.reject_button.isEnabled()
    press(window, Qt.Key.Key_A)
    assert left_for(study, "Dr. Test", "audit") == draw.keys, "there is nothing to accept"
    press(window, Qt.Key.Key_0)
    press(window, Qt.Key.Key_U)
    first, second, last = draw.image_ids
    stored = study.reviews(first, "target")[-1]
    assert (stored.purpose, stored.subject, stored.presence) == ("audit", "image", "absent")
    assert study.reviews(second, "target")[-1].presence == "ungradable"
    mask = study.audit_mask(first, "target")
    assert mask is not None and not mask.any() and study.audit_mask(second, "target") is None
    assert left_for(study, "Dr. Test", "audit") == [(last, "target")]
    other = next(image_id for image_id in study.images if image_id not in draw.image_ids)
    window.session.set_image(other)
    press(window, Qt.Key.Key_0)
    assert all(one.purpose != "audit" for one in study.reviews(other, "target")), "it was not drawn"
    window.session.set_annotator("Dr. Third")
    assert page.verdict_bar.progress.text() == "0 of 3 read", "each annotator has their own"


def test_images_are_drawn_in_the_window(
    window: MainWindow, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(window)
    choose(page, "audit")
    assert page.list.visible_ids() == []
    monkeypatch.setattr(QInputDialog, "getInt", lambda *_: (2, True))
    QTest.mouseClick(page.reading.draw_button, Qt.MouseButton.LeftButton)
    assert len(page.list.visible_ids()) == 2 and window.session.image_id == page.list.visible_ids()[0]


def test_a_filter_hides_nothing_that_is_to_be_read_blind(window: MainWindow, study: Study) -> None:
    page = page_of(window)
    page.list.filter.choose((("presence", frozenset({"absent"})),))
    page.list.search.setText("case")
    choose(page, "second-read")
    assert page.list.visible_ids() == list(study.images)[:4] and page.list.search.text() == ""


def test_undo_takes_back_nothing_that_was_said_for_another_purpose(window: MainWindow, study: Study) -> None:
    page, ids = page_of(window), list(study.images)
    window.session.set_image(ids[4])
    press(window, Qt.Key.Key_A)
    draw_audit(study, 2, 1)
    choose(page, "audit")
    press(window, Qt.Key.Key_Z)
    assert len(study.reviews(ids[4], "target")) == 1 and not page.verdict_bar.undo_button.isEnabled()


@pytest.mark.parametrize("shown", ["review", "study"])
def test_undo_takes_back_nothing_that_another_annotator_said(
    window: MainWindow, study: Study, shown: str
) -> None:
    page, ids = page_of(window), list(study.images)
    window.session.set_image(ids[4])
    press(window, Qt.Key.Key_A)
    assert page.verdict_bar.undo_button.isEnabled()
    window.show_page(shown)
    window.session.set_annotator("Dr. Third")
    window.show_page("review")
    assert not page.verdict_bar.undo_button.isEnabled()
    press(window, Qt.Key.Key_Z)
    assert [one.annotator for one in study.reviews(ids[4], "target")] == ["Dr. Test"]


def test_what_is_not_asked_for_is_not_outlined(window: MainWindow, study: Study) -> None:
    page = page_of(window)
    draw = draw_audit(study, 2, 1)
    choose(page, "audit")
    window.session.set_image(next(name for name in study.images if name not in draw.image_ids))
    press(window, Qt.Key.Key_E)
    assert not page.editing.active and "not among what you are asked to read" in window.banner.text.text()


def test_what_was_reviewed_before_is_not_asked_for_in_an_audit(window: MainWindow, study: Study) -> None:
    page = page_of(window)
    press(window, Qt.Key.Key_0)
    (seen,) = (key[0] for key, found in study.all_reviews().items() if found[-1].annotator == "Dr. Test")
    draw = draw_audit(study, len(study.images), 1)
    choose(page, "audit")
    assert page.list.visible_ids() == [name for name in draw.image_ids if name != seen]
    assert "you have reviewed before and are not asked for: 1." in said_in(page)
    choose(page, "review")
    assert "not asked for" not in said_in(page)


@pytest.mark.parametrize(
    ("purpose", "told"), [("audit", "draw images with + first"), ("second-read", "nobody else has reviewed")]
)
def test_with_nothing_to_read_it_says_so_and_takes_no_verdict(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path, purpose: str, told: str
) -> None:
    fill(study, image_folder)
    predict(study)
    window = open_window(qtbot, tmp_path, study)
    window.show_page("review")
    page = page_of(window)
    QTest.keyClick(page.reading.choice, Qt.Key.Key_End if purpose == "audit" else Qt.Key.Key_Down)
    assert page.reading.purpose == purpose
    assert told in said_in(page) and page.canvas.scene is None and not page.canvas.isVisible()
    bar = page.verdict_bar
    for button in (bar.accept_button, bar.edit_button, bar.reject_button, bar.nothing_button):
        assert not button.isEnabled()
    for key in (Qt.Key.Key_A, Qt.Key.Key_0, Qt.Key.Key_E):
        QTest.keyClick(window.focusWidget(), key)
    assert not study.all_reviews() and not page.editing.active
    window.show_page("study")
    window.show_page("review")
    assert told in said_in(page)
    QTest.keyClick(page.reading.choice, Qt.Key.Key_Home)
    assert page.canvas.isVisible() and page.canvas.scene is not None and bar.accept_button.isEnabled()


def test_who_has_read_all_is_told_and_may_take_it_back_or_read_again(
    window: MainWindow, study: Study
) -> None:
    page, ids = page_of(window), list(study.images)
    choose(page, "second-read")
    for _ in range(4):
        assert page.canvas.isVisible()
        press(window, Qt.Key.Key_A)
    assert "Nothing is left to read" in said_in(page) and not page.canvas.isVisible()
    assert not page.verdict_bar.accept_button.isEnabled() and page.verdict_bar.undo_button.isEnabled()
    QTest.keyClick(window.focusWidget(), Qt.Key.Key_Z)
    assert page.canvas.isVisible() and page.verdict_bar.progress.text() == "3 of 4 read"
    assert window.session.image_id == ids[3] and page.verdict_bar.accept_button.isEnabled()
    QTest.keyClick(window.focusWidget(), Qt.Key.Key_A)
    assert not page.canvas.isVisible()
    choose(page, "review")
    assert page.canvas.isVisible()
    choose(page, "second-read")
    assert "Nothing is left to read" in said_in(page)
    QTest.keyClick(window.focusWidget(), Qt.Key.Key_Backspace)
    assert page.canvas.isVisible() and page.verdict_bar.reject_button.isEnabled(), "one may correct oneself"


def test_what_is_not_asked_for_takes_no_verdict(window: MainWindow, study: Study) -> None:
    page, ids = page_of(window), list(study.images)
    choose(page, "second-read")
    window.session.set_image(ids[5])
    assert page.canvas.isVisible() and not page.verdict_bar.accept_button.isEnabled()
    window.session.set_image(ids[0])
    assert page.verdict_bar.accept_button.isEnabled()


def test_a_damaged_draw_is_told_and_no_mask_is_shown(window: MainWindow, study: Study) -> None:
    page = page_of(window)
    draw_audit(study, 2, 1)
    broken = study.folder / "audits" / "audit-20260101-000000-aaaaaa.json"
    broken.write_text("{")
    choose(page, "audit")
    assert broken.name in window.banner.text.text() and page.list.visible_ids() == []
    assert page.canvas.scene is None and not page.canvas.isVisible()
    press(window, Qt.Key.Key_E)
    assert not page.editing.active


def test_another_study_or_annotator_chosen_on_another_page_ends_blind_reading_quietly(
    window: MainWindow, study: Study, tmp_path: Path
) -> None:
    page, ids = page_of(window), list(study.images)
    choose(page, "second-read")
    press(window, Qt.Key.Key_E)
    window.show_page("study")
    window.session.set_image(ids[3])
    window.session.set_annotator("Dr. Third")
    assert window.session.image_id == ids[3], "what others show stays"
    window.banner.hide()
    window.session.set_study(make_volume_study(tmp_path / "other"))
    assert not window.banner.isVisible() and page.reading.purpose == "review" and not page.editing.active
    window.show_page("review")
    assert page.canvas.scene is not None and page.canvas.scene.image_id == window.session.image_id


def test_alt_click_tells_where_a_pixel_comes_from(window: MainWindow, study: Study, qtbot: QtBot) -> None:
    page, first = page_of(window), next(iter(study.images))
    mask = study.true_mask(first, "target")
    assert mask is not None
    y, x = (int(axis.mean()) for axis in np.nonzero(mask))
    place = page.canvas.widget_from_image(x, y).toPoint()
    QTest.mouseClick(page.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.AltModifier, place)
    qtbot.waitUntil(lambda: page.inspector.provenance.story is not None)
    story = page.inspector.provenance.story
    assert story is not None and story.pixel == (x, y)
    qtbot.waitUntil(lambda: all(line.text in said_in(page) for line in story.lines))
    assert any("of Dr. Test in import-test" in line.text for line in story.lines)
    assert page.canvas._highlight is not None and not page.canvas._highlight.area.empty
    press(window, Qt.Key.Key_Space)
    assert page.inspector.provenance.story is None and page.canvas._highlight is None, (
        "it was of the other image"
    )
    QTest.mouseMove(page.canvas, page.canvas.widget_from_image(3, 4).toPoint())
    page.canvas.cursor_moved.emit((3.2, 4.1))
    press(window, Qt.Key.Key_H)
    qtbot.waitUntil(lambda: page.inspector.provenance.story is not None)
    assert page.inspector.provenance.story is not None and page.inspector.provenance.story.pixel == (3, 4)
    press(window, Qt.Key.Key_H)
    assert page.inspector.provenance.story is None, "asked again, it ends"
    outside = QPoint(2, 2)
    QTest.mouseClick(page.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.AltModifier, outside)
    assert page.inspector.provenance.story is None


def test_a_blind_reader_is_told_no_reviews_of_a_pixel(window: MainWindow, study: Study, qtbot: QtBot) -> None:
    page = page_of(window)
    draw_audit(study, 2, 1)
    choose(page, "second-read")
    page.canvas.asked.emit((20.0, 20.0))
    qtbot.waitUntil(lambda: page.inspector.provenance.story is not None)
    assert "Dr. Other" not in said_in(page) and "true mask" not in said_in(page)
    choose(page, "audit")
    assert page.inspector.provenance.story is None or not page.inspector.provenance.isVisible()
    page.canvas.asked.emit((20.0, 20.0))
    assert page.canvas._highlight is None


def test_no_mask_is_carried_to_the_next_slice_of_a_blind_read(qtbot: QtBot, tmp_path: Path) -> None:
    study = make_volume_study(tmp_path / "volume")
    draw_audit(study, len(study.images), 1)
    window = open_window(qtbot, tmp_path, study)
    window.show_page("review")
    page = page_of(window)
    middle = next(image.id for image in study.images.values() if image.slice_index == 3)
    for purpose, offered in (("review", True), ("audit", False)):
        choose(page, purpose)
        window.session.set_image(middle)
        press(window, Qt.Key.Key_E)
        assert page.editing.active and page.editing.column.copy.isVisible() == offered
        if offered:
            page.editing.leave()
    page.editing.copy_on()
    assert page.editing.active and page.editing.draft.header.image_id == middle and study.all_reviews() == {}


def test_a_pixel_is_asked_about_again_after_a_failure_and_none_beside_the_image(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page, first = page_of(window), next(iter(study.images))
    path = study.prediction_path("run-x", first, "target")
    kept = path.read_bytes()
    path.write_bytes(b"no prediction")
    page.canvas.asked.emit((20.0, 20.0))
    qtbot.waitUntil(lambda: path.name in window.banner.text.text(), timeout=20000)
    path.write_bytes(kept)
    page.canvas.asked.emit((20.0, 20.0))
    qtbot.waitUntil(lambda: page.inspector.provenance.story is not None, timeout=20000)
    story = page.inspector.provenance.story
    window.banner.hide()
    # As left by a larger image that was shown before.
    page.canvas.cursor_moved.emit((400.0, 20.0))
    press(window, Qt.Key.Key_H)
    qtbot.wait(100)
    assert page.inspector.provenance.story is story and not window.banner.isVisible()
