"""The losses and masks of METHOD: partial cross-entropy, feature and confidence consistency, CutMix, DARM.

Labels are uint8 (B, T, S, S): 0 background, 1 foreground, `IGNORE` anything else. All losses are means over the
pixels that count, 0 where none does, and computed in float32 (float64 where that is what comes in).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from segmentation.networks import Pasted
from segmentation.processes import per_process

IGNORE = 255

D = TypeVar("D", Tensor, npt.NDArray[Any])


@dataclass(frozen=True)
class Rows:
    """Which images of a step are at hand: `first` and those that follow it, of `whole`; by default they are all.

    What is drawn at random is drawn for all images of a step, and these take their part of it. So it does not depend
    on how many micro-batches, or processes, share the step.
    """

    first: int = 0
    whole: int | None = None

    def of(self, count: int) -> int:
        """Return the number of images of the step, given how many are at hand."""
        return count if self.whole is None else self.whole

    def own(self, drawn: D, count: int) -> D:
        """Return the part of what was drawn for all that belongs to the `count` images at hand."""
        return drawn[self.first : self.first + count]


ALL = Rows()


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def partial_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of logits (B, T, S, S) over the pixels whose label is known."""
    known = labels != IGNORE
    logits = _wide(logits)
    truth = (labels == 1).to(logits.dtype)
    losses = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (losses * known).sum() / per_process(known.sum())


def partial_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - soft Dice over the known pixels, per image and target; those without a known pixel do not count."""
    known = labels != IGNORE
    probability = _wide(logits).sigmoid() * known
    truth = (labels == 1).to(probability.dtype)
    overlap = (probability * truth).sum((2, 3))
    # One pixel of smoothing: an empty truth asks for an empty prediction.
    dice = (2 * overlap + 1) / (probability.sum((2, 3)) + truth.sum((2, 3)) + 1)
    counts = known.any(3).any(2)
    return ((1 - dice) * counts).sum() / per_process(counts.sum())


def feature_consistency(projected: Sequence[Tensor], goals: Sequence[Tensor]) -> Tensor:
    """AFC: mean over the scales of 1 - cosine between features (B, C, h, w) and detached goals of like shape."""
    terms = []
    for own, goal in zip(projected, goals, strict=True):
        goal = goal.detach()
        wide = torch.promote_types(own.dtype, torch.float32)
        cosine = (own * goal).sum(1, dtype=wide) / (
            (own * own).sum(1, dtype=wide) * (goal * goal).sum(1, dtype=wide) + 1e-8
        ).sqrt()
        terms.append(1 - cosine.mean())
    return torch.stack(terms).mean()


def confident_cross_entropy(logits: Tensor, goal_logits: Tensor, confidence: float) -> Tensor:
    """CWC, one direction: cross-entropy towards the other network's verdict where that one is confident.

    Confident is a probability of at least `confidence` or at most 1 - `confidence`. With two classes this equals
    the paper's confidence-weighted consistency.
    """
    with torch.no_grad():
        limit = math.log(confidence / (1 - confidence))
        labels = (goal_logits > 0).to(torch.uint8).masked_fill_(goal_logits.abs() < limit, IGNORE)
    return partial_cross_entropy(logits, labels)


def consistency_ramp(progress: float, length: float) -> float:
    """Weight exp(-5 (1 - t)^2) of the consistency losses, t = progress / length up to 1; 1 where length is 0."""
    t = 1.0 if length <= 0 else min(progress / length, 1.0)
    return math.exp(-5 * (1 - t) ** 2)


def cutmix(images: Tensor, rng: np.random.Generator, rows: Rows = ALL) -> Pasted:
    """Draw one rectangle for each image (B, 3, S, S) and the image it is to be filled from: its neighbour.

    The kept share of the area is drawn from Beta(4, 4). Batches come in random order, so that any pairing is as good;
    neighbours stay together when a batch is cut into parts of an even number of images.
    """
    batch, _, height, width = images.shape
    whole = rows.of(batch)
    edges = np.zeros((5, whole), np.int64)
    for index, share in enumerate(1 - rng.beta(4, 4, whole)):
        h, w = round(height * math.sqrt(share)), round(width * math.sqrt(share))
        top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        edges[:4, index] = top, top + h, left, left + w
    # The first with the second and so on; the last of an odd number with the one before it.
    pairs = np.arange(whole) ^ 1
    edges[4] = np.where(pairs < whole, pairs, max(whole - 2, 0)) - rows.first
    *sides, source = beside(images, rows.own(edges.T, batch).T.copy())
    top_, bottom, left_, right = (side.view(batch, 1, 1, 1) for side in sides)
    lines = torch.arange(height, device=images.device).view(height, 1)
    columns = torch.arange(width, device=images.device)
    return Pasted((lines >= top_) & (lines < bottom) & (columns >= left_) & (columns < right), source)


def beside(images: Tensor, values: npt.NDArray[Any]) -> Tensor:
    """Bring an array to the device of a batch; to a GPU by way of page-locked memory, so that nothing waits."""
    tensor = torch.from_numpy(values)
    if images.device.type != "cuda":
        return tensor.to(images.device)
    return tensor.pin_memory().to(images.device, non_blocking=True)


def paste(values: Tensor, pasted: Pasted) -> Tensor:
    """Fill each item's rectangle from its source item: images, labels or logits (B, C, S, S)."""
    return torch.where(pasted.region, values[pasted.source], values)


