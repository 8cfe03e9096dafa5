"""What a new run reads as text: phrases by the study's encoder, or imported embeddings. Knows names, not vectors."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json
from segmentation.explanation_settings import load_settings
from segmentation.job import RunSpec
from segmentation.study import Study

_PREFIX = "imported-"


def checked_name(name: str) -> str:
    """Return a name that imported embeddings can have.

    Raises
    ------
    UserError
        If it is no plain file name.
    """
    if not re.fullmatch(r"\w[\w-]{0,63}", name):
        raise UserError(f"Embeddings need a name of letters, digits, - and _ (at most 64), not {name!r}.")
    return name


def embeddings_folder(study: Study, name: str) -> Path:
    """Return where imported embeddings lie: for each target a ``.safetensors`` file and what it is, as ``.json``."""
    return study.folder / "embeddings" / (_PREFIX + checked_name(name))


def imported_names(study: Study) -> list[str]:
    """Return the names of all embeddings imported into a study."""
    found = {path.parent.name for path in (study.folder / "embeddings").glob(f"{_PREFIX}*/*.json")}
    return sorted(name.removeprefix(_PREFIX) for name in found)


def imported_hash(study: Study, name: str, targets: Sequence[str]) -> str:
    """Return what tells the embeddings of a name for some targets from all others.

    Raises
    ------
    UserError
        If there are none for one of the targets.
    """
    hashes = []
    for target_id in targets:
        path = embeddings_folder(study, name) / f"{target_id}.json"
        if not path.exists():
            known = ", ".join(imported_names(study)) or "none yet"
            raise UserError(
                f"The study has no imported embeddings {name!r} for the target {target_id!r} (it has: {known}); "
                f"import them first: gaze-insight import-embeddings STUDY DIR --name {name}"
            )
        try:
            hashes.append(str(read_json(path)["sha256"]))
        except (TypeError, KeyError):
            raise UserError(
                f"{path} is damaged. Delete its folder and import the embeddings again."
            ) from None
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def with_text(study: Study, spec: RunSpec) -> RunSpec:
    """Return the spec of a new run that says what it will read; one that says so already is kept.

    Raises
    ------
    UserError
        If it names imported embeddings that the study does not have.
    """
    if spec.text == "none":
        return spec
    if spec.text_embeddings:
        digest = imported_hash(study, spec.text_embeddings, spec.targets)
        return dataclasses.replace(spec, text_encoder="", text_encoder_sha256=digest)
    choice = load_settings(study).encoder
    if spec.text_encoder or choice is None:
        return spec
    return dataclasses.replace(spec, text_encoder=choice.name, text_encoder_sha256=choice.sha256)
