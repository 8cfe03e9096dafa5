from __future__ import annotations

import base64
import dataclasses
import email.utils
import hashlib
import json
import socket
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from gaze_capture.errors import UserError
from segmentation.explainers.opening import BackendOptions
from segmentation.explaining import explain_study
from segmentation.explanation import load_explanation
from segmentation.explanation_presets import load_preset, published
from segmentation.explanation_settings import ViewSettings
from segmentation.gaze_view import encode_picture
from segmentation.server_connection import ServerError, ServerLimits, _seconds_in
from segmentation.server_keys import KEY_VARIABLE
from segmentation.study import Study
from segmentation.vlm_server import ChatServer, server_url
from tests.chat_server import (
    LIMITS,
    FakeServer,
    Handler,
    Play,
    answer,
    drip,
    drop,
    fail,
    flood,
    hang,
    only_without,
    say,
)
from tests.test_explanation import GOOD, add_gazed_images

PICTURE = b"\x89PNG not looked at"

pytestmark = pytest.mark.usefixtures("no_key")


@pytest.fixture
def server(chat_server: FakeServer) -> FakeServer:
    return chat_server


def ask(server: FakeServer, *plays: Play, limits: ServerLimits = LIMITS) -> tuple[dict[str, Any], ChatServer]:
    if plays:
        server.plays = list(plays)
    with ChatServer(server.url, "tiny-vlm", limits) as chat:
        return chat.ask("What is there?", PICTURE, load_preset()).attributes, chat


