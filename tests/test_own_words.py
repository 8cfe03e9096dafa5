from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from gaze_capture.voice import RATE_HZ, VoiceWriter
from segmentation.explainers.opening import BackendOptions
from segmentation.explaining import explain_in_own_words, explain_study
from segmentation.explanation import load_explanation, load_history
from segmentation.explanation_presets import ABSENT, CANNOT_ASSESS, load_preset, parse_preset
from segmentation.own_words_reading import read_own_words
from segmentation.own_words_store import keep_words, load_words, read_notes
from segmentation.reply import check_attributes
from segmentation.study import Study
from tests.test_explanation import add_gazed_images, save_pseudomask

GENERIC = load_preset()
PARIS = parse_preset(
    json.dumps(
        {
            "format": 1,
            "title": "Polyps",
            "attributes": {
                "paris": {
                    "description": "Form.",
                    "words": ["pedunculated (0-Ip)", "sessile (0-Is)", "flat elevated (0-IIa)", "0-IIc"],
                    "phrase": "{}",
                },
                "vessels": {
                    "description": "Vessels.",
                    "words": ["regular", "irregular", "Is"],
                    "phrase": "{}",
                },
                "length_mm": {"description": "Longest.", "kind": "millimetres", "phrase": "{} mm"},
            },
        }
    ),
    " $vocabulary",
    Path("paris.json"),
)


def said(words: str, preset: Any = GENERIC, target: str = "Polyp") -> dict[str, Any]:
    """Return what was understood, and hold it against the schema."""
    attributes = read_own_words(words, preset, target)
    assert check_attributes(attributes, preset) == []
    return {
        name: value
        for name, value in attributes.items()
        if value != CANNOT_ASSESS and name != "remarks"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "understood"),
    [
        (
            "Polyp at the top left, about 12 % of the image, well demarcated, not red but pink, surface smooth.",
            {
                "location": "upper left",
                "area_percent": 12.0,
                "boundary": "sharp",
                "colour": "pink",
                "texture": "smooth",
            },
        ),
        (
            "Two small polyps, the larger one in the lower right corner; margins are irregular and ill-defined.",
            {"count": "two", "location": "lower right", "boundary": "blurred"},
        ),
        ("A single oval lesion, centre-left.", {"count": "one", "shape": "oval", "location": "centre left"}),
        ("UPPER RIGHT HAND CORNER. ELONGATED", {"location": "upper right", "shape": "elongated"}),
        ("Central, gray, rounded", {"location": "centre", "colour": "grey", "shape": "round"}),
        (
            "Paler than the surrounding mucosa; I am not sure",
            {"colour_contrast": "paler", "confidence": "low"},
        ),
        ("It isn’t round, rather lobulated.", {"shape": "lobulated"}),
        (
            "much darker than its surroundings, covers 10-15%",
            {"intensity": "much darker", "area_percent": 12.5},
        ),
        ("covers a quarter of the picture", {"area_percent": 25.0}),
        ("Hypointense focus in the middle of the image", {"intensity": "darker", "location": "centre"}),
        ("Brown naevus, the same colour as the skin around it? No: redder.", {"colour": "brown"}),
        ("2 polyps, both round", {"count": "two", "shape": "round"}),
        ("Borders not clearly defined", {"boundary": "blurred"}),
        ("The whole image is polyp", {"location": "whole image"}),
        ("not only red, also bumpy", {"colour": "red", "texture": "uneven"}),
    ],
)
def test_what_clinicians_say_is_understood(words: str, understood: dict[str, Any]) -> None:
    assert said(words) == understood


@pytest.mark.parametrize(
    "words",
    [
        "Nodule in the left upper lobe",  # The patient's left.
        "on the patient's left",
        "on the left",  # Which row is not told.
        "irregular pigment network",  # Not the lesion's shape.
        "red vessels and white dots",
        "red or brown",  # Told in two ways.
        "30 % of the circumference",
        "one would biopsy it",
        "is it a polyp? it is",
        "neither red nor pink",
        "a fine polyp",
        "high on the fold",
        "upper right and lower left",
        "",
        "<img src=http://x/y.png>",
    ],
)
def test_what_does_not_tell_is_not_guessed(words: str) -> None:
    assert said(words) == {}


