from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from gaze_capture.recording import Presence
from gaze_capture.storage import write_json_atomic
from segmentation import steps
from segmentation.claims import checks_of
from segmentation.consent import erase_annotator
from segmentation.doubt import (
    CONTRADICTED,
    POOR_GAZE,
    Doubt,
    DoubtIndex,
    MaskNumbers,
    Part,
    contradiction_part,
    doubt_of,
    gaze_part,
    numbers_of,
    poor_gaze,
    student_part,
    word_part,
)
from segmentation.explanation import load_explanation, save_explanation
from segmentation.gaze_gates import Gates
from segmentation.job import RunSpec
from segmentation.look_again import ask_again, asked_again, take_back
from segmentation.measured import measure_form
from segmentation.pseudomask import LevelsAndGaze, levels_and_gaze, make_pseudomask
from segmentation.records import Target, utc_now
from segmentation.review_queue import review_queue, reviewed_run, state_of
from segmentation.session_options import SessionOptions
from segmentation.session_order import doubts as session_doubts
from segmentation.session_order import session_order
from segmentation.study import Mask, Review, Study
from segmentation.uncertainty import Certainty
from tests.gaze_support import SHAPE, add_images, record_in

RUN = "run-20260101-000000-aaaaaa"


def box(left: int, top: int, right: int, bottom: int, shape: tuple[int, int] = SHAPE) -> Mask:
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def gaze(*places: tuple[float, float, float], level_map: Mask | None = None) -> LevelsAndGaze:
    """Fixations at x, y for a duration, with a kernel of 10 px."""
    values = np.array(places, dtype=float).reshape(-1, 3)
    shown = np.zeros(SHAPE, dtype=np.uint8) if level_map is None else level_map.astype(np.uint8)
    return LevelsAndGaze(shown, 1, values[:, :2], values[:, 2], np.full((len(values), 2), 10.0))


# The score


def test_the_score_is_the_mean_of_what_is_known_and_warnings_raise_it() -> None:
    student, looked = Part("student", 0.1, "s"), Part("gaze", 0.7, "g")
    assert doubt_of([]) == Doubt(0.0, ())
    assert doubt_of([student]).score == pytest.approx(0.1)
    both = doubt_of([student, looked])
    assert both.score == pytest.approx(0.4) and both.reasons == ("g",)
    warned = doubt_of([student, looked, Part("contradiction", 0.3, "c")])
    assert warned.score == pytest.approx(1 - 0.6 * 0.7)
    assert warned.reasons == ("g", "c") and [part.name for part in warned.parts] == [
        "gaze", "contradiction", "student",
    ]  # fmt: skip
    assert doubt_of([student, Part("word", 1.0, "w")]).score == 1.0
    told = doubt_of([student, Part("quality", 0.0, "looked at briefly")])
    assert told.score == pytest.approx(0.1) and told.reasons == ("looked at briefly",)


