"""Intervals of a mean by resampling whole groups (patients, sequences), and seeds where there are several."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

REPLICATES = 4000


class Interval(NamedTuple):
    """A mean with its 95 % percentile interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside of the interval."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def clustered_interval(
    values: npt.NDArray[np.float64], groups: Sequence[str], *, replicates: int = REPLICATES, seed: int = 0
) -> Interval:
    """Return the mean of values and its interval under resampling of groups and of seeds.

    Parameters
    ----------
    values
        (N,) one value an item, or (S, N) for S seeds; differences for a paired comparison.
    groups
        (N,) the group of each item; items of a group come and go together.

    Returns
    -------
    NaN throughout where there is nothing, NaN bounds where there is one group only.
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if not table.size:
        return Interval(math.nan, math.nan, math.nan)
    means = _resampled(table, groups, replicates, seed)
    if means is None:
        return Interval(float(table.mean()), math.nan, math.nan)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(table.mean()), float(low), float(high))


def clustered_statistic(
    counts: npt.NDArray[np.float64],
    groups: Sequence[str],
    statistic: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Interval:
    """Return a statistic of summed counts, such as a kappa, and its interval under resampling of groups.

    Parameters
    ----------
    counts
        (N, K) what each item adds.
    groups
        (N,) the group of each item.
    statistic
        Of sums (R, K) to values (R,); NaN where it is not defined, which replicates leave out.

    Returns
    -------
    NaN throughout where there is nothing, NaN bounds where there is one group only.
    """
    if not len(counts):
        return Interval(math.nan, math.nan, math.nan)
    value = float(statistic(counts.sum(axis=0, keepdims=True))[0])
    sums, sizes = _by_group(counts.T, groups)
    if len(sizes) < 2:
        return Interval(value, math.nan, math.nan)
    drawn = np.random.default_rng(seed).multinomial(
        len(sizes), np.full(len(sizes), 1 / len(sizes)), replicates
    )
    values = statistic(drawn @ sums.T)
    values = values[np.isfinite(values)]
    if not values.size:
        return Interval(value, math.nan, math.nan)
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def _resampled(
    table: npt.NDArray[np.float64], groups: Sequence[str], replicates: int, seed: int
) -> npt.NDArray[np.float64] | None:
    """Return the mean of each replicate, drawn over groups and seeds; None where there is one group only."""
    sums, sizes = _by_group(table, groups)
    count = len(sizes)
    if count < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), replicates)
    seeds = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), replicates) / len(table)
    means: npt.NDArray[np.float64] = ((drawn @ sums.T) * seeds).sum(axis=1) / (drawn @ sizes)
    return means


def _by_group(
    table: npt.NDArray[np.float64], groups: Sequence[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the sums (S, G) of each group, and how many items (G,) it has."""
    names, inverse = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    sums = np.stack([np.bincount(inverse, row, len(names)) for row in table]).astype(np.float64)
    return sums, np.bincount(inverse, minlength=len(names)).astype(np.float64)


EXACT_GROUPS = 12
"""Up to so many groups all ways to flip their signs are tried; beyond, `REPLICATES` of them."""


def clustered_p(
    values: npt.NDArray[np.float64], groups: Sequence[str], *, replicates: int = REPLICATES, seed: int = 0
) -> float:
    """Return a two-sided p that the mean difference is 0, by the more careful of two ways.

    The bootstrap over groups and seeds (as `clustered_interval`) knows the chance of training, but claims too much with
    few groups; flipping the signs of whole groups is exact however few there are, but takes the seeds as given. The
    larger p of the two counts.

    Parameters
    ----------
    values
        (S, N) or (N,) paired differences.
    groups
        (N,) the group of each item.

    Returns
    -------
    0..1; NaN where there are fewer than two groups.
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    means = _resampled(table, groups, replicates, seed) if table.size else None
    if means is None:
        return math.nan
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return max(min(1.0, 2 * (tail + 1) / (replicates + 1)), _sign_flip_p(table, groups, replicates, seed))


def _sign_flip_p(table: npt.NDArray[np.float64], groups: Sequence[str], replicates: int, seed: int) -> float:
    sums = _by_group(table, groups)[0].mean(axis=0)
    count = len(sums)
    exact = count <= EXACT_GROUPS
    if exact:
        signs = 1.0 - 2.0 * ((np.arange(2**count)[:, np.newaxis] >> np.arange(count)) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], (replicates, count))
    # What differs by rounding alone is as extreme as what was found.
    limit = abs(sums.sum()) - 1e-9 * np.abs(sums).sum()
    extreme = int((np.abs(signs @ sums) >= limit).sum())
    return extreme / 2**count if exact else (extreme + 1) / (replicates + 1)


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's step-down; NaN are no tests and stay NaN.

    S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).
    """
    order = sorted((value, place) for place, value in enumerate(values) if not math.isnan(value))
    corrected, least = [math.nan] * len(values), 0.0
    for rank, (value, place) in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * value))
        corrected[place] = least
    return corrected
