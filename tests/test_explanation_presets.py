"""Presets of explanations: those that come with the program, and what is said of a bad one."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.cli import run_command
from gaze_capture.errors import UserError
from segmentation.explaining import explain_study, question_about
from segmentation.explanation import (
    all_phrases,
    attribute_phrases,
    flip_phrase,
    load_explanation,
    phrase_of,
    preset_of,
)
from segmentation.explanation_presets import (
    ABSENT,
    ALWAYS,
    CANNOT_ASSESS,
    SCALE,
    Preset,
    copy_preset,
    load_preset,
    parse_preset,
    preset_ids,
    preset_path,
    programs_folder,
    read_preset,
)
from segmentation.explanation_settings import (
    ExplanationSettings,
    ViewSettings,
    conditions_of,
    load_settings,
    preset_for,
    save_settings,
)
from segmentation.questions import build_prompt, drawn_in_words, gaze_in_words, vocabulary_in_words
from segmentation.records import StudyImage
from segmentation.reply import check_attributes, read_reply
from segmentation.study import Study
from tests.test_explanation import add_gazed_images

SHIPPED = (
    "breast-ultrasound",
    "chest-xray",
    "dermoscopy",
    "generic",
    "polyp",
    "prostate-gland-t2",
    "prostate-lesion-t2",
)
GREYSCALE = ("breast-ultrasound", "chest-xray", "prostate-gland-t2", "prostate-lesion-t2")

GOOD = """{
  "format": 1,
  "title": "Vessels of the fundus",
  "leave_out": ["colour"],
  "attributes": {
    "calibre": {
      "description": "Width of the vessel.",
      "words": [
        "thin",
        "thick"
      ],
      "phrase": "{} vessel",
      "phrases": {
        "thin": "fine vessel"
      },
      "when": "red-free"
    },
    "width": {
      "description": "Width of the disc.",
      "kind": "millimetres",
      "phrase": "disc {} mm wide"
    },
    "notes": {
      "description": "Further notes.",
      "kind": "text"
    }
  }
}
"""
PROMPT = "Describe the $target of this $modality.\n$gaze $outline It costs $$5.\nUse:\n$vocabulary\n"


def attribute(preset: Preset, name: str) -> Any:
    return preset.schema()["properties"][name]


def strict(schema: Any) -> Iterator[str]:
    """Yield what a server's strict structured output refuses in a schema."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            if schema.get("additionalProperties") is not False:
                yield "an object that takes more keys"
            if sorted(schema.get("required", [])) != sorted(schema.get("properties", {})):
                yield "an object with keys that may be missing"
        for value in schema.values():
            yield from strict(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from strict(value)


def test_the_program_comes_with_a_preset_for_each_task() -> None:
    assert preset_ids() == SHIPPED


@pytest.mark.parametrize("preset_id", SHIPPED)
def test_shipped_presets_are_what_servers_and_teacher_need(preset_id: str) -> None:
    preset = load_preset(preset_id)
    assert preset.names[-2:] == ("confidence", "remarks")
    assert set(ALWAYS) <= set(preset.names)
    for one in (preset, preset.under(())):
        schema = one.schema()
        jsonschema.Draft202012Validator.check_schema(schema)
        assert list(strict(schema)) == []
        for word in (ABSENT, CANNOT_ASSESS):
            assert check_attributes(one.saying(word), one) == []
    # The limit of the strictest server: a thousand choices over all properties.
    assert sum(len(one.words) for one in preset.attributes) <= 1000
    assert ("colour" in preset) == (preset_id not in GREYSCALE) == ("colour_contrast" in preset)

    said = [
        phrase
        for one in preset.attributes
        for word in one.words
        if (phrase := phrase_of(preset, one.name, word)) is not None
    ]
    assert len(said) == len(set(said)) == len(set(map(str.casefold, said)))
    phrases = set(all_phrases(preset))
    assert all(len(phrase) <= 80 for phrase in phrases)
    for phrase in phrases:
        for flips in ((True, False), (False, True), (True, True)):
            assert flip_phrase(phrase, *flips) in phrases, phrase
    own = set(preset.names) - set(load_preset().names)
    assert all(preset[name].phrase for name in own)


@pytest.mark.parametrize("preset_id", SHIPPED)
def test_shipped_presets_ask_for_features_and_never_for_a_verdict(preset_id: str) -> None:
    preset = load_preset(preset_id)
    vocabulary = vocabulary_in_words(preset)
    for verdict in (
        "malignan",
        "benign",
        "carcinoma",
        "adenoma",
        "melanoma",
        "category",
        "pneumonia",
        "score",
    ):
        # The published remarks forbid a score by that word.
        assert verdict not in vocabulary.replace("no score", "").casefold()
    for promise in ("diagnos", "millimetres", "Left, right|left, right", "cannot assess"):
        assert re.search(promise, preset.prompt), promise
    # Whatever is named by the patient's side says so, as left and right are otherwise the picture's.
    for one in preset.attributes:
        sided = any(re.search(r"\b(left|right)\b", word) for word in one.words)
        if sided and one.name != "location":
            assert re.search(r"(?i)by the patient's side|sides are the picture's", one.description), one.name


@pytest.mark.parametrize(
    ("preset_id", "technique", "opened"),
    [
        ("polyp", "NBI", {"nice_colour", "nice_vessels", "nice_surface", "jnet_vessels", "jnet_surface"}),
        ("breast-ultrasound", "Doppler", {"vascularity"}),
        ("breast-ultrasound", "elastography", {"elasticity"}),
        ("breast-ultrasound", SCALE, {"longest_diameter", "depth_below_skin"}),
        ("dermoscopy", SCALE, {"longest_diameter"}),
        ("prostate-gland-t2", SCALE, {"transverse_diameter", "anteroposterior_diameter"}),
        ("prostate-lesion-t2", SCALE, {"longest_diameter"}),
        ("chest-xray", SCALE, {"longest_diameter"}),
    ],
)
def test_conditions_open_attributes(preset_id: str, technique: str, opened: set[str]) -> None:
    preset = load_preset(preset_id)
    closed = preset.under(())
    assert set(preset.under([technique]).names) - set(closed.names) == opened
    assert not opened & set(closed.schema()["properties"])
    assert not any(f'"{name}"' in vocabulary_in_words(closed) for name in opened)
    assert not any(one.kind == "millimetres" for one in closed.attributes)


def test_a_scale_of_the_image_opens_millimetres(study: Study) -> None:
    chosen = ExplanationSettings("breast-ultrasound", stated=("Doppler",))
    without = StudyImage("a", "images/a.png", "a.png", "", (8, 8, 1))
    scaled = StudyImage("b", "images/b.png", "b.png", "", (8, 8, 1), spacing_mm=(0.1, 0.1))
    assert conditions_of(scaled, chosen) == ("Doppler", SCALE)
    names = preset_for(study, without, chosen).names
    assert "vascularity" in names and "longest_diameter" not in names and "elasticity" not in names
    assert {"vascularity", "longest_diameter"} <= set(preset_for(study, scaled, chosen).names)


@pytest.mark.parametrize("preset_id", SHIPPED)
def test_replies_in_any_case_and_spelling_are_put_into_the_presets_words(preset_id: str) -> None:
    preset = load_preset(preset_id)
    for one in preset.attributes:
        for word in one.words:
            reply = {**preset.saying(CANNOT_ASSESS), one.name: word.swapcase().replace(" ", "_")}
            keyed = {name.upper().replace("COLOUR", "COLOR"): value for name, value in reply.items()}
            attributes, problem = read_reply(json.dumps(keyed), preset)
            assert attributes is not None, problem
            assert attributes[one.name] == word


def test_a_paris_form_is_read_whatever_its_case() -> None:
    preset = load_preset("polyp")
    reply = {**preset.saying(CANNOT_ASSESS), "morphology": "0-iia", "location": "Center"}
    attributes, problem = read_reply(json.dumps(reply), preset)
    assert attributes is not None, problem
    assert attributes["morphology"] == "0-IIa" and attributes["location"] == "centre"


def test_a_good_preset_is_read() -> None:
    preset = parse_preset(GOOD, PROMPT, Path("fundus.json"))
    assert preset.title == "Vessels of the fundus"
    assert "colour" not in preset and preset.names[-5:] == (
        "calibre",
        "width",
        "notes",
        "confidence",
        "remarks",
    )
    assert preset["calibre"].words == ("thin", "thick", ABSENT, CANNOT_ASSESS)
    assert preset["calibre"].when == "red-free" and preset["width"].when == SCALE
    assert preset.techniques == ("red-free",)
    assert phrase_of(preset, "calibre", "thin") == "fine vessel"
    assert phrase_of(preset, "width", 1.9) == "disc 2 mm wide"
    assert attribute(preset, "notes")["type"] == "string"
    assert parse_preset(GOOD, PROMPT + " ", Path("fundus.json")).sha256 != preset.sha256


WORDS = '[\n        "thin",\n        "thick"\n      ]'
BAD = {
    "no comma": ('"format": 1,', '"format": 1', 2, "no JSON"),
    "trailing comma": ('"thick"\n', '"thick",\n', r"10|11", "no JSON"),
    "not a number": ('"format": 1', '"format": NaN', 1, "no JSON"),
    "key twice": ('"title": "V', '"title": "x",\n  "title": "V', 4, "'title' was given before, in line 3"),
    "attribute twice": ('"width": {', '"calibre": {', 18, "'calibre' was given before, in line 6"),
    "key twice in an attribute": ('"when"', '"phrase": "{} v",\n      "when"', 16, "given before, in line 12"),
    "unknown key": ('"leave_out"', '"leaves_out"', 4, "'leaves_out' is unknown"),
    "unknown key of an attribute": ('"when"', '"if"', 16, "'if' is unknown"),
    "no title": ('  "title": "Vessels of the fundus",\n', "", 1, "title should be one line"),
    "empty title": ("Vessels of the fundus", "", 3, "title should be one line"),
    "title of two lines": ("Vessels of", r"Vessels\nof", 3, "title should be one line"),
    "long title": ("Vessels", "V" * 200, 3, "100 are the most"),
    "no format": ('"format": 1,\n', "\n", 1, 'says "format": 1'),
    "format in words": ('"format": 1', '"format": "1"', 2, 'says "format": 1'),
    "true is no format": ('"format": 1', '"format": true', 2, 'says "format": 1'),
    "newer format": ('"format": 1', '"format": 2', 2, "newer Gaze Insight"),
    "no description": ('      "description": "Width of the vessel.",\n', "", 6, "description of 'calibre'"),
    "lone surrogate": ("Width of the vessel.", r"\ud800", 7, "description of 'calibre'"),
    "name with a capital": ('"calibre"', '"Calibre"', 6, "lower-case letters"),
    "name with a blank": ('"calibre"', '"vessel calibre"', 6, "lower-case letters"),
    "name that starts with a digit": ('"calibre"', '"2nd"', 6, "lower-case letters"),
    "published name": ('"calibre"', '"texture"', 6, "published attribute"),
    "published name that is left out": ('"calibre"', '"colour"', 6, "published attribute"),
    "published name in American": ('"calibre"', '"color"', 6, "taken for the same"),
    "no object": (GOOD[GOOD.index('"notes"') : -7], '"notes": 3', 23, "should be an object"),
    "unknown kind": ('"kind": "text"', '"kind": "number"', 25, "the kind 'number' is unknown"),
    "kind that is a list": ('"kind": "text"', '"kind": ["text"]', 25, "is unknown"),
    "no words": (f'      "words": {WORDS},\n', "", 6, "needs a list of words"),
    "empty words": (WORDS, "[]", 8, "needs a list of words"),
    "words in a row": (WORDS, '"thin, thick"', 8, "needs a list of words"),
    "word twice": ('"thick"\n', '"thick",\n "thin"\n', 11, "'thin' and 'thin'"),
    "word in two spellings": ('"thick"\n', '"grey-ish",\n "Gray ish"\n', 11, "'Gray ish' and 'grey-ish'"),
    "open word": ('"thick"\n', '"absent"\n', 10, "may be said of every attribute"),
    "open word in other spelling": ('"thick"\n', '"Cannot-assess"\n', 10, "taken for the same"),
    "word that is a number": ('"thick"\n', "7\n", 10, "a word of 'calibre'"),
    "word that is nothing": ('"thick"\n', '""\n', 10, "a word of 'calibre'"),
    "word with a blank at its end": ('"thick"\n', '"thick "\n', 10, "a word of 'calibre'"),
    "too many words": ('"thick"\n', ",".join(f'"w{n}"' for n in range(64)) + "\n", 8, "64 are the most"),
    "left out what must not be": ('["colour"]', '["colour",\n "count"]', 5, "'count' cannot be left out"),
    "left out what there is not": ('["colour"]', '["flavour"]', 4, "'flavour' is no published attribute"),
    "left out twice": ('["colour"]', '["colour", "colour"]', 4, "twice"),
    "left out an object": ('["colour"]', '[{}]', 4, "no published attribute"),
    "left out no list": ('["colour"]', '"colour"', 4, "is a list"),
    "phrase without a place": ('"{} vessel"', '"vessel"', 12, "has {} once"),
    "phrase with two places": ('"{} vessel"', '"{} vessel {}"', 12, "has {} once"),
    "phrase with a name": ('"{} vessel"', '"{0} vessel"', 12, "has {} once"),
    "phrase with an attribute": ('"{} vessel"', '"{} {0.__class__}"', 12, "has {} once"),
    "phrase of an unknown word": ('"thin": "fine', '"wide": "fine', 14, "'wide' is none of the words"),
    "phrase of an open word": ('"thin": "fine', '"absent": "fine', 14, "'absent' is none of the words"),
    "phrase with braces": ("fine vessel", "fine {}", 14, "has braces"),
    "phrases without a phrase": ('      "phrase": "{} vessel",\n', "", 12, "no phrase for the others"),
    "phrases that are a list": ('{\n        "thin": "fine vessel"\n      }', "[]", 13, "phrases is an object"),
    "one phrase for two words": ("fine vessel", "thick vessel", 10, "twice"),
    "phrase of a published attribute": ("fine vessel", "smooth texture", 14, "for 'texture'"),
    "number read like another": ("disc {} mm wide", "covering about {} percent of the image", 21, "for 'area_percent'"),
    "phrase of free text": ('"kind": "text"', '"kind": "text", "phrase": "{}"', 25, "free text has no phrase"),
    "millimetres under a condition": ('"millimetres"', '"millimetres", "when": "NBI"', 20, "no other condition"),
    "condition that is none": ('"red-free"', "null", 16, "the condition of 'calibre'"),
    "too many attributes": (
        '"notes": {',
        "\n".join(f'"n{n}": {{"description": "x", "kind": "text"}},' for n in range(40)) + '\n"notes": {',
        5,
        "more than the 40",
    ),
    "attributes that are a list": (GOOD[GOOD.index('"attributes"') : -2], '"attributes": []\n', 5, "are an object"),
    "a list": (GOOD, "[1]", 1, "one JSON object"),
    "nothing": (GOOD, "", 1, "no JSON"),
    "something after it": (GOOD, GOOD + "{}", 29, "no JSON"),
    "too deep": (GOOD, "[" * 100_000, 1, "no JSON"),
    "a number too long": ('"format": 1', '"format": ' + "1" * 5000, 1, "no JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "reason"), BAD.values(), ids=BAD)
def test_a_bad_preset_is_refused_with_its_line(old: str, new: str, line: int | str, reason: str) -> None:
    assert old in GOOD
    with pytest.raises(UserError) as refused:
        parse_preset(GOOD.replace(old, new, 1), PROMPT, Path("fundus.json"))
    sentence = str(refused.value)
    assert re.match(rf"fundus\.json, line (?:{line}): ", sentence), sentence
    assert reason in sentence
    assert "\n" not in sentence and sentence.endswith(".")


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("$gaze", "$gase", 2, "$gase is no placeholder"),
        ("$gaze", "${Gaze}", 2, "$Gaze is no placeholder"),
        ("$$5", "$5", 2, "a single $ is no placeholder"),
        ("Use:\n$vocabulary", "Use:\n$$vocabulary", 5, "without $vocabulary"),
        (PROMPT, "", 1, "without $vocabulary"),
    ],
)
def test_a_bad_prompt_is_refused_with_its_line(old: str, new: str, line: int, reason: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_preset(GOOD, PROMPT.replace(old, new), Path("fundus.json"))
    assert str(refused.value).startswith(f"fundus.md, line {line}: ")
    assert reason in str(refused.value)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
ANYTHING = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)
SAID = st.sampled_from(["a", "b", "A ", "A", "{}", "{} c", "a c", "absent", "left"])
ATTRIBUTE = st.fixed_dictionaries(
    {"description": st.just("D") | ANYTHING},
    optional={
        "kind": st.sampled_from(["words", "percent", "millimetres", "text"]) | ANYTHING,
        "words": st.lists(SAID, max_size=3) | ANYTHING,
        "phrase": SAID | ANYTHING,
        "phrases": st.dictionaries(SAID, SAID, max_size=2) | ANYTHING,
        "when": SAID | ANYTHING,
    },
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries(
        {"format": st.just(1), "title": st.just("T")},
        optional={
            "leave_out": st.lists(st.sampled_from(["colour", "shape", "count"]), max_size=2) | ANYTHING,
            "attributes": st.dictionaries(SAID, ATTRIBUTE | ANYTHING, max_size=2) | ANYTHING,
        },
    ),
    st.sampled_from([None, 2]),
)
def test_whatever_a_file_holds_is_a_preset_or_a_sentence(values: Any, indent: int | None) -> None:
    text = json.dumps(values, indent=indent)
    try:
        preset = parse_preset(text, PROMPT, Path("any.json"))
    except UserError as error:
        found = re.match(r"any\.json, line (\d+): ", str(error))
        assert found and 1 <= int(found[1]) <= text.count("\n") + 1
    else:
        jsonschema.Draft202012Validator.check_schema(preset.schema())
        assert check_attributes(preset.saying(ABSENT), preset) == []
        assert all_phrases(preset)


@pytest.mark.parametrize("preset_id", SHIPPED)
def test_every_preset_can_be_measured_and_asked_for(study: Study, image_folder: Path, preset_id: str) -> None:
    (image_id,) = add_gazed_images(study, image_folder, count=1)
    save_settings(study, ExplanationSettings(preset_id, load_preset(preset_id).techniques))
    question = question_about(study, study.images[image_id], study.targets[0])
    prompt = build_prompt(question)
    assert (
        "$" not in prompt
        and drawn_in_words(question) in prompt
        and gaze_in_words(question.pseudomask) in prompt
    )
    for one in question.preset.attributes:
        assert f'"{one.name}": ' in prompt and one.description in prompt

    assert explain_study(study).done == 1
    explanation = load_explanation(study, image_id, study.targets[0].id)
    assert explanation is not None and explanation.preset == preset_id
    preset = preset_of(explanation, study.folder)
    assert check_attributes(explanation.attributes, preset) == []
    assert explanation.attributes["location"] in ("centre", "centre left", "centre right", "lower centre")
    phrases = attribute_phrases(explanation, preset)
    assert {"location", "count", "area_percent"} <= set(phrases)
    assert set(phrases.values()) <= set(all_phrases(preset))


@pytest.fixture
def own(study: Study) -> Path:
    """Return the JSON file of a study's own preset."""
    folder = study.folder / "presets"
    folder.mkdir()
    (folder / "fundus.md").write_text(PROMPT, encoding="utf-8")
    path = folder / "fundus.json"
    path.write_text(GOOD, encoding="utf-8")
    return path


def test_a_studys_own_preset_is_found_and_read_again_once_it_changes(study: Study, own: Path) -> None:
    assert preset_ids(study.folder) == ("fundus", *SHIPPED)
    first = load_preset("fundus", study.folder)
    assert load_preset("fundus", study.folder) is first
    own.write_text(GOOD.replace("thin", "slim"), encoding="utf-8")
    assert "slim" in load_preset("fundus", study.folder)["calibre"].words
    own.with_suffix(".md").write_text("So: $vocabulary", encoding="utf-8")
    assert load_preset("fundus", study.folder).prompt == "So: $vocabulary"
    own.write_text(GOOD.replace('"thin",', '"thin"'), encoding="utf-8")
    with pytest.raises(UserError, match="line 9"):
        load_preset("fundus", study.folder)
    own.write_text(GOOD, encoding="utf-8")
    assert load_preset("fundus", study.folder)["calibre"] == first["calibre"]


def test_files_that_are_no_text_are_refused(study: Study, own: Path) -> None:
    own.write_bytes(GOOD.replace("disc.", "päpilla.").encode("latin-1"))
    with pytest.raises(UserError, match=r"fundus\.json, line 19: the text is not UTF-8"):
        load_preset("fundus", study.folder)
    own.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_preset("fundus", study.folder).title == "Vessels of the fundus"
    own.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_preset("fundus", study.folder).sha256 == parse_preset(GOOD, PROMPT, own).sha256
    own.write_text(GOOD + " " * 300_000, encoding="utf-8")
    with pytest.raises(UserError, match="larger than 256 KB"):
        load_preset("fundus", study.folder)
    own.write_text(GOOD, encoding="utf-8")
    own.with_suffix(".md").unlink()
    with pytest.raises(UserError, match=r"fundus\.md is missing"):
        load_preset("fundus", study.folder)
    own.unlink()
    own.mkdir()
    with pytest.raises(UserError, match="no ordinary file"):
        load_preset("fundus", study.folder)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_cannot_make_a_prompt_of_another_file(study: Study, own: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("password $vocabulary", encoding="utf-8")
    own.with_suffix(".md").unlink()
    own.with_suffix(".md").symlink_to(secret)
    with pytest.raises(UserError, match=r"fundus\.md is a link"):
        load_preset("fundus", study.folder)
    os.mkfifo(own.with_name("pipe.json"))
    with pytest.raises(UserError, match="no ordinary file"):
        load_preset("pipe", study.folder)


@pytest.mark.parametrize(
    "preset_id", ["../generic", "Polyp", "con", "com1", "", ".", "a b", "ä", "x" * 61, "polyp.json"]
)
def test_ids_that_are_no_safe_names_are_refused(study: Study, own: Path, preset_id: str) -> None:
    with pytest.raises(UserError, match="There is no explanation preset"):
        load_preset(preset_id, study.folder)
    if preset_id:
        with pytest.raises(UserError, match="cannot be a preset's id"):
            copy_preset("polyp", study.folder, preset_id)
    assert sorted(path.name for path in own.parent.iterdir()) == ["fundus.json", "fundus.md"]


def test_half_a_copy_does_not_fall_back_to_the_programs(study: Study) -> None:
    path = copy_preset("polyp", study.folder)
    assert preset_path("polyp", study.folder) == path
    assert load_preset("polyp", study.folder) == load_preset("polyp")
    path.unlink()
    with pytest.raises(UserError, match=r"polyp\.json is missing"):
        load_preset("polyp", study.folder)
    with pytest.raises(UserError, match=r"polyp\.md exists already"):
        copy_preset("generic", study.folder, "polyp")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = run_command(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_presets_can_be_listed_shown_and_checked(
    study: Study, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(study.folder)
    status, out, _ = run(capsys, "explanation-presets", "--json")
    assert status == 0
    assert [one["id"] for one in json.loads(out)["presets"]] == list(SHIPPED)
    status, out, _ = run(capsys, "explanation-presets", folder)
    assert status == 0 and re.search(
        r"fundus +own +Vessels of the fundus; 13 attributes, more with red-free", out
    )

    status, out, _ = run(capsys, "explanation-presets", folder, "--show", "polyp")
    assert status == 0 and str(programs_folder() / "polyp.json") in out and "is the program's" in out
    status, out, _ = run(capsys, "explanation-presets", "--copy", "polyp", folder, "--json")
    assert status == 0 and json.loads(out)["file"] == str(study.folder / "presets" / "polyp.json")
    status, out, _ = run(capsys, "explanation-presets", folder, "--show", "polyp")
    assert status == 0 and str(study.folder / "presets" / "polyp.json") in out
    assert "counts in place of the program's polyp" in out and "(where NBI is stated)" in out
    status, out, _ = run(capsys, "explanation-presets", folder, "--show", "polyp", "--json")
    shown = json.loads(out)
    assert shown["own"] and shown["in_place_of_programs"] and shown["prompt"] == load_preset("polyp").prompt

    status, out, _ = run(capsys, "explanation-presets", "--schema", "dermoscopy")
    assert status == 0 and json.loads(out) == load_preset("dermoscopy").schema()
    status, _, err = run(capsys, "explanation-presets", "--schema", "fundus")
    assert status == 1 and "no explanation preset 'fundus'" in err

    status, out, _ = run(capsys, "explanation-presets", "--check", str(own))
    assert status == 0 and "are a good preset" in out
    own.write_text(GOOD.replace('"thick"\n', '"Thin"\n'), encoding="utf-8")
    status, _, err = run(capsys, "explanation-presets", "--check", str(own))
    assert status == 1 and f"{own}, line 10: 'Thin' and 'thin'" in err
    (own.parent / "My Preset.json").write_text(GOOD, encoding="utf-8")
    status, out, _ = run(capsys, "explanation-presets", folder, "--json")
    problems = {one["id"]: one["problem"] for one in json.loads(out)["presets"]}
    assert status == 1 and "line 10" in problems["fundus"] and "file name should be" in problems["My Preset"]
    assert problems["polyp"] is None and problems["generic"] is None


def test_copies_need_a_study_and_a_free_name(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(study.folder)
    status, _, err = run(capsys, "explanation-presets", "--copy", "polyp")
    assert status == 1 and "Say which study" in err
    status, _, err = run(capsys, "explanation-presets", folder, "--as", "mine")
    assert status == 1 and "--copy ID" in err
    status, out, _ = run(capsys, "explanation-presets", folder, "--copy", "polyp", "--as", "mine")
    assert status == 0 and "in place of" not in out
    assert read_preset(study.folder / "presets" / "mine.json").sha256 == load_preset("polyp").sha256
    status, _, err = run(capsys, "explanation-presets", folder, "--copy", "generic", "--as", "mine")
    assert status == 1 and "exists already" in err


def test_settings_are_changed_one_by_one(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(study.folder)
    status, out, _ = run(capsys, "explanation-settings", folder, "--json")
    assert status == 0 and json.loads(out)["preset"] == "generic"
    assert not (study.folder / "explanations.json").exists()

    run(capsys, "explanation-settings", folder, "--preset", "polyp", "--stated", "NBI")
    run(capsys, "explanation-settings", folder, "--drawn", "both", "--crop", "0.5", "--side-px", "512")
    run(capsys, "explanation-settings", folder, "--fixations-in-words", "no", "--mask-text", "yes")
    view = ViewSettings("both", 0.5, False, 512, True)
    assert load_settings(study) == ExplanationSettings("polyp", ("NBI",), view)
    status, out, _ = run(capsys, "explanation-settings", folder)
    assert status == 0 and re.search(r"stated +NBI\n.*drawn +both\n.*crop +0\.5\n", out)

    status, out, _ = run(
        capsys, "explanation-settings", folder, "--preset", "generic", "--crop", "none", "--json"
    )
    assert status == 0 and json.loads(out)["no_longer_stated"] == ["NBI"]
    assert load_settings(study) == ExplanationSettings(
        "generic", (), ViewSettings("both", None, False, 512, True)
    )


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["--stated", "NBI"], 1, "knows no technique 'NBI'"),
        (["--preset", "pollip"], 1, "no explanation preset 'pollip'"),
        (["--crop", "-1"], 1, "between 0 and 10"),
        (["--crop", "nan"], 1, "between 0 and 10"),
        (["--crop", "wide"], 2, "should be a number such as 0.5, or none"),
        (["--side-px", "9"], 1, "64 to 4096"),
        (["--mask-text", "maybe"], 2, "should be yes or no"),
        (["--drawn", "arrow"], 2, "invalid choice"),
    ],
)
def test_settings_that_make_no_sense_change_nothing(
    study: Study, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, reason: str
) -> None:
    found, _, err = run(capsys, "explanation-settings", str(study.folder), *arguments)
    assert found == status and reason in err
    assert not (study.folder / "explanations.json").exists()


def test_settings_say_that_their_preset_is_broken(
    study: Study, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_settings(study, ExplanationSettings("fundus", ("red-free",)))
    own.write_text(GOOD.replace('"format": 1', '"format": 9'), encoding="utf-8")
    status, out, _ = run(capsys, "explanation-settings", str(study.folder))
    assert status == 1 and "line 2: a newer Gaze Insight wrote this preset" in out
    status, _, _ = run(capsys, "explanation-settings", str(study.folder), "--preset", "generic")
    assert status == 0 and load_settings(study).preset == "generic"


@pytest.mark.parametrize(
    "values",
    [
        {"stated": "NBI"},
        {"view": {"mask_text": "no"}},
        {"view": {"side_px": 512.5}},
        {"view": {"side": 512}},
        {"view": {"drawn": "arrow"}},
    ],
)
def test_damaged_settings_are_refused(study: Study, values: dict[str, Any]) -> None:
    path = study.folder / "explanations.json"
    path.write_text(json.dumps({"schema": 1, "preset": "polyp", "stated": [], "view": {}, **values}))
    with pytest.raises(UserError, match=re.escape(f"{path} is damaged")):
        load_settings(study)


def test_the_documented_example_is_a_good_preset() -> None:
    text = Path(__file__).parents[1].joinpath("docs", "explanation-presets.md").read_text(encoding="utf-8")
    found = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert found is not None
    preset = parse_preset(found[1], PROMPT, Path("disc.json"))
    assert preset.names[-5:] == ("rim", "vessels", "disc_height", "confidence", "remarks")
    assert preset.techniques == ("red-free",) and "texture" not in preset


def test_a_copy_that_was_edited_is_what_images_are_explained_by(study: Study, image_folder: Path) -> None:
    (image_id,) = add_gazed_images(study, image_folder, count=1)
    path = copy_preset("polyp", study.folder, "mine")
    path.write_text(path.read_text(encoding="utf-8").replace('"mucus_cap"', '"mucus_film"'), encoding="utf-8")
    save_settings(study, ExplanationSettings("mine"))
    assert explain_study(study).done == 1
    explanation = load_explanation(study, image_id, study.targets[0].id)
    assert explanation is not None
    assert explanation.attributes["mucus_film"] == CANNOT_ASSESS and "mucus_cap" not in explanation.attributes
    assert (
        explanation.preset_sha256 == load_preset("mine", study.folder).sha256 != load_preset("polyp").sha256
    )
    path.write_text("{", encoding="utf-8")
    result = explain_study(study, overwrite=True)
    assert result.done == 0 and [(one, f"{path}, line 1" in why) for one, why in result.failed] == [
        (image_id, True)
    ]
    assert load_explanation(study, image_id, study.targets[0].id) == explanation
