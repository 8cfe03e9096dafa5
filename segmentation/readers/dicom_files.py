"""Which files are DICOM: those given, those in folders, those that a DICOMDIR refers to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gaze_capture.errors import UserError
from segmentation.readers.decoding import (
    DecodingError,
    quiet_pydicom,
    read_header,
    text,
)
from segmentation.stacks import Refused

_DICOMDIR = "1.2.840.10008.1.3.10"


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM: by its preamble or, without one, by attributes only DICOM has."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(132)
    except OSError:
        return False
    if start[128:] == b"DICM":
        return True
    # A stream without preamble starts with the group of file or of identifying attributes, in either byte order.
    if len(start) < 16 or start[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        return False
    try:
        header = read_header(path, ("SOPClassUID", "Modality"))
    except (DecodingError, OSError):
        return False
    return bool(text(header.dataset, "SOPClassUID") or text(header.dataset, "Modality"))


def _is_dicomdir(path: Path) -> bool:
    from pydicom.filereader import read_file_meta_info

    with quiet_pydicom():
        try:
            return str(read_file_meta_info(path).get("MediaStorageSOPClassUID", "")) == _DICOMDIR
        except Exception:
            return False


def referenced(folder: Path, parts: Sequence[str]) -> Path | None:
    """Return the file that a DICOMDIR means, in any case of letters; None if it leads out of the folder."""
    if not parts or any(
        part in ("", ".", "..") or not part.isprintable() or set("/\\:") & set(part) for part in parts
    ):
        return None
    path = folder
    for part in parts:
        exact = path / part
        if not exact.exists() and path.is_dir():
            # Drives and archives differ in what they make of the upper-case names on the medium.
            alike = [
                name
                for name in os.listdir(path)
                if name.split(";")[0].rstrip(".").casefold() == part.casefold()
            ]
            exact = path / alike[0] if alike else exact
        path = exact
    return path if path.resolve().is_relative_to(folder.resolve()) else None


def dicomdir_files(path: Path) -> list[Path | Refused]:
    """Return the files that a DICOMDIR refers to, each once; those that are missing or lie elsewhere as `Refused`.

    Raises
    ------
    UserError
        If the DICOMDIR itself cannot be read.
    """
    try:
        header = read_header(path, ("DirectoryRecordSequence",))
        with quiet_pydicom():
            records = list(header.dataset.get("DirectoryRecordSequence") or [])
            names = [text(record, "ReferencedFileID") for record in records]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:
        raise UserError(f"{path} is a damaged DICOMDIR: give its folder instead.") from error
    found: dict[Path, Path | Refused] = {}
    for parts in (name.split("\\") for name in names if name):
        file = referenced(path.parent, [part.strip() for part in parts])
        if file is None:
            found[path / "/".join(parts)] = Refused(path, "refers to a file outside its own folder")
        elif file.is_file():
            found[file] = file
        else:
            found[file] = Refused(file, f"is missing, though {path.name} refers to it")
    return list(found.values())


def walk(files: Iterable[Path]) -> Iterator[Path | Refused]:
    """Yield every DICOM file once: those given, those in folders given, those that DICOMDIRs refer to."""
    seen: set[Path] = set()

    def fresh(path: Path) -> bool:
        # realpath, not resolve: that one raises where links lead in a circle.
        known = Path(os.path.realpath(path))
        if known in seen:
            return False
        seen.add(known)
        return True

    waiting = list(files)
    while waiting:
        path = waiting.pop(0)
        if path.is_dir():
            inside = sorted(
                item for item in path.rglob("*") if item.is_file() and not item.name.startswith(".")
            )
            waiting = [item for item in inside if is_dicom(item)] + waiting
        elif not fresh(path):
            continue
        elif not path.exists():
            yield Refused(path, "is missing")
        elif not is_dicom(path):
            yield Refused(path, "is not DICOM")
        elif _is_dicomdir(path):
            try:
                listed = dicomdir_files(path)
            except UserError:
                yield Refused(path, "is a damaged DICOMDIR: give its folder instead")
                continue
            yield from (
                item for item in listed if isinstance(item, Refused) and fresh(item.file / item.reason)
            )
            waiting = [item for item in listed if isinstance(item, Path)] + waiting
        else:
            yield path
