"""What clinicians said of an image in their own words: kept as they said it, and read into explanations."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, read_json, write_json_atomic
from gaze_capture.voice import FOLDER as VOICE_FOLDER
from gaze_capture.voice import LIST as VOICE_LIST
from gaze_capture.voice import notes_of
from segmentation.own_words_reading import MAX_WORDS_CHARACTERS
from segmentation.records import new_id, refuse_newer, utc_now
from segmentation.study import Study

FORMAT = 1
WORDS_FOLDER = "explanations/words"


@dataclass(frozen=True)
class OwnWords:
    """What one annotator said of one target in one image; never rewritten."""

    id: str
    image_id: str
    target_id: str
    annotator: str
    """A pseudonym."""
    words: str
    """As they were typed, whatever they contain."""
    said_at: str
    """ISO 8601, UTC."""
    voice_note: str = ""
    """``<recording>/<file>`` of the voice note that was written down here; empty where the words were typed."""


def words_folder(study: Study, image_id: str, target_id: str) -> Path:
    """Return where everything that was said of a target in an image lies, one file each."""
    return study.folder / WORDS_FOLDER / f"{image_id}.{target_id}"


def keep_words(
    study: Study, image_id: str, target_id: str, annotator: str, words: str, voice_note: str = ""
) -> OwnWords:
    """Store what an annotator said.

    Parameters
    ----------
    voice_note
        ``<recording>/<file>`` where the words are those of a voice note. The program recognises no speech: somebody
        listens and types.

    Raises
    ------
    UserError
        If there is no such image, target or voice note, nobody or nothing is said, or the study cannot be written.
    """
    study.image(image_id)
    study.target(target_id)
    if not annotator.strip():
        raise UserError("Own words need the pseudonym of the annotator whose they are.")
    if not words.strip():
        raise UserError(f"Nothing was said of {image_id}: the words are empty.")
    if len(words) > MAX_WORDS_CHARACTERS:
        raise UserError(
            f"The words said of {image_id} are {len(words)} characters long; shorten them to {MAX_WORDS_CHARACTERS}."
        )
    if voice_note and voice_note not in voice_notes(study, image_id, target_id):
        raise UserError(f"There is no voice note {voice_note!r} on {image_id}; name it as RECORDING/FILE.")
    own = OwnWords(new_id(), image_id, target_id, annotator.strip(), words, utc_now(), voice_note)
    path = words_folder(study, image_id, target_id) / f"{own.id}.json"
    write_json_atomic(path, {"format": FORMAT, **dataclasses.asdict(own)}, within=study.folder)
    return own


def load_words(study: Study, image_id: str, target_id: str) -> list[OwnWords]:
    """Return everything that was said of a target in an image, oldest first.

    Raises
    ------
    UserError
        If a file is damaged or a newer version wrote it.
    """
    folder = words_folder(study, image_id, target_id)
    with explained_os_errors(folder):
        paths = sorted(folder.glob("*.json")) if folder.exists() else []
    found = [read_own_words_file(path) for path in paths]
    return sorted(found, key=lambda own: (own.said_at, own.id))


def read_own_words_file(path: Path) -> OwnWords:
    """Read what somebody said from its file.

    Raises
    ------
    UserError
        If it is damaged or a newer version wrote it.
    """
    values = read_json(path)
    refuse_newer(path, values, FORMAT, "format")
    version = values.pop("format", None) if isinstance(values, dict) else None
    try:
        if version is None:
            raise TypeError("it names no format")
        own = OwnWords(**values)
        if not all(isinstance(value, str) for value in dataclasses.astuple(own)):
            raise TypeError("its values are not all text")
        # Half a surrogate pair can be neither shown nor stored again.
        "".join(dataclasses.astuple(own)).encode()
    except (TypeError, UnicodeError) as error:
        raise UserError(f"{path} is damaged ({error}). Delete it and say it again.") from None
    return own


def voice_notes(study: Study, image_id: str, target_id: str) -> list[str]:
    """Return ``<recording>/<file>`` of the voice notes spoken on an image while a target was looked for, oldest first.

    Raises
    ------
    UserError
        If a recording's list of notes is damaged.
    """
    return [
        f"{place.parents[1].name}/{note.file}"
        for place in sorted(study.recordings_folder.glob(f"*/{VOICE_FOLDER}/{VOICE_LIST}"))
        for note in notes_of(place.parents[1])
        if note.image_id == image_id and note.target_id in (None, target_id)
    ]


def why_no_words(study: Study, image_id: str, target_id: str) -> UserError:
    """Return the reason that there are no words to read, with what to do."""
    how = f'gaze-insight describe STUDY {image_id} --annotator A --words "..."'
    notes = voice_notes(study, image_id, target_id)
    if not notes:
        return UserError(f"Nobody has described {image_id} in words yet; do so with: {how}")
    recording, file = notes[-1].split("/", 1)
    path = study.recordings_folder / recording / VOICE_FOLDER / file
    return UserError(
        f"The voice note {path} has not been written down, and this program recognises no speech; listen to it and "
        f"type its words with: {how} --note {notes[-1]}"
    )


def words_of_annotator(study: Study, annotator: str) -> list[Path]:
    """Return the files of everything an annotator said in words, and of the explanations made of it.

    Damaged files are passed over: nobody knows whose they are.
    """
    folder = study.folder / "explanations"
    found = []
    for pattern in ("words/*/*.json", "history/*/*.json", "*.json"):
        for path in sorted(folder.glob(pattern)):
            try:
                values = read_json(path)
            except UserError:
                continue
            if not isinstance(values, dict):
                continue
            described = values.get("backend") == "annotator" and values.get("model") == annotator
            if described or ("words" in values and values.get("annotator") == annotator):
                found.append(path)
    return found


@dataclass(frozen=True)
class Notes:
    """A table of notes: image ids and words, and what of it could not be used."""

    said: list[tuple[str, str]]
    """Image id and words, in the file's order."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    """Line of the file, as ``line 3``, and reason."""


