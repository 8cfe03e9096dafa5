from __future__ import annotations

import importlib
import json
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from segmentation import sending
from segmentation.explainers.opening import BackendOptions
from segmentation.explaining import explain_study, question_about
from segmentation.explanation_presets import load_preset
from segmentation.explanation_settings import ExplanationSettings, ViewSettings, load_settings, save_settings
from segmentation.gaze_view import shown
from segmentation.sending import (
    Permission,
    check_may_send,
    give_permission,
    host_of,
    needs_permission,
    permission_for,
    permissions,
    withdraw_permission,
)
from segmentation.server_keys import KEY_VARIABLE, SERVICE, forget_key, key_for, keyring_name, store_key
from segmentation.study import Study
from segmentation.vlm_server import ChatServer
from tests.chat_server import LIMITS, FakeServer
from tests.test_explanation import add_gazed_images

PICTURE = b"\x89PNG not looked at"
REMOTE = "https://api.example.org/v1"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "keyring", None)  # As where it is not installed.


class Errors(types.ModuleType):
    class KeyringError(Exception):
        pass


class Ring(types.ModuleType):
    """A keyring in memory, behind the functions of the package `keyring`."""

    def __init__(self) -> None:
        super().__init__("keyring")
        self.errors = Errors("keyring.errors")
        self.held: dict[tuple[str, str], str] = {}
        self.broken = ""

    def _check(self) -> None:
        if self.broken:
            raise self.errors.KeyringError(self.broken)

    def get_password(self, service: str, name: str) -> str | None:
        self._check()
        return self.held.get((service, name))

    def set_password(self, service: str, name: str, key: str) -> None:
        self._check()
        self.held[service, name] = key

    def delete_password(self, service: str, name: str) -> None:
        self._check()
        del self.held[service, name]


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch, no_key: None) -> Ring:
    ring = Ring()
    monkeypatch.setitem(sys.modules, "keyring", ring)
    monkeypatch.setitem(sys.modules, "keyring.errors", ring.errors)
    return ring


@pytest.fixture
def gazed(study: Study, image_folder: Path) -> Study:
    add_gazed_images(study, image_folder)
    return study


def allow(study: Study, url: str = REMOTE, annotator: str = "A") -> Permission:
    image = next(iter(study.images.values()))
    question = question_about(study, image, study.target())
    return give_permission(study, url, annotator, shown(question), question)


def audited(study: Study) -> list[dict[str, Any]]:
    path = study.folder / "audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize(
    ("address", "host", "needed"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434", False),
        ("http://LOCALHOST.:1234/v1", "http://localhost:1234", False),
        ("https://[::1]/v1", "https://[::1]:443", False),
        ("https://API.Example.org/v1/", "https://api.example.org:443", True),
        ("https://api.example.org.:443/other", "https://api.example.org:443", True),
        ("https://api.example.org:8443", "https://api.example.org:8443", True),
        ("http://api.example.org", "http://api.example.org:80", True),
        ("http://192.168.1.5:11434", "http://192.168.1.5:11434", True),
        ("http://[fe80::1]:80", "http://[fe80::1]:80", True),
        ("http://0.0.0.0:1", "http://0.0.0.0:1", True),
        ("http://localtest.me", "http://localtest.me:80", True),
        ("http://127.0.0.1.nip.io", "http://127.0.0.1.nip.io:80", True),
        ("http://localhost.example.org", "http://localhost.example.org:80", True),
        ("http://2130706433", "http://2130706433:80", True),
        ("http://bücher.example", "http://xn--bcher-kva.example:80", True),
    ],
)
def test_hosts_and_whether_they_are_this_machine(address: str, host: str, needed: bool) -> None:
    assert host_of(address) == host and needs_permission(address) is needed


def test_a_permission_holds_for_its_host_and_nothing_else(gazed: Study) -> None:
    settings = load_settings(gazed)
    assert permission_for(gazed, REMOTE, settings) is None
    given = allow(gazed, annotator=" Dr A ")
    assert permission_for(gazed, REMOTE, settings) == given and given.given_by == "Dr A" and given.encrypted
    assert permission_for(gazed, "https://API.example.org:443/", settings) == given
    for other in (
        "http://api.example.org/v1",
        "https://api.example.org:8443/v1",
        "https://example.org/v1",
        "https://api.example.org.evil.example/v1",
    ):
        assert permission_for(gazed, other, settings) is None
        with pytest.raises(UserError, match=r"nobody has allowed .* gaze-insight allow-sending"):
            check_may_send(gazed, other)
    check_may_send(gazed, REMOTE)
    check_may_send(gazed, "http://127.0.0.1:9")


