"""BIDS eye tracking, out and in: what is written comes back, and what would be a guess is refused."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations, fixations_of
from gaze_capture.formats.bids import BidsScreen, read_bids, recordings, sniff
from gaze_capture.formats.bids_writer import ShownImage, Task, write_bids_recording
from gaze_capture.recording import Calibration, Placement, Recording, ScreenGeometry
from gaze_capture.simulate import DESK_SCREEN

TASK = Task("view", "Looking.", "Look.", {"polyp": "Polyp"}, "Gaze Insight", "1.0")
STEM = "sub-A_task-view_run-01"
SHAPE = (300, 400)


def a_recording(rate_hz: float = 250.0, seconds: float = 6.0, **changes: Any) -> Recording:
    """Return gaze that rests at a new place every half second, with noise, blinks and an unsteady clock."""
    rng = np.random.default_rng(5)
    count = int(rate_hz * seconds)
    time_ns = 10**12 + np.arange(count) * round(1e9 / rate_hz) + rng.integers(0, 90_000, count)
    places = rng.uniform(0.3, 0.7, (int(seconds * 2) + 1, 2))
    centre = places[(np.arange(count) / rate_hz * 2).astype(int)]
    left = (centre + rng.normal(0, 2e-4, (count, 2))).astype(np.float32)
    right = (centre + rng.normal(0, 2e-4, (count, 2))).astype(np.float32)
    left[200:230] = np.nan
    right[210:240] = np.nan
    pupil = rng.normal(3.5, 0.1, (count, 2)).astype(np.float32)
    pupil[100:110] = np.nan
    scale = 2.5
    transform = np.array([[1 / scale, 0, -200.0], [0, 1 / scale, -60.0], [0, 0, 1]])
    first_ns, canvas = int(time_ns[0]), (0, 0, 1920, 1080)
    placements = (
        Placement(
            "a", "polyp", first_ns + 300_000_000, first_ns + 2_500_000_123, transform, canvas, None, "present"
        ),
        Placement(
            "b", None, first_ns + 2_600_000_000, first_ns + 5_900_000_000, transform, canvas, (40.0, 400.0)
        ),
    )
    values: dict[str, Any] = {
        "id": "rec-1",
        "annotator": "A",
        "tracker": "tobii",
        "geometry": DESK_SCREEN,
        "calibration": Calibration(9, 0.41, 0.8, 0.1, 0.02),
        "started_utc": "2026-01-01T00:00:00+00:00",
        "time_ns": time_ns,
        "device_time_ns": (time_ns * 1.00002).astype(np.int64) + 77,
        "left_xy": left,
        "right_xy": right,
        "pupil_mm": pupil,
        "placements": placements,
        "notes": {"rate_hz": rate_hz},
    }
    return Recording(**{**values, **changes})


def written(folder: Path, recording: Recording, fixations: list[Fixations] | None = None) -> Path:
    found = fixations_of(recording) if fixations is None else fixations
    shown = [
        ShownImage(place, f"{place.image_id} 1.png", (SHAPE[1], SHAPE[0]), None, item)
        for place, item in zip(recording.placements, found, strict=True)
    ]
    (folder / "dataset_description.json").parent.mkdir(exist_ok=True)
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.11.1"}')
    write_bids_recording(folder / "sub-A" / "beh", STEM, recording, shown, TASK)
    return folder / "sub-A" / "beh" / f"{STEM}_recording-eye1_physio.tsv.gz"


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def sidecar(physio: Path) -> Path:
    return physio.with_name(physio.name.replace(".tsv.gz", ".json"))


def events_sidecar(physio: Path) -> Path:
    return physio.with_name(f"{STEM}_events.json")


def test_samples_come_back_bit_for_bit_with_their_times(tmp_path: Path) -> None:
    recording = a_recording()
    found = read_bids(written(tmp_path, recording))
    samples = found.samples
    np.testing.assert_array_equal(samples["time_ns"], recording.time_ns - recording.time_ns[0])
    np.testing.assert_array_equal(
        samples["device_time_ns"], recording.device_time_ns - recording.device_time_ns[0]
    )
    for name, values in (
        ("left_x", recording.left_xy[:, 0]),
        ("left_y", recording.left_xy[:, 1]),
        ("right_x", recording.right_xy[:, 0]),
        ("right_y", recording.right_xy[:, 1]),
        ("pupil_left", recording.pupil_mm[:, 0]),
        ("pupil_right", recording.pupil_mm[:, 1]),
    ):
        np.testing.assert_array_equal(samples[name], values, err_msg=name)
    assert found.geometry == DESK_SCREEN
    assert (found.rate_hz, found.tracker, found.simulated_from, found.notes) == (250.0, "tobii", None, ())


def test_what_was_shown_comes_back_with_its_rectangle(tmp_path: Path) -> None:
    recording = a_recording()
    found = read_bids(written(tmp_path, recording))
    first_ns = int(recording.time_ns[0])
    assert [(item.name, item.start_ns, item.end_ns) for item in found.shown] == [
        (f"{place.image_id} 1.png", place.start_ns - first_ns, place.end_ns - first_ns)
        for place in recording.placements
    ]
    for item, place in zip(found.shown, recording.placements, strict=True):
        assert item.rect_px is not None
        left, top, width, height = item.rect_px
        corners = np.array([[left, top], [left + width, top + height]])
        image = place.image_px_from_screen_px(corners)
        np.testing.assert_allclose(image, [[-0.5, -0.5], [SHAPE[1] - 0.5, SHAPE[0] - 0.5]], atol=1e-5)


def test_fixations_come_back_on_the_screen(tmp_path: Path) -> None:
    recording = a_recording()
    stored = fixations_of(recording)
    found = read_bids(written(tmp_path, recording, stored)).fixations
    assert found is not None and set(found.eye) == {"both"}
    first_ns = recording.time_ns[0]
    start, duration, places = [], [], []
    for place, item in zip(recording.placements, stored, strict=True):
        assert len(item.start_ms) > 2
        start += list((place.start_ns - first_ns) / 1e6 + item.start_ms)
        duration += list(item.duration_ms)
        places.append(item.xy_px)
    np.testing.assert_allclose(found.start_ms, start, atol=1e-6)
    np.testing.assert_allclose(found.duration_ms, duration, atol=1e-6)
    image = recording.placements[0].image_px_from_screen_px(found.xy_px)
    np.testing.assert_allclose(image, np.concatenate(places), atol=1e-4)


def test_eyes_that_are_one_become_cyclopean_and_an_absent_eye_none(tmp_path: Path) -> None:
    recording = a_recording()
    same = a_recording(right_xy=recording.left_xy, pupil_mm=np.full_like(recording.pupil_mm, np.nan))
    physio = written(tmp_path / "same", same)
    assert json.loads(sidecar(physio).read_text())["RecordedEye"] == "cyclopean"
    samples = read_bids(physio).samples
    np.testing.assert_array_equal(samples["right_y"], same.left_xy[:, 1])

    nothing = np.full_like(recording.left_xy, np.nan)
    pupil = recording.pupil_mm.copy()
    pupil[:, 0] = np.nan
    physio = written(tmp_path / "right", a_recording(left_xy=nothing, pupil_mm=pupil))
    assert json.loads(sidecar(physio).read_text())["RecordedEye"] == "right"
    assert not physio.with_name(physio.name.replace("eye1", "eye2")).exists()
    samples = read_bids(physio).samples
    assert np.isnan(samples["left_x"]).all()
    np.testing.assert_array_equal(samples["right_x"], recording.right_xy[:, 0])


def test_simulated_gaze_says_so_in_every_file(tmp_path: Path) -> None:
    physio = written(tmp_path, a_recording(simulated_from="masks"))
    assert read_bids(physio).simulated_from == "masks"
    for file in physio.parent.glob("*.json"):
        assert "imulated from masks" in file.read_text(), file


def test_a_folder_is_sniffed_and_read_where_it_holds_one_recording(tmp_path: Path) -> None:
    physio = written(tmp_path, a_recording())
    assert sniff(tmp_path) and sniff(physio)
    assert not sniff(physio.parent) and not sniff(sidecar(physio))
    assert recordings(tmp_path) == [physio]
    assert len(read_bids(tmp_path).samples) == 1500
    write_bids_recording(physio.parent, STEM.replace("01", "02"), a_recording(), [], TASK)
    with pytest.raises(UserError, match=f"2 recordings; choose one with --stream, such as {STEM}"):
        read_bids(tmp_path)
    second = read_bids(tmp_path, recording=STEM.replace("01", "02"))
    assert (len(second.samples), second.shown) == (1500, ())
    with pytest.raises(UserError, match="no recording 'x'"):
        read_bids(tmp_path, recording="x")


def test_one_eye_may_be_chosen(tmp_path: Path) -> None:
    recording = a_recording()
    physio = written(tmp_path, recording)
    right = read_bids(physio, eye="right").samples
    assert np.isnan(right["left_x"]).all()
    np.testing.assert_array_equal(right["right_x"], recording.right_xy[:, 0])
    physio.with_name(physio.name.replace("eye1", "eye2")).unlink()
    with pytest.raises(UserError, match="without the right eye"):
        read_bids(physio, eye="right")


def test_units_may_be_said_where_the_files_do_not(tmp_path: Path) -> None:
    recording = a_recording()
    physio = written(tmp_path, recording)
    for file in physio.parent.glob("*_physio.json"):
        changed(
            file,
            lambda meta: [meta[name].pop("Units") for name in ("timestamp", "x_coordinate", "y_coordinate")],
        )
    with pytest.raises(UserError, match="Units of x_coordinate"):
        read_bids(physio, time_unit="s")
    samples = read_bids(physio, time_unit="s", coordinates="px").samples
    np.testing.assert_array_equal(samples["left_x"], recording.left_xy[:, 0])
    # Pixels taken for shares lie hundreds of screens away, where nobody looks.
    assert np.isnan(read_bids(physio, time_unit="s", coordinates="normalised").samples["left_x"]).all()
    seconds = (recording.time_ns - recording.time_ns[0]) / 1e9
    rows = "".join(
        f"{t:.9f}\t{x:.9g}\t{y:.9g}\tn/a\t0\n".replace("nan", "n/a")
        for t, (x, y) in zip(seconds, recording.left_xy.tolist(), strict=True)
    )
    physio.write_bytes(gzip.compress(rows.encode()))
    shares = read_bids(physio, time_unit="s", coordinates="normalised", eye="left").samples
    np.testing.assert_array_equal(shares["left_x"], recording.left_xy[:, 0])


def test_metadata_are_inherited_from_above(tmp_path: Path) -> None:
    """As in the standard's own examples: all of it at the top, the eye alone beside the samples."""
    beh = tmp_path / "sub-01" / "beh"
    beh.mkdir(parents=True)
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.11.1"}')
    physio = {
        "PhysioType": "eyetrack", "SampleCoordinateSystem": "gaze-on-screen", "SamplingFrequency": 1000,
        "Columns": ["timestamp", "x_coordinate", "y_coordinate", "pupil_size"],
        "timestamp": {"Units": "ms"}, "x_coordinate": {"Units": "pixel"}, "y_coordinate": {"Units": "pixel"},
        "pupil_size": {"Units": "a.u.", "Description": "Pupil area"}, "Manufacturer": "SR-Research",
    }  # fmt: skip
    (tmp_path / "task-FreeView_physio.json").write_text(json.dumps(physio))
    events = {
        "OnsetSource": "timestamp",
        "StimulusPresentation": {
            "ScreenDistance": 0.6, "ScreenOrigin": ["top", "left"], "ScreenSize": [0.7, 0.4],
            "ScreenResolution": [2000, 1000],
        },
    }  # fmt: skip
    (tmp_path / "task-FreeView_events.json").write_text(json.dumps(events))
    physioevents = {
        "Columns": ["onset", "duration", "trial_type", "blink", "message"], "OnsetSource": "timestamp",
    }  # fmt: skip
    (tmp_path / "task-FreeView_physioevents.json").write_text(json.dumps(physioevents))
    stem = "sub-01_task-FreeView_run-01"
    (beh / f"{stem}_recording-eye1_physio.json").write_text('{"RecordedEye": "left", "StartTime": 0}')
    rows = "".join(f"{7_186_000 + n}\t{1000 + n}\t250\t4612\n" for n in range(400))
    (beh / f"{stem}_recording-eye1_physio.tsv.gz").write_bytes(gzip.compress(rows.encode()))
    tracker = '7185990\tn/a\tn/a\tn/a\t"RECCFG CR"\n7186100\t200\tfixation\t0\tn/a\n'
    (beh / f"{stem}_recording-eye1_physioevents.tsv.gz").write_bytes(gzip.compress(tracker.encode()))
    (beh / f"{stem}_events.tsv").write_text("onset\tduration\tstim_file\n7186.05\t0.3\tcat.jpg\n")

    found = read_bids(beh / f"{stem}_recording-eye1_physio.tsv.gz")
    np.testing.assert_allclose(found.samples["left_x"][:2], [0.5, 0.5005])
    assert np.isnan(found.samples["right_x"]).all() and np.isnan(found.samples["pupil_left"]).all()
    np.testing.assert_array_equal(found.samples["time_ns"][:2], [0, 1_000_000])
    # The tracker wrote milliseconds where the standard wants seconds; 200 s are no fixation.
    assert found.fixations is not None
    np.testing.assert_allclose(found.fixations.start_ms, [100])
    np.testing.assert_allclose(found.fixations.duration_ms, [200])
    np.testing.assert_allclose(found.fixations.xy_px, [[1199.5, 250]], atol=1e-3)
    assert found.fixations.eye == ("left",)
    assert [(item.name, item.start_ns) for item in found.shown] == [("cat.jpg", 50_000_000)]
    assert found.messages == ((-10_000_000, "RECCFG CR"),)
    assert found.tracker == "SR-Research"
    assert "a.u." in found.notes[0]


