"""Fixations on disk: one CSV for the numbers, one JSON of the same stem for what holds per image."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from gaze_capture.recording import Floats, Presence
from gaze_capture.storage import explained_os_errors, read_json, write_bytes_atomic, write_json_atomic

SCHEMA = 1
COLUMNS = ("image_id", "target_id", "start_ms", "duration_ms", "x_px", "y_px", "dispersion_deg", "instance")

_HEADER_FIELDS = (
    "annotator",
    "source",
    "detector",
    "parameters",
    "degrees_per_px",
    "accuracy_deg",
    "presence",
    "simulated_from",
    "viewing_ms",
)


@dataclass(frozen=True, slots=True)
class Look:
    """What a table's header says of one annotator's look at one image: all but the fixations themselves."""

    image_id: str
    target_id: str | None
    annotator: str
    source: str
    presence: Presence | None
    simulated_from: str | None
    viewing_ms: float
    fixations: int
    """Their number."""
    inside: int
    """How many of them lie in the image; all where the table was written without being told its size."""


def write_fixation_table(
    path: Path,
    fixations: Sequence[Fixations],
    *,
    inside: Sequence[int] | None = None,
    within: Path | None = None,
) -> None:
    """Write fixations as CSV at `path` and their headers as JSON beside it (same stem), both atomically.

    `inside` says how many fixations of each lie in their image; folders are made below `within` only. Times are kept
    to 1 us, positions to 0.001 px, dispersion to 0.0001 deg. An empty cell means: no target (free viewing), unknown
    dispersion, or no instance.

    Raises
    ------
    UserError
        If the disk is full or the folder is not writable.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for item in fixations:
        instances = [""] * len(item.start_ms) if item.instance is None else item.instance.tolist()
        writer.writerows(
            (item.image_id, item.target_id or "", f"{start:.3f}", f"{duration:.3f}", f"{x:.3f}", f"{y:.3f}",
             "" if dispersion != dispersion else f"{dispersion:.4f}", instance)
            for start, duration, (x, y), dispersion, instance in zip(
                item.start_ms.tolist(), item.duration_ms.tolist(), item.xy_px.tolist(),
                item.dispersion_deg.tolist(), instances, strict=True,
            )
        )  # fmt: skip

    headers = [{name: getattr(item, name) for name in _HEADER_FIELDS} for item in fixations]
    shared = {
        name: headers[0][name]
        for name in _HEADER_FIELDS
        if headers and all(h[name] == headers[0][name] for h in headers)
    }
    images = [
        {"image_id": item.image_id, "target_id": item.target_id, "fixations": len(item.start_ms)}
        | {name: value for name, value in header.items() if name not in shared}
        for item, header in zip(fixations, headers, strict=True)
    ]
    for image, count in zip(images, inside or (), strict=False):
        image["inside"] = count
    # The CSV goes last: whoever lists the tables finds it only when its header is there.
    header = {"schema": SCHEMA, "shared": shared, "images": images}
    write_json_atomic(path.with_suffix(".json"), header, within=within)
    write_bytes_atomic(path, text.getvalue().encode(), within=within)


def read_looks(path: Path) -> list[Look]:
    """Read the header of the table at `path` and none of its rows; in the table's order.

    Raises
    ------
    UserError
        If the header is missing, damaged or of a newer version.
    """
    header_path = path.with_suffix(".json")
    values = _read_header(header_path)
    try:
        shared = values["shared"]
        found = []
        for entry in values["images"]:
            header = shared | entry
            count = int(header["fixations"])
            found.append(
                Look(
                    header["image_id"], header["target_id"], header["annotator"], header["source"],
                    header["presence"], header["simulated_from"], float(header["viewing_ms"]), count,
                    int(header.get("inside", count)),
                )
            )  # fmt: skip
        return found
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(header_path, error) from None


def _damaged(header_path: Path, error: Exception) -> UserError:
    return UserError(f"{header_path} is damaged ({error}). Detect or import the fixations again.")


def read_fixation_table(path: Path) -> list[Fixations]:
    """Read what :func:`write_fixation_table` wrote, images without fixations included, in the same order.

    Raises
    ------
    UserError
        If a file is missing, damaged, of a newer version, or the two do not belong together.
    """
    header_path = path.with_suffix(".json")
    values = _read_header(header_path)
    image_ids, target_ids, numbers, instances = _read_rows(path)

    found: list[Fixations] = []
    start = 0
    try:
        for entry in values["images"]:
            header = values["shared"] | entry
            stop = start + int(header["fixations"])
            image_id, target_id = header["image_id"], header["target_id"]
            if (
                image_ids[start:stop] != [image_id] * (stop - start)
                or target_ids[start:stop] != [target_id or ""] * (stop - start)
            ):  # fmt: skip
                raise _mismatch(path, header_path)
            rows = numbers[start:stop]
            instance = instances[start:stop]
            found.append(
                Fixations(
                    image_id=image_id,
                    target_id=target_id,
                    start_ms=rows[:, 0],
                    duration_ms=rows[:, 1],
                    xy_px=rows[:, 2:4],
                    dispersion_deg=rows[:, 4],
                    instance=np.array(instance, dtype=np.int64) if any(instance) else None,
                    **{name: header[name] for name in _HEADER_FIELDS},
                )
            )
            start = stop
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(header_path, error) from None
    if start != len(image_ids):
        raise _mismatch(path, header_path)
    return found


def _read_header(header_path: Path) -> dict[str, Any]:
    values = read_json(header_path)
    schema = values.get("schema") if isinstance(values, dict) else None
    if not isinstance(schema, int) or schema < 1:
        raise UserError(
            f"{header_path} is damaged: it names no schema version. Detect or import the fixations again."
        )
    if schema > SCHEMA:
        raise UserError(
            f"{header_path} was made by a newer Gaze Insight (schema {schema}). Update the program."
        )
    return dict(values)


def _mismatch(path: Path, header_path: Path) -> UserError:
    return UserError(
        f"{path} and {header_path.name} do not belong together. Detect or import the fixations again."
    )


def _read_rows(path: Path) -> tuple[list[str], list[str], Floats, list[str]]:
    """Return image ids, target ids, numbers (F, 5) and instance cells of all rows."""
    try:
        with explained_os_errors(path), open(path, encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream)
            if tuple(next(reader, ())) != COLUMNS:
                raise UserError(f"{path} is not a fixation table: its columns are not {','.join(COLUMNS)}.")
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}). Detect or import the fixations again.") from None
    if not rows:
        return [], [], np.empty((0, 5)), []
    try:
        columns = list(zip(*rows, strict=True))
        if len(columns) != len(COLUMNS):
            raise ValueError("wrong number of columns")
        numbers: Floats = np.empty((len(rows), 5))
        for index, cells in enumerate(columns[2:6]):
            numbers[:, index] = list(map(float, cells))
        numbers[:, 4] = [float(cell) if cell else np.nan for cell in columns[6]]
    except ValueError:
        raise UserError(_first_bad_row(path, rows)) from None
    return list(columns[0]), list(columns[1]), numbers, list(columns[7])


def _first_bad_row(path: Path, rows: list[list[str]]) -> str:
    for line, row in enumerate(rows, start=2):
        if len(row) != len(COLUMNS):
            return f"{path}, line {line}: {len(row)} cells instead of {len(COLUMNS)}."
        for name, cell in islice(zip(COLUMNS, row, strict=True), 2, 7):
            if not (cell == "" and name == "dispersion_deg") and not _is_number(cell):
                return f"{path}, line {line}, column {name}: {cell!r} is not a number."
    return f"{path} is damaged."


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
