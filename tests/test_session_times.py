from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.session_times import looks_of, times_of
from gaze_capture.storage import write_json_atomic
from segmentation.annotation_time import annotation_time, stored_times
from segmentation.evaluation import evaluate
from segmentation.job import RunSpec
from segmentation.study import Study
from tests.gaze_support import SHAPE, Event, add_images, record_in, record_looks


def test_each_second_of_a_sitting_has_its_part(tmp_path: Path) -> None:
    events: list[Event] = [
        ("calibration", 4.0, {"eyes": "both"}),
        ("validation", 6.0, {"summary": None}),
        ("instruction", 7.0, {}),
        ("practice", 7.5, {"on": True}),
        ("practice", 10.5, {"on": False}),
        ("drift", 12.0, {"distance_deg": 0.3}),
        ("found", 14.0, {}),
        ("pause", 16.0, {}),
        ("resume", 18.0, {}),
        ("pause", 21.0, {}),
        ("resume", 24.0, {}),
        ("look_again", 30.2, {}),
    ]
    shown = [("p", 8, 10), ("a", 13, 20), ("b", 25, 30), ("a", 30.5, 32.5), ("c", 33, 34)]
    times = times_of(record_looks(tmp_path / "r", shown, events, seconds=34.0))
    assert times.parts() == pytest.approx(
        {
            "looking": 5 + 5 + 1,
            "relooks": 2,
            "practice": 2,
            "pauses": 2,
            "calibration": 4,
            "validation": 2,
            "drift": 2,
            "instructions": 1,
            "rest": 3,
            # 7..8, 12..13, 20..21 and 24..25, 30..30.5, 32.5..33
            "between": 1 + 1 + 2 + 1,
        },
        abs=0.02,
    )
    assert sum(times.parts().values()) == pytest.approx(times.total_s)
    first = next(look for look in times.looks if look.image_id == "a")
    assert (first.search_s, first.sweep_s, first.pause_s) == pytest.approx((1, 4, 2))
    assert [look.again for look in times.looks] == [False, False, False, True, False]
    assert next(look for look in times.looks if look.image_id == "b").search_s is None
    assert times.images == 3, "practice is no image of the session"


def test_a_calibration_before_the_recording_counts_by_its_seconds(tmp_path: Path) -> None:
    events: list[Event] = [
        ("calibration", 0.0, {"eyes": "both", "seconds": 38.0}),
        ("validation", 0.0, {"seconds": 12.0}),
    ]
    times = times_of(record_looks(tmp_path / "r", [("a", 0.5, 3)], events))
    assert (times.calibration_s, times.validation_s) == pytest.approx((38, 12))
    assert sum(times.parts().values()) == pytest.approx(times.total_s)


def test_parts_add_up_whatever_happens(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    kinds = [
        "calibration",
        "validation",
        "drift",
        "instruction",
        "pause",
        "resume",
        "found",
        "practice",
        "look_again",
    ]
    for number in range(25):
        moments = np.sort(rng.uniform(0, 20, 12)).tolist()
        shown = [
            (str(rng.choice(list("abc"))), begun, ended)
            for begun, ended in zip(moments[::2], moments[1::2], strict=True)
        ]
        events: list[Event] = [
            (
                str(kind),
                float(rng.uniform(0, 20)),
                {"on": bool(rng.random() < 0.5)} if kind == "practice" else {},
            )
            for kind in rng.choice(kinds, 14)
        ]
        times = times_of(record_looks(tmp_path / str(number), shown, events, seconds=20.0))
        assert sum(times.parts().values()) == pytest.approx(times.total_s, abs=1e-6)
        assert min(times.parts().values()) >= 0
        assert all(look.viewing_s >= -1e-9 and look.pause_s >= 0 for look in times.looks)
        for look in times.looks:
            if look.search_s is not None and look.sweep_s is not None:
                assert look.search_s + look.sweep_s == pytest.approx(look.viewing_s)


def test_zooming_and_scrolling_stay_within_one_look(tmp_path: Path) -> None:
    shown = [("s1", 0, 1), ("s2", 1, 2), ("s1", 2, 3), ("s1", 3, 4), ("x", 4, 5), ("s1", 5, 6)]
    recording = record_looks(tmp_path / "r", shown)

    def volume(name: str) -> str:
        return "v" if name.startswith("s") else name

    assert [look.placements for look in looks_of(recording.placements, volume)] == [(0, 1, 2, 3), (4,), (5,)]
    times = times_of(recording, volume)
    assert [(look.image_id, round(look.viewing_s, 6), look.again) for look in times.looks] == [
        ("s1", 3, False),
        ("s2", 1, False),
        ("x", 1, False),
        ("s1", 1, True),
    ]


@pytest.fixture
def recorded(study: Study) -> Study:
    """Return a study with a sitting of two images: a calibration, a pause and a look again."""
    add_images(study, ["a", "b"])
    events: list[Event] = [
        ("calibration", 0.0, {"eyes": "both", "seconds": 30.0}),
        ("pause", 3.0, {}),
        ("resume", 5.0, {}),
    ]
    record_in(study, "rec-1", [("a", 0.5, 8.5), ("b", 9, 13), ("a", 13.5, 16.5)], events)
    return study


def test_annotation_time_takes_pauses_off_and_lists_the_rest_apart(recorded: Study) -> None:
    time = annotation_time(recorded, recorded.images, ["target"])
    assert time is not None
    assert (time.looking_s, time.relooks_s, time.setup_s, time.pauses_s) == pytest.approx((5, 1.5, 15, 1))
    assert time.seconds_per_image == pytest.approx(21.5)


def test_evaluate_counts_it_under_the_key_that_others_rely_on(recorded: Study) -> None:
    write_json_atomic(recorded.runs_folder / "run-1" / "spec.json", RunSpec().to_json())
    mask = np.zeros(SHAPE, dtype=bool)
    mask[100:200, 100:200] = True
    recorded.save_true_mask("a", "target", mask)
    recorded.save_prediction("run-1", "a", "target", "student", mask.astype(np.float32))
    result = evaluate(recorded, "run-1").to_json()
    assert result["annotation_seconds_per_image"] == pytest.approx(21.5)
    assert result["annotation_time"]["pauses_s"] == pytest.approx(1)
    assert "pauses of 1.0 s are left out" in evaluate(recorded, "run-1").to_text()


def test_times_on_the_command_line(recorded: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["times", str(recorded.folder), "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["recordings"]
    assert row["recording"] == "rec-1" and row["images"] == 2
    assert row["calibration_s"] == pytest.approx(30) and row["pauses_s"] == pytest.approx(2)
    assert [look["image_id"] for look in row["looks"]] == ["a", "b", "a"]
    assert run_command(["times", str(recorded.folder)]) == 0
    assert "rec-1" in capsys.readouterr().out
    (recorded.recordings_folder / "rec-1" / "times.json").unlink()
    assert run_command(["times", str(recorded.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recordings"] == [row], "read from the recording all the same"
    assert stored_times(recorded, "rec-1") is None
