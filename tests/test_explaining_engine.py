from __future__ import annotations

import base64
import collections
import contextlib
import dataclasses
import hashlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from segmentation.explainers.opening import BackendOptions, open_backend
from segmentation.explaining import Questions, due_for_explaining, explain_in_own_words, explain_study
from segmentation.explanation import load_explanation
from segmentation.study import Study
from tests.chat_server import (
    LIMITS,
    FakeServer,
    Handler,
    answer,
    fail,
    hang,
    say,
)
from tests.test_explanation import GOOD, add_gazed_images

pytestmark = pytest.mark.usefixtures("no_key")


@pytest.fixture
def server(chat_server: FakeServer) -> FakeServer:
    return chat_server


good = say(json.dumps(GOOD))


def options(server: FakeServer, concurrency: int = 2, **limits: Any) -> BackendOptions:
    return BackendOptions(
        "openai", server.url, "m", dataclasses.replace(LIMITS, **limits), concurrency=concurrency
    )


def pictures_asked(server: FakeServer) -> list[str]:
    """Return the hash of each picture that was sent, in order."""
    urls = [
        body["messages"][0]["content"][1]["image_url"]["url"] for _, _, body in list(server.asked) if body
    ]
    return [hashlib.sha256(base64.b64decode(url.split(",")[1])).hexdigest() for url in urls]


def stored(study: Study) -> list[str]:
    """Return the hash of the picture behind each explanation in the study."""
    found = [load_explanation(study, *key) for key in sorted(study.explanation_keys())]
    return [one.picture_sha256 for one in found if one is not None]


