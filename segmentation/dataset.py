"""A study's split in memory, and batches of it that depend on nothing but seed and step."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gaze_capture.errors import UserError
from gaze_capture.recording import UNDECIDED
from segmentation.augmentation import STRENGTHS, flipped, moved, recoloured, standardised
from segmentation.gaze_tracks import track_maps
from segmentation.images import resize
from segmentation.job import RunSpec
from segmentation.losses import ALL, IGNORE, Rows
from segmentation.networks import Text
from segmentation.processes import ALONE, Processes
from segmentation.records import StudyImage, group_of
from segmentation.study import TEST_SPLIT, Study
from segmentation.text.encoder import FLIP_STATES, PhraseCache
from segmentation.text.imported import ImportedEmbeddings
from segmentation.text.phrases import PhraseTable, phrase_table

Bytes = npt.NDArray[np.uint8]

TRACKS = "tracks"
"""What the gaze tracks' maps are called among a batch's labels."""


@dataclass(frozen=True)
class Batch:
    """What one step learns from."""

    step: int
    index: npt.NDArray[np.int64]
    """(B,) which images of the training set."""
    images: Tensor
    """(B, 3, S, S) float32, standardised."""
    labels: Mapping[str, Tensor]
    """By network: (B, T, S, S) uint8, 1 foreground, 0 background, IGNORE unknown. TRACKS, where the training set has
    some, are its tracks (B, T * K, S, S)."""
    text: Text
    rows: Rows = ALL
    """Which images of the step these are."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device, images with channels last."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True, memory_format=torch.channels_last),
            labels={name: label.to(device, non_blocking=True) for name, label in self.labels.items()},
            text=Text(*(part.to(device, non_blocking=True) for part in self.text)),
        )

    def parts(self, count: int) -> list[Batch]:
        """Split the batch into up to so many micro-batches, in order, of nearly the same size; pairs stay together."""
        pairs = np.array_split(np.arange(max(len(self.index) // 2, 1)), count)
        cuts = [2 * int(part[0]) for part in pairs if len(part)] + [len(self.index)]
        whole = self.rows.of(len(self.index))
        return [
            replace(
                self,
                index=self.index[one],
                images=self.images[one],
                labels={name: label[one] for name, label in self.labels.items()},
                text=Text(*(part[one] for part in self.text)),
                rows=Rows(self.rows.first + one.start, whole),
            )
            for one in (slice(first, end) for first, end in itertools.pairwise(cuts))
        ]

    def pinned(self) -> Batch:
        """Return the batch in page-locked memory, from where a copy to a GPU does not wait for the work before it."""
        return replace(
            self,
            images=self.images.pin_memory(),
            labels={name: label.pin_memory() for name, label in self.labels.items()},
            text=Text(*(part.pin_memory() for part in self.text)),
        )


@dataclass(frozen=True)
class TrainingSet:
    """Images (N) and what is known of them, at the networks' size S."""

    ids: tuple[str, ...]
    images: Bytes
    """(N, S, S, 3) RGB"""
    levels: Bytes
    """(N, T, S, S) how many of the `depth` levels a pixel belongs to; IGNORE where nothing is known."""
    depth: int
    phrases: PhraseTable
    held_images: Bytes
    """(M, S, S, 3) images set apart to choose a checkpoint."""
    held_masks: npt.NDArray[np.bool_]
    """(M, T, S, S) their true masks."""
    tracks: Bytes
    """(N, T * K, S, S) by target how near the K last parts of its gaze track passed, see `segmentation.gaze_tracks`;
    0 where the target is absent, IGNORE where no gaze is known. K is 0 unless the spec asks for them."""
    strong: int
    """Number of images that have a strong label: reviewed, or the target absent."""
    modalities: tuple[str, ...]
    """That occur among the split's images."""

    def __len__(self) -> int:
        return len(self.ids)


class Batches:
    """Batches of a training set. Batch `step` is the same whenever and in whatever order it is asked for.

    Of several processes each makes its own rows of it.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        spec: RunSpec,
        labels: Mapping[str, tuple[int, int]],
        processes: Processes = ALONE,
    ) -> None:
        self.set = training_set
        self.spec = spec
        self.own = processes.rows(spec.batch_size)
        self.rows = Rows(self.own.start, spec.batch_size)
        self.tables = {name: _label_table(training_set.depth, levels) for name, levels in labels.items()}
        self._order = functools.lru_cache(maxsize=2)(self._order_of)

    def _order_of(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.spec.seed, 1, epoch]).permutation(len(self.set))

    def draw(self, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], np.random.Generator]:
        """Draw which images (B,) a step shows in which flip states (B,), and what its other draws come from.

        They are those of all processes.
        """
        places = range(step * self.spec.batch_size, (step + 1) * self.spec.batch_size)
        index = np.array([self._order(place // len(self.set))[place % len(self.set)] for place in places])
        rng = np.random.default_rng([self.spec.seed, 2, step])
        states = rng.integers(0, FLIP_STATES if STRENGTHS[self.spec.augmentation] else 4, len(index))
        return index, states, rng

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of a step."""
        index, states, rng = self.draw(step)
        strength = STRENGTHS[self.spec.augmentation]
        # Each image moves by numbers of its own, so that nobody need draw those of others.
        own_rng = (rng.spawn(len(index)) if strength else [rng] * len(index))[self.own]
        index, states = index[self.own], states[self.own]
        planes = self.set.levels[index]
        if self.set.tracks.shape[1]:
            # They are moved as the levels are, whose planes come first.
            planes = np.concatenate([planes, self.set.tracks[index]], axis=1)
        images, levels = [], []
        for image, level, state, mover in zip(self.set.images[index], planes, states, own_rng, strict=True):
            channels = flipped(np.concatenate([image, level.transpose(1, 2, 0)], axis=2), int(state))
            image, level = channels[..., :3], channels[..., 3:]
            if strength:
                image, level = moved(image, level, mover, strength)
            images.append(image)
            levels.append(level.transpose(2, 0, 1))
        pixels = standardised(np.stack(images))
        if strength:
            pixels = recoloured(pixels, rng, strength, self.own, self.spec.batch_size)
        targets = self.set.levels.shape[1]
        stack = np.stack(levels)
        labels = {name: torch.from_numpy(table[stack[:, :targets]]) for name, table in self.tables.items()}
        if stack.shape[1] > targets:
            labels[TRACKS] = torch.from_numpy(np.ascontiguousarray(stack[:, targets:]))
        return Batch(
            step=step,
            index=index,
            images=pixels,
            labels=labels,
            text=self.set.phrases.text(index, states),
            rows=self.rows,
        )


def _label_table(depth: int, levels: tuple[int, int]) -> Bytes:
    """Map a pixel's number of levels to its label, given the levels that bound foreground and background."""
    try:
        inner, outer = (range(depth)[level] for level in levels)
    except IndexError:
        raise UserError(
            f"The run asks for levels {levels[0]} and {levels[1]}, but the pseudo-masks have only {depth}."
        ) from None
    if inner > outer:
        raise UserError(
            f"The foreground level must not be broader than the background level, as in {levels}."
        )
    table = np.full(256, IGNORE, dtype=np.uint8)
    counts = np.arange(depth + 1)
    table[counts[counts < depth - outer]] = 0
    table[counts[counts >= depth - inner]] = 1
    return table


# Loading


@dataclass
class _Item:
    """One image while it is being loaded."""

    image: StudyImage
    pixels: Bytes
    levels: Bytes
    depth: int
    tracks: Bytes
    strong: bool
    true_masks: npt.NDArray[np.bool_] | None


def load_training_set(
    study: Study,
    spec: RunSpec,
    text: PhraseCache | ImportedEmbeddings | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrainingSet:
    """Read the images of `spec.split` with their labels and explanations.

    Labels are pseudo-masks; a reviewed mask, or the word that the target is absent, is a strong label and takes their
    place; those of reviews count only where `spec.learn_from_reviews`. Where the word is unsure or ungradable, the
    target has no label in that image. Only the method `supervised`, and `spec.holdout`, read true masks; `supervised`
    takes strong labels where there is none, and no pseudo-mask.

    Raises
    ------
    UserError
        If the split is the test split, or nothing in it can be learned from; the sentence says what to do first.
    """
    if spec.split == TEST_SPLIT:
        raise UserError(f"The split {TEST_SPLIT!r} is for evaluation alone and is never trained on.")
    images = study.images_of(spec.split)
    held_groups = _held_groups(study, images, spec)
    with ThreadPoolExecutor(max_workers=max(torch.get_num_threads(), 1)) as pool:
        items: list[_Item] = []
        for number, item in enumerate(pool.map(lambda image: _load(study, image, spec, held_groups), images)):
            progress(number + 1, len(images))
            if item is not None:
                items.append(item)
    learned = [item for item in items if item.true_masks is None]
    held = [item for item in items if item.true_masks is not None]
    if not learned:
        raise UserError(_what_is_missing(study, spec, images))
    depths = {item.depth for item in learned if item.depth}
    if len(depths) > 1:
        raise UserError(
            "The pseudo-masks were made with different numbers of levels; make them again: gaze-insight pseudomask."
        )
    depth = next(iter(depths), 1)
    size, targets = spec.image_size_px, len(spec.targets)
    levels = np.stack([item.levels for item in learned])
    tracks = np.stack([item.tracks for item in learned])
    if spec.track_shares and (tracks == IGNORE).all():
        raise UserError(
            f"None of the images in the split {spec.split!r} has a gaze track to learn from; record, import or "
            "simulate gaze first, or choose the method partial."
        )
    # Strong labels come as "every level": their depth is known only now.
    levels[levels == _ALL_LEVELS] = depth
    no_images = np.zeros((0, size, size, 3), np.uint8)
    return TrainingSet(
        ids=tuple(item.image.id for item in learned),
        images=np.stack([item.pixels for item in learned]),
        levels=levels,
        depth=depth,
        phrases=phrase_table(study, [item.image.id for item in learned], spec, text),
        held_images=np.stack([item.pixels for item in held]) if held else no_images,
        held_masks=(
            np.stack([item.true_masks for item in held if item.true_masks is not None])
            if held
            else np.zeros((0, targets, size, size), np.bool_)
        ),
        tracks=tracks,
        strong=sum(item.strong for item in learned),
        modalities=tuple(sorted({image.modality for image in images})),
    )


_ALL_LEVELS = 254


def _load(study: Study, image: StudyImage, spec: RunSpec, held_groups: set[str]) -> _Item | None:
    size = spec.image_size_px
    if group_of(image) in held_groups:
        masks = [study.true_mask(image.id, target_id) for target_id in spec.targets]
        if any(mask is None for mask in masks):
            return None
        true_masks = np.stack([_resized(mask, size) for mask in masks if mask is not None])
        none = np.zeros((0,), np.uint8)
        return _Item(image, _pixels(study, image, spec), none, 0, none, False, true_masks)
    labels = [_target_levels(study, image, target_id, spec) for target_id in spec.targets]
    if all(levels is None for levels, _, _ in labels):
        return None
    unknown = np.full((size, size), IGNORE, np.uint8)
    stack = np.stack([unknown if levels is None else levels for levels, _, _ in labels])
    depths = {depth for _, depth, _ in labels if depth}
    if len(depths) > 1:
        raise UserError(f"The pseudo-masks of {image.id} have different numbers of levels; make them again.")
    return _Item(
        image,
        _pixels(study, image, spec),
        stack,
        next(iter(depths), 0),
        np.concatenate([_target_tracks(study, image, target_id, spec) for target_id in spec.targets]),
        any(strong for _, _, strong in labels),
        None,
    )


def _pixels(study: Study, image: StudyImage, spec: RunSpec) -> Bytes:
    size = spec.image_size_px
    pixels: Bytes = resize(study.network_input(image, spec.normalisation), size, size)
    return pixels


def _resized(mask: npt.NDArray[np.bool_], size: int) -> npt.NDArray[np.bool_]:
    resized: npt.NDArray[np.bool_] = resize(mask.astype(np.uint8) * 255, size, size) >= 128
    return resized


def _target_levels(
    study: Study, image: StudyImage, target_id: str, spec: RunSpec
) -> tuple[Bytes | None, int, bool]:
    """Return levels (S, S) or None, their number (0 for a strong label), and whether the label is strong."""
    size = spec.image_size_px
    if spec.method == "supervised" and (mask := study.true_mask(image.id, target_id)) is not None:
        return _resized(mask, size) * np.uint8(_ALL_LEVELS), 0, False
    reviews = study.counted_reviews(image.id, target_id) if spec.learn_from_reviews else []
    mask = study.reviewed_mask(image.id, target_id) if reviews and reviews[-1].verdict != "rejected" else None
    # What a reviewer took the trouble to draw or accept says more than an earlier doubt, but not than their own.
    if mask is not None and reviews[-1].presence not in UNDECIDED:
        return _resized(mask, size) * np.uint8(_ALL_LEVELS), 0, True
    presence = study.presence(image.id, target_id)
    if presence == "absent":
        return np.zeros((size, size), np.uint8), 0, True
    if presence in UNDECIDED or (
        reviews and reviews[-1].verdict == "rejected" and reviews[-1].subject == "pseudomask"
    ):
        return None, 0, False
    pseudomask = None if spec.method == "supervised" else study.pseudomask(image.id, target_id)
    if pseudomask is None:
        return None, 0, False
    levels = np.zeros((size, size), np.uint8)
    for level in pseudomask.masks:
        levels += _resized(level, size)
    return levels, len(pseudomask.thresholds), False


def _target_tracks(study: Study, image: StudyImage, target_id: str, spec: RunSpec) -> Bytes:
    """Return the maps (K, S, S) of a target's gaze track; K is 0 where the spec asks for none."""
    shape = (len(spec.track_shares), spec.image_size_px, spec.image_size_px)
    looks = study.fixations.get((image.id, target_id), []) if spec.track_shares else []
    if not looks:
        return np.full(shape, IGNORE, np.uint8)
    if study.presence(image.id, target_id) == "absent":
        # A search that found nothing says nothing of where the target is.
        return np.zeros(shape, np.uint8)
    height, width = image.shape[:2]
    maps = track_maps(
        looks, (height, width), spec.image_size_px, spec.track_shares, study.pseudomask_settings
    )
    return np.full(shape, IGNORE, np.uint8) if maps is None else maps


def _held_groups(study: Study, images: Iterable[StudyImage], spec: RunSpec) -> set[str]:
    if not spec.holdout:
        return set()
    groups = sorted(
        {
            group_of(image)
            for image in images
            if all(study.mask_path(image.id, target_id).exists() for target_id in spec.targets)
        }
    )
    count = round(spec.holdout * len(groups))
    if not count:
        raise UserError(
            f"No images could be set apart to choose a checkpoint: holdout is {spec.holdout:g} of "
            f"{len(groups)} groups with true masks. Import masks or set holdout to 0."
        )
    order = np.random.default_rng([spec.seed, 3]).permutation(len(groups))
    return {groups[index] for index in order[:count]}


def _what_is_missing(study: Study, spec: RunSpec, images: Sequence[StudyImage]) -> str:
    """Say which step must come before training."""
    where = f"None of the {len(images)} images in the split {spec.split!r}"
    if spec.method == "supervised":
        return (
            f"{where} has a true or reviewed mask; import masks first: "
            "gaze-insight import-images STUDY PATH --masks DIR."
        )
    ids = {image.id for image in images}
    if not any(key[0] in ids for key in study.fixations):
        return f"{where} has gaze yet; record, import or simulate gaze first."
    if not any(key[0] in ids for key in study.pseudomask_keys()):
        return f"{where} has a pseudo-mask yet; make them from the gaze first: gaze-insight pseudomask STUDY."
    return f"{where} has a usable label: every pseudo-mask was rejected or its image called unsure or ungradable."
