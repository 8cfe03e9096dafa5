"""How the names of gaze files end; which format one is of is told by its content."""

from __future__ import annotations

from pathlib import Path

ENDINGS = (".csv", ".tsv", ".txt", ".asc", ".xdf", "_physio.tsv.gz")


def is_gaze_name(path: Path) -> bool:
    """Whether a file's name ends like that of a gaze file."""
    return path.name.lower().endswith(ENDINGS)
