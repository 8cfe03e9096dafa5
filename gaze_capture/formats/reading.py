"""Reading a gaze file, whichever program wrote it: the format is told by the file's content."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from gaze_capture.errors import UserError
from gaze_capture.formats import bids, eyelink_asc, gazepoint_csv, pupil_csv, tobii_tsv, xdf
from gaze_capture.formats.bids_files import ENDING
from gaze_capture.formats.gaze_file import GazeFile, Known
from gaze_capture.storage import explained_os_errors

FORMATS = ("tobii-tsv", "eyelink-asc", "gazepoint-csv", "pupil-csv", "xdf", "bids")
"""What :func:`read_gaze_file` reads."""


class Reader(Protocol):
    """One format; each is a module of this package."""

    def sniff(self, path: Path) -> bool:
        """Return whether the file looks like one of this format; never raises for what is in it."""

    def read(self, path: Path, known: Known) -> GazeFile:
        """Read the file; UserError where it is not understood or a fact is missing."""


def _readers() -> dict[str, Reader]:
    """Return the readers by name, in the order in which they are asked."""
    return {
        "tobii-tsv": tobii_tsv,
        "eyelink-asc": eyelink_asc,
        "gazepoint-csv": gazepoint_csv,
        "pupil-csv": pupil_csv,
        "xdf": xdf,
        "bids": bids,
    }


def read_gaze_file(path: Path, format: str = "auto", known: Known | None = None) -> GazeFile:
    """Read another program's gaze samples.

    Parameters
    ----------
    format
        One of :data:`FORMATS`, or ``auto`` to tell it by the file's content.

    Raises
    ------
    MissingFact
        If the file lacks a fact that `known` could give; the sentence names the option that gives it.
    UserError
        If the file is of none of the formats, or holds no gaze on a screen.
    """
    readers, known = _readers(), known or Known()
    if format != "auto":
        if format not in readers:
            raise UserError(f"There is no gaze format {format!r}; this version reads {', '.join(readers)}.")
        return readers[format].read(path, known)
    found = sniffed_format(path)
    if found is not None:
        return readers[found].read(path, known)
    raise UserError(f"{unknown_format(path)} If it is one of them, name that with --format.")


def sniffed_format(path: Path) -> str | None:
    """Return which of :data:`FORMATS` a file is of, by its content; None for none of them.

    Raises
    ------
    UserError
        If the file cannot be opened.
    """
    if not path.is_dir():
        with explained_os_errors(path), open(path, "rb"):
            pass
    return next((name for name, reader in _readers().items() if reader.sniff(path)), None)


def unknown_format(path: Path) -> str:
    """Return the sentence about a file that is of no format known here."""
    if path.name.endswith(ENDING):
        return (
            f"{path} is named like a recording of BIDS, but no JSON beside or above it says that it is of eye "
            "tracking (PhysioType: eyetrack); put the file's JSON where it belongs."
        )
    return (
        f"{path} is no gaze file that this version knows. It reads: Tobii Pro Lab and Studio exports (TSV), EyeLink "
        "ASC, Gazepoint Analysis CSV, Pupil gaze on a surface (CSV), XDF, BIDS eye tracking, and fixations as "
        "GazeMedSeg's CSV."
    )
