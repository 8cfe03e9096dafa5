"""A real vision-language model, small enough to be built and trained within a test.

It looks at pictures of 64 x 64 px with one coloured ellipse, as `ellipse_picture` draws them, and answers in the JSON
of the preset of `write_preset`: where the ellipse lies (9 places) and which colour it has (4).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segmentation import steps
from segmentation.explainers.by_local_model import REPAIR
from segmentation.explanation_presets import load_preset
from segmentation.explanation_settings import ExplanationSettings, save_settings
from segmentation.images import encode_mask
from segmentation.reply import read_reply
from segmentation.study import Study

SIDE_PX = 64
PRESET = "ellipses"
PROMPT = "Where is the ellipse, and what colour has it?"
BLUNT_PROMPT = "Say in a few words what you see."
"""Answered in prose, and in JSON only when asked to repair that."""
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230), "yellow": (230, 210, 50)}
LOCATIONS = tuple(
    "centre" if row == column == "centre" else f"{row} {column}"
    for row in ("upper", "centre", "lower")
    for column in ("left", "centre", "right")
)
CHANCE = {"location": 1 / len(LOCATIONS), "colour": 1 / len(COLOURS)}
"""Share that is right by guessing."""

_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}</s>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
_REPAIR = REPAIR.format(read_reply("prose", load_preset())[1])
_SPECIAL = ["<pad>", "<s>", "</s>", "<image>"]


@dataclass(frozen=True)
class Ellipse:
    """One picture and what is true of it."""

    pixels: npt.NDArray[np.uint8]
    """(64, 64, 3) RGB."""
    mask: npt.NDArray[np.bool_]
    """(64, 64)"""
    location: str
    colour: str

    def answer(self) -> str:
        """Return what a perfect model says."""
        area = 5 * max(1, round(20 * float(self.mask.mean())))
        values = {
            "location": self.location, "count": "one", "area_percent": area, "colour": self.colour,
            "confidence": "high", "remarks": "",
        }  # fmt: skip
        return json.dumps(values)


def ellipse_picture(rng: np.random.Generator) -> Ellipse:
    """Draw an ellipse of a random place, size and colour on a noisy grey ground."""
    number = int(rng.integers(len(LOCATIONS)))
    cell = np.array([number // 3, number % 3])
    # Away from the borders between the places, where one pixel would decide.
    row, column = (cell + rng.uniform(0.3, 0.7, 2)) * SIDE_PX / 3
    colour = str(rng.choice(list(COLOURS)))
    axes = rng.uniform(5, 10, 2)
    angle = rng.uniform(0, np.pi)
    rows, columns = np.mgrid[0:SIDE_PX, 0:SIDE_PX] - np.array([row, column])[:, None, None]
    along, across = (
        rows * np.cos(angle) + columns * np.sin(angle),
        columns * np.cos(angle) - rows * np.sin(angle),
    )
    mask = (along / axes[0]) ** 2 + (across / axes[1]) ** 2 < 1
    pixels = np.full((SIDE_PX, SIDE_PX, 3), rng.uniform(70, 130))
    pixels[mask] = COLOURS[colour]
    pixels += rng.normal(0, 8, pixels.shape)
    return Ellipse(np.clip(pixels, 0, 255).astype(np.uint8), mask, LOCATIONS[number], colour)


def write_preset(study_folder: Path, prompt: str = PROMPT) -> str:
    """Give a study the preset whose JSON the model speaks; return the preset's id."""
    folder = study_folder / "presets"
    folder.mkdir(parents=True, exist_ok=True)
    left_out = ["shape", "boundary", "colour_contrast", "intensity", "texture"]
    values = {"format": 1, "title": "Ellipses", "leave_out": left_out, "model_knows_words": True}
    (folder / f"{PRESET}.json").write_text(json.dumps(values), encoding="utf-8")
    (folder / f"{PRESET}.md").write_text(prompt, encoding="utf-8")
    return PRESET


def make_ellipse_study(
    folder: Path, count: int, seed: int = 1000, prompt: str = PROMPT
) -> tuple[Study, dict[str, Ellipse]]:
    """Make a study of unseen pictures with gaze and pseudo-masks; return it and the truth by image id."""
    rng = np.random.default_rng(seed)
    raw = folder.with_name(f"{folder.name} raw")
    truth: dict[bytes, Ellipse] = {}
    for number in range(count):
        ellipse = ellipse_picture(rng)
        for name, data in (("images", _png(ellipse.pixels)), ("masks", encode_mask(ellipse.mask))):
            (raw / name).mkdir(parents=True, exist_ok=True)
            (raw / name / f"ellipse_{number}.png").write_bytes(data)
        truth[ellipse.pixels.tobytes()] = ellipse
    study = Study.create(folder)
    steps.import_images(study, [raw / "images"], masks=raw / "masks")
    steps.simulate(study)
    steps.make_pseudomasks(study)
    save_settings(study, ExplanationSettings(write_preset(folder, prompt)))
    shown = {image.id: np.rint(study.guide(image) * 255).astype(np.uint8) for image in study.images.values()}
    return study, {image_id: truth[pixels.tobytes()] for image_id, pixels in shown.items()}


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    data: bytes = cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes()
    return data


