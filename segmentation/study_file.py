"""study.json: what a study is called, its targets and how its pseudo-masks are made; it makes a folder a study."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, locked, read_json, write_bytes_atomic, write_json_atomic
from segmentation.pseudomask import PseudoMaskSettings
from segmentation.records import SCHEMA, Target, utc_now
from segmentation.study_folder import exists

NAME = "study.json"


def create_study_file(folder: Path, name: str | None, targets: Sequence[Target]) -> dict[str, Any]:
    """Make an empty or missing folder a study; return what its file holds.

    Raises
    ------
    UserError
        If the folder holds anything already or cannot be written.
    """
    if (folder / NAME).exists():
        raise UserError(f"{folder} is a study already; open it instead of making a new one.")
    with explained_os_errors(folder):
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; choose a new or empty folder for the study.")
        folder.mkdir(parents=True, exist_ok=True)
    values = {
        "schema": SCHEMA,
        "uid": secrets.token_hex(16),
        "name": name or folder.name,
        "created": utc_now(),
        "targets": [dataclasses.asdict(target) for target in (targets or (Target(),))],
        "pseudomask": PseudoMaskSettings().to_json(),
    }
    write_json_atomic(folder / NAME, values)
    return values


def read_study_file(folder: Path) -> dict[str, Any]:
    """Return what a study's file holds, brought up to date where an earlier version wrote it.

    Raises
    ------
    UserError
        If there is none, it is damaged, or a newer version of the program made it.
    """
    path = folder / NAME
    if not exists(path):
        raise UserError(
            f"{folder} is not a study: it has no {NAME}. Make one with: gaze-insight new {folder}"
        )
    values = read_json(path)
    schema = values.get("schema") if isinstance(values, dict) else None
    if not isinstance(schema, int):
        raise UserError(f"{path} is damaged: it names no schema version. Restore it from a backup.")
    if schema > SCHEMA:
        raise UserError(
            f"{folder} was made by a newer Gaze Insight (schema {schema}, this version reads {SCHEMA}). "
            "Update the program; the study was not touched."
        )
    try:
        return dict(values) if schema == SCHEMA else _migrated(path, values)
    except (KeyError, TypeError) as error:
        raise damaged(folder, error) from None


def damaged(folder: Path, error: Exception) -> UserError:
    """Return what tells that a study's file lacks something."""
    return UserError(f"{folder / NAME} is damaged ({error}). Restore it from a backup.")


def _migrated(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Bring an older file up to date, keeping the old one beside it; all other files are read as they are.

    On a read-only folder the study opens all the same, and stays as it is on disk.
    """
    values = {
        **values,
        "schema": SCHEMA,
        # Derived, so that two computers that open the study at once agree.
        "uid": values.get("uid")
        or hashlib.sha256(f"{values['name']} {values['created']}".encode()).hexdigest()[:32],
    }
    with contextlib.suppress(UserError), locked(path):
        stored = read_json(path)
        if stored.get("schema") == SCHEMA:
            # Another window was first, and may have stored something since.
            return dict(stored)
        backup = path.with_name("study.schema-1.json")
        if not backup.exists():
            write_bytes_atomic(backup, path.read_bytes())
        write_json_atomic(path, values)
    return values


def change_study_file(folder: Path, **changes: Any) -> None:
    """Change what a study's file says; what another window stored in it meanwhile stays.

    Raises
    ------
    UserError
        If the study cannot be reached or written.
    """
    path = folder / NAME
    check_there(folder)
    with locked(path):
        write_json_atomic(path, {**read_json(path), **changes}, within=folder)


def check_there(folder: Path) -> None:
    """Raise UserError unless a study's folder is where it was when it was opened."""
    try:
        os.stat(folder / NAME)
    except OSError as error:
        reason = f" ({error.strerror})" if error.strerror else ""
        raise UserError(
            f"The study's folder {folder} cannot be reached{reason}: it was moved or renamed, you may not "
            "read it any more, or its drive or network share is gone. Bring it back and go on; everything stored "
            "before is intact."
        ) from None
