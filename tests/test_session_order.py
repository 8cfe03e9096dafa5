from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.storage import write_json_atomic
from segmentation.gaze_gates import overrule
from segmentation.job import RunSpec
from segmentation.records import Target, utc_now
from segmentation.session_options import SessionOptions, load_options, save_options
from segmentation.session_order import (
    SessionItem,
    annotator_number,
    counterbalanced,
    doubts,
    session_order,
    units_of,
)
from segmentation.study import Review, Study
from tests.gaze_support import SHAPE, add_images, record_in

SIX = ["a", "b", "c", "d", "e", "f"]


def ids(items: list[SessionItem]) -> list[str]:
    return [item.image_id for item in items]


@pytest.fixture
def six(study: Study) -> Study:
    add_images(study, SIX)
    return study


# The order


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 9, 10, 12])
def test_over_a_full_set_of_annotators_place_and_neighbour_are_balanced(count: int) -> None:
    full = count if count % 2 == 0 else 2 * count
    rows = [counterbalanced(count, annotator) for annotator in range(full)]
    assert all(sorted(row) == list(range(count)) for row in rows)
    places = Counter((place, unit) for row in rows for place, unit in enumerate(row))
    assert set(places.values()) == {full // count} and len(places) == count**2
    followed = Counter(pair for row in rows for pair in pairwise(row))
    assert set(followed.values()) == {full // count} and len(followed) == count * (count - 1)
    assert counterbalanced(count, full) == rows[0], "then it begins anew"


@pytest.mark.parametrize("count", [5, 8, 101])
def test_each_pair_of_annotators_cancels_what_grows_evenly(count: int) -> None:
    for pair in range(3):
        first, second = (counterbalanced(count, 2 * pair + number) for number in (0, 1))
        assert {first.index(unit) + second.index(unit) for unit in range(count)} == {count - 1}


def test_one_image_or_none_has_one_order() -> None:
    assert counterbalanced(0, 3) == [] and counterbalanced(1, 3) == [0]


def test_random_is_of_the_annotator_and_the_seed_and_stays_when_images_come_in(six: Study) -> None:
    options = SessionOptions(order="random")
    order = ids(session_order(six, "ann", options))
    assert sorted(order) == SIX
    assert ids(session_order(Study.open(six.folder), "ann", options)) == order
    assert ids(session_order(six, "ben", options)) != order
    assert ids(session_order(six, "ann", SessionOptions(order="random", seed=1))) != order
    add_images(six, ["g", "h"])
    longer = ids(session_order(six, "ann", options))
    assert [name for name in longer if name in SIX] == order and len(longer) == 8


def test_annotators_are_numbered_as_they_first_recorded(six: Study) -> None:
    assert annotator_number(six, "zoe") == 0
    record_in(six, "rec-20260101-1", [("a", 1, 5)], annotator="zoe")
    record_in(six, "rec-20260102-1", [("a", 1, 5)], annotator="ann")
    record_in(six, "rec-20260103-1", [("b", 1, 5)], annotator="zoe")
    assert [annotator_number(six, name) for name in ("zoe", "ann", "new")] == [0, 1, 2]
    options = SessionOptions(order="counterbalanced", skip_seen=False)
    zoe, ann = (ids(session_order(six, name, options)) for name in ("zoe", "ann"))
    assert ann == zoe[::-1]
    assert ids(session_order(six, "zoe", options)) == zoe


@pytest.mark.parametrize("order", ["as-is", "random", "counterbalanced", "by-doubt"])
def test_volumes_stay_together_in_the_order_of_their_slices(study: Study, order: Any) -> None:
    for number in (2, 0, 1):
        add_images(study, [f"v{number}"], volume="v", slice_index=number)
    add_images(study, ["x", "y", "z"])
    assert units_of(study)["v"] == ("v0", "v1", "v2")
    study.set_targets([Target("gland"), Target("zone")])
    items = session_order(study, "ann", SessionOptions(order=order))
    shown = [(item.image_id, item.target_id) for item in items]
    assert len(shown) == len(set(shown)) == 12
    start = shown.index(("v0", "gland"))
    assert shown[start : start + 6] == [(f"v{n}", target) for target in ("gland", "zone") for n in range(3)]


# Resuming


def test_a_session_goes_on_where_this_annotator_left_it(six: Study) -> None:
    record_in(six, "rec-1", [("a", 1, 5), ("b", 6, 10), ("c", 11, 12.2)], annotator="ann")
    items = session_order(six, "ann", SessionOptions())
    assert ids(items) == ["c", "d", "e", "f"]
    assert items[0].again and items[0].reasons == ("it was looked at for 1.2 s only",)
    assert not items[1].again
    assert ids(session_order(six, "ben", SessionOptions())) == SIX, "another one has seen none"
    assert ids(session_order(six, "ann", SessionOptions(skip_seen=False))) == SIX
    overrule(six, ["c"], "ann")
    assert ids(session_order(six, "ann", SessionOptions())) == ["d", "e", "f"]


def test_what_was_looked_at_counts_for_its_target_alone_unless_viewed_freely(six: Study) -> None:
    six.set_targets([Target("target"), Target("other")])
    record_in(six, "rec-1", [("a", 1, 5)], annotator="ann", target="target")
    record_in(six, "rec-2", [("b", 1, 5)], annotator="ann", target=None)
    shown = {(item.image_id, item.target_id) for item in session_order(six, "ann", SessionOptions())}
    assert ("a", "target") not in shown and ("a", "other") in shown
    assert not any(image == "b" for image, _ in shown)
    freely = session_order(six, "ann", SessionOptions(), target_ids=[None])
    assert ids(freely) == ["a", "c", "d", "e", "f"], "a was not looked at for all targets"


def test_a_volume_is_seen_when_half_of_its_slices_are(study: Study) -> None:
    add_images(study, [f"v{n}" for n in range(4)], volume="v")
    record_in(study, "rec-1", [("v0", 1, 4)], annotator="ann")
    assert len(session_order(study, "ann", SessionOptions())) == 4
    record_in(study, "rec-2", [("v0", 1, 3), ("v1", 3, 5)], annotator="ann")
    assert session_order(study, "ann", SessionOptions()) == []


# Doubt


def test_the_most_doubtful_come_first_and_say_why(six: Study) -> None:
    record_in(six, "rec-1", [("b", 1, 5), ("c", 6, 7.2), ("d", 8, 12), ("e", 13, 17)], annotator="ben")
    record_in(six, "rec-2", [("f", 1, 5)], annotator="ben", presence="unsure")

    def review(image: str, verdict: Any) -> None:
        six.add_review(Review(image, "target", "ben", "run-1", verdict, "present", 1.0, utc_now()))

    review("d", "rejected")
    review("e", "accepted")
    write_json_atomic(six.runs_folder / "run-1" / "spec.json", RunSpec().to_json())
    for name, level in (("b", 0.5), ("e", 0.5)):
        probability = np.zeros(SHAPE, dtype=np.float32)
        probability[:100, :100], probability[:100, 100:300] = level, 0.95
        six.save_prediction("run-1", name, "target", "student", probability)
    six.refresh()
    found = doubts(six, [(name, "target") for name in SIX], run_id="run-1")
    assert {name: round(found[name, "target"].score, 2) for name in SIX} == {
        "a": 1.0, "b": 0.04, "c": 0.9, "d": 0.8, "e": 0.0, "f": 0.5,
    }  # fmt: skip
    assert found["a", "target"].reasons == ("no gaze yet",)
    assert found["b", "target"].reasons == ("the student is fairly sure of its mask (expected Dice 0.89)",)
    assert found["c", "target"].reasons[:2] == ("to be looked at again", "looked at briefly")
    items = session_order(six, "ann", SessionOptions(order="by-doubt"), run_id="run-1")
    assert ids(items) == ["a", "c", "d", "f", "b", "e"]
    assert items[2].reasons == ("its mask was rejected",)


# Options


def test_options_are_the_studys_and_come_back_as_stored(study: Study) -> None:
    assert load_options(study) == SessionOptions()
    chosen = SessionOptions(order="by-doubt", maximum_image_s=20.0, break_every_n=None, sound=True)
    save_options(study, chosen)
    assert load_options(Study.open(study.folder)) == chosen


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"order": "sorted"}, "no order 'sorted'"),
        (
            {"maximum_image_s": 0},
            "The longest time for an image, in seconds, should be between 1 and 600, not 0",
        ),
        ({"break_every_n": 2.5}, "break_every_n should be a whole number"),
        ({"break_every_min": float("nan")}, "between breaks should be"),
        ({"anchor_every_n": True}, "between anchors should be"),
        ({"dwell_to_advance_s": 5.0, "maximum_image_s": 4.0}, "not possible when an image is shown for 4 s"),
        ({"sound": "yes"}, "sound should be true or false"),
        ({"seed": None}, "need a number"),
        ({"colour": 1}, "no session option 'colour'"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_a_sentence(
    study: Study, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        SessionOptions.from_json(values)
    if not any(value != value for value in values.values()):
        (study.folder / "session.json").write_text(json.dumps(values))
        with pytest.raises(UserError, match=r"session\.json"):
            load_options(study)
