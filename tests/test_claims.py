from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from segmentation.agreement import Share, agreement_table, measure_numbers, wilson
from segmentation.claims import Check, agreement, checks_of, contradictions
from segmentation.explaining import explain_study
from segmentation.explanation import load_explanation, save_explanation
from segmentation.explanation_presets import load_preset
from segmentation.images import read_image
from segmentation.measured import describe
from segmentation.study import Study
from tests.test_explanation import add_gazed_images, make_explanation

GENERIC = load_preset()
NUMBERS: dict[str, float | None] = {
    "area_percent": 10.0,
    "components": 1.0,
    "centre_x": 0.2,
    "centre_y": 0.2,
    "eccentricity": 0.3,
    "solidity": 0.97,
    "circularity": 0.9,
    "boundary_ratio": 5.0,
    "lightness": 45.0,
    "red_green": 30.0,
    "yellow_blue": 18.0,
    "lightness_contrast": 12.0,
    "red_green_contrast": 12.0,
    "yellow_blue_contrast": 2.0,
}


def check(attribute: str, said: Any, **numbers: float | None) -> Check:
    explanation = make_explanation(
        backend="openai", attributes={attribute: said}, numbers={**NUMBERS, **numbers}
    )
    (only,) = checks_of(explanation)
    assert only.attribute == attribute
    return only


@pytest.mark.parametrize(
    ("attribute", "said", "numbers", "verdict"),
    [
        ("area_percent", 10, {}, "agrees"),
        ("area_percent", 24.0, {}, "agrees"),  # Within a factor 2.5.
        ("area_percent", 26.0, {}, "contradicts"),
        ("area_percent", 4.1, {}, "agrees"),
        ("area_percent", 3.9, {}, "contradicts"),
        ("area_percent", 3.5, {"area_percent": 0.6}, "agrees"),  # Little in the image's terms.
        ("area_percent", 0, {}, "contradicts"),
        ("location", "upper left", {}, "agrees"),
        ("location", "upper centre", {}, "contradicts"),
        ("location", "upper centre", {"centre_x": 0.3}, "agrees"),  # Beside the border.
        ("location", "centre", {"centre_x": 0.24, "centre_y": 0.24}, "agrees"),
        ("location", "lower right", {}, "contradicts"),
        ("location", "whole image", {}, "contradicts"),
        ("location", "whole image", {"area_percent": 60.0}, "agrees"),
        ("count", "one", {}, "agrees"),
        ("count", "two", {}, "agrees"),
        ("count", "several", {}, "contradicts"),
        ("count", "one", {"components": 4.0}, "contradicts"),
        ("count", "several", {"components": 5.0}, "agrees"),
        ("intensity", "brighter", {}, "agrees"),
        ("intensity", "much brighter", {}, "agrees"),
        ("intensity", "similar", {}, "agrees"),
        ("intensity", "similar", {"lightness_contrast": 14.5}, "contradicts"),
        ("intensity", "darker", {}, "contradicts"),
        ("intensity", "darker", {"lightness_contrast": 5.5}, "agrees"),
        ("intensity", "brighter", {"lightness_contrast": -7.0}, "contradicts"),
        ("intensity", "brighter", {"lightness_contrast": None}, "not measurable"),
        ("colour", "red", {}, "agrees"),
        ("colour", "pink", {}, "agrees"),
        ("colour", "green", {}, "contradicts"),
        ("colour", "red", {"red_green": None, "yellow_blue": None}, "contradicts"),
        ("colour", "grey", {"red_green": None, "yellow_blue": None}, "not measurable"),
        ("colour_contrast", "redder", {}, "agrees"),
        ("colour_contrast", "greener", {}, "contradicts"),
        ("colour_contrast", "similar", {}, "contradicts"),
        ("colour_contrast", "paler", {}, "contradicts"),
        ("colour_contrast", "paler", {"red_green_contrast": -10.0, "yellow_blue_contrast": -6.0}, "agrees"),
        ("colour_contrast", "yellower", {}, "agrees"),
        ("boundary", "sharp", {}, "agrees"),
        ("boundary", "blurred", {}, "contradicts"),
        ("boundary", "sharp", {"boundary_ratio": 2.0}, "contradicts"),
        ("boundary", "sharp", {"boundary_ratio": 3.0}, "agrees"),
        ("boundary", "moderately sharp", {"boundary_ratio": 6.0}, "contradicts"),
        ("boundary", "blurred", {"boundary_ratio": 2.0}, "agrees"),
        ("boundary", "blurred", {"boundary_ratio": None}, "not measurable"),
        ("shape", "round", {}, "agrees"),
        ("shape", "oval", {"eccentricity": 0.4}, "agrees"),
        ("shape", "elongated", {}, "contradicts"),
        ("shape", "round", {"eccentricity": 0.95}, "contradicts"),
        ("shape", "irregular", {}, "not measurable"),
        ("shape", "elongated", {"solidity": None}, "not measurable"),
        ("texture", "coarse", {}, "not measurable"),
        ("signal_t2", "markedly hypointense", {}, "contradicts"),
        ("signal_t2", "hyperintense", {}, "agrees"),
        ("margin", "circumscribed", {}, "agrees"),
        ("margin", "Ill-defined", {}, "contradicts"),
        ("echogenicity", "hypoechoic", {}, "not measurable"),  # Against fat, not its surroundings.
        ("length_mm", 12.0, {}, "not measurable"),
    ],
)
def test_verdicts(attribute: str, said: Any, numbers: dict[str, float | None], verdict: str) -> None:
    found = check(attribute, said, **numbers)
    assert found.verdict == verdict, found.sentence
    assert found.sentence.startswith(attribute.replace("_", " "))


