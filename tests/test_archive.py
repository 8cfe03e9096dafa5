import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from gaze_capture.archive import needs_archive, write_archive
from gaze_capture.certificate import certificate_of, changed_files, conclude, read_certificate
from gaze_capture.errors import UserError
from gaze_capture.headless import record_headless
from gaze_capture.recording import SAMPLE, Samples
from gaze_capture.recording_codec import RecordingWriter, read_recording
from gaze_capture.storage import read_json, sha256_of, write_json_atomic
from gaze_capture.trackers.replay import ReplayTracker
from gaze_capture.trackers.tracker import ClockOffset
from segmentation import steps
from segmentation.study import Study
from segmentation.verification import verify
from tests.gaze_support import START_NS, record_looks
from tests.test_recording_codec import HEADER, PLACEMENT, samples, write

parquet = pytest.importorskip("pyarrow.parquet")


def odd_samples() -> Samples:
    """Return samples with odd bits: NaN of different payloads, infinity, negative zero, denormals, extreme times."""
    block = samples(2000)
    odd = np.array([0x7FC00000, 0x7FC00001, 0xFFC12345, 0x7F800000, 0x80000000, 1], np.uint32)
    block["left_x"][:6] = odd.view(np.float32)
    block["pupil_right"][7:13] = odd.view(np.float32)
    block["device_time_ns"][-1] = np.iinfo(np.int64).max
    block["device_time_ns"][-2] = np.iinfo(np.int64).min
    return block


def archived_samples(folder: Path) -> Samples:
    table = parquet.read_table(folder / "gaze.parquet")
    assert table.column_names == list(SAMPLE.names or ())
    found = np.empty(table.num_rows, SAMPLE)
    for name in table.column_names:
        assert table[name].null_count == 0
        found[name] = table[name].to_numpy()
    return found


def test_an_archive_holds_the_samples_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaze_capture.archive._ROWS_AT_A_TIME", 700)
    with RecordingWriter(tmp_path / "r", HEADER) as writer:
        number = writer.start_placement(PLACEMENT)
        writer.add_samples(odd_samples())
        writer.end_placement(number, 50_000_000, "present")
        writer.add_event("drift", 5, {"distance_deg": 0.5, "verdict": "ok"})
    before = (tmp_path / "r/gaze.frames").read_bytes()
    write_archive(tmp_path / "r")

    recording = read_recording(tmp_path / "r")
    found = archived_samples(tmp_path / "r")
    assert found.tobytes() == recording.samples.tobytes() == odd_samples().tobytes()
    assert (tmp_path / "r/gaze.frames").read_bytes() == before
    assert parquet.ParquetFile(tmp_path / "r/gaze.parquet").num_row_groups == 3

    schema = parquet.read_schema(tmp_path / "r/gaze.parquet")
    assert {field.name: field.metadata[b"unit"].decode() for field in schema} == {
        "time_ns": "ns", "device_time_ns": "ns",
        "left_x": "share of the screen's width", "left_y": "share of the screen's height",
        "right_x": "share of the screen's width", "right_y": "share of the screen's height",
        "pupil_left": "mm", "pupil_right": "mm",
    }  # fmt: skip
    facts = {name: schema.metadata[name.encode()].decode() for name in ("header", "placements", "events")}
    header, placements, events = (json.loads(text) for text in facts.values())
    assert (header["annotator"], header["simulated_from"]) == ("änna", "masks")
    assert header["geometry"]["viewing_distance_mm"] == 650.0
    [placement] = placements
    assert placement["image_from_screen"] == PLACEMENT.image_from_screen.tolist()
    assert (placement["presence"], placement["end_ns"]) == ("present", 50_000_000)
    assert events == [{"time_ns": 5, "kind": "drift", "values": {"distance_deg": 0.5, "verdict": "ok"}}]

    hashes = read_json(tmp_path / "r/recording.json")["sha256"]
    assert hashes == {name: sha256_of(tmp_path / "r" / name) for name in ("gaze.frames", "gaze.parquet")}
    assert not needs_archive(tmp_path / "r")


def test_a_recording_without_samples_is_archived(tmp_path: Path) -> None:
    RecordingWriter(tmp_path / "r", HEADER).close()
    write_archive(tmp_path / "r")
    assert len(archived_samples(tmp_path / "r")) == 0


def test_recording_without_a_window_archives_and_certifies(tmp_path: Path) -> None:
    seen = record_looks(tmp_path / "seen", [("a", 0.1, 0.4)])
    tracker = ReplayTracker(seen, speed=5)
    tracker.clock = ClockOffset(offset_ns=-7_000, uncertainty_ns=400, measured_ns=START_NS)
    result = record_headless(tmp_path / "again", tracker, "ann")
    assert {path.name for path in (tmp_path / "again").iterdir()} == {
        "gaze.frames", "gaze.parquet", "recording.json", "certificate.json",
    }  # fmt: skip
    assert (
        archived_samples(tmp_path / "again").tobytes() == read_recording(tmp_path / "again").samples.tobytes()
    )
    certificate = read_certificate(tmp_path / "again")
    assert certificate is not None and certificate.samples["stored"] == result.stored
    clocks = certificate.clocks
    assert (clocks.offset_ns, clocks.uncertainty_ns, clocks.measurements) == (-7_000, 400, 1)
    assert changed_files(tmp_path / "again", certificate) == []


