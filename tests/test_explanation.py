from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from segmentation.explainers.opening import BackendOptions
from segmentation.explaining import ExplainResult, explain_study
from segmentation.explanation import (
    AREA_STEPS_PERCENT,
    Explanation,
    all_phrases,
    area_step_percent,
    attribute_phrases,
    flip_phrase,
    in_words,
    load_explanation,
    save_explanation,
)
from segmentation.explanation_presets import ABSENT, CANNOT_ASSESS, load_preset, published
from segmentation.images import read_image
from segmentation.measured import VERSION, describe, measure_region
from segmentation.pseudomask import PseudoMask
from segmentation.records import StudyImage
from segmentation.reply import check_attributes, plain_text, read_reply
from segmentation.study import Study

GENERIC = load_preset()
GOOD: dict[str, Any] = {
    "location": "upper left",
    "count": "one",
    "area_percent": 12.5,
    "shape": "oval",
    "boundary": "sharp",
    "colour": "red",
    "colour_contrast": "redder",
    "intensity": "darker",
    "texture": "smooth",
    "confidence": "high",
    "remarks": "",
}
GRID = [word for word in GENERIC["location"].words if word not in (ABSENT, CANNOT_ASSESS, "whole image")]


def make_explanation(**changes: Any) -> Explanation:
    values: dict[str, Any] = {
        "image_id": "a",
        "target_id": "target",
        "backend": "measured",
        "model": "measured-1",
        "prompt": "",
        "attributes": dict(GOOD),
        "text": "Said.",
        "raw_reply": "{}",
        "created": "2026-01-01T00:00:00+00:00",
        "simulated_from": "masks",
        "region_sha256": "00",
        "measured_by": VERSION,
    }
    return Explanation(**{**values, **changes})


def add_gazed_images(study: Study, folder: Path, count: int = 3) -> list[str]:
    """Bring images into a study with pseudo-masks made from their masks."""
    images = []
    for path in sorted((folder / "images").iterdir())[:count]:
        (study.folder / "images").mkdir(exist_ok=True)
        (study.folder / "images" / path.name).write_bytes(path.read_bytes())
        images.append(StudyImage(path.stem, f"images/{path.name}", path.name, "", (48, 64, 3)))
    study.add_images(images)
    for image in images:
        mask = read_image(folder / "masks" / image.source_name)[:, :, 0] > 0.5
        save_pseudomask(study, image.id, mask)
    return [image.id for image in images]


def save_pseudomask(study: Study, image_id: str, mask: Any) -> None:
    rows, columns = np.nonzero(mask)
    centre = [[columns.mean(), rows.mean()]] if len(rows) else [[0.0, 0.0]]
    study.save_pseudomask(
        PseudoMask(
            image_id=image_id,
            target_id="target",
            annotators=("A",),
            sources=("test",),
            xy_px=np.array(centre),
            duration_ms=np.array([800.0]),
            sigma_px=np.array([[5.0, 5.0]]),
            degrees_per_px=None,
            heatmap=mask.astype(np.float32),
            thresholds=(0.5, 0.3),
            level_map=mask.astype(np.uint8) * 2,
            refiner="none",
            simulated_from="masks",
        )
    )


def test_the_generic_preset_sends_the_published_schema_unchanged() -> None:
    assert GENERIC.schema() == published()
    assert list(GENERIC.schema()["properties"]) == list(published()["properties"])


def test_published_schema_is_valid_and_open_to_strict_servers() -> None:
    jsonschema.Draft202012Validator.check_schema(published())
    assert published()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    # What strict structured output demands: nothing optional, nothing else.
    assert published()["additionalProperties"] is False
    assert sorted(published()["required"]) == sorted(published()["properties"])


@pytest.mark.parametrize("name", [name for name in published()["properties"] if name != "remarks"])
def test_every_restricted_field_can_be_absent_or_not_assessed(name: str) -> None:
    for word in (ABSENT, CANNOT_ASSESS):
        assert word in GENERIC[name].words
        assert check_attributes({**GOOD, name: word}, GENERIC) == []
    assert check_attributes({**GOOD, name: "shiny"}, GENERIC) != []
    assert check_attributes({key: value for key, value in GOOD.items() if key != name}, GENERIC) != []


