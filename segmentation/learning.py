"""One step of learning from a batch, in as many parts as memory asks for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from segmentation.dataset import Batch
from segmentation.device import Precision, is_out_of_memory
from segmentation.methods.base import Method
from segmentation.winograd import shared_kernels

SMALLEST = 2
"""Images of a micro-batch, at least: CutMix pastes from one into another."""


class Learner:
    """Computes a batch's gradients, in micro-batches that it halves where memory runs out."""

    def __init__(
        self,
        method: Method,
        precision: Precision,
        scaler: torch.amp.GradScaler,
        parts: int,
        warn: Callable[[int, str], object],
    ) -> None:
        self.method = method
        self.parts = parts
        """Number of micro-batches of a step."""
        self._precision = precision
        self._scaler = scaler
        self._warn = warn

    def gradients(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Add a batch's gradients to the networks' and return its losses.

        Raises
        ------
        RuntimeError
            As torch has it, where memory does not suffice for the smallest micro-batch.
        """
        while (losses := self._tried(batch, progress)) is None:
            # Here and not where the error is handled: until then its frames hold on to what filled the memory.
            self.method.networks.zero_grad()
            if self._precision.device.type == "cuda":
                torch.cuda.empty_cache()
            self.parts *= 2
            self._warn(batch.step, self._smaller(len(batch.index)))
        return losses

    def _tried(self, batch: Batch, progress: float) -> dict[str, Tensor] | None:
        losses: dict[str, Tensor] = {}
        try:
            for part in batch.parts(self.parts):
                share = len(part.index) / len(batch.index)
                with self._precision.autocast(), shared_kernels():
                    own = self.method.losses(part, progress)
                self._scaler.scale(share * own["total"]).backward()  # type: ignore[no-untyped-call]
                for name, loss in own.items():
                    losses[name] = losses.get(name, 0) + share * loss.detach()
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(batch.index) < SMALLEST * 2 * self.parts:
                raise
            return None
        return losses

    def _smaller(self, images: int) -> str:
        return (
            f"Memory ran out: the {images} images of a step are now learned from in {self.parts} parts, one after "
            "the other, which takes a little longer. A smaller batch_size or image_size_px would fit as a whole."
        )
