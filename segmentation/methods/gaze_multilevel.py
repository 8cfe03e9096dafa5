"""The method `gaze-multilevel`: one network per level of the gaze, each held against what the others say.

After GazeMedSeg (Zhong et al., MICCAI 2024): networks that begin alike learn from one level's mask each, and are drawn
to the others' detached predictions. As in its published evaluation, the mean of the networks' logits predicts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segmentation.architectures import make_student
from segmentation.dataset import Batch
from segmentation.job import RunSpec
from segmentation.methods.base import Method, summed
from segmentation.networks import Output, Student

NEIGHBOURS, DILATION = 5, 2
"""Side of the square of places that features are propagated over, and the distance between them."""


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
            logits.append(network.read(last))
            judged.append(network.read(propagated(last)) if spec.level_consistency == "prop" else logits[-1])
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
    zeros. Goes from neighbour to neighbour: all of them side by side would take 25 times the memory.
    """
    height, width = features.shape[2:]
    reach = NEIGHBOURS // 2 * DILATION
    padded = functional.pad(features, (reach, reach, reach, reach))
    steps = range(0, 2 * reach + 1, DILATION)
    around = [padded[:, :, row : row + height, column : column + width] for row in steps for column in steps]
    likeness = torch.stack([(features * one).sum(1, dtype=torch.float32) for one in around], dim=1)
    weights = likeness.clamp(min=0).softmax(dim=1).to(features.dtype)
    result = torch.zeros_like(features)
    for place, one in enumerate(around):
        result = result + one * weights[:, place : place + 1]
    return result
