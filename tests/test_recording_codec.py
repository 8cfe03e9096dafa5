import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaze_capture import frames as frames_module
from gaze_capture import recording_codec
from gaze_capture.errors import UserError
from gaze_capture.recording import SAMPLE, Calibration, Placement, Samples, ScreenGeometry, pack_samples
from gaze_capture.recording_codec import (
    RecordingHeader,
    RecordingWriter,
    needs_recovery,
    read_recording,
    recover,
)
from gaze_capture.storage import sha256_of

HEADER = RecordingHeader(
    id="20260101-abc",
    annotator="änna",
    tracker="simulated",
    geometry=ScreenGeometry(1920, 1080, 527.0, 296.0, 650.0),
    started_utc="2026-01-01T10:00:00+00:00",
    calibration=Calibration(5, 0.4, 0.7, 0.1, 0.0),
    simulated_from="masks",
    notes={"rate_hz": 120},
)
PLACEMENT = Placement(
    "img1",
    "polyp",
    1_000,
    0,
    np.array([[0.5, 0, 3], [0, 0.5, 7.25], [0, 0, 1]]),
    (0, 10, 1900, 1000),
    (40.0, 400.0),
)


def samples(count: int, first: int = 0) -> Samples:
    number = np.arange(first, first + count)
    rng = np.random.default_rng(first)
    eyes = rng.normal(0.5, 0.2, (2, count, 2))
    eyes[0, ::7] = np.nan
    return pack_samples(
        number * 1_000_000 + 1_000, number * 1_000_000 - 5, eyes[0], eyes[1], rng.normal(3, 0.1, (count, 2))
    )


def write(folder: Path, blocks: int = 10) -> None:
    with RecordingWriter(folder, HEADER) as writer:
        number = writer.start_placement(PLACEMENT)
        for block in range(blocks):
            writer.add_samples(samples(10, block * 10))
        writer.end_placement(number, 50_000_000, "present")
        writer.start_placement(PLACEMENT)


def test_everything_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "recordings" / "r"
    with RecordingWriter(folder, HEADER) as writer:
        first = writer.start_placement(PLACEMENT)
        for block in range(10):
            writer.add_samples(samples(10, block * 10))
        writer.add_samples(samples(0))
        writer.end_placement(first, 50_000_000, "present")
        writer.start_placement(PLACEMENT)
        counts = writer.close(expected=120)
    assert (counts.expected, counts.received, counts.stored) == (120, 100, 100)
    assert writer.close() == counts

    recording = read_recording(folder)
    for name in (
        "id",
        "annotator",
        "tracker",
        "geometry",
        "calibration",
        "started_utc",
        "simulated_from",
        "notes",
    ):
        assert getattr(recording, name) == getattr(HEADER, name)
    expected = np.concatenate([samples(10, block * 10) for block in range(10)])
    assert recording.samples.tobytes() == expected.tobytes()
    assert recording.left_xy.dtype == np.float32
    one, two = recording.placements
    assert (one.image_id, one.target_id, one.start_ns, one.end_ns) == ("img1", "polyp", 1_000, 50_000_000)
    assert (one.presence, one.viewport_px, one.window_level) == (
        "present",
        (0, 10, 1900, 1000),
        (40.0, 400.0),
    )
    np.testing.assert_array_equal(one.image_from_screen, PLACEMENT.image_from_screen)
    # Closing ends what is open with the last sample.
    assert (two.end_ns, two.presence) == (99_001_000, None)

    summary = json.loads((folder / "recording.json").read_text())
    assert summary["samples"] == {"expected": 120, "received": 100, "stored": 100}
    assert summary["sha256"]["gaze.frames"] == sha256_of(folder / "gaze.frames")
    assert summary["duration_s"] == pytest.approx(0.099)
    assert summary["annotator"] == "änna"
    assert not needs_recovery(folder)


def test_what_was_handed_over_is_soon_with_the_operating_system(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "r", HEADER) as writer:
        for block in range(3):
            writer.add_samples(samples(10, block * 10))
            deadline = time.monotonic() + 5
            handed_over = time.monotonic()
            while len(read_recording(tmp_path / "r").time_ns) < (block + 1) * 10:
                assert time.monotonic() < deadline
            # 100 ms are promised; a busy test machine gets more.
            assert time.monotonic() - handed_over < 1.0
        assert read_recording(tmp_path / "r").notes["cut_off"] is True


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "r")
    before = (tmp_path / "r/gaze.frames").read_bytes()
    with pytest.raises(UserError, match="never overwritten"):
        RecordingWriter(tmp_path / "r", HEADER)
    assert (tmp_path / "r/gaze.frames").read_bytes() == before


