"""Pictures as tests look at them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from segmentation.images import read_stored
from segmentation.intensity import AS_IT_IS, shown


def read_display(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture that is in no study as the screen would show it (H, W, 3)."""
    return shown(read_stored(path), AS_IT_IS)
