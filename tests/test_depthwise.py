"""Depthwise convolutions in bfloat16 on a processor: the same numbers by another way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from segmentation.depthwise import quick_depthwise

CPU = torch.device("cpu")


def step(layer: nn.Module, images: Tensor, *, quick: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer's output, and the gradients of its input and its weight, under bfloat16 autocast."""
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        if quick:
            with quick_depthwise(CPU):
                output = layer(images)
        else:
            output = layer(images)
    weight = next(layer.parameters())
    gradients = torch.autograd.grad(
        (output.float() * torch.cos(output.float().detach())).sum(), (images, weight)
    )
    return output, *gradients


@pytest.mark.parametrize(
    ("kernel", "stride", "bias"), [(3, 2, False), (5, 1, True), (5, 2, False), (7, 1, True)]
)
def test_numbers_are_torchs_own(kernel: int, stride: int, bias: bool) -> None:
    torch.manual_seed(kernel)
    layer = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=8, bias=bias)
    images = torch.randn(2, 8, 12, 12).contiguous(memory_format=torch.channels_last)
    output, *found = step(layer, images, quick=True)
    plain, *expected = step(layer, images, quick=False)
    assert output.grad_fn is not None and plain.grad_fn is not None
    if not bias:
        assert output.grad_fn.name() == "_DepthwiseBackward" != plain.grad_fn.name()
        assert torch.equal(output, plain)
    assert torch.allclose(output.float(), plain.float(), rtol=0.02, atol=0.02)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert torch.linalg.vector_norm(one - other) <= 0.02 * torch.linalg.vector_norm(other)


def test_all_other_convolutions_and_places_are_left_alone() -> None:
    images = torch.randn(2, 8, 12, 12, requires_grad=True)
    depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False)
    with torch.autocast("cpu", torch.bfloat16), quick_depthwise(CPU):
        for layer in (
            nn.Conv2d(8, 8, 5, padding=2),
            nn.Conv2d(8, 8, 5, padding=2, groups=4),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Conv2d(8, 8, 5, padding="same", groups=8),
        ):
            assert layer(images).grad_fn.name() == "ConvolutionBackward0"
        with torch.no_grad(), quick_depthwise(CPU):
            assert depthwise(images).grad_fn is None
    with quick_depthwise(CPU):
        assert depthwise(images).grad_fn.name() == "ConvolutionBackward0"
    with torch.autocast("cpu", torch.bfloat16), quick_depthwise(torch.device("cuda")):
        assert depthwise(images).grad_fn.name() == "ConvolutionBackward0"


def test_double_precision_agrees_with_numerical_gradients() -> None:
    from segmentation.depthwise import _Depthwise

    images = torch.randn(1, 3, 7, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w: _Depthwise.apply(x, w, [1, 1], [1, 1], [1, 1]),  # type: ignore[no-untyped-call]
        (images, weight),
    )
