"""The train page on a run that a cluster writes into the study folder, its clock an hour off."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

import segmentation.runs as runs
from app import watch
from app.train_page import TrainPage
from segmentation.job import JobEvent, RunSpec
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from tests.test_attach import FAR_WORKER
from tests.window_support import fill, open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)


@pytest.mark.skipif(sys.platform == "win32", reason="the far machine falls silent by a signal")
def test_a_clusters_run_is_found_followed_lost_found_again_and_stopped(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "FAR_STALE_SECONDS", 3.0)
    monkeypatch.setattr(watch, "EVERY_MS", 200)
    fill(study, image_folder)
    old = create_run(study, RunSpec(), "run-20200101-000000-abcdef")
    done = JobEvent(old.id, "done", 5, 5, 1.0, {"seconds": 1.0})
    old.events_path.write_text(done.to_line() + "\n")
    window = open_window(qtbot, tmp_path, study)
    window.show_page("train")
    page = window.page("train")
    assert isinstance(page, TrainPage)
    qtbot.waitUntil(lambda: page.pill.accessibleName() == "Done")

    # The cluster's queue has made the run; its machine comes later.
    run = create_run(Study.open(study.folder), RunSpec(method="partial"))
    qtbot.waitUntil(lambda: page.watcher is not None and page.watcher.run.id == run.id, timeout=60_000)
    assert page.pill.accessibleName() == "Waiting"
    command = [sys.executable, "-c", FAR_WORKER, str(run.path), "-3600", "100000", json.dumps(None)]
    process = subprocess.Popen(command)
    try:
        qtbot.waitUntil(lambda: page.pill.accessibleName() == "Running", timeout=60_000)
        qtbot.waitUntil(lambda: page.losses.points("total") > 10, timeout=60_000)
        qtbot.waitUntil(lambda: window.run_status.text().startswith("Training: "), timeout=60_000)
        assert page.view.figures["speed"].text() == "99"
        assert page.stop_button.isVisible() and page.resume_button.isHidden()

        process.send_signal(signal.SIGSTOP)
        qtbot.waitUntil(lambda: page.pill.accessibleName() == "Interrupted", timeout=60_000)
        points = page.losses.points("total")
        process.send_signal(signal.SIGCONT)
        qtbot.waitUntil(lambda: page.pill.accessibleName() == "Running", timeout=60_000)
        qtbot.waitUntil(lambda: page.losses.points("total") > points, timeout=60_000)
        qtbot.waitUntil(lambda: window.run_status.text().startswith("Training: "), timeout=60_000)

        QTest.mouseClick(page.stop_button, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: page.pill.accessibleName() == "Stopped", timeout=60_000)
        assert page.resume_button.isVisible()
        process.wait(30)
        # Every step arrived, once.
        steps = [event.step for event in run.events() if event.kind == "step"]
        assert steps == list(range(1, len(steps) + 1)) and page.losses.points("total") == len(steps)
    finally:
        process.kill()
        process.wait()


def test_a_share_that_cannot_be_read_for_a_while_changes_nothing(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(study, image_folder)
    run = create_run(study, RunSpec(method="partial"))
    command = [sys.executable, "-c", FAR_WORKER, str(run.path), "3600", "100000", json.dumps(None)]
    process = subprocess.Popen(command)
    try:
        window = open_window(qtbot, tmp_path, study)
        window.show_page("train")
        page = window.page("train")
        assert isinstance(page, TrainPage)
        qtbot.waitUntil(lambda: page.losses.points("total") > 2, timeout=60_000)

        def gone(path: Path) -> None:
            raise OSError(116, "Stale file handle", str(path))

        with monkeypatch.context() as patch:
            patch.setattr(runs, "last_event", gone)
            patch.setattr(RunFolder, "worker", lambda self: {})
            QTest.qWait(600)
            assert page.pill.accessibleName() == "Running"
        points = page.losses.points("total")
        qtbot.waitUntil(lambda: page.losses.points("total") > points, timeout=60_000)
        assert page.pill.accessibleName() == "Running"
    finally:
        process.kill()
        process.wait()
