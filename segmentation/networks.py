"""The networks: a U-Net, the student built on it, and the teacher that also reads an explanation.

Images are (B, 3, S, S), float, roughly standardised, S a multiple of the coarsest scale (16 for five widths); logits
are (B, T, S, S), one channel per target. Features are those of the encoder's four coarsest scales: 1/2, 1/4, 1/8 and
1/16 of the image for five widths. An encoder of another make (`segmentation.backbones`) can take the place of a
U-Net's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from segmentation.winograd import Convolution

POSITION_GRID = 16
"""Side of the learned grid of positions, interpolated to whatever the features' size is."""


class Output(NamedTuple):
    """What a network says about a batch."""

    logits: Tensor
    """(B, T, S, S)"""
    features: list[Tensor]
    """Four tensors (B, C, S/2**i, S/2**i), finest first; i = 1..4 for five widths."""


class Text(NamedTuple):
    """The explanations of a batch, one token per attribute phrase."""

    tokens: Tensor
    """(B, L, D) phrase embeddings; padding is zero."""
    valid: Tensor
    """(B, L) bool, False where a token is padding."""


class Pasted(NamedTuple):
    """Where a mixed image shows another image of the batch, whose text holds there."""

    region: Tensor
    """(B, 1, S, S) bool"""
    source: Tensor
    """(B,) index of the image pasted in."""


def convolutions(*widths: int) -> nn.Sequential:
    """Return 3x3 convolutions from width to width, each normalised and rectified."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [Convolution(before, after), nn.BatchNorm2d(after), nn.ReLU(True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """A U-Net with one width per scale, five or more, from the full grid downwards.

    A first width of 0 makes it compact: the full grid is left out (the 12 values of each 2 x 2 square go to the scale
    1/2 at once, and logits rise from there), and each scale of the decoder has one convolution. That is a third of the
    work.

    The convolution on the decoder's way up comes before its bilinear doubling: the same weights and a quarter of the
    work, but not the same function (only a 1 x 1 convolution may change places with the doubling).

    Parameters
    ----------
    encoder : takes the place of the own one; images of any size -> features of these widths at all scales
    """

    def __init__(self, targets: int, widths: Sequence[int], encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.compact = widths[0] == 0
        own = widths[1:] if self.compact else widths
        inputs = 12 if self.compact else 3
        self.encoder = encoder or nn.ModuleList(
            convolutions(before, after, after) for before, after in zip((inputs, *own[:-1]), own, strict=True)
        )
        self.rise = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for narrow, wide in itertools.pairwise(own):
            self.rise.append(convolutions(wide, narrow))
            self.decoder.append(convolutions(2 * narrow, *(narrow,) * (1 if self.compact else 2)))
        self.head = nn.Conv2d(own[0], targets, 1)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the features at all scales, finest first."""
        if not isinstance(self.encoder, nn.ModuleList):
            return list(self.encoder(images))
        if self.compact:
            images = functional.pixel_unshuffle(images, 2)
        features: list[Tensor] = []
        for block in self.encoder:
            images = block(functional.max_pool2d(images, 2) if features else images)
            features.append(images)
        return features

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, T, S, S) from the features at all scales."""
        return self.read(self.stages(features)[-1])

    def stages(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return what each stage of the decoder makes of the features at all scales, coarsest first."""
        results = [features[-1]]
        for scale in range(len(features) - 2, -1, -1):
            risen = doubled(self.rise[scale](results[-1]))
            results.append(self.decoder[scale](torch.cat([features[scale], risen], dim=1)))
        return results[1:]

    def read(self, features: Tensor) -> Tensor:
        """Return logits (B, T, S, S) from the features of the decoder's last stage."""
        logits: Tensor = self.head(features)
        return doubled(logits) if self.compact else logits

    def forward(self, images: Tensor) -> Output:
        """Segment images."""
        features = self.encode(images)
        return Output(as_large(self.decode(features), images), features[-4:])


def as_large(logits: Tensor, images: Tensor) -> Tensor:
    """Bring logits to the images' grid, which an encoder of another make may have had to enlarge."""
    size = images.shape[2:]
    return logits if logits.shape[2:] == size else functional.interpolate(logits, size, mode="bilinear")