def test_a_well_behaved_server_is_asked_once(server: FakeServer) -> None:
    attributes, chat = ask(server)
    assert attributes == GOOD and chat.requests == 1
    path, headers, body = server.asked[0]
    assert path == "/v1/chat/completions" and "Authorization" not in headers
    assert body["response_format"]["json_schema"]["schema"] == published(), "the published schema, unchanged"
    assert body["response_format"]["json_schema"]["strict"] is True and body["model"] == "tiny-vlm"
    text, image = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is there?"}
    kind, _, data = image["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64" and base64.b64decode(data) == PICTURE


@pytest.mark.parametrize(
    "play",
    [
        fail(500), fail(503), fail(429, Retry_After="3600"), fail(408), fail(401), fail(404),
        fail(400, "<html><h1>Bad</h1></html>"), drop, flood, hang, drip,
        lambda handler, body: handler.send(200, "<html>Welcome to the proxy</html>", "text/html"),
        lambda handler, body: handler.send(200, '{"choices": []}'),
        lambda handler, body: handler.send(200, '{"choices": [{"message": {"content": null}}]}'),
        lambda handler, body: handler.send(200, "[[" * 50_000),
        lambda handler, body: handler.send(200, '"text"'),
        lambda handler, body: handler.send(200, '{"choices": [{"mess'),
        say("It is a polyp, I think."),
        say(json.dumps(GOOD)[:-30]),
        say(json.dumps({**GOOD, "shape": "<img src=http://127.0.0.1/x>"})),
        say(json.dumps({**GOOD, "area_percent": "huge"})),
        say(""),
        say("<think>" + json.dumps(GOOD) + "</think> I would rather not."),
        lambda handler, body: handler.send(200, json.dumps(answer("{", finish_reason="length"))),
        lambda handler, body: handler.send(200, json.dumps(answer(None, refusal="I cannot help with that."))),
        lambda handler, body: handler.send(200, "x\x9c", Content_Encoding="gzip"),
        lambda handler, body: handler.send_bytes(200, "é".encode("latin-1")),
        fail(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), fail(429, Retry_After="soon"),
    ],
)  # fmt: skip
def test_one_misbehaviour_is_got_over(server: FakeServer, play: Play) -> None:
    begin = time.monotonic()
    attributes, chat = ask(server, play, say(json.dumps(GOOD)))
    assert attributes == GOOD
    assert chat.requests == 2
    assert time.monotonic() - begin < 2.5


def test_prose_and_fences_around_the_answer_cost_no_second_request(server: FakeServer) -> None:
    attributes, chat = ask(server, say(f"Here you are:\n```json\n{json.dumps(GOOD)}\n```\nBye {{}}"))
    assert attributes == GOOD and chat.requests == 1


def test_content_in_parts_is_joined(server: FakeServer) -> None:
    half = len(json.dumps(GOOD)) // 2
    parts = [
        {"type": "text", "text": json.dumps(GOOD)[:half]},
        {"type": "text", "text": json.dumps(GOOD)[half:]},
    ]
    assert ask(server, say(parts))[0] == GOOD


@pytest.mark.parametrize(("kind", "requests"), [("json_object", 2), (None, 3)])
def test_the_ladder_is_stepped_down_once_and_remembered(
    server: FakeServer, kind: str | None, requests: int
) -> None:
    server.plays = [only_without(kind)]
    with ChatServer(server.url, "m", LIMITS) as chat:
        chat.ask("one", PICTURE, load_preset())
        assert chat.requests == requests
        chat.ask("two", PICTURE, load_preset())
        assert chat.requests == requests + 1
    assert server.asked[-1][2].get("response_format", {}).get("type") == kind


def test_a_refusal_that_names_no_format_is_a_rule_the_second_time_only(server: FakeServer) -> None:
    good, bad = say(json.dumps(GOOD)), fail(400)
    server.plays = [bad, good, good, bad, good, bad, good, good]
    kinds = []
    with ChatServer(server.url, "m", LIMITS) as chat:
        for _ in range(5):
            chat.ask("What?", PICTURE, load_preset())
        for _, _, body in server.asked:
            kinds.append(body.get("response_format", {}).get("type"))
    once, ladder = ["json_schema"], ["json_schema", "json_object"]
    assert kinds == [*ladder, *once, *ladder, *ladder, "json_object"]


def test_what_a_cloud_calls_things_is_learnt(server: FakeServer) -> None:
    def play(handler: Handler, body: dict[str, Any]) -> None:
        if "max_tokens" in body:
            text = "Unsupported parameter: 'max_tokens' is not supported; use 'max_completion_tokens'."
            fail(400, json.dumps({"error": {"message": text}}))(handler, body)
        elif "temperature" in body:
            fail(400, '{"error": {"message": "temperature does not support 0"}}')(handler, body)
        else:
            say(json.dumps(GOOD))(handler, body)

    server.plays = [play]
    with ChatServer(server.url, "m", LIMITS) as chat:
        chat.ask("one", PICTURE, load_preset())
        assert chat.requests == 3
        chat.ask("two", PICTURE, load_preset())
        assert chat.requests == 4
    assert server.asked[-1][2]["response_format"]["type"] == "json_schema", "nothing else was given up"
    assert server.asked[-1][2]["max_completion_tokens"] == LIMITS.answer_tokens


def test_an_answer_cut_short_is_asked_for_again_with_more_tokens(server: FakeServer) -> None:
    def play(handler: Handler, body: dict[str, Any]) -> None:
        if body["max_tokens"] == LIMITS.answer_tokens:
            handler.send(200, json.dumps(answer("", "length", reasoning_content=json.dumps(GOOD))))
        else:
            say("<think>{} no</think>" + json.dumps(GOOD))(handler, body)

    server.plays = [play]
    with ChatServer(server.url, "m", LIMITS) as chat:
        assert chat.ask("one", PICTURE, load_preset()).attributes == GOOD
        assert chat.requests == 2 and len(server.asked[1][2]["messages"]) == 1, (
            "asked afresh, nothing to repair"
        )
        chat.ask("two", PICTURE, load_preset())
        assert chat.requests == 3, "what it takes is remembered"
        cut = json.dumps(answer("{", "length"))
        server.plays = [lambda handler, body: handler.send(200, cut), say(json.dumps(GOOD))]
        assert chat.ask("three", PICTURE, load_preset()).attributes == GOOD
    server.plays = [lambda handler, body: handler.send(200, json.dumps(answer("{", "length")))]
    with (
        ChatServer(server.url, "m", LIMITS) as chat,
        pytest.raises(ServerError, match="no end within 4096 tokens"),
    ):
        chat.ask("What?", PICTURE, load_preset())


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("2", 2), ("0.5", 0.5), ("soon", None), ("", None), ("-3", None), ("9" * 400, None), ("Wed, 99 Oct", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
    ],
)  # fmt: skip
def test_how_long_a_server_asks_to_be_left_alone(header: str, seconds: float | None) -> None:
    assert _seconds_in(header) == seconds


