"""All fixation detectors, on clean, noisy and broken streams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaze_capture.detectors import (
    IDT,
    PRESETS,
    AdaptiveIVT,
    EngbertKliegl,
    Parameters,
    TobiiIVT,
    detect_fixations,
    preset_with,
)
from gaze_capture.errors import UserError
from gaze_capture.fixations import fixations_of
from gaze_capture.recording import Floats
from gaze_capture.spans import FixationSpans, advancing, steady_stretches
from tests.test_fixations import POSITIONS, placed, recording_of, steps

every_preset = pytest.mark.parametrize("name", PRESETS)


@every_preset
@pytest.mark.parametrize("rate_hz", [250, 500, 1200])
def test_every_detector_finds_clean_rests(name: str, rate_hz: float) -> None:
    time_ms, xy = steps(rate_hz, POSITIONS)
    # I-DT may begin a fixation with a saccade's end, a whole degree off; then any noise cuts it short.
    noise_deg = 0.0 if name == "idt" else 0.01
    xy = xy + np.random.default_rng(0).normal(0, noise_deg, xy.shape)
    found = detect_fixations(time_ms, xy, PRESETS[name])
    assert len(found.start) == 5
    np.testing.assert_allclose(found.xy_deg, POSITIONS, atol=0.15)
    np.testing.assert_allclose(found.start_ms, np.arange(5) * 340, atol=20)
    np.testing.assert_allclose(found.duration_ms, 300, atol=30)


def test_the_fixed_threshold_is_what_it_says() -> None:
    time_ms = np.arange(0, 1000, 2.0)
    for speed_deg_s, count in ((25, 1), (35, 0)):
        xy = np.column_stack([time_ms * speed_deg_s / 1000, np.zeros(500)])
        assert len(detect_fixations(time_ms, xy, TobiiIVT()).start) == count
        assert len(detect_fixations(time_ms, xy, TobiiIVT(threshold_deg_s=40)).start) == 1


def test_dispersion_is_that_of_the_two_ranges_and_spans_are_the_longest_there_are() -> None:
    rng = np.random.default_rng(0)
    time_ms = np.cumsum(rng.uniform(2, 9, 2000))
    xy = np.cumsum(rng.normal(0, 0.03, (2000, 2)), axis=0)
    found = detect_fixations(time_ms, xy, IDT())
    assert len(found.start) > 10
    previous = 0

    def dispersion(start: int, stop: int) -> float:
        return float(np.ptp(xy[start:stop], axis=0).sum())

    for start, stop, duration in zip(found.start, found.stop, found.duration_ms, strict=True):
        assert duration >= 80 - 1e-6
        assert dispersion(start, stop) <= 1.0
        assert stop == 2000 or dispersion(start, stop + 1) > 1.0
        # None could have begun before.
        for earlier in range(previous, start):
            least = int(np.searchsorted(time_ms, time_ms[earlier] + 80 - 1e-6))
            assert dispersion(earlier, least) > 1.0
        previous = stop


def test_engbert_and_kliegl_find_what_is_lambda_deviations_fast() -> None:
    rng = np.random.default_rng(0)
    time_ms = np.arange(0, 2000, 2.0)
    xy = rng.normal(0, 0.01, (1000, 2))
    # A microsaccade of 0.6 deg in 12 ms: too near to split a fixation unless nothing is merged.
    xy[500:, 0] += 0.6 * np.clip((time_ms[500:] - 1000) / 12, 0, 1)
    assert len(detect_fixations(time_ms, xy, EngbertKliegl(merge_deg=0.7)).start) == 1
    apart = detect_fixations(time_ms, xy, EngbertKliegl(merge_deg=0))
    assert len(apart.start) == 2
    assert apart.start_ms[1] == pytest.approx(1012, abs=6)
    assert len(detect_fixations(time_ms, xy, EngbertKliegl(sigmas=50, merge_deg=0)).start) == 1


@pytest.mark.parametrize(("rate_hz", "noise_deg"), [(60, 0.4), (120, 0.3), (500, 0.4), (1200, 0.5)])
def test_the_adaptive_detector_sees_through_noise_and_makes_none_up(rate_hz: float, noise_deg: float) -> None:
    places = np.random.default_rng(5).permutation(np.arange(-12, 12, 1.2))
    time_ms, xy = steps(rate_hz, np.column_stack([places, -places]), rest_ms=350)
    noise = np.random.default_rng(0).normal(0, noise_deg, xy.shape)
    found = detect_fixations(time_ms, xy + noise)
    assert len(found.start) == 20
    np.testing.assert_allclose(found.xy_deg[:, 0], places, atol=4 * noise_deg / np.sqrt(0.2 * rate_hz) + 0.1)
    np.testing.assert_allclose(found.start_ms[1:], np.arange(1, 20) * 390 + 25, atol=40)
    assert len(detect_fixations(time_ms, noise).start) == 1


def test_noise_that_is_slow_is_not_taken_for_saccades() -> None:
    rng = np.random.default_rng(1)
    slow = np.zeros((2400, 2))
    for index in range(1, 2400):
        slow[index] = 0.8 * slow[index - 1] + rng.normal(0, 0.1, 2)
    assert len(detect_fixations(np.arange(2400) / 0.12, slow).start) <= 3


def test_what_scatters_too_far_is_no_fixation() -> None:
    scattered = np.random.default_rng(0).normal(0, 5, (2000, 2))
    assert len(detect_fixations(np.arange(2000) * 2.0, scattered).start) == 0


def test_presets_take_changes_and_refuse_what_they_do_not_have() -> None:
    assert preset_with("adaptive", {}) == AdaptiveIVT()
    assert preset_with("idt", {"dispersion_deg": 2.0}) == IDT(dispersion_deg=2.0)
    with pytest.raises(UserError, match="no detector 'x'; choose one of adaptive, tobii-ivt"):
        preset_with("x", {})
    with pytest.raises(UserError, match="idt has no parameter window_ms; it has bridge_ms"):
        preset_with("idt", {"window_ms": 20})
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(UserError, match="minimum_ms"):
            preset_with("tobii-ivt", {"minimum_ms": bad})


@every_preset
def test_results_say_what_detected_them(name: str) -> None:
    _, xy = steps(500, np.array([[600, 400], [1200, 300.0]]), rest_ms=400)
    parameters = PRESETS[name]
    (found,) = fixations_of(recording_of(xy, 500, (placed("a", 0, 840),)), parameters)
    assert found.detector == parameters.detector
    assert found.parameters == vars(parameters)
    assert len(found.start_ms) == 2
    assert len({item.detector for item in PRESETS.values()}) == len(PRESETS)


# Clocks


def test_one_stamp_that_leaps_costs_one_sample() -> None:
    time_ms, xy = steps(500, POSITIONS)
    expected = detect_fixations(time_ms, xy)
    for leap_ms in (3.6e6, -3.6e6):
        leaping = time_ms.copy()
        leaping[200] += leap_ms
        found = detect_fixations(leaping, xy)
        np.testing.assert_array_equal(found.start, expected.start)
        np.testing.assert_allclose(found.duration_ms, expected.duration_ms)


@every_preset
def test_a_clock_that_goes_on_hours_later_splits_what_it_interrupts(name: str) -> None:
    time_ms, xy = np.arange(0, 1200, 2.0), np.zeros((600, 2))
    time_ms[300:] += 7.2e6
    found = detect_fixations(time_ms, xy, PRESETS[name])
    assert found.start.tolist() == [0, 300]
    np.testing.assert_allclose(found.duration_ms, 600)


def test_samples_in_the_wrong_order_are_passed_over() -> None:
    assert advancing(np.array([1.0, 2, 9, 3, 4, 4, np.nan, 5])).tolist() == [0, 1, 3, 4, 7]
    assert advancing(np.empty(0)).tolist() == []
    time_ms, xy = steps(250, POSITIONS)
    order = np.arange(len(time_ms))
    order[50:60] = order[50:60][::-1]
    assert len(detect_fixations(time_ms[order], xy[order]).start) == 5


@pytest.mark.parametrize("rates", [(1200, 60), (60, 500)])
def test_each_part_of_a_recording_is_judged_by_its_own_rate(rates: tuple[float, float]) -> None:
    places = np.tile(POSITIONS, (4, 1))
    (first_ms, first), (second_ms, second) = (steps(rate, places) for rate in rates)
    time_ms = np.concatenate([first_ms, second_ms + first_ms[-1] + 20])
    xy = np.concatenate([first, second])
    xy += np.random.default_rng(0).normal(0, 0.03, xy.shape)
    assert len(steady_stretches(time_ms)) == 2
    found = detect_fixations(time_ms, xy)
    # The change of rate, known to within a block of samples, costs one or two.
    assert abs(len(found.start) - 40) <= 2
    errors = np.hypot(*(found.xy_deg[:, np.newaxis] - POSITIONS).transpose(2, 0, 1)).min(axis=1)
    assert (errors < 0.25).sum() >= 38


def test_an_uneven_clock_is_no_change_of_rate() -> None:
    uneven = np.cumsum(np.random.default_rng(0).exponential(8, 20_000))
    assert len(steady_stretches(uneven)) == 1


def test_a_recording_whose_clock_misbehaves_is_still_placed() -> None:
    _, xy_px = steps(500, np.array([[600, 400], [900, 600], [1200, 300.0]]), rest_ms=400)
    recording = recording_of(xy_px, 500, (placed("a", 0, 640), placed("b", 640, 1280)))
    expected = fixations_of(recording)
    recording.time_ns[[50, 100, 150]] += [3_600_000_000_000, -1_000_000_000, 0]
    for found, before in zip(fixations_of(recording), expected, strict=True):
        np.testing.assert_allclose(found.xy_px, before.xy_px, atol=0.5)
        np.testing.assert_allclose(found.duration_ms, before.duration_ms)


# Broken streams

Stream = tuple[Floats, Floats]


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Gaze at some rate, then spoiled in up to four ways."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.one_of(st.integers(0, 5), st.integers(6, 400)))
    rate_hz = draw(st.sampled_from([5.0, 30.0, 60.0, 120.0, 500.0, 2000.0]))
    places = np.repeat(rng.uniform(-15, 15, (count // 40 + 1, 2)), 40, axis=0)[:count]
    xy = places + rng.normal(0, draw(st.sampled_from([0.0, 0.05, 0.5, 20.0])), (count, 2))
    time_ms = np.arange(count) * 1000 / rate_hz + draw(st.sampled_from([0.0, -5e3, 1e9]))
    for spoil in draw(st.lists(st.sampled_from(sorted(SPOILS)), max_size=4)):
        if len(time_ms):
            where = sorted(rng.integers(0, len(time_ms) + 1, 2).tolist())
            with np.errstate(all="ignore"):
                time_ms, xy = SPOILS[spoil](time_ms.copy(), xy.copy(), slice(*where), rng)
    return time_ms, xy


def _lost(time_ms: Floats, xy: Floats, part: slice, rng: np.random.Generator) -> Stream:
    xy[part, rng.integers(0, 2) :] = np.nan
    return time_ms, xy


def _shut_for_half_a_minute(time_ms: Floats, xy: Floats, part: slice, rng: np.random.Generator) -> Stream:
    time_ms[part.stop :] += 30_000
    return time_ms, xy


def _leap(time_ms: Floats, xy: Floats, part: slice, rng: np.random.Generator) -> Stream:
    time_ms[part] += rng.choice([-3.6e6, -50.0, 80.0, 7.2e6])
    return time_ms, xy


def _double(time_ms: Floats, xy: Floats, part: slice, rng: np.random.Generator) -> Stream:
    index = np.sort(np.concatenate([np.arange(len(time_ms)), np.arange(part.start, part.stop)]))
    return time_ms[index], xy[index]


def _shuffle(time_ms: Floats, xy: Floats, part: slice, rng: np.random.Generator) -> Stream:
    index = np.arange(len(time_ms))
    rng.shuffle(index[part])
    return time_ms[index], xy[index]


def _slow(time_ms: Floats, xy: Floats, part: slice, rng: np.random.Generator) -> Stream:
    intervals = np.diff(time_ms, prepend=time_ms[0])
    intervals[part] *= rng.choice([0.0, 0.01, 0.3, 7.0])
    return time_ms[0] + np.cumsum(intervals), xy


def _nonsense(time_ms: Floats, xy: Floats, part: slice, rng: np.random.Generator) -> Stream:
    xy[part] = rng.choice([np.inf, -np.inf, 1e300, 500.0])
    time_ms[part.start : part.start + 1] = rng.choice([np.nan, np.inf, -np.inf])
    return time_ms, xy


def _hold(time_ms: Floats, xy: Floats, part: slice, rng: np.random.Generator) -> Stream:
    xy[part] = xy[min(part.start, len(xy) - 1)]
    return time_ms, xy


SPOILS = {
    "lost": _lost,
    "shut": _shut_for_half_a_minute,
    "leap": _leap,
    "double": _double,
    "shuffle": _shuffle,
    "slow": _slow,
    "nonsense": _nonsense,
    "hold": _hold,
}


def check(found: FixationSpans, time_ms: Floats, xy: Floats, parameters: Parameters) -> None:
    """What must hold of fixations, whatever they were detected in."""
    assert {len(values) for values in vars(found).values()} == {len(found.start)}
    assert (found.start < found.stop).all()
    assert (found.stop[:-1] <= found.start[1:]).all()
    assert (found.duration_ms > 0).all()
    assert (found.duration_ms > parameters.minimum_ms - 1e-5).all()
    assert (found.start_ms + found.duration_ms)[:-1] == pytest.approx(
        np.minimum((found.start_ms + found.duration_ms)[:-1], found.start_ms[1:]), abs=1e-5
    )
    assert (np.abs(found.xy_deg) <= 180).all()
    assert (found.dispersion_deg >= 0).all()
    kept = advancing(time_ms)
    kept = kept[np.diff(time_ms[kept], prepend=-np.inf) >= 0.05]
    seen = (np.abs(xy[kept, 0]) <= 180) & (np.abs(xy[kept, 1]) <= 180)
    for part in steady_stretches(time_ms[kept]):
        index, times = kept[part], time_ms[kept][part]
        if len(times) < 2:
            continue
        longest = max(parameters.bridge_ms, 1.5 * float(np.median(np.diff(times))))
        for start, stop in zip(found.start, found.stop, strict=True):
            own = times[(index >= start) & (index < stop) & seen[part]]
            assert (np.diff(own) <= longest + 1e-6).all()
    for start, stop in zip(found.start, found.stop, strict=True):
        assert seen[(kept >= start) & (kept < stop)].any()


@every_preset
@settings(deadline=None, max_examples=150)
@given(stream=streams())
def test_nothing_breaks_on_broken_streams(name: str, stream: Stream) -> None:
    time_ms, xy = stream
    check(detect_fixations(time_ms, xy, PRESETS[name]), time_ms, xy, PRESETS[name])


@settings(deadline=None, max_examples=150)
@given(stream=streams(), data=st.data())
def test_nothing_breaks_with_odd_parameters(stream: Stream, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(PRESETS)))
    odd = st.sampled_from([0.0, 1e-3, 0.5, 3.0, 40.0, 1000.0])
    changes = data.draw(st.dictionaries(st.sampled_from(sorted(vars(PRESETS[name]))), odd, max_size=4))
    parameters = preset_with(name, changes)
    check(detect_fixations(*stream, parameters), *stream, parameters)


@every_preset
@settings(deadline=None, max_examples=40)
@given(stream=streams())
def test_recordings_of_broken_streams_are_placed(name: str, stream: Stream) -> None:
    time_ms, xy = stream
    # A recording's stamps are whole nanoseconds; the rest may be as broken as it likes.
    time_ns = np.nan_to_num(np.clip(np.nan_to_num(time_ms, nan=0.0), -1e12, 1e12) * 1e6).astype(np.int64)
    with np.errstate(all="ignore"):
        recording = recording_of(xy * 40 + 500, 100, (placed("a", 0, 900), placed("b", 900, 5e4)))
    recording.time_ns[:] = time_ns + 3_600_000_000_000
    for item in fixations_of(recording, PRESETS[name]):
        assert (item.duration_ms > 0).all()
        assert (np.diff(item.start_ms) > 0).all()
        assert np.isfinite(item.xy_px).all()
        assert item.duration_ms.sum() <= item.viewing_ms + 1e-6