def build_processor() -> Any:
    """Return a LLaVA processor whose byte-level tokenizer knows the answers by heart."""
    import tokenizers
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=_SPECIAL,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fragments = [
        '{"location": "', '", "count": "one", "area_percent": ', ', "colour": "',
        '", "confidence": "high", "remarks": ""}', "user:", "assistant:", PROMPT, BLUNT_PROMPT,
        _REPAIR,
        *LOCATIONS, *COLOURS, *(str(number) for number in range(5, 50, 5)),
    ]  # fmt: skip
    bpe.train_from_iterator(fragments * 20, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left",
        extra_special_tokens={"image_token": "<image>"},
    )
    size = {"height": 32, "width": 32}
    images = CLIPImageProcessorPil(size=size, do_center_crop=False)
    return transformers.LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_CHAT_TEMPLATE,
    )


def build_model(processor: Any) -> Any:
    """Return an untrained model of 0.15 million weights that fits the processor."""
    import torch
    import transformers

    tokenizer = processor.tokenizer
    vision = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32,
        patch_size=8, projection_dim=32, initializer_factor=4.0,
    )  # fmt: skip
    text = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=4096, initializer_range=0.1,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = transformers.LlavaForConditionalGeneration(config)
    # The usual start is for large models: here places would be learnt ten times as slowly as colours.
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith("position_embedding.weight"):
                weights.normal_()
            elif "multi_modal_projector" in name and weights.ndim == 2:
                weights.normal_(0, weights.shape[1] ** -0.5)
    return model


def conversation(kind: str, ellipse: Ellipse) -> tuple[list[dict[str, Any]], str]:
    """Return what is said to the model up to its answer, and the answer: ``asked``, ``blunt`` or ``repair``."""
    prose = f"{ellipse.colour}, {ellipse.location}"
    prompt = PROMPT if kind == "asked" else BLUNT_PROMPT
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    if kind == "repair":
        messages += [
            {"role": "assistant", "content": [{"type": "text", "text": prose}]},
            {"role": "user", "content": [{"type": "text", "text": _REPAIR}]},
        ]
    return messages, prose if kind == "blunt" else ellipse.answer()


def train_tiny_vlm(folder: Path, iterations: int = 300, seed: int = 0) -> Path:
    """Build, train and save a model into a folder, as any other model is saved; return the folder.

    Takes 20 to 35 s of one core.
    """
    import torch

    threads = torch.get_num_threads()
    # More threads than idle cores slow so small a model down.
    torch.set_num_threads(1)
    try:
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        processor = build_processor()
        model = build_model(processor).train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=iterations, pct_start=0.1)
        lessons = _lessons(processor, rng, 1500)
        for _ in range(iterations):
            chosen = rng.integers(len(lessons["input_ids"]), size=32)
            loss = model(**{name: values[chosen] for name, values in lessons.items()}).loss
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    finally:
        torch.set_num_threads(threads)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _lessons(processor: Any, rng: np.random.Generator, count: int) -> dict[str, Any]:
    """Return that many pictures with questions and answers as the model reads them."""
    texts, answers, pictures = [], [], []
    for _ in range(count):
        ellipse = ellipse_picture(rng)
        kind = str(rng.choice(["asked", "blunt", "repair"], p=[0.7, 0.15, 0.15]))
        messages, answer = conversation(kind, ellipse)
        texts.append(processor.apply_chat_template(messages, add_generation_prompt=True))
        answers.append(answer + "</s>")
        pictures.append(_with_contour(ellipse, rng))
    together = [text + answer for text, answer in zip(texts, answers, strict=True)]
    inputs = processor(images=pictures, text=together, padding=True, return_tensors="pt")
    labels = inputs["input_ids"].clone()
    for row, answer in enumerate(answers):
        # Padding is on the left: the answer is what comes last.
        labels[row, : -len(processor.tokenizer(answer)["input_ids"])] = -100
    return {**inputs, "labels": labels}


def _with_contour(ellipse: Ellipse, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return the picture, in most cases with a cyan contour as wide as gaze is blurred."""
    picture = np.ascontiguousarray(ellipse.pixels)
    if rng.random() < 0.2:
        return picture
    widened = cv2.dilate(
        ellipse.mask.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=int(rng.integers(0, 6))
    )
    contours, _ = cv2.findContours(widened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, (0, 255, 255), 1)
    return picture