def darm_blocks(
    disagreement: Tensor,
    share: float,
    rng: np.random.Generator,
    sides: tuple[int, int] = (3, 10),
    rows: Rows = ALL,
) -> Tensor:
    """Cover disagreeing places with random square blocks until the blocks' AREA reaches a share of theirs.

    Every disagreeing pixel is the centre of a block of a random side, and all blocks have a random order. The shortest
    beginning of that order whose joint area reaches the goal is taken. All of it is computed where the disagreement is,
    without waiting for a GPU; a seed gives the same blocks again on the same kind of device.

    Parameters
    ----------
    disagreement
        (B, S, S) bool, where teacher and student disagree.
    share
        Of each image's disagreement area; the blocks' joint area exceeds it by less than one block.
    sides
        Shortest and longest side of a block in pixels.
    rows
        Which images of the step these are.

    Returns
    -------
    (B, S, S) bool, True where the student's image is to be blanked and its loss ignored.
    """
    generator = torch.Generator(disagreement.device).manual_seed(int(rng.integers(2**63)))
    goal = share * disagreement.sum((1, 2), dtype=torch.float32)[:, None]
    # A goal smaller than the longest block is not to be overshot by much.
    longest = (goal.sqrt() + 1).floor().clamp(*sides)[..., None]
    whole = (rows.of(len(disagreement)), *disagreement.shape[1:])
    drawn = torch.rand(whole, generator=generator, device=disagreement.device)
    drawn = rows.own(drawn, len(disagreement))
    side = sides[0] + (drawn * (longest - sides[0] + 1)).int()
    # The higher its priority, the earlier a block comes; a pixel has the priority of the first block that covers it.
    priority = side.new_empty(whole).random_(1, 2**31 - 1, generator=generator)
    priority = rows.own(priority, len(disagreement)).masked_fill(~disagreement, 0)
    covering = torch.zeros_like(priority)
    # All blocks grow at once, a pixel at a time, down and up in turn; each joins when its own side is left to go.
    for size in range(sides[1], 1, -1):
        covering = torch.maximum(covering, priority.masked_fill(side != size, 0))
        for axis in (1, 2):
            length = covering.shape[axis] - 1
            ahead, behind = covering.narrow(axis, 1, length), covering.narrow(axis, 0, length)
            here, there = (ahead, behind) if size % 2 else (behind, ahead)
            here.copy_(torch.maximum(here, there))
    wanted = goal.ceil().long().clamp(1, covering[0].numel()) - 1
    last = covering.flatten(1).sort(dim=1, descending=True).values.gather(1, wanted)
    # Smaller disagreement than the smallest block: nothing to learn from hiding it.
    last = last.masked_fill(goal < sides[0] ** 2 / 2, 2**31 - 1)
    return (covering >= last[..., None]) & (covering > 0)


def hard_dice(predicted: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the Dice of masks (..., S, S), 1 where both are empty."""
    overlap = (predicted & truth).sum((-2, -1))
    sizes = predicted.sum((-2, -1)) + truth.sum((-2, -1))
    dice: npt.NDArray[np.float64] = np.where(sizes == 0, 1.0, 2 * overlap / np.maximum(sizes, 1))
    return dice
