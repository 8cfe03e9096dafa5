from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.drift_correction import correction_of, read_correction, write_correction
from gaze_capture.errors import UserError
from gaze_capture.storage import sha256_of
from segmentation.drift import correct_drift
from segmentation.study import Study
from tests.gaze_support import Event, add_images, ns, record_in, record_looks


def drift(moment: float, x: float, y: float) -> Event:
    return "drift", moment, {"x": 0.5, "y": 0.5, "offset_deg": [x, y], "distance_deg": float(np.hypot(x, y))}


def test_offsets_change_linearly_between_checks_and_begin_anew_at_a_calibration(tmp_path: Path) -> None:
    events: list[Event] = [
        ("calibration", 0.0, {"eyes": "both"}),
        drift(4.0, 1.0, -0.5),
        drift(8.0, 2.0, 0.5),
        ("calibration", 10.0, {"eyes": "both"}),
        drift(12.0, 0.0, 1.0),
    ]
    correction = correction_of(record_looks(tmp_path / "r", [("a", 1, 13)], events))
    moments = np.array([ns(at) for at in (0, 2, 4, 6, 8, 9.9, 10, 11, 12, 13)])
    assert correction.offsets_at(moments) == pytest.approx(
        np.array(
            [[0, 0], [0.5, -0.25], [1, -0.5], [1.5, 0], [2, 0.5], [2, 0.5], [0, 0], [0, 0.5], [0, 1], [0, 1]]
        ),
        abs=1e-6,
    )
    assert correction.checks == 3
    write_correction(tmp_path / "r", correction)
    assert read_correction(tmp_path / "r") == correction


def test_without_a_check_there_is_nothing_to_correct_by(tmp_path: Path) -> None:
    recording = record_looks(tmp_path / "r", [("a", 1, 3)])
    with pytest.raises(UserError, match="has no drift check"):
        correction_of(recording)
    (tmp_path / "r" / "correction.json").write_text('{"schema": 1, "time_ns": [2, 1]}')
    with pytest.raises(UserError, match="Make it again"):
        read_correction(tmp_path / "r")


@pytest.mark.parametrize("method", ["constant", "linear"])
def test_correcting_moves_fixations_back_and_leaves_the_raw_gaze(
    study: Study, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    add_images(study, ["a"])
    record_in(study, "rec-0", [("a", 1, 8)])
    true = study.fixations["a", "target"][0].xy_px
    (study.recordings_folder / "rec-0" / "fixations.csv").unlink()
    record_in(study, "rec-1", [("a", 1, 8)], [drift(8.1, 0.9, -0.6)], offset_deg=(0.9, -0.6))
    frames = study.recordings_folder / "rec-1" / "gaze.frames"
    before, raw = study.fixations["a", "target"][0].xy_px, sha256_of(frames)
    assert np.abs(before - true).mean() > 15
    command = ["correct-drift", str(study.folder), "rec-1", "--method", method, "--json"]
    assert run_command(command) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["mean_offset_deg"] == pytest.approx([0.9, -0.6], abs=0.01) and values["checks"] == 1
    study.refresh()
    [corrected] = study.fixations["a", "target"]
    assert corrected.xy_px == pytest.approx(true, abs=0.5)
    assert corrected.parameters["drift_correction_x_deg"] == pytest.approx(0.9, abs=0.01)
    assert sha256_of(frames) == raw
    assert run_command(["correct-drift", str(study.folder), "rec-1", "--remove"]) == 0
    assert "0.90° to the right and 0.60° up" in capsys.readouterr().out
    study.refresh()
    assert study.fixations["a", "target"][0].xy_px == pytest.approx(before)
    with pytest.raises(UserError, match="no drift correction to remove"):
        correct_drift(study, "rec-1", remove=True)
    with pytest.raises(UserError, match="no recording 'rec-9'"):
        correct_drift(study, "rec-9")
