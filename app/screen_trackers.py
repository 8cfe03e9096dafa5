"""The trackers that need no device, made for the screen the canvas is on."""

from __future__ import annotations

import time

from PySide6.QtGui import QScreen

from gaze_capture.recording import ScreenGeometry
from gaze_capture.trackers.mouse import MouseTracker
from gaze_capture.trackers.simulated import SimulatedTracker
from segmentation.study import Study

USUAL_MM_PER_PX = 0.2767
"""Of a 24-inch monitor, where the screen does not say its size."""
VIEWING_DISTANCE_MM = 650.0


def geometry_of(screen: QScreen) -> ScreenGeometry:
    """Return a screen's geometry as far as it tells; a viewing distance of 65 cm is assumed."""
    ratio = screen.devicePixelRatio()
    size, millimetres = screen.geometry().size(), screen.physicalSize()
    width, height = round(size.width() * ratio), round(size.height() * ratio)
    known = millimetres.width() > 50 and millimetres.height() > 50
    width_mm = millimetres.width() if known else width * USUAL_MM_PER_PX
    height_mm = millimetres.height() if known else height * USUAL_MM_PER_PX
    return ScreenGeometry(width, height, float(width_mm), float(height_mm), VIEWING_DISTANCE_MM)


def tracker_of(
    kind: str, study: Study, target_id: str, geometry: ScreenGeometry, rate_hz: float
) -> MouseTracker | SimulatedTracker:
    """Return the tracker of a kind: ``"mouse"``, or ``"simulated"`` from masks where the study has any."""
    if kind == "mouse":
        return MouseTracker(geometry, rate_hz)
    masks = any(study.mask_path(image, target_id).exists() for image in study.images)
    seed = time.time_ns() % (1 << 31)
    return SimulatedTracker(rate_hz, geometry, seed=seed, simulated_from="masks" if masks else "saliency")
