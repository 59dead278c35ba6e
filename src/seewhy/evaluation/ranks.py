"""Which of several maps are better than others, by more than noise."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

LEAST = 6
"""Pictures from which anything is told apart: with five, even the same sign in all of them comes by chance in 6 % of cases."""

LEVEL = 0.05
"""How often any two maps of one metric may be told apart that are not different."""

_RESAMPLES = 2000
_PER_PAIR = 40  # resamples: Holm's smallest level is LEVEL / pairs, which must lie well above one in all resamples
_CHUNK = 1000

Floats = npt.NDArray[np.float64]
Side = Literal["better", "worse", "not told apart", "too few"]
"""How a map stands to another; "too few": on fewer pictures than are ever told apart."""


def beaten(values: Floats, *, higher: bool, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Return which maps are better than which: `(map, map)`, true where the row's is, by more than noise.

    The differences of each two maps on the same pictures are resampled (a studentised bootstrap of their mean, two-sided; Efron &
    Tibshirani 1993), and the chances of all pairs are corrected by Holm (1979).

    Args:
        values: `(picture, map)`; NaN where a map has none.
        higher: whether higher values are better.
        seed: for the resamples.
    """
    count = values.shape[1]
    pairs = list(combinations(range(count), 2))
    wins = np.zeros((count, count), bool)
    if not pairs:
        return wins
    differences = np.stack([values[:, one] - values[:, other] for one, other in pairs], 1)
    level = holm(chances(differences, seed=seed))
    for (one, other), chance, own in zip(pairs, level, differences.T, strict=True):
        if chance <= LEVEL:
            is_first = (own[np.isfinite(own)].mean() > 0) == higher
            wins[(one, other) if is_first else (other, one)] = True
    return wins


def ranks(wins: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return each map's first and last possible rank: behind those better than it, before those that it is better than.

    Where `wins` hold all together, so do these ranks (Mogstad, Romano, Shaikh & Wilhelm 2024, Review of Economic Studies).
    """
    count = len(wins)
    return [(1 + int(wins[:, each].sum()), count - int(wins[each].sum())) for each in range(count)]


def chances(differences: Floats, *, seed: int = 0) -> Floats:
    """Return for each column the chance of a mean as far from 0 if the true one were 0; 1 for fewer than LEAST pictures.

    Args:
        differences: `(picture, pair)`; NaN where a picture has none.
        seed: for the resamples.
    """
    found = np.ones(differences.shape[1])
    known = np.isfinite(differences)
    drawn = max(_RESAMPLES, _PER_PAIR * differences.shape[1])
    for pattern in np.unique(known, axis=1).T:  # pairs that have the same pictures are resampled together
        pairs = (known == pattern[:, None]).all(0)
        if pattern.sum() >= LEAST:
            found[pairs] = _studentised(differences[pattern][:, pairs], drawn, np.random.default_rng(seed))
    return found


def _studentised(values: Floats, drawn: int, generator: np.random.Generator) -> Floats:
    number = len(values)
    mean, spread = values.mean(0), values.std(0)
    far = np.abs(mean) > 1e-12
    still = spread <= 1e-9 * np.abs(mean)
    centred = values - mean
    with np.errstate(divide="ignore", invalid="ignore"):
        reached = np.abs(mean) / spread
        beyond = np.zeros(values.shape[1])
        for begin in range(0, drawn, _CHUNK):
            times = generator.multinomial(number, np.full(number, 1 / number), size=min(_CHUNK, drawn - begin)) / number
            moved = times @ centred
            wide = np.sqrt(np.maximum(times @ centred**2 - moved**2, 0))
            wide[wide <= 1e-6 * spread] = 0  # one picture drawn all the time: no spread, infinitely far
            beyond += (np.abs(moved) / wide >= reached).sum(0)
    beyond[still] = 0
    return np.where(far, (1 + beyond) / (1 + drawn), 1.0)


def holm(given: Floats) -> Floats:
    """Return chances of several questions, corrected so that all answers hold together (Holm 1979)."""
    order = np.argsort(given, kind="stable")
    raised = given[order] * np.arange(len(given), 0, -1)
    found = np.empty_like(given)
    found[order] = np.minimum(np.maximum.accumulate(raised), 1)
    return found