def doubled(features: Tensor) -> Tensor:
    """Enlarge features (B, C, h, w) to twice their sides, bilinearly."""
    result = functional.interpolate(features, scale_factor=2, mode="bilinear")
    if result.requires_grad and result.device.type == "cpu" and not torch.compiler.is_compiling():
        result.register_hook(_whole)  # type: ignore[no-untyped-call]
    return result


def _whole(gradient: Tensor) -> Tensor:
    """Copy a view of a joint gradient: with that the way back through a doubling takes nine times as long."""
    last = gradient.stride(1) == 1
    return gradient.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


class Student(UNet):
    """A U-Net that sees the image alone; its adapters project its features to the teacher's widths."""

    def __init__(
        self,
        targets: int,
        widths: Sequence[int],
        teacher_widths: Sequence[int] = (),
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__(targets, widths, encoder)
        # No ReLU behind them: the teacher's features, their goal, are signed.
        self.adapters = nn.ModuleList(
            nn.Conv2d(own, theirs, 1) for own, theirs in zip(widths[-4:], teacher_widths[-4:], strict=False)
        )

    def adapt(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Project the features at the four scales to the teacher's widths."""
        return [adapter(feature) for adapter, feature in zip(self.adapters, features, strict=True)]


class TextFusion(nn.Module):
    """Lets the features of one scale attend to the explanation's tokens.

    Queries are image tokens, keys and values text tokens. With a single text token attention is the same
    everywhere, so that an explanation should bring several; an image without one attends to a learned null token.
    """

    def __init__(self, width: int, text_width: int, heads: int, strength: float = 0.1) -> None:
        super().__init__()
        while width % heads:
            heads -= 1
        self.heads = heads
        self.positions = nn.Parameter(torch.randn(1, width, POSITION_GRID, POSITION_GRID) * 0.02)
        self.null = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.text = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, width))
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.out_norm = nn.LayerNorm(width)
        self.strength = nn.Parameter(torch.full((1,), strength))
        """The lambda that weighs what the text says at this scale."""

    def forward(self, features: Tensor, text: Text, pasted: Pasted | None = None) -> Tensor:
        """Return features (B, C, h, w) to which the text (B, L, D) has been added."""
        height, breadth = features.shape[2:]
        tokens, allowed = self._tokens(text)
        mask = allowed[:, :, None]
        if pasted is not None:
            tokens = torch.cat([tokens, tokens[pasted.source]], dim=1)
            region = functional.interpolate(pasted.region.to(features.dtype), (height, breadth)) > 0.5
            inside = region.flatten(2)
            mask = torch.cat([~inside & mask, inside & mask[pasted.source]], dim=1)
        # The strength goes into the norm's own weights, which are fewer than what it says.
        weight, bias = self.strength * self.out_norm.weight, self.strength * self.out_norm.bias
        attended = self._attend(self._placed(features), tokens, mask)
        said = functional.layer_norm(attended, weight.shape, weight, bias, self.out_norm.eps)
        image = features.permute(0, 2, 3, 1)
        # Under autocast norms answer in float32, which all of the decoder would then be computed from.
        fused: Tensor = image + said.to(image.dtype).view(image.shape)
        return fused.permute(0, 3, 1, 2)

    def _attend(self, image: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Multi-head attention of image tokens (B, C, N) to text tokens (B, L, C), exactly, but cheaper.

        Tokens are few: the query's weights are folded into the keys and the output's into the values, so that the image
        meets one narrow matrix on each side instead of two wide ones. `mask` is (B, L, 1 or N); gives (B, N, C).
        """
        width = tokens.shape[2]
        key, value = self._keys_and_values(tokens)
        out_of = torch.einsum("blhe,dhe->bhld", value, self.out.weight.reshape(width, self.heads, -1))
        weights = self._weights(image, key, mask)
        return torch.bmm(weights.flatten(1, 2).transpose(1, 2), out_of.flatten(1, 2)) + self.out.bias

    def _keys_and_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, L, heads, C / heads) of text tokens (B, L, C)."""
        key, value = self.key_value(tokens).reshape(*tokens.shape[:2], 2, self.heads, -1).unbind(2)
        return key, value

    def _weights(self, image: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """Return how much of each text token each image token reads: (B, heads, L, N), summing to 1 over tokens."""
        query_weight = self.query.weight.reshape(self.heads, -1, image.shape[1]) * key.shape[3] ** -0.5
        into = torch.einsum("blhe,hed->bhld", key, query_weight)
        scores = torch.bmm(into.flatten(1, 2), image.to(into.dtype))
        scores = scores.view(len(image), self.heads, key.shape[1], -1)
        scores = scores.masked_fill(~mask[:, None], float("-inf"))
        return scores.softmax(dim=2).to(scores.dtype)

    def attention(self, features: Tensor, text: Text) -> Tensor:
        """Return the attention (B, 1 + L, h, w) of features to the null token and the text's, the mean over heads."""
        tokens, allowed = self._tokens(text)
        key, _ = self._keys_and_values(tokens)
        weights = self._weights(self._placed(features), key, allowed[:, :, None])
        return weights.mean(1).view(*weights.shape[:3:2], *features.shape[2:])

    def _placed(self, features: Tensor) -> Tensor:
        """Return image tokens (B, C, N) that know where they are."""
        positions = functional.interpolate(self.positions, features.shape[2:], mode="bilinear")
        # Of features with channels last this order of axes is a view; flattened as they are they would be copied.
        placed = (features + positions.to(features.dtype)).permute(0, 2, 3, 1)
        return placed.flatten(1, 2).transpose(1, 2)

    def _tokens(self, text: Text) -> tuple[Tensor, Tensor]:
        """Project the text and put the null token before it, open only where there is nothing else."""
        empty = ~text.valid.any(dim=1, keepdim=True)
        null = self.null.expand(len(empty), -1, -1)
        projected = self.text(text.tokens)
        projected = projected + self.mlp(projected)
        return torch.cat([null.to(projected.dtype), projected], dim=1), torch.cat([empty, text.valid], dim=1)


class _Unfused(nn.Module):
    """Stands where a scale reads no text."""

    def forward(self, features: Tensor, text: Text, pasted: Pasted | None = None) -> Tensor:
        """Return the features as they are."""
        return features


class Teacher(UNet):
    """A U-Net whose features at the four scales attend to the explanation of the image."""

    def __init__(
        self,
        targets: int,
        widths: Sequence[int],
        text_width: int,
        heads: int = 8,
        text_strength: float = 0.1,
        scales: Sequence[int] = (1, 2, 3, 4),
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__(targets, widths, encoder)
        # What is left out keeps its place, so that a scale's weights have one name.
        self.fusions = nn.ModuleList(
            TextFusion(width, text_width, heads, text_strength) if scale in scales else _Unfused()
            for scale, width in enumerate(widths[-4:], 1)
        )

    def forward(self, images: Tensor, text: Text, pasted: Pasted | None = None) -> Output:  # type: ignore[override]
        """Segment images with the help of their explanations."""
        features = self.encode(images)
        fused = [
            fusion(feature, text, pasted) for fusion, feature in zip(self.fusions, features[-4:], strict=True)
        ]
        return Output(as_large(self.decode([*features[:-4], *fused]), images), fused)

    def attention(self, images: Tensor, text: Text) -> list[Tensor]:
        """Return how much of each token each place reads, (B, 1 + L, h, w) at each scale that reads, finest first.

        The first token is the null token, read where an image has no other. At every place the tokens sum to 1.
        """
        features = self.encode(images)[-4:]
        return [
            fusion.attention(feature, text)
            for fusion, feature in zip(self.fusions, features, strict=True)
            if isinstance(fusion, TextFusion)
        ]

    def strengths(self) -> list[float]:
        """Return the lambda of each scale that reads, finest first: how much of what the text says is added there."""
        return [float(fusion.strength.detach()) for fusion in self.fusions if isinstance(fusion, TextFusion)]


def count_parameters(network: nn.Module) -> int:
    """Return how many numbers training adjusts in a network."""
    return sum(parameter.numel() for parameter in network.parameters())
