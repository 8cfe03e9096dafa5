"""The procedure around a tracker's calibration: where targets stand, what counts as looking at them, what came of it.

Nothing here draws or waits: samples and target onsets go in with their own times, measures come out. What is told to
recordings as events is made here, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.quality import TargetMeasure, Validation, validation_of
from gaze_capture.recording import (
    SAMPLE,
    Eyes,
    Floats,
    Int64s,
    RecordingEvent,
    Samples,
    ScreenGeometry,
    eye_positions,
)
from gaze_capture.trackers.tracker import CalibrationOutcome, Point

INSET = 0.1
"""How far the outermost calibration targets stand from the screen's edges, as a share of its size."""
JITTER = 0.04
"""Validation targets stand up to so far, as a share of the screen's size, from halfway between calibration targets."""

DRIFT_SPAN_S = 0.4
DRIFT_DEG = (1.0, 2.0)
"""More asks for a new validation, and for a new calibration."""

LEAST_VALID = 0.5
"""A span in which fewer of the samples are valid tells nothing of where the eyes rested."""

DriftVerdict = Literal["ok", "revalidate", "recalibrate"]


# Targets


def calibration_targets(count: Literal[5, 9] = 5, seed: int = 0, inset: float = INSET) -> tuple[Point, ...]:
    """Return the calibration's targets, normalised to the screen, in an order that `seed` shuffles."""
    near, far = inset, 1 - inset
    places = [(near, near), (far, near), (0.5, 0.5), (near, far), (far, far)]
    if count == 9:
        places += [(0.5, near), (near, 0.5), (far, 0.5), (0.5, far)]
    return tuple(places[index] for index in np.random.default_rng(seed).permutation(len(places)))


def validation_targets(seed: int = 0, inset: float = INSET) -> tuple[Point, ...]:
    """Return four fresh targets, normalised to the screen, one a quarter, away from all calibration targets.

    Another seed puts them elsewhere, so that a second validation does not repeat the first.
    """
    rng = np.random.default_rng(seed)
    near, far = (0.5 + inset) / 2, 1 - (0.5 + inset) / 2
    places = np.array([(near, near), (far, near), (near, far), (far, far)])
    places += rng.uniform(-JITTER, JITTER, places.shape)
    x_y = places[rng.permutation(4)].tolist()
    return tuple((float(x), float(y)) for x, y in x_y)


# What a validation collects


@dataclass(frozen=True)
class Timing:
    """How long each validation target is given, in seconds of the samples' own time."""

    travel_s: float = 0.3
    """The target moves for so long; no gaze counts as having arrived before."""
    settle_s: float = 0.7
    """After so long the eyes are taken to rest on the target, even if they seem to rest elsewhere ..."""
    stable_s: float = 0.15
    """... and sooner if they rested for so long ..."""
    near_deg: float = 3.0
    """... so near to it ..."""
    still_deg: float = 0.5
    """... with a spread (STD) below this."""
    collect_s: float = 0.6
    steady_deg: float = 1.0
    """A collection with a larger spread goes on, in search of a better span ..."""
    timeout_s: float = 3.0
    """... until so long after the target came."""

    def usual_s(self, targets: int) -> float:
        """Return how long some targets take a practised person at most."""
        return targets * (self.settle_s + self.collect_s)


@dataclass(frozen=True)
class _Spans:
    """Every span of one length within N samples, one a start."""

    start: Int64s
    stop: Int64s
    mean_deg: Floats
    """(N, 2)"""
    spread_deg: Floats
    """(N,) STD; infinite where too few samples are valid."""


