from pathlib import Path

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.fixations import (
    AdaptiveIVT,
    detect_fixations,
    fixations_from_csv,
    fixations_of,
    write_fixation_csv,
)
from gaze_capture.recording import Calibration, Floats, Placement, Recording, ScreenGeometry, gaze_xy
from tests.benchmarks.lund_agreement import CONDITIONS, LUND, score_all, trials

GEOMETRY = ScreenGeometry(1920, 1080, 527.0, 296.0, 650.0)


def steps(
    rate_hz: float, positions: Floats, rest_ms: float = 300, saccade_ms: float = 40
) -> tuple[Floats, Floats]:
    """Rest at each position (P, 2), with minimum-jerk saccades between; time_ms and xy_deg."""
    time_ms = np.arange(0, len(positions) * (rest_ms + saccade_ms) - saccade_ms, 1000 / rate_hz)
    part = np.minimum(time_ms // (rest_ms + saccade_ms), len(positions) - 1).astype(int)
    u = np.clip((time_ms - part * (rest_ms + saccade_ms) - rest_ms) / saccade_ms, 0, 1)[:, np.newaxis]
    following = positions[np.minimum(part + 1, len(positions) - 1)]
    return time_ms, positions[part] + (following - positions[part]) * (10 * u**3 - 15 * u**4 + 6 * u**5)


POSITIONS = np.array([[0, 0], [5, 1], [-3, 4], [-3.0, -2], [6, -6]])


@pytest.mark.parametrize("rate_hz", [30, 60, 120, 300, 500, 1200, 2000])
@pytest.mark.parametrize("noise_deg", [0.0, 0.03])
def test_known_rests_are_found_at_every_rate(rate_hz: float, noise_deg: float) -> None:
    time_ms, xy = steps(rate_hz, POSITIONS)
    xy = xy + np.random.default_rng(0).normal(0, noise_deg, xy.shape)
    found = detect_fixations(time_ms + 1e7, xy)
    assert len(found.start) == 5
    np.testing.assert_allclose(found.xy_deg, POSITIONS, atol=0.25)
    sample_ms = 1000 / rate_hz
    slack = 20 + 1.5 * sample_ms
    np.testing.assert_allclose(found.start_ms - 1e7, np.arange(5) * 340, atol=slack)
    np.testing.assert_allclose(found.duration_ms, 300, atol=2 * slack)
    assert (found.dispersion_deg < 0.6).all()
    assert (found.stop[:-1] < found.start[1:]).all()


def test_duration_runs_to_the_first_sample_after_the_fixation() -> None:
    time_ms, xy = steps(500, POSITIONS)
    found = detect_fixations(time_ms, xy)
    np.testing.assert_allclose(found.start_ms, time_ms[found.start])
    np.testing.assert_allclose((found.start_ms + found.duration_ms)[:-1], time_ms[found.stop[:-1]])
    assert found.start_ms[-1] + found.duration_ms[-1] == pytest.approx(time_ms[-1] + 2)


def test_dispersion_is_the_rms_distance_from_the_mean() -> None:
    rng = np.random.default_rng(1)
    xy = rng.normal([3, -2], [0.01, 0.02], (500, 2))
    found = detect_fixations(np.arange(500) * 2.0, xy)
    assert (found.start.tolist(), found.stop.tolist()) == ([0], [500])
    expected = np.sqrt(((xy - xy.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert found.dispersion_deg[0] == pytest.approx(expected)
    np.testing.assert_allclose(found.xy_deg[0], xy.mean(axis=0))


@pytest.mark.parametrize(("gap_ms", "count"), [(60, 1), (120, 2)])
@pytest.mark.parametrize("how", ["NaN", "rows missing"])
def test_short_gaps_are_bridged_and_long_ones_are_not(gap_ms: float, count: int, how: str) -> None:
    time_ms = np.arange(0, 800, 2.0)
    xy = np.random.default_rng(2).normal(0, 0.01, (400, 2))
    lost = (time_ms > 400) & (time_ms < 400 + gap_ms)
    if how == "NaN":
        xy[lost] = np.nan
        found = detect_fixations(time_ms, xy)
    else:
        found = detect_fixations(time_ms[~lost], xy[~lost])
    assert len(found.start) == count
    assert found.duration_ms.sum() == pytest.approx(800 - (0 if count == 1 else gap_ms - 2), abs=3)


def test_a_small_jerk_within_half_a_degree_does_not_split_but_a_far_one_does() -> None:
    for apart, count in ((0.35, 1), (0.8, 2)):
        time_ms, xy = steps(500, np.array([[0, 0], [apart, 0]]), saccade_ms=10)
        assert len(detect_fixations(time_ms, xy).start) == count


def test_shorter_than_the_minimum_is_dropped() -> None:
    time_ms, xy = steps(1000, POSITIONS, rest_ms=40)
    assert len(detect_fixations(time_ms, xy).start) == 0
    assert len(detect_fixations(time_ms, xy, AdaptiveIVT(minimum_ms=20)).start) == 5


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_nothing_valid_gives_no_fixation(count: int) -> None:
    time_ms = np.arange(count) * 2.0
    assert len(detect_fixations(time_ms, np.full((count, 2), np.nan)).start) == 0
    lone = np.full((count, 2), np.nan)
    lone[:1] = 1.0
    assert len(detect_fixations(time_ms, lone).start) == 0


def test_odd_time_stamps_do_no_harm() -> None:
    time_ms, xy = steps(120, POSITIONS)
    expected = detect_fixations(time_ms, xy)
    doubled = np.repeat(np.arange(len(time_ms)), 2)
    found = detect_fixations(time_ms[doubled], xy[doubled])
    np.testing.assert_allclose(found.duration_ms, expected.duration_ms)
    np.testing.assert_allclose(found.start, expected.start * 2)
    jittered = time_ms + np.random.default_rng(3).uniform(-3, 3, len(time_ms))
    steps_back = jittered.copy()
    steps_back[50] = steps_back[40]
    assert len(detect_fixations(steps_back, xy).start) == 5
    assert len(detect_fixations(np.zeros(100), np.zeros((100, 2))).start) == 0
    with_nan = time_ms.copy()
    with_nan[7] = np.nan
    assert len(detect_fixations(with_nan, xy).start) == 5


def test_the_threshold_follows_the_noise() -> None:
    time_ms, xy = steps(300, np.array([[0, 0], [4, 0.0], [0, 3], [5, 5]]), rest_ms=600)
    noisy = xy + np.random.default_rng(4).normal(0, 0.15, xy.shape)
    assert len(detect_fixations(time_ms, noisy).start) == 4


def test_a_long_recording_with_drop_outs() -> None:
    rng = np.random.default_rng(5)
    count = 300_000
    positions = np.repeat(rng.uniform(-10, 10, (count // 300 + 1, 2)), 300, axis=0)[:count]
    xy = positions + rng.normal(0, 0.02, (count, 2))
    xy[rng.random(count) < 0.01] = np.nan
    assert len(detect_fixations(np.arange(count) / 1.2, xy).start) == pytest.approx(1000, abs=10)


# Recordings


def recording_of(xy_px: Floats, rate_hz: float, placements: tuple[Placement, ...]) -> Recording:
    """A recording whose left eye saw `xy_px` (N, 2) on the screen, starting at one hour."""
    normalised = (xy_px / [1920, 1080]).astype(np.float32)
    time_ns = 3_600_000_000_000 + (np.arange(len(xy_px)) * 1e9 / rate_hz).astype(np.int64)
    return Recording(
        id="r1",
        annotator="anna",
        tracker="simulated",
        geometry=GEOMETRY,
        calibration=Calibration(5, 0.4, 0.7, 0.1, 0.0),
        started_utc="2026-01-01T10:00:00+00:00",
        time_ns=time_ns,
        device_time_ns=time_ns + 5,
        left_xy=normalised,
        right_xy=np.full_like(normalised, np.nan),
        pupil_mm=np.full_like(normalised, 3.0),
        placements=placements,
        simulated_from="saliency",
    )


def placed(
    image_id: str, start_ms: float, end_ms: float, scale: float = 1.0, x: float = 0, y: float = 0
) -> Placement:
    """An image whose pixel (0, 0) is centred at screen pixel (x, y); `scale` image pixels a screen pixel."""
    hour = 3_600_000_000_000
    transform = np.array([[scale, 0, -x * scale], [0, scale, -y * scale], [0, 0, 1]])
    return Placement(
        image_id, "polyp", hour + round(start_ms * 1e6), hour + round(end_ms * 1e6), transform, (0, 0, 1920, 1080),
        presence="present",
    )  # fmt: skip


def test_fixations_are_placed_on_each_image_and_split_between_them() -> None:
    stations = np.array([[600, 400], [900, 600], [1200, 300.0]])
    _, xy = steps(500, stations, rest_ms=400, saccade_ms=50)
    # The second rest, 450..850 ms, spans the change of image at 600 ms.
    recording = recording_of(
        xy, 500, (placed("a", 0, 600, 0.5, 100, 50), placed("b", 600, 1300, 2.0, 200, 100))
    )
    first, second = fixations_of(recording)
    np.testing.assert_allclose(first.xy_px, [[250, 175], [400, 275]], atol=1)
    np.testing.assert_allclose(second.xy_px, [[1400, 1000], [2000, 400]], atol=4)
    assert second.start_ms[0] == pytest.approx(-150, abs=20)
    assert first.duration_ms[1] == pytest.approx(150, abs=20)
    assert second.duration_ms[0] == pytest.approx(250, abs=20)
    assert (first.start_ms >= 0).all()
    assert (first.viewing_ms, second.viewing_ms) == (600, 700)
    assert first.duration_ms.sum() <= 600
    assert second.degrees_per_px == pytest.approx(GEOMETRY.degrees_per_screen_px / 2)
    assert (second.annotator, second.source, second.target_id, second.presence) == (
        "anna",
        "r1",
        "polyp",
        "present",
    )
    assert (second.accuracy_deg, second.simulated_from) == (0.4, "saliency")
    assert second.parameters["minimum_ms"] == 60.0


def test_a_sliver_left_on_the_next_image_is_no_fixation_there() -> None:
    _, xy = steps(500, np.array([[600, 400], [1200, 300.0]]), rest_ms=400, saccade_ms=50)
    recording = recording_of(xy, 500, (placed("a", 0, 370), placed("b", 370, 850)))
    first, second = fixations_of(recording)
    assert len(first.start_ms) == len(second.start_ms) == 1
    np.testing.assert_allclose(second.xy_px, [[1200, 300]], atol=1)


def test_images_nobody_looked_at_have_no_fixations() -> None:
    blind = recording_of(np.full((500, 2), np.nan), 500, (placed("a", 0, 600), placed("b", 600, 1000)))
    assert [len(item.start_ms) for item in fixations_of(blind)] == [0, 0]
    empty = recording_of(np.empty((0, 2)), 500, (placed("a", 0, 600),))
    assert [item.xy_px.shape for item in fixations_of(empty)] == [(0, 2)]


def test_either_eye_serves_when_the_other_is_lost() -> None:
    recording = recording_of(np.tile([960.0, 540.0], (3, 1)), 500, ())
    recording.right_xy[1:] = [0.6, 0.5]
    recording.left_xy[2] = np.nan
    np.testing.assert_allclose(
        gaze_xy(recording.left_xy, recording.right_xy), [[0.5, 0.5], [0.55, 0.5], [0.6, 0.5]], rtol=1e-6
    )


# Files of samples


def write_samples(path: Path, separator: str = ",", ending: str = "\n", start: str = "") -> None:
    time_ms, xy = steps(250, np.array([[700, 300], [1000.0, 800]]))
    lines = [separator.join(["y_px", "time_ms", "note", "x_px"])]
    for index, (moment, (x, y)) in enumerate(zip(time_ms, xy, strict=True)):
        lost = 20 <= index < 25
        lines.append(
            separator.join(["" if lost else f"{y:.3f}", f"{moment:.1f}", "n", "" if lost else f"{x:.3f}"])
        )
    path.write_bytes((start + ending.join(lines) + ending).encode())


@pytest.mark.parametrize(
    ("separator", "ending", "start"), [(",", "\n", ""), (";", "\r\n", "\ufeff"), ("\t", "\n", "")]
)
def test_a_csv_of_samples_becomes_a_csv_of_fixations(
    tmp_path: Path, separator: str, ending: str, start: str
) -> None:  # fmt: skip
    write_samples(tmp_path / "samples.csv", separator, ending, start)
    rows = fixations_from_csv(tmp_path / "samples.csv", GEOMETRY)
    np.testing.assert_allclose(rows[:, 2:4], [[700, 300], [1000, 800]], atol=2)
    np.testing.assert_allclose(rows[:, 1], 300, atol=25)
    write_fixation_csv(tmp_path / "out.csv", rows)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "start_ms,duration_ms,x_px,y_px,dispersion_deg"
    np.testing.assert_allclose(
        [[float(cell) for cell in line.split(",")] for line in lines[1:]], rows, atol=6e-4
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: the column time_ms is missing"),
        ("time_ms,x_px\n1,2\n", "line 1: the column y_px is missing"),
        ("time_ms,x_px,y_px\n0,1,1\n2,abc,1\n", "line 3, column x_px: 'abc' is not a number"),
        ("time_ms,x_px,y_px\n0,1,1\n2,1,inf\n", "line 3, column y_px: 'inf' is not a number"),
        ("time_ms,x_px,y_px\n0,1,1\n,1,1\n", "line 3, column time_ms: the time is empty"),
        ("time_ms,x_px,y_px\n4,1,1\n2,1,1\n", "line 3, column time_ms: the time lies before"),
        ("time_ms,x_px,y_px\n4,1,1\n5\n", "line 3: 1 cells instead of 3"),
    ],
)
def test_bad_csv_is_told_by_line_and_column(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "samples.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=told) as caught:
        fixations_from_csv(path, GEOMETRY)
    assert str(path) in str(caught.value)


def test_a_missing_or_binary_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.csv"):
        fixations_from_csv(tmp_path / "absent.csv", GEOMETRY)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="not a table in UTF-8"):
        fixations_from_csv(tmp_path / "binary.csv", GEOMETRY)


def test_only_a_header_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "samples.csv").write_text("time_ms,x_px,y_px\n")
    assert fixations_from_csv(tmp_path / "samples.csv", GEOMETRY).shape == (0, 5)


# Agreement with human coders


@pytest.mark.skipif(not LUND.exists(), reason="shared/data/gaze/lund2013 is not beside this checkout")
def test_agreement_with_two_human_coders_is_above_the_yardstick_at_every_rate_and_noise() -> None:
    data = trials()
    assert len(data) == 7
    found = score_all(data, AdaptiveIVT(), seeds=2).mean(axis=1)
    for condition, (kappa, event_f1) in zip(CONDITIONS, found.tolist(), strict=True):
        assert kappa > condition.yardstick[0], condition.label
        assert event_f1 > condition.yardstick[1], condition.label
