"""Scenes are built ahead: the latest wishes, nearest first, and without a pause while the reader hurries."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QObject
from pytestqt.qtbot import QtBot

from app.prefetch import Prefetcher
from app.scene import Key, Scene, SceneCache
from gaze_capture.errors import UserError
from segmentation.study import Study


class SlowCache(SceneCache):
    """A cache of a study that lets a test hold each build."""

    def __init__(self, study: Study) -> None:
        super().__init__(study)
        self.begun: list[str] = []
        self.go_on = threading.Semaphore(0)
        self.errors: dict[str, Exception] = {}

    def get(self, image_id: str, target_id: str, run_id: str | None = None, others: bool = False) -> Scene:
        """Wait until the test lets it go on; nothing is built."""
        self.begun.append(image_id)
        assert self.go_on.acquire(timeout=10)
        raise self.errors.get(image_id, UserError("not there"))


@pytest.fixture
def cache(tmp_path: Path) -> SlowCache:
    return SlowCache(Study.create(tmp_path / "study", "study"))


@pytest.fixture
def ahead(qtbot: QtBot) -> Iterator[Prefetcher]:
    parent = QObject()
    yield Prefetcher(parent)


def keys(*names: str) -> list[Key]:
    return [(name, "target", None, False) for name in names]


def test_later_wishes_replace_what_was_not_begun(qtbot: QtBot, cache: SlowCache, ahead: Prefetcher) -> None:
    ahead.request(cache, keys("a", "b", "c"))
    qtbot.waitUntil(lambda: cache.begun == ["a"])
    ahead.request(cache, keys("d", "e"))
    for _ in range(3):
        cache.go_on.release()
    qtbot.waitUntil(lambda: cache.begun == ["a", "d", "e"])
    ahead.stop()
    assert cache.begun == ["a", "d", "e"]


def test_one_at_work_goes_on_with_new_wishes_at_once(
    qtbot: QtBot, cache: SlowCache, ahead: Prefetcher
) -> None:
    ahead.request(cache, keys("a"))
    qtbot.waitUntil(lambda: cache.begun == ["a"])
    ahead.request(cache, keys("b"))
    cache.go_on.release()
    # No event of the window runs here: the painting that holds it up is what the building shares the time with.
    for _ in range(1000):
        if cache.begun == ["a", "b"]:
            break
        threading.Event().wait(0.005)
    assert cache.begun == ["a", "b"]
    cache.go_on.release()
    ahead.stop()


def test_a_build_that_breaks_does_not_end_building(qtbot: QtBot, cache: SlowCache, ahead: Prefetcher) -> None:
    cache.errors["a"] = RuntimeError("broken")
    cache.go_on.release(2)
    with qtbot.captureExceptions():
        ahead.request(cache, keys("a"))
        qtbot.waitUntil(lambda: cache.begun == ["a"])
        ahead._pool.waitForDone()
        ahead.request(cache, keys("b"))
        qtbot.waitUntil(lambda: cache.begun == ["a", "b"])
    ahead.stop()


def test_stopping_drops_what_waits(qtbot: QtBot, cache: SlowCache, ahead: Prefetcher) -> None:
    ahead.request(cache, keys("a", "b"))
    qtbot.waitUntil(lambda: cache.begun == ["a"])
    threading.Timer(0.05, cache.go_on.release).start()
    ahead.stop()
    assert cache.begun == ["a"]
