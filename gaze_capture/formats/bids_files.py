"""The files of BIDS: names made of entities, metadata inherited from above, tables with and without a header."""

from __future__ import annotations

import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from gaze_capture.errors import MissingFact, UserError
from gaze_capture.recording import Floats
from gaze_capture.storage import explained_os_errors

ENDING = "_physio.tsv.gz"
_LARGEST = 1e21
"""Larger numbers are none that a tracker writes: nanoseconds since 1970 reach it in 30,000 years."""


def recordings(folder: Path) -> list[Path]:
    """Return one physio file for each recording of eye tracking in a data set's folder, in order of their names."""
    found: dict[tuple[Path, frozenset[tuple[str, str]]], Path] = {}
    for path in sorted(folder.glob(f"sub-*/**/*{ENDING}")):
        if is_eyetrack(path):
            found.setdefault((path.parent, without_recording_of(entities_of(path))), path)
    return list(found.values())


def entities_of(path: Path) -> frozenset[tuple[str, str]]:
    """Return the entities in a file's name, like ``("sub", "01")``."""
    parts = path.name.split(".")[0].split("_")[:-1]
    return frozenset((name, value) for name, _, value in (part.partition("-") for part in parts))


def suffix_of(path: Path) -> str:
    """Return what a file's name ends with before its ending, like ``physio``."""
    return path.name.split(".")[0].rpartition("_")[2]


def without_recording_of(entities: frozenset[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    """Leave out the entity that tells eyes apart."""
    return frozenset(item for item in entities if item[0] != "recording")


def _root_of(path: Path) -> Path:
    for folder in path.parents:
        if (folder / "dataset_description.json").is_file():
            return folder
    return path.parent


def inherited(path: Path, suffix: str | None = None, without_recording: bool = False) -> dict[str, Any]:
    """Return the metadata of a file, from the top of the data set down to its own sidecar."""
    suffix = suffix or suffix_of(path)
    entities = entities_of(path)
    if without_recording:
        entities = without_recording_of(entities)
    root = _root_of(path)
    folders = [path.parent]
    while folders[-1] not in (root, folders[-1].parent):
        folders.append(folders[-1].parent)
    merged: dict[str, Any] = {}
    for folder in reversed(folders):
        fitting = [
            file
            for file in folder.glob(f"*{suffix}.json")
            if suffix_of(file) == suffix and entities_of(file) <= entities
        ]
        # What says more of the file goes before what says less.
        for file in sorted(fitting, key=lambda one: len(entities_of(one))):
            merged.update(_json(file))
    return merged


def _json(path: Path) -> dict[str, Any]:
    with explained_os_errors(path):
        data = path.read_bytes()
    try:
        values = json.loads(data.decode("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: it is not valid JSON ({error}).") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged: it holds no metadata.")
    return values


def is_eyetrack(path: Path) -> bool:
    """Return whether a physio file is of eye tracking."""
    try:
        return inherited(path).get("PhysioType") == "eyetrack"
    except UserError:
        return False


def one_recording(path: Path, name: str | None) -> Path:
    """Return the physio file to begin with: the path itself, or of the recording of that name in a folder.

    Raises
    ------
    UserError
        If the path is no such file, or the folder holds none, or several and no name was given.
    """
    if not path.is_dir():
        if not path.name.endswith(ENDING):
            raise UserError(f"{path} is no eye tracking of BIDS: choose a file that ends in {ENDING}.")
        return path
    found = {name_of(file): file for file in recordings(path)}
    if not found:
        raise UserError(f'{path} holds no eye tracking: no {ENDING} file has the PhysioType "eyetrack".')
    if name is not None and name not in found:
        raise UserError(f"{path} holds no recording {name!r}; it holds {', '.join(found)}.")
    if name is None and len(found) > 1:
        raise MissingFact(
            f"{path} holds {len(found)} recordings; choose one with --stream, such as {next(iter(found))}.",
            ["stream"],
            list(found),
        )
    return found[name or next(iter(found))]


def name_of(path: Path) -> str:
    """Return a recording's name: its file's, without the eye."""
    parts = path.name.removesuffix(ENDING).split("_")
    return "_".join(part for part in parts if not part.startswith("recording-"))


def eye_files(path: Path) -> list[Path]:
    """Return the physio files of all eyes of the recording that a file belongs to."""
    wanted = without_recording_of(entities_of(path))
    beside = [
        file
        for file in sorted(path.parent.glob(f"*{ENDING}"))
        if without_recording_of(entities_of(file)) == wanted and is_eyetrack(file)
    ]
    return beside or [path]


def events_of(path: Path) -> tuple[Path | None, dict[str, Any]]:
    """Return the events of the recording that a file belongs to, None where there are none, and their metadata."""
    wanted = without_recording_of(entities_of(path))
    meta = inherited(path, "events", without_recording=True)
    for file in sorted(path.parent.glob("*_events.tsv")):
        if entities_of(file) == wanted:
            return file, meta
    return None, meta


# Tables and their columns


def are_names(columns: Any) -> TypeGuard[list[str]]:
    """Return whether something of a sidecar is a list of columns."""
    return isinstance(columns, list) and all(isinstance(name, str) for name in columns)


def column_unit(meta: Mapping[str, Any], column: str) -> str | None:
    """Return the unit that a sidecar gives for a column."""
    about = meta.get(column)
    unit = about.get("Units") if isinstance(about, dict) else None
    return unit.strip() if isinstance(unit, str) and unit.strip() else None


def _text(path: Path) -> str:
    with explained_os_errors(path):
        data = path.read_bytes()
    try:
        return gzip.decompress(data).decode("utf-8-sig") if path.suffix == ".gz" else data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}).") from None


def lines_of(path: Path) -> Iterator[list[str]]:
    """Yield the cells of each line that is not empty."""
    for line in _text(path).splitlines():
        if line:
            yield line.split("\t")


def rows_of(path: Path, width: int) -> Floats:
    """Return a table without header as numbers (N, C); n/a becomes NaN."""
    text = _text(path).replace("n/a", "nan")
    if not text.strip():
        return np.empty((0, width))
    try:
        table: Floats = np.loadtxt(io.StringIO(text), delimiter="\t", comments=None, ndmin=2)
        if table.shape[1] == width and not (np.abs(table) > _LARGEST).any():
            return table
    except ValueError:
        # Read once more, line by line: empty cells are no error, and what is one should be named.
        pass
    rows: list[list[float]] = []
    for number, cells in enumerate(lines_of(path), start=1):
        if len(cells) != width:
            raise UserError(
                f"{path}, line {number}: {len(cells)} cells instead of the {width} that Columns names."
            )
        rows.append([value_of(path, number, cell) for cell in cells])
    return np.array(rows, dtype=np.float64).reshape(-1, width)


def value_of(path: Path, line: int, cell: str) -> float:
    """Return a cell's value, NaN where it has none; UserError where it is no number."""
    text = cell.strip()
    if text in ("n/a", "", "."):
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if abs(value) > _LARGEST:
        raise UserError(f"{path}, line {line}: {cell!r} is neither a number nor n/a.")
    return value
