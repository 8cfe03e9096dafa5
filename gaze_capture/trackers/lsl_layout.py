"""What the channels of an LSL gaze stream mean: the conventions of its meta-data, read and written.

Streams of type "Gaze" describe each channel by label, eye (left, right, both), type (ScreenX, ScreenY, Diameter,
Confidence, PositionX ...), unit and coordinate system: https://github.com/sccn/xdf/wiki/Gaze-Meta-Data. The
conventions have no place for the screen; Gaze Insight writes ``desc/screen`` with width_px, height_px, width_mm,
height_mm and viewing_distance_mm.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.recording import Floats, ScreenGeometry
from gaze_capture.trackers.screen import KnownScreen

STREAM_TYPE = "Gaze"
SCREEN_CENTRE = "screen-centre"
"""Coordinate system of eye positions from the screen's centre in mm: x to the right, y up, z towards the person."""

NORMALISED = ("normalized", "normalised", "norm", "fraction")
PIXELS = ("pixels", "pixel", "px")
MM_PER_UNIT = {
    "mm": 1.0, "millimeters": 1.0, "millimetres": 1.0, "millimeter": 1.0, "millimetre": 1.0,
    "m": 1000.0, "meters": 1000.0, "metres": 1000.0, "um": 0.001, "micrometers": 0.001,
}  # fmt: skip
FARTHEST = 10.0
"""Gaze farther off the screen than this many screens is a code for "missing" (EyeLink sends -32768), not gaze."""

Eye = Literal["left", "right", "both"]
WORDS = ("label", "eye", "type", "unit", "coordinate_system")


@dataclass(frozen=True)
class Channel:
    """What one channel says of itself, in lower case where words are compared."""

    index: int
    label: str
    eye: Eye
    type: str
    unit: str
    system: str

    def __str__(self) -> str:
        words = (self.label or f"channel {self.index + 1}", self.type or "no type", self.unit or "no unit")
        return f"{words[0]} ({words[1]}, {self.eye}, {words[2]})"


@dataclass(frozen=True)
class Gaze:
    """Values of samples (N), NaN where invalid."""

    left_xy: Floats
    """(N, 2) normalised to the screen."""
    right_xy: Floats
    pupil_mm: Floats
    """(N, 2) left and right."""
    eyes_mm: tuple[Floats, Floats] | None
    """(N, 3) left and right eye from the screen's centre, where the stream tells it."""


class Layout:
    """Which channel is what, of one stream.

    Parameters
    ----------
    xml
        The stream's full description.
    screen
        What the caller knows of the screen; used where the stream does not tell.
    min_confidence
        Gaze of less confidence is invalid.

    Raises
    ------
    UserError
        If no channels of gaze on a screen can be told (all channels are listed), or the screen is not known.
    """

    def __init__(self, xml: str, screen: KnownScreen, min_confidence: float = 0.6) -> None:
        root = ET.fromstring(xml)
        self.name = root.findtext("name", "")
        source = f"The LSL stream {self.name!r}"
        self.channels = _channels(root)
        self._min_confidence = min_confidence
        self._xy = {eye: self._pair(eye) for eye in ("left", "right", "both")}
        self.one_for_both = self._xy["left"] is None and self._xy["right"] is None
        if self.one_for_both and self._xy["both"] is None:
            listed = "; ".join(map(str, self.channels)) or "none that says what it is"
            raise UserError(
                f"{source} has no channels of type ScreenX and ScreenY, in pixels or normalised, that refer to a "
                f"screen; its channels are: {listed}. Have its sender describe them, or choose another stream."
            )
        self.geometry: ScreenGeometry = _screen(root).filled(screen).geometry(source)
        self.simulated_from = root.findtext("desc/gaze_insight/simulated_from") or None
        made = [root.findtext(f"desc/acquisition/{word}") or "" for word in ("manufacturer", "model")]
        serial = root.findtext("desc/acquisition/serial_number") or ""
        self.label = " ".join(word for word in (*made, serial and f"({serial})") if word)

    def read(self, sent: npt.NDArray[np.number[Any]]) -> Gaze:
        """Return the gaze in the values (N, channels) of a stream."""
        values: Floats = sent.astype(np.float64)
        left, right = ("both", "both") if self.one_for_both else ("left", "right")
        pupil = np.stack([self._pupil("left", values), self._pupil("right", values)], axis=1)
        left_mm, right_mm = self._position("left", values), self._position("right", values)
        eyes_mm = None if left_mm is None or right_mm is None else (left_mm, right_mm)
        return Gaze(self._screen_xy(left, values), self._screen_xy(right, values), pupil, eyes_mm)

    def _of(self, type_: str, eye: str) -> Channel | None:
        return next((item for item in self.channels if (item.type, item.eye) == (type_, eye)), None)

    def _pair(self, eye: str) -> tuple[Channel, Channel] | None:
        x, y = self._of("screenx", eye), self._of("screeny", eye)
        if x is None or y is None or x.unit != y.unit or x.unit not in (*NORMALISED, *PIXELS):
            return None
        # Those of head-mounted trackers refer to the picture of the scene camera, which moves over the screen.
        return None if re.match("world|camera|object|head", x.system) else (x, y)

    def _screen_xy(self, eye: str, values: Floats) -> Floats:
        pair = self._xy[eye]
        if pair is None:
            return np.full((len(values), 2), math.nan)
        xy = values[:, [pair[0].index, pair[1].index]]
        if pair[0].unit in PIXELS:
            xy = xy / [self.geometry.width_px, self.geometry.height_px]
        confidence = self._of("confidence", eye) or self._of("confidence", "both")
        valid: npt.NDArray[np.bool_] = np.all(np.abs(xy - 0.5) <= FARTHEST, axis=1)
        if confidence is not None:
            scale = 100.0 if confidence.unit in ("percent", "%") else 1.0
            valid &= values[:, confidence.index] >= self._min_confidence * scale
        return np.where(valid[:, np.newaxis], xy, math.nan)

    def _pupil(self, eye: str, values: Floats) -> Floats:
        for type_, diameters in (("diameter", 1.0), ("radius", 2.0)):
            for which in (eye, "both"):
                channel = self._of(type_, which)
                # Pixels of the eye's camera are no measure.
                if channel is not None and channel.unit in MM_PER_UNIT:
                    size = values[:, channel.index] * diameters * MM_PER_UNIT[channel.unit]
                    return np.where(size > 0, size, math.nan)
        return np.full(len(values), math.nan)

    def _position(self, eye: str, values: Floats) -> Floats | None:
        axes = [self._of(f"position{axis}", eye) for axis in "xyz"]
        found = [axis for axis in axes if axis is not None and axis.system == SCREEN_CENTRE]
        if len(found) < 3 or any(axis.unit not in MM_PER_UNIT for axis in found):
            return None
        return values[:, [axis.index for axis in found]] * MM_PER_UNIT[found[0].unit]


