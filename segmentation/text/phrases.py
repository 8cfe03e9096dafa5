"""Explanations as the teacher reads them: one vector per attribute phrase, for every way to flip an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from gaze_capture.errors import UserError
from segmentation.explanation import attribute_phrases, load_explanation, preset_of
from segmentation.job import RunSpec
from segmentation.networks import Text
from segmentation.study import Study
from segmentation.text.encoder import FLIP_STATES, PhraseCache, of_target, phrase_when_flipped
from segmentation.text.imported import ImportedEmbeddings


@dataclass(frozen=True)
class PhraseTable:
    """The explanations of N images; those without one have no token."""

    rows: npt.NDArray[np.int32]
    """(N, FLIP_STATES, L) rows of `vectors`, -1 where there is no further phrase."""
    vectors: npt.NDArray[np.float32]
    """(P, D) embedded phrases."""
    names: tuple[tuple[tuple[str, str], ...], ...]
    """For each of the N images the target id and the attribute of its tokens, in the order of its row. Tokens that were
    imported are called ``token 1``, ``token 2`` ..."""

    @property
    def explained(self) -> int:
        """Number of images with an explanation."""
        return int((self.rows[:, 0] >= 0).any(axis=1).sum())

    @property
    def width(self) -> int:
        """Length D of a phrase's vector."""
        return int(self.vectors.shape[1])

    def text(self, index: npt.NDArray[np.int64], states: npt.NDArray[np.int64] | int = 0) -> Text:
        """Return the explanations of images (B,), told for their flip states (B,)."""
        rows = self.rows[index, states]
        valid = rows >= 0
        tokens = np.where(valid[..., np.newaxis], self.vectors[np.maximum(rows, 0)], np.float32(0))
        return Text(torch.from_numpy(tokens), torch.from_numpy(valid))


def phrase_table(
    study: Study, ids: Sequence[str], spec: RunSpec, source: PhraseCache | ImportedEmbeddings | None
) -> PhraseTable:
    """Embed what is said of images as `spec.text` wants it; without a source nothing is said.

    Imported embeddings are the same in all flip states: what they say cannot be retold for a flipped image.

    Raises
    ------
    UserError
        If none of the images has imported embeddings, or an explanation cannot be read or embedded.
    """
    if isinstance(source, ImportedEmbeddings):
        return _imported_table(ids, spec, source)
    cache = source
    silent = cache is None or spec.text == "empty"
    said = [{} if silent else phrases_of(study, image_id, spec) for image_id in ids]
    if spec.text == "shuffled":
        said = [said[index] for index in _shuffled(spec, len(said))]
    told = [
        [[phrase_when_flipped(phrase, state) for phrase in one.values()] for state in range(FLIP_STATES)]
        for one in said
    ]
    vectors = cache.encode(phrase for states in told for one in states for phrase in one) if cache else {}
    width = cache.encoder.width if cache else 1
    row_of = {phrase: row for row, phrase in enumerate(vectors)}
    longest = max((len(one) for one in said), default=0)
    rows = np.full((len(ids), FLIP_STATES, max(longest, 1)), -1, np.int32)
    for index, states in enumerate(told):
        for state, phrases in enumerate(states):
            rows[index, state, : len(phrases)] = [row_of[phrase] for phrase in phrases]
    stacked = np.stack(list(vectors.values())) if vectors else np.zeros((1, width), np.float32)
    return PhraseTable(rows, stacked, tuple(map(tuple, said)))


def _shuffled(spec: RunSpec, count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([spec.seed, 4]).permutation(count)


def _imported_table(ids: Sequence[str], spec: RunSpec, source: ImportedEmbeddings) -> PhraseTable:
    told = [list(source.tokens(image_id)) for image_id in ids]
    if not any(told):
        raise UserError(
            f"None of the {len(ids)} images has embeddings in {source.name!r}; import theirs, or read explanations."
        )
    if spec.text == "shuffled":
        told = [told[index] for index in _shuffled(spec, len(told))]
    names = [
        tuple(
            (target_id, f"token {number + 1}") for target_id, tokens in one for number in range(len(tokens))
        )
        for one in told
    ]
    if spec.text == "empty":
        names = [() for _ in names]
    rows = np.full((len(ids), FLIP_STATES, max(1, *map(len, names))), -1, np.int32)
    first = 0
    for index, one in enumerate(names):
        rows[index, :, : len(one)] = np.arange(first, first + len(one))
        first += len(one)
    return PhraseTable(rows, np.concatenate([tokens for one in told for _, tokens in one]), tuple(names))


def phrases_of(study: Study, image_id: str, spec: RunSpec) -> dict[tuple[str, str], str]:
    """Return what is said of an image, by target and attribute.

    Raises
    ------
    UserError
        If an explanation or its preset is damaged.
    """
    phrases = {}
    for target_id in spec.targets:
        explanation = load_explanation(study, image_id, target_id)
        if explanation is None:
            continue
        for attribute, phrase in attribute_phrases(explanation, preset_of(explanation, study.folder)).items():
            if spec.text != "area-only" or attribute == "area_percent":
                phrases[target_id, attribute] = as_read(study, target_id, phrase, spec)
    return phrases


def as_read(study: Study, target_id: str, phrase: str, spec: RunSpec) -> str:
    """Return a target's phrase as a run reads it: where targets share one teacher, it says of which it speaks."""
    return of_target(study.target(target_id).name, phrase) if len(spec.targets) > 1 else phrase


def text_of_phrases(said: Sequence[Sequence[str]], cache: PhraseCache) -> Text:
    """Return what B readings say, each a list of phrases in the order of their tokens."""
    vectors = cache.encode(phrase for phrases in said for phrase in phrases)
    longest = max(1, *map(len, said))
    tokens = np.zeros((len(said), longest, cache.encoder.width), np.float32)
    valid = np.zeros((len(said), longest), np.bool_)
    for index, phrases in enumerate(said):
        for place, phrase in enumerate(phrases):
            tokens[index, place], valid[index, place] = vectors[phrase], True
    return Text(torch.from_numpy(tokens), torch.from_numpy(valid))