@pytest.mark.parametrize("seed", range(20))
def test_more_evidence_against_a_mask_never_makes_it_less_doubtful(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [Part("student", rng.random(), ""), Part("gaze", rng.random(), "")]
    warnings = [Part("contradiction", rng.random(), ""), Part("word", rng.random(), "")]
    before = doubt_of(parts).score
    for number in (1, 2):
        after = doubt_of([*parts, *warnings[:number]]).score
        assert before <= after <= 1
        before = after
    worse = [dataclasses.replace(parts[0], value=1.0), parts[1]]
    assert doubt_of(worse).score >= doubt_of(parts).score


# The parts


def test_gaze_beside_the_mask_and_a_mask_nobody_looked_at_are_told_in_shares() -> None:
    mask = box(100, 100, 300, 200)
    on, beside = (200.0, 150.0), (500.0, 400.0)
    probability = mask.astype(np.float32)
    found = numbers_of(mask, gaze((*on, 290), (*beside, 710), level_map=box(90, 90, 310, 210)), probability)
    assert found.outside == pytest.approx(0.71) and found.unseen is not None and found.unseen > 0.7
    part = gaze_part(found)
    assert part is not None
    assert part.reason.startswith("the gaze lies mostly outside the mask (71 % of it) and ")
    assert part.reason.endswith(" % of the mask was not looked at")
    assert part.value == pytest.approx(1 - 2 * 20000 / (20000 + 220 * 120))
    spread = [(x, y, 100.0) for x in range(105, 300, 15) for y in range(105, 200, 15)]
    covered = numbers_of(mask, gaze(*spread, level_map=mask), probability)
    assert (covered.outside, covered.unseen, covered.mismatch) == (0, 0, 0)


def test_a_glance_just_beside_the_outline_is_inside() -> None:
    mask = box(100, 100, 300, 200)
    near = numbers_of(mask, gaze((303.0, 150.0, 100)), mask.astype(np.float32))
    far = numbers_of(mask, gaze((312.0, 150.0, 100)), mask.astype(np.float32))
    assert (near.outside, far.outside) == (0, 1)


def test_an_empty_mask_has_all_gaze_outside_and_nothing_unseen() -> None:
    nothing = np.zeros(SHAPE, dtype=bool)
    looked = gaze((10.0, 10.0, 100), level_map=box(0, 0, 40, 40))
    found = numbers_of(nothing, looked, nothing.astype(np.float32))
    assert found.empty and (found.outside, found.unseen, found.mismatch) == (1.0, None, 1.0)
    told = gaze_part(found)
    assert told is not None and told.reason == "the mask is empty, but something was looked at"
    other = numbers_of(np.zeros((20, 20), dtype=bool), looked, np.zeros((20, 20), dtype=np.float32))
    assert other.mismatch is None, "a pseudo-mask of another size says nothing"


def test_words_of_parts() -> None:
    assert student_part(Certainty()) is None
    unsure = student_part(Certainty(0.5, None, 0.3))
    assert unsure is not None and unsure.value == pytest.approx(0.6)
    assert unsure.reason == "the student is unsure of its mask (expected Dice 0.50, 0.30 with the teacher)"
    assert poor_gaze("ok") == poor_gaze(None) == ""
    assert poor_gaze("few") == "few fixations inside"
    assert poor_gaze("brief", ("the eyes were not seen",)) == "to be looked at again: the eyes were not seen"
    assert gaze_part(MaskNumbers(False, {})) is None


@pytest.mark.parametrize(
    ("word", "empty", "value"),
    [
        ("absent", False, 1.0),
        ("absent", True, None),
        ("present", True, 1.0),
        ("present", False, None),
        ("unsure", False, 0.5),
        ("ungradable", True, 0.5),
        (None, False, None),
    ],
)
def test_what_was_said_is_held_against_the_mask(
    word: Presence | None, empty: bool, value: float | None
) -> None:
    part = word_part(word, empty=empty)
    assert (None if part is None else part.value) == value


# In a study


@pytest.fixture
def reviewed(study: Study, image_folder: Path) -> Study:
    """Six images with gaze on their discs and predictions that are the true masks, but of the last two."""
    from tests.window_support import fill

    fill(study, image_folder)
    looked = [
        dataclasses.replace(one, viewing_ms=float(one.duration_ms.sum())) for one in study.fixations.each()
    ]
    study.save_fixations("import-test", looked, imported=True)
    for number, image_id in enumerate(study.images):
        mask = study.true_mask(image_id, "target")
        assert mask is not None
        probability = mask.astype(np.float32)
        if number == 4:
            probability = np.roll(probability, 30, axis=1)
        if number == 5:
            probability = 0.6 * probability
        study.save_prediction(RUN, image_id, "target", "student", probability)
    write_json_atomic(study.runs_folder / RUN / "spec.json", RunSpec().to_json())
    return study


def keys_of(study: Study) -> list[tuple[str, str]]:
    return [(image_id, "target") for image_id in study.images]


def test_the_queue_begins_with_the_mask_that_lies_elsewhere(reviewed: Study) -> None:
    ids = list(reviewed.images)
    found = review_queue(reviewed, run_id=RUN)
    assert [item.image_id for item in found[:2]] == [ids[4], ids[5]]
    assert found[0].doubt.score > 0.4 and found[0].subject == RUN and found[0].state == "waiting"
    assert "outside the mask" in found[0].doubt.reasons[0]
    assert any("student is unsure" in reason for reason in found[1].doubt.reasons)
    assert [item.doubt.score for item in found] == sorted((item.doubt.score for item in found), reverse=True)
    alone = review_queue(reviewed, run_id=None)
    assert {item.subject for item in alone} == {"pseudomask"}
    assert all([part.name for part in item.doubt.parts] == ["levels"] for item in alone)


def test_pixels_are_read_once_while_files_stay_the_same(
    reviewed: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, read = DoubtIndex(reviewed), []
    known = Study.prediction

    def watched(self: Study, run_id: str, image_id: str, *rest: str) -> object:
        read.append(image_id)
        return known(self, run_id, image_id, *rest)

    monkeypatch.setattr(Study, "prediction", watched)
    keys = keys_of(reviewed)
    before = index.doubts(keys, RUN)
    assert sorted(read) == sorted(reviewed.images)
    read.clear()
    assert index.doubts(keys, RUN) == before and read == []
    first = keys[0]
    reviewed.save_prediction(
        RUN, *first, "student", np.zeros(reviewed.images[first[0]].shape[:2], dtype=np.float32)
    )
    after = index.doubts(keys, RUN)
    assert read == [first[0]] and after[first].score > before[first].score


def test_poor_gaze_halves_a_pseudo_mask_and_says_nothing_of_the_students(reviewed: Study) -> None:
    key = keys_of(reviewed)[0]
    good, alone = (DoubtIndex(reviewed).doubts([key], run)[key] for run in (RUN, None))
    looks = reviewed.fixations[key]
    brief = [dataclasses.replace(one, viewing_ms=900.0) for one in looks]
    for item in reviewed.fixations.each():
        if item.image_id != key[0]:
            brief.append(item)
    reviewed.save_fixations("import-test", brief, imported=True)
    poor, poor_alone = (DoubtIndex(reviewed).doubts([key], run)[key] for run in (RUN, None))
    assert poor.reasons == ("looked at briefly",)
    assert {part.name for part in poor.parts} == {"student", "quality"} and "gaze" in {
        part.name for part in good.parts
    }
    assert poor_alone.score == pytest.approx(1 - (1 - alone.score) * (1 - POOR_GAZE))


def test_a_wish_for_another_look_is_told_and_leaves_the_score(reviewed: Study) -> None:
    key = keys_of(reviewed)[4]
    before = DoubtIndex(reviewed).doubts([key], RUN)[key]
    ask_again(reviewed, *key, "Dr. Ann")
    after = DoubtIndex(reviewed).doubts([key], RUN)[key]
    assert after.score == before.score
    assert after.reasons == (*before.reasons, "Dr. Ann asked for another look in review")


def test_a_contradicted_description_raises_doubt_unless_it_was_measured(reviewed: Study) -> None:
    key = keys_of(reviewed)[1]
    before = DoubtIndex(reviewed).doubts([key], RUN)[key]
    steps.explain(reviewed)
    assert DoubtIndex(reviewed).doubts([key], RUN)[key] == before, "the program agrees with itself"
    said = load_explanation(reviewed, *key)
    assert said is not None
    claims = {**said.attributes, "area_percent": 90}
    save_explanation(reviewed, dataclasses.replace(said, backend="annotator", attributes=claims))
    after = DoubtIndex(reviewed).doubts([key], RUN)[key]
    assert after.score == pytest.approx(1 - (1 - before.score) * (1 - CONTRADICTED))
    assert any("contradicts the mask (area percent: 90" in reason for reason in after.reasons)
    colour = dataclasses.replace(said, backend="annotator", attributes={"colour_contrast": "redder"})
    assert contradiction_part(checks_of(colour, measure_form(box(5, 5, 20, 20)))) is None


def test_states_and_choices(reviewed: Study) -> None:
    ids = list(reviewed.images)

    def review(image_id: str, verdict: str, presence: Presence | None) -> None:
        reviewed.add_review(
            Review(image_id, "target", "ann", RUN, verdict, presence, 1.0, utc_now())  # type: ignore[arg-type]
        )

    review(ids[0], "accepted", "present")
    review(ids[1], "edited", "absent")
    review(ids[2], "rejected", "unsure")
    everything = review_queue(reviewed, run_id=RUN, state=None)
    states = {item.image_id: item.state for item in everything}
    assert [states[name] for name in ids] == [
        "accepted",
        "nothing",
        "unsure",
        "waiting",
        "waiting",
        "waiting",
    ]
    assert {item.image_id for item in review_queue(reviewed, run_id=RUN)} == set(ids[3:])
    assert state_of(None, has_mask=False) == "empty"
    with pytest.raises(UserError, match="no target 'other'"):
        review_queue(reviewed, target_id="other")
    with pytest.raises(UserError, match="split 'nowhere'"):
        review_queue(reviewed, split="nowhere")
    assert reviewed_run(reviewed) == RUN
    with pytest.raises(UserError, match="no run 'run-9'"):
        reviewed_run(reviewed, "run-9")
    write_json_atomic(reviewed.runs_folder / "run-2" / "spec.json", RunSpec().to_json())
    with pytest.raises(UserError, match="has no predictions yet"):
        reviewed_run(reviewed, "run-2")


def test_levels_and_gaze_are_those_of_the_whole_pseudo_mask(study: Study, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fixations = Fixations(
        "a", "target", "ann", "s", np.arange(5, dtype=np.float64) * 300, np.full(5, 250.0), rng.uniform(20, 60, (5, 2)),
        np.full(5, np.nan), "imported",
    )  # fmt: skip
    made = make_pseudomask(
        rng.random((80, 80, 3)).astype(np.float32), [fixations], study.pseudomask_settings, "target"
    )
    assert made is not None
    part = levels_and_gaze(made.to_bytes(), tmp_path / "x.npz")
    assert (part.level_map == made.level_map).all() and part.levels == len(made.thresholds)
    assert (part.xy_px == made.xy_px).all() and (part.sigma_px == made.sigma_px).all()
    with pytest.raises(UserError, match=r"x\.npz is damaged"):
        levels_and_gaze(b"no", tmp_path / "x.npz")


# Another look


def test_what_a_reviewer_asked_for_comes_first_until_someone_has_looked(study: Study) -> None:
    names = ["a", "b", "c", "d"]
    add_images(study, names)
    record_in(study, "rec-1", [(name, 5 * n, 5 * n + 4) for n, name in enumerate(names, 1)], annotator="ben")
    asked = ask_again(study, "c", "target", "Dr. Ann")
    assert Gates(study).look_again("ben") == {("c", "target"): ("Dr. Ann asked for another look in review",)}
    items = session_order(study, "ben", SessionOptions())
    assert [item.image_id for item in items] == ["c"] and items[0].again
    assert items[0].reasons == (asked.reason,)
    for order in ("random", "counterbalanced", "by-doubt"):
        shown = session_order(study, "ann", SessionOptions(order=order))
        assert shown[0].image_id == "c" and len(shown) == 4
    assert session_doubts(study, [("c", "target")])["c", "target"].score == 0.9
    take_back(study, asked)
    assert asked_again(study) == {} and session_order(study, "ben", SessionOptions()) == []
    ask_again(study, "c", "target", "Dr. Ann")
    record_in(study, "rec-2", [("a", 1, 5)], annotator="ben")
    assert ("c", "target") in asked_again(study)
    record_in(study, "rec-3", [("c", 1, 5)], annotator="ben")
    assert asked_again(study) == {}


def test_asking_for_one_target_leaves_the_others(study: Study) -> None:
    add_images(study, ["a"])
    study.set_targets([Target("gland"), Target("zone")])
    ask_again(study, "a", "zone", "ann")
    assert set(Gates(study).look_again()) == {("a", "zone")}
    with pytest.raises(UserError, match="no image 'z'"):
        ask_again(study, "z", "zone", "ann")


def test_a_damaged_mark_is_named_and_marks_are_erased_with_their_annotator(study: Study) -> None:
    add_images(study, ["a", "b"])
    take_back(study, ask_again(study, "a", "target", "ann"))
    ask_again(study, "b", "target", "ann")
    ask_again(study, "b", "target", "ben")
    erase_annotator(study, "ann", really=True)
    left = list((study.folder / "look_again").rglob("*.*"))
    assert [path.name.rpartition("-")[2] for path in left if path.is_file()] == ["ben.json"]
    path = next(path for path in left if path.is_file())
    path.write_text('{"image_id": "b"}')
    with pytest.raises(UserError, match=r"is damaged.*ask for the look again"):
        asked_again(study)


# The command line


def test_the_command_lists_the_queue(reviewed: Study, capsys: pytest.CaptureFixture[str]) -> None:
    where, ids = str(reviewed.folder), list(reviewed.images)
    assert run_command(["review-queue", where, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["run"], told["state"], told["count"]) == (RUN, "waiting", 6)
    assert told["simulated_from"] == "masks"
    first = told["queue"][0]
    assert first["image"] == ids[4] and first["doubt"] > 0.4 and first["reasons"]
    assert set(first["parts"]) == {"student", "gaze"}
    assert run_command(["review-queue", where, "--limit", "2"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[1].startswith("    1  0.") and ids[4] in text.splitlines()[1]
    assert "... and 4 more." in text and "simulated from masks" in text
    assert run_command(["review-queue", where, "--pseudomasks", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] is None
    assert run_command(["review-queue", where, "--state", "accepted"]) == 0
    assert "No image is in the state 'accepted'" in capsys.readouterr().out
    assert run_command(["review-queue", where, "--pseudomasks", "--run", RUN]) == 1
    assert "either --run or --pseudomasks" in capsys.readouterr().err
    assert run_command(["review-queue", where, "--run", "nix"]) == 1
    assert "no run 'nix'" in capsys.readouterr().err
    assert run_command(["review-queue", where, "--state", "odd"]) == 2


def test_an_empty_study_is_told_what_comes_first(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    add_images(study, ["a"])
    assert run_command(["review-queue", str(study.folder)]) == 0
    assert "gaze-insight pseudomask" in capsys.readouterr().out


def test_a_large_image_says_the_same_upside_down() -> None:
    """Distances are measured on a smaller copy, whose pixels have to lie in the middle of those they stand for."""
    rng, side = np.random.default_rng(0), 2051
    y, x = np.mgrid[:side, :side]
    places = rng.normal((900, 1200), 330, (24, 2)).clip(0, side - 1)
    mask: Mask = (x - 900) ** 2 + (y - 1200) ** 2 < 300**2

    def found(mask: Mask, xy_px: npt.NDArray[np.float64]) -> MaskNumbers:
        kernels = np.full((len(xy_px), 2), 90.0)
        looks = LevelsAndGaze(mask.astype(np.uint8), 1, xy_px, np.full(len(xy_px), 200.0), kernels)
        return numbers_of(mask, looks, mask.astype(np.float32))

    one, other = found(mask, places), found(np.ascontiguousarray(mask[::-1, ::-1]), side - 1 - places)
    assert one.outside and one.unseen
    assert (one.outside, one.unseen) == pytest.approx((other.outside, other.unseen))
    assert one.form["area_percent"] == pytest.approx(other.form["area_percent"])
