"""Samples that came repeated, out of order, empty, or by a clock that leapt: kept as they came, read in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gaze_capture.archive import write_archive
from gaze_capture.certificate import certify
from gaze_capture.fixations import fixations_of
from gaze_capture.recording import Placement, Samples, pack_samples
from gaze_capture.recording_codec import RecordingHeader, RecordingWriter, read_recording, recover
from gaze_capture.session_times import times_of
from gaze_capture.simulate import DESK_SCREEN
from gaze_capture.storage import read_json

HZ = 250.0


def samples_at(time_ns: np.ndarray, *, seen: bool = True) -> Samples:
    count = len(time_ns)
    xy = np.full((count, 2), 0.5 if seen else np.nan)
    return pack_samples(time_ns.astype(np.int64), time_ns.astype(np.int64), xy, xy, np.full((count, 2), 3.0))


def block(start_ms: float, count: int = 50) -> np.ndarray:
    return np.round((start_ms + np.arange(count) * 1000 / HZ) * 1e6).astype(np.int64)


def recorded(folder: Path, blocks: list[Samples]) -> None:
    header = RecordingHeader("r", "anna", "tobii", DESK_SCREEN, "2026-11-26T10:00:00+00:00")
    with RecordingWriter(folder, header) as writer:
        times = np.concatenate([one["time_ns"] for one in blocks])
        view = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
        shown = Placement("a", None, int(times.min()), 0, view, (0, 0, 1920, 1080))
        number = writer.start_placement(shown)
        for one in blocks:
            writer.add_samples(one)
        writer.end_placement(number, int(times.max()), "present")


@pytest.mark.parametrize(
    ("blocks", "out_of_order"),
    [
        ([block(0), block(0), block(200)], 50),
        ([block(0), block(400), block(200)], 50),
        ([block(0), block(3_600_000), block(3_600_200)], 0),
        ([block(10_000), block(10_200), block(0)], 50),
    ],
    ids=["repeated", "reordered", "slept for an hour", "clock set back"],
)
def test_all_is_kept_and_read_in_order(tmp_path: Path, blocks: list[np.ndarray], out_of_order: int) -> None:
    folder = tmp_path / "r"
    recorded(folder, [samples_at(one) for one in blocks])
    raw = read_recording(folder, raw=True)
    assert (raw.time_ns == np.concatenate(blocks)).all()
    recording = read_recording(folder)
    assert (np.diff(recording.time_ns) > 0).all()
    assert recording.notes.get("out_of_order", 0) == out_of_order
    assert len(recording.time_ns) == 150 - out_of_order
    write_archive(folder)
    pyarrow = pytest.importorskip("pyarrow.parquet")
    assert pyarrow.read_table(folder / "gaze.parquet").num_rows == 150, "the archive is as raw as the frames"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    starts=st.lists(st.floats(-5_000, 10_000_000, allow_nan=False), min_size=1, max_size=8),
    seen=st.lists(st.booleans(), min_size=8, max_size=8),
    sizes=st.lists(st.integers(1, 400), min_size=8, max_size=8),
)
def test_whatever_comes_can_be_measured(
    tmp_path_factory: pytest.TempPathFactory, starts: list[float], seen: list[bool], sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("bad") / "r"
    blocks = [
        samples_at(block(start, size), seen=eye)
        for start, size, eye in zip(starts, sizes, seen, strict=False)
    ]
    recorded(folder, blocks)
    assert recover(folder).stored == sum(map(len, blocks))
    recording = read_recording(folder)
    for found in fixations_of(recording):
        assert (found.duration_ms > 0).all()
        assert (np.diff(found.start_ms) >= 0).all()
    assert sum(times_of(recording).parts().values()) == pytest.approx(times_of(recording).total_s)
    certificate = certify(recording, read_json(folder / "recording.json"))
    assert certificate.to_json()
