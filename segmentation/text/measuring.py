"""Measuring what a teacher does with its text: attention by word, and masks under swapped words (`text_use`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from gaze_capture.errors import UserError
from gaze_capture.storage import write_json_atomic
from segmentation.augmentation import standardised
from segmentation.bootstrap import Interval, clustered_interval
from segmentation.device import use_threads
from segmentation.explanation import load_explanation, phrase_of, preset_of
from segmentation.explanation_presets import OPEN_WORDS, Attribute
from segmentation.images import resize
from segmentation.job import RunSpec
from segmentation.methods import reads_text
from segmentation.metrics import dice
from segmentation.networks import Teacher, Text
from segmentation.predictor import Predictor
from segmentation.records import StudyImage, group_of
from segmentation.runs import RunFolder
from segmentation.study import Mask, Study
from segmentation.text.attention import AttentionMaps, save_attention, share_inside
from segmentation.text.embedding import text_of
from segmentation.text.encoder import Encoder, PhraseCache
from segmentation.text.phrases import as_read, phrases_of, text_of_phrases
from segmentation.text.use import ANOTHER, NOTHING, SAME_DICE, Against, Share, Swap, TextUse
from segmentation.training import Emit

Key = tuple[str, str]
"""A target id and an attribute."""

_ROWS = {"upper": 1 / 6, "lower": 5 / 6}
_COLUMNS = {"left": 1 / 6, "right": 5 / 6}
_OPPOSITE = {"upper": "lower", "lower": "upper", "left": "right", "right": "left"}
_CORNERS = ("upper left", "upper right", "lower left", "lower right")


@torch.inference_mode()
def attention_maps(
    predictor: Predictor, images: Sequence[npt.NDArray[np.uint8]], text: Text
) -> npt.NDArray[np.float32]:
    """Return how much of each token each place of uint8 images (H, W, 3) reads.

    The mean over heads, brought bilinearly to the finest of the four scales; scales are averaged by the size of their
    learned lambda, that is by how much of what the text says is added there.

    Returns
    -------
    (B, 1 + L, h, w), the null token first; at every place the tokens sum to 1.

    Raises
    ------
    UserError
        If the run has no teacher.
    """
    teacher = predictor.network("teacher")
    assert isinstance(teacher, Teacher)
    size, device = predictor.spec.image_size_px, predictor.precision.device
    pixels = standardised(np.stack([resize(image, size, size) for image in images]))
    with predictor.precision.autocast():
        scales = teacher.attention(
            pixels.to(device, memory_format=torch.channels_last), Text(*(part.to(device) for part in text))
        )
    weights = np.abs(teacher.strengths())
    weights = weights / weights.sum() if weights.sum() > 0 else np.full(len(weights), 1 / len(weights))
    grid = scales[0].shape[2:]
    joined = sum(
        float(weight) * functional.interpolate(scale.float(), grid, mode="bilinear")
        for weight, scale in zip(weights, scales, strict=True)
    )
    assert isinstance(joined, torch.Tensor)
    maps: npt.NDArray[np.float32] = joined.cpu().numpy()
    return maps


# Swaps


def cell_centre(word: str) -> tuple[float, float] | None:
    """Return the x, y of a place such as ``upper left`` as fractions of the image, or None where it names no cell."""
    parts = word.split()
    if not parts or not set(parts) <= {*_ROWS, *_COLUMNS, "centre"}:
        return None
    x = next((_COLUMNS[part] for part in parts if part in _COLUMNS), 0.5)
    return x, next((_ROWS[part] for part in parts if part in _ROWS), 0.5)


def swapped_value(attribute: Attribute, value: object, rng: np.random.Generator) -> str | float | None:
    """Return something very different that may be said of an attribute, or None where there is nothing.

    A place becomes the one opposite (a corner for the centre or the whole image), a number 50 where it was small and 2
    where it was large, a length eight times as long or short, and a word any other.
    """
    if isinstance(value, (int, float)):
        if attribute.kind == "millimetres":
            return value * 8 if value < 20 else value / 8
        return 50.0 if value < 15 else 2.0
    words = [word for word in attribute.words if word not in (*OPEN_WORDS, value)]
    if attribute.name == "location" and set(_CORNERS) <= {*words, value}:
        opposite = " ".join(_OPPOSITE.get(part, part) for part in str(value).split())
        corners = [corner for corner in _CORNERS if corner != value]
        return opposite if opposite in words else str(rng.choice(corners))
    return str(rng.choice(words)) if words else None


class Swapped(NamedTuple):
    """One image's words with one attribute changed."""

    key: Key
    phrases: list[str]
    place: tuple[float, float] | None
    """Where the words now say the target is, as fractions of the image, for a location."""


@dataclass
class _Reading:
    """An image with what is said of it."""

    image: StudyImage
    said: dict[Key, str]
    swaps: list[Swapped] = field(default_factory=list)


