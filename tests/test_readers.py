"""Several annotators: what counts, audits drawn blind, second reads, and how far annotators agree."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import contingency

from app.verdicts import Judged, Word, give_verdict
from gaze_capture.errors import UserError
from segmentation.advice import study_facts
from segmentation.blind_reading import audit_draws, draw_audit, not_asked_of, work_for
from segmentation.evaluation import evaluate
from segmentation.metrics import dice
from segmentation.presets import preset
from segmentation.reader_agreement import cohens_kappa, pixel_kappa, reader_agreement
from segmentation.readings import annotator_disagreement
from segmentation.study import Study
from segmentation.verification import verify
from tests.reader_support import SHAPE, command, command_json, disc, left_for, make, review

EMPTY = np.zeros(SHAPE, dtype=np.bool_)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make(tmp_path / "study")


def test_second_reads_and_audits_decide_nothing(study: Study) -> None:
    first, second, third, _ = study.images
    review(study, first, "A", disc(20))
    review(study, first, "B", disc(40), "second-read")
    review(study, first, "C", EMPTY, "audit")
    review(study, second, "B", EMPTY, "audit")
    review(study, third, "B", EMPTY, "second-read")
    assert len(study.reviews(first, "target")) == 3
    assert [one.annotator for one in study.counted_reviews(first, "target")] == ["A"]
    mask = study.reviewed_mask(first, "target")
    assert mask is not None and (mask == disc(20)).all()
    assert set(study.reviewed()) == {(first, "target")}
    assert study.reviewed_mask(second, "target") is None
    assert study.presence(second, "target") is None and study.presence(third, "target") is None
    assert study.presences() == {(first, "target"): "present"}
    facts = study_facts(study)
    assert (facts.reviewed, facts.absent, facts.from_gaze) == (1, 0, 1)
    audited = study.audit_mask(first, "target")
    assert audited is not None and not audited.any()
    review(study, first, "consensus", disc(30), "consensus")
    mask = study.reviewed_mask(first, "target")
    assert mask is not None and (mask == disc(30)).all(), "a consensus is a review like any other"


def test_training_never_reads_an_audit(study: Study) -> None:
    from segmentation.dataset import load_training_set

    spec = preset("supervised", "cpu", targets=("target",), image_size_px=32, device="cpu")
    for image_id in study.images:
        review(study, image_id, "A", disc(20), "audit")
    with pytest.raises(UserError, match="true or reviewed mask"):
        load_training_set(study, spec, None)
    review(study, next(iter(study.images)), "A", disc(20))
    assert len(load_training_set(study, spec, None)) == 1


def test_runs_are_measured_against_audits(study: Study) -> None:
    first, second, *_ = study.images
    review(study, first, "A", disc(20), "audit")
    review(study, first, "B", disc(40))
    review(study, second, "B", disc(40))
    for image_id in study.images:
        study.save_prediction("run-x", image_id, "target", "student", disc(40).astype(np.float32))
    (study.runs_folder / "run-x" / "spec.json").write_text("{}")
    found = evaluate(study, "run-x", against="audit")
    assert list(found.per_image) == [first]
    assert found.measures["dice"].mean == pytest.approx(dice(disc(20), disc(40)))
    values = command_json("evaluate", study.folder, "--run", "run-x", "--against", "audit")
    assert values["against"] == "audit" and values["images"] == 1
    assert (study.runs_folder / "run-x" / "metrics" / "all-audit.json").exists()


def test_a_draw_is_random_repeatable_and_never_rewritten(study: Study) -> None:
    draw = draw_audit(study, 3, 7, annotator="A")
    again = draw_audit(study, 3, 7, annotator="B")
    other = [draw_audit(study, 3, seed).image_ids for seed in range(8)]
    assert draw.image_ids == again.image_ids and draw.id != again.id
    assert len(set(other)) > 1, "another seed draws others"
    assert len({*draw.image_ids}) == 3 and {*draw.image_ids} <= {*study.images}
    assert audit_draws(study)[0] == draw and len(audit_draws(study)) == 10
    counts = dict.fromkeys(study.images, 0)
    for seed in range(200):
        counts[draw_audit_ids(study, seed)] += 1
    assert min(counts.values()) > 25, "each image is as likely"


def draw_audit_ids(study: Study, seed: int) -> str:
    (image_id,) = draw_audit(study, 1, seed).image_ids
    return image_id


def test_what_is_left_for_whom(study: Study) -> None:
    draw = draw_audit(study, 3, 1, annotator="A")
    assert left_for(study, "A", "audit") == draw.keys
    assert left_for(study, "B", "audit") == []
    review(study, draw.image_ids[1], "A", EMPTY, "audit")
    assert left_for(study, "A", "audit") == [draw.keys[0], draw.keys[2]]
    first, second, third, _ = study.images
    review(study, first, "A", disc(20))
    review(study, second, "A", disc(20))
    review(study, second, "B", disc(20))
    review(study, third, "consensus", disc(20), "consensus")
    assert left_for(study, "A", "second-read") == [], "nobody reads blind what they have reviewed"
    assert left_for(study, "B", "second-read") == [(first, "target")]
    review(study, first, "B", disc(22), "second-read", subject="run-x", started_from="student")
    assert left_for(study, "B", "second-read") == []
    assert work_for(study, "B", "second-read") == [(first, "target")]


def test_nobody_audits_blind_what_they_have_reviewed(study: Study) -> None:
    draw = draw_audit(study, 4, 1)
    first, second, third, fourth = draw.image_ids
    review(study, first, "A", disc(20), "audit")
    review(study, first, "A", disc(20))
    review(study, second, "A", disc(20))
    review(study, third, "B", disc(20))
    review(study, third, "A", disc(20), "second-read")
    assert work_for(study, "A", "audit") == [(first, "target"), (fourth, "target")], (
        "what was outlined before the review was blind"
    )
    assert not_asked_of(study, "A") == [(second, "target"), (third, "target")]
    assert not_asked_of(study, "B") == [(third, "target")]
    for seed in range(5):
        drawn, usual = draw_audit(study, 2, seed, annotator="A"), draw_audit(study, 2, seed)
        assert {*drawn.image_ids} == {first, fourth}
        kept = [
            (one, other) for one, other in zip(drawn.image_ids, usual.image_ids, strict=True) if one == other
        ]
        assert len(kept) == len({*usual.image_ids} & {first, fourth}), "what is drawn anyway stays"
    with pytest.raises(UserError, match=r"3 images .* for 'A', who has reviewed 2 of the 4"):
        draw_audit(study, 3, 1, annotator="A")
    status, _, told = command("audit-draw", study.folder, "--count", "4", "--seed", "1", "--annotator", "B")
    assert status == 1 and "has reviewed 1 of the 4" in told


@pytest.mark.parametrize(
    "changes",
    [
        {"started_from": "student"},
        {"started_from": "slice 7"},
        {"started_from": ""},
        {"subject": "run-x"},
        {"subject": "pseudomask"},
        {"subject": "run-x", "verdict": "accepted"},
    ],
)
def test_an_audit_that_was_not_blind_is_refused(study: Study, changes: dict[str, Any]) -> None:
    first = next(iter(study.images))
    with pytest.raises(UserError, match="outlined on the bare image"):
        review(study, first, "A", disc(20), "audit", **changes)
    assert study.reviews(first, "target") == [] and not (study.folder / "reviews").exists()


def test_an_audit_may_say_in_a_word_that_nothing_is_there(study: Study) -> None:
    first, second, *_ = study.images
    said: tuple[tuple[str, Word], ...] = ((first, "nothing"), (second, "ungradable"))
    for image_id, word in said:
        judged = Judged(image_id, "target", "run-x", "A", 1.0, "audit")
        assert give_verdict(study, judged, word)
    assert [one.presence for one in study.reviews(first, "target")] == ["absent"]


def test_a_mask_of_another_size_is_named(study: Study) -> None:
    first = next(iter(study.images))
    name = review(study, first, "A", disc(5, 5, 3, (10, 12)))
    with pytest.raises(UserError, match=rf"{name}\.png is a mask of 12 x 10 pixels"):
        study.reviewed_mask(first, "target")
    (study.folder / "reviews" / f"{first}.target" / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=rf"{name}\.png is not a readable image"):
        study.reviewed_mask(first, "target")


def test_kappa_is_what_independent_formulas_say() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.random((2, 4000)) < 0.3
    other = np.where(rng.random(4000) < 0.7, one, other)
    table = contingency.crosstab(one, other).count.astype(np.float64)
    share = table / table.sum()
    expected = (np.trace(share) - share.sum(1) @ share.sum(0)) / (1 - share.sum(1) @ share.sum(0))
    assert cohens_kappa(table) == pytest.approx(expected)
    assert pixel_kappa(one.reshape(40, 100), other.reshape(40, 100)) == pytest.approx(expected)
    # The example of the paper's readers: 20 and 15 of 50 alike, 5 and 10 not.
    assert cohens_kappa(np.array([[20.0, 5.0], [10.0, 15.0]])) == pytest.approx(0.4)
    assert math.isnan(cohens_kappa(np.array([[9.0, 0.0], [0.0, 0.0]])))


def test_agreement_pair_by_pair(study: Study) -> None:
    ids = list(study.images)
    for image_id in ids[:3]:
        review(study, image_id, "A", disc(20))
        review(study, image_id, "B", disc(22), "second-read")
    review(study, ids[3], "A", EMPTY)
    review(study, ids[3], "B", EMPTY)
    review(study, ids[0], "C", EMPTY, "audit")
    found = {one.annotators: one for one in reader_agreement(study)}
    assert set(found) == {("A", "B"), ("A", "C"), ("B", "C")}
    pair = found["A", "B"]
    assert (pair.images, pair.blind, pair.masks, pair.groups) == (4, 3, 3, 4)
    assert pair.dice.mean == pytest.approx(dice(disc(20), disc(22)))
    assert pair.pixel_kappa.mean == pytest.approx(pixel_kappa(disc(20), disc(22)))
    assert pair.presence_kappa.mean == 1 and pair.presence_agreed == 1
    assert found["A", "C"].dice.mean == 0 and found["A", "C"].presence_agreed == 0
    only = reader_agreement(study, purposes=("review",), annotators=("A", "B"))
    assert [one.images for one in only] == [1]
    values = command_json("readers", study.folder)
    assert values["annotators"] == ["A", "B", "C"] and len(values["pairs"]) == 3
    status, text, _ = command("readers", study.folder, "--target", "target")
    assert status == 0 and "target: A and B, 4 images of 4 groups, 3 of them read blind" in text


def test_an_interval_goes_over_whole_groups(study: Study, tmp_path: Path) -> None:
    import dataclasses

    ids = list(study.images)
    for number, image_id in enumerate(ids):
        review(study, image_id, "A", disc(20))
        review(study, image_id, "B", disc(20 + 4 * number))
    wide = reader_agreement(study)[0].dice
    assert wide.low < wide.mean < wide.high
    study.add_images(dataclasses.replace(study.image(name), group="one") for name in ids)
    assert math.isnan(reader_agreement(study)[0].dice.low), "one patient tells nothing of others"


def test_the_latest_reading_of_each_counts(study: Study) -> None:
    first = next(iter(study.images))
    review(study, first, "A", disc(50))
    review(study, first, "A", disc(20))
    review(study, first, "B", disc(20))
    assert reader_agreement(study)[0].dice.mean == 1
    divided = annotator_disagreement(study, first, "target")
    assert divided is not None and not divided.any()
    review(study, first, "C", EMPTY)
    divided = annotator_disagreement(study, first, "target")
    assert divided is not None and divided.dtype == np.float32
    assert divided.max() == pytest.approx(2 / 3) and ((divided > 0) == disc(20)).all()
    assert annotator_disagreement(study, list(study.images)[1], "target") is None


def test_commands_refuse_what_cannot_be(study: Study) -> None:
    review(study, next(iter(study.images)), "A", disc(20))
    for words, said in (
        (("readers", "--annotator", "Nobody"), "no review by the annotator 'Nobody'; it has reviews by: A."),
        (("readers", "--target", "liver"), "no target 'liver'"),
        (
            ("consensus", "--method", "staple", "--annotator", "A", "Nobody"),
            "no review by the annotator 'Nobody'",
        ),
        (("consensus", "--method", "staple", "--threshold", "2"), "between 0 and 1"),
        (("audit-draw", "--count", "5", "--seed", "1"), "5 images cannot be drawn: the study has 4"),
        (("audit-draw", "--count", "1", "--seed", "1", "--split", "val"), "no images in the split 'val'"),
    ):
        status, out, error = command(words[0], study.folder, *words[1:])
        assert (status, out) == (1, "") and said in error and error.count("\n") == 1
    assert command("audit-draw", study.folder, "--count", "0", "--seed", "1")[0] == 2
    for name, *options in (("audit-draw", "--count", "1"), ("readers",)):
        status, out, error = command(name, study.folder, *options, "--seed", "-5")
        assert (status, out) == (2, "") and "-5 should be from 0 to" in error
    status, out, error = command("readers", study.folder)
    assert (status, out) == (1, "") and error.startswith("No image was read by two annotators yet;")


def test_a_review_of_a_deleted_image_is_passed_over_and_found(study: Study) -> None:
    first, *_, last = study.images
    for name in "AB":
        review(study, first, name, disc(20))
        review(study, last, name, disc(20))
    for path in study.manifests():
        values = json.loads(path.read_text())
        values["images"] = [one for one in values["images"] if one["id"] != last]
        path.write_text(json.dumps(values))
    reopened = Study.open(study.folder)
    assert [one.images for one in reader_agreement(reopened)] == [1]
    assert command_json("consensus", study.folder, "--method", "majority")["written"] == [
        {"image": first, "target": "target", "presence": "present"}
    ]
    status, out, _ = command("verify", study.folder)
    assert status == 1 and f"of the image {last}, which the study does not have" in out


def test_a_damaged_draw_is_named(study: Study) -> None:
    draw = draw_audit(study, 2, 1)
    path = study.folder / "audits" / f"{draw.id}.json"
    assert verify(study).sound
    path.write_text('{"schema": 2, "id": "x"}')
    with pytest.raises(UserError, match=rf"{draw.id}\.json is damaged"):
        audit_draws(study)
    assert [one.file for one in verify(study).problems] == [f"audits/{draw.id}.json"]
