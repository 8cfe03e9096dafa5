"""The study's folder goes away in mid-step: one sentence, nothing half-written, and all is well when it is back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from app.jobs import Task
from gaze_capture.errors import UserError
from segmentation import steps
from segmentation.records import StudyImage, utc_now
from segmentation.study import Review, Study
from tests.window_support import fill, open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)

SENTENCE = "cannot be reached"


def vanish_at(study: Study, step: int, away: Path) -> Callable[[int, int, str], None]:
    """Return a progress that moves the study away at a step."""

    def progress(done: int, total: int, label: str) -> None:
        if done == step and study.folder.exists():
            study.folder.rename(away)

    return progress


def assert_whole(folder: Path) -> None:
    from segmentation.verification import verify

    found = verify(Study.open(folder))
    assert found.sound, [problem.sentence for problem in found.problems]


STEPS: dict[str, Callable[[Study, Path, Callable[[int, int, str], None]], object]] = {
    "pseudomask": lambda study, raw, progress: steps.make_pseudomasks(study, progress=progress),
    "explain": lambda study, raw, progress: steps.explain(study, progress=progress),
    "simulate": lambda study, raw, progress: steps.simulate(study, progress=progress),
    "import": lambda study, raw, progress: steps.import_images(study, [raw / "images"], progress=progress),
    "verify": lambda study, raw, progress: __import__("segmentation.verification").verification.verify(
        study, progress
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_ends_with_a_sentence_and_nothing_half_written(
    study: Study, image_folder: Path, tmp_path: Path, name: str
) -> None:
    if name != "import":
        fill(study, image_folder, gaze=name != "simulate", pseudomasks=name in ("explain", "verify"))
    away = tmp_path / "away"
    with pytest.raises(UserError) as caught:
        STEPS[name](study, image_folder, vanish_at(study, 0 if name == "simulate" else 2, away))
    assert SENTENCE in str(caught.value) or "cannot be read" in str(caught.value), str(caught.value)
    assert not study.folder.exists(), "it must not come to life again as an empty folder"
    assert not list(away.rglob("*.part"))
    away.rename(study.folder)
    if name != "import":
        assert_whole(study.folder)
    STEPS[name](Study.open(study.folder), image_folder, lambda *_: None)
    assert_whole(study.folder)


WRITES: dict[str, Callable[[Study], object]] = {
    "images": lambda s: s.add_images([StudyImage("b", "images/b.png", "b.png", "0" * 64, (4, 5, 3))]),
    "mask": lambda s: s.save_true_mask("a", "target", np.ones((4, 5), bool)),
    "prediction": lambda s: s.save_prediction("r", "a", "target", "student", np.ones((4, 5), np.float32)),
    "gaze": lambda s: s.save_fixations("x", [], imported=True),
    "settings": lambda s: s.set_key_fingerprint("f"),
    "review": lambda s: s.add_review(Review("a", "target", "x", "r", "rejected", None, 1.0, utc_now())),
    "audit": lambda s: s.audit("x"),
    "recording": lambda s: steps.record(s, "simulated", seconds=0.1),
    "refresh": lambda s: s.refresh(),
    "look": lambda s: s.changed_elsewhere(),
    "images read first": lambda s: Study(s.folder, values_of(s)).images,
}


def values_of(study: Study) -> dict[str, object]:
    return {
        "name": study.name,
        "uid": study.uid,
        "targets": [{"id": "target"}],
        "pseudomask": study.pseudomask_settings.to_json(),
    }


@pytest.mark.parametrize("name", WRITES)
def test_every_write_refuses_with_a_sentence(study: Study, tmp_path: Path, name: str) -> None:
    study.add_images([StudyImage("a", "images/a.png", "a.png", "0" * 64, (4, 5, 3))])
    assert len(study.images) == 1
    study.folder.rename(tmp_path / "away")
    with pytest.raises(UserError, match=SENTENCE):
        WRITES[name](study)
    assert not study.folder.exists()
    assert len(study.images) == 1, "what was known of it stays"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the administrator may read everything")
def test_a_permission_that_is_lost_is_said(study: Study) -> None:
    study.folder.chmod(0)
    try:
        for look in (study.refresh, study.changed_elsewhere, study.pseudomask_keys):
            with pytest.raises(UserError):
                look()
        with pytest.raises(UserError):
            Study.open(study.folder)
    finally:
        study.folder.chmod(0o755)


def test_a_folder_that_may_not_be_listed_is_no_empty_one(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.add_images([StudyImage("a", "images/a.png", "a.png", "0" * 64, (4, 5, 3))])
    _ = study.images

    def refuse(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    for look in (study.refresh, study.changed_elsewhere, study.pseudomask_keys, study.run_ids):
        with pytest.raises(UserError, match="cannot be read or written"):
            look()
    assert set(study.images) == {"a"}


def test_the_window_says_so_once_and_goes_on_when_it_is_back(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder)
    window = open_window(qtbot, tmp_path, study)
    window.show_page("review")
    page = window.page("review")
    rows = page.list.model.rowCount()  # type: ignore[attr-defined]
    study.folder.rename(tmp_path / "away")
    window.study_watch.look()
    qtbot.waitUntil(lambda: window.banner.isVisible())
    assert "cannot be reached" in window.banner.text.text()
    assert window.banner.details.isHidden()
    # Whatever is pressed meanwhile: a sentence, no traceback, no empty study.
    QTest.keyClick(page, Qt.Key.Key_0)
    QTest.keyClick(page, Qt.Key.Key_Space)
    for name in ("study", "record", "train", "review"):
        window.show_page(name)
        qtbot.wait(50)
    window.session.refresh("data")
    assert page.list.model.rowCount() == rows == 6  # type: ignore[attr-defined]
    assert window.banner.details.isHidden() and not study.folder.exists()
    (tmp_path / "away").rename(study.folder)
    window.study_watch.look()
    qtbot.waitUntil(lambda: "is back" in window.banner.text.text())
    assert not study.reviewed()
    assert_whole(study.folder)


def test_a_step_in_the_window_that_loses_its_folder_shows_no_details(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder, pseudomasks=False)
    window = open_window(qtbot, tmp_path, study)
    away = tmp_path / "away"

    def work(progress: Callable[[int, int, str], None]) -> object:
        return steps.make_pseudomasks(study, progress=vanish_at(study, 2, away))

    task = Task(work, "Making pseudo-masks", window)
    task.ended.connect(lambda: window.session.refresh("data"))
    window.start_task(task)
    qtbot.waitUntil(lambda: not window.tasks)
    assert SENTENCE in window.banner.text.text() or "cannot be read" in window.banner.text.text()
    assert window.banner.details.isHidden()

    def careless(progress: Callable[[int, int, str], None]) -> object:
        return (study.folder / "images").stat()

    window.start_task(Task(careless, "Looking", window))
    qtbot.waitUntil(lambda: not window.tasks)
    assert SENTENCE in window.banner.text.text() and window.banner.details.isHidden()
