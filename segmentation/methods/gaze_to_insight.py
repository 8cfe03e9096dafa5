"""The method `gaze-to-insight`: a teacher that reads the explanation and a student that sees the image alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from segmentation.architectures import make_student, make_teacher
from segmentation.dataset import Batch
from segmentation.job import RunSpec
from segmentation.losses import (
    IGNORE,
    beside,
    confident_cross_entropy,
    consistency_ramp,
    cutmix,
    darm_blocks,
    feature_consistency,
)
from segmentation.methods.base import Method, mixed_batch, summed
from segmentation.networks import Output, Pasted, Student, Teacher, Text, TextFusion


class GazeToInsight(Method):
    """From Gaze to Insight: a teacher that reads the explanation, and a student that sees the image alone.

    Chen et al., IEEE TMI 2025. The teacher learns from the high-confidence levels, the student from the broad one.
    AFC draws the student's features to the teacher's, CWC lets each learn from the other's confident pixels, DARM
    hides from the student part of where they disagree.
    """

    uses_text = True

    def __init__(self, spec: RunSpec, text_width: int = 0) -> None:
        super().__init__(spec)
        self.networks = nn.ModuleDict(
            {
                "student": make_student(spec),
                "teacher": make_teacher(spec, text_width),
            }
        )
        if spec.text_strength_fixed:
            for fusion in self.teacher.fusions:
                if isinstance(fusion, TextFusion):
                    fusion.strength.requires_grad_(False)
        self.labels = {"student": spec.student_levels, "teacher": spec.teacher_levels}

    @property
    def student(self) -> Student:
        """The network that sees the image alone, and predicts."""
        student = self.networks["student"]
        assert isinstance(student, Student)
        return student

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
        pasted: Pasted | None = cutmix(batch.images, rng, batch.rows)
        mixed: Batch | None = None
        assert pasted is not None
        if spec.views == "two":
            mixed = mixed_batch(batch, pasted, spec.seed)
        elif rng.random() < spec.cutmix_share:
            batch = mixed_batch(batch, pasted, spec.seed)
        else:
            pasted = None
        student_images, student_labels = batch.images, batch.labels["student"]
        if self.hides(batch.step, progress):
            shown = None if spec.views == "two" else pasted
            hidden = self.hidden_from_student(batch, shown, rng)
            student_images = student_images.masked_fill(hidden, 0.0)
            told = IGNORE if spec.darm_label == "ignore" else 0
            student_labels = student_labels.masked_fill(hidden, told)
        student: Output = self.student(student_images)
        teacher: Output = self.teacher(batch.images, batch.text, None if spec.views == "two" else pasted)
        losses = {
            "student": self.supervised_loss(student.logits, student_labels),
            "teacher": self.supervised_loss(teacher.logits, batch.labels["teacher"]),
        }
        if spec.afc_weight:
            adapted = self.student.adapt(student.features)
            if spec.afc_rectified:
                adapted = [feature.relu() for feature in adapted]
            losses["afc"] = spec.afc_weight * ramp * feature_consistency(adapted, teacher.features)
        if spec.cwc_weight:
            if mixed is not None:
                student = self.student(mixed.images)
                teacher = self.teacher(mixed.images, mixed.text, pasted)
            own, theirs = student.logits * spec.cwc_logit_scale, teacher.logits * spec.cwc_logit_scale
            consistency = confident_cross_entropy(own, theirs, spec.cwc_confidence) + confident_cross_entropy(
                theirs, own, spec.cwc_confidence
            )
            losses["cwc"] = spec.cwc_weight * ramp * consistency
        return summed(losses)

    def hides(self, step: int, progress: float) -> bool:
        """Whether DARM is at work in a step."""
        spec = self.spec
        if not spec.darm_share or step % spec.darm_every:
            return False
        # Before the ramp has begun to rise the two networks disagree about everything.
        return spec.darm_from == "labels" or progress > 0.1 * spec.consistency_ramp

    @torch.no_grad()
    def hidden_from_student(self, batch: Batch, pasted: Pasted | None, rng: np.random.Generator) -> Tensor:
        """Return DARM's blocks (B, 1, S, S), from a look at where the networks, or their labels, disagree."""
        if self.spec.darm_from == "labels":
            student, teacher = batch.labels["student"], batch.labels["teacher"]
            apart = (student != teacher) & (student != IGNORE) & (teacher != IGNORE)
        else:
            self.networks.eval()
            apart = (self.student(batch.images).logits > 0) != (
                self.teacher(batch.images, batch.text, pasted).logits > 0
            )
            self.networks.train()
        blocks = darm_blocks(apart.any(dim=1), self.spec.darm_share, rng, rows=batch.rows)
        return blocks[:, None]


def without_some_text(batch: Batch, share: float, seed: int) -> Batch:
    """Withhold the text of a share of the images, drawn for the step."""
    count = len(batch.index)
    drawn = np.random.default_rng([seed, 7, batch.step]).random(batch.rows.of(count))
    kept = batch.rows.own(drawn, count) >= share
    valid = batch.text.valid & beside(batch.text.valid, kept)[:, None]
    return dataclasses.replace(batch, text=Text(batch.text.tokens, valid))
