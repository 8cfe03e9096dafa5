"""An annotator's consent to being recorded, and erasing what is stored of them.

The text is ``resources/consent.md``, or ``consent.md`` in the study's folder in its place. A consent holds for the very
text that was shown: when that changes, the annotator is asked again.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.fixation_table import read_fixation_table, read_looks
from gaze_capture.recording_codec import FRAMES_NAME, SUMMARY_NAME, needs_recovery, read_recording
from gaze_capture.storage import explained_os_errors, read_json, write_json_atomic
from segmentation.consensus import reviews_in
from segmentation.editing.drafts import drafts_of
from segmentation.look_again import marks_of
from segmentation.own_words_store import words_of_annotator
from segmentation.records import SCHEMA, safe_name, utc_now
from segmentation.study import Study

TEXT_NAME = "consent.md"
_LETTERS = "23456789ABCDEFGHJKMNPQRTUVWXY"
"""Without those that look alike."""


@dataclass(frozen=True)
class ConsentText:
    """What an annotator is asked to agree to."""

    markdown: str
    version: str
    """What follows ``Version:`` in it, or the start of its hash."""
    sha256: str


@dataclass(frozen=True)
class Consent:
    """An annotator's answer."""

    annotator: str
    version: str
    text_sha256: str
    given_at: str
    """ISO 8601, UTC."""
    withdrawn_at: str | None = None


def consent_text(study: Study) -> ConsentText:
    """Return the study's own text, or the program's.

    Raises
    ------
    UserError
        If the study's text cannot be read or is empty.
    """
    path = study.folder / TEXT_NAME
    if path.exists():
        with explained_os_errors(path):
            data = path.read_bytes()
        try:
            markdown = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{path} is not a text in UTF-8; save it as such.") from None
        if not markdown.strip():
            raise UserError(
                f"{path} is empty; write the consent into it, or delete it to use the program's own."
            )
    else:
        markdown = resources.files("resources").joinpath(TEXT_NAME).read_text(encoding="utf-8")
    # Of the lines, not the bytes: an editor's line ends do not make another text.
    digest = hashlib.sha256("\n".join(markdown.splitlines()).encode()).hexdigest()
    named = re.search(r"(?m)^\s*Version:\s*(\S.*?)\s*$", markdown)
    return ConsentText(markdown, named.group(1) if named else digest[:12], digest)


def _path(study: Study, annotator: str) -> Path:
    return study.folder / "consents" / f"{safe_name(annotator)}.json"


def consent_of(study: Study, annotator: str) -> Consent | None:
    """Return an annotator's latest consent, withdrawn or not; None if they never gave any.

    Raises
    ------
    UserError
        If the file is damaged.
    """
    path = _path(study, annotator)
    if not path.exists():
        return None
    entries = _entries(path)
    return entries[-1] if entries and entries[-1].annotator == annotator else None


def _entries(path: Path) -> list[Consent]:
    values = read_json(path)
    try:
        return [Consent(**entry) for entry in values["consents"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}). Delete it; the annotator is asked again.") from None


def has_consented(study: Study, annotator: str) -> bool:
    """Whether an annotator agrees to the present text, and has not withdrawn that."""
    found = consent_of(study, annotator)
    if found is None or found.withdrawn_at is not None:
        return False
    return found.text_sha256 == consent_text(study).sha256


def give_consent(study: Study, annotator: str, text: ConsentText | None = None) -> Consent:
    """Store that an annotator agrees to a text (default: the present one); earlier answers stay on record.

    Raises
    ------
    UserError
        If the annotator has no name, another one's name makes the same file, or the study cannot be written.
    """
    annotator = annotator.strip()
    if not annotator:
        raise UserError("Consent needs an annotator's id; choose one, such as " + suggested_id() + ".")
    shown = text or consent_text(study)
    path = _path(study, annotator)
    entries = _entries(path) if path.exists() else []
    if entries and entries[-1].annotator != annotator:
        raise UserError(
            f"The id {annotator!r} is too much like {entries[-1].annotator!r}, which this study has already; "
            "choose another one."
        )
    consent = Consent(annotator, shown.version, shown.sha256, utc_now())
    _write(study, path, [*entries, consent])
    study.audit("consent given", annotator=annotator, version=shown.version)
    return consent


def withdraw_consent(study: Study, annotator: str) -> None:
    """Store that an annotator withdraws; what was recorded stays until it is erased.

    Raises
    ------
    UserError
        If there is no consent to withdraw, or the study cannot be written.
    """
    consent = consent_of(study, annotator)
    if consent is None or consent.withdrawn_at is not None:
        raise UserError(
            f"The annotator {annotator!r} has given no consent in this study that could be withdrawn."
        )
    path = _path(study, annotator)
    values = {**asdict(consent), "withdrawn_at": utc_now()}
    _write(study, path, [*_entries(path)[:-1], Consent(**values)])
    study.audit("consent withdrawn", annotator=annotator)


def _write(study: Study, path: Path, entries: Sequence[Consent]) -> None:
    study.check_there()
    values = {"schema": SCHEMA, "consents": [asdict(entry) for entry in entries]}
    write_json_atomic(path, values, within=study.folder)


def suggested_id() -> str:
    """Return a pseudonymous id to use in place of a name, such as ``annotator-7F3K``."""
    return "annotator-" + "".join(secrets.choice(_LETTERS) for _ in range(4))


# Erasing