def readings_of(study: Study, images: Sequence[StudyImage], spec: RunSpec) -> list[_Reading]:
    """Return the explained ones of some images, with a swap for each attribute of which something else can be said.

    Swaps are drawn by the image's place among them and nothing else.
    """
    found = []
    for number, image in enumerate(images):
        said = phrases_of(study, image.id, spec)
        if not said:
            continue
        reading = _Reading(image, said)
        rng = np.random.default_rng([8, number])
        for target_id, name in said:
            explanation = load_explanation(study, image.id, target_id)
            assert explanation is not None
            preset = preset_of(explanation, study.folder)
            value = swapped_value(preset[name], explanation.attributes[name], rng)
            phrase = None if value is None else phrase_of(preset, name, value)
            if phrase is None:
                continue
            changed_phrase = as_read(study, target_id, phrase, spec)
            if changed_phrase == said[target_id, name]:
                continue
            changed = {**said, (target_id, name): changed_phrase}
            place = cell_centre(str(value)) if name == "location" else None
            reading.swaps.append(Swapped((target_id, name), list(changed.values()), place))
        found.append(reading)
    return found


# Measuring


class _Change(NamedTuple):
    """What one swap did to one image's mask."""

    group: str
    dice: float
    towards: float
    gain: float


class _Look(NamedTuple):
    """How much attention to an attribute lies inside one image's mask."""

    group: str
    inside: float
    chance: float


class Tally:
    """Adds up images."""

    def __init__(self) -> None:
        self._changes: dict[Key, list[_Change]] = {}
        self._looks: dict[tuple[str, str, Against], list[_Look]] = {}

    def add_change(
        self,
        key: Key,
        group: str,
        before: Mask,
        after: Mask,
        truth: Mask | None,
        place: tuple[float, float] | None,
    ) -> None:
        """Add what a swap did to a mask."""
        gain = np.nan if truth is None else dice(after, truth) - dice(before, truth)
        towards = np.nan if place is None else moved_towards(before, after, place)
        self._changes.setdefault(key, []).append(_Change(group, dice(before, after), towards, gain))

    def add_look(
        self, key: Key, against: Against, group: str, map_: npt.NDArray[np.float32], mask: Mask
    ) -> None:
        """Add where the attention to an attribute lies; masks that are empty or everything tell nothing."""
        inside, chance = share_inside(map_[np.newaxis], mask)
        if 0 < chance < 1:
            self._looks.setdefault((*key, against), []).append(_Look(group, float(inside[0]), chance))

    def swaps(self) -> tuple[Swap, ...]:
        """Return what all swaps did, those that changed most first."""
        found = []
        for (target_id, name), changes in self._changes.items():
            alike, towards, gain = (
                _interval([change.group for change in changes], [change[column] for change in changes])
                for column in (1, 2, 3)
            )
            assert alike is not None, "Dice of two masks is always defined"
            changed = np.mean([change.dice < SAME_DICE for change in changes])
            found.append(Swap(target_id, name, len(changes), alike, float(changed), towards, gain))
        return tuple(sorted(found, key=lambda swap: (swap.target, swap.dice.mean)))

    def shares(self) -> tuple[Share, ...]:
        """Return where the attention to all attributes lies."""
        found = []
        for (target_id, name, against), looks in self._looks.items():
            inside = np.array([look.inside for look in looks])
            chance = np.array([look.chance for look in looks])
            difference = clustered_interval(inside - chance, [look.group for look in looks])
            share = Share(
                target_id, name, against, len(looks), float(inside.mean()), float(chance.mean()), difference
            )
            found.append(share)
        order: tuple[Against, ...] = ("teacher", "pseudomask", "mask")
        return tuple(
            sorted(
                found, key=lambda share: (share.target, order.index(share.against), -share.difference.mean)
            )
        )


def _interval(groups: Sequence[str], values: Sequence[float | str]) -> Interval | None:
    """Return the interval of those values that are defined, None where none is."""
    numbers = np.array(values, np.float64)
    known = np.isfinite(numbers)
    if not known.any():
        return None
    return clustered_interval(
        numbers[known], [group for group, there in zip(groups, known, strict=True) if there]
    )


def moved_towards(before: Mask, after: Mask, place: tuple[float, float]) -> float:
    """Return how far a mask's centre moved towards a place x, y (fractions of the image), in percent of its side.

    NaN where one of the masks is empty.
    """
    if not before.any() or not after.any():
        return float("nan")
    size = np.array(before.shape[::-1], np.float64)
    first, second = ((np.argwhere(mask).mean(0)[::-1] + 0.5) / size for mask in (before, after))
    way = np.array(place) - first
    distance = float(np.hypot(*way))
    return 0.0 if distance == 0 else 100 * float((second - first) @ way) / distance


