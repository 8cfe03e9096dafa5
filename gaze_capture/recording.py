"""What one sitting in front of a tracker leaves behind: samples, geometry, calibration, placements."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

SAMPLE = np.dtype(
    [
        ("time_ns", "<i8"),
        ("device_time_ns", "<i8"),
        ("left_x", "<f4"),
        ("left_y", "<f4"),
        ("right_x", "<f4"),
        ("right_y", "<f4"),
        ("pupil_left", "<f4"),
        ("pupil_right", "<f4"),
    ]
)
"""One sample as trackers hand it out and recordings keep it: host and device time in ns, each eye's position
normalised to the screen, pupil diameters in mm; NaN where invalid."""

Samples = npt.NDArray[np.void]
"""(N,) of dtype :data:`SAMPLE`."""

Presence = Literal["present", "absent", "unsure", "ungradable"]
"""An annotator's word on a target in an image."""
UNDECIDED: tuple[Presence, ...] = ("unsure", "ungradable")
"""Words that leave a target in an image without a label."""


@dataclass(frozen=True)
class ScreenGeometry:
    """The screen's size in pixels and millimetres, and the eyes' distance from it."""

    width_px: int
    height_px: int
    width_mm: float
    height_mm: float
    viewing_distance_mm: float

    def degrees_from_normalised(self, xy: npt.NDArray[np.floating[Any]]) -> Floats:
        """Convert normalised screen positions (..., 2) to degrees (..., 2) from the screen's centre.

        Each axis on its own: ``atan(mm / viewing distance)``.
        """
        size_mm = np.array([self.width_mm, self.height_mm])
        offset_mm = (np.asarray(xy, dtype=np.float64) - 0.5) * size_mm
        degrees: Floats = np.degrees(np.arctan(offset_mm / self.viewing_distance_mm))
        return degrees

    def normalised_from_degrees(self, degrees: npt.NDArray[np.floating[Any]]) -> Floats:
        """Invert :meth:`degrees_from_normalised`."""
        size_mm = np.array([self.width_mm, self.height_mm])
        offset_mm = np.tan(np.radians(np.asarray(degrees, dtype=np.float64))) * self.viewing_distance_mm
        normalised: Floats = offset_mm / size_mm + 0.5
        return normalised

    def screen_px_from_normalised(self, xy: npt.NDArray[np.floating[Any]]) -> Floats:
        """Convert normalised screen positions (..., 2) to screen pixels (..., 2)."""
        pixels: Floats = np.asarray(xy, dtype=np.float64) * np.array([self.width_px, self.height_px])
        return pixels

    @property
    def degrees_per_screen_px(self) -> float:
        """Degrees that one screen pixel covers at the screen's centre, mean of both axes."""
        mm_per_px = (self.width_mm / self.width_px + self.height_mm / self.height_px) / 2
        return math.degrees(math.atan(mm_per_px / self.viewing_distance_mm))


@dataclass(frozen=True)
class Calibration:
    """How well the calibrated tracker was found to measure, in degrees, on fresh validation targets."""

    points: int
    mean_error_deg: float
    max_error_deg: float
    rms_s2s_deg: float
    data_loss: float
    """Share of invalid samples during validation, 0..1."""


Eyes = Literal["both", "left", "right"]
"""The eyes whose gaze counts."""

EventKind = Literal[
    "connection", "clock", "rate", "note", "calibration", "validation", "drift", "distance",
    "pause", "resume", "found", "look_again", "practice", "image", "instruction", "correction",
]  # fmt: skip
"""What events of a recording tell of; their values are documented where they are made."""


@dataclass(frozen=True)
class RecordingEvent:
    """Something that happened during a recording, other than a sample or a placement."""

    time_ns: int
    """Host ``time.monotonic_ns()``."""
    kind: EventKind
    values: dict[str, Any]
    """JSON values."""


@dataclass(frozen=True)
class Placement:
    """What was shown from when to when, and where; every zoom, pan or change of image starts a new one."""

    image_id: str
    target_id: str | None
    """The target looked for; None while viewing freely."""
    start_ns: int
    end_ns: int
    image_from_screen: Floats
    """3x3 homogeneous transform from screen pixels to image pixels (pixel centres at whole numbers)."""
    viewport_px: tuple[int, int, int, int]
    """x, y, width, height of the canvas on the screen, in screen pixels."""
    window_level: tuple[float, float] | None = None
    presence: Presence | None = None
    """The annotator's word on the target, given before the next image was shown."""
    instance: int | None = None
    """Number of the lesion looked at, where the annotator tells several of one target apart."""

    def image_px_from_screen_px(self, xy: Floats) -> Floats:
        """Map screen pixels (..., 2) to image pixels (..., 2)."""
        homogeneous = np.concatenate([xy, np.ones((*xy.shape[:-1], 1))], axis=-1) @ self.image_from_screen.T
        mapped: Floats = homogeneous[..., :2] / homogeneous[..., 2:]
        return mapped

    def degrees_per_image_px(self, geometry: ScreenGeometry) -> float:
        """Degrees that one image pixel covers at the screen's centre."""
        image_px_per_screen_px = math.sqrt(abs(float(np.linalg.det(self.image_from_screen[:2, :2]))))
        return geometry.degrees_per_screen_px / image_px_per_screen_px


