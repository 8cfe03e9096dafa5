"""Folders as zip files that are told from anything else: one top folder, and a list of all its files with their hashes.

What comes in is trusted with nothing: names that are not expected, pickles, paths that lead elsewhere, and files that
are not what the list says are refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, writing_atomic
from segmentation.records import refuse_newer, utc_now

MANIFEST = "manifest.json"
_LONGEST_MANIFEST = 1 << 26
_PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".ckpt", ".bin")
_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of archive."""

    format: str
    """What its manifest calls it."""
    version: int
    """The latest that this program reads, and the one it writes."""
    noun: str
    """What it is in a sentence, such as ``a run``."""
    remedy: str
    """What to do where it is damaged, a sentence without its point."""
    files: Mapping[str, int]
    """Patterns of the names it may hold, and how large each such file may be, in bytes."""


def write_archive(
    kind: Kind, path: Path, top: str, folder: Path, names: Sequence[str], about: Mapping[str, Any]
) -> None:
    """Write files of a folder into one archive, beside a manifest that says what it is.

    Parameters
    ----------
    top : what its single folder is called
    names : of the files, relative to the folder, with forward slashes
    about : what else the manifest says

    Raises
    ------
    UserError
        If the archive is there already, a file cannot be read or the disk is full; nothing is left behind then.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} is there already; choose another name.")
    with explained_os_errors(folder):
        check_names(kind, path, {name: (folder / name).stat().st_size for name in names})
    with writing_atomic(path) as stream, explained_os_errors(folder):
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            listed = {name: _add(archive, f"{top}/{name}", folder / name) for name in names}
            manifest = {
                "format": kind.format,
                "version": kind.version,
                "program": importlib.metadata.version("gaze-insight"),
                "written": utc_now(),
                **about,
                "files": listed,
            }
            text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
            archive.writestr(f"{top}/{MANIFEST}", text + "\n")


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> dict[str, Any]:
    """Put a file into an archive; return its size and hash."""
    info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
    # Weights hardly shrink.
    stored = path.suffix in (".safetensors", ".png") and path.stem != "training_set"
    info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as stream, archive.open(info, "w", force_zip64=True) as out:
        while block := stream.read(_BLOCK):
            digest.update(block)
            size += len(block)
            out.write(block)
    return {"size": size, "sha256": digest.hexdigest()}


class Archive:
    """An open archive, whose list of files is sound and names what is there."""

    def __init__(self, kind: Kind, path: Path, archive: zipfile.ZipFile) -> None:
        self.kind, self.path, self._archive = kind, path, archive
        members = [item for item in archive.infolist() if not item.is_dir()]
        tops = {item.filename.partition("/")[0] for item in members}
        if len(tops) != 1:
            raise UserError(f"{path} is not {kind.noun}: it must hold one folder, and nothing beside it.")
        self.name = tops.pop()
        """What its folder is called."""
        for item in members:
            if item.flag_bits & 1 or item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(
                    f"{path} is refused: it is locked by a password or packed by another program. {kind.remedy}."
                )
        self._members = {item.filename.partition("/")[2]: item for item in members}
        if len(self._members) != len(members):
            raise UserError(f"{path} is refused: it holds two files of one name. {kind.remedy}.")
        self.about = self._manifest()
        """What its manifest says."""
        self.sizes = self._sizes()
        """How long each file is, in bytes, by its name."""
        check_names(kind, path, self.sizes)

    def _manifest(self) -> dict[str, Any]:
        if MANIFEST not in self._members:
            raise UserError(f"{self.path} is not {self.kind.noun}: it has no {MANIFEST}. {self.kind.remedy}.")
        if self._members[MANIFEST].file_size > _LONGEST_MANIFEST:
            raise UserError(f"{self.path} is refused: its {MANIFEST} is too large. {self.kind.remedy}.")
        with self.open(MANIFEST) as stream:
            data = stream.read()
        try:
            values = json.loads(data)
            good = values["format"] == self.kind.format
            self._listed = {
                str(name): (int(one["size"]), str(one["sha256"])) for name, one in values["files"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            good = False
        if not good:
            raise UserError(
                f"{self.path} is not {self.kind.noun}: its {MANIFEST} is another's. {self.kind.remedy}."
            )
        refuse_newer(self.path, values, self.kind.version, "version")
        return dict(values)

    def _sizes(self) -> dict[str, int]:
        for name in sorted((self._members.keys() - {MANIFEST}) ^ self._listed.keys()):
            what = "lacks" if name in self._listed else "holds, beside what it lists,"
            raise UserError(f"{self.path} is not whole: it {what} {name[:120]!r}. {self.kind.remedy}.")
        for name, (size, _) in self._listed.items():
            if self._members[name].file_size != size:
                raise UserError(f"{self.path} is damaged: {name} is not as long as it lists; copy it again.")
        return {name: size for name, (size, _) in self._listed.items()}

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file of the archive."""
        try:
            with self._archive.open(self._members[name]) as stream:
                yield stream
        except (zipfile.BadZipFile, zlib.error, EOFError):
            raise UserError(f"{self.path} is damaged: {name[:120]} cannot be read; copy it again.") from None

    def copy(self, folder: Path) -> None:
        """Write all files but the manifest into a folder, each found to be what the manifest lists."""
        for name, size in self.sizes.items():
            with self.open(name) as stream:
                if copy(stream, folder / name, size) != self._listed[name]:
                    raise UserError(f"{self.path} is damaged: {name} is not what it lists; copy it again.")


