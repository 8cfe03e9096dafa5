"""Optimiser, learning rate, averaged weights and the run's clock."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from segmentation.backbones import Pretrained
from segmentation.job import RunSpec
from segmentation.networks import TextFusion

SPEED_MARKS = 60
"""Reports over which a run's speed is taken: a minute, where there is one a second."""


def make_optimiser(spec: RunSpec, networks: nn.Module) -> torch.optim.Optimizer:
    """Return the spec's optimiser over all networks; norms, biases and other vectors do not decay.

    The text's layers and a pretrained encoder have a pace of their own; what is frozen is left out.
    """
    paces = {TextFusion: spec.text_learning_rate, Pretrained: spec.encoder_learning_rate}
    pace_of = {
        id(parameter): pace
        for kind, pace in paces.items()
        for part in networks.modules()
        if isinstance(part, kind)
        for parameter in part.parameters()
    }
    groups = []
    for pace in dict.fromkeys((1.0, *paces.values())):
        for wide, decay in ((True, spec.weight_decay), (False, 0.0)):
            members = [
                one
                for one in networks.parameters()
                if one.requires_grad and (one.ndim > 1, pace_of.get(id(one), 1.0)) == (wide, pace)
            ]
            if members:
                groups.append({"params": members, "weight_decay": decay, "pace": pace})
    if spec.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=spec.learning_rate, momentum=0.9, nesterov=True, fused=True)
    return torch.optim.AdamW(groups, lr=spec.learning_rate, fused=True)


def learning_rate(spec: RunSpec, progress: float) -> float:
    """Return the rate at a progress 0..1: a linear rise over `warmup`, then half a cosine to the final rate."""
    if progress < spec.warmup:
        return spec.learning_rate * max(progress / spec.warmup, 0.01)
    rest = (progress - spec.warmup) / max(1 - spec.warmup, 1e-9)
    share = 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))
    return spec.final_learning_rate + share * (spec.learning_rate - spec.final_learning_rate)


class Average:
    """The exponential moving average of a network's weights and norms, as a network of its own."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._own, self._theirs = _floats(self.network), _floats(network)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the network by one step; early steps move further, so that the start is soon forgotten."""
        decay = min(self.decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(self._own, self._theirs, 1 - decay)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Restore stored weights."""
        self.network.load_state_dict(weights)


def _floats(network: nn.Module) -> list[Tensor]:
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]


class LossSums:
    """Adds up losses where they are computed; the numbers are fetched only when taken, as that waits for the GPU."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of a step."""
        for name, loss in losses.items():
            loss = loss.detach().float()
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
        self._count += 1

    def take(self) -> dict[str, float]:
        """Return the means since the last time; nothing where there was no step."""
        means = {name: float(total) / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


class Pace:
    """Says every so many seconds that something is due."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether the time is up; the next one then begins."""
        if time.monotonic() - self._last < self.seconds:
            return False
        self._last = time.monotonic()
        return True


class Clock:
    """How far a run is, by steps or, where a time limit is set, by time, whichever is further."""

    def __init__(self, spec: RunSpec, first_step: int, earlier_seconds: float) -> None:
        self.spec = spec
        self.first_step = first_step
        self.earlier_seconds = earlier_seconds
        self._start = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque(maxlen=SPEED_MARKS)

    @property
    def seconds(self) -> float:
        """Seconds of training up to now, those before a resume included."""
        return self.earlier_seconds + time.monotonic() - self._start

    def progress(self, step: int) -> float:
        """Return how much of the run is behind, 0..1."""
        by_steps = step / self.spec.iterations
        by_time = self.seconds / (60 * self.spec.max_minutes) if self.spec.max_minutes else 0.0
        return min(max(by_steps, by_time), 1.0)

    def mark(self, step: int) -> None:
        """Remember when a step was reached: the speed is that since the oldest of the last marks.

        The first mark leaves out what only a run's beginning takes, such as compiling.
        """
        self._marks.append((time.monotonic(), step))

    def total(self, step: int) -> int:
        """Estimate how many steps the run will have had at its end."""
        steps_left = self.seconds_left(step) * self.images_per_second(step) / self.spec.batch_size
        return max(step, min(self.spec.iterations, step + round(steps_left)))

    def images_per_second(self, step: int) -> float:
        """Return the speed of late, or that since this worker began until there are marks to measure it by."""
        begun, first = next(
            ((at, one) for at, one in self._marks if one < step), (self._start, self.first_step)
        )
        return (step - first) * self.spec.batch_size / max(time.monotonic() - begun, 1e-9)

    def seconds_left(self, step: int) -> float:
        """Estimate the seconds to the run's end."""
        speed = max(self.images_per_second(step), 1e-9)
        by_steps = max(self.spec.iterations - step, 0) * self.spec.batch_size / speed
        if self.spec.max_minutes:
            return min(by_steps, max(60 * self.spec.max_minutes - self.seconds, 0.0))
        return by_steps
