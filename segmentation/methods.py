"""Methods: which networks there are, what labels they learn from, and what losses a batch gives.

The trainer owns the loop, the optimiser and the checkpoints; a method owns its networks. A further method is one
more class here (or a file beside it) and its entry in METHODS.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from gaze_capture.errors import UserError
from segmentation.architectures import make_student, make_teacher
from segmentation.augmentation import SPREAD
from segmentation.dataset import Batch
from segmentation.job import RunSpec
from segmentation.losses import (
    IGNORE,
    confident_cross_entropy,
    consistency_ramp,
    cutmix,
    darm_blocks,
    feature_consistency,
    partial_cross_entropy,
    partial_dice,
    paste,
)
from segmentation.networks import Output, Pasted, Student, Teacher, Text

NOISE = 0.2
"""Mixed images get uniform noise up to this, on values 0..1."""


class Method(ABC):
    """One way to learn; `networks` holds all that is trained and stored, by name."""

    networks: nn.ModuleDict
    labels: Mapping[str, tuple[int, int]]
    """By network: the foreground and background level of its labels."""
    uses_text = False

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec

    @property
    def student(self) -> Student:
        """The network that predicts."""
        student = self.networks["student"]
        assert isinstance(student, Student)
        return student

    @abstractmethod
    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return the losses of a batch at a progress of the run 0..1; the sum, ``total``, is what is minimised."""

    def supervised_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss towards labels: partial cross-entropy and, where asked for, soft Dice."""
        loss = partial_cross_entropy(logits, labels)
        if self.spec.dice_weight:
            loss = loss + self.spec.dice_weight * partial_dice(logits, labels)
        return loss


class OneNetwork(Method):
    """The student alone, learning from its labels: the methods `partial` and `supervised`."""

    def __init__(self, spec: RunSpec, text_width: int = 0) -> None:
        super().__init__(spec)
        self.networks = nn.ModuleDict({"student": make_student(spec, taught=False)})
        self.labels = {"student": spec.student_levels}

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return the loss towards the labels."""
        images, labels = batch.images, batch.labels["student"]
        rng = np.random.default_rng([self.spec.seed, 5, batch.step])
        if self.spec.views == "one" and rng.random() < self.spec.cutmix_share:
            pasted = cutmix(images, rng)
            images, labels = noisy(paste(images, pasted), self.spec.seed, batch.step), paste(labels, pasted)
        return {"total": self.supervised_loss(self.student(images).logits, labels)}