def test_words_are_kept_whole_as_remarks() -> None:
    words = "Looks like an adenoma,\nI would take it out."
    assert read_own_words(words, GENERIC)["remarks"] == "Looks like an adenoma, I would take it out."


@pytest.mark.parametrize("words", ["No polyp.", "no visible lesion, normal mucosa", "Without any polyp"])
def test_no_target_is_absent_throughout(words: str) -> None:
    attributes = read_own_words(words, GENERIC, "Polyp")
    assert {value for name, value in attributes.items() if name != "remarks"} == {ABSENT}
    assert check_attributes(attributes, GENERIC) == []


@pytest.mark.parametrize("words", ["no other polyp", "no second lesion seen", "no bleeding from the polyp"])
def test_no_other_target_is_not_none(words: str) -> None:
    assert said(words) == {}


@pytest.mark.parametrize(
    ("words", "understood"),
    [
        ("0-IIa", {"paris": "flat elevated (0-IIa)"}),
        ("Paris 0-iia, flat elevated", {"paris": "flat elevated (0-IIa)"}),
        ("Sessile polyps", {"paris": "sessile (0-Is)"}),
        ("0-IIa or 0-IIc", {}),
        ("not pedunculated", {}),
        ("irregular vessels", {"vessels": "irregular"}),
        ("an irregular polyp", {"shape": "irregular"}),
        ("about 12 x 8 mm", {"length_mm": 12.0}),
        ("1,2 cm long", {"length_mm": 12.0}),
        ("this is it", {}),
    ],
)
def test_words_of_a_preset_with_capitals_and_codes(words: str, understood: dict[str, Any]) -> None:
    assert said(words, PARIS.under(["scale"])) == understood


def test_every_word_of_the_generic_preset_is_understood_beside_its_noun() -> None:
    for name in ("shape", "boundary", "colour", "texture"):
        for word in GENERIC[name].words[:-2]:
            assert said(f"The {name} is {word}.")[name] == word
            assert said(f"{word} {name}")[name] == word


# In a study


def test_words_become_the_explanation_that_counts(study: Study, image_folder: Path) -> None:
    ids = add_gazed_images(study, image_folder)
    explain_study(study)
    made = explain_in_own_words(study, ids[0], "target", "ann", "Round, upper left, well defined.")
    assert made == load_explanation(study, ids[0], "target") and made is not None
    assert (made.backend, made.model, made.raw_reply) == (
        "annotator",
        "ann",
        "Round, upper left, well defined.",
    )
    assert made.numbers["area_percent"] and made.simulated_from == "masks"
    assert made.text.startswith("Described by ann: in the upper left of the image, round shape")
    assert [one.backend for one in load_history(study, ids[0], "target")].count("annotator") == 1
    # The batch reads stored words, and neither reads them twice nor forgets them.
    result = explain_study(study, BackendOptions("annotator"))
    assert (result.skipped, result.done, len(result.failed)) == (1, 0, 2)
    assert all(
        "Nobody has described" in reason and "gaze-insight describe" in reason for _, reason in result.failed
    )
    explain_study(study, overwrite=True)
    assert explain_study(study, BackendOptions("annotator")).reused == 1


def test_words_wait_for_a_pseudomask_and_are_read_anew_when_it_changes(
    study: Study, image_folder: Path
) -> None:
    ids = add_gazed_images(study, image_folder, count=1)
    study._pseudomask_path(ids[0], "target").unlink()
    assert explain_in_own_words(study, ids[0], "target", "ann", "Oval.") is None
    assert load_explanation(study, ids[0], "target") is None
    save_pseudomask(study, ids[0], np.eye(48, 64) > 0)
    assert explain_study(study, BackendOptions("annotator")).done == 1
    save_pseudomask(study, ids[0], np.eye(48, 64, 5) > 0)
    assert explain_study(study, BackendOptions("annotator")).done == 1
    keep_words(study, ids[0], "target", "ben", "Elongated.")
    assert explain_study(study, BackendOptions("annotator", model="ann")).skipped == 1
    assert explain_study(study, BackendOptions("annotator")).done == 1
    latest = load_explanation(study, ids[0], "target")
    assert latest is not None and (latest.model, latest.attributes["shape"]) == ("ben", "elongated")
    assert [own.words for own in load_words(study, ids[0], "target")] == ["Oval.", "Elongated."]