def test_using_a_closed_or_wrongly_typed_writer_is_a_programming_error(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", HEADER)
    with pytest.raises(ValueError, match="dtype"):
        writer.add_samples(np.zeros(3, dtype=[("x", "f8")]))
    writer.close()
    with pytest.raises(RuntimeError, match="closed"):
        writer.add_samples(samples(1))


def test_a_recording_without_samples_is_a_recording(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "r", HEADER) as writer:
        writer.start_placement(PLACEMENT)
    recording = read_recording(tmp_path / "r")
    assert recording.left_xy.shape == (0, 2)
    assert recording.placements[0].end_ns == PLACEMENT.start_ns


# Crashes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole") / "r"
    with RecordingWriter(folder, HEADER) as writer:
        for block in range(6):
            writer.start_placement(PLACEMENT) if block == 0 else None
            writer.add_samples(samples(5, block * 5))
            while writer.stored < (block + 1) * 5:
                time.sleep(0.001)
    return (folder / "gaze.frames").read_bytes()


def frame_ends(data: bytes) -> list[int]:
    return [end for _, _, end in frames_module.frames(data, len(recording_codec.MAGIC))]


def test_a_file_cut_anywhere_is_read_up_to_the_last_whole_frame(tmp_path: Path, whole: bytes) -> None:
    ends = frame_ends(whole)
    # header, placement, six blocks, end of the placement, end
    assert len(ends) == 10
    folder = tmp_path / "r"
    folder.mkdir()
    for length in sorted({*range(ends[0], len(whole), 4), *ends[:-1]}):
        (folder / "gaze.frames").write_bytes(whole[:length])
        recording = read_recording(folder)
        assert len(recording.time_ns) == 5 * sum(end <= length for end in ends[2:8])
        kept = max(end for end in ends if end <= length)
        assert recording.notes.get("lost_bytes", 0) == length - kept
        assert recording.notes["cut_off"] is True


@pytest.mark.parametrize("junk", [b"\x00" * 300, b"\xff" * 300, bytes(range(200))])
def test_junk_at_the_end_is_dropped_and_told(tmp_path: Path, whole: bytes, junk: bytes) -> None:
    (tmp_path / "gaze.frames").write_bytes(whole + junk)
    recording = read_recording(tmp_path)
    assert len(recording.time_ns) == 30
    assert recording.notes["lost_bytes"] == len(junk)
    assert "cut_off" not in recording.notes


def test_damage_in_the_middle_costs_only_its_own_frame(tmp_path: Path, whole: bytes) -> None:
    data = bytearray(whole)
    data[frame_ends(whole)[4] - 3] ^= 0x10
    (tmp_path / "gaze.frames").write_bytes(data)
    recording = read_recording(tmp_path)
    assert len(recording.time_ns) == 25
    assert recording.notes["damaged_frames"] == 1
    assert "lost_bytes" not in recording.notes
    assert recover(tmp_path).stored == 25
    assert (tmp_path / "gaze.frames").read_bytes() == data


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: b"", "holds no recording"),
        (lambda data: data[:5], "holds no recording"),
        (lambda data: b"PNG" + data, "not a recording"),
        (lambda data: data[:30], "header cannot be read"),
        (lambda data: data[:20] + b"!" + data[21:], "header cannot be read"),
        (lambda data: data[:8] + frames_module.frame(0, b"[1]") + data[8:], "is damaged"),
        (lambda data: data[:8] + frames_module.frame(0, b'{"schema": 99}') + data[8:], "newer Gaze Insight"),
        (lambda data: data[:8] + frames_module.frame(0, b'{"schema": 1, "x": 2}'), "is damaged"),
    ],
)
def test_a_damaged_header_is_told(tmp_path: Path, whole: bytes, change: Any, told: str) -> None:
    (tmp_path / "gaze.frames").write_bytes(change(whole))
    with pytest.raises(UserError, match=told) as caught:
        read_recording(tmp_path)
    assert "gaze.frames" in str(caught.value)
    with pytest.raises(UserError, match=told):
        recover(tmp_path)


def test_a_missing_recording_is_told(tmp_path: Path) -> None:
    for attempt in (read_recording, recover):
        with pytest.raises(UserError, match=r"gaze\.frames"):
            attempt(tmp_path)


def test_recovery_cuts_closes_and_sums_up(tmp_path: Path, whole: bytes) -> None:
    cut = frame_ends(whole)[5] + 17
    (tmp_path / "gaze.frames").write_bytes(whole[:cut])
    assert needs_recovery(tmp_path)
    saved = recover(tmp_path)
    assert (saved.recording, saved.stored, saved.lost_bytes) == (HEADER.id, 20, 17)
    assert saved.last_time_ns == 19 * 1_000_000 + 1_000
    assert not needs_recovery(tmp_path)
    assert (tmp_path / "gaze.tail").read_bytes() == whole[cut - 17 : cut]

    recording = read_recording(tmp_path)
    assert recording.notes == HEADER.notes
    assert len(recording.time_ns) == 20
    assert recording.placements[0].end_ns == saved.last_time_ns
    summary = json.loads((tmp_path / "recording.json").read_text())
    assert summary["samples"]["stored"] == 20
    assert summary["recovered"]["lost_bytes"] == 17
    assert summary["sha256"]["gaze.frames"] == sha256_of(tmp_path / "gaze.frames")

    before = (tmp_path / "gaze.frames").read_bytes()
    assert recover(tmp_path).stored == 20
    assert (tmp_path / "gaze.frames").read_bytes() == before


