"""The list of images: words, fields, chosen values; quick with ten thousand rows."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.criteria import Criteria, Row, text_of
from app.image_list import ImageList
from gaze_capture.fixation_table import Look, read_fixation_table
from gaze_capture.fixations import Fixations
from segmentation.gaze_index import look_quality
from segmentation.records import StudyImage, utc_now
from segmentation.study import Review, Study
from tests.window_support import open_window

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)


def row(number: int, **changes: object) -> Row:
    image = StudyImage(
        f"id-{number:05}", f"images/id-{number:05}.png", f"Scan {number:05}.PNG", f"{number:064}", (4, 5, 3),
        split="test" if number % 5 == 0 else "train", group=f"patient-{number // 10}",
    )  # fmt: skip
    values = {"state": "Gaze" if number % 2 else "No gaze", "token": "accent", **changes}
    return Row(image.id, image.source_name, image, **values)  # type: ignore[arg-type]


ROWS = [
    row(n, presence=("present", "absent", None)[n % 3], quality=("ok", "brief", "few", None)[n % 4])
    for n in range(1000)
]


def passing(text: str = "", state: str | None = None, **chosen: str) -> list[int]:
    criteria = Criteria(text, state, tuple((field, frozenset([value])) for field, value in chosen.items()))
    return criteria.passing(ROWS, [text_of(one) for one in ROWS])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", list(range(1000))),
        ("scan 00012", [12]),
        ("ID-00034", [34]),
        ("split:test", list(range(0, 1000, 5))),
        ("split:te", list(range(0, 1000, 5))),
        ("group:patient-7", list(range(70, 80))),
        ("patient:patient-7 split:test", [70, 75]),
        ('group:"patient-7" 0007', list(range(70, 80))),
        ("group:patient-99", list(range(990, 1000))),
        ("patient-98 split:test", [980, 985]),
        ("test 00995", [995]),
        ("presence:absent group:patient-1", [10, 13, 16, 19]),
        ("gaze:few id:id-0000", [2, 6]),
        ("state:none", []),
        ("12:30", []),
        ("split:", list(range(1000))),
    ],
)
def test_words_and_fields(text: str, expected: list[int]) -> None:
    assert passing(text) == expected


def test_chosen_values_and_a_state_narrow_further() -> None:
    assert passing("group:patient-0", "Gaze", split="test") == [5]
    assert passing(presence="", quality="") == list(range(11, 1000, 12))


def test_an_unfinished_edit_of_any_slice_marks_its_volume_and_stays_when_rows_change(qtbot: QtBot) -> None:
    made = made_list(qtbot, [row(0), row(1, slices=("id-00001", "id-00001-b")), row(2)])
    made.mark_unfinished({"id-00001-b", "id-00002"})
    assert [one.unfinished for one in made.model.rows] == [False, True, True]
    made.model.set_row(row(2, state="Gaze"))
    made.set_rows([row(2), row(0)])
    assert [one.unfinished for one in made.model.rows] == [True, False]
    made.narrow_to(Criteria(chosen=(("edit", frozenset(["unfinished"])),)))
    assert made.visible_ids() == ["id-00002"]
    made.mark_unfinished(set())
    assert made.visible_ids() == []


def test_gaze_is_judged_by_the_headers() -> None:
    def look(viewing_ms: float, count: int, inside: int) -> Look:
        return Look("a", "t", "anna", "s", None, None, viewing_ms, count, inside)

    assert look_quality([]) is None
    assert look_quality([look(900, 9, 9)]) == "brief"
    assert look_quality([look(900, 9, 9), look(900, 9, 9)]) == "ok"
    assert look_quality([look(3000, 2, 2)]) == "few"
    assert look_quality([look(3000, 20, 9)]) == "few"
    assert look_quality([look(3000, 20, 10)]) == "ok"


def made_list(qtbot: QtBot, rows: list[Row]) -> ImageList:
    made = ImageList("Images", ["Gaze", "No gaze"])
    qtbot.addWidget(made)
    made.resize(264, 800)
    made.thumbnails.get = lambda image: None  # type: ignore[method-assign]
    made.set_rows(rows)
    with qtbot.waitExposed(made):
        made.show()
    return made


def test_the_filter_offers_what_occurs_and_says_what_is_filtered(qtbot: QtBot) -> None:
    made = made_list(qtbot, list(ROWS))
    assert made.count.text() == "1,000" and made.filter.isHidden()
    QTest.mouseClick(made.filter.button, Qt.MouseButton.LeftButton)
    popup = made.filter.popup
    assert popup.isVisible()
    assert set(popup.boxes) == {
        ("split", "test"), ("split", "train"), ("presence", "present"), ("presence", "absent"), ("presence", ""),
        ("quality", "ok"), ("quality", "brief"), ("quality", "few"), ("quality", ""),
    }  # fmt: skip
    assert popup.boxes["split", "test"].text() == "test  200"
    popup.boxes["split", "test"].click()
    assert made.count.text() == "200 of 1,000"
    popup.boxes["presence", "absent"].click()
    popup.boxes["presence", "present"].click()
    assert made.count.text() == "133 of 1,000"
    assert made.filter.isVisible()
    assert made.filter.text.text() == "Split: test · Target: Absent, Present"
    made.search.setText("group:patient-1")
    assert made.visible_ids() == ["id-00010", "id-00015"]
    popup.close()
    QTest.mouseClick(made.filter.clear_button, Qt.MouseButton.LeftButton)
    assert made.filter.isHidden() and made.count.text() == "10 of 1,000"
    made.search.clear()
    assert made.count.text() == "1,000"


def test_a_list_without_a_choice_says_so(qtbot: QtBot) -> None:
    made = made_list(qtbot, [row(1)])
    made.filter.open()
    assert not made.filter.popup.boxes
    made.filter.popup.close()


def test_the_current_image_stays_marked_and_steps_follow_the_filter(qtbot: QtBot) -> None:
    made = made_list(qtbot, list(ROWS))
    made.select("id-00015")
    made.search.setText("split:test")
    assert made.view.currentIndex().data(Qt.ItemDataRole.UserRole) == "id-00015"
    assert made.neighbour("id-00015", 1) == "id-00020"
    assert made.neighbour("id-00000", -1) is None
    made.search.setText("group:patient-50")
    assert not made.view.currentIndex().isValid()
    assert (made.neighbour("id-00015", 1), made.neighbour("id-00015", -1)) == ("id-00500", "id-00509")
    made.search.clear()
    assert made.view.currentIndex().data(Qt.ItemDataRole.UserRole) == "id-00015"


def test_a_row_that_no_longer_passes_goes_and_the_list_stays_where_it_is(qtbot: QtBot) -> None:
    made = made_list(qtbot, list(ROWS))
    made.states.setCurrentText("Gaze")
    made.select("id-00601")
    before = made.view.verticalScrollBar().value()
    assert before > 0
    made.model.set_row(row(603, state="No gaze"))
    assert made.count.text() == "499 of 1,000"
    assert made.neighbour("id-00601", 1) == "id-00605"
    assert made.view.verticalScrollBar().value() == before
    assert made.view.currentIndex().data(Qt.ItemDataRole.UserRole) == "id-00601"
    made.set_rows([row(n, state="Gaze") for n in range(1000)])
    assert made.count.text() == "1,000" and made.neighbour("id-00601", 1) == "id-00602"


def test_ten_thousand_rows_follow_every_key(qtbot: QtBot) -> None:
    made = made_list(qtbot, [row(n) for n in range(10000)])
    seconds = []
    for text in (
        "s",
        "sc",
        "scan",
        "scan 0",
        "scan 09",
        "scan 099",
        "scan 0",
        "group:patient-5",
        "split:test",
        "",
    ):
        begun = time.perf_counter()
        made.search.setText(text)
        QApplication.processEvents()
        seconds.append(time.perf_counter() - begun)
    assert np.median(seconds) < 0.05, seconds


def is_told(listed: ImageList) -> bool:
    return listed.model.rows[1].presence == "absent"


def test_the_pages_know_presence_and_quality(qtbot: QtBot, tmp_path: Path, study: Study) -> None:
    images = [row(n).image for n in range(4)]
    study.add_images(images)

    def gaze(number: int, viewing_ms: float, x: float, presence: str) -> Fixations:
        return Fixations(
            images[number].id, "target", "anna", "s", np.arange(4, dtype=np.float64) * 300, np.full(4, 250.0),
            np.tile([x, 2.0], (4, 1)), np.full(4, np.nan), "imported",
            presence=presence, viewing_ms=viewing_ms,  # type: ignore[arg-type]
        )  # fmt: skip

    study.save_fixations(
        "s",
        [gaze(0, 3000, 2, "present"), gaze(1, 500, 2, "absent"), gaze(2, 3000, 99, "unsure")],
        imported=True,
    )
    study.add_review(Review(images[0].id, "target", "b", "pseudomask", "accepted", "absent", 1.0, utc_now()))
    window = open_window(qtbot, tmp_path, study)
    for name in ("record", "review"):
        window.show_page(name)
        listed = window.page(name).list  # type: ignore[attr-defined]
        qtbot.waitUntil(functools.partial(is_told, listed))
        rows = listed.model.rows
        assert [one.presence for one in rows] == ["absent", "absent", "unsure", None]
        assert [one.quality for one in rows] == ["ok", "brief", "few", None]


def test_gaze_is_read_from_headers_until_it_is_asked_for(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segmentation import gaze_index

    for source in ("one", "two", "three"):
        study.save_fixations(
            source,
            [
                Fixations(
                    image_id, None if image_id == "b" else "target", source, source, np.zeros(2), np.ones(2),
                    np.ones((2, 2)), np.ones(2), "imported", simulated_from="masks" if source == "two" else None,
                )
                for image_id in (("a", "b") if source != "three" else ("c",))
            ],
            imported=True,
        )  # fmt: skip
    read: list[str] = []

    def noted(path: Path) -> list[Fixations]:
        read.append(path.parent.name)
        return read_fixation_table(path)

    monkeypatch.setattr(gaze_index, "read_fixation_table", noted)
    gaze = study.fixations
    assert set(gaze) == {("a", "target"), ("b", "target"), ("c", "target")} and len(gaze) == 3
    assert ("a", "target") in gaze and ("d", "target") not in gaze and gaze.get(("d", "target")) is None
    assert study.simulated_from() == "masks"
    assert not read
    assert [item.source for item in gaze["b", "target"]] == ["one", "two"]
    assert read == ["one", "two"]
    assert len(gaze["a", "target"]) == 2 and read == ["one", "two"], "tables stay at hand"
    monkeypatch.setattr(gaze_index, "ROWS_KEPT", 3)
    assert [len(items) for items in gaze.values()] == [2, 2, 1]
    assert len(gaze._tables) == 1, "but not more than memory should hold"
    study.refresh()
    assert [item.source for item in study.fixations["c", "target"]] == ["three"]
