"""The gaze-to-insight step as one would first write it: what the program's faster form is held against.

Modules carry the names of the program's own, so that one side's weights load into the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from segmentation.dataset import Batch
from segmentation.job import RunSpec
from segmentation.losses import IGNORE, consistency_ramp, cutmix, darm_blocks, paste
from segmentation.methods.base import noisy
from segmentation.networks import Pasted, Text


def block(*widths: int) -> nn.Sequential:
    """3x3 convolutions from width to width, each normalised and rectified."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


class PlainUNet(nn.Module):
    """A U-Net; `upsample_first` has its decoder double before it convolves, as published code does."""

    def __init__(self, targets: int, widths: Sequence[int], upsample_first: bool) -> None:
        super().__init__()
        self.upsample_first = upsample_first
        self.encoder = nn.ModuleList(
            block(before, after, after) for before, after in zip((3, *widths[:-1]), widths, strict=True)
        )
        pairs = list(itertools.pairwise(widths))
        self.rise = nn.ModuleList(block(wide, narrow) for narrow, wide in pairs)
        self.decoder = nn.ModuleList(block(2 * narrow, narrow, narrow) for narrow, _ in pairs)
        self.head = nn.Conv2d(widths[0], targets, 1)
        self.pool, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the features at all scales, finest first."""
        features = [self.encoder[0](images)]
        for part in list(self.encoder)[1:]:
            features.append(part(self.pool(features[-1])))
        return features

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits from the features at all scales."""
        result = features[-1]
        for scale in reversed(range(len(features) - 1)):
            rise = self.rise[scale]
            result = rise(self.up(result)) if self.upsample_first else self.up(rise(result))
            result = self.decoder[scale](torch.cat([features[scale], result], 1))
        logits: Tensor = self.head(result)
        return logits


