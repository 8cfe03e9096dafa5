"""A Hugging Face text encoder from a local folder: RoBERTa, BERT, PubMedBERT, DistilBERT, T5's encoder, CLIP text.

Nothing is fetched, no code of the folder's runs, and no pickle is opened. How a phrase becomes one vector:

- CLIP: as the model itself does it, the state at the end of text, projected into the space that text and image share
  where the checkpoint has that projection.
- All others: the mean over the phrase's tokens in the last layer, padding left out.

Vectors have unit length. Phrases are cut at what the model can read; those of explanations are far shorter.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, read_json, sha256_of
from segmentation.explanation_settings import EncoderChoice
from segmentation.text.encoder import Vectors, encode_phrases, quiet_transformers

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "bpe.codes",
)
_UNUSED = ("pooler.", "embeddings.position_ids")
"""Weights that the mean over tokens does not need; checkpoints of masked language models lack them."""


class FolderEncoder:
    """An encoder known by name, hash and width; its weights are loaded at the first phrase that is to be encoded.

    `folder` None stands for a computer that has the vectors of a study, but not the encoder.
    """

    def __init__(self, choice: EncoderChoice, folder: Path | None) -> None:
        self.name, self.sha256, self.width = choice.name, choice.sha256, choice.width
        self.folder = folder
        self._loaded: tuple[Any, Any] | None = None

    @classmethod
    def examine(cls, folder: Path) -> FolderEncoder:
        """Load what a folder holds, and find out its name, hash and width.

        Raises
        ------
        UserError
            If it is no text encoder, is incomplete or damaged, holds pickles alone, or needs a package or memory that
            is not there; one sentence says which.
        """
        folder = Path(folder).absolute()
        loaded = _load(folder)
        with _explained(folder):
            width = encode_phrases(*loaded, ["round shape"]).shape[1]
        encoder = cls(EncoderChoice(model_name_of(folder), weights_hash(folder), width), folder)
        encoder._loaded = loaded
        return encoder

    @property
    def choice(self) -> EncoderChoice:
        """Name, hash and width."""
        return EncoderChoice(self.name, self.sha256, self.width)

    def encode(self, phrases: Sequence[str]) -> Vectors:
        """Return (N, width) float32 vectors of unit length.

        Raises
        ------
        UserError
            If the encoder is not on this computer, is another one than it was, or cannot be loaded.
        """
        if self._loaded is None:
            if self.folder is None or not self.folder.is_dir():
                raise UserError(
                    f"{len(phrases)} phrases have no vector in the study yet, and the text encoder {self.name} is "
                    "not on this computer: run gaze-insight text-encoder STUDY where it is and copy the study's "
                    "embeddings folder here, or tell where it lies: gaze-insight text-encoder STUDY --folder DIR"
                )
            if weights_hash(self.folder) != self.sha256:
                raise UserError(
                    f"{self.folder} no longer holds the text encoder {self.name} that the study was embedded with: "
                    "its weights differ. Choose it anew: gaze-insight text-encoder STUDY --folder DIR"
                )
            self._loaded = _load(self.folder)
        if not phrases:
            return np.zeros((0, self.width), np.float32)
        with _explained(self.folder or Path(self.name)):
            return encode_phrases(*self._loaded, phrases)


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 of a folder's weights; of several files, that of their hashes in the order of their names.

    Raises
    ------
    UserError
        If a file is missing, or there are only pickles.
    """
    hashes = [sha256_of(path) for path in _weight_files(folder)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def model_name_of(folder: Path) -> str:
    """Return what a model in a folder is called."""
    # A snapshot in the hub's cache is called by its commit: models--OWNER--NAME/snapshots/COMMIT
    cached = folder.parent.parent.name
    if folder.parent.name == "snapshots" and cached.startswith("models--"):
        return cached.split("--")[-1]
    return folder.name


def _weight_files(folder: Path) -> list[Path]:
    with explained_os_errors(folder):
        if (folder / WEIGHTS).is_file():
            return [folder / WEIGHTS]
        if (folder / INDEX).is_file():
            index = read_json(folder / INDEX)
            try:
                names = sorted({str(name) for name in index["weight_map"].values()})
            except (TypeError, KeyError, AttributeError):
                raise UserError(f"{folder / INDEX} is damaged; copy the encoder's folder again.") from None
            for name in names:
                if name != Path(name).name or not (folder / name).is_file():
                    raise UserError(f"{folder} lacks the file {name} of its weights; copy it again.")
            return [folder / name for name in names]
        if any(next(folder.glob(pattern), None) for pattern in _PICKLES):
            raise UserError(
                f"{folder} holds its weights in a format that can run code and is never opened; where you trust it, "
                f"convert it: python -c \"from transformers import AutoModel as M; M.from_pretrained('DIR')"
                ".save_pretrained('NEW')\", and copy the tokenizer's files to NEW."
            )
    raise UserError(f"{folder} holds no {WEIGHTS}; choose the folder of a Hugging Face text encoder.")


def _load(folder: Path) -> tuple[Any, Any]:
    """Return tokenizer and model of a folder."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; choose the folder of a Hugging Face text encoder.")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no config.json; choose the folder of a Hugging Face text encoder.")
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise UserError(f"{folder / 'config.json'} does not say what model it is; copy the folder again.")
    for path in _weight_files(folder):
        try:
            with safetensors.safe_open(path, "np"):
                pass
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{path} is damaged ({error}); copy the encoder's folder again.") from None
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise UserError(
            f"{folder} holds no tokenizer: it is no text encoder, or tokenizer.json or vocab.txt was not copied along."
        )
    with _explained(folder, config):
        return _loaded(folder, config)


def _loaded(folder: Path, config: dict[str, Any]) -> tuple[Any, Any]:
    transformers = quiet_transformers()
    import torch

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    kind, built = config["model_type"], config.get("architectures") or []
    if kind == "clip_text_model" and "CLIPTextModelWithProjection" not in built:
        family = transformers.CLIPTextModel
    elif kind in ("clip", "clip_text_model"):
        family = transformers.CLIPTextModelWithProjection
    elif config.get("is_encoder_decoder") or kind in ("t5", "mt5", "umt5"):
        family = transformers.AutoModelForTextEncoding
    else:
        family = transformers.AutoModel
    # Half precision on a processor is slow, and vectors would depend on the machine.
    model, found = family.from_pretrained(
        folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
    )
    missing = sorted(name for name in found["missing_keys"] if not _is_unused(name))
    if missing:
        # The library would go on with random numbers in their place.
        raise UserError(
            f"{folder} lacks weights that its config.json asks for ({len(missing)}, first {missing[0]}); copy it "
            "again, or choose a text encoder."
        )
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise UserError(
            f"The tokenizer in {folder} belongs to another model: it knows {len(tokenizer)} tokens, the model "
            f"{model.get_input_embeddings().num_embeddings}."
        )
    return tokenizer, model.eval()


def _is_unused(name: str) -> bool:
    return any(part in f".{name}" for part in (f".{unused}" for unused in _UNUSED))


@contextlib.contextmanager
def _explained(folder: Path, config: dict[str, Any] | None = None) -> Iterator[None]:
    """Turn whatever the library raises about a folder into one sentence."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(
            f"The text encoder in {folder} needs a package that is not installed: {_first_sentence(error)}"
        ) from None
    except Exception as error:
        text = str(error)
        if isinstance(error, MemoryError) or "allocate memory" in text or "not enough memory" in text:
            raise UserError(
                f"Memory does not suffice for the text encoder in {folder}; close other programs or choose a smaller "
                "one."
            ) from None
        if "ignore_mismatched_sizes" in text:
            raise UserError(
                f"The weights in {folder} do not fit its config.json; copy the encoder's folder again."
            ) from None
        if config and "auto_map" in config:
            raise UserError(
                f"The text encoder in {folder} brings program code of its own, which is never run; choose one that "
                "the package transformers knows."
            ) from None
        raise UserError(
            f"{folder} is no text encoder that can be used ({_first_sentence(error)}); choose the folder of a BERT, "
            "RoBERTa, DistilBERT, T5 or CLIP model with its tokenizer."
        ) from None


def _first_sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0].partition(". ")[0] if lines else type(error).__name__).rstrip(".")[:200]
