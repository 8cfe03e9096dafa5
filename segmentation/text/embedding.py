"""The study's phrases made into vectors, all at once, by the encoder that the study or a run has chosen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json
from segmentation.explanation import attribute_phrases, load_explanation, preset_of
from segmentation.explanation_settings import EncoderChoice, load_settings, save_settings
from segmentation.job import RunSpec
from segmentation.progress import Progress, no_progress
from segmentation.study import Study
from segmentation.text.encoder import (
    FLIP_STATES,
    Encoder,
    MiniLM,
    PhraseCache,
    of_target,
    phrase_when_flipped,
)
from segmentation.text.folder_encoder import FolderEncoder
from segmentation.text.imported import ImportedEmbeddings

_AT_ONCE = 512
"""Phrases between two reports of progress; all before are on disk then."""


def embed_study(study: Study, encoder: Encoder | None = None, progress: Progress = no_progress) -> int:
    """Encode every phrase of the study's explanations, in all flip states; return how many there are.

    Without an encoder the study's own choice is taken.

    Raises
    ------
    UserError
        If the encoder cannot be loaded, or the study cannot be read or written; what was encoded is kept.
    """
    encoder = encoder or chosen_encoder(study, None)
    found: set[str] = set()
    keys = sorted(study.explanation_keys())
    for number, (image_id, target_id) in enumerate(keys):
        progress(number, len(keys), "reading explanations")
        explanation = load_explanation(study, image_id, target_id)
        if explanation is None:
            continue
        phrases = list(attribute_phrases(explanation, preset_of(explanation, study.folder)).values())
        if len(study.targets) > 1:
            # A run on several targets says of which it speaks, a run on one does not.
            name = study.target(target_id).name
            phrases += [of_target(name, phrase) for phrase in phrases]
        found.update(phrase_when_flipped(phrase, state) for phrase in phrases for state in range(FLIP_STATES))
    cache, ordered = PhraseCache(study.folder, encoder), sorted(found)
    for start in range(0, len(ordered), _AT_ONCE):
        progress(start, len(ordered), "encoding phrases")
        cache.encode(ordered[start : start + _AT_ONCE])
    return len(ordered)


def use_encoder(study: Study, folder: Path | None, progress: Progress = no_progress) -> tuple[Encoder, int]:
    """Make a folder's encoder, or MiniLM, the study's own and encode all phrases; return it and their number.

    Raises
    ------
    UserError
        If the folder holds no encoder that can be used; the study keeps the one it had.
    """
    progress(0, 0, "loading the text encoder")
    encoder = FolderEncoder.examine(folder) if folder is not None else None
    count = embed_study(study, encoder or MiniLM(), progress)
    settings = dataclasses.replace(load_settings(study), encoder=encoder.choice if encoder else None)
    if settings != load_settings(study):
        save_settings(study, settings)
    return encoder or MiniLM(), count


def chosen_encoder(study: Study, folder: Path | None) -> Encoder:
    """Return the encoder that the study has chosen, unloaded; `folder` is where this computer has it, if it has."""
    choice = load_settings(study).encoder
    return FolderEncoder(choice, folder) if choice else MiniLM()


def encoder_of(study: Study, spec: RunSpec, folder: Path | None) -> Encoder:
    """Return the encoder that a run was made with, unloaded, whatever the study has chosen since.

    Raises
    ------
    UserError
        If neither the study nor its vectors know it any more.
    """
    if not spec.text_encoder:
        return MiniLM()
    chosen = load_settings(study).encoder
    if chosen is not None and (chosen.name, chosen.sha256) == (spec.text_encoder, spec.text_encoder_sha256):
        return FolderEncoder(chosen, folder)
    for path in sorted((study.folder / "embeddings").glob("*/phrases.json")):
        header = read_json(path)
        if not isinstance(header, dict):
            continue
        if (header.get("encoder"), header.get("sha256")) == (spec.text_encoder, spec.text_encoder_sha256):
            try:
                width = int(header["width"])
            except (KeyError, TypeError, ValueError):
                raise UserError(
                    f"{path} is damaged. Delete its folder; it is made again from the explanations."
                ) from None
            choice = EncoderChoice(spec.text_encoder, spec.text_encoder_sha256, width)
            return FolderEncoder(choice, folder)
    raise UserError(
        f"The run reads text by the encoder {spec.text_encoder} ({spec.text_encoder_sha256[:8]}), but the study now "
        f"has {chosen.name if chosen else MiniLM.name} and no vectors of the other; choose it again: gaze-insight "
        "text-encoder STUDY --folder DIR"
    )


def text_of(
    study: Study, spec: RunSpec, encoder: Encoder | None, folder: Path | None
) -> PhraseCache | ImportedEmbeddings:
    """Return the vectors that a run reads; an encoder that is given must be the run's.

    `folder` is where this computer has the run's encoder, if it has; it is needed for phrases without a vector alone.

    Raises
    ------
    UserError
        If it is another one, the run's is not known any more, or the imported embeddings are not those of the run.
    """
    if spec.text_embeddings:
        return ImportedEmbeddings(study, spec.text_embeddings, spec.targets, spec.text_encoder_sha256)
    if encoder is None:
        encoder = encoder_of(study, spec, folder)
    elif spec.text_encoder and encoder.sha256 != spec.text_encoder_sha256:
        raise UserError(
            f"The run reads text by the encoder {spec.text_encoder} ({spec.text_encoder_sha256[:8]}), not by "
            f"{encoder.name} ({encoder.sha256[:8]}); vectors of different encoders are never mixed."
        )
    return PhraseCache(study.folder, encoder)
