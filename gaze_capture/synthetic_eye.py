"""An eye that follows a script, and the tracker that measures it: noise, drift, blinks, drop-outs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft, next_fast_len, rfftfreq

from gaze_capture.recording import Floats, Int64s, Samples, ScreenGeometry, pack_samples


@dataclass(frozen=True)
class Script:
    """Where the eye rests (F), one place after the other, and how long."""

    xy_deg: Floats
    """(F, 2) direction from the screen's centre."""
    duration_ms: Floats
    """(F,)"""

    @property
    def saccade_ms(self) -> Floats:
        """(F - 1,) duration of the saccades between: 21 ms + 2.2 ms a degree."""
        jumps = np.diff(self.xy_deg, axis=0)
        return 21 + 2.2 * np.hypot(jumps[:, 0], jumps[:, 1])

    @property
    def start_ms(self) -> Floats:
        """(F,) when each rest begins; the first at 0."""
        return np.concatenate([[0.0], np.cumsum(self.duration_ms[:-1] + self.saccade_ms)])

    @property
    def end_ms(self) -> float:
        """When the last rest ends."""
        return float(self.start_ms[-1] + self.duration_ms[-1])

    def track(self, time_ms: Floats) -> Floats:
        """Return the direction in degrees (N, 2) at some times (N,); saccades have minimum jerk."""
        start = self.start_ms
        index = np.clip(np.searchsorted(start, time_ms, side="right") - 1, 0, len(start) - 1)
        following = np.minimum(index + 1, len(start) - 1)
        lasts = np.append(self.saccade_ms, 1.0)
        u = np.clip((time_ms - start[index] - self.duration_ms[index]) / lasts[index], 0, 1)[:, np.newaxis]
        progress = u**3 * (10 - 15 * u + 6 * u**2)
        xy: Floats = self.xy_deg[index] + (self.xy_deg[following] - self.xy_deg[index]) * progress
        return xy


@dataclass(frozen=True)
class TrackerQuality:
    """How well a simulated tracker measures."""

    rms_s2s_deg: float = 0.15
    """Sample-to-sample precision of one eye."""
    noise_exponent: float = 0.5
    """The noise's power falls with frequency to this power."""
    drift_deg: float = 0.1
    """Standard deviation of a wander over seconds."""
    blinks_per_minute: float = 12.0
    blink_ms: float = 150.0
    dropouts: float = 0.02
    """Share of samples that each eye loses in short bursts."""


@dataclass(frozen=True)
class MeasurementErrors:
    """What a tracker does to N samples, whatever the eyes look at; E is the eye, left before right."""

    offset_deg: Floats
    """(E, N, 2)"""
    lost: npt.NDArray[np.bool_]
    """(E, N)"""
    pupil_mm: Floats
    """(N, E), NaN where lost."""

    @classmethod
    def draw(
        cls, count: int, interval_ms: float, quality: TrackerQuality, rng: np.random.Generator
    ) -> MeasurementErrors:
        """Draw the errors of `count` >= 2 samples."""
        wander = quality.drift_deg * _wander((count, 2), 4000 / interval_ms, rng)
        lost = _lost(count, interval_ms, quality, rng)
        pupil_mm = 3.5 + 0.15 * _wander((count, 1), 2000 / interval_ms, rng) + rng.normal(0, 0.02, (count, 2))
        pupil_mm[lost.T] = np.nan
        noise = np.stack([_coloured_noise(count, quality.noise_exponent, rng) for _ in range(2)])
        steps = np.sqrt((np.diff(noise, axis=1) ** 2).sum(axis=2).mean(axis=1))
        return cls(wander + noise * (quality.rms_s2s_deg / steps)[:, np.newaxis, np.newaxis], lost, pupil_mm)

    def __getitem__(self, chosen: slice) -> MeasurementErrors:
        return MeasurementErrors(self.offset_deg[:, chosen], self.lost[:, chosen], self.pupil_mm[chosen])

    def applied(
        self, xy_deg: Floats, time_ns: Int64s, device_time_ns: Int64s, geometry: ScreenGeometry
    ) -> Samples:
        """Return the samples that the tracker delivers while the eyes point to `xy_deg` (N, 2)."""
        eyes = geometry.normalised_from_degrees(xy_deg + self.offset_deg)
        eyes[self.lost] = np.nan
        return pack_samples(time_ns, device_time_ns, eyes[0], eyes[1], self.pupil_mm)


def measure(
    xy_deg: Floats,
    time_ns: Int64s,
    device_time_ns: Int64s,
    geometry: ScreenGeometry,
    quality: TrackerQuality,
    rng: np.random.Generator,
) -> Samples:
    """Return what a tracker delivers (N >= 2 samples) while the eyes point to `xy_deg` (N, 2).

    A calibration's bias is part of `xy_deg`: to the tracker it is where the eyes point.
    """
    count = len(time_ns)
    interval_ms = float(time_ns[-1] - time_ns[0]) / 1e6 / (count - 1)
    errors = MeasurementErrors.draw(count, interval_ms, quality, rng)
    return errors.applied(xy_deg, time_ns, device_time_ns, geometry)


def _wander(shape: tuple[int, int], memory: float, rng: np.random.Generator) -> Floats:
    """Return Ornstein-Uhlenbeck noise of unit variance that forgets within `memory` samples."""
    # Imported late: the window starts without it.
    from scipy.signal import lfilter

    keep = np.exp(-1 / memory)
    white = rng.normal(size=shape) * np.sqrt(1 - keep**2)
    white[0] = rng.normal(size=shape[1])
    walked: Floats = lfilter([1.0], [1.0, -keep], white, axis=0)
    return walked


def _coloured_noise(count: int, exponent: float, rng: np.random.Generator) -> Floats:
    """Return noise (N, 2) whose power falls as frequency to the `exponent`."""
    length = next_fast_len(count, real=True)
    frequency = rfftfreq(length)
    frequency[0] = frequency[1]
    spectrum = rng.normal(size=(2, 2, len(frequency))) * frequency ** (-exponent / 2)
    noise: Floats = irfft(spectrum[0] + 1j * spectrum[1], n=length, axis=-1)[:, :count].T
    return noise


def _lost(
    count: int, interval_ms: float, quality: TrackerQuality, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Return which samples (2, N) the left and right eye lose."""
    lost = np.zeros((2, count), dtype=np.bool_)
    blink_count = rng.poisson(quality.blinks_per_minute * count * interval_ms / 60_000)
    for start in rng.integers(0, count, blink_count):
        lost[:, start : start + max(1, round(rng.normal(1, 0.2) * quality.blink_ms / interval_ms))] = True
    # Bursts last 1 to 5 samples, 3 in the mean, and two of three hit a given eye.
    burst_count = rng.poisson(quality.dropouts * count / 3 * 1.5)
    lengths = rng.integers(1, 6, burst_count)
    which = rng.integers(0, 3, burst_count)
    for start, length, eyes in zip(rng.integers(0, count, burst_count), lengths, which, strict=True):
        lost[[0, 1] if eyes == 2 else [eyes], start : start + length] = True
    return lost
