import copy

import pytest
import torch
from torch import nn

from segmentation.lean import Lean
from segmentation.networks import Student


def lived_in(widths: tuple[int, ...], targets: int = 2) -> Student:
    """Return a student whose normalisations have seen data, so that folding them matters."""
    torch.manual_seed(3)
    student = Student(targets, widths, (0, 8, 8, 8, 8))
    for layer in student.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.3, 3.0)  # type: ignore[union-attr]
            nn.init.uniform_(layer.weight, -2, 2)
            nn.init.uniform_(layer.bias, -1, 1)
    return student.eval()


BOTH = pytest.mark.parametrize("widths", [(4, 8, 8, 12, 16), (0, 8, 8, 12, 16, 20)])


@BOTH
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@torch.inference_mode()
def test_the_lean_student_is_the_same_function(
    widths: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    student = lived_in(widths).to(dtype)
    images = torch.randn(3, 3, 64, 96, dtype=dtype)
    expected = student(images).logits
    found = Lean(student, dtype)(images)
    assert found.dtype == dtype
    assert expected.std() > 0.01
    assert (found - expected).abs().max() < tolerance * max(1.0, float(expected.abs().max()))


@BOTH
def test_nothing_is_left_that_no_mask_needs(widths: tuple[int, ...]) -> None:
    student = lived_in(widths)
    before = copy.deepcopy(student.state_dict())
    slim = Lean(student)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in slim.modules())
    assert not any("adapters" in name for name in slim.state_dict())
    assert not any(parameter.requires_grad for parameter in slim.parameters())
    # The student itself can be trained on.
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert len(student.adapters) == 4
    assert all(parameter.requires_grad for parameter in student.parameters())


@torch.inference_mode()
def test_half_precision_decides_nearly_every_pixel_alike() -> None:
    student = lived_in((4, 8, 8, 12, 16))
    images = torch.randn(2, 3, 64, 64)
    expected = student(images).logits
    found = Lean(student, torch.bfloat16)(images)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    assert ((found > 0) == (expected > 0)).float().mean() > 0.98
