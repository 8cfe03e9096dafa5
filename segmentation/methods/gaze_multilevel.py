"""The method `gaze-multilevel`: one network per level of the gaze, each held against what the others say.

After GazeMedSeg (Zhong et al., MICCAI 2024): networks that begin alike learn from one level's mask each, and are drawn
to the others' detached predictions. As in its published evaluation, the mean of the networks' logits predicts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from segmentation.architectures import make_student
from segmentation.dataset import Batch
from segmentation.job import RunSpec
from segmentation.methods.base import Method, summed
from segmentation.networks import Output, Student, as_large

NEIGHBOURS, DILATION = 5, 2
"""Side of the square of places that features are propagated over, and the distance between them."""
REACH = NEIGHBOURS // 2 * DILATION


class LevelNetworks(nn.Module):
    """Networks of the same shape, one per level, that answer together."""

    def __init__(self, first: Student, count: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList([first, *(copy.deepcopy(first) for _ in range(count - 1))])

    def members(self) -> list[Student]:
        """Return the network of each level, the highest level first."""
        return [network for network in self.levels if isinstance(network, Student)]

    def forward(self, images: Tensor) -> Output:
        """Segment images by the mean of the networks' logits; the features are those of the broadest level."""
        outputs: list[Output] = [network(images) for network in self.levels]
        return Output(torch.stack([output.logits for output in outputs]).mean(0), outputs[-1].features)


class GazeMultilevel(Method):
    """A network for each of the spec's `level_networks`; inside its level is foreground, all else background."""

    def __init__(self, spec: RunSpec, text_width: int = 0) -> None:
        super().__init__(spec)
        self.together = LevelNetworks(make_student(spec, taught=False), len(spec.level_networks))
        self.networks = nn.ModuleDict({"student": self.together})
        self.labels = {
            "student": spec.student_levels,
            **{level_name(place): (level, level) for place, level in enumerate(spec.level_networks)},
        }

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return the loss of each network towards its level, and the networks' disagreement."""
        batch = self.looked_at(batch)
        spec = self.spec
        losses, logits, judged = {}, [], []
        for place, network in enumerate(self.together.members()):
            last = network.stages(network.encode(batch.images))[-1]
            logits.append(as_large(network.read(last), batch.images))
            judged.append(
                as_large(network.read(propagated(last)), batch.images)
                if spec.level_consistency == "prop"
                else logits[-1]
            )
            name = level_name(place)
            losses[name] = self.supervised_loss(logits[-1], batch.labels[name])
        if spec.level_consistency_weight and len(logits) > 1:
            losses["consistency"] = spec.level_consistency_weight * disagreement(judged, logits)
        return summed(losses)


def level_name(place: int) -> str:
    """Return the name of a level's labels and loss."""
    return f"level {place + 1}"


def disagreement(judged: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
    """Return how probably each network and the others, which are detached, call a pixel differently.

    Parameters
    ----------
    judged : by network, the logits (B, T, S, S) that are drawn to the others'
    logits : by network, its prediction (B, T, S, S)

    Returns
    -------
    The sum over networks of the mean over the others and all pixels of p (1 - q) + q (1 - p). It is GazeMedSeg's
    inner product of class probabilities, subtracted from 1.
    """
    goals = [one.detach().float().sigmoid() for one in logits]
    terms = []
    for place, own in enumerate(judged):
        probability = own.float().sigmoid()
        apart = [
            (probability * (1 - goal) + goal * (1 - probability)).mean()
            for other, goal in enumerate(goals)
            if other != place
        ]
        terms.append(torch.stack(apart).mean())
    return torch.stack(terms).sum()


def propagated(features: Tensor) -> Tensor:
    """Average features (B, C, h, w) over a dilated neighbourhood, weighted by the softmax of their likeness.

    Likeness is the inner product with the features in the middle, 0 at least; places beyond the border count as
    zeros. Computed in float32 or finer.
    """
    exact = features if features.dtype == torch.float64 else features.float()
    result: Tensor = _Propagation.apply(exact)  # type: ignore[no-untyped-call]
    return result.to(features.dtype)


class _Propagation(torch.autograd.Function):
    """Goes from neighbour to neighbour in both directions.

    All neighbours side by side would take 25 times the memory, and autograd's own way back pads each neighbour's
    gradient anew: four times as slow.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        padded = _padded(features)
        likeness = torch.stack([(features * one).sum(1) for one in _around(padded)], dim=1)
        weights = likeness.clamp(min=0).softmax(dim=1)
        result = torch.zeros_like(features)
        for one, weight in zip(_around(padded), weights.unbind(1), strict=True):
            result.addcmul_(one, weight[:, None])
        ctx.save_for_backward(features, likeness, weights)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        features, likeness, weights = ctx.saved_tensors
        padded = _padded(features)
        of_weights = torch.stack([(gradient * one).sum(1) for one in _around(padded)], dim=1)
        of_likeness = weights * (of_weights - (weights * of_weights).sum(1, keepdim=True)) * (likeness > 0)
        own, theirs = torch.zeros_like(features), torch.zeros_like(padded)
        parts = (_around(padded), _around(theirs), weights.unbind(1), of_likeness.unbind(1))
        for one, goal, weight, of_one in zip(*parts, strict=True):
            own.addcmul_(one, of_one[:, None])
            goal.addcmul_(features, of_one[:, None])
            goal.addcmul_(gradient, weight[:, None])
        return own + theirs[:, :, REACH:-REACH, REACH:-REACH]


def _padded(features: Tensor) -> Tensor:
    return functional.pad(features, (REACH,) * 4)


def _around(padded: Tensor) -> list[Tensor]:
    """Return views (B, C, h, w) of padded features, one for each place of the neighbourhood."""
    height, width = (side - 2 * REACH for side in padded.shape[2:])
    steps = range(0, 2 * REACH + 1, DILATION)
    return [padded[:, :, row : row + height, column : column + width] for row in steps for column in steps]
