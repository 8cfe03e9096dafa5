"""What is done to runs from outside: a name, an end, an archive. Never imports torch."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, make_folder, write_json_atomic
from segmentation.leaving import outside
from segmentation.run_archive import write_run_archive
from segmentation.run_list import NAME_FILE, read_name, summary_of
from segmentation.runs import RunFolder
from segmentation.study import Study

LONGEST_NAME = 80
_ASIDE = ".deleted"
"""Folder beside the runs for those whose files are being removed; its name hides it from every list."""


def rename_run(study: Study, run_id: str, name: str) -> str:
    """Give a run a name beside its id, which predictions and reviews point to and which stays; return it as kept.

    An empty name takes an earlier one away. Two runs may share a name.

    Raises
    ------
    UserError
        If there is no such run, the name is too long or holds what is no text, or it cannot be stored.
    """
    run = RunFolder(study.runs_folder / summary_of(study, run_id).id)
    cleaned = unicodedata.normalize("NFC", " ".join(name.split()))
    if len(cleaned) > LONGEST_NAME:
        raise UserError(f"A run's name has at most {LONGEST_NAME} characters, this one {len(cleaned)}.")
    if any(unicodedata.category(character)[0] == "C" for character in cleaned):
        raise UserError(f"A run's name is one line of text; {cleaned!r} holds characters that are none.")
    before = read_name(run)
    if cleaned != before:
        path = run.path / NAME_FILE
        if cleaned:
            write_json_atomic(path, {"name": cleaned}, within=study.folder)
        else:
            with explained_os_errors(path):
                path.unlink(missing_ok=True)
        study.audit("rename run", run=run.id, name=cleaned, before=before)
    return cleaned


@dataclass(frozen=True)
class Deletion:
    """What deleting a run would take, or took, along."""

    run: str
    title: str
    files: int
    size_bytes: int
    reviews: int
    """Verdicts on its predictions. They stay, with the masks they stand for; what they were given on goes."""


def plan_deletion(study: Study, run_ids: Iterable[str]) -> list[Deletion]:
    """Say what deleting runs would take along; nothing is changed.

    Raises
    ------
    UserError
        If there is no such run, or one is being worked on.
    """
    planned = []
    reviews = reviews_of_runs(study)
    for run_id in dict.fromkeys(run_ids):
        run = summary_of(study, run_id)
        if run.state == "running":
            raise UserError(
                f"The run {run_id} is being worked on{f' on {run.host}' if run.host else ''}; stop it first, or wait."
            )
        files, size = folder_size(study.runs_folder / run_id)
        planned.append(Deletion(run_id, run.title, files, size, reviews.get(run_id, 0)))
    return planned


def delete_runs(study: Study, run_ids: Iterable[str], *, reviewed_too: bool = False) -> list[Deletion]:
    """Delete runs with everything they made; return what went.

    All are looked at before the first is touched. Each is moved aside in one step, so that no window ever sees half of
    it, and then removed; what a crash left of that is removed with the next. Reviews stay as they are.

    Parameters
    ----------
    reviewed_too
        Whether runs may go whose predictions were reviewed.

    Raises
    ------
    UserError
        If there is no such run, one is being worked on, or was reviewed and `reviewed_too` is not set; or if it cannot
        be moved: another program may have its files open.
    """
    planned = plan_deletion(study, run_ids)
    held = [one for one in planned if one.reviews]
    if held and not reviewed_too:
        named = "; ".join(f"{one.run}: {one.reviews}" for one in held)
        raise UserError(
            f"Predictions of these runs were reviewed, and the reviews refer to them ({named}). The reviews and their "
            "masks would stay, the predictions they judged would be gone. Add --yes to delete all the same."
        )
    aside = study.runs_folder / _ASIDE
    for one in planned:
        path = study.runs_folder / one.run
        # It may have begun since it was looked at.
        if summary_of(study, one.run).state == "running":
            raise UserError(f"The run {one.run} is being worked on; stop it first, or wait.")
        with explained_os_errors(path):
            make_folder(aside, study.folder)
            os.rename(path, aside / f"{one.run[:80]}-{secrets.token_hex(4)}")
        study.audit(
            "delete run",
            run=one.run,
            name=one.title,
            bytes=one.size_bytes,
            reviews=one.reviews,
        )
    shutil.rmtree(aside, ignore_errors=True)
    left = sum(1 for _ in aside.iterdir()) if aside.is_dir() else 0
    if left:
        raise UserError(
            f"The runs are deleted, but files of {left} of them could not be removed from {aside}: another program may "
            "have them open. Close it and delete that folder."
        )
    return planned


def export_run(study: Study, run_id: str, path: Path, *, replace: bool = False) -> int:
    """Write a run into one archive (`segmentation.run_archive`); return its bytes.

    Parameters
    ----------
    replace
        Whether a file of that name may be replaced; it is as it was until the new one is whole.

    Raises
    ------
    UserError
        If there is no such run, it is being worked on or has learned nothing yet, a file of the name is there, or the
        disk is full.
    """
    run = RunFolder(study.runs_folder / summary_of(study, run_id).id)
    path = outside(study, path)
    with explained_os_errors(path):
        if replace and path.is_file():
            part = path.with_name(f".{secrets.token_hex(6)}.part")
            try:
                write_run_archive(run, part)
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
        else:
            write_run_archive(run, path)
        return path.stat().st_size


def reviews_of_runs(study: Study) -> dict[str, int]:
    """Count the reviews that stand by the run whose prediction they judge."""
    counts: dict[str, int] = {}
    for reviews in study.all_reviews().values():
        for review in reviews:
            counts[review.subject] = counts.get(review.subject, 0) + 1
    return counts


def folder_size(folder: Path) -> tuple[int, int]:
    """Return how many files a folder holds, and their bytes; what vanishes meanwhile or cannot be read counts 0."""
    files = size = 0
    waiting = [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    else:
                        files += 1
                        size += entry.stat(follow_symlinks=False).st_size
    return files, size


def size_text(size_bytes: float) -> str:
    """Return a size for people: `12 kB`, `3.4 MB`; thousands, not 1024."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while size_bytes >= 999.5 and len(units) > 1:
        size_bytes /= 1000
        units.pop(0)
    digits = 0 if units[0] in ("B", "kB") or size_bytes >= 10 else 1
    return f"{size_bytes:.{digits}f} {units[0]}"