class GazeToInsight(Method):
    """From Gaze to Insight: a teacher that reads the explanation, and a student that sees the image alone.

    Chen et al., IEEE TMI 2025. The teacher learns from the high-confidence levels, the student from the broad one.
    AFC draws the student's features to the teacher's, CWC lets each learn from the other's confident pixels, DARM
    hides from the student part of where they disagree.
    """

    uses_text = True

    def __init__(self, spec: RunSpec, text_width: int) -> None:
        super().__init__(spec)
        self.networks = nn.ModuleDict(
            {"student": make_student(spec), "teacher": make_teacher(spec, text_width)}
        )
        self.labels = {"student": spec.student_levels, "teacher": spec.teacher_levels}

    @property
    def teacher(self) -> Teacher:
        """The network that reads the explanation."""
        teacher = self.networks["teacher"]
        assert isinstance(teacher, Teacher)
        return teacher

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return the labels' losses of both networks, AFC and CWC."""
        spec = self.spec
        if spec.text_dropout:
            batch = without_some_text(batch, spec.text_dropout, spec.seed)
        rng = np.random.default_rng([spec.seed, 5, batch.step])
        ramp = consistency_ramp(progress, spec.consistency_ramp)
        pasted: Pasted | None = cutmix(batch.images, rng)
        mixed: Batch | None = None
        assert pasted is not None
        if spec.views == "two":
            mixed = mixed_batch(batch, pasted, spec.seed)
        elif rng.random() < spec.cutmix_share:
            batch = mixed_batch(batch, pasted, spec.seed)
        else:
            pasted = None
        student_images, student_labels = batch.images, batch.labels["student"]
        # Before the ramp has begun to rise the two disagree about everything.
        if spec.darm_share and batch.step % spec.darm_every == 0 and progress > 0.1 * spec.consistency_ramp:
            shown = None if spec.views == "two" else pasted
            hidden = self.hidden_from_student(batch, shown, rng)
            student_images = student_images.masked_fill(hidden, 0.0)
            student_labels = student_labels.masked_fill(hidden, IGNORE)
        student: Output = self.student(student_images)
        teacher: Output = self.teacher(batch.images, batch.text, None if spec.views == "two" else pasted)
        losses = {
            "student": self.supervised_loss(student.logits, student_labels),
            "teacher": self.supervised_loss(teacher.logits, batch.labels["teacher"]),
        }
        if spec.afc_weight:
            adapted = self.student.adapt(student.features)
            losses["afc"] = spec.afc_weight * ramp * feature_consistency(adapted, teacher.features)
        if spec.cwc_weight:
            if mixed is not None:
                student = self.student(mixed.images)
                teacher = self.teacher(mixed.images, mixed.text, pasted)
            consistency = confident_cross_entropy(
                student.logits, teacher.logits, spec.cwc_confidence
            ) + confident_cross_entropy(teacher.logits, student.logits, spec.cwc_confidence)
            losses["cwc"] = spec.cwc_weight * ramp * consistency
        return {"total": torch.stack(list(losses.values())).sum(), **losses}

    @torch.no_grad()
    def hidden_from_student(self, batch: Batch, pasted: Pasted | None, rng: np.random.Generator) -> Tensor:
        """Return DARM's blocks (B, 1, S, S), from a look at where the networks disagree."""
        self.networks.eval()
        student = self.student(batch.images).logits > 0
        teacher = self.teacher(batch.images, batch.text, pasted).logits > 0
        self.networks.train()
        disagreement = (student != teacher).any(dim=1).cpu().numpy()
        blocks = darm_blocks(disagreement, self.spec.darm_share, rng)
        return torch.from_numpy(blocks).to(batch.images.device)[:, None]


def without_some_text(batch: Batch, share: float, seed: int) -> Batch:
    """Withhold the text of a share of the images, drawn for the step."""
    kept = np.random.default_rng([seed, 7, batch.step]).random(len(batch.index)) >= share
    valid = batch.text.valid & torch.from_numpy(kept).to(batch.text.valid.device)[:, None]
    return dataclasses.replace(batch, text=Text(batch.text.tokens, valid))


def mixed_batch(batch: Batch, pasted: Pasted, seed: int) -> Batch:
    """Return the CutMix'd, noisy look at a batch; its text stays by image, for attention to choose by place."""
    return dataclasses.replace(
        batch,
        images=noisy(paste(batch.images, pasted), seed, batch.step),
        labels={name: paste(labels, pasted) for name, labels in batch.labels.items()},
    )


def noisy(images: Tensor, seed: int, step: int) -> Tensor:
    """Add the noise that belongs to a step to standardised images."""
    generator = torch.Generator(images.device).manual_seed(seed * 1_000_003 + step)
    return images + torch.empty_like(images).uniform_(-NOISE / SPREAD, NOISE / SPREAD, generator=generator)


METHODS: dict[str, type[OneNetwork] | type[GazeToInsight]] = {
    "gaze-to-insight": GazeToInsight,
    "partial": OneNetwork,
    "supervised": OneNetwork,
}


def make_method(spec: RunSpec, text_width: int) -> Method:
    """Build the method a spec names, its networks freshly initialised from the spec's seed.

    Raises
    ------
    UserError
        If there is no such method.
    """
    if spec.method not in METHODS:
        raise UserError(f"There is no method {spec.method!r}; choose one of {', '.join(METHODS)}.")
    if not spec.targets:
        raise UserError("The run names no target to learn; start a new run, which takes all of the study's.")
    torch.manual_seed(spec.seed)
    return METHODS[spec.method](spec, text_width)


def reads_text(spec: RunSpec) -> bool:
    """Whether the spec's method reads explanations at all."""
    return spec.text != "none" and spec.method in METHODS and METHODS[spec.method].uses_text
