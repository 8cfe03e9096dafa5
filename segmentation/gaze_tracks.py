"""The way the gaze went: maps of how near each pixel lies to the last part of an image's gaze track.

An approximation of GradTrack (Wang et al., MICCAI 2025), whose formulas were not verified: its reverse-truncated tracks
and distance maps are followed in their idea.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.fixations import Fixations
from segmentation.pseudomask import PseudoMaskSettings, kernel_px

NEAREST = 254
"""Value of a pixel on the track; 255 is left for what is unknown."""


def track_maps(
    looks: Sequence[Fixations],
    shape: tuple[int, int],
    size: int,
    shares: Sequence[float],
    settings: PseudoMaskSettings,
) -> npt.NDArray[np.uint8] | None:
    """Draw the maps of one target in one image.

    A track is the line through a look's fixations in order of time. For each share its beginning is cut off, so that
    the fixations kept last that share of all dwell, or a little more. A pixel at distance d from what is left is worth
    exp(-d^2 / (2 sigma^2)), sigma being the pseudo-mask's. Of several looks the nearest counts.

    Parameters
    ----------
    looks : the same image's; fixations that the pseudo-mask's settings leave out do not count
    shape : height, width of the image
    size : side of the square grid of the maps
    shares : above 0, up to 1

    Returns
    -------
    (len(shares), size, size), 0 far from the track to NEAREST on it; None where no fixation counts.
    """
    height, width = shape
    scale = np.array([size / width, size / height])
    maps: npt.NDArray[np.float32] | None = None
    for look in looks:
        counts = (
            (look.duration_ms >= settings.minimum_duration_ms)
            & (look.start_ms >= 0)
            & (np.rint(look.xy_px) >= 0).all(axis=1)
            & (np.rint(look.xy_px) <= [width - 1, height - 1]).all(axis=1)
        )
        if not counts.any() or (settings.annotators and look.annotator not in settings.annotators):
            continue
        order = np.argsort(look.start_ms[counts], kind="stable")
        places = ((look.xy_px[counts][order] + 0.5) * scale - 0.5).round().astype(np.int32)
        # How much of the dwell had still to come when a fixation ended.
        to_come = look.duration_ms[counts][order][::-1].cumsum()[::-1] - look.duration_ms[counts][order]
        sigma = np.prod(kernel_px(settings, shape, look.degrees_per_px, look.accuracy_deg) * scale) ** 0.5
        total = float(look.duration_ms[counts].sum())
        own = np.stack([_nearness(places[to_come < share * total], size, float(sigma)) for share in shares])
        maps = own if maps is None else np.maximum(maps, own)
    return None if maps is None else np.rint(maps * NEAREST).astype(np.uint8)


def _nearness(places: npt.NDArray[np.int32], size: int, sigma: float) -> npt.NDArray[np.float32]:
    away = np.ones((size, size), np.uint8)
    places = np.clip(places, 0, size - 1)
    # A line of one point alone is not drawn.
    away[places[:, 1], places[:, 0]] = 0
    cv2.polylines(away, [places.reshape(-1, 1, 2)], False, 0)
    distance = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    near: npt.NDArray[np.float32] = np.exp(-0.5 * (distance / max(sigma, 1.0)) ** 2, dtype=np.float32)
    return near
