from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from app.main_window import MainWindow
from app.train_page import TrainPage
from gaze_capture.storage import write_bytes_atomic, write_json_atomic
from segmentation.images import encode_gray16
from segmentation.job import JobEvent, RunSpec
from segmentation.records import Target
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from tests.window_support import fill, open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)

WORKER = """
import json, os, socket, sys, time
from pathlib import Path
run = Path(sys.argv[1])
total = 4000
def tell(kind, step, **values):
    event = {"run_id": run.name, "kind": kind, "step": step, "total": total, "time": time.time(), "values": values}
    with open(run / "events.jsonl", "a") as stream:
        stream.write(json.dumps(event) + "\\n")
started = time.time()
(run / "worker.json").write_text(json.dumps(
    {"pid": os.getpid(), "host": socket.gethostname(), "started": started, "heartbeat": time.time() + 600}))
tell("phase", 0, name="reading images")
tell("started", 0, device="cpu", images=6, device_reason="PyTorch is built for nothing else.")
step = 0
while step < total:
    if (run / "stop").exists():
        tell("stopped", step, message="Stopped as asked; what was done is kept.")
        sys.exit()
    step += 1
    losses = {"total": 2 / step, "student": 1 / step, "teacher": 1 / step, "cwc": 0.1}
    tell("step", step, losses=losses, images_per_s=40.0, eta_s=(total - step) * 0.02)
    time.sleep(0.02)
"""


def begin(study: Study) -> tuple[RunFolder, subprocess.Popen[bytes]]:
    """Start a real child process that writes a run's events as a worker does."""
    run = create_run(study, RunSpec())
    process = subprocess.Popen([sys.executable, "-I", "-c", WORKER, str(run.path)])
    deadline = time.monotonic() + 10
    while run.state() != "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return run, process


def write(run: RunFolder, *events: tuple[str, int, dict[str, object]], alive: bool = True) -> None:
    """Write events by hand, as of a worker that is this very process."""
    now = time.time()
    worker = {"pid": os.getpid(), "host": socket.gethostname(), "started": now, "heartbeat": now}
    if alive:
        write_json_atomic(run.path / "worker.json", worker)
    with open(run.events_path, "a", encoding="utf-8") as stream:
        for kind, step, values in events:
            stream.write(JobEvent(run.id, kind, step, 100, now, values).to_line() + "\n")  # type: ignore[arg-type]


def page_of(window: MainWindow) -> TrainPage:
    page = window.page("train")
    assert isinstance(page, TrainPage)
    return page


def test_window_finds_a_running_run_follows_and_stops_it(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder)
    run, process = begin(study)
    try:
        window = open_window(qtbot, tmp_path, study)
        qtbot.waitUntil(lambda: window.run_status.text().startswith("Training: "), timeout=30_000)
        window.show_page("train")
        page = page_of(window)
        qtbot.waitUntil(lambda: page.losses.points("total") > 10, timeout=30_000)
        assert page.watcher is not None and page.watcher.run.id == run.id
        assert page.pill.accessibleName() == "Running"
        assert not page.settings.train_button.isEnabled()
        figures = page.view.figures
        assert "of 4,000" in figures["step"].text() and figures["speed"].text() == "40"
        # How long it takes is not known yet, and nobody pretends to know.
        assert figures["left"].text() == "measuring…" and figures["device"].text() == "cpu"
        assert "Learns from 6 images." in page.facts.text() and "built for nothing" in page.facts.text()
        assert page.losses.points("student") == page.losses.points("total")
        assert page.view.consistency.points("cwc") == page.losses.points("total")
        assert page.losses.points("cwc") == page.scores.points("agreement") == 0
        # Closing asks nothing and ends nothing; the window that opens next finds the run again, from its first event.
        window.close()
        assert process.poll() is None
        again = open_window(qtbot, tmp_path, Study.open(study.folder))
        again.show_page("train")
        page = page_of(again)
        qtbot.waitUntil(lambda: page.losses.points("total") > 20, timeout=30_000)
        QTest.mouseClick(page.stop_button, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: page.pill.accessibleName() == "Stopped", timeout=30_000)
        assert page.resume_button.isVisible() and page.settings.train_button.isEnabled()
        qtbot.waitUntil(lambda: not again.run_status.text().startswith("Training: "), timeout=30_000)
        assert page.runs.rows[0][3] == "Stopped"
        process.wait(5)
        assert run.events()[-1].kind == "stopped"
    finally:
        process.kill()
        process.wait()


def test_a_worker_that_dies_is_told(qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path) -> None:
    fill(study, image_folder)
    _, process = begin(study)
    window = open_window(qtbot, tmp_path, study)
    window.show_page("train")
    page = page_of(window)
    qtbot.waitUntil(lambda: page.pill.accessibleName() == "Running", timeout=30_000)
    process.kill()
    process.wait()
    qtbot.waitUntil(lambda: page.pill.accessibleName() == "Interrupted", timeout=30_000)
    assert page.resume_button.isVisible() and page.stop_button.isHidden()


