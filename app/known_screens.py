"""How large a screen is and how far the eyes are from it, as measured by whoever sits there; kept in the settings."""

from __future__ import annotations

import dataclasses
import re

from PySide6.QtCore import QSettings
from PySide6.QtGui import QGuiApplication, QScreen

from app.screen_trackers import geometry_of
from gaze_capture.errors import UserError
from gaze_capture.recording import ScreenGeometry

CARD_MM = 85.6
"""Width of a bank card (ISO/IEC 7810 ID-1)."""
SIDE_MM = (100.0, 3000.0)
DISTANCE_MM = (200.0, 2000.0)


def name_of(screen: QScreen) -> str:
    """Return what a screen is called; never empty."""
    return screen.name() or "screen"


def screen_named(name: str) -> QScreen | None:
    """Return a screen by its name, or None where it is not connected."""
    return next((screen for screen in QGuiApplication.screens() if name_of(screen) == name), None)


def _group(screen: QScreen) -> str:
    parts = (screen.manufacturer(), screen.model(), screen.serialNumber())
    # A screen keeps its size when it is plugged in elsewhere; one that says nothing of itself has only its plug.
    identity = " ".join(part for part in parts if part) or screen.name() or "screen"
    return f"screens/{re.sub(r'[^A-Za-z0-9 ._-]', '_', identity)}"


def known_geometry(settings: QSettings, screen: QScreen) -> ScreenGeometry:
    """Return a screen's geometry, as measured where it was, else as far as the screen tells."""
    told = geometry_of(screen)
    group = _group(screen)
    values = {}
    for name in ("width_mm", "height_mm", "viewing_distance_mm"):
        try:
            values[name] = float(str(settings.value(f"{group}/{name}", "")))
        except ValueError:
            return told
    low, high = SIDE_MM
    if not (low <= values["width_mm"] <= high and low <= values["height_mm"] <= high):
        return told
    return dataclasses.replace(
        told,
        width_mm=values["width_mm"],
        height_mm=values["height_mm"],
        viewing_distance_mm=values["viewing_distance_mm"],
    )


def is_measured(settings: QSettings, screen: QScreen) -> bool:
    """Whether someone has said how large a screen is."""
    return settings.contains(f"{_group(screen)}/width_mm")


def store_geometry(
    settings: QSettings, screen: QScreen, width_mm: float, height_mm: float, viewing_distance_mm: float
) -> None:
    """Keep a screen's measures for this user and computer.

    Raises
    ------
    UserError
        If no screen has such measures.
    """
    for value, (low, high), what in (
        (width_mm, SIDE_MM, "The screen's width"),
        (height_mm, SIDE_MM, "The screen's height"),
        (viewing_distance_mm, DISTANCE_MM, "The viewing distance"),
    ):
        if not low <= value <= high:
            raise UserError(f"{what} should be between {low:g} and {high:g} mm, not {value:g}.")
    group = _group(screen)
    for name, value in (
        ("width_mm", width_mm),
        ("height_mm", height_mm),
        ("viewing_distance_mm", viewing_distance_mm),
    ):
        settings.setValue(f"{group}/{name}", float(value))
