"""One step of learning from a batch, in as many parts as memory asks for, by one process or several."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from segmentation.dataset import Batch
from segmentation.device import Precision, is_out_of_memory
from segmentation.methods.base import Method
from segmentation.processes import ALONE, Processes
from segmentation.winograd import shared_kernels

SMALLEST = 2
"""Images of a micro-batch, at least: CutMix pastes from one into another."""


class Learner:
    """Computes a batch's gradients, in micro-batches that it halves where memory runs out.

    Several processes take their means of the gradients once a step, in a single exchange after the last micro-batch.
    """

    def __init__(
        self,
        method: Method,
        precision: Precision,
        scaler: torch.amp.GradScaler,
        parts: int,
        warn: Callable[[int, str], object],
        processes: Processes = ALONE,
    ) -> None:
        self.method = method
        self.parts = parts
        """Number of micro-batches of a step in this process; the same in all."""
        self._precision = precision
        self._scaler = scaler
        self._warn = warn
        self._processes = processes

    @property
    def parts_of_step(self) -> int:
        """Number of micro-batches of a step in all processes together; 1 where each takes its share as a whole."""
        return self.parts * self._processes.count if self.parts > 1 else 1

    def fit(self, batch: Batch) -> None:
        """Find, before several processes begin to learn together, how many micro-batches the memory of each allows.

        Once they learn, one that runs out of memory could not tell the others, who wait for it in the midst of a step.
        Nothing is learned here.

        Raises
        ------
        RuntimeError
            As torch has it, where memory does not suffice for the smallest micro-batch.
        """
        networks = self.method.networks
        before = [buffer.clone() for buffer in networks.buffers()]
        # What a step needs beside this: the optimiser's moments, and the gradients on their way.
        parameters = sum(parameter.numel() for parameter in networks.parameters())
        kept = torch.empty(3 * parameters, device=self._precision.device)
        # All losses at full weight, and DARM at work.
        while self._tried(dataclasses.replace(batch, step=0), 1.0) is None:
            self._halve(batch)
        del kept
        networks.zero_grad()
        with torch.no_grad():
            for buffer, value in zip(networks.buffers(), before, strict=True):
                buffer.copy_(value)
        self.parts = max(self._processes.gathered(self.parts))

    def gradients(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Add a batch's gradients to the networks' and return its losses.

        Raises
        ------
        RuntimeError
            As torch has it, where memory does not suffice for the smallest micro-batch, or several processes share it.
        """
        with self._processes.sharing():
            while (losses := self._tried(batch, progress)) is None:
                self._halve(batch)
        self._share(losses)
        return losses

    def _share(self, losses: dict[str, Tensor]) -> None:
        if self._processes.count == 1:
            return
        networks = self.method.networks
        tensors = [one.grad for one in networks.parameters() if one.grad is not None]
        # Norms that each process keeps for itself must not drift apart.
        for part in networks.modules():
            if isinstance(part, nn.BatchNorm2d) and part.training:
                tensors += [buffer for buffer in part.buffers() if buffer.is_floating_point()]
        self._processes.average([*tensors, *losses.values()])

    def _halve(self, batch: Batch) -> None:
        # Here and not where the error is handled: until then its frames hold on to what filled the memory.
        self.method.networks.zero_grad()
        if self._precision.device.type == "cuda":
            torch.cuda.empty_cache()
        self.parts *= 2
        self._warn(batch.step, self._smaller(len(batch.index)))

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
            # In the midst of a step of several processes the others wait: the run ends, and its checkpoint stays good.
            hopeless = len(batch.index) < SMALLEST * 2 * self.parts
            if not is_out_of_memory(error) or hopeless or self._processes.shares:
                raise
            return None
        return losses

    def _smaller(self, images: int) -> str:
        return (
            f"Memory ran out: the {images} images of a step are now learned from in {self.parts} parts, one after "
            "the other, which takes a little longer. A smaller batch_size or image_size_px would fit as a whole."
        )
