"""Norms of the networks: group norms where a spec asks for them, and batch norms that several GPUs share."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from segmentation.backbones import Pretrained

GROUPS, NARROWEST = 8, 4
"""Groups of a group norm, fewer where they would have fewer channels than that or the width has no such divisor."""


def grouped(network: nn.Module) -> None:
    """Put group norms in the place of a network's own batch norms; a pretrained encoder keeps the norms it knows."""
    _exchange(network, lambda norm: nn.GroupNorm(_groups(norm.num_features), norm.num_features))


def synchronised(network: nn.Module) -> None:
    """Let a network's batch norms on GPUs count over the images of all processes; frozen ones stay as they are."""
    _exchange(network, _shared, pretrained=True)


def _groups(width: int) -> int:
    return math.gcd(min(GROUPS, max(width // NARROWEST, 1)), width)


def _shared(norm: nn.BatchNorm2d) -> nn.Module:
    frozen = norm.affine and not norm.weight.requires_grad
    shared: nn.Module = norm if frozen else nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
    return shared


def _exchange(
    module: nn.Module, make: Callable[[nn.BatchNorm2d], nn.Module], *, pretrained: bool = False
) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, make(child))
        elif pretrained or not isinstance(child, Pretrained):
            _exchange(child, make, pretrained=pretrained)
