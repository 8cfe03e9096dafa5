"""Other programs' gaze samples, in the layouts that `tests/gaze_files.py` writes and in real files."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.formats.gaze_file import GazeFile, Known
from gaze_capture.formats.inspection import event_f1, inspect
from gaze_capture.formats.reading import FORMATS, read_gaze_file
from gaze_capture.formats.sample_clock import in_order, likely_unit, rate_changes, rate_of
from tests.fuzzing import damaged, read_everything
from tests.gaze_files import (
    BINOCULAR,
    KNOWN,
    LOOK_S,
    LOOKS,
    SCREEN_MM,
    SCREEN_PX,
    every_format,
    eyelink,
    gaze,
    gazepoint,
    marker_mapper,
    pro_lab,
    pupil_surface,
    studio,
    written,
    xdf,
)

LAYOUTS = every_format()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_told_and_gives_the_same_gaze(tmp_path: Path, layout: str) -> None:
    name, content, known = LAYOUTS[layout]
    read = read_gaze_file(written(tmp_path / name, content), known=known)
    samples = read.samples
    assert read.format in FORMATS
    assert (read.geometry.width_px, read.geometry.height_px) == SCREEN_PX
    np.testing.assert_allclose((read.geometry.width_mm, read.geometry.height_mm), SCREEN_MM, rtol=1e-3)
    assert (np.diff(samples["time_ns"]) > 0).all()
    for eye in ("left", "right"):
        xy = np.stack([samples[f"{eye}_x"], samples[f"{eye}_y"]], axis=1)
        if layout == "EyeLink, one eye" and eye == "left":
            assert np.isnan(xy).all()
            continue
        # The eye rested at four places for four tenths of a second each.
        for look, place in enumerate(LOOKS):
            middle = round((look + 0.5) * len(samples) / len(LOOKS))
            np.testing.assert_allclose(xy[middle], place, atol=0.005)
    found = inspect(read)
    assert found.detected.count == len(LOOKS)
    assert found.duration_s == pytest.approx(
        LOOK_S * len(LOOKS) + (1 if "EyeLink" in layout else 0), abs=0.02
    )
    assert found.absent < 0.01
    if read.own_fixations is not None:
        assert found.own is not None and found.own.count == len(LOOKS)
        assert found.f1 == 1
        np.testing.assert_allclose(read.own_fixations.xy_px[0], np.multiply(LOOKS[0], SCREEN_PX), atol=1.1)
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_own_fixations_are_those_of_pro_lab_studio_eyelink_and_gazepoint() -> None:
    having = {"Pro Lab", "Pro Lab, UTF-16", "Studio", "EyeLink", "EyeLink, one eye", "Gazepoint"}
    assert having <= LAYOUTS.keys()


@pytest.mark.parametrize(
    ("layout", "names", "rect"),
    [
        ("Pro Lab", ["case_0.png", "case_1.png"], (480, 180, 960, 720)),
        ("Pro Lab, UTF-16", ["case_0.png", "case_1.png"], (480, 180, 960, 720)),
        ("Studio", ["case_0.png"], (0, 0, 1920, 1080)),
        ("EyeLink", ["../images/case_0.png", "../images/case_1.png"], (480, 180, 960, 720)),
        ("Gazepoint", ["case_0.png", "case_1.png"], None),
        ("XDF", ["case_0.png", "case_1.png"], None),
        ("Pupil surface", [], None),
    ],
)
def test_pictures_are_shown_when_and_where_the_file_says(
    tmp_path: Path, layout: str, names: list[str], rect: tuple[float, ...] | None
) -> None:
    name, content, known = LAYOUTS[layout]
    read = read_gaze_file(written(tmp_path / name, content), known=known)
    assert [item.name for item in read.shown] == names
    assert all(item.rect_px == rect for item in read.shown)
    for first, second in zip(read.shown, read.shown[1:], strict=False):
        assert first.start_ns < first.end_ns <= second.start_ns < second.end_ns
    if len(names) == 2:
        # Each for about its half of the recording.
        spent = [(item.end_ns - item.start_ns) / 1e9 for item in read.shown]
        np.testing.assert_allclose(spent, 0.8, atol=0.11)


# What a file does not say is asked for


@pytest.mark.parametrize(
    ("name", "content", "known", "option"),
    [
        ("g.csv", gazepoint(), Known(), "--screen-px WxH --screen-mm WxH --distance-mm D"),
        ("g.csv", gazepoint(), Known(SCREEN_PX, SCREEN_MM), "--distance-mm D"),
        ("s.tsv", studio(), Known(), "--screen-mm WxH"),
        ("p.tsv", pro_lab(geometry=False), Known(), "--screen-mm WxH --distance-mm D"),
        ("p.tsv", pro_lab(recordings=("Rec1", "Rec2")), Known(), "--stream"),
        ("p.tsv", pro_lab(), Known(stream="Rec9"), "--stream"),
        ("p.tsv", pro_lab(), Known((1280, 1024)), "leave --screen-px away"),
        ("e.asc", eyelink(both=False), Known(eye="left"), "holds the right eye only; leave --eye away"),
        ("e.asc", eyelink(), Known(stream="2"), "leave --stream away"),
        ("g.csv", gazepoint(), dataclasses.replace(KNOWN, stream="2"), "leave --stream away"),
        ("g.csv", gazepoint(), dataclasses.replace(KNOWN, eye="left"), "leave --eye away"),
        ("x.xdf", xdf(streams=(("A", BINOCULAR), ("B", BINOCULAR))), KNOWN, "--stream: A, B"),
        ("x.xdf", xdf(streams=(("A", BINOCULAR), ("A", BINOCULAR))), KNOWN, "--stream: A#1, A#2"),
        ("x.xdf", xdf(), dataclasses.replace(KNOWN, stream="C"), "--stream: Tracker"),
        (
            "x.xdf",
            xdf(streams=(("A", [("gx", "left", "ScreenX", "", ""), ("gy", "left", "ScreenY", "", "")]),)),
            KNOWN,
            "--coordinates px|normalised",
        ),
        (
            "x.xdf",
            xdf(streams=(("A", [("gaze x", "", "ScreenX", "px", ""), ("gaze y", "", "ScreenY", "px", "")]),)),
            KNOWN,
            "--eye left|right|both",
        ),
    ],
)
def test_a_missing_fact_is_asked_for_by_its_option(
    tmp_path: Path, name: str, content: str | bytes, known: Known, option: str
) -> None:
    file = written(tmp_path / name, content)
    with pytest.raises(UserError) as caught:
        read_gaze_file(file, known=known)
    assert option in str(caught.value) and str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "gaze_positions.csv",
            "gaze_timestamp,world_index,confidence,norm_pos_x,norm_pos_y,base_data\n1,0,0.9,0.5,0.5,x\n",
            "world camera",
        ),
        ("gaze.csv", "section id,timestamp [ns],gaze x [px],gaze y [px]\ns,1,5,6\n", "world camera"),
        (
            "x.xdf",
            xdf(
                streams=(
                    (
                        "pupil_capture",
                        [
                            ("norm_pos_x", "both", "ScreenX", "normalized", "world"),
                            ("norm_pos_y", "both", "ScreenY", "normalized", "world"),
                        ],
                    ),
                )
            ),
            "camera's picture",
        ),
        ("x.xdf", xdf(streams=(("A", [("Cz", "", "EEG", "uV", "")]),)), "no channels of the type ScreenX"),
        (
            "m.tsv",
            "Recording timestamp [ms]\tGaze point X [MCS px]\tGaze point Y [MCS px]\n1\t2\t3\n",
            r"pixels of the screen \(DACS\)",
        ),
        (
            "m.tsv",
            "Recording timestamp\tAOI hit [a]\n1\t2\n",
            "'Gaze point left/right X/Y' are missing",
        ),
        ("e.asc", eyelink().replace("SAMPLES\tGAZE", "SAMPLES\tHREF"), "HREF"),
        (
            "e.asc",
            "\n".join(line for line in eyelink().splitlines() if not line[:1].isdigit()),
            "no gaze samples",
        ),
        ("g.csv", gazepoint().replace("BPOGX", "OTHER"), "averaged over fixations"),
        ("a.csv", "a,b\n1,2\n", "EyeLink"),
        ("a.bin", b"\x00\x01\x02" * 99, "Pro Lab"),
        ("a.csv", "", "Gazepoint"),
    ],
)
def test_what_is_no_gaze_on_a_screen_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: str | bytes, reason: str
) -> None:
    file = written(tmp_path / name, content)
    with pytest.raises(UserError, match=reason) as caught:
        read_gaze_file(file, known=KNOWN)
    assert str(file) in str(caught.value)


def test_a_format_that_was_named_is_the_one_read(tmp_path: Path) -> None:
    file = written(tmp_path / "g.csv", gazepoint())
    assert read_gaze_file(file, "gazepoint-csv", KNOWN).format == "gazepoint-csv"
    for format in FORMATS:
        if format != "gazepoint-csv":
            with pytest.raises(UserError, match=r"g\.csv"):
                read_gaze_file(file, format, KNOWN)
    with pytest.raises(UserError, match="no gaze format 'smi'"):
        read_gaze_file(file, "smi", KNOWN)
    with pytest.raises(UserError, match=r"absent\.csv"):
        read_gaze_file(tmp_path / "absent.csv")
    with pytest.raises(UserError):
        read_gaze_file(tmp_path)


# Units and ways of writing


@pytest.mark.parametrize("unit", ["[ms]", "[μs]", ""])
@pytest.mark.parametrize("old", [False, True])
def test_pro_lab_of_every_age_gives_the_same_times(tmp_path: Path, unit: str, old: bool) -> None:
    read = read_gaze_file(written(tmp_path / "p.tsv", pro_lab(unit=unit, old=old)))
    time, _ = gaze()
    np.testing.assert_allclose(read.samples["time_ns"] / 1e9, time, atol=0.0006)
    assert read.rate_hz == pytest.approx(120, rel=0.001)
    assert any("Times are in ms" in note for note in read.notes) == (unit == "")
    np.testing.assert_array_equal(read.samples["pupil_right"][:3], np.float32(3.5))


def test_a_time_without_unit_that_fits_no_tracker_is_asked_for(tmp_path: Path) -> None:
    lines = studio().split("\r\n")
    header = lines[0].split("\t")
    place = header.index("RecordingTimestamp")
    rows = [line.split("\t") for line in lines[1:] if line]
    for row in rows:
        row[place] = str(int(row[place]) * 10)
    text = "\n".join("\t".join(row) for row in [header, *rows])
    file = written(tmp_path / "s.tsv", text)
    known = Known(screen_mm=SCREEN_MM)
    with pytest.raises(UserError, match=r"--time-unit s\|ms\|us\|ns"):
        read_gaze_file(file, known=known)
    with pytest.raises(UserError, match="which are no samples"):
        read_gaze_file(file, known=dataclasses.replace(known, time_unit="ms"))


def test_pixels_that_can_be_none_are_asked_for(tmp_path: Path) -> None:
    header = "Recording timestamp [ms]\tGaze point X\tGaze point Y"
    rows = [f"{10 * number}\t0.{number % 9}1\t0.5" for number in range(50)]
    file = written(tmp_path / "n.tsv", "\n".join([header, *rows]))
    with pytest.raises(UserError, match=r"--coordinates px\|normalised"):
        read_gaze_file(file, known=KNOWN)
    read = read_gaze_file(file, known=dataclasses.replace(KNOWN, coordinates="normalised"))
    assert read.samples["left_x"][3] == np.float32(0.31)
    assert any("both eyes combined" in note for note in read.notes)


def test_a_recording_is_chosen_from_an_export_of_several(tmp_path: Path) -> None:
    file = written(tmp_path / "p.tsv", pro_lab(recordings=("Rec1", "Rec2")))
    one = read_gaze_file(file, known=Known(stream="Rec2"))
    assert len(one.samples) == 192
    assert len(read_gaze_file(file, known=Known(stream="Anna / Rec1")).samples) == 192


@pytest.mark.parametrize("place", ["960\t540", "400\t100", "1900\t1000"])
def test_a_picture_that_cannot_be_where_it_is_told_is_nowhere(tmp_path: Path, place: str) -> None:
    text = pro_lab().replace("\t960\t720\t480\t180\t", f"\t960\t720\t{place}\t")
    read = read_gaze_file(written(tmp_path / "p.tsv", text))
    assert [item.rect_px for item in read.shown] == [None, None]
    assert any("contradicts its screen" in note for note in read.notes)


def test_an_export_of_one_eye_is_that_eye(tmp_path: Path) -> None:
    text = (
        pro_lab()
        .replace("Gaze point X [DACS px]", "Other")
        .replace("Gaze point right X [DACS px]", "Another")
    )
    read = read_gaze_file(written(tmp_path / "p.tsv", text))
    assert inspect(read).loss["right"] is None and np.isfinite(read.samples["left_x"]).sum() > 180


def test_one_eye_can_be_kept(tmp_path: Path) -> None:
    file = written(tmp_path / "p.tsv", pro_lab())
    read = read_gaze_file(file, known=Known(eye="right"))
    assert np.isnan(read.samples["left_x"]).all() and np.isnan(read.samples["pupil_left"]).all()
    assert np.isfinite(read.samples["right_x"]).sum() > 180
    assert inspect(read).loss["left"] is None


def test_eyelink_pictures_by_every_word(tmp_path: Path) -> None:
    def rects(load: str) -> list[tuple[float, ...] | None]:
        read = read_gaze_file(written(tmp_path / "e.asc", eyelink(load=load)))
        return [item.rect_px for item in read.shown]

    assert rects("FILL case_0.png") == [(0, 0, 1920, 1080)] * 2
    assert rects("CENTER my pictures/case_0.png 960 540 960 720") == [(480, 180, 960, 720)] * 2
    assert rects("CENTER case_0.png 960 540") == [None] * 2
    assert rects("TOP_LEFT case_0.png 0 0 0 0") == [None] * 2


def test_eyelink_pictures_side_by_side_stay_and_covered_ones_go(tmp_path: Path) -> None:
    lines = eyelink().splitlines()
    place = next(number for number, line in enumerate(lines) if "IMGLOAD" in line)
    lines[place : place + 1] = [
        "MSG\t2020 !V IMGLOAD TOP_LEFT left.png 0 0 900 900",
        "MSG\t2020 !V IMGLOAD TOP_LEFT right.png 1000 0 900 900",
        "MSG\t2300 !V IMGLOAD TOP_LEFT over.png 0 0 500 500",
    ]
    read = read_gaze_file(written(tmp_path / "e.asc", "\n".join(lines)))
    ends = {item.name: item.end_ns / 1e6 for item in read.shown}
    assert (ends["left.png"], ends["right.png"], ends["over.png"]) == (2300, 2800, 2800)


@pytest.mark.parametrize("before", [True, False])
def test_eyelink_pictures_named_outside_the_recording(tmp_path: Path, before: bool) -> None:
    text = "\n".join(line for line in eyelink().splitlines() if "IMGLOAD" not in line) + "\n"
    for trial, start in enumerate((2000, 3800)):
        told = start - 10 if before else start + 803
        line = f"MSG\t{told} !V IMGLOAD FILL case_{trial}.png\n"
        mark = f"START\t{start} " if before else f"MSG\t{start + 805} TRIAL_RESULT"
        assert mark in text
        text = text.replace(mark, line + mark)
    read = read_gaze_file(written(tmp_path / "e.asc", text))
    times = [(item.name, item.start_ns / 1e6, item.end_ns / 1e6) for item in read.shown]
    # The last sample is the last moment that anything of it is known.
    assert times == [("case_0.png", 2000, 2800), ("case_1.png", 3800, 4598)]
    assert any("taken for shown all along: 2" in note for note in read.notes) != before


def test_eyelink_converted_with_one_of_two_eyes_asks_which(tmp_path: Path) -> None:
    text = eyelink(both=False).replace("RIGHT\tSAMPLES", "LEFT\tRIGHT\tSAMPLES")
    file = written(tmp_path / "e.asc", text)
    with pytest.raises(UserError, match=r"--eye left\|right\|both"):
        read_gaze_file(file)
    assert np.isfinite(read_gaze_file(file, known=Known(eye="left")).samples["left_x"]).sum() == 780


@pytest.mark.parametrize("ticks", [True, False])
def test_gazepoint_whose_seconds_start_anew_with_every_medium(tmp_path: Path, ticks: bool) -> None:
    rows = [row.split(",") for row in gazepoint().split("\r\n") if row]
    names = rows[0]
    if not ticks:
        names[4] = "UNKNOWN"
    second = next(number for number, row in enumerate(rows) if row[1] == "case_1.png")
    onset = float(rows[second][3])
    for row in rows[second:]:
        row[3] = f"{float(row[3]) - onset:.5f}"
        row[7] = f"{float(row[7]) - onset:.5f}"
        row[9] = str(int(row[9]) - 2)
    text = "\n".join(",".join(row) for row in [*rows, [""]])
    read = read_gaze_file(written(tmp_path / "g.csv", text), known=KNOWN)
    found = inspect(read)
    assert (found.samples, found.detected.count, found.f1) == (96, 4, 1)
    assert [item.name for item in read.shown] == ["case_0.png", "case_1.png"]
    assert found.duration_s == pytest.approx(1.58 if ticks else 2.58, abs=0.03)


def test_a_recording_twice_in_one_table_is_read_once(tmp_path: Path) -> None:
    for name, text, known in (("p.tsv", pro_lab(), Known()), ("g.csv", gazepoint(), KNOWN)):
        header, rest = text.split("\r\n", 1)
        whole = read_gaze_file(written(tmp_path / name, text), known=known)
        twice = read_gaze_file(written(tmp_path / name, f"{header}\r\n{rest}{rest}"), known=known)
        assert any("started anew" in note for note in twice.notes)
        assert twice.samples.tobytes() == whole.samples.tobytes()
        assert twice.shown == whole.shown
        assert twice.own_fixations is not None and whole.own_fixations is not None
        np.testing.assert_array_equal(twice.own_fixations.start_ms, whole.own_fixations.start_ms)


def test_eyelink_whose_clock_starts_anew_says_what_it_cannot(tmp_path: Path) -> None:
    text = eyelink()
    body = text[text.index("MSG\t1980") :]
    read = read_gaze_file(written(tmp_path / "e.asc", text + body))
    assert len(read.samples) == 800 and not read.shown and read.own_fixations is None
    assert any("cannot be told apart by such a clock" in note for note in read.notes)


def test_xdf_in_pixels_and_by_labels(tmp_path: Path) -> None:
    by_type = [("a", "left", "ScreenX", "pixels", ""), ("b", "left", "ScreenY", "pixels", "")]
    by_label = [("Left gaze x", "", "", "pixels", ""), ("Left gaze y", "", "", "pixels", "")]
    for channels in (by_type, by_label):
        content = xdf(streams=(("A", channels),), scale=(1920.0, 1080.0))
        read = read_gaze_file(written(tmp_path / "a.xdf", content), known=KNOWN)
        np.testing.assert_allclose(read.samples["left_x"], gaze()[1][:, 0], rtol=1e-6)
        np.testing.assert_allclose(read.samples["left_y"], gaze()[1][:, 1], rtol=1e-6)
        assert np.isnan(read.samples["right_x"]).all()


def test_xdf_goes_on_behind_a_damaged_part(tmp_path: Path) -> None:
    content = bytearray(xdf())
    whole = read_gaze_file(written(tmp_path / "whole.xdf", bytes(content)), known=KNOWN)
    second = content.find(bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")) + 16
    content[second] = 9
    read = read_gaze_file(written(tmp_path / "torn.xdf", bytes(content)), known=KNOWN)
    assert len(whole.samples) - 30 == len(read.samples)
    assert any("damaged or cut off" in note for note in read.notes)


def test_without_pyxdf_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "pyxdf":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(UserError, match=r"pip install 'gaze-insight\[lsl\]'"):
        read_gaze_file(written(tmp_path / "x.xdf", xdf()), known=KNOWN)


# Clocks


def clock(*parts: list[float] | np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts]) * 1e6


STEADY = np.arange(0.0, 2000.0, 10.0)


@pytest.mark.parametrize(
    ("time", "kept", "told"),
    [
        (clock(STEADY), 200, []),
        (clock(STEADY, [np.nan, np.inf]), 200, ["without a readable time, which were dropped: 2"]),
        (clock(STEADY[:100], [990.0, 990.0], STEADY[100:]), 200, ["at the time of the one before"]),
        (clock(STEADY[:50], [9e7], STEADY[50:]), 200, ["far off their neighbours', which were dropped: 1"]),
        (clock(STEADY, [9e7]), 200, ["jumps ahead"]),
        (
            clock(STEADY[:50], STEADY[50:52][::-1], STEADY[52:]),
            200,
            ["came late and were put in their place: 1"],
        ),
        (clock(STEADY[:120] + 5000, STEADY), 200, ["longest of 2 parts", "which were dropped: 120"]),
        (clock(STEADY, STEADY + 62_000), 400, ["60.0 s at 2.0 s"]),
        (clock([np.nan] * 5), 0, ["which were dropped: 5"]),
        (clock([]), 0, []),
    ],
)
def test_damaged_clocks_keep_the_good_part_and_say_so(
    time: np.ndarray[Any, np.dtype[np.float64]], kept: int, told: list[str]
) -> None:
    rows, notes, restarted = in_order(time)
    assert restarted == any("started anew" in note for note in notes)
    ordered = time[rows]
    if any("jumps ahead" in note for note in notes) and kept == 200:
        # A last stamp that is far ahead cannot be told from a pause.
        rows = rows[:-1]
    assert len(rows) == kept
    assert (np.diff(ordered) > 0).all()
    assert all(any(words in note for note in notes) for words in told)
    assert bool(notes) == bool(told)


def test_rates() -> None:
    whole_ms = np.rint(np.arange(3000) / 0.3).astype(np.int64) * 1_000_000
    assert rate_of(whole_ms) == pytest.approx(300, rel=0.002)
    assert rate_changes(whole_ms, 300) == []
    slower = (
        np.concatenate([np.arange(0, 5000, 10), np.arange(5000, 10_000, 20)]).astype(np.int64) * 1_000_000
    )
    (note,) = rate_changes(slower, rate_of(slower))
    assert "50 to 100 Hz" in note
    assert [likely_unit(np.arange(9.0) * step) for step in (0.002, 8.3, 3333.0, 8.3e6, 300.0)] == [
        "s", "ms", "us", "ns", None,
    ]  # fmt: skip


def test_samples_that_nobody_made_are_refused(tmp_path: Path) -> None:
    rows = studio().split("\r\n")
    empty = [row[: row.rindex("3.1\t3.2")] + "\t\t4\t4" for row in rows[1:] if row]
    with pytest.raises(UserError, match="96 samples, none of them with a gaze position"):
        read_gaze_file(
            written(tmp_path / "s.tsv", "\n".join([rows[0], *empty, ""])), known=Known(screen_mm=SCREEN_MM)
        )
    with pytest.raises(UserError, match="fewer than two"):
        read_gaze_file(written(tmp_path / "t.tsv", rows[0] + "\n"), known=KNOWN)


def test_a_cut_never_leaves_half_a_number(tmp_path: Path) -> None:
    for text, name in ((eyelink(), "e.asc"), (pupil_surface(), "p.csv"), (marker_mapper(), "gaze.csv")):
        whole = read_gaze_file(written(tmp_path / name, text), known=Known() if name == "e.asc" else KNOWN)
        for cut in range(len(text) * 2 // 3, len(text) * 2 // 3 + 90):
            part = read_gaze_file(
                written(tmp_path / name, text[:cut]), known=Known() if name == "e.asc" else KNOWN
            )
            count = len(part.samples)
            assert len(whole.samples) * 0.5 < count < len(whole.samples)
            for field in ("time_ns", "left_x", "left_y", "right_y"):
                np.testing.assert_array_equal(part.samples[field], whole.samples[field][:count])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cut_and_damaged_files_are_read_or_refused_in_a_sentence(tmp_path: Path, layout: str) -> None:
    name, content, _ = LAYOUTS[layout]
    rng = np.random.default_rng(len(layout))
    for number in range(24):
        if number % 2:
            (data,) = damaged({name: content}, rng).values()
        else:
            data = content[: int(rng.integers(len(content)))]
        with contextlib.suppress(UserError):
            read_everything(written(tmp_path / name, data))


def test_event_f1_is_what_it_says() -> None:
    events = np.array([[0.0, 100.0], [200.0, 300.0], [400.0, 500.0]])
    assert event_f1(events, events) == 1
    assert event_f1(events, events[:0]) == 0
    assert event_f1(events, events[1:2]) == pytest.approx(0.5)
    assert event_f1(events, events + 40) == 0
    assert event_f1(events, events + 30) == 1
    # One long event over two matches neither.
    assert event_f1(events[:2], np.array([[0.0, 300.0]])) == 0


# Real files


@pytest.fixture
def read_real(shared_data: Path) -> Callable[[str, Known], GazeFile]:
    return lambda name, known: read_gaze_file(shared_data / "gaze" / name, known=known)


def test_i2mc_files_tell_their_own_screen(read_real: Callable[[str, Known], GazeFile]) -> None:
    known = Known(screen_px=(1920, 1080))
    for participant in (1, 2):
        for number in range(1, 6):
            read = read_real(f"i2mc_tx300/participant{participant}/{number}.tsv", known)
            assert (read.format, read.tracker) == ("tobii-tsv", "Tobii SDK file")
            assert read.rate_hz == pytest.approx(300, rel=0.001)
            # A 23-inch TX300; people sat some 60 cm away.
            assert read.geometry.width_mm == pytest.approx(513.8, abs=0.1)
            assert read.geometry.height_mm == pytest.approx(289.9, abs=0.1)
            assert 550 < read.geometry.viewing_distance_mm < 700
            found = inspect(read)
            loss = found.loss["neither"]
            assert loss is not None and loss < 0.5
            assert 3 <= found.detected.count <= 20
    assert len(read_real("i2mc_tx300/participant1/2.tsv", known).samples) == 1206


def test_the_eyelink_example(read_real: Callable[[str, Known], GazeFile]) -> None:
    name = "eyelink/eyelink_monocular_example.asc"
    with pytest.raises(UserError, match="--screen-mm WxH --distance-mm D"):
        read_real(name, Known())
    read = read_real(name, Known(screen_mm=(380, 302), distance_mm=680))
    assert (read.geometry.width_px, read.geometry.height_px, read.rate_hz) == (1280, 1024, 1000)
    assert len(read.samples) == 16
    assert read.samples["left_x"][0] == pytest.approx((138.1 + 0.5) / 1280)
    assert np.isnan(read.samples["right_x"]).all()
    assert read.own_fixations is not None
    np.testing.assert_array_equal(read.own_fixations.duration_ms, [133, 45])
    assert any(message.text == "TRIALID 3" for message in read.messages)
    # Its messages carry offsets: sent 4 ms before the retrace.
    assert any(
        (message.time_ns, message.text) == (2096371000000, "SYNCTIME 766 0") for message in read.messages
    )
