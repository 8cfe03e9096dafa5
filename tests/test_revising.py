"""Edits, approval and choosing among answers: checked, kept with their history, never over somebody else's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from gaze_capture.errors import UserError
from segmentation.explaining import explain_study
from segmentation.explanation import Explanation, load_explanation, load_history, save_explanation
from segmentation.revising import ChangedElsewhere, approve, edit, is_approved, revert, take_back, use
from segmentation.study import Study
from tests.window_support import fill


@pytest.fixture
def told(study: Study, image_folder: Path) -> Explanation:
    fill(study, image_folder)
    explain_study(study)
    found = load_explanation(study, next(iter(study.images)), "target")
    assert found is not None
    return found


def stored(study: Study, told: Explanation) -> Explanation:
    found = load_explanation(study, told.image_id, told.target_id)
    assert found is not None
    return found


def test_an_edit_keeps_what_was_said_and_who_changed_it(study: Study, told: Explanation) -> None:
    now = edit(
        study, told, "boundary", "blurred" if told.attributes["boundary"] != "blurred" else "sharp", "Dr. E"
    )
    assert stored(study, told) == now
    assert now.original == told.attributes and now.edited == ("boundary",) == now.approved
    assert now.revised_by == "Dr. E" and now.revised_at and "edited by Dr. E" in now.text
    assert f"{now.attributes['boundary']} boundary" in now.text
    assert load_history(study, told.image_id, "target")[-2:] == [told, now]
    line = json.loads((study.folder / "audit.jsonl").read_text("utf-8").splitlines()[-1])
    assert line["action"] == "explanation edit" and line["now"] == now.attributes["boundary"]
    back = revert(study, now, "boundary", "Dr. F")
    assert back.attributes == told.attributes and back.text == told.text
    assert back.original is None and not back.touched and back.revised_by == "Dr. F"
    assert len(load_history(study, told.image_id, "target")) == 3


def test_saying_what_was_said_approves_it(study: Study, told: Explanation) -> None:
    now = edit(study, told, "shape", told.attributes["shape"], "Dr. E")
    assert not now.edited and now.approved == ("shape",) and now.original is None


def test_approval_of_one_and_of_all(study: Study, told: Explanation) -> None:
    one = approve(study, told, "Dr. E", ["location"])
    assert one.approved == ("location",) and not is_approved(one)
    whole = approve(study, one, "Dr. E")
    assert is_approved(whole) and set(whole.approved) == set(told.attributes)
    with pytest.raises(UserError, match="no attribute 'nope'"):
        approve(study, whole, "Dr. E", ["nope"])


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("boundary", "fuzzy", "boundary must be one of"),
        ("boundary", 3, "boundary must be one of"),
        ("area_percent", 101.0, "number from 0 to 100"),
        ("area_percent", float("nan"), "must be a number"),
        ("area_percent", "large", "number from 0 to 100"),
        ("remarks", 4, "must be a text"),
        ("malignancy", "yes", "no attribute 'malignancy'"),
    ],
)
def test_values_that_the_preset_does_not_know_are_refused(
    study: Study, told: Explanation, name: str, value: Any, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        edit(study, told, name, value, "Dr. E")
    assert stored(study, told) == told


def test_remarks_are_put_on_one_line_and_cut(study: Study, told: Explanation) -> None:
    now = edit(study, told, "remarks", "<img src=http://x>\n\x00" + "a" * 900, "Dr. E")
    assert now.attributes["remarks"].startswith("<img src=http://x> aaa")
    assert len(now.attributes["remarks"]) == 500


def test_a_change_made_elsewhere_is_not_written_over(study: Study, told: Explanation) -> None:
    elsewhere = approve(Study.open(study.folder), told, "Dr. Other", ["shape"])
    before = sorted(study.explanation_history(told.image_id, "target").iterdir())
    with pytest.raises(ChangedElsewhere, match=r"by Dr\. Other") as caught:
        edit(study, told, "texture", "smooth", "Dr. E")
    assert caught.value.stored == elsewhere == stored(study, told)
    with pytest.raises(ChangedElsewhere):
        take_back(study, told, told, "Dr. E")
    with pytest.raises(ChangedElsewhere):
        use(study, told, told, "Dr. E")
    assert sorted(study.explanation_history(told.image_id, "target").iterdir()) == before


def test_undo_and_another_answer(study: Study, told: Explanation) -> None:
    now = edit(study, told, "count", "several", "Dr. E")
    assert take_back(study, now, told, "Dr. E") == told == stored(study, told)
    other = dataclasses.replace(
        told, backend="openai", model="m", attributes={**told.attributes, "shape": "round"}
    )
    save_explanation(study, other)
    assert use(study, other, told, "Dr. E") == told == stored(study, told)
    assert other in load_history(study, told.image_id, "target")


def test_the_history_keeps_its_order_within_a_second(study: Study, told: Explanation) -> None:
    now = told
    said = [now]
    for word in ("one", "two", "several", "one", "two", "several", "one", "two"):
        now = edit(study, now, "count", word, "Dr. E")
        said.append(now)
    assert load_history(study, told.image_id, "target") == said
