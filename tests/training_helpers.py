"""A small study with pseudo-masks and explanations, tiny networks, and an encoder that needs no weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gaze_capture.fixations import Fixations
from segmentation.explaining import explain_study
from segmentation.importing import import_images
from segmentation.job import Kind, RunSpec
from segmentation.presets import preset
from segmentation.pseudomask import PseudoMask
from segmentation.study import Study

TINY = {
    "targets": ("target",),
    "image_size_px": 32,
    "batch_size": 2,
    "iterations": 6,
    "max_minutes": None,
    "student_widths": (4, 8, 8, 8, 8),
    "teacher_widths": (4, 8, 8, 8, 8),
    "text_heads": 2,
    "device": "cpu",
    "precision": "fp32",
}


def tiny(method: str = "gaze-to-insight", **changes: Any) -> RunSpec:
    return preset(method, "cpu", **{**TINY, **changes})


class HashEncoder:
    """Phrases -> fixed pseudo-random unit vectors."""

    name = "hash"
    sha256 = "0" * 64
    width = 16

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, phrases: Sequence[str]) -> npt.NDArray[np.float32]:
        self.asked += phrases
        vectors = np.zeros((len(phrases), self.width), np.float32)
        for row, phrase in enumerate(phrases):
            seed = int.from_bytes(hashlib.sha256(phrase.encode()).digest()[:8], "big")
            vectors[row] = np.random.default_rng(seed).normal(size=self.width)
        unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


class Events:
    """Collects what a job reports."""

    def __init__(self) -> None:
        self.all: list[tuple[str, int, dict[str, object]]] = []

    def __call__(self, kind: Kind, step: int, total: int, **values: object) -> None:
        self.all.append((kind, step, values))

    def of(self, kind: Kind) -> list[dict[str, object]]:
        return [values for found, _, values in self.all if found == kind]


def pseudomask_of(image_id: str, outer: npt.NDArray[np.bool_], inner: npt.NDArray[np.bool_]) -> PseudoMask:
    levels = outer.astype(np.uint8) + inner.astype(np.uint8)
    return PseudoMask(
        image_id=image_id,
        target_id="target",
        annotators=("A",),
        sources=("import",),
        xy_px=np.array([[30.0, 20.0]]),
        duration_ms=np.array([400.0]),
        sigma_px=np.array([[5.0, 5.0]]),
        degrees_per_px=None,
        heatmap=(levels / 2).astype(np.float32),
        thresholds=(0.5, 0.3),
        level_map=levels,
        refiner="none",
        simulated_from="masks",
    )


def fixations_of(image_id: str, **changes: Any) -> Fixations:
    """Three fixations from the upper left corner to the centre of an image of 48 x 64 pixels."""
    values: dict[str, Any] = {
        "image_id": image_id,
        "target_id": "target",
        "annotator": "A",
        "source": "look",
        "start_ms": np.array([0.0, 300.0, 600.0]),
        "duration_ms": np.array([200.0, 200.0, 400.0]),
        "xy_px": np.array([[4.0, 4.0], [20.0, 14.0], [32.0, 24.0]]),
        "dispersion_deg": np.full(3, np.nan),
        "detector": "imported",
        "simulated_from": "masks",
        "viewing_ms": 1000.0,
    }
    return Fixations(**{**values, **changes})


def make_study(folder: Path, image_folder: Path, *, explained: bool = True) -> Study:
    """Six images with a disc each; pseudo-masks are the disc's true mask and a smaller one inside it."""
    from scipy.ndimage import binary_erosion

    study = Study.create(folder)
    import_images(study, [image_folder / "images"], masks=image_folder / "masks")
    for image_id in study.images:
        mask = study.true_mask(image_id, "target")
        assert mask is not None
        study.save_pseudomask(pseudomask_of(image_id, mask, binary_erosion(mask, iterations=3)))
    study.save_fixations("look", [fixations_of(image_id) for image_id in study.images], imported=True)
    if explained:
        assert explain_study(study).done
    return study


WORDS = (
    "in the upper lower centre left right of image round oval irregular shape smooth sharp blurred boundary one two "
    "three separate regions region brighter darker than its surroundings about percent : . , 1 2 3 5 7 10 15 20 a e i"
).split()


def save_text_encoder(folder: Path, kind: str, *, seed: int = 0, width: int = 16) -> Path:
    """Store a two-layer text encoder with random weights and a tokenizer of a few words in a folder."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    torch.manual_seed(seed)
    words = dict.fromkeys(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    # CLIP pools at the end of text.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    ).save_pretrained(folder)
    sizes: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
    }
    clip = {**sizes, "bos_token_id": 1, "eos_token_id": 2, "projection_dim": 12}
    model: Any
    if kind == "bert":
        model = transformers.BertForMaskedLM(transformers.BertConfig(**sizes))
    elif kind == "roberta":
        model = transformers.RobertaModel(transformers.RobertaConfig(**sizes))
    elif kind == "distilbert":
        model = transformers.DistilBertModel(
            transformers.DistilBertConfig(
                vocab_size=len(vocabulary), dim=width, n_layers=2, n_heads=2, hidden_dim=32, pad_token_id=0
            )
        )
    elif kind == "clip text":
        model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**clip))
    elif kind == "clip":
        vision = {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
        }
        model = transformers.CLIPModel(
            transformers.CLIPConfig(
                text_config=clip,
                vision_config={**vision, "image_size": 32, "patch_size": 16},
                projection_dim=12,
            )
        )
    elif kind == "t5":
        model = transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                vocab_size=len(vocabulary), d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2
            )
        )
    model.save_pretrained(folder)
    return folder


def save_image_encoder(folder: Path, kind: str, *, seed: int = 0, channels: int = 3) -> Path:
    """Store a small image encoder with random weights, as classifiers are published, and its processor."""
    import torch
    import transformers as hub

    torch.manual_seed(seed)
    four: dict[str, Any] = {
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 12, 16, 24],
        "num_channels": channels,
    }
    swin: dict[str, Any] = {
        "image_size": 224,
        "embed_dim": 8,
        "depths": [1, 2, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 7,
        "num_channels": channels,
    }
    dino: dict[str, Any] = {
        "image_size": 224,
        "patch_size": 14,
        "hidden_size": 16,
        "num_hidden_layers": 5,
        "num_attention_heads": 2,
        "num_channels": channels,
    }
    model: Any
    if kind == "resnet":
        model = hub.ResNetForImageClassification(
            hub.ResNetConfig(**four, embedding_size=8, layer_type="basic")
        )
    elif kind == "convnext":
        model = hub.ConvNextForImageClassification(hub.ConvNextConfig(**four))
    elif kind == "convnextv2":
        model = hub.ConvNextV2ForImageClassification(hub.ConvNextV2Config(**four))
    elif kind == "swin":
        model = hub.SwinForImageClassification(hub.SwinConfig(**swin))
    elif kind == "swinv2":
        model = hub.Swinv2ForImageClassification(hub.Swinv2Config(**swin))
    elif kind == "dinov2":
        model = hub.Dinov2Model(hub.Dinov2Config(**dino))
    elif kind == "dinov2_with_registers":
        model = hub.Dinov2WithRegistersModel(hub.Dinov2WithRegistersConfig(**dino))
    else:
        model = hub.ViTModel(hub.ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2))
    model.save_pretrained(folder)
    about = {"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return folder
