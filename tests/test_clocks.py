import numpy as np
import pytest

from gaze_capture.trackers.clocks import EnvelopeClock, HostTimes, RateMeter

MS = 1_000_000
S = 1_000_000_000


def fed(clock: EnvelopeClock, device_ns: list[int], arrival_ns: list[int]) -> list[bool]:
    return [clock.see(device, arrival) for device, arrival in zip(device_ns, arrival_ns, strict=True)]


def delayed(seconds: float, drift: float, offset_ns: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """Return device and arrival times of 150 samples a second, late by 0.3 ms and exponentially more."""
    rng = np.random.default_rng(seed)
    host = np.arange(0, seconds, 1 / 150) * 1e9
    device = host * (1 + drift)
    late = 0.3e6 + rng.exponential(4e6, len(host))
    # Nothing overtakes on one connection.
    arrival = np.maximum.accumulate(host + offset_ns + late)
    return device.round().astype(int).tolist(), arrival.round().astype(int).tolist()


@pytest.mark.parametrize("drift", [0.0, 80e-6, -80e-6])
def test_the_envelope_finds_offset_and_drift_under_delays(drift: float) -> None:
    clock = EnvelopeClock()
    device, arrival = delayed(60, drift, 7 * S)
    assert all(fed(clock, device, arrival))
    true_ns = 7 * S + 60 * S - 60 * S * (1 + drift)
    # The least delay belongs to the offset; the mean of the raw arrivals would be 4 ms off.
    assert clock.offset_ns(device[-1]) - true_ns == pytest.approx(0.3 * MS, abs=0.4 * MS)
    assert clock.uncertainty_ns < 3 * MS


def test_late_first_samples_are_no_jump() -> None:
    clock = EnvelopeClock()
    device = [k * 10 * MS for k in range(100)]
    arrival = [5 * S + max(d, 200 * MS) for d in device]
    assert all(fed(clock, device, arrival))
    assert clock.offset_ns(device[-1]) == pytest.approx(5 * S, abs=MS)


@pytest.mark.parametrize("jump_s", [100.0, -100.0, 0.2])
def test_a_jump_is_told_once_and_followed(jump_s: float) -> None:
    clock = EnvelopeClock()
    device, arrival = delayed(20, 0.0, 3 * S)
    told = fed(clock, device[:1500], arrival[:1500])
    told += fed(clock, [d + round(jump_s * S) for d in device[1500:]], arrival[1500:])
    assert told.count(False) == 1
    assert told.index(False) == 1500
    assert clock.offset_ns(device[-1] + round(jump_s * S)) == pytest.approx(3 * S - jump_s * S, abs=2 * MS)


def test_a_lasting_step_backwards_is_told_within_seconds() -> None:
    clock = EnvelopeClock()
    device, arrival = delayed(20, 0.0, 3 * S)
    told = fed(clock, device[:1500], arrival[:1500])
    told += fed(clock, [d - 300 * MS for d in device[1550:]], arrival[1550:])
    assert told.count(False) == 1
    assert told.index(False) < 1500 + 450
    assert clock.offset_ns(device[-1]) == pytest.approx(3 * S + 300 * MS, abs=2 * MS)


def test_a_network_that_stalls_is_no_jump() -> None:
    clock = EnvelopeClock()
    device, arrival = delayed(20, 0.0, 3 * S)
    arrival[1500:1650] = [arrival[1650]] * 150
    assert all(fed(clock, device, arrival))


def test_host_times_ascend_and_never_lie_ahead_of_the_arrival() -> None:
    times, rng = HostTimes(), np.random.default_rng(0)
    device, last = 0, 0
    for block in range(500):
        stamps = device + np.arange(1, 5) * 2 * MS
        device = int(stamps[-1])
        offset = 9 * S + int(rng.normal(0, 5 * MS)) + (2 * S if block > 250 else 0)
        host = times.of(stamps, offset, device + 9 * S + (2 * S if block > 250 else 0) + MS)
        assert (np.diff([last, *host]) > 0).all()
        assert host[-1] <= device + 9 * S + (2 * S if block > 250 else 0) + MS
        last = int(host[-1])


def test_host_times_follow_a_new_offset_gently() -> None:
    times = HostTimes()
    stamps = np.arange(1, 101) * 10 * MS
    first = times.of(stamps[:50], 5 * S, 99 * S)
    second = times.of(stamps[50:51], 5 * S - 20 * MS, 99 * S)
    assert second[0] - first[-1] == 9 * MS
    for k in range(51, 80):
        second = times.of(stamps[k : k + 1], 5 * S - 20 * MS, 99 * S)
    assert second[0] == stamps[79] + 5 * S - 20 * MS


def test_the_rate_is_measured_through_gaps_and_coarse_clocks() -> None:
    meter = RateMeter()
    stamps = np.floor(np.arange(0, 5, 1 / 60) * 1000).astype(np.int64) * MS
    stamps = np.delete(stamps, [20, 21, 22, 100])
    found = [rate for k in range(0, len(stamps), 7) if (rate := meter.see(stamps[k : k + 7])) is not None]
    assert len(found) == 2
    assert found == pytest.approx([60, 60], rel=0.01)
