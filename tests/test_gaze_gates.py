from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from gaze_capture.recording import Calibration
from segmentation.gaze_gates import Gates, overrule
from segmentation.steps import detect_fixations, make_pseudomasks, simulate
from segmentation.study import Study
from segmentation.verification import verify
from tests.gaze_support import Event, add_images, record_in

BAD: dict[str, Any] = {
    "points": 5,
    "mean_error_deg": 1.4,
    "max_error_deg": 2.0,
    "rms_s2s_deg": 0.1,
    "data_loss": 0.0,
}
FINE = BAD | {"mean_error_deg": 0.4, "max_error_deg": 0.8}
THREE = [("a", 1, 5), ("b", 5.5, 9.5), ("c", 10, 14)]


def failed(study: Study) -> dict[str, str]:
    return {
        state.gate.image_id: "; ".join(state.gate.reasons)
        for state in Gates(study).states
        if state.gate.result == "look again"
    }


@pytest.fixture
def abc(study: Study) -> Study:
    add_images(study, ["a", "b", "c"])
    return study


def test_good_gaze_passes_every_gate(abc: Study) -> None:
    events: list[Event] = [("validation", 0.5, {"summary": FINE}), ("drift", 9.8, {"distance_deg": 0.6})]
    record_in(abc, "rec-1", THREE, events)
    assert failed(abc) == {} and len(Gates(abc).states) == 3


@pytest.mark.parametrize(
    ("how", "image", "words"),
    [
        ({"lost": [(5.6, 6.6)]}, "b", "the eyes were not seen for 25% of it"),
        ({"silent": [(6.0, 6.8)]}, "b", "the tracker sent nothing for 0.8 s of it"),
        ({"outside": [(5.5, 9.5)]}, "b", "fixations lie in it"),
        ({"calibration": Calibration(**BAD)}, "a", "found 1.4° on average"),
    ],
)
def test_what_spoils_a_look_is_said_in_words(abc: Study, how: dict[str, Any], image: str, words: str) -> None:
    record_in(abc, "rec-1", THREE, **how)
    found = failed(abc)
    assert words in found[image]
    assert set(found) == ({"a", "b", "c"} if "calibration" in how else {image})


def test_a_glance_is_not_enough_and_a_blink_does_no_harm(abc: Study) -> None:
    record_in(abc, "rec-1", [("a", 1, 2.2), ("b", 3, 7)], lost=[(4, 4.3)])
    assert failed(abc) == {"a": "it was looked at for 1.2 s only"}


def test_a_pause_is_no_part_of_a_look(abc: Study) -> None:
    # Lost eyes during the pause spoil nothing; the pause itself is no time of looking.
    events: list[Event] = [("pause", 2.0, {}), ("resume", 9.0, {})]
    record_in(abc, "rec-1", [("a", 1, 12)], events, lost=[(2, 9)])
    assert failed(abc) == {}
    record_in(abc, "rec-2", [("b", 1, 10)], [("pause", 2.0, {}), ("resume", 9.8, {})])
    assert failed(abc) == {"b": "it was looked at for 1.2 s only"}


@pytest.mark.parametrize(
    ("events", "spoilt"),
    [
        ([("drift", 9.8, {"distance_deg": 1.4})], {"a", "b"}),
        ([("drift", 5.2, {"distance_deg": 0.5}), ("drift", 9.8, {"offset_deg": [1.0, 1.0]})], {"b"}),
        ([("calibration", 5.2, {"eyes": "both"}), ("drift", 9.8, {"distance_deg": 1.4})], {"b"}),
        ([("validation", 9.8, {"summary": BAD})], {"a", "b", "c"}),
        ([("validation", 0.5, {"summary": BAD}), ("validation", 9.7, {"summary": FINE})], {"a", "b"}),
        ([("validation", 0.5, {"summary": None})], {"a", "b", "c"}),
        ([("connection", 6.0, {"state": "lost"}), ("connection", 6.2, {"state": "restored"})], {"b"}),
        ([("connection", 9.7, {"state": "lost"})], set()),
        ([("practice", 0.5, {"on": True}), ("practice", 5.2, {"on": False})], {"a"}),
    ],
)
def test_what_was_measured_before_and_after_judges_the_looks_between(
    abc: Study, events: list[Event], spoilt: set[str]
) -> None:
    record_in(abc, "rec-1", THREE, events)
    assert set(failed(abc)) == spoilt


def test_slices_of_a_volume_are_judged_together(study: Study) -> None:
    add_images(study, ["s1", "s2", "s3"], volume="v")
    record_in(study, "rec-1", [("s1", 1, 2), ("s2", 2, 3), ("s3", 3, 4), ("s2", 4, 5)])
    assert failed(study) == {} and len(Gates(study).states) == 3


