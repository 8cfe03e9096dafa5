from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from segmentation.connection_check import ConnectionReport, check_connection, disc
from segmentation.server_keys import KEY_VARIABLE
from segmentation.server_presets import SERVER_PRESETS, server_preset
from tests.chat_server import (
    LIMITS,
    FakeServer,
    Handler,
    Play,
    answer,
    drop,
    fail,
    hang,
    only_without,
    say,
)

pytestmark = pytest.mark.usefixtures("no_key")


@pytest.fixture
def server(chat_server: FakeServer) -> FakeServer:
    return chat_server


def see(handler: Handler, body: dict[str, Any]) -> None:
    """Answer as a model that sees would."""
    url = body["messages"][0]["content"][1]["image_url"]["url"]
    data = np.frombuffer(base64.b64decode(url.split(",")[1]), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert picture is not None
    rows, columns = np.nonzero((picture < 230).any(axis=2))
    x, y = int(columns.mean()), int(rows.mean())
    blue, green, red = picture[y, x].tolist()
    colour = "red" if red > 150 else "blue" if blue > 150 else "green" if green > 120 else "black"
    place = f"{'upper' if y < 128 else 'lower'} {'left' if x < 128 else 'right'}"
    say(json.dumps({"colour": colour, "place": place}))(handler, body)


def check(
    server: FakeServer, *plays: Play, model: str | None = "tiny-vlm", path: str = ""
) -> ConnectionReport:
    if plays:
        server.plays = list(plays)
    report = check_connection(server.url + path, model, limits=LIMITS)
    assert report.sentence.endswith(".") and "\n" not in report.sentence
    assert report.requests == len(server.asked)
    return report


def test_all_is_well(server: FakeServer) -> None:
    for _ in range(5):
        report = check(server, see, model=None)
        assert report.ok and report.saw and report.sentence.startswith("All is well")
        assert (report.model, report.models, report.rung) == ("tiny-vlm", ("tiny-vlm",), "json_schema")
        assert report.seconds > 0 and report.requests == 2
        server.asked.clear()


def test_the_rung_is_told(server: FakeServer) -> None:
    def play(handler: Handler, body: dict[str, Any]) -> None:
        if body.get("response_format", {}).get("type") == "json_schema":
            only_without("json_object")(handler, body)
        else:
            see(handler, body)

    report = check(server, play)
    assert report.ok and report.rung == "json_object" and "(json_object)" in report.sentence


def test_prose_is_an_answer(server: FakeServer) -> None:
    def in_prose(handler: Handler, body: dict[str, Any]) -> None:
        seen: list[str] = []
        real, handler.send = handler.send, lambda status, text, *_, **__: seen.append(text)  # type: ignore[method-assign]
        see(handler, body)
        handler.send = real  # type: ignore[method-assign]
        said = json.loads(json.loads(seen[0])["choices"][0]["message"]["content"])
        place = said["place"].replace("upper", "top").replace("lower", "bottom")
        say(f"I see a {said['colour']} disc in the {place} corner.")(handler, body)

    assert check(server, in_prose).ok


@pytest.mark.parametrize(
    ("play", "saw", "says"),
    [
        (say('{"colour": "mauve", "place": "centre"}'), False, "did not see what the test picture shows"),
        (
            lambda handler, body: handler.send(200, json.dumps(answer("", "length"))),
            None,
            "no end within 4096 tokens",
        ),
        (say(""), False, "it said: nothing. Choose a model that takes pictures"),
        (fail(500, '{"error": {"message": "image input is not supported"}}'), False, "takes no pictures"),
        (fail(400, '{"error": "this model does not support images"}'), False, "takes no pictures"),
        (fail(401), None, rf"refuses the key \(401\); set {KEY_VARIABLE}"),
        (fail(404), None, r"\(404\): no luck"),
        (fail(429), None, "error 429"),
        (hang, None, "did not answer within 0.6 s"),
        (drop, None, "broke off"),
    ],
)
def test_what_is_wrong_with_the_model(server: FakeServer, play: Play, saw: bool | None, says: str) -> None:
    report = check(server, play)
    assert not report.ok and report.saw is saw
    assert re.search(says, report.sentence)


def test_an_unknown_model_is_told_with_those_there_are(server: FakeServer) -> None:
    server.models = ("a", "b")
    assert "has no model 'c'; it offers: a, b" in check(server, fail(404), model="c").sentence
    server.asked.clear()
    assert "Name the model to ask; 127.0.0.1" in check(server, model=None).sentence


@contextmanager
def listing(play: Play) -> Iterator[None]:
    """Answer in this way where the list of models is asked for."""
    real = Handler.do_GET

    def do_get(self: Handler) -> None:
        self.server.asked.append((self.path, {}, {}))
        play(self, {})

    Handler.do_GET = do_get  # type: ignore[method-assign]
    try:
        yield
    finally:
        Handler.do_GET = real  # type: ignore[method-assign]


def test_no_such_api(server: FakeServer) -> None:
    with listing(fail(404, "<html>Not found</html>")):
        assert (
            "is no chat-completions server; give its address up to /v1" in check(server, model=None).sentence
        )
        server.asked.clear()
        sentence = check_connection(server.url.replace("/v1", "/api"), None, limits=LIMITS).sentence
        assert "under /api is no chat-completions server; try /api/v1." in sentence
        server.asked.clear()
        assert check(server, see).ok, "not every server lists its models"
    server.asked.clear()
    with listing(lambda handler, body: handler.send(200, "<html>Welcome</html>", "text/html")):
        assert "is no chat-completions server" in check(server).sentence


def test_nothing_listens_and_no_such_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert "Nothing answers at" in check_connection(url, limits=LIMITS).sentence

    def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    report = check_connection("http://localhost:9", limits=LIMITS)
    assert "The name localhost cannot be found" in report.sentence
    assert "holds no user name" in check_connection("http://me:secret@127.0.0.1").sentence


def test_tls_where_there_is_none(server: FakeServer) -> None:
    report = check_connection(server.url.replace("http:", "https:"), limits=LIMITS)
    assert "speaks no TLS; check whether its address begins with http://" in report.sentence


def test_a_check_can_be_abandoned(server: FakeServer) -> None:
    server.plays = [hang]

    def walk_away() -> None:
        if len(server.asked) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        check_connection(server.url, "m", limits=dataclasses.replace(LIMITS, timeout_s=60), waiting=walk_away)
    assert "vlm-server" not in [thread.name for thread in threading.enumerate()]


def test_the_command_needs_no_study(
    server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.plays = [see]
    assert run_command(["explain", "--test-connection", "--base-url", server.url, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["ok"] and values["rung"] == "json_schema" and values["models"] == ["tiny-vlm"]
    server.plays = [fail(401)]
    assert run_command(["explain", "--test-connection", "--base-url", server.url]) == 1
    assert "refuses the key" in capsys.readouterr().out
    with socket.socket() as taken:
        # Bound and not listening: nothing answers here, whatever else runs on this machine.
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(
            "segmentation.server_presets.SERVER_PRESETS",
            (
                dataclasses.replace(
                    server_preset("ollama"), base_url=f"http://127.0.0.1:{taken.getsockname()[1]}"
                ),
            ),
        )
        assert run_command(["explain", "--test-connection", "--server", "ollama"]) == 1
    assert re.fullmatch(r"Nothing answers at .*\nOllama: Fetch .*\n", capsys.readouterr().out)


def test_pictures_differ_and_are_small() -> None:
    assert disc("red", "upper left") != disc("red", "lower left") and len(disc("black", "upper left")) < 5000


def test_presets_of_servers() -> None:
    assert len({preset.id for preset in SERVER_PRESETS}) == len(SERVER_PRESETS)
    for preset in SERVER_PRESETS:
        assert preset.base_url.startswith(("http://127.0.0.1:", "https://")) and preset.hint.endswith(".")
        assert server_preset(preset.id) is preset
    with pytest.raises(UserError, match="ollama, lm-studio"):
        server_preset("nobody")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="nothing here can make a certificate")
def test_a_certificate_that_nobody_signed(server: FakeServer, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
    ]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    report = check_connection(server.url.replace("http:", "https:"), limits=LIMITS)
    assert "is not one that this computer trusts" in report.sentence
