"""A hostile or clumsy world around explanations: nothing crashes, nothing hides in a terminal, nothing is believed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, write_json_atomic
from segmentation.explaining import explain_study
from segmentation.explanation import load_explanation, save_explanation
from segmentation.explanation_presets import load_preset
from segmentation.reply import check_attributes, read_reply
from segmentation.study import Study
from segmentation.vlm_server import server_url
from tests.chat_server import FakeServer, fail, say
from tests.test_explaining_engine import options
from tests.test_explanation import GOOD, add_gazed_images, make_explanation

pytestmark = pytest.mark.usefixtures("no_key")

COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def gazed(study: Study, image_folder: Path) -> Study:
    add_gazed_images(study, image_folder)
    return study


@pytest.mark.parametrize("json_too", [(), ("--json",)])
def test_a_terminal_is_given_no_commands(
    gazed: Study, capsys: pytest.CaptureFixture[str], json_too: tuple[str, ...]
) -> None:
    evil = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202edetrever\r"
    image_id = next(iter(gazed.images))
    save_explanation(gazed, make_explanation(image_id=image_id, model=evil, text=evil, backend="openai"))
    assert run_command(["explanations", str(gazed.folder), "--image", image_id, *json_too]) == 0
    out = capsys.readouterr().out
    assert "\\u001b[31mred" in out and not COMMANDS.search(out)
    if json_too:
        assert json.loads(out)["images"][0]["text"] == evil
    assert run_command(["explanation-settings", f"{gazed.folder}\x1b[31m"]) == 1
    err = capsys.readouterr().err
    assert "\\u001b[31m" in err and not COMMANDS.search(err)


@pytest.mark.parametrize("name", ["\ud800m", "\x1b[31mm", "a\nb", "m" * 100_000])
def test_a_model_whose_name_is_none_is_neither_offered_nor_asked(
    gazed: Study, chat_server: FakeServer, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    chat_server.models = (name,)
    assert run_command(["explain", str(gazed.folder), "--base-url", chat_server.url]) == 1
    assert "offers: none" in capsys.readouterr().err
    command = ["explain", str(gazed.folder), "--base-url", chat_server.url, "--model", name]
    assert run_command(command) == 1
    err = capsys.readouterr().err
    assert "cannot be a model's name" in err and err.count("\n") == 1
    assert not gazed.explanation_keys() and not any(body for _, _, body in chat_server.asked)


@pytest.mark.parametrize("when", ["Mon, 01 Jan 99999999999 00:00:00 GMT", "9" * 50, "nan", "-5"])
def test_no_time_to_wait_confuses_the_wait(gazed: Study, chat_server: FakeServer, when: str) -> None:
    chat_server.plays = [fail(429, Retry_After=when)]
    result = explain_study(gazed, options(chat_server))
    assert result.done == 0 and len(result.failed) == 3
    assert all("error 429" in reason for _, reason in result.failed)


@pytest.mark.parametrize(
    "address",
    ["http://xn--a", "http://xn--", "http://localhost:0", "http://localhost:-1", "http://localhost:99999"],
)
def test_what_only_looks_like_an_address_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="is no server address"):
        server_url(address)


def test_localhost_with_a_dot_is_not_asked_of_the_network() -> None:
    assert str(server_url("http://localhost.:11434")) == "http://localhost:11434/v1"
    assert server_url("http://LocalHost.:11434/v1").host == "localhost"


def test_explaining_nothing_but_failures_is_no_success(
    gazed: Study, chat_server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", str(gazed.folder), "--base-url", chat_server.url, "--model", "m"]
    chat_server.plays = [fail(401)]
    assert run_command(command) == 1
    assert "Failed (3)" in capsys.readouterr().out
    chat_server.plays = [fail(404), say(json.dumps(GOOD))]
    assert run_command(command) == 0


WRONG: dict[str, list[Any]] = {
    "attributes": [
        None,
        5,
        [],
        {"shape": ["oval"]},
        {"shape": {"a": 1}},
        {"shape": True},
        {"area_percent": 10**400},
    ],
    "numbers": [None, "x", [1], {"area_percent": 10**400}, {"area_percent": "5"}, {"area_percent": [1]}],
    "cost": [None, {"seconds": "x"}, {"seconds": -1.0}, {"unknown": 1}],
    "original": ["x", {"shape": []}],
    "edited": ["shape", [1], {"a": 1}],
    "text": [None, 5, "\ud800"],
    "model": [None, ["x"], "\udfff"],
    "image_id": [["x"], None],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_an_explanation_that_nobody_could_have_written_is_refused_and_made_again(
    gazed: Study, capsys: pytest.CaptureFixture[str], name: str, value: Any
) -> None:
    image_id = next(iter(gazed.images))
    explain_study(gazed)
    path = gazed.explanation_path(image_id, "target")
    path.write_text(json.dumps({**read_json(path), name: value}))
    with pytest.raises(UserError, match=r"is damaged \(.*Delete it and explain the image again"):
        load_explanation(gazed, image_id, "target")
    assert run_command(["explanations", str(gazed.folder), "--image", image_id]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    explain_study(gazed)
    assert load_explanation(gazed, image_id, "target") is not None


def test_nesting_without_end_is_damage_like_any_other(gazed: Study) -> None:
    image_id = next(iter(gazed.images))
    explain_study(gazed)
    gazed.explanation_path(image_id, "target").write_text('{"a":' * 100_000)
    with pytest.raises(UserError, match="nested too deeply"):
        load_explanation(gazed, image_id, "target")


@pytest.mark.parametrize("length", ["1e999", "9" * 400, "1e300"])
def test_a_length_beyond_all_measure_is_no_answer(length: str) -> None:
    preset = load_preset("breast-ultrasound").under(["scale"])
    name = next(one.name for one in preset.attributes if one.kind == "millimetres")
    said = json.dumps({**preset.saying("cannot assess"), name: 5})
    assert read_reply(said, preset)[0] is not None
    attributes, problem = read_reply(said.replace(f'"{name}": 5', f'"{name}": {length}'), preset)
    assert attributes is None and name in problem
    assert check_attributes({**preset.saying("absent"), name: float("inf")}, preset)


def test_half_a_character_is_refused_before_anything_is_written(
    gazed: Study, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    image_id = next(iter(gazed.images))
    command = ["describe", str(gazed.folder), image_id, "--annotator", "A", "--words", os.fsdecode(b"r\xffd")]
    assert run_command(command) == 1
    assert "characters that are none" in capsys.readouterr().err
    path = tmp_path / "x.json"
    with pytest.raises(UserError, match="was not written"):
        write_json_atomic(path, {"a": "\ud800"})
    assert not path.exists()
    gazed.audit("test", file=os.fsdecode(b"\xff.png"))
    last = (gazed.folder / "audit.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    assert json.loads(last)["file"] == "\udcff.png"
