"""A run as one file: everything that was learned and told of it, to be kept, handed on, or brought into a study.

A zip whose single folder is the run's id. It holds ``spec.json``, ``events.jsonl``, ``worker.log``, the latest
checkpoint (``checkpoints/<step>/``: safetensors and ``state.json``), ``metrics/`` (JSON), ``samples/`` (PNG), and
``manifest.json``, which names the size and SHA-256 of every other file. Predictions stay behind: they are made again.

What comes in is trusted with nothing: names outside this list, pickles, paths that lead elsewhere and files that are
not what the manifest says are refused, and a run appears in the study whole or not at all. Never imports torch.
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
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, folder_in_place, read_json, writing_atomic
from segmentation.job import JobEvent
from segmentation.records import refuse_newer, utc_now
from segmentation.runs import RUN_ID, RunFolder
from segmentation.safetensors_files import read_header
from segmentation.study import Study

FORMAT = "gaze-insight-run"
VERSION = 1
MANIFEST = "manifest.json"

_CHECKPOINT = r"checkpoints/\d{1,12}"
_KINDS: Mapping[str, int] = {
    r"spec\.json": 1 << 20,
    r"events\.jsonl": 1 << 30,
    r"worker\.log": 1 << 28,
    rf"{_CHECKPOINT}/state\.json": 1 << 26,
    rf"{_CHECKPOINT}/\w+\.safetensors": 1 << 36,
    r"metrics/[\w-]+\.json": 1 << 28,
    r"samples/\d{1,12}/[\w.-]+\.png": 1 << 26,
}
"""What a run's files are called in the archive, and how large each may be, in bytes."""
_PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".ckpt", ".bin")
_BLOCK = 1 << 20