def _spans(time_ns: Int64s, degrees: Floats, length_s: float) -> _Spans:
    """Return the spans of samples (N), directions (N, 2), that last for `length_s`."""
    length_ns = round(length_s * 1e9)
    interval_ns = float(np.median(np.diff(time_ns))) if len(time_ns) > 1 else 0.0
    start = np.arange(len(time_ns))
    stop = np.searchsorted(time_ns, time_ns + length_ns).astype(np.int64)
    # The last span is whole if the sample after its last one would lie beyond it.
    whole = (stop < len(time_ns)) | (time_ns[-1:] + interval_ns >= time_ns + length_ns)
    start, stop = start[whole], stop[whole]
    valid: npt.NDArray[np.bool_] = np.isfinite(degrees[:, 0]) & np.isfinite(degrees[:, 1])
    known = np.where(valid[:, np.newaxis], degrees, 0.0)

    def total(values: Floats) -> Floats:
        sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
        found: Floats = sums[stop] - sums[start]
        return found

    count = total(valid[:, np.newaxis].astype(np.float64))
    enough = count[:, 0] >= np.maximum(LEAST_VALID * (stop - start), 2)
    divisor = np.maximum(count, 1)
    mean = total(known) / divisor
    variance = np.maximum(total(known**2) / divisor - mean**2, 0).sum(axis=1)
    spread = np.where(enough, np.sqrt(variance), np.inf)
    return _Spans(start, stop, mean, spread)


def _directions_deg(samples: Samples, geometry: ScreenGeometry, eyes: Eyes) -> Floats:
    return geometry.degrees_from_normalised(eye_positions(samples, eyes))


def most_stable(
    samples: Samples, geometry: ScreenGeometry, eyes: Eyes, length_s: float
) -> tuple[Samples, float] | None:
    """Return the span of that length with the least spread, and the spread (STD) in degrees.

    The spread is infinite where every span has too few valid samples. None where the samples do not last so long.
    """
    if len(samples) == 0:
        return None
    spans = _spans(samples["time_ns"], _directions_deg(samples, geometry, eyes), length_s)
    if len(spans.start) == 0:
        return None
    best = int(np.argmin(spans.spread_deg))
    return samples[spans.start[best] : spans.stop[best]], float(spans.spread_deg[best])


@dataclass(frozen=True)
class _Collected:
    """What was measured on one target."""

    target: Point
    span: Samples
    """The most stable part."""
    all: Samples
    """Everything since the eyes arrived: what was lost is counted here, where nothing was chosen."""


