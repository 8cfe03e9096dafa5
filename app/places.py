"""Where this user's own things lie, outside any study."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_data_path


def calibrations_folder() -> Path:
    """Return where calibrations are kept for those who come back."""
    return user_data_path("gaze-insight", appauthor=False) / "calibrations"