def test_a_time_of_day_to_come_back_at() -> None:
    later = email.utils.format_datetime(datetime.now(timezone.utc) + timedelta(seconds=60), usegmt=True)
    seconds = _seconds_in(later)
    assert seconds is not None and 50 < seconds <= 60


def test_a_server_that_stays_busy_is_left_alone_in_the_end(server: FakeServer) -> None:
    server.plays = [fail(429)]
    with ChatServer(server.url, "m", LIMITS) as chat:
        with pytest.raises(ServerError, match="error 429: no luck") as caught:
            chat.ask("What?", PICTURE, load_preset())
        assert caught.value.everywhere and 5 <= chat.requests <= 12


def test_whoever_waits_for_a_hanging_server_can_walk_away(server: FakeServer) -> None:
    server.plays = [hang]
    patient = dataclasses.replace(LIMITS, timeout_s=60)

    def walk_away() -> None:
        if server.asked:
            raise InterruptedError

    before = threading.active_count()
    with ChatServer(server.url, "m", patient) as chat, pytest.raises(InterruptedError):
        chat.ask("What?", PICTURE, load_preset(), walk_away)
    assert "vlm-server" not in [thread.name for thread in threading.enumerate()]
    assert threading.active_count() <= before + 1, "the server's own, which still hangs"


def test_a_model_without_eyes_is_the_everywheres_matter(server: FakeServer) -> None:
    text = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
    server.plays = [fail(500, json.dumps({"error": {"message": text}}))]
    with ChatServer(server.url, "m", LIMITS) as chat, pytest.raises(ServerError, match="mmproj") as caught:
        chat.ask("What?", PICTURE, load_preset())
    assert caught.value.takes_no_pictures and caught.value.everywhere


def test_repair_tells_the_model_what_was_wrong(server: FakeServer) -> None:
    ask(server, say(json.dumps({**GOOD, "shape": "blobby"})), say(json.dumps(GOOD)))
    messages = server.asked[1][2]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert "blobby" in messages[1]["content"]
    assert "shape must be one of: round, oval" in messages[2]["content"]