def test_sentences_tell_both_sides() -> None:
    assert check("location", "lower right").sentence == (
        "location: lower right; measured: upper left (centre at 0.20, 0.20)."
    )
    assert check("area_percent", 40.0).sentence == "area percent: 40; measured: 10 % of the image."


def test_nothing_is_claimed_by_open_words_and_nothing_measured_of_an_empty_region() -> None:
    said = {"location": "absent", "shape": "cannot assess", "confidence": "high", "remarks": ""}
    assert checks_of(make_explanation(backend="openai", attributes=said, numbers=NUMBERS)) == []
    assert check("location", "centre", area_percent=0.0, components=0.0).verdict == "not measurable"


def test_explanations_of_earlier_versions_have_nothing_to_check_against() -> None:
    checks = checks_of(make_explanation(backend="openai"))
    assert len(checks) == 9 and {one.verdict for one in checks} == {"not measurable"}
    assert agreement(checks) == (0, 0)


def test_numbers_edited_by_hand_do_no_harm() -> None:
    bad: Any = {name: "many" for name in NUMBERS}
    assert {one.verdict for one in checks_of(make_explanation(numbers=bad))} == {"not measurable"}
    odd: Any = {**NUMBERS, "lightness_contrast": math.nan, "components": True}
    assert agreement(checks_of(make_explanation(numbers=odd)))[1] == 6


def test_a_measurement_never_contradicts_itself() -> None:
    rng = np.random.default_rng(0)
    colours = [name for name in NUMBERS if "contrast" in name or name in ("red_green", "yellow_blue")]
    for _ in range(500):
        numbers: dict[str, float | None] = {
            **{name: float(rng.uniform(0, 1)) for name in ("centre_x", "centre_y", "eccentricity", "solidity")},
            **{name: float(rng.normal(0, 20)) for name in colours},
            "circularity": float(rng.uniform(0.3, 1)),
            "boundary_ratio": float(rng.uniform(0, 4)),
            "lightness": float(rng.uniform(0, 100)),
            "area_percent": float(rng.uniform(0.01, 100)),
            "components": float(rng.integers(1, 6)),
            "texture_fine": 1.0, "texture_coarse": 1.0, "unevenness": 1.0,
        }  # fmt: skip
        assert (
            contradictions(checks_of(make_explanation(attributes=describe(numbers), numbers=numbers))) == []
        )