def test_a_voice_note_has_to_be_written_down_by_somebody(study: Study, image_folder: Path) -> None:
    ids = add_gazed_images(study, image_folder, count=1)
    recording = study.recordings_folder / "rec"
    recording.mkdir(parents=True)
    writer = VoiceWriter(recording, ids[0], "target", 1)
    writer.add(np.ones(RATE_HZ, np.int16))
    note = writer.close()
    assert note is not None
    result = explain_study(study, BackendOptions("annotator"))
    (reason,) = [reason for _, reason in result.failed]
    assert note.file in reason and "recognises no speech" in reason and f"--note rec/{note.file}" in reason
    with pytest.raises(UserError, match=r"no voice note 'rec/other\.wav'"):
        explain_in_own_words(study, ids[0], "target", "ann", "Round.", "rec/other.wav")
    assert explain_in_own_words(study, ids[0], "target", "ann", "Round.", f"rec/{note.file}")
    assert [own.voice_note for own in load_words(study, ids[0], "target")] == [f"rec/{note.file}"]


@pytest.mark.parametrize(
    ("image", "annotator", "words", "sentence"),
    [
        ("nowhere", "ann", "Round.", "no image 'nowhere'"),
        ("case_0", " ", "Round.", "pseudonym"),
        ("case_0", "ann", " \n", "words are empty"),
        ("case_0", "ann", "x" * 5000, "5000 characters"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    study: Study, image_folder: Path, image: str, annotator: str, words: str, sentence: str
) -> None:
    add_gazed_images(study, image_folder, count=1)
    with pytest.raises(UserError, match=sentence):
        keep_words(study, image, "target", annotator, words)
    assert not (study.folder / "explanations" / "words").exists()


def test_damaged_words_fail_one_image_alone(study: Study, image_folder: Path) -> None:
    ids = add_gazed_images(study, image_folder, count=2)
    for image_id in ids:
        explain_in_own_words(study, image_id, "target", "ann", "Round.")
    (path,) = (study.folder / "explanations" / "words" / f"{ids[0]}.target").glob("*.json")
    path.write_text('{"format": 1, "words": 3}')
    result = explain_study(study, BackendOptions("annotator"))
    assert result.skipped == 1 and "is damaged" in result.failed[0][1]


def test_a_table_of_notes(study: Study, image_folder: Path, tmp_path: Path) -> None:
    add_gazed_images(study, image_folder)
    table = tmp_path / "notes.csv"
    table.write_bytes(
        'Image;Words\ncase_0.png;"Round; red"\ncase_1;\nnobody;Oval\n\ncase_2;größer, oval\n'.encode(
            "utf-8-sig"
        )
    )
    notes = read_notes(study, table)
    assert notes.said == [("case_0", "Round; red"), ("case_2", "größer, oval")]
    assert [where for where, _ in notes.refused] == ["line 3", "line 4"]
    table.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        read_notes(study, table)
    table.write_text("image,note\n")
    with pytest.raises(UserError, match="columns image and words"):
        read_notes(study, table)


def test_describe_on_the_command_line(
    study: Study, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = add_gazed_images(study, image_folder)
    where = str(study.folder)
    assert run_command(["describe", where, ids[0], "--annotator", "ann", "--words", "Round, red"]) == 0
    assert "Described by ann: round shape, red colour. Round, red" in capsys.readouterr().out
    table = tmp_path / "notes.csv"
    table.write_text(f"image,words\n{ids[1]},oval\nnobody,oval\n")
    assert run_command(["describe", where, "--annotator", "ann", "--file", str(table), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["described"] == [ids[1]] and values["refused"][0]["where"] == "line 3"
    assert run_command(["describe", where, "nobody", "--annotator", "ann", "--words", "oval"]) == 1
    assert "no image 'nobody'" in capsys.readouterr().err
    assert run_command(["describe", where, "--annotator", "ann", "--words", "oval"]) == 1
    assert run_command(["explain", where, "--backend", "annotator", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["skipped"] == 2 and [one["image"] for one in values["failed"]] == [ids[2]]
