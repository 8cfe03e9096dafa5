"""Whether the eyes have been on the mask that is judged: gaze is followed live, and nothing of it kept but the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QObject, Qt, QTimer, Signal

from app.canvas import Canvas
from app.gaze_feed import GazeFeed
from app.jobs import StepProgress, Task
from app.simulated_looks import SimulatedLooks
from app.sitting import image_xy
from gaze_capture.quality import MAX_ERROR_DEG, MEAN_ERROR_DEG, Validation
from gaze_capture.recording import Floats, Placement, eye_positions
from gaze_capture.trackers.simulated import SimulatedTracker
from gaze_capture.trackers.tracker import Tracker
from segmentation.study import Mask, Study

Distances = npt.NDArray[np.float32]

LOOKED_MS = 200.0
"""Eyes that were on a mask for less have not rested on it: a fixation that takes a picture in lasts 200 ms and more
(Rayner, Psychological Bulletin 124, 1998: 330 ms in the mean while viewing scenes)."""
TICK_MS = 30
LONGEST_STEP_MS = 50.0
"""A sample counts until the next one, at most so long: after a gap nobody knows where the eyes were."""
EXACT_SIDE_PX = 1024
"""Distances to masks in larger images are worked out on a grid of about so many pixels."""
NOMINAL_DEG = 0.5
"""Accuracy of what needs no calibration: the pointer, and the simulated eye."""


@dataclass(frozen=True)
class ReviewTracker:
    """The tracker that is followed, and how exact it is."""

    name: str
    """For people."""
    make: Callable[[], Tracker]
    """Makes it, not opened yet; may take seconds and raise UserError."""
    needs_calibration: bool
    validation: Validation | None
    """The last one of this session of the program."""

    @property
    def accuracy_deg(self) -> float | None:
        """How far gaze may lie from where the eyes look; None where that is not known, or too far."""
        if not self.needs_calibration:
            return NOMINAL_DEG
        found = self.validation
        if (
            found is None
            or found.mean_error_deg > MEAN_ERROR_DEG[1]
            or found.max_error_deg > MAX_ERROR_DEG[1]
        ):
            return None
        return found.mean_error_deg


class EyesOnMask(QObject):
    """Follows one tracker while masks are judged on a canvas."""

    told = Signal(str, str)
    """What the switch says beside it, and its role."""
    failed = Signal(str, str)
    """Why the tracker cannot be followed, and details."""

    def __init__(self, canvas: Canvas, parent: QObject) -> None:
        super().__init__(parent)
        self._canvas = canvas
        self._wanted: ReviewTracker | None = None
        self._tracker: Tracker | None = None
        self._feed: GazeFeed | None = None
        self._mask: Mask | None = None
        self._away_px: Distances | None = None
        self._study: Study | None = None
        self._key: tuple[str, str] | None = None
        self._on_mask_ms = 0.0
        self._before_ns: int | None = None
        self._since_ns = 0
        self._timer = QTimer(self, interval=TICK_MS, timerType=Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self.tick)
        self._looks = SimulatedLooks(self)

    @property
    def following(self) -> bool:
        """Whether a tracker delivers."""
        return self._feed is not None

    @property
    def on_mask_ms(self) -> float | None:
        """How long the eyes were on the mask shown; None where nobody can tell."""
        trusted = self._wanted is not None and self._wanted.accuracy_deg is not None
        counts = self._feed is not None and trusted and self._away_px is not None
        return self._on_mask_ms if counts else None

    # The tracker

    def start(self, wanted: ReviewTracker) -> None:
        """Connect, off the window's thread, and follow."""
        self.stop()
        self._wanted = wanted

        def work(_: StepProgress) -> Tracker:
            tracker = wanted.make()
            tracker.open()
            return tracker

        self.told.emit(self.tr("Connecting to {name}…").format(name=wanted.name), "muted")
        task = Task(work, self.tr("Connecting to the tracker"), self)
        task.succeeded.connect(lambda tracker: self._connected(wanted, tracker))
        task.failed.connect(lambda text, details: self._on_failed(wanted, text, details))
        task.ended.connect(task.deleteLater)
        task.start()

    def _on_failed(self, wanted: ReviewTracker, text: str, details: str) -> None:
        if self._wanted is wanted:
            self.stop()
            self.failed.emit(text, details)

    def _connected(self, wanted: ReviewTracker, tracker: Tracker) -> None:
        if self._wanted is not wanted:
            # Switched off meanwhile.
            tracker.close()
            return
        self._tracker, self._feed = tracker, GazeFeed(tracker)
        self._timer.start()
        if wanted.accuracy_deg is None:
            why = (
                self.tr(
                    "{name} was not validated since the program started, so looks do not count: calibrate first."
                )
                if wanted.validation is None
                else self.tr("{name} was validated as too inexact, so looks do not count: calibrate again.")
            )
            self.told.emit(why.format(name=wanted.name), "warning")
        else:
            exact = self.tr("{name}, exact to {degrees:.1f}°")
            self.told.emit(exact.format(name=wanted.name, degrees=wanted.accuracy_deg), "muted")
        self._begin()

    def stop(self) -> None:
        """Let go of the tracker."""
        self._timer.stop()
        self._looks.clear()
        self._wanted = None
        if self._feed is not None:
            self._feed.close()
            self._feed = None
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None

    def close(self) -> None:
        """Let go, and end the threads."""
        self.stop()
        self._looks.stop()

    # The mask

    def show(self, study: Study, key: tuple[str, str], mask: Mask | None) -> None:
        """Count for a mask (H, W) that is judged and the canvas shows; None where there is none.

        Another mask begins anew; the same one, shown again, is counted on. An empty mask has nothing to look at, and is
        not counted.
        """
        if study is self._study and key == self._key and _same(mask, self._mask):
            return
        self._study, self._key, self._mask = study, key, mask
        self._away_px = None if mask is None else distances_to(mask)
        self._begin()

    def forget(self) -> None:
        """Count for no mask until one is shown, be it the same again: a verdict was given."""
        self._study = self._key = self._mask = self._away_px = None

    def _begin(self) -> None:
        self._on_mask_ms = 0.0
        self._before_ns = None
        # What was measured before the mask was shown belongs to the one before.
        self._since_ns = time.monotonic_ns()
        tracker, study, key = self._tracker, self._study, self._key
        if isinstance(tracker, SimulatedTracker) and study is not None and key is not None:
            self._looks.draw(study, tracker, self._placement(key), sum(key[0].encode()))

    def _placement(self, key: tuple[str, str]) -> Placement:
        """Return where the image lies on the screen now."""
        now = time.monotonic_ns()
        return Placement(*key, now, now, self._canvas.image_from_screen(), self._canvas.viewport_on_screen())

    def tick(self) -> None:
        """Take what the tracker delivered."""
        feed, tracker, wanted, key = self._feed, self._tracker, self._wanted, self._key
        if feed is None or tracker is None or wanted is None:
            return
        samples = feed.drain()
        samples = samples[samples["time_ns"] >= self._since_ns]
        accuracy_deg = wanted.accuracy_deg
        if accuracy_deg is None or key is None or self._away_px is None or not len(samples):
            return
        times = samples["time_ns"]
        before = times[0] if self._before_ns is None else self._before_ns
        self._before_ns = int(times[-1])
        steps_ms = np.minimum(np.diff(np.concatenate([[before], times])) / 1e6, LONGEST_STEP_MS)
        # Zoom and pan may have changed at any time.
        placement = self._placement(key)
        xy = image_xy(samples, eye_positions(samples, "both"), tracker.geometry, placement)
        reach_px = accuracy_deg / placement.degrees_per_image_px(tracker.geometry)
        self._on_mask_ms += float(steps_ms[within(self._away_px, xy, reach_px)].sum())