@pytest.mark.parametrize(
    ("remarks", "said"),
    [
        ("About 12 mm across.", "12 mm"),
        ("A 1.5 x 2 cm mass", "1.5 x 2 cm"),
        ("a 5-millimetre polyp", "5-millimetre"),
        ("PI-RADS 4 lesion", "PI-RADS 4"),
        ("BIRADS category 4", "BIRADS category 4"),
        ("Mayo score: 2", "Mayo score: 2"),
        ("Gleason 7", "Gleason 7"),
        ("likely malignant", "malignant"),
        ("suggests adenocarcinoma? No: carcinoma.", "carcinoma"),
    ],
)
def test_sizes_scores_and_diagnoses_were_not_asked_for(remarks: str, said: str) -> None:
    explanation = make_explanation(backend="openai", attributes={"remarks": remarks}, numbers=NUMBERS)
    (only,) = checks_of(explanation)
    assert (only.attribute, only.said, only.verdict) == ("remarks", said, "not asked for")
    assert agreement([only]) == (0, 0) and contradictions([only]) == [only]
    clinician = dataclasses.replace(explanation, backend="annotator")
    assert checks_of(clinician) == [], "clinicians may say what they like"


@pytest.mark.parametrize(
    "remarks",
    ["Mucus beside it.", "", "mayonnaise", "2 folds, 3 vessels", "three benches", "Kudos", "comma 5"],
)
def test_other_remarks_are_left_alone(remarks: str) -> None:
    assert checks_of(make_explanation(backend="openai", attributes={"remarks": remarks})) == []


def test_a_size_is_fine_where_the_scale_is_known() -> None:
    said = make_explanation(backend="openai", attributes={"remarks": "12 mm"}, conditions=("scale",))
    assert checks_of(said) == []


def test_hostile_claims_become_one_plain_line() -> None:
    found = check("margin", "a\n\x1b[31mb" + "x" * 500)
    assert "\n" not in found.sentence and "\x1b" not in found.sentence and len(found.said) <= 80


# Agreement over a study


