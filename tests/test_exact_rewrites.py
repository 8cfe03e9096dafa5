"""The faster forms equal the plain ones in float64 to 1e-9, where they are said to be exact."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from segmentation import networks, winograd
from segmentation.dataset import Batch
from segmentation.losses import confident_cross_entropy
from segmentation.methods import make_method
from segmentation.methods.gaze_to_insight import GazeToInsight
from segmentation.networks import Pasted, Text, TextFusion
from segmentation.winograd import convolve, transformed
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


def test_winograd_is_the_convolution_with_its_gradients() -> None:
    images = torch.randn(3, 5, 8, 12, dtype=torch.float64).to(memory_format=torch.channels_last)
    weight = torch.randn(7, 5, 3, 3, dtype=torch.float64)
    goal = torch.randn(3, 7, 8, 12, dtype=torch.float64)

    def quick(images: Tensor, weight: Tensor) -> Tensor:
        return convolve(images, weight, transformed(weight.detach(), weight.dtype))

    def plain(images: Tensor, weight: Tensor) -> Tensor:
        return functional.conv2d(images, weight, padding=1)

    found = []
    for one in (quick, plain):
        values = images.clone().requires_grad_(), weight.clone().requires_grad_()
        result = one(*values)
        found.append((result.detach(), *torch.autograd.grad(result, values, goal)))
    for own, other in zip(*found, strict=True):
        assert torch.allclose(own, other, **EXACT)


def test_winograd_in_parts_is_winograd_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    images, weight = torch.randn(4, 6, 6, 6).double().requires_grad_(), torch.randn(5, 6, 3, 3).double()
    weight.requires_grad_()
    found = []
    for chunk in (winograd.CHUNK, 2 * 4 * 6 * 36):
        monkeypatch.setattr(winograd, "CHUNK", chunk)
        result = convolve(images, weight, transformed(weight.detach(), weight.dtype))
        found.append((result, *torch.autograd.grad(result.square().sum(), (images, weight))))
    for own, other in zip(*found, strict=True):
        assert torch.allclose(own, other, **EXACT)


def test_a_convolution_takes_winograds_form_under_bfloat16_alone_and_stays_near(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(winograd, "NARROWEST", 8)
    monkeypatch.setattr(winograd, "LEAST", 0)
    monkeypatch.setattr(winograd, "multiplies_slowly", lambda: True)
    used: list[torch.dtype] = []

    def noted(images: Tensor, weight: Tensor, kernels: Tensor) -> Tensor:
        used.append(images.dtype)
        return convolve(images, weight, kernels)

    monkeypatch.setattr(winograd, "convolve", noted)
    layer, images = winograd.Convolution(8, 8), torch.randn(2, 8, 16, 16)
    expected = layer(images)
    assert not used
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(images)
        layer(images[..., :15])
    assert used == [torch.bfloat16] and found.dtype == torch.bfloat16
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_kernels_are_transformed_once_in_a_step_and_anew_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "NARROWEST", 8)
    monkeypatch.setattr(winograd, "LEAST", 0)
    monkeypatch.setattr(winograd, "multiplies_slowly", lambda: True)
    made: list[Tensor] = []

    def counted(weight: Tensor, dtype: torch.dtype) -> Tensor:
        made.append(weight)
        return transformed(weight, dtype)

    monkeypatch.setattr(winograd, "transformed", counted)
    layer, images = winograd.Convolution(8, 8), torch.randn(2, 8, 16, 16)
    # This optimiser changes weights without a trace in their version.
    optimiser = torch.optim.SGD(layer.parameters(), 0.5, fused=True)
    results = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16), winograd.shared_kernels():
            with torch.no_grad():
                layer(images)
            results.append(layer(images))
        results[-1].float().square().mean().backward()
        optimiser.step()
    assert len(made) == 2
    assert (results[0] - results[1]).abs().max() > 1e-3


@pytest.mark.parametrize("last", [False, True])
def test_the_way_back_through_a_doubling_takes_views(last: bool) -> None:
    features = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    if last:
        features = features.to(memory_format=torch.channels_last)
    other = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    weights = torch.randn(2, 6, 8, 12, dtype=torch.float64)
    found = []
    for one in (networks.doubled, doubled):
        values = features.clone().requires_grad_()
        joint = torch.cat([other, one(values)], dim=1)
        found.append(torch.autograd.grad((joint * weights).sum(), values)[0])
    assert torch.allclose(found[0], found[1], **EXACT)