@pytest.mark.parametrize("area", [-1, 100.5, True, None, [5], float("inf")])
def test_impossible_areas_are_refused(area: Any) -> None:
    assert any(
        "area_percent" in problem for problem in check_attributes({**GOOD, "area_percent": area}, GENERIC)
    )


def test_stored_and_loaded_again(study: Study) -> None:
    explanation = make_explanation(text="Größe: <img src=x> 🩺")
    assert load_explanation(study, "a", "target") is None
    save_explanation(study, explanation)
    assert load_explanation(study, "a", "target") == explanation
    assert study.explanation_keys() == {("a", "target")}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "damaged"),
        ('{"format": 1, "image_id": "a"}', "damaged"),
        ('{"format": 99}', "newer"),
    ],
)
def test_damaged_file_is_named(study: Study, content: str, says: str) -> None:
    path = study.explanation_path("a", "target")
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(UserError, match=says) as caught:
        load_explanation(study, "a", "target")
    assert str(path) in str(caught.value)


def test_attributes_that_are_no_object_are_damage(study: Study) -> None:
    save_explanation(study, dataclasses.replace(make_explanation(), attributes=[1]))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="damaged"):
        load_explanation(study, "a", "target")


def test_one_phrase_for_each_attribute_that_says_something() -> None:
    phrases = attribute_phrases(make_explanation(), GENERIC)
    assert phrases["location"] == "in the upper left of the image"
    assert phrases["area_percent"] == "covering about 15 percent of the image"
    assert phrases["boundary"] == "sharp boundary"
    assert set(phrases) == set(GOOD) - {"confidence", "remarks"}
    partly = make_explanation(attributes={**GOOD, "colour": ABSENT, "shape": CANNOT_ASSESS})
    assert set(phrases) - set(attribute_phrases(partly, GENERIC)) == {"colour", "shape"}
    assert attribute_phrases(make_explanation(attributes={}), GENERIC) == {}


def test_phrases_are_few_distinct_and_closed_under_flips() -> None:
    phrases = all_phrases(GENERIC)
    assert 40 < len(phrases) < 120
    for horizontally in (False, True):
        for vertically in (False, True):
            assert {flip_phrase(phrase, horizontally, vertically) for phrase in phrases} == set(phrases)
    areas = {
        attribute_phrases(make_explanation(attributes={"area_percent": area}), GENERIC)["area_percent"]
        for area in np.linspace(0, 100, 2001)
    }
    assert len(areas) == len(AREA_STEPS_PERCENT) and areas <= set(phrases)


def test_area_steps_round_by_ratio() -> None:
    assert [area_step_percent(area) for area in (0, 0.2, 1.4, 1.45, 12.2, 12.4, 94.8, 95, 100)] == [
        1, 1, 1, 2, 10, 15, 90, 100, 100,
    ]  # fmt: skip


@pytest.mark.parametrize("word", GRID)
def test_flipped_location_is_measured_in_the_flipped_image(word: str) -> None:
    row = {"upper": 4, "lower": 24}.get(word.split()[0], 14)
    column = {"left": 4, "right": 24}.get(word.split()[-1], 14)
    region = np.zeros((30, 30), dtype=bool)
    region[row : row + 3, column : column + 3] = True
    image = np.random.default_rng(0).random((30, 30, 1)).astype(np.float32)
    for horizontally in (False, True):
        for vertically in (False, True):
            flips = np.s_[:: -1 if vertically else 1, :: -1 if horizontally else 1]
            phrases = []
            for region_seen in (region, region[flips]):
                attributes = describe(measure_region(image, region_seen))
                phrases.append(
                    attribute_phrases(make_explanation(attributes=attributes), GENERIC)["location"]
                )
            assert phrases[1] == flip_phrase(phrases[0], horizontally, vertically)
    assert describe(measure_region(image, region))["location"] == word