@pytest.mark.parametrize(
    ("play", "requests", "says"),
    [
        (fail(500), 3, "error 500: no luck"),
        (fail(404), 2, r"no such address or model \(404\)"),
        (fail(401), 2, rf"refuses the key \(401\); set {KEY_VARIABLE}"),
        (fail(400), 5, "error 400"),
        (fail(302, Location="http://example.org/"), 2, "points to another address"),
        (hang, 2, "did not answer within 0.6 s"),
        (drip, 2, "did not finish within 0.6 s"),
        (flood, 3, "more than 200000 bytes"),
        (drop, 3, "broke off"),
        (say("no"), 2, "no valid answer, also when asked to repair it: there is no JSON object"),
    ],
)
def test_what_stays_wrong_is_one_sentence(server: FakeServer, play: Play, requests: int, says: str) -> None:
    server.plays = [play]
    with ChatServer(server.url, "tiny-vlm", LIMITS) as chat:
        with pytest.raises(ServerError, match=says) as caught:
            chat.ask("What?", PICTURE, load_preset())
        assert chat.requests == requests
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_a_flood_is_not_taken_in(server: FakeServer) -> None:
    import tracemalloc

    server.plays = [flood]
    tracemalloc.start()
    try:
        with pytest.raises(ServerError), ChatServer(server.url, "m", LIMITS) as chat:
            chat.ask("What?", PICTURE, load_preset())
        # The fake server itself holds one block of 1 MiB at a time, in a thread or two.
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def test_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ChatServer(f"http://127.0.0.1:{port}", "m", LIMITS) as chat:
        with pytest.raises(ServerError, match=f"Nothing answers at 127.0.0.1:{port}") as caught:
            chat.ask("What?", PICTURE, load_preset())
    assert caught.value.everywhere


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
        ("http://localhost:1234/v1/", "http://localhost:1234/v1"),
        ("https://[::1]:8000/v1/chat/completions", "https://[::1]:8000/v1"),
        (" http://127.9.9.9/openai/v1 ", "http://127.9.9.9/openai/v1"),
    ],
)
def test_addresses_of_this_machine(address: str, asked: str) -> None:
    assert str(server_url(address)) == asked


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("https://api.openai.com/v1", "api.openai.com is not this machine"),
        ("http://192.168.1.5:11434", "not this machine"),
        ("http://0.0.0.0:11434", "not this machine"),
        ("http://127.0.0.1.example.org/v1", "not this machine"),
        ("http://localhost.example.org/v1", "not this machine"),
        ("http://2130706433/v1", "not this machine"),
        ("http://127.0.0.1:80@example.org/v1", "holds no user name"),
        ("http://me:secret@127.0.0.1/v1", "holds no user name"),
        ("http://127.0.0.1/v1?key=secret", "holds no user name"),
        ("ftp://127.0.0.1/v1", "no server address"),
        ("127.0.0.1:11434", "no server address"),
        ("http://", "no server address"),
        ("http://[::1", "no server address"),
        ("", "--base-url"),
        (None, "--base-url"),
    ],
)
def test_other_machines_and_nonsense_are_refused(address: str | None, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        ChatServer(address, "m")
    assert "secret" not in str(caught.value)


def test_proxies_of_the_environment_are_not_used(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert ask(server)[0] == GOOD


def test_the_key_goes_to_the_server_and_nowhere_else(
    server: FakeServer,
    study: Study,
    image_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = "sk-very-secret-0123456789"
    monkeypatch.setenv(KEY_VARIABLE, key)
    caplog.set_level(0)
    add_gazed_images(study, image_folder)
    echo = json.dumps({**GOOD, "remarks": "fine"}) + f" your key is {key}"
    server.plays = [
        say(echo),
        fail(401, json.dumps({"error": {"message": f"Incorrect API key provided: {key}"}})),
    ]
    result = explain_study(study, BackendOptions("openai", server.url, "m", LIMITS))
    assert all(headers["Authorization"] == f"Bearer {key}" for _, headers, _ in server.asked)
    assert result.done == 1 and "***" in result.failed[0][1]
    assert key not in caplog.text and key not in str(result)
    for path in study.folder.rglob("*"):
        assert path.is_dir() or key.encode() not in path.read_bytes()
    with ChatServer(server.url, "m") as chat:
        assert key not in repr(chat)


def test_a_key_that_no_header_can_hold_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "geheim\nX-Evil: 1")
    with pytest.raises(UserError, match=KEY_VARIABLE) as caught:
        ChatServer("http://127.0.0.1:1", "m")
    assert "geheim" not in str(caught.value)


def test_the_model_is_asked_for_where_there_is_one(server: FakeServer) -> None:
    with ChatServer(server.url, None, LIMITS) as chat:
        assert chat.find_model() == "tiny-vlm"
    server.models = ("a", "b")
    with (
        ChatServer(server.url, None, LIMITS) as chat,
        pytest.raises(UserError, match=r"--model.*offers: a, b"),
    ):
        chat.find_model()


def test_the_picture_is_small_outlined_and_without_metadata() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((600, 2400, 3)).astype(np.float32) * 0.3
    region = np.zeros((600, 2400), dtype=bool)
    region[200:400, 800:1600] = True
    data = encode_picture(image, region, ViewSettings())
    kinds, position = [], 8
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kinds.append(data[position + 4 : position + 8])
        position += 12 + length
    assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape == (256, 1024, 3)
    cyan = (picture == [255, 255, 0]).all(axis=2)
    rows, columns = np.nonzero(cyan)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((85, 170, 341, 682), abs=3)
    assert not cyan[110:140, 400:600].any(), "the region itself stays to be seen"


def test_grey_and_tiny_pictures_can_be_sent() -> None:
    faint = np.linspace(0, 0.02, 40 * 30, dtype=np.float32).reshape(40, 30, 1)
    picture = cv2.imdecode(
        np.frombuffer(encode_picture(faint, np.zeros((40, 30), bool), ViewSettings()), np.uint8),
        cv2.IMREAD_COLOR,
    )
    assert (
        picture is not None and picture.shape == (40, 30, 3) and int(picture.max()) - int(picture.min()) > 250
    )
    assert encode_picture(np.zeros((1, 1, 3), np.float32), np.ones((1, 1), bool), ViewSettings()).startswith(
        b"\x89PNG"
    )


def test_a_study_is_explained_and_every_request_leaves_a_line(
    server: FakeServer, study: Study, image_folder: Path
) -> None:
    ids = add_gazed_images(study, image_folder)
    server.plays = [say("pardon?"), say(json.dumps({**GOOD, "remarks": "<b>bold</b>"}))]
    result = explain_study(study, BackendOptions("openai", server.url, limits=LIMITS, concurrency=1))
    assert (result.done, result.failed) == (3, [])
    assert result.requests == 5 == len(server.asked), "the list of models, a repair, and one for each image"
    lines = [json.loads(line) for line in (study.folder / "audit.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    assert [line["image_sha256"] is None for line in lines] == [True, False, False, False, False]
    sent = base64.b64decode(
        server.asked[-1][2]["messages"][0]["content"][1]["image_url"]["url"].split(",")[1]
    )
    assert lines[-1]["image_sha256"] == hashlib.sha256(sent).hexdigest()
    assert lines[-1]["model"] == "tiny-vlm" and lines[-1]["server"] in server.url
    explanation = load_explanation(study, ids[0], "target")
    assert explanation is not None
    assert explanation.attributes == {**GOOD, "remarks": "<b>bold</b>"}
    assert (
        explanation.text.startswith("Described by tiny-vlm: in the upper left")
        and explanation.model == "tiny-vlm"
    )
    assert "The gaze rested once, 0.8 s in all" in explanation.prompt
    assert '"shape": "round" | "oval"' in explanation.prompt and "$" not in explanation.prompt
    assert ids[0] not in explanation.prompt, "file names may hold a patient's"
    again = explain_study(study, BackendOptions("openai", server.url, "tiny-vlm", LIMITS))
    assert (again.done, again.skipped, again.requests) == (0, 3, 0)
    other = explain_study(study, BackendOptions("openai", server.url, "other", LIMITS))
    assert other.done == 3


def test_a_mute_server_is_not_asked_for_every_image(study: Study, image_folder: Path) -> None:
    ids = add_gazed_images(study, image_folder, count=6)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = explain_study(study, BackendOptions("openai", url, "m", LIMITS, concurrency=1))
    assert result.done == 0 and result.requests == 9
    assert [image for image, _ in result.failed] == ids
    assert "Nothing answers" in result.failed[0][1] and result.failed[-1][1].startswith(
        "Not asked: Nothing answers"
    )


def test_bad_answers_to_one_image_do_not_stop_the_rest(
    server: FakeServer, study: Study, image_folder: Path
) -> None:
    ids = add_gazed_images(study, image_folder, count=6)
    server.plays = [say("no")] * 8 + [say(json.dumps(GOOD))]
    result = explain_study(study, BackendOptions("openai", server.url, "m", LIMITS, concurrency=1))
    assert (result.done, [image for image, _ in result.failed]) == (2, ids[:4])


def test_other_machines_are_refused_before_anything_is_read(study: Study, image_folder: Path) -> None:
    add_gazed_images(study, image_folder)
    with pytest.raises(UserError, match="not this machine"):
        explain_study(study, BackendOptions("openai", "https://api.example.org/v1", "m"))
    assert not (study.folder / "audit.jsonl").exists()


def test_client_follows_nothing_and_trusts_no_environment() -> None:
    with ChatServer("http://127.0.0.1:1", "m") as chat:
        assert isinstance(chat.connection.client, httpx.AsyncClient)
        client = chat.connection.client
        assert client.follow_redirects is False and client.trust_env is False
