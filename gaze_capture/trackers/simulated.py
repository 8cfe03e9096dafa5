"""A tracker before which a synthetic eye views freely, follows a script, or looks where it is told."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording import SAMPLE, Eyes, Floats, Samples, ScreenGeometry, eye_positions
from gaze_capture.simulate import DESK_SCREEN
from gaze_capture.synthetic_eye import MeasurementErrors, Script, TrackerQuality
from gaze_capture.trackers.paced import PacedTracker
from gaze_capture.trackers.tracker import (
    CalibrationOutcome,
    CalibrationPoint,
    EyePositions,
    Point,
    ShowTarget,
)

SETTLE_S = 0.55
"""The eyes get so long to reach a calibration target ..."""
COLLECT_S = 0.5
"""... and rest on it for so long."""
PATIENCE_S = 1.0
"""Samples may come so late."""

HALF_EYE_DISTANCE_MM = 32.0


class SimulatedTracker(PacedTracker):
    """A tracker before which a synthetic eye views freely or follows a script.

    Parameters
    ----------
    script
        Where the eye looks first; afterwards, and without one, it wanders over the screen.
    bias_deg
        Error of an uncalibrated tracker, x to the right and y down.
    residual_deg
        What error the first, second, ... calibration leaves; none after the last of them. Stands for a person who
        sat differently while calibrating.
    simulated_from
        ``"masks"`` if scripts are drawn from masks: whatever is recorded will say so.
    """

    name = "simulated"

    _PREPARED_S = 60.0

    def __init__(
        self,
        rate_hz: float = 120.0,
        geometry: ScreenGeometry = DESK_SCREEN,
        *,
        script: Script | None = None,
        seed: int = 0,
        quality: TrackerQuality | None = None,
        bias_deg: Point = (0.0, 0.0),
        residual_deg: Sequence[Point] = (),
        simulated_from: str = "saliency",
    ) -> None:
        super().__init__(geometry, rate_hz)
        self.simulated_from = simulated_from
        self._calibrator = SimulatedCalibrator(self, residual_deg)
        self._rng = np.random.default_rng(seed)
        self._quality = quality or TrackerQuality()
        self._uncalibrated = np.array([[1.0, 0.0, bias_deg[0]], [0.0, 1.0, bias_deg[1]]])
        self._error = self._uncalibrated
        self._script_lock = threading.Lock()
        self._script = script or self._free_viewing(np.zeros(2))
        self._script_from_ms = 0.0
        self._errors: MeasurementErrors | None = None
        self._errors_first = 0

    @property
    def calibrator(self) -> SimulatedCalibrator:
        """Its calibration."""
        return self._calibrator

    @property
    def label(self) -> str:
        """Which one it is, for people."""
        return f"Simulated eye, {self.rate_hz:g} Hz"

    def follow(self, script: Script) -> None:
        """Let the eye leave for the script's first place now, and follow the script from there."""
        with self._script_lock:
            now_ms = max(0.0, (time.monotonic_ns() - self._start_ns) / 1e6) if self._start_ns else 0.0
            here = self._script.track(np.array([now_ms - self._script_from_ms]))
            self._script = Script(
                np.concatenate([here, script.xy_deg]), np.concatenate([[0.0], script.duration_ms])
            )
            self._script_from_ms = now_ms

    def look_at(self, x: float, y: float) -> None:
        """Let the eye leave for a place on the screen, normalised, after a reaction time, and rest there."""
        with self._script_lock:
            # People never aim perfectly: some 0.1 degrees.
            aim = self.geometry.degrees_from_normalised(np.array([x, y])) + self._rng.normal(0, 0.07, 2)
            reaction_ms = float(np.clip(self._rng.normal(200, 30), 120, 350))
            now_ms = max(0.0, (time.monotonic_ns() - self._start_ns) / 1e6) if self._start_ns else 0.0
            here = self._script.track(np.array([now_ms - self._script_from_ms]))
            self._script = Script(
                np.concatenate([here, aim[np.newaxis]]), np.array([reaction_ms, 3_600_000.0])
            )
            self._script_from_ms = now_ms

    def _free_viewing(self, from_deg: Floats) -> Script:
        """Draw some ten seconds of looking around."""
        half = self.geometry.degrees_from_normalised(np.ones(2))
        places = np.clip(self._rng.normal(0, 0.4, (30, 2)), -0.95, 0.95) * half
        durations = np.clip(260 * np.exp(self._rng.normal(0, 0.5, 30)), 80, 1500)
        return Script(np.concatenate([from_deg[np.newaxis], places]), np.concatenate([[100.0], durations]))

    def _gaze_deg(self, time_ms: Floats) -> Floats:
        with self._script_lock:
            track = self._script.track(time_ms - self._script_from_ms)
            while time_ms[-1] > (end := self._script_from_ms + self._script.end_ms):
                self._script, self._script_from_ms = self._free_viewing(self._script.xy_deg[-1]), end
                later = time_ms > end
                track[later] = self._script.track(time_ms[later] - end)
        return track

    def _block(self, first: int, stop: int) -> Samples:
        prepared = max(2, math.ceil(self._PREPARED_S * self.rate_hz))
        parts = []
        while first < stop:
            if self._errors is None or first - self._errors_first >= prepared:
                self._errors = MeasurementErrors.draw(prepared, 1000 / self.rate_hz, self._quality, self._rng)
                self._errors_first = first
            end = min(stop, self._errors_first + prepared)
            time_ns = self._time_ns(first, end)
            gaze_deg = self._gaze_deg((time_ns - self._start_ns) / 1e6)
            error = self._error
            gaze_deg = gaze_deg @ error[:, :2].T + error[:, 2]
            errors = self._errors[first - self._errors_first : end - self._errors_first]
            # The device's clock was started at another time and runs 20 ppm fast.
            device_time_ns = ((time_ns - self._start_ns) * 1.00002).astype(np.int64) + 77_000_000_000
            parts.append(errors.applied(gaze_deg, time_ns, device_time_ns, self.geometry))
            first = end
        block = np.concatenate(parts)
        self.eyes = self._eyes_of(block)
        return block

    def _eyes_of(self, block: Samples) -> EyePositions:
        """Return the eyes before the screen's centre, swaying a little, where the last sample saw them."""
        last = block[-1]
        seconds = float(last["time_ns"]) / 1e9
        sway, lean = 8 * math.sin(seconds / 7), 10 * math.sin(seconds / 11)
        z = self.geometry.viewing_distance_mm + lean
        left, right = (
            (sway + side * HALF_EYE_DISTANCE_MM, 20.0, z) if math.isfinite(float(last[name])) else None
            for side, name in ((-1, "left_x"), (1, "right_x"))
        )
        return EyePositions(int(last["time_ns"]), left, right)


