"""Reviewers ask for another look at an image: marks that stand until someone has looked, each a file of its own."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, write_bytes_atomic, write_json_atomic
from segmentation.records import SCHEMA, Key, safe_name, utc_now
from segmentation.study import Study
from segmentation.study_folder import names_in

FOLDER = "look_again"


@dataclass(frozen=True)
class Asked:
    """Someone's wish for new gaze on a target in an image."""

    image_id: str
    target_id: str
    annotator: str
    name: str
    """Of its file, without ending."""
    known: frozenset[str]
    """Recordings and imports that had looked by then."""

    @property
    def reason(self) -> str:
        """In words."""
        return f"{self.annotator} asked for another look in review"


def ask_again(study: Study, image_id: str, target_id: str, annotator: str) -> Asked:
    """Mark an image so that the next session shows it first, whoever looks.

    Raises
    ------
    UserError
        If the study has no such image or target, or cannot be written.
    """
    study.image(image_id)
    study.target(target_id)
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S%f")
    name = f"{stamp}-{secrets.token_hex(3)}-{safe_name(annotator)}"
    known = sorted({look.source for look in study.looks.get((image_id, target_id), ())})
    values = {
        "schema": SCHEMA,
        "image_id": image_id,
        "target_id": target_id,
        "annotator": annotator,
        "asked_at": utc_now(),
        "known": known,
    }
    write_json_atomic(_folder(study, image_id, target_id) / f"{name}.json", values, within=study.folder)
    return Asked(image_id, target_id, annotator, name, frozenset(known))


def take_back(study: Study, asked: Asked) -> None:
    """Withdraw a mark; it stays on disk, marked beside it.

    Raises
    ------
    UserError
        If the study cannot be written.
    """
    path = _folder(study, asked.image_id, asked.target_id) / f"{asked.name}.withdrawn"
    write_bytes_atomic(path, b"", within=study.folder)


def asked_again(study: Study) -> dict[Key, Asked]:
    """Return the marks that stand, the latest of each image and target: nobody has looked since.

    Raises
    ------
    UserError
        If one is damaged, or the study cannot be read.
    """
    found = {}
    for path in _standing(study.folder / FOLDER):
        asked = read_asked(path)
        looks = study.looks.get((asked.image_id, asked.target_id), ())
        if {look.source for look in looks} <= asked.known:
            found[asked.image_id, asked.target_id] = asked
    return found


def marks_of(study: Study, annotator: str) -> list[Path]:
    """Return every file of an annotator's marks, also of those that were withdrawn.

    Raises
    ------
    UserError
        If one is damaged.
    """
    found = []
    for path in sorted((study.folder / FOLDER).glob("*/*.json")):
        if read_asked(path).annotator == annotator:
            found += [path, *path.parent.glob(f"{path.stem}.withdrawn")]
    return found


def _folder(study: Study, image_id: str, target_id: str) -> Path:
    return study.folder / FOLDER / f"{image_id}.{target_id}"


def _standing(folder: Path) -> Iterator[Path]:
    for name in sorted(names_in(folder)):
        files = set(names_in(folder / name))
        for file in sorted(files):
            if file.endswith(".json") and file[0] != "." and f"{file[:-5]}.withdrawn" not in files:
                yield folder / name / file


def read_asked(path: Path) -> Asked:
    """Read one mark.

    Raises
    ------
    UserError
        If it is missing or damaged.
    """
    values = read_json(path)
    try:
        return Asked(
            str(values["image_id"]),
            str(values["target_id"]),
            str(values["annotator"]),
            path.stem,
            frozenset(map(str, values["known"])),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}). Delete it, and ask for the look again.") from None