def _same(one: Mask | None, other: Mask | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


def distances_to(mask: Mask) -> Distances | None:
    """Return how far each pixel lies from a mask (H, W); None from an empty one.

    Of a large image exact to a few of its pixels, which is far less than gaze is: it is worked out on a coarser grid,
    in the window's thread.
    """
    if not mask.any():
        return None
    height, width = mask.shape
    coarser = max(1, round(max(height, width) / EXACT_SIDE_PX))
    inside: npt.NDArray[np.uint8] = mask.view(np.uint8)
    if coarser > 1:
        size = (-(-width // coarser), -(-height // coarser))
        # However little of a coarse pixel it is, it counts: a small mask must not vanish.
        inside = cv2.resize(inside * np.uint8(255), size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    away: Distances = cv2.distanceTransform((inside == 0).astype(np.uint8), cv2.DIST_L2, 5).astype(np.float32)
    if coarser > 1:
        away = cv2.resize(away * coarser, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    return away


def within(away_px: Distances, xy: Floats, reach_px: float) -> npt.NDArray[np.bool_]:
    """Return which places (N, 2), x and y in image pixels, lie on a mask or within `reach_px` of it.

    Places that are no numbers, because no eye was seen, lie nowhere. `away_px` (H, W) tells how far pixels lie from the
    mask.
    """
    height, width = away_px.shape
    seen: npt.NDArray[np.bool_] = np.isfinite(xy[:, 0]) & np.isfinite(xy[:, 1])
    places = np.where(seen[:, np.newaxis], xy, 0.0)
    inside = np.clip(places, 0, [width - 1, height - 1])
    columns, rows = np.rint(inside).astype(int).T
    beyond = np.hypot(*(places - inside).T)
    near: npt.NDArray[np.bool_] = seen & (away_px[rows, columns] + beyond <= reach_px)
    return near
