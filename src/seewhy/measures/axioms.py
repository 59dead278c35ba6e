"""What a map must satisfy where its method says so."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.measures.registry import metric
from seewhy.measures.trial import Trial

Values = Float[Tensor, "batch map"]


@metric(
    "completeness",
    better="lower",
    range=(0.0, math.inf),
    source="Sundararajan et al. 2017, arXiv:1703.01365",
    passes="2",
)
def completeness(trial: Trial, *, baseline: Any = "black", relative: bool = True) -> Values:
    """How far a map's sum is from what the score rose by, from a baseline to the input: 0 for integrated gradients.

    Formula: |sum of the raw map - (score(x) - score(baseline))|, divided by |score(x) - score(baseline)| where relative.
    Options: baseline, what the method itself began at; relative. Of methods that promise no sum it says nothing.
    Elsewhere: Quantus says whether both are the same floating-point number.
    """
    rise = (trial.whole("score") - trial.blank(baseline, "score"))[:, None]
    missing = (trial.totals - rise).abs()
    return missing / rise.abs().where(rise != 0, torch.nan) if relative else missing