def test_without_pyarrow_the_recording_is_whole_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.create(tmp_path / "study")
    folder = study.new_recording_folder("r")
    write(folder)
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, "pyarrow", None)
        conclude(folder)
        [(name, reason)] = steps.recover_recordings(study).failed
    assert name == "r" and "pip install pyarrow" in reason
    assert read_json(folder / "recording.json")["archive_failed"] == reason
    certificate = read_certificate(folder)
    assert certificate is not None and certificate.archive_failed == reason
    assert certificate.sha256 == {"gaze.frames": sha256_of(folder / "gaze.frames")}
    assert not [problem for problem in verify(study).problems if "img1" not in problem.problem]

    report = steps.recover_recordings(study)
    assert (report.recovered, report.failed, report.archived) == ((), (), ("r",))
    assert "archive_failed" not in read_json(folder / "recording.json")
    certificate = read_certificate(folder)
    assert certificate is not None and certificate.archive_failed is None and len(certificate.sha256) == 2
    assert steps.recover_recordings(study).archived == (), "once is enough"


@pytest.mark.parametrize("damage", ["missing", "torn", "unnoted", "uncertified"])
def test_recover_makes_a_missing_or_torn_archive_again(tmp_path: Path, damage: str) -> None:
    study = Study.create(tmp_path / "study")
    folder = study.new_recording_folder("r")
    write(folder)
    conclude(folder)
    archive = folder / "gaze.parquet"
    whole = archive.read_bytes()
    if damage == "missing":
        archive.unlink()
    elif damage == "torn":
        archive.write_bytes(whole[: len(whole) // 2])
    elif damage == "unnoted":
        # As a crash between the two files leaves it.
        summary = read_json(folder / "recording.json")
        del summary["sha256"]["gaze.parquet"]
        write_json_atomic(folder / "recording.json", summary)
    else:
        (folder / "certificate.json").unlink()
    assert steps.recover_recordings(study).archived == ("r",)
    assert archive.read_bytes() == whole
    assert not needs_archive(folder) and changed_files(folder, certificate_of(folder)) == []


def test_a_recording_that_was_cut_off_is_archived_when_recovered(tmp_path: Path) -> None:
    study = Study.create(tmp_path / "study")
    folder = study.new_recording_folder("r")
    write(folder)
    (folder / "recording.json").unlink()
    frames = folder / "gaze.frames"
    frames.write_bytes(frames.read_bytes()[:-100])
    report = steps.recover_recordings(study)
    assert [item.recording for item in report.recovered] == [HEADER.id] and report.archived == ("r",)
    assert archived_samples(folder).tobytes() == read_recording(folder).samples.tobytes()
    certificate = certificate_of(folder)
    assert certificate.recovered is not None
    assert certificate.recovered["lost_bytes"] == report.recovered[0].lost_bytes > 0
    assert certificate.samples["expected"] is None, "nobody could say how many should have come"
    assert certificate.sha256 == {name: sha256_of(folder / name) for name in ("gaze.frames", "gaze.parquet")}


def test_what_was_changed_is_neither_archived_nor_certified(tmp_path: Path) -> None:
    write(tmp_path / "r")
    data = bytearray((tmp_path / "r/gaze.frames").read_bytes())
    data[-1] ^= 1
    (tmp_path / "r/gaze.frames").write_bytes(data)
    for make in (write_archive, certificate_of):
        with pytest.raises(UserError, match=r"gaze\.frames is not what was recorded"):
            make(tmp_path / "r")
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"gaze.frames", "recording.json"}


def test_a_damaged_certificate_says_how_to_make_it_again(tmp_path: Path) -> None:
    write(tmp_path / "r")
    conclude(tmp_path / "r")
    values = read_json(tmp_path / "r/certificate.json")
    damaged: tuple[object, ...] = ({"schema": 1}, [], {**values, "gaps": {"count": 1}})
    for wrong in damaged:
        write_json_atomic(tmp_path / "r/certificate.json", wrong)
        with pytest.raises(UserError, match="gaze-insight recover"):
            read_certificate(tmp_path / "r")
    write_json_atomic(tmp_path / "r/certificate.json", {**values, "schema": 99})
    with pytest.raises(UserError, match="newer Gaze Insight"):
        read_certificate(tmp_path / "r")


FULL_DISK = """
    import resource, signal, sys
    from pathlib import Path
    import pyarrow.parquet
    from gaze_capture.certificate import conclude

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
    conclude(Path(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are of Unix")
@pytest.mark.parametrize("room", [4096, 200])
def test_a_full_disk_while_archiving_leaves_the_recording_intact(tmp_path: Path, room: int) -> None:
    """With some room recording.json says why; with none, not even that can be written."""
    folder = tmp_path / "r"
    with RecordingWriter(folder, HEADER) as writer:
        writer.add_samples(samples(5000))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(folder), str(room)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "gaze.frames").read_bytes() == before["gaze.frames"]
    assert len(read_recording(folder).time_ns) == 5000
    assert not (folder / "gaze.parquet").exists() and not list(folder.glob(".*")), "no half of a file stays"
    if room == 200:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    else:
        assert "gaze.parquet" in read_json(folder / "recording.json")["archive_failed"]
        certificate = read_certificate(folder)
        assert certificate is not None and certificate.archive_failed
    write_archive(folder)
    assert archived_samples(folder).tobytes() == samples(5000).tobytes()
