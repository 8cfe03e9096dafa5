import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from segmentation.losses import (
    IGNORE,
    confident_cross_entropy,
    consistency_ramp,
    cutmix,
    darm_blocks,
    feature_consistency,
    hard_dice,
    partial_cross_entropy,
    partial_dice,
    paste,
)


def test_partial_cross_entropy_counts_known_pixels_only() -> None:
    logits = torch.tensor([[[[2.0, -1.0], [50.0, 0.5]]]], requires_grad=True)
    labels = torch.tensor([[[[1, 0], [IGNORE, 1]]]], dtype=torch.uint8)
    loss = partial_cross_entropy(logits, labels)
    known = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1.0, 0.0, 1.0])
    assert loss.item() == pytest.approx(functional.binary_cross_entropy_with_logits(*known).item())
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and logits.grad[0, 0, 1, 0] == 0


def test_losses_of_nothing_known_are_zero_and_harmless() -> None:
    logits = torch.randn(2, 1, 4, 4, requires_grad=True)
    labels = torch.full((2, 1, 4, 4), IGNORE, dtype=torch.uint8)
    loss = partial_cross_entropy(logits, labels) + partial_dice(logits, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_partial_dice_is_zero_for_perfect_and_near_one_for_inverted() -> None:
    labels = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    labels[..., 4:12, 4:12] = 1
    sure = (labels.float() * 2 - 1) * 50
    assert partial_dice(sure, labels).item() == pytest.approx(0, abs=1e-5)
    assert partial_dice(-sure, labels).item() > 0.99
    labels[..., :, 12:] = IGNORE
    assert partial_dice(sure, labels).item() == pytest.approx(0, abs=1e-5)


def test_feature_consistency_equals_cosine_and_spares_the_goal() -> None:
    own = [torch.randn(2, 5, 4, 4, requires_grad=True), torch.randn(2, 7, 2, 2, requires_grad=True)]
    goals = [torch.randn_like(feature, requires_grad=True) for feature in own]
    loss = feature_consistency(own, goals)
    expected = [1 - functional.cosine_similarity(a, b, dim=1).mean() for a, b in zip(own, goals, strict=True)]
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item(), abs=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert own[0].grad is not None and goals[0].grad is None


def test_confident_cross_entropy_is_cross_entropy_on_confident_pixels() -> None:
    logits, goal = (
        torch.randn(2, 1, 8, 8, requires_grad=True),
        torch.randn(2, 1, 8, 8, requires_grad=True) * 3,
    )
    probability = goal.detach().sigmoid()
    confident = (probability >= 0.8) | (probability <= 0.2)
    assert 0 < confident.sum() < confident.numel()
    expected = functional.binary_cross_entropy_with_logits(
        logits.detach()[confident], (probability[confident] > 0.5).float()
    )
    assert confident_cross_entropy(logits, goal, 0.8).item() == pytest.approx(expected.item(), abs=1e-6)


def test_ramp_rises_from_almost_nothing_to_one() -> None:
    assert consistency_ramp(0, 0.25) == pytest.approx(math.exp(-5))
    assert consistency_ramp(0.125, 0.25) == pytest.approx(math.exp(-5 / 4))
    assert consistency_ramp(0.25, 0.25) == consistency_ramp(0.9, 0.25) == consistency_ramp(0, 0) == 1


def test_cutmix_pastes_each_rectangle_from_another_image() -> None:
    images = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 3, 32, 32)
    pasted = cutmix(images, np.random.default_rng(0))
    assert (pasted.source != torch.arange(6)).all()
    mixed = paste(images, pasted)
    for index in range(6):
        region = pasted.region[index, 0]
        assert (mixed[index, :, region] == pasted.source[index]).all()
        assert (mixed[index, :, ~region] == index).all()
        rows, columns = region.any(1).sum(), region.any(0).sum()
        assert region.sum() == rows * columns > 0


def test_cutmix_shares_follow_beta() -> None:
    images = torch.zeros(400, 1, 64, 64)
    shares = cutmix(images, np.random.default_rng(1)).region.float().mean((1, 2, 3)).numpy()
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.std() == pytest.approx(math.sqrt(16 / (64 * 9)), abs=0.03)


def test_darm_covers_the_share_by_area_and_starts_from_disagreement() -> None:
    disagreement = torch.zeros(3, 96, 96, dtype=torch.bool)
    disagreement[0, 20:60, 10:70] = True
    disagreement[1, 40:42, 40:42] = True
    blocks = darm_blocks(disagreement, 0.3, np.random.default_rng(0))
    assert 0.3 * 2400 <= blocks[0].sum() < 0.3 * 2400 + 100
    # Blocks are centred on disagreement, so that none lies further out than half a block.
    assert not blocks[0, :15].any() and not blocks[0, 65:].any()
    assert not blocks[0, :, :5].any() and not blocks[0, :, 75:].any()
    assert not blocks[1].any() and not blocks[2].any()


@pytest.mark.parametrize("side", [3, 4, 5, 6, 7, 8, 9, 10])
def test_a_darm_block_is_a_square_around_its_centre(side: int) -> None:
    lone = torch.zeros(1, 32, 32, dtype=torch.bool)
    lone[0, 15, 20] = True
    [block] = darm_blocks(lone, side**2, np.random.default_rng(0), (side, side))
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[15 - side // 2 :, 20 - side // 2 :][:side, :side] = True
    assert torch.equal(block, expected)


def test_darm_blocks_have_all_sides_and_small_goals_small_ones() -> None:
    # Far apart, so that every block is seen whole.
    lattice = torch.zeros(1, 320, 320, dtype=torch.bool)
    lattice[0, 10::20, 10::20] = True
    blocks = darm_blocks(lattice, 30.0, np.random.default_rng(3))[0].reshape(16, 20, 16, 20)
    areas = blocks.sum((1, 3)).flatten()
    assert set(areas[areas > 0].tolist()) == {side**2 for side in range(3, 11)}
    little = torch.zeros(64, 96, 96, dtype=torch.bool)
    little[:, 40:46, 40:47] = True
    areas = darm_blocks(little, 0.3, np.random.default_rng(0)).sum((1, 2))
    assert areas.min() >= 0.3 * 42 and areas.max() < 0.3 * 42 + 16


def test_darm_differs_from_seed_to_seed_and_not_within_one() -> None:
    disagreement = torch.ones(1, 64, 64, dtype=torch.bool)
    first, again, other = (darm_blocks(disagreement, 0.3, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_hard_dice() -> None:
    one, none = np.ones((1, 4, 4), bool), np.zeros((1, 4, 4), bool)
    half = one.copy()
    half[:, 2:] = False
    assert hard_dice(np.stack([one, none, half]), np.stack([one, none, one])).ravel() == pytest.approx(
        [1, 1, 2 / 3]
    )