@pytest.mark.parametrize(
    "view",
    [
        ViewSettings("heatmap"), ViewSettings(crop_margin=0.1), ViewSettings(side_px=2048),
        ViewSettings(fixations_in_words=False), ViewSettings(mask_text=True),
    ],
)  # fmt: skip
def test_another_way_of_showing_images_asks_anew(gazed: Study, view: ViewSettings) -> None:
    allow(gazed)
    save_settings(gazed, ExplanationSettings(view=view))
    with pytest.raises(UserError, match="not in the way they are shown now"):
        check_may_send(gazed, REMOTE)
    allow(gazed)
    check_may_send(gazed, REMOTE)
    save_settings(gazed, ExplanationSettings())
    check_may_send(gazed, REMOTE)


def test_another_prompt_asks_anew(gazed: Study) -> None:
    allow(gazed)
    own = gazed.folder / "presets"
    own.mkdir()
    source = Path(__file__).parents[1] / "resources" / "explanations"
    (own / "generic.json").write_bytes((source / "generic.json").read_bytes())
    words = (source / "generic.md").read_text()
    (own / "generic.md").write_text(words.replace("You do not diagnose.", "The hospital is St. Example."))
    with pytest.raises(UserError, match="not in the way"):
        check_may_send(gazed, REMOTE)


def test_permissions_are_files_of_their_own_and_are_withdrawn_by_another(gazed: Study) -> None:
    first, second = allow(gazed), allow(gazed)
    allow(gazed, "https://other.example/v1")
    before = {path.name: path.read_bytes() for path in (gazed.folder / "permissions").iterdir()}
    assert len(before) == 3
    assert [one.id for one in withdraw_permission(gazed, REMOTE, "B")] == [first.id, second.id]
    after = {path.name: path.read_bytes() for path in (gazed.folder / "permissions").iterdir()}
    assert len(after) == 4 and before.items() <= after.items(), "nothing is rewritten"
    assert permission_for(gazed, REMOTE, load_settings(gazed)) is None
    with pytest.raises(UserError, match="was withdrawn"):
        check_may_send(gazed, REMOTE)
    check_may_send(gazed, "https://other.example/v1")
    assert [one.withdrawn_at is None for one in permissions(gazed)] == [False, False, True]
    assert withdraw_permission(gazed, REMOTE, "B") == []
    allow(gazed)
    check_may_send(gazed, REMOTE)
    said = [(line["action"], line["server"]) for line in audited(gazed)]
    host = "https://api.example.org:443"
    assert said.count(("permission given", host)) == 3 and said.count(("permission withdrawn", host)) == 1


def test_workstations_do_not_collide(gazed: Study) -> None:
    threads = [
        threading.Thread(target=allow, args=(Study.open(gazed.folder), REMOTE, f"W{n}")) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.given_by for one in permissions(gazed)) == [f"W{n}" for n in range(8)]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"purpose": "sending"}', '{"withdraws": 3, "withdrawn_at": ""}']
)
def test_a_damaged_file_allows_nothing(gazed: Study, text: str) -> None:
    allow(gazed)
    (gazed.folder / "permissions" / "20990101-000000-abcdef.json").write_text(text)
    with pytest.raises(UserError, match=r"20990101-000000-abcdef\.json"):
        check_may_send(gazed, REMOTE)


def test_a_permission_of_a_newer_version_is_not_guessed_at(gazed: Study) -> None:
    allow(gazed)
    (gazed.folder / "permissions" / "x.json").write_text('{"schema": 99}')
    with pytest.raises(UserError, match="newer Gaze Insight"):
        permissions(gazed)


def test_somebody_has_to_say_so_and_this_machine_needs_nothing(gazed: Study) -> None:
    with pytest.raises(UserError, match="annotator's id"):
        allow(gazed, annotator=" ")
    with pytest.raises(UserError, match="is this machine"):
        allow(gazed, "http://localhost:1234/v1")
    assert not (gazed.folder / "permissions").exists()


def test_downloads_have_a_permission_of_their_own(gazed: Study) -> None:
    assert sending.permission_for_download(gazed, "huggingface.co") is None
    given = sending.give_download_permission(gazed, "huggingface.co", "A")
    assert sending.permission_for_download(gazed, "https://huggingface.co") == given
    assert sending.permission_for_download(gazed, "example.org") is None
    with pytest.raises(UserError, match="nobody has allowed"):
        check_may_send(gazed, "https://huggingface.co")
    with pytest.raises(UserError, match="https only"):
        sending.give_download_permission(gazed, "http://huggingface.co", "A")
    assert len(withdraw_permission(gazed, "huggingface.co", "A", "download")) == 1
    assert sending.permission_for_download(gazed, "huggingface.co") is None