def test_a_recording_under_way_is_not_recovered(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "r", HEADER) as writer:
        writer.add_samples(samples(5))
        with pytest.raises(UserError, match="being recorded right now"):
            recover(tmp_path / "r")
    assert len(read_recording(tmp_path / "r").time_ns) == 5


RECORD_FOREVER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    import numpy as np
    from gaze_capture.recording import Placement, ScreenGeometry, pack_samples
    from gaze_capture.recording_codec import RecordingHeader, RecordingWriter

    header = RecordingHeader("r", "a", "test", ScreenGeometry(100, 100, 50.0, 50.0, 600.0), "2026-01-01T00:00:00+00:00")
    writer = RecordingWriter(Path(sys.argv[1]), header)
    writer.start_placement(Placement("img", None, time.monotonic_ns(), 0, np.eye(3), (0, 0, 100, 100)))
    half = np.full((1, 2), 0.5)
    while True:
        now = time.monotonic_ns()
        writer.add_samples(pack_samples(np.array([now]), np.array([now]), half, half, half))
        print(now, flush=True)
        time.sleep(0.001)
""")


def killed_recording(folder: Path, seconds: float) -> int:
    """Record in a process of its own, kill it, and return the time of the last sample it acknowledged."""
    script = folder.with_suffix(".py")
    script.write_text(RECORD_FOREVER)
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    with process.stdout:
        first = int(process.stdout.readline())
        for line in process.stdout:
            if int(line) > first + seconds * 1e9:
                break
        process.send_signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        # A sample counts as acknowledged when its line came out.
        last = [int(line), *(int(rest) for rest in process.stdout if rest.endswith("\n"))][-1]
    process.wait()
    return last


@pytest.mark.parametrize("seconds", [0.35, 0.6])
def test_kill_9_loses_at_most_a_quarter_second(tmp_path: Path, seconds: float) -> None:
    last = killed_recording(tmp_path / "r", seconds)
    assert needs_recovery(tmp_path / "r")
    saved = recover(tmp_path / "r")
    assert saved.stored > 50
    assert saved.last_time_ns is not None
    assert last - saved.last_time_ns < 250e6
    recording = read_recording(tmp_path / "r")
    assert "cut_off" not in recording.notes
    assert recording.placements[0].end_ns == saved.last_time_ns


# Failing disks


def wait_for_failure(writer: RecordingWriter) -> None:
    deadline = time.monotonic() + 10
    while writer.failure is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def fails_from_now_on(writer: RecordingWriter, told: str) -> None:
    wait_for_failure(writer)
    for _ in range(2):
        with pytest.raises(UserError, match=told):
            writer.add_samples(samples(5, 100))
        with pytest.raises(UserError, match=told):
            writer.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs privileges")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="no mount command here")
def test_a_really_full_disk(small_disk: Path) -> None:
    writer = RecordingWriter(small_disk / "r", HEADER)
    writer.add_samples(samples(100))
    while writer.stored < 100:
        time.sleep(0.005)
    writer.add_samples(samples(5000, 100))
    fails_from_now_on(writer, "disk is full")
    recording = read_recording(small_disk / "r")
    assert len(recording.time_ns) == 100
    assert "lost_bytes" not in recording.notes


def test_a_full_disk_stops_the_recording_with_everything_before_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RecordingWriter(tmp_path / "r", HEADER)
    writer.add_samples(samples(100))
    while writer.stored < 100:
        time.sleep(0.005)

    def full(descriptor: int, data: Any) -> int:
        if len(data) > 1000:
            return real(descriptor, data[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    real = os.write
    monkeypatch.setattr(os, "write", full)
    writer.add_samples(samples(100, 100))
    fails_from_now_on(writer, "disk is full")
    monkeypatch.undo()
    recording = read_recording(tmp_path / "r")
    assert len(recording.time_ns) == 100
    assert "lost_bytes" not in recording.notes
    assert recover(tmp_path / "r").stored == 100


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not remove files in use")
def test_a_removed_folder_stops_the_recording(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", HEADER)
    writer.add_samples(samples(10))
    shutil.rmtree(tmp_path / "r")
    fails_from_now_on(writer, "was removed or its drive is gone")
    assert not (tmp_path / "r").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not remove files in use")
def test_a_folder_removed_just_before_closing_is_noticed(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", HEADER)
    writer.add_samples(samples(10))
    shutil.rmtree(tmp_path / "r")
    with pytest.raises(UserError, match="was removed"):
        writer.close()


def test_a_place_that_cannot_hold_a_recording_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        RecordingWriter(tmp_path / "file" / "r", HEADER)


def test_ten_minutes_at_1200_hz_are_read_in_under_a_second(tmp_path: Path) -> None:
    many = np.concatenate([samples(1200, 1200 * index) for index in range(600)])
    assert many.dtype == SAMPLE
    with RecordingWriter(tmp_path / "r", HEADER) as writer:
        for start in range(0, len(many), 100):
            writer.add_samples(many[start : start + 100])
    started = time.perf_counter()
    recording = read_recording(tmp_path / "r")
    assert time.perf_counter() - started < 1.0
    assert len(recording.time_ns) == 720_000