@dataclass(frozen=True)
class Recording:
    """The samples (N) of one sitting, with everything needed to say where on which image they fell."""

    id: str
    annotator: str
    tracker: str
    geometry: ScreenGeometry
    calibration: Calibration | None
    started_utc: str
    """ISO 8601 with time zone."""
    time_ns: Int64s
    """(N,) host ``time.monotonic_ns()``, ascending."""
    device_time_ns: Int64s
    """(N,) the tracker's own clock."""
    left_xy: Float32s
    """(N, 2) normalised screen position, may lie outside 0..1, NaN where invalid."""
    right_xy: Float32s
    pupil_mm: Float32s
    """(N, 2) left and right pupil diameter in mm, NaN where invalid."""
    placements: tuple[Placement, ...]
    simulated_from: str | None = None
    """``"masks"`` or ``"saliency"`` where no person looked; every result made of it must say so."""
    events: tuple[RecordingEvent, ...] = ()
    """In the order in which they were stored."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Facts a reader may want: nominal rate, lost samples, what a recovery cut off."""

    @property
    def eyes(self) -> Eyes:
        """The eyes that were calibrated last, and whose gaze therefore counts."""
        chosen: list[Eyes] = [event.values["eyes"] for event in self.events if event.kind == "calibration"]
        return chosen[-1] if chosen and chosen[-1] in ("left", "right") else "both"

    def accuracy_at(self, time_ns: int) -> float | None:
        """Return the mean error in degrees that the last validation before a time found; None where unknown.

        Where a validation found no gaze at all, or none came before, what the recording began with counts.
        """
        before = [event for event in self.events if event.kind == "validation" and event.time_ns <= time_ns]
        summary = before[-1].values.get("summary") if before else None
        if summary is not None:
            return float(summary["mean_error_deg"])
        return self.calibration.mean_error_deg if self.calibration is not None else None

    @property
    def samples(self) -> Samples:
        """The samples (N,) as one array of dtype :data:`SAMPLE`."""
        return pack_samples(self.time_ns, self.device_time_ns, self.left_xy, self.right_xy, self.pupil_mm)


def pack_samples(
    time_ns: Int64s,
    device_time_ns: Int64s,
    left_xy: npt.NDArray[np.floating[Any]],
    right_xy: npt.NDArray[np.floating[Any]],
    pupil_mm: npt.NDArray[np.floating[Any]],
) -> Samples:
    """Pack columns, (N,) and (N, 2) as in :class:`Recording`, into samples (N,)."""
    samples = np.empty(len(time_ns), dtype=SAMPLE)
    samples["time_ns"], samples["device_time_ns"] = time_ns, device_time_ns
    for name, pair in (("left_", left_xy), ("right_", right_xy)):
        samples[name + "x"], samples[name + "y"] = pair[:, 0], pair[:, 1]
    samples["pupil_left"], samples["pupil_right"] = pupil_mm[:, 0], pupil_mm[:, 1]
    return samples


def gaze_xy(
    left_xy: npt.NDArray[np.floating[Any]], right_xy: npt.NDArray[np.floating[Any]], eyes: Eyes = "both"
) -> Floats:
    """Return the mean of the valid eyes (N, 2) among those that count, NaN where none of them is valid."""
    chosen = {"both": (left_xy, right_xy), "left": (left_xy,), "right": (right_xy,)}[eyes]
    xy = np.stack(chosen).astype(np.float64)
    valid = np.isfinite(xy).all(axis=2, keepdims=True)
    count = valid.sum(axis=0)
    mean: Floats = np.where(valid, xy, 0.0).sum(axis=0) / np.where(count == 0, np.nan, count)
    return mean


def eye_positions(samples: Samples, eyes: Eyes = "both") -> Floats:
    """Return :func:`gaze_xy` of samples (N), normalised to the screen."""
    left_xy = np.stack([samples["left_x"], samples["left_y"]], axis=1)
    return gaze_xy(left_xy, np.stack([samples["right_x"], samples["right_y"]], axis=1), eyes)
