"""How sure a mean over several images is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000


def interval(values: npt.NDArray[np.floating], *, seed: int = 0, level: float = 0.95) -> tuple[float, float] | None:
    """Return the bootstrap percentile interval of the mean (Efron & Tibshirani 1993); None for fewer than 3 values.

    Args:
        values: `(image,)`; those that are not finite are left out.
        seed: for the resamples.
        level: how often such an interval holds the true mean.
    """
    known = values[np.isfinite(values)]
    if len(known) < 3:
        return None
    drawn = np.random.default_rng(seed).integers(len(known), size=(RESAMPLES, len(known)))
    low, high = np.quantile(known[drawn].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
