"""Two programs on one folder: nothing is lost, and each notices what the other adds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from gaze_capture import storage
from gaze_capture.errors import UserError
from gaze_capture.storage import locked, write_json_atomic
from segmentation.records import StudyImage, utc_now
from segmentation.study import Review, Study
from tests.window_support import fill, open_window
from tests.workstation import gaze

ROUNDS = 40


def image(image_id: str) -> StudyImage:
    return StudyImage(image_id, f"images/{image_id}.png", f"{image_id}.png", "0" * 64, (4, 5, 3))


def test_nothing_is_lost_when_both_add_at_once(study: Study) -> None:
    onlooker = Study.open(study.folder)
    onlooker.add_images([image(f"common-{number}") for number in range(ROUNDS)])
    assert len(onlooker.images) == ROUNDS and not onlooker.fixations and not onlooker.reviewed()
    command = [sys.executable, "-m", "tests.workstation", str(study.folder)]
    both = [subprocess.Popen([*command, who, str(ROUNDS)]) for who in "ab"]
    noticed = False
    while any(process.poll() is None for process in both):
        if onlooker.changed_elsewhere():
            noticed = True
            onlooker.refresh()
            _ = onlooker.images, len(onlooker.fixations), onlooker.reviewed()
        time.sleep(0.01)
    assert [process.returncode for process in both] == [0, 0]
    assert noticed
    onlooker.refresh()
    names = {f"{who}-{number}" for who in "ab" for number in range(ROUNDS)}
    assert set(onlooker.images) == names | {f"common-{number}" for number in range(ROUNDS)}
    assert {image_id for image_id, _ in onlooker.fixations} == names
    for number in range(ROUNDS):
        reviews = onlooker.reviews(f"common-{number}", "target")
        assert {review.annotator for review in reviews} == {"a", "b"}
    assert len(onlooker.reviewed()) == ROUNDS
    settled = Study.open(study.folder)
    assert settled.pseudomask_settings.sigma_deg == pytest.approx(1 + (ROUNDS - 1) / 100)
    assert settled.key_fingerprint == f"key-{ROUNDS - 1}"
    lines = (study.folder / "audit.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 2 * ROUNDS
    left = [path for path in study.folder.rglob(".*") if path.is_file()]
    assert not left, "locks and temporary files are gone"
    assert not onlooker.changed_elsewhere()


def test_different_fields_changed_at_once_are_all_kept(study: Study) -> None:
    script = f"""
import sys
from pathlib import Path
from segmentation.study_file import change_study_file
folder = Path({str(study.folder)!r})
for number in range(30):
    change_study_file(folder, **{{f"field_{{sys.argv[1]}}_{{number}}": number}})