def test_flipping_swaps_whole_words_only() -> None:
    assert flip_phrase("upper left, leftover", True, False) == "upper right, leftover"
    assert flip_phrase("top right of the bottom", True, True) == "bottom left of the top"
    assert flip_phrase("upper left", False, False) == "upper left"


def test_in_words() -> None:
    said = in_words({**GOOD, "colour": CANNOT_ASSESS, "remarks": "Reflections."}, GENERIC)
    assert said.startswith("in the upper left of the image, a single region, 12.5 percent of the image")
    assert said.endswith("smooth texture. Reflections.") and "colour" not in said
    assert in_words({**GOOD, "location": ABSENT}, GENERIC) == "the target is absent."
    assert (
        in_words(dict.fromkeys(GOOD, CANNOT_ASSESS) | {"remarks": ""}, GENERIC)
        == "nothing could be assessed."
    )


@pytest.mark.parametrize(
    "reply",
    [
        json.dumps(GOOD),
        f"Sure! Here you go:\n```json\n{json.dumps(GOOD, indent=2)}\n```\nHope that {{helps}}.",
        f"<think>maybe {{'location': 1}} or {json.dumps({**GOOD, 'shape': 'blobby'})}</think>{json.dumps(GOOD)}",
        json.dumps({**GOOD, "location": "Upper-Left ", "area_percent": "about 12.5 %", "diagnosis": "x"}),
        json.dumps({key.replace("_", " ").title(): value for key, value in GOOD.items()}),
    ],
)
def test_good_replies_in_bad_wrapping(reply: str) -> None:
    assert read_reply(reply, GENERIC) == (GOOD, "")


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("", "no JSON object"),
        ("I cannot help with medical images.", "no JSON object"),
        (json.dumps(GOOD)[:-20], "no JSON object"),
        (json.dumps({**GOOD, "shape": "blobby"}), 'shape must be one of: round, oval.*not "blobby"'),
        (
            json.dumps({**GOOD, "area_percent": "big"}),
            "area_percent must be a number from 0 to 100, or one of",
        ),
        (json.dumps({**GOOD, "location": ["upper left"]}), "location must be one of"),
        ('{"location": "centre"}', "required"),
        ('{"area_percent": NaN}', "no JSON object"),
        ("{" * 5000, "no JSON object"),
        ('{"a":' * 5000, "no JSON object"),
    ],
)
def test_bad_replies_say_what_is_wrong(reply: str, says: str) -> None:
    attributes, problem = read_reply(reply, GENERIC)
    assert attributes is None
    assert re.search(says, problem), problem


def test_remarks_become_one_plain_line() -> None:
    attributes, _ = read_reply(
        json.dumps({**GOOD, "remarks": "a\u202e\u0007b\n<b>c</b> " + "x" * 9000 + "\ud800"}), GENERIC
    )
    assert attributes is not None
    assert attributes["remarks"].startswith("a b <b>c</b> xxx") and len(attributes["remarks"]) <= 500
    assert plain_text("a\ud800b", 10) == "a b"


def test_measured_study(study: Study, image_folder: Path) -> None:
    ids = add_gazed_images(study, image_folder)
    seen: list[tuple[int, int, str]] = []
    result = explain_study(study, progress=lambda *step: seen.append(step))
    assert result == ExplainResult(done=3)
    assert seen == [(0, 3, ids[0]), (1, 3, ids[1]), (2, 3, ids[2]), (3, 3, "")]
    for image_id in ids:
        explanation = load_explanation(study, image_id, "target")
        assert explanation is not None
        assert check_attributes(explanation.attributes, GENERIC) == []
        assert explanation.text.startswith("Measured from the gazed region: in the ")
        assert (explanation.backend, explanation.simulated_from) == ("measured", "masks")
        mask = read_image(image_folder / "masks" / f"{image_id}.png")[:, :, 0] > 0.5
        assert explanation.attributes["area_percent"] == pytest.approx(100 * mask.mean(), abs=0.051)
        assert explanation.attributes["intensity"] in ("brighter", "much brighter")
    assert not (study.folder / "audit.jsonl").exists(), "nothing was sent, nothing is to be audited"


