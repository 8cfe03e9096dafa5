"""The faster forms equal the plain ones in float64 to 1e-9, where they are said to be exact."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from segmentation.dataset import Batch
from segmentation.losses import confident_cross_entropy
from segmentation.methods import make_method
from segmentation.methods.gaze_to_insight import GazeToInsight
from segmentation.networks import Pasted, Text, TextFusion
from tests.benchmarks.plain_step import (
    PlainFusion,
    PlainGazeToInsight,
    PlainUNet,
    confidence_weighted_consistency,
)
from tests.training_helpers import tiny

EXACT: dict[str, Any] = {"rtol": 0, "atol": 1e-9}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def doubled(values: Tensor) -> Tensor:
    return functional.interpolate(values, scale_factor=2, mode="bilinear")


def test_folded_attention_is_the_full_one_with_gradients_under_cutmix_and_without_text() -> None:
    fusion, plain = TextFusion(12, 16, 3).double(), PlainFusion(12, 16, 3).double()
    plain.load_state_dict(fusion.state_dict())
    valid = torch.tensor([[True] * 4, [True, False, True, False], [False] * 4])
    text = Text(torch.randn(3, 4, 16, dtype=torch.float64), valid)
    region = torch.zeros(3, 1, 20, 28, dtype=torch.bool)
    region[:2, :, 3:11, 5:20] = True
    pasted = Pasted(region, torch.tensor([1, 2, 0]))
    weights = torch.randn(3, 12, 10, 14, dtype=torch.float64)
    found = []
    for one in (fusion, plain):
        features = weights.flip(0).clone().requires_grad_()
        said = one(features, text, pasted)
        (said * weights).sum().backward()
        gradients = [features.grad, *(parameter.grad for parameter in one.parameters())]
        found.append([said, *(gradient for gradient in gradients if gradient is not None)])
    assert len(found[0]) == len(found[1]) == 2 + len(list(fusion.parameters()))
    for own, other in zip(*found, strict=True):
        assert torch.allclose(own, other, **EXACT)


def test_doubling_changes_places_with_a_convolution_of_one_pixel_alone() -> None:
    features = torch.randn(2, 6, 8, 8, dtype=torch.float64)
    for size, exact in ((1, True), (3, False)):
        kernel, bias = torch.randn(4, 6, size, size).double(), torch.randn(4).double()

        def convolved(values: Tensor, kernel: Tensor = kernel, bias: Tensor = bias) -> Tensor:
            return functional.conv2d(values, kernel, bias, padding=kernel.shape[2] // 2)

        difference = (doubled(convolved(features)) - convolved(doubled(features))).abs().max()
        assert difference < 1e-9 if exact else difference > 0.1


def test_the_order_of_the_published_decoder_is_another_function_of_the_same_weights() -> None:
    first, second = (PlainUNet(1, (4, 8, 8, 8, 8), order).double() for order in (False, True))
    second.load_state_dict(first.state_dict())
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    one, other = (network.decode(network.encode(images)) for network in (first, second))
    assert one.shape == other.shape and (one - other).abs().max() > 1e-3


def test_confident_cross_entropy_is_confidence_weighted_consistency_for_two_classes() -> None:
    goal = 2 * torch.randn(2, 3, 16, 16, dtype=torch.float64)
    found = []
    for loss in (confident_cross_entropy, confidence_weighted_consistency):
        logits = goal.flip(0).clone().requires_grad_()
        value = loss(logits, goal, 0.8)
        value.backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        found.append((value.detach(), logits.grad))
    assert torch.allclose(found[0][0], found[1][0], **EXACT)
    assert torch.allclose(found[0][1], found[1][1], **EXACT)


def test_a_whole_step_is_the_plain_one_losses_and_gradients() -> None:
    spec = tiny(views="two", batch_size=3, dice_weight=0.0, darm_every=1, consistency_ramp=0.2)
    method = make_method(spec, 16)
    assert isinstance(method, GazeToInsight)
    plain = PlainGazeToInsight(spec, 16)
    plain.networks.load_state_dict(method.networks.state_dict())
    method.networks.double().train()
    plain.networks.double().train()
    levels = torch.randint(0, 3, (3, 1, 32, 32), dtype=torch.uint8)
    batch = Batch(
        step=4,
        index=np.arange(3),
        images=torch.randn(3, 3, 32, 32, dtype=torch.float64),
        labels={
            "student": (levels > 0).to(torch.uint8),
            "teacher": torch.tensor([0, 255, 1], dtype=torch.uint8)[levels.long()],
        },
        text=Text(torch.randn(3, 5, 16, dtype=torch.float64), torch.rand(3, 5) < 0.7),
    )
    total = method.losses(batch, 0.5)["total"]
    expected = plain.loss(batch, 0.5)
    total.backward()  # type: ignore[no-untyped-call]
    expected.backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(total, expected, **EXACT)
    others = dict(plain.networks.named_parameters())
    for name, parameter in method.networks.named_parameters():
        gradient = others[name].grad
        assert parameter.grad is not None and gradient is not None, name
        assert torch.allclose(parameter.grad, gradient, **EXACT), name