class Validator:
    """Collects gaze on one target after the other; told when each target comes and what the tracker delivers.

    While :attr:`current` is a target: show it, tell :meth:`show` when it came, and hand samples to :meth:`add` until
    the next one is current.
    """

    def __init__(
        self,
        targets: Sequence[Point],
        geometry: ScreenGeometry,
        eyes: Eyes = "both",
        timing: Timing | None = None,
    ) -> None:
        self.targets = tuple(targets)
        self.timing = timing or Timing()
        self._geometry = geometry
        self._eyes: Eyes = eyes
        self._collected: list[_Collected] = []
        self._onset_ns: int | None = None
        self._settled_ns: int | None = None
        self._buffer: Samples = np.empty(0, SAMPLE)

    @property
    def current(self) -> Point | None:
        """The target to be looked at now; None once all are done."""
        done = len(self._collected)
        return self.targets[done] if done < len(self.targets) else None

    @property
    def state(self) -> Literal["waiting", "settling", "collecting", "done"]:
        """What goes on with the current target; ``waiting`` until it is shown."""
        if self.current is None:
            return "done"
        if self._onset_ns is None:
            return "waiting"
        return "settling" if self._settled_ns is None else "collecting"

    @property
    def collected(self) -> tuple[tuple[Point, Samples], ...]:
        """The samples kept of each target that is done."""
        return tuple((part.target, part.span) for part in self._collected)

    def show(self, onset_ns: int) -> None:
        """Note that the current target came at a time on the host's clock; earlier samples do not count."""
        self._onset_ns, self._settled_ns = onset_ns, None
        self._buffer = self._buffer[:0]

    def add(self, samples: Samples) -> None:
        """Take samples (N), ascending in time; they may come late, as their own times count."""
        if self._onset_ns is None or self.current is None:
            return
        self._buffer = np.concatenate([self._buffer, samples[samples["time_ns"] >= self._onset_ns]])
        if len(self._buffer) == 0:
            return
        if self._settled_ns is None:
            self._settled_ns = self._settles(self._onset_ns, self.current)
        if self._settled_ns is None:
            return
        since = self._buffer[self._buffer["time_ns"] >= self._settled_ns]
        found = most_stable(since, self._geometry, self._eyes, self.timing.collect_s)
        late = int(self._buffer["time_ns"][-1]) - self._onset_ns >= self.timing.timeout_s * 1e9
        if found is not None and (found[1] <= self.timing.steady_deg or late):
            self._finish(found[0], since)
        elif late:
            self._finish(since, since)

    def advance(self, now_ns: int) -> None:
        """End the current target with what there is, where the tracker has been silent far beyond its time."""
        if self._onset_ns is not None and now_ns - self._onset_ns > (self.timing.timeout_s + 1) * 1e9:
            self._finish(self._buffer, self._buffer)

    def _settles(self, onset_ns: int, target: Point) -> int | None:
        time_ns = self._buffer["time_ns"]
        settled_ns = onset_ns + round(self.timing.settle_s * 1e9)
        directions = _directions_deg(self._buffer, self._geometry, self._eyes)
        spans = _spans(time_ns, directions, self.timing.stable_s)
        ends_ns = time_ns[spans.stop - 1]
        away = spans.mean_deg - self._geometry.degrees_from_normalised(np.array(target))
        rests = (
            (spans.spread_deg < self.timing.still_deg)
            & (np.hypot(away[:, 0], away[:, 1]) < self.timing.near_deg)
            & (ends_ns >= onset_ns + round(self.timing.travel_s * 1e9))
        )
        if rests.any():
            settled_ns = min(settled_ns, int(ends_ns[int(np.argmax(rests))]))
        return settled_ns if int(time_ns[-1]) >= settled_ns else None

    def _finish(self, span: Samples, everything: Samples) -> None:
        assert self.current is not None
        self._collected.append(_Collected(self.current, span, everything))
        self._onset_ns = self._settled_ns = None
        self._buffer = self._buffer[:0]

    def validation(self) -> Validation:
        """Return what was measured; all targets must be done.

        Accuracy and precision are those of the most stable spans; loss and effective rate are counted over all that
        was collected.
        """
        if self.current is not None:
            raise RuntimeError("a target is still to be looked at")
        geometry, eyes = self._geometry, self._eyes
        chosen = validation_of([(part.target, part.span) for part in self._collected], geometry, eyes)
        whole = validation_of([(part.target, part.all) for part in self._collected], geometry, eyes)
        targets = (
            _with_loss_of(one, other) for one, other in zip(chosen.targets, whole.targets, strict=True)
        )
        return Validation(tuple(targets), eyes, whole.effective_hz)


def _with_loss_of(chosen: TargetMeasure, whole: TargetMeasure) -> TargetMeasure:
    return replace(
        chosen,
        left=replace(chosen.left, data_loss=whole.left.data_loss),
        right=replace(chosen.right, data_loss=whole.right.data_loss),
        both=replace(chosen.both, data_loss=whole.both.data_loss),
    )


# What a validation means


def of_eye(validation: Validation, side: Literal["left", "right"]) -> Validation:
    """Return the same validation as if one eye alone had counted."""
    targets = tuple(replace(target, both=getattr(target, side)) for target in validation.targets)
    return Validation(targets, side, math.nan)


def unseen_eyes(validation: Validation) -> tuple[Literal["left", "right"], ...]:
    """Return the eyes that count and were seen in less than half of the samples."""
    sides: tuple[Literal["left", "right"], ...] = ("left", "right")
    return tuple(
        side
        for side in sides
        if validation.eyes in ("both", side) and of_eye(validation, side).data_loss > 1 - LEAST_VALID
    )


@dataclass(frozen=True)
class LesionSize:
    """Diameter of the smallest lesion that gaze of some accuracy can mark."""

    degrees: float
    screen_mm: float
    image_px: float | None
    image_mm: float | None
    """In the body, where the image tells its spacing."""


def smallest_lesion(
    validation: Validation,
    geometry: ScreenGeometry,
    degrees_per_image_px: float | None = None,
    spacing_mm: float | None = None,
) -> LesionSize | None:
    """Return what lesions the accuracy found supports; None where a target was never seen.

    Parameters
    ----------
    degrees_per_image_px
        Of images as they will be shown, where that is known.
    spacing_mm
        Millimetres in the body that an image pixel covers, where that is known.
    """
    degrees = validation.smallest_lesion_deg
    if not math.isfinite(degrees):
        return None
    screen_mm = 2 * geometry.viewing_distance_mm * math.tan(math.radians(degrees / 2))
    image_px = degrees / degrees_per_image_px if degrees_per_image_px else None
    image_mm = image_px * spacing_mm if image_px is not None and spacing_mm else None
    return LesionSize(degrees, screen_mm, image_px, image_mm)


