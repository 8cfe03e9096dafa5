"""Exports: complete or not at all, labelled where simulated, without paths or names; read back by other programs."""

from __future__ import annotations

import csv
import dataclasses
import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.formats.bids import read_bids, recordings
from gaze_capture.formats.gazemedseg import ImageGaze, read_gazemedseg, write_gazemedseg
from gaze_capture.recording import Placement
from gaze_capture.recording_codec import RecordingHeader, RecordingWriter, read_recording
from gaze_capture.simulate import DESK_SCREEN
from segmentation.export import EXPORTERS, export_study
from segmentation.steps import detect_fixations, import_gaze, import_images, simulate
from segmentation.study import Study
from tests.test_bids import a_recording

FORMATS = sorted(EXPORTERS)


def recorded(
    study: Study, recording_id: str, annotator: str, images: list[str], *, mouse: bool = False
) -> None:
    """Store gaze of a person on some images, one second each, as the recording page does."""
    source = a_recording(seconds=len(images) + 1)
    if mouse:
        nothing = np.full_like(source.pupil_mm, np.nan)
        source = dataclasses.replace(source, right_xy=source.left_xy, pupil_mm=nothing, calibration=None)
    header = RecordingHeader(
        recording_id, annotator, "tobii", DESK_SCREEN, source.started_utc, source.calibration,
        source.simulated_from, dict(source.notes),
    )  # fmt: skip
    start_ns = int(source.time_ns[0])
    with RecordingWriter(study.new_recording_folder(recording_id), header) as writer:
        writer.add_samples(source.samples)
        for number, image in enumerate(images):
            begin = start_ns + number * 10**9
            transform = np.array([[1 / 16, 0, -28.0], [0, 1 / 16, -9.75], [0, 0, 1]])
            place = Placement(image, "target", begin, begin, transform, (0, 0, 1920, 1080))
            writer.end_placement(writer.start_placement(place), begin + 10**9 - 5, "present")
    detect_fixations(study, recording_id)


@pytest.fixture
def looked_at(study: Study, image_folder: Path) -> Study:
    """Return a study with two splits, gaze of two people in three recordings, and nothing simulated."""
    names = sorted((image_folder / "images").iterdir())
    import_images(study, names[:4])
    from segmentation.import_options import ImportOptions

    import_images(study, names[4:], options=ImportOptions(split="test"))
    images = list(study.images)
    recorded(study, "rec-1", "A-1", images[:3])
    recorded(study, "rec-2", "A1", images[2:6])
    recorded(study, "rec-3", "A-1", images[4:], mouse=True)
    return Study.open(study.folder)


@pytest.fixture
def simulated(study: Study, image_folder: Path) -> Study:
    import_images(study, [image_folder / "images"], masks=image_folder / "masks")
    simulate(study, seed=1)
    return Study.open(study.folder)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def all_text(folder: Path) -> dict[str, str]:
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            found[str(path.relative_to(folder))] = data.decode("utf-8", "replace")
    return found


