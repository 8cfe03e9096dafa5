"""Gaze while it comes in, block by block."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaze_capture.detectors import IDT, detect_fixations
from gaze_capture.online import LiveFixations, OneEuro
from gaze_capture.recording import SAMPLE, Floats, eye_positions
from tests.test_fixations import steps


def in_blocks(time_ms: Floats, xy_deg: Floats, size: int, **options: float) -> LiveFixations:
    live = LiveFixations(**options)
    for start in range(0, len(time_ms), size):
        live.add(time_ms[start : start + size], xy_deg[start : start + size])
    return live


def test_what_stays_together_is_one_and_one_stray_sample_ends_nothing() -> None:
    rng = np.random.default_rng(0)
    time_ms = np.arange(73) * 8.0
    xy = np.concatenate(
        [rng.normal([5, 5], 0.15, (40, 2)), [[40, 40], [5, 5]], np.full((30, 2), [20.0, 8.0]), [[np.nan, 1]]]
    )
    live = LiveFixations(radius_deg=1)
    live.add(time_ms[:42], xy[:42])
    assert live.fixations()[0] == pytest.approx(np.array([[5, 5]]), abs=0.1)
    live.add(time_ms[42:], xy[42:])
    places, duration_ms = live.fixations()
    assert len(places) == len(live) == 2
    assert places[1] == pytest.approx([20, 8])
    assert duration_ms == pytest.approx([328, 216], abs=1)
    assert live.total_ms == pytest.approx(duration_ms.sum())


@pytest.mark.parametrize("rate_hz", [60, 250, 1200])
def test_online_and_offline_agree_on_clean_gaze(rate_hz: float) -> None:
    rng = np.random.default_rng(3)
    time_ms, xy = steps(rate_hz, rng.uniform(-12, 12, (30, 2)), rest_ms=280, saccade_ms=35)
    xy = xy + rng.normal(0, 0.01, xy.shape)
    offline = detect_fixations(time_ms, xy, IDT())
    places, duration_ms = in_blocks(time_ms, xy, 20).fixations()
    assert len(places) == len(offline.start) == 30
    # A rest borders on two moving samples, about; online, they may belong up to a whole degree away.
    np.testing.assert_allclose(places, offline.xy_deg, atol=0.15)
    # Offline, a fixation lasts until the first sample after it.
    lasting = duration_ms + 1000 / rate_hz
    np.testing.assert_allclose(lasting, offline.duration_ms, atol=15 + 2000 / rate_hz)


def one_by_one(time_ms: Floats, xy_deg: Floats) -> list[tuple[float, float, float]]:
    """The rule, sample by sample: three in a row away from the mean, a gap or a leap back end a group."""
    groups: list[list[tuple[float, Floats]]] = []
    strays, seen = 0, -np.inf
    for moment, place in zip(time_ms.tolist(), xy_deg, strict=True):
        if not np.isfinite(place).all():
            continue
        mean = np.mean([xy for _, xy in groups[-1]], axis=0) if groups else place
        near = bool(np.hypot(*(place - mean)) <= 1.0)
        strays = 0 if near else strays + 1
        if not groups or not 0 <= moment - seen <= 100 or strays == 3:
            groups.append([(moment, place)])
            strays = 0
        elif near:
            groups[-1].append((moment, place))
        seen = moment
    return [
        (*np.mean([xy for _, xy in group], axis=0).tolist(), group[-1][0] - group[0][0])
        for group in groups
        if group[-1][0] - group[0][0] >= 80
    ]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 70), st.sampled_from([8.0, 40.0, 95.0]))
def test_how_a_stream_is_cut_into_blocks_does_not_matter(seed: int, size: int, interval_ms: float) -> None:
    rng = np.random.default_rng(seed)
    count = 300
    xy = np.repeat(rng.uniform(-3, 3, (count // 15, 2)), 15, axis=0) + rng.normal(0, 0.5, (count, 2))
    xy[rng.random(count) < 0.05] = np.nan
    time_ms = np.cumsum(rng.choice([0.0, 1.0, 1.0, 1.0, 3.0, -2.0], count)) * interval_ms
    places, duration_ms = in_blocks(time_ms, xy, size).fixations()
    expected = np.array(one_by_one(time_ms, xy)).reshape(-1, 3)
    np.testing.assert_allclose(np.column_stack([places, duration_ms]), expected, atol=1e-6)


def test_fixations_only_grow_in_number_and_length() -> None:
    time_ms, xy = steps(1200, np.random.default_rng(1).uniform(-9, 9, (20, 2)))
    live = LiveFixations()
    told = []
    for start in range(0, len(time_ms), 20):
        live.add(time_ms[start : start + 20], xy[start : start + 20])
        told.append((len(live), live.total_ms))
    assert told[-1][0] == 20
    assert all(later >= earlier for earlier, later in pairwise(told))


def test_dot_is_still_when_the_eye_is_and_follows_its_jumps() -> None:
    rng = np.random.default_rng(0)
    steady = OneEuro()
    noisy = rng.normal(10, 0.15, (240, 2))
    shown = np.array([steady(index / 120, x, y) for index, (x, y) in enumerate(noisy)])
    assert shown[60:].std() < 0.5 * noisy[60:].std()
    assert shown[60:].mean(axis=0) == pytest.approx([10, 10], abs=0.05)
    late = [steady(2 + index / 120, 20.0, 10.0) for index in range(8)]
    assert late[-1][0] == pytest.approx(20, abs=1), "within 60 ms of a saccade the dot has arrived"


def test_dot_follows_blocks_and_stays_where_nothing_was_seen() -> None:
    steady = OneEuro()
    time_ms = np.arange(240) / 1.2
    xy = np.full((240, 2), [3.0, -1.0])
    for start in range(0, 240, 20):
        dot = steady.follow(time_ms[start : start + 20], xy[start : start + 20])
    assert dot == pytest.approx((3, -1))
    assert steady.follow(np.array([200.0]), np.array([[np.nan, 1.0]])) is None
    assert steady.follow(np.empty(0), np.empty((0, 2))) is None
    # A saccade in the middle of a block: the dot goes for where the block ends.
    xy[-10:] = 12.0
    for start in range(0, 120, 20):
        dot = steady.follow(
            300 + time_ms[start : start + 20], xy[-20:] if start == 0 else xy[-10:].repeat(2, 0)
        )
    assert dot == pytest.approx((12, 12), abs=1)


def test_one_eye_stands_in_for_the_other() -> None:
    samples = np.zeros(3, dtype=SAMPLE)
    samples["left_x"], samples["left_y"] = [0.2, np.nan, np.nan], [0.4, np.nan, np.nan]
    samples["right_x"], samples["right_y"] = [0.4, 0.5, np.nan], [0.6, 0.5, np.nan]
    xy = eye_positions(samples)
    assert xy[:2] == pytest.approx(np.array([[0.3, 0.5], [0.5, 0.5]]))
    assert np.isnan(xy[2]).all()
