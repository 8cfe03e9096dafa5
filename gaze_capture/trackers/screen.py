"""What is known of the screen before all of its geometry is."""

from __future__ import annotations

from dataclasses import dataclass

from gaze_capture.errors import UserError
from gaze_capture.recording import ScreenGeometry


@dataclass(frozen=True)
class KnownScreen:
    """A screen of which a part may be unknown; width before height."""

    px: tuple[int, int] | None = None
    mm: tuple[float, float] | None = None
    viewing_distance_mm: float | None = None

    @classmethod
    def of(cls, screen: ScreenGeometry | KnownScreen | None) -> KnownScreen:
        """Return what is known of a screen."""
        if isinstance(screen, ScreenGeometry):
            return cls(
                (screen.width_px, screen.height_px),
                (screen.width_mm, screen.height_mm),
                screen.viewing_distance_mm,
            )
        return screen or cls()

    def filled(self, other: KnownScreen) -> KnownScreen:
        """Return this with what is unknown taken from another."""
        return KnownScreen(
            self.px or other.px, self.mm or other.mm, self.viewing_distance_mm or other.viewing_distance_mm
        )

    def geometry(self, source: str) -> ScreenGeometry:
        """Return the whole geometry.

        Raises
        ------
        UserError
            That names what is missing, and the source that does not tell it.
        """
        missing = [
            text
            for text, value in (
                ("its size in pixels (--screen-px)", self.px),
                ("its size in mm (--screen-mm)", self.mm),
                ("the eyes' distance from it in mm (--distance-mm)", self.viewing_distance_mm),
            )
            if value is None
        ]
        if self.px is None or self.mm is None or self.viewing_distance_mm is None:
            raise UserError(f"{source} does not tell all of the screen: give {', '.join(missing)}.")
        return ScreenGeometry(*self.px, *self.mm, self.viewing_distance_mm)