def test_a_server_elsewhere_is_not_even_opened_without_its_own_permission() -> None:
    for permitted in (
        None,
        "https://example.org:443",
        "http://api.example.org:80",
        "https://api.example.org:8443",
    ):
        with pytest.raises(UserError, match=r"api\.example\.org is not this machine"):
            ChatServer(REMOTE, "m", permitted=permitted)
    with ChatServer(REMOTE, "m", LIMITS, permitted=host_of(REMOTE)) as chat:
        chat.connection.url = httpx.URL("https://elsewhere.example/v1")
        with pytest.raises(UserError, match=r"elsewhere\.example is not the server"):
            chat.ask("What?", PICTURE, load_preset())


@pytest.fixture
def far_away(chat_server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the address of a server that counts as another machine, and is the misbehaving one on loopback."""
    import socket

    real = socket.getaddrinfo
    port = chat_server.server_address[1]

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return real("127.0.0.1" if name == "gpu.hospital.example" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield f"http://gpu.hospital.example:{port}/v1"


def test_nothing_leaves_before_it_is_allowed_and_each_request_leaves_a_line(
    far_away: str, chat_server: FakeServer, gazed: Study
) -> None:
    options = BackendOptions("openai", far_away, limits=LIMITS)
    with pytest.raises(UserError, match=r"nobody has allowed .* gaze-insight allow-sending"):
        explain_study(gazed, options)
    assert chat_server.asked == [] and audited(gazed) == []
    given = allow(gazed, far_away)
    assert not given.encrypted
    result = explain_study(gazed, options)
    assert (result.done, result.failed, len(chat_server.asked)) == (3, [], 4)
    lines = [line for line in audited(gazed) if line["action"] == "explanation-request"]
    assert [line["image_sha256"] is None for line in lines] == [True, False, False, False], (
        "also the list of models"
    )
    assert {line["server"] for line in lines} == {far_away[7:-3]}
    withdraw_permission(gazed, far_away, "A")
    with pytest.raises(UserError, match="was withdrawn"):
        explain_study(gazed, options, overwrite=True)
    assert len(chat_server.asked) == 4


def test_a_permission_withdrawn_in_mid_batch_stops_what_has_not_left(
    far_away: str, chat_server: FakeServer, gazed: Study
) -> None:
    allow(gazed, far_away)
    first = chat_server.plays[0]

    def withdraw(handler: Any, body: Any) -> None:
        withdraw_permission(gazed, far_away, "B")
        handler.send(500, "{}")

    chat_server.plays = [withdraw, first]
    result = explain_study(gazed, BackendOptions("openai", far_away, "m", LIMITS, concurrency=1))
    assert len(chat_server.asked) == 1, "not even the retry leaves"
    assert result.done == 0 and all("withdrawn" in reason for _, reason in result.failed)


def test_a_redirect_elsewhere_is_not_followed(far_away: str, chat_server: FakeServer, gazed: Study) -> None:
    allow(gazed, far_away)
    chat_server.plays = [
        lambda handler, body: handler.send(
            307, "", Location=f"http://127.0.0.1:{chat_server.server_address[1]}/x"
        )
    ]
    result = explain_study(gazed, BackendOptions("openai", far_away, "m", LIMITS))
    assert result.done == 0 and "not followed" in result.failed[0][1]
    assert {path for path, _, _ in chat_server.asked} == {"/v1/chat/completions"}


def test_a_key_is_kept_for_one_host(
    ring: Ring, chat_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = host_of(chat_server.url)
    store_key(mine, " sk-one\n")
    assert ring.held == {(SERVICE, mine): "sk-one"} and key_for(mine) == "sk-one"
    assert key_for(host_of(REMOTE)) == ""
    with ChatServer(chat_server.url, "m", LIMITS) as chat:
        assert "sk-one" not in repr(chat)
        chat.ask("What?", PICTURE, load_preset())
        assert chat_server.asked[-1][1]["Authorization"] == "Bearer sk-one"
    other_name = chat_server.url.replace("127.0.0.1", "localhost")
    with ChatServer(other_name, "m", LIMITS) as chat:
        chat.ask("What?", PICTURE, load_preset())
        assert "Authorization" not in chat_server.asked[-1][1], (
            "the same machine by another name is another host"
        )
    monkeypatch.setenv(KEY_VARIABLE, "sk-env")
    assert key_for(mine) == "sk-env"
    assert forget_key(mine) is True and forget_key(mine) is False and ring.held == {}


def test_machines_without_a_keyring_say_so_plainly(ring: Ring) -> None:
    ring.broken = "No recommended backend was available for sk-secret."
    with pytest.raises(UserError, match=KEY_VARIABLE) as caught:
        store_key("https://x:443", "sk-secret")
    assert "sk-secret" not in str(caught.value) and "No recommended backend" in str(caught.value)
    assert key_for("https://x:443") == ""
    with pytest.raises(UserError, match="cannot be used"):
        forget_key("https://x:443")


def test_without_the_package_the_sentence_names_it() -> None:
    with pytest.raises(UserError, match="pip install keyring"):
        store_key("https://x:443", "sk")
    assert key_for("https://x:443") == ""


@pytest.mark.parametrize("key", ["", "  ", "geheim\nX-Evil: 1", "schlüssel"])
def test_what_is_no_key_is_not_stored(ring: Ring, key: str) -> None:
    with pytest.raises(UserError) as caught:
        store_key("https://x:443", key)
    assert ring.held == {} and "geheim" not in str(caught.value)


def cli(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    status = run_command([*arguments, "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out else {}, err


def test_the_command_shows_first_and_allows_with_yes(
    gazed: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("allow-sending", str(gazed.folder), "--base-url", "http://gpu.example/v1")
    status, said, _ = cli(capsys, *base, "--preview", str(tmp_path / "look"))
    assert status == 0 and said["permitted"] is False and said["encrypted"] is False
    assert said["host"] == "http://gpu.example:80"
    assert not (gazed.folder / "permissions").exists()
    question = question_about(gazed, gazed.image(said["image"]), gazed.target())
    seen = shown(question)
    assert (tmp_path / "look" / "picture.png").read_bytes() == seen.picture_png
    assert (tmp_path / "look" / "words.txt").read_bytes() == seen.prompt.encode()
    run_command([*base])
    assert "not encrypted" in capsys.readouterr().out
    for unseen in ((), ("00000000",)):
        status, said, err = cli(capsys, *base, "--yes", *unseen)
        assert status == 1 and "allowed for what was seen" in err
        assert not (gazed.folder / "permissions").exists()
    status, said, _ = cli(capsys, *base, "--yes", seen.picture_sha256[:8], "--annotator", "Dr A")
    assert status == 0 and said["permitted"] is True
    given = permission_for(gazed, base[3], load_settings(gazed))
    assert given is not None and (given.given_by, given.picture_sha256) == ("Dr A", seen.picture_sha256)
    assert cli(capsys, *base)[1]["permitted"] is True
    assert cli(capsys, *base, "--withdraw")[1] == {
        "host": "http://gpu.example:80", "withdrawn": 1, "permitted": False,
    }  # fmt: skip
    assert permission_for(gazed, base[3], load_settings(gazed)) is None
    status, _, err = cli(capsys, *base, "--image", "nobody")
    assert status == 1 and "nobody" in err
    assert cli(capsys, *base[:3], "http://localhost:1")[1]["needs_permission"] is False
    assert cli(capsys, *base[:3], "https://huggingface.co", "--download", "--yes")[1]["permitted"] is True
    assert sending.permission_for_download(gazed, "huggingface.co") is not None


def test_a_key_is_read_from_stdin_and_never_printed(
    ring: Ring, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("sk-from-stdin\n"))
    status, said, err = cli(capsys, "server-key", "--base-url", REMOTE)
    assert status == 0 and said == {"host": "https://api.example.org:443", "stored": True}
    assert ring.held == {(SERVICE, said["host"]): "sk-from-stdin"} and "sk-from" not in err
    assert cli(capsys, "server-key", "--base-url", REMOTE, "--forget")[1]["forgotten"] is True
    assert run_command(["server-key", "--base-url", REMOTE, "sk-in-argv"]) == 2


def test_the_store_of_keys_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert keyring_name() is None
    monkeypatch.undo()
    keyring, backend = importlib.import_module("keyring"), importlib.import_module("keyring.backend")
    before = keyring.get_keyring()

    class Store(backend.KeyringBackend):  # type: ignore[misc, name-defined]
        name = "A store"
        priority = 5

        def get_password(self, service: str, username: str) -> str | None:
            raise AssertionError("naming a store opens nothing")

        def set_password(self, service: str, username: str, password: str) -> None:
            raise AssertionError("naming a store writes nothing")

    try:
        keyring.set_keyring(Store())
        assert keyring_name() == "A store"
        keyring.set_keyring(importlib.import_module("keyring.backends.fail").Keyring())
        assert keyring_name() is None
    finally:
        keyring.set_keyring(before)