@pytest.mark.parametrize("unit", ["degree", "mm", "cm"])
def test_other_units_are_brought_to_the_screen(tmp_path: Path, unit: str) -> None:
    recording = a_recording()
    physio = written(tmp_path, recording)
    normalised = recording.left_xy.astype(np.float64)
    values = {
        "degree": DESK_SCREEN.degrees_from_normalised(normalised),
        "mm": normalised * [527, 296],
        "cm": normalised * [52.7, 29.6],
    }[unit]
    seconds = (recording.time_ns - recording.time_ns[0]) / 1e9
    rows = "".join(
        f"{t:.9f}\t{x:.9f}\t{y:.9f}\tn/a\t0\n".replace("nan", "n/a")
        for t, (x, y) in zip(seconds, values, strict=True)
    )
    physio.write_bytes(gzip.compress(rows.encode()))
    for name in ("x_coordinate", "y_coordinate"):
        changed(sidecar(physio), lambda meta, name=name: meta[name].update(Units=unit))  # type: ignore[misc]
    np.testing.assert_allclose(read_bids(physio).samples["left_x"], recording.left_xy[:, 0], atol=1e-6)
    np.testing.assert_allclose(read_bids(physio).samples["left_y"], recording.left_xy[:, 1], atol=1e-6)


def test_coordinates_may_begin_in_the_middle_or_at_the_bottom(tmp_path: Path) -> None:
    recording = a_recording()
    physio = written(tmp_path, recording)

    def begin(*words: str) -> Callable[[dict[str, Any]], object]:
        return lambda meta: meta["StimulusPresentation"].update(ScreenOrigin=list(words))

    changed(events_sidecar(physio), begin("center", "center"))
    assert "y was taken to grow downwards" in read_bids(physio).notes[0]
    np.testing.assert_allclose(read_bids(physio).samples["left_y"], recording.left_xy[:, 1] + 0.5, rtol=1e-6)
    changed(events_sidecar(physio), begin("bottom", "left"))
    np.testing.assert_allclose(read_bids(physio).samples["left_y"], 1 - recording.left_xy[:, 1], rtol=1e-6)
    changed(events_sidecar(physio), begin("top", "right"))
    with pytest.raises(UserError, match="ScreenOrigin"):
        read_bids(physio)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta.pop("SamplingFrequency"), "no SamplingFrequency in Hz"),
        (lambda meta: meta.update(SamplingFrequency=1000), "timestamps advance by 0.004 s a sample"),
        (lambda meta: meta["timestamp"].pop("Units"), "no Units for timestamp"),
        (lambda meta: meta["timestamp"].update(Units="ticks"), "'ticks'"),
        (lambda meta: meta["Columns"].__setitem__(0, "time"), "lack 'timestamp'"),
        (lambda meta: meta["Columns"].pop(), "line 1: 5 cells instead of the 4"),
        (lambda meta: meta["x_coordinate"].update(Units="furlong"), "Units of x_coordinate"),
        (lambda meta: meta["x_coordinate"].update(Units="mm"), "Units of x_coordinate"),
        (lambda meta: meta.update(SampleCoordinateSystem="eye-in-head"), "eye-in-head"),
        (lambda meta: meta.update(RecordedEye="middle"), "middle"),
        (lambda meta: meta.update(RecordedEye="right"), "two of its files"),
    ],
)
def test_what_would_be_a_guess_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    physio = written(tmp_path, a_recording())
    changed(sidecar(physio), change)
    with pytest.raises(UserError, match=message):
        read_bids(physio)


