"""Edits in the making: a mask with its history, kept in the study folder from the first step until it is reviewed.

``drafts/<image>.<target>/`` holds a file for each window that edits the image (see `segmentation.editing.journal`),
so that two of them never write to one. A window that finds its annotator's draft left behind goes on with it.
"""

from __future__ import annotations

import contextlib
import datetime
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gaze_capture.errors import UserError
from gaze_capture.storage import write_bytes_atomic
from segmentation.editing.history import EditableMask, Step
from segmentation.editing.journal import (
    ENDING,
    DraftHeader,
    Journal,
    ReadDraft,
    read_draft,
    read_header,
    whole_draft,
)
from segmentation.editing.regions import Mask
from segmentation.editing.starts import start_mask, starts
from segmentation.records import Key, safe_name, utc_now
from segmentation.review_index import BARE_IMAGE, Purpose
from segmentation.study import Study
from segmentation.study_folder import names_in

DRAFTS = "drafts"


@dataclass(frozen=True)
class Kept:
    """A draft as bytes, to be put back where it lay."""

    path: Path
    data: bytes


class Draft:
    """One annotator's edit of one target in one image; every step is on its way to the disk when it is done.

    A step that could not be written stays in the mask, and is written with the next one. Made by :func:`open_draft`.
    """

    def __init__(
        self,
        study: Study,
        header: DraftHeader,
        edit: EditableMask,
        *,
        seconds: float = 0.0,
        recovered: bool = False,
    ) -> None:
        self.study = study
        self.header = header
        self.edit = edit
        self.seconds = seconds
        """Spent on it so far, in all sittings; whoever keeps the time sets it before a step."""
        self.recovered = recovered
        """Whether it was begun before, and is gone on with."""
        self.note = ""
        """What whoever edits should know, in a sentence: that others edit the image, too."""
        self._journal: Journal | None = None
        self._spoilt: Path | None = None
        """A damaged file that it was read from, as far as that went."""
        self._behind = False
        """Whether the file lacks a step that the mask has."""

    @property
    def path(self) -> Path | None:
        """The file it is kept in; None before its first step."""
        return None if self._journal is None else self._journal.path

    def take(self, journal: Journal) -> None:
        """Go on writing to the file that it was read from."""
        self._journal = journal

    def leave(self, spoilt: Path) -> None:
        """Do not write to the damaged file that it was read from; it stays until the mask is stored."""
        self._spoilt = spoilt

    # Steps

    def commit(self, start: str = "") -> Step | None:
        """End the step begun in :attr:`edit` and keep it; None where it changed nothing.

        Raises
        ------
        UserError
            If it cannot be written; the mask has it all the same.
        """
        step = self.edit.commit(start)
        if step is not None:
            self._keep(lambda journal: journal.step(step, self.seconds))
        return step

    def apply(self, word: str, after: Mask, start: str = "") -> Step | None:
        """Have the mask be another (H, W), as one step that is kept; raises UserError as `commit` does."""
        self.edit.begin(word)
        self.edit.replace(after)
        return self.commit(start)

    def undo(self) -> Step | None:
        """Take the last step back; None where there is none. Raises UserError as `commit` does."""
        step = self.edit.undo()
        if step is not None:
            self._keep(lambda journal: journal.undo(self.seconds))
        return step

    def redo(self) -> Step | None:
        """Do the step taken back last again; None where there is none. Raises UserError as `commit` does."""
        step = self.edit.redo()
        if step is not None:
            self._keep(lambda journal: journal.redo(self.seconds))
        return step

    def keep(self) -> None:
        """Have all of it on the disk, anew where some did not get there; raises UserError where it cannot be."""
        if self._journal is not None and not self._behind:
            try:
                self._journal.flush()
            except UserError:
                self._behind = True
        if self._behind:
            self._write_whole()
            self._behind = False

    def _keep(self, write: Callable[[Journal], None]) -> None:
        journal, behind = self._journal, self._behind
        self._behind = True
        if journal is None or behind or not journal.intact:
            self._write_whole()
        else:
            write(journal)
        self._behind = False

    # The file

    def _write_whole(self) -> None:
        """Begin a file with all there is: the first one, or another where the last is not to be written to."""
        path = _folder(self.study, self.header.image_id, self.header.target_id) / _name_for(
            self.header.annotator
        )
        made = Journal.create(path, self._bytes(), self.study.folder)
        before, self._journal = self._journal, made
        if before is not None:
            # Where others wrote to it, or moved it, it is theirs now.
            ours = before.intact
            before.close()
            if ours:
                with contextlib.suppress(OSError):
                    before.path.unlink()

    def _bytes(self) -> bytes:
        began_as = self.edit.mask.copy()
        for step in self.edit.steps:
            # In any order: each says which pixels change.
            step.flip(began_as)
        return whole_draft(self.header, began_as, self.edit, self.seconds)

    def close(self) -> None:
        """Leave it as it is, to be gone on with; where it has no step there is nothing to leave."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def finish(self) -> Kept | None:
        """Take it away, as its mask is stored; return it, so that it can be put back. None where it had no step."""
        paths = [path for path in (self.path, self._spoilt) if path is not None]
        if not paths:
            return None
        self.close()
        # One that cannot be taken away is offered again, which is better than a mask that seems not to be stored.
        with contextlib.suppress(OSError):
            for path in paths:
                path.unlink(missing_ok=True)
            # Unless others' drafts are in it.
            paths[0].parent.rmdir()
        return Kept(paths[0], self._bytes())


def put_back(study: Study, kept: Kept) -> None:
    """Put a draft that was finished back, as what became of it was withdrawn; raises UserError if it cannot be."""
    write_bytes_atomic(kept.path, kept.data, within=study.folder)


def open_draft(
    study: Study,
    image_id: str,
    target_id: str,
    annotator: str,
    run_id: str | None,
    *,
    began_as: tuple[str, Mask] | None = None,
    purpose: Purpose = "review",
) -> Draft:
    """Begin an edit, or go on with the one this annotator left, wherever it was left.

    Parameters
    ----------
    run_id
        Whose prediction is shown; a draft that was left is of the run that it began with.
    began_as
        What to begin with, by name and mask (H, W), instead of the usual start; ignored where a draft was left.
    purpose
        Of the review to come; drafts of one are not gone on with for another.

    Raises
    ------
    UserError
        If the image, the target or the study is gone, or the start is of another size than the image.
    """
    study.check_there()
    image, target = study.image(image_id), study.target(target_id)
    height, width, _ = image.shape
    notes: list[str] = []
    draft: Draft | None = None
    for path in sorted(_drafts_in(_folder(study, image_id, target_id)), reverse=True):
        try:
            header = read_header(path)
        except UserError as error:
            notes.append(str(error))
            continue
        misplaced = (header.image_id, header.target_id) != (image_id, target.id)
        own = (header.annotator, header.purpose) == (annotator, purpose) and draft is None and not misplaced
        journal = _taken(path, needed=own)
        if journal is None:
            notes.append(_in_use(header, image_id))
        elif not own:
            journal.close()
        elif header.shape != (height, width):
            journal.close()
            notes.append(
                f"{path} keeps an edit of {header.shape[1]} x {header.shape[0]} pixels, the image is {width} x "
                f"{height} now; it was left where it is."
            )
        else:
            draft = _gone_on_with(study, journal, notes)
    if draft is None:
        name, mask = began_as or _usual_start(study, image_id, target_id, run_id, purpose)
        if mask.shape != (height, width):
            raise UserError(
                f"A mask of {mask.shape[1]} x {mask.shape[0]} pixels cannot be edited on the image {image_id}, which "
                f"is {width} x {height}; make it again for this image."
            )
        predicted = run_id is not None and study.prediction_path(run_id, image_id, target_id).exists()
        judged = run_id if run_id is not None and predicted else "pseudomask"
        if purpose == "audit":
            judged = BARE_IMAGE
        header = DraftHeader(
            image_id,
            target.id,
            annotator,
            judged,
            purpose,
            name,
            (height, width),
            utc_now(),
            socket.gethostname(),
        )
        draft = Draft(study, header, EditableMask(mask, name))
    draft.note = " ".join(notes[:1])
    return draft


def _usual_start(
    study: Study, image_id: str, target_id: str, run_id: str | None, purpose: Purpose
) -> tuple[str, Mask]:
    name = starts(study, image_id, target_id, run_id, purpose)[0]
    return name, start_mask(study, image_id, target_id, run_id, name)


def _gone_on_with(study: Study, journal: Journal, notes: list[str]) -> Draft:
    read: ReadDraft = read_draft(journal.path)
    draft = Draft(study, read.header, read.edit, seconds=read.seconds, recovered=True)
    if read.damaged:
        journal.close()
        notes.append(
            f"{journal.path} is damaged: the edit goes on with the steps that could be read, the file stays as it is "
            "until that is stored."
        )
        draft.leave(journal.path)
    else:
        journal.cut(read.sound_bytes)
        draft.take(journal)
    return draft


def _taken(path: Path, *, needed: bool) -> Journal | None:
    try:
        return Journal.taken(path)
    except UserError:
        if needed:
            raise
        # Another annotator's, which may not be opened: who has it is not known.
        return None


def _in_use(header: DraftHeader, image_id: str) -> str:
    here = "" if header.host == socket.gethostname() else f" on the computer {header.host}"
    return (
        f"{header.annotator} is editing {image_id} in another window{here}, too: both edits are kept, and the one that "
        "is stored last counts."
    )


def drafts_left(study: Study, annotator: str) -> dict[Key, frozenset[Purpose]]:
    """Return what an annotator's unfinished edits are for, by (image id, target id).

    One that is damaged is left out; of others' edits names alone are read.

    Raises
    ------
    UserError
        If the study cannot be reached.
    """
    name = safe_name(annotator)
    found: dict[Key, frozenset[Purpose]] = {}
    for folder in sorted(_listed(study.folder / DRAFTS)):
        for path in _drafts_in(folder):
            if _annotator_in(path) != name:
                continue
            with contextlib.suppress(UserError):
                header = read_header(path)
                if header.annotator == annotator:
                    key = header.image_id, header.target_id
                    found[key] = found.get(key, frozenset()) | {header.purpose}
    return found


def drafts_of(study: Study, annotator: str) -> list[Path]:
    """Return the files of all an annotator's drafts; of one whose beginning is damaged its name tells whose it is.

    Raises
    ------
    UserError
        If the study cannot be reached.
    """
    found = []
    for path in (path for folder in sorted(_listed(study.folder / DRAFTS)) for path in _drafts_in(folder)):
        try:
            own = read_header(path).annotator == annotator
        except UserError:
            own = _annotator_in(path) == safe_name(annotator)
        if own:
            found.append(path)
    return found


def _folder(study: Study, image_id: str, target_id: str) -> Path:
    return study.folder / DRAFTS / f"{image_id}.{target_id}"


def _name_for(annotator: str) -> str:
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S%f")
    return f"{stamp}-{secrets.token_hex(3)}-{safe_name(annotator)}{ENDING}"


def _annotator_in(path: Path) -> str:
    """Return whose a draft is, as its name tells it: date, time and chance come before."""
    return path.name.removesuffix(ENDING).split("-", 3)[-1]


def _drafts_in(folder: Path) -> list[Path]:
    return [path for path in _listed(folder) if path.name.endswith(ENDING) and path.name[0] != "."]


def _listed(folder: Path) -> list[Path]:
    return [folder / name for name in names_in(folder)]