"""
    both = [subprocess.Popen([sys.executable, "-c", script, who]) for who in "ab"]
    assert [process.wait(60) for process in both] == [0, 0]
    values = storage.read_json(study.folder / "study.json")
    assert all(values[f"field_{who}_{number}"] == number for who in "ab" for number in range(30))


def test_a_lock_left_by_a_dead_program_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LOCK_STALE_SECONDS", 0.3)
    path = tmp_path / "study.json"
    (tmp_path / ".study.json.lock").write_text("of a program that died")
    # Its time tells nothing: the clock of the other computer may be hours off.
    os.utime(tmp_path / ".study.json.lock", (4e9, 4e9))
    begun = time.monotonic()
    with locked(path):
        assert time.monotonic() - begun > 0.3
    assert not list(tmp_path.iterdir())


def test_a_lock_that_changes_hands_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LOCK_STALE_SECONDS", 60.0)
    path = tmp_path / "study.json"
    with (
        locked(path),
        pytest.raises(UserError, match=r"changed by another window.*delete .*\.lock"),
        locked(path, wait_seconds=0.2),
    ):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only the administrator mounts disks"
)
def test_a_full_disk_leaves_no_lock(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        (tmp_path / "study.json").write_bytes(b" " * 4096)
        with pytest.raises(UserError, match="disk is full"), locked(tmp_path / "study.json"):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["study.json"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_only_what_is_new_is_read_again(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Study.open(study.folder)
    other.add_images([image(f"a{number}") for number in range(20)])
    for number in range(20):
        other.save_fixations(f"s{number}", [gaze(f"a{number}", "b", f"s{number}")], imported=True)
        other.add_review(Review(f"a{number}", "target", "b", "pseudomask", "rejected", None, 1.0, utc_now()))
    old = time.time() - 60
    for folder in (study.folder / "reviews").iterdir():
        os.utime(folder, (old, old))
    _ = study.images, len(study.fixations), study.reviewed()
    assert not study.changed_elsewhere()
    other.add_images([image("new")])
    other.save_fixations("late", [gaze("new", "b", "late")], imported=True)
    other.add_review(Review("a3", "target", "b", "pseudomask", "accepted", None, 1.0, utc_now()))
    read: list[Path] = []
    real = storage.read_json

    def noted(path: Path) -> object:
        read.append(path)
        return real(path)

    for module in ("segmentation.records", "segmentation.review_index", "gaze_capture.fixation_table"):
        monkeypatch.setattr(f"{module}.read_json", noted)
    assert study.changed_elsewhere()
    study.refresh()
    assert "new" in study.images and ("new", "target") in study.fixations
    assert study.reviewed()["a3", "target"].verdict == "accepted"
    assert len(read) == 3, [path.name for path in read]
    assert not study.changed_elsewhere()


def test_what_a_window_adds_itself_is_no_news_to_it(study: Study) -> None:
    study.add_images([image("a")])
    _ = study.images, len(study.fixations), study.reviewed()
    study.save_fixations("s", [gaze("a", "b", "s")], imported=True)
    name = study.add_review(Review("a", "target", "b", "pseudomask", "accepted", None, 1.0, utc_now()))
    assert not study.changed_elsewhere()
    study.withdraw_review("a", "target", name)
    assert not study.changed_elsewhere() and not study.reviewed()


def test_what_one_reader_of_a_window_met_is_still_news_to_the_others(study: Study) -> None:
    study.add_images([image("a")])
    assert not study.reviewed()
    other = Study.open(study.folder)
    other.add_review(Review("a", "target", "b", "pseudomask", "rejected", None, 1.0, utc_now()))
    # One that reads ahead meets it before the window was told.
    assert study.reviews("a", "target")
    study.add_review(Review("a", "target", "c", "pseudomask", "accepted", None, 1.0, utc_now()))
    assert study.changed_elsewhere()
    study.refresh()
    assert len(study.reviews("a", "target")) == 2 and not study.changed_elsewhere()


@pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)
def test_the_window_shows_what_another_computer_added(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder)
    window = open_window(qtbot, tmp_path, study)
    window.study_watch._timer.setInterval(50)
    window.show_page("review")
    page = window.page("review")
    other = Study.open(study.folder)
    qtbot.waitUntil(lambda: page.list.model.rowCount() == 6)  # type: ignore[attr-defined]
    current = window.session.image_id
    other.add_images([image("elsewhere")])
    window.study_watch.look()
    qtbot.waitUntil(lambda: page.list.model.rowCount() == 7)  # type: ignore[attr-defined]
    assert window.session.image_id == current, "whoever reviews stays where they are"
    other.add_review(Review("case_2", "target", "b", "pseudomask", "rejected", None, 1.0, utc_now()))
    window.study_watch.look()
    qtbot.waitUntil(lambda: page.list.model.rows[2].state == "Rejected")  # type: ignore[attr-defined]
    # Nothing disturbs a recording.
    window.show_page("record")
    record = window.page("record")
    record.start()  # type: ignore[attr-defined]
    assert record.holds()
    other.add_images([image("later")])
    window.study_watch.look()
    qtbot.wait(300)
    assert "later" not in study.images
    QTest.keyClick(record, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: "later" in study.images, timeout=15000)


def test_a_write_of_one_does_not_disturb_a_read_of_the_other(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    write_json_atomic(path, {"number": 0})
    script = f"""
from pathlib import Path
from gaze_capture.storage import write_json_atomic
for number in range(200):
    write_json_atomic(Path({str(path)!r}), {{"number": number, "filler": "x" * 5000}})
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    while process.poll() is None:
        assert storage.read_json(path)["number"] >= 0
    assert process.returncode == 0
