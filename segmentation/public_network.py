"""Student and teacher as the public code of From Gaze to Insight builds them, for checkpoints made with it.

Written from what that code describes (jingkunchen/FGI, models/unet.py, whose U-Net is MONAI's BasicUNet): group norms,
leaky rectifiers, transposed convolutions upwards, text added at full weight, blocks of 1x1 convolutions between the
two. They have one target: the published logits of background and foreground were trained on the second
alone. Adjacent 1x1 convolutions at the head are folded into one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gaze_capture.errors import UserError
from segmentation.augmentation import MEAN, SPREAD
from segmentation.networks import Output, Pasted, Student, Teacher, Text, UNet

STUDENT_WIDTHS: tuple[int, ...] = (32, 64, 128, 256, 512)
TEACHER_WIDTHS: tuple[int, ...] = (64, 128, 256, 512, 1024)
LAST = {STUDENT_WIDTHS: 32, TEACHER_WIDTHS: 128}
"""Width of the last features before the head."""
HEAD_WIDTH = 128
HEADS, GROUPS, SLOPE = 8, 4, 0.1
SIDE = 224
"""Image side that the positions were learned for; they are interpolated to any other."""

_IMAGE_MEAN, _IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _two(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (before, after):
        layers += [
            nn.Conv2d(inputs, after, 3, padding=1),
            nn.GroupNorm(GROUPS, after),
            nn.LeakyReLU(SLOPE, True),
        ]
    return nn.Sequential(*layers)


def _projection(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(True),
        nn.Conv2d(width, width, 1),
        nn.BatchNorm2d(width),
    )


def _rebuild(network: UNet, widths: tuple[int, ...], channels: int) -> None:
    """Give a U-Net the published encoder, decoder and head."""
    network.encoder = nn.ModuleList(
        _two(before, after) for before, after in itertools.pairwise((channels, *widths))
    )
    network.rise, network.decoder = nn.ModuleList(), nn.ModuleList()
    for scale, (narrow, wide) in enumerate(itertools.pairwise(widths)):
        # On the full grid, features keep the width of the scale below.
        risen, result = (narrow, narrow) if scale else (wide, LAST[widths])
        network.rise.append(nn.ConvTranspose2d(wide, risen, 2, stride=2))
        network.decoder.append(_two(narrow + risen, result))
    network.head = nn.Sequential(  # type: ignore[assignment]
        nn.Conv2d(LAST[widths], HEAD_WIDTH, 1), nn.LeakyReLU(SLOPE, True), nn.Conv2d(HEAD_WIDTH, 1, 1)
    )


def _encoded(encoder: nn.Module, images: Tensor, channels: int) -> list[Tensor]:
    """Normalise images as the public code does, colour by fixed numbers and grey each by its own, and encode them."""
    if channels == 1:
        images = images.mean(1, keepdim=True)
        std, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True, correction=0)
        images = (images - mean) / std.where(std > 0, 1)
    else:
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (_IMAGE_MEAN, _IMAGE_STD))
        images = (images * SPREAD + MEAN - mean) / std
    features: list[Tensor] = []
    for block in encoder.children():
        images = block(functional.max_pool2d(images, 2) if features else images)
        features.append(images)
    return features


def _decoded(network: UNet, features: Sequence[Tensor]) -> Tensor:
    result = features[-1]
    for scale in range(len(features) - 2, -1, -1):
        risen = network.rise[scale](result)
        result = network.decoder[scale](torch.cat([features[scale], risen], dim=1))
    logits: Tensor = network.head(result)
    return logits


class PublicStudent(Student):
    """The published student for images of 3 channels or 1."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, STUDENT_WIDTHS)
        self.channels = channels
        _rebuild(self, STUDENT_WIDTHS, channels)
        self.adapters = nn.ModuleList(
            nn.Sequential(_projection(own), nn.Conv2d(own, theirs, 1), nn.BatchNorm2d(theirs), nn.ReLU(True))
            for own, theirs in zip(STUDENT_WIDTHS[1:], TEACHER_WIDTHS[1:], strict=True)
        )

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the features at all scales, finest first."""
        return _encoded(self.encoder, images, self.channels)

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, 1, S, S) from the features at all scales."""
        return _decoded(self, features)