@contextlib.contextmanager
def opened(kind: Kind, path: Path) -> Iterator[Archive]:
    """Open an archive of a kind.

    Raises
    ------
    UserError
        If there is none, it is another, it was cut short, or it holds what such an archive never holds.
    """
    if not path.exists():
        raise UserError(f"There is no file or folder {path}.")
    with explained_os_errors(path):
        with open(path, "rb") as stream:
            try:
                archive = zipfile.ZipFile(stream)
            except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
                raise UserError(
                    f"{path} is no archive of {kind.noun}, or was cut short; copy it again. {kind.remedy}."
                ) from None
            with archive:
                yield Archive(kind, path, archive)


def check_names(kind: Kind, path: Path, sizes: Mapping[str, int]) -> None:
    """Raise UserError where a file, by its name and size, is none that such an archive holds."""
    for name, size in sizes.items():
        if PurePosixPath(name).suffix.lower() in _PICKLES:
            raise UserError(
                f"{path} is refused: {name[:120]} may be a pickle, which could run any program; weights are taken as "
                "safetensors alone."
            )
        largest = next((most for one, most in kind.files.items() if re.fullmatch(one, name)), None)
        if largest is None:
            raise UserError(f"{path} is refused: {name[:120]!r} is no part of {kind.noun}.")
        if size > largest:
            raise UserError(f"{path} is refused: {name[:120]} is larger than such a file can be.")


def check_space(path: Path, sizes: Mapping[str, int], folder: Path) -> None:
    """Raise UserError where a folder's disk does not hold what would come into it."""
    with explained_os_errors(folder):
        free = shutil.disk_usage(folder).free
    if sum(sizes.values()) > free:
        raise UserError(
            f"{path} would take {sum(sizes.values()) / 2**30:.1f} GiB, but only {free / 2**30:.1f} GiB are free in "
            f"{folder}; free some space."
        )


def copy(stream: IO[bytes], to: Path, size: int) -> tuple[int, str]:
    """Write what a stream holds into a new file, at most a byte more than `size`; return its size and SHA-256."""
    digest, count = hashlib.sha256(), 0
    to.parent.mkdir(parents=True, exist_ok=True)
    with open(to, "xb") as out:
        while block := stream.read(min(_BLOCK, size + 1 - count)):
            count += len(block)
            digest.update(block)
            out.write(block)
            if count > size:
                break
    return count, digest.hexdigest()
