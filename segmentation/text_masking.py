"""Finds what should be blanked before a picture leaves: text burned into pixels, rather too much than too little."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segmentation.readers.burned_in import likely_text
from segmentation.view_geometry import Box


def text_boxes(display: npt.NDArray[np.uint8]) -> tuple[Box, ...]:
    """Return rectangles of an image that look like text.

    Parameters
    ----------
    display : (H, W, 3) RGB as it is displayed
    """
    return tuple(likely_text(display))
