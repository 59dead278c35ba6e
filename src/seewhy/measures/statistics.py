"""How sure a mean over several images is."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

RESAMPLES = 2000

LEAST = 6
"""Values from which on there is an interval: of fewer it would end among resamples that drew one value nearly every time."""


def interval(values: npt.NDArray[np.floating], *, seed: int = 0, level: float = 0.95) -> tuple[float, float] | None:
    """Return the expanded bootstrap percentile interval of the mean (Hesterberg 2015, arXiv:1411.5279); None for fewer than 6.

    Args:
        values: `(image,)`; those that are not finite are left out.
        seed: for the resamples.
        level: how often such an interval holds the true mean.
    """
    known = values[np.isfinite(values)]
    if len(known) < LEAST:
        return None
    drawn = np.random.default_rng(seed).integers(len(known), size=(RESAMPLES, len(known)))
    tail = tail_of(len(known), level)
    low, high = np.quantile(known[drawn].mean(1), [tail, 1 - tail])
    return float(low), float(high)


def tail_of(number: int, level: float) -> float:
    """Return which part of the resamples' means of `number` values lies on each side of the interval, below (1 - level) / 2.

    Means of resamples spread less than those of new values, by the square root of (n - 1) / n, and have a normal's tails where a
    mean over an estimated deviation has those of Student's t.
    """
    reach = math.sqrt(number / (number - 1)) * stats.t.ppf((1 + level) / 2, number - 1)
    return float(stats.norm.cdf(-reach))
