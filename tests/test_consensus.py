"""Consensus: STAPLE against an independent slow formulation and its known limits, majority, and what is stored."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from segmentation.consensus import make_consensus
from segmentation.mask_choice import MaskChoice, MaskSelection
from segmentation.staple import majority, staple
from segmentation.study import Mask, Study
from tests.reader_support import SHAPE, command, command_json, disc, make, review

EMPTY = np.zeros(SHAPE, dtype=np.bool_)


def noisy(truth: Mask, sensitivity: float, specificity: float, seed: int) -> Mask:
    """Return what an annotator of these rates says of each pixel."""
    drawn = np.random.default_rng(seed).random(truth.shape)
    mask: Mask = np.where(truth, drawn < sensitivity, drawn >= specificity)
    return mask


def directly(
    masks: list[Mask], iterations: int
) -> tuple[npt.NDArray[np.float64], list[float], list[float], list[float]]:
    """STAPLE as the paper writes it, pixel by pixel, with products of probabilities and no logarithms or patterns.

    Returns the probability (N,), both rates, and the log-likelihood before each iteration.
    """
    pixels = list(zip(*(mask.ravel().tolist() for mask in masks), strict=True))
    prior = sum(sum(said) for said in pixels) / (len(pixels) * len(masks))
    p, q = [0.99] * len(masks), [0.99] * len(masks)
    likelihood, weight = [], [0.0] * len(pixels)
    for _ in range(iterations):
        total = 0.0
        for number, said in enumerate(pixels):
            inside, outside = prior, 1 - prior
            for annotator, one in enumerate(said):
                inside *= p[annotator] if one else 1 - p[annotator]
                outside *= 1 - q[annotator] if one else q[annotator]
            weight[number] = inside / (inside + outside)
            total += math.log(inside + outside)
        likelihood.append(total)
        for annotator in range(len(masks)):
            held = sum(w for w, said in zip(weight, pixels, strict=True) if said[annotator])
            free = sum(1 - w for w, said in zip(weight, pixels, strict=True) if not said[annotator])
            p[annotator] = held / sum(weight)
            q[annotator] = free / (len(weight) - sum(weight))
    return np.array(weight), p, q, likelihood


def test_staple_is_the_papers_em() -> None:
    truth = disc(14, 12, 7, (24, 28))
    rates = ((0.95, 0.97), (0.8, 0.9), (0.9, 0.75))
    masks = [noisy(truth, *rate, seed) for seed, rate in enumerate(rates)]
    # A margin beyond the image: every pixel has its part, as in the formulation beside it.
    found = staple(masks, margin_px=40)
    weight, p, q, likelihood = directly(masks, 400)
    assert found.region_px == truth.size
    assert np.abs(found.probability.ravel() - weight).max() < 1e-5
    assert found.sensitivity == pytest.approx(p, abs=1e-6)
    assert found.specificity == pytest.approx(q, abs=1e-6)
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(likelihood))


def test_staple_finds_the_rates_that_masks_were_drawn_with() -> None:
    truth = disc(100, 80, 50, (160, 200))
    rates = ((0.9, 0.95), (0.85, 0.95), (0.9, 0.9), (0.5, 0.99), (0.55, 0.99))
    masks = [noisy(truth, *rate, seed) for seed, rate in enumerate(rates)]
    found = staple(masks)
    assert found.sensitivity == pytest.approx([rate[0] for rate in rates], abs=0.02)
    assert found.specificity == pytest.approx([rate[1] for rate in rates], abs=0.02)
    wrong = ((found.probability >= 0.5) != truth).mean()
    assert wrong < (majority(masks) != truth).mean() < (masks[0] != truth).mean()


@pytest.mark.parametrize("count", [2, 3, 6])
def test_masks_that_are_all_alike_are_their_own_consensus(count: int) -> None:
    found = staple([disc(20)] * count)
    assert (found.probability == disc(20)).all()
    assert (found.region_px, found.iterations) == (0, 0) and np.isnan(found.sensitivity).all()
    assert (majority([disc(20)] * count) == disc(20)).all()


def test_one_who_says_the_opposite_is_found_out() -> None:
    truth = disc(30, 24, 11)
    masks = [noisy(truth, 0.97, 0.97, 1), noisy(truth, 0.97, 0.97, 2), noisy(truth, 0.97, 0.97, 3), ~truth]
    found = staple(masks)
    assert ((found.probability >= 0.5) == truth).mean() > 0.995
    assert found.sensitivity[3] < 0.02 and found.specificity[3] < 0.02
    assert found.sensitivity[:3].min() > 0.9 and found.specificity[:3].min() > 0.95


def test_an_empty_mask_among_good_ones_has_no_sensitivity() -> None:
    found = staple([disc(30), disc(30.5), EMPTY, disc(29.5)])
    assert found.sensitivity[2] < 1e-6
    assert ((found.probability >= 0.5) == disc(30)).mean() > 0.98


def test_what_nobody_disputes_far_away_changes_nothing() -> None:
    small = [disc(30, 24, radius) for radius in (8, 9, 11)]
    large = [np.pad(mask, 300) for mask in small]
    one, other = staple(small), staple(large)
    assert one.sensitivity == pytest.approx(other.sensitivity) and one.specificity == pytest.approx(
        other.specificity
    )
    assert (other.probability[300:-300, 300:-300] == one.probability).all()


def test_majority_leaves_a_tie_out() -> None:
    assert not majority([disc(20), EMPTY]).any()
    assert (majority([disc(20), disc(20), EMPTY]) == disc(20)).all()
    assert (majority([disc(20), disc(20), EMPTY, EMPTY]) == EMPTY).all()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make(tmp_path / "study")


def test_a_consensus_is_stored_as_a_review_that_counts(study: Study) -> None:
    first, second, third, fourth = study.images
    names = [
        review(study, first, "A", disc(20)),
        review(study, first, "B", disc(22), "second-read"),
        review(study, first, "C", disc(24)),
    ]
    review(study, first, "D", disc(50), "audit")
    for name in "ABC":
        review(study, second, name, EMPTY)
    review(study, third, "A", disc(20))
    review(study, third, "B", EMPTY)
    review(study, fourth, "A", disc(20))
    report = make_consensus(study, "majority")
    assert report.written == {(first, "target"): "present", (second, "target"): "absent"}
    assert report.undecided == {(third, "target"): "the annotators are divided: 1 absent, 1 present"}
    stored = study.reviewed()[first, "target"]
    assert (stored.purpose, stored.annotator, stored.presence) == ("consensus", "consensus", "present")
    assert stored.subject == f"majority: {', '.join(names)}"
    mask = study.reviewed_mask(first, "target")
    assert mask is not None and (mask == majority([disc(20), disc(22), disc(24)])).all()
    assert study.presence(second, "target") == "absent"
    origin = MaskSelection(study, MaskChoice()).masks[first, "target"].origin
    assert (origin.purpose, origin.run) == ("consensus", None), "what it was made of is no run"
    again = make_consensus(study, "majority")
    assert again.as_before == 2 and not again.written
    review(study, first, "B", disc(23), "second-read")
    assert list(make_consensus(study, "majority").written) == [(first, "target")], (
        "a new reading makes it anew"
    )


def test_another_threshold_makes_another_consensus(study: Study) -> None:
    first = next(iter(study.images))
    for name, x in (("A", 20), ("B", 24)):
        review(study, first, name, disc(x))
    make_consensus(study, "staple", threshold=0.3)
    loose = study.reviewed_mask(first, "target")
    assert make_consensus(study, "staple", threshold=0.7).written == {(first, "target"): "present"}
    strict = study.reviewed_mask(first, "target")
    assert loose is not None and strict is not None and strict.sum() < loose.sum()
    assert make_consensus(study, "staple", threshold=0.7).as_before == 1
    make_consensus(study, "majority")
    assert make_consensus(study, "majority", threshold=0.9).as_before == 1, "a majority has none"


def test_an_audit_never_enters_a_consensus(study: Study) -> None:
    first = next(iter(study.images))
    review(study, first, "A", disc(20))
    review(study, first, "B", disc(20), "audit")
    report = make_consensus(study, "staple")
    assert not report.written and not report.undecided
    assert study.reviewed()[first, "target"].annotator == "A"


def test_unsure_annotators_make_no_mask(study: Study) -> None:
    first, second, *_ = study.images
    for name in "AB":
        review(study, first, name, None, presence="ungradable")
        review(study, second, name, None)
    report = make_consensus(study, "majority")
    assert report.written == {(first, "target"): "ungradable"}
    assert report.undecided == {(second, "target"): "nobody said whether the target is there"}
    assert study.reviewed_mask(first, "target") is None
    assert study.reviewed()[first, "target"].verdict == "rejected"


def test_masks_that_share_nothing_are_left_undecided(study: Study) -> None:
    first = next(iter(study.images))
    review(study, first, "A", disc(12, 24, 5))
    review(study, first, "B", disc(50, 24, 5))
    assert list(make_consensus(study, "majority").undecided) == [(first, "target")]


def test_the_command_tells_how_far_each_can_be_relied_on(study: Study) -> None:
    for image_id in study.images:
        for name, x in (("A", 20), ("B", 20.5), ("C", 21), ("D", 34)):
            review(study, image_id, name, disc(x))
    values = command_json("consensus", study.folder, "--method", "staple")
    assert len(values["written"]) == 4
    by_name = {one["annotator"]: one for one in values["annotators"]}
    assert by_name["D"]["sensitivity"] < 0.5 < 0.9 < by_name["B"]["sensitivity"]
    assert by_name["B"]["images"] == 4
    assert command_json("consensus", study.folder, "--method", "staple")["as_before"] == 4
    status, _, error = command("consensus", study.folder, "--method", "majority", "--least", "5")
    assert status == 1 and "No image has been read by 5 annotators yet" in error
