"""Images found by their descriptions: words, fields, numbers, the filter; read in the background, once each."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from app import described
from app.criteria import Criteria, Described, Row, text_of
from app.described import DescribedImages
from app.review_page import ReviewPage
from app.widgets import Fold
from segmentation.explaining import explain_study
from segmentation.explanation import Explanation, load_explanation, save_explanation
from segmentation.records import StudyImage
from segmentation.revising import edit
from segmentation.study import Study
from tests.window_support import fill, open_window

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)


def row(name: str, *said: Described) -> Row:
    image = StudyImage(name, f"images/{name}.png", f"{name}.png", "0" * 64, (4, 5, 3))
    return Row(name, image.source_name, image, "To review", "accent", described=said)


def told(by: str = "measured", model: str = "measured-1", text: str = "", **values: object) -> Described:
    return Described(by, model, tuple(values.items()), text)


ROWS = [
    row("a", told(boundary="sharp", area_percent=12.5, colour="red", text="sharp boundary")),
    row("b", told(boundary="moderately sharp", area_percent=40.0, colour="pink", colour_contrast="redder")),
    row(
        "c",
        told(
            "openai", "qwen2.5-vl", boundary="blurred", area_percent="cannot assess", text="a Sessile polyp"
        ),
    ),
    row("d"),
    row("e", dataclasses.replace(told(boundary="blurred", height_mm=7.0), edited=True, contradicted=True)),
    row("v", told(boundary="sharp", area_percent=3.0), told(boundary="blurred", area_percent=60.0)),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("boundary:sharp", "av"),
        ("boundary:shar", "abv"),
        ('boundary:"moderately sharp"', "b"),
        ("boundary:Blurred", "cev"),
        ("color:red", "a"),
        ("colour_contrast:redder", "b"),
        ("area>20", "bv"),
        ("area>=12.5 area<50", "abv"),
        ("area_percent<5%", "v"),
        ("height>6", "e"),
        ("area_percent:40", "b"),
        ("area:20", ""),
        ("by:measured", "abev"),
        ("by:qwen", "c"),
        ("by:vlm", "c"),
        ("has:contradiction", "e"),
        ("has:edits", "e"),
        ("has:description boundary:blurred", "cev"),
        ("has:unicorns", ""),
        ("edited", "e"),
        ("sessile", "c"),
        ("boundary:blurred by:measured", "ev"),
        ("boundary:", "abcdev"),
        ("12:30", ""),
        ("area>", ""),
    ],
)
def test_images_are_found_by_what_is_said_of_them(text: str, expected: str) -> None:
    found = Criteria(text).passing(ROWS, [text_of(one) for one in ROWS])
    assert "".join(ROWS[number].image_id for number in found) == expected


@pytest.fixture
def explained(study: Study, image_folder: Path) -> Study:
    fill(study, image_folder)
    explain_study(study)
    return study


def stored(study: Study, number: int = 0) -> Explanation:
    found = load_explanation(study, list(study.images)[number], "target")
    assert found is not None
    return found


def test_each_file_is_read_once_while_it_stands(
    explained: Study, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def noted(study: Study, image_id: str, target_id: str) -> Explanation | None:
        read.append(image_id)
        return load_explanation(study, image_id, target_id)

    monkeypatch.setattr(described, "load_explanation", noted)
    ids = list(explained.images)
    explained.explanation_path(ids[5], "target").write_text("{", "utf-8")
    known = DescribedImages()
    with qtbot.waitSignal(known.changed):
        known.ask(explained)
    assert sorted(read) == ids, "a damaged file is passed over"
    assert known.of(ids[5], "target") is None
    first = known.of(ids[0], "target")
    assert (
        first is not None
        and first.by == "measured"
        and first.words["shape"] == stored(explained).attributes["shape"]
    )
    read.clear()
    edit(explained, stored(explained, 1), "count", "several", "Dr. E")
    with qtbot.waitSignal(known.changed):
        known.ask(explained)
    assert set(read) == {ids[1], ids[5]}, "the changed one, and the damaged one again"
    now = known.of(ids[1], "target")
    assert now is not None and now.edited and now.words["count"] == "several"
    assert known.of(ids[0], "target") is first
    known.stop()


def test_search_and_filter_follow_an_edit_in_the_window(
    explained: Study, qtbot: QtBot, tmp_path: Path
) -> None:
    ids = list(explained.images)
    for number, word in enumerate(("sharp", "sharp", "blurred")):
        one = stored(explained, number)
        save_explanation(explained, dataclasses.replace(one, attributes={**one.attributes, "boundary": word}))
    window = open_window(qtbot, tmp_path, explained)
    window.show_page("review")
    page = window.page("review")
    assert isinstance(page, ReviewPage)
    qtbot.waitUntil(lambda: all(row.described for row in page.list.model.rows))
    QTest.keyClicks(page.list.search, "boundary:blurred")
    assert ids[2] in page.list.visible_ids() and ids[0] not in page.list.visible_ids()
    page.list.search.clear()
    QTest.mouseClick(page.list.filter.button, Qt.MouseButton.LeftButton)
    popup = page.list.filter.popup
    assert ("description", "edited") not in popup.boxes
    tick = popup.boxes["said:boundary", "blurred"]
    assert not tick.isVisible(), "an attribute's words are folded away"
    fold = next(one for one in popup.findChildren(Fold) if one.isAncestorOf(tick))
    fold.toggle.click()
    assert tick.isVisible()
    tick.click()
    assert ids[2] in page.list.visible_ids() and ids[0] not in page.list.visible_ids()
    assert page.list.filter.text.text() == "Boundary: blurred"
    popup.close()
    window.session.set_image(ids[0])
    page.description._edit("boundary", "blurred")
    qtbot.waitUntil(lambda: ids[0] in page.list.visible_ids())
    page.list.filter.open()
    popup.boxes["description", "edited"].click()
    assert page.list.visible_ids() == [ids[0]]
    popup.close()
    page.undo()
    qtbot.waitUntil(lambda: page.list.visible_ids() == [])
    QTest.mouseClick(page.list.filter.clear_button, Qt.MouseButton.LeftButton)
    assert page.list.visible_ids() == ids