@pytest.mark.parametrize(
    ("agreeing", "checked", "low", "high"),
    # Newcombe (1998), table I: 81/263, 15/148, 0/20, 1/29.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_wilsons(agreeing: int, checked: int, low: float, high: float) -> None:
    assert wilson(agreeing, checked) == pytest.approx((low, high), abs=5e-5)


@pytest.fixture
def told(study: Study, image_folder: Path) -> Study:
    """Six measured images, and a server's model that is right of all but one."""
    ids = add_gazed_images(study, image_folder, count=6)
    explain_study(study)
    for number, image_id in enumerate(ids):
        measured = load_explanation(study, image_id, "target")
        assert measured is not None
        area = measured.attributes["area_percent"]
        attributes = {**measured.attributes, "area_percent": 90.0 if number == 0 else area, "remarks": ""}
        said = dataclasses.replace(
            measured,
            backend="openai",
            model="tiny",
            attributes=attributes,
            created=f"2999-01-01T00:00:0{number}",
        )
        save_explanation(study, said)
    return study


def test_each_model_has_a_row_and_measurements_are_no_evidence(told: Study) -> None:
    rows = {row.backend: row for row in agreement_table(told)}
    assert set(rows) == {"measured", "openai"}
    assert rows["measured"].by_construction and not rows["openai"].by_construction
    model = rows["openai"]
    assert (model.model, model.preset, model.images, model.simulated_from) == (
        "tiny",
        "generic",
        6,
        ("masks",),
    )
    area = model.attributes["area_percent"]
    assert (area.agreeing, area.checked) == (5, 6) and area.interval == wilson(5, 6)
    ((image_id, target_id, found),) = model.contradictions
    assert (image_id, target_id, found.attribute, found.said) == ("case_0", "target", "area_percent", "90")
    # Dealt to the other images: 90 % fits none, the other areas are alike.
    assert area.by_chance == pytest.approx(25 / 30)
    location = model.attributes["location"]
    assert location.by_chance is not None and location.by_chance < 1 == location.share
    assert model.total.checked == sum(share.checked for share in model.attributes.values())
    json.dumps(model.to_json())


def test_what_people_corrected_does_not_count_for_the_model(told: Study) -> None:
    said = load_explanation(told, "case_0", "target")
    assert said is not None
    corrected = dataclasses.replace(
        said,
        original=said.attributes,
        attributes={**said.attributes, "area_percent": 8.0},
        edited=("area_percent",),
    )
    save_explanation(told, corrected)
    assert contradictions(checks_of(corrected)) == [], "the image shows it corrected"
    row = next(row for row in agreement_table(told) if row.backend == "openai")
    assert row.images == 6 and len(row.contradictions) == 1, "the model said it all the same"


def test_true_masks_can_be_measured_in_place_of_the_gaze(told: Study, image_folder: Path) -> None:
    assert agreement_table(told, against="masks") == []
    for number in range(3):
        truth = read_image(image_folder / "masks" / f"case_{number}.png")[:, :, 0] > 0.5
        # The first one's target is elsewhere than the gaze.
        told.save_true_mask(f"case_{number}", "target", np.roll(truth, 32, axis=1) if number == 0 else truth)
    rows = {row.backend: row for row in agreement_table(told, against="masks")}
    assert rows["measured"].against == "masks" and not rows["measured"].by_construction
    assert rows["measured"].images == 3
    location = rows["measured"].attributes["location"]
    assert (location.agreeing, location.checked) == (2, 3)


def test_numbers_can_be_measured_anew(told: Study) -> None:
    current = load_explanation(told, "case_1", "target")
    assert current is not None
    assert measure_numbers(told, dataclasses.replace(current, numbers={})) == current.numbers
    with pytest.raises(UserError, match="case_1 has no true mask"):
        measure_numbers(told, current, "masks")
    told._pseudomask_path("case_1", "target").unlink()
    with pytest.raises(UserError, match="case_1 has no pseudo-mask"):
        measure_numbers(told, current)


def test_damaged_and_old_files_are_passed_over(told: Study) -> None:
    for path in told.explanation_history("case_1", "target").glob("*.json"):
        path.write_text("{torn")
    told.explanation_path("case_1", "target").write_text("{torn")
    rows = {row.backend: row for row in agreement_table(told)}
    assert rows["openai"].images == 5
    old = make_explanation(image_id="case_1", backend="openai", model="old", numbers={})
    save_explanation(told, old)
    row = next(row for row in agreement_table(told) if row.model == "old")
    assert (row.images, row.without_numbers, row.total) == (1, 1, Share(0, 0))


def test_the_command_line_lists_contradictions(told: Study, capsys: pytest.CaptureFixture[str]) -> None:
    where = str(told.folder)
    assert run_command(["explanations", where, "--contradictions"]) == 0
    text = capsys.readouterr().out
    assert "openai tiny (generic)" in text and "gaze simulated from masks" in text
    assert "5/6 83%" in text and "no evidence" in text
    assert "case_0: area percent: 90; measured: " in text
    assert run_command(["explanations", where, "--image", "case_0", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert {row["backend"]: row["images"] for row in values["models"]} == {"measured": 1, "openai": 1}
    (image,) = values["images"]
    assert "contradicts" in {one["verdict"] for one in image["checks"]}
    assert run_command(["explanations", where, "--image", "nowhere"]) == 1
    assert "no image 'nowhere'" in capsys.readouterr().err


def test_the_command_line_says_where_nothing_was_said(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["explanations", str(study.folder)]) == 1
    out, error = capsys.readouterr()
    assert out == "" and "gaze-insight explain" in error and error.count("\n") == 1


def test_a_models_confidence_ranks_nothing(told: Study) -> None:
    from segmentation.session_options import SessionOptions
    from segmentation.session_order import doubts, session_order

    def order() -> tuple[Any, Any]:
        return doubts(told, [(image_id, "target") for image_id in told.images]), session_order(
            told, "ann", SessionOptions(order="by-doubt")
        )

    before = order()
    for number, image_id in enumerate(sorted(told.images)):
        said = load_explanation(told, image_id, "target")
        assert said is not None
        word = ("low", "high", "moderate")[number % 3]
        changed = {**said.attributes, "confidence": word}
        save_explanation(told, dataclasses.replace(said, attributes=changed))
    assert order() == before
    low, high = (
        make_explanation(
            backend="openai", numbers=NUMBERS, attributes={"location": "centre", "confidence": word}
        )
        for word in ("low", "high")
    )
    assert checks_of(low) == checks_of(high)
