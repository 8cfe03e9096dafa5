"""What a person decides about an import: how files are read, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gaze_capture.errors import UserError
from segmentation.stacks import MODALITIES, Modality

Deidentify = Literal["auto", "names", "off"]
"""``auto``: headers of medical formats; ``names``: file names, too; ``off``: patients keep the ids their files have."""


@dataclass(frozen=True)
class ImportOptions:
    """How files are read and what becomes of them."""

    split: str = "train"
    group_by: str | None = None
    """Regular expression on the file's path; its first group (or whole match) names the image's group."""
    modality: Modality | None = None
    """Replaces what the files say, e.g. ``ct`` for NIfTI, which does not say."""
    axis: int | None = None
    """Along which axis of the volume's right-anterior-superior grid NIfTI and NRRD are sliced; None: the coarsest."""
    every: int = 1
    """Of a video, every n-th frame."""
    deidentify: Deidentify = "auto"
    key: Path | None = None
    """File of the secret key that pseudonyms are made with, where it is not in its usual place."""
    blank: tuple[tuple[int, int, int, int], ...] = ()
    """x, y, width, height in pixels: painted over with the darkest value, for text burned into the image."""

    def __post_init__(self) -> None:
        if self.modality is not None and self.modality not in MODALITIES:
            raise UserError(f"There is no modality {self.modality!r}; choose one of {', '.join(MODALITIES)}.")
        if self.axis not in (None, 0, 1, 2):
            raise UserError(f"A volume has the axes 0, 1 and 2, not {self.axis}.")
        if self.every < 1:
            raise UserError(f"Frames can be taken every 1, 2, 3 ..., not every {self.every}.")