def test_the_screen_must_be_known(tmp_path: Path) -> None:
    physio = written(tmp_path, a_recording())
    changed(events_sidecar(physio), lambda meta: meta["StimulusPresentation"].update(ScreenDistance=60))
    with pytest.raises(UserError, match="cannot be metres"):
        read_bids(physio)
    assert read_bids(physio, BidsScreen(distance_mm=600)).geometry.viewing_distance_mm == 600
    changed(events_sidecar(physio), lambda meta: meta.pop("StimulusPresentation"))
    with pytest.raises(UserError, match=r"resolution and size and distance are not in .* --screen-px"):
        read_bids(physio)
    given = BidsScreen((1920, 1080), (527.0, 296.0), 650.0)
    assert read_bids(physio, given).geometry == ScreenGeometry(1920, 1080, 527.0, 296.0, 650.0)


def test_damage_is_named(tmp_path: Path) -> None:
    physio = written(tmp_path, a_recording())
    whole = physio.read_bytes()
    physio.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is damaged"):
        read_bids(physio)
    text = gzip.decompress(whole).decode().splitlines()
    text[7] = text[7].replace("\t", "\tx", 1)
    physio.write_bytes(gzip.compress("\n".join(text).encode()))
    with pytest.raises(UserError, match="line 8: 'x"):
        read_bids(physio)
    text[7], text[8] = text[9], text[3]
    physio.write_bytes(gzip.compress("\n".join(text).encode()))
    with pytest.raises(UserError, match="backwards"):
        read_bids(physio)