def test_held_back_gaze_makes_no_pseudomask_until_it_is_overruled_or_looked_at_again(abc: Study) -> None:
    record_in(abc, "rec-1", [("a", 1, 2.2), ("b", 3, 7)])
    report = make_pseudomasks(abc)
    assert report.made == 1 and report.look_again == (("a", "it was looked at for 1.2 s only"),)
    assert abc.pseudomask_keys() == {("b", "target")}
    [state] = overrule(abc, ["a"], "Dr. A")
    assert state.gate.image_id == "a"
    report = make_pseudomasks(abc)
    assert report.made == 2 and report.look_again == ()
    last = json.loads((abc.folder / "audit.jsonl").read_text().splitlines()[-2])
    assert last["action"] == "overrule gates" and last["annotator"] == "Dr. A" and last["images"] == ["a"]
    detect_fixations(abc, "rec-1")
    assert Gates(abc).look_again() == {}, "an overrule outlives the next detection"
    with pytest.raises(UserError, match="nothing to overrule"):
        overrule(abc, ["b"], "Dr. A")


def test_a_mask_made_before_its_gaze_was_judged_is_taken_away(abc: Study) -> None:
    record_in(abc, "rec-1", THREE)
    make_pseudomasks(abc)
    path = abc.recordings_folder / "rec-1" / "gates.json"
    values = json.loads(path.read_text())
    values["looks"][0].update(result="look again", reasons=["for a test"])
    path.write_text(json.dumps(values))
    assert make_pseudomasks(abc).look_again == (("a", "for a test"),)
    assert ("a", "target") not in abc.pseudomask_keys()


def test_only_the_looks_that_failed_are_left_out(abc: Study) -> None:
    # Seen too briefly, then another image, then the first again for long enough.
    record_in(abc, "rec-1", [("a", 1, 2.2), ("b", 3, 7), ("a", 8, 12)])
    both = abc.fixations["a", "target"]
    assert len(both) == 2
    assert Gates(abc).usable(("a", "target"), both) == [both[1]]
    assert Gates(abc).look_again("ann") == {}, "it has been looked at again since"
    make_pseudomasks(abc)
    made = abc.pseudomask("a", "target")
    assert made is not None and len(made.duration_ms) <= len(both[1].duration_ms)


def test_free_viewing_is_held_back_for_every_target(abc: Study) -> None:
    record_in(abc, "rec-1", [("a", 1, 2.2)], target=None)
    assert set(Gates(abc).look_again()) == {("a", "target")}
    assert Gates(abc).usable(("a", "target"), abc.fixations["a", "target"]) == []


def test_simulated_sittings_pass_as_they_are(abc: Study) -> None:
    mask = np.zeros((480, 640), dtype=bool)
    mask[100:200, 100:300] = True
    for name in "abc":
        abc.save_true_mask(name, "target", mask)
    [recording] = simulate(abc).recordings
    assert not (abc.recordings_folder / recording / "gates.json").exists()
    assert make_pseudomasks(abc).made == 3


def test_gates_on_the_command_line(abc: Study, capsys: pytest.CaptureFixture[str]) -> None:
    record_in(abc, "rec-1", [("a", 1, 2.2), ("b", 3, 7)])
    assert run_command(["gates", str(abc.folder)]) == 0
    assert "a (rec-1): look again: it was looked at for 1.2 s only" in capsys.readouterr().out
    assert run_command(["pseudomask", str(abc.folder), "--refine", "none"]) == 0
    assert "1 image to be looked at again" in capsys.readouterr().out
    arguments = ["gates", str(abc.folder), "--overrule", "a", "--annotator", "Dr. A", "--json"]
    assert run_command(arguments) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["looks"], values["ok"], values["look_again"]) == (2, 1, [])
    assert values["overruled"][0]["overruled_by"] == "Dr. A"
    assert run_command(["gates", str(abc.folder), "--overrule", "nobody"]) == 1
    assert "no image 'nobody'" in capsys.readouterr().err


def test_damaged_gates_are_told_and_made_again(abc: Study) -> None:
    record_in(abc, "rec-1", [("a", 1, 2.2)])
    path = abc.recordings_folder / "rec-1" / "gates.json"
    for text in ("{", "[]", '{"annotator": "ann", "looks": [{"image_id": "a"}]}'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"gates\.json is damaged"):
            Gates(abc)
        assert [problem.file for problem in verify(abc).problems] == ["recordings/rec-1/gates.json"]
    detect_fixations(abc, "rec-1")
    assert set(failed(abc)) == {"a"} and verify(abc).sound
