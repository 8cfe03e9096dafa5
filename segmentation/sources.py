"""Finding what can be imported among files and folders, and handing it out as stacks, whatever the format."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gaze_capture.errors import UserError
from segmentation.images import ENDINGS

Format = Literal["plain", "dicom", "nifti", "nrrd", "video"]

VIDEO_ENDINGS = (".avi", ".mp4", ".mov", ".mkv", ".m4v", ".mpg")
NIFTI_ENDINGS = (".nii", ".nii.gz", ".hdr")
NRRD_ENDINGS = (".nrrd", ".nhdr")
DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
IGNORED_ENDINGS = (
    ".csv",
    ".tsv",
    ".json",
    ".txt",
    ".md",
    ".xml",
    ".html",
    ".pdf",
    ".zip",
    ".py",
    ".img",
    ".raw",
    ".gz",
)
"""In a folder these are passed over without a word; `.img` and `.raw` belong to a header that is read."""

LARGEST_PLAIN_BYTES = 1 << 30
"""A picture file larger than this is refused unread."""


@dataclass
class Found:
    """Files by how they are read, in order of their names."""

    plain: list[Path] = field(default_factory=list)
    dicom: list[Path] = field(default_factory=list)
    nifti: list[Path] = field(default_factory=list)
    nrrd: list[Path] = field(default_factory=list)
    video: list[Path] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, (self.plain, self.dicom, self.nifti, self.nrrd, self.video)))


def find_files(paths: Sequence[Path | str], *, beside: Iterable[Path] = ()) -> Found:
    """Sort the files among files and folders (recursively) by their format, each once.

    Links to folders are not followed, so that none can lead round in a circle.

    Parameters
    ----------
    beside : files and folders to pass over, such as masks that lie below the images

    Raises
    ------
    UserError
        If a path does not exist.
    """
    # realpath, not resolve: that one raises where links lead in a circle.
    passed = {os.path.realpath(path) for path in beside}
    found = Found()
    seen: set[Path] = set()
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{path} does not exist; check the spelling.")
        named = path.is_file()
        for file in [path] if named else walk(path, passed):
            if file in seen or (passed and os.path.realpath(file) in passed):
                continue
            seen.add(file)
            kind = format_of(file, named=named)
            if kind is not None:
                getattr(found, kind).append(file)
    return found


def walk(folder: Path, passed: Collection[str] = ()) -> Iterator[Path]:
    """Yield the files below a folder in order of name, without hidden ones and the folders to pass over."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not (passed and os.path.realpath(Path(parent, name)) in passed)
        )
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(parent) / name


def format_of(file: Path, *, named: bool) -> Format | None:
    """Return how a file is read, by its ending and, where that says nothing, by its first bytes; None if not at all.

    A file that the person `named` is always taken for something, so that it is refused by name.
    """
    name = file.name.lower()
    if name.endswith(ENDINGS):
        return "plain"
    if name.endswith(NIFTI_ENDINGS):
        # Analyze's .hdr is also the ending of other programs' settings: those have no .img beside them.
        return "nifti" if not name.endswith(".hdr") or file.with_suffix(".img").exists() or named else None
    if name.endswith(NRRD_ENDINGS):
        return "nrrd"
    if name.endswith(VIDEO_ENDINGS):
        return "video"
    if name.endswith(DICOM_ENDINGS) or name == "dicomdir":
        return "dicom"
    if name.endswith(IGNORED_ENDINGS) and not named:
        return None
    head = _head(file)
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")):
        return "plain"
    if head.startswith(b"NRRD"):
        return "nrrd"
    # DICOM written without its preamble begins with a group of small number, as a rule 0008.
    if head[:2] in (b"\x08\x00", b"\x02\x00"):
        return "dicom"
    return "plain" if named else None


def _head(file: Path) -> bytes:
    try:
        with open(file, "rb") as stream:
            return stream.read(132)
    except OSError:
        return b""
