"""Intervals of a mean by resampling whole groups (patients, sequences), and seeds where there are several."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    names, inverse = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    if len(names) < 2:
        return Interval(float(table.mean()), math.nan, math.nan)
    sums = np.stack([np.bincount(inverse, row, len(names)) for row in table])
    sizes = np.bincount(inverse, minlength=len(names)).astype(np.float64)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), replicates)
    seeds = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), replicates) / len(table)
    means = ((drawn @ sums.T) * seeds).sum(axis=1) / (drawn @ sizes)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(table.mean()), float(low), float(high))