def measure(
    study: Study,
    run: RunFolder,
    emit: Emit,
    *,
    split: str | None = None,
    image_ids: Sequence[str] | None = None,
    limit: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    encoder: Encoder | None = None,
    encoder_folder: Path | None = None,
) -> bool:
    """Measure what a run's teacher does with its text, and store its attention for each image.

    Parameters
    ----------
    split, image_ids
        Which images; None of both for all. Those without an explanation are left out.
    limit
        At most so many of them, drawn at random, the same at every call.

    Raises
    ------
    UserError
        If the teacher learned without text or none of the images is explained.
    """
    use_threads(threads)
    spec = run.spec
    if not reads_text(spec) or spec.text == "empty":
        raise UserError(
            f"The run {run.id} learned without text (method {spec.method}, text {spec.text}): there is nothing to ask."
        )
    if spec.text_embeddings:
        raise UserError(
            f"The run {run.id} learned from imported embeddings: which words they stand for is unknown, "
            "so that none can be swapped."
        )
    if spec.text == "shuffled":
        # It learned from others' words; it is asked about each image's own.
        spec = dataclasses.replace(spec, text="explanation")
    images = [study.image(name) for name in image_ids] if image_ids is not None else study.images_of(split)
    if limit is not None and limit < len(images):
        chosen = np.random.default_rng(9).permutation(len(images))[:limit]
        images = [images[index] for index in sorted(chosen)]
    readings = readings_of(study, images, spec)
    if not readings:
        where = f" of the split {split!r}" if split else ""
        raise UserError(
            f"None of the {len(images)} images{where} has an explanation; "
            "explain them first: gaze-insight explain STUDY"
        )
    predictor = Predictor(run, device=device)
    cache = text_of(study, spec, encoder, encoder_folder)
    assert isinstance(cache, PhraseCache), "imported embeddings were refused above"
    # All at once: each new phrase would write the store again.
    cache.encode(
        phrase
        for reading in readings
        for phrases in (list(reading.said.values()), *(swap.phrases for swap in reading.swaps))
        for phrase in phrases
    )
    emit("started", 0, len(readings), device=str(predictor.precision.device))
    tally = Tally()
    for number, reading in enumerate(readings):
        # Another image's words: the next one's that is explained.
        other = readings[(number + 1) % len(readings)] if len(readings) > 1 else None
        _measure_one(study, run, predictor, cache, reading, other, tally)
        emit("progress", number + 1, len(readings), name="asking the teacher")
    teacher = predictor.network("teacher")
    assert isinstance(teacher, Teacher)
    found = TextUse(
        run.id,
        run.spec.text,
        split,
        len(readings),
        tuple(teacher.strengths()),
        tally.shares(),
        tally.swaps(),
    )
    write_json_atomic(run.path / "text_use.json", found.to_json(), within=study.folder)
    emit("done", len(readings), len(readings), found=found.to_json())
    return True


def _measure_one(
    study: Study,
    run: RunFolder,
    predictor: Predictor,
    cache: PhraseCache,
    reading: _Reading,
    other: _Reading | None,
    tally: Tally,
) -> None:
    spec, image = predictor.spec, reading.image
    group = group_of(image)
    pixels = study.network_input(image, spec.normalisation)
    own = list(reading.said.values())
    told = [
        own,
        [],
        *([list(other.said.values())] if other else []),
        *(swap.phrases for swap in reading.swaps),
    ]
    text = text_of_phrases(told, cache)
    probability = np.stack(predictor.predict([pixels] * len(told), "teacher", text))
    maps = attention_maps(predictor, [pixels], Text(text.tokens[:1], text.valid[:1]))[0, 1:]
    masks = probability >= 0.5
    keys = list(reading.said)
    for place, target_id in enumerate(spec.targets):
        truth = study.true_mask(image.id, target_id)
        before = masks[0, place]
        tally.add_change((target_id, NOTHING), group, before, masks[1, place], truth, None)
        if other:
            tally.add_change((target_id, ANOTHER), group, before, masks[2, place], truth, None)
        for swap, after in zip(reading.swaps, masks[-len(reading.swaps) :, place], strict=False):
            if swap.key[0] == target_id:
                tally.add_change(swap.key, group, before, after, truth, swap.place)
        pseudomask = study.pseudomask(image.id, target_id)
        against: dict[Against, Mask | None] = {
            "teacher": before,
            "pseudomask": None if pseudomask is None else pseudomask.masks[-1],
            "mask": truth,
        }
        mine = [index for index, key in enumerate(keys) if key[0] == target_id]
        for name, mask in against.items():
            for index in mine:
                if mask is not None:
                    tally.add_look(keys[index], name, group, maps[index], mask)
        if mine:
            effect = resize(probability[0, place] - probability[1, place], *maps.shape[1:])
            names = tuple(keys[index][1] for index in mine)
            phrases = tuple(own[index] for index in mine)
            found = AttentionMaps(names, phrases, maps[mine], effect, predictor.step)
            save_attention(study, run.id, image.id, target_id, found)
