"""Rounds: Dice against minutes of annotation, from a study's own records."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import shutil
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from gaze_capture.session_times import LookTime, SessionTimes
from gaze_capture.storage import read_json, write_json_atomic
from segmentation.annotation_time import TIMES_NAME
from segmentation.learned_reviews import LEARNED_NAME
from segmentation.metrics import dice
from segmentation.prediction import predict
from segmentation.records import SCHEMA, Target
from segmentation.report_rounds import rounds_section
from segmentation.retraining import new_reviews
from segmentation.rounds import Known, manual_outlining, recorded_before, rounds
from segmentation.rounds_plot import links, rounds_figure, ticks
from segmentation.run_archive import read_run_archive, write_run_archive
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from tests.rounds_support import mask_like, say, trained
from tests.training_helpers import Events, fixations_of, make_study, tiny

SPEC = tiny("partial", iterations=1)


@pytest.fixture
def filled(tmp_path: Path, image_folder: Path) -> Study:
    """Six images, the last two of which nobody learns from; a second each of gaze on the other four."""
    study = make_study(tmp_path / "filled", image_folder, explained=False)
    study.add_images([dataclasses.replace(one, split="test") for one in list(study.images.values())[4:]])
    return Study.open(study.folder)


def sitting(
    study: Study, name: str, seconds: dict[str, float], *, again: float = 0.0, setup: float = 0.0
) -> None:
    """Store what a recording leaves of its gaze and its times."""
    folder = study.recordings_folder / name
    study.save_fixations(name, [fixations_of(image_id, source=name) for image_id in seconds], imported=False)
    (folder / "gaze.frames").write_bytes(b"")
    looks = [
        LookTime(image, "target", spent, 0.0, None, None, False, False) for image, spent in seconds.items()
    ]
    if again:
        looks.append(LookTime(next(iter(seconds)), "target", again, 0.0, None, None, True, False))
    times = SessionTimes(name, "A", 100.0, tuple(looks), setup, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    write_json_atomic(folder / TIMES_NAME, {"schema": SCHEMA, **dataclasses.asdict(times)})


def noted(run: RunFolder, **changes: object) -> None:
    """Change what a run says of its reviews."""
    write_json_atomic(run.path / LEARNED_NAME, {**read_json(run.path / LEARNED_NAME), **changes})


def test_minutes_and_dice_are_those_of_the_records(filled: Study) -> None:
    ids = list(filled.images)
    sitting(filled, "rec-20260101-100000-aaaaaa", {ids[0]: 30.0, ids[1]: 20.0}, again=10.0, setup=40.0)
    first = trained(filled, SPEC)
    noted(first, read_at="2026-01-02T00:00:00.000+00:00")
    sitting(filled, "rec-20260103-100000-bbbbbb", {ids[2]: 60.0}, setup=12.0)
    say(filled, ids[0], seconds_spent=45.0)
    say(filled, ids[1], verdict="rejected", presence=None, seconds_spent=15.0)
    study = Study.open(filled.folder)
    second = trained(study, tiny("partial", iterations=1, warm_start=first.id))
    found = rounds(study)
    assert [one.run for one in found.rounds] == [first.id, second.id]
    one, two = (each.spent for each in found.rounds)
    assert one is not None and two is not None
    # Four imported looks of a second each, and the sittings that were over by then.
    assert (one.looking_s, one.relooks_s, one.setup_s, one.reviewing_s) == pytest.approx((54, 10, 40, 0))
    assert (two.looking_s, two.relooks_s, two.setup_s, two.reviewing_s) == pytest.approx((114, 10, 52, 60))
    assert two.minutes == pytest.approx(236 / 60)
    assert [each.reviews for each in found.rounds] == [0, 1], (
        "a rejected prediction takes time and teaches nothing"
    )
    assert found.reference.keys == tuple((name, "target") for name in ids[4:])
    for each in found.rounds:
        own = []
        for key in found.reference.keys:
            probability, truth = study.prediction(each.run, *key), study.true_mask(*key)
            assert probability is not None and truth is not None
            own.append(dice(probability >= 0.5, truth))
        assert each.dice.mean == pytest.approx(np.mean(own)) and each.measured == 2
        assert min(own) - 1e-9 <= each.dice.low <= each.dice.high <= max(own) + 1e-9
    assert found.simulated_from == "masks" and found.manual is None
    assert [(a.run, b.run) for a, b in links(found.rounds)] == [(first.id, second.id)]


def test_a_blind_audit_is_the_reference_where_no_mask_is_unseen(filled: Study) -> None:
    ids = list(filled.images)
    run = trained(filled, SPEC)
    for path in (filled.folder / "masks").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="nothing to measure rounds against"):
        rounds(filled)
    with pytest.raises(UserError, match="audit-draw"):
        rounds(filled, against="audit")
    truth = mask_like(filled, ids[0])
    say(filled, ids[0], purpose="audit", seconds_spent=80.0, mask=truth)
    say(filled, ids[1], purpose="audit", seconds_spent=40.0)
    say(filled, ids[2], purpose="audit", verdict="rejected", presence="ungradable", seconds_spent=7.0)
    say(filled, ids[0], mask=~truth)
    found = rounds(filled)
    assert found.reference.kind == "audit" and {key[0] for key in found.reference.keys} == set(ids[:2])
    probability = filled.prediction(run.id, ids[0], "target")
    other = filled.prediction(run.id, ids[1], "target")
    assert probability is not None and other is not None
    expected = (dice(probability >= 0.5, truth) + dice(other >= 0.5, mask_like(filled, ids[1]))) / 2
    assert found.rounds[0].dice.mean == pytest.approx(expected), (
        "against the audit, whatever a review said later"
    )
    assert (found.rounds[0].seen, found.rounds[0].reviewed) == (2, 0)
    assert found.manual == manual_outlining(filled, [SPEC])
    assert found.manual is not None and (found.manual.outlines, found.manual.seconds_each) == (2, 60.0)
    assert found.manual.minutes == pytest.approx(4.0), "six images have gaze, two of them in the split test"
    again = trained(filled, tiny("partial", iterations=1, warm_start=run.id))
    spent = [one.spent.reviewing_s for one in rounds(filled).rounds if one.spent is not None]
    assert spent == [0.0, 30.0], "audits are no part of what a model costs"
    assert next(one for one in rounds(filled).rounds if one.run == again.id).reviewed == 1
    html = rounds_section(filled)
    assert html.count("<circle") == 2 and html.count("<tr>") == 3
    assert (
        "The reference: a blind audit" in html and "Outlining by hand took 60.0 s a mask (2 audits)" in html
    )
    assert "1 learned from in review" in html and "2 learned from by gaze" in html


def test_what_was_learned_from_true_masks_is_not_called_simulated(filled: Study) -> None:
    trained(filled, tiny("supervised", iterations=1))
    html = rounds_section(filled)
    assert "none: true masks" in html and "<circle" not in html
    trained(filled, SPEC)
    html = rounds_section(filled)
    assert html.count("<circle") == 1
    cells = [row.count("simulated from masks") for row in re.findall(r"<tr>.*?</tr>", html)[1:]]
    assert cells == [0, 1]


def test_runs_that_cannot_be_charted_are_named(filled: Study) -> None:
    ids = list(filled.images)
    with pytest.raises(UserError, match="no finished run yet"):
        rounds(filled)
    done = trained(filled, SPEC)
    unpredicted = trained(filled, SPEC, images=ids[:4])
    waiting = create_run(filled, SPEC)
    damaged = create_run(filled, SPEC)
    (damaged.path / "spec.json").write_text('{"method": 3}')
    masks = trained(filled, tiny("supervised", iterations=1), images=[ids[4]])
    found = rounds(filled)
    assert {one.run for one in found.rounds} == {done.id, masks.id}
    reasons = dict(found.left_out)
    assert f"gaze-insight predict STUDY --run {unpredicted.id} --split test" in reasons[unpredicted.id]
    assert reasons[waiting.id] == "it is waiting" and "method" in reasons[damaged.id]
    true = next(one for one in found.rounds if one.run == masks.id)
    assert true.spent is None and true.measured == 1
    text = found.to_text()
    assert "1 of 2 predicted" in text and "true masks" in text and "Left out" in text
    assert masks.id not in rounds_figure(found), "what nobody measured the minutes of is not drawn"


def test_splits_and_references_that_do_not_go(filled: Study) -> None:
    trained(filled, SPEC)
    with pytest.raises(UserError, match="no images in the split 'val'"):
        rounds(filled, split="val")
    with pytest.raises(UserError, match="as a whole"):
        rounds(filled, against="audit", split="test")
    assert {key[0] for key in rounds(filled, split="train").reference.keys} == set(list(filled.images)[:4])
    assert rounds(filled, split="train").rounds[0].seen == 4


def test_the_split_test_is_looked_at_round_after_round_only_where_nothing_else_is(filled: Study) -> None:
    ids = list(filled.images)
    trained(filled, SPEC)
    found = rounds(filled)
    assert found.reference.split == "test"
    told = "'test' round after round and stops by it has no test any more"
    assert told in found.to_text() and told in unescape(rounds_section(filled))
    filled.add_images([dataclasses.replace(filled.image(ids[5]), split="validation")])
    study = Study.open(filled.folder)
    found = rounds(study)
    assert found.reference.keys == ((ids[5], "target"),) and found.reference.split == "validation"
    assert told not in found.to_text()
    assert told in rounds(study, split="test").to_text(), "also where it is asked for"


def test_what_was_measured_is_not_measured_again(filled: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(filled, SPEC)
    known: Known = {}
    before = rounds(filled, known=known)
    assert len(known) == 2
    with monkeypatch.context() as patch:
        patch.setattr(Study, "prediction", lambda *_: pytest.fail("read again"))
        assert rounds(filled, known=known).rounds == before.rounds
    key = before.reference.keys[0]
    truth = filled.true_mask(*key)
    assert truth is not None
    filled.save_prediction(run.id, *key, "student", truth.astype(np.float32))
    after = rounds(filled, known=known)
    assert after.rounds[0].dice.mean > before.rounds[0].dice.mean


def test_a_run_that_travelled_is_the_same_round(filled: Study, tmp_path: Path) -> None:
    ids = list(filled.images)
    sitting(filled, "rec-20260101-100000-aaaaaa", {ids[0]: 30.0})
    study = Study.open(filled.folder)
    say(study, ids[0], seconds_spent=45.0)
    say(study, ids[1], verdict="rejected", presence=None, seconds_spent=15.0)
    run = trained(study, SPEC)
    say(study, ids[1], seconds_spent=20.0)
    before, new = rounds(study, against="masks", split="train"), new_reviews(study, run.id)
    write_run_archive(run, tmp_path / "run.zip")
    shutil.rmtree(run.path)
    home = Study.open(study.folder)
    again = read_run_archive(tmp_path / "run.zip", home)
    [(left_out, why)] = rounds(home, against="masks", split="train").left_out
    assert left_out == run.id and "has predicted none" in why, "predictions do not travel"
    predict(home, again, Events(), image_ids=ids, threads=1)
    after = rounds(home, against="masks", split="train")
    assert after == before and new_reviews(home, run.id) == new
    [one] = after.rounds
    assert one.spent is not None and one.spent.reviewing_s == 60.0
    assert (one.reviews, one.reviewed, new.count) == (1, 1, 1)


def test_gaze_counts_from_its_recording_on() -> None:
    then = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc).timestamp()
    counts = recorded_before(then)
    assert counts("rec-20260101-235959-abcdef") and not counts("rec-20260102-000001-abcdef")
    assert counts("import-a"), "an import does not say when it was made"


def test_the_command_prints_and_draws(
    filled: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["rounds", str(filled.folder)]) == 1
    assert "train first" in capsys.readouterr().err
    run = trained(filled, SPEC, images=[])
    waiting, file = create_run(filled, SPEC), tmp_path / "chart.svg"
    assert run_command(["rounds", str(filled.folder), "--to", str(file)]) == 1
    told = capsys.readouterr()
    assert told.out == "" and f"{waiting.id}: it is waiting (1 more" in told.err and not file.exists()
    shutil.rmtree(waiting.path)
    predict(filled, run, Events(), image_ids=list(filled.images), threads=1)
    ids = list(filled.images)
    say(filled, ids[0], seconds_spent=30.0)
    say(filled, ids[4], purpose="audit", seconds_spent=90.0)
    trained(filled, tiny("partial", iterations=1, warm_start=run.id))
    assert run_command(["rounds", str(filled.folder), "--json", "--to", str(file)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["gaze"] == "simulated from masks" and told["reference"] == {
        "kind": "masks",
        "split": "test",
        "masks": 2,
    }
    assert [one["minutes"]["reviewing"] for one in told["rounds"]] == [0.0, 0.5]
    assert [one["reviews"]["count"] for one in told["rounds"]] == [0, 1]
    assert told["manual"]["seconds_each"] == 90.0
    root = ElementTree.fromstring(file.read_text())
    text = " ".join(root.itertext())
    assert "simulated from masks" in text and "by hand: 90 s a mask" in text
    circles = [one for one in root.iter() if one.tag.endswith("circle")]
    places = [float(one.attrib["cx"]) for one in circles]
    assert len(places) == 2 and places[0] < places[1]
    assert run_command(["rounds", str(filled.folder)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"Outlining by hand took 90\.0 s a mask \(1 audit\)", text)


def test_ticks_are_round_and_few() -> None:
    assert ticks(0.0, 1.0) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    for high in (0.05, 0.7, 3.0, 47.0, 990.0):
        assert 2 <= len(ticks(0.0, high)) <= 9
    assert ticks(0.5, 0.5) == [0.5]


def test_outlining_by_hand_is_of_the_very_masks_whose_gaze_was_paid_for(filled: Study) -> None:
    ids = list(filled.images)
    filled.set_targets([Target(), Target("other", "Other")])
    filled.save_fixations(
        "import-free", [dataclasses.replace(fixations_of(ids[0], source="import-free"), target_id="other")],
        imported=True,
    )  # fmt: skip
    study = Study.open(filled.folder)
    say(study, ids[0], purpose="audit", seconds_spent=60.0)
    trained(study, tiny("partial", iterations=1, targets=("target",)))
    manual = rounds(study).manual
    assert manual is not None
    assert (manual.masks, manual.minutes) == (4, 4.0), (
        "two gazed images are of the split test, one target is not learned"
    )
    trained(study, tiny("partial", iterations=1, targets=("target", "other")))
    manual = rounds(study).manual
    assert manual is not None and manual.masks == 5


def test_another_truth_is_measured_anew(filled: Study) -> None:
    ids = list(filled.images)
    run = trained(filled, SPEC)
    for image_id in ids:
        left_half = mask_like(filled, image_id).astype(np.float32)
        filled.save_prediction(run.id, image_id, "target", "student", left_half)
    known: Known = {}
    before = rounds(filled, known=known).rounds[0].dice
    filled.save_true_mask(ids[4], "target", mask_like(filled, ids[4]))
    after = rounds(filled, known=known).rounds[0].dice
    assert after == rounds(filled).rounds[0].dice != before
    say(filled, ids[0], purpose="audit")
    first = rounds(filled, against="audit", known=known).rounds[0].dice
    say(filled, ids[0], purpose="audit", mask=~mask_like(filled, ids[0]))
    second = rounds(filled, against="audit", known=known).rounds[0].dice
    assert second == rounds(filled, against="audit").rounds[0].dice != first


def test_a_review_that_was_replaced_was_learned_from_all_the_same(filled: Study) -> None:
    ids = list(filled.images)
    say(filled, ids[0], purpose="audit")
    say(filled, ids[0])
    first = trained(filled, SPEC)
    say(filled, ids[0], reviewed_at="2999-01-01T00:00:00.000+00:00", mask=~mask_like(filled, ids[0]))
    (one,) = rounds(filled, against="audit").rounds
    assert one.reviewed == 1, "it learned from the earlier one"
    trained(filled, tiny("partial", iterations=1, warm_start=first.id, learn_from_reviews=False))
    assert [one.reviewed for one in rounds(filled, against="audit").rounds] == [1, 1], (
        "by way of the first run"
    )
    assert all(one.seen for one in rounds(filled, against="audit").rounds)


def test_a_prediction_of_another_size_is_named(filled: Study) -> None:
    ids = list(filled.images)
    run = trained(filled, SPEC)
    filled.save_prediction(run.id, ids[4], "target", "student", np.zeros((5, 9), np.float32))
    with pytest.raises(UserError, match=f"{ids[4]}.target.png is 9 x 5 pixels.*against 64 x 48"):
        rounds(filled)
