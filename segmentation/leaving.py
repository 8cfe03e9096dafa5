"""Where what leaves a study may go: anywhere but among the study's own files."""

from __future__ import annotations

import os
from pathlib import Path

from gaze_capture.errors import UserError
from segmentation.study import Study

EXPORTS = "exports"


def outside(study: Study, to: Path | str) -> Path:
    """Return a place to write to, unless the study would take what is there for its own.

    Raises
    ------
    UserError
        If it is the study's folder or lies inside of it, other than in ``exports``.
    """
    home, place = (Path(os.path.realpath(path)) for path in (study.folder, to))
    if place == home or (home in place.parents and place.relative_to(home).parts[0] != EXPORTS):
        raise UserError(
            f"{to} lies among the study's own files; choose a place outside of the study, or in "
            f"{study.folder / EXPORTS}."
        )
    return Path(to)
