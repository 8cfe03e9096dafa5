"""Verdicts given and taken back, and how images stand after each, without a window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.facts import gather
from app.review_states import ReviewStates
from app.verdict_history import VerdictHistory
from app.verdicts import Judged, Word, give_edited
from app.volumes import entries
from gaze_capture.errors import UserError
from segmentation.editing.drafts import open_draft
from segmentation.importing import import_images
from segmentation.records import Target
from segmentation.study import Study

RUN = "run-20260101-000000-aaaaaa"


@pytest.fixture
def reviewed(study: Study, image_folder: Path) -> Study:
    """Return six images, four of them with a prediction."""
    import_images(study, [image_folder / "images"])
    for image in list(study.images.values())[:4]:
        probability = np.zeros(image.shape[:2], dtype=np.float32)
        probability[8:20, 8:20] = 0.9
        study.save_prediction(RUN, image.id, "target", "student", probability)
    return study


def judged(image_id: str, seconds: float = 4.0) -> Judged:
    return Judged(image_id, "target", RUN, "ann", seconds)


def watching(states: ReviewStates) -> tuple[VerdictHistory, list[tuple[str, str]]]:
    """Return a history whose verdicts the states follow, and what it told."""
    told: list[tuple[str, str]] = []

    def follow(study: Study, image_id: str, target_id: str) -> None:
        states.note(study, image_id, target_id)
        told.append((image_id, target_id))

    return VerdictHistory(follow), told


def test_each_verdict_is_taken_back_in_turn_and_the_states_follow(reviewed: Study) -> None:
    states = ReviewStates()
    states.facts = gather(reviewed, RUN)
    history, told = watching(states)
    ids = list(reviewed.images)
    words: list[Word] = ["accepted", "rejected", "nothing", "unsure"]
    for image_id, word in zip(ids, words, strict=False):
        assert states.waits((image_id, "target"))
        assert history.give(reviewed, judged(image_id), word)
    assert [states.state((name, "target")) for name in ids] == [
        "accepted", "rejected", "nothing", "unsure", "empty", "empty",
    ]  # fmt: skip
    assert told == [(name, "target") for name in ids[:4]]
    for image_id in reversed(ids[:4]):
        assert history.undo() == (image_id, "target")
        assert states.waits((image_id, "target")) and not reviewed.reviews(image_id, "target")
    assert history.empty and history.undo() is None
    assert states.facts == gather(reviewed, RUN), "what is known is what a fresh look finds"


def test_undone_a_verdict_gives_way_to_the_one_before_it(reviewed: Study) -> None:
    states = ReviewStates()
    history, _ = watching(states)
    first = next(iter(reviewed.images))
    history.give(reviewed, judged(first), "accepted")
    history.give(reviewed, judged(first), "ungradable")
    assert states.state((first, "target")) == "ungradable"
    history.undo()
    assert states.state((first, "target")) == "accepted"
    assert [one.verdict for one in reviewed.reviews(first, "target")] == ["accepted"]


def test_nothing_is_held_on_to_where_there_is_nothing_to_judge(reviewed: Study) -> None:
    history, told = watching(ReviewStates())
    last = list(reviewed.images)[-1]
    assert not history.give(reviewed, judged(last), "accepted")
    assert history.empty and not told and not reviewed.reviews(last, "target")


def test_an_edited_mask_is_taken_back_with_its_draft(reviewed: Study) -> None:
    history, _ = watching(ReviewStates())
    first = next(iter(reviewed.images))
    draft = open_draft(reviewed, first, "target", "ann", RUN)
    draft.edit.begin("brush")
    draft.edit.brush(np.array([[30.0, 30.0]]), 4.0)
    draft.commit()
    mask = draft.edit.mask.copy()
    history.keep(reviewed, give_edited(reviewed, draft, 9.0))
    assert [one.verdict for one in reviewed.reviews(first, "target")] == ["edited"]
    assert history.undo() == (first, "target")
    again = open_draft(reviewed, first, "target", "ann", RUN)
    assert again.recovered and (again.edit.mask == mask).all()
    again.close()


def test_what_cannot_be_taken_back_stays_the_last_and_can_be_tried_again(reviewed: Study) -> None:
    history, told = watching(ReviewStates())
    first = next(iter(reviewed.images))
    history.give(reviewed, judged(first), "accepted")
    aside = reviewed.folder.with_name("moved")
    reviewed.folder.rename(aside)
    with pytest.raises(UserError):
        history.undo()
    assert not history.empty and len(told) == 1
    aside.rename(reviewed.folder)
    assert history.undo() == (first, "target")
    assert history.empty and len(told) == 2 and not reviewed.reviews(first, "target")


def test_other_deeds_are_taken_back_in_the_order_they_were_done(reviewed: Study) -> None:
    history, _ = watching(ReviewStates())
    first, second = list(reviewed.images)[:2]
    done: list[str] = []
    history.give(reviewed, judged(first), "accepted")
    history.add((second, "target"), lambda: done.append("back"), lambda: done.append("told"))
    assert history.undo() == (second, "target")
    assert done == ["back", "told"] and reviewed.reviews(first, "target")
    history.clear()
    assert history.undo() is None and reviewed.reviews(first, "target")


def test_two_pages_know_their_own_facts(reviewed: Study) -> None:
    # Verdicts may be given before anything was gathered.
    first = next(iter(reviewed.images))
    states = ReviewStates()
    history, _ = watching(states)
    history.give(reviewed, judged(first), "rejected")
    assert states.facts.reviews and not ReviewStates().facts.reviews


def test_progress_counts_one_target_and_foresees_what_is_left(reviewed: Study) -> None:
    states = ReviewStates()
    states.facts = gather(reviewed, RUN)
    history, _ = watching(states)
    ids = list(reviewed.images)
    assert states.progress(reviewed, "target", "ann").seconds_left is None
    history.give(reviewed, judged(ids[0], 4.0), "accepted")
    history.give(reviewed, judged(ids[1], 6.0), "rejected")
    progress = states.progress(reviewed, "target", "ann")
    assert progress.done == 2 and progress.seconds_left == pytest.approx(10.0)
    assert states.progress(reviewed, "target", "other").seconds_left is None
    assert states.progress(reviewed, "zone", "ann").done == 0
    for image_id in ids[2:4]:
        history.give(reviewed, judged(image_id), "accepted")
    assert states.progress(reviewed, "target", "ann").seconds_left is None, "nothing waits any more"


def test_rows_say_how_an_image_stands(reviewed: Study) -> None:
    reviewed.set_targets([*reviewed.targets, Target("zone", "Zone")])
    states = ReviewStates()
    states.facts = gather(reviewed, RUN)
    history, _ = watching(states)
    entry = entries(reviewed)[0]
    waiting = states.row(entry, "target", None, ())
    assert (waiting.state, waiting.token, waiting.state_name) == ("To review", "warning", "waiting")
    history.give(reviewed, judged(entry.image.id), "nothing")
    given = states.row(entry, "target", None, ())
    assert (given.state, given.token, given.presence) == ("Nothing here", "accent", "absent")
    assert states.row(entry, "zone", None, ()).state_name == "empty"