def write_run_archive(run: RunFolder, path: Path) -> None:
    """Write a run into one file.

    A finished run goes without its optimiser, which is needed to go on alone.

    Raises
    ------
    UserError
        If there is no such run, it is being worked on, it has no checkpoint yet, the file is there already, or the
        disk is full; nothing is left behind then.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} is there already; choose another name.")
    if not (run.path / "spec.json").exists():
        raise UserError(f"There is no run {run.id} in {run.study_folder}.")
    state = run.state()
    if state == "running":
        raise UserError(f"The run {run.id} is being worked on; stop it first, or wait for its end.")
    files = _files_of(run.path)
    _check_run(run.path, files)
    if state == "done":
        files = [name for name in files if not name.endswith("/optimiser.safetensors")]
    with writing_atomic(path) as stream, explained_os_errors(run.path):
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            listed = {}
            for name in files:
                listed[name] = _add(archive, f"{run.id}/{name}", run.path / name)
            manifest = {
                "format": FORMAT,
                "version": VERSION,
                "run": run.id,
                "state": state,
                "written": utc_now(),
                "program": importlib.metadata.version("gaze-insight"),
                "files": listed,
            }
            text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
            archive.writestr(f"{run.id}/{MANIFEST}", text + "\n")


def read_run_archive(path: Path, study: Study, run_id: str | None = None) -> RunFolder:
    """Bring a run from another computer into a study: an archive of it, or its folder.

    Parameters
    ----------
    run_id : what it is called in this study; by default what it was called

    Raises
    ------
    UserError
        If it is no run, a part of it is missing, damaged, too large or no part of a run, it learned targets that the
        study does not have, it is still being worked on, or the study has a run of this name; the study is as before.
    """
    path = Path(path)
    study.check_there()
    if path.is_dir():
        found = _Folder(path)
        run = _bring(found, study, run_id)
    else:
        with _opened(path) as archive:
            run = _bring(_Archive(path, archive), study, run_id)
    study.audit("import-run", run=run.id, source=path.name)
    return run


# Where a run comes from


@dataclasses.dataclass(frozen=True)
class _Folder:
    """The folder that a worker wrote, copied from another computer."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def sizes(self) -> dict[str, int]:
        run = RunFolder(self.path)
        if not (self.path / "spec.json").is_file():
            raise UserError(
                f"{self.path} is no run: it has no spec.json. Give the folder runs/<id> of a study, or an archive of "
                "a run."
            )
        if run.state() == "running":
            raise UserError(f"{self.path} is being worked on; stop the run first, or wait for its end.")
        return {name: (self.path / name).stat().st_size for name in _files_of(self.path)}

    def check(self, name: str, size: int, sha256: str) -> None:
        """Take what was read for what it is: a worker's folder lists no hashes."""

    def open(self, name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        return open(self.path / name, "rb")


class _Archive:
    """An open archive whose list of files was found to be sound."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self._archive = path, archive
        members = [item for item in archive.infolist() if not item.is_dir()]
        tops = {item.filename.partition("/")[0] for item in members}
        if len(tops) != 1:
            raise UserError(f"{path} is no run: it must hold one folder, which is named like the run.")
        self.name = tops.pop()
        self._members = {item.filename.partition("/")[2]: item for item in members}
        for item in members:
            if item.flag_bits & 1 or item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(
                    f"{path} is refused: it is locked by a password or packed by another program. Export the run again."
                )
        if len(self._members) != len(members):
            raise UserError(f"{path} is refused: it holds two files of one name.")
        if MANIFEST not in self._members:
            raise UserError(f"{path} is no run: it has no {MANIFEST}. Export the run again.")
        self._listed = self._manifest()

    def _manifest(self) -> dict[str, dict[str, Any]]:
        if self._members[MANIFEST].file_size > 1 << 26:
            raise UserError(f"{self.path} is refused: its {MANIFEST} is too large.")
        with self.open(MANIFEST) as stream:
            data = stream.read()
        try:
            values = json.loads(data)
            listed = {
                str(name): {"size": int(one["size"]), "sha256": str(one["sha256"])}
                for name, one in values["files"].items()
            }
            good = values["format"] == FORMAT
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            good = False
        if not good:
            raise UserError(f"{self.path} is no run: its {MANIFEST} is none of a run. Export the run again.")
        refuse_newer(self.path, values, VERSION, "version")
        return listed

    def sizes(self) -> dict[str, int]:
        """Return the size of each file, once list and content are found to name the same."""
        there = self._members.keys() - {MANIFEST}
        for name in sorted(there ^ self._listed.keys()):
            what = "lacks" if name in self._listed else "holds, beside what it lists,"
            raise UserError(f"{self.path} is not whole: it {what} {name[:120]!r}. Export the run again.")
        for name, one in self._listed.items():
            if self._members[name].file_size != one["size"]:
                raise UserError(f"{self.path} is damaged: {name} is not as long as it lists; copy it again.")
        return {name: one["size"] for name, one in self._listed.items()}

    def check(self, name: str, size: int, sha256: str) -> None:
        one = self._listed[name]
        if (size, sha256) != (one["size"], one["sha256"]):
            raise UserError(f"{self.path} is damaged: {name} is not what it lists; copy it again.")

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        try:
            with self._archive.open(self._members[name]) as stream:
                yield stream
        except (zipfile.BadZipFile, zlib.error, EOFError):
            raise UserError(f"{self.path} is damaged: {name[:120]} cannot be read; copy it again.") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.exists():
        raise UserError(f"There is no file or folder {path}.")
    with explained_os_errors(path):
        stream = open(path, "rb")
    with stream:
        try:
            archive = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
            raise UserError(
                f"{path} is no archive of a run, or was cut short; copy it again, or export it again."
            ) from None
        with archive:
            yield archive


# Checking and copying


def _bring(source: _Folder | _Archive, study: Study, run_id: str | None) -> RunFolder:
    name = run_id or source.name
    if not re.fullmatch(RUN_ID, name, re.ASCII):
        raise UserError(
            f"{name[:80]!r} cannot be a run's name: letters, digits, - and _ (at most 64). Give it another: --as NAME"
        )
    if (study.runs_folder / name).exists():
        raise UserError(
            f"The study has a run {name!r} already, which stays as it is; bring this one in under another name: "
            "--as NAME"
        )
    with explained_os_errors(source.path):
        sizes = source.sizes()
        for file, size in sizes.items():
            _check_name(source.path, file, size)
        with explained_os_errors(study.folder):
            free = shutil.disk_usage(study.folder).free
        if sum(sizes.values()) > free:
            raise UserError(
                f"{source.path} would take {sum(sizes.values()) / 2**30:.1f} GiB, but only {free / 2**30:.1f} GiB "
                f"are free beside {study.folder}; free some space."
            )
        with folder_in_place(study.runs_folder / name) as made:
            for file in sizes:
                size, sha256 = _copy(source, file, made / file, sizes[file])
                source.check(file, size, sha256)
            with _told_of(made, source.path):
                _check_run(made, list(sizes))
                _check_fits(made, study)
    return RunFolder(study.runs_folder / name)


def _check_name(path: Path, name: str, size: int) -> None:
    if PurePosixPath(name).suffix.lower() in _PICKLES:
        raise UserError(
            f"{path} is refused: {name[:120]} may be a pickle, which could run any program; weights of a run are "
            "safetensors."
        )
    for kind, largest in _KINDS.items():
        if re.fullmatch(kind, name):
            if size > largest:
                raise UserError(f"{path} is refused: {name[:120]} is larger than such a file can be.")
            return
    raise UserError(f"{path} is refused: {name[:120]!r} is no part of a run.")


def _copy(source: _Folder | _Archive, name: str, to: Path, size: int) -> tuple[int, str]:
    digest, count = hashlib.sha256(), 0
    with source.open(name) as stream:
        to.parent.mkdir(parents=True, exist_ok=True)
        with open(to, "xb") as out:
            while block := stream.read(_BLOCK):
                count += len(block)
                if count > size:
                    raise UserError(
                        f"{source.path} is damaged: {name} is longer than it says; copy it again."
                    )
                digest.update(block)
                out.write(block)
    return count, digest.hexdigest()


def _files_of(folder: Path) -> list[str]:
    """Return what of a run's folder belongs into an archive; of its checkpoints the latest whole one."""
    names = [name for name in ("spec.json", "events.jsonl", "worker.log") if (folder / name).is_file()]
    steps = sorted(
        one.parent
        for one in (folder / "checkpoints").glob("*/state.json")
        if re.fullmatch(r"\d{1,12}", one.parent.name)
    )
    parts = sorted(one for step in steps[-1:] for one in step.iterdir() if not one.name.startswith("."))
    for kind in ("metrics/*.json", "samples/*/*.png"):
        parts += sorted(one for one in folder.glob(kind) if not one.name.startswith("."))
    return names + [one.relative_to(folder).as_posix() for one in parts]


def _check_run(folder: Path, files: list[str]) -> None:
    """Raise UserError unless the files of a folder are those of a run that has learned something."""
    _ = RunFolder(folder).spec
    steps = {name.split("/")[1] for name in files if name.startswith("checkpoints/")}
    if len(steps) != 1:
        found = "several checkpoints" if steps else "no whole checkpoint"
        raise UserError(
            f"{folder} cannot be used: it has {found}. Train it first, or copy all of the run's folder again."
        )
    inside = folder / "checkpoints" / steps.pop()
    there = {name.rpartition("/")[2] for name in files if name.startswith("checkpoints/")}
    state = read_json(inside / "state.json") if "state.json" in there else None
    predicts = state.get("predicts") if isinstance(state, dict) else None
    for name in ("state.json", "student.safetensors", f"{predicts or 'student'}.safetensors"):
        if name not in there:
            raise UserError(
                f"{folder} is not whole: its checkpoint lacks {name}. Copy all of the run's folder again."
            )
    for name in sorted(there):
        if name.endswith(".safetensors"):
            _check_weights(inside / name)
    if "events.jsonl" in files:
        _check_events(folder / "events.jsonl")
    for name in files:
        if name.startswith("metrics/"):
            read_json(folder / name)


def _check_weights(path: Path) -> None:
    try:
        read_header(path)
    except UserError:
        with explained_os_errors(path), open(path, "rb") as stream:
            begin = stream.read(2)
        # What torch.save writes is a zip, and older files of its are a bare pickle.
        if begin == b"PK" or (begin[:1] == b"\x80" and begin[1:] in (b"\x02", b"\x03", b"\x04", b"\x05")):
            raise UserError(
                f"{path} is refused: it is a pickle under another name, which could run any program; weights of a run "
                "are safetensors."
            ) from None
        raise


def _check_events(path: Path) -> None:
    """Raise UserError where a file holds no events; a line that a crash tore is none and may be there."""
    with explained_os_errors(path), open(path, "rb") as stream:
        for line in stream:
            with contextlib.suppress(ValueError, RecursionError):
                JobEvent.from_line(line.decode("utf-8", errors="replace"))
                return
    if path.stat().st_size:
        raise UserError(f"{path} is damaged: it holds no events. Copy the run again.")


def _check_fits(folder: Path, study: Study) -> None:
    known = [target.id for target in study.targets]
    strange = [target_id for target_id in RunFolder(folder).spec.targets if target_id not in known]
    if strange:
        raise UserError(
            f"{folder} segments {', '.join(strange)}, but the study's targets are {', '.join(known)}; add the target "
            "first: gaze-insight targets STUDY --add ID"
        )


@contextlib.contextmanager
def _told_of(made: Path, source: Path) -> Iterator[None]:
    """Let sentences speak of the run that was given, not of the copy that is being made."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(made), str(source))) from None


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> dict[str, Any]:
    """Put a file into an archive; return its size and hash."""
    # Weights hardly shrink.
    stored = path.suffix in (".safetensors", ".png")
    info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
    info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as stream, archive.open(info, "w", force_zip64=True) as out:
        while block := stream.read(_BLOCK):
            digest.update(block)
            size += len(block)
            out.write(block)
    return {"size": size, "sha256": digest.hexdigest()}
