"""The screen of a BIDS recording: its geometry, and positions in whatever unit and from whatever origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gaze_capture.errors import MissingFact, UserError
from gaze_capture.recording import Floats, ScreenGeometry

PIXELS = ("pixel", "pixels", "px")
DEGREES = ("degree", "degrees", "deg", "°")
MILLIMETRES = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
_FARTHEST_M = 10.0
"""A screen farther away than this, or larger, was told in centimetres against the standard."""


@dataclass(frozen=True)
class BidsScreen:
    """What is known of the screen; None where it is not."""

    size_px: tuple[int, int] | None = None
    size_mm: tuple[float, float] | None = None
    distance_mm: float | None = None

    def geometry(self) -> ScreenGeometry | None:
        """Return the whole geometry, or None where a part is unknown."""
        if self.size_px is None or self.size_mm is None or self.distance_mm is None:
            return None
        return ScreenGeometry(*self.size_px, *self.size_mm, self.distance_mm)


def screen_of(path: Path, events_meta: Mapping[str, Any], known: BidsScreen) -> BidsScreen:
    """Return what the metadata of the events say of the screen; what is known goes before it.

    Raises
    ------
    MissingFact
        If a length cannot be metres.
    """
    about = events_meta.get("StimulusPresentation")
    about = about if isinstance(about, dict) else {}
    resolution = _pair(about.get("ScreenResolution"))
    size = _pair(about.get("ScreenSize"))
    distance = about.get("ScreenDistance")
    if isinstance(distance, list) and len(distance) == 3:
        distance = distance[2]
    distance = float(distance) if isinstance(distance, int | float) else None
    for name, value, given, fact in (
        ("ScreenDistance", distance, known.distance_mm, "distance_mm"),
        ("ScreenSize", max(size) if size else None, known.size_mm, "screen_mm"),
    ):
        if given is None and value is not None and not 0 < value < _FARTHEST_M:
            raise MissingFact(
                f"{path}: {name} in its events.json is {value:g}, which cannot be metres, as BIDS wants it; correct "
                "it, or say --screen-mm and --distance-mm.",
                [fact],
            )
    return BidsScreen(
        known.size_px or (resolution and (round(resolution[0]), round(resolution[1]))),
        known.size_mm or (size and (size[0] * 1000, size[1] * 1000)),
        known.distance_mm or (None if distance is None else distance * 1000),
    )


def _pair(value: Any) -> tuple[float, float] | None:
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(n, int | float) and n > 0 for n in value)
    ):
        return float(value[0]), float(value[1])
    return None


def origin_of(path: Path, events_meta: Mapping[str, Any]) -> tuple[str, str]:
    """Return where the screen's coordinates begin: vertically and horizontally."""
    about = events_meta.get("StimulusPresentation")
    words = about.get("ScreenOrigin", ["top", "left"]) if isinstance(about, dict) else ["top", "left"]
    listed = [str(word).lower() for word in words] if isinstance(words, list) else []
    if listed == ["center", "center"]:
        return "center", "center"
    vertical = [word for word in listed if word in ("top", "bottom")]
    if len(listed) != 2 or len(vertical) != 1 or "left" not in listed:
        raise UserError(
            f"{path}: the ScreenOrigin {words!r} is not understood; it should be top left or center."
        )
    return vertical[0], "left"


def normalised(xy: Floats, unit: str, geometry: ScreenGeometry, origin: tuple[str, str]) -> Floats:
    """Return positions (N, 2) as shares of the screen from its top left corner."""
    if unit in DEGREES:
        # Degrees are measured from the middle, whatever the origin of pixels is.
        return geometry.normalised_from_degrees(xy * [1, -1 if origin[0] == "bottom" else 1])
    if unit == "normalised":
        shares = xy
    elif unit in PIXELS:
        shares = xy / [geometry.width_px, geometry.height_px]
    else:
        shares = xy * MILLIMETRES[unit] / [geometry.width_mm, geometry.height_mm]
    vertical, horizontal = origin
    if vertical == "bottom":
        shares = np.column_stack([shares[:, 0], 1 - shares[:, 1]])
    shift = [0.5 if horizontal == "center" else 0.0, 0.5 if vertical == "center" else 0.0]
    moved: Floats = shares + shift
    return moved
