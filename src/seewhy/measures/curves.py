"""How the target's probability falls while the highest places go, and rises while they come."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import MetricError
from seewhy.maps.held import Held
from seewhy.measures.cut import Cut
from seewhy.measures.registry import metric
from seewhy.measures.trial import Asked, Trial

Values = Float[Tensor, "batch map"]
Curve = Float[Tensor, "batch map step"]


def steps_of(steps: int) -> tuple[float, ...]:
    """Return the parts 0, 1/steps, ..., 1.

    Raises:
        MetricError: no step.
    """
    if steps < 1:
        raise MetricError(f"steps={steps} must be at least 1.")
    return tuple(step / steps for step in range(steps + 1))


def curve(trial: Trial, parts: tuple[float, ...], *, keeps: bool, fill: Any, of: Asked = "probability") -> Curve:
    """Return what the model says when these parts of each map are removed, or all that is kept: `(batch, map, part)`."""
    found = trial.score(Cut(parts, keeps, Held(fill)), of)
    return found.view(len(found), trial.maps.shape[1], len(parts))


def area(values: Curve) -> Values:
    """Return the area under curves over 0..1, by the trapezium rule."""
    return torch.trapezoid(values, dx=1 / (values.shape[2] - 1), dim=2)


def normalised(values: Curve, trial: Trial, fill: Any) -> Curve:
    """Return curves scaled so that the whole input is 1 and nothing of it 0; NaN where these are the same."""
    low, high = trial.blank(fill)[:, None, None], trial.whole()[:, None, None]
    gap = high - low
    return ((values - low) / gap).where(gap.abs() > 1e-6, torch.nan)


def told_area(values: Curve, trial: Trial) -> Values:
    """Return the area under curves, and tell these for figures."""
    trial.tell(values)
    return area(values)


@metric(
    "deletion",
    better="lower",
    range=(0.0, 1.0),
    source="Petsiuk et al. 2018, arXiv:1806.07421",
    passes="{steps}",
)
def deletion(trial: Trial, *, steps: int = 20, fill: Any = "blur", normalise: bool = False) -> Values:
    """The area under the target's probability while the highest places are removed, highest first.

    Formula: the integral over p in 0..1 of P(target | the highest p of all places replaced by the fill), trapezium rule.
    Options: steps, how many parts; fill, what is put there; normalise, scale P so that the whole input is 1 and none of it 0.
    """
    found = curve(trial, steps_of(steps), keeps=False, fill=fill)
    return told_area(normalised(found, trial, fill) if normalise else found, trial)


@metric(
    "insertion",
    better="higher",
    range=(0.0, 1.0),
    source="Petsiuk et al. 2018, arXiv:1806.07421",
    passes="{steps}",
)
def insertion(trial: Trial, *, steps: int = 20, fill: Any = "blur", normalise: bool = False) -> Values:
    """The area under the target's probability while the highest places are put into an empty input, highest first.

    Formula: the integral over p in 0..1 of P(target | the fill, but for the highest p of all places), trapezium rule.
    Options: steps, how many parts; fill, what the input is without them; normalise as in deletion.
    """
    found = curve(trial, steps_of(steps), keeps=True, fill=fill)
    return told_area(normalised(found, trial, fill) if normalise else found, trial)