class PlainStudent(PlainUNet):
    """Sees the image; gives logits and, always, its features in the teacher's widths."""

    def __init__(
        self, targets: int, widths: Sequence[int], teacher_widths: Sequence[int], upsample_first: bool
    ) -> None:
        super().__init__(targets, widths, upsample_first)
        self.adapters = nn.ModuleList(
            nn.Conv2d(own, theirs, 1) for own, theirs in zip(widths[-4:], teacher_widths[-4:], strict=True)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return logits and adapted features."""
        features = self.encode(images)
        adapted = [one(feature) for one, feature in zip(self.adapters, features[-4:], strict=True)]
        return self.decode(features), adapted


class PlainFusion(nn.Module):
    """Multi-head cross-attention with all four projections, on image tokens."""

    def __init__(self, width: int, text_width: int, heads: int) -> None:
        super().__init__()
        while width % heads:
            heads -= 1
        self.heads = heads
        self.positions = nn.Parameter(torch.zeros(1, width, 16, 16))
        self.null = nn.Parameter(torch.zeros(1, 1, width))
        self.text = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, width))
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.out_norm = nn.LayerNorm(width)
        self.strength = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor, text: Text, pasted: Pasted | None) -> Tensor:
        """Return features (B, C, h, w) with what the text says added."""
        batch, width, height, breadth = features.shape
        projected = self.text(text.tokens)
        projected = projected + self.mlp(projected)
        tokens = torch.cat([self.null.expand(batch, -1, -1), projected], 1)
        allowed = torch.cat([~text.valid.any(1, keepdim=True), text.valid], 1)
        mask = allowed[:, None].expand(-1, height * breadth, -1)
        if pasted is not None:
            tokens = torch.cat([tokens, tokens[pasted.source]], 1)
            inside = (
                functional.interpolate(pasted.region.float(), (height, breadth)).flatten(1)[..., None] > 0.5
            )
            mask = torch.cat([mask & ~inside, mask[pasted.source] & inside], 2)
        positions = functional.interpolate(self.positions, (height, breadth), mode="bilinear")
        image = (features + positions).flatten(2).transpose(1, 2)

        def split(values: Tensor) -> Tensor:
            return values.view(batch, -1, self.heads, width // self.heads).transpose(1, 2)

        query, (key, value) = split(self.query(image)), map(split, self.key_value(tokens).chunk(2, 2))
        scores = query @ key.transpose(2, 3) * (width // self.heads) ** -0.5
        weights = scores.masked_fill(~mask[:, None], float("-inf")).softmax(3)
        said = self.out_norm(self.out((weights @ value).transpose(1, 2).reshape(batch, -1, width)))
        fused: Tensor = features + self.strength * said.transpose(1, 2).view_as(features)
        return fused


class PlainTeacher(PlainUNet):
    """A U-Net with a fusion at each of the four coarsest scales."""

    def __init__(
        self, targets: int, widths: Sequence[int], text_width: int, heads: int, upsample_first: bool
    ) -> None:
        super().__init__(targets, widths, upsample_first)
        self.fusions = nn.ModuleList(PlainFusion(width, text_width, heads) for width in widths[-4:])

    def forward(self, images: Tensor, text: Text, pasted: Pasted | None) -> tuple[Tensor, list[Tensor]]:
        """Return logits and fused features."""
        features = self.encode(images)
        fused = [one(feature, text, pasted) for one, feature in zip(self.fusions, features[-4:], strict=True)]
        return self.decode([*features[:-4], *fused]), fused


def known_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Partial cross-entropy: binary, the mean over the pixels that are not ignored."""
    known = labels != IGNORE
    truth = (labels == 1).to(logits.dtype)
    losses = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def confidence_weighted_consistency(logits: Tensor, goal: Tensor, confidence: float) -> Tensor:
    """CWC as written, with softmax over two classes: cross-entropy to the other's verdict, weighted by confidence."""
    own = torch.stack([torch.zeros_like(logits), logits], -1).softmax(-1)
    other = torch.stack([torch.zeros_like(goal), goal.detach()], -1).softmax(-1)
    surest, verdict = other.max(-1)
    weight = (surest >= confidence).to(logits.dtype)
    losses = -(functional.one_hot(verdict, 2) * own.log()).sum(-1)
    return (weight * losses).sum() / weight.sum().clamp(min=1)


def cosine_distance(own: Sequence[Tensor], goals: Sequence[Tensor]) -> Tensor:
    """AFC: the mean of 1 - cosine over the four scales."""
    terms = []
    for one, goal in zip(own, goals, strict=True):
        goal = goal.detach()
        lengths = ((one**2).sum(1) * (goal**2).sum(1) + 1e-8).sqrt()
        terms.append((1 - (one * goal).sum(1) / lengths).mean())
    return torch.stack(terms).mean()


class PlainGazeToInsight:
    """Both networks and the losses of a step, two views."""

    def __init__(self, spec: RunSpec, text_width: int, *, upsample_first: bool = False) -> None:
        self.spec = spec
        targets = len(spec.targets)
        self.student = PlainStudent(targets, spec.student_widths, spec.teacher_widths, upsample_first)
        self.teacher = PlainTeacher(targets, spec.teacher_widths, text_width, spec.text_heads, upsample_first)
        self.networks = nn.ModuleDict({"student": self.student, "teacher": self.teacher})

    def loss(self, batch: Batch, progress: float) -> Tensor:
        """Return the sum of the step's losses, drawing what the program's own step draws."""
        spec = self.spec
        rng = np.random.default_rng([spec.seed, 5, batch.step])
        ramp = consistency_ramp(progress, spec.consistency_ramp)
        pasted = cutmix(batch.images, rng)
        with torch.no_grad():
            self.networks.eval()
            said = self.student(batch.images)[0] > 0
            taught = self.teacher(batch.images, batch.text, None)[0] > 0
            self.networks.train()
        hidden = darm_blocks((said != taught).any(1), spec.darm_share, rng)[:, None]
        images = batch.images.masked_fill(hidden, 0.0)
        labels = batch.labels["student"].masked_fill(hidden, IGNORE)
        student, adapted = self.student(images)
        teacher, features = self.teacher(batch.images, batch.text, None)
        mixed = noisy(paste(batch.images, pasted), spec.seed, batch.step)
        other_student, _ = self.student(mixed)
        other_teacher, _ = self.teacher(mixed, batch.text, pasted)
        consistency = confidence_weighted_consistency(
            other_student, other_teacher, spec.cwc_confidence
        ) + confidence_weighted_consistency(other_teacher, other_student, spec.cwc_confidence)
        return (
            known_cross_entropy(student, labels)
            + known_cross_entropy(teacher, batch.labels["teacher"])
            + spec.afc_weight * ramp * cosine_distance(adapted, features)
            + spec.cwc_weight * ramp * consistency
        )
