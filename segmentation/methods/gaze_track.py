"""The method `gaze-track`: the stages of the decoder learn to find where the gaze went, ever later parts of it.

An approximation of GradTrack (Wang et al., MICCAI 2025), whose formulas were not verified: reverse-truncated gaze
tracks and distance maps supervise the decoder from coarse to fine; its track attention is left out. The network that
predicts is that of `partial`, and the logits learn from the levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segmentation.architectures import make_student
from segmentation.dataset import TRACKS, Batch
from segmentation.gaze_tracks import NEAREST
from segmentation.job import RunSpec
from segmentation.losses import IGNORE
from segmentation.methods.base import Method, summed
from segmentation.networks import Student
from segmentation.processes import per_process


class GazeTrack(Method):
    """One network; beside its logits, what the decoder's stages say of the track. Approximates GradTrack."""

    def __init__(self, spec: RunSpec, text_width: int = 0) -> None:
        super().__init__(spec)
        student = make_student(spec, taught=False)
        # A compact decoder may have fewer stages than there are shares: the last ones go to the finest stages.
        self.used = min(len(student.decoder), len(spec.track_shares))
        widths = [width for width in spec.student_widths if width][: self.used][::-1]
        heads = nn.ModuleList(nn.Conv2d(width, len(spec.targets), 1) for width in widths)
        self.networks = nn.ModuleDict({"student": student, "track": heads})
        self.labels = {"student": spec.student_levels}

    @property
    def student(self) -> Student:
        """The network that predicts."""
        student = self.networks["student"]
        assert isinstance(student, Student)
        return student

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return the loss towards the labels and that towards the tracks."""
        batch = self.looked_at(batch)
        student, spec = self.student, self.spec
        stages = student.stages(student.encode(batch.images))
        losses = {"student": self.supervised_loss(student.read(stages[-1]), batch.labels["student"])}
        if spec.track_weight and self.used:
            heads = self.networks["track"]
            assert isinstance(heads, nn.ModuleList)
            seen = [head(stage) for head, stage in zip(heads, stages[-self.used :], strict=True)]
            maps = batch.labels[TRACKS]
            maps = maps.reshape(len(maps), len(spec.targets), -1, *maps.shape[2:])
            losses["track"] = spec.track_weight * track_loss(seen, maps[:, :, -self.used :])
        return summed(losses)


def track_loss(seen: Sequence[Tensor], maps: Tensor) -> Tensor:
    """Cross-entropy of stages' logits, each (B, T, s, s), towards their track maps; the mean over the stages.

    `maps` (B, T, stages, S, S) holds 0 to NEAREST, or IGNORE where no gaze is known; each stage reads the mean over
    the pixels that its own cover.
    """
    terms = []
    for place, logits in enumerate(seen):
        values = maps[:, :, place]
        known = (values != IGNORE).float()
        cover = functional.interpolate(known, logits.shape[2:], mode="area")
        near = functional.interpolate(values.float() / NEAREST * known, logits.shape[2:], mode="area")
        goal = near / cover.clamp(min=1e-6)
        loss = functional.binary_cross_entropy_with_logits(logits.float(), goal, reduction="none")
        terms.append((loss * cover).sum() / per_process(cover.sum()))
    return torch.stack(terms).mean()
