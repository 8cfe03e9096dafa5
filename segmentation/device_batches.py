"""A training set that lives where the networks do: batches are gathered and flipped there, and nothing is copied."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from segmentation.augmentation import MEAN, SPREAD, STRENGTHS
from segmentation.dataset import Batch, Batches, TrainingSet
from segmentation.job import RunSpec
from segmentation.losses import beside
from segmentation.networks import Text
from segmentation.processes import ALONE, Processes

FREE_SHARE = 0.25
"""A training set may take this share of a GPU's free memory; the rest is for the networks' work."""


class DeviceBatches(Batches):
    """The same batches as `Batches` gives for the augmentation ``flips``, bit for bit, made on a device."""

    def __init__(
        self,
        training_set: TrainingSet,
        spec: RunSpec,
        labels: Mapping[str, tuple[int, int]],
        device: torch.device,
        processes: Processes = ALONE,
    ) -> None:
        super().__init__(training_set, spec, labels, processes)
        phrases = training_set.phrases
        self._images, self._levels, self._rows, self._vectors = (
            torch.from_numpy(part).to(device)
            for part in (training_set.images, training_set.levels, phrases.rows, phrases.vectors)
        )
        self._labels = {name: torch.from_numpy(table).to(device) for name, table in self.tables.items()}

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of a step."""
        index, states = (drawn[self.own] for drawn in self.draw(step)[:2])
        chosen, state = beside(self._images, np.stack([index, states]))
        pixels = _flipped(self._images[chosen].permute(0, 3, 1, 2), state)
        levels = _flipped(self._levels[chosen], state).long()
        rows = self._rows[chosen, state]
        valid = rows >= 0
        tokens = self._vectors[rows.clamp(min=0)].masked_fill(~valid[..., None], 0.0)
        return Batch(
            step=step,
            index=index,
            images=(pixels.float() / 255 - MEAN) / SPREAD,
            labels={name: table[levels] for name, table in self._labels.items()},
            text=Text(tokens, valid),
            rows=self.rows,
        )


def _flipped(values: Tensor, state: Tensor) -> Tensor:
    """Bring (B, C, S, S) into flip states 0..3: upside down (2), mirrored (1)."""
    for bit, axis in ((2, 2), (1, 3)):
        turned = (state & bit).bool().view(-1, 1, 1, 1)
        values = torch.where(turned, values.flip(axis), values)
    return values


def make_batches(
    training_set: TrainingSet,
    spec: RunSpec,
    labels: Mapping[str, tuple[int, int]],
    device: torch.device,
    processes: Processes = ALONE,
) -> Batches:
    """Return batches made on the device where the spec wants that or, for ``auto``, where it is a GPU with room.

    Stronger augmentation than flips, and gaze tracks, are made by the CPU, whatever the spec says.
    """
    if spec.data_on_device == "off" or STRENGTHS[spec.augmentation] or training_set.tracks.shape[1]:
        return Batches(training_set, spec, labels, processes)
    if spec.data_on_device == "auto" and not _fits(training_set, device):
        return Batches(training_set, spec, labels, processes)
    return DeviceBatches(training_set, spec, labels, device, processes)


def _fits(training_set: TrainingSet, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    phrases = training_set.phrases
    parts = (training_set.images, training_set.levels, phrases.rows, phrases.vectors)
    return sum(part.nbytes for part in parts) <= FREE_SHARE * free