# Drift


@dataclass(frozen=True)
class DriftCheck:
    """How far gaze lay from an anchor that the person looked at."""

    x: float
    """The anchor, normalised to the screen, as y."""
    y: float
    offset_deg: tuple[float, float]
    """Median gaze minus anchor, x to the right and y down."""
    distance_deg: float

    @property
    def verdict(self) -> DriftVerdict:
        """What is to be done."""
        if self.distance_deg > DRIFT_DEG[1]:
            return "recalibrate"
        return "revalidate" if self.distance_deg > DRIFT_DEG[0] else "ok"

    @property
    def correction_deg(self) -> tuple[float, float]:
        """What, added to gaze in degrees, would put it on the anchor; kept beside raw gaze, never applied to it."""
        return -self.offset_deg[0], -self.offset_deg[1]


def check_drift(samples: Samples, anchor: Point, geometry: ScreenGeometry, eyes: Eyes = "both") -> DriftCheck:
    """Measure the drift from samples (N) during which the eyes rested on the anchor for 0.4 s.

    Raises
    ------
    UserError
        If the eyes were not seen for long enough.
    """
    found = most_stable(samples, geometry, eyes, DRIFT_SPAN_S)
    if found is None or not math.isfinite(found[1]):
        raise UserError("The eyes were not seen while the drift was checked: sit as before, and check again.")
    directions = _directions_deg(found[0], geometry, eyes)
    offset = np.nanmedian(directions, axis=0) - geometry.degrees_from_normalised(np.array(anchor))
    x, y = float(offset[0]), float(offset[1])
    return DriftCheck(anchor[0], anchor[1], (x, y), math.hypot(x, y))


# Events


def calibration_event(outcome: CalibrationOutcome, time_ns: int) -> RecordingEvent:
    """Return what recordings keep of a device's calibration.

    ``calibration``: ``eyes``, ``points_n``, ``text`` and ``points``, each a
    :class:`~gaze_capture.trackers.tracker.CalibrationPoint`. A calibration that failed left the tracker without one
    and is a ``note`` with ``text`` alone: it chose no eyes.
    """
    if outcome.eyes is None:
        return RecordingEvent(time_ns, "note", {"text": outcome.text})
    points = [asdict(point) for point in outcome.points]
    values = {"eyes": outcome.eyes, "points": points, "text": outcome.text, "points_n": len(points)}
    return RecordingEvent(time_ns, "calibration", values)


def restored_event(eyes: Eyes, points: int, saved_utc: str, time_ns: int) -> RecordingEvent:
    """Return what recordings keep of a saved calibration in use again: as above, and ``saved_utc``."""
    values: dict[str, Any] = {"eyes": eyes, "points": [], "points_n": points, "saved_utc": saved_utc}
    values["text"] = "A saved calibration was used again."
    return RecordingEvent(time_ns, "calibration", values)


def validation_event(validation: Validation, points: int, time_ns: int) -> RecordingEvent:
    """Return what recordings keep of a validation after a calibration on some points.

    ``validation``: ``validation`` as :meth:`Validation.to_json` gives it, ``summary`` (a
    :class:`~gaze_capture.recording.Calibration`, or null where a target was never seen) and ``verdict``.
    """
    summary = validation.summary(points)
    values = {
        "validation": validation.to_json(),
        "summary": asdict(summary) if summary is not None else None,
        "verdict": validation.verdict,
    }
    return RecordingEvent(time_ns, "validation", values)


def drift_event(check: DriftCheck, time_ns: int) -> RecordingEvent:
    """Return what recordings keep of a drift check.

    ``drift``: ``x``, ``y``, ``offset_deg`` (x and y, gaze minus anchor), ``distance_deg`` and ``verdict``.
    """
    values = {**asdict(check), "offset_deg": list(check.offset_deg), "verdict": check.verdict}
    return RecordingEvent(time_ns, "drift", values)
