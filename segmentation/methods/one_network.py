"""The methods `partial` and `supervised`: one network, which learns from its labels."""

from __future__ import annotations

from torch import Tensor, nn

from segmentation.architectures import make_student
from segmentation.dataset import Batch
from segmentation.job import RunSpec
from segmentation.methods.base import Method


class OneNetwork(Method):
    """The student alone; the two methods differ in what the training set takes for labels."""

    def __init__(self, spec: RunSpec, text_width: int = 0) -> None:
        super().__init__(spec)
        self.networks = nn.ModuleDict({"student": make_student(spec, taught=False)})
        self.labels = {"student": spec.student_levels}

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return the loss towards the labels."""
        batch = self.looked_at(batch)
        return {"total": self.supervised_loss(self.student(batch.images).logits, batch.labels["student"])}