@dataclass(frozen=True)
class Erasure:
    """What is stored of an annotator and was, or would be, erased."""

    annotator: str
    recordings: tuple[str, ...]
    imports: tuple[str, ...]
    """Imported gaze tables that hold their looks."""
    pseudomasks: int
    explanations: int
    words: int
    """Files of what they said of images in their own words, and of explanations made of that."""
    reviews: int
    """Files of reviews, of consensuses that these have a part in, and of wishes for another look."""
    drafts: int
    """Edits that were left unfinished."""
    draws: int
    """Audits that were drawn for them alone."""
    overrules: int
    """Gates that they overruled, in anyone's recordings: those hold again."""
    consent: bool
    runs: tuple[str, ...]
    """Runs of the study: their models may have learned from this gaze, and stay."""
    unreadable: tuple[str, ...]
    """Recordings and unfinished edits that cannot be read, so that nobody knows whose they are; they stay."""

    @property
    def anything(self) -> bool:
        """Whether there is anything to erase."""
        return bool(
            self.recordings
            or self.imports
            or self.pseudomasks
            or self.words
            or self.reviews
            or self.drafts
            or self.draws
            or self.overrules
            or self.consent
        )

    def to_json(self) -> dict[str, Any]:
        """Return what ``erase-annotator --json`` prints."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }


def erase_annotator(study: Study, annotator: str, *, really: bool) -> Erasure:
    """Erase an annotator's recordings, looks, own words, reviews, drafts, overrules, consent, and what is made of them.

    Pseudo-masks and consensuses of several annotators go as a whole and can be made again from the others'. Lines of
    the audit log stay, and one says that this was done.

    Parameters
    ----------
    really : False only tells what would be erased

    Raises
    ------
    UserError
        If nothing is stored of such an annotator, or something cannot be deleted.
    """
    study.refresh()
    recordings, unreadable = _recordings_of(study, annotator)
    tables = [
        path.parent
        for path in sorted((study.folder / "fixations").glob("*/fixations.csv"))
        if any(look.annotator == annotator for look in read_looks(path))
    ]
    gone = {*recordings, *(folder.name for folder in tables)}
    pseudomasks = [
        key
        for key in sorted(study.pseudomask_keys())
        if (found := study.pseudomask(*key)) is not None
        and (annotator in found.annotators or gone & set(found.sources))
    ]
    explanations = [
        study.explanation_path(*key) for key in pseudomasks if study.explanation_path(*key).exists()
    ]
    words = words_of_annotator(study, annotator)
    reviews = [*_reviews_of(study, annotator), *marks_of(study, annotator)]
    drafts = drafts_of(study, annotator)
    draws = [
        path for path in sorted((study.folder / "audits").glob("*.json")) if _annotator_in(path) == annotator
    ]
    overrules = [
        path
        for path in sorted(study.recordings_folder.glob("*/overruled/*.json"))
        if path.parents[1].name not in recordings and _annotator_in(path) == annotator
    ]
    consent = _path(study, annotator)
    own_consent = consent.exists() and any(entry.annotator == annotator for entry in _entries(consent))
    result = Erasure(
        annotator=annotator,
        recordings=tuple(recordings),
        imports=tuple(folder.name for folder in tables),
        pseudomasks=len(pseudomasks),
        explanations=len(explanations),
        words=len(words),
        reviews=len(reviews),
        drafts=len(drafts),
        draws=len(draws),
        overrules=len(overrules),
        consent=own_consent,
        runs=tuple(study.run_ids()),
        unreadable=tuple(unreadable),
    )
    if not result.anything:
        raise UserError(f"Nothing is stored of an annotator {annotator!r} in this study.")
    if not really:
        return result
    with explained_os_errors(study.folder):
        for name in recordings:
            shutil.rmtree(study.recordings_folder / name)
        for folder in tables:
            _erase_looks(study, folder, annotator)
        for key in pseudomasks:
            study.remove_pseudomask(*key)
        for key in pseudomasks:
            shutil.rmtree(study.explanation_history(*key), ignore_errors=True)
        for path in [*explanations, *words, *reviews, *drafts, *draws, *overrules]:
            path.unlink(missing_ok=True)
        if own_consent:
            consent.unlink()
    study.audit("erase annotator", **result.to_json())
    study.refresh()
    return result


def _recordings_of(study: Study, annotator: str) -> tuple[list[str], list[str]]:
    own, unreadable = [], []
    for name in study.recording_ids():
        folder = study.recordings_folder / name
        try:
            if needs_recovery(folder):
                found = read_recording(folder).annotator
            else:
                found = read_json(folder / SUMMARY_NAME)["annotator"]
        except (UserError, KeyError, TypeError):
            unreadable.append(f"{name}/{FRAMES_NAME}")
            continue
        if found == annotator:
            own.append(name)
    return own, unreadable


def _erase_looks(study: Study, folder: Path, annotator: str) -> None:
    others = [item for item in read_fixation_table(folder / "fixations.csv") if item.annotator != annotator]
    if others:
        study.save_fixations(folder.name, others, imported=True)
    else:
        shutil.rmtree(folder)


def _annotator_in(path: Path) -> str | None:
    values = read_json(path)
    return values.get("annotator") if isinstance(values, dict) else None


def _reviews_of(study: Study, annotator: str) -> list[Path]:
    """Return the files of an annotator's reviews, and of consensuses that these have a part in."""
    own: set[str] = set()
    consensuses: dict[Path, list[str]] = {}
    paths = sorted((study.folder / "reviews").glob("*/*.json"))
    for path in paths:
        values = read_json(path)
        if not isinstance(values, dict):
            continue
        if values.get("purpose") == "consensus":
            consensuses[path] = reviews_in(str(values.get("subject")))
        elif values.get("annotator") == annotator:
            own.add(path.stem)
    return [
        file
        for path in paths
        if path.stem in own or own & set(consensuses.get(path, ()))
        for file in (path, path.with_suffix(".png"), path.with_suffix(".withdrawn"))
        if file.exists()
    ]
