"""What the operator sees of the gaze that comes in: dot and fixations on the canvas, meters on the panel."""

from __future__ import annotations

import time
from collections import deque

import numpy as np

from app.canvas import Canvas
from app.record_panel import RecordPanel
from app.scene import Marks
from app.sitting import image_xy
from gaze_capture.online import LiveFixations, OneEuro
from gaze_capture.recording import Eyes, Placement, Samples, ScreenGeometry, eye_positions
from segmentation.enough_gaze import EnoughGaze, GazeAmount

SPAN_S = 2.0
"""Rate and loss are those of so many seconds."""


class LiveGaze:
    """Draws samples as they come; never stores any."""

    def __init__(self, canvas: Canvas, panel: RecordPanel) -> None:
        self._canvas, self._panel = canvas, panel
        self.eyes: Eyes = "both"
        """Whose gaze counts, as calibrated."""
        self.mirror: Canvas | None = None
        """The participant's canvas, where they are to see their own gaze; it drags the eye along."""
        self._fixations = LiveFixations()
        self._filter = OneEuro()
        self._px_per_deg = 20.0
        """Image pixels a degree: of the placement when the image came; a zoom changes it no more."""
        self._before_ms = 0.0
        self._amount: EnoughGaze | None = None
        self._counted = 0
        self._dot: tuple[float, float] | None = None
        self._arrivals: deque[tuple[float, int, int, int]] = deque()

    @property
    def total_ms(self) -> float:
        """The time of all fixations on the image shown."""
        return self._fixations.total_ms

    @property
    def look_ms(self) -> float:
        """The time of all fixations of this look, on all slices of a volume."""
        return self._before_ms + self.total_ms

    @property
    def marks(self) -> Marks:
        """The fixations on the image shown, in its pixels."""
        xy_deg, duration_ms = self._fixations.fixations()
        return Marks(xy_deg * self._px_per_deg, duration_ms)

    @property
    def dot(self) -> tuple[float, float] | None:
        """Where gaze lies on the image shown, in its pixels; None where no eye is seen."""
        return self._dot

    def begin(self) -> None:
        """Begin anew, with a sitting."""
        self.mirror = None
        self.eyes = "both"
        self._arrivals.clear()

    def place(
        self, placement: Placement, geometry: ScreenGeometry, *, image: bool = False, look: bool = False
    ) -> None:
        """Follow a new placement: of another image or slice (`image`), of another look altogether (`look`)."""
        self._filter.reset()
        self._dot = None
        if image or look:
            self._amount, self._counted = None, 0
            self._px_per_deg = 1 / placement.degrees_per_image_px(geometry)
            self._before_ms = 0.0 if look else self.look_ms
            self._fixations = LiveFixations()

    @property
    def seen(self) -> tuple[float, float]:
        """Share of the last samples, 0..1, in which the left and the right eye were seen."""
        total = sum(item[1] for item in self._arrivals)
        left, right = (sum(item[eye] for item in self._arrivals) / max(1, total) for eye in (2, 3))
        return left, right

    def expect(self, amount: EnoughGaze) -> None:
        """Judge by this whether the image shown has had enough gaze."""
        self._amount, self._counted = amount, 0

    @property
    def amount(self) -> GazeAmount | None:
        """How much gaze the image shown has had; None where nobody asked."""
        return self._amount.amount if self._amount is not None else None

    def count(self, samples: Samples) -> None:
        """Take samples into account for rate and loss alone."""
        now = time.monotonic()
        left, right = np.isfinite(samples["left_x"]).sum(), np.isfinite(samples["right_x"]).sum()
        self._arrivals.append((now, len(samples), int(left), int(right)))
        while self._arrivals and now - self._arrivals[0][0] > SPAN_S:
            self._arrivals.popleft()

    def take(
        self, samples: Samples, counted: Samples, geometry: ScreenGeometry, placement: Placement
    ) -> None:
        """Draw the samples of a placement; `counted` are all that came, for the meters."""
        self.count(counted)
        if not len(samples):
            return
        # In degrees, so that the constants of filter and detector hold for every image and screen.
        points = image_xy(samples, eye_positions(samples, self.eyes), geometry, placement) / self._px_per_deg
        time_ms = samples["time_ns"] / 1e6
        self._fixations.add(time_ms, points)
        dot = self._filter.follow(time_ms, points)
        self._dot = None if dot is None else (dot[0] * self._px_per_deg, dot[1] * self._px_per_deg)
        self._add_up()
        if self._panel.show_gaze.isChecked():
            self._canvas.set_live(self._dot, self.marks)
        if self.mirror is not None:
            self.mirror.set_live(self._dot, None)

    def _add_up(self) -> None:
        if self._amount is not None:
            ended_deg, ended_ms = self._fixations.ended(self._counted)
            for (x, y), duration_ms in zip(
                (ended_deg * self._px_per_deg).tolist(), ended_ms.tolist(), strict=True
            ):
                self._amount.add(x, y, duration_ms)
            self._counted += len(ended_ms)

    def show_meters(self, seconds: float) -> tuple[float, float] | None:
        """Show eyes and amount on the panel; return rate in Hz and loss in percent, None before there are any."""
        if len(self._arrivals) < 2:
            return None
        span = max(self._arrivals[-1][0] - self._arrivals[0][0], 1e-3)
        count = sum(item[1] for item in list(self._arrivals)[1:])
        left, right = (100 * share for share in self.seen)
        self._panel.show_eyes(left, right)
        self._panel.show_amount(self.look_ms, len(self._fixations), seconds, self.amount)
        return count / span, abs(100 - max(left, right))