class PublicFusion(nn.Module):
    """The published attention of one scale's features to the text; like `TextFusion` it has a null token."""

    strength: Tensor

    def __init__(self, width: int, side: int, text_width: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, width, side, side) * 0.02)
        self.text = nn.Linear(text_width, width)
        self.attend = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.norm = nn.LayerNorm(width)
        # What the text says is added as it is: the lambda of the paper is missing.
        self.register_buffer("strength", torch.ones(1), persistent=False)

    def forward(self, features: Tensor, text: Text) -> Tensor:
        """Return what is added to features (B, C, h, w)."""
        placed = self._placed(features)
        tokens, closed = self._tokens(text)
        said, _ = self.attend(placed, tokens, tokens, key_padding_mask=closed, need_weights=False)
        fused: Tensor = self.norm(placed + said)
        return fused.transpose(1, 2).reshape(features.shape)

    def attention(self, features: Tensor, text: Text) -> Tensor:
        """Return the attention (B, 1 + L, h, w) of features to the null token and the text's, the mean over heads."""
        tokens, closed = self._tokens(text)
        _, weights = self.attend(self._placed(features), tokens, tokens, key_padding_mask=closed)
        shares: Tensor = weights.transpose(1, 2).reshape(len(features), -1, *features.shape[2:])
        return shares

    def _placed(self, features: Tensor) -> Tensor:
        positions: Tensor = self.positions
        if positions.shape[2:] != features.shape[2:]:
            positions = functional.interpolate(positions, features.shape[2:], mode="bilinear")
        return (features + positions).flatten(2).transpose(1, 2)

    def _tokens(self, text: Text) -> tuple[Tensor, Tensor]:
        """Return text tokens after a null token (B, 1 + L, C), and which of them are closed (B, 1 + L)."""
        if text.tokens.shape[2] != self.text.in_features:
            raise UserError(
                f"The imported teacher reads {self.text.in_features} numbers a token, but the text here has "
                f"{text.tokens.shape[2]}; predict with its student, which reads none."
            )
        said = self.text(text.tokens)
        some = text.valid.any(dim=1, keepdim=True)
        return torch.cat([torch.zeros_like(said[:, :1]), said], 1), torch.cat([some, ~text.valid], 1)


class PublicTeacher(Teacher):
    """The published teacher for images of 3 channels or 1."""

    def __init__(self, channels: int, text_width: int) -> None:
        super().__init__(1, TEACHER_WIDTHS, text_width, HEADS)
        self.channels = channels
        _rebuild(self, TEACHER_WIDTHS, channels)
        widths = TEACHER_WIDTHS[1:]
        self.fusions = nn.ModuleList(
            PublicFusion(width, SIDE // 2 ** (scale + 1), text_width) for scale, width in enumerate(widths)
        )
        self.projections = nn.ModuleList(_projection(width) for width in widths)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the features at all scales, finest first."""
        return _encoded(self.encoder, images, self.channels)

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, 1, S, S) from the features at all scales."""
        return _decoded(self, features)

    def forward(self, images: Tensor, text: Text, pasted: Pasted | None = None) -> Output:  # type: ignore[override]
        """Segment images with the help of their explanations; a mixed image reads its own text everywhere."""
        finest, *features = self.encode(images)
        taught = [
            projection(feature + fusion(feature, text))
            for feature, fusion, projection in zip(features, self.fusions, self.projections, strict=True)
        ]
        joined = [feature + one for feature, one in zip(features, taught, strict=True)]
        return Output(self.decode([finest, *joined]), taught)