# All formats


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_that_holds_anything_is_refused_and_left_alone(
    looked_at: Study, tmp_path: Path, format: str
) -> None:
    to = tmp_path / "out"
    to.mkdir()
    (to / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        export_study(looked_at, to, format)
    assert [path.name for path in to.iterdir()] == ["mine.txt"]
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_folder_is_filled_and_nothing_else_appears(
    looked_at: Study, tmp_path: Path, format: str
) -> None:
    place = tmp_path / "place"
    (place / "out").mkdir(parents=True)
    report = export_study(looked_at, place / "out", format)
    assert [path.name for path in place.iterdir()] == ["out"]
    assert report.files == sum(path.is_file() for path in (place / "out").rglob("*")) > 0
    assert report.recordings == 3 and report.images == 6 and report.fixations > 10
    assert report.simulated_from is None


@pytest.mark.parametrize("format", FORMATS)
def test_a_disk_that_fills_leaves_nothing(
    looked_at: Study, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the export is brought to it, at the last moment before it appears."""
    place = tmp_path / "place"
    place.mkdir()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(place))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        export_study(looked_at, place / "out", format)
    assert list(place.iterdir()) == []


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only the administrator mounts disks"
)
@pytest.mark.parametrize("format", ["csv", "parquet", "bids"])
def test_a_really_full_disk_leaves_nothing(looked_at: Study, tmp_path: Path, format: str) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        with pytest.raises(UserError, match="disk is full"):
            export_study(looked_at, place / "out", format)
        assert list(place.iterdir()) == []
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_place_that_cannot_be_written_is_named(looked_at: Study, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="is a file"):
        export_study(looked_at, file, "csv")
    with pytest.raises(UserError, match=str(file)):
        export_study(looked_at, file / "below", "csv")


@pytest.mark.parametrize("format", FORMATS)
def test_simulated_gaze_is_labelled_in_every_format(simulated: Study, tmp_path: Path, format: str) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    report = export_study(simulated, tmp_path / "out", format)
    assert report.simulated_from == "masks"
    texts = all_text(tmp_path / "out")
    labelled = [name for name, text in texts.items() if "simulated from masks" in text.casefold()]
    expected = {
        "csv": ["README.txt", "dictionary.json"],
        "parquet": ["README.txt", "dictionary.json", "fixations.parquet"],
        "gazemedseg": ["README.txt", "train.csv"],
        "bids": ["README.md", "dataset_description.json", "participants.json"],
    }[format]
    assert set(expected) <= set(labelled)
    if format == "csv":
        assert {row["simulated_from"] for row in rows(tmp_path / "out" / "fixations.csv")} == {"masks"}
        assert all(".simulated." in path.name for path in (tmp_path / "out" / "samples").iterdir())


@pytest.mark.parametrize("format", FORMATS)
def test_no_path_and_no_file_name_of_an_import_leaves(
    study: Study, image_folder: Path, tmp_path: Path, format: str
) -> None:
    import_images(study, [image_folder / "images"])
    recorded(study, "rec-1", "A", list(study.images)[:2])
    secret = tmp_path / "Dr_Jane_Doe.csv"
    write_gazemedseg(
        secret,
        {"case_0": ImageGaze(np.array([[0.5, 0.5]]), np.zeros(1), np.full(1, 200.0), np.full(1, 3.0), None)},
    )
    import_gaze(study, secret, annotator="B")
    export_study(study, tmp_path / "out", format)
    for name, text in all_text(tmp_path / "out").items():
        for word in ("Jane", str(tmp_path), str(study.folder)):
            assert word not in text, f"{name} holds {word}"


def test_what_is_not_there_is_named(looked_at: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"annotator 'C'; it has gaze of: A-1, A1"):
        export_study(looked_at, tmp_path / "out", "csv", annotators=["C"])
    with pytest.raises(UserError, match=r"no recording 'rec-9'; it has 3, the latest is 'rec-3'"):
        export_study(looked_at, tmp_path / "out", "csv", recordings=["rec-9"])
    with pytest.raises(UserError, match=r"split 'none'; its splits are: test, train"):
        export_study(looked_at, tmp_path / "out", "csv", split="none")
    with pytest.raises(UserError, match="no export format 'xls'"):
        export_study(looked_at, tmp_path / "out", "xls")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["csv", "bids"])
def test_a_damaged_recording_is_named_and_the_rest_goes_out(
    looked_at: Study, tmp_path: Path, format: str
) -> None:
    (looked_at.recordings_folder / "rec-2" / "gaze.frames").write_bytes(b"nothing of the kind")
    report = export_study(looked_at, tmp_path / "out", format)
    assert report.recordings == 2
    assert len(report.notes) == 1 and "rec-2" in report.notes[0]
    with pytest.raises(UserError, match="rec-2"):
        export_study(looked_at, tmp_path / "alone", format, recordings=["rec-2"])
    assert not (tmp_path / "alone").exists()


def test_images_go_along_with_bids_only(looked_at: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="with bids only"):
        export_study(looked_at, tmp_path / "out", "csv", with_images=True)


# CSV and Parquet


def test_csv_samples_come_back_bit_for_bit(looked_at: Study, tmp_path: Path) -> None:
    export_study(looked_at, tmp_path / "out", "csv", recordings=["rec-2"])
    assert [path.name for path in (tmp_path / "out" / "samples").iterdir()] == ["rec-2.csv"]
    found = rows(tmp_path / "out" / "samples" / "rec-2.csv")
    samples = read_recording(looked_at.recordings_folder / "rec-2").samples
    for name in samples.dtype.names or ():
        kind = samples.dtype[name].type
        values = np.array([kind(row[name] if row[name] else "nan") for row in found])
        np.testing.assert_array_equal(values, samples[name], err_msg=name)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_dictionary_tells_every_column_of_every_table(
    looked_at: Study, tmp_path: Path, kind: str
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    out = tmp_path / "out"
    export_study(looked_at, out, kind)
    tables = json.loads((out / "dictionary.json").read_text())["tables"]
    for name, about in tables.items():
        file = out / name.replace("<recording id>", "rec-1")
        columns = (
            list(rows(file)[0])
            if kind == "csv"
            else [str(column) for column in parquet.read_schema(file).names]
        )
        assert columns == list(about["columns"])
        assert all(column["description"] for column in about["columns"].values())
    assert {path.name for path in out.iterdir() if path.is_file()} == {
        "README.txt", "dictionary.json", *(name for name in tables if "/" not in name)
    }  # fmt: skip


def test_parquet_holds_numbers_units_and_nulls(looked_at: Study, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    export_study(looked_at, tmp_path / "out", "parquet")
    table = parquet.read_table(tmp_path / "out" / "samples" / "rec-1.parquet")
    samples = read_recording(looked_at.recordings_folder / "rec-1").samples
    for name in samples.dtype.names or ():
        column = table.column(name)
        assert column.null_count == np.isnan(samples[name]).sum()
        np.testing.assert_array_equal(column.to_numpy(zero_copy_only=False), samples[name])
    assert table.column("left_x").null_count > 0
    assert table.schema.field("pupil_left").metadata[b"unit"] == b"mm"


def test_fixations_in_tables_are_those_of_the_study(looked_at: Study, tmp_path: Path) -> None:
    export_study(looked_at, tmp_path / "out", "csv")
    found = rows(tmp_path / "out" / "fixations.csv")
    looks = rows(tmp_path / "out" / "looks.csv")
    stored = list(looked_at.fixations.each())
    assert len(looks) == len(stored) == 9
    assert sum(int(look["fixations"]) for look in looks) == len(found)
    for number, item in enumerate(stored):
        own = [row for row in found if int(row["look"]) == number]
        np.testing.assert_array_equal([float(row["x_px"]) for row in own], item.xy_px[:, 0])
        np.testing.assert_array_equal([float(row["start_ms"]) for row in own], item.start_ms)
        assert all((row["annotator"], row["image_id"]) == (item.annotator, item.image_id) for row in own)


def test_a_split_takes_only_what_was_seen_of_its_images(looked_at: Study, tmp_path: Path) -> None:
    export_study(looked_at, tmp_path / "out", "csv", split="test")
    test_images = {image.id for image in looked_at.images_of("test")}
    assert {row["image_id"] for row in rows(tmp_path / "out" / "fixations.csv")} <= test_images
    places = [row for row in rows(tmp_path / "out" / "placements.csv") if row["recording_id"] == "rec-2"]
    assert {row["image_id"] for row in places} == test_images
    times = [int(row["time_ns"]) for row in rows(tmp_path / "out" / "samples" / "rec-2.csv")]
    assert times and all(
        any(int(place["start_ns"]) <= time < int(place["end_ns"]) for place in places) for time in times
    )
    whole = read_recording(looked_at.recordings_folder / "rec-2").time_ns
    assert len(times) < len(whole)
    # The first recording saw no image of this split.
    assert not (tmp_path / "out" / "samples" / "rec-1.csv").exists()


def test_an_annotator_alone_is_taken(looked_at: Study, tmp_path: Path) -> None:
    report = export_study(looked_at, tmp_path / "out", "csv", annotators=["A1"])
    assert report.recordings == 1
    assert {row["annotator"] for row in rows(tmp_path / "out" / "looks.csv")} == {"A1"}


def test_without_pyarrow_parquet_names_the_package(
    looked_at: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install pyarrow"):
        export_study(looked_at, tmp_path / "out", "parquet")
    assert not (tmp_path / "out").exists()


# GazeMedSeg


def test_gazemedseg_comes_back_as_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def some(count: int, shape: tuple[int, int] | None) -> ImageGaze:
        pupil = np.where(rng.random(count) < 0.3, np.nan, rng.normal(3, 1, count))
        return ImageGaze(
            rng.normal(0.5, 0.2, (count, 2)), np.sort(rng.uniform(0, 1e4, count)), rng.uniform(60, 900, count),
            pupil, shape,
        )  # fmt: skip

    images = {
        "b, with a comma.png": some(40, (480, 640)),
        "ä.png": some(1, None),
        "nothing.png": some(0, (3, 4)),
        "whole.png": ImageGaze(
            np.array([[0.5, 1.0]]), np.array([0.0]), np.array([200.0]), np.array([4.0]), (1, 1)
        ),
    }
    write_gazemedseg(tmp_path / "gaze.csv", images, {"SIMULATED": {"ä.png": "simulated from masks"}})
    table = read_gazemedseg(tmp_path / "gaze.csv")
    assert list(table.images) == list(images)
    assert (table.fixations, table.dropped, table.repeated) == (42, 1, 0)
    for name, gaze in images.items():
        found = table.images[name]
        for field in ("xy", "start_ms", "duration_ms", "pupil"):
            np.testing.assert_array_equal(
                getattr(found, field), getattr(gaze, field), err_msg=f"{name} {field}"
            )
        assert found.shape == gaze.shape


def test_gazemedseg_of_a_study_comes_back_through_an_import(simulated: Study, tmp_path: Path) -> None:
    report = export_study(simulated, tmp_path / "out", "gazemedseg")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.txt", "train.csv"]
    other = Study.create(tmp_path / "other")
    import_images(other, [tmp_path / "raw" / "images"])
    imported = import_gaze(other, tmp_path / "out" / "train.csv")
    assert imported.unknown_images == ()
    assert imported.fixations == report.fixations
    for key, looks in simulated.fixations.items():
        counted = looks[0].start_ms >= 0
        again = other.fixations[key][0]
        np.testing.assert_allclose(again.xy_px, looks[0].xy_px[counted], atol=1e-9)
        np.testing.assert_array_equal(again.duration_ms, looks[0].duration_ms[counted])
        np.testing.assert_array_equal(again.start_ms, looks[0].start_ms[counted])


def test_annotators_and_splits_do_not_mix_in_one_table(looked_at: Study, tmp_path: Path) -> None:
    export_study(looked_at, tmp_path / "out", "gazemedseg")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.csv")) == [
        "test.A-1.csv", "test.A1.csv", "train.A-1.csv", "train.A1.csv"
    ]  # fmt: skip
    assert read_gazemedseg(tmp_path / "out" / "train.A1.csv").repeated == 0


def test_a_second_look_follows_the_first_and_names_are_made_unique(
    study: Study, image_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    shutil.copy(image_folder / "images" / "case_1.png", other / "case_0.png")
    import_images(study, [image_folder / "images" / "case_0.png"])
    import_images(study, [other / "case_0.png"])
    first, second = study.images
    recorded(study, "rec-1", "A", [first, second, first])
    export_study(study, tmp_path / "out", "gazemedseg")
    table = read_gazemedseg(tmp_path / "out" / "train.csv")
    assert list(table.images) == [first, second]
    gaze = table.images[first]
    assert table.repeated == 0 and (np.diff(gaze.start_ms) > 0).all()
    assert gaze.start_ms[0] < 1000 < gaze.start_ms[-1]


# BIDS


def test_bids_of_a_study_comes_back(looked_at: Study, tmp_path: Path) -> None:
    export_study(looked_at, tmp_path / "out", "bids")
    found = recordings(tmp_path / "out")
    assert [path.parent.parent.name for path in found] == ["sub-A1", "sub-A1", "sub-A1x2"]
    people = (tmp_path / "out" / "participants.tsv").read_text().splitlines()
    assert people[1:] == ["sub-A1\tA-1\tn/a", "sub-A1x2\tA1\tn/a"]
    recording = read_recording(looked_at.recordings_folder / "rec-2")
    again = read_bids(found[2])
    np.testing.assert_array_equal(again.samples["left_x"], recording.left_xy[:, 0])
    assert [item.name for item in again.shown] == [
        looked_at.image(place.image_id).source_name for place in recording.placements
    ]
    stored = [item for item in looked_at.fixations.each() if item.source == "rec-2"]
    assert again.fixations is not None
    assert len(again.fixations.start_ms) == sum(len(item.start_ms) for item in stored)


def test_bids_takes_images_along_only_if_asked(looked_at: Study, tmp_path: Path) -> None:
    export_study(looked_at, tmp_path / "without", "bids")
    assert not (tmp_path / "without" / "stimuli").exists()
    export_study(looked_at, tmp_path / "with", "bids", with_images=True)
    with open(next((tmp_path / "with").rglob("*_events.tsv")), encoding="utf-8") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            image = looked_at.image(row["image_id"])
            stimulus = tmp_path / "with" / "stimuli" / row["stim_file"]
            assert stimulus.read_bytes() == looked_at.image_path(image).read_bytes()


def test_bids_refuses_images_that_may_show_a_name(looked_at: Study, tmp_path: Path) -> None:
    image = next(iter(looked_at.images.values()))
    looked_at.add_images([dataclasses.replace(image, burned_in="the header says so")])
    with pytest.raises(UserError, match=f"the first is {image.id}"):
        export_study(looked_at, tmp_path / "out", "bids", with_images=True)
    assert not (tmp_path / "out").exists()
    export_study(looked_at, tmp_path / "out", "bids")


def test_bids_needs_samples(study: Study, image_folder: Path, tmp_path: Path) -> None:
    import_images(study, [image_folder / "images"])
    gaze = ImageGaze(np.array([[0.5, 0.5]]), np.zeros(1), np.full(1, 200.0), np.full(1, 3.0), None)
    write_gazemedseg(tmp_path / "gaze.csv", {"case_0": gaze})
    import_gaze(study, tmp_path / "gaze.csv")
    with pytest.raises(UserError, match="BIDS holds samples"):
        export_study(study, tmp_path / "out", "bids")


def the_validator() -> str:
    """Return the official validator's program, which may be installed beside another Python of the same packages."""
    module = pytest.importorskip("bids_validator_deno", reason="bids-validator-deno is not installed")
    beside = Path(module.__file__).parents[4] / "bin" / "bids-validator-deno"
    found = shutil.which("bids-validator-deno") or (str(beside) if beside.exists() else None)
    if found is None:
        pytest.skip("bids-validator-deno is installed without its program")
    return found


@pytest.mark.parametrize("which", ["looked_at", "simulated"])
@pytest.mark.parametrize("with_images", [False, True])
def test_the_official_validator_finds_no_error(
    which: str, with_images: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    validator = the_validator()
    study = request.getfixturevalue(which)
    export_study(study, tmp_path / "out", "bids", with_images=with_images)
    finished = subprocess.run(
        [validator, str(tmp_path / "out"), "--format", "json", "--max-rows", "-1"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    report = json.loads(finished.stdout)
    errors = [issue for issue in report["issues"]["issues"] if issue["severity"] == "error"]
    assert errors == [], errors
    assert finished.returncode == 0
    # It did look at the gaze.
    assert report["summary"]["tasks"] == ["view"]
    assert report["summary"]["totalFiles"] >= 9


def test_the_command_line_exports(looked_at: Study, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "export", str(looked_at.folder), "--to", str(tmp_path / "out")]
    options = ["--format", "csv", "--annotator", "A-1", "--recording", "rec-1", "--split", "train", "--json"]
    finished = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=True)
    values = json.loads(finished.stdout)
    assert (values["format"], values["recordings"], values["images"]) == ("csv", 1, 3)
    again = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 1 and again.stderr.count("\n") == 1 and "is not empty" in again.stderr