class Meeting:
    """A play that answers only once `count` requests are there at the same time."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count)
        self.lock = threading.Lock()
        self.now = self.most = 0

    def __call__(self, handler: Handler, body: dict[str, Any]) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.barrier.wait(10)
        with self.lock:
            self.now -= 1
        good(handler, body)


def test_as_many_as_allowed_are_asked_at_once(server: FakeServer, study: Study, image_folder: Path) -> None:
    add_gazed_images(study, image_folder, count=6)
    meeting = Meeting(3)
    server.plays = [meeting]
    result = explain_study(study, options(server, 3, timeout_s=20))
    assert (result.done, result.failed, meeting.most) == (6, [], 3)
    assert result.requests == 6
    assert (result.prompt_tokens, result.completion_tokens) == (5400, 300)
    lines = [json.loads(line) for line in (study.folder / "audit.jsonl").read_text().splitlines()]
    assert (
        sorted(line["image_sha256"] for line in lines)
        == sorted(pictures_asked(server))
        == sorted(stored(study))
    )


def test_questions_are_drawn_as_they_are_needed(server: FakeServer, study: Study, image_folder: Path) -> None:
    add_gazed_images(study, image_folder, count=6)
    server.plays = [hang]
    due, _ = due_for_explaining(study)
    drawn = []

    def questions() -> Any:
        for image, target in due:
            drawn.append(image.id)
            yield Questions(study).about(image, target)

    with (
        open_backend(study, options(server, 2, timeout_s=60)) as backend,
        contextlib.closing(backend.answers(questions())) as answers,  # type: ignore[type-var]
    ):
        assert [next(answers) for _ in range(5)] == [None] * 5
        assert len(drawn) == 2


@pytest.mark.parametrize("concurrency", [0, 17])
def test_concurrency_has_bounds(
    server: FakeServer, study: Study, image_folder: Path, concurrency: int
) -> None:
    add_gazed_images(study, image_folder, count=1)
    with pytest.raises(UserError, match="1 to 16"):
        explain_study(study, options(server, concurrency))


def test_walking_away_from_a_hanging_server_keeps_what_came(
    server: FakeServer, study: Study, image_folder: Path
) -> None:
    add_gazed_images(study, image_folder, count=6)
    hung_up = threading.Semaphore(0)

    def hang_until_the_other_side_goes(handler: Handler, body: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):
            if handler.connection.recv(1):
                return
        hung_up.release()
        handler.close_connection = True

    server.plays = [good, good, hang_until_the_other_side_goes]

    def until_it_hangs(done: int, total: int, label: str) -> None:
        if done == 2 and len(server.asked) == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        explain_study(study, options(server, 3, timeout_s=60), progress=until_it_hangs)
    assert "vlm-server" not in [thread.name for thread in threading.enumerate()]
    assert all(hung_up.acquire(timeout=5) for _ in range(3)), "the connections were closed"
    before = stored(study)
    assert len(before) == 2
    server.plays = [good]
    server.asked.clear()
    result = explain_study(study, options(server, 3))
    assert (result.done, result.skipped) == (4, 2)
    assert not set(before) & set(pictures_asked(server))


def test_an_opening_that_hangs_can_be_abandoned(server: FakeServer, study: Study, image_folder: Path) -> None:
    """Which model there is, is asked before the first image."""
    add_gazed_images(study, image_folder)
    real = Handler.do_GET

    def hanging(self: Handler) -> None:
        self.server.asked.append((self.path, {}, {}))
        hang(self, {})

    def walk_away(done: int, total: int, label: str) -> None:
        if server.asked:
            raise InterruptedError

    Handler.do_GET = hanging  # type: ignore[method-assign]
    try:
        with pytest.raises(InterruptedError):
            unnamed = dataclasses.replace(options(server, timeout_s=60), model=None)
            explain_study(study, unnamed, progress=walk_away)
    finally:
        Handler.do_GET = real  # type: ignore[method-assign]
    assert "vlm-server" not in [thread.name for thread in threading.enumerate()]


def test_one_busy_answer_slows_everybody_down(server: FakeServer, study: Study, image_folder: Path) -> None:
    add_gazed_images(study, image_folder, count=6)
    refused = threading.Event()
    times: list[float] = []

    def busy(handler: Handler, body: dict[str, Any]) -> None:
        times.append(time.monotonic())
        fail(429, Retry_After="1")(handler, body)
        refused.set()

    def after_it(handler: Handler, body: dict[str, Any]) -> None:
        refused.wait(10)
        # The other side has to have seen the refusal before it sees this answer.
        time.sleep(0.2)
        good(handler, body)

    def timed(handler: Handler, body: dict[str, Any]) -> None:
        times.append(time.monotonic())
        good(handler, body)

    server.plays = [busy, after_it, timed]
    result = explain_study(study, options(server, 2, timeout_s=20, longest_pause_s=1.0, patience_s=10.0))
    assert (result.done, result.requests) == (6, 7)
    assert min(times[1:]) - times[0] >= 0.99


def test_failures_that_were_on_their_way_together_count_as_one(
    server: FakeServer, study: Study, image_folder: Path
) -> None:
    ids = add_gazed_images(study, image_folder, count=6)
    meeting = threading.Barrier(4)

    def refuse(handler: Handler, body: dict[str, Any]) -> None:
        meeting.wait(10)
        fail(401)(handler, body)

    server.plays = [refuse] * 4 + [good]
    result = explain_study(study, options(server, 4, tries=1, timeout_s=20))
    assert result.done == 2, "a moment's trouble is not the end"
    assert [image for image, _ in result.failed] == ids[:4], "in order, however they came"
    server.plays = [fail(401)]
    result = explain_study(
        study, options(server, 1), image_ids=[image for image, _ in result.failed], overwrite=True
    )
    assert [reason.startswith("Not asked") for _, reason in result.failed] == [False, False, False, True]
    assert result.requests == 6


def test_a_log_that_cannot_be_written_ends_the_work_before_anything_is_sent(
    server: FakeServer, study: Study, image_folder: Path
) -> None:
    add_gazed_images(study, image_folder)
    (study.folder / "audit.jsonl").mkdir()
    with pytest.raises(UserError, match=r"audit\.jsonl"):
        explain_study(study, options(server))
    assert server.asked == []


def test_what_it_costs(server: FakeServer, study: Study, image_folder: Path) -> None:
    ids = add_gazed_images(study, image_folder)
    server.plays = [say("no")] * 2 + [good]
    labels = []
    priced = dataclasses.replace(options(server, 1), price_per_million=(10.0, 100.0))
    result = explain_study(study, priced, progress=lambda done, total, label: labels.append(label))
    assert (result.done, result.requests) == (2, 4)
    assert (result.prompt_tokens, result.completion_tokens) == (3600, 200), "what failed has cost as well"
    assert result.money == pytest.approx(3600 * 10e-6 + 200 * 100e-6)
    assert re.fullmatch(r"4 requests, \d+ s, 3600 \+ 200 tokens, about 0\.06 by the price given", labels[-1])
    explanation = load_explanation(study, ids[1], "target")
    assert (
        explanation is not None and explanation.cost.requests == 1 and explanation.cost.prompt_tokens == 900
    )


def test_nonsense_in_place_of_token_counts(server: FakeServer, study: Study, image_folder: Path) -> None:
    add_gazed_images(study, image_folder)
    reply = {**answer(json.dumps(GOOD)), "usage": {"prompt_tokens": -5, "completion_tokens": "many"}}
    server.plays = [lambda handler, body: handler.send(200, json.dumps(reply))]
    result = explain_study(study, options(server))
    assert (result.done, result.prompt_tokens, result.completion_tokens) == (3, 0, 0)


def test_an_image_that_does_not_exist_is_named(study: Study, image_folder: Path) -> None:
    ids = add_gazed_images(study, image_folder)
    with pytest.raises(UserError, match="no image 'nobody'"):
        explain_study(study, image_ids=[ids[0], "nobody"])
    assert explain_study(study, image_ids=ids[1:]).done == 2


def command(server: FakeServer, study: Study, *more: str) -> list[str]:
    return ["explain", str(study.folder), "--base-url", server.url, "--model", "m", *more]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "app", *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def wait_for(server: FakeServer, requests: int, process: subprocess.Popen[str]) -> None:
    while len(server.asked) < requests:
        assert process.poll() is None
        time.sleep(0.02)


def test_killed_in_mid_batch_nothing_that_was_answered_is_asked_again(
    server: FakeServer, study: Study, image_folder: Path
) -> None:
    add_gazed_images(study, image_folder, count=6)
    server.plays = [good, good, good, hang]
    with start(command(server, study)) as process:
        # The fifth is asked once one of the first three answers has been stored, or later.
        wait_for(server, 5, process)
        process.kill()
    before = stored(study)
    assert before, "something was answered"
    server.plays = [good]
    server.asked.clear()
    result = explain_study(study, options(server))
    assert (result.done, result.skipped + result.reused, result.failed) == (6 - len(before), len(before), [])
    asked = collections.Counter(pictures_asked(server))
    assert not set(before) & set(asked) and set(asked.values()) == {1}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
def test_ctrl_c_says_that_the_same_command_goes_on(
    server: FakeServer, study: Study, image_folder: Path
) -> None:
    add_gazed_images(study, image_folder, count=6)
    server.plays = [good, good, hang]
    with start(command(server, study)) as process:
        wait_for(server, 4, process)
        while len(stored(study)) < 2:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert re.fullmatch(
        r"Stopped with [12] of 6 settled\. Every answer that came is kept; the same command goes on .*\n",
        said,
    ), said


def test_the_command(
    server: FakeServer, study: Study, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = add_gazed_images(study, image_folder)
    arguments = command(server, study, "--json", "--concurrency", "3", "--timeout", "20", "--price", "1", "2")
    assert run_command([*arguments, "--images", *ids[:2]]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["done"] == 2 and values["requests"] == 2 and values["seconds"] > 0
    assert values["tokens"] == {"prompt": 1800, "completion": 100} and values["money"] == 0.002
    assert run_command([*arguments, "--overwrite"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 3
    for wrong, status, says in [
        (["explain"], 2, "required: STUDY"),
        (["explain", str(study.folder), "--server", "nobody"], 2, "invalid choice: 'nobody'"),
        (["explain", str(study.folder), "--backend", "measured", "--server", "ollama"], 1, "asks no server"),
        ([*arguments, "--concurrency", "17"], 2, "invalid choice: 17"),
        ([*arguments, "--price", "-1", "2"], 2, "--price"),
    ]:
        assert run_command(wrong) == status
        assert says in capsys.readouterr().err


def test_own_words_are_left_alone_by_other_backends(study: Study, image_folder: Path) -> None:
    first, second, _ = add_gazed_images(study, image_folder)
    said = explain_in_own_words(study, first, "target", "annotator-7F3K", "A round red polyp, upper left.")
    result = explain_study(study)
    assert (result.done, result.kept) == (2, 1)
    assert load_explanation(study, first, "target") == said
    again = explain_in_own_words(study, first, "target", "annotator-7F3K", "An oval red polyp, upper left.")
    assert explain_study(study, BackendOptions("annotator"), image_ids=[first]).kept == 0
    stored = load_explanation(study, first, "target")
    assert again is not None and stored is not None and stored.attributes["shape"] == "oval"
    assert explain_study(study, overwrite=True).done == 3
    found = load_explanation(study, first, "target")
    assert found is not None and found.backend == "measured"
    assert explain_study(study, BackendOptions("annotator"), image_ids=[second]).failed
