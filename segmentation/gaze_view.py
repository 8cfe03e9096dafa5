"""What a vision-language model is shown of an image and its gaze: the very picture and the very words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from segmentation.explanation_settings import ViewSettings
from segmentation.images import encode_display, resize
from segmentation.questions import Question, blanked_in_words
from segmentation.view_geometry import Box, box_shown

CONTOUR_RGB = (0, 255, 255)
"""Cyan: rare in skin, mucosa and greyscale."""
BLANK_RGB = (128, 128, 128)
"""Grey: neither the black around an endoscope's picture nor anything to describe."""
_MOST_ALPHA = 0.5
"""Where the gaze dwelt longest, the image still shows through."""
_PERCENTILE_PIXELS = 1 << 20


@dataclass(frozen=True)
class Shown:
    """What leaves for a model: nothing else of a study does."""

    picture_png: bytes = field(repr=False)
    """Pixels only: no text, time or profile chunks."""
    prompt: str = field(repr=False)
    picture_sha256: str
    width: int
    """Of the picture, in pixels."""
    height: int
    notes: tuple[str, ...] = ()
    """What somebody who looks at the preview should know."""

    @property
    def prompt_sha256(self) -> str:
        """Hash of the words."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()


def shown(question: Question) -> Shown:
    """Make the picture and the words a model is asked with; the preview and every backend use this.

    The same question gives the same bytes.

    Raises
    ------
    UserError
        If the image cannot be read, its size is not the pseudo-mask's, or text is to be blanked and cannot be.
    """
    picture = encode_view(question)
    width, height = (int.from_bytes(picture[at : at + 4], "big") for at in (16, 20))
    return Shown(
        picture,
        question.prompt,
        hashlib.sha256(picture).hexdigest(),
        width,
        height,
        _notes(question),
    )


def _notes(question: Question) -> tuple[str, ...]:
    notes = []
    if question.view.crop_margin is not None and not question.region.any():
        notes.append("No region was looked at for long enough: the whole image is shown.")
    if question.view.mask_text:
        notes.append(blanked_in_words(question) or "Nothing in it looks like text; nothing was blanked.")
    elif question.image.burned_in:
        notes.append(
            f"The image is marked for text in its pixels ({question.image.burned_in}), which is not blanked."
        )
    return tuple(notes)


def encode_view(question: Question) -> bytes:
    """Make the picture a model is shown: downscaled, the gaze drawn in, PNG without metadata.

    Raises
    ------
    UserError
        See `shown`.
    """
    return encode_picture(
        question.pixels(), question.region, question.view, question.pseudomask.heatmap, question.blanked
    )


def encode_picture(
    image: npt.NDArray[np.float32],
    region: npt.NDArray[np.bool_],
    view: ViewSettings,
    heatmap: npt.NDArray[np.float32] | None = None,
    blanked: Sequence[Box] = (),
) -> bytes:
    """Draw the gaze into a picture and encode it.

    Parameters
    ----------
    image : (H, W, C) 0..1, C = 1 or 3
    region : (H, W) the broad level; may be empty
    view : what is drawn, what part is shown, and how large the picture may be
    heatmap : (H, W) 0..1
    blanked : rectangles of the image to fill
    """
    x, y, across, down = box_shown(region, view)
    part = np.s_[y : y + down, x : x + across]
    scale = min(1.0, view.side_px / max(across, down))
    size = max(1, round(down * scale)), max(1, round(across * scale))
    pixels = resize(image[part], *size)
    if pixels.shape[2] == 1:
        pixels = np.repeat(_stretched(pixels, image), 3, axis=2)
    picture = np.ascontiguousarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    for left, top, width, height in blanked:
        # Outwards to whole pixels of the picture: no row of a letter is left to be guessed from.
        x0, x1 = int((left - x) * size[1] / across), -int(-(left + width - x) * size[1] // across)
        y0, y1 = int((top - y) * size[0] / down), -int(-(top + height - y) * size[0] // down)
        picture[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = BLANK_RGB
    if heatmap is not None and view.drawn in ("heatmap", "both"):
        picture = _blended(picture, resize(heatmap[part], *size))
    if view.drawn in ("contour", "both"):
        _outline(picture, region[part])
    return encode_display(picture)


def _stretched(pixels: npt.NDArray[np.float32], image: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
    """Stretch greys over 0..1 by those of the whole image, so that a crop looks as it does in the image.

    Scanners leave most of a 16-bit range unused: unstretched a picture would be sent black.
    """
    step = max(1, int(np.sqrt(image.size / _PERCENTILE_PIXELS)))
    low, high = np.percentile(image[::step, ::step], [0.1, 99.9])
    stretched: npt.NDArray[np.floating] = (pixels - low) / max(float(high - low), 1e-6)
    return stretched


def _blended(picture: npt.NDArray[np.uint8], heatmap: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Lay a perceptually uniform colour map over a picture; where the gaze did not dwell, it stays as it is."""
    values = np.clip(heatmap, 0, 1)
    colours = cv2.applyColorMap(np.rint(values * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[:, :, ::-1]
    alpha = (_MOST_ALPHA * values)[:, :, np.newaxis]
    blended: npt.NDArray[np.uint8] = np.rint(picture * (1 - alpha) + colours * alpha).astype(np.uint8)
    return np.ascontiguousarray(blended)


def _outline(picture: npt.NDArray[np.uint8], region: npt.NDArray[np.bool_]) -> None:
    """Draw the contour of a region into a picture."""
    share = resize(region.astype(np.float32), *picture.shape[:2])
    inside = share > 0.5
    if not inside.any():
        # The words say that there is a contour: a region too small for the picture's pixels gets one, too.
        inside = share > 0
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(
        picture, contours, -1, CONTOUR_RGB, thickness=max(1, round(max(picture.shape[:2]) / 400))
    )
