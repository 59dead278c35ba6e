"""How few places a map names."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MetricError
from seewhy.maps.held import Held
from seewhy.measures.curves import steps_of
from seewhy.measures.cut import Cut
from seewhy.measures.registry import Wants, metric
from seewhy.measures.trial import Trial

Values = Float[Tensor, "batch map"]


@metric(
    "sparseness", better="higher", range=(0.0, 1.0), source="Chalasani et al. 2020, arXiv:1810.06583", wants=Wants.MAPS
)
def sparseness(trial: Trial) -> Values:
    """The Gini index of a map's absolute values: 0 where all places have the same, near 1 where one has all.

    Formula: sum over i = 1..d of (2 i - d - 1) v_i / (d sum v), with v the absolute values in rising order.
    """
    values = trial.maps.double().abs().flatten(2).sort(dim=2).values
    count = values.shape[2]
    weights = 2 * torch.arange(1, count + 1, dtype=torch.float64) - count - 1
    return ((values * weights).sum(2) / (count * values.sum(2))).float()


@metric(
    "complexity", better="lower", range=(0.0, math.inf), source="Bhatt et al. 2020, arXiv:2005.00631", wants=Wants.MAPS
)
def complexity(trial: Trial) -> Values:
    """The entropy of a map's absolute values, in nats: 0 where one place has all, ln d where all d have the same.

    Formula: -sum over places of p ln p, with p = |map| / sum |map|.
    """
    values = trial.maps.double().abs().flatten(2)
    shares = values / values.sum(2, keepdim=True)
    logs = torch.where(shares == 0, 0.0, shares.log())
    return -(shares * logs).sum(2).float()


@metric(
    "effective-complexity",
    better="lower",
    range=(0.0, 1.0),
    source="Nguyen & Martínez 2020, arXiv:2007.07584",
    passes="{steps}",
)
def effective_complexity(trial: Trial, *, steps: int = 20, tolerance: float = 0.1, fill: Any = "blur") -> Values:
    """The smallest part of the places, highest first, with which alone the probability is about what it is with all.

    Formula: the least k/steps with |P(target | x) - P(target | the highest k/steps of all places, else the fill)| <= tolerance
        P(target | x).
    Options: steps, how fine; tolerance, as a part of P; fill, what the input is without the other places.
    Elsewhere: Quantus counts a map's values above a threshold, and asks the model nothing.
    """
    if not 0 <= tolerance < 1:
        raise MetricError(f"tolerance={tolerance} must be from 0 to less than 1: it is a part of the probability.")
    parts = steps_of(steps)
    found = trial.score(Cut(parts, keeps=True, fill=Held(fill)))
    kept, whole = found.view(len(found), -1, steps + 1), trial.whole()[:, None, None]
    enough = (kept - whole).abs() <= tolerance * whole.abs() + 1e-6 * whole.abs()
    unknown = (kept - whole).isnan().any(2)
    return (enough.int().argmax(2) / steps).masked_fill(unknown, torch.nan)
