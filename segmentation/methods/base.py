"""What a method is, and what several of them do with a batch."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from segmentation.augmentation import SPREAD
from segmentation.dataset import Batch
from segmentation.job import RunSpec
from segmentation.losses import ALL, Rows, cutmix, partial_cross_entropy, partial_dice, paste
from segmentation.networks import Pasted

NOISE = 0.2
"""Mixed images get uniform noise up to this, on values 0..1."""


class Method(ABC):
    """One way to learn; `networks` holds all that is trained and stored, by name.

    The trainer owns the loop, the optimiser and the checkpoints; a method owns its networks, says which levels their
    labels are made of, and turns a batch into losses.
    """

    networks: nn.ModuleDict
    labels: Mapping[str, tuple[int, int]]
    """By network: the foreground and background level of its labels. Those of ``student`` are what the curve of
    agreement is measured against."""
    uses_text = False

    def __init__(self, spec: RunSpec, text_width: int = 0) -> None:
        self.spec = spec

    @property
    def student(self) -> nn.Module:
        """The network that predicts: images to an `Output`."""
        return self.networks["student"]

    @abstractmethod
    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return the losses of a batch at a progress of the run 0..1; the sum, ``total``, is what is minimised."""

    def supervised_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss towards labels: partial cross-entropy and, where asked for, soft Dice."""
        loss = partial_cross_entropy(logits, labels)
        if self.spec.dice_weight:
            loss = loss + self.spec.dice_weight * partial_dice(logits, labels)
        return loss

    def looked_at(self, batch: Batch) -> Batch:
        """Return the batch, under one look for all losses mixed and noisy in a share of the steps."""
        rng = np.random.default_rng([self.spec.seed, 5, batch.step])
        if self.spec.views == "one" and rng.random() < self.spec.cutmix_share:
            return mixed_batch(batch, cutmix(batch.images, rng, batch.rows), self.spec.seed)
        return batch


def summed(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the sum of losses, ``total``, before them."""
    return {"total": torch.stack(list(losses.values())).sum(), **losses}


def mixed_batch(batch: Batch, pasted: Pasted, seed: int) -> Batch:
    """Return the CutMix'd, noisy look at a batch; its text stays by image, for attention to choose by place."""
    return dataclasses.replace(
        batch,
        images=noisy(paste(batch.images, pasted), seed, batch.step, batch.rows),
        labels={name: paste(labels, pasted) for name, labels in batch.labels.items()},
    )


def noisy(images: Tensor, seed: int, step: int, rows: Rows = ALL) -> Tensor:
    """Add the noise that belongs to a step to standardised images."""
    generator = torch.Generator(images.device).manual_seed(seed * 1_000_003 + step)
    shape = (rows.of(len(images)), *images.shape[1:])
    noise = torch.empty(
        shape, dtype=images.dtype, device=images.device, memory_format=torch.channels_last
    ).uniform_(-NOISE / SPREAD, NOISE / SPREAD, generator=generator)
    return images + rows.own(noise, len(images))