ODD_VALUES: list[Any] = [
    None,
    True,
    -1,
    1e308,
    float("nan"),
    "x",
    "n/a",
    [],
    ["a", 1],
    {},
    {"Units": 3},
    ["top"],
]


def test_damaged_files_are_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    recording = a_recording(rate_hz=60, seconds=3)
    whole = tmp_path / "whole"
    physio = written(whole, dataclasses.replace(recording, placements=recording.placements[:1]))
    files = sorted(file for file in whole.rglob("*") if file.is_file())
    kept = {file: file.read_bytes() for file in files}
    refused = 0
    for _ in range(150):
        for file, data in kept.items():
            file.write_bytes(data)
        file = files[rng.integers(len(files))]
        if file.suffix == ".json":
            values = json.loads(kept[file])
            name = sorted(values)[rng.integers(len(values))]
            odd = ODD_VALUES[rng.integers(len(ODD_VALUES))]
            if isinstance(values[name], dict) and rng.random() < 0.6:
                values[name][sorted(values[name])[rng.integers(len(values[name]))]] = odd
            else:
                values[name] = odd
            file.write_text(json.dumps(values))
        else:
            packed = file.suffix == ".gz" and rng.random() < 0.8
            content = bytearray(gzip.decompress(kept[file]) if packed else kept[file])
            for place in rng.integers(len(content), size=3).tolist():
                content[place] = b"\t\n\x00-9ex\xff./n"[rng.integers(11)]
            file.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
        try:
            sniff(whole)
            read_bids(physio)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 20 < refused < 150