def _channels(root: ET.Element) -> list[Channel]:
    channels = []
    for index, element in enumerate(root.findall("desc/channels/channel")):
        text = {name: (element.findtext(name) or "").strip() for name in WORDS}
        eye = text["eye"].lower() or _eye_in(text["label"])
        channels.append(
            Channel(
                index,
                text["label"],
                "left" if eye.startswith("l") else "right" if eye.startswith("r") else "both",
                text["type"].lower(),
                text["unit"].lower(),
                text["coordinate_system"].lower(),
            )
        )
    return channels


def _eye_in(label: str) -> str:
    found = re.search(r"left|right", label, re.IGNORECASE)
    return found.group().lower() if found else "both"


def _screen(root: ET.Element) -> KnownScreen:
    def number(name: str) -> float | None:
        try:
            value = float(root.findtext(f"desc/screen/{name}") or "")
        except ValueError:
            return None
        return value if 0 < value < math.inf else None

    width_px, height_px, width_mm, height_mm = map(number, ("width_px", "height_px", "width_mm", "height_mm"))
    return KnownScreen(
        (round(width_px), round(height_px)) if width_px and height_px else None,
        (width_mm, height_mm) if width_mm and height_mm else None,
        number("viewing_distance_mm"),
    )


PUBLISHED = tuple(
    (f"{eye}_{name}", eye, type_, unit, system)
    for eye in ("left", "right")
    for name, type_, unit, system in (
        ("gaze_x", "ScreenX", "normalized", "image-space"),
        ("gaze_y", "ScreenY", "normalized", "image-space"),
        ("pupil", "Diameter", "mm", ""),
        ("eye_x", "PositionX", "mm", SCREEN_CENTRE),
        ("eye_y", "PositionY", "mm", SCREEN_CENTRE),
        ("eye_z", "PositionZ", "mm", SCREEN_CENTRE),
    )
)
"""Label, eye, type, unit and coordinate system of the channels that Gaze Insight publishes."""


def describe(
    description: Any, geometry: ScreenGeometry, model: str, simulated_from: str | None, tracker: str
) -> None:
    """Write what :class:`Layout` reads into the description (a pylsl ``XMLElement``) of a stream to be published."""
    channels = description.append_child("channels")
    for words in PUBLISHED:
        channel = channels.append_child("channel")
        for name, word in zip(WORDS, words, strict=True):
            if word:
                channel.append_child_value(name, word)
    screen = description.append_child("screen")
    for name in ("width_px", "height_px", "width_mm", "height_mm", "viewing_distance_mm"):
        screen.append_child_value(name, repr(getattr(geometry, name)))
    description.append_child("acquisition").append_child_value("model", model)
    own = description.append_child("gaze_insight")
    own.append_child_value("tracker", tracker)
    if simulated_from:
        own.append_child_value("simulated_from", simulated_from)
