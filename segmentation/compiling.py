"""torch.compile for a method's networks, with a way back where it fails."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Callable

from segmentation.dataset import Batch
from segmentation.device import Precision
from segmentation.methods.base import Method


def compile_networks(
    method: Method,
    batch: Batch,
    precision: Precision,
    warn: Callable[[str], object],
    backend: str | Callable[..., object] = "inductor",
) -> bool:
    """Have the networks compiled, if a copy of them can learn from a batch that way; else warn and leave them be.

    The names of their weights, and so their checkpoints, stay the same.
    """
    trial = copy.deepcopy(method)
    try:
        for network in trial.networks.values():
            network.compile(backend=backend)
        with precision.autocast():
            losses = trial.losses(batch, 1.0)
        losses["total"].backward()  # type: ignore[no-untyped-call]
    # What a compiler, its code or its toolchain can raise has no common type.
    except Exception as error:
        reason = textwrap.shorten(str(error), 200) or type(error).__name__
        warn(f"torch.compile does not work here ({reason}); the run goes on without it, only slower.")
        return False
    for network in method.networks.values():
        network.compile(backend=backend)
    return True
