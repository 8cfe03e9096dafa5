"""What every reader of images hands to the import: stacks of planes, and what is known of their space and values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Modality = Literal["photo", "ct", "mr", "us", "xr", "nm", "grey"]
"""`photo` is colour or grey as a camera or screen shows it; `grey` anything of one channel whose origin is unknown."""
MODALITIES: tuple[Modality, ...] = get_args(Modality)

Values = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class Plane:
    """One image or slice as it is stored: real value = values * slope + intercept."""

    values: Values
    """(H, W, C), C = 1 or 3 (RGB); uint8, uint16, or float32 (finite) where integers cannot hold it exactly."""
    slope: float = 1.0
    intercept: float = 0.0
    note: str = ""
    """What had to be changed to read it, e.g. how many values were no numbers."""


@dataclass(frozen=True)
class Stack:
    """A single image, or slices that belong together: a series, a volume, the pages of a file, the frames of a video.

    Nothing in it but `files` may name a patient: a reader that sees identities replaces them.
    """

    name: str
    """What ids are made of: the file's own name without ending or, de-identified, a pseudonym."""
    files: tuple[Path, ...]
    """Where it was read from; never stored."""
    shape: tuple[int, int, int]
    """Height, width and channels of every plane."""
    count: int
    """Number of planes."""
    read: Callable[[int], Plane]
    """Reads one plane, 0..count-1; may raise UserError. Called in ascending order, so that streams can be followed."""
    modality: Modality = "photo"
    unit: str = ""
    """Of the real values, e.g. ``"HU"``."""
    spacing_mm: tuple[float, float] | None = None
    """Millimetres from row to row and from column to column."""
    slice_spacing_mm: float | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    """4x4: (column, row, slice, 1) to millimetres in the patient, RAS+ (right, anterior, superior)."""
    window: tuple[float, float] | None = None
    """Centre and width, in real values, that the source proposes for display."""
    patient: str = ""
    """Pseudonym of the patient, or ``""``; images of one patient form one group."""
    series: str = ""
    """Pseudonymous id of the series, by which masks of the same series find it."""
    captured: str = ""
    """ISO 8601 time of capture, shifted where it was de-identified, or ``""``."""
    source_ids: tuple[str, ...] = ()
    """For each plane, the (replaced) id by which masks refer to it, e.g. a SOP instance UID; empty where none."""
    header: dict[str, Any] = field(default_factory=dict)
    """Kept facts of the source, ready for JSON."""
    burned_in: str = ""
    """Why burned-in text is likely, or ``""``."""
    notes: tuple[str, ...] = ()
    """What a person should know: missing spacing, uneven slices, repaired values."""


@dataclass(frozen=True)
class Refused:
    """A file that was not read, and why."""

    file: Path
    reason: str


@dataclass(frozen=True)
class LabelMap:
    """Masks that come with names: of a volume, a series or an image, one integer label a structure."""

    name: str
    """The image or volume it belongs to, by its file's name without ending; ``""`` where `source_ids` tell."""
    files: tuple[Path, ...]
    labels: dict[int, str]
    """Label value -> its name in the file; every label that occurs, 0 (background) left out."""
    shape: tuple[int, int]
    count: int
    read: Callable[[int, int], npt.NDArray[np.bool_]]
    """Reads the mask (H, W) of (plane, label); labels may overlap."""
    affine: tuple[tuple[float, ...], ...] | None = None
    """As in Stack; None where the planes simply follow the image's."""
    source_ids: tuple[str, ...] = ()
    """For each plane, the id of the image it was drawn on, or empty."""
