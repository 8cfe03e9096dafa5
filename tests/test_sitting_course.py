"""A sitting led through its images without the record page: what is looked at next, and what is stored of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PySide6.QtCore import QObject, QSettings
from pytestqt.qtbot import QtBot

from app.canvas_frame import CanvasFrame
from app.keymap import Keymap
from app.live_gaze import LiveGaze
from app.record_panel import RecordPanel
from app.recorder import Recorder
from app.recording_flow import Beginning, RecordingFlow
from app.scene import SceneCache, bare
from app.screen_trackers import geometry_of, tracker_of
from app.session import Session
from app.session_plan import SessionPlan
from app.sitting_course import SittingCourse
from app.stage import Stage
from gaze_capture.recording_codec import read_recording
from segmentation.importing import import_images
from segmentation.records import Target
from segmentation.session_options import SessionOptions
from segmentation.study import Study


@dataclass
class Led:
    """A sitting that is on, and what its course told."""

    study: Study
    session: Session
    recorder: Recorder
    flow: RecordingFlow
    course: SittingCourse
    hints: list[str]
    shown: list[tuple[str | None, str]]

    def stored(self) -> list[tuple[str, str | None, str | None, int | None]]:
        """End the sitting and return its placements: image, target, word and lesion."""
        sitting = self.course.end()
        assert sitting is not None
        self.flow.end()
        sitting.finish()
        recording = read_recording(self.study.recordings_folder / sitting.recording_id)
        return [(one.image_id, one.target_id, one.presence, one.instance) for one in recording.placements]


@pytest.fixture
def led(study: Study, image_folder: Path, tmp_path: Path, qtbot: QtBot) -> Iterator[Led]:
    import_images(study, [image_folder / "images"])
    study.set_targets([*study.targets, Target("organ", "Organ", kind="organ")])
    holder = QObject()
    session = Session(QSettings(str(tmp_path / "settings.ini"), QSettings.Format.IniFormat))
    session.set_study(study)
    frame, panel = CanvasFrame(), RecordPanel()
    for widget in (frame, panel):
        qtbot.addWidget(widget)
    frame.resize(600, 400)
    with qtbot.waitExposed(frame):
        frame.show()
    recorder = Recorder(LiveGaze(frame.canvas, panel), holder)
    stage = Stage(frame, holder)
    flow = RecordingFlow(recorder, stage, Keymap(session.settings, holder), holder)
    course = SittingCourse(session, recorder, flow, panel.look_for, holder)
    one = Led(study, session, recorder, flow, course, [], [])
    cache = SceneCache(study)

    def show() -> None:
        assert session.image_id is not None
        one.shown.append((session.image_id, session.target_id))
        stage.set_scene(bare(cache.get(session.image_id, session.target_id)))

    course.shown.connect(show)
    course.hinted.connect(lambda text, _: one.hints.append(text))
    plan = SessionPlan(study, "ann", SessionOptions(break_every_n=3), ["target", "organ"])
    course.begin(plan, "target")
    tracker = tracker_of("mouse", study, "target", geometry_of(frame.screen()), 60.0)
    tracker.open()
    flow.begin_with(Beginning(lambda: tracker, study, "ann", "target"), tracker)
    yield one
    sitting = course.end()
    if sitting is not None:
        sitting.finish()
    flow.end()
    recorder.stop()


def test_each_look_is_in_view_before_it_begins_and_keeps_its_word(led: Led) -> None:
    first, second = list(led.study.images)[:2]
    assert led.course.on and not led.course.elsewhere and led.shown == [(first, "target")]
    led.course.go((first, "organ"), 1, "absent", volume=False)
    led.course.go((second, "organ"), 1, "unsure", volume=False)
    led.course.go((first, "organ"), -1, None, volume=False)
    assert led.shown == [(first, "target"), (first, "organ"), (second, "organ"), (first, "organ")]
    assert (led.session.image_id, led.session.target_id) == (first, "organ")
    # An organ is one: its looks carry no number of a lesion.
    assert led.stored() == [
        (first, "target", "absent", 1),
        (first, "organ", "unsure", None),
        (second, "organ", None, None),
        (first, "organ", None, None),
    ]
    assert not led.course.on and led.course.plan is None


def test_a_look_too_brief_is_told_of_and_lesions_are_counted(led: Led) -> None:
    first, second = list(led.study.images)[:2]
    led.course.next_lesion()
    led.course.found()
    assert led.hints == ["Found: look all over it, edge included."]
    led.course.go((second, "target"), 1, None, volume=False)
    assert "looked at for 0.0 s only" in led.hints[-1]
    led.course.look_for("organ")
    assert [row[:2] + row[3:] for row in led.stored()] == [
        (first, "target", 1),
        (first, "target", 2),
        (second, "target", 1),
        (second, "organ", None),
    ]


def test_a_break_is_due_after_so_many_images_and_the_look_is_taken_up(led: Led) -> None:
    ids = list(led.study.images)
    for image_id in ids[1:4]:
        assert led.flow.phase == "images"
        led.course.go((image_id, "target"), 1, "absent", volume=False)
    assert led.flow.phase == "paused" and not led.course.elsewhere
    led.flow.pause_or_resume()
    assert str(led.flow.phase) == "images" and led.shown[-2:] == [(ids[3], "target")] * 2


def test_after_the_last_image_it_is_over(led: Led, qtbot: QtBot) -> None:
    with qtbot.waitSignal(led.course.over, timeout=0):
        led.course.go(None, 1, "ungradable", volume=False)
    assert [row[2] for row in led.stored()] == ["ungradable"]
