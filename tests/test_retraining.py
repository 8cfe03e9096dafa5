"""Training again with reviews: which teach, which are new, what the next run begins with and predicts."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from gaze_capture.storage import read_json
from segmentation.checkpoints import latest_checkpoint, load_weights
from segmentation.consensus import make_consensus
from segmentation.dataset import load_training_set
from segmentation.learned_reviews import (
    LEARNED_NAME,
    epoch,
    learned_by,
    learned_now,
    mark_of,
    reviewing_seconds,
    teaching,
)
from segmentation.retraining import can_go_on, new_reviews, spec_again, to_predict
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from tests.rounds_support import mask_like, say, trained
from tests.training_helpers import make_study, tiny


@pytest.fixture
def filled(tmp_path: Path, image_folder: Path) -> Study:
    return make_study(tmp_path / "filled", image_folder, explained=False)


def counted(study: Study, **changes: Any) -> set[str]:
    return {image_id for image_id, _ in teaching(study, tiny("partial", **changes))}


def test_what_teaches_is_what_training_takes_from_a_review(filled: Study) -> None:
    """Each kind of review is counted exactly where it changes what the training set holds."""
    spec = tiny("partial")
    ids = list(filled.images)
    before = load_training_set(filled, spec, None)

    def changed() -> set[str]:
        now = load_training_set(filled, spec, None)
        levels = {name: now.levels[place] for place, name in enumerate(now.ids)}
        return {
            name
            for place, name in enumerate(before.ids)
            if name not in levels or not np.array_equal(levels[name], before.levels[place])
        }

    say(filled, ids[0])
    say(filled, ids[1], presence="absent", mask=np.zeros_like(mask_like(filled, ids[1])))
    say(filled, ids[2], verdict="rejected", presence="ungradable")
    say(filled, ids[3], verdict="rejected", presence=None, subject="pseudomask")
    say(filled, ids[4], verdict="rejected", presence=None)
    assert changed() == counted(filled) == set(ids[:4])
    say(filled, ids[5], purpose="audit")
    say(filled, ids[0], purpose="audit", mask=~mask_like(filled, ids[0]))
    say(filled, ids[5], purpose="second-read")
    assert changed() == counted(filled) == set(ids[:4]), "audits and second reads are never learned from"
    kept = load_training_set(filled, spec, None)
    place = kept.ids.index(ids[0])
    half = kept.levels[place, 0] > 0
    assert half[:, :16].all() and not half[:, 16:].any(), "the audit did not take the place of the review"
    say(filled, ids[4], purpose="consensus")
    assert changed() == counted(filled) == set(ids[:5])
    assert counted(filled, learn_from_reviews=False) == set()
    assert {name for name, _ in teaching(filled, tiny("supervised"))} == set(), (
        "true masks lie beside all of them"
    )


def test_a_run_notes_what_it_learned_from(filled: Study) -> None:
    ids = list(filled.images)
    say(filled, ids[0], seconds_spent=12.5)
    taken_back = say(filled, ids[1], seconds_spent=4.0)
    filled.withdraw_review(ids[1], "target", taken_back)
    say(filled, ids[2], verdict="rejected", presence=None, seconds_spent=3.0)
    say(filled, ids[3], purpose="audit", seconds_spent=100.0)
    run = trained(filled, tiny("partial", iterations=1), images=[])
    learned = learned_by(run)
    assert learned is not None
    assert (learned.count, learned.seconds, learned.spent_s) == (1, 12.5, 19.5)
    assert learned.marks == {mark_of(filled, filled.reviews(ids[0], "target")[0])}
    stored = read_json(run.path / LEARNED_NAME)
    assert (stored["count"], stored["sha256"]) == (1, learned.sha256)
    assert new_reviews(filled, run.id).count == 0
    say(filled, ids[0], seconds_spent=5.0)
    say(filled, ids[4], seconds_spent=6.0)
    news = new_reviews(filled, run.id)
    assert (news.count, news.seconds) == (2, 11.0), "a newer word on the same image is new, too"
    again = create_run(filled, spec_again(filled, run.id))
    assert learned_now(filled, again.spec).sha256 != learned.sha256


def test_runs_from_before_the_note_go_by_time(filled: Study) -> None:
    first, second = list(filled.images)[:2]
    say(filled, first, reviewed_at="2023-01-01T00:00:00+00:00")
    run = trained(filled, tiny("partial", iterations=1), images=[])
    (run.path / LEARNED_NAME).unlink()
    assert learned_by(run) is None and new_reviews(filled, run.id).count == 0
    say(filled, second, reviewed_at="2024-01-01T00:00:00+00:00")
    assert new_reviews(filled, run.id).count == 1
    assert reviewing_seconds(filled, until=1.69e9) == 30.0 and reviewing_seconds(filled) == 60.0


def test_second_reads_cost_what_they_took_once_a_consensus_is_made_of_them(filled: Study) -> None:
    ids = list(filled.images)
    run = trained(filled, tiny("partial", iterations=1), images=[])
    for name in ids[:2]:
        say(filled, name, annotator="A", seconds_spent=10.0)
        say(filled, name, annotator="B", purpose="second-read", seconds_spent=7.0)
    say(filled, ids[2], annotator="A", purpose="audit", seconds_spent=100.0)
    assert reviewing_seconds(filled) == 20.0, "nothing is learned from second reads by themselves"
    before = time.time()
    time.sleep(0.01)
    assert len(make_consensus(filled, "majority").written) == 2
    make_consensus(filled, "staple")
    assert reviewing_seconds(filled) == 34.0 and reviewing_seconds(filled, until=before) == 20.0
    assert new_reviews(filled, run.id).seconds == 34.0 == learned_now(filled, run.spec).seconds
    (second,) = (name for name, one in filled.named_reviews(ids[0], "target").items() if one.annotator == "B")
    filled.withdraw_review(ids[0], "target", second)
    assert reviewing_seconds(filled) == 34.0, "what was paid stays paid"


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process cannot be changed here")
def test_a_time_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert epoch("1970-01-02T00:00:00") == epoch("1970-01-02T00:00:00Z") == 86400.0
    finally:
        monkeypatch.undo()
        time.tzset()
    assert epoch("yesterday") == 0.0


def test_the_next_run_begins_with_the_earlier_one(filled: Study) -> None:
    first = next(iter(filled.images))
    run = trained(filled, tiny("partial", iterations=8, max_minutes=2.0), images=[])
    with pytest.raises(UserError, match="knows every review"):
        spec_again(filled, run.id)
    say(filled, first)
    spec = spec_again(filled, run.id)
    assert (spec.warm_start, spec.iterations, spec.max_minutes) == (run.id, 4, 1.0)
    assert spec.learning_rate == run.spec.learning_rate / 2 and spec.learn_from_reviews
    assert spec_again(filled).warm_start == run.id, "the latest finished one by default"
    assert spec_again(filled, run.id, iterations=3, seed=7).iterations == 3
    begun = trained(
        filled,
        dataclasses.replace(spec, learning_rate=1e-12, final_learning_rate=1e-12, max_minutes=None),
        images=[],
    )
    old, new = (latest_checkpoint(one) for one in (run, begun))
    assert old is not None and new is not None
    averaged = load_weights(old, "student_ema")
    weights = {name: part for name, part in load_weights(new, "student").items() if part.is_floating_point()}
    assert all(
        np.allclose(part, averaged[name], atol=1e-6)
        for name, part in weights.items()
        if "running" not in name
    )
    say(filled, first)
    third = spec_again(filled, begun.id)
    assert third.iterations == begun.spec.iterations, "a third round is as long as the second"
    assert third.notes["again"] == {"run": begun.id, "round": 2}


def test_what_nobody_vouches_for_is_predicted(filled: Study) -> None:
    ids = list(filled.images)
    run = create_run(filled, tiny("partial"))
    say(filled, ids[0])
    say(filled, ids[1], verdict="rejected", presence=None)
    say(filled, ids[2], purpose="second-read")
    say(filled, ids[3])
    say(filled, ids[3], purpose="audit")
    say(filled, ids[4], presence="absent")
    assert to_predict(filled, run) == [ids[1], ids[2], ids[3], ids[5]], (
        "an audited one is what it is measured on"
    )


def test_every_image_that_rounds_are_measured_on_is_predicted(filled: Study) -> None:
    """Were reviewed ones left out, the doubtful ones among them, a later round would be measured on easier images."""
    ids = list(filled.images)
    filled.add_images([dataclasses.replace(filled.image(name), split="test") for name in ids[4:]])
    for path in (filled.folder / "masks").glob(f"{ids[5]}.*"):
        path.unlink()
    study = Study.open(filled.folder)
    for name in ids:
        say(study, name)
    assert to_predict(study, create_run(study, tiny("partial"))) == [ids[4]]


def test_what_cannot_be_gone_on_from_is_said(filled: Study) -> None:
    with pytest.raises(UserError, match="no finished run yet; train first"):
        spec_again(filled)
    with pytest.raises(UserError, match="no run 'run-0'"):
        spec_again(filled, "run-0")
    fresh = create_run(filled, tiny("partial"))
    assert not can_go_on(fresh)
    with pytest.raises(UserError, match="no checkpoint"):
        spec_again(filled, fresh.id)
    run = trained(filled, tiny("partial", iterations=1), images=[])
    (run.path / LEARNED_NAME).write_text('{"schema": 2}')
    with pytest.raises(UserError, match=r"reviews\.json is damaged"):
        new_reviews(filled, run.id)


def test_reviews_of_deleted_images_teach_nothing_and_cost_their_time(filled: Study) -> None:
    run = trained(filled, tiny("partial", iterations=1), images=[])
    first = next(iter(filled.images))
    say(filled, first, seconds_spent=9.0)
    (filled.folder / "reviews" / f"{first}.target").rename(filled.folder / "reviews" / "gone.target")
    for path in (filled.folder / "reviews" / "gone.target").glob("*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "image_id": "gone"}))
    study = Study.open(filled.folder)
    assert teaching(study, run.spec) == {} and new_reviews(study, run.id).count == 0
    assert reviewing_seconds(study) == 9.0
    with pytest.raises(UserError, match="knows every review"):
        spec_again(study, run.id)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--again"], 1, "no finished run yet"),
        (["--again", "--method", "partial"], 2, "--method: the earlier run has settled it"),
        (["--again", "--processes", "2"], 2, "--processes: the earlier run has settled it"),
        (["--run", "run-1"], 2, "--run: only with --again"),
        (["--again", "--resume", "run-1"], 2, "not allowed with argument"),
    ],
)
def test_wrong_usage_is_one_sentence(
    filled: Study, capsys: pytest.CaptureFixture[str], words: list[str], status: int, told: str
) -> None:
    assert run_command(["train", str(filled.folder), *words]) == status
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error


def test_one_command_trains_again_and_predicts_the_rest(
    filled: Study, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Workers step back for others, which on a busy machine would keep the test waiting.
    monkeypatch.setattr("segmentation.steps.folders_job", lambda spec: {"nice": 0})
    ids = list(filled.images)
    run = trained(filled, tiny("partial", iterations=4))
    say(filled, ids[0], seconds_spent=20.0)
    say(filled, ids[1], seconds_spent=10.0)
    assert run_command(["train", str(filled.folder), "--again", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["warm_start"] == run.id and told["iterations"] == 2 and told["predicted"] == 4
    assert told["reviews"]["count"] == told["reviews"]["new"] == 2 and told["reviews"]["seconds"] == 30.0
    again = RunFolder(filled.runs_folder / told["run"])
    assert again.state() == "done"
    assert filled.prediction_keys(again.id) == {(name, "target") for name in ids[2:]}
    started = next(event.values for event in again.events() if event.kind == "started")
    assert started["warm_start"] == run.id and started["strong_labels"] == 2
    assert run_command(["train", str(filled.folder), "--again"]) == 1
    assert "knows every review" in capsys.readouterr().err