class SimulatedCalibrator:
    """Calibrates as a device does: from where the uncalibrated eyes seem to look while they rest on targets."""

    can_redo = True

    def __init__(self, tracker: SimulatedTracker, residual_deg: Sequence[Point]) -> None:
        self._tracker = tracker
        self._residuals = list(residual_deg)
        self._entered = False
        self._eyes: Eyes = "both"
        self._found: dict[Point, Samples] = {}

    def begin(self, eyes: Eyes = "both") -> None:
        """Enter calibration; earlier data are forgotten."""
        self._eyes = eyes
        self._found.clear()
        self._tracker._error = self._tracker._uncalibrated
        self._entered = True

    def collect(self, points: Sequence[Point], show: ShowTarget, stop: threading.Event) -> None:
        """Show each target in turn and keep what is measured while the eye rests on it."""
        if not self._entered:
            raise UserError("The calibration was not begun.")
        for x, y in points:
            blocks: list[Samples] = []
            self._found.pop((x, y), None)
            show(x, y)
            self._tracker.look_at(x, y)
            if stop.wait(SETTLE_S):
                return
            # By the samples' own time: on a busy machine they may come late.
            since_ns = time.monotonic_ns()
            end = self._tracker.subscribe(blocks.append)
            stopped = _wait_for(blocks, since_ns + round(COLLECT_S * 1e9), stop)
            end()
            if stopped:
                return
            samples = np.concatenate(blocks) if blocks else np.empty(0, SAMPLE)
            samples = samples[samples["time_ns"] >= since_ns]
            if len(samples):
                self._found[x, y] = samples

    def compute(self) -> CalibrationOutcome:
        """Fit where the eye looked to where it seemed to look, and take the difference away from now on."""
        tracker, geometry = self._tracker, self._tracker.geometry
        seen = {point: _mean_deg(samples, self._eyes, geometry) for point, samples in self._found.items()}
        used = {point: mean for point, mean in seen.items() if mean is not None}
        errors: dict[Point, float] = {}
        if len(used) >= 3:
            # Seen = error * true; least squares over the targets.
            target = geometry.degrees_from_normalised(np.array(list(used)))
            true = np.column_stack([target, np.ones(len(target))])
            found = np.linalg.lstsq(true, np.array(list(used.values())), rcond=None)[0].T
            inverse = np.linalg.inv(found[:, :2])
            real = tracker._uncalibrated
            residual = np.array(self._residuals.pop(0) if self._residuals else (0.0, 0.0))
            shift = inverse @ (real[:, 2] - found[:, 2]) + residual
            tracker._error = np.column_stack([inverse @ real[:, :2], shift])
            mended = (np.array(list(used.values())) - found[:, 2]) @ inverse.T
            distance = np.hypot(*(mended - target).T)
            errors = dict(zip(used, distance.tolist(), strict=True))
        told = tuple(
            CalibrationPoint(
                *point,
                left=_mean_deg(samples, "left", geometry) is not None,
                right=_mean_deg(samples, "right", geometry) is not None,
                left_error_deg=errors.get(point),
                right_error_deg=errors.get(point),
            )
            for point, samples in self._found.items()
        )
        if not errors:
            return CalibrationOutcome(None, told, "The eyes were seen on fewer than three targets.")
        return CalibrationOutcome(self._eyes, told, f"Calibrated on {len(errors)} targets.")

    def end(self) -> None:
        """Leave calibration."""
        self._entered = False

    def save(self) -> bytes | None:
        """Return the correction in use."""
        return self._tracker._error.astype("<f8").tobytes()

    def restore(self, data: bytes) -> None:
        """Use a correction that was saved before."""
        if len(data) != 48:
            raise UserError("This calibration was not made with a simulated tracker; calibrate anew.")
        self._tracker._error = np.frombuffer(data, dtype="<f8").reshape(2, 3).copy()


def _mean_deg(samples: Samples, eyes: Eyes, geometry: ScreenGeometry) -> Floats | None:
    xy = eye_positions(samples, eyes)
    xy = xy[np.isfinite(xy).all(axis=1)]
    return geometry.degrees_from_normalised(xy.mean(axis=0)) if len(xy) else None


def _wait_for(blocks: list[Samples], until_ns: int, stop: threading.Event) -> bool:
    """Wait until samples of some time have come, or it is long past; return whether `stop` was set meanwhile."""
    deadline_ns = until_ns + round(PATIENCE_S * 1e9)
    while not blocks or int(blocks[-1]["time_ns"][-1]) < until_ns:
        if stop.wait(0.005):
            return True
        if time.monotonic_ns() > deadline_ns:
            break
    return False