def test_samples_and_scores_are_shown_as_they_come(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder)
    run = create_run(study, RunSpec())
    write(run, ("started", 0, {"device": "cpu"}))
    window = open_window(qtbot, tmp_path, study)
    window.show_page("train")
    page = page_of(window)
    ids = list(study.images)

    def sample(step: int, image_id: str) -> tuple[str, int, dict[str, object]]:
        path = f"samples/{step}/{image_id}.target.png"
        view = np.zeros((32, 32), dtype=np.float32)
        view[8 : 8 + step, 8:24] = 1
        write_bytes_atomic(run.path / path, encode_gray16(view))
        return "sample", step, {"image_id": image_id, "target_id": "target", "path": path}

    write(run, *(sample(5, image_id) for image_id in ids))
    qtbot.waitUntil(lambda: len(page.samples.shown) == 4, timeout=30_000)
    before = page.samples.grab().toImage()
    losses = {"total": 1.0, "student": 0.5, "cwc": None}
    write(run, ("agreement", 5, {"dice": 0.4, "images": 16}))
    qtbot.waitUntil(lambda: page.scores.points("agreement") == 1, timeout=30_000)
    assert page.scores.title.text() == "Agreement with labels"
    write(
        run,
        sample(20, ids[0]),
        ("step", 20, {"losses": losses}),
        ("selection", 20, {"dice": 0.5, "best": 0.5}),
    )
    qtbot.waitUntil(lambda: page.scores.points("dice") == 1, timeout=30_000)
    assert page.samples.shown[ids[0]] == 20 and page.samples.shown[ids[1]] == 5
    assert page.samples.grab().toImage() != before
    assert page.scores.title.text() == "Dice on images set apart"
    assert page.losses.points("total") == 1 and page.scores.points("agreement") == 0
    write(run, ("done", 100, {"seconds": 12.0, "iterations": 100}))
    qtbot.waitUntil(lambda: page.pill.accessibleName() == "Done", timeout=30_000)
    assert page.predict_button.isVisible() and "100 steps in 12 s" in page.facts.text()
    # Each run keeps its own curves: choosing another shows that one's.
    other = create_run(study, RunSpec(method="partial"))
    write(other, ("step", 7, {"losses": {"total": 3.0}}), ("failed", 7, {"message": "Memory ran out."}))
    window.session.refresh("runs")
    rows = [row[0] for row in page.runs.rows]
    index = page.runs.index(rows.index(other.id), 0)
    QTest.mouseClick(
        page.table.viewport(), Qt.MouseButton.LeftButton, pos=page.table.visualRect(index).center()
    )
    assert page.pill.accessibleName() == "Failed" and page.facts.text() == "Memory ran out."
    assert page.losses.points("total") == 1 and page.samples.shown == {}


def test_the_button_says_what_it_will_do_or_what_is_missing(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    window = open_window(qtbot, tmp_path)
    window.show_page("train")
    page = page_of(window)
    settings = page.settings
    assert settings.sentence.text() == "Open a study first." and not settings.train_button.isEnabled()
    window.session.set_study(study)
    assert "no images" in settings.sentence.text()
    fill(study, image_folder, pseudomasks=False)
    window.session.refresh("data")
    qtbot.waitUntil(lambda: "no pseudo-mask" in settings.sentence.text(), timeout=30_000)
    settings.method.setCurrentText("supervised")
    qtbot.waitUntil(settings.train_button.isEnabled, timeout=30_000)
    settings.method.setCurrentText("gaze-to-insight")
    assert not settings.train_button.isEnabled()
    fill_again = Study.open(study.folder)
    from segmentation import steps

    steps.make_pseudomasks(fill_again)
    window.session.refresh("data")
    qtbot.waitUntil(settings.train_button.isEnabled, timeout=20_000)
    sentence = settings.sentence.text()
    assert "6 images" in sentence and "gaze-to-insight" in sentence and "at most 14 min" in sentence
    assert "simulated from masks" in sentence
    assert "targets" not in sentence and "Values" not in sentence
    changed = [dataclasses.replace(image, modality="ct") for image in fill_again.images.values()]
    fill_again.add_images(changed[:2])
    fill_again.set_targets([*fill_again.targets, Target("zone", "Zone")])
    window.session.set_study(Study.open(study.folder))
    qtbot.waitUntil(lambda: "2 targets" in settings.sentence.text(), timeout=30_000)
    assert "CT window 40 400" in settings.sentence.text()
    fill_again.set_targets(fill_again.targets[:1])
    window.session.set_study(Study.open(study.folder))
    qtbot.waitUntil(settings.train_button.isEnabled, timeout=30_000)
    assert "2 targets" not in settings.sentence.text()
    QTest.mouseClick(settings._advanced.toggle, Qt.MouseButton.LeftButton)
    assert settings.minutes.isVisible()
    settings.minutes.setValue(3)
    settings.seed.setValue(11)
    assert "at most 3 min" in settings.sentence.text()
    spec = settings.spec(study)
    assert (spec.max_minutes, spec.seed, spec.method, spec.preset) == (3.0, 11, "gaze-to-insight", "cpu")


def test_one_click_trains_and_predicts(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    pytest.importorskip("torch")
    fill(study, image_folder)
    window = open_window(qtbot, tmp_path, study)
    window.show_page("train")
    page = page_of(window)
    qtbot.waitUntil(page.settings.train_button.isEnabled, timeout=30_000)
    page.settings.method.setCurrentText("partial")
    page.settings.iterations.setValue(3)
    QTest.mouseClick(page.settings.train_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: page.pill.accessibleName() in ("Done", "Failed"), timeout=400_000)
    assert page.pill.accessibleName() == "Done", page.facts.text()
    assert page.samples.shown and page.losses.points("total") >= 1
    qtbot.waitUntil(lambda: not window.tasks and window.banner.isVisible(), timeout=400_000)
    [run_id] = study.run_ids()
    assert len(study.prediction_keys(run_id)) == 6
    window.show_page("review")
    scene = window.page("review").canvas.scene  # type: ignore[attr-defined]
    assert scene is not None and scene.student is not None and scene.run_id == run_id