def test_only_what_changed_is_explained_again(study: Study, image_folder: Path) -> None:
    ids = add_gazed_images(study, image_folder)
    explain_study(study)
    before = load_explanation(study, ids[0], "target")
    assert explain_study(study) == ExplainResult(skipped=3)
    assert load_explanation(study, ids[0], "target") == before
    save_pseudomask(study, ids[0], np.eye(48, 64) > 0)
    study.explanation_path(ids[1], "target").write_text("{torn")
    assert explain_study(study) == ExplainResult(done=1, skipped=1, reused=1), (
        "a lost answer is in the history"
    )
    assert explain_study(study, overwrite=True) == ExplainResult(done=3)


def test_one_bad_image_is_named_and_the_rest_goes_on(study: Study, image_folder: Path) -> None:
    ids = add_gazed_images(study, image_folder, count=4)
    (study.folder / "images" / f"{ids[0]}.png").write_bytes(b"no image")
    save_pseudomask(study, ids[1], np.ones((5, 5), dtype=bool))
    study._pseudomask_path(ids[2], "target").write_bytes(b"torn")
    result = explain_study(study)
    assert result.done == 1
    assert [image for image, _ in result.failed] == ids[:3]
    assert "not a readable image" in result.failed[0][1]
    assert "differ in size" in result.failed[1][1]
    assert "damaged" in result.failed[2][1]


def test_images_without_gaze_wait_and_an_empty_region_is_not_described(
    study: Study, image_folder: Path
) -> None:
    ids = add_gazed_images(study, image_folder, count=2)
    study._pseudomask_path(ids[0], "target").unlink()
    save_pseudomask(study, ids[1], np.zeros((48, 64), dtype=bool))
    assert explain_study(study) == ExplainResult(done=1, waiting=1)
    explanation = load_explanation(study, ids[1], "target")
    assert explanation is not None and explanation.attributes["location"] == CANNOT_ASSESS
    assert attribute_phrases(explanation, GENERIC) == {}


def test_the_annotators_word_that_there_is_no_target_counts(study: Study, image_folder: Path) -> None:
    ids = add_gazed_images(study, image_folder, count=1)
    explain_study(study)
    none = np.empty(0)
    absent = Fixations(
        ids[0], "target", "A", "s", none, none, np.empty((0, 2)), none, "test", presence="absent"
    )
    study.save_fixations("s", [absent], imported=True)
    assert explain_study(study) == ExplainResult(done=1)
    explanation = load_explanation(study, ids[0], "target")
    assert explanation is not None and explanation.attributes["location"] == ABSENT
    assert check_attributes(explanation.attributes, GENERIC) == []
    # No pseudo-mask is made of a search that found nothing; the image does not wait for one.
    study._pseudomask_path(ids[0], "target").unlink()
    assert explain_study(study) == ExplainResult(skipped=1)


def test_nothing_to_explain_and_unknown_names_are_told(study: Study, image_folder: Path) -> None:
    with pytest.raises(UserError, match="no pseudo-masks"):
        explain_study(study)
    add_gazed_images(study, image_folder)
    with pytest.raises(UserError, match="no backend 'oracle'"):
        explain_study(study, BackendOptions("oracle"))
    with pytest.raises(UserError, match="no images in the split 'test'"):
        explain_study(study, split="test")


def test_full_disk_ends_the_work_and_keeps_what_was_there(
    study: Study, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = add_gazed_images(study, image_folder)
    explain_study(study)
    before = study.explanation_path(ids[0], "target").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        explain_study(study, overwrite=True)
    monkeypatch.undo()
    assert study.explanation_path(ids[0], "target").read_bytes() == before
    assert sorted(path.name for path in (study.folder / "explanations").glob("*.*")) == [
        f"{i}.target.json" for i in ids
    ]


def test_reading_explanations_needs_no_validator_and_no_http() -> None:
    code = (
        "import sys, segmentation.explanation as e; e.all_phrases(e.load_preset());"
        "assert not {'jsonschema', 'httpx', 'torch'} & set(sys.modules), 'heavy imports'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