def read_notes(study: Study, path: Path) -> Notes:
    """Read a CSV file with the columns ``image`` and ``words``, separated by commas, semicolons or tabs.

    Images are named by id or by the file they came from, with or without its ending.

    Raises
    ------
    UserError
        If it cannot be read, is not UTF-8, or lacks a column.
    """
    with explained_os_errors(path):
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8; save it as CSV UTF-8.") from None
    heading = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=heading.count)
    csv.field_size_limit(10 * MAX_WORDS_CHARACTERS)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        columns = {(name or "").strip().casefold(): name for name in reader.fieldnames or ()}
        if not {"image", "words"} <= set(columns):
            raise UserError(
                f"{path} needs the columns image and words; its first line is {heading.strip()[:80]!r}."
            )
        known = _names(study)
        notes = Notes([])
        for line in reader:
            name, words = (str(line[columns[one]] or "").strip() for one in ("image", "words"))
            where = f"line {reader.line_num}"
            if not name and not words:
                continue
            if name not in known:
                notes.refused.append((where, f"there is no image {name!r}, or several have this name"))
            elif not words:
                notes.refused.append((where, f"nothing is said of {name}"))
            else:
                notes.said.append((known[name], words))
    except csv.Error as error:
        raise UserError(f"{path} is no CSV file ({error}).") from None
    return notes


def _names(study: Study) -> dict[str, str]:
    """Return what an image may be called, where only one is called so; an id always wins."""
    called: list[tuple[str, str]] = []
    for image in study.images.values():
        called += [(name, image.id) for name in {image.source_name, Path(image.source_name).stem}]
    counts = Counter(name for name, _ in called)
    names = {name: image_id for name, image_id in called if counts[name] == 1}
    return {**names, **{image_id: image_id for image_id in study.images}}


def latest(said: Sequence[OwnWords], annotator: str | None) -> OwnWords | None:
    """Return what was said last, by one annotator or by anybody."""
    return next((own for own in reversed(said) if annotator in (None, own.annotator)), None)
