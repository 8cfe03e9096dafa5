"""The very picture that a vision-language model is shown of an image and its gaze."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from segmentation.explanation_settings import ViewSettings
from segmentation.images import resize
from segmentation.questions import Question

CONTOUR_RGB = (0, 255, 255)
"""Cyan: rare in skin, mucosa and greyscale."""


def encode_view(question: Question) -> bytes:
    """Make the picture a model is shown: downscaled, the gaze drawn in, PNG without metadata.

    Raises
    ------
    UserError
        If the image cannot be read or its size is not the pseudo-mask's.
    """
    return encode_picture(question.pixels(), question.region, question.view)


def encode_picture(
    image: npt.NDArray[np.float32], region: npt.NDArray[np.bool_], view: ViewSettings
) -> bytes:
    """Draw the gaze into a picture and encode it.

    Parameters
    ----------
    image : (H, W, C) 0..1, C = 1 or 3
    region : (H, W) the broad level; may be empty
    view : what is drawn, and how large the picture may be
    """
    height, width = region.shape
    scale = min(1.0, view.side_px / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    pixels = resize(image, *size)
    if pixels.shape[2] == 1:
        # Scanners leave most of a 16-bit range unused: unstretched it would be sent black.
        low, high = np.percentile(pixels, [0.1, 99.9])
        pixels = (pixels - low) / max(float(high - low), 1e-6)
        pixels = np.repeat(pixels, 3, axis=2)
    picture = np.ascontiguousarray(np.rint(np.clip(pixels[:, :, ::-1], 0, 1) * 255).astype(np.uint8))
    outline = (resize(region.astype(np.float32), *size) > 0.5).astype(np.uint8)
    contours, _ = cv2.findContours(outline, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, CONTOUR_RGB[::-1], thickness=max(1, round(max(size) / 400)))
    ok, data = cv2.imencode(".png", picture)
    if not ok:
        raise ValueError("a picture that PNG cannot hold")
    return data.tobytes()
